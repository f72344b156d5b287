//! `graylogic verify`: reads every byte of a store and names what is not as it was written.

use crate::cli::Place;
use crate::command::open_store;
use crate::failure::Failure;
use crate::output::{answer, answer_json};
use crate::text;
use serde_json::json;
use std::process::ExitCode;

pub(crate) fn run(place: &Place, json: bool) -> Result<ExitCode, Failure> {
    let (store, _) = open_store(place, "verify")?;
    let mut report = store.verify()?;
    // What opening set aside is damage too.
    report.damage.splice(0..0, store.recovery().damage.iter().cloned());
    store.close()?;
    if json {
        answer_json(&json!({
            "chunks": report.chunks,
            "readings": report.readings,
            "records": report.records,
            "damage": report.damage,
        }));
    } else {
        for damage in &report.damage {
            answer(damage);
        }
        answer(format_args!(
            "{} chunks with {} readings and {} records of the log read: {}",
            text::count(report.chunks),
            text::count(report.readings),
            text::count(report.records),
            match report.damage.len() {
                0 => "all as they were written".to_owned(),
                1 => "1 place is damaged".to_owned(),
                n => format!("{n} places are damaged"),
            }
        ));
    }
    Ok(if report.damage.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
