//! What the store computes from readings: sums and means, from every layer and over every cut.
#![allow(clippy::unwrap_used, missing_docs)]

use graylogic_line::{Precision, Timestamp};
use graylogic_store::{Matcher, Selector, Store, StoreOptions, TimeRange, Value, Windows, WriteOptions};
use std::path::Path;
use std::time::Duration;

const SECOND: i64 = 1_000_000_000;
const START: i64 = 1_700_000_000 / 86_400 * 86_400 * SECOND;

fn open(folder: &Path) -> Store {
    let store = Store::open(folder, StoreOptions::default()).unwrap();
    store.ensure_bucket("b").unwrap();
    store
}

/// Runs a check on readings in the tail, in sealed chunks, in compacted chunks, and after each is opened again.
fn in_every_layer(body: &str, check: impl Fn(&Store, &str)) {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let report = store.write_lines("b", body.as_bytes(), &WriteOptions::now().any_time()).unwrap();
    assert_eq!(report.rejected, []);
    check(&store, "in the tail");
    store.seal().unwrap();
    check(&store, "sealed");
    drop(store);
    let store = open(folder.path());
    check(&store, "sealed and opened again");
    store.compact().unwrap();
    check(&store, "compacted");
    drop(store);
    let store = open(folder.path());
    check(&store, "compacted and opened again");
    assert_eq!(store.verify().unwrap().damage, [""; 0]);
}

/// Each window's sum of `field` against the exact one, and its mean.
fn check_sums(store: &Store, field: &str, known: &[(i64, i128)], every: i64, layer: &str) {
    let windows = Windows::every(Duration::from_nanos(every as u64)).unwrap();
    let found = store.windows(&Selector::bucket("b").field(field), TimeRange::all(), &windows).unwrap();
    let mut counted = 0;
    for window in &found[0].windows {
        let inside = |t: &&(i64, i128)| (window.start.as_nanos()..window.stop.as_nanos()).contains(&t.0);
        let values: Vec<i128> = known.iter().filter(inside).map(|v| v.1).collect();
        counted += values.len();
        let (exact, summary) = (values.iter().sum::<i128>(), &window.summary);
        let context = format!("{field} in windows of {every} ns, {layer}");
        let fits = match summary.first.1 {
            Value::Unsigned(_) => u64::try_from(exact).ok().map(Value::Unsigned),
            _ => i64::try_from(exact).ok().map(Value::Integer),
        };
        match (summary.sum(), fits) {
            (Ok(sum), fits) => assert_eq!(sum, fits, "{context}"),
            (Err(error), None) => {
                assert!(error.is_overflow(), "{context}: {error}");
                assert!(error.to_string().contains(&exact.to_string()), "{context}: {error}");
            }
            (Err(error), Some(sum)) => panic!("{context}: {error}, but the sum is {sum:?}"),
        }
        let mean = exact as f64 / values.len() as f64;
        assert_eq!(summary.mean().unwrap(), Some(mean), "{context}");
    }
    assert_eq!(counted, known.len(), "{field}, {layer}");
}

#[test]
fn sums_of_integers_are_exact_or_an_error_and_their_means_are_right() {
    // Unsigned values that all lie near the top, values whose sum fits although a part of it does not, and values from
    // end to end, whose sum is not known from the bits that a chunk keeps of it.
    let top = |i: i64| u64::MAX - (i % 3) as u64;
    let sway = |i: i64| if i % 2 == 0 { i64::MAX - i } else { i64::MIN + i };
    let wide = |i: i64| if i % 3 == 0 { 0 } else { u64::MAX - i as u64 };
    let low = |i: i64| i64::MIN + i % 5;
    let times: Vec<i64> = (0..3000).map(|i| START + i * 10 * SECOND).collect();
    let line = |(i, t): (i64, &i64)| {
        let (top, sway, wide, low) = (top(i), sway(i), wide(i), low(i));
        format!("m top={top}u,sway={sway}i,wide={wide}u,low={low}i,small={i}i {t}\n")
    };
    let body: String = (0..).zip(&times).map(line).collect();
    let known = |of: &dyn Fn(i64) -> i128| -> Vec<(i64, i128)> {
        (0..).zip(&times).map(|(i, &t)| (t, of(i))).collect()
    };
    let columns = [
        ("top", known(&|i| i128::from(top(i)))),
        ("sway", known(&|i| i128::from(sway(i)))),
        ("wide", known(&|i| i128::from(wide(i)))),
        ("low", known(&|i| i128::from(low(i)))),
        ("small", known(&|i| i128::from(i))),
    ];
    in_every_layer(&body, |store, layer| {
        for (field, known) in &columns {
            for every in [10 * SECOND, 70 * SECOND, 3600 * SECOND, 86_400 * SECOND, 900_000 * SECOND] {
                check_sums(store, field, known, every, layer);
            }
        }
    });
}

