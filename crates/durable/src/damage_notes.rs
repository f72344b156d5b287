//! Damage that stays reported until it is settled: a small text file beside the data, to which a line is appended for
//! each thing that was found damaged. `docs/format.md` has every byte. It knows nothing of what the notes are about.

use crate::disk::{Disk, OpenMode};
use crate::error::Error;
use crate::log::{machine_clock, read_all};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Name of the file.
const NAME: &str = "damage";
/// At most this many notes are kept one by one; of the others only the number and what they cost.
const NOTES_MAX: usize = 1000;
/// A longer note is cut.
const TEXT_BYTES_MAX: usize = 1000;
/// The file is written anew, without what is settled, when it has this many lines.
const LINES_MAX: usize = 3 * NOTES_MAX;
/// What lies beyond is not read: no file of ours is this long.
const FILE_BYTES_MAX: usize = 8 << 20;

/// Something that was found damaged.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Note {
    /// When it was found, in nanoseconds since the epoch.
    pub found_at: i64,
    /// How many lines or values it cost, as far as that is known.
    pub lost: u64,
    /// What is damaged, as a sentence.
    pub text: String,
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The damage of a folder that is not settled yet.
///
/// Opening only reads; the file is made with the first note. A line of the file that is not as it was written is a note
/// itself.
///
/// ```
/// use graylogic_durable::{DamageNotes, RealDisk};
/// use std::sync::Arc;
///
/// let folder = tempfile::tempdir()?;
/// let notes = DamageNotes::open(Arc::new(RealDisk), folder.path())?;
/// notes.add("segment 1 is gone; 5 lines are lost", 5)?;
///
/// let later = DamageNotes::open(Arc::new(RealDisk), folder.path())?;
/// assert_eq!((later.unsettled().len(), later.lost()), (1, 5));
/// assert_eq!(later.settle()?, 1);
/// assert!(DamageNotes::open(Arc::new(RealDisk), folder.path())?.unsettled().is_empty());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct DamageNotes {
    disk: Arc<dyn Disk>,
    folder: PathBuf,
    state: Mutex<Noted>,
}

#[derive(Debug, Default)]
struct Noted {
    notes: Vec<Note>,
    /// Notes beyond the bound, and what they cost.
    more: (u64, u64),
    /// Lines of the file, settled ones included.
    lines: usize,
    /// Whether the file ends with a line feed, so that a new line begins at its end.
    whole: bool,
    /// Bytes of the file.
    bytes: u64,
}

impl DamageNotes {
    /// Reads the notes of a folder; without a file there are none.
    ///
    /// # Errors
    /// When the disk does not let the file be read.
    pub fn open(disk: Arc<dyn Disk>, folder: &Path) -> Result<Self, Error> {
        let path = folder.join(NAME);
        let bytes = match read_all(&*disk, &path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(e) => return Err(Error::io(format_args!("read the damage notes {}", path.display()), e)),
        };
        Ok(Self { disk, folder: folder.to_owned(), state: Mutex::new(read(&bytes)) })
    }

    fn state(&self) -> MutexGuard<'_, Noted> {
        // What it holds changes in one piece: a panic elsewhere leaves it whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a note, durable when the call returns, and returns whether it is new: a note with the same text as one that
    /// is not settled is not kept twice.
    ///
    /// # Errors
    /// If the disk cannot be written; the note is then kept in memory only.
    pub fn add(&self, text: &str, lost: u64) -> Result<bool, Error> {
        let mut state = self.state();
        let note = Note { found_at: machine_clock(), lost, text: one_line(text) };
        if state.notes.iter().any(|n| n.text == note.text) {
            return Ok(false);
        }
        let line = if state.notes.len() < NOTES_MAX {
            let line = note_line(&note);
            state.notes.push(note);
            line
        } else {
            state.more = (state.more.0 + 1, state.more.1.saturating_add(lost));
            line_of(&format!("more {} 1 {lost}", note.found_at))
        };
        self.append(&mut state, &line)?;
        Ok(true)
    }

    /// The notes that are not settled, oldest first: at most 1,000, and one more that counts the others.
    #[must_use]
    pub fn unsettled(&self) -> Vec<Note> {
        let state = self.state();
        let mut notes = state.notes.clone();
        if state.more.0 > 0 {
            let text = format!("and {} more damaged places, which are not listed", state.more.0);
            notes.push(Note { found_at: machine_clock(), lost: state.more.1, text });
        }
        notes
    }

