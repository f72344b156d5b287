//! Windows of a series in VictoriaMetrics that an earlier version of this client began and this one goes on with: they are two
//! series there (`server/naming.rs`), and one for the caller. Pure. Must not know how a query is phrased.

use super::Aggregate;
use std::collections::BTreeMap;

/// A window of a series: its place in the answer, and when it was asked for.
type Window = (usize, i64);

/// The values of a window that both series have a part of: the earlier one's and the present one's.
type Both = [Option<f64>; 2];

/// Windows that were read, by whether the earlier version wrote them.
#[derive(Debug, Default)]
pub(crate) struct Windows {
    values: BTreeMap<Window, Both>,
    /// Those that both have a part of, and what decides between these.
    split: BTreeMap<Window, (Both, Both)>,
}

impl Windows {
    pub(crate) fn add(&mut self, at: usize, time: i64, is_earlier: bool, value: f64) {
        self.values.entry((at, time)).or_default()[usize::from(!is_earlier)] = Some(value);
    }

    /// What decides between the parts of a window that both have one of.
    pub(crate) fn add_weight(&mut self, at: usize, time: i64, is_earlier: bool, weight: f64) {
        if let Some((_, weights)) = self.split.get_mut(&(at, time)) {
            weights[usize::from(!is_earlier)] = Some(weight);
        }
    }

    /// The windows whose value is known. Some may be left that [`decider`] must decide.
    pub(crate) fn take(&mut self, aggregate: Aggregate) -> Vec<(usize, i64, f64)> {
        let mut known = Vec::with_capacity(self.values.len());
        for ((at, time), both) in std::mem::take(&mut self.values) {
            match both {
                [Some(one), None] | [None, Some(one)] => known.push((at, time, one)),
                [Some(a), Some(b)] => match aggregate {
                    Aggregate::Count | Aggregate::Sum => known.push((at, time, a + b)),
                    Aggregate::Min => known.push((at, time, a.min(b))),
                    Aggregate::Max => known.push((at, time, a.max(b))),
                    _ => {
                        self.split.insert((at, time), (both, Both::default()));
                    }
                },
                [None, None] => {}
            }
        }
        known
    }

    pub(crate) fn has_split(&self) -> bool {
        !self.split.is_empty()
    }

    /// The windows that were left.
    pub(crate) fn take_split(&mut self, aggregate: Aggregate) -> Vec<(usize, i64, f64)> {
        let decided = |(both, weights): (Both, Both)| {
            let [a, b] = [both[0].unwrap_or_default(), both[1].unwrap_or_default()];
            let [of_a, of_b] = weights;
            match (aggregate, of_a, of_b) {
                (Aggregate::Mean, Some(of_a), Some(of_b)) => (a * of_a + b * of_b) / (of_a + of_b),
                (Aggregate::First, Some(of_a), Some(of_b)) if of_a < of_b => a,
                (Aggregate::Last, Some(of_a), Some(of_b)) if of_a > of_b => a,
                // At one time, the present one was written later; or the readings were deleted between the requests.
                _ => b,
            }
        };
        let split = std::mem::take(&mut self.split);
        split.into_iter().map(|((at, time), window)| (at, time, decided(window))).collect()
    }
}

/// What decides between two parts of a window; `None` when their values do.
pub(crate) fn decider(aggregate: Aggregate) -> Option<&'static str> {
    match aggregate {
        Aggregate::Mean => Some("count_over_time"),
        Aggregate::First => Some("tfirst_over_time"),
        Aggregate::Last => Some("tlast_over_time"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_of_two_series_is_that_of_all_their_readings() {
        // Earlier: 1 at 10 s, 5 at 20 s. Present: 9 at 30 s.
        for (aggregate, earlier, present, weights, expected) in [
            (Aggregate::Count, 2.0, 1.0, None, 3.0),
            (Aggregate::Sum, 6.0, 9.0, None, 15.0),
            (Aggregate::Min, 1.0, 9.0, None, 1.0),
            (Aggregate::Max, 5.0, 9.0, None, 9.0),
            (Aggregate::Mean, 3.0, 9.0, Some((2.0, 1.0)), 5.0),
            (Aggregate::First, 1.0, 9.0, Some((10.0, 30.0)), 1.0),
            (Aggregate::First, 1.0, 9.0, Some((30.0, 10.0)), 9.0),
            (Aggregate::Last, 5.0, 9.0, Some((20.0, 30.0)), 9.0),
            (Aggregate::Last, 5.0, 9.0, Some((40.0, 30.0)), 5.0),
            (Aggregate::Last, 5.0, 9.0, Some((30.0, 30.0)), 9.0),
        ] {
            let mut windows = Windows::default();
            windows.add(3, 60, false, present);
            windows.add(3, 60, true, earlier);
            windows.add(3, 120, false, 7.0);
            windows.add(4, 60, true, 8.0);
            let mut found = windows.take(aggregate);
            assert_eq!(windows.has_split(), decider(aggregate).is_some());
            if let Some((of_earlier, of_present)) = weights {
                windows.add_weight(3, 60, true, of_earlier);
                windows.add_weight(3, 60, false, of_present);
                windows.add_weight(4, 60, true, 1.0);
                found.extend(windows.take_split(aggregate));
            }
            found.sort_by_key(|f| (f.0, f.1));
            assert_eq!(found, [(3, 60, expected), (3, 120, 7.0), (4, 60, 8.0)], "{aggregate:?}");
        }
    }
}
