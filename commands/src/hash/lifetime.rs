//! Fields that expire: deadlines set, shown and removed, alone or along with reading and writing.
//!
//! The commands are those of Redis 7.4 and 8.0, to the millisecond. Dragonfly has some of them, and another form of
//! HSETEX, which is told apart by what stands where Redis has FIELDS or an option: a bare number of seconds.

use damselfly_keyspace::values::hash::{Hash, Rules};
use damselfly_keyspace::{Class, Expiry, UnixMs};
use damselfly_protocol::ReplyWriter;
use damselfly_protocol::number::parse_i64;

use super::{reply_value, rules};
use crate::error::printable;
use crate::lifetime::{Clock, member_deadline};
use crate::many::{Many, answer, answer_uncounted, change};
use crate::{Args, Arity, CmdResult, Command, CommandError, Cx, Flags, Group, Keys, Run, Spread};

/// The last deadline of a field, in the year 4199: Redis keeps two of its 48 bits for itself.
const DEADLINE_MAX: UnixMs = ((1 << 48) - 1) >> 2;

/// What became of a field, as the commands answer it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Missing = -2,
    Refused = 0,
    Updated = 1,
    Removed = 2,
}

/// When HEXPIRE and its sisters do anything; a field without expiry is one that expires at the end of time.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Condition {
    Always,
    Never,
    Some,
    Later,
    Earlier,
}

impl Condition {
    fn take(args: &mut Args<'_>) -> Condition {
        let words = [
            ("NX", Condition::Never),
            ("XX", Condition::Some),
            ("GT", Condition::Later),
            ("LT", Condition::Earlier),
        ];
        words.into_iter().find(|(word, _)| args.take_word(word)).map_or(Condition::Always, |(_, found)| found)
    }

    fn allows(self, present: Option<UnixMs>, wanted: UnixMs) -> bool {
        match self {
            Condition::Always => true,
            Condition::Never => present.is_none(),
            Condition::Some => present.is_some(),
            Condition::Later => present.is_some_and(|present| wanted > present),
            Condition::Earlier => present.is_none_or(|present| wanted < present),
        }
    }
}

/// A time on a clock as a deadline for the command with this lower-case name. It may have passed.
fn deadline(text: &[u8], clock: Clock, now: UnixMs, name: &'static str) -> Result<UnixMs, CommandError> {
    const NEGATIVE: CommandError = CommandError::text("ERR invalid expire time, must be >= 0");
    let time = parse_i64(text).ok_or(CommandError::NotInteger)?;
    if time < 0 {
        return Err(NEGATIVE);
    }
    let at = clock.to_unix_ms(time, now).and_then(|at| UnixMs::try_from(at).ok());
    at.filter(|&at| at <= DEADLINE_MAX).ok_or(CommandError::InvalidExpire(name))
}

/// `FIELDS numfields field ...` up to the end of the request; leaves the fields.
fn take_fields(args: &mut Args<'_>, not_positive: &'static str) -> Result<(), CommandError> {
    const MISPLACED: CommandError =
        CommandError::text("ERR Mandatory argument FIELDS is missing or not at the right position");
    const MISCOUNTED: CommandError =
        CommandError::text("ERR The `numfields` parameter must match the number of arguments");
    if !args.take_word("FIELDS") {
        return Err(MISPLACED);
    }
    // A word at the very end has no number behind it.
    let number = args.take().map_err(|_| MISCOUNTED)?;
    let count = parse_i64(number).filter(|&count| count > 0).ok_or(CommandError::text(not_positive))?;
    if usize::try_from(count).is_ok_and(|count| count == args.len()) { Ok(()) } else { Err(MISCOUNTED) }
}

const POSITIVE_NUMBER: &str = "ERR Number of fields must be a positive integer";

/// What a change of deadlines did to a hash.
#[derive(Clone, Copy, Default)]
struct Changes {
    updated: usize,
    removed: usize,
}

