//! The client's threads: a queue's own two, one that takes lines to the target, one that tells bad news. Tasks start
//! here.

use crate::config::Config;
use crate::error::{Error, Kind};
use crate::lane::Lane;
use crate::notify::{Notifier, WriteError, WriteErrorKind};
use crate::sender::{Destination, Sender};
use crate::server::delivery::Delivery;
use crate::server::http::Http;
use crate::server::preflight;
use crate::server::watch::Watch;
use crate::target_sync::TargetSync;
use graylogic_durable::{
    DurableBy, Inspection, LaneOptions, LaneRecovery, MemoryDisk, News, Queue, QueueOptions, Spool, WhenFull,
    is_cut, lanes,
};
use graylogic_store::{Store, WriteOptions};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant};

/// Buckets of one client: each has three threads.
const BUCKETS_MAX: usize = 64;
/// Most bytes of pending lines in memory when there is no spool on a disk, wherever they are.
const MEMORY_BYTES: usize = 64 << 20;
/// A lane in memory gives its bytes back in pieces of this length.
const MEMORY_SEGMENT_BYTES: u64 = 1 << 20;
/// What is in memory when the deadline of a close has passed may take so long to be spooled.
const SPOOL_SECONDS_MAX: u32 = 10;
/// Most bytes of lines in memory while the disk of the spool does not take them.
const DEGRADED_BYTES: usize = 32 << 20;