#[test]
fn a_sum_of_floats_that_no_float_holds_is_an_error() {
    let body = format!("m f=1e308 {START}\nm f=1.5e308 {}\nm f=-1e308 {}", START + 1, START + 2);
    in_every_layer(&body, |store, layer| {
        let of = |from: i64, to: i64| {
            let at = |t| Timestamp::from_nanos(START + t);
            let range = TimeRange::new(at(from), at(to));
            let found = store.windows(&Selector::bucket("b"), range, &Windows::whole()).unwrap();
            found[0].windows[0].summary.clone()
        };
        assert!(of(0, 2).sum().unwrap_err().is_overflow(), "{layer}");
        assert!(of(0, 2).mean().unwrap_err().is_overflow(), "{layer}");
        assert_eq!(of(1, 3).sum().unwrap(), Some(Value::Float(0.5e308)), "{layer}");
    });
}

#[test]
fn lines_without_a_timestamp_are_all_stored() {
    let folder = tempfile::tempdir().unwrap();
    let at = |nanos| Timestamp::from_nanos(nanos);
    // A clock that stands still, so that only the store can tell lines apart.
    let options = StoreOptions::default().clock(move || at(START));
    let store = Store::open(folder.path(), options).unwrap();
    store.create_bucket("b").unwrap();
    let body = b"m,t=a f=1\nm,t=a f=2\nm,t=a f=3\nm,t=b f=4\nm,t=a f=5 77";
    let seconds = WriteOptions { precision: Precision::Seconds, ..WriteOptions::now().any_time() };
    for options in [WriteOptions::now().any_time(), WriteOptions::now().any_time(), seconds] {
        let report = store.write_lines("b", body, &options).unwrap();
        assert_eq!((report.rejected_count, report.overwritten), (0, 0));
        assert_eq!((report.points, report.values), (5, 5));
    }
    let later = WriteOptions { default_time: Some(at(START + SECOND)), ..WriteOptions::now().any_time() };
    store.write_lines("b", b"m,t=a f=6\nm,t=a f=7", &later).unwrap();
    let selector = Selector::bucket("b").tag("t", Matcher::equal("a"));
    let range = TimeRange::new(at(START), at(i64::MAX));
    let blocks: Vec<_> = store.scan(&selector, range).unwrap().map(Result::unwrap).collect();
    let expected = [0, 1, 2, 4, 5, 6, 8, 9, 10, SECOND, SECOND + 1].map(|n| START + n);
    assert_eq!(blocks[0].times, expected);
}

#[test]
fn a_report_counts_what_is_stored() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let cases: [(&str, u64, u64, u64); 6] = [
        ("m f=1 1\nm f=2 2\nm g=3 2", 3, 3, 0),
        ("m f=1 10\nm f=2 10\nm f=3 10", 1, 1, 2),
        ("m f=1,g=1 20\nm f=2 20", 2, 2, 0),
        ("m f=1,f=2 30", 1, 1, 0),
        ("m,a=1,b=2 f=1 40\nm,b=2,a=1 f=2 40", 1, 1, 1),
        ("m f=1 51\nm f=1 50\nm f=2 51\nm f= 52", 2, 2, 1),
    ];
    let mut values = 0;
    for (body, points, stored, overwritten) in cases {
        let report = store.write_lines("b", body.as_bytes(), &WriteOptions::now().any_time()).unwrap();
        let counts = (report.points, report.values, report.overwritten);
        assert_eq!(counts, (points, stored, overwritten), "{body}");
        values += stored;
    }
    let found = store.scan(&Selector::bucket("b"), TimeRange::all()).unwrap();
    assert_eq!(found.map(|b| b.unwrap().times.len() as u64).sum::<u64>(), values);
    assert_eq!(store.stats().unwrap().written_total, values);
}

