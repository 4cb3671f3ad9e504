//! What the integration tests share: the recorded files, their canonical form, and just enough JSON, SHA-256 and
//! base64 to compare with it.

#![expect(dead_code, reason = "every test file uses its own part of this")]

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;

use damselfly_rdb::{Collector, FileReader, Item, Key, Limits, Meta, StreamId, Value, ValueSink};

pub fn fixtures() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/snapshots"))
}

/// Folders with snapshot files, in order of name.
pub fn snapshot_folders() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(fixtures()).expect("the fixtures are part of the repository");
    let mut folders: Vec<PathBuf> = entries.map(|entry| entry.expect("readable").path()).collect();
    folders.retain(|folder| folder.join("expected.jsonl").exists());
    folders.sort();
    assert_eq!(folders.len(), 14);
    folders
}

/// The snapshot files of one folder, in order of name.
pub fn snapshot_files(folder: &std::path::Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("readable");
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("readable").path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "dfs" || extension == "rdb"));
    files.sort();
    files
}

/// xorshift64*, seeded by the test.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next() as u8).collect()
    }
}

/// Everything a file said.
#[derive(Default)]
pub struct Contents {
    pub version: u32,
    pub aux: Vec<(Vec<u8>, Vec<u8>)>,
    pub functions: Vec<Vec<u8>>,
    pub keys: BTreeMap<(u64, Vec<u8>), (Meta, Value)>,
    pub chunked: usize,
    pub checksum: u64,
    pub value_types: BTreeMap<u8, usize>,
    open: BTreeMap<u32, (u64, Vec<u8>, Meta, Collector)>,
}

impl Contents {
    pub fn take(&mut self, item: Item<'_>) -> Result<(), damselfly_rdb::Refused> {
        match item {
            Item::Header { version } => self.version = version,
            Item::Aux { name, value } => self.aux.push((name.to_vec(), value.to_vec())),
            Item::Function(source) => self.functions.push(source.to_vec()),
            Item::Key(Key { stream, db, key, value_type, meta }) => {
                *self.value_types.entry(value_type).or_default() += 1;
                self.chunked += usize::from(stream > 0);
                self.open.insert(stream, (db, key.to_vec(), meta, Collector::new()));
            }
            Item::Value { stream, event } => {
                let (_, _, _, collector) = self.open.get_mut(&stream).expect("a key comes before its value");
                collector.event(event)?;
                if collector.is_done() {
                    let (db, key, meta, collector) = self.open.remove(&stream).expect("it was there");
                    let value = collector.finish().expect("it is done");
                    self.keys.insert((db, key), (meta, value));
                }
            }
            Item::Eof { checksum } => {
                assert!(self.open.is_empty());
                self.checksum = checksum;
            }
            _ => {}
        }
        Ok(())
    }
}

