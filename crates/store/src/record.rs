//! The payload of one frame of the hot log: the readings of one batch, the definitions of their series, and what the store
//! knows of itself, so that the log can be understood without the store file. `docs/format.md` has every byte.

use crate::bytes::{Malformed, Reader, put_bytes, put_varint, put_zigzag, unzigzag, zigzag};
use crate::key::Tags;
use crate::mark::Mark;
use graylogic_line::FieldType;

/// A record of rows and definitions alone.
const ROWS: u8 = 1;
/// A record with a heading.
const HEADED: u8 = 2;
/// Flags of a heading.
const HAS_MARK: u8 = 1;
const IS_WHOLE: u8 = 2;
/// Most definitions or rows that a record may say it has: damage cannot ask for more memory than this.
const ENTRIES_MAX: usize = 1 << 24;

/// One reading on its way into the store. `bits` is the value: the bits of a float or integer, 0 or 1, or the index of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) series: u32,
    pub(crate) field_type: FieldType,
    pub(crate) time: i64,
    pub(crate) bits: u64,
}

/// What a series is, as written in a record and in the store file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Definition {
    pub(crate) series: u32,
    pub(crate) bucket: u32,
    pub(crate) field_type: FieldType,
    pub(crate) measurement: String,
    pub(crate) tags: Vec<(String, String)>,
    pub(crate) field: String,
}

pub(crate) fn type_code(field_type: FieldType) -> u8 {
    match field_type {
        FieldType::Float => 0,
        FieldType::Integer => 1,
        FieldType::Unsigned => 2,
        FieldType::Boolean => 3,
        FieldType::String => 4,
    }
}

pub(crate) fn type_of_code(code: u8) -> Option<FieldType> {
    Some(match code {
        0 => FieldType::Float,
        1 => FieldType::Integer,
        2 => FieldType::Unsigned,
        3 => FieldType::Boolean,
        4 => FieldType::String,
        _ => return None,
    })
}

/// A bucket, as written in a record and in the store file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BucketDefinition {
    pub(crate) id: u32,
    pub(crate) name: String,
    /// Readings older than this many nanoseconds are not shown; 0: none is too old.
    pub(crate) retention: i64,
}

/// A deletion: the readings of a series with `start <= time < stop` from records before `sequence` are gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tombstone {
    pub(crate) series: u32,
    pub(crate) start: i64,
    pub(crate) stop: i64,
    pub(crate) sequence: u64,
}

/// What a record says besides definitions and rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Heading {
    /// What the store knows of itself.
    pub(crate) mark: Option<Mark>,
    /// The buckets and deletions are all there were.
    pub(crate) whole: bool,
    pub(crate) buckets: Vec<BucketDefinition>,
    pub(crate) tombstones: Vec<Tombstone>,
}

impl Heading {
    fn is_empty(&self) -> bool {
        self.mark.is_none() && !self.whole && self.buckets.is_empty() && self.tombstones.is_empty()
    }

    fn encode(&self, out: &mut Vec<u8>) {
        let mark = if self.mark.is_some() { HAS_MARK } else { 0 };
        out.push(mark | if self.whole { IS_WHOLE } else { 0 });
        if let Some(mark) = &self.mark {
            put_bytes(out, &mark.encode());
        }
        put_varint(out, self.buckets.len() as u64);
        for bucket in &self.buckets {
            put_varint(out, u64::from(bucket.id));
            put_bytes(out, bucket.name.as_bytes());
            put_zigzag(out, bucket.retention);
        }
        put_varint(out, self.tombstones.len() as u64);
        for t in &self.tombstones {
            put_varint(out, u64::from(t.series));
            put_zigzag(out, t.start);
            put_zigzag(out, t.stop);
            put_varint(out, t.sequence);
        }
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let flags = reader.u8()?;
        let mark = match flags & HAS_MARK {
            0 => None,
            _ => Some(Mark::decode(reader.bytes()?)?),
        };
        let mut heading = Self { mark, whole: flags & IS_WHOLE != 0, ..Self::default() };
        for _ in 0..reader.length(ENTRIES_MAX)? {
            let id = number(reader)?;
            let name = reader.text()?.to_owned();
            heading.buckets.push(BucketDefinition { id, name, retention: reader.zigzag()? });
        }
        for _ in 0..reader.length(ENTRIES_MAX)? {
            let series = number(reader)?;
            let (start, stop, sequence) = (reader.zigzag()?, reader.zigzag()?, reader.varint()?);
            heading.tombstones.push(Tombstone { series, start, stop, sequence });
        }
        Ok(heading)
    }
}

