//! The arithmetic of INCRBYFLOAT and HINCRBYFLOAT, which Redis does in C's `long double`: on x86 the 80-bit format
//! with a 64-bit significand, printed with 17 decimals. A double would answer 0.30000000000000004 where clients know
//! "0.3", and Rust has no wider float, so the format is done in software: read (correctly rounded), add, print.
//!
//! ```text
//!   value = (-1)^negative * significand * 2^exponent
//!   significand  64 bits, top bit set; smaller only at the lowest exponent (subnormal), zero for zero
//!   exponent     -16445 ..= 16320
//! ```
//!
//! Usual numbers take 128-bit integers; far exponents take a `Big`, whose size is bounded by the longest text that is
//! accepted ([`TEXT_LEN_MAX`]). Every function is checked against redis-server's own answers.

use crate::number::{
    DECIMAL_LEN_MAX, HexFloat, is_infinity, parse_exponent, parse_hex, round_binary, write_u64_before,
};
use std::cmp::Ordering;

/// Texts of this many bytes or more are refused, as by Redis' own buffer for them.
pub const TEXT_LEN_MAX: usize = 5 * 1024 - 1;

const PRECISION: u32 = 64;
/// Exponent of the lowest bit there is: the smallest subnormal is 2^-16445.
const EXPONENT_MIN: i64 = -16445;
/// Exponent of the lowest bit of the largest numbers.
const EXPONENT_MAX: i64 = 16383 - 63;

/// Digits that are printed behind the point.
const DECIMALS: u32 = 17;

/// A number of the 80-bit format. Not a NaN: neither parsing nor adding lets one in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LongDouble {
    negative: bool,
    magnitude: Magnitude,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Magnitude {
    Finite { significand: u64, exponent: i64 },
    Infinite,
}

/// Why INCRBYFLOAT was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IncrByFloatError {
    /// The stored value or the increment is not a number.
    NotAFloat,
    /// The sum is infinite or not a number.
    NotFinite,
}

impl std::fmt::Display for IncrByFloatError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            IncrByFloatError::NotAFloat => "ERR value is not a valid float",
            IncrByFloatError::NotFinite => "ERR increment would produce NaN or Infinity",
        })
    }
}

impl std::error::Error for IncrByFloatError {}

/// INCRBYFLOAT: the new value's text. HINCRBYFLOAT has other texts for the same mistakes (it refuses an infinite
/// increment first) and is put together from [`LongDouble`]'s methods.
pub fn incr_by_float(stored: &[u8], increment: &[u8]) -> Result<String, IncrByFloatError> {
    let stored = LongDouble::parse(stored).ok_or(IncrByFloatError::NotAFloat)?;
    let increment = LongDouble::parse(increment).ok_or(IncrByFloatError::NotAFloat)?;
    let sum = stored.checked_add(increment).ok_or(IncrByFloatError::NotFinite)?;
    Ok(sum.to_text())
}

impl LongDouble {
    /// What a missing key counts as.
    pub const ZERO: LongDouble = LongDouble {
        negative: false,
        magnitude: Magnitude::Finite { significand: 0, exponent: EXPONENT_MIN },
    };

    /// Reads what C's strtold takes if it takes all of it, correctly rounded: decimal, hexadecimal ("0x1p-3") or
    /// infinity. Refused are NaN, surrounding space, and numbers that overflow or vanish.
    pub fn parse(text: &[u8]) -> Option<LongDouble> {
        if text.len() > TEXT_LEN_MAX {
            return None;
        }
        let (negative, unsigned) = match text {
            [b'-', rest @ ..] => (true, rest),
            [b'+', rest @ ..] => (false, rest),
            rest => (false, rest),
        };
        let magnitude = match unsigned {
            [b'0', b'x' | b'X', hex @ ..] => {
                let HexFloat { mantissa, exponent } = parse_hex(hex)?;
                round_nonzero(mantissa, exponent)?
            }
            word if is_infinity(word) => Magnitude::Infinite,
            decimal => parse_decimal(decimal)?,
        };
        Some(LongDouble { negative, magnitude })
    }

    /// A double on the same side of zero: the largest for what is beyond it, the smallest for what is below it and not
    /// zero. Between them it may be a double next to the nearest one.
    pub fn to_f64_within(self) -> f64 {
        let size = match self.magnitude {
            Magnitude::Infinite => f64::MAX,
            Magnitude::Finite { significand: 0, .. } => 0.0,
            Magnitude::Finite { significand, exponent } => {
                // In two steps, as the scale alone may be out of range.
                let (half, rest) = (exponent / 2, exponent - exponent / 2);
                let scaled = significand as f64 * 2f64.powi(half as i32) * 2f64.powi(rest as i32);
                scaled.clamp(f64::from_bits(1), f64::MAX)
            }
        };
        if self.negative { -size } else { size }
    }

