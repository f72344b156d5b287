//! What a real InfluxDB 2.8 answered to questions as the builder lowers them is what the embedded store answers to the
//! same questions over the same data. The recordings are in `fixtures/flux-typed`.
#![allow(clippy::unwrap_used, missing_docs)]

use graylogic_influxdb::{Aggregate, Dialogue, Fill, Query, QuerySeries, Store, Timestamp, Value};
use graylogic_store::{StoreOptions, WriteOptions};
use std::path::{Path, PathBuf};
use std::time::Duration;

const SECOND: i64 = 1_000_000_000;
/// 2026-03-02T00:00:00Z.
const DAY: i64 = 1_772_409_600;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/flux-typed")
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_nanos((DAY + seconds) * SECOND)
}

fn store(bucket: &str) -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), StoreOptions::default()).unwrap();
    store.ensure_bucket(bucket).unwrap();
    let lines = std::fs::read(fixtures().join("data").join(bucket).with_extension("lp")).unwrap();
    let report = store.write_lines(bucket, &lines, &WriteOptions::now().any_time()).unwrap();
    assert_eq!(report.rejected_count, 0, "{:?}", report.rejected);
    (folder, store)
}

/// When the recorded rows are said to be: windows were also recorded with their ends.
#[derive(Clone, Copy)]
enum Times {
    AsTheyAre,
    /// Windows of so many seconds, whose starts are moved by the offset.
    Ends(i64, i64),
}

/// The recorded answer with each window named by its start, and how many of its rows have a value.
fn by_starts(csv: &str, times: Times) -> (String, usize) {
    let (mut moved, mut rows, mut header) = (String::new(), 0, Vec::new());
    for line in csv.split_inclusive("\r\n") {
        let mut cells: Vec<String> = line.trim_end().split(',').map(str::to_owned).collect();
        if line.starts_with(",result,table,") {
            header = cells.clone();
        } else if line.starts_with(",,") {
            let place = |name: &str| header.iter().position(|h| h == name).unwrap();
            rows += usize::from(!cells[place("_value")].is_empty());
            if let Times::Ends(every, offset) = times {
                let (every, offset) = (every * SECOND, offset * SECOND);
                let last = instant(&cells[place("_time")]) - 1;
                let begin = (last - offset).div_euclid(every) * every + offset;
                let begin = begin.max(instant(&cells[place("_start")]));
                cells[place("_time")] = Timestamp::from_nanos(begin).to_string();
            }
        }
        moved.push_str(&cells.join(","));
        moved.push_str("\r\n");
    }
    (moved, rows)
}

/// Nanoseconds of a time on a day of March 2026.
fn instant(text: &str) -> i64 {
    let rest = text.strip_prefix("2026-03-").and_then(|t| t.strip_suffix('Z')).unwrap();
    let numbers: Vec<i64> = rest.split(['T', ':']).map(|n| n.parse().unwrap()).collect();
    let [day, hour, minute, second] = numbers[..] else { panic!("{text}") };
    (DAY + (day - 2) * 86_400 + hour * 3600 + minute * 60 + second) * SECOND
}

fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Float(a), Value::Float(b)) => (a - b).abs() <= 1e-12 * a.abs().max(b.abs()),
        (a, b) => a == b,
    }
}

fn assert_same(name: &str, expected: &[QuerySeries], found: &[QuerySeries]) {
    let names = |s: &QuerySeries| (s.measurement.clone(), s.tags.clone(), s.field.clone());
    let all = |of: &[QuerySeries]| of.iter().map(names).collect::<Vec<_>>();
    assert_eq!(all(expected), all(found), "{name}");
    for (a, b) in expected.iter().zip(found) {
        assert_eq!(a.values.len(), b.values.len(), "{name}: {:?}, {:?}", a.values, b.values);
        for ((t, v), (u, w)) in a.values.iter().zip(&b.values) {
            assert!(t == u && same(v, w), "{name}: {t} {v:?}, {u} {w:?}");
        }
    }
}

