//! A line of the spool as VictoriaMetrics takes it: named so that no two readings become one series (`naming.rs`), and held
//! against what the server takes (`vitals.rs`), because it drops the rest without a word. Pure. Must not know batches.

use crate::server::naming::{MEASUREMENT, label_of_tag};
use crate::server::translate::{Line, listed};
use crate::server::vitals::Limits;
use graylogic_line::{Encoder, FieldRef, ParseOptions, Parser, Precision, Timestamp};
use std::borrow::Cow;

/// Labels of each series besides its tags: the bucket and the measurement.
const OWN_LABELS: usize = 2;

/// What a VictoriaMetrics takes at this moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Takes {
    /// Empty where the server shows none.
    pub(crate) limits: Limits,
    /// Whether it answered when it was asked for them.
    pub(crate) is_known: bool,
    pub(crate) now: Timestamp,
}

/// Appends the line; appends nothing when it is rejected.
pub(super) fn put(encoder: &Encoder, text: &[u8], takes: &Takes, out: &mut Vec<u8>) -> Line {
    match plain(text) {
        Some(plain) => match takes.beyond(plain.time, plain.longest_metric(), plain.tags()) {
            Some(why) => Line::Refused(why),
            None => {
                plain.put(text, out);
                Line::Changed
            }
        },
        None => parsed(encoder, text, takes, out),
    }
}

/// A line without escapes and texts, whose parts are bytes of it.
struct Plain<'a> {
    measurement: &'a str,
    tags: &'a str,
    fields: &'a str,
    time: i64,
}

/// The parts of a line when none of them needs other words; every line in the spool has its time.
fn plain(text: &[u8]) -> Option<Plain<'_>> {
    let line = std::str::from_utf8(text).ok()?.strip_suffix('\n')?;
    if line.bytes().any(|b| matches!(b, b'\\' | b'"' | b'\n' | b'\r')) {
        return None;
    }
    let mut parts = line.split(' ');
    let (key, fields, time) = (parts.next()?, parts.next()?, parts.next()?);
    let (measurement, tags) = key.split_once(',').unwrap_or((key, ""));
    let time = time.parse().ok().filter(|time| *time > 0)?;
    let plain = Plain { measurement, tags, fields, time };
    let is_whole = parts.next().is_none() && !measurement.is_empty() && !fields.is_empty();
    let stays = |(tag, value): (&str, &str)| {
        !tag.is_empty() && !value.is_empty() && matches!(label_of_tag(tag), Cow::Borrowed(_))
    };
    (is_whole && !measurement.contains('=') && plain.tags().all(stays)).then_some(plain)
}

impl<'a> Plain<'a> {
    fn tags(&self) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        self.tags.split(',').filter(|tag| !tag.is_empty()).map(|tag| tag.split_once('=').unwrap_or_default())
    }

    fn longest_metric(&self) -> usize {
        let field = self.fields.split(',').map(|field| field.find('=').unwrap_or(field.len())).max();
        self.measurement.len() + 1 + field.unwrap_or_default()
    }

    fn put(&self, text: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(self.measurement.as_bytes());
        out.push(b',');
        out.extend_from_slice(MEASUREMENT.as_bytes());
        out.push(b'=');
        // The rest of the line as it is.
        out.extend_from_slice(text);
    }
}

