//! The store as its users see it: open, write, ask, close. What happens inside is in `write.rs`, `scan.rs`, `worker.rs`.

use crate::catalog::{Bucket, Catalog, SeriesInfo};
use crate::core::{Clock, Core, Shared, Trouble, lock};
use crate::error::{Error, Kind};
use crate::open::{begin, probe};
use crate::quarantine::{Quarantine, Released, check_not_reserved, present_ends, quarantine_of, quarantined};
use crate::rollup::HOUR;
use crate::salvage::Salvaged;
use crate::scan::Scan;
use crate::selector::Selector;
use crate::value::Value;
use crate::window::{TimeRange, Window, Windows};
use crate::worker::Workers;
use crate::write::{WriteOptions, WriteReport};
use graylogic_durable::{Disk, RealDisk};
use graylogic_line::Timestamp;
use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

/// A disk that took no byte is tried again after this time.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// When a write is safe from a power cut. Whatever is set, it is safe from the end of the process when the call returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Sync {
    /// When the call returns.
    EachWrite,
    /// At most this long after the call returned.
    Every(Duration),
}

/// How a store is opened.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    pub(crate) sync: Sync,
    pub(crate) memory_bytes: usize,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) workers: bool,
    pub(crate) series_max: usize,
    pub(crate) clock: Clock,
}

/// A series and the times of its oldest and newest reading, if it has any.
pub type SeriesBounds = (SeriesInfo, Option<(Timestamp, Timestamp)>);

impl Default for StoreOptions {
    /// Safe from a power cut after one second, 20 MiB for tails, the real disk.
    fn default() -> Self {
        Self {
            sync: Sync::Every(Duration::from_secs(1)),
            memory_bytes: 20 << 20,
            disk: Arc::new(RealDisk),
            series_max: 100_000,
            clock: Clock(Arc::new(Timestamp::now)),
            workers: true,
        }
    }
}

impl StoreOptions {
    /// When a write is safe from a power cut.
    #[must_use]
    pub fn sync(mut self, sync: Sync) -> Self {
        self.sync = sync;
        self
    }

    /// Memory for readings that are not in chunks yet, at least 1 MiB; a third as much again may be on its way into chunks.
    /// Many series take memory of their own, about 0.45 kB each; up to three fifths of this are given up for them.
    #[must_use]
    pub fn memory_bytes(mut self, bytes: usize) -> Self {
        self.memory_bytes = bytes.max(1 << 20);
        self
    }

    /// The disk that holds the hot log: tests simulate one. The store file is SQLite's and always on the real disk.
    #[must_use]
    pub fn disk(mut self, disk: Arc<dyn Disk>) -> Self {
        self.disk = disk;
        self
    }

    /// Most series (combinations of tags) of one measurement; 100,000 without it. A line that would make another is
    /// refused with a reason that names the measurement and the tag with the most values.
    #[must_use]
    pub fn series_max(mut self, series: usize) -> Self {
        self.series_max = series;
        self
    }

    /// What tells the time for retention and for lines without a timestamp; the system's clock without it.
    #[must_use]
    pub fn clock(mut self, clock: impl Fn() -> Timestamp + Send + std::marker::Sync + 'static) -> Self {
        self.clock = Clock(Arc::new(clock));
        self
    }

    /// Without threads of its own: syncing and sealing happen only when [`Store::sync`] and [`Store::seal`] are called.
    /// For simulations that must be repeatable.
    #[must_use]
    pub fn without_workers(mut self) -> Self {
        self.workers = false;
        self
    }
}

/// What opening a store found.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Recovery {
    /// Values read from the hot log into memory.
    pub replayed_values: u64,
    /// Damage that is not settled yet, one sentence each, whenever it was found: nothing of it was deleted.
    pub damage: Vec<String>,
    /// Values known to be lost to it.
    pub lost_values: u64,
    /// How long opening took.
    pub duration: Duration,
}

/// A bucket: readings with a name of their own.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BucketInfo {
    /// Its number in the store file.
    pub id: u32,
    /// Its name.
    pub name: String,
    /// How long its readings are kept; `None`: for ever.
    pub retention: Option<Duration>,
    /// Series in it: measurement, tags and field.
    pub series: usize,
}

