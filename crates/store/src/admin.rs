//! What is done to stored readings by decision: deleting, expiring, removing buckets, and looking for damage.

use crate::catalog::{Bucket, Series, SeriesInfo};
use crate::compact::{DAY, PAGES_GIVEN_BACK};
use crate::core::{Shared, lock};
use crate::error::{Error, Kind};
use crate::file::{Commit, Removed, SealedState, Tombstone};
use crate::record;
use crate::rollup;
use crate::selector::Selector;
use crate::store::VerifyReport;
use crate::window::{Summary, TimeRange};
use graylogic_line::Timestamp;
use std::collections::HashSet;

/// Series whose expired chunks go in one transaction.
const EXPIRED_PER_COMMIT: usize = 64;

impl Shared {
    /// Creates a bucket and returns its number.
    pub(crate) fn create_bucket(&self, name: &str) -> Result<u32, Error> {
        self.curing(|| self.create_bucket_once(name))
    }

    fn create_bucket_once(&self, name: &str) -> Result<u32, Error> {
        let _one = lock(&self.buckets);
        let id = {
            let core = self.open_core()?;
            if core.catalog.bucket_place(name).is_ok() {
                return Err(Error::new(
                    Kind::Exists,
                    format!("create bucket {name:?}: there is one with this name"),
                ));
            }
            core.catalog.next_bucket_id()
        };
        // Writes to other buckets do not wait for the disk.
        self.file.insert_bucket(id, name, 0)?;
        let mut core = self.open_core()?;
        core.catalog.add_bucket(Bucket::new(id, name, 0));
        self.mark_log(&mut core, true);
        Ok(id)
    }

    /// Hides the readings of a range at once, and for ever.
    pub(crate) fn delete(&self, selector: &Selector, range: TimeRange) -> Result<usize, Error> {
        self.delete_matching(selector, range, |_| true)
    }

    /// Hides the readings of a range of those series of a selector that match.
    pub(crate) fn delete_matching(
        &self,
        selector: &Selector,
        range: TimeRange,
        matching: impl Fn(&SeriesInfo) -> bool,
    ) -> Result<usize, Error> {
        // Compaction must not take out what this call may still have to bring back.
        let _one = lock(&self.sealer);
        let mut core = self.open_core()?;
        let mut series = core.catalog.select(selector)?;
        series.retain(matching);
        if range.start >= range.stop || series.is_empty() {
            return Ok(0);
        }
        // A record without rows takes a number of its own: what was written so far has smaller ones, what is written
        // from now on larger, and chunks that were freed of what is deleted here get this one.
        let sequence =
            self.append_record::<&str>(&mut core, &[], &[]).map_err(|e| Error::log("delete", e))?;
        let mut commit = Commit { sequence: self.log.next_sequence(), ..Commit::default() };
        self.file.expect_log(self.log_expected(&core));
        for info in &series {
            core.detach(info.id);
            let tombstone = Tombstone { series: info.id, start: range.start, stop: range.stop, sequence };
            commit.tombstones.push(tombstone);
            let held = core.catalog.series_mut(info.id);
            held.tombstones.push(tombstone);
            if !held.in_file {
                commit.definitions.push(held.owned_definition());
            }
        }
        drop(core);
        self.wake.notify_all();
        let committed = self.commit(&commit);
        let mut core = self.core();
        for tombstone in &commit.tombstones {
            let Some(held) = core.catalog.get_mut(tombstone.series) else { continue };
            match &committed {
                Ok(()) => held.in_file = true,
                Err(_) => held.tombstones.retain(|t| t != tombstone),
            }
        }
        if committed.is_ok() {
            let crate::catalog::Catalog { series: known, undefined, .. } = &mut core.catalog;
            undefined.retain(|&id| known[id as usize].as_ref().is_some_and(|s| !s.in_file));
            self.mark_log(&mut core, true);
        }
        committed.map(|()| series.len())
    }

    /// Removes a bucket, its series, its chunks, and what memory holds of them.
    pub(crate) fn remove_bucket(&self, name: &str) -> Result<(), Error> {
        self.curing(|| self.remove_bucket_once(name))
    }

