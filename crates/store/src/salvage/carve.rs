//! Chunks found by their own frames, in the packs that SQLite would reach and in every other byte of the file and its
//! write-ahead log. It knows no table but the packs.

use super::btree::{self, Cell, PageKind, u32_at};
use super::pages::{Image, Pages};
use super::payload::{self, Start, WAYS, Way};
use super::tree::{Missing, walk};
use crate::chunk_frame::{self, ChunkFrame, HEADER_BYTES_MAX, MAGIC};
use std::collections::{BTreeMap, HashMap};

/// Where a whole frame lies.
#[derive(Clone, Copy, Debug)]
pub(super) struct FrameAt {
    pub(super) frame: ChunkFrame,
    start: Start,
    /// The frame lies so far behind the start, and is so long.
    offset: usize,
    length: usize,
    way: Way,
    /// The pack that SQLite would reach it in.
    pub(super) pack: Option<i64>,
}

/// Where a pack may lie.
#[derive(Clone, Copy, Debug)]
struct PackAt {
    image: Image,
    cell: Cell,
    reached: bool,
}

/// All frames and packs of a store file.
#[derive(Debug, Default)]
pub(super) struct Carved {
    /// By the number of the chunk. One number has several frames when it was given twice.
    pub(super) frames: BTreeMap<i64, Vec<FrameAt>>,
    packs: HashMap<i64, Vec<PackAt>>,
    /// Packs that SQLite would not reach although they may be there.
    pub(super) missing: Missing,
    /// Packs without any whole frame, and their lengths: their chunks are named by their rows, or not at all.
    pub(super) silent: BTreeMap<i64, usize>,
}

impl Carved {
    /// Whether SQLite would reach a pack.
    pub(super) fn reaches(&self, pack: i64) -> bool {
        self.packs.get(&pack).is_some_and(|at| at.iter().any(|p| p.reached))
    }

    fn keep(&mut self, found: FrameAt) {
        let known = self.frames.entry(found.frame.chunk).or_default();
        if !known.iter().any(|k| k.frame == found.frame) {
            known.push(found);
        }
    }

    fn knows(&self, frame: &ChunkFrame) -> bool {
        self.frames.get(&frame.chunk).is_some_and(|known| known.iter().any(|k| k.frame == *frame))
    }
}

/// The body of a frame, read again.
pub(super) fn body(pages: &Pages, at: &FrameAt) -> Option<Vec<u8>> {
    let bytes = pages.read(at.start.image);
    let found = payload::gather(pages, &bytes, at.start, at.offset + at.length, at.way);
    let frame = found.get(at.offset..)?;
    chunk_frame::header(frame)?.body(frame).map(<[u8]>::to_vec)
}

/// Bytes of a pack, in each way in which it may be put together, those that SQLite would show first.
pub(super) fn pack_bytes<'a>(
    pages: &'a Pages,
    carved: &'a Carved,
    pack: i64,
) -> impl Iterator<Item = Vec<u8>> + 'a {
    let mut places: Vec<PackAt> = carved.packs.get(&pack).cloned().unwrap_or_default();
    places.sort_by_key(|p| !p.reached);
    places.into_iter().flat_map(move |at| {
        let bytes = pages.read(at.image);
        WAYS.into_iter().filter_map(move |way| {
            let payload = payload::of_cell(pages, at.image, &bytes, &at.cell, way);
            blob(&payload).map(|(from, _)| payload[from..].to_vec())
        })
    })
}

/// Where the bytes of a pack begin in its record, and how many they are; of a record that is cut, what is there.
fn blob(payload: &[u8]) -> Option<(usize, usize)> {
    let mut at = 0;
    let header = usize::try_from(btree::varint(payload, &mut at)?).ok()?;
    let id = btree::varint(payload, &mut at)?;
    let kind = btree::varint(payload, &mut at)?;
    let is_pack = id == 0 && at == header && kind >= 12 && kind % 2 == 0;
    is_pack.then(|| usize::try_from((kind - 12) / 2).ok().map(|n| (header, n))).flatten()
}

/// Finds all frames and packs. `root`: that of the table of packs.
pub(super) fn carve(pages: &Pages, root: Option<u32>) -> Carved {
    let mut carved = Carved::default();
    let mut reached = Vec::new();
    carved.missing = match root {
        Some(root) => walk(pages, root, true, true, |row| {
            reached.push((row.image, *row.cell));
            true
        }),
        None => Missing::everything(),
    };
    for (image, cell) in reached {
        carved.packs.entry(cell.row).or_default().push(PackAt { image, cell, reached: true });
        frames_of_pack(pages, &mut carved, image, &cell);
    }
    for image in pages.images() {
        frames_of_image(pages, &mut carved, image);
    }
    carved
}

