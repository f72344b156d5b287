//! From the lines of the spool, which are written for InfluxDB 1 and 2, to what another kind of server reads the same way.
//! Pure. What it cannot hold is named: a line is refused, or goes without a field.
//!
//! Sources: `influxdb_line_protocol` of InfluxDB 3, as `graylogic_line`'s dialects have it, and the program InfluxDB 1.6. A
//! line for VictoriaMetrics is made in `vm_line.rs`.

use crate::server::kind::ServerKind;
use crate::server::vm_line::{self, Takes};
use graylogic_durable::Batch;
use graylogic_line::{Dialect, Encoder, FieldRef, ParseOptions, Parser, Precision, Timestamp};

/// A batch in the words of one kind of server. Lines keep their places; those that are refused are empty.
#[derive(Debug, Default)]
pub(crate) struct Translated {
    pub(crate) batch: Batch,
    /// Lines that this kind of server cannot hold, and why.
    pub(crate) refused: Vec<(usize, String)>,
    /// Lines that go without some of their fields, and why.
    pub(crate) altered: Vec<(usize, String)>,
}

/// What becomes of one line.
#[derive(Debug)]
pub(super) enum Line {
    Same,
    Changed,
    Altered(String),
    Refused(String),
}

/// The batch as this kind of server reads it; `None` when it is the same. `takes` is for VictoriaMetrics.
pub(crate) fn translate(kind: ServerKind, batch: &Batch, takes: &Takes) -> Option<Translated> {
    let dialect = match kind {
        ServerKind::InfluxDb2 => return None,
        ServerKind::InfluxDb1 => Dialect::V2,
        ServerKind::InfluxDb3 => Dialect::V3,
        ServerKind::VictoriaMetrics => Dialect::Vm,
    };
    let encoder = Encoder::new(dialect).allow_underscore_names(true);
    let mut out = Translated::default();
    out.batch.bytes.reserve(batch.bytes.len());
    let mut differs = false;
    for place in 0..batch.len() {
        let text = batch.line(place);
        let line = match kind {
            ServerKind::VictoriaMetrics => vm_line::put(&encoder, text, takes, &mut out.batch.bytes),
            // Only these are read differently, so most lines are not even parsed.
            ServerKind::InfluxDb1 if has_unsigned(text) => anew(&encoder, text, &mut out.batch.bytes),
            ServerKind::InfluxDb3 if text.contains(&b'\\') => anew(&encoder, text, &mut out.batch.bytes),
            _ => Line::Same,
        };
        match line {
            Line::Same => out.batch.bytes.extend_from_slice(text),
            Line::Changed => differs = true,
            Line::Altered(why) => out.altered.push((place, why)),
            Line::Refused(why) => out.refused.push((place, why)),
        }
        // A batch is bounded far below.
        out.batch.ends.push(u32::try_from(out.batch.bytes.len()).unwrap_or(u32::MAX));
    }
    (differs || !out.refused.is_empty() || !out.altered.is_empty()).then_some(out)
}

/// Whether a line may have an unsigned integer: a digit, `u`, and the end of a field.
fn has_unsigned(text: &[u8]) -> bool {
    text.windows(3).any(|w| w[0].is_ascii_digit() && w[1] == b'u' && matches!(w[2], b',' | b' '))
}

/// Reads a line and appends it in the words of the server; appends nothing when it is refused.
fn anew(encoder: &Encoder, text: &[u8], out: &mut Vec<u8>) -> Line {
    // Every line in the spool has its time.
    let mut parser = Parser::new(text, ParseOptions::new(Precision::Nanoseconds, Timestamp::from_nanos(0)));
    let parsed = match parser.next_line() {
        Some(Ok(line)) => line,
        Some(Err(error)) => return Line::Refused(error.to_string()),
        None => return Line::Refused("the line is empty".to_owned()),
    };
    let measurement = parsed.measurement();
    let tags: Vec<_> = parsed.tags().collect();
    let tags: Vec<(&str, &str)> = tags.iter().map(|(k, v)| (&**k, &**v)).collect();
    let keys: Vec<_> = parsed.fields().iter().map(graylogic_line::Field::key).collect();
    let mut fields = Vec::with_capacity(keys.len());
    for (key, field) in keys.iter().zip(parsed.fields()) {
        let value = match field.value {
            // The builds of InfluxDB 1 that people have know no unsigned integers.
            FieldRef::Unsigned(value) if encoder.dialect() == Dialect::V2 => match i64::try_from(value) {
                Ok(value) => FieldRef::Integer(value),
                Err(_) => {
                    return Line::Refused(format!(
                        "field {key:?} is {value}u, and the integers of InfluxDB 1 end at {}",
                        i64::MAX
                    ));
                }
            },
            ref value => value.clone(),
        };
        fields.push((&**key, value));
    }
    match encoder.encode_parts(&measurement, &tags, &fields, Some(parsed.timestamp()), out) {
        Err(error) => Line::Refused(error.to_string()),
        Ok(()) => Line::Changed,
    }
}

