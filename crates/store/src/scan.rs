//! The way out: the readings of a series from chunks, tails on their way into chunks, and the tail, in the order of
//! time; of several with one time the one that was written last.

use crate::catalog::{Newest, SeriesInfo};
use crate::core::Shared;
use crate::error::Error;
use crate::file::{ChunkMeta, Snapshot};
use crate::tail::keep_last_of_equal;
use crate::value::{Value, Values};
use crate::window::{Summary, TimeRange, Window, Windows};
use graylogic_line::Timestamp;
use std::sync::Arc;

/// Readings of one series, in the order of time.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Block {
    /// The series.
    pub series: SeriesInfo,
    /// Times in nanoseconds since the epoch, ascending.
    pub times: Vec<i64>,
    /// As many values.
    pub values: Values,
}

/// The readings of a range, block by block: an iterator.
///
/// A series comes as consecutive blocks in the order of time. A block is about a chunk long, so that any range can be
/// read in little memory; where late readings overlap chunks it is as long as what overlaps.
pub struct Scan {
    shared: Arc<Shared>,
    waiting: std::vec::IntoIter<SeriesInfo>,
    range: TimeRange,
    /// The series being read, with what is left of it.
    current: Option<(SeriesInfo, std::vec::IntoIter<Run>)>,
}

impl Scan {
    pub(crate) fn new(shared: Arc<Shared>, series: Vec<SeriesInfo>, range: TimeRange) -> Self {
        Self { shared, waiting: series.into_iter(), range, current: None }
    }

    fn step(&mut self) -> Result<Option<Block>, Error> {
        loop {
            let Some((series, runs)) = &mut self.current else {
                let Some(series) = self.waiting.next() else { return Ok(None) };
                let (_, runs) = self.shared.plan(&series, self.range)?;
                self.current = Some((series, runs.into_iter()));
                continue;
            };
            let Some(run) = runs.next() else {
                self.current = None;
                continue;
            };
            let snapshot = self.shared.file.snapshot()?;
            let (times, values) = self.shared.readings(&snapshot, series, run, self.range)?;
            if !times.is_empty() {
                return Ok(Some(Block { series: series.clone(), times, values }));
            }
        }
    }
}

impl Iterator for Scan {
    type Item = Result<Block, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let step = self.step();
        if step.is_err() {
            // After a failure of the disk there is nothing more to say.
            self.current = None;
            self.waiting = Vec::new().into_iter();
        }
        step.transpose()
    }
}

impl std::fmt::Debug for Scan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scan").field("range", &self.range).finish_non_exhaustive()
    }
}

/// Parts of a series that overlap in time: usually one.
type Run = Vec<Source>;

/// A part of a series with its own readings.
enum Source {
    Chunk(ChunkMeta),
    Memory { times: Vec<i64>, values: Values, sequence: u64 },
}

impl Source {
    fn bounds(&self) -> (i64, i64) {
        match self {
            Self::Chunk(meta) => (meta.t0, meta.t1),
            Self::Memory { times, .. } => (times[0], times[times.len() - 1]),
        }
    }

    fn sequence(&self) -> u64 {
        match self {
            Self::Chunk(meta) => meta.sequence,
            Self::Memory { sequence, .. } => *sequence,
        }
    }
}