    /// Whether this is one of the infinities, which HINCRBYFLOAT refuses as increment.
    pub fn is_infinite(self) -> bool {
        self.magnitude == Magnitude::Infinite
    }

    /// The correctly rounded sum; `None` if it is infinite or not a number, which no key may come to hold.
    pub fn checked_add(self, other: LongDouble) -> Option<LongDouble> {
        let (
            Magnitude::Finite { significand: a, exponent: a_exponent },
            Magnitude::Finite { significand: b, exponent: b_exponent },
        ) = (self.magnitude, other.magnitude)
        else {
            return None;
        };
        if a == 0 || b == 0 {
            // Minus zero plus zero is zero; otherwise the other one stays as it is.
            let sum = if a == 0 { other } else { self };
            return Some(LongDouble {
                negative: sum.negative && (a | b != 0 || self.negative == other.negative),
                ..sum
            });
        }
        let (high, high_exponent, low, low_exponent, negative) = match (a_exponent, a).cmp(&(b_exponent, b)) {
            Ordering::Less => (b, b_exponent, a, a_exponent, other.negative),
            _ => (a, a_exponent, b, b_exponent, self.negative),
        };
        // 62 bits below the larger one, and one above it for the carry. What of the smaller one is further down only
        // matters as "not zero", kept in the lowest bit: 60 bits below where rounding happens, so it cannot tie.
        const ROOM: u32 = 62;
        let high = u128::from(high) << ROOM;
        let distance = high_exponent - low_exponent;
        let low = match u32::try_from(distance) {
            Ok(shift) if shift < 127 => {
                let wide = u128::from(low) << ROOM;
                wide >> shift | u128::from(wide & ((1 << shift) - 1) != 0)
            }
            _ => 1,
        };
        let sum = if self.negative == other.negative { high + low } else { high - low };
        if sum == 0 {
            return Some(LongDouble::ZERO);
        }
        let magnitude = round_nonzero(sum, high_exponent - i64::from(ROOM))?;
        Some(LongDouble { negative, magnitude })
    }

    /// Prints like C's `%.17Lf` with trailing zeros and a trailing point cut off: "3", "0.1", "1" followed by 4000
    /// digits, never an exponent. Infinities as "inf" and "-inf".
    pub fn to_text(self) -> String {
        let mut text = String::new();
        let Magnitude::Finite { significand, exponent } = self.magnitude else {
            return if self.negative { "-inf" } else { "inf" }.to_owned();
        };
        if self.negative {
            text.push('-');
        }
        if exponent > 0 {
            Big::from_u128(significand.into()).shifted_left(exponent as usize).print(&mut text);
            return text;
        }
        // significand * 10^17 has at most 64 + 57 bits, so scaled and rounded in one integer.
        let scale = 10u128.pow(DECIMALS);
        let (scaled, _) = round_binary(u128::from(significand) * scale, exponent, u128::BITS, 0);
        let mut buf = [0; DECIMAL_LEN_MAX];
        let end = buf.len();
        // The exponent is not positive, so the whole part is at most the significand (and one, rounded up).
        let whole = write_u64_before(&mut buf, end, (scaled / scale) as u64);
        text.push_str(std::str::from_utf8(&buf[whole..]).expect("digits are ASCII"));
        let mut decimals = (scaled % scale) as u64;
        if decimals != 0 {
            let mut width = DECIMALS as usize;
            while decimals.is_multiple_of(10) {
                decimals /= 10;
                width -= 1;
            }
            let at = write_u64_before(&mut buf, end, decimals);
            text.push('.');
            text.extend(std::iter::repeat_n('0', width - (end - at)));
            text.push_str(std::str::from_utf8(&buf[at..]).expect("digits are ASCII"));
        }
        if text == "-0" { "0".to_owned() } else { text }
    }
}

