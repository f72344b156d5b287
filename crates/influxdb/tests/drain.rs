//! After a long outage a server is slow to take what has gathered. What is read meanwhile does not wait behind it: no live
//! line is delayed by more than five seconds. `GRAYLOGIC_TORTURE` multiplies the backlog: 1 is a million lines.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs, unreachable_pub)]

#[allow(dead_code, reason = "each test uses a part of it")]
mod campaign;
#[allow(dead_code, reason = "each test uses a part of it")]
mod hostile;

use campaign::{Row, Toll, share};
use graylogic_influxdb::{Client, Config, Level, Point, Stats, Timestamp};
use hostile::{Hostile, message};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(300);
/// The promise.
const DELAY_MAX: Duration = Duration::from_secs(5);
/// Live lines come at this rate: so many, so often.
const LIVE_LINES: u64 = 10;
const LIVE_EVERY: Duration = Duration::from_millis(10);
/// The server takes this long for a request, and is asked for live lines this often.
const REQUEST: Duration = Duration::from_millis(100);
const INTERVAL: Duration = Duration::from_secs(1);
const BACKLOG_AGE: Duration = Duration::from_millis(500);

fn line(i: u64) -> String {
    format!("power,device=d{} watts={i}.0 {}", i % 50, 1_000_000 + i)
}

