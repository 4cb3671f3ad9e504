//! Bytes that no honest server wrote: every outcome but an error or a value is a fault. The allocator counts, so
//! that "no large allocation" is a measurement.

mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use damselfly_rdb::{
    Encoder, ErrorKind, Event, Limits, Target, Value, crc64, dump, fuzz_decode, listpack, put_len,
};
use support::*;

/// Remembers the largest single request since it was last asked.
struct Counting;

static LARGEST: AtomicUsize = AtomicUsize::new(0);

#[expect(unsafe_code, reason = "an allocator that only passes on and takes notes")]
// SAFETY: every call goes to the system's allocator unchanged, which upholds the contract.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LARGEST.fetch_max(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        LARGEST.fetch_max(size, Ordering::Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.realloc(at, layout, size) }
    }
}

/// The measurement is of the process, so the tests of this file take turns.
static TURN: Mutex<()> = Mutex::new(());

fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// All payloads of all servers.
fn payloads() -> Vec<Vec<u8>> {
    let mut payloads = Vec::new();
    for name in ["redis-7.0.15", "redis-7.2.5", "dragonfly-1.40.1"] {
        let path = fixtures().join(format!("dump-payloads/{name}.jsonl"));
        for line in std::fs::read_to_string(path).expect("readable").lines() {
            payloads.extend(Json::parse(line).get("payload_b64").map(|text| from_base64(text.text())));
        }
    }
    payloads
}

/// Gives a payload the right checksum again, so that damage reaches the decoders behind it.
fn reseal(payload: &mut [u8]) {
    let at = payload.len() - 8;
    let checksum = crc64(0, &payload[..at]);
    payload[at..].copy_from_slice(&checksum.to_le_bytes());
}

/// Every payload cut at every byte: never a value, because no value can end early.
#[test]
fn truncated_payloads() {
    let _turn = turn();
    for payload in payloads() {
        for len in 0..payload.len() {
            assert!(dump::decode_value(&payload[..len]).is_err());
        }
        let (value_type, value) = dump::open(&payload).expect("recorded");
        for len in 0..value.len() {
            let mut sink = |_: Event<'_>| Ok(());
            assert!(dump::decode(value_type, &value[..len], &Limits::PAYLOAD, &mut sink).is_err());
        }
    }
}

/// Bits flipped in every payload, with a right checksum. What still decodes can be written and read again.
#[test]
fn damaged_payloads() {
    let _turn = turn();
    let mut random = Random::new(201);
    let payloads = payloads();
    LARGEST.store(0, Ordering::Relaxed);
    let (mut values, mut errors) = (0, 0);
    for payload in &payloads {
        for _ in 0..60 {
            let mut bad = payload.clone();
            for _ in 0..=random.below(3) {
                let at = random.below(bad.len() as u64 - 10) as usize;
                match random.below(3) {
                    0 => bad[at] ^= 1 << random.below(8),
                    1 => bad[at] = random.next() as u8,
                    _ => bad[at] = [0, 0x7f, 0x80, 0x81, 0xc3, 0xff][random.below(6) as usize],
                }
            }
            reseal(&mut bad);
            match dump::decode_value(&bad) {
                Ok(_) => values += 1,
                Err(_) => errors += 1,
            }
            fuzz_decode(&bad[..bad.len() - 10]);
        }
    }
    assert!(values > 1000 && errors > 1000, "{values} values, {errors} errors");
    // Payloads are below 3000 bytes; LZF may honestly make 88 times as much of them.
    let largest = LARGEST.load(Ordering::Relaxed);
    assert!(largest < 2 << 20, "{largest}");
}

/// Every snapshot file cut at some 60 places, and damaged in 40 ways.
#[test]
fn damaged_files() {
    let _turn = turn();
    let mut random = Random::new(202);
    for folder in snapshot_folders() {
        for file in snapshot_files(&folder) {
            let bytes = std::fs::read(&file).expect("readable");
            let end = bytes.len() - read_file_leftover(&bytes);
            let step = (end / 60).max(1) + 1;
            for len in (0..end).step_by(step) {
                assert!(read_file(&bytes[..len]).is_err(), "{} cut at {len}", file.display());
            }
            LARGEST.store(0, Ordering::Relaxed);
            for _ in 0..40.min(end) {
                let mut bad = bytes.clone();
                for _ in 0..=random.below(4) {
                    let at = random.below(end as u64) as usize;
                    bad[at] = if random.below(2) == 0 {
                        random.next() as u8
                    } else {
                        bad[at] ^ 1 << random.below(8)
                    };
                }
                let _ = read_file(&bad);
            }
            // Three buffers of a reader, the collected values of one file, a zstd window at its most.
            let largest = LARGEST.load(Ordering::Relaxed);
            assert!(largest < 80 << 20, "{largest}");
        }
    }
}

