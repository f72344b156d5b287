//! What is there after a power cut or a kill: everything that was promised, whole batches, and nothing else.
//! `GRAYLOGIC_CRASH_SEEDS` says how many histories of 42 ends each are tried (a campaign tries 2,400).
#![allow(clippy::unwrap_used, missing_docs)]

use graylogic_durable::{Call, Disk, Fault, IO_ERROR, NO_SPACE, SimDisk};
use graylogic_store::{Selector, Store, StoreOptions, TimeRange, WriteOptions};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

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

fn open(folder: &Path, disk: &SimDisk) -> Store {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    Store::open(folder, StoreOptions::default().disk(disk).without_workers()).unwrap()
}

/// The store file as it is at this moment; SQLite's commits are on the disk when they return.
fn copy_of(folder: &Path, to: &Path) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() && !path.ends_with("store.sqlite-shm") && !path.ends_with("LOCK") {
            std::fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
        }
    }
}

/// Batch number by series and time: every batch writes its number as value.
type Content = BTreeMap<(u64, i64), u64>;

fn content(store: &Store) -> Content {
    let mut found = Content::new();
    for block in store.scan(&Selector::bucket("b"), TimeRange::all()).unwrap() {
        let block = block.unwrap();
        let series = block.series.tag("s").unwrap().parse().unwrap();
        for (i, t) in block.times.iter().enumerate() {
            let before = found.insert((series, *t), block.values.get(i).as_f64().unwrap() as u64);
            assert_eq!(before, None, "a time comes once");
        }
    }
    found
}

#[derive(Default)]
struct History {
    /// Every batch that was accepted, by number, with the readings it wrote.
    batches: Vec<Vec<(u64, i64)>>,
    /// So many of them are safe from a power cut.
    safe: usize,
}

impl History {
    /// What is there must be what the safe batches leave and, of the others, any that are whole: a power cut may keep a
    /// later write and lose an earlier one as long as neither was synced.
    fn explains(&self, found: &Content, least: usize) -> bool {
        let mut state = Content::new();
        for (n, batch) in self.batches.iter().enumerate() {
            let number = n as u64;
            if n < least || found.values().any(|&v| v == number) {
                state.extend(batch.iter().map(|&key| (key, number)));
            }
        }
        state == *found
    }
}

/// Random writes, syncs and seals; at each step crashes by power cut and by kill are tried on copies.
fn run(seed: u64, steps: usize, cuts_per_step: u64) -> u64 {
    let mut dice = Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    let place = tempfile::tempdir().unwrap();
    let mut folder: PathBuf = place.path().join("0");
    std::fs::create_dir(&folder).unwrap();
    let mut disk = SimDisk::new();
    let mut store = open(&folder, &disk);
    store.create_bucket("b").unwrap();
    let mut history = History::default();
    let mut crashes = 0;
    for step in 0..steps {
        match dice.below(10) {
            0..=5 => {
                let number = history.batches.len() as u64;
                let readings: Vec<(u64, i64)> =
                    (0..1 + dice.below(20)).map(|_| (dice.below(4), dice.below(60) as i64)).collect();
                let body: String =
                    readings.iter().map(|(s, t)| format!("m,s={s} v={number} {t}\n")).collect();
                store.write_lines("b", body.as_bytes(), &WriteOptions::now().any_time()).unwrap();
                history.batches.push(readings);
            }
            6..=7 => {
                store.sync().unwrap();
                history.safe = history.batches.len();
            }
            8 => {
                // What is sealed is on the disk as well, but which batches are is the store's affair.
                match dice.below(3) {
                    0 => store.compact().unwrap(),
                    1 => store.maintain().unwrap(),
                    _ => store.seal().unwrap(),
                }
                store.sync().unwrap();
                history.safe = history.batches.len();
            }
            _ => {
                drop(store);
                history.safe = history.batches.len();
                disk = disk.after_kill();
                store = open(&folder, &disk);
            }
        }
        for cut in 0..cuts_per_step {
            crashes += 1;
            let killed = cut == 0;
            let (after, least) = if killed {
                (disk.after_kill(), history.batches.len())
            } else {
                (disk.after_power_cut(seed ^ ((step as u64) << 20) ^ cut), history.safe)
            };
            let copy = place.path().join(format!("crash-{step}-{cut}"));
            std::fs::create_dir(&copy).unwrap();
            copy_of(&folder, &copy);
            // The simulated log lives under the name of its folder.
            let moved = moved_to(&after, &folder, &copy);
            let mut survivor = open(&copy, &moved);
            let found = content(&survivor);
            assert!(
                history.explains(&found, least),
                "seed {seed}, step {step}, {}: {} of {} batches were safe, found {found:?}",
                if killed { "kill" } else { "power cut" },
                least,
                history.batches.len()
            );
            // It goes on: what is written after the crash is there after the next start too.
            let late = (9, 1000 + (step as u64 * cuts_per_step + cut) as i64);
            survivor
                .write_lines("b", format!("m,s=9 v=1 {}", late.1).as_bytes(), &WriteOptions::now().any_time())
                .unwrap();
            drop(survivor);
            survivor = open(&copy, &moved.after_kill());
            let mut again = content(&survivor);
            assert_eq!(again.remove(&late), Some(1), "seed {seed}, step {step}, cut {cut}");
            assert_eq!(again, found, "seed {seed}, step {step}, cut {cut}");
            if cut == 1 && dice.below(8) == 0 {
                // Sometimes history goes on behind a power cut.
                drop(store);
                drop(survivor);
                std::fs::remove_dir_all(&folder).unwrap();
                folder = place.path().join(format!("after-{step}"));
                std::fs::create_dir(&folder).unwrap();
                copy_of(&copy, &folder);
                disk = moved_to(&moved, &copy, &folder);
                store = open(&folder, &disk);
                history = History { batches: vec![again.keys().copied().chain([late]).collect()], safe: 1 };
                rewrite(&store, &history.batches[0], &mut history.safe);
            }
            std::fs::remove_dir_all(&copy).unwrap_or_default();
        }
    }
    crashes
}

