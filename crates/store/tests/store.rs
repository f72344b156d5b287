//! The store from outside: what goes in comes out, from every layer, after every kind of end.
#![allow(clippy::unwrap_used, missing_docs)]

use graylogic_line::{Precision, Timestamp};
use graylogic_store::{
    BadLine, Matcher, RejectKind, Selector, State, Store, StoreOptions, Sync, TimeRange, Value, Values,
    Windows, WriteOptions,
};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

const SECOND: i64 = 1_000_000_000;

fn open(folder: &Path) -> Store {
    let store = Store::open(folder, StoreOptions::default()).unwrap();
    store.ensure_bucket("b").unwrap();
    store
}

fn write(store: &Store, body: &str) {
    let report = store.write_lines("b", body.as_bytes(), &WriteOptions::now().any_time()).unwrap();
    assert_eq!(report.rejected, [], "{body}");
}

fn all() -> Selector {
    Selector::bucket("b")
}

fn time(nanos: i64) -> Timestamp {
    Timestamp::from_nanos(nanos)
}

/// Every reading as text, in the order of the answer.
fn dump(store: &Store, selector: &Selector, range: TimeRange) -> Vec<String> {
    let mut out = Vec::new();
    for block in store.scan(selector, range).unwrap() {
        let block = block.unwrap();
        let s = &block.series;
        let tags: String = s.tags().map(|(k, v)| format!(",{k}={v}")).collect();
        for (i, t) in block.times.iter().enumerate() {
            let value = match block.values.get(i) {
                Value::Float(v) => format!("{v:?}"),
                Value::Integer(v) => format!("{v}i"),
                Value::Unsigned(v) => format!("{v}u"),
                Value::Boolean(v) => v.to_string(),
                Value::String(v) => format!("{v:?}"),
                _ => unreachable!("five types"),
            };
            out.push(format!("{}{tags} {}={value} {t}", s.measurement(), s.field()));
        }
    }
    out
}

/// Runs a check in memory, after a reopen, after sealing, and after sealing and reopening.
fn in_every_layer(body: &str, check: impl Fn(&Store, &str)) {
    let folder = tempfile::tempdir().unwrap();
    {
        let store = open(folder.path());
        write(&store, body);
        check(&store, "in the tail");
    }
    {
        let store = open(folder.path());
        check(&store, "replayed from the log");
        store.seal().unwrap();
        check(&store, "sealed");
    }
    check(&open(folder.path()), "reopened from chunks");
}

#[test]
fn all_five_types_come_back_from_every_layer() {
    let body = "m,t=a f=1.5,i=-7i,u=18446744073709551615u,b=true,s=\"auf \\\"zu\\\" 🛠\" 10\n\
                m,t=a f=-0.0,i=9i,u=0u,b=false,s=\"\" 20\n";
    let expected = [
        "m,t=a b=true 10",
        "m,t=a b=false 20",
        "m,t=a f=1.5 10",
        "m,t=a f=-0.0 20",
        "m,t=a i=-7i 10",
        "m,t=a i=9i 20",
        "m,t=a s=\"auf \\\"zu\\\" 🛠\" 10",
        "m,t=a s=\"\" 20",
        "m,t=a u=18446744073709551615u 10",
        "m,t=a u=0u 20",
    ];
    in_every_layer(body, |store, layer| {
        assert_eq!(dump(store, &all(), TimeRange::all()), expected, "{layer}");
        let latest: Vec<Value> = store.latest(&all()).unwrap().into_iter().map(|l| l.value).collect();
        let expected = [
            Value::Boolean(false),
            Value::Float(-0.0),
            Value::Integer(9),
            Value::String("".into()),
            Value::Unsigned(0),
        ];
        assert_eq!(latest, expected, "{layer}");
    });
}

