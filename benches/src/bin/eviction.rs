//! Hit ratios of eviction policies over generated traces: what docs/eviction.md quotes.
//!
//! Each policy is a model of a cache of `capacity` bytes in front of a slow store: a request for a key is a hit, or a
//! miss upon which the key is stored, as a cache-aside client does. Models keep what the real thing would keep and no
//! more: Redis' two samplers with five samples and a pool of sixteen, a byte per key for ours. `belady` looks into the
//! future and is the bound (for values of one size; of many it is merely good).
//!
//! Run: `cargo run --release -p damselfly-benches --bin eviction [-- TRACE-PREFIX]`; the figures are the same each time.

use std::collections::{HashMap, VecDeque};

use damselfly_benches::traces::{KEYS, Random, Trace, belady, mix, traces};

/// Redis' minute of decay, in requests: 20 000 of them a second.
const MINUTE: u64 = 1_200_000;

/// A cache: `access` tells whether the key was there, and stores it if not.
trait Policy {
    fn access(&mut self, key: u32, size: u32) -> bool;
}

const NONE: u32 = u32::MAX;

/// The keys that are there, in no order, and the bytes they take.
struct Residents {
    keys: Vec<u32>,
    place: Vec<u32>,
    sizes: Vec<u32>,
    used: u64,
    capacity: u64,
}

impl Residents {
    fn new(trace: &Trace) -> Residents {
        let place = vec![NONE; trace.sizes.len()];
        Residents { keys: Vec::new(), place, sizes: trace.sizes.clone(), used: 0, capacity: trace.capacity }
    }

    fn has(&self, key: u32) -> bool {
        self.place[key as usize] != NONE
    }

    fn add(&mut self, key: u32) {
        self.place[key as usize] = self.keys.len() as u32;
        self.keys.push(key);
        self.used += u64::from(self.sizes[key as usize]);
    }

    fn remove(&mut self, key: u32) {
        let place = self.place[key as usize] as usize;
        self.keys.swap_remove(place);
        if let Some(moved) = self.keys.get(place) {
            self.place[*moved as usize] = place as u32;
        }
        self.place[key as usize] = NONE;
        self.used -= u64::from(self.sizes[key as usize]);
    }

    fn lacks_room(&self, size: u32) -> bool {
        self.used + u64::from(size) > self.capacity && !self.keys.is_empty()
    }
}

/// Redis' allkeys-lru and allkeys-lfu.
struct Redis {
    here: Residents,
    random: Random,
    lfu: bool,
    now: u64,
    /// Time of last access, or of last decay.
    at: Vec<u64>,
    counter: Vec<u8>,
    /// Idleness and key, least idle first.
    pool: Vec<(u64, u32)>,
}

impl Redis {
    fn new(trace: &Trace, lfu: bool) -> Redis {
        let n = trace.sizes.len();
        let (at, counter) = (vec![0; n], vec![0; n]);
        Redis { here: Residents::new(trace), random: Random(1), lfu, now: 0, at, counter, pool: Vec::new() }
    }

    fn decayed(&self, key: u32) -> u8 {
        let minutes = (self.now / MINUTE) - (self.at[key as usize] / MINUTE);
        self.counter[key as usize].saturating_sub(minutes.min(255) as u8)
    }

    fn evict(&mut self) {
        loop {
            for _ in 0..5 {
                let key = self.here.keys[self.random.below(self.here.keys.len())];
                let idle = if self.lfu {
                    u64::from(255 - self.decayed(key))
                } else {
                    self.now - self.at[key as usize]
                };
                if self.pool.iter().any(|(_, pooled)| *pooled == key) {
                    continue;
                }
                let place = self.pool.partition_point(|(other, _)| *other < idle);
                if self.pool.len() == 16 {
                    if place == 0 {
                        continue;
                    }
                    self.pool.remove(0);
                    self.pool.insert(place - 1, (idle, key));
                } else {
                    self.pool.insert(place, (idle, key));
                }
            }
            while let Some((_, key)) = self.pool.pop() {
                if self.here.has(key) {
                    self.here.remove(key);
                    return;
                }
            }
        }
    }
}

impl Policy for Redis {
    fn access(&mut self, key: u32, size: u32) -> bool {
        self.now += 1;
        let hit = self.here.has(key);
        if hit {
            let counter = self.decayed(key);
            let base = f64::from(counter.saturating_sub(5));
            let grows = counter < 255 && self.random.unit() < 1.0 / (base * 10.0 + 1.0);
            self.counter[key as usize] = counter + u8::from(grows);
        } else {
            while self.here.lacks_room(size) {
                self.evict();
            }
            self.here.add(key);
            self.counter[key as usize] = 5;
        }
        self.at[key as usize] = self.now;
        hit
    }
}

