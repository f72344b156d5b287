//! A lane: a queue of lines on disk. Lines are appended at one end, read by any number of readers, acknowledged from the
//! other end, and parked when nobody wants them. It knows neither targets nor what a line means, and has no threads.

use crate::ahead::Ahead;
use crate::cursor::{Cursor, Position, Totals};
use crate::damage_notes::Note;
use crate::dead::{self, DeadLetter, DeadLine};
use crate::disk::{Disk, DiskLock, OpenMode};
use crate::error::Error;
use crate::filling::Filling;
use crate::guard::caught;
use crate::lane_notes::LaneNotes;
use crate::log::{Damage, Follow, Frame, Log, LogOptions, Recovery, SegmentInfo, Step, machine_clock};
use crate::pending::{Former, Pending, line_time, monotonic, newest_of};
use crate::settling::Said;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Log ids: a frame of one kind of log is never taken for one of another.
const LANE_LOG: u64 = u64::from_le_bytes(*b"lane\0\0\0\0");
pub(crate) const DEAD_LOG: u64 = u64::from_le_bytes(*b"dead\0\0\0\0");
/// Folder of a lane's dead letters.
pub(crate) const DEAD: &str = "dead";
/// A frame is begun anew after so many bytes of lines.
const FRAME_BYTES: usize = 64 << 10;
/// The longest line there may be.
pub(crate) const LINE_BYTES_MAX: usize = 8 << 20;
/// The file system is asked for its room at most this often.
const SPACE_EVERY: Duration = Duration::from_secs(1);
/// So many segments at least make up the limit of a lane, unless they would be smaller than this.
const LIMIT_SEGMENTS: u64 = 16;
const SEGMENT_BYTES_MIN: u64 = 64 << 10;
/// Level of the compression: the fastest that keeps what it promises, see `graylogic bench spool`.
const ZSTD_LEVEL: i32 = 1;

/// Of lines that are dropped so many measurements are named, as far as so many bytes of each segment have them; a long name is cut.
const MEASUREMENTS_MAX: usize = 10;
const NAMED_BYTES: usize = 1 << 20;
const NAME_BYTES_MAX: usize = 200;

/// Flags of a frame.
const COMPRESSED: u16 = 1;
const LENGTHS: u16 = 2;

/// What happens when a lane is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WhenFull {
    /// Its oldest lines make room, a whole segment at a time.
    DropOldest,
    /// It takes no more: [`Error::is_full`].
    DropNewest,
    /// It takes no more, and callers that may wait do so until there is room: see [`Queue::when_room`](crate::Queue::when_room).
    /// Those that may not are refused.
    Block,
}

/// Settings of a lane.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LaneOptions {
    segment_bytes: u64,
    compression: bool,
    bytes_max: Option<u64>,
    age_max: Option<Duration>,
    keep_free: Option<u64>,
    dead_bytes_max: u64,
    when_full: WhenFull,
    clock: Option<fn() -> i64>,
    monotonic: fn() -> Duration,
}

impl Default for LaneOptions {
    /// Segments of 8 MiB, compressed; at most 10 GiB or a tenth of the file system, with a twentieth of it or 512 MiB left
    /// free; the oldest lines make room.
    fn default() -> Self {
        Self {
            segment_bytes: 8 << 20,
            compression: true,
            bytes_max: None,
            age_max: None,
            keep_free: None,
            dead_bytes_max: 64 << 20,
            when_full: WhenFull::DropOldest,
            clock: None,
            monotonic,
        }
    }
}

impl LaneOptions {
    /// A new segment is begun when the present one has this many bytes, or a sixteenth of the limit of the lane if that is less
    /// (64 KiB at least).
    #[must_use]
    pub fn segment_bytes(mut self, bytes: u64) -> Self {
        self.segment_bytes = bytes;
        self
    }

    /// Whether frames are compressed.
    #[must_use]
    pub fn compression(mut self, yes: bool) -> Self {
        self.compression = yes;
        self
    }

    /// Most bytes of segments; without it 10 GiB, or a tenth of the file system if that is less.
    #[must_use]
    pub fn bytes_max(mut self, bytes: u64) -> Self {
        self.bytes_max = Some(bytes);
        self
    }

    /// Lines that are older are dropped, a whole segment at a time. The age of a line of this run does not depend on the
    /// system clock. A line of a previous run is older only if the clock said so at opening and says so now, and the run
    /// lasts ten minutes: a clock that steps drops nothing.
    #[must_use]
    pub fn age_max(mut self, age: Duration) -> Self {
        self.age_max = Some(age);
        self
    }

    /// Bytes that others find free on the file system; without it 512 MiB, or a twentieth of it if that is more.
    #[must_use]
    pub fn keep_free(mut self, bytes: u64) -> Self {
        self.keep_free = Some(bytes);
        self
    }

    /// Most bytes of dead letters, 64 MiB without it; then the oldest go, about a mebibyte at a time. Who refused them told
    /// of each.
    #[must_use]
    pub fn dead_bytes_max(mut self, bytes: u64) -> Self {
        self.dead_bytes_max = bytes;
        self
    }

    /// What happens when the lane is full.
    #[must_use]
    pub fn when_full(mut self, what: WhenFull) -> Self {
        self.when_full = what;
        self
    }

    /// Where times come from, in nanoseconds since the epoch. Only the ages of lines of previous runs depend on them.
    #[must_use]
    pub fn clock(mut self, clock: fn() -> i64) -> Self {
        self.clock = Some(clock);
        self
    }

    /// Where the ages of lines of this run come from: a time that only grows, whatever the system clock does.
    #[must_use]
    pub fn monotonic(mut self, time: fn() -> Duration) -> Self {
        self.monotonic = time;
        self
    }
}

/// Lines one after the other, and where each ends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lines {
    /// The lines, each with its line end.
    pub bytes: Vec<u8>,
    /// For each line the place after its last byte.
    pub ends: Vec<u32>,
}

impl Lines {
    /// Room for so many bytes.
    #[must_use]
    pub fn with_capacity(bytes: usize) -> Self {
        Self { bytes: Vec::with_capacity(bytes), ends: Vec::with_capacity(bytes / 32) }
    }

