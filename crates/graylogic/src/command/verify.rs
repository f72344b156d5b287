//! `graylogic verify`: reads every byte of a store and names what is not as it was written.

use crate::cli::Verify;
use crate::command::open_store;
use crate::failure::Failure;
use crate::output::{answer, answer_json};
use crate::text;
use serde_json::json;
use std::process::ExitCode;

pub(crate) fn run(options: &Verify, json: bool) -> Result<ExitCode, Failure> {
    let (store, _) = open_store(&options.place, "verify")?;
    let report = store.verify()?;
    let unseen = if options.settle {
        store.settle()?;
        store.verify()?.damage
    } else {
        Vec::new()
    };
    let left = if options.settle { unseen.len() } else { report.damage.len() };
    store.close()?;
    if json {
        answer_json(&json!({
            "chunks": report.chunks,
            "readings": report.readings,
            "records": report.records,
            "damage": report.damage,
            "settled": options.settle && left == 0,
            "unsettled": unseen,
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
    if options.settle && left == 0 && !json {
        answer("the damage is settled; what was set aside stays in the folders named damaged");
    }
    if !unseen.is_empty() && !json {
        answer(
            "not settled, because settling had to write the store file anew; look at this and settle it with one more run:",
        );
        unseen.iter().for_each(answer);
    }
    Ok(if left == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
