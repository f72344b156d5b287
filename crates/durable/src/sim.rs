//! A simulated disk: files in memory that can forget, tear, fill up and fail, all by a seed and a plan. For tests of
//! everything that promises survival, in this crate and in others.

use crate::disk::{DirEntry, Disk, DiskFile, DiskLock, OpenMode, Space};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What a power cut may keep or lose in one piece.
const SECTOR_BYTES: usize = 512;

/// A disk in memory. Clones are the same disk; [`SimDisk::fork`] makes another with the same content.
#[derive(Clone, Debug, Default)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
}

/// The kinds of calls a fault can be planned for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Call {
    /// Making folders.
    CreateDir,
    /// Listing a folder.
    List,
    /// Opening or making a file.
    Open,
    /// Reading.
    Read,
    /// Writing; some of the bytes may arrive.
    Write,
    /// Syncing a file. When it fails the file counts as clean though its bytes are not on the disk.
    Sync,
    /// Cutting a file.
    Truncate,
    /// Asking for a length.
    Length,
    /// Renaming.
    Rename,
    /// Removing.
    Remove,
    /// Syncing a folder.
    SyncDir,
    /// Locking.
    Lock,
}

/// A planned failure.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    /// Only calls of this kind; `None`: every call.
    pub call: Option<Call>,
    /// So many matching calls succeed before.
    pub after: u64,
    /// So many fail then.
    pub times: u64,
    /// The error number they fail with.
    pub errno: i32,
}

/// ENOSPC.
pub const NO_SPACE: i32 = 28;
/// EIO.
pub const IO_ERROR: i32 = 5;
/// EROFS.
pub const READ_ONLY: i32 = 30;
/// EMFILE.
pub const TOO_MANY_FILES: i32 = 24;

#[derive(Clone, Debug, Default)]
struct State {
    inodes: Vec<Inode>,
    /// Names as a process sees them, and as a power cut leaves them.
    live: BTreeMap<PathBuf, usize>,
    durable: BTreeMap<PathBuf, usize>,
    pending: Vec<NameChange>,
    folders: BTreeSet<PathBuf>,
    locks: BTreeSet<PathBuf>,
    faults: Vec<Fault>,
    calls: u64,
    capacity: Option<u64>,
}

#[derive(Clone, Debug, Default)]
struct Inode {
    live: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<ByteChange>,
}

#[derive(Clone, Debug)]
enum ByteChange {
    Write(usize, Vec<u8>),
    Truncate(usize),
}

#[derive(Clone, Debug)]
enum NameChange {
    Add(PathBuf, usize),
    Remove(PathBuf),
    Rename(PathBuf, PathBuf),
}

impl NameChange {
    fn folder(&self) -> Option<&Path> {
        match self {
            Self::Add(path, _) | Self::Remove(path) | Self::Rename(_, path) => path.parent(),
        }
    }

    fn apply(&self, names: &mut BTreeMap<PathBuf, usize>) {
        match self {
            Self::Add(path, inode) => {
                names.insert(path.clone(), *inode);
            }
            Self::Remove(path) => {
                names.remove(path);
            }
            Self::Rename(from, to) => {
                if let Some(inode) = names.remove(from) {
                    names.insert(to.clone(), inode);
                }
            }
        }
    }
}

fn put(bytes: &mut Vec<u8>, offset: usize, new: &[u8]) {
    let end = offset + new.len();
    if bytes.len() < end {
        bytes.resize(end, 0);
    }
    bytes[offset..end].copy_from_slice(new);
}

/// A small generator of the splitmix family: crash states are named by their seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// True with a probability of `of_four` quarters.
    fn quarter(&mut self, of_four: u64) -> bool {
        self.roll() % 4 < of_four
    }
}

impl SimDisk {
    /// An empty disk without faults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn of(state: State) -> Self {
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// Another disk with the same content, faults and locks.
    #[must_use]
    pub fn fork(&self) -> Self {
        Self::of(self.lock().clone())
    }

    /// The disk as a process finds it after the one before was killed: everything written is there, no lock is held.
    #[must_use]
    pub fn after_kill(&self) -> Self {
        let mut state = self.lock().clone();
        state.locks.clear();
        state.faults.clear();
        Self::of(state)
    }

