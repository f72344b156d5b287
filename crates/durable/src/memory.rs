//! A disk in memory, bounded: the lanes of who wants no spool on disk, and of the embedded store, whose own log is on
//! one.

use crate::disk::{DirEntry, Disk, DiskFile, DiskLock, OpenMode, Space};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

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
    bytes: RwLock<Vec<u8>>,
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
        let bytes = self.bytes.get_mut().map_or(0, |b| b.len());
        self.room.give_back(bytes as u64);
    }
}

impl DiskFile for MemoryFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let bytes = self.bytes.read().unwrap_or_else(PoisonError::into_inner);
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
        let n = buffer.len().min(bytes.len() - from);
        buffer[..n].copy_from_slice(&bytes[from..from + n]);
        Ok(n)
    }

    fn write_at(&self, new: &[u8], offset: u64) -> io::Result<()> {
        let mut bytes = self.bytes.write().unwrap_or_else(PoisonError::into_inner);
        let from = usize::try_from(offset).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
        let end = from.checked_add(new.len()).ok_or_else(|| io::Error::from(io::ErrorKind::FileTooLarge))?;
        if end > bytes.len() {
            self.room.take((end - bytes.len()) as u64)?;
            if from == bytes.len() {
                bytes.extend_from_slice(new);
                return Ok(());
            }
            bytes.resize(end, 0);
        }
        bytes[from..end].copy_from_slice(new);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        let mut bytes = self.bytes.write().unwrap_or_else(PoisonError::into_inner);
        let length = usize::try_from(length).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
        if length > bytes.len() {
            self.room.take((length - bytes.len()) as u64)?;
        } else {
            self.room.give_back((bytes.len() - length) as u64);
        }
        bytes.resize(length, 0);
        Ok(())
    }

    fn bytes(&self) -> io::Result<u64> {
        Ok(self.bytes.read().unwrap_or_else(PoisonError::into_inner).len() as u64)
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

    fn space(&self, _path: &Path) -> io::Result<Space> {
        let room = &self.shared.room;
        let used = room.used.load(Ordering::Relaxed);
        // Nobody else uses it: nothing need be kept free.
        Ok(Space::new(room.capacity, room.capacity.saturating_sub(used)))
    }
}
