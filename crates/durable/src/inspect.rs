//! A spool as a person looks at it while somebody else may hold it, and the few things a person does to one: put dead
//! letters back, and remove what is not wanted any more. Looking never writes, and needs memory for one segment at a time.

use crate::cursor::{self, SLOT_BYTES};
use crate::damage_notes::{DamageNotes, Note};
use crate::dead::{self, DeadLetter};
use crate::disk::Disk;
use crate::error::Error;
use crate::lane::{DEAD, DEAD_LOG, Lane, LaneReader, LaneStats, Lines, decode_frame};
use crate::lane_notes::range_of;
use crate::log::{DAMAGED, Damage, Frame, Log, Replay, SegmentInfo, copy_damaged, read_all};
use crate::spool::{LOCK, folder_of};
use std::collections::BTreeSet;
use std::fs::{File, TryLockError};
use std::io::{self, Read as _};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// So many bytes of dead letters are appended at once.
const RETRY_BYTES: usize = 256 << 10;
/// A slot of a cursor that is not whole is read again after this time: it may be written at this moment.
const SLOT_PAUSE: Duration = Duration::from_millis(if cfg!(test) { 0 } else { 20 });

/// Whether somebody holds a spool, and the number of the process as it wrote it down.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Holder {
    /// Nobody does.
    Nobody,
    /// A process with this number, if it can be read.
    Process(Option<u32>),
    /// It cannot be asked, for this reason.
    Unknown(String),
}

/// Who holds the spool in a folder; only the disk of the machine knows. Nothing is written.
#[must_use]
pub fn holder(spool: &Path) -> Holder {
    let mut file = match File::open(spool.join(LOCK)) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Holder::Nobody,
        Err(e) => return Holder::Unknown(e.to_string()),
    };
    // Shared, and let go at once: who opens the spool at this moment asks again.
    match file.try_lock_shared() {
        Ok(()) => Holder::Nobody,
        Err(TryLockError::WouldBlock) => {
            let mut number = String::new();
            let _unreadable = file.read_to_string(&mut number);
            Holder::Process(number.trim().parse().ok())
        }
        Err(TryLockError::Error(e)) => Holder::Unknown(e.to_string()),
    }
}

/// A lane as it was when it was opened to be looked at.
///
/// It shows what [`Lane`] would show, and works while somebody holds the spool and on a disk that is read-only: nothing is
/// written, cut, moved or made.
///
/// ```
/// use graylogic_durable::{Inspection, LaneOptions, Lines, Next, RealDisk, Spool};
/// use std::sync::Arc;
///
/// let folder = tempfile::tempdir()?;
/// let spool = Spool::open(Arc::new(RealDisk), folder.path())?;
/// let (lane, _) = spool.lane("energy", LaneOptions::default())?;
/// let mut lines = Lines::default();
/// lines.push(b"power,meter=main value=1.5 1700000000000000000\n");
/// lane.append(&lines)?;
///
/// // Somebody else, meanwhile:
/// let seen = Inspection::open(Arc::new(RealDisk), folder.path(), "energy")?;
/// assert_eq!(seen.stats().waiting, 1);
/// let mut reader = seen.reader(seen.stats().first);
/// let Next::Lines(batch) = reader.next(100, 1 << 20)? else { panic!() };
/// assert_eq!(batch.bytes, lines.bytes);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Inspection {
    disk: Arc<dyn Disk>,
    folder: PathBuf,
    /// Never written to: its log only looks.
    lane: Lane,
    dead: Option<Log>,
    cursor: Option<String>,
    /// Lines that were not settled and whose segments are gone.
    gone: Range<u64>,
    /// Damage seen when opening, of the lane and of its dead letters.
    damage: Vec<Damage>,
    dead_damage: Vec<Damage>,
}

/// What reading every byte of a lane came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Checked {
    /// Segments, those of dead letters included.
    pub segments: usize,
    /// Bytes of them.
    pub bytes: u64,
    /// Frames that are as they were written, and lines in them.
    pub frames: u64,
    /// See above.
    pub lines: u64,
    /// Bytes of those lines, before they were compressed.
    pub line_bytes: u64,
    /// Bytes of the segments of lines.
    pub stored_bytes: u64,
    /// Dead letters that are as they were written.
    pub letters: u64,
    /// Places that are damaged, and lines and letters lost there.
    pub places: u64,
    /// See above.
    pub lost: u64,
    /// Of the lost lines, those that waited.
    pub lost_waiting: u64,
    /// Damage that was found earlier and is not settled: see [`Inspection::unsettled`]. It may be among the places above.
    pub noted: u64,
    /// Lines and letters that the notes say are lost, and that are not among the lost ones above.
    pub noted_lost: u64,
}

