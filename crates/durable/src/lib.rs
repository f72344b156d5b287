//! Bytes that survive: a disk that can be simulated, checksummed frames, and a log of segments that is replayed after
//! any end of the process or the power.
//!
//! ```
//! use graylogic_durable::{Log, LogOptions, RealDisk};
//! use std::sync::Arc;
//!
//! let folder = tempfile::tempdir()?;
//! let (log, recovery) = Log::open(Arc::new(RealDisk), folder.path(), LogOptions::new(7))?;
//! assert!(recovery.damage.is_empty());
//! log.append(b"cpu=1", 1)?; // survives the end of the process
//! log.append(b"cpu=2", 1)?;
//! log.sync()?; // survives a power cut
//! for item in log.replay(log.first_sequence()) {
//!     match item {
//!         Ok(frame) => println!("{}: {} bytes", frame.first_sequence, frame.payload.len()),
//!         Err(damage) => eprintln!("{damage}"),
//!     }
//! }
//! log.trim(log.next_sequence())?; // whole segments that nobody needs any more
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Above the log stands the spool: a [`Spool`] is a folder of [`Lane`]s, one for each target and bucket, each a queue of lines
//! with a cursor, dead letters and limits. A [`Queue`] carries lines from many threads through a lane to one sender, and
//! tells how safe they are: [`Level`].
//!
//! What is promised:
//! - an append that returned survives the end of the process; after [`Log::sync`] or [`Lane::sync`] it survives a power cut;
//! - nothing comes out that did not go in: a frame is replayed byte for byte or not at all;
//! - damage costs exactly the frames it hits. Replay goes on behind it and says which numbers are lost;
//! - opening never fails because of what the files hold, and deletes nothing that holds a reading; a full disk opens too;
//! - a full lane drops its oldest lines, or takes no more, as [`WhenFull`] says, and tells what it dropped ([`Dropped`]) and
//!   before that when it will be full ([`LaneStats::full_in`]). Freeing needs no room;
//! - accepted = delivered + dead + dropped + damaged + waiting, at every moment ([`LaneStats`], [`QueueStats`]);
//! - a call of [`Queue::accept`] never waits for a disk.
//!
//! A line may be delivered again after a crash, never lost. Each of these is tested by `tests/torture.rs`, whose whole figures
//! `cargo xtask torture` runs.
//!
//! Not here: encryption, several writers of one folder (take [`Disk::lock`]; [`Spool`] does), network file systems without a
//! working `fdatasync`, what a line means and where it goes.

mod ahead;
mod carve;
mod cursor;
mod damage_notes;
mod dead;
mod disk;
mod error;
mod filling;
mod frame;
mod guard;
mod inspect;
mod lane;
mod lane_notes;
mod log;
mod memory;
mod overlay;
mod passing;
mod pending;
mod queue;
mod roll;
mod settling;
mod sim;
mod spool;
mod unsynced;

pub use carve::{Carved, carve_segment, segment_log_id};
pub use damage_notes::{DamageNotes, Note};
pub use dead::{DeadLetter, DeadLine};
pub use disk::{DirEntry, Disk, DiskFile, DiskLock, OpenMode, RealDisk, Space};
pub use error::Error;
pub use frame::FRAME_HEADER_BYTES;
pub use guard::{GuardedDisk, caught};
pub use inspect::{Checked, Holder, Inspection, Kept, Retried, holder};
pub use lane::{
    Appended, Batch, Dropped, Lane, LaneOptions, LaneReader, LaneRecovery, LaneStats, Lines, NearlyFull,
    Next, WhenFull,
};
pub use log::{
    Damage, Frame, Log, LogOptions, LogStats, Recovery, Replay, SegmentInfo, Trimmed, segment_ids,
};
pub use memory::MemoryDisk;
pub use overlay::OverlayDisk;
pub use queue::{
    DurableBy, Level, News, Outbox, Queue, QueueOptions, QueueStats, Refused, SyncPolicy, Taken, Want, Work,
};
pub use sim::{Call, Fault, IO_ERROR, NO_SPACE, READ_ONLY, SimDisk, TOO_MANY_FILES};
pub use spool::{Spool, is_cut, lanes, listed_as};
