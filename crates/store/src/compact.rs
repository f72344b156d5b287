//! Compaction: the small chunks of the way in become chunks of days, late and repeated readings find their place,
//! deleted and expired ones go, and each hour gets its figures where they pay. One transaction moves a series from one state to the
//! next, so that a crash at any instruction leaves one of the two.

use crate::catalog::Newest;
use crate::core::{Shared, lock};
use crate::error::Error;
use crate::file::{ChunkMeta, Commit, Removed, SealedState, Tombstone};
use crate::recompress::{self, Compacted, Piece, present_pieces};
use crate::scan::{Source, delete, runs_of};
use crate::window::TimeRange;
use std::time::{Duration, Instant};

/// Length of a day in nanoseconds.
pub(crate) const DAY: i64 = 86_400_000_000_000;
/// A chunk of several days has at most so many readings; more than `DAY_MAX` in one day are cut into such pieces.
const READINGS: usize = 8192;
/// A day with up to so many readings is one chunk: one each ten seconds, and a little more.
const DAY_MAX: usize = 9000;
/// A chunk of several days is at most so long.
const LENGTH_MAX: i64 = 28 * DAY;
/// So many series are worked on in one commit.
pub(crate) const SERIES_PER_COMMIT: usize = 16;
/// Pages given back to the file system after a round.
pub(crate) const PAGES_GIVEN_BACK: u32 = 256;
/// A series that could not be compacted because the store file is damaged is tried again after this time.
const REST: Duration = Duration::from_secs(3600);
/// So many readings are merged at a time: a bound on memory.
const MERGED_MAX: u64 = 200_000;

impl Shared {
    /// Series that have something to compact: complete days in small chunks, or deletions. `all`: open days too.
    pub(crate) fn compaction_due(&self, all: bool) -> Vec<u32> {
        let core = self.core();
        let due = |s: &&crate::catalog::Series| {
            let day_is_over = match (s.fresh, s.until) {
                (Some(fresh), Some(until)) => all || fresh < until.div_euclid(DAY).saturating_mul(DAY),
                _ => false,
            };
            day_is_over || !liftable(&s.tombstones, s.oldest_in_memory()).is_empty()
        };
        let rests = |id: u32| core.passed_over.get(&id).is_some_and(|at| at.elapsed() < REST);
        let due = core.catalog.series.iter().flatten().filter(due).map(|s| s.info.id);
        due.filter(|&id| all || !rests(id)).collect()
    }

    /// Compacts everything that is due; long series take several rounds. Fails at the end when some could not be compacted
    /// because the store file is damaged.
    pub(crate) fn compact_due(&self, all: bool) -> Result<(), Error> {
        let mut failed = None;
        loop {
            let due = self.compaction_due(all);
            let mut written = 0;
            for some in due.chunks(SERIES_PER_COMMIT) {
                written += self.compact_series(some, all, &mut failed)?;
            }
            if written == 0 {
                self.file.give_back(PAGES_GIVEN_BACK)?;
                return failed.map_or(Ok(()), Err);
            }
        }
    }

    /// Compacts series as far as one round goes; tells how many readings it wrote. Where the store file is damaged, the
    /// series that cannot be compacted are passed over for a while, and `failed` says why.
    pub(crate) fn compact_series(
        &self,
        ids: &[u32],
        all: bool,
        failed: &mut Option<Error>,
    ) -> Result<u64, Error> {
        // After the file was written anew its chunks have other numbers: the second time they are planned anew.
        let tried = match self.compact_once(ids, all) {
            Err(error) if error.is_corruption() => self.compact_once(ids, all),
            done => done,
        };
        match (tried, ids) {
            (Err(error), [id]) if error.is_corruption() => {
                self.core().passed_over.insert(*id, Instant::now());
                *failed = Some(error);
                Ok(0)
            }
            (Err(error), _) if error.is_corruption() => {
                let each = ids.chunks(1).map(|one| self.compact_series(one, all, failed));
                each.sum()
            }
            (done, _) => done,
        }
    }

    /// Compacts series as far as one round goes, in one commit; tells how many readings it wrote.
    fn compact_once(&self, ids: &[u32], all: bool) -> Result<u64, Error> {
        // No chunk comes or goes meanwhile but by this hand.
        let _one = lock(&self.sealer);
        let mut commit = Commit::default();
        let mut outcomes = Vec::new();
        for &id in ids {
            if let Some(outcome) = self.rewrite(id, all, &mut commit)? {
                outcomes.push(outcome);
            }
        }
        let before: usize = outcomes.iter().map(|o| o.before).sum();
        recompress::without_hours_that_do_not_pay(&mut commit.chunks, before);
        if !commit.removed.is_empty() || !commit.lifted.is_empty() {
            (commit.written, commit.sequence) = (self.written(), self.log.next_sequence());
            self.file.expect_log(self.log_expected(&self.core()));
            self.commit(&commit)?;
        }
        let mut core = self.core();
        for outcome in &outcomes {
            let state = &outcome.state;
            let Some(series) = core.catalog.get_mut(state.series) else { continue };
            (series.fresh, series.until, series.span) = (state.fresh, state.until, state.span);
            series.tombstones.retain(|t| !commit.lifted.contains(t));
            if outcome.moved {
                series.commits += 1;
                series.newest = if state.until.is_some() { Newest::Unknown } else { Newest::Nothing };
            }
        }
        core.totals = None;
        if !commit.removed.is_empty() || !commit.lifted.is_empty() {
            self.mark_log(&mut core, !commit.lifted.is_empty());
        }
        Ok(commit.chunks.iter().map(|c| c.summary.count).sum())
    }

