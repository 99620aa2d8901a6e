//! The numbers of INCRBYFLOAT: Redis computes them in C's `long double`, on x86-64 a float of 64 bits mantissa, and
//! prints seventeen decimals without trailing zeros. This module does the same in integers alone, so that every
//! replica, whatever its processor, gets the very bytes that Redis prints.
//!
//! ```text
//!   text ── parse ──> sign, mantissa (64 bits, highest bit set) x 2^exponent ── add ──> ... ── print ──> text
//! ```
//! Rounding is to nearest, ties to even, as the x87 does it. Numbers too small for the format's normal range become
//! zero where C would keep a denormal: seventeen decimals could not show the difference.

use core::cmp::Ordering;

/// Exponents of ten beyond this are out of range whatever the digits are (those are at most [`TEXT_BYTES_MAX`]).
const EXPONENT_TEN_MAX: i64 = 20_000;
/// Largest text that is read as a number, as in Redis (`string2ld`).
const TEXT_BYTES_MAX: usize = 5 * 1024;
/// Largest binary exponent of the highest bit.
const EXPONENT_MAX: i64 = 16_383;
/// Smallest binary exponent of the highest bit of a normal number.
const EXPONENT_MIN: i64 = -16_382;
/// Decimals that are printed.
const DECIMALS: u32 = 17;

/// A finite number `(-1)^negative x mantissa x 2^exponent`.
///
/// Invariant: mantissa is 0, or its highest bit is set and the number is within the format's range.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Extended {
    negative: bool,
    mantissa: u64,
    exponent: i64,
}

/// What a text is as a number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Parsed {
    /// A finite number.
    Finite(Extended),
    /// `inf` or `infinity`, of either sign.
    Infinite,
}

/// The number that `text` spells, or nothing when it spells none or one out of range.
#[must_use]
pub fn parse(text: &[u8]) -> Option<Parsed> {
    if text.len() >= TEXT_BYTES_MAX {
        return None;
    }
    let (negative, text) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        _ => (false, text),
    };
    if text.eq_ignore_ascii_case(b"inf") || text.eq_ignore_ascii_case(b"infinity") {
        return Some(Parsed::Infinite);
    }
    let (digits, exponent) = match text.iter().position(|byte| matches!(byte, b'e' | b'E')) {
        Some(at) => (&text[..at], parse_exponent(&text[at + 1..])?),
        None => (text, 0),
    };
    let point = digits.iter().position(|byte| *byte == b'.').unwrap_or(digits.len());
    let fraction = digits.get(point + 1..).unwrap_or_default();
    let all = || digits[..point].iter().chain(fraction);
    if all().count() == 0 || !all().all(u8::is_ascii_digit) {
        return None;
    }
    let mut number = Big::default();
    all().for_each(|digit| number.multiply_add(10, u32::from(digit - b'0')));
    let exponent = exponent.saturating_sub(fraction.len() as i64);
    from_decimal(negative, number, exponent).map(Parsed::Finite)
}

/// The exponent behind the `e`: a sign, then digits, saturating where the number is out of range anyway.
fn parse_exponent(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        _ => (false, text),
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let magnitude =
        digits.iter().fold(0, |value, digit| (value * 10 + i64::from(digit - b'0')).min(i64::from(u32::MAX)));
    Some(if negative { -magnitude } else { magnitude })
}

/// `number x 10^exponent`, rounded.
fn from_decimal(negative: bool, number: Big, exponent: i64) -> Option<Extended> {
    if number.is_zero() {
        return Some(Extended { negative, mantissa: 0, exponent: 0 });
    }
    if exponent.abs() > EXPONENT_TEN_MAX {
        return None;
    }
    let mut numerator = number;
    let mut denominator = Big::from(1);
    let scaled = if exponent >= 0 { &mut numerator } else { &mut denominator };
    (0..exponent.abs()).for_each(|_| scaled.multiply_add(10, 0));
    // Shift so that the quotient has 66 or 67 bits: 64 of mantissa, at least two to round by, the remainder is sticky.
    let shift = 66 + denominator.bits() as i64 - numerator.bits() as i64;
    if shift >= 0 {
        numerator.shift_left(shift as usize)
    } else {
        denominator.shift_left((-shift) as usize)
    }
    let (quotient, exact) = numerator.divide_small_quotient(&denominator);
    round(negative, quotient, -shift, !exact)
}