/// What the threads of one target of a client share.
#[derive(Debug)]
pub(crate) struct Works {
    /// The name of the target.
    pub(crate) name: String,
    /// The lane of the configured bucket, and those of the buckets that were asked for since.
    lanes: Mutex<Vec<Arc<Lane>>>,
    /// Held while a lane is opened, so that no bucket gets two.
    opening: Mutex<()>,
    pub(crate) closing: Arc<AtomicBool>,
    /// All targets of a client tell the same callback.
    pub(crate) notifier: Arc<Notifier>,
    /// The embedded store, when that is the target.
    pub(crate) store: Option<Store>,
    pub(crate) config: Config,
    /// The server, when that is the target.
    pub(crate) http: Option<Http>,
    /// What all lanes know of a server that may lose or ignore what it acknowledged.
    watch: Arc<Watch>,
    /// Whether what waits outlives the client.
    pub(crate) on_disk: bool,
    /// The spool that the lanes are in, once it could be opened.
    spool: Arc<Mutex<Option<Spool>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What these guard is whole between statements: a panic elsewhere does not make it wrong.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Works {
    /// The lanes, that of the configured bucket first.
    pub(crate) fn lanes(&self) -> Vec<Arc<Lane>> {
        lock(&self.lanes).clone()
    }

    /// Takes no more lines, on any lane, and tries at once what waits for a server.
    pub(crate) fn close_lanes(&self) {
        self.closing.store(true, Ordering::Release);
        self.lanes().iter().for_each(|lane| lane.queue.close());
        if let Some(http) = &self.http {
            http.stop().close();
        }
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    /// Waits until the threads of all lanes have ended or the time is up; tells whether they have.
    pub(crate) fn wait_ended(&self, until: Instant) -> bool {
        self.lanes().iter().all(|lane| lane.queue.wait_ended(until))
    }

    /// Ends sending. What is in memory only goes to the disk of the spool, for as long as that takes something each second and
    /// it does not take too long.
    pub(crate) fn spool_the_rest(&self) {
        let lanes = self.lanes();
        lanes.iter().for_each(|lane| lane.queue.stop_sending());
        if let Some(http) = &self.http {
            http.stop().stop();
        }
        let in_memory = || lanes.iter().map(|lane| lane.queue.stats().in_memory).sum::<u64>();
        let mut left = in_memory();
        for _second in 0..SPOOL_SECONDS_MAX {
            if self.wait_ended(Instant::now() + Duration::from_secs(1)) {
                return;
            }
            let before = std::mem::replace(&mut left, in_memory());
            if left >= before {
                return;
            }
        }
    }

    /// Ends everything now.
    pub(crate) fn abandon(&self) {
        self.lanes().iter().for_each(|lane| lane.queue.abandon());
        self.stop_requests();
    }

    /// Ends what is still asked.
    pub(crate) fn stop_requests(&self) {
        if let Some(http) = &self.http {
            http.stop().stop();
        }
    }

    /// Lets go of the spool: another client may have it. One that a thread still opens, because the disk hangs, goes with the
    /// last clone of the client.
    pub(crate) fn release_spool(&self) {
        match self.spool.try_lock() {
            Ok(mut spool) => drop(spool.take()),
            Err(TryLockError::Poisoned(spool)) => drop(spool.into_inner().take()),
            Err(TryLockError::WouldBlock) => {
                tracing::error!("the spool is still being opened: the disk does not answer");
            }
        }
    }

    /// Asks the server whether it takes writes.
    pub(crate) fn probe(&self) -> Result<(), Error> {
        self.http.as_ref().map_or(Ok(()), |http| preflight::probe(&self.config, http))
    }

    /// The lane of a bucket, opened when there is none.
    pub(crate) fn lane(self: &Arc<Self>, bucket: &str) -> Result<Arc<Lane>, Error> {
        let _one = lock(&self.opening);
        let lanes = self.lanes();
        if let Some(lane) = lanes.iter().find(|lane| lane.bucket == bucket) {
            return Ok(lane.clone());
        }
        if lanes.len() >= BUCKETS_MAX {
            let message = format!(
                "write to bucket {bucket:?}: a client has at most {BUCKETS_MAX} buckets, each with threads and a lane of its own; use another client"
            );
            return Err(Error::new(Kind::InvalidConfig, message));
        }
        let lane = self.open_lane(bucket)?;
        let mut lanes = lock(&self.lanes);
        if self.is_closing() {
            lane.queue.abandon();
            return Err(Error::closed());
        }
        lanes.push(lane.clone());
        Ok(lane)
    }

    /// Opens the lanes of other buckets in which lines of an earlier life wait: nobody may ask for them again.
    fn open_left_behind(self: &Arc<Self>) {
        let Some(folder) = self.config.spool_folder().filter(|_| self.on_disk) else { return };
        let disk = self.config.spool().disk.0.clone();
        let waits = |name: &String| {
            let seen = Inspection::open(disk.clone(), folder, name);
            seen.is_ok_and(|lane| lane.stats().waiting > 0)
        };
        // A spool that cannot be listed cannot be opened either, and says so.
        let names = lanes(&*disk, folder).unwrap_or_default();
        for name in names.iter().filter(|name| *name != self.config.bucket() && waits(name)) {
            // The folder of a very long name does not tell it.
            let opened = if is_cut(name) {
                Err("its name is too long to be told from its folder; ask for the bucket by its name"
                    .to_owned())
            } else {
                self.lane(name).map_err(|e| e.to_string())
            };
            if let Err(why) = opened {
                tracing::error!(
                    target_name = self.name,
                    bucket = name,
                    why,
                    "readings of an earlier run wait on"
                );
            }
        }
    }

    /// Opens the lane of a bucket and starts its threads. They end when it is closed and empty, or abandoned.
    fn open_lane(self: &Arc<Self>, bucket: &str) -> Result<Arc<Lane>, Error> {
        let starting = |e| Error::because(Kind::ConnectionFailed, "start the client's threads", e);
        let destination = match (&self.store, &self.http) {
            (Some(store), _) => Destination::Embedded(store.clone()),
            (None, Some(http)) => {
                let delivery = Delivery::new(&self.config, http.clone(), bucket, self.watch.clone());
                Destination::Server(Box::new(delivery))
            }
            (None, None) => return Err(Error::new(Kind::ConnectionFailed, "the client has no target")),
        };
        let queue = match self.config.spool_folder().filter(|_| self.on_disk) {
            Some(folder) => self.spooled(bucket, folder)?,
            None => self.in_memory(bucket).map_err(starting)?,
        };
        let mut lane = Lane::new(&self.name, bucket, queue);
        lane.blocks = self.on_disk && self.config.spool().when_full == WhenFull::Block;
        lane.outlives = self.on_disk;
        let lane = Arc::new(lane);
        if let Some(store) = &self.store {
            self.start_target_sync(store, &lane).map_err(starting)?;
        }
        let (works, theirs) = (self.clone(), lane.clone());
        let sender = std::thread::Builder::new().name("influxdb-send".into()).spawn(move || {
            // However this thread ends, nobody waits for it in vain.
            let _ends = EndsSender(&theirs);
            let want = destination.want(&works.config);
            let write_options = match works.config.takes_any_time() {
                true => WriteOptions::now().any_time(),
                false => WriteOptions::now(),
            };
            let notifier = &works.notifier;
            Sender { lane: &theirs, notifier, destination, write_options, want }.run();
        });
        if let Err(error) = sender {
            lane.queue.abandon();
            lane.queue.sender_ended();
            return Err(starting(error));
        }
        Ok(lane)
    }
}

impl Works {
    /// Starts the thread that syncs the embedded store. It is not the sender's: no line waits for a sync.
    fn start_target_sync(self: &Arc<Self>, store: &Store, lane: &Arc<Lane>) -> std::io::Result<()> {
        let (works, theirs, store) = (self.clone(), lane.clone(), store.clone());
        let sync = move || {
            let _ends = EndsTargetSync(&theirs);
            TargetSync { lane: &theirs, notifier: &works.notifier, store }.run();
        };
        let started = std::thread::Builder::new().name("influxdb-sync-store".into()).spawn(sync);
        if started.is_err() {
            lane.queue.abandon();
            lane.queue.target_sync_ended();
            lane.queue.sender_ended();
        }
        started.map(|_| ())
    }
}

struct EndsTargetSync<'a>(&'a Lane);

impl Drop for EndsTargetSync<'_> {
    fn drop(&mut self) {
        self.0.queue.target_sync_ended();
    }
}

