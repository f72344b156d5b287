//! The ledger: which chunks a series has in a week, kept apart from their rows, so that a page of SQLite that is old,
//! lost or in the wrong place neither hides readings nor brings deleted ones back without being noticed.
//! It knows nothing of the bytes of chunks.

use super::damage::{both_ways, is_damage, tolerate};
use super::{Crc, PERIOD_NANOS, period};
use crate::bytes::{Malformed, Reader, put_varint};
use crate::mark::{Mark, Table};
use graylogic_line::Timestamp;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, params};
use std::collections::{BTreeMap, BTreeSet};

/// More chunks in one week of a series are not believed.
const CHUNKS_MAX: usize = 1 << 22;
const SECOND: i64 = 1_000_000_000;

/// A chunk as the ledger knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Listed {
    pub(super) id: i64,
    pub(super) readings: u64,
    /// Whole seconds from the beginning of the week to its last reading.
    end: u64,
    /// Whole seconds from its first to its last reading.
    length: u64,
}

impl Listed {
    pub(super) fn new(id: i64, (t0, t1): (i64, i64), readings: u64) -> Self {
        let end = t1.rem_euclid(PERIOD_NANOS).div_euclid(SECOND) as u64;
        let length = t1.saturating_sub(t0).max(0).div_euclid(SECOND) as u64;
        Self { id, readings, end, length }
    }

    /// About when its first and last reading were.
    fn about(&self, week: i64) -> (Timestamp, Timestamp) {
        let seconds = |n: u64| i64::try_from(n).unwrap_or(i64::MAX).saturating_mul(SECOND);
        let last = week.saturating_mul(PERIOD_NANOS).saturating_add(seconds(self.end));
        let first = last.saturating_sub(seconds(self.length));
        (Timestamp::from_nanos(first), Timestamp::from_nanos(last))
    }
}

/// The row of a series and week.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Week {
    /// The commit that wrote it.
    commit: u64,
    /// Chunks from this number on did not exist when it was written.
    high: i64,
    /// In the order of their numbers.
    chunks: Vec<Listed>,
}

impl Week {
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(8 + self.chunks.len() * 10);
        put_varint(&mut out, self.commit);
        put_varint(&mut out, self.high as u64);
        put_varint(&mut out, self.chunks.len() as u64);
        let mut before = 0;
        for c in &self.chunks {
            put_varint(&mut out, c.id.wrapping_sub(before) as u64);
            before = c.id;
            [c.readings, c.end, c.length].iter().for_each(|&n| put_varint(&mut out, n));
        }
        out
    }

    fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        let commit = reader.varint()?;
        let high = i64::try_from(reader.varint()?).map_err(|_| Malformed)?;
        let mut week = Self { commit, high, chunks: Vec::new() };
        let mut id = 0i64;
        for _ in 0..reader.length(CHUNKS_MAX)? {
            id = id.checked_add_unsigned(reader.varint()?).ok_or(Malformed)?;
            let (readings, end, length) = (reader.varint()?, reader.varint()?, reader.varint()?);
            week.chunks.push(Listed { id, readings, end, length });
        }
        if reader.is_empty() { Ok(week) } else { Err(Malformed) }
    }

    fn lists(&self, id: i64) -> bool {
        self.chunks.binary_search_by_key(&id, |c| c.id).is_ok()
    }
}

/// A row of the ledger as it was found.
#[derive(Debug)]
pub(super) enum Row {
    Absent,
    /// With its checksum.
    Good(Week, i64),
    /// With the checksum it has, if any can be read.
    Damaged(Option<i64>),
}

fn row_crc(week: i64, series: u32, bytes: &[u8]) -> i64 {
    Crc(0).number(week).number(i64::from(series)).add(bytes).end()
}

/// What a row of the ledger is known by in the sum over the table.
pub(crate) fn row_id(week: i64, series: u32) -> i64 {
    week.wrapping_mul(1 << 32) ^ i64::from(series)
}

fn good(week: i64, series: u32, bytes: &[u8], crc: i64) -> Option<Week> {
    (row_crc(week, series, bytes) == crc).then(|| Week::decode(bytes).ok()).flatten()
}

