//! Settling the lines of a lane in front of its backlog and within it: what one call settles, and what had been settled
//! before. It knows nothing of who sends them.

use crate::ahead::Ahead;
use crate::lane::{Lane, LaneReader, Next};
use std::ops::Range;

/// So many bytes of lines of previous runs are looked at in one call.
const SCAN_BYTES: usize = 256 << 20;
const SCAN_PIECE: usize = 1 << 20;

/// What a call settled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Passed {
    /// Lines before this number were settled before, or dropped.
    pub(crate) from: u64,
    /// Lines that were not.
    pub(crate) lines: u64,
    /// Lines that went first, which the backlog has reached now.
    pub(crate) went_first: u64,
}

impl Lane {
    /// Lines from `start` on may go first.
    pub(crate) fn begin_ahead(&self, start: u64) {
        self.state().ahead = Some(Ahead::new(start));
    }

    /// Whether lines behind the backlog keep their place, and whether they are so many that no more may go first.
    pub(crate) fn keeps_back(&self) -> (bool, bool) {
        self.state().ahead.as_ref().map_or((false, false), |a| (a.keeps_back(), a.is_crowded()))
    }

    /// Notes that these lines keep their place.
    pub(crate) fn keep_back(&self, numbers: impl Iterator<Item = u64>) {
        if let Some(ahead) = &mut self.state().ahead {
            numbers.for_each(|number| ahead.keep_back(number));
        }
    }

    /// The time of two places is over; everything up to `end` is settled.
    pub(crate) fn end_ahead(&self, end: u64) -> Passed {
        let passed = self.settle_prefix(end);
        self.state().ahead = None;
        passed
    }

    /// Lines of these numbers went first, but for those that keep their place. Those that a full lane dropped meanwhile were
    /// counted there.
    pub(crate) fn settle_ahead(&self, numbers: &Range<u64>) -> Passed {
        let mut state = self.state();
        let from = state.acknowledged;
        let lines = state.ahead.as_mut().map_or(0, |ahead| ahead.settle(numbers, from));
        Passed { from, lines, went_first: 0 }
    }

    /// Everything before a number is settled.
    pub(crate) fn settle_prefix(&self, before: u64) -> Passed {
        let next = self.next_number();
        let mut state = self.state();
        let from = state.acknowledged;
        let to = from.max(before.min(next));
        state.acknowledged = to;
        state.pending.settle(to);
        let went_first = state.ahead.as_mut().map_or(0, |ahead| ahead.pass(from, to));
        Passed { from, lines: to - from - went_first, went_first }
    }

    /// No pending line of this run has a newer timestamp than this at present.
    pub(crate) fn newest_of_this_run(&self) -> i64 {
        self.state().pending.newest()
    }

    /// No pending line of previous runs has a newer timestamp than this; `None` while they were not all looked at, which
    /// goes on with the next call.
    pub(crate) fn newest_of_previous_runs(&self) -> Option<i64> {
        let (from, end) = {
            let state = self.state();
            (state.former.scanned.max(state.acknowledged), state.former.end)
        };
        if from < end && !self.scan_former(&mut self.reader(from), end) {
            return None;
        }
        let state = self.state();
        Some(if state.acknowledged < end { state.former.newest } else { i64::MIN })
    }

    /// Looks at lines of previous runs; returns whether all were looked at.
    fn scan_former(&self, reader: &mut LaneReader, end: u64) -> bool {
        let (mut newest, mut bytes) = (i64::MIN, 0);
        while reader.position() < end && bytes < SCAN_BYTES {
            match reader.next(usize::MAX, SCAN_PIECE) {
                Ok(Next::Lines(batch)) => {
                    bytes += batch.bytes.len();
                    newest = newest.max(crate::pending::newest_of(&batch.bytes, 0, &batch.ends));
                }
                Ok(Next::Lost(_)) => {}
                Ok(Next::End) => break,
                Err(_) => return false,
            }
        }
        let mut state = self.state();
        state.former.newest = state.former.newest.max(newest);
        state.former.scanned = reader.position();
        reader.position() >= end
    }
}
