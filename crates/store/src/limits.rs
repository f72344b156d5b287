//! What a line may have and create, with the reasons for rejecting it. It changes nothing: a rejected line leaves nothing
//! behind.

use crate::catalog::Bucket;
use crate::write::RejectKind;
use graylogic_line::{Field, FieldRef, FieldType, ParseOptions};
use hashbrown::HashMap;
use hashbrown::hash_map::Entry;
use std::borrow::Cow;

/// Most tags of a line, so that one line cannot keep the store busy for seconds.
const TAGS_MAX: usize = 512;
/// Most fields of a measurement: each field of each combination of tags is a series and takes memory.
const FIELDS_MAX: usize = 100_000;
/// Most bytes of definitions of series that one line adds to a record of the log.
const DEFINITIONS_BYTES_MAX: usize = 16 << 20;
/// Longest string value, as InfluxDB 2.8 has it.
const STRING_BYTES_MAX: usize = 1 << 20;

/// What a bucket does not take.
#[derive(Clone, Copy)]
pub(crate) struct Limits {
    /// How the lines were read.
    pub(crate) options: ParseOptions,
    pub(crate) series_max: usize,
    /// Earlier readings have expired already.
    pub(crate) oldest: i64,
}

/// Why a line is rejected.
pub(crate) type Refusal = (RejectKind, String);
/// The name and type of a field.
pub(crate) type Named<'a> = (Cow<'a, str>, FieldType);

/// The fields of a line with their names, if they have the types that the measurement knows and no string is too long.
pub(crate) fn check_fields<'a>(
    bucket: &Bucket,
    measurement: &str,
    fields: &[Field<'a>],
) -> Result<Vec<Named<'a>>, Refusal> {
    let named: Vec<Named<'a>> = fields.iter().map(|f| (f.key(), type_of(&f.value))).collect();
    let mut types: HashMap<&str, FieldType> = HashMap::with_capacity(fields.len());
    for ((name, field_type), field) in named.iter().zip(fields) {
        let known = match types.entry(name) {
            Entry::Occupied(seen) => *seen.get(),
            Entry::Vacant(new) => *new.insert(bucket.field_type(measurement, name).unwrap_or(*field_type)),
        };
        if known != *field_type {
            let reason = format!(
                "field type conflict: input field \"{name}\" on measurement \"{measurement}\" is type {field_type}, already exists as type {known}"
            );
            return Err((RejectKind::TypeConflict, reason));
        }
        if let FieldRef::String(text) = &field.value
            && text.len() > STRING_BYTES_MAX
        {
            let reason = format!(
                "input field \"{name}\" on measurement \"{measurement}\" is too long, {} > {STRING_BYTES_MAX}",
                text.len()
            );
            return Err((RejectKind::TooLong, reason));
        }
    }
    drop(types);
    Ok(named)
}

/// Whether there is room for the series that a line would create.
pub(crate) fn check_limits(
    bucket: &Bucket,
    measurement: &str,
    tags: &[(&str, &str)],
    named: &[Named<'_>],
    limits: Limits,
) -> Result<(), Refusal> {
    if tags.len() > TAGS_MAX {
        let reason = format!(
            "measurement \"{measurement}\": the line has {} tags, the limit is {TAGS_MAX}: write values as fields",
            tags.len()
        );
        return Err((RejectKind::TooWide, reason));
    }
    let key = bucket.find_key(measurement, tags);
    if key.is_none() && bucket.keys_of(measurement) >= limits.series_max {
        let widest = bucket.widest_tag(measurement).map_or_else(String::new, |(tag, values)| {
            format!("; its tag \"{tag}\" has {values} values: is that an id or a time that changes with every reading?")
        });
        let max = limits.series_max;
        let reason = format!("measurement \"{measurement}\" has {max} series, which is the limit{widest}");
        return Err((RejectKind::SeriesLimit, reason));
    }
    let is_new = |name: &str| key.is_none_or(|key| bucket.entries[key as usize].fields.find(name).is_none());
    let new_series = named.iter().filter(|(name, _)| is_new(name)).count();
    let new_fields = named.iter().filter(|(name, _)| bucket.field_type(measurement, name).is_none()).count();
    if new_fields > 0 && bucket.fields_of(measurement) + new_fields > FIELDS_MAX {
        let reason = format!(
            "measurement \"{measurement}\" would have more than {FIELDS_MAX} fields: are their names ids or times?"
        );
        return Err((RejectKind::SeriesLimit, reason));
    }
    let key_bytes = measurement.len() + tags.iter().map(|(k, v)| k.len() + v.len() + 2).sum::<usize>();
    if new_series.saturating_mul(key_bytes + 16) > DEFINITIONS_BYTES_MAX {
        let reason = format!(
            "measurement \"{measurement}\": the line creates {new_series} series whose measurement and tags have {key_bytes} bytes each, the limit is {DEFINITIONS_BYTES_MAX} bytes in all: shorten the tags or split the line"
        );
        return Err((RejectKind::TooWide, reason));
    }
    Ok(())
}

pub(crate) fn type_of(value: &FieldRef<'_>) -> FieldType {
    match value {
        FieldRef::Float(_) => FieldType::Float,
        FieldRef::Integer(_) => FieldType::Integer,
        FieldRef::Unsigned(_) => FieldType::Unsigned,
        FieldRef::Boolean(_) => FieldType::Boolean,
        FieldRef::String(_) => FieldType::String,
    }
}

pub(crate) fn short_enough(value: &FieldRef<'_>) -> bool {
    !matches!(value, FieldRef::String(text) if text.len() > STRING_BYTES_MAX)
}