fn write(client: &Client, i: u64) {
    let point = Point::new("power").tag("device", format!("d{}", i % 50)).field("watts", i as f64);
    // A spool on a slow disk may ask for a moment.
    while let Err(error) = client.write_point_at(&point, Timestamp::from_nanos(1_000_000 + i as i64)) {
        assert!(error.is_retryable(), "{error}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// What a slow server noted: the number of each line, `None` for one that nobody wrote, and when it was there.
type Arrivals = Arc<Mutex<Vec<(Option<u64>, Instant)>>>;

fn slow_server() -> (Hostile, Arrivals, Arc<AtomicBool>) {
    let (arrivals, up) = (Arrivals::default(), Arc::new(AtomicBool::new(false)));
    let (noted, is_up) = (arrivals.clone(), up.clone());
    let server = Hostile::judging(move |request| {
        if !is_up.load(Ordering::Relaxed) {
            return Some((message("503 Service Unavailable", "starting"), Vec::new()));
        }
        std::thread::sleep(REQUEST);
        let number = |l: &String| {
            let time: u64 = l.rsplit_once(' ')?.1.parse().ok()?;
            let number = time.checked_sub(1_000_000)?;
            (*l == line(number)).then_some(number)
        };
        let now = Instant::now();
        noted.lock().unwrap().extend(request.lines.iter().map(|l| (number(l), now)));
        Some(("HTTP/1.1 204 No Content\r\n\r\n".to_owned(), Vec::new()))
    });
    (server, arrivals, up)
}

/// Whether the client that gathered the backlog is the one that drains it.
#[derive(Clone, Copy, Debug)]
enum Life {
    Same,
    Next,
}

#[test]
fn s7_live_lines_do_not_wait_behind_a_backlog() {
    let backlog = (1_000_000.0 * share(0.1)) as u64;
    let cases = [Life::Same, Life::Next].map(|life| (format!("{life:?} life, {backlog} old lines"), life));
    let mut row = Row::new("S7", 0);
    row.all(&cases, |life, toll| drain(toll, backlog, *life));
    row.tell();
}

fn config(server: &Hostile, spool: &Path, backlog: u64) -> Config {
    Config::remote(&server.url())
        .unwrap()
        .with_spool(Some(spool.to_owned()))
        .with_quick_batches(usize::try_from(backlog / 100).unwrap(), INTERVAL)
        .with_hurry(20)
        .with_backlog_age(BACKLOG_AGE)
}

fn wait_for(client: &Client, what: impl Fn(&Stats) -> bool) {
    let until = Instant::now() + SOON;
    while !what(&client.stats()) {
        assert!(Instant::now() < until, "{:?}", client.stats());
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn drain(toll: &mut Toll, backlog: u64, life: Life) {
    let (server, arrivals, up) = slow_server();
    let spool = tempfile::tempdir().unwrap();
    let config = config(&server, spool.path(), backlog);
    let mut client = Client::connect(&config).unwrap();
    (0..backlog).for_each(|i| write(&client, i));
    client.flush(Level::Spooled, SOON).unwrap();
    std::thread::sleep(BACKLOG_AGE * 2);
    if matches!(life, Life::Next) {
        let report = client.close(Duration::from_millis(10)).unwrap();
        toll.expect((report.spooled, report.dropped) == (backlog, 0), || format!("{report:?}"));
        drop(client);
        let Some(next) = toll.opened(Client::connect(&config)) else { return };
        client = next;
    }
    up.store(true, Ordering::Relaxed);
    // The first answer ends the outage. What was read before it belongs to the backlog.
    wait_for(&client, |stats| stats.delivered > 0);
    // So does what is read while the next client looks at the backlog, whose timestamps it does not know.
    let looks = match life {
        Life::Same => Duration::from_millis(50),
        Life::Next => Duration::from_secs(2),
    };
    std::thread::sleep(looks);
    let began = Instant::now();
    let done = AtomicBool::new(false);
    let mut written = Vec::new();
    std::thread::scope(|scope| {
        let live = scope.spawn(|| {
            let mut times = Vec::new();
            while !done.load(Ordering::Relaxed) {
                for _ in 0..LIVE_LINES {
                    write(&client, backlog + times.len() as u64);
                    times.push(Instant::now());
                }
                let next = began + LIVE_EVERY * (times.len() as u64 / LIVE_LINES) as u32;
                std::thread::sleep(next.saturating_duration_since(Instant::now()));
            }
            times
        });
        let is_old = |a: &&(Option<u64>, Instant)| a.0.is_some_and(|i| i < backlog);
        let until = Instant::now() + SOON;
        while (arrivals.lock().unwrap().iter().filter(is_old).count() as u64) < backlog
            && Instant::now() < until
        {
            std::thread::sleep(Duration::from_millis(100));
        }
        done.store(true, Ordering::Relaxed);
        written = live.join().unwrap();
    });
    let drained_in = began.elapsed();
    let flushed = client.flush(Level::Delivered, SOON);
    toll.expect(flushed.is_ok(), || format!("{flushed:?}: {:?}", client.stats()));
    let stats = client.stats();
    let gone = stats.delivered + stats.rejected + stats.dropped + stats.damaged + stats.waiting;
    toll.expect(stats.accepted + stats.recovered == gone, || format!("{stats:?}"));
    client.close(SOON).unwrap();

    let total = backlog + written.len() as u64;
    let arrivals = arrivals.lock().unwrap();
    let mut first = vec![None; total as usize];
    let (mut next_old, mut next_live) = (0, backlog);
    for (number, at) in arrivals.iter() {
        let known = number.filter(|n| *n < total);
        toll.expect(known.is_some(), || format!("{number:?} was not written"));
        let Some(number) = known else { continue };
        if first[number as usize].replace(*at).is_none() {
            let next = if number < backlog { &mut next_old } else { &mut next_live };
            toll.expect(number >= *next, || format!("line {number} comes after line {}", *next - 1));
            *next = number + 1;
        }
    }
    toll.lose(first.iter().filter(|f| f.is_none()).count() as u64, || format!("of {total} lines"));
    let delays = written.iter().zip(&first[backlog as usize..]).filter_map(|(w, f)| Some((*f)? - *w));
    let longest = delays.max().unwrap_or_default();
    println!(
        "S7, {life:?} life: {backlog} old lines in {drained_in:?}, {} live lines, the longest delay {longest:?}",
        written.len()
    );
    toll.expect(longest <= DELAY_MAX, || format!("a live line came after {longest:?}"));
    // Else a line that waits behind the backlog would not be late either.
    toll.expect(drained_in > DELAY_MAX, || format!("the server was too fast: {drained_in:?}"));
}