    /// Adds a line, with its line end.
    pub fn push(&mut self, line: &[u8]) {
        self.bytes.extend_from_slice(line);
        self.ends.push(self.bytes.len() as u32);
    }

    /// Forgets all lines, and keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }

    /// The lines from a place on.
    pub(crate) fn after(&self, i: usize) -> Self {
        let start = self.start(i);
        let ends = self.ends[i..].iter().map(|e| e - start as u32).collect();
        Self { bytes: self.bytes[start..].to_vec(), ends }
    }

    fn start(&self, i: usize) -> usize {
        if i == 0 { 0 } else { self.ends[i - 1] as usize }
    }
}

/// Lines read from a lane.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// The number of the first line; those of the others follow.
    pub first: u64,
    /// The lines, each with its line end.
    pub bytes: Vec<u8>,
    /// For each line the place after its last byte.
    pub ends: Vec<u32>,
}

impl Batch {
    /// The line at a place, with its line end.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn line(&self, i: usize) -> &[u8] {
        let from = if i == 0 { 0 } else { self.ends[i - 1] as usize };
        &self.bytes[from..self.ends[i] as usize]
    }

    /// How many lines.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }
}

/// What a reader comes to next.
#[derive(Debug)]
#[non_exhaustive]
pub enum Next {
    /// Lines with consecutive numbers.
    Lines(Batch),
    /// These lines are lost.
    Lost(Damage),
    /// Nothing was appended yet behind what was read.
    End,
}

/// What opening a lane found.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct LaneRecovery {
    /// Lines that wait.
    pub waiting: u64,
    /// Damage seen while opening; readers meet what lies inside.
    pub damage: Vec<Damage>,
    /// What was wrong with the cursor: lines may be delivered again.
    pub cursor: Option<String>,
    /// Numbers of lines that were not settled and whose segments are gone.
    pub gone: std::ops::Range<u64>,
}

/// Where lines went that were appended.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Appended {
    /// The number of the first of them.
    pub first: u64,
    /// How many of them, from the first on: all of them unless the disk refused in the middle.
    pub count: usize,
    /// What made room for them.
    pub dropped: Option<Dropped>,
    /// The lane is nearly full since this append. Told once, and again when it was half empty in between.
    pub nearly_full: Option<NearlyFull>,
}

/// A lane that has used four fifths of the room it may use.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NearlyFull {
    /// Bytes of lines that wait.
    pub waiting_bytes: u64,
    /// So many more may wait.
    pub bytes_left: u64,
    /// At the rate of the last minutes it is full after this time.
    pub full_in: Option<Duration>,
}

impl fmt::Display for NearlyFull {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (waiting, left) = (self.waiting_bytes / 1_000_000, self.bytes_left / 1_000_000);
        write!(f, "{waiting} MB wait in the spool and there is room for {left} MB more")?;
        match self.full_in {
            Some(time) => write!(f, ", which is full in {:.1} hours", time.as_secs_f64() / 3600.0)?,
            None => write!(f, ", and it does not grow")?,
        }
        write!(f, "; mend the target, or give the spool more room")
    }
}

/// Lines that were dropped because a limit was reached.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Dropped {
    /// How many that nobody had yet.
    pub count: u64,
    /// The number of the first, and the number after the last.
    pub numbers: std::ops::Range<u64>,
    /// The oldest of them was appended then or later, in nanoseconds since the epoch by the clock of the lane; `i64::MAX`
    /// when nobody knows.
    pub since: i64,
    /// The newest of them was appended then or earlier.
    pub until: i64,
    /// Measurements of them, up to ten, as far as the first MiB of each segment names them.
    pub measurements: Vec<String>,
    /// Which limit.
    pub why: &'static str,
    /// Lines among these numbers that had gone first: the target has them, and they do not count as dropped.
    pub(crate) settled: u64,
}

impl fmt::Display for Dropped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { count, numbers, measurements, why, .. } = self;
        write!(f, "{count} lines, numbers {} to {}", numbers.start, numbers.end - 1)?;
        if !measurements.is_empty() {
            write!(f, ", of {}", measurements.join(", "))?;
        }
        write!(f, ", were dropped: {why}")
    }
}

/// What a lane holds and has done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LaneStats {
    /// Lines appended in the life of the lane: `delivered + dead + dropped + damaged + waiting`.
    pub accepted: u64,
    /// Lines acknowledged and not counted below.
    pub delivered: u64,
    /// Lines parked.
    pub dead: u64,
    /// Lines dropped because of a limit.
    pub dropped: u64,
    /// Lines lost to damage that a sender came to.
    pub damaged: u64,
    /// Lines that are not acknowledged.
    pub waiting: u64,
    /// Bytes of segments.
    pub bytes: u64,
    /// Most bytes of segments.
    pub bytes_max: u64,
    /// Bytes of segments that hold waiting lines; of the first of them its share.
    pub waiting_bytes: u64,
    /// So many more may wait: as the limit has it, and as the file system has room to spare.
    pub bytes_left: u64,
    /// Four fifths of the room are used.
    pub nearly_full: bool,
    /// At the rate at which `waiting_bytes` grew in the last five minutes the lane is full after this time; `None` when it does
    /// not grow, and in the first ten seconds.
    pub full_in: Option<Duration>,
    /// Segments.
    pub segments: usize,
    /// The number of the first line that waits, and the number the next line gets.
    pub first: u64,
    /// See above.
    pub next: u64,
    /// Lines below this number survive a power cut.
    pub synced: u64,
    /// How long the oldest pending line is pending, to about ten seconds; for a line of a previous run, to about a segment.
    pub oldest_age: Option<Duration>,
    /// Bytes appended since the lane was opened.
    pub bytes_written: u64,
}

/// Nothing is held by who only looks.
#[derive(Debug)]
struct NoLock;

impl DiskLock for NoLock {}

/// One queue of a spool. All methods take `&self`, from any thread.
///
/// An append that returned survives the end of the process, after [`Lane::sync`] a power cut. Whether a line was
/// delivered is known to the cursor, which is saved now and then: after a crash lines may be read again, never lost.
pub struct Lane {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) folder: PathBuf,
    options: LaneOptions,
    pub(crate) log: Arc<Log>,
    dead: Mutex<Option<Log>>,
    state: Mutex<State>,
    saving: Mutex<Cursor>,
    notes: LaneNotes,
    /// Held while any lane of the spool is.
    _lock: Arc<Box<dyn DiskLock>>,
}

