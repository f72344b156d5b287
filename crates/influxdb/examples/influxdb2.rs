//! An InfluxDB 2 from the first minute: is everything right, make a bucket and a task that down-samples it, write, ask in Flux
//! and get structs. Token and organisation come from the environment.
//!
//! ```text
//! GRAYLOGIC_INFLUXDB_TOKEN=... GRAYLOGIC_INFLUXDB_ORG=my-org cargo run --example influxdb2 -- http://127.0.0.1:8086
//! ```

use graylogic_influxdb::{Aggregate, Client, Config, Downsampling, FluxQuery, Level, NewBucket};
use std::error::Error;
use std::io::Write;
use std::time::Duration;

/// A row of the answer: fields are named as its columns.
#[derive(serde::Deserialize)]
struct Power {
    device_id: String,
    #[serde(rename = "_value")]
    watts: f64,
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut out = std::io::stdout().lock();
    let url = std::env::args().nth(1).ok_or("usage: influxdb2 URL")?;
    // Only the two that are secret or differ from site to site come from outside.
    let config = Config::from_yaml(&format!("influxdb:\n  url: {url}\n  bucket: example\n"))?
        .with_create_buckets(true);
    let client = Client::connect(&config)?;
    let manage = client.manage();

    let year = Duration::from_secs(365 * 86_400);
    if manage.find_bucket("example-hourly")?.is_none() {
        manage.create_bucket(&NewBucket::new("example-hourly").retention(year))?;
    }
    if manage.find_tasks("example hourly")?.is_empty() {
        let hourly =
            Downsampling::new("example hourly", "example", "example-hourly", Duration::from_secs(3600));
        manage.create_task(
            &hourly.measurement("energy").aggregates(&[Aggregate::Mean, Aggregate::Max]).task()?,
        )?;
    }

    client.write_energy_metric("hvac-main", 450.0, None)?;
    client.write_energy_metric("say \"hi\"", 3.5, None)?;
    client.flush(Level::Delivered, Duration::from_secs(30))?;
    write!(out, "{}", Client::preflight(&config)?)?;

    let question = FluxQuery::new(
        r#"from(bucket: params.bucket)
            |> range(start: -1h)
            |> filter(fn: (r) => r._measurement == "energy" and r._field == "power_watts")
            |> last()"#,
    )
    .param("bucket", "example")
    .timeout(Duration::from_secs(10));
    for power in client.query(question)?.deserialize::<Power>() {
        let power = power?;
        writeln!(out, "{}: {} W", power.device_id, power.watts)?;
    }
    client.close(Duration::from_secs(10))?;
    Ok(())
}
