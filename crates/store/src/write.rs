//! The way in: line protocol becomes rows of known series, one record of the hot log, and readings in tails.

use crate::catalog::Catalog;
use crate::core::{Core, Shared};
use crate::error::{Error, Kind};
use crate::record::{self, Row};
use graylogic_line::{Field, FieldRef, FieldType, Line, ParseOptions, Parser, Precision, Timestamp};
use std::borrow::Cow;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

/// Longest string value, as InfluxDB 2.8 has it.
const STRING_BYTES_MAX: usize = 1 << 20;
/// A batch with more bytes of line protocol is refused: it could not be one record of the log.
pub(crate) const BATCH_BYTES_MAX: usize = 32 << 20;
/// So many refused lines are listed in a report; the others are counted.
const REJECTED_LISTED_MAX: usize = 100;
/// So much of a refused line is quoted.
const QUOTED_BYTES_MAX: usize = 512;

/// How line protocol is to be read.
#[derive(Clone, Debug)]
pub struct WriteOptions {
    /// Unit of the time stamps in the lines.
    pub precision: Precision,
    /// Time of lines that have none.
    pub default_time: Timestamp,
    /// What one bad line means for the others.
    pub on_bad_line: BadLine,
    /// At most so many refused lines are listed in the report; all are counted.
    pub rejected_listed_max: usize,
}

impl WriteOptions {
    /// Nanoseconds; lines without a time get the present one; good lines are stored whatever the others are.
    #[must_use]
    pub fn now() -> Self {
        Self {
            precision: Precision::Nanoseconds,
            default_time: Timestamp::now(),
            on_bad_line: BadLine::SkipLine,
            rejected_listed_max: REJECTED_LISTED_MAX,
        }
    }
}

/// What a line that cannot be parsed means for the rest of its batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BadLine {
    /// Nothing of the batch is stored, as in InfluxDB 2.
    RefuseBatch,
    /// The other lines are stored, as in InfluxDB 1; a quote that is not closed costs no other line either.
    SkipLine,
}

/// What became of a batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct WriteReport {
    /// Lines stored.
    pub points: u64,
    /// Field values stored.
    pub values: u64,
    /// True when a line could not be parsed and [`BadLine::RefuseBatch`] refused all of them.
    pub refused: bool,
    /// Lines that were not stored for their own fault.
    pub rejected_count: u64,
    /// The first of them, as many as [`WriteOptions::rejected_listed_max`] allows.
    pub rejected: Vec<Rejected>,
    /// Fields named `time` that were left out of stored lines, as InfluxDB 2 leaves them out.
    pub time_fields_dropped: u64,
    listed_max: usize,
}

/// A line that was not stored, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rejected {
    /// Its number in the batch, from 1.
    pub line: usize,
    /// Its text, abbreviated when long.
    pub text: String,
    /// The reason in InfluxDB 2.8's words.
    pub reason: String,
    /// The class of the reason.
    pub kind: RejectKind,
}

impl fmt::Display for Rejected {
    /// What InfluxDB 2.8 says of a line it cannot parse; the line and the reason for the others.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let doing = if self.kind == RejectKind::Unparsable { "unable to parse " } else { "" };
        write!(f, "{doing}'{}': {}", self.text, self.reason)
    }
}

/// Why a line was not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RejectKind {
    /// It is no line protocol.
    Unparsable,
    /// A field has another type already.
    TypeConflict,
    /// Its only fields are named `time`.
    TimeOnly,
    /// A string value is longer than 1 MiB.
    TooLong,
    /// The measurement has as many series as are allowed.
    SeriesLimit,
    /// It is older than the bucket keeps readings.
    Expired,
}

impl WriteReport {
    fn reject(&mut self, kind: RejectKind, line: usize, text: &[u8], reason: String) {
        self.rejected_count += 1;
        if self.rejected.len() < self.listed_max {
            self.rejected.push(Rejected { line, text: quote(text), reason, kind });
        }
    }
}

fn quote(text: &[u8]) -> String {
    let cut = text.len() > QUOTED_BYTES_MAX;
    let mut quoted = String::from_utf8_lossy(&text[..text.len().min(QUOTED_BYTES_MAX)]).into_owned();
    if cut {
        quoted.push('…');
    }
    quoted
}

/// A line that was read but not looked up yet. Its key was not looked into: a known key needs no second look.
struct Unresolved<'a> {
    number: usize,
    time: i64,
    key: &'a [u8],
    text: &'a [u8],
    fields: Range<usize>,
    time_fields_dropped: u64,
}