#[derive(Debug)]
pub(crate) struct State {
    /// Lines before this number are settled.
    pub(crate) acknowledged: u64,
    /// Lines behind the backlog that went first, while there are two places to read from.
    pub(crate) ahead: Option<Ahead>,
    pub(crate) pending: Pending,
    pub(crate) former: Former,
    totals: Totals,
    /// Bytes of segments, kept while appending, and the limits of the file system when it was asked last.
    limits: Limits,
    /// Lines that were dropped and that no caller heard of.
    untold: Option<Dropped>,
    filling: Filling,
    /// It was told that the lane is nearly full.
    warned: bool,
    /// It is nearly full.
    tight: bool,
    /// What the target acknowledged and may still lose.
    said: Said,
}

#[derive(Clone, Copy, Debug)]
struct Limits {
    bytes_max: u64,
    /// The file system has less room than it should keep.
    tight: bool,
    /// What it had to spare.
    spare: u64,
    asked: Option<Instant>,
}

impl Lane {
    pub(crate) fn open(
        disk: Arc<dyn Disk>,
        folder: &Path,
        options: LaneOptions,
        lock: Arc<Box<dyn DiskLock>>,
    ) -> Result<(Self, LaneRecovery), Error> {
        let opening = |e| Error::io(format_args!("open the lane in {}", folder.display()), e);
        disk.create_dir_all(folder).map_err(opening)?;
        let (mut cursor, position, trouble) =
            Cursor::open(&disk, folder, OpenMode::ReadWrite).map_err(opening)?;
        // A disk without room for it now may have some later.
        let _tried_again_when_saved = cursor.prepare(&disk, folder);
        let mut log_options = LogOptions::new(LANE_LOG)
            .segment_bytes(segment_bytes(&*disk, folder, &options))
            .first_sequence(position.number.max(position.given));
        if let Some(clock) = options.clock {
            log_options = log_options.clock(clock);
        }
        let (log, recovery) = Log::open(disk.clone(), folder, log_options)?;
        let (lane, found) =
            Self::with(disk, folder, options, (log, recovery), (cursor, position, trouble), lock);
        found.damage.iter().for_each(|damage| lane.notes.add("lines", damage));
        if !found.gone.is_empty() {
            lane.notes.add_lost("lines", found.gone.clone(), "their segments are gone");
        }
        Ok((lane, found))
    }

    /// A lane that somebody else may hold, as it is at this moment: only to be read. Nothing is written.
    pub(crate) fn look(disk: Arc<dyn Disk>, folder: &Path) -> Result<(Self, LaneRecovery), Error> {
        let reading = |e| Error::io(format_args!("read the lane in {}", folder.display()), e);
        let cursor = || Cursor::open(&disk, folder, OpenMode::Read).map_err(reading);
        let mut saved = cursor()?;
        let log = loop {
            let position = saved.1;
            let options = LogOptions::new(LANE_LOG).first_sequence(position.number.max(position.given));
            let log = Log::look(disk.clone(), folder, options)?;
            if log.0.first_sequence() <= position.number {
                break log;
            }
            // Lines are gone without a trace, or were settled and trimmed since the cursor was read: then it was saved.
            saved = cursor()?;
            if saved.1 == position {
                break log;
            }
        };
        Ok(Self::with(disk.clone(), folder, LaneOptions::default(), log, saved, Arc::new(Box::new(NoLock))))
    }

