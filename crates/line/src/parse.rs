//! Lines become points again: what InfluxDB 2.8 accepts, with its reasons for what it does not, and the deviations
//! listed at [`Parser`]. One pass over the bytes, nothing allocated for a line in the steady state.

use crate::encode::KEY_BYTES_MAX;
use crate::ends::{LineEnds, is_one_line};
use crate::number;
use crate::point::{FieldRef, Point};
use crate::time::{Precision, Timestamp};
use memchr::{memchr, memchr2};
use std::borrow::Cow;
use std::fmt;

/// How line protocol is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ParseOptions {
    /// Unit of the times in the lines.
    pub precision: Precision,
    /// Time of lines that have none, cut to the precision.
    pub default_time: Timestamp,
}

impl ParseOptions {
    /// Times in units of `precision`; `default_time` for lines that have none.
    #[must_use]
    pub fn new(precision: Precision, default_time: Timestamp) -> Self {
        Self { precision, default_time }
    }
}

/// Reads the lines of a body one after the other.
///
/// It accepts what InfluxDB 2.8 accepts (`models/points.go`) and gives its reasons, except that
/// - one CR before LF is dropped (2.8 refuses it or stores it in a string);
/// - control characters in names and bytes that are not UTF-8 are refused (2.8 stores them);
/// - only spaces separate the parts of a line; leading spaces and tabs are skipped;
/// - bytes between the closing quote of a string and the next separator are refused (2.8 stores a mangled string);
/// - fields named `time` are left out here, as 2.8 does later, and counted.
///
/// ```
/// use graylogic_line::{ParseOptions, Parser, Precision, Timestamp};
///
/// let body = b"energy,device_id=hvac power_watts=450.0 1700000000\nenergy power_watts=\nenergy power_watts=1 5";
/// let mut parser = Parser::new(body, ParseOptions::new(Precision::Seconds, Timestamp::now()));
/// let mut good = 0;
/// while let Some(next) = parser.next_line() {
///     match next {
///         Ok(line) => good += line.fields().len(),
///         Err(error) => assert_eq!(
///             (error.line(), error.to_string().as_str()),
///             (2, "unable to parse 'energy power_watts=': missing field value")
///         ),
///     }
/// }
/// assert_eq!(good, 2);
/// ```
#[derive(Debug)]
pub struct Parser<'a> {
    body: &'a [u8],
    rest: &'a [u8],
    options: ParseOptions,
    resume: Option<Resume>,
    /// Text lines passed so far.
    passed: usize,
    fields: Vec<Field<'a>>,
    /// Bytes looked at, for the test that reading is linear.
    #[cfg(test)]
    pub(crate) work: usize,
}

/// A line that was read. Names and texts borrow from the body.
#[derive(Clone, Copy, Debug)]
pub struct Line<'p, 'a> {
    number: usize,
    text: &'a [u8],
    key: &'a [u8],
    raw_fields: &'a [u8],
    fields: &'p [Field<'a>],
    timestamp: Timestamp,
    has_timestamp: bool,
    dropped_time_fields: usize,
}

/// A field of a line.
#[derive(Clone, Debug, PartialEq)]
pub struct Field<'a> {
    key: &'a [u8],
    /// Its value.
    pub value: FieldRef<'a>,
}

/// A line that cannot be read.
#[derive(Clone, Debug, PartialEq)]
pub struct LineError<'a> {
    line: usize,
    column: usize,
    text: &'a [u8],
    reason: Reason<'a>,
}

