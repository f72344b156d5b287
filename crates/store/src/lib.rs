//! An embedded time-series store for building telemetry: nothing to install, one folder.
//!
//! ```
//! use graylogic_store::{Selector, Store, StoreOptions, TimeRange, Windows, WriteOptions};
//! use std::time::Duration;
//!
//! let folder = tempfile::tempdir()?;
//! let store = Store::open(folder.path(), StoreOptions::default())?;
//! store.ensure_bucket("telemetry")?;
//!
//! let lines = b"energy,device_id=hvac power_watts=450.0 1700000000000000000\n\
//!               energy,device_id=hvac power_watts=470.0 1700000060000000000\n\
//!               energy,device_id=hvac power_watts=oops 1700000120000000000";
//! let report = store.write_lines("telemetry", lines, &WriteOptions::now())?;
//! assert_eq!((report.points, report.rejected_count), (2, 1));
//! assert_eq!(report.rejected[0].reason, "invalid boolean"); // in InfluxDB 2.8's words
//!
//! let power = Selector::bucket("telemetry").measurement("energy").field("power_watts");
//! let hours = Windows::every(Duration::from_secs(3600))?;
//! let found = store.windows(&power, TimeRange::all(), &hours)?;
//! assert_eq!(found[0].windows[0].summary.mean()?, Some(460.0));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What "written" means
//! When [`Store::write_lines`] returns, the lines are one record in the hands of the operating system: they are there
//! after the process is killed, all of them or none. When they are safe from a power cut is a setting, [`Sync`]:
//! - [`Sync::EachWrite`]: when the call returns;
//! - [`Sync::Every`]: at most that long after (the default is one second; ten spare an SD card).
//!
//! # How it works
//! A write goes to the hot log (`graylogic-durable`), then to a tail in memory for each series. A tail of about 2,000
//! readings becomes a compressed chunk in a SQLite file, about one byte a reading on building data; then the log lets
//! go of it. Questions read chunks, tails on their way into chunks, and tails. Of several readings of one series and
//! time the one written last counts.
//!
//! # Errors
//! All are [`Error`]: ask it what to do ([`Error::is_retryable`], [`Error::is_no_space`], ...). Lines that cannot be stored
//! are no errors but part of the [`WriteReport`], each with its number and reason.
//!
//! Chunks of complete days are compacted in the background at a quarter of a core at most: late and repeated readings
//! find their place, deleted and expired ones go, and each hour gets its figures, from which windows of whole hours are
//! answered, unless its readings are few.
//!
//! # Which reading counts
//! Of readings of one field for one time the one written last, in whatever layer they are. The fields of one time are
//! united. A field has one type per bucket and measurement; a line that says otherwise is dropped and named.
//!
//! # Which timestamps are believed
//! Readings with a timestamp before 2000, or more than an hour ahead of the store's clock, come from a clock that is wrong.
//! They are stored in quarantine, where no query meets them ([`Store::quarantine`]), unless the caller wants them as they are
//! ([`WriteOptions::any_time`]). [`Store::latest`] leaves out what lies ahead. Lines without a timestamp get one when they
//! arrive, each its own.
//!
//! # Damage
//! Every row and every record has a checksum. What is not as it was written is left out of answers, counted in
//! [`Stats::damaged_total`], and named by [`Store::verify`]; [`Store::salvage`] saves the rest into a new folder. No
//! damage makes a wrong value, and opening deletes nothing.
//!
//! The store file and the hot log carry the same identity and know of each other: a half that is missing, emptied, older than
//! the other or another store's is noticed on opening, set aside in `damaged/`, and described in [`Store::recovery`] and by
//! [`Store::verify`] until [`Store::settle`] accepts the damage. The store goes on meanwhile; no number of a series or bucket is
//! given twice.
//!
//! A store file that is damaged inside and takes no more commits is written anew from every chunk whose bytes are good, while
//! the store runs and if the disk has room for the copy; the damaged one is kept in `damaged/`.
//!
//! # Not supported
//! - a folder that is mounted read-only here while somebody writes to it elsewhere;
//! - backup while the store is open: copy the folder after [`Store::close`];
//! - several processes on one folder, and network file systems without a working `fdatasync` or `flock`;
//! - batches above 32 MiB of line protocol.

mod admin;
mod arrival;
mod aside;
mod bytes;
mod catalog;
mod chunk;
mod chunk_frame;
mod column;
mod compact;
mod core;
mod error;
mod fields;
mod file;
mod halves;
mod key;
mod limits;
mod mark;
mod marking;
mod open;
mod quarantine;
mod rebuild;
mod recompress;
mod record;
mod repeats;
mod replay;
mod rollup;
mod salvage;
mod scan;
mod selector;
mod store;
mod tail;
mod total;
mod value;
mod window;
mod worker;
mod write;

pub use catalog::SeriesInfo;
pub use error::Error;
pub use quarantine::{Quarantine, Released};
pub use salvage::Salvaged;
pub use scan::{Block, Scan};
pub use selector::{Matcher, Selector};
pub use store::{
    BucketInfo, Latest, Recovery, SeriesBounds, SeriesWindows, State, Stats, Store, StoreOptions, Sync,
    VerifyReport,
};
pub use value::{Value, Values};
pub use window::{Summary, TimeRange, Window, Windows};
pub use write::{BadLine, RejectKind, Rejected, Times, WriteOptions, WriteReport};
