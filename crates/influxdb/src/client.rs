//! The client: connect, write without waiting, ask, flush, close. What happens behind the calls is in `lane.rs` and
//! `worker.rs`.

use crate::asking;
use crate::config::{Config, Target};
use crate::error::{Error, Kind};
use crate::http::{Http, wait_for};
use crate::lane::Lane;
use crate::manage::Manage;
use crate::metrics;
use crate::notify::{WriteError, WriteErrorKind};
use crate::preflight::{self, Preflight};
use crate::query::{Aggregate, CheckedQuery, LatestValue, Query, QuerySeries};
use crate::stats::Stats;
use crate::worker::{Works, start};
use graylogic_domain::{DeviceMetric, EnergyMetric, PhmMetric};
use graylogic_durable::Level;
use graylogic_line::{Dialect, EncodeError, Encoder, FieldRef, Point, SeriesTemplate, Timestamp};
use graylogic_store::{State, Store, StoreOptions};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// How long dropping the last clone of a client may take.
const DROP_DEADLINE: Duration = Duration::from_secs(5);

/// A client: writes readings without ever waiting, and answers questions.
///
/// Cheap to clone; all clones are the same client. It owns its threads and works from plain threads and from any
/// asynchronous runtime. Dropping the last clone closes it within five seconds.
#[derive(Clone)]
pub struct Client {
    handle: Arc<Handle>,
    /// Where its lines go.
    lane: Arc<Lane>,
}

struct Handle {
    works: Arc<Works>,
    encoder: Encoder,
    /// The report of the first close.
    closed: Mutex<Option<CloseReport>>,
}

/// What a flush reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FlushReport {
    /// Everything accepted before the flush is at least this safe.
    pub level: Level,
    /// Lines that wait for the target, those of an earlier life and those accepted meanwhile included.
    pub waiting: u64,
}

/// What a close left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CloseReport {
    /// Lines the target has.
    pub delivered: u64,
    /// Lines the target refused; the callback heard of each.
    pub rejected: u64,
    /// Lines that wait in the spool on the disk: the next client of the folder delivers them.
    pub spooled: u64,
    /// Lines that were dropped because the deadline passed and they were in memory only, or because the spool was full;
    /// the callback heard of them.
    pub dropped: u64,
    /// Whether every error was told before the deadline.
    pub errors_told: bool,
}

impl Client {
    /// A client of the configured target, ready to write.
    ///
    /// A server need not answer: readings are spooled until it does, unless `connect_strict` is set.
    ///
    /// # Errors
    /// [`Error::is_disabled`] when the configuration says so, [`Error::is_invalid_config`] when a name in it is empty,
    /// [`Error::is_connection_failed`] when the store or the spool
    /// cannot be opened because somebody else has it, or, with `connect_strict`, when the server does not answer, or
    /// refuses the token, the organisation or the bucket.
    pub fn connect(config: &Config) -> Result<Self, Error> {
        if !config.is_enabled() {
            return Err(Error::new(Kind::Disabled, "influxdb.enabled is false: nothing is stored"));
        }
        config.check()?;
        match config.target() {
            Target::Embedded(folder) => {
                let store = Store::open(folder, StoreOptions::default())
                    .map_err(|e| connection_failed("connect to the embedded store", e))?;
                Self::connect_store(config, store)
            }
            Target::Remote(url) => {
                let http = Http::new(config, url)?;
                if config.is_strict() {
                    preflight::strict(config, &http)?;
                }
                // The oldest dialect every version of the server reads.
                Ok(Self::with(start(config, None, Some(http))?, Encoder::new(Dialect::V2)))
            }
        }
    }

    /// What is right and wrong with the target of a configuration, found out by asking it: nothing is stored. It waits for the
    /// server as long as its requests may take. Shown, it has a line for each check.
    ///
    /// # Errors
    /// [`Error::is_invalid_config`] when there is nothing to ask, because the configuration itself cannot be used.
    pub fn preflight(config: &Config) -> Result<Preflight, Error> {
        preflight::look(config)
    }

