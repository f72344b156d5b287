//! What is saved of one series: its chunks as they are, what only remains of others as far as nothing newer stands there,
//! and what the log has of it.

use super::carve::{Carved, body, pack_bytes};
use super::log::LogRow;
use super::losses::Losses;
use super::pages::Pages;
use super::plan::{Bytes, Candidate};
use crate::chunk::{self, CHUNK_READINGS_MAX};
use crate::chunk_frame;
use crate::column::Effort;
use crate::file::{NewChunk, Tombstone, data_crc};
use crate::record::Definition;
use crate::rollup;
use crate::scan::delete;
use crate::value::{Value, Values};
use crate::window::{Summary, TimeRange};
use graylogic_line::FieldType;

/// What a series comes to.
#[derive(Debug, Default)]
pub(super) struct Saved {
    pub(super) chunks: Vec<NewChunk>,
    /// Readings that no table vouches for: some may have been deleted.
    pub(super) doubtful: u64,
    /// Readings of the log.
    pub(super) from_log: u64,
    /// Records up to this one are in the chunks.
    pub(super) sequence: u64,
}

/// A chunk that was read.
struct Read {
    sequence: u64,
    level: u8,
    times: Vec<i64>,
    values: Values,
}

/// The series that is being saved.
pub(super) struct Series<'a> {
    pub(super) pages: &'a Pages,
    pub(super) carved: &'a Carved,
    pub(super) definition: &'a Definition,
    /// As far as the table of series says that the log is in chunks.
    pub(super) sealed: u64,
    pub(super) tombstones: &'a [Tombstone],
    /// Rows of chunks may be missing: then the log's older records may fill gaps.
    pub(super) may_miss: bool,
}

impl Series<'_> {
    /// Reads and decides.
    pub(super) fn save(&self, candidates: &[Candidate], log: &[LogRow], losses: &mut Losses) -> Saved {
        let (mut live, mut doubtful, mut missing) = (Vec::new(), Vec::new(), Vec::new());
        for candidate in candidates {
            match self.read(candidate) {
                Some(read) if candidate.is_live => live.push(read),
                Some(read) => doubtful.push(read),
                None => missing.push(*candidate),
            }
        }
        let sequence = live.iter().map(|r| r.sequence).max().unwrap_or(0).max(self.sealed);
        let mut saved = Saved { sequence, ..Saved::default() };
        // What was compacted covers what it was made of, also where readings were deleted.
        let covers = |r: &Read| (r.level > 0).then(|| (r.times[0], r.times[r.times.len() - 1], r.sequence));
        let mut covered: Vec<(i64, i64, u64)> = live.iter().filter_map(covers).collect();
        doubtful.sort_by_key(|r| std::cmp::Reverse((r.sequence, r.level)));
        let mut rest = Vec::new();
        for mut read in doubtful {
            let cover = covers(&read);
            let sequence = read.sequence;
            self.keep(&mut read, |t| !covered.iter().any(|&(a, b, s)| s >= sequence && a <= t && t <= b));
            delete(&mut read.times, &mut read.values, sequence, self.tombstones, TimeRange::all());
            // The same readings in a live chunk.
            self.keep(&mut read, |t| !live.iter().any(|l| l.sequence >= sequence && l.has(t)));
            covered.extend(cover);
            if !read.times.is_empty() {
                saved.doubtful += read.times.len() as u64;
                rest.push(Read { level: 0, ..read });
            }
        }
        let damaged = self.may_miss || !missing.is_empty();
        if let Some(row) = self.of_log(log, &live, &rest, &covered, damaged, saved.sequence) {
            saved.sequence = saved.sequence.max(row.sequence);
            saved.from_log += row.times.len() as u64;
            rest.push(row);
        }
        self.name_missing(&missing, &live, &rest, losses);
        for read in live.into_iter().chain(rest) {
            saved.sequence = saved.sequence.max(read.sequence);
            self.cut(read, &mut saved.chunks);
        }
        saved
    }

    fn read(&self, candidate: &Candidate) -> Option<Read> {
        let (_, times, values) = bytes_of(self.pages, self.carved, candidate, self.definition.field_type)?;
        Some(Read { sequence: candidate.sequence, level: candidate.level, times, values })
    }

    /// Keeps the readings at some times.
    fn keep(&self, read: &mut Read, wanted: impl Fn(i64) -> bool) {
        let order: Vec<u32> =
            (0..read.times.len() as u32).filter(|&i| wanted(read.times[i as usize])).collect();
        if order.len() < read.times.len() {
            read.values = read.values.pick(&order);
            read.times = order.iter().map(|&i| read.times[i as usize]).collect();
        }
    }

    /// The log's readings that no chunk has, the last written of each time. Those that chunks should have are wanted only
    /// where chunks are missing.
    fn of_log(
        &self,
        log: &[LogRow],
        live: &[Read],
        rest: &[Read],
        covered: &[(i64, i64, u64)],
        damaged: bool,
        sealed: u64,
    ) -> Option<Read> {
        let wanted = |row: &&LogRow| {
            let (time, sequence) = (row.time, row.sequence);
            let hides = |t: &Tombstone| sequence < t.sequence && t.start <= time && time < t.stop;
            if row.value.field_type() != self.definition.field_type || self.tombstones.iter().any(hides) {
                return false;
            }
            if sequence > sealed {
                return true;
            }
            let newer = |r: &Read| r.sequence >= sequence && r.has(time);
            let replaced = |&(a, b, s): &(i64, i64, u64)| s >= sequence && a <= time && time <= b;
            damaged && !live.iter().chain(rest).any(newer) && !covered.iter().any(replaced)
        };
        let mut rows: Vec<&LogRow> = log.iter().filter(wanted).collect();
        // The sort is stable: of one time the last written stays last.
        rows.sort_by_key(|r| r.time);
        let mut kept: Vec<&LogRow> = Vec::with_capacity(rows.len());
        for row in rows {
            if kept.last().is_some_and(|k| k.time == row.time) {
                kept.pop();
            }
            kept.push(row);
        }
        let sequence = kept.iter().map(|r| r.sequence).max()?;
        let times = kept.iter().map(|r| r.time).collect();
        let values = column(self.definition.field_type, kept.iter().map(|r| &r.value));
        Some(Read { sequence, level: 0, times, values })
    }

    /// Names the chunks that are known and could not be read, unless something newer stands in their place.
    fn name_missing(&self, missing: &[Candidate], live: &[Read], rest: &[Read], losses: &mut Losses) {
        let name = || name_of(self.definition);
        for candidate in missing {
            let Some((readings, from, to)) = candidate.extent else {
                losses.add(0, || format!("{}: chunk {}: its bytes are damaged", name(), candidate.id));
                continue;
            };
            let (t0, t1) = (from.as_nanos(), to.as_nanos());
            let covers = |r: &Read| {
                r.level > 0
                    && r.sequence >= candidate.sequence
                    && r.times[0] <= t0
                    && t1 <= r.times[r.times.len() - 1]
            };
            if !candidate.is_live && live.iter().any(covers) {
                continue;
            }
            // Its readings may be in the log still.
            let there =
                |r: &Read| r.times.partition_point(|&t| t <= t1) - r.times.partition_point(|&t| t < t0);
            let found: usize = rest.iter().map(there).sum();
            let lost = readings.saturating_sub(found as u64);
            if lost > 0 {
                losses.add(lost, || {
                    format!("{}: {lost} readings from {from} to {to}: their bytes are damaged", name())
                });
            }
        }
    }

    /// The chunks of what was read, with their figures made anew.
    fn cut(&self, read: Read, out: &mut Vec<NewChunk>) {
        let n = read.times.len();
        let pieces = if read.level > 0 { 1 } else { n.div_ceil(CHUNK_READINGS_MAX).max(1) };
        for i in 0..pieces {
            let (from, to) = (n * i / pieces, n * (i + 1) / pieces);
            let mut values = read.values.clone();
            values.cut(from, to);
            let times = &read.times[from..to];
            let Some(summary) = Summary::of(times, &values, 0, times.len()) else { continue };
            let (effort, hours) = match read.level {
                0 => (Effort::Seal, Vec::new()),
                _ => (Effort::Compact, rollup::hours_of(times, &values)),
            };
            out.push(NewChunk {
                series: self.definition.series,
                t0: times[0],
                t1: times[times.len() - 1],
                sequence: read.sequence,
                summary,
                level: read.level,
                hours: rollup::encode(&hours, self.definition.field_type),
                bytes: chunk::encode(times, &values, effort),
            });
        }
    }
}

