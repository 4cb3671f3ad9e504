//! Filters and sketches as a real Dragonfly stored them must answer here as they answered there, and be stored again
//! as the same bytes. This is what fixes the hash functions, seeds, bit orders and roundings.
//!
//! `data/dragonfly-1.40.1.txt` holds, per key, the value's bytes in the snapshot and the replies to a list of probes.

use damselfly_sketches::blocks::Blocks;
use damselfly_sketches::bloom::{self, Bloom, Filter};
use damselfly_sketches::cms::CountMin;
use damselfly_sketches::cuckoo::{self, Cuckoo};
use damselfly_sketches::topk::TopK;
use std::collections::BTreeMap;

struct Key {
    value: Vec<u8>,
    answers: BTreeMap<&'static str, Vec<&'static str>>,
}

struct Recording {
    probes: Vec<&'static str>,
    keys: BTreeMap<&'static str, Key>,
}

impl Recording {
    fn read() -> Recording {
        let mut recording = Recording { probes: Vec::new(), keys: BTreeMap::new() };
        let mut key = "";
        for line in include_str!("data/dragonfly-1.40.1.txt").lines().filter(|line| !line.starts_with('#')) {
            let (word, rest) = line.split_once(' ').expect("a word and its arguments");
            let words: Vec<_> = rest.split(' ').collect();
            match word {
                "probes" => {
                    recording.probes =
                        words.into_iter().map(|word| if word == "-" { "" } else { word }).collect();
                }
                "key" => key = words[0],
                "value" => {
                    let hex = |at: usize| u8::from_str_radix(&rest[at..at + 2], 16).expect("hex");
                    let value = (0..rest.len()).step_by(2).map(hex).collect();
                    recording.keys.insert(key, Key { value, answers: BTreeMap::new() });
                }
                name => {
                    recording.keys.get_mut(key).expect("a value came first").answers.insert(name, words);
                }
            }
        }
        recording
    }

    fn check(&self, key: &str, question: &str, answer: impl Fn(&[u8]) -> i64) {
        let expected = &self.keys[key].answers[question];
        for (probe, expected) in self.probes.iter().zip(expected) {
            let expected: i64 = expected.parse().expect("a number");
            assert_eq!(answer(probe.as_bytes()), expected, "{key} {question} {probe:?}");
        }
    }
}

/// Reads the bytes of a value.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> &'a [u8] {
        let (head, rest) = self.0.split_at(len);
        self.0 = rest;
        head
    }

    fn len(&mut self) -> u64 {
        let first = self.take(1)[0];
        match first >> 6 {
            0 => u64::from(first),
            1 => u64::from(first & 63) << 8 | u64::from(self.take(1)[0]),
            2 if first == 0x80 => u64::from(u32::from_be_bytes(self.take(4).try_into().expect("four"))),
            2 => u64::from_be_bytes(self.take(8).try_into().expect("eight")),
            _ => panic!("no encoded strings in the recording"),
        }
    }

    fn f64(&mut self) -> f64 {
        f64::from_le_bytes(self.take(8).try_into().expect("eight"))
    }

    /// A total length, then pieces.
    fn pieces(&mut self) -> Blocks {
        let total = self.len();
        let mut blocks = Blocks::zeroed(total).expect("short");
        let mut at = 0;
        while at < total as usize {
            let len = self.len() as usize;
            assert!(blocks.write(at, self.take(len)));
            at += len;
        }
        blocks
    }
}

/// Writes them again, to compare.
#[derive(Default)]
struct Writer(Vec<u8>);

impl Writer {
    fn len(&mut self, len: u64) {
        match len {
            0..64 => self.0.push(len as u8),
            64..16384 => self.0.extend_from_slice(&(len as u16 | 0x4000).to_be_bytes()),
            _ => {
                if let Ok(len) = u32::try_from(len) {
                    self.0.push(0x80);
                    self.0.extend_from_slice(&len.to_be_bytes());
                } else {
                    self.0.push(0x81);
                    self.0.extend_from_slice(&len.to_be_bytes());
                }
            }
        }
    }