    /// A client of a store that is open already; closing the client closes the store.
    ///
    /// # Errors
    /// [`Error::is_disabled`], [`Error::is_invalid_config`], or [`Error::is_connection_failed`] when the bucket cannot be
    /// made.
    pub fn connect_store(config: &Config, store: Store) -> Result<Self, Error> {
        if !config.is_enabled() {
            return Err(Error::new(Kind::Disabled, "influxdb.enabled is false: nothing is stored"));
        }
        config.check()?;
        store
            .ensure_bucket(config.bucket())
            .map_err(|e| connection_failed("connect to the embedded store", e))?;
        // The embedded store reads what InfluxDB 2 reads.
        Ok(Self::with(start(config, Some(store), None)?, Encoder::new(Dialect::V2)))
    }

    fn with((works, lane): (Arc<Works>, Arc<Lane>), encoder: Encoder) -> Self {
        Self { handle: Arc::new(Handle { works, encoder, closed: Mutex::new(None) }), lane }
    }

    /// The same client, whose readings go to another bucket of the same target and whose questions ask it.
    ///
    /// Every bucket has a lane of its own: one whose readings the server refuses does not hold up the others. Flush,
    /// close, health and counts are of all buckets; [`Client::buckets`] tells them apart. The embedded store makes the
    /// bucket when there is none. It may wait for the disk: ask once, and keep the answer.
    ///
    /// ```
    /// # use graylogic_influxdb::{Client, Config};
    /// # use std::time::Duration;
    /// # let folder = tempfile::tempdir()?;
    /// let client = Client::connect(&Config::embedded(folder.path()))?;
    /// let energy = client.bucket("energy")?;
    /// client.write_device_metric("light-living-1", "level", 50.0)?; // to the configured bucket
    /// energy.write_energy_metric("hvac-main", -450.0, None)?;
    /// let report = client.close(Duration::from_secs(10))?;
    /// assert_eq!(report.delivered, 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::is_not_connected`] after close, [`Error::is_invalid_config`] for an empty name and for more than 64
    /// buckets, [`Error::is_connection_failed`] when the bucket cannot be made, or threads cannot be started.
    pub fn bucket(&self, name: &str) -> Result<Self, Error> {
        let works = &self.handle.works;
        if works.is_closing() {
            return Err(Error::closed());
        }
        if name.is_empty() {
            return Err(Error::new(Kind::InvalidConfig, "the name of the bucket is empty; give it one"));
        }
        if let Some(store) = &works.store {
            store.ensure_bucket(name).map_err(|e| connection_failed(&format!("open bucket {name:?}"), e))?;
        }
        Ok(Self { handle: self.handle.clone(), lane: works.lane(name)? })
    }

    /// What manages the target: its buckets and their retention, its tokens, its tasks, deleting. Cheap; it may outlive
    /// the client, and then answers [`Error::is_not_connected`].
    #[must_use]
    pub fn manage(&self) -> Manage {
        Manage::of(&self.handle.works)
    }

    fn works(&self) -> &Works {
        &self.handle.works
    }

