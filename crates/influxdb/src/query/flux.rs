//! A question in Flux, for `/api/v2/query` of InfluxDB 2: one script. Reading the annotated CSV of the answer is
//! `annotated_csv.rs`'s.

use super::answer::Answer;
use super::ask::Ask;
use super::{Aggregate, CheckedQuery, Shape};
use crate::error::Error;
use crate::flux::annotated_csv::FluxReader;
use crate::flux::ending::Ending;
use crate::flux::table::{FluxItem, FluxRecord, FluxType, FluxValue};
use graylogic_line::Timestamp;
use graylogic_store::Value;
use serde_json::json;
use std::fmt::Write as _;

#[derive(Debug)]
pub(crate) struct Flux {
    /// The request, until it was sent.
    ask: Option<Ask>,
    reader: FluxReader,
    ending: Ending,
    /// The place of the table's series in the answer, once its first row came; `Some(None)` when it is not asked for.
    place: Option<Option<usize>>,
}

impl Flux {
    pub(crate) fn new(query: &CheckedQuery, org: &str, bucket: &str) -> Self {
        let body = json!({
            "query": script(query, bucket),
            "type": "flux",
            "dialect": { "header": true, "delimiter": ",", "annotations": ["datatype", "group", "default"] },
        });
        let ask = Ask {
            path: "/api/v2/query",
            query: vec![("org", org.to_owned())],
            body: body.to_string().into_bytes(),
            content_type: "application/json",
            accept: "application/csv",
        };
        Self { ask: Some(ask), reader: FluxReader::new(), ending: Ending::default(), place: None }
    }

    pub(crate) fn next_ask(&mut self) -> Option<Ask> {
        self.ask.take()
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
        match self.ending.is_whole() {
            true => Ok(()),
            false => {
                Err(query.failed("the answer to Flux has no end: it did not come whole").retryable(true))
            }
        }
    }

    fn read(&mut self, query: &CheckedQuery, answer: &mut Answer) -> Result<(), Error> {
        while let Some(item) = self.reader.next_item()? {
            match item {
                FluxItem::Table(_) => self.place = None,
                FluxItem::Record(row) => self.row(&row, query, answer)?,
            }
        }
        Ok(())
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
                *self.place.insert(answer.series(query, tags.collect(), field)?)
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
        answer.add(query, at, time.as_nanos(), value)
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

fn script(query: &CheckedQuery, bucket: &str) -> String {
    let mut text = String::new();
    let of_all_numbers = query.fields.is_empty() && query.aggregate().is_some_and(Aggregate::needs_numbers);
    if of_all_numbers {
        text.push_str("import \"types\"\n");
    }
    let (start, stop) = (Timestamp::from_nanos(query.start()), Timestamp::from_nanos(query.stop()));
    let _infallible = write!(
        text,
        "from(bucket: {})\n  |> range(start: {start}, stop: {stop})\n  |> filter(fn: (r) => r[\"_measurement\"] == {}",
        string(bucket),
        string(&query.measurement)
    );
    if !query.fields.is_empty() {
        let fields: Vec<String> =
            query.fields.iter().map(|f| format!("r[\"_field\"] == {}", string(f))).collect();
        let _infallible = write!(text, " and ({})", fields.join(" or "));
    }
    for test in &query.tags {
        let member = format!("r[{}]", string(&test.key));
        let values = test.values.iter().map(|v| match v.as_str() {
            "" => format!("not exists {member}"),
            v => format!("{member} == {}", string(v)),
        });
        let _infallible = write!(text, " and ({})", values.collect::<Vec<_>>().join(" or "));
    }
    text.push(')');
    if of_all_numbers {
        // One field of texts would be an error for all of them.
        let types = ["float", "int", "uint"].map(|t| format!("types.isType(v: r._value, type: \"{t}\")"));
        let _infallible = write!(text, "\n  |> filter(fn: (r) => {})", types.join(" or "));
    }
    match query.shape {
        Shape::Readings => {}
        Shape::Latest => text.push_str("\n  |> last()"),
        Shape::Windows { windows, aggregate, .. } => {
            let offset = match windows.offset {
                0 => String::new(),
                offset => format!(", offset: {offset}ns"),
            };
            let _infallible = write!(
                text,
                "\n  |> aggregateWindow(every: {}ns{offset}, fn: {}, createEmpty: false, timeSrc: \"_start\")",
                windows.every,
                aggregate.name()
            );
        }
    }
    if let Some(limit) = query.sent_max() {
        let step = if query.descending { "tail" } else { "limit" };
        let _infallible = write!(text, "\n  |> {step}(n: {limit})");
    }
    text
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
