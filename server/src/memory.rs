//! The limit on memory, and how it is kept.
//!
//! What counts is what the kernel counts: resident memory of the process, less what was resident before there was any
//! data (the program itself, as with Redis, whose limit is on data). It is read
//! every few milliseconds by a thread that does nothing else ([`watch`]), and by cores that take in much meanwhile
//! ([`Core::take_in`]). But it moves late and for many reasons, so the
//! cores do not act on it. They act on an exact account of what they hold: data without the holes in tables, connections
//! and messages. What resident memory exceeds the sum of the accounts by is the *overhead* (stacks, holes, the
//! allocator's pages); the watcher follows it, and publishes `maxmemory` less the overhead as the *budget* for all
//! accounts together.
//!
//! ```text
//! |<------------------------- maxmemory ------------------------->|
//! |   account of core 0   |   account of core 1   |   | overhead  |
//! |<---------------------- budget ------------------->|
//! ```
//!
//! A core compares before each command that may grow memory ([`Core::admit`]): over the budget it first makes room
//! for what comes, and up to as much again while there is too much; with nobody to evict it refuses. And in each turn
//! it evicts its part of what is less than a margin below the budget, for a bounded time, so that most commands find
//! room. Freed memory must also leave the process: the allocator is told to give pages back soon, and while the
//! overhead is large the cores tidy (`keyspace/src/tidy.rs`): without that, values of one size that are replaced by
//! values of another leave pages behind that are half empty for ever. While it is not large, but more than it need be,
//! they tidy for a small part of their time. What a fall of the budget has left of holes is filled again bit by bit
//! ([`Overhead`]).
//!
//! Shards should have as many keys as each other ([`Standing`]): who has more gives up what all have too much of.
//!
//! Requests that are not complete yet are bounded in sum, too, and so is what clients have sent of them that is not read
//! for want of room; that is not resident, but counts: see `input_room.rs`.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use damselfly_commands::{Command, Flags};
use damselfly_config::MaxmemoryPolicy;
use damselfly_keyspace::{Evicted, Eviction, Heap};
use damselfly_protocol::Argv;

use crate::allocator;
use crate::batch::Batch;
use crate::connection::ConnectionId;
use crate::core::Core;
use crate::input_room::{Booked, INPUT_FREE};
use crate::locks::lock_number;
use crate::process::Resident;
use crate::shared::{Peer, Shared};

/// Looks at resident memory: often when it is above three quarters of the limit, seldom below.
const LOOK_NEAR: Duration = Duration::from_millis(4);
const LOOK_FAR: Duration = Duration::from_millis(50);
/// What was resident before there was any data is not held against the limit up to this part of it: together with the
/// program's file it must stay within what one who told a small limit takes for the process itself.
const STARTUP_SHARE: u64 = 16;
/// Free pages go back to the system where more is resident than may be, where they have become more by this part of the limit,
/// and else only so often: those that are taken again meanwhile need not travel. (With each look from the limit on, a SET of
/// 100 KB had six page faults and took 41 us; now two or three, and 33. If they go only for the first and last reason, one and
/// 29, but a cache of 64 MB has 60 MB of long values instead of 69.)
const GIVE_BACK_SHARE: u64 = 64;
const GIVE_BACK_EVERY: Duration = Duration::from_millis(50);
/// Beyond this part of the limit too much, the budget follows.
const FAR_SHARE: u64 = 64;
/// How many times as much is evicted as is resident beyond it.
const EFFECT: u64 = 8;
/// Data may grow into holes until so much of the limit would be too much without them.
const REFILL_SHARE: u64 = 128;
/// At least this part of the limit is for data, whatever the overhead: a cache that evicts all it has because memory
/// does not come back is worse than one that is too big.
const BUDGET_MIN: u64 = 3;
/// And what the buffers of sockets take of it at most.
const UNREAD_SHARE: u64 = 4;
/// Overhead that is no reason to tidy: the process itself, and an eighth of the data; and without the holes of tables, which
/// are filled by what is written next, less.
const SPARSE_FROM: u64 = 8 << 20;
const SPARSE_SHARE: u64 = 8;
const SPARSE_PAGES_FROM: u64 = 4 << 20;
const SPARSE_PAGES_SHARE: u64 = 16;
/// And from where on tidying is worth a part in so many of a core's time, if most memory is values outside tables. (Of
/// values of 8000 bytes under Zipf 0.7 five in a hundred more stay: the cache had 224 to 250 MB of data, in waves, and
/// has 248 to 250. Values of 200 bytes, which lie in tables, would cost a tenth more processor time per SET.)
const LOOSE_FROM: u64 = 2 << 20;
const LOOSE_SHARE: u64 = 40;
const LOOSE_TIME_PART: u32 = 16;

