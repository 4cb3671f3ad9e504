//! Times to live as clients write them: from now or from 1970, in seconds or in milliseconds.
//!
//! SET, SETEX and GETEX want a time above zero; EXPIRE and its sisters take any and let the past delete the key. What
//! they share is the arithmetic, which must notice every overflow: a deadline that wrapped round would be the past.

use damselfly_keyspace::UnixMs;
use damselfly_protocol::number::parse_i64;

use crate::CommandError;

/// How a time is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Clock {
    seconds: bool,
    from_now: bool,
}

impl Clock {
    /// Seconds from now: EX, EXPIRE.
    pub(crate) const EX: Clock = Clock { seconds: true, from_now: true };
    /// Milliseconds from now: PX, PEXPIRE.
    pub(crate) const PX: Clock = Clock { seconds: false, from_now: true };
    /// Seconds since 1970: EXAT, EXPIREAT.
    pub(crate) const EXAT: Clock = Clock { seconds: true, from_now: false };
    /// Milliseconds since 1970: PXAT, PEXPIREAT.
    pub(crate) const PXAT: Clock = Clock { seconds: false, from_now: false };

    /// The clock that an option of SET or GETEX names.
    pub(crate) fn of_option(word: &[u8]) -> Option<Clock> {
        [("EX", Clock::EX), ("PX", Clock::PX), ("EXAT", Clock::EXAT), ("PXAT", Clock::PXAT)]
            .into_iter()
            .find(|(name, _)| word.eq_ignore_ascii_case(name.as_bytes()))
            .map(|(_, clock)| clock)
    }

    /// A time on this clock as milliseconds since 1970; None if they do not fit 64 bits with a sign.
    pub(crate) fn to_unix_ms(self, time: i64, now: UnixMs) -> Option<i64> {
        let millis = if self.seconds { time.checked_mul(1000)? } else { time };
        if self.from_now { millis.checked_add_unsigned(now) } else { Some(millis) }
    }
}

/// The longest time to live in Dragonfly's commands about fields and members: seconds, about two years.
const MEMBER_SECONDS_MAX: u64 = 1 << 26;

/// The deadline of a field or member from a time to live in seconds, as Dragonfly's commands take it.
pub(crate) fn member_deadline(seconds: &[u8], now: UnixMs) -> Result<UnixMs, CommandError> {
    let seconds = parse_i64(seconds).and_then(|seconds| u64::try_from(seconds).ok());
    let seconds = seconds.filter(|seconds| (1..=MEMBER_SECONDS_MAX).contains(seconds));
    Ok(now + seconds.ok_or(CommandError::NotInteger)? * 1000)
}

/// A time to live that has not been looked at yet: its errors come after others.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lifetime<'a> {
    /// The client's number.
    pub(crate) text: &'a [u8],
    /// What it counts.
    pub(crate) clock: Clock,
}

impl Lifetime<'_> {
    /// The deadline for the command with this lower-case name. It may have passed if it was given as a moment.
    pub(crate) fn deadline(self, now: UnixMs, name: &'static str) -> Result<UnixMs, CommandError> {
        let time = parse_i64(self.text).ok_or(CommandError::NotInteger)?;
        let deadline = self.clock.to_unix_ms(time, now).filter(|_| time > 0);
        deadline.map(i64::cast_unsigned).ok_or(CommandError::InvalidExpire(name))
    }
}
