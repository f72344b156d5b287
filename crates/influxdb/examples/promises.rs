//! A process that writes readings of known ids and says which of them are safe, so that somebody can kill it, start it
//! again on the same spool, and look for them in the server: `cargo xtask campaign` does. It ends when all are
//! delivered, or when its input does.
//!
//! ```text
//! cargo run --example promises -- http://127.0.0.1:8428 ./graylogic-spool 0 10000
//! ```

use graylogic_influxdb::{Client, Config, Health, Level, Timestamp};
use std::error::Error;
use std::io::{Read, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Readings come so many at a time, so often: 10,000 a second.
const READINGS: u64 = 100;
const EVERY: Duration = Duration::from_millis(10);
/// The time of the first id; each has a millisecond of its own, which is as exact as some servers are.
const FIRST_MILLISECOND: u64 = 1_700_000_000_000;

/// One write: a kill leaves whole words behind.
fn say(what: &str) -> std::io::Result<()> {
    std::io::stdout().lock().write_all(format!("{what}\n").as_bytes())
}

fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [url, spool, first, count] = &arguments[..] else {
        return Err("usage: promises URL SPOOL FIRST_ID COUNT".into());
    };
    let (first, count): (u64, u64) = (first.parse()?, count.parse()?);
    let config = Config::remote(url)?
        .with_bucket("house")
        .with_spool(Some(spool.into()))
        .with_quick_batches(2000, Duration::from_millis(100));
    let client = Client::connect(&config)?;
    let (accepted, ending) = (AtomicU64::new(first), AtomicBool::new(false));
    let wait_for_end = std::thread::spawn(|| std::io::stdin().read_to_end(&mut Vec::new()));
    std::thread::scope(|scope| -> Result<(), Box<dyn Error + Send + Sync>> {
        let tells = scope.spawn(|| tell(&client, &accepted, &ending));
        let wrote = write(&client, first, count, &accepted);
        while wrote.is_ok() && client.stats().waiting > 0 && !wait_for_end.is_finished() {
            std::thread::sleep(Duration::from_millis(10));
        }
        ending.store(true, Ordering::Release);
        tells.join().map_err(|_| "the thread that tells what is safe panicked")??;
        wrote
    })?;
    let report = client.close(Duration::from_secs(2))?;
    let s = client.stats();
    let numbers = [s.accepted, s.recovered, s.delivered, s.rejected, s.dropped, s.damaged, report.spooled];
    say(&format!("ended {}", numbers.map(|n| n.to_string()).join(" ")))?;
    Ok(())
}

/// Writes the readings, and says before each hundred that they come.
fn write(
    client: &Client,
    first: u64,
    count: u64,
    accepted: &AtomicU64,
) -> Result<(), Box<dyn Error + Send + Sync>> {
    let began = Instant::now();
    let mut id = first;
    while id < first + count {
        let until = (id + READINGS).min(first + count);
        say(&format!("issued {until}"))?;
        while id < until {
            let time = Timestamp::from_nanos(((FIRST_MILLISECOND + id) * 1_000_000).try_into()?);
            let (device, watts) = (format!("d{}", id % 50), (id % 4096) as f64 + 0.5);
            match client.write_energy_metric_at(&device, watts, None, time) {
                Ok(()) => id += 1,
                Err(error) if error.is_retryable() => std::thread::sleep(EVERY),
                Err(error) => return Err(error.into()),
            }
        }
        accepted.store(id, Ordering::Release);
        let hundreds = u32::try_from((id - first) / READINGS)?;
        std::thread::sleep((began + EVERY * hundreds).saturating_duration_since(Instant::now()));
    }
    Ok(())
}

/// Says what is safe, by a file or by a disk in turn, and what holds the readings up.
fn tell(
    client: &Client,
    accepted: &AtomicU64,
    ending: &AtomicBool,
) -> Result<(), Box<dyn Error + Send + Sync>> {
    let mut before = Health::Ok;
    for level in [Level::Spooled, Level::Durable].into_iter().cycle() {
        // What was accepted before a flush is so safe after it.
        let until = accepted.load(Ordering::Acquire);
        if client.flush(level, Duration::from_secs(1)).is_ok() {
            say(&format!("safe {until}"))?;
        }
        let stats = client.stats();
        if stats.health != before {
            say(&format!("health {:?} {}", stats.health, stats.trouble.unwrap_or_default()))?;
            before = stats.health;
        }
        if ending.load(Ordering::Acquire) {
            break;
        }
        std::thread::sleep(Duration::from_millis(40));
    }
    Ok(())
}
