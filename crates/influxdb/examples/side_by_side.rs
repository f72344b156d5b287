//! Our client in the comparison of `tools/side_by_side`: a stream of points at a steady rate, the callback of errors set,
//! and a close. What it is told goes to a journal, whose words are in the README there.
//!
//! ```text
//! side_by_side --url http://127.0.0.1:8086 --journal FILE --spool FOLDER|off [--first N] [--burst N] [--points N] [--rate N]
//!     [--batch N] [--flush-ms N] [--special none|conflict|poison|nan] [--every N]
//! ```

use graylogic_influxdb::{Client, Config, Error as ClientError, Point, Timestamp, WriteErrorKind};
use serde_json::json;
use std::collections::HashMap;
use std::error::Error;
use std::fs::File;
use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

const BASE: i64 = 1_700_000_000_000_000_000;
const STEP: i64 = 1_000_000;

/// Point `i` of the stream, which is an odd one now and then.
fn point(i: i64, special: &str, every: i64) -> Point {
    let odd = if i % every == every / 2 { special } else { "none" };
    let point = Point::new(if odd == "poison" { "poison" } else { "side" })
        .tag("device", format!("d{}", i % 10))
        .timestamp(Timestamp::from_nanos(BASE + i * STEP));
    match odd {
        "conflict" => point.field("value", "broken"),
        "nan" if i % (2 * every) >= every => point.field("value", f64::INFINITY),
        "nan" => point.field("value", f64::NAN),
        _ => point.field("value", (i % 1000) as f64 / 2.0),
    }
}

/// Adds whole lines to the journal, in one write: threads do not mix theirs, and a kill leaves none torn.
fn note(mut journal: &File, line: String) -> std::io::Result<()> {
    journal.write_all((line + "\n").as_bytes())
}

fn main() -> Result<(), Box<dyn Error>> {
    let given: Vec<String> = std::env::args().skip(1).collect();
    let given: HashMap<&str, &str> = given.chunks_exact(2).map(|pair| (&pair[0][2..], &*pair[1])).collect();
    let text = |name: &str| given.get(name).copied().ok_or(format!("--{name} is missing"));
    let number = |name, default: i64| given.get(name).map_or(Ok(default), |text| text.parse());
    let (first, burst, points) = (number("first", 0)?, number("burst", 0)?, number("points", 0)?);
    let (rate, batch, every) = (number("rate", 100)?, number("batch", 100)?, number("every", 100)?);
    let flush = Duration::from_millis(u64::try_from(number("flush-ms", 1000)?)?);
    let special = given.get("special").copied().unwrap_or("none");
    let journal = Arc::new(File::options().create(true).append(true).open(text("journal")?)?);

    let spool = text("spool")?;
    let config = Config::remote(text("url")?)?
        .with_org("side")
        .with_bucket("side")
        .with_token("side-token")
        .with_batches(usize::try_from(batch)?, flush)
        .with_spool((spool != "off").then(|| spool.into()));
    let client = Client::connect(&config)?;
    let told = journal.clone();
    client.set_on_error(move |error| {
        use WriteErrorKind::{Damaged, Dropped, Rejected};
        let word = if matches!(error.kind, Rejected | Dropped | Damaged) { "n" } else { "d" };
        let lines = if word == "n" { error.lines.to_string() } else { String::new() };
        let _journal_full = note(&told, format!("{word} {lines}\n# {error}"));
    });

    let mut calls = Vec::new();
    let mut put = |i: i64| -> Result<(), Box<dyn Error>> {
        let point = point(i, special, every);
        let before = Instant::now();
        let answer: Result<(), ClientError> = client.write_point(&point);
        calls.push(before.elapsed());
        if let Err(error) = answer {
            note(&journal, format!("r {i} {error}"))?;
        }
        Ok(())
    };
    note(&journal, "s".into())?;
    (first..first + burst).try_for_each(&mut put)?;
    note(&journal, "b".into())?;
    let began = Instant::now();
    for n in 0..points {
        let due = Duration::from_nanos(u64::try_from(n * 1_000_000_000 / rate.max(1))?);
        std::thread::sleep(due.saturating_sub(began.elapsed()));
        put(first + burst + n)?;
        note(&journal, format!("w {}", first + burst + n))?;
    }

    calls.sort();
    let ms = |d: Option<&Duration>| d.map_or(0.0, |d| d.as_secs_f64() * 1000.0);
    let mut result = json!({
        "client": "graylogic-influxdb",
        "version": env!("CARGO_PKG_VERSION"),
        "next": first + burst + points,
        "longest_ms": ms(calls.last()),
        "p999_ms": ms(calls.get(calls.len().saturating_sub(1) * 999 / 1000)),
    });
    note(&journal, format!("c {result}"))?;
    let before = Instant::now();
    let report = client.close(Duration::from_secs(10))?;
    note(&journal, format!("k {}", report.spooled))?;
    result["close_ms"] = json!(before.elapsed().as_secs_f64() * 1000.0);
    result["close_says"] = json!(format!("{report:?}"));
    writeln!(std::io::stdout(), "{result}")?;
    Ok(())
}
