//! What a Flux query answers: tables of typed columns and their rows. Must not know how they came here.

use graylogic_line::Timestamp;
use std::fmt;
use std::sync::Arc;

/// What an answer consists of, in the order in which it comes.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum FluxItem {
    /// A table begins. It has no rows yet: they follow, up to the next table.
    Table(FluxTable),
    /// A row of the table that began last.
    Record(FluxRecord),
}

/// A table: rows that belong together, because they agree in the columns of the group key.
///
/// ```
/// use graylogic_influxdb::{FluxReader, FluxValue};
///
/// let answer = "#datatype,string,long,string,double\n\
///               #group,false,false,true,false\n\
///               #default,_result,,,\n\
///               ,result,table,room,_value\n\
///               ,,0,hall,18.5\n\
///               ,,0,hall,18\n\
///               ,,1,kitchen,21\n";
/// let tables = FluxReader::read_all(answer.as_bytes())?;
/// assert_eq!(tables.len(), 2);
/// assert_eq!((tables[0].result(), tables[0].number()), ("_result", Some(0)));
/// assert_eq!(tables[0].rows().len(), 2);
/// assert!(tables[0].columns()[2].is_group()); // room
/// assert_eq!(tables[1].rows()[0].get("room"), Some(&FluxValue::from("kitchen")));
/// # Ok::<(), graylogic_influxdb::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct FluxTable {
    pub(crate) result: Arc<str>,
    pub(crate) number: Option<i64>,
    pub(crate) columns: Arc<[FluxColumn]>,
    pub(crate) rows: Vec<FluxRecord>,
}

impl FluxTable {
    /// The table of a row whose beginning somebody took.
    pub(crate) fn begun_by(row: FluxRecord) -> Self {
        Self {
            result: row.result().into(),
            number: row.table(),
            columns: row.columns.clone(),
            rows: vec![row],
        }
    }

    /// The name of the result, that of its `yield`: `_result` unless the query says otherwise. Empty for a table without
    /// rows, when the answer came without the annotation `#default`.
    #[must_use]
    pub fn result(&self) -> &str {
        &self.result
    }

    /// The number of the table in its result, from 0. `None` for a table without rows, when the answer came without the
    /// annotation `#default`.
    #[must_use]
    pub fn number(&self) -> Option<i64> {
        self.number
    }

    /// The columns in the order of the answer; `result` and `table` are among them.
    #[must_use]
    pub fn columns(&self) -> &[FluxColumn] {
        &self.columns
    }

    /// The rows in the order of the answer; there may be none.
    #[must_use]
    pub fn rows(&self) -> &[FluxRecord] {
        &self.rows
    }

    /// The rows as values of the caller's type, as [`FluxRecord::deserialize`] makes them.
    ///
    /// # Errors
    /// When a row does not fit; the message names its line and the column.
    pub fn deserialize<T: serde::de::DeserializeOwned>(&self) -> Result<Vec<T>, crate::Error> {
        self.rows.iter().map(FluxRecord::deserialize).collect()
    }
}

impl IntoIterator for FluxTable {
    type Item = FluxRecord;
    type IntoIter = std::vec::IntoIter<FluxRecord>;

    fn into_iter(self) -> Self::IntoIter {
        self.rows.into_iter()
    }
}

impl<'a> IntoIterator for &'a FluxTable {
    type Item = &'a FluxRecord;
    type IntoIter = std::slice::Iter<'a, FluxRecord>;

    fn into_iter(self) -> Self::IntoIter {
        self.rows.iter()
    }
}

/// A column of a table.
#[derive(Clone, Debug, PartialEq)]
pub struct FluxColumn {
    pub(crate) name: String,
    pub(crate) datatype: FluxType,
    pub(crate) is_group: bool,
    pub(crate) default: FluxValue,
}

impl FluxColumn {
    /// The name; empty in an answer without headers.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The type of its values that are not null.
    #[must_use]
    pub fn datatype(&self) -> FluxType {
        self.datatype
    }

