//! A question in SQL, for `/api/v3/query_sql` of InfluxDB 3. A request for the columns of the table, which tell tags from
//! fields, then one for each field. Values travel as parameters; names are quoted.

use super::answer::Answer;
use super::ask::{Ask, type_of, value_of};
use super::influxql::wanted;
use super::{Aggregate, CheckedQuery, Shape};
use crate::error::Error;
use graylogic_line::FieldType;
use serde_json::{Value as Json, json};
use std::fmt::Write as _;

/// Columns of a table; InfluxDB 3 allows fewer.
const COLUMNS_MAX: usize = 10_000;

#[derive(Debug)]
pub(crate) struct Sql {
    database: String,
    state: State,
    /// Tag columns, once they are known.
    tags: Vec<String>,
    fields: Vec<(String, FieldType)>,
    /// How many fields were asked for.
    asked: usize,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    Begin,
    Columns,
    Values,
}

impl Sql {
    pub(crate) fn new(database: &str) -> Self {
        let database = database.to_owned();
        Self { database, state: State::Begin, tags: Vec::new(), fields: Vec::new(), asked: 0 }
    }

    pub(crate) fn next_ask(&mut self, query: &CheckedQuery) -> Option<Ask> {
        if self.state == State::Begin {
            self.state = State::Columns;
            let text = "SELECT column_name, data_type FROM information_schema.columns \
                        WHERE table_schema = 'iox' AND table_name = $measurement";
            return Some(self.ask(text, json!({ "measurement": query.measurement })));
        }
        self.state = State::Values;
        let (field, of) = self.fields.get(self.asked)?;
        let (text, params) = select(query, &self.tags, field, *of);
        self.asked += 1;
        Some(self.ask(&text, params))
    }

    fn ask(&self, text: &str, params: Json) -> Ask {
        let body = json!({ "db": self.database, "q": text, "format": "jsonl", "params": params });
        Ask {
            path: "/api/v3/query_sql",
            query: Vec::new(),
            body: body.to_string().into_bytes(),
            content_type: "application/json",
            accept: "application/jsonl",
        }
    }

    pub(crate) fn read(
        &mut self,
        json: &Json,
        query: &CheckedQuery,
        answer: &mut Answer,
    ) -> Result<(), Error> {
        let odd = |what: &str| query.failed(&format!("the answer to SQL has {what}; is it an InfluxDB 3?"));
        let text = |key: &str| json.get(key).and_then(Json::as_str);
        if self.state == State::Columns {
            let name = text("column_name").ok_or_else(|| odd("a column without a name"))?.to_owned();
            let of = text("data_type").ok_or_else(|| odd("a column without a type"))?;
            if self.tags.len() + self.fields.len() == COLUMNS_MAX {
                return Err(odd(&format!("more than {COLUMNS_MAX} columns")));
            }
            match of {
                "Float64" => self.fields.push((name, FieldType::Float)),
                "Int64" => self.fields.push((name, FieldType::Integer)),
                "UInt64" => self.fields.push((name, FieldType::Unsigned)),
                "Boolean" => self.fields.push((name, FieldType::Boolean)),
                "Utf8" | "LargeUtf8" | "Utf8View" => self.fields.push((name, FieldType::String)),
                _ if of.starts_with("Dictionary(") => self.tags.push(name),
                // The time.
                _ => {}
            }
            return Ok(());
        }
        let (field, of) =
            self.fields.get(self.asked.wrapping_sub(1)).ok_or_else(|| odd("a row of no request"))?;
        let tags = self.tags.iter().enumerate();
        let tags =
            tags.filter_map(|(i, key)| Some((key.clone(), text(&format!("t{i}"))?.to_owned()))).collect();
        let ours = |key: &String| key == "w" || key == "v" || key.starts_with('t');
        if !json.as_object().is_some_and(|row| row.keys().all(ours)) {
            return Err(odd("a row of something else"));
        }
        // Of no rows at all the newest is a row without a value.
        let Some(value) = json.get("v").filter(|v| !v.is_null()) else { return Ok(()) };
        let Some(at) = answer.series(query, tags, field)? else { return Ok(()) };
        let time = json.get("w").and_then(Json::as_i64).ok_or_else(|| odd("a row without a time"))?;
        let of = type_of(query, *of);
        let value = value_of(value, of).ok_or_else(|| odd(&format!("a value that is no {of:?}")))?;
        answer.add(query, at, time, value)
    }

