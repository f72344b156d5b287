//! The log: frames appended to segments, synced in groups, replayed after any end, trimmed from the front.
//! It knows nothing of what a payload means. Everything is synchronous; there are no threads here.

use crate::disk::{DirEntry, Disk, DiskFile, OpenMode};
use crate::error::{Error, is_no_space};
use crate::frame::{
    FRAME_HEADER_BYTES, FrameHeader, SEGMENT_HEADER_BYTES, SegmentHeader, next_frame, padded, payload_crc,
    torn_header,
};
use crate::roll::Spare;
use crate::unsynced::Unsynced;
use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant, SystemTime};

/// Suffix of segment files.
pub(crate) const SUFFIX: &str = ".seg";
/// Suffix of a segment that is being made.
pub(crate) const UNNAMED: &str = "new";
/// Folder for what was found damaged.
pub(crate) const DAMAGED: &str = "damaged";
/// A tail that is not whole is looked at so often again, with this pause, before it counts as torn: somebody may be
/// appending it.
const TAIL_LOOKS: u32 = 10;
const TAIL_PAUSE: Duration = Duration::from_millis(if cfg!(test) { 1 } else { 20 });

/// A frame never has more sequences than this for each of its bytes.
const NUMBERS_PER_BYTE: u64 = 256;

/// How a log is opened.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LogOptions {
    pub(crate) log_id: u64,
    earlier_id: Option<u64>,
    segment_bytes: u64,
    payload_bytes_max: u32,
    pub(crate) unsynced_bytes_max: usize,
    first_sequence: u64,
    pub(crate) clock: fn() -> i64,
}

/// Nanoseconds since the epoch by the clock of the machine.
pub(crate) fn machine_clock() -> i64 {
    match SystemTime::now().duration_since(SystemTime::UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_nanos()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_nanos()).map_or(i64::MIN, |n| -n),
    }
}

impl LogOptions {
    /// The log with this identity: segments and frames of another log are not taken for its own.
    ///
    /// Segments of 8 MiB, payloads up to 16 MiB, a sync at the latest after 16 MiB, sequences from 1.
    #[must_use]
    pub fn new(log_id: u64) -> Self {
        Self {
            log_id,
            earlier_id: None,
            segment_bytes: 8 << 20,
            payload_bytes_max: 16 << 20,
            unsynced_bytes_max: 16 << 20,
            first_sequence: 1,
            clock: machine_clock,
        }
    }

    /// Where the times of segments come from, in nanoseconds since the epoch. They are for people and for ages.
    #[must_use]
    pub fn clock(mut self, clock: fn() -> i64) -> Self {
        self.clock = clock;
        self
    }

    /// Segments that carry this identity belong to the log as well: it had this one before. New segments get the present
    /// identity.
    #[must_use]
    pub fn earlier_id(mut self, log_id: u64) -> Self {
        self.earlier_id = Some(log_id);
        self
    }

    fn is_own(&self, log_id: u64) -> bool {
        log_id == self.log_id || self.earlier_id == Some(log_id)
    }

    /// A new segment is begun when the present one has this many bytes.
    #[must_use]
    pub fn segment_bytes(mut self, bytes: u64) -> Self {
        self.segment_bytes = bytes.max(SEGMENT_HEADER_BYTES as u64 + 1);
        self
    }

    /// A larger payload is refused.
    #[must_use]
    pub fn payload_bytes_max(mut self, bytes: u32) -> Self {
        self.payload_bytes_max = bytes;
        self
    }

    /// So many bytes of frames that no sync has covered are kept in memory as well, so that a failed sync loses none of them.
    /// Frames beyond that are read back from the segment if a sync fails. After one has failed, appends beyond that fail too.
    #[must_use]
    pub fn unsynced_bytes_max(mut self, bytes: usize) -> Self {
        self.unsynced_bytes_max = bytes;
        self
    }

    /// No sequence below this one is given, whatever the segments hold: for callers who remember sequences elsewhere.
    #[must_use]
    pub fn first_sequence(mut self, sequence: u64) -> Self {
        self.first_sequence = sequence;
        self
    }
}

/// What opening a log found.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Recovery {
    /// Segments of this log.
    pub segments: usize,
    /// Damage seen while opening. What lies inside closed segments is found by [`Log::replay`].
    pub damage: Vec<Damage>,
    /// The sequence after the last whole frame that was found; 0 without segments. [`LogOptions::first_sequence`] does not
    /// change it.
    pub end_sequence: u64,
}

/// Bytes that are not what was written, and what they cost.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Damage {
    /// Name of the segment.
    pub segment: String,
    /// Where in it.
    pub offset: u64,
    /// How many bytes.
    pub bytes: u64,
    /// The sequences that are lost; empty when none is known to be.
    pub lost: Range<u64>,
    /// Where a copy of the bytes is, when one was made.
    pub kept_in: Option<PathBuf>,
}

impl Damage {
    /// How many sequences are lost.
    #[must_use]
    pub fn lost_count(&self) -> u64 {
        self.lost.end.saturating_sub(self.lost.start)
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "segment {}: {} bytes at {} are not what was written",
            self.segment, self.bytes, self.offset
        )?;
        match self.lost_count() {
            0 => write!(f, "; nothing that was whole is lost")?,
            n => write!(f, "; {n} lost, numbers {} to {}", self.lost.start, self.lost.end - 1)?,
        }
        if let Some(path) = &self.kept_in {
            write!(f, "; kept in {}", path.display())?;
        }
        Ok(())
    }
}

/// A frame read back.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Frame {
    /// Its first sequence.
    pub first_sequence: u64,
    /// How many sequences it has.
    pub count: u32,
    /// The flags it was written with.
    pub flags: u16,
    /// The payload, byte for byte.
    pub payload: Vec<u8>,
}

impl Frame {
    /// Its length in its segment, padding included.
    pub(crate) fn bytes(&self) -> usize {
        FRAME_HEADER_BYTES + padded(self.payload.len())
    }
}

/// A segment of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SegmentInfo {
    /// Its name is this number in hexadecimal, with 16 digits.
    pub number: u64,
    /// No sequence in it is smaller.
    pub first_sequence: u64,
    /// The first sequence after it.
    pub end_sequence: u64,
    /// Its length.
    pub bytes: u64,
    /// When it was made, in nanoseconds since the epoch by the clock of who made it; `i64::MAX` when nobody knows.
    pub created: i64,
}

/// What trimming removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Trimmed {
    /// Segments.
    pub segments: usize,
    /// Bytes.
    pub bytes: u64,
}

/// What a log has done since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogStats {
    /// Bytes appended, headers and padding included.
    pub bytes_written: u64,
    /// Syncs of segments.
    pub syncs: u64,
    /// Syncs that failed.
    pub failed_syncs: u64,
    /// How long the last sync took.
    pub last_sync: Duration,
}

