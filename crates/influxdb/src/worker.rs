//! The client's threads: a queue's own two, one that takes lines to the target, one that tells bad news. Tasks start
//! here.

use crate::config::{Config, Target};
use crate::delivery::{self, Delivery};
use crate::error::{Error, Kind};
use crate::http::Http;
use crate::lane::Lane;
use crate::notify::{Notifier, WriteError, WriteErrorKind};
use crate::sender::{Destination, Sender};
use graylogic_durable::{
    DurableBy, LaneOptions, LaneRecovery, MemoryDisk, News, Queue, QueueOptions, RealDisk, Spool, WhenFull,
};
use graylogic_store::Store;
use std::path::Path;
use std::sync::Arc;

/// Most bytes of lines in memory when there is no spool on a disk: in the lane, and before it.
const MEMORY_LANE_BYTES: u64 = 48 << 20;
const MEMORY_OPEN_BYTES: usize = 16 << 20;
/// A lane in memory gives its bytes back in pieces of this length.
const MEMORY_SEGMENT_BYTES: u64 = 1 << 20;
/// Most bytes of lines in memory while the disk of the spool does not take them.
const DEGRADED_BYTES: usize = 32 << 20;

/// What the threads of a client share.
#[derive(Debug)]
pub(crate) struct Works {
    pub(crate) lane: Lane,
    pub(crate) notifier: Arc<Notifier>,
    /// The embedded store, when that is the target.
    pub(crate) store: Option<Store>,
    pub(crate) config: Config,
    /// The server, when that is the target.
    pub(crate) http: Option<Http>,
    /// Whether what waits outlives the client.
    pub(crate) on_disk: bool,
}

impl Works {
    /// Ends everything now.
    pub(crate) fn abandon(&self) {
        self.lane.queue.abandon();
        if let Some(http) = &self.http {
            http.stop().stop();
        }
    }

    /// Asks the server whether it takes writes.
    pub(crate) fn probe(&self) -> Result<(), Error> {
        self.http.as_ref().map_or(Ok(()), delivery::probe)
    }
}

/// Opens the lane of a client and starts its threads. They end when the lane is closed and empty, or abandoned.
pub(crate) fn start(
    config: &Config,
    store: Option<Store>,
    delivery: Option<Delivery>,
) -> Result<Arc<Works>, Error> {
    let starting = |e| Error::because(Kind::ConnectionFailed, "start the client's threads", e);
    let notifier = Arc::new(Notifier::default());
    let folder = match config.target() {
        Target::Remote(_) if store.is_none() => config.spool_folder(),
        _ => None,
    };
    let queue = match folder {
        Some(folder) => spooled(config, folder, &notifier)?,
        None => in_memory(config, store.is_some(), &notifier).map_err(starting)?,
    };
    let works = Arc::new(Works {
        lane: Lane::new(config.bucket(), queue),
        notifier,
        http: delivery.as_ref().map(|d| d.http().clone()),
        on_disk: folder.is_some(),
        config: config.clone(),
        store: store.clone(),
    });
    let destination = match (store, delivery) {
        (Some(store), _) => Destination::Embedded(store),
        (None, Some(delivery)) => Destination::Server(Box::new(delivery)),
        (None, None) => return Err(Error::new(Kind::ConnectionFailed, "the client has no target")),
    };
    let started = start_threads(&works, destination);
    if started.is_err() {
        works.abandon();
        works.lane.queue.sender_ended();
    }
    started.map_err(starting)?;
    Ok(works)
}

fn start_threads(works: &Arc<Works>, destination: Destination) -> std::io::Result<()> {
    let theirs = works.clone();
    let sender = std::thread::Builder::new().name("influxdb-send".into());
    sender.spawn(move || {
        // However this thread ends, nobody waits for it in vain.
        let _ends = EndsSender(&theirs.lane);
        let want = destination.want(&theirs.config);
        Sender { lane: &theirs.lane, notifier: &theirs.notifier, destination, want }.carry();
    })?;
    let theirs = works.clone();
    let notifier = std::thread::Builder::new().name("influxdb-errors".into());
    notifier.spawn(move || theirs.notifier.run())?;
    Ok(())
}

