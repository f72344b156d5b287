//! What a program sees when a thread of the client panics: nothing accepted is lost, and nothing reports that all is
//! well.
//!
//! The panics come from what a program hands in: its logging, its error callback, a disk, a clock. Logging is one for the whole
//! process, so the tests here run one after the other.
#![allow(clippy::unwrap_used, missing_docs, unreachable_pub)]

#[allow(dead_code, reason = "each test uses a part of it")]
mod hostile;

use graylogic_durable::{DirEntry, Disk, DiskFile, DiskLock, OpenMode, RealDisk, Space};
use graylogic_influxdb::Store;
use graylogic_influxdb::{
    Client, Config, Health, Level, Point, Stats, Timestamp, WriteError, WriteErrorKind,
};
use graylogic_store::StoreOptions;
use hostile::{Do, Hostile};
use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError};
use std::time::{Duration, Instant};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

const SOON: Duration = Duration::from_secs(60);

/// The name of the thread that panics wherever it comes to code that was handed in.
static PANICS_ON: Mutex<String> = Mutex::new(String::new());
static PANICS: AtomicU64 = AtomicU64::new(0);
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn maybe_panic() {
    let name = std::thread::current().name().unwrap_or_default().to_owned();
    let panics = *PANICS_ON.lock().unwrap() == name;
    if panics {
        PANICS.fetch_add(1, Ordering::Relaxed);
        panic!("injected");
    }
}

/// Panics on one kind of thread while it lives.
struct Panics;

impl Panics {
    fn on(thread: &str) -> Self {
        PANICS.store(0, Ordering::Relaxed);
        thread.clone_into(&mut PANICS_ON.lock().unwrap());
        Self
    }

    fn come(&self) {
        assert!(comes(|| PANICS.load(Ordering::Relaxed) > 0), "the thread never came to it");
    }
}

impl Drop for Panics {
    fn drop(&mut self) {
        PANICS_ON.lock().unwrap().clear();
    }
}

struct Logging;

impl Subscriber for Logging {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, _: &Event<'_>) {
        maybe_panic();
    }
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

fn begin() -> MutexGuard<'static, ()> {
    static LOGGING: Once = Once::new();
    LOGGING.call_once(|| tracing::subscriber::set_global_default(Logging).unwrap());
    ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
}

fn comes(mut what: impl FnMut() -> bool) -> bool {
    let until = Instant::now() + SOON;
    while !what() && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(2));
    }
    what()
}

fn write(client: &Client, numbers: std::ops::Range<i64>) {
    for i in numbers {
        let point = Point::new("m").field("f", i as f64);
        client.write_point_at(&point, Timestamp::from_nanos(1_000_000 + i)).unwrap();
    }
}

fn conserved(stats: &Stats) {
    let gone = stats.delivered + stats.rejected + stats.dropped + stats.damaged;
    assert_eq!(stats.accepted + stats.recovered, gone + stats.waiting, "{stats:?}");
}

type News = Arc<Mutex<Vec<WriteError>>>;

fn listens(client: &Client) -> News {
    let news = News::default();
    let keeps = news.clone();
    client.set_on_error(move |error| keeps.lock().unwrap().push(error.clone()));
    news
}

fn heard(news: &News, kind: WriteErrorKind, part: &str) -> bool {
    news.lock().unwrap().iter().any(|n| n.kind == kind && n.reason.contains(part))
}

/// None of the calls that report health reports that all is well.
fn is_seen(client: &Client) -> bool {
    let asked = client.health_check(SOON);
    let health = client.stats().health != Health::Ok;
    let said = asked.is_err_and(|e| e.is_connection_failed() && e.to_string().contains("panicked"));
    said && health && !client.is_connected()
}

fn all_delivered(client: &Client, server: &Hostile, lines: usize) {
    client.flush(Level::Delivered, SOON).unwrap();
    let stored: BTreeSet<String> = server.stored().into_iter().collect();
    assert_eq!(stored.len(), lines);
    assert!(comes(|| client.is_connected() && client.health_check(SOON).is_ok()), "{:?}", client.stats());
    conserved(&client.stats());
    assert_eq!(client.stats().delivered, lines as u64);
    assert_eq!(client.close(SOON).unwrap().delivered, lines as u64);
}

fn config(url: &str, spool: &Path) -> Config {
    Config::remote(url)
        .unwrap()
        .with_spool(Some(spool.to_owned()))
        .with_quick_batches(20, Duration::from_millis(5))
        .with_hurry(20)
}

