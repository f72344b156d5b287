//! Where answers and remarks go, and what a value looks like in JSON.

use graylogic_store::{SeriesInfo, Value};
use serde_json::json;
use std::io::Write as _;

/// Prints an answer.
pub(crate) fn answer(text: impl std::fmt::Display) {
    // Whoever closed the pipe has seen enough; what was done is done.
    let _closed_pipe = writeln!(std::io::stdout(), "{text}");
}

/// Prints an answer as JSON.
pub(crate) fn answer_json(value: &serde_json::Value) {
    answer(format_args!("{value:#}"));
}

/// Prints a remark beside the answer.
pub(crate) fn remark(text: impl std::fmt::Display) {
    let _closed_pipe = writeln!(std::io::stderr(), "{text}");
}

/// A value as JSON; 64-bit integers stay exact.
pub(crate) fn json_value(value: &Value) -> serde_json::Value {
    match value {
        Value::Float(v) => json!(v),
        Value::Integer(v) => json!(v),
        Value::Unsigned(v) => json!(v),
        Value::Boolean(v) => json!(v),
        Value::String(v) => json!(&**v),
        _ => serde_json::Value::Null,
    }
}

/// The tags of a series as JSON.
pub(crate) fn json_tags(series: &SeriesInfo) -> serde_json::Value {
    series.tags().map(|(k, v)| (k.to_owned(), json!(v))).collect::<serde_json::Map<_, _>>().into()
}