    /// What the unsettled damage cost altogether.
    #[must_use]
    pub fn lost(&self) -> u64 {
        let state = self.state();
        state.notes.iter().fold(state.more.1, |sum, n| sum.saturating_add(n.lost))
    }

    /// Settles the damage noted so far, so that it is not reported again; returns the number of notes.
    ///
    /// # Errors
    /// If the disk cannot be written; then nothing is settled.
    pub fn settle(&self) -> Result<u64, Error> {
        let mut state = self.state();
        let count = state.notes.len() as u64 + state.more.0;
        if count == 0 {
            return Ok(0);
        }
        let line = line_of(&format!("settled {} {count}", machine_clock()));
        self.append(&mut state, &line)?;
        (state.notes, state.more) = (Vec::new(), (0, 0));
        Ok(count)
    }

    fn append(&self, state: &mut Noted, line: &str) -> Result<(), Error> {
        let path = self.folder.join(NAME);
        let failed = |e| Error::io(format_args!("append to the damage notes {}", path.display()), e);
        let line = if state.whole { line.to_owned() } else { format!("\n{line}") };
        let write = || -> io::Result<()> {
            let (file, is_new) = match self.disk.open(&path, OpenMode::ReadWrite) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => {
                    (self.disk.open(&path, OpenMode::CreateNew)?, true)
                }
                opened => (opened?, false),
            };
            let end = file.bytes()?;
            if let Err(error) =
                file.write_at(line.as_bytes(), end.max(state.bytes)).and_then(|()| file.sync())
            {
                // Half a note is none, and would count as damage itself.
                let _left_behind = if is_new { self.disk.remove(&path) } else { file.truncate(end) };
                return Err(error);
            }
            if is_new { self.disk.sync_dir(&self.folder) } else { Ok(()) }
        };
        write().map_err(failed)?;
        state.whole = true;
        state.bytes += line.len() as u64;
        state.lines += 1;
        if state.lines > LINES_MAX {
            self.rewrite(state, &path).map_err(failed)?;
        }
        Ok(())
    }

    /// Writes the file anew with what is not settled.
    fn rewrite(&self, state: &mut Noted, path: &Path) -> io::Result<()> {
        let mut text: String = state.notes.iter().map(note_line).collect();
        if state.more.0 > 0 {
            text += &line_of(&format!("more {} {} {}", machine_clock(), state.more.0, state.more.1));
        }
        let new = self.folder.join(format!("{NAME}.new"));
        let _left_behind_by_an_earlier_try = self.disk.remove(&new);
        let file = self.disk.open(&new, OpenMode::CreateNew)?;
        file.write_at(text.as_bytes(), 0)?;
        file.sync()?;
        self.disk.rename(&new, path)?;
        self.disk.sync_dir(&self.folder)?;
        state.lines = state.notes.len() + usize::from(state.more.0 > 0);
        state.bytes = text.len() as u64;
        Ok(())
    }
}

