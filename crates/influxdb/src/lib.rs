//! A time-series client for building telemetry: writes never wait, nothing accepted is lost silently, and nothing needs
//! to be installed, because the default target is a store in a folder.
//!
//! ```
//! use graylogic_influxdb::{Aggregate, Client, Config, Level, Timestamp};
//! use std::time::Duration;
//!
//! let folder = tempfile::tempdir()?;
//! let client = Client::connect(&Config::embedded(folder.path()))?;
//! client.set_on_error(|error| eprintln!("{error}"));
//!
//! client.write_device_metric("light-living-1", "level", 50.0)?;
//! client.write_energy_metric("hvac-main", 450.0, Some(12.34))?; // draws 450 W, has used 12.34 kWh
//! client.write_phm_metric("pump-2", "vibration_mm_s", 2.1)?;
//! client.flush(Level::Durable, Duration::from_secs(5))?;
//!
//! let latest = client.latest("energy", &[("device_id", "hvac-main")])?;
//! assert_eq!(latest.len(), 2); // power_watts and energy_kwh
//! let hour = Duration::from_secs(3600);
//! let power = client.query_range(
//!     "energy", &[], "power_watts", Timestamp::from_nanos(0), Timestamp::MAX, hour, Aggregate::Mean,
//! )?;
//! assert_eq!(power[0].values[0].1.as_f64(), Some(450.0));
//!
//! let report = client.close(Duration::from_secs(10))?;
//! assert_eq!((report.delivered, report.dropped), (3, 0));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What a write means
//! A `write_*` call that returns `Ok` has accepted the reading: it is encoded, in memory, and will be handed on within
//! 10 ms. It did no I/O and did not wait. A call that returns an error has not accepted it. From then on a reading
//! reaches one [`Level`] after the other: [`Level::Spooled`] (in the store's log, or in the spool: survives `kill -9`),
//! [`Level::Durable`] within a second (survives a power cut), [`Level::Acknowledged`] (the target said yes),
//! [`Level::Delivered`] (the target has it; for VictoriaMetrics this comes later, see [`Config::settle_time`]).
//! [`Client::flush`] and [`Client::close`] wait for them, [`Client::write_durable`] for one reading.
//!
//! At any moment `accepted + recovered = delivered + rejected + waiting + dropped + damaged` ([`Client::stats`]). What is
//! rejected, dropped or damaged, and why, is told to the callback of [`Client::set_on_error`].
//!
//! # Servers
//! With the address of a server as its target, a client spools readings on the disk (or in memory, `spool: off`) and sends
//! them in requests of at most `batch_size` lines at most `flush_interval` apart. InfluxDB 1, 2 and 3 and VictoriaMetrics
//! ([`ServerKind`]) are recognised by their answers, and written to, asked and managed each in its own way; a server of
//! another kind than the configuration says is not written to, once it shows what it is. What waits when a server of another kind takes the place of
//! the one before is put into its words.
//!
//! A client starts while the server is down, unless `connect_strict` is set. A failure that may pass is tried again for ever,
//! with pauses up to a minute; a wrong token, organisation, bucket or address holds the lane until it is mended, and a new
//! token in the configuration file is picked up; lines that the server will never take are kept as dead letters, and
//! exactly those. A server that fails (`500`) proves nothing about a line, unless it takes other lines of the bucket before and
//! after, over minutes. A line may reach the server twice, after a crash or a lost answer, which InfluxDB counts once.
//! VictoriaMetrics does when it runs with `-dedup.minScrapeInterval=1ms`; else its counts and sums are too large.
//!
//! Of several readings of one field for one time the last written counts. VictoriaMetrics is the exception: without
//! deduplication it keeps all of them, and with it one by a rule of its own. It also acknowledges readings before they are on
//! its disk. They are kept for [`Config::settle_time`] and sent again if it was restarted meanwhile; then they count as
//! delivered. What it would drop without an error, because of its retention or its limits, is rejected.
//! In a cluster, the restart of a storing part shows only as a connection that the inserting part lost.
//!
//! Only the documented success of a server that shows what it is counts as delivered, and only its own words reject a line:
//! another program at the address pauses delivery and drops nothing.
//! [`Client::preflight`] finds out beforehand what is wrong with a configuration: each fault is a sentence that names the
//! setting. [`Client::bucket`] writes to other buckets; `create_buckets` makes those that a server has not.
//!
//! Certificates are taken from their files again when those change, without a restart and without a pause. HTTP/2 is spoken
//! where an `https://` server offers it. Requests go through a proxy when the configuration or the environment names one.
//!
//! **A write can be rejected.** Without a spool, and with the embedded store, up to 64 MiB of readings are pending in memory;
//! with a spool 32 MiB, while its disk does not take them. Beyond that a call returns at once with an error of which
//! [`Error::is_full`] and [`Error::is_retryable`] are true, whose message says what is slow. A program that produces readings
//! faster than their target takes them waits instead: [`Client::write_point_timeout`] and [`Client::wait_for_room`] on a plain
//! thread, [`Client::write_point_async`] in asynchronous code.
//!
//! # Questions
//! [`Client::ask`] puts a typed question ([`Query`]: measurement, tags, fields, range, windows, fill, latest) to whatever the
//! target is, in its language (Flux, InfluxQL, SQL, MetricsQL, or the embedded store's scan), and gives the same answer for
//! the same readings. Names and values are compared, never interpreted. [`Client::query`] asks in Flux and gives the rows as they come,
//! as values or as structs of the caller's ([`FluxRows::deserialize`]), with parameters beside the text that cannot change
//! what it means ([`FluxQuery::param`]); [`Client::query_raw`] gives the server's own text.
//!
//! # Managing
//! [`Client::manage`], or [`Manage::connect`] without a client: buckets and how long they keep readings, organisations, tokens,
//! tasks that down-sample, deleting, setting up a fresh server, its health and version. What a target has not is an error
//! that says so ([`Error::is_unsupported`]).
//!
//! # Watching
//! [`Client::stats`] and [`Client::buckets`] count every line; [`Client::metrics`] is the text that Prometheus reads, and with
//! the feature `metrics` the counts are given to the recorder that a program has installed. What happens is told by
//! [`tracing`] events with fields.
//!
//! # Several targets
//! A configuration may name further targets, servers or embedded stores, and rules ([`Route`]) that say by measurement, tag
//! and [`Class`] which readings go where; one reading may go to several. Every bucket of every target has a lane and threads
//! of its own, and every target a spool: one that is dead, slow or full does not delay the others. A call returns `Ok` when
//! at least one destination took the reading; that another had no room for it is told to the callback, and counted in its
//! [`Stats::refused_full`]. Flush, close, health and counts are of all targets; [`Client::target`] and [`Client::bucket`]
//! give a client that writes to one place, and asks it.
//!
//! # Threads
//! All methods take `&self` and are safe from any number of threads. The client owns its threads: it works inside and
//! outside of any asynchronous runtime, and after one was dropped. When one of its threads panics, over a program's logging or
//! callback for example, it starts again with what is not settled; until it has worked again, [`Client::health_check`],
//! [`Client::is_connected`], [`Client::stats`] and the error callback say so. `flush`, `close` and the queries wait and have
//! `_async` forms that do not hold up a runtime.
//!
//! # Configuration
//! See [`Config`]: the section `influxdb` of a YAML file, and `GRAYLOGIC_INFLUXDB_*` over it.
//!
//! # Not supported
//! - a spool on disk in front of the embedded store: readings that were accepted within the last 10 ms are lost by
//!   `kill -9`;
//! - Flux on the embedded store, InfluxDB 3 and VictoriaMetrics: use a typed question;
//! - texts in VictoriaMetrics: a line goes without them, which is told ([`WriteErrorKind::Altered`]), and a line that has
//!   nothing else is refused; times there are whole milliseconds after 1970, and all values floats;
//! - tags that match a regular expression, windows of calendar days, and windows without a value, in typed questions; rules
//!   that change readings, or drop them;
//! - unsigned integers in InfluxDB 1: they are sent as integers, and rejected above [`i64::MAX`];
//! - several requests of one bucket at a time; proxies with SOCKS or `https://`; unix sockets;
//! - InfluxDB 3 and clusters of VictoriaMetrics were tested against servers that answer as their sources say, not against the
//!   programs; InfluxDB 2 against recordings of 2.8.

