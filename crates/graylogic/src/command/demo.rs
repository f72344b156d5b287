//! `graylogic demo`: the shipped recordings go through the client into the embedded store; then a summary made of
//! questions to the store, and the page.

use crate::app::{self, CLOSE_DEADLINE};
use crate::cli::Demo;
use crate::failure::Failure;
use crate::output::{answer, answer_json, json_value};
use crate::recordings::{HOUSE, HOUSE_STEP_SECONDS, HOUSE_ZONE, RECORDINGS, Series};
use crate::text;
use graylogic_domain::{DEVICE_ID, ENERGY, MEASUREMENT, POWER_WATTS};
use graylogic_influxdb::{Client, Config, Level, Target};
use graylogic_line::{FieldRef, Timestamp};
use graylogic_store::{Latest, Matcher, Selector, Store, TimeRange, Windows};
use indicatif::{ProgressBar, ProgressStyle};
use jiff::ToSpan;
use jiff::tz::TimeZone;
use serde_json::json;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Days of the summary.
const DAYS: i64 = 7;

/// What the import did.
struct Imported {
    points: u64,
    already: u64,
    seconds: f64,
}

/// Energy of a local day.
struct Day {
    name: String,
    kwh: f64,
    minutes: u64,
}

pub(crate) fn run(options: &Demo, json: bool) -> Result<ExitCode, Failure> {
    let config = Config::from_yaml("")?
        .with_target(Target::Embedded(options.data.clone()))
        .with_bucket(Config::default().bucket());
    let client = Client::connect(&config)?;
    let imported = import(&client, config.bucket(), json)?;
    let store = embedded(&client)?;
    store.seal()?;
    let days = last_days(store, config.bucket())?;
    let latest = store.latest(&Selector::bucket(config.bucket()))?;
    let stats = store.stats()?;
    let page = format!("http://{}:{}", options.address.bind, options.address.port);
    let serve_hint = format!("graylogic serve --data {}", options.data.display());
    if json {
        answer_json(&json!({
            "folder": options.data.display().to_string(),
            "imported_points": imported.points,
            "already_there": imported.already,
            "seconds": imported.seconds,
            "points_per_s": rate(&imported),
            "values": stats.values,
            "series": stats.series,
            "bytes_on_disk": stats.bytes_on_disk,
            "bytes_per_value": stats.bytes_per_value(),
            "household_kwh_per_day": days.iter().map(|d| json!({ "day": d.name, "kwh": d.kwh, "minutes": d.minutes })).collect::<Vec<_>>(),
            "zone": HOUSE_ZONE,
            "latest": latest.iter().map(|l| json!({
                "device_id": l.series.tag(DEVICE_ID),
                "metric": metric_of(l),
                "time": l.time.to_string(),
                "value": json_value(&l.value),
            })).collect::<Vec<_>>(),
        }));
    } else {
        let what = match (imported.points, imported.already) {
            (0, there) => format!("all {} points are already there", text::count(there)),
            (new, 0) => format!(
                "{} points in {:.2} s, {} a second",
                text::count(new),
                imported.seconds,
                text::count(rate(&imported) as u64)
            ),
            (new, there) => {
                format!("{} points imported, {} were already there", text::count(new), text::count(there))
            }
        };
        answer(format_args!("Imported     {what}"));
        answer(format_args!(
            "Stored       {} values of {} series in {}: {} on disk, {:.2} bytes a value",
            text::count(stats.values),
            stats.series,
            options.data.display(),
            text::bytes(stats.bytes_on_disk),
            stats.bytes_per_value()
        ));
        answer(format_args!("\nEnergy used by the house in Sceaux, local days ({HOUSE_ZONE})"));
        let rows: Vec<Vec<String>> = days
            .iter()
            .map(|d| {
                vec![d.name.clone(), format!("{:.2}", d.kwh), format!("{:.0} %", d.minutes as f64 / 14.4)]
            })
            .collect();
        answer(text::table(&["day", "kWh", "readings"], &rows).trim_end());
        answer("\nLatest readings");
        let zone = TimeZone::system();
        let rows: Vec<Vec<String>> = latest
            .iter()
            .map(|l| {
                let device = l.series.tag(DEVICE_ID).unwrap_or_default().to_owned();
                vec![device, metric_of(l).to_owned(), text::value(&l.value), text::in_zone(l.time, &zone)]
            })
            .collect();
        answer(text::table(&["device", "metric", "value", "time"], &rows).trim_end());
        if options.once {
            answer(format_args!("\nLook at it   {serve_hint}, then {page}"));
        } else {
            answer("\nLook at it   in a browser; Ctrl-C ends");
        }
    }
    if options.once {
        client.close(CLOSE_DEADLINE)?;
    } else {
        app::serve(&client, &options.address, json)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What a device's series is called.
fn metric_of(latest: &Latest) -> &str {
    latest.series.tag(MEASUREMENT).unwrap_or(latest.series.field())
}

fn rate(imported: &Imported) -> f64 {
    if imported.seconds > 0.0 { imported.points as f64 / imported.seconds } else { 0.0 }
}

fn embedded(client: &Client) -> Result<&graylogic_store::Store, Failure> {
    client.store().ok_or_else(|| Failure::new("the demo needs the embedded store"))
}

/// Writes what the store does not have yet, with a bar where somebody looks.
fn import(client: &Client, bucket: &str, json: bool) -> Result<Imported, Failure> {
    let mut imported = Imported { points: 0, already: 0, seconds: 0.0 };
    let mut missing: Vec<(&str, Series)> = Vec::new();
    for recording in &RECORDINGS {
        for series in recording.read()? {
            let there = count(embedded(client)?, bucket, &series)?;
            if there >= series.readings.len() as u64 {
                imported.already += there;
            } else {
                missing.push((recording.title, series));
            }
        }
    }
    let total: usize = missing.iter().map(|(_, s)| s.readings.len()).sum();
    let bar = if json { ProgressBar::hidden() } else { ProgressBar::new(total as u64) };
    let style = ProgressStyle::with_template("{msg:28} {bar:32} {human_pos}/{human_len} points {per_sec}");
    bar.set_style(style.map_err(|e| Failure::because("draw the progress bar", e))?);
    let began = Instant::now();
    for (title, series) in &missing {
        bar.set_message(*title);
        let handle = client.series(series.measurement, &series.tags, &[series.field])?;
        for readings in series.readings.chunks(1000) {
            for &(time, value) in readings {
                // The lane is bounded: when it is full the store is given time.
                while let Err(error) = handle.write(&[FieldRef::Float(value)], Some(time)) {
                    if !error.is_retryable() {
                        return Err(error.into());
                    }
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
            bar.inc(readings.len() as u64);
        }
    }
    if total > 0 {
        client.flush(Level::Durable, Duration::from_secs(60))?;
    }
    imported.seconds = began.elapsed().as_secs_f64();
    imported.points = total as u64;
    bar.finish_and_clear();
    let stats = client.stats();
    if stats.rejected > 0 {
        let why = stats.last_error.unwrap_or_else(|| "a field has another type there".to_owned());
        return Err(Failure::new(format!("{} readings were refused by the store: {why}", stats.rejected)));
    }
    Ok(imported)
}

/// How many readings of a recording's series the store has.
fn count(store: &Store, bucket: &str, series: &Series) -> Result<u64, Failure> {
    let (Some(first), Some(last)) = (series.readings.first(), series.readings.last()) else { return Ok(0) };
    let range = TimeRange::new(first.0, Timestamp::from_nanos(last.0.as_nanos() + 1));
    let all = Selector::bucket(bucket).measurement(series.measurement).field(series.field);
    let selector = series.tags.iter().fold(all, |s, (k, v)| s.tag(*k, Matcher::equal(*v)));
    let found = store.windows(&selector, range, &Windows::whole())?;
    Ok(found.iter().flat_map(|s| &s.windows).map(|w| w.summary.count).sum())
}

/// Energy of the last local days of the house, asked of the store.
fn last_days(store: &Store, bucket: &str) -> Result<Vec<Day>, Failure> {
    let house =
        Selector::bucket(bucket).measurement(ENERGY).field(POWER_WATTS).tag(DEVICE_ID, Matcher::equal(HOUSE));
    let Some(newest) = store.latest(&house)?.first().map(|l| l.time) else { return Ok(Vec::new()) };
    let odd = |e: jiff::Error| Failure::because("cut the recording into local days", e);
    let zone = TimeZone::get(HOUSE_ZONE).map_err(odd)?;
    let newest = jiff::Timestamp::from_nanosecond(i128::from(newest.as_nanos())).map_err(odd)?;
    let today = newest.to_zoned_datetime(zone).start_of_day().map_err(odd)?;
    let mut midnights = Vec::new();
    for i in 0..=DAYS {
        midnights.push(today.checked_add((i - DAYS + 1).days()).map_err(odd)?);
    }
    let instant = |z: &jiff::ZonedDateTime| Timestamp::from_nanos(z.timestamp().as_nanosecond() as i64);
    let days = Windows::bounds(midnights.iter().map(instant))?;
    let range = TimeRange::new(instant(&midnights[0]), instant(&midnights[DAYS as usize]));
    let found = store.windows(&house, range, &days)?;
    let of = |w: &graylogic_store::Window| -> Result<Day, Failure> {
        let name = midnights.iter().find(|m| instant(m) == w.start).map(|m| m.date().to_string());
        // Each reading is the mean over its minute, and what the house uses is positive.
        let watts = w.summary.sum()?.and_then(|sum| sum.as_f64()).unwrap_or(0.0);
        Ok(Day {
            name: name.unwrap_or_default(),
            kwh: watts * HOUSE_STEP_SECONDS / 3.6e6,
            minutes: w.summary.count,
        })
    };
    found.iter().flat_map(|s| &s.windows).map(of).collect()
}
