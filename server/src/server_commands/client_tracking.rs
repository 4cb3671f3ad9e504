//! CLIENT TRACKING, CACHING, TRACKINGINFO, GETREDIR: client-side caching, switched and described.

use damselfly_commands::{Args, CommandError};
use damselfly_protocol::number::parse_i64;

use super::{Outcome, exactly, reply, wait};
use crate::connection::ConnectionId;
use crate::core::Core;
use crate::tracking::{Reader, Tracker};

const OTHER_BROADCAST: &str = "ERR You can't switch BCAST mode on/off before disabling tracking for this client, and \
                               then re-enabling it with a different mode.";
const OTHER_OPTION: &str = "ERR You can't switch OPTIN/OPTOUT mode before disabling tracking for this client, and then \
                            re-enabling it with a different mode.";

/// CLIENT TRACKING ON | OFF [REDIRECT id] [PREFIX prefix [PREFIX prefix ...]] [BCAST] [OPTIN] [OPTOUT] [NOLOOP]
pub fn tracking(core: &mut Core, id: ConnectionId, mut args: Args<'_>) -> Outcome {
    if args.is_empty() {
        return Err(CommandError::arity("client|tracking"));
    }
    let switch = args.take()?;
    let mut wanted = Tracker::default();
    while !args.is_empty() {
        if args.len() > 1 && args.take_word("REDIRECT") {
            if wanted.redirect.is_some() {
                return Err(CommandError::text("ERR A client can only redirect to a single other client"));
            }
            let number = parse_i64(args.take()?).ok_or(CommandError::NotInteger)?;
            let known = u64::try_from(number).ok().filter(|number| core.shared.clients.contains_key(number));
            let unknown = CommandError::text("ERR The client ID you want redirect to does not exist");
            wanted.redirect = Some(known.ok_or(unknown)?);
        } else if args.take_word("BCAST") {
            wanted.broadcast = true;
        } else if args.take_word("OPTIN") {
            wanted.opt_in = true;
        } else if args.take_word("OPTOUT") {
            wanted.opt_out = true;
        } else if args.take_word("NOLOOP") {
            wanted.no_loop = true;
        } else if args.len() > 1 && args.take_word("PREFIX") {
            wanted.prefixes.push(args.take()?.into());
        } else {
            return Err(CommandError::Syntax);
        }
    }
    if switch.eq_ignore_ascii_case(b"ON") {
        switch_on(core, id, wanted)
    } else if switch.eq_ignore_ascii_case(b"OFF") {
        match core.remove_tracker(id) {
            Some(old) if old.broadcast => spread_prefixes(core, id, Vec::new(), false),
            _ => reply(core, id, |out| out.ok()),
        }
    } else {
        Err(CommandError::Syntax)
    }
}

fn switch_on(core: &mut Core, id: ConnectionId, mut wanted: Tracker) -> Outcome {
    if !wanted.broadcast && !wanted.prefixes.is_empty() {
        return Err(CommandError::text("ERR PREFIX option requires BCAST mode to be enabled"));
    }
    let old = core.tracking.tracker(id);
    if old.is_some_and(|old| old.broadcast != wanted.broadcast) {
        return Err(CommandError::text(OTHER_BROADCAST));
    }
    if wanted.broadcast && (wanted.opt_in || wanted.opt_out) {
        return Err(CommandError::text("ERR OPTIN and OPTOUT are not compatible with BCAST"));
    }
    if wanted.opt_in && wanted.opt_out {
        return Err(CommandError::text("ERR You can't specify both OPTIN mode and OPTOUT mode"));
    }
    if old.is_some_and(|old| wanted.opt_in && old.opt_out || wanted.opt_out && old.opt_in) {
        return Err(CommandError::text(OTHER_OPTION));
    }
    let before = old.map_or(&[][..], |old| &old.prefixes);
    for (at, prefix) in wanted.prefixes.iter().enumerate() {
        for other in before {
            no_overlap(prefix, other, "an existing prefix")?;
        }
        for other in &wanted.prefixes[at + 1..] {
            no_overlap(prefix, other, "another provided prefix")?;
        }
    }
    if wanted.broadcast {
        if wanted.prefixes.is_empty() {
            wanted.prefixes.push(Box::default());
        }
        for prefix in before {
            if !wanted.prefixes.contains(prefix) {
                wanted.prefixes.push(prefix.clone());
            }
        }
        wanted.prefixes.sort_unstable();
    }
    let (prefixes, no_loop) = (wanted.prefixes.clone(), wanted.no_loop);
    core.set_tracker(id, wanted);
    if prefixes.is_empty() {
        return reply(core, id, |out| out.ok());
    }
    spread_prefixes(core, id, prefixes, no_loop)
}

