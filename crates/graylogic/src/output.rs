//! Where answers and remarks go, and what a value looks like in JSON.

use crate::failure::Failure;
use crate::text;
use graylogic_store::{SeriesInfo, Value};
use serde_json::json;
use std::io::{self, Write as _};
use std::sync::{Mutex, PoisonError};

/// Why answers cannot be written, once they cannot.
static UNWRITTEN: Mutex<Option<io::Error>> = Mutex::new(None);

/// Prints an answer for people: what would control a terminal is shown in its place.
pub(crate) fn answer(text: impl std::fmt::Display) {
    print(&text::printable(&text.to_string()));
}

/// Prints an answer as JSON. What would control a terminal is escaped, and means the same.
pub(crate) fn answer_json(value: &serde_json::Value) {
    print(&text::printable_json(&format!("{value:#}")));
}

fn print(text: &str) {
    match writeln!(io::stdout(), "{text}") {
        // The reader who closed the pipe has seen enough; what was done is done.
        Err(why) if why.kind() != io::ErrorKind::BrokenPipe => failed(why),
        _ => {}
    }
}

fn failed(why: io::Error) {
    UNWRITTEN.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(why);
}

/// Ends the answers.
///
/// # Errors
/// When some of them could not be written.
pub(crate) fn finish() -> Result<(), Failure> {
    match io::stdout().flush() {
        Err(why) if why.kind() != io::ErrorKind::BrokenPipe => failed(why),
        _ => {}
    }
    match UNWRITTEN.lock().unwrap_or_else(PoisonError::into_inner).take() {
        Some(why) => Err(Failure::because("write the answer to standard output", why)),
        None => Ok(()),
    }
}

/// Prints a remark beside the answer: what would control a terminal is shown in its place.
pub(crate) fn remark(text: impl std::fmt::Display) {
    let _closed_pipe = writeln!(io::stderr(), "{}", text::printable(&text.to_string()));
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
