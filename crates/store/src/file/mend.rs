//! Making the store file say what is shown: when damage is settled, and when it keeps the file from being written. A table
//! that SQLite cannot clear is kept under another name.

use super::damage::{both_ways, tolerate};
use super::verify::weeks;
use super::{SealedState, StoreFile, Tombstone, catalog, ledger, lock, upgrade};
use crate::error::Error;
use crate::mark::Mark;
use crate::record::{BucketDefinition, Definition};
use rusqlite::types::Value;
use rusqlite::{Connection, Transaction, params, params_from_iter};

/// Names of tables that are kept as they were found begin so.
pub(super) const KEPT: &str = "damaged_";

/// What memory knows of the catalog.
#[derive(Debug, Default)]
pub(crate) struct Known {
    pub(crate) buckets: Vec<BucketDefinition>,
    pub(crate) definitions: Vec<Definition>,
    pub(crate) sealed: Vec<SealedState>,
    pub(crate) tombstones: Vec<Tombstone>,
    pub(crate) removed: Vec<u32>,
}

impl StoreFile {
    /// Makes the file say what memory knows and what can be read of its chunks, so that it can be written, and what is
    /// damaged or lost is not found again.
    pub(crate) fn settle(&self, known: &Known) -> Result<(), Error> {
        self.transact("make the catalog anew", |transaction, mark| {
            renew(transaction, "meta")?;
            catalog_anew(transaction, known)?;
            chunks_anew(transaction)?;
            ledger_anew(transaction, mark)?;
            upgrade::recount(transaction, mark)
        })?;
        lock(&self.checked).clear();
        *lock(&self.ledger) = None;
        Ok(())
    }
}

/// Empties a table; when that fails it is kept under another name, and a new one takes its place. Returns the name of the
/// kept one.
fn renew(transaction: &Transaction<'_>, table: &str) -> Result<Option<String>, rusqlite::Error> {
    transaction.execute_batch("SAVEPOINT renew")?;
    let cleared = tolerate(transaction.execute(&format!("DELETE FROM {table}"), params![]))?;
    if cleared.is_some() {
        transaction.execute_batch("RELEASE renew")?;
        return Ok(None);
    }
    transaction.execute_batch("ROLLBACK TO renew; RELEASE renew")?;
    replace(transaction, table).map(Some)
}

/// Keeps a table under another name and puts an empty one in its place.
fn replace(connection: &Connection, table: &str) -> Result<String, rusqlite::Error> {
    let sql: String = connection.query_row(
        "SELECT sql FROM sqlite_schema WHERE type = 'table' AND name = ?1",
        [table],
        |r| r.get(0),
    )?;
    let is_taken = |name: &str| {
        connection.prepare("SELECT 1 FROM sqlite_schema WHERE name = ?1").and_then(|mut s| s.exists([name]))
    };
    let mut n = 0u32;
    let mut kept = format!("{KEPT}{table}_{n}");
    while is_taken(&kept)? {
        n += 1;
        kept = format!("{KEPT}{table}_{n}");
    }
    connection.execute_batch(&format!("ALTER TABLE {table} RENAME TO {kept}; {sql};"))?;
    Ok(kept)
}

/// Writes the catalog as memory knows it.
fn catalog_anew(transaction: &Transaction<'_>, known: &Known) -> Result<(), rusqlite::Error> {
    for table in ["bucket", "series", "sealed", "tombstone", "removed", "spare"] {
        renew(transaction, table)?;
    }
    // The sums are counted anew afterwards.
    let mut mark = Mark::default();
    known.buckets.iter().try_for_each(|b| catalog::insert_bucket(transaction, &mut mark, b))?;
    known.definitions.iter().try_for_each(|d| catalog::insert_series(transaction, &mut mark, d))?;
    known.sealed.iter().try_for_each(|s| catalog::put_sealed(transaction, &mut mark, s))?;
    known.tombstones.iter().try_for_each(|t| catalog::insert_tombstone(transaction, &mut mark, t))?;
    known.removed.iter().try_for_each(|id| catalog::note_removed(transaction, &mut mark, *id))
}

/// Copies the rows of chunks that can be reached into a new table, if not all can.
fn chunks_anew(transaction: &Transaction<'_>) -> Result<(), rusqlite::Error> {
    let check = transaction.query_row("PRAGMA integrity_check(chunk)", [], |r| r.get::<_, String>(0));
    if tolerate(check)?.is_some_and(|found| found == "ok") {
        return Ok(());
    }
    let kept = replace(transaction, "chunk")?;
    let columns = transaction.prepare("SELECT * FROM chunk")?.column_count();
    let places = vec!["?"; columns].join(", ");
    let mut insert = transaction.prepare(&format!("INSERT OR IGNORE INTO chunk VALUES ({places})"))?;
    let sql = |order: &str| {
        format!("SELECT * FROM {kept} ORDER BY period {order}, series {order}, t1 {order}, id {order}")
    };
    both_ways(transaction, (&sql("ASC"), &sql("DESC")), [], |row| {
        let values: Vec<Value> = (0..columns).map(|i| row.get(i)).collect::<Result<_, _>>()?;
        // A row that no table of chunks would take is none.
        Ok(insert.execute(params_from_iter(values)).is_ok_and(|made| made > 0))
    })?;
    Ok(())
}

fn ledger_anew(transaction: &Transaction<'_>, mark: &mut Mark) -> Result<(), rusqlite::Error> {
    let settle = |mark: &mut Mark| -> Result<(), rusqlite::Error> {
        for week in weeks(transaction)?.0 {
            ledger::settle(transaction, mark, week)?;
        }
        Ok(())
    };
    transaction.execute_batch("SAVEPOINT ledger")?;
    let check = transaction.query_row("PRAGMA integrity_check(ledger)", [], |r| r.get::<_, String>(0));
    let whole = tolerate(check)?.is_some_and(|found| found == "ok");
    if whole && tolerate(settle(mark))?.is_some() {
        return transaction.execute_batch("RELEASE ledger");
    }
    transaction.execute_batch("ROLLBACK TO ledger; RELEASE ledger")?;
    replace(transaction, "ledger")?;
    let next = mark.next_chunk as i64;
    ledger::build(transaction, mark, next)
}
