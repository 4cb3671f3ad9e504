//! Numbers as Redis reads and prints them. Where Redis is strict (no plus, no leading zero, no space) so is this,
//! because a client that stores "007" must get "007" back and not a counter.
//!
//! Integers: [`parse_i64`], [`parse_u64`], [`Decimal`]. Doubles: [`parse_f64`], [`fmt_double`]. The 80-bit floats of
//! INCRBYFLOAT are `long_double`'s.

pub use crate::long_double::{IncrByFloatError, LongDouble, incr_by_float};
use std::io::Write;

/// A signed integer as Redis accepts them anywhere: optional minus, no plus, no leading zeros, no "-0", no spaces.
#[inline]
pub fn parse_i64(text: &[u8]) -> Option<i64> {
    match text {
        [b'0'] => Some(0),
        [b'-', digits @ ..] => 0i64.checked_sub_unsigned(parse_positive(digits)?),
        digits => i64::try_from(parse_positive(digits)?).ok(),
    }
}

/// Like [`parse_i64`] for values that cannot be negative, up to `u64::MAX`.
#[inline]
pub fn parse_u64(text: &[u8]) -> Option<u64> {
    if text == b"0" { Some(0) } else { parse_positive(text) }
}

/// Digits of a number above zero.
#[inline]
fn parse_positive(digits: &[u8]) -> Option<u64> {
    let (first, rest) = digits.split_first()?;
    if !(b'1'..=b'9').contains(first) {
        return None;
    }
    let mut number = u64::from(first - b'0');
    // 19 digits cannot overflow; only the 20th needs a check.
    if rest.len() < 19 {
        for byte in rest {
            let digit = byte.wrapping_sub(b'0');
            if digit > 9 {
                return None;
            }
            number = number * 10 + u64::from(digit);
        }
        return Some(number);
    }
    for byte in rest {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        number = number.checked_mul(10)?.checked_add(u64::from(digit))?;
    }
    Some(number)
}

/// Two decimal digits for each of 0..100: half the divisions of printing.
pub(crate) static PAIRS: [[u8; 2]; 100] = {
    let mut pairs = [[0; 2]; 100];
    let mut i = 0;
    while i < 100 {
        pairs[i] = [b'0' + (i / 10) as u8, b'0' + (i % 10) as u8];
        i += 1;
    }
    pairs
};

/// Longest printed integer: `-9223372036854775808` and `18446744073709551615` both take 20.
pub const DECIMAL_LEN_MAX: usize = 20;

/// Writes `number` so that it ends at `end`; gives where it begins. `end` must be at least [`DECIMAL_LEN_MAX`].
#[inline]
pub(crate) fn write_u64_before(buf: &mut [u8], end: usize, mut number: u64) -> usize {
    let mut at = end;
    while number >= 100 {
        let pair = PAIRS[(number % 100) as usize];
        number /= 100;
        at -= 2;
        buf[at..at + 2].copy_from_slice(&pair);
    }
    if number >= 10 {
        at -= 2;
        buf[at..at + 2].copy_from_slice(&PAIRS[number as usize]);
    } else {
        at -= 1;
        buf[at] = b'0' + number as u8;
    }
    at
}

/// Like [`write_u64_before`] with a sign.
#[inline]
pub(crate) fn write_i64_before(buf: &mut [u8], end: usize, number: i64) -> usize {
    let mut at = write_u64_before(buf, end, number.unsigned_abs());
    if number < 0 {
        at -= 1;
        buf[at] = b'-';
    }
    at
}

/// An integer's decimal digits on the stack: `Decimal::new(n).as_bytes()`.
#[derive(Clone, Copy, Debug)]
pub struct Decimal {
    buf: [u8; DECIMAL_LEN_MAX],
    at: u8,
}

impl Decimal {
    /// Prints a signed integer.
    #[inline]
    pub fn new(number: i64) -> Decimal {
        let mut buf = [0; DECIMAL_LEN_MAX];
        let at = write_i64_before(&mut buf, DECIMAL_LEN_MAX, number) as u8;
        Decimal { buf, at }
    }

    /// Prints an unsigned integer.
    #[inline]
    pub fn new_unsigned(number: u64) -> Decimal {
        let mut buf = [0; DECIMAL_LEN_MAX];
        let at = write_u64_before(&mut buf, DECIMAL_LEN_MAX, number) as u8;
        Decimal { buf, at }
    }

