//! The program `graylogic`: reads the command line, runs the command, ends with its exit code.

use clap::Parser;
use std::process::ExitCode;

mod app;
mod bench;
mod cli;
mod command;
mod failure;
mod input;
mod log;
mod output;
mod page;
mod recordings;
mod text;

/// Counts what is allocated, for `bench line`; the cost is two additions a call.
#[global_allocator]
static ALLOCATOR: &stats_alloc::StatsAlloc<std::alloc::System> = &stats_alloc::INSTRUMENTED_SYSTEM;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    log::to_stderr(&cli.command);
    let done = command::run(&cli);
    // An answer that could not be written is no answer, whatever else went well.
    let printed = output::finish();
    let code = done.and_then(|code| printed.map(|()| code));
    code.unwrap_or_else(|failure| {
        failure.print(cli.json);
        ExitCode::from(failure.code())
    })
}