pub fn read_file(mut bytes: &[u8]) -> Result<Contents, damselfly_rdb::Error> {
    let mut contents = Contents::default();
    FileReader::new(Limits::FILE).read_all(&mut bytes, &mut |item: Item<'_>| contents.take(item))?;
    Ok(contents)
}

// ---- JSON

#[derive(Clone, Debug, PartialEq)]
pub enum Json {
    Null,
    Bool(bool),
    Number(String),
    Text(String),
    Array(Vec<Json>),
    Object(Vec<(String, Json)>),
}

impl Json {
    pub fn parse(text: &str) -> Json {
        let mut rest = text.trim();
        let json = Json::value(&mut rest);
        assert!(rest.is_empty());
        json
    }

    fn value(rest: &mut &str) -> Json {
        *rest = rest.trim_start();
        let literal =
            |rest: &mut &str, text: &str| rest.strip_prefix(text).map(|after| *rest = after).is_some();
        if literal(rest, "null") {
            return Json::Null;
        }
        if literal(rest, "true") {
            return Json::Bool(true);
        }
        if literal(rest, "false") {
            return Json::Bool(false);
        }
        if literal(rest, "[") {
            let mut items = Vec::new();
            loop {
                *rest = rest.trim_start();
                if literal(rest, "]") {
                    return Json::Array(items);
                }
                items.push(Json::value(rest));
                *rest = rest.trim_start();
                literal(rest, ",");
            }
        }
        if literal(rest, "{") {
            let mut items = Vec::new();
            loop {
                *rest = rest.trim_start();
                if literal(rest, "}") {
                    return Json::Object(items);
                }
                let Json::Text(name) = Json::value(rest) else { panic!("a name is a string") };
                *rest = rest.trim_start();
                assert!(literal(rest, ":"));
                items.push((name, Json::value(rest)));
                *rest = rest.trim_start();
                literal(rest, ",");
            }
        }
        if literal(rest, "\"") {
            let mut text = String::new();
            let mut chars = rest.chars();
            loop {
                match chars.next().expect("a string ends") {
                    '"' => break,
                    '\\' => match chars.next().expect("an escape") {
                        'n' => text.push('\n'),
                        't' => text.push('\t'),
                        'r' => text.push('\r'),
                        'u' => {
                            let digits: String = chars.by_ref().take(4).collect();
                            let code = u32::from_str_radix(&digits, 16).expect("four digits");
                            text.push(char::from_u32(code).expect("no surrogates in the fixtures"));
                        }
                        other => text.push(other),
                    },
                    other => text.push(other),
                }
            }
            *rest = chars.as_str();
            return Json::Text(text);
        }
        let len = rest.find([',', ']', '}', ' ']).unwrap_or(rest.len());
        let number = rest[..len].to_string();
        *rest = &rest[len..];
        Json::Number(number)
    }

    pub fn get(&self, name: &str) -> Option<&Json> {
        let Json::Object(items) = self else { panic!("{self:?} is no object") };
        items.iter().find(|(key, _)| key == name).map(|(_, value)| value)
    }

    pub fn text(&self) -> &str {
        let Json::Text(text) = self else { panic!("{self:?} is no string") };
        text
    }

    pub fn array(&self) -> &[Json] {
        let Json::Array(items) = self else { panic!("{self:?} is no array") };
        items
    }

    pub fn number(&self) -> i64 {
        let Json::Number(number) = self else { panic!("{self:?} is no number") };
        number.parse().expect("an integer")
    }

    /// The bytes of a byte string in canonical form.
    pub fn bytes(&self) -> Vec<u8> {
        match self {
            Json::Text(text) => text.clone().into_bytes(),
            object => from_base64(object.get("b64").expect("a byte string").text()),
        }
    }
}

// ---- canonical form

const STRING_LEN_MAX: usize = 1024;
const ITEMS_MAX: usize = 150;

/// An item of the canonical form before it is shortened.
#[derive(Clone)]
pub enum Part {
    Bytes(Vec<u8>),
    Number(u64),
}

impl Part {
    fn json(&self) -> Json {
        match self {
            Part::Bytes(bytes) => byte_string(bytes),
            Part::Number(number) => Json::Number(number.to_string()),
        }
    }

    fn digested(&self) -> Vec<u8> {
        match self {
            Part::Bytes(bytes) => bytes.clone(),
            Part::Number(number) => number.to_string().into_bytes(),
        }
    }
}

pub fn byte_string(bytes: &[u8]) -> Json {
    if bytes.len() > STRING_LEN_MAX {
        return Json::Object(vec![
            ("len".into(), Json::Number(bytes.len().to_string())),
            ("sha256".into(), Json::Text(sha256(bytes))),
        ]);
    }
    if bytes.iter().all(|byte| (0x20..0x7f).contains(byte)) {
        return Json::Text(String::from_utf8(bytes.to_vec()).expect("ASCII"));
    }
    Json::Object(vec![("b64".into(), Json::Text(to_base64(bytes)))])
}

/// Rows of one or more parts; `flat` rows are written without brackets.
pub fn aggregate(rows: &[Vec<Part>], flat: bool) -> Json {
    let row = |parts: &Vec<Part>| {
        if flat { parts[0].json() } else { Json::Array(parts.iter().map(Part::json).collect()) }
    };
    if rows.len() <= ITEMS_MAX {
        return Json::Array(rows.iter().map(row).collect());
    }
    let mut all = Vec::new();
    for part in rows.iter().flatten() {
        let part = part.digested();
        all.extend_from_slice(&(part.len() as u64).to_le_bytes());
        all.extend_from_slice(&part);
    }
    Json::Object(vec![
        ("count".into(), Json::Number(rows.len().to_string())),
        ("sha256".into(), Json::Text(sha256(&all))),
        ("head".into(), Json::Array(rows[..3].iter().map(row).collect())),
    ])
}

fn bytes(bytes: &[u8]) -> Part {
    Part::Bytes(bytes.to_vec())
}

/// The shortest text of a double, laid out as the fixtures have it.
pub fn score_text(score: f64) -> String {
    if score.is_infinite() {
        return if score > 0.0 { "inf".into() } else { "-inf".into() };
    }
    let scientific = format!("{score:e}");
    let (digits, exponent) = scientific.split_once('e').expect("an exponent");
    let exponent: i32 = exponent.parse().expect("an integer");
    if (-4..16).contains(&exponent) {
        return format!("{score}");
    }
    format!("{digits}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs())
}

fn id(id: StreamId) -> Part {
    bytes(id.to_string().as_bytes())
}

fn number(number: u64) -> Json {
    Json::Number(number.to_string())
}

/// Type name and fields of a value as in expected.jsonl. Sketches have no canonical value here.
pub fn canonical(value: &Value) -> (&'static str, Vec<(String, Json)>) {
    let deadlines = |rows: Vec<Vec<Part>>, name: &str, fields: &mut Vec<(String, Json)>| {
        if !rows.is_empty() {
            fields.push((name.into(), aggregate(&rows, false)));
        }
    };
    let mut fields = Vec::new();
    let name = match value {
        Value::String(string) => {
            fields.push(("value".into(), byte_string(string)));
            "string"
        }
        Value::Json(text) => {
            fields.push(("value".into(), byte_string(text)));
            "ReJSON-RL"
        }
        Value::List(elements) => {
            let rows: Vec<_> = elements.iter().map(|element| vec![bytes(element)]).collect();
            fields.push(("value".into(), aggregate(&rows, true)));
            "list"
        }
        Value::Set(members) => {
            let mut members = members.clone();
            members.sort();
            let rows: Vec<_> = members.iter().map(|(member, _)| vec![bytes(member)]).collect();
            fields.push(("value".into(), aggregate(&rows, true)));
            let due = members.iter().filter_map(|(member, at)| at.map(|at| (member, at / 1000)));
            let due = due.map(|(member, at)| vec![bytes(member), Part::Number(at)]).collect();
            deadlines(due, "member_expire_at_s", &mut fields);
            "set"
        }
        Value::Hash(hash) => {
            let mut hash = hash.clone();
            hash.sort();
            let rows: Vec<_> =
                hash.iter().map(|(field, value, _)| vec![bytes(field), bytes(value)]).collect();
            fields.push(("value".into(), aggregate(&rows, false)));
            let due = hash.iter().filter_map(|(field, _, at)| at.map(|at| (field, at / 1000)));
            let due = due.map(|(field, at)| vec![bytes(field), Part::Number(at)]).collect();
            deadlines(due, "field_expire_at_s", &mut fields);
            "hash"
        }
        Value::ZSet(members) => {
            let mut members = members.clone();
            members.sort_by(|a, b| {
                a.1.partial_cmp(&b.1).expect("scores are numbers").then_with(|| a.0.cmp(&b.0))
            });
            let row =
                |(member, score): &(Vec<u8>, f64)| vec![bytes(member), bytes(score_text(*score).as_bytes())];
            let rows: Vec<_> = members.iter().map(row).collect();
            fields.push(("value".into(), aggregate(&rows, false)));
            "zset"
        }
        Value::Stream(stream) => {
            let rows: Vec<Vec<Part>> = stream
                .entries
                .iter()
                .map(|(at, fields)| {
                    let mut row = vec![id(at)];
                    row.extend(fields.iter().flat_map(|(field, value)| [bytes(field), bytes(value)]));
                    row
                })
                .collect();
            let mut groups: Vec<(String, Json)> = Vec::new();
            for group in &stream.groups {
                let owner = |at| group.consumers.iter().find(|consumer| consumer.claimed.contains(&at));
                let pending = group.pending.iter().map(|pending| {
                    let owner = owner(pending.id).map_or(Json::Null, |owner| byte_string(&owner.name));
                    let (at, times) = (number(pending.delivered_at_ms), number(pending.deliveries));
                    Json::Array(vec![id(pending.id).json(), owner, at, times])
                });
                let mut consumers: Vec<(String, Json)> = Vec::new();
                for consumer in &group.consumers {
                    let claimed = consumer.claimed.iter().map(|&at| {
                        let pending = group.pending.iter().find(|pending| pending.id == at).expect("checked");
                        let (at, times) = (number(pending.delivered_at_ms), number(pending.deliveries));
                        Json::Array(vec![id(pending.id).json(), at, times])
                    });
                    let json = Json::Object(vec![
                        ("name".into(), byte_string(&consumer.name)),
                        ("seen_time".into(), number(consumer.seen_at_ms)),
                        ("active_time".into(), consumer.active_at_ms.map_or(Json::Null, number)),
                        ("pending".into(), Json::Array(claimed.collect())),
                    ]);
                    consumers.push((sort_key(&consumer.name), json));
                }
                consumers.sort_by(|a, b| a.0.cmp(&b.0));
                let json = Json::Object(vec![
                    ("name".into(), byte_string(&group.name)),
                    ("last_id".into(), id(group.last_id).json()),
                    ("entries_read".into(), group.entries_read.map_or(Json::Null, number)),
                    ("pel".into(), Json::Array(pending.collect())),
                    ("consumers".into(), Json::Array(consumers.into_iter().map(|(_, json)| json).collect())),
                ]);
                groups.push((sort_key(&group.name), json));
            }
            groups.sort_by(|a, b| a.0.cmp(&b.0));
            fields.push((
                "value".into(),
                Json::Object(vec![
                    ("length".into(), number(stream.meta.length)),
                    ("last_id".into(), id(stream.meta.last_id).json()),
                    ("max_deleted_id".into(), id(stream.meta.max_deleted_id).json()),
                    ("entries_added".into(), number(stream.meta.entries_added)),
                    ("entries".into(), aggregate(&rows, false)),
                    ("groups".into(), Json::Array(groups.into_iter().map(|(_, json)| json).collect())),
                ]),
            ));
            "stream"
        }
        Value::Bloom(..) => "MBbloom--",
        Value::CountMin { .. } => "CMSk-TYPE",
        Value::TopK(..) => "TopK-TYPE",
        Value::Cuckoo(..) => "MBbloomCF",
        Value::Module { .. } => "module",
    };
    (name, fields)
}

/// The fixtures sort groups and consumers by the JSON text of their names.
fn sort_key(name: &[u8]) -> String {
    match byte_string(name) {
        Json::Text(text) => format!("\"{text}\""),
        _ => format!("{{\"b64\": \"{}\"}}", to_base64(name)),
    }
}

/// Differences between what was read and a line of expected.jsonl, as text.
pub fn compare(expected: &Json, meta: Option<&Meta>, value: &Value) -> Option<String> {
    let (name, fields) = canonical(value);
    if expected.get("type").expect("a type").text() != name {
        return Some(format!("type {name}"));
    }
    if let Some(meta) = meta {
        let at = meta.expire_at_ms.map_or(Json::Null, number);
        if expected.get("expire_at_ms") != Some(&at) {
            return Some(format!("deadline {at:?}"));
        }
        if meta.sticky != expected.get("sticky").is_some() {
            return Some("sticky".into());
        }
        if let Some(flags) = expected.get("mc_flags")
            && meta.mc_flags.map(i64::from) != Some(flags.number())
        {
            return Some(format!("flags {:?}", meta.mc_flags));
        }
    }
    for name in ["value", "field_expire_at_s", "member_expire_at_s"] {
        let got = fields.iter().find(|(field, _)| field == name).map(|(_, json)| json);
        let want = expected.get(name);
        let same = match (got, want) {
            (Some(got), Some(want)) if name != "value" => same_deadlines(got, want),
            (Some(got @ Json::Object(_)), Some(want)) if got.get("groups").is_some() => {
                same_stream(got, want)
            }
            // Sketches are compared by their dimensions elsewhere.
            (None, Some(_)) if name == "value" => true,
            (got, want) => got == want,
        };
        if !same {
            let mut text = String::new();
            write!(text, "{name}:\n got {got:?}\nwant {want:?}").expect("a string takes all");
            return Some(text);
        }
    }
    None
}

/// Deadlines of fields were observed as relative seconds, so they may be off by one.
fn same_deadlines(got: &Json, want: &Json) -> bool {
    match (got, want) {
        (Json::Array(got), Json::Array(want)) => {
            got.len() == want.len()
                && got.iter().zip(want).all(|(got, want)| {
                    let (got, want) = (got.array(), want.array());
                    got[0] == want[0] && (got[1].number() - want[1].number()).abs() <= 1
                })
        }
        (got, want) => got.get("count") == want.get("count"),
    }
}

/// Equal but for active times, which not every producer writes or shows.
fn same_stream(got: &Json, want: &Json) -> bool {
    fn without_active(json: &Json) -> Json {
        match json {
            Json::Object(items) => Json::Object(
                items
                    .iter()
                    .filter(|(name, _)| name != "active_time")
                    .map(|(name, item)| (name.clone(), without_active(item)))
                    .collect(),
            ),
            Json::Array(items) => Json::Array(items.iter().map(without_active).collect()),
            other => other.clone(),
        }
    }
    without_active(got) == without_active(want)
}

// ---- base64, SHA-256

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

pub fn to_base64(bytes: &[u8]) -> String {
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let word =
            group.iter().fold(0u32, |word, &byte| word << 8 | u32::from(byte)) << (8 * (3 - group.len()));
        for position in 0..4 {
            let digit = BASE64[(word >> (18 - 6 * position)) as usize & 63];
            text.push(if position <= group.len() { digit as char } else { '=' });
        }
    }
    text
}

pub fn from_base64(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let (mut word, mut bits) = (0u32, 0);
    for digit in text.bytes().filter(|&digit| digit != b'=') {
        let value = BASE64.iter().position(|&known| known == digit).expect("a base64 digit");
        word = word << 6 | value as u32;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push((word >> bits) as u8);
        }
    }
    bytes
}

