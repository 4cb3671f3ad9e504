//! Moves that wait (BLMOVE, BRPOPLPUSH), as all cores see them.
//!
//! Whoever brings an element finds those served who waited for it, before its reply and before anything else runs. So
//! who locks the source of a move, to bring something there, also locks all that it may *reach*: the target of the
//! move, that of a move which waits for the target, and so on. If that is on several shards, a command that needs one
//! only is carried out like a transaction of its own, too. Under its locks the moves are done (`order.rs`).
//!
//! Who waits is known here from the moment in which it is in the queue of its source. What was sent before that moment
//! may meet it unprepared: see `Core::send_for`.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use damselfly_commands::Command;
use damselfly_protocol::Argv;

use crate::core::Core;
use crate::execute::databases_of;
use crate::locks::lock_number;

/// A key: its shard and its lock number.
pub(crate) type Spot = (usize, u64);

/// Places for the numbers of sources, 16 KiB: a hundred sources are confused with one key in forty.
const MARKS: usize = 4096;

/// Keys that are locked one by one; who may reach more locks everything.
const REACH_MAX: usize = 64;

/// From where to where a waiter moves an element.
pub(super) struct Path {
    pub source: Spot,
    pub target: Spot,
    /// One of the following; changed under the lock of [`Moves`].
    state: AtomicU8,
}

/// Its waiter is in no queue yet; all cores know it; its waiting is over.
const NEW: u8 = 0;
const KNOWN: u8 = 1;
const OVER: u8 = 2;

impl Path {
    pub fn new(source: Spot, target: Spot) -> Path {
        Path { source, target, state: AtomicU8::new(NEW) }
    }

    /// Whether it leaves the shard.
    pub fn roams(&self) -> bool {
        self.source.0 != self.target.0
    }
}

/// See the module's head.
pub struct Moves {
    /// How many there are: while there is none, nobody asks for more.
    all: AtomicUsize,
    /// How many of them leave their shard.
    roaming: AtomicUsize,
    /// How many wait for a key with such a number, so that most others are told apart without the lock.
    marks: Box<[AtomicU32]>,
    /// The targets of those who wait for a key, in their order, by the number of that key.
    targets: Mutex<HashMap<u64, VecDeque<Spot>>>,
}

impl Default for Moves {
    fn default() -> Self {
        Moves {
            all: AtomicUsize::new(0),
            roaming: AtomicUsize::new(0),
            marks: (0..MARKS).map(|_| AtomicU32::new(0)).collect(),
            targets: Mutex::default(),
        }
    }
}

/// What elements that are brought to some keys may reach.
#[derive(Debug, Default, PartialEq, Eq)]
pub enum Reach {
    /// Nobody's target.
    #[default]
    Nothing,
    /// These keys, among them those that they are brought to, and perhaps from one shard to another.
    Keys { spots: BTreeSet<Spot>, roams: bool },
    /// More than are counted.
    All,
}

impl Reach {
    /// Whether other shards may be reached.
    pub fn roams(&self) -> bool {
        match self {
            Reach::Nothing => false,
            Reach::Keys { roams, .. } => *roams,
            Reach::All => true,
        }
    }

    /// The lock numbers of what is reached on one shard, where others are out of reach.
    pub fn on(self, shard: usize) -> impl Iterator<Item = u64> {
        let spots = match self {
            Reach::Keys { spots, .. } => spots,
            Reach::Nothing | Reach::All => BTreeSet::new(),
        };
        spots.into_iter().filter(move |spot| spot.0 == shard).map(|spot| spot.1)
    }
}

impl Moves {
    /// Whether there is any.
    #[inline]
    pub fn is_any(&self) -> bool {
        self.all.load(Ordering::Relaxed) > 0
    }

    /// Whether any leaves its shard.
    pub fn is_roaming(&self) -> bool {
        self.roaming.load(Ordering::Relaxed) > 0
    }

    /// Whether somebody may wait for a key.
    fn is_marked(&self, number: u64) -> bool {
        self.marks[number as usize % MARKS].load(Ordering::Relaxed) > 0
    }

