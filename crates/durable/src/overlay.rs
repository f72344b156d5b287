//! A disk that cannot be written, as if it could: reads go to the disk below, changes stay in memory. What needs to mend a
//! file before it reads it, a torn tail for instance, works on a disk that is read-only or full.

use crate::disk::{DirEntry, Disk, DiskFile, DiskLock, OpenMode, Space};
use crate::memory::MemoryDisk;
use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Reads from a disk, and keeps every change in memory until it is dropped.
#[derive(Debug)]
pub struct OverlayDisk {
    below: Arc<dyn Disk>,
    above: MemoryDisk,
    /// Files of the disk below that are gone as far as this one is concerned.
    gone: Mutex<BTreeSet<PathBuf>>,
}

impl OverlayDisk {
    /// Over a disk, with room for so many bytes of changes.
    #[must_use]
    pub fn new(below: Arc<dyn Disk>, capacity: u64) -> Self {
        Self { below, above: MemoryDisk::new(capacity), gone: Mutex::default() }
    }

    fn gone(&self) -> MutexGuard<'_, BTreeSet<PathBuf>> {
        self.gone.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The file of the disk below, unless it is gone.
    fn below(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        if self.gone().contains(path) {
            return Err(io::Error::from(io::ErrorKind::NotFound));
        }
        self.below.open(path, OpenMode::Read)
    }

    fn new_file(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        if let Some(parent) = path.parent() {
            self.above.create_dir_all(parent)?;
        }
        self.above.open(path, OpenMode::CreateNew)
    }

    /// The file in memory, copied there when it is only below.
    fn copied(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        if let Ok(file) = self.above.open(path, OpenMode::ReadWrite) {
            return Ok(file);
        }
        let below = self.below(path)?;
        let copy = self.new_file(path)?;
        let mut buffer = vec![0; 256 << 10];
        let mut at = 0;
        loop {
            match below.read_at(&mut buffer, at)? {
                0 => return Ok(copy),
                n => copy.write_at(&buffer[..n], at)?,
            }
            at = copy.bytes()?;
        }
    }
}

impl Disk for OverlayDisk {
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.above.create_dir_all(path)
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<DirEntry>> {
        let above = self.above.list(directory);
        let below = self.below.list(directory);
        if let (Err(error), true) = (&below, above.is_err()) {
            return Err(io::Error::from(error.kind()));
        }
        let mut found = above.unwrap_or_default();
        let gone = self.gone();
        for entry in below.unwrap_or_default() {
            let known = found.iter().any(|e| e.name == entry.name);
            if !known && !gone.contains(&directory.join(&entry.name)) {
                found.push(entry);
            }
        }
        Ok(found)
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        match mode {
            OpenMode::Read => self.above.open(path, mode).or_else(|_| self.below(path)),
            OpenMode::ReadWrite => self.copied(path),
            OpenMode::CreateNew if self.below(path).is_ok() => {
                Err(io::Error::from(io::ErrorKind::AlreadyExists))
            }
            OpenMode::CreateNew => self.new_file(path),
        }
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        drop(self.copied(from)?);
        self.above.rename(from, to)?;
        self.gone().insert(from.to_owned());
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let there = self.below(path).is_ok();
        let removed = self.above.remove(path);
        self.gone().insert(path.to_owned());
        if there { Ok(()) } else { removed }
    }

    fn sync_dir(&self, _directory: &Path) -> io::Result<()> {
        Ok(())
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn DiskLock>> {
        self.above.lock(path)
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        self.above.space(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::{Log, LogOptions};
    use crate::sim::SimDisk;

    #[test]
    fn a_torn_log_is_mended_in_memory_and_left_as_it_is_on_the_disk() {
        let disk = SimDisk::new();
        let folder = Path::new("/log");
        let options = || LogOptions::new(7).segment_bytes(200);
        let (log, _) = Log::open(Arc::new(disk.clone()), folder, options()).unwrap();
        for i in 0..10u8 {
            log.append(&[i; 50], 1).unwrap();
        }
        drop(log);
        let last = disk.files().into_iter().max().unwrap();
        let mut bytes = disk.bytes(&last).unwrap();
        bytes.truncate(bytes.len() - 20);
        disk.set_bytes(&last, bytes);
        let before: Vec<_> = disk.files().iter().map(|p| disk.bytes(p)).collect();
        let overlay = Arc::new(OverlayDisk::new(Arc::new(disk.clone()), 1 << 20));
        let (log, recovery) = Log::open(overlay.clone(), folder, options()).unwrap();
        assert_eq!((recovery.damage.len(), log.replay(0).filter(Result::is_ok).count()), (1, 9));
        log.append(b"in memory only", 1).unwrap();
        log.sync().unwrap();
        log.trim(5).unwrap();
        assert!(log.first_sequence() > 1);
        drop(log);
        let (log, recovery) = Log::open(overlay, folder, options()).unwrap();
        assert!(recovery.damage.is_empty() && log.first_sequence() > 1, "changes stay while it lives");
        let after: Vec<_> = disk.files().iter().map(|p| disk.bytes(p)).collect();
        assert_eq!(before, after);
    }

    #[test]
    fn files_are_found_changed_and_gone_as_on_any_disk() {
        let below = MemoryDisk::new(1 << 20);
        let path = Path::new("/a/one");
        below.create_dir_all(Path::new("/a")).unwrap();
        below.open(path, OpenMode::CreateNew).unwrap().write_at(b"below", 0).unwrap();
        let disk = OverlayDisk::new(Arc::new(below.clone()), 1 << 20);
        let names = || {
            let mut names: Vec<_> = disk.list(Path::new("/a")).unwrap().into_iter().map(|e| e.name).collect();
            names.sort();
            names
        };
        assert!(disk.open(path, OpenMode::CreateNew).is_err());
        disk.open(path, OpenMode::ReadWrite).unwrap().write_at(b"ABOVE!", 0).unwrap();
        let mut read = [0; 6];
        assert_eq!(disk.open(path, OpenMode::Read).unwrap().read_at(&mut read, 0).unwrap(), 6);
        assert_eq!((&read, names()), (b"ABOVE!", vec!["one".into()]));
        disk.rename(path, Path::new("/a/two")).unwrap();
        assert_eq!(names(), ["two"]);
        assert!(disk.open(path, OpenMode::Read).is_err() && disk.remove(path).is_err());
        disk.open(path, OpenMode::CreateNew).unwrap();
        disk.remove(Path::new("/a/two")).unwrap();
        assert_eq!(names(), ["one"]);
        assert!(disk.list(Path::new("/b")).is_err());
        assert_eq!(below.open(path, OpenMode::Read).unwrap().bytes().unwrap(), 5);
    }
}
