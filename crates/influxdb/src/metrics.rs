//! What a client has done, in the text that Prometheus reads (exposition format 0.0.4). Pure: it knows neither clients nor
//! servers.

use crate::stats::{Health, Stats};
use std::fmt::Write as _;

/// The content type of the text.
pub const METRICS_CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What a gauge shows of a bucket; `None` when there is nothing to show.
type Gauge = (&'static str, &'static str, fn(&Stats) -> Option<f64>);

const GAUGES: [Gauge; 8] = [
    ("waiting_lines", "Lines on their way.", |s| Some(s.waiting as f64)),
    ("memory_lines", "Lines on their way that are in memory only.", |s| Some(s.waiting_in_memory as f64)),
    ("memory_bytes", "Bytes of lines in memory.", |s| Some(s.waiting_bytes as f64)),
    ("disk_bytes", "Bytes of the spool on the disk.", |s| Some(s.spool_bytes as f64)),
    ("oldest_age_seconds", "How long the oldest line in the spool has waited, to about a segment.", |s| {
        Some(s.oldest_waiting.map_or(0.0, |t| t.as_secs_f64()))
    }),
    ("last_sync_seconds", "How long the last sync of the spool took.", |s| Some(s.last_sync.as_secs_f64())),
    ("retry_delay_seconds", "The pause before the next try; 0 when lines get through.", |s| {
        Some(s.next_try.map_or(0.0, |t| t.as_secs_f64()))
    }),
    ("last_success_timestamp_seconds", "When lines last got through, in seconds since the epoch.", |s| {
        s.last_success.map(|t| t.as_nanos() as f64 / 1e9)
    }),
];

/// What can become of lines, and how many it became of.
type Count = (&'static str, fn(&Stats) -> u64);

const STATES: [Count; 8] = [
    ("accepted", |s| s.accepted),
    ("recovered", |s| s.recovered),
    ("delivered", |s| s.delivered),
    ("rejected", |s| s.rejected),
    ("dropped", |s| s.dropped),
    ("damaged", |s| s.damaged),
    ("refused_full", |s| s.refused_full),
    ("refused_invalid", |s| s.refused_points),
];

const HEALTH: [&str; 5] = ["ok", "retrying", "held", "degraded", "full"];

/// The metrics of buckets, one after the other: each with its target and its name.
pub(crate) fn render(buckets: &[(String, String, Stats)]) -> String {
    let mut out = String::new();
    let label = |(target, bucket, _): &(String, String, Stats)| {
        format!("target=\"{}\",bucket=\"{}\"", escaped(target), escaped(bucket))
    };
    let labels: Vec<String> = buckets.iter().map(label).collect();
    let all = || labels.iter().zip(buckets.iter().map(|(_, _, stats)| stats));
    head(&mut out, "lines_total", "counter", "Lines by what became of them.");
    for (labels, stats) in all() {
        for (state, of) in STATES {
            sample(&mut out, "lines_total", labels, Some(state), &of(stats).to_string());
        }
    }
    for (name, help, of) in GAUGES {
        head(&mut out, name, "gauge", help);
        for (labels, stats) in all() {
            if let Some(value) = of(stats) {
                sample(&mut out, name, labels, None, &value.to_string());
            }
        }
    }
    head(&mut out, "health", "gauge", "How lines get through: 1 for the present state.");
    for (labels, stats) in all() {
        for state in HEALTH {
            let value = if state == health(&stats.health) { "1" } else { "0" };
            sample(&mut out, "health", labels, Some(state), value);
        }
    }
    out
}

/// Gives the same to the recorder that the program has installed.
#[cfg(feature = "metrics")]
pub(crate) fn record(buckets: &[(String, String, Stats)]) {
    for (target, bucket, stats) in buckets {
        let of_state = |state: &'static str| {
            [("target", target.clone()), ("bucket", bucket.clone()), ("state", state.to_owned())]
        };
        for (state, of) in STATES {
            ::metrics::counter!("graylogic_spool_lines_total", &of_state(state)).absolute(of(stats));
        }
        for (name, _, of) in GAUGES {
            if let Some(value) = of(stats) {
                let labels = [("target", target.clone()), ("bucket", bucket.clone())];
                ::metrics::gauge!(format!("graylogic_spool_{name}"), &labels).set(value);
            }
        }
        for state in HEALTH {
            let value = f64::from(u8::from(state == health(&stats.health)));
            ::metrics::gauge!("graylogic_spool_health", &of_state(state)).set(value);
        }
    }
}

