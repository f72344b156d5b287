//! `graylogic bucket`: lists, makes, renames and removes buckets, and says how long they keep readings.

use crate::app;
use crate::cli::{Bucket, BucketCommand};
use crate::command::{consent, open_store, quarantined_values, remark_damage, server};
use crate::failure::Failure;
use crate::output::{answer, answer_json};
use crate::text;
use graylogic_influxdb::{BucketUpdate, Manage, NewBucket, Target};
use graylogic_store::{BucketInfo, Store, StoreOptions};
use serde_json::json;
use std::process::ExitCode;
use std::time::Duration;

pub(crate) fn run(options: &Bucket, json: bool) -> Result<ExitCode, Failure> {
    let config = match &options.command {
        BucketCommand::List => app::config(&options.place)?,
        _ => app::acting_config(&options.place, "bucket")?,
    };
    let Target::Embedded(folder) = config.target() else {
        return of_server(&Manage::connect(&config)?, &options.command, json);
    };
    let store = match &options.command {
        // The first bucket of a store makes the store.
        BucketCommand::Create { .. } => Store::open(folder, StoreOptions::default())?,
        _ => open_store(&options.place, "bucket")?.0,
    };
    remark_damage(&store);
    let done = change(&store, &options.command, json);
    let buckets = store.buckets();
    store.close()?;
    if !done? {
        return Ok(ExitCode::SUCCESS);
    }
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

fn of_server(manage: &Manage, command: &BucketCommand, json: bool) -> Result<ExitCode, Failure> {
    let Some(changed) = change_server(manage, command, json)? else { return Ok(ExitCode::SUCCESS) };
    let buckets = manage.buckets().map_err(|error| match changed {
        true => Failure::because("the change is made, and the list of buckets is not there", error),
        false => error.into(),
    })?;
    if json {
        answer_json(&json!({ "buckets": buckets.iter().map(as_json).collect::<Vec<_>>() }));
    } else {
        let row = |b: &graylogic_influxdb::Bucket| {
            vec![b.name.clone(), "-".to_owned(), b.retention.map_or("for ever".into(), kept)]
        };
        let rows: Vec<Vec<String>> = buckets.iter().map(row).collect();
        answer(text::table(&["bucket", "series", "kept"], &rows).trim_end());
    }
    Ok(ExitCode::SUCCESS)
}

/// A bucket of a server; how many series it has, no server tells.
pub(super) fn as_json(bucket: &graylogic_influxdb::Bucket) -> serde_json::Value {
    let retention = bucket.retention.map(|r| r.as_secs());
    json!({ "id": bucket.id, "name": bucket.name, "series": null, "retention_s": retention })
}

/// Whether something was changed; `None` when it was only said what would be.
fn change_server(manage: &Manage, command: &BucketCommand, json: bool) -> Result<Option<bool>, Failure> {
    match command {
        BucketCommand::List => return Ok(Some(false)),
        BucketCommand::Create { name, keep } => {
            let keep = keep.as_deref().map(text::duration).transpose()?;
            manage.create_bucket(&NewBucket::new(name).retention(keep))?;
        }
        BucketCommand::Keep { name, length } => {
            let update = BucketUpdate::new().retention(length_of(length)?);
            manage.update_bucket(&server::bucket_id(manage, name)?, &update)?;
        }
        BucketCommand::Rename { name, to } => {
            manage.update_bucket(&server::bucket_id(manage, name)?, &BucketUpdate::new().name(to))?;
        }
        BucketCommand::Remove { name, consent } => {
            let id = server::bucket_id(manage, name)?;
            let what = format!("bucket {name:?} of the server with everything in it");
            if !consent::is_given(*consent, &what, json)? {
                return Ok(None);
            }
            manage.delete_bucket(&id)?;
        }
    }
    Ok(Some(true))
}

/// Whether it was done, and not only said what would be.
fn change(store: &Store, command: &BucketCommand, json: bool) -> Result<bool, Failure> {
    match command {
        BucketCommand::List => {}
        BucketCommand::Create { name, keep } => {
            let keep = keep.as_deref().map(text::duration).transpose()?;
            store.create_bucket(name)?;
            if keep.is_some()
                && let Err(error) = store.set_retention(name, keep)
            {
                // What was asked for as a whole is not done in part.
                store.remove_bucket(name)?;
                return Err(error.into());
            }
        }
        BucketCommand::Keep { name, length } => {
            store.set_retention(name, length_of(length)?)?;
        }
        BucketCommand::Rename { name, to } => {
            store.rename_bucket(name, to)?;
        }
        BucketCommand::Remove { name, consent } => {
            let series =
                store.buckets().iter().find(|bucket| bucket.name == *name).map(|bucket| bucket.series);
            // A bucket that is not there is the store's to name.
            if let Some(series) = series {
                let quarantined = match quarantined_values(store, name)? {
                    0 => String::new(),
                    values => format!(" and its quarantined values ({})", text::count(values)),
                };
                let what = format!("bucket {name:?} with {} series{quarantined}", text::count(series as u64));
                if !consent::is_given(*consent, &what, json)? {
                    return Ok(false);
                }
            }
            store.remove_bucket(name)?;
        }
    }
    Ok(true)
}

fn length_of(text: &str) -> Result<Option<Duration>, Failure> {
    if text == "forever" { Ok(None) } else { text::duration(text).map(Some) }
}

fn kept(length: Duration) -> String {
    let (hours, rest) = (length.as_secs() / 3600, length.as_secs() % 3600);
    if rest > 0 {
        return format!("{} seconds", length.as_secs());
    }
    if hours.is_multiple_of(24) { format!("{} days", hours / 24) } else { format!("{hours} hours") }
}