/// `value x 2^exponent` (and a little more when `sticky`) as the nearest number of the format; nothing out of range.
fn round(negative: bool, value: u128, exponent: i64, sticky: bool) -> Option<Extended> {
    if value == 0 {
        return Some(Extended { negative, mantissa: 0, exponent: 0 });
    }
    let excess = i64::from(128 - value.leading_zeros()) - 64;
    let (mut mantissa, mut exponent) = if excess <= 0 {
        ((value << -excess) as u64, exponent + excess)
    } else {
        let kept = (value >> excess) as u64;
        let cut = value & ((1u128 << excess) - 1);
        let half = 1u128 << (excess - 1);
        let up = match cut.cmp(&half) {
            Ordering::Less => false,
            Ordering::Greater => true,
            Ordering::Equal => sticky || kept & 1 == 1,
        };
        match kept.checked_add(u64::from(up)) {
            Some(mantissa) => (mantissa, exponent + excess),
            None => (1 << 63, exponent + excess + 1),
        }
    };
    match exponent + 63 {
        top if top > EXPONENT_MAX => return None,
        top if top < EXPONENT_MIN => (mantissa, exponent) = (0, 0),
        _ => {}
    }
    Some(Extended { negative, mantissa, exponent })
}

impl Extended {
    /// The rounded sum; nothing when it is out of range.
    #[must_use]
    pub fn plus(self, other: Self) -> Option<Self> {
        let (large, small) = if self.order() >= other.order() { (self, other) } else { (other, self) };
        if small.mantissa == 0 {
            let negative = if large.mantissa == 0 { large.negative && small.negative } else { large.negative };
            return Some(Self { negative, ..large });
        }
        // 62 bits below the mantissa of the larger one, 2 above it; what falls out below is sticky
        let distance = large.exponent - small.exponent;
        let a = u128::from(large.mantissa) << 62;
        let b = u128::from(small.mantissa) << 62;
        let (b, sticky) = match u32::try_from(distance) {
            Ok(distance) if distance < 127 => (b >> distance, b & ((1u128 << distance) - 1) != 0),
            _ => (0, true),
        };
        let exponent = large.exponent - 62;
        if large.negative == small.negative {
            round(large.negative, a + b, exponent, sticky)
        } else {
            // what fell out makes the difference a little smaller: one unit less, and sticky
            let difference = a - b - u128::from(sticky);
            let negative = large.negative && difference != 0;
            round(negative, difference, exponent, sticky)
        }
    }

    /// Order of magnitude: compares without sign.
    fn order(self) -> (bool, i64, u64) {
        (self.mantissa != 0, self.exponent, self.mantissa)
    }

    /// Appends the number as `%.17Lf` prints it, without trailing zeros, without a bare point, and `0` for `-0`.
    pub fn write(self, out: &mut Vec<u8>) {
        let mut scaled = Big::default();
        if self.exponent >= 0 {
            scaled = Big::from(self.mantissa);
            scaled.shift_left(self.exponent as usize);
            (0..DECIMALS).for_each(|_| scaled.multiply_add(10, 0));
        } else if self.exponent > -128 {
            let shift = -self.exponent;
            let product = u128::from(self.mantissa) * 10u128.pow(DECIMALS);
            let (whole, cut, half) = (product >> shift, product & ((1u128 << shift) - 1), 1u128 << (shift - 1));
            let up = cut > half || (cut == half && whole & 1 == 1);
            let rounded = whole + u128::from(up);
            scaled = Big::from((rounded >> 64) as u64);
            scaled.shift_left(64);
            scaled.add(&Big::from(rounded as u64));
        }
        let mut digits = scaled.decimal();
        while digits.len() <= DECIMALS as usize {
            digits.insert(0, b'0');
        }
        let (whole, fraction) = digits.split_at(digits.len() - DECIMALS as usize);
        let fraction_length = fraction.iter().rposition(|digit| *digit != b'0').map_or(0, |last| last + 1);
        if self.negative && (whole != b"0" || fraction_length > 0) {
            out.push(b'-');
        }
        out.extend_from_slice(whole);
        if fraction_length > 0 {
            out.push(b'.');
            out.extend_from_slice(&fraction[..fraction_length]);
        }
    }
}

