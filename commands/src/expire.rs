//! When keys expire: set, removed and shown, for keys of any type.
//!
//! Deadlines are kept to the millisecond over the whole signed range, as Redis keeps them.

use damselfly_keyspace::{Class, UnixMs};
use damselfly_protocol::number::parse_i64;

use crate::error::printable;
use crate::lifetime::Clock;
use crate::{Args, Arity, CmdResult, Command, CommandError, Cx, Flags, Group, Keys, Run, Spread};

pub(crate) const COMMANDS: &[&Command] =
    &[&EXPIRE, &EXPIREAT, &EXPIRETIME, &PERSIST, &PEXPIRE, &PEXPIREAT, &PEXPIRETIME, &PTTL, &TTL];

const EXPIRE: Command = Command {
    name: "EXPIRE",
    arity: Arity::AtLeast(3),
    keys: Keys::First,
    flags: Flags::WRITE.with(Flags::FAST),
    spread: Spread::Single,
    group: Group::Generic,
    since: "1.0.0",
    syntax: "key seconds [NX | XX | GT | LT]",
    summary: "Sets the time to live of a key in seconds.",
    run: Run::Shard(expire),
};

fn expire(cx: &mut Cx<'_>, args: Args<'_>) -> CmdResult {
    set_expiry(cx, args, Clock::EX, "expire")
}

/// When EXPIRE and its sisters do anything; several of them may be asked for.
#[derive(Clone, Copy, Default)]
struct Conditions {
    /// NX: only if the key never expires.
    never: bool,
    /// XX: only if it does.
    some: bool,
    /// GT: only to a later moment; never is the latest of all.
    later: bool,
    /// LT: only to an earlier one.
    earlier: bool,
}

impl Conditions {
    fn parse(args: Args<'_>) -> Result<Conditions, CommandError> {
        let mut conditions = Conditions::default();
        for word in args.rest() {
            match word.to_ascii_uppercase().as_slice() {
                b"NX" => conditions.never = true,
                b"XX" => conditions.some = true,
                b"GT" => conditions.later = true,
                b"LT" => conditions.earlier = true,
                _ => {
                    return Err(CommandError::owned(format!(
                        "ERR Unsupported option {}",
                        printable(word, 128)
                    )));
                }
            }
        }
        let Conditions { never, some, later, earlier } = conditions;
        if never && (some || later || earlier) {
            return Err(CommandError::text(
                "ERR NX and XX, GT or LT options at the same time are not compatible",
            ));
        }
        if later && earlier {
            return Err(CommandError::text("ERR GT and LT options at the same time are not compatible"));
        }
        Ok(conditions)
    }

    fn allow(self, old: Option<UnixMs>, new: i64) -> bool {
        // Signed, as a new moment may be before 1970; what is beyond the signed range is as late as can be.
        let old = old.map(|at| i64::try_from(at).unwrap_or(i64::MAX));
        match old {
            None => !self.some && !self.later,
            Some(old) => !self.never && (!self.later || new > old) && (!self.earlier || new < old),
        }
    }
}

fn set_expiry(cx: &mut Cx<'_>, mut args: Args<'_>, clock: Clock, name: &'static str) -> CmdResult {
    let (key, time) = (args.take()?, args.take()?);
    let conditions = Conditions::parse(args)?;
    let time = parse_i64(time).ok_or(CommandError::NotInteger)?;
    let at = clock.to_unix_ms(time, cx.ks.now).ok_or(CommandError::InvalidExpire(name))?;
    let allowed = cx.find(key).filter(|&loc| conditions.allow(cx.ks.table(cx.db).expire_at(loc), at));
    if let Some(loc) = allowed {
        match UnixMs::try_from(at) {
            Ok(at) if at > cx.ks.now => {
                cx.ks.table_mut(cx.db).set_expire(loc, Some(at));
                cx.changed(key, Class::Generic, "expire");
            }
            _ => {
                cx.ks.remove_at(cx.db, loc);
                cx.changed(key, Class::Generic, "del");
            }
        }
    }
    cx.out.int(i64::from(allowed.is_some()));
    Ok(())
}

const EXPIREAT: Command = Command {
    name: "EXPIREAT",
    arity: Arity::AtLeast(3),
    keys: Keys::First,
    flags: Flags::WRITE.with(Flags::FAST),
    spread: Spread::Single,
    group: Group::Generic,
    since: "1.2.0",
    syntax: "key unix-time-seconds [NX | XX | GT | LT]",
    summary: "Sets the second at which a key expires.",
    run: Run::Shard(expireat),
};

fn expireat(cx: &mut Cx<'_>, args: Args<'_>) -> CmdResult {
    set_expiry(cx, args, Clock::EXAT, "expireat")
}

