//! Panics as values: a panic in code that a thread calls must not end the thread. It knows neither queues nor lanes.

use crate::disk::{DirEntry, Disk, DiskFile, DiskLock, OpenMode, Space};
use std::any::Any;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

/// Runs `code`.
///
/// # Errors
/// When it panics, with the panic's message.
pub fn caught<T>(code: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(code)).map_err(message)
}

/// The message of a panic. Its payload is foreign code as well: dropping it may panic again.
fn message(payload: Box<dyn Any + Send>) -> String {
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| payload.downcast_ref::<String>().cloned());
    if let Err(second) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        std::mem::forget(second);
    }
    text.unwrap_or_else(|| "it gave no message".to_owned())
}

/// A disk whose panics are errors, so that they are met as every other failure of a disk is.
#[derive(Debug)]
pub struct GuardedDisk(Arc<dyn Disk>);

impl GuardedDisk {
    /// Guards a disk.
    #[must_use]
    pub fn new(disk: Arc<dyn Disk>) -> Self {
        Self(disk)
    }
}

#[derive(Debug)]
struct GuardedFile(Arc<dyn DiskFile>);

fn guarded<T>(call: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    caught(call).unwrap_or_else(|panic| Err(io::Error::other(format!("the disk's code panicked: {panic}"))))
}

impl Disk for GuardedDisk {
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        guarded(|| self.0.create_dir_all(path))
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<DirEntry>> {
        guarded(|| self.0.list(directory))
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let file = guarded(|| self.0.open(path, mode))?;
        Ok(Arc::new(GuardedFile(file)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        guarded(|| self.0.rename(from, to))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        guarded(|| self.0.remove(path))
    }

    fn sync_dir(&self, directory: &Path) -> io::Result<()> {
        guarded(|| self.0.sync_dir(directory))
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn DiskLock>> {
        guarded(|| self.0.lock(path))
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        guarded(|| self.0.space(path))
    }
}

impl DiskFile for GuardedFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        guarded(|| self.0.read_at(buffer, offset))
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        guarded(|| self.0.write_at(bytes, offset))
    }

    fn sync(&self) -> io::Result<()> {
        guarded(|| self.0.sync())
    }

    fn truncate(&self, bytes: u64) -> io::Result<()> {
        guarded(|| self.0.truncate(bytes))
    }

    fn bytes(&self) -> io::Result<u64> {
        guarded(|| self.0.bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct PanicsWhenDropped;

    impl Drop for PanicsWhenDropped {
        fn drop(&mut self) {
            panic!("dropped");
        }
    }

    #[test]
    fn every_panic_is_a_message() {
        assert_eq!(caught(|| 5), Ok(5));
        assert_eq!(caught(|| -> u8 { panic!("plain") }), Err("plain".to_owned()));
        assert_eq!(caught(|| -> u8 { panic!("with {}", 7) }), Err("with 7".to_owned()));
        let nested = caught(|| -> u8 { std::panic::panic_any(PanicsWhenDropped) });
        assert_eq!(nested, Err("it gave no message".to_owned()));
    }
}