/// SIEVE: a queue, a bit per key, a hand from the old end that spares and clears what was used.
struct Sieve {
    here: Residents,
    seen: Vec<bool>,
    older: Vec<u32>,
    newer: Vec<u32>,
    oldest: u32,
    newest: u32,
    hand: u32,
}

impl Sieve {
    fn new(trace: &Trace) -> Sieve {
        let n = trace.sizes.len();
        Sieve {
            here: Residents::new(trace),
            seen: vec![false; n],
            older: vec![NONE; n],
            newer: vec![NONE; n],
            oldest: NONE,
            newest: NONE,
            hand: NONE,
        }
    }

    fn evict(&mut self) {
        let mut at = if self.hand == NONE { self.oldest } else { self.hand };
        while std::mem::take(&mut self.seen[at as usize]) {
            at = self.newer[at as usize];
            if at == NONE {
                at = self.oldest;
            }
        }
        let (older, newer) = (self.older[at as usize], self.newer[at as usize]);
        if older == NONE {
            self.oldest = newer
        } else {
            self.newer[older as usize] = newer
        }
        if newer == NONE {
            self.newest = older
        } else {
            self.older[newer as usize] = older
        }
        self.hand = newer;
        self.here.remove(at);
    }
}

impl Policy for Sieve {
    fn access(&mut self, key: u32, size: u32) -> bool {
        if self.here.has(key) {
            self.seen[key as usize] = true;
            return true;
        }
        while self.here.lacks_room(size) {
            self.evict();
        }
        self.here.add(key);
        self.older[key as usize] = self.newest;
        self.newer[key as usize] = NONE;
        if self.newest == NONE {
            self.oldest = key
        } else {
            self.newer[self.newest as usize] = key
        }
        self.newest = key;
        false
    }
}

/// S3-FIFO: a small queue of a tenth, a main one, and ghosts of as many keys as the main one has.
struct S3Fifo {
    here: Residents,
    uses: Vec<u8>,
    small: VecDeque<u32>,
    small_bytes: u64,
    main: VecDeque<u32>,
    ghosts: VecDeque<(u32, u32)>,
    ghost: Vec<u32>,
    stamp: u32,
}

impl S3Fifo {
    fn new(trace: &Trace) -> S3Fifo {
        let n = trace.sizes.len();
        S3Fifo {
            here: Residents::new(trace),
            uses: vec![0; n],
            small: VecDeque::new(),
            small_bytes: 0,
            main: VecDeque::new(),
            ghosts: VecDeque::new(),
            ghost: vec![0; n],
            stamp: 0,
        }
    }

    fn evict(&mut self) {
        if self.small_bytes * 10 >= self.here.capacity || self.main.is_empty() {
            while let Some(key) = self.small.pop_front() {
                self.small_bytes -= u64::from(self.here.sizes[key as usize]);
                if self.uses[key as usize] > 1 {
                    self.uses[key as usize] = 0;
                    self.main.push_back(key);
                    continue;
                }
                self.here.remove(key);
                self.stamp += 1;
                self.ghost[key as usize] = self.stamp;
                self.ghosts.push_back((key, self.stamp));
                while self.ghosts.len() > self.main.len().max(self.here.keys.len() * 9 / 10) {
                    if let Some((old, stamp)) = self.ghosts.pop_front()
                        && self.ghost[old as usize] == stamp
                    {
                        self.ghost[old as usize] = 0;
                    }
                }
                return;
            }
        }
        while let Some(key) = self.main.pop_front() {
            if self.uses[key as usize] == 0 {
                self.here.remove(key);
                return;
            }
            self.uses[key as usize] -= 1;
            self.main.push_back(key);
        }
    }
}

impl Policy for S3Fifo {
    fn access(&mut self, key: u32, size: u32) -> bool {
        if self.here.has(key) {
            self.uses[key as usize] = (self.uses[key as usize] + 1).min(3);
            return true;
        }
        while self.here.lacks_room(size) {
            self.evict();
        }
        self.here.add(key);
        self.uses[key as usize] = 0;
        if std::mem::take(&mut self.ghost[key as usize]) > 0 {
            self.main.push_back(key);
        } else {
            self.small.push_back(key);
            self.small_bytes += u64::from(size);
        }
        false
    }
}

