//! The cure of a store file that takes no more commits because it is damaged inside: a new one is written from what is good
//! of it, while writes go on into the hot log and questions are answered, and takes its place.

use crate::aside::{DAMAGED, place_for};
use crate::catalog::{Newest, Series};
use crate::core::{Shared, lock};
use crate::error::{Error, Kind};
use crate::file::{Commit, Known};
use crate::record::Definition;
use crate::salvage::{self, KnownSeries, Rebuilt};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::{Duration, Instant};

/// Room that stays on the disk for the hot log while a new file is written.
const ROOM_LEFT: u64 = 32 << 20;
/// After a try that failed, a store waits so long, and at least twenty times as long as the try took.
const TRY_AGAIN: Duration = Duration::from_secs(60);

impl Shared {
    /// Commits to the store file. One that is too damaged to take it is cured first: a box that runs unattended must go on.
    /// A commit that takes chunks out is not repeated, because its chunks have other numbers then: it fails, and what it
    /// was to do is planned anew by the caller.
    pub(crate) fn commit(&self, commit: &Commit) -> Result<(), Error> {
        match self.file.commit(commit) {
            Err(error) if error.is_corruption() => {
                let rebuilt = self.make_writable(&error)?;
                if rebuilt && !commit.removed.is_empty() {
                    return Err(error);
                }
                self.file.commit(commit)
            }
            done => done,
        }
    }

    /// Does something with the store file; what fails because the file is damaged is done again after the cure.
    pub(crate) fn curing<T>(&self, doing: impl Fn() -> Result<T, Error>) -> Result<T, Error> {
        match doing() {
            Err(error) if error.is_corruption() => {
                let _one = lock(&self.sealer);
                self.make_writable(&error)?;
                drop(_one);
                doing()
            }
            done => done,
        }
    }

    /// Cures a store file that took no commit; the sealer's lock is held. Tells whether it was written anew: where that
    /// cannot be, its catalog is.
    pub(crate) fn make_writable(&self, why: &Error) -> Result<bool, Error> {
        self.note(&why.to_string(), 0)?;
        let waiting = lock(&self.rebuild_after).is_some_and(|after| Instant::now() < after);
        if !waiting {
            match self.rebuild() {
                Ok(()) => return Ok(true),
                Err(error) if error.is_closed() => return Err(error),
                Err(error) => {
                    tracing::error!(%error, "the store file is damaged and could not be written anew");
                    self.note(&format!("store.sqlite is damaged and could not be written anew: {error}"), 0)?;
                }
            }
        }
        self.write_catalog_anew().map(|()| false)
    }

    /// Writes the store file anew from what is good of it.
    fn rebuild(&self) -> Result<(), Error> {
        let began = Instant::now();
        let done = self.check_room().and_then(|()| self.rebuild_now());
        let pause = TRY_AGAIN.max(began.elapsed().saturating_mul(20));
        *lock(&self.rebuild_after) = done.is_err().then(|| Instant::now() + pause);
        done
    }

    fn check_room(&self) -> Result<(), Error> {
        let needed = self.file.bytes() + ROOM_LEFT;
        let space = self
            .disk
            .space(&self.directory)
            .map_err(|e| Error::io(format_args!("look for room in {}", self.directory.display()), e))?;
        if space.available_bytes < needed {
            tracing::error!(
                needed,
                available = space.available_bytes,
                "no room to write the store file anew"
            );
            // Without numbers, which would make each try a note of its own.
            let message = "the disk has no room for a copy of it; make room, and it is tried again";
            return Err(Error::new(Kind::NoSpace, message));
        }
        Ok(())
    }