    pub(crate) fn end(&mut self, query: &CheckedQuery) -> Result<(), Error> {
        if self.state == State::Columns {
            self.fields = wanted(query, std::mem::take(&mut self.fields))?;
            // A tag that no series has.
            let missing = |key: &String| !self.tags.contains(key);
            if query.tags.iter().any(|t| missing(&t.key) && !t.values.iter().any(String::is_empty)) {
                self.fields.clear();
            }
        }
        Ok(())
    }
}

/// The statement for one field and its parameters. Its columns are `t0`, `t1`, ... for the tags, `w` for the time in
/// nanoseconds and `v` for the value, so that no name of the table is among them.
fn select(query: &CheckedQuery, tags: &[String], field: &str, of: FieldType) -> (String, Json) {
    let field = identifier(field);
    let (time, value, grouped) = match query.shape {
        Shape::Readings => ("\"time\"".to_owned(), field.clone(), false),
        Shape::Latest => ("max(\"time\")".to_owned(), format!("last_value({field} ORDER BY \"time\")"), true),
        Shape::Windows { windows, aggregate, .. } => {
            let every = interval(windows.every);
            let time = format!("date_bin({every}, \"time\", to_timestamp_nanos({}))", windows.offset);
            let value = match aggregate {
                Aggregate::Count => format!("count({field})"),
                Aggregate::Sum => format!("sum({field})"),
                Aggregate::Mean => format!("avg({field})"),
                Aggregate::Min => format!("min({field})"),
                Aggregate::Max => format!("max({field})"),
                Aggregate::First => format!("first_value({field} ORDER BY \"time\")"),
                Aggregate::Last => format!("last_value({field} ORDER BY \"time\")"),
            };
            (time, value, true)
        }
    };
    // JSON has no other word for a float, and DataFusion's mean of decimals none either.
    let value = match type_of(query, of) {
        FieldType::Float => format!("CAST({value} AS DOUBLE)"),
        _ => value,
    };
    let mut text = "SELECT ".to_owned();
    for (i, tag) in tags.iter().enumerate() {
        let _infallible = write!(text, "{} AS t{i}, ", identifier(tag));
    }
    let _infallible =
        write!(text, "CAST({time} AS BIGINT) AS w, {value} AS v FROM {}", identifier(&query.measurement));
    let (start, stop) = (query.start(), query.stop());
    let _infallible = write!(
        text,
        " WHERE \"time\" >= to_timestamp_nanos({start}) AND \"time\" < to_timestamp_nanos({stop}) AND {field} IS NOT NULL"
    );
    let mut params = serde_json::Map::new();
    for (i, test) in query.tags.iter().enumerate() {
        if !tags.contains(&test.key) {
            // Asked for with the empty value, which every row has.
            continue;
        }
        let key = identifier(&test.key);
        let mut any = Vec::new();
        for (j, value) in test.values.iter().enumerate() {
            if value.is_empty() {
                any.push(format!("{key} IS NULL"));
            }
            let name = format!("p{i}_{j}");
            any.push(format!("{key} = ${name}"));
            params.insert(name, Json::String(value.clone()));
        }
        let _infallible = write!(text, " AND ({})", any.join(" OR "));
    }
    if grouped {
        // By the places of the columns: names might mean others. The newest reading is of all of them.
        let last = if query.shape == Shape::Latest { tags.len() } else { tags.len() + 1 };
        let places: Vec<String> = (1..=last).map(|n| n.to_string()).collect();
        if !places.is_empty() {
            let _infallible = write!(text, " GROUP BY {}", places.join(", "));
        }
    }
    (text, Json::Object(params))
}

/// A length of time in the longest unit that gives a whole number.
fn interval(nanos: i64) -> String {
    for (unit, name) in [(1_000_000_000, "seconds"), (1_000_000, "milliseconds"), (1_000, "microseconds")] {
        if nanos % unit == 0 {
            return format!("INTERVAL '{} {name}'", nanos / unit);
        }
    }
    format!("INTERVAL '{nanos} nanoseconds'")
}

/// A name in double quotes.
fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