/// The frames in a pack that SQLite would reach.
fn frames_of_pack(pages: &Pages, carved: &mut Carved, image: Image, cell: &Cell) {
    let bytes = pages.read(image);
    let mut any = false;
    for way in WAYS {
        let payload = payload::of_cell(pages, image, &bytes, cell, way);
        let mut damaged = payload.len() < cell.payload;
        let mut at = 0;
        while let Some(offset) = next_magic(&payload, at) {
            let whole =
                chunk_frame::header(&payload[offset..]).filter(|h| h.body(&payload[offset..]).is_some());
            at = offset + whole.map_or(1, |h| h.end);
            damaged |= whole.is_none();
            let Some(header) = whole else { continue };
            let start = Start::of(image, cell);
            let (frame, length, pack) = (header.frame, header.end, Some(cell.row));
            carved.keep(FrameAt { frame, start, offset, length, way, pack });
            any = true;
        }
        // What is whole is not put together in other ways. Packs of hours and of earlier versions have no frames.
        if !damaged || cell.overflow == 0 {
            break;
        }
    }
    if !any {
        carved.silent.insert(cell.row, cell.payload);
    }
}

fn next_magic(bytes: &[u8], from: usize) -> Option<usize> {
    let rest = bytes.get(from..)?;
    rest.windows(MAGIC.len()).position(|w| w == MAGIC).map(|at| from + at)
}

/// The frames that begin in an image of a page, and the packs.
fn frames_of_image(pages: &Pages, carved: &mut Carved, image: Image) {
    let bytes = pages.read(image);
    let page = btree::page(&bytes, pages.number(image) == 1);
    let leaf = page.filter(|p| p.kind == PageKind::TableLeaf);
    for cell in leaf.iter().flat_map(|p| p.cells.iter().flatten()) {
        let local = bytes.get(cell.from..cell.to).unwrap_or_default();
        // Packs alone begin so; in other tables the second column is no blob of that length.
        if blob(local).is_some_and(|(from, n)| from + n == cell.payload) {
            let known = carved.packs.entry(cell.row).or_default();
            if !known.iter().any(|p| p.image == image && p.cell.from == cell.from) {
                known.push(PackAt { image, cell: *cell, reached: false });
            }
        }
    }
    let marks: Vec<usize> = marks(&bytes);
    if marks.is_empty() {
        return;
    }
    let containers = payload::containers(image, &bytes, leaf.as_ref(), &marks);
    for mark in marks {
        let inside = containers.iter().filter(|c| (c.from..c.to).contains(&mark));
        let inside = inside.map(|c| Start { from: mark, ..*c });
        // Else the page is one of those on which a row goes on: the next one is named at its front.
        let outside = Start { image, from: mark, to: bytes.len(), overflow: u32_at(&bytes, 0) };
        let starts: Vec<Start> = inside.chain([outside]).collect();
        let found = starts.into_iter().find_map(|start| frame_at(pages, carved, &bytes, start));
        if let Some(found) = found {
            carved.keep(found);
        }
    }
}

/// Where frames may begin, also those of which a page has only the first bytes.
fn marks(bytes: &[u8]) -> Vec<usize> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(mark) = next_magic(bytes, at) {
        found.push(mark);
        at = mark + 1;
    }
    let cut = (1..MAGIC.len()).filter(|&n| bytes.ends_with(&MAGIC[..n]));
    found.extend(cut.map(|n| bytes.len() - n));
    found
}

fn frame_at(pages: &Pages, carved: &Carved, bytes: &[u8], start: Start) -> Option<FrameAt> {
    for way in WAYS {
        let front = payload::gather(pages, bytes, start, HEADER_BYTES_MAX, way);
        let Some(header) = chunk_frame::header(&front) else { continue };
        if carved.knows(&header.frame) {
            return None;
        }
        let whole = payload::gather(pages, bytes, start, header.end, way);
        if header.body(&whole).is_some() {
            let (frame, length) = (header.frame, header.end);
            return Some(FrameAt { frame, start, offset: 0, length, way, pack: None });
        }
        if start.from + header.end <= start.to {
            break;
        }
    }
    None
}

/// Whether the first part of a row is that of a pack.
pub(super) fn is_pack_cell(local: &[u8]) -> bool {
    blob(local).is_some()
}