/// The number of a series or bucket.
fn number(reader: &mut Reader<'_>) -> Result<u32, Malformed> {
    reader.varint().and_then(|v| u32::try_from(v).map_err(|_| Malformed))
}

pub(crate) fn encode<'a, T: AsRef<str>>(
    out: &mut Vec<u8>,
    heading: &Heading,
    definitions: impl ExactSizeIterator<Item = DefinitionRef<'a>>,
    rows: &[Row],
    texts: &[T],
) {
    if heading.is_empty() {
        out.push(ROWS);
    } else {
        out.push(HEADED);
        heading.encode(out);
    }
    put_varint(out, definitions.len() as u64);
    for d in definitions {
        put_varint(out, u64::from(d.series));
        put_varint(out, u64::from(d.bucket));
        out.push(type_code(d.field_type));
        put_bytes(out, d.measurement.as_bytes());
        put_varint(out, d.tags.len() as u64);
        for (key, value) in d.tags {
            put_bytes(out, key.as_bytes());
            put_bytes(out, value.as_bytes());
        }
        put_bytes(out, d.field.as_bytes());
    }
    put_varint(out, rows.len() as u64);
    let (mut series, mut time) = (0i64, 0i64);
    for row in rows {
        let step = zigzag(i64::from(row.series) - series);
        series = i64::from(row.series);
        put_varint(out, step << 3 | u64::from(type_code(row.field_type)));
        put_zigzag(out, row.time.wrapping_sub(time));
        time = row.time;
        match row.field_type {
            FieldType::Float => out.extend_from_slice(&row.bits.to_le_bytes()),
            FieldType::Integer => put_zigzag(out, row.bits as i64),
            FieldType::Unsigned | FieldType::Boolean => put_varint(out, row.bits),
            FieldType::String => put_bytes(out, texts[row.bits as usize].as_ref().as_bytes()),
        }
    }
}

/// A definition by reference, as the writer has it.
pub(crate) struct DefinitionRef<'a> {
    pub(crate) series: u32,
    pub(crate) bucket: u32,
    pub(crate) field_type: FieldType,
    pub(crate) measurement: &'a str,
    pub(crate) tags: Tags<'a>,
    pub(crate) field: &'a str,
}

/// What one record holds.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) heading: Heading,
    pub(crate) definitions: Vec<Definition>,
    pub(crate) rows: Vec<Row>,
    pub(crate) texts: Vec<String>,
}

fn heading_of(reader: &mut Reader<'_>) -> Result<Heading, Malformed> {
    match reader.u8()? {
        ROWS => Ok(Heading::default()),
        HEADED => Heading::decode(reader),
        _ => Err(Malformed),
    }
}

/// What a record says besides definitions and rows, which are not looked at.
pub(crate) fn decode_heading(bytes: &[u8]) -> Result<Heading, Malformed> {
    heading_of(&mut Reader::new(bytes))
}

