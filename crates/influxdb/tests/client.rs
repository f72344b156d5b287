//! The client as its users meet it: any id, any thread, any runtime, any order of calls.
#![allow(clippy::unwrap_used, missing_docs)]

use graylogic_influxdb::{
    Aggregate, Client, Config, FieldRef, Level, Point, Stats, Store, Timestamp, Value, WriteErrorKind,
};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const SOON: Duration = Duration::from_secs(20);

fn client() -> (TempDir, Client) {
    let folder = tempfile::tempdir().unwrap();
    let client = Client::connect(&Config::embedded(folder.path()).with_any_time(true)).unwrap();
    (folder, client)
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_nanos(seconds * 1_000_000_000)
}

fn conserved(stats: &Stats) {
    let sum = stats.delivered + stats.rejected + stats.waiting + stats.dropped;
    assert_eq!(stats.accepted, sum, "{stats:?}");
}

/// Everything a bucket holds: series to readings.
fn everything(store: &Store, bucket: &str) -> BTreeMap<String, Vec<(i64, Value)>> {
    let mut found: BTreeMap<String, Vec<(i64, Value)>> = BTreeMap::new();
    let selector = graylogic_store::Selector::bucket(bucket);
    for block in store.scan(&selector, graylogic_store::TimeRange::all()).unwrap() {
        let block = block.unwrap();
        let tags: Vec<String> = block.series.tags().map(|(k, v)| format!("{k}={v}")).collect();
        let name = format!("{}|{}|{}", block.series.measurement(), tags.join("|"), block.series.field());
        let readings = block.times.iter().enumerate().map(|(i, t)| (*t, block.values.get(i)));
        found.entry(name).or_default().extend(readings);
    }
    found
}

#[test]
fn any_id_is_stored_as_it_is_or_refused() {
    let (_folder, client) = client();
    let long = "x".repeat(64 << 10);
    let ids = [
        "plain",
        "with space",
        "comma,equals=",
        "\"quoted\"",
        "back\\slash",
        "two\\\\back",
        "#hash",
        "é",
        "😀",
        "trailing\\",
        "new\nline",
        "cr\rid",
        "tab\tid",
        "nul\0id",
        "",
        "_under",
        "time",
        "a\\ b",
        "a\\,b=1",
        " ",
        "x,device_id=other value=1 1\ndevice_metrics,device_id=evil value=2",
        &long,
    ];
    let mut stored = Vec::new();
    let mut refused = Vec::new();
    for (i, id) in ids.iter().enumerate() {
        let t = at(1_700_000_000 + i as i64);
        let outcomes = [
            client.write_device_metric_at(id, "level", 1.0, t).map_err(|e| ("device_id", e)),
            client.write_device_metric_at("dev", id, 1.0, t).map_err(|e| ("measurement", e)),
            client.write_energy_metric_at(id, 1.0, Some(2.0), t).map_err(|e| ("device_id", e)),
            client.write_phm_metric_at(id, "m", 1.0, t).map_err(|e| ("device_id", e)),
            client.write_phm_metric_at("dev", id, 1.0, t).map_err(|e| ("metric", e)),
            client
                .write_point(&Point::new("p").tag("id", *id).field("f", 1.0).timestamp(t))
                .map_err(|e| ("id", e)),
        ];
        assert!(outcomes.iter().all(|o| o.is_ok() == outcomes[0].is_ok()), "{id:?}: every helper agrees");
        match &outcomes[0] {
            Ok(()) => stored.push(*id),
            Err(_) => refused.push(*id),
        }
        for (named, error) in outcomes.into_iter().filter_map(Result::err) {
            assert!(error.is_invalid_point() && error.is_write_failed() && !error.is_retryable());
            let told = error.to_string();
            assert!(told.contains(named) || told.contains("shorten"), "{told} names {named}");
            assert!(error.to_string().len() < 400, "a long id is not repeated in full");
        }
    }
    let never = ["trailing\\", "new\nline", "cr\rid", "tab\tid", "nul\0id", ""];
    assert!(never.iter().all(|id| refused.contains(id)), "{refused:?}");
    for id in [
        "plain",
        "with space",
        "comma,equals=",
        "\"quoted\"",
        "back\\slash",
        "#hash",
        "é",
        "😀",
        "_under",
        "time",
    ] {
        assert!(stored.contains(&id), "{id:?} is stored");
    }
    client.flush(Level::Durable, SOON).unwrap();
    let stats = client.stats();
    conserved(&stats);
    assert_eq!((stats.accepted, stats.rejected), (6 * stored.len() as u64, 0), "what is accepted is stored");
    for id in &stored {
        let found = client.latest("device_metrics", &[("device_id", id)]).unwrap();
        assert_eq!(found.len(), 1, "{id:?}");
        assert_eq!(
            found[0].tags,
            [("device_id".to_owned(), (*id).to_owned()), ("measurement".into(), "level".into())]
        );
        assert_eq!(client.latest("energy", &[("device_id", id)]).unwrap().len(), 2, "{id:?}");
    }
    let all = everything(client.store().unwrap(), "metrics");
    assert!(
        !all.keys().any(|k| k.contains("evil|") || k.contains("device_id=other|")),
        "no id makes a second point"
    );
    assert_eq!(all.len(), 7 * stored.len());
}

