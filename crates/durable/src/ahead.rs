//! Lines that go before the backlog after an outage: which may, and how they are counted. Pure: it knows neither the
//! disk nor the queue.
//!
//! Of readings of one field for one time, the last written counts. A line may therefore overtake the backlog only if its
//! timestamp is newer than that of every pending line. The limit is fixed when the first line overtakes: the other lines
//! behind that place keep their order, and go out when the backlog has reached them. Whether a line went first can be
//! told from its timestamp alone.

use crate::pending::line_time;
use std::ops::Range;

/// Lines behind the backlog that were looked at: most of them are settled, the others keep their place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ahead {
    pub(crate) start: u64,
    pub(crate) end: u64,
    /// So many lines from `start` to `end` keep their place.
    pub(crate) kept_back: u64,
    /// No line of the backlog has a newer timestamp.
    pub(crate) newest: i64,
}

impl Ahead {
    pub(crate) fn new(start: u64, newest: i64) -> Self {
        Self { start, end: start, kept_back: 0, newest }
    }

    /// Whether a line may go before the backlog.
    pub(crate) fn goes_first(newest: i64, line: &[u8]) -> bool {
        line_time(line).is_some_and(|time| time > newest)
    }

    /// How many lines are settled here.
    pub(crate) fn settled(&self) -> u64 {
        (self.end - self.start).saturating_sub(self.kept_back)
    }

    /// How many of these numbers are in this range.
    pub(crate) fn overlap(&self, numbers: &Range<u64>) -> u64 {
        numbers.end.min(self.end).saturating_sub(numbers.start.max(self.start))
    }

    /// Lines up to `end` were looked at; so many of them keep their place.
    pub(crate) fn extend(&mut self, end: u64, kept_back: u64) {
        self.end = self.end.max(end);
        self.kept_back += kept_back;
    }

    /// Lines before `to` are settled now, `kept_back` of those that had kept their place. Returns how many had been settled
    /// before.
    pub(crate) fn pass(&mut self, to: u64, kept_back: u64) -> u64 {
        let to = to.clamp(self.start, self.end);
        let passed = to - self.start;
        let kept_back = kept_back.min(self.kept_back).min(passed);
        self.start = to;
        self.kept_back -= kept_back;
        passed - kept_back
    }

    /// Lines that kept their place and are not there any more.
    pub(crate) fn take_missing(&mut self) -> u64 {
        let missing = self.kept_back.saturating_sub(self.end - self.start);
        self.kept_back -= missing;
        missing
    }
}
