//! Lanes of one client beside each other, and what they say of themselves while their server takes nothing.
#![allow(clippy::unwrap_used, missing_docs, unreachable_pub)]

#[allow(dead_code, reason = "each test uses a part of it")]
mod hostile;

use graylogic_influxdb::{Client, Config, Health, Level, Point, Timestamp};
use hostile::{Hostile, message};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
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
        .with_batches(20, Duration::from_millis(20))
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
            .with_batches(20, Duration::from_millis(20))
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

#[test]
fn a_server_that_breaks_on_every_line_is_not_believed_to_be_well() {
    // As one does whose disk is full: its health is good, and every write ends in a fault.
    let full = Arc::new(AtomicBool::new(true));
    let asked = full.clone();
    let server = Hostile::new(move |_| {
        asked.load(Ordering::Relaxed).then(|| message("500 Internal Server Error", "no space left on device"))
    });
    let spool = tempfile::tempdir().unwrap();
    let config = Config::remote(&server.url())
        .unwrap()
        .with_spool(Some(spool.path().to_owned()))
        .with_batches(20, Duration::from_millis(20))
        .with_hurry(100);
    let client = Client::connect(&config).unwrap();
    write(&client, 0..60);
    std::thread::sleep(Duration::from_secs(6));
    full.store(false, Ordering::Relaxed);
    client.flush(Level::Delivered, SOON).unwrap();
    let stats = client.stats();
    // The first one was the suspect, as if it alone broke the server.
    assert!(stats.rejected <= 1, "{stats:?}");
    assert_eq!(server.stored().len() as u64, 60 - stats.rejected);
    client.close(SOON).unwrap();
}

#[test]
fn poisonous_lines_one_after_the_other_are_found() {
    let bad: Vec<String> = (0..5).chain(30..32).map(line).collect();
    let server = Hostile::new(move |lines| {
        let breaks = lines.iter().any(|l| bad.contains(l));
        breaks.then(|| message("500 Internal Server Error", "panic: runtime error"))
    });
    let spool = tempfile::tempdir().unwrap();
    let config = Config::remote(&server.url())
        .unwrap()
        .with_spool(Some(spool.path().to_owned()))
        .with_batches(60, Duration::from_millis(200))
        .with_hurry(100);
    let client = Client::connect(&config).unwrap();
    write(&client, 0..60);
    client.flush(Level::Delivered, SOON).unwrap();
    assert_eq!((client.stats().rejected, server.stored().len()), (7, 53));
    client.close(SOON).unwrap();
}
