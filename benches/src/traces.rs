//! Sequences of requests that tell policies of eviction apart: what `eviction` models and `memory` plays to servers.

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

const KEYS: usize = 100_000;
const REQUESTS: usize = 2_000_000;
/// All of them, a few seconds' work. The same on every machine.
pub fn traces() -> Vec<Trace> {
    let zipf = |name, exponent| {
        let (zipf, mut random) = (Zipf::new(KEYS, exponent), Random(7));
        let requests = (0..REQUESTS).map(|_| zipf.draw(&mut random)).collect();
        uniform(name, requests, KEYS / 10)
    };
    let mut all =
        vec![zipf("zipf 0.7", 0.7), zipf("zipf 0.9", 0.9), zipf("zipf 1.0", 1.0), zipf("zipf 1.2", 1.2)];

    // Every 100 000 requests somebody reads 20 000 keys once, one after the other.
    let (law, mut random) = (Zipf::new(KEYS, 0.9), Random(8));
    let (mut requests, mut scanned) = (Vec::new(), 0);
    while requests.len() < REQUESTS {
        requests.extend((0..100_000).map(|_| law.draw(&mut random)));
        requests.extend((0..20_000).map(|n| (KEYS + (scanned + n) % 400_000) as u32));
        scanned += 20_000;
    }
    all.push(uniform("zipf 0.9 + scans", requests, KEYS / 10));

    // As with news: every 50 requests there is a new key, the most popular of all, and all others lose a rank.
    let (law, mut random) = (Zipf::new(KEYS, 0.9), Random(9));
    let requests = (0..REQUESTS).map(|n| (KEYS + n / 50) as u32 - law.draw(&mut random)).collect();
    all.push(uniform("drift", requests, KEYS / 10));

    // All that is popular changes at once, five times.
    let (law, mut random) = (Zipf::new(KEYS, 1.0), Random(10));
    let requests =
        (0..REQUESTS).map(|n| law.draw(&mut random) + (n / (REQUESTS / 5) * KEYS) as u32).collect();
    all.push(uniform("sudden change", requests, KEYS / 10));

    let (law, mut random) = (Zipf::new(KEYS, 0.9), Random(11));
    let mut fresh = KEYS as u32;
    let requests = (0..REQUESTS)
        .map(|_| {
            if random.draw() & 1 == 0 {
                return law.draw(&mut random);
            }
            fresh += 1;
            fresh
        })
        .collect();
    all.push(uniform("half one-hit wonders", requests, KEYS / 10));

    let (law, mut random) = (Zipf::new(KEYS, 0.9), Random(12));
    let requests: Vec<u32> = (0..REQUESTS).map(|_| law.draw(&mut random)).collect();
    // 64 bytes to 1 MiB, each doubling as likely as the next but two thirds as likely.
    let sizes: Vec<u32> = (0..KEYS as u32)
        .map(|key| {
            let mut random = Random(mix(key) | 1);
            let mut size = 64 + random.below(64) as u32;
            while size < 1 << 20 && random.below(3) < 2 {
                size *= 2;
            }
            size
        })
        .collect();
    let total: u64 = sizes.iter().map(|size| u64::from(*size)).sum();
    all.push(Trace { name: "mixed sizes", requests, sizes, capacity: total / 10 });

    all.push(uniform("loop 1.1x", (0..REQUESTS).map(|n| (n % 11_000) as u32).collect(), 10_000));
    all.push(uniform("loop 1.5x", (0..REQUESTS).map(|n| (n % 15_000) as u32).collect(), 10_000));
    all
}

fn uniform(name: &'static str, requests: Vec<u32>, keys: usize) -> Trace {
    let count = *requests.iter().max().expect("requests") as usize + 1;
    Trace { name, requests, sizes: vec![100; count], capacity: keys as u64 * 100 }
}
