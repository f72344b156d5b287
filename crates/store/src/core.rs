//! What the callers and the workers of an open store share, and what memory holds of it, behind one short lock.

use crate::arrival::Arrivals;
use crate::catalog::Catalog;
use crate::error::{Error, Kind};
use crate::file::{StoreFile, Totals};
use crate::marking::Marking;
use crate::tail::Tail;
use crate::window::TimeRange;
use graylogic_durable::{DamageNotes, Disk, DiskLock, Log};
use graylogic_line::Timestamp;
use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The lock of a store, whatever a panic elsewhere did: what it guards is whole between statements.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the callers and the workers of a store share.
pub(crate) struct Shared {
    pub(crate) core: Mutex<Core>,
    pub(crate) log: Log,
    pub(crate) file: StoreFile,
    /// Held while tails are sealed and chunks are moved.
    pub(crate) sealer: Mutex<()>,
    /// Held while a bucket is created, changed or removed; taken after `sealer` and before `core`.
    pub(crate) buckets: Mutex<()>,
    /// Wakes the worker that seals.
    pub(crate) wake: Condvar,
    /// Wakes writers that wait for room in memory.
    pub(crate) room: Condvar,
    pub(crate) sync_each: bool,
    pub(crate) sync_interval: Duration,
    /// Memory for tails and what is known of series.
    pub(crate) memory_bytes: usize,
    pub(crate) series_max: usize,
    /// What time it is, for retention and for lines without a timestamp.
    pub(crate) clock: Clock,
    pub(crate) arrivals: Arrivals,
    /// Bytes written before this store was opened, and what the process had written then.
    pub(crate) written_before: (u64, u64),
    pub(crate) directory: PathBuf,
    /// The disk of the log.
    pub(crate) disk: Arc<dyn Disk>,
    /// Damage that is not settled.
    pub(crate) notes: DamageNotes,
    /// Held while the store is open, so that no other process opens it. There is none on a disk that takes no byte.
    pub(crate) folder: Mutex<Option<Box<dyn DiskLock>>>,
    /// Before this moment the store file is not written anew again: the last try failed.
    pub(crate) rebuild_after: Mutex<Option<Instant>>,
    /// Why the store takes no writes, when it was opened for questions only.
    pub(crate) read_only: Option<Trouble>,
}

/// Tells the time.
#[derive(Clone)]
pub(crate) struct Clock(pub(crate) Arc<dyn Fn() -> Timestamp + Send + Sync>);

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}

/// Bytes this process has given to the file systems below it, as Linux counts them; 0 where it does not.
pub(crate) fn process_written() -> u64 {
    let io = std::fs::read_to_string("/proc/self/io").unwrap_or_default();
    let line = io.lines().find_map(|l| l.strip_prefix("write_bytes: "));
    line.and_then(|n| n.trim().parse().ok()).unwrap_or(0)
}

/// What memory holds, behind one short lock.
pub(crate) struct Core {
    pub(crate) catalog: Catalog,
    /// Tails to be sealed, oldest first.
    pub(crate) jobs: VecDeque<Arc<Job>>,
    /// Values and bytes in tails.
    pub(crate) tail_readings: u64,
    pub(crate) tail_bytes: usize,
    /// Values and bytes on their way from tails into chunks.
    pub(crate) sealing_readings: u64,
    pub(crate) sealing_bytes: usize,
    /// Records written since opening: stamps series whose definition went into one.
    pub(crate) records: u64,
    pub(crate) marking: Marking,
    /// What the file holds: counted when first asked for, then kept up by every commit.
    pub(crate) totals: Option<Totals>,
    /// Series that could not be compacted because the store file is damaged, and when.
    pub(crate) passed_over: HashMap<u32, Instant>,
    pub(crate) written_total: u64,
    pub(crate) quarantined_total: u64,
    pub(crate) rejected_total: u64,
    pub(crate) damaged_total: u64,
    /// Why readings do not go all the way, while they do not.
    pub(crate) trouble: Option<(Source, Trouble)>,
    pub(crate) closed: bool,
}

/// A tail on its way into chunks.
pub(crate) struct Job {
    pub(crate) series: u32,
    pub(crate) tail: Arc<Tail>,
    pub(crate) bytes: usize,
}

/// Why sealing or syncing does not work at present.
#[derive(Clone, Debug)]
pub(crate) struct Trouble {
    pub(crate) kind: Kind,
    pub(crate) text: String,
}

impl Trouble {
    pub(crate) fn of(error: &Error) -> Self {
        let kind = if error.is_no_space() {
            Kind::NoSpace
        } else if error.is_read_only() {
            Kind::ReadOnly
        } else {
            Kind::Io
        };
        Self { kind, text: error.to_string() }
    }

    pub(crate) fn refusal(&self) -> Error {
        let message = format!(
            "the store takes no readings until this is mended (it tries again each second): {}",
            self.text
        );
        Error::new(self.kind, message)
    }
}

/// Which thread has trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    Sync,
    Seal,
    Compact,
}

