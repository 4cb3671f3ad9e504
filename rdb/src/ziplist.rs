//! The compact encodings that are only read: ziplist, zipmap, intset. (Intsets are also written: encode.rs.)
//!
//! ```text
//! ziplist   bytes u32le | tail u32le | count u16le (65535: unknown) | entry ... | 0xff
//!           entry = size of the entry before (1 byte, or 0xfe + u32le) | encoding | data
//!           00LLLLLL            string          11000000  int16        1111xxxx  0..=12, as x - 1
//!           01LLLLLL LLLLLLLL   string          11010000  int32        11110000  int24
//!           10000000 + u32be    string          11100000  int64        11111110  int8
//!
//! zipmap    count u8 (254 and more: unknown) | (len | field | len | free u8 | value | free bytes) ... | 0xff
//!           len = 1 byte, or 0xfe + u32le
//!
//! intset    width u32le (2, 4, 8) | count u32le | integers, ascending
//! ```

use crate::error::ErrorKind;
use crate::listpack::int_le;
use crate::packed::{Elements, Packed};

const ZIPLIST_HEADER_LEN: usize = 10;
const TERMINATOR: u8 = 0xff;
const LONG: u8 = 0xfe;
const COUNT_UNKNOWN: u16 = u16::MAX;

/// The elements of one ziplist.
#[derive(Clone)]
pub(crate) struct Ziplist<'a> {
    bytes: &'a [u8],
    at: usize,
    /// Where the element read last begins, and its size.
    last_at: usize,
    last_size: usize,
    seen: u64,
    count: u16,
    tail: usize,
}

impl<'a> Ziplist<'a> {
    pub(crate) fn open(bytes: &'a [u8]) -> Result<Ziplist<'a>, ErrorKind> {
        let [a, b, c, d, e, f, g, h, i, j, .., last] = *bytes else {
            return Err(ErrorKind::Ziplist("short"));
        };
        if u32::from_le_bytes([a, b, c, d]) as usize != bytes.len() {
            return Err(ErrorKind::Ziplist("size"));
        }
        if last != TERMINATOR {
            return Err(ErrorKind::Ziplist("terminator"));
        }
        Ok(Ziplist {
            bytes,
            at: ZIPLIST_HEADER_LEN,
            last_at: ZIPLIST_HEADER_LEN,
            last_size: 0,
            seen: 0,
            count: u16::from_le_bytes([i, j]),
            tail: u32::from_le_bytes([e, f, g, h]) as usize,
        })
    }

    pub(crate) fn count_hint(&self) -> u64 {
        u64::from(self.count)
    }
}

impl<'a> Elements<'a> for Ziplist<'a> {
    fn next(&mut self) -> Result<Option<Packed<'a>>, ErrorKind> {
        const OVER: ErrorKind = ErrorKind::Ziplist("element reaches over the end");
        let rest = &self.bytes[self.at..];
        let first = *rest.first().ok_or(ErrorKind::Ziplist("terminator"))?;
        if first == TERMINATOR {
            if rest.len() != 1 {
                return Err(ErrorKind::Ziplist("terminator before the end"));
            }
            if self.count != COUNT_UNKNOWN && u64::from(self.count) != self.seen {
                return Err(ErrorKind::Ziplist("count"));
            }
            if self.tail != self.last_at {
                return Err(ErrorKind::Ziplist("tail"));
            }
            return Ok(None);
        }
        // The terminator itself is no part of any element.
        let body = &rest[..rest.len() - 1];
        let take = |from: usize, len: usize| body.get(from..from + len).ok_or(OVER);
        let (before, link) = if first == LONG {
            (u32::from_le_bytes(take(1, 4)?.try_into().expect("four bytes")) as usize, 5)
        } else {
            (usize::from(first), 1)
        };
        if before != self.last_size {
            return Err(ErrorKind::Ziplist("back link"));
        }
        let encoding = take(link, 1)?[0];
        let data = link + 1;
        let int = |width: usize| Ok((Packed::Int(int_le(take(data, width)?)), data + width));
        let (element, size) = match encoding {
            0x00..=0x3f => {
                let len = usize::from(encoding);
                (Packed::Bytes(take(data, len)?), data + len)
            }
            0x40..=0x7f => {
                let len = usize::from(encoding & 0x3f) << 8 | usize::from(take(data, 1)?[0]);
                (Packed::Bytes(take(data + 1, len)?), data + 1 + len)
            }
            0x80 => {
                let len = u32::from_be_bytes(take(data, 4)?.try_into().expect("four bytes")) as usize;
                (Packed::Bytes(take(data + 4, len)?), data + 4 + len)
            }
            0xc0 => int(2)?,
            0xd0 => int(4)?,
            0xe0 => int(8)?,
            0xf0 => int(3)?,
            0xfe => int(1)?,
            0xf1..=0xfd => (Packed::Int(i64::from(encoding & 0x0f) - 1), data),
            _ => return Err(ErrorKind::Ziplist("encoding")),
        };
        self.last_at = self.at;
        self.last_size = size;
        self.at += size;
        self.seen += 1;
        Ok(Some(element))
    }
}

