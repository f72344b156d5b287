//! The cells of SQLite's b-tree pages and the records in them (<https://sqlite.org/fileformat2.html>), read from bytes
//! that may be damaged anywhere. It knows no table.

use rusqlite::types::ValueRef;

/// What a b-tree page is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PageKind {
    /// Rows of a table by their numbers.
    TableLeaf,
    TableInterior,
    /// Rows of a table without numbers, or of an index.
    IndexLeaf,
    IndexInterior,
}

/// A cell: where its payload is, and what else it says.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cell {
    /// Page below it that has what is smaller; 0 in leaves.
    pub(super) child: u32,
    /// Number of the row; 0 in an index.
    pub(super) row: i64,
    /// Length of the payload, and where in the page its first part lies.
    pub(super) payload: usize,
    pub(super) from: usize,
    pub(super) to: usize,
    /// Page on which it goes on; 0: it is whole.
    pub(super) overflow: u32,
}

/// A page by its parts. Cells that make no sense are left out and counted.
#[derive(Debug)]
pub(super) struct BtreePage {
    pub(super) kind: PageKind,
    pub(super) cells: Vec<Option<Cell>>,
    /// The last child of an interior page.
    pub(super) right: u32,
}

/// A b-tree page, if its header makes sense. `first`: it is page 1, which begins with the header of the file.
pub(super) fn page(bytes: &[u8], first: bool) -> Option<BtreePage> {
    let at = if first { 100 } else { 0 };
    let header = bytes.get(at..at + 12)?;
    let kind = match header[0] {
        2 => PageKind::IndexInterior,
        5 => PageKind::TableInterior,
        10 => PageKind::IndexLeaf,
        13 => PageKind::TableLeaf,
        _ => return None,
    };
    let interior = matches!(kind, PageKind::IndexInterior | PageKind::TableInterior);
    let count = usize::from(u16::from_be_bytes([header[3], header[4]]));
    let pointers = at + if interior { 12 } else { 8 };
    let array = bytes.get(pointers..pointers + 2 * count)?;
    let cell_at = |p: &[u8]| cell(bytes, kind, usize::from(u16::from_be_bytes([p[0], p[1]])), pointers);
    let cells = array.chunks_exact(2).map(cell_at).collect();
    let right = if interior { u32_at(header, 8) } else { 0 };
    Some(BtreePage { kind, cells, right })
}

fn cell(bytes: &[u8], kind: PageKind, at: usize, least: usize) -> Option<Cell> {
    let mut at = Some(at).filter(|&at| at >= least)?;
    let mut cell = Cell::default();
    if matches!(kind, PageKind::IndexInterior | PageKind::TableInterior) {
        cell.child = u32_at(bytes.get(at..at + 4)?, 0);
        at += 4;
    }
    if kind == PageKind::TableInterior {
        cell.row = varint(bytes, &mut at)? as i64;
        return Some(cell);
    }
    cell.payload = usize::try_from(varint(bytes, &mut at)?).ok().filter(|&n| n <= i32::MAX as usize)?;
    if kind == PageKind::TableLeaf {
        cell.row = varint(bytes, &mut at)? as i64;
    }
    let local = local_bytes(cell.payload, bytes.len(), kind == PageKind::TableLeaf);
    (cell.from, cell.to) = (at, at.checked_add(local)?);
    bytes.get(cell.from..cell.to)?;
    if local < cell.payload {
        cell.overflow = u32_at(bytes.get(cell.to..cell.to + 4)?, 0);
    }
    Some(cell)
}

/// Where the part of a table's payload that lies in its own page ends, and the page on which it goes on.
pub(super) fn local_end(bytes: &[u8], from: usize, payload: usize) -> Option<(usize, u32)> {
    if payload > i32::MAX as usize {
        return None;
    }
    let local = local_bytes(payload, bytes.len(), true);
    let to = from.checked_add(local)?;
    bytes.get(from..to)?;
    let overflow = if local < payload { u32_at(bytes.get(to..to + 4)?, 0) } else { 0 };
    Some((to, overflow))
}

/// How much of a payload lies in its own page.
fn local_bytes(payload: usize, page: usize, table: bool) -> usize {
    let most = if table { page - 35 } else { (page - 12) * 64 / 255 - 23 };
    if payload <= most {
        return payload;
    }
    let least = (page - 12) * 32 / 255 - 23;
    let rest = least + (payload - least) % (page - 4);
    if rest <= most { rest } else { least }
}

/// The columns of a record, if it is one: bytes that follow are ignored.
pub(super) fn record(bytes: &[u8]) -> Option<Vec<ValueRef<'_>>> {
    let mut at = 0;
    let header = usize::try_from(varint(bytes, &mut at)?).ok().filter(|&n| n <= bytes.len())?;
    let mut body = header;
    let mut columns = Vec::new();
    while at < header {
        let (value, length) = column(bytes.get(body..)?, varint(bytes, &mut at)?)?;
        columns.push(value);
        body += length;
    }
    (at == header).then_some(columns)
}

fn column(bytes: &[u8], kind: u64) -> Option<(ValueRef<'_>, usize)> {
    let integer = |n: usize| {
        let bytes = bytes.get(..n)?;
        let sign = if bytes[0] & 0x80 == 0 { 0i64 } else { -1 };
        Some((ValueRef::Integer(bytes.iter().fold(sign, |v, &b| v << 8 | i64::from(b))), n))
    };
    match kind {
        0 => Some((ValueRef::Null, 0)),
        1..=4 => integer(kind as usize),
        5 => integer(6),
        6 => integer(8),
        7 => Some((ValueRef::Real(f64::from_be_bytes(*bytes.first_chunk()?)), 8)),
        8 | 9 => Some((ValueRef::Integer(kind as i64 - 8), 0)),
        10 | 11 => None,
        _ => {
            let length = usize::try_from((kind - 12) / 2).ok()?;
            let bytes = bytes.get(..length)?;
            Some((if kind.is_multiple_of(2) { ValueRef::Blob(bytes) } else { ValueRef::Text(bytes) }, length))
        }
    }
}

/// An integer as SQLite writes it: big-endian, seven bits a byte, the ninth byte whole.
pub(super) fn varint(bytes: &[u8], at: &mut usize) -> Option<u64> {
    let mut value = 0u64;
    for i in 0..9 {
        let byte = *bytes.get(*at)?;
        *at += 1;
        if i == 8 {
            return Some(value << 8 | u64::from(byte));
        }
        value = value << 7 | u64::from(byte & 0x7f);
        if byte < 0x80 {
            break;
        }
    }
    Some(value)
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}