    /// A disk as a power cut may leave it. Synced bytes and names are there; of what was not synced any part may be:
    /// each sector of a write, each change of a length or a name, is kept or lost by the seed.
    #[must_use]
    pub fn after_power_cut(&self, seed: u64) -> Self {
        let mut state = self.lock().clone();
        let mut dice = Dice(seed);
        // Some power cuts keep nearly everything, some nearly nothing.
        let kept = dice.roll() % 5;
        for inode in &mut state.inodes {
            for change in std::mem::take(&mut inode.pending) {
                match change {
                    ByteChange::Write(offset, bytes) => {
                        let mut from = 0;
                        while from < bytes.len() {
                            let to = (from + SECTOR_BYTES - (offset + from) % SECTOR_BYTES).min(bytes.len());
                            if dice.quarter(kept) {
                                put(&mut inode.durable, offset + from, &bytes[from..to]);
                            }
                            from = to;
                        }
                    }
                    ByteChange::Truncate(length) => {
                        if dice.quarter(kept) {
                            inode.durable.resize(length, 0);
                        }
                    }
                }
            }
            inode.live = inode.durable.clone();
        }
        for change in std::mem::take(&mut state.pending) {
            if dice.quarter(kept) {
                change.apply(&mut state.durable);
            }
        }
        state.live = state.durable.clone();
        state.locks.clear();
        state.faults.clear();
        Self::of(state)
    }

    /// Plans a failure.
    pub fn fail(&self, fault: Fault) {
        self.lock().faults.push(fault);
    }

    /// Ends all planned failures.
    pub fn heal(&self) {
        self.lock().faults.clear();
    }

    /// Limits the bytes of all files; `None` lifts the limit.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.lock().capacity = bytes;
    }

    /// Calls so far.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.lock().calls
    }

    /// The names of all files.
    #[must_use]
    pub fn files(&self) -> Vec<PathBuf> {
        self.lock().live.keys().cloned().collect()
    }

    /// The bytes of a file.
    #[must_use]
    pub fn bytes(&self, path: &Path) -> Option<Vec<u8>> {
        let state = self.lock();
        Some(state.inodes[*state.live.get(path)?].live.clone())
    }

    /// Gives a file other bytes, made when it is not there, as damage or a stranger would: durable at once.
    pub fn set_bytes(&self, path: &Path, bytes: Vec<u8>) {
        let mut state = self.lock();
        let inode = state.inodes.len();
        state.inodes.push(Inode { live: bytes.clone(), durable: bytes, pending: Vec::new() });
        state.live.insert(path.to_owned(), inode);
        state.durable.insert(path.to_owned(), inode);
    }

    /// Removes a file, as damage or a stranger would: durable at once.
    pub fn delete(&self, path: &Path) {
        let mut state = self.lock();
        state.live.remove(path);
        state.durable.remove(path);
    }
}

impl State {
    /// Counts a call and says whether it fails.
    fn call(&mut self, call: Call) -> io::Result<()> {
        self.calls += 1;
        for fault in &mut self.faults {
            if fault.call.is_some_and(|c| c != call) || fault.times == 0 {
                continue;
            }
            if fault.after > 0 {
                fault.after -= 1;
                continue;
            }
            fault.times = if fault.times == u64::MAX { u64::MAX } else { fault.times - 1 };
            return Err(io::Error::from_raw_os_error(fault.errno));
        }
        Ok(())
    }

    fn used(&self) -> u64 {
        let live: BTreeSet<usize> = self.live.values().copied().collect();
        live.into_iter().map(|i| self.inodes[i].live.len() as u64).sum()
    }
}

#[derive(Debug)]
struct SimFile {
    disk: SimDisk,
    inode: usize,
    writable: bool,
}

#[derive(Debug)]
struct SimLock {
    disk: SimDisk,
    path: PathBuf,
}

impl DiskLock for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        self.disk.lock().locks.remove(&self.path);
    }
}

fn not_found() -> io::Error {
    io::Error::from(io::ErrorKind::NotFound)
}