impl Changes {
    /// Gives a field another deadline, or removes it if that has passed.
    fn set_deadline(
        &mut self,
        hash: &mut Hash,
        field: &[u8],
        at: UnixMs,
        condition: Condition,
        now: UnixMs,
    ) -> Outcome {
        match hash.expire_at(field, now) {
            None => Outcome::Missing,
            Some(present) if !condition.allows(present, at) => Outcome::Refused,
            Some(_) if at <= now => {
                hash.remove(field, now);
                self.removed += 1;
                Outcome::Removed
            }
            Some(_) => {
                hash.set_expire(field, Some(at), now);
                self.updated += 1;
                Outcome::Updated
            }
        }
    }

    /// Announces them. All fields of a request share a deadline, so it is one or the other.
    fn announce(self, cx: &mut Cx<'_>, key: &[u8], gone: bool) {
        if self.removed > 0 {
            cx.changed(key, Class::Hash, "hdel");
        } else if self.updated > 0 {
            cx.changed(key, Class::Hash, "hexpire");
        }
        if gone {
            cx.changed(key, Class::Generic, "del");
        }
    }
}

/// Gives the fields in `args` a deadline and replies with what became of each, for HEXPIRE and FIELDEXPIRE.
pub(crate) fn set_lifetimes(cx: &mut Cx<'_>, key: &[u8], at: UnixMs, args: Args<'_>) -> CmdResult {
    set_deadlines(cx, key, at, Condition::Always, args)
}

fn set_deadlines(cx: &mut Cx<'_>, key: &[u8], at: UnixMs, condition: Condition, args: Args<'_>) -> CmdResult {
    let now = cx.ks.now;
    change(cx, key, args, Lifetimes { at, condition, now, changes: Changes::default() })
}

/// HEXPIRE and its sisters.
struct Lifetimes {
    at: UnixMs,
    condition: Condition,
    now: UnixMs,
    changes: Changes,
}

impl Many for Lifetimes {
    type To = Hash;
    const MAKES: bool = false;
    const ANSWERS: bool = true;

    fn change(&mut self, hash: &mut Hash, args: Args<'_>, out: &mut ReplyWriter<'_>) {
        let Lifetimes { at, condition, now, changes } = self;
        for field in args.rest() {
            out.int(changes.set_deadline(hash, field, *at, *condition, *now) as i64);
        }
    }

    fn answer_missing(&self, out: &mut ReplyWriter<'_>) {
        out.int(Outcome::Missing as i64);
    }

    fn end(&mut self, cx: &mut Cx<'_>, key: &[u8], gone: Option<bool>) -> CmdResult {
        if let Some(gone) = gone {
            self.changes.announce(cx, key, gone);
        }
        Ok(())
    }
}

/// HEXPIRE and its sisters: a wrong type is told before anything else is looked at.
fn hexpire_by(cx: &mut Cx<'_>, mut args: Args<'_>, clock: Clock, name: &'static str) -> CmdResult {
    let (key, now) = (args.take()?, cx.ks.now);
    cx.ks.peek::<Hash>(cx.db, key)?;
    let at = deadline(args.take()?, clock, now, name)?;
    let condition = Condition::take(&mut args);
    take_fields(&mut args, "ERR Parameter `numFields` should be greater than 0")?;
    set_deadlines(cx, key, at, condition, args)
}

pub(super) const HEXPIRE: Command = Command {
    name: "HEXPIRE",
    arity: Arity::AtLeast(6),
    keys: Keys::First,
    flags: Flags::WRITE.with(Flags::GROWS).with(Flags::FAST),
    spread: Spread::Single,
    group: Group::Hash,
    since: "7.4.0",
    syntax: "key seconds [NX | XX | GT | LT] FIELDS numfields field [field ...]",
    summary: "Sets the time to live of fields in seconds.",
    run: Run::Shard(hexpire),
};

fn hexpire(cx: &mut Cx<'_>, args: Args<'_>) -> CmdResult {
    hexpire_by(cx, args, Clock::EX, "hexpire")
}

