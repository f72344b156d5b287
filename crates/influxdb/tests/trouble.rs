//! A disk that fails, fills up or hangs: callers do not wait, nothing accepted is lost silently, and it goes on after.
#![allow(clippy::unwrap_used, missing_docs, unreachable_pub)]

#[allow(dead_code, reason = "each test uses a part of it")]
mod hostile;

use graylogic_durable::{
    Call, DirEntry, Disk, DiskFile, DiskLock, Fault, IO_ERROR, NO_SPACE, OpenMode, RealDisk, SimDisk, Space,
};
use graylogic_influxdb::{Client, Config, Level, Point, Store, Timestamp, WriteErrorKind};
use graylogic_store::StoreOptions;
use hostile::{Do, Hostile};
use std::io;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(20);

fn client_on(disk: Arc<dyn Disk>, folder: &Path) -> Client {
    let store = Store::open(folder, StoreOptions::default().disk(disk)).unwrap();
    Client::connect_store(&Config::embedded(folder).with_any_time(true), store).unwrap()
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
    let selector = graylogic_store::Selector::bucket("metrics");
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
struct Gate(Arc<(Mutex<Doorway>, Condvar)>);

#[derive(Debug, Default)]
struct Doorway {
    shut: bool,
    waiting: usize,
}

impl Gate {
    fn set(&self, shut: bool) {
        self.0.0.lock().unwrap().shut = shut;
        self.0.1.notify_all();
    }

    fn pass(&self) {
        let mut doorway = self.0.0.lock().unwrap();
        doorway.waiting += 1;
        self.0.1.notify_all();
        doorway = self.0.1.wait_while(doorway, |d| d.shut).unwrap();
        doorway.waiting -= 1;
    }

    /// Returns when somebody hangs in the disk.
    fn is_met(&self) {
        let doorway = self.0.0.lock().unwrap();
        let (doorway, _) = self.0.1.wait_timeout_while(doorway, SOON, |d| d.waiting == 0).unwrap();
        assert!(doorway.waiting > 0, "nobody came to the disk");
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

type NamedCall = (&'static str, Box<dyn FnOnce() + Send>);

/// Calls that promise not to wait, each with its name. The points are written at times from `first` on.
fn calls_that_do_not_wait(client: &Client, first: i64) -> Vec<NamedCall> {
    let series = client.series("m", &[("d", "a")], &["f"]).unwrap();
    let mut calls: Vec<NamedCall> = Vec::new();
    let mut call = |name, call: fn(&Client, i64)| {
        let client = client.clone();
        calls.push((name, Box::new(move || call(&client, first))));
    };
    call("write_device_metric", |c, _| c.write_device_metric("d", "m", 1.0).unwrap());
    call("write_device_metric_at", |c, t| c.write_device_metric_at("d", "m", 1.0, at(t)).unwrap());
    call("write_energy_metric", |c, _| c.write_energy_metric("d", 1.0, Some(2.0)).unwrap());
    call("write_energy_metric_at", |c, t| c.write_energy_metric_at("d", 1.0, None, at(t)).unwrap());
    call("write_phm_metric", |c, _| c.write_phm_metric("d", "m", 1.0).unwrap());
    call("write_phm_metric_at", |c, t| c.write_phm_metric_at("d", "m", 1.0, at(t)).unwrap());
    call("write_point", |c, _| c.write_point(&Point::new("m").field("f", 1.0)).unwrap());
    call("write_point_at", |c, t| c.write_point_at(&Point::new("m").field("f", 1.0), at(t)).unwrap());
    call("series", |c, _| drop(c.series("m", &[("d", "a")], &["f"]).unwrap()));
    call("stats", |c, _| drop(c.stats()));
    call("is_connected", |c, _| assert!(matches!(c.is_connected(), true | false)));
    call("buckets", |c, _| assert!(!c.buckets().is_empty()));
    call("metrics", |c, _| assert!(!c.metrics().is_empty()));
    call("set_on_error", |c, _| c.set_on_error(|_| {}));
    // Waits, and for its deadline only.
    call("flush", |c, _| assert!(c.flush(Level::Delivered, Duration::from_millis(20)).is_err()));
    calls.push(("SeriesHandle::write", Box::new(move || series.write_float(1.0, None).unwrap())));
    calls
}

/// Lines that one round of [`calls_that_do_not_wait`] writes.
const LINES_OF_CALLS: u64 = 9;

/// Makes the calls, each on a thread of its own, while everything behind them hangs: one that waits for a disk or a server,
/// or for a lock that somebody holds meanwhile, does not come back.
fn nobody_waits(client: &Client, first: i64) {
    for (name, call) in calls_that_do_not_wait(client, first) {
        let (done, told) = std::sync::mpsc::sync_channel(1);
        std::thread::spawn(move || {
            call();
            let _nobody_waits = done.send(());
        });
        assert!(told.recv_timeout(SOON).is_ok(), "{name} waits for what hangs");
    }
}

#[test]
fn calls_that_do_not_say_that_they_wait_come_back_while_everything_behind_them_hangs() {
    // The store's disk.
    let folder = tempfile::tempdir().unwrap();
    let gate = Gate::default();
    let client = client_on(Arc::new(HangingDisk(gate.clone())), folder.path());
    gate.set(true);
    client.write_device_metric_at("d", "m", 1.0, at(9)).unwrap();
    gate.is_met();
    nobody_waits(&client, 10);
    gate.set(false);
    assert_eq!(client.close(SOON).unwrap().delivered, LINES_OF_CALLS + 1);

    // A server that never answers, and the disk of the spool before it. The last of the requests that are answered moves
    // the cursor, which is saved within a second: at any time of that the disk may begin to hang.
    std::thread::scope(|scope| {
        for wait in [0, 300, 900, 1100] {
            scope.spawn(move || server_and_spool_hang(Duration::from_millis(wait)));
        }
    });
}

fn server_and_spool_hang(after: Duration) {
    let server = Hostile::new(|_| None);
    let spool = tempfile::tempdir().unwrap();
    let gate = Gate::default();
    let config = Config::remote(&server.url())
        .unwrap()
        .with_spool(Some(spool.path().to_owned()))
        .with_spool_disk(Arc::new(HangingDisk(gate.clone())))
        .with_quick_batches(20, Duration::from_millis(1))
        .with_hurry(20);
    let client = Client::connect(&config).unwrap();
    client.write_device_metric_at("d", "m", 1.0, at(1)).unwrap();
    client.flush(Level::Durable, SOON).unwrap();
    client.flush(Level::Delivered, SOON).unwrap();
    std::thread::sleep(after);
    server.will((0..1000).map(|_| Do::NeverAnswer));
    gate.set(true);
    client.write_device_metric_at("d", "m", 1.0, at(9)).unwrap();
    gate.is_met();
    for round in 1..4 {
        nobody_waits(&client, 10 * round);
        // Threads that have something to do each second have come to it.
        std::thread::sleep(Duration::from_millis(500));
    }
    // Nor does anybody who asks for figures wait a little each time.
    let began = Instant::now();
    (0..200).for_each(|_| drop(client.stats()));
    assert!(began.elapsed() < Duration::from_secs(10), "figures wait for the disk: {:?}", began.elapsed());
    assert!(client.stats().spool_bytes > 0, "what the disk said last is told");
    gate.set(false);
    server.is_mended();
    client.flush(Level::Delivered, SOON).unwrap();
    assert_eq!(client.close(SOON).unwrap().delivered, 3 * LINES_OF_CALLS + 2);
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
fn a_close_ends_though_the_disk_hangs_while_the_spool_is_opened() {
    let folder = tempfile::tempdir().unwrap();
    let (spool, gate) = (folder.path().join("spool"), Gate::default());
    // Something is in the way at first, so that the spool is opened later, by a thread of the client's.
    std::fs::write(&spool, b"").unwrap();
    let config = Config::remote("http://127.0.0.1:9")
        .unwrap()
        .with_spool(Some(spool.clone()))
        .with_spool_disk(Arc::new(HangingDisk(gate.clone())));
    let client = Client::connect(&config).unwrap();
    gate.set(true);
    std::fs::remove_file(&spool).unwrap();
    client.write_device_metric_at("d", "m", 1.0, at(1)).unwrap();
    gate.is_met();
    nobody_waits(&client, 10);
    let (done, told) = std::sync::mpsc::sync_channel(1);
    let closes = client.clone();
    std::thread::spawn(move || done.send(closes.close(Duration::from_millis(50)).unwrap()));
    let report = told.recv_timeout(SOON);
    gate.set(false);
    assert_eq!(report.unwrap().dropped, LINES_OF_CALLS + 1);
}

#[test]
fn a_folder_that_is_a_file_is_refused_in_one_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("data");
    std::fs::write(&file, b"").unwrap();
    let error = Client::connect(&Config::embedded(&file).with_any_time(true)).unwrap_err();
    assert!(error.is_connection_failed());
    assert!(error.to_string().contains("data") && !error.to_string().contains('\n'), "{error}");
}