pub(crate) fn decode(bytes: &[u8]) -> Result<Record, Malformed> {
    let mut reader = Reader::new(bytes);
    let mut record = Record { heading: heading_of(&mut reader)?, ..Record::default() };
    for _ in 0..reader.length(ENTRIES_MAX)? {
        let (series, bucket) = (number(&mut reader)?, number(&mut reader)?);
        let field_type = type_of_code(reader.u8()?).ok_or(Malformed)?;
        let measurement = reader.text()?.to_owned();
        let tags = (0..reader.length(ENTRIES_MAX)?)
            .map(|_| Ok((reader.text()?.to_owned(), reader.text()?.to_owned())))
            .collect::<Result<_, Malformed>>()?;
        let field = reader.text()?.to_owned();
        record.definitions.push(Definition { series, bucket, field_type, measurement, tags, field });
    }
    let (mut series, mut time) = (0i64, 0i64);
    for _ in 0..reader.length(ENTRIES_MAX)? {
        let head = reader.varint()?;
        let field_type = type_of_code((head & 7) as u8).ok_or(Malformed)?;
        series = series.checked_add(unzigzag(head >> 3)).ok_or(Malformed)?;
        time = time.wrapping_add(reader.zigzag()?);
        let bits = match field_type {
            FieldType::Float => reader.u64_le()?,
            FieldType::Integer => reader.zigzag()? as u64,
            FieldType::Unsigned | FieldType::Boolean => reader.varint()?,
            FieldType::String => {
                record.texts.push(reader.text()?.to_owned());
                record.texts.len() as u64 - 1
            }
        };
        record.rows.push(Row {
            series: u32::try_from(series).map_err(|_| Malformed)?,
            field_type,
            time,
            bits,
        });
    }
    if reader.is_empty() { Ok(record) } else { Err(Malformed) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::{Key, Packed};

    fn sample() -> (Vec<Definition>, Vec<Row>, Vec<String>) {
        let definition = |series, field: &str, field_type| Definition {
            series,
            bucket: 1,
            field_type,
            measurement: "energy".into(),
            tags: vec![("device_id".into(), "haus, links=1".into()), ("room".into(), "bad 🛁".into())],
            field: field.into(),
        };
        let row = |series, field_type, time, bits| Row { series, field_type, time, bits };
        (
            vec![definition(7, "power_watts", FieldType::Float), definition(9, "status", FieldType::String)],
            vec![
                row(7, FieldType::Float, 1_700_000_000_000_000_000, (-0.0f64).to_bits()),
                row(9, FieldType::String, i64::MIN + 2, 0),
                row(0, FieldType::Integer, i64::MAX, i64::MIN as u64),
                row(u32::MAX, FieldType::Unsigned, 0, u64::MAX),
                row(3, FieldType::Boolean, -1, 1),
            ],
            vec!["generating\n".into()],
        )
    }

    fn encoded(heading: &Heading) -> Vec<u8> {
        let (definitions, rows, texts) = sample();
        let key = |d: &Definition| {
            let tags: Vec<(&str, &str)> = d.tags.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
            Key::new(d.bucket, "".into(), Packed::new(&d.measurement, &tags))
        };
        let keys: Vec<Key> = definitions.iter().map(key).collect();
        let refs = definitions.iter().zip(&keys).map(|(d, key)| DefinitionRef {
            series: d.series,
            bucket: d.bucket,
            field_type: d.field_type,
            measurement: &d.measurement,
            tags: key.tags(),
            field: &d.field,
        });
        let mut out = Vec::new();
        encode(&mut out, heading, refs, &rows, &texts);
        out
    }

    fn heading() -> Heading {
        Heading {
            mark: Some(Mark::new(77)),
            whole: true,
            buckets: vec![BucketDefinition { id: 3, name: "haus".into(), retention: 7 }],
            tombstones: vec![Tombstone { series: 7, start: i64::MIN, stop: i64::MAX, sequence: 9 }],
        }
    }

    #[test]
    fn a_record_comes_back_whole() {
        for heading in [Heading::default(), heading()] {
            let (definitions, rows, texts) = sample();
            let bytes = encoded(&heading);
            assert_eq!(decode_heading(&bytes).as_ref(), Ok(&heading));
            assert_eq!(decode(&bytes), Ok(Record { heading, definitions, rows, texts }));
        }
    }

    #[test]
    fn cut_and_flipped_records_never_panic() {
        let bytes = encoded(&heading());
        for n in 0..bytes.len() {
            assert_eq!(decode(&bytes[..n]), Err(Malformed), "cut at {n}");
        }
        for i in 0..bytes.len() * 8 {
            let mut hurt = bytes.clone();
            hurt[i / 8] ^= 1 << (i % 8);
            let _ = decode(&hurt);
        }
    }
}
