//! Encodings that no server at hand writes any more, or not yet, put together by hand from the format.

use damselfly_rdb::{Error, ErrorKind, FileReader, Item, Limits, Value, dump, put_string};

fn value(value_type: u8, bytes: &[u8]) -> Result<Value, ErrorKind> {
    let mut payload = vec![value_type];
    payload.extend_from_slice(bytes);
    dump::seal(&mut payload, 0);
    dump::decode_value(&payload).map_err(|error| error.kind)
}

fn string(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    put_string(&mut out, bytes);
    out
}

/// Entries of a ziplist: (encoding and data), all shorter than 254 bytes.
fn ziplist(entries: &[&[u8]]) -> Vec<u8> {
    let (mut body, mut before, mut tail) = (Vec::new(), 0, 10);
    for entry in entries {
        tail = 10 + body.len();
        body.push(before);
        body.extend_from_slice(entry);
        before = entry.len() as u8 + 1;
    }
    let total = 11 + body.len() as u32;
    let mut bytes = [&total.to_le_bytes()[..], &(tail as u32).to_le_bytes()].concat();
    bytes.extend_from_slice(&(entries.len() as u16).to_le_bytes());
    bytes.extend_from_slice(&body);
    bytes.push(0xff);
    bytes
}

fn listpack(elements: &[&[u8]]) -> Vec<u8> {
    let mut builder = damselfly_rdb::listpack::Builder::new();
    elements.iter().for_each(|element| builder.push(element));
    builder.finish().to_vec()
}

fn bytes(text: &str) -> Vec<u8> {
    text.as_bytes().to_vec()
}

/// Lists: plain strings (Redis 1), one ziplist (2.4), quicklist of ziplists (3.2).
#[test]
fn lists() {
    let expected = Ok(Value::List(vec![bytes("a"), bytes("-7"), bytes("a")]));
    assert_eq!(value(1, &[3, 1, b'a', 0xc0, 0xf9, 1, b'a']), expected);
    let both = ziplist(&[b"\x01a", b"\xfe\xf9", b"\x01a"]);
    assert_eq!(value(10, &string(&both)), expected);
    let first = ziplist(&[b"\x01a"]);
    let second = ziplist(&[b"\xc0\xf9\xff", b"\x01a"]);
    let empty = ziplist(&[]);
    let quicklist = [vec![3], string(&first), string(&empty), string(&second)].concat();
    assert_eq!(value(14, &quicklist), expected);
}

/// Hashes: zipmap (before 2.6), ziplist, and the four forms with deadlines of Redis 7.4.
#[test]
fn hashes() {
    let hash = |fields: &[(&str, &str, Option<u64>)]| {
        let field = |&(field, value, at): &(&str, &str, Option<u64>)| (bytes(field), bytes(value), at);
        Ok(Value::Hash(fields.iter().map(field).collect()))
    };
    let plain = hash(&[("f", "v", None), ("n", "12", None)]);
    assert_eq!(value(9, &string(b"\x02\x01f\x01\x02vxx\x01n\x02\x0012\xff")), plain);
    assert_eq!(value(13, &string(&ziplist(&[b"\x01f", b"\x01v", b"\x01n", b"\xfd"]))), plain);
    assert_eq!(value(13, &string(&ziplist(&[b"\x01f"]))), Err(ErrorKind::Length));
    let twice = ziplist(&[b"\x01f", b"\x01v", b"\x01f", b"\xfd"]);
    assert_eq!(value(13, &string(&twice)), Err(ErrorKind::Duplicate));

    let due = 1_800_000_000_000u64;
    let expected = hash(&[("f", "v", Some(due)), ("n", "12", None), ("g", "w", Some(due + 500))]);
    let fields = [&b"\x01f\x01v"[..], b"\x01n\xc0\x0c", b"\x01g\x01w"];
    // Offsets from the earliest deadline, one more than the difference; none is 0.
    let mut relative = due.to_le_bytes().to_vec();
    relative.push(3);
    for (offset, field) in [&[1][..], &[0], &[0x41, 0xf5]].into_iter().zip(fields) {
        relative.extend_from_slice(offset);
        relative.extend_from_slice(field);
    }
    assert_eq!(value(24, &relative), expected);
    let mut absolute = vec![3];
    for (at, field) in [due, 0, due + 500].into_iter().zip(fields) {
        damselfly_rdb::put_len(&mut absolute, at);
        absolute.extend_from_slice(field);
    }
    assert_eq!(value(22, &absolute), expected);
    let (due_text, later_text) = (due.to_string(), (due + 500).to_string());
    let triples =
        listpack(&[b"f", b"v", due_text.as_bytes(), b"n", b"12", b"0", b"g", b"w", later_text.as_bytes()]);
    assert_eq!(value(23, &string(&triples)), expected);
    assert_eq!(value(25, &[&due.to_le_bytes()[..], &string(&triples)].concat()), expected);
    let bad = listpack(&[b"f", b"v", b"-1"]);
    assert_eq!(value(23, &string(&bad)), Err(ErrorKind::Deadline));
}