impl Read {
    fn has(&self, time: i64) -> bool {
        self.times.binary_search(&time).is_ok()
    }
}

/// A chunk as it was written, and the readings in it; `None` when its bytes are damaged.
pub(super) fn bytes_of(
    pages: &Pages,
    carved: &Carved,
    candidate: &Candidate,
    field_type: FieldType,
) -> Option<(Vec<u8>, Vec<i64>, Values)> {
    let whole = |bytes: &[u8]| {
        let (times, values) = chunk::decode_as(bytes, field_type).ok()?;
        let agrees = candidate.row.is_none_or(|r| {
            times.len() as u64 == r.readings && times.first() == Some(&r.t0) && times.last() == Some(&r.t1)
        });
        agrees.then(|| (bytes.to_vec(), times, values))
    };
    if let Bytes::Frame(at) = &candidate.bytes {
        return whole(&body(pages, at)?);
    }
    let row = candidate.row?;
    let (from, length) = (usize::try_from(row.place.offset).ok()?, usize::try_from(row.place.length).ok()?);
    pack_bytes(pages, carved, row.place.pack).find_map(|pack| {
        let bytes = pack.get(from..from.checked_add(length)?)?;
        let good = data_crc(row.id, bytes) == row.place.crc;
        good.then(|| chunk_frame::body_of(bytes, row.id, row.series)).flatten().and_then(whole)
    })
}

/// What a series is called in a sentence.
pub(super) fn name_of(definition: &Definition) -> String {
    let tags: String = definition.tags.iter().map(|(k, v)| format!(",{k}={v}")).collect();
    format!("{}{tags} {}", definition.measurement, definition.field)
}

fn column<'a>(field_type: FieldType, values: impl Iterator<Item = &'a Value>) -> Values {
    let mut column = Values::empty(field_type);
    for value in values {
        match (&mut column, value) {
            (Values::Float(c), Value::Float(v)) => c.push(*v),
            (Values::Integer(c), Value::Integer(v)) => c.push(*v),
            (Values::Unsigned(c), Value::Unsigned(v)) => c.push(*v),
            (Values::Boolean(c), Value::Boolean(v)) => c.push(*v),
            (Values::String(c), Value::String(v)) => c.push(v.clone()),
            _ => unreachable!("rows of another type were left out"),
        }
    }
    column
}

/// The type of the values of a chunk of which nothing else is known.
pub(super) fn type_of(pages: &Pages, candidate: &Candidate) -> Option<FieldType> {
    let Bytes::Frame(at) = &candidate.bytes else { return None };
    chunk::decode(&body(pages, at)?).ok().map(|(_, values)| values.field_type())
}
