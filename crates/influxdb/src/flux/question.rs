//! Questions in Flux: what goes to the server, and the rows of the answer as they come. Must not know how an answer is
//! written (`annotated_csv.rs` does), nor how requests travel.

use crate::error::{Error, Kind};
use crate::flux::annotated_csv::FluxReader;
use crate::flux::ending::Ending;
use crate::flux::table::{FluxItem, FluxRecord, FluxTable, FluxValue};
use crate::server::asking::{broke_off, kind_within, on_its_runtime};
use crate::server::exchange::{Answer, Method, Request};
use crate::server::http::{Http, Pieces, wait_for};
use crate::server::kind::ServerKind;
use crate::server::refusal::{remedy, server_error};
use graylogic_line::Timestamp;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::fmt;
use std::time::{Duration, Instant};

/// A question is answered within this time, unless it says otherwise.
const TIMEOUT: Duration = Duration::from_secs(60);

/// A question in Flux.
///
/// Values go beside the text, as parameters: whatever they hold, they stay values.
///
/// ```
/// use graylogic_influxdb::{FluxQuery, FluxValue};
/// use std::time::Duration;
///
/// let query = FluxQuery::new(
///     r#"from(bucket: "house") |> range(start: -1h) |> filter(fn: (r) => r.device_id == params.id)"#,
/// )
/// .param("id", FluxValue::from("hvac\" or true or \""))
/// .timeout(Duration::from_secs(5));
/// # let _ = query;
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct FluxQuery {
    text: String,
    params: Vec<(String, FluxValue)>,
    now: Option<Timestamp>,
    timeout: Duration,
}

impl FluxQuery {
    /// A question with these words, to be answered within a minute.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), params: Vec::new(), now: None, timeout: TIMEOUT }
    }

    /// A value that the words use as `params.NAME`. It is sent beside them and cannot change what they mean. Given again, it
    /// is another value.
    #[must_use]
    pub fn param(mut self, name: impl Into<String>, value: impl Into<FluxValue>) -> Self {
        let name = name.into();
        self.params.retain(|(known, _)| *known != name);
        self.params.push((name, value.into()));
        self
    }

    /// What `now()` is, and what relative times count from; else the time of the server.
    #[must_use]
    pub fn now(mut self, time: Timestamp) -> Self {
        self.now = Some(time);
        self
    }

    /// How long the whole answer may take.
    #[must_use]
    pub fn timeout(mut self, time: Duration) -> Self {
        self.timeout = time;
        self
    }

    /// The request, as InfluxDB 2 takes it.
    fn request(&self, kind: ServerKind, org: &str) -> Result<Request, Error> {
        let mut body = json!({
            "query": self.text,
            "type": "flux",
            "dialect": {
                "header": true, "delimiter": ",", "commentPrefix": "#", "dateTimeFormat": "RFC3339",
                "annotations": ["datatype", "group", "default"],
            },
        });
        if let Some(now) = self.now {
            body["now"] = now.to_string().into();
        }
        if !self.params.is_empty() {
            body["extern"] = self.extern_file()?;
        }
        let request = Request {
            accept: "text/csv",
            timeout: Some(self.timeout),
            ..Request::json(Method::POST, "api/v2/query", &body).scheme(kind.scheme())
        };
        Ok(if kind == ServerKind::InfluxDb2 { request.with("org", org) } else { request })
    }

    /// The parameters as a file of Flux with one option, in the form of its syntax tree: no text is parsed.
    fn extern_file(&self) -> Result<Value, Error> {
        let property = |(name, value): &(String, FluxValue)| {
            if !is_identifier(name) {
                let message = format!(
                    "ask in Flux: the parameter {name:?} is no name; use letters, digits and _, not beginning with a digit"
                );
                return Err(Error::new(Kind::QueryFailed, message));
            }
            let key = json!({ "type": "Identifier", "name": name });
            Ok(json!({ "type": "Property", "key": key, "value": literal(name, value)? }))
        };
        let properties: Vec<Value> = self.params.iter().map(property).collect::<Result<_, _>>()?;
        Ok(json!({
            "type": "File",
            "package": null,
            "imports": null,
            "body": [{
                "type": "OptionStatement",
                "assignment": {
                    "type": "VariableAssignment",
                    "id": { "type": "Identifier", "name": "params" },
                    "init": { "type": "ObjectExpression", "properties": properties },
                },
            }],
        }))
    }
}

