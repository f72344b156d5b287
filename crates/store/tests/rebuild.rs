//! A store file that is damaged inside is written anew while the store runs: readings go into chunks again, no question goes
//! wrong meanwhile, what is lost is named, and a crash at any step leaves the old file or the new one in use.
#![allow(clippy::unwrap_used, missing_docs)]

use graylogic_durable::{DirEntry, Disk, DiskFile, DiskLock, OpenMode, RealDisk, Space};
use graylogic_store::{Matcher, Selector, Store, StoreOptions, TimeRange, WriteOptions};
use rusqlite::Connection;
use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

const PAGE: usize = 16_384;
const HOUR: i64 = 3_600_000_000_000;

fn options() -> StoreOptions {
    StoreOptions::default().without_workers()
}

fn open(folder: &Path) -> Store {
    Store::open(folder, options()).unwrap()
}

fn write(store: &Store, body: &str) {
    store.ensure_bucket("b").unwrap();
    let report = store.write_lines("b", body.as_bytes(), &WriteOptions::now().any_time()).unwrap();
    assert_eq!(report.rejected_count, 0, "{body}");
}

fn dump(store: &Store) -> BTreeSet<String> {
    let mut out = BTreeSet::new();
    for block in store.scan(&Selector::bucket("b"), TimeRange::all()).unwrap() {
        let block = block.unwrap();
        let s = &block.series;
        let tags: String = s.tags().map(|(k, v)| format!(",{k}={v}")).collect();
        for (i, t) in block.times.iter().enumerate() {
            let value = block.values.get(i).as_f64().unwrap();
            let new = out.insert(format!("{}{tags} {}={value} {t}", s.measurement(), s.field()));
            assert!(new, "shown twice: {tags} {t}");
        }
    }
    out
}

/// Compacted and fresh chunks, a series that is deleted, a deletion that is not carried out, and readings in the log.
fn filled(folder: &Path) -> BTreeSet<String> {
    let store = open(folder);
    let lines = |series: std::ops::Range<i64>, from: i64, to: i64| -> String {
        let line = |s: i64, i: i64| format!("m,s={s} v={s}.{} {}\n", i % 10, i * HOUR);
        series.flat_map(|s| (from..to).map(move |i| line(s, i))).collect()
    };
    write(&store, &lines(0..20, 0, 400));
    store.compact().unwrap();
    let of = |s: &str| Selector::bucket("b").tag("s", Matcher::equal(s));
    store.delete(&of("7"), TimeRange::all()).unwrap();
    store.compact().unwrap();
    write(&store, &lines(0..20, 400, 430));
    store.seal().unwrap();
    store.delete(&of("8"), TimeRange::all()).unwrap();
    write(&store, &lines(0..7, 430, 440));
    let found = dump(&store);
    assert_eq!(found.len(), 18 * 430 + 30 + 70);
    store.close().unwrap();
    found
}

/// Fills the first page of a table with bytes that are no page.
fn damage(folder: &Path, table: &str) {
    let file = folder.join("store.sqlite");
    let connection = Connection::open(&file).unwrap();
    let sql = "SELECT rootpage FROM sqlite_schema WHERE name = ?1";
    let root: usize = connection.query_row(sql, [table], |r| r.get::<_, i64>(0)).unwrap() as usize;
    connection.close().unwrap();
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[(root - 1) * PAGE..root * PAGE].fill(0xa5);
    std::fs::write(&file, bytes).unwrap();
}