/// The lines of a batch as read outside of any lock.
struct Batch<'a> {
    lines: Vec<Unresolved<'a>>,
    fields: Vec<Field<'a>>,
    options: ParseOptions,
}

impl<'a> Batch<'a> {
    fn read(body: &'a [u8], options: &WriteOptions, report: &mut WriteReport) -> Self {
        let parse = ParseOptions::new(options.precision, options.default_time);
        let guess = body.len() / 48 + 1;
        let mut batch =
            Self { lines: Vec::with_capacity(guess), fields: Vec::with_capacity(guess), options: parse };
        let mut parser = Parser::new(body, parse);
        if options.on_bad_line == BadLine::SkipLine {
            parser = parser.resuming();
        }
        while let Some(next) = parser.next_line_known(|_| true) {
            match next {
                Ok(line) => batch.push(&line),
                Err(error) => {
                    // The reason a server gives looks at the key first, which was skipped here.
                    let mut again = Parser::new(error.text(), parse);
                    let reason = match again.next_line() {
                        Some(Err(first)) => first.reason().to_string(),
                        _ => error.reason().to_string(),
                    };
                    report.reject(RejectKind::Unparsable, error.line(), error.text(), reason);
                }
            }
        }
        batch
    }

    #[inline]
    fn push(&mut self, line: &Line<'_, 'a>) {
        let from = self.fields.len();
        self.fields.extend_from_slice(line.fields());
        self.lines.push(Unresolved {
            number: line.number(),
            time: line.timestamp().as_nanos(),
            key: line.raw_key(),
            text: line.text(),
            fields: from..self.fields.len(),
            time_fields_dropped: line.dropped_time_fields() as u64,
        });
    }
}

/// Rows of known series, ready for the log.
#[derive(Default)]
struct Rows {
    rows: Vec<Row>,
    texts: Vec<Arc<str>>,
}

impl Rows {
    #[inline]
    fn push(&mut self, series: u32, time: i64, value: &FieldRef<'_>) {
        let (field_type, bits) = match value {
            FieldRef::Float(v) => (FieldType::Float, v.to_bits()),
            FieldRef::Integer(v) => (FieldType::Integer, *v as u64),
            FieldRef::Unsigned(v) => (FieldType::Unsigned, *v),
            FieldRef::Boolean(v) => (FieldType::Boolean, u64::from(*v)),
            FieldRef::String(v) => {
                self.texts.push(Arc::from(&**v));
                (FieldType::String, self.texts.len() as u64 - 1)
            }
        };
        self.rows.push(Row { series, field_type, time, bits });
    }
}

fn type_of(value: &FieldRef<'_>) -> FieldType {
    match value {
        FieldRef::Float(_) => FieldType::Float,
        FieldRef::Integer(_) => FieldType::Integer,
        FieldRef::Unsigned(_) => FieldType::Unsigned,
        FieldRef::Boolean(_) => FieldType::Boolean,
        FieldRef::String(_) => FieldType::String,
    }
}

impl Shared {
    pub(crate) fn write_lines(
        &self,
        bucket: &str,
        body: &[u8],
        options: &WriteOptions,
    ) -> Result<WriteReport, Error> {
        if body.len() > BATCH_BYTES_MAX {
            let message = format!(
                "write to bucket {bucket:?}: the batch has {} bytes, at most {BATCH_BYTES_MAX} are taken at once; split it",
                body.len()
            );
            return Err(Error::new(Kind::TooLarge, message));
        }
        let mut report = WriteReport { listed_max: options.rejected_listed_max, ..WriteReport::default() };
        let batch = Batch::read(body, options, &mut report);
        let mut core = self.room()?;
        let place = core.catalog.bucket_place(bucket)?;
        if options.on_bad_line == BadLine::RefuseBatch {
            // Before anything is made: a refused batch fixes no types.
            check_keys(&core.catalog, place, &batch, &mut report);
            if report.rejected_count > 0 {
                report.refused = true;
                report.rejected.sort_by_key(|r| r.line);
                core.rejected_total += report.rejected_count;
                return Ok(report);
            }
        }
        let limits = Limits {
            series_max: self.series_max,
            oldest: match core.catalog.buckets[place].retention {
                0 => i64::MIN,
                n => (self.clock.0)().as_nanos().saturating_sub(n),
            },
        };
        let rows = resolve(&mut core.catalog, place, &batch, limits, &mut report);
        report.rejected.sort_by_key(|r| r.line);
        core.rejected_total += report.rejected_count;
        self.store(&mut core, &rows, bucket)?;
        core.written_total += report.values;
        drop(core);
        if self.sync_each && !rows.rows.is_empty() {
            self.sync(format_args!("write to bucket {bucket:?}"))?;
        }
        Ok(report)
    }