impl From<&str> for FluxQuery {
    fn from(text: &str) -> Self {
        Self::new(text)
    }
}

impl From<String> for FluxQuery {
    fn from(text: String) -> Self {
        Self::new(text)
    }
}

fn is_identifier(name: &str) -> bool {
    let begins = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    begins && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// A value as a node of Flux's syntax tree.
fn literal(name: &str, value: &FluxValue) -> Result<Value, Error> {
    let cannot = |what: &str| {
        let message = format!("ask in Flux: the parameter {name:?} is {what}, which Flux has no literal for");
        Error::new(Kind::QueryFailed, message)
    };
    let minus = |argument: Value| json!({ "type": "UnaryExpression", "operator": "-", "argument": argument });
    let integer = |n: u64| json!({ "type": "IntegerLiteral", "value": n.to_string() });
    Ok(match value {
        FluxValue::String(text) => json!({ "type": "StringLiteral", "value": &**text }),
        // The literal of the smallest number would be out of range before its sign.
        FluxValue::Long(i64::MIN) => {
            let largest = minus(integer(i64::MAX.unsigned_abs()));
            json!({ "type": "BinaryExpression", "operator": "-", "left": largest, "right": integer(1) })
        }
        FluxValue::Long(n) if *n < 0 => minus(integer(n.unsigned_abs())),
        FluxValue::Long(n) => integer(n.unsigned_abs()),
        FluxValue::UnsignedLong(n) => json!({
            "type": "CallExpression",
            "callee": { "type": "Identifier", "name": "uint" },
            "arguments": [{ "type": "ObjectExpression", "properties": [{
                "type": "Property",
                "key": { "type": "Identifier", "name": "v" },
                "value": { "type": "StringLiteral", "value": n.to_string() },
            }] }],
        }),
        FluxValue::Double(x) if !x.is_finite() => return Err(cannot("not finite")),
        FluxValue::Double(x) if x.is_sign_negative() => {
            minus(json!({ "type": "FloatLiteral", "value": x.abs() }))
        }
        FluxValue::Double(x) => json!({ "type": "FloatLiteral", "value": x }),
        FluxValue::Boolean(yes) => json!({ "type": "BooleanLiteral", "value": yes }),
        FluxValue::Time(time) => json!({ "type": "DateTimeLiteral", "value": time.to_string() }),
        // Its length without the sign has no number there.
        FluxValue::Duration(i64::MIN) => return Err(cannot("longer than 292 years")),
        FluxValue::Duration(nanos) => {
            let length = json!({ "magnitude": nanos.unsigned_abs(), "unit": "ns" });
            let literal = json!({ "type": "DurationLiteral", "values": [length] });
            if *nanos < 0 { minus(literal) } else { literal }
        }
        FluxValue::Null => return Err(cannot("null")),
        FluxValue::Binary(_) => return Err(cannot("bytes")),
        #[allow(unreachable_patterns, reason = "kinds of values that come later")]
        _ => return Err(cannot("of another kind")),
    })
}

/// So many bytes of an answer are gathered into tables; a longer one is read row by row.
const GATHERED_BYTES_MAX: u64 = 256 << 20;

/// The rows of an answer in Flux, as they come; dropped, the question is given up.
///
/// It is an iterator that waits for each row; asynchronous code asks [`FluxRows::next_async`] instead. However long the
/// answer, only a few pieces of it are in memory.
#[derive(Debug)]
pub struct FluxRows {
    pieces: Option<Pieces>,
    reader: FluxReader,
    /// Bytes that came, and whether they came to an end.
    came: u64,
    ending: Ending,
    /// Whether the server said that there is nothing to come.
    is_nothing: bool,
}

impl FluxRows {
    /// Puts a question to a server.
    pub(crate) async fn open(http: &Http, query: FluxQuery, org: &str) -> Result<Self, Error> {
        let (status, pieces) = on_its_runtime(http, open(http.clone(), query, org.to_owned())).await?;
        Ok(Self {
            pieces: Some(pieces),
            reader: FluxReader::new(),
            came: 0,
            ending: Ending::default(),
            is_nothing: status == 204,
        })
    }

    /// The next row, on any runtime; `None` at the end. Given up in the middle, no row is lost.
    ///
    /// # Errors
    /// [`Error::is_query_failed`] when the server breaks off, says in the middle of the answer that it failed, or takes too
    /// long. Nothing comes after an error.
    pub async fn next_async(&mut self) -> Option<Result<FluxRecord, Error>> {
        loop {
            match self.next_item().await {
                Some(Ok(FluxItem::Record(row))) => return Some(Ok(row)),
                Some(Ok(_)) => {}
                Some(Err(error)) => return Some(Err(error)),
                None => return None,
            }
        }
    }

    /// The beginning of a table, or a row.
    async fn next_item(&mut self) -> Option<Result<FluxItem, Error>> {
        loop {
            match self.reader.next_item() {
                Ok(Some(item)) => return Some(Ok(item)),
                Ok(None) if self.pieces.is_some() => {}
                Ok(None) if self.is_nothing || self.ending.is_whole() => return None,
                Ok(None) => {
                    self.is_nothing = true;
                    return Some(Err(cut_short()));
                }
                Err(error) => {
                    (self.pieces, self.is_nothing) = (None, true);
                    return Some(Err(error));
                }
            }
            let failed = match self.pieces.as_mut()?.next().await {
                Some(Ok(piece)) => {
                    self.came += piece.len() as u64;
                    self.ending.feed(&piece);
                    self.reader.feed(&piece).err()
                }
                Some(Err(why)) => Some(broke_off(why)),
                None => {
                    self.pieces = None;
                    // What a last line without its end holds comes now.
                    self.reader.finish();
                    None
                }
            };
            if let Some(error) = failed {
                (self.pieces, self.is_nothing) = (None, true);
                self.reader = FluxReader::new();
                return Some(Err(error));
            }
        }
    }

    /// Every row as a value of a type that [`serde`] can make: fields are named as columns.
    ///
    /// # Errors
    /// As [`FluxRows::next_async`]; and when a row does not fit the type, with the column and its line.
    pub fn deserialize<T: DeserializeOwned>(self) -> impl Iterator<Item = Result<T, Error>> {
        self.map(|row| row?.deserialize())
    }

    /// All tables of the answer, the empty ones too, with the rows that were not taken before; all of it is in memory then.
    ///
    /// # Errors
    /// As [`FluxRows::next_async`], and when the answer has more than 256 MiB; the tables before are lost then.
    pub fn tables(self) -> Result<Vec<FluxTable>, Error> {
        wait_for(self.tables_async())
    }

    /// [`FluxRows::tables`] for asynchronous code; runs on any runtime, or none.
    ///
    /// # Errors
    /// As [`FluxRows::tables`].
    pub async fn tables_async(mut self) -> Result<Vec<FluxTable>, Error> {
        let mut tables: Vec<FluxTable> = Vec::new();
        while let Some(item) = self.next_item().await {
            match (item?, tables.last_mut()) {
                (FluxItem::Table(table), _) => tables.push(table),
                (FluxItem::Record(row), Some(table)) => table.rows.push(row),
                (FluxItem::Record(row), None) => tables.push(FluxTable::begun_by(row)),
            }
            if self.came > GATHERED_BYTES_MAX {
                let message = "gather the tables of an answer: it has more than 256 MiB; read it row by row, or ask for less";
                return Err(Error::new(Kind::QueryFailed, message));
            }
        }
        Ok(tables)
    }
}

impl Iterator for FluxRows {
    type Item = Result<FluxRecord, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        wait_for(self.next_async())
    }
}