fn read_file_leftover(bytes: &[u8]) -> usize {
    let mut reader = damselfly_rdb::FileReader::new(Limits::FILE);
    reader.feed(bytes);
    while reader.step(&mut |_: damselfly_rdb::Item<'_>| Ok(())).expect("recorded")
        != damselfly_rdb::Progress::Done
    {}
    reader.leftover().len()
}

/// Short arbitrary bytes through every decoder, biased towards bytes that mean something.
#[test]
fn arbitrary_bytes() {
    let _turn = turn();
    let mut random = Random::new(203);
    for round in 0..150_000u64 {
        let len = random.below(120) as usize;
        let mut bytes = random.bytes(len);
        for byte in &mut bytes {
            *byte = match random.below(4) {
                0 => *byte & 0x1f,
                1 => [0x80, 0x81, 0xc0, 0xc1, 0xc2, 0xc3, 201, 202, 210, 220, 224, 247, 250, 252, 254, 255]
                    [random.below(16) as usize],
                _ => *byte,
            };
        }
        if round % 2 == 0 {
            bytes.splice(0..0, *b"REDIS0011");
        } else if let Some(first) = bytes.first_mut() {
            *first %= 38;
        }
        fuzz_decode(&bytes);
    }
}

/// Sizes and counts that claim what is not there cost nothing.
#[test]
fn claims_cost_nothing() {
    let _turn = turn();
    LARGEST.store(0, Ordering::Relaxed);
    for claim in [1u64 << 16, 1 << 28, 1 << 29, 1 << 40, u64::MAX] {
        for value_type in 0..=40u8 {
            for prefix in [&b""[..], &[0xc3], &[0xc3, 0x05], &[0; 8], &[1, 1], &[0; 17], &[1, 0x10], &[2, 2]]
            {
                let mut bytes = prefix.to_vec();
                put_len(&mut bytes, claim);
                put_len(&mut bytes, claim);
                bytes.extend_from_slice(b"the rest");
                let result = dump::decode(value_type, &bytes, &Limits::PAYLOAD, &mut |_: Event<'_>| Ok(()));
                // Behind a prefix some of these claims become content by chance.
                assert!(result.is_err() || !prefix.is_empty(), "{value_type} {bytes:?}");
                // And as a file, whose end never comes.
                let mut file = b"REDIS0010".to_vec();
                file.push(value_type);
                file.extend_from_slice(&bytes);
                assert!(read_file(&file).is_err() || !prefix.is_empty());
                file[9] = 201;
                assert!(read_file(&file).is_err());
            }
        }
    }
    let largest = LARGEST.load(Ordering::Relaxed);
    assert!(largest <= 2 << 20, "{largest}");
}

fn payload_of(value_type: u8, blob: &[u8]) -> Vec<u8> {
    let mut payload = vec![value_type];
    put_len(&mut payload, blob.len() as u64);
    payload.extend_from_slice(blob);
    dump::seal(&mut payload, 0);
    payload
}

/// Duplicates in compact encodings, in either form of an element, are refused from clients.
#[test]
fn duplicates() {
    let _turn = turn();
    let kind = |value_type, elements: &[&[u8]]| {
        let mut builder = listpack::Builder::new();
        elements.iter().for_each(|element| builder.push(element));
        dump::decode_value(&payload_of(value_type, builder.finish())).map_err(|error| error.kind)
    };
    assert_eq!(kind(20, &[b"a", b"b", b"a"]), Err(ErrorKind::Duplicate));
    assert_eq!(kind(16, &[b"a", b"1", b"a", b"2"]), Err(ErrorKind::Duplicate));
    assert_eq!(kind(17, &[b"7", b"1", b"7", b"2"]), Err(ErrorKind::Duplicate));
    assert!(kind(16, &[b"a", b"a", b"b", b"a"]).is_ok());
    assert_eq!(kind(16, &[b"a", b"1", b"b"]), Err(ErrorKind::Length));
    assert_eq!(kind(17, &[b"a", b"nan"]), Err(ErrorKind::Score));
    assert_eq!(kind(17, &[b"a", b"x"]), Err(ErrorKind::Score));
    assert_eq!(kind(16, &[]), Err(ErrorKind::Empty));
    // The integer 7 and the string "7".
    let mixed = [14, 0, 0, 0, 2, 0, 0x07, 0x01, 0x81, b'7', 0x02, 0xff];
    let mut mixed = mixed.to_vec();
    mixed[0] = mixed.len() as u8;
    assert_eq!(
        dump::decode_value(&payload_of(20, &mixed)).map_err(|error| error.kind),
        Err(ErrorKind::Duplicate)
    );
}

/// The footer is checked in Redis' order: length, version, checksum.
#[test]
fn footer() {
    let _turn = turn();
    let mut encoder = Encoder::new(Target::Dump);
    let mut payload = Vec::new();
    dump::value(&mut encoder, &Value::String(b"hello".to_vec()), &mut payload);
    assert_eq!(dump::open(b"too short"), Err(ErrorKind::Truncated));
    let version = payload.len() - 10;
    for (number, expected) in [(13, Err(ErrorKind::Version(13))), (11, Err(ErrorKind::Checksum))] {
        let mut bad = payload.clone();
        bad[version] = number;
        assert_eq!(dump::open(&bad).map(drop), expected);
    }
    for number in 1..=12 {
        let mut good = payload.clone();
        good[version] = number;
        reseal(&mut good);
        assert_eq!(dump::decode_value(&good), Ok(Value::String(b"hello".to_vec())));
    }
}

/// A short stream node cannot stand for gigabytes: entries repeat the field names of their node.
#[test]
fn stream_node_bomb() {
    let _turn = turn();
    let mut node = listpack::Builder::new();
    let entries = 20_000;
    [entries, 0, 1].iter().for_each(|&number| node.push_int(number));
    node.push(&vec![b'f'; 100_000]);
    node.push_int(0);
    for number in 0..entries {
        [2, number, 0, 0, 4].iter().for_each(|&element| node.push_int(element));
    }
    let mut payload = vec![19, 1, 16];
    payload.extend_from_slice(&[0; 16]);
    let node = node.finish();
    put_len(&mut payload, node.len() as u64);
    payload.extend_from_slice(node);
    dump::seal(&mut payload, 0);
    let error = dump::decode_value(&payload).expect_err("2 GB out of 300 KB");
    assert_eq!(error.kind, ErrorKind::TooLarge("text of a stream node"));
}

/// Blobs inside blobs, ends inside blobs and items cut by the end of their blob are refused.
#[test]
fn blobs() {
    let _turn = turn();
    let blob = |content: &[u8]| {
        let mut frame = lz4_flex::frame::FrameEncoder::new(Vec::new());
        std::io::Write::write_all(&mut frame, content).expect("memory");
        let frame = frame.finish().expect("memory");
        let mut item = vec![202];
        put_len(&mut item, frame.len() as u64);
        [item, frame].concat()
    };
    let file = |items: &[u8]| {
        let file = [&b"REDIS0009"[..], items, &[255], &[0; 8]].concat();
        read_file(&file).map(|contents| contents.keys.len()).map_err(|error| error.kind)
    };
    let key = b"\x00\x03key\x05value";
    assert_eq!(file(&blob(key)), Ok(1));
    assert_eq!(file(&[blob(key), blob(b"\x00\x02no\x01x")].concat()), Ok(2));
    assert_eq!(file(&blob(&blob(key))), Err(ErrorKind::Blob("blob inside a blob")));
    assert_eq!(file(&blob(b"\xff\0\0\0\0\0\0\0\0")), Err(ErrorKind::Blob("end of file inside a blob")));
    for len in 1..key.len() {
        assert_eq!(file(&blob(&key[..len])), Err(ErrorKind::Truncated));
    }
    let chunk = |id: u32, content: &[u8]| {
        [&[224][..], &id.to_le_bytes(), &(content.len() as u32).to_le_bytes(), content].concat()
    };
    assert_eq!(file(&[chunk(1, b"\x02\x03key"), chunk(1, b"\x01"), chunk(1, b"\x01m")].concat()), Ok(1));
    assert_eq!(file(&chunk(0, key)), Err(ErrorKind::Chunk("number 0")));
    assert_eq!(file(&chunk(1, b"\x02\x03key\x01")), Err(ErrorKind::Chunk("a value without end")));
    assert_eq!(file(&chunk(1, b"\x02\x03key\x01\x01mx")), Err(ErrorKind::Chunk("bytes after its value")));
}
