//! Readings whose timestamps a wrong clock must have made: stored, shown apart, released or dropped.
#![allow(clippy::unwrap_used, missing_docs)]

use graylogic_line::Timestamp;
use graylogic_store::{Selector, Store, StoreOptions, Sync, TimeRange, Value, WriteOptions, WriteReport};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

const SECOND: i64 = 1_000_000_000;
const HOUR: i64 = 3600 * SECOND;
/// 2026-01-01T00:00:00Z.
const NOW: i64 = 1_767_225_600 * SECOND;
/// 2000-01-01T00:00:00Z.
const Y2000: i64 = 946_684_800 * SECOND;

struct Clock(Arc<AtomicI64>);

impl Clock {
    fn at(nanos: i64) -> Self {
        Self(Arc::new(AtomicI64::new(nanos)))
    }

    fn open(&self, folder: &Path) -> Store {
        let clock = self.0.clone();
        let now = move || Timestamp::from_nanos(clock.load(Ordering::Relaxed));
        // A sync of each write, so that nothing depends on when the store's own thread comes to it.
        let options = StoreOptions::default().clock(now).sync(Sync::EachWrite);
        let store = Store::open(folder, options).unwrap();
        store.ensure_bucket("b").unwrap();
        store
    }
}

fn write(store: &Store, body: &str) -> WriteReport {
    let report = store.write_lines("b", body.as_bytes(), &WriteOptions::now()).unwrap();
    assert_eq!(report.rejected, [], "{body}");
    report
}

fn readings(store: &Store, selector: &Selector) -> Vec<(i64, Value)> {
    let blocks: Vec<_> = store.scan(selector, TimeRange::all()).unwrap().map(Result::unwrap).collect();
    let of = |b: &graylogic_store::Block| -> Vec<(i64, Value)> {
        b.times.iter().enumerate().map(|(i, t)| (*t, b.values.get(i))).collect()
    };
    blocks.iter().flat_map(of).collect()
}

fn own() -> Selector {
    Selector::bucket("b")
}

#[test]
fn implausible_readings_are_kept_apart_and_can_be_released_or_dropped() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Clock::at(NOW);
    let decades = NOW + 30 * 365 * 24 * HOUR;
    {
        let store = clock.open(folder.path());
        let body = format!(
            "m f=1 {}\nm f=2 5\nm f=3 {decades}\nm f=4,s=\"text\" {}\nm f=5 {Y2000}\nm f=6 {}\nm f=7",
            NOW - SECOND,
            Y2000 - 1,
            NOW + HOUR - 1,
        );
        let report = write(&store, &body);
        assert_eq!((report.points, report.values, report.quarantined), (4, 4, 3));
        assert_eq!(store.latest(&own()).unwrap()[0].time.as_nanos(), NOW + HOUR - 1);
    }
    let store = clock.open(folder.path());
    let floats = |selector: Selector| -> Vec<f64> {
        readings(&store, &selector.field("f")).iter().filter_map(|r| r.1.as_f64()).collect()
    };
    assert_eq!(floats(own()), [5.0, 1.0, 7.0, 6.0]);
    assert_eq!(floats(own().quarantined()), [2.0, 4.0, 3.0]);
    // The place where they are is no bucket to a user, and no user's bucket can be in its place.
    assert_eq!(store.buckets().len(), 1);
    assert_eq!(store.stats().unwrap().buckets, 1);
    assert!(store.create_bucket("_quarantine/x").unwrap_err().is_invalid());
    assert!(store.rename_bucket("b", "_quarantine/b").unwrap_err().is_invalid());
    assert!(store.remove_bucket("_quarantine/b").unwrap_err().is_invalid());
    let found = &store.quarantine().unwrap()[0];
    assert_eq!((&*found.bucket, found.values, found.series), ("b", 4, 2));
    assert_eq!(found.bounds, (Timestamp::from_nanos(5), Timestamp::from_nanos(decades)));

    // It follows its bucket.
    store.rename_bucket("b", "c").unwrap();
    assert_eq!(store.quarantine().unwrap()[0].bucket, "c");
    store.rename_bucket("c", "b").unwrap();

    let released = store.release_quarantined("b").unwrap();
    assert_eq!((released.values, released.kept), (4, Vec::new()));
    assert_eq!(store.quarantine().unwrap(), []);
    assert_eq!(floats(own()), [2.0, 4.0, 5.0, 1.0, 7.0, 6.0, 3.0]);
    let text = readings(&store, &own().field("s"));
    assert_eq!(text, [(Y2000 - 1, Value::String("text".into()))]);
    // What lies ahead does not hide the present, until its time has come.
    assert_eq!(store.latest(&own().field("f")).unwrap()[0].time.as_nanos(), NOW + HOUR - 1);
    clock.0.store(decades, Ordering::Relaxed);
    assert_eq!(store.latest(&own().field("f")).unwrap()[0].value, Value::Float(3.0));

    write(&store, "m f=8 7\nm f=9 8");
    assert_eq!(store.drop_quarantined("b").unwrap(), 2);
    assert_eq!(store.drop_quarantined("b").unwrap(), 0);
    assert_eq!(store.quarantine().unwrap(), []);
    write(&store, "m f=8 7");
    store.remove_bucket("b").unwrap();
    assert_eq!(store.quarantine().unwrap(), []);
    drop(store);
    let store = clock.open(folder.path());
    assert_eq!(readings(&store, &own()), []);
}

