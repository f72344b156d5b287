//! The commands, each in a file of its own; here only which one is meant.

use crate::cli::{Cli, Command};
use crate::failure::Failure;
use std::process::ExitCode;

mod demo;
mod import;
mod query;
mod serve;
mod status;
mod write;

/// Runs the command and says how the program ends.
pub(crate) fn run(cli: &Cli) -> Result<ExitCode, Failure> {
    match &cli.command {
        Command::Demo(options) => demo::run(options, cli.json),
        Command::Serve(options) => serve::run(options, cli.json),
        Command::Write(options) => write::run(options, cli.json),
        Command::Query(options) => query::run(options, cli.json),
        Command::Import(options) => import::run(options, cli.json),
        Command::Status(place) => status::run(place, cli.json),
        Command::Bench(options) => crate::bench::run(options, cli.json),
    }
}
