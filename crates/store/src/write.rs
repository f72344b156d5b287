//! The way in: line protocol becomes rows of known series, one record of the hot log, and readings in tails.

use crate::arrival::Arrivals;
use crate::catalog::Catalog;
use crate::core::{Core, Shared};
use crate::error::{Error, Kind};
use crate::limits::{Limits, Refusal, check_fields, check_limits, short_enough, type_of};
use crate::quarantine::{plausible, quarantine_of};
use crate::record::Row;
use crate::repeats::{Overwritten, overwritten};
use crate::window::TimeRange;
use graylogic_line::{Field, FieldRef, FieldType, Line, ParseOptions, Parser, Precision, Timestamp};
use std::borrow::Cow;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

/// A batch with more bytes of line protocol is refused: it could not be one record of the log.
pub(crate) const BATCH_BYTES_MAX: usize = 32 << 20;
/// A row of a record takes no more than this, the text of a string aside.
const ROW_BYTES: usize = 24;
/// A record of the log is ended after the line that makes it longer than this.
const RECORD_BYTES: usize = 32 << 20;
/// So many refused lines are listed in a report; the others are counted.
const REJECTED_LISTED_MAX: usize = 100;
/// So much of a refused line is quoted.
const QUOTED_BYTES_MAX: usize = 512;

/// How line protocol is to be read.
#[derive(Clone, Debug)]
pub struct WriteOptions {
    /// Unit of the timestamps in the lines.
    pub precision: Precision,
    /// Timestamp of the first line that has none; `None`: the time of its arrival. Every further one gets a timestamp of
    /// its own, a nanosecond later, whatever the precision: two lines without a timestamp never overwrite each other.
    pub default_time: Option<Timestamp>,
    /// What one bad line means for the others.
    pub on_bad_line: BadLine,
    /// At most so many refused lines are listed in the report; all are counted.
    pub rejected_listed_max: usize,
    /// What becomes of readings whose timestamps are implausible.
    pub times: Times,
}

/// What becomes of readings whose timestamps are before 2000 or more than an hour ahead of the store's clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Times {
    /// They go into quarantine, see [`Store::quarantine`](crate::Store::quarantine): what devices with a wrong clock send
    /// hides nothing else. While the clock of this machine itself stands before 2024, nothing counts as ahead of it.
    #[default]
    Plausible,
    /// They are stored like all others: for history and for forecasts.
    Any,
}

impl WriteOptions {
    /// Nanoseconds; lines without a timestamp get one when they arrive; good lines are stored whatever the others are.
    #[must_use]
    pub fn now() -> Self {
        Self {
            precision: Precision::Nanoseconds,
            default_time: None,
            on_bad_line: BadLine::SkipLine,
            rejected_listed_max: REJECTED_LISTED_MAX,
            times: Times::Plausible,
        }
    }

    /// The same, with any timestamp stored like all others: for history and for forecasts.
    #[must_use]
    pub fn any_time(self) -> Self {
        Self { times: Times::Any, ..self }
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
    /// Lines stored: those of which at least one value is there when the call returns.
    pub points: u64,
    /// Field values stored, each series and timestamp counted once.
    pub values: u64,
    /// Lines of which no value is left, because later lines of the same batch have the same series and timestamp. They are
    /// not among `points`.
    pub overwritten: u64,
    /// Lines that went into quarantine, because their timestamps are before 2000 or more than an hour ahead of the store's
    /// clock. They are not among `points`, nor are their values among `values`.
    pub quarantined: u64,
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
    /// The number of the text line on which it begins, from 1. A string value may span several text lines.
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
    /// The measurement has as many series or fields as are allowed.
    SeriesLimit,
    /// It is older than the bucket keeps readings.
    Expired,
    /// It has too many tags, or creates too many series at once.
    TooWide,
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
    has_time: bool,
    quarantined: bool,
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
        // What arrives without a timestamp is stamped afterwards.
        let parse = ParseOptions::new(options.precision, Timestamp::from_nanos(0));
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

    /// Gives the lines without a timestamp theirs.
    fn stamp(&mut self, arrivals: &Arrivals, now: impl FnOnce() -> Timestamp) {
        let missing = self.lines.iter().filter(|line| !line.has_time).count();
        if missing > 0 {
            let unstamped = self.lines.iter_mut().filter(|line| !line.has_time);
            unstamped.zip(arrivals.take(now(), missing)).for_each(|(line, time)| line.time = time);
        }
    }

    /// The lines that are in quarantine, or those that are not, with their fields.
    fn lines_of(&self, quarantined: bool) -> impl Iterator<Item = (&Unresolved<'a>, &[Field<'a>])> {
        let lines = self.lines.iter().filter(move |line| line.quarantined == quarantined);
        lines.map(|line| (line, &self.fields[line.fields.clone()]))
    }