/// A chunk as a row of the ledger lists it, for who reads rows without SQLite.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ListedChunk {
    pub(crate) id: i64,
    pub(crate) readings: u64,
    /// About when its first and last reading were.
    pub(crate) about: (Timestamp, Timestamp),
}

/// The chunks that a row of the ledger lists, when it is as it was written.
pub(crate) fn listed(week: i64, series: u32, bytes: &[u8], crc: i64) -> Option<Vec<ListedChunk>> {
    let row = good(week, series, bytes, crc)?;
    let of = |c: &Listed| ListedChunk { id: c.id, readings: c.readings, about: c.about(week) };
    Some(row.chunks.iter().map(of).collect())
}

pub(super) fn read(connection: &Connection, week: i64, series: u32) -> Result<Row, rusqlite::Error> {
    let read = || -> Result<Row, rusqlite::Error> {
        let mut statement =
            connection.prepare_cached("SELECT bytes, crc FROM ledger WHERE period = ?1 AND series = ?2")?;
        let mut rows = statement.query(params![week, series])?;
        let Some(row) = rows.next()? else { return Ok(Row::Absent) };
        let crc = row.get_ref(1)?.as_i64().ok();
        let ValueRef::Blob(bytes) = row.get_ref(0)? else { return Ok(Row::Damaged(crc)) };
        let found = crc.and_then(|crc| Some((good(week, series, bytes, crc)?, crc)));
        Ok(found.map_or(Row::Damaged(crc), |(week, crc)| Row::Good(week, crc)))
    };
    read().or_else(|e| if is_damage(&e) { Ok(Row::Damaged(None)) } else { Err(e) })
}

/// The chunks of a series in a week by their rows, and whether all of these can be reached.
fn rows_of(
    connection: &Connection,
    week: i64,
    series: u32,
) -> Result<(BTreeMap<i64, Listed>, bool), rusqlite::Error> {
    let mut found = BTreeMap::new();
    let sql = |order: &str| {
        format!(
            "SELECT id, t0, t1, n FROM chunk WHERE period = ?1 AND series = ?2 ORDER BY t1 {order}, id {order}"
        )
    };
    let (up, down) = (sql("ASC"), sql("DESC"));
    let whole = both_ways(connection, (&up, &down), params![week, series], |row| {
        let (id, t0, t1, n) = (row.get::<_, i64>(0)?, row.get(1)?, row.get(2)?, row.get::<_, i64>(3)?);
        Ok(found.insert(id, Listed::new(id, (t0, t1), n.max(0) as u64)).is_none())
    })?;
    Ok((found, whole))
}

/// What a commit does to the chunks of a series in a week.
#[derive(Debug, Default)]
pub(super) struct Change {
    added: Vec<Listed>,
    removed: BTreeSet<i64>,
}

/// What a commit does to the ledger, by week and series.
#[derive(Debug, Default)]
pub(super) struct Changes(BTreeMap<(i64, u32), Change>);

impl Changes {
    pub(super) fn add(&mut self, series: u32, (t0, t1): (i64, i64), id: i64, readings: u64) {
        let change = self.0.entry((period(t1), series)).or_default();
        change.added.push(Listed::new(id, (t0, t1), readings));
    }

    pub(super) fn remove(&mut self, series: u32, t1: i64, id: i64) {
        self.0.entry((period(t1), series)).or_default().removed.insert(id);
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = (i64, u32)> + '_ {
        self.0.keys().copied()
    }

    /// Writes the ledger; the rows of chunks are as they are to be. `first`: no chunk of before has this number or a
    /// larger one.
    pub(super) fn write(
        self,
        connection: &Connection,
        mark: &mut Mark,
        first: i64,
        next: i64,
    ) -> Result<(), rusqlite::Error> {
        let before = mark.clone();
        for ((week, series), change) in self.0 {
            let written = change.write(connection, mark, &before, (week, series), (first, next));
            // What cannot be listed stays as it is, and is named when it is asked for.
            tolerate(written)?;
        }
        Ok(())
    }
}