pub(super) const HEXPIREAT: Command = Command {
    name: "HEXPIREAT",
    arity: Arity::AtLeast(6),
    keys: Keys::First,
    flags: Flags::WRITE.with(Flags::GROWS).with(Flags::FAST),
    spread: Spread::Single,
    group: Group::Hash,
    since: "7.4.0",
    syntax: "key unix-time-seconds [NX | XX | GT | LT] FIELDS numfields field [field ...]",
    summary: "Sets the second at which fields expire.",
    run: Run::Shard(hexpireat),
};

fn hexpireat(cx: &mut Cx<'_>, args: Args<'_>) -> CmdResult {
    hexpire_by(cx, args, Clock::EXAT, "hexpireat")
}

pub(super) const HPEXPIRE: Command = Command {
    name: "HPEXPIRE",
    arity: Arity::AtLeast(6),
    keys: Keys::First,
    flags: Flags::WRITE.with(Flags::GROWS).with(Flags::FAST),
    spread: Spread::Single,
    group: Group::Hash,
    since: "7.4.0",
    syntax: "key milliseconds [NX | XX | GT | LT] FIELDS numfields field [field ...]",
    summary: "Sets the time to live of fields in milliseconds.",
    run: Run::Shard(hpexpire),
};

fn hpexpire(cx: &mut Cx<'_>, args: Args<'_>) -> CmdResult {
    hexpire_by(cx, args, Clock::PX, "hpexpire")
}

pub(super) const HPEXPIREAT: Command = Command {
    name: "HPEXPIREAT",
    arity: Arity::AtLeast(6),
    keys: Keys::First,
    flags: Flags::WRITE.with(Flags::GROWS).with(Flags::FAST),
    spread: Spread::Single,
    group: Group::Hash,
    since: "7.4.0",
    syntax: "key unix-time-milliseconds [NX | XX | GT | LT] FIELDS numfields field [field ...]",
    summary: "Sets the millisecond at which fields expire.",
    run: Run::Shard(hpexpireat),
};

fn hpexpireat(cx: &mut Cx<'_>, args: Args<'_>) -> CmdResult {
    hexpire_by(cx, args, Clock::PXAT, "hpexpireat")
}

/// What `show` makes of the deadline of each field and the present; -1 if it never expires, -2 if it is missing.
fn show_deadlines(cx: &mut Cx<'_>, mut args: Args<'_>, show: fn(UnixMs, UnixMs) -> UnixMs) -> CmdResult {
    let (key, now) = (args.take()?, cx.ks.now);
    cx.ks.peek::<Hash>(cx.db, key)?;
    take_fields(&mut args, POSITIVE_NUMBER)?;
    answer(cx, key, args, fields_of, move |hash, field, out| {
        out.int(match hash.and_then(|hash| hash.expire_at(field, now)) {
            Some(Some(at)) => show(at, now).cast_signed(),
            Some(None) => -1,
            None => -2,
        });
    })
}

/// Fields of a hash, for how long a clone of it takes.
fn fields_of(hash: &Hash) -> usize {
    hash.len(0)
}

/// FIELDTTL of a hash: seconds, rounded up; -1 if the field never expires, -3 if it is missing.
pub(crate) fn field_ttl(hash: &Hash, field: &[u8], now: UnixMs) -> i64 {
    match hash.expire_at(field, now) {
        Some(Some(at)) => (at - now).div_ceil(1000).cast_signed(),
        Some(None) => -1,
        None => -3,
    }
}

pub(super) const HEXPIRETIME: Command = Command {
    name: "HEXPIRETIME",
    arity: Arity::AtLeast(5),
    keys: Keys::First,
    flags: Flags::READ.with(Flags::FAST),
    spread: Spread::Single,
    group: Group::Hash,
    since: "7.4.0",
    syntax: "key FIELDS numfields field [field ...]",
    summary: "Returns the seconds at which fields expire.",
    run: Run::Shard(hexpiretime),
};