impl DiskFile for SimFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut state = self.disk.lock();
        state.call(Call::Read)?;
        let bytes = &state.inodes[self.inode].live;
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
        let n = buffer.len().min(bytes.len() - from);
        buffer[..n].copy_from_slice(&bytes[from..from + n]);
        Ok(n)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        if !self.writable {
            return Err(io::Error::from_raw_os_error(9));
        }
        let offset = usize::try_from(offset).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
        let mut state = self.disk.lock();
        let failed = state.call(Call::Write).err();
        let mut written = bytes.len();
        if failed.is_some() {
            // As often on real disks, some of it arrived.
            written = (state.calls as usize * 37) % (bytes.len() + 1);
        }
        let grows = (offset + written).saturating_sub(state.inodes[self.inode].live.len()) as u64;
        let room = state.capacity.map_or(u64::MAX, |c| c.saturating_sub(state.used()));
        let full = grows > room;
        if full {
            written -= (grows - room) as usize;
        }
        let inode = &mut state.inodes[self.inode];
        put(&mut inode.live, offset, &bytes[..written]);
        inode.pending.push(ByteChange::Write(offset, bytes[..written].to_vec()));
        match failed {
            Some(error) => Err(error),
            None if full => Err(io::Error::from_raw_os_error(NO_SPACE)),
            None => Ok(()),
        }
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.lock();
        let failed = state.call(Call::Sync);
        let inode = &mut state.inodes[self.inode];
        let changes = std::mem::take(&mut inode.pending);
        // After a failure the pages count as clean, and what they held is only in the cache.
        failed?;
        for change in changes {
            match change {
                ByteChange::Write(offset, bytes) => put(&mut inode.durable, offset, &bytes),
                ByteChange::Truncate(length) => inode.durable.resize(length, 0),
            }
        }
        Ok(())
    }

    fn truncate(&self, bytes: u64) -> io::Result<()> {
        let mut state = self.disk.lock();
        state.call(Call::Truncate)?;
        let inode = &mut state.inodes[self.inode];
        inode.live.resize(bytes as usize, 0);
        inode.pending.push(ByteChange::Truncate(bytes as usize));
        Ok(())
    }

    fn bytes(&self) -> io::Result<u64> {
        let mut state = self.disk.lock();
        state.call(Call::Length)?;
        Ok(state.inodes[self.inode].live.len() as u64)
    }
}

impl Disk for SimDisk {
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut state = self.lock();
        state.call(Call::CreateDir)?;
        state.folders.extend(path.ancestors().map(Path::to_owned));
        Ok(())
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<DirEntry>> {
        let mut state = self.lock();
        state.call(Call::List)?;
        if !state.folders.contains(directory) {
            return Err(not_found());
        }
        let files = state.live.iter().filter(|(path, _)| path.parent() == Some(directory));
        let files = files.filter_map(|(p, &i)| {
            Some(DirEntry::new(p.file_name()?.to_owned(), state.inodes[i].live.len() as u64, false))
        });
        let folders = state.folders.iter().filter(|p| p.parent() == Some(directory));
        let folders = folders.filter_map(|p| Some(DirEntry::new(p.file_name()?.to_owned(), 0, true)));
        Ok(files.chain(folders).collect())
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.lock();
        state.call(Call::Open)?;
        let known = state.live.get(path).copied();
        let inode = match (known, mode) {
            (Some(_), OpenMode::CreateNew) => return Err(io::Error::from(io::ErrorKind::AlreadyExists)),
            (Some(inode), _) => inode,
            (None, OpenMode::CreateNew) => {
                if path.parent().is_none_or(|p| !state.folders.contains(p)) {
                    return Err(not_found());
                }
                let inode = state.inodes.len();
                state.inodes.push(Inode::default());
                state.live.insert(path.to_owned(), inode);
                state.pending.push(NameChange::Add(path.to_owned(), inode));
                inode
            }
            (None, _) => return Err(not_found()),
        };
        Ok(Arc::new(SimFile { disk: self.clone(), inode, writable: mode != OpenMode::Read }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.lock();
        state.call(Call::Rename)?;
        let inode = state.live.remove(from).ok_or_else(not_found)?;
        state.live.insert(to.to_owned(), inode);
        state.pending.push(NameChange::Rename(from.to_owned(), to.to_owned()));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.lock();
        state.call(Call::Remove)?;
        state.live.remove(path).ok_or_else(not_found)?;
        state.pending.push(NameChange::Remove(path.to_owned()));
        Ok(())
    }

    fn sync_dir(&self, directory: &Path) -> io::Result<()> {
        let mut state = self.lock();
        state.call(Call::SyncDir)?;
        let state = &mut *state;
        let durable = &mut state.durable;
        state.pending.retain(|change| {
            let here = change.folder() == Some(directory);
            if here {
                change.apply(durable);
            }
            !here
        });
        Ok(())
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn DiskLock>> {
        let mut state = self.lock();
        state.call(Call::Lock)?;
        if !state.locks.insert(path.to_owned()) {
            return Err(io::Error::from(io::ErrorKind::WouldBlock));
        }
        Ok(Box::new(SimLock { disk: self.clone(), path: path.to_owned() }))
    }

    fn space(&self, _path: &Path) -> io::Result<Space> {
        let state = self.lock();
        let total = state.capacity.unwrap_or(1 << 40);
        Ok(Space::new(total, total.saturating_sub(state.used())))
    }
}
