//! Payloads that go on over several pages, put together from what is left of them. It knows no table.

use super::btree::{self, BtreePage, Cell, u32_at};
use super::pages::{Image, Pages};

/// How the pages of a payload are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// As SQLite does: each page names the next one.
    Chain,
    /// Among the images of the time at which the first one was written.
    AsOfThen,
    /// One behind the other in the file: where a page does not say what follows it.
    Neighbors,
}

/// The order in which they are tried.
pub(super) const WAYS: [Way; 3] = [Way::Chain, Way::AsOfThen, Way::Neighbors];

/// Bytes that begin in a page: the part there, and the page on which they go on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Start {
    pub(super) image: Image,
    pub(super) from: usize,
    pub(super) to: usize,
    pub(super) overflow: u32,
}

impl Start {
    pub(super) fn of(image: Image, cell: &Cell) -> Self {
        Self { image, from: cell.from, to: cell.to, overflow: cell.overflow }
    }
}

/// The first `wanted` bytes from a start on, or as many as there are. `bytes`: those of the image it begins in.
pub(super) fn gather(pages: &Pages, bytes: &[u8], start: Start, wanted: usize, way: Way) -> Vec<u8> {
    let mut out = bytes.get(start.from..start.to).unwrap_or_default().to_vec();
    out.truncate(wanted);
    let mut next = start.overflow;
    let mut before = pages.number(start.image);
    while out.len() < wanted {
        if way == Way::Neighbors {
            next = before.saturating_add(1);
        }
        let image = match (way, start.image) {
            (Way::AsOfThen, Image::Wal(frame)) => pages.image_as_of(next, frame),
            (Way::AsOfThen, Image::File(_)) => {
                (1..=pages.last()).contains(&next).then_some(Image::File(next))
            }
            _ => pages.shown(next),
        };
        let Some(image) = image.filter(|_| next != 0) else { break };
        let page = pages.read(image);
        before = next;
        next = u32_at(&page, 0);
        // A chain that comes back to itself ends with what is wanted.
        out.extend(page[4..].iter().take(wanted - out.len()));
    }
    out
}

/// The whole payload of a cell.
pub(super) fn of_cell(pages: &Pages, image: Image, bytes: &[u8], cell: &Cell, way: Way) -> Vec<u8> {
    gather(pages, bytes, Start::of(image, cell), cell.payload, way)
}

/// The places in a page of a table in which payloads lie, as its cells have them; where they are damaged, as the
/// records of packs have them: NULL, then bytes.
pub(super) fn containers(
    image: Image,
    bytes: &[u8],
    page: Option<&BtreePage>,
    marks: &[usize],
) -> Vec<Start> {
    let cells = page.iter().flat_map(|p| p.cells.iter().flatten());
    let mut found: Vec<Start> = cells.filter(|c| c.payload > 0).map(|c| Start::of(image, c)).collect();
    for &mark in marks {
        if found.iter().any(|s| (s.from..s.to).contains(&mark)) {
            continue;
        }
        let header = (3..=12).find_map(|n| {
            let from = mark.checked_sub(n)?;
            let mut at = from + 2;
            let is_header = usize::from(bytes[from]) == n && bytes[from + 1] == 0;
            let kind = btree::varint(bytes, &mut at).filter(|_| is_header && at == mark)?;
            let length = usize::try_from(kind.checked_sub(12)? / 2).ok()?;
            Some((from, n.checked_add(length)?))
        });
        let Some((from, payload)) = header else { continue };
        if let Some((to, overflow)) = btree::local_end(bytes, from, payload) {
            found.push(Start { image, from, to, overflow });
        }
    }
    found
}
