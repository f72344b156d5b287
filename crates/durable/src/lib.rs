//! Bytes that survive: a disk that can be simulated, and an append-only log of checksummed frames that recovers.
//!
//! The crate knows nothing about readings, lines, lanes or buckets: a payload is bytes and a count. One [`Log`] serves the
//! embedded store's hot log today; the spool's lanes (cursor, limits, dead letters, writer thread) will stand on the same
//! log, beside it in this crate, and will add nothing to its files.
//!
//! | module | noun |
//! |---|---|
//! | [`disk`] | the one door to the file system: [`Disk`], [`DiskFile`], [`DiskLock`], and the real one |
//! | [`sim`] | a disk in memory that tears, forgets, fails and runs full on command, for everyone's tests |
//! | [`log`] | append, sync, replay, trim |
//! | `segment`, `frame` | the bytes, as `docs/format.md` specifies them |
//!
//! # Example
//! ```
//! use std::{path::Path, sync::Arc};
//! use graylogic_durable::{Entry, Log, LogOptions, SimDisk};
//!
//! let disk = Arc::new(SimDisk::new(1)); // `RealDisk` outside tests
//! let (log, _recovery) = Log::open(disk, Path::new("/hot"), LogOptions::new(7))?;
//! assert_eq!(log.append(b"three readings", 3)?, 0);
//! assert_eq!(log.sync()?, 3); // sequences 0, 1 and 2 survive a power cut from here on
//!
//! let mut replay = log.replay(0);
//! while let Some(entry) = replay.read()? {
//!     match entry {
//!         Entry::Frame(frame) => assert_eq!(frame.payload, b"three readings"),
//!         Entry::Damage(damage) => panic!("{damage}"),
//!     }
//! }
//! # Ok::<(), graylogic_durable::Error>(())
//! ```

pub mod disk;
mod error;
mod frame;
pub mod log;
mod replay;
mod segment;
pub mod sim;

pub use disk::{DirEntry, Disk, DiskFile, DiskLock, OpenMode, RealDisk, Space};
pub use error::Error;
pub use log::{Log, LogCounters, LogOptions, Recovery, SegmentInfo, Trimmed};
pub use replay::{Damage, Entry, Frame, Replay};
pub use sim::SimDisk;
