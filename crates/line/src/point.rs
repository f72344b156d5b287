//! A point: measurement, tags, fields, time. Data only; what can be written of it is checked when it is encoded.

use crate::time::Timestamp;
use std::borrow::Cow;
use std::fmt;

/// One value of a field.
#[derive(Clone, Debug, PartialEq)]
pub enum FieldValue {
    /// A 64-bit float.
    Float(f64),
    /// A signed integer.
    Integer(i64),
    /// An unsigned integer.
    Unsigned(u64),
    /// True or false.
    Boolean(bool),
    /// UTF-8 text.
    String(String),
}

/// One value of a field, with borrowed text.
#[derive(Clone, Debug, PartialEq)]
pub enum FieldRef<'a> {
    /// A 64-bit float.
    Float(f64),
    /// A signed integer.
    Integer(i64),
    /// An unsigned integer.
    Unsigned(u64),
    /// True or false.
    Boolean(bool),
    /// UTF-8 text.
    String(Cow<'a, str>),
}

/// The type of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FieldType {
    /// A 64-bit float.
    Float,
    /// A signed integer.
    Integer,
    /// An unsigned integer.
    Unsigned,
    /// True or false.
    Boolean,
    /// UTF-8 text.
    String,
}

impl fmt::Display for FieldType {
    /// The word InfluxDB 2.8 uses in its messages.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Float => "float",
            Self::Integer => "integer",
            Self::Unsigned => "unsigned",
            Self::Boolean => "boolean",
            Self::String => "string",
        })
    }
}

impl FieldValue {
    /// The value with borrowed text.
    #[must_use]
    pub fn as_ref(&self) -> FieldRef<'_> {
        match self {
            Self::Float(v) => FieldRef::Float(*v),
            Self::Integer(v) => FieldRef::Integer(*v),
            Self::Unsigned(v) => FieldRef::Unsigned(*v),
            Self::Boolean(v) => FieldRef::Boolean(*v),
            Self::String(v) => FieldRef::String(Cow::Borrowed(v)),
        }
    }

    /// The type of the value.
    #[must_use]
    pub fn field_type(&self) -> FieldType {
        self.as_ref().field_type()
    }
}

impl FieldRef<'_> {
    /// The value with text of its own.
    #[must_use]
    pub fn to_value(&self) -> FieldValue {
        match self {
            Self::Float(v) => FieldValue::Float(*v),
            Self::Integer(v) => FieldValue::Integer(*v),
            Self::Unsigned(v) => FieldValue::Unsigned(*v),
            Self::Boolean(v) => FieldValue::Boolean(*v),
            Self::String(v) => FieldValue::String(v.clone().into_owned()),
        }
    }

    /// The type of the value.
    #[must_use]
    pub fn field_type(&self) -> FieldType {
        match self {
            Self::Float(_) => FieldType::Float,
            Self::Integer(_) => FieldType::Integer,
            Self::Unsigned(_) => FieldType::Unsigned,
            Self::Boolean(_) => FieldType::Boolean,
            Self::String(_) => FieldType::String,
        }
    }
}

macro_rules! from {
    ($($type:ty => $variant:ident),*) => {$(
        impl From<$type> for FieldValue {
            fn from(v: $type) -> Self {
                Self::$variant(v.into())
            }
        }
        impl From<$type> for FieldRef<'_> {
            fn from(v: $type) -> Self {
                Self::$variant(v.into())
            }
        }
    )*};
}
from!(f64 => Float, f32 => Float, i64 => Integer, i32 => Integer, u64 => Unsigned, u32 => Unsigned, bool => Boolean, String => String);

impl From<&str> for FieldValue {
    fn from(v: &str) -> Self {
        Self::String(v.to_owned())
    }
}

impl<'a> From<&'a str> for FieldRef<'a> {
    fn from(v: &'a str) -> Self {
        Self::String(Cow::Borrowed(v))
    }
}

/// A point: measurement, tags, fields and, mostly, a time.
///
/// ```
/// use graylogic_line::{Dialect, Encoder, Point, Timestamp};
///
/// let point = Point::new("energy")
///     .tag("device_id", "hvac-main")
///     .field("power_watts", 450.0)
///     .timestamp(Timestamp::from_nanos(1_700_000_000_000_000_000));
/// let mut line = Vec::new();
/// Encoder::new(Dialect::Portable).encode(&point, &mut line)?;
/// assert_eq!(line, b"energy,device_id=hvac-main power_watts=450.0 1700000000000000000\n");
/// # Ok::<(), graylogic_line::EncodeError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    measurement: String,
    tags: Vec<(String, String)>,
    fields: Vec<(String, FieldValue)>,
    timestamp: Option<Timestamp>,
}

impl Point {
    /// A point of a measurement, without tags, fields and time.
    #[must_use]
    pub fn new(measurement: impl Into<String>) -> Self {
        Self { measurement: measurement.into(), tags: Vec::new(), fields: Vec::new(), timestamp: None }
    }

    /// Adds a tag.
    #[must_use]
    pub fn tag(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.tags.push((key.into(), value.into()));
        self
    }

    /// Adds a field. `5.0` and `5` are different types: a field has one type for ever.
    #[must_use]
    pub fn field(mut self, key: impl Into<String>, value: impl Into<FieldValue>) -> Self {
        self.fields.push((key.into(), value.into()));
        self
    }

    /// Sets the time.
    #[must_use]
    pub fn timestamp(mut self, timestamp: Timestamp) -> Self {
        self.timestamp = Some(timestamp);
        self
    }

    /// The measurement.
    #[must_use]
    pub fn measurement(&self) -> &str {
        &self.measurement
    }

    /// The tags in the order they were added.
    #[must_use]
    pub fn tags(&self) -> &[(String, String)] {
        &self.tags
    }

    /// The fields in the order they were added.
    #[must_use]
    pub fn fields(&self) -> &[(String, FieldValue)] {
        &self.fields
    }

    /// The time, when there is one.
    #[must_use]
    pub fn time(&self) -> Option<Timestamp> {
        self.timestamp
    }
}