/// An unsigned integer of any size, little-endian in words of 32 bits.
///
/// Invariant: the highest word is not 0.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
struct Big(Vec<u32>);

impl From<u64> for Big {
    fn from(value: u64) -> Self {
        let mut big = Self(vec![value as u32, (value >> 32) as u32]);
        big.trim();
        big
    }
}

impl Big {
    fn trim(&mut self) {
        while self.0.last() == Some(&0) {
            self.0.pop();
        }
    }

    fn is_zero(&self) -> bool {
        self.0.is_empty()
    }

    fn bits(&self) -> usize {
        self.0.last().map_or(0, |highest| self.0.len() * 32 - highest.leading_zeros() as usize)
    }

    fn multiply_add(&mut self, factor: u32, addend: u32) {
        let mut carry = u64::from(addend);
        for word in &mut self.0 {
            let product = u64::from(*word) * u64::from(factor) + carry;
            *word = product as u32;
            carry = product >> 32;
        }
        if carry > 0 {
            self.0.push(carry as u32);
        }
    }

    fn add(&mut self, other: &Self) {
        let mut carry = 0;
        self.0.resize(self.0.len().max(other.0.len()) + 1, 0);
        for (index, word) in self.0.iter_mut().enumerate() {
            let sum = u64::from(*word) + u64::from(other.0.get(index).copied().unwrap_or(0)) + carry;
            *word = sum as u32;
            carry = sum >> 32;
        }
        self.trim();
    }

    fn shift_left(&mut self, bits: usize) {
        if self.is_zero() {
            return;
        }
        if !bits.is_multiple_of(32) {
            self.multiply_add(1 << (bits % 32), 0);
        }
        self.0.splice(0..0, core::iter::repeat_n(0, bits / 32));
    }

    /// The quotient, of which the caller knows that it has fewer than 127 bits, and whether nothing remains.
    fn divide_small_quotient(mut self, divisor: &Self) -> (u128, bool) {
        let mut quotient = 0u128;
        let steps = (self.bits() + 1).saturating_sub(divisor.bits());
        for step in (0..steps).rev() {
            let mut part = divisor.clone();
            part.shift_left(step);
            quotient <<= 1;
            if self.compare(&part) != Ordering::Less {
                self.subtract(&part);
                quotient |= 1;
            }
        }
        (quotient, self.is_zero())
    }

    fn compare(&self, other: &Self) -> Ordering {
        self.0.len().cmp(&other.0.len()).then_with(|| self.0.iter().rev().cmp(other.0.iter().rev()))
    }

    /// Takes away `other`, which is not larger.
    fn subtract(&mut self, other: &Self) {
        let mut borrow = 0i64;
        for (index, word) in self.0.iter_mut().enumerate() {
            let difference = i64::from(*word) - i64::from(other.0.get(index).copied().unwrap_or(0)) + borrow;
            *word = difference as u32;
            borrow = difference >> 32;
        }
        self.trim();
    }