/// Fields and values of one zipmap, alternating.
#[derive(Clone)]
pub(crate) struct Zipmap<'a> {
    bytes: &'a [u8],
    at: usize,
    seen: u64,
}

impl<'a> Zipmap<'a> {
    pub(crate) fn open(bytes: &'a [u8]) -> Result<Zipmap<'a>, ErrorKind> {
        match bytes {
            [_, .., TERMINATOR] => Ok(Zipmap { bytes, at: 1, seen: 0 }),
            _ => Err(ErrorKind::Zipmap),
        }
    }

    pub(crate) fn count_hint(&self) -> u64 {
        u64::from(self.bytes[0])
    }
}

impl<'a> Elements<'a> for Zipmap<'a> {
    fn next(&mut self) -> Result<Option<Packed<'a>>, ErrorKind> {
        let rest = &self.bytes[self.at..];
        let first = *rest.first().ok_or(ErrorKind::Zipmap)?;
        let is_value = self.seen % 2 == 1;
        if first == TERMINATOR {
            let count = self.bytes[0];
            let agrees = count >= LONG || u64::from(count) == self.seen / 2;
            return if rest.len() == 1 && !is_value && agrees { Ok(None) } else { Err(ErrorKind::Zipmap) };
        }
        let body = &rest[..rest.len() - 1];
        let (len, mut data) = if first == LONG {
            let len = body.get(1..5).ok_or(ErrorKind::Zipmap)?;
            (u32::from_le_bytes(len.try_into().expect("four bytes")) as usize, 5)
        } else {
            (usize::from(first), 1)
        };
        let mut free = 0;
        if is_value {
            free = usize::from(*body.get(data).ok_or(ErrorKind::Zipmap)?);
            data += 1;
        }
        let element = body.get(data..data + len).ok_or(ErrorKind::Zipmap)?;
        if body.len() < data + len + free {
            return Err(ErrorKind::Zipmap);
        }
        self.at += data + len + free;
        self.seen += 1;
        Ok(Some(Packed::Bytes(element)))
    }
}

/// The members of one intset.
#[derive(Clone)]
pub(crate) struct Intset<'a> {
    rest: &'a [u8],
    width: usize,
    before: Option<i64>,
}

