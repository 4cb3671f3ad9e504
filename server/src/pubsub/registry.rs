//! Who listens where: for each channel and pattern, on which cores there are how many subscribers.
//!
//! Written by SUBSCRIBE and its kin on the subscriber's core, read by PUBLISH on any core. PUBLISH takes no lock: each
//! core keeps what it found for the channels it published to lately ([`Outlook`]), and a generation number next to
//! each part of the registry tells whether that still holds. Only the first PUBLISH after a change in the same part
//! takes that part's mutex for one look-up. So publishers share nothing but cache lines that are rarely written.
//! The alternative, a copy of the registry on each core kept up to date by messages, would cost a message to every
//! core for each SUBSCRIBE and as many copies of the names as there are cores.
//!
//! The counts are exact, subscriber by subscriber: PUBLISH can answer at once, without asking the other cores.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crossbeam::utils::CachePadded;
use damselfly_config::glob::Pattern;

use super::Kind;

/// Parts of the registry with a generation each. A change makes publishers look up again the channels of one part: with
/// 256 parts, a thousand new subscriptions per second concern each part four times per second.
const STRIPES: usize = 256;
/// Channels that a core remembers. One of these takes 64 bytes and the name.
const KNOWN_MAX: usize = 1024;

/// How many subscribers a name has on which cores; no entry is zero.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Audience(Vec<(usize, u64)>);

impl Audience {
    fn change(&mut self, core: usize, more: bool) {
        match self.0.iter().position(|(at, _)| *at == core) {
            None => {
                assert!(more, "only subscribers can leave");
                self.0.push((core, 1));
            }
            Some(at) if more => self.0[at].1 += 1,
            Some(at) => {
                self.0[at].1 -= 1;
                if self.0[at].1 == 0 {
                    self.0.swap_remove(at);
                }
            }
        }
    }

    /// Subscribers on all cores.
    pub fn count(&self) -> u64 {
        self.0.iter().map(|(_, count)| count).sum()
    }
}

#[derive(Default)]
struct Stripe {
    /// Grows with each change, inside the lock and behind the change: whoever reads it before the names, and finds
    /// it unchanged later, has names that are still true.
    generation: AtomicU64,
    len: AtomicUsize,
    names: Mutex<HashMap<Box<[u8]>, Audience>>,
}

/// Channels of one kind.
struct Channels(Box<[CachePadded<Stripe>]>);

impl Channels {
    fn new() -> Channels {
        Channels((0..STRIPES).map(|_| CachePadded::default()).collect())
    }

    fn stripe(&self, hash: u64) -> &Stripe {
        // The lowest bits choose among what this core remembers.
        &self.0[(hash >> 48) as usize % STRIPES]
    }
}

/// All patterns. They are few and change rarely, so each core copies all of them after a change.
#[derive(Default)]
struct Patterns {
    generation: AtomicU64,
    names: Mutex<BTreeMap<Box<[u8]>, Audience>>,
}

/// See the module's head.
pub struct Registry {
    channels: Channels,
    shard_channels: Channels,
    patterns: Patterns,
    /// Names of all three kinds.
    len: AtomicUsize,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Registry {
    /// Nobody listens.
    pub fn new() -> Registry {
        Registry {
            channels: Channels::new(),
            shard_channels: Channels::new(),
            patterns: Patterns::default(),
            len: AtomicUsize::new(0),
        }
    }

    /// Whether nobody listens to anything.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len.load(Ordering::Acquire) == 0
    }

    fn channels(&self, kind: Kind) -> &Channels {
        match kind {
            Kind::Channel => &self.channels,
            Kind::Shard => &self.shard_channels,
            Kind::Pattern => unreachable!("patterns are no channels"),
        }
    }

