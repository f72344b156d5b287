//! Numbers and switches of a configuration: how they may be spelled, and within which bounds, for files, the environment and
//! programs alike. Pure; it knows no keys.

use serde_json::Value;
use std::time::Duration;

/// The bounds of a number.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    least: u64,
    most: u64,
    /// What is counted, in the plural.
    unit: &'static str,
}

/// Lines of a request.
pub(super) const BATCH_SIZE: Bounds = Bounds { least: 1, most: 100_000, unit: "lines" };
/// Time between requests.
pub(super) const FLUSH_INTERVAL: Bounds = Bounds { least: 1, most: 3600, unit: "seconds" };
/// Room of the spool.
pub(super) const SPOOL_MEGABYTES: Bounds = Bounds { least: 1, most: 1 << 20, unit: "megabytes" };
/// Age of what is in the spool.
pub(super) const SPOOL_HOURS: Bounds = Bounds { least: 1, most: 87_600, unit: "hours" };
/// Time that lines are kept after VictoriaMetrics acknowledged them.
pub(super) const SETTLE_TIME: Bounds = Bounds { least: 1, most: 3600, unit: "seconds" };
/// Time between syncs of the spool.
const SPOOL_SYNC_MILLISECONDS: Bounds = Bounds { least: 1, most: 60_000, unit: "milliseconds" };

impl Bounds {
    /// The number that a file or a variable gives, or what is wrong with it.
    pub(super) fn read(self, value: &Value) -> Result<u64, String> {
        let Self { least, most, unit } = self;
        let wrong = || format!("is {}; give a whole number of {unit} from {least} to {most}", shown(value));
        whole(value).filter(|n| (least..=most).contains(n)).ok_or_else(wrong)
    }

    /// The nearest number within the bounds to one that a program gives.
    pub(super) fn clamp(self, number: u64) -> u64 {
        number.clamp(self.least, self.most)
    }

    /// The same of a time, for bounds in seconds.
    pub(super) fn clamp_seconds(self, time: Duration) -> Duration {
        time.clamp(Duration::from_secs(self.least), Duration::from_secs(self.most))
    }
}

/// A time that lines settle in, within the bounds; none at all switches that off.
pub(super) fn settle_time(time: Duration) -> Duration {
    time.min(Duration::from_secs(SETTLE_TIME.most))
}

/// Bytes of the spool within the bounds.
pub(super) fn spool_bytes(bytes: u64) -> u64 {
    bytes.clamp(SPOOL_MEGABYTES.least * 1_000_000, SPOOL_MEGABYTES.most * 1_000_000)
}

/// A time between syncs within the bounds.
pub(super) fn sync_time(time: Duration) -> Duration {
    let Bounds { least, most, .. } = SPOOL_SYNC_MILLISECONDS;
    time.clamp(Duration::from_millis(least), Duration::from_millis(most))
}

/// A switch, in any spelling that YAML or a shell user has for it.
pub(super) fn switch(value: &Value) -> Option<bool> {
    match spelled(value) {
        Value::Bool(on) => Some(on),
        Value::Number(number) => match number.as_f64() {
            Some(1.0) => Some(true),
            Some(0.0) => Some(false),
            _ => None,
        },
        Value::String(word) => match word.to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" => Some(true),
            "false" | "no" | "off" => Some(false),
            _ => None,
        },
        _ => None,
    }
}

/// A number that need not be whole.
pub(super) fn number(value: &Value) -> Option<f64> {
    spelled(value).as_f64()
}

fn whole(value: &Value) -> Option<u64> {
    /// Above this floats leave out whole numbers.
    const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
    match spelled(value) {
        Value::Number(number) => number.as_u64().or_else(|| {
            let float = number.as_f64().filter(|f| f.fract() == 0.0 && (0.0..=EXACT_MAX).contains(f))?;
            Some(float as u64)
        }),
        // Other versions of YAML group digits.
        Value::String(digits) => digits.replace('_', "").parse().ok(),
        _ => None,
    }
}

/// A text as YAML reads it without its quotes: a variable has none, and may mean the same as a key in a file.
fn spelled(value: &Value) -> Value {
    let Value::String(text) = value else { return value.clone() };
    let text = text.trim();
    match serde_saphyr::from_str::<Value>(text) {
        Ok(plain @ (Value::Bool(_) | Value::Number(_))) => plain,
        _ => Value::String(text.to_owned()),
    }
}

/// A value as a message shows it, short.
pub(super) fn shown(value: &Value) -> String {
    let text = match value {
        Value::Null => return "empty".into(),
        Value::Array(_) => return "a list".into(),
        Value::Object(_) => return "a section".into(),
        other => other.to_string(),
    };
    match text.char_indices().nth(40) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}
