//! Lanes of one client beside each other, and what they say of themselves while their server takes nothing.
#![allow(clippy::unwrap_used, missing_docs, unreachable_pub)]

#[allow(dead_code, reason = "each test uses a part of it")]
mod hostile;

use graylogic_influxdb::{Client, Config, Health, Level, Point, Timestamp, WriteErrorKind};
use hostile::{Do, Hostile, message};
use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpListener;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(60);

fn comes(mut what: impl FnMut() -> bool) -> bool {
    let until = Instant::now() + SOON;
    while !what() && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(2));
    }
    what()
}

fn write(client: &Client, numbers: std::ops::Range<i64>) {
    for i in numbers {
        let point = Point::new("m").tag("d", "a").field("f", i as f64);
        client.write_point_at(&point, Timestamp::from_nanos(1_000_000 + i)).unwrap();
    }
}

fn line(i: i64) -> String {
    format!("m,d=a f={i}.0 {}", 1_000_000 + i)
}

/// A server that takes one token.
fn token_server(token: &'static str) -> Hostile {
    Hostile::judging(move |request| {
        let right = request.token.as_deref() == Some(token);
        (!right).then(|| (message("401 Unauthorized", "unauthorized access"), Vec::new()))
    })
}

fn file(folder: &Path, server: &Hostile, token: &str) -> Config {
    let path = folder.join("config.yaml");
    let spool = folder.join("spool");
    let yaml = format!(
        "influxdb:\n  url: {}\n  token: \"{token}\"\n  spool: {}\n  flush_interval: 1\n",
        server.url(),
        spool.display()
    );
    std::fs::write(&path, yaml).unwrap();
    Config::from_file(path).unwrap()
}

#[test]
fn a_new_token_is_tried_at_once_by_every_lane() {
    let server = token_server("Token new");
    let folder = tempfile::tempdir().unwrap();
    let client = Client::connect(&file(folder.path(), &server, "old")).unwrap();
    for i in 0..4 {
        write(&client.bucket(&format!("b{i}")).unwrap(), i..i + 1);
    }
    // Each lane asks at once, then after 1 s and 5 s, and then rests for 15 s.
    assert!(comes(|| server.seen.lock().unwrap().requests >= 12));
    std::thread::sleep(Duration::from_millis(100));
    file(folder.path(), &server, "new");
    let flushed = client.flush(Level::Delivered, Duration::from_secs(8));
    assert!(flushed.is_ok(), "{flushed:?}: {:?}", client.buckets());
    client.close(SOON).unwrap();
}

#[test]
fn a_token_that_no_request_can_carry_holds_the_lane_until_it_is_mended() {
    let server = token_server("Token right");
    let folder = tempfile::tempdir().unwrap();
    // As a file gives it that ends with a line feed.
    let config = file(folder.path(), &server, "right\\n").with_hurry(20);
    let client = Client::connect(&config).unwrap();
    write(&client, 0..10);
    assert!(comes(|| client.stats().health != Health::Ok));
    let stats = client.stats();
    assert_eq!(stats.health, Health::Held("token".to_owned()), "{:?}", stats.trouble);
    let trouble = stats.trouble.unwrap();
    assert!(trouble.contains("token") && !trouble.contains("right"), "{trouble}");
    file(folder.path(), &server, "right");
    let flushed = client.flush(Level::Delivered, Duration::from_secs(20));
    assert!(flushed.is_ok(), "{flushed:?}: {:?}", client.stats());
    client.close(SOON).unwrap();
}

