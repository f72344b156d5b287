//! Watches a VictoriaMetrics that readings go to: whether it was started anew, which costs it what it had acknowledged and not
//! written to its disk yet, and whether it ignores rows. One for all lanes of a target. Must not know lanes and lines.

use crate::server::exchange::{Method, NoAnswer, Request};
use crate::server::http::Http;
use crate::server::kind::{ServerKind, select_path};
use crate::server::retry::http_date;
use crate::server::vitals::{Limits, Vitals, reason_in_words};
use graylogic_line::Timestamp;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The page is given up after this time.
const PATIENCE: Duration = Duration::from_secs(5);
/// Runs of servers that may answer at one address: more are forgotten, the oldest first.
const RUNS_MAX: usize = 64;

/// What the lanes of a target know together of the server.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    seen: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    page: Option<Arc<Page>>,
    /// Of each run of a server that was seen, by its start, what it had counted.
    runs: Vec<Run>,
    /// How often a server was found to have been started anew, or a part of it.
    restarts: u64,
    /// What was ignored and not reported yet.
    ignored: Vec<Ignored>,
    /// What readings that come twice mean to the server was logged.
    has_warned: bool,
}

#[derive(Debug)]
struct Run {
    started: u64,
    breaks: u64,
    rows: u64,
    ignored: BTreeMap<String, u64>,
}

/// What the server showed at a moment.
#[derive(Debug)]
pub(crate) struct Page {
    /// Before the request was sent.
    pub(crate) asked_at: Instant,
    /// `None` when it shows nothing of itself.
    pub(crate) vitals: Option<Vitals>,
    /// How often it was found to have been started anew.
    pub(crate) restarts: u64,
}

/// Rows that the server ignored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ignored {
    pub(crate) rows: u64,
    pub(crate) why: String,
}

impl Page {
    /// This run of the server, as the next run of the client knows it again; never 0.
    pub(crate) fn run(&self) -> Option<u64> {
        let vitals = self.vitals.as_ref()?;
        Some((vitals.started << 24 | vitals.breaks & 0xff_ffff).max(1))
    }

    pub(crate) fn limits(&self) -> Limits {
        self.vitals.as_ref().map(|v| v.limits.clone()).unwrap_or_default()
    }
}

/// The request for the page. A cluster shows it above the places where it is written to.
pub(crate) fn request(http: &Http) -> Request {
    let scheme = ServerKind::VictoriaMetrics.scheme();
    let request = Request { timeout: Some(PATIENCE), ..Request::get("metrics").scheme(scheme) };
    let path = http.base().split_once("://").and_then(|(_, rest)| Some(&rest[rest.find('/')?..]));
    match path.and_then(select_path) {
        Some(_) => Request { location: Some("/metrics".to_owned()), ..request },
        None => request,
    }
}

/// What a server shows of itself, asked now; `None` when it takes writes and shows nothing.
pub(crate) fn vitals(http: &Http) -> Result<Option<Vitals>, NoAnswer> {
    let answer = match http.send(request(http)) {
        Ok(answer) => answer,
        // Whoever is in front of it may keep this page for itself in any way.
        Err(NoAnswer::Failed(why)) => {
            let write = Request { timeout: Some(PATIENCE), ..Request::new(Method::POST, "api/v2/write") };
            let answer = http.send(write.scheme(ServerKind::VictoriaMetrics.scheme()))?;
            return if answer.status < 500 { Ok(None) } else { Err(NoAnswer::Failed(why)) };
        }
        Err(why) => return Err(why),
    };
    let now = Timestamp::now().as_nanos() / 1_000_000_000;
    let ahead = answer.date.as_deref().and_then(http_date).map_or(0, |theirs| theirs - now);
    let vitals = Vitals::read(&answer).map(|mut vitals| {
        // Its date is of whole seconds.
        vitals.limits.clock_ahead = if ahead.abs() > 1 { ahead } else { 0 };
        vitals
    });
    // A server that is starting or stopping shows nothing yet.
    match vitals {
        None if answer.status >= 500 => {
            Err(NoAnswer::Failed(format!("the server answered GET /metrics with {}", answer.status)))
        }
        vitals => Ok(vitals),
    }
}

impl Watch {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the server showed, not before a moment. One lane asks, the others wait for the same answer.
    pub(crate) fn page(&self, http: &Http, not_before: Instant) -> Result<Arc<Page>, NoAnswer> {
        let mut known = self.known();
        if let Some(page) = known.page.as_ref().filter(|page| page.asked_at >= not_before) {
            return Ok(page.clone());
        }
        let asked_at = Instant::now();
        let page = known.take(asked_at, vitals(http)?);
        if !std::mem::replace(&mut known.has_warned, true) {
            warn_once(http.base(), page.vitals.as_ref());
        }
        Ok(page)
    }

