//! The store on the data set: how fast it takes lines in, how small they become, how fast it answers.

use super::dataset::{DataSet, SERIES, TICKS_PER_DAY};
use super::machine::{
    BATCH_LINES, Batches, Place, ask, cpu_seconds, folder_bytes, peak_bytes, reset_peak, written_bytes,
};
use super::{median, rows};
use crate::cli::Bench;
use crate::failure::Failure;
use crate::output::{answer, answer_json, remark};
use crate::text;
use graylogic_store::{Matcher, Selector, Store, StoreOptions, Sync, TimeRange, Windows, WriteOptions};
use serde_json::{Map, Value, json};
use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Threads that write when each batch is synced: as requests of several senders do.
const WRITERS: usize = 4;

pub(crate) fn run(options: &Bench, json: bool) -> Result<ExitCode, Failure> {
    let ticks = options.days as usize * TICKS_PER_DAY;
    let points = if options.quick { ticks / 10 } else { ticks } * SERIES;
    let place = Place::new(options.dir.as_deref())?;
    remark(format_args!("writing {} lines to {}", text::count(points as u64), place.path.display()));
    let lines = place.path.join("lines");
    generate(&lines, points)?;
    let many = many_series(&place.path)?;
    let mut store = measure_store(&place.path, &lines, points)?;
    store.insert("memory_50000_series_mb".into(), many.into());
    remark("the same as rows of a plain SQLite table, a tenth of them");
    let rows = rows::measure(&place.path, &lines, points / 10)?;
    drop(place);
    if json {
        answer_json(&json!({ "store": store, "sqlite_rows": rows }));
    } else {
        let shown = |v: Option<&Value>| {
            v.map_or_else(|| "-".to_owned(), |v| v.as_f64().map_or_else(|| v.to_string(), text::number))
        };
        let table: Vec<Vec<String>> =
            store.iter().map(|(key, v)| vec![key.clone(), shown(Some(v)), shown(rows.get(key))]).collect();
        answer(text::table(&["figure", "store", "SQLite rows"], &table).trim_end());
    }
    Ok(ExitCode::SUCCESS)
}

/// Most memory in megabytes while 50,000 series are written at full speed, 40 readings each.
fn many_series(folder: &Path) -> Result<f64, Failure> {
    const SERIES: usize = 50_000;
    let place = folder.join("many");
    reset_peak();
    let store = Store::open(&place, StoreOptions::default())?;
    store.create_bucket("bench")?;
    let mut batch = Vec::new();
    for tick in 0..40 {
        for from in (0..SERIES).step_by(BATCH_LINES) {
            batch.clear();
            for i in from..from + BATCH_LINES {
                let value = f64::from(200 + (i as i32 * 7 + tick * 13) % 50) / 10.0;
                let (room, millis) = (i / 10, 1_699_920_000_000 + i64::from(tick) * 10_000);
                writeln!(
                    batch,
                    "environment,device=temp-{i:05},room=r{room:04} temperature_c={value} {millis}000000"
                )
                .map_err(|e| Failure::because("write a line", e))?;
            }
            store.write_lines("bench", &batch, &WriteOptions::now())?;
        }
    }
    let peak = peak_bytes();
    store.close()?;
    let _removed_with_the_others_otherwise = fs::remove_dir_all(&place);
    Ok(peak as f64 / 1e6)
}

/// Gigabytes of 3,000 series for a year: readings for 30 days, their hours for all of it. Whatever is not bytes of
/// readings counts as bytes of hours.
fn year_gb(bytes: f64, chunk_bytes: f64, points: f64) -> f64 {
    const SERIES: f64 = 3000.0;
    let per_day = TICKS_PER_DAY as f64 / points;
    let (all, hours) = (bytes * per_day, (bytes - chunk_bytes) * per_day);
    SERIES * (30.0 * all + 335.0 * hours) / 1e9
}

fn generate(path: &Path, points: usize) -> Result<(), Failure> {
    let failed = |e| Failure::because(format_args!("write {}", path.display()), e);
    let mut out = BufWriter::with_capacity(1 << 20, File::create(path).map_err(failed)?);
    let mut data = DataSet::new();
    let mut body = Vec::new();
    for _ in 0..points / BATCH_LINES {
        body.clear();
        data.lines(BATCH_LINES, &mut body);
        // Batches are framed, so that nothing looks for line ends while the clock runs.
        out.write_all(&(body.len() as u32).to_le_bytes())
            .and_then(|()| out.write_all(&body))
            .map_err(failed)?;
    }
    out.flush().map_err(failed)
}

