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
            "log_readings": saved.log_readings,
            "doubtful_readings": saved.doubtful_readings,
            "lost": saved.lost,
            "lost_count": saved.lost_count,
            "lost_readings": saved.lost_readings,
        }));
    } else {
        saved.lost.iter().for_each(answer);
        answer(format_args!(
            "saved {} readings in {} chunks of {} series into {}; {} of them were only in the {} segments of the log",
            text::count(saved.readings),
            text::count(saved.chunks),
            text::count(saved.series),
            options.to.display(),
            text::count(saved.log_readings),
            saved.segments,
        ));
        if saved.lost_count > 0 {
            answer(format_args!(
                "lost at least {} readings; {} places are damaged or in doubt",
                text::count(saved.lost_readings),
                text::count(saved.lost_count),
            ));
        }
    }
    Ok(if saved.lost_count == 0 { ExitCode::SUCCESS } else { ExitCode::from(SOME_REFUSED) })
}