    /// The digits, with the sign if negative.
    #[inline]
    pub fn as_bytes(&self) -> &[u8] {
        &self.buf[self.at as usize..]
    }
}

/// A double as Redis accepts scores and the like: what C's strtod takes if it takes all of it and nothing overflows
/// or vanishes. So "inf", "+Infinity", ".5", "5.", "0x1p-3" are numbers; "nan", " 1", "1 ", "1e400", "1e-400" are not.
pub fn parse_f64(text: &[u8]) -> Option<f64> {
    let (negative, unsigned) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        rest => (false, rest),
    };
    let magnitude = match unsigned {
        [b'0', b'x' | b'X', hex @ ..] => parse_hex_f64(hex)?,
        // A second sign would be taken by `parse` below.
        [b'0'..=b'9' | b'.', ..] => {
            let number: f64 = std::str::from_utf8(unsigned).ok()?.parse().ok()?;
            let mantissa = unsigned.split(|b| matches!(b, b'e' | b'E')).next().unwrap_or_default();
            let vanished = number == 0.0 && mantissa.iter().any(|b| (b'1'..=b'9').contains(b));
            if number.is_infinite() || vanished {
                return None;
            }
            number
        }
        word if is_infinity(word) => f64::INFINITY,
        _ => return None,
    };
    Some(if negative { -magnitude } else { magnitude })
}

/// The two spellings of infinity, in any case, without their sign.
pub(crate) fn is_infinity(word: &[u8]) -> bool {
    word.eq_ignore_ascii_case(b"inf") || word.eq_ignore_ascii_case(b"infinity")
}

/// The digits of a hexadecimal float as a number: `mantissa` * 2^`exponent`, with the lowest bit of `mantissa` set if
/// anything further down was cut off.
pub(crate) struct HexFloat {
    pub mantissa: u128,
    pub exponent: i64,
}

/// Reads what stands behind `0x`: hex digits with an optional point, and an optional binary exponent.
pub(crate) fn parse_hex(text: &[u8]) -> Option<HexFloat> {
    let mut mantissa = 0u128;
    let mut exponent = 0i64;
    let mut any = false;
    let mut point = false;
    let mut rest = text;
    while let [byte, tail @ ..] = rest {
        let digit = match byte {
            b'.' if !point => {
                point = true;
                rest = tail;
                continue;
            }
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            b'A'..=b'F' => byte - b'A' + 10,
            _ => break,
        };
        any = true;
        rest = tail;
        // 120 bits are more than any format here keeps; below them only "was it zero" matters.
        if mantissa >> 120 == 0 {
            mantissa = mantissa << 4 | u128::from(digit);
            exponent -= if point { 4 } else { 0 };
        } else {
            mantissa |= u128::from(digit != 0);
            exponent += if point { 0 } else { 4 };
        }
    }
    if !any {
        return None;
    }
    match rest {
        [] => {}
        [b'p' | b'P', power @ ..] => exponent = exponent.saturating_add(parse_exponent(power)?),
        _ => return None,
    }
    Some(HexFloat { mantissa, exponent })
}

/// Signed decimal digits, at least one, of any length: what is beyond a million is as good as infinite here.
pub(crate) fn parse_exponent(text: &[u8]) -> Option<i64> {
    const FAR: i64 = 1_000_000_000;
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        rest => (false, rest),
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let value = digits.iter().fold(0i64, |sum, b| (sum * 10 + i64::from(b - b'0')).min(FAR));
    Some(if negative { -value } else { value })
}

/// Rounds `mantissa` * 2^`exponent` to `precision` bits, ties to even, in a format whose lowest bit is 2^`lowest`.
/// Gives the rounded mantissa and its exponent; a mantissa of `2^precision` is possible after a carry.
pub(crate) fn round_binary(mantissa: u128, exponent: i64, precision: u32, lowest: i64) -> (u128, i64) {
    let bits = i64::from(128 - mantissa.leading_zeros());
    let drop = (bits - i64::from(precision)).max(lowest.saturating_sub(exponent));
    if drop <= 0 {
        return (mantissa, exponent);
    }
    if drop > 128 {
        return (0, lowest);
    }
    let kept = if drop == 128 { 0 } else { mantissa >> drop };
    let half = 1u128 << (drop - 1);
    let cut = mantissa & (half | (half - 1));
    let up = cut > half || (cut == half && kept & 1 == 1);
    (kept + u128::from(up), exponent + drop)
}

