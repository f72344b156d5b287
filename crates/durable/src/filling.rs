//! How fast a lane fills, and when it will be full. Pure: it is told what time it is.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

const EVERY: Duration = Duration::from_secs(10);
/// A rate is taken over this time; over less than the one above it says nothing.
const WINDOW: Duration = Duration::from_secs(300);

/// Sizes seen in the last minutes.
#[derive(Debug, Default)]
pub(crate) struct Filling {
    seen: VecDeque<(Instant, u64)>,
}

impl Filling {
    pub(crate) fn add(&mut self, now: Instant, bytes: u64) {
        let age = |seen: &(Instant, u64)| now.saturating_duration_since(seen.0);
        if self.seen.back().is_none_or(|last| age(last) >= EVERY) {
            self.seen.push_back((now, bytes));
        }
        while self.seen.get(1).is_some_and(|second| age(second) >= WINDOW) {
            self.seen.pop_front();
        }
    }

    /// When so many more bytes are there, at the rate they came; `None` when they become fewer, or nobody knows yet.
    pub(crate) fn full_in(&self, now: Instant, bytes: u64, bytes_left: u64) -> Option<Duration> {
        let (since, before) = *self.seen.front()?;
        let time = now.saturating_duration_since(since);
        let grown = bytes.checked_sub(before).filter(|&n| n > 0 && time >= EVERY)?;
        Duration::try_from_secs_f64(bytes_left as f64 / grown as f64 * time.as_secs_f64()).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(sizes: &[(u64, u64)], bytes_left: u64, expected: Option<u64>) {
        let began = Instant::now();
        let mut filling = Filling::default();
        let mut answer = None;
        for &(second, bytes) in sizes {
            let now = began + Duration::from_secs(second);
            filling.add(now, bytes);
            answer = filling.full_in(now, bytes, bytes_left);
        }
        assert!(filling.seen.len() <= 32);
        assert_eq!(answer.map(|a| a.as_secs()), expected, "{sizes:?}");
    }

    #[test]
    fn a_lane_that_grows_is_full_at_a_known_time_and_one_that_shrinks_never() {
        check(&[(0, 0), (9, 900)], 1000, None);
        check(&[(0, 0), (10, 1000)], 36_000, Some(360));
        check(&[(0, 5000), (20, 5000)], 1000, None);
        check(&[(0, 5000), (20, 4000)], 1000, None);
        check(&[(0, 0), (20, 10)], 0, Some(0));
        // Longer than there are numbers for.
        check(&[(0, 0), (20, 1)], u64::MAX, None);
        // What was more than five minutes ago does not count.
        let late: Vec<(u64, u64)> =
            (0..100).map(|i| (i * 10, if i < 50 { 0 } else { (i - 50) * 100 })).collect();
        check(&late, 1000, Some(100));
    }
}