/// Rounds a positive number into the format; `None` if it overflows or vanishes. Zero stays zero.
fn round_nonzero(mantissa: u128, exponent: i64) -> Option<Magnitude> {
    if mantissa == 0 {
        return Some(Magnitude::Finite { significand: 0, exponent: EXPONENT_MIN });
    }
    let (mut rounded, mut exponent) = round_binary(mantissa, exponent, PRECISION, EXPONENT_MIN);
    if rounded == 0 {
        return None;
    }
    if rounded >> PRECISION != 0 {
        rounded >>= 1;
        exponent += 1;
    }
    // Normalise, down to the subnormals.
    let up = i64::from((rounded as u64).leading_zeros()).min(exponent - EXPONENT_MIN);
    let (significand, exponent) = ((rounded as u64) << up, exponent - up);
    (exponent <= EXPONENT_MAX).then_some(Magnitude::Finite { significand, exponent })
}

/// Reads digits with an optional point and an optional decimal exponent.
fn parse_decimal(text: &[u8]) -> Option<Magnitude> {
    let (mantissa, power) = match text.iter().position(|b| matches!(b, b'e' | b'E')) {
        Some(e) => (&text[..e], parse_exponent(&text[e + 1..])?),
        None => (text, 0),
    };
    let (whole, decimals) = match mantissa.iter().position(|b| *b == b'.') {
        Some(point) => (&mantissa[..point], &mantissa[point + 1..]),
        None => (mantissa, &[][..]),
    };
    let digits = || whole.iter().chain(decimals);
    if digits().next().is_none() || !digits().all(u8::is_ascii_digit) {
        return None;
    }
    let leading = digits().take_while(|b| **b == b'0').count();
    let significant = whole.len() + decimals.len() - leading;
    if significant == 0 {
        return round_nonzero(0, 0);
    }
    let power = power - decimals.len() as i64;
    let digits = digits().skip(leading);

    // Few digits and a small power, nearly always: one division of 128 by 64 bits, with the remainder as sticky bit.
    if significant <= 19 && (-19..=19).contains(&power) {
        let number = digits.fold(0u64, |n, b| n * 10 + u64::from(b - b'0'));
        let scale = 10u64.pow(power.unsigned_abs() as u32);
        if power >= 0 {
            return round_nonzero(u128::from(number) * u128::from(scale), 0);
        }
        let shift = 64 + number.leading_zeros();
        let wide = u128::from(number) << shift;
        // At least 128 - 64 bits remain of the quotient, and one more to round by only with a scale below 2^63; with
        // 10^19 the quotient may have 64 bits, so the remainder must tell the rest.
        let (quotient, remainder) = (wide / u128::from(scale), wide % u128::from(scale));
        let twice = quotient << 2
            | u128::from(remainder * 2 >= u128::from(scale)) << 1
            | u128::from(remainder != 0 && remainder * 2 != u128::from(scale));
        return round_nonzero(twice, -i64::from(shift) - 2);
    }

    // Beyond these the result overflows or vanishes whatever the digits are, and the powers below stay bounded.
    let magnitude = significant as i64 + power;
    if !(-4960..=4940).contains(&magnitude) {
        return None;
    }
    let mut number = Big::default();
    let (mut chunk, mut scale) = (0, 1);
    for digit in digits {
        (chunk, scale) = (chunk * 10 + u64::from(digit - b'0'), scale * 10);
        if scale == Big::CHUNK {
            number.multiply_add(scale, chunk);
            (chunk, scale) = (0, 1);
        }
    }
    number.multiply_add(scale, chunk);
    if power >= 0 {
        number.multiply_power_of_ten(power as u64);
        let (top, exponent) = number.top_bits();
        return round_nonzero(top, exponent);
    }
    let mut divisor = Big::from_u128(1);
    divisor.multiply_power_of_ten(power.unsigned_abs());
    let (quotient, exponent) = divide(number, &divisor);
    round_nonzero(quotient, exponent)
}

/// `number / divisor` as `quotient * 2^exponent` with at least 66 bits, the lowest set if there is a remainder.
fn divide(number: Big, divisor: &Big) -> (u128, i64) {
    const QUOTIENT_BITS: i64 = 68;
    // Scaled so that the quotient lies in 2^67 .. 2^69.
    let exponent = number.bits() as i64 - divisor.bits() as i64 - QUOTIENT_BITS;
    let (mut rest, divisor) = if exponent < 0 {
        (number.shifted_left(exponent.unsigned_abs() as usize), divisor.clone())
    } else {
        (number, divisor.shifted_left(exponent as usize))
    };
    let mut quotient = 0u128;
    let mut step = divisor.shifted_left(QUOTIENT_BITS as usize);
    for _ in 0..=QUOTIENT_BITS {
        quotient <<= 1;
        if rest.compare(&step) != Ordering::Less {
            rest.subtract(&step);
            quotient |= 1;
        }
        step.halve();
    }
    (quotient << 1 | u128::from(!rest.is_zero()), exponent - 1)
}