#[test]
fn matchers_choose_series() {
    let body = "energy,room=bad,floor=1 w=1 1\nenergy,room=küche,floor=1 w=2 1\nenergy,room=flur w=3 1\n\
                energy w=4 1\nphm,room=bad v=5 1\nphm,room=bad w=6 1\n";
    let regex = |r: &str| Matcher::regex(r).unwrap();
    let cases: Vec<(Selector, &[f64])> = vec![
        (all(), &[4.0, 1.0, 2.0, 3.0, 5.0, 6.0]),
        (all().measurement("energy"), &[4.0, 1.0, 2.0, 3.0]),
        (all().measurement("nothing"), &[]),
        (all().field("w"), &[4.0, 1.0, 2.0, 3.0, 6.0]),
        (all().tag("room", Matcher::equal("bad")), &[1.0, 5.0, 6.0]),
        (all().tag("room", Matcher::not_equal("bad")), &[4.0, 2.0, 3.0]),
        (all().tag("room", Matcher::equal("")), &[4.0]),
        (all().tag("room", Matcher::not_equal("")), &[1.0, 2.0, 3.0, 5.0, 6.0]),
        (all().tag("room", regex("^(bad|flur)$")), &[1.0, 3.0, 5.0, 6.0]),
        (all().tag("room", regex("ü")), &[2.0]),
        (all().tag("room", Matcher::not_regex("a").unwrap()), &[4.0, 2.0, 3.0]),
        (all().tag("room", regex("^$")), &[4.0]),
        (all().tag("room", Matcher::equal("bad")).tag("floor", Matcher::equal("1")), &[1.0]),
        (all().tag("room", Matcher::equal("bad")).tag("floor", Matcher::not_equal("1")), &[5.0, 6.0]),
        (all().measurement_matching(regex("^p")).field("v"), &[5.0]),
        (all().field_matching(Matcher::not_equal("w")), &[5.0]),
    ];
    in_every_layer(body, |store, layer| {
        for (selector, expected) in &cases {
            let mut got: Vec<f64> =
                store.latest(selector).unwrap().iter().filter_map(|l| l.value.as_f64()).collect();
            let mut expected = expected.to_vec();
            got.sort_by(f64::total_cmp);
            expected.sort_by(f64::total_cmp);
            assert_eq!(got, expected, "{layer}: {selector:?}");
        }
    });
    assert!(Matcher::regex("(").unwrap_err().is_invalid());
}

#[test]
fn the_last_of_several_readings_of_one_time_wins_in_every_layer() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    write(&store, "m f=1,g=1 10\nm f=1 30");
    store.seal().unwrap();
    write(&store, "m f=2 10\nm f=3 20");
    store.seal().unwrap();
    write(&store, "m f=4 20\nm f=5 20\nm g=7 10\nm f=9 5");
    let expected = ["m f=9.0 5", "m f=2.0 10", "m f=5.0 20", "m f=1.0 30", "m g=7.0 10"];
    assert_eq!(dump(&store, &all(), TimeRange::all()), expected);
    let whole = store.windows(&all().field("f"), TimeRange::all(), &Windows::whole()).unwrap();
    let summary = &whole[0].windows[0].summary;
    assert_eq!((summary.count, summary.sum().unwrap()), (4, Some(Value::Float(17.0))));
    assert_eq!((summary.first.1.clone(), summary.last.1.clone()), (Value::Float(9.0), Value::Float(1.0)));
    store.seal().unwrap();
    drop(store);
    assert_eq!(dump(&open(folder.path()), &all(), TimeRange::all()), expected);
}

