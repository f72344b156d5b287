//! The store file: one SQLite database with the catalog and the sealed chunks. The only module that speaks SQL.
//! It knows nothing of the log or of what is in memory. `docs/format.md` has every table.

use crate::bytes::Malformed;
use crate::chunk;
use crate::chunk_frame::{self, ChunkFrame};
use crate::error::{Error, Kind};
use crate::mark::{LogExpected, Mark, Table};
pub(crate) use crate::record::{BucketDefinition as StoredBucket, Tombstone};
use crate::record::{Definition, type_code};
use crate::rollup::{self, Hours};
use crate::total::Total;
use crate::value::{Value, Values};
use crate::window::Summary;
use graylogic_line::{FieldType, Timestamp};
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, OpenFlags, Row, ToSql, params};
use std::cell::RefCell;
use std::collections::{BTreeSet, HashSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

mod catalog;
mod damage;
mod ledger;
mod mend;
pub(crate) mod replace;
mod upgrade;
mod verify;

pub(crate) use catalog::{Copy as SeriesCopy, Loaded, Spare, StoredSeries, spare};
pub(crate) use damage::is_damage;
pub(crate) use ledger::{ListedChunk, listed, row_id as ledger_row_id};
pub(crate) use mend::Known;

/// `PRAGMA application_id` of a store file: "GLTS".
const APPLICATION_ID: i32 = 0x474C_5453;
/// `PRAGMA user_version`: the version of the tables.
const FORMAT_VERSION: i32 = 2;
/// The version before: without marks, ledger and copies.
const FORMAT_VERSION_1: i32 = 1;
/// Chunks lie in the file by the week of their last reading: what is written together lies together.
const PERIOD_NANOS: i64 = 7 * 86_400 * 1_000_000_000;

const SCHEMA: &str = "
CREATE TABLE bucket (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    retention INTEGER NOT NULL,
    crc INTEGER NOT NULL
) STRICT;
CREATE TABLE series (
    id INTEGER PRIMARY KEY,
    bucket INTEGER NOT NULL REFERENCES bucket(id),
    measurement TEXT NOT NULL,
    tags BLOB NOT NULL,
    field TEXT NOT NULL,
    type INTEGER NOT NULL,
    crc INTEGER NOT NULL
) STRICT;
CREATE TABLE sealed (
    series INTEGER PRIMARY KEY REFERENCES series(id),
    sequence INTEGER NOT NULL,
    span INTEGER NOT NULL,
    fresh INTEGER,
    until INTEGER,
    crc INTEGER NOT NULL
) STRICT;
CREATE TABLE tombstone (
    id INTEGER PRIMARY KEY,
    series INTEGER NOT NULL,
    start INTEGER NOT NULL,
    stop INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    crc INTEGER NOT NULL
) STRICT;
CREATE TABLE removed (
    series INTEGER PRIMARY KEY
) STRICT;
CREATE TABLE chunk (
    period INTEGER NOT NULL,
    series INTEGER NOT NULL,
    t1 INTEGER NOT NULL,
    id INTEGER NOT NULL,
    t0 INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    level INTEGER NOT NULL,
    n INTEGER NOT NULL,
    min ANY, max ANY, sum ANY, first ANY, last ANY,
    pack INTEGER NOT NULL,
    offset INTEGER NOT NULL,
    length INTEGER NOT NULL,
    data_crc INTEGER NOT NULL,
    hours_pack INTEGER,
    hours_offset INTEGER,
    hours_length INTEGER,
    hours_crc INTEGER,
    crc INTEGER NOT NULL,
    PRIMARY KEY (period, series, t1, id)
) STRICT, WITHOUT ROWID;
CREATE TABLE pack (
    id INTEGER PRIMARY KEY,
    bytes BLOB NOT NULL
) STRICT;
CREATE TABLE pack_use (
    pack INTEGER PRIMARY KEY,
    chunks INTEGER NOT NULL,
    crc INTEGER NOT NULL
) STRICT;
";

/// The tables that format version 2 added.
const SCHEMA_2: &str = "
CREATE TABLE meta (
    id INTEGER PRIMARY KEY,
    mark BLOB NOT NULL
) STRICT;
CREATE TABLE ledger (
    period INTEGER NOT NULL,
    series INTEGER NOT NULL,
    bytes BLOB NOT NULL,
    crc INTEGER NOT NULL,
    PRIMARY KEY (period, series)
) STRICT, WITHOUT ROWID;
CREATE TABLE spare (
    kind INTEGER NOT NULL,
    id INTEGER NOT NULL,
    bytes BLOB NOT NULL,
    crc INTEGER NOT NULL,
    PRIMARY KEY (kind, id)
) STRICT, WITHOUT ROWID;
";
/// The tables every version has.
const TABLES: [&str; 8] = ["bucket", "series", "sealed", "tombstone", "removed", "chunk", "pack", "pack_use"];
/// So many weeks of series are remembered to agree with the ledger.
const CHECKED_MAX: usize = 1 << 14;

/// Compacted chunks share rows of about this length: one by one they would leave much of their pages empty, while of a
/// long row SQLite fills all pages but the last.
const PACK_BYTES: usize = 64 << 10;

/// Where the store file is.
#[derive(Debug)]
pub(crate) struct StoreFile {
    path: PathBuf,
    /// `None` after close.
    writer: Mutex<Option<Connection>>,
    readers: Mutex<Readers>,
    closed: AtomicBool,
    /// The mark of a new file that is to take the place of this one and does not yet; there is no writer meanwhile.
    pending: Mutex<Option<Mark>>,
    /// The weeks that have chunks, so that a question about all of time looks only where something is.
    periods: Mutex<BTreeSet<i64>>,
    /// What the store knows of itself as of the last commit; `None` while a file of version 1 is only read.
    mark: Mutex<Option<Mark>>,
    /// The file's own mark could not be read when it was opened.
    mark_lost: bool,
    /// What the next commit says of the hot log.
    log: Mutex<LogExpected>,
    /// Weeks of series whose chunks were found to be those of the ledger.
    checked: Mutex<HashSet<(i64, u32)>>,
    /// Whether the ledger as a whole was as it should be at a commit.
    ledger: Mutex<Option<(u64, bool)>>,
    access: Access,
}

/// Connections that nobody reads by at present.
#[derive(Debug, Default)]
struct Readers {
    idle: Vec<Connection>,
    /// Counts the files that took the place of this one: a connection reads the one it was opened for.
    generation: u64,
}

/// What a connection may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Access {
    /// Everything: there is one.
    Write,
    /// Read beside it.
    Read,
    /// Read from a disk that takes no byte: without the file that connections share their view by, and without locks.
    ReadOnlyDisk,
}

/// A chunk on its way into the file.
#[derive(Debug)]
pub(crate) struct NewChunk {
    pub(crate) series: u32,
    pub(crate) t0: i64,
    pub(crate) t1: i64,
    pub(crate) sequence: u64,
    pub(crate) summary: Summary,
    pub(crate) level: u8,
    /// What is known of its hours, when it is compacted.
    pub(crate) hours: Vec<u8>,
    pub(crate) bytes: Vec<u8>,
}

