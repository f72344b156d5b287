//! What a VictoriaMetrics shows of itself on its page `/metrics`: which run of the program it is, what it takes, and what it
//! ignored without an error. Pure: the caller sends the request.
//!
//! Sources: the programs 1.79 and, for names that it does not have, those of 1.150.

use crate::server::exchange::Answer;
use std::collections::BTreeMap;
use std::time::Duration;

/// What is called a month there.
const MONTH: Duration = Duration::from_secs(31 * 86_400);
/// Without a setting of its own it takes times this far ahead.
const AHEAD: Duration = Duration::from_secs(2 * 86_400);
/// Without a setting of its own it takes names of labels of this length.
const LABEL_NAME_BYTES: usize = 256;

/// What the page shows.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Vitals {
    /// When the program was started, in seconds since 1970.
    pub(crate) started: u64,
    /// Of the inserting part of a cluster: how often a connection to a storing part broke.
    pub(crate) breaks: u64,
    /// Rows that it was sent in line protocol since it was started.
    pub(crate) rows: u64,
    /// Rows that it ignored, by the reason it gives.
    pub(crate) ignored: BTreeMap<String, u64>,
    pub(crate) limits: Limits,
    /// The settings it was started with, defaults included.
    pub(super) flags: BTreeMap<String, String>,
}

/// What it takes. What it does not show is `None`.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Limits {
    /// How long readings are kept, and how that is written in its settings.
    pub(crate) keeps: Option<(Duration, String)>,
    /// How far ahead of its clock a reading may be.
    pub(crate) ahead: Option<Duration>,
    /// Labels of a series, its name not among them.
    pub(crate) labels_max: Option<usize>,
    pub(crate) label_value_bytes_max: Option<usize>,
    pub(crate) label_name_bytes_max: Option<usize>,
    /// How many seconds its clock is ahead of this one.
    pub(crate) clock_ahead: i64,
}

impl Vitals {
    /// Reads the page; `None` when it is none of a VictoriaMetrics.
    pub(crate) fn read(answer: &Answer) -> Option<Self> {
        if answer.status != 200 {
            return None;
        }
        let text = String::from_utf8_lossy(&answer.body);
        let mut vitals = Self::default();
        let mut knows_it = false;
        for line in text.lines() {
            let Some((name, labels, value)) = sample(line) else { continue };
            knows_it |= name.starts_with("vm_") || name.starts_with("vmagent_");
            let label = |key: &str| label(labels, key);
            let count = value.max(0.0) as u64;
            match name {
                // Both are the same; older versions have the first only.
                "process_start_time_seconds" | "vm_app_start_timestamp" => vitals.started = count,
                "vm_rpc_connection_errors_total" => vitals.breaks += count,
                "vm_rows_inserted_total" if label("type").as_deref() == Some("influx") => {
                    vitals.rows += count;
                }
                "vm_rows_ignored_total" => {
                    *vitals.ignored.entry(label("reason").unwrap_or_default()).or_default() += count;
                }
                // Before 1.110 labels are cut or left out, and the series is another one.
                "vm_metrics_with_dropped_labels_total" => vitals.cut("too_many_labels", count),
                "vm_too_long_label_names_total" => vitals.cut("too_long_label_name", count),
                "vm_too_long_label_values_total" => vitals.cut("too_long_label_value", count),
                "flag" => {
                    if let (Some(name), Some(value)) = (label("name"), label("value")) {
                        vitals.flags.insert(name, value);
                    }
                }
                _ => {}
            }
        }
        vitals.limits = vitals.limits();
        (knows_it && vitals.started > 0).then_some(vitals)
    }

    fn cut(&mut self, reason: &str, count: u64) {
        *self.ignored.entry(reason.to_owned()).or_default() += count;
    }

    /// A setting it was started with.
    pub(crate) fn flag(&self, name: &str) -> Option<&str> {
        self.flags.get(name).map(String::as_str)
    }

