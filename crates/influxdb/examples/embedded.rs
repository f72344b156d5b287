//! The store in a folder, with nothing installed: write readings of a building, ask for them, close.
//!
//! ```text
//! cargo run --example embedded -- ./graylogic-data
//! ```

use graylogic_influxdb::{Aggregate, Client, Config, Fill, Level, Point, Query, Timestamp};
use std::error::Error;
use std::io::Write;
use std::time::Duration;

fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::args().nth(1).unwrap_or_else(|| "./graylogic-data".to_owned());
    let client = Client::connect(&Config::embedded(folder))?;
    // Whatever is refused later is told here, with the line and the reason.
    client.set_on_error(|error| {
        let _nobody_reads = writeln!(std::io::stderr(), "{error}");
    });

    // None of these waits: each encodes a line into memory and returns.
    client.write_device_metric("light-living-1", "level", 50.0)?;
    client.write_phm_metric("pump-2", "vibration_mm_s", 2.1)?;
    client.write_point(&Point::new("weather").tag("station", "roof").field("temperature_c", 3.5))?;
    let now = Timestamp::now().as_nanos();
    let minutes_ago = |n: i64| Timestamp::from_nanos(now - n * 60_000_000_000);
    for n in (1..=60).rev() {
        client.write_energy_metric_at("hvac-main", 400.0 + n as f64, Some(12.0), minutes_ago(n))?;
    }
    client.flush(Level::Durable, Duration::from_secs(5))?;

    let power = Query::measurement("energy")
        .tag("device_id", "hvac-main")
        .field("power_watts")
        .range(minutes_ago(60), Timestamp::from_nanos(now))
        .window(Duration::from_secs(15 * 60))
        .aggregate(Aggregate::Mean)
        .fill(Fill::Previous);
    let mut out = std::io::stdout().lock();
    for series in client.ask(&power)? {
        for (start, watts) in &series.values {
            writeln!(out, "{start} {}: {watts:?}", series.field)?;
        }
    }
    for newest in client.latest("energy", &[])? {
        writeln!(out, "newest {}: {:?} at {}", newest.field, newest.value, newest.time)?;
    }
    let report = client.close(Duration::from_secs(10))?;
    writeln!(out, "{} lines stored, {} refused", report.delivered, report.rejected)?;
    Ok(())
}
