//! What cores send each other: batches of requests and their replies, jobs, questions and answers.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use super::{Core, JustRead, MESSAGES_PER_TURN, Then};
use crate::batch::Batch;
use crate::connection::ConnectionId;
use crate::mailbox::{Job, Message};

/// Messages for one peer.
#[derive(Default)]
pub(super) struct Outbox {
    /// Being filled in this turn.
    batch: Option<Box<Batch>>,
    /// Refused by the peer's full mailbox, in order.
    refused: VecDeque<Message>,
    /// The peer's mailbox fills up.
    crowded: bool,
    /// Something was pushed since the last ring.
    ring: bool,
}

/// Answers a question of [`Core::ask_later`], on whatever core holds it.
pub struct Replier<R> {
    from: usize,
    number: u64,
    answer: std::marker::PhantomData<fn(R)>,
}

impl<R: Send + 'static> Replier<R> {
    /// Sends the answer.
    pub fn reply(self, core: &mut Core, answer: R) {
        let number = self.number;
        core.send_published();
        if core.id == self.from {
            core.defer(move |core| core.answered(number, Box::new(answer)));
        } else {
            let job: Job = Box::new(move |core| core.answered(number, Box::new(answer)));
            core.post(self.from, Message::Job(job));
        }
    }
}

impl Core {
    pub(super) fn take_messages(&mut self) -> bool {
        let shared = self.shared.clone();
        let mailbox = &shared.peers[self.id].mailbox;
        self.pace.meet(mailbox.waiting());
        for _ in 0..MESSAGES_PER_TURN {
            match self.put_off.pop_front().or_else(|| mailbox.pop()) {
                None => return false,
                Some(Message::Requests(batch)) => self.take_requests(batch),
                Some(Message::Replies(batch)) => self.take_replies(batch),
                Some(Message::Connection(arrival)) => self.adopt(*arrival),
                Some(Message::Job(job)) => job(self),
            }
            while let Some(work) = self.later.pop_front() {
                work(self);
            }
        }
        true
    }

    fn take_requests(&mut self, batch: Box<Batch>) {
        // A setting that was changed before the request was sent counts for it.
        self.read_settings();
        self.shared.peers[batch.from].mailbox.wait_until_posted();
        match self.busy {
            None => self.run_batch(batch),
            Some(busy) => self.refuse_batch(batch, busy),
        }
        self.hand_over_saved();
    }

    /// Does what others asked for before the bytes came that were just read, so that a client that has heard of one
    /// write of a pipeline elsewhere and asks for another one here finds it.
    /// False if one of them was a script that took long, and the connection was answered meanwhile; `bytes`, of which
    /// `len` were read, are used up then.
    #[inline]
    pub(super) fn catch_up(&mut self, id: ConnectionId, bytes: &mut Vec<u8>, len: usize) -> bool {
        let waiting = self.shared.peers[self.id].mailbox.waiting();
        // Within a script that takes long nothing is run.
        if waiting == 0 || self.busy.is_some() {
            return true;
        }
        self.just_read = Some(JustRead { id, bytes: std::mem::take(bytes), len });
        self.take_waiting(self.put_off.len() + waiting);
        self.just_read.take().is_some_and(|JustRead { bytes: back, .. }| {
            *bytes = back;
            true
        })
    }

    #[cold]
    fn take_waiting(&mut self, count: usize) {
        let shared = self.shared.clone();
        let mailbox = &shared.peers[self.id].mailbox;
        for _ in 0..count {
            match self.put_off.pop_front().or_else(|| mailbox.pop()) {
                None => break,
                Some(Message::Requests(batch)) => self.take_requests(batch),
                Some(Message::Connection(arrival)) => self.adopt(*arrival),
                // They would go on with their connections, in the middle of this one's turn.
                Some(Message::Replies(batch)) => self.found_replies.push_back(batch),
                Some(Message::Job(job)) => job(self),
            }
            while let Some(work) = self.later.pop_front() {
                work(self);
            }
        }
    }

    /// Whether a peer refuses messages; sockets are not read meanwhile.
    #[inline]
    pub fn congested(&self) -> bool {
        self.outboxes.iter().any(|outbox| outbox.crowded || !outbox.refused.is_empty())
    }

    /// The batch for a peer that is being filled.
    #[inline]
    pub(crate) fn batch_for(&mut self, peer: usize) -> &mut Batch {
        let outbox = &mut self.outboxes[peer];
        if outbox.batch.is_none() {
            let mut batch = self.spare_batches.pop().unwrap_or_default();
            batch.from = self.id;
            outbox.batch = Some(batch);
            self.open_batches += 1;
        }
        outbox.batch.as_mut().expect("just made")
    }

    /// Sends the requests of this turn so far to all cores, as one.
    pub(crate) fn send_requests(&mut self) {
        if self.open_batches == 0 {
            return;
        }
        let shared = self.shared.clone();
        let several = self.open_batches > 1;
        self.open_batches = 0;
        if several {
            shared.peers[self.id].mailbox.begin_posting();
        }
        for peer in 0..self.outboxes.len() {
            if let Some(mut batch) = self.outboxes[peer].batch.take() {
                self.book_batch(&mut batch);
                self.push(peer, Message::Requests(batch));
            }
        }
        if several {
            shared.peers[self.id].mailbox.end_posting();
        }
    }

