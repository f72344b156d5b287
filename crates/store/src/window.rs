//! Windows over a time range, and what is known of the readings inside one. Pure arithmetic.

use crate::error::{Error, Kind};
use crate::total::Total;
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

    /// Whether windows begin and end with hours since the epoch, the ends of the asked range aside.
    pub(crate) fn are_whole_hours(&self) -> bool {
        match &self.cut {
            Cut::Whole => true,
            Cut::Every { every, offset } => every % HOUR == 0 && offset % HOUR == 0,
            Cut::Bounds(bounds) => bounds.iter().all(|b| b % HOUR == 0),
        }
    }

    /// About how many windows lie between two times, for the memory of an answer.
    pub(crate) fn between(&self, t0: i64, t1: i64) -> usize {
        match &self.cut {
            Cut::Whole => 1,
            Cut::Every { every, .. } => (t1.saturating_sub(t0) / every) as usize + 2,
            Cut::Bounds(bounds) => bounds.len(),
        }
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
/// `min` and `max` are `None` for strings.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// Number of readings, at least 1.
    pub count: u64,
    pub(crate) total: Total,
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
    /// The exact sum: a float for floats, an integer of the field's type for integers, the number of `true` for
    /// booleans, `None` for strings. The sum of floats that are decimals with up to nine digits is rounded once.
    ///
    /// # Errors
    /// [`Error::is_overflow`] when the field's type cannot hold the sum. InfluxDB wraps such a sum around.
    ///
    /// ```
    /// # use graylogic_store::{Selector, Store, StoreOptions, TimeRange, Value, Windows, WriteOptions};
    /// # let folder = tempfile::tempdir()?;
    /// # let store = Store::open(folder.path(), StoreOptions::default())?;
    /// # store.create_bucket("b")?;
    /// let lines = b"m n=9223372036854775807i 1700000000000000000\nm n=1i 1700000000000000001";
    /// store.write_lines("b", lines, &WriteOptions::now())?;
    /// let found = store.windows(&Selector::bucket("b"), TimeRange::all(), &Windows::whole())?;
    /// let summary = &found[0].windows[0].summary;
    /// assert!(summary.sum().unwrap_err().is_overflow());
    /// assert_eq!(summary.mean()?, Some(4_611_686_018_427_387_904.0));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn sum(&self) -> Result<Option<Value>, Error> {
        self.total.value().map_err(|exact| self.overflow("sum", exact))
    }

    /// The arithmetic mean, computed from the exact sum; `None` for strings.
    ///
    /// # Errors
    /// [`Error::is_overflow`] when a float cannot hold the sum of floats.
    pub fn mean(&self) -> Result<Option<f64>, Error> {
        match self.total.mean(self.count) {
            Some(mean) if !mean.is_finite() => Err(self.overflow("mean", "it".to_owned())),
            mean => Ok(mean),
        }
    }

    fn overflow(&self, what: &str, exact: String) -> Error {
        let field_type = self.first.1.field_type();
        let (from, to) = (self.first.0, self.last.0);
        Error::new(
            Kind::Overflow,
            format!(
                "{what} of {} values from {from} to {to}: {exact} does not fit into type {field_type}; query shorter windows",
                self.count
            ),
        )
    }

    /// Whether two summaries say the same as far as the disk keeps it: sums of integers modulo 2^64.
    pub(crate) fn same_on_disk(&self, other: &Self) -> bool {
        let total = self.total.stored();
        *self == Self { total: self.total, ..other.clone() } && total == other.total.stored()
    }

    /// The figures of the readings `from..to` of a column; `None` when that is none.
    pub(crate) fn of(times: &[i64], values: &Values, from: usize, to: usize) -> Option<Self> {
        Fold::of(times, values, from, to).map(Fold::finish)
    }
}

/// Figures on their way to a [`Summary`]. Sums of integers and of decimal floats are kept exactly, so that it does not
/// matter in which pieces a window was added up: readings, chunks and hours give the same bits.
#[derive(Clone, Debug)]
pub(crate) struct Fold {
    count: u64,
    sum: Partial,
    min: Option<Value>,
    max: Option<Value>,
    first: (i64, Value),
    last: (i64, Value),
}

/// A sum that is being added up.
#[derive(Clone, Copy, Debug)]
enum Partial {
    /// Decimals as multiples of 10^-9, and the sum of the floats that are not decimals.
    Float { exact: i128, rest: f64 },
    /// Any other sum.
    Other(Total),
}

/// Values of a chunk as its readers fold them.
pub(crate) enum Column<'a> {
    /// `(min + offset) / 10^digits`.
    Decimal {
        digits: u8,
        min: i64,
        offsets: &'a [u32],
    },
    Values(&'a Values),
}