/// An answer in Flux as the server wrote it: annotated CSV, in pieces as they come. Dropped, the question is given up.
#[derive(Debug)]
pub struct FluxRaw {
    pieces: Pieces,
    ending: Ending,
    /// Whether there is nothing to come, or it was said what went wrong.
    is_nothing: bool,
}

impl FluxRaw {
    /// Puts a question to a server.
    pub(crate) async fn open(http: &Http, query: FluxQuery, org: &str) -> Result<Self, Error> {
        let (status, pieces) = on_its_runtime(http, open(http.clone(), query, org.to_owned())).await?;
        Ok(Self { pieces, ending: Ending::default(), is_nothing: status == 204 })
    }

    /// The next piece, on any runtime; `None` at the end. A piece may end anywhere in a line.
    ///
    /// # Errors
    /// [`Error::is_query_failed`] when the server breaks off or takes too long. That it failed in the middle, the server says
    /// in the text.
    pub async fn next_async(&mut self) -> Option<Result<Vec<u8>, Error>> {
        match self.pieces.next().await {
            Some(Ok(piece)) => {
                self.ending.feed(&piece);
                Some(Ok(piece))
            }
            Some(Err(why)) => {
                self.is_nothing = true;
                Some(Err(broke_off(why)))
            }
            None if self.is_nothing || self.ending.is_whole() => None,
            None => {
                self.is_nothing = true;
                Some(Err(cut_short()))
            }
        }
    }
}