/// Why a line cannot be read. Its text is InfluxDB 2.8's where 2.8 refuses the line too.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Reason<'a> {
    /// No measurement.
    MissingMeasurement,
    /// Nothing after measurement and tags.
    MissingFields,
    /// A tag without key.
    MissingTagKey,
    /// A tag without value.
    MissingTagValue,
    /// An equals sign in a tag value that is not escaped.
    InvalidTagFormat,
    /// Two tags with one key.
    DuplicateTags,
    /// A tag key InfluxDB keeps for itself.
    ReservedTagKey(&'a str),
    /// A field without key.
    MissingFieldKey,
    /// A field without value.
    MissingFieldValue,
    /// Something that is no `key=value`.
    InvalidFieldFormat,
    /// Something that begins as a number and is none.
    InvalidNumber,
    /// Something that is no number, string or boolean.
    InvalidBoolean,
    /// A float out of range.
    InvalidFloat,
    /// An integer out of range.
    IntegerOutOfRange(&'a str),
    /// An unsigned integer out of range.
    UnsignedOutOfRange(&'a str),
    /// A string that is not closed.
    UnbalancedQuotes,
    /// A time that is no integer.
    BadTimestamp,
    /// A time of a minus sign only.
    TimestampSyntax(&'a str),
    /// A time that no 64-bit integer holds.
    TimestampOverflow(&'a str),
    /// A time that cannot be stored.
    TimeOutsideRange,
    /// Something after the time.
    PointIsInvalid,
    /// Measurement, tags and a field key that are too long together.
    KeyTooLong(usize),
    /// A control character in a name.
    ControlCharacter(&'static str),
    /// Bytes that are not UTF-8.
    InvalidUtf8,
}

impl fmt::Display for Reason<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::MissingMeasurement => "missing measurement",
            Self::MissingFields => "missing fields",
            Self::MissingTagKey => "missing tag key",
            Self::MissingTagValue => "missing tag value",
            Self::InvalidTagFormat => "invalid tag format",
            Self::DuplicateTags => "duplicate tags",
            Self::ReservedTagKey(key) => return write!(f, "cannot use reserved tag key \"{key}\""),
            Self::MissingFieldKey => "missing field key",
            Self::MissingFieldValue => "missing field value",
            Self::InvalidFieldFormat => "invalid field format",
            Self::InvalidNumber => "invalid number",
            Self::InvalidBoolean => "invalid boolean",
            Self::InvalidFloat => "invalid float",
            Self::IntegerOutOfRange(n) => {
                return write!(
                    f,
                    "unable to parse integer {n}: strconv.ParseInt: parsing \"{n}\": value out of range"
                );
            }
            Self::UnsignedOutOfRange(n) => {
                return write!(
                    f,
                    "unable to parse unsigned {n}: strconv.ParseUint: parsing \"{n}\": value out of range"
                );
            }
            Self::UnbalancedQuotes => "unbalanced quotes",
            Self::BadTimestamp => "bad timestamp",
            Self::TimestampSyntax(n) => {
                return write!(f, "strconv.ParseInt: parsing \"{n}\": invalid syntax");
            }
            Self::TimestampOverflow(n) => {
                return write!(f, "strconv.ParseInt: parsing \"{n}\": value out of range");
            }
            Self::TimeOutsideRange => {
                let (min, max) = (Timestamp::MIN.as_nanos(), Timestamp::MAX.as_nanos());
                return write!(f, "time outside range {min} - {max}");
            }
            Self::PointIsInvalid => "point is invalid",
            Self::KeyTooLong(n) => return write!(f, "max key length exceeded: {n} > {KEY_BYTES_MAX}"),
            Self::ControlCharacter(element) => return write!(f, "control character in {element}"),
            Self::InvalidUtf8 => "invalid UTF-8",
        })
    }
}

impl<'a> LineError<'a> {
    /// Number of the line's first text line in the body, from 1.
    #[must_use]
    pub fn line(&self) -> usize {
        self.line
    }

    /// The byte of the line where reading ended, from 1.
    #[must_use]
    pub fn column(&self) -> usize {
        self.column
    }

    /// The line, without leading white space and line end.
    #[must_use]
    pub fn text(&self) -> &'a [u8] {
        self.text
    }

    /// Why it cannot be read.
    #[must_use]
    pub fn reason(&self) -> &Reason<'a> {
        &self.reason
    }
}

impl fmt::Display for LineError<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unable to parse '{}': {}", String::from_utf8_lossy(self.text), self.reason)
    }
}

impl std::error::Error for LineError<'_> {}

/// How far a string of a line that is read again may reach.
const LOOK_AHEAD_BYTES_MAX: usize = 1 << 20;

/// How a parser resumes within a line that could not be read.
#[derive(Clone, Copy, Debug)]
struct Resume {
    /// Up to this byte of the body each text line is looked at by itself.
    apart_until: usize,
    /// So many bytes may still be looked at in search of the end of a string: reading stays linear.
    budget: usize,
}

/// Where in the line and why.
type Fault<'a> = (usize, Reason<'a>);

impl<'a> Parser<'a> {
    /// A parser of a body of line protocol.
    #[must_use]
    pub fn new(body: &'a [u8], options: ParseOptions) -> Self {
        Self {
            body,
            rest: body,
            options,
            resume: None,
            passed: 0,
            fields: Vec::new(),
            #[cfg(test)]
            work: 0,
        }
    }

    /// Keeps what is wrong with one line from costing the lines behind it.
    ///
    /// A quote that is never closed, or a backslash before a line feed, makes one line of all that follows, and InfluxDB 2.8
    /// rejects it as a whole. With this, the first text line of such a line is an error of its own, and reading resumes
    /// behind it: with each text line that can be read by itself, and with strings that close within 1 MiB. Text lines that
    /// can be read in neither way are errors, one each. A line whose strings are well formed stays one line, whatever else is
    /// wrong with it.
    ///
    /// ```
    /// use graylogic_line::{ParseOptions, Parser, Precision, Timestamp};
    ///
    /// let body = b"m f=1 1\nm s=\"open 2\nm f=3 3\nm s=\"two\nlines\" 4\n";
    /// let options = ParseOptions::new(Precision::Nanoseconds, Timestamp::now());
    /// let mut parser = Parser::new(body, options).resuming();
    /// let mut read = Vec::new();
    /// while let Some(next) = parser.next_line() {
    ///     read.push(next.map(|line| line.number()).map_err(|error| error.line()));
    /// }
    /// assert_eq!(read, [Ok(1), Err(2), Ok(3), Ok(4)]);
    /// ```
    #[must_use]
    pub fn resuming(mut self) -> Self {
        self.resume = Some(Resume { apart_until: 0, budget: self.body.len().saturating_mul(2) });
        self
    }

