//! An embedded store whose disk does not come back from a sync: readings that are accepted meanwhile are in its log, with the
//! operating system, while a flush waits.
#![allow(clippy::unwrap_used, missing_docs)]

use graylogic_durable::{DirEntry, Disk, DiskFile, DiskLock, OpenMode, RealDisk, Space};
use graylogic_influxdb::{Client, Config, Level, Point};
use graylogic_store::{Store, StoreOptions, Sync};
use std::io;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

/// Longer than any healthy step takes on a loaded machine.
const FAILED: Duration = Duration::from_secs(120);

/// Holds up syncs while it is shut; counts those that wait.
#[derive(Debug, Default)]
struct Gate {
    shut: Mutex<(bool, usize)>,
    changed: Condvar,
}

impl Gate {
    fn pass(&self) {
        let mut shut = self.shut.lock().unwrap();
        shut.1 += 1;
        self.changed.notify_all();
        shut = self.changed.wait_while(shut, |s| s.0).unwrap();
        shut.1 -= 1;
    }

    fn shut(&self, yes: bool) {
        self.shut.lock().unwrap().0 = yes;
        self.changed.notify_all();
    }

    fn somebody_waits(&self) {
        let shut = self.shut.lock().unwrap();
        let waited = self.changed.wait_timeout_while(shut, FAILED, |s| s.1 == 0).unwrap();
        assert!(!waited.1.timed_out(), "no sync began");
    }
}

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
        self.1.pass();
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

/// Whether a text is in a file of the log.
fn is_in_log(folder: &Path, text: &str) -> bool {
    let files = std::fs::read_dir(folder.join("log")).unwrap().map(|e| e.unwrap().path());
    let bytes = files.filter(|path| path.is_file()).map(|path| std::fs::read(path).unwrap_or_default());
    bytes.into_iter().any(|bytes| bytes.windows(text.len()).any(|w| w == text.as_bytes()))
}

#[test]
fn readings_reach_the_log_of_the_store_while_a_sync_hangs() {
    let folder = tempfile::tempdir().unwrap();
    let gate = Arc::new(Gate::default());
    let options = StoreOptions::default()
        .sync(Sync::Every(Duration::from_secs(3600)))
        .disk(Arc::new(GatedDisk(RealDisk, gate.clone())));
    let store = Store::open(folder.path(), options).unwrap();
    let client = Client::connect_store(&Config::embedded(folder.path()), store).unwrap();
    let write = |text: &str| client.write_point(&Point::new("log").field("text", text)).unwrap();
    write("before the sync");
    client.flush(Level::Durable, FAILED).unwrap();
    gate.shut(true);
    write("what the flush waits for");
    let flushing = client.clone();
    let flushed = std::thread::spawn(move || flushing.flush(Level::Durable, FAILED).is_ok());
    gate.somebody_waits();
    // More than a segment of the log, and a line behind it.
    let long = "x".repeat(50_000);
    for _ in 0..200 {
        assert!(client.wait_for_room(FAILED));
        write(&long);
    }
    write("accepted while the sync hangs");
    let until = Instant::now() + FAILED;
    while !is_in_log(folder.path(), "accepted while the sync hangs") {
        assert!(Instant::now() < until, "{:?}", client.stats());
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(!flushed.is_finished(), "the sync hangs");
    gate.shut(false);
    assert!(flushed.join().unwrap());
    client.close(FAILED).unwrap();
}
