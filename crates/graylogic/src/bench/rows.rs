//! The way most programs do it: one row a reading in a plain SQLite table, a transaction a batch.

use super::machine::{Batches, cpu_seconds, folder_bytes, peak_bytes, reset_peak, written_bytes};
use super::median;
use crate::failure::Failure;
use graylogic_line::{FieldRef, ParseOptions, Parser, Precision, Timestamp};
use rusqlite::{Connection, params};
use serde_json::{Map, Value, json};
use std::collections::HashMap;
use std::path::Path;
use std::time::Instant;

pub(crate) fn measure(folder: &Path, lines: &Path, points: usize) -> Result<Map<String, Value>, Failure> {
    let place = folder.join("rows");
    std::fs::create_dir_all(&place).map_err(|e| Failure::because("make a folder", e))?;
    let failed = |e: rusqlite::Error| Failure::because("measure SQLite rows", e);
    let mut db = Connection::open(place.join("rows.sqlite")).map_err(failed)?;
    db.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
         CREATE TABLE reading (series INTEGER, time INTEGER, value REAL, PRIMARY KEY (series, time)) WITHOUT ROWID;",
    )
    .map_err(failed)?;
    reset_peak();
    let written = written_bytes();
    let mut batches = Batches::open(lines, points)?;
    let mut batch = Vec::new();
    let mut series: HashMap<Vec<u8>, i64> = HashMap::new();
    let options = ParseOptions::new(Precision::Nanoseconds, Timestamp::from_nanos(0));
    let (cpu, began) = (cpu_seconds(), Instant::now());
    while batches.next(&mut batch)? {
        let transaction = db.transaction().map_err(failed)?;
        {
            let insert = "INSERT OR REPLACE INTO reading (series, time, value) VALUES (?1, ?2, ?3)";
            let mut insert = transaction.prepare_cached(insert).map_err(failed)?;
            let mut parser = Parser::new(&batch, options);
            while let Some(Ok(line)) = parser.next_line_known(|_| true) {
                let next = series.len() as i64;
                let id = match series.get(line.raw_key()) {
                    Some(id) => *id,
                    None => *series.entry(line.raw_key().to_vec()).or_insert(next),
                };
                if let FieldRef::Float(v) = line.fields()[0].value {
                    insert.execute(params![id, line.timestamp().as_nanos(), v]).map_err(failed)?;
                }
            }
        }
        transaction.commit().map_err(failed)?;
    }
    let (seconds, cpu) = (began.elapsed().as_secs_f64(), cpu_seconds() - cpu);
    db.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").map_err(failed)?;
    let written = written_bytes() - written;
    let n = points as f64;
    let mut figures = Map::new();
    figures.insert("points".into(), json!(points));
    figures.insert("ingest_each_points_per_s".into(), json!(n / seconds));
    figures.insert("ingest_cpu_us_per_point".into(), json!(cpu * 1e6 / n));
    figures.insert("sealed_bytes_per_point".into(), json!(folder_bytes(&place) as f64 / n));
    figures.insert("written_bytes_per_point".into(), json!(written as f64 / n));
    let ask = |sql: &str| -> Result<f64, Failure> {
        let mut times = Vec::new();
        for _ in 0..5 {
            let began = Instant::now();
            let mut statement = db.prepare_cached(sql).map_err(failed)?;
            let mut rows = statement.query([]).map_err(failed)?;
            while rows.next().map_err(failed)?.is_some() {}
            times.push(began.elapsed().as_secs_f64() * 1e3);
        }
        Ok(median(times))
    };
    let hour = "time / 3600000000000";
    let questions = [
        ("series_week_ms", "SELECT time, value FROM reading WHERE series = 0".to_owned()),
        (
            "hourly_mean_1_ms",
            format!("SELECT {hour}, avg(value) FROM reading WHERE series = 0 GROUP BY {hour}"),
        ),
        (
            "hourly_mean_500_ms",
            format!("SELECT series, {hour}, avg(value) FROM reading GROUP BY series, {hour}"),
        ),
        ("latest_500_ms", "SELECT series, max(time), value FROM reading GROUP BY series".to_owned()),
    ];
    for (name, sql) in questions {
        figures.insert(name.into(), json!(ask(&sql)?));
    }
    figures.insert("memory_peak_mb".into(), json!(peak_bytes() as f64 / 1e6));
    Ok(figures)
}
