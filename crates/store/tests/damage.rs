//! A flipped bit anywhere: never a wrong value, never a panic, nothing deleted, and the damage is told.
//! `GRAYLOGIC_FLIPS` says how many places are tried (a campaign tries 20,000).
#![allow(clippy::unwrap_used, missing_docs)]

use graylogic_store::{Selector, Store, StoreOptions, TimeRange, Value, Windows, WriteOptions};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

const HOUR: i64 = 3_600_000_000_000;

struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

type Content = BTreeMap<(String, i64), Value>;

fn open(folder: &Path) -> Result<Store, graylogic_store::Error> {
    Store::open(folder, StoreOptions::default().without_workers())
}

fn name(series: &graylogic_store::SeriesInfo) -> String {
    let tags: Vec<String> = series.tags().map(|(k, v)| format!("{k}={v}")).collect();
    format!("{} {} {} {}", series.bucket(), series.measurement(), tags.join(","), series.field())
}

/// Readings of every type, compacted, sealed, and in the log only; the newest value of a time counts.
fn fill(folder: &Path) -> Content {
    let store = open(folder).unwrap();
    let mut dice = Dice(77);
    for bucket in ["a", "b"] {
        store.create_bucket(bucket).unwrap();
        for layer in 0..3 {
            let mut body = String::new();
            for i in 0..4000i64 {
                let t = layer * 30 * HOUR + i * 40_000_000_000 + dice.below(20) as i64 * 1_000_000 + layer;
                let k = dice.below(1000);
                body += &format!("m,s={} f={}.{} {t}\n", i % 4, k / 10, k % 10);
                if i % 3 == 0 {
                    body += &format!("m,s={} i={k}i,u={k}u,b={},s=\"w{}\" {t}\n", i % 2, k > 500, k % 9);
                }
            }
            store.write_lines(bucket, body.as_bytes(), &WriteOptions::now().any_time()).unwrap();
            if layer == 0 {
                store.compact().unwrap();
            } else if layer == 1 {
                store.seal().unwrap();
            }
        }
    }
    store.close().unwrap();
    content(&open(folder).unwrap()).0
}

/// What is told of every reading, and whether anything failed to be told.
fn content(store: &Store) -> (Content, bool) {
    let mut found = Content::new();
    let mut failed = false;
    for bucket in store.buckets() {
        let Ok(scan) = store.scan(&Selector::bucket(&bucket.name), TimeRange::all()) else {
            failed = true;
            continue;
        };
        for block in scan {
            let Ok(block) = block else {
                failed = true;
                continue;
            };
            for (i, t) in block.times.iter().enumerate() {
                found.insert((name(&block.series), *t), block.values.get(i));
            }
        }
    }
    (found, failed)
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let log = std::fs::read_dir(folder.join("log")).unwrap().map(|e| e.unwrap().path());
    log.chain([folder.join("store.sqlite")]).filter(|p| p.is_file()).collect()
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to.join("log")).unwrap();
    for file in files(from) {
        std::fs::copy(&file, to.join(file.strip_prefix(from).unwrap())).unwrap();
    }
}