    /// The next line that is not blank and no comment, or why it cannot be read; `None` at the end.
    #[inline]
    pub fn next_line(&mut self) -> Option<Result<Line<'_, 'a>, LineError<'a>>> {
        self.next_line_known(|_| false)
    }

    /// Like [`Parser::next_line`] for callers who remember keys: where `known` says that measurement and tags, as they
    /// were sent, were read without fault before, they are not looked into again.
    #[inline]
    pub fn next_line_known(
        &mut self,
        known: impl FnOnce(&'a [u8]) -> bool,
    ) -> Option<Result<Line<'_, 'a>, LineError<'a>>> {
        let (mut number, mut text) = self.next_text()?;
        let mut read = read_line(text, &self.options, &mut self.fields, known);
        if let (Err(_), Some(resume)) = (&read, self.resume)
            && let Some(other) = self.read_again(number, text, resume)
        {
            (number, text, read) = other;
        }
        Some(match read {
            Ok(parts) => Ok(Line {
                number,
                text,
                key: parts.key,
                raw_fields: parts.fields,
                fields: &self.fields,
                timestamp: parts.timestamp,
                has_timestamp: parts.has_timestamp,
                dropped_time_fields: parts.dropped_time_fields,
            }),
            Err((at, reason)) => Err(LineError { line: number, column: at + 1, text, reason }),
        })
    }

    /// What a text that cannot be read is otherwise: one text line of several, or the beginning of a string that closes in a
    /// later one. `None` when it is what it seems to be.
    #[cold]
    #[inline(never)]
    fn read_again(
        &mut self,
        number: usize,
        text: &'a [u8],
        resume: Resume,
    ) -> Option<(usize, &'a [u8], Result<Parts<'a>, Fault<'a>>)> {
        let start = offset_in(self.body, text);
        let end = self.body.len() - self.rest.len();
        if start >= resume.apart_until {
            let first = memchr(b'\n', text)?;
            if is_one_line(text) {
                return None;
            }
            self.note_work(text.len());
            self.resume = Some(Resume { apart_until: end, ..resume });
            self.rest = &self.body[start + first + 1..];
            self.passed = number;
            let text = text[..first].strip_suffix(b"\r").unwrap_or(&text[..first]);
            let read = read_line(text, &self.options, &mut self.fields, |_| false);
            return Some((number, text, read));
        }
        let ahead = &self.body[start..];
        let ahead = &ahead[..ahead.len().min(LOOK_AHEAD_BYTES_MAX).min(resume.budget)];
        let mut ends = LineEnds::new();
        if ends.feed(ahead.get(..end - start)?).is_some() {
            return None;
        }
        let found = ends.feed(&ahead[end - start..]);
        let bytes = found.map_or(ahead.len(), |more| end - start + more);
        self.note_work(bytes);
        self.resume = Some(Resume { budget: resume.budget - bytes, ..resume });
        if found.is_none() && start + bytes < self.body.len() {
            return None;
        }
        let whole = &ahead[..bytes];
        let whole = whole.strip_suffix(b"\n").map_or(whole, |w| w.strip_suffix(b"\r").unwrap_or(w));
        let read = read_line(whole, &self.options, &mut self.fields, |_| false).ok()?;
        self.rest = &self.body[start + bytes..];
        self.passed = number - 1 + memchr::memchr_iter(b'\n', whole).count() + 1;
        Some((number, whole, Ok(read)))
    }

    /// The next text that is a line, with its number.
    #[inline]
    fn next_text(&mut self) -> Option<(usize, &'a [u8])> {
        loop {
            if self.rest.is_empty() {
                return None;
            }
            let number = self.passed + 1;
            let (block, rest) = self.split_line();
            self.rest = rest;
            let start = block.iter().position(|b| !matches!(b, b' ' | b'\t')).unwrap_or(block.len());
            let text = &block[start..];
            if !text.is_empty() && text[0] != b'#' {
                return Some((number, text));
            }
        }
    }

    /// The bytes up to the line feed that ends a line, without it, and what follows.
    #[inline]
    fn split_line(&mut self) -> (&'a [u8], &'a [u8]) {
        let end = memchr(b'\n', self.rest).unwrap_or(self.rest.len());
        let simple = memchr2(b'"', b'\\', &self.rest[..end]).is_none() || self.is_apart();
        let end = if simple { end } else { quoted_line_end(self.rest) };
        self.note_work(end);
        let block = &self.rest[..end];
        let rest = self.rest.get(end + 1..).unwrap_or_default();
        self.passed += 1;
        if !simple {
            self.passed += memchr::memchr_iter(b'\n', block).count();
        }
        // A line that ends with CR LF ends before both.
        let ended = end < self.rest.len();
        let block = if ended { block.strip_suffix(b"\r").unwrap_or(block) } else { block };
        (block, rest)
    }

    /// Whether every text line is looked at by itself here.
    fn is_apart(&self) -> bool {
        self.resume.is_some_and(|resume| self.body.len() - self.rest.len() < resume.apart_until)
    }

    #[cfg(test)]
    fn note_work(&mut self, bytes: usize) {
        self.work += bytes;
    }

    #[cfg(not(test))]
    #[expect(clippy::unused_self, reason = "counts only in tests")]
    #[inline(always)]
    fn note_work(&mut self, _bytes: usize) {}
}

