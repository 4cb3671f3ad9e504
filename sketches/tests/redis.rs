//! HyperLogLogs and geo searches side by side with a real redis-server 7: the same commands must leave the same bytes
//! and give the same replies. Without the program on the PATH (or in `REDIS_SERVER`) the tests say so and pass.

use damselfly_sketches::geo::{self, Point, Search, Shape};
use damselfly_sketches::hll::{self, HllError, SPARSE_MAX_BYTES, Union};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

struct Xorshift(u64);

impl Xorshift {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[derive(Clone, Debug, PartialEq)]
enum Reply {
    Text(Vec<u8>),
    Error(String),
    Int(i64),
    Nil,
    Array(Vec<Reply>),
}

impl Reply {
    fn bytes(&self) -> &[u8] {
        match self {
            Reply::Text(bytes) => bytes,
            other => panic!("a string expected: {other:?}"),
        }
    }

    fn items(&self) -> &[Reply] {
        match self {
            Reply::Array(items) => items,
            other => panic!("an array expected: {other:?}"),
        }
    }
}

/// A redis-server of our own on a socket of its own, killed at the end.
struct Redis {
    process: Child,
    stream: BufReader<UnixStream>,
    socket: PathBuf,
}

impl Redis {
    fn start(test: &str) -> Option<Redis> {
        let program = std::env::var("REDIS_SERVER").unwrap_or_else(|_| "redis-server".into());
        let socket = std::env::temp_dir().join(format!("damselfly-{test}-{}.sock", std::process::id()));
        let process = Command::new(&program)
            .args(["--port", "0", "--save", "", "--loglevel", "warning", "--unixsocket"])
            .arg(&socket)
            .current_dir(std::env::temp_dir())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let Ok(mut process) = process else {
            eprintln!("SKIPPED {test}: no {program} to compare with");
            return None;
        };
        let stream = loop {
            if let Ok(stream) = UnixStream::connect(&socket) {
                break stream;
            }
            assert!(process.try_wait().expect("our child").is_none(), "redis-server does not start");
            std::thread::yield_now();
        };
        let mut redis = Redis { process, stream: BufReader::new(stream), socket };
        let info = redis.call(&[b"INFO", b"server"]);
        let info = String::from_utf8_lossy(info.bytes()).into_owned();
        let version = info.lines().find_map(|line| line.strip_prefix("redis_version:"));
        eprintln!("{test}: compared with redis-server {}", version.unwrap_or("?"));
        Some(redis)
    }

    fn send(&mut self, words: &[&[u8]]) {
        let mut request = format!("*{}\r\n", words.len()).into_bytes();
        for word in words {
            request.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
            request.extend_from_slice(word);
            request.extend_from_slice(b"\r\n");
        }
        self.stream.get_mut().write_all(&request).expect("the server lives");
    }

    fn call(&mut self, words: &[&[u8]]) -> Reply {
        self.send(words);
        self.read()
    }

    fn read(&mut self) -> Reply {
        let mut line = String::new();
        self.stream.read_line(&mut line).expect("the server lives");
        let (kind, rest) = line.trim_end().split_at(1);
        match kind {
            "+" => Reply::Text(rest.into()),
            "-" => Reply::Error(rest.into()),
            ":" => Reply::Int(rest.parse().expect("a number")),
            "$" if rest == "-1" => Reply::Nil,
            "$" => {
                let mut bytes = vec![0; rest.parse::<usize>().expect("a length") + 2];
                self.stream.read_exact(&mut bytes).expect("the server lives");
                bytes.truncate(bytes.len() - 2);
                Reply::Text(bytes)
            }
            "*" if rest == "-1" => Reply::Nil,
            "*" => Reply::Array((0..rest.parse().expect("a length")).map(|_| self.read()).collect()),
            _ => panic!("unknown reply {line:?}"),
        }
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_file(&self.socket);
    }
}

/// What the command layer will do with the functions of `hll`, on a map for keys.
#[derive(Default)]
struct Keys(BTreeMap<String, Vec<u8>>);

impl Keys {
    fn error(error: HllError) -> Reply {
        Reply::Error(error.to_string())
    }