/// Eviction begins when less than this part of the budget is free.
const MARGIN_SHARE: u64 = 256;
/// A shard has more or fewer keys than the others from this part of its share on, and so many.
const UNEVEN_SHARE: usize = 16;
const UNEVEN_KEYS: usize = 8;
/// Who has fewer makes no room for buffers up to this part of the limit.
const POOR_BUFFER_SHARE: i64 = 16;
/// From here on new keys queue, as a part of the budget.
const SELECTIVE_FROM: (u64, u64) = (7, 8);
/// What one command may have to free beyond its own size, and the steps that all of one turn spend on that: of about a
/// microsecond each. Not time, which also passes while the core has no processor: where there are more threads than
/// processors, each turn would do next to nothing.
const EXTRA: i64 = 4096;
const TOIL_STEPS: u32 = 1024;
/// Steps that find nobody which one command waits for.
const SEARCH_STEPS: usize = 32;
/// Steps of eviction in one turn; and when there is more than a sixteenth too much, as after the limit was lowered.
const EVICT_STEPS: u32 = 256;
const EVICT_STEPS_HURRIED: u32 = 1024;
const STEP_BYTES: usize = 16 << 10;
/// Steps of tidying in one turn, of some 100 microseconds each if there is something to move; and where memory beyond the
/// limit must go at once. (That is not so while a lowered limit has not been reached yet, which takes seconds and had
/// better not be noticed: turns with the longer tidying took 15 ms and more.)
const TIDY_STEPS: u32 = 8;
const TIDY_STEPS_URGENT: u32 = 64;
const HURRY_SHARE: u64 = 16;
/// Commands of scripts between two looks at the account, while memory is not short.
const UNASKED_MAX: u32 = 64;
/// From this part of the limit beyond it, writers wait for the tidying, with a rest between two times.
const OVER_SHARE: u64 = 50;
const BRAKE_REST: Duration = Duration::from_millis(1);
/// So many bytes of writes and requests that a core takes in while memory is short, and it looks for itself how much is
/// resident: the watcher is a thread like others, and may have to wait for a processor while they go on.
const UNSEEN_MAX: usize = 1 << 20;
/// From this part of the limit beyond it on, writers do all that can be done before they go on: tidy, and give pages back;
/// so many rounds of it.
const FAR_OVER_SHARE: u64 = 32;
const HALT_ROUNDS: u32 = 4;
/// Who then has nothing to give leaves the processor to those who have.
const HALT: Duration = Duration::from_millis(1);
/// Rest behind a round of tidying that moved less than a part of the data, doubled each time unless too much is resident or
/// such a part was evicted since, and the longest.
const ROUND_SHARE: usize = 32;
const TIDY_REST: Duration = Duration::from_millis(250);
const TIDY_REST_MAX: Duration = Duration::from_secs(8);
/// Without sparse pages, tidying begins when more than this part of the data is holes: writes close holes by themselves,
/// and keep them at about an eighth.
const HOLES_SHARE: usize = 5;
/// Change of a core's account that others are told of at once.
const TELL_FROM: u64 = 32 << 10;
/// A batch with less is not booked, and buffers that grow by less wait for the end of the turn until others go for them.
const BATCH_FREE: usize = 64 << 10;
const REPLY_FREE: usize = 64 << 10;

/// What the watcher knows. See the module's head.
#[derive(Debug)]
pub struct Memory {
    /// For the accounts of all cores together.
    budget: AtomicU64,
    /// Resident bytes at the last look, but for files' and for what was there from the start.
    resident: AtomicU64,
    /// Resident bytes when the first core began: without any of the program's file, and without what is left out of `resident`.
    startup: AtomicU64,
    own_startup: AtomicU64,
    /// What was resident of the program's file at the last look: more, the more of what it can do was asked for.
    program: AtomicU64,
    /// What resident memory exceeds the accounts by.
    overhead: Mutex<Overhead>,
    /// There is more overhead than there should be.
    is_sparse: AtomicBool,
    /// There is more of it than need be.
    is_loose: AtomicBool,
    /// The limit was changed, and at each look since then more was resident.
    is_lowered: AtomicBool,
}

impl Default for Memory {
    fn default() -> Memory {
        Memory {
            budget: AtomicU64::new(u64::MAX),
            resident: AtomicU64::new(0),
            startup: AtomicU64::new(0),
            own_startup: AtomicU64::new(0),
            program: AtomicU64::new(0),
            overhead: Mutex::default(),
            is_sparse: AtomicBool::new(false),
            is_loose: AtomicBool::new(false),
            is_lowered: AtomicBool::new(false),
        }
    }
}

impl Memory {
    /// What the process itself takes: resident bytes before there was any data, and the program's file.
    pub fn startup(&self) -> u64 {
        self.startup.load(Ordering::Relaxed) + self.program.load(Ordering::Relaxed)
    }

    fn overhead(&self) -> MutexGuard<'_, Overhead> {
        self.overhead.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sees what is resident now, without what was before there was any data.
    fn look(&self, limit: u64) -> Option<u64> {
        let startup = self.own_startup.load(Ordering::Relaxed);
        let startup = if limit == 0 { startup } else { startup.min(limit / STARTUP_SHARE) };
        let now = Resident::now()?;
        let resident = now.own().saturating_sub(startup);
        self.resident.store(resident, Ordering::Relaxed);
        self.program.store(now.files, Ordering::Relaxed);
        Some(resident)
    }

    /// How much must go before anybody writes more, if it is far too much; `over` is what the core asking has beyond its
    /// allowance. What a lowered limit leaves too much of, turns take away: at once it would take long.
    fn too_much_now(&self, limit: u64, over: i64) -> Option<i64> {
        let resident = self.resident.load(Ordering::Relaxed);
        let bound = limit / FAR_OVER_SHARE;
        let is_urgent = resident > limit + bound && !self.is_lowered.load(Ordering::Relaxed);
        is_urgent.then(|| ((resident - tolerable(limit)) as i64).max(over).min(bound as i64))
    }

    /// The limit was changed: the budget follows at once, so that the next command meets it. The next look knows better.
    pub(crate) fn set_limit(&self, limit: u64) {
        self.is_lowered.store(limit > 0, Ordering::Relaxed);
        self.budget.store(self.overhead().budget(limit), Ordering::Relaxed);
    }
}

/// Which of the allocator's pages are emptied when tables are tidied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pages {
    /// None.
    Full,
    /// Those of which a tenth is free: seldom.
    Loose,
    /// Those of which much is free: at once.
    Sparse,
}

