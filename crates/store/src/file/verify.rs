//! Checking the tables of the store file against each other, and settling damage: making the file say what is shown.

use super::damage::{is_damage, tolerate};
use super::{SealedState, SeriesCopy, StoreFile, Tombstone, catalog, ledger, lock, upgrade};
use crate::error::Error;
use crate::mark::Table;
use crate::record::{BucketDefinition, Definition};
use rusqlite::{Connection, params};
use std::collections::BTreeSet;

/// What memory knows of the catalog when damage is settled.
#[derive(Debug, Default)]
pub(crate) struct Known {
    pub(crate) buckets: Vec<BucketDefinition>,
    pub(crate) definitions: Vec<Definition>,
    pub(crate) sealed: Vec<SealedState>,
    pub(crate) tombstones: Vec<Tombstone>,
}

impl StoreFile {
    /// What SQLite itself and the tables of the file find wrong with each other, a sentence each.
    pub(crate) fn check(&self) -> Result<Vec<String>, Error> {
        let snapshot = self.snapshot()?;
        let connection = snapshot.connection();
        let mut damage = integrity(connection);
        if self.mark().is_some() {
            check_tables(connection, &mut damage)
                .map_err(|e| Error::sqlite("check the tables", &self.path, e))?;
        }
        Ok(damage)
    }

    /// Makes the file say what is shown, so that what is damaged or lost is not reported again.
    pub(crate) fn settle(&self, known: &Known) -> Result<(), Error> {
        self.transact("settle the damage", |transaction, mark| {
            settle_catalog(transaction, known)?;
            for (week, series) in weeks(transaction)?.0 {
                ledger::settle(transaction, mark, (week, series))?;
            }
            upgrade::recount(transaction, mark)
        })?;
        lock(&self.checked).clear();
        *lock(&self.ledger) = None;
        Ok(())
    }
}

fn integrity(connection: &Connection) -> Vec<String> {
    let check = || -> Result<Vec<String>, rusqlite::Error> {
        let mut statement = connection.prepare("PRAGMA integrity_check(100)")?;
        let rows = statement.query_map([], |r| r.get::<_, String>(0))?;
        rows.collect()
    };
    match check() {
        Ok(found) => found.into_iter().filter(|f| f != "ok").map(|f| format!("store file: {f}")).collect(),
        Err(error) => vec![format!("store file: it cannot be checked: {error}")],
    }
}

/// The tables against the mark, copies against each other, and every week of the ledger against its chunks.
fn check_tables(connection: &Connection, damage: &mut Vec<String>) -> Result<(), rusqlite::Error> {
    let Some(mark) = upgrade::read_mark(connection)? else {
        damage.push("store file: its mark (table meta) is damaged".into());
        return Ok(());
    };
    damage.extend(catalog::load(connection, Some(&mark))?.damage);
    let states = catalog::SealedStates::load(connection, Some(&mark), damage)?;
    for (copy, name) in [(SeriesCopy::Table, "series"), (SeriesCopy::Spare, "spare")] {
        let (sum, bad) = catalog::each_series(connection, copy, &states, |_| {})?;
        for id in bad {
            damage.push(format!("series {id}: its row in the table {name} is damaged"));
        }
        let expected = mark.tables[Table::Series as usize];
        if sum != expected {
            damage.push(format!(
                "the definitions of series in the table {name} are not what was written: {} of {} are good",
                sum.count, expected.count
            ));
        }
    }
    if !catalog::bucket_copies_are_whole(connection, &mark)? {
        damage.push("the copies of buckets (table spare) are not what was written".into());
    }
    let ledger_is_intact = ledger::intact(connection, &mark)?;
    if !ledger_is_intact {
        damage.push("the lists of chunks (table ledger) are not what was written".into());
    }
    let (weeks, reached) = weeks(connection)?;
    if !reached {
        damage.push("store file: not all rows of chunks can be read".into());
    }
    for week in weeks {
        damage.extend(ledger::check(connection, week, || Ok(ledger_is_intact))?.damage);
    }
    let totals = connection.query_row("SELECT count(*), coalesce(sum(n), 0) FROM chunk", [], |r| {
        Ok((r.get::<_, i64>(0)? as u64, r.get::<_, i64>(1)? as u64))
    });
    let totals = tolerate(totals)?;
    if totals.is_some_and(|found| found != (mark.chunks, mark.readings)) && damage.is_empty() {
        damage.push(format!(
            "store file: {} chunks with {} readings were written, and others are there",
            mark.chunks, mark.readings
        ));
    }
    Ok(())
}

/// The weeks of series that have chunks by their rows or by the ledger, and whether all rows were reached.
fn weeks(connection: &Connection) -> Result<(BTreeSet<(i64, u32)>, bool), rusqlite::Error> {
    let mut found = BTreeSet::new();
    let mut reached = true;
    for sql in ["SELECT DISTINCT period, series FROM chunk", "SELECT period, series FROM ledger"] {
        let mut read = || -> Result<(), rusqlite::Error> {
            let mut statement = connection.prepare(sql)?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                match (row.get(0), row.get(1)) {
                    (Ok(week), Ok(series)) => {
                        found.insert((week, series));
                    }
                    (Err(e), _) | (_, Err(e)) if is_damage(&e) => {}
                    (Err(e), _) | (_, Err(e)) => return Err(e),
                }
            }
            Ok(())
        };
        reached &= tolerate(read())?.is_some();
    }
    Ok((found, reached))
}

/// Writes the catalog as memory knows it.
fn settle_catalog(connection: &Connection, known: &Known) -> Result<(), rusqlite::Error> {
    for table in ["bucket", "series", "sealed", "tombstone", "spare"] {
        connection.execute(&format!("DELETE FROM {table}"), params![])?;
    }
    // The sums are counted anew afterwards.
    let mut mark = crate::mark::Mark::default();
    known.buckets.iter().try_for_each(|b| catalog::insert_bucket(connection, &mut mark, b))?;
    known.definitions.iter().try_for_each(|d| catalog::insert_series(connection, &mut mark, d))?;
    known.sealed.iter().try_for_each(|s| catalog::put_sealed(connection, &mut mark, s))?;
    known.tombstones.iter().try_for_each(|t| catalog::insert_tombstone(connection, &mut mark, t))
}
