//! The client: connect, write without waiting, ask, flush, close. What happens behind the calls is in `lane.rs` and
//! `worker.rs`.

mod lines;
mod questions;

use crate::config::{Config, Target};
use crate::error::{Error, Kind};
use crate::fanout::{self, Router};
use crate::greeting::greet;
use crate::lane::Lane;
use crate::manage::Manage;
use crate::metrics;
use crate::notify::{Notifier, WriteError, WriteErrorKind};
use crate::query::try_query;
use crate::server::http::{Haste, Http};
use crate::server::preflight::{self, Preflight};
use crate::stats::Stats;
use crate::worker::{Works, start, start_notifier};
use graylogic_domain::{DEVICE_METRICS, DeviceMetric, ENERGY, EnergyMetric, PHM, PhmMetric};
use graylogic_durable::Level;
use graylogic_line::{Dialect, EncodeError, Encoder, FieldRef, Point, SeriesTemplate, Timestamp};
use graylogic_store::{State, Store, StoreOptions};
use std::fmt;
use std::sync::mpsc::RecvTimeoutError;
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
    /// The target that it asks.
    works: Arc<Works>,
    /// Where its lines go, unless a rule says otherwise.
    lane: Arc<Lane>,
    /// The rules; `None` when there are none, and when it was asked to ignore them.
    router: Option<Arc<Router>>,
}

