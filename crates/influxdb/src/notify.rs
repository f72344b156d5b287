//! Bad news for the caller: collected, merged by kind, and told by a thread of its own, at most ten times a second.

use crate::route::MAIN;
use graylogic_durable::caught;
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

/// Told of one kind at most this often.
const PAUSE: Duration = Duration::from_millis(100);
/// So many lines are told with their text.
const LINES_TOLD: usize = 10;

/// Readings that were accepted and did not get where they should, or wait for that.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct WriteError {
    /// What happened.
    pub kind: WriteErrorKind,
    /// The target they were for; that of the section `influxdb` itself is `main`.
    pub target: String,
    /// The bucket they were for.
    pub bucket: String,
    /// How many lines it is about.
    pub lines: u64,
    /// Why, in one sentence.
    pub reason: String,
    /// The first ten of the lines, each with its reason, when it is about single lines.
    pub first: Vec<RefusedLine>,
}

/// A line that the target refused.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RefusedLine {
    /// Its text, shortened when long.
    pub text: String,
    /// The target's reason.
    pub reason: String,
}

/// What happened to readings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WriteErrorKind {
    /// The target refused them for good; it has all the others.
    Rejected,
    /// The target has them without some of their fields, which it cannot hold.
    Altered,
    /// The target does not take them at present; they wait and are tried again.
    Delayed,
    /// They were dropped: the spool was full, or the client was closed before the target took what was only in memory. Or
    /// this target had no room for readings that another one took.
    Dropped,
    /// The embedded store keeps them apart, because a clock that is wrong must have made their timestamps.
    Quarantined,
    /// They were in the spool and cannot be read any more: the disk changed what was written.
    Damaged,
    /// The disk of the spool does not take readings at present; they are kept in memory.
    Degraded,
    /// The system clock was set back by a second or more. Nothing was lost; readings without a timestamp follow the clock.
    ClockStepped,
    /// VictoriaMetrics acknowledged them and counts that it ignored them, without saying which: they may be another client's.
    Ignored,
}

impl fmt::Display for WriteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.kind {
            WriteErrorKind::Rejected => "refused",
            WriteErrorKind::Altered => "stored without some of their fields",
            WriteErrorKind::Delayed => "delayed",
            WriteErrorKind::Quarantined => "quarantined",
            WriteErrorKind::Dropped => "dropped",
            WriteErrorKind::Damaged => "lost to damage",
            WriteErrorKind::Degraded => "refused by the spool",
            WriteErrorKind::ClockStepped => "affected by a step of the clock",
            WriteErrorKind::Ignored => "ignored",
        };
        write!(f, "write to bucket {:?}", self.bucket)?;
        if self.target != MAIN {
            write!(f, " of target {:?}", self.target)?;
        }
        write!(f, ": {} {} {what}: {}", self.lines, plural(self.lines), self.reason)
    }
}

fn plural(n: u64) -> &'static str {
    if n == 1 { "line" } else { "lines" }
}

impl std::error::Error for WriteError {}

type Callback = Arc<dyn Fn(&WriteError) + Send + Sync>;

/// Collects bad news and tells it.
#[derive(Default)]
pub(crate) struct Notifier {
    state: Mutex<State>,
    wake: Condvar,
    quiet: Condvar,
}

#[derive(Default)]
struct State {
    callback: Option<Callback>,
    waiting: Vec<WriteError>,
    telling: bool,
    told: u64,
    panics: u64,
    ending: bool,
    /// Nobody has news any more.
    ended: bool,
    /// The thread has ended, as it should or not.
    gone: bool,
    thread: Option<ThreadId>,
}

impl Notifier {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set_callback(&self, callback: Callback) {
        let before = self.lock().callback.replace(callback);
        self.wake.notify_all();
        // The caller's code as well: what it holds may ask the client when it goes.
        drop(before);
    }

