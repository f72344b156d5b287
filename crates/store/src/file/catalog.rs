//! The catalog as the store file holds it: buckets, series, deletions, each read past what is damaged and compared with
//! what the mark says of its table. Buckets and series are in the file twice, on different pages.

use super::damage::{both_ways, is_damage};
use super::{
    Crc, SealedState, bucket_crc, definition_crc, parse_tags, sealed_crc, tags_bytes, tombstone_crc,
    tombstone_row,
};
use crate::bytes::{Malformed, Reader, put_bytes, put_varint, put_zigzag};
use crate::mark::{Mark, TABLE_NAMES, Table, TableSum};
use crate::record::{BucketDefinition, Definition, Tombstone, type_code, type_of_code};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, Row, params};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

/// Kinds of rows of the table `spare`.
const BUCKET: u8 = 1;
const SERIES: u8 = 2;
/// So many damaged rows are named one by one.
const NAMED_MAX: usize = 100;

/// What the file says of a series.
#[derive(Debug)]
pub(crate) struct StoredSeries {
    pub(crate) definition: Definition,
    /// The log's records up to here are in chunks, as far as this series is concerned; 0: none is.
    pub(crate) sealed: u64,
    /// No chunk of the series is longer than this.
    pub(crate) span: i64,
    /// First time of the chunks that were not compacted yet.
    pub(crate) fresh: Option<i64>,
    /// Last time of all chunks; `None`: there are none.
    pub(crate) until: Option<i64>,
}

/// What is read when a store is opened.
#[derive(Debug, Default)]
pub(crate) struct Loaded {
    pub(crate) buckets: Vec<BucketDefinition>,
    /// Buckets that are known by their numbers only: the name is damaged, and there is no copy of it in the file.
    pub(crate) nameless: Vec<u32>,
    pub(crate) tombstones: Vec<Tombstone>,
    /// All deletions that there were have been read.
    pub(crate) tombstones_whole: bool,
    /// Numbers of series that were removed with their bucket; the log may still speak of them.
    pub(crate) removed: Vec<u32>,
    /// Rows that are not what was written, one sentence each.
    pub(crate) damage: Vec<String>,
}

/// The two places of the file that hold the definitions of series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Copy {
    Table,
    Spare,
}

fn bucket_bytes(b: &BucketDefinition) -> Vec<u8> {
    let mut out = Vec::new();
    put_bytes(&mut out, b.name.as_bytes());
    put_zigzag(&mut out, b.retention);
    out
}

fn series_bytes(d: &Definition) -> Vec<u8> {
    let mut out = Vec::new();
    put_varint(&mut out, u64::from(d.bucket));
    out.push(type_code(d.field_type));
    put_bytes(&mut out, d.measurement.as_bytes());
    put_bytes(&mut out, &tags_bytes(&d.tags));
    put_bytes(&mut out, d.field.as_bytes());
    out
}

fn parse_bucket(id: u32, bytes: &[u8]) -> Result<BucketDefinition, Malformed> {
    let mut reader = Reader::new(bytes);
    Ok(BucketDefinition { id, name: reader.text()?.to_owned(), retention: reader.zigzag()? })
}

fn parse_series(id: u32, bytes: &[u8]) -> Result<Definition, Malformed> {
    let mut reader = Reader::new(bytes);
    let bucket = u32::try_from(reader.varint()?).map_err(|_| Malformed)?;
    let field_type = type_of_code(reader.u8()?).ok_or(Malformed)?;
    let measurement = reader.text()?.to_owned();
    let tags = parse_tags(reader.bytes()?).ok_or(Malformed)?;
    Ok(Definition { series: id, bucket, field_type, measurement, tags, field: reader.text()?.to_owned() })
}

fn spare_crc(kind: u8, id: u32, bytes: &[u8]) -> i64 {
    Crc(0).number(i64::from(kind)).number(i64::from(id)).add(bytes).end()
}

/// A copy of a row of the catalog.
#[derive(Debug)]
pub(crate) enum Spare {
    Bucket(BucketDefinition),
    Series(Definition),
}

/// What a row of `spare` is a copy of, when it is as it was written: for who reads rows without SQLite.
pub(crate) fn spare(kind: i64, id: i64, bytes: &[u8], crc: i64) -> Option<Spare> {
    let (kind, id) = (u8::try_from(kind).ok()?, u32::try_from(id).ok()?);
    if spare_crc(kind, id, bytes) != crc {
        return None;
    }
    match kind {
        BUCKET => parse_bucket(id, bytes).ok().map(Spare::Bucket),
        SERIES => parse_series(id, bytes).ok().map(Spare::Series),
        _ => None,
    }
}