#[derive(Clone, Debug)]
pub(crate) struct Segment {
    /// Its name in hexadecimal: later segments have larger ones.
    pub(crate) number: u64,
    /// The identity its frames are bound to.
    pub(crate) log_id: u64,
    pub(crate) path: PathBuf,
    pub(crate) first: u64,
    pub(crate) end: u64,
    pub(crate) bytes: u64,
    /// By the clock of who made it, in nanoseconds since the epoch.
    pub(crate) created: i64,
    /// `None` when only its name and place are known: it is opened when it is read.
    pub(crate) file: Option<Arc<dyn DiskFile>>,
    /// Has bytes that no sync has covered.
    pub(crate) dirty: bool,
    /// Its header is durable, and with it the first number.
    pub(crate) header_synced: bool,
}

impl Segment {
    fn name(&self) -> String {
        format!("{:016x}{SUFFIX}", self.number)
    }
}

#[derive(Debug)]
pub(crate) struct Inner {
    /// In the order of their numbers.
    pub(crate) segments: Vec<Segment>,
    /// Whether the last segment takes more frames.
    pub(crate) active: bool,
    /// The next append begins a segment: the active one is full, and the next one was made ahead.
    pub(crate) roll_next: bool,
    /// The next segment, made ahead.
    pub(crate) spare: Option<Spare>,
    pub(crate) next: u64,
    opened_at: u64,
    pub(crate) synced: u64,
    pub(crate) unsynced: Unsynced,
    /// A name may not be durable.
    pub(crate) folder_dirty: bool,
    /// A sync failed and what it should have covered is only in `unsynced`.
    pub(crate) broken: bool,
    buffer: Vec<u8>,
    pub(crate) stats: LogStats,
}

impl Inner {
    fn first(&self) -> u64 {
        // One that was begun while a failed sync was written again lies before what was written again.
        self.segments.iter().map(|s| s.first).min().unwrap_or(self.next)
    }
}

/// A log in a folder of its own.
///
/// Appends are in the hands of the operating system when they return and survive the end of the process; after
/// [`Log::sync`] they survive a power cut. All methods take `&self`; a sync does not hold up appends. That no two logs
/// use one folder is the caller's care: see [`Disk::lock`].
///
/// ```
/// use graylogic_durable::{Log, LogOptions, RealDisk};
/// use std::sync::Arc;
///
/// let folder = tempfile::tempdir()?;
/// let (log, _) = Log::open(Arc::new(RealDisk), folder.path(), LogOptions::new(7))?;
/// let first = log.append(b"two readings", 2)?;
/// log.sync()?;
/// assert_eq!((first, log.next_sequence()), (1, 3));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Log {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) directory: PathBuf,
    pub(crate) options: LogOptions,
    /// Somebody else may hold the folder: nothing is written, and segments may go away.
    looking: bool,
    inner: Mutex<Inner>,
    /// The first and the next sequence as of the last change: `inner` is held while the disk is written, and who only
    /// asks for them does not wait for that.
    first: AtomicU64,
    next: AtomicU64,
    synced_last: AtomicU64,
    pub(crate) has_spare: AtomicBool,
    pub(crate) is_ahead: AtomicBool,
    /// Held by who syncs: others wait and find that theirs was covered.
    syncing: Mutex<()>,
    /// Held by who trims, and by who makes a segment ahead; the number of the last one made.
    pub(crate) trimming: Mutex<()>,
    pub(crate) preparing: Mutex<u64>,
}

impl Log {
    /// Opens the log in a folder, or makes one.
    ///
    /// It never fails because of what the files hold. A torn tail is copied to `damaged/` and cut, or left in its place when the
    /// disk is full; a file that is no segment of this log is moved there. Only the last segment is read whole; others are looked into by
    /// [`Log::replay`].
    ///
    /// # Errors
    /// When the disk refuses a call.
    pub fn open(
        disk: Arc<dyn Disk>,
        directory: &Path,
        options: LogOptions,
    ) -> Result<(Self, Recovery), Error> {
        let opening = |e| Error::io(format_args!("open the log in {}", directory.display()), e);
        disk.create_dir_all(directory).map_err(opening)?;
        let mut recovery = Recovery::default();
        let mut segments = find_segments(&*disk, directory, &options, &mut recovery).map_err(opening)?;
        let mut next = options.first_sequence.max(1);
        for segment in &segments {
            next = next.max(segment.first);
        }
        if let Some(last) = segments.last_mut() {
            let end = cut_torn_tail(&*disk, directory, last, &mut recovery).map_err(opening)?;
            next = next.max(end);
            last.end = next;
        }
        sync_found(&*disk, directory, &segments).map_err(opening)?;
        recovery.segments = segments.len();
        Ok((Self::with(disk, directory, options, false, segments, next), recovery))
    }

    /// The log in a folder as it is at this moment, to be read: nothing is written, cut, moved or removed, and somebody else
    /// may append and trim meanwhile. What opening would cut or set aside is damage that stays where it is.
    pub(crate) fn look(
        disk: Arc<dyn Disk>,
        directory: &Path,
        options: LogOptions,
    ) -> Result<(Self, Recovery), Error> {
        let look = || {
            let mut recovery = Recovery::default();
            let mut segments = Vec::new();
            for entry in disk.list(directory)? {
                match entry_of(&*disk, directory, &options, &entry) {
                    Ok(Entry::Segment(segment, damage)) => {
                        recovery.damage.extend(damage);
                        segments.push(segment);
                    }
                    Ok(Entry::Foreign(damage)) => recovery.damage.push(damage),
                    Ok(Entry::Unfinished | Entry::Other) => {}
                    // Trimmed since it was listed.
                    Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                    Err(e) => return Err(e),
                }
            }
            in_order(&mut segments);
            let mut next = segments.iter().map(|s| s.first).fold(options.first_sequence.max(1), u64::max);
            if let Some(last) = segments.last_mut() {
                next = next.max(look_at_tail(&*disk, last, &mut recovery)?);
                last.end = next;
            }
            recovery.segments = segments.len();
            Ok((segments, next, recovery))
        };
        let mut looked = look();
        for _ in 0..TAIL_LOOKS {
            // All segments that were listed were trimmed before they were read.
            if looked.as_ref().is_err_and(|e| e.kind() == io::ErrorKind::NotFound) {
                looked = look();
            }
        }
        let (segments, next, recovery) =
            looked.map_err(|e| Error::io(format_args!("read the log in {}", directory.display()), e))?;
        Ok((Self::with(disk, directory, options, true, segments, next), recovery))
    }

    fn with(
        disk: Arc<dyn Disk>,
        directory: &Path,
        options: LogOptions,
        looking: bool,
        segments: Vec<Segment>,
        next: u64,
    ) -> Self {
        let inner = Inner {
            segments,
            active: false,
            roll_next: false,
            spare: None,
            next,
            opened_at: next,
            synced: next,
            unsynced: Unsynced::new(options.unsynced_bytes_max, disk.is_volatile()),
            folder_dirty: false,
            broken: false,
            buffer: Vec::new(),
            stats: LogStats::default(),
        };
        Self {
            disk,
            directory: directory.to_owned(),
            options,
            looking,
            first: AtomicU64::new(inner.first()),
            next: AtomicU64::new(inner.next),
            synced_last: AtomicU64::new(inner.synced),
            has_spare: AtomicBool::new(false),
            is_ahead: AtomicBool::new(false),
            inner: Mutex::new(inner),
            syncing: Mutex::new(()),
            trimming: Mutex::new(()),
            preparing: Mutex::new(0),
        }
    }

