//! The store's three threads: one syncs the hot log, one seals tails into chunks and lets the log go, one compacts.
//! Tasks start here.

use crate::catalog::{Catalog, Newest};
use crate::chunk::{self, CHUNK_READINGS_MAX};
use crate::column::Effort;
use crate::compact::{PAGES_GIVEN_BACK, SERIES_PER_COMMIT};
use crate::core::{Core, Job, Shared, Source, Trouble, lock};
use crate::error::{Error, Kind};
use crate::file::{Commit, NewChunk, SealedState};
use crate::window::Summary;
use graylogic_durable::caught;
use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// So many tails go into chunks in one commit.
const JOBS_PER_COMMIT: usize = 128;
/// And so many definitions of series beside those of the tails.
const DEFINITIONS_PER_COMMIT: usize = 2000;
/// How often the compactor looks for work.
const COMPACTION_TICK: Duration = Duration::from_secs(10);
/// How often the sealer looks after the log and series without being woken.
const TICK: Duration = Duration::from_secs(1);
/// When the hot log is longer than this, tails are sealed for its sake, however short they are.
const LOG_BYTES_MAX: u64 = 32 << 20;

/// The threads of an open store.
#[derive(Debug)]
pub(crate) struct Workers {
    threads: Vec<JoinHandle<()>>,
}

impl Workers {
    pub(crate) fn start(shared: &Arc<Shared>) -> Result<Self, Error> {
        let mut workers = Self { threads: Vec::new() };
        type Role = fn(&Shared);
        let roles: [(&str, Role, Source); 3] = [
            ("store-seal", seal_loop, Source::Seal),
            ("store-sync", sync_loop, Source::Sync),
            ("store-compact", compact_loop, Source::Compact),
        ];
        for (name, role, source) in roles {
            let theirs = shared.clone();
            let work = move || {
                while let Err(panic) = caught(|| role(&theirs)) {
                    let message = format!("a thread of the store panicked and was restarted: {panic}");
                    // Logging may be what panicked.
                    let _panics_again =
                        caught(|| theirs.note_trouble(source, Some(Error::new(Kind::Io, message))));
                    if theirs.rest() {
                        return;
                    }
                }
            };
            let started = std::thread::Builder::new().name(name.into()).spawn(work);
            match started {
                Ok(thread) => workers.threads.push(thread),
                Err(error) => {
                    shared.core().closed = true;
                    shared.wake.notify_all();
                    shared.room.notify_all();
                    workers.join();
                    return Err(Error::io("start the store's threads", error));
                }
            }
        }
        Ok(workers)
    }

    /// Returns when the threads have ended; the core says they are to.
    pub(crate) fn join(self) {
        for thread in self.threads {
            if thread.join().is_err() {
                tracing::error!("a thread of the store has panicked");
            }
        }
    }
}