    /// Marks the lines whose timestamps lie outside of a range, and says whether there are any.
    fn judge(&mut self, plausible: TimeRange) -> bool {
        let mut any = false;
        for line in &mut self.lines {
            line.quarantined = line.time < plausible.start || line.time >= plausible.stop;
            any |= line.quarantined;
        }
        any
    }

    #[inline]
    fn push(&mut self, line: &Line<'_, 'a>) {
        let from = self.fields.len();
        self.fields.extend_from_slice(line.fields());
        self.lines.push(Unresolved {
            number: line.number(),
            time: line.timestamp().as_nanos(),
            has_time: line.has_timestamp(),
            quarantined: false,
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
    /// Where the rows of each line end.
    ends: Vec<usize>,
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

    /// The rows of each record of the log: one, unless the lines of a batch and the definitions of their series are too
    /// long together.
    fn records(&self, catalog: &Catalog) -> Vec<Range<usize>> {
        let texts: usize = self.texts.iter().map(|text| text.len()).sum();
        let rows = self.rows.len();
        if rows == 0 {
            return Vec::new();
        }
        if catalog.undefined.is_empty() && rows * ROW_BYTES + texts <= RECORD_BYTES {
            return std::iter::once(0..rows).collect();
        }
        let definition_bytes = |row: &Row| match catalog.get(row.series) {
            Some(series) if !series.in_file => {
                32 + series.info.key.packed().bytes().len() + series.info.field.len()
            }
            _ => 0,
        };
        let text_bytes = |row: &Row| match row.field_type {
            FieldType::String => self.texts[row.bits as usize].len(),
            _ => 0,
        };
        let (mut records, mut from, mut line, mut bytes) = (Vec::new(), 0, 0, 0);
        for &end in &self.ends {
            let line_rows = &self.rows[line..end];
            bytes += line_rows.iter().map(|r| ROW_BYTES + definition_bytes(r) + text_bytes(r)).sum::<usize>();
            line = end;
            if bytes > RECORD_BYTES || end == rows {
                records.push(from..end);
                (from, bytes) = (end, 0);
            }
        }
        records.retain(|record| !record.is_empty());
        records
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
        let mut batch = Batch::read(body, options, &mut report);
        batch.stamp(&self.arrivals, || options.default_time.unwrap_or_else(|| (self.clock.0)()));
        let odd = options.times == Times::Plausible && batch.judge(plausible((self.clock.0)()));
        if odd {
            self.ensure_quarantine(bucket)?;
        }
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
            options: batch.options,
            series_max: self.series_max,
            oldest: match core.catalog.buckets[place].retention {
                0 => i64::MIN,
                n => (self.clock.0)().as_nanos().saturating_sub(n),
            },
        };
        let rows = resolve(&mut core.catalog, place, batch.lines_of(false), limits, &mut report);
        let mut odd_rows = Rows::default();
        if odd {
            let place = core.catalog.bucket_place(&quarantine_of(bucket))?;
            let limits = Limits { oldest: i64::MIN, ..limits };
            odd_rows = resolve(&mut core.catalog, place, batch.lines_of(true), limits, &mut report);
        }
        report.rejected.sort_by_key(|r| r.line);
        core.rejected_total += report.rejected_count;
        (report.points, report.values, report.overwritten) = self.store_all(&mut core, &rows, bucket)?;
        let (quarantined, values, overwritten) = self.store_all(&mut core, &odd_rows, bucket)?;
        (report.quarantined, report.overwritten) = (quarantined, report.overwritten + overwritten);
        core.written_total += report.values + values;
        core.quarantined_total += quarantined;
        let quarantined_total = core.quarantined_total;
        drop(core);
        self.note_quarantined(bucket, quarantined, quarantined_total);
        if self.sync_each && report.values + values > 0 {
            self.sync(format_args!("write to bucket {bucket:?}"))?;
        }
        Ok(report)
    }

    /// Stores rows in as many records as they need; returns how many lines and values are there, and how many lines the
    /// later ones overwrite.
    fn store_all(&self, core: &mut Core, rows: &Rows, bucket: &str) -> Result<(u64, u64, u64), Error> {
        let records = rows.records(&core.catalog);
        // Rows of one record that are each later than the one before overwrite nothing.
        let mut ascending = records.len() <= 1;
        for record in records {
            ascending &= self.store(core, &rows.rows[record], &rows.texts, bucket)?;
        }
        let gone = match ascending {
            true => Overwritten::default(),
            false => overwritten(&rows.rows, &rows.ends),
        };
        let (lines, values) = (rows.ends.len() as u64, rows.rows.len() as u64);
        Ok((lines - gone.lines, values - gone.values, gone.lines))
    }

    /// The core, once there is room in memory for more readings.
    pub(crate) fn room(&self) -> Result<std::sync::MutexGuard<'_, Core>, Error> {
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

    /// Rows go to the log first, then to the tails. Returns whether each is later than all of its series in the tail.
    pub(crate) fn store(
        &self,
        core: &mut Core,
        rows: &[Row],
        texts: &[Arc<str>],
        bucket: &str,
    ) -> Result<bool, Error> {
        let sequence = self
            .append_record(core, rows, texts)
            .map_err(|e| Error::log(format_args!("write to bucket {bucket:?}"), e))?;
        let mut full = Vec::new();
        let mut bytes = 0;
        let mut ascending = true;
        for row in rows {
            let series = core.catalog.series_mut(row.series);
            ascending &= series.tail.times.last().is_none_or(|&last| last < row.time);
            bytes += series.tail.push(row, texts, sequence);
            if series.tail.len() == series.seal_at as usize {
                full.push(row.series);
            }
        }
        core.tail_bytes += bytes;
        core.tail_readings += rows.len() as u64;
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
        Ok(ascending)
    }
}

fn resolve<'a, 'b: 'a>(
    catalog: &mut Catalog,
    bucket: usize,
    lines: impl Iterator<Item = (&'a Unresolved<'b>, &'a [Field<'b>])>,
    limits: Limits,
    report: &mut WriteReport,
) -> Rows {
    let mut rows = Rows::default();
    for (line, fields) in lines {
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
            && let Err((kind, reason)) = resolve_new(catalog, bucket, line, fields, limits, &mut rows)
        {
            report.reject(kind, line.number, line.text, reason);
            continue;
        }
        rows.ends.push(rows.rows.len());
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
        match entry.fields.find_from(field.raw_key(), &mut hint) {
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

/// A key or field that is new, spelt in a new way, or refused.
fn resolve_new(
    catalog: &mut Catalog,
    bucket: usize,
    line: &Unresolved<'_>,
    fields: &[Field<'_>],
    limits: Limits,
    rows: &mut Rows,
) -> Result<(), Refusal> {
    // Of the line only its names are still to be read.
    let mut parser = Parser::new(line.text, limits.options);
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
    // All fields are looked at before anything is created, so that a rejected line leaves nothing behind.
    let named = check_fields(&catalog.buckets[bucket], &measurement, fields)?;
    let tags: Vec<(Cow<'_, str>, Cow<'_, str>)> = full.tags().collect();
    let mut tags: Vec<(&str, &str)> = tags.iter().map(|(k, v)| (&**k, &**v)).collect();
    tags.sort_unstable();
    check_limits(&catalog.buckets[bucket], &measurement, &tags, &named, limits)?;
    let key = catalog.buckets[bucket].key(&measurement, &tags);
    catalog.buckets[bucket].learn_spelling(line.key, key);
    for ((name, field_type), field) in named.iter().zip(fields) {
        let known = catalog.buckets[bucket].entries[key as usize].fields.find(name).map(|f| f.series);
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

#[cfg(test)]
mod tests {
    use crate::fields::COMPARED;
    use crate::{Selector, Store, StoreOptions, WriteOptions};
    use std::fmt::Write as _;

    fn line(key: &str, fields: usize, step: usize) -> String {
        let mut line = key.to_owned();
        for i in 0..fields {
            let separator = if i == 0 { ' ' } else { ',' };
            write!(line, "{separator}f{}={i}", i * step % fields).unwrap();
        }
        line + " 1700000000000000000\n"
    }

    #[test]
    fn the_work_for_a_wide_line_grows_with_its_fields_in_writing_and_in_opening() {
        for fields in [4000, 64_000] {
            let folder = tempfile::tempdir().unwrap();
            let options = StoreOptions::default;
            COMPARED.set(0);
            {
                let store = Store::open(folder.path(), options()).unwrap();
                store.create_bucket("b").unwrap();
                // New fields, known fields in their order, in another one, and under another spelling.
                for (key, step) in [("m,a=1,b=2", 1), ("m,a=1,b=2", 1), ("m,a=1,b=2", 77), ("m,b=2,a=1", 1)] {
                    let body = line(key, fields, step);
                    let report = store.write_lines("b", body.as_bytes(), &WriteOptions::now()).unwrap();
                    assert_eq!((report.rejected_count, report.values), (0, fields as u64));
                }
            }
            let store = Store::open(folder.path(), options()).unwrap();
            assert_eq!(store.series(&Selector::bucket("b")).unwrap().len(), fields);
            assert!(COMPARED.get() <= 64 * fields, "{} names compared for {fields}", COMPARED.get());
        }
    }
}
