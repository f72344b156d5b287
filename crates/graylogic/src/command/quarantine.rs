//! `graylogic quarantine`: lists, releases and drops the readings of the embedded store whose timestamps a wrong clock
//! must have made.

use crate::app;
use crate::cli::{Quarantine, QuarantineCommand};
use crate::command::open_store;
use crate::failure::{Failure, SOME_REFUSED};
use crate::output::{answer, answer_json, remark};
use crate::text;
use graylogic_store::Store;
use serde_json::json;
use std::process::ExitCode;

pub(crate) fn run(options: &Quarantine, json: bool) -> Result<ExitCode, Failure> {
    if !matches!(options.command, QuarantineCommand::Ls) {
        app::acting_config(&options.place, "quarantine")?;
    }
    let (store, config) = open_store(&options.place, "quarantine")?;
    let bucket = config.bucket();
    let code = match options.command {
        QuarantineCommand::Ls => list(&store, json)?,
        QuarantineCommand::Release => release(&store, bucket, json)?,
        QuarantineCommand::Drop => {
            let values = store.drop_quarantined(bucket)?;
            if json {
                answer_json(&json!({ "bucket": bucket, "values": values }));
            } else {
                answer(format_args!(
                    "dropped {} quarantined values of bucket {bucket:?}",
                    text::count(values)
                ));
            }
            ExitCode::SUCCESS
        }
    };
    store.close()?;
    Ok(code)
}

fn list(store: &Store, json: bool) -> Result<ExitCode, Failure> {
    let found = store.quarantine()?;
    if json {
        let rows = found.iter().map(|q| {
            json!({
                "bucket": q.bucket,
                "values": q.values,
                "series": q.series,
                "oldest": q.bounds.0.to_string(),
                "newest": q.bounds.1.to_string(),
            })
        });
        answer_json(&json!({ "quarantine": rows.collect::<Vec<_>>() }));
    } else if found.is_empty() {
        answer("nothing is in quarantine");
    } else {
        let rows: Vec<Vec<String>> = found
            .iter()
            .map(|q| {
                let (oldest, newest) = (text::local(q.bounds.0), text::local(q.bounds.1));
                vec![q.bucket.clone(), text::count(q.values), q.series.to_string(), oldest, newest]
            })
            .collect();
        answer(text::table(&["bucket", "values", "series", "from", "to"], &rows).trim_end());
        answer(
            "\nShow them with query --quarantine; quarantine release stores them, quarantine drop deletes them.",
        );
    }
    Ok(ExitCode::SUCCESS)
}

fn release(store: &Store, bucket: &str, json: bool) -> Result<ExitCode, Failure> {
    let released = store.release_quarantined(bucket)?;
    if json {
        answer_json(&json!({ "bucket": bucket, "values": released.values, "kept": released.kept }));
    } else {
        released.kept.iter().for_each(remark);
        answer(format_args!("released {} values into bucket {bucket:?}", text::count(released.values)));
    }
    Ok(if released.kept.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(SOME_REFUSED) })
}