/// A key could have both prefixes and would be told of twice.
fn no_overlap(one: &[u8], other: &[u8], what: &str) -> Result<(), CommandError> {
    if !one.starts_with(other) && !other.starts_with(one) {
        return Ok(());
    }
    let (one, other) = (String::from_utf8_lossy(one), String::from_utf8_lossy(other));
    Err(CommandError::owned(format!(
        "ERR Prefix '{one}' overlaps with {what} '{other}'. Prefixes for a single client must not overlap."
    )))
}

/// Tells all shards, then answers: what is written after the answer is told.
fn spread_prefixes(core: &mut Core, id: ConnectionId, prefixes: Vec<Box<[u8]>>, no_loop: bool) -> Outcome {
    let reader = Reader { core: core.id, id };
    core.ask_all(
        move |core| core.set_prefixes(reader, &prefixes, no_loop),
        move |core, _| core.answer_with(id, |out| out.ok()),
    );
    wait(core, id)
}

/// CLIENT CACHING YES | NO
pub fn caching(core: &mut Core, id: ConnectionId, mut args: Args<'_>) -> Outcome {
    exactly(&args, 1, "client|caching")?;
    let Some(tracker) = core.tracking.tracker(id) else {
        return Err(CommandError::text(
            "ERR CLIENT CACHING can be called only when the client is in tracking mode with OPTIN or OPTOUT mode \
             enabled",
        ));
    };
    if args.take_word("YES") {
        if !tracker.opt_in {
            return Err(CommandError::text(
                "ERR CLIENT CACHING YES is only valid when tracking is enabled in OPTIN mode.",
            ));
        }
    } else if args.take_word("NO") {
        if !tracker.opt_out {
            return Err(CommandError::text(
                "ERR CLIENT CACHING NO is only valid when tracking is enabled in OPTOUT mode.",
            ));
        }
    } else {
        return Err(CommandError::Syntax);
    }
    core.set_caching(id, true);
    reply(core, id, |out| out.ok())
}

/// Where invalidations go: -1 if there are none, 0 to the client itself.
pub fn redirection(tracker: Option<&Tracker>) -> i64 {
    tracker.map_or(-1, |tracker| tracker.redirect.map_or(0, |number| number as i64))
}

/// CLIENT GETREDIR
pub fn get_redir(core: &mut Core, id: ConnectionId, args: Args<'_>) -> Outcome {
    exactly(&args, 0, "client|getredir")?;
    let to = redirection(core.tracking.tracker(id));
    reply(core, id, |out| out.int(to))
}

/// CLIENT TRACKINGINFO
pub fn info(core: &mut Core, id: ConnectionId, args: Args<'_>) -> Outcome {
    exactly(&args, 0, "client|trackinginfo")?;
    let tracker = core.tracking.tracker(id).cloned();
    let mut flags: Vec<&str> = Vec::new();
    if let Some(tracker) = &tracker {
        let caching = tracker.caching;
        for (set, flag) in [
            (true, "on"),
            (tracker.broadcast, "bcast"),
            (tracker.opt_in, "optin"),
            (tracker.opt_in && caching, "caching-yes"),
            (tracker.opt_out, "optout"),
            (tracker.opt_out && caching, "caching-no"),
            (tracker.no_loop, "noloop"),
            (tracker.is_redirect_broken, "broken_redirect"),
        ] {
            if set {
                flags.push(flag);
            }
        }
    } else {
        flags.push("off");
    }
    reply(core, id, |out| {
        out.map(3);
        out.bulk(b"flags");
        out.set(flags.len());
        for flag in flags {
            out.bulk(flag.as_bytes());
        }
        out.bulk(b"redirect");
        out.int(redirection(tracker.as_ref()));
        out.bulk(b"prefixes");
        let prefixes = tracker.map_or_else(Vec::new, |tracker| tracker.prefixes);
        out.array(prefixes.len());
        for prefix in &prefixes {
            out.bulk(prefix);
        }
    })
}
