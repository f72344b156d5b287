//! What a lane knows of its pending lines without reading them: since when they are pending, and the newest timestamp
//! among them. Of a line it knows only where its timestamp stands.

use std::collections::VecDeque;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// A stretch of lines ends after so many lines, or this time.
const LINES: u64 = 1 << 16;
const EVERY: Duration = Duration::from_secs(10);
/// With so many stretches, two neighbors become one.
const STRETCHES_MAX: usize = 4096;
/// Creation times before 2020 are those of a machine whose clock was not set.
const CLOCK_SET: i64 = 1_577_836_800_000_000_000;
/// The clock of a machine that was just started may be wrong: lines of a previous run are dropped for their age no sooner
/// than this after opening.
const GRACE: Duration = Duration::from_secs(600);

/// Time since this was asked first in the process; steps of the system clock do not change it.
pub(crate) fn monotonic() -> Duration {
    static BEGAN: OnceLock<Instant> = OnceLock::new();
    BEGAN.get_or_init(Instant::now).elapsed()
}

/// The timestamp of a line: the number behind its last space. A line without one ends with a field, which has `=` in it.
pub(crate) fn line_time(line: &[u8]) -> Option<i64> {
    let text = line.trim_ascii_end();
    // No number is longer, nor the space before it.
    let tail = &text[text.len().saturating_sub(22)..];
    let space = memchr::memrchr(b' ', tail)?;
    std::str::from_utf8(&tail[space + 1..]).ok()?.parse().ok()
}

/// The newest timestamp of lines, `i64::MIN` when none has one.
pub(crate) fn newest_of(bytes: &[u8], start: usize, ends: &[u32]) -> i64 {
    let mut from = 0;
    let mut newest = i64::MIN;
    for &end in ends {
        let to = end as usize - start;
        newest = newest.max(line_time(&bytes[from..to]).unwrap_or(i64::MIN));
        from = to;
    }
    newest
}

/// Consecutive lines that were appended about the same time.
#[derive(Clone, Copy, Debug)]
struct Stretch {
    first: u64,
    since: Duration,
    newest: i64,
}

/// Lines of previous runs, which are in segments that were there when the lane was opened.
#[derive(Clone, Debug, Default)]
pub(crate) struct Former {
    /// Lines before this number.
    pub(crate) end: u64,
    /// Of them, those before this number were looked at, and the newest timestamp among those.
    pub(crate) scanned: u64,
    pub(crate) newest: i64,
    /// First lines of segments, and when these were created by the clock of their writer.
    pub(crate) created: Vec<(u64, i64)>,
    /// The clock at opening, and the monotonic time.
    pub(crate) opened: i64,
    pub(crate) opened_monotonic: Duration,
}

impl Former {
    /// How old a creation time was at opening, if the clocks that say so can be believed.
    fn age_at_opening(&self, created: i64) -> Option<Duration> {
        let age = self.opened.checked_sub(created).filter(|_| created >= CLOCK_SET && created != i64::MAX)?;
        u64::try_from(age).ok().map(Duration::from_nanos)
    }

    /// How long a line is pending, to about a segment.
    pub(crate) fn age(&self, number: u64, now: Duration) -> Option<Duration> {
        let (_, created) = self.created.iter().rfind(|s| s.0 <= number)?;
        Some(self.age_at_opening(*created)? + now.saturating_sub(self.opened_monotonic))
    }

    /// A line is pending at least so long: since the segment after its own was begun, and in this run.
    pub(crate) fn age_at_least(&self, number: u64, now: Duration) -> Duration {
        let next = self.created.iter().find(|s| s.0 > number);
        let before = next.and_then(|s| self.age_at_opening(s.1)).unwrap_or_default();
        before + now.saturating_sub(self.opened_monotonic)
    }

    /// Whether lines that were appended before a segment was begun are older than the limit. A step of the clock makes no
    /// line old: the clock at opening and the one now must both say so, and the run must last for a while.
    pub(crate) fn is_older(&self, created: i64, limit: Duration, clock: i64, now: Duration) -> bool {
        let run = now.saturating_sub(self.opened_monotonic);
        let by_clock = Self { opened: self.opened.min(clock), ..Self::default() }.age_at_opening(created);
        run > limit || (run >= GRACE.min(limit) && by_clock.is_some_and(|age| age > limit))
    }
}

/// Lines appended in this run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pending {
    stretches: VecDeque<Stretch>,
}

