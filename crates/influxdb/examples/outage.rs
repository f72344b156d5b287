//! Readings for a server that does not answer: they wait in `./graylogic-spool`, where `graylogic spool` shows them.

use graylogic_influxdb::{Client, Config, Level, Timestamp};
use std::time::Duration;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Nobody listens there.
    let config = Config::remote("http://127.0.0.1:9")?.with_bucket("house");
    let client = Client::connect(&config)?;
    for minute in 0..1000 {
        let time = Timestamp::from_nanos(1_700_000_000_000_000_000 + minute * 60_000_000_000);
        client.write_energy_metric_at("hvac-main", 450.0 + (minute % 60) as f64, None, time)?;
    }
    client.flush(Level::Durable, Duration::from_secs(10))?;
    client.close(Duration::from_millis(100))?;
    Ok(())
}
