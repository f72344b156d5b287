//! The way out: the readings of a series from chunks, tails on their way into chunks, and the tail, in the order of
//! time; of several with one time the one that was written last.

use crate::catalog::{Newest, SeriesInfo};
use crate::chunk::RawValues;
use crate::core::Shared;
use crate::error::Error;
use crate::file::{ChunkMeta, Snapshot, Tombstone};
use crate::tail::keep_last_of_equal;
use crate::value::{Value, Values};
use crate::window::{Column, Fold, TimeRange, Window, Windows};
use graylogic_line::{FieldType, Timestamp};
use std::sync::Arc;

/// So many series are answered from one view of the file: neighbours share rows of it.
const SERIES_PER_SNAPSHOT: usize = 32;
/// Memory of an answer is made ready for at most so many windows of a series; more grow it.
const WINDOWS_EXPECTED_MAX: usize = 1 << 12;

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
    current: Option<Current>,
}

/// The series being read, with what is left of it.
struct Current {
    series: SeriesInfo,
    plan: Plan,
    runs: std::vec::IntoIter<Run>,
    /// What is left of the range.
    left: TimeRange,
    /// Chunks that were not there when they should have been read.
    missed: Vec<i64>,
}

impl Scan {
    pub(crate) fn new(shared: Arc<Shared>, series: Vec<SeriesInfo>, range: TimeRange) -> Self {
        Self { shared, waiting: series.into_iter(), range, current: None }
    }

    fn step(&mut self) -> Result<Option<Block>, Error> {
        loop {
            let Some(current) = &mut self.current else {
                let Some(series) = self.waiting.next() else { return Ok(None) };
                self.current = Some(self.begin(series, self.range)?);
                continue;
            };
            let Some(run) = current.runs.next() else {
                self.current = None;
                continue;
            };
            let snapshot = self.shared.file.snapshot()?;
            let ids: Vec<i64> = run.iter().filter_map(Source::chunk).map(|c| c.id).collect();
            let mut chunks = run.iter().filter_map(Source::chunk);
            let there =
                chunks.try_fold(true, |all, c| Ok::<_, Error>(all && snapshot.has(current.series.id, c)?))?;
            if !there && current.missed != ids {
                // Compacted meanwhile: what is left is planned anew. A damaged index may find chunks when it is asked for a
                // range and not when it is asked for one: planned twice, they are read.
                drop(snapshot);
                let (series, left) = (current.series.clone(), current.left);
                self.current = Some(Current { missed: ids, ..self.begin(series, left)? });
                continue;
            }
            let (times, values) =
                self.shared.readings(&snapshot, &current.plan, &current.series, run, current.left)?;
            if let Some(last) = times.last() {
                current.left.start = last.saturating_add(1);
                return Ok(Some(Block { series: current.series.clone(), times, values }));
            }
        }
    }

