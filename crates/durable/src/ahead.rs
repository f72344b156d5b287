//! Lines that go before the backlog after an outage: which may, and how they are counted. Pure: it knows neither the
//! disk nor the queue.
//!
//! Of readings of one field for one time, the last written counts. A line may therefore overtake the backlog only if its
//! timestamp is newer than that of every pending line. The limit is fixed when the first line overtakes: the other lines
//! behind that place keep their order, and go out when the backlog has reached them. Whether a line went first can be
//! recognized by its timestamp alone.

use crate::pending::line_time;
use crate::settling::Numbers;
use std::ops::Range;

/// Beyond this many ranges of lines that keep their place no more lines go first.
const RANGES_MAX: usize = 1 << 16;

/// Lines behind the backlog that were settled before it, but for those that keep their place.
#[derive(Clone, Debug)]
pub(crate) struct Ahead {
    start: u64,
    end: u64,
    /// Lines from `start` on that keep their place; also beyond `end`, where lines were sent and are not settled.
    kept_back: Numbers,
}

impl Ahead {
    pub(crate) fn new(start: u64) -> Self {
        Self { start, end: start, kept_back: Numbers::default() }
    }

    /// Whether a line may go before a backlog of which this is the newest timestamp.
    pub(crate) fn goes_first(newest: i64, line: &[u8]) -> bool {
        line_time(line).is_some_and(|time| time > newest)
    }

    /// How many lines of these numbers are settled here.
    fn settled_of(&self, numbers: &Range<u64>) -> u64 {
        let both = numbers.start.max(self.start)..numbers.end.min(self.end);
        if both.is_empty() { 0 } else { both.end - both.start - self.kept_back.count(both) }
    }

    /// How many lines are settled here.
    pub(crate) fn settled(&self) -> u64 {
        self.settled_of(&(self.start..self.end))
    }

    /// Bytes of lines that are settled here, of a segment with these numbers and bytes, if they are spread evenly.
    pub(crate) fn bytes_of(&self, numbers: &Range<u64>, bytes: u64) -> u64 {
        let all = u128::from(numbers.end.saturating_sub(numbers.start).max(1));
        (u128::from(bytes) * u128::from(self.settled_of(numbers)) / all) as u64
    }

    /// Whether lines keep their place.
    pub(crate) fn keeps_back(&self) -> bool {
        !self.kept_back.is_empty()
    }

    pub(crate) fn is_crowded(&self) -> bool {
        self.kept_back.ranges() >= RANGES_MAX
    }

    /// A line keeps its place.
    pub(crate) fn keep_back(&mut self, number: u64) {
        self.kept_back.add(number..number + 1);
    }

    /// Lines of these numbers are settled, but for those that keep their place; everything before `from` was dropped.
    /// Returns how many lines that are.
    pub(crate) fn settle(&mut self, numbers: &Range<u64>, from: u64) -> u64 {
        let begin = from.max(numbers.start);
        if begin > self.end {
            // Everything before was dropped.
            (self.start, self.end) = (begin, begin);
        }
        let before = self.settled();
        self.end = self.end.max(numbers.end);
        self.settled() - before
    }

    /// Everything from `from` to `to` is settled now. Returns how many of these lines had been settled before.
    pub(crate) fn pass(&mut self, from: u64, to: u64) -> u64 {
        let passed = self.settled_of(&(from..to));
        self.kept_back.remove(0..to);
        self.start = self.start.max(to);
        self.end = self.end.max(self.start);
        passed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_keep_their_place_are_settled_when_the_backlog_has_come_to_them() {
        let mut ahead = Ahead::new(100);
        for late in [103, 104, 109, 112] {
            ahead.keep_back(late);
        }
        assert_eq!(ahead.settle(&(100..110), 1), 7);
        // A full lane drops the backlog and the first lines here: two of them had been settled.
        assert_eq!(ahead.pass(50, 102), 2);
        assert_eq!((ahead.settled(), ahead.keeps_back()), (5, true));
        assert_eq!(ahead.bytes_of(&(100..120), 2000), 500);
        assert_eq!(ahead.pass(102, 110), 5);
        assert_eq!((ahead.settled(), ahead.keeps_back()), (0, true), "112 was not settled yet");
        assert_eq!(ahead.settle(&(110..115), 110), 4);
        assert_eq!(ahead.pass(110, 115), 4);
        assert!(!ahead.keeps_back());
        // What is on its way is dropped meanwhile.
        assert_eq!(ahead.settle(&(115..125), 120), 5);
        assert_eq!(ahead.settle(&(125..130), 140), 0);
        assert_eq!(ahead.settle(&(140..150), 140), 10);
    }
}