#[test]
fn numbers_are_exact_and_what_is_none_is_refused() {
    let (_folder, client) = client();
    for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        for outcome in [
            client.write_device_metric("d", "m", bad),
            client.write_energy_metric("d", bad, None),
            client.write_energy_metric("d", 1.0, Some(bad)),
            client.write_phm_metric("d", "m", bad),
            client.write_point(&Point::new("p").field("f", bad)),
        ] {
            assert!(outcome.unwrap_err().is_invalid_point());
        }
    }
    let values = [0.0, -0.0, 1.0 / 3.0, f64::MAX, f64::MIN_POSITIVE, 5e-324, -1e-7, 123_456_789.123];
    for (i, v) in values.iter().enumerate() {
        client.write_device_metric_at("d", "exact", *v, at(i as i64)).unwrap();
    }
    let point = Point::new("types")
        .field("i", i64::MIN)
        .field("u", u64::MAX)
        .field("b", true)
        .field("s", "a \"b\"\\\nc");
    client.write_point_at(&point, at(5)).unwrap();
    client.flush(Level::Durable, SOON).unwrap();
    let all = everything(client.store().unwrap(), "metrics");
    let exact = &all["device_metrics|device_id=d|measurement=exact|value"];
    for (found, expected) in exact.iter().zip(values) {
        assert_eq!(found.1.as_f64().unwrap().to_bits(), expected.to_bits());
    }
    assert_eq!(all["types||i"][0].1, Value::Integer(i64::MIN));
    assert_eq!(all["types||u"][0].1, Value::Unsigned(u64::MAX));
    assert_eq!(all["types||b"][0].1, Value::Boolean(true));
    assert_eq!(all["types||s"][0].1, Value::String("a \"b\"\\\nc".into()));
    assert_eq!(all["types||s"][0].0, at(5).as_nanos());
    assert_eq!(client.stats().refused_points, 15);
}