/// Gives every surviving reading the number of the only batch left, so that history begins anew.
fn rewrite(store: &Store, readings: &[(u64, i64)], safe: &mut usize) {
    let body: String = readings.iter().map(|(s, t)| format!("m,s={s} v=0 {t}\n")).collect();
    store.write_lines("b", body.as_bytes(), &WriteOptions::now().any_time()).unwrap();
    store.sync().unwrap();
    *safe = 1;
}

fn moved_to(disk: &SimDisk, from: &Path, to: &Path) -> SimDisk {
    let moved = SimDisk::new();
    moved.create_dir_all(&to.join("log")).unwrap();
    for path in disk.files() {
        let Ok(rest) = path.strip_prefix(from) else { continue };
        let new = to.join(rest);
        moved.create_dir_all(new.parent().unwrap()).unwrap();
        moved.set_bytes(&new, disk.bytes(&path).unwrap());
    }
    moved
}

#[test]
fn after_any_crash_the_safe_batches_are_there_and_every_batch_is_whole() {
    let seeds = std::env::var("GRAYLOGIC_CRASH_SEEDS").map_or(24, |n| n.parse().unwrap());
    let crashes: u64 = (1..=seeds).map(|seed| run(seed, 14, 3)).sum();
    println!("{crashes} crashes of {seeds} histories (seeds 1 to {seeds}): 0 lost, 0 torn, 0 foreign");
}

#[test]
fn a_refused_write_leaves_nothing_and_the_store_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let disk = SimDisk::new();
    let store = open(folder.path(), &disk);
    store.create_bucket("b").unwrap();
    let write = |body: &str| store.write_lines("b", body.as_bytes(), &WriteOptions::now().any_time());
    write("m,s=0 v=0 1").unwrap();
    for (errno, no_space) in [(NO_SPACE, true), (IO_ERROR, false)] {
        disk.fail(Fault { call: Some(Call::Write), after: 0, times: 1, errno });
        let error = write("m,s=0 v=1 2\nm,s=1 v=1 2").unwrap_err();
        assert_eq!((error.is_no_space(), error.is_retryable()), (no_space, true), "{error}");
        assert_eq!(content(&store).len(), 1);
    }
    write("m,s=0 v=2 3").unwrap();
    disk.fail(Fault { call: Some(Call::Sync), after: 0, times: 1, errno: IO_ERROR });
    assert!(store.sync().is_err());
    store.sync().unwrap();
    let expected = content(&store);
    drop(store);
    let after = disk.after_power_cut(7);
    assert_eq!(content(&open(folder.path(), &after)), expected);
}
