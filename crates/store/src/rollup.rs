//! What is known of each hour of a compacted chunk, as bytes and back. `docs/format.md` has every byte.
//! Pure: it knows neither SQLite nor queries.

use crate::bytes::{Malformed, Reader, put_bytes, put_varint, put_zigzag};
use crate::chunk::{put_values, take_values};
use crate::column::{self, Effort, Neighbours};
use crate::total::Total;
use crate::value::{Value, Values};
use crate::window::Summary;
use graylogic_line::{FieldType, Timestamp};

/// First byte of the bytes.
const VERSION: u8 = 1;
/// Length of an hour in nanoseconds.
pub(crate) const HOUR: i64 = 3_600_000_000_000;
/// Most hours of one chunk: a bound on the memory that damaged bytes can ask for.
const HOURS_MAX: usize = 1 << 16;

/// The readings of one hour of a chunk.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Hour {
    /// Hours since the epoch.
    pub(crate) hour: i64,
    pub(crate) summary: Summary,
    /// Value times seconds by the trapezoidal rule, between the readings inside the hour, in single precision; 0 for
    /// booleans.
    pub(crate) integral: f32,
}

/// The hours of readings in the order of time; empty for strings, of which only ends could be told.
pub(crate) fn hours_of(times: &[i64], values: &Values) -> Vec<Hour> {
    let mut hours = Vec::new();
    if values.field_type() == FieldType::String {
        return hours;
    }
    let mut from = 0;
    while from < times.len() {
        let hour = times[from].div_euclid(HOUR);
        let end = hour.saturating_add(1).saturating_mul(HOUR);
        let to = from + times[from..].partition_point(|&t| t < end).max(1);
        if let Some(summary) = Summary::of(times, values, from, to) {
            hours.push(Hour { hour, summary, integral: integral(times, values, from, to) as f32 });
        }
        from = to;
    }
    hours
}

fn integral(times: &[i64], values: &Values, from: usize, to: usize) -> f64 {
    let trapezoids = |at: &dyn Fn(usize) -> f64| {
        let one = |i: usize| (at(i) + at(i + 1)) / 2.0 * ((times[i + 1] - times[i]) as f64 / 1e9);
        (from..to - 1).map(one).sum()
    };
    match values {
        Values::Float(v) => trapezoids(&|i| v[i]),
        Values::Integer(v) => trapezoids(&|i| v[i] as f64),
        Values::Unsigned(v) => trapezoids(&|i| v[i] as f64),
        Values::Boolean(_) | Values::String(_) => 0.0,
    }
}

/// The bytes of hours; empty for none.
pub(crate) fn encode(hours: &[Hour], field_type: FieldType) -> Vec<u8> {
    let mut out = Vec::new();
    let Some(first) = hours.first() else { return out };
    let effort = Effort::Compact;
    out.push(VERSION);
    put_varint(&mut out, hours.len() as u64);
    put_zigzag(&mut out, first.hour);
    let integers = |of: &dyn Fn(&Hour) -> u64, out: &mut Vec<u8>| {
        let numbers: Vec<u64> = hours.iter().map(of).collect();
        let mut column = Vec::new();
        column::put_integers(&mut column, &numbers, Neighbours::Independent, effort);
        put_bytes(out, &column);
    };
    integers(&|h| (h.hour - first.hour) as u64, &mut out);
    integers(&|h| h.summary.count, &mut out);
    // Times of the first and last reading inside their hour; the first hour of all begins before what an `i64` holds.
    let inside = |h: &Hour, t: Timestamp| t.as_nanos().wrapping_sub(h.hour.wrapping_mul(HOUR)) as u64;
    let unit = hours.iter().flat_map(|h| [inside(h, h.summary.first.0), inside(h, h.summary.last.0)]);
    let unit = unit.fold(0, gcd).max(1);
    put_varint(&mut out, unit);
    integers(&|h| inside(h, h.summary.first.0) / unit, &mut out);
    integers(&|h| inside(h, h.summary.last.0) / unit, &mut out);
    let summaries = || hours.iter().map(|h| &h.summary);
    for column in [
        collect(summaries().filter_map(|s| s.min.as_ref()), field_type),
        collect(summaries().filter_map(|s| s.max.as_ref()), field_type),
        collect(summaries().map(|s| &s.first.1), field_type),
        collect(summaries().map(|s| &s.last.1), field_type),
    ] {
        put_values(&mut out, &column, effort);
    }
    let sums = Total::column(summaries().map(|s| s.total), sum_type(field_type));
    put_values(&mut out, &sums, effort);
    if field_type != FieldType::Boolean {
        hours.iter().for_each(|h| out.extend_from_slice(&h.integral.to_le_bytes()));
    }
    out
}

/// The hours of a chunk as they are stored: column by column.
#[derive(Debug, Default)]
pub(crate) struct Hours {
    first: i64,
    unit: u64,
    offsets: Vec<u64>,
    counts: Vec<u64>,
    /// Places of the first and last reading inside their hour, in units.
    firsts: Vec<u64>,
    lasts: Vec<u64>,
    /// Smallest, largest, first, last, sum.
    figures: Option<[Values; 5]>,
    integrals: Vec<f32>,
}

impl Hours {
    pub(crate) fn len(&self) -> usize {
        self.counts.len()
    }

    /// The time of the first reading of an hour.
    #[inline]
    pub(crate) fn first_time(&self, i: usize) -> i64 {
        self.hour(i).wrapping_mul(HOUR).wrapping_add(self.firsts[i].wrapping_mul(self.unit) as i64)
    }