/// A queue in order of use: entries are left behind when their key is used again.
#[derive(Default)]
struct Lru {
    queue: VecDeque<(u32, u64)>,
    stamps: HashMap<u32, u64>,
    bytes: u64,
    clock: u64,
}

impl Lru {
    fn touch(&mut self, key: u32, size: u32) {
        self.clock += 1;
        if self.stamps.insert(key, self.clock).is_none() {
            self.bytes += u64::from(size);
        }
        self.queue.push_back((key, self.clock));
    }

    fn remove(&mut self, key: u32, size: u32) {
        if self.stamps.remove(&key).is_some() {
            self.bytes -= u64::from(size);
        }
    }

    /// The key that was not used for longest.
    fn oldest(&mut self) -> Option<u32> {
        while let Some((key, stamp)) = self.queue.front() {
            if self.stamps.get(key) == Some(stamp) {
                return Some(*key);
            }
            self.queue.pop_front();
        }
        None
    }
}

/// W-TinyLFU: a window of a hundredth, a segmented main part, and a sketch of four-bit counters that is halved every
/// ten capacities of requests.
struct TinyLfu {
    here: Residents,
    window: Lru,
    probation: Lru,
    protected: Lru,
    sketch: [Vec<u8>; 4],
    counted: usize,
}

impl TinyLfu {
    fn new(trace: &Trace) -> TinyLfu {
        let mean = trace.sizes.iter().map(|size| u64::from(*size)).sum::<u64>() / trace.sizes.len() as u64;
        let len = ((trace.capacity / mean) as usize * 4).next_power_of_two();
        TinyLfu {
            here: Residents::new(trace),
            window: Lru::default(),
            probation: Lru::default(),
            protected: Lru::default(),
            sketch: std::array::from_fn(|_| vec![0; len]),
            counted: 0,
        }
    }

    fn frequency(&self, key: u32) -> u8 {
        let len = self.sketch[0].len();
        let cells = (0..4).map(|row| self.sketch[row][mix(key).rotate_left(row as u32 * 16) as usize % len]);
        cells.min().expect("four rows")
    }

    fn count(&mut self, key: u32) {
        let len = self.sketch[0].len();
        for row in 0..4 {
            let cell = &mut self.sketch[row][mix(key).rotate_left(row as u32 * 16) as usize % len];
            *cell = (*cell + 1).min(15);
        }
        self.counted += 1;
        if self.counted > 10 * self.here.keys.len().max(100) {
            self.counted /= 2;
            self.sketch.iter_mut().flatten().for_each(|cell| *cell /= 2);
        }
    }
}

impl Policy for TinyLfu {
    fn access(&mut self, key: u32, size: u32) -> bool {
        self.count(key);
        let capacity = self.here.capacity;
        let sizes = |here: &Residents, key: u32| here.sizes[key as usize];
        let hit = self.here.has(key);
        if hit {
            if self.window.stamps.contains_key(&key) {
                self.window.touch(key, size);
            } else {
                self.probation.remove(key, size);
                self.protected.touch(key, size);
                while self.protected.bytes * 100 > capacity * 79 {
                    let Some(old) = self.protected.oldest() else { break };
                    let size = sizes(&self.here, old);
                    self.protected.remove(old, size);
                    self.probation.touch(old, size);
                }
            }
        } else {
            self.here.add(key);
            self.window.touch(key, size);
        }
        while self.window.bytes * 100 > capacity {
            let Some(old) = self.window.oldest() else { break };
            let size = sizes(&self.here, old);
            self.window.remove(old, size);
            if self.here.used <= capacity {
                self.probation.touch(old, size);
                continue;
            }
            let victim = self.probation.oldest().or_else(|| self.protected.oldest());
            let loses = match victim {
                Some(victim) if self.frequency(old) > self.frequency(victim) => victim,
                _ => old,
            };
            let loser_size = sizes(&self.here, loses);
            if loses != old {
                self.probation.remove(loses, loser_size);
                self.protected.remove(loses, loser_size);
                self.probation.touch(old, size);
            }
            self.here.remove(loses);
        }
        while self.here.used > capacity {
            let Some(old) = self.probation.oldest().or_else(|| self.protected.oldest()) else { break };
            let size = sizes(&self.here, old);
            self.probation.remove(old, size);
            self.protected.remove(old, size);
            self.here.remove(old);
        }
        hit
    }
}

