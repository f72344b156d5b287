//! `graylogic import`: files of line protocol or CSV into the store. Repeating it changes nothing; an import that was
//! interrupted goes on behind the last batch that was safe.

use crate::app;
use crate::cli::{Format, Import};
use crate::command::batches::batches;
use crate::failure::{Failure, SOME_REFUSED};
use crate::output::{answer, answer_json, remark};
use crate::text;
use flate2::read::MultiGzDecoder;
use graylogic_influxdb::Target;
use graylogic_line::{Dialect, Encoder, FieldValue, Point, Precision, Timestamp};
use graylogic_store::{Store, StoreOptions, WriteOptions};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Lines stored together.
const BATCH_LINES: usize = 5000;
/// How far an import came is noted this often, after a sync.
const NOTE_EVERY: Duration = Duration::from_secs(1);
/// So many refused lines are named for each file.
const NAMED_MAX: u64 = 20;

/// What became of a file.
#[derive(Default)]
struct Done {
    points: u64,
    overwritten: u64,
    quarantined: u64,
    refused: u64,
    skipped: usize,
}

pub(crate) fn run(options: &Import, json: bool) -> Result<ExitCode, Failure> {
    let config = app::config(&options.place)?;
    let Target::Embedded(folder) = config.target() else {
        return Err(Failure::new("import stores into the embedded store only; name its folder with --data"));
    };
    for file in &options.files {
        if format_of(options, file) == Format::Csv && options.measurement.is_none() {
            return Err(Failure::new(format!(
                "import {}: name the measurement of its readings with --measurement",
                file.display()
            )));
        }
    }
    let store = Store::open(folder, StoreOptions::default())?;
    super::remark_damage(&store);
    store.ensure_bucket(config.bucket())?;
    let any_time = options.any_time || config.takes_any_time();
    let began = Instant::now();
    let mut files = Vec::new();
    let mut refused = 0;
    let mut points = 0;
    for file in &options.files {
        let done = one(options, &store, folder, config.bucket(), any_time, file, json)?;
        points += done.points;
        refused += done.refused;
        files.push(json!({
            "file": file.display().to_string(),
            "points": done.points,
            "overwritten": done.overwritten,
            "quarantined": done.quarantined,
            "refused": done.refused,
            "lines_done_before": done.skipped,
        }));
        if !json {
            let before = if done.skipped > 0 {
                format!(", {} lines were done before", text::count(done.skipped as u64))
            } else {
                String::new()
            };
            let name = file.display();
            answer(format_args!(
                "{name}: {} points stored{}{}, {} lines refused{before}",
                text::count(done.points),
                text::overwritten(done.overwritten),
                text::quarantined(done.quarantined),
                done.refused
            ));
        }
    }
    store.seal()?;
    store.close()?;
    let seconds = began.elapsed().as_secs_f64();
    let rate = points as f64 / seconds.max(1e-9);
    if json {
        answer_json(
            &json!({ "files": files, "points": points, "refused": refused, "seconds": seconds, "points_per_s": rate }),
        );
    } else {
        answer(format_args!(
            "{} points in {seconds:.2} s, {} a second",
            text::count(points),
            text::count(rate as u64)
        ));
    }
    Ok(if refused > 0 { ExitCode::from(SOME_REFUSED) } else { ExitCode::SUCCESS })
}

fn format_of(options: &Import, file: &Path) -> Format {
    options.format.unwrap_or_else(|| {
        let name = file.file_name().map(|n| n.to_string_lossy().to_lowercase()).unwrap_or_default();
        if name.trim_end_matches(".gz").ends_with(".csv") { Format::Csv } else { Format::Lp }
    })
}

/// Imports a file.
fn one(
    options: &Import,
    store: &Store,
    folder: &Path,
    bucket: &str,
    any_time: bool,
    path: &Path,
    json: bool,
) -> Result<Done, Failure> {
    let opening = |e| Failure::because(format_args!("read {}", path.display()), e);
    let file = File::open(path).map_err(opening)?;
    let bytes = file.metadata().map_err(opening)?.len();
    let note = Note::of(folder, bucket, path, bytes).map_err(opening)?;
    let bar = if json { ProgressBar::hidden() } else { ProgressBar::new(bytes) };
    let style = ProgressStyle::with_template("{msg} {bar:32} {bytes}/{total_bytes} {eta}");
    bar.set_style(style.map_err(|e| Failure::because("draw the progress bar", e))?);
    bar.set_message(path.display().to_string());
    let mut raw = BufReader::with_capacity(1 << 20, bar.wrap_read(file));
    let zipped = raw.fill_buf().map_err(opening)?.starts_with(&[0x1f, 0x8b]);
    let plain: Box<dyn Read> = if zipped { Box::new(MultiGzDecoder::new(raw)) } else { Box::new(raw) };
    let input = BufReader::with_capacity(1 << 20, plain);
    let mut sink = Sink {
        store,
        bucket,
        options: WriteOptions { precision: options.precision.precision(), ..app::write_options(any_time) },
        skip: note.lines(),
        note: &note,
        noted: Instant::now(),
        lines: 0,
        done: Done::default(),
        json,
    };
    match format_of(options, path) {
        Format::Lp => batches(input, BATCH_LINES, |batch, lines| sink.take(batch, lines))?,
        Format::Csv => {
            // Times in CSV are converted when read.
            sink.options.precision = Precision::Nanoseconds;
            from_csv(options, path, input, &mut sink)?;
        }
    }
    store.sync()?;
    note.remove();
    bar.finish_and_clear();
    Ok(sink.done)
}

/// Takes batches of lines into the store, but for those that were done before.
struct Sink<'a> {
    store: &'a Store,
    bucket: &'a str,
    options: WriteOptions,
    skip: usize,
    note: &'a Note,
    noted: Instant,
    lines: usize,
    done: Done,
    json: bool,
}

