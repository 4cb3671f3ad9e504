//! What commands in steps look up in keys, as it was when they began: see `keyspace/src/past.rs`.
//!
//! SORT does so for keys that its elements name. Commands that name very many keys themselves (a union of a hundred
//! thousand sets) do so for all of these: to clone what they hold takes a hundred milliseconds, so the handler looks at
//! none of them. It begins a past, and a [`Gathering`] asks for some keys at a time, on whatever shard they are.

use damselfly_keyspace::values::hash::Hash;
use damselfly_keyspace::values::set::Set;
use damselfly_keyspace::{Collection, Keyspace, Object, PastId, UnixMs, Value};
use damselfly_protocol::number::Decimal;

use crate::args::Kept;
use crate::task::{BYTES_PER_STEP, Rest, Task};
use crate::{Args, CmdResult, CommandError, Cx, Env};

/// Keys that are asked for in one step.
const KEYS_PER_STEP: usize = 32;

/// To find a key and to clone what it holds takes as long as so many members that are only looked at.
const LOOKS_PER_KEY: usize = 8;

/// What is looked up in a key.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    /// The string that it holds.
    Text,
    /// A field of the hash that it holds.
    Field(Vec<u8>),
    /// Whatever it holds.
    All,
}

/// Something to be looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The key.
    pub key: Vec<u8>,
    part: Part,
    /// To look it up is to read the key, where that is counted.
    is_read: bool,
}

/// What was found.
#[derive(Clone)]
pub enum Told {
    /// Nothing of the kind.
    Nothing,
    /// A string.
    Text(Vec<u8>),
    /// A collection, without members whose time had come.
    Object(Object),
}

impl Told {
    /// The string, if it is one.
    pub(crate) fn text(self) -> Option<Vec<u8>> {
        match self {
            Told::Text(text) => Some(text),
            Told::Nothing | Told::Object(_) => None,
        }
    }

    fn of(value: Value<'_, Object>, now: UnixMs) -> Told {
        match value {
            Value::Int(number) => Told::Text(Decimal::new(number).as_bytes().to_vec()),
            Value::Str(bytes) => Told::Text(bytes.to_vec()),
            Value::Object(object) => {
                let mut object = object.clone();
                if let Some(set) = Set::of_mut(&mut object)
                    && set.next_expiry().is_some_and(|at| at <= now)
                {
                    set.expire_members(now);
                    if set.is_gone() {
                        return Told::Nothing;
                    }
                }
                Told::Object(object)
            }
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Told::Text(text) => text.len(),
            Told::Nothing | Told::Object(_) => 0,
        }
    }
}

impl Wanted {
    /// The string under a key, or in a field of the hash under it.
    pub(crate) fn text(key: Vec<u8>, field: Option<Vec<u8>>) -> Wanted {
        Wanted { key, part: field.map_or(Part::Text, Part::Field), is_read: true }
    }

    /// Looks it up now.
    pub(crate) fn fetch(&self, cx: &mut Cx<'_>) -> Told {
        match cx.read(&self.key) {
            Some(loc) => self.in_value(cx.ks.value(cx.db, loc), cx.ks.now),
            None => Told::Nothing,
        }
    }

    /// What it is in what the key holds. Another type is as good as nothing.
    fn in_value(&self, value: Value<'_, Object>, now: UnixMs) -> Told {
        match (value, &self.part) {
            (value, Part::All) | (value @ (Value::Int(_) | Value::Str(_)), Part::Text) => {
                Told::of(value, now)
            }
            (Value::Object(object), Part::Field(field)) => {
                let value = Hash::of(object).and_then(|hash| hash.get(field, now));
                value.map_or(Told::Nothing, |value| Told::Text(value.to_vec()))
            }
            _ => Told::Nothing,
        }
    }
}

/// What keys held in a past, all of them read or none: of the first one, and of as many more as bring a step's worth of bytes.
pub fn look_back<'w>(
    ks: &mut Keyspace,
    past: PastId,
    wanted: impl Iterator<Item = &'w Wanted> + Clone,
) -> Vec<Told> {
    let (mut found, mut bytes, mut asked) = (Vec::new(), 0, wanted.clone());
    let is_read = asked.clone().next().is_some_and(|first| first.is_read);
    ks.look_back(past, is_read, wanted.map(|wanted| &*wanted.key), |value, now| {
        let told = match (value, asked.next()) {
            (Some(value), Some(wanted)) => wanted.in_value(value, now),
            _ => Told::Nothing,
        };
        bytes += told.bytes();
        found.push(told);
        bytes < BYTES_PER_STEP
    });
    found
}