impl Fold {
    /// Of the readings `from..to`; `None` when that is none.
    pub(crate) fn of(times: &[i64], values: &Values, from: usize, to: usize) -> Option<Self> {
        Self::of_column(times, &Column::Values(values), from, to)
    }

    pub(crate) fn of_column(times: &[i64], values: &Column<'_>, from: usize, to: usize) -> Option<Self> {
        if from >= to {
            return None;
        }
        let (sum, min, max) = match values {
            Column::Decimal { digits, min, offsets } => decimal_figures(*digits, *min, &offsets[from..to]),
            Column::Values(Values::Float(v)) => float_figures(&v[from..to]),
            Column::Values(Values::Integer(v)) => {
                let v = &v[from..to];
                let sum = v.iter().map(|&x| i128::from(x)).sum();
                let (min, max) = (v.iter().min(), v.iter().max());
                (
                    Partial::Other(Total::Integer(sum)),
                    min.map(|&x| Value::Integer(x)),
                    max.map(|&x| Value::Integer(x)),
                )
            }
            Column::Values(Values::Unsigned(v)) => {
                let v = &v[from..to];
                let sum = v.iter().map(|&x| i128::from(x)).sum();
                let (min, max) = (v.iter().min(), v.iter().max());
                (
                    Partial::Other(Total::Unsigned(sum)),
                    min.map(|&x| Value::Unsigned(x)),
                    max.map(|&x| Value::Unsigned(x)),
                )
            }
            Column::Values(Values::Boolean(v)) => {
                let v = &v[from..to];
                let trues = v.iter().filter(|&&x| x).count();
                let all = Value::Boolean(trues == v.len());
                (Partial::Other(Total::Unsigned(trues as i128)), Some(all), Some(Value::Boolean(trues > 0)))
            }
            Column::Values(Values::String(_)) => (Partial::Other(Total::None), None, None),
        };
        let at = |i: usize| {
            let value = match values {
                Column::Decimal { digits, min, offsets } => Value::Float(decimal(*digits, *min, offsets[i])),
                Column::Values(values) => values.get(i),
            };
            (times[i], value)
        };
        Some(Self { count: (to - from) as u64, sum, min, max, first: at(from), last: at(to - 1) })
    }

    /// Takes in the figures of readings that are all later than these.
    pub(crate) fn append(&mut self, later: Self) {
        debug_assert!(later.first.0 >= self.last.0, "runs are joined in the order of time");
        self.count += later.count;
        self.sum = match (self.sum, later.sum) {
            (Partial::Float { exact: a, rest: x }, Partial::Float { exact: b, rest: y }) => {
                Partial::Float { exact: a.saturating_add(b), rest: x + y }
            }
            (Partial::Other(a), Partial::Other(b)) => Partial::Other(a.plus(b)),
            (a, _) => a,
        };
        self.min = join(self.min.take(), later.min, |a, b| if b.less_than(&a) { b } else { a });
        self.max = join(self.max.take(), later.max, |a, b| if a.less_than(&b) { b } else { a });
        self.last = later.last;
    }

    pub(crate) fn finish(self) -> Summary {
        let at = |(t, v): (i64, Value)| (Timestamp::from_nanos(t), v);
        let total = match self.sum {
            Partial::Float { exact, rest } => Total::Float(exact_sum(exact, rest)),
            Partial::Other(total) => total,
        };
        Summary {
            count: self.count,
            total,
            min: self.min,
            max: self.max,
            first: at(self.first),
            last: at(self.last),
        }
    }
}

impl From<Summary> for Fold {
    fn from(s: Summary) -> Self {
        let sum = match s.total {
            Total::Float(v) => match as_nanos_of_unit(v) {
                Some(exact) => Partial::Float { exact, rest: 0.0 },
                None => Partial::Float { exact: 0, rest: v },
            },
            total => Partial::Other(total),
        };
        let at = |(t, v): (Timestamp, Value)| (t.as_nanos(), v);
        Self { count: s.count, sum, min: s.min, max: s.max, first: at(s.first), last: at(s.last) }
    }
}

/// Length of an hour in nanoseconds.
const HOUR: i64 = 3_600_000_000_000;

/// Most decimal digits a float is taken for a decimal with.
pub(crate) const DIGITS_MAX: usize = 9;
pub(crate) const POWERS: [f64; DIGITS_MAX + 1] = [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9];
/// Up to here an `f64` holds every integer.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;

/// The value of a decimal chunk's column.
#[inline]
pub(crate) fn decimal(digits: u8, min: i64, offset: u32) -> f64 {
    min.wrapping_add(i64::from(offset)) as f64 / POWERS[usize::from(digits)]
}