fn hexpiretime(cx: &mut Cx<'_>, args: Args<'_>) -> CmdResult {
    show_deadlines(cx, args, |at, _| at.div_ceil(1000))
}

pub(super) const HPEXPIRETIME: Command = Command {
    name: "HPEXPIRETIME",
    arity: Arity::AtLeast(5),
    keys: Keys::First,
    flags: Flags::READ.with(Flags::FAST),
    spread: Spread::Single,
    group: Group::Hash,
    since: "7.4.0",
    syntax: "key FIELDS numfields field [field ...]",
    summary: "Returns the milliseconds at which fields expire.",
    run: Run::Shard(hpexpiretime),
};

fn hpexpiretime(cx: &mut Cx<'_>, args: Args<'_>) -> CmdResult {
    show_deadlines(cx, args, |at, _| at)
}

pub(super) const HTTL: Command = Command {
    name: "HTTL",
    arity: Arity::AtLeast(5),
    keys: Keys::First,
    flags: Flags::READ.with(Flags::FAST),
    spread: Spread::Single,
    group: Group::Hash,
    since: "7.4.0",
    syntax: "key FIELDS numfields field [field ...]",
    summary: "Returns the times to live of fields in seconds.",
    run: Run::Shard(httl),
};

fn httl(cx: &mut Cx<'_>, args: Args<'_>) -> CmdResult {
    show_deadlines(cx, args, |at, now| (at - now).div_ceil(1000))
}

pub(super) const HPTTL: Command = Command {
    name: "HPTTL",
    arity: Arity::AtLeast(5),
    keys: Keys::First,
    flags: Flags::READ.with(Flags::FAST),
    spread: Spread::Single,
    group: Group::Hash,
    since: "7.4.0",
    syntax: "key FIELDS numfields field [field ...]",
    summary: "Returns the times to live of fields in milliseconds.",
    run: Run::Shard(hpttl),
};

fn hpttl(cx: &mut Cx<'_>, args: Args<'_>) -> CmdResult {
    show_deadlines(cx, args, |at, now| at - now)
}

pub(super) const HPERSIST: Command = Command {
    name: "HPERSIST",
    arity: Arity::AtLeast(5),
    keys: Keys::First,
    flags: Flags::WRITE.with(Flags::FAST),
    spread: Spread::Single,
    group: Group::Hash,
    since: "7.4.0",
    syntax: "key FIELDS numfields field [field ...]",
    summary: "Removes the times to live of fields.",
    run: Run::Shard(hpersist),
};

fn hpersist(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    let (key, now) = (args.take()?, cx.ks.now);
    cx.ks.peek::<Hash>(cx.db, key)?;
    take_fields(&mut args, POSITIVE_NUMBER)?;
    change(cx, key, args, Persisting { now, changed: false })
}

/// HPERSIST.
struct Persisting {
    now: UnixMs,
    changed: bool,
}

impl Many for Persisting {
    type To = Hash;
    const MAKES: bool = false;
    const ANSWERS: bool = true;

    fn change(&mut self, hash: &mut Hash, args: Args<'_>, out: &mut ReplyWriter<'_>) {
        for field in args.rest() {
            out.int(match hash.expire_at(field, self.now) {
                Some(Some(_)) => {
                    self.changed |= hash.set_expire(field, None, self.now);
                    1
                }
                Some(None) => -1,
                None => -2,
            });
        }
    }

    fn answer_missing(&self, out: &mut ReplyWriter<'_>) {
        out.int(-2);
    }

    fn end(&mut self, cx: &mut Cx<'_>, key: &[u8], gone: Option<bool>) -> CmdResult {
        if self.changed && gone.is_some() {
            cx.changed(key, Class::Hash, "hpersist");
        }
        Ok(())
    }
}

