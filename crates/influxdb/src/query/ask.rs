//! What one request of a question is, and how values travel in requests and answers. Pure.

use super::{Aggregate, CheckedQuery, abbreviated};
use graylogic_line::FieldType;
use graylogic_store::Value;
use serde_json::Value as Json;

/// A request that asks for a part of an answer. It is sent with `POST`.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Ask {
    /// Below the address of the server, of a cluster with its prefix.
    pub path: &'static str,
    /// Names and values of the query string, not yet encoded.
    pub query: Vec<(&'static str, String)>,
    /// The body.
    pub body: Vec<u8>,
    /// The header `Content-Type`.
    pub content_type: &'static str,
    /// The header `Accept`.
    pub accept: &'static str,
}

impl Ask {
    /// The path and the query string, encoded.
    #[must_use]
    pub fn target(&self) -> String {
        let pairs: Vec<(&str, &str)> = self.query.iter().map(|(k, v)| (*k, v.as_str())).collect();
        match &pairs[..] {
            [] => self.path.to_owned(),
            pairs => format!("{}?{}", self.path, form(pairs)),
        }
    }
}

impl std::fmt::Debug for Ask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let body = String::from_utf8_lossy(&self.body);
        f.debug_struct("Ask")
            .field("target", &self.target())
            .field("body", &abbreviated(&body))
            .finish_non_exhaustive()
    }
}

/// Pairs as a form or a query string.
pub(crate) fn form(pairs: &[(&str, &str)]) -> String {
    let mut out = String::new();
    let add = |text: &str, out: &mut String| {
        for &byte in text.as_bytes() {
            match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                    out.push(char::from(byte));
                }
                _ => {
                    const HEX: &[u8; 16] = b"0123456789ABCDEF";
                    out.push('%');
                    out.push(char::from(HEX[usize::from(byte >> 4)]));
                    out.push(char::from(HEX[usize::from(byte & 15)]));
                }
            }
        }
    };
    for (i, (name, value)) in pairs.iter().enumerate() {
        if i > 0 {
            out.push('&');
        }
        add(name, &mut out);
        out.push('=');
        add(value, &mut out);
    }
    out
}

/// The content type of [`form`].
pub(crate) const FORM: &str = "application/x-www-form-urlencoded";

/// A value of this type in JSON; `None` for null and for what does not fit.
pub(crate) fn value_of(json: &Json, of: FieldType) -> Option<Value> {
    match of {
        FieldType::Float => json.as_f64().map(Value::Float),
        FieldType::Integer => json.as_i64().map(Value::Integer),
        FieldType::Unsigned => json.as_u64().map(Value::Unsigned),
        FieldType::Boolean => json.as_bool().map(Value::Boolean),
        FieldType::String => json.as_str().map(|s| Value::String(s.into())),
    }
}

/// The type of the values of an aggregate, or of readings, of a field of this type.
pub(crate) fn type_of(query: &CheckedQuery, field: FieldType) -> FieldType {
    match query.aggregate() {
        Some(Aggregate::Count) => FieldType::Unsigned,
        Some(Aggregate::Mean) => FieldType::Float,
        Some(Aggregate::Sum | Aggregate::Min | Aggregate::Max | Aggregate::First | Aggregate::Last)
        | None => field,
    }
}
