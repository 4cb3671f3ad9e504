//! The arguments of a command, taken one by one.

use damselfly_protocol::Requests;
use damselfly_protocol::number::parse_i64;
use damselfly_protocol::request::Argv;

use crate::error::CommandError;

/// Arguments that are kept beyond their request, for a command that goes on when its handler has returned.
pub(crate) struct Kept {
    bytes: Vec<u8>,
    requests: Requests,
    /// How many of them were taken.
    taken: usize,
}

impl Kept {
    /// A copy of these; None if they are more than fits.
    pub(crate) fn new(args: Args<'_>) -> Option<Kept> {
        let mut kept = Kept { bytes: Vec::new(), requests: Requests::new(), taken: 0 };
        kept.requests.push_copy(&mut kept.bytes, args.rest()).then_some(kept)
    }

    /// Those that were not taken yet.
    fn rest(&self) -> Args<'_> {
        Args { rest: self.requests.argv(&self.bytes, 0).split_at(self.taken).1 }
    }

    /// Whether all were taken.
    pub(crate) fn is_empty(&self) -> bool {
        self.rest().is_empty()
    }

    /// All are to be taken again.
    pub(crate) fn put_back(&mut self) {
        self.taken = 0;
    }

    /// Takes the next ones: as many `unit`s as there are in `count` and in about so many bytes, but at least one.
    pub(crate) fn take_some(&mut self, unit: usize, count: usize, bytes: usize) -> Args<'_> {
        let mut left = bytes;
        let fits = |arg: &&[u8]| {
            let fits = left > 0;
            left = left.saturating_sub(arg.len());
            fits
        };
        let fitting = self.rest().rest().take(count).take_while(fits).count();
        let (count, taken) = ((fitting - fitting % unit).max(unit), self.taken);
        self.taken += count;
        let (some, _) = self.requests.argv(&self.bytes, 0).split_at(taken).1.split_at(count);
        Args { rest: some }
    }
}

/// The arguments that a handler has not taken yet; the command's name is already gone.
#[derive(Clone, Copy, Debug)]
pub struct Args<'a> {
    rest: Argv<'a>,
}

impl<'a> Args<'a> {
    /// The arguments behind the name of a request.
    #[inline]
    pub fn behind_name(argv: &Argv<'a>) -> Args<'a> {
        Args { rest: argv.split_first().map_or(*argv, |(_, rest)| rest) }
    }

    /// How many are left.
    #[inline]
    pub fn len(&self) -> usize {
        self.rest.len()
    }

    /// Whether none is left.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next argument. A missing one is a syntax error: the arity has been checked before.
    #[inline]
    pub fn take(&mut self) -> Result<&'a [u8], CommandError> {
        let (first, rest) = self.rest.split_first().ok_or(CommandError::Syntax)?;
        self.rest = rest;
        Ok(first)
    }

    /// The next argument as a 64-bit integer.
    #[inline]
    pub fn take_int(&mut self) -> Result<i64, CommandError> {
        parse_i64(self.take()?).ok_or(CommandError::NotInteger)
    }

    /// The next argument as a 32-bit integer, as Redis takes numbers of databases.
    pub fn take_i32(&mut self) -> Result<i32, CommandError> {
        const OUT_OF_RANGE: CommandError =
            CommandError::text("ERR value is out of range, value must between -2147483648 and 2147483647");
        i32::try_from(self.take_int()?).map_err(|_| OUT_OF_RANGE)
    }

    /// The next argument if it is this word, in any case.
    #[inline]
    pub fn take_word(&mut self, word: &str) -> bool {
        let is = self.peek().is_some_and(|arg| arg.eq_ignore_ascii_case(word.as_bytes()));
        if is {
            self.rest = self.rest.split_first().expect("peeked").1;
        }
        is
    }

    /// The next argument, left in place.
    #[inline]
    pub fn peek(&self) -> Option<&'a [u8]> {
        self.rest.get(0)
    }

    /// Argument `at` of those left.
    #[inline]
    pub fn get(&self, at: usize) -> Option<&'a [u8]> {
        self.rest.get(at)
    }

    /// The next `count`, which stay.
    #[inline]
    pub(crate) fn first(&self, count: usize) -> Args<'a> {
        Args { rest: self.rest.split_at(count).0 }
    }

    /// Those that are left behind the next `count`.
    #[inline]
    pub(crate) fn behind(&self, count: usize) -> Args<'a> {
        Args { rest: self.rest.split_at(count).1 }
    }

    /// All that are left.
    #[inline]
    pub fn rest(&self) -> impl ExactSizeIterator<Item = &'a [u8]> + DoubleEndedIterator + Clone + use<'a> {
        self.rest.iter()
    }

    /// An error unless all were taken.
    #[inline]
    pub fn end(&self) -> Result<(), CommandError> {
        if self.is_empty() { Ok(()) } else { Err(CommandError::Syntax) }
    }
}