impl<'a> Intset<'a> {
    pub(crate) fn open(bytes: &'a [u8]) -> Result<Intset<'a>, ErrorKind> {
        let (header, rest) = bytes.split_first_chunk::<8>().ok_or(ErrorKind::Intset)?;
        let [a, b, c, d, e, f, g, h] = *header;
        let width = u32::from_le_bytes([a, b, c, d]) as usize;
        let count = u32::from_le_bytes([e, f, g, h]) as usize;
        if !matches!(width, 2 | 4 | 8) || rest.len() != width * count {
            return Err(ErrorKind::Intset);
        }
        Ok(Intset { rest, width, before: None })
    }

    pub(crate) fn count_hint(&self) -> u64 {
        (self.rest.len() / self.width) as u64
    }
}

impl<'a> Elements<'a> for Intset<'a> {
    fn next(&mut self) -> Result<Option<Packed<'a>>, ErrorKind> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let (integer, rest) = self.rest.split_at(self.width);
        let value = int_le(integer);
        if self.before.is_some_and(|before| before >= value) {
            return Err(ErrorKind::Intset);
        }
        self.before = Some(value);
        self.rest = rest;
        Ok(Some(Packed::Int(value)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Random;

    fn read<'a>(elements: Result<impl Elements<'a>, ErrorKind>) -> Result<Vec<Vec<u8>>, ErrorKind> {
        let mut elements = elements?;
        let mut all = Vec::new();
        while let Some(element) = elements.next()? {
            all.push(element.text(&mut itoa::Buffer::new()).to_vec());
        }
        Ok(all)
    }

    /// A ziplist put together by hand: (encoding and data) of each entry.
    fn ziplist(entries: &[Vec<u8>]) -> Vec<u8> {
        let (mut body, mut before, mut tail) = (Vec::new(), 0usize, ZIPLIST_HEADER_LEN);
        for entry in entries {
            tail = ZIPLIST_HEADER_LEN + body.len();
            let start = body.len();
            if before < 254 {
                body.push(before as u8);
            } else {
                body.push(LONG);
                body.extend_from_slice(&(before as u32).to_le_bytes());
            }
            body.extend_from_slice(entry);
            before = body.len() - start;
        }
        let mut bytes = ((ZIPLIST_HEADER_LEN + body.len() + 1) as u32).to_le_bytes().to_vec();
        bytes.extend_from_slice(&(tail as u32).to_le_bytes());
        bytes.extend_from_slice(&(entries.len() as u16).to_le_bytes());
        bytes.extend_from_slice(&body);
        bytes.push(TERMINATOR);
        bytes
    }

    fn example() -> Vec<u8> {
        ziplist(&[
            b"\x03abc".to_vec(),
            [&b"\x41\x2c"[..], &[b'x'; 300]].concat(),
            [&b"\x80\x00\x00\x40\x00"[..], &[b'y'; 16384]].concat(),
            vec![0xc0, 0x00, 0x80],
            vec![0xd0, 0, 0, 0, 0x80],
            vec![0xe0, 1, 0, 0, 0, 0, 0, 0, 0],
            vec![0xf0, 0xff, 0xff, 0xff],
            vec![0xfe, 0x80],
            vec![0xf1],
            vec![0xfd],
        ])
    }

    /// Every encoding of a ziplist entry reads as the text it stands for.
    #[test]
    fn ziplist_encodings() {
        let all = read(Ziplist::open(&example())).expect("well formed");
        assert_eq!(all[0], b"abc");
        assert_eq!((all[1].len(), all[2].len()), (300, 16384));
        let integers: Vec<&str> =
            all[3..].iter().map(|text| std::str::from_utf8(text).expect("digits")).collect();
        assert_eq!(integers, ["-32768", "-2147483648", "1", "-1", "-128", "0", "12"]);
        assert_eq!(read(Ziplist::open(&ziplist(&[]))), Ok(Vec::new()));
    }

    /// Wrong back link, tail, count and every truncation are refused.
    #[test]
    fn ziplist_damage() {
        let good = ziplist(&[b"\x03abc".to_vec(), b"\x02de".to_vec(), vec![0xf3]]);
        assert!(read(Ziplist::open(&good)).is_ok());
        for at in [0, 4, 8, 10, 15, 19] {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert!(read(Ziplist::open(&bad)).is_err(), "byte {at}");
        }
        for len in 0..good.len() {
            assert!(read(Ziplist::open(&good[..len])).is_err());
        }
        let (mut random, good) = (Random::new(31), example());
        for _ in 0..5000 {
            let mut bad = good.clone();
            let at = random.below(400) as usize;
            bad[at] = random.next() as u8;
            let _ = read(Ziplist::open(&bad));
        }
    }

    /// Zipmap with free bytes after a value and a long value.
    #[test]
    fn zipmap() {
        let long = [b'z'; 300];
        let good = [&b"\x02\x01a\x02\x03vvfff\x01b\xfe\x2c\x01\0\0\0"[..], &long, &[TERMINATOR]].concat();
        let all = read(Zipmap::open(&good)).expect("well formed");
        assert_eq!(all, [&b"a"[..], b"vv", b"b", &long]);
        for len in 0..good.len() {
            assert!(read(Zipmap::open(&good[..len])).is_err());
        }
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0x55;
            let _ = read(Zipmap::open(&bad));
        }
    }

    /// An intset must be ascending and of the size it declares.
    #[test]
    fn intset() {
        let set =
            |width: u32, count: u32, data: &[u8]| [&width.to_le_bytes(), &count.to_le_bytes(), data].concat();
        assert_eq!(
            read(Intset::open(&set(2, 2, &[0xff, 0xff, 1, 0]))).expect("well formed"),
            [b"-1".to_vec(), b"1".to_vec()]
        );
        assert!(read(Intset::open(&set(2, 2, &[1, 0, 1, 0]))).is_err());
        assert!(read(Intset::open(&set(2, 2, &[2, 0, 1, 0]))).is_err());
        assert!(read(Intset::open(&set(2, 3, &[1, 0, 2, 0]))).is_err());
        assert!(read(Intset::open(&set(3, 1, &[1, 0, 2]))).is_err());
        assert!(read(Intset::open(&set(8, u32::MAX, &[]))).is_err());
        assert!(read(Intset::open(&[])).is_err());
    }
}