    /// Whether it is in the group key: then all rows of a table have the same value.
    #[must_use]
    pub fn is_group(&self) -> bool {
        self.is_group
    }

    /// The value where a row has none; in a table without rows this is how the values of the group key come.
    #[must_use]
    pub fn default(&self) -> &FluxValue {
        &self.default
    }
}

/// The type of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FluxType {
    /// UTF-8 text; also every column of an answer that came without the annotation `#datatype`.
    String,
    /// A signed 64-bit integer.
    Long,
    /// An unsigned 64-bit integer.
    UnsignedLong,
    /// A 64-bit float.
    Double,
    /// True or false.
    Boolean,
    /// An instant.
    Time,
    /// A length of time.
    Duration,
    /// Bytes.
    Binary,
}

impl FluxType {
    /// The type that annotated CSV means by this text.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "string" => Self::String,
            "long" => Self::Long,
            "unsignedLong" => Self::UnsignedLong,
            "double" => Self::Double,
            "boolean" => Self::Boolean,
            "dateTime" | "dateTime:RFC3339" | "dateTime:RFC3339Nano" => Self::Time,
            "duration" => Self::Duration,
            "base64Binary" => Self::Binary,
            _ => return None,
        })
    }
}

impl fmt::Display for FluxType {
    /// The name in annotated CSV.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::String => "string",
            Self::Long => "long",
            Self::UnsignedLong => "unsignedLong",
            Self::Double => "double",
            Self::Boolean => "boolean",
            Self::Time => "dateTime:RFC3339",
            Self::Duration => "duration",
            Self::Binary => "base64Binary",
        })
    }
}

/// A value of a row.
///
/// ```
/// use graylogic_influxdb::FluxValue;
/// assert_eq!(FluxValue::Long(21).as_f64(), Some(21.0));
/// assert_eq!(FluxValue::from("hall").as_str(), Some("hall"));
/// assert!(FluxValue::Null.is_null());
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum FluxValue {
    /// No value. An empty string comes as this too: the servers write both alike.
    Null,
    /// UTF-8 text; rows that follow each other share the text they have in common.
    String(Arc<str>),
    /// A signed integer.
    Long(i64),
    /// An unsigned integer.
    UnsignedLong(u64),
    /// A float; may be infinite or not a number.
    Double(f64),
    /// True or false.
    Boolean(bool),
    /// An instant.
    Time(Timestamp),
    /// A length of time in nanoseconds.
    Duration(i64),
    /// Bytes.
    Binary(Vec<u8>),
}

impl FluxValue {
    /// The type of the value; `None` for null.
    #[must_use]
    pub fn datatype(&self) -> Option<FluxType> {
        Some(match self {
            Self::Null => return None,
            Self::String(_) => FluxType::String,
            Self::Long(_) => FluxType::Long,
            Self::UnsignedLong(_) => FluxType::UnsignedLong,
            Self::Double(_) => FluxType::Double,
            Self::Boolean(_) => FluxType::Boolean,
            Self::Time(_) => FluxType::Time,
            Self::Duration(_) => FluxType::Duration,
            Self::Binary(_) => FluxType::Binary,
        })
    }

    /// Whether there is no value.
    #[must_use]
    pub fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    /// A number as a float, integers rounded; `None` for all others.
    #[must_use]
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Self::Double(v) => Some(*v),
            Self::Long(v) => Some(*v as f64),
            Self::UnsignedLong(v) => Some(*v as f64),
            _ => None,
        }
    }

    /// An integer; `None` for all others and for those beyond an `i64`.
    #[must_use]
    pub fn as_i64(&self) -> Option<i64> {
        match self {
            Self::Long(v) => Some(*v),
            Self::UnsignedLong(v) => i64::try_from(*v).ok(),
            _ => None,
        }
    }

    /// A text; `None` for all others.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(v) => Some(v),
            _ => None,
        }
    }

    /// A truth value; `None` for all others.
    #[must_use]
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Self::Boolean(v) => Some(*v),
            _ => None,
        }
    }

    /// An instant; `None` for all others.
    #[must_use]
    pub fn as_time(&self) -> Option<Timestamp> {
        match self {
            Self::Time(v) => Some(*v),
            _ => None,
        }
    }
}