    fn with(
        disk: Arc<dyn Disk>,
        folder: &Path,
        options: LaneOptions,
        (log, recovery): (Log, Recovery),
        (cursor, position, trouble): (Cursor, Position, Option<String>),
        lock: Arc<Box<dyn DiskLock>>,
    ) -> (Self, LaneRecovery) {
        // Segments are the only truth. What is before the first of them is settled, whatever the cursor says; a lane whose
        // segments are all gone goes on behind the cursor.
        let acknowledged = position.number.max(log.first_sequence()).min(log.next_sequence());
        let mut totals = position.totals;
        totals.count_gap(position.number, acknowledged);
        // Without a cursor nobody knows what was settled before the first segment.
        let has_cursor = cursor.is_saved() && trouble.is_none();
        let gone = if has_cursor { position.number..acknowledged.max(position.number) } else { 0..0 };
        let mut found = LaneRecovery {
            waiting: log.next_sequence() - acknowledged,
            damage: recovery.damage,
            cursor: trouble,
            gone: gone.clone(),
        };
        if !gone.is_empty() {
            found.cursor =
                Some(format!("lines {} to {} are gone with their segments", gone.start, gone.end - 1));
        }
        let limits = Limits { bytes_max: u64::MAX, tight: false, spare: u64::MAX, asked: None };
        let notes = LaneNotes::open(&disk, folder);
        let former = Former {
            end: log.next_sequence(),
            scanned: acknowledged,
            newest: i64::MIN,
            created: log.segments().iter().map(|s| (s.first_sequence, s.created)).collect(),
            opened: options.clock.unwrap_or(machine_clock)(),
            opened_monotonic: (options.monotonic)(),
        };
        let state = State {
            acknowledged,
            ahead: None,
            pending: Pending::default(),
            former,
            totals,
            limits,
            untold: None,
            filling: Filling::default(),
            warned: false,
            tight: false,
            // As far as segments hold the lines; of a cursor that cannot be believed there is none.
            said: Said { before: position.said.before.min(log.next_sequence()), ..position.said },
        };
        let lane = Self {
            disk,
            folder: folder.to_owned(),
            notes,
            options,
            log: Arc::new(log),
            dead: Mutex::new(None),
            state: Mutex::new(state),
            saving: Mutex::new(cursor),
            _lock: lock,
        };
        lane.limits();
        (lane, found)
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        // Fields change together between calls that may fail: a panic elsewhere leaves them whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends lines, as many as the disk takes, and returns where they went. When it refuses in the middle, [`Appended::count`]
    /// says how many are in the lane; the rest is for another call.
    ///
    /// # Errors
    /// [`Error::is_full`] when the lane takes no more; [`Error::is_invalid`] when the first line is above 8 MiB; otherwise the
    /// disk refused. Then none of these lines is read back, but for what a crash may find on the disk.
    pub fn append(&self, lines: &Lines) -> Result<Appended, Error> {
        let next = self.log.next_sequence();
        if lines.ends.is_empty() {
            return Ok(Appended { first: next, count: 0, dropped: None, nearly_full: None });
        }
        self.make_room(lines.bytes.len() as u64)?;
        let mut first = None;
        let mut from = 0;
        while from < lines.ends.len() {
            let start = lines.start(from);
            let fits = lines.ends[from..].partition_point(|&e| e as usize - start <= FRAME_BYTES);
            let to = from + fits.max(1);
            let bytes = &lines.bytes[start..lines.ends[to - 1] as usize];
            // What was appended before a panic is known here and nowhere else.
            let appended = caught(|| self.append_frame(bytes, start, &lines.ends[from..to]))
                .unwrap_or_else(|panic| Err(Error::panicked("append to the spool", &panic)));
            match appended {
                Ok(number) => first = first.or(Some(number)),
                // The caller meets the error with the rest.
                Err(_) if first.is_some() => break,
                Err(error) => return Err(error),
            }
            from = to;
        }
        // Also what earlier calls dropped that failed afterwards.
        let dropped = self.take_dropped();
        Ok(Appended {
            first: first.unwrap_or_default(),
            count: from,
            dropped,
            nearly_full: self.watch_filling(),
        })
    }

    /// What calls of [`Lane::append`] dropped that failed afterwards, when no later one has told of it.
    pub fn take_dropped(&self) -> Option<Dropped> {
        self.state().untold.take()
    }

    fn append_frame(&self, bytes: &[u8], start: usize, ends: &[u32]) -> Result<u64, Error> {
        if bytes.len() > LINE_BYTES_MAX {
            let message = format!("append to the spool: a line of {} bytes; shorten it", bytes.len());
            return Err(Error::plain(io::ErrorKind::InvalidInput, message));
        }
        let (flags, payload) = encode_frame(bytes, start, ends, self.options.compression);
        let newest = newest_of(bytes, start, ends);
        let first = self.log.append_with(ends.len() as u32, flags, |out| out.extend_from_slice(&payload))?;
        self.state().pending.add(first, newest, (self.options.monotonic)());
        Ok(first)
    }

    /// Returns when everything appended before the call survives a power cut, with the first number that may not.
    ///
    /// # Errors
    /// When the disk refuses; the next call writes again what this one should have covered.
    pub fn sync(&self) -> Result<u64, Error> {
        self.log.sync()
    }

    /// From now on somebody syncs again and again, and makes segments ahead: no append waits for a sync.
    pub(crate) fn make_segments_ahead(&self) {
        // A disk without room for one now may have some later.
        let _tried_again = self.log.make_segments_ahead();
    }

    /// Whether the next segment is not made yet: see [`Lane::prepare`].
    pub(crate) fn needs_segment(&self) -> bool {
        self.log.needs_spare()
    }

    /// Makes the next segment, so that no append waits for one.
    pub(crate) fn prepare(&self) -> Result<(), Error> {
        self.log.prepare()
    }

    /// Lines from number `from` on; follows what is appended.
    #[must_use]
    pub fn reader(&self, from: u64) -> LaneReader {
        let from = from.max(self.log.first_sequence());
        LaneReader { follow: Follow::new(self.log.clone(), from), position: from, frame: None }
    }

    /// The number the next line gets.
    #[must_use]
    pub fn next_number(&self) -> u64 {
        self.log.next_sequence()
    }

    /// Lines before this number are settled.
    #[must_use]
    pub fn acknowledged(&self) -> u64 {
        self.state().acknowledged
    }

    /// Says that the lines before a number are settled: delivered, or parked. Only forwards; in memory until
    /// [`Lane::save_cursor`]. Returns how many of them were not settled before: those that were dropped meanwhile are
    /// counted there.
    pub fn acknowledge(&self, before: u64) -> u64 {
        self.settle_prefix(before).lines
    }

    /// What the target acknowledged and may still lose, as the cursor keeps it.
    pub(crate) fn said_before(&self) -> Said {
        self.state().said
    }

    /// Sets what the cursor keeps of that.
    pub(crate) fn said(&self, said: Said) {
        self.state().said = said;
    }

    /// Whether the last append left the lane nearly full.
    pub(crate) fn is_tight(&self) -> bool {
        self.state().tight
    }

    /// Says that so many lines before the acknowledged number were lost to damage.
    pub fn count_damaged(&self, lines: u64) {
        self.state().totals.damaged += lines;
    }

    /// Keeps damage that a reader came to until it is settled: see [`Lane::unsettled`].
    pub fn note_damage(&self, damage: &Damage) {
        self.notes.add("lines", damage);
    }

    /// Damage that was found in this run or an earlier one and is not settled.
    #[must_use]
    pub fn unsettled(&self) -> Vec<Note> {
        self.notes.unsettled()
    }

    /// Makes the acknowledged number durable and removes the segments before it. Call it once a second or so.
    ///
    /// # Errors
    /// When the disk refuses; nothing was removed that a saved cursor does not cover.
    pub fn save_cursor(&self) -> Result<(), Error> {
        // Asked for before the state is locked: the log answers when the disk does, and nobody who acknowledges waits for
        // that.
        let given = self.log.synced();
        let position = {
            let state = self.state();
            // What is not synced a power cut may take, and its numbers are given again.
            let said = Said { before: state.said.before.min(given), ..state.said };
            Position { number: state.acknowledged, given, totals: state.totals, said }
        };
        let save = || {
            let mut cursor = self.saving.lock().unwrap_or_else(PoisonError::into_inner);
            cursor.save(&self.disk, &self.folder, position).map_err(|e| {
                Error::io(format_args!("save the cursor of the lane in {}", self.folder.display()), e)
            })
        };
        match save() {
            Ok(()) => self.log.trim(position.number).map(|_| ()),
            // Freeing must not need room: what is before the first segment counts as settled without a cursor.
            Err(error) if error.is_no_space() => {
                self.log.trim(position.number)?;
                save()
            }
            Err(error) => Err(error),
        }
    }

    /// Keeps lines that the target refused for good among the dead letters, durable when it returns. Acknowledge them
    /// afterwards.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn park(&self, lines: &[DeadLine<'_>]) -> Result<(), Error> {
        if lines.is_empty() {
            return Ok(());
        }
        self.with_dead(|log| {
            dead::append(log, lines)?;
            log.sync()?;
            let segments = log.segments();
            let mut bytes: u64 = segments.iter().map(|s| s.bytes).sum();
            let too_many = |s: &&SegmentInfo| {
                let over = bytes > self.options.dead_bytes_max;
                bytes -= s.bytes;
                over
            };
            let gone = segments.iter().take_while(too_many).count().min(segments.len() - 1);
            if gone > 0 { log.trim(segments[gone].first_sequence).map(|_| ()) } else { Ok(()) }
        })?;
        self.count_dead(lines.len() as u64);
        Ok(())
    }

