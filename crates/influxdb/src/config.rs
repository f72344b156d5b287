//! The configuration: what it can say, in types that cannot be wrong. How it is read from YAML and the environment is in
//! `config/read.rs`.

mod read;
mod settings;
mod values;
mod yaml;

use crate::error::{Error, Kind};
use crate::route::Route;
use crate::secret::Secret;
use crate::server::kind::ServerKind;
use graylogic_durable::{Disk, GuardedDisk, SyncPolicy, WhenFull};
use reqwest::header::{HeaderName, HeaderValue};
use settings::{Clock, SPOOL_FOLDER, SpoolDisk};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

pub(crate) use read::as_named;
pub use settings::TlsVersion;
pub(crate) use settings::{ConnectionConfig, SpoolConfig, TlsFiles};

/// Most headers of a user's, and most bytes of one's value: what servers take at least.
const HEADERS_MAX: usize = 32;
const HEADER_BYTES_MAX: usize = 4096;
/// Headers that each request sets for itself, or that belong to the connection; and those that begin so.
const HEADERS_OURS: [&str; 12] = [
    "accept",
    "accept-encoding",
    "authorization",
    "connection",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];
const HEADERS_OURS_BEGIN: [&str; 2] = ["content-", "proxy-"];

/// How a client connects.
///
/// ```
/// use graylogic_influxdb::Config;
///
/// let config = Config::from_yaml("influxdb:\n  url: embedded:/var/lib/graylogic\n  bucket: house\n")?;
/// assert_eq!(config.bucket(), "house");
///
/// let error = Config::from_yaml("influxdb:\n  buket: house\n").unwrap_err();
/// assert_eq!(error.to_string(), "configuration, line 2: influxdb.buket is no key; did you mean bucket?");
/// # Ok::<(), graylogic_influxdb::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    enabled: bool,
    target: Target,
    query_url: Option<String>,
    kind: Option<ServerKind>,
    token: Secret,
    org: String,
    bucket: String,
    batch_size: usize,
    flush_interval: Duration,
    connect_strict: bool,
    create_buckets: bool,
    any_time: bool,
    tls: TlsFiles,
    connection: ConnectionConfig,
    spool: SpoolConfig,
    settle_time: Duration,
    hurry: u32,
    source: Source,
    further: Vec<Further>,
    routes: Vec<Route>,
}

/// A further target.
#[derive(Clone, Debug, PartialEq)]
struct Further {
    name: String,
    config: Config,
    /// Nobody said where it spools: in a folder beside that of the main target.
    spools_beside: bool,
}

/// Where a configuration came from, and a new token may be found. No part of what it says.
#[derive(Clone, Debug, Default)]
struct Source {
    origin: Origin,
    /// The further target that it is there; `None` for the section itself.
    target: Option<String>,
}

/// Where the token of a configuration came from.
#[derive(Clone, Debug, Default)]
enum Origin {
    /// A program gave it, or the text of a configuration with an environment of its own.
    #[default]
    Program,
    /// A text, with the environment of the process over it.
    Environment,
    /// A file, with the environment of the process over it.
    File(PathBuf),
}

impl PartialEq for Source {
    fn eq(&self, _other: &Self) -> bool {
        true
    }
}

/// Where readings go.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Target {
    /// The embedded store in this folder.
    Embedded(PathBuf),
    /// A server at this address.
    Remote(String),
}

impl Default for Config {
    /// The embedded store in `./graylogic-data`, organisation `graylogic`, bucket `metrics`, batches of 100 lines at
    /// most 10 s apart; readings for a server are spooled in `./graylogic-spool`.
    fn default() -> Self {
        Self {
            enabled: true,
            target: Target::Embedded("./graylogic-data".into()),
            query_url: None,
            kind: None,
            token: Secret::default(),
            org: "graylogic".into(),
            bucket: "metrics".into(),
            batch_size: 100,
            flush_interval: Duration::from_secs(10),
            connect_strict: false,
            create_buckets: false,
            any_time: false,
            tls: TlsFiles::default(),
            connection: ConnectionConfig::default(),
            spool: SpoolConfig::default(),
            settle_time: Duration::from_secs(30),
            hurry: 1,
            source: Source::default(),
            further: Vec::new(),
            routes: Vec::new(),
        }
    }
}

