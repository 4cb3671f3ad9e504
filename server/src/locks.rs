//! Key locks of one shard, for operations that span shards.
//!
//! An operation over several shards takes its keys' locks on every shard before it touches any (in the order of the
//! shard numbers, so two operations never wait for each other), which makes it atomic for everybody else. A command
//! whose keys are on one shard pays one test of a counter: while no lock is held anywhere on the shard, it just runs.
//! If its key is locked, it queues behind the holder like everybody else.
//!
//! Fair: each key's tickets are served in the order of arrival, and a ticket is granted when it is first at all of
//! its keys. A ticket for the whole shard is first when it is the oldest of all.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};

use crate::core::Core;

/// What a ticket locks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// These keys, by lock number (hash of key and database; a collision only makes two keys wait for each other).
    Keys(Vec<u64>),
    /// Everything on the shard.
    Shard,
}

/// Done with the lock, or where to go on once it is granted.
pub type OnGrant = Box<dyn FnOnce(&mut Core, Ticket)>;

/// A place in the queues. Ordered by arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(u64);

struct Waiting {
    scope: Scope,
    /// None once granted.
    on_grant: Option<OnGrant>,
}

/// Room for so many locked keys is kept when none is locked.
const QUEUES_KEPT: usize = 4096;

/// Tickets for one key. Mostly it is one, and that has no allocation of its own: some commands lock many keys.
struct Queue {
    first: Ticket,
    rest: VecDeque<Ticket>,
}

/// Lock numbers are hashes.
#[derive(Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.0 = self.0.rotate_left(8) ^ u64::from(*byte));
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }
}

/// See the module's head.
#[derive(Default)]
pub struct Locks {
    next: u64,
    tickets: BTreeMap<Ticket, Waiting>,
    queues: HashMap<u64, Queue, BuildHasherDefault<AsItIs>>,
    whole: VecDeque<Ticket>,
    /// Keys for which commands without locks of their own stand back, and those that do.
    reserved: HashMap<u64, VecDeque<(Scope, OnGrant)>>,
}