    pub(crate) fn publish(&self, inner: &Inner) {
        self.first.store(inner.first(), Ordering::Release);
        self.next.store(inner.next, Ordering::Release);
        self.synced_last.store(inner.synced, Ordering::Release);
        self.has_spare.store(inner.spare.is_some(), Ordering::Release);
    }

    /// What it holds and has done: segments, the first sequence that may not survive a power cut, figures; `None` when a
    /// disk that does not answer keeps it from saying so for that long.
    pub(crate) fn seen_within(&self, time: Duration) -> Option<(Vec<SegmentInfo>, u64, LogStats)> {
        let until = Instant::now() + time;
        let inner = loop {
            match self.inner.try_lock() {
                Ok(inner) => break inner,
                Err(TryLockError::Poisoned(inner)) => break inner.into_inner(),
                Err(TryLockError::WouldBlock) if Instant::now() < until => {
                    std::thread::sleep(Duration::from_micros(50));
                }
                Err(TryLockError::WouldBlock) => return None,
            }
        };
        Some((infos(&inner.segments), inner.synced, inner.stats))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Inner> {
        // Fields change together between fallible calls, so that a panic elsewhere leaves them whole.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends a frame of `count` sequences and returns the first of them.
    ///
    /// # Errors
    /// [`Error::is_invalid`] for a payload above the limit; otherwise the disk refused: nothing was appended, and a
    /// later append may succeed.
    ///
    /// # Panics
    /// When `count` is 0.
    pub fn append(&self, payload: &[u8], count: u32) -> Result<u64, Error> {
        self.append_with(count, 0, |out| out.extend_from_slice(payload))
    }

    /// Like [`Log::append`], with flags that [`Frame::flags`] shows, and the payload written by `fill` into the log's own
    /// buffer, which it must only add to.
    ///
    /// # Errors
    /// As [`Log::append`].
    ///
    /// # Panics
    /// When `count` is 0.
    pub fn append_with(&self, count: u32, flags: u16, fill: impl FnOnce(&mut Vec<u8>)) -> Result<u64, Error> {
        assert!(count > 0, "a frame has at least one sequence");
        let mut inner = self.lock();
        let is_ahead = self.is_ahead();
        if !is_ahead && (inner.broken || inner.unsynced.is_full()) {
            drop(inner);
            self.sync()?;
            inner = self.lock();
        }
        if inner.broken && inner.unsynced.is_full() {
            let message = format!(
                "append to the log in {}: the disk failed to sync, and too much is not synced yet; it is tried again",
                self.directory.display()
            );
            return Err(Error::plain(io::ErrorKind::Other, message));
        }
        let mut buffer = std::mem::take(&mut inner.buffer);
        buffer.clear();
        buffer.resize(FRAME_HEADER_BYTES, 0);
        fill(&mut buffer);
        let done = self.append_frame(&mut inner, &mut buffer, (count, flags));
        if buffer.capacity() <= 1 << 20 {
            inner.buffer = buffer;
        }
        done
    }

    fn append_frame(
        &self,
        inner: &mut Inner,
        buffer: &mut Vec<u8>,
        (count, flags): (u32, u16),
    ) -> Result<u64, Error> {
        let payload_bytes = buffer.len() - FRAME_HEADER_BYTES;
        if payload_bytes > self.options.payload_bytes_max as usize {
            let max = self.options.payload_bytes_max;
            let message = format!(
                "append to the log: a payload of {payload_bytes} bytes is above the limit of {max}; split it"
            );
            return Err(Error::plain(io::ErrorKind::InvalidInput, message));
        }
        let sequence = inner.next;
        let header = FrameHeader {
            payload_bytes: payload_bytes as u32,
            flags,
            first_sequence: sequence,
            payload_crc: payload_crc(self.options.log_id, sequence, &buffer[FRAME_HEADER_BYTES..]),
            count,
        };
        buffer[..FRAME_HEADER_BYTES].copy_from_slice(&header.encode());
        buffer.resize(FRAME_HEADER_BYTES + padded(payload_bytes), 0);
        let end = header.end_sequence().ok_or_else(|| {
            Error::plain(
                io::ErrorKind::InvalidInput,
                "append to the log: all sequence numbers are used".into(),
            )
        })?;
        if !inner.active || inner.roll_next || (!self.is_ahead() && self.is_full(inner)) {
            self.begin(inner)?;
        }
        self.write(inner, buffer, end)?;
        inner.next = end;
        self.publish(inner);
        inner.unsynced.push(sequence..end, buffer);
        if disk_is_volatile(inner) {
            inner.synced = end;
        }
        // Without a segment made ahead the present one goes on: an append waits for no sync.
        inner.roll_next = self.is_full(inner) && inner.spare.is_some();
        Ok(sequence)
    }

    /// Puts whole frames behind the last one of the active segment, or leaves the segment as it was.
    fn write(&self, inner: &mut Inner, frames: &[u8], end: u64) -> Result<(), Error> {
        let segment = inner.segments.last_mut().expect("an active log has a segment");
        let file = segment.file.clone().expect("the active segment is open");
        if let Err(error) = file.write_at(frames, segment.bytes) {
            // What was written of it must not stand before the next frame.
            if file.truncate(segment.bytes).is_err() {
                inner.active = false;
            }
            let name = segment.path.display();
            return Err(Error::io(format_args!("append {} bytes to {name}", frames.len()), error));
        }
        segment.bytes += frames.len() as u64;
        segment.end = end;
        segment.dirty = true;
        inner.stats.bytes_written += frames.len() as u64;
        Ok(())
    }

    /// Returns when everything appended before the call survives a power cut, with the first sequence that may not.
    ///
    /// Callers that come while one syncs share the next sync. Appends go on meanwhile.
    ///
    /// # Errors
    /// When the disk refuses. What was appended is still in memory and in the hands of the operating system; it is
    /// written again to a new segment with the next sync.
    pub fn sync(&self) -> Result<u64, Error> {
        let synced = self.sync_all()?;
        if self.is_ahead() {
            // A disk that has no room for a segment now may have some when one is needed.
            let _tried_again = self.prepare();
        }
        Ok(synced)
    }

    fn sync_all(&self) -> Result<u64, Error> {
        let wanted = self.lock().next;
        let _one = self.syncing.lock().unwrap_or_else(PoisonError::into_inner);
        let broken = {
            let inner = self.lock();
            if inner.synced >= wanted && !inner.broken {
                return Ok(inner.synced);
            }
            inner.broken
        };
        if broken {
            self.write_again()?;
        }
        let (target, files, folder_dirty) = {
            let mut inner = self.lock();
            let dirty: Vec<(Arc<dyn DiskFile>, PathBuf, u64)> = inner
                .segments
                .iter_mut()
                .filter(|s| s.dirty)
                .filter_map(|s| Some((s.file.clone()?, s.path.clone(), s.number)))
                .collect();
            // Bytes appended from here on make them dirty again.
            inner.segments.iter_mut().for_each(|s| s.dirty = false);
            (inner.next, dirty, std::mem::take(&mut inner.folder_dirty))
        };
        let began = Instant::now();
        let synced = (|| {
            for (file, path, _) in &files {
                file.sync().map_err(|e| Error::io(format_args!("sync {}", path.display()), e))?;
            }
            if folder_dirty { self.sync_folder() } else { Ok(()) }
        })();
        if let Err(error) = synced {
            // The kernel may have dropped the pages and call the file clean: it is not trusted any more.
            let mut inner = self.lock();
            inner.broken = true;
            (inner.active, inner.roll_next) = (false, false);
            inner.folder_dirty |= folder_dirty;
            inner.stats.failed_syncs += 1;
            return Err(error);
        }
        let mut inner = self.lock();
        inner.stats.syncs += files.len() as u64;
        inner.stats.last_sync = began.elapsed();
        inner.synced = inner.synced.max(target);
        self.publish(&inner);
        let next = inner.next;
        inner.unsynced.synced(target, next);
        for segment in inner.segments.iter_mut().filter(|s| files.iter().any(|f| f.2 == s.number)) {
            segment.header_synced = true;
        }
        let last = inner.segments.len().saturating_sub(1);
        for segment in inner.segments[..last].iter_mut().filter(|s| !s.dirty) {
            segment.file = None;
        }
        Ok(inner.synced)
    }

    /// A segment is closed when it has this many bytes.
    pub(crate) fn segment_bytes(&self) -> u64 {
        self.options.segment_bytes
    }

    /// Every sequence below this one survives a power cut.
    #[must_use]
    pub fn synced(&self) -> u64 {
        self.lock().synced
    }

    /// [`Log::synced`] as of the last sync, without waiting for who holds the log.
    pub(crate) fn synced_last(&self) -> u64 {
        self.synced_last.load(Ordering::Acquire)
    }

    /// The sequence the next frame gets.
    #[must_use]
    pub fn next_sequence(&self) -> u64 {
        self.next.load(Ordering::Acquire)
    }

    /// The first sequence that may still be in the log.
    #[must_use]
    pub fn first_sequence(&self) -> u64 {
        self.first.load(Ordering::Acquire)
    }

    /// Whether the next frame begins a segment, unless a sync fails before.
    #[must_use]
    pub fn begins_segment(&self) -> bool {
        let inner = self.lock();
        // Decided by the append before, so that nothing another thread does meanwhile changes it.
        !inner.active || inner.roll_next || (!self.is_ahead() && self.is_full(&inner))
    }

    fn is_full(&self, inner: &Inner) -> bool {
        inner.segments.last().is_some_and(|s| s.bytes >= self.options.segment_bytes)
    }

    /// Closes the segment that takes frames, so that [`Log::trim`] may remove it; the next append begins another.
    pub fn roll(&self) {
        let mut inner = self.lock();
        (inner.active, inner.roll_next) = (false, false);
    }

    pub(crate) fn sync_folder(&self) -> Result<(), Error> {
        let doing = format_args!("sync folder {}", self.directory.display());
        self.disk.sync_dir(&self.directory).map_err(|e| Error::io(doing, e))
    }

    /// The segments, oldest first.
    #[must_use]
    pub fn segments(&self) -> Vec<SegmentInfo> {
        infos(&self.lock().segments)
    }

    /// What the log has done since it was opened.
    #[must_use]
    pub fn stats(&self) -> LogStats {
        self.lock().stats
    }

    /// The segment a reader is in, or goes to next: the one with `expected`, at the earliest.
    fn place(&self, current: Option<u64>, expected: u64) -> Option<Place> {
        let inner = self.lock();
        let segments = &inner.segments;
        let i = match current.and_then(|number| segments.iter().position(|s| s.number == number)) {
            Some(i) => i,
            // Later segments take over from their first sequence on.
            None => {
                let covers = |i: usize| segments[i + 1..].iter().all(|s| s.first > expected);
                (0..segments.len()).find(|&i| covers(i))?
            }
        };
        let limit = segments[i + 1..].iter().map(|s| s.first).min();
        let segment = &segments[i];
        Some(Place {
            number: segment.number,
            log_id: segment.log_id,
            path: segment.path.clone(),
            file: segment.file.clone(),
            bytes: segment.bytes,
            limit: limit.unwrap_or(inner.next),
            last: limit.is_none(),
        })
    }

    /// Whether a segment that cannot be found was trimmed, by whoever holds the folder.
    fn was_trimmed(&self, number: u64) -> bool {
        let mut inner = self.lock();
        if self.looking {
            inner.segments.retain(|s| s.number != number);
            self.publish(&inner);
        }
        inner.segments.iter().all(|s| s.number != number)
    }

    /// Whether somebody else took a segment away for good. A folder that is away as a whole may come back; what is
    /// appended next makes it again.
    fn was_taken(&self, path: &Path) -> bool {
        match self.disk.list(&self.directory) {
            Ok(found) => !found.iter().any(|e| path.ends_with(&e.name)),
            Err(e) => {
                if e.kind() == io::ErrorKind::NotFound && !self.looking {
                    self.roll();
                }
                false
            }
        }
    }

    /// The next sequence when the log was opened.
    fn opened_at(&self) -> u64 {
        self.lock().opened_at
    }

    /// The frames with sequences from `from` on, as they are now, with the damage between them.
    ///
    /// One segment at a time is in memory. What is appended or trimmed meanwhile may or may not be seen.
    #[must_use]
    pub fn replay(&self, from: u64) -> Replay {
        let inner = self.lock();
        let segments: Vec<Segment> = inner.segments.clone();
        let expected = inner.first();
        Replay {
            disk: self.disk.clone(),
            end: inner.next,
            segments: segments.into_iter().collect(),
            from,
            expected,
            current: None,
            looking: self.looking,
            padding: Vec::new(),
            unread: None,
        }
    }
}

fn infos(segments: &[Segment]) -> Vec<SegmentInfo> {
    let of = |s: &Segment| SegmentInfo {
        number: s.number,
        first_sequence: s.first,
        end_sequence: s.end,
        bytes: s.bytes,
        created: s.created,
    };
    segments.iter().map(of).collect()
}

/// What a reader that follows a log comes to next.
#[derive(Debug)]
pub(crate) enum Step {
    Frame(Frame),
    Lost(Damage),
    /// Nothing was appended yet behind this.
    End,
}

/// A segment as a reader needs it.
struct Place {
    number: u64,
    log_id: u64,
    path: PathBuf,
    file: Option<Arc<dyn DiskFile>>,
    bytes: u64,
    /// Frames from here on count in a later segment.
    limit: u64,
    last: bool,
}

/// So much is read at once.
const PIECE_BYTES: usize = 256 << 10;
/// A place that could not be read so often, one time after the other, is damage if anything around it can be read.
const READS: u32 = 30;
/// Around it so much is read at once: what a disk loses of its own accord.
const SECTOR_BYTES: u64 = 4096;

/// Follows a log from a sequence on, frame by frame, also while it grows and is trimmed. Holds one open file and the piece
/// of it that was read last.
#[derive(Debug)]
pub(crate) struct Follow {
    log: Arc<Log>,
    /// The sequence the next good frame has when nothing is lost.
    expected: u64,
    open: Option<(u64, Arc<dyn DiskFile>)>,
    offset: u64,
    piece: Vec<u8>,
    piece_at: u64,
    /// Reads that failed since one did not.
    failed: u32,
    /// Told with the next step.
    pending: Option<Damage>,
}

impl Follow {
    pub(crate) fn new(log: Arc<Log>, from: u64) -> Self {
        Self {
            log,
            expected: from,
            open: None,
            offset: 0,
            piece: Vec::new(),
            piece_at: 0,
            failed: 0,
            pending: None,
        }
    }

    /// Damage that is told once more, with the next step.
    pub(crate) fn go_back(&mut self, damage: Damage) {
        self.pending = Some(damage);
    }

    pub(crate) fn position(&self) -> u64 {
        self.expected
    }

    /// The next frame that has sequences from the position on. A frame that begins before it is given whole.
    pub(crate) fn step(&mut self) -> Result<Step, Error> {
        if let Some(damage) = self.pending.take() {
            return Ok(Step::Lost(damage));
        }
        loop {
            let Some(place) = self.log.place(self.open.as_ref().map(|o| o.0), self.expected) else {
                return Ok(Step::End);
            };
            // What was trimmed is nobody's loss here: whoever trimmed it knows.
            self.expected = self.expected.max(self.log.first_sequence());
            if self.open.as_ref().is_none_or(|o| o.0 != place.number) {
                let opened = match place.file.clone() {
                    Some(file) => Ok(file),
                    None => self.log.disk.open(&place.path, OpenMode::Read),
                };
                let file = match opened {
                    Ok(file) => file,
                    // Trimmed since it was looked for.
                    Err(e) if e.kind() == io::ErrorKind::NotFound && self.log.was_trimmed(place.number) => {
                        continue;
                    }
                    Err(e) if e.kind() == io::ErrorKind::NotFound && self.log.was_taken(&place.path) => {
                        self.offset = 0;
                        // The last one may be told once.
                        return Ok(match self.expected < place.limit {
                            true => self.lost(&place, place.limit, place.bytes),
                            false => Step::End,
                        });
                    }
                    Err(e) => {
                        return Err(Error::io(format_args!("read segment {}", place.path.display()), e));
                    }
                };
                self.open = Some((place.number, file));
                self.offset = SEGMENT_HEADER_BYTES as u64;
                self.piece.clear();
            }
            match self.frame(&place)? {
                Some(Step::End) => return Ok(Step::End),
                Some(step) => return Ok(step),
                None => {}
            }
        }
    }

    /// The frame at the offset, the damage there, or `None` to look again.
    fn frame(&mut self, place: &Place) -> Result<Option<Step>, Error> {
        if self.offset >= place.bytes {
            return Ok(self.end_of_segment(place));
        }
        if let Some(header) = FrameHeader::decode(self.bytes(place, FRAME_HEADER_BYTES)?)
            && self.offset + (FRAME_HEADER_BYTES as u64) + u64::from(header.payload_bytes) <= place.bytes
            && let Some(end) = header.end_sequence()
        {
            let whole = FRAME_HEADER_BYTES + header.payload_bytes as usize;
            let (id, expected) = (place.log_id, self.expected);
            let payload = self.bytes(place, whole)?.get(FRAME_HEADER_BYTES..).unwrap_or_default();
            if payload.len() == header.payload_bytes as usize
                && header.count > 0
                && payload_crc(id, header.first_sequence, payload) == header.payload_crc
                && end <= place.limit
            {
                if end <= expected {
                    // Before the position, or written again in a later segment.
                    self.offset += header.frame_bytes() as u64;
                    return Ok(None);
                }
                // A frame may begin before the position, where reading begins in the middle of one.
                if header.first_sequence <= expected {
                    let payload = payload.to_vec();
                    let frame = Frame {
                        first_sequence: header.first_sequence,
                        count: header.count,
                        flags: header.flags,
                        payload,
                    };
                    self.offset += header.frame_bytes() as u64;
                    self.expected = end;
                    return Ok(Some(Step::Frame(frame)));
                }
                return Ok(Some(self.lost(place, header.first_sequence, 0)));
            }
        }
        self.damaged(place).map(Some)
    }

    fn lost(&mut self, place: &Place, until: u64, bytes: u64) -> Step {
        let lost = self.expected..until.max(self.expected);
        self.expected = lost.end;
        Step::Lost(Damage {
            segment: format!("{:016x}{SUFFIX}", place.number),
            offset: self.offset,
            bytes,
            lost,
            kept_in: None,
        })
    }

    /// Bytes that are no frame: goes to the next good frame of the segment.
    fn damaged(&mut self, place: &Place) -> Result<Step, Error> {
        let rest = usize::try_from(place.bytes - self.offset).unwrap_or(usize::MAX);
        let (at, expected) = (self.offset, self.expected);
        let id = place.log_id;
        let rest = self.bytes(place, rest)?;
        // Frames that were written again elsewhere are no damage, but not looked for: they end where damage begins.
        let found =
            next_frame(rest, 0, id, 0..place.limit).map(|f| (f.offset as u64, f.header.first_sequence));
        let (skipped, until) = match found {
            Some((offset, first)) if offset > 0 => (offset, first.clamp(expected, place.limit.max(expected))),
            _ => (place.bytes - at, if place.last { self.log.next_sequence() } else { place.limit }),
        };
        let step = self.lost(place, until, skipped);
        self.offset = at + skipped;
        // Memory of a whole segment is not kept.
        (self.piece, self.piece_at) = (Vec::new(), 0);
        Ok(step)
    }

    fn end_of_segment(&mut self, place: &Place) -> Option<Step> {
        if place.last {
            // Numbers that were passed over when the log was opened.
            let next = self.log.next_sequence();
            let passed_over = self.log.opened_at() >= next && self.expected < next;
            return Some(if passed_over { self.lost(place, next, 0) } else { Step::End });
        }
        self.open = None;
        if self.expected < place.limit {
            return Some(self.lost(place, place.limit, 0));
        }
        None
    }

    /// At least `n` bytes at the offset, or as many as the segment has.
    fn bytes(&mut self, place: &Place, n: usize) -> Result<&[u8], Error> {
        let n = n.min(usize::try_from(place.bytes - self.offset).unwrap_or(usize::MAX));
        let from = self.offset.wrapping_sub(self.piece_at) as usize;
        let there = self.offset >= self.piece_at && from.saturating_add(n) <= self.piece.len();
        if !there {
            let wanted = n.max(PIECE_BYTES.min((place.bytes - self.offset) as usize));
            self.piece.clear();
            self.piece.resize(wanted, 0);
            self.piece_at = self.offset;
            let file = &self.open.as_ref().expect("a segment is open while it is read").1;
            match read_whole(&**file, &mut self.piece, self.offset) {
                Ok(()) => self.failed = 0,
                Err(_) if self.failed >= READS && read_around(&**file, &mut self.piece, self.offset) => {}
                Err(e) => {
                    self.failed = self.failed.saturating_add(1);
                    // What was not read is not zeros: the next call reads it again.
                    self.piece.clear();
                    return Err(Error::io(format_args!("read segment {}", place.path.display()), e));
                }
            }
            // A file that is shorter than it should be reads as zeros, which are no frame.
            return Ok(&self.piece[..n]);
        }
        Ok(&self.piece[from..from + n])
    }
}

/// Reads as much as there is, up to the length of a buffer of zeros.
fn read_whole(file: &dyn DiskFile, buffer: &mut [u8], offset: u64) -> io::Result<()> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], offset + filled as u64)? {
            0 => break,
            n => filled += n,
        }
    }
    Ok(())
}

