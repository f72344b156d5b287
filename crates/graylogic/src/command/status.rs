//! `graylogic status`: what is stored, in numbers; of a server, what it is and how it says that it is.

use crate::app;
use crate::cli::Place;
use crate::command::{bucket, open_store};
use crate::failure::Failure;
use crate::output::{answer, answer_json};
use crate::text;
use graylogic_influxdb::{HealthStatus, Manage, Target};
use graylogic_store::{Selector, State};
use serde_json::json;
use std::process::ExitCode;

pub(crate) fn run(place: &Place, json: bool) -> Result<ExitCode, Failure> {
    let config = app::config(place)?;
    let is_enabled = config.is_enabled();
    if let Target::Remote(url) = config.target() {
        return of_server(url, &Manage::connect(&config)?, is_enabled, json);
    }
    let (store, config) = open_store(place, "status")?;
    let Target::Embedded(folder) = config.target() else {
        unreachable!("only the embedded store was opened");
    };
    let stats = store.stats()?;
    let mut buckets = Vec::new();
    let (mut oldest, mut newest) = (None, None);
    for bucket in store.buckets() {
        for (_, bounds) in store.bounds(&Selector::bucket(&bucket.name))? {
            let Some((a, b)) = bounds else { continue };
            oldest = Some(oldest.map_or(a, |o: graylogic_line::Timestamp| o.min(a)));
            newest = Some(newest.map_or(b, |n: graylogic_line::Timestamp| n.max(b)));
        }
        buckets.push(bucket);
    }
    let quarantined: u64 = store.quarantine()?.iter().map(|q| q.values).sum();
    let recovery = store.recovery();
    let degraded = match &stats.state {
        State::Degraded(why) => Some(why.as_str()),
        _ => None,
    };
    let per_value = stats.bytes_per_value();
    if json {
        answer_json(&json!({
            "folder": folder.display().to_string(),
            "enabled": is_enabled,
            "values": stats.values,
            "quarantined_values": quarantined,
            "series": stats.series,
            "buckets": buckets.iter().map(|b| json!({ "name": b.name, "series": b.series, "retention_s": b.retention.map(|r| r.as_secs()) })).collect::<Vec<_>>(),
            "oldest": oldest.map(|t| t.to_string()),
            "newest": newest.map(|t| t.to_string()),
            "chunks": stats.chunks,
            "chunk_values": stats.chunk_values,
            "chunk_bytes": stats.chunk_bytes,
            "bytes_on_disk": stats.bytes_on_disk,
            "bytes_per_value": per_value,
            "flash_written_bytes": stats.flash_written,
            "log_bytes": stats.log_bytes,
            "values_in_log": stats.tail_values,
            "degraded": degraded,
            "replayed_values": recovery.replayed_values,
            "lost_values": recovery.lost_values,
            "damage": recovery.damage,
            "open_ms": recovery.duration.as_secs_f64() * 1e3,
        }));
    } else {
        let time = |t: Option<graylogic_line::Timestamp>| t.map_or_else(|| "-".to_owned(), text::local);
        let names: Vec<String> =
            buckets.iter().map(|b| format!("{} ({} series)", b.name, b.series)).collect();
        let mut rows = vec![
            vec!["store".to_owned(), folder.display().to_string()],
            vec!["buckets".into(), names.join(", ")],
            vec!["values".into(), text::count(stats.values)],
            vec!["from".into(), time(oldest)],
            vec!["to".into(), time(newest)],
            vec![
                "on disk".into(),
                format!("{}, {per_value:.2} bytes a value", text::bytes(stats.bytes_on_disk)),
            ],
            vec![
                "chunks".into(),
                format!("{}, {} in them", text::count(stats.chunks), text::bytes(stats.chunk_bytes)),
            ],
            vec!["written so far".into(), format!("{} given to the disk", text::bytes(stats.flash_written))],
            vec![
                "hot log".into(),
                format!(
                    "{}, {} values not in chunks yet",
                    text::bytes(stats.log_bytes),
                    text::count(stats.tail_values)
                ),
            ],
            vec!["state".into(), degraded.map_or_else(|| "ok".to_owned(), |why| format!("degraded: {why}"))],
        ];
        if quarantined > 0 {
            let shown = format!("{} values: see graylogic quarantine", text::count(quarantined));
            rows.push(vec!["in quarantine".into(), shown]);
        }
        rows.extend(disabled_row(is_enabled));
        rows.extend(recovery.damage.iter().map(|d| vec!["damage".to_owned(), d.clone()]));
        answer(text::table(&["", ""], &rows).trim_start_matches('\n').trim_end());
    }
    store.close()?;
    Ok(ExitCode::SUCCESS)
}

/// What is to be said of a configuration that is switched off.
fn disabled_row(is_enabled: bool) -> Option<Vec<String>> {
    (!is_enabled)
        .then(|| vec!["disabled".to_owned(), "influxdb.enabled is false: nothing is stored".to_owned()])
}

fn of_server(url: &str, manage: &Manage, is_enabled: bool, json: bool) -> Result<ExitCode, Failure> {
    let health = manage.health()?;
    let passes = health.status == HealthStatus::Pass;
    // What a server does not tell this token takes nothing from what it told.
    let ready = match manage.ready() {
        Err(error) if error.is_refused() => None,
        answer => Some(answer?),
    };
    let buckets = match manage.buckets() {
        Err(error) if error.is_refused() || error.is_unsupported() => Err(error.to_string()),
        answer => Ok(answer?),
    };
    let kind = health.kind.map(|kind| kind.to_string());
    if json {
        answer_json(&json!({
            "server": url,
            "enabled": is_enabled,
            "kind": kind,
            "version": health.version,
            "healthy": passes,
            "message": health.message,
            "ready": ready,
            "buckets": buckets.as_ref().ok().map(|all| all.iter().map(bucket::as_json).collect::<Vec<_>>()),
            "buckets_hidden": buckets.err(),
        }));
        return Ok(ExitCode::SUCCESS);
    }
    let said = if health.message.is_empty() { String::new() } else { format!(": {}", health.message) };
    let names = |all: Vec<graylogic_influxdb::Bucket>| {
        let names: Vec<String> = all.into_iter().map(|bucket| bucket.name).collect();
        names.join(", ")
    };
    let mut rows = vec![
        vec!["server".to_owned(), url.to_owned()],
        vec!["kind".into(), kind.unwrap_or_else(|| "it does not tell".into())],
        vec!["version".into(), health.version.unwrap_or_else(|| "it does not tell".into())],
        vec!["health".into(), format!("{}{said}", if passes { "pass" } else { "fail" })],
        vec![
            "ready".into(),
            ready.map_or("it does not tell", |ready| if ready { "yes" } else { "no" }).to_owned(),
        ],
        vec!["buckets".into(), buckets.map_or_else(|hidden| hidden, names)],
    ];
    rows.extend(disabled_row(is_enabled));
    answer(text::table(&["", ""], &rows).trim_start_matches('\n').trim_end());
    Ok(ExitCode::SUCCESS)
}
