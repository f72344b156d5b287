//! A typed query in Flux, for `/api/v2/query` of InfluxDB 2: one script, or several when string fields may be among what is
//! asked for. Reading the annotated CSV of the answers is `annotated_csv.rs`'s.
//!
//! InfluxDB 2.8 loses an empty string that is the first value to differ from the equal ones before it: later values come with
//! wrong times, or the server panics. So a column of strings is never asked for as it is: empty strings and others are asked for
//! apart, neither of which has such a place, and put together here. Which fields hold strings is asked for first, by the
//! latest reading of each series: a column of one value is safe.

use super::answer::{Answer, VALUES_MAX, too_many};
use super::ask::Ask;
use super::{Aggregate, CheckedQuery, Shape};
use crate::error::Error;
use crate::flux::annotated_csv::FluxReader;
use crate::flux::ending::Ending;
use crate::flux::table::{FluxItem, FluxRecord, FluxType, FluxValue};
use graylogic_line::Timestamp;
use graylogic_store::Value;
use serde_json::json;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write as _;

#[derive(Debug)]
pub(crate) struct Flux {
    org: String,
    bucket: String,
    /// What is still to be asked for.
    parts: VecDeque<Part>,
    /// What the present answer is of.
    part: Part,
    reader: FluxReader,
    ending: Ending,
    /// The place of the table's series in the answer, once its first row came; `Some(None)` when it is not asked for.
    place: Option<Option<usize>>,
    /// Fields that hold strings, and fields that hold something else.
    strings: BTreeSet<String>,
    others: BTreeSet<String>,
    /// Windows of strings, from the parts that have come: the place of the series and the start of the window, and in it the
    /// time of the value.
    windows: BTreeMap<(usize, i64), (i64, Value)>,
}

/// A part of what a query asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// The latest reading of each series, for its type.
    Types,
    /// Everything but string fields.
    Plain,
    /// Empty strings.
    Empty,
    /// Strings that are not empty.
    NotEmpty,
}

impl Flux {
    pub(crate) fn new(query: &CheckedQuery, org: &str, bucket: &str) -> Self {
        let first = if may_meet_strings(query) { Part::Types } else { Part::Plain };
        Self {
            org: org.to_owned(),
            bucket: bucket.to_owned(),
            parts: VecDeque::from([first]),
            part: first,
            reader: FluxReader::new(),
            ending: Ending::default(),
            place: None,
            strings: BTreeSet::new(),
            others: BTreeSet::new(),
            windows: BTreeMap::new(),
        }
    }

    pub(crate) fn next_ask(&mut self, query: &CheckedQuery) -> Option<Ask> {
        self.part = self.parts.pop_front()?;
        (self.reader, self.ending, self.place) = (FluxReader::new(), Ending::default(), None);
        let body = json!({
            "query": self.script(query),
            "type": "flux",
            "dialect": { "header": true, "delimiter": ",", "annotations": ["datatype", "group", "default"] },
        });
        Some(Ask {
            path: "/api/v2/query",
            query: vec![("org", self.org.clone())],
            body: body.to_string().into_bytes(),
            content_type: "application/json",
            accept: "application/csv",
        })
    }

    pub(crate) fn feed(
        &mut self,
        bytes: &[u8],
        query: &CheckedQuery,
        answer: &mut Answer,
    ) -> Result<(), Error> {
        self.ending.feed(bytes);
        self.reader.feed(bytes)?;
        self.read(query, answer)
    }

    pub(crate) fn end(&mut self, query: &CheckedQuery, answer: &mut Answer) -> Result<(), Error> {
        self.reader.finish();
        self.read(query, answer)?;
        // An answer without series is an empty line.
        if !self.ending.is_whole() {
            return Err(query.failed("the answer to Flux has no end: it did not come whole").retryable(true));
        }
        if self.part == Part::Types {
            let numbers_only = query.aggregate().is_some_and(Aggregate::needs_numbers);
            if !self.others.is_empty() {
                self.parts.push_back(Part::Plain);
            }
            if !self.strings.is_empty() && !numbers_only {
                self.parts.extend([Part::Empty, Part::NotEmpty]);
            }
        }
        if self.parts.is_empty() {
            for ((place, start), (_, value)) in std::mem::take(&mut self.windows) {
                answer.add(query, place, start, value)?;
            }
        }
        Ok(())
    }

    fn read(&mut self, query: &CheckedQuery, answer: &mut Answer) -> Result<(), Error> {
        while let Some(item) = self.reader.next_item()? {
            match item {
                FluxItem::Table(_) => self.place = None,
                FluxItem::Record(row) if self.part == Part::Types => self.note_type(&row, query),
                FluxItem::Record(row) => self.row(&row, query, answer)?,
            }
        }
        Ok(())
    }

