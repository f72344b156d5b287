//! Checking the tables of the store file against each other.

use super::damage::{is_damage, tolerate};
use super::mend::KEPT;
use super::{SeriesCopy, StoreFile, catalog, ledger, upgrade};
use crate::error::Error;
use crate::mark::Table;
use rusqlite::Connection;
use std::collections::BTreeSet;

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
}

fn integrity(connection: &Connection) -> Vec<String> {
    let check = |sql: &str| -> Result<Vec<String>, rusqlite::Error> {
        let mut statement = connection.prepare(sql)?;
        let rows = statement.query_map([], |r| r.get::<_, String>(0))?;
        rows.collect()
    };
    let tables = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite%'";
    let found = check(tables).and_then(|tables| {
        if !tables.iter().any(|t| t.starts_with(KEPT)) {
            return check("PRAGMA integrity_check(100)");
        }
        // What was found damaged before and is kept stays damaged.
        let tables = tables.iter().filter(|t| !t.starts_with(KEPT));
        let found: Result<Vec<Vec<String>>, _> =
            tables.map(|t| check(&format!("PRAGMA integrity_check({t})"))).collect();
        Ok(found?.into_iter().flatten().collect())
    });
    match found {
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
pub(super) fn weeks(connection: &Connection) -> Result<(BTreeSet<(i64, u32)>, bool), rusqlite::Error> {
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