/// Starts what a client works with for one target, and opens the lane of its bucket.
pub(crate) fn start(
    name: &str,
    config: &Config,
    store: Option<Store>,
    http: Option<Http>,
    notifier: &Arc<Notifier>,
) -> Result<(Arc<Works>, Arc<Lane>), Error> {
    let works = Arc::new(Works {
        name: name.to_owned(),
        lanes: Mutex::default(),
        opening: Mutex::default(),
        closing: Arc::default(),
        notifier: notifier.clone(),
        on_disk: store.is_none() && config.spool_folder().is_some(),
        store,
        config: config.clone(),
        http,
        watch: Arc::default(),
        spool: Arc::default(),
    });
    let lane = works.lane(config.bucket())?;
    works.open_left_behind();
    Ok((works, lane))
}

/// Starts the thread that tells bad news.
pub(crate) fn start_notifier(notifier: &Arc<Notifier>) -> Result<(), Error> {
    let notifier = notifier.clone();
    let told = std::thread::Builder::new().name("influxdb-errors".into()).spawn(move || notifier.run());
    told.map_err(|e| Error::because(Kind::ConnectionFailed, "start the client's threads", e))?;
    Ok(())
}

struct EndsSender<'a>(&'a Lane);

impl Drop for EndsSender<'_> {
    fn drop(&mut self) {
        self.0.queue.sender_ended();
    }
}

impl Works {
    /// A queue whose lane is on a disk.
    fn spooled(&self, bucket: &str, folder: &Path) -> Result<Queue, Error> {
        let settings = self.config.spool();
        let mut lane_options = LaneOptions::default().when_full(settings.when_full);
        if let Some(bytes) = settings.bytes_max {
            lane_options = lane_options.bytes_max(bytes);
        }
        if let Some(age) = settings.age_max {
            lane_options = lane_options.age_max(age);
        }
        if let Some(bytes) = settings.keep_free {
            lane_options = lane_options.keep_free(bytes);
        }
        if let Some(clock) = settings.clock.0 {
            lane_options = lane_options.clock(clock);
        }
        let mut options = QueueOptions::default().sync(settings.sync).memory_bytes_max(DEGRADED_BYTES);
        if let Some(age) = settings.backlog_age {
            options = options.backlog_age(age);
        }
        let (folder, name) = (folder.to_owned(), bucket.to_owned());
        let (spool, disk) = (self.spool.clone(), settings.disk.0.clone());
        let mut open = move || {
            let mut spool = lock(&spool);
            let opened = match spool.take() {
                Some(opened) => opened,
                None => Spool::open(disk.clone(), &folder)?,
            };
            let lane = opened.lane(&name, lane_options.clone());
            *spool = Some(opened);
            lane
        };
        // Somebody else's spool is a mistake that does not pass; everything else is tried again by the queue, which goes
        // on from memory until then.
        let mut first = match open() {
            Err(error) if error.is_locked() => {
                return Err(Error::because(Kind::ConnectionFailed, "open the spool", error));
            }
            opened => Some(opened),
        };
        self.start_queue(bucket, options, move || first.take().unwrap_or_else(&mut open))
            .map_err(|e| Error::because(Kind::ConnectionFailed, "start the client's threads", e))
    }

