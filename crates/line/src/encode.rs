//! Points become lines. What no server would read back as it was meant is refused, with the element and the byte.

use crate::dialect::{Dialect, is_plain, put_name};
use crate::error::{Element, EncodeError, EncodeReason};
use crate::names::Names;
use crate::number::put_float;
use crate::point::{FieldRef, FieldValue, Point};
use crate::time::Timestamp;
use std::borrow::Cow;
use std::cmp::Ordering;

/// Longest measurement, tags and field key together, with four bytes between (rule P16; `models/points.go` of 2.8).
pub(crate) const KEY_BYTES_MAX: usize = 65_535;
/// Tags up to this many are put in order without allocating.
const TAGS_ON_STACK: usize = 32;

/// Writes points as line protocol in one dialect, under policies for what cannot be written.
///
/// The defaults refuse everything doubtful. Encoding allocates nothing once the buffer is large enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Encoder {
    pub(crate) dialect: Dialect,
    on_empty_tag: OnEmptyTag,
    pub(crate) on_control: OnControl,
    pub(crate) on_not_finite: OnNotFinite,
    on_duplicate: OnDuplicate,
    allow_underscore: bool,
}

/// What an empty tag value means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum OnEmptyTag {
    /// The point is refused.
    #[default]
    Refuse,
    /// The tag is left out.
    Omit,
}

/// What a control character in a name means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum OnControl {
    /// The point is refused.
    #[default]
    Refuse,
    /// It is replaced by this character; if that cannot stand there either, the point is refused.
    Replace(char),
}

/// What NaN or an infinite value means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum OnNotFinite {
    /// The point is refused.
    #[default]
    RefusePoint,
    /// The field is left out; a point without another field is refused.
    OmitField,
}

/// What two tags or two fields with one key mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum OnDuplicate {
    /// The point is refused.
    #[default]
    Refuse,
    /// The last one counts.
    LastWins,
}

impl Encoder {
    /// An encoder that refuses what is doubtful.
    #[must_use]
    pub fn new(dialect: Dialect) -> Self {
        Self {
            dialect,
            on_empty_tag: OnEmptyTag::default(),
            on_control: OnControl::default(),
            on_not_finite: OnNotFinite::default(),
            on_duplicate: OnDuplicate::default(),
            allow_underscore: false,
        }
    }

    /// The dialect.
    #[must_use]
    pub fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// What an empty tag value means.
    #[must_use]
    pub fn on_empty_tag(mut self, policy: OnEmptyTag) -> Self {
        self.on_empty_tag = policy;
        self
    }

    /// What a control character in a name means.
    #[must_use]
    pub fn on_control(mut self, policy: OnControl) -> Self {
        self.on_control = policy;
        self
    }

    /// What NaN or an infinite value means.
    #[must_use]
    pub fn on_not_finite(mut self, policy: OnNotFinite) -> Self {
        self.on_not_finite = policy;
        self
    }

    /// What two tags or two fields with one key mean.
    #[must_use]
    pub fn on_duplicate(mut self, policy: OnDuplicate) -> Self {
        self.on_duplicate = policy;
        self
    }

    /// Whether names may begin with an underscore, which InfluxDB's documentation reserves and all servers take.
    #[must_use]
    pub fn allow_underscore_names(mut self, allow: bool) -> Self {
        self.allow_underscore = allow;
        self
    }

    /// Appends a point as one line.
    ///
    /// # Errors
    /// When the point cannot be written; then `out` is as before.
    pub fn encode(&self, point: &Point, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let tags = Pairs(point.tags(), owned_tag);
        let fields = Pairs(point.fields(), owned_field);
        self.line(point.measurement(), &tags, &fields, point.time(), out)
    }