    fn pfadd(&mut self, key: &str, elements: &[Vec<u8>], limit: usize) -> Reply {
        let new = !self.0.contains_key(key);
        let value = self.0.entry(key.to_owned()).or_insert_with(hll::create);
        match hll::add(value, elements.iter().map(Vec::as_slice), limit) {
            Ok(changed) => Reply::Int(i64::from(changed || new)),
            Err(error) => Keys::error(error),
        }
    }

    fn pfcount(&mut self, keys: &[String]) -> Reply {
        if let [key] = keys {
            return match self.0.get_mut(key).map(|value| hll::count(value)) {
                None => Reply::Int(0),
                Some(Ok(count)) => Reply::Int(count as i64),
                Some(Err(error)) => Keys::error(error),
            };
        }
        match self.union(keys) {
            Ok(union) => Reply::Int(union.count() as i64),
            Err(error) => Keys::error(error),
        }
    }

    fn union(&self, keys: &[String]) -> Result<Union, HllError> {
        let mut union = Union::new();
        for value in keys.iter().filter_map(|key| self.0.get(key)) {
            union.merge(value)?;
        }
        Ok(union)
    }

    fn pfmerge(&mut self, keys: &[String], limit: usize) -> Reply {
        let union = match self.union(keys) {
            Ok(union) => union,
            Err(error) => return Keys::error(error),
        };
        let value = self.0.entry(keys[0].clone()).or_insert_with(hll::create);
        match union.store(value, limit) {
            Ok(()) => Reply::Text(b"OK".to_vec()),
            Err(error) => Keys::error(error),
        }
    }
}

fn words(command: &str, keys: &[String]) -> Vec<Vec<u8>> {
    std::iter::once(command.as_bytes().to_vec())
        .chain(keys.iter().map(|key| key.clone().into_bytes()))
        .collect()
}

fn call(redis: &mut Redis, words: &[Vec<u8>]) -> Reply {
    let words: Vec<_> = words.iter().map(Vec::as_slice).collect();
    redis.call(&words)
}

/// Twelve keys of very different sizes under random PFADD, PFCOUNT and PFMERGE, with several limits for the sparse
/// form. After each command the replies and the touched key's bytes are equal.
#[test]
fn hyperloglogs_equal_redis() {
    let Some(mut redis) = Redis::start("hyperloglogs_equal_redis") else { return };
    let mut random = Xorshift(0xda5e_1f17);
    for (round, limit) in [SPARSE_MAX_BYTES, 100, 500, SPARSE_MAX_BYTES, 20_000, 0].into_iter().enumerate() {
        redis.call(&[b"FLUSHALL"]);
        let text = limit.to_string();
        redis.call(&[b"CONFIG", b"SET", b"hll-sparse-max-bytes", text.as_bytes()]);
        let mut keys = Keys::default();
        for step in 0..1200 {
            let key = format!("hll{}", random.below(12));
            let mut named = vec![key.clone()];
            for _ in 0..random.below(4) {
                named.push(format!("hll{}", random.below(12)));
            }
            let (ours, theirs) = match random.below(20) {
                0..13 => {
                    // A key's number sets how many different elements it may meet and how many come at once.
                    let size = key[3..].parse::<u32>().expect("our own name");
                    let elements: Vec<Vec<u8>> = (0..random.below(1 << (size / 2 + 1)))
                        .map(|_| {
                            let n = random.below(10 << size);
                            let mut element = n.to_le_bytes().to_vec();
                            element.resize((n % 23) as usize, n as u8);
                            element
                        })
                        .collect();
                    let mut request = words("PFADD", std::slice::from_ref(&key));
                    request.extend(elements.iter().cloned());
                    (keys.pfadd(&key, &elements, limit), call(&mut redis, &request))
                }
                13..16 => (
                    keys.pfcount(std::slice::from_ref(&key)),
                    call(&mut redis, &words("PFCOUNT", std::slice::from_ref(&key))),
                ),
                16..18 => (keys.pfcount(&named), call(&mut redis, &words("PFCOUNT", &named))),
                _ => (keys.pfmerge(&named, limit), call(&mut redis, &words("PFMERGE", &named))),
            };
            assert_eq!(ours, theirs, "round {round}, step {step}, {named:?}");
            let stored = redis.call(&[b"GET", key.as_bytes()]);
            let expected = keys.0.get(&key).map_or(Reply::Nil, |value| Reply::Text(value.clone()));
            assert!(stored == expected, "round {round}, step {step}, {key}: bytes differ");
        }
    }
}

/// Damaged values: where Redis answers, we answer the same; where it finds damage, so do we.
///
/// The damage is of the kinds that Redis handles without reading outside the string: bytes of the registers, the
/// header and the length of the dense form.
#[test]
fn damaged_hyperloglogs_equal_redis() {
    let Some(mut redis) = Redis::start("damaged_hyperloglogs_equal_redis") else { return };
    let mut random = Xorshift(0xbad);
    let mut sources = vec![hll::create()];
    for size in [3, 50, 1500, 10_000] {
        let mut value = hll::create();
        for n in 0..size {
            hll::add(&mut value, [format!("{size}-{n}").as_bytes()], SPARSE_MAX_BYTES).expect("valid");
        }
        sources.push(value);
    }
    for step in 0..2000usize {
        let mut value = sources[step % sources.len()].clone();
        for _ in 0..random.below(3) {
            let at = random.below(value.len() as u64) as usize;
            value[at] = random.next() as u8;
        }
        value[hll_cache_byte()] |= 0x80;
        if random.below(10) == 0 {
            value.truncate(random.below(20) as usize);
        }
        redis.call(&[b"SET", b"k", &value]);
        let mut keys = Keys::default();
        keys.0.insert("k".into(), value.clone());
        let one = ["k".to_owned()];
        let two = ["k".to_owned(), "none".to_owned()];
        assert_eq!(keys.pfcount(&one), call(&mut redis, &words("PFCOUNT", &one)), "step {step}");
        assert_eq!(keys.pfcount(&two), call(&mut redis, &words("PFCOUNT", &two)), "step {step}");
        let merged = ["copy".to_owned(), "k".to_owned()];
        redis.call(&[b"DEL", b"copy"]);
        assert_eq!(keys.pfmerge(&merged, 3000), call(&mut redis, &words("PFMERGE", &merged)), "step {step}");
        let copy = redis.call(&[b"GET", b"copy"]);
        assert!(
            copy == keys.0.get("copy").map_or(Reply::Nil, |value| Reply::Text(value.clone())),
            "step {step}"
        );
    }
}

/// The byte whose top bit says that the cached count is stale.
fn hll_cache_byte() -> usize {
    15
}

fn degrees(random: &mut Xorshift, max: f64) -> f64 {
    let exact = (random.unit() * 2.0 - 1.0) * max;
    match random.below(8) {
        0 => exact.round(),
        1 => (exact * 100.0).round() / 100.0,
        2 => [max, -max, 0.0, max - 1e-9][random.below(4) as usize],
        _ => exact,
    }
}

fn random_point(random: &mut Xorshift) -> Point {
    // A third of the points near one place, so that small radii find something.
    if random.below(3) == 0 {
        Point { lon: 13.4 + random.unit() * 0.2, lat: 52.5 + random.unit() * 0.1 }
    } else {
        Point { lon: degrees(random, geo::LON_MAX), lat: degrees(random, geo::LAT_MAX) }
    }
}

fn print(write: impl Fn(&mut Vec<u8>)) -> Reply {
    let mut text = Vec::new();
    write(&mut text);
    Reply::Text(text)
}

/// Scores, GEOPOS, GEOHASH and GEODIST of random points, the limits among them.
#[test]
fn geo_points_equal_redis() {
    let Some(mut redis) = Redis::start("geo_points_equal_redis") else { return };
    let mut random = Xorshift(0x9e0);
    let mut last: Option<Point> = None;
    for step in 0..4000 {
        let point = random_point(&mut random);
        let member = format!("m{step}");
        let (lon, lat) = (point.lon.to_string(), point.lat.to_string());
        redis.call(&[b"GEOADD", b"geo", lon.as_bytes(), lat.as_bytes(), member.as_bytes()]);
        let score = point.score();
        let text = score.to_string().into_bytes();
        assert_eq!(redis.call(&[b"ZSCORE", b"geo", member.as_bytes()]), Reply::Text(text), "{point:?}");
        let cell = Point::from_score(score);
        let position = Reply::Array(vec![
            print(|out| geo::write_coordinate(cell.lon, out)),
            print(|out| geo::write_coordinate(cell.lat, out)),
        ]);
        let theirs = redis.call(&[b"GEOPOS", b"geo", member.as_bytes()]);
        assert_eq!(theirs, Reply::Array(vec![position]), "{point:?}");
        let theirs = redis.call(&[b"GEOHASH", b"geo", member.as_bytes()]);
        assert_eq!(theirs, Reply::Array(vec![Reply::Text(cell.geohash().to_vec())]), "{point:?}");
        if let Some(before) = last {
            let unit = ["m", "km", "ft", "mi"][step % 4];
            let metres = geo::unit_in_metres(unit.as_bytes()).expect("a unit");
            let before_name = format!("m{}", step - 1);
            let theirs =
                redis.call(&[b"GEODIST", b"geo", before_name.as_bytes(), member.as_bytes(), unit.as_bytes()]);
            assert_eq!(theirs, print(|out| geo::write_distance(before.distance(cell) / metres, out)));
        }
        last = Some(cell);
    }
    // Scores that no GEOADD would make.
    for (n, score) in ["0", "1e15", "9007199254740992", "4503599627370497"].into_iter().enumerate() {
        let member = format!("forged{n}");
        redis.call(&[b"ZADD", b"geo", score.as_bytes(), member.as_bytes()]);
        let cell = Point::from_score(score.parse().expect("a number"));
        let theirs = redis.call(&[b"GEOHASH", b"geo", member.as_bytes()]);
        assert_eq!(theirs, Reply::Array(vec![Reply::Text(cell.geohash().to_vec())]), "{score}");
    }
}

/// GEOSEARCH without sorting: the same members, in the same order, with the same distances.
#[test]
fn geo_searches_equal_redis() {
    let Some(mut redis) = Redis::start("geo_searches_equal_redis") else { return };
    let mut random = Xorshift(0x6e0);
    // The sorted set: by score, then member.
    let mut members: Vec<(f64, String)> = Vec::new();
    for n in 0..1500 {
        let point = random_point(&mut random);
        let member = format!("m{n}");
        redis.call(&[
            b"GEOADD",
            b"geo",
            point.lon.to_string().as_bytes(),
            point.lat.to_string().as_bytes(),
            member.as_bytes(),
        ]);
        members.push((point.score(), member));
    }
    members.sort_by(|a, b| a.0.total_cmp(&b.0).then_with(|| a.1.cmp(&b.1)));
    let mut found = 0;
    for step in 0..1500 {
        let centre = random_point(&mut random);
        let unit = ["m", "km", "ft", "mi"][random.below(4) as usize];
        let metres = geo::unit_in_metres(unit.as_bytes()).expect("a unit");
        // From a metre to more than half around the world.
        let mut size = || 10f64.powf(random.unit() * 7.5) / metres;
        let shape = match step % 2 {
            0 => Shape::Circle { radius: size() },
            _ => Shape::Rectangle { width: size(), height: size() },
        };
        let search = Search { centre, shape, unit: metres };
        let mut request: Vec<Vec<u8>> = ["GEOSEARCH", "geo", "FROMLONLAT"].map(|word| word.into()).to_vec();
        request.extend([centre.lon, centre.lat].map(|degrees| degrees.to_string().into()));
        match shape {
            Shape::Circle { radius } => {
                request.push(b"BYRADIUS".to_vec());
                request.push(radius.to_string().into());
            }
            Shape::Rectangle { width, height } => {
                request.push(b"BYBOX".to_vec());
                request.extend([width, height].map(|side| side.to_string().into()));
            }
        }
        request.push(unit.into());
        request.push(b"WITHDIST".to_vec());

        let mut ours = Vec::new();
        for (from, to) in search.ranges() {
            let start = members.partition_point(|(score, _)| *score < from);
            for (score, member) in members[start..].iter().take_while(|(score, _)| *score < to) {
                if let Some(distance) = search.distance_to(Point::from_score(*score)) {
                    let distance = print(|out| geo::write_distance(distance / metres, out));
                    ours.push(Reply::Array(vec![Reply::Text(member.clone().into()), distance]));
                }
            }
        }
        let theirs = call(&mut redis, &request);
        assert_eq!(ours, theirs.items(), "step {step}, {search:?}");
        found += ours.len();
    }
    assert!(found > 10_000, "the searches found only {found} members");
}
