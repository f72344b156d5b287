//! The one error type of durable code: opaque, with the questions a caller asks.

use std::fmt;
use std::io;

/// Why bytes could not be kept or read back: a sentence, and predicates for the decisions a caller takes.
#[derive(Debug)]
pub struct Error {
    message: String,
    kind: io::ErrorKind,
    full: bool,
    source: Option<io::Error>,
}

impl Error {
    pub(crate) fn io(doing: impl fmt::Display, source: io::Error) -> Self {
        let kind = match source.raw_os_error() {
            Some(code) => io::Error::from_raw_os_error(code).kind(),
            None => source.kind(),
        };
        Self { message: format!("{doing}: {source}"), kind, full: false, source: Some(source) }
    }

    pub(crate) fn plain(kind: io::ErrorKind, message: String) -> Self {
        Self { message, kind, full: false, source: None }
    }

    /// Code that was called on the way panicked.
    pub(crate) fn panicked(doing: &str, panic: &str) -> Self {
        Self::plain(io::ErrorKind::Other, format!("{doing}: a panic: {panic}"))
    }

    /// The same, of a lane that has reached its limits.
    pub(crate) fn full(mut self) -> Self {
        self.full = true;
        self
    }

    /// True when a lane has reached its limits and takes no more.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.full
    }

    /// True when the file system has no room.
    #[must_use]
    pub fn is_no_space(&self) -> bool {
        is_no_space(self.kind)
    }

    /// True when the folder or file system does not allow writing.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        matches!(self.kind, io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied)
    }

    /// True when somebody else holds the lock.
    #[must_use]
    pub fn is_locked(&self) -> bool {
        self.kind == io::ErrorKind::WouldBlock
    }

    /// True when what was asked cannot be done with any disk: a payload above the limit.
    #[must_use]
    pub fn is_invalid(&self) -> bool {
        self.kind == io::ErrorKind::InvalidInput
    }

    /// True when bytes read back are not what was written.
    #[must_use]
    pub fn is_corruption(&self) -> bool {
        self.kind == io::ErrorKind::InvalidData
    }

    /// True when the same call may succeed later without anybody changing it.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        !self.is_invalid() && !self.is_corruption()
    }
}

pub(crate) fn is_no_space(kind: io::ErrorKind) -> bool {
    matches!(kind, io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge)
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|e| e as &(dyn std::error::Error + 'static))
    }
}