fn parse_hex_f64(text: &[u8]) -> Option<f64> {
    let HexFloat { mantissa, exponent } = parse_hex(text)?;
    if mantissa == 0 {
        return Some(0.0);
    }
    const LOWEST: i64 = -1074;
    let (rounded, exponent) = round_binary(mantissa, exponent, f64::MANTISSA_DIGITS, LOWEST);
    // Normalise upwards so that the scale below is exact: rounded < 2^54 fits an f64 as it is.
    let top = exponent + i64::from(128 - rounded.leading_zeros());
    if rounded == 0 || top > i64::from(f64::MAX_EXP) {
        return None;
    }
    // Two exact steps, because 2^-1074 has no reciprocal that is a double.
    let half = exponent / 2;
    let scaled = rounded as f64 * 2f64.powi(half as i32) * 2f64.powi((exponent - half) as i32);
    Some(scaled)
}

/// Room for any printed double: sign, 17 digits, point and five zeros before them, or `e-308` behind.
pub const DOUBLE_LEN_MAX: usize = 32;

/// Prints a double with the fewest digits that read back as the same double, in plain notation from 1e-6 up to below
/// 1e21: `0.1`, `3`, `1e+21`, `1e-7`, `inf`, `-inf`, `nan`. What Dragonfly prints, and Redis since 7.2 for usual numbers;
/// [`fmt_double_17`] is the form before that. Minus zero prints as `0`, here as there.
#[inline]
pub fn fmt_double(number: f64, buf: &mut [u8; DOUBLE_LEN_MAX]) -> &str {
    if let Some(at) = write_short_decimal(number, buf) {
        return as_str(&buf[at..]);
    }
    fmt_any_double(number, buf)
}

/// Scores and counters are mostly small numbers with a few decimals, and for those the general algorithm behind
/// `{:e}` costs ten times as much. If `number` is the double next to `n / 10^k` and `n` has at most 15 digits, then
/// no other decimal of at most 15 digits reads back as it, so the first `k` that fits gives the shortest form: two
/// decimals that short are never rounded to one double. The quotient is correctly rounded because `n` and `10^k` are
/// exact. Gives where the text begins; it ends with the buffer.
#[inline]
fn write_short_decimal(number: f64, buf: &mut [u8; DOUBLE_LEN_MAX]) -> Option<usize> {
    const POWERS: [f64; 7] = [1.0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6];
    const DIGITS_15: f64 = 1e15;
    let magnitude = number.abs();
    for (decimals, power) in POWERS.into_iter().enumerate() {
        let scaled = magnitude * power;
        // Also false for NaN and the infinities.
        if !(1.0..DIGITS_15).contains(&scaled) {
            if scaled < 1.0 && scaled > 0.0 {
                continue;
            }
            return None;
        }
        let n = (scaled + 0.5) as u64;
        if n as f64 / power != magnitude {
            continue;
        }
        let mut at = DOUBLE_LEN_MAX;
        if decimals == 0 {
            at = write_u64_before(buf, at, n);
        } else {
            let divisor = power as u64;
            // The decimals with a leading 1 that keeps their zeros; the point then takes its place.
            at = write_u64_before(buf, at, n % divisor + divisor);
            buf[at] = b'.';
            at = write_u64_before(buf, at, n / divisor);
        }
        if number < 0.0 {
            at -= 1;
            buf[at] = b'-';
        }
        return Some(at);
    }
    None
}

#[cold]
fn fmt_any_double(number: f64, buf: &mut [u8; DOUBLE_LEN_MAX]) -> &str {
    if number == 0.0 {
        return "0";
    }
    let Some(digits) = Digits::of(number, None) else { return not_finite(number) };
    let notation = if (-6..21).contains(&digits.exponent) { Notation::Plain } else { Notation::Exponent(1) };
    digits.print(notation, buf)
}

