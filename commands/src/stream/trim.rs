//! What XADD and XTRIM say about trimming, and XTRIM.

use damselfly_keyspace::Class;
use damselfly_keyspace::stream::{Effort, NodeLimits, Stream, Trim, default_trim_limit};

use super::id::{self, NewId};
use crate::task::edit_dropping;
use crate::{Args, Arity, CmdResult, Command, CommandError, Cx, Flags, Group, Keys, Run, Spread};

/// What goes, and how exactly.
#[derive(Clone, Copy, Debug)]
pub(super) struct Trimming {
    trim: Trim,
    effort: Effort,
}

impl Trimming {
    /// How many entries of so many may go, at most.
    fn drops(self, len: u64) -> usize {
        let above = match self.trim {
            Trim::ToLen(kept) => len.saturating_sub(kept),
            Trim::Below(_) => len,
        };
        match self.effort {
            Effort::WholeNodes { limit: limit @ 1.. } => above.min(limit) as usize,
            Effort::WholeNodes { limit: 0 } | Effort::Exact => above as usize,
        }
    }

    /// Trims; how many entries went.
    pub(super) fn apply(self, stream: &mut Stream) -> u64 {
        stream.trim(self.trim, self.effort)
    }
}

/// The options of XADD and XTRIM.
pub(super) struct Options {
    pub(super) trimming: Option<Trimming>,
    /// Whether a missing stream is created.
    pub(super) create: bool,
    /// XADD's id, which ends its options; None if it is missing.
    pub(super) id: Option<NewId>,
}

/// Takes the options of XADD, with the id, or all arguments of XTRIM.
pub(super) fn take_options(
    args: &mut Args<'_>,
    adds: bool,
    nodes: NodeLimits,
) -> Result<Options, CommandError> {
    const TWO_STRATEGIES: CommandError =
        CommandError::text("ERR syntax error, MAXLEN and MINID options at the same time are not compatible");
    const NEGATIVE_LEN: CommandError = CommandError::text("ERR The MAXLEN argument must be >= 0.");
    const NEGATIVE_LIMIT: CommandError = CommandError::text("ERR The LIMIT argument must be >= 0.");
    const LIMIT_OF_NOTHING: CommandError =
        CommandError::text("ERR syntax error, LIMIT cannot be used without specifying a trimming strategy");
    const LIMIT_OF_EXACT: CommandError =
        CommandError::text("ERR syntax error, LIMIT cannot be used without the special ~ option");
    const NO_STRATEGY: CommandError =
        CommandError::text("ERR syntax error, XTRIM must be called with a trimming strategy");
    let (mut trim, mut approximate, mut limit) = (None, false, None);
    let mut options = Options { trimming: None, create: true, id: None };
    while let Some(word) = args.peek() {
        let more = args.len() > 1;
        if adds && word == b"*" {
            args.take()?;
            options.id = Some(NewId::Auto);
            break;
        } else if more && args.take_word("MAXLEN") {
            if trim.is_some() {
                return Err(TWO_STRATEGIES);
            }
            approximate = take_sign(args);
            let len = u64::try_from(args.take_int()?).map_err(|_| NEGATIVE_LEN)?;
            trim = Some(Trim::ToLen(len));
        } else if more && args.take_word("MINID") {
            if trim.is_some() {
                return Err(TWO_STRATEGIES);
            }
            approximate = take_sign(args);
            trim = Some(Trim::Below(id::exact(args.take()?)?));
        } else if more && args.take_word("LIMIT") {
            limit = Some(u64::try_from(args.take_int()?).map_err(|_| NEGATIVE_LIMIT)?);
        } else if adds && args.take_word("NOMKSTREAM") {
            options.create = false;
        } else if adds {
            options.id = Some(id::new(args.take()?)?);
            break;
        } else {
            return Err(CommandError::Syntax);
        }
    }
    match trim {
        None if limit.is_some() => return Err(LIMIT_OF_NOTHING),
        None if !adds => return Err(NO_STRATEGY),
        None => {}
        Some(_) if limit.is_some() && !approximate => return Err(LIMIT_OF_EXACT),
        Some(trim) => {
            let effort = if approximate {
                Effort::WholeNodes { limit: limit.unwrap_or_else(|| default_trim_limit(nodes)) }
            } else {
                Effort::Exact
            };
            options.trimming = Some(Trimming { trim, effort });
        }
    }
    Ok(options)
}

/// `~`, which is true, or `=`, if the threshold follows it.
fn take_sign(args: &mut Args<'_>) -> bool {
    if args.len() < 2 || args.take_word("=") {
        return false;
    }
    args.take_word("~")
}

pub(super) const XTRIM: Command = Command {
    name: "XTRIM",
    arity: Arity::AtLeast(4),
    keys: Keys::First,
    flags: Flags::WRITE,
    spread: Spread::Single,
    group: Group::Stream,
    since: "5.0.0",
    syntax: "key <MAXLEN | MINID> [= | ~] threshold [LIMIT count]",
    summary: "Removes the oldest entries of a stream.",
    run: Run::Shard(xtrim),
};

fn xtrim(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    let key = args.take()?;
    let options = take_options(&mut args, false, cx.env.stream_node)?;
    let trimming = options.trimming.expect("XTRIM has a strategy");
    let Some(loc) = cx.ks.find_collection::<Stream>(cx.db, key)? else {
        cx.out.int(0);
        return Ok(());
    };
    let dropped = trimming.drops(cx.ks.collection::<Stream>(cx.db, loc)?.len());
    let removed = edit_dropping(cx, loc, dropped, |stream: &mut Stream| trimming.apply(stream))?.value;
    if removed > 0 {
        cx.changed(key, Class::Stream, "xtrim");
    }
    cx.out.int(removed as i64);
    Ok(())
}