#[test]
fn what_cannot_be_released_stays() {
    let folder = tempfile::tempdir().unwrap();
    let store = Clock::at(NOW).open(folder.path());
    write(&store, &format!("m f=1 {NOW}\nm f=2 5\nm g=2 6"));
    write(&store, "n t=\"text\" 5");
    write(&store, &format!("n t=1 {NOW}"));
    let released = store.release_quarantined("b").unwrap();
    assert_eq!(released.values, 2);
    assert_eq!(released.kept.len(), 1);
    assert!(released.kept[0].contains("it is type string"), "{:?}", released.kept);
    assert_eq!(readings(&store, &own().quarantined()), [(5, Value::String("text".into()))]);
    // A bucket that keeps readings for an hour takes none of 1970.
    store.set_retention("b", Some(Duration::from_secs(3600))).unwrap();
    let report = write(&store, "m f=9 9");
    assert_eq!((report.points, report.quarantined, report.rejected_count), (0, 1, 0));
    assert_eq!(store.release_quarantined("b").unwrap().values, 0);
    assert_eq!(readings(&store, &own().measurement("m").quarantined()), [(9, Value::Float(9.0))]);
    assert!(store.release_quarantined("unknown").unwrap_err().is_not_found());
}

#[test]
fn history_and_forecasts_are_stored_when_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let store = Clock::at(NOW).open(folder.path());
    let body = format!("m f=1 5\nm f=2 {NOW}\nm f=3 {}", NOW + 48 * HOUR);
    let report = store.write_lines("b", body.as_bytes(), &WriteOptions::now().any_time()).unwrap();
    assert_eq!((report.points, report.quarantined), (3, 0));
    assert_eq!(readings(&store, &own()).len(), 3);
    assert_eq!(store.latest(&own()).unwrap()[0].value, Value::Float(2.0));
    let bounds = store.bounds(&own()).unwrap();
    assert_eq!(bounds[0].1, Some((Timestamp::from_nanos(5), Timestamp::from_nanos(NOW + 48 * HOUR))));
    store.compact().unwrap();
    assert_eq!(store.latest(&own()).unwrap()[0].value, Value::Float(2.0));
}

#[test]
fn a_clock_that_was_never_set_does_not_judge_the_future() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Clock::at(90 * SECOND);
    let store = clock.open(folder.path());
    // The lines of a device whose clock is right, and those that this machine has to stamp.
    let report = write(&store, &format!("m f=1 {NOW}\nm f=2\nm f=3"));
    assert_eq!((report.points, report.quarantined), (1, 2));
    assert_eq!(store.latest(&own()).unwrap()[0].value, Value::Float(1.0));
    clock.0.store(NOW, Ordering::Relaxed);
    assert_eq!(write(&store, "m f=4").quarantined, 0);
    let stamped: Vec<i64> = readings(&store, &own().quarantined()).iter().map(|r| r.0).collect();
    assert_eq!(stamped, [90 * SECOND, 90 * SECOND + 1]);
}