    /// Whether the client is open and its lines get through.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        let works = self.works();
        !works.is_closing() && works.lanes().iter().all(|lane| lane.status().trouble.is_none())
    }

    /// Asks the target whether it takes readings; waits at most until the deadline.
    ///
    /// # Errors
    /// [`Error::is_not_connected`] after close, [`Error::is_connection_failed`] with the reason when it does not,
    /// [`Error::is_timed_out`] when it does not answer.
    pub fn health_check(&self, deadline: Duration) -> Result<(), Error> {
        if self.works().is_closing() {
            return Err(Error::closed());
        }
        let (answer, told) = std::sync::mpsc::sync_channel(1);
        let works = self.handle.works.clone();
        let ask = move || {
            let _nobody_waits = answer.send(works.health());
        };
        let thread = std::thread::Builder::new().name("influxdb-health".into());
        thread
            .spawn(ask)
            .map_err(|e| Error::because(Kind::ConnectionFailed, "ask for the target's health", e))?;
        told.recv_timeout(deadline).unwrap_or_else(|_| {
            let message = format!("ask for the target's health: no answer within {deadline:?}");
            Err(Error::new(Kind::TimedOut, message).retryable(true))
        })
    }

    /// Writes a reading of a device, now: brightness, temperature, on or off as 1 or 0.
    ///
    /// # Errors
    /// [`Error::is_invalid_point`] for an id or value that cannot be written, [`Error::is_retryable`] when too many
    /// readings wait, [`Error::is_not_connected`] after close. Then the reading was not accepted.
    pub fn write_device_metric(&self, device_id: &str, measurement: &str, value: f64) -> Result<(), Error> {
        self.device(DeviceMetric { device_id, measurement, value }, None)
    }

    /// Like [`Client::write_device_metric`], at a time.
    ///
    /// # Errors
    /// As [`Client::write_device_metric`], and for a time that cannot be stored.
    pub fn write_device_metric_at(
        &self,
        device_id: &str,
        measurement: &str,
        value: f64,
        time: Timestamp,
    ) -> Result<(), Error> {
        self.device(DeviceMetric { device_id, measurement, value }, Some(time))
    }

    /// Writes power in watts and, when it is known, a meter's reading in kilowatt-hours, now. Positive power is
    /// generated, exported or discharged.
    ///
    /// # Errors
    /// As [`Client::write_device_metric`].
    pub fn write_energy_metric(
        &self,
        device_id: &str,
        power_watts: f64,
        energy_kwh: Option<f64>,
    ) -> Result<(), Error> {
        self.energy(EnergyMetric { device_id, power_watts, energy_kwh }, None)
    }

    /// Like [`Client::write_energy_metric`], at a time.
    ///
    /// # Errors
    /// As [`Client::write_device_metric_at`].
    pub fn write_energy_metric_at(
        &self,
        device_id: &str,
        power_watts: f64,
        energy_kwh: Option<f64>,
        time: Timestamp,
    ) -> Result<(), Error> {
        self.energy(EnergyMetric { device_id, power_watts, energy_kwh }, Some(time))
    }

    /// Writes a metric of the health of a machine, now.
    ///
    /// # Errors
    /// As [`Client::write_device_metric`].
    pub fn write_phm_metric(&self, device_id: &str, metric: &str, value: f64) -> Result<(), Error> {
        self.phm(PhmMetric { device_id, metric, value }, None)
    }

    /// Like [`Client::write_phm_metric`], at a time.
    ///
    /// # Errors
    /// As [`Client::write_device_metric_at`].
    pub fn write_phm_metric_at(
        &self,
        device_id: &str,
        metric: &str,
        value: f64,
        time: Timestamp,
    ) -> Result<(), Error> {
        self.phm(PhmMetric { device_id, metric, value }, Some(time))
    }

    /// Writes a point; one without a time gets the present one.
    ///
    /// # Errors
    /// As [`Client::write_device_metric_at`].
    pub fn write_point(&self, point: &Point) -> Result<(), Error> {
        match point.time() {
            Some(_) => self.accept(point.time(), |_, out| self.handle.encoder.encode(point, out)),
            None => {
                let encode =
                    |time, out: &mut Vec<u8>| self.handle.encoder.encode(&point.clone().timestamp(time), out);
                self.accept(None, encode)
            }
        }
    }

    /// Like [`Client::write_point`], at a time, whatever the point says.
    ///
    /// # Errors
    /// As [`Client::write_device_metric_at`].
    pub fn write_point_at(&self, point: &Point, time: Timestamp) -> Result<(), Error> {
        self.write_point(&point.clone().timestamp(time))
    }

    /// A handle of a series whose names are checked once: the fastest way to write its readings.
    ///
    /// # Errors
    /// [`Error::is_invalid_point`] when a name cannot be written.
    pub fn series(
        &self,
        measurement: &str,
        tags: &[(&str, &str)],
        fields: &[&str],
    ) -> Result<SeriesHandle, Error> {
        let template = SeriesTemplate::new(&self.handle.encoder, measurement, tags, fields)
            .map_err(|e| Error::because(Kind::InvalidPoint, "the series cannot be written", e))?;
        Ok(SeriesHandle { client: self.clone(), template })
    }

    #[inline]
    fn accept(
        &self,
        time: Option<Timestamp>,
        encode: impl FnOnce(Timestamp, &mut Vec<u8>) -> Result<(), EncodeError>,
    ) -> Result<(), Error> {
        self.lane.accept(time, encode).map(|_| ())
    }

    /// [`Client::write_point`] for asynchronous code that may wait: while too many readings wait, it waits for room instead
    /// of refusing. With `spool_when_full: block` no reading is dropped, and none refused to who calls this.
    ///
    /// # Errors
    /// As [`Client::write_point`], but for a full spool; [`Error::is_not_connected`] when the client is closed meanwhile.
    pub async fn write_point_async(&self, point: &Point) -> Result<(), Error> {
        loop {
            match self.write_point(point) {
                Err(error) if error.is_retryable() => {}
                done => return done,
            }
            let (answer, told) = oneshot::channel();
            self.lane.queue.when_room(move |open| {
                let _nobody_waits = answer.send(open);
            });
            if !matches!(told.await, Ok(true)) {
                return Err(Error::closed());
            }
        }
    }

    /// Writes a point and returns when it survives a power cut: on the spool's disk, or in the target.
    ///
    /// # Errors
    /// As [`Client::write_point`]; [`Error::is_not_connected`] when the client is closed before.
    pub async fn write_durable(&self, point: &Point) -> Result<(), Error> {
        let time = point.time();
        let lane = &self.lane;
        let accepted = lane.accept(time, |now, out| match time {
            Some(_) => self.handle.encoder.encode(point, out),
            None => self.handle.encoder.encode(&point.clone().timestamp(now), out),
        })?;
        let (answer, told) = oneshot::channel();
        lane.queue.when(Level::Durable, accepted, move |reached| {
            let _nobody_waits = answer.send(reached);
        });
        match told.await {
            Ok(true) => Ok(()),
            _ => Err(Error::closed()),
        }
    }

    fn device(&self, metric: DeviceMetric<'_>, time: Option<Timestamp>) -> Result<(), Error> {
        self.accept(time, |time, out| metric.encode(&self.handle.encoder, time, out))
    }

    fn energy(&self, metric: EnergyMetric<'_>, time: Option<Timestamp>) -> Result<(), Error> {
        self.accept(time, |time, out| metric.encode(&self.handle.encoder, time, out))
    }

    fn phm(&self, metric: PhmMetric<'_>, time: Option<Timestamp>) -> Result<(), Error> {
        self.accept(time, |time, out| metric.encode(&self.handle.encoder, time, out))
    }

    /// Calls `callback` with readings that were accepted and then refused, delayed or dropped: on a thread of its own, at
    /// most ten times a second, with counts. It may call any method, also [`Client::close`]. News from before it was
    /// set is told too. A callback that panics is counted and called again. One that holds a client keeps it open until it
    /// is closed.
    pub fn set_on_error(&self, callback: impl Fn(&WriteError) + Send + Sync + 'static) {
        self.works().notifier.set_callback(Arc::new(callback));
    }

    /// Returns when everything accepted before the call is so safe.
    ///
    /// With the embedded store [`Level::Durable`] and [`Level::Delivered`] are the same: in the store, and synced.
    ///
    /// # Errors
    /// [`Error::is_timed_out`] when the deadline passes first: nothing is lost, what waits is still tried.
    /// [`Error::is_not_connected`] after close.
    pub fn flush(&self, level: Level, deadline: Duration) -> Result<FlushReport, Error> {
        let works = self.works();
        if works.is_closing() {
            return Err(Error::closed());
        }
        let lanes = works.lanes();
        // All lanes hurry at once, however long the first takes.
        lanes.iter().for_each(|lane| lane.hurry(level));
        let until = after(deadline);
        let left: u64 = lanes.iter().map(|lane| lane.wait(level, until)).sum();
        if left == 0 {
            let waiting = lanes.iter().map(|lane| lane.queue.stats().waiting).sum();
            return Ok(FlushReport { level, waiting });
        }
        let trouble = |lane: &Arc<Lane>| {
            let trouble = lane.status().trouble.as_ref().map(|t| t.reason.clone());
            trouble.or_else(|| lane.queue.stats().degraded)
        };
        let why = lanes.iter().find_map(trouble).map_or_else(String::new, |t| format!(" because {t}"));
        let message =
            format!("flush: {left} readings still wait after {deadline:?}{why}; they are tried again");
        Err(Error::new(Kind::TimedOut, message).retryable(true))
    }

    /// [`Client::flush`] for asynchronous code; runs on any runtime, or none.
    ///
    /// # Errors
    /// As [`Client::flush`].
    pub async fn flush_async(&self, level: Level, deadline: Duration) -> Result<FlushReport, Error> {
        self.elsewhere("influxdb-flush", move |client| client.flush(level, deadline)).await
    }

    /// Takes no more readings, delivers what was accepted and every error, and frees the store or the spool.
    ///
    /// Closing again returns the first report. What the target does not take before the deadline stays in the spool on the
    /// disk, for the next client; what is in memory only is dropped, counted, and told to the callback. A disk that is still
    /// taking readings into the spool is waited for a little longer.
    ///
    /// # Errors
    /// None at present; the report says what was left.
    pub fn close(&self, deadline: Duration) -> Result<CloseReport, Error> {
        if self.works().notifier.is_current_thread() {
            // The callback cannot wait for itself: another thread closes what nobody else may.
            let client = self.clone();
            let close = move || {
                let _told_already = client.handle.close(deadline);
            };
            if let Err(error) = std::thread::Builder::new().name("influxdb-close".into()).spawn(close) {
                tracing::error!(%error, "the client is closed only when somebody else closes it: no thread could start");
            }
        }
        Ok(self.handle.close(deadline))
    }

    /// [`Client::close`] for asynchronous code; runs on any runtime, or none.
    ///
    /// # Errors
    /// As [`Client::close`].
    pub async fn close_async(&self, deadline: Duration) -> Result<CloseReport, Error> {
        self.elsewhere("influxdb-close", move |client| client.close(deadline)).await
    }

    /// What the client has done, over all buckets.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let (callbacks, callback_panics) = self.works().notifier.counts();
        let all = self.works().lanes().iter().map(|lane| Stats::of(lane)).reduce(Stats::and);
        Stats { callbacks, callback_panics, ..all.unwrap_or_default() }
    }

    /// What the client has done for each bucket, the configured one first; calls of the error callback are counted over
    /// all of them, by [`Client::stats`].
    #[must_use]
    pub fn buckets(&self) -> Vec<(String, Stats)> {
        self.works().lanes().iter().map(|lane| (lane.bucket.clone(), Stats::of(lane))).collect()
    }

    /// [`Client::buckets`] in the text that Prometheus reads, for a page that is served as [`METRICS_CONTENT_TYPE`].
    ///
    /// [`METRICS_CONTENT_TYPE`]: crate::METRICS_CONTENT_TYPE
    #[must_use]
    pub fn metrics(&self) -> String {
        metrics::render(&self.buckets())
    }

    /// The answer to a typed question, whichever target gives it, in the order of tags and fields.
    ///
    /// # Errors
    /// [`Error::is_query_failed`] with the reason; [`Error::is_unsupported`] when the language of the target cannot say what is
    /// asked; [`Error::is_not_connected`] after close.
    pub fn ask(&self, query: &Query) -> Result<Vec<QuerySeries>, Error> {
        match self.asked(query)? {
            Asked::Store(store, query) => query.ask_store(&store, &self.lane.bucket),
            Asked::Server(http, query) => wait_for(asking::ask(*http, query, self.org(), &self.lane.bucket)),
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
            Asked::Server(http, query) => asking::ask(*http, query, self.org(), &self.lane.bucket).await,
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

    /// The embedded store behind the client, for pages and tools; `None` when the target is a server.
    #[must_use]
    pub fn store(&self) -> Option<&Store> {
        self.works().store.as_ref()
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
    pub(crate) fn server(&self, what: &str) -> Result<Http, Error> {
        if self.works().is_closing() {
            return Err(Error::closed());
        }
        let message =
            format!("{what} is not answered by the embedded store in this version; use a typed query");
        self.works().http.clone().ok_or_else(|| Error::new(Kind::Unsupported, message))
    }

    /// The organisation of the target.
    pub(crate) fn org(&self) -> &str {
        self.works().config.org()
    }

    /// Runs a call that waits on a thread of its own, so that no runtime is held up.
    async fn elsewhere<T: Send + 'static>(
        &self,
        name: &str,
        call: impl FnOnce(&Self) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let (answer, told) = oneshot::channel();
        let client = self.clone();
        let run = move || {
            let _nobody_waits = answer.send(call(&client));
        };
        let thread = std::thread::Builder::new().name(name.into());
        thread.spawn(run).map_err(|e| Error::because(Kind::ConnectionFailed, "start a thread", e))?;
        told.await.unwrap_or_else(|_| Err(Error::closed()))
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

impl Handle {
    fn close(&self, deadline: Duration) -> CloseReport {
        let until = after(deadline);
        let works = &self.works;
        works.close_lanes();
        if works.notifier.is_current_thread() {
            // The callback closes: it cannot wait for itself, and another call may be waiting for it.
            let report = works.report(false);
            works.notifier.end(until);
            return report;
        }
        let mut closed = self.closed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(report) = *closed {
            return report;
        }
        if !works.wait_ended(until) {
            if works.on_disk {
                works.spool_the_rest();
            }
            works.abandon();
            works.wait_ended(Instant::now() + Duration::from_secs(1));
        }
        works.stop_requests();
        works.release_spool();
        works.count_abandoned();
        // A dropped reading is news as well, and has a moment to be told after the deadline.
        let errors_told = works.notifier.end(until.max(Instant::now() + Duration::from_millis(500)));
        works.notifier.nobody_left();
        works.close_store(until.max(Instant::now() + Duration::from_secs(1)));
        let report = works.report(errors_told);
        *closed = Some(report);
        report
    }
}

impl Works {
    /// Asks the target whether it takes readings.
    fn health(&self) -> Result<(), Error> {
        let Some(store) = &self.store else { return self.probe() };
        let stats = store.stats().map_err(|e| connection_failed("ask for the store's health", e))?;
        match stats.state {
            State::Degraded(why) => {
                let message = format!("the store is degraded: {why}");
                Err(Error::new(Kind::ConnectionFailed, message).retryable(true))
            }
            _ => Ok(()),
        }
    }

    fn report(&self, errors_told: bool) -> CloseReport {
        let all = self.lanes().iter().map(|lane| Stats::of(lane)).reduce(Stats::and).unwrap_or_default();
        CloseReport {
            delivered: all.delivered,
            rejected: all.rejected,
            spooled: all.waiting,
            dropped: all.dropped,
            errors_told,
        }
    }

    /// What waits and is on no disk is lost now.
    fn count_abandoned(&self) {
        for lane in self.lanes() {
            let queue = lane.queue.stats();
            let lost = if self.on_disk { queue.in_memory } else { queue.waiting };
            lane.status().abandoned = lost;
            if lost > 0 {
                let reason = "the client was closed before the target took them".to_owned();
                let bucket = lane.bucket.clone();
                let kind = WriteErrorKind::Dropped;
                self.notifier.add(WriteError { kind, bucket, lines: lost, reason, first: Vec::new() });
            }
        }
    }

    /// Closes the store; a disk that hangs does not hold up the caller for longer than that.
    fn close_store(&self, until: Instant) {
        let Some(store) = self.store.clone() else { return };
        let (done, closed) = std::sync::mpsc::sync_channel(1);
        let close = move || {
            if let Err(error) = store.close() {
                tracing::error!(%error, "the store could not be closed cleanly");
            }
            let _nobody_waits = done.send(());
        };
        if std::thread::Builder::new().name("influxdb-close".into()).spawn(close).is_err() {
            tracing::error!("the store could not be closed: no thread could be started");
            return;
        }
        if closed.recv_timeout(until.saturating_duration_since(Instant::now())).is_err() {
            tracing::error!("the store is still closing: the disk does not answer");
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if self.works.notifier.is_current_thread() {
            // The callback held the last clone.
            self.works.close_lanes();
            return;
        }
        let report = self.close(DROP_DEADLINE);
        if report.dropped > 0 {
            tracing::error!(
                readings = report.dropped,
                "a client was dropped before its readings were stored"
            );
        }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("bucket", &self.lane.bucket).finish_non_exhaustive()
    }
}

/// A series of a client whose names were checked once.
#[derive(Clone, Debug)]
pub struct SeriesHandle {
    client: Client,
    template: SeriesTemplate,
}

impl SeriesHandle {
    /// Writes one value for each field, at a time or now.
    ///
    /// # Errors
    /// As [`Client::write_device_metric_at`], and when the number of values is not that of the fields.
    pub fn write(&self, values: &[FieldRef<'_>], time: Option<Timestamp>) -> Result<(), Error> {
        self.client.accept(time, |time, out| self.template.encode(values, Some(time), out))
    }

    /// Writes the one float of a series with one field.
    ///
    /// # Errors
    /// As [`SeriesHandle::write`].
    pub fn write_float(&self, value: f64, time: Option<Timestamp>) -> Result<(), Error> {
        self.client.accept(time, |time, out| self.template.encode_float(value, time, out))
    }
}

/// A moment after a duration, however long it is.
fn after(duration: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(duration).unwrap_or(now + Duration::from_secs(1 << 31))
}

fn tagged(measurement: &str, tags: &[(&str, &str)]) -> Query {
    tags.iter().fold(Query::measurement(measurement), |query, (key, value)| query.tag(*key, *value))
}

fn connection_failed(doing: &str, error: graylogic_store::Error) -> Error {
    let retryable = error.is_retryable();
    Error::because(Kind::ConnectionFailed, doing, error).retryable(retryable)
}