/// A copy of bytes that were found damaged and set aside.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Kept {
    /// The file.
    pub path: PathBuf,
    /// Its length.
    pub bytes: u64,
}

impl Inspection {
    /// Looks at a lane.
    ///
    /// What the files hold never makes it fail.
    ///
    /// # Errors
    /// When there is no such lane, or the disk does not let it be read.
    pub fn open(disk: Arc<dyn Disk>, spool: &Path, lane: &str) -> Result<Self, Error> {
        let folder = spool.join(folder_of(lane));
        let (lane, recovery) = Lane::look(disk.clone(), &folder)?;
        let dead = folder.join(DEAD);
        let (dead, dead_damage) = if has(&*disk, &folder, DEAD)? {
            let (log, recovery) = Log::look(disk.clone(), &dead, dead::options(DEAD_LOG))?;
            (Some(log), recovery.damage)
        } else {
            (None, Vec::new())
        };
        let (damage, cursor, gone) = (recovery.damage, recovery.cursor, recovery.gone);
        Ok(Self { disk, folder, lane, dead, cursor, gone, damage, dead_damage })
    }

    /// What the lane holds and has done.
    #[must_use]
    pub fn stats(&self) -> LaneStats {
        self.lane.stats()
    }

    /// What is wrong with the cursor: lines may be delivered again.
    #[must_use]
    pub fn cursor(&self) -> Option<&str> {
        self.cursor.as_deref()
    }

    /// The segments, oldest first.
    #[must_use]
    pub fn segments(&self) -> Vec<SegmentInfo> {
        self.lane.log.segments()
    }

    /// The number of the oldest line that may still be on the disk, delivered or not.
    #[must_use]
    pub fn oldest(&self) -> u64 {
        self.lane.log.first_sequence()
    }

    /// The lines from number `from` on, up to the last there was when the lane was opened.
    #[must_use]
    pub fn reader(&self, from: u64) -> LaneReader {
        self.lane.reader(from)
    }

    /// How many dead letters there are, damaged ones included.
    #[must_use]
    pub fn dead_count(&self) -> u64 {
        self.dead.as_ref().map_or(0, |log| log.next_sequence() - log.first_sequence())
    }

    /// The dead letters, oldest first, with the damage between them.
    pub fn dead(&self) -> impl Iterator<Item = Result<DeadLetter, Damage>> {
        let replay = self.dead.as_ref().map(|log| log.replay(0));
        replay
            .into_iter()
            .flatten()
            .map(|frame| frame.and_then(|f| dead::decode(&f).ok_or_else(|| unreadable(&f))))
    }

    /// What was found damaged earlier and set aside, of the lane and of its dead letters.
    ///
    /// # Errors
    /// When the disk does not let it be read.
    pub fn kept(&self) -> Result<Vec<Kept>, Error> {
        kept(&*self.disk, &self.folder)
    }

    /// Damage that was found earlier, by whoever held the lane, and is not settled.
    #[must_use]
    pub fn unsettled(&self) -> Vec<Note> {
        self.lane.unsettled()
    }

