//! The row that a campaign prints: how many cases there were and what they came to, counted, never assumed. A case that
//! panics counts as one and does not end the others. It knows nothing of what is tried.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Cases wait more than they work.
const THREADS: usize = 8;
/// So many faults are told in words.
const FAULTS_TOLD: usize = 10;

/// How much of a campaign is run: 1 is the figure of the table, `usual` what a plain `cargo test` does.
pub fn share(usual: f64) -> f64 {
    std::env::var("GRAYLOGIC_TORTURE").map_or(usual, |n| n.parse().unwrap())
}

/// What cases came to.
#[derive(Clone, Debug, Default)]
pub struct Toll {
    /// Lines that were accepted and are nowhere.
    pub lost: u64,
    /// Lines that nobody wrote, that came out of order or changed, that were refused and are good; counts, states and
    /// messages that do not fit.
    pub wrong: u64,
    /// Clients that could not be connected though nobody had their spool.
    pub refused_to_open: u64,
    panics: u64,
    faults: Vec<String>,
}

impl Toll {
    pub fn lose(&mut self, lines: u64, what: impl FnOnce() -> String) {
        if lines > 0 {
            self.lost += lines;
            self.faults.push(format!("{lines} lost: {}", what()));
        }
    }

    pub fn expect(&mut self, right: bool, what: impl FnOnce() -> String) {
        if !right {
            self.wrong += 1;
            self.faults.push(what());
        }
    }

    /// What came out, `None` counted as refused to open.
    pub fn opened<T>(&mut self, opened: Result<T, graylogic_influxdb::Error>) -> Option<T> {
        match opened {
            Ok(open) => Some(open),
            Err(error) => {
                self.refused_to_open += 1;
                self.faults.push(format!("refused to open: {error}"));
                None
            }
        }
    }

    /// Fails unless all went well.
    pub fn clean(self) {
        assert!(self.faults.is_empty(), "{}", self.faults.join("\n"));
    }

    fn add(&mut self, other: Toll, context: &str) {
        self.lost += other.lost;
        self.wrong += other.wrong;
        self.refused_to_open += other.refused_to_open;
        self.panics += other.panics;
        self.faults.extend(other.faults.into_iter().map(|f| format!("{context}: {f}")));
    }
}

/// A campaign and what it came to.
pub struct Row {
    id: &'static str,
    seed: u64,
    cases: u64,
    toll: Toll,
}

impl Row {
    pub fn new(id: &'static str, seed: u64) -> Self {
        Self { id, seed, cases: 0, toll: Toll::default() }
    }

    /// Runs one case.
    pub fn case(&mut self, context: &str, case: impl FnOnce(&mut Toll)) {
        self.cases += 1;
        self.toll.add(ran(case), context);
    }

    /// Counts cases that one case was made of.
    pub fn more(&mut self, cases: u64) {
        self.cases += cases.saturating_sub(1);
    }

    /// Runs cases, several at a time, each with a sentence of what it is.
    pub fn all<T: Sync>(&mut self, cases: &[(String, T)], case: impl Fn(&T, &mut Toll) + Sync) {
        let next = AtomicUsize::new(0);
        let row = Mutex::new(&mut *self);
        std::thread::scope(|scope| {
            for _ in 0..THREADS.min(cases.len()) {
                scope.spawn(|| {
                    while let Some((context, of)) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let toll = ran(|toll| case(of, toll));
                        let mut row = row.lock().unwrap();
                        row.cases += 1;
                        row.toll.add(toll, context);
                    }
                });
            }
        });
    }

    /// Prints the row, and fails unless all went well.
    pub fn tell(self) {
        let Self { id, seed, cases, toll } = self;
        let Toll { lost, wrong, refused_to_open, panics, faults } = toll;
        println!(
            "torture {{\"id\":\"{id}\",\"cases\":{cases},\"lost\":{lost},\"wrong\":{wrong},\"refused_to_open\":{refused_to_open},\"panics\":{panics},\"seed\":{seed}}}"
        );
        let some = &faults[..faults.len().min(FAULTS_TOLD)];
        assert!(cases > 0, "{id} tried nothing");
        assert!(faults.is_empty(), "{id}: {} faults, the first:\n{}", faults.len(), some.join("\n"));
        assert_eq!((lost, wrong, refused_to_open, panics), (0, 0, 0, 0), "{id}");
    }
}

fn ran(case: impl FnOnce(&mut Toll)) -> Toll {
    let mut toll = Toll::default();
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| case(&mut toll))) {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
        toll.panics += 1;
        toll.faults.push(format!("panicked: {}", text.unwrap_or_default()));
    }
    toll
}