/// A line that must be read and written anew.
fn parsed(encoder: &Encoder, text: &[u8], takes: &Takes, out: &mut Vec<u8>) -> Line {
    let mut parser = Parser::new(text, ParseOptions::new(Precision::Nanoseconds, Timestamp::from_nanos(0)));
    let line = match parser.next_line() {
        Some(Ok(line)) => line,
        Some(Err(error)) => return Line::Refused(error.to_string()),
        None => return Line::Refused("the line is empty".to_owned()),
    };
    let measurement = line.measurement();
    let tags: Vec<_> = line.tags().collect();
    let labels: Vec<_> = tags.iter().map(|(tag, value)| (label_of_tag(tag), &**value)).collect();
    let labels: Vec<(&str, &str)> = labels.iter().map(|(label, value)| (&**label, *value)).collect();
    let keys: Vec<_> = line.fields().iter().map(graylogic_line::Field::key).collect();
    let fields = keys.iter().map(|k| &**k).zip(line.fields().iter().map(|f| f.value.clone()));
    let is_text = |field: &(&str, FieldRef<'_>)| matches!(field.1, FieldRef::String(_));
    let (texts, held): (Vec<_>, Vec<_>) = fields.partition(is_text);
    let texts: Vec<&str> = texts.iter().map(|f| f.0).collect();
    let left_out = || format!("VictoriaMetrics holds no texts: {}", listed(&texts));
    if held.is_empty() {
        return Line::Refused(left_out());
    }
    let longest = measurement.len() + 1 + held.iter().map(|f| f.0.len()).max().unwrap_or_default();
    // What it would take for no time at all is refused below, in words of its own.
    let time = line.timestamp();
    if time.as_nanos() > 0
        && let Some(why) = takes.beyond(time.as_nanos(), longest, labels.iter().copied())
    {
        return Line::Refused(why);
    }
    let start = out.len();
    match encoder.encode_parts(&measurement, &labels, &held, Some(time), out) {
        Err(error) => return Line::Refused(error.to_string()),
        Ok(()) => add_measurement(out, start),
    }
    if texts.is_empty() { Line::Changed } else { Line::Altered(left_out()) }
}

/// Adds the label of the measurement to the line that begins at `start`, behind its measurement.
fn add_measurement(out: &mut Vec<u8>, start: usize) {
    let mut end = start;
    let mut value = Vec::new();
    while let Some(&byte) = out.get(end).filter(|b| !matches!(b, b',' | b' ')) {
        // A measurement does not escape it, the value of a tag does.
        if byte == b'=' {
            value.push(b'\\');
        }
        value.push(byte);
        end += 1;
        if byte == b'\\'
            && let Some(&escaped) = out.get(end)
        {
            value.push(escaped);
            end += 1;
        }
    }
    let label = [b",", MEASUREMENT.as_bytes(), b"=", &value].concat();
    out.splice(end..end, label);
}

impl Takes {
    /// Why the server would drop a reading without a word, or keep it under another name.
    fn beyond<'t>(
        &self,
        time: i64,
        longest_metric: usize,
        labels: impl Iterator<Item = (&'t str, &'t str)>,
    ) -> Option<String> {
        self.beyond_time(time).or_else(|| self.beyond_labels(longest_metric, labels))
    }

    fn beyond_time(&self, time: i64) -> Option<String> {
        let at = || Timestamp::from_nanos(time);
        let ahead = i128::from(time)
            - (i128::from(self.now.as_nanos()) + i128::from(self.limits.clock_ahead) * 1_000_000_000);
        let nanos = |d: &std::time::Duration| i128::try_from(d.as_nanos()).unwrap_or(i128::MAX);
        match (&self.limits.keeps, &self.limits.ahead) {
            (Some((keeps, written)), _) if -ahead > nanos(keeps) => {
                Some(format!("{} is older than VictoriaMetrics keeps (-retentionPeriod={written})", at()))
            }
            (_, Some(limit)) if ahead > nanos(limit) => {
                let days = limit.as_secs_f64() / 86_400.0;
                Some(format!("{} is further in the future than VictoriaMetrics takes ({days} days)", at()))
            }
            _ => None,
        }
    }

    fn beyond_labels<'t>(
        &self,
        longest_metric: usize,
        labels: impl Iterator<Item = (&'t str, &'t str)>,
    ) -> Option<String> {
        let Limits { labels_max, label_value_bytes_max, label_name_bytes_max, .. } = self.limits;
        let name_max = label_name_bytes_max.unwrap_or(usize::MAX);
        let value_max = label_value_bytes_max.unwrap_or(usize::MAX);
        let mut count = OWN_LABELS;
        for (name, value) in labels {
            count += 1;
            if value.len() > value_max {
                let bytes = value.len();
                return Some(format!(
                    "the value of tag {name:?} has {bytes} bytes, and VictoriaMetrics takes {value_max} (-maxLabelValueLen)"
                ));
            }
            if name.len() > name_max {
                let bytes = name.len();
                return Some(format!(
                    "the name of a tag has {bytes} bytes, and VictoriaMetrics takes {name_max}"
                ));
            }
        }
        if longest_metric > value_max {
            return Some(format!(
                "measurement and field together have {longest_metric} bytes, and VictoriaMetrics takes {value_max} \
                 (-maxLabelValueLen)"
            ));
        }
        let most = labels_max.filter(|most| count > *most)?;
        Some(format!(
            "it has {count} labels with those of its bucket and measurement, and VictoriaMetrics takes {most} \
             (-maxLabelsPerTimeseries)"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use graylogic_line::Dialect;
    use std::time::Duration;

    const DAY: i64 = 86_400_000_000_000;

    fn takes() -> Takes {
        Takes {
            limits: Limits {
                keeps: Some((Duration::from_secs(31 * 86_400), "1 month".to_owned())),
                ahead: Some(Duration::from_secs(2 * 86_400)),
                labels_max: Some(5),
                label_value_bytes_max: Some(20),
                label_name_bytes_max: Some(10),
                clock_ahead: 60,
            },
            is_known: true,
            now: Timestamp::from_nanos(100 * DAY),
        }
    }

    fn check(takes: &Takes, line: &str, expected: &str) {
        let encoder = Encoder::new(Dialect::Vm).allow_underscore_names(true);
        let mut out = Vec::new();
        let why = match put(&encoder, format!("{line}\n").as_bytes(), takes, &mut out) {
            Line::Refused(why) | Line::Altered(why) => why,
            Line::Same | Line::Changed => String::new(),
        };
        let said = format!("{}{why}", String::from_utf8(out).unwrap());
        assert!(said.starts_with(expected), "{line}: {said}");
        assert!(said.trim_end().lines().count() <= 1 || !why.is_empty(), "{said}");
    }

    #[test]
    fn each_line_names_its_measurement() {
        let free = Takes::default();
        for (line, expected) in [
            ("energy hourly_power_watts=1 5", "energy,_measurement=energy hourly_power_watts=1 5\n"),
            ("energy_hourly,d=a p=1,q=2i 5", "energy_hourly,_measurement=energy_hourly,d=a p=1,q=2i 5\n"),
            (r"a=b\ c\,d,t=x f=1 5", "a=b\\ c\\,d,_measurement=a\\=b\\ c\\,d,t=x f=1.0 5\n"),
            ("a=b f=1 5", "a=b,_measurement=a\\=b f=1.0 5\n"),
            (r"m\n,t=x f=1 5", "m\\\\n,_measurement=m\\\\n,t=x f=1.0 5\n"),
            ("m,db=other,room=a f=1 5", "m,_measurement=m,room=a,tag_db=other f=1.0 5\n"),
            ("m,__name__=x,tag_db=y f=1 5", "m,_measurement=m,tag___name__=x,tag_tag_db=y f=1.0 5\n"),
            (r#"m f=1,s="x, y" 5"#, "m,_measurement=m f=1.0 5\n"),
        ] {
            check(&free, line, expected);
        }
    }

    #[test]
    fn what_the_server_would_drop_is_refused_with_the_setting_that_says_so() {
        let takes = takes();
        // Its clock is a minute ahead.
        let (oldest, newest) = (69 * DAY + 60_000_000_000, 102 * DAY + 60_000_000_000);
        for time in [oldest, oldest + 1, 100 * DAY, newest] {
            check(&takes, &format!("m f=1 {time}"), "m,_measurement=m f=1 ");
        }
        let old =
            "1970-03-11T00:00:59.999999999Z is older than VictoriaMetrics keeps (-retentionPeriod=1 month)";
        check(&takes, &format!("m f=1 {}", oldest - 1), old);
        check(&takes, &format!("m,db=x f=1 {}", oldest - 1), old);
        let far = "is further in the future than VictoriaMetrics takes (2 days)";
        let encoder = Encoder::new(Dialect::Vm);
        let line = format!("m f=1 {}\n", newest + 1);
        let refused = put(&encoder, line.as_bytes(), &takes, &mut Vec::new());
        assert!(matches!(&refused, Line::Refused(why) if why.ends_with(far)), "{refused:?}");
        let now = 100 * DAY;
        check(&takes, &format!("m,a=1,b=2,c=3 f=1 {now}"), "m,_measurement=m,a=1,b=2,c=3 f=1 ");
        check(&takes, &format!("m,a=1,b=2,c=3,d=4 f=1 {now}"), "it has 6 labels with those of its bucket");
        check(&takes, &format!("m,a={} f=1 {now}", "x".repeat(20)), "m,_measurement=m,a=xxx");
        check(&takes, &format!("m,a={} f=1 {now}", "x".repeat(21)), "the value of tag \"a\" has 21 bytes");
        check(&takes, &format!("m,{}=x f=1 {now}", "k".repeat(11)), "the name of a tag has 11 bytes");
        check(&takes, &format!("m {}=1,g=2 {now}", "f".repeat(19)), "measurement and field together have 21");
        // Nothing is known of the server.
        let free = Takes { now: takes.now, ..Takes::default() };
        check(&free, "m,a=1,b=2,c=3,d=4 f=1 5", "m,_measurement=m,a=1,b=2,c=3,d=4 f=1 5\n");
    }
}
