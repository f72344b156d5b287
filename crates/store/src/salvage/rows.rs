//! Rows of the store file, recognized by their columns and checksums alone: a row is what it says wherever it is found.
//! It knows no pages.

use crate::file::{
    ListedChunk, Place, SealedState, Spare, StoredBucket, Tombstone, bucket_crc, definition_crc, listed,
    meta_crc, parse_tags, sealed_crc, spare, stored_value, tombstone_crc, use_crc,
};
use crate::mark::Mark;
use crate::record::{Definition, type_of_code};
use crate::total::Total;
use crate::window::Summary;
use graylogic_line::{FieldType, Timestamp};
use rusqlite::types::ValueRef;

/// The row of a chunk.
#[derive(Clone, Copy, Debug)]
pub(super) struct ChunkRow {
    pub(super) key: [i64; 4],
    pub(super) series: u32,
    pub(super) id: i64,
    pub(super) t0: i64,
    pub(super) t1: i64,
    pub(super) sequence: u64,
    pub(super) level: u8,
    pub(super) readings: u64,
    pub(super) place: Place,
    /// What is known of its hours is in the file too.
    pub(super) has_hours: bool,
}

/// A row that is as it was written.
#[derive(Debug)]
pub(super) enum Row {
    Bucket(StoredBucket),
    /// Its number is right as far as anybody knows; its checksum is not.
    DamagedBucket(u32),
    Series(Definition),
    Sealed(SealedState),
    Tombstone(Tombstone),
    Chunk(ChunkRow),
    /// A pack, and how many chunks have bytes in it.
    PackUse(i64, i64),
    /// The chunks of a series in a week.
    Ledger(u32, Vec<ListedChunk>),
    Spare(Spare),
    Meta(Mark),
}

impl Row {
    /// The table it belongs to.
    pub(super) fn table(&self) -> &'static str {
        match self {
            Self::Bucket(_) | Self::DamagedBucket(_) => "bucket",
            Self::Series(_) => "series",
            Self::Sealed(_) => "sealed",
            Self::Tombstone(_) => "tombstone",
            Self::Chunk(_) => "chunk",
            Self::PackUse(..) => "pack_use",
            Self::Ledger(..) => "ledger",
            Self::Spare(_) => "spare",
            Self::Meta(_) => "meta",
        }
    }
}

