//! Lines that were rejected, by us, by the store or by a server: all are counted, and the first are named.

use crate::output::remark;
use crate::text;
use graylogic_line::Precision;
use graylogic_store::{RejectKind, WriteReport};
use serde_json::{Value, json};

/// This many rejected lines are named; the others are counted.
pub(super) const NAMED_MAX: usize = 100;
/// This much of a line is shown.
const SHOWN_CHARS: usize = 512;
/// Times before 2000 and after 2100 are unlikely to be meant.
const LIKELY_SECONDS: std::ops::Range<i64> = 946_684_800..4_102_444_800;

/// Rejected lines: how many, and the first of them.
#[derive(Default)]
pub(super) struct Rejections {
    pub(super) count: u64,
    pub(super) named: Vec<Value>,
    json: bool,
}

impl Rejections {
    pub(super) fn new(json: bool) -> Self {
        Self { json, ..Self::default() }
    }

    /// Counts a line and names it, unless enough are named: where it is, and a sentence about it.
    pub(super) fn add(&mut self, line: Option<usize>, line_text: &str, reason: &str, says: &str) {
        self.count += 1;
        if self.named.len() >= NAMED_MAX {
            return;
        }
        if !self.json {
            let place = line.map_or_else(|| "the server".to_owned(), |n| format!("line {n}"));
            remark(format_args!("{place}: {}", text::plain(says)));
        }
        self.named.push(json!({ "line": line, "reason": reason, "text": line_text }));
    }

    /// Counts lines of which nothing more is known.
    pub(super) fn add_unnamed(&mut self, lines: u64) {
        self.count += lines;
    }

    /// Counts the lines that the store rejected; `line_of` says which line of the input each of them is.
    pub(super) fn add_stored(
        &mut self,
        report: &WriteReport,
        units: &Units,
        line_of: impl Fn(usize) -> usize,
    ) {
        for rejected in &report.rejected {
            let (text, line) = (&rejected.text, line_of(rejected.line));
            let reason = units.explain(text.as_bytes(), &rejected.reason);
            let doing = if rejected.kind == RejectKind::Unparsable { "unable to parse " } else { "" };
            self.add(Some(line), text, &reason, &format!("{doing}'{text}': {reason}"));
        }
        self.add_unnamed(report.rejected_count - report.rejected.len() as u64);
    }

    /// Reports how many more there are than were listed.
    pub(super) fn finish(&self) {
        let more = self.count.saturating_sub(self.named.len() as u64);
        if more > 0 && !self.json {
            remark(format_args!("... and {} more", text::count(more)));
        }
    }
}

/// The beginning of a line, as a text.
pub(super) fn shown(line: &[u8]) -> String {
    let cut = String::from_utf8_lossy(&line[..line.len().min(4 * SHOWN_CHARS)]);
    let mut shown: String = cut.chars().take(SHOWN_CHARS).collect();
    if shown.len() < line.len() {
        shown.push('…');
    }
    shown
}

/// The unit in which the time of a line was probably meant, when it is not the one that was given.
pub(super) fn likely_unit(line: &[u8], given: Precision) -> Option<&'static str> {
    let last = line.rsplit(u8::is_ascii_whitespace).next()?;
    let number: i64 = std::str::from_utf8(last).ok()?.parse().ok()?;
    let is_likely = |unit: Precision| LIKELY_SECONDS.contains(&(number / (1_000_000_000 / unit.nanos())));
    if is_likely(given) {
        return None;
    }
    let units = [
        (Precision::Seconds, "s"),
        (Precision::Milliseconds, "ms"),
        (Precision::Microseconds, "us"),
        (Precision::Nanoseconds, "ns"),
    ];
    units.into_iter().find(|(unit, _)| is_likely(*unit)).map(|(_, name)| name)
}

/// The last line of a batch.
pub(super) fn last_line(batch: &[u8]) -> &[u8] {
    batch.trim_ascii_end().rsplit(|b| *b == b'\n').next().unwrap_or_default()
}

/// Counts a line that is too long to be read.
pub(super) fn skipped(rejections: &mut Rejections, line: usize, beginning: &[u8], bytes: u64) {
    let (text, reason) = (shown(beginning), format!("the line has {bytes} bytes; at most 8 MiB are read"));
    let says = format!("'{text}...': {reason}");
    rejections.add(Some(line), &text, &reason, &says);
}

/// Reports once that times are probably in another unit than `--precision`.
pub(super) struct Units {
    given: Precision,
    is_said: bool,
}

impl Units {
    pub(super) fn new(given: Precision) -> Self {
        Self { given, is_said: false }
    }

    /// Looks at a line that is taken.
    pub(super) fn look(&mut self, line: &[u8]) {
        if self.is_said {
            return;
        }
        if let Some(unit) = likely_unit(line, self.given) {
            self.is_said = true;
            remark(format_args!(
                "the time of '{}' looks like --precision {unit}, and is read as --precision {}",
                text::plain(&shown(line)),
                name_of(self.given)
            ));
        }
    }

    /// The reason for which a line was rejected, with `--precision` if that is the likely cause.
    pub(super) fn explain(&self, line: &[u8], reason: &str) -> String {
        let is_about_time = ["time", "out of range", "Retention"].iter().any(|word| reason.contains(word));
        match likely_unit(line, self.given).filter(|_| is_about_time) {
            Some(unit) => format!("{reason}; its time looks like --precision {unit}"),
            None => reason.to_owned(),
        }
    }
}

fn name_of(unit: Precision) -> &'static str {
    match unit {
        Precision::Microseconds => "us",
        Precision::Milliseconds => "ms",
        Precision::Seconds => "s",
        _ => "ns",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unit_that_was_meant_is_found() {
        for (line, given, expected) in [
            ("m f=1 1700000000", Precision::Nanoseconds, Some("s")),
            ("m f=1 1700000000000", Precision::Nanoseconds, Some("ms")),
            ("m f=1 1700000000000000", Precision::Seconds, Some("us")),
            ("m f=1 1700000000000000000", Precision::Seconds, Some("ns")),
            ("m f=1 1700000000000000000", Precision::Nanoseconds, None),
            ("m f=1 1700000000", Precision::Seconds, None),
            ("m f=1 5", Precision::Nanoseconds, None),
            ("m f=1", Precision::Nanoseconds, None),
            ("m f=1 99999999999999999999", Precision::Nanoseconds, None),
            ("", Precision::Nanoseconds, None),
        ] {
            assert_eq!(likely_unit(line.as_bytes(), given), expected, "{line}");
        }
    }

    #[test]
    fn long_lines_are_shown_in_part() {
        assert_eq!(shown(b"m f=1"), "m f=1");
        assert_eq!(shown("ü".repeat(1 << 20).as_bytes()).chars().count(), SHOWN_CHARS + 1);
    }
}