#[test]
fn without_a_spool_nothing_is_called_safe_that_the_server_does_not_have() {
    let server = Hostile::new(|_| None);
    server.will((0..10_000).map(|_| hostile::Do::Answer(message("503 Service Unavailable", "busy"))));
    let config = Config::remote(&server.url())
        .unwrap()
        .with_spool(None)
        .with_quick_batches(20, Duration::from_millis(20))
        .with_hurry(20);
    let client = Client::connect(&config).unwrap();
    write(&client, 0..10);
    for level in [Level::Spooled, Level::Durable, Level::Delivered] {
        let flushed = client.flush(level, Duration::from_millis(300));
        assert!(flushed.is_err(), "{flushed:?}, and the lines are in memory only");
    }
    let stats = client.stats();
    assert_eq!((stats.spooled, stats.durable, stats.waiting_in_memory), (0, 0, 10), "{stats:?}");
    server.is_mended();
    for level in [Level::Spooled, Level::Durable, Level::Delivered] {
        client.flush(level, SOON).unwrap();
    }
    assert_eq!(server.stored(), (0..10).map(line).collect::<Vec<_>>());
    let stats = client.stats();
    assert_eq!((stats.spooled, stats.durable, stats.waiting_in_memory), (10, 10, 0), "{stats:?}");
    client.close(SOON).unwrap();
}

#[test]
fn a_bucket_with_a_tilde_in_its_name_is_drained_after_a_restart() {
    let server = Hostile::new(|_| None);
    let spool = tempfile::tempdir().unwrap();
    let config = |url: &str| {
        Config::remote(url)
            .unwrap()
            .with_spool(Some(spool.path().to_owned()))
            .with_quick_batches(20, Duration::from_millis(20))
            .with_hurry(20)
    };
    let client = Client::connect(&config("http://127.0.0.1:9")).unwrap();
    write(&client.bucket("floor~1").unwrap(), 0..10);
    assert_eq!(client.close(Duration::from_millis(20)).unwrap().spooled, 10);
    drop(client);
    let client = Client::connect(&config(&server.url())).unwrap();
    assert!(comes(|| server.stored().len() == 10), "{:?}", client.buckets());
    client.close(SOON).unwrap();
}

/// Lines that the server has, each once.
fn distinct(server: &Hostile) -> BTreeSet<String> {
    server.stored().into_iter().collect()
}

/// A client of a server whose two minutes of proof take a second or so.
fn hurried(server: &Hostile, spool: &Path, batch: usize) -> Client {
    let config = Config::remote(&server.url())
        .unwrap()
        .with_spool(Some(spool.to_owned()))
        .with_quick_batches(batch, Duration::from_millis(20))
        .with_hurry(100);
    Client::connect(&config).unwrap()
}

/// A server that fails on requests with one of these lines.
fn breaks_on(bad: impl IntoIterator<Item = i64>) -> Hostile {
    let bad: Vec<String> = bad.into_iter().map(line).collect();
    Hostile::new(move |lines| {
        let breaks = lines.iter().any(|l| bad.contains(l));
        breaks.then(|| message("500 Internal Server Error", "panic: runtime error"))
    })
}

#[test]
fn a_server_whose_disk_is_full_rejects_nothing_for_good() {
    for batch in [1, 7, 20] {
        // As InfluxDB 2.8 does with a full disk: its health is good, and every write ends in a fault.
        let full = Arc::new(AtomicBool::new(true));
        let asked = full.clone();
        let server = Hostile::new(move |_| {
            let is_full = asked.load(Ordering::Relaxed);
            is_full.then(|| message("500 Internal Server Error", "no space left on device"))
        });
        let spool = tempfile::tempdir().unwrap();
        let client = hurried(&server, spool.path(), batch);
        write(&client, 0..60);
        // Long enough for hundreds of tries of every part.
        let requests = || server.seen.lock().unwrap().requests;
        assert!(comes(|| requests() > 60), "{}", requests());
        assert_eq!((client.stats().rejected, client.is_connected()), (0, false));
        full.store(false, Ordering::Relaxed);
        client.flush(Level::Delivered, SOON).unwrap();
        assert_eq!((client.stats().rejected, client.stats().delivered), (0, 60));
        assert_eq!(distinct(&server), (0..60).map(line).collect());
        client.close(SOON).unwrap();
    }
}

