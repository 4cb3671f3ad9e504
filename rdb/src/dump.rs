//! DUMP payloads: one value with a footer.
//!
//! ```text
//! type u8 | value | version u16le | CRC-64 of all before, u64le
//! ```
//!
//! The version written is 10. Redis 7.0 refuses anything above, so 7.2's and Valkey's 11 would shut it out, and 10
//! says the truth: everything written here exists since 7.0 (types 30 to 37 are outside Redis' numbering whatever
//! the version says). Dragonfly, Redis 7.2, 7.4 and Valkey accept 10 as well; for strings the payload is the same,
//! byte for byte, as Redis 7.0 makes it.

use crate::crc64::crc64;
use crate::decode::{ValueDecoder, decode_slice};
use crate::encode::{Encoder, Shape, ValueWriter};
use crate::error::{Error, ErrorKind};
use crate::event::ValueSink;
use crate::gather::{Gathered, Gatherer};
use crate::kinds::{VERSION_MAX, opcode, value_type};
use crate::limits::Limits;
use crate::value::{Collector, Value, placed};

const VERSION: u16 = 10;
/// Bytes of the footer.
pub const FOOTER_LEN: usize = 10;

/// Checks the footer and answers the value type and the bytes of the value.
///
/// Length, version, checksum, in Redis' order. Whichever fails, the client is told `ERR DUMP payload version or
/// checksum are wrong`; everything that goes wrong later is `ERR Bad data format`.
pub fn open(payload: &[u8]) -> Result<(u8, &[u8]), ErrorKind> {
    let (&value_type, value) = content(payload)?.split_first().ok_or(ErrorKind::Truncated)?;
    Ok((value_type, value))
}

/// What is before the footer, which is checked.
fn content(payload: &[u8]) -> Result<&[u8], ErrorKind> {
    let mut checking = Checking::new(payload)?;
    while !checking.step(payload, usize::MAX)? {}
    Ok(&payload[..payload.len() - FOOTER_LEN])
}

/// The check of a footer, as [`open`] does it, in steps.
pub struct Checking {
    at: usize,
    checksum: u64,
}

impl Checking {
    /// Checks length and version.
    pub fn new(payload: &[u8]) -> Result<Checking, ErrorKind> {
        let (_, footer) = payload.split_last_chunk::<FOOTER_LEN>().ok_or(ErrorKind::Truncated)?;
        let version = u32::from(u16::from_le_bytes([footer[0], footer[1]]));
        if version > VERSION_MAX {
            Err(ErrorKind::Version(version))
        } else {
            Ok(Checking { at: 0, checksum: 0 })
        }
    }

    /// Goes over so many more bytes; true if those were the last. `payload` is the same every time.
    pub fn step(&mut self, payload: &[u8], len: usize) -> Result<bool, ErrorKind> {
        let (content, checksum) = payload.split_last_chunk::<8>().ok_or(ErrorKind::Truncated)?;
        let end = self.at.saturating_add(len).min(content.len());
        self.checksum = crc64(self.checksum, &content[self.at..end]);
        self.at = end;
        if end < content.len() {
            return Ok(false);
        }
        if self.checksum == u64::from_le_bytes(*checksum) { Ok(true) } else { Err(ErrorKind::Checksum) }
    }
}

/// Appends the footer to the payload that begins at `start`.
pub fn seal(out: &mut Vec<u8>, start: usize) {
    let checksum = crc64(0, &out[start..]);
    out.extend_from_slice(&footer(checksum));
}

/// Makes the checksum of a payload the one that its bytes have, if it is long enough to have one: for tests of what
/// decoders do with bytes that nobody would have sealed.
pub fn mend(payload: &mut [u8]) {
    if let Some((content, checksum)) = payload.split_last_chunk_mut::<8>() {
        *checksum = crc64(0, content).to_le_bytes();
    }
}

/// The footer behind bytes that have this checksum, for a payload that is carried away as it is made.
pub fn footer(checksum: u64) -> [u8; FOOTER_LEN] {
    let mut footer = [0; FOOTER_LEN];
    footer[..2].copy_from_slice(&VERSION.to_le_bytes());
    let checksum = crc64(checksum, &footer[..2]);
    footer[2..].copy_from_slice(&checksum.to_le_bytes());
    footer
}

/// Appends the payload of a string.
pub fn string(encoder: &mut Encoder, value: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    out.push(value_type::STRING);
    encoder.string(out, value);
    seal(out, start);
}