/// The newest reading of a series.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Latest {
    /// The series.
    pub series: SeriesInfo,
    /// Its time.
    pub time: Timestamp,
    /// Its value.
    pub value: Value,
}

/// The windows of a series that have readings.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct SeriesWindows {
    /// The series.
    pub series: SeriesInfo,
    /// In the order of time.
    pub windows: Vec<Window>,
}

/// What [`Store::verify`] found.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct VerifyReport {
    /// Chunks read.
    pub chunks: u64,
    /// Readings in them.
    pub readings: u64,
    /// Records of the hot log read.
    pub records: u64,
    /// What is not as it was written, one sentence each, with series and time range where they are known.
    pub damage: Vec<String>,
}

/// Whether writes go all the way.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum State {
    /// They do.
    Ok,
    /// They do not, for this reason; it is tried again each second.
    Degraded(String),
}

/// What is stored, in numbers.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Stats {
    /// Values stored: in chunks, on their way into chunks, and in tails.
    pub values: u64,
    /// Series: bucket, measurement, tags and field.
    pub series: usize,
    /// Buckets.
    pub buckets: usize,
    /// Sealed chunks.
    pub chunks: u64,
    /// Bytes of the store file and the hot log. What SQLite's own log holds counts as what it becomes in the file.
    pub bytes_on_disk: u64,
    /// Bytes of the sealed chunks alone.
    pub chunk_bytes: u64,
    /// Values in the sealed chunks.
    pub chunk_values: u64,
    /// Bytes of the hot log.
    pub log_bytes: u64,
    /// Values in memory only as far as reading goes; they are in the hot log too.
    pub tail_values: u64,
    /// Bytes of memory for them.
    pub memory_bytes: usize,
    /// Values written since the store was opened.
    pub written_total: u64,
    /// Lines that went into quarantine since the store was opened.
    pub quarantined_total: u64,
    /// Lines refused since the store was opened.
    pub rejected_total: u64,
    /// Chunks found damaged by questions since the store was opened.
    pub damaged_total: u64,
    /// Bytes the store has written in all its life, by the count of the operating system: the wear of a flash card.
    pub flash_written: u64,
    /// Whether writes go all the way.
    pub state: State,
}

impl Stats {
    /// Bytes of all files of the store for each stored value; 0 when there is none. What the page, `status`, `demo`,
    /// `compact` and `bench` show.
    #[must_use]
    pub fn bytes_per_value(&self) -> f64 {
        if self.values == 0 { 0.0 } else { self.bytes_on_disk as f64 / self.values as f64 }
    }
}

/// A time-series store in a folder.
///
/// Cheap to clone; all clones are the same store. When the last one is dropped the hot log is synced and the folder
/// is free for another process.
///
/// ```
/// use graylogic_store::{Selector, Store, StoreOptions, TimeRange, WriteOptions};
///
/// let folder = tempfile::tempdir()?;
/// let store = Store::open(folder.path(), StoreOptions::default())?;
/// store.create_bucket("telemetry")?;
/// let report = store.write_lines("telemetry", b"energy,device_id=hvac power_watts=450.0", &WriteOptions::now())?;
/// assert_eq!(report.points, 1);
///
/// let latest = store.latest(&Selector::bucket("telemetry").measurement("energy"))?;
/// assert_eq!(latest[0].value.as_f64(), Some(450.0));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Store {
    handle: Arc<Handle>,
}

/// Ends the workers when the last clone of a store goes.
struct Handle {
    shared: Arc<Shared>,
    /// The same store, when it was opened on a disk that took no byte and takes them now.
    writable: OnceLock<Arc<Shared>>,
    /// When that was tried last.
    tried: Mutex<Instant>,
    options: StoreOptions,
    workers: Mutex<Option<Workers>>,
    recovery: Recovery,
}