    /// A client of `core` has begun or ceased to listen to `name`.
    pub fn change(&self, kind: Kind, hash: u64, name: &[u8], core: usize, more: bool) {
        if kind == Kind::Pattern {
            let mut names = locked(&self.patterns.names);
            let audience = match names.get_mut(name) {
                Some(audience) => audience,
                None => {
                    self.len.fetch_add(1, Ordering::Release);
                    names.entry(name.into()).or_default()
                }
            };
            audience.change(core, more);
            if audience.0.is_empty() {
                names.remove(name);
                self.len.fetch_sub(1, Ordering::Release);
            }
            self.patterns.generation.fetch_add(1, Ordering::Release);
            return;
        }
        let stripe = self.channels(kind).stripe(hash);
        let mut names = locked(&stripe.names);
        let audience = match names.get_mut(name) {
            Some(audience) => audience,
            None => {
                self.len.fetch_add(1, Ordering::Release);
                names.entry(name.into()).or_default()
            }
        };
        audience.change(core, more);
        if audience.0.is_empty() {
            names.remove(name);
            self.len.fetch_sub(1, Ordering::Release);
        }
        stripe.len.store(names.len(), Ordering::Release);
        stripe.generation.fetch_add(1, Ordering::Release);
    }

    /// Names of channels with subscribers that `pattern` takes.
    pub fn names(&self, kind: Kind, pattern: Option<&Pattern>) -> Vec<Box<[u8]>> {
        let mut found = Vec::new();
        for stripe in &self.channels(kind).0 {
            let names = locked(&stripe.names);
            found.extend(
                names.keys().filter(|name| pattern.is_none_or(|pattern| pattern.matches(name))).cloned(),
            );
        }
        found
    }

    /// How many channels have subscribers.
    pub fn count(&self, kind: Kind) -> usize {
        match kind {
            Kind::Pattern => locked(&self.patterns.names).len(),
            _ => self.channels(kind).0.iter().map(|stripe| stripe.len.load(Ordering::Acquire)).sum(),
        }
    }

    /// Subscribers of a channel.
    pub fn subscribers(&self, kind: Kind, hash: u64, name: &[u8]) -> u64 {
        locked(&self.channels(kind).stripe(hash).names).get(name).map_or(0, Audience::count)
    }
}

/// What one core found for a channel.
struct Known {
    kind: Kind,
    name: Box<[u8]>,
    generation: u64,
    patterns: u64,
    receivers: u64,
    cores: Box<[usize]>,
}

/// What one core has found in the registry, for as long as it is true.
pub struct Outlook {
    known: Vec<Option<Known>>,
    patterns: Vec<(Pattern, Audience)>,
    patterns_generation: u64,
}

impl Outlook {
    /// Nothing yet, which is what an empty registry holds.
    pub fn new() -> Outlook {
        Outlook { known: Vec::new(), patterns: Vec::new(), patterns_generation: 0 }
    }

