//! Against models: a `BTreeMap` of entries, and of pending entries with their owners.

use super::{AutoClaim, AutoClaimed, Claim, Effort, NodeLimits, Stream, StreamId, Trim};
use std::collections::BTreeMap;

/// xorshift64*: small, seeded, the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, end: usize) -> usize {
        ((u128::from(self.next()) * end as u128) >> 64) as usize
    }
}

type Owned = Vec<(Vec<u8>, Vec<u8>)>;

fn owned(entry: super::Entry<'_>) -> (StreamId, Owned) {
    (entry.id, entry.fields.map(|(name, value)| (name.to_vec(), value.to_vec())).collect())
}

fn append(stream: &mut Stream, id: StreamId, fields: &Owned, limits: NodeLimits) {
    let fields = fields.iter().map(|(name, value)| (&name[..], &value[..]));
    stream.append(id, fields, limits).expect("an id above the last");
}

fn id(ms: u64, seq: u64) -> StreamId {
    StreamId::new(ms, seq)
}

/// A stream with the entries 1-0, 2-0 ... and one small field each.
fn counted(entries: u64) -> Stream {
    let mut stream = Stream::new();
    for ms in 1..=entries {
        append(
            &mut stream,
            id(ms, 0),
            &vec![(b"n".to_vec(), ms.to_string().into_bytes())],
            NodeLimits::default(),
        );
    }
    stream
}

fn random_fields(random: &mut Random) -> Owned {
    let names: &[&[&str]] =
        &[&["temperature", "humidity"], &["temperature", "humidity"], &["a"], &["12", "b", ""]];
    let value = |random: &mut Random| match random.below(6) {
        0 => random.next().to_string().into_bytes(),
        1 => (random.below(300) as i64 - 150).to_string().into_bytes(),
        2 => Vec::new(),
        3 => vec![b'v'; random.below(300)],
        _ => format!("{:x}", random.next()).into_bytes(),
    };
    names[random.below(4)].iter().map(|name| (name.as_bytes().to_vec(), value(random))).collect()
}

fn random_id(random: &mut Random, stream: &Stream) -> StreamId {
    match random.below(8) {
        0 => StreamId::MIN,
        1 => StreamId::MAX,
        _ => id(random.below(stream.last_id().ms as usize + 3) as u64, random.below(4) as u64),
    }
}

fn compare(stream: &Stream, model: &BTreeMap<StreamId, Owned>, random: &mut Random) {
    stream.check();
    assert_eq!(stream.len(), model.len() as u64);
    assert_eq!(stream.first_id(), model.keys().next().copied().unwrap_or_default());
    assert!(stream.range(StreamId::MIN, StreamId::MAX).map(owned).eq(model.clone()));
    for _ in 0..30 {
        let (start, end) = (random_id(random, stream), random_id(random, stream));
        let expected: Vec<_> = model
            .iter()
            .filter(|(id, _)| (start..=end).contains(*id))
            .map(|(id, f)| (*id, f.clone()))
            .collect();
        assert!(stream.range(start, end).map(owned).eq(expected.iter().cloned()));
        assert_eq!(stream.count(start, end), expected.len() as u64);
        assert!(stream.range_reverse(start, end).map(owned).eq(expected.into_iter().rev()));
        assert_eq!(stream.get(start).map(owned), model.get(&start).map(|fields| (start, fields.clone())));
    }
}

