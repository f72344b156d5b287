//! What a change must pass before it is shown to anyone: the same steps here and in `.ci/run`.
//! Must not know what the steps find; each says so itself.

use crate::{cargo, hygiene};
use std::path::Path;
use std::process::Command;
use std::time::Instant;

type Step = (&'static str, fn(&Path) -> Result<(), String>);

/// The quick ones first: who left a path of their machine in a file should not wait for the tests.
const STEPS: &[Step] = &[
    ("hygiene", hygiene::run),
    ("recordings", |root| {
        crate::run("recordings", Command::new("python3").current_dir(root).args(["data/cut.py", "check"]))
    }),
    ("format", |root| crate::run("format", cargo(root).args(["fmt", "--all", "--check"]))),
    ("lints", |root| {
        crate::run(
            "lints",
            cargo(root).args([
                "clippy",
                "--workspace",
                "--all-targets",
                "--all-features",
                "--",
                "-D",
                "warnings",
            ]),
        )
    }),
    // Every test binary runs even after a failure, so that the totals are totals.
    ("tests", |root| crate::run("tests", cargo(root).args(["test", "--workspace", "--no-fail-fast"]))),
    // What is only there when it is asked for.
    ("features", |root| {
        let mut command = cargo(root);
        command.args(["test", "--package", "graylogic-influxdb", "--all-features", "--lib"]);
        crate::run("features", &mut command)
    }),
    ("documentation", |root| {
        let mut command = cargo(root);
        command.env("RUSTDOCFLAGS", "-Dwarnings").args(["doc", "--workspace", "--no-deps", "--all-features"]);
        crate::run("documentation", &mut command)
    }),
];

/// Runs every step in order; the first that fails ends it.
pub(crate) fn run(root: &Path) -> Result<(), String> {
    for (name, step) in STEPS {
        let start = Instant::now();
        println!("check: {name}");
        step(root)?;
        println!("check: {name} passed in {:.1} s", start.elapsed().as_secs_f64());
    }
    Ok(())
}