#[test]
fn a_recorded_server_and_the_store_answer_the_same() {
    let (_folder, shapes) = store("shapes");
    let (_folder, meters) = store("meters");
    let minutes = |n: u64| Duration::from_secs(60 * n);
    let day = |m: &str| Query::measurement(m).range(at(0), at(86_400));
    let early = |m: &str| Query::measurement(m).range(at(0), at(1200));
    let gaps = || Query::measurement("gaps").field("x").range(at(0), at(960));
    let of = |aggregate| gaps().window(minutes(4)).aggregate(aggregate);
    let basic = |seconds, field: Option<&str>| {
        let all = Query::measurement("basic").range(at(0), at(105)).window(Duration::from_secs(seconds));
        field.map_or(all.clone(), |f| all.field(f))
    };
    let mean = Aggregate::Mean;
    let as_are = Times::AsTheyAre;
    let grid = || Query::measurement("energy").field("power_watts").tag("device_id", "grid");
    let hours = grid().range(at(115_200), at(140_400)).window(minutes(60)).aggregate(mean);
    let nano = Query::measurement("nano")
        .range(Timestamp::from_nanos(DAY * SECOND + 1), Timestamp::from_nanos(DAY * SECOND + 1000));
    let thursday =
        Query::measurement("phm").tag("metric", "bearing_temp").range(at(3 * 86_400), at(4 * 86_400));
    let cut = Query::measurement("gaps").field("x").range(at(30), at(570));
    // The recording, its question, and how its windows are named.
    let cases: &[(&str, Query, Times)] = &[
        ("points-a-nanosecond-apart", day("nano"), as_are),
        ("points-written-out-of-order-and-twice", day("unsorted"), as_are),
        ("range-nanosecond-bounds", nano, as_are),
        ("several-fields-and-types-of-one-series", day("single"), as_are),
        ("filter-index-syntax-and-constant-first", thursday, as_are),
        ("limit-is-per-table", early("rank").limit(1), as_are),
        ("tail", early("rank").limit(1).descending(), as_are),
        ("last-of-every-type", early("basic").latest(), as_are),
        ("time-src-start", of(mean), as_are),
        ("create-empty-false-count", of(Aggregate::Count), Times::Ends(240, 0)),
        ("create-empty-false-mean", of(mean), Times::Ends(240, 0)),
        ("fn-sum", of(Aggregate::Sum), Times::Ends(240, 0)),
        ("fn-min", of(Aggregate::Min), Times::Ends(240, 0)),
        ("fn-max", of(Aggregate::Max), Times::Ends(240, 0)),
        ("fn-first", of(Aggregate::First), Times::Ends(240, 0)),
        ("fn-last", of(Aggregate::Last), Times::Ends(240, 0)),
        ("ints-sum", basic(30, Some("i")).aggregate(Aggregate::Sum), Times::Ends(30, 0)),
        ("uints-sum", basic(30, Some("u")).aggregate(Aggregate::Sum), Times::Ends(30, 0)),
        ("every-type-last", basic(60, None).aggregate(Aggregate::Last), Times::Ends(60, 0)),
        ("offset", of(Aggregate::Sum).offset(minutes(1)), Times::Ends(240, 60)),
        ("range-not-aligned", cut.window(minutes(4)).aggregate(Aggregate::Sum), Times::Ends(240, 0)),
        ("every-longer-than-the-range", gaps().window(minutes(60)).aggregate(mean), Times::Ends(3600, 0)),
        (
            "nothing-matched",
            Query::measurement("nowhere").range(at(0), at(960)).window(minutes(4)).aggregate(mean),
            Times::Ends(240, 0),
        ),
        (
            "create-empty-then-fill-previous",
            gaps().window(minutes(2)).aggregate(Aggregate::Last).fill(Fill::Previous),
            Times::Ends(120, 0),
        ),
        ("fn-mean-then-fill", of(mean).fill(Fill::Value(0.0)), Times::Ends(240, 0)),
        ("gap-filled-hourly-power", hours.fill(Fill::Previous), as_are),
    ];
    for (name, query, times) in cases {
        let query = query.check().unwrap();
        let (bucket, store) =
            if ["gap-filled-hourly-power", "filter-index-syntax-and-constant-first"].contains(name) {
                ("meters", &meters)
            } else {
                ("shapes", &shapes)
            };
        let expected = query.ask_store(store, bucket).unwrap();
        let recorded = std::fs::read_to_string(fixtures().join(name).with_extension("csv")).unwrap();
        // Windows without readings have rows without a value.
        let (recorded, rows) = by_starts(&recorded, *times);
        assert_eq!(expected.iter().map(|s| s.values.len()).sum::<usize>(), rows, "{name}: {expected:?}");
        let mut dialogue = Dialogue::flux(query, "my-org", bucket).unwrap();
        // For types, numbers and strings alike: each takes from it what it asked for.
        while dialogue.next_ask().is_some() {
            for piece in recorded.as_bytes().chunks(7) {
                dialogue.feed(piece).unwrap();
            }
            dialogue.end().unwrap();
        }
        assert_same(name, &expected, &dialogue.finish().unwrap());
    }
}

