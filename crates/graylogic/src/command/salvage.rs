//! `graylogic salvage`: saves what is good in a damaged store into a new folder.

use crate::app;
use crate::cli::Salvage;
use crate::failure::{Failure, SOME_REFUSED};
use crate::output::{answer, answer_json};
use crate::text;
use graylogic_influxdb::Target;
use graylogic_store::Store;
use serde_json::json;
use std::process::ExitCode;

pub(crate) fn run(options: &Salvage, json: bool) -> Result<ExitCode, Failure> {
    let config = app::config(&options.place)?;
    let Target::Embedded(folder) = config.target() else {
        return Err(Failure::new("salvage works on the embedded store only; name its folder with --data"));
    };
    let saved = Store::salvage(folder, &options.to)?;
    if json {
        answer_json(&json!({
            "series": saved.series,
            "chunks": saved.chunks,
            "readings": saved.readings,
            "log_segments": saved.segments,
            "lost": saved.lost,
        }));
    } else {
        saved.lost.iter().for_each(answer);
        answer(format_args!(
            "saved {} readings in {} chunks of {} series, and {} segments of the log, into {}",
            text::count(saved.readings),
            text::count(saved.chunks),
            text::count(saved.series),
            saved.segments,
            options.to.display()
        ));
    }
    Ok(if saved.lost.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(SOME_REFUSED) })
}