/// See the module's head; apart from the threads so that it can be tested.
#[derive(Debug, Default)]
struct Overhead {
    now: u64,
    /// What it was when no more was resident than may be.
    before: u64,
}

impl Overhead {
    /// Takes in one look; returns the budget.
    fn update(&mut self, limit: u64, resident: u64, accounts: u64) -> u64 {
        let seen = resident.saturating_sub(accounts);
        let tolerable = tolerable(limit);
        // Part of what is seen is holes that data can have: as much may come as would be a little too much without them. If
        // it goes there, there are fewer holes at the next look. Else data that once had to go for memory that did not
        // come back would never be as much again.
        let aim = seen.saturating_sub(limit / REFILL_SHARE);
        if limit == 0 || resident <= limit {
            self.approach(aim, 16);
            self.before = self.now;
        } else if resident <= tolerable {
            if self.now > seen {
                self.approach(seen, 16);
            } else if self.now > aim {
                self.approach(aim, 256);
            }
            self.before = self.now;
        } else if resident > limit + limit / FAR_OVER_SHARE {
            self.approach(seen.min(self.now + (resident - tolerable)), 2);
            self.before = self.now.saturating_sub(EFFECT * (limit / FAR_SHARE));
        } else {
            // What is evicted leaves holes, which are resident until their pages are empty and given back. So a multiple of
            // what is too much goes and no more: if each look took as much again, most of a cache would go for a
            // thousandth too much.
            self.approach(seen.min(self.before + EFFECT * (resident - tolerable)), 16);
        }
        self.budget(limit)
    }

    /// By looks: what comes and goes within milliseconds evens out. If each peak counted, the budget would sink to the
    /// lowest of them.
    fn approach(&mut self, aim: u64, looks: u64) {
        if self.now < aim {
            self.now += (aim - self.now).div_ceil(looks);
        } else {
            self.now -= (self.now - aim) / looks;
        }
    }

    /// What it leaves of a limit.
    fn budget(&self, limit: u64) -> u64 {
        if limit == 0 {
            return u64::MAX;
        }
        // Eviction keeps a margin below the budget, so the budget is that much more than the limit leaves. Else all
        // would stand still only while the margin is not resident; but what is evicted leaves holes, which are, so that
        // there would be more overhead and more to evict, for ever.
        (limit + limit / MARGIN_SHARE).saturating_sub(self.now).max(limit / BUDGET_MIN)
    }
}

/// What eviction keeps free of a budget.
fn margin(budget: u64) -> i64 {
    (budget / MARGIN_SHARE) as i64
}

/// So much may be resident for a while.
fn tolerable(limit: u64) -> u64 {
    limit + limit / FAR_SHARE
}

/// From here on it is looked at often.
fn is_near(resident: u64, limit: u64) -> bool {
    resident > limit / 4 * 3
}

/// Begins to look at resident memory, until the process stops.
pub fn watch(shared: &Arc<Shared>) -> std::io::Result<()> {
    let memory = &shared.memory;
    let first = Resident::now().unwrap_or_default();
    memory.startup.store(first.all - first.files, Ordering::Relaxed);
    memory.own_startup.store(first.own(), Ordering::Relaxed);
    memory.program.store(first.files, Ordering::Relaxed);
    memory.budget.store(memory.overhead().budget(shared.settings.maxmemory()), Ordering::Relaxed);
    let shared = shared.clone();
    std::thread::Builder::new().name("memory".to_string()).spawn(move || {
        // When free pages last went back, and the least that was resident beyond the accounts since.
        let (mut given_back, mut least) = (Instant::now(), 0);
        while !shared.stopping.load(Ordering::Relaxed) {
            let seen = look(&shared);
            let limit = match shared.settings.maxmemory() {
                // None: far away.
                0 => u64::MAX / 2,
                limit => limit,
            };
            least = least.min(seen.excess());
            let is_urgent =
                seen.resident > tolerable(limit) || seen.excess() - least > limit / GIVE_BACK_SHARE;
            if is_urgent || given_back.elapsed() >= GIVE_BACK_EVERY {
                allocator::give_back();
                given_back = Instant::now();
                least = Seen::now(&shared, limit).unwrap_or_default().excess();
            }
            std::thread::sleep(if is_near(seen.resident, limit) { LOOK_NEAR } else { LOOK_FAR });
        }
    })?;
    Ok(())
}

/// What one look has seen.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    resident: u64,
    /// The accounts of all cores, and what is being freed: that is neither data nor a reason to evict.
    counted: u64,
}

impl Seen {
    fn now(shared: &Shared, limit: u64) -> Option<Seen> {
        // Before the accounts: what grows meanwhile makes the overhead too small for one look, not too large.
        let resident = shared.memory.look(limit)?;
        let counted = sum(shared, |peer| &peer.account) + sum(shared, |peer| &peer.doomed);
        Some(Seen { resident, counted })
    }

    fn excess(&self) -> u64 {
        self.resident.saturating_sub(self.counted)
    }
}

fn sum(shared: &Shared, field: fn(&Peer) -> &AtomicU64) -> u64 {
    shared.peers.iter().map(|peer| field(peer).load(Ordering::Relaxed)).sum()
}

