//! A queue: lines on their way to one target. Callers add to its open buffer under a short lock; one thread appends what
//! has gathered to a lane, another syncs the lane; a sender takes batches and says what became of their lines. It knows
//! neither targets nor what a line means.

use crate::ahead::Ahead;
use crate::dead::DeadLine;
use crate::error::Error;
use crate::guard::caught;
use crate::lane::{
    Appended, Batch, Dropped, LINE_BYTES_MAX, Lane, LaneReader, LaneRecovery, LaneStats, Lines, NearlyFull,
    Next,
};
use crate::log::{Damage, machine_clock};
use crate::memory::MemoryDisk;
use crate::passing::Passed;
use crate::settling::{Origin, Said, Settling, Span};
use std::collections::VecDeque;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Lines wait at most this long for others before they are appended.
const GATHER: Duration = Duration::from_millis(10);
/// So much is appended before that time.
const EAGER_BYTES: usize = 256 << 10;
/// What a buffer begins with: enough for some hundred lines.
const BUFFER_BYTES: usize = 64 << 10;
/// No buffer grows beyond this: it would be copied, by a caller, in a call that takes the longer the more waits.
const BUFFER_BYTES_MAX: usize = 1 << 20;
/// With so much in it a buffer is a piece, though nobody may be there to append it; there is room for another line.
const PIECE_BYTES: usize = BUFFER_BYTES_MAX - (16 << 10);
/// A burst does not hold more memory than this for ever.
const SPARE_BYTES_MAX: usize = 4 << 20;
/// Who asks for figures waits at most this long for a lane that is just appending, and not at all for one that did not answer
/// before: then its disk hangs, and what it said last is told.
const STATS_WAIT: Duration = Duration::from_micros(500);
/// The cursor is saved at most this often.
const CURSOR_EVERY: Duration = Duration::from_secs(1);
/// Of so many requests to the target one at least is for the backlog, however much live data comes.
const BACKLOG_SHARE: u32 = 4;

/// How safe a line is. Each level includes those before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Level {
    /// In memory.
    #[default]
    Accepted,
    /// In the hands of the operating system: survives the end of the process.
    Spooled,
    /// On the disk: survives a power cut.
    Durable,
    /// The target acknowledged it, or refused it for good.
    Acknowledged,
    /// The target has it, or refused it for good. That is the same as [`Level::Acknowledged`], but for a target that may still
    /// lose what it acknowledged ([`Queue::acknowledged`]): it has a line once that has settled.
    Delivered,
}

/// When what was appended is synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SyncPolicy {
    /// So often, when there is anything new.
    Every(Duration),
    /// After each append, which is every 10 ms at most.
    EachAppend,
}

/// Who makes lines durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DurableBy {
    /// The lane's disk.
    Lane,
    /// The target; the lane is in memory.
    Target,
}

/// Settings of a queue.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct QueueOptions {
    sync: SyncPolicy,
    durable_by: DurableBy,
    memory_bytes_max: usize,
    retry: Duration,
    backlog_age: Duration,
    keep_dead: bool,
    target_syncs_apart: bool,
    lane_memory: Option<MemoryDisk>,
}

impl Default for QueueOptions {
    /// A sync each second, 32 MiB in memory while the disk does not take lines, which is tried again each second; live
    /// lines first after an outage of five minutes.
    fn default() -> Self {
        Self {
            sync: SyncPolicy::Every(Duration::from_secs(1)),
            durable_by: DurableBy::Lane,
            memory_bytes_max: 32 << 20,
            retry: Duration::from_secs(1),
            backlog_age: Duration::from_secs(300),
            keep_dead: true,
            target_syncs_apart: false,
            lane_memory: None,
        }
    }
}

impl QueueOptions {
    /// Sets when what was appended is synced.
    #[must_use]
    pub fn sync(mut self, policy: SyncPolicy) -> Self {
        self.sync = policy;
        self
    }

    /// Sets who makes lines durable.
    #[must_use]
    pub fn durable_by(mut self, who: DurableBy) -> Self {
        self.durable_by = who;
        self
    }

    /// A thread of its own syncs the target: it asks [`Queue::next_target_sync`], says [`Queue::made_durable`], and in the end
    /// [`Queue::target_sync_ended`]. No line waits for it. Without this the sender does: [`Work::SyncTarget`].
    #[must_use]
    pub fn target_syncs_apart(mut self) -> Self {
        self.target_syncs_apart = true;
        self
    }

    /// The lane is on this disk in memory, whose bytes count too.
    #[must_use]
    pub fn lane_memory(mut self, disk: MemoryDisk) -> Self {
        self.lane_memory = Some(disk);
        self
    }

    /// So many bytes of lines may be pending in memory; a call beyond that is rejected.
    #[must_use]
    pub fn memory_bytes_max(mut self, bytes: usize) -> Self {
        // Places in a buffer are 32 bits.
        self.memory_bytes_max = bytes.clamp(1, 1 << 30);
        self
    }

    /// A disk that refused is tried again after this time.
    #[must_use]
    pub fn retry(mut self, pause: Duration) -> Self {
        self.retry = pause;
        self
    }

    /// Whether refused lines are kept in the lane's dead letters; for a lane in memory they are only counted.
    #[must_use]
    pub fn keep_dead(mut self, keep: bool) -> Self {
        self.keep_dead = keep;
        self
    }

    /// When the oldest pending line is pending for so long, new lines go first, and the backlog beside them.
    #[must_use]
    pub fn backlog_age(mut self, age: Duration) -> Self {
        self.backlog_age = age;
        self
    }
}

/// Why a line was not accepted.
#[derive(Debug)]
#[non_exhaustive]
pub enum Refused<E> {
    /// It could not be written down.
    Invalid(E),
    /// Too much waits already, because of this.
    Full(String),
    /// No lane takes a line of so many bytes.
    TooLong(usize),
    /// The queue is closed.
    Closed,
}

/// What the owner of a queue should know.
#[derive(Debug)]
#[non_exhaustive]
pub enum News {
    /// The lane was opened; lines of an earlier life may wait in it.
    Opened(LaneRecovery),
    /// The disk does not take lines at present: they are kept in memory.
    Degraded(String),
    /// The disk takes lines again.
    Recovered,
    /// The lane was full, and its oldest lines made room.
    Dropped(Dropped),
    /// The lane has used four fifths of its room. Told once, and again when it was half empty in between.
    NearlyFull(NearlyFull),
}

type OpenLane = Box<dyn FnMut() -> Result<(Lane, LaneRecovery), Error> + Send>;
type Tell = Box<dyn Fn(News) + Send + Sync>;

/// Lines on their way to one target.
///
/// Cheap to clone; all clones are the same queue.
#[derive(Clone)]
pub struct Queue {
    shared: Arc<Shared>,
}

struct Shared {
    options: QueueOptions,
    state: Mutex<State>,
    /// Wakes the thread that appends, the one that syncs, the sender, and who waits for a level.
    gathered: Condvar,
    sync_due: Condvar,
    arrived: Condvar,
    progress: Condvar,
    tell: Tell,
}

/// What the lock guards. Lines are counted from the first this queue accepted.
#[derive(Default)]
struct State {
    durable_by_target: bool,
    open: Lines,
    spare: Lines,
    first_waits_since: Option<Instant>,
    accepted: u64,
    /// Gathered and not appended yet: one piece in passing, more while the disk refuses.
    pieces: VecDeque<Piece>,
    pieces_bytes: usize,
    spooled: u64,
    durable: u64,
    /// Lines that were settled without ever being in the lane.
    settled_in_memory: u64,
    /// Lines that callers wait to be durable or delivered.
    durable_wanted: u64,
    delivered_wanted: u64,
    refused_invalid: u64,
    refused_full: u64,
    /// What became of lines.
    recovered: u64,
    delivered: u64,
    rejected: u64,
    dropped: u64,
    damaged: u64,
    /// Lines that the target acknowledged and may still lose: not delivered yet.
    settling: u64,
    /// Of them, those that follow what is settled without a gap.
    settling_next: u64,
    lane: Option<Arc<Lane>>,
    /// What it held when it was asked last, or let go.
    left: Option<LaneStats>,
    /// It did not answer when it was asked last.
    silent: bool,
    /// The number the first accepted line got, or would have got.
    base: u64,
    /// Lines of the lane before this number are settled, but for those that the lane dropped and did not tell of yet; and
    /// so many after it that went first.
    acknowledged: u64,
    ahead: u64,
    /// The number after the last line of the lane.
    end: u64,
    degraded: Option<String>,
    /// The lane takes no more lines before it has room; and whether it has since.
    full: Option<String>,
    room: bool,
    last_sync: Duration,
    waiters: Vec<Waiter>,
    room_waiters: Vec<RoomWaiter>,
    /// Lines of a piece in the hands of the sender.
    flying: Option<Flying>,
    /// No more lines are taken; threads end when their work is done, or at once.
    closing: bool,
    abandon: bool,
    /// The sender gets no more: what is left stays in the lane.
    unsent: bool,
    /// Panics that ended the work of a thread, until it has worked again: of the one that appends, and the one that syncs.
    write_fault: Option<String>,
    sync_fault: Option<String>,
    /// Threads that still run.
    writing: bool,
    syncing: bool,
    sending: bool,
    target_syncing: bool,
}