    /// A field that has other values as well is no string field.
    fn note_type(&mut self, row: &FluxRecord, query: &CheckedQuery) {
        let value = row.columns().iter().find(|column| column.name() == "_value");
        let (Some(field), Some(value)) = (row.field(), value) else { return };
        // As it is asked for: CSV makes one line end of CR LF.
        let asked = query.fields.iter().find(|asked| asked.replace("\r\n", "\n") == field);
        let field = asked.map_or(field, String::as_str);
        if value.datatype() != FluxType::String {
            self.strings.remove(field);
            self.others.insert(field.to_owned());
        } else if !self.others.contains(field) {
            self.strings.insert(field.to_owned());
        }
    }

    fn row(&mut self, row: &FluxRecord, query: &CheckedQuery, answer: &mut Answer) -> Result<(), Error> {
        // The first two columns are the answer's own; tags may have their names.
        let mut cells = row.columns().iter().zip(row.values()).skip(2);
        let place = match self.place {
            Some(place) => place,
            None => {
                let field = row
                    .field()
                    .ok_or_else(|| query.failed("the answer to Flux has a table without a field"))?;
                let own = ["_start", "_stop", "_measurement", "_field"];
                let tags = cells.clone().filter(|(c, _)| c.is_group() && !own.contains(&c.name()));
                let tags = tags.filter_map(|(c, v)| Some((c.name().to_owned(), v.as_str()?.to_owned())));
                let is_asked = self.part == Part::Plain || self.strings.contains(field);
                let is_asked = is_asked && (self.part != Part::Plain || !self.strings.contains(field));
                let place = if is_asked { answer.series(query, tags.collect(), field)? } else { None };
                *self.place.insert(place)
            }
        };
        let Some(at) = place else { return Ok(()) };
        let time = row.time().ok_or_else(|| query.failed("the answer to Flux has a row without a time"))?;
        let value = cells.find(|(c, _)| c.name() == "_value");
        let (column, value) =
            value.ok_or_else(|| query.failed("the answer to Flux has a row without a value"))?;
        // Nothing is no value: a window without readings, where a server shows them.
        let Some(mut value) = value_of(value, column.datatype()) else { return Ok(()) };
        if let (Some(Aggregate::Count), Value::Integer(count)) = (query.aggregate(), &value) {
            value = Value::Unsigned(count.unsigned_abs());
        }
        let fits = match (self.part, &value) {
            (Part::Empty, Value::String(text)) => text.is_empty(),
            (Part::NotEmpty, Value::String(text)) => !text.is_empty(),
            _ => true,
        };
        match query.shape {
            _ if !fits => Ok(()),
            Shape::Windows { windows, aggregate, .. } if self.part != Part::Plain => {
                let start = windows.start_of(time.as_nanos()).clamp(i64::MIN.into(), i64::MAX.into()) as i64;
                self.add_to_window(query, aggregate, (at, start), (time.as_nanos(), value))
            }
            _ => answer.add(query, at, time.as_nanos(), value),
        }
    }

    /// A value of a window of a string field, which the other part may have a value of as well.
    fn add_to_window(
        &mut self,
        query: &CheckedQuery,
        aggregate: Aggregate,
        window: (usize, i64),
        found: (i64, Value),
    ) -> Result<(), Error> {
        if self.windows.len() >= VALUES_MAX {
            return Err(too_many(query));
        }
        match self.windows.entry(window) {
            Entry::Vacant(none) => {
                none.insert(found);
            }
            Entry::Occupied(mut other) => match (aggregate, &found.1, &other.get().1) {
                (Aggregate::Count, Value::Unsigned(a), Value::Unsigned(b)) => {
                    let sum = Value::Unsigned(a.saturating_add(*b));
                    other.insert((found.0, sum));
                }
                (Aggregate::First, ..) if found.0 < other.get().0 => {
                    other.insert(found);
                }
                (Aggregate::Last, ..) if found.0 > other.get().0 => {
                    other.insert(found);
                }
                _ => {}
            },
        }
        Ok(())
    }
}

fn value_of(value: &FluxValue, of: FluxType) -> Option<Value> {
    Some(match value {
        FluxValue::Double(v) => Value::Float(*v),
        FluxValue::Long(v) => Value::Integer(*v),
        FluxValue::UnsignedLong(v) => Value::Unsigned(*v),
        FluxValue::Boolean(v) => Value::Boolean(*v),
        FluxValue::String(v) => Value::String(v.clone()),
        // The CSV has no other form of the empty text, and there are no readings without a value.
        FluxValue::Null if of == FluxType::String => Value::String("".into()),
        _ => return None,
    })
}