/// Looks once, and settles the budget.
fn look(shared: &Shared) -> Seen {
    let (memory, limit) = (&shared.memory, shared.settings.maxmemory());
    let Some(seen) = Seen::now(shared, limit) else { return Seen::default() };
    let budget = memory.overhead().update(limit, seen.resident, seen.counted);
    // Nor are the buffers of sockets resident, but they are memory that clients take.
    let unread = sum(shared, |peer| &peer.claims.unread).min(limit / UNREAD_SHARE);
    let budget = budget.saturating_sub(unread).max(limit / BUDGET_MIN);
    // Not over the limit that CONFIG SET has given meanwhile.
    if limit == shared.settings.maxmemory() {
        memory.budget.store(budget, Ordering::Relaxed);
    }
    if seen.resident <= tolerable(limit) {
        memory.is_lowered.store(false, Ordering::Relaxed);
    }
    let (excess, counted) = (seen.excess(), seen.counted);
    let of_pages = excess.saturating_sub(sum(shared, |peer| &peer.holes));
    let is_sparse = excess > SPARSE_FROM + counted / SPARSE_SHARE
        || of_pages > SPARSE_PAGES_FROM + counted / SPARSE_PAGES_SHARE;
    memory.is_sparse.store(is_sparse, Ordering::Relaxed);
    memory.is_loose.store(of_pages > LOOSE_FROM + counted / LOOSE_SHARE, Ordering::Relaxed);
    seen
}

/// How a shard stands among the others. Keys are dealt to them by chance, so each should have as many of those that may go:
/// then what goes of one is worth as much as what goes of another. (As many keys and not bytes: a long value is no reason
/// for its shard to have fewer others.) It does not come about by itself: room for what a client sends is made on the core
/// that has the connection, and who is busiest evicts ahead of the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// It has fewer, and leaves it to others to evict ahead of need.
    Poor,
    /// About as many.
    Even,
    /// It has more: bytes that it should give up so that others grow.
    Rich { excess: i64 },
}

/// What a core knows of its part.
#[derive(Debug)]
pub struct Account {
    /// Who may go.
    pub rule: Eviction,
    /// Little memory is left, or none: commands that may grow it are looked at.
    is_tight: bool,
    /// The budget less what the other cores hold.
    allowance: i64,
    /// Bytes of this core's connections when they were last summed up, changed by those pumped since.
    pub buffers: usize,
    /// What the others know of this core's account.
    told: u64,
    /// How many keys its shard has, of all that may go.
    standing: Standing,
    /// The limit was lowered and there is still much too much: each turn evicts a lot.
    hurries: bool,
    /// Bytes taken in since it looked itself at what is resident.
    unseen: usize,
    /// What commands of this turn have done for memory beyond their own need.
    toil: u32,
    /// Commands of scripts that were let through since the account was looked at.
    unasked: u32,
    tidying: Rounds,
}

/// When tidying goes on and when it rests.
#[derive(Debug)]
struct Rounds {
    /// When the last round ended, and how long it rests from that.
    ended: Option<Instant>,
    rest: Duration,
    /// Within a round it rests until then.
    paused: Instant,
    /// Bytes moved in this round.
    moved: usize,
    /// Bytes that were evicted since the last one.
    gone: usize,
    /// The last one moved next to nothing.
    was_idle: bool,
}

impl Rounds {
    fn new(now: Instant) -> Rounds {
        Rounds { ended: None, rest: TIDY_REST, paused: now, moved: 0, gone: 0, was_idle: false }
    }

    /// Whether so much was evicted since the last round that the next finds more than that did.
    fn has_new_holes(&self, data: usize) -> bool {
        self.gone > data / ROUND_SHARE
    }

    /// Whether the last round moved next to nothing, and there is no reason why the next should find more.
    fn found_little(&self, data: usize) -> bool {
        self.was_idle && !self.has_new_holes(data)
    }

    /// Whether there is something to do now; a long rest ends when there are new holes.
    fn is_due(&self, now: Instant, data: usize) -> bool {
        let rest = if self.has_new_holes(data) { self.rest.min(TIDY_REST) } else { self.rest };
        now >= self.paused && self.ended.is_none_or(|ended| now >= ended + rest)
    }

    /// It rests at least until then, whatever is found meanwhile.
    fn pause_until(&mut self, at: Instant) {
        self.paused = self.paused.max(at);
    }

    /// A round has ended; the rest behind it is short if there is a reason, or if there was much to move.
    fn end(&mut self, now: Instant, data: usize, is_short: bool) {
        let was_idle = self.moved <= data / ROUND_SHARE;
        let rest = if !was_idle {
            Duration::ZERO
        } else if is_short || self.has_new_holes(data) {
            TIDY_REST
        } else {
            (self.rest * 2).clamp(TIDY_REST, TIDY_REST_MAX)
        };
        *self = Rounds { ended: Some(now), rest, was_idle, ..Rounds::new(now) };
    }
}

impl Default for Account {
    fn default() -> Account {
        Account {
            rule: Eviction::Never,
            is_tight: false,
            allowance: i64::MAX,
            buffers: 0,
            told: 0,
            standing: Standing::Even,
            hurries: false,
            unseen: 0,
            toil: 0,
            unasked: 0,
            tidying: Rounds::new(Instant::now()),
        }
    }
}

/// The nearest of ours to a policy of Redis.
pub fn rule_of(policy: MaxmemoryPolicy) -> Eviction {
    match policy {
        MaxmemoryPolicy::NoEviction => Eviction::Never,
        MaxmemoryPolicy::AllkeysLru | MaxmemoryPolicy::AllkeysLfu | MaxmemoryPolicy::AllkeysRandom => {
            Eviction::All
        }
        MaxmemoryPolicy::VolatileLru | MaxmemoryPolicy::VolatileLfu | MaxmemoryPolicy::VolatileRandom => {
            Eviction::Timed
        }
        MaxmemoryPolicy::VolatileTtl => Eviction::NextDue,
    }
}