    /// Adds to a commit what makes a series compact; `None` when it has gone.
    fn rewrite(&self, id: u32, all: bool, commit: &mut Commit) -> Result<Option<Outcome>, Error> {
        let (info, state, span, tombstones, in_memory) = {
            let core = self.open_core()?;
            let Some(series) = core.catalog.get(id) else { return Ok(None) };
            let state = SealedState {
                series: id,
                sequence: series.sealed,
                span: series.span,
                fresh: series.fresh,
                until: series.until,
            };
            (series.info.clone(), state, series.span, series.tombstones.to_vec(), series.oldest_in_memory())
        };
        let ripe = liftable(&tombstones, in_memory);
        let Some(until) = state.until else {
            let moved = !ripe.is_empty();
            commit.lifted.extend(ripe);
            return Ok(Some(Outcome { state, moved, before: 0 }));
        };
        let cutoff = if all { i64::MAX } else { until.div_euclid(DAY).saturating_mul(DAY) };
        let oldest = ripe.iter().map(|t| t.start).chain(state.fresh).min().unwrap_or(i64::MAX);
        let snapshot = self.file.snapshot()?;
        let mut damage = Vec::new();
        let from = oldest.saturating_sub(LENGTH_MAX);
        let metas = snapshot.chunks(id, info.field_type, span, (from, i64::MAX), &mut damage)?;
        let touched = |m: &ChunkMeta| {
            let deleted = |t: &Tombstone| m.sequence < t.sequence && t.start <= m.t1 && m.t0 < t.stop;
            (m.level == 0 && m.t0 < cutoff) || ripe.iter().any(deleted)
        };
        let runs = runs_of(metas.iter().cloned().map(Source::Chunk).collect());
        // A group of neighbouring runs that are to be written again, and the compacted chunk before them if there is
        // still room in it.
        let mut group: Vec<ChunkMeta> = Vec::new();
        let mut merged = 0u64;
        let mut complete = true;
        for run in runs {
            let chunks: Vec<ChunkMeta> = run.into_iter().filter_map(Source::into_chunk).collect();
            let readings: u64 = chunks.iter().map(|c| c.summary.count).sum();
            if chunks.iter().any(&touched) {
                if !group.is_empty() && merged + readings > MERGED_MAX {
                    complete = false;
                    break;
                }
                merged += readings;
                group.extend(chunks);
            } else if group.iter().any(&touched) {
                complete = false;
                break;
            } else {
                // It may take in what follows.
                let room = |c: &ChunkMeta| {
                    c.summary.count < READINGS as u64 && c.t1.saturating_sub(c.t0) < LENGTH_MAX - DAY
                };
                let joins = chunks.len() == 1 && room(&chunks[0]);
                group = if joins { chunks } else { Vec::new() };
                merged = group.iter().map(|c| c.summary.count).sum();
            }
        }
        if !group.iter().any(&touched) {
            group.clear();
        }
        let mut unreadable = Vec::new();
        let mut parts = Vec::new();
        group.sort_by_key(|c| c.sequence);
        for meta in &group {
            match snapshot.readings(meta, info.field_type)? {
                Some((times, values)) => parts.push((times, values, meta.sequence)),
                None => unreadable.push(meta.id),
            }
        }
        // What cannot be read stays where it is: a repair may still find it.
        group.retain(|m| !unreadable.contains(&m.id));
        drop(snapshot);
        self.note_damage(&damage);
        // What deletions hid is gone from these readings: they do not concern them any more.
        let newest = group.iter().map(|c| c.sequence).max().unwrap_or(0);
        let sequence = ripe.iter().map(|t| t.sequence).max().unwrap_or(0).max(newest);
        for (times, values, part_sequence) in &mut parts {
            delete(times, values, *part_sequence, &tombstones, TimeRange::all());
        }
        let parts = parts.into_iter().map(|(t, v, _)| (t, v)).collect();
        let (times, values) = crate::scan::merge(parts, info.field_type);
        let mut ends: Vec<i64> = group.iter().map(|c| c.t1).collect();
        ends.sort_unstable();
        let before = group.iter().map(|c| recompress::cost(c.level, c.bytes(), c.hours_bytes())).sum();
        let compacted = Compacted { series: id, sequence, times: &times, values: &values };
        let present = present_pieces(&times, &ends, cutoff);
        let chunks = compacted.chunks(&pieces(&times, cutoff), &present, before);
        commit.removed.extend(group.iter().map(|c| Removed::of(id, c)));
        let kept =
            metas.iter().filter(|m| !group.iter().any(|g| g.id == m.id) && !unreadable.contains(&m.id));
        let kept: Vec<(i64, i64, u8)> = kept.map(|m| (m.t0, m.t1, m.level)).collect();
        let now: Vec<(i64, i64, u8)> =
            kept.iter().copied().chain(chunks.iter().map(|c| (c.t0, c.t1, c.level))).collect();
        let fresh = now.iter().filter(|c| c.2 == 0).map(|c| c.0).min();
        let longest = now.iter().map(|c| c.1.saturating_sub(c.0)).max().unwrap_or(0);
        let older = from > i64::MIN && self.has_before(id, &info, from)?;
        // A chunk that cannot be read is still asked for, so that answers can say so.
        let last_unreadable = metas.iter().filter(|m| unreadable.contains(&m.id)).map(|m| m.t1).max();
        let state = SealedState {
            fresh,
            until: now.iter().map(|c| c.1).max().max(last_unreadable).or(older.then_some(from)),
            span: span.max(longest),
            ..state
        };
        let moved = !group.is_empty() || !ripe.is_empty();
        if moved {
            commit.sealed.push(state);
        }
        if complete {
            commit.lifted.extend(ripe);
        }
        commit.chunks.extend(chunks);
        Ok(Some(Outcome { state, moved, before }))
    }