/// Like [`read_whole`], a few times when it fails.
pub(crate) fn read_patiently(file: &dyn DiskFile, buffer: &mut [u8], offset: u64) -> io::Result<()> {
    let mut read = read_whole(file, buffer, offset);
    for _ in 0..TAIL_LOOKS {
        if read.is_err() {
            std::thread::sleep(TAIL_PAUSE);
            read = read_whole(file, buffer, offset);
        }
    }
    read
}

/// Reads what can be read, sector by sector; the rest is zeros. Tells whether there was any, here or at the front of the
/// file: a disk that reads nothing at all may be away for a while.
fn read_around(file: &dyn DiskFile, buffer: &mut [u8], offset: u64) -> bool {
    let mut any = read_whole(file, &mut [0; SEGMENT_HEADER_BYTES], 0).is_ok();
    let mut at = 0;
    while at < buffer.len() {
        let place = offset + at as u64;
        let sector = (SECTOR_BYTES - place % SECTOR_BYTES) as usize;
        let to = buffer.len().min(at + sector);
        match read_whole(file, &mut buffer[at..to], place) {
            Ok(()) => any = true,
            Err(_) => buffer[at..to].fill(0),
        }
        at = to;
    }
    any
}

/// The frames of a log in their order, with the damage between them: an iterator.
#[derive(Debug)]
pub struct Replay {
    disk: Arc<dyn Disk>,
    end: u64,
    segments: VecDeque<Segment>,
    from: u64,
    /// The sequence the next good frame has when nothing is lost.
    expected: u64,
    current: Option<Current>,
    /// As in the log.
    looking: bool,
    /// Padding of frames that is not zero, when it is only looked: it costs nothing, and is not what was written.
    padding: Vec<Damage>,
    /// The segment that could not be read last, and why.
    unread: Option<(PathBuf, io::Error)>,
}

