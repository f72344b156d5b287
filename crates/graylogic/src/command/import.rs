//! `graylogic import`: files of line protocol or CSV into the store. Repeating it changes nothing; an import that was
//! interrupted goes on behind the last batch that was safe.

use crate::app;
use crate::cli::{Format, Import};
use crate::command::batches::{Cutter, Records, Sink, hand_on};
use crate::command::rejections::{Rejections, Units, last_line, skipped};
use crate::command::rows::Rows;
use crate::failure::{Failure, SOME_REFUSED};
use crate::input::Input;
use crate::output::{answer, answer_json};
use crate::text;
use graylogic_influxdb::Target;
use graylogic_line::Precision;
use graylogic_store::{Store, StoreOptions, WriteOptions};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Lines stored together.
const BATCH_LINES: usize = 5000;
/// How far an import came is noted this often, after a sync.
const NOTE_EVERY: Duration = Duration::from_secs(1);

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
    let config = app::acting_config(&options.place, "import")?;
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
    let mut quarantined = 0;
    for file in &options.files {
        let done = one(options, &store, folder, config.bucket(), any_time, file, json)?;
        points += done.points;
        refused += done.refused;
        quarantined += done.quarantined;
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
                "{name}: {} points stored{}{}, {} lines rejected{before}",
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
            &json!({ "files": files, "points": points, "quarantined": quarantined, "refused": refused, "seconds": seconds, "points_per_s": rate }),
        );
    } else {
        super::remark_quarantined(quarantined);
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
    let input = Input::read(bar.wrap_read(file))?;
    let is_csv = format_of(options, path) == Format::Csv;
    // Times in CSV are converted when read.
    let given = options.precision.precision();
    let precision = if is_csv { Precision::Nanoseconds } else { given };
    let mut sink = Imported {
        store,
        bucket,
        options: WriteOptions { precision, ..app::write_options(any_time) },
        rows: is_csv.then(|| Rows::new(options, path)).transpose()?,
        skip: note.lines(),
        note: &note,
        noted: Instant::now(),
        lines: 0,
        points: 0,
        overwritten: 0,
        quarantined: 0,
        skipped: 0,
        rejections: Rejections::new(json),
        units: Units::new(given),
    };
    let records = if is_csv { Records::csv() } else { Records::lines() };
    hand_on(&input, Cutter::new(records, BATCH_LINES), None, &mut sink)
        .map_err(|e| Failure::because(format_args!("import {}", path.display()), e))?;
    if let Some(rows) = &sink.rows {
        rows.finish()?;
    }
    store.sync()?;
    note.remove();
    bar.finish_and_clear();
    sink.rejections.finish();
    Ok(Done {
        points: sink.points,
        overwritten: sink.overwritten,
        quarantined: sink.quarantined,
        refused: sink.rejections.count,
        skipped: sink.skipped,
    })
}

/// Takes batches of lines into the store, but for those that were done before.
struct Imported<'a> {
    store: &'a Store,
    bucket: &'a str,
    options: WriteOptions,
    /// Reads CSV.
    rows: Option<Rows<'a>>,
    skip: usize,
    note: &'a Note,
    noted: Instant,
    lines: usize,
    points: u64,
    overwritten: u64,
    quarantined: u64,
    skipped: usize,
    rejections: Rejections,
    units: Units,
}

impl Sink for Imported<'_> {
    fn take(&mut self, batch: &[u8], lines: usize) -> Result<(), Failure> {
        let before = self.lines;
        self.lines += lines;
        let was_done = self.lines <= self.skip;
        // The first batch has the names of the columns, whether it was done before or not.
        let read = match &mut self.rows {
            Some(rows) => Some(rows.read(batch, before, was_done, &mut self.rejections)?),
            None => None,
        };
        if was_done {
            self.skipped = self.lines;
            return Ok(());
        }
        match read {
            Some(read) => {
                self.store(&read.lines, |line| read.rows.get(line - 1).copied().unwrap_or(line))?;
            }
            None => {
                if self.store(batch, |line| before + line)? > 0 {
                    self.units.look(last_line(batch));
                }
            }
        }
        if self.noted.elapsed() >= NOTE_EVERY {
            self.store.sync()?;
            self.note.write(self.lines);
            self.noted = Instant::now();
        }
        Ok(())
    }

    fn skip(&mut self, beginning: &[u8], bytes: u64) -> Result<(), Failure> {
        self.lines += 1;
        if let Some(rows) = &self.rows {
            rows.skip(bytes)?;
        }
        if self.lines > self.skip {
            skipped(&mut self.rejections, self.lines, beginning, bytes);
        }
        Ok(())
    }
}

impl Imported<'_> {
    /// Stores lines and returns how many were taken; `line_of` says which line of the file each of them is.
    fn store(&mut self, body: &[u8], line_of: impl Fn(usize) -> usize) -> Result<u64, Failure> {
        let report = self.store.write_lines(self.bucket, body, &self.options)?;
        self.points += report.points;
        self.overwritten += report.overwritten;
        self.quarantined += report.quarantined;
        self.rejections.add_stored(&report, &self.units, line_of);
        Ok(report.points + report.overwritten + report.quarantined)
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
