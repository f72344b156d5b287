//! Which chunks are saved, and how far each is believed. It decodes nothing.

use super::carve::{Carved, FrameAt};
use super::catalog::Tables;
use super::rows::ChunkRow;
use crate::file::ListedChunk;
use graylogic_line::Timestamp;
use std::collections::{BTreeMap, BTreeSet};

/// Where the bytes of a chunk are.
#[derive(Clone, Copy, Debug)]
pub(super) enum Bytes {
    Frame(FrameAt),
    /// In a pack, at the place that the chunk's row names.
    Row,
}

/// A chunk that may be saved.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    pub(super) id: i64,
    pub(super) sequence: u64,
    pub(super) level: u8,
    pub(super) row: Option<ChunkRow>,
    pub(super) bytes: Bytes,
    /// How many readings it has, and about from when to when, as far as that is known.
    pub(super) extent: Option<(u64, Timestamp, Timestamp)>,
    /// SQLite would show it, or nothing speaks against it. Otherwise it may be the remains of something that was compacted
    /// or deleted.
    pub(super) is_live: bool,
}

/// The chunks of each series.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) series: BTreeMap<u32, Vec<Candidate>>,
    /// Frames that another store wrote.
    pub(super) foreign: u64,
    /// Packs that are there and hold chunks which neither a frame nor a row describes, and their bytes.
    pub(super) unknown: Vec<(i64, usize)>,
}

/// Decides for every chunk that a row or a frame describes.
pub(super) fn plan(tables: &Tables, carved: &Carved) -> Plan {
    let mut plan = Plan::default();
    let store = store_of(carved);
    let known = live_rows_by_pack(tables);
    let listed = tables.ledger.iter().flat_map(BTreeMap::keys);
    let ids: BTreeSet<i64> =
        tables.chunks.keys().chain(carved.frames.keys()).chain(listed).copied().collect();
    for id in ids {
        let row = tables.chunks.get(&id);
        let frames = carved.frames.get(&id).map(Vec::as_slice).unwrap_or_default();
        let ours = |f: &&FrameAt| f.frame.store == 0 || store.is_none_or(|s| s == f.frame.store);
        plan.foreign += frames.iter().filter(|f| !ours(f)).count() as u64;
        let of_row = |f: &&FrameAt| {
            row.is_none_or(|r| r.row.series == f.frame.series && r.row.sequence == f.frame.sequence)
        };
        let frame = frames.iter().filter(ours).find(of_row).or_else(|| frames.iter().find(ours));
        // A frame that contradicts its row is another one's.
        let row = row.filter(|r| {
            frame.is_none_or(|f| r.row.series == f.frame.series && r.row.sequence == f.frame.sequence)
        });
        let listed = tables.ledger.as_ref().map(|ledger| ledger.get(&id));
        let is_live = match listed {
            Some(Some(_)) => Some(true),
            Some(None) => None,
            None => belief(tables, carved, row.map(|r| (r.row, r.reached)), frame, &known),
        };
        let Some(is_live) = is_live else { continue };
        let (series, sequence, level) = match (frame, row, listed.flatten()) {
            (Some(f), ..) => (f.frame.series, f.frame.sequence, f.frame.level),
            (None, Some(r), _) => (r.row.series, r.row.sequence, r.row.level),
            (None, None, Some((series, _))) => (*series, 0, 0),
            (None, None, None) => continue,
        };
        let bytes = frame.map_or(Bytes::Row, |f| Bytes::Frame(*f));
        let row = row.map(|r| r.row);
        let extent = extent(row.as_ref(), listed.flatten().map(|l| &l.1));
        let candidate = Candidate { id, sequence, level, row, bytes, extent, is_live };
        plan.series.entry(series).or_default().push(candidate);
    }
    let named: BTreeSet<i64> = tables.chunks.values().map(|c| c.row.place.pack).collect();
    let unknown = carved.silent.iter().filter(|(pack, _)| !named.contains(pack));
    plan.unknown = unknown.map(|(pack, bytes)| (*pack, *bytes)).collect();
    plan
}

fn extent(row: Option<&ChunkRow>, listed: Option<&ListedChunk>) -> Option<(u64, Timestamp, Timestamp)> {
    let of_row = |r: &ChunkRow| (r.readings, Timestamp::from_nanos(r.t0), Timestamp::from_nanos(r.t1));
    row.map(of_row).or_else(|| listed.map(|l| (l.readings, l.about.0, l.about.1)))
}

/// Whether a chunk is live; `None`: it is known to be gone.
fn belief(
    tables: &Tables,
    carved: &Carved,
    row: Option<(ChunkRow, bool)>,
    frame: Option<&FrameAt>,
    known: &BTreeMap<i64, i64>,
) -> Option<bool> {
    let pack = frame.and_then(|f| f.pack);
    let doubtful = || tables.doubt.is_some().then_some(false);
    match row {
        Some((row, true)) => {
            let there = carved.reaches(row.place.pack) || carved.missing.of_row(row.place.pack);
            // A row whose pack was removed is the stale one of the two, or its pack is.
            Some(there)
        }
        Some((row, false)) => {
            let may_be = tables.missing_chunks.may_hold(row.key);
            let there = carved.reaches(row.place.pack);
            if may_be { Some(there || tables.doubt.is_none()) } else { doubtful() }
        }
        // Its pack is there, so that somebody needs it.
        None if pack.is_some() => {
            let level = frame.map_or(0, |f| f.frame.level);
            let in_use = pack.and_then(|p| tables.pack_uses.get(&p).copied());
            let rows = pack.and_then(|p| known.get(&p).copied()).unwrap_or(0);
            match (level, in_use) {
                // Of a pack of several, those that are left out were removed.
                (1.., Some(uses)) if uses <= rows => doubtful(),
                (1.., Some(_)) => Some(false),
                _ => Some(true),
            }
        }
        None => {
            let gone = tables.missing_chunks.is_empty() || carved.missing.is_empty();
            if gone { doubtful() } else { Some(false) }
        }
    }
}

/// How many rows that SQLite would reach have bytes in each pack.
fn live_rows_by_pack(tables: &Tables) -> BTreeMap<i64, i64> {
    let mut found = BTreeMap::new();
    for chunk in tables.chunks.values().filter(|c| c.reached) {
        *found.entry(chunk.row.place.pack).or_insert(0) += 1;
    }
    found
}

/// The check value of the store that wrote most of the frames.
fn store_of(carved: &Carved) -> Option<u32> {
    let mut counts = BTreeMap::new();
    for frame in carved.frames.values().flatten().filter(|f| f.frame.store != 0) {
        *counts.entry(frame.frame.store).or_insert(0u64) += 1;
    }
    counts.into_iter().max_by_key(|c| c.1).map(|c| c.0)
}
