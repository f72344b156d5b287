//! `graylogic write`: line protocol from a file or standard input into the store, batch by batch. A server's is `send.rs`, and that of rules
//! which lines go where.

use super::batches::{NAMED_MAX, batches};
use super::remark_damage;
use crate::app;
use crate::cli::Write;
use crate::failure::{Failure, SOME_REFUSED};
use crate::output::{answer, answer_json, remark};
use crate::text;
use graylogic_influxdb::Target;
use graylogic_store::{BadLine, Store, StoreOptions, WriteOptions};
use serde_json::json;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Write as _};
use std::process::ExitCode;

pub(crate) fn run(options: &Write, json: bool) -> Result<ExitCode, Failure> {
    let config = app::config(&options.place)?;
    let input: Box<dyn BufRead> = match options.file.as_deref() {
        Some(path) if path.as_os_str() != "-" => {
            let file =
                File::open(path).map_err(|e| Failure::because(format_args!("read {}", path.display()), e))?;
            Box::new(BufReader::with_capacity(1 << 20, file))
        }
        _ => Box::new(BufReader::with_capacity(1 << 20, io::stdin())),
    };
    let folder = match config.target() {
        // Rules may send lines elsewhere, unless the bucket is given.
        Target::Embedded(folder) if config.routes().is_empty() || options.place.bucket.is_some() => folder,
        _ => return super::send::run(options, &config, input, json),
    };
    let store = Store::open(folder, StoreOptions::default())?;
    remark_damage(&store);
    store.ensure_bucket(config.bucket())?;
    let mut sink = Sink {
        store: &store,
        bucket: config.bucket(),
        options: WriteOptions {
            precision: options.precision.precision(),
            on_bad_line: BadLine::SkipLine,
            ..app::write_options(options.any_time || config.takes_any_time())
        },
        ack: options.ack,
        json,
        lines_before: 0,
        points: 0,
        overwritten: 0,
        quarantined: 0,
        refused: 0,
        named: Vec::new(),
    };
    let outcome = batches(input, options.batch as usize, |batch, lines| sink.take(batch, lines));
    let done = outcome.and_then(|()| store.sync().map_err(Failure::from));
    let (points, overwritten, refused) = (sink.points, sink.overwritten, sink.refused);
    let quarantined = sink.quarantined;
    let named = std::mem::take(&mut sink.named);
    let closed = store.close();
    done?;
    closed?;
    if json {
        answer_json(
            &json!({ "points": points, "overwritten": overwritten, "quarantined": quarantined, "refused": refused, "lines": named }),
        );
    } else {
        if refused > NAMED_MAX as u64 {
            remark(format_args!("... and {} more", refused - NAMED_MAX as u64));
        }
        let (overwritten, quarantined) = (text::overwritten(overwritten), text::quarantined(quarantined));
        answer(format_args!("{points} points stored{overwritten}{quarantined}, {refused} lines refused"));
    }
    Ok(if refused > 0 { ExitCode::from(SOME_REFUSED) } else { ExitCode::SUCCESS })
}

/// Takes batches into the store and keeps count.
struct Sink<'a> {
    store: &'a Store,
    bucket: &'a str,
    options: WriteOptions,
    ack: bool,
    json: bool,
    lines_before: usize,
    points: u64,
    overwritten: u64,
    quarantined: u64,
    refused: u64,
    named: Vec<serde_json::Value>,
}

impl Sink<'_> {
    fn take(&mut self, batch: &[u8], lines: usize) -> Result<(), Failure> {
        let report = self.store.write_lines(self.bucket, batch, &self.options)?;
        self.points += report.points;
        self.overwritten += report.overwritten;
        self.quarantined += report.quarantined;
        self.refused += report.rejected_count;
        for refused in &report.rejected {
            if self.named.len() == NAMED_MAX {
                break;
            }
            let line = self.lines_before + refused.line;
            if !self.json {
                remark(format_args!("line {line}: {refused}"));
            }
            self.named.push(json!({ "line": line, "reason": refused.reason, "text": refused.text }));
        }
        self.lines_before += lines;
        if self.ack {
            self.store.sync()?;
            answer(format_args!("acknowledged {} lines", self.lines_before));
            io::stdout().flush().map_err(|e| Failure::because("say what is acknowledged", e))?;
        }
        Ok(())
    }
}