const EXPIRETIME: Command = Command {
    name: "EXPIRETIME",
    arity: Arity::Exactly(2),
    keys: Keys::First,
    flags: Flags::READ.with(Flags::FAST),
    spread: Spread::Single,
    group: Group::Generic,
    since: "7.0.0",
    syntax: "key",
    summary: "Returns the second at which a key expires.",
    run: Run::Shard(expiretime),
};

fn expiretime(cx: &mut Cx<'_>, args: Args<'_>) -> CmdResult {
    show_expiry(cx, args, |at, _| (at + 500) / 1000)
}

/// What `show` makes of the deadline of a key and the present; -1 if it never expires, -2 if it is missing.
fn show_expiry(cx: &mut Cx<'_>, mut args: Args<'_>, show: fn(UnixMs, UnixMs) -> UnixMs) -> CmdResult {
    cx.ks.leaves_heat = true;
    let shown = match cx.read(args.take()?) {
        Some(loc) => match cx.ks.table(cx.db).expire_at(loc) {
            Some(at) => show(at, cx.ks.now).cast_signed(),
            None => -1,
        },
        None => -2,
    };
    cx.out.int(shown);
    Ok(())
}

const PERSIST: Command = Command {
    name: "PERSIST",
    arity: Arity::Exactly(2),
    keys: Keys::First,
    flags: Flags::WRITE.with(Flags::FAST),
    spread: Spread::Single,
    group: Group::Generic,
    since: "2.2.0",
    syntax: "key",
    summary: "Removes the time to live of a key.",
    run: Run::Shard(persist),
};

fn persist(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    let key = args.take()?;
    let expiring = cx.find(key).filter(|&loc| cx.ks.table(cx.db).expire_at(loc).is_some());
    if let Some(loc) = expiring {
        cx.ks.table_mut(cx.db).set_expire(loc, None);
        cx.changed(key, Class::Generic, "persist");
    }
    cx.out.int(i64::from(expiring.is_some()));
    Ok(())
}

const PEXPIRE: Command = Command {
    name: "PEXPIRE",
    arity: Arity::AtLeast(3),
    keys: Keys::First,
    flags: Flags::WRITE.with(Flags::FAST),
    spread: Spread::Single,
    group: Group::Generic,
    since: "2.6.0",
    syntax: "key milliseconds [NX | XX | GT | LT]",
    summary: "Sets the time to live of a key in milliseconds.",
    run: Run::Shard(pexpire),
};

fn pexpire(cx: &mut Cx<'_>, args: Args<'_>) -> CmdResult {
    set_expiry(cx, args, Clock::PX, "pexpire")
}

const PEXPIREAT: Command = Command {
    name: "PEXPIREAT",
    arity: Arity::AtLeast(3),
    keys: Keys::First,
    flags: Flags::WRITE.with(Flags::FAST),
    spread: Spread::Single,
    group: Group::Generic,
    since: "2.6.0",
    syntax: "key unix-time-milliseconds [NX | XX | GT | LT]",
    summary: "Sets the millisecond at which a key expires.",
    run: Run::Shard(pexpireat),
};

fn pexpireat(cx: &mut Cx<'_>, args: Args<'_>) -> CmdResult {
    set_expiry(cx, args, Clock::PXAT, "pexpireat")
}

const PEXPIRETIME: Command = Command {
    name: "PEXPIRETIME",
    arity: Arity::Exactly(2),
    keys: Keys::First,
    flags: Flags::READ.with(Flags::FAST),
    spread: Spread::Single,
    group: Group::Generic,
    since: "7.0.0",
    syntax: "key",
    summary: "Returns the millisecond at which a key expires.",
    run: Run::Shard(pexpiretime),
};

fn pexpiretime(cx: &mut Cx<'_>, args: Args<'_>) -> CmdResult {
    show_expiry(cx, args, |at, _| at)
}

const PTTL: Command = Command {
    name: "PTTL",
    arity: Arity::Exactly(2),
    keys: Keys::First,
    flags: Flags::READ.with(Flags::FAST),
    spread: Spread::Single,
    group: Group::Generic,
    since: "2.6.0",
    syntax: "key",
    summary: "Returns the time to live of a key in milliseconds.",
    run: Run::Shard(pttl),
};

fn pttl(cx: &mut Cx<'_>, args: Args<'_>) -> CmdResult {
    show_expiry(cx, args, |at, now| at - now)
}

const TTL: Command = Command {
    name: "TTL",
    arity: Arity::Exactly(2),
    keys: Keys::First,
    flags: Flags::READ.with(Flags::FAST),
    spread: Spread::Single,
    group: Group::Generic,
    since: "1.0.0",
    syntax: "key",
    summary: "Returns the time to live of a key in seconds.",
    run: Run::Shard(ttl),
};

fn ttl(cx: &mut Cx<'_>, args: Args<'_>) -> CmdResult {
    show_expiry(cx, args, |at, now| (at - now + 500) / 1000)
}