    /// Says that the damage noted so far has been seen: it is not reported any more, unless it is met again. Returns how
    /// many notes that were. The one change that an inspection makes.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn settle(&self) -> Result<u64, Error> {
        DamageNotes::open(self.disk.clone(), &self.folder)?.settle()
    }

    /// Reads every byte of the lane and calls `found` with each place that is not as it was written; the segment is named
    /// from the lane's folder on. Segments that are gone altogether are told by [`Inspection::cursor`].
    ///
    /// # Errors
    /// When the disk does not let the cursor be read. A segment that cannot be read is a damaged place.
    pub fn check(&self, mut found: impl FnMut(&Damage)) -> Result<Checked, Error> {
        let segments = self.segments();
        let mut checked = Checked {
            segments: segments.len() + self.dead.as_ref().map_or(0, |d| d.segments().len()),
            stored_bytes: segments.iter().map(|s| s.bytes).sum(),
            ..Checked::default()
        };
        let dead_bytes: u64 = self.dead.iter().flat_map(Log::segments).map(|s| s.bytes).sum();
        checked.bytes = checked.stored_bytes + dead_bytes;
        let first = self.stats().first;
        let mut ranges = vec![self.gone.clone()];
        let mut tell = |damage: &Damage, of_lines: bool| {
            checked.places += 1;
            if of_lines {
                ranges.push(damage.lost.clone());
            }
            checked.lost += damage.lost_count();
            if of_lines {
                checked.lost_waiting += damage.lost.end.saturating_sub(damage.lost.start.max(first));
            }
            found(damage);
        };
        for damage in self.check_cursor()? {
            tell(&damage, false);
        }
        let (mut frames, mut lines, mut line_bytes, mut letters) = (0, 0, 0, 0);
        let good = |frame: &Frame| {
            let Some(batch) = decode_frame(frame) else { return false };
            frames += 1;
            lines += batch.len() as u64;
            line_bytes += batch.bytes.len() as u64;
            true
        };
        check_log(self.lane.log.replay(0), &self.damage, good, |damage| tell(&damage, true));
        if let Some(log) = &self.dead {
            let good = |frame: &Frame| {
                letters += 1;
                dead::decode(frame).is_some()
            };
            check_log(log.replay(0), &self.dead_damage, good, |damage| {
                tell(&Damage { segment: format!("{DEAD}/{}", damage.segment), ..damage }, false);
            });
        }
        checked.lost += self.gone.end.saturating_sub(self.gone.start);
        let notes = self.unsettled();
        checked.noted = notes.len() as u64;
        let elsewhere = |note: &Note| match range_of(&note.text, "lines") {
            Some(noted) => {
                let both = |r: &Range<u64>| r.end.min(noted.end).saturating_sub(r.start.max(noted.start));
                note.lost.saturating_sub(ranges.iter().map(both).sum())
            }
            None => note.lost,
        };
        checked.noted_lost = notes.iter().map(elsewhere).sum();
        Ok(Checked { frames, lines, line_bytes, letters, ..checked })
    }

    /// Slots of the cursor that are neither whole nor empty.
    fn check_cursor(&self) -> Result<Vec<Damage>, Error> {
        let path = self.folder.join(cursor::NAME);
        let slots = || match read_all(&*self.disk, &path) {
            Ok(bytes) => Ok(cursor::damaged(&bytes)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(e) => Err(Error::io(format_args!("read the cursor {}", path.display()), e)),
        };
        let mut damaged = slots()?;
        if !damaged.is_empty() {
            std::thread::sleep(SLOT_PAUSE);
            damaged = slots()?;
        }
        let place = |offset| Damage {
            segment: cursor::NAME.to_owned(),
            offset,
            bytes: SLOT_BYTES as u64,
            lost: 0..0,
            kept_in: None,
        };
        Ok(damaged.into_iter().map(place).collect())
    }
}

/// Calls `tell` with each place of a log that is not as it was written. `opening`: what was seen when it was opened.
fn check_log(
    mut replay: Replay,
    opening: &[Damage],
    mut good: impl FnMut(&Frame) -> bool,
    mut tell: impl FnMut(Damage),
) {
    opening.iter().cloned().for_each(&mut tell);
    // A torn tail is told already, with the numbers that were in it.
    let torn = opening.iter().find(|d| !d.lost.is_empty());
    while let Some(item) = replay.next() {
        match item {
            Ok(frame) if good(&frame) => {}
            Ok(frame) => {
                let (segment, end) = replay.place().unwrap_or_default();
                let bytes = frame.bytes() as u64;
                tell(Damage { segment, offset: end.saturating_sub(bytes), bytes, ..unreadable(&frame) });
            }
            Err(mut damage) => {
                if let Some(torn) = torn
                    && torn.lost.start <= damage.lost.start
                {
                    damage.lost.start = damage.lost.start.max(torn.lost.end).min(damage.lost.end);
                }
                if damage.bytes > 0 || !damage.lost.is_empty() {
                    tell(damage);
                }
            }
        }
        replay.damaged_padding().into_iter().for_each(&mut tell);
    }
    replay.damaged_padding().into_iter().for_each(&mut tell);
}

/// A frame that is as it was written, by somebody who does not write what we read.
fn unreadable(frame: &Frame) -> Damage {
    Damage {
        segment: "unreadable frame".into(),
        offset: 0,
        bytes: frame.payload.len() as u64,
        lost: frame.first_sequence..frame.first_sequence + u64::from(frame.count),
        kept_in: None,
    }
}

fn has(disk: &dyn Disk, folder: &Path, name: &str) -> Result<bool, Error> {
    let entries = disk.list(folder);
    let entries = entries.map_err(|e| Error::io(format_args!("list the folder {}", folder.display()), e))?;
    Ok(entries.iter().any(|e| e.is_dir && e.name == name))
}