    /// Appends a line made of borrowed parts: the way without allocation for names that change.
    ///
    /// # Errors
    /// When the point cannot be written; then `out` is as before.
    ///
    /// ```
    /// use graylogic_line::{Dialect, Encoder, FieldRef, Timestamp};
    /// let mut out = Vec::new();
    /// let time = Some(Timestamp::from_nanos(7));
    /// Encoder::new(Dialect::V2).encode_parts("m", &[("room", "bad 1")], &[("f", FieldRef::Float(1.5))], time, &mut out)?;
    /// assert_eq!(out, b"m,room=bad\\ 1 f=1.5 7\n");
    /// # Ok::<(), graylogic_line::EncodeError>(())
    /// ```
    pub fn encode_parts(
        &self,
        measurement: &str,
        tags: &[(&str, &str)],
        fields: &[(&str, FieldRef<'_>)],
        timestamp: Option<Timestamp>,
        out: &mut Vec<u8>,
    ) -> Result<(), EncodeError> {
        let tags = Pairs(tags, part_tag);
        let fields = Pairs(fields, part_field);
        self.line(measurement, &tags, &fields, timestamp, out)
    }

    #[inline]
    fn line<'a>(
        &self,
        measurement: &str,
        tags: &impl List<'a, &'a str>,
        fields: &impl List<'a, FieldRef<'a>>,
        timestamp: Option<Timestamp>,
        out: &mut Vec<u8>,
    ) -> Result<(), EncodeError> {
        if let OnControl::Replace(with) = self.on_control {
            return self.replaced_line(with, measurement, tags, fields, timestamp, out);
        }
        let start = out.len();
        let done = self
            .key(measurement, tags, out)
            .and_then(|()| self.rest(measurement, tags, fields, timestamp, start, out));
        if done.is_err() {
            out.truncate(start);
        }
        done
    }

    /// The line with every control character in a name replaced, before any other rule is looked at: two names that
    /// become one are duplicates.
    #[cold]
    fn replaced_line<'a>(
        &self,
        with: char,
        measurement: &str,
        tags: &impl List<'a, &'a str>,
        fields: &impl List<'a, FieldRef<'a>>,
        timestamp: Option<Timestamp>,
        out: &mut Vec<u8>,
    ) -> Result<(), EncodeError> {
        let strict = self.on_control(OnControl::Refuse);
        let tags: Vec<_> = (0..tags.len()).map(|i| tags.get(i)).collect();
        let fields: Vec<_> = (0..fields.len()).map(|i| fields.get(i)).collect();
        let measurement = replace_controls(measurement, with);
        let tags: Vec<_> =
            tags.iter().map(|(k, v)| (replace_controls(k, with), replace_controls(v, with))).collect();
        let fields: Vec<_> = fields.iter().map(|(k, v)| (replace_controls(k, with), v)).collect();
        let tags: Vec<(&str, &str)> = tags.iter().map(|(k, v)| (&**k, &**v)).collect();
        let fields: Vec<(&str, FieldRef<'_>)> = fields.iter().map(|(k, v)| (&**k, (*v).clone())).collect();
        strict.encode_parts(&measurement, &tags, &fields, timestamp, out)
    }

    /// Measurement and tags.
    #[inline]
    pub(crate) fn key<'a>(
        &self,
        measurement: &str,
        tags: &impl List<'a, &'a str>,
        out: &mut Vec<u8>,
    ) -> Result<(), EncodeError> {
        if plain_key(measurement, tags, out) { Ok(()) } else { self.any_key(measurement, tags, out) }
    }