#[derive(Debug)]
struct Current {
    segment: Segment,
    bytes: Vec<u8>,
    at: usize,
    /// Frames from here on count in a later segment.
    limit: u64,
}

impl Replay {
    /// Padding that is not what was written, met since this was asked last.
    pub(crate) fn damaged_padding(&mut self) -> Vec<Damage> {
        std::mem::take(&mut self.padding)
    }

    /// A segment that could not be read: what was told lost may be there when it is read again.
    pub(crate) fn take_unread(&mut self) -> Option<(PathBuf, io::Error)> {
        self.unread.take()
    }

    /// The segment the last frame was in, and where that frame ended.
    pub(crate) fn place(&self) -> Option<(String, u64)> {
        self.current.as_ref().map(|c| (c.segment.name(), c.at as u64))
    }

    fn load(&mut self) -> Option<Result<(), Damage>> {
        let segment = self.segments.pop_front()?;
        let limit = self.segments.iter().map(|s| s.first).min().unwrap_or(self.end);
        // Who only looks tells of what cannot be read at this moment, and may look again.
        let read = match self.looking {
            true => read_all(&*self.disk, &segment.path),
            false => read_what_can_be(&*self.disk, &segment.path).map(|(bytes, _)| bytes),
        };
        match read {
            Ok(mut bytes) => {
                if self.looking {
                    // What was appended since is not looked at.
                    bytes.truncate(usize::try_from(segment.bytes).unwrap_or(usize::MAX));
                }
                self.current = Some(Current { segment, bytes, at: SEGMENT_HEADER_BYTES, limit });
                Some(Ok(()))
            }
            Err(e) if self.looking && e.kind() == io::ErrorKind::NotFound => {
                self.expected = self.expected.max(limit);
                Some(Ok(()))
            }
            Err(e) => {
                self.unread = Some((segment.path.clone(), e));
                let lost = self.expected.max(segment.first)..limit.max(self.expected);
                self.expected = self.expected.max(limit);
                Some(Err(Damage {
                    segment: segment.name(),
                    offset: 0,
                    bytes: segment.bytes,
                    lost,
                    kept_in: None,
                }))
            }
        }
    }
}