/// What the server does (`keyspace/src/eviction.rs`): a byte of heat per key, victims among the keys of the buckets
/// that a hand passes, a ghost byte and tag for what was evicted, and a queue in which new keys wait for their second
/// use.
#[derive(Clone, Copy)]
struct Knobs {
    /// Buckets that the hand passes at a time.
    group: usize,
    /// Times it does so for one victim, at most.
    passes: usize,
    /// Uses per key in one epoch.
    epoch: usize,
    /// It goes on until there were as many misses per key,
    misses: usize,
    /// or so many uses.
    longest: usize,
    /// Evicted keys that are remembered, in percent of those that are there.
    ghosts: usize,
    /// Share of all keys that may wait in the queue, in percent.
    queue: usize,
    /// What a size counts: nothing, its root, all of it.
    sized: u8,
    /// One use of a key that leaves the queue does not count if it has so many.
    lag_from: u32,
}

struct Heat {
    here: Residents,
    knobs: Knobs,
    /// Epoch in the upper three bits, then one bit for those in the queue, then uses.
    heat: Vec<u8>,
    epoch: u8,
    clock: usize,
    /// Misses in this epoch.
    missed: usize,
    ghosts: Vec<u16>,
    queue: VecDeque<u32>,
    /// Keys by bucket, eight in the mean.
    buckets: Vec<Vec<u32>>,
    hand: usize,
    /// Mean logarithm of the weight of what goes.
    usual: i64,
}

/// How much heavier a key may be than what went of late, as a logarithm, before the hand looks further.
const SLACK: i64 = 1 << 7;

/// With eight binary places.
fn log2(weight: u64) -> i64 {
    let whole = weight.max(1).ilog2();
    let places = weight << (63 - whole) << 1 >> 56;
    i64::from(whole) << 8 | places as i64
}

const QUEUED: u8 = 1 << 4;
const USES: u8 = QUEUED - 1;

impl Heat {
    fn new(trace: &Trace, knobs: Knobs) -> Heat {
        let mean = trace.sizes.iter().map(|size| u64::from(*size)).sum::<u64>() / trace.sizes.len() as u64;
        let ghosts = ((trace.capacity / mean) as usize * knobs.ghosts / 100).next_multiple_of(4);
        Heat {
            here: Residents::new(trace),
            knobs,
            heat: vec![0; trace.sizes.len()],
            epoch: 0,
            clock: 0,
            missed: 0,
            ghosts: vec![0; ghosts],
            queue: VecDeque::new(),
            buckets: vec![Vec::new(); (trace.capacity / mean) as usize / 8 / 2 * 2],
            hand: 0,
            usual: 0,
        }
    }

    fn age(&self, heat: u8) -> u8 {
        self.epoch.wrapping_sub(heat >> 5) & 7
    }

    /// Uses of late, halved with every epoch, with eight binary places.
    fn warmth(&self, heat: u8) -> u32 {
        (u32::from(heat & USES) << 8) >> self.age(heat)
    }

    fn used(&self, heat: u8) -> u8 {
        let uses = (self.warmth(heat) >> 8) as u8;
        (uses + 1).min(USES) | heat & QUEUED | self.epoch << 5
    }

    fn weight(&self, key: u32) -> u64 {
        self.weight_at(key, self.warmth(self.heat[key as usize]))
    }

    /// Of a key that leaves the queue: the next use of those that it is compared with is still to come.
    fn weight_of_new(&self, key: u32) -> u64 {
        let warmth = self.warmth(self.heat[key as usize]);
        self.weight_at(key, warmth - if warmth >= self.knobs.lag_from << 8 { 1 << 8 } else { 0 })
    }

    fn weight_at(&self, key: u32, warmth: u32) -> u64 {
        let warmth = u64::from(warmth);
        let size = u64::from(self.here.sizes[key as usize] + 64);
        match self.knobs.sized {
            0 => warmth,
            1 => ((warmth + 1) << 24) / size.isqrt(),
            _ => ((warmth + 1) << 24) / size,
        }
    }

    fn ghost_places(&self, key: u32) -> (std::ops::Range<usize>, u8) {
        let hash = mix(key);
        let at = ((hash >> 32) as usize % self.ghosts.len()) & !3;
        (at..at + 4, (hash as u8).max(1))
    }

    fn remember(&mut self, key: u32) {
        let (places, tag) = self.ghost_places(key);
        let heat = self.heat[key as usize];
        let coldest = places.min_by_key(|&at| {
            let ghost = self.ghosts[at];
            if (ghost >> 8) as u8 == tag { 0 } else { 1 + self.warmth(ghost as u8) }
        });
        self.ghosts[coldest.expect("four places")] = u16::from(tag) << 8 | u16::from(heat & !QUEUED);
    }

