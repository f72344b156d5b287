//! `graylogic serve`: opens a store and serves the page.

use crate::app;
use crate::cli::Serve;
use crate::command::remark_damage;
use crate::failure::Failure;
use std::process::ExitCode;

pub(crate) fn run(options: &Serve, json: bool) -> Result<ExitCode, Failure> {
    let (client, _) = app::connect(&options.place)?;
    if let Some(store) = client.store() {
        remark_damage(store);
    }
    app::serve(&client, &options.address, json)?;
    Ok(ExitCode::SUCCESS)
}
