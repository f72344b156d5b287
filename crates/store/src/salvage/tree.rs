//! The b-trees of a store file, walked as far as they can be: which rows SQLite would reach, and which keys it may miss.
//! It knows of tables only what distinguishes their roots.

use super::btree::{self, BtreePage, Cell, PageKind, u32_at};
use super::pages::{Image, Pages};
use super::payload::{self, Way};
use rusqlite::types::ValueRef;
use std::collections::{BTreeMap, HashSet};

/// What rows are ordered by: the number of a row, or the first columns of one.
pub(super) type Key = [i64; 4];

const LEAST: Key = [i64::MIN; 4];
const LARGEST: Key = [i64::MAX; 4];
/// No tree of ours is this high.
const DEPTH_MAX: usize = 24;

/// Ranges of keys of which rows may be missing from a tree.
#[derive(Clone, Debug, Default)]
pub(super) struct Missing(Vec<(Key, Key)>);

impl Missing {
    pub(super) fn everything() -> Self {
        Self(vec![(LEAST, LARGEST)])
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn may_hold(&self, key: Key) -> bool {
        self.0.iter().any(|(from, to)| *from <= key && key <= *to)
    }

    pub(super) fn of_row(&self, number: i64) -> bool {
        self.may_hold([number, 0, 0, 0])
    }
}

/// A row that was reached: where its cell is, and what the cell says.
pub(super) struct Reached<'a> {
    pub(super) image: Image,
    pub(super) cell: &'a Cell,
    pub(super) columns: Vec<ValueRef<'a>>,
}

struct Walk<'a, F> {
    pages: &'a Pages,
    table: bool,
    /// Payloads are looked at only as far as they lie in their own page.
    local: bool,
    visited: HashSet<u32>,
    missing: Missing,
    found: F,
}