/// A chunk in the file, without its readings.
#[derive(Clone, Debug)]
pub(crate) struct ChunkMeta {
    pub(crate) id: i64,
    pub(crate) series: u32,
    pub(crate) t0: i64,
    pub(crate) t1: i64,
    pub(crate) sequence: u64,
    pub(crate) level: u8,
    pub(crate) summary: Summary,
    place: Place,
    /// Where what is known of its hours is.
    hours: Option<Place>,
}

impl ChunkMeta {
    /// Bytes of its readings.
    pub(crate) fn bytes(&self) -> usize {
        usize::try_from(self.place.length).unwrap_or(0)
    }

    /// Bytes of what is known of its hours.
    pub(crate) fn hours_bytes(&self) -> usize {
        self.hours.and_then(|place| usize::try_from(place.length).ok()).unwrap_or(0)
    }

    pub(crate) fn has_hours(&self) -> bool {
        self.hours.is_some()
    }
}

/// Where the bytes of a chunk are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) pack: i64,
    pub(crate) offset: i64,
    pub(crate) length: i64,
    pub(crate) crc: i64,
}

/// A chunk that goes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Removed {
    pub(crate) series: u32,
    pub(crate) t1: i64,
    pub(crate) id: i64,
    readings: u64,
    pack: i64,
    hours_pack: Option<i64>,
}

impl Removed {
    pub(crate) fn of(series: u32, meta: &ChunkMeta) -> Self {
        let (hours_pack, readings) = (meta.hours.map(|p| p.pack), meta.summary.count);
        Self { series, t1: meta.t1, id: meta.id, readings, pack: meta.place.pack, hours_pack }
    }
}

/// What a commit of the sealer or the compactor says of a series.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SealedState {
    pub(crate) series: u32,
    pub(crate) sequence: u64,
    pub(crate) span: i64,
    pub(crate) fresh: Option<i64>,
    pub(crate) until: Option<i64>,
}

/// What one commit makes durable.
#[derive(Debug, Default)]
pub(crate) struct Commit {
    pub(crate) definitions: Vec<Definition>,
    pub(crate) chunks: Vec<NewChunk>,
    pub(crate) sealed: Vec<SealedState>,
    pub(crate) removed: Vec<Removed>,
    pub(crate) tombstones: Vec<Tombstone>,
    /// Tombstones that have done their work.
    pub(crate) lifted: Vec<Tombstone>,
    /// Bytes written in the store's life.
    pub(crate) written: u64,
    /// Sequences of the log below this one are not given again.
    pub(crate) sequence: u64,
}

/// Numbers of the file's content.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) chunks: u64,
    pub(crate) readings: u64,
    pub(crate) bytes: u64,
}

impl StoreFile {
    /// Opens the file, or makes it with a mark.
    pub(crate) fn open_with(path: &Path, new: &Mark) -> Result<Self, Error> {
        Self::open_for(path, Access::Write, new)
    }

    /// Opens a file that is there for questions, on a disk that takes no byte. Nobody else may change it meanwhile.
    pub(crate) fn open_read_only(path: &Path) -> Result<Self, Error> {
        Self::open_for(path, Access::ReadOnlyDisk, &Mark::default())
    }

    fn open_for(path: &Path, access: Access, new: &Mark) -> Result<Self, Error> {
        let opening = |e| Error::sqlite("open the store file", path, e);
        let mut writer = connect(path, access).map_err(opening)?;
        let number = |sql: &str| writer.query_row(sql, [], |r| r.get::<_, i32>(0)).map_err(opening);
        let (version, application) = (number("PRAGMA user_version")?, number("PRAGMA application_id")?);
        let tables = table_names(&writer).map_err(opening)?;
        if tables.is_empty() && application == 0 && access == Access::Write {
            upgrade::create(&mut writer, new).map_err(opening)?;
        } else if application != APPLICATION_ID && !TABLES.iter().all(|t| tables.contains(*t)) {
            let message = format!(
                "open the store file {}: this SQLite file is no store of ours; name another folder",
                path.display()
            );
            return Err(Error::new(Kind::Invalid, message));
        } else if version != FORMAT_VERSION && version != FORMAT_VERSION_1 {
            let message = format!(
                "open the store file {}: it has format version {version}, this program knows {FORMAT_VERSION}; use the program that wrote it",
                path.display()
            );
            return Err(Error::new(Kind::Invalid, message));
        } else if let Some(gone) = TABLES.iter().find(|t| !tables.contains(**t)) {
            let message = format!(
                "open the store file {}: its table {gone} is gone; save the rest with graylogic salvage",
                path.display()
            );
            return Err(Error::new(Kind::Corrupt, message));
        } else if version == FORMAT_VERSION_1 && access == Access::Write {
            upgrade::from_version_1(&mut writer, new).map_err(opening)?;
        }
        let is_old = version == FORMAT_VERSION_1 && access != Access::Write;
        let mark = if is_old { None } else { upgrade::read_mark(&writer).map_err(opening)? };
        let periods = periods(&writer, !is_old).map_err(opening)?;
        let mark_lost = !is_old && mark.is_none();
        // What is left of the numbers that were given.
        let mark = match mark {
            None if mark_lost => Some(upgrade::guess_mark(&writer).map_err(opening)?),
            mark => mark,
        };
        Ok(Self {
            path: path.to_owned(),
            writer: Mutex::new(Some(writer)),
            readers: Mutex::default(),
            closed: AtomicBool::new(false),
            pending: Mutex::default(),
            periods: Mutex::new(periods),
            log: Mutex::new(mark.as_ref().map_or_else(LogExpected::default, |m| m.log)),
            mark: Mutex::new(mark),
            mark_lost,
            checked: Mutex::default(),
            ledger: Mutex::default(),
            access,
        })
    }

    /// What the store knows of itself as of the last commit; `None` while a file of version 1 is only read.
    pub(crate) fn mark(&self) -> Option<Mark> {
        lock(&self.mark).clone()
    }

    /// Whether the file's own mark could not be read when it was opened.
    pub(crate) fn mark_lost(&self) -> bool {
        self.mark_lost
    }

    /// Numbers that a mark of the hot log has seen given are not given again.
    pub(crate) fn raise(&self, other: &Mark) {
        if let Some(mark) = lock(&self.mark).as_mut() {
            mark.raise(other);
        }
    }

    /// What the file says of the hot log from the next commit on.
    pub(crate) fn expect_log(&self, log: LogExpected) {
        *lock(&self.log) = log;
    }

    /// Makes durable what the file is to say of the hot log, and of the identity of its segments.
    pub(crate) fn note_log(&self, log: LogExpected, sequence: u64, shared_log_id: bool) -> Result<(), Error> {
        self.expect_log(log);
        self.transact("note the state of the hot log", |_, mark| {
            mark.sequence = mark.sequence.max(sequence);
            mark.shared_log_id = shared_log_id;
            Ok(())
        })
    }