#[test]
fn eight_threads_write_while_one_closes() {
    for round in 0..6 {
        let (folder, client) = client();
        let accepted: Vec<AtomicU64> = (0..8).map(|_| AtomicU64::new(0)).collect();
        let report = std::thread::scope(|threads| {
            for (thread, accepted) in accepted.iter().enumerate() {
                let client = client.clone();
                threads.spawn(move || {
                    for i in 0.. {
                        let id = format!("dev-{thread}");
                        match client.write_device_metric_at(&id, "n", f64::from(i), at(i64::from(i) + 1)) {
                            Ok(()) => accepted.fetch_add(1, Ordering::Relaxed),
                            Err(e) if e.is_retryable() => continue,
                            Err(e) => {
                                assert!(e.is_not_connected(), "{e}");
                                return;
                            }
                        };
                    }
                });
            }
            std::thread::sleep(Duration::from_millis(10 + 15 * round));
            client.close(SOON).unwrap()
        });
        let sum: u64 = accepted.iter().map(|a| a.load(Ordering::Relaxed)).sum();
        assert_eq!((report.delivered, report.rejected, report.dropped), (sum, 0, 0));
        conserved(&client.stats());
        let store = Store::open(folder.path(), graylogic_store::StoreOptions::default()).unwrap();
        let all = everything(&store, "metrics");
        for (thread, accepted) in accepted.iter().enumerate() {
            let n = accepted.load(Ordering::Relaxed);
            let found = all.get(&format!("device_metrics|device_id=dev-{thread}|measurement=n|value"));
            assert_eq!(found.map_or(0, Vec::len) as u64, n, "each accepted reading, once");
        }
    }
}

#[test]
fn one_clock_reading_each() {
    // Readings without a time never fall together, even in one series and one nanosecond.
    let (_folder, client) = client();
    for i in 0..5000 {
        client.write_device_metric("d", "m", f64::from(i)).unwrap();
    }
    client.flush(Level::Durable, SOON).unwrap();
    let all = everything(client.store().unwrap(), "metrics");
    let readings = &all["device_metrics|device_id=d|measurement=m|value"];
    assert_eq!(readings.len(), 5000);
    assert!(readings.iter().enumerate().all(|(i, r)| r.1.as_f64() == Some(i as f64)), "and keep their order");
}

#[test]
fn a_rejected_reading_is_told_with_line_and_reason() {
    let (_folder, client) = client();
    let told: Arc<Mutex<Vec<_>>> = Arc::default();
    let theirs = told.clone();
    client.set_on_error(move |e| theirs.lock().unwrap().push(e.clone()));
    client.write_point(&Point::new("m").field("f", 1.0)).unwrap();
    client.flush(Level::Durable, SOON).unwrap();
    client.write_point(&Point::new("m").field("f", "text")).unwrap();
    client.write_point(&Point::new("m").field("g", 2.0)).unwrap();
    client.flush(Level::Durable, SOON).unwrap();
    let report = client.close(SOON).unwrap();
    assert_eq!((report.delivered, report.rejected, report.errors_told), (2, 1, true));
    let told = told.lock().unwrap();
    assert_eq!(told.len(), 1);
    assert_eq!(
        (told[0].kind, told[0].lines, told[0].bucket.as_str()),
        (WriteErrorKind::Rejected, 1, "metrics")
    );
    assert!(told[0].first[0].text.starts_with("m f=\"text\""), "{:?}", told[0]);
    assert!(told[0].reason.contains("already exists as type float"), "{:?}", told[0].reason);
}

#[test]
fn a_callback_may_do_anything() {
    // It closes the client it hears of, and it panics.
    let (_folder, client) = client();
    let inner = client.clone();
    let calls = Arc::new(AtomicU64::new(0));
    let counted = calls.clone();
    client.set_on_error(move |_| {
        counted.fetch_add(1, Ordering::Relaxed);
        let _early = inner.close(SOON);
        panic!("a callback's panic stays its own");
    });
    client.write_point(&Point::new("m").field("f", 1.0)).unwrap();
    client.write_point(&Point::new("m").field("f", true)).unwrap();
    let until = Instant::now() + SOON;
    while client.stats().callback_panics == 0 {
        assert!(Instant::now() < until, "the callback is called");
        std::thread::sleep(Duration::from_millis(5));
    }
    let report = client.close(SOON).unwrap();
    assert_eq!((report.delivered, report.rejected), (1, 1));
    assert!(client.write_device_metric("d", "m", 1.0).unwrap_err().is_not_connected());
    assert_eq!(calls.load(Ordering::Relaxed), 1);
}