impl Core {
    /// Bytes that this core holds and could do without: data, except holes and what is being freed, and buffers.
    fn account(&self) -> u64 {
        (self.ks.heap_bytes() - self.ks.dead_bytes() + self.memory.buffers) as u64
    }

    /// Tells the others what this core holds, and learns how much it may.
    pub(crate) fn settle_account(&mut self, ticked: bool) {
        self.memory.toil = 0;
        let account = self.account();
        let shared = &self.shared;
        let mine = &shared.peers[self.id];
        if account.abs_diff(self.memory.told) >= TELL_FROM || ticked {
            self.memory.told = account;
            mine.account.store(account, Ordering::Relaxed);
            self.tell_input();
            mine.doomed.store(self.ks.doomed_bytes() as u64, Ordering::Relaxed);
            mine.holes.store(self.ks.dead_bytes() as u64, Ordering::Relaxed);
        }
        let evictable = self.ks.evictable(self.memory.rule);
        mine.evictable.store(evictable, Ordering::Relaxed);
        let budget = shared.memory.budget.load(Ordering::Relaxed);
        if budget == u64::MAX {
            self.memory.is_tight = false;
            self.memory.hurries = false;
            self.memory.allowance = i64::MAX;
            return;
        }
        let others = self.others();
        self.memory.allowance = budget as i64 - others as i64;
        self.memory.standing = self.standing(evictable);
        let used = others + account;
        self.memory.is_tight = used > budget / 10 * 8;
        self.memory.hurries = self.is_lowered() && used > budget + budget / HURRY_SHARE;
        if used > budget / SELECTIVE_FROM.1 * SELECTIVE_FROM.0 && self.memory.rule != Eviction::Never {
            self.ks.be_selective();
        }
    }

    /// How this shard stands with so many keys that may go.
    fn standing(&self, evictable: usize) -> Standing {
        let peers = &self.shared.peers;
        let all: usize = peers.iter().map(|peer| peer.evictable.load(Ordering::Relaxed)).sum();
        let share = all / peers.len();
        let tolerance = share / UNEVEN_SHARE + UNEVEN_KEYS;
        if evictable > share + tolerance {
            let more = (evictable - share) as u128;
            let excess = self.ks.heap_bytes() as u128 * more / evictable as u128;
            return Standing::Rich { excess: excess as i64 };
        }
        if evictable + tolerance < share { Standing::Poor } else { Standing::Even }
    }

    /// What the other cores hold, as they last told.
    fn others(&self) -> u64 {
        let all: u64 = self.shared.peers.iter().map(|peer| peer.account.load(Ordering::Relaxed)).sum();
        all - self.memory.told.min(all)
    }

    /// Whether a command may run: it does not grow memory, or there is room for it, which is made if need be. To be
    /// asked on the core whose shard it grows.
    #[inline]
    pub(crate) fn admit(&mut self, command: &Command, argv: &Argv<'_>) -> bool {
        !command.flags.has(Flags::GROWS)
            || !self.memory.is_tight && is_modest(argv) && self.long_value.is_none()
            || self.admit_if_room(argv)
    }

    #[cold]
    fn admit_if_room(&mut self, argv: &Argv<'_>) -> bool {
        // Where each turn does a lot, commands do no more than they must: they wait for the turn, too.
        let (hurries, toils) = (self.memory.hurries, self.memory.toil < TOIL_STEPS);
        if toils && !self.is_lowered() && self.is_over_limit() && self.may_tidy(Instant::now()) {
            // Holes appear faster than they are closed: who writes waits until some are.
            self.tidy(Pages::Sparse);
            self.memory.toil += TOIL_STEPS / 2;
            self.memory.tidying.pause_until(Instant::now() + BRAKE_REST);
        }
        let apart = self.long_value.as_ref().map_or(0, Vec::len);
        let len = argv.iter().map(<[u8]>::len).sum::<usize>() + apart;
        self.take_in(len);
        let need = len as i64;
        let over = self.account() as i64 + need - self.memory.allowance;
        // Who has more than others gives up more than it takes, and before it must, so that those who have less find room.
        let (wanted, ahead) = match self.memory.standing {
            _ if hurries => (2 * need, 0),
            Standing::Rich { excess } => {
                (2 * need + EXTRA, excess.min(margin(self.shared.memory.budget.load(Ordering::Relaxed))))
            }
            Standing::Even => (2 * need + EXTRA, 0),
            Standing::Poor => (need, 0),
        };
        if over + ahead <= 0 {
            return true;
        }
        let limit = self.shared.settings.maxmemory();
        let is_possible = limit == 0 || need as u64 <= limit;
        let is_admitted = is_possible
            && (self.make_room(over.min(need), (over + ahead).min(wanted))
                || over <= 0
                || self.others_can_give()
                || self.has_given_all());
        if !is_admitted {
            self.stats.oom += 1;
        }
        is_admitted
    }

    /// As [`Core::admit`], for a command of a script: what the script has seen had better not vanish before its end, so
    /// it may go a little beyond the budget before anybody goes.
    pub(crate) fn admit_in_script(&mut self, command: &Command, argv: &Argv<'_>) -> bool {
        if !command.flags.has(Flags::GROWS) {
            return true;
        }
        // A script may go on for long, and what was found at the beginning of the turn gets old.
        if !self.memory.is_tight && is_modest(argv) && self.memory.unasked < UNASKED_MAX {
            self.memory.unasked += 1;
            return true;
        }
        self.memory.unasked = 0;
        let budget = self.shared.memory.budget.load(Ordering::Relaxed);
        let over = self.account() as i64 - self.memory.allowance;
        let is_tolerable = self.memory.rule != Eviction::Never && over < (budget / 32) as i64;
        is_tolerable && is_modest(argv) || self.admit(command, argv)
    }

