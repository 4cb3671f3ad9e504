//! One entry for a fuzzer: every decoder, over the same arbitrary bytes.

use crate::dump;
use crate::encode::{Encoder, Target};
use crate::error::Error;
use crate::event::Event;
use crate::limits::Limits;
use crate::reader::{FileReader, Item, Progress};
use crate::value::{Collector, Value};

/// Decodes `data` as a payload, as the value of a payload, and as a file in one piece and in several; whatever
/// decodes must survive a round trip. Panics only if this crate is wrong.
pub fn fuzz_decode(data: &[u8]) {
    let _ = dump::decode_value(data);
    if let Some((&value_type, value)) = data.split_first() {
        fuzz_value(value_type, value);
    }
    let whole = read(data, usize::MAX);
    for piece in [1, 7] {
        assert_eq!(read(data, piece), whole, "pieces of {piece} make a difference");
    }
}

fn fuzz_value(value_type: u8, bytes: &[u8]) {
    let mut collector = Collector::new();
    if dump::decode(value_type, bytes, &Limits::PAYLOAD, &mut collector).is_err() {
        return;
    }
    let value = collector.finish().expect("a decoder that ends without error has sent the end");
    if value.is_empty_container() {
        return;
    }
    let mut encoder = Encoder::new(Target::Dump);
    let mut payload = Vec::new();
    dump::value(&mut encoder, &value, &mut payload);
    match (dump::decode_value(&payload).expect("our own payload"), value) {
        (Value::Set(mut again), Value::Set(mut members)) => {
            // An intset sorts; and deadlines are kept in whole seconds, later rather than earlier.
            again.sort();
            members.sort();
            let members = || members.iter().map(|(member, _)| member);
            assert!(again.iter().map(|(member, _)| member).eq(members()), "members changed");
        }
        (Value::Hash(again), Value::Hash(fields)) => {
            let plain = |fields: Vec<(Vec<u8>, Vec<u8>, Option<u64>)>| -> Vec<_> {
                fields.into_iter().map(|(field, value, _)| (field, value)).collect()
            };
            assert_eq!(plain(again), plain(fields));
        }
        (Value::Stream(again), Value::Stream(stream)) => {
            assert_eq!((again.entries, again.meta), (stream.entries, stream.meta));
        }
        (Value::Bloom(_, again), Value::Bloom(_, filters)) => assert_eq!(again, filters),
        (again, value) => assert_eq!(again, value),
    }
}

/// A number for the kind and extent of an event.
fn code_of(event: &Event<'_>) -> u64 {
    match event {
        Event::String(text) | Event::Element(text) | Event::Json(text) => 1 << 16 | text.len() as u64,
        Event::Member { member, .. } | Event::Scored { member, .. } => 2 << 16 | member.len() as u64,
        Event::Field { field, value, .. } => 3 << 16 | (field.len() + value.len()) as u64,
        Event::Entry { id, fields } => id.seq ^ fields.len() as u64,
        Event::Bytes(bytes) => 4 << 16 | bytes.len() as u64,
        Event::End => 5 << 16,
        _ => 6 << 16,
    }
}

/// What can be said of a reading without keeping it: the number of items and a digest, or the error.
fn read(data: &[u8], piece: usize) -> Result<(u64, u64), Error> {
    let mut reader = FileReader::new(Limits::FILE);
    let (mut items, mut digest) = (0u64, 0u64);
    let mut sink = |item: Item<'_>| {
        items += 1;
        let code = match item {
            Item::Key(key) => key.key.len() as u64,
            Item::Value { stream, event } => u64::from(stream) << 32 | code_of(&event),
            _ => 1 << 40,
        };
        digest = (digest.rotate_left(5) ^ code).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Ok(())
    };
    let mut pieces = data.chunks(piece.min(data.len().max(1)));
    loop {
        match reader.step(&mut sink)? {
            Progress::Again => {}
            Progress::Done => return Ok((items, digest)),
            Progress::More(_) => match pieces.next() {
                Some(piece) => reader.feed(piece),
                None => return Ok((items, digest)),
            },
        }
    }
}
