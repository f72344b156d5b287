//! `graylogic write` for a server: line protocol goes through the spool, and what the server does not take in time waits
//! there for the next call.

use super::batches::{NAMED_MAX, batches};
use crate::app::CLOSE_DEADLINE;
use crate::cli::Write;
use crate::failure::{Failure, SOME_REFUSED};
use crate::output::{answer, answer_json, remark};
use crate::text;
use graylogic_influxdb::{Client, Config, Health, Level, WriteErrorKind};
use graylogic_line::{ParseOptions, Parser, Timestamp};
use serde_json::{Value, json};
use std::io::{self, BufRead, Write as _};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A spool that takes no line is asked again after this time.
const PAUSE: Duration = Duration::from_millis(20);
/// A sync of the spool takes no longer.
const SYNC_DEADLINE: Duration = Duration::from_secs(60);

/// Lines that were refused, by us or by the server.
#[derive(Default)]
struct Refusals {
    count: u64,
    named: Vec<Value>,
}

impl Refusals {
    fn add(&mut self, json: bool, line: Option<usize>, text: &str, reason: &str) {
        self.count += 1;
        if self.named.len() >= NAMED_MAX {
            return;
        }
        if !json {
            let place = line.map_or_else(|| "the server".to_owned(), |n| format!("line {n}"));
            remark(format_args!("{place}: '{text}': {reason}"));
        }
        self.named.push(json!({ "line": line, "reason": reason, "text": text }));
    }
}

pub(crate) fn run(
    options: &Write,
    config: &Config,
    input: impl BufRead,
    json: bool,
) -> Result<ExitCode, Failure> {
    // What earlier calls left for other buckets goes at once as well, however little it is.
    let config = &config.clone().with_batches(config.batch_size(), Duration::from_secs(1));
    let client = Client::connect(config)?;
    let recovered = client.stats().recovered;
    if recovered > 0 {
        remark(format_args!(
            "{} lines of earlier calls wait for the server and go with these",
            text::count(recovered)
        ));
    }
    let refusals: Arc<Mutex<Refusals>> = Arc::default();
    let heard = refusals.clone();
    client.set_on_error(move |news| {
        if news.kind == WriteErrorKind::Rejected {
            let mut refusals = heard.lock().unwrap_or_else(PoisonError::into_inner);
            news.first.iter().for_each(|l| refusals.add(json, None, &l.text, &l.reason));
            refusals.count += news.lines - news.first.len() as u64;
        } else {
            remark(news);
        }
    });
    // A bucket that is given is where lines go, whatever rules say.
    let writer = match &options.place.bucket {
        Some(bucket) => client.bucket(bucket)?,
        None => client.clone(),
    };
    let mut before = 0;
    let mut last = Timestamp::from_nanos(0);
    let done = batches(input, options.batch as usize, |batch, lines| {
        take(&writer, options, batch, before, (&refusals, json), &mut last)?;
        before += lines;
        if options.ack {
            client.flush(Level::Durable, SYNC_DEADLINE)?;
            answer(format_args!("acknowledged {before} lines"));
            io::stdout().flush().map_err(|e| Failure::because("say what is acknowledged", e))?;
        }
        Ok(())
    });
    // A spool keeps what VictoriaMetrics may still lose for the next call; without one this call must wait until it cannot.
    let (level, deadline) = match config.spool_folder() {
        Some(_) => (Level::Acknowledged, CLOSE_DEADLINE),
        None => (Level::Delivered, CLOSE_DEADLINE + 2 * config.settle_time()),
    };
    // As long as the server takes any, however many there are.
    let waiting_now = || {
        let stats = client.stats();
        stats.waiting.saturating_sub(stats.settling)
    };
    let mut waiting = waiting_now();
    while client.flush(level, deadline).is_err() {
        let left = waiting_now();
        if left >= waiting {
            break;
        }
        waiting = left;
    }
    wait_for_earlier(&client);
    let report = client.close(Duration::ZERO)?;
    let delivered = report.delivered + report.settling;
    done?;
    let refusals = refusals.lock().unwrap_or_else(PoisonError::into_inner);
    if json {
        answer_json(&json!({
            "delivered": delivered,
            "settling": report.settling,
            "waiting": report.spooled,
            "dropped": report.dropped,
            "refused": refusals.count,
            "lines": refusals.named,
        }));
    } else {
        answer(format_args!("{delivered} lines delivered, {} refused", refusals.count));
        if report.settling > 0 {
            answer(format_args!(
                "{} of them stay in the spool until VictoriaMetrics has them on its disk: the next write looks whether it was \
                 restarted, and sends them again if so",
                report.settling
            ));
        }
        if report.spooled > 0 {
            let folder = config.spool_folder().unwrap_or(std::path::Path::new("."));
            let others =
                if config.further_targets().is_empty() { "" } else { " and those of further targets" };
            answer(format_args!(
                "{} lines wait in the spool {}{others}: the next write takes them to the server",
                report.spooled,
                folder.display()
            ));
        }
        if report.dropped > 0 {
            answer(format_args!("{} lines were dropped: there is no spool, or it was full", report.dropped));
        }
    }
    Ok(if refusals.count + report.dropped > 0 { ExitCode::from(SOME_REFUSED) } else { ExitCode::SUCCESS })
}

/// Waits for what earlier calls left, which no flush is about, where the server takes it and as long as it takes any.
fn wait_for_earlier(client: &Client) {
    let waiting = || -> u64 {
        let lanes = client.buckets();
        lanes
            .iter()
            .filter(|(_, lane)| lane.health == Health::Ok)
            .map(|(_, lane)| lane.waiting.saturating_sub(lane.settling))
            .sum()
    };
    let (mut left, mut since) = (waiting(), Instant::now());
    while left > 0 && since.elapsed() < CLOSE_DEADLINE {
        std::thread::sleep(PAUSE);
        let now = waiting();
        if now != left {
            (left, since) = (now, Instant::now());
        }
    }
}

/// Gives the lines of a batch to the client, which may have to wait for room in the spool.
fn take(
    client: &Client,
    options: &Write,
    batch: &[u8],
    before: usize,
    (refusals, json): (&Mutex<Refusals>, bool),
    last: &mut Timestamp,
) -> Result<(), Failure> {
    let now = Timestamp::now();
    let mut parser = Parser::new(batch, ParseOptions::new(options.precision.precision(), now));
    let refuse = |line: usize, text: &[u8], reason: &str| {
        let mut refusals = refusals.lock().unwrap_or_else(PoisonError::into_inner);
        refusals.add(json, Some(before + line), &String::from_utf8_lossy(text), reason);
    };
    while let Some(next) = parser.next_line() {
        let line = match next {
            Ok(line) => line,
            Err(error) => {
                refuse(error.line(), error.text(), &error.reason().to_string());
                continue;
            }
        };
        let point = line.to_point();
        let time = match line.has_timestamp() {
            true => line.timestamp(),
            // Each its own: two readings of a series never fall together.
            false => {
                *last = Timestamp::from_nanos(now.as_nanos().max(last.as_nanos().saturating_add(1)));
                *last
            }
        };
        loop {
            match client.write_point_at(&point, time) {
                Ok(()) => break,
                Err(error) if error.is_retryable() => std::thread::sleep(PAUSE),
                Err(error) if error.is_invalid_point() => {
                    refuse(line.number(), line.text(), &error.to_string());
                    break;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(())
}