struct Handle {
    /// The targets, the main one first.
    targets: Vec<Arc<Works>>,
    /// Whom all targets tell of errors.
    notifier: Arc<Notifier>,
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
    /// Every line that was accepted is at least this safe; one that was dropped is not safe at all.
    pub level: Level,
    /// Lines the target has.
    pub delivered: u64,
    /// Lines the target refused; the callback heard of each.
    pub rejected: u64,
    /// Lines that VictoriaMetrics acknowledged and may still lose. They stay in the spool on the disk: the next client of the
    /// folder sends them again if the server was restarted meanwhile.
    pub settling: u64,
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
    /// A server need not answer: readings are spooled until it does, unless `connect_strict` is set. It is pinged all the same,
    /// and `connect` does not wait for that: a server that cannot be reached is in [`Client::stats`], the error callback hears of
    /// it, and so does the log.
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
        Self::with(config, None)
    }

    /// What is right and wrong with the targets of a configuration, found out by asking them, all at once: nothing is stored.
    /// It waits for servers as long as their requests may take. Shown, it has a line for each check.
    ///
    /// # Errors
    /// [`Error::is_invalid_config`] when there is nothing to ask, because the configuration itself cannot be used.
    pub fn preflight(config: &Config) -> Result<Preflight, Error> {
        preflight::look(config, try_query)
    }

    /// A client of a store that is open already, as its main target; closing the client closes the store.
    ///
    /// # Errors
    /// As [`Client::connect`].
    pub fn connect_store(config: &Config, store: Store) -> Result<Self, Error> {
        if !config.is_enabled() {
            return Err(Error::new(Kind::Disabled, "influxdb.enabled is false: nothing is stored"));
        }
        Self::with(config, Some(store))
    }

    /// Opens all targets before it starts any: one that cannot be opened leaves nothing behind.
    fn with(config: &Config, mut main: Option<Store>) -> Result<Self, Error> {
        config.check_routes()?;
        config
            .targets()
            .iter()
            .try_for_each(|(name, config)| config.check().map_err(|e| e.of_target(name)))?;
        let mut opened = Vec::new();
        for (name, config) in config.targets() {
            let target = Opened::new(&config, main.take()).map_err(|e| e.of_target(&name))?;
            opened.push((name, config, target));
        }
        let notifier: Arc<Notifier> = Arc::default();
        let mut started = Started(Vec::new());
        let mut first = None;
        for (name, config, Opened { store, http }) in opened {
            let (works, lane) =
                start(&name, &config, store, http, &notifier).map_err(|e| e.of_target(&name))?;
            started.0.push(works);
            first.get_or_insert(lane);
        }
        let router = started.router(config)?;
        start_notifier(&notifier)?;
        started.0.iter().try_for_each(greet)?;
        let targets = std::mem::take(&mut started.0);
        let (Some(works), Some(lane)) = (targets.first().cloned(), first) else {
            return Err(Error::new(Kind::ConnectionFailed, "the client has no target"));
        };
        // The oldest dialect every version of the server reads, and the embedded store.
        let encoder = Encoder::new(Dialect::V2);
        let handle = Arc::new(Handle { targets, notifier, encoder, closed: Mutex::new(None) });
        Ok(Self { handle, works, lane, router })
    }

    /// The same client, whose readings go to another bucket of the same target and whose questions ask it. It follows no
    /// rules.
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
    /// energy.write_energy_metric("hvac-main", 450.0, None)?;
    /// let report = client.close(Duration::from_secs(10))?;
    /// assert_eq!(report.delivered, 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::is_not_connected`] after close, [`Error::is_invalid_config`] for an empty name and for more than 64
    /// buckets, [`Error::is_connection_failed`] when the bucket cannot be made, or threads cannot be started.
    pub fn bucket(&self, name: &str) -> Result<Self, Error> {
        self.pinned(&self.works, name)
    }

    /// The same client, whose readings go to this target, to a bucket of it or to the configured one, and whose questions
    /// ask it. It follows no rules. The target of the section `influxdb` itself is `main`.
    ///
    /// # Errors
    /// As [`Client::bucket`], and [`Error::is_invalid_config`] when there is no target of this name.
    pub fn target(&self, name: &str, bucket: Option<&str>) -> Result<Self, Error> {
        let Some(works) = self.handle.targets.iter().find(|works| works.name == name) else {
            let known = self.targets().join(", ");
            let message = format!("there is no target {name:?}; the targets are {known}");
            return Err(Error::new(Kind::InvalidConfig, message));
        };
        self.pinned(works, bucket.unwrap_or(works.config.bucket()))
    }

    /// The names of the targets, that of the main one first.
    #[must_use]
    pub fn targets(&self) -> Vec<String> {
        self.handle.targets.iter().map(|works| works.name.clone()).collect()
    }

    fn pinned(&self, works: &Arc<Works>, bucket: &str) -> Result<Self, Error> {
        let lane = open(works, bucket)?;
        Ok(Self { handle: self.handle.clone(), works: works.clone(), lane, router: None })
    }

    /// What manages its target: its buckets and their retention, its tokens, its tasks, deleting. Cheap; it may outlive
    /// the client, and then answers [`Error::is_not_connected`].
    #[must_use]
    pub fn manage(&self) -> Manage {
        let works = &self.works;
        Manage::of(works.store.as_ref(), works.http.as_ref(), &works.config, &works.closing)
    }

    /// What the client works with for its target.
    fn works(&self) -> &Works {
        &self.works
    }

    fn lanes(&self) -> Vec<Arc<Lane>> {
        self.handle.lanes()
    }

    /// Whether the client is open and its lines get through.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        let gets_through = |lane: &Arc<Lane>| lane.status().trouble.is_none() && lane.fault().is_none();
        !self.works().is_closing() && self.lanes().iter().all(gets_through) && !self.handle.notifier.is_gone()
    }

    /// Asks the targets, all at once, whether they take readings; waits at most until the deadline.
    ///
    /// # Errors
    /// [`Error::is_not_connected`] after close, [`Error::is_connection_failed`] with the reason when a target does not, and
    /// when a thread of the client panicked and has not worked again since;
    /// [`Error::is_timed_out`] when it does not answer.
    pub fn health_check(&self, deadline: Duration) -> Result<(), Error> {
        if self.works().is_closing() {
            return Err(Error::closed());
        }
        self.handle.own_health()?;
        let until = after(deadline);
        let ask = |works: &Arc<Works>| {
            let (answer, told) = std::sync::mpsc::sync_channel(1);
            let asked = works.clone();
            let ask = move || {
                let _nobody_waits = answer.send(asked.health());
            };
            let thread = std::thread::Builder::new().name("influxdb-health".into());
            thread
                .spawn(ask)
                .map_err(|e| Error::because(Kind::ConnectionFailed, "ask for the target's health", e))?;
            Ok((works.clone(), told))
        };
        let asked: Vec<_> = self.handle.targets.iter().map(ask).collect::<Result<_, Error>>()?;
        for (works, told) in asked {
            let answer = told.recv_timeout(until.saturating_duration_since(Instant::now()));
            let answer = answer.unwrap_or_else(|why| match why {
                RecvTimeoutError::Timeout => {
                    let message = format!("ask for the target's health: no answer within {deadline:?}");
                    Err(Error::new(Kind::TimedOut, message).retryable(true))
                }
                RecvTimeoutError::Disconnected => {
                    let message = "ask for the target's health: the thread that asked panicked; ask again";
                    Err(Error::new(Kind::ConnectionFailed, message).retryable(true))
                }
            });
            answer.map_err(|e| e.of_target(&works.name))?;
        }
        Ok(())
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

    /// Writes power in watts and, when it is known, a meter's reading in kilowatt-hours, now. They are stored as given: a
    /// device that draws 450 W reports 450.
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
        self.accept(self.lanes_of(point), point.time(), |time, out| self.encode(point, time, out))
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
        let routed = self.router.as_ref().and_then(|router| router.lanes(measurement, tags));
        let lanes = routed.cloned().unwrap_or_else(|| Arc::new([self.lane.clone()]));
        Ok(SeriesHandle { client: self.clone(), template, lanes })
    }

    /// The lanes of a reading: compared with the rules, where there are any.
    #[inline]
    fn routed<K: AsRef<str>, V: AsRef<str>>(&self, measurement: &str, tags: &[(K, V)]) -> &[Arc<Lane>] {
        let routed = self.router.as_ref().and_then(|router| router.lanes(measurement, tags));
        routed.map_or(std::slice::from_ref(&self.lane), |lanes| lanes)
    }

    fn lanes_of(&self, point: &Point) -> &[Arc<Lane>] {
        self.routed(point.measurement(), point.tags())
    }

    /// Writes a point as a line, with its own time or this.
    fn encode(&self, point: &Point, time: Timestamp, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        match point.time() {
            Some(_) => self.handle.encoder.encode(point, out),
            None => self.handle.encoder.encode(&point.clone().timestamp(time), out),
        }
    }

    #[inline]
    fn accept(
        &self,
        lanes: &[Arc<Lane>],
        time: Option<Timestamp>,
        encode: impl FnOnce(Timestamp, &mut Vec<u8>) -> Result<(), EncodeError>,
    ) -> Result<(), Error> {
        fanout::give(lanes, &self.handle.notifier, time, encode, |_, _| {})
    }

    /// [`Client::write_point`] for a plain thread that may wait: while too many readings are pending, it waits for room, up to
    /// `timeout`, instead of rejecting the point.
    ///
    /// ```no_run
    /// # fn main() -> Result<(), graylogic_influxdb::Error> {
    /// # let client = graylogic_influxdb::Client::connect(&graylogic_influxdb::Config::embedded("data"))?;
    /// # let points: Vec<graylogic_influxdb::Point> = Vec::new();
    /// for point in points {
    ///     client.write_point_timeout(&point, std::time::Duration::from_secs(60))?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Client::write_point`]; [`Error::is_full`] when there is no room within the time.
    pub fn write_point_timeout(&self, point: &Point, timeout: Duration) -> Result<(), Error> {
        let until = Instant::now() + timeout;
        let lanes = self.lanes_of(point);
        let time = fanout::stamp(point.time(), lanes, &self.handle.notifier);
        loop {
            match self.accept(lanes, Some(time), |time, out| self.encode(point, time, out)) {
                Err(error) if error.is_full() && fanout::wait_for_room(lanes, until) => {}
                done => return done,
            }
        }
    }

    /// Waits until the client accepts readings for its bucket, or the time is up; returns whether it does. For a plain thread
    /// that got [`Error::is_full`] from any call that writes. Another thread may take the room first: then the call is
    /// rejected again.
    #[must_use]
    pub fn wait_for_room(&self, timeout: Duration) -> bool {
        self.lane.queue.wait_for_room(Instant::now() + timeout)
    }

    /// [`Client::write_point`] for asynchronous code that may wait: while too many readings wait, it waits for room instead
    /// of refusing. With `spool_when_full: block` no reading is dropped, and none refused to who calls this.
    ///
    /// A point with several destinations goes at once to those that have room. It is waited for room while none has, and
    /// for those that block until each has taken it; the others do without it, as the error callback hears. Given up while it
    /// waits, it is where it was taken.
    ///
    /// # Errors
    /// As [`Client::write_point`], but for a full spool; [`Error::is_not_connected`] when the client is closed meanwhile.
    pub async fn write_point_async(&self, point: &Point) -> Result<(), Error> {
        let encode = |time, out: &mut Vec<u8>| self.encode(point, time, out);
        fanout::give_waiting(self.lanes_of(point), &self.handle.notifier, point.time(), encode).await
    }

    /// Writes a point and returns when it survives a power cut: on the spool's disk, or in the target. With several
    /// destinations, when it does in each that took it.
    ///
    /// # Errors
    /// As [`Client::write_point`]; [`Error::is_not_connected`] when the client is closed before.
    pub async fn write_durable(&self, point: &Point) -> Result<(), Error> {
        let mut told = Vec::new();
        let encode = |time, out: &mut Vec<u8>| self.encode(point, time, out);
        let lanes = self.lanes_of(point);
        fanout::give(lanes, &self.handle.notifier, point.time(), encode, |lane, accepted| {
            let (answer, reached) = oneshot::channel();
            lane.queue.when(Level::Durable, accepted, move |reached| {
                let _nobody_waits = answer.send(reached);
            });
            told.push(reached);
        })?;
        for reached in told {
            if !matches!(reached.await, Ok(true)) {
                return Err(Error::closed());
            }
        }
        Ok(())
    }

    fn device(&self, metric: DeviceMetric<'_>, time: Option<Timestamp>) -> Result<(), Error> {
        let lanes = self.routed(DEVICE_METRICS, &metric.tags());
        self.accept(lanes, time, |time, out| metric.encode(&self.handle.encoder, time, out))
    }

    fn energy(&self, metric: EnergyMetric<'_>, time: Option<Timestamp>) -> Result<(), Error> {
        let lanes = self.routed(ENERGY, &metric.tags());
        self.accept(lanes, time, |time, out| metric.encode(&self.handle.encoder, time, out))
    }

    fn phm(&self, metric: PhmMetric<'_>, time: Option<Timestamp>) -> Result<(), Error> {
        let lanes = self.routed(PHM, &metric.tags());
        self.accept(lanes, time, |time, out| metric.encode(&self.handle.encoder, time, out))
    }

    /// Calls `callback` with readings that were accepted and then refused, delayed or dropped: on a thread of its own, at
    /// most ten times a second, with counts. It may call any method, also [`Client::close`]. News from before it was
    /// set is told too. A callback that panics is counted and called again. One that holds a client keeps it open until it
    /// is closed.
    pub fn set_on_error(&self, callback: impl Fn(&WriteError) + Send + Sync + 'static) {
        self.handle.notifier.set_callback(Arc::new(callback));
    }

    /// Returns when everything accepted before the call is so safe, for all targets and buckets.
    ///
    /// With the embedded store [`Level::Durable`] and [`Level::Delivered`] are the same: in the store, and synced. With
    /// VictoriaMetrics [`Level::Delivered`] comes [`Config::settle_time`] after [`Level::Acknowledged`]. While somebody waits for
    /// either, a server that did not take readings is tried every two seconds at least, unless
    /// it asked for more time itself.
    ///
    /// # Errors
    /// [`Error::is_timed_out`] when the deadline passes first: nothing is lost, what waits is still tried.
    /// [`Error::is_not_connected`] after close.
    pub fn flush(&self, level: Level, deadline: Duration) -> Result<FlushReport, Error> {
        if self.works().is_closing() {
            return Err(Error::closed());
        }
        let lanes = self.lanes();
        let servers = self.handle.targets.iter().filter_map(|works| works.http.as_ref());
        let _while_this_waits: Vec<Haste> = match level {
            Level::Acknowledged | Level::Delivered => servers.map(|http| http.stop().haste()).collect(),
            _ => Vec::new(),
        };
        // All lanes hurry at once, however long the first takes.
        let wanted: Vec<u64> = lanes.iter().map(|lane| lane.queue.hurry(level)).collect();
        let until = after(deadline);
        let left =
            lanes.iter().zip(wanted).map(|(lane, wanted)| (lane, lane.queue.wait_for(level, wanted, until)));
        let left: Vec<(&Arc<Lane>, u64)> = left.filter(|(_, lines)| *lines > 0).collect();
        if left.is_empty() {
            let waiting = lanes.iter().map(|lane| lane.queue.stats().waiting).sum();
            return Ok(FlushReport { level, waiting });
        }
        let trouble = |lane: &Arc<Lane>| {
            let trouble = lane.status().trouble.as_ref().map(|t| t.reason.clone());
            trouble.or_else(|| lane.queue.stats().degraded)
        };
        let why = left.iter().find_map(|(lane, _)| trouble(lane));
        let why = why.map_or_else(String::new, |t| format!(" because {t}"));
        let mut names: Vec<String> = left.iter().map(|(lane, _)| format!("{:?}", lane.target)).collect();
        names.dedup();
        let whose = match (self.handle.targets.len(), names.len()) {
            (1, _) => String::new(),
            (_, 1) => format!(" for target {}", names.join("")),
            _ => format!(" for targets {}", names.join(", ")),
        };
        let left: u64 = left.iter().map(|(_, lines)| lines).sum();
        let message =
            format!("flush: {left} readings still wait{whose} after {deadline:?}{why}; they are tried again");
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
    /// Closing again returns the first report. A target with a spool on a disk is tried once more: if it does not take
    /// readings then, and all of them are durable in the spool, `close` returns without waiting for the deadline, and the next
    /// client delivers them. Readings that are in memory only are tried until the deadline; then they are dropped, counted, and
    /// reported to the error callback. `close` waits a little longer for a disk that is still taking readings into the spool.
    ///
    /// # Errors
    /// None at present; the report says what was left.
    pub fn close(&self, deadline: Duration) -> Result<CloseReport, Error> {
        if self.handle.notifier.is_current_thread() {
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

    /// What the client has done, over all targets and buckets: a reading with two destinations counts as two lines.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let (callbacks, callback_panics) = self.handle.notifier.counts();
        let all = self.lanes().iter().map(|lane| Stats::of(lane)).reduce(Stats::and);
        Stats { callbacks, callback_panics, ..all.unwrap_or_default() }
    }

    /// What the client has done for each bucket, the configured one first, and those of further targets last, each behind the
    /// name of its target and a slash; calls of the error callback are counted over all of them, by [`Client::stats`].
    #[must_use]
    pub fn buckets(&self) -> Vec<(String, Stats)> {
        self.lanes().iter().map(|lane| (lane.name(), Stats::of(lane))).collect()
    }

    /// [`Client::buckets`] in the text that Prometheus reads, for a page that is served as [`METRICS_CONTENT_TYPE`].
    ///
    /// [`METRICS_CONTENT_TYPE`]: crate::METRICS_CONTENT_TYPE
    #[must_use]
    pub fn metrics(&self) -> String {
        let of = |lane: &Arc<Lane>| (lane.target.clone(), lane.bucket.clone(), Stats::of(lane));
        metrics::render(&self.lanes().iter().map(of).collect::<Vec<_>>())
    }

    /// Gives what [`Client::metrics`] says to the recorder that the program has installed with the crate
    /// [`metrics`](https://docs.rs/metrics), under the same names. Call it before that is read: nothing else gives it anything.
    #[cfg(feature = "metrics")]
    pub fn record_metrics(&self) {
        let of = |lane: &Arc<Lane>| (lane.target.clone(), lane.bucket.clone(), Stats::of(lane));
        metrics::record(&self.lanes().iter().map(of).collect::<Vec<_>>());
    }

    /// The embedded store behind the client, for pages and tools; `None` when its target is a server.
    #[must_use]
    pub fn store(&self) -> Option<&Store> {
        self.works().store.as_ref()
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

/// A target that was opened.
struct Opened {
    store: Option<Store>,
    http: Option<Http>,
}

impl Opened {
    fn new(config: &Config, store: Option<Store>) -> Result<Self, Error> {
        match (config.target(), store) {
            (_, Some(store)) => Self::ready(config, store),
            (Target::Embedded(folder), None) => {
                let store = Store::open(folder, StoreOptions::default())
                    .map_err(|e| connection_failed("connect to the embedded store", e))?;
                Self::ready(config, store)
            }
            (Target::Remote(url), None) => {
                let http = Http::new(config, url)?;
                if config.is_strict() {
                    preflight::strict(config, &http)?;
                }
                Ok(Self { store: None, http: Some(http) })
            }
        }
    }

    fn ready(config: &Config, store: Store) -> Result<Self, Error> {
        store
            .ensure_bucket(config.bucket())
            .map_err(|e| connection_failed("connect to the embedded store", e))?;
        Ok(Self { store: Some(store), http: None })
    }
}

/// Targets that were started; when the client does not come to be, they end.
struct Started(Vec<Arc<Works>>);

impl Started {
    /// The rules of a configuration with their lanes.
    fn router(&self, config: &Config) -> Result<Option<Arc<Router>>, Error> {
        let mut router = Vec::new();
        for route in config.routes_on() {
            let mut lanes = Vec::new();
            for destination in route.destinations() {
                let Some(works) = self.0.iter().find(|works| works.name == destination.target) else {
                    continue;
                };
                let bucket = destination.bucket.as_deref().unwrap_or(works.config.bucket());
                lanes.push(open(works, bucket).map_err(|e| e.of_target(&works.name))?);
            }
            router.push((route, lanes.into()));
        }
        Ok((!router.is_empty()).then(|| Arc::new(Router(router))))
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        self.0.iter().for_each(|works| works.close_lanes());
        self.0.iter().for_each(|works| works.abandon());
        let until = Instant::now() + Duration::from_secs(1);
        for works in &self.0 {
            works.wait_ended(until);
            works.release_spool();
        }
        let closing: Vec<_> = self.0.iter().filter_map(|works| works.close_store()).collect();
        closing.iter().for_each(|closing| closing.wait(until));
    }
}

/// The lane of a bucket, which the embedded store makes when there is none.
fn open(works: &Arc<Works>, bucket: &str) -> Result<Arc<Lane>, Error> {
    if works.is_closing() {
        return Err(Error::closed());
    }
    if bucket.is_empty() {
        return Err(Error::new(Kind::InvalidConfig, "the name of the bucket is empty; give it one"));
    }
    if let Some(store) = &works.store {
        store.ensure_bucket(bucket).map_err(|e| connection_failed(&format!("open bucket {bucket:?}"), e))?;
    }
    works.lane(bucket)
}

impl Handle {
    /// The lanes of all targets, those of the main one first.
    fn lanes(&self) -> Vec<Arc<Lane>> {
        self.targets.iter().flat_map(|works| works.lanes()).collect()
    }

    /// Whether the client's own threads do their work.
    fn own_health(&self) -> Result<(), Error> {
        let failed = |why: String| Err(Error::new(Kind::ConnectionFailed, why).retryable(true));
        for lane in self.lanes() {
            if let Some(fault) = lane.fault() {
                return failed(format!("write to bucket {:?}: {fault}", lane.bucket))
                    .map_err(|e| e.of_target(&lane.target));
            }
        }
        match self.notifier.is_gone() {
            true => failed("the thread that reports errors has ended: connect again".to_owned()),
            false => Ok(()),
        }
    }

    fn close(&self, deadline: Duration) -> CloseReport {
        let until = after(deadline);
        let targets = &self.targets;
        targets.iter().for_each(|works| works.close_lanes());
        if self.notifier.is_current_thread() {
            // The callback closes: it cannot wait for itself, and another call may be waiting for it.
            let report = self.report(false);
            self.notifier.end(until);
            return report;
        }
        let mut closed = self.closed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(report) = *closed {
            return report;
        }
        // They end side by side: who comes first here has the time of all.
        let late: Vec<_> = targets.iter().filter(|works| !works.wait_ended(until)).collect();
        spool_the_rest(&late);
        late.iter().for_each(|works| works.abandon());
        let grace = Instant::now() + Duration::from_secs(1);
        late.iter().for_each(|works| {
            works.wait_ended(grace);
        });
        for works in targets {
            works.stop_requests();
            works.release_spool();
            works.count_abandoned();
        }
        // A dropped reading is news as well, and has a moment to be told after the deadline.
        let errors_told = self.notifier.end(until.max(Instant::now() + Duration::from_millis(500)));
        self.notifier.nobody_left();
        let until = until.max(Instant::now() + Duration::from_secs(1));
        let closing: Vec<_> = targets.iter().filter_map(|works| works.close_store()).collect();
        closing.iter().for_each(|closing| closing.wait(until));
        let report = self.report(errors_told);
        *closed = Some(report);
        report
    }

    fn report(&self, errors_told: bool) -> CloseReport {
        let all = self.lanes().iter().map(|lane| Stats::of(lane)).reduce(Stats::and).unwrap_or_default();
        CloseReport {
            level: self.lanes().iter().map(|lane| safe(lane, all.dropped)).min().unwrap_or_default(),
            delivered: all.delivered,
            rejected: all.rejected,
            settling: all.settling,
            spooled: all.waiting.saturating_sub(all.settling),
            dropped: all.dropped,
            errors_told,
        }
    }
}

/// A store that is closing on a thread of its own.
struct Closing(std::sync::mpsc::Receiver<()>);

impl Closing {
    /// A disk that hangs does not hold up the caller for longer than that.
    fn wait(&self, until: Instant) {
        if self.0.recv_timeout(until.saturating_duration_since(Instant::now())).is_err() {
            tracing::error!("the store is still closing: the disk does not answer");
        }
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

    /// What waits and is on no disk is lost now.
    fn count_abandoned(&self) {
        for lane in self.lanes() {
            let queue = lane.queue.stats();
            let lost = if self.on_disk { queue.in_memory } else { queue.waiting };
            lane.status().abandoned = lost;
            if lost > 0 {
                let reason = "the client was closed before the target took them".to_owned();
                let (target, bucket) = (lane.target.clone(), lane.bucket.clone());
                let kind = WriteErrorKind::Dropped;
                self.notifier.add(WriteError {
                    kind,
                    target,
                    bucket,
                    lines: lost,
                    reason,
                    first: Vec::new(),
                });
            }
        }
    }

    /// Begins to close the store, when it has one.
    fn close_store(&self) -> Option<Closing> {
        let store = self.store.clone()?;
        let (done, closed) = std::sync::mpsc::sync_channel(1);
        let close = move || {
            if let Err(error) = store.close() {
                tracing::error!(%error, "the store could not be closed cleanly");
            }
            let _nobody_waits = done.send(());
        };
        if std::thread::Builder::new().name("influxdb-close".into()).spawn(close).is_err() {
            tracing::error!("the store could not be closed: no thread could be started");
            return None;
        }
        Some(Closing(closed))
    }
}

/// Gives every spool on a disk the time it needs for what is still in memory, all at once: each has a disk of its own.
fn spool_the_rest(late: &[&Arc<Works>]) {
    std::thread::scope(|scope| {
        for works in late.iter().filter(|works| works.on_disk) {
            let thread = std::thread::Builder::new().name("influxdb-close".into());
            if thread.spawn_scoped(scope, || works.spool_the_rest()).is_err() {
                works.spool_the_rest();
            }
        }
    });
}

impl Drop for Handle {
    fn drop(&mut self) {
        if self.notifier.is_current_thread() {
            // The callback held the last clone.
            self.targets.iter().for_each(|works| works.close_lanes());
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
        let Lane { target, bucket, .. } = &*self.lane;
        f.debug_struct("Client").field("target", target).field("bucket", bucket).finish_non_exhaustive()
    }
}

/// A series of a client whose names were checked once.
#[derive(Clone, Debug)]
pub struct SeriesHandle {
    client: Client,
    template: SeriesTemplate,
    /// As the rules have it for its names.
    lanes: Arc<[Arc<Lane>]>,
}

impl SeriesHandle {
    /// Writes one value for each field, at a time or now.
    ///
    /// # Errors
    /// As [`Client::write_device_metric_at`], and when the number of values is not that of the fields.
    pub fn write(&self, values: &[FieldRef<'_>], time: Option<Timestamp>) -> Result<(), Error> {
        self.client.accept(&self.lanes, time, |time, out| self.template.encode(values, Some(time), out))
    }

    /// Writes the one float of a series with one field.
    ///
    /// # Errors
    /// As [`SeriesHandle::write`].
    pub fn write_float(&self, value: f64, time: Option<Timestamp>) -> Result<(), Error> {
        self.client.accept(&self.lanes, time, |time, out| self.template.encode_float(value, time, out))
    }
}

/// How safe the lines of a lane are.
fn safe(lane: &Lane, dropped: u64) -> Level {
    let accepted = lane.queue.stats().accepted;
    let reaches = |level: &Level| lane.queue.wait_for(*level, accepted, Instant::now()) == 0;
    let levels = [Level::Delivered, Level::Durable, Level::Spooled];
    levels.into_iter().find(|level| dropped == 0 && reaches(level)).unwrap_or_default()
}

/// A moment after a duration, however long it is.
fn after(duration: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(duration).unwrap_or(now + Duration::from_secs(1 << 31))
}

fn connection_failed(doing: &str, error: graylogic_store::Error) -> Error {
    let retryable = error.is_retryable();
    Error::because(Kind::ConnectionFailed, doing, error).retryable(retryable)
}
