//! What salvage could not save: the first sentences, and the number of the others.

/// At most so many losses are named.
const NAMED_MAX: usize = 100;

/// What is lost so far.
#[derive(Debug, Default)]
pub(super) struct Losses {
    named: Vec<(String, u64)>,
    more: u64,
    /// Readings of those that are not named.
    more_readings: u64,
    /// Readings that are known to be lost.
    pub(super) readings: u64,
}

impl Losses {
    /// Something is lost, and so many readings with it as far as is known.
    pub(super) fn add(&mut self, readings: u64, what: impl FnOnce() -> String) {
        self.readings = self.readings.saturating_add(readings);
        if self.named.len() < NAMED_MAX {
            self.named.push((what(), readings));
        } else {
            self.more += 1;
            self.more_readings = self.more_readings.saturating_add(readings);
        }
    }

    /// The sentences, and how many losses there are.
    pub(super) fn end(self) -> (Vec<String>, u64) {
        let count = self.named.len() as u64 + self.more;
        (self.end_with_readings().into_iter().map(|l| l.0).collect(), count)
    }

    /// The sentences, each with the readings that are known to be lost.
    pub(super) fn end_with_readings(self) -> Vec<(String, u64)> {
        let mut named = self.named;
        if self.more > 0 {
            let text = format!("and {} more losses, which are not listed", self.more);
            named.push((text, self.more_readings));
        }
        named
    }
}