/// What a row is; `None`: none of these, or damaged.
pub(super) fn row(number: i64, columns: &[ValueRef<'_>]) -> Option<Row> {
    match columns.len() {
        2 => Mark::decode(columns[1].as_blob().ok()?).ok().map(Row::Meta),
        3 => pack_use(number, columns),
        4 => of_bytes(columns).or_else(|| bucket(number, columns)),
        6 => tombstone(columns).or_else(|| sealed(number, columns)),
        7 => series(number, columns),
        22 => chunk(columns).map(Row::Chunk),
        _ => None,
    }
}

/// A row of the ledger, or a copy of a row of the catalog.
fn of_bytes(columns: &[ValueRef<'_>]) -> Option<Row> {
    let (first, second) = (integer(columns, 0)?, integer(columns, 1)?);
    let (bytes, crc) = (columns.get(2)?.as_blob().ok()?, integer(columns, 3)?);
    let of_ledger = || {
        let series = u32::try_from(second).ok()?;
        listed(first, series, bytes, crc).map(|chunks| Row::Ledger(series, chunks))
    };
    spare(first, second, bytes, crc).map(Row::Spare).or_else(of_ledger)
}

fn integer(columns: &[ValueRef<'_>], i: usize) -> Option<i64> {
    columns.get(i)?.as_i64().ok()
}

fn small(columns: &[ValueRef<'_>], i: usize) -> Option<u32> {
    integer(columns, i).and_then(|v| u32::try_from(v).ok())
}

fn text(columns: &[ValueRef<'_>], i: usize) -> Option<String> {
    columns.get(i)?.as_str().ok().map(str::to_owned)
}

fn bucket(number: i64, columns: &[ValueRef<'_>]) -> Option<Row> {
    let id = u32::try_from(number).ok()?;
    let good = || {
        let bucket = StoredBucket { id, name: text(columns, 1)?, retention: integer(columns, 2)? };
        let crc = bucket_crc(id, &bucket.name, bucket.retention);
        (Some(crc) == integer(columns, 3)).then_some(Row::Bucket(bucket))
    };
    let like_one = columns[0] == ValueRef::Null && matches!(columns[1], ValueRef::Text(_));
    good().or_else(|| like_one.then_some(Row::DamagedBucket(id)))
}

fn series(number: i64, columns: &[ValueRef<'_>]) -> Option<Row> {
    let tags = columns.get(3)?.as_blob().ok()?;
    let definition = Definition {
        series: u32::try_from(number).ok()?,
        bucket: small(columns, 1)?,
        field_type: type_of_code(u8::try_from(integer(columns, 5)?).ok()?)?,
        measurement: text(columns, 2)?,
        tags: parse_tags(tags)?,
        field: text(columns, 4)?,
    };
    (Some(definition_crc(&definition, tags)) == integer(columns, 6)).then_some(Row::Series(definition))
}

fn sealed(number: i64, columns: &[ValueRef<'_>]) -> Option<Row> {
    let state = SealedState {
        series: u32::try_from(number).ok()?,
        sequence: integer(columns, 1)? as u64,
        span: integer(columns, 2)?,
        fresh: integer(columns, 3),
        until: integer(columns, 4),
    };
    (Some(sealed_crc(&state)) == integer(columns, 5)).then_some(Row::Sealed(state))
}

fn tombstone(columns: &[ValueRef<'_>]) -> Option<Row> {
    let tombstone = Tombstone {
        series: small(columns, 1)?,
        start: integer(columns, 2)?,
        stop: integer(columns, 3)?,
        sequence: integer(columns, 4)? as u64,
    };
    (Some(tombstone_crc(&tombstone)) == integer(columns, 5)).then_some(Row::Tombstone(tombstone))
}

fn pack_use(number: i64, columns: &[ValueRef<'_>]) -> Option<Row> {
    let chunks = integer(columns, 1)?;
    (Some(use_crc(number, chunks)) == integer(columns, 2)).then_some(Row::PackUse(number, chunks))
}

fn place(columns: &[ValueRef<'_>], i: usize) -> Option<Place> {
    Some(Place {
        pack: integer(columns, i)?,
        offset: integer(columns, i + 1)?,
        length: integer(columns, i + 2)?,
        crc: integer(columns, i + 3)?,
    })
}

/// The row of a chunk: its checksum says of which type its values are.
fn chunk(columns: &[ValueRef<'_>]) -> Option<ChunkRow> {
    let key = [integer(columns, 0)?, integer(columns, 1)?, integer(columns, 2)?, integer(columns, 3)?];
    let (series, id, t1, t0) = (u32::try_from(key[1]).ok()?, key[3], key[2], integer(columns, 4)?);
    let (sequence, readings) = (integer(columns, 5)? as u64, integer(columns, 7)? as u64);
    let level = u8::try_from(integer(columns, 6)?).ok()?;
    let (bytes, hours) = (place(columns, 13)?, place(columns, 17));
    let known = integer(columns, 21)?;
    let types =
        [FieldType::Float, FieldType::Integer, FieldType::Unsigned, FieldType::Boolean, FieldType::String];
    let good = |field_type: FieldType| {
        let sum_type = if field_type == FieldType::Boolean { FieldType::Unsigned } else { field_type };
        let value = |i: usize| stored_value(columns[i], field_type);
        let (Some(first), Some(last)) = (value(11), value(12)) else { return false };
        let (min, max) = (value(8), value(9));
        let sum = stored_value(columns[10], sum_type);
        let summary = Summary {
            count: readings,
            total: Total::restored(sum.as_ref(), readings, min.as_ref(), max.as_ref()),
            min,
            max,
            first: (Timestamp::from_nanos(t0), first),
            last: (Timestamp::from_nanos(t1), last),
        };
        meta_crc(series, id, (t0, t1), sequence, level, &summary, bytes, hours) == known
    };
    let row = ChunkRow {
        key,
        series,
        id,
        t0,
        t1,
        sequence,
        level,
        readings,
        place: bytes,
        has_hours: hours.is_some(),
    };
    (types.into_iter().any(good) && t0 <= t1 && readings > 0).then_some(row)
}