impl Change {
    fn write(
        self,
        connection: &Connection,
        mark: &mut Mark,
        before: &Mark,
        (week, series): (i64, u32),
        (first, next): (i64, i64),
    ) -> Result<(), rusqlite::Error> {
        let old = read(connection, week, series)?;
        let (rows, _) = rows_of(connection, week, series)?;
        let old_rows = || rows.values().filter(|c| c.id < first);
        let mut chunks: Vec<Listed> = match &old {
            // Rows that the list could not know: it is the list that is old.
            Row::Good(known, _) if old_rows().any(|c| c.id >= known.high) => old_rows().copied().collect(),
            Row::Good(known, _) => known.chunks.clone(),
            // Rows without a list: if the ledger as a whole is as it was, they were removed before and are back.
            Row::Absent if old_rows().next().is_some() && intact(connection, before)? => Vec::new(),
            Row::Absent | Row::Damaged(_) => old_rows().copied().collect(),
        };
        chunks.retain(|c| !self.removed.contains(&c.id));
        chunks.extend(self.added);
        chunks.sort_unstable_by_key(|c| c.id);
        chunks.dedup_by_key(|c| c.id);
        let written = Week { commit: mark.commit, high: next, chunks };
        put(connection, mark, (week, series), &old, &written)
    }
}

/// Puts a row in the place of an old one; none for a week without chunks.
fn put(
    connection: &Connection,
    mark: &mut Mark,
    (week, series): (i64, u32),
    old: &Row,
    new: &Week,
) -> Result<(), rusqlite::Error> {
    let id = row_id(week, series);
    if new.chunks.is_empty() {
        connection
            .prepare_cached("DELETE FROM ledger WHERE period = ?1 AND series = ?2")?
            .execute(params![week, series])?;
    } else {
        let bytes = new.encode();
        let crc = row_crc(week, series, &bytes);
        connection
            .prepare_cached(
                "INSERT OR REPLACE INTO ledger (period, series, bytes, crc) VALUES (?1, ?2, ?3, ?4)",
            )?
            .execute(params![week, series, bytes, crc])?;
        mark.table(Table::Ledger).add(id, crc);
    }
    if let Row::Good(_, crc) | Row::Damaged(Some(crc)) = old {
        mark.table(Table::Ledger).remove(id, *crc);
    }
    Ok(())
}

/// Whether the ledger as a whole is what a mark says.
pub(super) fn intact(connection: &Connection, mark: &Mark) -> Result<bool, rusqlite::Error> {
    let mut sum = crate::mark::TableSum::default();
    let mut read = || -> Result<bool, rusqlite::Error> {
        let mut statement = connection.prepare_cached("SELECT period, series, bytes, crc FROM ledger")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let (week, series, crc): (i64, u32, i64) = (row.get(0)?, row.get(1)?, row.get(3)?);
            let ValueRef::Blob(bytes) = row.get_ref(2)? else { return Ok(false) };
            sum.add(row_id(week, series), row_crc(week, series, bytes));
            if row_crc(week, series, bytes) != crc {
                return Ok(false);
            }
        }
        Ok(sum == mark.tables[Table::Ledger as usize])
    };
    read().or_else(|e| if is_damage(&e) { Ok(false) } else { Err(e) })
}

/// The rows of a week that do not count, and what is wrong there, a sentence each.
#[derive(Debug, Default)]
pub(super) struct Checked {
    pub(super) ignored: BTreeSet<i64>,
    pub(super) damage: Vec<String>,
}

