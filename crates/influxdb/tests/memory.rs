//! The memory of a client without a spool, written to at full speed: 64 MiB of readings may be pending, and the process stays
//! under 96 MB, whether the server takes them or hangs. One test in a program of its own, because the peak is the process's.
#![allow(clippy::unwrap_used, missing_docs, unreachable_pub)]

#[allow(dead_code, reason = "each test uses a part of it")]
mod hostile;

use graylogic_influxdb::{Client, Config, Error, Point, Timestamp};
use hostile::Hostile;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

const PEAK_MAX_BYTES: u64 = 96_000_000;
const READINGS: i64 = 2_000_000;

/// The most memory this process ever had; `None` where the system does not say.
fn peak_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|l| l.starts_with("VmHWM:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? * 1024)
}

fn point(i: i64) -> Point {
    Point::new("power").tag("device", format!("d{}", i % 500)).field("watts", i as f64 / 8.0)
}

fn write(client: &Client, i: i64) -> Result<(), Error> {
    client.write_point_at(&point(i), Timestamp::from_nanos(1_700_000_000_000_000_000 + i))
}

/// Writes at full speed while the server hangs; returns how many readings were accepted.
fn fill(client: &Client) -> i64 {
    let (mut accepted, mut rejected) = (0, 0);
    for i in 0..READINGS {
        match write(client, i) {
            Ok(()) => accepted += 1,
            Err(error) => {
                assert!(error.is_full() && error.is_retryable(), "{error}");
                assert!(error.to_string().contains("pending"), "{error}");
                rejected += 1;
            }
        }
    }
    assert!(rejected > 0, "{:?}", client.stats());
    accepted
}

#[test]
fn a_client_without_a_spool_stays_small_at_any_rate() {
    let (hangs, taken) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicU64::new(0)));
    let (is_hanging, counted) = (hangs.clone(), taken.clone());
    let server = Hostile::judging(move |request| {
        while is_hanging.load(Ordering::Acquire) {
            std::thread::sleep(Duration::from_millis(5));
        }
        counted.fetch_add(request.lines.len() as u64, Ordering::AcqRel);
        // None of them is kept here.
        Some(("HTTP/1.1 204 No Content\r\n\r\n".to_owned(), Vec::new()))
    });
    let config = Config::remote(&server.url()).unwrap().with_spool(None);
    let client = Client::connect(&config).unwrap();
    let accepted = fill(&client);
    // The documented bound is what readings get: 64 MiB of lines of about 50 bytes.
    let line = "power,device=d499 watts=123456.5 1700000000001000000\n".len() as i64;
    let full = (64 << 20) / line;
    assert!(accepted > full * 8 / 10 && accepted < full * 13 / 10, "{accepted} of about {full}");
    // Who waits for room gets it when the server goes on, and not before.
    assert!(!client.wait_for_room(Duration::from_millis(10)));
    let timed_out = client.write_point_timeout(&point(-1), Duration::from_millis(10));
    assert!(timed_out.is_err_and(|e| e.is_full()));
    hangs.store(false, Ordering::Release);
    let written = Instant::now();
    for i in 0..READINGS / 4 {
        client.write_point_timeout(&point(i), Duration::from_secs(300)).unwrap();
    }
    assert!(client.wait_for_room(Duration::from_secs(300)));
    assert!(written.elapsed() < Duration::from_secs(300));
    client.close(Duration::from_secs(300)).unwrap();
    assert_eq!(taken.load(Ordering::Acquire) as i64, accepted + READINGS / 4);
    if let Some(peak) = peak_bytes() {
        assert!(peak < PEAK_MAX_BYTES, "{peak} bytes at the peak");
    }
}