struct Piece {
    /// Count of lines accepted before its first.
    first: u64,
    lines: Arc<Lines>,
    /// So many of its lines are settled already.
    settled: usize,
    /// The writer is appending it at this moment.
    busy: bool,
}

/// Lines that the sender has from memory, and what became of their piece meanwhile.
struct Flying {
    /// Counts of lines accepted before the first, and before the end.
    first: u64,
    end: u64,
    /// So many of them are in the lane now, before this number.
    in_lane: u64,
    before: u64,
}

type RoomWaiter = Box<dyn FnOnce(bool) + Send>;

struct Waiter {
    level: Level,
    lines: u64,
    then: Box<dyn FnOnce(bool) + Send>,
}

/// The sender's place in a queue: where it reads.
#[derive(Debug, Default)]
pub struct Outbox {
    /// Lines that were sent and may have to be sent again.
    settling: Settling,
    main: Option<LaneReader>,
    /// New lines that go first while the backlog is long.
    live: Option<Live>,
    since: Option<Instant>,
    requests: u32,
}

/// The second place. Its lines with a timestamp newer than `newest`, the newest of the backlog, go first; the others keep
/// their place, and go out when the main reader comes to them.
#[derive(Debug)]
struct Live {
    reader: LaneReader,
    start: u64,
    newest: i64,
    /// Lines before this one, from `start` on, are settled or keep their place.
    settled: u64,
    since: Option<Instant>,
}

/// How a sender wants its batches.
#[derive(Clone, Copy, Debug)]
pub struct Want {
    /// At most so many lines.
    pub lines_max: usize,
    /// At most so many bytes, but for a single line.
    pub bytes_max: usize,
    /// Lines wait at most this long for a full batch.
    pub interval: Duration,
}

/// What a sender has to do.
#[derive(Debug)]
#[non_exhaustive]
pub enum Work {
    /// Deliver these lines.
    Batch(Taken),
    /// Know that lines are lost to damage.
    Lost(Damage),
    /// Make everything delivered so far durable in the target, then say so with [`Queue::made_durable`].
    SyncTarget(u64),
    /// Look at the target: the time set with [`Outbox::look_in`] is up. Then say what it showed, with
    /// [`Queue::settle_until`] or [`Queue::send_again`].
    Look,
    /// Nothing more.
    End,
}

/// Lines in the hands of the sender.
#[derive(Debug)]
pub struct Taken {
    /// The lines. Their numbers mean nothing when they come from memory, and are not consecutive where some went first.
    pub batch: Batch,
    /// The lines are at these places of a longer row of lines, of which the others are not sent now.
    among: Option<(u64, Vec<u32>)>,
    origin: Origin,
}

impl Taken {
    /// The numbers that are settled with this batch.
    fn numbers(&self) -> Range<u64> {
        let lines = self.among.as_ref().map_or(self.batch.ends.len() as u64, |among| among.0);
        self.batch.first..self.batch.first + lines
    }

    /// The numbers that are not sent now.
    fn not_sent(&self) -> impl Iterator<Item = u64> {
        let (lines, places) = self.among.as_ref().map_or((0, &[][..]), |(lines, places)| (*lines, places));
        let first = self.batch.first;
        let mut sent = places.iter().map(|p| u64::from(*p)).peekable();
        (0..lines).filter(move |place| sent.next_if_eq(place).is_none()).map(move |place| first + place)
    }

    /// The number of a line.
    fn number(&self, place: usize) -> u64 {
        let among = self.among.as_ref().and_then(|(_, places)| places.get(place).copied());
        self.batch.first + among.map_or(place as u64, u64::from)
    }
}

/// What a queue holds and has done since it was started.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct QueueStats {
    /// Lines accepted.
    pub accepted: u64,
    /// Lines of an earlier life that the lane held when it was opened.
    pub recovered: u64,
    /// Lines the target has.
    pub delivered: u64,
    /// Lines the target refused for good.
    pub rejected: u64,
    /// Lines that a full lane dropped.
    pub dropped: u64,
    /// Lines lost to damage.
    pub damaged: u64,
    /// Of the lines on their way, those that the target acknowledged and may still lose.
    pub settling: u64,
    /// Lines on their way. Always: accepted + recovered = delivered + rejected + dropped + damaged + waiting.
    pub waiting: u64,
    /// Of them, lines in memory only.
    pub in_memory: u64,
    /// Bytes of lines in memory.
    pub memory_bytes: usize,
    /// The lane is full, and refuses new lines.
    pub full: bool,
    /// Calls that were refused: bad points, and a full queue.
    pub refused_invalid: u64,
    /// See above.
    pub refused_full: u64,
    /// Lines that survive the end of the process, and a power cut.
    pub spooled: u64,
    /// See above.
    pub durable: u64,
    /// Why the disk does not take lines at present.
    pub degraded: Option<String>,
    /// Why a thread of the queue does not do its work at present.
    pub fault: Option<String>,
    /// How long the last sync took.
    pub last_sync: Duration,
    /// What the lane holds; `None` while it could not be opened.
    pub lane: Option<LaneStats>,
}