    /// Whether a series has chunks that end before a time.
    fn has_before(&self, id: u32, info: &crate::catalog::SeriesInfo, time: i64) -> Result<bool, Error> {
        let oldest = self.file.snapshot()?.oldest_chunk(id, info.field_type, &mut Vec::new())?;
        Ok(oldest.is_some_and(|c| c.t1 < time))
    }
}

/// What became of a series in a commit.
struct Outcome {
    state: SealedState,
    /// Whether anything changed but what is known of it.
    moved: bool,
    /// What the replaced chunks took of the file.
    before: usize,
}

/// The tombstones that chunks can be freed of: memory holds only what was written after them.
fn liftable(tombstones: &[Tombstone], in_memory: Option<u64>) -> Vec<Tombstone> {
    tombstones.iter().filter(|t| in_memory.is_none_or(|first| first >= t.sequence)).copied().collect()
}

/// How readings are cut into chunks: whole days together up to a length, a long day into pieces; what lies at or after
/// the cutoff belongs to a day that is not over and stays small.
fn pieces(times: &[i64], cutoff: i64) -> Vec<Piece> {
    let mut out = Vec::new();
    let closed = times.partition_point(|&t| t < cutoff);
    let mut from = 0;
    while from < closed {
        let mut to = from;
        while to < closed {
            let day_end = times[to].div_euclid(DAY).saturating_add(1).saturating_mul(DAY);
            let next = to + times[to..closed].partition_point(|&t| t < day_end).max(1);
            let most = if to == from { DAY_MAX } else { READINGS };
            if next - from > most || times[next - 1].saturating_sub(times[from]) > LENGTH_MAX {
                if to == from {
                    // A day by itself, in equal pieces.
                    let parts = (next - from).div_ceil(READINGS);
                    let n = next - from;
                    out.extend((0..parts).map(|i| (from + n * i / parts, from + n * (i + 1) / parts, 1)));
                    to = next;
                    from = next;
                    continue;
                }
                break;
            }
            to = next;
        }
        if to > from {
            out.push((from, to, 1));
            from = to;
        }
    }
    let n = times.len() - closed;
    let parts = n.div_ceil(READINGS);
    out.extend((0..parts).map(|i| (closed + n * i / parts, closed + n * (i + 1) / parts, 0)));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_kept_whole_and_long_ones_cut() {
        let each = |seconds: i64, n: i64| (0..n).map(|i| i * seconds * 1_000_000_000).collect::<Vec<i64>>();
        let check = |times: &[i64], cutoff: i64| {
            let pieces = pieces(times, cutoff);
            assert_eq!(pieces.first().map_or(0, |p| p.0), 0);
            assert!(pieces.windows(2).all(|w| w[0].1 == w[1].0), "{pieces:?}");
            assert_eq!(pieces.last().map_or(0, |p| p.1), times.len());
            assert!(pieces.iter().all(|p| p.1 > p.0 && p.1 - p.0 <= DAY_MAX), "{pieces:?}");
            pieces
        };
        // Ten seconds: a day each. A minute: five days. Fifteen minutes: four weeks. A second: cut days.
        assert_eq!(check(&each(10, 8640 * 3), i64::MAX).len(), 3);
        assert_eq!(check(&each(60, 1440 * 10), i64::MAX).len(), 2);
        assert_eq!(check(&each(900, 96 * 56), i64::MAX).len(), 2);
        assert_eq!(check(&each(1, 86_400), i64::MAX).len(), 11);
        assert_eq!(check(&each(86_400, 100), i64::MAX).len(), 4);
        let open = check(&each(60, 2000), DAY);
        assert_eq!(open, [(0, 1440, 1), (1440, 2000, 0)]);
        assert!(check(&[], 0).is_empty());
        check(&[i64::MIN + 2, -1, 0, i64::MAX - 1], i64::MAX);
    }
}
