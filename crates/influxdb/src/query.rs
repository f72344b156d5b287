//! Typed questions: the builder, what a checked question is, and the form every answer has. Knows nothing of languages
//! (`query/flux.rs` and its neighbours lower a question and read the answer) and nothing of HTTP.

mod answer;
mod ask;
mod dialogue;
mod earlier;
mod flux;
mod influxql;
mod metricsql;
mod server;
mod sql;
mod store;
mod trial;

pub use ask::Ask;
pub use dialogue::Dialogue;
pub(crate) use flux::string as flux_string;
pub(crate) use trial::try_query;

use crate::error::{Error, Kind};
use graylogic_line::{FieldType, Timestamp};
use graylogic_store::{TimeRange, Value};
use std::time::Duration;

/// So many tag values and field names one question may have: InfluxDB 2 refuses scripts with more operators.
const NAMES_MAX: usize = 100;
/// A question is answered within this time, unless it says otherwise.
const TIMEOUT: Duration = Duration::from_secs(60);
/// So many windows a range may have when empty ones are filled.
const FILLED_WINDOWS_MAX: i128 = 1_000_000;
/// Keys that no tag can have, because a target gives them another meaning.
const RESERVED_KEYS: [&str; 7] = ["time", "_time", "_measurement", "_field", "_value", "_start", "_stop"];

/// A question about one measurement, the same for every target.
///
/// Names and values are compared, never interpreted: an id cannot change what is asked. [`Query::check`] finds
/// contradictions; the client does that before asking.
///
/// ```
/// use graylogic_influxdb::{Aggregate, Client, Config, Fill, Level, Query, Timestamp};
/// use std::time::Duration;
///
/// let folder = tempfile::tempdir()?;
/// let client = Client::connect(&Config::embedded(folder.path()))?;
/// let minute = |n: i64| Timestamp::from_nanos((1_700_000_100 + n * 60) * 1_000_000_000);
/// for (n, watts) in [(0, 100.0), (1, 300.0), (10, 50.0)] {
///     client.write_energy_metric_at("hvac-main", watts, None, minute(n))?;
/// }
/// client.flush(Level::Durable, Duration::from_secs(5))?;
///
/// let power = Query::measurement("energy").tag("device_id", "hvac-main").field("power_watts");
/// let windows = power
///     .clone()
///     .range(minute(0), minute(15))
///     .window(Duration::from_secs(300))
///     .aggregate(Aggregate::Mean)
///     .fill(Fill::Value(0.0));
/// let answer = client.ask(&windows)?;
/// let means: Vec<_> = answer[0].values.iter().filter_map(|(_, value)| value.as_f64()).collect();
/// assert_eq!(means, [200.0, 0.0, 50.0]);
///
/// // Without windows, one value of the whole range.
/// let peak = client.ask(&power.range(minute(0), minute(15)).aggregate(Aggregate::Max))?;
/// assert_eq!(peak[0].values[0].1.as_f64(), Some(300.0));
///
/// let newest = client.ask(&Query::measurement("energy").latest())?;
/// assert_eq!(newest[0].values[0].0, minute(10));
///
/// let contradiction = Query::measurement("energy").latest().fill(Fill::Previous);
/// assert!(client.ask(&contradiction).unwrap_err().is_query_failed());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # What is asked
/// - *Readings*: those of the range, when there is neither an aggregate nor [`Query::latest`].
/// - *An aggregate without windows*: one value for each series that has readings in the range, named by the start of the
///   range.
/// - *Windows*: one value for each window of the range that has readings. Windows are `[start, start + length)`, begin at
///   multiples of their length since the epoch plus the offset, and are cut by the range. A window is named by its start;
///   the first one, when the range begins inside it, by the start of the range.
/// - *Latest*: the newest reading of each series, of the range or of all time.
///
/// # Types
/// A count is unsigned, a mean is a float, other aggregates have the type of the field. Sum, mean, smallest and largest are
/// of numbers: a boolean or text field that is named is an error, one that is not named is left out.
///
/// # Bounds
/// An answer has at most 10 million values in 100,000 series; a larger one is an error that says so.
#[derive(Clone, Debug, PartialEq)]
pub struct Query {
    measurement: String,
    tags: Vec<TagTest>,
    fields: Vec<String>,
    range: Option<(Timestamp, Timestamp)>,
    window: Option<Duration>,
    offset: Option<Duration>,
    aggregate: Option<Aggregate>,
    fill: Option<Fill>,
    limit: Option<usize>,
    descending: bool,
    latest: bool,
    timeout: Duration,
}