/// A float as an integer of `digits` decimals, when dividing gives back every bit.
#[inline]
pub(crate) fn scaled(v: f64, digits: usize) -> Option<i64> {
    let scaled = (v * POWERS[digits]).round();
    if scaled.abs() >= EXACT_MAX {
        return None;
    }
    // Through the integer, which is what is stored: it has no -0.0.
    let scaled = scaled as i64;
    (scaled as f64 / POWERS[digits]).to_bits().eq(&v.to_bits()).then_some(scaled)
}

/// 10 to the number of digits that are missing to nine.
fn up_to_nine(digits: usize) -> i128 {
    10i128.pow((DIGITS_MAX - digits) as u32)
}

/// A decimal float as multiples of 10^-9.
fn as_nanos_of_unit(v: f64) -> Option<i128> {
    (0..=DIGITS_MAX).find_map(|digits| Some(i128::from(scaled(v, digits)?) * up_to_nine(digits)))
}

fn exact_sum(mut exact: i128, rest: f64) -> f64 {
    // With the fewest digits: an integer below 2^53 divided once is rounded once.
    let mut digits = DIGITS_MAX;
    let exact = if let Ok(mut small) = i64::try_from(exact) {
        while digits > 0 && small % 10 == 0 {
            small /= 10;
            digits -= 1;
        }
        small as f64 / POWERS[digits]
    } else {
        while digits > 0 && exact % 10 == 0 {
            exact /= 10;
            digits -= 1;
        }
        exact as f64 / POWERS[digits]
    };
    // Of nothing but -0.0 the sum is -0.0.
    if rest == 0.0 && exact != 0.0 { exact } else { exact + rest }
}

fn float_figures(v: &[f64]) -> (Partial, Option<Value>, Option<Value>) {
    let (mut exact, mut rest) = (0i128, 0.0f64);
    let (mut min, mut max) = (v[0], v[0]);
    // Neighbours mostly have as many digits.
    let mut digits = 0;
    for &x in v {
        let found = match scaled(x, digits) {
            Some(s) => Some(i128::from(s) * up_to_nine(digits)),
            None => match (0..=DIGITS_MAX).find(|&d| scaled(x, d).is_some()) {
                Some(d) => {
                    digits = d;
                    scaled(x, d).map(|s| i128::from(s) * up_to_nine(d))
                }
                None => None,
            },
        };
        match found {
            Some(s) => exact += s,
            None => rest += x,
        }
        min = if x < min { x } else { min };
        max = if x > max { x } else { max };
    }
    (Partial::Float { exact, rest }, Some(Value::Float(min)), Some(Value::Float(max)))
}

fn decimal_figures(digits: u8, min: i64, offsets: &[u32]) -> (Partial, Option<Value>, Option<Value>) {
    let (mut sum, mut low, mut high) = (0u64, u32::MAX, 0u32);
    for &x in offsets {
        sum += u64::from(x);
        low = low.min(x);
        high = high.max(x);
    }
    let exact = i128::from(min) * offsets.len() as i128 + i128::from(sum);
    let exact = exact * up_to_nine(usize::from(digits));
    let value = |offset| Some(Value::Float(decimal(digits, min, offset)));
    (Partial::Float { exact, rest: 0.0 }, value(low), value(high))
}

fn join(a: Option<Value>, b: Option<Value>, with: impl FnOnce(Value, Value) -> Value) -> Option<Value> {
    match (a, b) {
        (Some(a), Some(b)) => Some(with(a, b)),
        (a, b) => a.or(b),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_of_decimals_do_not_depend_on_their_pieces() {
        let v: Vec<f64> = (0..1000).map(|i| f64::from((i * 7919) % 2003 - 1000) / 10.0).collect();
        let times: Vec<i64> = (0..1000).collect();
        let values = Values::Float(v.clone());
        let whole = Summary::of(&times, &values, 0, 1000).unwrap();
        for piece in [1usize, 7, 360, 999] {
            let mut fold = Fold::of(&times, &values, 0, piece).unwrap();
            let mut from = piece;
            while from < 1000 {
                let to = (from + piece).min(1000);
                // Through a summary, as chunks and hours are kept.
                fold.append(Fold::from(Summary::of(&times, &values, from, to).unwrap()));
                from = to;
            }
            assert_eq!(fold.finish(), whole, "in pieces of {piece}");
        }
        let exact: i64 = v.iter().map(|x| (x * 10.0).round() as i64).sum();
        assert_eq!(whole.sum().unwrap(), Some(Value::Float(exact as f64 / 10.0)));
        let odd = Values::Float(vec![-0.0, -0.0]);
        let sum = Summary::of(&[0, 1], &odd, 0, 2).unwrap().sum().unwrap().unwrap();
        assert_eq!(sum.as_f64().unwrap(), 0.0);
        let wild = Values::Float(vec![1e300, 0.1, 1.0 / 3.0]);
        assert_eq!(Summary::of(&[0, 1, 2], &wild, 0, 3).unwrap().sum().unwrap(), Some(Value::Float(1e300)));
    }
}
