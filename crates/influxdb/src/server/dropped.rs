//! Which lines a server dropped when it took the others and names none: its message tells how many, and of what. Pure.
//!
//! InfluxDB 1 and 2 write a request shard by shard and answer with the first reason of the first shard that dropped
//! something, and with how many points of that shard it dropped. Points that are too old are no shard's: all are counted, and
//! no shard dropped anything when the answer is about them.
//!
//! Sources: `fixtures/http/write/type-conflict.json`, `conflict-within-one-request.json`, `retention.json`.

use graylogic_durable::Batch;
use graylogic_line::{Field, Line, ParseOptions, Parser, Precision, Timestamp};

/// No shard begins or ends inside of one.
const MINUTE_NANOS: i64 = 60_000_000_000;

/// The dropped lines of a request, by their places in the batch in ascending order.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Dropped {
    /// These and no others.
    These(Vec<usize>),
    /// Some of these probably, and perhaps others.
    Perhaps(Vec<usize>),
    Unknown,
}

/// What the message of a partial write tells of the lines of its request.
pub(super) fn dropped(message: &str, batch: &Batch, places: &[usize]) -> Dropped {
    let Some(count) = count(message).filter(|&n| n > 0) else { return Dropped::Unknown };
    if count >= places.len() {
        return Dropped::These(places.to_vec());
    }
    let (found, is_whole) = match conflict(message) {
        Some((names, of)) => conflicting(names, of, batch, places),
        None => (expired(message, batch, places), true),
    };
    match found.len() {
        0 => Dropped::Unknown,
        n if n == count && is_whole => Dropped::These(found),
        _ => Dropped::Perhaps(found),
    }
}

/// The number in `dropped=2`, which ends the message or has words behind it.
fn count(message: &str) -> Option<usize> {
    let (_, rest) = message.rsplit_once(" dropped=")?;
    rest.split(' ').next()?.parse().ok()
}

/// Of `input field "f" on measurement "m" is type string, already exists as type float` the names, as `f" on measurement
/// "m`, and the type that is there already.
fn conflict(message: &str) -> Option<(&str, &str)> {
    let (rest, of) = message.rsplit_once(", already exists as type ")?;
    let (_, names) = rest.rsplit_once("\" is type ")?.0.split_once("input field \"")?;
    Some((names, of.split(' ').next()?))
}

/// The lines that have the field in another type, which the server drops wherever it has it in this one; and whether all
/// lines are of one shard, so that the number in the answer is of all of them.
fn conflicting(names: &str, of: &str, batch: &Batch, places: &[usize]) -> (Vec<usize>, bool) {
    let mut found = Vec::new();
    let mut minutes: Option<i64> = None;
    let mut is_one_shard = true;
    for &place in places {
        let minute = with_line(batch, place, |line| {
            let measurement = line.measurement();
            let is_meant = |field: &Field<'_>| {
                let rest = names.strip_prefix(&*field.key());
                rest.and_then(|r| r.strip_prefix("\" on measurement \"")) == Some(&*measurement)
            };
            let conflicts = |field: &Field<'_>| type_name(field) != of && is_meant(field);
            if line.fields().iter().any(conflicts) {
                found.push(place);
            }
            line.has_timestamp().then(|| line.timestamp().as_nanos().div_euclid(MINUTE_NANOS))
        });
        let minute = minute.flatten();
        is_one_shard &= minute.is_some_and(|minute| *minutes.get_or_insert(minute) == minute);
    }
    (found, is_one_shard)
}

/// The lines that are no younger than the youngest that is too old.
fn expired(message: &str, batch: &Batch, places: &[usize]) -> Vec<usize> {
    // Points too far in the future end so as well.
    let is_of_age = message.contains("points outside retention policy") && !message.contains("Upper Bound");
    let newest = message
        .rsplit_once(", newest point ")
        .filter(|_| is_of_age)
        .and_then(|(_, newest)| newest.split_once(" dropped because it violates")?.0.rsplit_once(" at "));
    let Some((_, newest)) = newest else { return Vec::new() };
    let time_of = |place: usize| {
        with_line(batch, place, |line| line.has_timestamp().then(|| line.timestamp())).flatten()
    };
    let times: Vec<(usize, Timestamp)> = places.iter().filter_map(|&p| Some((p, time_of(p)?))).collect();
    let Some((_, newest)) = times.iter().find(|(_, time)| time.to_string() == newest) else {
        return Vec::new();
    };
    times.iter().filter(|(_, time)| time <= newest).map(|(place, _)| *place).collect()
}

/// Looks at a line; lines that are in a batch can be read.
fn with_line<T>(batch: &Batch, place: usize, look: impl FnOnce(&Line<'_, '_>) -> T) -> Option<T> {
    let options = ParseOptions::new(Precision::Nanoseconds, Timestamp::MIN);
    let mut parser = Parser::new(batch.line(place), options);
    parser.next_line()?.ok().map(|line| look(&line))
}