fn names(folder: &Path) -> BTreeSet<String> {
    std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn a_damaged_table_costs_at_most_what_was_in_it_and_is_named() {
    for table in
        ["sealed", "series", "spare", "tombstone", "chunk", "ledger", "pack", "pack_use", "meta", "bucket"]
    {
        let folder = tempfile::tempdir().unwrap();
        let expected = filled(folder.path());
        damage(folder.path(), table);
        let hurt = std::fs::read(folder.path().join("store.sqlite")).unwrap();
        let store = open(folder.path());
        write(&store, "late v=1 1");
        store.compact().unwrap_or_else(|e| panic!("{table}: {e}"));
        let found = dump(&store);
        assert_eq!(store.stats().unwrap().tail_values, 0, "{table}");
        let wrong: Vec<_> =
            found.iter().filter(|l| !expected.contains(*l) && !l.starts_with("late")).collect();
        assert!(wrong.is_empty(), "{table}: {} {:?}", wrong.len(), wrong.first());
        assert!(found.contains("late v=1 1"), "{table}");
        store.close().unwrap();
        let store = open(folder.path());
        assert_eq!(dump(&store), found, "{table}");
        let verified = store.verify().unwrap().damage;
        assert!(!verified.is_empty(), "{table}");
        let lost = expected.len() + 1 - found.len();
        if table == "pack" {
            assert!(lost > 0 && store.recovery().lost_values >= lost as u64, "{table}: {lost} {verified:?}");
            assert!(verified.iter().any(|d| d.contains("readings from")), "{verified:?}");
        } else {
            assert_eq!(lost, 0, "{table}: {verified:?}");
        }
        let kept = folder.path().join("damaged/store.sqlite");
        if kept.exists() {
            assert_eq!(std::fs::read(kept).unwrap().len(), hurt.len(), "{table}");
        }
        assert!(
            ["tombstone", "bucket", "spare"].contains(&table)
                || verified.iter().any(|d| d.contains("written anew")),
            "{table}: {verified:?}"
        );
        // Nothing else is wrong with it.
        let settled = store.settle().unwrap_or_else(|e| panic!("{table}: {e}"));
        if settled == 0 {
            // A table that no commit needed.
            assert!(store.verify().unwrap().damage.iter().any(|d| d.contains("written anew")), "{table}");
            store.settle().unwrap();
        }
        assert_eq!(store.verify().unwrap().damage, [""; 0], "{table}");
        store.close().unwrap();
    }
}

#[test]
fn questions_are_answered_while_the_file_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let expected = filled(folder.path());
    damage(folder.path(), "sealed");
    let store = open(folder.path());
    let (done, asked) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    let found = dump(&store);
                    assert!(expected.is_subset(&found), "{} of {}", found.len(), expected.len());
                    asked.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        while asked.load(Ordering::Relaxed) < 3 {
            thread::yield_now();
        }
        for i in 0..20 {
            write(&store, &format!("late v={i} {i}"));
            store.seal().unwrap();
        }
        let before = asked.load(Ordering::Relaxed);
        while asked.load(Ordering::Relaxed) < before + 3 {
            thread::yield_now();
        }
        done.store(true, Ordering::Relaxed);
    });
    assert!(folder.path().join("damaged/store.sqlite").exists());
    assert_eq!(dump(&store).len(), expected.len() + 20);
    assert_eq!(
        names(folder.path()).into_iter().filter(|n| n.contains("new") || n.contains("unfinished")).count(),
        0
    );
    // Whoever asked by the old file has left the new one whole.
    store.close().unwrap();
    let store = open(folder.path());
    assert_eq!(dump(&store).len(), expected.len() + 20);
}

/// More than memory holds: without chunks to go into, writes would be rejected.
#[test]
fn a_running_store_cures_its_file_by_itself() {
    let folder = tempfile::tempdir().unwrap();
    let expected = filled(folder.path());
    damage(folder.path(), "sealed");
    let memory = 2 << 20;
    let store = Store::open(folder.path(), StoreOptions::default().memory_bytes(memory)).unwrap();
    let mut written = 0;
    for batch in 0..60i64 {
        let line = |i: i64| format!("late,s={} v={i} {}\n", i % 4, 1 + batch * 20_000 + i);
        write(&store, &(0..5000).map(line).collect::<String>());
        written += 5000;
    }
    let stats = store.stats().unwrap();
    assert!(stats.memory_bytes <= memory, "{}", stats.memory_bytes);
    assert!(stats.chunk_values > expected.len() as u64, "{stats:?}");
    assert!(folder.path().join("damaged/store.sqlite").exists());
    assert_eq!(dump(&store).len(), expected.len() + written);
    store.close().unwrap();
    assert_eq!(dump(&open(folder.path())).len(), expected.len() + written);
}

#[test]
fn buckets_are_made_and_changed_in_a_damaged_file() {
    let folder = tempfile::tempdir().unwrap();
    let expected = filled(folder.path());
    damage(folder.path(), "bucket");
    let store = open(folder.path());
    let made = store.create_bucket("another").unwrap();
    assert!(made.id > 1);
    store.rename_bucket("another", "other").unwrap();
    store.close().unwrap();
    let store = open(folder.path());
    assert_eq!(dump(&store), expected);
    assert_eq!(store.buckets().iter().map(|b| b.name.as_str()).collect::<Vec<_>>(), ["b", "other"]);
    store.remove_bucket("other").unwrap();
}

