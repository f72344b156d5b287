//! Opening a store: both halves are read, compared, and become one open store with its threads. What is wrong is described
//! and kept in the damage notes; nothing is removed.

use crate::arrival::Arrivals;
use crate::aside::STORE_FILE;
use crate::catalog::{Bucket, Catalog, Newest};
use crate::core::{Core, Shared, Source, Trouble, lock, process_written};
use crate::error::{Error, Kind};
use crate::file::{Loaded, SeriesCopy, StoreFile, StoredSeries, replace};
use crate::halves::{self, Finding, LogMarks, Lost, OpenedFile, Restored, SHARED_LOG_ID};
use crate::mark::Mark;
use crate::marking::Marking;
use crate::replay::Replayed;
use crate::store::{Recovery, StoreOptions, Sync};
use crate::worker::Workers;
use graylogic_durable::Recovery as LogRecovery;
use graylogic_durable::{DamageNotes, Disk, DiskLock, Log, LogOptions, OpenMode, OverlayDisk};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

/// Segments of the hot log.
const SEGMENT_BYTES: u64 = 4 << 20;
/// One batch is one record; its row form is at most about twice its text.
const RECORD_BYTES_MAX: u32 = 128 << 20;
/// So much of the log is kept in memory until it is synced, in case that a sync fails. What is beyond it is read back from the
/// file then: no write waits for a sync.
const UNSYNCED_BYTES_MAX: usize = 2 << 20;
/// Changes that reading the log of a disk that takes no byte may need: a torn tail is in one segment, and whatever the
/// record after it needs.
const OVERLAY_BYTES_MAX: u64 = 256 << 20;
/// With so much room a store can be opened.
const PROBE_BYTES: usize = 256 << 10;

/// A store that could not be opened, and the lock of its folder if it could be had.
pub(crate) struct NotOpened {
    pub(crate) error: Error,
    pub(crate) folder: Option<Box<dyn DiskLock>>,
}

impl From<Error> for NotOpened {
    fn from(error: Error) -> Self {
        Self { error, folder: None }
    }
}

pub(crate) type Opened = (Arc<Shared>, Option<Workers>, Recovery);

impl NotOpened {
    /// Opens the store for queries, if its only fault is a disk that cannot be written.
    pub(crate) fn without_writing(self, directory: &Path, options: &StoreOptions) -> Result<Opened, Error> {
        let file = replace::readable(&directory.join(STORE_FILE));
        if !(self.error.is_no_space() || self.error.is_read_only_disk()) || !file.is_file() {
            return Err(self.error);
        }
        tracing::error!(error = %self.error, "the store is open for questions only, until its disk takes readings");
        let options = StoreOptions {
            disk: Arc::new(OverlayDisk::new(options.disk.clone(), OVERLAY_BYTES_MAX)),
            workers: false,
            ..options.clone()
        };
        let trouble = Trouble::of(&self.error);
        let opened = StoreFile::open_read_only(&file)?;
        let opened = OpenedFile { file: opened, lost: None, findings: Vec::new() };
        read_in(directory, &options, opened, self.folder, Some(trouble)).map_err(|refused| refused.error)
    }
}

/// Whether a disk takes as many bytes as opening a store may need.
pub(crate) fn probe(disk: &dyn Disk, directory: &Path) -> Result<(), Error> {
    let path = directory.join("probe");
    let probing = |e| Error::io(format_args!("write {}", path.display()), e);
    let _left_behind_by_an_earlier_try = disk.remove(&path);
    let file = disk.open(&path, OpenMode::CreateNew).map_err(probing)?;
    let written = file.write_at(&[0; PROBE_BYTES], 0).and_then(|()| file.sync());
    disk.remove(&path).and(written).map_err(probing)
}

/// Opens the store in a folder, or makes one.
pub(crate) fn begin(
    directory: &Path,
    options: &StoreOptions,
    folder: Option<Box<dyn DiskLock>>,
) -> Result<Opened, NotOpened> {
    let opening = |e| Error::io(format_args!("open the store in {}", directory.display()), e);
    options.disk.create_dir_all(directory).map_err(opening)?;
    // SQLite is on the real disk even when the log is on a simulated one.
    std::fs::create_dir_all(directory).map_err(opening)?;
    let folder = match folder {
        Some(folder) => folder,
        None => lock_folder(&*options.disk, directory)?,
    };
    match halves::open_file(&*options.disk, directory) {
        Ok(opened) => read_in(directory, options, opened, Some(folder), None),
        Err(error) => Err(NotOpened { error, folder: Some(folder) }),
    }
}