/// Compares the rows of the chunks of a series in a week with the ledger. `whole`: whether the ledger as a whole is what
/// it was, asked only when that decides something.
pub(super) fn check(
    connection: &Connection,
    (week, series): (i64, u32),
    whole: impl FnOnce() -> Result<bool, rusqlite::Error>,
) -> Result<Checked, rusqlite::Error> {
    let (rows, reached) = rows_of(connection, week, series)?;
    let mut checked = Checked::default();
    let from = Timestamp::from_nanos(week.saturating_mul(PERIOD_NANOS));
    let mut say = |what: String| checked.damage.push(what);
    let list = match read(connection, week, series)? {
        Row::Absent if rows.is_empty() && reached => return Ok(checked),
        Row::Good(list, _) => list,
        Row::Absent if whole()? => Week { high: i64::MAX, ..Week::default() },
        Row::Absent => {
            say(format!(
                "series {series}, week from {from}: the list of its chunks is lost; they are shown unchecked"
            ));
            return Ok(checked);
        }
        Row::Damaged(_) => {
            say(format!(
                "series {series}, week from {from}: the list of its chunks is damaged; they are shown unchecked"
            ));
            return Ok(checked);
        }
    };
    if rows.keys().any(|&id| id >= list.high) {
        say(format!(
            "series {series}, week from {from}: the list of its chunks is an old one; they are shown unchecked"
        ));
        return Ok(checked);
    }
    for lost in list.chunks.iter().filter(|c| !rows.contains_key(&c.id)) {
        let (first, last) = lost.about(week);
        say(format!(
            "chunk {} of series {series} with {} readings from about {first} to {last}: its row is gone",
            lost.id, lost.readings
        ));
    }
    for back in rows.keys().filter(|id| !list.lists(**id)) {
        say(format!(
            "chunk {back} of series {series}: it was replaced or deleted, and its row is back; it is left out"
        ));
        checked.ignored.insert(*back);
    }
    Ok(checked)
}

/// Makes the list of a week say what is shown: rows that do not count go, chunks that are gone are not listed any more.
pub(super) fn settle(
    connection: &Connection,
    mark: &mut Mark,
    (week, series): (i64, u32),
) -> Result<(), rusqlite::Error> {
    let before = mark.clone();
    let checked = check(connection, (week, series), || intact(connection, &before))?;
    if checked.damage.is_empty() {
        return Ok(());
    }
    for id in &checked.ignored {
        connection
            .prepare_cached("DELETE FROM chunk WHERE period = ?1 AND series = ?2 AND id = ?3")?
            .execute(params![week, series, id])?;
    }
    let old = read(connection, week, series)?;
    let chunks = rows_of(connection, week, series)?.0.into_values().collect();
    let new = Week { commit: mark.commit, high: mark.next_chunk as i64, chunks };
    put(connection, mark, (week, series), &old, &new)
}

/// Makes the ledger anew from rows of chunks, for a store that had none. Rows that cannot be reached are left out.
pub(super) fn build(connection: &Connection, mark: &mut Mark, next: i64) -> Result<(), rusqlite::Error> {
    let mut weeks: BTreeMap<(i64, u32), BTreeMap<i64, Listed>> = BTreeMap::new();
    let columns = "SELECT period, series, id, t0, t1, n FROM chunk ORDER BY period";
    let (up, down) =
        (format!("{columns}, series, t1, id"), format!("{columns} DESC, series DESC, t1 DESC, id DESC"));
    let (mut chunks, mut readings) = (0u64, 0u64);
    both_ways(connection, (&up, &down), [], |row| {
        let key = (row.get(0)?, row.get(1)?);
        let (id, t0, t1, n) = (row.get(2)?, row.get(3)?, row.get(4)?, row.get::<_, i64>(5)?.max(0) as u64);
        let listed = Listed::new(id, (t0, t1), n);
        let is_new = weeks.entry(key).or_default().insert(id, listed).is_none();
        if is_new {
            (chunks, readings) = (chunks + 1, readings.saturating_add(n));
        }
        Ok(is_new)
    })?;
    (mark.chunks, mark.readings) = (chunks, readings);
    for (key, chunks) in weeks {
        let week = Week { commit: mark.commit, high: next, chunks: chunks.into_values().collect() };
        put(connection, mark, key, &Row::Absent, &week)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_week_comes_back_whole() {
        let day = 86_400 * SECOND;
        let chunks = vec![
            Listed::new(3, (5 * day, 6 * day - 1), 8640),
            Listed::new(1 << 40, (i64::MIN, i64::MAX), u64::MAX),
        ];
        let week = Week { commit: 9, high: i64::MAX, chunks };
        assert_eq!(Week::decode(&week.encode()), Ok(week.clone()));
        assert!(week.lists(3) && !week.lists(4));
        let (first, last) = week.chunks[0].about(0);
        assert_eq!((first.as_nanos(), last.as_nanos()), (5 * day, 6 * day - SECOND));
        let bytes = week.encode();
        for n in 0..bytes.len() {
            assert_eq!(Week::decode(&bytes[..n]), Err(Malformed), "cut at {n}");
        }
    }
}