    fn hour(&self, i: usize) -> i64 {
        self.first.wrapping_add(self.offsets[i] as i64)
    }

    /// What is known of the readings of an hour.
    #[inline]
    pub(crate) fn summary(&self, i: usize) -> Option<Summary> {
        let [min, max, first, last, sum] = self.figures.as_ref()?;
        let last_time =
            self.hour(i).wrapping_mul(HOUR).wrapping_add(self.lasts[i].wrapping_mul(self.unit) as i64);
        let (min, max) = (min.get(i), max.get(i));
        Some(Summary {
            count: self.counts[i],
            total: Total::restored(Some(&sum.get(i)), self.counts[i], Some(&min), Some(&max)),
            min: Some(min),
            max: Some(max),
            first: (Timestamp::from_nanos(self.first_time(i)), first.get(i)),
            last: (Timestamp::from_nanos(last_time), last.get(i)),
        })
    }

    /// All of them, one by one.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Hour> {
        (0..self.len()).filter_map(|i| {
            Some(Hour { hour: self.hour(i), summary: self.summary(i)?, integral: self.integrals[i] })
        })
    }
}

/// The hours of bytes that [`encode`] made.
pub(crate) fn decode(bytes: &[u8], field_type: FieldType) -> Result<Hours, Malformed> {
    if bytes.is_empty() {
        return Ok(Hours::default());
    }
    let mut reader = Reader::new(bytes);
    if reader.u8()? != VERSION {
        return Err(Malformed);
    }
    let n = reader.length(HOURS_MAX)?;
    if n == 0 {
        return Err(Malformed);
    }
    let first = reader.zigzag()?;
    let offsets = column::integers(reader.bytes()?, n)?;
    let counts = column::integers(reader.bytes()?, n)?;
    let unit = reader.varint()?;
    let firsts = column::integers(reader.bytes()?, n)?;
    let lasts = column::integers(reader.bytes()?, n)?;
    let mut figure = |expected: FieldType| {
        take_values(&mut reader, n)
            .and_then(|v| if v.field_type() == expected { Ok(v) } else { Err(Malformed) })
    };
    let figures = [
        figure(field_type)?,
        figure(field_type)?,
        figure(field_type)?,
        figure(field_type)?,
        figure(sum_type(field_type))?,
    ];
    let integrals = if field_type == FieldType::Boolean {
        vec![0.0; n]
    } else {
        reader.take(4 * n)?.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
    };
    if !reader.is_empty() {
        return Err(Malformed);
    }
    Ok(Hours { first, unit, offsets, counts, firsts, lasts, figures: Some(figures), integrals })
}

/// The sum of booleans is the number of true ones.
fn sum_type(field_type: FieldType) -> FieldType {
    if field_type == FieldType::Boolean { FieldType::Unsigned } else { field_type }
}

fn collect<'a>(values: impl Iterator<Item = &'a Value>, field_type: FieldType) -> Values {
    let mut column = Values::empty(field_type);
    for value in values {
        match (&mut column, value) {
            (Values::Float(v), Value::Float(x)) => v.push(*x),
            (Values::Integer(v), Value::Integer(x)) => v.push(*x),
            (Values::Unsigned(v), Value::Unsigned(x)) => v.push(*x),
            (Values::Boolean(v), Value::Boolean(x)) => v.push(*x),
            _ => unreachable!("the figures of an hour are of its series' type"),
        }
    }
    column
}

fn gcd(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hours_come_back_whatever_their_type() {
        let times: Vec<i64> = (0..5000i64).map(|i| i * 17_000_000_000 + i % 7 - 3 * HOUR - 1).collect();
        let n = times.len();
        let columns = [
            Values::Float((0..n).map(|i| (i as f64).sqrt()).collect()),
            Values::Float((0..n).map(|i| (i % 300) as f64 / 10.0).collect()),
            Values::Integer((0..n as i64).map(|i| i * 7 - 9000).collect()),
            Values::Unsigned((0..n as u64).map(|i| u64::MAX / 2 - i).collect()),
            Values::Boolean((0..n).map(|i| i % 5 == 0).collect()),
        ];
        for values in columns {
            let hours = hours_of(&times, &values);
            assert_eq!(hours.iter().map(|h| h.summary.count).sum::<u64>(), n as u64);
            assert!(hours.iter().all(|h| h.summary.first.0.as_nanos().div_euclid(HOUR) == h.hour));
            let bytes = encode(&hours, values.field_type());
            assert!(decode(&bytes, values.field_type()).unwrap().iter().eq(hours));
            for cut in 0..bytes.len().min(400) {
                let _ = decode(&bytes[..cut], values.field_type());
            }
        }
        let text = Values::String(vec!["a".into(); 3]);
        assert!(hours_of(&[1, 2, 3], &text).is_empty());
        assert!(encode(&[], FieldType::String).is_empty());
    }

    #[test]
    fn the_integral_of_a_line_is_its_area() {
        let times: Vec<i64> = (0..=3599).map(|s| s * 1_000_000_000).collect();
        let values = Values::Float((0..=3599).map(f64::from).collect());
        let hours = hours_of(&times, &values);
        assert_eq!(hours.len(), 1);
        assert!((hours[0].integral - 3599.0 * 3599.0 / 2.0).abs() < 1.0);
    }
}