    fn remove_bucket_once(&self, name: &str) -> Result<(), Error> {
        // Nothing of it is on its way into the file meanwhile.
        let _one = lock(&self.sealer);
        let _other = lock(&self.buckets);
        let (bucket, ids) = {
            let mut core = self.open_core()?;
            let place = core.catalog.bucket_place(name)?;
            // A write to the bucket comes before or finds it gone; writes to others do not wait for the disk.
            let bucket = core.catalog.buckets.remove(place);
            let fields = bucket.entries.iter().flat_map(|e| e.fields.iter());
            let ids: Vec<u32> = fields.map(|f| f.series).collect();
            (bucket, ids)
        };
        let removed = self.file.remove_bucket(bucket.id, &ids);
        let mut core = self.core();
        core.catalog.buckets.push(bucket);
        core.catalog.buckets.sort_unstable_by_key(|b| b.id);
        if removed.is_err() {
            // A segment begun meanwhile does not know the bucket.
            self.mark_log(&mut core, true);
        }
        removed?;
        let place = core.catalog.bucket_place(name)?;
        let tails: Vec<&Series> = ids.iter().filter_map(|&id| core.catalog.get(id)).collect();
        let tails = tails
            .iter()
            .fold((0, 0), |(n, bytes), s| (n + s.tail.len() as u64, bytes + s.tail.memory_bytes()));
        core.forget(&ids.iter().copied().collect(), tails);
        core.catalog.remove_bucket(place);
        self.mark_log(&mut core, true);
        Ok(())
    }

    /// Removes chunks whose last day has expired, and says how many readings went.
    pub(crate) fn expire(&self) -> Result<u64, Error> {
        let now = (self.clock.0)().as_nanos();
        let due: Vec<(u32, i64)> = {
            let core = self.core();
            let of = |b: &crate::catalog::Bucket| {
                let cutoff = now.saturating_sub(b.retention).div_euclid(DAY).saturating_mul(DAY);
                (b.retention > 0 && cutoff > b.expired_to).then_some((b.id, cutoff))
            };
            core.catalog.buckets.iter().filter_map(of).collect()
        };
        let mut removed = 0;
        for (bucket, cutoff) in due {
            let ids: Vec<u32> = {
                let core = self.core();
                let place = core.catalog.buckets.iter().find(|b| b.id == bucket);
                place.map_or_else(Vec::new, |b| {
                    b.entries.iter().flat_map(|e| e.fields.iter()).map(|f| f.series).collect()
                })
            };
            for some in ids.chunks(EXPIRED_PER_COMMIT) {
                // After a cure chunks have other numbers.
                removed += match self.expire_some(some, cutoff) {
                    Err(error) if error.is_corruption() => self.expire_some(some, cutoff)?,
                    done => done?,
                };
            }
            if let Some(bucket) = self.core().catalog.buckets.iter_mut().find(|b| b.id == bucket) {
                bucket.expired_to = cutoff;
            }
        }
        if removed > 0 {
            self.file.give_back(PAGES_GIVEN_BACK)?;
        }
        Ok(removed)
    }

    fn expire_some(&self, ids: &[u32], cutoff: i64) -> Result<u64, Error> {
        let _one = lock(&self.sealer);
        let snapshot = self.file.snapshot()?;
        let mut commit = Commit::default();
        let mut removed = 0;
        for &id in ids {
            let (info, mut state) = {
                let core = self.open_core()?;
                let Some(s) = core.catalog.get(id) else { continue };
                let state = SealedState {
                    series: id,
                    sequence: s.sealed,
                    span: s.span,
                    fresh: s.fresh,
                    until: s.until,
                };
                (s.info.clone(), state)
            };
            let old =
                snapshot.chunks(id, info.field_type, state.span, (i64::MIN, cutoff), &mut Vec::new())?;
            let old: Vec<_> = old.into_iter().filter(|c| c.t1 < cutoff).collect();
            if old.is_empty() {
                continue;
            }
            removed += old.iter().map(|c| c.summary.count).sum::<u64>();
            commit.removed.extend(old.iter().map(|c| Removed::of(id, c)));
            if state.until.is_some_and(|t| t < cutoff) {
                (state.until, state.fresh) = (None, None);
            } else {
                state.fresh = state.fresh.map(|t| t.max(cutoff));
            }
            commit.sealed.push(state);
        }
        drop(snapshot);
        if commit.removed.is_empty() {
            return Ok(0);
        }
        commit.sequence = self.log.next_sequence();
        self.file.expect_log(self.log_expected(&self.core()));
        self.commit(&commit)?;
        let mut core = self.core();
        self.mark_log(&mut core, false);
        for state in &commit.sealed {
            if let Some(series) = core.catalog.get_mut(state.series) {
                (series.until, series.fresh) = (state.until, state.fresh);
                series.commits += 1;
                if state.until.is_none() {
                    series.newest = crate::catalog::Newest::Nothing;
                }
            }
        }
        core.totals = None;
        Ok(removed)
    }