    fn recall(&mut self, key: u32) -> Option<u8> {
        let (mut places, tag) = self.ghost_places(key);
        let at = places.find(|&at| (self.ghosts[at] >> 8) as u8 == tag)?;
        Some(std::mem::take(&mut self.ghosts[at]) as u8)
    }

    /// The lightest key of the group that the hand passes.
    fn pass(&mut self) -> Option<(u64, u32)> {
        let mut lightest = None;
        for _ in 0..self.knobs.group {
            for at in 0..self.buckets[self.hand].len() {
                let key = self.buckets[self.hand][at];
                let heat = self.heat[key as usize];
                if heat & QUEUED != 0 {
                    continue;
                }
                if self.age(heat) == 7 {
                    // Before the epoch's number comes round again.
                    self.heat[key as usize] = self.epoch.wrapping_sub(6) << 5;
                }
                let weight = self.weight(key);
                if lightest.is_none_or(|(other, _)| weight < other) {
                    lightest = Some((weight, key));
                }
            }
            self.hand = (self.hand + 1) % self.buckets.len();
        }
        lightest
    }

    /// The lightest key that the hand finds: the hand goes on, but not far, while what it finds is heavier than what
    /// went of late.
    fn lightest(&mut self) -> Option<u32> {
        let mut lightest = None;
        for _ in 0..self.knobs.passes {
            if let Some((weight, key)) = self.pass()
                && lightest.is_none_or(|(other, _)| weight < other)
            {
                lightest = Some((weight, key));
            }
            if lightest.is_some_and(|(weight, _)| log2(weight) <= self.usual + SLACK) {
                break;
            }
        }
        let (weight, key) = lightest?;
        self.usual += (log2(weight) - self.usual) >> 4;
        Some(key)
    }

    fn leave_queue(&mut self) -> Option<u32> {
        let first = self.queue.pop_front()?;
        self.heat[first as usize] &= !QUEUED;
        Some(first)
    }

    fn evict(&mut self) {
        let is_long = self.queue.len() * 100 > self.here.keys.len() * self.knobs.queue;
        let new = if is_long { self.leave_queue() } else { None };
        let victim = match (self.lightest(), new) {
            (Some(old), Some(new)) if self.weight(old) < self.weight_of_new(new) => old,
            (_, Some(new)) => new,
            (Some(old), None) => old,
            (None, None) => self.leave_queue().expect("what is there is in the queue or not"),
        };
        if self.knobs.ghosts > 0 {
            self.remember(victim);
        }
        let bucket = self.bucket_of(victim);
        self.buckets[bucket].retain(|key| *key != victim);
        self.here.remove(victim);
    }

    fn bucket_of(&self, key: u32) -> usize {
        (mix(key) >> 8) as usize % self.buckets.len()
    }
}

impl Policy for Heat {
    fn access(&mut self, key: u32, size: u32) -> bool {
        self.clock += 1;
        let keys = self.here.keys.len().max(64);
        let is_still = self.missed < self.knobs.misses * keys && self.clock < self.knobs.longest * keys;
        if self.clock >= self.knobs.epoch * keys && !is_still {
            self.clock = 0;
            self.missed = 0;
            self.epoch = (self.epoch + 1) & 7;
        }
        if self.here.has(key) {
            self.heat[key as usize] = self.used(self.heat[key as usize]);
            return true;
        }
        self.missed += 1;
        while self.here.lacks_room(size) {
            self.evict();
        }
        let past = if self.knobs.ghosts > 0 { self.recall(key) } else { None };
        self.heat[key as usize] = self.used(past.unwrap_or(self.epoch << 5));
        self.here.add(key);
        let bucket = self.bucket_of(key);
        self.buckets[bucket].push(key);
        if self.knobs.queue > 0 {
            while self.queue.len() * 100 > self.here.keys.len() * self.knobs.queue * 2 {
                self.leave_queue();
            }
            self.heat[key as usize] |= QUEUED;
            self.queue.push_back(key);
        }
        false
    }
}

/// Hits in percent of requests and of bytes.
fn run(policy: &mut dyn Policy, trace: &Trace) -> (f64, f64) {
    let (mut hits, mut hit_bytes, mut bytes) = (0u64, 0u64, 0u64);
    for key in &trace.requests {
        let size = trace.sizes[*key as usize];
        bytes += u64::from(size);
        if policy.access(*key, size) {
            hits += 1;
            hit_bytes += u64::from(size);
        }
    }
    (hits as f64 * 100.0 / trace.requests.len() as f64, hit_bytes as f64 * 100.0 / bytes as f64)
}