/// Random appends, deletions and trims under several node limits, with clones held: reads agree with the model,
/// and a clone never sees what is written after it.
#[test]
fn agrees_with_the_model() {
    let limits = [(4096, 100), (0, 3), (200, 0), (4096, 1), (0, 0)];
    for (number, (bytes, entries)) in limits.into_iter().enumerate() {
        let limits = NodeLimits { bytes, entries };
        let mut random = Random(0xabc_def0 + number as u64);
        let (mut stream, mut model) = (Stream::new(), BTreeMap::new());
        let mut clones = Vec::new();
        let mut added = 0;
        let steps = if cfg!(miri) { 200 } else { 6000 };
        for step in 0..steps {
            match random.below(20) {
                0..12 => {
                    let ms = stream.last_id().ms + [0, 0, 1, 1, 2, 90][random.below(6)];
                    let next = stream.next_id_in(ms).unwrap();
                    let next =
                        if random.below(9) == 0 { id(next.ms, next.seq + random.next() % 999) } else { next };
                    let fields = random_fields(&mut random);
                    append(&mut stream, next, &fields, limits);
                    model.insert(next, fields);
                    added += 1;
                }
                12..18 => {
                    let keys: Vec<StreamId> = model.keys().copied().collect();
                    let victim = match random.below(8) {
                        0 => random_id(&mut random, &stream),
                        1 => stream.first_id(),
                        _ if keys.is_empty() => continue,
                        _ => keys[random.below(keys.len())],
                    };
                    let high = stream.max_deleted_id();
                    assert_eq!(stream.delete(victim), model.remove(&victim).is_some());
                    assert!(stream.max_deleted_id() == high || stream.max_deleted_id() == victim);
                }
                18 if random.below(8) == 0 => {
                    let len = random.below(model.len() + 2);
                    let removed = model.len().saturating_sub(len);
                    assert_eq!(stream.trim(Trim::ToLen(len as u64), Effort::Exact), removed as u64);
                    for _ in 0..removed {
                        model.pop_first();
                    }
                }
                19 if random.below(8) == 0 => {
                    let floor = random_id(&mut random, &stream);
                    let kept = model.split_off(&floor);
                    assert_eq!(stream.trim(Trim::Below(floor), Effort::Exact), model.len() as u64);
                    model = kept;
                }
                _ => {
                    let before = stream.len();
                    let target = before * 3 / 4;
                    let effort = Effort::WholeNodes { limit: 50 };
                    let removed = stream.trim(Trim::ToLen(target), effort);
                    assert!(removed <= 50 && stream.len() >= target && stream.len() + removed == before);
                    for _ in 0..removed {
                        model.pop_first();
                    }
                }
            }
            if step % (steps / 10) == 0 {
                compare(&stream, &model, &mut random);
                assert_eq!(stream.clone().heap_bytes(), stream.heap_bytes());
                clones.push((stream.clone(), model.clone()));
            }
        }
        assert_eq!(stream.entries_added(), added);
        compare(&stream, &model, &mut random);
        for (clone, model) in &clones {
            compare(clone, model, &mut random);
        }
    }
}

/// Ids must ascend, up to the very last one; what `*` and `ms-*` stand for.
#[test]
fn ids() {
    let mut stream = Stream::new();
    let limits = NodeLimits::default();
    let none = [(&b"f"[..], &b"v"[..])];
    assert!(stream.append(StreamId::MIN, none.into_iter(), limits).is_err());
    assert_eq!(stream.next_id_in(0), Some(id(0, 1)));
    assert_eq!(stream.next_id(0), Some(id(0, 1)));
    assert_eq!(stream.next_id(5), Some(id(5, 0)));
    stream.append(id(7, u64::MAX), none.into_iter(), limits).unwrap();
    assert!(stream.append(id(7, u64::MAX), none.into_iter(), limits).is_err());
    assert_eq!(stream.next_id(3), Some(id(8, 0)));
    assert_eq!((stream.next_id_in(7), stream.next_id_in(6)), (None, None));
    stream.append(StreamId::MAX, none.into_iter(), limits).unwrap();
    assert_eq!(stream.next_id(9), None);
    stream.check();
    let both = [id(7, u64::MAX), StreamId::MAX];
    assert!(stream.range(StreamId::MIN, StreamId::MAX).map(|entry| entry.id).eq(both));
}

/// Approximate trimming takes whole nodes, stops where it would take too much, and honours its limit.
#[test]
fn approximate_trimming() {
    let mut stream = counted(1000);
    let trim = |stream: &mut Stream, trim, limit| stream.trim(trim, Effort::WholeNodes { limit });
    assert_eq!(trim(&mut stream, Trim::ToLen(950), 0), 0);
    assert_eq!(trim(&mut stream, Trim::ToLen(850), 0), 100);
    assert_eq!(trim(&mut stream, Trim::ToLen(0), 250), 200);
    assert_eq!(trim(&mut stream, Trim::Below(id(450, 0)), 0), 100);
    assert_eq!(stream.first_id(), id(401, 0));
    assert_eq!(trim(&mut stream, Trim::ToLen(0), 0), 600);
    assert_eq!((stream.len(), stream.first_id(), stream.last_id()), (0, StreamId::MIN, id(1000, 0)));
    stream.check();
}