#[test]
fn windows_are_cut_as_influxdb_cuts_them() {
    let body: String = (0..10)
        .map(|i| format!("m f={i},i={i}i,b={},s=\"v{i}\" {}\n", i % 2 == 0, (i * 25 - 30) * SECOND))
        .collect();
    in_every_layer(&body, |store, layer| {
        let range = TimeRange::new(time(-20 * SECOND), time(180 * SECOND));
        let minutes = Windows::every(Duration::from_secs(60)).unwrap();
        let windows = |field: &str, cut: &Windows| {
            let found = store.windows(&all().field(field), range, cut).unwrap();
            found.into_iter().next().map(|s| s.windows).unwrap_or_default()
        };
        let bounds: Vec<(i64, i64, u64)> = windows("f", &minutes)
            .iter()
            .map(|w| (w.start.as_nanos() / SECOND, w.stop.as_nanos() / SECOND, w.summary.count))
            .collect();
        // Readings at -30 (before the range), -5, 20, 45, 70, 95, 120, 145, 170, 195 (after it).
        assert_eq!(bounds, [(-20, 0, 1), (0, 60, 2), (60, 120, 2), (120, 180, 3)], "{layer}");
        let means: Vec<f64> =
            windows("f", &minutes).iter().filter_map(|w| w.summary.mean().unwrap()).collect();
        assert_eq!(means, [1.0, 2.5, 4.5, 7.0], "{layer}");
        let of_booleans = windows("b", &minutes);
        assert_eq!(of_booleans[3].summary.sum().unwrap(), Some(Value::Unsigned(2)), "{layer}");
        assert_eq!(of_booleans[3].summary.mean().unwrap(), Some(2.0 / 3.0), "{layer}");
        let of_strings = windows("s", &minutes);
        assert_eq!(of_strings[3].summary.last.1, Value::String("v8".into()), "{layer}");
        assert_eq!(of_strings[3].summary.mean().unwrap(), None, "{layer}");
        let shifted = Windows::every_offset(Duration::from_secs(60), Duration::from_secs(90)).unwrap();
        let starts: Vec<i64> = windows("i", &shifted).iter().map(|w| w.start.as_nanos() / SECOND).collect();
        assert_eq!(starts, [-20, 30, 90, 150], "{layer}");
        let local = Windows::bounds([0, 50, 160].map(|s| time(s * SECOND))).unwrap();
        let counts: Vec<u64> = windows("i", &local).iter().map(|w| w.summary.count).collect();
        assert_eq!(counts, [2, 4], "{layer}");
    });
    assert!(Windows::every(Duration::ZERO).unwrap_err().is_invalid());
    assert!(Windows::bounds([time(1), time(1)]).unwrap_err().is_invalid());
}

#[test]
fn a_conflicting_type_is_named_and_the_rest_of_the_batch_is_stored() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    write(&store, "m,t=a v=1.5 1");
    let body = b"m,t=b v=2.5 2\nm,t=b w=1,v=7i 3\nm,t=c v=\"x\" 4\nn v=7i 5";
    let report = store.write_lines("b", body, &WriteOptions::now().any_time()).unwrap();
    assert_eq!((report.points, report.rejected_count, report.refused), (2, 2, false));
    let reasons: Vec<(usize, &str)> = report.rejected.iter().map(|r| (r.line, r.reason.as_str())).collect();
    assert_eq!(
        reasons,
        [
            (
                2,
                "field type conflict: input field \"v\" on measurement \"m\" is type integer, already exists as type float"
            ),
            (
                3,
                "field type conflict: input field \"v\" on measurement \"m\" is type string, already exists as type float"
            ),
        ]
    );
    assert_eq!(dump(&store, &all(), TimeRange::all()), ["m,t=a v=1.5 1", "m,t=b v=2.5 2", "n v=7i 5"]);
    // The refused line fixed no type for its other field.
    write(&store, "m w=\"text\" 6");
}

#[test]
fn a_bad_line_refuses_the_batch_or_only_itself() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let body = b"m f=1 1\nm,t f=2 2\nm f= 3\n# note\n\nm f=1i 4\nm f=4 5";
    let refuse = WriteOptions { on_bad_line: BadLine::RefuseBatch, ..WriteOptions::now().any_time() };
    let report = store.write_lines("b", body, &refuse).unwrap();
    assert!(report.refused);
    let reasons: Vec<(usize, &str, RejectKind)> =
        report.rejected.iter().map(|r| (r.line, r.reason.as_str(), r.kind)).collect();
    let unparsable = RejectKind::Unparsable;
    assert_eq!(reasons, [(2, "missing tag value", unparsable), (3, "missing field value", unparsable)]);
    assert_eq!(dump(&store, &all(), TimeRange::all()), [""; 0]);
    // Nothing of the refused batch is remembered, not even the type of its fields.
    write(&store, "m f=\"text\" 1");
    let report = store.write_lines("b", body, &WriteOptions::now().any_time()).unwrap();
    assert_eq!((report.points, report.rejected_count), (0, 5));
    assert_eq!(report.rejected.iter().map(|r| r.line).collect::<Vec<_>>(), [1, 2, 3, 6, 7]);
}