impl Queue {
    /// A queue whose lane `open` opens, now or, while that fails, each second again. Its threads are called
    /// `NAME-spool` and `NAME-sync`. `tell` is called from them, and must not wait.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub fn start(
        name: &str,
        options: QueueOptions,
        open: impl FnMut() -> Result<(Lane, LaneRecovery), Error> + Send + 'static,
        tell: impl Fn(News) + Send + Sync + 'static,
    ) -> std::io::Result<Self> {
        let state = State {
            durable_by_target: options.durable_by == DurableBy::Target,
            open: Lines::with_capacity(BUFFER_BYTES),
            writing: true,
            syncing: true,
            sending: true,
            target_syncing: options.target_syncs_apart,
            ..State::default()
        };
        let shared = Arc::new(Shared {
            options,
            state: Mutex::new(state),
            gathered: Condvar::new(),
            sync_due: Condvar::new(),
            arrived: Condvar::new(),
            progress: Condvar::new(),
            tell: Box::new(tell),
        });
        let mut open: OpenLane = Box::new(open);
        // Before anybody asks: what waits from an earlier life is known when this returns.
        if let Err(panic) = caught(|| shared.try_open(&mut open)) {
            shared.writer_panicked(&panic);
        }
        let theirs = shared.clone();
        let writer = move || {
            let _ends = Ends(&theirs, |state| state.writing = false);
            // Let go of what it holds before anybody is told that the thread has ended.
            let mut open = open;
            while let Err(panic) = caught(|| theirs.write_loop(&mut open)) {
                theirs.writer_panicked(&panic);
                theirs.pause(&theirs.gathered);
            }
        };
        std::thread::Builder::new().name(format!("{name}-spool")).spawn(writer)?;
        let theirs = shared.clone();
        let syncer = move || {
            let _ends = Ends(&theirs, |state| state.syncing = false);
            while let Err(panic) = caught(|| theirs.sync_loop()) {
                theirs.syncer_panicked(&panic);
                if theirs.lock().is_ending() {
                    return;
                }
                theirs.pause(&theirs.sync_due);
            }
        };
        let started = std::thread::Builder::new().name(format!("{name}-sync")).spawn(syncer);
        if let Err(error) = started {
            shared.lock().abandon = true;
            shared.wake_all();
            return Err(error);
        }
        Ok(Self { shared })
    }

    /// Takes a line that `write` adds to the buffer, with its line end; returns at once with the count of lines accepted.
    ///
    /// # Errors
    /// [`Refused`]; then the line is not in the queue.
    #[inline]
    pub fn accept<E>(&self, write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>) -> Result<u64, Refused<E>> {
        let mut state = self.shared.lock();
        if state.closing {
            return Err(Refused::Closed);
        }
        if !self.shared.has_room(&state) {
            state.refused_full += 1;
            return Err(Refused::Full(state.why_full()));
        }
        let before = state.open.bytes.len();
        if let Err(error) = write(&mut state.open.bytes) {
            state.open.bytes.truncate(before);
            state.refused_invalid += 1;
            return Err(Refused::Invalid(error));
        }
        let bytes = state.open.bytes.len();
        if bytes - before > LINE_BYTES_MAX {
            state.open.bytes.truncate(before);
            state.refused_invalid += 1;
            return Err(Refused::TooLong(bytes - before));
        }
        state.open.ends.push(bytes as u32);
        state.accepted += 1;
        let accepted = state.accepted;
        let first = state.first_waits_since.is_none();
        if first {
            state.first_waits_since = Some(Instant::now());
        }
        let eager = before < EAGER_BYTES && bytes >= EAGER_BYTES;
        if bytes >= PIECE_BYTES {
            // More will come: this one has room for it from the start.
            state.close_piece(Lines::with_capacity(BUFFER_BYTES_MAX));
        }
        drop(state);
        if first || eager {
            self.shared.gathered.notify_one();
        }
        Ok(accepted)
    }

    /// Asks for everything accepted so far to reach a level soon, and does not wait for it; returns how many lines that are.
    pub fn hurry(&self, level: Level) -> u64 {
        let mut state = self.shared.lock();
        let wanted = state.accepted;
        self.shared.want(&mut state, level, wanted);
        wanted
    }

    /// Waits until everything accepted so far has reached a level, the queue ends, or the time is up. Returns how many
    /// lines have not reached it.
    pub fn wait(&self, level: Level, until: Instant) -> u64 {
        self.wait_for(level, self.hurry(level), until)
    }

    /// Waits until the first `wanted` lines accepted have reached a level that was asked for with [`Queue::hurry`], the queue
    /// ends, or the time is up. Returns how many of them have not reached it.
    pub fn wait_for(&self, level: Level, wanted: u64, until: Instant) -> u64 {
        let mut state = self.shared.lock();
        while state.reached(level) < wanted && !state.is_dead() {
            let Some(left) = until.checked_duration_since(Instant::now()) else { break };
            state = wait_timeout(&self.shared.progress, state, left);
        }
        wanted.saturating_sub(state.reached(level))
    }

    /// Calls `then` when the first `lines` accepted have reached a level, with `true`, or when they never will, with
    /// `false`; from a thread of the queue, or at once.
    pub fn when(&self, level: Level, lines: u64, then: impl FnOnce(bool) + Send + 'static) {
        let mut state = self.shared.lock();
        if state.reached(level) >= lines || state.is_dead() {
            let reached = state.reached(level) >= lines;
            drop(state);
            return then(reached);
        }
        self.shared.want(&mut state, level, lines);
        state.waiters.push(Waiter { level, lines, then: Box::new(then) });
    }

    /// Calls `then` when the queue takes lines, with `true`, or when it is closed, with `false`; from a thread of the queue, or at
    /// once. For callers that may wait after [`Refused::Full`], as [`WhenFull::Block`](crate::WhenFull::Block) has it. Others
    /// may be first: who is refused again waits again.
    pub fn when_room(&self, then: impl FnOnce(bool) + Send + 'static) {
        let mut state = self.shared.lock();
        let room = self.shared.has_room(&state);
        if room || state.closing {
            let open = !state.closing;
            drop(state);
            return then(open);
        }
        state.room_waiters.push(Box::new(then));
    }

    /// The next thing a sender has to do; waits for it.
    pub fn next(&self, outbox: &mut Outbox, want: &Want) -> Work {
        self.shared.next(outbox, want)
    }

    /// Says what became of lines: those at the places of `refused` were refused for good, each with a reason; all others
    /// were delivered.
    ///
    /// # Errors
    /// When refused lines could not be kept among the dead letters; they count as refused all the same.
    pub fn settle(
        &self,
        outbox: &mut Outbox,
        taken: &Taken,
        refused: &[(usize, String)],
    ) -> Result<(), Error> {
        self.shared.settle(outbox, taken, refused)
    }

    /// Says that the target has acknowledged lines, and may still lose them: they stay in the lane until they have settled
    /// ([`Queue::settle_until`]) and are taken again after [`Queue::send_again`]. Those at the places of `refused` were
    /// refused for good; which of them are new [`Outbox::forget_reported`] tells before.
    ///
    /// Lines that are in memory only because the disk takes none are settled at once.
    ///
    /// # Errors
    /// As [`Queue::settle`].
    pub fn acknowledged(
        &self,
        outbox: &mut Outbox,
        taken: &Taken,
        refused: &[(usize, String)],
    ) -> Result<(), Error> {
        self.shared.acknowledged(outbox, taken, refused)
    }

    /// Says that the target cannot lose any more what it acknowledged at this moment or before it.
    pub fn settle_until(&self, outbox: &mut Outbox, until: Instant) {
        let spans = outbox.settling.settled(until);
        let mut state = self.shared.lock();
        let lane = state.lane.clone();
        self.shared.settle_spans(outbox, &mut state, lane.as_deref(), spans);
        if let Some(lane) = &lane {
            lane.said(outbox.said(lane));
        }
        self.shared.after_settling(outbox, lane.as_deref(), state);
    }

    /// Says that the target may have lost what it acknowledged and did not settle: it is sent again. Returns how many lines
    /// that are.
    pub fn send_again(&self, outbox: &mut Outbox) -> u64 {
        let mut state = self.shared.lock();
        let lines = outbox.settling.lines();
        if let Some(lane) = state.lane.clone() {
            lane.said(Said::default());
            if outbox.settling.holds(Origin::Lane) {
                outbox.main = Some(lane.reader(lane.acknowledged()));
            }
            if let Some(live) = outbox.live.as_mut().filter(|_| outbox.settling.holds(Origin::Live)) {
                live.reader = lane.reader(live.settled.max(lane.acknowledged()));
            }
        }
        outbox.settling.forget();
        state.count_settling(outbox);
        lines
    }

    /// Goes on behind the lines that a target acknowledged in an earlier run of this client, if that is the same run `by` of
    /// the target: they settle as if they had been sent by this client. Returns how many lines that are. Only before the
    /// first batch is settled.
    pub fn go_on(&self, outbox: &mut Outbox, by: u64) -> u64 {
        outbox.seen(Some(by));
        let mut state = self.shared.lock();
        let Some(lane) = state.lane.clone() else { return 0 };
        let said = lane.said_before();
        let from = lane.acknowledged();
        if said.by != by
            || by == 0
            || said.before <= from
            || outbox.live.is_some()
            || !outbox.settling.is_empty()
        {
            return 0;
        }
        let now = Instant::now();
        let age = Duration::from_nanos(u64::try_from(machine_clock().saturating_sub(said.at)).unwrap_or(0));
        let since = now.checked_sub(age.min(Duration::from_secs(3600))).unwrap_or(now);
        outbox.settling.add(Origin::Lane, from..said.before, false, since);
        outbox.main = Some(lane.reader(said.before));
        state.count_settling(outbox);
        state.settling
    }

    /// Says that the first `lines` accepted are durable in the target.
    pub fn made_durable(&self, lines: u64) {
        let mut state = self.shared.lock();
        state.durable = state.durable.max(lines);
        self.shared.progressed(state);
    }

    /// Goes back to the first line that is not settled: for a sender that took lines and cannot say what became of them.
    pub fn rewind(&self, outbox: &mut Outbox) {
        let mut state = self.shared.lock();
        state.flying = None;
        let Some(lane) = &state.lane else { return };
        // What the target acknowledged and has not settled is not sent again for that.
        let acknowledged = |origin| outbox.settling.end_of(origin).unwrap_or_default();
        let (main, live_from) = (acknowledged(Origin::Lane), acknowledged(Origin::Live));
        outbox.main = outbox.main.take().map(|_| lane.reader(lane.acknowledged().max(main)));
        if let Some(live) = &mut outbox.live {
            live.reader = lane.reader(live.settled.max(live.start).max(live_from));
        }
    }

    /// Whether all lines accepted so far survive a power cut without the target; they go on towards the disk meanwhile.
    /// Waits for that until the time is up, and not while the disk does not take lines.
    pub fn wait_durable(&self, until: Instant) -> bool {
        let mut state = self.shared.lock();
        if state.durable_by_target {
            return false;
        }
        let wanted = state.accepted;
        self.shared.want(&mut state, Level::Durable, wanted);
        while state.reached(Level::Durable) < wanted {
            let left = until.checked_duration_since(Instant::now());
            let Some(left) = left.filter(|_| state.degraded.is_none() && !state.abandon && !state.unsent)
            else {
                return false;
            };
            state = wait_timeout(&self.shared.progress, state, left);
        }
        true
    }

    /// Why a thread of the queue, or its sender, does not do its work at present: it panicked, or has ended too early.
    #[must_use]
    pub fn fault(&self) -> Option<String> {
        self.shared.lock().fault()
    }

    /// Waits until somebody wants lines durable and the target has them; returns how many lines it has. `None` when nothing
    /// more is to be synced.
    #[must_use]
    pub fn next_target_sync(&self) -> Option<u64> {
        let mut state = self.shared.lock();
        loop {
            if state.abandon {
                return None;
            }
            let settled = state.settled();
            if state.durable_wanted > state.durable && settled >= state.durable_wanted {
                return Some(settled);
            }
            if !state.sending {
                return None;
            }
            state = self.shared.progress.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The thread that syncs the target has ended. Called by itself, however it ends.
    pub fn target_sync_ended(&self) {
        self.shared.lock().target_syncing = false;
        self.shared.wake_all();
    }

    /// Waits until the queue takes lines, it is closed, or the time is up; tells whether it takes lines.
    #[must_use]
    pub fn wait_for_room(&self, until: Instant) -> bool {
        let mut state = self.shared.lock();
        while !self.shared.has_room(&state) && !state.closing {
            let Some(left) = until.checked_duration_since(Instant::now()) else { return false };
            state = wait_timeout(&self.shared.progress, state, left);
        }
        !state.closing
    }

    /// After a batch was settled: new lines go first from now on if the oldest pending line is pending for
    /// [`QueueOptions::backlog_age`], and more than four batches are pending. The backlog drains beside them. Only lines with
    /// a timestamp newer than those of all pending lines overtake them, so that a correction never arrives before the
    /// value it corrects.
    pub fn live_first(&self, outbox: &mut Outbox, want: &Want) {
        let (lane, start) = {
            let state = self.shared.lock();
            let (Some(lane), None, Some(main)) = (&state.lane, &outbox.live, &outbox.main) else { return };
            // Not the lane's own end: what is behind this one the queue does not know of yet.
            let backlog = state.end.saturating_sub(main.position());
            if backlog <= (want.lines_max as u64).saturating_mul(4) || state.ahead > 0 {
                return;
            }
            (lane.clone(), state.end)
        };
        if lane.oldest_age_at_least() < self.shared.options.backlog_age {
            return;
        }
        // Before the others are looked at, which takes a while: what arrives meanwhile may go first as well.
        let newest = lane.newest_of_this_run();
        let Some(of_previous_runs) = lane.newest_of_previous_runs() else { return };
        let newest = newest.max(of_previous_runs);
        lane.begin_ahead(start);
        let reader = lane.reader(start);
        outbox.live = Some(Live { reader, start, newest, settled: start, since: None });
    }

    /// Takes no more lines. Threads end when the lines have gone as far as they can.
    pub fn close(&self) {
        let mut state = self.shared.lock();
        state.closing = true;
        let wanted = state.accepted;
        self.shared.want(&mut state, Level::Delivered, wanted);
        drop(state);
        self.shared.wake_all();
    }

    /// Takes no more lines, and gives the sender none: threads end when the lane has what is in memory.
    pub fn stop_sending(&self) {
        let mut state = self.shared.lock();
        (state.closing, state.unsent) = (true, true);
        drop(state);
        self.shared.wake_all();
    }

    /// Everything ends now: what is not in a lane on a disk is lost, and counted.
    pub fn abandon(&self) {
        let mut state = self.shared.lock();
        (state.closing, state.abandon) = (true, true);
        drop(state);
        self.shared.wake_all();
    }

    /// Whether [`Queue::close`] or [`Queue::abandon`] was called.
    #[must_use]
    pub fn is_closing(&self) -> bool {
        self.shared.lock().closing
    }

    /// Whether [`Queue::abandon`] was called.
    #[must_use]
    pub fn is_abandoned(&self) -> bool {
        self.shared.lock().abandon
    }

    /// Waits, unless the queue is abandoned; tells whether it is.
    pub fn rest(&self, time: Duration) -> bool {
        let until = Instant::now() + time;
        let mut state = self.shared.lock();
        while !state.abandon {
            let Some(left) = until.checked_duration_since(Instant::now()) else { break };
            state = wait_timeout(&self.shared.progress, state, left);
        }
        state.abandon
    }

    /// The sender has ended: nothing more is delivered. Called by the sender itself.
    pub fn sender_ended(&self) {
        self.shared.lock().sending = false;
        self.shared.wake_all();
    }

    /// Waits until all threads of the queue and its sender have ended or the time is up; tells whether they have. Then the
    /// lane is let go.
    pub fn wait_ended(&self, until: Instant) -> bool {
        let mut state = self.shared.lock();
        while state.writing || state.syncing || state.sending || state.target_syncing {
            let Some(left) = until.checked_duration_since(Instant::now()) else { return false };
            state = wait_timeout(&self.shared.progress, state, left);
        }
        // Somebody else may have the lane now.
        if let Some(lane) = state.lane.take() {
            state.left = Some(lane.stats());
        }
        true
    }

    /// What the queue holds and has done.
    #[must_use]
    pub fn stats(&self) -> QueueStats {
        let (mut stats, lane, left) = {
            let state = self.shared.lock();
            let stats = QueueStats {
                accepted: state.accepted,
                recovered: state.recovered,
                delivered: state.delivered,
                rejected: state.rejected,
                dropped: state.dropped,
                damaged: state.damaged,
                settling: state.settling,
                waiting: state.waiting(),
                in_memory: if state.durable_by_target { state.waiting() } else { state.in_memory() },
                full: state.full.is_some(),
                memory_bytes: state.memory_bytes(),
                refused_invalid: state.refused_invalid,
                refused_full: state.refused_full,
                spooled: if state.durable_by_target { state.settled() } else { state.spooled },
                durable: state.durable,
                degraded: state.degraded.clone(),
                fault: state.fault(),
                last_sync: state.last_sync,
                lane: None,
            };
            let wait = if state.silent { Duration::ZERO } else { STATS_WAIT };
            (stats, state.lane.clone().map(|lane| (lane, wait)), state.left.clone())
        };
        let Some((lane, wait)) = lane else {
            stats.lane = left;
            return stats;
        };
        // A disk that does not answer keeps nobody from asking.
        let seen = lane.stats_within(wait);
        let mut state = self.shared.lock();
        state.silent = seen.is_none();
        if state.lane.is_some() && seen.is_some() {
            state.left.clone_from(&seen);
        }
        drop(state);
        stats.lane = seen.or(left);
        stats
    }

    /// The lane, once it could be opened.
    #[must_use]
    pub fn lane(&self) -> Option<Arc<Lane>> {
        self.shared.lock().lane.clone()
    }
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue").field("options", &self.shared.options).finish_non_exhaustive()
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State").field("accepted", &self.accepted).finish_non_exhaustive()
    }
}