pub(super) const HGETDEL: Command = Command {
    name: "HGETDEL",
    arity: Arity::AtLeast(5),
    keys: Keys::First,
    flags: Flags::WRITE.with(Flags::FAST),
    spread: Spread::Single,
    group: Group::Hash,
    since: "8.0.0",
    syntax: "key FIELDS numfields field [field ...]",
    summary: "Returns the values of fields and removes them.",
    run: Run::Shard(hgetdel),
};

fn hgetdel(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    let (key, now) = (args.take()?, cx.ks.now);
    cx.ks.peek::<Hash>(cx.db, key)?;
    take_fields(&mut args, POSITIVE_NUMBER)?;
    change(cx, key, args, TakingOut { now, removed: false })
}

/// HGETDEL.
struct TakingOut {
    now: UnixMs,
    removed: bool,
}

impl Many for TakingOut {
    type To = Hash;
    const MAKES: bool = false;
    const ANSWERS: bool = true;

    fn change(&mut self, hash: &mut Hash, args: Args<'_>, out: &mut ReplyWriter<'_>) {
        // One field after the other, because a field that is named twice is there once.
        for field in args.rest() {
            reply_value(out, hash.get(field, self.now));
            self.removed |= hash.remove(field, self.now);
        }
    }

    fn answer_missing(&self, out: &mut ReplyWriter<'_>) {
        out.null();
    }

    fn end(&mut self, cx: &mut Cx<'_>, key: &[u8], gone: Option<bool>) -> CmdResult {
        if let Some(gone) = gone
            && self.removed
        {
            cx.changed(key, Class::Hash, "hdel");
            if gone {
                cx.changed(key, Class::Generic, "del");
            }
        }
        Ok(())
    }
}

pub(super) const HGETEX: Command = Command {
    name: "HGETEX",
    arity: Arity::AtLeast(5),
    keys: Keys::First,
    flags: Flags::WRITE.with(Flags::GROWS).with(Flags::FAST),
    spread: Spread::Single,
    group: Group::Hash,
    since: "8.0.0",
    syntax: "key [EX seconds | PX milliseconds | EXAT unix-time-seconds | PXAT unix-time-milliseconds | PERSIST] \
             FIELDS numfields field [field ...]",
    summary: "Returns the values of fields and sets when they expire.",
    run: Run::Shard(hgetex),
};

fn hgetex(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    let (key, now) = (args.take()?, cx.ks.now);
    cx.ks.peek::<Hash>(cx.db, key)?;
    let persist = args.take_word("PERSIST");
    let clock = args.peek().filter(|_| !persist).and_then(Clock::of_option);
    let at = match clock {
        Some(clock) => {
            args.take()?;
            Some(deadline(args.take()?, clock, now, "hgetex")?)
        }
        None => None,
    };
    take_fields(&mut args, POSITIVE_NUMBER)?;
    let value = move |hash: Option<&Hash>, field: &[u8], out: &mut ReplyWriter<'_>| {
        reply_value(out, hash.and_then(|hash| hash.get(field, now)));
    };
    if at.is_none() && !persist {
        return answer_uncounted(cx, key, args, fields_of, value);
    }
    change(cx, key, args, Showing { at, now, changes: Changes::default(), persisted: false })
}

/// HGETEX that changes something.
struct Showing {
    /// When the fields expire; None if never.
    at: Option<UnixMs>,
    now: UnixMs,
    changes: Changes,
    persisted: bool,
}

impl Many for Showing {
    type To = Hash;
    const MAKES: bool = false;
    const ANSWERS: bool = true;

    fn change(&mut self, hash: &mut Hash, args: Args<'_>, out: &mut ReplyWriter<'_>) {
        let Showing { at, now, changes, persisted } = self;
        for field in args.rest() {
            reply_value(out, hash.get(field, *now));
            if let Some(at) = *at {
                changes.set_deadline(hash, field, at, Condition::Always, *now);
            } else if let Some(Some(_)) = hash.expire_at(field, *now) {
                *persisted |= hash.set_expire(field, None, *now);
            }
        }
    }