impl From<&str> for FluxValue {
    fn from(text: &str) -> Self {
        Self::String(text.into())
    }
}

/// A row of a table.
///
/// ```
/// use graylogic_influxdb::{FluxReader, FluxValue};
///
/// let answer = "#datatype,string,long,dateTime:RFC3339,double,string\n\
///               #default,_result,,,,\n\
///               ,result,table,_time,_value,room\n\
///               ,,0,2026-03-04T10:00:00Z,18.5,hall\n";
/// let tables = FluxReader::read_all(answer.as_bytes())?;
/// let row = &tables[0].rows()[0];
/// assert_eq!(row.time().unwrap().to_string(), "2026-03-04T10:00:00Z");
/// assert_eq!(row.value().unwrap().as_f64(), Some(18.5));
/// assert_eq!(row.get("room").unwrap().as_str(), Some("hall"));
/// assert_eq!(row.get("building"), None);
/// let names: Vec<&str> = row.iter().map(|(name, _)| name).collect();
/// assert_eq!(names, ["result", "table", "_time", "_value", "room"]);
/// # Ok::<(), graylogic_influxdb::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct FluxRecord {
    pub(crate) columns: Arc<[FluxColumn]>,
    /// As many as there are columns.
    pub(crate) values: Vec<FluxValue>,
    pub(crate) line: u64,
}

impl FluxRecord {
    /// The value in the first column of this name, which may be null; `None` when there is no such column.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&FluxValue> {
        self.iter().find(|(column, _)| *column == name).map(|(_, value)| value)
    }

    /// The time of the row, `_time`, when it has one.
    #[must_use]
    pub fn time(&self) -> Option<Timestamp> {
        self.get("_time")?.as_time()
    }

    /// The value of the row, `_value`, when there is such a column.
    #[must_use]
    pub fn value(&self) -> Option<&FluxValue> {
        self.get("_value")
    }

    /// The field that the value is of, `_field`, when the row says so.
    #[must_use]
    pub fn field(&self) -> Option<&str> {
        self.get("_field")?.as_str()
    }

    /// The measurement, `_measurement`, when the row has one.
    #[must_use]
    pub fn measurement(&self) -> Option<&str> {
        self.get("_measurement")?.as_str()
    }

    /// The start of the range or window, `_start`, when the row has one.
    #[must_use]
    pub fn start(&self) -> Option<Timestamp> {
        self.get("_start")?.as_time()
    }

    /// The end of the range or window, `_stop`, when the row has one; it is not part of it.
    #[must_use]
    pub fn stop(&self) -> Option<Timestamp> {
        self.get("_stop")?.as_time()
    }

    /// The name of the result; empty when the answer has none.
    #[must_use]
    pub fn result(&self) -> &str {
        self.get("result").and_then(FluxValue::as_str).unwrap_or_default()
    }

    /// The number of the table in its result, when the answer has it.
    #[must_use]
    pub fn table(&self) -> Option<i64> {
        number(self.get("table")?)
    }

    /// The columns in the order of the answer, shared by all rows of the table.
    #[must_use]
    pub fn columns(&self) -> &[FluxColumn] {
        &self.columns
    }

    /// The values, one for each column.
    #[must_use]
    pub fn values(&self) -> &[FluxValue] {
        &self.values
    }

    /// Names and values in the order of the answer.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &FluxValue)> + '_ {
        debug_assert_eq!(self.columns.len(), self.values.len(), "a row has a value for each column");
        self.columns.iter().map(FluxColumn::name).zip(&self.values)
    }

    /// The line of the answer on which the row begins, from 1.
    #[must_use]
    pub fn line(&self) -> u64 {
        self.line
    }
}

/// The number of a table: a text in an answer without types.
pub(crate) fn number(value: &FluxValue) -> Option<i64> {
    match value {
        FluxValue::String(text) => text.parse().ok(),
        other => other.as_i64(),
    }
}