#[test]
fn times_are_scaled_and_missing_ones_are_given() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let options = WriteOptions {
        precision: Precision::Seconds,
        default_time: Some(time(7_500_000_000)),
        ..WriteOptions::now().any_time()
    };
    store.write_lines("b", b"m f=1 3\nm f=2\nm f=3,time=5i 9\nm time=5i 9", &options).unwrap();
    assert_eq!(
        dump(&store, &all(), TimeRange::all()),
        ["m f=1.0 3000000000", "m f=2.0 7500000000", "m f=3.0 9000000000"]
    );
}

#[test]
fn tags_in_any_order_and_spelling_are_one_series() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    write(&store, "m,b=2,a=1 f=1 1\nm,a=1,b=2 f=2 2\nm,a=1,b=2 f=3 3");
    assert_eq!(store.series(&all()).unwrap().len(), 1);
    assert_eq!(store.buckets()[0].series, 1);
}

#[test]
fn ends_of_series_are_found_in_every_layer() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let bounds =
        |store: &Store| store.bounds(&all()).unwrap()[0].1.map(|(a, b)| (a.as_nanos(), b.as_nanos()));
    let month = 30 * 86_400 * SECOND;
    write(&store, &format!("m f=1 {}\nm f=2 {}", 5 * month, 9 * month));
    store.seal().unwrap();
    write(&store, &format!("m f=3 {month}\nm f=4 {}", 7 * month));
    store.seal().unwrap();
    assert_eq!(bounds(&store), Some((month, 9 * month)));
    write(&store, &format!("m f=5 {}", 2 * month));
    drop(store);
    let store = open(folder.path());
    assert_eq!(bounds(&store), Some((month, 9 * month)));
    assert_eq!(store.latest(&all()).unwrap()[0].value, Value::Float(2.0));
    write(&store, &format!("m f=6 {}", 9 * month));
    assert_eq!(store.latest(&all()).unwrap()[0].value, Value::Float(6.0));
}

#[test]
fn unknown_buckets_bad_names_and_double_buckets_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    assert!(store.write_lines("nein", b"m f=1", &WriteOptions::now().any_time()).unwrap_err().is_not_found());
    assert!(store.latest(&Selector::bucket("nein")).unwrap_err().is_not_found());
    assert!(store.create_bucket("b").unwrap_err().is_exists());
    assert!(store.create_bucket("").unwrap_err().is_invalid());
    assert!(store.create_bucket("a\nb").unwrap_err().is_invalid());
    let large = vec![b' '; (32 << 20) + 1];
    assert!(store.write_lines("b", &large, &WriteOptions::now().any_time()).unwrap_err().is_too_large());
}

#[test]
fn a_closed_store_says_so_and_a_second_open_names_the_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let second = Store::open(folder.path(), StoreOptions::default()).unwrap_err();
    assert!(second.is_locked(), "{second}");
    assert!(second.to_string().contains(&format!("process {}", std::process::id())), "{second}");
    write(&store, "m f=1 1");
    store.close().unwrap();
    store.close().unwrap();
    assert!(store.write_lines("b", b"m f=1", &WriteOptions::now().any_time()).unwrap_err().is_closed());
    assert!(store.stats().unwrap_err().is_closed());
    assert_eq!(dump(&open(folder.path()), &all(), TimeRange::all()), ["m f=1.0 1"]);
}

#[test]
fn stats_count_each_value_once_in_every_layer() {
    let body: String = (0..5000).map(|i| format!("m,s={} f={i}.5 {}\n", i % 3, i * SECOND)).collect();
    in_every_layer(&body, |store, layer| {
        let stats = store.stats().unwrap();
        assert_eq!((stats.values, stats.series), (5000, 3), "{layer}");
        assert!(stats.bytes_on_disk > 0);
    });
}

#[test]
fn a_long_series_is_read_in_blocks_of_bounded_length() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    for batch in 0..20 {
        let body: String = (0..5000).map(|i| format!("m f={i} {}\n", (batch * 5000 + i) * SECOND)).collect();
        write(&store, &body);
    }
    store.seal().unwrap();
    let blocks: Vec<usize> =
        store.scan(&all(), TimeRange::all()).unwrap().map(|b| b.unwrap().times.len()).collect();
    assert_eq!(blocks.iter().sum::<usize>(), 100_000);
    assert!(blocks.iter().all(|&n| n <= 8192), "{blocks:?}");
}