#[test]
fn a_client_that_only_its_callback_closes_lets_go_of_its_folder() {
    let (folder, client) = client();
    let inner = client.clone();
    client.set_on_error(move |_| {
        let _early = inner.close(SOON);
    });
    client.write_point(&Point::new("m").field("f", 1.0)).unwrap();
    client.write_point(&Point::new("m").field("f", true)).unwrap();
    drop(client);
    let until = Instant::now() + SOON;
    let again = loop {
        match Client::connect(&Config::embedded(folder.path()).with_any_time(true)) {
            Ok(again) => break again,
            Err(error) => assert!(Instant::now() < until, "{error}"),
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    assert_eq!(again.latest("m", &[]).unwrap().len(), 1);
    again.close(SOON).unwrap();
}

/// Asks the client for its figures when it goes.
struct Asks(Client);

impl Drop for Asks {
    fn drop(&mut self) {
        assert!(self.0.stats().accepted < 2);
    }
}

#[test]
fn a_callback_that_goes_may_do_anything_and_keeps_no_client() {
    let (_folder, client) = client();
    let kept = Arc::new(());
    for _ in 0..2 {
        let (asks, held) = (Asks(client.clone()), kept.clone());
        client.set_on_error(move |_| assert!(asks.0.stats().accepted < 2 && Arc::strong_count(&held) > 0));
    }
    assert_eq!(Arc::strong_count(&kept), 2, "the one before is gone");
    client.write_device_metric("d", "m", 1.0).unwrap();
    assert_eq!(client.close(SOON).unwrap().delivered, 1);
    // It holds the client that holds it: a closed client lets it go.
    let until = Instant::now() + SOON;
    while Arc::strong_count(&kept) > 1 {
        assert!(Instant::now() < until, "the callback of a closed client goes");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn news_comes_at_most_ten_times_a_second() {
    let (_folder, client) = client();
    let calls = Arc::new(AtomicU64::new(0));
    let lines = Arc::new(AtomicU64::new(0));
    let (counted, summed) = (calls.clone(), lines.clone());
    client.set_on_error(move |e| {
        counted.fetch_add(1, Ordering::Relaxed);
        summed.fetch_add(e.lines, Ordering::Relaxed);
        assert!(e.first.len() <= 10);
    });
    client.write_point(&Point::new("m").field("f", 1.0)).unwrap();
    client.flush(Level::Durable, SOON).unwrap();
    let began = Instant::now();
    let mut wrong = 0u64;
    while began.elapsed() < Duration::from_millis(600) {
        client.write_point(&Point::new("m").field("f", false)).unwrap();
        wrong += 1;
        std::thread::sleep(Duration::from_micros(200));
    }
    let seconds = began.elapsed().as_secs_f64();
    client.close(SOON).unwrap();
    assert_eq!(lines.load(Ordering::Relaxed), wrong, "every line is counted");
    // One more for the close.
    assert!(calls.load(Ordering::Relaxed) as f64 <= seconds * 10.0 + 2.0);
}

#[test]
fn closing_twice_and_use_after_close() {
    let (folder, client) = client();
    client.write_device_metric("d", "m", 1.0).unwrap();
    assert!(client.is_connected());
    let first = client.close(SOON).unwrap();
    assert_eq!(client.close(SOON).unwrap(), first);
    assert_eq!(client.close(Duration::ZERO).unwrap(), first);
    assert!(!client.is_connected());
    let series = client.series("m", &[], &["f"]).unwrap();
    let errors = [
        client.write_device_metric("d", "m", 1.0).unwrap_err(),
        client.write_point(&Point::new("m").field("f", 1.0)).unwrap_err(),
        series.write_float(1.0, None).unwrap_err(),
        client.flush(Level::Durable, SOON).unwrap_err(),
        client.health_check(SOON).unwrap_err(),
        client.latest("device_metrics", &[]).unwrap_err(),
        client.query_range("m", &[], "f", at(0), at(9), SOON, Aggregate::Mean).unwrap_err(),
    ];
    for error in errors {
        assert!(error.is_not_connected(), "{error}");
    }
    // The folder is free again.
    Client::connect(&Config::embedded(folder.path()).with_any_time(true))
        .unwrap()
        .close(Duration::MAX)
        .unwrap();
}

#[test]
fn dropping_the_last_clone_delivers() {
    let (folder, client) = client();
    let clone = client.clone();
    drop(client);
    for i in 0..1000 {
        clone.write_device_metric_at("d", "m", f64::from(i), at(i64::from(i))).unwrap();
    }
    drop(clone);
    let store = Store::open(folder.path(), graylogic_store::StoreOptions::default()).unwrap();
    assert_eq!(everything(&store, "metrics").values().map(Vec::len).sum::<usize>(), 1000);
}

#[test]
fn a_second_client_of_a_folder_is_told_who_has_it() {
    let (folder, client) = client();
    let error = Client::connect(&Config::embedded(folder.path()).with_any_time(true)).unwrap_err();
    assert!(error.is_connection_failed());
    assert!(error.to_string().contains(&std::process::id().to_string()), "{error}");
    client.close(SOON).unwrap();
}

#[test]
fn it_works_in_and_outside_of_runtimes() {
    let (folder, client) = client();
    // Made outside, used in one runtime, which is dropped, then in another.
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        client.write_device_metric_at("d", "m", 1.0, at(1)).unwrap();
        client.flush_async(Level::Durable, SOON).await.unwrap();
    });
    drop(runtime);
    client.write_device_metric_at("d", "m", 2.0, at(2)).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    runtime.block_on(async {
        let tasks: Vec<_> = (0..8)
            .map(|i| {
                let client = client.clone();
                tokio::spawn(async move {
                    client.write_device_metric_at("d", "m", 3.0, at(10 + i)).unwrap();
                    client.flush_async(Level::Durable, SOON).await.unwrap();
                    client.latest_async("device_metrics", &[]).await.unwrap().len()
                })
            })
            .collect();
        for task in tasks {
            assert_eq!(task.await.unwrap(), 1);
        }
        let windows = client
            .query_range_async(
                "device_metrics",
                &[],
                "value",
                at(0),
                at(100),
                Duration::from_secs(100),
                Aggregate::Count,
            )
            .await
            .unwrap();
        assert_eq!(windows[0].values, [(at(0), Value::Unsigned(10))]);
    });
    runtime.shutdown_background();
    client.write_device_metric_at("d", "m", 4.0, at(3)).unwrap();
    // Made inside a runtime and closed by its future.
    let other = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let inside = runtime.block_on(async {
        let inside = Client::connect(&Config::embedded(other.path()).with_any_time(true)).unwrap();
        inside.write_phm_metric("p", "m", 1.0).unwrap();
        assert_eq!(inside.close_async(SOON).await.unwrap().delivered, 1);
        inside
    });
    drop(runtime);
    assert!(!inside.is_connected());
    assert_eq!(client.close(SOON).unwrap().delivered, 11);
    drop(folder);
}

#[test]
fn questions_are_answered() {
    let (_folder, client) = client();
    for i in 0..60 {
        client.write_energy_metric_at("hvac 1", f64::from(i) * 10.0, None, at(i64::from(i) * 60)).unwrap();
        client.write_energy_metric_at("hvac,2", 5.0, Some(f64::from(i)), at(i64::from(i) * 60)).unwrap();
    }
    client.flush(Level::Durable, SOON).unwrap();
    let ask = |tags: &[(&str, &str)], aggregate| {
        let window = Duration::from_secs(1800);
        client.query_range("energy", tags, "power_watts", at(0), at(3600), window, aggregate).unwrap()
    };
    let one = ask(&[("device_id", "hvac 1")], Aggregate::Mean);
    assert_eq!(one.len(), 1);
    assert_eq!(one[0].values, [(at(0), Value::Float(145.0)), (at(1800), Value::Float(445.0))]);
    let expect = [
        (Aggregate::Count, Value::Unsigned(30)),
        (Aggregate::Sum, Value::Float(4350.0)),
        (Aggregate::Min, Value::Float(0.0)),
        (Aggregate::Max, Value::Float(290.0)),
        (Aggregate::First, Value::Float(0.0)),
        (Aggregate::Last, Value::Float(290.0)),
    ];
    for (aggregate, value) in expect {
        assert_eq!(ask(&[("device_id", "hvac 1")], aggregate)[0].values[0].1, value, "{aggregate:?}");
    }
    assert_eq!(ask(&[], Aggregate::Mean).len(), 2);
    // An id is compared, never interpreted.
    assert!(ask(&[("device_id", "hvac.*")], Aggregate::Mean).is_empty());
    assert!(client.latest("energy", &[("device_id", "\" or true")]).unwrap().is_empty());
    let latest = client.latest("energy", &[("device_id", "hvac,2")]).unwrap();
    assert_eq!(latest.iter().map(|l| l.field.as_str()).collect::<Vec<_>>(), ["energy_kwh", "power_watts"]);
    assert_eq!(latest[0].value, Value::Float(59.0));
    let error =
        client.query_range("energy", &[], "x", at(0), at(9), Duration::ZERO, Aggregate::Mean).unwrap_err();
    assert!(error.is_query_failed(), "{error}");
}

#[test]
fn a_series_handle_writes_what_the_helpers_write() {
    let (_folder, client) = client();
    let series =
        client.series("device_metrics", &[("device_id", "a b"), ("measurement", "m")], &["value"]).unwrap();
    series.write_float(1.5, Some(at(1))).unwrap();
    client.write_device_metric_at("a b", "m", 2.5, at(2)).unwrap();
    assert!(series.write(&[], None).unwrap_err().is_invalid_point());
    assert!(series.write_float(f64::NAN, None).unwrap_err().is_invalid_point());
    assert!(client.series("m", &[("k", "line\nfeed")], &["f"]).unwrap_err().is_invalid_point());
    let two = client.series("m", &[], &["a", "b"]).unwrap();
    two.write(&[FieldRef::Integer(1), FieldRef::Boolean(true)], Some(at(1))).unwrap();
    client.flush(Level::Durable, SOON).unwrap();
    let all = everything(client.store().unwrap(), "metrics");
    assert_eq!(all["device_metrics|device_id=a b|measurement=m|value"].len(), 2);
    assert_eq!(all["m||b"][0].1, Value::Boolean(true));
}

#[test]
fn a_write_allocates_nothing_in_the_steady_state() {
    let (_folder, client) = client();
    for i in 0..2000 {
        client.write_device_metric_at("dev", "m", f64::from(i), at(i64::from(i))).unwrap();
    }
    client.flush(Level::Durable, SOON).unwrap();
    let used = allocation_counter::measure(|| {
        for i in 0..100 {
            client.write_device_metric_at("dev", "m", f64::from(i), at(3000 + i64::from(i))).unwrap();
        }
    });
    assert_eq!(used.count_total, 0, "{used:?}");
}

#[test]
fn flush_covers_what_was_accepted_before_it() {
    let (_folder, client) = client();
    let stop = AtomicBool::new(false);
    std::thread::scope(|threads| {
        let writer = client.clone();
        let stop = &stop;
        threads.spawn(move || {
            let mut i = 0;
            while !stop.load(Ordering::Relaxed) {
                i += 1;
                let _full = writer.write_device_metric_at("noise", "m", 1.0, at(i));
            }
        });
        for i in 0..20 {
            // The noise fills what there is of memory.
            while let Err(full) = client.write_device_metric_at("mine", "m", f64::from(i), at(i64::from(i))) {
                assert!(full.is_retryable(), "{full}");
                std::thread::sleep(Duration::from_millis(1));
            }
            let report = client.flush(Level::Durable, SOON).unwrap();
            assert!(report.level == Level::Durable && client.stats().durable > i as u64);
            let mine = client.latest("device_metrics", &[("device_id", "mine")]).unwrap();
            assert_eq!(mine[0].value, Value::Float(f64::from(i)));
        }
        stop.store(true, Ordering::Relaxed);
    });
    conserved(&client.stats());
}

#[test]
fn a_string_of_many_text_lines_blames_only_the_line_that_is_wrong() {
    let (_folder, client) = client();
    let told = Arc::new(Mutex::new(Vec::new()));
    let keeps = told.clone();
    client.set_on_error(move |news| keeps.lock().unwrap().extend(news.first.clone()));
    client.write_point(&Point::new("flip").field("v", 1.0).timestamp(at(1))).unwrap();
    client.flush(Level::Durable, SOON).unwrap();
    let states = ["", "\n", "1\n2\n3\n4\n5\n", "a\nb", "\r\n\r\n", "\"\n\\\n"];
    let mut bad = 0;
    for (round, before) in states.iter().enumerate() {
        for (place, after) in states.iter().enumerate() {
            let t = at(1_700_000_000 + (round * states.len() + place) as i64);
            client.write_point(&Point::new("loc").field("state", *before).timestamp(t)).unwrap();
            let wrong = format!("{round}\n{place}");
            client.write_point(&Point::new("flip").field("v", wrong.as_str()).timestamp(t)).unwrap();
            client.write_point(&Point::new("loc").field("after", *after).timestamp(t)).unwrap();
            bad += 1;
            // All in one batch, and each in one of its own.
            if round % 2 == 0 {
                client.flush(Level::Delivered, SOON).unwrap();
            }
        }
    }
    client.flush(Level::Delivered, SOON).unwrap();
    let stats = client.stats();
    conserved(&stats);
    assert_eq!((stats.rejected, stats.delivered), (bad, 2 * bad + 1), "{stats:?}");
    assert!(client.is_connected(), "{stats:?}");
    let found = everything(client.store().unwrap(), client_bucket());
    for (field, count) in [("loc||state", bad), ("loc||after", bad), ("flip||v", 1)] {
        assert_eq!(found[field].len() as u64, count, "{field}");
    }
    assert!(client.close(SOON).unwrap().errors_told);
    let told = told.lock().unwrap();
    assert!(!told.is_empty());
    for line in told.iter() {
        assert!(line.text.starts_with("flip v=") && line.reason.contains("field type conflict"), "{line:?}");
    }
}

/// The bucket of a configuration that names none.
fn client_bucket() -> &'static str {
    "metrics"
}

#[test]
fn readings_of_a_wrong_clock_are_quarantined_and_reported() {
    let folder = tempfile::tempdir().unwrap();
    let client = Client::connect(&Config::embedded(folder.path())).unwrap();
    let told = Arc::new(Mutex::new(Vec::new()));
    let keeps = told.clone();
    client.set_on_error(move |news| keeps.lock().unwrap().push((news.kind, news.lines)));
    let ahead = Timestamp::from_nanos(Timestamp::now().as_nanos() + 30 * 365 * 86_400 * 1_000_000_000);
    for (value, time) in [(1.0, at(5)), (2.0, ahead), (3.0, at(1_700_000_000))] {
        client.write_point(&Point::new("m").field("v", value).timestamp(time)).unwrap();
    }
    client.flush(Level::Durable, SOON).unwrap();
    let store = client.store().unwrap();
    assert_eq!(store.quarantine().unwrap()[0].values, 2);
    assert_eq!(everything(store, client_bucket())["m||v"].len(), 1);
    conserved(&client.stats());
    assert_eq!((client.stats().delivered, client.stats().rejected), (3, 0));
    assert!(client.close(SOON).unwrap().errors_told);
    let told = told.lock().unwrap();
    let quarantined = told.iter().filter(|n| n.0 == WriteErrorKind::Quarantined);
    assert_eq!(quarantined.map(|n| n.1).sum::<u64>(), 2, "{told:?}");
}
