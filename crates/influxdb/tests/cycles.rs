//! Clients that connect, write and close, one after the other, leave nothing behind: no thread, no descriptor, no memory. Alone
//! in its process, because it counts what the process has. `GRAYLOGIC_CYCLES` says how often; 1,000 is the campaign's figure.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs, unreachable_pub)]

#[allow(dead_code, reason = "each test uses a part of it")]
mod hostile;

use graylogic_influxdb::{Client, Config, Level, Point};
use hostile::Hostile;
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use std::alloc::System;
use std::net::TcpListener;
use std::time::{Duration, Instant};

/// What is written in Rust allocates here; SQLite does not, and shows in what is resident.
#[global_allocator]
static MEMORY: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const SOON: Duration = Duration::from_secs(60);
/// What the allocator has given and not got back may differ by so much: a map that grew, a message that is longer.
const ALLOCATED_MAX: i64 = 4 << 10;
/// So much may be resident besides, in the allocator's own places for threads that have ended.
const RESIDENT_MAX: i64 = 4 << 20;

/// What a process has.
#[derive(Clone, Copy, Debug)]
struct Has {
    threads: usize,
    descriptors: usize,
    allocated: i64,
    resident: i64,
}

impl Has {
    fn now() -> Self {
        let entries = |of: &str| std::fs::read_dir(of).unwrap().count();
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let resident = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap();
        let kilobytes: i64 = resident.trim().trim_end_matches(" kB").parse().unwrap();
        let (threads, descriptors) = (entries("/proc/self/task"), entries("/proc/self/fd"));
        let stats = MEMORY.stats();
        let allocated = stats.bytes_allocated as i64 - stats.bytes_deallocated as i64;
        Self { threads, descriptors, allocated, resident: kilobytes << 10 }
    }

    /// What it has when it has no more threads and descriptors than before, which those that are ending may need a moment
    /// for; or what it has all the same.
    fn settled(before: Self) -> Self {
        let until = Instant::now() + SOON;
        loop {
            let now = Self::now();
            let back = now.threads <= before.threads && now.descriptors <= before.descriptors;
            // Threads free what they held before the system lets go of them, but for what the last moment frees.
            if (back && now.allocated - before.allocated <= ALLOCATED_MAX) || Instant::now() > until {
                return now;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Where readings of a kind of client go.
enum Kind<'a> {
    Embedded,
    Server { up: Option<&'a Hostile>, url: String, spooled: bool },
}

/// A client's life; each that is odd ends without a close, where that does not wait for a server that is not there.
fn cycle(kind: &Kind<'_>, number: usize) {
    let folder = tempfile::tempdir().unwrap();
    let config = match kind {
        Kind::Embedded => Config::embedded(folder.path()).with_any_time(true),
        Kind::Server { url, spooled, .. } => Config::remote(url)
            .unwrap()
            .with_spool(spooled.then(|| folder.path().join("spool")))
            .with_quick_batches(100, Duration::from_millis(1))
            .with_hurry(20),
    };
    let client = Client::connect(&config).unwrap();
    let other = client.bucket("other").unwrap();
    let held = client.clone();
    // It holds the client that holds it, as a callback that closes does. It may be called before anything is written: a
    // client that connects reports that the server is not there.
    let keeps = number.is_multiple_of(2);
    client.set_on_error(move |_| assert!(!keeps || held.stats().accepted <= 20));
    for i in 0..10 {
        client.write_device_metric("d", "m", f64::from(i)).unwrap();
        other.write_point(&Point::new("m").tag("d", "a").field("f", i64::from(i))).unwrap();
    }
    let is_down = matches!(kind, Kind::Server { up: None, .. });
    if is_down {
        let report = client.close(Duration::from_millis(1)).unwrap();
        assert_eq!((report.delivered, report.spooled + report.dropped), (0, 20));
    } else {
        client.flush(Level::Delivered, SOON).unwrap();
        let _asked = client.health_check(SOON);
        if keeps {
            assert_eq!(client.close(SOON).unwrap().delivered, 20);
        } else {
            client.set_on_error(|_| {});
        }
    }
    drop((client, other));
    if let Kind::Server { up: Some(server), .. } = kind {
        let mut seen = server.seen.lock().unwrap();
        assert_eq!(std::mem::take(&mut seen.stored).len(), 20);
        seen.times.clear();
        seen.lines_per_request.clear();
    }
}

#[test]
fn a_thousand_connects_and_closes_leave_nothing_behind() {
    let cycles: usize = std::env::var("GRAYLOGIC_CYCLES").map_or(200, |n| n.parse().unwrap());
    let server = Hostile::new(|_| None);
    // A place where nobody listens.
    let nobody = TcpListener::bind(("127.77.9.1", 0)).unwrap().local_addr().unwrap();
    let up = |spooled| Kind::Server { up: Some(&server), url: server.url(), spooled };
    let down = |spooled| Kind::Server { up: None, url: format!("http://{nobody}"), spooled };
    let kinds = [
        ("embedded", Kind::Embedded),
        ("server, spool", up(true)),
        ("server, memory", up(false)),
        ("no server, spool", down(true)),
        ("no server, memory", down(false)),
    ];
    for (name, kind) in &kinds {
        let first = Has::now();
        (0..cycles / 4 + 10).for_each(|i| cycle(kind, i));
        // What is made once for a process is there now.
        let before = Has::settled(Has { allocated: i64::MAX / 2, ..first });
        let began = Instant::now();
        (0..cycles).for_each(|i| cycle(kind, i));
        let took = began.elapsed();
        let after = Has::settled(before);
        let (allocated, resident) = (after.allocated - before.allocated, after.resident - before.resident);
        println!(
            "{name}: {cycles} clients in {took:?}; {before:?}, then {allocated:+} B allocated, {resident:+} B resident"
        );
        assert!(after.threads <= before.threads, "{name}: {before:?} became {after:?}");
        assert!(after.descriptors <= before.descriptors, "{name}: {before:?} became {after:?}");
        assert!(allocated <= ALLOCATED_MAX, "{name}: {allocated} bytes are not freed");
        assert!(resident <= RESIDENT_MAX, "{name}: {resident} bytes more are resident");
    }
}