impl Pending {
    /// Lines from the number `first` on were appended.
    pub(crate) fn add(&mut self, first: u64, newest: i64, now: Duration) {
        match self.stretches.back_mut() {
            Some(last) if first < last.first + LINES && now.saturating_sub(last.since) < EVERY => {
                last.newest = last.newest.max(newest);
            }
            _ => self.stretches.push_back(Stretch { first, since: now, newest }),
        }
        if self.stretches.len() > STRETCHES_MAX {
            self.halve();
        }
    }

    fn halve(&mut self) {
        let pairs: Vec<Stretch> = self.stretches.drain(..).collect();
        let merged = |pair: &[Stretch]| Stretch {
            newest: pair.iter().map(|s| s.newest).max().unwrap_or(i64::MIN),
            ..pair[0]
        };
        self.stretches = pairs.chunks(2).map(merged).collect();
    }

    /// Lines before a number are settled.
    pub(crate) fn settle(&mut self, before: u64) {
        while self.stretches.get(1).is_some_and(|next| next.first <= before) {
            self.stretches.pop_front();
        }
    }

    /// The newest timestamp of pending lines, or of some settled just before them.
    pub(crate) fn newest(&self) -> i64 {
        self.stretches.iter().map(|s| s.newest).max().unwrap_or(i64::MIN)
    }

    /// When a line was appended, or a little earlier.
    pub(crate) fn since(&self, number: u64) -> Option<Duration> {
        let after = self.stretches.partition_point(|s| s.first <= number);
        Some(self.stretches.get(after.checked_sub(1)?)?.since)
    }

    /// Whether a line was appended longer ago than the limit, for certain.
    pub(crate) fn is_older(&self, number: u64, limit: Duration, now: Duration) -> bool {
        self.since(number).is_some_and(|since| now.saturating_sub(since) > limit + EVERY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_timestamp_of_a_line_is_the_number_behind_its_last_space() {
        let cases: [(&[u8], Option<i64>); 12] = [
            (b"power,d=a w=1 1700000000000000000\n", Some(1_700_000_000_000_000_000)),
            (b"power w=1 -5\n", Some(-5)),
            (b"power w=1 7 \r\n", Some(7)),
            (b"power w=1 9223372036854775807\n", Some(i64::MAX)),
            (b"power w=1 99999999999999999999\n", None),
            (b"power w=1\n", None),
            (b"power w=1i,v=2u\n", None),
            (b"log t=\"at 12\"\n", None),
            (b"log t=\"one\ntwo 3\" 4\n", Some(4)),
            (b"log a\\ 5=1\n", None),
            (b"\n", None),
            (b"12345678901234567890123456789\n", None),
        ];
        for (line, expected) in cases {
            assert_eq!(line_time(line), expected, "{}", String::from_utf8_lossy(line));
        }
    }

    #[test]
    fn many_stretches_take_little_memory_and_stay_right() {
        let mut pending = Pending::default();
        for i in 0..100_000u64 {
            pending.add(i * LINES, i as i64, EVERY * i as u32);
        }
        assert!(pending.stretches.len() <= STRETCHES_MAX);
        assert_eq!(pending.newest(), 99_999);
        assert!(pending.since(50_000 * LINES).unwrap() <= EVERY * 50_000);
        pending.settle(99_999 * LINES);
        pending.add(100_000 * LINES, 3, EVERY * 100_000);
        pending.settle(100_000 * LINES);
        assert_eq!(pending.newest(), 3);
    }

    #[test]
    fn lines_of_a_previous_run_are_old_when_both_clocks_say_so() {
        const HOUR: i64 = 3_600_000_000_000;
        let limit = Duration::from_secs(3600);
        let check = |created: i64, opened: i64, clock: i64, run: u64, expected: bool| {
            let former = Former { opened, ..Former::default() };
            let old = former.is_older(created, limit, clock, Duration::from_secs(run));
            assert_eq!(old, expected, "created {created}, opened {opened}, now {clock}, after {run} s");
        };
        let then = CLOCK_SET + HOUR;
        check(then, then + 2 * HOUR, then + 2 * HOUR, 601, true);
        check(then, then + 2 * HOUR, then + 2 * HOUR, 5, false);
        // The clock steps while the client runs, or was not set when the lines were written, or is not now.
        check(then, then + 1, then + 1_000_000 * HOUR, 601, false);
        check(then, then + 1_000_000 * HOUR, then + 1, 601, false);
        check(0, then, then, 601, false);
        check(then, 0, 0, 601, false);
        check(i64::MAX, then, then, 601, false);
        // Whatever the clock says, a run that lasts longer than the limit is proof.
        check(then, 0, 0, 3601, true);
    }
}
