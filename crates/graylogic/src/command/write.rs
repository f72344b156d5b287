//! `graylogic write`: line protocol from a file or standard input into the store, batch by batch. A server's is `send.rs`, and that of rules
//! which lines go where.

use super::batches::{Cutter, Ended, Records, Sink, hand_on};
use super::rejections::{Rejections, Units, last_line, skipped};
use super::{remark_damage, remark_quarantined};
use crate::app;
use crate::cli::Write;
use crate::failure::{Failure, SOME_REFUSED};
use crate::input::Input;
use crate::output::{answer, answer_json, remark};
use crate::text;
use graylogic_influxdb::{Config, Target};
use graylogic_store::{BadLine, Store, StoreOptions, WriteOptions};
use serde_json::json;
use std::io::{self, Write as _};
use std::process::ExitCode;
use std::time::Duration;

/// Lines for the store wait for others no longer than this, nor than `flush_interval`.
const HAND_ON_MAX: Duration = Duration::from_secs(1);

pub(crate) fn run(options: &Write, json: bool) -> Result<ExitCode, Failure> {
    let config = app::acting_config(&options.place, "write")?;
    let input = Input::open(options.file.as_deref())?;
    input.stop_on_signals()?;
    match config.target() {
        // Rules may send lines elsewhere, unless the bucket is given.
        Target::Embedded(_) if config.routes().is_empty() || options.place.bucket.is_some() => {
            store(options, &config, &input, json)
        }
        _ => super::send::run(options, &config, &input, json),
    }
}

/// How lines of a write are cut, and how long they wait for others at most.
pub(super) fn cutting(options: &Write, config: &Config) -> (Cutter, Option<Duration>) {
    let every = config.flush_interval().min(HAND_ON_MAX);
    (Cutter::new(Records::lines(), options.batch as usize), Some(every))
}

fn store(options: &Write, config: &Config, input: &Input, json: bool) -> Result<ExitCode, Failure> {
    let Target::Embedded(folder) = config.target() else {
        return Err(Failure::new("write: the target is not the embedded store"));
    };
    let store = Store::open(folder, StoreOptions::default())?;
    remark_damage(&store);
    store.ensure_bucket(config.bucket())?;
    let mut sink = Stored {
        store: &store,
        bucket: config.bucket(),
        options: WriteOptions {
            precision: options.precision.precision(),
            on_bad_line: BadLine::SkipLine,
            ..app::write_options(options.any_time || config.takes_any_time())
        },
        ack: options.ack,
        lines_before: 0,
        points: 0,
        overwritten: 0,
        quarantined: 0,
        rejections: Rejections::new(json),
        units: Units::new(options.precision.precision()),
    };
    let (cutter, every) = cutting(options, config);
    let outcome = hand_on(input, cutter, every, &mut sink);
    let (points, overwritten, quarantined) = (sink.points, sink.overwritten, sink.quarantined);
    let rejections = sink.rejections;
    // What was stored before a failure stays stored.
    let synced = store.sync();
    let closed = store.close();
    let ended = outcome.and_then(|ended| {
        synced?;
        closed?;
        Ok(ended)
    });
    let ended = ended.inspect_err(|_| {
        remark(format_args!(
            "{points} points stored{}, {} rejected before this failed",
            text::quarantined(quarantined),
            text::lines(rejections.count)
        ));
    })?;
    if json {
        answer_json(&json!({
            "points": points,
            "overwritten": overwritten,
            "quarantined": quarantined,
            "refused": rejections.count,
            "lines": rejections.named,
        }));
    } else {
        rejections.finish();
        remark_quarantined(quarantined);
        let (overwritten, quarantined) = (text::overwritten(overwritten), text::quarantined(quarantined));
        answer(format_args!(
            "{points} points stored{overwritten}{quarantined}, {} lines rejected",
            rejections.count
        ));
    }
    Ok(exit_code(&ended, if rejections.count > 0 { SOME_REFUSED } else { 0 }))
}

/// The exit code of a write: a signal that ended the input comes first.
pub(super) fn exit_code(ended: &Ended, otherwise: u8) -> ExitCode {
    let Ended::Stopped(signal, incomplete) = ended else { return ExitCode::from(otherwise) };
    let left_out = match incomplete {
        0 => String::new(),
        bytes => format!(" The last line was incomplete ({bytes} bytes) and was left out."),
    };
    remark(format_args!("stopped by signal {signal}: all lines read until then were handed on.{left_out}"));
    ExitCode::from(u8::try_from(128 + signal).unwrap_or(u8::MAX))
}

/// Takes batches into the store and keeps count.
struct Stored<'a> {
    store: &'a Store,
    bucket: &'a str,
    options: WriteOptions,
    ack: bool,
    lines_before: usize,
    points: u64,
    overwritten: u64,
    quarantined: u64,
    rejections: Rejections,
    units: Units,
}

impl Sink for Stored<'_> {
    fn take(&mut self, batch: &[u8], lines: usize) -> Result<(), Failure> {
        let report = self.store.write_lines(self.bucket, batch, &self.options)?;
        let taken = report.points + report.overwritten + report.quarantined;
        if taken > 0 {
            self.units.look(last_line(batch));
        }
        self.points += report.points;
        self.overwritten += report.overwritten;
        self.quarantined += report.quarantined;
        self.rejections.add_stored(&report, &self.units, |line| self.lines_before + line);
        self.lines_before += lines;
        if self.ack {
            self.store.sync()?;
            acknowledge(self.points + self.overwritten + self.quarantined, self.rejections.count)?;
        }
        Ok(())
    }

    fn skip(&mut self, beginning: &[u8], bytes: u64) -> Result<(), Failure> {
        self.lines_before += 1;
        skipped(&mut self.rejections, self.lines_before, beginning, bytes);
        Ok(())
    }
}

/// Says how many lines are safe, so that it can be counted on at once.
pub(super) fn acknowledge(lines: u64, rejected: u64) -> Result<(), Failure> {
    match rejected {
        0 => answer(format_args!("acknowledged {lines} lines")),
        rejected => answer(format_args!("acknowledged {lines} lines, {rejected} rejected")),
    }
    io::stdout().flush().map_err(|e| Failure::because("say what is acknowledged", e))
}