mod client;
mod clock;
mod config;
mod error;
mod fanout;
mod flux;
mod greeting;
mod lane;
mod manage;
mod metrics;
mod notify;
mod query;
mod route;
mod secret;
mod sender;
mod server;
mod stats;
mod target_sync;
mod worker;

pub use client::{Client, CloseReport, FlushReport, SeriesHandle};
pub use config::{Config, Target, TlsVersion};
pub use error::Error;
pub use flux::annotated_csv::FluxReader;
pub use flux::question::{FluxQuery, FluxRaw, FluxRows};
pub use flux::table::{FluxColumn, FluxItem, FluxRecord, FluxTable, FluxType, FluxValue};
pub use graylogic_durable::{Level, SyncPolicy, WhenFull};
pub use graylogic_line::{EncodeError, FieldRef, FieldValue, Point, Timestamp};
pub use graylogic_store::{Store, Value};
pub use manage::{
    Action, Authorization, AuthorizationUpdate, Bucket, BucketUpdate, CreatedAuthorization, Downsampling,
    HealthStatus, Manage, NewAuthorization, NewBucket, NewTask, Organization, Permission, Predicate,
    ServerHealth, Setup, SetupResult, Task, TaskRun, TaskUpdate, Token,
};
pub use metrics::METRICS_CONTENT_TYPE;
pub use notify::{RefusedLine, WriteError, WriteErrorKind};
pub use query::{Aggregate, Ask, CheckedQuery, Dialogue, Fill, LatestValue, Query, QuerySeries};
pub use route::{Class, Route};
pub use server::kind::ServerKind;
pub use server::preflight::{Check, Preflight, Verdict};
pub use stats::{Health, Stats};
