//! What the client asks of servers and manages there, against servers that others wrote: two examples of the library put it to
//! each of them, and end with an error when anything is not as it should be. Must not know what they look at.

use super::server::{Product, Programs, Server, make};
use std::path::Path;
use std::process::Command;

/// The examples, built.
pub(super) struct Examples<'a> {
    pub(super) folder: &'a Path,
}

pub(super) fn run(examples: &Examples<'_>, programs: &Programs, folder: &Path) -> Result<(), String> {
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