fn health(health: &Health) -> &'static str {
    match health {
        Health::Ok => "ok",
        Health::Retrying => "retrying",
        Health::Held(_) => "held",
        Health::Degraded(_) => "degraded",
        Health::Full => "full",
    }
}

fn head(out: &mut String, name: &str, kind: &str, help: &str) {
    // Writing to a string does not fail.
    let _infallible =
        write!(out, "# HELP graylogic_spool_{name} {help}\n# TYPE graylogic_spool_{name} {kind}\n");
}

fn sample(out: &mut String, name: &str, labels: &str, state: Option<&str>, value: &str) {
    let state = state.map_or_else(String::new, |s| format!(",state=\"{s}\""));
    let _infallible = writeln!(out, "graylogic_spool_{name}{{{labels}{state}}} {value}");
}

/// A label's value as the format wants it.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use graylogic_line::Timestamp;
    use std::collections::BTreeMap;
    use std::time::Duration;

    /// Samples by name and labels, read as a scraper reads them.
    fn samples(text: &str) -> BTreeMap<String, f64> {
        let mut found = BTreeMap::new();
        let mut family = String::new();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# ") {
                family = rest.split(' ').nth(1).unwrap().to_owned();
                continue;
            }
            let (name, value) = line.rsplit_once(' ').unwrap();
            assert_eq!(name.split('{').next().unwrap(), family, "samples of a family stand together");
            assert!(found.insert(name.to_owned(), value.parse().unwrap()).is_none(), "{name} stands once");
        }
        found
    }

    #[test]
    fn every_count_and_gauge_of_every_bucket_is_there_once() {
        let one = Stats {
            accepted: 100,
            recovered: 7,
            delivered: 90,
            rejected: 3,
            waiting: 9,
            dropped: 2,
            damaged: 3,
            refused_points: 5,
            refused_full: 6,
            waiting_bytes: 1234,
            waiting_in_memory: 4,
            spool_bytes: u64::from(u32::MAX) * 3,
            oldest_waiting: Some(Duration::from_millis(90_500)),
            last_sync: Duration::from_micros(1500),
            next_try: Some(Duration::from_millis(250)),
            last_success: Some(Timestamp::from_nanos(1_700_000_000_500_000_000)),
            health: Health::Held("token".into()),
            ..Stats::default()
        };
        let text = render(&[
            ("main".to_owned(), "energy".to_owned(), one),
            ("head_office".to_owned(), "a\"b\\c\nd".to_owned(), Stats::default()),
        ]);
        let found = samples(&text);
        let cases = [
            ("lines_total{target=\"main\",bucket=\"energy\",state=\"accepted\"}", 100.0),
            ("lines_total{target=\"main\",bucket=\"energy\",state=\"recovered\"}", 7.0),
            ("lines_total{target=\"main\",bucket=\"energy\",state=\"delivered\"}", 90.0),
            ("lines_total{target=\"main\",bucket=\"energy\",state=\"rejected\"}", 3.0),
            ("lines_total{target=\"main\",bucket=\"energy\",state=\"dropped\"}", 2.0),
            ("lines_total{target=\"main\",bucket=\"energy\",state=\"damaged\"}", 3.0),
            ("lines_total{target=\"main\",bucket=\"energy\",state=\"refused_full\"}", 6.0),
            ("lines_total{target=\"main\",bucket=\"energy\",state=\"refused_invalid\"}", 5.0),
            ("waiting_lines{target=\"main\",bucket=\"energy\"}", 9.0),
            ("memory_lines{target=\"main\",bucket=\"energy\"}", 4.0),
            ("memory_bytes{target=\"main\",bucket=\"energy\"}", 1234.0),
            ("disk_bytes{target=\"main\",bucket=\"energy\"}", 12_884_901_885.0),
            ("oldest_age_seconds{target=\"main\",bucket=\"energy\"}", 90.5),
            ("last_sync_seconds{target=\"main\",bucket=\"energy\"}", 0.0015),
            ("retry_delay_seconds{target=\"main\",bucket=\"energy\"}", 0.25),
            ("last_success_timestamp_seconds{target=\"main\",bucket=\"energy\"}", 1_700_000_000.5),
            ("health{target=\"main\",bucket=\"energy\",state=\"held\"}", 1.0),
            ("health{target=\"main\",bucket=\"energy\",state=\"ok\"}", 0.0),
            ("health{target=\"head_office\",bucket=\"a\\\"b\\\\c\\nd\",state=\"ok\"}", 1.0),
            ("waiting_lines{target=\"head_office\",bucket=\"a\\\"b\\\\c\\nd\"}", 0.0),
        ];
        for (name, value) in cases {
            assert_eq!(found.get(&format!("graylogic_spool_{name}")), Some(&value), "{name} in {text}");
        }
        // Eight counts, seven gauges and five states of health for each, and one success.
        assert_eq!(found.len(), 2 * 20 + 1, "{text}");
        assert!(text.ends_with('\n'));
    }

    /// A recorder that keeps what it is given, as a line of the text has it.
    #[cfg(feature = "metrics")]
    #[derive(Default)]
    struct Recorder(std::sync::Arc<std::sync::Mutex<BTreeMap<String, f64>>>);

    #[cfg(feature = "metrics")]
    mod recorder {
        use super::Recorder;
        use ::metrics::{
            Counter, CounterFn, Gauge, GaugeFn, Histogram, Key, KeyName, Metadata, SharedString, Unit,
        };
        use std::collections::BTreeMap;
        use std::sync::{Arc, Mutex};

        struct Cell(String, Arc<Mutex<BTreeMap<String, f64>>>);

        impl Cell {
            fn new(key: &Key, recorder: &Recorder) -> Arc<Self> {
                let labels: Vec<String> =
                    key.labels().map(|l| format!("{}=\"{}\"", l.key(), l.value())).collect();
                Arc::new(Self(format!("{}{{{}}}", key.name(), labels.join(",")), recorder.0.clone()))
            }

            fn keep(&self, value: f64) {
                self.1.lock().unwrap().insert(self.0.clone(), value);
            }
        }

        impl CounterFn for Cell {
            fn increment(&self, _: u64) {
                panic!("counts are of the client's whole life");
            }
            fn absolute(&self, value: u64) {
                self.keep(value as f64);
            }
        }

        impl GaugeFn for Cell {
            fn increment(&self, _: f64) {
                panic!("gauges are set");
            }
            fn decrement(&self, _: f64) {
                panic!("gauges are set");
            }
            fn set(&self, value: f64) {
                self.keep(value);
            }
        }

        impl ::metrics::Recorder for Recorder {
            fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
            fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
            fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
            fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
                Counter::from_arc(Cell::new(key, self))
            }
            fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
                Gauge::from_arc(Cell::new(key, self))
            }
            fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
                Histogram::noop()
            }
        }
    }

    #[cfg(feature = "metrics")]
    #[test]
    fn a_recorder_is_given_what_the_text_says() {
        let stats = Stats { accepted: 5, health: Health::Full, spool_bytes: 77, ..Stats::default() };
        let buckets = [("main".to_owned(), "house".to_owned(), stats)];
        let recorder = Recorder::default();
        ::metrics::with_local_recorder(&recorder, || record(&buckets));
        assert_eq!(*recorder.0.lock().unwrap(), samples(&render(&buckets)));
    }
}
