//! A disk that fails, fills up or hangs: callers do not wait, nothing accepted is lost silently, and it goes on after.
#![allow(clippy::unwrap_used, missing_docs)]

use graylogic_durable::{
    Call, DirEntry, Disk, DiskFile, DiskLock, Fault, IO_ERROR, NO_SPACE, OpenMode, RealDisk, SimDisk, Space,
};
use graylogic_influxdb::{Client, Config, Level, Store, Timestamp, WriteErrorKind};
use graylogic_store::StoreOptions;
use std::io;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(20);

fn client_on(disk: Arc<dyn Disk>, folder: &Path) -> Client {
    let store = Store::open(folder, StoreOptions::default().disk(disk)).unwrap();
    Client::connect_store(&Config::embedded(folder), store).unwrap()
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_nanos(seconds * 1_000_000_000)
}

#[test]
fn a_full_disk_delays_and_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let disk = SimDisk::new();
    let client = client_on(Arc::new(disk.clone()), folder.path());
    let told: Arc<Mutex<Vec<_>>> = Arc::default();
    let theirs = told.clone();
    client.set_on_error(move |e| theirs.lock().unwrap().push(e.clone()));
    client.write_device_metric_at("d", "m", 0.0, at(0)).unwrap();
    client.flush(Level::Durable, SOON).unwrap();
    disk.set_capacity(Some(0));
    for i in 1..500 {
        client.write_device_metric_at("d", "m", f64::from(i), at(i64::from(i))).unwrap();
    }
    let error = client.flush(Level::Durable, Duration::from_millis(300)).unwrap_err();
    assert!(error.is_timed_out() && error.is_retryable(), "{error}");
    assert!(error.to_string().contains("No space left"), "{error}");
    assert!(!client.is_connected());
    let health = client.health_check(SOON);
    assert!(health.is_err() || client.stats().trouble.is_some());
    // Questions are answered meanwhile.
    assert_eq!(client.latest("device_metrics", &[]).unwrap().len(), 1);
    let stats = client.stats();
    assert_eq!(stats.accepted, stats.delivered + stats.waiting);
    assert!(stats.waiting > 0);
    disk.set_capacity(None);
    client.flush(Level::Durable, SOON).unwrap();
    assert!(client.is_connected());
    client.health_check(SOON).unwrap();
    let report = client.close(SOON).unwrap();
    assert_eq!((report.delivered, report.rejected, report.dropped), (500, 0, 0));
    let told = told.lock().unwrap();
    assert!(!told.is_empty() && told.iter().all(|e| e.kind == WriteErrorKind::Delayed), "{told:?}");
}

#[test]
fn a_sync_that_fails_once_is_tried_again() {
    let folder = tempfile::tempdir().unwrap();
    let disk = SimDisk::new();
    let client = client_on(Arc::new(disk.clone()), folder.path());
    client.write_device_metric_at("d", "m", 1.0, at(1)).unwrap();
    disk.fail(Fault { call: Some(Call::Sync), after: 0, times: 2, errno: IO_ERROR });
    client.flush(Level::Durable, SOON).unwrap();
    let after = disk.after_power_cut(3);
    drop(client);
    let store = Store::open(folder.path(), StoreOptions::default().disk(Arc::new(after))).unwrap();
    let selector = graylogic_store::Selector::bucket("telemetry");
    assert_eq!(store.latest(&selector).unwrap().len(), 1, "what was flushed survives the power cut");
}

#[test]
fn a_close_that_cannot_deliver_says_what_it_dropped() {
    let folder = tempfile::tempdir().unwrap();
    let disk = SimDisk::new();
    let client = client_on(Arc::new(disk.clone()), folder.path());
    let told: Arc<Mutex<Vec<_>>> = Arc::default();
    let theirs = told.clone();
    client.set_on_error(move |e| theirs.lock().unwrap().push(e.clone()));
    disk.fail(Fault { call: Some(Call::Write), after: 0, times: u64::MAX, errno: NO_SPACE });
    for i in 0..25 {
        client.write_device_metric_at("d", "m", 1.0, at(i)).unwrap();
    }
    let began = Instant::now();
    let report = client.close(Duration::from_millis(400)).unwrap();
    assert!(began.elapsed() < Duration::from_secs(10));
    assert_eq!((report.delivered, report.dropped, report.errors_told), (0, 25, true));
    let stats = client.stats();
    assert_eq!((stats.accepted, stats.dropped, stats.waiting), (25, 25, 0));
    let told = told.lock().unwrap();
    let dropped: u64 = told.iter().filter(|e| e.kind == WriteErrorKind::Dropped).map(|e| e.lines).sum();
    assert_eq!(dropped, 25);
}