    /// Does something in one transaction, which is a commit with a number of its own.
    fn transact<T>(
        &self,
        doing: impl std::fmt::Display,
        change: impl FnOnce(&rusqlite::Transaction<'_>, &mut Mark) -> Result<T, rusqlite::Error>,
    ) -> Result<T, Error> {
        let mut guard = lock(&self.writer);
        self.finish_pending(&mut guard)?;
        let connection = guard.as_mut().ok_or_else(Error::closed)?;
        let mut mark = self.mark().unwrap_or_default();
        mark.commit += 1;
        mark.log = *lock(&self.log);
        let done = || -> Result<(T, Mark), rusqlite::Error> {
            // It begins with reading: only so does it wait for another connection that writes.
            let transaction =
                connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
            let done = change(&transaction, &mut mark)?;
            upgrade::write_mark(&transaction, &mark)?;
            transaction.commit()?;
            Ok((done, mark))
        };
        let (done, mark) = done().map_err(|e| Error::sqlite(doing, &self.path, e))?;
        *lock(&self.mark) = Some(mark);
        Ok(done)
    }

    /// Opens a file for questions anew: somebody may have taken its write-ahead log in.
    pub(crate) fn reopen(&self) -> Result<(), Error> {
        let connection = connect(&self.path, self.access)
            .map_err(|e| Error::sqlite("open the store file", &self.path, e))?;
        *lock(&self.writer) = Some(connection);
        lock(&self.readers).idle.clear();
        self.closed.store(false, Ordering::Release);
        Ok(())
    }

    /// The catalog without its series.
    pub(crate) fn load(&self) -> Result<Loaded, Error> {
        let guard = lock(&self.writer);
        let connection = guard.as_ref().ok_or_else(Error::closed)?;
        catalog::load(connection, self.trusted_mark().as_ref())
            .map_err(|e| Error::sqlite("read the catalog", &self.path, e))
    }

    /// The mark, if the file's own could be read: then its tables must be what it says.
    fn trusted_mark(&self) -> Option<Mark> {
        if self.mark_lost { None } else { self.mark() }
    }

    /// Hands on each series that a copy of their definitions has, one at a time; says whether these are all series there
    /// were, and which rows are damaged.
    pub(crate) fn each_series(
        &self,
        copy: SeriesCopy,
        damage: &mut Vec<String>,
        found: impl FnMut(StoredSeries),
    ) -> Result<(bool, Vec<i64>), Error> {
        let guard = lock(&self.writer);
        let connection = guard.as_ref().ok_or_else(Error::closed)?;
        let mark = self.trusted_mark();
        let read = || -> Result<(bool, Vec<i64>), rusqlite::Error> {
            let states = catalog::SealedStates::load(connection, mark.as_ref(), damage)?;
            let (sum, bad) = catalog::each_series(connection, copy, &states, found)?;
            let whole = mark.as_ref().is_none_or(|m| m.tables[Table::Series as usize] == sum);
            Ok((whole && bad.is_empty(), bad))
        };
        read().map_err(|e| Error::sqlite("read the catalog", &self.path, e))
    }

    /// Makes a bucket durable.
    pub(crate) fn insert_bucket(&self, id: u32, name: &str, retention: i64) -> Result<(), Error> {
        let bucket = StoredBucket { id, name: name.to_owned(), retention };
        self.transact(format_args!("create bucket {name:?}"), |transaction, mark| {
            catalog::insert_bucket(transaction, mark, &bucket)
        })
    }

    /// Gives a bucket another name or retention.
    pub(crate) fn update_bucket(&self, id: u32, name: &str, retention: i64) -> Result<(), Error> {
        let bucket = StoredBucket { id, name: name.to_owned(), retention };
        self.transact(format_args!("change bucket {name:?}"), |transaction, mark| {
            catalog::update_bucket(transaction, mark, &bucket)
        })
    }

    /// Removes a bucket with the series given, all or none of it.
    pub(crate) fn remove_bucket(&self, id: u32, series: &[u32]) -> Result<(), Error> {
        let periods: Vec<i64> = lock(&self.periods).iter().copied().collect();
        self.transact("remove a bucket", |transaction, mark| {
            let mut changes = ledger::Changes::default();
            for &series in series {
                for period in &periods {
                    let chunks = chunks_to_remove(transaction, *period, series)?;
                    for removed in chunks {
                        remove_chunk(transaction, mark, &mut changes, removed)?;
                    }
                }
                catalog::remove_series(transaction, mark, series)?;
            }
            catalog::remove_bucket(transaction, mark, id)?;
            let next = mark.next_chunk as i64;
            changes.write(transaction, mark, next, next)
        })
    }

    /// Keeps the numbers of removed series from being given again.
    pub(crate) fn reserve(&self, removed: &[u32]) -> Result<(), Error> {
        self.transact("note removed series", |transaction, mark| {
            removed.iter().try_for_each(|&id| catalog::note_removed(transaction, mark, id))
        })
    }

    /// Gives room that removed chunks left back to the file system, a little at a time.
    pub(crate) fn give_back(&self, pages: u32) -> Result<(), Error> {
        let guard = lock(&self.writer);
        let connection = guard.as_ref().ok_or_else(Error::closed)?;
        let give = || -> Result<(), rusqlite::Error> {
            // Each step frees a page.
            let mut statement = connection.prepare(&format!("PRAGMA incremental_vacuum({pages})"))?;
            let mut rows = statement.query([])?;
            while rows.next()?.is_some() {}
            Ok(())
        };
        // A damaged file keeps its room.
        damage::tolerate(give()).map(drop).map_err(|e| Error::sqlite("give room back", &self.path, e))
    }

    /// Makes definitions and chunks durable, all or none.
    pub(crate) fn commit(&self, commit: &Commit) -> Result<(), Error> {
        let touched = self.transact("write chunks", |transaction, mark| {
            commit.definitions.iter().try_for_each(|d| catalog::insert_series(transaction, mark, d))?;
            let first = mark.next_chunk as i64;
            let mut changes = ledger::Changes::default();
            let next = write_chunks(transaction, mark, &mut changes, &commit.chunks)?;
            commit.sealed.iter().try_for_each(|s| catalog::put_sealed(transaction, mark, s))?;
            for removed in &commit.removed {
                remove_chunk(transaction, mark, &mut changes, *removed)?;
            }
            commit.tombstones.iter().try_for_each(|t| catalog::insert_tombstone(transaction, mark, t))?;
            commit.lifted.iter().try_for_each(|t| catalog::lift_tombstone(transaction, mark, t))?;
            let touched: Vec<(i64, u32)> = changes.keys().collect();
            changes.write(transaction, mark, first, next)?;
            mark.next_chunk = next as u64;
            mark.sequence = mark.sequence.max(commit.sequence);
            mark.written = mark.written.max(commit.written);
            Ok(touched)
        })?;
        lock(&self.periods).extend(commit.chunks.iter().map(|c| period(c.t1)));
        let mut checked = lock(&self.checked);
        touched.iter().for_each(|key| {
            checked.remove(key);
        });
        Ok(())
    }

    /// A view of the file as it is now, which later commits do not change.
    pub(crate) fn snapshot(&self) -> Result<Snapshot<'_>, Error> {
        let opening = |e| Error::sqlite("begin to read", &self.path, e);
        loop {
            let (connection, generation) = self.reader()?;
            connection.execute_batch("BEGIN").and_then(|()| first_read(&connection)).map_err(opening)?;
            // Another file may have taken the place of this one in between, and commits gone into it.
            if lock(&self.readers).generation == generation {
                return Ok(Snapshot {
                    file: self,
                    generation,
                    connection: Some(connection),
                    pack: RefCell::default(),
                    hours_pack: RefCell::default(),
                });
            }
        }
    }