#[test]
fn readers_see_every_acknowledged_reading_while_writers_and_the_sealer_work() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), StoreOptions::default().memory_bytes(1 << 20)).unwrap();
    store.create_bucket("b").unwrap();
    std::thread::scope(|scope| {
        for writer in 0..4 {
            let store = store.clone();
            scope.spawn(move || {
                for i in 0..300i64 {
                    let body: String = (0..100)
                        .map(|k| format!("m,w={writer} f={k} {}\n", (i * 100 + k) * SECOND))
                        .collect();
                    write(&store, &body);
                    if i % 20 == 0 {
                        let own = all().tag("w", Matcher::equal(writer.to_string()));
                        let windows = store.windows(&own, TimeRange::all(), &Windows::whole()).unwrap();
                        assert_eq!(windows[0].windows[0].summary.count, (i as u64 + 1) * 100);
                        let n: usize =
                            store.scan(&own, TimeRange::all()).unwrap().map(|b| b.unwrap().times.len()).sum();
                        assert_eq!(n, (i as usize + 1) * 100);
                    }
                }
            });
        }
    });
    assert_eq!(store.stats().unwrap().values, 120_000);
    drop(store);
    let store = open(folder.path());
    assert_eq!(store.recovery().damage, [""; 0]);
    assert_eq!(dump(&store, &all(), TimeRange::all()).len(), 120_000);
}

/// Random writes, late and repeated, with seals and reopens, against a plain map.
#[test]
fn the_store_agrees_with_a_plain_map() {
    use proptest::prelude::*;
    use proptest::test_runner::{Config, TestRunner};

    #[derive(Clone, Debug)]
    enum Step {
        Write(Vec<(u8, u8, i64, i32)>),
        Seal,
        Reopen,
        Ask(i64, i64, i64),
    }
    let reading = (0u8..3, 0u8..2, -50i64..400, any::<i32>());
    let step = prop_oneof![
        6 => proptest::collection::vec(reading, 1..60).prop_map(Step::Write),
        1 => Just(Step::Seal),
        1 => Just(Step::Reopen),
        2 => (-60i64..410, 0i64..300, 1i64..90).prop_map(|(a, n, w)| Step::Ask(a, a + n, w)),
    ];
    let steps = proptest::collection::vec(step, 1..30);
    let mut runner = TestRunner::new(Config { cases: 150, ..Config::default() });
    let run = |steps: Vec<Step>| {
        let folder = tempfile::tempdir().unwrap();
        let mut store = open(folder.path());
        let mut model: BTreeMap<(u8, u8), BTreeMap<i64, i32>> = BTreeMap::new();
        for step in steps.into_iter().chain([Step::Ask(-60, 410, 7), Step::Reopen, Step::Ask(-60, 410, 50)]) {
            match step {
                Step::Write(readings) => {
                    let mut body = String::new();
                    for (series, field, t, v) in readings {
                        body.push_str(&format!("m,s={series} f{field}={v}i {}\n", t * SECOND));
                        model.entry((series, field)).or_default().insert(t, v);
                    }
                    write(&store, &body);
                }
                Step::Seal => store.seal().unwrap(),
                Step::Reopen => {
                    drop(store);
                    store = open(folder.path());
                    prop_assert_eq!(&store.recovery().damage, &Vec::<String>::new());
                }
                Step::Ask(start, stop, every) => {
                    let range = TimeRange::new(time(start * SECOND), time(stop * SECOND));
                    let cut = Windows::every(Duration::from_secs(every as u64)).unwrap();
                    for (&(series, field), readings) in &model {
                        let one =
                            all().field(format!("f{field}")).tag("s", Matcher::equal(series.to_string()));
                        let mut got = Vec::new();
                        for block in store.scan(&one, range).unwrap() {
                            let block = block.unwrap();
                            let Values::Integer(v) = block.values else {
                                unreachable!("integers were written")
                            };
                            got.extend(block.times.iter().map(|t| t / SECOND).zip(v));
                        }
                        let expected: Vec<(i64, i64)> =
                            readings.range(start..stop).map(|(&t, &v)| (t, i64::from(v))).collect();
                        prop_assert_eq!(&got, &expected);
                        let mut by_window: BTreeMap<i64, (u64, i64, i64, i64)> = BTreeMap::new();
                        for &(t, v) in &expected {
                            let w =
                                by_window.entry(t.div_euclid(every)).or_insert((0, 0, i64::MAX, i64::MIN));
                            *w = (w.0 + 1, w.1 + v, w.2.min(v), w.3.max(v));
                        }
                        let found = store.windows(&one, range, &cut).unwrap();
                        let found: Vec<_> =
                            found.iter().flat_map(|s| &s.windows).map(|w| &w.summary).collect();
                        prop_assert_eq!(found.len(), by_window.len());
                        for (summary, &(count, sum, min, max)) in found.iter().zip(by_window.values()) {
                            prop_assert_eq!(summary.count, count);
                            prop_assert_eq!(summary.sum().unwrap(), Some(Value::Integer(sum)));
                            prop_assert_eq!(summary.min.clone(), Some(Value::Integer(min)));
                            prop_assert_eq!(summary.max.clone(), Some(Value::Integer(max)));
                        }
                        let latest = &store.latest(&one).unwrap()[0];
                        let newest = readings.last_key_value().unwrap();
                        prop_assert_eq!(
                            (latest.time.as_nanos() / SECOND, latest.value.clone()),
                            (*newest.0, Value::Integer(i64::from(*newest.1)))
                        );
                    }
                }
            }
        }
        Ok(())
    };
    runner.run(&steps, run).unwrap();
    println!("model: 150 cases against a plain map");
}

