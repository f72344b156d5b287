//! What a client is asked: typed questions to whatever its target is, and Flux. How they are put and read is in `query.rs` and
//! `flux_query.rs`.

use super::Client;
use crate::error::{Error, Kind};
use crate::flux::question::{FluxQuery, FluxRaw, FluxRows};
use crate::query::{Aggregate, CheckedQuery, LatestValue, Query, QuerySeries};
use crate::server::http::{Http, wait_for};
use graylogic_line::Timestamp;
use graylogic_store::Store;
use std::time::Duration;

impl Client {
    /// The answer to a typed question, whichever target gives it, in the order of tags and fields.
    ///
    /// # Errors
    /// [`Error::is_query_failed`] with the reason; [`Error::is_unsupported`] when the language of the target cannot say what is
    /// asked; [`Error::is_not_connected`] after close.
    pub fn ask(&self, query: &Query) -> Result<Vec<QuerySeries>, Error> {
        match self.asked(query)? {
            Asked::Store(store, query) => query.ask_store(&store, &self.lane.bucket),
            Asked::Server(http, query) => wait_for(query.ask_server(*http, self.org(), &self.lane.bucket)),
        }
    }

    /// [`Client::ask`] for asynchronous code; runs on any runtime, or none. Dropped, the question is given up.
    ///
    /// # Errors
    /// As [`Client::ask`].
    pub async fn ask_async(&self, query: &Query) -> Result<Vec<QuerySeries>, Error> {
        match self.asked(query)? {
            Asked::Store(store, query) => {
                let ask = move |client: &Self| query.ask_store(&store, &client.lane.bucket);
                self.elsewhere("influxdb-query", ask).await
            }
            Asked::Server(http, query) => query.ask_server(*http, self.org(), &self.lane.bucket).await,
        }
    }

    /// One value for each window of the range that has readings, series by series: a short form of [`Client::ask`].
    ///
    /// # Errors
    /// As [`Client::ask`].
    #[expect(clippy::too_many_arguments, reason = "the seed's signature: each is one part of the question")]
    pub fn query_range(
        &self,
        measurement: &str,
        tags: &[(&str, &str)],
        field: &str,
        start: Timestamp,
        stop: Timestamp,
        window: Duration,
        aggregate: Aggregate,
    ) -> Result<Vec<QuerySeries>, Error> {
        let series = tagged(measurement, tags).field(field);
        self.ask(&series.range(start, stop).window(window).aggregate(aggregate))
    }

    /// [`Client::query_range`] for asynchronous code; runs on any runtime, or none.
    ///
    /// # Errors
    /// As [`Client::query_range`].
    #[expect(clippy::too_many_arguments, reason = "the seed's signature: each is one part of the question")]
    pub async fn query_range_async(
        &self,
        measurement: &str,
        tags: &[(&str, &str)],
        field: &str,
        start: Timestamp,
        stop: Timestamp,
        window: Duration,
        aggregate: Aggregate,
    ) -> Result<Vec<QuerySeries>, Error> {
        let series = tagged(measurement, tags).field(field);
        self.ask_async(&series.range(start, stop).window(window).aggregate(aggregate)).await
    }

    /// The newest reading of each series of a measurement that has these tags: a short form of [`Client::ask`].
    ///
    /// # Errors
    /// As [`Client::ask`].
    pub fn latest(&self, measurement: &str, tags: &[(&str, &str)]) -> Result<Vec<LatestValue>, Error> {
        Ok(latest_values(self.ask(&tagged(measurement, tags).latest())?))
    }

    /// [`Client::latest`] for asynchronous code; runs on any runtime, or none.
    ///
    /// # Errors
    /// As [`Client::latest`].
    pub async fn latest_async(
        &self,
        measurement: &str,
        tags: &[(&str, &str)],
    ) -> Result<Vec<LatestValue>, Error> {
        Ok(latest_values(self.ask_async(&tagged(measurement, tags).latest()).await?))
    }

    /// The rows that a question in Flux is answered with, one after the other as they come.
    ///
    /// ```no_run
    /// # use graylogic_influxdb::{Client, Config};
    /// # #[derive(serde::Deserialize)]
    /// # struct Power { device_id: String, _value: f64 }
    /// let client = Client::connect(&Config::from_file("configs/config.yaml")?)?;
    /// let day = r#"from(bucket: "house") |> range(start: -1d) |> filter(fn: (r) => r._field == "power_watts") |> mean()"#;
    /// for power in client.query(day)?.deserialize::<Power>() {
    ///     let power = power?;
    ///     println!("{}: {} W", power.device_id, power._value);
    /// }
    /// # Ok::<(), graylogic_influxdb::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::is_query_failed`] with the server's words; [`Error::is_unsupported`] when the target does not answer Flux;
    /// [`Error::is_not_connected`] after close. What goes wrong later is told by the iterator.
    pub fn query(&self, query: impl Into<FluxQuery>) -> Result<FluxRows, Error> {
        wait_for(self.query_async(query))
    }

    /// [`Client::query`] for asynchronous code; runs on any runtime, or none.
    ///
    /// # Errors
    /// As [`Client::query`].
    pub async fn query_async(&self, query: impl Into<FluxQuery>) -> Result<FluxRows, Error> {
        FluxRows::open(&self.server("Flux")?, query.into(), self.org()).await
    }

    /// The answer to a question in Flux as the server writes it, with all annotations.
    ///
    /// # Errors
    /// As [`Client::query`].
    pub fn query_raw(&self, query: impl Into<FluxQuery>) -> Result<FluxRaw, Error> {
        wait_for(self.query_raw_async(query))
    }

    /// [`Client::query_raw`] for asynchronous code; runs on any runtime, or none.
    ///
    /// # Errors
    /// As [`Client::query`].
    pub async fn query_raw_async(&self, query: impl Into<FluxQuery>) -> Result<FluxRaw, Error> {
        FluxRaw::open(&self.server("Flux")?, query.into(), self.org()).await
    }

    /// Who answers a question, and the question without contradictions.
    fn asked(&self, query: &Query) -> Result<Asked, Error> {
        let query = query.check()?;
        match self.store() {
            Some(store) => Ok(Asked::Store(store.clone(), query)),
            None => Ok(Asked::Server(Box::new(self.server("this")?), query)),
        }
    }

    /// The server that is asked something which only servers answer.
    fn server(&self, what: &str) -> Result<Http, Error> {
        if self.works().is_closing() {
            return Err(Error::closed());
        }
        let message =
            format!("{what} is not answered by the embedded store in this version; use a typed query");
        self.works().http.clone().ok_or_else(|| Error::new(Kind::Unsupported, message))
    }

    /// The organisation of the target.
    fn org(&self) -> &str {
        self.works().config.org()
    }
}

/// Who answers a question.
enum Asked {
    Store(Store, CheckedQuery),
    Server(Box<Http>, CheckedQuery),
}

/// The one reading of each series.
fn latest_values(found: Vec<QuerySeries>) -> Vec<LatestValue> {
    let of = |series: QuerySeries| {
        let QuerySeries { measurement, tags, field, values } = series;
        let (time, value) = values.into_iter().next()?;
        Some(LatestValue { measurement, tags, field, time, value })
    };
    found.into_iter().filter_map(of).collect()
}

fn tagged(measurement: &str, tags: &[(&str, &str)]) -> Query {
    tags.iter().fold(Query::measurement(measurement), |query, (key, value)| query.tag(*key, *value))
}