/// New entries go to whoever asks, once; history, acknowledging and claiming move them as Redis does.
#[test]
fn groups() {
    let mut stream = counted(10);
    assert!(stream.create_group(b"g", StreamId::MIN, None));
    assert!(!stream.create_group(b"g", StreamId::MIN, None));
    let mut seen = Vec::new();
    let read = stream.read_new(b"g", b"alice", 3, false, 100, |entry| seen.push(entry.id.ms));
    assert_eq!((read, &seen[..]), (Ok(3), &[1, 2, 3][..]));
    stream.read_new(b"g", b"bob", 4, false, 200, |entry| seen.push(entry.id.ms)).unwrap();
    assert_eq!(seen, [1, 2, 3, 4, 5, 6, 7]);
    stream.read_new(b"g", b"carol", 1, true, 300, |entry| seen.push(entry.id.ms)).unwrap();
    stream.check();
    let group = stream.group(b"g").unwrap();
    assert_eq!((group.last_id(), group.entries_read(), stream.lag(group)), (id(8, 0), Some(8), Some(2)));
    assert_eq!((group.pending_len(), group.pending_bounds()), (7, Some((id(1, 0), id(7, 0)))));
    let mine: Vec<(&[u8], usize)> = group.consumers().map(|c| (c.name(), c.pending_len())).collect();
    assert_eq!(mine, [(&b"alice"[..], 3), (b"bob", 4), (b"carol", 0)]);

    assert_eq!(stream.ack(b"g", [id(2, 0), id(2, 0), id(9, 0)].into_iter()), Ok(1));
    assert!(stream.delete(id(3, 0)));
    let mut history = Vec::new();
    let read = stream
        .read_pending(b"g", b"alice", StreamId::MIN, 10, 400, |id, e| history.push((id.ms, e.is_some())));
    assert_eq!((read, &history[..]), (Ok(2), &[(1, true), (3, false)][..]));
    let (owner, pending) = stream.group(b"g").unwrap().pending(id(1, 0)).unwrap();
    assert_eq!((owner.name(), pending.delivered_at_ms, pending.deliveries), (&b"alice"[..], 400, 2));

    // 4 has been idle for 300 ms at 500.
    let claim =
        Claim { min_idle_ms: 301, delivered_at_ms: 500, deliveries: None, just_id: false, force: false };
    assert!(stream.claim(b"g", b"alice", id(4, 0), claim, 500).unwrap().is_none());
    let claim = Claim { min_idle_ms: 300, ..claim };
    assert!(stream.claim(b"g", b"alice", id(4, 0), claim, 500).unwrap().is_some());
    // Gone from the stream: claiming clears it. Never delivered: only by force.
    assert!(stream.claim(b"g", b"bob", id(3, 0), claim, 500).unwrap().is_none());
    assert!(stream.group(b"g").unwrap().pending(id(3, 0)).is_none());
    assert!(stream.claim(b"g", b"bob", id(9, 0), claim, 500).unwrap().is_none());
    let forced = Claim { force: true, deliveries: Some(1 << 40), ..claim };
    assert!(stream.claim(b"g", b"bob", id(9, 0), forced, 500).unwrap().is_some());
    assert_eq!(stream.group(b"g").unwrap().pending(id(9, 0)).unwrap().1.deliveries, u32::MAX);
    stream.check();

    stream.delete(id(6, 0));
    let mut claimed = Vec::new();
    let claim = AutoClaim { min_idle_ms: 100, just_id: true, looks: 20, count: 2 };
    let done = stream.auto_claim(b"g", b"dave", id(5, 0), claim, 600, |entry| claimed.push(entry.id.ms));
    assert_eq!(done, Ok(AutoClaimed { next: id(7, 0), looks: 2, deleted: vec![id(6, 0)] }));
    assert_eq!(claimed, [5]);
    stream.check();
    assert_eq!(stream.delete_consumer(b"g", b"bob"), Ok(Some(2)));
    assert_eq!(stream.delete_consumer(b"g", b"bob"), Ok(None));
    assert_eq!(stream.create_consumer(b"g", b"eve", 1), Ok(true));
    stream.check();
    assert!(stream.destroy_group(b"g") && !stream.destroy_group(b"g"));
    assert_eq!(stream.ack(b"g", std::iter::empty()), Err(super::NoGroup));
    stream.check();
}