/// Prints a double with C's `%.17g`, as Redis up to 7.0 answers ZSCORE and the like: always exact, rarely pretty
/// (`0.10000000000000001`, `1e+17`, `9.9999999999999995e-08`, `-0`).
#[inline]
pub fn fmt_double_17(number: f64, buf: &mut [u8; DOUBLE_LEN_MAX]) -> &str {
    // A double whose decimal form ends within 15 digits prints as just that in both notations, and integers and
    // multiples of 1/64 below these bounds have such forms.
    const INTEGERS: f64 = 1e15;
    const FRACTIONS: f64 = 1e9;
    let magnitude = number.abs();
    let short = magnitude < INTEGERS && magnitude.trunc() == magnitude
        || magnitude < FRACTIONS && (magnitude * 64.0).trunc() == magnitude * 64.0;
    if short && let Some(at) = write_short_decimal(number, buf) {
        return as_str(&buf[at..]);
    }
    fmt_any_double_17(number, buf)
}

#[cold]
fn fmt_any_double_17(number: f64, buf: &mut [u8; DOUBLE_LEN_MAX]) -> &str {
    const DIGITS: usize = 17;
    let Some(digits) = Digits::of(number, Some(DIGITS)) else { return not_finite(number) };
    let plain = (-4..DIGITS as i32).contains(&digits.exponent);
    digits.print(if plain { Notation::Plain } else { Notation::Exponent(2) }, buf)
}

fn not_finite(number: f64) -> &'static str {
    if number.is_nan() {
        "nan"
    } else if number > 0.0 {
        "inf"
    } else {
        "-inf"
    }
}

fn as_str(printed: &[u8]) -> &str {
    std::str::from_utf8(printed).expect("digits are ASCII")
}

/// A finite double in decimal: `d.ddd` * 10^`exponent`, without trailing zeros.
struct Digits {
    negative: bool,
    digits: [u8; 17],
    len: usize,
    exponent: i32,
}

enum Notation {
    Plain,
    /// With at least this many digits of exponent.
    Exponent(usize),
}

impl Digits {
    /// The shortest digits that read back as `number`, or exactly so many correctly rounded ones.
    fn of(number: f64, significant: Option<usize>) -> Option<Digits> {
        if !number.is_finite() {
            return None;
        }
        // The standard library has the algorithms (shortest and exact) but only this door to them.
        let mut text = [0u8; DOUBLE_LEN_MAX];
        let mut rest = &mut text[..];
        match significant {
            None => write!(rest, "{:e}", number.abs()),
            Some(count) => write!(rest, "{:.*e}", count - 1, number.abs()),
        }
        .expect("17 digits, a point and an exponent fit");
        let len = DOUBLE_LEN_MAX - rest.len();
        let (mantissa, exponent) = as_str(&text[..len]).split_once('e').expect("{:e} prints an exponent");
        let mut digits = Digits {
            negative: number.is_sign_negative(),
            digits: [b'0'; 17],
            len: 0,
            exponent: exponent.parse().expect("{:e} prints an integer"),
        };
        for digit in mantissa.bytes().filter(|b| *b != b'.') {
            digits.digits[digits.len] = digit;
            digits.len += 1;
        }
        while digits.len > 1 && digits.digits[digits.len - 1] == b'0' {
            digits.len -= 1;
        }
        Some(digits)
    }

    fn print(self, notation: Notation, buf: &mut [u8; DOUBLE_LEN_MAX]) -> &str {
        let mut out = Text { buf, len: 0 };
        let digits = &self.digits[..self.len];
        if self.negative {
            out.push(b"-");
        }
        match notation {
            Notation::Plain if self.exponent < 0 => {
                out.push(b"0.");
                out.push(&b"000000"[..(-self.exponent - 1) as usize]);
                out.push(digits);
            }
            Notation::Plain => {
                let whole = self.exponent as usize + 1;
                out.push(&digits[..whole.min(digits.len())]);
                if whole < digits.len() {
                    out.push(b".");
                    out.push(&digits[whole..]);
                } else {
                    out.push(&b"00000000000000000000"[..whole - digits.len()]);
                }
            }
            Notation::Exponent(width) => {
                out.push(&digits[..1]);
                if digits.len() > 1 {
                    out.push(b".");
                    out.push(&digits[1..]);
                }
                out.push(if self.exponent < 0 { b"e-" } else { b"e+" });
                let exponent = Decimal::new_unsigned(u64::from(self.exponent.unsigned_abs()));
                let exponent = exponent.as_bytes();
                out.push(&b"00"[..width.saturating_sub(exponent.len())]);
                out.push(exponent);
            }
        }
        let Text { buf, len } = out;
        as_str(&buf[..len])
    }
}

