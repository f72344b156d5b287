//! The sender of a lane: takes batches from the queue to the target and says what became of every line. One thread
//! each.

use crate::config::{Config, as_named};
use crate::lane::Lane;
use crate::notify::{Notifier, RefusedLine, WriteError, WriteErrorKind};
use crate::server::delivery::{Delivered, Delivery, Event};
use graylogic_durable::{Batch, Outbox, Taken, Want, Work};
use graylogic_line::Timestamp;
use graylogic_store::{Store, WriteOptions};
use std::time::Duration;

/// Pause after a failure of the embedded store: doubled each time, up to the longest.
const PAUSE_FIRST: Duration = Duration::from_millis(50);
const PAUSE_LONGEST: Duration = Duration::from_secs(2);
/// The embedded store takes what has gathered, in pieces of about this length.
const PIECE_BYTES: usize = 1 << 20;
/// A request to a server is no longer than this, uncompressed: what every known server takes.
const REQUEST_BYTES: usize = 4 << 20;
/// So many refused lines are told with their text.
const LINES_TOLD: usize = 10;

/// Where a lane's lines go.
#[derive(Debug)]
pub(crate) enum Destination {
    Embedded(Store),
    Server(Box<Delivery>),
}

impl Destination {
    /// How it wants its batches.
    pub(crate) fn want(&self, config: &Config) -> Want {
        match self {
            Self::Embedded(_) => {
                Want { lines_max: usize::MAX, bytes_max: PIECE_BYTES, interval: Duration::ZERO }
            }
            Self::Server(_) => Want {
                lines_max: config.batch_size(),
                bytes_max: REQUEST_BYTES,
                interval: config.flush_interval(),
            },
        }
    }
}

/// What the sender's thread works with.
pub(crate) struct Sender<'a> {
    pub(crate) lane: &'a Lane,
    pub(crate) notifier: &'a Notifier,
    pub(crate) destination: Destination,
    pub(crate) want: Want,
}

/// The lane was abandoned.
struct Abandoned;

