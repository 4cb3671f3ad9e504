//! From the shards to the threads that write: what was saved of a cut, on its way to a file.
//!
//! A queue belongs to one file and has a lane for every shard that goes into it. Shards never wait for a lane here;
//! they ask how full it is and slow down: the walk stops at [`WALK_UNTIL`], and behind [`THROTTLE_FROM`], where only
//! the writes of clients can have brought it, the whole core gives the writer time. So a cut costs some megabytes per
//! shard however slow the disk is.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use damselfly_keyspace::Saved;

/// Bytes in a lane at which the walk of its shard rests.
pub const WALK_UNTIL: usize = 2 << 20;
/// Bytes in a lane at which its shard rests as a whole.
pub const THROTTLE_FROM: usize = 8 << 20;

#[derive(Default)]
struct Lane {
    pieces: VecDeque<Saved>,
    bytes: usize,
    /// Nothing more comes.
    ended: bool,
    /// The shard's walk rests until there is room.
    resting: bool,
}

#[derive(Default)]
struct State {
    lanes: Vec<Lane>,
    /// Nobody reads any more.
    given_up: bool,
    /// The lane that the reader looks at first, so that all get their turn.
    turn: usize,
}

/// See the module's head.
#[derive(Default)]
pub struct Queue {
    state: Mutex<State>,
    /// For the reader: there is something.
    filled: Condvar,
    /// For shards: there is room.
    drained: Condvar,
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
        let state = State { lanes: (0..lanes).map(|_| Lane::default()).collect(), ..State::default() };
        Queue { state: Mutex::new(state), ..Queue::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing in here panics half-way, so a poisoned lock guards good data.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a piece; how many bytes wait in the lane now. Nobody takes them once it was given up.
    pub fn push(&self, lane: usize, saved: Saved) -> usize {
        let mut state = self.state();
        if state.given_up {
            return 0;
        }
        let lane = &mut state.lanes[lane];
        lane.bytes += saved.weight();
        lane.pieces.push_back(saved);
        let bytes = lane.bytes;
        drop(state);
        self.filled.notify_one();
        bytes
    }

    /// Nothing more comes in this lane.
    pub fn end(&self, lane: usize) {
        self.state().lanes[lane].ended = true;
        self.filled.notify_one();
    }

    /// Bytes that wait in a lane.
    pub fn waiting(&self, lane: usize) -> usize {
        self.state().lanes[lane].bytes
    }

    /// Lets the shard rest until the reader wakes it; false if there is room already.
    pub fn rest(&self, lane: usize) -> bool {
        let mut state = self.state();
        let lane = &mut state.lanes[lane];
        lane.resting = lane.bytes >= WALK_UNTIL;
        lane.resting && !state.given_up
    }

    /// Waits until a lane is not overfull any more, but no longer than this.
    pub fn throttle(&self, lane: usize, longest: Duration) {
        let over = |state: &mut State| !state.given_up && state.lanes[lane].bytes > THROTTLE_FROM;
        // Whether there is room or the time was up makes no difference: the next turn looks again.
        drop(self.drained.wait_timeout_while(self.state(), longest, over));
    }

    /// The next piece, waited for: of one lane, or of any. None when all that comes has come, or it was given up.
    pub fn next(&self, only: Option<usize>) -> Option<Next> {
        let mut state = self.state();
        loop {
            if state.given_up {
                return None;
            }
            let (count, turn) = (state.lanes.len(), state.turn);
            let mut order = (turn..count).chain(0..turn).filter(|lane| only.is_none_or(|only| only == *lane));
            let found = order.clone().find(|lane| !state.lanes[*lane].pieces.is_empty());
            let Some(at) = found else {
                if order.all(|lane| state.lanes[lane].ended) {
                    return None;
                }
                state = self.filled.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            state.turn = (at + 1) % count;
            let lane = &mut state.lanes[at];
            let saved = lane.pieces.pop_front().expect("just looked at");
            lane.bytes -= saved.weight();
            let wake = lane.resting && lane.bytes < WALK_UNTIL / 2;
            lane.resting &= !wake;
            drop(state);
            self.drained.notify_all();
            return Some(Next { lane: at, saved, wake });
        }
    }

    /// Gives up: what waits is dropped, and what comes too.
    pub fn give_up(&self) {
        let mut state = self.state();
        state.given_up = true;
        let dropped: Vec<Lane> = std::mem::take(&mut state.lanes);
        state.lanes = dropped.iter().map(|_| Lane::default()).collect();
        drop(state);
        self.filled.notify_all();
        self.drained.notify_all();
    }

    /// Whether somebody gave up.
    pub fn is_given_up(&self) -> bool {
        self.state().given_up
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

    /// One who waits for a single lane is not given others, and giving up ends every waiting.
    #[test]
    fn given_up() {
        let queue = Queue::new(2);
        queue.push(1, part(2 * THROTTLE_FROM));
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| queue.next(Some(0)).is_none());
            let writer = scope.spawn(|| queue.throttle(1, Duration::from_secs(3600)));
            queue.give_up();
            assert!(reader.join().expect("no panic"));
            writer.join().expect("no panic");
        });
        assert!(queue.is_given_up() && queue.next(None).is_none());
    }
}
