//! A lane: the queue of one target and bucket, and how it goes. It knows neither targets nor threads.

use crate::error::{Error, Kind};
use crate::route::MAIN;
use graylogic_durable::{Queue, Refused};
use graylogic_line::{EncodeError, Timestamp};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// The queue of one target and bucket.
#[derive(Debug)]
pub(crate) struct Lane {
    /// The name of the target.
    pub(crate) target: String,
    pub(crate) bucket: String,
    /// Who may wait does so while it is full, whatever other lanes take.
    pub(crate) blocks: bool,
    /// What is pending outlives the client: its queue is on a disk.
    pub(crate) outlives: bool,
    pub(crate) queue: Queue,
    room: Arc<Mutex<Room>>,
    status: Mutex<Status>,
}

/// Who waits for room: told by the place in which the lane is for them.
#[derive(Debug, Default)]
struct Room {
    waiting: Vec<(usize, mpsc::Sender<(usize, bool)>)>,
    /// The queue was asked to tell.
    asked: bool,
}

/// How it goes with the target.
#[derive(Clone, Debug, Default)]
pub(crate) struct Status {
    /// Why lines do not get through at present.
    pub(crate) trouble: Option<Trouble>,
    pub(crate) last_error: Option<String>,
    pub(crate) last_success: Option<Timestamp>,
    /// The thread that delivers panicked, and nothing was delivered since.
    pub(crate) panicked: bool,
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
    pub(crate) fn new(target: &str, bucket: &str, queue: Queue) -> Self {
        let (target, bucket) = (target.to_owned(), bucket.to_owned());
        Self {
            target,
            bucket,
            blocks: false,
            outlives: false,
            queue,
            room: Arc::default(),
            status: Mutex::default(),
        }
    }

    /// The bucket as counts name it: that of a further target behind its name.
    pub(crate) fn name(&self) -> String {
        if self.target == MAIN { self.bucket.clone() } else { format!("{}/{}", self.target, self.bucket) }
    }

    pub(crate) fn status(&self) -> MutexGuard<'_, Status> {
        // Every field is set in one go: a panic elsewhere leaves them whole.
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a line that `encode` writes with a timestamp; returns at once.
    #[inline]
    pub(crate) fn accept(
        &self,
        time: Timestamp,
        encode: impl FnOnce(Timestamp, &mut Vec<u8>) -> Result<(), EncodeError>,
    ) -> Result<u64, Error> {
        self.queue.accept(|out| encode(time, out)).map_err(|refused| self.error(refused))
    }

    /// What the caller is told of a line that was not accepted.
    pub(crate) fn error(&self, refused: Refused<EncodeError>) -> Error {
        match refused {
            Refused::Invalid(e) => Error::because(Kind::InvalidPoint, "the reading cannot be written", e),
            Refused::Full(why) => {
                let message = format!(
                    "the reading was not accepted: {}; write it again later, or wait for room with `wait_for_room`, \
                     `write_point_timeout` or `write_point_async`",
                    self.why_full(&why)
                );
                Error::new(Kind::Full, message).retryable(true)
            }
            Refused::TooLong(bytes) => {
                let message =
                    format!("the reading cannot be written: its line has {bytes} bytes; shorten it");
                Error::new(Kind::InvalidPoint, message)
            }
            _ => Error::closed(),
        }
    }

    /// Why it takes no lines, when the queue says this of its disk.
    pub(crate) fn why_full(&self, disk: &str) -> String {
        // A target that takes nothing is why the lane is full; else the disk is.
        let target = self.status().trouble.as_ref().map(|t| t.reason.clone());
        let why = target.unwrap_or_else(|| disk.to_owned());
        format!("too many readings are pending, because {why}")
    }

    /// Tells once with `place`, and `true` when there may be room, or `false` when the lane takes no more lines.
    pub(crate) fn when_room(&self, place: usize, tell: &mpsc::Sender<(usize, bool)>) {
        fn lock(room: &Mutex<Room>) -> MutexGuard<'_, Room> {
            room.lock().unwrap_or_else(PoisonError::into_inner)
        }
        let mut room = lock(&self.room);
        // Who has given up since waits for nothing, however long the lane is full.
        room.waiting.retain(|(_, waits)| !waits.is_closed());
        room.waiting.push((place, tell.clone()));
        if std::mem::replace(&mut room.asked, true) {
            return;
        }
        drop(room);
        let room = self.room.clone();
        self.queue.when_room(move |open| {
            let waiting = {
                let mut room = lock(&room);
                room.asked = false;
                std::mem::take(&mut room.waiting)
            };
            for (place, tell) in waiting {
                let _gave_up = tell.try_send((place, open));
            }
        });
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

    /// A ping found the server away, unless something else is known to be wrong; `before` is what it found last time.
    pub(crate) fn not_reached(
        &self,
        before: Option<&str>,
        reason: &str,
        setting: Option<&'static str>,
        next_try: Duration,
    ) {
        let trouble = self.status().trouble.as_ref().map(|t| t.reason.clone());
        if trouble.as_deref() == before {
            self.troubled(reason, setting, Some(next_try));
        }
    }

    /// What a ping found before is over.
    pub(crate) fn no_longer(&self, before: Option<&str>) {
        if let Some(before) = before {
            self.status().trouble.take_if(|trouble| trouble.reason == before);
        }
    }

    /// The thread that delivers panicked; returns whether it had delivered something since the last time.
    pub(crate) fn panicked(&self, reason: &str, next_try: Duration) -> bool {
        self.troubled(reason, None, Some(next_try));
        !std::mem::replace(&mut self.status().panicked, true)
    }

    /// A panic whose thread was restarted is over when nothing is pending.
    pub(crate) fn has_recovered(&self) {
        if self.status().panicked && self.queue.stats().waiting == 0 {
            let mut status = self.status();
            (status.panicked, status.trouble) = (false, None);
        }
    }

    /// Why one of its threads does not do its work at present.
    pub(crate) fn fault(&self) -> Option<String> {
        let of_sender = {
            let status = self.status();
            status.trouble.as_ref().filter(|_| status.panicked).map(|t| t.reason.clone())
        };
        of_sender.or_else(|| self.queue.fault())
    }

    /// Lines get through; returns how long they did not.
    pub(crate) fn went_well(&self, now: Timestamp) -> Duration {
        let mut status = self.status();
        status.last_success = Some(now);
        status.panicked = false;
        status.trouble.take().map_or(Duration::ZERO, |t| t.since.elapsed())
    }
}