    /// Sends a message to another core, behind all requests that came before.
    pub fn post(&mut self, peer: usize, message: Message) {
        self.send_requests();
        self.push(peer, message);
    }

    fn push(&mut self, peer: usize, message: Message) {
        let outbox = &mut self.outboxes[peer];
        outbox.ring = true;
        if outbox.refused.is_empty() {
            let mailbox = &self.shared.peers[peer].mailbox;
            if let Err(message) = mailbox.push(message) {
                outbox.refused.push_back(message);
            }
            outbox.crowded = mailbox.is_crowded();
        } else {
            outbox.refused.push_back(message);
        }
    }

    pub(super) fn send_batches(&mut self) {
        self.send_requests();
        // Behind the requests to all cores: who gets a message and asks for what was written before it finds it.
        self.send_published();
        for peer in 0..self.outboxes.len() {
            let outbox = &mut self.outboxes[peer];
            while let Some(message) = outbox.refused.pop_front() {
                if let Err(message) = self.shared.peers[peer].mailbox.push(message) {
                    outbox.refused.push_front(message);
                    break;
                }
            }
            if outbox.crowded {
                outbox.crowded = self.shared.peers[peer].mailbox.is_crowded();
            }
            if outbox.ring {
                outbox.ring = false;
                self.shared.peers[peer].mailbox.ring();
            }
        }
    }

    /// Sends what this turn has for others, then the replies that come behind it: the peers start before this core spends
    /// time on its sockets, and nobody has a reply before they can.
    pub(super) fn send_turn(&mut self) {
        self.send_batches();
        for id in std::mem::take(&mut self.unsent) {
            self.finish(id);
        }
    }

    /// Keeps a batch's memory for the next one.
    pub(crate) fn recycle(&mut self, mut batch: Box<Batch>) {
        if self.spare_batches.len() < 2 * self.outboxes.len() {
            batch.reset();
            self.spare_batches.push(batch);
        }
    }

    /// Asks core `to` to do `work` and goes on with `then` when the answer is here. Also for this core itself.
    pub fn ask<R: Send + 'static>(
        &mut self,
        to: usize,
        work: impl FnOnce(&mut Core) -> R + Send + 'static,
        then: impl FnOnce(&mut Core, R) + 'static,
    ) {
        self.ask_later(
            to,
            move |core, replier| {
                let answer = work(core);
                replier.reply(core, answer)
            },
            then,
        );
    }

    /// As [`Core::ask`], for work that answers later.
    pub fn ask_later<R: Send + 'static>(
        &mut self,
        to: usize,
        work: impl FnOnce(&mut Core, Replier<R>) + Send + 'static,
        then: impl FnOnce(&mut Core, R) + 'static,
    ) {
        let number = self.expect(Box::new(move |core, answer| {
            then(core, *answer.downcast::<R>().expect("the answer has the type that was asked for"));
        }));
        let replier = Replier { from: self.id, number, answer: std::marker::PhantomData };
        if to == self.id {
            work(self, replier);
        } else {
            self.post(to, Message::Job(Box::new(move |core| work(core, replier))));
        }
    }

    /// Asks all cores the same and goes on with all answers, in the order of the cores.
    pub fn ask_all<R: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Core) -> R + Clone + Send + 'static,
        then: impl FnOnce(&mut Core, Vec<R>) + 'static,
    ) {
        let answer = |core: &mut Core, replier: Replier<R>| {
            let answer = work(core);
            replier.reply(core, answer);
        };
        let cores = self.shared.peers.len();
        self.ask_each((0..cores).map(|to| (to, answer.clone())), then);
    }

    /// Asks some cores, each its own question, and goes on with all answers, in the order of the questions.
    pub fn ask_each<R: Send + 'static, W: FnOnce(&mut Core, Replier<R>) + Send + 'static>(
        &mut self,
        questions: impl ExactSizeIterator<Item = (usize, W)>,
        then: impl FnOnce(&mut Core, Vec<R>) + 'static,
    ) {
        let count = questions.len();
        if count == 0 {
            return then(self, Vec::new());
        }
        let answers: Vec<Option<R>> = (0..count).map(|_| None).collect();
        let waiting = Rc::new((Cell::new(count), RefCell::new(answers), Cell::new(Some(then))));
        for (at, (to, work)) in questions.enumerate() {
            let waiting = waiting.clone();
            self.ask_later(to, work, move |core, answer| {
                let (missing, answers, then) = &*waiting;
                answers.borrow_mut()[at] = Some(answer);
                missing.set(missing.get() - 1);
                if missing.get() == 0
                    && let Some(then) = then.take()
                {
                    then(core, answers.take().into_iter().flatten().collect());
                }
            });
        }
    }

    /// Goes on with `then` when [`Core::answered`] is called with the number that this returns.
    pub(crate) fn expect(&mut self, then: Then) -> u64 {
        let number = self.next_continuation;
        self.next_continuation += 1;
        self.continuations.insert(number, then);
        number
    }

    /// Goes on with what has waited for this answer.
    pub(crate) fn answered(&mut self, number: u64, answer: Box<dyn Any>) {
        let then = self.continuations.remove(&number).expect("each question is answered once");
        then(self, answer);
    }
}
