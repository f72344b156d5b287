//! The quarantine: readings whose timestamps a clock that is wrong must have made. They are stored, in a bucket of their
//! own beside each bucket, and shown apart, until they are released or dropped. It decides what is implausible; it
//! knows no line protocol.

use crate::catalog::SeriesInfo;
use crate::core::Shared;
use crate::error::{Error, Kind};
use crate::record::Row;
use crate::scan::{Block, Scan};
use crate::selector::{Matcher, Selector};
use crate::value::{Value, Values};
use crate::window::{TimeRange, Windows};
use graylogic_line::Timestamp;
use std::sync::Arc;

/// What the names of the buckets begin with that hold the quarantined readings of others.
const PREFIX: &str = "_quarantine/";
/// 2000-01-01T00:00:00Z: no telemetry is older, but that of devices whose clock was never set.
const OLDEST: i64 = 946_684_800_000_000_000;
/// A timestamp may be so far ahead of the store's clock.
const AHEAD_MAX: i64 = 3_600_000_000_000;
/// 2024-01-01T00:00:00Z: a clock before it was never set, so it cannot show what lies in the future.
const CLOCK_IS_SET: i64 = 1_704_067_200_000_000_000;
/// So many rows are released together.
const ROWS_RELEASED: usize = 10_000;

/// The timestamps that are stored without question at a time: from 2000 to an hour ahead.
pub(crate) fn plausible(now: Timestamp) -> TimeRange {
    TimeRange { start: OLDEST, stop: present_ends(now) }
}

/// The time from which on readings lie in the future.
pub(crate) fn present_ends(now: Timestamp) -> i64 {
    match now.as_nanos() {
        now if now >= CLOCK_IS_SET => now.saturating_add(AHEAD_MAX),
        _ => i64::MAX,
    }
}

/// The bucket that holds the quarantined readings of a bucket.
pub(crate) fn quarantine_of(bucket: &str) -> String {
    format!("{PREFIX}{bucket}")
}

/// The bucket whose quarantine this bucket is.
pub(crate) fn quarantined(bucket: &str) -> Option<&str> {
    bucket.strip_prefix(PREFIX)
}

/// The quarantined readings of a bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Quarantine {
    /// The bucket they were written to.
    pub bucket: String,
    /// Their number.
    pub values: u64,
    /// The series they belong to.
    pub series: usize,
    /// The oldest and the newest timestamp.
    pub bounds: (Timestamp, Timestamp),
}

/// What became of quarantined readings that were to be released.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Released {
    /// Readings that are in their bucket now.
    pub values: u64,
    /// Why others are still in quarantine, one sentence for each series.
    pub kept: Vec<String>,
}

impl Shared {
    /// Creates the quarantine of a bucket, unless it is there.
    pub(crate) fn ensure_quarantine(&self, bucket: &str) -> Result<(), Error> {
        let name = quarantine_of(bucket);
        {
            let core = self.open_core()?;
            core.catalog.bucket_place(bucket)?;
            if core.catalog.bucket_place(&name).is_ok() {
                return Ok(());
            }
        }
        match self.create_bucket(&name) {
            Err(error) if error.is_exists() => Ok(()),
            created => created.map(|_| ()),
        }
    }

    /// Logs that readings went into quarantine: seldom, because a device with a wrong clock goes on sending.
    pub(crate) fn note_quarantined(&self, bucket: &str, lines: u64, total: u64) {
        // The first ones, and whenever their number has another digit.
        if total.saturating_sub(lines).checked_ilog10() != total.checked_ilog10() {
            tracing::warn!(
                bucket,
                lines = total,
                "readings are quarantined: their timestamps are before 2000 or more than an hour ahead of the clock"
            );
        }
    }

    /// What is in quarantine, bucket by bucket.
    pub(crate) fn quarantines(self: &Arc<Self>) -> Result<Vec<Quarantine>, Error> {
        let names: Vec<String> = {
            let core = self.open_core()?;
            let names = core.catalog.buckets.iter().map(|b| b.name.to_string());
            names.filter(|name| quarantined(name).is_some()).collect()
        };
        let mut found = Vec::new();
        for name in names {
            let series = self.open_core()?.catalog.select(&Selector::bucket(&name))?;
            let folded = self.fold_all(&series, TimeRange::all(), &Windows::whole())?;
            let summaries = || folded.iter().flatten().map(|w| &w.summary);
            let oldest = summaries().map(|s| s.first.0).min();
            if let (Some(oldest), Some(newest)) = (oldest, summaries().map(|s| s.last.0).max()) {
                found.push(Quarantine {
                    bucket: quarantined(&name).unwrap_or_default().to_owned(),
                    values: summaries().map(|s| s.count).sum(),
                    series: folded.iter().filter(|windows| !windows.is_empty()).count(),
                    bounds: (oldest, newest),
                });
            }
        }
        Ok(found)
    }

