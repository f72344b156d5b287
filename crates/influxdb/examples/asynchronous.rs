//! From asynchronous code, on the caller's own runtime: writes that return at once, writes that are awaited until they survive
//! a power cut, and questions, in a folder of its own.

use graylogic_influxdb::{Client, Config, Level, Point, Query, Timestamp};
use std::error::Error;
use std::io::Write;
use std::time::Duration;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::args().nth(1).unwrap_or_else(|| "./graylogic-data".to_owned());
    let client = Client::connect(&Config::embedded(folder))?;

    // The same calls as everywhere: they never wait.
    client.write_device_metric("door-1", "open", 1.0)?;
    // Returns when the reading is on the disk for good.
    client.write_durable(&Point::new("meter").tag("id", "main").field("kwh", 1234.5)).await?;
    // Waits for room while too much waits already, where the others would be refused.
    client.write_point_async(&Point::new("meter").tag("id", "garage").field("kwh", 7.25)).await?;
    client.flush_async(Level::Durable, Duration::from_secs(5)).await?;

    let hour = Timestamp::from_nanos(Timestamp::now().as_nanos() - 3_600_000_000_000);
    let question = Query::measurement("meter").range(hour, Timestamp::MAX);
    // Whoever gives up waiting drops the question with it.
    let found = tokio::time::timeout(Duration::from_secs(5), client.ask_async(&question)).await??;
    for series in found {
        writeln!(std::io::stdout(), "{:?}: {:?}", series.tags, series.values)?;
    }
    client.close_async(Duration::from_secs(10)).await?;
    Ok(())
}
