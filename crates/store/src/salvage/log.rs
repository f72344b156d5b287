//! What is left of the hot log: every record that is as it was written, in the order of its numbers.

use crate::error::Error;
use crate::halves::SHARED_LOG_ID;
use crate::mark::Mark;
use crate::record::{self, BucketDefinition, Definition, Tombstone};
use crate::value::Value;
use graylogic_durable::{Carved, Frame, carve_segment, segment_log_id};
use graylogic_line::FieldType;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A reading of the log.
#[derive(Clone, Debug)]
pub(super) struct LogRow {
    pub(super) sequence: u64,
    pub(super) time: i64,
    pub(super) value: Value,
}

/// The records of the log.
#[derive(Debug, Default)]
pub(super) struct LogRows {
    pub(super) definitions: Vec<Definition>,
    /// By their series, in the order in which they were written.
    pub(super) rows: BTreeMap<u32, Vec<LogRow>>,
    pub(super) segments: u64,
    /// Numbers that no record has though some before and behind have them: first, and how many.
    pub(super) gaps: Vec<(u64, u64)>,
    /// Names of buckets, and deletions, from the records; the newest last.
    pub(super) buckets: Vec<BucketDefinition>,
    pub(super) tombstones: Vec<Tombstone>,
    /// The newest mark.
    pub(super) mark: Option<Mark>,
    /// The first number there may be a record of, and the number after the last.
    pub(super) first: Option<u64>,
    pub(super) end: u64,
    /// Number of the newest segment; 0: there is none.
    newest_segment: u64,
    /// What is damaged in segments, a sentence each.
    pub(super) damage: Vec<String>,
}

/// A segment by its name and bytes.
struct Segment {
    name: String,
    bytes: Vec<u8>,
    log_id: Option<u64>,
}

/// The segments of a log, not read yet.
pub(super) struct Segments {
    all: Vec<Segment>,
    damage: Vec<String>,
}

/// Finds the segments in a folder.
pub(super) fn segments(folder: &Path) -> Result<Segments, Error> {
    let mut paths: Vec<PathBuf> = match std::fs::read_dir(folder) {
        Ok(entries) => entries.filter_map(Result::ok).map(|e| e.path()).collect(),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(e) => return Err(Error::io(format_args!("list the hot log {}", folder.display()), e)),
    };
    paths.retain(|p| p.extension().is_some_and(|e| e == "seg") && p.is_file());
    paths.sort();
    let mut found = Segments { all: Vec::new(), damage: Vec::new() };
    for path in &paths {
        let name = path.file_name().unwrap_or_default().display().to_string();
        match std::fs::read(path) {
            Ok(bytes) => found.all.push(Segment { name, log_id: segment_log_id(&bytes), bytes }),
            Err(error) => found.damage.push(format!("hot log: segment {name} cannot be read: {error}")),
        }
    }
    Ok(found)
}

impl Segments {
    pub(super) fn len(&self) -> usize {
        self.all.len() + self.damage.len()
    }

    /// The identity that most segments carry.
    pub(super) fn identity(&self) -> Option<u64> {
        let mut votes: BTreeMap<u64, usize> = BTreeMap::new();
        let own = self.all.iter().filter_map(|s| s.log_id).filter(|id| *id != SHARED_LOG_ID);
        own.for_each(|id| *votes.entry(id).or_default() += 1);
        votes.into_iter().max_by_key(|v| v.1).map(|v| v.0)
    }

    /// The number of the newest commit of the store file that a record knows of.
    pub(super) fn newest_commit(&self, identity: Option<u64>) -> u64 {
        let ours = self.all.iter().filter(|s| s.log_id == identity);
        let frames = ours.flat_map(|s| carve_segment(&s.bytes, &[]).frames);
        let marks = frames.filter_map(|f| record::decode_heading(&f.payload).ok()?.mark);
        marks.map(|m| m.commit).max().unwrap_or(0)
    }
}