    fn f64(&mut self, number: f64) {
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    fn pieces(&mut self, blocks: &Blocks) {
        self.len(blocks.len() as u64);
        self.len(blocks.len() as u64);
        self.0.extend_from_slice(&blocks.to_vec());
    }
}

fn bloom(value: &[u8]) -> Bloom {
    let mut reader = Reader(value);
    let options = reader.len();
    let grow_factor = reader.f64();
    let error_rate = reader.f64();
    let (prev_size, current_size, max_capacity) = (reader.len(), reader.len(), reader.len());
    let state = bloom::State { grow_factor, error_rate, prev_size, current_size, max_capacity };
    let filters = (0..reader.len())
        .map(|_| {
            let hashes = reader.len();
            Filter::new(hashes, reader.pieces()).expect("a real filter")
        })
        .collect();
    assert!(reader.0.is_empty());
    Bloom::from_parts(options, state, filters).expect("a real filter")
}

fn bloom_bytes(bloom: &Bloom) -> Vec<u8> {
    let mut writer = Writer::default();
    let state = bloom.state();
    writer.len(bloom.options());
    writer.f64(state.grow_factor);
    writer.f64(state.error_rate);
    for number in [state.prev_size, state.current_size, state.max_capacity, bloom.filters().len() as u64] {
        writer.len(number);
    }
    for filter in bloom.filters() {
        writer.len(u64::from(filter.hashes()));
        writer.pieces(filter.bytes());
    }
    writer.0
}

#[test]
fn bloom_filters_answer_as_recorded() {
    let recording = Recording::read();
    for key in ["bf:default", "bf:reserved", "bf:scaled"] {
        let bloom = bloom(&recording.keys[key].value);
        recording.check(key, "exists", |probe| i64::from(bloom.exists(probe).expect("loaded")));
        assert_eq!(bloom_bytes(&bloom), recording.keys[key].value, "{key}");
    }
}

/// The same commands give the same bytes, growth included.
#[test]
fn bloom_filters_are_built_as_recorded() {
    let recording = Recording::read();
    let build = |rate, capacity, items: &mut dyn Iterator<Item = String>| {
        let mut bloom = Bloom::new(rate, capacity, Some(2)).expect("in range");
        for item in items {
            bloom.add(item.as_bytes()).expect("not loading");
        }
        bloom_bytes(&bloom)
    };
    let reserved = build(0.001, 1000, &mut (0..200).map(|n| format!("item{n}")));
    assert_eq!(reserved, recording.keys["bf:reserved"].value);
    let scaled = build(0.01, 10, &mut (0..500).map(|n| format!("item{n}")));
    assert_eq!(scaled, recording.keys["bf:scaled"].value);
    let default = build(bloom::ERROR_RATE_DEFAULT, 0, &mut std::iter::once("only".to_owned()));
    assert_eq!(default, recording.keys["bf:default"].value);
}

fn cuckoo(value: &[u8]) -> Cuckoo {
    let mut reader = Reader(value);
    let state = cuckoo::State {
        bucket_size: reader.len() as u8,
        max_iterations: reader.len() as u16,
        expansion: reader.len() as u16,
        buckets: reader.len(),
        items: reader.len(),
        deletes: reader.len(),
    };
    let filters = (0..reader.len()).map(|_| reader.pieces()).collect();
    assert!(reader.0.is_empty());
    Cuckoo::from_parts(state, filters).expect("a real filter")
}

fn cuckoo_bytes(cuckoo: &Cuckoo) -> Vec<u8> {
    let mut writer = Writer::default();
    let state = cuckoo.state();
    for number in [
        u64::from(state.bucket_size),
        u64::from(state.max_iterations),
        u64::from(state.expansion),
        state.buckets,
        state.items,
        state.deletes,
        cuckoo.filters().len() as u64,
    ] {
        writer.len(number);
    }
    for filter in cuckoo.filters() {
        writer.pieces(filter);
    }
    writer.0
}

#[test]
fn cuckoo_filters_answer_as_recorded() {
    let recording = Recording::read();
    for key in ["cf:reserved", "cf:options"] {
        let cuckoo = cuckoo(&recording.keys[key].value);
        recording.check(key, "exists", |probe| i64::from(cuckoo.exists(probe)));
        recording.check(key, "count", |probe| cuckoo.count(probe) as i64);
        assert_eq!(cuckoo_bytes(&cuckoo), recording.keys[key].value, "{key}");
    }
}

/// The same commands give the same bytes: order of search, pushing aside, growth and deletion.
#[test]
fn cuckoo_filters_are_built_as_recorded() {
    let recording = Recording::read();
    let options = cuckoo::Options { capacity: 1000, ..Default::default() };
    let mut reserved = Cuckoo::new(options).expect("in range");
    for n in (0..100).chain([7]) {
        reserved.add(format!("item{n}").as_bytes()).expect("room");
    }
    assert!(reserved.delete(b"item50"));
    assert_eq!(cuckoo_bytes(&reserved), recording.keys["cf:reserved"].value);

    let options = cuckoo::Options { capacity: 64, bucket_size: 4, max_iterations: 10, expansion: 2 };
    let mut chained = Cuckoo::new(options).expect("in range");
    for n in 0..200 {
        chained.add(format!("item{n}").as_bytes()).expect("room");
    }
    assert_eq!(cuckoo_bytes(&chained), recording.keys["cf:options"].value);
}

#[test]
fn count_min_sketches_answer_as_recorded() {
    let recording = Recording::read();
    for key in ["cms:dim", "cms:prob"] {
        let mut reader = Reader(&recording.keys[key].value);
        let (width, depth, total) = (reader.len() as u32, reader.len() as u32, reader.len() as i64);
        let counters = reader.0;
        let blocks = Blocks::from_bytes(counters).expect("short");
        let loaded = CountMin::from_parts(width, depth, total, blocks).expect("a real sketch");
        recording.check(key, "count", |probe| loaded.query(probe));

        let built = match key {
            "cms:dim" => {
                let mut sketch = CountMin::by_dimensions(200, 5).expect("in range");
                for n in 0..50 {
                    sketch.increment(format!("item{n}").as_bytes(), n + 1);
                }
                sketch
            }
            _ => {
                let mut sketch = CountMin::by_probability(0.01, 0.01).expect("in range");
                sketch.increment(b"item0", 5);
                sketch.increment(b"item1", 4_000_000_000);
                sketch
            }
        };
        assert_eq!((built.width(), built.depth(), built.total()), (width, depth, total));
        assert!(built.counters().to_vec() == counters, "{key}");
    }
}

#[test]
fn top_k_sketches_answer_as_recorded() {
    let recording = Recording::read();
    for key in ["topk:small", "topk:params"] {
        let value = &recording.keys[key].value;
        let mut reader = Reader(value);
        assert_eq!(reader.len(), 0);
        let (k, width, depth) = (reader.len() as u32, reader.len() as u32, reader.len() as u32);
        let decay = reader.f64();
        let items: Vec<_> = (0..reader.len())
            .map(|_| {
                let len = reader.len() as usize;
                (reader.take(len).to_vec(), reader.len() as u32)
            })
            .collect();
        let len = reader.len() as usize;
        assert_eq!(reader.0.len(), len);
        let counters = Blocks::from_bytes(reader.0).expect("short");
        let sketch = TopK::from_parts(k, width, depth, decay, items, counters).expect("a real sketch");
        recording.check(key, "query", |probe| i64::from(sketch.query(probe)));
        let list: Vec<_> = sketch
            .list()
            .iter()
            .flat_map(|entry| [String::from_utf8_lossy(&entry.item).into_owned(), entry.count.to_string()])
            .collect();
        assert_eq!(list, recording.keys[key].answers["list"]);
        // The items' cells lie where the counters say: without the heap, the smallest counter is the count.
        if key == "topk:params" {
            let counters = Blocks::from_bytes(reader.0).expect("short");
            let bare = TopK::from_parts(k, width, depth, decay, Vec::new(), counters).expect("sane");
            for entry in sketch.entries() {
                assert_eq!(bare.count(&entry.item), entry.count);
            }
        }
        assert_eq!(sketch.counters().to_vec(), reader.0);
    }
}