    /// Adds news; news of the same kind, target and bucket that was not told yet becomes one.
    pub(crate) fn add(&self, news: WriteError) {
        let mut state = self.lock();
        let same =
            |w: &&mut WriteError| w.kind == news.kind && w.bucket == news.bucket && w.target == news.target;
        match state.waiting.iter_mut().find(same) {
            Some(known) => {
                known.lines =
                    if news.kind == WriteErrorKind::Delayed { news.lines } else { known.lines + news.lines };
                known.reason = news.reason;
                known.first.extend(news.first);
                known.first.truncate(LINES_TOLD);
            }
            None => {
                state.waiting.push(news);
                drop(state);
                self.wake.notify_all();
            }
        }
    }

    /// Callbacks made, and those that panicked.
    pub(crate) fn counts(&self) -> (u64, u64) {
        let state = self.lock();
        (state.told, state.panics)
    }

    /// Whether the caller is the callback itself.
    pub(crate) fn is_current_thread(&self) -> bool {
        self.lock().thread == Some(std::thread::current().id())
    }

    /// Whether its thread has ended, and should not have.
    pub(crate) fn is_gone(&self) -> bool {
        let state = self.lock();
        state.gone && !state.ended
    }

    /// Nobody has news any more: the thread ends when everything is told.
    pub(crate) fn nobody_left(&self) {
        self.lock().ended = true;
        self.wake.notify_all();
    }

    /// Tells what waits without pause, then ends; waits for that until the time is up.
    pub(crate) fn end(&self, until: Instant) -> bool {
        let mut state = self.lock();
        state.ending = true;
        self.wake.notify_all();
        if state.thread == Some(std::thread::current().id()) {
            return true;
        }
        while ((!state.waiting.is_empty() && state.callback.is_some()) || state.telling) && !state.gone {
            let Some(left) = until.checked_duration_since(Instant::now()) else { return false };
            state = self.quiet.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// The notifier's thread.
    pub(crate) fn run(&self) {
        let _gone = Gone(self);
        while let Err(panic) = caught(|| self.carry()) {
            let mut state = self.lock();
            (state.telling, state.panics) = (false, state.panics + 1);
            drop(state);
            self.quiet.notify_all();
            log(&format!("the thread that reports errors panicked and was restarted: {panic}"));
            std::thread::sleep(PAUSE);
        }
    }

    fn carry(&self) {
        let mut last_told = None::<Instant>;
        let mut state = self.lock();
        state.thread = Some(std::thread::current().id());
        loop {
            let nothing = state.waiting.is_empty() || state.callback.is_none();
            if nothing && state.ended {
                // It may hold the client, and the client it.
                let last = state.callback.take();
                drop(state);
                // Dropping it runs the caller's code.
                if let Err(panic) = caught(|| drop(last)) {
                    log(&format!("the error callback panicked when it was dropped: {panic}"));
                }
                return;
            }
            if nothing {
                state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let pause = last_told.map_or(Duration::ZERO, |t| PAUSE.saturating_sub(t.elapsed()));
            if !pause.is_zero() && !state.ending {
                state = self.wake.wait_timeout(state, pause).unwrap_or_else(PoisonError::into_inner).0;
                continue;
            }
            let news = std::mem::take(&mut state.waiting);
            let Some(callback) = state.callback.clone() else { continue };
            state.telling = true;
            drop(state);
            let mut panics = 0;
            for one in &news {
                // The caller's code; its panic must not end the client.
                if let Err(panic) = caught(|| callback(one)) {
                    panics += 1;
                    log(&format!("the error callback panicked: {panic}"));
                }
            }
            // Another may have taken its place meanwhile.
            if let Err(panic) = caught(|| drop(callback)) {
                log(&format!("the error callback panicked when it was dropped: {panic}"));
            }
            last_told = Some(Instant::now());
            state = self.lock();
            state.telling = false;
            state.told += news.len() as u64;
            state.panics += panics;
            self.quiet.notify_all();
        }
    }
}

/// However the thread ends, everybody sees that it has.
struct Gone<'a>(&'a Notifier);

impl Drop for Gone<'_> {
    fn drop(&mut self) {
        self.0.lock().gone = true;
        self.0.quiet.notify_all();
    }
}

/// Logs, whatever the program's logging does.
fn log(message: &str) {
    let _panics = caught(|| tracing::error!("{message}"));
}

impl fmt::Debug for Notifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Notifier").finish_non_exhaustive()
    }
}