    /// Measurement and tags, looked at one by one.
    #[cold]
    #[inline(never)]
    fn any_key<'a>(
        &self,
        measurement: &str,
        tags: &impl List<'a, &'a str>,
        out: &mut Vec<u8>,
    ) -> Result<(), EncodeError> {
        if measurement.as_bytes().first() == Some(&b'#') {
            return Err(EncodeError::new(Element::Measurement, measurement, 0, EncodeReason::LeadingHash));
        }
        self.name(out, Element::Measurement, measurement, measurement)?;
        let n = tags.len();
        let in_order = (1..n).all(|i| compare_escaped(tags.get(i - 1).0, tags.get(i).0) == Ordering::Less);
        if in_order {
            return (0..n).try_for_each(|i| self.tag(out, tags.get(i)));
        }
        let mut on_stack = [0u32; TAGS_ON_STACK];
        let mut on_heap = Vec::new();
        let order: &mut [u32] = if n <= TAGS_ON_STACK {
            &mut on_stack[..n]
        } else {
            on_heap.resize(n, 0);
            &mut on_heap
        };
        order.iter_mut().zip(0..).for_each(|(place, i)| *place = i);
        // Ties in the order they came, so that the last of them is the last.
        order.sort_unstable_by(|&a, &b| {
            compare_escaped(tags.get(a as usize).0, tags.get(b as usize).0).then(a.cmp(&b))
        });
        for (i, &place) in order.iter().enumerate() {
            let (key, value) = tags.get(place as usize);
            if order.get(i + 1).is_some_and(|&next| tags.get(next as usize).0 == key) {
                match self.on_duplicate {
                    OnDuplicate::Refuse => {
                        return Err(EncodeError::new(Element::TagKey, key, 0, EncodeReason::DuplicateTag));
                    }
                    OnDuplicate::LastWins => continue,
                }
            }
            self.tag(out, (key, value))?;
        }
        Ok(())
    }

    fn tag(&self, out: &mut Vec<u8>, (key, value): (&str, &str)) -> Result<(), EncodeError> {
        if matches!(key, "time" | "_measurement" | "_field") {
            return Err(EncodeError::new(Element::TagKey, key, 0, EncodeReason::ReservedTagKey));
        }
        if value.is_empty() && self.on_empty_tag == OnEmptyTag::Omit {
            return Ok(());
        }
        out.push(b',');
        self.name(out, Element::TagKey, key, key)?;
        out.push(b'=');
        self.name(out, Element::TagValue, key, value)
    }

    /// Appends `text`, the element of what is called `name`.
    pub(crate) fn name(
        &self,
        out: &mut Vec<u8>,
        element: Element,
        name: &str,
        text: &str,
    ) -> Result<(), EncodeError> {
        let fail = |offset, reason| Err(EncodeError::new(element, name, offset, reason));
        match text.as_bytes().first() {
            None => return fail(0, EncodeReason::Empty),
            Some(b'_') if element != Element::TagValue && !self.allow_underscore => {
                return fail(0, EncodeReason::LeadingUnderscore);
            }
            Some(_) => {}
        }
        put_name(out, self.dialect, element, text.as_bytes()).or_else(|(reason, offset)| fail(offset, reason))
    }

    /// Fields and time.
    fn rest<'a>(
        &self,
        measurement: &str,
        tags: &impl List<'a, &'a str>,
        fields: &impl List<'a, FieldRef<'a>>,
        timestamp: Option<Timestamp>,
        start: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), EncodeError> {
        let key_bytes = out.len() - start;
        let n = fields.len();
        let names = Names::new(tags, fields);
        let mut separator = b' ';
        let mut not_finite = None;
        for i in 0..n {
            let (key, value) = fields.get(i);
            if let FieldRef::Float(v) = value
                && !v.is_finite()
            {
                if self.on_not_finite == OnNotFinite::RefusePoint {
                    return Err(EncodeError::new(Element::FieldValue, key, 0, EncodeReason::NotFinite));
                }
                not_finite = Some(key);
                continue;
            }
            if names.has_later_field(i, key) {
                match self.on_duplicate {
                    OnDuplicate::Refuse => {
                        return Err(EncodeError::new(
                            Element::FieldKey,
                            key,
                            0,
                            EncodeReason::DuplicateField,
                        ));
                    }
                    OnDuplicate::LastWins => continue,
                }
            }
            if names.has_tag(key) {
                return Err(EncodeError::new(Element::FieldKey, key, 0, EncodeReason::TagAndField));
            }
            out.push(separator);
            separator = b',';
            self.field_key(out, key, key_bytes)?;
            out.push(b'=');
            self.value(out, key, &value)?;
        }
        if separator == b' ' {
            return Err(match not_finite {
                Some(key) => EncodeError::new(Element::FieldValue, key, 0, EncodeReason::NotFinite),
                None => EncodeError::new(Element::Point, measurement, 0, EncodeReason::NoFields),
            });
        }
        self.end(out, measurement, timestamp)
    }

    pub(crate) fn field_key(
        &self,
        out: &mut Vec<u8>,
        key: &str,
        key_bytes: usize,
    ) -> Result<(), EncodeError> {
        if key == "time" {
            return Err(EncodeError::new(Element::FieldKey, key, 0, EncodeReason::ReservedFieldKey));
        }
        let from = out.len();
        self.name(out, Element::FieldKey, key, key)?;
        let bytes = key_bytes + 4 + (out.len() - from);
        if bytes > KEY_BYTES_MAX {
            return Err(EncodeError::new(Element::FieldKey, key, 0, EncodeReason::KeyTooLong(bytes)));
        }
        Ok(())
    }

    #[inline]
    pub(crate) fn value(
        &self,
        out: &mut Vec<u8>,
        key: &str,
        value: &FieldRef<'_>,
    ) -> Result<(), EncodeError> {
        match value {
            FieldRef::Float(v) => put_float(out, *v),
            FieldRef::Integer(v) => {
                out.extend_from_slice(itoa::Buffer::new().format(*v).as_bytes());
                out.push(b'i');
            }
            FieldRef::Unsigned(v) => {
                out.extend_from_slice(itoa::Buffer::new().format(*v).as_bytes());
                out.push(b'u');
            }
            FieldRef::Boolean(v) => out.extend_from_slice(if *v { b"true" } else { b"false" }),
            FieldRef::String(v) => return self.text(out, key, v),
        }
        Ok(())
    }

    fn text(&self, out: &mut Vec<u8>, key: &str, text: &str) -> Result<(), EncodeError> {
        let fail = |offset, reason| Err(EncodeError::new(Element::FieldValue, key, offset, reason));
        let most = match self.dialect {
            Dialect::Portable => 64 << 10,
            _ => 1 << 20,
        };
        if text.len() > most {
            return fail(0, EncodeReason::StringTooLong(text.len()));
        }
        if matches!(self.dialect, Dialect::Vm | Dialect::Portable)
            && let Some(at) = memchr::memchr(b'\n', text.as_bytes())
        {
            return fail(at, EncodeReason::LineFeedInString);
        }
        out.push(b'"');
        let mut rest = text.as_bytes();
        while let Some(at) = memchr::memchr2(b'"', b'\\', rest) {
            out.extend_from_slice(&rest[..at]);
            out.extend_from_slice(&[b'\\', rest[at]]);
            rest = &rest[at + 1..];
        }
        out.extend_from_slice(rest);
        out.push(b'"');
        Ok(())
    }

    #[inline]
    pub(crate) fn end(
        &self,
        out: &mut Vec<u8>,
        measurement: &str,
        timestamp: Option<Timestamp>,
    ) -> Result<(), EncodeError> {
        if let Some(time) = timestamp {
            let fail = |reason| Err(EncodeError::new(Element::Timestamp, measurement, 0, reason));
            if !time.is_storable() {
                return fail(EncodeReason::TimeOutOfRange);
            }
            if time.as_nanos() <= 0 && matches!(self.dialect, Dialect::Vm | Dialect::Portable) {
                return fail(EncodeReason::TimeNotAfterEpoch);
            }
            out.push(b' ');
            out.extend_from_slice(itoa::Buffer::new().format(time.as_nanos()).as_bytes());
        }
        out.push(b'\n');
        Ok(())
    }
}

