//! Why a command ended early, as one sentence and an exit code.

use crate::output::remark;
use crate::text;
use std::fmt;

/// Something failed.
pub(crate) const FAILED: u8 = 1;
/// Some readings were rejected or dropped; the others are stored.
pub(crate) const SOME_REFUSED: u8 = 3;
/// Readings are pending in the spool: the server has not taken them yet.
pub(crate) const NOT_DELIVERED: u8 = 4;

/// Why a command ended early.
#[derive(Debug)]
pub(crate) struct Failure {
    message: String,
    code: u8,
}

impl Failure {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), code: FAILED }
    }

    /// What was being done, and why it failed.
    pub(crate) fn because(doing: impl fmt::Display, why: impl fmt::Display) -> Self {
        Self::new(format!("{doing}: {why}"))
    }

    pub(crate) fn code(&self) -> u8 {
        self.code
    }

    pub(crate) fn print(&self, json: bool) {
        if json {
            let error = serde_json::json!({ "error": self.message }).to_string();
            remark(text::printable_json(&error));
        } else {
            remark(format_args!("graylogic: {}", self.message));
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<graylogic_influxdb::Error> for Failure {
    fn from(error: graylogic_influxdb::Error) -> Self {
        Self::new(error.to_string())
    }
}

impl From<graylogic_durable::Error> for Failure {
    fn from(error: graylogic_durable::Error) -> Self {
        Self::new(error.to_string())
    }
}

impl From<graylogic_store::Error> for Failure {
    fn from(error: graylogic_store::Error) -> Self {
        Self::new(error.to_string())
    }
}
