//! Numbers, times and tables for people.

use crate::failure::Failure;
use graylogic_line::Timestamp;
use graylogic_store::Value;
use jiff::tz::TimeZone;
use std::borrow::Cow;
use std::fmt::Write as _;
use std::time::Duration;

/// 1234567 as `1,234,567`.
pub(crate) fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// So many lines, as in `1 line` and `2,000 lines`.
pub(crate) fn lines(n: u64) -> String {
    if n == 1 { "1 line".to_owned() } else { format!("{} lines", count(n)) }
}

/// Bytes with a unit.
pub(crate) fn bytes(n: u64) -> String {
    match n {
        0..10_000 => format!("{} B", count(n)),
        10_000..10_000_000 => format!("{:.1} kB", n as f64 / 1e3),
        10_000_000..10_000_000_000 => format!("{:.1} MB", n as f64 / 1e6),
        _ => format!("{:.1} GB", n as f64 / 1e9),
    }
}

/// Lines that went into quarantine, as a part of a sentence; empty for none.
pub(crate) fn quarantined(lines: u64) -> String {
    match lines {
        0 => String::new(),
        n => format!(", {} quarantined", count(n)),
    }
}

/// Lines that later lines with the same series and timestamp replaced, as a part of a sentence; empty for none.
pub(crate) fn overwritten(lines: u64) -> String {
    match lines {
        0 => String::new(),
        n => format!(", {} overwritten by later lines with the same series and timestamp", count(n)),
    }
}

/// A value as it is stored, numbers with up to six digits behind the point.
pub(crate) fn value(v: &Value) -> String {
    match v {
        Value::Float(v) => number(*v),
        Value::Integer(v) => v.to_string(),
        Value::Unsigned(v) => v.to_string(),
        Value::Boolean(v) => v.to_string(),
        Value::String(v) => v.to_string(),
        _ => String::new(),
    }
}

/// A float with up to six digits behind the point.
pub(crate) fn number(v: f64) -> String {
    if v != 0.0 && (v.abs() < 1e-4 || v.abs() >= 1e15) {
        return format!("{v:e}");
    }
    let text = format!("{v:.6}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0".to_owned() } else { text.to_owned() }
}

/// A time in the system's zone, with the zone.
pub(crate) fn local(time: Timestamp) -> String {
    in_zone(time, &TimeZone::system())
}

/// A time in a zone, with the zone.
pub(crate) fn in_zone(time: Timestamp, zone: &TimeZone) -> String {
    match jiff::Timestamp::from_nanosecond(i128::from(time.as_nanos())) {
        Ok(t) => t.to_zoned_datetime(zone.clone()).strftime("%Y-%m-%d %H:%M:%S %Z").to_string(),
        Err(_) => time.to_string(),
    }
}

/// Whether a character controls a terminal, or the order in which one shows the characters around it.
fn is_control(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A text with what would control a terminal shown as `\u{1b}`, but for line feeds: it comes from anybody's data.
pub(crate) fn printable(text: &str) -> Cow<'_, str> {
    shown(text, |c| c != '\n' && is_control(c), |c| c.escape_default().to_string())
}

/// A text that stays on its line and in its column, with every control character shown.
pub(crate) fn plain(text: &str) -> Cow<'_, str> {
    shown(text, is_control, |c| c.escape_default().to_string())
}

/// JSON in which what would control a terminal is escaped. Outside of strings there is nothing of the kind.
pub(crate) fn printable_json(json: &str) -> Cow<'_, str> {
    // None of them is above U+FFFF.
    shown(json, |c| c != '\n' && is_control(c), |c| format!("\\u{:04x}", u32::from(c)))
}

fn shown(text: &str, hide: impl Fn(char) -> bool, show: impl Fn(char) -> String) -> Cow<'_, str> {
    let Some(first) = text.find(&hide) else { return Cow::Borrowed(text) };
    let mut out = String::with_capacity(text.len() + 16);
    out.push_str(&text[..first]);
    for c in text[first..].chars() {
        if hide(c) { out.push_str(&show(c)) } else { out.push(c) }
    }
    Cow::Owned(out)
}

