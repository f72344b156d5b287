//! Lines that the target has acknowledged and may still lose: their numbers, when they were acknowledged, and what was
//! reported of them already. The lines themselves stay in the lane. Must not know what the target is, nor how it is asked.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::{Duration, Instant};

/// Acknowledgements of one second that follow each other are one span.
const SPAN: Duration = Duration::from_secs(1);
/// Beyond this many spans, all that follow each other are one.
const SPANS_MAX: usize = 256;
/// Beyond this many ranges of reported lines nothing is sent until some have settled.
const REPORTED_MAX: usize = 1 << 16;

/// Where a batch came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    Lane,
    Live,
    /// From a piece.
    Memory,
}

/// What a target said, as the cursor keeps it, so that the next run need not send these lines again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Said {
    /// The target acknowledged the lines before this number.
    pub(crate) before: u64,
    /// When it acknowledged the last of them: nanoseconds since 1970.
    pub(crate) at: i64,
    /// The run of the target that did; 0 when it is unknown.
    pub(crate) by: u64,
}

/// Acknowledged lines that have not settled yet.
#[derive(Debug, Default)]
pub(crate) struct Settling {
    spans: Vec<Span>,
    reported: Numbers,
    /// When the sender wants to look at its target.
    pub(crate) look_at: Option<Instant>,
    /// The run of the target that the sender saw last; 0 when it is unknown.
    pub(crate) run: u64,
}

/// Lines that were acknowledged, or found to be lost, at about the same time.
#[derive(Clone, Debug)]
pub(crate) struct Span {
    pub(crate) origin: Origin,
    pub(crate) numbers: Range<u64>,
    /// They are lost to damage.
    pub(crate) damaged: bool,
    /// When the first and the last of them were acknowledged.
    began: Instant,
    since: Instant,
}

impl Settling {
    pub(crate) fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// Whether no more lines may be sent before some have settled.
    pub(crate) fn is_full(&self) -> bool {
        !self.is_empty() && self.reported.ranges.len() >= REPORTED_MAX
    }

    /// Whether lines of this origin have not settled.
    pub(crate) fn holds(&self, origin: Origin) -> bool {
        self.spans.iter().any(|s| s.origin == origin)
    }

    /// The number after the last line of this origin that has not settled.
    pub(crate) fn end_of(&self, origin: Origin) -> Option<u64> {
        self.spans.iter().rev().find(|s| s.origin == origin).map(|s| s.numbers.end)
    }

    /// Number of lines that were acknowledged and have not settled.
    pub(crate) fn lines(&self) -> u64 {
        self.spans.iter().map(|s| s.numbers.end - s.numbers.start).sum()
    }

    /// Of them, those that follow what is settled without a gap.
    pub(crate) fn next_lines(&self) -> u64 {
        let next = self.spans.iter().filter(|s| s.origin == Origin::Lane);
        next.map(|s| s.numbers.end - s.numbers.start).sum()
    }

    /// Adds lines that were acknowledged now, or that are lost.
    pub(crate) fn add(&mut self, origin: Origin, numbers: Range<u64>, damaged: bool, now: Instant) {
        let many = self.spans.len() >= SPANS_MAX;
        let last = self.spans.iter_mut().rev().find(|s| s.origin == origin);
        match last {
            Some(last)
                if last.numbers.end == numbers.start
                    && last.damaged == damaged
                    && (many || now.saturating_duration_since(last.began) < SPAN) =>
            {
                last.numbers.end = numbers.end;
                last.since = now;
            }
            _ => self.spans.push(Span { origin, numbers, damaged, began: now, since: now }),
        }
    }

    /// Notes that these lines were reported, as rejected or as lost.
    pub(crate) fn report(&mut self, numbers: Range<u64>) {
        self.reported.add(numbers);
    }

    pub(crate) fn is_reported(&self, number: u64) -> bool {
        self.reported.count(number..number + 1) > 0
    }

    /// Takes out the spans whose last line was acknowledged at a moment or before it, oldest first.
    pub(crate) fn settled(&mut self, until: Instant) -> Vec<Span> {
        self.spans.extract_if(.., |s| s.since <= until).collect()
    }

    /// Takes out the older half of the spans.
    pub(crate) fn oldest_half(&mut self) -> Vec<Span> {
        self.spans.drain(..self.spans.len().div_ceil(2)).collect()
    }

    /// Live lines follow the others without a gap now.
    pub(crate) fn join(&mut self) {
        self.spans.iter_mut().for_each(|s| s.origin = Origin::Lane);
    }