fn kept(disk: &dyn Disk, lane: &Path) -> Result<Vec<Kept>, Error> {
    let mut found = Vec::new();
    for folder in [lane.to_owned(), lane.join(DEAD)] {
        let there = (folder == lane || has(disk, lane, DEAD)?) && has(disk, &folder, DAMAGED)?;
        if !there {
            continue;
        }
        let folder = folder.join(DAMAGED);
        let entries = disk
            .list(&folder)
            .map_err(|e| Error::io(format_args!("list the folder {}", folder.display()), e))?;
        let file = |e: crate::disk::DirEntry| Kept { path: folder.join(e.name), bytes: e.bytes };
        found.extend(entries.into_iter().filter(|e| !e.is_dir).map(file));
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

/// Calls `act` with each whole frame of a log. A segment that cannot be read at present is an error, not damage: what is
/// done next may remove it.
fn each_frame(log: &Log, mut act: impl FnMut(&Frame) -> Result<(), Error>) -> Result<(), Error> {
    let mut replay = log.replay(0);
    while let Some(item) = replay.next() {
        if let Some((path, error)) = replay.take_unread() {
            return Err(Error::io(format_args!("read segment {}", path.display()), error));
        }
        if let Ok(frame) = item {
            act(&frame)?;
        }
    }
    Ok(())
}

/// Removes dead letters before a number, or says why they are still there.
fn forget(log: &Log, before: u64) -> Result<(), Error> {
    log.trim(before)?;
    if log.first_sequence() < before {
        let message = "remove dead letters: the disk does not take the segment that follows them; make room and \
                       try again, some may be lines of the lane already";
        return Err(Error::plain(io::ErrorKind::Other, message.into()));
    }
    Ok(())
}

// ---- by hand ----------------------------------------------------------------------------------------------------

/// What became of dead letters that were put back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Retried {
    /// Letters that are lines of the lane again.
    pub letters: u64,
    /// Letters that are still dead; they have new letter numbers.
    pub left: u64,
}

/// What a person does to a lane that is held by this process.
impl Lane {
    /// Appends dead letters again behind the lane's waiting lines: those with these letter numbers, or all. Durable before
    /// they are forgotten: a crash between makes them come twice. They count as accepted again; the count of dead lines is of
    /// the life of the lane, and stays.
    ///
    /// # Errors
    /// When there is no letter with one of the numbers: then nothing was done. When the disk refuses: then all letters are
    /// still there, and some may be lines of the lane as well.
    pub fn retry_dead(&self, letters: Option<&[u64]>) -> Result<Retried, Error> {
        let wanted = |letter: u64| letters.is_none_or(|l| l.contains(&letter));
        self.with_dead(|log| {
            let mut missing: BTreeSet<u64> = letters.unwrap_or_default().iter().copied().collect();
            each_frame(log, |frame| {
                missing.remove(&frame.first_sequence);
                Ok(())
            })?;
            if let Some(letter) = missing.first() {
                let message =
                    format!("put dead letters back: there is none with number {letter}; look again");
                return Err(Error::plain(io::ErrorKind::InvalidInput, message));
            }
            let mut retried = Retried::default();
            let mut lines = Lines::default();
            each_frame(log, |frame| {
                if let Some(letter) = dead::decode(frame).filter(|l| wanted(l.letter)) {
                    retried.letters += 1;
                    lines.push(&letter.line);
                    if lines.bytes.len() >= RETRY_BYTES {
                        self.append(&lines)?;
                        lines.clear();
                    }
                }
                Ok(())
            })?;
            if retried.letters == 0 {
                return Ok(retried);
            }
            self.append(&lines)?;
            self.sync()?;
            // From here on they are safe in the lane. The others move behind the end, so that whole segments can go.
            self.set_aside_damaged(log)?;
            let end = log.next_sequence();
            log.roll();
            each_frame(log, |frame| {
                // What cannot be read was written by a later version, and stays as it is.
                let again = dead::decode(frame).is_some_and(|l| wanted(l.letter));
                if !again {
                    retried.left += u64::from(frame.count);
                    log.append_with(frame.count, frame.flags, |out| out.extend_from_slice(&frame.payload))?;
                }
                Ok(())
            })?;
            log.sync()?;
            forget(log, end)?;
            Ok(retried)
        })
    }

    /// Copies segments of dead letters in which something is damaged: they are about to be removed.
    fn set_aside_damaged(&self, log: &Log) -> Result<(), Error> {
        let folder = self.folder.join(DEAD);
        let mut before = String::new();
        for damage in log.replay(0).filter_map(Result::err).filter(|d| d.bytes > 0) {
            if std::mem::replace(&mut before, damage.segment.clone()) == damage.segment {
                continue;
            }
            let path = folder.join(&damage.segment);
            let copied = read_all(&*self.disk, &path)
                .and_then(|bytes| copy_damaged(&*self.disk, &folder, &damage.segment, &bytes));
            copied.map_err(|e| Error::io(format_args!("set aside {}", path.display()), e))?;
        }
        Ok(())
    }

    /// Drops all lines that wait, and returns how many; they count as dropped.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn purge_waiting(&self) -> Result<u64, Error> {
        let (first, next) = (self.acknowledged(), self.next_number());
        self.drop_segment((i64::MAX, i64::MAX), next, true, "they were purged")?;
        self.tell_nobody();
        // What could not be removed a moment ago is told.
        self.save_cursor()?;
        Ok(next.saturating_sub(first))
    }

    /// Removes all dead letters, and returns how many there were. The count of dead lines is of the life of the lane, and
    /// stays.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn purge_dead(&self) -> Result<u64, Error> {
        if !has(&*self.disk, &self.folder, DEAD)? {
            return Ok(0);
        }
        self.with_dead(|log| {
            let (first, next) = (log.first_sequence(), log.next_sequence());
            log.roll();
            forget(log, next)?;
            Ok(next - first)
        })
    }

    /// Removes the copies of what was found damaged, and returns what they were.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn purge_damaged(&self) -> Result<Vec<Kept>, Error> {
        let files = kept(&*self.disk, &self.folder)?;
        for file in &files {
            let failed = |e| Error::io(format_args!("remove {}", file.path.display()), e);
            self.disk.remove(&file.path).map_err(failed)?;
        }
        let mut folders: Vec<&Path> = files.iter().filter_map(|f| f.path.parent()).collect();
        folders.dedup();
        for folder in folders {
            let failed = |e| Error::io(format_args!("sync folder {}", folder.display()), e);
            self.disk.sync_dir(folder).map_err(failed)?;
        }
        Ok(files)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::{Call, Fault, IO_ERROR, LaneOptions, Next, READ_ONLY, RealDisk, SimDisk, Spool};
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Instant;

    const SPOOL: &str = "/spool";
    const FOLDER: &str = "/spool/energy";

    struct Dice(u64);

    impl Dice {
        fn below(&mut self, n: usize) -> usize {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            (self.0 >> 11) as usize % n.max(1)
        }
    }

    fn line(i: u64) -> Vec<u8> {
        match i % 5 {
            0 => format!("log text=\"one\ntwo {i}\" {i}\n").into_bytes(),
            _ => format!("power,device=d{} value={}.5 {i}\n", i % 50, i % 1000).into_bytes(),
        }
    }

    fn lines(numbers: std::ops::Range<u64>) -> Lines {
        let mut lines = Lines::default();
        numbers.for_each(|i| lines.push(&line(i)));
        lines
    }

    fn open(disk: &SimDisk) -> Result<Lane, Error> {
        let disk: Arc<dyn Disk> = Arc::new(disk.clone());
        let options =
            LaneOptions::default().segment_bytes(2000).compression(false).keep_free(0).bytes_max(u64::MAX);
        Ok(Spool::open(disk, Path::new(SPOOL))?.lane("energy", options)?.0)
    }

    fn look(disk: &SimDisk) -> Inspection {
        Inspection::open(Arc::new(disk.clone()), Path::new(SPOOL), "energy").unwrap()
    }

    /// Segments of some frames, a cursor in the middle, dead letters.
    fn filled() -> SimDisk {
        let disk = SimDisk::new();
        let lane = open(&disk).unwrap();
        let mut next = 1;
        for n in [7, 30, 1, 12, 80, 3, 3, 60, 9, 25, 25, 25] {
            lane.append(&lines(next..next + n)).unwrap();
            next += n;
        }
        let dead: Vec<Vec<u8>> = (20..30).map(line).collect();
        for (i, line) in dead.iter().enumerate() {
            let number = 20 + i as u64;
            lane.park(&[crate::DeadLine { number, time: 7, reason: "no such field", line }]).unwrap();
        }
        lane.acknowledge(10);
        lane.sync().unwrap();
        lane.save_cursor().unwrap();
        lane.acknowledge(40);
        lane.save_cursor().unwrap();
        disk
    }

    /// Everything a reader gives, and everything it says is lost.
    fn content(mut reader: LaneReader) -> Vec<String> {
        let mut said = Vec::new();
        loop {
            match reader.next(50, 1 << 20).unwrap() {
                Next::End => return said,
                other => said.push(format!("{other:?}")),
            }
        }
    }

    fn files(disk: &SimDisk) -> Vec<(PathBuf, Option<Vec<u8>>)> {
        disk.files().into_iter().map(|p| (p.clone(), disk.bytes(&p))).collect()
    }

    #[test]
    fn whatever_happened_to_a_lane_looking_shows_what_opening_shows_and_changes_nothing() {
        let disk = filled();
        for seed in 1..400u64 {
            let mut dice = Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
            let hurt = disk.after_kill();
            for _ in 0..dice.below(4) {
                let paths: Vec<PathBuf> = hurt
                    .files()
                    .into_iter()
                    .filter(|p| !p.ends_with(LOCK) && p.starts_with(FOLDER))
                    .collect();
                let path = &paths[dice.below(paths.len())];
                let mut bytes = hurt.bytes(path).unwrap();
                let at = dice.below(bytes.len());
                let end = at + dice.below(bytes.len() - at + 1).min(300);
                match dice.below(7) {
                    0 => bytes[at..end].fill(0),
                    1 => bytes[at..end].iter_mut().for_each(|b| *b ^= dice.below(256) as u8),
                    2 => bytes.truncate(at),
                    3 => bytes.extend_from_slice(&[0xF7; 50]),
                    4 => bytes.extend(bytes[at..end].to_vec()),
                    5 => {
                        hurt.delete(path);
                        continue;
                    }
                    _ => {
                        let stranger = path.with_file_name("00000000000000ff.seg");
                        hurt.set_bytes(&stranger, vec![7; dice.below(200)]);
                        continue;
                    }
                }
                hurt.set_bytes(path, bytes);
            }
            let before = files(&hurt);
            let calls =
                [Call::CreateDir, Call::Write, Call::Sync, Call::Truncate, Call::Rename, Call::Remove];
            for call in calls.into_iter().chain([Call::SyncDir, Call::Lock]) {
                hurt.fail(Fault { call: Some(call), after: 0, times: u64::MAX, errno: READ_ONLY });
            }
            let seen = look(&hurt);
            let shown = (seen.stats(), content(seen.reader(seen.stats().first)), content(seen.reader(0)));
            let shown_dead: Vec<DeadLetter> = seen.dead().filter_map(Result::ok).collect();
            let whole = seen.check(|_| {}).unwrap();
            seen.kept().unwrap();
            assert_eq!(files(&hurt), before, "seed {seed}: nothing is changed");
            hurt.heal();
            let lane = open(&hurt).unwrap();
            let there = (lane.stats(), content(lane.reader(lane.acknowledged())), content(lane.reader(0)));
            // What is there now, and not what this process has done.
            let same = |s: &LaneStats| LaneStats {
                bytes_max: 0,
                bytes_left: 0,
                oldest_age: None,
                synced: 0,
                ..s.clone()
            };
            assert_eq!(same(&shown.0), same(&there.0), "seed {seed}");
            assert_eq!((&shown.1, &shown.2), (&there.1, &there.2), "seed {seed}");
            assert_eq!(shown_dead, lane.dead().unwrap(), "seed {seed}");
            if whole.places == 0 && seen.cursor().is_none() {
                let told = there.2.iter().any(|said| said.starts_with("Lost"));
                assert!(whole.lost == 0 && !told, "seed {seed}: what is lost is found");
                let cursor = |disk: &SimDisk| disk.bytes(&Path::new(FOLDER).join(cursor::NAME));
                let settled = cursor(&hurt) == cursor(&disk);
                let after = files(&hurt).into_iter().map(|(p, b)| (p, b.unwrap().len()));
                assert!(
                    !settled || shown.0.waiting == 241,
                    "seed {seed}: {:?} {:?}",
                    shown.0,
                    after.collect::<Vec<_>>()
                );
            }
        }
    }

    #[test]
    fn no_flipped_bit_is_overlooked_and_each_costs_at_most_its_frame() {
        let disk = filled();
        let clean = look(&disk);
        let (first, next) = (clean.oldest(), clean.stats().next);
        let whole = clean.check(|damage| panic!("{damage}")).unwrap();
        assert_eq!((whole.lines, whole.letters, whole.places), (next - first, 10, 0));
        for path in disk.files().into_iter().filter(|p| p.starts_with(FOLDER)) {
            let bytes = disk.bytes(&path).unwrap();
            for i in 0..bytes.len() {
                let hurt = disk.after_kill();
                let mut changed = bytes.clone();
                changed[i] ^= 1 << (i % 8);
                hurt.set_bytes(&path, changed);
                let mut places = Vec::new();
                let checked = look(&hurt).check(|d| places.push(d.clone())).unwrap();
                let context = format!("byte {i} of {}: {places:?}", path.display());
                assert!(checked.places > 0 && checked.places == places.len() as u64, "{context}");
                let gone = whole.lines - checked.lines + whole.letters - checked.letters;
                // Nobody remembers the number of the last letter when its header is gone.
                let last_letter = checked.letters < whole.letters && checked.lost == 0;
                assert!(checked.lost == gone || last_letter, "{context}");
                assert!(checked.lost <= 80, "{context}");
                let name = path.strip_prefix(FOLDER).unwrap().to_str().unwrap();
                assert!(places.iter().all(|p| p.segment == name), "{context}");
                assert!(
                    places.iter().any(|p| (p.offset..p.offset + p.bytes).contains(&(i as u64))),
                    "{context}"
                );
            }
        }
    }

    #[test]
    fn a_sync_that_failed_and_was_made_good_is_no_damage() {
        let disk = SimDisk::new();
        let lane = open(&disk).unwrap();
        lane.append(&lines(1..50)).unwrap();
        lane.sync().unwrap();
        lane.append(&lines(50..60)).unwrap();
        disk.fail(Fault { call: Some(Call::Sync), after: 0, times: 1, errno: IO_ERROR });
        lane.sync().unwrap_err();
        lane.append(&lines(60..70)).unwrap();
        lane.sync().unwrap();
        let checked = look(&disk).check(|damage| panic!("{damage}")).unwrap();
        assert_eq!(checked.lines, 69);
    }

    /// Lines that wait and dead letters, wherever the power went.
    #[test]
    fn letters_that_are_put_back_are_never_lost_whatever_call_fails() {
        for which in [None, Some(&[2u64, 5, 6][..])] {
            let wanted = which.map_or(10, <[u64]>::len) as u64;
            let mut after = 0;
            loop {
                let disk = filled().after_kill();
                let lane = open(&disk).unwrap();
                let before = lane.stats();
                disk.fail(Fault { call: None, after, times: u64::MAX, errno: IO_ERROR });
                let done = lane.retry_dead(which);
                drop(lane);
                for seed in 0..5 {
                    let lane = open(&disk.after_power_cut(seed)).unwrap();
                    let back: BTreeSet<Vec<u8>> = {
                        let mut reader = lane.reader(before.next);
                        let mut back = BTreeSet::new();
                        while let Next::Lines(batch) = reader.next(1, 1).unwrap() {
                            back.insert(batch.bytes);
                        }
                        back
                    };
                    let dead: BTreeSet<Vec<u8>> = lane.dead().unwrap().into_iter().map(|l| l.line).collect();
                    let context = format!("{which:?} {after} {seed}: {done:?}");
                    assert!(
                        (20..30).all(|i| back.contains(&line(i)) || dead.contains(&line(i))),
                        "{context}"
                    );
                    let s = lane.stats();
                    let gone = s.delivered + s.dead + s.dropped + s.damaged;
                    assert_eq!((s.accepted, s.dead), (gone + s.waiting, before.dead), "{context}");
                    if let Ok(retried) = &done {
                        assert_eq!((retried.letters, retried.left), (wanted, 10 - wanted), "{context}");
                        assert_eq!(
                            (back.len(), dead.len()),
                            (wanted as usize, 10 - wanted as usize),
                            "{context}"
                        );
                        assert_eq!(lane.dead().unwrap().len() as u64, 10 - wanted, "{context}");
                        assert_eq!(s.accepted, before.accepted + wanted, "{context}");
                    }
                }
                if done.is_ok() {
                    break;
                }
                after += 1;
            }
            assert!(after > 8, "{after} calls could fail");
        }
        let lane = open(&filled().after_kill()).unwrap();
        let error = lane.retry_dead(Some(&[3, 77])).unwrap_err();
        assert!(error.is_invalid() && error.to_string().contains("77"), "{error}");
        assert_eq!((lane.dead().unwrap().len(), lane.stats().next), (10, 281), "then nothing was done");
    }

    #[test]
    fn what_is_purged_is_counted_and_stays_away() {
        let disk = filled().after_kill();
        let path = disk.files().into_iter().rfind(|p| p.starts_with(format!("{FOLDER}/dead"))).unwrap();
        let mut bytes = disk.bytes(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        disk.set_bytes(&path, bytes);
        let lane = open(&disk).unwrap();
        // The damaged letter is not lost with those that were put back.
        assert_eq!(lane.retry_dead(Some(&[1])).unwrap().letters, 1);
        assert_eq!(lane.dead().unwrap().len(), 8);
        assert_eq!(kept(&disk, Path::new(FOLDER)).unwrap().len(), 1);
        assert_eq!(lane.purge_dead().unwrap(), 8);
        assert_eq!(lane.purge_waiting().unwrap(), 242);
        assert_eq!(lane.purge_damaged().unwrap().len(), 1);
        drop(lane);
        // Without having been asked for the letters, too.
        let lane = open(&disk.after_power_cut(3)).unwrap();
        let s = lane.stats();
        assert_eq!((s.waiting, s.dropped, s.dead, s.accepted), (0, 242, 10, 281));
        assert_eq!((s.delivered, lane.dead().unwrap()), (29, vec![]));
        assert_eq!(lane.append(&lines(1..2)).unwrap().first, 282, "numbers are not given twice");
        assert_eq!(lane.append(&lines(2..3)).unwrap().dropped, None);
    }

    #[test]
    fn letters_are_forgotten_also_by_a_lane_that_was_not_asked_for_them() {
        let lane = open(&filled().after_kill()).unwrap();
        lane.forget_dead(u64::MAX).unwrap();
        assert_eq!(lane.dead().unwrap(), []);
    }

    #[test]
    fn who_asks_for_the_holder_is_in_nobodys_way() {
        let folder = tempfile::tempdir().unwrap();
        let open = || Spool::open(Arc::new(RealDisk), folder.path());
        drop(open().unwrap());
        // The lock as who asks holds it, for much longer.
        let asked = File::open(folder.path().join(LOCK)).unwrap();
        asked.try_lock_shared().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(10));
                drop(asked);
            });
            assert_eq!(holder(folder.path()), Holder::Nobody, "two may ask at once");
            let _held = open().unwrap();
            assert_eq!(holder(folder.path()), Holder::Process(Some(std::process::id())));
            assert!(open().unwrap_err().is_locked());
        });
    }

    #[test]
    fn a_lane_in_use_looks_whole_at_any_moment() {
        let folder = tempfile::tempdir().unwrap();
        let spool = Spool::open(Arc::new(RealDisk), folder.path()).unwrap();
        let options = LaneOptions::default().segment_bytes(100_000).keep_free(0);
        let (lane, _) = spool.lane("energy", options).unwrap();
        lane.append(&lines(1..2)).unwrap();
        let ended = AtomicBool::new(false);
        // Also when a check fails.
        struct Ends<'a>(&'a AtomicBool);
        impl Drop for Ends<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        std::thread::scope(|scope| {
            let _ends = Ends(&ended);
            scope.spawn(|| {
                while !ended.load(Ordering::Relaxed) {
                    let next = lane.next_number();
                    lane.append(&lines(next..next + 1 + next % 3000)).unwrap();
                    lane.acknowledge(next.saturating_sub(5000));
                    lane.save_cursor().unwrap();
                }
            });
            let until = Instant::now() + Duration::from_secs(2);
            let (mut looks, mut seen_lines) = (0, 0);
            while Instant::now() < until {
                let seen = Inspection::open(Arc::new(RealDisk), folder.path(), "energy").unwrap();
                let s = seen.stats();
                assert_eq!((s.dropped, s.damaged), (0, 0));
                assert_eq!(seen.check(|damage| panic!("{damage}")).unwrap().places, 0);
                let mut reader = seen.reader(s.first);
                loop {
                    match reader.next(1000, 1 << 20).unwrap() {
                        Next::Lines(batch) => {
                            for i in 0..batch.len() {
                                assert_eq!(batch.line(i), line(batch.first + i as u64));
                            }
                            seen_lines += batch.len();
                        }
                        Next::Lost(damage) => panic!("{damage}"),
                        Next::End => break,
                    }
                }
                // Or everything that was seen is delivered and gone meanwhile.
                assert!(reader.position() == s.next || lane.acknowledged() > reader.position());
                looks += 1;
                assert_eq!(holder(folder.path()), Holder::Process(Some(std::process::id())));
            }
            assert!(looks > 3 && seen_lines > 0, "{looks} looks at {seen_lines} lines");
        });
        drop((lane, spool));
        assert_eq!(holder(folder.path()), Holder::Nobody);
        assert_eq!(holder(&folder.path().join("none")), Holder::Nobody);
    }
}
