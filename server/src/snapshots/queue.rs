//! From the shards to the threads that write: what was saved of a cut, on its way to a file.
//!
//! A queue belongs to one file and has a lane for every shard that goes into it. Shards never wait for a lane here;
//! they ask how full it is and slow down: the walk stops at [`WALK_UNTIL`], and behind [`THROTTLE_FROM`], where only
//! the writes of clients can have brought it, the whole core gives the writer time. So a cut costs some megabytes per
//! shard however slow the disk is.
//!
//! There is no lock: the reader is a thread of low priority, and one that was interrupted while it held a lock would
//! keep the core from its clients until it is its turn again. A reader that waits is unparked, a shard that rests as a
//! whole looks again and again.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use crossbeam::queue::SegQueue;
use crossbeam::utils::CachePadded;
use damselfly_keyspace::Saved;

/// Bytes in a lane at which the walk of its shard rests.
pub const WALK_UNTIL: usize = 2 << 20;
/// Bytes in a lane at which its shard rests as a whole.
pub const THROTTLE_FROM: usize = 8 << 20;
/// How often a shard that rests as a whole looks whether there is room.
const LOOK_EVERY: Duration = Duration::from_micros(100);

#[derive(Default)]
struct Lane {
    pieces: SegQueue<Saved>,
    /// Of these pieces.
    bytes: AtomicUsize,
    /// Nothing more comes.
    ended: AtomicBool,
    /// The shard's walk rests until there is room.
    resting: AtomicBool,
}

/// See the module's head.
#[derive(Default)]
pub struct Queue {
    lanes: Vec<CachePadded<Lane>>,
    /// Nobody reads any more.
    given_up: AtomicBool,
    /// The lane that the reader looks at first, so that all get their turn.
    turn: AtomicUsize,
    /// Who reads.
    reader: OnceLock<Thread>,
    /// The reader waits, or is about to.
    waits: AtomicBool,
}

/// What the reader got.
pub struct Next {
    /// From which lane.
    pub lane: usize,
    /// What.
    pub saved: Saved,
    /// The lane's shard rests, and there is room again: it is to be woken.
    pub wake: bool,
}

impl Queue {
    /// With so many lanes.
    pub fn new(lanes: usize) -> Queue {
        Queue { lanes: (0..lanes).map(|_| CachePadded::default()).collect(), ..Queue::default() }
    }

    /// Adds a piece; how many bytes wait in the lane now. Nobody takes them once it was given up.
    pub fn push(&self, lane: usize, saved: Saved) -> usize {
        if self.is_given_up() {
            return 0;
        }
        let (lane, weight) = (&self.lanes[lane], saved.weight());
        let before = lane.bytes.fetch_add(weight, Ordering::Relaxed);
        lane.pieces.push(saved);
        self.wake_reader();
        before + weight
    }

    /// Nothing more comes in this lane.
    pub fn end(&self, lane: usize) {
        self.lanes[lane].ended.store(true, Ordering::Release);
        self.wake_reader();
    }

    fn wake_reader(&self) {
        // Pairs with the fence in `next`: either this sees that it waits, or it sees what was done before.
        fence(Ordering::SeqCst);
        let waits = self.waits.load(Ordering::Relaxed) && self.waits.swap(false, Ordering::Relaxed);
        if waits && let Some(reader) = self.reader.get() {
            reader.unpark();
        }
    }

    /// Bytes that wait in a lane.
    pub fn waiting(&self, lane: usize) -> usize {
        self.lanes[lane].bytes.load(Ordering::Relaxed)
    }

    /// Lets the shard rest until the reader wakes it; false if there is room already.
    pub fn rest(&self, lane: usize) -> bool {
        let is_full = || self.waiting(lane) >= WALK_UNTIL && !self.is_given_up();
        if !is_full() {
            return false;
        }
        self.lanes[lane].resting.store(true, Ordering::Relaxed);
        // Pairs with the fence in `look`: either this sees that there is room, or the reader that somebody rests.
        fence(Ordering::SeqCst);
        is_full()
    }

    /// Waits until a lane is not overfull any more, but no longer than this.
    pub fn throttle(&self, lane: usize, longest: Duration) {
        let started = Instant::now();
        while self.waiting(lane) > THROTTLE_FROM && !self.is_given_up() && started.elapsed() < longest {
            thread::sleep(LOOK_EVERY);
        }
    }