/// Whether a command with so many keys looks at them as they were, some at a time.
pub fn gathers(env: &Env, keys: usize) -> bool {
    keys > env.at_once_max / LOOKS_PER_KEY
}

/// What a command does with what its keys hold.
pub(crate) trait Gathered: Send + 'static {
    /// Takes what the next key held. The first error is the reply.
    fn take(&mut self, told: Told) -> CmdResult;
    /// All were taken: what is left to be done.
    fn begin(self: Box<Self>) -> Box<dyn Task>;
    /// What it holds before that.
    fn into_held(self: Box<Self>) -> Vec<Object>;
}

/// Leaves a command with very many keys to be done in steps; the command again if its keys are few, or it must be over
/// at once. `is_read`: looking at the keys is reading them, where that is counted.
pub(crate) fn gather<G: Gathered>(
    cx: &mut Cx<'_>,
    keys: Args<'_>,
    target: Option<&[u8]>,
    is_read: bool,
    command: impl FnOnce(&Cx<'_>) -> G,
) -> bool {
    if !gathers(cx.env, keys.len()) || cx.later.is_none() {
        return false;
    }
    let Some(keys) = Kept::new(keys) else { return false };
    let (past, gathered) = (cx.ks.random(), Box::new(command(cx)));
    cx.ks.begin_past(past, cx.db, Box::new(|_| true));
    let state = State::Taking(gathered);
    let (past, target) = (Some(past), target.map(Into::into));
    let gathering = Gathering { past, keys, is_read, target, asked: Vec::new(), failed: None, state };
    if let Some(place) = &mut cx.later {
        **place = Some(Rest::Task(Box::new(gathering)));
    }
    true
}

enum State<G> {
    /// Keys are left to be asked for.
    Taking(Box<G>),
    /// What they held was taken.
    Begun(Box<dyn Task>),
    Over,
}

/// See the module's head.
struct Gathering<G> {
    past: Option<PastId>,
    keys: Kept,
    is_read: bool,
    target: Option<Box<[u8]>>,
    asked: Vec<Wanted>,
    failed: Option<CommandError>,
    state: State<G>,
}

impl<G: Gathered> Task for Gathering<G> {
    fn target(&self) -> Option<&[u8]> {
        self.target.as_deref()
    }

    fn step(&mut self) -> bool {
        if let State::Begun(task) = &mut self.state {
            return task.step();
        }
        if self.failed.is_some() {
            return true;
        }
        if !self.keys.is_empty() {
            let some = self.keys.take_some(1, KEYS_PER_STEP, usize::MAX).rest();
            let is_read = self.is_read;
            self.asked = some.map(|key| Wanted { key: key.to_vec(), part: Part::All, is_read }).collect();
        } else if let State::Taking(gathered) = std::mem::replace(&mut self.state, State::Over) {
            self.past = None;
            self.state = State::Begun(gathered.begin());
        }
        false
    }

    fn past(&self) -> Option<PastId> {
        self.past
    }

    fn asks(&mut self) -> Vec<Wanted> {
        std::mem::take(&mut self.asked)
    }

    fn told(&mut self, found: Vec<Told>) {
        let State::Taking(gathered) = &mut self.state else { return };
        for told in found {
            if self.failed.is_none() {
                self.failed = gathered.take(told).err();
            }
        }
    }

    fn finish(&mut self, cx: &mut Cx<'_>) -> CmdResult {
        match (self.failed.take(), &mut self.state) {
            (None, State::Begun(task)) => task.finish(cx),
            (failed, _) => Err(failed.unwrap_or(CommandError::Syntax)),
        }
    }

    fn into_held(self: Box<Self>) -> Vec<Object> {
        match self.state {
            State::Taking(gathered) => gathered.into_held(),
            State::Begun(task) => task.into_held(),
            State::Over => Vec::new(),
        }
    }
}

/// A task of which only the end is left.
pub(crate) struct End<F>(Option<F>);

impl<F: FnOnce(&mut Cx<'_>) -> CmdResult + Send> End<F> {
    pub(crate) fn new(end: F) -> Box<End<F>> {
        Box::new(End(Some(end)))
    }
}

impl<F: FnOnce(&mut Cx<'_>) -> CmdResult + Send> Task for End<F> {
    fn target(&self) -> Option<&[u8]> {
        None
    }

    fn step(&mut self) -> bool {
        true
    }

    fn finish(&mut self, cx: &mut Cx<'_>) -> CmdResult {
        self.0.take().map_or(Err(CommandError::Syntax), |end| end(cx))
    }

    fn into_held(self: Box<Self>) -> Vec<Object> {
        Vec::new()
    }
}
