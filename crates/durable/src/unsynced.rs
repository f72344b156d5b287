//! Frames of a log that no sync has covered, kept in memory up to a bound: a sync that fails says nothing of what is on the
//! disk. Pure: it knows neither files nor segments.

use std::collections::VecDeque;
use std::ops::Range;

/// A frame that is kept.
#[derive(Debug)]
struct Kept {
    numbers: Range<u64>,
    bytes: usize,
}

/// The frames, one after the other.
#[derive(Debug)]
pub(crate) struct Unsynced {
    bytes_max: usize,
    /// Nothing survives the process: nothing is kept.
    volatile: bool,
    frames: VecDeque<Kept>,
    bytes: VecDeque<u8>,
    /// Frames of these numbers were too many to be kept, and are in segments only; without an end while there are too many.
    /// What is kept is before them then, else behind them.
    beyond: Option<Range<u64>>,
}

impl Unsynced {
    pub(crate) fn new(bytes_max: usize, volatile: bool) -> Self {
        Self { bytes_max, volatile, frames: VecDeque::new(), bytes: VecDeque::new(), beyond: None }
    }

    pub(crate) fn is_volatile(&self) -> bool {
        self.volatile
    }

    /// More cannot be kept.
    pub(crate) fn is_full(&self) -> bool {
        self.bytes.len() > self.bytes_max || self.is_open()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.frames.is_empty() && self.beyond.is_none()
    }

    fn is_open(&self) -> bool {
        self.beyond.as_ref().is_some_and(|r| r.end == u64::MAX)
    }

    /// A frame was appended.
    pub(crate) fn push(&mut self, numbers: Range<u64>, frame: &[u8]) {
        if self.volatile || self.is_open() {
            return;
        }
        // A frame larger than the bound is kept as the only one.
        if self.bytes.len() > self.bytes_max {
            if let Some(beyond) = &mut self.beyond {
                beyond.end = u64::MAX;
                (self.frames, self.bytes) = (VecDeque::new(), VecDeque::new());
            } else {
                self.beyond = Some(numbers.start..u64::MAX);
            }
            return;
        }
        self.bytes.extend(frame);
        self.frames.push_back(Kept { numbers, bytes: frame.len() });
    }

    /// A sync has covered everything before `target`; the next frame gets the number `next`.
    pub(crate) fn synced(&mut self, target: u64, next: u64) {
        while self.frames.front().is_some_and(|f| f.numbers.end <= target) {
            if let Some(frame) = self.frames.pop_front() {
                self.bytes.drain(..frame.bytes);
            }
        }
        if let Some(beyond) = &mut self.beyond
            && beyond.start <= target
        {
            beyond.start = target;
            // What comes from now on is kept again.
            beyond.end = beyond.end.min(next);
            self.beyond.take_if(|b| b.is_empty());
        }
    }

    /// The bytes of all frames from a number on, in their order; those that are not kept by `read`.
    pub(crate) fn from(&self, from: u64, next: u64, read: impl FnOnce(Range<u64>) -> Vec<u8>) -> Vec<u8> {
        let first = self.frames.partition_point(|f| f.numbers.end <= from);
        let skipped: usize = self.frames.iter().take(first).map(|f| f.bytes).sum();
        let kept = self.bytes.range(skipped..).copied();
        let Some(beyond) = &self.beyond else { return kept.collect() };
        let numbers = beyond.start.max(from)..beyond.end.min(next);
        let read = if numbers.is_empty() { Vec::new() } else { read(numbers) };
        if self.is_open() { kept.chain(read).collect() } else { read.into_iter().chain(kept).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_back_in_their_order_whatever_was_kept() {
        let mut unsynced = Unsynced::new(100, false);
        let (mut all, mut synced) = (Vec::new(), 0usize);
        for i in 0..200u64 {
            unsynced.push(i..i + 1, &[i as u8; 30]);
            all.push(i as u8);
            if i % 7 == 6 {
                // What was appended during the sync is not covered by it.
                let target = i - i % 3;
                unsynced.synced(target, i + 1);
                synced = target as usize;
            }
            for from in synced..=all.len() {
                let read = |r: Range<u64>| r.flat_map(|n| [n as u8; 30]).collect();
                let bytes = unsynced.from(from as u64, i + 1, read);
                let expected: Vec<u8> = all[from..].iter().flat_map(|b| [*b; 30]).collect();
                assert!(bytes == expected, "from {from} of {}", all.len());
            }
            assert!(unsynced.bytes.len() <= 130);
        }
        unsynced.synced(200, 200);
        assert!(unsynced.is_empty());
    }
}