impl Store {
    /// Opens the store in a folder, or makes one, and reads what the hot log holds.
    ///
    /// Damage found is set aside and described in [`Store::recovery`]; it does not keep the store from opening. Nor does
    /// a disk that is read-only or full: questions are answered, writes are refused with the reason, and the store takes
    /// them again by itself when the disk does.
    ///
    /// # Errors
    /// [`Error::is_locked`] when another process has it open, [`Error::is_read_only`] when the folder cannot be
    /// written, [`Error::is_no_space`] when there is no room to make a store, [`Error::is_invalid`] when the file in the
    /// folder is not a store, [`Error::is_corruption`] when SQLite cannot read it at all.
    pub fn open(directory: impl AsRef<Path>, options: StoreOptions) -> Result<Self, Error> {
        let began = Instant::now();
        let directory = directory.as_ref();
        let opened =
            begin(directory, &options, None).or_else(|refused| refused.without_writing(directory, &options));
        let (shared, workers, mut recovery) = opened?;
        recovery.duration = began.elapsed();
        for damage in &recovery.damage {
            tracing::warn!(%damage, "the store is damaged");
        }
        Ok(Self {
            handle: Arc::new(Handle {
                shared,
                writable: OnceLock::new(),
                tried: Mutex::new(Instant::now()),
                options,
                workers: Mutex::new(workers),
                recovery,
            }),
        })
    }

    /// Copies everything that is still good in a store, its file and its hot log, into another folder, which must be
    /// empty or new. The damaged folder is only read, and must not be open.
    ///
    /// # Errors
    /// When there is nothing to read, the new folder is not empty, or it cannot be written.
    pub fn salvage(from: impl AsRef<Path>, to: impl AsRef<Path>) -> Result<Salvaged, Error> {
        crate::salvage::run(from.as_ref(), to.as_ref())
    }

    fn shared(&self) -> &Arc<Shared> {
        self.handle.current()
    }

    /// The store, if it takes writes.
    fn writable(&self) -> Result<&Arc<Shared>, Error> {
        self.handle.writable()
    }

    /// What opening found.
    #[must_use]
    pub fn recovery(&self) -> &Recovery {
        &self.handle.recovery
    }

    /// Makes a bucket. It is on the disk when the call returns.
    ///
    /// # Errors
    /// [`Error::is_exists`] when there is one with this name, [`Error::is_invalid`] for an empty name or one with
    /// control characters, or a failure of the disk.
    pub fn create_bucket(&self, name: &str) -> Result<BucketInfo, Error> {
        check_bucket_name(name)?;
        let id = self.writable()?.create_bucket(name)?;
        Ok(BucketInfo { id, name: name.to_owned(), retention: None, series: 0 })
    }

    /// Sets how long the readings of a bucket are kept; `None`: for ever. What is older is hidden from the moment the
    /// call returns and removed in the background, day by day.
    ///
    /// # Errors
    /// [`Error::is_not_found`], [`Error::is_invalid`] for a retention below an hour or above 292 years, or a failure of
    /// the disk.
    pub fn set_retention(&self, bucket: &str, retention: Option<Duration>) -> Result<BucketInfo, Error> {
        let nanos = match retention {
            None => 0,
            Some(length) => i64::try_from(length.as_nanos())
                .ok()
                .filter(|&n| n >= HOUR)
                .ok_or_else(|| {
                    Error::invalid(format!(
                        "retention of {length:?} for bucket {bucket:?}: give at least an hour and less than 292 years"
                    ))
                })?,
        };
        self.change_bucket(bucket, |b| b.retention = nanos)
    }

    /// Gives a bucket another name.
    ///
    /// # Errors
    /// [`Error::is_not_found`], [`Error::is_exists`], [`Error::is_invalid`], or a failure of the disk.
    pub fn rename_bucket(&self, bucket: &str, name: &str) -> Result<BucketInfo, Error> {
        check_bucket_name(name)?;
        check_not_reserved(bucket)?;
        if bucket != name && self.buckets().iter().any(|b| b.name == name) {
            return Err(Error::new(
                Kind::Exists,
                format!("rename bucket {bucket:?}: there is one with the name {name:?}"),
            ));
        }
        let renamed = self.change_bucket(bucket, |b| b.name = name.into())?;
        match self.change_bucket(&quarantine_of(bucket), |b| b.name = quarantine_of(name)) {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(renamed),
        }
    }

