//! `graylogic delete`: removes the readings of a range from the series that tags and names mean.

use crate::cli::Delete;
use crate::command::{open_store, query};
use crate::failure::Failure;
use crate::output::{answer, answer_json};
use serde_json::json;
use std::process::ExitCode;

pub(crate) fn run(options: &Delete, json: bool) -> Result<ExitCode, Failure> {
    let what = &options.what;
    let range = query::range(what.start.as_deref(), what.stop.as_deref())?;
    let (store, config) = open_store(&what.place, "delete")?;
    let selector = query::selector(what, config.bucket())?;
    let series = store.delete(&selector, range)?;
    store.close()?;
    if json {
        answer_json(&json!({ "series": series }));
    } else {
        answer(format_args!("deleted from {series} series"));
    }
    Ok(ExitCode::SUCCESS)
}