/// However a thread ends, nobody waits for it in vain.
struct Ends<'a, F: Fn(&mut State)>(&'a Shared, F);

impl<F: Fn(&mut State)> Drop for Ends<'_, F> {
    fn drop(&mut self) {
        (self.1)(&mut self.0.lock());
        self.0.wake_all();
    }
}

impl State {
    fn memory_bytes(&self) -> usize {
        self.open.bytes.len() + self.pieces_bytes
    }

    /// Bytes of memory that lines before the lane take.
    fn held_bytes(&self) -> usize {
        let places = self.open.ends.len() + self.pieces.iter().map(|p| p.lines.ends.len()).sum::<usize>();
        self.memory_bytes() + size_of::<u32>() * places
    }

    fn why_full(&self) -> String {
        let slow = || match self.durable_by_target {
            true => "the target takes them more slowly than they are written".to_owned(),
            false => "the disk of the spool takes them more slowly than they are written".to_owned(),
        };
        self.degraded.clone().or_else(|| self.full.clone()).unwrap_or_else(slow)
    }

    /// How many lines have reached a level.
    fn reached(&self, level: Level) -> u64 {
        match level {
            Level::Accepted => self.accepted,
            // A lane in memory goes with the process.
            Level::Spooled if self.durable_by_target => self.settled(),
            Level::Spooled => self.spooled.max(self.settled()),
            // What a server has is as safe as it will be; what an embedded target has it may still have to sync.
            Level::Acknowledged => (self.settled() + self.settling_next).min(self.accepted),
            Level::Durable | Level::Delivered if self.durable_by_target => self.durable,
            Level::Durable => self.durable.max(self.settled()),
            Level::Delivered => self.settled(),
        }
    }

    /// Of the lines accepted, so many from the first on were delivered, refused, dropped or lost.
    fn settled(&self) -> u64 {
        (self.acknowledged.saturating_sub(self.base) + self.settled_in_memory).min(self.accepted)
    }

    /// Counted from where they are, not from what became of the others. A sender may have settled lines that the thread
    /// which appended them has not counted yet: they are still in memory then, and behind the end.
    fn waiting(&self) -> u64 {
        (self.in_memory() + self.end).saturating_sub(self.acknowledged + self.ahead)
    }

    /// Makes a piece of what has gathered; `next` is the buffer of what comes.
    fn close_piece(&mut self, next: Lines) {
        let lines = std::mem::replace(&mut self.open, next);
        self.pieces_bytes += lines.bytes.len();
        let first = self.accepted - lines.ends.len() as u64;
        self.pieces.push_back(Piece { first, lines: Arc::new(lines), settled: 0, busy: false });
        self.first_waits_since = None;
    }

    fn in_memory(&self) -> u64 {
        let settled: usize = self.pieces.iter().map(|p| p.settled).sum();
        self.accepted - self.spooled - settled as u64
    }

    /// What a sender that waits for lines is woken for besides.
    fn asked(&self) -> (bool, u64, u64) {
        (self.closing, self.durable_wanted, self.delivered_wanted)
    }

    /// Nothing will move any more.
    fn is_dead(&self) -> bool {
        self.abandon && !self.writing && !self.syncing && !self.sending && !self.target_syncing
    }