#[test]
fn each_write_is_on_the_disk_when_it_returns_if_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), StoreOptions::default().sync(Sync::EachWrite)).unwrap();
    store.create_bucket("b").unwrap();
    write(&store, "m f=1 1");
    drop(store);
    assert_eq!(dump(&open(folder.path()), &all(), TimeRange::all()), ["m f=1.0 1"]);
}

#[test]
fn a_measurement_with_too_many_series_names_the_offender() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), StoreOptions::default().series_max(50)).unwrap();
    store.create_bucket("b").unwrap();
    let body: String = (0..60).map(|i| format!("m,room=r{},request=q{i} f=1 {i}\n", i % 3)).collect();
    let report = store.write_lines("b", body.as_bytes(), &WriteOptions::now().any_time()).unwrap();
    assert_eq!((report.points, report.rejected_count), (50, 10));
    let reason = &report.rejected[0].reason;
    assert!(
        reason.contains("\"m\" has 50 series") && reason.contains("\"request\" has 50 values"),
        "{reason}"
    );
    // Known series and other measurements are taken.
    let more = store
        .write_lines("b", b"m,room=r0,request=q0 f=2 99\nn,a=1 f=1 1", &WriteOptions::now().any_time())
        .unwrap();
    assert_eq!((more.points, more.rejected_count), (2, 0));
}

