//! One value of a field, and a column of them. A field has one type per bucket and measurement.

use graylogic_line::FieldType;
use std::sync::Arc;

/// One value of a field.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Value {
    /// A 64-bit float; never NaN or infinite.
    Float(f64),
    /// A signed 64-bit integer.
    Integer(i64),
    /// An unsigned 64-bit integer.
    Unsigned(u64),
    /// True or false.
    Boolean(bool),
    /// UTF-8 text.
    String(Arc<str>),
}

impl Value {
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

    /// The value as a float: integers rounded, booleans as 0 and 1, `None` for strings.
    #[must_use]
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Self::Float(v) => Some(*v),
            Self::Integer(v) => Some(*v as f64),
            Self::Unsigned(v) => Some(*v as f64),
            Self::Boolean(v) => Some(f64::from(u8::from(*v))),
            Self::String(_) => None,
        }
    }

    /// Orders two values of one type; strings and mixed types are never less.
    pub(crate) fn less_than(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Float(a), Self::Float(b)) => a < b,
            (Self::Integer(a), Self::Integer(b)) => a < b,
            (Self::Unsigned(a), Self::Unsigned(b)) => a < b,
            (Self::Boolean(a), Self::Boolean(b)) => !a & b,
            _ => false,
        }
    }
}

/// A column of values of one type, in the order of their times.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Values {
    /// Floats.
    Float(Vec<f64>),
    /// Signed integers.
    Integer(Vec<i64>),
    /// Unsigned integers.
    Unsigned(Vec<u64>),
    /// Booleans.
    Boolean(Vec<bool>),
    /// Strings; equal ones usually share their text.
    String(Vec<Arc<str>>),
}

impl Values {
    /// An empty column of a type.
    #[must_use]
    pub fn empty(field_type: FieldType) -> Self {
        match field_type {
            FieldType::Float => Self::Float(Vec::new()),
            FieldType::Integer => Self::Integer(Vec::new()),
            FieldType::Unsigned => Self::Unsigned(Vec::new()),
            FieldType::Boolean => Self::Boolean(Vec::new()),
            FieldType::String => Self::String(Vec::new()),
        }
    }

    /// Number of values.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Float(v) => v.len(),
            Self::Integer(v) => v.len(),
            Self::Unsigned(v) => v.len(),
            Self::Boolean(v) => v.len(),
            Self::String(v) => v.len(),
        }
    }

    /// True when there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The type of the values.
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

    /// The value at `index`.
    ///
    /// # Panics
    /// When `index` is not below [`Values::len`].
    #[must_use]
    pub fn get(&self, index: usize) -> Value {
        match self {
            Self::Float(v) => Value::Float(v[index]),
            Self::Integer(v) => Value::Integer(v[index]),
            Self::Unsigned(v) => Value::Unsigned(v[index]),
            Self::Boolean(v) => Value::Boolean(v[index]),
            Self::String(v) => Value::String(v[index].clone()),
        }
    }

    /// The values at `order`, in that order.
    pub(crate) fn pick(&self, order: &[u32]) -> Self {
        fn of<T: Clone>(v: &[T], order: &[u32]) -> Vec<T> {
            order.iter().map(|&i| v[i as usize].clone()).collect()
        }
        match self {
            Self::Float(v) => Self::Float(of(v, order)),
            Self::Integer(v) => Self::Integer(of(v, order)),
            Self::Unsigned(v) => Self::Unsigned(of(v, order)),
            Self::Boolean(v) => Self::Boolean(of(v, order)),
            Self::String(v) => Self::String(of(v, order)),
        }
    }

    /// Keeps `from..to` and drops the rest.
    pub(crate) fn cut(&mut self, from: usize, to: usize) {
        fn of<T>(v: &mut Vec<T>, from: usize, to: usize) {
            v.truncate(to);
            v.drain(..from);
        }
        match self {
            Self::Float(v) => of(v, from, to),
            Self::Integer(v) => of(v, from, to),
            Self::Unsigned(v) => of(v, from, to),
            Self::Boolean(v) => of(v, from, to),
            Self::String(v) => of(v, from, to),
        }
    }

    /// Appends a column of the same type.
    pub(crate) fn extend(&mut self, other: &Self) {
        match (self, other) {
            (Self::Float(a), Self::Float(b)) => a.extend_from_slice(b),
            (Self::Integer(a), Self::Integer(b)) => a.extend_from_slice(b),
            (Self::Unsigned(a), Self::Unsigned(b)) => a.extend_from_slice(b),
            (Self::Boolean(a), Self::Boolean(b)) => a.extend_from_slice(b),
            (Self::String(a), Self::String(b)) => a.extend_from_slice(b),
            _ => unreachable!("a series has one type in all its layers"),
        }
    }
}
