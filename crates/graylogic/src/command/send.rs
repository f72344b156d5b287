//! `graylogic write` for a server: line protocol goes through the spool, and what the server does not take in time is
//! pending there for the next call.

use super::batches::{Sink, hand_on};
use super::rejections::{Rejections, Units, last_line, shown, skipped};
use super::remark_quarantined;
use super::write::{acknowledge, cutting, exit_code};
use crate::app::CLOSE_DEADLINE;
use crate::cli::Write;
use crate::failure::{Failure, NOT_DELIVERED, SOME_REFUSED};
use crate::input::{Input, is_stopped};
use crate::output::{answer, answer_json, remark};
use crate::text;
use graylogic_influxdb::{Client, CloseReport, Config, Health, Level, WriteErrorKind};
use graylogic_line::{Line, ParseOptions, Parser, Precision, Timestamp};
use serde_json::json;
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A spool that takes no line is asked again after this time.
const PAUSE: Duration = Duration::from_millis(20);
/// A sync of the spool takes no longer.
const SYNC_DEADLINE: Duration = Duration::from_secs(60);

pub(crate) fn run(options: &Write, config: &Config, input: &Input, json: bool) -> Result<ExitCode, Failure> {
    let (cutter, every) = cutting(options, config);
    let any_time = options.any_time || config.takes_any_time();
    // What earlier calls left for other buckets goes at once as well, however little it is.
    let config =
        &config.clone().with_batches(config.batch_size(), Duration::from_secs(1)).with_any_time(any_time);
    let client = Client::connect(config)?;
    let recovered = client.stats().recovered;
    if recovered > 0 {
        remark(format_args!(
            "{} of earlier calls pending for the server: they go with these",
            text::lines(recovered)
        ));
    }
    let rejections = Arc::new(Mutex::new(Rejections::new(json)));
    let quarantined = Arc::new(AtomicU64::new(0));
    listen(&client, &rejections, &quarantined);
    // What rules say has no effect on a bucket that is given.
    let writer = match &options.place.bucket {
        Some(bucket) => client.bucket(bucket)?,
        None => client.clone(),
    };
    let mut sink = Sent {
        client: &writer,
        precision: options.precision.precision(),
        ack: options.ack,
        lines_before: 0,
        accepted: 0,
        not_taken: 0,
        last: Timestamp::from_nanos(0),
        rejections: &rejections,
        stopped: input.stopped(),
        units: Units::new(options.precision.precision()),
    };
    let ended = hand_on(input, cutter, every, &mut sink);
    let not_taken = sink.not_taken;
    deliver(&client, config, &input.stopped());
    let report = client.close(Duration::ZERO)?;
    let rejections = lock(&rejections);
    tell(config, &report, &rejections, quarantined.load(Ordering::Relaxed), not_taken, json);
    let otherwise = if rejections.count + report.dropped + not_taken > 0 {
        SOME_REFUSED
    } else if report.spooled > 0 {
        NOT_DELIVERED
    } else {
        0
    };
    Ok(exit_code(&ended?, otherwise))
}

fn lock(rejections: &Mutex<Rejections>) -> MutexGuard<'_, Rejections> {
    rejections.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Counts what the server rejects and what an embedded store quarantines, and reports all else that happens.
fn listen(client: &Client, rejections: &Arc<Mutex<Rejections>>, quarantined: &Arc<AtomicU64>) {
    let (heard, quarantined) = (rejections.clone(), quarantined.clone());
    client.set_on_error(move |news| {
        match news.kind {
            WriteErrorKind::Rejected => {}
            WriteErrorKind::Quarantined => {
                quarantined.fetch_add(news.lines, Ordering::Relaxed);
                return;
            }
            _ => return remark(news),
        }
        let mut rejections = lock(&heard);
        for line in &news.first {
            let says = format!("'{}': {}", line.text, line.reason);
            rejections.add(None, &line.text, &line.reason, &says);
        }
        rejections.add_unnamed(news.lines - news.first.len() as u64);
    });
}

/// Waits for delivery as long as the server takes any lines, however many there are, and until a signal.
fn deliver(client: &Client, config: &Config, stopped: &AtomicBool) {
    // A spool keeps what VictoriaMetrics may still lose for the next call; without one this call must wait until it cannot.
    let (level, deadline) = match config.spool_folder() {
        Some(_) => (Level::Acknowledged, CLOSE_DEADLINE),
        None => (Level::Delivered, CLOSE_DEADLINE + 2 * config.settle_time()),
    };
    let pending_now = || {
        let stats = client.stats();
        stats.waiting.saturating_sub(stats.settling)
    };
    let mut pending = pending_now();
    while client.flush(level, deadline).is_err() {
        let left = pending_now();
        if left >= pending || is_stopped(stopped) {
            break;
        }
        pending = left;
    }
    wait_for_earlier(client, stopped);
}

