//! When what a server acknowledged has settled: VictoriaMetrics acknowledges from memory and loses some seconds of that when
//! it is killed. Reports whether it has been restarted since. Must not know the lane that keeps the lines.

use crate::server::exchange::NoAnswer;
use crate::server::http::Http;
use crate::server::vitals::Vitals;
use crate::server::vm_line::Takes;
use crate::server::watch::{Ignored, Page, Watch};
use graylogic_line::Timestamp;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A server whose lines settle is looked at this often, and other VictoriaMetrics this often.
const LOOK_EVERY: Duration = Duration::from_secs(5);
const LOOK_SELDOM: Duration = Duration::from_secs(60);
/// An answer that another lane got this long ago will do.
const SHARED: Duration = Duration::from_millis(500);

/// What a look at the server showed.
#[derive(Debug)]
pub(crate) enum Seen {
    /// It has run on: what it acknowledged at this moment or before it has settled. `by` is the run of it, if it shows that.
    Well { until: Instant, by: Option<u64> },
    /// It was started anew: what it acknowledged and did not settle may be lost. `by` as before, of the new run.
    Restarted { by: Option<u64> },
    /// It does not answer: nothing is known.
    Silent,
}

/// What one lane knows of its server in this regard.
#[derive(Debug)]
pub(crate) struct Settlement {
    watch: Arc<Watch>,
    /// How long lines take to settle; zero: they have when they are acknowledged.
    time: Duration,
    look_every: Duration,
    /// How often the server had been started anew when this lane's lines began to settle; `None` while it does not show.
    restarts: Option<u64>,
    /// A request got no answer since: what restarts are known by when the server does not show them.
    broke: bool,
}

impl Settlement {
    /// Times are divided by `hurry`.
    pub(crate) fn new(watch: Arc<Watch>, time: Duration, hurry: u32) -> Self {
        let time = time / hurry;
        let look_every = if time.is_zero() { LOOK_SELDOM } else { (LOOK_EVERY / hurry).min(time) };
        Self { watch, time, look_every, restarts: None, broke: false }
    }

    /// Whether lines settle some time after they were acknowledged.
    pub(crate) fn takes_time(&self) -> bool {
        !self.time.is_zero()
    }

    pub(crate) fn look_every(&self) -> Duration {
        self.look_every
    }

    /// A request got no answer.
    pub(crate) fn broke(&mut self) {
        self.broke = true;
    }

    /// Before the first line is sent: the run of the server that will acknowledge it, if it shows that.
    pub(crate) fn begin(&mut self, http: &Http) -> Option<u64> {
        let page = self.watch.page(http, recently()).ok()?;
        let run = page.run();
        self.restarts = run.map(|_| page.restarts);
        run
    }

    pub(crate) fn look(&mut self, http: &Http) -> Seen {
        let page = match self.watch.page(http, recently()) {
            Ok(page) => page,
            Err(NoAnswer::Stopped) => return Seen::Silent,
            Err(_) => {
                self.broke = true;
                return Seen::Silent;
            }
        };
        let shown = page.run().map(|_| page.restarts);
        let was_broken = std::mem::take(&mut self.broke);
        let restarted = match (self.restarts, shown) {
            (Some(before), Some(now)) => before != now,
            // It shows it for the first time, or not at all, or no more.
            _ => was_broken,
        };
        self.restarts = shown;
        if restarted {
            return Seen::Restarted { by: page.run() };
        }
        match page.asked_at.checked_sub(self.settles_in(&page)) {
            Some(until) => Seen::Well { until, by: page.run() },
            None => Seen::Silent,
        }
    }

    /// As long as is set, and never shorter than the server keeps readings in memory only.
    fn settles_in(&self, page: &Page) -> Duration {
        let flush = page.vitals.as_ref().and_then(Vitals::flushes_each).unwrap_or_default();
        // It begins anew while it writes, and writes for some time.
        if flush > self.time / 3 { self.time.max(flush * 3) } else { self.time }
    }

    /// What the server takes at this moment, as far as it shows that.
    pub(crate) fn takes(&self, http: &Http) -> Takes {
        let not_before = Instant::now().checked_sub(LOOK_SELDOM).unwrap_or_else(Instant::now);
        let page = self.watch.page(http, not_before);
        let is_known = page.is_ok();
        Takes { limits: page.map(|page| page.limits()).unwrap_or_default(), is_known, now: Timestamp::now() }
    }

    /// What the server ignored, if no other lane reported it.
    pub(crate) fn take_ignored(&self) -> Vec<Ignored> {
        self.watch.take_ignored()
    }
}

fn recently() -> Instant {
    let now = Instant::now();
    now.checked_sub(SHARED).unwrap_or(now)
}
