//! A series whose names were checked and written once: the fastest way to encode its readings.

use crate::encode::{Encoder, OnControl, OnNotFinite, Pairs, part_tag, replace_controls};
use crate::error::{Element, EncodeError, EncodeReason};
use crate::number::put_float;
use crate::point::FieldRef;
use crate::time::Timestamp;
use std::collections::HashSet;

/// Measurement, tags and field keys, checked and escaped once.
///
/// ```
/// use graylogic_line::{Dialect, Encoder, SeriesTemplate, Timestamp};
///
/// let encoder = Encoder::new(Dialect::Portable);
/// let level = SeriesTemplate::new(&encoder, "device_metrics", &[("device_id", "light 1")], &["value"])?;
/// let mut out = Vec::new();
/// level.encode_float(50.5, Timestamp::from_nanos(7), &mut out)?;
/// assert_eq!(out, b"device_metrics,device_id=light\\ 1 value=50.5 7\n");
/// # Ok::<(), graylogic_line::EncodeError>(())
/// ```
#[derive(Clone, Debug)]
pub struct SeriesTemplate {
    encoder: Encoder,
    /// What stands before each value: key and first field key with `=`, then `,` and field key with `=`.
    heads: Vec<Box<[u8]>>,
    /// Length of measurement and tags, which the first head begins with.
    key_bytes: usize,
    fields: Vec<Box<str>>,
    measurement: Box<str>,
}

impl SeriesTemplate {
    /// The series of these names.
    ///
    /// # Errors
    /// When a name cannot be written, or there is no field.
    pub fn new(
        encoder: &Encoder,
        measurement: &str,
        tags: &[(&str, &str)],
        fields: &[&str],
    ) -> Result<Self, EncodeError> {
        if let OnControl::Replace(with) = encoder.on_control {
            let strict = encoder.on_control(OnControl::Refuse);
            let tags: Vec<_> =
                tags.iter().map(|(k, v)| (replace_controls(k, with), replace_controls(v, with))).collect();
            let tags: Vec<(&str, &str)> = tags.iter().map(|(k, v)| (&**k, &**v)).collect();
            let fields: Vec<_> = fields.iter().map(|k| replace_controls(k, with)).collect();
            let fields: Vec<&str> = fields.iter().map(|k| &**k).collect();
            return Self::new(&strict, &replace_controls(measurement, with), &tags, &fields);
        }
        let mut head = Vec::new();
        encoder.key(measurement, &Pairs(tags, part_tag), &mut head)?;
        let key_bytes = head.len();
        let mut heads = Vec::with_capacity(fields.len());
        let tag_keys: HashSet<&str> = tags.iter().map(|t| t.0).collect();
        let mut seen = HashSet::with_capacity(fields.len());
        for (i, field) in fields.iter().enumerate() {
            if !seen.insert(*field) {
                return Err(EncodeError::new(Element::FieldKey, field, 0, EncodeReason::DuplicateField));
            }
            if tag_keys.contains(field) {
                return Err(EncodeError::new(Element::FieldKey, field, 0, EncodeReason::TagAndField));
            }
            head.push(if i == 0 { b' ' } else { b',' });
            encoder.field_key(&mut head, field, key_bytes)?;
            head.push(b'=');
            heads.push(std::mem::take(&mut head).into_boxed_slice());
        }
        if heads.is_empty() {
            return Err(EncodeError::new(Element::Point, measurement, 0, EncodeReason::NoFields));
        }
        let fields = fields.iter().map(|&f| f.into()).collect();
        Ok(Self { encoder: *encoder, heads, key_bytes, fields, measurement: measurement.into() })
    }

    /// The field keys, in the order in which values are given.
    pub fn fields(&self) -> impl ExactSizeIterator<Item = &str> {
        self.fields.iter().map(|f| &**f)
    }

    /// The measurement.
    #[must_use]
    pub fn measurement(&self) -> &str {
        &self.measurement
    }

    /// Appends a line with one value for each field.
    ///
    /// # Errors
    /// When a value or the time cannot be written, or their number is not that of the fields; then `out` is as before.
    pub fn encode(
        &self,
        values: &[FieldRef<'_>],
        timestamp: Option<Timestamp>,
        out: &mut Vec<u8>,
    ) -> Result<(), EncodeError> {
        let start = out.len();
        let done = self.encode_values(values, timestamp, out);
        if done.is_err() {
            out.truncate(start);
        }
        done
    }

    fn encode_values(
        &self,
        values: &[FieldRef<'_>],
        timestamp: Option<Timestamp>,
        out: &mut Vec<u8>,
    ) -> Result<(), EncodeError> {
        if values.len() != self.heads.len() {
            let reason = EncodeReason::WrongNumberOfValues(values.len());
            return Err(EncodeError::new(Element::Point, &self.measurement, 0, reason));
        }
        let mut written = false;
        for (i, value) in values.iter().enumerate() {
            if let FieldRef::Float(v) = value
                && !v.is_finite()
            {
                let last = i + 1 == values.len() && !written;
                if self.encoder.on_not_finite == OnNotFinite::RefusePoint || last {
                    return Err(EncodeError::new(
                        Element::FieldValue,
                        &self.fields[i],
                        0,
                        EncodeReason::NotFinite,
                    ));
                }
                continue;
            }
            if written || i == 0 {
                out.extend_from_slice(&self.heads[i]);
            } else {
                // The fields before this one were left out: the key comes from the first head.
                out.extend_from_slice(&self.heads[0][..self.key_bytes]);
                out.push(b' ');
                out.extend_from_slice(&self.heads[i][1..]);
            }
            written = true;
            self.encoder.value(out, &self.fields[i], value)?;
        }
        self.encoder.end(out, &self.measurement, timestamp)
    }

    /// Appends a line with one float: for series with one field.
    ///
    /// # Errors
    /// When the value or the time cannot be written, or the series has several fields; then `out` is as before.
    #[inline]
    pub fn encode_float(
        &self,
        value: f64,
        timestamp: Timestamp,
        out: &mut Vec<u8>,
    ) -> Result<(), EncodeError> {
        if self.heads.len() != 1 || !value.is_finite() {
            return self.encode(&[FieldRef::Float(value)], Some(timestamp), out);
        }
        let start = out.len();
        out.extend_from_slice(&self.heads[0]);
        put_float(out, value);
        let done = self.encoder.end(out, &self.measurement, Some(timestamp));
        if done.is_err() {
            out.truncate(start);
        }
        done
    }
}