pub fn sha256(bytes: &[u8]) -> String {
    // The constants are the fractions of roots of the first primes; computed, so that no table can be mistyped.
    let primes: Vec<u64> = (2u64..).filter(|n| (2..*n).all(|d| n % d != 0)).take(64).collect();
    let fraction = |root: f64| ((root - root.floor()) * 4_294_967_296.0) as u32;
    let mut state: Vec<u32> = primes[..8].iter().map(|&prime| fraction((prime as f64).sqrt())).collect();
    let k: Vec<u32> = primes.iter().map(|&prime| fraction((prime as f64).cbrt())).collect();
    let mut padded = bytes.to_vec();
    padded.push(0x80);
    padded.resize((padded.len() + 8).next_multiple_of(64) - 8, 0);
    padded.extend_from_slice(&(8 * bytes.len() as u64).to_be_bytes());
    for block in padded.chunks(64) {
        let mut w: Vec<u32> =
            block.chunks(4).map(|word| u32::from_be_bytes(word.try_into().expect("four bytes"))).collect();
        for i in 16..64 {
            let s0 = w[i - 15].rotate_right(7) ^ w[i - 15].rotate_right(18) ^ (w[i - 15] >> 3);
            let s1 = w[i - 2].rotate_right(17) ^ w[i - 2].rotate_right(19) ^ (w[i - 2] >> 10);
            w.push(w[i - 16].wrapping_add(s0).wrapping_add(w[i - 7]).wrapping_add(s1));
        }
        let mut v = state.clone();
        for i in 0..64 {
            let s1 = v[4].rotate_right(6) ^ v[4].rotate_right(11) ^ v[4].rotate_right(25);
            let choice = (v[4] & v[5]) ^ (!v[4] & v[6]);
            let t1 = v[7].wrapping_add(s1).wrapping_add(choice).wrapping_add(k[i]).wrapping_add(w[i]);
            let s0 = v[0].rotate_right(2) ^ v[0].rotate_right(13) ^ v[0].rotate_right(22);
            let majority = (v[0] & v[1]) ^ (v[0] & v[2]) ^ (v[1] & v[2]);
            v.rotate_right(1);
            v[4] = v[4].wrapping_add(t1);
            v[0] = t1.wrapping_add(s0).wrapping_add(majority);
        }
        state.iter_mut().zip(v).for_each(|(word, add)| *word = word.wrapping_add(add));
    }
    state.iter().map(|word| format!("{word:08x}")).collect()
}