/// A natural number of any size, least significant limb first, no zero limb on top. Schoolbook arithmetic: the
/// longest accepted text makes some 600 limbs, and only absurd numbers come here at all.
#[derive(Clone, Debug, Default)]
struct Big {
    limbs: Vec<u64>,
}

impl Big {
    /// The largest power of ten in a limb: decimal digits come and go 19 at a time.
    const CHUNK: u64 = 10u64.pow(19);

    fn from_u128(number: u128) -> Big {
        let mut big = Big { limbs: vec![number as u64, (number >> 64) as u64] };
        big.trim();
        big
    }

    fn trim(&mut self) {
        while self.limbs.last() == Some(&0) {
            self.limbs.pop();
        }
    }

    fn is_zero(&self) -> bool {
        self.limbs.is_empty()
    }

    fn bits(&self) -> usize {
        self.limbs.last().map_or(0, |top| self.limbs.len() * 64 - top.leading_zeros() as usize)
    }

    fn multiply_add(&mut self, factor: u64, summand: u64) {
        let mut carry = u128::from(summand);
        for limb in &mut self.limbs {
            carry += u128::from(*limb) * u128::from(factor);
            *limb = carry as u64;
            carry >>= 64;
        }
        if carry != 0 {
            self.limbs.push(carry as u64);
        }
    }

    fn multiply_power_of_ten(&mut self, mut power: u64) {
        const STEP: u64 = 19;
        while power > 0 {
            let step = power.min(STEP);
            self.multiply_add(10u64.pow(step as u32), 0);
            power -= step;
        }
    }

    fn shifted_left(&self, shift: usize) -> Big {
        let mut limbs = vec![0; shift / 64];
        let shift = shift % 64;
        let mut carry = 0;
        for limb in &self.limbs {
            let wide = u128::from(*limb) << shift;
            limbs.push(wide as u64 | carry);
            carry = (wide >> 64) as u64;
        }
        limbs.push(carry);
        let mut big = Big { limbs };
        big.trim();
        big
    }

    fn halve(&mut self) {
        let mut carry = 0;
        for limb in self.limbs.iter_mut().rev() {
            let low = *limb << 63;
            *limb = *limb >> 1 | carry;
            carry = low;
        }
        self.trim();
    }

    fn compare(&self, other: &Big) -> Ordering {
        let by_len = self.limbs.len().cmp(&other.limbs.len());
        by_len.then_with(|| self.limbs.iter().rev().cmp(other.limbs.iter().rev()))
    }

    /// Takes away a number that is not larger.
    fn subtract(&mut self, other: &Big) {
        let mut borrow = false;
        for (i, limb) in self.limbs.iter_mut().enumerate() {
            let (less, under) = limb.overflowing_sub(other.limbs.get(i).copied().unwrap_or(0));
            let (less, under_again) = less.overflowing_sub(u64::from(borrow));
            *limb = less;
            borrow = under || under_again;
        }
        assert!(!borrow, "subtracting a larger number");
        self.trim();
    }

    /// The top 120 bits, the lowest set if anything is below them, and their exponent.
    fn top_bits(&self) -> (u128, i64) {
        const TOP: usize = 120;
        let below = self.bits().saturating_sub(TOP);
        let (skip, shift) = (below / 64, below % 64);
        let limb = |i: usize| u128::from(self.limbs.get(skip + i).copied().unwrap_or(0));
        let low = (limb(1) << 64 | limb(0)) >> shift;
        let top = if shift == 0 { low } else { low | limb(2) << (128 - shift) };
        let cut = self.limbs[..skip].iter().any(|l| *l != 0) || limb(0) & ((1 << shift) - 1) != 0;
        (top | u128::from(cut), below as i64)
    }