#[test]
fn a_sender_that_panics_is_seen_and_starts_again() {
    let _one = begin();
    for spooled in [true, false] {
        let server = Hostile::new(|_| None);
        let folder = tempfile::tempdir().unwrap();
        let config = config(&server.url(), folder.path());
        let config = if spooled { config } else { config.with_spool(None) };
        let client = Client::connect(&config).unwrap();
        let news = listens(&client);
        write(&client, 0..50);
        client.flush(Level::Delivered, SOON).unwrap();
        let panics = Panics::on("influxdb-send");
        // The first request that is not answered is logged.
        server.will([Do::ResetAfterBody]);
        write(&client, 50..200);
        panics.come();
        assert!(comes(|| is_seen(&client)), "{:?}", client.stats());
        assert!(comes(|| heard(&news, WriteErrorKind::Delayed, "panicked")));
        drop(panics);
        write(&client, 200..250);
        all_delivered(&client, &server, 250);
    }
}

#[test]
fn a_sender_of_an_embedded_store_that_panics_starts_again() {
    let _one = begin();
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), StoreOptions::default().disk(Arc::new(PanickingDisk))).unwrap();
    let client = Client::connect_store(&Config::embedded(folder.path()).with_any_time(true), store).unwrap();
    let news = listens(&client);
    write(&client, 0..10);
    client.flush(Level::Durable, SOON).unwrap();
    let panics = Panics::on("influxdb-send");
    write(&client, 10..20);
    panics.come();
    assert!(comes(|| is_seen(&client)), "{:?}", client.stats());
    assert!(comes(|| heard(&news, WriteErrorKind::Delayed, "panicked")));
    drop(panics);
    write(&client, 20..30);
    client.flush(Level::Durable, SOON).unwrap();
    assert!(client.is_connected());
    client.health_check(SOON).unwrap();
    conserved(&client.stats());
    let report = client.close(SOON).unwrap();
    assert_eq!((report.delivered, report.level), (30, Level::Delivered));
    drop(client);
    let store = Store::open(folder.path(), StoreOptions::default()).unwrap();
    let selector = graylogic_store::Selector::bucket(Config::default().bucket());
    let blocks = store.scan(&selector, graylogic_store::TimeRange::all()).unwrap();
    assert_eq!(blocks.map(|block| block.unwrap().times.len()).sum::<usize>(), 30);
}

#[test]
fn a_spool_thread_whose_clock_panics_is_seen_and_starts_again() {
    let _one = begin();
    fn clock() -> i64 {
        maybe_panic();
        Timestamp::now().as_nanos()
    }
    for thread in ["influxdb-spool", "influxdb-sync", "influxdb-send"] {
        let server = Hostile::new(|_| None);
        let folder = tempfile::tempdir().unwrap();
        let client = Client::connect(&config(&server.url(), folder.path()).with_spool_clock(clock)).unwrap();
        write(&client, 0..50);
        client.flush(Level::Delivered, SOON).unwrap();
        let panics = Panics::on(thread);
        let mut n = 50;
        // Whether this thread asks for the time at all, and how soon, is its own affair.
        let until = Instant::now() + Duration::from_secs(3);
        while PANICS.load(Ordering::Relaxed) == 0 && Instant::now() < until {
            write(&client, n..n + 10);
            n += 10;
            std::thread::sleep(Duration::from_millis(20));
        }
        drop(panics);
        write(&client, n..n + 10);
        all_delivered(&client, &server, n as usize + 10);
    }
}

/// The real disk, whose code panics on one kind of thread.
#[derive(Debug)]
struct PanickingDisk;

#[derive(Debug)]
struct PanickingFile(Arc<dyn DiskFile>);

impl Disk for PanickingDisk {
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        maybe_panic();
        RealDisk.create_dir_all(path)
    }
    fn list(&self, directory: &Path) -> io::Result<Vec<DirEntry>> {
        maybe_panic();
        RealDisk.list(directory)
    }
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        maybe_panic();
        Ok(Arc::new(PanickingFile(RealDisk.open(path, mode)?)))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        maybe_panic();
        RealDisk.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        maybe_panic();
        RealDisk.remove(path)
    }
    fn sync_dir(&self, directory: &Path) -> io::Result<()> {
        maybe_panic();
        RealDisk.sync_dir(directory)
    }
    fn lock(&self, path: &Path) -> io::Result<Box<dyn DiskLock>> {
        maybe_panic();
        RealDisk.lock(path)
    }
    fn space(&self, path: &Path) -> io::Result<Space> {
        maybe_panic();
        RealDisk.space(path)
    }
}

