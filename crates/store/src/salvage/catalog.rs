//! Which buckets, series, deletions and chunk rows a store file has: those that SQLite would reach, and copies of others
//! wherever they lie. It knows nothing of readings.

use super::btree::{self, PageKind};
use super::carve::is_pack_cell;
use super::pages::Pages;
use super::payload::{self, Way};
use super::rows::{ChunkRow, Row, row};
use super::tree::{Missing, roots, walk};
use crate::file::{ListedChunk, SealedState, Spare, StoredBucket, Tombstone, ledger_row_id};
use crate::mark::{Mark, TABLE_NAMES, TABLES, Table, TableSum};
use crate::record::Definition;
use rusqlite::types::ValueRef;
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
    /// What the store file knows of itself.
    pub(super) mark: Option<Mark>,
    /// Every chunk there is, by its number: known when the ledger is what the mark says of it.
    pub(super) ledger: Option<BTreeMap<i64, (u32, ListedChunk)>>,
    /// Tables that are not what the mark says of them.
    pub(super) differing: Vec<&'static str>,
    /// Why it is not known which rows are the newest; then copies count that SQLite would not reach.
    pub(super) doubt: Option<String>,
}

/// Reads all tables. `newest`: the number of the newest commit that the hot log knows of.
pub(super) fn read(pages: &Pages, newest: u64) -> Tables {
    let mut tables = Tables::default();
    let (roots, damaged) = roots(pages);
    tables.doubt = pages.doubt.clone();
    if damaged && pages.last() > 0 {
        tables.doubt = Some("the list of its tables is damaged".into());
    }
    let mut listed = BTreeMap::new();
    let mut sums = [TableSum::default(); TABLES];
    let mut tree = |tables: &mut Tables, name: &str, by_number: bool| -> Missing {
        let Some(&root) = roots.get(name) else { return Missing::everything() };
        let sum = TABLE_NAMES.iter().position(|n| *n == name);
        walk(pages, root, by_number, false, |reached| {
            let number = reached.cell.row;
            let is_row = if name == "removed" {
                let is_row = reached.columns.len() == 1;
                tables.removed.extend(u32::try_from(number).ok().filter(|_| is_row));
                is_row
            } else {
                match row(number, &reached.columns).filter(|row| row.table() == name) {
                    Some(Row::Ledger(series, chunks)) => {
                        listed.extend(chunks.into_iter().map(|c| (c.id, (series, c))));
                        true
                    }
                    Some(row) => {
                        tables.take(row, true);
                        true
                    }
                    None => false,
                }
            };
            if let Some(sum) = sum.filter(|_| is_row) {
                sums[sum].add(row_number(name, number, &reached.columns), crc_of(name, &reached.columns));
            }
            is_row
        })
    };
    let _known_or_not = tree(&mut tables, "meta", true);
    tables.missing_buckets = tree(&mut tables, "bucket", true);
    tables.missing_series = tree(&mut tables, "series", true);
    tables.missing_chunks = tree(&mut tables, "chunk", false);
    tables.missing_tombstones = tree(&mut tables, "tombstone", true);
    let missing_of_ledger = tree(&mut tables, "ledger", false);
    for name in ["sealed", "removed", "pack_use"] {
        let _nothing_depends_on_what_is_missing = tree(&mut tables, name, true);
    }
    tables.packs_root = roots.get("pack").copied();
    tables.compare(&sums, newest, roots.contains_key("meta"));
    if tables.doubt.is_none() && missing_of_ledger.is_empty() && !tables.differing.contains(&"ledger") {
        tables.ledger = tables.mark.as_ref().map(|_| listed);
    }
    // Copies stand in for rows that cannot be reached.
    let copies = tree_of_copies(pages, &roots);
    for copy in copies {
        tables.take(Row::Spare(copy), true);
    }
    for image in pages.images() {
        rows_of_image(pages, &mut tables, image);
    }
    tables
}

/// The identity in the mark that SQLite would show.
pub(super) fn identity(pages: &Pages) -> Option<u64> {
    let mut identity = None;
    let (roots, _) = roots(pages);
    if let Some(&root) = roots.get("meta") {
        let _missing = walk(pages, root, true, false, |reached| match row(0, &reached.columns) {
            Some(Row::Meta(mark)) => {
                identity = Some(mark.identity);
                true
            }
            _ => false,
        });
    }
    identity
}