fn measure_store(folder: &Path, lines: &Path, points: usize) -> Result<Map<String, Value>, Failure> {
    reset_peak();
    let place = folder.join("store");
    let written_before = written_bytes();
    let ingested = ingest(&place, lines, points, Sync::Every(Duration::from_secs(1)), 1)?;
    let cpu = ingested.cpu_seconds;
    let (seconds, store) = ingested.finish()?;
    store.seal()?;
    let stats = store.stats()?;
    store.close()?;
    drop(store);
    let written = written_bytes() - written_before;
    let files = folder_bytes(&place);
    let mut figures = Map::new();
    let n = points as f64;
    figures.insert("points".into(), json!(points));
    figures.insert("ingest_points_per_s".into(), json!(n / seconds));
    figures.insert("ingest_cpu_us_per_point".into(), json!(cpu * 1e6 / n));
    figures.insert("sealed_bytes_per_point".into(), json!(files as f64 / n));
    figures
        .insert("chunk_bytes_per_point".into(), json!(stats.chunk_bytes as f64 / stats.chunk_values as f64));
    figures.insert("written_bytes_per_point".into(), json!(written as f64 / n));
    let store = Store::open(&place, StoreOptions::default())?;
    questions(&store, &mut figures)?;
    let began = Instant::now();
    store.compact()?;
    figures.insert("compact_points_per_s".into(), json!(n / began.elapsed().as_secs_f64()));
    store.close()?;
    let compacted = folder_bytes(&place) as f64;
    figures.insert("compacted_bytes_per_point".into(), json!(compacted / n));
    let store = Store::open(&place, StoreOptions::default())?;
    let chunk_bytes = store.stats()?.chunk_bytes as f64;
    figures.insert("year_3000_series_gb".into(), json!(year_gb(compacted, chunk_bytes, n)));
    questions_compacted(&store, &mut figures)?;
    // What an end without warning leaves to be read again: a second of the stream on top.
    let mut batches = Batches::open(lines, points.min(1_000_000))?;
    let mut batch = Vec::new();
    while batches.next(&mut batch)? {
        store.write_lines("bench", &batch, &WriteOptions::now())?;
    }
    store.close()?;
    let mut opens = Vec::new();
    for _ in 0..3 {
        let began = Instant::now();
        let store = Store::open(&place, StoreOptions::default())?;
        opens.push(began.elapsed().as_secs_f64() * 1e3);
        store.close()?;
    }
    figures.insert("open_ms".into(), json!(median(opens)));
    figures.insert("memory_peak_mb".into(), json!(peak_bytes() as f64 / 1e6));
    // Last, because it has more writers, whose buffers would count as memory of the store.
    let each = folder.join("each");
    let (each_seconds, _) = ingest(&each, lines, points, Sync::EachWrite, WRITERS)?.finish()?;
    figures.insert("ingest_each_points_per_s".into(), json!(n / each_seconds));
    Ok(figures)
}

/// What an ingest took.
struct Ingested {
    store: Store,
    seconds: f64,
    cpu_seconds: f64,
}

impl Ingested {
    fn finish(self) -> Result<(f64, Store), Failure> {
        Ok((self.seconds, self.store))
    }
}

fn ingest(
    place: &Path,
    lines: &Path,
    points: usize,
    sync: Sync,
    writers: usize,
) -> Result<Ingested, Failure> {
    let store = Store::open(place, StoreOptions::default().sync(sync))?;
    store.create_bucket("bench")?;
    let batches = Mutex::new(Batches::open(lines, points)?);
    let cpu = cpu_seconds();
    let began = Instant::now();
    let write = || -> Result<(), Failure> {
        let mut batch = Vec::new();
        loop {
            let more = {
                let mut batches = batches.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                batches.next(&mut batch)?
            };
            if !more {
                return Ok(());
            }
            let report = store.write_lines("bench", &batch, &WriteOptions::now())?;
            if report.points as usize != BATCH_LINES {
                return Err(Failure::new("the store refused lines of the data set"));
            }
        }
    };
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..writers).map(|_| scope.spawn(write)).collect();
        let mine = write();
        others
            .into_iter()
            .map(|t| t.join().unwrap_or_else(|_| Err(Failure::new("a writer panicked"))))
            .fold(mine, Result::and)
    })?;
    // The clock runs until the last line is safe.
    store.sync()?;
    let seconds = began.elapsed().as_secs_f64();
    Ok(Ingested { store, seconds, cpu_seconds: cpu_seconds() - cpu })
}

fn questions(store: &Store, figures: &mut Map<String, Value>) -> Result<(), Failure> {
    let one = Selector::bucket("bench").measurement("environment").tag("device", Matcher::equal("temp-000"));
    let all = Selector::bucket("bench");
    let hours = Windows::every(Duration::from_secs(3600))?;
    ask(figures, "series_week_ms", || {
        let mut n = 0;
        for block in store.scan(&one, TimeRange::all())? {
            n += block?.times.len();
        }
        Ok(n)
    })?;
    let windows = |selector: &Selector| -> Result<usize, Failure> {
        Ok(store.windows(selector, TimeRange::all(), &hours)?.iter().map(|s| s.windows.len()).sum())
    };
    ask(figures, "hourly_mean_1_ms", || windows(&one))?;
    ask(figures, "hourly_mean_500_sealed_ms", || windows(&all))?;
    ask(figures, "latest_500_ms", || Ok(store.latest(&all)?.len()))
}

/// The same from compacted chunks: by the figures of their hours, and by their readings (hours that begin a second
/// late have no figures).
fn questions_compacted(store: &Store, figures: &mut Map<String, Value>) -> Result<(), Failure> {
    let all = Selector::bucket("bench");
    let hour = Duration::from_secs(3600);
    let windows = |windows: &Windows| -> Result<usize, Failure> {
        Ok(store.windows(&all, TimeRange::all(), windows)?.iter().map(|s| s.windows.len()).sum())
    };
    let hours = Windows::every(hour)?;
    ask(figures, "hourly_mean_500_rollup_ms", || windows(&hours))?;
    let late = Windows::every_offset(hour, Duration::from_secs(1))?;
    ask(figures, "hourly_mean_500_ms", || windows(&late))
}
