//! The two halves of a store, the store file and the hot log: whether they belong together, and what is missing of either.
//! Nothing that is found wrong is removed: it is set aside in `damaged/` and described.

use crate::aside::{STORE_FILE, set_aside, with_suffix};
use crate::catalog::{Bucket, Catalog};
use crate::error::Error;
use crate::file::{Loaded, StoreFile, replace};
use crate::mark::{Mark, new_identity};
use crate::record::{self, BucketDefinition, Heading, Tombstone};
use graylogic_durable::{Disk, Log, Recovery as LogRecovery, segment_ids};
use std::collections::BTreeMap;
use std::path::Path;

/// The identity in the segments of every store of format version 1: "store".
pub(crate) const SHARED_LOG_ID: u64 = u64::from_le_bytes(*b"store\0\0\0");

/// Something that opening found wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) text: String,
    /// Values that it cost, as far as that is known.
    pub(crate) lost: u64,
}

impl Finding {
    pub(crate) fn new(text: impl Into<String>, lost: u64) -> Self {
        Self { text: text.into(), lost }
    }
}

/// Why a store file had to be made though the store is not new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lost {
    Gone,
    Emptied,
    Unreadable,
}

/// The store file, and what was found wrong on the way to it.
pub(crate) struct OpenedFile {
    pub(crate) file: StoreFile,
    pub(crate) lost: Option<Lost>,
    pub(crate) findings: Vec<Finding>,
}

/// Opens the store file of a folder, or makes one that belongs to the segments of the log.
pub(crate) fn open_file(disk: &dyn Disk, directory: &Path) -> Result<OpenedFile, Error> {
    let path = directory.join(STORE_FILE);
    replace::finish(&path)?;
    replace::remove_unfinished(&path)?;
    let ids = ids_of(disk, directory)?;
    let new = Mark {
        shared_log_id: ids.iter().any(|s| s.1 == Some(SHARED_LOG_ID)),
        ..Mark::new(own_id(&ids).unwrap_or_else(new_identity))
    };
    let mut findings = Vec::new();
    let mut lost = match std::fs::metadata(&path) {
        Ok(meta) if meta.len() > 0 => None,
        Ok(_) => Some(Lost::Emptied),
        Err(_) => Some(Lost::Gone),
    };
    if lost.is_some() {
        // SQLite would remove it: what it holds belongs to a file that is not there.
        let wal = with_suffix(&path, "-wal");
        if std::fs::metadata(&wal).is_ok_and(|m| m.len() > 0) {
            let kept = set_aside(directory, &wal)?;
            findings.push(Finding::new(
                format!("store.sqlite-wal belongs to a store file that is gone; kept in {}", kept.display()),
                0,
            ));
        }
    }
    let file = match StoreFile::open_with(&path, &new) {
        Err(error) if error.is_corruption() && lost.is_none() => {
            lost = Some(Lost::Unreadable);
            let kept = set_aside(directory, &path)?;
            for suffix in ["-wal", "-shm"] {
                let beside = with_suffix(&path, suffix);
                if beside.exists() {
                    set_aside(directory, &beside)?;
                }
            }
            findings.push(Finding::new(
                format!(
                    "store.sqlite cannot be read; kept in {}; save what is in it with graylogic salvage",
                    kept.display()
                ),
                0,
            ));
            StoreFile::open_with(&path, &new)?
        }
        opened => opened?,
    };
    if lost.is_some() && ids.is_empty() {
        // Nothing says that there was a store before.
        lost = lost.filter(|l| *l == Lost::Unreadable);
    }
    if file.mark_lost() {
        findings.push(Finding::new("store.sqlite: its mark (table meta) is damaged", 0));
        let (identity, shared_log_id) = (new.identity, new.shared_log_id);
        file.raise(&Mark { identity, shared_log_id, ..Mark::default() });
    }
    Ok(OpenedFile { file, lost, findings })
}

/// The segments of a store's log, with the identity that each carries.
pub(crate) fn ids_of(disk: &dyn Disk, directory: &Path) -> Result<Vec<(String, Option<u64>)>, Error> {
    segment_ids(disk, &directory.join("log"))
        .map_err(|e| Error::log(format_args!("open the store in {}", directory.display()), e))
}

