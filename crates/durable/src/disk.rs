//! The disk as durable code sees it: a few calls, each of which may fail. The real one is here, the simulated one in
//! `sim.rs`. Nothing else in the project that promises survival touches `std::fs`.

use std::ffi::OsString;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

/// A disk: files in folders, and the calls that make them last.
pub trait Disk: fmt::Debug + Send + Sync {
    /// Makes a folder and those above it, durable when it returns.
    ///
    /// # Errors
    /// What the file system says.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;

    /// What is in a folder, in no order.
    ///
    /// # Errors
    /// What the file system says.
    fn list(&self, directory: &Path) -> io::Result<Vec<DirEntry>>;

    /// Opens a file.
    ///
    /// # Errors
    /// What the file system says; [`OpenMode::CreateNew`] fails when the file exists.
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>>;

    /// Gives a file another name in one step, replacing what had it. Durable after [`Disk::sync_dir`].
    ///
    /// # Errors
    /// What the file system says.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file. Durable after [`Disk::sync_dir`].
    ///
    /// # Errors
    /// What the file system says.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes the names in a folder durable.
    ///
    /// # Errors
    /// What the file system says.
    fn sync_dir(&self, directory: &Path) -> io::Result<()>;

    /// Holds a lock file until the answer is dropped or the process ends; its text is this process's number.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] when somebody holds it, or what the file system says.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn DiskLock>>;

    /// Whether nothing on it survives the process: then nothing need be kept for a sync that fails.
    fn is_volatile(&self) -> bool {
        false
    }

    /// Room on the file system that holds `path`.
    ///
    /// # Errors
    /// What the file system says.
    fn space(&self, path: &Path) -> io::Result<Space>;
}

/// An open file. Everything takes `&self`: a sync may run while another thread appends.
pub trait DiskFile: fmt::Debug + Send + Sync {
    /// Reads at `offset` as much as there is, up to the length of `buffer`; 0 at the end.
    ///
    /// # Errors
    /// What the file system says.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes all of `bytes` at `offset`.
    ///
    /// # Errors
    /// What the file system says; some of the bytes may have been written.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Makes what was written durable (`fdatasync`).
    ///
    /// # Errors
    /// What the file system says. Afterwards nobody knows what of the un-synced bytes is on the disk.
    fn sync(&self) -> io::Result<()>;

    /// Cuts or extends the file.
    ///
    /// # Errors
    /// What the file system says.
    fn truncate(&self, bytes: u64) -> io::Result<()>;

    /// Length in bytes.
    ///
    /// # Errors
    /// What the file system says.
    fn bytes(&self) -> io::Result<u64>;
}

/// Holds a lock file while it lives.
pub trait DiskLock: fmt::Debug + Send + Sync {}

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OpenMode {
    /// An existing file, to read.
    Read,
    /// An existing file, to read and write.
    ReadWrite,
    /// A new file, to read and write.
    CreateNew,
}

/// An entry of a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DirEntry {
    /// Its name in the folder.
    pub name: OsString,
    /// Its length.
    pub bytes: u64,
    /// Whether it is a folder itself.
    pub is_dir: bool,
}

impl DirEntry {
    pub(crate) fn new(name: OsString, bytes: u64, is_dir: bool) -> Self {
        Self { name, bytes, is_dir }
    }
}

/// Room on a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Space {
    /// All of it.
    pub total_bytes: u64,
    /// What this process may still use.
    pub available_bytes: u64,
}

impl Space {
    pub(crate) fn new(total_bytes: u64, available_bytes: u64) -> Self {
        Self { total_bytes, available_bytes }
    }
}

/// The disk of the machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealDisk;

#[derive(Debug)]
struct RealFile(File);

#[derive(Debug)]
struct RealLock(#[expect(dead_code, reason = "the lock is held while the file is open")] File);

impl DiskLock for RealLock {}

impl DiskFile for RealFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn truncate(&self, bytes: u64) -> io::Result<()> {
        self.0.set_len(bytes)
    }

    fn bytes(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }
}

impl Disk for RealDisk {
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        // The folders that are missing, deepest last; each is durable when the one above it is synced.
        let missing: Vec<&Path> =
            path.ancestors().take_while(|p| !p.as_os_str().is_empty() && !p.is_dir()).collect();
        fs::create_dir_all(path)?;
        for made in missing.into_iter().rev() {
            match made.parent() {
                Some(parent) if !parent.as_os_str().is_empty() => self.sync_dir(parent)?,
                _ => self.sync_dir(Path::new("."))?,
            }
        }
        Ok(())
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<DirEntry>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            match entry.metadata() {
                Ok(meta) => found.push(DirEntry::new(entry.file_name(), meta.len(), meta.is_dir())),
                // Removed since it was listed.
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(e),
            }
        }
        Ok(found)
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        options.read(true);
        match mode {
            OpenMode::Read => &mut options,
            OpenMode::ReadWrite => options.write(true),
            OpenMode::CreateNew => options.write(true).create_new(true),
        };
        Ok(Arc::new(RealFile(options.open(path)?)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_dir(&self, directory: &Path) -> io::Result<()> {
        File::open(directory)?.sync_all()
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn DiskLock>> {
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive)?;
        // Who holds it, for the error another process shows. The lock does not depend on it.
        let own = std::process::id().to_string();
        let mut known = String::new();
        let _unreadable = file.read_to_string(&mut known);
        if known != own {
            // A full disk has no room for it: the spool must open all the same, or nothing would ever free any.
            let _only_for_people =
                file.set_len(0).and_then(|()| file.rewind()).and_then(|()| file.write_all(own.as_bytes()));
        }
        Ok(Box::new(RealLock(file)))
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        let stat = rustix::fs::statvfs(path)?;
        Ok(Space::new(stat.f_blocks * stat.f_frsize, stat.f_bavail * stat.f_frsize))
    }
}