/// Sorted sets: scores as text (Redis 1) and ziplist.
#[test]
fn sorted_sets() {
    let expected = |members: &[(&str, f64)]| {
        Ok(Value::ZSet(members.iter().map(|&(member, score)| (bytes(member), score)).collect()))
    };
    let text =
        [&b"\x04"[..], b"\x01a\x041.25", b"\x01b\xfe", b"\x01c\xff", b"\xc0\x07\x14-1.5000000000000e-10"];
    let text = text.concat();
    assert_eq!(
        value(3, &text),
        expected(&[("a", 1.25), ("b", f64::INFINITY), ("c", f64::NEG_INFINITY), ("7", -1.5e-10)])
    );
    assert_eq!(value(3, b"\x01\x01a\xfd"), Err(ErrorKind::Score));
    assert_eq!(value(5, &[&b"\x01\x01a"[..], &f64::NAN.to_le_bytes()].concat()), Err(ErrorKind::Score));
    let packed = ziplist(&[b"\x01a", b"\xf2", b"\x01b", b"\x031.5", b"\x01c", b"\x03inf"]);
    assert_eq!(value(12, &string(&packed)), expected(&[("a", 1.0), ("b", 1.5), ("c", f64::INFINITY)]));
}

/// Streams of before Redis 7 do not say how many entries a group has read. It is what the group's place tells, or
/// unknown, as for servers that read such a file.
#[test]
fn streams() {
    // Entries 5-0, 6-0 and 7-0, each with field f and value v, in a node of its own; given was also 8-0.
    let node = |ms: u8| {
        let node = listpack(&[b"1", b"0", b"1", b"f", b"0", b"2", b"0", b"0", b"v", b"4"]);
        [string(&[0, 0, 0, 0, 0, 0, 0, ms, 0, 0, 0, 0, 0, 0, 0, 0]), string(&node)].concat()
    };
    let stream = |last: u8, places: &[(u8, u8)]| {
        let mut bytes = [&[3][..], &node(5), &node(6), &node(7), &[3, last, 0, places.len() as u8]].concat();
        for (name, &(ms, seq)) in (b'a'..).zip(places) {
            bytes.extend([1, name, ms, seq, 0, 0]);
        }
        match value(15, &bytes) {
            Ok(Value::Stream(stream)) => {
                assert_eq!(stream.meta.entries_added, 3);
                stream.groups.into_iter().map(|group| group.entries_read).collect()
            }
            other => panic!("{other:?}"),
        }
    };
    let read: Vec<Option<u64>> = stream(8, &[(0, 0), (5, 0), (6, 0), (7, 0), (8, 0), (9, 0)]);
    assert_eq!(read, [Some(0), Some(1), None, None, Some(3), None]);
    assert_eq!(stream(7, &[(4, 9), (7, 0), (7, 1)]), [Some(0), Some(3), None]);
    let empty = value(15, &[0, 0, 8, 0, 1, 1, b'g', 8, 0, 0, 0]);
    let Ok(Value::Stream(empty)) = empty else { panic!("{empty:?}") };
    assert_eq!(empty.groups[0].entries_read, Some(0));
}