impl Iterator for FluxRaw {
    type Item = Result<Vec<u8>, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        wait_for(self.next_async())
    }
}

/// The answer of a server to a question in Flux, when it is a success: its status, and its body in pieces. On the client's
/// own runtime.
async fn open(http: Http, query: FluxQuery, org: String) -> Result<(u16, Pieces), Error> {
    let began = Instant::now();
    let kind = kind_within(&http, query.timeout).await?;
    let query = FluxQuery { timeout: query.timeout.saturating_sub(began.elapsed()), ..query };
    if matches!(kind, ServerKind::InfluxDb3 | ServerKind::VictoriaMetrics) {
        let message = format!("ask in Flux: {kind} does not answer Flux; use a typed query");
        return Err(Error::new(Kind::Unsupported, message));
    }
    let request = query.request(kind, &org)?;
    let (head, pieces) = http.for_questions().open(request).await.map_err(broke_off)?;
    pieces.map(|pieces| (head.status, pieces)).ok_or_else(|| refused(&head, kind))
}

/// An answer that ended before its end, or before it began.
fn cut_short() -> Error {
    let message = "ask in Flux: the answer has no empty line at its end: it did not come whole";
    Error::new(Kind::QueryFailed, message).retryable(true)
}

/// The server's words for not answering.
fn refused(head: &Answer, kind: ServerKind) -> Error {
    if head.status == 404 && kind == ServerKind::InfluxDb1 {
        let message =
            "ask in Flux: this InfluxDB 1 does not answer Flux; from 1.8 on it does with flux-enabled = true";
        return Error::new(Kind::Unsupported, message);
    }
    let (code, words) = server_error(head.status, &head.body);
    let retryable = matches!(head.status, 408 | 429 | 502..=504);
    let remedy = remedy(head, "to read the buckets it names");
    let message = format!("ask in Flux: the server answered {} ({code}): {words}{remedy}", head.status);
    Error::new(Kind::QueryFailed, message).retryable(retryable)
}

impl fmt::Display for FluxQuery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