    fn answer_missing(&self, out: &mut ReplyWriter<'_>) {
        out.null();
    }

    fn end(&mut self, cx: &mut Cx<'_>, key: &[u8], gone: Option<bool>) -> CmdResult {
        if let Some(gone) = gone {
            if self.persisted {
                cx.changed(key, Class::Hash, "hpersist");
            }
            self.changes.announce(cx, key, gone);
        }
        Ok(())
    }
}

pub(super) const HSETEX: Command = Command {
    name: "HSETEX",
    arity: Arity::AtLeast(5),
    keys: Keys::First,
    flags: Flags::WRITE.with(Flags::GROWS).with(Flags::FAST),
    spread: Spread::Single,
    group: Group::Hash,
    since: "8.0.0",
    syntax: "key [FNX | FXX] [EX seconds | PX milliseconds | EXAT unix-time-seconds | \
             PXAT unix-time-milliseconds | KEEPTTL] FIELDS numfields field value [field value ...]",
    summary: "Gives fields values and sets when they expire.",
    run: Run::Shard(hsetex),
};

/// Which fields HSETEX sets.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Choice {
    /// All.
    All,
    /// All, if none of them exists.
    AllNew,
    /// All, if all of them exist.
    AllKnown,
    /// Those that do not exist.
    New,
}

impl Choice {
    fn of_option(word: &[u8]) -> Option<Choice> {
        [("FNX", Choice::AllNew), ("FXX", Choice::AllKnown), ("NX", Choice::New)]
            .into_iter()
            .find(|(name, _)| word.eq_ignore_ascii_case(name.as_bytes()))
            .map(|(_, choice)| choice)
    }

    /// Whether anything at all is set.
    fn allows<'a>(self, hash: &Hash, mut fields: impl Iterator<Item = &'a [u8]>, now: UnixMs) -> bool {
        let exists = |field: &[u8]| hash.get(field, now).is_some();
        match self {
            Choice::All | Choice::New => true,
            Choice::AllNew => !fields.any(exists),
            Choice::AllKnown => fields.all(exists),
        }
    }
}

/// HSETEX as a client wrote it.
struct Setting {
    choice: Choice,
    /// What fields get, those excepted that keep what they have.
    at: Option<UnixMs>,
    /// Fields that exist keep their expiry.
    keep: bool,
    /// The reply is how many fields are new, as in Dragonfly's form; in Redis' it is 1 if fields were set.
    counts: bool,
}

impl Setting {
    /// Takes all before the first field. It is Redis' form if FIELDS comes up, and Dragonfly's,
    /// `[NX | FNX | FXX] [KEEPTTL] seconds field value ...`, if a number does.
    fn take(args: &mut Args<'_>, now: UnixMs) -> Result<Setting, CommandError> {
        const TWO_EXPIRIES: CommandError =
            CommandError::text("ERR Only one of EX, PX, EXAT, PXAT or KEEPTTL arguments can be specified");
        const TWO_CHOICES: CommandError =
            CommandError::text("ERR Only one of FXX or FNX arguments can be specified");
        const NO_TIME: CommandError = CommandError::text("ERR missing expire time");
        let mut setting = Setting { choice: Choice::All, at: None, keep: false, counts: false };
        while let Some(word) = args.peek() {
            let (clock, has_expiry) = (Clock::of_option(word), setting.keep || setting.at.is_some());
            if args.take_word("FIELDS") {
                take_pair_count(args)?;
                let unknown = setting.choice == Choice::New;
                return if unknown { Err(CommandError::Syntax) } else { Ok(setting) };
            } else if let Some(clock) = clock {
                if has_expiry {
                    return Err(TWO_EXPIRIES);
                }
                args.take()?;
                let time = args.take().map_err(|_| NO_TIME)?;
                setting.at = Some(deadline(time, clock, now, "hsetex")?);
            } else if args.take_word("KEEPTTL") {
                if has_expiry {
                    return Err(TWO_EXPIRIES);
                }
                setting.keep = true;
            } else if let Some(choice) = Choice::of_option(word) {
                if setting.choice != Choice::All {
                    return Err(TWO_CHOICES);
                }
                args.take()?;
                setting.choice = choice;
            } else if parse_i64(word).is_some() && setting.at.is_none() {
                setting.at = Some(member_deadline(args.take()?, now)?);
                setting.counts = true;
                let pairs = !args.is_empty() && args.len().is_multiple_of(2);
                return if pairs { Ok(setting) } else { Err(CommandError::arity("hsetex")) };
            } else {
                return Err(CommandError::owned(format!("ERR unknown argument: {}", printable(word, 128))));
            }
        }
        Err(CommandError::arity("hsetex"))
    }
}

