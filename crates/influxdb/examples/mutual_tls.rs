//! A server behind https:// that wants a certificate of its clients, from files that are renewed while the program runs.
//!
//! ```text
//! cargo run --example mutual_tls -- https://influx.example:8086 ca.pem client.pem client.key
//! ```

use graylogic_influxdb::{Client, Config, TlsVersion, Verdict};
use std::error::Error;
use std::io::Write;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [url, authority, certificate, key] = &arguments[..] else {
        return Err("usage: mutual_tls URL CA_FILE CERTIFICATE_FILE KEY_FILE".into());
    };
    let config = Config::remote(url)?
        .with_ca_file(authority)
        .with_client_certificate(certificate, key)
        .with_tls_min_version(TlsVersion::Tls13);
    // Each fault is one sentence that names the setting to change.
    for check in Client::preflight(&config)?.checks() {
        let mark = if check.verdict == Verdict::Good { "ok" } else { "--" };
        writeln!(std::io::stdout(), "{mark} {}: {}", check.name, check.says)?;
    }
    Ok(())
}