/// Random group commands against a map of who has what.
#[test]
fn pending_entries_agree_with_the_model() {
    let mut random = Random(4711);
    let mut stream = counted(if cfg!(miri) { 50 } else { 3000 });
    stream.create_group(b"g", StreamId::MIN, None);
    let names: Vec<Vec<u8>> = (0..7).map(|i| format!("consumer-{}", i * 5 % 7).into_bytes()).collect();
    let mut model: BTreeMap<StreamId, (Vec<u8>, u64, u32)> = BTreeMap::new();
    let mut clones = Vec::new();
    for step in 0..if cfg!(miri) { 100 } else { 4000u64 } {
        let name = &names[random.below(names.len())];
        let now = 1000 + step;
        match random.below(10) {
            0..3 => {
                let count = random.below(5);
                let deliver = |entry: super::Entry<'_>| {
                    model.insert(entry.id, (name.clone(), now, 1));
                };
                stream.read_new(b"g", name, count, false, now, deliver).unwrap();
            }
            3..6 => {
                let ids: Vec<StreamId> =
                    model.keys().copied().filter(|_| random.below(9) == 0).take(4).collect();
                assert_eq!(stream.ack(b"g", ids.iter().copied()), Ok(ids.len()));
                ids.iter().for_each(|id| drop(model.remove(id)));
            }
            6 => {
                let victim = id(random.below(3000) as u64, 0);
                stream.delete(victim);
            }
            7 => {
                let target = id(random.below(3000) as u64, 0);
                let claim = Claim {
                    min_idle_ms: 0,
                    delivered_at_ms: now,
                    deliveries: None,
                    just_id: false,
                    force: false,
                };
                let claimed = stream.claim(b"g", name, target, claim, now).unwrap().is_some();
                let exists = stream.get(target).is_some();
                assert_eq!(claimed, exists && model.contains_key(&target));
                if !exists {
                    model.remove(&target);
                } else if let Some(entry) = model.get_mut(&target) {
                    *entry = (name.clone(), now, entry.2 + 1);
                }
            }
            8 => {
                let start = id(random.below(3000) as u64, 0);
                let mut claimed = Vec::new();
                let claim = AutoClaim { min_idle_ms: 20, just_id: false, looks: 50, count: 5 };
                let done =
                    stream.auto_claim(b"g", name, start, claim, now, |entry| claimed.push(entry.id)).unwrap();
                assert!(done.looks <= 50 && claimed.len() + done.deleted.len() <= 5);
                done.deleted.iter().for_each(|id| assert!(model.remove(id).is_some()));
                for id in claimed {
                    let entry = model.get_mut(&id).unwrap();
                    assert!(now - entry.1 >= 20);
                    *entry = (name.clone(), now, entry.2 + 1);
                }
            }
            _ if random.below(40) == 0 => {
                let had = model.values().filter(|entry| entry.0 == *name).count();
                let deleted = stream.delete_consumer(b"g", name).unwrap();
                assert_eq!(deleted.unwrap_or(0), had);
                model.retain(|_, entry| entry.0 != *name);
            }
            _ => {}
        }
        if step % 200 == 0 {
            clones.push((stream.clone(), model.clone()));
        }
    }
    clones.push((stream, model));
    for (stream, model) in &clones {
        stream.check();
        let group = stream.group(b"g").unwrap();
        let all = group.pending_from(StreamId::MIN, None);
        let all: Vec<_> =
            all.map(|(id, c, p)| (id, (c.name().to_vec(), p.delivered_at_ms, p.deliveries))).collect();
        assert!(all.into_iter().eq(model.clone()));
        for consumer in group.consumers() {
            let mine = group.pending_from(id(500, 0), Some(consumer)).map(|(id, ..)| id);
            let expected = model
                .iter()
                .filter(|(at, entry)| **at >= id(500, 0) && entry.0 == consumer.name())
                .map(|(at, _)| *at);
            assert!(mine.eq(expected));
        }
    }
}

/// Lag is known while nothing was deleted ahead, unknown behind a deletion, and known again at the end.
#[test]
fn lag() {
    let mut stream = counted(5);
    stream.create_group(b"g", StreamId::MIN, None);
    let lag = |stream: &Stream| stream.lag(stream.group(b"g").unwrap());
    assert_eq!(lag(&stream), Some(5));
    stream.read_new(b"g", b"c", 1, false, 0, |_| ()).unwrap();
    assert_eq!(lag(&stream), Some(4));
    stream.delete(id(3, 0));
    assert_eq!(lag(&stream), None);
    stream.read_new(b"g", b"c", 9, false, 0, |_| ()).unwrap();
    assert_eq!((lag(&stream), stream.group(b"g").unwrap().entries_read()), (Some(0), Some(5)));
    let mut empty = Stream::new();
    empty.create_group(b"g", id(5, 0), None);
    assert_eq!(lag(&empty), Some(0));
}