/// Whether what is asked for may hold a column of strings.
fn may_meet_strings(query: &CheckedQuery) -> bool {
    match query.shape {
        // One value for each series.
        Shape::Latest => false,
        Shape::Readings => true,
        Shape::Windows { aggregate, .. } => !aggregate.needs_numbers() || query.fields.is_empty(),
    }
}

impl Flux {
    fn script(&self, query: &CheckedQuery) -> String {
        let mut text = String::new();
        let of_all_numbers = self.part == Part::Plain
            && query.fields.is_empty()
            && query.aggregate().is_some_and(Aggregate::needs_numbers);
        if of_all_numbers {
            text.push_str("import \"types\"\n");
        }
        let (start, stop) = (Timestamp::from_nanos(query.start()), Timestamp::from_nanos(query.stop()));
        let _infallible = write!(
            text,
            "from(bucket: {})\n  |> range(start: {start}, stop: {stop})\n  |> filter(fn: (r) => r[\"_measurement\"] == {}",
            string(&self.bucket),
            string(&query.measurement)
        );
        self.conditions(query, &mut text);
        text.push(')');
        if of_all_numbers {
            // One field of booleans would be an error for all of them.
            let types = ["float", "int", "uint"].map(|t| format!("types.isType(v: r._value, type: \"{t}\")"));
            let _infallible = write!(text, "\n  |> filter(fn: (r) => {})", types.join(" or "));
        }
        self.steps(query, &mut text);
        text
    }

    /// Which readings of the measurement.
    fn conditions(&self, query: &CheckedQuery, text: &mut String) {
        let is = |field: &String| format!("r[\"_field\"] == {}", string(field));
        let fields: Vec<String> = match self.part {
            Part::Empty | Part::NotEmpty => self.strings.iter().map(is).collect(),
            Part::Plain => query.fields.iter().filter(|f| !self.strings.contains(*f)).map(is).collect(),
            Part::Types => query.fields.iter().map(is).collect(),
        };
        if !fields.is_empty() {
            let _infallible = write!(text, " and ({})", fields.join(" or "));
        } else if self.part == Part::Plain {
            for field in &self.strings {
                let _infallible = write!(text, " and r[\"_field\"] != {}", string(field));
            }
        }
        for test in &query.tags {
            let member = format!("r[{}]", string(&test.key));
            let values = test.values.iter().map(|v| match v.as_str() {
                "" => format!("not exists {member}"),
                v => format!("{member} == {}", string(v)),
            });
            let _infallible = write!(text, " and ({})", values.collect::<Vec<_>>().join(" or "));
        }
        match self.part {
            Part::Empty => text.push_str(" and r[\"_value\"] == \"\""),
            Part::NotEmpty => text.push_str(" and r[\"_value\"] != \"\""),
            Part::Types | Part::Plain => {}
        }
    }

    /// What is made of them.
    fn steps(&self, query: &CheckedQuery, text: &mut String) {
        if self.part == Part::Types {
            return text.push_str("\n  |> last()");
        }
        match query.shape {
            Shape::Readings => {}
            Shape::Latest => text.push_str("\n  |> last()"),
            Shape::Windows { windows, aggregate, .. } => {
                let offset = match windows.offset {
                    0 => String::new(),
                    offset => format!(", offset: {offset}ns"),
                };
                let (every, name) = (windows.every, aggregate.name());
                if self.part != Part::Plain && aggregate != Aggregate::Count {
                    // The other part may have an earlier value, or a later one: each comes with its own time.
                    let _infallible = write!(text, "\n  |> window(every: {every}ns{offset})\n  |> {name}()");
                    return;
                }
                let _infallible = write!(
                    text,
                    "\n  |> aggregateWindow(every: {every}ns{offset}, fn: {name}, createEmpty: false, timeSrc: \"_start\")"
                );
            }
        }
        if let Some(limit) = query.sent_max() {
            let step = if query.descending { "tail" } else { "limit" };
            let _infallible = write!(text, "\n  |> {step}(n: {limit})");
        }
    }
}

/// A text in double quotes: nothing in it ends it, and nothing in it is evaluated.
///
/// A `$` is written by its number: the server's scanner reads it together with what follows, be that a backslash, and knows
/// `\$` only before a brace.
pub(crate) fn string(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c == '$' || c.is_ascii_control() => {
                let _infallible = write!(out, "\\x{:02x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
