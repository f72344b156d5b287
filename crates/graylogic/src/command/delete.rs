//! `graylogic delete`: removes the readings of a range from the series that tags and names mean.

use crate::app;
use crate::cli::{Delete, Which};
use crate::command::{open_store, query, remark_damage};
use crate::failure::Failure;
use crate::output::{answer, answer_json};
use graylogic_influxdb::{Manage, Predicate, Target};
use serde_json::json;
use std::process::ExitCode;

pub(crate) fn run(options: &Delete, json: bool) -> Result<ExitCode, Failure> {
    let what = &options.what;
    if names_nothing(what) && !options.everything {
        return Err(Failure::new(
            "delete: say which readings with --measurement, --tag, --field, --start or --stop, or --everything for all of the \
             bucket's",
        ));
    }
    let range = query::range(what.start.as_deref(), what.stop.as_deref())?;
    let config = app::acting_config(&what.place, "delete")?;
    if !matches!(config.target(), Target::Embedded(_)) {
        let predicate = predicate(what)?;
        let bucket = config.bucket();
        Manage::connect(&config)?.delete(bucket, &(range.start()..range.stop()), &predicate)?;
        if json {
            // No server tells from how many.
            answer_json(&json!({ "series": null }));
        } else {
            answer(format_args!("deleted from bucket {bucket:?}"));
        }
        return Ok(ExitCode::SUCCESS);
    }
    let (store, config) = open_store(&what.place, "delete")?;
    remark_damage(&store);
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

/// Whether all readings of the bucket are meant, which one who forgot an argument does not mean.
fn names_nothing(what: &Which) -> bool {
    what.measurement.is_none()
        && what.field.is_none()
        && what.tag.is_empty()
        && what.start.is_none()
        && what.stop.is_none()
}

/// What is deleted on a server, which looks no further than at equal and not equal.
fn predicate(what: &Which) -> Result<Predicate, Failure> {
    let mut predicate = Predicate::new();
    if let Some(measurement) = &what.measurement {
        predicate = predicate.measurement(measurement);
    }
    if let Some(field) = &what.field {
        predicate = predicate.field(field);
    }
    for tag in &what.tag {
        let wrong = || {
            Failure::new(format!(
                "--tag {tag:?}: no server deletes by a pattern, so write KEY=VALUE or KEY!=VALUE"
            ))
        };
        let at = tag.find(['=', '!']).filter(|&at| at > 0).ok_or_else(wrong)?;
        let (key, rest) = tag.split_at(at);
        if rest.starts_with("=~") || rest.starts_with("!~") {
            return Err(wrong());
        }
        predicate = match rest.strip_prefix("!=") {
            Some(value) => predicate.tag_not(key, value),
            None => predicate.tag(key, rest.strip_prefix('=').ok_or_else(wrong)?),
        };
    }
    Ok(predicate)
}