/// A tag has one of these values; the empty one is that of series without the tag.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TagTest {
    pub(crate) key: String,
    pub(crate) values: Vec<String>,
}

/// How the readings of a window become one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Aggregate {
    /// How many.
    Count,
    /// Their sum.
    Sum,
    /// Their arithmetic mean.
    Mean,
    /// The smallest.
    Min,
    /// The largest.
    Max,
    /// The earliest.
    First,
    /// The latest.
    Last,
}

impl Aggregate {
    /// Whether it is of numbers only.
    pub(crate) fn needs_numbers(self) -> bool {
        matches!(self, Self::Sum | Self::Mean | Self::Min | Self::Max)
    }

    /// Its name in InfluxQL, Flux and SQL sentences of ours.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Count => "count",
            Self::Sum => "sum",
            Self::Mean => "mean",
            Self::Min => "min",
            Self::Max => "max",
            Self::First => "first",
            Self::Last => "last",
        }
    }
}

/// What stands for a window without readings, in series that have readings in the range.
///
/// Filling is done here, after the target has answered, so that it is the same for all of them.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub enum Fill {
    /// Nothing: such windows are not in the answer.
    #[default]
    None,
    /// The value of the window before; windows before the first reading are not in the answer.
    Previous,
    /// This value, in the type of the series; an error when that type cannot hold it.
    Value(f64),
    /// The value on the straight line between the windows before and after, rounded where the series is of whole numbers;
    /// of numbers only. Windows before the first reading and after the last are not in the answer.
    Linear,
}

/// A series of an answer.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct QuerySeries {
    /// The measurement.
    pub measurement: String,
    /// The tags in the order of their keys.
    pub tags: Vec<(String, String)>,
    /// The field.
    pub field: String,
    /// Readings, or the start of each window and its value; in the order of time, or against it when
    /// [`Query::descending`] says so.
    pub values: Vec<(Timestamp, Value)>,
}

/// The newest reading of a series.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct LatestValue {
    /// The measurement.
    pub measurement: String,
    /// The tags in the order of their keys.
    pub tags: Vec<(String, String)>,
    /// The field.
    pub field: String,
    /// Its time.
    pub time: Timestamp,
    /// Its value.
    pub value: Value,
}

impl Query {
    /// A question about every series of the measurement with this name.
    #[must_use]
    pub fn measurement(name: impl Into<String>) -> Self {
        Self {
            measurement: name.into(),
            tags: Vec::new(),
            fields: Vec::new(),
            range: None,
            window: None,
            offset: None,
            aggregate: None,
            fill: None,
            limit: None,
            descending: false,
            latest: false,
            timeout: TIMEOUT,
        }
    }

    /// Only series whose tag has this value. The empty value is that of series without the tag. Tests are joined by *and*.
    #[must_use]
    pub fn tag(self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.tag_in(key, [value.into()])
    }

    /// Only series whose tag has one of these values.
    #[must_use]
    pub fn tag_in<V: Into<String>>(
        mut self,
        key: impl Into<String>,
        values: impl IntoIterator<Item = V>,
    ) -> Self {
        let mut values: Vec<String> = values.into_iter().map(Into::into).collect();
        values.sort();
        values.dedup();
        self.tags.push(TagTest { key: key.into(), values });
        self
    }

    /// This field; given again, that one as well. Without, all fields.
    #[must_use]
    pub fn field(self, name: impl Into<String>) -> Self {
        self.fields([name.into()])
    }

    /// These fields as well.
    #[must_use]
    pub fn fields<F: Into<String>>(mut self, names: impl IntoIterator<Item = F>) -> Self {
        self.fields.extend(names.into_iter().map(Into::into));
        self.fields.sort();
        self.fields.dedup();
        self
    }

