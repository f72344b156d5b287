//! A disk in memory, bounded: the lanes of who wants no spool on disk, and of the embedded store, whose own log is on
//! one.

use crate::disk::{DirEntry, Disk, DiskFile, DiskLock, OpenMode, Space};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

/// Files grow in pieces of this length.
const CHUNK_BYTES: usize = 64 << 10;

/// A disk in memory. Clones are the same disk.
#[derive(Clone, Debug)]
pub struct MemoryDisk {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    room: Arc<Room>,
    names: Mutex<Names>,
}

/// How many bytes there are, and how many of them files have. All that a file knows of its disk: if it held the disk, which
/// holds it, neither would ever go.
#[derive(Debug)]
struct Room {
    capacity: u64,
    used: AtomicU64,
}

#[derive(Debug, Default)]
struct Names {
    files: BTreeMap<PathBuf, Arc<MemoryFile>>,
    folders: BTreeSet<PathBuf>,
    locks: BTreeSet<PathBuf>,
}

#[derive(Debug)]
struct MemoryFile {
    room: Arc<Room>,
    bytes: RwLock<Bytes>,
}

/// The bytes of a file in chunks of one length: it grows without being copied, and takes no more memory than it has bytes,
/// but for a part of the last chunk.
#[derive(Debug, Default)]
struct Bytes {
    chunks: Vec<Vec<u8>>,
    length: usize,
}

impl Bytes {
    fn resize(&mut self, length: usize) {
        self.chunks.truncate(length.div_ceil(CHUNK_BYTES));
        if let Some(last) = self.chunks.last_mut() {
            let kept = length - (length - 1) / CHUNK_BYTES * CHUNK_BYTES;
            last.truncate(if length < self.length { kept } else { CHUNK_BYTES });
        }
        self.length = self.length.min(length);
        let zeros = [0; 4096];
        while self.length < length {
            self.append(&zeros[..zeros.len().min(length - self.length)]);
        }
    }

    fn append(&mut self, mut new: &[u8]) {
        while !new.is_empty() {
            if self.length.is_multiple_of(CHUNK_BYTES) {
                self.chunks.push(Vec::new());
            }
            let Some(last) = self.chunks.last_mut() else { return };
            let n = new.len().min(CHUNK_BYTES - last.len());
            last.extend_from_slice(&new[..n]);
            self.length += n;
            new = &new[n..];
        }
    }

    /// As many bytes from a place on as there are and the buffer takes.
    fn read(&self, from: usize, buffer: &mut [u8]) -> usize {
        let n = buffer.len().min(self.length.saturating_sub(from));
        let mut done = 0;
        while done < n {
            let (chunk, at) = ((from + done) / CHUNK_BYTES, (from + done) % CHUNK_BYTES);
            let piece = (n - done).min(CHUNK_BYTES - at);
            buffer[done..done + piece].copy_from_slice(&self.chunks[chunk][at..at + piece]);
            done += piece;
        }
        n
    }

    /// Replaces bytes that are there.
    fn write(&mut self, from: usize, new: &[u8]) {
        let mut done = 0;
        while done < new.len() {
            let (chunk, at) = ((from + done) / CHUNK_BYTES, (from + done) % CHUNK_BYTES);
            let piece = (new.len() - done).min(CHUNK_BYTES - at);
            self.chunks[chunk][at..at + piece].copy_from_slice(&new[done..done + piece]);
            done += piece;
        }
    }
}

#[derive(Debug)]
struct MemoryLock {
    disk: Arc<Shared>,
    path: PathBuf,
}

impl MemoryDisk {
    /// An empty disk for so many bytes of files.
    #[must_use]
    pub fn new(capacity: u64) -> Self {
        let room = Arc::new(Room { capacity, used: AtomicU64::new(0) });
        Self { shared: Arc::new(Shared { room, names: Mutex::default() }) }
    }

    /// Bytes of all files.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        self.shared.room.used.load(Ordering::Relaxed)
    }
}

