//! Rows as values of the caller's types, by serde: a field of a struct is the column of its name. Knows nothing of CSV.

use crate::error::{Error, Kind};
use crate::flux::table::{FluxRecord, FluxValue};
use crate::server::refusal::shortened;
use serde::de::value::SeqDeserializer;
use serde::de::{self, DeserializeOwned, DeserializeSeed, IntoDeserializer, Unexpected, Visitor};
use std::fmt;

impl FluxRecord {
    /// The row as a value of the caller's type: a struct whose fields have the names of columns, or a map. Columns that
    /// it does not name are skipped.
    ///
    /// A column that may be null is an `Option`. A time is an integer of nanoseconds since the epoch or a `String` in
    /// RFC 3339, as the field's type asks; a duration is an integer of nanoseconds; bytes are a `Vec<u8>`. A float takes
    /// integers too.
    ///
    /// ```
    /// use graylogic_influxdb::FluxReader;
    ///
    /// #[derive(serde::Deserialize)]
    /// struct Temperature {
    ///     #[serde(rename = "_time")]
    ///     time_nanos: i64,
    ///     #[serde(rename = "_value")]
    ///     celsius: Option<f64>,
    ///     room: String,
    /// }
    ///
    /// let answer = "#datatype,string,long,dateTime:RFC3339,double,string\n\
    ///               #default,_result,,,,\n\
    ///               ,result,table,_time,_value,room\n\
    ///               ,,0,1970-01-01T00:00:01Z,18.5,hall\n\
    ///               ,,0,1970-01-01T00:00:02Z,,hall\n";
    /// let tables = FluxReader::read_all(answer.as_bytes())?;
    /// let rows: Vec<Temperature> = tables[0].deserialize()?;
    /// assert_eq!((rows[0].time_nanos, rows[0].celsius), (1_000_000_000, Some(18.5)));
    /// assert_eq!((rows[1].celsius, &*rows[1].room), (None, "hall"));
    /// # Ok::<(), graylogic_influxdb::Error>(())
    /// ```
    ///
    /// # Errors
    /// When the row does not fit; the message names the line, the column, its type and the one asked for.
    pub fn deserialize<T: DeserializeOwned>(&self) -> Result<T, Error> {
        T::deserialize(Row(self)).map_err(|misfit| {
            let place = match &misfit.column {
                Some(column) => format!("line {} of the answer, column \"{column}\"", self.line()),
                None => format!("line {} of the answer", self.line()),
            };
            Error::new(Kind::QueryFailed, shortened(format!("read a row: {place}: {}", misfit.message)))
        })
    }
}

/// Why a row is no value of the type asked for.
#[derive(Debug)]
struct Misfit {
    message: String,
    column: Option<String>,
}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Misfit {}

impl de::Error for Misfit {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self { message: message.to_string(), column: None }
    }

    fn invalid_type(found: Unexpected<'_>, wanted: &dyn de::Expected) -> Self {
        match found {
            Unexpected::Unit | Unexpected::Option => {
                Self::custom(format_args!("it is null where {wanted} is asked for: ask for an Option"))
            }
            found => Self::custom(format_args!("it is {found} where {wanted} is asked for")),
        }
    }

    fn invalid_value(found: Unexpected<'_>, wanted: &dyn de::Expected) -> Self {
        Self::custom(format_args!("it is {found} where {wanted} is asked for"))
    }

    fn duplicate_field(name: &'static str) -> Self {
        Self::custom(format_args!("two columns are for \"{name}\": rename one in the query"))
    }

    fn missing_field(name: &'static str) -> Self {
        Self::custom(format_args!(
            "there is no column \"{name}\": keep it in the query, or give the field a default"
        ))
    }
}

struct Row<'a>(&'a FluxRecord);

impl<'de> de::Deserializer<'de> for Row<'_> {
    type Error = Misfit;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        visitor.visit_map(Columns { record: self.0, at: 0 })
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Misfit> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        visitor.visit_some(self)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map struct enum identifier ignored_any
    }
}

/// The columns of a row, one after the other.
struct Columns<'a> {
    record: &'a FluxRecord,
    at: usize,
}

impl<'de> de::MapAccess<'de> for Columns<'_> {
    type Error = Misfit;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Misfit> {
        match self.record.columns().get(self.at) {
            Some(column) => seed.deserialize(column.name().into_deserializer()).map(Some),
            None => Ok(None),
        }
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Misfit> {
        let at = self.at;
        self.at += 1;
        let (Some(column), Some(value)) = (self.record.columns().get(at), self.record.values().get(at))
        else {
            return Err(de::Error::custom("a value was asked for after the last column"));
        };
        seed.deserialize(Cell(value)).map_err(|mut misfit| {
            misfit.message = match value.datatype() {
                Some(datatype) => format!("{}; its datatype is {datatype}", misfit.message),
                None => format!("{}; the datatype of the column is {}", misfit.message, column.datatype()),
            };
            misfit.column = Some(column.name().to_owned());
            misfit
        })
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.record.columns().len().saturating_sub(self.at))
    }
}

struct Cell<'a>(&'a FluxValue);

impl Cell<'_> {
    /// As an integer where a time or a duration would be something else.
    fn integer<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        match self.0 {
            FluxValue::Time(time) => visitor.visit_i64(time.as_nanos()),
            _ => de::Deserializer::deserialize_any(self, visitor),
        }
    }
}

macro_rules! integers {
    ($($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
            self.integer(visitor)
        }
    )*};
}

impl<'de> de::Deserializer<'de> for Cell<'_> {
    type Error = Misfit;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        match self.0 {
            FluxValue::Null => visitor.visit_unit(),
            FluxValue::String(v) => visitor.visit_str(v),
            FluxValue::Long(v) | FluxValue::Duration(v) => visitor.visit_i64(*v),
            FluxValue::UnsignedLong(v) => visitor.visit_u64(*v),
            FluxValue::Double(v) => visitor.visit_f64(*v),
            FluxValue::Boolean(v) => visitor.visit_bool(*v),
            FluxValue::Time(v) => visitor.visit_string(v.to_string()),
            // Not every type that takes anything takes bytes.
            FluxValue::Binary(v) => visitor.visit_seq(SeqDeserializer::new(v.iter().copied())),
        }
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        match self.0 {
            FluxValue::Binary(v) => visitor.visit_bytes(v),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        self.deserialize_bytes(visitor)
    }

    integers! {
        deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_i128
        deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64 deserialize_u128
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        match self.0 {
            FluxValue::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Misfit> {
        match self.0 {
            FluxValue::String(text) => {
                de::Deserializer::deserialize_enum((&**text).into_deserializer(), name, variants, visitor)
            }
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Misfit> {
        visitor.visit_newtype_struct(self)
    }

    serde::forward_to_deserialize_any! {
        bool f32 f64 char str string unit unit_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}