    /// How many receive what is published to `name` now, a client once for its channel and once for each of its
    /// patterns that match, and the cores they are on.
    pub fn reach(&mut self, registry: &Registry, kind: Kind, hash: u64, name: &[u8]) -> (u64, &[usize]) {
        let stripe = registry.channels(kind).stripe(hash);
        let generation = stripe.generation.load(Ordering::Acquire);
        let patterns = match kind {
            Kind::Channel => registry.patterns.generation.load(Ordering::Acquire),
            _ => 0,
        };
        if self.known.is_empty() {
            self.known.resize_with(KNOWN_MAX, || None);
        }
        let place = hash as usize % KNOWN_MAX;
        let is_true = self.known[place].as_ref().is_some_and(|known| {
            known.generation == generation
                && known.patterns == patterns
                && known.kind == kind
                && *known.name == *name
        });
        if !is_true {
            if kind == Kind::Channel && patterns != self.patterns_generation {
                self.patterns = locked(&registry.patterns.names)
                    .iter()
                    .map(|(name, audience)| (Pattern::new(name), audience.clone()))
                    .collect();
                self.patterns_generation = patterns;
            }
            let matching = match kind {
                Kind::Channel => self.patterns.as_slice(),
                _ => &[],
            };
            let matching = matching.iter().filter(|(pattern, _)| pattern.matches(name));
            let mut by_core: Vec<(usize, u64)> =
                matching.flat_map(|(_, audience)| audience.0.iter().copied()).collect();
            if stripe.len.load(Ordering::Acquire) > 0
                && let Some(audience) = locked(&stripe.names).get(name)
            {
                by_core.extend(audience.0.iter().copied());
            }
            if by_core.is_empty() {
                // Not remembered: names of keyspace events mostly have no subscriber and seldom come twice.
                return (0, &[]);
            }
            let receivers = by_core.iter().map(|(_, count)| count).sum();
            let mut cores: Vec<usize> = by_core.iter().map(|(core, _)| *core).collect();
            cores.sort_unstable();
            cores.dedup();
            self.known[place] =
                Some(Known { kind, name: name.into(), generation, patterns, receivers, cores: cores.into() });
        }
        let known = self.known[place].as_ref().expect("found or made");
        (known.receivers, &known.cores)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// FNV, spread over all bits: any hash will do here.
    fn hash(name: &[u8]) -> u64 {
        let mixed = name.iter().fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
        });
        mixed.wrapping_mul(0x9E37_79B9_7F4A_7C15)
    }

    /// What an outlook says is what a plain count over all subscriptions says, after every change, in whatever order
    /// subscribers of several cores come and go.
    #[test]
    fn an_outlook_is_never_out_of_date() {
        let registry = Registry::new();
        let mut outlooks = [Outlook::new(), Outlook::new()];
        let names: [&[u8]; 6] = [b"a", b"b", b"ab", b"a*", b"?", b"*"];
        let mut model = BTreeMap::<(usize, usize, usize), u64>::new();
        let mut random = 7u64;
        for _ in 0..20_000 {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let (name, kind, core) =
                ((random >> 8) as usize % 6, (random >> 16) as usize % 3, (random >> 24) as usize % 3);
            let more = random >> 32 & 1 == 0;
            let count = model.entry((kind, name, core)).or_default();
            if !more && *count == 0 {
                continue;
            }
            *count = if more { *count + 1 } else { *count - 1 };
            let kinds = [Kind::Channel, Kind::Pattern, Kind::Shard];
            registry.change(kinds[kind], hash(names[name]), names[name], core, more);
            for (at, name) in names.iter().enumerate() {
                let listens = |of: &(usize, usize, usize)| {
                    of.0 == 0 && of.1 == at || of.0 == 1 && Pattern::new(names[of.1]).matches(name)
                };
                let receivers: u64 = model.iter().filter(|(of, _)| listens(of)).map(|(_, count)| count).sum();
                let mut cores: Vec<usize> =
                    model.iter().filter(|(of, n)| listens(of) && **n > 0).map(|(of, _)| of.2).collect();
                cores.sort_unstable();
                cores.dedup();
                for outlook in &mut outlooks {
                    let found = outlook.reach(&registry, Kind::Channel, hash(name), name);
                    assert_eq!(found, (receivers, &*cores));
                }
                let on_shard: u64 = (0..3).filter_map(|core| model.get(&(2, at, core))).sum();
                let found = outlooks[0].reach(&registry, Kind::Shard, hash(name), name).0;
                assert_eq!(
                    (found, registry.subscribers(Kind::Shard, hash(name), name)),
                    (on_shard, on_shard)
                );
            }
            let model = &model;
            let names_left = |of: usize| {
                (0..6).filter(move |name| {
                    (0..3).any(|core| model.get(&(of, *name, core)).is_some_and(|n| *n > 0))
                })
            };
            assert_eq!(registry.count(Kind::Pattern), names_left(1).count());
            assert_eq!(registry.names(Kind::Channel, None).len(), names_left(0).count());
            assert_eq!(registry.is_empty(), model.values().all(|count| *count == 0));
        }
    }
}
