//! Windows over a time range, and what is known of the readings inside one. Pure arithmetic.

use crate::error::Error;
use crate::value::{Value, Values};
use graylogic_line::Timestamp;
use std::time::Duration;

/// A half-open range of time: `start` belongs to it, `stop` does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeRange {
    pub(crate) start: i64,
    pub(crate) stop: i64,
}

impl TimeRange {
    /// The range from `start` up to but without `stop`; empty when `stop` is not after `start`.
    #[must_use]
    pub fn new(start: Timestamp, stop: Timestamp) -> Self {
        Self { start: start.as_nanos(), stop: stop.as_nanos() }
    }

    /// All of time.
    #[must_use]
    pub fn all() -> Self {
        Self { start: i64::MIN, stop: i64::MAX }
    }

    /// First instant inside.
    #[must_use]
    pub fn start(&self) -> Timestamp {
        Timestamp::from_nanos(self.start)
    }

    /// First instant after.
    #[must_use]
    pub fn stop(&self) -> Timestamp {
        Timestamp::from_nanos(self.stop)
    }
}

/// How a range is cut into windows.
#[derive(Clone, Debug)]
pub struct Windows {
    pub(crate) cut: Cut,
}

#[derive(Clone, Debug)]
pub(crate) enum Cut {
    /// The whole range is one window.
    Whole,
    /// Windows of `every` ns that begin at multiples of it plus `offset`.
    Every { every: i64, offset: i64 },
    /// Windows between ascending instants; what lies outside belongs to none.
    Bounds(Vec<i64>),
}

impl Windows {
    /// The whole range as one window.
    #[must_use]
    pub fn whole() -> Self {
        Self { cut: Cut::Whole }
    }

    /// Windows of a fixed length whose starts are multiples of it since the epoch, as InfluxDB cuts them.
    ///
    /// # Errors
    /// [`Error::is_invalid`] when the length is zero or longer than 292 years.
    pub fn every(length: Duration) -> Result<Self, Error> {
        Self::every_offset(length, Duration::ZERO)
    }

    /// Like [`Windows::every`], with the starts moved later by `offset`.
    ///
    /// # Errors
    /// [`Error::is_invalid`] when the length is zero or either is longer than 292 years.
    pub fn every_offset(length: Duration, offset: Duration) -> Result<Self, Error> {
        let every = i64::try_from(length.as_nanos()).ok().filter(|&n| n > 0).ok_or_else(|| {
            Error::invalid(format!(
                "window of {length:?}: give a length of at least 1 ns and below 292 years"
            ))
        })?;
        let offset = i64::try_from(offset.as_nanos())
            .map_err(|_| Error::invalid(format!("window offset of {offset:?}: give one below 292 years")))?;
        Ok(Self { cut: Cut::Every { every, offset: offset.rem_euclid(every) } })
    }

    /// Windows between neighbouring instants: for local days and months, whose length varies.
    ///
    /// # Errors
    /// [`Error::is_invalid`] when there are fewer than two instants or they do not ascend.
    pub fn bounds(instants: impl IntoIterator<Item = Timestamp>) -> Result<Self, Error> {
        let bounds: Vec<i64> = instants.into_iter().map(Timestamp::as_nanos).collect();
        if bounds.len() < 2 || bounds.windows(2).any(|w| w[0] >= w[1]) {
            return Err(Error::invalid(
                "window bounds: give at least two instants, each later than the one before",
            ));
        }
        Ok(Self { cut: Cut::Bounds(bounds) })
    }

    /// The window that holds `time`, clipped to `range`; `None` when no window does.
    pub(crate) fn holding(&self, time: i64, range: TimeRange) -> Option<(i64, i64)> {
        debug_assert!(range.start <= time && time < range.stop, "only readings of the range are asked for");
        match &self.cut {
            Cut::Whole => Some((range.start, range.stop)),
            Cut::Every { every, offset } => {
                // In i128 the first and last window of all time do not overflow.
                let (t, every, offset) = (i128::from(time), i128::from(*every), i128::from(*offset));
                let start = (t - offset).div_euclid(every) * every + offset;
                let clip = |v: i128| v.clamp(i128::from(range.start), i128::from(range.stop)) as i64;
                Some((clip(start), clip(start + every)))
            }
            Cut::Bounds(bounds) => {
                let after = bounds.partition_point(|&b| b <= time);
                if after == 0 || after == bounds.len() {
                    return None;
                }
                Some((bounds[after - 1].max(range.start), bounds[after].min(range.stop)))
            }
        }
    }
}

