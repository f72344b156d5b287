//! A lane: lines on their way to one target, in memory, behind one short lock. Writers add to its open buffer; its
//! worker takes what has gathered. It knows neither targets nor threads. (The spool will stand behind it.)

use crate::error::{Error, Kind};
use graylogic_line::{EncodeError, Timestamp};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Bytes of lines that may wait, in the buffer and in the hands of the worker.
pub(crate) const WAITING_BYTES_MAX: usize = 64 << 20;
/// A piece that the worker hands over at once is about this long.
const PIECE_BYTES: usize = 1 << 20;
/// So much wakes the worker before its time.
const EAGER_BYTES: usize = 256 << 10;
/// What a buffer begins with: enough for some hundred lines.
const BUFFER_BYTES: usize = 64 << 10;
/// Lines wait at most this long for others.
pub(crate) const GATHER: Duration = Duration::from_millis(10);

/// Lines on their way to one target.
#[derive(Debug, Default)]
pub(crate) struct Lane {
    state: Mutex<State>,
    /// Wakes the worker.
    wake: Condvar,
    /// Wakes who waits for lines to arrive.
    progress: Condvar,
}

/// What the lock guards. Lines are counted from the first the client accepted.
#[derive(Debug, Default)]
pub(crate) struct State {
    open: Vec<u8>,
    /// Lines the worker has taken so far.
    taken: u64,
    /// Where pieces of the open buffer end.
    cuts: Vec<Cut>,
    /// Lines accepted; those before `settled` were delivered or rejected; those before `synced` are on the disk too.
    pub(crate) accepted: u64,
    pub(crate) settled: u64,
    pub(crate) synced: u64,
    /// Lines that callers wait to be synced.
    pub(crate) wanted: u64,
    pub(crate) delivered: u64,
    pub(crate) rejected: u64,
    pub(crate) dropped: u64,
    /// Calls that were refused: bad points, and a full lane.
    pub(crate) refused_points: u64,
    pub(crate) refused_full: u64,
    /// Bytes the worker has in hand.
    in_hand: usize,
    first_waits_since: Option<Instant>,
    last_time: Timestamp,
    /// No more lines are taken.
    pub(crate) closing: bool,
    /// The worker ends when nothing waits, or at once.
    pub(crate) ending: bool,
    pub(crate) abandon: bool,
    /// Nothing more will be settled.
    pub(crate) ended: bool,
    /// Why lines do not get through at present.
    pub(crate) trouble: Option<String>,
    pub(crate) last_error: Option<String>,
    pub(crate) last_success: Option<Timestamp>,
}

#[derive(Clone, Copy, Debug)]
struct Cut {
    bytes: usize,
    lines: u64,
}

/// What the worker took: lines in pieces.
#[derive(Debug, Default)]
pub(crate) struct Taken {
    bytes: Vec<u8>,
    cuts: Vec<Cut>,
}

impl Taken {
    pub(crate) fn new() -> Self {
        Self { bytes: Vec::with_capacity(BUFFER_BYTES), cuts: Vec::new() }
    }

    /// The pieces with the number of their lines.
    pub(crate) fn pieces(&self) -> impl Iterator<Item = (&[u8], u64)> {
        let starts = std::iter::once(Cut { bytes: 0, lines: 0 }).chain(self.cuts.iter().copied());
        starts.zip(&self.cuts).map(|(from, to)| (&self.bytes[from.bytes..to.bytes], to.lines - from.lines))
    }
}

impl Lane {
    pub(crate) fn new() -> Self {
        let lane = Self::default();
        lane.lock().open = Vec::with_capacity(BUFFER_BYTES);
        lane
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        // Every field is set in one go: a panic elsewhere leaves them whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a line that `encode` writes, with its own time or the next one; returns at once.
    #[inline]
    pub(crate) fn accept(
        &self,
        time: Option<Timestamp>,
        encode: impl FnOnce(Timestamp, &mut Vec<u8>) -> Result<(), EncodeError>,
    ) -> Result<(), Error> {
        let mut state = self.lock();
        if state.closing {
            return Err(Error::closed());
        }
        if state.open.len() + state.in_hand >= WAITING_BYTES_MAX {
            state.refused_full += 1;
            return Err(full(&state));
        }
        let time = match time {
            Some(time) => time,
            None => state.next_time(),
        };
        if let Err(error) = encode(time, &mut state.open) {
            state.refused_points += 1;
            return Err(Error::because(Kind::InvalidPoint, "the reading cannot be written", error));
        }
        state.accepted += 1;
        let (bytes, waiting) = (state.open.len(), state.accepted);
        let last = state.cuts.last().map_or(0, |c| c.bytes);
        if bytes - last >= PIECE_BYTES {
            let lines = waiting - state.taken;
            state.cuts.push(Cut { bytes, lines });
        }
        let first = state.first_waits_since.is_none();
        if first {
            state.first_waits_since = Some(Instant::now());
        }
        let eager = (EAGER_BYTES..EAGER_BYTES + 4096).contains(&bytes);
        drop(state);
        if first || eager {
            self.wake.notify_one();
        }
        Ok(())
    }

    /// Waits until lines have gathered and takes them; `None` when the worker is to end.
    /// Returns without lines when somebody waits for a sync.
    pub(crate) fn take(&self, mut back: Taken) -> Option<Taken> {
        back.bytes.clear();
        back.cuts.clear();
        // A burst does not hold its memory for ever.
        if back.bytes.capacity() > 4 * PIECE_BYTES {
            back.bytes = Vec::with_capacity(BUFFER_BYTES);
        }
        let mut state = self.lock();
        loop {
            if state.abandon {
                return None;
            }
            let hurry = state.ending || state.wanted > state.synced;
            match state.first_waits_since {
                Some(since) => {
                    let left = GATHER.saturating_sub(since.elapsed());
                    if hurry || left.is_zero() || state.open.len() >= EAGER_BYTES {
                        break;
                    }
                    state = self.wake.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
                }
                None if state.wanted > state.synced => return Some(back),
                None if state.ending => return None,
                None => state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner),
            }
        }
        let lines = state.accepted - state.taken;
        state.taken = state.accepted;
        std::mem::swap(&mut state.open, &mut back.bytes);
        std::mem::swap(&mut state.cuts, &mut back.cuts);
        if back.cuts.last().is_none_or(|c| c.lines < lines) {
            back.cuts.push(Cut { bytes: back.bytes.len(), lines });
        }
        state.in_hand = back.bytes.len();
        state.first_waits_since = None;
        Some(back)
    }

