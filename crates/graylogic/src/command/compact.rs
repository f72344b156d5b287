//! `graylogic compact`: compacts everything at once, which the background does day by day.

use crate::app;
use crate::cli::Place;
use crate::command::{open_store, remark_damage};
use crate::failure::Failure;
use crate::output::{answer, answer_json};
use crate::text;
use serde_json::json;
use std::process::ExitCode;

pub(crate) fn run(place: &Place, json: bool) -> Result<ExitCode, Failure> {
    app::acting_config(place, "compact")?;
    let (store, _) = open_store(place, "compact")?;
    remark_damage(&store);
    let before = store.stats()?;
    store.compact()?;
    let after = store.stats()?;
    store.close()?;
    if json {
        answer_json(&json!({
            "bytes_before": before.bytes_on_disk,
            "bytes_after": after.bytes_on_disk,
            "chunks": after.chunks,
            "values": after.values,
        }));
    } else {
        answer(format_args!(
            "{} are {} now: {} values in {} chunks, {:.2} bytes a value",
            text::bytes(before.bytes_on_disk),
            text::bytes(after.bytes_on_disk),
            text::count(after.values),
            text::count(after.chunks),
            after.bytes_per_value()
        ));
    }
    Ok(ExitCode::SUCCESS)
}