    /// The core, once there is room in memory for more readings.
    fn room(&self) -> Result<std::sync::MutexGuard<'_, Core>, Error> {
        let mut core = self.open_core()?;
        while core.sealing_bytes > core.tail_bytes_max(self.memory_bytes) / 3 {
            if let Some((_, trouble)) = &core.trouble {
                return Err(trouble.refusal());
            }
            core = self
                .room
                .wait_timeout(core, Duration::from_millis(100))
                .unwrap_or_else(std::sync::PoisonError::into_inner)
                .0;
            if core.closed {
                return Err(Error::closed());
            }
        }
        Ok(core)
    }

    /// Rows go to the log first, then to the tails.
    fn store(&self, core: &mut Core, rows: &Rows, bucket: &str) -> Result<(), Error> {
        if rows.rows.is_empty() {
            return Ok(());
        }
        let count =
            u32::try_from(rows.rows.len()).expect("a batch of bounded bytes has fewer than 2^32 values");
        let mut definitions = Vec::new();
        if !core.catalog.undefined.is_empty() {
            core.records += 1;
            let stamp = core.records;
            for row in &rows.rows {
                let series = core.catalog.series_mut(row.series);
                if !series.in_file && series.defined_in != stamp {
                    series.defined_in = stamp;
                    definitions.push(row.series);
                }
            }
        }
        let catalog = &core.catalog;
        let definition = |&id: &u32| catalog.get(id).expect("rows name series of the catalog").definition();
        let sequence = self
            .log
            .append_with(count, 0, |out| {
                record::encode(out, definitions.iter().map(definition), &rows.rows, &rows.texts);
            })
            .map_err(|e| Error::log(format_args!("write to bucket {bucket:?}"), e))?;
        let mut full = Vec::new();
        let mut bytes = 0;
        for row in &rows.rows {
            let series = core.catalog.series_mut(row.series);
            bytes += series.tail.push(row, &rows.texts, sequence);
            if series.tail.len() == series.seal_at as usize {
                full.push(row.series);
            }
        }
        core.tail_bytes += bytes;
        core.tail_readings += rows.rows.len() as u64;
        // Only now: a record is sealed for a series as a whole or not at all.
        for id in full {
            core.detach(id);
        }
        let tail_bytes_max = core.tail_bytes_max(self.memory_bytes);
        if core.tail_bytes > tail_bytes_max {
            core.detach_largest(tail_bytes_max * 3 / 4);
        }
        if !core.jobs.is_empty() {
            self.wake.notify_one();
        }
        Ok(())
    }
}

/// What a bucket does not take.
#[derive(Clone, Copy)]
struct Limits {
    series_max: usize,
    /// Earlier readings have expired already.
    oldest: i64,
}

fn resolve(
    catalog: &mut Catalog,
    bucket: usize,
    batch: &Batch<'_>,
    limits: Limits,
    report: &mut WriteReport,
) -> Rows {
    let mut rows = Rows { rows: Vec::with_capacity(batch.fields.len()), texts: Vec::new() };
    for line in &batch.lines {
        let fields = &batch.fields[line.fields.clone()];
        if line.time < limits.oldest {
            let (at, bound) = (Timestamp::from_nanos(line.time), Timestamp::from_nanos(limits.oldest));
            let point = String::from_utf8_lossy(line.key);
            let reason = format!(
                "point {point} at {at} dropped because it violates a Retention Policy Lower Bound at {bound}"
            );
            report.reject(RejectKind::Expired, line.number, line.text, reason);
            continue;
        }
        if !resolve_known(catalog, bucket, line, fields, &mut rows)
            && let Err((kind, reason)) =
                resolve_new(catalog, bucket, line, fields, batch.options, limits, &mut rows)
        {
            report.reject(kind, line.number, line.text, reason);
            continue;
        }
        report.points += 1;
        report.values += fields.len() as u64;
        report.time_fields_dropped += line.time_fields_dropped;
    }
    rows
}

