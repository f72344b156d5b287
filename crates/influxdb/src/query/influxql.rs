//! A question in InfluxQL, for `/query` of InfluxDB 1 and 2. Two requests: the fields of the measurement and their types,
//! which the JSON of an answer does not tell (a float without a fraction looks like an integer), then one statement for
//! each field.

use super::answer::Answer;
use super::ask::{Ask, FORM, form, type_of, value_of};
use super::{CheckedQuery, Shape, abbreviated, is_number};
use crate::error::Error;
use crate::server::dialect::database;
use crate::server::refusal::lacks_or_is_hidden;
use graylogic_line::FieldType;
use serde_json::Value as Json;
use std::fmt::Write as _;

/// Rows of a line of the answer.
const CHUNK_ROWS: &str = "10000";
/// Fields of a measurement.
const FIELDS_MAX: usize = 10_000;
/// Statements of a request: the words of an id are in each of them.
const STATEMENTS_MAX: usize = 50;

#[derive(Debug)]
pub(crate) struct InfluxQl {
    db: String,
    rp: Option<String>,
    state: State,
    /// Fields with their types; none before the first answer.
    fields: Vec<(String, FieldType)>,
    /// How many fields were asked for.
    asked: usize,
    /// The first of those asked for last.
    first: usize,
    /// How many statements of the request have begun to be answered, and whether the server said that more follows.
    answered: usize,
    is_partial: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    Begin,
    Fields,
    Values,
}

impl InfluxQl {
    pub(crate) fn new(query: &CheckedQuery, bucket: &str) -> Result<Self, Error> {
        let (db, rp) = database(bucket);
        let tags = query.tags.iter().flat_map(|t| t.values.iter().chain([&t.key]));
        let mut names =
            query.fields.iter().chain([&query.measurement]).chain(tags).map(String::as_str).chain(rp);
        if let Some(name) = names.find(|n| n.contains(['\0', '\r'])) {
            let message = format!(
                "InfluxQL cannot write the null character and the carriage return of {:?}",
                abbreviated(name)
            );
            return Err(query.unsupported(&message));
        }
        let (db, rp) = (db.to_owned(), rp.map(str::to_owned));
        Ok(Self {
            db,
            rp,
            state: State::Begin,
            fields: Vec::new(),
            asked: 0,
            first: 0,
            answered: 0,
            is_partial: false,
        })
    }

    pub(crate) fn next_ask(&mut self, query: &CheckedQuery) -> Option<Ask> {
        (self.answered, self.is_partial) = (0, false);
        if self.state == State::Begin {
            self.state = State::Fields;
            let from = match &self.rp {
                Some(rp) => format!("{}.{}", identifier(rp), identifier(&query.measurement)),
                None => identifier(&query.measurement),
            };
            return Some(self.ask(&format!("SHOW FIELD KEYS FROM {from}")));
        }
        self.state = State::Values;
        let left = &self.fields[self.asked..];
        let now = &left[..left.len().min(STATEMENTS_MAX)];
        if now.is_empty() {
            return None;
        }
        let statements: Vec<String> = now.iter().map(|(field, _)| select(query, field)).collect();
        self.first = self.asked;
        self.asked += now.len();
        Some(self.ask(&statements.join("; ")))
    }

    fn ask(&self, statements: &str) -> Ask {
        let mut query = vec![("db", self.db.clone())];
        query.extend(self.rp.clone().map(|rp| ("rp", rp)));
        query.extend([("epoch", "ns".into()), ("chunked", "true".into()), ("chunk_size", CHUNK_ROWS.into())]);
        Ask {
            path: "/query",
            query,
            body: form(&[("q", statements)]).into_bytes(),
            content_type: FORM,
            accept: "application/json",
        }
    }

    pub(crate) fn read(
        &mut self,
        json: &Json,
        query: &CheckedQuery,
        answer: &mut Answer,
    ) -> Result<(), Error> {
        let odd = |what: &str| {
            query.failed(&format!("the answer to InfluxQL has {what}; is it an InfluxDB 1 or 2?"))
        };
        let results = json.get("results").and_then(Json::as_array).ok_or_else(|| odd("no results"))?;
        for result in results {
            if let Some(words) = result.get("error").and_then(Json::as_str) {
                let hidden = ["database not found", "default retention policy not set"];
                let remedy = match hidden.iter().any(|text| words.starts_with(text)) {
                    true => lacks_or_is_hidden("to read it"),
                    false => String::new(),
                };
                return Err(query.failed(&format!("the server answered: {}{remedy}", abbreviated(words))));
            }
            let statement = result.get("statement_id").and_then(Json::as_u64).unwrap_or(0);
            self.answered = self.answered.max(usize::try_from(statement).unwrap_or(0).saturating_add(1));
            self.is_partial = result.get("partial").and_then(Json::as_bool).unwrap_or(false);
            for series in result.get("series").and_then(Json::as_array).into_iter().flatten() {
                let rows = series.get("values").and_then(Json::as_array).map_or(&[][..], Vec::as_slice);
                if self.state == State::Fields {
                    self.read_fields(rows);
                    continue;
                }
                let place = usize::try_from(statement).ok().and_then(|n| self.first.checked_add(n));
                let field = place.and_then(|n| self.fields[..self.asked].get(n));
                let (field, of) = field.ok_or_else(|| odd("a result of no statement"))?;
                let of = type_of(query, *of);
                let tags = series.get("tags").and_then(Json::as_object).into_iter().flatten();
                let tags = tags.filter_map(|(k, v)| Some((k.clone(), v.as_str()?.to_owned()))).collect();
                let Some(at) = answer.series(query, tags, field)? else { continue };
                for row in rows {
                    let time =
                        row.get(0).and_then(Json::as_i64).ok_or_else(|| odd("a row without a time"))?;
                    let value = row.get(1).unwrap_or(&Json::Null);
                    if value.is_null() {
                        continue;
                    }
                    let value =
                        value_of(value, of).ok_or_else(|| odd(&format!("a value that is no {of:?}")))?;
                    answer.add(query, at, time, value)?;
                }
            }
        }
        Ok(())
    }