    /// Makes the store file say what is shown, and the notes say nothing.
    pub(crate) fn settle(&self) -> Result<u64, Error> {
        // What the log holds of damage goes with its segments.
        self.seal_everything()?;
        let _one = lock(&self.sealer);
        match self.write_catalog_anew() {
            // What the cure finds lost has not been seen yet: the notes stay.
            Err(error) if error.is_corruption() && self.make_writable(&error)? => return Ok(0),
            done => done?,
        }
        self.notes.settle().map_err(|e| Error::log("settle the damage", e))
    }

    /// Reads every chunk, and every record of the log.
    pub(crate) fn verify(&self) -> Result<VerifyReport, Error> {
        let mut report = VerifyReport { damage: self.recovery().damage, ..VerifyReport::default() };
        report.damage.extend(self.file.check()?);
        let series: Vec<_> =
            self.open_core()?.catalog.series.iter().flatten().map(|s| (s.info.clone(), s.span)).collect();
        for (info, span) in series {
            let snapshot = self.file.snapshot()?;
            let name = || {
                let tags: String = info.tags().map(|(k, v)| format!(",{k}={v}")).collect();
                format!("{}{tags} {} in bucket {:?}", info.measurement(), info.field(), info.bucket())
            };
            let mut rows = Vec::new();
            let metas = snapshot.chunks(info.id, info.field_type, span, (i64::MIN, i64::MAX), &mut rows);
            let metas = match metas {
                Ok(metas) => metas,
                Err(error) => {
                    report.damage.push(format!("{}: its chunks cannot be listed: {error}", name()));
                    continue;
                }
            };
            report.damage.extend(rows.into_iter().map(|row| format!("{}: {row}", name())));
            for meta in metas {
                let range = || {
                    let (from, to) = (Timestamp::from_nanos(meta.t0), Timestamp::from_nanos(meta.t1));
                    format!(
                        "{}: chunk {} with {} readings from {from} to {to}",
                        name(),
                        meta.id,
                        meta.summary.count
                    )
                };
                match snapshot.readings(&meta, info.field_type) {
                    Ok(Some((times, values))) => {
                        report.chunks += 1;
                        report.readings += times.len() as u64;
                        let told = Summary::of(&times, &values, 0, times.len());
                        let expected =
                            if meta.has_hours() { rollup::hours_of(&times, &values) } else { Vec::new() };
                        let hours = snapshot.hours(&meta, info.field_type).ok().flatten();
                        // By their bytes: an integral over infinite areas may be no number.
                        let bytes = |hours: &[rollup::Hour]| rollup::encode(hours, info.field_type);
                        let hours: Option<Vec<rollup::Hour>> = hours.map(|h| h.iter().collect());
                        let hours_agree = hours.is_some_and(|h| bytes(&h) == bytes(&expected));
                        if !told.is_some_and(|told| told.same_on_disk(&meta.summary)) || !hours_agree {
                            report
                                .damage
                                .push(format!("{}: its figures are not those of its readings", range()));
                        }
                    }
                    Ok(None) => report.damage.push(format!("{}: its bytes are damaged", range())),
                    Err(error) => report.damage.push(format!("{}: it cannot be read: {error}", range())),
                }
            }
        }
        for item in self.log.replay(self.log.first_sequence()) {
            match item {
                Ok(frame) if record::decode(&frame.payload).is_ok() => report.records += 1,
                Ok(frame) => {
                    report.damage.push(format!("hot log: record {} is not understood", frame.first_sequence));
                }
                Err(damage) => report.damage.push(format!("hot log: {damage}")),
            }
        }
        let mut said = HashSet::new();
        report.damage.retain(|d| said.insert(d.clone()));
        Ok(report)
    }
}