impl Config {
    /// The embedded store in a folder, everything else by default.
    #[must_use]
    pub fn embedded(folder: impl Into<PathBuf>) -> Self {
        Self { target: Target::Embedded(folder.into()), ..Self::default() }
    }

    /// The server at an address, everything else by default.
    ///
    /// # Errors
    /// [`Error::is_invalid_config`] when it is no address.
    pub fn remote(url: &str) -> Result<Self, Error> {
        let target =
            read::target(url).map_err(|why| Error::new(Kind::InvalidConfig, format!("the address {why}")))?;
        Ok(Self { target, ..Self::default() })
    }

    /// Switches the client on or off.
    #[must_use]
    pub fn with_enabled(mut self, enabled: bool) -> Self {
        self.enabled = enabled;
        self
    }

    /// Names the bucket that readings go to.
    #[must_use]
    pub fn with_bucket(mut self, bucket: impl Into<String>) -> Self {
        self.bucket = bucket.into();
        self
    }

    /// Adds a further target: readings go there as rules say, and as [`Client::target`](crate::Client::target) is asked for.
    ///
    /// Unless the configuration says where it spools, it does so in a folder beside that of the main target, whose name ends
    /// in a dot and the target's. The name has up to 32 characters of `a-z`, `0-9`, `-` and `_`; mistakes are told when
    /// connecting.
    #[must_use]
    pub fn with_further_target(mut self, name: impl Into<String>, mut config: Self) -> Self {
        let name = name.into();
        if !matches!(config.source.origin, Origin::File(_)) {
            // Never the token of the main target, which is another server's.
            config.source.target = Some(name.clone());
        }
        let spools_beside = config.spool.folder.as_deref() == Some(Path::new(SPOOL_FOLDER));
        self.further.push(Further { name, config, spools_beside });
        self
    }

    /// Adds a rule behind those that are there.
    #[must_use]
    pub fn with_route(mut self, route: Route) -> Self {
        self.routes.push(route);
        self
    }

    /// The further targets by their names, each with a configuration of its own.
    #[must_use]
    pub fn further_targets(&self) -> Vec<(String, Self)> {
        let of = |further: &Further| {
            let mut config = further.config.clone();
            config.spool.folder = self.spool_of(further);
            (further.name.clone(), config)
        };
        self.further.iter().map(of).collect()
    }

    /// The rules, in their order.
    #[must_use]
    pub fn routes(&self) -> &[Route] {
        &self.routes
    }

    /// Sets the target. A token that a file or the environment gets later is not taken for another target than theirs.
    #[must_use]
    pub fn with_target(mut self, target: Target) -> Self {
        if self.target != target {
            self.source.origin = Origin::Program;
        }
        self.target = target;
        self
    }