/// A text that fits into one line of the file.
fn one_line(text: &str) -> String {
    let mut end = text.len().min(TEXT_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn note_line(note: &Note) -> String {
    line_of(&format!("note {} {} {}", note.found_at, note.lost, note.text))
}

/// A line of the file: the checksum of the rest in eight hexadecimal digits, a space, the rest.
fn line_of(rest: &str) -> String {
    format!("{:08x} {rest}\n", crc32c::crc32c(rest.as_bytes()))
}

fn read(bytes: &[u8]) -> Noted {
    let mut noted = Noted { bytes: bytes.len() as u64, ..Noted::default() };
    noted.whole = bytes.last().is_none_or(|b| *b == b'\n');
    let mut damaged = 0u64;
    for line in bytes[..bytes.len().min(FILE_BYTES_MAX)].split(|b| *b == b'\n').filter(|l| !l.is_empty()) {
        noted.lines += 1;
        match line_from(line) {
            Some(Line::Note(note)) if noted.notes.len() < NOTES_MAX => noted.notes.push(note),
            Some(Line::Note(note)) => {
                noted.more = (noted.more.0 + 1, noted.more.1.saturating_add(note.lost));
            }
            Some(Line::More(count, lost)) => {
                noted.more = (noted.more.0.saturating_add(count), noted.more.1.saturating_add(lost));
            }
            Some(Line::Settled) => {
                noted.notes.clear();
                (noted.more, damaged) = ((0, 0), 0);
            }
            None => damaged += 1,
        }
    }
    if damaged > 0 {
        let text = format!(
            "the file of damage notes has {damaged} damaged lines; damage found earlier may be missing from it"
        );
        noted.notes.push(Note { found_at: 0, lost: 0, text });
    }
    noted
}

enum Line {
    Note(Note),
    More(u64, u64),
    Settled,
}

fn line_from(line: &[u8]) -> Option<Line> {
    let (crc, rest) = std::str::from_utf8(line).ok()?.split_once(' ')?;
    if crc.len() != 8 || u32::from_str_radix(crc, 16).ok()? != crc32c::crc32c(rest.as_bytes()) {
        return None;
    }
    let mut parts = rest.splitn(4, ' ');
    let (kind, time, number) = (parts.next()?, parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    match kind {
        "note" => Some(Line::Note(Note { found_at: time, lost: number, text: parts.next()?.to_owned() })),
        "more" => Some(Line::More(number, parts.next()?.parse().ok()?)),
        "settled" => Some(Line::Settled),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::SimDisk;

    fn disk() -> Arc<dyn Disk> {
        let disk = SimDisk::new();
        disk.create_dir_all(Path::new("/lane")).expect("a folder");
        Arc::new(disk)
    }

    fn open(disk: &Arc<dyn Disk>) -> DamageNotes {
        DamageNotes::open(disk.clone(), Path::new("/lane")).expect("notes")
    }

    fn texts(notes: &DamageNotes) -> Vec<String> {
        notes.unsettled().into_iter().map(|n| n.text).collect()
    }

    #[test]
    fn notes_stay_until_they_are_settled() {
        let disk = disk();
        let notes = open(&disk);
        assert!(notes.add("one\nsegment is gone", 5500).expect("room"));
        assert!(!notes.add("one\nsegment is gone", 5500).expect("room"), "a note is kept once");
        assert!(notes.add("another", 0).expect("room"));
        let notes = open(&disk);
        assert_eq!(texts(&notes), ["one segment is gone", "another"]);
        assert_eq!((notes.lost(), notes.settle().expect("room")), (5500, 2));
        let notes = open(&disk);
        assert_eq!((texts(&notes).len(), notes.settle().expect("room")), (0, 0));
        notes.add("one\nsegment is gone", 1).expect("room");
        assert_eq!(texts(&open(&disk)), ["one segment is gone"], "found again after it was settled");
    }

    #[test]
    fn torn_and_flipped_lines_are_notes_and_hide_no_other() {
        let disk = disk();
        let notes = open(&disk);
        for text in ["first", "second", "third"] {
            notes.add(text, 1).expect("room");
        }
        let path = Path::new("/lane/damage");
        let whole = read_all(&*disk, path).expect("the file");
        for at in 0..whole.len() {
            let file = disk.open(path, OpenMode::ReadWrite).expect("the file");
            let mut hurt = whole.clone();
            hurt[at] ^= 0x10;
            file.truncate(0).and_then(|()| file.write_at(&hurt, 0)).expect("room");
            let found = texts(&open(&disk));
            assert!(
                found.len() >= 2 && found.iter().any(|t| t.contains("damaged lines")),
                "byte {at}: {found:?}"
            );
            file.truncate(0).and_then(|()| file.write_at(&whole[..at], 0)).expect("room");
            open(&disk).add("fourth", 1).expect("room");
            assert!(texts(&open(&disk)).contains(&"fourth".to_owned()), "cut at {at}");
        }
        open(&disk).settle().expect("room");
        assert!(texts(&open(&disk)).is_empty(), "a damaged line is settled as well");
    }

    #[test]
    fn however_much_is_damaged_the_file_stays_small() {
        let disk = disk();
        let notes = open(&disk);
        for i in 0..LINES_MAX * 2 {
            notes.add(&format!("place {i}"), 2).expect("room");
        }
        let notes = open(&disk);
        assert_eq!(notes.unsettled().len(), NOTES_MAX + 1);
        assert_eq!(notes.lost(), LINES_MAX as u64 * 4);
        assert!(texts(&notes)[NOTES_MAX].starts_with(&format!("and {} more", LINES_MAX * 2 - NOTES_MAX)));
        assert!(read_all(&*disk, Path::new("/lane/damage")).expect("the file").len() < LINES_MAX * 80);
        assert_eq!(notes.settle().expect("room"), LINES_MAX as u64 * 2);
        assert!(open(&disk).unsettled().is_empty());
    }
}
