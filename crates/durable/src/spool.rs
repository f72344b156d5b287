//! A spool: a folder with a lock, and a folder for each lane, named as the configuration names it.

use crate::disk::{Disk, DiskLock};
use crate::error::Error;
use crate::lane::{Lane, LaneOptions, LaneRecovery};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub(crate) const LOCK: &str = "LOCK";
/// A lock that is held is asked for so often again, after this time.
const LOCK_TRIES: u32 = 5;
const LOCK_PAUSE: std::time::Duration = std::time::Duration::from_millis(20);
/// The longest name a file system takes everywhere.
const NAME_BYTES_MAX: usize = 200;

/// A folder of lanes, held by this process.
///
/// ```
/// use graylogic_durable::{LaneOptions, Lines, Next, RealDisk, Spool};
/// use std::sync::Arc;
///
/// let folder = tempfile::tempdir()?;
/// let spool = Spool::open(Arc::new(RealDisk), folder.path())?;
/// let (lane, _) = spool.lane("energy", LaneOptions::default())?;
/// let mut lines = Lines::default();
/// lines.push(b"power,meter=main value=1.5 1700000000000000000\n");
/// lane.append(&lines)?; // survives the end of the process
/// lane.sync()?; // survives a power cut
///
/// let mut reader = lane.reader(lane.acknowledged());
/// while let Next::Lines(batch) = reader.next(100, 1 << 20)? {
///     // ... send them ...
///     lane.acknowledge(batch.first + batch.len() as u64);
/// }
/// lane.save_cursor()?;
/// assert_eq!(lane.stats().waiting, 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Spool {
    disk: Arc<dyn Disk>,
    folder: PathBuf,
    lock: Arc<Box<dyn DiskLock>>,
}

impl Spool {
    /// The spool in a folder, made when it is missing. It is held until it and all its lanes are dropped.
    ///
    /// # Errors
    /// [`Error::is_locked`] when another process holds it; otherwise when the folder cannot be made or locked.
    pub fn open(disk: Arc<dyn Disk>, folder: &Path) -> Result<Self, Error> {
        let doing = format_args!("open the spool in {}", folder.display());
        disk.create_dir_all(folder).map_err(|e| Error::io(doing, e))?;
        let is_held = |e: &std::io::Error| e.kind() == std::io::ErrorKind::WouldBlock;
        let mut lock = disk.lock(&folder.join(LOCK));
        for _ in 0..LOCK_TRIES {
            // Somebody who only asks whether it is held holds it for a moment.
            if lock.as_ref().is_err_and(is_held) {
                std::thread::sleep(LOCK_PAUSE);
                lock = disk.lock(&folder.join(LOCK));
            }
        }
        let lock = lock.map_err(|e| {
            if is_held(&e) {
                let message = format!(
                    "open the spool in {}: another process has it open; give each its own folder",
                    folder.display()
                );
                return Error::plain(e.kind(), message);
            }
            Error::io(doing, e)
        })?;
        Ok(Self { disk, folder: folder.to_owned(), lock: Arc::new(lock) })
    }

    /// Opens a lane, made when it is missing. Any name will do.
    ///
    /// Opening never fails because of what the files hold: what is damaged is set aside and reported.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn lane(&self, name: &str, options: LaneOptions) -> Result<(Lane, LaneRecovery), Error> {
        let folder = self.folder.join(folder_of(name));
        Lane::open(self.disk.clone(), &folder, options, self.lock.clone())
    }

    /// The names of the lanes there are.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn lanes(&self) -> Result<Vec<String>, Error> {
        lanes(&*self.disk, &self.folder)
    }
}

/// The names of the lanes of a spool that somebody else may hold.
///
/// # Errors
/// When the disk refuses.
pub fn lanes(disk: &dyn Disk, folder: &Path) -> Result<Vec<String>, Error> {
    let entries =
        disk.list(folder).map_err(|e| Error::io(format_args!("list the spool {}", folder.display()), e))?;
    let name = |e: crate::disk::DirEntry| name_of(e.name.to_str().filter(|_| e.is_dir)?);
    let mut names: Vec<String> = entries.into_iter().filter_map(name).collect();
    names.sort();
    Ok(names)
}

/// The name under which [`lanes`] lists a lane: its own, unless that is too long for a folder.
#[must_use]
pub fn listed_as(name: &str) -> String {
    name_of(&folder_of(name)).unwrap_or_else(|| name.to_owned())
}

/// The name of a lane's folder: letters, digits, `-` and `_` stand for themselves, every other byte and every capital is
/// written `%xx`, so that names that differ only in case differ on every file system. A folder whose name was too long is
/// its own name.
pub(crate) fn folder_of(name: &str) -> String {
    if is_cut(name) {
        return name.to_owned();
    }
    let mut out = String::with_capacity(name.len() + 1);
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' => out.push(char::from(byte)),
            _ => {
                let _never_fails = write!(out, "%{byte:02x}");
            }
        }
    }
    if out.len() > NAME_BYTES_MAX {
        // Too long for a folder: the front, and a checksum of the whole.
        let crc = (crc32c::crc32c(name.as_bytes()), crc32c::crc32c_append(0x6c61_6e65, name.as_bytes()));
        let mut cut = NAME_BYTES_MAX - 20;
        while !out.is_char_boundary(cut) {
            cut -= 1;
        }
        out.truncate(cut);
        let _never_fails = write!(out, "~{:08x}{:08x}", crc.0, crc.1);
    }
    if out.is_empty() { "%".into() } else { out }
}

/// Whether a name that [`lanes`] lists is only the front of a longer one, and a checksum: the name itself is not known.
#[must_use]
pub fn is_cut(folder: &str) -> bool {
    let Some((front, crc)) = folder.split_once('~') else { return false };
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_%".contains(&b);
    let hex = |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
    front.len() == NAME_BYTES_MAX - 20 && crc.len() == 16 && front.bytes().all(plain) && crc.bytes().all(hex)
}

/// The name of the lane in a folder; `None` when it is none of ours.
fn name_of(folder: &str) -> Option<String> {
    if folder == "%" {
        return Some(String::new());
    }
    if is_cut(folder) {
        return Some(folder.to_owned());
    }
    let mut bytes = Vec::with_capacity(folder.len());
    let mut rest = folder.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let (hex, after) = rest.split_first_chunk::<2>()?;
        bytes.push(u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok()?);
        rest = after;
    }
    let name = String::from_utf8(bytes).ok()?;
    (folder_of(&name) == folder).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_has_a_folder_of_its_own() {
        let long = "ü".repeat(300);
        let names =
            ["", "a", "A", "..", ".", "a/b", "a%2fb", "%", "%2e", "energy 2", "🛁", "LOCK", "~", &long];
        let folders: Vec<String> = names.iter().map(|n| folder_of(n)).collect();
        for (name, folder) in names.iter().zip(&folders) {
            let safe = folder.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_%~".contains(&b));
            assert!(safe && !folder.is_empty() && folder.len() < 240 && folder != LOCK, "{name}: {folder}");
            // A name that is listed opens its own folder, also when it was cut.
            let listed = name_of(folder).unwrap();
            assert_eq!(&folder_of(&listed), folder);
            if name.len() < 100 {
                assert_eq!(listed, *name);
            }
        }
        let mut distinct = folders.clone();
        distinct.sort();
        distinct.dedup();
        assert_eq!(distinct.len(), names.len());
    }
}
