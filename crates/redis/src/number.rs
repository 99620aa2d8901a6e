//! Numbers as Redis reads and prints them: integers without leading zeros or plus signs, doubles by the rules of
//! `strtod`, printed with seventeen significant digits (`%.17g`).
//!
//! Invariant: what is printed reads back as the same number, and every replica prints the same text: nothing here
//! depends on a C library or a locale.

/// The integer that `text` is in Redis's strict sense (`string2ll`): an optional minus, no plus, no leading zeros,
/// no blanks, within 64 bits.
#[must_use]
pub fn parse_integer(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        _ => (false, text),
    };
    match digits {
        [b'0'] if !negative => return Some(0),
        [b'1'..=b'9', ..] if digits.len() <= 19 => {}
        _ => return None,
    }
    let mut magnitude = 0u64;
    for digit in digits {
        if !digit.is_ascii_digit() {
            return None;
        }
        magnitude = magnitude.checked_mul(10)?.checked_add(u64::from(digit - b'0'))?;
    }
    if negative { 0i64.checked_sub_unsigned(magnitude) } else { i64::try_from(magnitude).ok() }
}

/// Appends the decimal digits of `number`, without allocating.
pub fn write_integer(out: &mut Vec<u8>, number: i64) {
    let mut digits = [0u8; 20];
    let mut start = digits.len();
    let mut rest = number.unsigned_abs();
    loop {
        start -= 1;
        digits[start] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if number < 0 {
        out.push(b'-');
    }
    out.extend_from_slice(&digits[start..]);
}

/// The double that `text` is: decimal digits with an optional point and exponent, or `inf` / `infinity` in any case,
/// with an optional sign. Not a number, blanks, and what is too large or too small for a double are refused, as Redis
/// refuses them. (C's hexadecimal floats are not read: docs/guide/redis.md.)
#[must_use]
pub fn parse_double(text: &[u8]) -> Option<f64> {
    let text = core::str::from_utf8(text).ok()?;
    let value: f64 = text.parse().ok()?;
    let named_infinity = || text.trim_start_matches(['+', '-']).starts_with(['i', 'I']);
    let all_digits_zero =
        || text.bytes().take_while(|byte| !matches!(byte, b'e' | b'E')).all(|byte| !matches!(byte, b'1'..=b'9'));
    let out_of_range = (value.is_infinite() && !named_infinity()) || (value == 0.0 && !all_digits_zero());
    (!value.is_nan() && !out_of_range).then_some(value)
}

/// Appends `value` as C's `%.17g` prints it; infinities as `inf` and `-inf`.
pub fn write_double(out: &mut Vec<u8>, value: f64) {
    if value.is_infinite() {
        out.extend_from_slice(if value > 0.0 { b"inf" } else { b"-inf" });
        return;
    }
    if value.is_sign_negative() {
        out.push(b'-');
    }
    // sixteen digits behind the point of scientific notation: seventeen significant ones, correctly rounded
    let scientific = format!("{:.16e}", value.abs());
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let digits: Vec<u8> = mantissa.bytes().filter(u8::is_ascii_digit).collect();
    let significant = digits.iter().rposition(|digit| *digit != b'0').map_or(1, |last| last + 1);
    let digits = &digits[..significant];
    match exponent {
        -4..0 => {
            out.extend_from_slice(b"0.");
            out.extend(core::iter::repeat_n(b'0', (-exponent - 1) as usize));
            out.extend_from_slice(digits);
        }
        0..17 => {
            let whole = exponent as usize + 1;
            out.extend_from_slice(&digits[..whole.min(significant)]);
            if significant > whole {
                out.push(b'.');
                out.extend_from_slice(&digits[whole..]);
            } else {
                out.extend(core::iter::repeat_n(b'0', whole - significant));
            }
        }
        _ => {
            out.push(digits[0]);
            if significant > 1 {
                out.push(b'.');
                out.extend_from_slice(&digits[1..]);
            }
            out.extend_from_slice(if exponent < 0 { b"e-" } else { b"e+" });
            if exponent.abs() < 10 {
                out.push(b'0');
            }
            write_integer(out, i64::from(exponent.abs()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(value: f64) -> String {
        let mut out = Vec::new();
        write_double(&mut out, value);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn integers_are_read_strictly() {
        for (text, expected) in [
            ("0", Some(0)),
            ("-1", Some(-1)),
            ("9223372036854775807", Some(i64::MAX)),
            ("-9223372036854775808", Some(i64::MIN)),
            ("9223372036854775808", None),
            ("-9223372036854775809", None),
            ("99999999999999999999", None),
            ("+1", None),
            ("01", None),
            ("-0", None),
            ("", None),
            ("-", None),
            (" 1", None),
            ("1 ", None),
            ("1.0", None),
        ] {
            assert_eq!(parse_integer(text.as_bytes()), expected, "{text:?}");
        }
    }

    #[test]
    fn written_integers_read_back() {
        for number in [0, 1, -1, 10, 99, i64::MAX, i64::MIN] {
            let mut out = Vec::new();
            write_integer(&mut out, number);
            assert_eq!(parse_integer(&out), Some(number));
            assert_eq!(out, number.to_string().into_bytes());
        }
    }

    #[test]
    fn doubles_print_as_redis_seven_prints_them() {
        for (value, expected) in [
            (0.1, "0.10000000000000001"),
            (0.0, "0"),
            (-0.0, "-0"),
            (1.0, "1"),
            (-2.5, "-2.5"),
            (100.0, "100"),
            (3.3, "3.2999999999999998"),
            (1e16, "10000000000000000"),
            (1e17, "1e+17"),
            (1.5e300, "1.5000000000000001e+300"),
            (1e-4, "0.0001"),
            (1e-5, "1.0000000000000001e-05"),
            (123456789.125, "123456789.125"),
            (f64::INFINITY, "inf"),
            (f64::NEG_INFINITY, "-inf"),
            (5e-324, "4.9406564584124654e-324"),
        ] {
            assert_eq!(printed(value), expected);
        }
    }

    #[test]
    fn doubles_are_read_as_strtod_reads_them() {
        for (text, expected) in [
            ("1", Some(1.0)),
            ("+1.5", Some(1.5)),
            (".5", Some(0.5)),
            ("5.", Some(5.0)),
            ("1e3", Some(1000.0)),
            ("inf", Some(f64::INFINITY)),
            ("-Infinity", Some(f64::NEG_INFINITY)),
            ("0e99999", Some(0.0)),
            ("1e999", None),
            ("1e-999", None),
            ("nan", None),
            (" 1", None),
            ("1 ", None),
            ("", None),
            ("1x", None),
            ("1e", None),
        ] {
            assert_eq!(parse_double(text.as_bytes()), expected, "{text:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn what_is_printed_reads_back(bits: u64) {
            let value = f64::from_bits(bits);
            if !value.is_nan() {
                proptest::prop_assert_eq!(parse_double(printed(value).as_bytes()).map(f64::to_bits), Some(bits));
            }
        }
    }
}
