//! `graylogic doctor`: asks the targets whether everything that the configuration says of them is right.

use crate::app;
use crate::cli::Place;
use crate::failure::{FAILED, Failure};
use crate::output::{answer, answer_json};
use graylogic_influxdb::{Client, Config, Preflight, Target, Verdict};
use serde_json::{Value, json};
use std::process::ExitCode;

pub(crate) fn run(place: &Place, json: bool) -> Result<ExitCode, Failure> {
    let config = app::config(place)?;
    if !config.is_enabled() {
        return Ok(disabled(&config, json));
    }
    let preflight = Client::preflight(&config)?;
    let further = config.further_targets();
    let at_fault = preflight.fault().and_then(|check| further.iter().find(|(name, _)| *name == check.target));
    let target = shown(at_fault.map_or(&config, |(_, config)| config));
    if json {
        answer_json(&as_json(&target, &preflight));
    } else {
        answer(preflight.to_string().trim_end());
        answer(match (preflight.fault(), preflight.takes_readings()) {
            (None, _) => format!("{target} takes readings"),
            (Some(_), true) => format!("{target} takes readings, but not all is well: see FAULT above"),
            (Some(_), false) => format!("{target} does not take readings"),
        });
    }
    Ok(if preflight.fault().is_some() { ExitCode::from(FAILED) } else { ExitCode::SUCCESS })
}

/// A configuration that is switched off takes no readings, however well its target is.
fn disabled(config: &Config, json: bool) -> ExitCode {
    if json {
        let target = shown(config);
        answer_json(&json!({ "target": target, "takes_readings": false, "enabled": false, "checks": [] }));
    } else {
        answer(format_args!(
            "disabled: influxdb.enabled is false, so nothing is stored in {}",
            shown(config)
        ));
    }
    ExitCode::from(FAILED)
}

/// The target of a configuration as people know it.
fn shown(config: &Config) -> String {
    match config.target() {
        Target::Embedded(folder) => format!("the store in {}", folder.display()),
        Target::Remote(url) => url.clone(),
        _ => "the target".to_owned(),
    }
}

fn as_json(target: &str, preflight: &Preflight) -> Value {
    let checks = preflight.checks().iter().map(|check| {
        let verdict = match check.verdict {
            Verdict::Good => "good",
            Verdict::Warning => "warning",
            Verdict::Fault => "fault",
            _ => "not reached",
        };
        json!({
            "target": check.target,
            "check": check.name,
            "verdict": verdict,
            "says": check.says,
            "setting": check.setting,
        })
    });
    json!({
        "target": target,
        "takes_readings": preflight.takes_readings(),
        "server": preflight.server_kind().map(|kind| kind.to_string()),
        "version": preflight.server_version(),
        "checks": checks.collect::<Vec<_>>(),
    })
}
