//! The library's examples, as a user runs them: those that need no server, and two that put to each server that others wrote
//! what the client asks and manages there, and end with an error when anything is not as it should be. Must not know what
//! they look at.

use super::server::{Product, Programs, Server, make};
use std::path::Path;
use std::process::Command;

/// The examples, built.
pub(super) struct Examples<'a> {
    pub(super) folder: &'a Path,
}

/// Those that need no server, each with a folder.
const ALONE: [&str; 4] = ["embedded", "asynchronous", "series_handles", "routing"];
/// Everything that is run, the spool's writer included.
pub(super) const ALL: [&str; 7] =
    ["embedded", "asynchronous", "series_handles", "routing", "typed_answers", "manage_servers", "promises"];

pub(super) fn run(examples: &Examples<'_>, programs: &Programs, folder: &Path) -> Result<(), String> {
    for name in ALONE {
        let data = make(&folder.join(format!("example-{name}")))?.display().to_string();
        examples.run(name, &[&data])?;
    }
    for (product, kind) in [(Product::VictoriaMetrics, "victoriametrics"), (Product::InfluxDb, "influxdb1")] {
        let mut server = Server::of(product, programs, make(&folder.join(format!("asked-{kind}")))?)?;
        let url = server.url();
        examples.run("typed_answers", &[&url])?;
        examples.run("manage_servers", &[kind, &url])?;
        server.end()?;
    }
    Ok(())
}

impl Examples<'_> {
    fn run(&self, name: &str, arguments: &[&str]) -> Result<(), String> {
        let mut command = Command::new(self.folder.join(name));
        command.args(arguments);
        for (key, _) in std::env::vars().filter(|(key, _)| key.starts_with("GRAYLOGIC_INFLUXDB_")) {
            // What the machine's environment says must not matter.
            command.env_remove(key);
        }
        crate::run(&format!("campaign: {name} {}", arguments.join(" ")), &mut command)
    }
}