/// A name without control characters, unless what is to replace them is one.
pub(crate) fn replace_controls(name: &str, with: char) -> Cow<'_, str> {
    if with.is_ascii_control() || !name.bytes().any(|b| b.is_ascii_control()) {
        return Cow::Borrowed(name);
    }
    Cow::Owned(name.chars().map(|c| if c.is_ascii_control() { with } else { c }).collect())
}

/// Named things in the order they were given.
pub(crate) trait List<'a, V> {
    fn len(&self) -> usize;
    fn get(&self, index: usize) -> (&'a str, V);
}

/// A slice seen as a list of names and values.
pub(crate) struct Pairs<'a, T, F>(pub(crate) &'a [T], pub(crate) F);

impl<'a, T, V, F: Fn(&'a T) -> (&'a str, V)> List<'a, V> for Pairs<'a, T, F> {
    #[inline]
    fn len(&self) -> usize {
        self.0.len()
    }

    #[inline]
    fn get(&self, index: usize) -> (&'a str, V) {
        (self.1)(&self.0[index])
    }
}

fn owned_tag(tag: &(String, String)) -> (&str, &str) {
    (&tag.0, &tag.1)
}

fn owned_field(field: &(String, FieldValue)) -> (&str, FieldRef<'_>) {
    (&field.0, field.1.as_ref())
}