/// Reads the segments that carry an identity, or the one that all stores of format version 1 had; those that have lost
/// theirs are taken for one of these.
pub(super) fn read(all: Segments, identity: Option<u64>) -> LogRows {
    let mut found = LogRows { segments: all.len() as u64, damage: all.damage, ..LogRows::default() };
    let ids: Vec<u64> = identity.into_iter().chain([SHARED_LOG_ID]).collect();
    let mut segments: Vec<Carved> = Vec::new();
    for segment in &all.all {
        let Segment { name, bytes, log_id } = segment;
        if let Some(id) = log_id.filter(|id| !ids.contains(id)) {
            found.damage.push(format!(
                "hot log: segment {name} belongs to another store ({id:016x}); it is left out"
            ));
            continue;
        }
        let carved = carve_segment(bytes, &ids);
        let header = if log_id.is_none() { "its header and " } else { "" };
        let unread = carved.unread_bytes;
        if log_id.is_none() || (unread > 0 && carved.damaged.is_empty()) {
            found.damage.push(format!("hot log: segment {name}: {header}{unread} bytes are damaged"));
        }
        segments.push(carved);
        let number = name.strip_suffix(".seg").and_then(|n| u64::from_str_radix(n, 16).ok());
        found.newest_segment = found.newest_segment.max(number.unwrap_or(0));
    }
    // In the order of their numbers: a file that was copied or renamed may have any name.
    segments.sort_by_cached_key(|s| s.first_sequence.or_else(|| s.frames.first().map(|f| f.first_sequence)));
    // What the front of the first segment lacks is known by its header.
    let mut expected = segments.first().and_then(|s| s.first_sequence);
    for (i, segment) in segments.iter().enumerate() {
        let limit = segments[i + 1..].iter().filter_map(|s| s.first_sequence).min().unwrap_or(u64::MAX);
        for frame in &segment.frames {
            let end = frame.first_sequence.saturating_add(u64::from(frame.count));
            let next = *expected.get_or_insert(frame.first_sequence);
            if frame.first_sequence < next || end > limit {
                continue;
            }
            if frame.first_sequence > next {
                found.gaps.push((next, frame.first_sequence - next));
            }
            expected = Some(end);
            found.take(frame);
        }
        // What the end of a segment lacks is known by the front of the next one.
        if let (Some(next), true) = (expected, limit < u64::MAX)
            && next < limit
        {
            found.gaps.push((next, limit - next));
            expected = Some(limit);
        }
    }
    // Behind the last whole record: what headers say of records that are cut.
    let end = expected.unwrap_or(0);
    let cut = segments.iter().flat_map(|s| &s.damaged).map(|d| d.end).max().unwrap_or(0);
    if cut > end && expected.is_some() {
        found.gaps.push((end, cut - end));
    }
    found.end = end.max(cut);
    found.first = segments.iter().filter_map(|s| s.first_sequence).min();
    found
}

impl LogRows {
    /// The newest segment that a mark of the store file says there was, when it is gone.
    pub(super) fn missing_segment(&self, mark: Option<&Mark>) -> Option<u64> {
        mark.map(|m| m.log.segment).filter(|segment| *segment > self.newest_segment)
    }

    /// Numbers that a mark of the store file says must be in the log and that no segment is left of: first, and how many.
    pub(super) fn missing(&self, mark: Option<&Mark>) -> Vec<(u64, u64)> {
        let Some(expected) = mark.map(|m| m.log).filter(|log| log.segment != 0) else { return Vec::new() };
        let front = self.first.unwrap_or(expected.synced).min(expected.synced);
        let end = self.end.max(expected.from).max(front);
        let ranges = [expected.from..front, end..expected.synced];
        ranges.into_iter().filter(|r| !r.is_empty()).map(|r| (r.start, r.end - r.start)).collect()
    }

    fn take(&mut self, frame: &Frame) {
        let Ok(record) = record::decode(&frame.payload) else {
            self.gaps.push((frame.first_sequence, u64::from(frame.count)));
            return;
        };
        self.definitions.extend(record.definitions);
        self.buckets.extend(record.heading.buckets);
        self.tombstones.extend(record.heading.tombstones);
        let newer = |m: &Mark| self.mark.as_ref().is_none_or(|known| m.commit >= known.commit);
        if let Some(mark) = record.heading.mark.filter(newer) {
            self.mark = Some(mark);
        }
        for row in &record.rows {
            let value = match row.field_type {
                FieldType::Float => Value::Float(f64::from_bits(row.bits)),
                FieldType::Integer => Value::Integer(row.bits as i64),
                FieldType::Unsigned => Value::Unsigned(row.bits),
                FieldType::Boolean => Value::Boolean(row.bits != 0),
                FieldType::String => Value::String(record.texts[row.bits as usize].as_str().into()),
            };
            let row_of = LogRow { sequence: frame.first_sequence, time: row.time, value };
            self.rows.entry(row.series).or_default().push(row_of);
        }
    }
}