/// As the server calls it.
fn type_name(field: &Field<'_>) -> &'static str {
    use graylogic_line::FieldType::{Boolean, Float, Integer, String, Unsigned};
    match field.value.field_type() {
        Float => "float",
        Integer => "integer",
        Unsigned => "unsigned",
        Boolean => "boolean",
        String => "string",
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn check(message: &str, lines: &[&str], expected: &Dropped) {
        let mut batch = Batch::default();
        for line in lines {
            batch.bytes.extend_from_slice(line.as_bytes());
            batch.bytes.push(b'\n');
            batch.ends.push(batch.bytes.len() as u32);
        }
        // As a piece of a batch that has another line before.
        let mut shifted = Batch::default();
        shifted.bytes.extend_from_slice(b"m f=\"x\" 0\n");
        shifted.ends.push(10);
        shifted.bytes.extend_from_slice(&batch.bytes);
        shifted.ends.extend(batch.ends.iter().map(|end| end + 10));
        let places: Vec<usize> = (1..=lines.len()).collect();
        let found = match dropped(message, &shifted, &places) {
            Dropped::These(found) => Dropped::These(found.iter().map(|p| p - 1).collect()),
            Dropped::Perhaps(found) => Dropped::Perhaps(found.iter().map(|p| p - 1).collect()),
            Dropped::Unknown => Dropped::Unknown,
        };
        assert_eq!(found, *expected, "{message} of {lines:?}");
    }

    #[test]
    fn a_conflict_tells_which_lines_have_the_other_type() {
        let says = |field: &str, measurement: &str, count: usize| {
            format!(
                "partial write: field type conflict: input field \"{field}\" on measurement \"{measurement}\" is type string, \
                 already exists as type float dropped={count}"
            )
        };
        let f = |count| says("f", "m", count);
        let lines = ["m f=1 1", "m,t=a f=\"x\" 2", "m g=\"x\",f=2 3", "n f=\"x\" 4", "m g=1,f=true 5"];
        check(&f(2), &lines, &Dropped::These(vec![1, 4]));
        // One of another field or another shard is among them.
        check(&f(3), &lines, &Dropped::Perhaps(vec![1, 4]));
        check(&f(1), &lines, &Dropped::Perhaps(vec![1, 4]));
        check(&f(5), &lines, &Dropped::These((0..5).collect()));
        check(&f(0), &lines, &Dropped::Unknown);
        check(&says("h", "m", 1), &lines, &Dropped::Unknown);
        check(&says("f", "x", 1), &lines, &Dropped::Unknown);
        // Other shards may have dropped others.
        check(&f(1), &["m f=\"x\" 1", "m f=1 60000000000"], &Dropped::Perhaps(vec![0]));
        check(&f(1), &["m f=\"x\" 59999999999", "m f=1 0"], &Dropped::These(vec![0]));
        check(&f(1), &["m f=\"x\" -1", "m f=1 0"], &Dropped::Perhaps(vec![0]));
        check(&f(1), &["m f=\"x\"", "m f=1"], &Dropped::Perhaps(vec![0]));
        // Names as they are, not as they are written.
        let odd = [r#"a\,\ b f\ "\=\,=1 1"#, r#"a\,\ b f\ "\=\,="x" 2"#];
        check(&says("f \"=,", "a, b", 1), &odd, &Dropped::These(vec![1]));
        let like = "x\" on measurement \"m";
        check(&says(like, "m", 1), &["m f=1 1", "m x=\"s\" 2"], &Dropped::Unknown);
        for message in
            ["", "partial write", "dropped=", " dropped=x", " dropped=1", " dropped=99999999999999999999"]
        {
            check(message, &lines, &Dropped::Unknown);
        }
    }

    #[test]
    fn lines_that_are_too_old_are_those_up_to_the_youngest_of_them() {
        let says = |newest: &str, bound: &str, count: usize| {
            format!(
                "partial write: dropped {count} points outside retention policy of duration 24h0m0s - oldest point m at \
                 1970-01-01T00:00:01Z dropped because it violates a Retention Policy Lower Bound at 2026-01-01T00:00:00Z, newest \
                 point m,t=a at {newest} dropped because it violates a {bound} at 2026-01-01T00:00:00Z dropped={count} for \
                 database: 0123456789abcdef for retention policy: autogen"
            )
        };
        let old = |newest, count| says(newest, "Retention Policy Lower Bound", count);
        let lines = ["m f=1 1000000000", "m f=1 4102444800000000000", "m,t=a f=1 2500000000", "m f=1"];
        check(&old("1970-01-01T00:00:02.5Z", 2), &lines, &Dropped::These(vec![0, 2]));
        // One is in a shard that a younger one opened.
        check(&old("1970-01-01T00:00:02.5Z", 1), &lines, &Dropped::Perhaps(vec![0, 2]));
        check(&old("1970-01-01T00:00:02Z", 1), &lines, &Dropped::Unknown);
        check(&old("1970-01-01T00:00:02.5Z", 4), &lines, &Dropped::These(vec![0, 1, 2, 3]));
        check(&says("1970-01-01T00:00:02.5Z", "Write Window Upper Bound", 2), &lines, &Dropped::Unknown);
    }
}
