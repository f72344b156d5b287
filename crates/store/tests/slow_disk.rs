//! A disk that does not come back from a sync, and a store file that another process has locked: neither stands between
//! an accepted line and the operating system.
#![allow(clippy::unwrap_used, missing_docs)]

use graylogic_durable::{DirEntry, Disk, DiskFile, DiskLock, OpenMode, RealDisk, Space};
use graylogic_store::{Selector, Store, StoreOptions, Sync, WriteOptions};
use std::io;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

/// Longer than any healthy step takes on a loaded machine: a test that waits so long has failed.
const FAILED: Duration = Duration::from_secs(120);

/// Stops syncs while it is closed.
#[derive(Debug, Default)]
struct Gate {
    state: Mutex<GateState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct GateState {
    closed: bool,
    /// Syncs that came while it was closed.
    stopped: usize,
}

impl Gate {
    fn pass(&self) {
        let mut state = self.state.lock().unwrap();
        state.stopped += usize::from(state.closed);
        self.changed.notify_all();
        drop(self.changed.wait_while(state, |s| s.closed).unwrap());
    }

    fn set(&self, closed: bool) {
        self.state.lock().unwrap().closed = closed;
        self.changed.notify_all();
    }

    /// Returns when a sync hangs.
    fn wait_for_a_sync(&self) {
        let state = self.state.lock().unwrap();
        let (_state, late) = self.changed.wait_timeout_while(state, FAILED, |s| s.stopped == 0).unwrap();
        assert!(!late.timed_out(), "no sync began");
    }
}

/// The real disk with a gate before each sync of a file.
#[derive(Debug)]
struct GatedDisk(RealDisk, Arc<Gate>);

#[derive(Debug)]
struct GatedFile(Arc<dyn DiskFile>, Arc<Gate>);

impl Disk for GatedDisk {
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.0.create_dir_all(path)
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<DirEntry>> {
        self.0.list(directory)
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(GatedFile(self.0.open(path, mode)?, self.1.clone())))
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
        self.0.space(path)
    }
}

impl DiskFile for GatedFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.1.pass();
        self.0.sync()
    }

    fn truncate(&self, bytes: u64) -> io::Result<()> {
        self.0.truncate(bytes)
    }

    fn bytes(&self) -> io::Result<u64> {
        self.0.bytes()
    }
}

/// Does something on a thread of its own; the answer comes when it is done.
fn apart<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Receiver<T> {
    let (done, answer) = channel();
    thread::spawn(move || done.send(work()));
    answer
}

fn in_log(folder: &Path, text: &str) -> bool {
    let holds = |path: &Path| {
        let bytes = std::fs::read(path).unwrap();
        bytes.windows(text.len()).any(|w| w == text.as_bytes())
    };
    std::fs::read_dir(folder.join("log")).unwrap().any(|e| {
        let path = e.unwrap().path();
        path.is_file() && holds(&path)
    })
}

#[test]
fn writes_go_to_the_operating_system_while_a_sync_hangs() {
    let folder = tempfile::tempdir().unwrap();
    let gate = Arc::new(Gate::default());
    let options = StoreOptions::default()
        .sync(Sync::Every(Duration::from_millis(1)))
        .disk(Arc::new(GatedDisk(RealDisk, gate.clone())));
    let store = Store::open(folder.path(), options).unwrap();
    store.create_bucket("b").unwrap();
    store.write_lines("b", b"m text=\"before\" 1700000000000000000", &WriteOptions::now()).unwrap();
    gate.set(true);
    store.write_lines("b", b"m text=\"while\" 1700000000000000000", &WriteOptions::now()).unwrap();
    gate.wait_for_a_sync();
    // More than was once kept for a sync that may fail.
    let writer = store.clone();
    let written = apart(move || {
        for i in 0..300 {
            let (time, long) = (1_700_000_000_000_000_001i64 + i, "x".repeat(10_000));
            let line = format!("m text=\"{long}{i}\" {time}");
            writer.write_lines("b", line.as_bytes(), &WriteOptions::now()).unwrap();
        }
        let last = "m text=\"the last line of all\" 1700000001000000000";
        writer.write_lines("b", last.as_bytes(), &WriteOptions::now()).unwrap();
    });
    let outcome = written.recv_timeout(FAILED);
    let there = outcome.is_ok() && in_log(folder.path(), "the last line of all");
    let reader = store.clone();
    let latest = apart(move || reader.latest(&Selector::bucket("b")).unwrap().len()).recv_timeout(FAILED);
    gate.set(false);
    assert_eq!(outcome, Ok(()), "writes waited for the sync");
    assert!(there, "the bytes were not handed to the operating system");
    assert_eq!(latest, Ok(1), "a query waited for the sync");
    store.close().unwrap();
}

#[test]
fn writes_do_not_wait_for_a_change_of_buckets() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), StoreOptions::default()).unwrap();
    store.create_bucket("b").unwrap();
    store.create_bucket("old").unwrap();
    store.write_lines("old", b"m f=1 1700000000000000000", &WriteOptions::now()).unwrap();
    store.seal().unwrap();
    type Change = fn(&Store);
    let changes: [(&str, Change); 4] = [
        ("create", |s| drop(s.create_bucket("c").unwrap())),
        ("retention", |s| drop(s.set_retention("c", Some(Duration::from_secs(7200))).unwrap())),
        ("rename", |s| drop(s.rename_bucket("c", "d").unwrap())),
        ("remove", |s| s.remove_bucket("old").unwrap()),
    ];
    for (name, change) in changes {
        // The commit of the change waits for this, as it would for a slow disk.
        let other = rusqlite::Connection::open(folder.path().join("store.sqlite")).unwrap();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        let changer = store.clone();
        let changed = apart(move || change(&changer));
        for i in 0..20 {
            let line = format!("m f={i} {}", 1_700_000_000_000_000_000i64 + i);
            store.write_lines("b", line.as_bytes(), &WriteOptions::now()).unwrap();
            thread::yield_now();
        }
        assert_eq!(changed.try_recv().ok(), None, "{name}: nobody waited");
        other.execute_batch("ROLLBACK").unwrap();
        assert_ne!(changed.recv_timeout(FAILED), Err(RecvTimeoutError::Timeout), "{name} did not end");
    }
    let mut names: Vec<String> = store.buckets().into_iter().map(|b| b.name).collect();
    names.sort();
    assert_eq!(names, ["b", "d"]);
}
