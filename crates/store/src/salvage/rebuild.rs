//! What is good of the chunks of an open store goes into a new store file, chunk by chunk: which series, buckets and
//! deletions there are is the open store's to say, and what is in memory or in the hot log stays there.

use super::carve::{Carved, carve};
use super::catalog;
use super::losses::Losses;
use super::pages::Pages;
use super::plan::{Candidate, Plan, plan};
use super::series::{bytes_of, name_of};
use crate::error::Error;
use crate::file::{Commit, NewChunk, SealedState, StoreFile};
use crate::mark::Mark;
use crate::record::Definition;
use crate::rollup;
use crate::window::Summary;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// So many chunks, and about so many bytes of them, go into the new file in one commit.
const CHUNKS_PER_COMMIT: usize = 256;
const BYTES_PER_COMMIT: usize = 4 << 20;

/// A series as the open store knows it.
pub(crate) struct KnownSeries<'a> {
    pub(crate) definition: &'a Definition,
    /// How far the hot log is in chunks.
    pub(crate) sealed: u64,
}

/// What a store file was rebuilt to.
#[derive(Debug, Default)]
pub(crate) struct Rebuilt {
    pub(crate) chunks: u64,
    pub(crate) readings: u64,
    /// What chunks there are now of each series.
    pub(crate) states: BTreeMap<u32, SealedState>,
    /// What is lost, a sentence each, with the readings that are known to be lost: at most 100, and one that counts the others.
    pub(crate) lost: Vec<(String, u64)>,
    pub(crate) lost_readings: u64,
}

/// Copies the good chunks of the series that are known from a damaged file. `mark`: what the damaged file should know.
pub(crate) fn rebuild(
    damaged: &Path,
    mark: &Mark,
    known: &BTreeMap<u32, KnownSeries<'_>>,
    removed: &BTreeSet<u32>,
    new: &StoreFile,
) -> Result<Rebuilt, Error> {
    let pages = Pages::open(damaged)
        .map_err(|e| Error::io(format_args!("read the damaged store file {}", damaged.display()), e))?;
    let tables = catalog::read(&pages, mark.commit);
    let carved = carve(&pages, tables.packs_root);
    let plan = plan(&tables, &carved);
    let mut copy = Copy {
        pages,
        carved,
        new,
        commit: Commit::default(),
        bytes: 0,
        out: Rebuilt::default(),
        losses: Losses::default(),
    };
    for (id, series) in known {
        let candidates = plan.series.get(id).map(Vec::as_slice).unwrap_or_default();
        copy.series(*id, series, candidates)?;
    }
    copy.flush()?;
    copy.name_unknown(&plan, known, removed);
    let accounted = copy.out.readings + copy.losses.readings;
    let missing = mark.readings.saturating_sub(accounted);
    if missing > 0 && tables.ledger.is_none() {
        copy.losses.add(missing, || format!("{missing} readings in chunks that left no trace"));
    }
    let mut out = copy.out;
    out.lost_readings = copy.losses.readings;
    out.lost = copy.losses.end_with_readings();
    Ok(out)
}

/// A store file on its way into a new one.
struct Copy<'a> {
    pages: Pages,
    carved: Carved,
    new: &'a StoreFile,
    commit: Commit,
    /// Bytes of the chunks in it.
    bytes: usize,
    out: Rebuilt,
    losses: Losses,
}

impl Copy<'_> {
    fn series(&mut self, id: u32, series: &KnownSeries<'_>, candidates: &[Candidate]) -> Result<(), Error> {
        let mut state =
            SealedState { series: id, sequence: series.sealed, span: 0, fresh: None, until: None };
        let mut live: Vec<&Candidate> = candidates.iter().filter(|c| c.is_live).collect();
        // Neighbors in time lie together in the new file.
        live.sort_by_key(|c| (c.extent.map(|e| e.1.as_nanos()), c.id));
        for candidate in live {
            let Some(chunk) = self.chunk(id, series.definition, candidate) else {
                self.name_lost(series.definition, candidate);
                continue;
            };
            state.span = state.span.max(chunk.t1.saturating_sub(chunk.t0));
            state.until = state.until.max(Some(chunk.t1));
            if chunk.level == 0 {
                state.fresh = Some(state.fresh.map_or(chunk.t0, |t: i64| t.min(chunk.t0)));
            }
            self.out.chunks += 1;
            self.out.readings += chunk.summary.count;
            self.bytes += chunk.bytes.len();
            self.commit.chunks.push(chunk);
            if self.commit.chunks.len() >= CHUNKS_PER_COMMIT || self.bytes >= BYTES_PER_COMMIT {
                self.flush()?;
            }
        }
        self.commit.sealed.push(state);
        self.out.states.insert(id, state);
        Ok(())
    }

    /// A chunk as it was, with its figures made anew.
    fn chunk(&self, series: u32, definition: &Definition, candidate: &Candidate) -> Option<NewChunk> {
        let (bytes, times, values) = bytes_of(&self.pages, &self.carved, candidate, definition.field_type)?;
        let summary = Summary::of(&times, &values, 0, times.len())?;
        let hours = match candidate.level {
            0 => Vec::new(),
            _ if candidate.row.is_some_and(|r| !r.has_hours) => Vec::new(),
            _ => rollup::encode(&rollup::hours_of(&times, &values), definition.field_type),
        };
        let (t0, t1) = (times[0], times[times.len() - 1]);
        let (sequence, level) = (candidate.sequence, candidate.level);
        Some(NewChunk { series, t0, t1, sequence, summary, level, hours, bytes })
    }

    fn flush(&mut self) -> Result<(), Error> {
        self.bytes = 0;
        self.new.commit(&std::mem::take(&mut self.commit))
    }

    fn name_lost(&mut self, definition: &Definition, candidate: &Candidate) {
        let name = || name_of(definition);
        match candidate.extent {
            Some((readings, from, to)) => self.losses.add(readings, || {
                format!("{}: {readings} readings from {from} to {to}: their bytes are damaged", name())
            }),
            None => {
                self.losses.add(0, || format!("{}: chunk {}: its bytes are damaged", name(), candidate.id));
            }
        }
    }

    /// Names what is not taken over because nobody knows where it belongs.
    fn name_unknown(&mut self, plan: &Plan, known: &BTreeMap<u32, KnownSeries<'_>>, removed: &BTreeSet<u32>) {
        let mut doubtful = 0u64;
        for (id, candidates) in plan.series.iter().filter(|(id, _)| !removed.contains(id)) {
            doubtful += candidates.iter().filter(|c| !c.is_live).count() as u64;
            let live = || candidates.iter().filter(|c| c.is_live);
            if !known.contains_key(id) && live().next().is_some() {
                let readings = live().filter_map(|c| c.extent).map(|e| e.0).sum();
                self.losses.add(readings, || {
                    format!("series {id}: its definition is lost, and its readings with it")
                });
            }
        }
        if doubtful > 0 {
            self.losses.add(0, || {
                format!(
                    "{doubtful} chunks that no table vouches for were not taken over: they were replaced or deleted earlier, or are lost"
                )
            });
        }
        for (pack, bytes) in &plan.unknown {
            self.losses
                .add(0, || format!("pack {pack} with {bytes} bytes holds chunks that no row tells of"));
        }
    }
}