    fn begin(&self, series: SeriesInfo, range: TimeRange) -> Result<Current, Error> {
        let mut held = self.shared.held(std::slice::from_ref(&series), range)?;
        let snapshot = self.shared.file.snapshot()?;
        let held = held.pop().unwrap_or_default();
        let mut plan = self.shared.plan(&snapshot, &series, held, range)?;
        let runs = std::mem::take(&mut plan.runs).into_iter();
        drop(snapshot);
        Ok(Current { series, plan, runs, left: range, missed: Vec::new() })
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
#[expect(clippy::large_enum_variant, reason = "most are chunks: a box for each would take more memory")]
pub(crate) enum Source {
    Chunk(ChunkMeta),
    Memory { times: Vec<i64>, values: Values, sequence: u64 },
}

impl Source {
    fn chunk(&self) -> Option<&ChunkMeta> {
        match self {
            Self::Chunk(meta) => Some(meta),
            Self::Memory { .. } => None,
        }
    }

    pub(crate) fn into_chunk(self) -> Option<ChunkMeta> {
        match self {
            Self::Chunk(meta) => Some(meta),
            Self::Memory { .. } => None,
        }
    }

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

/// Parts as runs in the order of time that do not overlap each other.
pub(crate) fn runs_of(mut sources: Vec<Source>) -> Vec<Run> {
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
    runs
}

/// Parts in the order of writing become one, in the order of time; of several readings with one time the last stays.
pub(crate) fn merge(parts: Vec<(Vec<i64>, Values)>, field_type: FieldType) -> (Vec<i64>, Values) {
    let mut parts = parts.into_iter();
    let Some((mut times, mut values)) = parts.next() else {
        return (Vec::new(), Values::empty(field_type));
    };
    let mut several = false;
    for (more, more_values) in parts {
        times.extend_from_slice(&more);
        values.extend(&more_values);
        several = true;
    }
    if several {
        // The sort is stable: of equal times the one that was written last stays last.
        let mut order: Vec<u32> = (0..times.len() as u32).collect();
        order.sort_by_key(|&i| times[i as usize]);
        keep_last_of_equal(&mut order, |i| times[i as usize]);
        values = values.pick(&order);
        times = order.iter().map(|&i| times[i as usize]).collect();
    }
    (times, values)
}

/// Takes out what tombstones hide of a part whose newest record is `sequence`, and what lies outside `visible`.
pub(crate) fn delete(
    times: &mut Vec<i64>,
    values: &mut Values,
    sequence: u64,
    tombstones: &[Tombstone],
    visible: TimeRange,
) {
    let hides = |t: &&Tombstone| sequence < t.sequence;
    let over: Vec<(i64, i64)> = tombstones.iter().filter(hides).map(|t| (t.start, t.stop)).collect();
    let gone = |t: i64| t < visible.start || t >= visible.stop || over.iter().any(|&(a, b)| a <= t && t < b);
    if !times.iter().any(|&t| gone(t)) {
        return;
    }
    let order: Vec<u32> = (0..times.len() as u32).filter(|&i| !gone(times[i as usize])).collect();
    *values = values.pick(&order);
    *times = order.iter().map(|&i| times[i as usize]).collect();
}

/// What memory holds of a series, as far as a question needs it.
#[derive(Default)]
pub(crate) struct Held {
    sources: Vec<Source>,
    span: i64,
    tombstones: Vec<Tombstone>,
    oldest_visible: Option<i64>,
}

/// What a question about a series is answered from.
pub(crate) struct Plan {
    runs: Vec<Run>,
    tombstones: Vec<Tombstone>,
    /// What has not expired.
    visible: TimeRange,
}

impl Plan {
    /// Whether every reading between two times of a part with this record is there to be seen.
    fn untouched(&self, t0: i64, t1: i64, sequence: u64) -> bool {
        let hides = |t: &Tombstone| sequence < t.sequence && t.start <= t1 && t0 < t.stop;
        self.visible.start <= t0 && !self.tombstones.iter().any(hides)
    }
}

impl Shared {
    /// What memory holds of some series. Asked for before the file: what is sealed in between is seen twice, which is
    /// once too often but never too few, and readings of one time are joined.
    fn held(&self, series: &[SeriesInfo], range: TimeRange) -> Result<Vec<Held>, Error> {
        let now = (self.clock.0)().as_nanos();
        let core = self.open_core()?;
        let of = |info: &SeriesInfo| {
            let Some(series) = core.catalog.get(info.id) else { return Held::default() };
            let tail = (!series.tail.is_empty()).then_some(&series.tail);
            let mut sources = Vec::new();
            for part in series.sealing.iter().map(|t| &**t).chain(tail) {
                let (times, values) = part.readings(range.start, range.stop);
                if !times.is_empty() {
                    sources.push(Source::Memory { times, values, sequence: part.last_sequence });
                }
            }
            let bucket = core.catalog.buckets.iter().find(|b| b.id == info.key.bucket);
            let oldest_visible = bucket.filter(|b| b.retention > 0).map(|b| now.saturating_sub(b.retention));
            Held { sources, span: series.span, tombstones: series.tombstones.to_vec(), oldest_visible }
        };
        Ok(series.iter().map(of).collect())
    }

    /// What there is of a series in a range, as runs in the order of time that do not overlap each other.
    fn plan(
        &self,
        snapshot: &Snapshot<'_>,
        series: &SeriesInfo,
        held: Held,
        range: TimeRange,
    ) -> Result<Plan, Error> {
        let mut sources = held.sources;
        // A chunk sealed since may be longer than those before.
        let span = self.core().catalog.get(series.id).map_or(held.span, |s| s.span.max(held.span));
        let mut damage = Vec::new();
        let chunks =
            snapshot.chunks(series.id, series.field_type, span, (range.start, range.stop), &mut damage)?;
        self.note_damage(&damage);
        sources.extend(chunks.into_iter().map(Source::Chunk));
        let visible = TimeRange { start: held.oldest_visible.unwrap_or(i64::MIN), stop: i64::MAX };
        Ok(Plan { runs: runs_of(sources), tombstones: held.tombstones, visible })
    }

    /// The readings of a run inside the range.
    fn readings(
        &self,
        snapshot: &Snapshot<'_>,
        plan: &Plan,
        series: &SeriesInfo,
        mut run: Run,
        range: TimeRange,
    ) -> Result<(Vec<i64>, Values), Error> {
        run.sort_by_key(Source::sequence);
        let mut parts = Vec::with_capacity(run.len());
        for source in run {
            match source {
                Source::Memory { mut times, mut values, sequence } => {
                    delete(&mut times, &mut values, sequence, &plan.tombstones, plan.visible);
                    parts.push((times, values));
                }
                Source::Chunk(meta) => match snapshot.readings(&meta, series.field_type)? {
                    Some((mut times, mut values)) => {
                        let from = times.partition_point(|&t| t < range.start);
                        let to = times.partition_point(|&t| t < range.stop).max(from);
                        if (from, to) != (0, times.len()) {
                            times.truncate(to);
                            times.drain(..from);
                            values.cut(from, to);
                        }
                        delete(&mut times, &mut values, meta.sequence, &plan.tombstones, plan.visible);
                        parts.push((times, values));
                    }
                    None => self.note_damage(&[damaged(series, &meta)]),
                },
            }
        }
        Ok(merge(parts, series.field_type))
    }

    /// The windows of each of some series that have readings.
    pub(crate) fn fold_all(
        &self,
        series: &[SeriesInfo],
        range: TimeRange,
        windows: &Windows,
    ) -> Result<Vec<Vec<Window>>, Error> {
        let mut folded = Vec::with_capacity(series.len());
        for some in series.chunks(SERIES_PER_SNAPSHOT) {
            let held = self.held(some, range)?;
            let snapshot = self.file.snapshot()?;
            for (series, held) in some.iter().zip(held) {
                folded.push(self.fold_one(&snapshot, series, held, range, windows)?);
            }
        }
        Ok(folded)
    }

    /// The windows of a series that have readings.
    fn fold(&self, series: &SeriesInfo, range: TimeRange, windows: &Windows) -> Result<Vec<Window>, Error> {
        let mut folded = self.fold_all(std::slice::from_ref(series), range, windows)?;
        Ok(folded.pop().unwrap_or_default())
    }

    fn fold_one(
        &self,
        snapshot: &Snapshot<'_>,
        series: &SeriesInfo,
        held: Held,
        range: TimeRange,
        windows: &Windows,
    ) -> Result<Vec<Window>, Error> {
        if range.start >= range.stop {
            return Ok(Vec::new());
        }
        let mut plan = self.plan(snapshot, series, held, range)?;
        let ends = plan.runs.first().zip(plan.runs.last());
        let ends = ends.and_then(|(a, b)| Some((a.first()?.bounds().0, b.last()?.bounds().1)));
        let expected = ends.map_or(0, |(t0, t1)| windows.between(t0, t1).min(WINDOWS_EXPECTED_MAX));
        let mut folded: Vec<((i64, i64), Fold)> = Vec::with_capacity(expected);
        let mut add = |window: (i64, i64), part: Fold| match folded.last_mut() {
            Some((known, fold)) if *known == window => fold.append(part),
            _ => folded.push((window, part)),
        };
        for run in std::mem::take(&mut plan.runs) {
            if let [Source::Chunk(meta)] = &*run
                && range.start <= meta.t0
                && meta.t1 < range.stop
                && plan.untouched(meta.t0, meta.t1, meta.sequence)
            {
                if let Some(window) = windows.holding(meta.t0, range)
                    && meta.t1 < window.1
                    && !meta.summary.total.is_unknown()
                {
                    add(window, meta.summary.clone().into());
                    continue;
                }
                if self.fold_hours(snapshot, series, meta, range, windows, &mut add)? {
                    continue;
                }
                match snapshot.raw(meta, series.field_type)? {
                    Some(raw) => {
                        let column = match &raw.values {
                            RawValues::Decimal { digits, min, offsets } => {
                                Column::Decimal { digits: *digits, min: *min, offsets }
                            }
                            RawValues::Values(values) => Column::Values(values),
                        };
                        fold_column(&raw.times, &column, range, windows, &mut add);
                    }
                    None => self.note_damage(&[damaged(series, meta)]),
                }
                continue;
            }
            let (times, values) = self.readings(snapshot, &plan, series, run, range)?;
            fold_column(&times, &Column::Values(&values), range, windows, &mut add);
        }
        let window = |((start, stop), fold): ((i64, i64), Fold)| Window {
            start: Timestamp::from_nanos(start),
            stop: Timestamp::from_nanos(stop),
            summary: fold.finish(),
        };
        Ok(folded.into_iter().map(window).collect())
    }

    /// Folds a compacted chunk by its hours, where no window begins or ends inside one and all sums are known; `false`
    /// when that is not so.
    fn fold_hours(
        &self,
        snapshot: &Snapshot<'_>,
        series: &SeriesInfo,
        meta: &ChunkMeta,
        range: TimeRange,
        windows: &Windows,
        add: &mut impl FnMut((i64, i64), Fold),
    ) -> Result<bool, Error> {
        if !meta.has_hours() || !windows.are_whole_hours() {
            return Ok(false);
        }
        let Some(hours) = snapshot.hours(meta, series.field_type)? else {
            self.note_damage(&[damaged(series, meta)]);
            return Ok(false);
        };
        if (0..hours.len()).any(|i| hours.summary(i).is_none_or(|s| s.total.is_unknown())) {
            return Ok(false);
        }
        for i in 0..hours.len() {
            if let Some(window) = windows.holding(hours.first_time(i), range)
                && let Some(summary) = hours.summary(i)
            {
                add(window, summary.into());
            }
        }
        Ok(true)
    }

    /// The newest reading of a series before a time.
    pub(crate) fn newest_before(
        &self,
        series: &SeriesInfo,
        until: i64,
    ) -> Result<Option<(i64, Value)>, Error> {
        match self.newest(series)? {
            Some((time, _)) if time >= until => {
                let range = TimeRange { start: i64::MIN, stop: until };
                let before = self.fold(series, range, &Windows::whole())?;
                Ok(before.last().map(|w| (w.summary.last.0.as_nanos(), w.summary.last.1.clone())))
            }
            newest => Ok(newest),
        }
    }

    /// The newest reading of a series.
    pub(crate) fn newest(&self, series: &SeriesInfo) -> Result<Option<(i64, Value)>, Error> {
        let deleted = {
            let core = self.open_core()?;
            core.catalog.get(series.id).is_some_and(|s| !s.tombstones.is_empty())
        };
        if deleted {
            let whole = self.fold(series, TimeRange::all(), &Windows::whole())?;
            return Ok(whole.last().map(|w| (w.summary.last.0.as_nanos(), w.summary.last.1.clone())));
        }
        let visible = self.visible(series.key.bucket);
        Ok(self.newest_stored(series)?.filter(|(t, _)| *t >= visible.start))
    }

    fn newest_stored(&self, series: &SeriesInfo) -> Result<Option<(i64, Value)>, Error> {
        let in_memory = |held: &crate::catalog::Series| {
            let parts = held.sealing.iter().map(|t| &**t).chain(Some(&held.tail));
            // Of equal times the later part was written later.
            parts.filter_map(crate::tail::Tail::newest).reduce(|a, b| if b.0 >= a.0 { b } else { a })
        };
        let latest = |memory: Option<(i64, Value)>, file: Option<(i64, Value)>| match (memory, file) {
            (Some(m), Some(f)) => Some(if m.0 >= f.0 { m } else { f }),
            (m, f) => m.or(f),
        };
        let (memory, commits) = {
            let core = self.open_core()?;
            let Some(held) = core.catalog.get(series.id) else { return Ok(None) };
            match &held.newest {
                Newest::Nothing => return Ok(in_memory(held)),
                Newest::At(time, value) => return Ok(latest(in_memory(held), Some((*time, value.clone())))),
                Newest::Unknown => (in_memory(held), held.commits),
            }
        };
        let mut damage = Vec::new();
        let found = self.file.snapshot()?.newest_chunk(series.id, series.field_type, &mut damage)?;
        self.note_damage(&damage);
        let found = found.map(|meta| (meta.t1, meta.summary.last.1));
        if let Some(held) = self.core().catalog.get_mut(series.id)
            && matches!(held.newest, Newest::Unknown)
            && held.commits == commits
        {
            held.newest = found.clone().map_or(Newest::Nothing, |(time, value)| Newest::At(time, value));
        }
        Ok(latest(memory, found))
    }

    /// The times of the oldest and newest reading of a series.
    pub(crate) fn bounds(&self, series: &SeriesInfo) -> Result<Option<(i64, i64)>, Error> {
        let Some((newest, _)) = self.newest(series)? else { return Ok(None) };
        let visible = self.visible(series.key.bucket);
        let deleted = self.open_core()?.catalog.get(series.id).is_some_and(|s| !s.tombstones.is_empty());
        if deleted || visible.start > i64::MIN {
            let whole = self.fold(series, TimeRange::all(), &Windows::whole())?;
            return Ok(whole.first().map(|w| (w.summary.first.0.as_nanos(), newest)));
        }
        let (memory, span) = {
            let core = self.open_core()?;
            let Some(held) = core.catalog.get(series.id) else { return Ok(None) };
            let parts = held.sealing.iter().map(|t| &**t).chain(Some(&held.tail));
            (parts.filter_map(crate::tail::Tail::bounds).map(|b| b.0).min(), held.span)
        };
        let snapshot = self.file.snapshot()?;
        let in_file = match snapshot.oldest_chunk(series.id, series.field_type, &mut Vec::new())? {
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

    pub(crate) fn note_damage(&self, damage: &[String]) {
        for what in damage {
            tracing::warn!(%what, "damaged data is left out of an answer");
        }
        if !damage.is_empty() {
            self.core().damaged_total += damage.len() as u64;
        }
    }
}

/// Folds readings of one part, which lie in the range.
fn fold_column(
    times: &[i64],
    values: &Column<'_>,
    range: TimeRange,
    windows: &Windows,
    add: &mut impl FnMut((i64, i64), Fold),
) {
    let mut from = 0;
    while from < times.len() {
        let Some(window) = windows.holding(times[from], range) else {
            from += 1;
            continue;
        };
        let to = from + times[from..].partition_point(|&t| t < window.1);
        if let Some(fold) = Fold::of_column(times, values, from, to) {
            add(window, fold);
        }
        from = to;
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