fn put_spare(connection: &Connection, kind: u8, id: u32, bytes: &[u8]) -> Result<(), rusqlite::Error> {
    connection
        .prepare_cached("INSERT OR REPLACE INTO spare (kind, id, bytes, crc) VALUES (?1, ?2, ?3, ?4)")?
        .execute(params![kind, id, bytes, spare_crc(kind, id, bytes)])?;
    Ok(())
}

/// A good row of `spare`.
fn spare_row(kind: u8, row: &Row<'_>) -> Result<Option<(u32, Vec<u8>)>, rusqlite::Error> {
    let (id, crc): (u32, i64) = (row.get(0)?, row.get(2)?);
    let ValueRef::Blob(bytes) = row.get_ref(1)? else { return Ok(None) };
    Ok((spare_crc(kind, id, bytes) == crc).then(|| (id, bytes.to_vec())))
}

/// Hands on the good rows of a kind; returns whether all rows were read.
fn each_spare(
    connection: &Connection,
    kind: u8,
    mut found: impl FnMut(u32, &[u8]) -> bool,
) -> Result<bool, rusqlite::Error> {
    let sql = |order: &str| format!("SELECT id, bytes, crc FROM spare WHERE kind = ?1 ORDER BY id {order}");
    let mut good = true;
    let reached = both_ways(connection, (&sql("ASC"), &sql("DESC")), [kind], |row| {
        Ok(match spare_row(kind, row)? {
            Some((id, bytes)) => found(id, &bytes),
            None => {
                good = false;
                true
            }
        })
    })?;
    Ok(reached && good)
}

pub(super) fn insert_bucket(
    connection: &Connection,
    mark: &mut Mark,
    bucket: &BucketDefinition,
) -> Result<(), rusqlite::Error> {
    let crc = bucket_crc(bucket.id, &bucket.name, bucket.retention);
    connection
        .prepare_cached("INSERT INTO bucket (id, name, retention, crc) VALUES (?1, ?2, ?3, ?4)")?
        .execute(params![bucket.id, bucket.name, bucket.retention, crc])?;
    put_spare(connection, BUCKET, bucket.id, &bucket_bytes(bucket))?;
    mark.table(Table::Bucket).add(i64::from(bucket.id), crc);
    mark.next_bucket = mark.next_bucket.max(bucket.id.saturating_add(1));
    Ok(())
}

/// Takes a row out of the sum over its table, as it is known there.
fn take_out(
    connection: &Connection,
    mark: &mut Mark,
    (table, key): (Table, &str),
    id: u32,
) -> Result<(), rusqlite::Error> {
    let sql = format!("SELECT crc FROM {} WHERE {key} = ?1", TABLE_NAMES[table as usize]);
    let mut statement = connection.prepare_cached(&sql)?;
    let crcs: Vec<i64> = statement.query_map([id], |r| r.get(0))?.collect::<Result<_, _>>()?;
    crcs.into_iter().for_each(|crc| mark.table(table).remove(i64::from(id), crc));
    Ok(())
}

/// Gives a bucket another name or retention; one that has no row any more gets one.
pub(super) fn update_bucket(
    connection: &Connection,
    mark: &mut Mark,
    bucket: &BucketDefinition,
) -> Result<(), rusqlite::Error> {
    take_out(connection, mark, (Table::Bucket, "id"), bucket.id)?;
    connection.prepare_cached("DELETE FROM bucket WHERE id = ?1")?.execute([bucket.id])?;
    insert_bucket(connection, mark, bucket)
}

pub(super) fn remove_bucket(
    connection: &Connection,
    mark: &mut Mark,
    id: u32,
) -> Result<(), rusqlite::Error> {
    take_out(connection, mark, (Table::Bucket, "id"), id)?;
    connection.execute("DELETE FROM bucket WHERE id = ?1", [id])?;
    connection.execute("DELETE FROM spare WHERE kind = ?1 AND id = ?2", params![BUCKET, id])?;
    Ok(())
}