/// A server whose columns of strings are built as 2.8 builds them: equal values are kept as one with a count, and when the first
/// value that differs is empty, it is lost.
struct Server28 {
    /// Field, time, value.
    rows: Vec<(&'static str, i64, Value)>,
}

impl Server28 {
    fn answer(&self, script: &str) -> String {
        let has = |text: &str| script.contains(text);
        let mut fields: Vec<&str> = self.rows.iter().map(|row| row.0).collect();
        fields.dedup();
        let mut csv = String::new();
        for field in fields {
            let named = script.contains("r[\"_field\"] ==");
            if (named && !has(&format!("r[\"_field\"] == \"{field}\"")))
                || has(&format!("r[\"_field\"] != \"{field}\""))
            {
                continue;
            }
            let is_empty = |value: &Value| *value == Value::String("".into());
            let fits = |value: &Value| match (has("r[\"_value\"] == \"\""), has("r[\"_value\"] != \"\"")) {
                // A value of another type does not match.
                (true, _) => is_empty(value),
                (_, true) => matches!(value, Value::String(_)) && !is_empty(value),
                _ => true,
            };
            let rows = self.rows.iter().filter(|row| row.0 == field && fits(&row.2));
            let rows: Vec<(i64, Value)> = rows.map(|row| (row.1, row.2.clone())).collect();
            self.steps(script, field, rows, &mut csv);
        }
        csv + "\r\n"
    }

