//! What `doctor` says of a VictoriaMetrics that takes writes: what it keeps, what it drops without an error, and what
//! settings of it make wrong. Pure. Must not know how it is asked, nor the other checks.

use crate::server::preflight::Verdict;
use crate::server::vitals::{Vitals, reason_in_words};
use std::time::Duration;

/// A check of a VictoriaMetrics: its name, verdict and sentence.
pub(super) type Said = (&'static str, Verdict, String);

/// The checks, of what the server shows of itself; `None` when it shows nothing.
pub(super) fn checks(vitals: Option<&Vitals>, settle_time: Duration) -> Vec<Said> {
    let Some(vitals) = vitals else {
        let says = "the server does not show /metrics: whether it was restarted, how long it keeps readings and which it \
                    ignores is not known; let this client read that page";
        return vec![("limits", Verdict::Warning, says.to_owned())];
    };
    [copies(vitals), Some(limits(vitals)), ignored(vitals), names(vitals), settling(vitals, settle_time)]
        .into_iter()
        .flatten()
        .collect()
}

/// What it does with readings that come twice.
fn copies(vitals: &Vitals) -> Option<Said> {
    match vitals.deduplicates()? {
        false => Some((
            "write",
            Verdict::Warning,
            "a write of nothing went through; but what is sent twice, as after a connection that broke off or a restart of the \
             server, counts twice there: start VictoriaMetrics with -dedup.minScrapeInterval=1ms"
                .to_owned(),
        )),
        true => Some((
            "corrections",
            Verdict::Good,
            "of several values for one time it keeps one by a rule of its own, not the last that was written".to_owned(),
        )),
    }
}

fn limits(vitals: &Vitals) -> Said {
    let limits = &vitals.limits;
    let keeps = match &limits.keeps {
        Some((_, written)) => format!("keeps readings for {written} (-retentionPeriod)"),
        None => "does not show how long it keeps readings".to_owned(),
    };
    let number = |n: Option<usize>| n.map_or("any number of".to_owned(), |n| n.to_string());
    let says = format!(
        "the server {keeps}, and takes {} labels of a series and {} bytes of a value; what is beyond that it drops without a \
         word, so it is rejected here",
        number(limits.labels_max),
        number(limits.label_value_bytes_max),
    );
    ("limits", Verdict::Good, says)
}

fn ignored(vitals: &Vitals) -> Option<Said> {
    let counts = vitals.ignored.iter().filter(|(_, rows)| **rows > 0);
    let counts: Vec<String> =
        counts.map(|(reason, rows)| format!("{rows} rows because {}", reason_in_words(reason))).collect();
    if counts.is_empty() {
        return None;
    }
    let says = format!("since its start the server ignored, of all who write to it, {}", counts.join("; "));
    Some(("ignored", Verdict::Warning, says))
}

/// Settings that give readings other names than this client asks for.
fn names(vitals: &Vitals) -> Option<Said> {
    let usual = [
        ("influxMeasurementFieldSeparator", "_"),
        ("influxSkipSingleField", "false"),
        ("influxSkipMeasurement", "false"),
        ("influxDBLabel", "db"),
        ("usePromCompatibleNaming", "false"),
    ];
    let changed = usual.iter().find_map(|(name, usual)| {
        let value = vitals.flag(name)?;
        (value != *usual).then(|| format!("-{name}={value}"))
    })?;
    let says = format!(
        "the server was started with {changed}, which gives readings other names than queries of this client ask for: start it \
         without"
    );
    Some(("names", Verdict::Warning, says))
}

fn settling(vitals: &Vitals, settle_time: Duration) -> Option<Said> {
    if settle_time.is_zero() {
        let says = "influxdb.settle_time is off, and the server acknowledges readings before they are on its disk: killed, it \
                    loses some seconds of them";
        return Some(("settling", Verdict::Warning, says.to_owned()));
    }
    let seconds = settle_time.as_secs();
    let says = format!(
        "the server acknowledges readings before they are on its disk: they are kept for {seconds} s more, and sent again when \
         it was restarted"
    );
    // Of a part that only inserts, restarts of the storing parts show in its broken connections only.
    let says = match vitals.limits.keeps {
        Some(_) => says,
        None => format!("{says}; of the storing parts of a cluster, when it lost a connection to one"),
    };
    Some(("settling", Verdict::Good, says))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn says(flags: &[(&str, &str)], ignored: &[(&str, u64)], settle_time: u64) -> Vec<String> {
        let flags = flags.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let ignored = ignored.iter().map(|(k, v)| ((*k).to_owned(), *v)).collect();
        let vitals = Vitals { flags, ignored, ..Vitals::default() };
        let said = checks(Some(&vitals), Duration::from_secs(settle_time));
        said.into_iter().map(|(name, verdict, says)| format!("{name} {verdict:?} {says}")).collect()
    }

    fn check(said: &[String], beginning: &str, holds: &str) {
        assert!(said.iter().any(|s| s.starts_with(beginning) && s.contains(holds)), "{beginning}: {said:?}");
    }

    #[test]
    fn doctor_names_what_is_dropped_and_which_setting_does_it() {
        let usual = [("dedup.minScrapeInterval", "0s"), ("influxDBLabel", "db")];
        let said = says(&usual, &[("small_timestamp", 12), ("big_timestamp", 0)], 30);
        check(&said, "write Warning", "start VictoriaMetrics with -dedup.minScrapeInterval=1ms");
        check(
            &said,
            "ignored Warning",
            "12 rows because they are older than it keeps readings (-retentionPeriod)",
        );
        check(&said, "settling Good", "kept for 30 s more");
        assert!(!said.iter().any(|s| s.starts_with("names") || s.contains("big")), "{said:?}");
        let other = [("dedup.minScrapeInterval", "1ms"), ("influxMeasurementFieldSeparator", ".")];
        let said = says(&other, &[], 0);
        check(&said, "corrections Good", "not the last that was written");
        check(&said, "names Warning", "-influxMeasurementFieldSeparator=.");
        check(&said, "settling Warning", "killed, it loses some seconds");
        let said = checks(None, Duration::ZERO);
        assert_eq!((said.len(), said[0].0, said[0].1), (1, "limits", Verdict::Warning));
    }
}