    fn targets(&self) -> MutexGuard<'_, HashMap<u64, VecDeque<Spot>>> {
        self.targets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Somebody waits, behind all others of the same source.
    pub(super) fn add(&self, path: &Path) {
        let mut targets = self.targets();
        if path.state.load(Ordering::Relaxed) != NEW {
            return;
        }
        path.state.store(KNOWN, Ordering::Relaxed);
        let Path { source, target, .. } = *path;
        targets.entry(source.1).or_default().push_back(target);
        self.marks[source.1 as usize % MARKS].fetch_add(1, Ordering::Relaxed);
        self.all.fetch_add(1, Ordering::Relaxed);
        self.roaming.fetch_add(usize::from(path.roams()), Ordering::Relaxed);
    }

    /// The waiting is over, or will be before it began. Two with the same target are as good as each other.
    pub(super) fn remove(&self, path: &Path) {
        let mut targets = self.targets();
        if path.state.swap(OVER, Ordering::Relaxed) != KNOWN {
            return;
        }
        let Path { source, target, .. } = *path;
        let of_source = targets.get_mut(&source.1).expect("it was added");
        let at = of_source.iter().position(|other| *other == target).expect("it was added");
        of_source.remove(at);
        if of_source.is_empty() {
            targets.remove(&source.1);
        }
        self.marks[source.1 as usize % MARKS].fetch_sub(1, Ordering::Relaxed);
        self.all.fetch_sub(1, Ordering::Relaxed);
        self.roaming.fetch_sub(usize::from(path.roams()), Ordering::Relaxed);
    }

    /// What so many elements may reach that are brought to these keys.
    fn reach(&self, from: &[Spot], most: usize) -> Reach {
        if most == 0 || !from.iter().any(|(_, number)| self.is_marked(*number)) {
            return Reach::Nothing;
        }
        let targets = self.targets();
        let mut reach = follow(&targets, from, most);
        // Who gets an error takes nothing, and those behind it are served instead.
        if let Reach::Keys { roams, .. } = &mut reach
            && self.is_roaming()
        {
            *roams = *roams || follow(&targets, from, usize::MAX).roams();
        }
        reach
    }
}

/// Where so many elements go from these keys, if each serves one waiter of a key.
fn follow(targets: &HashMap<u64, VecDeque<Spot>>, from: &[Spot], mut most: usize) -> Reach {
    let mut spots: BTreeSet<Spot> = from.iter().copied().collect();
    let mut todo: Vec<Spot> = spots.iter().copied().collect();
    let (mut any, mut roams) = (false, false);
    while let Some(source) = todo.pop() {
        for &target in targets.get(&source.1).into_iter().flatten().take(most) {
            any = true;
            roams |= source.0 != target.0;
            if spots.insert(target) {
                todo.push(target);
            } else if most < usize::MAX {
                // It may come back, and then nobody knows where it ends.
                most = usize::MAX;
                todo = spots.iter().copied().collect();
                break;
            }
            if spots.len() > from.len() + REACH_MAX {
                return Reach::All;
            }
        }
    }
    if any { Reach::Keys { spots, roams } } else { Reach::Nothing }
}

/// How many of a command's keys come before those that it brings elements to, and how many elements that may be. None
/// if nobody who waits for a list gets anything by it.
pub(crate) fn brings(command: &Command, argc: usize) -> Option<(usize, usize)> {
    match command.name {
        "LPUSH" | "RPUSH" | "LPUSHX" | "RPUSHX" => Some((0, argc.saturating_sub(2))),
        "LINSERT" => Some((0, 1)),
        "LMOVE" | "RPOPLPUSH" | "BLMOVE" | "BRPOPLPUSH" => Some((1, 1)),
        "COPY" | "RENAME" | "RENAMENX" | "SORT" => Some((1, usize::MAX)),
        "MOVE" | "RESTORE" => Some((0, usize::MAX)),
        _ => None,
    }
}

/// What commands that are carried out together bring, and where to.
#[derive(Default)]
pub(crate) struct Brought {
    keys: Vec<Spot>,
    most: usize,
}

impl Core {
    /// Notes what a command over keys of this database brings. To be asked only while somebody waits for a move.
    pub(crate) fn note_brought(
        &mut self,
        brought: &mut Brought,
        command: &Command,
        db: usize,
        argv: &Argv<'_>,
    ) {
        let Some((skipped, most)) = brings(command, argv.len()) else { return };
        brought.most = brought.most.saturating_add(most);
        self.note_keys(brought, command, skipped, db, argv);
    }