    /// A connection to read by, and the file it reads.
    fn reader(&self) -> Result<(Connection, u64), Error> {
        let opening = |e| Error::sqlite("begin to read", &self.path, e);
        // While it is held no other file takes the place of this one.
        let mut readers = lock(&self.readers);
        if let Some(connection) = readers.idle.pop() {
            return Ok((connection, readers.generation));
        }
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::closed());
        }
        let access = if self.access == Access::Write { Access::Read } else { self.access };
        let connection = connect(&self.path, access).map_err(opening)?;
        // From the first read on it has all its files open.
        first_read(&connection).map_err(opening)?;
        Ok((connection, readers.generation))
    }

    /// Counts the chunks: reads all their rows, not their bytes.
    pub(crate) fn totals(&self) -> Result<Totals, Error> {
        let snapshot = self.snapshot()?;
        let query = "SELECT (SELECT count(*) FROM chunk), (SELECT coalesce(sum(n), 0) FROM chunk), (SELECT coalesce(sum(length(bytes)), 0) FROM pack)";
        let counted = snapshot.connection().query_row(query, [], |r| {
            let number = |i| r.get::<_, i64>(i).map(|v| v as u64);
            Ok(Totals { chunks: number(0)?, readings: number(1)?, bytes: number(2)? })
        });
        let counted = damage::tolerate(counted).map_err(|e| Error::sqlite("count chunks", &self.path, e))?;
        // Of a file that cannot be counted, what it says of itself.
        let mark = self.mark().unwrap_or_default();
        Ok(counted.unwrap_or(Totals { chunks: mark.chunks, readings: mark.readings, bytes: 0 }))
    }

    /// What the file takes once SQLite's own log is in it: the same whether the store is open or closed.
    pub(crate) fn bytes_when_closed(&self) -> Result<u64, Error> {
        let snapshot = self.snapshot()?;
        let query = "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size";
        let counted = snapshot.connection().query_row(query, [], |r| r.get::<_, i64>(0));
        let counted = damage::tolerate(counted).map_err(|e| Error::sqlite("count pages", &self.path, e))?;
        Ok(counted.map_or_else(|| self.bytes(), |n| n as u64))
    }

    /// Bytes of SQLite's own log.
    pub(crate) fn wal_bytes(&self) -> u64 {
        wal_bytes(&self.path)
    }

    /// Writes what SQLite's own log holds into the file and empties it.
    pub(crate) fn checkpoint(&self) -> Result<(), Error> {
        match lock(&self.writer).as_ref().filter(|_| self.access == Access::Write) {
            Some(connection) => connection
                .execute_batch("PRAGMA wal_checkpoint(TRUNCATE)")
                .map_err(|e| Error::sqlite("checkpoint the store file", &self.path, e)),
            None => Ok(()),
        }
    }

    /// Writes what SQLite's own log holds into the file and empties it; then no call works any more.
    pub(crate) fn close(&self) -> Result<(), Error> {
        self.closed.store(true, Ordering::Release);
        lock(&self.readers).idle.clear();
        let Some(connection) = lock(&self.writer).take() else { return Ok(()) };
        let done = match self.access {
            Access::Write => connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)"),
            _ => Ok(()),
        };
        done.and_then(|()| connection.close().map_err(|(_, e)| e))
            .map_err(|e| Error::sqlite("close the store file", &self.path, e))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

/// The file as it was at one moment.
pub(crate) struct Snapshot<'a> {
    file: &'a StoreFile,
    generation: u64,
    connection: Option<Connection>,
    /// The pack that was read last: neighbours are often in one.
    pack: RefCell<(i64, Vec<u8>)>,
    hours_pack: RefCell<(i64, Vec<u8>)>,
}