    /// A queue whose lane is in memory: for the embedded store, whose log makes lines durable, and for a server without a
    /// spool, where nothing is safe before the server has it.
    fn in_memory(&self, bucket: &str) -> std::io::Result<Queue> {
        let mut options = QueueOptions::default()
            .durable_by(DurableBy::Target)
            .memory_bytes_max(MEMORY_BYTES)
            .retry(Duration::from_millis(100))
            .keep_dead(false);
        // Calls are rejected before the disk or the lane are full: these never are.
        let disk = MemoryDisk::new(2 * MEMORY_BYTES as u64);
        options = options.lane_memory(disk.clone());
        if self.store.is_some() {
            options = options.target_syncs_apart();
        }
        let disk = Arc::new(disk);
        let lane_options = LaneOptions::default()
            .segment_bytes(MEMORY_SEGMENT_BYTES)
            .compression(false)
            .bytes_max(2 * MEMORY_BYTES as u64)
            .keep_free(0)
            .when_full(WhenFull::DropNewest);
        let name = bucket.to_owned();
        let open = move || Spool::open(disk.clone(), Path::new("/"))?.lane(&name, lane_options.clone());
        self.start_queue(bucket, options, open)
    }

    fn start_queue(
        &self,
        bucket: &str,
        options: QueueOptions,
        open: impl FnMut() -> Result<(graylogic_durable::Lane, LaneRecovery), graylogic_durable::Error>
        + Send
        + 'static,
    ) -> std::io::Result<Queue> {
        let (target, bucket) = (self.name.clone(), bucket.to_owned());
        let notifier = self.notifier.clone();
        Queue::start("influxdb", options, open, move |news| told(&target, &bucket, &notifier, news))
    }
}

/// Passes on what a queue has to say.
fn told(target_name: &str, bucket: &str, notifier: &Notifier, news: News) {
    let tell = |kind, lines, reason: String| {
        let (target, bucket) = (target_name.to_owned(), bucket.to_owned());
        notifier.add(WriteError { kind, target, bucket, lines, reason, first: Vec::new() });
    };
    match news {
        News::Opened(recovery) => {
            // The lines it cost are told when the sender comes to where they were.
            for damage in &recovery.damage {
                tracing::error!(target_name, bucket, %damage, "the spool was damaged");
            }
            if let Some(cursor) = recovery.cursor {
                tracing::error!(target_name, bucket, cursor, "the spool's cursor was not as it was left");
            }
            if recovery.waiting > 0 {
                tracing::info!(
                    target_name,
                    bucket,
                    lines = recovery.waiting,
                    "the spool holds readings of an earlier run"
                );
            }
        }
        // The callback hears of it first: a program's logging may panic.
        News::Degraded(reason) => {
            tell(WriteErrorKind::Degraded, 0, reason.clone());
            tracing::error!(
                target_name,
                bucket,
                reason,
                "the spool does not take readings: they are kept in memory"
            );
        }
        News::Recovered => tracing::info!(target_name, bucket, "the spool takes readings again"),
        News::Dropped(dropped) => {
            tell(WriteErrorKind::Dropped, dropped.count, dropped.to_string());
            tracing::error!(target_name, bucket, %dropped, "the spool was full");
        }
        News::NearlyFull(level) => tracing::warn!(target_name, bucket, %level, "the spool is nearly full"),
        _ => {}
    }
}
