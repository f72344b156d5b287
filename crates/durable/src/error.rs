//! The crate's one error: a sentence, and the questions a caller decides by.
//!
//! It must not know the log's state; whoever fails says what was being done.

use std::{error, fmt, io, path::Path};

/// Why an operation on the log failed.
///
/// `Display` is a sentence saying what was being done, to which thing, and why it failed.
pub struct Error(Box<Inner>);

struct Inner {
    doing: String,
    why: Why,
}

pub(crate) enum Why {
    /// The operating system's answer.
    Io(io::Error),
    /// The request can never succeed as it is.
    Request(String),
    /// The log is out of order until a sync succeeds.
    Failed(String),
}

impl Error {
    /// The disk, or the user's share of it, is full.
    pub fn is_no_space(&self) -> bool {
        self.kind().is_some_and(|kind| matches!(kind, io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded))
    }

    /// The file system is read-only, or the folder is not ours to write.
    pub fn is_read_only(&self) -> bool {
        self.kind().is_some_and(|kind| matches!(kind, io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied))
    }

    /// Another process, or another open in this one, holds the lock.
    pub fn is_locked(&self) -> bool {
        self.kind() == Some(io::ErrorKind::WouldBlock)
    }

    /// What was read is not what was written. The log answers damage with [`Damage`](crate::Damage), not with errors, so
    /// today only an [`io::Error`] that says so itself makes this true.
    pub fn is_corruption(&self) -> bool {
        self.kind() == Some(io::ErrorKind::InvalidData)
    }

    /// The payload is larger than the log takes, or the count is zero: the same call fails for ever.
    pub fn is_bad_request(&self) -> bool {
        matches!(self.0.why, Why::Request(_))
    }

    /// The same call may succeed later: space is freed, a disk comes back, a sync heals the log.
    pub fn is_retryable(&self) -> bool {
        !self.is_bad_request() && !self.is_corruption()
    }

    pub(crate) fn io(doing: &str, path: &Path, why: io::Error) -> Error {
        Error(Box::new(Inner { doing: format!("{doing} {}", path.display()), why: Why::Io(why) }))
    }

    pub(crate) fn request(doing: &str, path: &Path, why: String) -> Error {
        Error(Box::new(Inner { doing: format!("{doing} {}", path.display()), why: Why::Request(why) }))
    }

    pub(crate) fn failed(doing: &str, path: &Path, why: String) -> Error {
        Error(Box::new(Inner { doing: format!("{doing} {}", path.display()), why: Why::Failed(why) }))
    }

    fn kind(&self) -> Option<io::ErrorKind> {
        match &self.0.why {
            Why::Io(error) => Some(error.kind()),
            Why::Request(_) | Why::Failed(_) => None,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { doing, why } = &*self.0;
        match why {
            Why::Io(error) => write!(f, "{doing}: {error}"),
            Why::Request(why) | Why::Failed(why) => write!(f, "{doing}: {why}"),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Error({self})")
    }
}

impl error::Error for Error {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match &self.0.why {
            Why::Io(error) => Some(error),
            Why::Request(_) | Why::Failed(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_errno_answers_the_questions_a_caller_asks() {
        // errno, no space, read-only, locked, retryable
        let cases = [
            (rustix::io::Errno::NOSPC, true, false, false, true),
            (rustix::io::Errno::DQUOT, true, false, false, true),
            (rustix::io::Errno::ROFS, false, true, false, true),
            (rustix::io::Errno::ACCESS, false, true, false, true),
            (rustix::io::Errno::AGAIN, false, false, true, true),
            (rustix::io::Errno::IO, false, false, false, true),
            (rustix::io::Errno::MFILE, false, false, false, true),
        ];
        for (errno, no_space, read_only, locked, retryable) in cases {
            let error = Error::io("append to", Path::new("/x/0.seg"), errno.into());
            let got = (error.is_no_space(), error.is_read_only(), error.is_locked(), error.is_retryable());
            assert_eq!(got, (no_space, read_only, locked, retryable), "{error}");
            assert!(error.to_string().starts_with("append to /x/0.seg: "), "{error}");
            assert!(error::Error::source(&error).is_some());
        }
        let error = Error::request("append to", Path::new("/x"), "the count is 0".to_owned());
        assert!(error.is_bad_request() && !error.is_retryable() && !error.is_corruption());
    }
}