    /// Only readings from `start` up to but without `stop`.
    #[must_use]
    pub fn range(mut self, start: Timestamp, stop: Timestamp) -> Self {
        self.range = Some((start, stop));
        self
    }

    /// One value for each window of this length instead of one for the whole range. Needs an aggregate and a range.
    #[must_use]
    pub fn window(mut self, length: Duration) -> Self {
        self.window = Some(length);
        self
    }

    /// Moves the starts of the windows later.
    #[must_use]
    pub fn offset(mut self, offset: Duration) -> Self {
        self.offset = Some(offset);
        self
    }

    /// How the readings of a window become one value; without windows, those of the range.
    #[must_use]
    pub fn aggregate(mut self, aggregate: Aggregate) -> Self {
        self.aggregate = Some(aggregate);
        self
    }

    /// What stands for a window without readings.
    #[must_use]
    pub fn fill(mut self, fill: Fill) -> Self {
        self.fill = Some(fill);
        self
    }

    /// At most so many values of each series, after filling: the oldest, or with [`Query::descending`] the newest.
    #[must_use]
    pub fn limit(mut self, values: usize) -> Self {
        self.limit = Some(values);
        self
    }

    /// The newest value of each series first.
    #[must_use]
    pub fn descending(mut self) -> Self {
        self.descending = true;
        self
    }

    /// The newest reading of each series: of the range, or without one of all time.
    ///
    /// A server looks through all it keeps when there is no range: give one where that is much.
    #[must_use]
    pub fn latest(mut self) -> Self {
        self.latest = true;
        self
    }

    /// How long a server may take for the whole answer; a minute when nothing is said. The embedded store is waited for.
    #[must_use]
    pub fn timeout(mut self, time: Duration) -> Self {
        self.timeout = time;
        self
    }

    /// The question, when it has no contradiction.
    ///
    /// # Errors
    /// [`Error::is_query_failed`] with a sentence that names what is missing, too much or contradictory.
    pub fn check(&self) -> Result<CheckedQuery, Error> {
        self.check_names()?;
        let range = self.check_range()?;
        let shape = if self.latest {
            let beside = [
                ("a window", self.window.is_some()),
                ("an offset", self.offset.is_some()),
                ("an aggregate", self.aggregate.is_some()),
                ("a fill", self.fill.is_some()),
                ("a limit", self.limit.is_some()),
                ("an order", self.descending),
            ];
            if let Some((what, _)) = beside.iter().find(|(_, given)| *given) {
                return Err(self.wrong(&format!("latest is one reading of each series: leave out {what}")));
            }
            Shape::Latest
        } else {
            self.check_windows(range)?
        };
        if self.limit == Some(0) {
            return Err(self.wrong("a limit of 0 values asks for nothing: give at least 1"));
        }
        Ok(CheckedQuery {
            measurement: self.measurement.clone(),
            tags: self.tags.clone(),
            fields: self.fields.clone(),
            range,
            shape,
            limit: self.limit,
            descending: self.descending,
            timeout: self.timeout,
        })
    }

    fn check_names(&self) -> Result<(), Error> {
        if self.measurement.is_empty() {
            return Err(self.wrong("the measurement has no name: give it one"));
        }
        if self.fields.iter().any(String::is_empty) {
            return Err(self.wrong("a field has no name: give it one, or ask for all fields by naming none"));
        }
        for TagTest { key, values } in &self.tags {
            if key.is_empty() {
                return Err(self.wrong("a tag has no key: give it one"));
            }
            if RESERVED_KEYS.contains(&key.as_str()) {
                return Err(self.wrong(&format!("no series has a tag with the reserved key {key:?}")));
            }
            if values.is_empty() {
                return Err(self.wrong(&format!("no value is given for tag {key:?}: give at least one")));
            }
        }
        let names = self.fields.len() + self.tags.iter().map(|t| t.values.len()).sum::<usize>();
        if names > NAMES_MAX {
            let message = format!(
                "{names} tag values and fields are too many: give at most {NAMES_MAX}, and ask several times"
            );
            return Err(self.wrong(&message));
        }
        Ok(())
    }