    /// The next piece, waited for: of one lane, or of any. None when all that comes has come, or it was given up. One
    /// thread reads.
    pub fn next(&self, only: Option<usize>) -> Option<Next> {
        let reader = self.reader.get_or_init(thread::current);
        assert!(reader.id() == thread::current().id(), "one thread reads");
        let mut is_announced = false;
        loop {
            if self.is_given_up() {
                return None;
            }
            // Before the look: what comes last in a lane is its end.
            let mut lanes =
                self.lanes.iter().enumerate().filter(|(lane, _)| only.is_none_or(|only| only == *lane));
            let is_last = lanes.all(|(_, lane)| lane.ended.load(Ordering::Acquire));
            let found = self.look(only);
            if found.is_some() || is_last {
                self.waits.store(false, Ordering::Relaxed);
                return found;
            }
            if is_announced {
                thread::park();
            } else {
                // Once more, so that nothing is missed that came before anybody could know.
                self.waits.store(true, Ordering::Relaxed);
                fence(Ordering::SeqCst);
            }
            is_announced = !is_announced;
        }
    }

    fn look(&self, only: Option<usize>) -> Option<Next> {
        let (count, turn) = (self.lanes.len(), self.turn.load(Ordering::Relaxed));
        let mut order = (turn..count).chain(0..turn).filter(|lane| only.is_none_or(|only| only == *lane));
        let (at, saved) = order.find_map(|lane| Some((lane, self.lanes[lane].pieces.pop()?)))?;
        self.turn.store((at + 1) % count, Ordering::Relaxed);
        let lane = &self.lanes[at];
        let left = lane.bytes.fetch_sub(saved.weight(), Ordering::Relaxed) - saved.weight();
        fence(Ordering::SeqCst);
        let wake = left < WALK_UNTIL / 2
            && lane.resting.load(Ordering::Relaxed)
            && lane.resting.swap(false, Ordering::Relaxed);
        Some(Next { lane: at, saved, wake })
    }

    /// Gives up: what waits is dropped, and what comes too.
    pub fn give_up(&self) {
        self.given_up.store(true, Ordering::SeqCst);
        for lane in &self.lanes {
            while let Some(saved) = lane.pieces.pop() {
                lane.bytes.fetch_sub(saved.weight(), Ordering::Relaxed);
            }
        }
        self.wake_reader();
    }

    /// Whether somebody gave up.
    pub fn is_given_up(&self) -> bool {
        self.given_up.load(Ordering::SeqCst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(len: usize) -> Saved {
        Saved::Part { number: 0, bytes: vec![0; len].into() }
    }

    /// Lanes take turns, a shard rests only while its lane is full, and is woken once when half of it is written.
    #[test]
    fn turns_and_rests() {
        let queue = Queue::new(2);
        for _ in 0..3 {
            queue.push(0, part(WALK_UNTIL / 2));
        }
        queue.push(1, part(1));
        assert!(queue.rest(0) && !queue.rest(1));
        let mut seen = Vec::new();
        queue.end(0);
        queue.end(1);
        while let Some(next) = queue.next(None) {
            seen.push((next.lane, next.wake));
        }
        assert_eq!(seen, [(0, false), (1, false), (0, false), (0, true)]);
        assert_eq!((queue.waiting(0), queue.waiting(1)), (0, 0));
        assert!(queue.next(None).is_none() && !queue.rest(0));
        // Not overfull, so nobody waits.
        queue.throttle(0, Duration::from_secs(3600));
    }

    /// Nothing is lost and nobody sleeps for ever, however readers and shards meet.
    #[test]
    fn all_arrives() {
        const PIECES: usize = 2_000;
        let queue = Queue::new(2);
        std::thread::scope(|scope| {
            for lane in 0..2 {
                let queue = &queue;
                scope.spawn(move || {
                    for number in 0..PIECES {
                        queue.push(lane, part(number % 7 * (WALK_UNTIL / 64)));
                        while queue.rest(lane) {
                            std::thread::yield_now();
                        }
                    }
                    queue.end(lane);
                });
            }
            let mut seen = [0; 2];
            while let Some(next) = queue.next(None) {
                seen[next.lane] += 1;
                assert!(queue.waiting(next.lane) < 2 * WALK_UNTIL);
            }
            assert_eq!(seen, [PIECES; 2]);
        });
    }

    /// One who waits for a single lane is not given others, and giving up ends every waiting.
    #[test]
    fn given_up() {
        let queue = Queue::new(2);
        queue.push(1, part(2 * THROTTLE_FROM));
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| queue.next(Some(0)).is_none() && queue.next(None).is_none());
            let writer = scope.spawn(|| queue.throttle(1, Duration::from_secs(3600)));
            queue.give_up();
            assert!(reader.join().expect("no panic"));
            writer.join().expect("no panic");
        });
        assert!(queue.is_given_up());
    }
}
