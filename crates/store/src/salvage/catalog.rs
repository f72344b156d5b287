//! Which buckets, series, deletions and chunk rows a store file has: those that SQLite would reach, and copies of others
//! wherever they lie. It knows nothing of readings.

use super::btree::{self, PageKind};
use super::carve::is_pack;
use super::pages::Pages;
use super::payload::{self, Way};
use super::rows::{ChunkRow, Row, row};
use super::tree::{Missing, roots, walk};
use crate::file::{SealedState, StoredBucket, Tombstone};
use crate::record::Definition;
use std::collections::{BTreeMap, BTreeSet};

/// A row, and whether SQLite would reach it.
#[derive(Clone, Debug)]
pub(super) struct Known<T> {
    pub(super) row: T,
    pub(super) reached: bool,
}

/// What is left of the tables.
#[derive(Debug, Default)]
pub(super) struct Tables {
    pub(super) buckets: BTreeMap<u32, Known<StoredBucket>>,
    /// Buckets whose row is there and damaged.
    pub(super) damaged_buckets: BTreeSet<u32>,
    pub(super) series: BTreeMap<u32, Known<Definition>>,
    pub(super) sealed: BTreeMap<u32, SealedState>,
    /// A deletion happened, wherever it is found.
    pub(super) tombstones: Vec<Tombstone>,
    pub(super) removed: BTreeSet<u32>,
    pub(super) chunks: BTreeMap<i64, Known<ChunkRow>>,
    /// How many chunks have bytes in a pack of several.
    pub(super) pack_uses: BTreeMap<i64, i64>,
    /// The root of the table of packs.
    pub(super) packs_root: Option<u32>,
    pub(super) missing_buckets: Missing,
    pub(super) missing_series: Missing,
    pub(super) missing_chunks: Missing,
    pub(super) missing_tombstones: Missing,
    /// Why it is not known which rows are the newest; then copies count that SQLite would not reach.
    pub(super) doubt: Option<String>,
}

/// Reads all tables.
pub(super) fn read(pages: &Pages) -> Tables {
    let mut tables = Tables::default();
    let (roots, damaged) = roots(pages);
    tables.doubt = pages.doubt.clone();
    if damaged && pages.last() > 0 {
        tables.doubt = Some("the list of its tables is damaged".into());
    }
    let tree = |tables: &mut Tables, name: &str, by_number: bool| -> Missing {
        let Some(&root) = roots.get(name) else { return Missing::everything() };
        walk(pages, root, by_number, false, |reached| {
            if name == "removed" {
                tables.removed.extend(u32::try_from(reached.cell.row).ok());
                return reached.columns.len() == 1;
            }
            let row = row(reached.cell.row, &reached.columns).filter(|row| row.table() == name);
            row.is_some_and(|row| {
                tables.take(row, true);
                true
            })
        })
    };
    tables.missing_buckets = tree(&mut tables, "bucket", true);
    tables.missing_series = tree(&mut tables, "series", true);
    tables.missing_chunks = tree(&mut tables, "chunk", false);
    tables.missing_tombstones = tree(&mut tables, "tombstone", true);
    for name in ["sealed", "removed", "pack_use"] {
        let _nothing_depends_on_what_is_missing = tree(&mut tables, name, true);
    }
    tables.packs_root = roots.get("pack").copied();
    for image in pages.images() {
        rows_of_image(pages, &mut tables, image);
    }
    tables
}

/// Rows in an image of a page, as its cells have them; where it is damaged, wherever a record has a good checksum.
fn rows_of_image(pages: &Pages, tables: &mut Tables, image: super::pages::Image) {
    let bytes = pages.read(image);
    let page = btree::page(&bytes, pages.number(image) == 1);
    let mut whole = page.is_some();
    for cell in page.iter().flat_map(|p| &p.cells) {
        let Some(cell) = cell else {
            whole = false;
            continue;
        };
        if cell.payload == 0 || page.as_ref().is_some_and(|p| p.kind == PageKind::TableInterior) {
            continue;
        }
        let local = bytes.get(cell.from..cell.to).unwrap_or_default();
        // Packs are long and are nobody's business here.
        if local.get(1..2) == Some(&[0]) && btree::record(local).is_some_and(|c| is_pack(&c)) {
            continue;
        }
        if cell.overflow != 0 && cell.payload > bytes.len() {
            continue;
        }
        let payload = payload::of_cell(pages, image, &bytes, cell, Way::Chain);
        match btree::record(&payload).map(|columns| row(cell.row, &columns)) {
            Some(Some(row)) => tables.take(row, false),
            Some(None) => {}
            None => whole = false,
        }
    }
    if !whole || tables.doubt.is_some() {
        loose_rows(&bytes, tables);
    }
}

/// Records whose cells are not found: their own header says how they go on, and their checksum that it is they.
fn loose_rows(bytes: &[u8], tables: &mut Tables) {
    for at in 2..bytes.len() {
        // Headers of bucket, series, tombstone, chunk, with the number of bytes that the kinds of their columns take.
        let header = bytes[at];
        if !(4..=60).contains(&header) {
            continue;
        }
        let is_row = bytes.get(at + 1) == Some(&0) || header >= 23;
        let Some(columns) = is_row.then(|| btree::record(&bytes[at..])).flatten() else { continue };
        if ![4, 6, 7, 22].contains(&columns.len()) {
            continue;
        }
        // The number of the row is in front of its record: one to five bytes.
        for length in 1..=5usize.min(at) {
            let mut from = at - length;
            let number = btree::varint(bytes, &mut from).filter(|_| from == at);
            match number.and_then(|n| row(n as i64, &columns)) {
                Some(Row::DamagedBucket(_)) | None => {}
                Some(row) => tables.take(row, false),
            }
        }
    }
}

impl Tables {
    fn take(&mut self, row: Row, reached: bool) {
        fn keep<K: Ord, T>(map: &mut BTreeMap<K, Known<T>>, key: K, row: T, reached: bool) {
            // The first is the newest.
            map.entry(key).or_insert(Known { row, reached });
        }
        match row {
            Row::Bucket(bucket) => keep(&mut self.buckets, bucket.id, bucket, reached),
            Row::DamagedBucket(id) if reached => {
                self.damaged_buckets.insert(id);
            }
            Row::DamagedBucket(_) => {}
            Row::Series(definition) => keep(&mut self.series, definition.series, definition, reached),
            Row::Sealed(state) => {
                self.sealed.entry(state.series).or_insert(state);
            }
            Row::Tombstone(tombstone) => {
                if !self.tombstones.contains(&tombstone) {
                    self.tombstones.push(tombstone);
                }
            }
            Row::Chunk(row) => keep(&mut self.chunks, row.id, row, reached),
            Row::PackUse(pack, chunks) => {
                self.pack_uses.entry(pack).or_insert(chunks);
            }
        }
    }
}