    fn rebuild_now(&self) -> Result<(), Error> {
        // No bucket comes or goes meanwhile.
        let _other = lock(&self.buckets);
        let known = self.known(|_| true)?;
        let definitions: BTreeMap<u32, &Definition> =
            known.definitions.iter().map(|d| (d.series, d)).collect();
        let sealed: BTreeMap<u32, u64> = known.sealed.iter().map(|s| (s.series, s.sequence)).collect();
        let series = definitions.iter().map(|(&id, &definition)| {
            (id, KnownSeries { definition, sealed: sealed.get(&id).copied().unwrap_or(0) })
        });
        let series: BTreeMap<u32, KnownSeries<'_>> = series.collect();
        let removed: BTreeSet<u32> = known.removed.iter().copied().collect();
        let mark = self.file.mark().unwrap_or_default();
        tracing::error!(file = %self.file.path().display(), "the store file is damaged; it is written anew");
        let rebuilt = self.file.replace_with(|new| {
            new.settle(&known)?;
            let rebuilt = salvage::rebuild(self.file.path(), &mark, &series, &removed, new)?;
            // Before the new file counts: no loss goes unnamed.
            self.note_rebuilt(&rebuilt)?;
            Ok(rebuilt)
        })?;
        self.take_over(&rebuilt)
    }

    /// Tells memory what is in the new file.
    fn take_over(&self, rebuilt: &Rebuilt) -> Result<(), Error> {
        let mut core = self.open_core()?;
        for (id, state) in &rebuilt.states {
            let Some(series) = core.catalog.get_mut(*id) else { continue };
            (series.span, series.fresh, series.until) = (state.span, state.fresh, state.until);
            series.in_file = true;
            series.commits += 1;
            series.newest = if state.until.is_some() { Newest::Unknown } else { Newest::Nothing };
        }
        let crate::catalog::Catalog { series: known, undefined, .. } = &mut core.catalog;
        undefined.retain(|&id| known[id as usize].as_ref().is_some_and(|s| !s.in_file));
        core.totals = None;
        self.mark_log(&mut core, true);
        Ok(())
    }

    fn note_rebuilt(&self, rebuilt: &Rebuilt) -> Result<(), Error> {
        let kept = place_for(self.file.path());
        let kept = kept.file_name().unwrap_or_default().display();
        let (chunks, readings) = (rebuilt.chunks, rebuilt.readings);
        let lost = match rebuilt.lost.len() {
            0 => "nothing is lost".to_owned(),
            _ => format!("{} readings in chunks are known to be lost", rebuilt.lost_readings),
        };
        self.note(
            &format!(
                "store.sqlite was damaged and took no more chunks; it was written anew with {chunks} chunks and {readings} readings, {lost}; the damaged one is kept in {DAMAGED}/{kept}"
            ),
            0,
        )?;
        rebuilt.lost.iter().try_for_each(|(text, count)| self.note(&format!("store.sqlite: {text}"), *count))
    }

    /// Keeps a note of damage, in memory only when the disk has no room.
    fn note(&self, text: &str, lost: u64) -> Result<(), Error> {
        match self.notes.add(text, lost) {
            Err(error) if !error.is_no_space() => Err(Error::log("note the damage", error)),
            _ => Ok(()),
        }
    }

    /// Makes the store file say what memory knows; the sealer's lock is held.
    pub(crate) fn write_catalog_anew(&self) -> Result<(), Error> {
        let _other = lock(&self.buckets);
        let known = self.known(|s| s.in_file)?;
        self.file.settle(&known)?;
        let mut core = self.open_core()?;
        core.totals = None;
        self.mark_log(&mut core, true);
        Ok(())
    }

    /// What memory knows of the catalog. `wanted`: whose definitions.
    fn known(&self, wanted: impl Fn(&Series) -> bool) -> Result<Known, Error> {
        let core = self.open_core()?;
        let series = || core.catalog.series.iter().flatten();
        let mut said = HashSet::new();
        Ok(Known {
            buckets: core.catalog.buckets.iter().map(crate::catalog::Bucket::definition).collect(),
            definitions: series().filter(|s| wanted(s)).map(Series::owned_definition).collect(),
            sealed: series().filter(|s| s.sealed > 0).map(Series::sealed_state).collect(),
            tombstones: series()
                .flat_map(|s| s.tombstones.iter().copied())
                .filter(|t| said.insert((t.series, t.start, t.stop, t.sequence)))
                .collect(),
            removed: core.catalog.removed.iter().copied().collect(),
        })
    }
}