impl Iterator for Replay {
    type Item = Result<Frame, Damage>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let Some(current) = &mut self.current else {
                match self.load()? {
                    Ok(()) => continue,
                    Err(damage) => return Some(Err(damage)),
                }
            };
            let expected = self.expected;
            let log_id = current.segment.log_id;
            let found = next_frame(&current.bytes, current.at, log_id, expected..current.limit);
            let name = || current.segment.name();
            let Some(found) = found else {
                // Nothing more counts here. Bytes that are no frame at the end cost what the next segment does not have.
                let (at, end) = (current.at, current.bytes.len());
                let superseded = frames_end(&current.bytes, at, log_id);
                let lost = expected..current.limit.max(expected);
                let damage = (superseded < end || !lost.is_empty()).then(|| Damage {
                    segment: name(),
                    offset: superseded.min(end) as u64,
                    bytes: (end - superseded.min(end)) as u64,
                    lost: lost.clone(),
                    kept_in: None,
                });
                self.expected = lost.end;
                self.current = None;
                match damage {
                    Some(damage) => return Some(Err(damage)),
                    None => continue,
                }
            };
            if found.offset > current.at || found.header.first_sequence > expected {
                let damage = Damage {
                    segment: name(),
                    offset: current.at as u64,
                    bytes: (found.offset - current.at) as u64,
                    lost: expected..found.header.first_sequence,
                    kept_in: None,
                };
                current.at = found.offset;
                self.expected = found.header.first_sequence;
                return Some(Err(damage));
            }
            let frame = Frame {
                first_sequence: found.header.first_sequence,
                count: found.header.count,
                flags: found.header.flags,
                payload: found.payload(&current.bytes).to_vec(),
            };
            current.at = found.end(&current.bytes);
            let padding = found.offset + FRAME_HEADER_BYTES + frame.payload.len();
            if self.looking && current.bytes[padding..current.at].iter().any(|b| *b != 0) {
                self.padding.push(Damage {
                    segment: current.segment.name(),
                    offset: padding as u64,
                    bytes: (current.at - padding) as u64,
                    lost: 0..0,
                    kept_in: None,
                });
            }
            self.expected = found.header.first_sequence + u64::from(found.header.count);
            if self.expected > self.from {
                return Some(Ok(frame));
            }
        }
    }
}