/// The identity that most segments carry.
pub(crate) fn own_id(ids: &[(String, Option<u64>)]) -> Option<u64> {
    let mut votes: BTreeMap<u64, usize> = BTreeMap::new();
    ids.iter()
        .filter_map(|s| s.1)
        .filter(|id| *id != SHARED_LOG_ID)
        .for_each(|id| *votes.entry(id).or_default() += 1);
    votes.into_iter().max_by_key(|v| v.1).map(|v| v.0)
}

/// Segments that carry the identity of another store, a sentence each: opening the log sets them aside.
pub(crate) fn foreign(ids: &[(String, Option<u64>)], mark: &Mark) -> Vec<(String, Finding)> {
    let is_foreign = |id: u64| id != mark.identity && !(mark.shared_log_id && id == SHARED_LOG_ID);
    let of = |(name, id): &(String, Option<u64>)| {
        let id = (*id).filter(|id| is_foreign(*id))?;
        let text = format!(
            "hot log: segment {name} belongs to another store ({id:016x}, this one is {:016x}); kept in log/damaged",
            mark.identity
        );
        Some((name.clone(), Finding::new(text, 0)))
    };
    ids.iter().filter_map(of).collect()
}

/// What the hot log says of the store besides readings.
#[derive(Debug, Default)]
pub(crate) struct LogMarks {
    pub(crate) newest: Option<Mark>,
    /// The record with the newest list of all buckets and deletions.
    pub(crate) whole: Option<(u64, Heading)>,
    /// Buckets that records after it name.
    later: BTreeMap<u32, BucketDefinition>,
}

impl LogMarks {
    pub(crate) fn read(log: &Log) -> Self {
        let mut marks = Self::default();
        for frame in log.replay(log.first_sequence()).filter_map(Result::ok) {
            let Ok(heading) = record::decode_heading(&frame.payload) else { continue };
            if let Some(mark) = &heading.mark
                && marks.newest.as_ref().is_none_or(|known| mark.commit >= known.commit)
            {
                marks.newest = Some(mark.clone());
            }
            if heading.whole {
                marks.later.clear();
                marks.whole = Some((frame.first_sequence, heading));
            } else {
                marks.later.extend(heading.buckets.into_iter().map(|b| (b.id, b)));
            }
        }
        marks
    }

    /// All buckets the log knows to be there.
    fn buckets(&self) -> BTreeMap<u32, BucketDefinition> {
        let listed = self.whole.iter().flat_map(|w| &w.1.buckets).map(|b| (b.id, b.clone()));
        listed.chain(self.later.iter().map(|(id, b)| (*id, b.clone()))).collect()
    }

    fn tombstones(&self) -> &[Tombstone] {
        self.whole.as_ref().map_or(&[], |w| &w.1.tombstones)
    }
}

/// What of the catalog comes from the log.
#[derive(Debug, Default)]
pub(crate) struct Restored {
    /// The store file is gone, or older than the log: what the log defines counts.
    pub(crate) file_is_behind: bool,
    /// Buckets that the file does not have.
    pub(crate) buckets: Vec<BucketDefinition>,
    /// Deletions that the file does not have.
    pub(crate) tombstones: Vec<Tombstone>,
}

/// Compares what the store file knows with what the log says of it, and takes from the log what is missing.
pub(crate) fn reconcile(
    file: &StoreFile,
    lost: Option<Lost>,
    loaded: &Loaded,
    marks: &LogMarks,
    catalog: &mut Catalog,
    findings: &mut Vec<Finding>,
) -> Restored {
    let mut restored = Restored::default();
    let known = file.mark().unwrap_or_default();
    let newest = marks.newest.clone().unwrap_or_default();
    let behind = newest.commit > known.commit && !file.mark_lost();
    if let Some(lost) = lost {
        findings.push(lost_file(lost, marks.newest.as_ref()));
    } else if behind {
        findings.push(Finding::new(
            format!(
                "store.sqlite is older than the hot log says (commit {} of {}): it has {} of {} readings in chunks",
                known.commit, newest.commit, known.readings, newest.readings
            ),
            newest.readings.saturating_sub(known.readings),
        ));
    }
    restored.file_is_behind = lost.is_some() || behind;
    file.raise(&newest);
    let given = file.mark().unwrap_or_default();
    catalog.next_series = catalog.next_series.max(given.next_series);
    catalog.next_bucket = catalog.next_bucket.max(given.next_bucket);
    restore_buckets(loaded, marks, catalog, &mut restored, findings);
    if restored.file_is_behind || !loaded.tombstones_whole || file.mark_lost() {
        let new = |t: &&Tombstone| !loaded.tombstones.contains(t);
        restored.tombstones = marks.tombstones().iter().filter(new).copied().collect();
    }
    restored
}

