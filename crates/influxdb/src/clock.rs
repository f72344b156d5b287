//! The timestamps that this process assigns to readings without one: the system's clock, with ties broken. It knows
//! neither lanes nor who receives the report of a step.

use graylogic_line::Timestamp;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

/// Ties are broken within this distance. A clock that is further behind the last assigned timestamp was set back.
const TIE: i64 = 1_000_000_000;

static ASSIGNED: Assigned = Assigned::new();

/// The last timestamp that was assigned.
struct Assigned {
    last: AtomicI64,
}

/// A timestamp for a reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) time: Timestamp,
    /// The clock is this far behind the timestamp that was assigned before.
    pub(crate) stepped_back: Option<Duration>,
}

impl Assigned {
    const fn new() -> Self {
        Self { last: AtomicI64::new(i64::MIN) }
    }

    /// The present by `clock`, or 1 ns after the last assigned timestamp, if that is less than a second ahead: no two
    /// readings get the same timestamp. A clock that steps back further is followed.
    fn next(&self, clock: impl Fn() -> Timestamp) -> Stamp {
        let mut last = self.last.load(Ordering::Acquire);
        loop {
            // Read after `last`: a thread that was suspended in between cannot take its own delay for a step.
            let now = clock().as_nanos();
            let ahead = last.saturating_sub(now);
            let time = if (0..TIE).contains(&ahead) { last + 1 } else { now };
            let time = time.min(Timestamp::MAX.as_nanos());
            match self.last.compare_exchange_weak(last, time, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => {
                    let back = u64::try_from(ahead).ok().filter(|_| ahead >= TIE);
                    let stepped_back = back.map(Duration::from_nanos);
                    return Stamp { time: Timestamp::from_nanos(time), stepped_back };
                }
                Err(newer) => last = newer,
            }
        }
    }
}

/// A timestamp for a reading that has none. No two readings of this process get the same one, unless the clock is set
/// back by a second or more in between.
pub(crate) fn next() -> Stamp {
    ASSIGNED.next(Timestamp::now)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::collections::HashSet;

    const SECOND: i64 = 1_000_000_000;

    /// The timestamps assigned at these times of the clock, and the steps that were seen, in nanoseconds.
    fn check(clock: &[i64], expected: &[i64], steps: &[i64]) {
        let assigned = Assigned::new();
        let stamps: Vec<Stamp> =
            clock.iter().map(|&now| assigned.next(|| Timestamp::from_nanos(now))).collect();
        let times: Vec<i64> = stamps.iter().map(|s| s.time.as_nanos()).collect();
        let seen: Vec<i64> = stamps.iter().filter_map(|s| Some(s.stepped_back?.as_nanos() as i64)).collect();
        assert_eq!((&times[..], &seen[..]), (expected, steps), "{clock:?}");
    }

    #[test]
    fn ties_are_broken_within_a_second_and_a_clock_that_was_set_back_is_followed() {
        let hour = 3600 * SECOND;
        check(&[5, 5, 5, 9], &[5, 6, 7, 9], &[]);
        check(&[SECOND, 1, 2, SECOND + 3], &[SECOND, SECOND + 1, SECOND + 2, SECOND + 3], &[]);
        // Two hours ahead for one reading, then right again: the others have their own times.
        check(&[hour, 3 * hour, hour + 1, hour + 2], &[hour, 3 * hour, hour + 1, hour + 2], &[2 * hour - 1]);
        check(&[0, -hour, -hour], &[0, -hour, -hour + 1], &[hour]);
        let most = Timestamp::MAX.as_nanos();
        check(&[most, most, i64::MIN + 1], &[most, most, i64::MIN + 1], &[i64::MAX]);
    }

    #[test]
    fn a_thread_that_is_suspended_takes_its_own_delay_for_no_step() {
        // Another thread assigns two seconds later while this one looks at the clock.
        let (assigned, looked) = (Assigned::new(), Cell::new(0));
        assigned.next(|| Timestamp::from_nanos(SECOND));
        let stamp = assigned.next(|| {
            looked.set(looked.get() + 1);
            if looked.get() == 1 {
                assigned.next(|| Timestamp::from_nanos(3 * SECOND));
                return Timestamp::from_nanos(SECOND + 1);
            }
            Timestamp::from_nanos(3 * SECOND)
        });
        assert_eq!((stamp.time.as_nanos(), stamp.stepped_back), (3 * SECOND + 1, None));
    }

    #[test]
    fn threads_get_different_timestamps() {
        let assigned = Assigned::new();
        let of_one = || (0..2000).map(|_| assigned.next(Timestamp::now).time).collect::<Vec<_>>();
        let all = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(of_one)).collect();
            threads.into_iter().flat_map(|t| t.join().unwrap()).collect::<Vec<_>>()
        });
        assert_eq!(all.iter().collect::<HashSet<_>>().len(), all.len());
    }
}
