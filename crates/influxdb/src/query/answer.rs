//! An answer on its way: readers add values series by series in whatever order a target sends them; what comes out is
//! the one form of an answer. Order, cutting, filling and limits are decided here and nowhere else.

use super::{CheckedQuery, Fill, QuerySeries, Shape, Windows, is_number};
use crate::error::Error;
use graylogic_line::Timestamp;
use graylogic_store::Value;
use std::collections::BTreeMap;

/// Values of an answer, filled ones included.
pub(super) const VALUES_MAX: usize = 10_000_000;
/// Series of an answer.
const SERIES_MAX: usize = 100_000;

/// The answer so far.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    /// Where the series with these tags and this field is.
    places: BTreeMap<(Vec<(String, String)>, String), usize>,
    series: Vec<Vec<(i64, Value)>>,
    values: usize,
}

impl Answer {
    /// The place of a series, for [`Answer::add`]; `None` when the question does not mean it. Tags with the empty value
    /// are no tags.
    pub(crate) fn series(
        &mut self,
        query: &CheckedQuery,
        mut tags: Vec<(String, String)>,
        field: &str,
    ) -> Result<Option<usize>, Error> {
        tags.retain(|(_, value)| !value.is_empty());
        tags.sort();
        let named = query.fields.is_empty() || query.fields.iter().any(|f| f == field);
        if !named || !query.means(&tags) {
            return Ok(None);
        }
        let next = self.series.len();
        let place = *self.places.entry((tags, field.to_owned())).or_insert(next);
        if place == next {
            if next == SERIES_MAX {
                let message =
                    format!("the answer has more than {SERIES_MAX} series: ask for fewer tags or fields");
                return Err(query.failed(&message));
            }
            self.series.push(Vec::new());
        }
        Ok(Some(place))
    }

    /// A reading, or the value of the window that starts at `time`. Of several with one time the last one added counts.
    pub(crate) fn add(
        &mut self,
        query: &CheckedQuery,
        place: usize,
        time: i64,
        value: Value,
    ) -> Result<(), Error> {
        self.values += 1;
        if self.values > VALUES_MAX {
            return Err(too_many(query));
        }
        self.series[place].push((time, value));
        Ok(())
    }

    /// The answer in its one form.
    pub(crate) fn finish(mut self, query: &CheckedQuery) -> Result<Vec<QuerySeries>, Error> {
        let mut found = Vec::new();
        let mut values = 0;
        for ((tags, field), place) in std::mem::take(&mut self.places) {
            let mut sorted = std::mem::take(&mut self.series[place]);
            put_in_order(query, &mut sorted);
            if sorted.is_empty() {
                continue;
            }
            if let Shape::Windows { windows, fill, .. } = query.shape {
                sorted = filled(query, windows, fill, sorted)?;
            }
            let limit = query.limit.unwrap_or(usize::MAX);
            if query.descending {
                sorted.reverse();
            }
            sorted.truncate(limit);
            values += sorted.len();
            if values > VALUES_MAX {
                return Err(too_many(query));
            }
            let values = sorted.into_iter().map(|(t, v)| (Timestamp::from_nanos(t), v)).collect();
            found.push(QuerySeries { measurement: query.measurement.clone(), tags, field, values });
        }
        Ok(found)
    }
}

/// By time, inside the range, one value for each time; of the newest reading only that.
fn put_in_order(query: &CheckedQuery, values: &mut Vec<(i64, Value)>) {
    let (start, stop) = (query.start(), query.stop());
    if matches!(query.shape, Shape::Windows { .. }) {
        // The first window begins with the range, whether the target says so or not.
        for (time, _) in values.iter_mut() {
            *time = (*time).max(start);
        }
    }
    values.retain(|&(time, _)| start <= time && time < stop);
    values.sort_by_key(|&(time, _)| time);
    // Of equal times the one added last.
    values.reverse();
    values.dedup_by_key(|&mut (time, _)| time);
    if query.shape == Shape::Latest {
        values.truncate(1);
    }
    values.reverse();
}