/// What reading both halves gave.
struct Read {
    core: Core,
    log: Log,
    restored: Restored,
    findings: Vec<Finding>,
    replayed_values: u64,
}

/// Reads catalog and log into memory, and starts the workers.
fn read_in(
    directory: &Path,
    options: &StoreOptions,
    opened: OpenedFile,
    folder: Option<Box<dyn DiskLock>>,
    read_only: Option<Trouble>,
) -> Result<Opened, NotOpened> {
    let OpenedFile { file, lost, findings } = opened;
    let notes = DamageNotes::open(options.disk.clone(), directory)
        .map_err(|e| Error::log(format_args!("open the store in {}", directory.display()), e));
    let read = notes.and_then(|notes| Ok((read_halves(directory, options, &file, lost, findings)?, notes)));
    let (read, notes) = match read {
        Ok(read) => read,
        Err(error) => return Err(NotOpened { error, folder }),
    };
    let mut core = read.core;
    if let Some(trouble) = &read_only {
        core.trouble = Some((Source::Sync, trouble.clone()));
    }
    let written = file.mark().map_or(0, |m| m.written);
    let is_writable = read_only.is_none();
    let shared = Arc::new(Shared {
        core: Mutex::new(core),
        log: read.log,
        file,
        sealer: Mutex::new(()),
        buckets: Mutex::new(()),
        wake: Condvar::new(),
        room: Condvar::new(),
        sync_each: options.sync == Sync::EachWrite,
        sync_interval: match options.sync {
            Sync::EachWrite => Duration::from_secs(1),
            Sync::Every(interval) => interval,
        },
        memory_bytes: options.memory_bytes,
        series_max: options.series_max,
        clock: options.clock.clone(),
        arrivals: Arrivals::new(),
        written_before: (written, process_written()),
        directory: directory.to_owned(),
        disk: options.disk.clone(),
        notes,
        folder: Mutex::new(folder),
        rebuild_after: Mutex::default(),
        read_only,
    });
    let settled = shared.keep(&read.findings, &read.restored, is_writable);
    if options.workers {
        // The thread that syncs the log makes its segments ahead. A disk without room for one now may have some later.
        let _tried_again = shared.log.make_segments_ahead();
    }
    let workers = settled.and_then(|()| options.workers.then(|| Workers::start(&shared)).transpose());
    match workers {
        Ok(workers) => {
            let recovery = Recovery { replayed_values: read.replayed_values, ..shared.recovery() };
            Ok((shared, workers, recovery))
        }
        Err(error) => {
            let folder = lock(&shared.folder).take();
            Err(NotOpened { error, folder })
        }
    }
}

/// Reads both halves and compares them.
fn read_halves(
    directory: &Path,
    options: &StoreOptions,
    file: &StoreFile,
    lost: Option<Lost>,
    mut findings: Vec<Finding>,
) -> Result<Read, Error> {
    let loaded = file.load()?;
    findings.extend(loaded.damage.iter().map(|d| Finding::new(d, 0)));
    let (mut catalog, sealed_max) = catalog_of(file, &loaded, &mut findings)?;
    let mark = file.mark();
    let (log, found) = open_log(directory, options, mark.as_ref(), sealed_max, &mut findings)?;
    if let Some(mark) = mark.as_ref().filter(|_| lost.is_none() && !file.mark_lost()) {
        findings.extend(halves::missing_of_log(mark, &log, &found));
    }
    let marks = LogMarks::read(&log);
    let mut restored = halves::reconcile(file, lost, &loaded, &marks, &mut catalog, &mut findings);
    let mut core = Core::new(catalog);
    core.marking = Marking::new(marks.whole.as_ref().map_or(0, |w| w.0), found.end_sequence);
    hide(&mut core.catalog, &loaded.tombstones);
    hide(&mut core.catalog, &restored.tombstones);
    let mut replayed = Replayed::new(&marks, &mut restored, &mut findings, found.end_sequence);
    replayed.run(&mut core, &log)?;
    let replayed_values = replayed.values;
    // Those of series that only the log defines.
    hide(&mut core.catalog, &restored.tombstones);
    Ok(Read { core, log, restored, findings, replayed_values })
}

