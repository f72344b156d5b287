//! The client's one error type: opaque, with the questions a caller asks.

use std::fmt;
use std::time::Duration;

/// What went wrong: a sentence, and predicates for what a caller decides. Never holds a secret.
pub struct Error {
    kind: Kind,
    retryable: bool,
    message: String,
    source: Option<Box<dyn std::error::Error + Send + Sync + 'static>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Disabled,
    NotConnected,
    ConnectionFailed,
    Full,
    InvalidPoint,
    InvalidConfig,
    QueryFailed,
    Unsupported,
    TimedOut,
    NotFound,
    Exists,
    Unauthorized,
    Refused,
}

impl Error {
    pub(crate) fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, retryable: false, message: message.into(), source: None }
    }

    pub(crate) fn retryable(mut self, yes: bool) -> Self {
        self.retryable = yes;
        self
    }

    pub(crate) fn because(
        kind: Kind,
        doing: impl fmt::Display,
        source: impl std::error::Error + Send + Sync + 'static,
    ) -> Self {
        Self { kind, retryable: false, message: format!("{doing}: {source}"), source: Some(Box::new(source)) }
    }

    /// The same in other words.
    pub(crate) fn reworded(mut self, words: impl FnOnce(String) -> String) -> Self {
        self.message = words(self.message);
        self
    }

    pub(crate) fn closed() -> Self {
        Self::new(Kind::NotConnected, "the client is closed: connect again before using it")
    }

    /// True when the configuration switches the client off.
    #[must_use]
    pub fn is_disabled(&self) -> bool {
        self.kind == Kind::Disabled
    }

    /// True when the client is closed.
    #[must_use]
    pub fn is_not_connected(&self) -> bool {
        self.kind == Kind::NotConnected
    }

    /// True when the target could not be reached or opened.
    #[must_use]
    pub fn is_connection_failed(&self) -> bool {
        self.kind == Kind::ConnectionFailed
    }

    /// True when a reading was not accepted, or did not get where it should in time.
    #[must_use]
    pub fn is_write_failed(&self) -> bool {
        matches!(self.kind, Kind::Full | Kind::InvalidPoint | Kind::TimedOut)
    }

    /// True when a reading was not accepted because too many are pending: write it again when there is room
    /// ([`Client::wait_for_room`](crate::Client::wait_for_room)).
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.kind == Kind::Full
    }

    /// True when the reading itself cannot be written: repeating it cannot help.
    #[must_use]
    pub fn is_invalid_point(&self) -> bool {
        self.kind == Kind::InvalidPoint
    }

    /// True when the configuration is wrong; the message names the key.
    #[must_use]
    pub fn is_invalid_config(&self) -> bool {
        self.kind == Kind::InvalidConfig
    }

    /// True when a question could not be answered.
    #[must_use]
    pub fn is_query_failed(&self) -> bool {
        self.kind == Kind::QueryFailed
    }

    /// True when the target cannot do this, whatever it holds; the message says what can.
    #[must_use]
    pub fn is_unsupported(&self) -> bool {
        self.kind == Kind::Unsupported
    }

    /// True when a deadline passed; what was accepted stays accepted.
    #[must_use]
    pub fn is_timed_out(&self) -> bool {
        self.kind == Kind::TimedOut
    }

    /// True when the thing that was named is not there.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.kind == Kind::NotFound
    }

    /// True when there is one already.
    #[must_use]
    pub fn is_exists(&self) -> bool {
        self.kind == Kind::Exists
    }

    /// True when the target does not know the token, or it has not the right to do this.
    #[must_use]
    pub fn is_unauthorized(&self) -> bool {
        self.kind == Kind::Unauthorized
    }

    /// True when the target would not do what it was asked to, for whatever reason.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        matches!(self.kind, Kind::Refused | Kind::NotFound | Kind::Exists | Kind::Unauthorized)
    }

    /// True when the same call may succeed later without anybody changing it.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        self.retryable
    }

    /// How long to wait before trying again, when that is worth it.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.retryable.then_some(Duration::from_secs(1))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Error({:?}: {})", self.kind, self.message)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|e| e as &(dyn std::error::Error + 'static))
    }
}