/// Names of fields as a sentence has them, the first few.
pub(super) fn listed(names: &[&str]) -> String {
    const MOST: usize = 5;
    let some: Vec<String> = names.iter().take(MOST).map(|n| format!("{n:?}")).collect();
    let more = names.len().saturating_sub(MOST);
    let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("field{} {}{rest}", if names.len() > 1 { "s" } else { "" }, some.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(lines: &[&str]) -> Batch {
        let mut batch = Batch::default();
        for line in lines {
            batch.bytes.extend_from_slice(line.as_bytes());
            batch.bytes.push(b'\n');
            batch.ends.push(batch.bytes.len() as u32);
        }
        batch
    }

    /// What becomes of a line: the same, other words, or none, and why.
    fn check(kind: ServerKind, line: &str, expected: &str, why: &str) {
        let translated = translate(kind, &batch(&[line, "other f=1 2"]), &Takes::default())
            .unwrap_or_else(|| Translated { batch: batch(&[line, "other f=1 2"]), ..Translated::default() });
        let text = |place| String::from_utf8_lossy(translated.batch.line(place)).into_owned();
        let expected = if expected.is_empty() { String::new() } else { format!("{expected}\n") };
        let other = match kind {
            ServerKind::VictoriaMetrics => "other,_measurement=other f=1 2\n",
            _ => "other f=1 2\n",
        };
        assert_eq!((text(0), text(1).as_str()), (expected, other), "{kind}: {line}");
        let said: Vec<&str> =
            translated.refused.iter().chain(&translated.altered).map(|(_, why)| why.as_str()).collect();
        assert_eq!(said.concat(), why, "{kind}: {line}");
    }

    #[test]
    fn lines_are_put_into_the_words_of_each_server() {
        use ServerKind::{InfluxDb1, InfluxDb2, InfluxDb3, VictoriaMetrics};
        let plain = "energy,device_id=hvac power_watts=450.5,n=3i,on=true 1700000000000000000";
        for kind in [InfluxDb1, InfluxDb2, InfluxDb3] {
            check(kind, plain, plain, "");
        }
        // A backslash stands for itself in 1 and 2, and is doubled for the others.
        let windows = r"m,path=C:\x f=1 5";
        for kind in [InfluxDb1, InfluxDb2] {
            check(kind, windows, windows, "");
        }
        check(InfluxDb3, windows, r"m,path=C:\\x f=1.0 5", "");
        check(InfluxDb3, r"m\ 1,a\,b=c\=d f\ 1=1 5", r"m\ 1,a\,b=c\=d f\ 1=1.0 5", "");
        check(InfluxDb3, r#"m s="say \"hi\"",f=1 5"#, r#"m s="say \"hi\"",f=1.0 5"#, "");
        check(InfluxDb3, "m f=1 -5", "m f=1 -5", "");
        let vm = |line, expected, why| check(VictoriaMetrics, line, expected, why);
        vm(windows, r"m,_measurement=m,path=C:\\x f=1.0 5", "");
        vm(r"m\ 1,a\,b=c\=d f\ 1=1 5", r"m\ 1,_measurement=m\ 1,a\,b=c\=d f\ 1=1.0 5", "");
        let no_text = "VictoriaMetrics holds no texts: field \"s\"";
        vm(r#"m,d=a f=1,s="x",g=2i 5"#, "m,_measurement=m,d=a f=1.0,g=2i 5", no_text);
        vm(r#"m s="x",t="a b, c=1" 5"#, "", "VictoriaMetrics holds no texts: fields \"s\", \"t\"");
        for time in ["0", "-1", "-1700000000000000000"] {
            let line = format!("m f=1 {time}");
            let refused = translate(VictoriaMetrics, &batch(&[&line]), &Takes::default()).unwrap().refused;
            assert!(refused[0].1.contains("would store the present"), "{refused:?}");
        }
        vm("m-0,t=-1 f=-1 5", "m-0,_measurement=m-0,t=-1 f=-1 5", "");
    }

    #[test]
    fn unsigned_integers_go_to_influxdb_1_as_integers_and_too_large_ones_are_refused() {
        use ServerKind::{InfluxDb1, InfluxDb2, InfluxDb3, VictoriaMetrics};
        let line = "m,t=1u f=1u,g=9223372036854775807u,s=2i 5";
        check(InfluxDb1, line, "m,t=1u f=1i,g=9223372036854775807i,s=2i 5", "");
        for kind in [InfluxDb2, InfluxDb3] {
            check(kind, line, line, "");
        }
        check(VictoriaMetrics, line, &line.replacen("m,", "m,_measurement=m,", 1), "");
        let why =
            "field \"f\" is 9223372036854775808u, and the integers of InfluxDB 1 end at 9223372036854775807";
        check(InfluxDb1, "m f=9223372036854775808u 5", "", why);
        // A text that looks like one stays.
        check(InfluxDb1, r#"m s="1u, 2u" 5"#, r#"m s="1u, 2u" 5"#, "");
    }
}