impl Snapshot<'_> {
    fn connection(&self) -> &Connection {
        self.connection.as_ref().expect("a snapshot keeps its connection until it is dropped")
    }

    /// The chunks of a series that may hold readings with `start <= time < stop`, in the order of `t1`.
    /// A row that is not what was written is named in `damage` and left out.
    pub(crate) fn chunks(
        &self,
        series: u32,
        field_type: FieldType,
        span: i64,
        (start, stop): (i64, i64),
        damage: &mut Vec<String>,
    ) -> Result<Vec<ChunkMeta>, Error> {
        let last = stop.saturating_sub(1).saturating_add(span);
        let periods: Vec<i64> =
            lock(&self.file.periods).range(period(start)..=period(last)).copied().collect();
        let mut found = Vec::new();
        let query = || -> Result<(), rusqlite::Error> {
            let mut statement = self.connection().prepare_cached(&format!(
                "{CHUNK_COLUMNS} WHERE period = ?1 AND series = ?2 AND t1 BETWEEN ?3 AND ?4"
            ))?;
            for period in periods {
                let ignored = self.check_week(period, series, damage)?;
                let mut rows = statement.query(params![period, series, start, last])?;
                loop {
                    let row = match damage::tolerate(rows.next())? {
                        Some(Some(row)) => row,
                        Some(None) => break,
                        // What is behind the damage is named by the ledger.
                        None => {
                            let week = Timestamp::from_nanos(period.saturating_mul(PERIOD_NANOS));
                            damage.push(format!(
                                "series {series}, week from {week}: the rows of its chunks cannot all be read"
                            ));
                            break;
                        }
                    };
                    let Some(t0) = row.get_ref(1)?.as_i64().ok() else { continue };
                    if t0 >= stop {
                        continue;
                    }
                    match damage::tolerate(chunk_meta(row, series, field_type))?.flatten() {
                        Some(meta) if ignored.contains(&meta.id) => {}
                        Some(meta) => found.push(meta),
                        None => damage.push(format!(
                            "chunk {} of series {series}: its row is damaged",
                            row.get_ref(0)?.as_i64().unwrap_or(0)
                        )),
                    }
                }
            }
            Ok(())
        };
        query().map_err(|e| Error::sqlite("find chunks", &self.file.path, e))?;
        Ok(found)
    }

    /// The newest chunk of a series.
    pub(crate) fn newest_chunk(
        &self,
        series: u32,
        field_type: FieldType,
        damage: &mut Vec<String>,
    ) -> Result<Option<ChunkMeta>, Error> {
        self.end_chunk(series, field_type, true, damage)
    }

    /// The chunk of a series that ends first.
    pub(crate) fn oldest_chunk(
        &self,
        series: u32,
        field_type: FieldType,
        damage: &mut Vec<String>,
    ) -> Result<Option<ChunkMeta>, Error> {
        self.end_chunk(series, field_type, false, damage)
    }

    fn end_chunk(
        &self,
        series: u32,
        field_type: FieldType,
        newest: bool,
        damage: &mut Vec<String>,
    ) -> Result<Option<ChunkMeta>, Error> {
        let mut periods: Vec<i64> = lock(&self.file.periods).iter().copied().collect();
        if newest {
            periods.reverse();
        }
        let order = if newest { "t1 DESC, sequence DESC" } else { "t1, sequence" };
        let query = || -> Result<Option<ChunkMeta>, rusqlite::Error> {
            let mut statement = self.connection().prepare_cached(&format!(
                "{CHUNK_COLUMNS} WHERE period = ?1 AND series = ?2 ORDER BY {order}"
            ))?;
            for period in periods {
                let ignored = self.check_week(period, series, damage)?;
                let mut rows = statement.query(params![period, series])?;
                while let Some(Some(row)) = damage::tolerate(rows.next())? {
                    let meta = damage::tolerate(chunk_meta(row, series, field_type))?.flatten();
                    if let Some(meta) = meta.filter(|m| !ignored.contains(&m.id)) {
                        return Ok(Some(meta));
                    }
                }
            }
            Ok(None)
        };
        query().map_err(|e| Error::sqlite("find the end of a series", &self.file.path, e))
    }

    /// The rows of a week that do not count. What is wrong there is named in `damage`.
    fn check_week(
        &self,
        period: i64,
        series: u32,
        damage: &mut Vec<String>,
    ) -> Result<BTreeSet<i64>, rusqlite::Error> {
        let known = lock(&self.file.checked).contains(&(period, series));
        if known || lock(&self.file.mark).is_none() {
            return Ok(BTreeSet::new());
        }
        let found = ledger::check(self.connection(), (period, series), || self.ledger_intact())?;
        if found.damage.is_empty() && found.ignored.is_empty() {
            let mut checked = lock(&self.file.checked);
            if checked.len() >= CHECKED_MAX {
                checked.clear();
            }
            checked.insert((period, series));
        }
        damage.extend(found.damage);
        Ok(found.ignored)
    }

    /// Whether the ledger as a whole is what it should be.
    fn ledger_intact(&self) -> Result<bool, rusqlite::Error> {
        let Some(mark) = upgrade::read_mark(self.connection())? else { return Ok(false) };
        if let Some((_, intact)) = lock(&self.file.ledger).filter(|known| known.0 == mark.commit) {
            return Ok(intact);
        }
        let intact = ledger::intact(self.connection(), &mark)?;
        *lock(&self.file.ledger) = Some((mark.commit, intact));
        Ok(intact)
    }

    /// The readings of a chunk; `None` when its bytes are not what was written.
    pub(crate) fn readings(
        &self,
        meta: &ChunkMeta,
        field_type: FieldType,
    ) -> Result<Option<(Vec<i64>, Values)>, Error> {
        self.decoded(meta, |bytes| chunk::decode_as(bytes, field_type), |(times, _)| times)
    }

    /// Like [`Snapshot::readings`], as they are folded.
    pub(crate) fn raw(&self, meta: &ChunkMeta, field_type: FieldType) -> Result<Option<chunk::Raw>, Error> {
        self.decoded(meta, |bytes| chunk::decode_raw(bytes, field_type), |raw| &raw.times)
    }

    fn decoded<T>(
        &self,
        meta: &ChunkMeta,
        decode: impl Fn(&[u8]) -> Result<T, Malformed>,
        times: impl Fn(&T) -> &Vec<i64>,
    ) -> Result<Option<T>, Error> {
        self.bytes_at(meta.id, meta.place, &self.pack, |bytes| {
            let found = decode(chunk_frame::body_of(bytes, meta.id, meta.series)?).ok()?;
            let times = times(&found);
            let whole = times.len() as u64 == meta.summary.count
                && times.first() == Some(&meta.t0)
                && times.last() == Some(&meta.t1);
            whole.then_some(found)
        })
    }

    /// What is known of the hours of a chunk; `None` when that is not what was written.
    pub(crate) fn hours(&self, meta: &ChunkMeta, field_type: FieldType) -> Result<Option<Hours>, Error> {
        let Some(place) = meta.hours else { return Ok(Some(Hours::default())) };
        self.bytes_at(meta.id, place, &self.hours_pack, |bytes| rollup::decode(bytes, field_type).ok())
    }

    /// Hands the bytes at a place on when they are what was written. The pack stays for the next question.
    fn bytes_at<T>(
        &self,
        chunk: i64,
        place: Place,
        cache: &RefCell<(i64, Vec<u8>)>,
        read: impl FnOnce(&[u8]) -> Option<T>,
    ) -> Result<Option<T>, Error> {
        let mut cache = cache.borrow_mut();
        let fetch = |cache: &mut (i64, Vec<u8>)| -> Result<bool, rusqlite::Error> {
            let mut statement = self.connection().prepare_cached("SELECT bytes FROM pack WHERE id = ?1")?;
            let mut rows = statement.query([place.pack])?;
            let Some(row) = rows.next()? else { return Ok(false) };
            let ValueRef::Blob(bytes) = row.get_ref(0)? else { return Ok(false) };
            cache.0 = place.pack;
            cache.1.clear();
            cache.1.extend_from_slice(bytes);
            Ok(true)
        };
        if cache.0 != place.pack {
            let there = damage::tolerate(fetch(&mut cache));
            let there = there.map_err(|e| Error::sqlite("read a chunk", &self.file.path, e))?;
            if there != Some(true) {
                // Nothing of a pack that was read in part is kept.
                cache.0 = 0;
                return Ok(None);
            }
        }
        let from = usize::try_from(place.offset).unwrap_or(usize::MAX);
        let length = usize::try_from(place.length).unwrap_or(usize::MAX);
        let bytes = from.checked_add(length).and_then(|to| cache.1.get(from..to));
        let good = bytes.filter(|bytes| data_crc(chunk, bytes) == place.crc);
        Ok(good.and_then(read))
    }

    /// Whether a chunk is still where it was.
    pub(crate) fn has(&self, series: u32, meta: &ChunkMeta) -> Result<bool, Error> {
        let find = || -> Result<bool, rusqlite::Error> {
            self.connection()
                .prepare_cached(
                    "SELECT 1 FROM chunk WHERE period = ?1 AND series = ?2 AND t1 = ?3 AND id = ?4",
                )?
                .exists(params![period(meta.t1), series, meta.t1, meta.id])
        };
        // Where it cannot be looked for, reading it says what is wrong.
        let found = damage::tolerate(find()).map(|found| found.unwrap_or(true));
        found.map_err(|e| Error::sqlite("find a chunk", &self.file.path, e))
    }
}

