//! `graylogic serve`: opens a store and serves the page.

use crate::app;
use crate::cli::Serve;
use crate::failure::Failure;
use crate::output::remark;
use std::process::ExitCode;

pub(crate) fn run(options: &Serve, json: bool) -> Result<ExitCode, Failure> {
    let (client, _) = app::connect(&options.place)?;
    for damage in &client.store().recovery().damage {
        remark(damage);
    }
    app::serve(&client, &options.address, json)?;
    Ok(ExitCode::SUCCESS)
}