/// A million-entry stream's worth of density, at a smaller size: two small fields cost what they must.
#[test]
fn entries_are_dense() {
    let mut stream = Stream::new();
    let mut random = Random(3);
    for i in 0..20_000u64 {
        let fields = vec![
            (b"temperature".to_vec(), format!("{}.{}", random.below(40), random.below(10)).into_bytes()),
            (b"humidity".to_vec(), random.below(100).to_string().into_bytes()),
        ];
        append(&mut stream, id(1_700_000_000_000 + i * 3, 0), &fields, NodeLimits::default());
    }
    let per_entry = stream.heap_bytes() as f64 / 20_000.0;
    assert!(per_entry < 14.0, "{per_entry}");
}

/// Taking apart in steps ends with nothing counted, and leaves a clone whole.
#[test]
fn freed_in_steps() {
    for shared in [false, true] {
        let mut stream = counted(if cfg!(miri) { 250 } else { 20_000 });
        stream.create_group(b"g", StreamId::MIN, None);
        stream.create_group(b"h", StreamId::MIN, None);
        stream.read_new(b"g", b"c", 9000, false, 0, |_| ()).unwrap();
        stream.read_new(b"g", b"d", 9000, false, 0, |_| ()).unwrap();
        let clone = shared.then(|| stream.clone());
        let mut steps = 0;
        while !stream.free_some(3) {
            steps += 1;
            assert!(steps < 10_000);
        }
        assert!(stream.heap_bytes() < 4096, "{}", stream.heap_bytes());
        if let Some(clone) = clone {
            clone.check();
        }
    }
}

/// After the last id was set back, entries may have ids that deleted ones had, or lie between them.
#[test]
fn set_back() {
    for live in [0, 1, 3] {
        let mut stream = Stream::new();
        let fields = [(&b"f"[..], &b"v"[..])];
        for ms in 1..=20 {
            let limits = NodeLimits { bytes: 0, entries: 8 };
            stream.append(StreamId::new(ms, 0), fields.iter().copied(), limits).expect("ascends");
        }
        for ms in live + 1..=19 {
            assert!(stream.delete(StreamId::new(ms, 0)));
        }
        // The last one goes by trimming if nothing else is left, so that its node stays.
        match live {
            0 => assert_eq!(stream.trim(Trim::ToLen(0), Effort::Exact), 1),
            _ => assert!(stream.delete(StreamId::new(20, 0))),
        }
        stream.check();
        let last = StreamId::new(live + 1, 0);
        stream.set_counters(last, stream.entries_added(), stream.max_deleted_id());
        for ms in live + 2..=12 {
            let limits = NodeLimits { bytes: 0, entries: 8 };
            stream.append(StreamId::new(ms, 5), fields.iter().copied(), limits).expect("ascends");
            stream.check();
        }
        let found: Vec<u64> = stream.range(StreamId::MIN, StreamId::MAX).map(|entry| entry.id.ms).collect();
        assert_eq!(found, (1..=live).chain(live + 2..=12).collect::<Vec<u64>>());
    }
}

/// A node stays while its last entry, which was deleted, is not below what is trimmed: so does Redis.
#[test]
fn nodes_without_entries() {
    let mut stream = Stream::new();
    for ms in 1..=3 {
        stream.append(StreamId::new(ms, 0), std::iter::empty(), NodeLimits::default()).expect("ascends");
    }
    stream.delete(StreamId::new(3, 0));
    assert_eq!(stream.trim(Trim::Below(StreamId::new(3, 0)), Effort::Exact), 2);
    assert_eq!((stream.len(), stream.nodes_len()), (0, 1));
    stream.check();
    assert_eq!(stream.range(StreamId::MIN, StreamId::MAX).count(), 0);
    assert_eq!(stream.range_reverse(StreamId::MIN, StreamId::MAX).count(), 0);
    assert_eq!(stream.trim(Trim::Below(StreamId::new(4, 0)), Effort::WholeNodes { limit: 0 }), 0);
    assert_eq!(stream.nodes_len(), 0);
    stream.check();
}
