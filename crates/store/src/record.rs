//! The payload of one frame of the hot log: the readings of one batch, with the definitions of series that are not
//! safe in the store file yet, so that every record can be understood alone. `docs/format.md` has every byte.

use crate::bytes::{Malformed, Reader, put_bytes, put_varint, put_zigzag, unzigzag, zigzag};
use crate::key::Tags;
use graylogic_line::FieldType;

const VERSION: u8 = 1;
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

pub(crate) fn encode<'a, T: AsRef<str>>(
    out: &mut Vec<u8>,
    definitions: impl ExactSizeIterator<Item = DefinitionRef<'a>>,
    rows: &[Row],
    texts: &[T],
) {
    out.push(VERSION);
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
    pub(crate) definitions: Vec<Definition>,
    pub(crate) rows: Vec<Row>,
    pub(crate) texts: Vec<String>,
}

pub(crate) fn decode(bytes: &[u8]) -> Result<Record, Malformed> {
    let mut reader = Reader::new(bytes);
    if reader.u8()? != VERSION {
        return Err(Malformed);
    }
    let mut record = Record::default();
    let id = |reader: &mut Reader<'_>| reader.varint().and_then(|v| u32::try_from(v).map_err(|_| Malformed));
    for _ in 0..reader.length(ENTRIES_MAX)? {
        let (series, bucket) = (id(&mut reader)?, id(&mut reader)?);
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

    fn encoded() -> Vec<u8> {
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
        encode(&mut out, refs, &rows, &texts);
        out
    }

    #[test]
    fn a_record_comes_back_whole() {
        let (definitions, rows, texts) = sample();
        assert_eq!(decode(&encoded()), Ok(Record { definitions, rows, texts }));
    }

    #[test]
    fn cut_and_flipped_records_never_panic() {
        let bytes = encoded();
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