fn sync_loop(shared: &Shared) {
    loop {
        // The same condition variable ends both threads; a seal job only makes this one look at the clock.
        let until = Instant::now() + shared.sync_interval;
        let mut core = shared.core();
        while !core.closed {
            let Some(left) = until.checked_duration_since(Instant::now()) else { break };
            core = shared.room.wait_timeout(core, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        if core.closed {
            return;
        }
        drop(core);
        if shared.log.synced() < shared.log.next_sequence() {
            let synced = shared.sync("sync the hot log");
            shared.note_trouble(Source::Sync, synced.err());
        }
    }
}

/// Looks for complete days, deletions and expired chunks, and works on them at a fraction of a core.
fn compact_loop(shared: &Shared) {
    let mut pause = COMPACTION_TICK;
    let mut wal_bytes = 0;
    loop {
        {
            let core = shared.core();
            let (core, _) = shared
                .room
                .wait_timeout_while(core, pause, |c| !c.closed)
                .unwrap_or_else(PoisonError::into_inner);
            if core.closed {
                return;
            }
        }
        let began = Instant::now();
        let mut failed = None;
        let mut outcome = match shared.expire() {
            // A file that is damaged where something expires takes other changes.
            Err(error) if error.is_corruption() => {
                failed = Some(error);
                Ok(0)
            }
            done => done,
        };
        let due = shared.compaction_due(false);
        let some = &due[..due.len().min(SERIES_PER_COMMIT)];
        if outcome.is_ok() && !some.is_empty() {
            outcome = shared.compact_series(some, false, &mut failed);
        }
        let more = due.len() > some.len();
        if outcome.is_ok() && !more {
            outcome = shared.tidy(&mut wal_bytes).map(|()| 0);
        }
        shared.note_trouble(Source::Compact, None);
        if let Some(error) = outcome.as_ref().err().or(failed.as_ref()) {
            tracing::warn!(%error, "compaction waits; nothing is lost by that");
        }
        // A quarter of one core at most.
        pause = match outcome {
            Ok(_) if more => began.elapsed() * 3,
            _ => COMPACTION_TICK,
        };
    }
}

fn seal_loop(shared: &Shared) {
    let mut looked = Instant::now();
    // Series that are not in the file yet are written down with every record that has readings of them.
    let mut more = false;
    loop {
        let mut core = shared.core();
        while !core.closed && core.jobs.is_empty() && !more && looked.elapsed() < TICK {
            let left = TICK.saturating_sub(looked.elapsed());
            core = shared.wake.wait_timeout(core, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        if core.closed {
            return;
        }
        drop(core);
        let outcome = shared.seal_some();
        if looked.elapsed() >= TICK {
            looked = Instant::now();
            shared.relieve_log();
        }
        let failed = outcome.is_err();
        more = !failed && shared.core().catalog.undefined.len() >= DEFINITIONS_PER_COMMIT;
        shared.note_trouble(Source::Seal, outcome.err());
        if failed {
            // Disk trouble does not go away at once; the readings are in the log meanwhile.
            let core = shared.core();
            let _unused = shared
                .wake
                .wait_timeout_while(core, TICK, |c| !c.closed)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Shared {
    /// Gives pages that compaction freed back to the file system, and empties SQLite's own log when nothing was written to
    /// it since the last look, of which `wal_bytes` tells.
    fn tidy(&self, wal_bytes: &mut u64) -> Result<(), Error> {
        self.file.give_back(PAGES_GIVEN_BACK)?;
        let now = self.file.wal_bytes();
        let idle = now > 0 && now == *wal_bytes;
        *wal_bytes = now;
        if idle { self.file.checkpoint() } else { Ok(()) }
    }

    /// Remembers why readings do not go all the way, or that they do again.
    fn note_trouble(&self, source: Source, error: Option<Error>) {
        let mut core = self.core();
        let before = core.trouble.as_ref().is_some_and(|t| t.0 == source);
        match &error {
            Some(error) => core.trouble = Some((source, Trouble::of(error))),
            None if before => core.trouble = None,
            None => {}
        }
        drop(core);
        self.room.notify_all();
        // Last: a program's logging may panic.
        match error {
            Some(error) if !before => {
                tracing::error!(%error, ?source, "readings do not go all the way; trying again each second");
            }
            None if before => tracing::info!(?source, "readings go all the way again"),
            _ => {}
        }
    }

    /// A pause after a failure; tells whether the store is closed.
    fn rest(&self) -> bool {
        let core = self.core();
        let waited = self.room.wait_timeout_while(core, TICK, |c| !c.closed);
        waited.unwrap_or_else(PoisonError::into_inner).0.closed
    }

    /// Seals some of the tails that wait for it, with the definitions that the file does not have yet.
    pub(crate) fn seal_some(&self) -> Result<(), Error> {
        // One at a time: a caller who seals and the worker would otherwise commit the jobs of a series out of order.
        let _one = lock(&self.sealer);
        let (jobs, definitions, states) = {
            let core = self.core();
            let jobs: Vec<Arc<Job>> = core.jobs.iter().take(JOBS_PER_COMMIT).cloned().collect();
            // Those of the jobs, and as many others as are quickly written: each takes memory of its own until then.
            let undefined = core.catalog.undefined.iter().copied().take(DEFINITIONS_PER_COMMIT);
            let ids: BTreeSet<u32> = jobs.iter().map(|job| job.series).chain(undefined).collect();
            let series = ids.iter().filter_map(|&id| core.catalog.get(id)).filter(|s| !s.in_file);
            let definitions: Vec<_> = series.map(crate::catalog::Series::owned_definition).collect();
            let state = |job: &Arc<Job>| {
                let series = core.catalog.get(job.series);
                let (span, fresh, until) = series.map_or((0, None, None), |s| (s.span, s.fresh, s.until));
                SealedState { series: job.series, sequence: job.tail.last_sequence, span, fresh, until }
            };
            let states: Vec<SealedState> = jobs.iter().map(state).collect();
            self.file.expect_log(self.log_expected(&core));
            (jobs, definitions, states)
        };
        if jobs.is_empty() && definitions.is_empty() {
            return Ok(());
        }
        let mut commit = Commit { definitions, ..Commit::default() };
        for (job, mut state) in jobs.iter().zip(states) {
            // A series may have several jobs: the later ones go on from the earlier.
            if let Some(before) = commit.sealed.iter().rev().find(|s| s.series == job.series) {
                (state.span, state.fresh, state.until) = (before.span, before.fresh, before.until);
            }
            let from = commit.chunks.len();
            chunks_of(job, &mut commit.chunks);
            for c in &commit.chunks[from..] {
                state.span = state.span.max(c.t1.saturating_sub(c.t0));
                state.fresh = Some(state.fresh.map_or(c.t0, |t| t.min(c.t0)));
                state.until = Some(state.until.map_or(c.t1, |t| t.max(c.t1)));
            }
            commit.sealed.push(state);
        }
        (commit.written, commit.sequence) = (self.written(), self.log.next_sequence());
        // Neighbours in the file are written together.
        commit.chunks.sort_by_key(|c| (c.series, c.t1));
        self.commit(&commit)?;
        self.sealed(&jobs, &commit);
        self.room.notify_all();
        Ok(())
    }

    /// Forgets what is in the file now.
    fn sealed(&self, jobs: &[Arc<Job>], commit: &Commit) {
        let mut core = self.core();
        let core: &mut Core = &mut core;
        for definition in &commit.definitions {
            if let Some(series) = core.catalog.get_mut(definition.series) {
                series.in_file = true;
            }
        }
        let Catalog { series: series_of, undefined, .. } = &mut core.catalog;
        undefined.retain(|&id| series_of[id as usize].as_ref().is_some_and(|s| !s.in_file));
        for (job, state) in jobs.iter().zip(&commit.sealed) {
            if let Some(series) = core.catalog.get_mut(job.series) {
                series.sealing.retain(|t| !Arc::ptr_eq(t, &job.tail));
                series.sealed = state.sequence;
                series.commits += 1;
                (series.span, series.fresh, series.until) = (state.span, state.fresh, state.until);
                if let Some((time, value)) = job.tail.newest() {
                    let newer = match &series.newest {
                        Newest::Unknown => false,
                        Newest::Nothing => true,
                        Newest::At(known, _) => time >= *known,
                    };
                    if newer {
                        series.newest = Newest::At(time, value);
                    }
                }
            }
            core.sealing_bytes -= job.bytes;
            core.sealing_readings -= job.tail.len() as u64;
        }
        core.jobs.drain(..jobs.len());
        self.mark_log(core, false);
        if let Some(totals) = &mut core.totals {
            totals.chunks += commit.chunks.len() as u64;
            totals.readings += commit.chunks.iter().map(|c| c.summary.count).sum::<u64>();
            totals.bytes += commit.chunks.iter().map(|c| c.bytes.len() as u64).sum::<u64>();
        }
    }

    /// Lets the log go as far as chunks allow, and makes them allow more when it has grown long.
    pub(crate) fn relieve_log(&self) {
        self.trim_log();
        let segments = self.log.segments();
        let bytes: u64 = segments.iter().map(|s| s.bytes).sum();
        if bytes > LOG_BYTES_MAX
            && let Some(middle) = segments.get(segments.len() / 2)
        {
            self.core().detach_older(middle.first_sequence);
        }
    }

    /// Seals everything there is and lets the log go.
    pub(crate) fn seal_everything(&self) -> Result<(), Error> {
        {
            let mut core = self.open_core()?;
            let ids: Vec<u32> = core.catalog.series.iter().flatten().map(|s| s.info.id).collect();
            ids.into_iter().for_each(|id| core.detach(id));
        }
        loop {
            self.seal_some()?;
            let core = self.open_core()?;
            if core.jobs.is_empty() {
                break;
            }
        }
        // The new segment begins with all that the log must say; the others may go.
        self.log.roll();
        self.mark_log(&mut self.core(), true);
        self.relieve_log();
        Ok(())
    }
}

/// The chunks of a tail: one, unless it is very long.
fn chunks_of(job: &Job, out: &mut Vec<NewChunk>) {
    let (times, values) = job.tail.all();
    let pieces = times.len().div_ceil(CHUNK_READINGS_MAX).max(1);
    for i in 0..pieces {
        let (from, to) = (times.len() * i / pieces, times.len() * (i + 1) / pieces);
        let Some(summary) = Summary::of(&times, &values, from, to) else { continue };
        let mut part = values.clone();
        part.cut(from, to);
        out.push(NewChunk {
            series: job.series,
            t0: times[from],
            t1: times[to - 1],
            sequence: job.tail.last_sequence,
            summary,
            level: 0,
            hours: Vec::new(),
            bytes: chunk::encode(&times[from..to], &part, Effort::Seal),
        });
    }
}