#[test]
fn a_line_that_is_too_wide_is_rejected_with_the_limit_and_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let list = |prefix: &str, n: usize| -> String {
        (0..n).map(|i| format!("{prefix}{i}=1")).collect::<Vec<_>>().join(",")
    };
    let long = "x".repeat(50_000);
    let cases = [
        (format!("tags,{} f=1 1", list("t", 513)), "the limit is 512"),
        (format!("fields {} 1", list("f", 100_001)), "more than 100000 fields"),
        (format!("both,t={long} {} 1", list("f", 400)), "the limit is 16777216 bytes"),
    ];
    for (line, reason) in &cases {
        let report = store.write_lines("b", line.as_bytes(), &WriteOptions::now().any_time()).unwrap();
        assert_eq!((report.points, report.rejected_count), (0, 1));
        assert!(report.rejected[0].reason.contains(reason), "{}", report.rejected[0].reason);
    }
    assert_eq!(store.series(&Selector::bucket("b")).unwrap().len(), 0);
    // What is just below the limits is stored, in several records of the log if it must be, and is there afterwards.
    let wide: String = (0..9).map(|i| format!("both,t={i}{long} {} 1\n", list("f", 300))).collect();
    let body = format!("tags,{} f=1 1\n{wide}", list("t", 512));
    let report = store.write_lines("b", body.as_bytes(), &WriteOptions::now().any_time()).unwrap();
    assert_eq!((report.points, report.rejected_count, report.overwritten), (10, 0, 0));
    drop(store);
    assert_eq!(open(folder.path()).series(&Selector::bucket("b")).unwrap().len(), 2701);
}

#[test]
fn compaction_makes_no_store_larger() {
    let minute = 60 * SECOND;
    let wave = |i: i64| ((i * 7919) % 211 - 100) as f64 / 10.0;
    type Of<'a> = &'a dyn Fn(i64) -> String;
    let sets: [(&str, i64, i64, Of<'_>); 7] = [
        ("each ten seconds", 20_000, 10 * SECOND, &|i| format!("f={}", wave(i))),
        ("each minute", 20_000, minute, &|i| format!("f={},i={i}i", wave(i))),
        ("each quarter of an hour", 6000, 15 * minute, &|i| format!("f={},b={}", wave(i), i % 3 == 0)),
        ("hourly, then without a pattern", 5000, 60 * minute, &|i| {
            if i < 2500 { format!("f={}", i % 7) } else { format!("f={}", (i as f64).sqrt()) }
        }),
        ("daily", 3000, 1440 * minute, &|i| format!("f={},s=\"state {}\"", wave(i), i % 4)),
        ("irregular", 5000, 1, &|i| format!("f={} {}", wave(i), START + i * i % 90_001 * minute)),
        ("three readings", 3, minute, &|i| format!("f={i},s=\"one\",u={i}u")),
    ];
    for (name, n, step, of) in sets {
        let folder = tempfile::tempdir().unwrap();
        let store = open(folder.path());
        let lines: Vec<String> = (0..n)
            .map(|i| {
                let fields = of(i);
                let time = if fields.contains(' ') && !fields.contains('"') {
                    String::new()
                } else {
                    format!(" {}", START + i * step)
                };
                (0..3).map(|t| format!("m,t={t} {fields}{time}\n")).collect()
            })
            .collect();
        for batch in lines.chunks(500) {
            store.write_lines("b", batch.concat().as_bytes(), &WriteOptions::now().any_time()).unwrap();
        }
        store.seal().unwrap();
        let before = store.stats().unwrap();
        store.compact().unwrap();
        let after = store.stats().unwrap();
        let (from, to) = (before.bytes_on_disk, after.bytes_on_disk);
        // The file has whole pages: the last of them may be a new one. And the log gets a mark of the commits.
        let page_and_mark = 16_384 + 4096;
        assert!(to <= from + page_and_mark, "{name}: {from} bytes became {to}");
        // Nothing is left to do: a second time adds no more than a record of the log.
        store.compact().unwrap();
        let again = store.stats().unwrap().bytes_on_disk;
        assert!(again <= to + page_and_mark, "{name}: {to} bytes became {again}");
        assert_eq!(store.verify().unwrap().damage, [""; 0], "{name}");
    }
}
