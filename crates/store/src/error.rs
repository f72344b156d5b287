//! The store's one error type: opaque, with the questions a caller asks.

use std::fmt;
use std::path::Path;

/// What went wrong in the store: a sentence, and predicates for the decisions a caller takes.
///
/// The text says what was being done, to which thing, and why it failed, with the remedy where there is one.
/// It never holds a secret.
pub struct Error {
    kind: Kind,
    message: String,
    source: Option<Box<dyn std::error::Error + Send + Sync + 'static>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The caller asked for something that cannot be: a name, a range, a regular expression.
    Invalid,
    /// A bucket that does not exist.
    NotFound,
    /// A bucket that exists already.
    Exists,
    /// One batch is larger than the store takes at once.
    TooLarge,
    /// Another process has the store open.
    Locked,
    /// The file system has no room.
    NoSpace,
    /// The file system or folder does not let us write.
    ReadOnly,
    /// Bytes on disk are not what was written.
    Corrupt,
    /// Any other failure of the disk or of SQLite.
    Io,
    /// The store was closed.
    Closed,
    /// A sum that the field's type cannot hold.
    Overflow,
}

fn is_shm_size(error: &rusqlite::Error) -> bool {
    error.sqlite_error().is_some_and(|e| e.extended_code == rusqlite::ffi::SQLITE_IOERR_SHMSIZE)
}

impl Error {
    pub(crate) fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), source: None }
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(Kind::Invalid, message)
    }

    pub(crate) fn closed() -> Self {
        Self::new(Kind::Closed, "the store is closed: open it again before using it")
    }

    fn with_source(mut self, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        self.source = Some(Box::new(source));
        self
    }

    /// A failure of the file system while `doing` something.
    pub(crate) fn io(doing: impl fmt::Display, error: std::io::Error) -> Self {
        use std::io::ErrorKind as K;
        let kind = match error.kind() {
            K::StorageFull | K::QuotaExceeded => Kind::NoSpace,
            K::ReadOnlyFilesystem | K::PermissionDenied => Kind::ReadOnly,
            K::WouldBlock => Kind::Locked,
            _ => Kind::Io,
        };
        Self::new(kind, format!("{doing}: {error}")).with_source(error)
    }

    /// A failure of the hot log while `doing` something.
    pub(crate) fn log(doing: impl fmt::Display, error: graylogic_durable::Error) -> Self {
        let kind = if error.is_no_space() {
            Kind::NoSpace
        } else if error.is_read_only() {
            Kind::ReadOnly
        } else if error.is_locked() {
            Kind::Locked
        } else if error.is_corruption() {
            Kind::Corrupt
        } else {
            Kind::Io
        };
        Self::new(kind, format!("{doing}: {error}")).with_source(error)
    }

    /// A failure of SQLite while `doing` something to the store file at `path`.
    pub(crate) fn sqlite(doing: impl fmt::Display, path: &Path, error: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode as C;
        let kind = match error.sqlite_error_code() {
            Some(C::DiskFull) => Kind::NoSpace,
            // The file that connections share their view by cannot be made.
            Some(C::SystemIoFailure) if is_shm_size(&error) => Kind::NoSpace,
            Some(C::ReadOnly | C::PermissionDenied | C::CannotOpen) => Kind::ReadOnly,
            Some(C::DatabaseCorrupt | C::NotADatabase) => Kind::Corrupt,
            // No row is written twice: where SQLite finds one in the way, it is an old one that is back.
            Some(C::ConstraintViolation) => Kind::Corrupt,
            Some(C::DatabaseBusy | C::DatabaseLocked) => Kind::Locked,
            _ if crate::file::is_damage(&error) => Kind::Corrupt,
            _ => Kind::Io,
        };
        let why = if is_shm_size(&error) { " (no room on the disk)" } else { "" };
        Self::new(kind, format!("{doing} in {}: {error}{why}", path.display())).with_source(error)
    }

    /// True when another process has this store open. Remedy: stop it, or talk to it instead.
    #[must_use]
    pub fn is_locked(&self) -> bool {
        self.kind == Kind::Locked
    }

    /// True when the file system is full. Writes are refused until there is room; queries go on.
    #[must_use]
    pub fn is_no_space(&self) -> bool {
        self.kind == Kind::NoSpace
    }

    /// True when the folder or file system does not allow writing.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        self.kind == Kind::ReadOnly
    }

    /// True when the file system as a whole does not: then nobody else writes either.
    pub(crate) fn is_read_only_disk(&self) -> bool {
        let source = self.source.as_ref().and_then(|s| s.downcast_ref::<std::io::Error>());
        source.is_some_and(|e| e.kind() == std::io::ErrorKind::ReadOnlyFilesystem)
    }

    /// True when bytes read back are not what was written.
    #[must_use]
    pub fn is_corruption(&self) -> bool {
        self.kind == Kind::Corrupt
    }

    /// True when the named bucket does not exist.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.kind == Kind::NotFound
    }

    /// True when the bucket to be created exists already.
    #[must_use]
    pub fn is_exists(&self) -> bool {
        self.kind == Kind::Exists
    }

    /// True when one batch is larger than the store takes at once. Remedy: split it.
    #[must_use]
    pub fn is_too_large(&self) -> bool {
        self.kind == Kind::TooLarge
    }

    /// True when the request itself was wrong: repeating it cannot help.
    #[must_use]
    pub fn is_invalid(&self) -> bool {
        self.kind == Kind::Invalid
    }

    /// True when a sum or mean does not fit into the type of its field. Remedy: query shorter windows.
    #[must_use]
    pub fn is_overflow(&self) -> bool {
        self.kind == Kind::Overflow
    }

    /// True when the store was closed before the call.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.kind == Kind::Closed
    }

    /// True when the same call may succeed later without anybody changing it.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self.kind, Kind::Locked | Kind::NoSpace | Kind::ReadOnly | Kind::Io)
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