/// What a row is known by in the sum over its table.
fn row_number(table: &str, number: i64, columns: &[ValueRef<'_>]) -> i64 {
    let integer = |i: usize| columns.get(i).and_then(|c| c.as_i64().ok()).unwrap_or(0);
    match table {
        "ledger" => ledger_row_id(integer(0), u32::try_from(integer(1)).unwrap_or(0)),
        "tombstone" => integer(1),
        _ => number,
    }
}

fn crc_of(table: &str, columns: &[ValueRef<'_>]) -> i64 {
    match table {
        "removed" => 0,
        _ => columns.last().and_then(|c| c.as_i64().ok()).unwrap_or(0),
    }
}

fn tree_of_copies(pages: &Pages, roots: &BTreeMap<String, u32>) -> Vec<Spare> {
    let mut copies = Vec::new();
    if let Some(&root) = roots.get("spare") {
        let _missing_ones_may_be_elsewhere =
            walk(pages, root, false, false, |reached| match row(0, &reached.columns) {
                Some(Row::Spare(copy)) => {
                    copies.push(copy);
                    true
                }
                _ => false,
            });
    }
    copies
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
        if page.as_ref().is_some_and(|p| p.kind == PageKind::TableLeaf) && is_pack_cell(local) {
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

/// Records whose cells are not found: their own header gives their layout, and their checksum confirms it.
fn loose_rows(bytes: &[u8], tables: &mut Tables) {
    for at in 2..bytes.len() {
        // Headers of bucket, series, tombstone, chunk, with the number of bytes that the kinds of their columns take.
        let header = bytes[at];
        if !(4..=60).contains(&header) {
            continue;
        }
        let kind = bytes.get(at + 1).copied().unwrap_or(u8::MAX);
        let of_copies = (5..=9).contains(&header) && (1..=9).contains(&kind);
        let is_row = kind == 0 || of_copies || header >= 23;
        let Some(columns) = is_row.then(|| btree::record(&bytes[at..])).flatten() else { continue };
        if ![4, 6, 7, 22].contains(&columns.len()) {
            continue;
        }
        if of_copies {
            if let Some(row @ Row::Spare(_)) = row(0, &columns) {
                tables.take(row, false);
            }
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
    /// Compares the tables with what the store file's mark says of them, and the mark with the hot log's.
    fn compare(&mut self, sums: &[TableSum; TABLES], newest: u64, is_marked: bool) {
        let Some(mark) = &self.mark else {
            if (is_marked || newest > 0) && self.doubt.is_none() {
                self.doubt = Some("its mark is damaged".into());
            }
            return;
        };
        if mark.commit < newest && self.doubt.is_none() {
            let behind = newest - mark.commit;
            self.doubt = Some(format!("it is an older copy: the hot log knows of {behind} later commits"));
        }
        let differs = |i: &usize| mark.tables[*i] != sums[*i];
        self.differing = (0..TABLES).filter(differs).map(|i| TABLE_NAMES[i]).collect();
        for table in [Table::Bucket, Table::Series, Table::Tombstone] {
            if differs(&(table as usize)) {
                let missing = match table {
                    Table::Bucket => &mut self.missing_buckets,
                    Table::Series => &mut self.missing_series,
                    _ => &mut self.missing_tombstones,
                };
                *missing = Missing::everything();
            }
        }
    }

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
            Row::Spare(Spare::Bucket(bucket)) => {
                let reached = reached && !self.missing_buckets.is_empty();
                keep(&mut self.buckets, bucket.id, bucket, reached);
            }
            Row::Spare(Spare::Series(definition)) => {
                let reached = reached && !self.missing_series.is_empty();
                keep(&mut self.series, definition.series, definition, reached);
            }
            Row::Meta(mark) => {
                if reached {
                    self.mark = Some(mark);
                }
            }
            // Only the ledger that can be reached is one.
            Row::Ledger(..) => {}
            Row::PackUse(pack, chunks) => {
                self.pack_uses.entry(pack).or_insert(chunks);
            }
        }
    }
}