    /// What was ignored since the last call, for the first lane that asks.
    pub(crate) fn take_ignored(&self) -> Vec<Ignored> {
        std::mem::take(&mut self.known().ignored)
    }
}

/// Reports how the server treats a reading that arrives twice: sent again, or corrected.
fn warn_once(server: &str, vitals: Option<&Vitals>) {
    match vitals.map(Vitals::deduplicates) {
        None => tracing::warn!(
            server,
            "VictoriaMetrics does not show /metrics: a restart is noticed by broken connections only"
        ),
        Some(Some(false)) => tracing::warn!(
            server,
            "VictoriaMetrics keeps every copy of a reading: what is sent again after a restart, and a correction, count twice; \
             start it with -dedup.minScrapeInterval=1ms"
        ),
        Some(Some(true)) => tracing::warn!(
            server,
            "VictoriaMetrics keeps one of several values for one time by a rule of its own: a correction may have no effect"
        ),
        Some(None) => {}
    }
}

impl Known {
    fn take(&mut self, asked_at: Instant, vitals: Option<Vitals>) -> Arc<Page> {
        if let Some(vitals) = &vitals {
            self.compare(vitals);
        }
        let page = Arc::new(Page { asked_at, vitals, restarts: self.restarts });
        self.page = Some(page.clone());
        page
    }

    /// Compares what a server shows with what the same run of it showed before. Several may answer at one address: one that
    /// was not seen before is taken for one that was started anew, once.
    fn compare(&mut self, vitals: &Vitals) {
        let Some(run) = self.runs.iter_mut().find(|run| run.started == vitals.started) else {
            // The first ever has nothing to lose, but counts of what it ignored before.
            self.restarts += u64::from(!self.runs.is_empty());
            if self.runs.len() == RUNS_MAX {
                self.runs.remove(0);
            }
            let Vitals { started, breaks, rows, ignored, .. } = vitals.clone();
            self.runs.push(Run { started, breaks, rows, ignored });
            return;
        };
        // A process that was started anew within a second counts from nothing.
        let began_anew = vitals.rows < run.rows;
        self.restarts += u64::from(began_anew || vitals.breaks > run.breaks);
        for (reason, count) in &vitals.ignored {
            let before = run.ignored.get(reason).filter(|_| !began_anew).copied().unwrap_or_default();
            let rows = count.saturating_sub(before);
            if rows > 0 {
                self.ignored.push(Ignored { rows, why: reason_in_words(reason) });
            }
        }
        (run.breaks, run.rows) = (vitals.breaks, vitals.rows);
        run.ignored.clone_from(&vitals.ignored);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shows(started: u64, rows: u64, breaks: u64, ignored: u64) -> Vitals {
        let ignored = [("small_timestamp".to_owned(), ignored)].into();
        Vitals { started, rows, breaks, ignored, ..Vitals::default() }
    }

    #[test]
    fn a_restart_is_seen_by_the_start_by_the_counts_and_by_broken_connections_of_a_cluster() {
        let mut known = Known::default();
        for (vitals, restarts) in [
            (shows(100, 5, 0, 0), 0),
            (shows(100, 9, 0, 0), 0),
            (shows(200, 1, 0, 0), 1),
            // Within the same second.
            (shows(200, 0, 0, 0), 2),
            (shows(200, 7, 1, 0), 3),
            (shows(200, 7, 1, 0), 3),
            // Its clock was set back.
            (shows(150, 7, 0, 0), 4),
            // Two behind one address, in turn.
            (shows(200, 8, 1, 0), 4),
            (shows(150, 8, 0, 0), 4),
        ] {
            let page = known.take(Instant::now(), Some(vitals.clone()));
            assert_eq!(page.restarts, restarts, "{vitals:?}");
        }
        let page = known.take(Instant::now(), None);
        assert_eq!((page.restarts, page.run()), (4, None));
        for started in 0..1_000 {
            known.take(Instant::now(), Some(shows(started, 1, 0, 0)));
        }
        assert_eq!(known.runs.len(), RUNS_MAX);
    }

    #[test]
    fn rows_that_were_ignored_while_somebody_looked_are_reported_once() {
        let mut known = Known::default();
        let mut news = |vitals| {
            known.take(Instant::now(), Some(vitals));
            std::mem::take(&mut known.ignored).into_iter().map(|i| i.rows).collect::<Vec<u64>>()
        };
        assert!(news(shows(100, 1, 0, 7)).is_empty());
        assert!(news(shows(100, 2, 0, 7)).is_empty());
        assert_eq!(news(shows(100, 3, 0, 10)), [3]);
        assert!(news(shows(200, 1, 0, 4)).is_empty());
        assert_eq!(news(shows(200, 0, 0, 1)), [1]);
    }
}