impl Shared {
    pub(crate) fn core(&self) -> MutexGuard<'_, Core> {
        lock(&self.core)
    }

    /// The core of a store that is not closed.
    pub(crate) fn open_core(&self) -> Result<MutexGuard<'_, Core>, Error> {
        let core = self.core();
        if core.closed { Err(Error::closed()) } else { Ok(core) }
    }

    /// The time from which on readings of a bucket have not expired.
    pub(crate) fn visible(&self, bucket: u32) -> TimeRange {
        let retention =
            self.core().catalog.buckets.iter().find(|b| b.id == bucket).map_or(0, |b| b.retention);
        match retention {
            0 => TimeRange::all(),
            n => TimeRange { start: (self.clock.0)().as_nanos().saturating_sub(n), stop: i64::MAX },
        }
    }

    /// Bytes written in the store's life.
    pub(crate) fn written(&self) -> u64 {
        self.written_before.0.saturating_add(process_written().saturating_sub(self.written_before.1))
    }

    pub(crate) fn sync(&self, doing: impl fmt::Display) -> Result<(), Error> {
        self.log.sync().map(|_| ()).map_err(|e| Error::log(doing, e))
    }
}

impl Core {
    pub(crate) fn new(catalog: Catalog) -> Self {
        Self {
            catalog,
            jobs: VecDeque::new(),
            tail_readings: 0,
            tail_bytes: 0,
            sealing_readings: 0,
            sealing_bytes: 0,
            records: 0,
            marking: Marking::default(),
            totals: None,
            passed_over: HashMap::new(),
            written_total: 0,
            quarantined_total: 0,
            rejected_total: 0,
            damaged_total: 0,
            trouble: None,
            closed: false,
        }
    }

    /// Bytes that tails may take of a budget: two thirds of what is known of series are taken out of it, down to two
    /// fifths.
    pub(crate) fn tail_bytes_max(&self, budget: usize) -> usize {
        budget.saturating_sub(self.catalog.memory_bytes() / 3 * 2).max(budget / 5 * 2)
    }

    /// Sends the tail of a series on its way into chunks.
    pub(crate) fn detach(&mut self, id: u32) {
        let series = self.catalog.series_mut(id);
        if series.tail.is_empty() {
            return;
        }
        let empty = Tail::new(series.info.field_type);
        let tail = Arc::new(std::mem::replace(&mut series.tail, empty));
        series.seal_at = SEAL_READINGS;
        series.sealing.push(tail.clone());
        let bytes = tail.memory_bytes();
        self.tail_readings -= tail.len() as u64;
        self.tail_bytes = self.tail_bytes.saturating_sub(bytes);
        self.sealing_readings += tail.len() as u64;
        self.sealing_bytes += bytes;
        self.jobs.push_back(Arc::new(Job { series: id, tail, bytes }));
    }

    /// Forgets what memory holds of series that are gone.
    pub(crate) fn forget(&mut self, ids: &HashSet<u32>, tails: (u64, usize)) {
        self.tail_readings -= tails.0;
        self.tail_bytes = self.tail_bytes.saturating_sub(tails.1);
        let (gone, kept): (VecDeque<_>, VecDeque<_>) =
            std::mem::take(&mut self.jobs).into_iter().partition(|job| ids.contains(&job.series));
        for job in gone {
            self.sealing_bytes -= job.bytes;
            self.sealing_readings -= job.tail.len() as u64;
        }
        self.jobs = kept;
        self.totals = None;
    }

    /// Detaches the longest tails until the others take no more than `bytes`.
    pub(crate) fn detach_largest(&mut self, bytes: usize) {
        let mut tails: Vec<(usize, u32)> = self
            .catalog
            .series
            .iter()
            .flatten()
            .map(|s| (s.tail.len(), s.info.id))
            .filter(|t| t.0 > 0)
            .collect();
        tails.sort_unstable_by(|a, b| b.cmp(a));
        for (_, id) in tails {
            if self.tail_bytes <= bytes {
                break;
            }
            self.detach(id);
        }
    }

    /// Detaches the tails that keep the log from giving up records before `sequence`.
    pub(crate) fn detach_older(&mut self, sequence: u64) {
        let old = |s: &&crate::catalog::Series| !s.tail.is_empty() && s.tail.first_sequence < sequence;
        let ids: Vec<u32> = self.catalog.series.iter().flatten().filter(old).map(|s| s.info.id).collect();
        ids.into_iter().for_each(|id| self.detach(id));
    }

    /// The first record that memory still needs the log for; `None` when it needs none.
    pub(crate) fn oldest_sequence(&self) -> Option<u64> {
        let of = |s: &crate::catalog::Series| {
            let sealing = s.sealing.iter().map(|t| t.first_sequence).min();
            let tail = (!s.tail.is_empty()).then_some(s.tail.first_sequence);
            sealing.into_iter().chain(tail).min()
        };
        self.catalog.series.iter().flatten().filter_map(of).min()
    }
}

/// A tail becomes a chunk at this length.
const SEAL_READINGS: u32 = 2048;
