//! Parts of the configuration that go together: secrets, certificates, connections, the spool. Pure.

use crate::secret::Secret;
use crate::server::proxy::ProxyChoice;
use graylogic_durable::{Disk, RealDisk, SyncPolicy, WhenFull};
use reqwest::header::HeaderMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Where readings for a server wait when nothing is said.
pub(super) const SPOOL_FOLDER: &str = "./graylogic-spool";

/// The PEM files for connections to a server. Read when connecting, and again when they changed or a handshake failed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct TlsFiles {
    /// Authorities that are trusted in place of the system's.
    pub(crate) ca: Option<PathBuf>,
    /// What this client shows, and the key of it.
    pub(crate) certificate: Option<PathBuf>,
    pub(crate) key: Option<PathBuf>,
}

/// How a server is reached, besides the files of TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ConnectionConfig {
    pub(crate) min_version: TlsVersion,
    /// What the server's certificate must name, when that is not the host of the address.
    pub(crate) server_name: Option<String>,
    pub(crate) proxy: ProxyChoice,
    /// User and password of HTTP Basic authentication; without a user there is none.
    pub(crate) basic_user: String,
    pub(crate) basic_password: Secret,
    /// Sent with each request. The values are marked as sensitive, and not shown.
    pub(crate) headers: HeaderMap,
}

impl ConnectionConfig {
    /// What is wrong between the user and the password of HTTP Basic authentication: the key, and a sentence.
    pub(super) fn basic_mistake(&self) -> Option<(&'static str, String)> {
        if self.basic_user.is_empty() && !self.basic_password.is_empty() {
            return Some((
                "basic_password",
                "is the password of no user; name one in influxdb.basic_user".to_owned(),
            ));
        }
        // What a request could not carry, or a server would read otherwise.
        let is_odd = |c: char| c == ':' || c.is_control();
        self.basic_user.contains(is_odd).then(|| {
            let why = format!(
                "is {:?}; HTTP Basic authentication has no user with a colon or a control character in the name",
                self.basic_user
            );
            ("basic_user", why)
        })
    }
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum TlsVersion {
    /// TLS 1.2.
    #[default]
    Tls12,
    /// TLS 1.3.
    Tls13,
}

/// How readings on their way to a server are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SpoolConfig {
    /// `None`: in memory only.
    pub(crate) folder: Option<PathBuf>,
    pub(crate) sync: SyncPolicy,
    pub(crate) bytes_max: Option<u64>,
    pub(crate) age_max: Option<Duration>,
    pub(crate) when_full: WhenFull,
    /// Never set by a file; tests do.
    pub(crate) backlog_age: Option<Duration>,
    pub(crate) keep_free: Option<u64>,
    pub(crate) clock: Clock,
    pub(crate) disk: SpoolDisk,
}

/// A clock in place of the machine's. No part of what a configuration says.
#[derive(Clone, Debug, Default)]
pub(crate) struct Clock(pub(crate) Option<fn() -> i64>);

impl PartialEq for Clock {
    fn eq(&self, _other: &Self) -> bool {
        true
    }
}

impl Eq for Clock {}

/// What the spool is on. No part of what a configuration says.
#[derive(Clone, Debug)]
pub(crate) struct SpoolDisk(pub(crate) Arc<dyn Disk>);

impl PartialEq for SpoolDisk {
    fn eq(&self, _other: &Self) -> bool {
        true
    }
}

impl Eq for SpoolDisk {}

impl Default for SpoolConfig {
    fn default() -> Self {
        Self {
            folder: Some(SPOOL_FOLDER.into()),
            sync: SyncPolicy::Every(Duration::from_secs(1)),
            bytes_max: None,
            age_max: None,
            when_full: WhenFull::DropOldest,
            backlog_age: None,
            keep_free: None,
            clock: Clock::default(),
            disk: SpoolDisk(Arc::new(RealDisk)),
        }
    }
}