fn filled(
    query: &CheckedQuery,
    windows: Windows,
    fill: Fill,
    values: Vec<(i64, Value)>,
) -> Result<Vec<(i64, Value)>, Error> {
    let Some((_, like)) = values.first() else { return Ok(values) };
    let of = like.field_type();
    let constant = match fill {
        Fill::None => return Ok(values),
        Fill::Linear if !is_number(of) => {
            return Err(query.failed(&format!(
                "a series of type {of:?} has no values between others: fill it with the previous one"
            )));
        }
        Fill::Previous | Fill::Linear => None,
        Fill::Value(v) => Some(in_type_of(query, v, like)?),
    };
    let mut all = Vec::with_capacity(values.len());
    let mut values = values.into_iter().peekable();
    // The last one that is not filled.
    let mut before: Option<(i64, Value)> = None;
    let (mut start, stop) = (windows.start_of(query.start()), i128::from(query.stop()));
    // As many turns as the range has windows, which the check has bounded.
    while start < stop {
        let named = start.max(i128::from(query.start())) as i64;
        if let Some(found) = values.next_if(|&(time, _)| time == named) {
            before = Some(found.clone());
            all.push(found);
        } else {
            let value = match (fill, &before) {
                (Fill::Previous, Some((_, value))) => Some(value.clone()),
                (Fill::Linear, Some(before)) => values.peek().and_then(|after| between(before, after, named)),
                _ => constant.clone(),
            };
            all.extend(value.map(|value| (named, value)));
        }
        start += i128::from(windows.every);
    }
    if values.peek().is_some() {
        return Err(
            query.failed("the server cut the windows differently: a window does not begin where it should")
        );
    }
    Ok(all)
}

/// The value at `time` on the straight line between two of a series; the times are in order.
fn between((from, a): &(i64, Value), (to, b): &(i64, Value), time: i64) -> Option<Value> {
    let span = |from: i64, to: i64| (i128::from(to) - i128::from(from)) as f64;
    let share = span(*from, time) / span(*from, *to);
    let whole = |a: i128, b: i128| {
        let moved = ((b - a) as f64 * share).round() as i128;
        (a + moved).clamp(a.min(b), a.max(b))
    };
    Some(match (a, b) {
        // Two halves, because the distance of two floats may be none.
        (Value::Float(a), Value::Float(b)) if a != b => Value::Float(a * (1.0 - share) + b * share),
        (Value::Float(a), Value::Float(_)) => Value::Float(*a),
        (Value::Integer(a), Value::Integer(b)) => Value::Integer(whole((*a).into(), (*b).into()) as i64),
        (Value::Unsigned(a), Value::Unsigned(b)) => Value::Unsigned(whole((*a).into(), (*b).into()) as u64),
        _ => return None,
    })
}

/// A number in the type of a value.
fn in_type_of(query: &CheckedQuery, number: f64, like: &Value) -> Result<Value, Error> {
    let whole = number.fract() == 0.0;
    let value = match like {
        Value::Float(_) => Some(Value::Float(number)),
        // Above 2^63 the casts would saturate.
        Value::Integer(_) if whole && number.abs() < 9.2e18 => Some(Value::Integer(number as i64)),
        Value::Unsigned(_) if whole && (0.0..1.8e19).contains(&number) => {
            Some(Value::Unsigned(number as u64))
        }
        _ => None,
    };
    value.ok_or_else(|| {
        let of = like.field_type();
        query.failed(&format!(
            "the fill {number} does not fit a series of type {of:?}: give a value of that type"
        ))
    })
}

pub(super) fn too_many(query: &CheckedQuery) -> Error {
    query.failed(&format!(
        "the answer has more than {VALUES_MAX} values: ask for a shorter range, longer windows or fewer series"
    ))
}