    fn check_range(&self) -> Result<TimeRange, Error> {
        let (start, stop) = match self.range {
            Some((start, stop)) if start < stop => (start, stop),
            Some((start, stop)) => {
                return Err(self.wrong(&format!(
                    "the range from {start} to {stop} is empty: let it end after it starts"
                )));
            }
            None if self.latest => (Timestamp::MIN, Timestamp::MAX),
            None => return Err(self.wrong("there is no range: give a start and a stop")),
        };
        // What no target stores is in no answer.
        let storable = |t: Timestamp| t.clamp(Timestamp::MIN, Timestamp::MAX);
        if storable(start) == storable(stop) {
            return Err(self.wrong(&format!(
                "the range from {start} to {stop} holds no time that a target stores: give one between {} and {}",
                Timestamp::MIN,
                Timestamp::MAX
            )));
        }
        Ok(TimeRange::new(storable(start), storable(stop)))
    }

    fn check_windows(&self, range: TimeRange) -> Result<Shape, Error> {
        let Some(length) = self.window else {
            return self.check_without_windows(range);
        };
        let Some(aggregate) = self.aggregate else {
            return Err(self.wrong("windows need an aggregate: say how their readings become one value"));
        };
        let nanos = |d: Duration| i64::try_from(d.as_nanos()).ok();
        let Some(every) = nanos(length).filter(|&n| n > 0) else {
            let message =
                format!("windows of {length:?}: give a length of at least 1 ns and below 292 years");
            return Err(self.wrong(&message));
        };
        let Some(offset) = nanos(self.offset.unwrap_or_default()) else {
            return Err(self.wrong("the offset of the windows is above 292 years: give a shorter one"));
        };
        let windows = Windows { every, offset: offset.rem_euclid(every) };
        let fill = self.fill.unwrap_or_default();
        if let Fill::Value(v) = fill
            && !v.is_finite()
        {
            return Err(self.wrong(&format!("no series can hold the fill {v}: give a finite number")));
        }
        if fill != Fill::None && windows.count(range) > FILLED_WINDOWS_MAX {
            let message = format!(
                "to fill them, the range has too many windows: give a shorter one, or longer windows, so that there are at \
                 most {FILLED_WINDOWS_MAX}"
            );
            return Err(self.wrong(&message));
        }
        Ok(Shape::Windows { windows, aggregate, fill })
    }

    fn check_without_windows(&self, range: TimeRange) -> Result<Shape, Error> {
        let needing =
            [("a fill", self.fill.is_some_and(|f| f != Fill::None)), ("an offset", self.offset.is_some())];
        if let Some((what, _)) = needing.iter().find(|(_, given)| *given) {
            return Err(self.wrong(&format!("{what} needs windows: give their length")));
        }
        let Some(aggregate) = self.aggregate else { return Ok(Shape::Readings) };
        let Some(windows) = Windows::of_one(range.start().as_nanos(), range.stop().as_nanos()) else {
            return Err(self.wrong("an aggregate of more than 292 years: give a shorter range"));
        };
        Ok(Shape::Windows { windows, aggregate, fill: Fill::None })
    }

    fn wrong(&self, why: &str) -> Error {
        Error::new(Kind::QueryFailed, format!("query {:?}: {why}", abbreviated(&self.measurement)))
    }
}

/// A question without contradictions. A [`Dialogue`] puts it to a server; the client puts it to the embedded store.
#[derive(Clone, Debug)]
pub struct CheckedQuery {
    pub(crate) measurement: String,
    pub(crate) tags: Vec<TagTest>,
    /// In the order of their names; none means all.
    pub(crate) fields: Vec<String>,
    /// Never empty, and of storable times.
    pub(crate) range: TimeRange,
    pub(crate) shape: Shape,
    /// Values of each series; at least 1.
    pub(crate) limit: Option<usize>,
    pub(crate) descending: bool,
    pub(crate) timeout: Duration,
}

/// What is asked of each series.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Shape {
    Readings,
    Windows { windows: Windows, aggregate: Aggregate, fill: Fill },
    Latest,
}

