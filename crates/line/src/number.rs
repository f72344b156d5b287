//! Numbers as text and back: the fewest digits that give back every bit of a float, and the reverse.

/// Powers of ten that an `f64` holds exactly.
const POWERS: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18,
    1e19, 1e20, 1e21, 1e22,
];

/// Appends a finite float: shortest digits, one on both sides of the point or an exponent without `+`.
#[inline]
pub(crate) fn put_float(out: &mut Vec<u8>, v: f64) {
    debug_assert!(v.is_finite(), "what is not finite was refused before");
    // Most readings have few decimals: an integer over a power of ten that gives back every bit has the fewest digits,
    // because below 10^15 no two decimals of that length share a float.
    let magnitude = v.abs();
    if magnitude < 1e11 && (magnitude >= 1e-3 || v.to_bits() == 0) {
        for (digits, &power) in POWERS.iter().enumerate().take(4) {
            let scaled = (magnitude * power).round_ties_even();
            if scaled / power == magnitude {
                put_scaled(out, v.is_sign_negative(), scaled as u64, digits);
                return;
            }
        }
    }
    put_any_float(out, v);
}

fn put_scaled(out: &mut Vec<u8>, negative: bool, scaled: u64, digits: usize) {
    let mut buffer = itoa::Buffer::new();
    let text = buffer.format(scaled).as_bytes();
    let mut bytes = [b'0'; 24];
    let mut n = 0;
    if negative {
        bytes[0] = b'-';
        n = 1;
    }
    let whole = text.len().saturating_sub(digits);
    if whole == 0 {
        n += 1;
    } else {
        bytes[n..n + whole].copy_from_slice(&text[..whole]);
        n += whole;
    }
    bytes[n] = b'.';
    n += 1;
    let zeros = digits.saturating_sub(text.len());
    n += zeros;
    let rest = &text[whole..];
    bytes[n..n + rest.len()].copy_from_slice(rest);
    n += rest.len();
    // Without decimals the zero behind the point is there already.
    n += usize::from(digits == 0);
    out.extend_from_slice(&bytes[..n]);
}

#[cold]
fn put_any_float(out: &mut Vec<u8>, v: f64) {
    let mut buffer = zmij::Buffer::new();
    let text = buffer.format_finite(v).as_bytes();
    let (mantissa, exponent) = match text.iter().position(|b| matches!(b, b'e' | b'E')) {
        Some(at) => (&text[..at], Some(&text[at + 1..])),
        None => (text, None),
    };
    match exponent {
        Some(exponent) => {
            // `1e300` is written without a point, which every parser takes.
            out.extend_from_slice(mantissa.strip_suffix(b".0").unwrap_or(mantissa));
            out.push(b'e');
            out.extend_from_slice(exponent.strip_prefix(b"+").unwrap_or(exponent));
        }
        None => {
            out.extend_from_slice(mantissa);
            if !mantissa.contains(&b'.') {
                out.extend_from_slice(b".0");
            }
        }
    }
}

/// The float that a number of line protocol means; `None` for what Rust's parser refuses or is out of range.
/// The text is made of digits, at most one point, exponent letters and signs.
#[inline]
pub(crate) fn float(text: &[u8]) -> Option<f64> {
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        _ => (false, text),
    };
    if digits.len() <= 19 {
        let (mut mantissa, mut point, mut seen) = (0u64, usize::MAX, 0usize);
        let mut plain = true;
        for (i, &b) in digits.iter().enumerate() {
            let digit = b.wrapping_sub(b'0');
            if digit < 10 {
                mantissa = mantissa.wrapping_mul(10).wrapping_add(u64::from(digit));
                seen += 1;
            } else if b == b'.' && point == usize::MAX {
                point = i;
            } else {
                plain = false;
                break;
            }
        }
        // A mantissa below 2^53 over an exact power of ten is rounded once, which is right.
        if plain && seen > 0 && mantissa < 1 << 53 {
            let decimals = if point == usize::MAX { 0 } else { digits.len() - 1 - point };
            let v = mantissa as f64 / POWERS[decimals];
            return Some(if negative { -v } else { v });
        }
    }
    let v: f64 = std::str::from_utf8(text).ok()?.parse().ok()?;
    v.is_finite().then_some(v)
}

/// The integer that decimal digits with an optional `-` mean; `None` when it is out of range.
#[inline]
pub(crate) fn integer(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        _ => (false, text),
    };
    if digits.len() <= 18 {
        let v = digits.iter().fold(0i64, |v, &b| v * 10 + i64::from(b - b'0'));
        return Some(if negative { -v } else { v });
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(v: f64) -> String {
        let mut out = Vec::new();
        put_float(&mut out, v);
        String::from_utf8(out).unwrap()
    }

    /// The digits that matter, without sign, point, exponent and zeros at the ends.
    fn significant(text: &str) -> String {
        let mantissa = text.split('e').next().unwrap_or_default();
        let digits: String = mantissa.chars().filter(char::is_ascii_digit).collect();
        digits.trim_matches('0').to_owned()
    }

    #[test]
    fn floats_have_the_fewest_digits_and_come_back() {
        let cases = [
            (0.0, "0.0"),
            (-0.0, "-0.0"),
            (450.0, "450.0"),
            (0.1, "0.1"),
            (-0.005, "-0.005"),
            (12.34, "12.34"),
            (0.001, "0.001"),
            (123_456_789.0, "123456789.0"),
            (1e300, "1e300"),
            (5e-324, "5e-324"),
            (f64::MAX, "1.7976931348623157e308"),
            (1.0 / 3.0, "0.3333333333333333"),
            (99_999_999_999.999, "99999999999.999"),
        ];
        for (v, expected) in cases {
            assert_eq!(text(v), expected);
        }
        let mut bits = 1u64;
        for i in 0..200_000u64 {
            bits = bits.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            for v in [
                f64::from_bits(bits),
                (bits >> 40) as f64 / 1000.0,
                i as f64 / 100.0,
                f64::from(bits as i32) / 10.0,
            ] {
                if v.is_finite() {
                    let t = text(v);
                    assert_eq!(t.parse::<f64>().unwrap().to_bits(), v.to_bits(), "{t}");
                    assert_eq!(float(t.as_bytes()).unwrap().to_bits(), v.to_bits(), "{t}");
                    // Where two texts of one length come back, either will do.
                    assert_eq!(significant(&t).len(), significant(&format!("{v:e}")).len(), "{t}");
                }
            }
        }
    }

    #[test]
    fn numbers_are_read_or_refused() {
        let cases = [
            ("1", 1.0),
            (".5", 0.5),
            ("5.", 5.0),
            ("-.25", -0.25),
            ("1e3", 1000.0),
            ("1E-3", 0.001),
            ("007", 7.0),
        ];
        for (t, v) in cases {
            assert_eq!(float(t.as_bytes()), Some(v), "{t}");
        }
        for t in ["", ".", "-", "1e", "1e400", "1.2.3", "e5", "1e5e5"] {
            assert_eq!(float(t.as_bytes()), None, "{t}");
        }
        assert_eq!(integer(b"-9223372036854775808"), Some(i64::MIN));
        assert_eq!(integer(b"9223372036854775808"), None);
        assert_eq!(integer(b"000000000000000000000000007"), Some(7));
    }
}