    /// The thread that syncs has nothing more to do after this time.
    fn is_ending(&self) -> bool {
        self.abandon || (self.closing && !self.writing && !self.sending)
    }

    fn fault(&self) -> Option<String> {
        let ended = || {
            let all_run = self.writing && self.syncing && self.sending;
            (!all_run && !self.closing).then(|| "a thread of the client has ended: connect again".to_owned())
        };
        self.write_fault.clone().or_else(|| self.sync_fault.clone()).or_else(ended)
    }

    /// Nothing more will be appended.
    fn is_written(&self) -> bool {
        self.abandon || (self.closing && self.open.ends.is_empty() && self.pieces.is_empty())
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Fields change together between calls that may fail: a panic elsewhere leaves them whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has_room(&self, state: &State) -> bool {
        let held = match &self.options.lane_memory {
            Some(disk) => state.held_bytes() + disk.used_bytes() as usize,
            None => state.memory_bytes(),
        };
        held < self.options.memory_bytes_max
    }

    fn wake_all(&self) {
        self.gathered.notify_all();
        self.sync_due.notify_all();
        self.arrived.notify_all();
        self.progressed(self.lock());
    }

    fn want(&self, state: &mut State, level: Level, lines: u64) {
        if level >= Level::Durable {
            state.durable_wanted = state.durable_wanted.max(lines);
        }
        if level >= Level::Acknowledged || self.options.durable_by == DurableBy::Target {
            state.delivered_wanted = state.delivered_wanted.max(lines);
        }
        self.gathered.notify_all();
        self.sync_due.notify_all();
        self.arrived.notify_all();
        self.progress.notify_all();
    }

    /// Tells those who wait for a level what is reached.
    fn progressed(&self, mut state: MutexGuard<'_, State>) {
        let dead = state.is_dead();
        let mut reached = Vec::new();
        let mut i = 0;
        while i < state.waiters.len() {
            let yes = state.reached(state.waiters[i].level) >= state.waiters[i].lines;
            if yes || dead {
                reached.push((state.waiters.swap_remove(i).then, yes));
            } else {
                i += 1;
            }
        }
        let open = !state.closing;
        let room = !open || self.has_room(&state);
        let waited = if room { std::mem::take(&mut state.room_waiters) } else { Vec::new() };
        drop(state);
        self.progress.notify_all();
        reached.into_iter().for_each(|(then, yes)| then(yes));
        waited.into_iter().for_each(|then| then(open));
    }

    // ---- the thread that appends --------------------------------------------------------------------------------

    fn try_open(&self, open: &mut OpenLane) -> bool {
        match open() {
            Ok((lane, recovery)) => {
                lane.make_segments_ahead();
                let left = lane.stats();
                let mut state = self.lock();
                state.left = Some(left);
                // Lines that were settled in memory before have no numbers.
                (state.base, state.end) = (lane.next_number(), lane.next_number());
                state.acknowledged = lane.acknowledged();
                state.recovered = state.end - state.acknowledged;
                state.lane = Some(Arc::new(lane));
                drop(state);
                (self.tell)(News::Opened(recovery));
                true
            }
            Err(error) => {
                self.degrade(error.to_string());
                false
            }
        }
    }

    fn degrade(&self, why: String) {
        let mut state = self.lock();
        let news = state.degraded.is_none();
        state.degraded = Some(why.clone());
        drop(state);
        // The sender may go on from memory.
        self.arrived.notify_all();
        if news {
            (self.tell)(News::Degraded(why));
        }
    }

    /// The thread that appends panicked. It goes on with the same piece; until it can, the sender takes lines from memory.
    fn writer_panicked(&self, panic: &str) {
        let why = format!("the thread that writes to the spool panicked and was restarted: {panic}");
        let mut state = self.lock();
        state.write_fault = Some(why.clone());
        if let Some(piece) = state.pieces.front_mut() {
            piece.busy = false;
        }
        state.drop_settled_pieces();
        drop(state);
        // Whoever hears of it may panic as well: it was told then, as far as it can be.
        let _panics_again = caught(|| self.degrade(why));
    }

    fn syncer_panicked(&self, panic: &str) {
        let why = format!("the thread that syncs the spool panicked and was restarted: {panic}");
        let news = self.lock().sync_fault.replace(why.clone()).is_none();
        if news {
            let _panics_again = caught(|| (self.tell)(News::Degraded(why)));
        }
    }

    fn recovered(&self) {
        let mut state = self.lock();
        state.full = None;
        state.write_fault = None;
        if state.degraded.take().is_some() {
            drop(state);
            (self.tell)(News::Recovered);
        }
    }

    fn write_loop(&self, open: &mut OpenLane) {
        while self.gather() {
            let Some(lane) = self.lock().lane.clone() else {
                if self.try_open(open) {
                    self.recovered();
                    // The sender: what waits from an earlier life is known now.
                    self.arrived.notify_all();
                } else {
                    self.pause(&self.gathered);
                }
                continue;
            };
            while let Some(lines) = self.first_piece() {
                match lane.append(&lines) {
                    Ok(appended) => {
                        self.dropped(appended.dropped.as_ref());
                        self.appended(&lane, &appended);
                        if let Some(dropped) = appended.dropped.filter(|d| d.count > 0) {
                            (self.tell)(News::Dropped(dropped));
                        }
                        if let Some(level) = appended.nearly_full {
                            (self.tell)(News::NearlyFull(level));
                        }
                        if appended.count == lines.ends.len() {
                            self.recovered();
                        }
                    }
                    Err(error) => {
                        // The lines may go from memory now, and nothing more be appended.
                        if let Some(dropped) = lane.take_dropped() {
                            self.dropped(Some(&dropped));
                            if dropped.count > 0 {
                                (self.tell)(News::Dropped(dropped));
                            }
                        }
                        self.not_appended(error.is_full().then(|| error.to_string()));
                        if !error.is_full() {
                            self.degrade(error.to_string());
                        }
                        self.pause(&self.gathered);
                        break;
                    }
                }
            }
        }
    }

    /// Waits until lines have gathered and makes a piece of them; `false` when there is nothing more to do.
    fn gather(&self) -> bool {
        let mut state = self.lock();
        loop {
            if state.is_written() {
                return false;
            }
            // A lane is opened though no line comes: some of an earlier life may wait in it.
            if !state.pieces.is_empty() || state.lane.is_none() {
                break;
            }
            if state.write_fault.is_some() && state.first_waits_since.is_none() {
                // It was started again, and nothing is left to be done.
                drop(state);
                self.recovered();
                state = self.lock();
                continue;
            }
            let Some(since) = state.first_waits_since else {
                state = self.gathered.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let left = GATHER.saturating_sub(since.elapsed());
            let hurry = state.closing || state.durable_wanted.max(state.delivered_wanted) > state.spooled;
            if hurry || left.is_zero() || state.open.bytes.len() >= EAGER_BYTES {
                break;
            }
            state = wait_timeout(&self.gathered, state, left);
        }
        // While the disk refuses, pieces are made larger, so that there are few of them.
        if !state.open.ends.is_empty() && state.pieces.len() < 2 {
            let mut spare = std::mem::take(&mut state.spare);
            if spare.bytes.capacity() < BUFFER_BYTES {
                // Here, where nobody waits for it.
                spare = Lines::with_capacity(BUFFER_BYTES);
            }
            state.close_piece(spare);
        }
        true
    }

    fn first_piece(&self) -> Option<Arc<Lines>> {
        let mut state = self.lock();
        if state.abandon {
            return None;
        }
        let piece = state.pieces.front_mut()?;
        piece.busy = true;
        Some(piece.lines.clone())
    }

    fn dropped(&self, dropped: Option<&Dropped>) {
        let Some(dropped) = dropped else { return };
        let mut state = self.lock();
        state.acknowledged += dropped.count + dropped.settled;
        state.ahead = state.ahead.saturating_sub(dropped.settled);
        state.dropped += dropped.count;
    }

    /// The first piece is in the lane now, or as much of it as the disk took.
    fn appended(&self, lane: &Lane, went: &Appended) {
        let mut state = self.lock();
        let Some(mut piece) = state.pieces.pop_front() else { return };
        let count = went.count as u64;
        state.spooled += count;
        state.end = went.first + count;
        let settled = piece.settled.min(went.count);
        if settled > 0 {
            // The sender had them from memory, after everything before them. They were counted then.
            state.acknowledge(lane, went.first + settled as u64);
        }
        if let Some(flying) = &mut state.flying {
            let end = flying.end.min(piece.first + count);
            let overlap = end.saturating_sub(flying.first.max(piece.first));
            if overlap > 0 {
                flying.in_lane += overlap;
                flying.before = went.first + (end - piece.first);
            }
        }
        state.pieces_bytes -= piece.lines.bytes.len();
        if went.count < piece.lines.ends.len() {
            piece = Piece {
                first: piece.first + count,
                lines: Arc::new(piece.lines.after(went.count)),
                settled: piece.settled - settled,
                busy: false,
            };
            state.pieces_bytes += piece.lines.bytes.len();
            state.pieces.push_front(piece);
            state.drop_settled_pieces();
        } else if let Ok(mut lines) = Arc::try_unwrap(piece.lines)
            && lines.bytes.capacity() <= SPARE_BYTES_MAX
        {
            lines.clear();
            state.spare = lines;
        }
        drop(state);
        self.arrived.notify_all();
        self.sync_due.notify_one();
        self.progressed(self.lock());
    }

    fn not_appended(&self, full: Option<String>) {
        let mut state = self.lock();
        (state.full, state.room) = (full, false);
        if let Some(piece) = state.pieces.front_mut() {
            piece.busy = false;
        }
        state.drop_settled_pieces();
        self.progressed(state);
    }

    /// A pause after a failure, ended early by what cannot wait. Each thread rests where it is woken: a call that wakes one
    /// must not wake the other in its place.
    fn pause(&self, woken: &Condvar) {
        let until = Instant::now() + self.options.retry;
        let mut state = self.lock();
        while !state.is_written() && (state.full.is_none() || !state.room) {
            let Some(left) = until.checked_duration_since(Instant::now()) else { return };
            state = wait_timeout(woken, state, left);
        }
    }

    // ---- the thread that syncs ----------------------------------------------------------------------------------

    fn sync_loop(&self) {
        let mut saved = (0, Instant::now());
        let mut first_unsynced = None::<Instant>;
        let mut refused = None;
        loop {
            let (lane, target) = {
                let mut state = self.lock();
                loop {
                    let ending = state.is_ending();
                    let unsynced =
                        self.options.durable_by == DurableBy::Lane && state.spooled > state.durable;
                    let wanted = unsynced && state.durable_wanted > state.durable;
                    let since = *first_unsynced.get_or_insert_with(Instant::now);
                    if !unsynced {
                        first_unsynced = None;
                    }
                    let due = match self.options.sync {
                        SyncPolicy::EachAppend => unsynced,
                        SyncPolicy::Every(time) => unsynced && since.elapsed() >= time,
                    };
                    let moved = state.lane.as_ref().is_some_and(|l| l.acknowledged() != saved.0);
                    let save = moved
                        && (self.options.durable_by == DurableBy::Target
                            || saved.1.elapsed() >= CURSOR_EVERY);
                    if ending || wanted || due || save {
                        break;
                    }
                    if !unsynced {
                        state.sync_fault = None;
                    }
                    // The next segment is made here, so that no append has to; a disk that refused is left alone for a while.
                    if let Some(lane) = state.lane.clone()
                        && refused.is_none_or(|at: Instant| at.elapsed() >= self.options.retry)
                        && lane.needs_segment()
                    {
                        drop(state);
                        refused = lane.prepare().err().map(|_tried_again| Instant::now());
                        state = self.lock();
                        continue;
                    }
                    let pause = match self.options.sync {
                        SyncPolicy::Every(time) if unsynced => time.saturating_sub(since.elapsed()),
                        _ => Duration::from_secs(3600),
                    };
                    let pause = if moved { pause.min(CURSOR_EVERY) } else { pause };
                    state = wait_timeout(&self.sync_due, state, pause.max(Duration::from_millis(1)));
                }
                (state.lane.clone(), state.spooled)
            };
            let ended = self.lock().is_ending();
            if let Some(lane) = lane {
                first_unsynced = None;
                let synced = self.sync(&lane, target);
                let acknowledged = lane.acknowledged();
                let saved_now = lane.save_cursor();
                saved = (if saved_now.is_ok() { acknowledged } else { saved.0 }, Instant::now());
                if self.options.lane_memory.is_some() {
                    // Segments are gone: there is room.
                    self.progressed(self.lock());
                }
                if let Some(seen) = lane.stats_within(STATS_WAIT) {
                    self.lock().left = Some(seen);
                }
                let done = synced.and(saved_now);
                if done.is_ok() {
                    self.lock().sync_fault = None;
                }
                if let Err(error) = done {
                    self.degrade(error.to_string());
                    if !ended {
                        self.pause(&self.sync_due);
                    }
                }
            }
            if ended {
                return;
            }
        }
    }

    fn sync(&self, lane: &Lane, target: u64) -> Result<(), Error> {
        if self.lock().durable >= target && self.options.durable_by == DurableBy::Lane {
            return Ok(());
        }
        let began = Instant::now();
        lane.sync()?;
        let mut state = self.lock();
        state.last_sync = began.elapsed();
        if self.options.durable_by == DurableBy::Lane {
            state.durable = state.durable.max(target);
        }
        self.progressed(state);
        Ok(())
    }

    // ---- the sender's side --------------------------------------------------------------------------------------

    fn next(&self, outbox: &mut Outbox, want: &Want) -> Work {
        loop {
            let (lane, end, hurry, asked) = {
                let mut state = self.lock();
                if state.abandon || state.unsent {
                    self.end_settling(outbox, state);
                    return Work::End;
                }
                if let Some(lane) = state.lane.clone() {
                    outbox.catch_up(&lane, &mut state);
                }
                let settled = state.settled();
                if state.durable_by_target
                    && !self.options.target_syncs_apart
                    && state.durable_wanted > state.durable
                    && settled >= state.durable_wanted
                {
                    return Work::SyncTarget(settled);
                }
                self.make_room(outbox, &mut state);
                // What was sent waits for its target, not for more lines.
                let hurry = state.closing || state.delivered_wanted > settled + state.settling_next;
                (state.lane.clone(), state.end, hurry, state.asked())
            };
            let mut pause = Duration::from_secs(3600);
            match outbox.look_due() {
                Some(Duration::ZERO) => {
                    outbox.settling.look_at = None;
                    return Work::Look;
                }
                Some(time) => pause = time,
                None => {}
            }
            if let Some(lane) = lane.as_ref().filter(|_| !outbox.settling.is_full()) {
                match outbox.read(lane, end, want, hurry) {
                    Read::Lost(mut damage, origin) => {
                        if self.lost(outbox, lane, &mut damage, origin) {
                            return Work::Lost(damage);
                        }
                        continue;
                    }
                    // All of them went first before, or keep their place.
                    Read::Taken(taken) if taken.batch.is_empty() => {
                        self.skipped(outbox, lane, &taken);
                        continue;
                    }
                    Read::Taken(taken) => return Work::Batch(taken),
                    Read::Wait(time) => pause = pause.min(time),
                    Read::Nothing => {}
                    Read::Failed(error) => {
                        self.degrade(error.to_string());
                        pause = pause.min(self.options.retry);
                    }
                }
            }
            let mut state = self.lock();
            if state.abandon || state.unsent {
                self.end_settling(outbox, state);
                return Work::End;
            }
            let drained = state.lane.is_none() || outbox.position() >= state.end;
            // Lines from memory settle at once: everything before them must have.
            if drained
                && outbox.settling.is_empty()
                && let Some(taken) = state.piece_for(want)
            {
                return Work::Batch(taken);
            }
            // A lane on a disk keeps what has not settled for the next run.
            let kept = self.options.durable_by == DurableBy::Lane || outbox.settling.is_empty();
            if drained && kept && state.closing && !state.writing && state.pieces.is_empty() {
                return Work::End;
            }
            // Nothing arrived and nobody asked since it was looked.
            if lane.is_some() == state.lane.is_some() && state.end == end && state.asked() == asked {
                let _woken = wait_timeout(&self.arrived, state, pause);
            }
        }
    }

    /// Lines of which none is sent now are settled, or settle with those before them.
    fn skipped(&self, outbox: &mut Outbox, lane: &Lane, taken: &Taken) {
        let mut state = self.lock();
        if outbox.settling.holds(taken.origin) {
            outbox.settling.add(taken.origin, taken.numbers(), false, Instant::now());
            state.count_settling(outbox);
        } else {
            let fate = Fate::Delivered(Vec::new());
            state.settle(outbox, Some(lane), taken.origin, taken.numbers(), fate);
        }
        self.after_settling(outbox, Some(lane), state);
    }

    /// Counts lost lines once everything before them is settled; tells whether they were not reported before.
    fn lost(&self, outbox: &mut Outbox, lane: &Lane, damage: &mut Damage, origin: Origin) -> bool {
        let mut is_new = !outbox.settling.is_reported(damage.lost.start);
        if let Some(live) = outbox.live.as_ref().filter(|_| origin == Origin::Lane) {
            // What is lost of the lines behind the backlog was met by their own reader, and reported then.
            is_new &= damage.lost.start < live.start;
            let end = if damage.lost.start < live.start { live.start } else { live.settled };
            damage.lost.end = damage.lost.end.min(end.max(damage.lost.start));
        }
        let mut state = self.lock();
        if outbox.settling.holds(origin) {
            outbox.settling.report(damage.lost.clone());
            outbox.settling.add(origin, damage.lost.clone(), true, Instant::now());
        } else {
            state.settle(outbox, Some(lane), origin, damage.lost.clone(), Fate::Damaged);
        }
        outbox.join(lane, &mut state);
        self.progressed(state);
        lane.note_damage(damage);
        is_new
    }

    fn settle(&self, outbox: &mut Outbox, taken: &Taken, refused: &[(usize, String)]) -> Result<(), Error> {
        if taken.origin != Origin::Memory && outbox.settling.holds(taken.origin) {
            // Not before those in front of it.
            return self.acknowledged(outbox, taken, refused);
        }
        let mut new = refused.to_vec();
        outbox.forget_reported(taken, &mut new);
        let lane = self.lock().lane.clone();
        let parked = self.park(lane.as_deref(), taken, &new);
        let rejected = new.iter().map(|r| taken.number(r.0)).collect();
        let mut state = self.lock();
        state.settle(outbox, lane.as_deref(), taken.origin, taken.numbers(), Fate::Delivered(rejected));
        self.after_settling(outbox, lane.as_deref(), state);
        parked
    }

    /// Keeps refused lines among the dead letters.
    fn park(&self, lane: Option<&Lane>, taken: &Taken, refused: &[(usize, String)]) -> Result<(), Error> {
        let Some(lane) = lane.filter(|_| !refused.is_empty() && self.options.keep_dead) else {
            return Ok(());
        };
        let parked = lane.park(&dead_lines(taken, refused));
        if parked.is_err() {
            // Refused all the same, and not delivered.
            lane.count_dead(refused.len() as u64);
        }
        parked
    }

    fn after_settling(&self, outbox: &mut Outbox, lane: Option<&Lane>, mut state: MutexGuard<'_, State>) {
        if let Some(lane) = lane {
            outbox.join(lane, &mut state);
        }
        if state.full.is_some() {
            state.room = true;
            self.gathered.notify_one();
        }
        self.progressed(state);
        self.sync_due.notify_one();
    }

    // ---- lines that were acknowledged and have not settled ------------------------------------------------------

    fn acknowledged(
        &self,
        outbox: &mut Outbox,
        taken: &Taken,
        refused: &[(usize, String)],
    ) -> Result<(), Error> {
        if taken.origin == Origin::Memory {
            return self.settle(outbox, taken, refused);
        }
        let mut new = refused.to_vec();
        outbox.forget_reported(taken, &mut new);
        let lane = self.lock().lane.clone();
        let parked = self.park(lane.as_deref(), taken, &new);
        for (place, _) in &new {
            let number = taken.number(*place);
            outbox.settling.report(number..number + 1);
        }
        outbox.settling.add(taken.origin, taken.numbers(), false, Instant::now());
        let mut state = self.lock();
        state.count_settling(outbox);
        if let Some(lane) = &lane {
            lane.said(outbox.said(lane));
        }
        self.progressed(state);
        parked
    }

    fn settle_spans(&self, outbox: &mut Outbox, state: &mut State, lane: Option<&Lane>, spans: Vec<Span>) {
        for Span { origin, numbers, damaged, .. } in spans {
            let fate = if damaged { Fate::Damaged } else { Fate::Delivered(Vec::new()) };
            state.settle(outbox, lane, origin, numbers, fate);
        }
        state.count_settling(outbox);
    }

    /// A lane that has no room for new lines lets go of the oldest that were acknowledged, though they have not settled.
    fn make_room(&self, outbox: &mut Outbox, state: &mut State) {
        let Some(lane) = state.lane.clone().filter(|_| !outbox.settling.is_empty()) else { return };
        if (state.full.is_none() || state.room) && !lane.is_tight() {
            return;
        }
        let spans = outbox.settling.oldest_half();
        self.settle_spans(outbox, state, Some(&lane), spans);
        outbox.join(&lane, state);
        state.room = true;
        self.gathered.notify_one();
        self.sync_due.notify_one();
    }

    /// The sender ends. Of a lane in memory nothing is left to be sent again.
    fn end_settling(&self, outbox: &mut Outbox, mut state: MutexGuard<'_, State>) {
        if self.options.durable_by == DurableBy::Lane || outbox.settling.is_empty() {
            return;
        }
        let lane = state.lane.clone();
        let spans = outbox.settling.settled(Instant::now());
        self.settle_spans(outbox, &mut state, lane.as_deref(), spans);
        self.progressed(state);
    }
}

/// What became of lines that leave the lane.
enum Fate {
    /// They were delivered, but for those with these numbers, which were refused; those that were reported while they settled
    /// are known.
    Delivered(Vec<u64>),
    Damaged,
}

impl State {
    fn count_settling(&mut self, outbox: &Outbox) {
        self.settling = outbox.settling.lines();
        self.settling_next = outbox.settling.next_lines();
    }

    /// Counts what became of lines from one origin; everything of it before them is settled.
    fn settle(
        &mut self,
        outbox: &mut Outbox,
        lane: Option<&Lane>,
        origin: Origin,
        numbers: Range<u64>,
        fate: Fate,
    ) {
        let lines = numbers.end - numbers.start;
        let none = Passed { from: numbers.end, ..Passed::default() };
        let passed = match (origin, lane) {
            (Origin::Lane, Some(lane)) => self.passed(lane.settle_prefix(numbers.end)),
            (Origin::Live, Some(lane)) => {
                if let Some(live) = &mut outbox.live {
                    live.settled = numbers.end;
                }
                let passed = lane.settle_ahead(&numbers);
                self.ahead += passed.lines;
                passed
            }
            (Origin::Memory, lane) => {
                let settled = self.settle_in_memory(lane, lines);
                Passed { from: numbers.end - settled.min(lines), lines: settled, went_first: 0 }
            }
            (Origin::Lane | Origin::Live, None) => none,
        };
        // Lines that a full lane dropped while they were on their way were counted there; they are the first ones.
        let from = passed.from.clamp(numbers.start, numbers.end);
        match fate {
            Fate::Damaged => {
                outbox.settling.take_reported(numbers);
                self.damaged += passed.lines;
                if let Some(lane) = lane {
                    lane.count_damaged(passed.lines);
                }
            }
            Fate::Delivered(rejected) => {
                let rejected = rejected.iter().filter(|&&number| number >= from).count() as u64;
                outbox.settling.take_reported(numbers.start..from);
                let rejected = rejected + outbox.settling.take_reported(from..numbers.end);
                self.rejected += rejected;
                self.delivered += passed.lines - rejected.min(passed.lines);
            }
        }
    }
}

impl State {
    /// How many lines were not settled before. Those that the lane dropped count when it tells of them.
    fn acknowledge(&mut self, lane: &Lane, before: u64) -> u64 {
        self.passed(lane.settle_prefix(before)).lines
    }

    /// The lane has settled lines before a number: some now, some had gone first.
    fn passed(&mut self, passed: Passed) -> Passed {
        self.acknowledged += passed.lines + passed.went_first;
        self.ahead = self.ahead.saturating_sub(passed.went_first);
        passed
    }

    fn settle_in_memory(&mut self, lane: Option<&Lane>, lines: u64) -> u64 {
        let Some(flying) = self.flying.take() else { return 0 };
        // The disk took some of the piece meanwhile, or all: it holds what was delivered just now.
        let in_lane = lane.filter(|_| flying.in_lane > 0).map_or(0, |l| self.acknowledge(l, flying.before));
        let rest = lines - flying.in_lane.min(lines);
        if let Some(piece) = self.pieces.front_mut() {
            piece.settled += rest as usize;
            self.drop_settled_pieces();
        }
        in_lane + rest
    }
}

impl State {
    /// Pieces that nobody needs any more.
    fn drop_settled_pieces(&mut self) {
        while let Some(piece) = self.pieces.front()
            && !piece.busy
            && piece.settled == piece.lines.ends.len()
        {
            let count = piece.settled as u64;
            self.pieces_bytes -= piece.lines.bytes.len();
            self.spooled += count;
            self.settled_in_memory += count;
            self.pieces.pop_front();
        }
    }

    /// Lines that the disk does not take, for the sender.
    fn piece_for(&mut self, want: &Want) -> Option<Taken> {
        self.degraded.as_ref()?;
        let piece = self.pieces.front()?;
        let from = piece.settled;
        let start = if from == 0 { 0 } else { piece.lines.ends[from - 1] };
        let fits = |&&end: &&u32| (end - start) as usize <= want.bytes_max;
        let count = piece.lines.ends[from..].iter().take(want.lines_max.max(1)).take_while(fits).count();
        let to = from + count.max(1).min(piece.lines.ends.len() - from);
        if to == from {
            return None;
        }
        let ends: Vec<u32> = piece.lines.ends[from..to].iter().map(|e| e - start).collect();
        let bytes = piece.lines.bytes[start as usize..piece.lines.ends[to - 1] as usize].to_vec();
        let (first, end) = (piece.first + from as u64, piece.first + to as u64);
        self.flying = Some(Flying { first, end, in_lane: 0, before: 0 });
        Some(Taken { batch: Batch { first: 0, bytes, ends }, among: None, origin: Origin::Memory })
    }
}

/// What reading from a lane came to.
enum Read {
    /// Lines, or none of those that were read.
    Taken(Taken),
    Lost(Damage, Origin),
    /// There are lines, which may wait so long for others.
    Wait(Duration),
    Nothing,
    Failed(Error),
}

impl Outbox {
    /// Sets when [`Work::Look`] comes next, which it does once, and no later than it was set before.
    pub fn look_in(&mut self, time: Duration) {
        let at = Instant::now() + time;
        self.settling.look_at = Some(self.settling.look_at.map_or(at, |before| before.min(at)));
    }

    /// Sets which run of the target is seen now, if that is known. With the lines that are acknowledged from now on the cursor
    /// keeps it for the next run of this client; see [`Queue::go_on`].
    pub fn seen(&mut self, run: Option<u64>) {
        self.settling.run = run.unwrap_or_default();
    }

    /// Whether lines were acknowledged that have not settled.
    #[must_use]
    pub fn is_settling(&self) -> bool {
        !self.settling.is_empty()
    }

    /// Of refused lines, leaves those that were not reported when they were sent before.
    pub fn forget_reported(&self, taken: &Taken, refused: &mut Vec<(usize, String)>) {
        if taken.origin != Origin::Memory {
            refused.retain(|(place, _)| !self.settling.is_reported(taken.number(*place)));
        }
    }

    fn look_due(&self) -> Option<Duration> {
        Some(self.settling.look_at?.saturating_duration_since(Instant::now()))
    }

    /// What the cursor keeps of the lines that have not settled: those from the lane's cursor on without a hole.
    fn said(&self, lane: &Lane) -> Said {
        let before = self.main.as_ref().map_or(0, LaneReader::position);
        if self.settling.run == 0 || !self.settling.holds(Origin::Lane) || before <= lane.acknowledged() {
            return Said::default();
        }
        Said { before, at: machine_clock(), by: self.settling.run }
    }

    fn position(&self) -> u64 {
        self.main.as_ref().map_or(0, LaneReader::position)
    }

    /// Reads lines before the number `end`: of those behind it the queue does not know yet whether they were settled in memory.
    fn read(&mut self, lane: &Lane, end: u64, want: &Want, hurry: bool) -> Read {
        let main = self.main.get_or_insert_with(|| lane.reader(lane.acknowledged()));
        let before = |position: u64| usize::try_from(end.saturating_sub(position)).unwrap_or(usize::MAX);
        let mut lines_max = want.lines_max.max(1);
        let pause;
        if let Some(live) = &mut self.live {
            let due = due(before(live.reader.position()), &mut live.since, want, hurry);
            let turn_of_backlog = self.requests % BACKLOG_SHARE == BACKLOG_SHARE - 1;
            let (_, is_crowded) = lane.keeps_back();
            if due == Some(Duration::ZERO) && !turn_of_backlog && !is_crowded {
                self.requests += 1;
                live.since = Some(Instant::now());
                let lines_max = lines_max.min(before(live.reader.position()));
                let newest = live.newest;
                let goes_first = |line: &[u8]| Ahead::goes_first(newest, line);
                let read =
                    taken(&mut live.reader, lines_max, want.bytes_max, Origin::Live, Some(&goes_first));
                if let Read::Taken(taken) = &read {
                    lane.keep_back(taken.not_sent());
                }
                return read;
            }
            pause = due;
            // The backlog, and behind it the lines that kept their place.
            let end = if main.position() < live.start { live.start } else { live.settled };
            let backlog = end.saturating_sub(main.position());
            if backlog == 0 {
                // Its last lines have not settled.
                return pause.map_or(Read::Nothing, Read::Wait);
            }
            lines_max = lines_max.min(usize::try_from(backlog).unwrap_or(usize::MAX));
        } else {
            pause = due(before(main.position()), &mut self.since, want, hurry);
            lines_max = lines_max.min(before(main.position()));
            match pause {
                Some(Duration::ZERO) => self.since = Some(Instant::now()),
                Some(time) => return Read::Wait(time),
                None => return Read::Nothing,
            }
        }
        self.requests = self.requests.wrapping_add(1);
        let behind = self.live.as_ref().filter(|live| main.position() >= live.start).map(|live| live.newest);
        let kept_back = behind.map(|newest| move |line: &[u8]| !Ahead::goes_first(newest, line));
        let keep = kept_back.as_ref().map(|keep| keep as &dyn Fn(&[u8]) -> bool);
        let read = taken(main, lines_max, want.bytes_max, Origin::Lane, keep);
        match read {
            Read::Nothing if self.live.is_some() => pause.map_or(Read::Nothing, Read::Wait),
            _ => read,
        }
    }

    /// Lines that were settled in memory before they were in the lane are not sent again, nor are those that were dropped.
    fn catch_up(&mut self, lane: &Lane, state: &mut State) {
        let acknowledged = lane.acknowledged();
        self.main = self.main.take().map(|main| main.or_from(lane, acknowledged));
        self.join(lane, state);
        self.main = self.main.take().map(|main| main.or_from(lane, acknowledged));
        if let Some(live) = &mut self.live
            && live.reader.position() < acknowledged
        {
            live.reader = lane.reader(acknowledged);
        }
    }

    /// Ends the time of two places when the backlog has come to where the live lines began.
    fn join(&mut self, lane: &Lane, state: &mut State) {
        // Lines that keep their place are read again where they are.
        let waits = self.settling.holds(Origin::Lane) || lane.keeps_back().0;
        let done = |live: &mut Live| !waits && self.main.as_ref().is_none_or(|m| m.position() >= live.start);
        if let Some(live) = self.live.take_if(done) {
            state.passed(lane.end_ahead(live.settled));
            (self.main, self.since) = (Some(live.reader), live.since);
            self.settling.join();
        }
    }
}

/// How long lines may wait for a full batch: not at all when there are enough, or somebody is in a hurry; `None` when there
/// is none.
fn due(available: usize, since: &mut Option<Instant>, want: &Want, hurry: bool) -> Option<Duration> {
    if available == 0 {
        *since = None;
        return None;
    }
    let since = *since.get_or_insert_with(Instant::now);
    let enough = hurry || available >= want.lines_max;
    Some(if enough { Duration::ZERO } else { want.interval.saturating_sub(since.elapsed()) })
}

/// Says of a line whether it is taken.
type Keeps<'a> = &'a dyn Fn(&[u8]) -> bool;

/// The next lines, or those of them that `keep` says yes to.
fn taken(
    reader: &mut LaneReader,
    lines_max: usize,
    bytes_max: usize,
    origin: Origin,
    keep: Option<Keeps<'_>>,
) -> Read {
    let batch = match reader.next(lines_max, bytes_max) {
        Ok(Next::Lines(batch)) => batch,
        Ok(Next::Lost(damage)) => return Read::Lost(damage, origin),
        Ok(Next::End) => return Read::Nothing,
        Err(error) => return Read::Failed(error),
    };
    let Some(keep) = keep.filter(|keep| (0..batch.len()).any(|i| !keep(batch.line(i)))) else {
        return Read::Taken(Taken { batch, among: None, origin });
    };
    let mut kept = Batch { first: batch.first, ..Batch::default() };
    let mut places = Vec::new();
    for i in (0..batch.len()).filter(|&i| keep(batch.line(i))) {
        kept.bytes.extend_from_slice(batch.line(i));
        kept.ends.push(kept.bytes.len() as u32);
        places.push(i as u32);
    }
    Read::Taken(Taken { batch: kept, among: Some((batch.len() as u64, places)), origin })
}

fn wait_timeout<'a>(
    condvar: &Condvar,
    state: MutexGuard<'a, State>,
    time: Duration,
) -> MutexGuard<'a, State> {
    condvar.wait_timeout(state, time).unwrap_or_else(PoisonError::into_inner).0
}

/// Refused lines as they are parked.
fn dead_lines<'a>(taken: &'a Taken, refused: &'a [(usize, String)]) -> Vec<DeadLine<'a>> {
    let time = machine_clock();
    let of = |(i, reason): &'a (usize, String)| DeadLine {
        number: taken.number(*i),
        time,
        reason,
        line: taken.batch.line(*i),
    };
    refused.iter().filter(|(i, _)| *i < taken.batch.len()).map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_settled_before_they_were_counted_do_not_wait() {
        // Three of five lines are in the lane and delivered; the thread that appended them has not said so yet.
        let state = State { accepted: 5, base: 1, end: 1, acknowledged: 4, delivered: 3, ..State::default() };
        assert_eq!(state.waiting(), 2);
        // And the same when live lines go before a backlog of ten.
        let state =
            State { accepted: 5, recovered: 10, base: 11, end: 11, acknowledged: 1, ahead: 3, ..state };
        assert_eq!(state.waiting(), 12);
    }
}