impl Drop for Snapshot<'_> {
    fn drop(&mut self) {
        let Some(connection) = self.connection.take() else { return };
        // A connection that cannot end its transaction is not used again.
        if connection.execute_batch("COMMIT").is_ok() {
            let mut readers = lock(&self.file.readers);
            if readers.idle.len() < 4 && readers.generation == self.generation {
                readers.idle.push(connection);
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What these guard is whole between statements: a panic elsewhere does not make it wrong.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The columns of [`chunk_meta`].
const CHUNK_COLUMNS: &str =
    "SELECT id, t0, t1, sequence, n, min, max, sum, first, last, crc, level, pack, offset, length,
    data_crc, hours_pack, hours_offset, hours_length, hours_crc FROM chunk";

/// Gives the bytes of new chunks their places.
struct Packs<'a> {
    transaction: &'a rusqlite::Transaction<'a>,
    next: &'a std::cell::Cell<i64>,
    /// Number of the open pack, its bytes, and how many chunks are in it.
    id: i64,
    open: Vec<u8>,
    chunks: i64,
}

impl<'a> Packs<'a> {
    fn new(transaction: &'a rusqlite::Transaction<'a>, next: &'a std::cell::Cell<i64>) -> Self {
        Self { transaction, next, id: 0, open: Vec::new(), chunks: 0 }
    }

    fn add(&mut self, chunk: i64, level: u8, bytes: &[u8]) -> Result<Place, rusqlite::Error> {
        if level == 0 || self.open.len() >= PACK_BYTES {
            self.close()?;
        }
        if self.chunks == 0 {
            self.id = self.next.get();
            self.next.set(self.id + 1);
        }
        let (offset, length) = (self.open.len() as i64, bytes.len() as i64);
        self.open.extend_from_slice(bytes);
        self.chunks += 1;
        let place = Place { pack: self.id, offset, length, crc: data_crc(chunk, bytes) };
        if level == 0 {
            self.close()?;
        }
        Ok(place)
    }

    fn close(&mut self) -> Result<(), rusqlite::Error> {
        if self.chunks > 0 {
            self.transaction
                .prepare_cached("INSERT INTO pack (id, bytes) VALUES (?1, ?2)")?
                .execute(params![self.id, self.open])?;
            if self.chunks > 1 {
                self.transaction
                    .prepare_cached("INSERT INTO pack_use (pack, chunks, crc) VALUES (?1, ?2, ?3)")?
                    .execute([self.id, self.chunks, use_crc(self.id, self.chunks)])?;
            }
            self.open.clear();
            self.chunks = 0;
        }
        Ok(())
    }
}

/// Writes chunks under the next numbers; returns the number after theirs and those of their packs.
fn write_chunks(
    transaction: &rusqlite::Transaction<'_>,
    mark: &mut Mark,
    changes: &mut ledger::Changes,
    chunks: &[NewChunk],
) -> Result<i64, rusqlite::Error> {
    let first = mark.next_chunk as i64;
    let mut chunk = transaction.prepare_cached(
        "INSERT INTO chunk (period, series, t1, id, t0, sequence, level, n, min, max, sum, first, last, pack, offset, length, data_crc, hours_pack, hours_offset, hours_length, hours_crc, crc)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22)",
    )?;
    let next = std::cell::Cell::new(first + chunks.len() as i64);
    let mut packs = Packs::new(transaction, &next);
    let mut hour_packs = Packs::new(transaction, &next);
    let mut framed = Vec::new();
    let store = chunk_frame_id(mark.identity);
    for (c, id) in chunks.iter().zip(first..) {
        let (series, sequence, level) = (c.series, c.sequence, c.level);
        framed.clear();
        let frame = ChunkFrame { store, chunk: id, series, sequence, level };
        chunk_frame::put(&mut framed, &frame, &c.bytes);
        let place = packs.add(id, c.level, &framed)?;
        let hours = if c.hours.is_empty() { None } else { Some(hour_packs.add(id, c.level, &c.hours)?) };
        let s = &c.summary;
        chunk.execute(params![
            period(c.t1),
            c.series,
            c.t1,
            id,
            c.t0,
            c.sequence as i64,
            c.level,
            s.count as i64,
            Stored(s.min.as_ref()),
            Stored(s.max.as_ref()),
            Stored(s.total.stored().as_ref()),
            Stored(Some(&s.first.1)),
            Stored(Some(&s.last.1)),
            place.pack,
            place.offset,
            place.length,
            place.crc,
            hours.map(|p| p.pack),
            hours.map(|p| p.offset),
            hours.map(|p| p.length),
            hours.map(|p| p.crc),
            meta_crc(c.series, id, (c.t0, c.t1), c.sequence, c.level, s, place, hours)
        ])?;
        changes.add(c.series, (c.t0, c.t1), id, s.count);
        mark.chunks += 1;
        mark.readings = mark.readings.saturating_add(s.count);
    }
    packs.close()?;
    hour_packs.close()?;
    Ok(next.get())
}

/// The check value of the store in the frames of its chunks: never 0, which says that there is none.
pub(crate) fn chunk_frame_id(identity: u64) -> u32 {
    crc32c::crc32c(&identity.to_le_bytes()).max(1)
}

fn chunks_to_remove(
    transaction: &Connection,
    period: i64,
    series: u32,
) -> Result<Vec<Removed>, rusqlite::Error> {
    let mut chunks = transaction
        .prepare_cached("SELECT t1, id, pack, hours_pack, n FROM chunk WHERE period = ?1 AND series = ?2")?;
    let of = |r: &Row<'_>| {
        let (t1, id, pack, hours_pack) = (r.get(0)?, r.get(1)?, r.get(2)?, r.get(3)?);
        Ok(Removed { series, t1, id, readings: r.get::<_, i64>(4)?.max(0) as u64, pack, hours_pack })
    };
    chunks.query_map(params![period, series], of)?.collect()
}

/// Removes a chunk, and its pack with the last chunk in it.
fn remove_chunk(
    transaction: &Connection,
    mark: &mut Mark,
    changes: &mut ledger::Changes,
    r: Removed,
) -> Result<(), rusqlite::Error> {
    changes.remove(r.series, r.t1, r.id);
    let gone = transaction
        .prepare_cached("DELETE FROM chunk WHERE period = ?1 AND series = ?2 AND t1 = ?3 AND id = ?4")?
        .execute(params![period(r.t1), r.series, r.t1, r.id])?;
    if gone == 0 {
        return Ok(());
    }
    mark.chunks = mark.chunks.saturating_sub(1);
    mark.readings = mark.readings.saturating_sub(r.readings);
    for pack in [Some(r.pack), r.hours_pack].into_iter().flatten() {
        let mut uses = transaction.prepare_cached("SELECT chunks, crc FROM pack_use WHERE pack = ?1")?;
        let known: Option<(i64, i64)> =
            uses.query_map([pack], |r| Ok((r.get(0)?, r.get(1)?)))?.next().transpose()?;
        match known {
            // A count that is not what was written: others may need the pack, which stays.
            Some((chunks, crc)) if use_crc(pack, chunks) != crc => {}
            Some((chunks, _)) if chunks > 1 => {
                transaction
                    .prepare_cached("UPDATE pack_use SET chunks = ?2, crc = ?3 WHERE pack = ?1")?
                    .execute([pack, chunks - 1, use_crc(pack, chunks - 1)])?;
            }
            _ => {
                transaction.prepare_cached("DELETE FROM pack WHERE id = ?1")?.execute([pack])?;
                transaction.prepare_cached("DELETE FROM pack_use WHERE pack = ?1")?.execute([pack])?;
            }
        }
    }
    Ok(())
}

fn period(time: i64) -> i64 {
    time.div_euclid(PERIOD_NANOS)
}

fn connect(path: &Path, access: Access) -> Result<Connection, rusqlite::Error> {
    let (no_mutex, read_write) = (OpenFlags::SQLITE_OPEN_NO_MUTEX, OpenFlags::SQLITE_OPEN_READ_WRITE);
    let connection = match access {
        Access::Write => {
            Connection::open_with_flags(path, read_write | no_mutex | OpenFlags::SQLITE_OPEN_CREATE)
        }
        Access::Read => Connection::open_with_flags(path, read_write | no_mutex),
        Access::ReadOnlyDisk => {
            let read = OpenFlags::SQLITE_OPEN_READ_ONLY | no_mutex;
            if wal_bytes(path) == 0 {
                // Nothing but the file itself counts.
                Connection::open_with_flags(immutable_uri(path), read | OpenFlags::SQLITE_OPEN_URI)
            } else {
                Connection::open_with_flags_and_vfs(path, read, c"unix-none")
            }
        }
    }?;
    connection.busy_timeout(std::time::Duration::from_secs(10))?;
    connection.set_prepared_statement_cache_capacity(32);
    connection.execute_batch(match access {
        // The first two only take effect in a new file.
        Access::Write => {
            "PRAGMA page_size = 16384; PRAGMA auto_vacuum = INCREMENTAL; PRAGMA journal_mode = WAL;
             PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 256; PRAGMA journal_size_limit = 8388608;
             PRAGMA cache_size = -4096; PRAGMA foreign_keys = OFF;"
        }
        Access::Read => "PRAGMA query_only = ON; PRAGMA cache_size = -2048;",
        // Alone: then SQLite keeps in its memory what it otherwise shares in a file.
        Access::ReadOnlyDisk => {
            "PRAGMA locking_mode = EXCLUSIVE; PRAGMA query_only = ON; PRAGMA cache_size = -2048;"
        }
    })?;
    Ok(connection)
}

/// Bytes in the write-ahead log of a file.
fn wal_bytes(path: &Path) -> u64 {
    let mut name = path.as_os_str().to_owned();
    name.push("-wal");
    std::fs::metadata(name).map_or(0, |m| m.len())
}

/// The address of a file that nobody changes (https://sqlite.org/uri.html).
fn immutable_uri(path: &Path) -> String {
    use std::fmt::Write as _;
    use std::os::unix::ffi::OsStrExt as _;
    let mut uri = "file:".to_owned();
    for &byte in path.as_os_str().as_bytes() {
        if byte.is_ascii_alphanumeric() || b"/-_.".contains(&byte) {
            uri.push(char::from(byte));
        } else {
            let _never_fails = write!(uri, "%{byte:02x}");
        }
    }
    uri + "?immutable=1"
}

fn table_names(connection: &Connection) -> Result<BTreeSet<String>, rusqlite::Error> {
    let mut statement = connection.prepare("SELECT name FROM sqlite_schema WHERE type = 'table'")?;
    statement.query_map([], |r| r.get(0))?.collect()
}

/// The weeks that have chunks, by their rows and by the ledger; where one is damaged the other tells.
fn periods(connection: &Connection, with_ledger: bool) -> Result<BTreeSet<i64>, rusqlite::Error> {
    let mut found = BTreeSet::new();
    for table in ["chunk", "ledger"].into_iter().take(1 + usize::from(with_ledger)) {
        let mut list = || -> Result<(), rusqlite::Error> {
            let mut statement =
                connection.prepare(&format!("SELECT min(period) FROM {table} WHERE period > ?1"))?;
            let mut after = i64::MIN;
            while let Some(period) = statement.query_row([after], |r| r.get::<_, Option<i64>>(0))? {
                found.insert(period);
                after = period;
            }
            Ok(())
        };
        damage::tolerate(list())?;
    }
    Ok(found)
}

fn tombstone_row(row: &Row<'_>) -> Result<Option<Tombstone>, rusqlite::Error> {
    let tombstone = Tombstone {
        series: row.get(0)?,
        start: row.get(1)?,
        stop: row.get(2)?,
        sequence: row.get::<_, i64>(3)? as u64,
    };
    Ok((tombstone_crc(&tombstone) == row.get::<_, i64>(4)?).then_some(tombstone))
}

/// The first read fixes what a transaction sees.
fn first_read(connection: &Connection) -> Result<(), rusqlite::Error> {
    connection.query_row("SELECT 1 FROM sqlite_schema LIMIT 1", [], |_| Ok(())).or_else(no_row)
}

fn no_row(error: rusqlite::Error) -> Result<(), rusqlite::Error> {
    if matches!(error, rusqlite::Error::QueryReturnedNoRows) { Ok(()) } else { Err(error) }
}

/// Tags as bytes: key, 0, value, 0, and so on in the order of keys. No name holds a control character.
fn tags_bytes(tags: &[(String, String)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (key, value) in tags {
        for text in [key, value] {
            out.extend_from_slice(text.as_bytes());
            out.push(0);
        }
    }
    out
}

pub(crate) fn parse_tags(bytes: &[u8]) -> Option<Vec<(String, String)>> {
    let text = std::str::from_utf8(bytes).ok()?;
    let mut parts = text.split_terminator('\0');
    let mut tags = Vec::new();
    while let Some(key) = parts.next() {
        tags.push((key.to_owned(), parts.next()?.to_owned()));
    }
    Some(tags)
}

// ---- checksums ----------------------------------------------------------------------------------------------------

struct Crc(u32);

impl Crc {
    fn add(mut self, bytes: &[u8]) -> Self {
        self.0 = crc32c::crc32c_append(self.0, bytes);
        self
    }

    fn number(self, v: i64) -> Self {
        self.add(&v.to_le_bytes())
    }

    fn place(self, v: Place) -> Self {
        self.number(v.pack).number(v.offset).number(v.length).number(v.crc)
    }

    fn text(self, v: &str) -> Self {
        self.number(v.len() as i64).add(v.as_bytes())
    }

    fn value(self, v: Option<&Value>) -> Self {
        match v {
            None => self.add(&[0]),
            Some(Value::Float(v)) => self.add(&[1]).add(&v.to_bits().to_le_bytes()),
            Some(Value::Integer(v)) => self.add(&[2]).number(*v),
            Some(Value::Unsigned(v)) => self.add(&[3]).number(*v as i64),
            Some(Value::Boolean(v)) => self.add(&[4, u8::from(*v)]),
            Some(Value::String(v)) => self.add(&[5]).text(v),
        }
    }

    fn end(self) -> i64 {
        i64::from(self.0)
    }
}

pub(crate) fn definition_crc(d: &Definition, tags: &[u8]) -> i64 {
    Crc(0)
        .number(i64::from(d.series))
        .number(i64::from(d.bucket))
        .number(i64::from(type_code(d.field_type)))
        .text(&d.measurement)
        .number(tags.len() as i64)
        .add(tags)
        .text(&d.field)
        .end()
}

/// Over the bytes and the number of the chunk, so that the bytes of another chunk are not taken for these.
pub(crate) fn data_crc(id: i64, bytes: &[u8]) -> i64 {
    Crc(0).number(id).add(bytes).end()
}

#[expect(clippy::too_many_arguments, reason = "a checksum is over every column of the row")]
pub(crate) fn meta_crc(
    series: u32,
    id: i64,
    (t0, t1): (i64, i64),
    sequence: u64,
    level: u8,
    s: &Summary,
    place: Place,
    hours: Option<Place>,
) -> i64 {
    Crc(0)
        .number(i64::from(series))
        .number(id)
        .number(t0)
        .number(t1)
        .number(sequence as i64)
        .number(i64::from(level))
        .number(s.count as i64)
        .value(s.min.as_ref())
        .value(s.max.as_ref())
        .value(s.total.stored().as_ref())
        .value(Some(&s.first.1))
        .value(Some(&s.last.1))
        .place(place)
        .place(hours.unwrap_or(Place { pack: 0, offset: 0, length: 0, crc: 0 }))
        .end()
}

pub(crate) fn sealed_crc(s: &SealedState) -> i64 {
    let optional = |crc: Crc, v: Option<i64>| crc.number(i64::from(v.is_some())).number(v.unwrap_or(0));
    let crc = Crc(0).number(i64::from(s.series)).number(s.sequence as i64).number(s.span);
    optional(optional(crc, s.fresh), s.until).end()
}

pub(crate) fn use_crc(pack: i64, chunks: i64) -> i64 {
    Crc(0).number(pack).number(chunks).end()
}

pub(crate) fn bucket_crc(id: u32, name: &str, retention: i64) -> i64 {
    Crc(0).number(i64::from(id)).text(name).number(retention).end()
}

pub(crate) fn tombstone_crc(t: &Tombstone) -> i64 {
    Crc(0).number(i64::from(t.series)).number(t.start).number(t.stop).number(t.sequence as i64).end()
}

// ---- values of summaries ------------------------------------------------------------------------------------------

/// A value as SQLite keeps it: REAL (NaN and -0.0 as eight bytes), INTEGER (booleans 0 and 1, unsigned by their bits),
/// TEXT, or NULL for none.
struct Stored<'a>(Option<&'a Value>);

impl ToSql for Stored<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self.0 {
            None => ValueRef::Null,
            // SQLite has no NaN (a sum that overflowed both ways) and may lose the sign of zero: these go as bytes.
            Some(Value::Float(v)) if v.is_nan() || v.to_bits() == (-0.0f64).to_bits() => {
                return Ok(ToSqlOutput::Owned(rusqlite::types::Value::Blob(
                    v.to_bits().to_le_bytes().to_vec(),
                )));
            }
            Some(Value::Float(v)) => ValueRef::Real(*v),
            Some(Value::Integer(v)) => ValueRef::Integer(*v),
            Some(Value::Unsigned(v)) => ValueRef::Integer(*v as i64),
            Some(Value::Boolean(v)) => ValueRef::Integer(i64::from(*v)),
            Some(Value::String(v)) => ValueRef::Text(v.as_bytes()),
        }))
    }
}