/// Waits for what earlier calls left, which no flush is about, where the server takes it and as long as it takes any.
fn wait_for_earlier(client: &Client, stopped: &AtomicBool) {
    let pending = || -> u64 {
        let lanes = client.buckets();
        lanes
            .iter()
            .filter(|(_, lane)| lane.health == Health::Ok)
            .map(|(_, lane)| lane.waiting.saturating_sub(lane.settling))
            .sum()
    };
    let (mut left, mut since) = (pending(), Instant::now());
    while left > 0 && since.elapsed() < CLOSE_DEADLINE && !is_stopped(stopped) {
        std::thread::sleep(PAUSE);
        let now = pending();
        if now != left {
            (left, since) = (now, Instant::now());
        }
    }
}

/// The summary.
fn tell(
    config: &Config,
    report: &CloseReport,
    rejections: &Rejections,
    quarantined: u64,
    not_taken: u64,
    json: bool,
) {
    let delivered = report.delivered + report.settling;
    if json {
        return answer_json(&json!({
            "delivered": delivered,
            "quarantined": quarantined,
            "settling": report.settling,
            "waiting": report.spooled,
            "dropped": report.dropped + not_taken,
            "refused": rejections.count,
            "lines": rejections.named,
        }));
    }
    rejections.finish();
    remark_quarantined(quarantined);
    let of_them = match quarantined {
        0 => String::new(),
        n => format!(", {} of them quarantined", text::count(n)),
    };
    answer(format_args!("{} delivered{of_them}, {} rejected", text::lines(delivered), rejections.count));
    if report.settling > 0 {
        answer(format_args!(
            "{} of them stay in the spool until VictoriaMetrics has them on its disk: the next write looks whether it was \
             restarted, and sends them again if so",
            report.settling
        ));
    }
    if report.spooled > 0 {
        let folder = config.spool_folder().unwrap_or(Path::new("."));
        let others = if config.further_targets().is_empty() { "" } else { " and those of further targets" };
        answer(format_args!(
            "{} not delivered yet: pending in the spool {}{others}, and sent by the next write",
            text::lines(report.spooled),
            folder.display()
        ));
    }
    if report.dropped > 0 {
        answer(format_args!("{} dropped: there is no spool, or it was full", text::lines(report.dropped)));
    }
    if not_taken > 0 {
        answer(format_args!(
            "{} dropped: the spool had no room for them before the signal",
            text::lines(not_taken)
        ));
    }
}

/// Gives lines to the client, which may have to wait for room in the spool.
struct Sent<'a> {
    client: &'a Client,
    precision: Precision,
    ack: bool,
    lines_before: usize,
    accepted: u64,
    /// Lines for which there was no room when a signal came.
    not_taken: u64,
    last: Timestamp,
    rejections: &'a Mutex<Rejections>,
    stopped: Arc<AtomicBool>,
    units: Units,
}

impl Sink for Sent<'_> {
    fn take(&mut self, batch: &[u8], lines: usize) -> Result<(), Failure> {
        let now = Timestamp::now();
        let mut parser = Parser::new(batch, ParseOptions::new(self.precision, now)).resuming();
        let accepted_before = self.accepted;
        while let Some(next) = parser.next_line() {
            match next {
                Ok(line) => self.give(&line, now)?,
                Err(error) => self.reject(error.line(), error.text(), &error.reason().to_string()),
            }
        }
        if self.accepted > accepted_before {
            self.units.look(last_line(batch));
        }
        self.lines_before += lines;
        if self.ack {
            self.client.flush(Level::Durable, SYNC_DEADLINE)?;
            acknowledge(self.accepted, lock(self.rejections).count)?;
        }
        Ok(())
    }

    fn skip(&mut self, beginning: &[u8], bytes: u64) -> Result<(), Failure> {
        self.lines_before += 1;
        skipped(&mut lock(self.rejections), self.lines_before, beginning, bytes);
        Ok(())
    }
}

impl Sent<'_> {
    fn give(&mut self, line: &Line<'_, '_>, now: Timestamp) -> Result<(), Failure> {
        let time = self.time_of(line, now);
        loop {
            match self.client.write_line(line, time) {
                Ok(()) => {
                    self.accepted += 1;
                    return Ok(());
                }
                Err(error) if error.is_retryable() && is_stopped(&self.stopped) => {
                    self.not_taken += 1;
                    return Ok(());
                }
                Err(error) if error.is_retryable() => std::thread::sleep(PAUSE),
                Err(error) if error.is_invalid_point() => {
                    self.reject(line.number(), line.text(), &error.to_string());
                    return Ok(());
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The time of a line. Lines without one get one each: two readings of a series never fall together.
    fn time_of(&mut self, line: &Line<'_, '_>, now: Timestamp) -> Timestamp {
        if line.has_timestamp() {
            return line.timestamp();
        }
        self.last = Timestamp::from_nanos(now.as_nanos().max(self.last.as_nanos().saturating_add(1)));
        self.last
    }

    fn reject(&self, line: usize, text: &[u8], reason: &str) {
        let (reason, text) = (self.units.explain(text, reason), shown(text));
        let says = format!("'{text}': {reason}");
        lock(self.rejections).add(Some(self.lines_before + line), &text, &reason, &says);
    }
}