    /// Forgets all spans: their lines are sent again. What was reported of them stays known.
    pub(crate) fn forget(&mut self) {
        self.spans.clear();
    }

    /// How many of these lines were reported, which is forgotten.
    pub(crate) fn take_reported(&mut self, numbers: Range<u64>) -> u64 {
        let count = self.reported.count(numbers.clone());
        self.reported.remove(numbers);
        count
    }
}

/// Numbers, as ranges that do not touch each other: starts and ends.
#[derive(Clone, Debug, Default)]
pub(crate) struct Numbers {
    ranges: BTreeMap<u64, u64>,
}

impl Numbers {
    pub(crate) fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// How many ranges.
    pub(crate) fn ranges(&self) -> usize {
        self.ranges.len()
    }

    pub(crate) fn add(&mut self, mut numbers: Range<u64>) {
        if numbers.is_empty() {
            return;
        }
        while let Some((&start, &end)) = self.ranges.range(..=numbers.end).next_back()
            && end >= numbers.start
        {
            self.ranges.remove(&start);
            numbers = numbers.start.min(start)..numbers.end.max(end);
        }
        self.ranges.insert(numbers.start, numbers.end);
    }

    /// The ranges that hold some of these numbers.
    fn touched(&self, numbers: &Range<u64>) -> impl Iterator<Item = (u64, u64)> {
        let from = numbers.start;
        let touched = self.ranges.range(..numbers.end).rev().take_while(move |r| *r.1 > from);
        touched.map(|(start, end)| (*start, *end))
    }

    pub(crate) fn count(&self, numbers: Range<u64>) -> u64 {
        let within = |(start, end): (u64, u64)| end.min(numbers.end) - start.max(numbers.start);
        self.touched(&numbers).map(within).sum()
    }

    pub(crate) fn remove(&mut self, numbers: Range<u64>) {
        if numbers.is_empty() {
            return;
        }
        let touched: Vec<_> = self.touched(&numbers).collect();
        for (start, end) in touched {
            self.ranges.remove(&start);
            if start < numbers.start {
                self.ranges.insert(start, numbers.start);
            }
            if end > numbers.end {
                self.ranges.insert(numbers.end, end);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn ranges_of_numbers_are_what_a_set_of_them_is() {
        let (mut numbers, mut set) = (Numbers::default(), BTreeSet::new());
        let mut seed = 7u64;
        let mut next = |below: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) % below
        };
        for _ in 0..2_000 {
            let (start, length) = (next(60), next(8));
            let range = start..start + length;
            if next(3) == 0 {
                numbers.remove(range.clone());
                set.retain(|n| !range.contains(n));
            } else {
                numbers.add(range.clone());
                set.extend(range);
            }
            let (start, length) = (next(60), next(30));
            let seen = set.range(start..start + length).count() as u64;
            assert_eq!(numbers.count(start..start + length), seen, "{numbers:?}");
            let ranges: Vec<_> = numbers.ranges.iter().collect();
            assert!(ranges.windows(2).all(|w| w[0].1 < w[1].0), "{numbers:?}");
        }
    }

    #[test]
    fn acknowledgements_of_a_second_are_one_span_and_settle_together() {
        let began = Instant::now();
        let at = |ms| began + Duration::from_millis(ms);
        let mut settling = Settling::default();
        settling.add(Origin::Lane, 1..5, false, at(0));
        settling.add(Origin::Live, 100..110, false, at(100));
        settling.add(Origin::Lane, 5..9, false, at(900));
        settling.add(Origin::Lane, 9..20, false, at(1_000));
        settling.add(Origin::Lane, 20..22, true, at(1_100));
        assert_eq!((settling.spans.len(), settling.lines()), (4, 31));
        let settled = settling.settled(at(899));
        assert_eq!((settled.len(), settled[0].numbers.clone()), (1, 100..110));
        let settled = settling.settled(at(1_000));
        assert_eq!(settled.iter().map(|s| s.numbers.clone()).collect::<Vec<_>>(), [1..9, 9..20]);
        assert!(settling.holds(Origin::Lane) && !settling.holds(Origin::Live));
    }

    #[test]
    fn spans_are_bounded_however_long_nothing_settles() {
        let began = Instant::now();
        let mut settling = Settling::default();
        for i in 0..10_000u64 {
            settling.add(Origin::Lane, i..i + 1, false, began + Duration::from_secs(2 * i));
        }
        assert_eq!((settling.spans.len(), settling.lines()), (SPANS_MAX, 10_000));
    }
}