#[test]
fn a_crash_at_any_step_leaves_the_old_file_or_the_new_one_in_use() {
    let place = tempfile::tempdir().unwrap();
    let (whole, rebuilt) = (place.path().join("whole"), place.path().join("rebuilt"));
    let expected = filled(&whole);
    damage(&whole, "sealed");
    copy(&whole, &rebuilt);
    let store = open(&rebuilt);
    store.seal().unwrap();
    store.close().unwrap();
    let new = std::fs::read(rebuilt.join("store.sqlite")).unwrap();
    for step in 0..4 {
        let folder = place.path().join(format!("step-{step}"));
        copy(if step == 0 { &whole } else { &rebuilt }, &folder);
        let at = |name: &str| folder.join(name);
        if step > 0 {
            std::fs::write(at("store.sqlite.new"), &new).unwrap();
            std::fs::write(at("store.sqlite-wal"), b"of the old file").unwrap();
        }
        match step {
            0 => {
                std::fs::write(at("store.sqlite.unfinished"), &new[..new.len() / 2]).unwrap();
                std::fs::write(at("store.sqlite.unfinished-wal"), b"half").unwrap();
            }
            1 => {
                std::fs::copy(whole.join("store.sqlite"), at("store.sqlite")).unwrap();
            }
            2 => std::fs::remove_file(at("store.sqlite")).unwrap(),
            _ => {
                std::fs::remove_file(at("store.sqlite")).unwrap();
                std::fs::rename(at("store.sqlite-wal"), at("damaged/store.sqlite-wal")).unwrap();
            }
        }
        let store = open(&folder);
        assert_eq!(dump(&store), expected, "step {step}");
        write(&store, "late v=1 1");
        store.seal().unwrap();
        assert_eq!(dump(&store).len(), expected.len() + 1, "step {step}");
        store.close().unwrap();
        let left: Vec<_> = names(&folder).into_iter().filter(|n| n.starts_with("store.sqlite")).collect();
        assert_eq!(left, ["store.sqlite"], "step {step}");
        let aside = names(&folder.join("damaged"));
        assert!(aside.contains("store.sqlite"), "step {step}: {aside:?}");
        assert!(
            step == 0 || aside.iter().any(|n| n.starts_with("store.sqlite-wal")),
            "step {step}: {aside:?}"
        );
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let to = to.join(path.file_name().unwrap());
        match path.is_dir() {
            true => copy(&path, &to),
            false => assert!(std::fs::copy(&path, &to).is_ok()),
        }
    }
}

#[test]
fn a_lost_mark_does_not_make_the_log_another_stores() {
    let folder = tempfile::tempdir().unwrap();
    let expected = filled(folder.path());
    let connection = Connection::open(folder.path().join("store.sqlite")).unwrap();
    connection.execute_batch("UPDATE meta SET mark = x'00'").unwrap();
    connection.close().unwrap();
    let store = open(folder.path());
    assert_eq!(dump(&store), expected);
    assert!(!folder.path().join("log/damaged").exists());
}

/// The real disk, which says that it has no room for a copy while it is told to.
#[derive(Debug, Default)]
struct FullDisk(RealDisk, AtomicBool);

impl Disk for FullDisk {
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.0.create_dir_all(path)
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<DirEntry>> {
        self.0.list(directory)
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        self.0.open(path, mode)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.0.remove(path)
    }

    fn sync_dir(&self, directory: &Path) -> io::Result<()> {
        self.0.sync_dir(directory)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn DiskLock>> {
        self.0.lock(path)
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        let mut space = self.0.space(path)?;
        if self.1.load(Ordering::Relaxed) {
            space.available_bytes = 1 << 20;
        }
        Ok(space)
    }
}

#[test]
fn without_room_for_a_copy_the_store_goes_on_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let expected = filled(folder.path());
    damage(folder.path(), "pack");
    let disk = Arc::new(FullDisk::default());
    disk.1.store(true, Ordering::Relaxed);
    let store = Store::open(folder.path(), options().disk(disk.clone())).unwrap();
    let shown = dump(&store);
    write(&store, "late v=1 1");
    let refused = store.seal().unwrap_err();
    assert!(refused.is_corruption(), "{refused}");
    let found = dump(&store);
    assert!(shown.is_subset(&found) && found.len() == shown.len() + 1);
    let damage = store.verify().unwrap().damage;
    assert!(damage.iter().any(|d| d.contains("make room, and it is tried again")), "{damage:?}");
    assert!(!folder.path().join("damaged").exists());
    store.close().unwrap();
    disk.1.store(false, Ordering::Relaxed);
    let store = Store::open(folder.path(), options().disk(disk)).unwrap();
    store.seal().unwrap();
    let now = dump(&store);
    assert!(now.contains("late v=1 1") && now.is_superset(&shown) && now.len() <= expected.len() + 1);
}