struct Text<'a> {
    buf: &'a mut [u8; DOUBLE_LEN_MAX],
    len: usize,
}

impl Text<'_> {
    fn push(&mut self, bytes: &[u8]) {
        self.buf[self.len..self.len + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shortest(number: f64) -> String {
        fmt_double(number, &mut [0; DOUBLE_LEN_MAX]).to_owned()
    }

    fn seventeen(number: f64) -> String {
        fmt_double_17(number, &mut [0; DOUBLE_LEN_MAX]).to_owned()
    }

    /// The short way around the general algorithm prints what that prints, near its bounds too.
    #[test]
    fn seventeen_digits_the_short_way() {
        let mut rng = XorShift(17);
        for _ in 0..20_000 {
            let whole = (rng.next() >> (rng.next() % 54 + 10)) as f64;
            for number in [whole, whole / 64.0, -whole / 8.0, whole + 0.1] {
                assert_eq!(seventeen(number), fmt_any_double_17(number, &mut [0; DOUBLE_LEN_MAX]));
            }
        }
        for number in [1e9, 1e9 - 1.0 / 64.0, 1e15 - 1.0, 1e15, 1e17, -1.0 / 64.0] {
            assert_eq!(seventeen(number), fmt_any_double_17(number, &mut [0; DOUBLE_LEN_MAX]));
        }
        assert_eq!([seventeen(0.0), seventeen(-0.0)], ["0", "-0"]);
    }

    struct XorShift(u64);

    impl XorShift {
        fn next(&mut self) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0
        }
    }

    /// Doubles as they come: scores with a few decimals, integers, and any bit pattern.
    fn doubles() -> impl Iterator<Item = f64> {
        let mut random = XorShift(42);
        (0..200_000).map(move |i| {
            let bits = random.next();
            match i % 4 {
                0 => (bits >> 44) as f64 / [1.0, 10.0, 100.0, 1e3, 1e4, 1e5, 8.0, 3.0][bits as usize % 8],
                1 => -((bits >> (bits % 64)) as f64),
                2 => f64::from_bits((bits >> 12) | (1000 + bits % 60) << 52),
                _ => f64::from_bits(bits),
            }
        })
    }

    #[test]
    fn integers_are_strict() {
        for (text, number) in
            [("0", 0), ("-1", -1), ("42", 42), ("1000000000000000000", 1_000_000_000_000_000_000)]
        {
            assert_eq!(parse_i64(text.as_bytes()), Some(number), "{text}");
        }
        assert_eq!(parse_i64(b"9223372036854775807"), Some(i64::MAX));
        assert_eq!(parse_i64(b"-9223372036854775808"), Some(i64::MIN));
        assert_eq!(parse_u64(b"18446744073709551615"), Some(u64::MAX));
        assert_eq!(parse_u64(b"0"), Some(0));
        for text in
            ["", "-", "+", "+1", "-0", "00", "01", "-01", " 1", "1 ", "1.", "1e3", "0x1", "--1", "\u{661}"]
        {
            assert_eq!(parse_i64(text.as_bytes()), None, "{text}");
            assert_eq!(parse_u64(text.as_bytes()), None, "{text}");
        }
        for text in
            ["9223372036854775808", "-9223372036854775809", "18446744073709551616", "99999999999999999999999"]
        {
            assert_eq!(parse_i64(text.as_bytes()), None, "{text}");
        }
        assert_eq!(parse_u64(b"18446744073709551616"), None);
        assert_eq!(parse_u64(b"184467440737095516150"), None);
    }

    /// Printing is the standard library's, and parsing undoes it.
    #[test]
    fn integers_round_trip() {
        let mut random = XorShift(7);
        for i in 0..100_000 {
            let number = (random.next() >> (i % 64)) as i64;
            for number in [number, number.wrapping_neg()] {
                let printed = Decimal::new(number);
                assert_eq!(printed.as_bytes(), number.to_string().as_bytes());
                assert_eq!(parse_i64(printed.as_bytes()), Some(number));
                let printed = Decimal::new_unsigned(number as u64);
                assert_eq!(printed.as_bytes(), (number as u64).to_string().as_bytes());
                assert_eq!(parse_u64(printed.as_bytes()), Some(number as u64));
            }
        }
        assert_eq!(Decimal::new(i64::MIN).as_bytes(), b"-9223372036854775808");
    }

    #[test]
    fn shortest_doubles() {
        for (number, text) in [
            (0.0, "0"),
            (-0.0, "0"),
            (0.1, "0.1"),
            (-0.5, "-0.5"),
            (3.0, "3"),
            (1.005, "1.005"),
            (100.0, "100"),
            (0.1 + 0.2, "0.30000000000000004"),
            (123456789.24845679, "123456789.24845679"),
            (2251799813685249.5, "2251799813685249.5"),
            (9007199254740993.0, "9007199254740992"),
            (1e17, "100000000000000000"),
            (1e20, "100000000000000000000"),
            (1e21, "1e+21"),
            (-1.5e300, "-1.5e+300"),
            (1e-5, "0.00001"),
            (1e-6, "0.000001"),
            (1e-7, "1e-7"),
            (5e-324, "5e-324"),
            (f64::MAX, "1.7976931348623157e+308"),
            (f64::INFINITY, "inf"),
            (f64::NEG_INFINITY, "-inf"),
            (f64::NAN, "nan"),
        ] {
            assert_eq!(shortest(number), text);
        }
    }

    /// The forms of redis-server 7.0.15.
    #[test]
    fn doubles_with_17_digits() {
        for (number, text) in [
            (0.1, "0.10000000000000001"),
            (3.0, "3"),
            (1e16, "10000000000000000"),
            (1e17, "1e+17"),
            (123456789012345678.0, "1.2345678901234568e+17"),
            (1e-5, "1.0000000000000001e-05"),
            (0.0001, "0.0001"),
            (1e-7, "9.9999999999999995e-08"),
            (5e-324, "4.9406564584124654e-324"),
            (f64::MAX, "1.7976931348623157e+308"),
            (-0.0, "-0"),
            (f64::NEG_INFINITY, "-inf"),
        ] {
            assert_eq!(seventeen(number), text);
        }
    }

    /// The quick way and the general way print alike, both read back as the same number, and no double prints longer
    /// than its buffer, which would panic here.
    #[test]
    fn doubles_round_trip() {
        let mut quick = 0;
        for number in doubles().filter(|number| number.is_finite()) {
            let text = shortest(number);
            assert_eq!(parse_f64(text.as_bytes()), Some(number), "{text}");
            assert_eq!(fmt_any_double(number, &mut [0; DOUBLE_LEN_MAX]), text);
            quick += usize::from(write_short_decimal(number, &mut [0; DOUBLE_LEN_MAX]).is_some());
            assert_eq!(parse_f64(seventeen(number).as_bytes()), Some(number));
        }
        assert!(quick > 20_000, "the quick way is taken: {quick}");
    }

    #[test]
    fn doubles_as_strtod_reads_them() {
        for (text, number) in [
            ("inf", f64::INFINITY),
            ("+Inf", f64::INFINITY),
            ("-infinity", f64::NEG_INFINITY),
            ("1.", 1.0),
            (".5", 0.5),
            ("-.5e1", -5.0),
            ("1e-320", 1e-320),
            ("0e999999999999", 0.0),
            ("0x10", 16.0),
            ("0X.8P+1", 1.0),
            ("-0x1p-1074", -5e-324),
            ("0x1.8p-1075", 5e-324),
            ("0x1.fffffffffffffp1023", f64::MAX),
            ("0x1.00000000000008", 1.0),
            ("0x1.000000000000080000000000000000000000000001", 1.0000000000000002),
            ("0x0p99999999999", 0.0),
        ] {
            assert_eq!(parse_f64(text.as_bytes()), Some(number), "{text}");
        }
        for text in [
            "",
            "-",
            ".",
            "e5",
            "1e",
            "1e+",
            "nan",
            "-NaN",
            "nan(1)",
            " 1",
            "1 ",
            "1\0",
            "\t1",
            "+-1",
            "1_0",
            "infinit",
            "1e400",
            "-1e400",
            "1e-400",
            "0x",
            "0x.",
            "0x1p",
            "0x1pz",
            "0x1p1024",
            "0x1p-1076",
            "0x1p-1075",
            "0x1.fffffffffffff8p1023",
            "1d5",
        ] {
            assert_eq!(parse_f64(text.as_bytes()), None, "{text}");
        }
        assert_eq!(parse_f64(b"\xff"), None);
        assert_eq!(parse_f64(b"1\xff"), None);
    }
}