    fn limits(&self) -> Limits {
        let number = |name| self.flag(name).and_then(|v| v.parse::<usize>().ok()).filter(|n| *n > 0);
        // A part of a cluster that only inserts does not know how long readings are kept.
        let keeps = self.flag("retentionPeriod").and_then(|text| Some((period(text)?, as_written(text))));
        let stores = keeps.is_some();
        // Without the storing part in it, the name is one of the labels.
        let labels_max = number("maxLabelsPerTimeseries").map(|n| if stores { n } else { n - 1 });
        Limits {
            keeps,
            ahead: stores.then(|| self.flag("futureRetention").and_then(period).unwrap_or(AHEAD)),
            labels_max,
            label_value_bytes_max: number("maxLabelValueLen"),
            label_name_bytes_max: labels_max.map(|_| number("maxLabelNameLen").unwrap_or(LABEL_NAME_BYTES)),
            clock_ahead: 0,
        }
    }

    /// Whether it removes readings that were sent again; `None` when it does not show it.
    pub(crate) fn deduplicates(&self) -> Option<bool> {
        let interval = self.flag("dedup.minScrapeInterval")?;
        Some(period(interval).is_some_and(|interval| !interval.is_zero()))
    }

    /// How long readings may be in its memory only; `None` when it has no such setting.
    pub(crate) fn flushes_each(&self) -> Option<Duration> {
        self.flag("inmemoryDataFlushInterval").and_then(period)
    }
}

/// A line of the page: name, labels, value.
fn sample(line: &str) -> Option<(&str, &str, f64)> {
    if line.starts_with('#') {
        return None;
    }
    let end = line.find(['{', ' '])?;
    let (name, rest) = line.split_at(end);
    let (labels, value) = match rest.strip_prefix('{') {
        Some(rest) => rest.rsplit_once('}')?,
        None => ("", rest),
    };
    let value = value.split_whitespace().next()?.parse().ok()?;
    Some((name, labels, value))
}

/// The value of a label in `a="b", c="d"`.
fn label(labels: &str, key: &str) -> Option<String> {
    let mut rest = labels;
    while let Some((name, after)) = rest.split_once("=\"") {
        let mut value = String::new();
        let mut chars = after.char_indices();
        let mut end = after.len();
        while let Some((at, c)) = chars.next() {
            match c {
                '"' => {
                    end = at + 1;
                    break;
                }
                '\\' => match chars.next() {
                    Some((_, 'n')) => value.push('\n'),
                    Some((_, c)) => value.push(c),
                    None => {}
                },
                c => value.push(c),
            }
        }
        if name.trim_start_matches([',', ' ']) == key {
            return Some(value);
        }
        rest = &after[end..];
    }
    None
}

/// A time as a setting of VictoriaMetrics has it: `30d`, `1y`, `1h30m`; a number alone is months.
fn period(text: &str) -> Option<Duration> {
    let seconds =
        |number: f64, unit: f64| Duration::try_from_secs_f64(number * unit).ok().filter(|_| number >= 0.0);
    if let Ok(months) = text.parse::<f64>() {
        return seconds(months, MONTH.as_secs_f64());
    }
    let mut rest = text;
    let mut sum = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(digits);
        let unit = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at(unit);
        let unit = match unit {
            "ms" => 0.001,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3_600.0,
            "d" => 86_400.0,
            "w" => 7.0 * 86_400.0,
            "M" => MONTH.as_secs_f64(),
            "y" => 365.0 * 86_400.0,
            _ => return None,
        };
        sum = sum.checked_add(seconds(number.parse().ok()?, unit)?)?;
        rest = after;
    }
    Some(sum).filter(|_| !text.is_empty())
}

/// The setting as a person reads it: a number alone is months.
fn as_written(text: &str) -> String {
    match text.parse::<f64>() {
        Ok(1.0) => "1 month".to_owned(),
        Ok(_) => format!("{text} months"),
        Err(_) => text.to_owned(),
    }
}