/// Walks the tree from a root on. `found` says whether a row is one of the table: others are damaged, or their page is in
/// the wrong place. `local`: rows are not read beyond their first page, and their columns are not wanted.
pub(super) fn walk(
    pages: &Pages,
    root: u32,
    table: bool,
    local: bool,
    found: impl FnMut(&Reached<'_>) -> bool,
) -> Missing {
    let (visited, missing) = (HashSet::new(), Missing::default());
    let mut walk = Walk { pages, table, local, visited, missing, found };
    walk.page(root, LEAST, LARGEST, 0);
    walk.missing
}

impl<F: FnMut(&Reached<'_>) -> bool> Walk<'_, F> {
    fn lose(&mut self, from: Key, to: Key) {
        self.missing.0.push((from, to));
    }

    fn page(&mut self, number: u32, from: Key, to: Key, depth: usize) {
        let image = self.pages.shown(number).filter(|_| depth < DEPTH_MAX && self.visited.insert(number));
        let Some(image) = image else { return self.lose(from, to) };
        let bytes = self.pages.read(image);
        let kinds = match self.table {
            true => [PageKind::TableLeaf, PageKind::TableInterior],
            false => [PageKind::IndexLeaf, PageKind::IndexInterior],
        };
        let Some(page) = btree::page(&bytes, number == 1).filter(|p| kinds.contains(&p.kind)) else {
            return self.lose(from, to);
        };
        self.cells(&page, image, &bytes, (from, to), depth);
    }

    fn cells(&mut self, page: &BtreePage, image: Image, bytes: &[u8], (from, to): (Key, Key), depth: usize) {
        let mut before = from;
        // Cells in between that make no sense.
        let mut gap = false;
        for cell in &page.cells {
            let key = cell.as_ref().and_then(|cell| self.cell(page.kind, image, bytes, cell));
            // A page that is in the wrong place has keys that do not belong there.
            let Some(key) = key.filter(|key| before <= *key && *key <= to) else {
                gap = true;
                continue;
            };
            if std::mem::take(&mut gap) {
                self.lose(before, key);
            }
            if let Some(cell) = cell.filter(|c| c.child != 0) {
                self.page(cell.child, before, key, depth + 1);
            }
            before = key;
        }
        if gap {
            self.lose(before, to);
        }
        if page.right != 0 {
            self.page(page.right, before, to, depth + 1);
        } else if page.cells.is_empty() && depth > 0 {
            // Only a root may be empty.
            self.lose(from, to);
        }
    }

    /// The key of a cell; the row in it is recognized.
    fn cell(&mut self, kind: PageKind, image: Image, bytes: &[u8], cell: &Cell) -> Option<Key> {
        let number = [cell.row, 0, 0, 0];
        if kind == PageKind::TableInterior {
            return Some(number);
        }
        if self.local {
            return (self.found)(&Reached { image, cell, columns: Vec::new() }).then_some(number);
        }
        let payload = payload::of_cell(self.pages, image, bytes, cell, Way::Chain);
        let columns = btree::record(&payload)?;
        let key = if self.table { Some(number) } else { key_of(&columns) };
        (self.found)(&Reached { image, cell, columns }).then_some(key).flatten()
    }
}

fn key_of(columns: &[ValueRef<'_>]) -> Option<Key> {
    let mut key = [0; 4];
    let mut numbers = 0;
    // Behind two numbers rows of the ledger and copies have bytes, which are not part of their keys.
    for (part, column) in key.iter_mut().zip(columns) {
        let Ok(number) = column.as_i64() else { break };
        *part = number;
        numbers += 1;
    }
    (numbers >= 2).then_some(key)
}

/// The roots of the tables by their names, and whether the list of tables was damaged: then they are found by what their
/// rows look like.
pub(super) fn roots(pages: &Pages) -> (BTreeMap<String, u32>, bool) {
    let mut found = BTreeMap::new();
    let missing = walk(pages, 1, true, false, |row| {
        if let [kind, name, _, root, ..] = row.columns[..]
            && kind.as_str() == Ok("table")
            && let (Ok(name), Ok(root)) = (name.as_str(), root.as_i64())
            && let Ok(root) = u32::try_from(root)
        {
            found.insert(name.to_owned(), root);
        }
        row.columns.len() == 5
    });
    let all = ["bucket", "series", "chunk", "pack"].iter().all(|name| found.contains_key(*name));
    let damaged = !missing.is_empty() || !all;
    if damaged {
        for root in mapped_roots(pages) {
            if let Some(name) = looks_like(pages, root) {
                found.entry(name.to_owned()).or_insert(root);
            }
        }
    }
    (found, damaged)
}

/// The pages that the map of pages calls roots: it is the second page of every store file.
fn mapped_roots(pages: &Pages) -> Vec<u32> {
    let Some(image) = pages.shown(2) else { return Vec::new() };
    let map = pages.read(image);
    let entries = (3..).zip(map.chunks_exact(5));
    entries.filter(|(_, e)| e[0] == 1 && u32_at(e, 1) == 0).map(|(page, _)| page).collect()
}

/// The table whose rows a tree has.
fn looks_like(pages: &Pages, root: u32) -> Option<&'static str> {
    let mut number = root;
    for _ in 0..DEPTH_MAX {
        let image = pages.shown(number)?;
        let bytes = pages.read(image);
        let page = btree::page(&bytes, false)?;
        let cell = page.cells.iter().flatten().next()?;
        if cell.child != 0 {
            number = cell.child;
            continue;
        }
        let payload = payload::of_cell(pages, image, &bytes, cell, Way::Chain);
        let columns = btree::record(&payload)?;
        let is_pack = columns.len() == 2 && matches!(columns[1], ValueRef::Blob(_));
        return match super::rows::row(cell.row, &columns) {
            Some(row) => Some(row.table()),
            None => (is_pack && page.kind == PageKind::TableLeaf).then_some("pack"),
        };
    }
    None
}