    /// Whether another shard has keys that may go. What is too much is with them, then, and they give up their part at their
    /// own pace; this one, which has nothing left, may have its own meanwhile.
    fn others_can_give(&self) -> bool {
        let mut others = self.shared.peers.iter().enumerate().filter(|&(id, _)| id != self.id);
        others.any(|(_, peer)| peer.evictable.load(Ordering::Relaxed) > 0)
    }

    /// Whether this shard is empty, and what is too much are buffers, here or elsewhere. Then it may have one value at a
    /// time: each goes for the next.
    fn has_given_all(&self) -> bool {
        self.memory.rule == Eviction::All && self.ks.is_empty_everywhere()
    }

    /// Evicts about `needed` bytes, and up to `wanted` while this turn has time for it; false if there is nobody to evict.
    fn make_room(&mut self, needed: i64, wanted: i64) -> bool {
        let (mut freed, mut searched) = (0, 0);
        let mut is_somebody = true;
        while is_somebody && searched < SEARCH_STEPS {
            let is_extra = freed >= needed;
            if is_extra && (freed >= wanted || self.memory.toil >= TOIL_STEPS) {
                break;
            }
            match self.evict() {
                Evicted::Freed(bytes) => {
                    freed += bytes as i64;
                    self.memory.toil += if is_extra { steps_for(bytes) } else { 0 };
                }
                Evicted::Searching => searched += 1,
                Evicted::Nobody => is_somebody = false,
            }
        }
        is_somebody
    }

    /// One step of eviction.
    fn evict(&mut self) -> Evicted {
        // While clients are paused nothing changes, not even by itself.
        let rule = if self.pause.is_some() { Eviction::Never } else { self.memory.rule };
        let locks = &self.locks;
        let is_locked = |db, hash| locks.is_locked(lock_number(db, hash));
        let evicted = self.ks.evict(rule, if locks.is_idle() { None } else { Some(&is_locked) });
        self.after_command();
        if let Evicted::Freed(bytes) = evicted {
            self.memory.tidying.gone += bytes;
        }
        evicted
    }

    fn may_tidy(&self, now: Instant) -> bool {
        self.memory.tidying.is_due(now, self.ks.heap_bytes())
    }

    /// Evicts ahead of need, and tidies, each for a bounded time; true if there is more to do at once.
    pub(crate) fn keep_memory(&mut self) -> bool {
        let mut more = false;
        if self.memory.is_tight && self.memory.rule != Eviction::Never {
            self.ks.keep_epochs();
            more = self.evict_ahead();
        }
        let Some(pages) = self.pages_to_tidy() else { return more };
        let begun = Instant::now();
        if !self.may_tidy(begun) {
            return more;
        }
        let goes_on = self.tidy(pages);
        if pages == Pages::Loose {
            let ended = Instant::now();
            self.memory.tidying.pause_until(ended + (ended - begun) * (LOOSE_TIME_PART - 1));
            return more;
        }
        more | goes_on
    }

    /// What there is to tidy, if anything.
    fn pages_to_tidy(&self) -> Option<Pages> {
        let memory = &self.shared.memory;
        let data = self.ks.heap_bytes();
        // Holes of tables are filled by what is written next; only values outside leave theirs for ever.
        let is_loose = memory.is_loose.load(Ordering::Relaxed) && self.ks.table_bytes() < data / 2;
        if memory.is_sparse.load(Ordering::Relaxed) {
            // Many pages of which little is free take as much as a few that are nearly empty.
            let looks_closer = is_loose && self.memory.tidying.found_little(data) && !self.is_over_limit();
            Some(if looks_closer { Pages::Loose } else { Pages::Sparse })
        } else if self.memory.is_tight && self.ks.dead_bytes() > data / HOLES_SHARE {
            Some(Pages::Full)
        } else {
            // Not only where memory is tight: more may have gone than had to, and the rest lie in as many pages.
            (is_loose && self.is_near_limit()).then_some(Pages::Loose)
        }
    }

    fn evict_ahead(&mut self) -> bool {
        let account = self.account();
        let budget = self.shared.memory.budget.load(Ordering::Relaxed);
        let excess = match self.memory.standing {
            Standing::Poor => return false,
            Standing::Even => 0,
            Standing::Rich { excess } => excess,
        };
        let over = account as i64 + margin(budget) - self.memory.allowance;
        if over <= 0 || budget == u64::MAX {
            return false;
        }
        // What all have too much of, each gives up its part of.
        // (The budget may have changed since the allowance was settled.)
        let used = (budget as i64 - self.memory.allowance).max(0) as u64 + account;
        let mut part =
            (u128::from(over.unsigned_abs()) * u128::from(account) / u128::from(used.max(1))) as i64;
        part += excess.min(over - part);
        let steps = if over as u64 > budget / HURRY_SHARE { EVICT_STEPS_HURRIED } else { EVICT_STEPS };
        let mut done = 0;
        while part > 0 {
            if done >= steps {
                return true;
            }
            done += match self.evict() {
                Evicted::Freed(freed) => {
                    part -= freed as i64;
                    steps_for(freed)
                }
                Evicted::Searching => 1,
                Evicted::Nobody => return false,
            };
        }
        false
    }

    /// Whether more was resident at the last look than may be.
    fn is_over_limit(&self) -> bool {
        let limit = self.shared.settings.maxmemory();
        limit > 0 && self.shared.memory.resident.load(Ordering::Relaxed) > limit + limit / OVER_SHARE
    }