    /// Says that so many lines were refused for good whose letters could not be kept.
    pub fn count_dead(&self, lines: u64) {
        self.state().totals.dead += lines;
    }

    /// The dead letters, oldest first, with the damage between them.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn dead(&self) -> Result<Vec<DeadLetter>, Error> {
        self.with_dead(|log| Ok(dead::letters(log.replay(0))))
    }

    /// Forgets dead letters whose own number is below `before`: after they were looked at, or appended again. Letters of
    /// the segment in which later ones begin stay.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn forget_dead(&self, before: u64) -> Result<(), Error> {
        self.with_dead(|log| {
            if before >= log.next_sequence() {
                log.roll();
            }
            log.trim(before).map(|_| ())
        })
    }

    /// The log of dead letters, opened when it is needed first.
    pub(crate) fn with_dead<T>(&self, act: impl FnOnce(&Log) -> Result<T, Error>) -> Result<T, Error> {
        let mut dead = self.dead.lock().unwrap_or_else(PoisonError::into_inner);
        let log = match dead.take() {
            Some(log) => log,
            None => dead::open(&self.disk, &self.folder.join(DEAD), DEAD_LOG)?,
        };
        act(dead.insert(log))
    }

    /// What the lane holds and has done.
    #[must_use]
    pub fn stats(&self) -> LaneStats {
        self.stats_of(&self.log.segments(), self.log.synced(), self.log.stats().bytes_written)
    }

    /// [`Lane::stats`], or `None` when a disk that does not answer keeps the lane from saying so for that long.
    #[must_use]
    pub fn stats_within(&self, time: Duration) -> Option<LaneStats> {
        let (segments, synced, stats) = self.log.seen_within(time)?;
        Some(self.stats_of(&segments, synced, stats.bytes_written))
    }

    fn stats_of(&self, segments: &[SegmentInfo], synced: u64, bytes_written: u64) -> LaneStats {
        let mut state = self.state();
        // Asked for last: what is settled by then was appended before.
        let next = self.log.next_sequence();
        let level = state.level(segments);
        let totals = state.totals;
        let ahead = state.ahead.as_ref().map_or(0, Ahead::settled);
        let settled = state.acknowledged - 1 + ahead;
        let oldest_age = self.oldest_age(&state, next);
        LaneStats {
            accepted: next - 1,
            delivered: settled.saturating_sub(totals.dead + totals.dropped + totals.damaged),
            dead: totals.dead,
            dropped: totals.dropped,
            damaged: totals.damaged,
            waiting: next - state.acknowledged - ahead,
            bytes: segments.iter().map(|s| s.bytes).sum(),
            bytes_max: state.limits.bytes_max,
            waiting_bytes: level.waiting_bytes,
            bytes_left: level.bytes_left,
            nearly_full: is_nearly_full(&level),
            full_in: level.full_in,
            segments: segments.len(),
            first: state.acknowledged,
            next,
            synced,
            oldest_age,
            bytes_written,
        }
    }

    /// How long the oldest pending line is pending.
    fn oldest_age(&self, state: &State, next: u64) -> Option<Duration> {
        let now = (self.options.monotonic)();
        match state.acknowledged {
            number if number >= next => None,
            number if number < state.former.end => state.former.age(number, now),
            number => state.pending.since(number).map(|since| now.saturating_sub(since)),
        }
    }

    /// The oldest pending line is pending at least so long, as far as clocks and timestamps can be believed.
    ///
    /// Nothing notes when a line of a previous run was appended. Its timestamp says about when, and its segment says that it
    /// was no earlier.
    pub(crate) fn oldest_age_at_least(&self) -> Duration {
        let now = (self.options.monotonic)();
        let (number, known, segment) = {
            let state = self.state();
            let number = state.acknowledged;
            if number >= state.former.end {
                let since = state.pending.since(number);
                return since.map_or(Duration::ZERO, |since| now.saturating_sub(since));
            }
            (number, state.former.age_at_least(number, now), state.former.age(number, now))
        };
        let first = match self.reader(number).next(1, LINE_BYTES_MAX) {
            Ok(Next::Lines(batch)) if !batch.is_empty() => line_time(batch.line(0)),
            _ => None,
        };
        let by_line = first.map(|time| u64::try_from(self.now().saturating_sub(time)).unwrap_or(0));
        let by_line = by_line.map(Duration::from_nanos).zip(segment).map(|(line, segment)| line.min(segment));
        known.max(by_line.unwrap_or_default())
    }

    fn now(&self) -> i64 {
        self.options.clock.unwrap_or(machine_clock)()
    }

    // ---- limits -------------------------------------------------------------------------------------------------

    /// Drops what is too old or too much, or says that the lane is full.
    fn make_room(&self, coming: u64) -> Result<(), Error> {
        let limits = self.limits();
        // The next segment is there, or may be made here: the last one may be closed.
        let can_roll = !self.log.is_ahead() || !self.log.needs_spare();
        loop {
            let segments = self.log.segments();
            let Some(oldest) = segments.first() else { return Ok(()) };
            let much = self.counted_bytes(&segments).saturating_add(coming) > limits.bytes_max;
            let (why, old) = if self.is_too_old(segments.get(1)) {
                ("they waited too long", true)
            } else if (much || limits.tight) && self.acknowledged() >= self.log.next_sequence() {
                // Nothing is pending. What is settled makes room without loss, the last segment too once another follows.
                if self.holds_lines() && can_roll {
                    self.log.roll();
                    let _tried_again_when_saved = self.let_go();
                }
                return Ok(());
            } else if much && self.holds_lines() {
                ("the spool has reached its size", false)
            } else if limits.tight && self.holds_lines() {
                ("the disk is nearly full", false)
            } else {
                return Ok(());
            };
            if !old && self.options.when_full != WhenFull::DropOldest {
                // Segments that are settled make room without loss.
                if self.let_go().is_ok()
                    && self.log.segments().first().map(|s| s.first_sequence) > Some(oldest.first_sequence)
                {
                    continue;
                }
                let message =
                    format!("{why}, and drops nothing; mend the target, or give the spool more room");
                return Err(Error::plain(io::ErrorKind::QuotaExceeded, message).full());
            }
            if segments.len() == 1 && !can_roll {
                // The limit is exceeded while a sync hangs rather than any line waiting for it.
                return Ok(());
            }
            let end = segments.get(1).map_or(self.log.next_sequence(), |s| s.first_sequence);
            let until = segments.get(1).map_or_else(|| self.now(), |s| s.created);
            self.drop_segment((oldest.created, until), end, segments.len() == 1, why)?;
            let freed = self.log.segments().len() < segments.len();
            if !freed || segments.len() == 1 || (limits.tight && !much) {
                // A segment whose last sync failed stays until one succeeds; the last one is begun anew; a disk that
                // others fill is asked again later. The limit is exceeded meanwhile rather than anything refused.
                return Ok(());
            }
        }
    }

    /// Whether a segment is too old: the next one was begun too long ago.
    fn is_too_old(&self, next: Option<&SegmentInfo>) -> bool {
        let Some((next, limit)) = next.zip(self.options.age_max) else { return false };
        let (state, now) = (self.state(), (self.options.monotonic)());
        match next.first_sequence <= state.former.end {
            true => state.former.is_older(next.created, limit, self.now(), now),
            false => state.pending.is_older(next.first_sequence, limit, now),
        }
    }

    /// Bytes of segments as the limit counts them: without lines that the target has, also those that went first. An oldest segment
    /// that is larger than segments are made now, because the limit was, counts as one of those: else it would cost more lines
    /// than the limit asks for.
    fn counted_bytes(&self, segments: &[SegmentInfo]) -> u64 {
        let state = self.state();
        let held = |s: &SegmentInfo| match s.end_sequence <= state.acknowledged {
            // Removed when the cursor is saved.
            true => 0,
            false => s.bytes - went_first_bytes(state.ahead.as_ref(), s),
        };
        let oldest = segments.iter().find(|s| s.end_sequence > state.acknowledged);
        let excess = oldest.map_or(0, |s| held(s).saturating_sub(self.log.segment_bytes()));
        let excess = excess.min(state.limits.bytes_max);
        segments.iter().map(held).sum::<u64>() - excess
    }

    fn holds_lines(&self) -> bool {
        self.log.segments().iter().any(|s| s.bytes > 64)
    }

    pub(crate) fn drop_segment(
        &self,
        (since, until): (i64, i64),
        end: u64,
        only: bool,
        why: &'static str,
    ) -> Result<(), Error> {
        let measurements = self.measurements(self.acknowledged(), end);
        {
            let mut state = self.state();
            let numbers = state.acknowledged..end.max(state.acknowledged);
            let settled = state.ahead.as_mut().map_or(0, |ahead| ahead.pass(numbers.start, numbers.end));
            let count = numbers.end - numbers.start - settled;
            state.totals.dropped += count;
            state.acknowledged = numbers.end;
            state.pending.settle(numbers.end);
            if !numbers.is_empty() {
                let dropped = Dropped { count, numbers, settled, since, until, measurements, why };
                state.untold = Some(match state.untold.take() {
                    Some(before) => before.and(dropped),
                    None => dropped,
                });
            }
        }
        if only {
            self.log.roll();
        }
        self.let_go()
    }

    /// Removes segments that are settled, and waits for no sync: the cursor is written, and durable with the next save. One
    /// that is behind the segments is allowed, and makes lines go out again.
    fn let_go(&self) -> Result<(), Error> {
        if !self.log.is_ahead() {
            // Nobody else saves the cursor. One that cannot be saved is behind the segments, which is allowed.
            return match self.save_cursor() {
                Ok(()) => Ok(()),
                Err(_) => self.log.trim(self.acknowledged()).map(|_| ()),
            };
        }
        let position = {
            let state = self.state();
            let given = self.log.synced_last();
            let said = Said { before: state.said.before.min(given), ..state.said };
            Position { number: state.acknowledged, given, totals: state.totals, said }
        };
        // Whoever holds it saves the cursor at this moment.
        if let Ok(mut cursor) = self.saving.try_lock() {
            let _behind = cursor.note(position);
        }
        self.log.let_go(position.number).map(|_| ())
    }

    /// What the lines of a segment that goes are about. A segment that cannot be read goes all the same.
    fn measurements(&self, from: u64, end: u64) -> Vec<String> {
        let mut names = Vec::new();
        let mut reader = self.reader(from);
        let mut bytes = 0;
        // A step is a frame, or a place that is damaged.
        for _step in 0..NAMED_BYTES / FRAME_BYTES {
            if reader.position() >= end || names.len() == MEASUREMENTS_MAX || bytes >= NAMED_BYTES {
                break;
            }
            match reader.next(usize::MAX, FRAME_BYTES) {
                Ok(Next::Lines(batch)) => {
                    bytes += batch.bytes.len();
                    let lines = (0..batch.len()).take_while(|&i| batch.first + (i as u64) < end);
                    lines.for_each(|i| add_name(&mut names, measurement(batch.line(i))));
                }
                Ok(Next::Lost(_)) => {}
                Ok(Next::End) | Err(_) => break,
            }
        }
        names
    }

    /// Whether the lane is nearly full since now.
    fn watch_filling(&self) -> Option<NearlyFull> {
        let segments = self.log.segments();
        let mut state = self.state();
        let level = state.level(&segments);
        if level.waiting_bytes < level.bytes_left {
            state.warned = false;
        }
        state.tight = is_nearly_full(&level);
        let news = state.tight && !state.warned;
        state.warned |= news;
        news.then_some(level)
    }

    /// Forgets what would be told of dropped lines: whoever dropped them knows.
    pub(crate) fn tell_nobody(&self) {
        self.state().untold = None;
    }

    /// The limits as the file system has them now; it is asked once a second.
    fn limits(&self) -> Limits {
        let mut limits = self.state().limits;
        if limits.asked.is_some_and(|t| t.elapsed() < SPACE_EVERY) {
            return limits;
        }
        limits.asked = Some(Instant::now());
        match self.disk.space(&self.folder) {
            Ok(space) => {
                let keep_free =
                    self.options.keep_free.unwrap_or_else(|| (space.total_bytes / 20).max(512 << 20));
                limits.tight = space.available_bytes < keep_free;
                limits.spare = space.available_bytes.saturating_sub(keep_free);
                let most = (10 << 30).min(space.total_bytes / 10);
                limits.bytes_max = self.options.bytes_max.unwrap_or(most);
            }
            // A file system that does not say is not limited by itself.
            Err(_) => limits.bytes_max = self.options.bytes_max.unwrap_or(10 << 30),
        }
        self.state().limits = limits;
        limits
    }
}

