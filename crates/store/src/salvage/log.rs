//! What is left of the hot log: every record that is as it was written, in the order of its numbers.

use crate::error::Error;
use crate::record::{self, Definition};
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
    /// What is damaged in segments, a sentence each.
    pub(super) damage: Vec<String>,
}

/// Reads the segments in a folder. `log_id`: identity of a log whose segments have lost their headers.
pub(super) fn read(folder: &Path, log_id: u64) -> Result<LogRows, Error> {
    let mut found = LogRows::default();
    let mut paths: Vec<PathBuf> = match std::fs::read_dir(folder) {
        Ok(entries) => entries.filter_map(Result::ok).map(|e| e.path()).collect(),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(e) => return Err(Error::io(format_args!("list the hot log {}", folder.display()), e)),
    };
    paths.retain(|p| p.extension().is_some_and(|e| e == "seg") && p.is_file());
    paths.sort();
    let mut ids = vec![log_id];
    let mut segments: Vec<Carved> = Vec::new();
    let mut headless = Vec::new();
    for path in &paths {
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) => {
                found.damage.push(format!("hot log: {} cannot be read: {error}", path.display()));
                Vec::new()
            }
        };
        found.segments += 1;
        match segment_log_id(&bytes) {
            Some(id) if !ids.contains(&id) => ids.push(id),
            Some(_) => {}
            None => headless.push(segments.len()),
        }
        segments.push(carve_segment(&bytes, &[]));
        if segments.last().is_some_and(|s| s.log_id.is_none()) {
            segments.pop();
            segments.push(carve_segment(&bytes, &ids));
        }
    }
    found.damage.extend(paths.iter().zip(&segments).filter_map(|(path, segment)| {
        let name = path.file_name().unwrap_or_default().display();
        let header = if segment.log_id.is_none() { "its header and " } else { "" };
        let bytes = segment.unread_bytes;
        let damaged = segment.log_id.is_none() || (bytes > 0 && segment.damaged.is_empty());
        damaged.then(|| format!("hot log: segment {name}: {header}{bytes} bytes are damaged"))
    }));
    let mut expected = None;
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
    Ok(found)
}

impl LogRows {
    fn take(&mut self, frame: &Frame) {
        let Ok(record) = record::decode(&frame.payload) else {
            self.gaps.push((frame.first_sequence, u64::from(frame.count)));
            return;
        };
        self.definitions.extend(record.definitions);
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