    /// Whether readings are stored at all.
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        self.enabled
    }

    /// Where readings go.
    #[must_use]
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// Where questions go, when that is not where readings go.
    #[must_use]
    pub fn query_url(&self) -> Option<&str> {
        self.query_url.as_deref()
    }

    /// Sends questions to another address than readings: to `vmselect` of a VictoriaMetrics cluster.
    ///
    /// # Errors
    /// [`Error::is_invalid_config`] when it is no address.
    pub fn with_query_url(mut self, url: &str) -> Result<Self, Error> {
        match read::target(url) {
            Ok(Target::Remote(url)) => {
                if self.query_url.as_ref() != Some(&url) {
                    self.source.origin = Origin::Program;
                }
                self.query_url = Some(url);
            }
            Ok(_) => {
                let message = format!("the address of questions is {url:?}; give http://HOST:PORT");
                return Err(Error::new(Kind::InvalidConfig, message));
            }
            Err(why) => {
                return Err(Error::new(Kind::InvalidConfig, format!("the address of questions {why}")));
            }
        }
        Ok(self)
    }

    /// The kind of the server; `None` when it is recognised by its answers.
    #[must_use]
    pub fn server_kind(&self) -> Option<ServerKind> {
        self.kind
    }

    /// Says of which kind the server is; `None`: it is recognised by its answers.
    #[must_use]
    pub fn with_server_kind(mut self, kind: Option<ServerKind>) -> Self {
        self.kind = kind;
        self
    }

    /// The organisation.
    #[must_use]
    pub fn org(&self) -> &str {
        &self.org
    }

    /// The bucket.
    #[must_use]
    pub fn bucket(&self) -> &str {
        &self.bucket
    }

    /// Most lines of a request to a server. The embedded store takes what has gathered.
    #[must_use]
    pub fn batch_size(&self) -> usize {
        self.batch_size
    }

    /// Longest time between requests to a server. The embedded store is given readings within 10 ms.
    #[must_use]
    pub fn flush_interval(&self) -> Duration {
        self.flush_interval
    }

    /// Sets the token. It stays the one that is sent: a server that rejects it is not sent another from a file or from the
    /// environment.
    #[must_use]
    pub fn with_token(mut self, token: impl Into<String>) -> Self {
        self.source.origin = Origin::Program;
        self.token = Secret(token.into());
        self
    }

    /// Sets the organisation.
    #[must_use]
    pub fn with_org(mut self, org: impl Into<String>) -> Self {
        self.org = org.into();
        self
    }

    /// Sets the most lines, from 1 to 100,000, and the longest time between requests to a server, from 1 s to an hour. What is
    /// outside of these bounds, which are those of the configuration file, is moved to the nearest of them.
    #[must_use]
    pub fn with_batches(mut self, lines: usize, interval: Duration) -> Self {
        self.batch_size = values::BATCH_SIZE.clamp(lines as u64) as usize;
        self.flush_interval = values::FLUSH_INTERVAL.clamp_seconds(interval);
        self
    }

    /// [`Config::with_batches`] with any interval: for tests, which do not wait for a second.
    #[doc(hidden)]
    #[must_use]
    pub fn with_quick_batches(self, lines: usize, interval: Duration) -> Self {
        Self { flush_interval: interval, ..self.with_batches(lines, interval) }
    }

    /// How long readings are kept after VictoriaMetrics has acknowledged them, which it does before they are on its disk:
    /// when it was killed in between, they are sent again. Zero: not at all. Other servers write before they acknowledge.
    #[must_use]
    pub fn settle_time(&self) -> Duration {
        self.settle_time
    }

    /// Sets how long readings are kept after VictoriaMetrics has acknowledged them; see [`Config::settle_time`].
    #[must_use]
    pub fn with_settle_time(mut self, time: Duration) -> Self {
        self.settle_time = values::settle_time(time);
        self
    }

    /// Keeps readings on their way to a server in a folder; `None`: in memory only.
    #[must_use]
    pub fn with_spool(mut self, folder: Option<PathBuf>) -> Self {
        self.spool.folder = folder;
        self
    }

    /// Stores readings of any time in the embedded store, history and forecasts. Without it, readings with a timestamp
    /// before 2000 or more than an hour ahead of the clock go into the store's quarantine. Has no effect on servers, which
    /// have rules of their own.
    #[must_use]
    pub fn with_any_time(mut self, any: bool) -> Self {
        self.any_time = any;
        self
    }

    /// Sets when the spool is synced; a time is kept between 1 ms and 60 s.
    #[must_use]
    pub fn with_spool_sync(mut self, policy: SyncPolicy) -> Self {
        self.spool.sync = match policy {
            SyncPolicy::Every(time) => SyncPolicy::Every(values::sync_time(time)),
            other => other,
        };
        self
    }

    /// Limits the bytes of the spool, to at least a megabyte.
    #[must_use]
    pub fn with_spool_bytes_max(mut self, bytes: u64) -> Self {
        self.spool.bytes_max = Some(values::spool_bytes(bytes));
        self
    }

    /// [`Config::with_spool_bytes_max`] with any limit: for tests, which fill it.
    #[doc(hidden)]
    #[must_use]
    pub fn with_small_spool(mut self, bytes: u64) -> Self {
        self.spool.bytes_max = Some(bytes);
        self
    }

    /// Sets what happens when the spool is full.
    #[must_use]
    pub fn with_spool_when_full(mut self, what: WhenFull) -> Self {
        self.spool.when_full = what;
        self
    }

    /// Whether connecting fails when the server does not answer, or refuses the token or the bucket. Else readings are
    /// spooled until it does.
    #[must_use]
    pub fn with_connect_strict(mut self, strict: bool) -> Self {
        self.connect_strict = strict;
        self
    }

    /// Whether a bucket that an InfluxDB 1 or 2 has not is made, to keep readings for ever, when there are readings for it.
    /// Others make theirs themselves.
    #[must_use]
    pub fn with_create_buckets(mut self, create: bool) -> Self {
        self.create_buckets = create;
        self
    }

    /// Trusts the authorities in a PEM file, in place of the system's.
    #[must_use]
    pub fn with_ca_file(mut self, file: impl Into<PathBuf>) -> Self {
        self.tls.ca = Some(file.into());
        self
    }

    /// Shows the server a certificate, with the key of it, each in a PEM file. Neither is ever logged or shown.
    #[must_use]
    pub fn with_client_certificate(
        mut self,
        certificate: impl Into<PathBuf>,
        key: impl Into<PathBuf>,
    ) -> Self {
        (self.tls.certificate, self.tls.key) = (Some(certificate.into()), Some(key.into()));
        self
    }

    /// Refuses servers that speak only older versions of TLS. TLS 1.2 unless set.
    #[must_use]
    pub fn with_tls_min_version(mut self, version: TlsVersion) -> Self {
        self.connection.min_version = version;
        self
    }

    /// The name that the server's certificate must have, where the address has another one or none: requests still go to
    /// the host of the address, but name the server so, in TLS (SNI) and in the header `Host`. Empty: the host's own name.
    ///
    /// # Errors
    /// [`Error::is_invalid_config`] when it is no name.
    pub fn with_tls_server_name(mut self, name: &str) -> Result<Self, Error> {
        let wrong = |why| Error::new(Kind::InvalidConfig, format!("the server's name {why}"));
        self.connection.server_name = read::server_name(name).map_err(wrong)?;
        Ok(self)
    }

    /// Sends requests through a proxy, `http://[user:password@]host:port`, or through none, `off`. Empty: through the one
    /// that the environment names for the server, which is never one for this machine itself. User and password are never
    /// logged or shown.
    ///
    /// # Errors
    /// [`Error::is_invalid_config`] when it is no address of a proxy.
    pub fn with_proxy(mut self, address: &str) -> Result<Self, Error> {
        let wrong = |why| Error::new(Kind::InvalidConfig, format!("the proxy {why}"));
        self.connection.proxy = read::proxy(address).map_err(wrong)?;
        Ok(self)
    }

    /// Shows the server, or the proxy in front of it, a user and a password with HTTP Basic authentication, whatever kind of
    /// server it is. They take the place of the token in each request, which has room for one of the two: a proxy in front of
    /// an InfluxDB 2 must add the token itself. The password is never logged or shown.
    ///
    /// # Errors
    /// [`Error::is_invalid_config`] when the user is empty or has a colon, which would begin the password.
    pub fn with_basic_auth(mut self, user: &str, password: &str) -> Result<Self, Error> {
        self.connection.basic_user = user.to_owned();
        self.connection.basic_password = Secret(password.to_owned());
        let nobody =
            user.is_empty().then(|| ("basic_user", "is empty; give the name of the user".to_owned()));
        match nobody.or_else(|| self.connection.basic_mistake()) {
            None => Ok(self),
            Some((key, why)) => Err(Error::new(Kind::InvalidConfig, format!("influxdb.{key} {why}"))),
        }
    }

    /// User and password of HTTP Basic authentication.
    pub(crate) fn basic(&self) -> Option<(&str, &Secret)> {
        let ConnectionConfig { basic_user, basic_password, .. } = &self.connection;
        (!basic_user.is_empty()).then_some((basic_user, basic_password))
    }

    /// Adds a header to each request. Its value is never logged or shown.
    ///
    /// # Errors
    /// [`Error::is_invalid_config`] when requests cannot carry it, or set it themselves.
    pub fn with_header(mut self, name: &str, value: &str) -> Result<Self, Error> {
        self.add_header(name, value)
            .map_err(|why| Error::new(Kind::InvalidConfig, format!("the list of headers {why}")))?;
        Ok(self)
    }

    fn add_header(&mut self, name: &str, value: &str) -> Result<(), String> {
        let headers = &mut self.connection.headers;
        let wrong = |why: &str| format!("has a header {name:?}, {why}");
        let header = HeaderName::try_from(name)
            .map_err(|_| wrong("which is no name of one; use letters, digits and -"))?;
        let is = header.as_str();
        if is == "authorization" {
            let instead = "which shows the token; set influxdb.token, or influxdb.basic_user and influxdb.basic_password, \
                           instead";
            return Err(wrong(instead));
        }
        if HEADERS_OURS.contains(&is) || HEADERS_OURS_BEGIN.iter().any(|b| is.starts_with(b)) {
            return Err(wrong("which requests set themselves; take it out"));
        }
        if value.len() > HEADER_BYTES_MAX {
            return Err(wrong(&format!("whose value is longer than {HEADER_BYTES_MAX} bytes")));
        }
        if headers.contains_key(&header) {
            return Err(wrong("which is there already, in upper or lower case; give one"));
        }
        if headers.len() == HEADERS_MAX {
            return Err(wrong(&format!("which is one more than {HEADERS_MAX}; take some out")));
        }
        let mut value = HeaderValue::try_from(value).map_err(|_| {
            wrong("whose value holds a line feed or another character that no request can carry")
        })?;
        value.set_sensitive(true);
        headers.insert(header, value);
        Ok(())
    }

    /// Makes pauses between tries so many times shorter: for tests.
    #[doc(hidden)]
    #[must_use]
    pub fn with_hurry(mut self, times: u32) -> Self {
        self.hurry = times.max(1);
        self.further.iter_mut().for_each(|f| f.config.hurry = self.hurry);
        self
    }

    /// After an outage of this length new readings go first: for tests, which do not wait for five minutes.
    #[doc(hidden)]
    #[must_use]
    pub fn with_backlog_age(mut self, age: Duration) -> Self {
        self.spool.backlog_age = Some(age);
        self
    }

    /// Bytes that the spool leaves free on its file system: for tests on a small one.
    #[doc(hidden)]
    #[must_use]
    pub fn with_spool_keep_free(mut self, bytes: u64) -> Self {
        self.spool.keep_free = Some(bytes);
        self
    }

    /// Where the spool takes the time from, in nanoseconds since the epoch: for tests whose clock jumps.
    #[doc(hidden)]
    #[must_use]
    pub fn with_spool_clock(mut self, clock: fn() -> i64) -> Self {
        self.spool.clock = Clock(Some(clock));
        self
    }

    /// The disk that the spool is on: for tests of one that hangs, fails or panics.
    #[doc(hidden)]
    #[must_use]
    pub fn with_spool_disk(mut self, disk: Arc<dyn Disk>) -> Self {
        self.spool.disk = SpoolDisk(Arc::new(GuardedDisk::new(disk)));
        self
    }

    /// Refuses what a program gave and a file cannot: names that are nothing.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let nothing = |path: Option<&Path>| path.is_some_and(|p| p.as_os_str().is_empty());
        let store = match &self.target {
            Target::Embedded(folder) => Some(folder.as_path()),
            Target::Remote(_) => None,
        };
        let file = "name a file, or leave it out";
        let empty = [
            ("bucket", self.bucket.is_empty(), "give the bucket a name"),
            ("url", nothing(store), "write embedded:FOLDER"),
            ("spool", nothing(self.spool_folder()), "name a folder, or write off"),
            ("ca_file", nothing(self.tls.ca.as_deref()), file),
            ("certificate_file", nothing(self.tls.certificate.as_deref()), file),
            ("key_file", nothing(self.tls.key.as_deref()), file),
        ];
        match empty.into_iter().find(|(_, is_empty, _)| *is_empty) {
            None => Ok(()),
            Some((key, _, remedy)) => {
                Err(Error::new(Kind::InvalidConfig, format!("influxdb.{key} is empty; {remedy}")))
            }
        }
    }

    pub(crate) fn hurry(&self) -> u32 {
        self.hurry
    }

    pub(crate) fn creates_buckets(&self) -> bool {
        self.create_buckets
    }

    /// Whether the embedded store takes readings of any time.
    #[must_use]
    pub fn takes_any_time(&self) -> bool {
        self.any_time
    }

    pub(crate) fn is_strict(&self) -> bool {
        self.connect_strict
    }

    pub(crate) fn tls(&self) -> &TlsFiles {
        &self.tls
    }

    pub(crate) fn connection(&self) -> &ConnectionConfig {
        &self.connection
    }

    pub(crate) fn spool(&self) -> &SpoolConfig {
        &self.spool
    }

    /// The folder of the spool; `None` when readings on their way are in memory only.
    #[must_use]
    pub fn spool_folder(&self) -> Option<&Path> {
        self.spool.folder.as_deref()
    }

    pub(crate) fn token(&self) -> &Secret {
        &self.token
    }

    /// Whether there is a token.
    #[must_use]
    pub fn has_token(&self) -> bool {
        !self.token.0.is_empty()
    }
}
