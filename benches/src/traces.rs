//! Sequences of requests that tell policies of eviction apart: what `eviction` models and `memory` plays to servers.

use std::collections::BinaryHeap;

/// A small generator, the same figures on every machine.
pub struct Random(pub u64);

impl Random {
    /// Draws a number.
    pub fn draw(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// A number below `n`.
    pub fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.draw()) * n as u128) >> 64) as usize
    }

    /// A number from 0 to 1.
    pub fn unit(&mut self) -> f64 {
        (self.draw() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// Spreads a number over all bits.
pub fn mix(key: u32) -> u64 {
    let mut x = u64::from(key).wrapping_add(0x9E37_79B9_7F4A_7C15);
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

/// Draws ranks by Zipf's law from a table of sums.
struct Zipf(Vec<f64>);

impl Zipf {
    fn new(n: usize, exponent: f64) -> Zipf {
        let mut sum = 0.0;
        Zipf(
            (1..=n)
                .map(|rank| {
                    sum += (rank as f64).powf(-exponent);
                    sum
                })
                .collect(),
        )
    }

    fn draw(&self, random: &mut Random) -> u32 {
        let at = random.unit() * self.0[self.0.len() - 1];
        self.0.partition_point(|sum| *sum <= at).min(self.0.len() - 1) as u32
    }
}

/// Requests, sizes by key, and the room there is.
pub struct Trace {
    /// What it is called in tables.
    pub name: &'static str,
    /// Keys by number, in order.
    pub requests: Vec<u32>,
    /// Bytes of each key's value.
    pub sizes: Vec<u32>,
    /// Bytes that the cache has.
    pub capacity: u64,
}

/// The popular keys of the traces that `eviction` models.
pub const KEYS: usize = 100_000;
/// Requests for each popular key.
const REQUESTS_PER_KEY: usize = 20;

/// All of them, over so many popular keys, for a cache of a tenth of those; some seconds' work for 100 000. The same on
/// every machine.
pub fn traces(keys: usize) -> Vec<Trace> {
    let total = keys * REQUESTS_PER_KEY;
    let zipf = |name, exponent| {
        let (zipf, mut random) = (Zipf::new(keys, exponent), Random(7));
        let requests = (0..total).map(|_| zipf.draw(&mut random)).collect();
        uniform(name, requests, keys / 10)
    };
    let mut all =
        vec![zipf("zipf 0.7", 0.7), zipf("zipf 0.9", 0.9), zipf("zipf 1.0", 1.0), zipf("zipf 1.2", 1.2)];

    // After as many requests as there are keys somebody reads a fifth as many others once, one after the other.
    let (law, mut random) = (Zipf::new(keys, 0.9), Random(8));
    let (mut requests, mut scanned) = (Vec::new(), 0);
    while requests.len() < total {
        requests.extend((0..keys).map(|_| law.draw(&mut random)));
        requests.extend((0..keys / 5).map(|n| (keys + (scanned + n) % (4 * keys)) as u32));
        scanned += keys / 5;
    }
    all.push(uniform("zipf 0.9 + scans", requests, keys / 10));

    // As with news: every 50 requests there is a new key, the most popular of all, and all others lose a rank.
    let (law, mut random) = (Zipf::new(keys, 0.9), Random(9));
    let requests = (0..total).map(|n| (keys + n / 50) as u32 - law.draw(&mut random)).collect();
    all.push(uniform("drift", requests, keys / 10));

    // All that is popular changes at once, five times.
    let (law, mut random) = (Zipf::new(keys, 1.0), Random(10));
    let requests = (0..total).map(|n| law.draw(&mut random) + (n / (total / 5) * keys) as u32).collect();
    all.push(uniform("sudden change", requests, keys / 10));

    let (law, mut random) = (Zipf::new(keys, 0.9), Random(11));
    let mut fresh = keys as u32;
    let requests = (0..total)
        .map(|_| {
            if random.draw() & 1 == 0 {
                return law.draw(&mut random);
            }
            fresh += 1;
            fresh
        })
        .collect();
    all.push(uniform("half one-hit wonders", requests, keys / 10));

    let (law, mut random) = (Zipf::new(keys, 0.9), Random(12));
    let requests: Vec<u32> = (0..total).map(|_| law.draw(&mut random)).collect();
    // 64 bytes to 1 MiB, each doubling as likely as the next but two thirds as likely.
    let sizes: Vec<u32> = (0..keys as u32)
        .map(|key| {
            let mut random = Random(mix(key) | 1);
            let mut size = 64 + random.below(64) as u32;
            while size < 1 << 20 && random.below(3) < 2 {
                size *= 2;
            }
            size
        })
        .collect();
    let all_bytes: u64 = sizes.iter().map(|size| u64::from(*size)).sum();
    all.push(Trace { name: "mixed sizes", requests, sizes, capacity: all_bytes / 10 });

    all.push(uniform("loop 1.1x", (0..total).map(|n| (n % (keys * 11 / 100)) as u32).collect(), keys / 10));
    all.push(uniform("loop 1.5x", (0..total).map(|n| (n % (keys * 15 / 100)) as u32).collect(), keys / 10));
    all
}

fn uniform(name: &'static str, requests: Vec<u32>, keys: usize) -> Trace {
    let count = *requests.iter().max().expect("requests") as usize + 1;
    Trace { name, requests, sizes: vec![100; count], capacity: keys as u64 * 100 }
}

const NEVER: u32 = u32::MAX;

/// Hits in percent of requests and of bytes of a cache that knows the future: what is needed again last goes. The bound
/// for values of one size; of many it is merely good.
pub fn belady(trace: &Trace, requests: usize) -> (f64, f64) {
    let asked = &trace.requests[..requests];
    let mut last = vec![NEVER; trace.sizes.len()];
    let mut next = vec![NEVER; requests];
    for (at, key) in asked.iter().enumerate().rev() {
        next[at] = last[*key as usize];
        last[*key as usize] = at as u32;
    }
    // When each key that is here is needed next; the heap also has what was true earlier.
    let (mut due, mut here) = (vec![None; trace.sizes.len()], BinaryHeap::new());
    let (mut used, mut hits, mut hit_bytes, mut bytes) = (0, 0u64, 0, 0);
    for (key, next) in asked.iter().map(|key| *key as usize).zip(next) {
        let size = u64::from(trace.sizes[key]);
        bytes += size;
        if due[key].replace(next).is_some() {
            hits += 1;
            hit_bytes += size;
        } else {
            used += size;
        }
        here.push((next, key));
        while used > trace.capacity {
            let Some((at, key)) = here.pop() else { break };
            if due[key] == Some(at) {
                due[key] = None;
                used -= u64::from(trace.sizes[key]);
            }
        }
    }
    (hits as f64 * 100.0 / requests as f64, hit_bytes as f64 * 100.0 / bytes as f64)
}