    /// Decimal digits, highest first; `0` is one digit.
    fn decimal(mut self) -> Vec<u8> {
        const CHUNK: u64 = 1_000_000_000;
        let mut digits = Vec::new();
        while !self.is_zero() {
            let mut remainder = 0;
            for word in self.0.iter_mut().rev() {
                let value = remainder << 32 | u64::from(*word);
                *word = (value / CHUNK) as u32;
                remainder = value % CHUNK;
            }
            self.trim();
            for _ in 0..9 {
                digits.push(b'0' + (remainder % 10) as u8);
                remainder /= 10;
            }
        }
        while digits.last() == Some(&b'0') {
            digits.pop();
        }
        if digits.is_empty() {
            digits.push(b'0');
        }
        digits.reverse();
        digits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finite(text: &str) -> Extended {
        match parse(text.as_bytes()) {
            Some(Parsed::Finite(number)) => number,
            other => panic!("{text}: {other:?}"),
        }
    }

    fn sum(a: &str, b: &str) -> String {
        let mut out = Vec::new();
        finite(a).plus(finite(b)).unwrap().write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn sums_print_as_redis_prints_them() {
        // each line as redis-server 7.0.15 answered on x86-64
        for (a, b, expected) in [
            ("10.5", "0.1", "10.6"),
            ("100000.1", "0.2", "100000.30000000000000426"),
            ("5.0e3", "2.0e2", "5200"),
            ("1", "-1", "0"),
            ("-1", "0.5", "-0.5"),
            ("0", "-0", "0"),
            ("3", "1.1", "4.1"),
            ("1e20", "1", "100000000000000000000"),
            ("1", "1e-30", "1"),
        ] {
            assert_eq!(sum(a, b), expected, "{a} + {b}");
        }
    }

    #[test]
    fn halves_round_to_even_and_sticky_bits_decide_ties() {
        // 2^64 is a mantissa of 1 followed by zeros; its unit in the last place is 2
        assert_eq!(sum("18446744073709551616", "1"), "18446744073709551616");
        assert_eq!(sum("18446744073709551618", "1"), "18446744073709551620");
        assert_eq!(sum("18446744073709551616", "1.0001"), "18446744073709551618");
        assert_eq!(sum("18446744073709551616", "-0.5"), "18446744073709551616"); // unit 1 below 2^64: a tie, to even
        assert_eq!(sum("18446744073709551616", "-0.6"), "18446744073709551615");
    }

    #[test]
    fn what_is_no_number_or_out_of_range_is_refused() {
        for text in ["", "-", ".", "e5", "1e", "1e+", "nan", "1 ", " 1", "0x10", "1e5000", "1.1.1", "--1"] {
            assert_eq!(parse(text.as_bytes()), None, "{text:?}");
        }
        assert_eq!(parse(&[b'1'; TEXT_BYTES_MAX]), None);
        assert_eq!(parse(b"-INF"), Some(Parsed::Infinite));
        assert!(parse(b"1e4932").is_some());
        let largest = finite("1e4932");
        assert_eq!(largest.plus(largest), None, "the sum is out of range");
    }

    #[test]
    fn integers_of_64_bits_are_exact() {
        assert_eq!(sum("9223372036854775807", "0"), "9223372036854775807");
        assert_eq!(sum("18446744073709551615", "0"), "18446744073709551615");
    }

    proptest::proptest! {
        /// Sums of numbers with few digits are exact: compared with integer arithmetic in millionths.
        #[test]
        fn short_decimals_add_exactly(a in -4_000_000i64..4_000_000, b in -4_000_000i64..4_000_000) {
            let text = |value: i64| format!("{}{}.{:06}", if value < 0 { "-" } else { "" }, value.abs() / 1_000_000, value.abs() % 1_000_000);
            let expected = text(a + b);
            let expected = expected.trim_end_matches('0').trim_end_matches('.');
            let expected = if expected == "-0" { "0" } else { expected };
            proptest::prop_assert_eq!(sum(&text(a), &text(b)), expected);
        }

        /// No input panics, and what was printed adds to zero unchanged.
        #[test]
        fn printing_is_stable(text in "[-+]?[0-9]{0,25}\\.?[0-9]{0,25}(e[-+]?[0-9]{1,3})?") {
            if let Some(Parsed::Finite(number)) = parse(text.as_bytes()) {
                let mut first = Vec::new();
                number.write(&mut first);
                let again = std::str::from_utf8(&first).unwrap();
                let mut second = Vec::new();
                finite(again).write(&mut second);
                proptest::prop_assert_eq!(first, second);
            }
        }
    }
}