impl State {
    fn level(&mut self, segments: &[SegmentInfo]) -> NearlyFull {
        let waiting = |s: &SegmentInfo| {
            let all = s.end_sequence.saturating_sub(s.first_sequence).max(1);
            let rest = s.end_sequence.saturating_sub(self.acknowledged.max(s.first_sequence));
            let rest = (u128::from(s.bytes) * u128::from(rest) / u128::from(all)) as u64;
            rest.saturating_sub(went_first_bytes(self.ahead.as_ref(), s))
        };
        let waiting_bytes = segments.iter().map(waiting).sum();
        let bytes_left = self.limits.bytes_max.saturating_sub(waiting_bytes).min(self.limits.spare);
        let now = Instant::now();
        self.filling.add(now, waiting_bytes);
        NearlyFull {
            waiting_bytes,
            bytes_left,
            full_in: self.filling.full_in(now, waiting_bytes, bytes_left),
        }
    }
}

/// Bytes of a segment that are lines which went first, if they are spread evenly.
fn went_first_bytes(ahead: Option<&Ahead>, segment: &SegmentInfo) -> u64 {
    ahead.map_or(0, |a| a.bytes_of(&(segment.first_sequence..segment.end_sequence), segment.bytes))
}

fn is_nearly_full(level: &NearlyFull) -> bool {
    level.waiting_bytes / 4 >= level.bytes_left
}