/// Appends the payload of any value that is at hand as a [`Value`].
pub fn value(encoder: &mut Encoder, value: &Value, out: &mut Vec<u8>) {
    let start = out.len();
    let mut writer = begin(encoder, value.shape(), out);
    value.write(&mut writer, encoder, out);
    seal(out, start);
}

/// Begins the payload of a value of that shape; the events follow through the writer, then [`seal`].
pub fn begin(encoder: &mut Encoder, shape: Shape, out: &mut Vec<u8>) -> ValueWriter {
    out.push(shape.value_type(encoder.target()));
    ValueWriter::new(encoder, shape)
}

/// Tells `sink` the value of a payload whose footer [`open`] has checked.
///
/// The bytes must be used up: Redis does not look, but no server writes such a payload.
pub fn decode(value_type: u8, bytes: &[u8], limits: &Limits, sink: &mut impl ValueSink) -> Result<(), Error> {
    let mut decoding = Decoding::new(value_type, limits)?;
    while !decoding.step(bytes, sink)? {}
    Ok(())
}

/// A payload's value on its way through a decoder, as [`decode`] tells it, in steps.
pub struct Decoding {
    decoder: ValueDecoder,
    at: usize,
}

impl Decoding {
    /// Begins; nothing is told yet.
    pub fn new(value_type: u8, limits: &Limits) -> Result<Decoding, Error> {
        if value_type == value_type::MODULE_2 {
            return Err(placed(ErrorKind::ValueType(value_type), 0));
        }
        let decoder = ValueDecoder::new(value_type, *limits).map_err(|kind| placed(kind, 0))?;
        Ok(Decoding { decoder, at: 0 })
    }

    /// Tells some of the value; true if that was the end. `bytes` are the same every time.
    pub fn step(&mut self, bytes: &[u8], sink: &mut impl ValueSink) -> Result<bool, Error> {
        self.at = self.decoder.step_in(bytes, self.at, sink).map_err(|(kind, at)| placed(kind, at))?;
        match self.decoder.is_done() {
            true if self.at < bytes.len() => Err(placed(ErrorKind::Trailing, self.at)),
            is_done => Ok(is_done),
        }
    }
}

/// Appends the payload of FUNCTION DUMP: the sources of libraries, each behind the opcode that it has in a file.
pub fn functions<'a>(sources: impl Iterator<Item = &'a [u8]>, encoder: &mut Encoder, out: &mut Vec<u8>) {
    let start = out.len();
    for source in sources {
        out.push(opcode::FUNCTION_2);
        encoder.string(out, source);
    }
    seal(out, start);
}

/// Checks a payload of FUNCTION DUMP and answers the sources in it.
pub fn decode_functions(payload: &[u8]) -> Result<Vec<Vec<u8>>, Error> {
    let content = content(payload).map_err(|kind| placed(kind, 0))?;
    let (mut sources, mut at) = (Vec::new(), 0);
    while let Some(&kind) = content.get(at) {
        if kind != opcode::FUNCTION_2 {
            return Err(placed(ErrorKind::ValueType(kind), at));
        }
        let mut collector = Collector::new();
        let behind = &content[at + 1..];
        let end = decode_slice(value_type::STRING, behind, &Limits::PAYLOAD, &mut collector)
            .map_err(|(kind, offset)| placed(kind, offset))?;
        let Some(Value::String(source)) = collector.finish() else { unreachable!("a string was decoded") };
        sources.push(source);
        at += 1 + end;
    }
    Ok(sources)
}

/// As [`decode_value`], for who stores the value. Whether its elements differ is his to see.
pub fn decode_gathered(payload: &[u8]) -> Result<Gathered, Error> {
    let (value_type, bytes) = open(payload).map_err(|kind| placed(kind, 0))?;
    let mut gatherer = Gatherer::new();
    decode(value_type, bytes, &Limits::PAYLOAD, &mut gatherer)?;
    let value = gatherer.take().expect("a decoder that ends without error has sent the end");
    if value.is_empty_container() { Err(placed(ErrorKind::Empty, bytes.len())) } else { Ok(value) }
}

/// Checks and decodes a whole payload. Empty containers are refused, as RESTORE does.
pub fn decode_value(payload: &[u8]) -> Result<Value, Error> {
    let (value_type, bytes) = open(payload).map_err(|kind| placed(kind, 0))?;
    let mut collector = Collector::new();
    decode(value_type, bytes, &Limits::PAYLOAD, &mut collector)?;
    let value = collector.finish().expect("a decoder that ends without error has sent the end");
    if value.is_empty_container() { Err(placed(ErrorKind::Empty, bytes.len())) } else { Ok(value) }
}
