//! The sender of a lane: takes batches from the queue to the target and says what became of every line. One thread
//! each.

use crate::config::{Config, as_named};
use crate::lane::Lane;
use crate::notify::{Notifier, RefusedLine, WriteError, WriteErrorKind};
use crate::server::delivery::{Delivered, Delivery, Ending, Event, Onward};
use crate::server::settle::Seen;
use graylogic_durable::{Batch, Outbox, Taken, Want, Work, caught};
use graylogic_line::Timestamp;
use graylogic_store::{Rejected, Store, WriteOptions};
use std::time::{Duration, Instant};

/// Pause after a failure of the embedded store: doubled each time, up to the longest.
pub(crate) const PAUSE_FIRST: Duration = Duration::from_millis(50);
pub(crate) const PAUSE_LONGEST: Duration = Duration::from_secs(2);
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
    /// How the embedded store takes lines.
    pub(crate) write_options: WriteOptions,
    pub(crate) want: Want,
}

/// Nothing more is delivered: the lane was abandoned, or its lines stay in the spool.
struct Abandoned;

impl Sender<'_> {
    /// Takes lines to the target until the lane ends. After a panic it starts again with the first line that is not settled.
    pub(crate) fn run(&mut self) {
        let mut outbox = Outbox::default();
        let mut pause = PAUSE_FIRST;
        let mut has_begun = false;
        while let Err(panic) = caught(|| self.carry(&mut outbox, &mut has_begun)) {
            let lane = self.lane;
            let reason = format!("the thread that delivers readings panicked and was restarted: {panic}");
            pause = if lane.panicked(&reason, pause) { PAUSE_FIRST } else { (pause * 2).min(PAUSE_LONGEST) };
            // Whoever hears of it may panic as well.
            let _panics_again = caught(|| delayed(lane, self.notifier, &reason));
            if lane.queue.rest(pause) {
                return;
            }
            if let Destination::Server(delivery) = &mut self.destination {
                delivery.start_afresh();
            }
            lane.queue.rewind(&mut outbox);
        }
    }

    fn carry(&mut self, outbox: &mut Outbox, has_begun: &mut bool) {
        let mut earlier = self.earlier_outage();
        let mut want = self.want;
        loop {
            self.lane.has_recovered();
            let done = match self.lane.queue.next(outbox, &want) {
                Work::Batch(_) if !std::mem::replace(has_begun, true) && self.goes_on(outbox) => Ok(()),
                Work::Batch(taken) => {
                    want = self.want;
                    self.batch(outbox, &taken, std::mem::take(&mut earlier), &mut want)
                }
                Work::Look => {
                    self.look(outbox);
                    Ok(())
                }
                Work::Lost(damage) => {
                    let lost = damage.lost_count();
                    self.tell(WriteErrorKind::Damaged, lost, damage.to_string(), Vec::new());
                    Ok(())
                }
                // Without a spool nothing is safer than what the server has; the embedded store is synced by a thread of its own.
                Work::SyncTarget(lines) => {
                    self.lane.queue.made_durable(lines);
                    Ok(())
                }
                _ => return,
            };
            if done.is_err() {
                return;
            }
        }
    }

    /// How long lines of an earlier life have waited: for them the outage began before this client.
    fn earlier_outage(&self) -> Duration {
        let stats = self.lane.queue.stats();
        let age = stats.lane.and_then(|l| l.oldest_age).filter(|_| stats.recovered > 0);
        age.unwrap_or_default()
    }

    /// Takes a batch to the target; `outage` is how long that was not possible before.
    /// One that is not settled is put back, and `want` says how much to take with it.
    fn batch(
        &mut self,
        outbox: &mut Outbox,
        taken: &Taken,
        mut outage: Duration,
        want: &mut Want,
    ) -> Result<(), Abandoned> {
        let ending = match &mut self.destination {
            Destination::Embedded(_) => {
                Ending::Settled(Delivered { refused: self.store(&taken.batch)?, altered: Vec::new() })
            }
            Destination::Server(_) => self.send(&taken.batch, &mut outage)?,
        };
        let Delivered { mut refused, altered } = match ending {
            Ending::Settled(delivered) => delivered,
            Ending::Again { alone } => {
                self.lane.queue.rewind(outbox);
                want.lines_max = want.lines_max.max(1).saturating_add(alone);
                want.interval = Duration::ZERO;
                return Ok(());
            }
        };
        outage = outage.max(self.lane.went_well(Timestamp::now()));
        let all = refused.clone();
        outbox.forget_reported(taken, &mut refused);
        let settled = match &self.destination {
            Destination::Server(delivery) if delivery.settles_later() => {
                self.lane.queue.acknowledged(outbox, taken, &all)
            }
            _ => self.lane.queue.settle(outbox, taken, &all),
        };
        if let Err(error) = settled {
            tracing::error!(%error, lines = refused.len(), "refused lines could not be kept");
        }
        if let Destination::Server(delivery) = &self.destination
            && let Some(time) = delivery.look_every()
        {
            // After an outage at once: it may have been a restart.
            outbox.look_in(if outage.is_zero() { time } else { Duration::ZERO });
        }
        self.lane.queue.live_first(outbox, &self.want);
        self.tell_lines(WriteErrorKind::Rejected, &taken.batch, &refused);
        self.tell_lines(WriteErrorKind::Altered, &taken.batch, &altered);
        Ok(())
    }

    /// Before the first batch goes to a server: whether an earlier run of this client sent it already, so that the queue goes on
    /// behind it.
    fn goes_on(&mut self, outbox: &mut Outbox) -> bool {
        let Destination::Server(delivery) = &mut self.destination else { return false };
        let lines = delivery.begin().map_or(0, |run| self.lane.queue.go_on(outbox, run));
        if lines > 0 {
            outbox.look_in(Duration::ZERO);
        }
        lines > 0
    }

    /// Looks at a server that may lose or ignore what it acknowledged.
    fn look(&mut self, outbox: &mut Outbox) {
        let lane = self.lane;
        let Destination::Server(delivery) = &mut self.destination else { return };
        match delivery.look() {
            Seen::Well { until, by } => {
                outbox.seen(by);
                lane.queue.settle_until(outbox, until);
            }
            Seen::Restarted { by } => {
                outbox.seen(by);
                let lines = lane.queue.send_again(outbox);
                if lines > 0 {
                    let (target_name, bucket) = (&lane.target, &lane.bucket);
                    tracing::warn!(
                        target_name,
                        bucket,
                        lines,
                        "the server was restarted: readings that it may have lost are sent again"
                    );
                }
            }
            Seen::Silent => {}
        }
        if let Some(time) = delivery.look_every().filter(|_| outbox.is_settling()) {
            outbox.look_in(time);
        }
        for ignored in delivery.take_ignored() {
            let reason = format!(
                "VictoriaMetrics ignored these rows, which this client or another one wrote, because {}",
                ignored.why
            );
            self.tell(WriteErrorKind::Ignored, ignored.rows, reason, Vec::new());
        }
    }

    /// Gives lines to a server, however long it takes; `outage` becomes the longest time that nothing got through.
    fn send(&mut self, batch: &Batch, outage: &mut Duration) -> Result<Ending, Abandoned> {
        let (lane, notifier) = (self.lane, self.notifier);
        let Destination::Server(delivery) = &mut self.destination else {
            return Ok(Ending::Settled(Delivered::default()));
        };
        // A client that is closing does not wait for a target that did not take lines which are safe without it.
        let onward = |in_close: bool, after: Duration| {
            let is_safe = in_close && lane.outlives && lane.queue.wait_durable(Instant::now() + after);
            if is_safe { Onward::GiveUp } else { Onward::GoOn }
        };
        let mut events = |event: Event| match event {
            Event::Retrying { reason, after, in_close } => {
                let reason = as_named(&lane.target, reason);
                if lane.troubled(&reason, None, Some(after)) {
                    delayed(lane, notifier, &reason);
                }
                onward(in_close, after)
            }
            Event::Held { reason, setting, after, in_close } => {
                let reason = as_named(&lane.target, reason);
                if lane.troubled(&reason, Some(setting), None) {
                    delayed(lane, notifier, &reason);
                }
                onward(in_close, after)
            }
            Event::Ok => {
                let trouble = lane.status().trouble.take();
                *outage = trouble.map_or(*outage, |t| t.since.elapsed().max(*outage));
                Onward::GoOn
            }
        };
        delivery.deliver(batch, &mut events).map_err(|_stopped| Abandoned)
    }

    /// Gives lines to the embedded store, however long it takes.
    fn store(&self, batch: &Batch) -> Result<Vec<(usize, String)>, Abandoned> {
        let Destination::Embedded(store) = &self.destination else { return Ok(Vec::new()) };
        let mut options = self.write_options.clone();
        options.rejected_listed_max = usize::MAX;
        let mut pause = PAUSE_FIRST;
        loop {
            let error = match store.write_lines(&self.lane.bucket, &batch.bytes, &options) {
                Ok(report) => {
                    if report.quarantined > 0 {
                        let reason = "their timestamps are before 2000 or more than an hour ahead of the clock of this machine: check the clocks, then release or drop these readings; history and forecasts need any_time";
                        self.tell(WriteErrorKind::Quarantined, report.quarantined, reason.into(), Vec::new());
                    }
                    return Ok(places_of(batch, report.rejected));
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

pub(crate) fn delayed(lane: &Lane, notifier: &Notifier, reason: &str) {
    let waiting = lane.queue.stats().waiting;
    notifier.add(WriteError {
        kind: WriteErrorKind::Delayed,
        target: lane.target.clone(),
        bucket: lane.bucket.clone(),
        lines: waiting,
        reason: reason.to_owned(),
        first: Vec::new(),
    });
    // Last: a program's logging may panic.
    tracing::warn!(
        target_name = lane.target,
        bucket = lane.bucket,
        reason,
        waiting,
        "readings are pending: their target does not take them"
    );
}

/// The rejected lines by their places in the batch. The store counts text lines, and a string may hold several.
fn places_of(batch: &Batch, rejected: Vec<Rejected>) -> Vec<(usize, String)> {
    if rejected.is_empty() {
        return Vec::new();
    }
    let text_lines = |i: usize| batch.line(i).iter().filter(|b| **b == b'\n').count();
    let first_text_lines: Vec<usize> = (0..batch.len())
        .scan(1, |next, i| {
            let first = *next;
            *next += text_lines(i);
            Some(first)
        })
        .collect();
    let place = |number: usize| first_text_lines.partition_point(|&first| first <= number).checked_sub(1);
    rejected.into_iter().filter_map(|r| Some((place(r.line)?, r.reason))).collect()
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