#[test]
fn no_flipped_bit_makes_a_wrong_value() {
    let flips: u64 = std::env::var("GRAYLOGIC_FLIPS").map_or(150, |n| n.parse().unwrap());
    let place = tempfile::tempdir().unwrap();
    let whole = place.path().join("whole");
    let expected = fill(&whole);
    assert_eq!(open(&whole).unwrap().verify().unwrap().damage, Vec::<String>::new());
    let hours = Windows::every(Duration::from_secs(3600)).unwrap();
    let counts = |store: &Store| -> BTreeMap<(String, i64), u64> {
        let mut found = BTreeMap::new();
        for bucket in store.buckets() {
            for s in
                store.windows(&Selector::bucket(&bucket.name), TimeRange::all(), &hours).unwrap_or_default()
            {
                for w in s.windows {
                    found.insert((name(&s.series), w.start.as_nanos()), w.summary.count);
                }
            }
        }
        found
    };
    let expected_counts = counts(&open(&whole).unwrap());
    let mut dice = Dice(4711);
    let (mut refused, mut lossy, mut told, mut untold) = (0, 0, 0, 0);
    let known: BTreeSet<&String> = expected.keys().map(|k| &k.0).collect();
    for flip in 0..flips {
        let folder = place.path().join("flipped");
        let _not_there_yet = std::fs::remove_dir_all(&folder);
        copy(&whole, &folder);
        let all = files(&folder);
        // Most of the bytes are in the file, many of the interesting ones in its first pages.
        let file = &all[dice.below(all.len() as u64) as usize];
        let mut bytes = std::fs::read(file).unwrap();
        let reach = if dice.below(4) == 0 { bytes.len().min(200_000) } else { bytes.len() };
        let at = dice.below(reach as u64) as usize;
        bytes[at] ^= 1 << dice.below(8);
        std::fs::write(file, &bytes).unwrap();
        let context = format!("flip {flip}: byte {at} of {}", file.display());
        let store = match open(&folder) {
            Ok(store) => store,
            Err(error) => {
                assert!(!error.to_string().is_empty(), "{context}");
                assert_eq!(std::fs::read(file).unwrap().len(), bytes.len(), "{context}: nothing is deleted");
                refused += 1;
                continue;
            }
        };
        let (found, failed) = content(&store);
        for (key, value) in &found {
            if let Some(right) = expected.get(key) {
                assert_eq!(value, right, "{context}: {key:?}");
            } else {
                assert!(!known.contains(&key.0), "{context}: {key:?} was never written");
            }
        }
        for (key, count) in counts(&store) {
            let most = expected_counts.get(&key).copied().unwrap_or(0);
            assert!(count <= most || !known.contains(&key.0), "{context}: {count} readings in {key:?}");
        }
        if found.len() < expected.len() {
            lossy += 1;
            let report = store.verify();
            let said = failed
                || !store.recovery().damage.is_empty()
                || store.stats().map_or(true, |s| s.damaged_total > 0)
                || report.map_or(true, |r| !r.damage.is_empty());
            if said {
                told += 1;
            } else {
                untold += 1;
            }
            assert!(said, "{context}: {} of {} readings, and nothing is said", found.len(), expected.len());
        }
    }
    println!(
        "{flips} flipped bits: 0 wrong values; {refused} stores refused to open, {lossy} lost readings and said so ({told}, {untold} silent)"
    );
}

#[test]
fn what_is_good_in_a_broken_file_is_saved() {
    let place = tempfile::tempdir().unwrap();
    let whole = place.path().join("whole");
    let expected = fill(&whole);
    let mut dice = Dice(99);
    let (mut least, mut saved_all) = (usize::MAX, 0);
    for case in 0..8 {
        let broken = place.path().join(format!("broken{case}"));
        copy(&whole, &broken);
        let file = broken.join("store.sqlite");
        let mut bytes = std::fs::read(&file).unwrap();
        // A page of noise, not the first, without which SQLite knows no table.
        let pages = bytes.len() as u64 / 16_384;
        let page = (1 + dice.below(pages - 1)) as usize * 16_384;
        bytes[page..page + 16_384].fill_with(|| dice.below(256) as u8);
        std::fs::write(&file, &bytes).unwrap();
        let to = place.path().join(format!("saved{case}"));
        let report = Store::salvage(&broken, &to).unwrap();
        assert_eq!(std::fs::read(&file).unwrap(), bytes, "the broken file is only read");
        let store = open(&to).unwrap();
        assert!(store.verify().unwrap().damage.is_empty());
        let (found, failed) = content(&store);
        assert!(!failed);
        for (key, value) in found.iter().filter(|(k, _)| !k.0.starts_with("salvaged")) {
            assert_eq!(expected.get(key), Some(value), "case {case}: {key:?}");
        }
        if found.len() < expected.len() {
            assert!(!report.lost.is_empty(), "case {case}: {} of {}", found.len(), expected.len());
        } else {
            saved_all += 1;
        }
        least = least.min(found.len());
        // And it is a store like any other.
        let bucket = store.buckets()[0].name.clone();
        store.write_lines(&bucket, b"m,s=0 f=1 1", &WriteOptions::now().any_time()).unwrap();
        store.compact().unwrap();
        assert!(
            Store::salvage(&broken, &to).unwrap_err().is_exists(),
            "a folder with something in it is left alone"
        );
    }
    println!(
        "8 broken pages: at least {least} of {} readings saved, all of them {saved_all} times",
        expected.len()
    );
}