/// Where a line with quotes or backslashes ends.
fn quoted_line_end(body: &[u8]) -> usize {
    LineEnds::new().feed(body).map_or(body.len(), |end| end - 1)
}

struct Parts<'a> {
    key: &'a [u8],
    fields: &'a [u8],
    timestamp: Timestamp,
    has_timestamp: bool,
    dropped_time_fields: usize,
}

#[inline]
fn read_line<'a>(
    text: &'a [u8],
    options: &ParseOptions,
    fields: &mut Vec<Field<'a>>,
    known: impl FnOnce(&'a [u8]) -> bool,
) -> Result<Parts<'a>, Fault<'a>> {
    let end = key_end(text);
    let end = match end {
        Some(end) if known(&text[..end]) => end,
        _ => check_key(text)?,
    };
    let key = &text[..end];
    let start = skip_spaces(text, end);
    let mut dropped_time_fields = 0;
    let i = read_fields(text, start, fields, &mut dropped_time_fields)?;
    let raw_fields = &text[start..i];
    let longest = fields.iter().map(|f| f.key.len()).max().unwrap_or(0);
    if key.len() + 4 + longest > KEY_BYTES_MAX {
        return Err((i, Reason::KeyTooLong(key.len() + 4 + longest)));
    }
    let i = skip_spaces(text, i);
    if i == text.len() {
        let timestamp = options.default_time.truncated(options.precision);
        return Ok(Parts { key, fields: raw_fields, timestamp, has_timestamp: false, dropped_time_fields });
    }
    let timestamp = read_time(text, i, options.precision)?;
    Ok(Parts { key, fields: raw_fields, timestamp, has_timestamp: true, dropped_time_fields })
}

#[inline]
fn skip_spaces(text: &[u8], mut i: usize) -> usize {
    while text.get(i) == Some(&b' ') {
        i += 1;
    }
    i
}

/// Where measurement and tags end: the first space with no backslash before it.
#[inline]
fn key_end(text: &[u8]) -> Option<usize> {
    let mut from = 1;
    loop {
        let at = from + memchr(b' ', text.get(from..)?)?;
        if text[at - 1] != b'\\' {
            return Some(at);
        }
        from = at + 1;
    }
}

// ---- measurement and tags -----------------------------------------------------------------------------------------

/// Reads measurement and tags as 2.8 does, byte against the byte before, and returns where they end.
fn check_key<'a>(text: &'a [u8]) -> Result<usize, Fault<'a>> {
    if text.first() == Some(&b',') {
        return Err((0, Reason::MissingMeasurement));
    }
    let (measurement_end, mut more) = measurement_end(text)?;
    let mut tags: Vec<(&'a [u8], &'a [u8])> = Vec::new();
    let mut end = measurement_end;
    while more {
        let key_from = end + 1;
        let equals = tag_key_end(text, key_from)?;
        let value_from = equals + 1;
        let value_end;
        (value_end, more) = tag_value_end(text, value_from)?;
        tags.push((&text[key_from..equals], &text[value_from..value_end]));
        end = value_end;
    }
    let measurement = &text[..measurement_end];
    check_tags(&tags, end)?;
    if end > KEY_BYTES_MAX {
        return Err((end, Reason::KeyTooLong(end)));
    }
    check_name(measurement, 0, "measurement")?;
    for (key, value) in tags {
        check_name(key, offset_in(text, key), "tag key")?;
        check_name(value, offset_in(text, value), "tag value")?;
    }
    Ok(end)
}

fn offset_in(text: &[u8], part: &[u8]) -> usize {
    part.as_ptr().addr() - text.as_ptr().addr()
}