    fn change_bucket(
        &self,
        name: &str,
        change: impl Fn(&mut crate::file::StoredBucket),
    ) -> Result<BucketInfo, Error> {
        self.writable()?.curing(|| self.change_bucket_once(name, &change))
    }

    fn change_bucket_once(
        &self,
        name: &str,
        change: impl Fn(&mut crate::file::StoredBucket),
    ) -> Result<BucketInfo, Error> {
        let shared = self.writable()?;
        let _one = lock(&shared.buckets);
        let mut stored = {
            let core = shared.open_core()?;
            let bucket = &core.catalog.buckets[core.catalog.bucket_place(name)?];
            crate::file::StoredBucket {
                id: bucket.id,
                name: bucket.name.to_string(),
                retention: bucket.retention,
            }
        };
        change(&mut stored);
        // Writes to buckets do not wait for the disk.
        shared.file.update_bucket(stored.id, &stored.name, stored.retention)?;
        let mut core = shared.open_core()?;
        let place = core.catalog.bucket_place(name)?;
        core.catalog.buckets[place].retention = stored.retention;
        core.catalog.rename_bucket(place, &stored.name);
        shared.mark_log(&mut core, true);
        drop(core);
        // Somebody may have removed it since.
        self.bucket_info(|b| b.id == stored.id).pop().ok_or_else(|| {
            Error::new(Kind::NotFound, format!("bucket {name:?} was removed while it was changed"))
        })
    }

    /// Removes a bucket with everything in it. Both are gone when the call returns.
    ///
    /// # Errors
    /// [`Error::is_not_found`], or a failure of the disk; then the bucket is still there.
    pub fn remove_bucket(&self, name: &str) -> Result<(), Error> {
        check_not_reserved(name)?;
        self.writable()?.remove_bucket(name)?;
        match self.writable()?.remove_bucket(&quarantine_of(name)) {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(()),
        }
    }

    /// What is in quarantine, bucket by bucket: readings whose timestamps are before 2000 or were more than an hour ahead
    /// of the store's clock when they were written, which is what devices with a wrong clock send. They are stored, but
    /// no query of their bucket shows them; [`Selector::quarantined`] does.
    ///
    /// # Errors
    /// A failure of the disk.
    pub fn quarantine(&self) -> Result<Vec<Quarantine>, Error> {
        self.shared().quarantines()
    }

    /// Moves the quarantined readings of a bucket into the bucket, with the timestamps they have. Readings that are older
    /// than the bucket's retention, and series whose field has another type there, stay in quarantine.
    ///
    /// # Errors
    /// [`Error::is_not_found`] for an unknown bucket, or a failure of the disk: then some may be in both, and the call may
    /// be repeated.
    pub fn release_quarantined(&self, bucket: &str) -> Result<Released, Error> {
        let shared = self.writable()?;
        let _there = shared.open_core()?.catalog.bucket_place(bucket)?;
        shared.release(bucket)
    }

    /// Deletes the quarantined readings of a bucket, and says how many there were.
    ///
    /// # Errors
    /// A failure of the disk.
    pub fn drop_quarantined(&self, bucket: &str) -> Result<u64, Error> {
        let found = self.quarantine()?.into_iter().find(|q| q.bucket == bucket);
        let Some(found) = found else { return Ok(0) };
        match self.writable()?.delete(&Selector::bucket(bucket).quarantined(), TimeRange::all()) {
            Err(error) if error.is_not_found() => Ok(0),
            deleted => deleted.map(|_series| found.values),
        }
    }

    /// Deletes the readings with `start <= time < stop` of every series a selector means, and says how many series.
    ///
    /// They are gone for every question from the moment the call returns, also after a crash; their room is given back
    /// by compaction. What is written afterwards, also for the same times, is not touched.
    ///
    /// # Errors
    /// [`Error::is_not_found`] for an unknown bucket, or a failure of the disk: then nothing was deleted.
    pub fn delete(&self, selector: &Selector, range: TimeRange) -> Result<usize, Error> {
        self.writable()?.delete(selector, range)
    }