#[test]
fn a_disk_that_is_full_now_and_then_rejects_nothing_for_good() {
    // It takes one request in three, whatever is in it.
    let requests = AtomicU64::new(0);
    let server = Hostile::new(move |_| {
        let is_full = requests.fetch_add(1, Ordering::Relaxed) % 3 != 2;
        is_full.then(|| message("500 Internal Server Error", "no space left on device"))
    });
    let spool = tempfile::tempdir().unwrap();
    let client = hurried(&server, spool.path(), 20);
    write(&client, 0..200);
    client.flush(Level::Delivered, SOON).unwrap();
    assert_eq!((client.stats().rejected, client.stats().delivered), (0, 200));
    assert_eq!(distinct(&server), (0..200).map(line).collect());
    client.close(SOON).unwrap();
}

#[test]
fn poisonous_lines_one_after_the_other_are_found() {
    let server = breaks_on((0..5).chain(30..32));
    let spool = tempfile::tempdir().unwrap();
    let client = hurried(&server, spool.path(), 60);
    write(&client, 0..60);
    client.flush(Level::Delivered, SOON).unwrap();
    assert_eq!((client.stats().rejected, distinct(&server).len()), (7, 53));
    client.close(SOON).unwrap();
}

#[test]
fn a_poisonous_line_alone_is_retried_until_others_prove_that_it_is_the_cause() {
    for batch in [1, 60] {
        let server = breaks_on([0, 3]);
        let spool = tempfile::tempdir().unwrap();
        let client = hurried(&server, spool.path(), batch);
        write(&client, 0..1);
        let requests = || server.seen.lock().unwrap().requests;
        assert!(comes(|| requests() > 100), "{}", requests());
        assert_eq!((client.stats().rejected, client.stats().waiting), (0, 1));
        let told = Arc::new(Mutex::new(Vec::new()));
        let keeps = told.clone();
        client.set_on_error(move |news| {
            if news.kind == WriteErrorKind::Rejected {
                keeps.lock().unwrap().extend(news.first.clone());
            }
        });
        write(&client, 1..6);
        client.flush(Level::Delivered, SOON).unwrap();
        assert_eq!((client.stats().rejected, distinct(&server).len()), (2, 4));
        assert!(client.close(SOON).unwrap().errors_told);
        let texts = [line(0), line(3)];
        for (i, line) in told.lock().unwrap().iter().enumerate() {
            assert!(line.text == texts[i] && line.reason.contains("while it took other lines"));
        }
    }
}

#[test]
fn of_two_values_for_one_time_the_later_one_wins_whatever_the_server_fails_on() {
    // It fails on some requests by chance; parts of a batch go out in several orders.
    let requests = AtomicU64::new(0x9E37_79B9);
    let server = Hostile::new(move |_| {
        let n = requests.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40;
        (!n.is_multiple_of(3)).then(|| message("500 Internal Server Error", "no space left on device"))
    });
    let spool = tempfile::tempdir().unwrap();
    let client = hurried(&server, spool.path(), 30);
    for round in 0..120_i64 {
        let point = Point::new("m").tag("d", "a").field("f", round as f64);
        client.write_point_at(&point, Timestamp::from_nanos(1_000_000 + round % 10)).unwrap();
    }
    client.flush(Level::Delivered, SOON).unwrap();
    assert_eq!((client.stats().rejected, client.stats().delivered), (0, 120));
    let mut last = BTreeMap::new();
    for line in server.stored() {
        let (value, time) = line.rsplit_once(' ').map(|(v, t)| (v.to_owned(), t.to_owned())).unwrap();
        last.insert(time, value);
    }
    let expected: Vec<String> = (110..120).map(|i| format!("m,d=a f={i}.0")).collect();
    assert_eq!(last.into_values().collect::<Vec<_>>(), expected);
    client.close(SOON).unwrap();
}