/// The number behind HSETEX' FIELDS, which is that of the pairs that follow.
fn take_pair_count(args: &mut Args<'_>) -> CmdResult {
    const NOT_POSITIVE: CommandError = CommandError::text("ERR invalid number of fields");
    if args.len() < 3 {
        return Err(CommandError::arity("hsetex"));
    }
    let count = args.take_int()?;
    let count = i32::try_from(count).ok().filter(|&count| count > 0).ok_or(NOT_POSITIVE)?;
    let pairs = args.len().is_multiple_of(2) && count as usize == args.len() / 2;
    if pairs { Ok(()) } else { Err(CommandError::arity("hsetex")) }
}

fn hsetex(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    let (key, rules) = (args.take()?, rules(cx));
    let setting = Setting::take(&mut args, rules.now)?;
    change(cx, key, args, SettingUntil { rules, setting, added: Some(0) })
}

/// HSETEX.
struct SettingUntil {
    rules: Rules,
    setting: Setting,
    /// How many fields are new; None if the choice was against it.
    added: Option<usize>,
}

impl SettingUntil {
    fn is_past(&self) -> bool {
        self.setting.at.is_some_and(|at| at <= self.rules.now)
    }
}

impl Many for SettingUntil {
    type To = Hash;
    const MAKES: bool = true;
    const ASKS: bool = true;

    fn unit(&self) -> usize {
        2
    }

    fn allows(&self, hash: &Hash, args: Args<'_>) -> bool {
        self.setting.choice.allows(hash, args.rest().step_by(2), self.rules.now)
    }

    fn refused(&mut self) {
        self.added = None;
    }

    fn change(&mut self, hash: &mut Hash, mut args: Args<'_>, _: &mut ReplyWriter<'_>) {
        let Setting { choice, at, keep, .. } = self.setting;
        let (now, is_past, mut added) = (self.rules.now, self.is_past(), 0);
        while let (Ok(field), Ok(value)) = (args.take(), args.take()) {
            // What would be gone at once is never there.
            if is_past {
                hash.remove(field, now);
                continue;
            }
            let exists = (keep || choice == Choice::New) && hash.get(field, now).is_some();
            if exists && choice == Choice::New {
                continue;
            }
            let expiry = if exists { Expiry::Keep } else { at.map_or(Expiry::Never, Expiry::At) };
            added += usize::from(hash.set(&self.rules, field, value, expiry));
        }
        self.added = self.added.map(|before| before + added);
    }

    fn end(&mut self, cx: &mut Cx<'_>, key: &[u8], gone: Option<bool>) -> CmdResult {
        let Some(added) = self.added else {
            cx.out.int(0);
            return Ok(());
        };
        let Setting { choice, at, counts, .. } = self.setting;
        if let Some(gone) = gone
            && (choice != Choice::New || added > 0)
        {
            cx.changed(key, Class::Hash, "hset");
            let changes =
                Changes { updated: usize::from(at.is_some()), removed: usize::from(self.is_past()) };
            changes.announce(cx, key, gone);
        }
        cx.out.int(if counts { added as i64 } else { 1 });
        Ok(())
    }
}