    /// Compacts everything, open days too: after an import, or before copying the folder. The background does the same
    /// for complete days by itself.
    ///
    /// # Errors
    /// A failure of the disk; what was compacted stays compacted.
    pub fn compact(&self) -> Result<(), Error> {
        self.seal()?;
        let shared = self.shared();
        shared.compact_due(true)?;
        shared.file.give_back(0)?;
        shared.file.checkpoint()
    }

    /// Does at once what the background does in its own time: removes what has expired and compacts complete days. For
    /// stores that were opened without workers.
    ///
    /// # Errors
    /// A failure of the disk; what was done stays done.
    pub fn maintain(&self) -> Result<(), Error> {
        let shared = self.writable()?;
        shared.expire()?;
        shared.compact_due(false)
    }

    /// Reads everything there is, byte by byte, and says what is not as it was written, and what was found damaged before
    /// and is not settled.
    ///
    /// # Errors
    /// A failure of the disk.
    pub fn verify(&self) -> Result<VerifyReport, Error> {
        self.shared().verify()
    }

    /// Says that the damage reported so far has been seen: the store goes on with what it shows, and reports it no more.
    /// Returns how many notes were settled: none when the store file is so damaged that it had to be written anew first,
    /// because what that lost has been seen by nobody yet. What was set aside stays in `damaged/`.
    ///
    /// # Errors
    /// A failure of the disk, or [`Error::is_corruption`] when the store file is too damaged to be written and cannot be
    /// written anew; then nothing is settled.
    pub fn settle(&self) -> Result<u64, Error> {
        self.writable()?.settle()
    }

    /// The bucket with this name, made when there is none.
    ///
    /// # Errors
    /// As [`Store::create_bucket`].
    pub fn ensure_bucket(&self, name: &str) -> Result<BucketInfo, Error> {
        // Looked for first: a store that takes no writes at present has its buckets all the same.
        let known = |store: &Self| store.buckets().into_iter().find(|b| b.name == name);
        match known(self) {
            Some(bucket) => Ok(bucket),
            None => match self.create_bucket(name) {
                Err(e) if e.is_exists() => known(self).ok_or(e),
                other => other,
            },
        }
    }

    /// All buckets in the order of their numbers, without those that hold quarantined readings.
    #[must_use]
    pub fn buckets(&self) -> Vec<BucketInfo> {
        self.bucket_info(|b| quarantined(&b.name).is_none())
    }

    fn bucket_info(&self, wanted: impl Fn(&Bucket) -> bool) -> Vec<BucketInfo> {
        let core = self.shared().core();
        let of = |b: &Bucket| {
            let with_readings =
                |id: u32| core.catalog.get(id).is_some_and(crate::catalog::Series::has_readings);
            let series =
                b.entries.iter().flat_map(|e| e.fields.iter()).filter(|f| with_readings(f.series)).count();
            let retention = (b.retention > 0).then(|| Duration::from_nanos(b.retention as u64));
            BucketInfo { id: b.id, name: b.name.to_string(), retention, series }
        };
        core.catalog.buckets.iter().filter(|b| wanted(b)).map(of).collect()
    }

    /// Stores line protocol and says what became of each line that was not stored.
    ///
    /// The lines that are stored are stored together: after a crash all are there or none, unless they and the definitions
    /// of new series need more than 32 MiB. They answer questions when
    /// the call returns and survive the end of the process; when they survive a power cut is the store's [`Sync`].
    ///
    /// # Errors
    /// [`Error::is_not_found`] for an unknown bucket, [`Error::is_too_large`] above 32 MiB, [`Error::is_no_space`],
    /// [`Error::is_read_only`] or another failure of the disk: then nothing was accepted, and the call may be repeated;
    /// writing the same lines twice stores them once.
    pub fn write_lines(
        &self,
        bucket: &str,
        body: &[u8],
        options: &WriteOptions,
    ) -> Result<WriteReport, Error> {
        self.writable()?.write_lines(bucket, body, options)
    }

    /// Returns when everything accepted so far survives a power cut.
    ///
    /// # Errors
    /// A failure of the disk: what was accepted is still in memory and is tried again with the next sync.
    pub fn sync(&self) -> Result<(), Error> {
        drop(self.shared().open_core()?);
        self.shared().sync("sync the hot log")
    }

