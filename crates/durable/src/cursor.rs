//! The cursor of a lane: how far its lines are settled, in two slots of one small file that are written in turn. It may be
//! lost or wrong without harm: lines are sent again. `docs/format.md` has every byte.

use crate::disk::{Disk, DiskFile, OpenMode};
use crate::log::read_patiently;
use crate::settling::Said;
use std::io;
use std::path::Path;
use std::sync::Arc;

pub(crate) const NAME: &str = "cursor";
const FILE_BYTES: usize = 4096;
pub(crate) const SLOT_BYTES: usize = 512;
const MAGIC: [u8; 8] = *b"GLTCUR\r\n";
const VERSION: u32 = 1;

/// What became of lines, over the life of a lane.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) dead: u64,
    pub(crate) dropped: u64,
    pub(crate) damaged: u64,
}

impl Totals {
    /// Lines between a cursor and the first segment were dropped to make room when the cursor could not be saved, or taken
    /// away: nobody knows whether they were delivered.
    pub(crate) fn count_gap(&mut self, saved: u64, first: u64) {
        self.dropped += first.saturating_sub(saved);
    }
}

/// Where a lane goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    /// Lines before this number are settled.
    pub(crate) number: u64,
    /// Numbers before this one were given, whatever the segments still hold of them.
    pub(crate) given: u64,
    pub(crate) totals: Totals,
    /// What the target acknowledged and may still lose.
    pub(crate) said: Said,
}

impl Default for Position {
    fn default() -> Self {
        Self { number: 1, given: 1, totals: Totals::default(), said: Said::default() }
    }
}

/// The file, and what was written to it last.
#[derive(Debug, Default)]
pub(crate) struct Cursor {
    file: Option<Arc<dyn DiskFile>>,
    generation: u64,
    saved: Option<Position>,
}

impl Cursor {
    /// The cursor of a folder, and what it says; with a sentence when it cannot be believed.
    pub(crate) fn open(
        disk: &Arc<dyn Disk>,
        folder: &Path,
        mode: OpenMode,
    ) -> io::Result<(Self, Position, Option<String>)> {
        let path = folder.join(NAME);
        let file = match disk.open(&path, mode) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return Ok((Self::default(), Position::default(), None));
            }
            Err(e) => return Err(e),
        };
        let mut bytes = vec![0; 2 * SLOT_BYTES];
        if let Err(e) = read_patiently(&*file, &mut bytes, 0) {
            // A place that is written each second is the first that a card loses. It is made anew.
            let trouble =
                format!("the cursor cannot be read: {e}; lines that were delivered may be sent again");
            return Ok((Self::default(), Position::default(), Some(trouble)));
        }
        let slots = bytes.chunks(SLOT_BYTES).filter_map(decode);
        let newest = slots.max_by_key(|s| s.0);
        let never_saved = bytes.iter().all(|b| *b == 0);
        let trouble = (newest.is_none() && !never_saved)
            .then(|| "the cursor was damaged; lines that were delivered may be sent again".to_owned());
        let (generation, position) = newest.unwrap_or_default();
        let cursor = Self { file: Some(file), generation, saved: newest.map(|n| n.1) };
        Ok((cursor, position, trouble))
    }

    /// Whether a position was read or saved.
    pub(crate) fn is_saved(&self) -> bool {
        self.saved.is_some()
    }

    /// The file, with room for both slots: so that saving needs none later.
    pub(crate) fn prepare(&mut self, disk: &Arc<dyn Disk>, folder: &Path) -> io::Result<Arc<dyn DiskFile>> {
        if let Some(file) = &self.file {
            return Ok(file.clone());
        }
        let path = folder.join(NAME);
        let file = match disk.open(&path, OpenMode::CreateNew) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => disk.open(&path, OpenMode::ReadWrite)?,
            opened => opened?,
        };
        file.write_at(&[0; FILE_BYTES], 0)?;
        file.sync()?;
        disk.sync_dir(folder)?;
        self.file = Some(file.clone());
        Ok(file)
    }

    /// Writes a position, durable when it returns; nothing when it was written last.
    pub(crate) fn save(&mut self, disk: &Arc<dyn Disk>, folder: &Path, position: Position) -> io::Result<()> {
        if self.saved == Some(position) || (self.generation == 0 && position == Position::default()) {
            return Ok(());
        }
        let file = self.prepare(disk, folder)?;
        let generation = self.generation.wrapping_add(1);
        let slot = (generation % 2) as usize * SLOT_BYTES;
        file.write_at(&encode(generation, position), slot as u64)?;
        // A slot whose sync failed is written again, in its place: the other one still holds.
        file.sync()?;
        self.generation = generation;
        self.saved = Some(position);
        Ok(())
    }
}

impl Cursor {
    /// Writes a position into an existing file, for whoever comes after a kill; durable with the next [`Cursor::save`].
    pub(crate) fn note(&mut self, position: Position) -> io::Result<()> {
        let Some(file) = self.file.clone().filter(|_| self.saved != Some(position)) else { return Ok(()) };
        let generation = self.generation.wrapping_add(1);
        file.write_at(&encode(generation, position), (generation % 2) * SLOT_BYTES as u64)?;
        self.generation = generation;
        // Not durable: it is saved again.
        self.saved = None;
        Ok(())
    }
}

fn encode(generation: u64, position: Position) -> [u8; SLOT_BYTES] {
    let mut slot = [0; SLOT_BYTES];
    slot[..8].copy_from_slice(&MAGIC);
    slot[8..12].copy_from_slice(&VERSION.to_le_bytes());
    let Totals { dead, dropped, damaged } = position.totals;
    let Said { before, at, by } = position.said;
    let numbers =
        [generation, position.number, dead, dropped, damaged, position.given, before, at.cast_unsigned(), by];
    for (i, number) in numbers.into_iter().enumerate() {
        slot[16 + 8 * i..24 + 8 * i].copy_from_slice(&number.to_le_bytes());
    }
    let crc = crc32c::crc32c(&slot[..SLOT_BYTES - 4]);
    slot[SLOT_BYTES - 4..].copy_from_slice(&crc.to_le_bytes());
    slot
}

/// Offsets of the pieces of a cursor's file, each as long as a slot, that are neither a slot nor as they were made.
pub(crate) fn damaged(file: &[u8]) -> Vec<u64> {
    let made = |piece: &[u8]| piece.iter().all(|b| *b == 0);
    let bad = |&(i, piece): &(usize, &[u8])| !made(piece) && (i >= 2 || decode(piece).is_none());
    file.chunks(SLOT_BYTES).enumerate().filter(bad).map(|(i, _)| (i * SLOT_BYTES) as u64).collect()
}

fn decode(slot: &[u8]) -> Option<(u64, Position)> {
    let slot: &[u8; SLOT_BYTES] = slot.try_into().ok()?;
    let (rest, crc) = slot.split_last_chunk::<4>()?;
    let good = slot[..8] == MAGIC
        && slot[8..12] == VERSION.to_le_bytes()
        && u32::from_le_bytes(*crc) == crc32c::crc32c(rest);
    let number = |i: usize| {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&slot[16 + 8 * i..24 + 8 * i]);
        u64::from_le_bytes(bytes)
    };
    let totals = Totals { dead: number(2), dropped: number(3), damaged: number(4) };
    let said = Said { before: number(6), at: number(7).cast_signed(), by: number(8) };
    good.then(|| (number(0), Position { number: number(1).max(1), given: number(5).max(1), totals, said }))
}
