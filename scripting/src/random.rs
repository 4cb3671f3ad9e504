//! `math.random` and `math.randomseed` as scripts know them from Redis: a sequence of their own, which begins with the
//! same seed in every process and goes on from script to script.
//!
//! The generator is POSIX' `lrand48`, 48 bits of a linear congruence, whose upper 31 are drawn.

use crate::context::Context;
use crate::lua::Stack;
use crate::raise::{Raise, check_integer, check_number};

/// State of the generator.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Random(u64);

impl Random {
    /// What `lrand48` begins with when nobody has called `srand48`.
    pub(crate) const UNSEEDED: Random = Random(0x1234_ABCD_330E);

    /// `srand48`.
    pub(crate) fn new(seed: i32) -> Random {
        Random((u64::from(seed as u32) << 16) | 0x330E)
    }

    /// `lrand48`.
    fn draw(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(0x5_DEEC_E66D).wrapping_add(0xB) & ((1 << 48) - 1);
        (self.0 >> 17) as u32
    }

    /// In [0, 1).
    fn fraction(&mut self) -> f64 {
        const MAX: u32 = i32::MAX as u32;
        f64::from(self.draw() % MAX) / f64::from(MAX)
    }
}

/// `math.random([m [, n]])`
pub(crate) fn random(stack: &mut Stack, cx: &mut Context) -> Result<usize, Raise> {
    let fraction = cx.random.fraction();
    let drawn = match stack.top() {
        0 => fraction,
        1 => {
            let upper = check_integer(stack, 1)? as i32;
            if upper < 1 {
                return Err(Raise::argument(1, "interval is empty"));
            }
            (fraction * f64::from(upper)).floor() + 1.0
        }
        2 => {
            let (lower, upper) = (check_integer(stack, 1)? as i32, check_integer(stack, 2)? as i32);
            if lower > upper {
                return Err(Raise::argument(2, "interval is empty"));
            }
            (fraction * (f64::from(upper) - f64::from(lower) + 1.0)).floor() + f64::from(lower)
        }
        _ => return Err(Raise::text("wrong number of arguments")),
    };
    stack.push_number(drawn);
    Ok(1)
}

/// `math.randomseed(x)`
pub(crate) fn seed(stack: &mut Stack, cx: &mut Context) -> Result<usize, Raise> {
    cx.random = Random::new(check_number(stack, 1)? as i64 as i32);
    Ok(0)
}