    fn note_keys(
        &mut self,
        brought: &mut Brought,
        command: &Command,
        skipped: usize,
        db: usize,
        argv: &Argv<'_>,
    ) {
        let mut positions = std::mem::take(&mut self.positions);
        command.key_positions(argv, &mut positions);
        let dbs = databases_of(command, db, self.ks.databases());
        for &at in positions.iter().skip(skipped) {
            let hash = self.ks.hash(&argv[at]);
            let owner = self.shared.owner(hash);
            brought.keys.extend(dbs.clone().map(|db| (owner, lock_number(db, hash))));
        }
        self.positions = positions;
    }

    /// What it may reach.
    pub(crate) fn reach(&self, brought: &Brought) -> Reach {
        self.shared.moves.reach(&brought.keys, brought.most)
    }

    /// What a command may reach that brings something to those who wait.
    pub(crate) fn reach_of(&mut self, command: &Command, db: usize, argv: &Argv<'_>) -> Reach {
        let mut brought = Brought::default();
        if self.shared.moves.is_any() {
            self.note_brought(&mut brought, command, db, argv);
        }
        self.reach(&brought)
    }

    /// What a command may reach that does with its keys whatever it likes.
    pub(crate) fn reach_of_any(&mut self, command: &Command, db: usize, argv: &Argv<'_>) -> Reach {
        let mut brought = Brought { keys: Vec::new(), most: usize::MAX };
        if self.shared.moves.is_any() {
            self.note_keys(&mut brought, command, 0, db, argv);
        }
        self.reach(&brought)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(spots: &[Spot]) -> Reach {
        let roams = spots.iter().any(|spot| spot.0 != spots[0].0);
        Reach::Keys { spots: spots.iter().copied().collect(), roams }
    }

    /// Targets of targets are reached, as many for each key as there are elements.
    #[test]
    fn reached() {
        let moves = Moves::default();
        let paths = [((0, 1), (0, 2)), ((0, 2), (1, 3)), ((0, 2), (2, 4)), ((1, 3), (0, 1))];
        let [stays, first, second, back] = paths.map(|(source, target)| Path::new(source, target));
        assert_eq!(moves.reach(&[(0, 1)], 9), Reach::Nothing);
        moves.add(&stays);
        assert!(moves.is_any() && !moves.is_roaming());
        assert_eq!(moves.reach(&[(0, 1)], 9), keys(&[(0, 1), (0, 2)]));
        moves.add(&first);
        moves.add(&second);
        assert!(moves.is_roaming());
        assert_eq!(moves.reach(&[(0, 1)], 1), keys(&[(0, 1), (0, 2), (1, 3)]));
        let fails = Path::new((0, 1), (0, 5));
        moves.remove(&stays);
        moves.add(&fails);
        let again = Path::new((0, 1), (0, 2));
        moves.add(&again);
        let spots = [(0, 1), (0, 5)].into();
        assert_eq!(moves.reach(&[(0, 1)], 1), Reach::Keys { spots, roams: true }, "behind an error");
        moves.remove(&fails);
        assert_eq!(moves.reach(&[(0, 1)], 2), keys(&[(0, 1), (0, 2), (1, 3), (2, 4)]));
        assert_eq!(moves.reach(&[(0, 1)], 0), Reach::Nothing);
        assert_eq!(moves.reach(&[(1, 3)], 2), Reach::Nothing);
        moves.add(&back);
        assert_eq!(moves.reach(&[(1, 3)], 1), keys(&[(0, 1), (0, 2), (1, 3), (2, 4)]), "a circle");
        moves.remove(&first);
        moves.remove(&first);
        moves.remove(&back);
        assert_eq!(moves.reach(&[(0, 1)], 1), keys(&[(0, 1), (0, 2), (2, 4)]));
        moves.remove(&second);
        moves.remove(&again);
        assert!(!moves.is_any() && !moves.is_roaming() && !moves.is_marked(1));
        moves.add(&second);
        assert!(!moves.is_any(), "its client has left before it was in the queue");
    }

    /// Whoever could serve very many locks everything.
    #[test]
    fn too_many_to_count() {
        let moves = Moves::default();
        for number in 0..1000 {
            moves.add(&Path::new((0, 1), (1, 10 + number)));
        }
        assert_eq!(moves.reach(&[(0, 1)], usize::MAX), Reach::All);
        assert_eq!(moves.reach(&[(0, 1)], 2), keys(&[(0, 1), (1, 10), (1, 11)]));
    }
}
