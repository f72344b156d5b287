//! What a client has done and how its lines get through: counted for each lane, added up over them.

use crate::lane::Lane;
use graylogic_line::Timestamp;
use std::time::Duration;

/// What a client has done.
/// `accepted + recovered = delivered + rejected + waiting + dropped + damaged`, always.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Lines accepted: the call returned `Ok`.
    pub accepted: u64,
    /// Lines an earlier client left in the spool.
    pub recovered: u64,
    /// Lines the target has.
    pub delivered: u64,
    /// Lines the target refused for good.
    pub rejected: u64,
    /// Lines on their way.
    pub waiting: u64,
    /// Of them, lines that VictoriaMetrics has acknowledged and may still lose; see
    /// [`Config::settle_time`](crate::Config::settle_time).
    pub settling: u64,
    /// Lines lost to a full spool, or to a close whose deadline passed.
    pub dropped: u64,
    /// Lines lost to a disk that changed what was written.
    pub damaged: u64,
    /// Of them, lines in memory only.
    pub waiting_in_memory: u64,
    /// Bytes of lines in memory, on their way.
    pub waiting_bytes: usize,
    /// Lines accepted that survive the end of the process.
    pub spooled: u64,
    /// Lines accepted that survive a power cut.
    pub durable: u64,
    /// Calls refused because the reading cannot be written.
    pub refused_points: u64,
    /// Calls refused because too many lines wait.
    pub refused_full: u64,
    /// Calls of the error callback.
    pub callbacks: u64,
    /// Calls of the error callback that panicked.
    pub callback_panics: u64,
    /// How lines get through at present.
    pub health: Health,
    /// Why lines do not get through at present.
    pub trouble: Option<String>,
    /// The last reason why lines did not get through.
    pub last_error: Option<String>,
    /// When lines last got through.
    pub last_success: Option<Timestamp>,
    /// The pause before the next try.
    pub next_try: Option<Duration>,
    /// Bytes of the spool on the disk.
    pub spool_bytes: u64,
    /// How long the oldest line in the spool has waited, to about a segment.
    pub oldest_waiting: Option<Duration>,
    /// How long the last sync of the spool took.
    pub last_sync: Duration,
}

/// How the lines of a client get through.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Health {
    /// They do.
    #[default]
    Ok,
    /// The target does not take them at present; they are tried again by themselves.
    Retrying,
    /// The target refuses them until somebody changes this setting.
    Held(String),
    /// The spool's disk does not take them; they are kept in memory.
    Degraded(String),
    /// The spool is full.
    Full,
}

impl Stats {
    /// What one lane has done.
    pub(crate) fn of(lane: &Lane) -> Self {
        let queue = lane.queue.stats();
        let mut status = lane.status().clone();
        // A target that hung when the client was closed may have taken them after all.
        status.abandoned = status.abandoned.min(queue.waiting);
        let on_disk = queue.lane.as_ref();
        let health = match (&status.trouble, &queue.degraded) {
            (_, Some(why)) => Health::Degraded(why.clone()),
            _ if queue.fault.is_some() => Health::Degraded(queue.fault.clone().unwrap_or_default()),
            _ if queue.full => Health::Full,
            (Some(trouble), _) => match trouble.setting {
                Some(setting) => Health::Held(setting.to_owned()),
                None => Health::Retrying,
            },
            (None, None) => Health::Ok,
        };
        Self {
            accepted: queue.accepted,
            recovered: queue.recovered,
            delivered: queue.delivered,
            rejected: queue.rejected,
            waiting: queue.waiting - status.abandoned,
            settling: queue.settling,
            dropped: queue.dropped + status.abandoned,
            damaged: queue.damaged,
            waiting_in_memory: queue.in_memory.saturating_sub(status.abandoned),
            waiting_bytes: queue.memory_bytes,
            spooled: queue.spooled,
            durable: queue.durable,
            refused_points: queue.refused_invalid,
            refused_full: queue.refused_full,
            callbacks: 0,
            callback_panics: 0,
            health,
            next_try: status.trouble.as_ref().and_then(|t| t.next_try),
            trouble: status.trouble.map(|t| t.reason).or(queue.degraded).or(queue.fault),
            last_error: status.last_error,
            last_success: status.last_success,
            spool_bytes: on_disk.map_or(0, |l| l.bytes),
            oldest_waiting: on_disk.and_then(|l| l.oldest_age),
            last_sync: queue.last_sync,
        }
    }

    /// Both together: counts added, and of states the worse, of times the one that says more.
    pub(crate) fn and(self, other: Self) -> Self {
        let worse = if other.health.gravity() > self.health.gravity() { &other } else { &self };
        let (health, trouble, next_try) = (worse.health.clone(), worse.trouble.clone(), worse.next_try);
        Self {
            accepted: self.accepted + other.accepted,
            recovered: self.recovered + other.recovered,
            delivered: self.delivered + other.delivered,
            rejected: self.rejected + other.rejected,
            waiting: self.waiting + other.waiting,
            settling: self.settling + other.settling,
            dropped: self.dropped + other.dropped,
            damaged: self.damaged + other.damaged,
            waiting_in_memory: self.waiting_in_memory + other.waiting_in_memory,
            waiting_bytes: self.waiting_bytes + other.waiting_bytes,
            spooled: self.spooled + other.spooled,
            durable: self.durable + other.durable,
            refused_points: self.refused_points + other.refused_points,
            refused_full: self.refused_full + other.refused_full,
            callbacks: self.callbacks + other.callbacks,
            callback_panics: self.callback_panics + other.callback_panics,
            health,
            trouble,
            next_try,
            last_error: self.last_error.or(other.last_error),
            last_success: self.last_success.max(other.last_success),
            spool_bytes: self.spool_bytes + other.spool_bytes,
            oldest_waiting: self.oldest_waiting.max(other.oldest_waiting),
            last_sync: self.last_sync.max(other.last_sync),
        }
    }
}

impl Health {
    fn gravity(&self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Retrying => 1,
            Self::Held(_) => 2,
            Self::Full => 3,
            Self::Degraded(_) => 4,
        }
    }
}
