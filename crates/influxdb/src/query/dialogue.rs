//! The requests that answer a question, one after the other, and the reading of what comes back. Pure: somebody else
//! sends them.

use super::answer::Answer;
use super::ask::Ask;
use super::flux::Flux;
use super::influxql::InfluxQl;
use super::metricsql::MetricsQl;
use super::sql::Sql;
use super::{CheckedQuery, QuerySeries, abbreviated};
use crate::error::Error;
use crate::server::refusal::server_error;
use serde_json::Value as Json;

/// A piece of an answer that must be read at once: a line, or a document where a server sends no lines.
const PIECE_BYTES_MAX: usize = 64 << 20;
/// What is searched for lines at once.
const FED_BYTES_MAX: usize = 1 << 20;

/// A question put to a server in its language: requests to send, and what their answers say.
///
/// ```
/// use graylogic_influxdb::{Dialogue, Query, Timestamp};
///
/// let query = Query::measurement("energy").field("power_watts").range(Timestamp::from_nanos(0), Timestamp::MAX);
/// let mut dialogue = Dialogue::influxql(query.check()?, "metrics")?;
/// while let Some(ask) = dialogue.next_ask() {
///     // Sent with POST to `ask.target()`; here a server that answers both requests of InfluxQL.
///     let answer = match ask.body.starts_with(b"q=SHOW") {
///         true => concat!(
///             r#"{"results":[{"statement_id":0,"series":[{"name":"energy","columns":["fieldKey","fieldType"],"#,
///             r#""values":[["power_watts","float"]]}]}]}"#
///         ),
///         false => concat!(
///             r#"{"results":[{"statement_id":0,"series":[{"name":"energy","tags":{"device_id":"hvac"},"#,
///             r#""columns":["time","power_watts"],"values":[[60000000000,450]]}]}]}"#
///         ),
///     };
///     dialogue.feed(answer.as_bytes())?;
///     dialogue.end()?;
/// }
/// let answer = dialogue.finish()?;
/// assert_eq!(answer[0].tags, [("device_id".to_owned(), "hvac".to_owned())]);
/// assert_eq!(answer[0].values[0].1.as_f64(), Some(450.0));
/// # Ok::<(), graylogic_influxdb::Error>(())
/// ```
#[derive(Debug)]
pub struct Dialogue {
    query: CheckedQuery,
    answer: Answer,
    language: Language,
    /// The beginning of a line, or of a document, whose end has not come.
    begun: Vec<u8>,
    /// How many bytes of it are known to hold no line end.
    searched: usize,
}

#[derive(Debug)]
enum Language {
    Flux(Box<Flux>),
    InfluxQl(InfluxQl),
    Sql(Sql),
    MetricsQl(MetricsQl),
}

impl Dialogue {
    /// With InfluxDB 2, in Flux: one request for the latest reading, and for means, sums, smallest and largest values of named
    /// fields. For others, which may be of strings, a request for the types, one for what is no string, and two for strings,
    /// empty ones and others: the server gives wrong times, or panics, where an empty string is among others.
    ///
    /// # Errors
    /// [`Error::is_unsupported`] when the language cannot say what is asked.
    pub fn flux(query: CheckedQuery, org: &str, bucket: &str) -> Result<Self, Error> {
        let language = Language::Flux(Box::new(Flux::new(&query, org, bucket)));
        Ok(Self::of(query, language))
    }

    /// With InfluxDB 1 (or the same endpoint of 2), in InfluxQL: a request for the fields and their types, which the
    /// answers do not tell, and one for their values. The bucket is a database, or `database/retention policy`.
    ///
    /// # Errors
    /// [`Error::is_unsupported`] when the language cannot say what is asked: it has no way to write a carriage return or
    /// a null character.
    pub fn influxql(query: CheckedQuery, bucket: &str) -> Result<Self, Error> {
        let language = Language::InfluxQl(InfluxQl::new(&query, bucket)?);
        Ok(Self::of(query, language))
    }

    /// With InfluxDB 3, in SQL: a request for the columns of the table, which tell tags from fields, and one for each field.
    ///
    /// # Errors
    /// [`Error::is_unsupported`] when the language cannot say what is asked.
    pub fn sql(query: CheckedQuery, database: &str) -> Result<Self, Error> {
        let language = Language::Sql(Sql::new(database));
        Ok(Self::of(query, language))
    }

    /// With VictoriaMetrics, in MetricsQL: one request for readings and for the latest; for windows one for each 2,000 of
    /// them, after one for the bounds of the data when the range has many.
    ///
    /// `db` is what lines were written with as `db=`; then it is no tag of the answer. All values are floats there (of
    /// booleans 0 and 1, of texts 0), counts aside; times are whole milliseconds, and those before 1970-01-02 are not seen.
    /// Readings that were written twice, or within one millisecond, count twice unless the server removes duplicates.
    /// Series that an earlier version of this crate wrote carry no label `_measurement`: among these a measurement `a` with a
    /// field `b_c` cannot be told from `a_b` with `c`.
    ///
    /// # Errors
    /// [`Error::is_unsupported`] for windows that are no whole milliseconds.
    pub fn metricsql(query: CheckedQuery, db: Option<&str>) -> Result<Self, Error> {
        let language = Language::MetricsQl(MetricsQl::new(&query, db)?);
        Ok(Self::of(query, language))
    }