/// Rows below each other, columns aligned: numbers to the right, texts to the left.
pub(crate) fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let rows: Vec<Vec<Cow<'_, str>>> =
        rows.iter().map(|row| row.iter().map(|cell| plain(cell)).collect()).collect();
    let width = |i: usize| {
        rows.iter().map(|r| r[i].chars().count()).chain([head[i].chars().count()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let numeric: Vec<bool> = (0..head.len())
        .map(|i| {
            !rows.is_empty()
                && rows.iter().all(|r| r[i].is_empty() || r[i].replace(',', "").parse::<f64>().is_ok())
        })
        .collect();
    let mut out = String::new();
    let mut line = |cells: &mut dyn Iterator<Item = &str>| {
        let mut text = String::new();
        for (i, cell) in cells.enumerate() {
            let pad = " ".repeat(widths[i] - cell.chars().count());
            // Writing to a string does not fail.
            let _infallible =
                if numeric[i] { write!(text, "{pad}{cell}  ") } else { write!(text, "{cell}{pad}  ") };
        }
        out.push_str(text.trim_end());
        out.push('\n');
    };
    line(&mut head.iter().copied());
    for row in rows {
        line(&mut row.iter().map(AsRef::as_ref));
    }
    out
}

/// A length of time: `30s`, `15m`, `1h30m`, `7d`.
pub(crate) fn duration(text: &str) -> Result<Duration, Failure> {
    let wrong = || Failure::new(format!("{text:?} is no length of time; write it as 30s, 15m, 1h or 7d"));
    let mut total = 0u64;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let number: u64 = rest[..digits].parse().map_err(|_| wrong())?;
        rest = &rest[digits..];
        let letters = rest.len() - rest.trim_start_matches(|c: char| c.is_alphabetic()).len();
        let unit: u64 = match &rest[..letters] {
            "ns" => 1,
            "us" | "µs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            "d" => 86_400_000_000_000,
            "w" => 604_800_000_000_000,
            _ => return Err(wrong()),
        };
        rest = &rest[letters..];
        total = number.checked_mul(unit).and_then(|n| total.checked_add(n)).ok_or_else(wrong)?;
    }
    if total == 0 { Err(wrong()) } else { Ok(Duration::from_nanos(total)) }
}

/// An instant: RFC 3339, a local date or time, `now`, or back from now as `-1h`.
pub(crate) fn instant(text: &str, now: Timestamp) -> Result<Timestamp, Failure> {
    if text == "now" {
        return Ok(now);
    }
    if let Some(back) = text.strip_prefix('-') {
        let nanos = i64::try_from(duration(back)?.as_nanos()).unwrap_or(i64::MAX);
        return Ok(Timestamp::from_nanos(now.as_nanos().saturating_sub(nanos)).max(Timestamp::MIN));
    }
    let wrong = || {
        Failure::new(format!(
            "{text:?} is no time; write it as 2026-01-12T10:30:00Z, 2026-01-12, 2026-01-12T10:30, now or -1h"
        ))
    };
    let absolute = text.parse::<jiff::Timestamp>().ok();
    let local = || {
        let civil = text.parse::<jiff::civil::DateTime>().ok()?;
        Some(civil.to_zoned_datetime(TimeZone::system()).ok()?.timestamp())
    };
    let time = absolute.or_else(local).ok_or_else(wrong)?;
    Ok(Timestamp::from_nanos(i64::try_from(time.as_nanosecond()).map_err(|_| wrong())?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_and_instants_are_read_or_refused() {
        let cases = [("30s", 30), ("15m", 900), ("1h30m", 5400), ("7d", 604_800)];
        for (text, seconds) in cases {
            assert_eq!(duration(text).unwrap(), Duration::from_secs(seconds), "{text}");
        }
        for text in ["", "5", "h", "1x", "-1h", "0s", "99999999999999999999h", "1h 2m"] {
            assert!(duration(text).is_err(), "{text}");
        }
        let now = Timestamp::from_nanos(7_200_000_000_000);
        assert_eq!(instant("-1h", now).unwrap().as_nanos(), 3_600_000_000_000);
        assert_eq!(instant("now", now).unwrap(), now);
        assert_eq!(instant("1970-01-01T00:00:05.5Z", now).unwrap().as_nanos(), 5_500_000_000);
        assert!(instant("yesterday", now).is_err());
    }

    #[test]
    fn nothing_in_a_text_controls_a_terminal() {
        let text = "a\u{1b}[2Jb\r\u{7}\u{9b}31m\u{202e}c\nd\te\u{2066}\u{61c}\u{7f}ü€";
        assert_eq!(
            printable(text),
            "a\\u{1b}[2Jb\\r\\u{7}\\u{9b}31m\\u{202e}c\nd\\te\\u{2066}\\u{61c}\\u{7f}ü€"
        );
        assert_eq!(plain("a\nb\tc"), "a\\nb\\tc");
        let json = serde_json::to_string_pretty(&[text]).unwrap();
        let escaped = printable_json(&json);
        assert!(escaped.chars().all(|c| c == '\n' || !is_control(c)), "{escaped}");
        assert_eq!(serde_json::from_str::<Vec<String>>(&escaped).unwrap(), [text]);
        let cells = table(&["name", "value"], &[vec!["a\nb\u{1b}c".into(), "1".into()]]);
        assert_eq!(cells.lines().count(), 2);
        assert!(cells.contains("a\\nb\\u{1b}c"), "{cells}");
    }

    #[test]
    fn numbers_are_short() {
        let cases = [(0.0, "0"), (-0.0, "0"), (450.0, "450"), (37.330_933_333, "37.330933"), (1e-9, "1e-9")];
        for (v, text) in cases {
            assert_eq!(number(v), text);
        }
        assert_eq!((count(0), count(1_234_567)), ("0".into(), "1,234,567".into()));
    }
}
