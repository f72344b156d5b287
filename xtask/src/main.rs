//! `cargo xtask`: the repository's own chores, in the standard library alone so that they build in a second.
//! Knows the tools it starts and the files it reads; must not know the crates it checks.

// A command-line tool speaks on the standard streams.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod campaign;
mod check;
mod hygiene;
mod torture;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

const HELP: &str = "\
cargo xtask COMMAND

  check      hygiene, recordings, format, lints, tests, documentation: what a change must pass
  campaign   the release build against real programs: the page in headless Chromium, the spool with servers that
             are killed; `campaign spool` for the latter alone
  torture    every row of the spool's test bar; --json for an array, ROW... (D1, S3) for some, --miri for
             the codec under Miri as well
  hygiene    nothing of the developer's machine in the files, no foreign registry, no unfinished code";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let done = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["check"] => check::run(&root()),
        ["campaign"] => campaign::run(&root()),
        ["campaign", "spool"] => campaign::run_spool(&root()),
        ["torture", ref rest @ ..] => torture::run(&root(), rest),
        ["hygiene"] => hygiene::run(&root()),
        _ => Err(HELP.to_owned()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}

/// The folder of the workspace, wherever `cargo xtask` was called.
fn root() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().unwrap_or(package).to_owned()
}

/// Runs one program to its end, without input; the error is a sentence with its name and status.
fn run(what: &str, command: &mut Command) -> Result<(), String> {
    let status = command
        .stdin(Stdio::null())
        .status()
        .map_err(|error| format!("{what}: start {command:?}: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("{what}: {command:?} ended with {status}")) }
}

/// The cargo that runs this, so that a toolchain chosen on the command line stays chosen.
fn cargo(root: &Path) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root);
    command
}
