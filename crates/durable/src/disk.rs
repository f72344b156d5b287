//! The one door to the file system: the trait, and the real disk behind it.
//!
//! It must not know what the bytes mean, nor retry, nor decide: it does one call and says what happened.

use std::{
    ffi::OsString,
    fmt,
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read as _, Seek as _, Write as _},
    os::unix::fs::FileExt as _,
    path::Path,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

/// What durable code may ask of a file system. [`RealDisk`] and [`SimDisk`](crate::SimDisk) implement it.
///
/// Every method is one call with one outcome; errors are the operating system's, unchanged, so that
/// [`io::Error::raw_os_error`] and [`io::Error::kind`] mean the same on both disks.
pub trait Disk: fmt::Debug + Send + Sync {
    /// Creates `path` and the folders above it, and makes their names durable before it returns. Existing folders are fine.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;

    /// The files and folders directly in `dir`, in no particular order.
    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>>;

    /// Opens one file. A created file's name is durable only after [`sync_dir`](Disk::sync_dir) on its folder.
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>>;

    /// Renames atomically; an existing `to` is replaced. Durable after [`sync_dir`](Disk::sync_dir).
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Unlinks a file. Durable after [`sync_dir`](Disk::sync_dir); open handles go on working.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes the names in `dir` durable: creations, renames and removals.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// Takes the exclusive lock on the file at `path`, creating it, and writes this process's id into it as text.
    ///
    /// The lock ends when the value is dropped or the process dies, however it dies. The file stays.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`], naming the holder's process id, when another process, or another call in this one,
    /// holds it.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn DiskLock>>;

    /// The size of the file system `path` is on and what is left of it for this user.
    fn space(&self, path: &Path) -> io::Result<Space>;

    /// The time this disk would stamp on a file now, in nanoseconds since 1970; negative before it.
    ///
    /// Nothing is ordered or decided by it: a wall clock may jump.
    fn now_unix_ns(&self) -> i64;
}

/// An open file. Every method takes `&self`, so that one thread may sync while another appends.
pub trait DiskFile: fmt::Debug + Send + Sync {
    /// Reads up to `buf.len()` bytes at `offset`; fewer only at the end of the file, 0 at or behind it.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes all of `buf` at `offset`, or fails, in which case any part of it may have been written.
    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()>;

    /// `fdatasync`: the bytes written before the call, and the length needed to read them, are on the disk when it returns.
    ///
    /// After an error the operating system may have dropped the bytes and may report success the next time, so the only
    /// safe answer is to write them again elsewhere.
    fn sync(&self) -> io::Result<()>;

    /// Cuts the file to `bytes`, or extends it with zeros.
    fn truncate(&self, bytes: u64) -> io::Result<()>;

    /// The length in bytes.
    fn len(&self) -> io::Result<u64>;

    /// Whether the file has no bytes.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
}

/// A held lock; dropping it releases it.
pub trait DiskLock: fmt::Debug + Send + Sync {}

/// One name in a folder.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DirEntry {
    /// The last component of the path.
    pub name: OsString,
    /// The length of a file; 0 for a folder.
    pub bytes: u64,
    /// Whether it is a folder.
    pub is_dir: bool,
}

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// An existing file, for reading.
    Read,
    /// An existing file, for reading and writing.
    ReadWrite,
    /// A file that does not exist yet, for reading and writing; [`io::ErrorKind::AlreadyExists`] otherwise.
    CreateNew,
}

/// The size of a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// All of it.
    pub total_bytes: u64,
    /// What an ordinary user may still fill.
    pub available_bytes: u64,
}

/// The operating system's file system.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let existed = fs::metadata(path).is_ok_and(|it| it.is_dir());
        fs::create_dir_all(path)?;
        // A folder found existing may have been made by a process that died before it synced the name. So every folder
        // above is synced; only where this call made nothing may one we have no right to open be passed over.
        for parent in path.ancestors().skip(1) {
            let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
            match self.sync_dir(parent) {
                Ok(()) => {}
                Err(error) if existed || error.kind() == io::ErrorKind::PermissionDenied => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            let metadata = match entry.metadata() {
                Ok(metadata) => metadata,
                // Removed between the two calls.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            let is_dir = metadata.is_dir();
            entries.push(DirEntry { name: entry.file_name(), bytes: if is_dir { 0 } else { metadata.len() }, is_dir });
        }
        Ok(entries)
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        options.read(true);
        match mode {
            OpenMode::Read => {}
            OpenMode::ReadWrite => {
                options.write(true);
            }
            OpenMode::CreateNew => {
                options.write(true).create_new(true);
            }
        }
        Ok(Arc::new(RealFile { file: options.open(path)? }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn DiskLock>> {
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                // The text is a courtesy: the lock itself is the kernel's, and says no whatever the file holds.
                let _ = file.take(20).read_to_string(&mut holder);
                return Err(held(holder.trim()));
            }
            Err(TryLockError::Error(error)) => return Err(error),
        }
        file.set_len(0)?;
        file.rewind()?;
        writeln!(file, "{}", std::process::id())?;
        Ok(Box::new(RealLock { _file: file }))
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        let it = rustix::fs::statvfs(path)?;
        Ok(Space {
            total_bytes: it.f_blocks.saturating_mul(it.f_frsize),
            available_bytes: it.f_bavail.saturating_mul(it.f_frsize),
        })
    }

    fn now_unix_ns(&self) -> i64 {
        let now = SystemTime::now();
        match now.duration_since(UNIX_EPOCH) {
            Ok(after) => i64::try_from(after.as_nanos()).unwrap_or(i64::MAX),
            Err(before) => i64::try_from(before.duration().as_nanos()).map_or(i64::MIN, |ns| -ns),
        }
    }
}

/// What [`Disk::lock`] answers when the lock is taken, on both disks.
pub(crate) fn held(holder: &str) -> io::Error {
    let message = match holder {
        "" => "another process holds the lock".to_owned(),
        pid => format!("process {pid} holds the lock"),
    };
    io::Error::new(io::ErrorKind::WouldBlock, message)
}

#[derive(Debug)]
struct RealFile {
    file: File,
}

impl DiskFile for RealFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut done = 0;
        while done < buf.len() {
            match self.file.read_at(&mut buf[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(bytes) => done += bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(buf, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn truncate(&self, bytes: u64) -> io::Result<()> {
        self.file.set_len(bytes)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }
}

/// `flock` belongs to the open file: closing it, by drop or by the kernel at the process's end, releases the lock.
#[derive(Debug)]
struct RealLock {
    _file: File,
}

impl DiskLock for RealLock {}