#[inline]
pub(crate) fn part_tag<'a>(tag: &'a (&'a str, &'a str)) -> (&'a str, &'a str) {
    *tag
}

#[inline]
fn part_field<'a>(field: &'a (&'a str, FieldRef<'a>)) -> (&'a str, FieldRef<'a>) {
    let value = match &field.1 {
        FieldRef::String(v) => FieldRef::String(Cow::Borrowed(v)),
        other => other.clone(),
    };
    (field.0, value)
}

/// Appends measurement and tags if all of them are plain names that no rule and no policy touches, in order.
/// Otherwise `out` is as before, and the answer `false`: they are looked at one by one.
#[inline]
fn plain_key<'a>(measurement: &str, tags: &impl List<'a, &'a str>, out: &mut Vec<u8>) -> bool {
    let start = out.len();
    let bytes = (0..tags.len()).map(|i| tags.get(i)).map(|(k, v)| k.len() + v.len() + 2).sum::<usize>();
    out.resize(start + measurement.len() + bytes, 0);
    let mut to = &mut out[start..];
    let mut plain = !matches!(measurement.as_bytes().first(), None | Some(b'#' | b'_'));
    plain &= copy_plain(&mut to, measurement.as_bytes());
    let mut last = "";
    for i in 0..tags.len() {
        let (key, value) = tags.get(i);
        // The other reserved keys begin with an underscore. Plain keys are in the order of their bytes.
        plain &= (i == 0 || comes_before(last, key))
            && !key.is_empty()
            && !key.starts_with('_')
            && key != "time"
            && !value.is_empty();
        last = key;
        plain &= copy_byte(&mut to, b',') && copy_plain(&mut to, key.as_bytes());
        plain &= copy_byte(&mut to, b'=') && copy_plain(&mut to, value.as_bytes());
    }
    if !plain {
        out.truncate(start);
    }
    plain
}

/// The order of bytes; most keys differ in the first.
#[inline]
fn comes_before(a: &str, b: &str) -> bool {
    match (a.as_bytes(), b.as_bytes()) {
        ([x, ..], [y, ..]) if x != y => x < y,
        (a, b) => a < b,
    }
}

#[inline]
fn copy_byte(to: &mut &mut [u8], byte: u8) -> bool {
    match std::mem::take(to) {
        [first, rest @ ..] => {
            *first = byte;
            *to = rest;
            true
        }
        [] => false,
    }
}

/// Copies a name to the front of `to`, and tells whether it is plain.
#[inline]
fn copy_plain(to: &mut &mut [u8], name: &[u8]) -> bool {
    let Some((place, rest)) = std::mem::take(to).split_at_mut_checked(name.len()) else { return false };
    *to = rest;
    place.copy_from_slice(name);
    is_plain(name)
}

/// The order of two tag keys as 2.8 sees them: by their bytes with escapes.
fn compare_escaped(a: &str, b: &str) -> Ordering {
    if is_plain(a.as_bytes()) && is_plain(b.as_bytes()) {
        return a.as_bytes().cmp(b.as_bytes());
    }
    fn escaped(text: &str) -> impl Iterator<Item = u8> {
        text.bytes().flat_map(|b| {
            let escape = matches!(b, b',' | b'=' | b' ').then_some(b'\\');
            escape.into_iter().chain(Some(b))
        })
    }
    escaped(a).cmp(escaped(b))
}