fn lost_file(lost: Lost, newest: Option<&Mark>) -> Finding {
    let what = match lost {
        Lost::Gone => "store.sqlite is gone",
        Lost::Emptied => "store.sqlite was emptied",
        Lost::Unreadable => "a new store.sqlite was begun",
    };
    match newest {
        Some(mark) => Finding::new(
            format!(
                "{what}: the hot log says that it held {} chunks with {} readings; put it back, or go on without them",
                mark.chunks, mark.readings
            ),
            mark.readings,
        ),
        None => Finding::new(format!("{what}: how many readings it held is not known"), 0),
    }
}

/// Gives buckets back that only the log knows, and names to those that have lost theirs.
fn restore_buckets(
    loaded: &Loaded,
    marks: &LogMarks,
    catalog: &mut Catalog,
    restored: &mut Restored,
    findings: &mut Vec<Finding>,
) {
    let of_log = marks.buckets();
    for id in &loaded.nameless {
        let (Some(named), Some(place)) = (of_log.get(id), catalog.buckets.iter().position(|b| b.id == *id))
        else {
            continue;
        };
        findings.push(Finding::new(
            format!("bucket {id}: its name {:?} was read from the hot log", named.name),
            0,
        ));
        let name = free_name(catalog, named.name.clone(), *id);
        catalog.rename_bucket(place, &name);
        catalog.buckets[place].retention = named.retention;
    }
    if restored.file_is_behind {
        for bucket in of_log.into_values() {
            if catalog.buckets.iter().all(|b| b.id != bucket.id) {
                let name = free_name(catalog, bucket.name, bucket.id);
                catalog.buckets.push(Bucket::new(bucket.id, &name, bucket.retention));
                restored.buckets.push(BucketDefinition { name, ..bucket });
            }
        }
    }
    catalog.buckets.sort_by_key(|b| b.id);
    let highest = catalog.buckets.iter().map(|b| b.id.saturating_add(1)).max().unwrap_or(1);
    catalog.next_bucket = catalog.next_bucket.max(highest);
}

/// The name, unless another bucket has it.
fn free_name(catalog: &Catalog, name: String, id: u32) -> String {
    if catalog.buckets.iter().any(|b| *b.name == *name) { format!("{name}-{id}") } else { name }
}

/// What the store file expects of the hot log and is not there.
pub(crate) fn missing_of_log(mark: &Mark, log: &Log, found: &LogRecovery) -> Vec<Finding> {
    let expected = mark.log;
    if expected.segment == 0 {
        return Vec::new();
    }
    let mut findings = Vec::new();
    let segments = log.segments();
    let last = segments.last().map_or(0, |s| s.number);
    let gone = last < expected.segment;
    let torn = found.damage.iter().map(|d| d.lost.end).max().unwrap_or(0);
    let end = found.end_sequence.max(torn).max(expected.from);
    let missing = expected.synced.saturating_sub(end);
    if missing > 0 || gone {
        let what = if segments.is_empty() {
            "its segments are gone".to_owned()
        } else if gone {
            format!("segment {:016x} and what follows it are gone", expected.segment)
        } else {
            "its end is gone".to_owned()
        };
        let lost = match missing {
            0 => "nothing is known to be lost with it".to_owned(),
            n => format!(
                "at least {n} values that were not in chunks are lost, numbers {end} to {}",
                expected.synced - 1
            ),
        };
        findings.push(Finding::new(format!("hot log: {what}; {lost}"), missing));
    }
    let first = segments.first().map_or(u64::MAX, |s| s.first_sequence).min(expected.synced);
    if !segments.is_empty() && first > expected.from {
        let lost = first - expected.from;
        findings.push(Finding::new(
            format!(
                "hot log: its beginning is gone; up to {lost} values that were not in chunks are lost, numbers {} to {}",
                expected.from,
                first - 1
            ),
            lost,
        ));
    }
    findings
}