/// The real disk behind a gate: while it is shut, writes and syncs wait.
#[derive(Clone, Debug, Default)]
struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    fn set(&self, shut: bool) {
        *self.0.0.lock().unwrap() = shut;
        self.0.1.notify_all();
    }

    fn pass(&self) {
        let shut = self.0.0.lock().unwrap();
        drop(self.0.1.wait_while(shut, |shut| *shut).unwrap());
    }
}

#[derive(Debug)]
struct HangingDisk(Gate);

#[derive(Debug)]
struct HangingFile(Gate, Arc<dyn DiskFile>);

impl DiskFile for HangingFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.1.read_at(buffer, offset)
    }
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.pass();
        self.1.write_at(bytes, offset)
    }
    fn sync(&self) -> io::Result<()> {
        self.0.pass();
        self.1.sync()
    }
    fn truncate(&self, bytes: u64) -> io::Result<()> {
        self.0.pass();
        self.1.truncate(bytes)
    }
    fn bytes(&self) -> io::Result<u64> {
        self.1.bytes()
    }
}

impl Disk for HangingDisk {
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        RealDisk.create_dir_all(path)
    }
    fn list(&self, directory: &Path) -> io::Result<Vec<DirEntry>> {
        RealDisk.list(directory)
    }
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(HangingFile(self.0.clone(), RealDisk.open(path, mode)?)))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove(path)
    }
    fn sync_dir(&self, directory: &Path) -> io::Result<()> {
        self.0.pass();
        RealDisk.sync_dir(directory)
    }
    fn lock(&self, path: &Path) -> io::Result<Box<dyn DiskLock>> {
        RealDisk.lock(path)
    }
    fn space(&self, path: &Path) -> io::Result<Space> {
        RealDisk.space(path)
    }
}

#[test]
fn a_disk_that_hangs_holds_up_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let gate = Gate::default();
    let client = client_on(Arc::new(HangingDisk(gate.clone())), folder.path());
    client.write_device_metric_at("d", "m", 0.0, at(0)).unwrap();
    client.flush(Level::Durable, SOON).unwrap();
    gate.set(true);
    client.write_device_metric_at("d", "m", 1.0, at(1)).unwrap();
    std::thread::sleep(Duration::from_millis(50));
    // The lane's worker hangs in the disk by now; callers must not meet it.
    let mut longest = Duration::ZERO;
    for i in 2..10_002 {
        let began = Instant::now();
        client.write_device_metric_at("d", "m", f64::from(i), at(i64::from(i))).unwrap();
        longest = longest.max(began.elapsed());
    }
    assert!(longest < Duration::from_secs(5), "a write does not wait for the disk: {longest:?}");
    assert!(client.flush(Level::Durable, Duration::from_millis(50)).unwrap_err().is_timed_out());
    gate.set(false);
    client.flush(Level::Durable, SOON).unwrap();
    assert_eq!(client.close(SOON).unwrap().delivered, 10_002);
}

#[test]
fn a_close_on_a_hanging_disk_ends_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let gate = Gate::default();
    let client = client_on(Arc::new(HangingDisk(gate.clone())), folder.path());
    gate.set(true);
    for i in 0..10 {
        client.write_device_metric_at("d", "m", 1.0, at(i)).unwrap();
    }
    let began = Instant::now();
    let report = client.close(Duration::from_millis(200)).unwrap();
    assert!(began.elapsed() < Duration::from_secs(10));
    assert_eq!(report.delivered + report.dropped, 10);
    assert_eq!(report.dropped, 10);
    gate.set(false);
    // The sender comes back from the disk when nobody waits for it any more: its lines are in the store after all.
    let until = Instant::now() + SOON;
    while client.stats().delivered == 0 && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(1));
    }
    let stats = client.stats();
    let gone = stats.delivered + stats.rejected + stats.dropped + stats.damaged;
    assert_eq!((stats.accepted, stats.waiting), (gone, 0), "{stats:?}");
}

#[test]
fn a_folder_that_is_a_file_is_refused_in_one_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("data");
    std::fs::write(&file, b"").unwrap();
    let error = Client::connect(&Config::embedded(&file)).unwrap_err();
    assert!(error.is_connection_failed());
    assert!(error.to_string().contains("data") && !error.to_string().contains('\n'), "{error}");
}