pub(crate) fn stored_value(value: ValueRef<'_>, field_type: FieldType) -> Option<Value> {
    Some(match (field_type, value) {
        (FieldType::Float, ValueRef::Real(v)) => Value::Float(v),
        (FieldType::Float, ValueRef::Blob(v)) => {
            Value::Float(f64::from_bits(u64::from_le_bytes(v.try_into().ok()?)))
        }
        (FieldType::Integer, ValueRef::Integer(v)) => Value::Integer(v),
        (FieldType::Unsigned, ValueRef::Integer(v)) => Value::Unsigned(v as u64),
        (FieldType::Boolean, ValueRef::Integer(v @ 0..=1)) => Value::Boolean(v == 1),
        (FieldType::String, ValueRef::Text(v)) => Value::String(std::str::from_utf8(v).ok()?.into()),
        _ => return None,
    })
}

/// The row of a chunk; `None` when it is not what was written.
fn chunk_meta(
    row: &Row<'_>,
    series: u32,
    field_type: FieldType,
) -> Result<Option<ChunkMeta>, rusqlite::Error> {
    let number = |i: usize| -> Result<Option<i64>, rusqlite::Error> { Ok(row.get_ref(i)?.as_i64().ok()) };
    let (Some(id), Some(t0), Some(t1), Some(sequence), Some(n), Some(crc)) =
        (number(0)?, number(1)?, number(2)?, number(3)?, number(4)?, number(10)?)
    else {
        return Ok(None);
    };
    let value = |i: usize, of: FieldType| -> Result<Option<Value>, rusqlite::Error> {
        Ok(stored_value(row.get_ref(i)?, of))
    };
    let sum_type = if field_type == FieldType::Boolean { FieldType::Unsigned } else { field_type };
    let (Some(first), Some(last)) = (value(8, field_type)?, value(9, field_type)?) else { return Ok(None) };
    let (min, max) = (value(5, field_type)?, value(6, field_type)?);
    let summary = Summary {
        count: n as u64,
        total: Total::restored(value(7, sum_type)?.as_ref(), n as u64, min.as_ref(), max.as_ref()),
        min,
        max,
        first: (Timestamp::from_nanos(t0), first),
        last: (Timestamp::from_nanos(t1), last),
    };
    let Ok(level) = row.get::<_, u8>(11) else { return Ok(None) };
    let place_at = |i: usize| -> Result<Option<Place>, rusqlite::Error> {
        let (Some(pack), Some(offset), Some(length), Some(crc)) =
            (number(i)?, number(i + 1)?, number(i + 2)?, number(i + 3)?)
        else {
            return Ok(None);
        };
        Ok(Some(Place { pack, offset, length, crc }))
    };
    let (Some(place), hours) = (place_at(12)?, place_at(16)?) else { return Ok(None) };
    let known = meta_crc(series, id, (t0, t1), sequence as u64, level, &summary, place, hours);
    let good = known == crc && t0 <= t1 && n > 0;
    let sequence = sequence as u64;
    Ok(good.then_some(ChunkMeta { id, series, t0, t1, sequence, level, summary, place, hours }))
}