#[test]
fn a_close_does_not_wait_for_a_server_that_is_away_when_all_is_durable() {
    let long = Duration::from_secs(3600);
    let spool = tempfile::tempdir().unwrap();
    let config = |url: &str| Config::remote(url).unwrap().with_spool(Some(spool.path().to_owned()));
    // Nobody listens there.
    let client = Client::connect(&config("http://127.0.0.1:9")).unwrap();
    write(&client, 0..1000);
    write(&client.bucket("other").unwrap(), 0..10);
    let report = client.close(long).unwrap();
    assert_eq!((report.level, report.spooled, report.dropped), (Level::Durable, 1010, 0));
    // Nor for one that takes nothing until somebody changes a setting; and a client that is dropped does the same.
    let server = token_server("Token right");
    let client = Client::connect(&config(&server.url()).with_token("wrong")).unwrap();
    write(&client, 1000..1100);
    drop(client);
    // One that is there has all of it in time, though it fails at first.
    let server = Hostile::new(|_| None);
    let client = Client::connect(&config(&server.url()).with_hurry(20)).unwrap();
    client.bucket("other").unwrap();
    let report = client.close(long).unwrap();
    assert_eq!((report.level, report.delivered, report.spooled), (Level::Delivered, 1110, 0));
    assert_eq!(server.stored().len(), 1110);
}

#[test]
fn a_close_without_a_spool_tries_until_its_deadline() {
    let server = Hostile::new(|_| None);
    let busy = || message("503 Service Unavailable", "busy");
    server.will((0..12).map(|_| Do::Answer(busy())));
    let config = Config::remote(&server.url()).unwrap().with_spool(None).with_hurry(20);
    let client = Client::connect(&config).unwrap();
    write(&client, 0..10);
    let report = client.close(SOON).unwrap();
    assert_eq!((report.level, report.delivered, report.dropped), (Level::Delivered, 10, 0));
}

#[test]
fn a_server_that_is_away_is_reported_before_there_is_a_line() {
    let listener = TcpListener::bind("127.77.7.3:0").unwrap();
    let at = listener.local_addr().unwrap();
    drop(listener);
    let spool = tempfile::tempdir().unwrap();
    let config = Config::remote(&format!("http://{at}"))
        .unwrap()
        .with_spool(Some(spool.path().to_owned()))
        .with_hurry(100);
    let client = Client::connect(&config).unwrap();
    let told = Arc::new(Mutex::new(Vec::new()));
    let keeps = told.clone();
    client.set_on_error(move |news| keeps.lock().unwrap().push(news.clone()));
    assert!(comes(|| client.stats().health == Health::Retrying && !client.is_connected()));
    assert!(client.stats().trouble.unwrap().contains(&at.to_string()));
    assert!(comes(|| !told.lock().unwrap().is_empty()));
    let first = told.lock().unwrap()[0].clone();
    assert_eq!((first.kind, first.lines), (WriteErrorKind::Delayed, 0), "{first}");
    // It is there again, and nobody wrote anything.
    let server = Hostile::judging_at(TcpListener::bind(at).unwrap(), |_| None);
    assert!(comes(|| client.stats().health == Health::Ok && client.is_connected()), "{:?}", client.stats());
    assert_eq!(server.seen.lock().unwrap().requests, 0);
    write(&client, 0..10);
    client.flush(Level::Delivered, SOON).unwrap();
    assert_eq!(told.lock().unwrap().len(), 1, "once");
    client.close(SOON).unwrap();
}

#[test]
fn what_an_earlier_version_left_for_its_default_bucket_is_delivered_there() {
    let server = Hostile::judging(|request| {
        let is_right = request.target.contains("bucket=telemetry");
        (!is_right && !request.lines.is_empty()).then(|| (message("404 Not Found", "no bucket"), Vec::new()))
    });
    let spool = tempfile::tempdir().unwrap();
    let config =
        |url: &str| Config::remote(url).unwrap().with_spool(Some(spool.path().to_owned())).with_hurry(20);
    let client = Client::connect(&config("http://127.0.0.1:9").with_bucket("telemetry")).unwrap();
    write(&client, 0..10);
    assert_eq!(client.close(SOON).unwrap().spooled, 10);
    drop(client);
    let client = Client::connect(&config(&server.url())).unwrap();
    assert_eq!(client.buckets()[0].0, "metrics");
    assert!(comes(|| distinct(&server).len() == 10), "{:?}", client.buckets());
    assert_eq!(distinct(&server), (0..10).map(line).collect());
    client.close(SOON).unwrap();
}