type Make = Box<dyn Fn(&Trace) -> Box<dyn Policy>>;

fn policies() -> Vec<(&'static str, Make)> {
    let heat = |knobs: Knobs| -> Make { Box::new(move |trace| Box::new(Heat::new(trace, knobs))) };
    let base = Knobs {
        group: 2,
        passes: 4,
        epoch: 20,
        misses: 3,
        longest: 40,
        ghosts: 160,
        queue: 1,
        sized: 2,
        lag_from: 8,
    };
    vec![
        ("redis lru", Box::new(|trace| Box::new(Redis::new(trace, false)))),
        ("redis lfu", Box::new(|trace| Box::new(Redis::new(trace, true)))),
        ("sieve", Box::new(|trace| Box::new(Sieve::new(trace)))),
        ("s3-fifo", Box::new(|trace| Box::new(S3Fifo::new(trace)))),
        ("w-tinylfu", Box::new(|trace| Box::new(TinyLfu::new(trace)))),
        ("heat", heat(base)),
        ("heat, no queue", heat(Knobs { queue: 0, ..base })),
        ("heat, queue 2 %", heat(Knobs { queue: 2, ..base })),
        ("heat, queue 5 %", heat(Knobs { queue: 5, ..base })),
        ("heat, no ghosts", heat(Knobs { ghosts: 0, ..base })),
        ("heat, a ghost per key", heat(Knobs { ghosts: 100, ..base })),
        ("heat, 2 ghosts per key", heat(Knobs { ghosts: 200, ..base })),
        ("heat, 4 ghosts per key", heat(Knobs { ghosts: 400, ..base })),
        ("heat, root of size", heat(Knobs { sized: 1, ..base })),
        ("heat, no size", heat(Knobs { sized: 0, ..base })),
        ("heat, epoch 16", heat(Knobs { epoch: 16, ..base })),
        ("heat, epoch 24", heat(Knobs { epoch: 24, ..base })),
        ("heat, epoch 20 always", heat(Knobs { misses: 0, ..base })),
        ("heat, up to epoch 80", heat(Knobs { longest: 80, ..base })),
        ("heat, six misses", heat(Knobs { misses: 6, ..base })),
        ("heat, one bucket", heat(Knobs { group: 1, ..base })),
        ("heat, one bucket, all uses count", heat(Knobs { group: 1, lag_from: 99, ..base })),
        ("heat, one bucket, one never counts", heat(Knobs { group: 1, lag_from: 1, ..base })),
        ("heat, one bucket, epoch 16", heat(Knobs { group: 1, epoch: 16, ..base })),
        ("heat, one bucket, 4 ghosts", heat(Knobs { group: 1, ghosts: 400, ..base })),
        ("heat, one bucket, eight passes", heat(Knobs { group: 1, passes: 8, ..base })),
        ("heat, one pass", heat(Knobs { passes: 1, ..base })),
        ("heat, two passes", heat(Knobs { passes: 2, ..base })),
        ("heat, eight passes", heat(Knobs { passes: 8, ..base })),
    ]
}

fn print_row(name: &str, traces: &[Trace], hits: impl Fn(&Trace) -> (f64, f64)) {
    let results: Vec<(f64, f64)> = traces.iter().map(hits).collect();
    print!("| {name} |");
    results.iter().for_each(|(hits, _)| print!(" {hits:.1} |"));
    let mean = results.iter().map(|(hits, _)| hits).sum::<f64>() / results.len() as f64;
    let bytes = traces.iter().zip(&results).find(|(trace, _)| trace.name == "mixed sizes");
    println!(" {mean:.1} | {:.1} |", bytes.map_or(0.0, |(_, result)| result.1));
}

fn main() {
    let only = std::env::args().nth(1).unwrap_or_default();
    let traces: Vec<Trace> = traces(KEYS).into_iter().filter(|trace| trace.name.starts_with(&only)).collect();
    print!("| policy |");
    traces.iter().for_each(|trace| print!(" {} |", trace.name));
    println!(" mean | bytes, mixed sizes |");
    for (name, make) in policies() {
        print_row(name, &traces, |trace| run(make(trace).as_mut(), trace));
    }
    print_row("belady", &traces, |trace| belady(trace, trace.requests.len()));
}
