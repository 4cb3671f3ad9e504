//! What the commands that walk in steps share: SSCAN, HSCAN and ZSCAN, and with SCAN what a cursor is.

use damselfly_config::glob::Pattern;
use damselfly_keyspace::{Collection, Object};
use damselfly_protocol::ReplyWriter;

use crate::long::Written;
use crate::task::{Rest, Task};
use crate::{Args, CmdResult, CommandError, Cx};

/// The options of a step.
pub(crate) struct Step {
    pattern: Option<Pattern>,
    /// About how many elements to look at.
    pub(crate) count: usize,
    /// Whether NOVALUES was not among the options.
    pub(crate) values: bool,
}

impl Step {
    /// The rest of the arguments; only HSCAN knows NOVALUES.
    fn parse(mut args: Args<'_>, fields: bool) -> Result<Step, CommandError> {
        let mut step = Step { pattern: None, count: 10, values: true };
        while !args.is_empty() {
            if fields && args.take_word("NOVALUES") {
                step.values = false;
            } else if args.len() > 1 && args.take_word("MATCH") {
                step.pattern =
                    Some(Pattern::new(args.take()?)).filter(|pattern| !pattern.matches_everything());
            } else if args.len() > 1 && args.take_word("COUNT") {
                let count = args.take_int()?;
                if count < 1 {
                    return Err(CommandError::Syntax);
                }
                step.count = usize::try_from(count).unwrap_or(usize::MAX);
            } else {
                return Err(CommandError::Syntax);
            }
        }
        Ok(step)
    }

    /// Whether the element is to be shown.
    pub(crate) fn shows(&self, element: &[u8]) -> bool {
        self.pattern.as_ref().is_none_or(|pattern| pattern.matches(element))
    }
}

/// What a step has found.
pub(crate) struct Shown<'a, 'b> {
    out: &'b mut ReplyWriter<'a>,
    elements: usize,
}

impl<'a> Shown<'a, '_> {
    /// Where the next element of the reply goes.
    pub(crate) fn element(&mut self) -> &mut ReplyWriter<'a> {
        self.elements += 1;
        self.out
    }
}

/// A cursor as C's `strtoul` reads one, for clients that begin with nothing or with `00`: digits, if any, behind a sign,
/// if any; below zero it counts from the other end of the 64 bits.
pub fn parse_cursor(text: &[u8]) -> Result<u64, CommandError> {
    const INVALID: CommandError = CommandError::text("ERR invalid cursor");
    let (is_negative, digits) = match text {
        [] => return Ok(0),
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] | digits => (false, digits),
    };
    let add = |number: u64, digit: &u8| {
        let digit = char::from(*digit).to_digit(10)?;
        number.checked_mul(10)?.checked_add(u64::from(digit))
    };
    let number = digits.iter().try_fold(0, add).filter(|_| !digits.is_empty()).ok_or(INVALID)?;
    Ok(if is_negative { number.wrapping_neg() } else { number })
}

/// One step: `scan` shows what it finds behind the cursor and returns the next one.
pub(crate) fn walk<C: Collection + Clone + Send + 'static>(
    cx: &mut Cx<'_>,
    mut args: Args<'_>,
    fields: bool,
    scan: impl Fn(&C, u64, &Step, &mut Shown<'_, '_>) -> u64 + Send + 'static,
) -> CmdResult {
    let key = args.take()?;
    let cursor = parse_cursor(args.take()?)?;
    // As in Redis, a missing key is answered before the options are looked at.
    let Some(collection) = cx.ks.view::<C>(cx.db, key)? else {
        cx.out.array(2);
        cx.out.bulk(b"0");
        cx.out.array(0);
        return Ok(());
    };
    let step = Step::parse(args, fields)?;
    let (left, written) = (step.count, Written::new(cx.out.proto()));
    if left > cx.env.at_once_max
        && let Some(place) = &mut cx.later
    {
        let collection = collection.clone();
        let walking = Walking { collection, cursor, left, step, scan, written, elements: 0 };
        **place = Some(Rest::Task(Box::new(walking)));
        return Ok(());
    }
    let mut found = Vec::new();
    let mut out = ReplyWriter::new(&mut found, cx.out.proto());
    let mut shown = Shown { out: &mut out, elements: 0 };
    let next = scan(collection, cursor, &step, &mut shown);
    let elements = shown.elements;
    reply_head(&mut cx.out, next, elements);
    cx.out.raw(&found);
    Ok(())
}

/// Writes what is in front of the elements.
fn reply_head(out: &mut ReplyWriter<'_>, next: u64, elements: usize) {
    out.array(2);
    out.bulk_int(next.cast_signed());
    out.array(elements);
}

/// Elements that a long walk looks at in a step of its own.
const ELEMENTS_PER_STEP: usize = 64;

/// A walk over many elements at once, in steps: over what was there when it began.
struct Walking<C, S> {
    collection: C,
    cursor: u64,
    /// How many elements are still to be looked at.
    left: usize,
    step: Step,
    scan: S,
    written: Written,
    elements: usize,
}

impl<C, S> Task for Walking<C, S>
where
    C: Collection + Send,
    S: Fn(&C, u64, &Step, &mut Shown<'_, '_>) -> u64 + Send,
{
    fn target(&self) -> Option<&[u8]> {
        None
    }

    fn step(&mut self) -> bool {
        let Walking { collection, cursor, left, step, scan, written, elements } = self;
        step.count = ELEMENTS_PER_STEP.min(*left);
        *left -= step.count;
        written.write(|out| {
            let mut shown = Shown { out, elements: 0 };
            *cursor = scan(collection, *cursor, step, &mut shown);
            *elements += shown.elements;
        });
        *cursor == 0 || *left == 0
    }

    fn finish(&mut self, cx: &mut Cx<'_>) -> CmdResult {
        reply_head(&mut cx.out, self.cursor, self.elements);
        self.written.reply(cx);
        Ok(())
    }

    fn into_held(self: Box<Self>) -> Vec<Object> {
        vec![self.collection.wrap(), self.written.into_held()]
    }
}