/// The lock number of a key.
#[inline]
pub fn lock_number(db: usize, hash: u64) -> u64 {
    hash ^ (db as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

impl Locks {
    /// Whether nothing is locked: the one test on the common path.
    #[inline]
    pub fn is_idle(&self) -> bool {
        self.tickets.is_empty() && self.reserved.is_empty()
    }

    /// Whether anything is locked, or somebody waits to lock it.
    pub fn has_tickets(&self) -> bool {
        !self.tickets.is_empty()
    }

    /// Whether a command on this key must queue.
    pub fn is_locked(&self, number: u64) -> bool {
        !self.whole.is_empty() || self.queues.contains_key(&number) || self.reserved.contains_key(&number)
    }

    /// Whether somebody has the whole shard, or waits for it.
    pub fn is_shard_locked(&self) -> bool {
        !self.whole.is_empty()
    }

    /// Whether somebody else than this ticket's holder has a lock on the key, or it is reserved.
    pub fn is_locked_for_others(&self, number: u64, ticket: Option<Ticket>) -> bool {
        if self.reserved.contains_key(&number) {
            return true;
        }
        let ours = ticket.is_some_and(|ticket| self.is_held(number, ticket));
        !ours && (!self.whole.is_empty() || self.queues.contains_key(&number))
    }

    /// Whether the holder of this ticket has the key.
    pub fn is_held(&self, number: u64, ticket: Ticket) -> bool {
        self.whole.front() == Some(&ticket)
            || self.queues.get(&number).is_some_and(|queue| queue.first == ticket)
    }

    /// Reserves a key: commands without locks of their own wait, operations over several shards do not.
    pub fn reserve(&mut self, number: u64) {
        self.reserved.entry(number).or_default();
    }

    /// Ends a reservation; returns those who stood back, to queue again.
    pub fn unreserve(&mut self, number: u64) -> VecDeque<(Scope, OnGrant)> {
        self.reserved.remove(&number).unwrap_or_default()
    }

    /// Lets a command on reserved keys wait for the end of the reservation; otherwise it is given back.
    pub fn stand_back(&mut self, scope: Scope, on_grant: OnGrant) -> Option<(Scope, OnGrant)> {
        let reserved = match &scope {
            Scope::Keys(keys) => keys.iter().find(|key| self.reserved.contains_key(key)),
            Scope::Shard => None,
        };
        match reserved.and_then(|number| self.reserved.get_mut(number)) {
            Some(queue) => {
                queue.push_back((scope, on_grant));
                None
            }
            None => Some((scope, on_grant)),
        }
    }

    /// Queues for a scope. If the ticket is first everywhere it is returned with its continuation, to be run by the
    /// caller (who has the core); else the continuation runs when the last one before it is released.
    pub fn acquire(&mut self, scope: Scope, on_grant: OnGrant) -> Option<(Ticket, OnGrant)> {
        let ticket = Ticket(self.next);
        self.next += 1;
        let scope = match scope {
            Scope::Keys(mut keys) => {
                // A key named twice in one command is one lock.
                keys.sort_unstable();
                keys.dedup();
                self.queues.reserve(keys.len());
                for key in &keys {
                    let queue = self.queues.entry(*key);
                    queue
                        .and_modify(|queue| queue.rest.push_back(ticket))
                        .or_insert(Queue { first: ticket, rest: VecDeque::new() });
                }
                Scope::Keys(keys)
            }
            Scope::Shard => {
                self.whole.push_back(ticket);
                Scope::Shard
            }
        };
        self.tickets.insert(ticket, Waiting { scope, on_grant: Some(on_grant) });
        if self.is_first(ticket) { self.grant(ticket) } else { None }
    }

    fn is_first(&self, ticket: Ticket) -> bool {
        match &self.tickets[&ticket].scope {
            Scope::Shard => self.tickets.keys().next() == Some(&ticket),
            Scope::Keys(keys) => {
                self.whole.front().is_none_or(|whole| *whole > ticket)
                    && keys.iter().all(|key| self.queues[key].first == ticket)
            }
        }
    }

    fn grant(&mut self, ticket: Ticket) -> Option<(Ticket, OnGrant)> {
        let on_grant = self.tickets.get_mut(&ticket)?.on_grant.take()?;
        Some((ticket, on_grant))
    }

    /// Locks one more key under a granted ticket, or under a new one, unless others have it or wait for it: who holds
    /// locks never waits for others.
    pub fn try_widen(&mut self, ticket: Option<Ticket>, number: u64) -> Option<Ticket> {
        let Some(ticket) = ticket else {
            let free = !self.is_locked(number);
            return free
                .then(|| self.acquire(Scope::Keys(vec![number]), Box::new(|_, _| ())))?
                .map(|granted| granted.0);
        };
        if !self.is_held(number, ticket) {
            if self.queues.contains_key(&number) || self.reserved.contains_key(&number) {
                return None;
            }
            let Some(Waiting { scope: Scope::Keys(keys), .. }) = self.tickets.get_mut(&ticket) else {
                unreachable!("who has the whole shard has the key")
            };
            keys.push(number);
            self.queues.insert(number, Queue { first: ticket, rest: VecDeque::new() });
        }
        Some(ticket)
    }

    /// Gives what a granted ticket has locked back but for these keys, of which it has at least one; returns those that
    /// are granted by this, for the caller to run.
    pub fn narrow(&mut self, ticket: Ticket, kept: &[u64]) -> Vec<(Ticket, OnGrant)> {
        let waiting = self.tickets.get_mut(&ticket).expect("a ticket that is held");
        assert!(waiting.on_grant.is_none(), "only granted tickets are narrowed");
        let keys = match &mut waiting.scope {
            Scope::Keys(keys) => keys,
            whole @ Scope::Shard => {
                assert_eq!(self.whole.pop_front(), Some(ticket), "the holder is first");
                *whole = Scope::Keys(kept.to_vec());
                // All others came later, and wait.
                for key in kept {
                    let queue = self.queues.entry(*key);
                    queue
                        .and_modify(|queue| {
                            queue.rest.push_front(std::mem::replace(&mut queue.first, ticket))
                        })
                        .or_insert(Queue { first: ticket, rest: VecDeque::new() });
                }
                let candidates = self.tickets.keys().copied().collect();
                return self.grant_first(candidates);
            }
        };
        let given_back: Vec<u64> = keys.extract_if(.., |key| !kept.contains(key)).collect();
        assert!(!keys.is_empty(), "a ticket is for something");
        let candidates = self.leave_queues(ticket, given_back);
        self.grant_first(candidates)
    }

    /// Takes the holder of a ticket out of the queues of keys; those who are next there.
    fn leave_queues(&mut self, ticket: Ticket, keys: Vec<u64>) -> Vec<Ticket> {
        let mut next = Vec::new();
        for key in keys {
            let queue = self.queues.get_mut(&key).expect("a ticket is in its queues");
            assert_eq!(queue.first, ticket, "the holder is first");
            match queue.rest.pop_front() {
                Some(first) => {
                    queue.first = first;
                    next.push(first);
                }
                None => drop(self.queues.remove(&key)),
            }
        }
        if self.queues.is_empty() && self.queues.capacity() > QUEUES_KEPT {
            self.queues = HashMap::default();
        }
        next
    }

    /// Grants those of the candidates that are first everywhere.
    fn grant_first(&mut self, mut candidates: Vec<Ticket>) -> Vec<(Ticket, OnGrant)> {
        candidates.sort_unstable();
        candidates.dedup();
        candidates.retain(|ticket| self.is_first(*ticket));
        candidates.into_iter().filter_map(|ticket| self.grant(ticket)).collect()
    }

    /// Gives a granted ticket back; returns those that are granted by this, for the caller to run.
    pub fn release(&mut self, ticket: Ticket) -> Vec<(Ticket, OnGrant)> {
        let waiting = self.tickets.remove(&ticket).expect("a ticket is released once");
        assert!(waiting.on_grant.is_none(), "only granted tickets are released");
        let mut candidates = match waiting.scope {
            Scope::Keys(keys) => self.leave_queues(ticket, keys),
            Scope::Shard => {
                assert_eq!(self.whole.pop_front(), Some(ticket), "the holder is first");
                // Everybody may have waited for this one.
                self.tickets.keys().copied().collect()
            }
        };
        candidates.extend(self.whole.front().copied());
        self.grant_first(candidates)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nothing() -> OnGrant {
        Box::new(|_, _| {})
    }

    fn keys(keys: &[u64]) -> Scope {
        Scope::Keys(keys.to_vec())
    }

    /// First come, first served on each key; a ticket waits until it is first on all of its keys.
    #[test]
    fn served_in_order_of_arrival() {
        let mut locks = Locks::default();
        assert!(locks.is_idle());
        let (a, _) = locks.acquire(keys(&[1, 2, 1]), nothing()).expect("free");
        assert!(locks.acquire(keys(&[2, 3]), nothing()).is_none(), "2 is held");
        assert!(locks.acquire(keys(&[3]), nothing()).is_none(), "queues behind the one that waits for 2");
        let (d, _) = locks.acquire(keys(&[4]), nothing()).expect("nobody has 4");
        assert!(locks.is_locked(3) && !locks.is_locked(5));
        let granted = locks.release(a);
        assert_eq!(granted.len(), 1);
        let granted = locks.release(granted[0].0);
        assert_eq!(granted.len(), 1);
        assert!(locks.release(granted[0].0).is_empty());
        assert!(locks.release(d).is_empty());
        assert!(locks.is_idle() && locks.queues.is_empty());
    }

    /// Who needs a key no longer gives it to those who wait for it, and keeps the others; the shard waits for all.
    #[test]
    fn narrowed() {
        let mut locks = Locks::default();
        let (a, _) = locks.acquire(keys(&[1, 2, 3]), nothing()).expect("free");
        assert!(locks.acquire(keys(&[2]), nothing()).is_none());
        assert!(locks.acquire(keys(&[1, 3]), nothing()).is_none());
        let granted = locks.narrow(a, &[1, 7]);
        assert_eq!(granted.len(), 1, "2 is free, and 3 is wanted together with 1");
        assert!(locks.release(granted[0].0).is_empty());
        assert!(!locks.is_locked(2) && locks.is_locked(1) && locks.is_locked(3));
        let (b, _) = locks.acquire(keys(&[2]), nothing()).expect("free again");
        assert!(locks.acquire(Scope::Shard, nothing()).is_none());
        assert!(locks.release(b).is_empty(), "the shard waits for 1");
        let granted = locks.release(a);
        assert_eq!(granted.len(), 1, "1 and 3 were there before the shard");
        let granted = locks.release(granted[0].0);
        assert_eq!(granted.len(), 1, "the shard");
        assert!(locks.release(granted[0].0).is_empty());
        assert!(locks.is_idle() && locks.queues.is_empty());
    }

    /// Who has locks may lock what nobody else wants, also before somebody who waits for the whole shard.
    #[test]
    fn widened() {
        let mut locks = Locks::default();
        let (a, _) = locks.acquire(keys(&[1]), nothing()).expect("free");
        let (b, _) = locks.acquire(keys(&[2]), nothing()).expect("free");
        assert_eq!(locks.try_widen(Some(a), 1), Some(a), "it has it");
        assert_eq!(locks.try_widen(Some(a), 2), None);
        assert!(locks.acquire(Scope::Shard, nothing()).is_none());
        assert_eq!(locks.try_widen(Some(a), 3), Some(a));
        assert_eq!(locks.try_widen(None, 4), None, "behind the whole shard");
        assert!(locks.acquire(keys(&[3]), nothing()).is_none());
        assert!(locks.release(b).is_empty());
        let granted = locks.release(a);
        assert_eq!(granted.len(), 1, "the shard");
        assert_eq!(locks.try_widen(Some(granted[0].0), 9), Some(granted[0].0));
        let granted = locks.release(granted[0].0);
        assert_eq!(granted.len(), 1, "3");
        assert!(locks.release(granted[0].0).is_empty());
        let c = locks.try_widen(None, 4).expect("free");
        assert!(locks.release(c).is_empty());
        assert!(locks.is_idle() && locks.queues.is_empty());
    }

    /// Who has the whole shard may keep one key, before all who came for it meanwhile.
    #[test]
    fn narrowed_from_the_whole_shard() {
        let mut locks = Locks::default();
        let (a, _) = locks.acquire(Scope::Shard, nothing()).expect("free");
        assert!(locks.acquire(keys(&[1]), nothing()).is_none());
        assert!(locks.acquire(keys(&[2]), nothing()).is_none());
        assert!(locks.acquire(Scope::Shard, nothing()).is_none());
        assert!(locks.acquire(keys(&[3]), nothing()).is_none());
        let granted = locks.narrow(a, &[1]);
        assert_eq!(granted.len(), 1, "2 is free; 3 comes behind the whole shard");
        assert!(locks.release(granted[0].0).is_empty());
        let granted = locks.release(a);
        assert_eq!(granted.len(), 1, "1");
        let granted = locks.release(granted[0].0);
        assert_eq!(granted.len(), 1, "the shard");
        let granted = locks.release(granted[0].0);
        assert_eq!(granted.len(), 1, "3");
        assert!(locks.release(granted[0].0).is_empty());
        assert!(locks.is_idle() && locks.queues.is_empty());
    }

    /// A ticket for the shard waits for all before it and holds back all behind it.
    #[test]
    fn the_whole_shard() {
        let mut locks = Locks::default();
        let (a, _) = locks.acquire(keys(&[1]), nothing()).expect("free");
        assert!(locks.acquire(Scope::Shard, nothing()).is_none());
        assert!(locks.acquire(keys(&[9]), nothing()).is_none(), "behind the shard");
        assert!(locks.is_locked(77));
        let granted = locks.release(a);
        assert_eq!(granted.len(), 1, "the shard");
        let granted = locks.release(granted[0].0);
        assert_eq!(granted.len(), 1, "9");
        assert!(locks.release(granted[0].0).is_empty());
        assert!(locks.is_idle());
    }
}