    fn print(mut self, text: &mut String) {
        let mut chunks = Vec::new();
        while !self.is_zero() {
            let mut remainder = 0u128;
            for limb in self.limbs.iter_mut().rev() {
                let wide = remainder << 64 | u128::from(*limb);
                *limb = (wide / u128::from(Self::CHUNK)) as u64;
                remainder = wide % u128::from(Self::CHUNK);
            }
            self.trim();
            chunks.push(remainder as u64);
        }
        let mut buf = [b'0'; DECIMAL_LEN_MAX];
        for (i, chunk) in chunks.iter().rev().enumerate() {
            buf.fill(b'0');
            let at = write_u64_before(&mut buf, DECIMAL_LEN_MAX, *chunk);
            let at = if i == 0 { at } else { DECIMAL_LEN_MAX - 19 };
            text.push_str(std::str::from_utf8(&buf[at..]).expect("digits are ASCII"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(stored: &str, increment: &str) -> String {
        incr_by_float(stored.as_bytes(), increment.as_bytes()).unwrap_or_else(|error| error.to_string())
    }

    /// Doubles come back, and what no double can be is on the same side.
    #[test]
    fn doubles() {
        for number in ["0", "1", "-2.5", "1e308", "-1e-300", "5e-324", "4503599627370497"] {
            let long = LongDouble::parse(number.as_bytes()).expect("a number");
            assert_eq!(Ok(long.to_f64_within()), number.parse(), "{number}");
        }
        let within = |number: &str| LongDouble::parse(number.as_bytes()).expect("a number").to_f64_within();
        assert_eq!([within("1e309"), within("-1e4932"), within("-inf")], [f64::MAX, -f64::MAX, -f64::MAX]);
        assert_eq!([within("1e-400"), within("-1e-4940")], [5e-324, -5e-324]);
    }

    /// What clients know from Redis' documentation, and the edges of the format as redis-server 7.0.15 has them.
    #[test]
    fn sums() {
        const NOT_A_FLOAT: &str = "ERR value is not a valid float";
        const NOT_FINITE: &str = "ERR increment would produce NaN or Infinity";
        for (stored, increment, answer) in [
            ("10.50", "0.1", "10.6"),
            ("10.6", "-5", "5.6"),
            ("5.0e3", "2.0e2", "5200"),
            ("0.1", "0.2", "0.3"),
            ("3", "-3", "0"),
            ("-3", "3", "0"),
            ("0", "-0", "0"),
            ("-0", "-0", "0"),
            ("-1e-20", "0", "0"),
            ("0", "0.000000000000000005", "0"),
            ("0", "0.000000000000000015", "0.00000000000000002"),
            ("0", "1e17", "100000000000000000"),
            ("0", "3.0e-5", "0.00003"),
            ("0", "18446744073709551616", "18446744073709551616"),
            ("0.99999999999999999999", "0", "1"),
            ("0", "0x1p-3", "0.125"),
            ("0", "0x1p-16445", "0"),
            ("0", "0x1p-16446", NOT_A_FLOAT),
            ("0", "1e-4950", "0"),
            ("0", "1e-4951", NOT_A_FLOAT),
            ("0", "1e4933", NOT_A_FLOAT),
            ("1.18973149535723176509e+4932", "0", NOT_A_FLOAT),
            ("1e4932", "1e4932", NOT_FINITE),
            ("inf", "1", NOT_FINITE),
            ("1", "-Infinity", NOT_FINITE),
            ("inf", "-inf", NOT_FINITE),
            ("nan", "1", NOT_A_FLOAT),
            ("", "1", NOT_A_FLOAT),
            ("1 ", "1", NOT_A_FLOAT),
            ("\t1", "1", NOT_A_FLOAT),
            ("1\0", "1", NOT_A_FLOAT),
            ("0", "1e99999999999999999999", NOT_A_FLOAT),
            ("0", "0e99999999999999999999", "0"),
        ] {
            assert_eq!(sum(stored, increment), answer, "{stored} + {increment}");
        }
    }

    /// Texts as long as they may be, with exponents that undo their length: slow, but neither wrong nor unbounded.
    #[test]
    fn longest_texts() {
        let tiny = format!("0.{}1e5000", "0".repeat(5000 - 1));
        assert_eq!(sum(&tiny, "0"), "1");
        let accepted = format!("{}e-4000", "1".repeat(TEXT_LEN_MAX - 6));
        assert_eq!(accepted.len(), TEXT_LEN_MAX);
        assert!(LongDouble::parse(accepted.as_bytes()).is_some());
        assert!(LongDouble::parse(format!("{accepted}0").as_bytes()).is_none());
        assert_eq!(sum("1e4932", "0").len(), 4933);
    }

    /// Where doubles are exact and print exactly (at most 16 digits), they give the same sums.
    #[test]
    fn agrees_with_exact_doubles() {
        let mut seed = 99u64;
        for _ in 0..20_000 {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            let a = (seed >> 24) as i32 as f64 / 16.0;
            let b = (seed as i32) as f64 / 64.0;
            assert_eq!(sum(&a.to_string(), &b.to_string()), (a + b).to_string(), "{a} + {b}");
        }
    }
}
