//! `graylogic bucket`: lists, makes, renames and removes buckets, and says how long they keep readings.

use crate::cli::{Bucket, BucketCommand};
use crate::command::open_store;
use crate::failure::Failure;
use crate::output::{answer, answer_json};
use crate::text;
use graylogic_store::{BucketInfo, Store};
use serde_json::json;
use std::process::ExitCode;
use std::time::Duration;

pub(crate) fn run(options: &Bucket, json: bool) -> Result<ExitCode, Failure> {
    let (store, _) = open_store(&options.place, "bucket")?;
    let done = change(&store, &options.command);
    let buckets = store.buckets();
    store.close()?;
    done?;
    if json {
        let of = |b: &BucketInfo| json!({ "name": b.name, "series": b.series, "retention_s": b.retention.map(|r| r.as_secs()) });
        answer_json(&json!({ "buckets": buckets.iter().map(of).collect::<Vec<_>>() }));
    } else {
        let rows: Vec<Vec<String>> = buckets
            .iter()
            .map(|b| {
                vec![
                    b.name.clone(),
                    text::count(b.series as u64),
                    b.retention.map_or("for ever".into(), kept),
                ]
            })
            .collect();
        answer(text::table(&["bucket", "series", "kept"], &rows).trim_end());
    }
    Ok(ExitCode::SUCCESS)
}

fn change(store: &Store, command: &BucketCommand) -> Result<(), Failure> {
    match command {
        BucketCommand::List => {}
        BucketCommand::Create { name, keep } => {
            store.create_bucket(name)?;
            if let Some(keep) = keep {
                store.set_retention(name, Some(text::duration(keep)?))?;
            }
        }
        BucketCommand::Keep { name, length } => {
            let length = if length == "forever" { None } else { Some(text::duration(length)?) };
            store.set_retention(name, length)?;
        }
        BucketCommand::Rename { name, to } => {
            store.rename_bucket(name, to)?;
        }
        BucketCommand::Remove { name } => store.remove_bucket(name)?,
    }
    Ok(())
}

fn kept(length: Duration) -> String {
    let hours = length.as_secs() / 3600;
    if hours.is_multiple_of(24) { format!("{} days", hours / 24) } else { format!("{hours} hours") }
}