    fn of(query: CheckedQuery, language: Language) -> Self {
        Self { query, answer: Answer::default(), language, begun: Vec::new(), searched: 0 }
    }

    /// The request to send next; `None` when the answer is complete. What came for the one before must have been fed, and
    /// [`Dialogue::end`] called.
    pub fn next_ask(&mut self) -> Option<Ask> {
        match &mut self.language {
            Language::Flux(flux) => flux.next_ask(&self.query),
            Language::InfluxQl(influxql) => influxql.next_ask(&self.query),
            Language::Sql(sql) => sql.next_ask(&self.query),
            Language::MetricsQl(metricsql) => metricsql.next_ask(&self.query),
        }
    }

    /// Bytes of the body of an answer with status 200, in pieces of any size.
    ///
    /// # Errors
    /// [`Error::is_query_failed`] when they are no answer, say that the question failed, or are too many.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<(), Error> {
        if let Language::Flux(flux) = &mut self.language {
            return flux.feed(bytes, &self.query, &mut self.answer);
        }
        for piece in bytes.chunks(FED_BYTES_MAX) {
            self.feed_lines(piece)?;
        }
        Ok(())
    }

    fn feed_lines(&mut self, bytes: &[u8]) -> Result<(), Error> {
        if self.begun.len() + bytes.len() > PIECE_BYTES_MAX {
            let message = format!(
                "a line of the answer is longer than {} MiB: ask for a shorter range or fewer series",
                PIECE_BYTES_MAX >> 20
            );
            return Err(self.query.failed(&message));
        }
        self.begun.extend_from_slice(bytes);
        let mut taken = 0;
        while let Some(length) = self.begun[self.searched..].iter().position(|&b| b == b'\n') {
            let end = self.searched + length;
            let line = self.begun[taken..end].to_vec();
            (taken, self.searched) = (end + 1, end + 1);
            self.line(&line)?;
        }
        self.begun.drain(..taken);
        self.searched = self.begun.len();
        Ok(())
    }

    /// Says that the body of the answer has ended.
    ///
    /// # Errors
    /// As [`Dialogue::feed`].
    pub fn end(&mut self) -> Result<(), Error> {
        let rest = std::mem::take(&mut self.begun);
        self.searched = 0;
        self.line(&rest)?;
        match &mut self.language {
            Language::Flux(flux) => flux.end(&self.query, &mut self.answer),
            Language::InfluxQl(influxql) => influxql.end(&self.query),
            Language::Sql(sql) => sql.end(&self.query),
            Language::MetricsQl(metricsql) => metricsql.end(&self.query),
        }
    }

    fn line(&mut self, line: &[u8]) -> Result<(), Error> {
        if line.trim_ascii().is_empty() {
            return Ok(());
        }
        let (query, answer) = (&self.query, &mut self.answer);
        let json: Json = serde_json::from_slice(line).map_err(|e| {
            let begin = String::from_utf8_lossy(&line[..line.len().min(200)]);
            query.failed(&format!(
                "the server answered {begin:?}, which is no JSON ({e}); is it the right address?"
            ))
        })?;
        if let Some(words) = json.get("error").and_then(Json::as_str) {
            return Err(query.failed(&format!("the server answered: {}", abbreviated(words))));
        }
        match &mut self.language {
            Language::Flux(_) => Ok(()),
            Language::InfluxQl(influxql) => influxql.read(&json, query, answer),
            Language::Sql(sql) => sql.read(&json, query, answer),
            Language::MetricsQl(metricsql) => metricsql.read(&json, query, answer),
        }
    }

    /// Whether the answer to the request of now says itself where it ends. Others are lines, any of which may be the last.
    pub(crate) fn has_end(&self) -> bool {
        match &self.language {
            Language::Flux(_) | Language::InfluxQl(_) => true,
            Language::Sql(_) => false,
            Language::MetricsQl(metricsql) => metricsql.has_end(),
        }
    }

    /// An answer whose end cannot be told from a connection that breaks off.
    pub(crate) fn endless(&self) -> Error {
        self.query.failed(
            "the server answered without the length of its answer, so that one that breaks off looks whole; let the proxy in \
             front of it, if there is one, speak HTTP/1.1 to this client",
        )
    }

    /// The answer, when there is nothing more to ask.
    ///
    /// # Errors
    /// [`Error::is_query_failed`] when it is too large, or a fill does not fit its types.
    ///
    /// # Panics
    /// When requests are left to be sent: an answer without them would be wrong.
    pub fn finish(mut self) -> Result<Vec<QuerySeries>, Error> {
        assert!(self.next_ask().is_none(), "a question is answered when all its requests are");
        self.answer.finish(&self.query)
    }

    /// What an answer with another status than 200 means, in the server's words; its body may be cut after 64 KiB.
    /// [`Error::is_retryable`] when the status says that it may pass.
    #[must_use]
    pub fn refused(&self, status: u16, body: &[u8]) -> Error {
        let (_, words) = server_error(status, &body[..body.len().min(1 << 16)]);
        let passing = matches!(status, 408 | 429 | 500 | 502..=504);
        self.query.failed(&format!("the server refused it with status {status}: {words}")).retryable(passing)
    }
}
