//! From the lines of the spool, which are written for InfluxDB 1 and 2, to what another kind of server reads the same way.
//! Pure. What it cannot hold is named: a line is refused, or goes without a field.
//!
//! Sources: `influxdb_line_protocol` of InfluxDB 3 and `lib/protoparser/influx` of VictoriaMetrics, as `graylogic_line`'s
//! dialects have them.

use crate::server::kind::ServerKind;
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
enum Line {
    Same,
    Changed,
    Altered(String),
    Refused(String),
}

/// The batch as this kind of server reads it; `None` when it is the same.
pub(crate) fn translate(kind: ServerKind, batch: &Batch) -> Option<Translated> {
    let dialect = match kind {
        ServerKind::InfluxDb1 | ServerKind::InfluxDb2 => return None,
        ServerKind::InfluxDb3 => Dialect::V3,
        ServerKind::VictoriaMetrics => Dialect::Vm,
    };
    let encoder = Encoder::new(dialect).allow_underscore_names(true);
    let mut out = Translated::default();
    out.batch.bytes.reserve(batch.bytes.len());
    let mut differs = false;
    for place in 0..batch.len() {
        let text = batch.line(place);
        match line(&encoder, text, &mut out.batch.bytes) {
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

/// Appends one line in other words; appends nothing when it stays the same or is refused.
fn line(encoder: &Encoder, text: &[u8], out: &mut Vec<u8>) -> Line {
    let is_vm = encoder.dialect() == Dialect::Vm;
    // Only these are read differently, so most lines are not even parsed.
    let differs = |b: &u8| *b == b'\\' || (is_vm && *b == b'"');
    let may_differ = text.iter().any(differs) || (is_vm && ends_before_1970(text));
    if !may_differ {
        return Line::Same;
    }
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
    let fields = keys.iter().map(|k| &**k).zip(parsed.fields().iter().map(|f| f.value.clone()));
    let is_text = |field: &(&str, FieldRef<'_>)| is_vm && matches!(field.1, FieldRef::String(_));
    let (texts, held): (Vec<_>, Vec<_>) = fields.partition(is_text);
    let texts: Vec<&str> = texts.iter().map(|f| f.0).collect();
    let left_out = || format!("VictoriaMetrics holds no texts: {}", listed(&texts));
    if held.is_empty() {
        return Line::Refused(left_out());
    }
    match encoder.encode_parts(&measurement, &tags, &held, Some(parsed.timestamp()), out) {
        Err(error) => Line::Refused(error.to_string()),
        Ok(()) if texts.is_empty() => Line::Changed,
        Ok(()) => Line::Altered(left_out()),
    }
}

/// Whether the time at the end of a line is not after 1970: VictoriaMetrics would take the present instead.
fn ends_before_1970(line: &[u8]) -> bool {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let start = line.iter().rposition(|b| *b == b' ').map_or(0, |at| at + 1);
    line[start..] == *b"0" || line[start..].starts_with(b"-")
}

/// Names of fields as a sentence has them, the first few.
fn listed(names: &[&str]) -> String {
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
        let translated = translate(kind, &batch(&[line, "other f=1 2"]))
            .unwrap_or_else(|| Translated { batch: batch(&[line, "other f=1 2"]), ..Translated::default() });
        let text = |place| String::from_utf8_lossy(translated.batch.line(place)).into_owned();
        let expected = if expected.is_empty() { String::new() } else { format!("{expected}\n") };
        assert_eq!((text(0), text(1).as_str()), (expected, "other f=1 2\n"), "{kind}: {line}");
        let said: Vec<&str> =
            translated.refused.iter().chain(&translated.altered).map(|(_, why)| why.as_str()).collect();
        assert_eq!(said.concat(), why, "{kind}: {line}");
    }

    #[test]
    fn lines_are_put_into_the_words_of_each_server() {
        use ServerKind::{InfluxDb1, InfluxDb2, InfluxDb3, VictoriaMetrics};
        let plain = "energy,device_id=hvac power_watts=450.5,n=3i,on=true 1700000000000000000";
        for kind in ServerKind::ALL {
            check(kind, plain, plain, "");
        }
        // A backslash stands for itself in 1 and 2, and is doubled for the others.
        let windows = r"m,path=C:\x f=1 5";
        for kind in [InfluxDb1, InfluxDb2] {
            check(kind, windows, windows, "");
        }
        for kind in [InfluxDb3, VictoriaMetrics] {
            check(kind, windows, r"m,path=C:\\x f=1.0 5", "");
            check(kind, r"m\ 1,a\,b=c\=d f\ 1=1 5", r"m\ 1,a\,b=c\=d f\ 1=1.0 5", "");
        }
        check(InfluxDb3, r#"m s="say \"hi\"",f=1 5"#, r#"m s="say \"hi\"",f=1.0 5"#, "");
        check(InfluxDb3, "m f=1 -5", "m f=1 -5", "");
        let vm = |line, expected, why| check(VictoriaMetrics, line, expected, why);
        vm(r#"m,d=a f=1,s="x",g=2i 5"#, "m,d=a f=1.0,g=2i 5", "VictoriaMetrics holds no texts: field \"s\"");
        vm(r#"m s="x",t="a b, c=1" 5"#, "", "VictoriaMetrics holds no texts: fields \"s\", \"t\"");
        for time in ["0", "-1", "-1700000000000000000"] {
            let line = format!("m f=1 {time}");
            let refused = translate(VictoriaMetrics, &batch(&[&line])).unwrap().refused;
            assert!(refused[0].1.contains("would store the present"), "{refused:?}");
        }
        vm("m-0,t=-1 f=-1 5", "m-0,t=-1 f=-1 5", ""); // the same, not even read
    }
}