/// What is known of the readings of one series inside one window that has at least one reading.
#[derive(Clone, Debug, PartialEq)]
pub struct Window {
    /// First instant of the window, clipped to the asked range.
    pub start: Timestamp,
    /// First instant after the window, clipped to the asked range.
    pub stop: Timestamp,
    /// The figures of its readings.
    pub summary: Summary,
}

/// Count, sum, extremes and ends of a run of readings: enough for every windowed aggregate of this crate.
///
/// `sum`, `min` and `max` are `None` for strings; booleans count as 0 and 1 in `sum`.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// Number of readings, at least 1.
    pub count: u64,
    /// Sum: float for floats; integer sums wrap as in InfluxDB; the number of `true` for booleans.
    pub sum: Option<Value>,
    /// Smallest value. NaN cannot occur: it is refused when written.
    pub min: Option<Value>,
    /// Largest value.
    pub max: Option<Value>,
    /// Earliest reading.
    pub first: (Timestamp, Value),
    /// Latest reading.
    pub last: (Timestamp, Value),
}

impl Summary {
    /// The arithmetic mean, `None` for strings.
    #[must_use]
    pub fn mean(&self) -> Option<f64> {
        let sum = match self.sum.as_ref()? {
            Value::Float(v) => *v,
            Value::Integer(v) => *v as f64,
            Value::Unsigned(v) => *v as f64,
            Value::Boolean(v) => f64::from(u8::from(*v)),
            Value::String(_) => return None,
        };
        Some(sum / self.count as f64)
    }

    /// The figures of the readings `from..to` of a column; `None` when that is none.
    pub(crate) fn of(times: &[i64], values: &Values, from: usize, to: usize) -> Option<Self> {
        if from >= to {
            return None;
        }
        let (sum, min, max) = match values {
            Values::Float(v) => {
                let v = &v[from..to];
                let (mut sum, mut min, mut max) = (0.0, v[0], v[0]);
                for &x in v {
                    sum += x;
                    min = if x < min { x } else { min };
                    max = if x > max { x } else { max };
                }
                (Some(Value::Float(sum)), Some(Value::Float(min)), Some(Value::Float(max)))
            }
            Values::Integer(v) => {
                let v = &v[from..to];
                let sum = v.iter().fold(0i64, |a, &x| a.wrapping_add(x));
                (
                    Some(Value::Integer(sum)),
                    v.iter().min().map(|&x| Value::Integer(x)),
                    v.iter().max().map(|&x| Value::Integer(x)),
                )
            }
            Values::Unsigned(v) => {
                let v = &v[from..to];
                let sum = v.iter().fold(0u64, |a, &x| a.wrapping_add(x));
                (
                    Some(Value::Unsigned(sum)),
                    v.iter().min().map(|&x| Value::Unsigned(x)),
                    v.iter().max().map(|&x| Value::Unsigned(x)),
                )
            }
            Values::Boolean(v) => {
                let v = &v[from..to];
                let trues = v.iter().filter(|&&x| x).count();
                (
                    Some(Value::Unsigned(trues as u64)),
                    Some(Value::Boolean(trues == v.len())),
                    Some(Value::Boolean(trues > 0)),
                )
            }
            Values::String(_) => (None, None, None),
        };
        let at = |i: usize| (Timestamp::from_nanos(times[i]), values.get(i));
        Some(Self { count: (to - from) as u64, sum, min, max, first: at(from), last: at(to - 1) })
    }

    /// Takes in the figures of readings that are all later than these.
    pub(crate) fn append(&mut self, later: Self) {
        debug_assert!(later.first.0 >= self.last.0, "runs are joined in the order of time");
        self.count += later.count;
        self.sum = join(self.sum.take(), later.sum, |a, b| match (a, b) {
            (Value::Float(a), Value::Float(b)) => Value::Float(a + b),
            (Value::Integer(a), Value::Integer(b)) => Value::Integer(a.wrapping_add(b)),
            (Value::Unsigned(a), Value::Unsigned(b)) => Value::Unsigned(a.wrapping_add(b)),
            (a, _) => a,
        });
        self.min = join(self.min.take(), later.min, |a, b| if b.less_than(&a) { b } else { a });
        self.max = join(self.max.take(), later.max, |a, b| if a.less_than(&b) { b } else { a });
        self.last = later.last;
    }
}

fn join(a: Option<Value>, b: Option<Value>, with: impl FnOnce(Value, Value) -> Value) -> Option<Value> {
    match (a, b) {
        (Some(a), Some(b)) => Some(with(a, b)),
        (a, b) => a.or(b),
    }
}
