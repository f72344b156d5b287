//! Another file takes the place of the store file while the store is open, so that a crash at any step leaves one of the two
//! in use and both on the disk. It knows nothing of what is written into the new one.

use super::{Access, StoreFile, connect, lock, wal_bytes};
use crate::aside::{set_aside, sync_folder, with_suffix};
use crate::error::{Error, Kind};
use crate::mark::Mark;
use rusqlite::Connection;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// A new file that is being written is called so behind the name of the store file: it counts for nothing.
const UNFINISHED: &str = ".unfinished";
/// A new file that is whole and on the disk is called so: it counts, and the old one goes.
const NEW: &str = ".new";
/// What SQLite keeps beside a file.
const BESIDE: [&str; 2] = ["-wal", "-shm"];

/// Puts a new file that is whole in the place of the store file, which is set aside with what belongs to it. Does nothing
/// when there is none; may be repeated after a crash in between.
pub(crate) fn finish(path: &Path) -> Result<(), Error> {
    let replacing = |e| Error::io(format_args!("replace {}", path.display()), e);
    let new = with_suffix(path, NEW);
    if !new.try_exists().map_err(replacing)? {
        return Ok(());
    }
    let directory = path.parent().unwrap_or(Path::new(""));
    for suffix in [""].into_iter().chain(BESIDE) {
        let old = with_suffix(path, suffix);
        if old.try_exists().map_err(replacing)? {
            set_aside(directory, &old)?;
        }
    }
    std::fs::rename(&new, path).and_then(|()| sync_folder(directory)).map_err(replacing)
}

/// The file to read when the disk takes no byte: a new one may not have come to its place.
pub(crate) fn readable(path: &Path) -> PathBuf {
    let new = with_suffix(path, NEW);
    if new.is_file() { new } else { path.to_owned() }
}

/// Removes what was written of a new file before a crash.
pub(crate) fn remove_unfinished(path: &Path) -> Result<(), Error> {
    let unfinished = with_suffix(path, UNFINISHED);
    for suffix in [""].into_iter().chain(BESIDE) {
        let part = with_suffix(&unfinished, suffix);
        match std::fs::remove_file(&part) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::io(format_args!("remove {}", part.display()), e));
            }
            _ => {}
        }
    }
    Ok(())
}

impl StoreFile {
    /// Bytes of the file and of SQLite's own log.
    pub(crate) fn bytes(&self) -> u64 {
        std::fs::metadata(&self.path).map_or(0, |m| m.len()) + self.wal_bytes()
    }

    /// Has a new file written, which goes on with the numbers of this one, and puts it in the place of this one, which is
    /// set aside whole. Nobody commits meanwhile; questions are answered from the old file until the new one is there.
    pub(crate) fn replace_with<T>(&self, write: impl FnOnce(&Self) -> Result<T, Error>) -> Result<T, Error> {
        let mut writer = lock(&self.writer);
        self.finish_pending(&mut writer)?;
        if writer.is_none() || self.access != Access::Write {
            return Err(Error::closed());
        }
        remove_unfinished(&self.path)?;
        let written = self.write_new(write);
        let (done, mark) = match written {
            Ok(written) => written,
            Err(error) => {
                // It takes room and nothing else.
                let _left_for_the_next_try = remove_unfinished(&self.path);
                return Err(error);
            }
        };
        *lock(&self.pending) = Some(mark);
        self.finish_pending(&mut writer)?;
        Ok(done)
    }

    /// Writes a new file, makes it durable, and gives it the name by which it counts.
    fn write_new<T>(&self, write: impl FnOnce(&Self) -> Result<T, Error>) -> Result<(T, Mark), Error> {
        let path = with_suffix(&self.path, UNFINISHED);
        let old = self.mark().unwrap_or_default();
        let mark = Mark {
            log: *lock(&self.log),
            chunks: 0,
            readings: 0,
            tables: Default::default(),
            commit: old.commit + 1,
            ..old
        };
        let new = Self::open_with(&path, &mark)?;
        let done = write(&new);
        let closed = new.close();
        let done = done?;
        closed?;
        if wal_bytes(&path) > 0 {
            let message = format!("write {}: SQLite's own log is not empty after closing", path.display());
            return Err(Error::new(Kind::Io, message));
        }
        let directory = self.path.parent().unwrap_or(Path::new(""));
        std::fs::File::open(&path)
            .and_then(|file| file.sync_all())
            .and_then(|()| std::fs::rename(&path, with_suffix(&self.path, NEW)))
            .and_then(|()| sync_folder(directory))
            .map_err(|e| Error::io(format_args!("finish {}", path.display()), e))?;
        let mark = new.mark().ok_or_else(Error::closed)?;
        Ok((done, mark))
    }

    /// Puts a new file that is whole in the place of this one. After a failure there is no writer, so that nothing goes into
    /// the old one any more, and the next commit tries again.
    pub(super) fn finish_pending(&self, writer: &mut Option<Connection>) -> Result<(), Error> {
        let mut pending = lock(&self.pending);
        let Some(mark) = pending.as_ref() else { return Ok(()) };
        // Nobody begins to read meanwhile. Connections to the old file keep it; that it has moved keeps SQLite from removing
        // the files beside the new one when they are closed.
        let mut readers = lock(&self.readers);
        readers.generation += 1;
        let old = writer.take();
        finish(&self.path)?;
        drop(old);
        readers.idle.clear();
        let opening = |e| Error::sqlite("open the new store file", &self.path, e);
        let connection = connect(&self.path, Access::Write).map_err(opening)?;
        let periods: BTreeSet<i64> = super::periods(&connection, true).map_err(opening)?;
        *writer = Some(connection);
        *lock(&self.periods) = periods;
        lock(&self.checked).clear();
        *lock(&self.ledger) = None;
        *lock(&self.mark) = Some(mark.clone());
        *pending = None;
        Ok(())
    }
}