impl Sender<'_> {
    /// Takes lines to the target until the lane ends.
    pub(crate) fn carry(&mut self) {
        let mut outbox = Outbox::default();
        loop {
            let done = match self.lane.queue.next(&mut outbox, &self.want) {
                Work::Batch(taken) => self.batch(&mut outbox, &taken),
                Work::Lost(damage) => {
                    let lost = damage.lost_count();
                    self.tell(WriteErrorKind::Damaged, lost, damage.to_string(), Vec::new());
                    Ok(())
                }
                Work::SyncTarget(lines) => self.sync_target(lines),
                _ => Err(Abandoned),
            };
            if done.is_err() {
                return;
            }
        }
    }

    /// Takes a batch to the target.
    fn batch(&mut self, outbox: &mut Outbox, taken: &Taken) -> Result<(), Abandoned> {
        let Delivered { refused, altered } = match &mut self.destination {
            Destination::Embedded(_) => Delivered { refused: self.store(&taken.batch)?, altered: Vec::new() },
            Destination::Server(_) => self.send(&taken.batch)?,
        };
        self.lane.went_well(Timestamp::now());
        if let Err(error) = self.lane.queue.settle(outbox, taken, &refused) {
            tracing::error!(%error, lines = refused.len(), "refused lines could not be kept");
        }
        self.lane.queue.live_first(outbox, &self.want);
        self.tell_lines(WriteErrorKind::Rejected, &taken.batch, &refused);
        self.tell_lines(WriteErrorKind::Altered, &taken.batch, &altered);
        Ok(())
    }

    /// Gives lines to a server, however long it takes.
    fn send(&mut self, batch: &Batch) -> Result<Delivered, Abandoned> {
        let (lane, notifier) = (self.lane, self.notifier);
        let Destination::Server(delivery) = &mut self.destination else { return Ok(Delivered::default()) };
        let mut events = |event: Event| match event {
            Event::Retrying { reason, after } => {
                let reason = as_named(&lane.target, reason);
                if lane.troubled(&reason, None, Some(after)) {
                    delayed(lane, notifier, &reason);
                }
            }
            Event::Held { reason, setting, .. } => {
                let reason = as_named(&lane.target, reason);
                if lane.troubled(&reason, Some(setting), None) {
                    delayed(lane, notifier, &reason);
                }
            }
            Event::Ok => lane.status().trouble = None,
        };
        delivery.deliver(batch, &mut events).map_err(|_stopped| Abandoned)
    }

    /// Gives lines to the embedded store, however long it takes.
    fn store(&self, batch: &Batch) -> Result<Vec<(usize, String)>, Abandoned> {
        let Destination::Embedded(store) = &self.destination else { return Ok(Vec::new()) };
        let mut options = WriteOptions::now();
        options.rejected_listed_max = usize::MAX;
        let mut pause = PAUSE_FIRST;
        loop {
            let error = match store.write_lines(&self.lane.bucket, &batch.bytes, &options) {
                // Lines were encoded one by one: numbers of lines are those of the batch.
                Ok(report) => {
                    return Ok(report.rejected.into_iter().map(|r| (r.line - 1, r.reason)).collect());
                }
                Err(error) => error,
            };
            if error.is_not_found() && store.ensure_bucket(&self.lane.bucket).is_ok() {
                continue;
            }
            if !error.is_retryable() && !error.is_not_found() {
                let reason = error.to_string();
                return Ok((0..batch.ends.len()).map(|i| (i, reason.clone())).collect());
            }
            self.wait_out(&error.to_string(), &mut pause)?;
        }
    }

    /// Syncs the embedded store, however long it takes.
    fn sync_target(&self, lines: u64) -> Result<(), Abandoned> {
        let mut pause = PAUSE_FIRST;
        if let Destination::Embedded(store) = &self.destination {
            while let Err(error) = store.sync() {
                self.wait_out(&error.to_string(), &mut pause)?;
            }
            self.lane.status().trouble = None;
        }
        self.lane.queue.made_durable(lines);
        Ok(())
    }

    /// Notes a failure that may pass and waits a little.
    fn wait_out(&self, why: &str, pause: &mut Duration) -> Result<(), Abandoned> {
        if self.lane.troubled(why, None, Some(*pause)) {
            delayed(self.lane, self.notifier, why);
        }
        let abandoned = self.lane.queue.rest(*pause);
        *pause = (*pause * 2).min(PAUSE_LONGEST);
        if abandoned { Err(Abandoned) } else { Ok(()) }
    }

    /// Tells of lines of a batch, the first of them with their texts.
    fn tell_lines(&self, kind: WriteErrorKind, batch: &Batch, lines: &[(usize, String)]) {
        let Some((_, reason)) = lines.first() else { return };
        let line = |(i, reason): &(usize, String)| RefusedLine {
            text: shortened(batch.line(*i)),
            reason: reason.clone(),
        };
        let first = lines.iter().take(LINES_TOLD).map(line).collect();
        self.tell(kind, lines.len() as u64, reason.clone(), first);
    }

    fn tell(&self, kind: WriteErrorKind, lines: u64, reason: String, first: Vec<RefusedLine>) {
        let Lane { target, bucket, .. } = self.lane;
        let (target, bucket) = (target.clone(), bucket.clone());
        self.notifier.add(WriteError { kind, target, bucket, lines, reason, first });
    }
}

fn delayed(lane: &Lane, notifier: &Notifier, reason: &str) {
    let waiting = lane.queue.stats().waiting;
    tracing::warn!(
        target_name = lane.target,
        bucket = lane.bucket,
        reason,
        waiting,
        "readings wait for their target"
    );
    notifier.add(WriteError {
        kind: WriteErrorKind::Delayed,
        target: lane.target.clone(),
        bucket: lane.bucket.clone(),
        lines: waiting,
        reason: reason.to_owned(),
        first: Vec::new(),
    });
}

/// A line as news show it.
fn shortened(line: &[u8]) -> String {
    const MOST: usize = 200;
    let text = String::from_utf8_lossy(line.strip_suffix(b"\n").unwrap_or(line));
    match text.char_indices().nth(MOST) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.into_owned(),
    }
}
