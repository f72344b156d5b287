//! Settling the lines of a lane in front of its backlog and within it: what one call settles, and what had been settled
//! before. It knows nothing of who sends them.

use crate::ahead::Ahead;
use crate::lane::{Lane, LaneReader, Next};
use std::ops::Range;

/// So many bytes of lines of previous runs are looked at in one call.
const SCAN_BYTES: usize = 32 << 20;
const SCAN_PIECE: usize = 1 << 20;

/// The numbers of lines that were sent together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Numbers {
    /// All of a range.
    All(Range<u64>),
    /// Those at these places of a range.
    Some(Range<u64>, Vec<u32>),
}

impl Numbers {
    pub(crate) fn span(&self) -> &Range<u64> {
        match self {
            Self::All(span) | Self::Some(span, _) => span,
        }
    }

    /// The number of the line at a place among those sent.
    pub(crate) fn of(&self, i: usize) -> u64 {
        match self {
            Self::All(span) => span.start + i as u64,
            Self::Some(span, places) => span.start + places.get(i).map_or(0, |p| u64::from(*p)),
        }
    }

    /// How many of them are at least `from`.
    fn count_from(&self, from: u64) -> u64 {
        match self {
            Self::All(span) => span.end.saturating_sub(from.max(span.start)),
            Self::Some(span, places) => {
                let before = places.partition_point(|p| span.start + u64::from(*p) < from);
                (places.len() - before) as u64
            }
        }
    }
}

/// What a call settled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Settled {
    /// Lines that were not settled before, nor dropped.
    pub(crate) lines: u64,
    /// Lines that went first, which the backlog has reached now.
    pub(crate) passed: u64,
    /// Lines that had kept their place and cannot be found any more.
    pub(crate) missing: u64,
}

impl Lane {
    /// Lines from `start` on may go first if they are newer than `newest`.
    pub(crate) fn begin_ahead(&self, start: u64, newest: i64) {
        self.state().ahead = Some(Ahead::new(start, newest));
    }

    /// Whether lines behind the backlog were looked at that did not go first.
    pub(crate) fn keeps_lines_back(&self) -> bool {
        self.state().ahead.is_some_and(|a| a.kept_back > 0)
    }

    /// The time of two places is over; everything up to `end` is settled.
    pub(crate) fn end_ahead(&self, end: u64) -> Settled {
        let settled = self.settle_prefix(&Numbers::Some(end..end, Vec::new()));
        self.state().ahead = None;
        settled
    }

    /// These lines went first; the others of their span keep their place. Returns how many lines are settled: those that a
    /// full lane dropped meanwhile were counted there.
    pub(crate) fn settle_ahead(&self, sent: &Numbers) -> u64 {
        let mut state = self.state();
        let from = state.acknowledged;
        let (lines, span) = (sent.count_from(from), sent.span());
        let looked_at = span.end.saturating_sub(from.max(span.start));
        if let Some(ahead) = &mut state.ahead {
            let begin = from.max(span.start);
            if begin > ahead.end {
                // Everything before was dropped.
                *ahead = Ahead::new(begin, ahead.newest);
            }
            ahead.extend(span.end, looked_at - lines);
        }
        lines
    }

    /// Everything up to the end of a span is settled: these lines by this call.
    pub(crate) fn settle_prefix(&self, sent: &Numbers) -> Settled {
        let next = self.next_number();
        let mut state = self.state();
        let from = state.acknowledged;
        let to = from.max(sent.span().end.min(next));
        state.acknowledged = to;
        state.pending.settle(to);
        let Some(ahead) = state.ahead.as_mut().filter(|a| to > a.start) else {
            return Settled { lines: to - from, ..Settled::default() };
        };
        let before = ahead.start.saturating_sub(from);
        let here = sent.count_from(from.max(ahead.start));
        let mut passed = ahead.pass(to, here);
        let missing = ahead.take_missing();
        passed = passed.saturating_sub(missing);
        Settled { lines: before + here, passed, missing }
    }

    /// The numbers from `from` to `end` that went first: only asked when others of them kept their place, and read again.
    pub(crate) fn went_first(&self, ahead: Ahead, from: u64, end: u64) -> Vec<u64> {
        let mut numbers = Vec::new();
        let mut reader = self.reader(from.max(ahead.start));
        while reader.position() < end {
            match reader.next(usize::MAX, SCAN_PIECE) {
                Ok(Next::Lines(batch)) => {
                    let first = (0..batch.len()).filter(|&i| Ahead::goes_first(ahead.newest, batch.line(i)));
                    numbers.extend(first.map(|i| batch.first + i as u64).take_while(|n| *n < end));
                }
                Ok(Next::Lost(_)) => {}
                Ok(Next::End) | Err(_) => break,
            }
        }
        numbers
    }

    /// No pending line has a newer timestamp than this; `None` while lines of previous runs were not all looked at, which
    /// goes on with the next call.
    pub(crate) fn newest_pending(&self) -> Option<i64> {
        let (from, end) = {
            let state = self.state();
            (state.former.scanned.max(state.acknowledged), state.former.end)
        };
        if from < end && !self.scan_former(&mut self.reader(from), end) {
            return None;
        }
        let state = self.state();
        Some(state.pending.newest().max(state.former.newest))
    }

    /// Looks at lines of previous runs; tells whether all were looked at.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_lines_that_were_sent_are_counted_from_a_place_on() {
        let all = Numbers::All(10..15);
        let some = Numbers::Some(10..15, vec![1, 3]);
        assert_eq!([0, 10, 12, 15, 20].map(|from| all.count_from(from)), [5, 5, 3, 0, 0]);
        assert_eq!([0, 11, 12, 14, 20].map(|from| some.count_from(from)), [2, 2, 1, 0, 0]);
        assert_eq!((all.of(2), some.of(1)), (12, 13));
    }
}
