//! The client's threads: one takes lines from the lane to the target, one tells bad news. Tasks start here.

use crate::lane::{Lane, Taken};
use crate::notify::{Notifier, RefusedLine, WriteError, WriteErrorKind};
use graylogic_line::Timestamp;
use graylogic_store::{Store, WriteOptions};
use std::sync::Arc;
use std::time::Duration;

/// Pause after a failure: doubled each time, up to the longest.
const PAUSE_FIRST: Duration = Duration::from_millis(50);
const PAUSE_LONGEST: Duration = Duration::from_secs(2);

/// What the threads of a client share.
#[derive(Debug)]
pub(crate) struct Works {
    pub(crate) lane: Lane,
    pub(crate) notifier: Notifier,
    pub(crate) store: Store,
    pub(crate) bucket: String,
}

/// Starts the threads of a client. They end when the lane is closed and empty, or abandoned.
pub(crate) fn start(works: &Arc<Works>) -> std::io::Result<()> {
    let theirs = works.clone();
    let lane = std::thread::Builder::new().name("influxdb-lane".into());
    lane.spawn(move || {
        // However this thread ends, nobody waits for it in vain.
        let _ends = EndsLane(&theirs.lane);
        theirs.carry();
    })?;
    let theirs = works.clone();
    let notifier = std::thread::Builder::new().name("influxdb-errors".into());
    let started = notifier.spawn(move || theirs.notifier.run(&theirs.lane));
    if started.is_err() {
        works.lane.close();
    }
    started.map(|_| ())
}

struct EndsLane<'a>(&'a Lane);

impl Drop for EndsLane<'_> {
    fn drop(&mut self) {
        self.0.ended();
    }
}

impl Works {
    /// Takes lines to the store until the lane ends.
    fn carry(&self) {
        let mut taken = Taken::new();
        while let Some(next) = self.lane.take(taken) {
            taken = next;
            for (lines, count) in taken.pieces() {
                if !self.deliver(lines, count) {
                    return self.tell_dropped();
                }
            }
            self.lane.done();
            if !self.sync_if_wanted() {
                return self.tell_dropped();
            }
        }
        self.tell_dropped();
    }

    /// Delivers lines, however long it takes; `false` when the lane was abandoned meanwhile.
    fn deliver(&self, lines: &[u8], count: u64) -> bool {
        let mut pause = PAUSE_FIRST;
        loop {
            let now = Timestamp::now();
            let error = match self.store.write_lines(&self.bucket, lines, &WriteOptions::now()) {
                Ok(report) => {
                    // Lines were accepted one by one: what the store did not store it rejected.
                    let delivered = report.points.min(count);
                    let rejected = count - delivered;
                    self.lane.settle(delivered, rejected, now);
                    if rejected > 0 {
                        let refused = |r: &graylogic_store::Rejected| RefusedLine {
                            text: r.text.clone(),
                            reason: r.reason.clone(),
                        };
                        let first: Vec<RefusedLine> = report.rejected.iter().take(10).map(refused).collect();
                        let reason = first.first().map_or_else(String::new, |l| l.reason.clone());
                        self.tell(WriteErrorKind::Rejected, rejected, reason, first);
                    }
                    return true;
                }
                Err(error) => error,
            };
            if error.is_not_found() && self.store.ensure_bucket(&self.bucket).is_ok() {
                continue;
            }
            if !error.is_retryable() && !error.is_not_found() {
                self.lane.settle(0, count, now);
                self.tell(WriteErrorKind::Rejected, count, error.to_string(), Vec::new());
                return true;
            }
            if !self.wait_out(&error.to_string(), &mut pause) {
                return false;
            }
        }
    }

    /// Syncs when somebody waits for it, however long it takes; `false` when the lane was abandoned meanwhile.
    fn sync_if_wanted(&self) -> bool {
        let mut pause = PAUSE_FIRST;
        loop {
            let settled = {
                let state = self.lane.lock();
                if state.wanted <= state.synced || state.settled <= state.synced {
                    return true;
                }
                state.settled
            };
            match self.store.sync() {
                Ok(()) => {
                    self.lane.lock().trouble = None;
                    self.lane.synced(settled);
                }
                Err(error) => {
                    if !self.wait_out(&error.to_string(), &mut pause) {
                        return false;
                    }
                }
            }
        }
    }

    /// Notes a failure that may pass and waits a little; `false` when the lane was abandoned.
    fn wait_out(&self, why: &str, pause: &mut Duration) -> bool {
        if self.lane.troubled(why) {
            let waiting = {
                let state = self.lane.lock();
                state.accepted - state.settled
            };
            tracing::warn!(reason = why, waiting, "readings wait for the store");
            self.tell(WriteErrorKind::Delayed, waiting, why.to_owned(), Vec::new());
        }
        self.lane.rest(*pause);
        *pause = (*pause * 2).min(PAUSE_LONGEST);
        !self.lane.lock().abandon
    }

    fn tell_dropped(&self) {
        let lost = {
            let state = self.lane.lock();
            state.accepted - state.settled
        };
        if lost > 0 {
            let reason = "the client was closed before the store took them".to_owned();
            self.tell(WriteErrorKind::Dropped, lost, reason, Vec::new());
        }
    }

    fn tell(&self, kind: WriteErrorKind, lines: u64, reason: String, first: Vec<RefusedLine>) {
        self.notifier.add(WriteError { kind, bucket: self.bucket.clone(), lines, reason, first });
    }
}