    fn read_fields(&mut self, rows: &[Json]) {
        for row in rows {
            let cell = |i| row.get(i).and_then(Json::as_str);
            let (Some(field), Some(of)) = (cell(0), cell(1)) else { continue };
            let of = match of {
                "float" => FieldType::Float,
                "integer" => FieldType::Integer,
                "unsigned" => FieldType::Unsigned,
                "boolean" => FieldType::Boolean,
                "string" => FieldType::String,
                // A type of a later server: nobody asks for it by name and means something else.
                _ => continue,
            };
            let has_room = self.fields.len() < FIELDS_MAX;
            match self.fields.iter_mut().find(|(f, _)| f == field) {
                // One that has several types in different shards is answered as one of them.
                Some((_, known)) if rank(of) < rank(*known) => *known = of,
                Some(_) => {}
                None if has_room => self.fields.push((field.to_owned(), of)),
                None => {}
            }
        }
    }

    pub(crate) fn end(&mut self, query: &CheckedQuery) -> Result<(), Error> {
        let asked = if self.state == State::Fields { 1 } else { self.asked - self.first };
        if self.answered < asked || self.is_partial {
            return Err(query.failed("the answer to InfluxQL did not come whole").retryable(true));
        }
        if self.state == State::Fields {
            self.fields = wanted(query, std::mem::take(&mut self.fields))?;
        }
        Ok(())
    }
}

/// The place of a type among those that the server prefers.
fn rank(of: FieldType) -> u8 {
    match of {
        FieldType::Float => 0,
        FieldType::Integer => 1,
        FieldType::Unsigned => 2,
        FieldType::String => 3,
        FieldType::Boolean => 4,
    }
}

/// Of the fields there are, those to ask for.
pub(crate) fn wanted(
    query: &CheckedQuery,
    mut fields: Vec<(String, FieldType)>,
) -> Result<Vec<(String, FieldType)>, Error> {
    fields.retain(|(field, _)| query.fields.is_empty() || query.fields.contains(field));
    if query.aggregate().is_some_and(super::Aggregate::needs_numbers) {
        if !query.fields.is_empty()
            && let Some((field, _)) = fields.iter().find(|(_, of)| !is_number(*of))
        {
            return Err(query.not_numeric(field));
        }
        fields.retain(|(_, of)| is_number(*of));
    }
    Ok(fields)
}

/// The statement for one field. Its columns are the time and the value.
fn select(query: &CheckedQuery, field: &str) -> String {
    let field = format!("{}::field", identifier(field));
    let (what, group) = match query.shape {
        Shape::Readings => (field, String::new()),
        Shape::Latest => (format!("last({field})"), String::new()),
        Shape::Windows { windows, aggregate, .. } => {
            let (every, offset) = (duration(windows.every), duration(windows.offset));
            (format!("{}({field})", aggregate.name()), format!("time({every},{offset}), "))
        }
    };
    let mut text = format!(
        "SELECT {what} FROM {} WHERE time >= {} AND time <= {}",
        identifier(&query.measurement),
        query.start(),
        query.stop() - 1
    );
    for test in &query.tags {
        let key = identifier(&test.key);
        let values: Vec<String> = test.values.iter().map(|v| format!("{key}::tag = {}", string(v))).collect();
        let _infallible = write!(text, " AND ({})", values.join(" OR "));
    }
    let _infallible = write!(text, " GROUP BY {group}*");
    if matches!(query.shape, Shape::Windows { .. }) {
        text.push_str(" fill(none)");
    }
    if query.descending {
        text.push_str(" ORDER BY time DESC");
    }
    if let Some(limit) = query.sent_max() {
        let _infallible = write!(text, " LIMIT {limit}");
    }
    text
}

/// A length of time in the longest unit that gives a whole number.
fn duration(nanos: i64) -> String {
    for (unit, name) in [(1_000_000_000, "s"), (1_000_000, "ms"), (1_000, "u")] {
        if nanos % unit == 0 {
            return format!("{}{name}", nanos / unit);
        }
    }
    format!("{nanos}ns")
}

/// A name in double quotes.
fn identifier(name: &str) -> String {
    quoted(name, '"')
}

/// A text in single quotes.
fn string(text: &str) -> String {
    quoted(text, '\'')
}

fn quoted(text: &str, quote: char) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push(quote);
    for c in text.chars() {
        match c {
            '\n' => out.push_str("\\n"),
            '\\' => out.push_str("\\\\"),
            _ if c == quote => out.extend(['\\', quote]),
            _ => out.push(c),
        }
    }
    out.push(quote);
    out
}
