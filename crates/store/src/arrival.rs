//! Timestamps for lines that arrive without one. It knows no lines and no clock: the present is handed in.

use graylogic_line::Timestamp;
use std::sync::atomic::{AtomicI64, Ordering};

/// Up to this far ahead of the clock a timestamp may be so that it differs from the ones before. Where the last one is
/// further ahead, the clock was set back, and is followed.
const AHEAD_MAX: i64 = 1_000_000_000;

/// The last timestamp that was assigned.
#[derive(Debug)]
pub(crate) struct Arrivals(AtomicI64);

impl Arrivals {
    pub(crate) fn new() -> Self {
        Self(AtomicI64::new(i64::MIN))
    }

    /// Timestamps for `count` lines that arrive now: no two lines get the same one, in this call or in those before.
    pub(crate) fn take(&self, now: Timestamp, count: usize) -> impl Iterator<Item = i64> + use<> {
        let now = now.as_nanos();
        let first = |last: i64| {
            let tied = last >= now && last.saturating_sub(now) <= AHEAD_MAX;
            if tied { last.saturating_add(1) } else { now }
        };
        let after = i64::try_from(count).unwrap_or(i64::MAX).saturating_sub(1);
        let last = |before: i64| Some(first(before).saturating_add(after).min(Timestamp::MAX.as_nanos()));
        // The update always has a value.
        let before = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, last);
        let first = first(before.unwrap_or_else(|same| same));
        let least = Timestamp::MIN.as_nanos();
        (0..).map(move |i| first.saturating_add(i).clamp(least, Timestamp::MAX.as_nanos())).take(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_has_a_timestamp_of_its_own_and_a_clock_that_is_set_back_is_followed() {
        let arrivals = Arrivals::new();
        let take =
            |now: i64, count| -> Vec<i64> { arrivals.take(Timestamp::from_nanos(now), count).collect() };
        assert_eq!(take(100, 3), [100, 101, 102]);
        assert_eq!(take(101, 2), [103, 104]);
        assert_eq!(take(104, 1), [105]);
        assert_eq!(take(200, 1), [200]);
        assert_eq!(take(200 - AHEAD_MAX, 1), [201], "a second back is a tie");
        assert_eq!(take(200 - AHEAD_MAX, 1), [200 - AHEAD_MAX], "more is a clock that was set back");
        assert_eq!(take(5, 0), [0; 0]);
        let top = Timestamp::MAX.as_nanos();
        assert_eq!(take(top - 1, 3), [top - 1, top, top], "beyond the last instant there is no other");
    }
}