impl Shared {
    /// What there is of a series in a range, as runs in the order of time that do not overlap each other.
    fn plan(&self, series: &SeriesInfo, range: TimeRange) -> Result<(Snapshot<'_>, Vec<Run>), Error> {
        let mut sources = Vec::new();
        let span;
        {
            // Memory first, the file after: what is sealed in between is seen twice, which is once too often but
            // never too few, and readings of one time are joined below.
            let core = self.open_core()?;
            let Some(held) = core.catalog.get(series.id) else {
                return Ok((self.file.snapshot()?, Vec::new()));
            };
            span = held.span;
            let tail = (!held.tail.is_empty()).then_some(&held.tail);
            for part in held.sealing.iter().map(|t| &**t).chain(tail) {
                let (times, values) = part.readings(range.start, range.stop);
                if !times.is_empty() {
                    sources.push(Source::Memory { times, values, sequence: part.last_sequence });
                }
            }
        }
        let snapshot = self.file.snapshot()?;
        // A chunk sealed since may be longer than those before.
        let span = self.core().catalog.get(series.id).map_or(span, |s| s.span.max(span));
        let mut damage = Vec::new();
        let chunks =
            snapshot.chunks(series.id, series.field_type, span, (range.start, range.stop), &mut damage)?;
        self.note_damage(&damage);
        sources.extend(chunks.into_iter().map(Source::Chunk));
        sources.sort_by_key(|s| (s.bounds().0, s.sequence()));
        let mut runs: Vec<Run> = Vec::new();
        let mut end = i64::MIN;
        for source in sources {
            let (t0, t1) = source.bounds();
            match runs.last_mut() {
                Some(run) if t0 <= end => run.push(source),
                _ => runs.push(vec![source]),
            }
            end = end.max(t1);
        }
        Ok((snapshot, runs))
    }

    /// The readings of a run inside the range.
    fn readings(
        &self,
        snapshot: &Snapshot<'_>,
        series: &SeriesInfo,
        mut run: Run,
        range: TimeRange,
    ) -> Result<(Vec<i64>, Values), Error> {
        run.sort_by_key(Source::sequence);
        let mut parts = Vec::with_capacity(run.len());
        for source in run {
            match source {
                Source::Memory { times, values, .. } => parts.push((times, values)),
                Source::Chunk(meta) => match snapshot.readings(&meta, series.field_type)? {
                    Some((mut times, mut values)) => {
                        let from = times.partition_point(|&t| t < range.start);
                        let to = times.partition_point(|&t| t < range.stop).max(from);
                        if (from, to) != (0, times.len()) {
                            times.truncate(to);
                            times.drain(..from);
                            values.cut(from, to);
                        }
                        parts.push((times, values));
                    }
                    None => self.note_damage(&[damaged(series, &meta)]),
                },
            }
        }
        let mut parts = parts.into_iter();
        let Some((mut times, mut values)) = parts.next() else {
            return Ok((Vec::new(), Values::empty(series.field_type)));
        };
        let mut several = false;
        for (more, more_values) in parts {
            times.extend_from_slice(&more);
            values.extend(&more_values);
            several = true;
        }
        if several {
            // Parts are in the order of writing and the sort is stable: of equal times the last was written last.
            let mut order: Vec<u32> = (0..times.len() as u32).collect();
            order.sort_by_key(|&i| times[i as usize]);
            keep_last_of_equal(&mut order, |i| times[i as usize]);
            values = values.pick(&order);
            times = order.iter().map(|&i| times[i as usize]).collect();
        }
        Ok((times, values))
    }

    /// The windows of a series that have readings.
    pub(crate) fn fold(
        &self,
        series: &SeriesInfo,
        range: TimeRange,
        windows: &Windows,
    ) -> Result<Vec<Window>, Error> {
        let mut folded: Vec<Window> = Vec::new();
        let mut add = |(start, stop): (i64, i64), summary: Summary| match folded.last_mut() {
            Some(last) if last.start.as_nanos() == start => last.summary.append(summary),
            _ => folded.push(Window {
                start: Timestamp::from_nanos(start),
                stop: Timestamp::from_nanos(stop),
                summary,
            }),
        };
        if range.start >= range.stop {
            return Ok(folded);
        }
        let (snapshot, runs) = self.plan(series, range)?;
        for run in runs {
            if let [Source::Chunk(meta)] = &*run
                && range.start <= meta.t0
                && meta.t1 < range.stop
                && let Some(window) = windows.holding(meta.t0, range)
                && meta.t1 < window.1
            {
                add(window, meta.summary.clone());
                continue;
            }
            let (times, values) = self.readings(&snapshot, series, run, range)?;
            let mut from = 0;
            while from < times.len() {
                let Some(window) = windows.holding(times[from], range) else {
                    from += 1;
                    continue;
                };
                let to = from + times[from..].partition_point(|&t| t < window.1);
                if let Some(summary) = Summary::of(&times, &values, from, to) {
                    add(window, summary);
                }
                from = to;
            }
        }
        Ok(folded)
    }

