//! A lane: the queue of one target and bucket, and how it goes. It knows neither targets nor threads.

use crate::error::{Error, Kind};
use graylogic_durable::{Level, Queue, Refused};
use graylogic_line::{EncodeError, Timestamp};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The last time this process gave a reading without one.
static LAST_TIME: AtomicI64 = AtomicI64::new(i64::MIN);

/// The queue of one target and bucket.
#[derive(Debug)]
pub(crate) struct Lane {
    pub(crate) bucket: String,
    pub(crate) queue: Queue,
    status: Mutex<Status>,
}

/// How it goes with the target.
#[derive(Clone, Debug, Default)]
pub(crate) struct Status {
    /// Why lines do not get through at present.
    pub(crate) trouble: Option<Trouble>,
    pub(crate) last_error: Option<String>,
    pub(crate) last_success: Option<Timestamp>,
    /// Lines that were dropped because the client was closed, set at the end.
    pub(crate) abandoned: u64,
}

/// Why lines do not get through.
#[derive(Clone, Debug)]
pub(crate) struct Trouble {
    pub(crate) reason: String,
    /// What somebody must change: it does not pass by itself.
    pub(crate) setting: Option<&'static str>,
    pub(crate) since: Instant,
    pub(crate) next_try: Option<Duration>,
}

impl Lane {
    pub(crate) fn new(bucket: &str, queue: Queue) -> Self {
        Self { bucket: bucket.to_owned(), queue, status: Mutex::default() }
    }

    pub(crate) fn status(&self) -> MutexGuard<'_, Status> {
        // Every field is set in one go: a panic elsewhere leaves them whole.
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a line that `encode` writes, with its own time or the next one; returns at once.
    #[inline]
    pub(crate) fn accept(
        &self,
        time: Option<Timestamp>,
        encode: impl FnOnce(Timestamp, &mut Vec<u8>) -> Result<(), EncodeError>,
    ) -> Result<u64, Error> {
        let time = time.unwrap_or_else(next_time);
        self.queue.accept(|out| encode(time, out)).map_err(|refused| match refused {
            Refused::Invalid(e) => Error::because(Kind::InvalidPoint, "the reading cannot be written", e),
            Refused::Full(why) => self.full(&why),
            Refused::TooLong(bytes) => {
                let message =
                    format!("the reading cannot be written: its line has {bytes} bytes; shorten it");
                Error::new(Kind::InvalidPoint, message)
            }
            _ => Error::closed(),
        })
    }

    fn full(&self, disk: &str) -> Error {
        // A target that takes nothing is why the lane is full; else the disk is.
        let target = self.status().trouble.as_ref().map(|t| t.reason.clone());
        let why = target.unwrap_or_else(|| disk.to_owned());
        let message = format!("the reading was not accepted: too many readings wait already, because {why}");
        Error::new(Kind::WriteFailed, message).retryable(true)
    }

    /// Lines do not get through; returns whether that is news.
    pub(crate) fn troubled(
        &self,
        reason: &str,
        setting: Option<&'static str>,
        next_try: Option<Duration>,
    ) -> bool {
        let mut status = self.status();
        let news = status.trouble.as_ref().is_none_or(|t| t.setting != setting);
        let since = status.trouble.as_ref().map_or_else(Instant::now, |t| t.since);
        status.trouble = Some(Trouble { reason: reason.to_owned(), setting, since, next_try });
        status.last_error = Some(reason.to_owned());
        news
    }

    /// Lines get through; returns how long they did not.
    pub(crate) fn went_well(&self, now: Timestamp) -> Duration {
        let mut status = self.status();
        status.last_success = Some(now);
        status.trouble.take().map_or(Duration::ZERO, |t| t.since.elapsed())
    }

    /// Asks for everything accepted so far to reach a level soon.
    pub(crate) fn hurry(&self, level: Level) {
        self.queue.hurry(level);
    }

    /// Waits until everything accepted before has reached a level or the time is up, and returns how many lines have not.
    pub(crate) fn wait(&self, level: Level, until: Instant) -> u64 {
        self.queue.wait(level, until)
    }
}

/// The present, or just after the last time given: two readings of a series never fall together.
fn next_time() -> Timestamp {
    let now = Timestamp::now().as_nanos();
    let next = |last: i64| Some(now.max(last.saturating_add(1)).min(Timestamp::MAX.as_nanos()));
    // The update always gives a value.
    let last = LAST_TIME.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
    Timestamp::from_nanos(next(last.unwrap_or_else(|same| same)).unwrap_or(now))
}
