//! Random histories against a plain map: writes in and out of order, repeats, conflicts, deletions, retention, seals,
//! compactions, kills and reopenings. `GRAYLOGIC_MODEL_CASES` says how many (a campaign runs 10,000).
#![allow(clippy::unwrap_used, missing_docs)]

use graylogic_durable::SimDisk;
use graylogic_line::Timestamp;
use graylogic_store::{
    Matcher, RejectKind, Selector, Store, StoreOptions, TimeRange, Value, Windows, WriteOptions,
};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

const HOUR: i64 = 3_600_000_000_000;
const DAY: i64 = 24 * HOUR;
/// When the histories begin.
const EPOCH: i64 = 19_700 * DAY;

/// A small generator, so that a failing case is named by its seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

/// Bucket, series, field; time; value.
type Model = BTreeMap<(String, u64, &'static str), BTreeMap<i64, Value>>;

/// Fields with a type each; the last is fixed by its first writer.
const FIELDS: [&str; 6] = ["f", "i", "u", "b", "s", "x"];

struct Case {
    seed: u64,
    dice: Dice,
    folder: tempfile::TempDir,
    disk: SimDisk,
    clock: Arc<AtomicI64>,
    model: Model,
    /// Retention of each bucket in nanoseconds.
    buckets: BTreeMap<String, i64>,
    /// Type of the field `x` in each bucket, once it has one.
    x: BTreeMap<String, u64>,
}

impl Case {
    fn new(seed: u64) -> Self {
        Self {
            seed,
            dice: Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1),
            folder: tempfile::tempdir().unwrap(),
            disk: SimDisk::new(),
            clock: Arc::new(AtomicI64::new(EPOCH + 6 * DAY)),
            model: Model::new(),
            buckets: BTreeMap::new(),
            x: BTreeMap::new(),
        }
    }

    fn open(&self) -> Store {
        let clock = self.clock.clone();
        let options = StoreOptions::default()
            .disk(Arc::new(self.disk.clone()))
            .without_workers()
            .clock(move || Timestamp::from_nanos(clock.load(Ordering::Relaxed)));
        Store::open(self.folder.path(), options).unwrap()
    }

    fn now(&self) -> i64 {
        self.clock.load(Ordering::Relaxed)
    }

    fn bucket(&mut self) -> String {
        let names: Vec<&String> = self.buckets.keys().collect();
        names[self.dice.below(names.len() as u64) as usize].clone()
    }

    /// The earliest time that has not expired.
    fn visible(&self, bucket: &str) -> i64 {
        match self.buckets[bucket] {
            0 => i64::MIN,
            n => self.now() - n,
        }
    }

    fn time(&mut self) -> i64 {
        // Mostly a grid, with repeats; some times of days long gone.
        match self.dice.below(10) {
            0 => EPOCH + self.dice.below(5 * 86_400) as i64 * 1_000_000_000,
            1..=4 => EPOCH + 4 * DAY + self.dice.below(400) as i64 * 450_000_000_000,
            _ => EPOCH + self.dice.below(5 * 24 * 4) as i64 * 900_000_000_000,
        }
    }

    fn write(&mut self, store: &Store) {
        let bucket = self.bucket();
        let visible = self.visible(&bucket);
        let n = if self.dice.below(12) == 0 { 3000 } else { 1 + self.dice.below(60) };
        let mut body = String::new();
        let (mut refused, mut expired) = (0, 0);
        for i in 0..n {
            let series = self.dice.below(3);
            let time = if n == 3000 { EPOCH + i as i64 * 90_000_000_000 } else { self.time() };
            let place = self.dice.below(6) as usize;
            let field = FIELDS[place];
            let mut kind = place as u64;
            if field == "x" {
                kind = self.dice.below(3);
            }
            let k = self.dice.below(500) as i64 - 250;
            let (text, value) = match kind {
                0 => (format!("{}", k as f64 / 10.0), Value::Float(k as f64 / 10.0)),
                1 => (format!("{k}i"), Value::Integer(k)),
                2 => (format!("{}u", k + 250), Value::Unsigned((k + 250) as u64)),
                3 => (format!("{}", k > 0), Value::Boolean(k > 0)),
                _ => (format!("\"w{}\"", k % 5), Value::String(format!("w{}", k % 5).into())),
            };
            body += &format!("m,s={series} {field}={text} {time}\n");
            if time < visible {
                expired += 1;
                continue;
            }
            if field == "x" && *self.x.entry(bucket.clone()).or_insert(kind) != kind {
                refused += 1;
                continue;
            }
            self.model.entry((bucket.clone(), series, field)).or_default().insert(time, value);
        }
        let report = store.write_lines(&bucket, body.as_bytes(), &WriteOptions::now().any_time()).unwrap();
        assert_eq!(report.rejected_count, refused + expired, "{}", self.seed);
        for rejected in &report.rejected {
            assert!(matches!(rejected.kind, RejectKind::TypeConflict | RejectKind::Expired), "{rejected:?}");
        }
    }

    fn delete(&mut self, store: &Store) {
        let bucket = self.bucket();
        let (a, b) = (self.time(), self.time());
        let (start, stop) = match self.dice.below(6) {
            0 => (i64::MIN, i64::MAX),
            _ => (a.min(b), a.max(b)),
        };
        let mut selector = Selector::bucket(&bucket);
        let series = self.dice.below(5);
        if series < 3 {
            selector = selector.tag("s", Matcher::equal(series.to_string()));
        }
        let field = FIELDS[self.dice.below(6) as usize];
        let one_field = self.dice.below(3) == 0;
        if one_field {
            selector = selector.field(field);
        }
        store
            .delete(&selector, TimeRange::new(Timestamp::from_nanos(start), Timestamp::from_nanos(stop)))
            .unwrap();
        for ((b, s, f), readings) in &mut self.model {
            if *b == bucket && (series >= 3 || *s == series) && (!one_field || *f == field) {
                readings.retain(|t, _| !(start <= *t && *t < stop));
            }
        }
    }

    /// Everything that can be asked, against the map.
    fn check(&self, store: &Store, context: &str) {
        let context = format!("seed {}, {context}", self.seed);
        let at = Timestamp::from_nanos;
        for bucket in self.buckets.keys() {
            let visible = self.visible(bucket);
            let all = Selector::bucket(bucket);
            let mut found: BTreeMap<(u64, String), BTreeMap<i64, Value>> = BTreeMap::new();
            for block in store.scan(&all, TimeRange::all()).unwrap() {
                let block = block.unwrap();
                let key = (block.series.tag("s").unwrap().parse().unwrap(), block.series.field().to_owned());
                let readings = found.entry(key).or_default();
                for (i, t) in block.times.iter().enumerate() {
                    assert!(
                        readings.insert(*t, block.values.get(i)).is_none(),
                        "{context}: a time comes once"
                    );
                }
            }
            let mut expected: BTreeMap<(u64, String), BTreeMap<i64, Value>> = BTreeMap::new();
            for ((b, s, f), readings) in &self.model {
                let shown: BTreeMap<i64, Value> =
                    readings.range(visible..).map(|(t, v)| (*t, v.clone())).collect();
                if b == bucket && !shown.is_empty() {
                    expected.insert((*s, (*f).to_owned()), shown);
                }
            }
            for key in found.keys().chain(expected.keys()) {
                assert_eq!(found.get(key), expected.get(key), "{context}: bucket {bucket}, series {key:?}");
            }
            let latest: BTreeMap<(u64, String), (i64, Value)> = store
                .latest(&all)
                .unwrap()
                .into_iter()
                .map(|l| {
                    let key = (l.series.tag("s").unwrap().parse().unwrap(), l.series.field().to_owned());
                    (key, (l.time.as_nanos(), l.value))
                })
                .collect();
            let newest = expected.iter().map(|(k, r)| {
                let (t, v) = r.last_key_value().unwrap();
                (k.clone(), (*t, v.clone()))
            });
            assert_eq!(latest, newest.collect(), "{context}: latest of {bucket}");
            for (series, bounds) in store.bounds(&all).unwrap() {
                let key = (series.tag("s").unwrap().parse().unwrap(), series.field().to_owned());
                let known = expected
                    .get(&key)
                    .map(|r| (at(*r.first_key_value().unwrap().0), at(*r.last_key_value().unwrap().0)));
                assert_eq!(bounds, known, "{context}: bounds of {key:?}");
            }
            // Windows of an hour, a day and an odd length, over everything and over a part.
            let part = TimeRange::new(at(EPOCH + 7 * HOUR + 1), at(EPOCH + 3 * DAY + 5 * HOUR));
            for (every, range) in
                [(HOUR, TimeRange::all()), (DAY, part), (HOUR, part), (1_000_000_007_000, TimeRange::all())]
            {
                let windows = Windows::every(Duration::from_nanos(every as u64)).unwrap();
                for folded in store.windows(&all, range, &windows).unwrap() {
                    let key =
                        (folded.series.tag("s").unwrap().parse().unwrap(), folded.series.field().to_owned());
                    let mut known: BTreeMap<i64, Vec<&Value>> = BTreeMap::new();
                    for (t, v) in expected[&key].range(range.start().as_nanos()..range.stop().as_nanos()) {
                        known.entry(t.div_euclid(every)).or_default().push(v);
                    }
                    assert_eq!(folded.windows.len(), known.len(), "{context}: windows of {key:?}");
                    for (window, values) in folded.windows.iter().zip(known.values()) {
                        let s = &window.summary;
                        assert_eq!(s.count, values.len() as u64, "{context}");
                        assert_eq!(
                            (&s.first.1, &s.last.1),
                            (values[0], *values.last().unwrap()),
                            "{context}"
                        );
                        let numbers: Option<Vec<f64>> = values.iter().map(|v| v.as_f64()).collect();
                        let Some(numbers) = numbers else { continue };
                        // Tenths, exactly.
                        let sum =
                            numbers.iter().map(|x| (x * 10.0).round() as i64).sum::<i64>() as f64 / 10.0;
                        assert_eq!(s.sum().unwrap().unwrap().as_f64(), Some(sum), "{context}");
                        let low = numbers.iter().copied().fold(f64::INFINITY, f64::min);
                        let high = numbers.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                        let ends = (s.min.as_ref().unwrap().as_f64(), s.max.as_ref().unwrap().as_f64());
                        assert_eq!(ends, (Some(low), Some(high)), "{context}");
                    }
                }
            }
        }
    }

    fn run(&mut self) -> u64 {
        let mut store = self.open();
        for name in ["a", "b"] {
            store.create_bucket(name).unwrap();
            self.buckets.insert(name.to_owned(), 0);
        }
        let mut steps = 0;
        for step in 0..10 + self.dice.below(15) {
            steps += 1;
            let what = self.dice.below(24);
            match what {
                0..=9 => self.write(&store),
                10..=11 => self.delete(&store),
                12..=13 => store.seal().unwrap(),
                14..=15 => store.compact().unwrap(),
                16..=17 => store.maintain().unwrap(),
                18 => {
                    let bucket = self.bucket();
                    // Never longer than before: whether what had expired is still there nobody promises.
                    let hours = [30, 60, 100, 1000][self.dice.below(4) as usize];
                    let before = self.buckets[&bucket];
                    if before == 0 || hours * HOUR < before {
                        store.set_retention(&bucket, Some(Duration::from_secs(hours as u64 * 3600))).unwrap();
                        self.buckets.insert(bucket, hours * HOUR);
                    }
                }
                19 => {
                    self.clock.fetch_add(self.dice.below(20) as i64 * HOUR, Ordering::Relaxed);
                }
                20 => {
                    let bucket = self.bucket();
                    store.remove_bucket(&bucket).unwrap();
                    self.model.retain(|(b, _, _), _| *b != bucket);
                    self.x.remove(&bucket);
                    store.create_bucket(&bucket).unwrap();
                    self.buckets.insert(bucket, 0);
                }
                21 => {
                    // A kill: the log as it is, the file as it is.
                    let disk = self.disk.after_kill();
                    let copy = tempfile::tempdir().unwrap();
                    copy_file(self.folder.path(), copy.path());
                    drop(store);
                    for entry in std::fs::read_dir(self.folder.path()).unwrap() {
                        let path = entry.unwrap().path();
                        if path.is_file() {
                            std::fs::remove_file(path).unwrap();
                        }
                    }
                    copy_file(copy.path(), self.folder.path());
                    self.disk = disk;
                    store = self.open();
                }
                _ => {
                    drop(store);
                    store = self.open();
                }
            }
            if self.dice.below(3) == 0 || step > 20 {
                self.check(&store, &format!("step {step}, {what}"));
            }
        }
        self.check(&store, "end");
        let report = store.verify().unwrap();
        assert!(report.damage.is_empty(), "seed {}: {:?}", self.seed, report.damage);
        steps
    }
}

/// The store file at this moment; SQLite's commits are on the disk when they return.
fn copy_file(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() && !path.ends_with("store.sqlite-shm") && !path.ends_with("LOCK") {
            std::fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
        }
    }
}

#[test]
fn a_store_is_a_map_whatever_happens() {
    let cases: u64 = std::env::var("GRAYLOGIC_MODEL_CASES").map_or(150, |n| n.parse().unwrap());
    let from: u64 = std::env::var("GRAYLOGIC_MODEL_SEED").map_or(1, |n| n.parse().unwrap());
    let mut steps = 0;
    for seed in from..from + cases {
        steps += Case::new(seed).run();
    }
    println!("{cases} histories of {steps} steps, seeds from {from}: all equal to the map");
}