    /// Moves every reading from memory into chunks: after an import, or before copying the folder.
    ///
    /// # Errors
    /// A failure of the disk; the readings stay where they were.
    pub fn seal(&self) -> Result<(), Error> {
        let shared = self.writable()?;
        shared.seal_everything()?;
        shared.file.checkpoint()
    }

    /// The series a selector means, in the order of measurement, tags, field.
    ///
    /// # Errors
    /// [`Error::is_not_found`] for an unknown bucket.
    pub fn series(&self, selector: &Selector) -> Result<Vec<SeriesInfo>, Error> {
        self.shared().open_core()?.catalog.select(selector)
    }

    /// The readings of a range, series by series, in blocks in the order of time.
    ///
    /// A chunk that is found damaged is left out, logged, and counted in [`Stats::damaged_total`].
    ///
    /// # Errors
    /// [`Error::is_not_found`] for an unknown bucket.
    pub fn scan(&self, selector: &Selector, range: TimeRange) -> Result<Scan, Error> {
        let series = self.series(selector)?;
        Ok(Scan::new(self.shared().clone(), series, range))
    }

    /// Count, sum, extremes, first and last of each window that has readings, series by series.
    ///
    /// Where a window covers a whole chunk the chunk's own figures are used and its readings are not read.
    ///
    /// # Errors
    /// [`Error::is_not_found`] for an unknown bucket, or a failure of the disk.
    pub fn windows(
        &self,
        selector: &Selector,
        range: TimeRange,
        windows: &Windows,
    ) -> Result<Vec<SeriesWindows>, Error> {
        let series = self.series(selector)?;
        let folded = self.shared().fold_all(&series, range, windows)?;
        let of = |(series, windows)| SeriesWindows { series, windows };
        Ok(series.into_iter().zip(folded).map(of).filter(|s| !s.windows.is_empty()).collect())
    }

    /// The newest reading of each series, without what lies more than an hour ahead of the store's clock: a forecast, or
    /// what a wrong clock made. Series that have nothing else are left out.
    ///
    /// # Errors
    /// [`Error::is_not_found`] for an unknown bucket, or a failure of the disk.
    pub fn latest(&self, selector: &Selector) -> Result<Vec<Latest>, Error> {
        let mut found = Vec::new();
        let shared = self.shared();
        // Of what is in quarantine all is shown.
        let until = match quarantined(&selector.bucket) {
            None => present_ends((shared.clock.0)()),
            Some(_) => i64::MAX,
        };
        for series in self.series(selector)? {
            if let Some((time, value)) = shared.newest_before(&series, until)? {
                found.push(Latest { series, time: Timestamp::from_nanos(time), value });
            }
        }
        Ok(found)
    }

    /// The times of the oldest and newest reading of each series.
    ///
    /// # Errors
    /// [`Error::is_not_found`] for an unknown bucket, or a failure of the disk.
    pub fn bounds(&self, selector: &Selector) -> Result<Vec<SeriesBounds>, Error> {
        let of = |series: SeriesInfo| {
            let bounds = self.shared().bounds(&series)?;
            Ok((series, bounds.map(|(a, b)| (Timestamp::from_nanos(a), Timestamp::from_nanos(b)))))
        };
        self.series(selector)?.into_iter().map(of).collect()
    }

    /// What is stored, in numbers.
    ///
    /// # Errors
    /// A failure of the disk while counting.
    pub fn stats(&self) -> Result<Stats, Error> {
        self.shared().stats()
    }

    /// Damaged places that questions have met and left out of their answers since the store was opened.
    #[must_use]
    pub fn damaged_total(&self) -> u64 {
        self.shared().core().damaged_total
    }

    /// Syncs the hot log, ends the threads, frees the folder. Later calls fail with [`Error::is_closed`]; closing again is fine.
    ///
    /// # Errors
    /// A failure of the disk while syncing or closing; the store is closed all the same.
    pub fn close(&self) -> Result<(), Error> {
        self.handle.close()
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("directory", &self.shared().directory).finish_non_exhaustive()
    }
}

impl Handle {
    fn current(&self) -> &Arc<Shared> {
        self.writable.get().unwrap_or(&self.shared)
    }