impl Dropped {
    fn and(mut self, later: Self) -> Self {
        later.measurements.into_iter().for_each(|name| add_name(&mut self.measurements, name));
        let numbers = self.numbers.start..later.numbers.end;
        let (since, until) = (self.since.min(later.since), self.until.max(later.until));
        let settled = self.settled + later.settled;
        Self { count: self.count + later.count, numbers, settled, since, until, ..self }
    }
}

fn add_name(names: &mut Vec<String>, name: String) {
    if names.len() < MEASUREMENTS_MAX && !names.contains(&name) {
        names.push(name);
    }
}

/// The measurement of a line: what is before the first comma or space that no backslash stands before.
fn measurement(line: &[u8]) -> String {
    let mut name = Vec::new();
    let mut bytes = line.iter().copied().peekable();
    while let Some(byte) = bytes.next().filter(|b| !b", \n".contains(b)) {
        let escaped = (byte == b'\\').then(|| bytes.next_if(|b| b", =".contains(b))).flatten();
        name.push(escaped.unwrap_or(byte));
        if name.len() == NAME_BYTES_MAX {
            break;
        }
    }
    String::from_utf8_lossy(&name).into_owned()
}

impl fmt::Debug for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lane").field("folder", &self.folder).finish_non_exhaustive()
    }
}

/// Reads the lines of a lane in their order, also while they are appended and trimmed.
#[derive(Debug)]
pub struct LaneReader {
    follow: Follow,
    /// The number of the next line.
    position: u64,
    /// The frame that was begun, and how many of its lines were given.
    frame: Option<(Batch, usize)>,
}

impl LaneReader {
    /// The number of the next line it gives, when none is lost.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.position
    }

    /// This reader, or one from a number on that it has not come to.
    pub(crate) fn or_from(self, lane: &Lane, from: u64) -> Self {
        if self.position >= from { self } else { lane.reader(from) }
    }

    /// The next lines: at most so many lines and bytes, but at least one.
    ///
    /// # Errors
    /// When the disk refuses; the next call tries again.
    pub fn next(&mut self, lines_max: usize, bytes_max: usize) -> Result<Next, Error> {
        let mut batch = Batch { first: self.position, ..Batch::default() };
        loop {
            if let Some((frame, given)) = &mut self.frame {
                let from = if *given == 0 { 0 } else { frame.ends[*given - 1] as usize };
                let room = bytes_max.saturating_sub(batch.bytes.len());
                let ends = &frame.ends[*given..];
                let fits = ends.partition_point(|&e| e as usize - from <= room);
                let fits = if batch.is_empty() { fits.max(1) } else { fits };
                let count = fits.min(lines_max.max(1) - batch.len()).min(ends.len());
                if count > 0 {
                    let start = batch.bytes.len() as u32;
                    let to = ends[count - 1] as usize;
                    batch.bytes.extend_from_slice(&frame.bytes[from..to]);
                    batch.ends.extend(ends[..count].iter().map(|e| e - from as u32 + start));
                    *given += count;
                    self.position += count as u64;
                }
                if *given < frame.ends.len() {
                    return Ok(Next::Lines(batch));
                }
                self.frame = None;
            }
            if batch.len() >= lines_max.max(1) || batch.bytes.len() >= bytes_max {
                return Ok(Next::Lines(batch));
            }
            // A batch never goes over a gap: what comes after one waits for the next call.
            match self.follow.step() {
                Ok(Step::Frame(frame)) => {
                    let skipped = self.position.saturating_sub(frame.first_sequence) as usize;
                    match decode_frame(&frame) {
                        Some(lines) => self.frame = Some((lines, skipped)),
                        None => {
                            let lost = self.position..frame.first_sequence + u64::from(frame.count);
                            self.position = lost.end;
                            let damage = Damage {
                                segment: "unreadable frame".into(),
                                offset: 0,
                                bytes: frame.payload.len() as u64,
                                lost,
                                kept_in: None,
                            };
                            return self.after(batch, damage);
                        }
                    }
                }
                Ok(Step::Lost(damage)) if damage.lost.end <= self.position => {}
                Ok(Step::Lost(mut damage)) => {
                    damage.lost.start = damage.lost.start.max(self.position);
                    return self.after(batch, damage);
                }
                Ok(Step::End) if batch.is_empty() => {
                    self.position = self.position.max(self.follow.position());
                    return Ok(Next::End);
                }
                Err(error) if batch.is_empty() => return Err(error),
                Ok(Step::End) | Err(_) => return Ok(Next::Lines(batch)),
            }
            if batch.is_empty() {
                // Lines before were trimmed.
                if let Some((frame, given)) = &self.frame {
                    self.position = frame.first + *given as u64;
                }
                batch.first = self.position;
            }
        }
    }

    /// Lines that were lost behind a batch are told with the next call.
    fn after(&mut self, batch: Batch, damage: Damage) -> Result<Next, Error> {
        if batch.is_empty() {
            self.position = self.position.max(damage.lost.end);
            return Ok(Next::Lost(damage));
        }
        self.position = damage.lost.start;
        self.follow.go_back(damage);
        Ok(Next::Lines(batch))
    }
}