/// Module values and module data about the file are walked over in a file, refused in a payload.
#[test]
fn modules() {
    let mut items = Vec::new();
    let file = [
        &b"REDIS0008"[..],
        b"\xf7\x81\x01\x02\x03\x04\x05\x06\x07\x08\x02\x01\x05\x03aux\x00",
        b"\x07\x03mod\x81\x01\x02\x03\x04\x05\x06\x07\x08\x02\x05\x01\x05\x03\0\0\0\0\x04\0\0\0\0\0\0\0\0\x05\x01x\x00",
        b"\x00\x01k\x01v\xff\0\0\0\0\0\0\0\0",
    ]
    .concat();
    let mut sink = |item: Item<'_>| {
        items.push(format!("{item:?}"));
        Ok(())
    };
    FileReader::new(Limits::FILE).read_all(&mut &file[..], &mut sink).expect("well formed");
    assert!(items.iter().any(|item| item.contains("ModuleAux")), "{items:?}");
    assert!(items.iter().any(|item| item.contains("Module {")), "{items:?}");
    assert!(items.iter().any(|item| item.contains("String([118])")), "{items:?}");
    assert_eq!(value(7, b"\x05\x00"), Err(ErrorKind::ValueType(7)));
    assert_eq!(value(6, b"\x05\x00"), Err(ErrorKind::ValueType(6)));
}

/// Deadlines in seconds, idle times and frequencies; a file of before checksums; versions out of range.
#[test]
fn old_files() {
    let read = |file: &[u8]| -> Result<Vec<String>, Error> {
        let mut items = Vec::new();
        let mut sink = |item: Item<'_>| {
            if let Item::Key(key) = item {
                items.push(format!("{} {:?}", key.db, key.meta));
            }
            Ok(())
        };
        FileReader::new(Limits::FILE).read_all(&mut &*file, &mut sink)?;
        Ok(items)
    };
    let items = read(b"REDIS0003\xfe\x02\xfd\x10\0\0\0\x00\x01k\x01v\xff").expect("well formed");
    assert!(items[0].starts_with("2 Meta { expire_at_ms: Some(16000), sticky: false"), "{items:?}");
    let items = read(b"REDIS0009\xf8\x05\xf9\x07\x00\x01k\x01v\xff\0\0\0\0\0\0\0\0").expect("well formed");
    assert!(items[0].contains("idle_s: Some(5), freq: Some(7)"), "{items:?}");
    for (header, kind) in [
        (b"REDIS0013", ErrorKind::Version(13)),
        (b"REDIS0000", ErrorKind::Version(0)),
        (b"RUDIS0009", ErrorKind::Magic),
        (b"REDIS00x9", ErrorKind::Magic),
    ] {
        assert_eq!(read(header).map_err(|error| error.kind), Err(kind));
    }
    let wrong = b"REDIS0009\x00\x01k\x01v\xff\x01\0\0\0\0\0\0\0";
    assert_eq!(read(wrong).map_err(|error| error.kind), Err(ErrorKind::Checksum));
}

/// A Bloom filter whose bits are one string (type 33) is the same value as one in pieces (34).
#[test]
fn bloom_filters() {
    let head = [&[0][..], &2f64.to_le_bytes(), &0.01f64.to_le_bytes(), &[0, 3, 10, 1, 7]].concat();
    let whole = [&head[..], b"\x06abcdef"].concat();
    let pieces = [&head[..], b"\x06\x04abcd\x02ef"].concat();
    let Ok(Value::Bloom(bloom, filters)) = value(33, &whole) else { panic!("a Bloom filter") };
    assert_eq!((bloom.filters, bloom.max_capacity, &filters), (1, 10, &vec![(7, bytes("abcdef"))]));
    assert_eq!(value(34, &pieces), Ok(Value::Bloom(bloom, filters)));
    let short = [&head[..], b"\x06\x04abcd\x03efg"].concat();
    assert_eq!(value(34, &short), Err(ErrorKind::Sketch("pieces do not add up")));
}
