//! Several targets and rules: everything stays here in the embedded store, and what rules say goes to a server as well. The
//! server is down, which delays nothing: its readings wait in a spool of its own.

use graylogic_influxdb::{Class, Client, Config, Level, Route};
use std::error::Error;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

fn main() -> Result<(), Box<dyn Error>> {
    let folder = PathBuf::from(std::env::args().nth(1).unwrap_or_else(|| "./graylogic-routing".to_owned()));
    // Nobody listens there.
    let head_office = Config::remote("http://127.0.0.1:9")?
        .with_bucket("site-7")
        .with_spool(Some(folder.join("spool-head-office")));
    let config = Config::embedded(folder.join("store"))
        .with_further_target("head_office", head_office)
        .with_route(Route::to(["main", "head_office"]).class(Class::Energy))
        .with_route(Route::to(["main/health", "head_office"]).class(Class::Phm).tag("device_id", "pump*"));
    let client = Client::connect(&config)?;

    client.write_energy_metric("hvac-main", 450.0, Some(12.3))?; // here and there
    client.write_phm_metric("pump-2", "vibration_mm_s", 2.1)?; // here in another bucket, and there
    client.write_device_metric("light-1", "level", 50.0)?; // no rule: here
    client.flush(Level::Durable, Duration::from_secs(5))?;
    for (bucket, stats) in client.buckets() {
        writeln!(
            std::io::stdout(),
            "{bucket}: {} accepted, {} delivered, {} wait ({:?})",
            stats.accepted,
            stats.delivered,
            stats.waiting,
            stats.health
        )?;
    }
    let report = client.close(Duration::from_secs(1))?;
    writeln!(std::io::stdout(), "{} lines wait for the head office in its spool", report.spooled)?;
    Ok(())
}