#[test]
fn questions_go_on_while_chunks_are_compacted_away() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let total: usize = 60_000;
    for batch in 0..12 {
        let body: String =
            (0..5000).map(|i| format!("m f={}.5 {}\n", i % 90, (batch * 5000 + i) * 20 * SECOND)).collect();
        write(&store, &body);
        store.seal().unwrap();
    }
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|threads| {
        for _ in 0..2 {
            threads.spawn(|| {
                let mut asked = 0;
                while !stop.load(std::sync::atomic::Ordering::Relaxed) || asked < 3 {
                    let mut last = i64::MIN;
                    let mut found = 0;
                    for block in store.scan(&all(), TimeRange::all()).unwrap() {
                        let block = block.unwrap();
                        assert!(block.times[0] > last, "in order and once");
                        last = block.times[block.times.len() - 1];
                        found += block.times.len();
                        std::thread::yield_now();
                    }
                    assert_eq!(found, total);
                    let day = Windows::every(std::time::Duration::from_secs(86_400)).unwrap();
                    let windows = store.windows(&all(), TimeRange::all(), &day).unwrap();
                    let count: u64 = windows[0].windows.iter().map(|w| w.summary.count).sum();
                    assert_eq!(count as usize, total);
                    asked += 1;
                }
            });
        }
        for _ in 0..3 {
            store.compact().unwrap();
            // Something late makes the chunks around it be written again.
            write(&store, &format!("m f=7 {}\nm f=8 {}", 20 * SECOND, 700_000 * SECOND));
            store.seal().unwrap();
            store.maintain().unwrap();
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    assert_eq!(store.stats().unwrap().damaged_total, 0);
    assert!(store.verify().unwrap().damage.is_empty());
}

#[test]
fn compaction_makes_days_and_nothing_else_changes() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    for batch in 0..10 {
        let body: String = (0..5000)
            .map(|i| format!("m f={}.25 {}\n", i % 70, (batch * 5000 + i) * 10 * SECOND + i % 20))
            .collect();
        write(&store, &body);
    }
    store.seal().unwrap();
    let before = dump(&store, &all(), TimeRange::all());
    let sealed = store.stats().unwrap();
    store.compact().unwrap();
    let compacted = store.stats().unwrap();
    assert_eq!(dump(&store, &all(), TimeRange::all()), before);
    assert_eq!((sealed.values, compacted.values), (50_000, 50_000));
    assert_eq!(compacted.chunks, 6, "50,000 readings each ten seconds are five days and a bit");
    store.close().unwrap();
    assert_eq!(dump(&open(folder.path()), &all(), TimeRange::all()), before);
}

#[test]
fn the_ends_of_time_are_times_like_any_other() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let (first, last) = (Timestamp::MIN.as_nanos(), Timestamp::MAX.as_nanos());
    let times = [first, first + 1, first + 90 * 60 * SECOND, -1, 0, 1, last - SECOND, last];
    for series in 0..2 {
        // Every reading in a chunk of its own, and all of them in one.
        for (i, t) in times.iter().enumerate() {
            write(&store, &format!("m,s={series} f={i}.5,n={i}i {t}"));
            if series == 0 {
                store.seal().unwrap();
            }
        }
    }
    let before = dump(&store, &all(), TimeRange::all());
    assert_eq!(before.len(), 4 * times.len());
    store.compact().unwrap();
    store.maintain().unwrap();
    assert_eq!(dump(&store, &all(), TimeRange::all()), before);
    assert_eq!(store.verify().unwrap().damage, Vec::<String>::new());
    for every in [1, 3600, 86_400] {
        let windows = Windows::every(Duration::from_secs(every)).unwrap();
        for series in store.windows(&all(), TimeRange::all(), &windows).unwrap() {
            assert_eq!(series.windows.iter().map(|w| w.summary.count).sum::<u64>(), times.len() as u64);
        }
    }
    store.delete(&all(), TimeRange::new(Timestamp::MIN, time(0))).unwrap();
    store.compact().unwrap();
    assert_eq!(dump(&store, &all(), TimeRange::all()).len(), 4 * 4);
    assert_eq!(store.stats().unwrap().damaged_total, 0);
}

#[test]
fn values_whose_sums_are_infinite_are_no_damage() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let body: String = (0..2000)
        .map(|i| format!("m f={}1.7e308 {}\n", if (i / 3) % 2 == 0 { "" } else { "-" }, i * SECOND))
        .collect();
    write(&store, &body);
    store.compact().unwrap();
    assert_eq!(store.verify().unwrap().damage, Vec::<String>::new());
    let hour = Windows::every(Duration::from_secs(3600)).unwrap();
    assert_eq!(store.windows(&all(), TimeRange::all(), &hour).unwrap()[0].windows[0].summary.count, 2000);
}

