//! How segments of a log begin and end. No append waits for a sync: the next segment is made ahead by whoever syncs, and
//! beginning it takes a write and a rename. It knows nothing of what a payload means.

use crate::disk::{DiskFile, OpenMode};
use crate::error::Error;
use crate::frame::{SEGMENT_HEADER_BYTES, SegmentHeader, next_frame};
use crate::log::{Inner, Log, SUFFIX, Segment, Trimmed, UNNAMED, read_all, remove_if_there};
use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

/// A file that becomes a segment.
#[derive(Debug)]
pub(crate) struct Spare {
    path: PathBuf,
    file: Arc<dyn DiskFile>,
}

/// What a file that becomes a segment holds.
#[derive(Clone, Copy, Debug)]
enum Holds {
    /// A provisional header.
    Nothing,
    /// Its header and so many bytes of frames; a sync has covered all of it, or not.
    Frames { bytes: usize, synced: bool },
}

impl Log {
    /// From now on the caller calls [`Log::sync`] repeatedly: it makes the next segment ahead, so that no append waits
    /// for a sync, however long one takes. Until a segment is made the present one goes on.
    ///
    /// # Errors
    /// If the first one cannot be written; each sync tries again.
    pub fn make_segments_ahead(&self) -> Result<(), Error> {
        self.is_ahead.store(true, Ordering::Release);
        self.prepare()
    }

    pub(crate) fn is_ahead(&self) -> bool {
        self.is_ahead.load(Ordering::Acquire)
    }

    /// Whether the next segment is not made yet.
    pub(crate) fn needs_spare(&self) -> bool {
        // Who holds the log may wait for the disk.
        !self.has_spare.load(Ordering::Acquire)
    }

    /// Makes the next segment, so that no append has to. Durable when it returns, but for its name.
    ///
    /// # Errors
    /// If the disk cannot be written.
    pub(crate) fn prepare(&self) -> Result<(), Error> {
        let mut made = self.preparing.lock().unwrap_or_else(PoisonError::into_inner);
        let first_sequence = {
            let inner = self.lock();
            if inner.spare.is_some() {
                return Ok(());
            }
            inner.next
        };
        *made += 1;
        let name = format!("{first_sequence:016x}-{made}.{UNNAMED}");
        let header = self.header(first_sequence).encode_provisional();
        let spare = self.make(&name, &header, &[])?;
        let mut inner = self.lock();
        inner.spare = Some(spare);
        self.publish(&inner);
        Ok(())
    }

    fn header(&self, first_sequence: u64) -> SegmentHeader {
        SegmentHeader { log_id: self.options.log_id, first_sequence, created: (self.options.clock)() }
    }