/// Gives deletions to their series, once.
fn hide(catalog: &mut Catalog, tombstones: &[crate::file::Tombstone]) {
    for tombstone in tombstones {
        if let Some(series) = catalog.get_mut(tombstone.series)
            && !series.tombstones.contains(tombstone)
        {
            series.tombstones.push(*tombstone);
        }
    }
}

/// The catalog as the store file has it, and the last sequence that it knows of.
fn catalog_of(
    file: &StoreFile,
    loaded: &Loaded,
    findings: &mut Vec<Finding>,
) -> Result<(Catalog, u64), Error> {
    let sealed_of_tombstones =
        loaded.tombstones.iter().map(|t| t.sequence.saturating_sub(1)).max().unwrap_or(0);
    let build = |copies: &[SeriesCopy], findings: &mut Vec<Finding>| -> Result<_, Error> {
        let mut catalog = Catalog::default();
        for bucket in &loaded.buckets {
            catalog.buckets.push(Bucket::new(bucket.id, &bucket.name, bucket.retention));
        }
        // Known by their numbers; they get their names when the log was read.
        for &id in &loaded.nameless {
            catalog.buckets.push(Bucket::new(id, &format!("bucket-{id} (damaged name)"), 0));
        }
        catalog.removed.extend(loaded.removed.iter().copied());
        let (mut sealed_max, mut whole, mut bad) = (sealed_of_tombstones, true, Vec::new());
        let mut damage = Vec::new();
        for &copy in copies {
            damage.clear();
            let mut conflicts = Vec::new();
            let read = file.each_series(copy, &mut damage, |stored| {
                sealed_max = sealed_max.max(stored.sealed);
                if let Err(why) = add_series(&mut catalog, stored) {
                    conflicts.push(why);
                }
            })?;
            (whole, bad) = read;
            findings.extend(conflicts.into_iter().map(|why| Finding::new(why, 0)));
        }
        findings.extend(damage.iter().map(|d| Finding::new(d, 0)));
        Ok((catalog, sealed_max, whole, bad))
    };
    let mut said = Vec::new();
    let (catalog, sealed_max, whole, bad) = build(&[SeriesCopy::Table], &mut said)?;
    if whole || file.mark().is_none() {
        findings.extend(said);
        findings.extend(bad.iter().map(|id| {
            Finding::new(
                format!("series {id}: its row in the catalog is damaged; its readings are not shown"),
                0,
            )
        }));
        return Ok((catalog, sealed_max));
    }
    let mut said_of_copy = Vec::new();
    let (copied, copied_max, copy_is_whole, _) = build(&[SeriesCopy::Spare], &mut said_of_copy)?;
    let is_known = |id: i64| u32::try_from(id).is_ok_and(|id| copied.get(id).is_some());
    findings.extend(bad.iter().map(|&id| {
        let after =
            if is_known(id) { "its definition was read from the copy" } else { "its readings are not shown" };
        Finding::new(format!("series {id}: its row in the catalog is damaged; {after}"), 0)
    }));
    if copy_is_whole {
        if bad.is_empty() {
            findings.push(Finding::new(
                "the definitions of series (table series) are not what was written; they were read from their copies",
                0,
            ));
        }
        findings.extend(said_of_copy);
        return Ok((copied, copied_max));
    }
    if bad.is_empty() {
        findings.push(Finding::new(
            "the definitions of series (table series) are not what was written, and neither are their copies",
            0,
        ));
    }
    let (catalog, sealed_max, _, _) = build(&[SeriesCopy::Table, SeriesCopy::Spare], findings)?;
    Ok((catalog, sealed_max))
}

fn add_series(catalog: &mut Catalog, stored: StoredSeries) -> Result<(), String> {
    let id = catalog.define(&stored.definition)?;
    let series = catalog.series_mut(id);
    (series.sealed, series.span, series.in_file) = (stored.sealed, stored.span, true);
    (series.fresh, series.until) = (stored.fresh, stored.until);
    if stored.until.is_some() {
        series.newest = Newest::Unknown;
    }
    Ok(())
}