    /// Counts lines that got where they should or never will.
    pub(crate) fn settle(&self, delivered: u64, rejected: u64, now: Timestamp) {
        let mut state = self.lock();
        state.settled += delivered + rejected;
        state.delivered += delivered;
        state.rejected += rejected;
        state.trouble = None;
        if delivered > 0 {
            state.last_success = Some(now);
        }
    }

    /// Everything taken is settled; whoever waits may look.
    pub(crate) fn done(&self) {
        self.lock().in_hand = 0;
        self.progress.notify_all();
    }

    /// Everything settled so far is on the disk.
    pub(crate) fn synced(&self, settled: u64) {
        let mut state = self.lock();
        state.synced = state.synced.max(settled);
        drop(state);
        self.progress.notify_all();
    }

    /// Lines do not get through; returns whether that is news.
    pub(crate) fn troubled(&self, why: &str) -> bool {
        let mut state = self.lock();
        let news = state.trouble.is_none();
        state.trouble = Some(why.to_owned());
        state.last_error = Some(why.to_owned());
        news
    }

    /// Waits, but not longer than needed to end.
    pub(crate) fn rest(&self, time: Duration) {
        let state = self.lock();
        let _unused =
            self.wake.wait_timeout_while(state, time, |s| !s.abandon).unwrap_or_else(PoisonError::into_inner);
    }

    /// Asks for everything accepted so far to be synced and returns its count.
    pub(crate) fn want_sync(&self) -> u64 {
        let mut state = self.lock();
        let target = state.accepted;
        state.wanted = state.wanted.max(target);
        drop(state);
        self.wake.notify_one();
        target
    }

    /// Waits until `target` lines are synced, the lane has ended, or the time is up; tells whether they are.
    pub(crate) fn wait_synced(&self, target: u64, until: Instant) -> bool {
        let mut state = self.lock();
        while state.synced < target && !state.ended {
            let Some(left) = until.checked_duration_since(Instant::now()) else { break };
            state = self.progress.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        state.synced >= target
    }

    /// Waits until the worker has ended or the time is up; tells whether it has.
    pub(crate) fn wait_ended(&self, until: Instant) -> bool {
        let mut state = self.lock();
        while !state.ended {
            let Some(left) = until.checked_duration_since(Instant::now()) else { break };
            state = self.progress.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        state.ended
    }

    /// Takes no more lines; the worker ends when the rest is settled.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.closing = true;
        state.ending = true;
        state.wanted = state.accepted;
        drop(state);
        self.wake.notify_all();
    }

    /// The worker ends now; what waits is dropped and counted.
    pub(crate) fn abandon(&self) {
        self.lock().abandon = true;
        self.wake.notify_all();
    }

    /// The worker has ended.
    pub(crate) fn ended(&self) {
        let mut state = self.lock();
        state.dropped = state.accepted - state.settled;
        state.ended = true;
        state.open = Vec::new();
        state.in_hand = 0;
        drop(state);
        self.progress.notify_all();
    }
}

impl State {
    /// The present, or just after the last time given: two readings of a series never fall together.
    fn next_time(&mut self) -> Timestamp {
        let next = Timestamp::from_nanos(self.last_time.as_nanos().saturating_add(1));
        self.last_time = Timestamp::now().max(next).min(Timestamp::MAX);
        self.last_time
    }

    pub(crate) fn waiting_bytes(&self) -> usize {
        self.open.len() + self.in_hand
    }
}

fn full(state: &State) -> Error {
    let why = state.trouble.as_deref().unwrap_or("the target is slower than the readings come");
    let message = format!(
        "the reading was not accepted: {} MiB of readings wait already, because {why}",
        state.waiting_bytes() >> 20
    );
    Error::new(Kind::WriteFailed, message).retryable(true)
}