impl DiskFile for PanickingFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        maybe_panic();
        self.0.read_at(buffer, offset)
    }
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        // The bytes are on the disk, and nobody knows.
        self.0.write_at(bytes, offset)?;
        maybe_panic();
        Ok(())
    }
    fn sync(&self) -> io::Result<()> {
        maybe_panic();
        self.0.sync()
    }
    fn truncate(&self, bytes: u64) -> io::Result<()> {
        maybe_panic();
        self.0.truncate(bytes)
    }
    fn bytes(&self) -> io::Result<u64> {
        maybe_panic();
        self.0.bytes()
    }
}

#[test]
fn a_disk_whose_code_panics_is_a_disk_that_fails() {
    let _one = begin();
    for thread in ["influxdb-spool", "influxdb-sync", "influxdb-send"] {
        let server = Hostile::new(|_| None);
        let folder = tempfile::tempdir().unwrap();
        let config = config(&server.url(), folder.path()).with_spool_disk(Arc::new(PanickingDisk));
        let client = Client::connect(&config).unwrap();
        let news = listens(&client);
        write(&client, 0..50);
        client.flush(Level::Delivered, SOON).unwrap();
        let panics = Panics::on(thread);
        write(&client, 50..100);
        panics.come();
        let degraded = || matches!(client.stats().health, Health::Degraded(_));
        assert!(comes(degraded), "{thread}: {:?}", client.stats());
        assert!(comes(|| heard(&news, WriteErrorKind::Degraded, "panicked")), "{thread}");
        drop(panics);
        write(&client, 100..150);
        client.flush(Level::Durable, SOON).unwrap();
        all_delivered(&client, &server, 150);
    }
    // And while the spool is opened, on the thread that connects.
    let server = Hostile::new(|_| None);
    let folder = tempfile::tempdir().unwrap();
    let name = std::thread::current().name().unwrap().to_owned();
    let panics = Panics::on(&name);
    let config = config(&server.url(), folder.path()).with_spool_disk(Arc::new(PanickingDisk));
    let client = Client::connect(&config).unwrap();
    panics.come();
    drop(panics);
    write(&client, 0..50);
    client.flush(Level::Durable, SOON).unwrap();
    all_delivered(&client, &server, 50);
}

/// What a panic carries may panic itself.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("dropped");
    }
}

#[test]
fn a_callback_that_panics_with_what_panics_is_called_again() {
    let _one = begin();
    let folder = tempfile::tempdir().unwrap();
    let client = Client::connect(&Config::embedded(folder.path())).unwrap();
    client.write_point(&Point::new("flip").field("v", 1.0)).unwrap();
    client.flush(Level::Delivered, SOON).unwrap();
    let bomb = Bomb;
    client.set_on_error(move |_| {
        let _held = &bomb;
        std::panic::panic_any(Bomb)
    });
    // The thread that reports errors logs as well, to what panics.
    let panics = Panics::on("influxdb-errors");
    for round in 1..4 {
        client.write_point(&Point::new("flip").field("v", "text")).unwrap();
        assert!(comes(|| client.stats().callback_panics >= round), "{:?}", client.stats());
        assert!(client.is_connected());
        client.health_check(SOON).unwrap();
    }
    panics.come();
    drop(panics);
    let report = client.close(SOON).unwrap();
    assert!(report.errors_told);
    assert_eq!((report.delivered, report.rejected), (1, 3));
}

#[test]
fn a_thread_of_the_store_that_panics_is_seen_and_starts_again() {
    let _one = begin();
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), StoreOptions::default().disk(Arc::new(PanickingDisk))).unwrap();
    let client = Client::connect_store(&Config::embedded(folder.path()), store).unwrap();
    let mut n = 0;
    let mut more = || {
        write(&client, n..n + 10);
        n += 10;
    };
    more();
    client.flush(Level::Durable, SOON).unwrap();
    let panics = Panics::on("store-sync");
    let is_seen = || {
        let asked = client.health_check(SOON);
        asked.is_err_and(|e| e.is_connection_failed() && e.to_string().contains("panicked"))
    };
    // It syncs each second what came since.
    assert!(comes(|| {
        more();
        is_seen()
    }));
    drop(panics);
    assert!(comes(|| {
        more();
        client.health_check(SOON).is_ok()
    }));
    client.flush(Level::Durable, SOON).unwrap();
    conserved(&client.stats());
    let report = client.close(SOON).unwrap();
    assert_eq!((report.delivered, report.dropped), (n as u64, 0));
}