    /// Whether so much was resident that the watcher looks often.
    fn is_near_limit(&self) -> bool {
        let limit = self.shared.settings.maxmemory();
        limit > 0 && is_near(self.shared.memory.resident.load(Ordering::Relaxed), limit)
    }

    /// Whether the limit was lowered, and has not been reached since.
    fn is_lowered(&self) -> bool {
        self.shared.memory.is_lowered.load(Ordering::Relaxed)
    }

    fn tidy(&mut self, pages: Pages) -> bool {
        let is_urgent = self.is_over_limit() && !self.is_lowered();
        let steps = if is_urgent { TIDY_STEPS_URGENT } else { TIDY_STEPS };
        let heap: Option<&dyn Heap> = match pages {
            Pages::Full => None,
            Pages::Loose => Some(&allocator::LOOSE),
            Pages::Sparse => Some(&allocator::SPARSE),
        };
        for _ in 0..steps {
            let tidied = self.ks.tidy_some(4, 64 << 10, heap);
            self.memory.tidying.moved += tidied.moved;
            if tidied.round_ended {
                if pages != Pages::Full {
                    allocator::collect();
                }
                // Not longer behind the small rounds: who then finds sparse pages would wait, too.
                let is_short = self.is_over_limit() || pages == Pages::Loose;
                self.memory.tidying.end(Instant::now(), self.ks.heap_bytes(), is_short);
                return false;
            }
        }
        true
    }

    /// Makes room for a buffer before it is there: what many clients send at once would else be resident before anybody
    /// has gone for it.
    #[inline]
    pub(crate) fn make_way(&mut self, bytes: usize) {
        if bytes > INPUT_FREE && self.memory.is_tight {
            self.make_way_for(bytes as i64, bytes as i64);
        }
    }

    /// Looks at what is resident once so much has come that the watcher's last look may be out of date. Where that is too
    /// much, the budget follows as if the watcher had looked, and where it is far too much, writers halt.
    fn take_in(&mut self, bytes: usize) {
        self.memory.unseen += bytes;
        if self.memory.unseen < UNSEEN_MAX {
            return;
        }
        self.memory.unseen = 0;
        let limit = self.shared.settings.maxmemory();
        if limit == 0 || self.is_lowered() {
            return;
        }
        if self.shared.memory.look(limit).is_none_or(|resident| resident <= tolerable(limit)) {
            return;
        }
        self.look_around();
        for _ in 0..HALT_ROUNDS {
            let over = self.account() as i64 - self.memory.allowance;
            let Some(too_much) = self.shared.memory.too_much_now(limit, over) else { return };
            if self.memory.rule != Eviction::Never && !self.make_room(too_much, too_much) {
                std::thread::sleep(HALT);
            }
            self.tidy(Pages::Sparse);
            allocator::give_back();
            self.look_around();
        }
    }

    /// Looks at what is resident as the watcher does, and learns how much this core may hold now.
    fn look_around(&mut self) {
        look(&self.shared);
        let budget = self.shared.memory.budget.load(Ordering::Relaxed);
        self.memory.allowance = budget as i64 - self.others() as i64;
    }

    /// Evicts for so many bytes that are to come, and at most about `most`.
    #[cold]
    fn make_way_for(&mut self, coming: i64, most: i64) {
        self.take_in(coming as usize);
        let over = self.account() as i64 + coming - self.memory.allowance;
        // Others give the room for it, in their next turn or when it comes to them, unless there is too much already.
        let limit = self.shared.settings.maxmemory() as i64;
        if self.memory.standing == Standing::Poor
            && coming <= limit / POOR_BUFFER_SHARE
            && over - coming <= limit / FAR_SHARE as i64
        {
            return;
        }
        if over > 0 && self.memory.rule != Eviction::Never {
            // Who finds nobody goes on: buffers have a bound of their own.
            self.make_room(over.min(most), over.min(2 * most));
        }
    }

    /// As [`Core::make_way`], for a request that another core is to have: it is copied on its way.
    #[inline]
    pub(crate) fn make_way_there(&mut self, argv: &Argv<'_>) {
        let long = argv[argv.len() - 1].len();
        if long > BATCH_FREE {
            self.make_way(long);
        }
    }

    /// Something is gone that had so much on the books.
    pub(crate) fn unbook(&mut self, booked: Booked) {
        self.memory.buffers -= booked.buffers;
        self.input_room.give(booked.input, booked.size);
    }

    /// Books what a connection's buffers are now.
    #[inline]
    pub(crate) fn book(&mut self, id: ConnectionId) {
        let Some(connection) = self.connection(id) else { return };
        let (buffers, input) = (connection.heap_bytes(), connection.input_bytes());
        let before = connection.booked;
        connection.booked.buffers = buffers;
        let changes = input != before.input || (input > 0 && connection.pace.size() != before.size);
        self.memory.buffers = self.memory.buffers + buffers - before.buffers;
        if changes {
            self.book_input(id, input, before);
        }
        if buffers > before.buffers + REPLY_FREE && self.memory.is_tight {
            // A long reply that the client does not take at once.
            self.make_way_for(0, (buffers - before.buffers) as i64);
        }
    }

    fn book_input(&mut self, id: ConnectionId, input: usize, before: Booked) {
        if input > INPUT_FREE {
            self.note_begun(id, None);
        }
        let Some(connection) = self.connection(id) else { return };
        let size = connection.pace.size();
        connection.booked.input = input;
        connection.booked.size = size;
        self.input_room.give(before.input, before.size);
        self.input_room.take(input, size);
        if size != before.size || input.abs_diff(before.input) > INPUT_FREE {
            self.tell_input();
        }
    }