/// Bytes of a segment: a sixteenth of the limit at most, so that a full lane drops few lines at a time.
fn segment_bytes(disk: &dyn Disk, folder: &Path, options: &LaneOptions) -> u64 {
    let most = options.bytes_max.or_else(|| Some(disk.space(folder).ok()?.total_bytes / 10));
    options.segment_bytes.min((most.unwrap_or(u64::MAX) / LIMIT_SEGMENTS).max(SEGMENT_BYTES_MIN))
}

// ---- frames -----------------------------------------------------------------------------------------------------

/// The payload of a frame of lines whose first byte is at `start` of where the ends are counted from, and its flags.
fn encode_frame(bytes: &[u8], start: usize, ends: &[u32], compress: bool) -> (u16, Vec<u8>) {
    let mut flags = 0;
    let mut payload = Vec::with_capacity(bytes.len() + 16);
    // Line ends that are the only line feeds need not be told.
    if memchr::memchr_iter(b'\n', bytes).count() != ends.len() {
        flags |= LENGTHS;
        let mut before = start;
        for &end in ends {
            payload.extend_from_slice(&(end - before as u32).to_le_bytes());
            before = end as usize;
        }
    }
    payload.extend_from_slice(bytes);
    if compress
        && let Ok(small) = zstd::bulk::compress(&payload, ZSTD_LEVEL)
        && small.len() + 4 < payload.len()
    {
        let mut packed = Vec::with_capacity(small.len() + 4);
        packed.extend_from_slice(&(payload.len() as u32).to_le_bytes());
        packed.extend_from_slice(&small);
        return (flags | COMPRESSED, packed);
    }
    (flags, payload)
}

/// The lines of a frame; `None` when it is none of a lane's.
pub(crate) fn decode_frame(frame: &Frame) -> Option<Batch> {
    let mut payload = std::borrow::Cow::Borrowed(&frame.payload[..]);
    if frame.flags & COMPRESSED != 0 {
        let length = u32::from_le_bytes(*payload.first_chunk()?) as usize;
        if length > LINE_BYTES_MAX + FRAME_BYTES * 5 {
            return None;
        }
        let plain = zstd::bulk::decompress(&payload[4..], length).ok().filter(|p| p.len() == length)?;
        payload = plain.into();
    }
    let count = frame.count as usize;
    let mut ends = Vec::with_capacity(count.min(payload.len()));
    let mut bytes = payload.into_owned();
    if frame.flags & LENGTHS != 0 {
        let table = count.checked_mul(4).filter(|&n| n <= bytes.len())?;
        let mut end = 0u32;
        for length in bytes[..table].as_chunks::<4>().0 {
            end = end.checked_add(u32::from_le_bytes(*length))?;
            ends.push(end);
        }
        bytes.drain(..table);
    } else {
        ends.extend(memchr::memchr_iter(b'\n', &bytes).map(|i| i as u32 + 1));
    }
    let good = ends.len() == count && ends.last().copied() == Some(bytes.len() as u32);
    good.then_some(Batch { first: frame.first_sequence, bytes, ends })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(flags: u16, count: u32, payload: Vec<u8>) -> Frame {
        Frame { first_sequence: 1, count, flags, payload }
    }

    #[test]
    fn a_payload_gives_the_lines_it_was_made_of_and_a_changed_one_whole_lines_or_none() {
        let text = b"a b=1\nlog t=\"one\ntwo\" 5\na b=2\n";
        for (bytes, ends) in
            [(&text[..6], &[6u32][..]), (&text[..], &[6, 24, 30]), (&text[..], &[6, 17, 24, 30])]
        {
            for compress in [false, true] {
                let (flags, payload) = encode_frame(bytes, 0, ends, compress);
                let count = ends.len() as u32;
                let back = decode_frame(&frame(flags, count, payload.clone())).expect("it was made above");
                assert_eq!((&back.bytes[..], &back.ends[..]), (bytes, ends));
                // A checksum stands before this; whatever comes through it is looked at as closely.
                for flags in 0..4 {
                    for count in [0, 1, count, count + 1, u32::MAX] {
                        for at in 0..payload.len() {
                            for value in [0, 1, 0x7f, 0xff] {
                                let mut changed = payload.clone();
                                changed[at] = value;
                                check(&frame(flags, count, changed));
                            }
                            check(&frame(flags, count, payload[..at].to_vec()));
                        }
                    }
                }
            }
        }
    }

    fn check(frame: &Frame) {
        if let Some(batch) = decode_frame(frame) {
            assert_eq!(
                (batch.len(), batch.ends.last().copied()),
                (frame.count as usize, Some(batch.bytes.len() as u32))
            );
            assert!((0..batch.len()).map(|i| batch.line(i).len()).sum::<usize>() == batch.bytes.len());
        }
    }
}