    /// Moves the quarantined readings of a bucket into it, series by series: first they are there, then they go from
    /// here, so that a crash leaves them at least once.
    pub(crate) fn release(self: &Arc<Self>, bucket: &str) -> Result<Released, Error> {
        let mut released = Released::default();
        let selector = Selector::bucket(quarantine_of(bucket));
        let series = match self.open_core()?.catalog.select(&selector) {
            Err(error) if error.is_not_found() => return Ok(released),
            found => found?,
        };
        for info in series {
            let range = match self.release_series(bucket, &info, &mut released.values) {
                Ok(range) => range,
                Err(error) if error.is_invalid() => {
                    released.kept.push(error.to_string());
                    continue;
                }
                Err(error) => return Err(error),
            };
            self.sync(format_args!("release the quarantined readings of bucket {bucket:?}"))?;
            self.delete_exactly(&info, range)?;
        }
        Ok(released)
    }

    /// Copies a series into its bucket, and returns the range that it has there.
    fn release_series(
        self: &Arc<Self>,
        bucket: &str,
        info: &SeriesInfo,
        values: &mut u64,
    ) -> Result<TimeRange, Error> {
        let oldest = {
            let core = self.open_core()?;
            let place = core.catalog.bucket_place(bucket)?;
            match core.catalog.buckets[place].retention {
                0 => i64::MIN,
                n => (self.clock.0)().as_nanos().saturating_sub(n),
            }
        };
        let range = TimeRange { start: oldest, stop: i64::MAX };
        for block in Scan::new(self.clone(), vec![info.clone()], range) {
            let block = block?;
            for from in (0..block.times.len()).step_by(ROWS_RELEASED) {
                let to = (from + ROWS_RELEASED).min(block.times.len());
                self.write_released(bucket, info, &block, from..to)?;
                *values += (to - from) as u64;
            }
        }
        Ok(range)
    }

    fn write_released(
        &self,
        bucket: &str,
        info: &SeriesInfo,
        block: &Block,
        part: std::ops::Range<usize>,
    ) -> Result<(), Error> {
        let mut core = self.room()?;
        let place = core.catalog.bucket_place(bucket)?;
        let (measurement, field) = (info.measurement(), info.field());
        let known = core.catalog.buckets[place].field_type(measurement, field);
        if let Some(known) = known.filter(|known| *known != info.field_type()) {
            return Err(Error::invalid(format!(
                "release field \"{field}\" of measurement \"{measurement}\": it is type {}, in bucket {bucket:?} it exists as type {known}; drop these readings, or write them under another name",
                info.field_type()
            )));
        }
        let tags: Vec<(&str, &str)> = info.tags().collect();
        let key = core.catalog.buckets[place].key(measurement, &tags);
        let known = core.catalog.buckets[place].entries[key as usize].fields.find(field).map(|f| f.series);
        let series = known.unwrap_or_else(|| {
            let series = core.catalog.add_series(place, key, field, info.field_type());
            core.catalog.undefined.push(series);
            series
        });
        let mut texts: Vec<Arc<str>> = Vec::new();
        let rows: Vec<Row> = part.map(|i| row(series, block, i, &mut texts)).collect();
        self.store(&mut core, &rows, &texts, bucket)?;
        Ok(())
    }

    /// Deletes a range of one series.
    fn delete_exactly(&self, info: &SeriesInfo, range: TimeRange) -> Result<(), Error> {
        let selector = Selector::bucket(info.bucket()).measurement(info.measurement()).field(info.field());
        let selector = info.tags().fold(selector, |s, (key, value)| s.tag(key, Matcher::equal(value)));
        // Others may have these tags and more.
        self.delete_matching(&selector, range, |found| found.id == info.id).map(|_| ())
    }
}

fn row(series: u32, block: &Block, i: usize, texts: &mut Vec<Arc<str>>) -> Row {
    let bits = match &block.values {
        Values::String(all) => {
            texts.push(all[i].clone());
            texts.len() as u64 - 1
        }
        values => match values.get(i) {
            Value::Float(v) => v.to_bits(),
            Value::Integer(v) => v as u64,
            Value::Unsigned(v) => v,
            Value::Boolean(v) => u64::from(v),
            Value::String(_) => 0,
        },
    };
    Row { series, field_type: block.values.field_type(), time: block.times[i], bits }
}

/// A name that no bucket of a user may have.
pub(crate) fn check_not_reserved(name: &str) -> Result<(), Error> {
    match quarantined(name) {
        None => Ok(()),
        Some(_) => Err(Error::new(
            Kind::Invalid,
            format!("bucket {name:?}: names that begin with {PREFIX:?} are the store's own; choose another"),
        )),
    }
}