fn measurement_end<'a>(text: &'a [u8]) -> Result<(usize, bool), Fault<'a>> {
    for i in 1..text.len() {
        if text[i - 1] != b'\\' {
            match text[i] {
                b',' => return Ok((i, true)),
                b' ' => return Ok((i, false)),
                _ => {}
            }
        }
    }
    Err((text.len(), Reason::MissingFields))
}

fn tag_key_end<'a>(text: &'a [u8], from: usize) -> Result<usize, Fault<'a>> {
    if matches!(text.get(from), None | Some(b' ' | b',' | b'=')) {
        return Err((from, Reason::MissingTagKey));
    }
    for i in from + 1..text.len() {
        if text[i - 1] != b'\\' {
            match text[i] {
                b' ' | b',' => return Err((i, Reason::MissingTagValue)),
                b'=' => return Ok(i),
                _ => {}
            }
        }
    }
    Err((text.len(), Reason::MissingTagValue))
}

/// Where a tag value ends, and whether another tag follows. Its first byte may be any but a separator.
fn tag_value_end<'a>(text: &'a [u8], from: usize) -> Result<(usize, bool), Fault<'a>> {
    if matches!(text.get(from), None | Some(b' ' | b',')) {
        return Err((from, Reason::MissingTagValue));
    }
    for i in from + 1..text.len() {
        if text[i - 1] != b'\\' {
            match text[i] {
                b'=' => return Err((i, Reason::InvalidTagFormat)),
                b',' => return Ok((i, true)),
                b' ' => return Ok((i, false)),
                _ => {}
            }
        }
    }
    Err((text.len(), Reason::MissingFields))
}

fn check_tags<'a>(tags: &[(&'a [u8], &'a [u8])], end: usize) -> Result<(), Fault<'a>> {
    let mut keys: Vec<&'a [u8]> = tags.iter().map(|t| t.0).collect();
    keys.sort_unstable();
    if keys.windows(2).any(|w| w[0] == w[1]) {
        return Err((end, Reason::DuplicateTags));
    }
    for key in keys {
        if let b"time" | b"_measurement" | b"_field" = key {
            return Err((end, Reason::ReservedTagKey(std::str::from_utf8(key).unwrap_or_default())));
        }
    }
    Ok(())
}

/// A name without control characters, in UTF-8.
#[inline]
fn check_name<'a>(name: &[u8], at: usize, element: &'static str) -> Result<(), Fault<'a>> {
    let mut all = 0u8;
    for (i, &b) in name.iter().enumerate() {
        if b < 0x20 || b == 0x7f {
            return Err((at + i, Reason::ControlCharacter(element)));
        }
        all |= b;
    }
    if all >= 0x80
        && let Err(error) = std::str::from_utf8(name)
    {
        return Err((at + error.valid_up_to(), Reason::InvalidUtf8));
    }
    Ok(())
}

// ---- fields -------------------------------------------------------------------------------------------------------

/// Reads fields from `i` on and returns where they end.
#[inline]
fn read_fields<'a>(
    text: &'a [u8],
    mut i: usize,
    fields: &mut Vec<Field<'a>>,
    dropped_time_fields: &mut usize,
) -> Result<usize, Fault<'a>> {
    fields.clear();
    let first = i;
    loop {
        let from = i;
        let equals = field_key_end(text, from).map_err(|at| (at, later_fault(text, at)))?;
        let key = &text[from..equals];
        if key.is_empty() {
            // What 2.8 means by a missing key is an equals sign right behind the space or comma.
            return Err((equals, Reason::MissingFieldKey));
        }
        let (value, end) = read_value(text, equals + 1)?;
        check_name(key, from, "field key")?;
        if key == b"time" {
            *dropped_time_fields += 1;
        } else {
            fields.push(Field { key, value });
        }
        i = end;
        match text.get(i) {
            Some(b',') => i += 1,
            Some(b' ') | None => return Ok(i),
            Some(_) => return Err((i, Reason::InvalidFieldFormat)),
        }
        debug_assert!(i > first, "each field takes bytes");
    }
}

/// The equals sign behind a field key; `Err` where the key ends without one. A backslash and what follows it are a pair.
#[inline]
fn field_key_end(text: &[u8], mut i: usize) -> Result<usize, usize> {
    while let Some(&b) = text.get(i) {
        match b {
            b'=' => return Ok(i),
            b' ' | b',' => return Err(i),
            b'\\' if i + 1 < text.len() => i += 2,
            _ => i += 1,
        }
    }
    Err(text.len())
}

