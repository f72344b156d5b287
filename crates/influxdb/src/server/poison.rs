//! Lines on which a server fails again and again: what is known of them, and when it proves that they are the cause. Pure:
//! the present is handed in. It knows neither requests nor answers.
//!
//! An attempt counts when the server took other lines of the same bucket before it and after it. A server that takes nothing,
//! one with a full disk say, proves nothing about a line, whatever it says of its own health.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Attempts that must count, and the time over which they must be spread.
const ATTEMPTS_MIN: u32 = 5;
const SPREAD_MIN: Duration = Duration::from_secs(120);

/// The suspects among the lines of a batch.
#[derive(Debug)]
pub(crate) struct Suspects {
    lines: HashMap<Vec<u8>, Suspect>,
    /// The server took other lines, and has not failed on any but suspects since.
    is_taking: bool,
    spread_min: Duration,
}

#[derive(Debug, Default)]
struct Suspect {
    /// The first attempt that counts.
    since: Option<Instant>,
    attempts: u32,
    /// An attempt that counts if the server takes other lines after it.
    open: Option<Instant>,
    reason: String,
    is_proven: bool,
}

impl Suspects {
    /// None yet; `hurry` shortens the time of the proof, for tests.
    pub(crate) fn new(hurry: u32) -> Self {
        Self { lines: HashMap::new(), is_taking: false, spread_min: SPREAD_MIN / hurry.max(1) }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.lines.len()
    }

    pub(crate) fn contains(&self, line: &[u8]) -> bool {
        self.lines.contains_key(line)
    }

    /// The server took this line after all.
    pub(crate) fn clear_of(&mut self, line: &[u8]) {
        self.lines.remove(line);
    }

    /// The batch is settled.
    pub(crate) fn forget(&mut self) {
        self.lines.clear();
    }

    /// The server took lines that are no suspects.
    pub(crate) fn others_taken(&mut self) {
        self.is_taking = true;
        for suspect in self.lines.values_mut() {
            if let Some(at) = suspect.open.take() {
                suspect.attempts += 1;
                let since = *suspect.since.get_or_insert(at);
                let spread = at.saturating_duration_since(since);
                suspect.is_proven |= suspect.attempts >= ATTEMPTS_MIN && spread >= self.spread_min;
            }
        }
    }

    /// The server failed on this line alone.
    pub(crate) fn failed(&mut self, line: &[u8], reason: &str, now: Instant) {
        let is_taking = self.is_taking;
        let suspect = self.lines.entry(line.to_vec()).or_default();
        suspect.open = is_taking.then_some(now);
        reason.clone_into(&mut suspect.reason);
    }

    /// Nothing came of a request, for a reason that has nothing to do with its lines.
    pub(crate) fn interrupted(&mut self) {
        self.is_taking = false;
        self.lines.values_mut().for_each(|suspect| suspect.open = None);
    }

    /// The server failed on other lines as well: what was seen so far proves nothing.
    pub(crate) fn others_failed(&mut self) {
        self.interrupted();
        for suspect in self.lines.values_mut().filter(|suspect| !suspect.is_proven) {
            (suspect.since, suspect.attempts) = (None, 0);
        }
    }

    /// Why the line is rejected, once it is proven to be the cause.
    pub(crate) fn verdict(&self, line: &[u8]) -> Option<String> {
        let Suspect { attempts, reason, .. } = self.lines.get(line).filter(|suspect| suspect.is_proven)?;
        Some(format!("{reason}, {attempts} times, while it took other lines of the bucket before and after"))
    }

    /// What the server said of one of them.
    pub(crate) fn reason(&self) -> Option<&str> {
        self.lines.values().next().map(|suspect| suspect.reason.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &[u8] = b"m f=1 1\n";

    /// Plays steps, one a second unless a step says otherwise: `+` others are taken, `!` the line fails, `-` others fail, `?` no
    /// answer, `m` a minute passes.
    fn check(steps: &str, expected: bool) {
        let mut suspects = Suspects::new(1);
        let mut now = Instant::now();
        for step in steps.chars() {
            now += Duration::from_secs(if step == 'm' { 60 } else { 1 });
            match step {
                '+' => suspects.others_taken(),
                '!' => suspects.failed(LINE, "broken", now),
                '-' => suspects.others_failed(),
                '?' => suspects.interrupted(),
                _ => {}
            }
        }
        assert_eq!(suspects.verdict(LINE).is_some(), expected, "{steps}");
    }

    #[test]
    fn only_what_fails_for_minutes_between_others_that_are_taken_is_the_cause() {
        check("+!+!+!m+!m+!+", true);
        // Not over minutes.
        check("+!+!+!+!+!+!+!+!+", false);
        // Not often enough.
        check("+!m+!m+!+", false);
        // The last attempt has nothing after it.
        check("+!+!+!+!mm+!", false);
        // The server takes nothing, or nothing before, or nothing after.
        check("!!!m!!!m!!!", false);
        check("!m!m!m!m!+", false);
        check("+!m!m!m!m!", false);
        // It fails on others as well, in between.
        check("+!+!+!m+!-m+!+", false);
        check("+!+!-+!+!m+!m+!+!+", true);
        // Without an answer an attempt does not count, and the others do.
        check("+!+!+!m+!?m+!+!+", true);
        check("+!?+!?+!?m+!?m+!?+", false);
    }
}