impl Shared {
    fn names(&self) -> MutexGuard<'_, Names> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Room {
    /// Takes room, or says that there is none.
    fn take(&self, bytes: u64) -> io::Result<()> {
        let fits = |used: u64| used.checked_add(bytes).filter(|&n| n <= self.capacity);
        let taken = self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits);
        taken.map(|_| ()).map_err(|_| io::Error::from(io::ErrorKind::StorageFull))
    }

    fn give_back(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl DiskLock for MemoryLock {}

impl Drop for MemoryLock {
    fn drop(&mut self) {
        self.disk.names().locks.remove(&self.path);
    }
}

impl Drop for MemoryFile {
    fn drop(&mut self) {
        let bytes = self.bytes.get_mut().map_or(0, |b| b.length);
        self.room.give_back(bytes as u64);
    }
}

impl DiskFile for MemoryFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let bytes = self.bytes.read().unwrap_or_else(PoisonError::into_inner);
        Ok(bytes.read(usize::try_from(offset).unwrap_or(usize::MAX), buffer))
    }

    fn write_at(&self, new: &[u8], offset: u64) -> io::Result<()> {
        let mut bytes = self.bytes.write().unwrap_or_else(PoisonError::into_inner);
        let from = usize::try_from(offset).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
        let end = from.checked_add(new.len()).ok_or_else(|| io::Error::from(io::ErrorKind::FileTooLarge))?;
        if end > bytes.length {
            self.room.take((end - bytes.length) as u64)?;
        }
        if from > bytes.length {
            bytes.resize(from);
        }
        let there = new.len().min(bytes.length - from);
        bytes.write(from, &new[..there]);
        bytes.append(&new[there..]);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        let mut bytes = self.bytes.write().unwrap_or_else(PoisonError::into_inner);
        let length = usize::try_from(length).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
        if length > bytes.length {
            self.room.take((length - bytes.length) as u64)?;
        } else {
            self.room.give_back((bytes.length - length) as u64);
        }
        bytes.resize(length);
        Ok(())
    }

    fn bytes(&self) -> io::Result<u64> {
        Ok(self.bytes.read().unwrap_or_else(PoisonError::into_inner).length as u64)
    }
}

impl Disk for MemoryDisk {
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let folders = path.ancestors().map(Path::to_owned);
        self.shared.names().folders.extend(folders);
        Ok(())
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<DirEntry>> {
        let names = self.shared.names();
        if !names.folders.contains(directory) {
            return Err(io::Error::from(io::ErrorKind::NotFound));
        }
        let name = |path: &Path| -> Option<OsString> {
            (path.parent() == Some(directory)).then(|| path.file_name().map(OsString::from))?
        };
        let mut found = Vec::new();
        for (path, file) in &names.files {
            if let Some(name) = name(path) {
                found.push(DirEntry::new(name, file.bytes()?, false));
            }
        }
        found.extend(names.folders.iter().filter_map(|p| name(p)).map(|n| DirEntry::new(n, 0, true)));
        Ok(found)
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let mut names = self.shared.names();
        let there = names.files.get(path).cloned();
        match (mode, there) {
            (OpenMode::CreateNew, Some(_)) => Err(io::Error::from(io::ErrorKind::AlreadyExists)),
            (OpenMode::CreateNew, None) => {
                let file = MemoryFile { room: self.shared.room.clone(), bytes: RwLock::default() };
                let file = Arc::new(file);
                names.files.insert(path.to_owned(), file.clone());
                Ok(file)
            }
            (_, Some(file)) => Ok(file),
            (_, None) => Err(io::Error::from(io::ErrorKind::NotFound)),
        }
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut names = self.shared.names();
        let file = names.files.remove(from).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        names.files.insert(to.to_owned(), file);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let removed = self.shared.names().files.remove(path);
        removed.map(|_| ()).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }

    fn sync_dir(&self, _directory: &Path) -> io::Result<()> {
        Ok(())
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn DiskLock>> {
        if !self.shared.names().locks.insert(path.to_owned()) {
            return Err(io::Error::from(io::ErrorKind::WouldBlock));
        }
        Ok(Box::new(MemoryLock { disk: self.shared.clone(), path: path.to_owned() }))
    }

    fn is_volatile(&self) -> bool {
        true
    }

    fn space(&self, _path: &Path) -> io::Result<Space> {
        let room = &self.shared.room;
        let used = room.used.load(Ordering::Relaxed);
        // Nobody else uses it: nothing need be kept free.
        Ok(Space::new(room.capacity, room.capacity.saturating_sub(used)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_the_bytes_that_were_written_whatever_the_chunks() {
        let disk = MemoryDisk::new(u64::MAX);
        let file = disk.open(Path::new("/f"), OpenMode::CreateNew).unwrap();
        let mut expected: Vec<u8> = Vec::new();
        let mut seed = 7u64;
        let mut dice = |n: usize| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 33) as usize % n
        };
        for round in 0..400 {
            if dice(4) == 0 {
                let length = dice(5 * CHUNK_BYTES);
                file.truncate(length as u64).unwrap();
                expected.resize(length, 0);
            } else {
                let (from, new) = (dice(4 * CHUNK_BYTES), vec![round as u8; dice(2 * CHUNK_BYTES)]);
                file.write_at(&new, from as u64).unwrap();
                let end = from + new.len();
                expected.resize(expected.len().max(end), 0);
                expected[from..end].copy_from_slice(&new);
            }
            let mut read = vec![1; expected.len() + 1];
            assert_eq!(file.read_at(&mut read, 0).unwrap(), expected.len());
            assert!(read[..expected.len()] == expected[..], "round {round}");
            assert_eq!(
                (file.bytes().unwrap(), disk.used_bytes()),
                (expected.len() as u64, expected.len() as u64)
            );
        }
    }
}