    /// Books a batch that leaves, if it is large: long values on their way to another core count as the unfinished
    /// requests that they were, or their clients would send the next ones before those are stored.
    pub(crate) fn book_batch(&mut self, batch: &mut Batch) {
        let bytes = batch.heap_bytes();
        if bytes > BATCH_FREE {
            let size = self.size_of(bytes, bytes);
            batch.booked = Booked { buffers: bytes, input: bytes, size };
            self.memory.buffers += bytes;
            self.input_room.take(bytes, size);
            self.tell_input();
        }
    }

    /// A batch that was sent is back.
    #[inline]
    pub(crate) fn unbook_batch(&mut self, batch: &mut Batch) {
        let booked = std::mem::take(&mut batch.booked);
        if booked.buffers > 0 {
            self.unbook(booked);
            self.tell_input();
        }
    }
}

/// What evicting so many bytes counts: the system takes long to get back the pages of long values.
fn steps_for(bytes: usize) -> u32 {
    1 + (bytes / STEP_BYTES) as u32
}

/// Whether a request is so short that it need not be compared with the limit while there is room.
fn is_modest(argv: &Argv<'_>) -> bool {
    argv[argv.len() - 1].len() < 64 << 10
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writers halt for what is far too much, a bounded part at a time, and never for what was within the limit before it
    /// was lowered: that would hold everybody up until four fifths of a gigabyte had gone.
    #[test]
    fn halting() {
        let memory = Memory::default();
        memory.resident.store(6500, Ordering::Relaxed);
        assert_eq!(memory.too_much_now(6400, 10_000), None, "a little");
        memory.resident.store(6700, Ordering::Relaxed);
        assert_eq!(memory.too_much_now(6400, 50), Some(200), "beyond what is tolerable, at most a 32nd");
        memory.set_limit(640);
        assert_eq!(memory.too_much_now(640, 6000), None, "the limit was lowered");
        memory.is_lowered.store(false, Ordering::Relaxed);
        assert_eq!(memory.too_much_now(640, 6000), Some(20), "a part at a time");
    }

    /// The budget is the limit and a margin less the overhead, but for a 128th of the limit, by which data may grow into
    /// holes. It follows the overhead slowly within the limit, not at all a little beyond it, by eight times as much as is
    /// too much beyond that, quickly far beyond it, and never goes below a third.
    #[test]
    fn budget() {
        let mut overhead = Overhead { now: 10, before: 10 };
        assert_eq!(overhead.update(0, 500, 100), u64::MAX, "no limit");
        let settle = |overhead: &mut Overhead, resident, accounts| {
            (0..200).map(|_| overhead.update(2560, resident, accounts)).last().expect("a budget")
        };
        let mut overhead = Overhead { now: 10, before: 10 };
        assert_eq!(settle(&mut overhead, 2400, 2000), 2560 + 10 - 380);
        assert_eq!(settle(&mut overhead, 2560, 2100), 2560 + 10 - 440);
        assert_eq!(settle(&mut overhead, 2599, 2100), 2560 + 10 - 440, "a little too much is let be");
        assert_eq!(settle(&mut overhead, 2620, 1000), 2560 + 10 - 440 - 8 * 20, "however long it stays");
        let budget = settle(&mut overhead, 2590, 2030);
        assert!((1990..=2570 - 560).contains(&budget), "what is not overhead is data again: {budget}");
        assert!((1900..1960).contains(&overhead.update(2560, 2700, 2000)), "much is not let be");
        assert_eq!(settle(&mut overhead, 9000, 2100), 2560 / BUDGET_MIN);
        assert!(settle(&mut overhead, 2100, 2100) > 2550);
    }

    /// Rounds that find nothing come seldom in the end, as on an idle server whose pages cannot be emptied. When keys are evicted
    /// again, there are new holes: it does not rest from them.
    #[test]
    fn rounds() {
        let begun = Instant::now();
        let (data, second) = (3200, Duration::from_secs(1));
        let mut rounds = Rounds::new(begun);
        assert!(rounds.is_due(begun, data) && !rounds.found_little(data));
        (0..10).for_each(|_| rounds.end(begun, data, false));
        assert!(rounds.found_little(data));
        assert!(!rounds.is_due(begun + 7 * second, data) && rounds.is_due(begun + 8 * second, data));
        rounds.gone = 100;
        assert!(!rounds.is_due(begun + second, data), "next to nothing");
        rounds.gone = 101;
        assert!(!rounds.found_little(data), "there are new holes");
        assert!(rounds.is_due(begun + second, data) && !rounds.is_due(begun + second / 5, data));
        rounds.pause_until(begun + 2 * second);
        assert!(!rounds.is_due(begun + second, data), "there is a pause");
        rounds.end(begun + second, data, false);
        assert!(!rounds.is_due(begun + second, data) && rounds.is_due(begun + second + TIDY_REST, data));
        rounds.moved = 101;
        rounds.end(begun + second, data, false);
        assert!(rounds.is_due(begun + second, data), "much was moved");
    }

    /// Data that had to go comes back into the holes that it has left, though no less is resident than may be.
    #[test]
    fn holes_are_filled() {
        const LIMIT: u64 = 64 << 20;
        let (mut overhead, mut data) = (Overhead { now: LIMIT / 2, before: LIMIT / 2 }, LIMIT / 2);
        for _ in 0..4000 {
            // All but 2 MB of what is not data could be.
            let resident = LIMIT.max(data + (2 << 20));
            data = overhead.update(LIMIT, resident, data) - LIMIT / MARGIN_SHARE;
        }
        assert!((60 << 20..LIMIT).contains(&data), "{data}");
    }
}
