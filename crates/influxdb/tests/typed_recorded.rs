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
        assert!(dialogue.next_ask().is_some());
        for piece in recorded.as_bytes().chunks(7) {
            dialogue.feed(piece).unwrap();
        }
        dialogue.end().unwrap();
        assert_same(name, &expected, &dialogue.finish().unwrap());
    }
}
