//! Making a store file, bringing one of an earlier version up to the present one in one transaction, and its mark: what
//! the file says of the store as a whole.

use super::damage::{both_ways, tolerate};
use super::{APPLICATION_ID, FORMAT_VERSION, SCHEMA, SCHEMA_2, catalog, ledger};
use crate::mark::{Mark, Table};
use rusqlite::{Connection, params};

pub(super) fn create(connection: &mut Connection, new: &Mark) -> Result<(), rusqlite::Error> {
    let transaction = connection.transaction()?;
    transaction.execute_batch(&format!(
        "{SCHEMA} {SCHEMA_2} PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {FORMAT_VERSION};"
    ))?;
    write_mark(&transaction, new)?;
    transaction.commit()
}

/// Adds what version 2 has: the mark, the ledger, the copies of the catalog. The identity is that of the log, if it has one: an
/// older file may have been put back.
pub(super) fn from_version_1(connection: &mut Connection, new: &Mark) -> Result<(), rusqlite::Error> {
    let transaction = connection.transaction()?;
    transaction.execute_batch(SCHEMA_2)?;
    let mut mark = Mark { shared_log_id: true, ..numbers(&transaction)? };
    mark.identity = new.identity;
    mark.commit = 1;
    mark.written = written_by_version_1(&transaction)?;
    catalog::build(&transaction, &mut mark)?;
    let next = mark.next_chunk as i64;
    ledger::build(&transaction, &mut mark, next)?;
    write_mark(&transaction, &mark)?;
    transaction.execute_batch(&format!("DROP TABLE counter; PRAGMA user_version = {FORMAT_VERSION};"))?;
    transaction.commit()
}

/// What a file of version 1 says of the bytes written in its life.
pub(super) fn written_by_version_1(connection: &Connection) -> Result<u64, rusqlite::Error> {
    let read = connection
        .prepare("SELECT value FROM counter WHERE name = 'written'")
        .and_then(|mut s| s.query_map([], |r| r.get::<_, i64>(0))?.next().transpose());
    Ok(tolerate(read)?.flatten().and_then(|n| u64::try_from(n).ok()).unwrap_or(0))
}

/// The mark; `None` when it is not what was written.
pub(super) fn read_mark(connection: &Connection) -> Result<Option<Mark>, rusqlite::Error> {
    let read = || -> Result<Option<Mark>, rusqlite::Error> {
        let mut statement = connection.prepare_cached("SELECT mark FROM meta WHERE id = 1")?;
        let mut rows = statement.query([])?;
        let Some(row) = rows.next()? else { return Ok(None) };
        Ok(row.get_ref(0)?.as_blob().ok().and_then(|bytes| Mark::decode(bytes).ok()))
    };
    match read() {
        // A schema that has lost the table.
        Err(rusqlite::Error::SqliteFailure(error, _))
            if error.extended_code == rusqlite::ffi::SQLITE_ERROR =>
        {
            Ok(None)
        }
        read => Ok(tolerate(read)?.flatten()),
    }
}

pub(super) fn write_mark(connection: &Connection, mark: &Mark) -> Result<(), rusqlite::Error> {
    connection
        .prepare_cached("INSERT OR REPLACE INTO meta (id, mark) VALUES (1, ?1)")?
        .execute(params![mark.encode()])?;
    Ok(())
}

/// The numbers that tables know to be given.
fn numbers(connection: &Connection) -> Result<Mark, rusqlite::Error> {
    let largest = |sql: &str| -> Result<i64, rusqlite::Error> {
        let found = tolerate(connection.query_row(sql, [], |r| r.get::<_, Option<i64>>(0)))?;
        Ok(found.flatten().unwrap_or(-1).max(-1))
    };
    let next = |n: i64| u32::try_from(n.saturating_add(1)).unwrap_or(u32::MAX);
    let series = largest("SELECT max(id) FROM series")?.max(largest("SELECT max(series) FROM removed")?);
    let series = series.max(largest("SELECT max(series) FROM sealed")?);
    let bucket = largest("SELECT max(id) FROM bucket")?.max(0);
    let chunk = largest("SELECT max(id) FROM pack")?.max(largest("SELECT max(id) FROM chunk")?).max(0);
    let sequence = largest("SELECT max(sequence) FROM sealed")?;
    let sequence = sequence.max(largest("SELECT max(sequence) FROM tombstone")?).max(0);
    Ok(Mark {
        next_series: next(series),
        next_bucket: next(bucket),
        next_chunk: chunk as u64 + 1,
        sequence: sequence as u64 + 1,
        ..Mark::default()
    })
}

/// What is known of a file whose mark is lost. It has no identity.
pub(super) fn guess_mark(connection: &Connection) -> Result<Mark, rusqlite::Error> {
    let mut mark = numbers(connection)?;
    recount(connection, &mut mark)?;
    Ok(mark)
}

/// Counts tables and chunks as they are.
pub(super) fn recount(connection: &Connection, mark: &mut Mark) -> Result<(), rusqlite::Error> {
    mark.tables = Default::default();
    catalog::sums(connection, mark)?;
    let sum = mark.table(Table::Ledger);
    let sql = "SELECT period, series, crc FROM ledger";
    both_ways(connection, (sql, sql), [], |row| {
        sum.add(ledger::row_id(row.get(0)?, row.get(1)?), row.get(2)?);
        Ok(true)
    })?;
    let totals = connection.query_row("SELECT count(*), coalesce(sum(n), 0) FROM chunk", [], |r| {
        Ok((r.get::<_, i64>(0)?, r.get::<_, i64>(1)?))
    });
    if let Some((chunks, readings)) = tolerate(totals)? {
        (mark.chunks, mark.readings) = (chunks.max(0) as u64, readings.max(0) as u64);
    }
    Ok(())
}