    /// The newest reading of a series.
    pub(crate) fn newest(&self, series: &SeriesInfo) -> Result<Option<(i64, Value)>, Error> {
        let in_memory = |held: &crate::catalog::Series| {
            let parts = held.sealing.iter().map(|t| &**t).chain(Some(&held.tail));
            // Of equal times the later part was written later.
            parts.filter_map(crate::tail::Tail::newest).reduce(|a, b| if b.0 >= a.0 { b } else { a })
        };
        let latest = |memory: Option<(i64, Value)>, file: Option<(i64, Value)>| match (memory, file) {
            (Some(m), Some(f)) => Some(if m.0 >= f.0 { m } else { f }),
            (m, f) => m.or(f),
        };
        let memory = {
            let core = self.open_core()?;
            let Some(held) = core.catalog.get(series.id) else { return Ok(None) };
            match &held.newest {
                Newest::Nothing => return Ok(in_memory(held)),
                Newest::At(time, value) => return Ok(latest(in_memory(held), Some((*time, value.clone())))),
                Newest::Unknown => in_memory(held),
            }
        };
        let found = self.file.snapshot()?.newest_chunk(series.id, series.field_type)?;
        let found = found.map(|meta| (meta.t1, meta.summary.last.1));
        if let Some(held) = self.core().catalog.get_mut(series.id)
            && matches!(held.newest, Newest::Unknown)
        {
            held.newest = found.clone().map_or(Newest::Nothing, |(time, value)| Newest::At(time, value));
        }
        Ok(latest(memory, found))
    }

    /// The times of the oldest and newest reading of a series.
    pub(crate) fn bounds(&self, series: &SeriesInfo) -> Result<Option<(i64, i64)>, Error> {
        let Some((newest, _)) = self.newest(series)? else { return Ok(None) };
        let (memory, span) = {
            let core = self.open_core()?;
            let Some(held) = core.catalog.get(series.id) else { return Ok(None) };
            let parts = held.sealing.iter().map(|t| &**t).chain(Some(&held.tail));
            (parts.filter_map(crate::tail::Tail::bounds).map(|b| b.0).min(), held.span)
        };
        let snapshot = self.file.snapshot()?;
        let in_file = match snapshot.oldest_chunk(series.id, series.field_type)? {
            None => None,
            Some(first) => {
                // The chunk that ends first need not begin first, but no chunk is longer than the span.
                let before = (i64::MIN, first.t0.saturating_add(1));
                let rivals = snapshot.chunks(series.id, series.field_type, span, before, &mut Vec::new())?;
                rivals.iter().map(|c| c.t0).chain(Some(first.t0)).min()
            }
        };
        Ok(memory.into_iter().chain(in_file).min().map(|oldest| (oldest, newest)))
    }

    fn note_damage(&self, damage: &[String]) {
        for what in damage {
            tracing::warn!(%what, "damaged data is left out of an answer");
        }
        if !damage.is_empty() {
            self.core().damaged_total += damage.len() as u64;
        }
    }
}

fn damaged(series: &SeriesInfo, meta: &ChunkMeta) -> String {
    let (from, to) = (Timestamp::from_nanos(meta.t0), Timestamp::from_nanos(meta.t1));
    format!(
        "chunk {} of {} {} ({} readings from {from} to {to}): its bytes are not what was written",
        meta.id,
        series.measurement(),
        series.field(),
        meta.summary.count
    )
}