/// Why rows are ignored, in words, and the setting that says so.
pub(crate) fn reason_in_words(reason: &str) -> String {
    let words = match reason {
        "small_timestamp" => "they are older than it keeps readings (-retentionPeriod)",
        "big_timestamp" => "they are too far in the future",
        "too_many_labels" => "they have more labels than it takes (-maxLabelsPerTimeseries)",
        "too_long_label_name" => "the name of a label is too long",
        "too_long_label_value" => "the value of a label is too long (-maxLabelValueLen)",
        "nan_value" => "they are no numbers",
        other => return format!("its reason is {other:?}"),
    };
    words.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(text: &str) -> Option<Vitals> {
        Vitals::read(&Answer { status: 200, body: text.as_bytes().to_vec(), ..Answer::default() })
    }

    #[test]
    fn a_page_of_1_79_is_read() {
        let vitals = page(
            "vm_rows_ignored_total{reason=\"big_timestamp\"} 1\nvm_rows_ignored_total{reason=\"small_timestamp\"} 12\n\
             vm_rows_inserted_total{type=\"influx\"} 5000\nvm_rows_inserted_total{type=\"native\"} 7\n\
             vm_metrics_with_dropped_labels_total 2\nprocess_start_time_seconds 1795960097\n\
             flag{name=\"dedup.minScrapeInterval\", value=\"0s\", is_set=\"false\"} 1\n\
             flag{name=\"maxLabelValueLen\", value=\"16384\", is_set=\"false\"} 1\n\
             flag{name=\"maxLabelsPerTimeseries\", value=\"30\", is_set=\"false\"} 1\n\
             flag{name=\"retentionPeriod\", value=\"1\", is_set=\"false\"} 1\n",
        );
        let vitals = vitals.expect("it is one");
        assert_eq!((vitals.started, vitals.rows, vitals.breaks), (1_795_960_097, 5_000, 0));
        let ignored: Vec<_> = vitals.ignored.iter().map(|(k, v)| (k.as_str(), *v)).collect();
        assert_eq!(ignored, [("big_timestamp", 1), ("small_timestamp", 12), ("too_many_labels", 2)]);
        assert_eq!(vitals.deduplicates(), Some(false));
        let limits = Limits {
            keeps: Some((MONTH, "1 month".to_owned())),
            ahead: Some(AHEAD),
            labels_max: Some(30),
            label_value_bytes_max: Some(16_384),
            label_name_bytes_max: Some(256),
            clock_ahead: 0,
        };
        assert_eq!(vitals.limits, limits);
    }

    #[test]
    fn an_inserting_part_of_a_cluster_does_not_know_how_long_readings_are_kept() {
        let vitals = page(
            "vm_app_start_timestamp 5\nvm_rpc_connection_errors_total{name=\"vminsert\", addr=\"a:8400\"} 2\n\
             vm_rpc_connection_errors_total{name=\"vminsert\", addr=\"b:8400\"} 1\n\
             flag{name=\"maxLabelsPerTimeseries\", value=\"40\", is_set=\"false\"} 1\n",
        );
        let vitals = vitals.expect("it is one");
        assert_eq!((vitals.started, vitals.breaks), (5, 3));
        assert_eq!((vitals.limits.keeps.clone(), vitals.limits.ahead), (None, None));
        assert_eq!((vitals.limits.labels_max, vitals.deduplicates()), (Some(39), None));
    }

    #[test]
    fn other_pages_are_none() {
        for text in
            ["", "ok", "<html>", "process_start_time_seconds 5\n", "vm_rows{} x\n", "flag{name=\"\n{\n}\n"]
        {
            assert_eq!(page(text), None, "{text:?}");
        }
    }

    #[test]
    fn periods_are_read_as_victoria_metrics_does() {
        let days = |n: f64| Some(Duration::from_secs_f64(n * 86_400.0));
        for (text, expected) in [
            ("1", days(31.0)),
            ("0.5", days(15.5)),
            ("100y", days(36_500.0)),
            ("3d", days(3.0)),
            ("2w", days(14.0)),
            ("1d12h", days(1.5)),
            ("0s", days(0.0)),
            ("1ms", Some(Duration::from_millis(1))),
            ("", None),
            ("-1", None),
            ("d", None),
            ("1x", None),
            ("1e300y", None),
            ("5d3", None),
        ] {
            assert_eq!(period(text), expected, "{text}");
        }
    }
}