struct EndsSender<'a>(&'a Lane);

impl Drop for EndsSender<'_> {
    fn drop(&mut self) {
        self.0.queue.sender_ended();
    }
}

/// A queue whose lane is on a disk.
fn spooled(config: &Config, folder: &Path, notifier: &Arc<Notifier>) -> Result<Queue, Error> {
    let settings = config.spool();
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
    let disk = Arc::new(RealDisk);
    let mut spool = match Spool::open(disk.clone(), folder) {
        Ok(spool) => Some(spool),
        Err(error) if error.is_locked() => {
            return Err(Error::because(Kind::ConnectionFailed, "open the spool", error));
        }
        // Tried again by the queue, which goes on from memory until then.
        Err(_) => None,
    };
    let (folder, name) = (folder.to_owned(), config.bucket().to_owned());
    let open = move || {
        let opened = match spool.take() {
            Some(opened) => opened,
            None => Spool::open(disk.clone(), &folder)?,
        };
        let lane = opened.lane(&name, lane_options.clone());
        spool = Some(opened);
        lane
    };
    start_queue(config, options, open, notifier)
        .map_err(|e| Error::because(Kind::ConnectionFailed, "start the client's threads", e))
}

/// A queue whose lane is in memory: for the embedded store, whose log makes lines durable, and without a spool.
fn in_memory(config: &Config, embedded: bool, notifier: &Arc<Notifier>) -> std::io::Result<Queue> {
    let durable_by = if embedded { DurableBy::Target } else { DurableBy::Lane };
    let options = QueueOptions::default()
        .durable_by(durable_by)
        .memory_bytes_max(MEMORY_OPEN_BYTES)
        .retry(std::time::Duration::from_millis(100))
        .keep_dead(false);
    let disk = Arc::new(MemoryDisk::new(2 * MEMORY_LANE_BYTES));
    let lane_options = LaneOptions::default()
        .segment_bytes(MEMORY_SEGMENT_BYTES)
        .compression(false)
        .bytes_max(MEMORY_LANE_BYTES)
        .keep_free(0)
        .when_full(WhenFull::DropNewest);
    let name = config.bucket().to_owned();
    let open = move || Spool::open(disk.clone(), Path::new("/"))?.lane(&name, lane_options.clone());
    start_queue(config, options, open, notifier)
}

fn start_queue(
    config: &Config,
    options: QueueOptions,
    open: impl FnMut() -> Result<(graylogic_durable::Lane, LaneRecovery), graylogic_durable::Error>
    + Send
    + 'static,
    notifier: &Arc<Notifier>,
) -> std::io::Result<Queue> {
    let (bucket, notifier) = (config.bucket().to_owned(), notifier.clone());
    Queue::start("influxdb", options, open, move |news| told(&bucket, &notifier, news))
}

/// Passes on what a queue has to say.
fn told(bucket: &str, notifier: &Notifier, news: News) {
    let tell = |kind, lines, reason: String| {
        notifier.add(WriteError { kind, bucket: bucket.to_owned(), lines, reason, first: Vec::new() });
    };
    match news {
        News::Opened(recovery) => {
            // The lines it cost are told when the sender comes to where they were.
            for damage in &recovery.damage {
                tracing::error!(bucket, %damage, "the spool was damaged");
            }
            if let Some(cursor) = recovery.cursor {
                tracing::error!(bucket, cursor, "the spool's cursor was not as it was left");
            }
            if recovery.waiting > 0 {
                tracing::info!(
                    bucket,
                    lines = recovery.waiting,
                    "the spool holds readings of an earlier run"
                );
            }
        }
        News::Degraded(reason) => {
            tracing::error!(bucket, reason, "the spool does not take readings: they are kept in memory");
            tell(WriteErrorKind::Degraded, 0, reason);
        }
        News::Recovered => tracing::info!(bucket, "the spool takes readings again"),
        News::Dropped(dropped) => {
            tracing::error!(bucket, %dropped, "the spool was full");
            tell(WriteErrorKind::Dropped, dropped.count, dropped.to_string());
        }
        News::NearlyFull(level) => tracing::warn!(bucket, %level, "the spool is nearly full"),
        _ => {}
    }
}