/// Finds the lines whose measurement and tags are no line protocol.
fn check_keys(catalog: &Catalog, bucket: usize, batch: &Batch<'_>, report: &mut WriteReport) {
    for line in &batch.lines {
        if catalog.buckets[bucket].spelt(line.key).is_none()
            && let Some(Err(error)) = Parser::new(line.text, batch.options).next_line()
        {
            report.reject(RejectKind::Unparsable, line.number, line.text, error.reason().to_string());
        }
    }
}

/// The usual case: a key spelt as before, fields that exist with the types they have. `false` leaves no trace.
#[inline]
fn resolve_known(
    catalog: &Catalog,
    bucket: usize,
    line: &Unresolved<'_>,
    fields: &[Field<'_>],
    rows: &mut Rows,
) -> bool {
    let bucket = &catalog.buckets[bucket];
    let Some(place) = bucket.spelt(line.key) else { return false };
    let entry = &bucket.entries[place as usize];
    let (start, start_texts) = (rows.rows.len(), rows.texts.len());
    let mut hint = 0;
    for field in fields {
        match entry.field(field.raw_key(), &mut hint) {
            Some(known) if known.field_type == type_of(&field.value) && short_enough(&field.value) => {
                rows.push(known.series, line.time, &field.value);
            }
            _ => {
                rows.rows.truncate(start);
                rows.texts.truncate(start_texts);
                return false;
            }
        }
    }
    !fields.is_empty()
}

fn short_enough(value: &FieldRef<'_>) -> bool {
    !matches!(value, FieldRef::String(text) if text.len() > STRING_BYTES_MAX)
}

/// A key or field that is new, spelt in a new way, or refused.
fn resolve_new(
    catalog: &mut Catalog,
    bucket: usize,
    line: &Unresolved<'_>,
    fields: &[Field<'_>],
    options: ParseOptions,
    limits: Limits,
    rows: &mut Rows,
) -> Result<(), (RejectKind, String)> {
    let mut parser = Parser::new(line.text, options);
    let full = match parser.next_line() {
        Some(Ok(full)) => full,
        Some(Err(error)) => return Err((RejectKind::Unparsable, error.reason().to_string())),
        None => unreachable!("the text of a line holds a line"),
    };
    let measurement = full.measurement();
    if fields.is_empty() {
        let reason =
            format!("invalid field name: input field \"time\" on measurement \"{measurement}\" is invalid");
        return Err((RejectKind::TimeOnly, reason));
    }
    // All fields are looked at before anything is made, so that a refused line leaves nothing behind.
    let mut seen: Vec<(Cow<'_, str>, FieldType)> = Vec::with_capacity(fields.len());
    for field in fields {
        let (name, field_type) = (field.key(), type_of(&field.value));
        let known = seen
            .iter()
            .find(|(n, _)| *n == name)
            .map(|&(_, t)| t)
            .or_else(|| catalog.buckets[bucket].field_type(&measurement, &name));
        if let Some(known) = known
            && known != field_type
        {
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
        seen.push((name, field_type));
    }
    let tags: Vec<(Cow<'_, str>, Cow<'_, str>)> = full.tags().collect();
    let mut tags: Vec<(&str, &str)> = tags.iter().map(|(k, v)| (&**k, &**v)).collect();
    tags.sort_unstable();
    let known = &catalog.buckets[bucket];
    if known.keys_of(&measurement) >= limits.series_max && !known.knows(&measurement, &tags) {
        let widest = known.widest_tag(&measurement).map_or_else(String::new, |(tag, values)| {
            format!("; its tag \"{tag}\" has {values} values: is that an id or a time that changes with every reading?")
        });
        let max = limits.series_max;
        let reason = format!("measurement \"{measurement}\" has {max} series, which is the limit{widest}");
        return Err((RejectKind::SeriesLimit, reason));
    }
    let key = catalog.buckets[bucket].key(&measurement, &tags);
    catalog.buckets[bucket].learn_spelling(line.key, key);
    for ((name, field_type), field) in seen.iter().zip(fields) {
        let known =
            catalog.buckets[bucket].entries[key as usize].field(name.as_bytes(), &mut 0).map(|f| f.series);
        let series = match known {
            Some(series) => series,
            None => {
                let series = catalog.add_series(bucket, key, name, *field_type);
                catalog.undefined.push(series);
                series
            }
        };
        rows.push(series, line.time, &field.value);
    }
    Ok(())
}