/// 2.8 counts equals signs and commas only at the end: a fault in a value behind a key without `=` is told first.
#[cold]
fn later_fault<'a>(text: &'a [u8], mut i: usize) -> Reason<'a> {
    while let Some(b',') = text.get(i) {
        i += 1;
        if text.get(i) == Some(&b'=') {
            return Reason::MissingFieldKey;
        }
        match field_key_end(text, i) {
            Ok(equals) => match read_value(text, equals + 1) {
                Ok((_, end)) => i = end,
                Err((_, reason)) => return reason,
            },
            Err(at) => i = at,
        }
    }
    Reason::InvalidFieldFormat
}

#[inline]
fn read_value<'a>(text: &'a [u8], i: usize) -> Result<(FieldRef<'a>, usize), Fault<'a>> {
    match text.get(i) {
        None | Some(b',' | b' ') => Err((i, Reason::MissingFieldValue)),
        Some(b'0'..=b'9' | b'.' | b'-' | b'N' | b'n') => read_number(text, i),
        Some(b'"') => read_string(text, i),
        Some(_) => read_boolean(text, i),
    }
}

#[inline]
fn read_number<'a>(text: &'a [u8], start: usize) -> Result<(FieldRef<'a>, usize), Fault<'a>> {
    let mut i = start + usize::from(text[start] == b'-');
    let digits_from = i;
    let (mut points, mut digits) = (0, 0);
    while let Some(&b) = text.get(i) {
        match b {
            b'0'..=b'9' => digits += 1,
            b'.' => points += 1,
            _ => break,
        }
        i += 1;
    }
    let number = &text[start..i];
    match text.get(i) {
        None | Some(b',' | b' ') if points <= 1 && digits > 0 => match number::float(number) {
            Some(v) => Ok((FieldRef::Float(v), i)),
            None => Err((i, Reason::InvalidFloat)),
        },
        Some(b'i') if points == 0 && digits > 0 && ends_value(text, i + 1) => match number::integer(number) {
            Some(v) => Ok((FieldRef::Integer(v), i + 1)),
            None => Err((i, Reason::IntegerOutOfRange(ascii(number)))),
        },
        Some(b'u') if points == 0 && digits > 0 && digits_from == start && ends_value(text, i + 1) => {
            match ascii(number).parse() {
                Ok(v) => Ok((FieldRef::Unsigned(v), i + 1)),
                Err(_) => Err((i, Reason::UnsignedOutOfRange(ascii(number)))),
            }
        }
        Some(b'e' | b'E') if points <= 1 && i > start => read_scientific(text, start, i, points),
        _ => Err((i, Reason::InvalidNumber)),
    }
}

/// A number with an exponent: 2.8 takes any row of digits, points, exponent letters and signs behind them as one, and
/// then asks whether it is a float.
#[cold]
fn read_scientific<'a>(
    text: &'a [u8],
    start: usize,
    from: usize,
    mut points: usize,
) -> Result<(FieldRef<'a>, usize), Fault<'a>> {
    let mut i = from;
    while let Some(&b) = text.get(i) {
        match b {
            b',' | b' ' => break,
            b'0'..=b'9' | b'e' | b'E' => {}
            b'+' | b'-' if matches!(text[i - 1], b'e' | b'E') => {}
            b'.' if points == 0 => points = 1,
            _ => return Err((i, Reason::InvalidNumber)),
        }
        i += 1;
    }
    match number::float(&text[start..i]) {
        Some(v) => Ok((FieldRef::Float(v), i)),
        None => Err((i, Reason::InvalidFloat)),
    }
}

fn ends_value(text: &[u8], i: usize) -> bool {
    matches!(text.get(i), None | Some(b',' | b' '))
}

fn ascii(digits: &[u8]) -> &str {
    std::str::from_utf8(digits).unwrap_or_else(|_| unreachable!("digits are ASCII"))
}

fn read_boolean<'a>(text: &'a [u8], start: usize) -> Result<(FieldRef<'a>, usize), Fault<'a>> {
    let end =
        start + text[start..].iter().position(|b| matches!(b, b',' | b' ')).unwrap_or(text.len() - start);
    match &text[start..end] {
        b"t" | b"T" | b"true" | b"True" | b"TRUE" => Ok((FieldRef::Boolean(true), end)),
        b"f" | b"F" | b"false" | b"False" | b"FALSE" => Ok((FieldRef::Boolean(false), end)),
        _ => Err((start, Reason::InvalidBoolean)),
    }
}

fn read_string<'a>(text: &'a [u8], start: usize) -> Result<(FieldRef<'a>, usize), Fault<'a>> {
    let from = start + 1;
    let mut i = from;
    let mut escaped = false;
    loop {
        i += match memchr2(b'"', b'\\', text.get(i..).unwrap_or_default()) {
            Some(at) => at,
            None => return Err((text.len(), Reason::UnbalancedQuotes)),
        };
        if text[i] == b'"' {
            break;
        }
        escaped = true;
        i += 2;
    }
    let raw =
        std::str::from_utf8(&text[from..i]).map_err(|e| (from + e.valid_up_to(), Reason::InvalidUtf8))?;
    let end = i + 1;
    if !ends_value(text, end) {
        return Err((end, Reason::InvalidFieldFormat));
    }
    let value =
        if escaped { Cow::Owned(unescape(raw, |b| matches!(b, b'"' | b'\\'))) } else { Cow::Borrowed(raw) };
    Ok((FieldRef::String(value), end))
}

// ---- time ---------------------------------------------------------------------------------------------------------

#[inline]
fn read_time<'a>(text: &'a [u8], start: usize, precision: Precision) -> Result<Timestamp, Fault<'a>> {
    let mut i = start + usize::from(text[start] == b'-');
    let digits_from = i;
    let mut v = 0u64;
    while let Some(&b) = text.get(i) {
        let digit = b.wrapping_sub(b'0');
        if digit > 9 {
            break;
        }
        v = v.wrapping_mul(10).wrapping_add(u64::from(digit));
        i += 1;
    }
    if !matches!(text.get(i), None | Some(b' ')) {
        return Err((i, Reason::BadTimestamp));
    }
    let digits = &text[start..i];
    let negative = digits_from > start;
    let v = match i - digits_from {
        0 => return Err((i, Reason::TimestampSyntax(ascii(digits)))),
        1..=18 if negative => -(v as i64),
        1..=18 => v as i64,
        _ => match number::integer(digits) {
            Some(v) => v,
            None => return Err((i, Reason::TimestampOverflow(ascii(digits)))),
        },
    };
    let scaled = v.checked_mul(precision.nanos()).map(Timestamp::from_nanos).filter(|t| t.is_storable());
    let time = scaled.ok_or((i, Reason::TimeOutsideRange))?;
    let rest = skip_spaces(text, i);
    if rest < text.len() { Err((rest, Reason::PointIsInvalid)) } else { Ok(time) }
}