    fn steps(&self, script: &str, field: &str, mut rows: Vec<(i64, Value)>, csv: &mut String) {
        let number = |after: &str| {
            let rest = &script[script.find(after)? + after.len()..];
            rest[..rest.find(|c: char| !c.is_ascii_digit())?].parse::<i64>().ok()
        };
        if script.ends_with("|> last()") && !script.contains("window(") {
            rows = rows.pop().into_iter().collect();
        }
        if let Some(every) = number("every: ") {
            let offset = number("offset: ").unwrap_or(0);
            let start = |time: i64| (time - offset).div_euclid(every) * every + offset;
            let mut windows: Vec<Vec<(i64, Value)>> = Vec::new();
            for row in rows {
                match windows.last_mut().filter(|w| start(w[0].0) == start(row.0)) {
                    Some(window) => window.push(row),
                    None => windows.push(vec![row]),
                }
            }
            let one = |window: Vec<(i64, Value)>| {
                let of_count = Value::Integer(window.len() as i64);
                let (first, last) = (window[0].clone(), window[window.len() - 1].clone());
                let (time, value) = match () {
                    () if script.contains("count") => (first.0, of_count),
                    () if script.contains("mean") => {
                        let sum: f64 = window.iter().filter_map(|row| row.1.as_f64()).sum();
                        (first.0, Value::Float(sum / window.len() as f64))
                    }
                    () if script.contains("first") => first,
                    () => last,
                };
                let at_start = script.contains("timeSrc: \"_start\"");
                (if at_start { start(time).max(DAY * SECOND) } else { time }, value)
            };
            if script.contains("|> window(") {
                // Each window is a table of its own.
                return windows.into_iter().for_each(|window| table(field, vec![one(window)], csv));
            }
            rows = windows.into_iter().map(one).collect();
        }
        if let Some(limit) = number("limit(n: ") {
            rows.truncate(limit as usize);
        }
        if let Some(limit) = number("tail(n: ") {
            rows.drain(..rows.len().saturating_sub(limit as usize));
        }
        table(field, rows, csv);
    }
}

fn table(field: &str, rows: Vec<(i64, Value)>, csv: &mut String) {
    let (times, mut values): (Vec<i64>, Vec<Value>) = rows.into_iter().unzip();
    let Some(first) = values.first() else { return };
    let (of, empty) = match first {
        Value::String(_) => ("string", Value::String("".into())),
        Value::Integer(_) => ("long", Value::Integer(i64::MIN)),
        _ => ("double", Value::Float(f64::NAN)),
    };
    if let Some(differs) = values.iter().position(|value| value != first)
        && values[differs] == empty
    {
        values.remove(differs);
    }
    csv.push_str(&format!(
        "#datatype,string,long,dateTime:RFC3339,{of},string,string\r\n#group,false,false,false,false,true,true\r\n\
         #default,_result,,,,,\r\n,result,table,_time,_value,_field,_measurement\r\n"
    ));
    for (time, value) in times.into_iter().zip(values) {
        let value = match value {
            Value::String(text) => text.to_string(),
            Value::Integer(n) => n.to_string(),
            value => value.as_f64().unwrap().to_string(),
        };
        let time = Timestamp::from_nanos(time);
        csv.push_str(&format!(",,0,{time},{value},{field},alarm\r\n"));
    }
    csv.push_str("\r\n");
}

#[test]
fn empty_strings_among_others_come_at_their_times() {
    let minute = 60 * SECOND;
    let histories: [&[&str]; 8] = [
        &["E1", "", "E2", "E3"],
        &["E1", "E1", "", "", "E1"],
        &["", "E1", "", "E2"],
        &["", "", ""],
        &["E1", "E2", "", "E3", ""],
        &["E1", ""],
        &["", "E1"],
        &["E1", "E1", "", "E2", "", "E2", "E2", "", "E3"],
    ];
    for (round, history) in histories.iter().enumerate() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path(), StoreOptions::default()).unwrap();
        store.ensure_bucket("b").unwrap();
        let mut lines = String::new();
        let (mut texts, mut levels) = (Vec::new(), Vec::new());
        for (i, text) in history.iter().enumerate() {
            let time = DAY * SECOND + i as i64 * minute;
            lines.push_str(&format!("alarm text=\"{text}\",level={i}.5 {time}\n"));
            texts.push(("text", time, Value::String((*text).into())));
            levels.push(("level", time, Value::Float(i as f64 + 0.5)));
        }
        store.write_lines("b", lines.as_bytes(), &WriteOptions::now()).unwrap();
        let server = Server28 { rows: levels.into_iter().chain(texts).collect() };
        let all = || Query::measurement("alarm").range(at(0), at(3600));
        let windows =
            |minutes: u64, aggregate| all().window(Duration::from_secs(60 * minutes)).aggregate(aggregate);
        let mut queries = vec![all(), all().field("text"), all().field("level"), all().latest()];
        for limit in 1..4 {
            queries.extend([all().limit(limit), all().limit(limit).descending()]);
        }
        for aggregate in [Aggregate::First, Aggregate::Last, Aggregate::Count] {
            for minutes in [1, 2, 3, 60] {
                queries.push(windows(minutes, aggregate));
                queries.push(windows(minutes, aggregate).offset(Duration::from_secs(60)));
                queries.push(windows(minutes, aggregate).fill(Fill::Previous));
                queries.push(windows(minutes, aggregate).limit(2));
            }
        }
        queries.push(windows(2, Aggregate::Mean));
        for query in queries {
            let checked = query.check().unwrap();
            let expected = checked.ask_store(&store, "b").unwrap();
            let mut dialogue = Dialogue::flux(checked, "o", "b").unwrap();
            while let Some(ask) = dialogue.next_ask() {
                let body: serde_json::Value = serde_json::from_slice(&ask.body).unwrap();
                let script = body["query"].as_str().unwrap();
                dialogue.feed(server.answer(script).as_bytes()).unwrap();
                dialogue.end().unwrap();
            }
            assert_same(&format!("{round}: {query:?}"), &expected, &dialogue.finish().unwrap());
        }
    }
}

#[test]
fn a_recorded_server_compares_values_with_strings_as_the_split_needs_it() {
    let values = |name: &str, condition: &str| -> Vec<String> {
        let script = std::fs::read_to_string(fixtures().join(name).with_extension("flux")).unwrap();
        assert!(script.contains(condition), "{script}");
        let mut reader = graylogic_influxdb::FluxReader::new();
        reader.feed(&std::fs::read(fixtures().join(name).with_extension("csv")).unwrap()).unwrap();
        reader.finish();
        let mut values = Vec::new();
        while let Some(item) = reader.next_item().unwrap() {
            if let graylogic_influxdb::FluxItem::Record(row) = item {
                values.extend(row.value().map(|value| format!("{value:?}")));
            }
        }
        values
    };
    // Fields of numbers in the same range do not match, and are no error.
    let equal = values("filter-value-string-equality-over-all-fields", "r._value == \"Wh\"");
    assert!(equal.len() == 4 && equal.iter().all(|v| v.starts_with("String(")), "{equal:?}");
    let first = values("first-of-strings-that-are-not-empty", "and r._value != \"\")");
    assert!(first.iter().all(|v| v.contains("shut")) && !first.is_empty(), "{first:?}");
}