    fn writable(&self) -> Result<&Arc<Shared>, Error> {
        let current = self.current();
        let Some(trouble) = &current.read_only else { return Ok(current) };
        let mut tried = lock(&self.tried);
        if let Some(shared) = self.writable.get() {
            return Ok(shared);
        }
        if current.core().closed {
            return Err(Error::closed());
        }
        if tried.elapsed() < TRY_AGAIN {
            return Err(trouble.refusal());
        }
        *tried = Instant::now();
        // Looked at from outside first: to open the file for writing and then to fail would disturb questions.
        if let Err(error) = probe(&*self.options.disk, &current.directory) {
            return Err(Trouble::of(&error).refusal());
        }
        // Two ways to look at the file that do not know of each other must not be open together; questions that come
        // meanwhile are refused. The lock of the folder goes with it: nobody else comes in between.
        let _nothing_to_write = current.file.close();
        let folder = lock(&current.folder).take();
        match begin(&current.directory, &self.options, folder) {
            Ok((shared, workers, _)) => {
                tracing::info!(folder = %shared.directory.display(), "the disk takes readings again");
                *lock(&self.workers) = workers;
                let writable = self.writable.get_or_init(|| shared);
                // Its memory is not kept for the life of the process.
                let _had_nothing_to_write = current.close();
                *current.core() = Core { closed: true, ..Core::new(Catalog::default()) };
                Ok(writable)
            }
            Err(refused) => {
                *lock(&current.folder) = refused.folder;
                current.file.reopen()?;
                Err(Trouble::of(&refused.error).refusal())
            }
        }
    }

    fn close(&self) -> Result<(), Error> {
        // No store becomes writable while it is closed.
        let _tried = lock(&self.tried);
        let shared = self.current();
        if std::mem::replace(&mut shared.core().closed, true) {
            return Ok(());
        }
        shared.wake.notify_all();
        shared.room.notify_all();
        if let Some(workers) = lock(&self.workers).take() {
            workers.join();
        }
        shared.close()
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if let Err(error) = self.close() {
            tracing::error!(%error, "the store could not be closed cleanly");
        }
    }
}

impl Shared {
    /// Frees what an open store holds; its threads have ended.
    fn close(&self) -> Result<(), Error> {
        let synced = self.sync("close the store");
        self.note_log_at_close();
        let closed = self.file.close();
        lock(&self.folder).take();
        synced.and(closed)
    }

    fn stats(&self) -> Result<Stats, Error> {
        if self.open_core()?.totals.is_none() {
            // No commit meanwhile: what it moves from memory into the file would be counted twice.
            let _one = lock(&self.sealer);
            let counted = self.file.totals()?;
            self.core().totals = Some(counted);
        }
        let log_bytes: u64 = self.log.segments().iter().map(|s| s.bytes).sum();
        let file_bytes = self.file.bytes_when_closed()?;
        let core = self.open_core()?;
        let totals = core.totals.unwrap_or_default();
        Ok(Stats {
            values: totals.readings + core.tail_readings + core.sealing_readings,
            series: core.catalog.series.iter().flatten().filter(|s| s.has_readings()).count(),
            buckets: core.catalog.buckets.iter().filter(|b| quarantined(&b.name).is_none()).count(),
            chunks: totals.chunks,
            bytes_on_disk: log_bytes + file_bytes,
            chunk_bytes: totals.bytes,
            chunk_values: totals.readings,
            log_bytes,
            tail_values: core.tail_readings + core.sealing_readings,
            memory_bytes: core.tail_bytes + core.sealing_bytes,
            written_total: core.written_total,
            quarantined_total: core.quarantined_total,
            rejected_total: core.rejected_total,
            damaged_total: core.damaged_total,
            flash_written: self.written(),
            state: match &core.trouble {
                None => State::Ok,
                Some((_, trouble)) => State::Degraded(trouble.text.clone()),
            },
        })
    }
}

fn check_bucket_name(name: &str) -> Result<(), Error> {
    if name.is_empty() || name.chars().any(char::is_control) || name.len() > 256 {
        let message = format!("create bucket {name:?}: a name has 1 to 256 bytes and no control characters");
        return Err(Error::invalid(message));
    }
    check_not_reserved(name)
}