// ---- what was read ------------------------------------------------------------------------------------------------

impl<'p, 'a> Line<'p, 'a> {
    /// Number of the line's first text line in the body, from 1.
    #[must_use]
    pub fn number(&self) -> usize {
        self.number
    }

    /// The line as it was sent, without leading white space and line end.
    #[must_use]
    pub fn text(&self) -> &'a [u8] {
        self.text
    }

    /// Measurement and tags as they were sent: a name for the series that needs no unescaping.
    #[must_use]
    pub fn raw_key(&self) -> &'a [u8] {
        self.key
    }

    /// All fields as they were sent, those named `time` included.
    #[must_use]
    pub fn raw_fields(&self) -> &'a [u8] {
        self.raw_fields
    }

    /// The measurement.
    #[must_use]
    pub fn measurement(&self) -> Cow<'a, str> {
        let end = separator(self.key, 0, b',').unwrap_or(self.key.len());
        unescaped_name(&self.key[..end], true)
    }

    /// The tags in the order of their keys.
    pub fn tags(&self) -> impl ExactSizeIterator<Item = (Cow<'a, str>, Cow<'a, str>)> + use<'a> {
        let mut tags: Vec<(&'a [u8], &'a [u8])> = Vec::new();
        let mut next = separator(self.key, 0, b',');
        while let Some(comma) = next {
            let Some(equals) = separator(self.key, comma + 1, b'=') else { break };
            next = separator(self.key, equals + 1, b',');
            tags.push((&self.key[comma + 1..equals], &self.key[equals + 1..next.unwrap_or(self.key.len())]));
        }
        tags.sort_unstable();
        tags.into_iter().map(|(k, v)| (unescaped_name(k, false), unescaped_name(v, false)))
    }

    /// The fields in the order they were sent, without those named `time`. May be empty when all were named so.
    #[must_use]
    pub fn fields(&self) -> &'p [Field<'a>] {
        self.fields
    }

    /// How many fields named `time` were left out.
    #[must_use]
    pub fn dropped_time_fields(&self) -> usize {
        self.dropped_time_fields
    }

    /// The time, that of the options when the line has none.
    #[must_use]
    pub fn timestamp(&self) -> Timestamp {
        self.timestamp
    }

    /// Whether the line has a time of its own.
    #[must_use]
    pub fn has_timestamp(&self) -> bool {
        self.has_timestamp
    }

    /// The line as a point of its own.
    #[must_use]
    pub fn to_point(&self) -> Point {
        let point = Point::new(self.measurement()).timestamp(self.timestamp);
        let point = self.tags().fold(point, |p, (k, v)| p.tag(k, v));
        self.fields.iter().fold(point, |p, f| p.field(f.key(), f.value.to_value()))
    }
}

impl<'a> Field<'a> {
    /// The key as it was sent: equal to the name unless it holds a backslash.
    #[must_use]
    pub fn raw_key(&self) -> &'a [u8] {
        self.key
    }

    /// The key.
    #[must_use]
    pub fn key(&self) -> Cow<'a, str> {
        unescaped_name(self.key, true)
    }
}