pub(super) fn insert_series(
    connection: &Connection,
    mark: &mut Mark,
    d: &Definition,
) -> Result<(), rusqlite::Error> {
    let tags = tags_bytes(&d.tags);
    let crc = definition_crc(d, &tags);
    let made = connection
        .prepare_cached(
            "INSERT OR IGNORE INTO series (id, bucket, measurement, tags, field, type, crc) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?
        .execute(params![d.series, d.bucket, d.measurement, tags, d.field, type_code(d.field_type), crc])?;
    if made > 0 {
        put_spare(connection, SERIES, d.series, &series_bytes(d))?;
        mark.table(Table::Series).add(i64::from(d.series), crc);
        mark.next_series = mark.next_series.max(d.series.saturating_add(1));
    }
    Ok(())
}

pub(super) fn remove_series(
    connection: &Connection,
    mark: &mut Mark,
    id: u32,
) -> Result<(), rusqlite::Error> {
    take_out(connection, mark, (Table::Series, "id"), id)?;
    take_out(connection, mark, (Table::Sealed, "series"), id)?;
    take_out(connection, mark, (Table::Tombstone, "series"), id)?;
    for table in ["tombstone", "sealed"] {
        connection.prepare_cached(&format!("DELETE FROM {table} WHERE series = ?1"))?.execute([id])?;
    }
    connection.prepare_cached("DELETE FROM series WHERE id = ?1")?.execute([id])?;
    connection
        .prepare_cached("DELETE FROM spare WHERE kind = ?1 AND id = ?2")?
        .execute(params![SERIES, id])?;
    note_removed(connection, mark, id)
}

pub(super) fn note_removed(connection: &Connection, mark: &mut Mark, id: u32) -> Result<(), rusqlite::Error> {
    let made =
        connection.prepare_cached("INSERT OR IGNORE INTO removed (series) VALUES (?1)")?.execute([id])?;
    if made > 0 {
        mark.table(Table::Removed).add(i64::from(id), 0);
        mark.next_series = mark.next_series.max(id.saturating_add(1));
    }
    Ok(())
}

pub(super) fn put_sealed(
    connection: &Connection,
    mark: &mut Mark,
    s: &SealedState,
) -> Result<(), rusqlite::Error> {
    take_out(connection, mark, (Table::Sealed, "series"), s.series)?;
    let crc = sealed_crc(s);
    connection
        .prepare_cached(
            "INSERT OR REPLACE INTO sealed (series, sequence, span, fresh, until, crc) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?
        .execute(params![s.series, s.sequence as i64, s.span, s.fresh, s.until, crc])?;
    mark.table(Table::Sealed).add(i64::from(s.series), crc);
    Ok(())
}

pub(super) fn insert_tombstone(
    connection: &Connection,
    mark: &mut Mark,
    t: &Tombstone,
) -> Result<(), rusqlite::Error> {
    let crc = tombstone_crc(t);
    connection
        .prepare_cached(
            "INSERT INTO tombstone (series, start, stop, sequence, crc) VALUES (?1, ?2, ?3, ?4, ?5)",
        )?
        .execute(params![t.series, t.start, t.stop, t.sequence as i64, crc])?;
    mark.table(Table::Tombstone).add(i64::from(t.series), crc);
    Ok(())
}

pub(super) fn lift_tombstone(
    connection: &Connection,
    mark: &mut Mark,
    t: &Tombstone,
) -> Result<(), rusqlite::Error> {
    let gone = connection
        .prepare_cached(
            "DELETE FROM tombstone WHERE series = ?1 AND start = ?2 AND stop = ?3 AND sequence = ?4",
        )?
        .execute(params![t.series, t.start, t.stop, t.sequence as i64])?;
    for _ in 0..gone {
        mark.table(Table::Tombstone).remove(i64::from(t.series), tombstone_crc(t));
    }
    Ok(())
}

/// The catalog without its series.
pub(super) fn load(connection: &Connection, mark: Option<&Mark>) -> Result<Loaded, rusqlite::Error> {
    let mut loaded = Loaded::default();
    load_buckets(connection, mark, &mut loaded)?;
    load_tombstones(connection, mark, &mut loaded)?;
    let mut removed = TableSum::default();
    both_ways(
        connection,
        ("SELECT series FROM removed ORDER BY series", "SELECT series FROM removed ORDER BY series DESC"),
        [],
        |row| {
            let id: u32 = row.get(0)?;
            let is_new = !loaded.removed.contains(&id) || loaded.removed.is_empty();
            if is_new {
                removed.add(i64::from(id), 0);
                loaded.removed.push(id);
            }
            Ok(is_new)
        },
    )?;
    if mark.is_some_and(|m| m.tables[Table::Removed as usize] != removed) {
        loaded.damage.push("the list of removed series (table removed) is not what was written".into());
    }
    Ok(loaded)
}

fn load_buckets(
    connection: &Connection,
    mark: Option<&Mark>,
    loaded: &mut Loaded,
) -> Result<(), rusqlite::Error> {
    let mut sum = TableSum::default();
    let mut good: BTreeMap<u32, BucketDefinition> = BTreeMap::new();
    let mut bad = BTreeSet::new();
    let sql = |order: &str| format!("SELECT id, name, retention, crc FROM bucket ORDER BY id {order}");
    both_ways(connection, (&sql("ASC"), &sql("DESC")), [], |row| {
        let id: u32 = row.get(0)?;
        if good.contains_key(&id) || bad.contains(&id) {
            return Ok(false);
        }
        let read = || -> Result<BucketDefinition, rusqlite::Error> {
            Ok(BucketDefinition { id, name: row.get(1)?, retention: row.get(2)? })
        };
        match read() {
            Ok(b) if row.get_ref(3)?.as_i64().ok() == Some(bucket_crc(id, &b.name, b.retention)) => {
                sum.add(i64::from(id), bucket_crc(id, &b.name, b.retention));
                good.insert(id, b);
            }
            Err(error) if !is_damage(&error) => return Err(error),
            _ => {
                bad.insert(id);
            }
        }
        Ok(true)
    })?;
    let whole = bad.is_empty() && mark.is_none_or(|m| m.tables[Table::Bucket as usize] == sum);
    if !whole && mark.is_some() {
        restore_buckets(connection, mark, &mut good, &mut bad, &mut loaded.damage)?;
    }
    for id in bad {
        loaded.damage.push(format!("bucket {id}: its row in the catalog is damaged, and so is its copy"));
        loaded.nameless.push(id);
    }
    loaded.buckets = good.into_values().collect();
    Ok(())
}

/// The copies of buckets that are good, and the sum over them.
fn spare_buckets(
    connection: &Connection,
) -> Result<(BTreeMap<u32, BucketDefinition>, TableSum), rusqlite::Error> {
    let mut sum = TableSum::default();
    let mut spare = BTreeMap::new();
    each_spare(connection, BUCKET, |id, bytes| {
        let Ok(b) = parse_bucket(id, bytes) else { return true };
        let crc = bucket_crc(id, &b.name, b.retention);
        let is_new = spare.insert(id, b).is_none();
        if is_new {
            sum.add(i64::from(id), crc);
        }
        is_new
    })?;
    Ok((spare, sum))
}

/// Whether the copies of buckets are what a mark says of the buckets.
pub(super) fn bucket_copies_are_whole(connection: &Connection, mark: &Mark) -> Result<bool, rusqlite::Error> {
    Ok(spare_buckets(connection)?.1 == mark.tables[Table::Bucket as usize])
}

/// Takes buckets from their copies.
fn restore_buckets(
    connection: &Connection,
    mark: Option<&Mark>,
    good: &mut BTreeMap<u32, BucketDefinition>,
    bad: &mut BTreeSet<u32>,
    damage: &mut Vec<String>,
) -> Result<(), rusqlite::Error> {
    let (spare, sum) = spare_buckets(connection)?;
    let spare_is_whole = mark.is_some_and(|m| m.tables[Table::Bucket as usize] == sum);
    if spare_is_whole {
        for gone in good.keys().filter(|id| !spare.contains_key(id)) {
            damage
                .push(format!("bucket {gone}: it was removed, and an old row of it is back; it is left out"));
        }
        good.retain(|id, _| spare.contains_key(id));
    }
    let known = good.len();
    for (id, bucket) in spare {
        bad.remove(&id);
        if good.get(&id) != Some(&bucket) && (spare_is_whole || !good.contains_key(&id)) {
            let name = &bucket.name;
            damage.push(format!(
                "bucket {name:?}: its row in the catalog is damaged; it was read from the copy of it"
            ));
            good.insert(id, bucket);
        }
    }
    if damage.is_empty() && known == good.len() {
        damage.push("the list of buckets (table bucket) is not what was written".into());
    }
    Ok(())
}

fn load_tombstones(
    connection: &Connection,
    mark: Option<&Mark>,
    loaded: &mut Loaded,
) -> Result<(), rusqlite::Error> {
    let mut sum = TableSum::default();
    let mut seen = BTreeSet::new();
    let sql = |order: &str| {
        format!("SELECT series, start, stop, sequence, crc, id FROM tombstone ORDER BY id {order}")
    };
    let (tombstones, damage) = (&mut loaded.tombstones, &mut loaded.damage);
    let reached = both_ways(connection, (&sql("ASC"), &sql("DESC")), [], |row| {
        let id: i64 = row.get(5)?;
        if !seen.insert(id) {
            return Ok(false);
        }
        match tombstone_row(row) {
            Ok(Some(t)) => {
                sum.add(i64::from(t.series), tombstone_crc(&t));
                tombstones.push(t);
            }
            Err(error) if !is_damage(&error) => return Err(error),
            _ => damage.push(format!("deletion {id}: its row is damaged")),
        }
        Ok(true)
    })?;
    let whole = reached && mark.is_none_or(|m| m.tables[Table::Tombstone as usize] == sum);
    if !whole {
        damage.push("the list of deletions (table tombstone) is not what was written".into());
    }
    loaded.tombstones_whole = whole;
    Ok(())
}

/// What the file says of how far series are sealed.
pub(super) struct SealedStates {
    rows: HashMap<u32, SealedState>,
    /// What the chunks say, when the rows are not what was written.
    chunks: Option<HashMap<u32, SealedState>>,
}

impl SealedStates {
    pub(super) fn load(
        connection: &Connection,
        mark: Option<&Mark>,
        damage: &mut Vec<String>,
    ) -> Result<Self, rusqlite::Error> {
        let mut sum = TableSum::default();
        let mut rows = HashMap::new();
        let mut bad = 0;
        let sql = |order: &str| {
            format!("SELECT series, sequence, span, fresh, until, crc FROM sealed ORDER BY series {order}")
        };
        let reached = both_ways(connection, (&sql("ASC"), &sql("DESC")), [], |row| {
            let state = SealedState {
                series: row.get(0)?,
                sequence: row.get::<_, i64>(1)? as u64,
                span: row.get(2)?,
                fresh: row.get(3)?,
                until: row.get(4)?,
            };
            if sealed_crc(&state) != row.get::<_, i64>(5)? {
                bad += 1;
                return Ok(true);
            }
            sum.add(i64::from(state.series), sealed_crc(&state));
            Ok(rows.insert(state.series, state).is_none())
        })?;
        let whole = reached && bad == 0 && mark.is_none_or(|m| m.tables[Table::Sealed as usize] == sum);
        if whole {
            return Ok(Self { rows, chunks: None });
        }
        damage.push(
            "how far series are in chunks (table sealed) is not what was written; it was found from their chunks"
                .into(),
        );
        Ok(Self { rows, chunks: Some(states_of_chunks(connection)?) })
    }

    fn of(&self, series: u32) -> SealedState {
        let none = SealedState { series, sequence: 0, span: 0, fresh: None, until: None };
        let row = self.rows.get(&series).copied().unwrap_or(none);
        let Some(chunks) = self.chunks.as_ref().map(|c| c.get(&series).copied().unwrap_or(none)) else {
            return row;
        };
        SealedState {
            series,
            sequence: row.sequence.max(chunks.sequence),
            span: row.span.max(chunks.span),
            fresh: [row.fresh, chunks.fresh].into_iter().flatten().min(),
            until: row.until.max(chunks.until),
        }
    }
}

/// What the chunks of each series say of it.
fn states_of_chunks(connection: &Connection) -> Result<HashMap<u32, SealedState>, rusqlite::Error> {
    let mut states: HashMap<u32, SealedState> = HashMap::new();
    let mut seen = BTreeSet::new();
    let columns = "SELECT series, sequence, t0, t1, level, id FROM chunk ORDER BY period";
    let (up, down) =
        (format!("{columns}, series, t1, id"), format!("{columns} DESC, series DESC, t1 DESC, id DESC"));
    both_ways(connection, (&up, &down), [], |row| {
        let (series, t0, t1): (u32, i64, i64) = (row.get(0)?, row.get(2)?, row.get(3)?);
        let (sequence, level): (i64, i64) = (row.get(1)?, row.get(4)?);
        let state = states.entry(series).or_insert(SealedState {
            series,
            sequence: 0,
            span: 0,
            fresh: None,
            until: None,
        });
        state.sequence = state.sequence.max(sequence.max(0) as u64);
        state.span = state.span.max(t1.saturating_sub(t0));
        state.until = state.until.max(Some(t1));
        if level == 0 {
            state.fresh = Some(state.fresh.map_or(t0, |t: i64| t.min(t0)));
        }
        Ok(seen.insert(row.get::<_, i64>(5)?))
    })?;
    Ok(states)
}

/// Hands on the series that one of the two copies has, one at a time, because all of them would be more than what the
/// catalog keeps of them; returns the sum over them and the numbers of damaged rows.
pub(super) fn each_series(
    connection: &Connection,
    copy: Copy,
    states: &SealedStates,
    mut found: impl FnMut(StoredSeries),
) -> Result<(TableSum, Vec<i64>), rusqlite::Error> {
    let mut sum = TableSum::default();
    let mut bad = Vec::new();
    let mut seen: HashSet<u32> = HashSet::new();
    let mut take = |definition: Definition| {
        let id = definition.series;
        let tags = tags_bytes(&definition.tags);
        sum.add(i64::from(id), definition_crc(&definition, &tags));
        let s = states.of(id);
        let (sealed, span, fresh, until) = (s.sequence, s.span, s.fresh, s.until);
        found(StoredSeries { definition, sealed, span, fresh, until });
    };
    match copy {
        Copy::Spare => {
            each_spare(connection, SERIES, |id, bytes| {
                let new = seen.insert(id);
                if let (true, Ok(definition)) = (new, parse_series(id, bytes)) {
                    take(definition);
                }
                new
            })?;
        }
        Copy::Table => {
            let sql = |order: &str| {
                format!(
                    "SELECT id, bucket, measurement, tags, field, type, crc FROM series ORDER BY id {order}"
                )
            };
            both_ways(connection, (&sql("ASC"), &sql("DESC")), [], |row| {
                let id: u32 = row.get(0)?;
                if !seen.insert(id) {
                    return Ok(false);
                }
                match series_row(row) {
                    Ok(Some(definition)) => take(definition),
                    Err(error) if !is_damage(&error) => return Err(error),
                    _ if bad.len() < NAMED_MAX => bad.push(i64::from(id)),
                    _ => {}
                }
                Ok(true)
            })?;
        }
    }
    Ok((sum, bad))
}

pub(super) fn series_row(row: &Row<'_>) -> Result<Option<Definition>, rusqlite::Error> {
    let tags: Vec<u8> = row.get(3)?;
    let (Some(field_type), Some(parsed)) = (type_of_code(row.get(5)?), parse_tags(&tags)) else {
        return Ok(None);
    };
    let definition = Definition {
        series: row.get(0)?,
        bucket: row.get(1)?,
        field_type,
        measurement: row.get(2)?,
        tags: parsed,
        field: row.get(4)?,
    };
    Ok((definition_crc(&definition, &tags) == row.get::<_, i64>(6)?).then_some(definition))
}

/// Makes the copies and the sums for a store that had none, from the rows that are good. Damaged rows are counted as they
/// should be, so that they stay noticed.
pub(super) fn build(connection: &Connection, mark: &mut Mark) -> Result<(), rusqlite::Error> {
    let loaded = load(connection, None)?;
    for bucket in &loaded.buckets {
        put_spare(connection, BUCKET, bucket.id, &bucket_bytes(bucket))?;
    }
    let states = SealedStates { rows: HashMap::new(), chunks: None };
    let mut definitions = Vec::new();
    each_series(connection, Copy::Table, &states, |s| definitions.push(s.definition))?;
    for definition in &definitions {
        put_spare(connection, SERIES, definition.series, &series_bytes(definition))?;
    }
    sums(connection, mark)
}

/// Counts the tables as they are, by the checksums that their rows carry.
pub(super) fn sums(connection: &Connection, mark: &mut Mark) -> Result<(), rusqlite::Error> {
    let sums = [
        (Table::Bucket, "SELECT id, crc FROM bucket"),
        (Table::Series, "SELECT id, crc FROM series"),
        (Table::Sealed, "SELECT series, crc FROM sealed"),
        (Table::Tombstone, "SELECT series, crc FROM tombstone"),
        (Table::Removed, "SELECT series, 0 FROM removed"),
    ];
    for (table, sql) in sums {
        let sum = mark.table(table);
        both_ways(connection, (sql, sql), [], |row| {
            sum.add(row.get(0)?, row.get(1)?);
            Ok(true)
        })?;
    }
    Ok(())
}