    /// A file with a header and frames, synced.
    fn make(&self, name: &str, header: &[u8], frames: &[u8]) -> Result<Spare, Error> {
        let path = self.directory.join(name);
        let make = || -> io::Result<Arc<dyn DiskFile>> {
            let file = match self.disk.open(&path, OpenMode::CreateNew) {
                // Somebody took the folder away while it was in use.
                Err(e) if e.kind() == io::ErrorKind::NotFound => {
                    self.disk.create_dir_all(&self.directory)?;
                    self.disk.open(&path, OpenMode::CreateNew)?
                }
                // Left behind by a call that failed; gone for good before the name is used again.
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                    self.disk.remove(&path)?;
                    self.disk.sync_dir(&self.directory)?;
                    self.disk.open(&path, OpenMode::CreateNew)?
                }
                opened => opened?,
            };
            file.write_at(header, 0)?;
            if !frames.is_empty() {
                file.write_at(frames, SEGMENT_HEADER_BYTES as u64)?;
            }
            file.sync()?;
            Ok(file)
        };
        match make() {
            Ok(file) => Ok(Spare { path, file }),
            Err(error) => {
                // If it cannot be removed either, opening does.
                let _left_behind = self.disk.remove(&path);
                Err(Error::io(format_args!("make segment {}", path.display()), error))
            }
        }
    }

    /// Begins a segment with the next frame: the one made ahead, or, when there is none and no other takes frames, one that is
    /// made now.
    pub(crate) fn begin(&self, inner: &mut Inner) -> Result<(), Error> {
        let first = inner.next;
        inner.roll_next = false;
        if let Some(spare) = inner.spare.take() {
            self.publish(inner);
            let header = self.header(first);
            let path = spare.path.clone();
            match self.begin_with(inner, spare, &header, Holds::Nothing) {
                Ok(()) => return Ok(()),
                Err(_) if inner.active => {
                    let _left_behind = self.disk.remove(&path);
                    return Ok(());
                }
                // Its file is gone, or the disk refuses: once more, from the start.
                Err(_) => {
                    let _left_behind = self.disk.remove(&path);
                }
            }
        }
        if inner.active && self.is_ahead() {
            return Ok(());
        }
        let header = self.header(first);
        let name = format!("{first:016x}.{UNNAMED}");
        let made = self.make(&name, &header.encode(), &[])?;
        self.begin_with(inner, made, &header, Holds::Frames { bytes: 0, synced: true })
    }

    /// Gives a file its place behind all other segments, under its name.
    fn begin_with(
        &self,
        inner: &mut Inner,
        made: Spare,
        header: &SegmentHeader,
        holds: Holds,
    ) -> Result<(), Error> {
        // After all others, also after one that was written again without anything new.
        let number = inner.segments.last().map_or(0, |s| s.number + 1).max(inner.next);
        let path = self.directory.join(format!("{number:016x}{SUFFIX}"));
        let begin = || {
            if matches!(holds, Holds::Nothing) {
                made.file.write_at(&header.encode(), 0)?;
            }
            self.disk.rename(&made.path, &path)
        };
        begin().map_err(|e| Error::io(format_args!("begin segment {}", path.display()), e))?;
        let (bytes, synced) = match holds {
            Holds::Nothing => (0, false),
            Holds::Frames { bytes, synced } => (bytes, synced),
        };
        inner.segments.push(Segment {
            number,
            log_id: self.options.log_id,
            path,
            first: header.first_sequence,
            end: inner.next,
            bytes: (SEGMENT_HEADER_BYTES + bytes) as u64,
            created: header.created,
            file: Some(made.file),
            dirty: !synced,
            header_synced: !matches!(holds, Holds::Nothing),
        });
        (inner.active, inner.roll_next, inner.folder_dirty) = (true, false, true);
        self.publish(inner);
        Ok(())
    }

    /// Writes what no sync has covered to a new segment, which takes the place of what earlier ones hold of it. Appends go on
    /// meanwhile, to a segment of their own, and the new one takes over their frames too.
    pub(crate) fn write_again(&self) -> Result<(), Error> {
        let (first, end, frames) = {
            let mut inner = self.lock();
            if inner.unsynced.is_empty() {
                inner.broken = false;
                return Ok(());
            }
            (inner.synced, inner.next, self.frames_from(&inner, inner.synced))
        };
        let header = self.header(first);
        let made = self.make(&format!("{end:016x}-again.{UNNAMED}"), &header.encode(), &frames)?;
        let mut inner = self.lock();
        let since = if inner.next > end { self.frames_from(&inner, end) } else { Vec::new() };
        let done = match since.is_empty() {
            true => Ok(()),
            false => made.file.write_at(&since, (SEGMENT_HEADER_BYTES + frames.len()) as u64),
        };
        let path = made.path.clone();
        let holds = Holds::Frames { bytes: frames.len() + since.len(), synced: since.is_empty() };
        let done = done
            .map_err(|e| Error::io(format_args!("write {}", path.display()), e))
            .and_then(|()| self.begin_with(&mut inner, made, &header, holds));
        if let Err(error) = done {
            let _left_behind = self.disk.remove(&path);
            return Err(error);
        }
        // Whatever earlier segments hold that no sync has covered is in this one.
        let last = inner.segments.len() - 1;
        inner.segments[..last].iter_mut().for_each(|s| s.dirty = false);
        inner.stats.bytes_written += (frames.len() + since.len()) as u64;
        inner.broken = false;
        Ok(())
    }

    /// Frames from a number on: from memory, and beyond its bound from the segments.
    fn frames_from(&self, inner: &Inner, from: u64) -> Vec<u8> {
        inner.unsynced.from(from, inner.next, |numbers| self.read_frames(inner, numbers))
    }

    /// The bytes of frames as segments have them. What cannot be read is left out, and lost: readers report it.
    fn read_frames(&self, inner: &Inner, numbers: Range<u64>) -> Vec<u8> {
        let mut out = Vec::new();
        let mut next = numbers.start;
        for (i, segment) in inner.segments.iter().enumerate() {
            let limit = inner.segments[i + 1..].iter().map(|s| s.first).min().unwrap_or(u64::MAX);
            let limit = limit.min(numbers.end);
            if segment.end <= next || limit <= next {
                continue;
            }
            let Ok(bytes) = read_all(&*self.disk, &segment.path) else { continue };
            let mut at = SEGMENT_HEADER_BYTES.min(bytes.len());
            while let Some(found) = next_frame(&bytes, at, segment.log_id, next..limit) {
                at = found.end(&bytes);
                out.extend_from_slice(&bytes[found.offset..at]);
                out.resize(out.len().next_multiple_of(8), 0);
                next = found.header.first_sequence + u64::from(found.header.count);
            }
        }
        out
    }

    /// Removes the segments whose sequences are all below `before`, oldest first. Freeing needs no room, and no append waits
    /// for it.
    ///
    /// # Errors
    /// If the disk cannot be written; the next call tries again to remove what is left.
    pub fn trim(&self, before: u64) -> Result<Trimmed, Error> {
        let _one = self.trimming.lock().unwrap_or_else(PoisonError::into_inner);
        let mut trimmed = Trimmed::default();
        loop {
            let (is_only, next, folder_dirty) = {
                let mut inner = self.lock();
                if !may_go(&inner, before) {
                    break;
                }
                (inner.segments.len() == 1, inner.next, std::mem::take(&mut inner.folder_dirty))
            };
            // The next sequence must outlive the last frame: an empty segment remembers it. Without room for that the last
            // segment stays.
            if is_only && self.remember(next).is_err() {
                self.lock().folder_dirty |= folder_dirty;
                break;
            }
            self.sync_header_after_oldest()?;
            if folder_dirty || is_only {
                // A power cut may keep a removal and forget the name of what comes after it.
                if let Err(error) = self.sync_folder() {
                    self.lock().folder_dirty = true;
                    return Err(error);
                }
            }
            let mut inner = self.lock();
            if !may_go(&inner, before) {
                break;
            }
            if inner.folder_dirty || inner.segments.get(1).is_none_or(|s| !s.header_synced) {
                // Another segment was begun meanwhile.
                continue;
            }
            self.remove_oldest(&mut inner, &mut trimmed)?;
        }
        if trimmed.segments > 0 {
            self.sync_folder()?;
        }
        Ok(trimmed)
    }

    /// Makes the header of the segment behind the oldest durable: it remembers the numbers that the oldest had.
    fn sync_header_after_oldest(&self) -> Result<(), Error> {
        let (number, file, path) = {
            let inner = self.lock();
            let Some(segment) = inner.segments.get(1).filter(|s| !s.header_synced) else { return Ok(()) };
            (segment.number, segment.file.clone(), segment.path.clone())
        };
        let file = match file {
            Some(file) => file,
            None => self
                .disk
                .open(&path, OpenMode::Read)
                .map_err(|e| Error::io(format_args!("sync segment {}", path.display()), e))?,
        };
        if let Err(error) = file.sync() {
            // The kernel may have dropped its pages.
            let mut inner = self.lock();
            (inner.broken, inner.active, inner.roll_next) = (true, false, false);
            inner.stats.failed_syncs += 1;
            return Err(Error::io(format_args!("sync {}", path.display()), error));
        }
        let mut inner = self.lock();
        inner.segments.iter_mut().filter(|s| s.number == number).for_each(|s| s.header_synced = true);
        Ok(())
    }

    /// Like [`Log::trim`], and waits for no sync: a power cut may bring back what was removed, or forget the numbers of lines
    /// that no sync has covered. The last segment stays.
    pub(crate) fn let_go(&self, before: u64) -> Result<Trimmed, Error> {
        let mut inner = self.lock();
        let mut trimmed = Trimmed::default();
        while inner.segments.len() > 1 && may_go(&inner, before) {
            self.remove_oldest(&mut inner, &mut trimmed)?;
            inner.folder_dirty = true;
        }
        Ok(trimmed)
    }

    fn remove_oldest(&self, inner: &mut Inner, trimmed: &mut Trimmed) -> Result<(), Error> {
        let oldest = &inner.segments[0];
        remove_if_there(&*self.disk, &oldest.path)
            .map_err(|e| Error::io(format_args!("remove segment {}", oldest.path.display()), e))?;
        trimmed.segments += 1;
        trimmed.bytes += oldest.bytes;
        inner.segments.remove(0);
        self.publish(inner);
        Ok(())
    }

    /// An empty segment behind the last one, whose numbers begin with the next sequence, unless another was begun meanwhile.
    fn remember(&self, next: u64) -> Result<(), Error> {
        let header = self.header(next);
        let made = self.make(&format!("{next:016x}-empty.{UNNAMED}"), &header.encode(), &[])?;
        let mut inner = self.lock();
        let path = made.path.clone();
        if inner.next == next && !inner.active {
            self.begin_with(&mut inner, made, &header, Holds::Frames { bytes: 0, synced: true })?;
        } else {
            drop(inner);
            let _left_behind = self.disk.remove(&path);
        }
        Ok(())
    }
}

/// Whether the oldest segment may go when everything before a number may.
fn may_go(inner: &Inner, before: u64) -> bool {
    let Some(oldest) = inner.segments.first() else { return false };
    let following = inner.segments.get(1).map(|s| s.first);
    let end = following.unwrap_or(oldest.end);
    end <= before && !(inner.active && following.is_none()) && !(inner.broken && end > inner.synced)
}

impl Drop for Log {
    fn drop(&mut self) {
        // Else the next opening removes it.
        if let Some(spare) = self.lock().spare.take() {
            let _left_behind = self.disk.remove(&spare.path);
        }
    }
}