/// Windows of `every` ns that begin at multiples of it plus `offset`, which is below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Windows {
    pub(crate) every: i64,
    pub(crate) offset: i64,
}

impl Windows {
    /// Windows of which one is `[start, stop)`, which is not empty; none when it is longer than a window can be.
    pub(crate) fn of_one(start: i64, stop: i64) -> Option<Self> {
        let every = stop.checked_sub(start)?;
        Some(Self { every, offset: start.rem_euclid(every) })
    }

    /// Start of the window that holds `time`, in i128 because that of the first window of all time is no i64.
    pub(crate) fn start_of(self, time: i64) -> i128 {
        let (every, offset) = (i128::from(self.every), i128::from(self.offset));
        (i128::from(time) - offset).div_euclid(every) * every + offset
    }

    /// How many windows a range touches.
    pub(crate) fn count(self, range: TimeRange) -> i128 {
        let (start, stop) = (range.start().as_nanos(), range.stop().as_nanos());
        (self.start_of(stop - 1) - self.start_of(start)) / i128::from(self.every) + 1
    }
}

impl CheckedQuery {
    pub(crate) fn start(&self) -> i64 {
        self.range.start().as_nanos()
    }

    pub(crate) fn stop(&self) -> i64 {
        self.range.stop().as_nanos()
    }

    /// Whether its range leaves nothing out.
    pub(crate) fn is_of_all_time(&self) -> bool {
        self.range == TimeRange::new(Timestamp::MIN, Timestamp::MAX)
    }

    /// Whether its range is one of these windows, whole.
    pub(crate) fn is_of_one_window(&self, windows: Windows) -> bool {
        Windows::of_one(self.start(), self.stop()) == Some(windows)
    }

    /// The aggregate of its windows, when it has some.
    pub(crate) fn aggregate(&self) -> Option<Aggregate> {
        match self.shape {
            Shape::Windows { aggregate, .. } => Some(aggregate),
            Shape::Readings | Shape::Latest => None,
        }
    }

    /// Whether a series with these tags is meant.
    pub(crate) fn means(&self, tags: &[(String, String)]) -> bool {
        self.tags.iter().all(|test| {
            let value = tags.iter().find(|(k, _)| *k == test.key).map_or("", |(_, v)| v.as_str());
            test.values.iter().any(|v| v == value)
        })
    }

    /// How many values of a series the target need not send more than; `None` when windows are filled, because an empty
    /// one counts.
    pub(crate) fn sent_max(&self) -> Option<usize> {
        match self.shape {
            Shape::Windows { fill: Fill::Previous | Fill::Value(_) | Fill::Linear, .. } | Shape::Latest => {
                None
            }
            // More than an answer may have is no limit, and none that every language can say.
            Shape::Windows { fill: Fill::None, .. } | Shape::Readings => {
                self.limit.filter(|&values| values <= answer::VALUES_MAX)
            }
        }
    }

    /// A named field whose readings have no such aggregate.
    pub(crate) fn not_numeric(&self, field: &str) -> Error {
        let aggregate = self.aggregate().map_or("aggregate", Aggregate::name);
        let field = abbreviated(field);
        self.failed(&format!(
            "field {field:?} has no {aggregate} because it holds no numbers: ask for its count, first or last"
        ))
    }

    /// A question that a language cannot put.
    pub(crate) fn unsupported(&self, why: &str) -> Error {
        Error::new(Kind::Unsupported, format!("query {:?}: {why}", abbreviated(&self.measurement)))
    }

    /// A failure to answer this question.
    pub(crate) fn failed(&self, why: &str) -> Error {
        Error::new(Kind::QueryFailed, format!("query {:?}: {why}", abbreviated(&self.measurement)))
    }
}

/// Whether values of this type can be added up.
pub(crate) fn is_number(of: FieldType) -> bool {
    matches!(of, FieldType::Float | FieldType::Integer | FieldType::Unsigned)
}

/// The beginning of a name or text, for a message.
pub(crate) fn abbreviated(text: &str) -> &str {
    const QUOTED_BYTES_MAX: usize = 200;
    let mut end = text.len().min(QUOTED_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}