fn open_log(
    directory: &Path,
    options: &StoreOptions,
    mark: Option<&Mark>,
    sealed_max: u64,
    findings: &mut Vec<Finding>,
) -> Result<(Log, LogRecovery), Error> {
    // A number that chunks or deletions are known by must not be given again, even if the log lost it in a power cut.
    let first = mark.map_or(0, |m| m.sequence).max(sealed_max + 1);
    let mut log_options = LogOptions::new(mark.map_or(SHARED_LOG_ID, |m| m.identity));
    if mark.is_some_and(|m| m.shared_log_id) {
        log_options = log_options.earlier_id(SHARED_LOG_ID);
    }
    let log_options = log_options
        .segment_bytes(SEGMENT_BYTES)
        .payload_bytes_max(RECORD_BYTES_MAX)
        .unsynced_bytes_max(UNSYNCED_BYTES_MAX)
        .first_sequence(first);
    let foreign = match mark {
        Some(mark) => halves::foreign(&halves::ids_of(&*options.disk, directory)?, mark),
        None => Vec::new(),
    };
    let (log, found) = Log::open(options.disk.clone(), &directory.join("log"), log_options)
        .map_err(|e| Error::log(format_args!("open the store in {}", directory.display()), e))?;
    let ours = found.damage.iter().filter(|d| foreign.iter().all(|f| f.0 != d.segment));
    findings.extend(ours.map(|d| Finding::new(format!("hot log: {d}"), d.lost_count())));
    findings.extend(foreign.into_iter().map(|f| f.1));
    Ok((log, found))
}

impl Shared {
    /// Keeps what opening found wrong, and what it took from the log.
    fn keep(&self, findings: &[Finding], restored: &Restored, is_writable: bool) -> Result<(), Error> {
        let noting = |e| Error::log("note the damage", e);
        for finding in findings {
            // On a disk that takes no byte it is kept in memory.
            match self.notes.add(&finding.text, finding.lost) {
                Err(error) if is_writable && !error.is_no_space() => return Err(noting(error)),
                _ => {}
            }
        }
        if !is_writable {
            return Ok(());
        }
        match self.keep_in_file(findings, restored) {
            // What cannot be written is damaged, and described. What was taken from the log is in memory, from which the
            // catalog is made.
            Err(error) if error.is_corruption() => {
                let _one = lock(&self.sealer);
                match self.make_writable(&error) {
                    Err(error) if error.is_corruption() || error.is_no_space() => Ok(()),
                    done => done.map(drop),
                }
            }
            kept => kept,
        }
    }

    /// Makes durable in the store file what was taken from the log, and what the log looks like now.
    fn keep_in_file(&self, findings: &[Finding], restored: &Restored) -> Result<(), Error> {
        for bucket in &restored.buckets {
            self.file.insert_bucket(bucket.id, &bucket.name, bucket.retention)?;
        }
        if !restored.tombstones.is_empty() {
            let tombstones = restored.tombstones.clone();
            self.file.commit(&crate::file::Commit { tombstones, ..Default::default() })?;
        }
        if !findings.is_empty() {
            let expected = self.log_expected(&self.core());
            self.note_log(expected)?;
        }
        Ok(())
    }

    /// The damage that is not settled.
    pub(crate) fn recovery(&self) -> Recovery {
        let damage = self.notes.unsettled().iter().map(ToString::to_string).collect();
        Recovery { damage, lost_values: self.notes.lost(), ..Recovery::default() }
    }
}

fn lock_folder(disk: &dyn Disk, directory: &Path) -> Result<Box<dyn DiskLock>, Error> {
    let path = directory.join("LOCK");
    disk.lock(&path).map_err(|e| {
        if e.kind() == std::io::ErrorKind::WouldBlock {
            let owner = std::fs::read_to_string(&path).unwrap_or_default();
            let owner = match owner.trim() {
                "" => String::new(),
                pid => format!(" (process {pid})"),
            };
            let message = format!(
                "open the store in {}: another process has it open{owner}; stop that process or name another folder",
                directory.display()
            );
            Error::new(Kind::Locked, message)
        } else {
            let remedy = match e.kind() {
                std::io::ErrorKind::ReadOnlyFilesystem | std::io::ErrorKind::PermissionDenied => {
                    " (make the folder writable, or copy it to where it can be written)"
                }
                _ => "",
            };
            Error::io(format_args!("lock the store in {}{remedy}", directory.display()), e)
        }
    })
}