/// The first `b` at or after `from` with no backslash before it. The first byte of a part is never a separator.
fn separator(key: &[u8], from: usize, b: u8) -> Option<usize> {
    (from + 1..key.len()).find(|&i| key[i] == b && key[i - 1] != b'\\')
}

/// A name without its escapes; only measurements and field keys know an escaped quote.
fn unescaped_name(raw: &[u8], quotes: bool) -> Cow<'_, str> {
    // Names were checked when the line was read; a key taken as known was read before.
    let text = String::from_utf8_lossy(raw);
    if !raw.contains(&b'\\') {
        return text;
    }
    Cow::Owned(unescape(&text, |b| matches!(b, b',' | b' ' | b'=') || (quotes && b == b'"')))
}

/// Drops each backslash that stands before a byte for which `escapes` says so.
fn unescape(text: &str, escapes: impl Fn(u8) -> bool) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        match rest.as_bytes().first() {
            Some(&next) if escapes(next) => {
                out.push(next as char);
                rest = &rest[1..];
            }
            _ => out.push('\\'),
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_open_quote_is_one_error_and_reading_stays_linear() {
        let mut body = b"m f=\"".to_vec();
        body.extend(b"\nm f=\"a\\".repeat(200_000));
        let options = ParseOptions::new(Precision::Nanoseconds, Timestamp::from_nanos(1));
        for (mut parser, most) in
            [(Parser::new(&body, options), 2), (Parser::new(&body, options).resuming(), 6)]
        {
            let mut lines = 0;
            while let Some(next) = parser.next_line() {
                lines += usize::from(next.is_ok() || next.is_err());
            }
            assert!(lines > 0);
            assert!(
                parser.work <= most * body.len(),
                "{} bytes looked at in a body of {}",
                parser.work,
                body.len()
            );
        }
    }

    /// What became of each line: its number, and whether it was read.
    fn resumed(body: &str) -> Vec<(usize, bool)> {
        let options = ParseOptions::new(Precision::Nanoseconds, Timestamp::from_nanos(1));
        let mut parser = Parser::new(body.as_bytes(), options).resuming();
        let mut found = Vec::new();
        while let Some(next) = parser.next_line() {
            found.push(next.map_or_else(|e| (e.line(), false), |line| (line.number(), true)));
        }
        found
    }

    #[test]
    fn one_open_quote_costs_one_line() {
        for (body, expected) in [
            ("m s=\"open 1\nm f=2 2\nm f=3 3\n", vec![(1, false), (2, true), (3, true)]),
            // The quotes of later lines close and open the wrong strings.
            ("m s=\"open 1\nm s=\"b\" 2\nm s=\"c\" 3\n", vec![(1, false), (2, true), (3, true)]),
            ("m s=\"open 1\nm s=\" b\" 2\nm s=\" c\" 3\n", vec![(1, false), (2, true), (3, true)]),
            ("m n=1x,s=\"open 1\r\nm f=2 2\r\n", vec![(1, false), (2, true)]),
            // Strings with line feeds, before, behind and in the middle of it.
            (
                "m s=\"a\nb\" 1\nm s=\"open 2\nm s=\"c\n\nd\" 3\nx\nm s=\"e\r\nf\" 4\r\nm f=5 5",
                vec![(1, true), (3, false), (4, true), (7, false), (8, true), (10, true)],
            ),
            // One line, whatever else is wrong with it: what its string holds is not stored as lines.
            ("m s=\"a\nn f=1 1\nb\" 1x\nm f=2 2\n", vec![(1, false), (4, true)]),
            ("m n=1x,s=\"a\nn f=1 1\nb\" 1\nm f=2 2\n", vec![(1, false), (4, true)]),
            // A backslash at the end of a line is no reason to lose the next one, nor is a quote in a comment.
            ("m f=1 1\\\nm f=2 2\n", vec![(1, false), (2, true)]),
            ("# it's f=\"open\nm f=2 2\n", vec![(2, true)]),
            ("m s=\"open", vec![(1, false)]),
            ("m s=\"open\n\n", vec![(1, false)]),
        ] {
            assert_eq!(resumed(body), expected, "{body:?}");
        }
        let good: String = (0..12_000).map(|i| format!("m,t=a s=\"x y\",f={i} {i}\n")).collect();
        let cut = good.match_indices('\n').nth(9).unwrap().0 + 1;
        let body = format!("{}m s=\"open 1\n{}", &good[..cut], &good[cut..]);
        let found = resumed(&body);
        assert_eq!(found.iter().filter(|(_, read)| !read).collect::<Vec<_>>(), [&(11, false)]);
        assert_eq!(found.len(), 12_001);
    }
}