/// Where whole frames of this log that follow each other from `at` on end, whatever their sequences.
fn frames_end(bytes: &[u8], mut at: usize, log_id: u64) -> usize {
    while at < bytes.len() {
        match next_frame(bytes, at, log_id, 0..u64::MAX) {
            Some(found) if found.offset == at => at = found.end(bytes),
            _ => break,
        }
    }
    at
}

pub(crate) fn remove_if_there(disk: &dyn Disk, path: &Path) -> io::Result<()> {
    match disk.remove(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

pub(crate) fn read_all(disk: &dyn Disk, path: &Path) -> io::Result<Vec<u8>> {
    let file = disk.open(path, OpenMode::Read)?;
    let length = usize::try_from(file.bytes()?).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
    let mut bytes = vec![0; length];
    let mut filled = 0;
    while filled < length {
        match file.read_at(&mut bytes[filled..], filled as u64)? {
            0 => break,
            n => filled += n,
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}

/// All bytes of a file, and whether they are: what cannot be read though it was tried again is zeros, as long as anything
/// can be.
fn read_what_can_be(disk: &dyn Disk, path: &Path) -> io::Result<(Vec<u8>, bool)> {
    let file = disk.open(path, OpenMode::Read)?;
    let length = usize::try_from(file.bytes()?).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
    let mut bytes = vec![0; length];
    match read_patiently(&*file, &mut bytes, 0) {
        Ok(()) => Ok((bytes, true)),
        Err(_) if read_around(&*file, &mut bytes, 0) => Ok((bytes, false)),
        Err(e) => Err(e),
    }
}

/// What a file in the folder of a log is.
enum Entry {
    /// A segment; its header may be damaged.
    Segment(Segment, Option<Damage>),
    /// What a crash left of a segment that was made: it never held a frame, or what it held is in the ones before.
    Unfinished,
    /// Named like a segment, and none of this log.
    Foreign(Damage),
    Other,
}

fn entry_of(disk: &dyn Disk, directory: &Path, options: &LogOptions, entry: &DirEntry) -> io::Result<Entry> {
    if Path::new(&entry.name).extension().is_some_and(|e| e == UNNAMED) && !entry.is_dir {
        return Ok(Entry::Unfinished);
    }
    let Some(name) = entry.name.to_str().filter(|n| n.ends_with(SUFFIX) && !entry.is_dir) else {
        return Ok(Entry::Other);
    };
    let number = name.strip_suffix(SUFFIX).filter(|n| n.len() == 16);
    // No log comes to half of all numbers: a file with such a name must not use up the rest of them.
    let number = number.and_then(|n| u64::from_str_radix(n, 16).ok()).filter(|n| *n <= u64::MAX / 2);
    let path = directory.join(name);
    let mut front = [0; SEGMENT_HEADER_BYTES];
    let file = disk.open(&path, OpenMode::Read)?;
    // Asked after the folder was listed: a segment that another one follows in the list grows no more.
    let bytes = file.bytes()?;
    // A header that cannot be read is a damaged one, if there are frames that say where they belong.
    match read_patiently(&*file, &mut front, 0) {
        Err(e) if bytes <= SEGMENT_HEADER_BYTES as u64 => return Err(e),
        Err(_) => front.fill(0),
        Ok(()) => {}
    }
    let header = SegmentHeader::decode(&front);
    let damage = |bytes| Damage { segment: name.to_owned(), offset: 0, bytes, lost: 0..0, kept_in: None };
    let (number, log_id, first, damaged) = match (number, header) {
        (Some(number), Some(header)) if options.is_own(header.log_id) => {
            (number, header.log_id, header.first_sequence, None)
        }
        // Made ahead, and begun just before a power cut: frames know themselves where they belong.
        (Some(number), None)
            if SegmentHeader::decode_provisional(&front).is_some_and(|h| options.is_own(h.log_id)) =>
        {
            match first_good_frame(disk, &path, options)? {
                Some((log_id, first)) => (number, log_id, first, None),
                None => return Ok(Entry::Unfinished),
            }
        }
        // A damaged header: frames know themselves where they belong. The name is at least as large as the truth.
        (Some(number), None) if bytes > SEGMENT_HEADER_BYTES as u64 => {
            let (log_id, first) = first_good_frame(disk, &path, options)?.unwrap_or((options.log_id, number));
            (number, log_id, first.min(number), Some(damage(SEGMENT_HEADER_BYTES as u64)))
        }
        // A segment gets its name when its header is on the disk: one without was emptied.
        _ => return Ok(Entry::Foreign(damage(bytes))),
    };
    let segment = Segment {
        number,
        log_id,
        path,
        first,
        end: first,
        bytes,
        created: header.map_or(i64::MAX, |h| h.created),
        file: None,
        dirty: false,
        header_synced: true,
    };
    Ok(Entry::Segment(segment, damaged))
}

fn disk_is_volatile(inner: &Inner) -> bool {
    inner.unsynced.is_volatile()
}

fn in_order(segments: &mut [Segment]) {
    segments.sort_by_key(|s| s.number);
    for i in 1..segments.len() {
        segments[i - 1].end = segments[i].first;
    }
}

/// The segments of this log in the order of their names; what is none is moved to `damaged/` and reported.
fn find_segments(
    disk: &dyn Disk,
    directory: &Path,
    options: &LogOptions,
    recovery: &mut Recovery,
) -> io::Result<Vec<Segment>> {
    let mut segments = Vec::new();
    let mut removed = false;
    for entry in disk.list(directory)? {
        match entry_of(disk, directory, options, &entry)? {
            Entry::Segment(segment, damage) => {
                recovery.damage.extend(damage);
                segments.push(segment);
            }
            Entry::Unfinished => {
                disk.remove(&directory.join(&entry.name))?;
                removed = true;
            }
            Entry::Foreign(damage) => {
                let path = directory.join(&damage.segment);
                let kept_in = Some(keep_damaged(disk, directory, &path, &damage.segment)?);
                recovery.damage.push(Damage { kept_in, ..damage });
            }
            Entry::Other => {}
        }
    }
    if removed {
        // Before their names are used again.
        disk.sync_dir(directory)?;
    }
    in_order(&mut segments);
    Ok(segments)
}

/// What an earlier process wrote and did not live to sync is promised by the next sync of this one.
fn sync_found(disk: &dyn Disk, directory: &Path, segments: &[Segment]) -> io::Result<()> {
    for segment in segments {
        disk.open(&segment.path, OpenMode::Read)?.sync()?;
    }
    if segments.is_empty() { Ok(()) } else { disk.sync_dir(directory) }
}

/// The identity and the first sequence of the first whole frame.
fn first_good_frame(disk: &dyn Disk, path: &Path, options: &LogOptions) -> io::Result<Option<(u64, u64)>> {
    let (bytes, _) = read_what_can_be(disk, path)?;
    let of = |log_id| next_frame(&bytes, 0, log_id, 0..u64::MAX).map(|f| (log_id, f.header.first_sequence));
    Ok(of(options.log_id).or_else(|| options.earlier_id.and_then(of)))
}

/// The segments in the folder of a log, by name, with the identity that each carries; `None` for a damaged header.
/// Nothing is changed. A folder that is not there has none.
///
/// # Errors
/// When the disk refuses a call.
pub fn segment_ids(disk: &dyn Disk, directory: &Path) -> Result<Vec<(String, Option<u64>)>, Error> {
    let read = || -> io::Result<Vec<(String, Option<u64>)>> {
        let entries = match disk.list(directory) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut found = Vec::new();
        for entry in entries.iter().filter(|e| !e.is_dir) {
            let Some(name) = entry.name.to_str().filter(|n| n.ends_with(SUFFIX)) else { continue };
            let mut front = [0; SEGMENT_HEADER_BYTES];
            let file = disk.open(&directory.join(name), OpenMode::Read)?;
            let header =
                read_patiently(&*file, &mut front, 0).ok().and_then(|()| SegmentHeader::decode(&front));
            found.push((name.to_owned(), header.map(|h| h.log_id)));
        }
        found.sort_unstable();
        Ok(found)
    };
    read().map_err(|e| Error::io(format_args!("read the log in {}", directory.display()), e))
}

/// Where the last whole frame of a segment ends, and the sequence after it.
fn whole_end(bytes: &[u8], log_id: u64, first: u64) -> (usize, u64) {
    let (mut at, mut next) = (SEGMENT_HEADER_BYTES.min(bytes.len()), first);
    while let Some(found) = next_frame(bytes, at, log_id, next..u64::MAX) {
        at = found.end(bytes);
        next = found.header.first_sequence + u64::from(found.header.count);
    }
    (at, next)
}

/// Headers that are whole say how many readings were in frames that are not; their numbers are not given again. A number
/// far beyond the room there is belongs to no frame of this log.
fn torn_numbers(bytes: &[u8], at: usize, next: u64) -> Range<u64> {
    let most = next.saturating_add((bytes.len() as u64).saturating_mul(NUMBERS_PER_BYTE));
    let end_of = |at: usize| {
        let header = torn_header(bytes, at)?;
        header.end_sequence().filter(|end| header.first_sequence >= next && *end <= most)
    };
    let end = (at..bytes.len().saturating_sub(FRAME_HEADER_BYTES - 1)).filter_map(end_of).max();
    end.map_or(0..0, |end| next..end)
}

/// Cuts what follows the last whole frame of the last segment, after copying it, and returns the first free sequence.
fn cut_torn_tail(
    disk: &dyn Disk,
    directory: &Path,
    last: &mut Segment,
    recovery: &mut Recovery,
) -> io::Result<u64> {
    let (bytes, is_whole) = read_what_can_be(disk, &last.path)?;
    let (at, mut next) = whole_end(&bytes, last.log_id, last.first);
    recovery.end_sequence = next;
    if at < bytes.len() {
        let lost = torn_numbers(&bytes, at, next);
        next = next.max(lost.end);
        let copy_name = format!("{}-{at:x}.torn", last.name());
        let kept_in = match is_whole.then(|| copy_damaged(disk, directory, &copy_name, &bytes[at..])) {
            // Zeros in place of what cannot be read are no copy of it: it stays where it is, and readers pass it.
            None => None,
            Some(Ok(path)) => {
                let file = disk.open(&last.path, OpenMode::ReadWrite)?;
                file.truncate(at as u64)?;
                file.sync()?;
                last.bytes = at as u64;
                Some(path)
            }
            // A full disk has no room for a copy, and opens all the same: the tail stays where it is, readers pass it, and
            // new frames go to a new segment.
            Some(Err(e)) if is_no_space(e.kind()) => None,
            Some(Err(e)) => return Err(e),
        };
        recovery.damage.push(Damage {
            segment: last.name(),
            offset: at as u64,
            bytes: (bytes.len() - at) as u64,
            lost,
            kept_in,
        });
    }
    Ok(next)
}

/// Passes over what follows the last whole frame of the last segment, and returns the first free sequence. What somebody is
/// appending at this moment is no damage.
fn look_at_tail(disk: &dyn Disk, last: &mut Segment, recovery: &mut Recovery) -> io::Result<u64> {
    let log_id = last.log_id;
    let mut bytes = read_all(disk, &last.path)?;
    let (at, mut next) = whole_end(&bytes, log_id, last.first);
    recovery.end_sequence = next;
    last.bytes = at as u64;
    if at == bytes.len() {
        return Ok(next);
    }
    for _ in 0..TAIL_LOOKS {
        std::thread::sleep(TAIL_PAUSE);
        let now = read_all(disk, &last.path)?;
        let (end, after) = whole_end(&now, log_id, last.first);
        if (end, now.len()) != (at, bytes.len()) {
            last.bytes = end as u64;
            return Ok(after);
        }
        bytes = now;
    }
    let lost = torn_numbers(&bytes, at, next);
    next = next.max(lost.end);
    recovery.damage.push(Damage {
        segment: last.name(),
        offset: at as u64,
        bytes: (bytes.len() - at) as u64,
        lost,
        kept_in: None,
    });
    Ok(next)
}

/// A name in `damaged/` that nothing has yet.
fn free_name(disk: &dyn Disk, folder: &Path, name: &str) -> io::Result<PathBuf> {
    let taken: Vec<_> = disk.list(folder)?.into_iter().map(|e| e.name).collect();
    let free = (0..)
        .map(|i| if i == 0 { name.to_owned() } else { format!("{name}.{i}") })
        .find(|n| !taken.iter().any(|t| t.to_str() == Some(n)));
    Ok(folder.join(free.unwrap_or_else(|| unreachable!("there are more names than files"))))
}

fn keep_damaged(disk: &dyn Disk, directory: &Path, path: &Path, name: &str) -> io::Result<PathBuf> {
    let folder = directory.join(DAMAGED);
    disk.create_dir_all(&folder)?;
    let to = free_name(disk, &folder, name)?;
    disk.rename(path, &to)?;
    disk.sync_dir(&folder)?;
    disk.sync_dir(directory)?;
    Ok(to)
}

pub(crate) fn copy_damaged(
    disk: &dyn Disk,
    directory: &Path,
    name: &str,
    bytes: &[u8],
) -> io::Result<PathBuf> {
    let folder = directory.join(DAMAGED);
    disk.create_dir_all(&folder)?;
    let to = free_name(disk, &folder, name)?;
    let file = disk.open(&to, OpenMode::CreateNew)?;
    if let Err(error) = file.write_at(bytes, 0).and_then(|()| file.sync()) {
        // Half a copy helps nobody, and the next start would make another.
        let _left_behind = disk.remove(&to);
        return Err(error);
    }
    disk.sync_dir(&folder)?;
    Ok(to)
}