/// A disk that takes no byte, as a card that has worn out or filled up does not.
#[test]
fn a_store_on_a_disk_that_takes_no_byte_answers_and_takes_readings_again_when_the_disk_does() {
    use graylogic_durable::{Call, Fault, NO_SPACE, READ_ONLY, SimDisk};
    for (errno, call) in [(READ_ONLY, Call::Lock), (NO_SPACE, Call::Lock), (NO_SPACE, Call::Write)] {
        let folder = tempfile::tempdir().unwrap();
        let disk = SimDisk::new();
        let options = || StoreOptions::default().disk(Arc::new(disk.clone())).without_workers();
        let store = Store::open(folder.path(), options()).unwrap();
        store.create_bucket("b").unwrap();
        write(&store, &format!("m f=1 {SECOND}\n"));
        store.seal().unwrap();
        write(&store, &format!("m f=2 {}\nm f=3 {}\n", 2 * SECOND, 3 * SECOND));
        store.close().unwrap();
        // The last record is torn: reading it wants to cut it.
        let last =
            disk.files().into_iter().filter(|p| p.extension().is_some_and(|e| e == "seg")).max().unwrap();
        let mut bytes = disk.bytes(&last).unwrap();
        bytes.extend_from_slice(&[1, 2, 3]);
        disk.set_bytes(&last, bytes);
        let before: Vec<_> = disk.files().iter().map(|p| disk.bytes(p)).collect();

        disk.fail(Fault { call: Some(call), after: 0, times: u64::MAX, errno });
        let store = Store::open(folder.path(), options()).unwrap();
        assert_eq!(dump(&store, &all(), TimeRange::all()).len(), 3, "everything is there");
        // A log that is full opens as it is, and its first record finds out.
        let is_for_questions = call == Call::Lock;
        assert!(!is_for_questions || matches!(store.stats().unwrap().state, State::Degraded(_)));
        for _ in 0..2 {
            let error =
                store.write_lines("b", b"m f=4 4000000000", &WriteOptions::now().any_time()).unwrap_err();
            assert!(error.is_no_space() || error.is_read_only(), "{error:?}");
            if is_for_questions {
                assert!(error.to_string().contains("takes no readings until"), "{error}");
                assert!(store.create_bucket("c").is_err() && store.delete(&all(), TimeRange::all()).is_err());
            }
            assert_eq!(store.ensure_bucket("b").unwrap().name, "b");
            std::thread::sleep(Duration::from_millis(1100));
        }
        assert_eq!(dump(&store, &all(), TimeRange::all()).len(), 3);
        let after: Vec<_> = disk.files().iter().map(|p| disk.bytes(p)).collect();
        assert_eq!(before, after, "nothing was changed");

        disk.heal();
        std::thread::sleep(Duration::from_millis(1100));
        write(&store, &format!("m f=4 {}\n", 4 * SECOND));
        assert_eq!(store.stats().unwrap().state, State::Ok);
        assert_eq!(dump(&store, &all(), TimeRange::all()).len(), 4);
        store.close().unwrap();
        let store = Store::open(folder.path(), options()).unwrap();
        assert_eq!(dump(&store, &all(), TimeRange::all()).len(), 4);
    }
}

#[test]
fn many_series_do_not_take_more_memory_than_the_budget() {
    let folder = tempfile::tempdir().unwrap();
    let budget = 4 << 20;
    let store = Store::open(folder.path(), StoreOptions::default().memory_bytes(budget)).unwrap();
    store.create_bucket("b").unwrap();
    for tick in 0..12i64 {
        for from in (0..20_000).step_by(2000) {
            let body: String = (from..from + 2000)
                .map(|i| format!("m,device=d{i},room=r{} f={i} {}\n", i / 10, (tick * 10 + 1) * SECOND))
                .collect();
            write(&store, &body);
            // One batch more than a third above the budget.
            let held = store.stats().unwrap().memory_bytes;
            assert!(held <= budget * 4 / 3 + 2000 * 200, "{held} bytes at tick {tick}");
        }
    }
    assert_eq!(store.stats().unwrap().values, 240_000);
}

#[test]
fn a_bucket_that_is_removed_while_it_is_changed_is_an_error_and_no_panic() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    for i in 0..60 {
        let name = format!("bucket-{i}");
        store.create_bucket(&name).unwrap();
        std::thread::scope(|scope| {
            let remover = scope.spawn(|| store.remove_bucket(&name));
            let changed: Vec<_> = (1..20)
                .map(|hours| store.set_retention(&name, Some(Duration::from_secs(3600 * hours))))
                .collect();
            remover.join().unwrap().unwrap();
            assert!(
                changed.iter().all(|c| c
                    .as_ref()
                    .map_or_else(graylogic_store::Error::is_not_found, |b| b.name == name))
            );
        });
        assert!(store.set_retention(&name, None).unwrap_err().is_not_found());
    }
}