impl Sink<'_> {
    fn take(&mut self, batch: &[u8], lines: usize) -> Result<(), Failure> {
        let before = self.lines;
        self.lines += lines;
        if self.lines <= self.skip {
            self.done.skipped = self.lines;
            return Ok(());
        }
        let report = self.store.write_lines(self.bucket, batch, &self.options)?;
        self.done.points += report.points;
        self.done.overwritten += report.overwritten;
        self.done.quarantined += report.quarantined;
        for refused in &report.rejected {
            if self.done.refused < NAMED_MAX && !self.json {
                remark(format_args!("line {}: {refused}", before + refused.line));
            }
            self.done.refused += 1;
        }
        self.done.refused += report.rejected_count - report.rejected.len() as u64;
        if self.noted.elapsed() >= NOTE_EVERY {
            self.store.sync()?;
            self.note.write(self.lines);
            self.noted = Instant::now();
        }
        Ok(())
    }
}

/// How far the import of a file came, in a small file beside the store.
struct Note {
    path: PathBuf,
}

impl Note {
    fn of(folder: &Path, bucket: &str, file: &Path, bytes: u64) -> std::io::Result<Self> {
        let folder = folder.join("imports");
        fs::create_dir_all(&folder)?;
        // A file is known by its place and length: one that has grown is another.
        let identity = format!("{bucket}\n{}\n{bytes}", file.canonicalize()?.display());
        let mark = identity
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
        Ok(Self { path: folder.join(format!("{mark:016x}.lines")) })
    }

    fn lines(&self) -> usize {
        fs::read_to_string(&self.path).ok().and_then(|t| t.trim().parse().ok()).unwrap_or(0)
    }

    /// Best effort: without it the import begins anew, which changes nothing but the time it takes.
    fn write(&self, lines: usize) {
        let _repeated_at_worst = fs::write(&self.path, lines.to_string());
    }

    fn remove(&self) {
        let _repeated_at_worst = fs::remove_file(&self.path);
    }
}

/// Rows of CSV become lines of line protocol.
fn from_csv(options: &Import, path: &Path, input: impl Read, sink: &mut Sink<'_>) -> Result<(), Failure> {
    let failed = |why: String| Failure::because(format_args!("import {}", path.display()), why);
    let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(input);
    let head = reader.headers().map_err(|e| failed(e.to_string()))?.clone();
    let place = |name: &str| {
        let known: Vec<&str> = head.iter().collect();
        head.iter()
            .position(|h| h == name)
            .ok_or_else(|| failed(format!("there is no column {name:?}; there are {}", known.join(", "))))
    };
    let time = place(&options.time)?;
    let tag_columns: Vec<usize> = options.tags.iter().map(|t| place(t)).collect::<Result<_, _>>()?;
    let mut fixed = Vec::new();
    for tag in &options.tag {
        let (key, value) =
            tag.split_once('=').ok_or_else(|| Failure::new(format!("--tag {tag:?}: write KEY=VALUE")))?;
        fixed.push((key, value));
    }
    let encoder = Encoder::new(Dialect::V2);
    let unit = options.precision.precision().nanos();
    let (mut body, mut lines) = (Vec::new(), 0);
    let mut row = csv::StringRecord::new();
    let mut number = 1u64;
    while reader.read_record(&mut row).map_err(|e| failed(e.to_string()))? {
        number += 1;
        let mut point = Point::new(options.measurement.as_deref().unwrap_or_default());
        for (key, value) in &fixed {
            point = point.tag(*key, *value);
        }
        let mut fields = 0;
        for (i, cell) in row.iter().enumerate() {
            let Some(name) = head.get(i).filter(|_| i != time && !cell.is_empty()) else { continue };
            if tag_columns.contains(&i) {
                point = point.tag(name, cell);
            } else {
                fields += 1;
                point = point.field(name, field_value(cell));
            }
        }
        let written = match csv_time(row.get(time).unwrap_or_default(), unit) {
            _ if fields == 0 => continue,
            Ok(at) => encoder.encode(&point.timestamp(at), &mut body).map_err(|e| e.to_string()),
            Err(why) => Err(why),
        };
        lines += 1;
        if let Err(why) = written {
            // Counted as a line, so that an interrupted import finds its place again.
            body.push(b'\n');
            if sink.done.refused < NAMED_MAX && !sink.json && sink.lines + lines > sink.skip {
                remark(format_args!("row {number}: {why}"));
            }
            sink.done.refused += 1;
        }
        if lines == BATCH_LINES {
            sink.take(&body, lines)?;
            body.clear();
            lines = 0;
        }
    }
    if lines > 0 { sink.take(&body, lines) } else { Ok(()) }
}

fn field_value(cell: &str) -> FieldValue {
    match cell {
        "true" | "True" | "TRUE" => FieldValue::Boolean(true),
        "false" | "False" | "FALSE" => FieldValue::Boolean(false),
        text => match text.parse::<f64>() {
            Ok(v) if v.is_finite() => FieldValue::Float(v),
            _ => FieldValue::String(text.to_owned()),
        },
    }
}

fn csv_time(text: &str, unit: i64) -> Result<Timestamp, String> {
    let wrong = || format!("time {text:?} is neither RFC 3339 nor a number in --precision");
    if let Ok(n) = text.parse::<i64>() {
        return n.checked_mul(unit).map(Timestamp::from_nanos).ok_or_else(wrong);
    }
    let at: jiff::Timestamp = text.parse().map_err(|_| wrong())?;
    i64::try_from(at.as_nanosecond()).map(Timestamp::from_nanos).map_err(|_| wrong())
}
