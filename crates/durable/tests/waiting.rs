//! Queues whose disk is slow, fails once, comes late or goes away: nobody waits who need not, nobody sleeps over what came,
//! and the lane goes on.
#![allow(clippy::unwrap_used, missing_docs)]

use graylogic_durable::{
    Call, DirEntry, Disk, DiskFile, DiskLock, DurableBy, Fault, IO_ERROR, Lane, LaneOptions, Level, Lines,
    MemoryDisk, News, Next, OpenMode, Outbox, Queue, QueueOptions, RealDisk, SimDisk, Space, Spool,
    SyncPolicy, Taken, Want, Work,
};
use std::convert::Infallible;
use std::io;
use std::path::Path;
use std::sync::mpsc::channel;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(20);

fn queue(disk: Arc<dyn Disk>, options: QueueOptions, lane: LaneOptions) -> Queue {
    let open = move || Spool::open(disk.clone(), Path::new("/s"))?.lane("energy", lane.clone());
    Queue::start("test", options, open, |_| {}).unwrap()
}

fn line(i: u64) -> Vec<u8> {
    format!("power,device=d{} value={}.5 {i}\n", i % 50, i % 1000).into_bytes()
}

fn accept(queue: &Queue, i: u64) {
    let put = |out: &mut Vec<u8>| {
        out.extend_from_slice(&line(i));
        Ok::<(), Infallible>(())
    };
    queue.accept(put).unwrap();
}

fn want(lines_max: usize) -> Want {
    Want { lines_max, bytes_max: 1 << 20, interval: Duration::from_millis(20) }
}

fn batch(queue: &Queue, outbox: &mut Outbox) -> Taken {
    match queue.next(outbox, &want(100)) {
        Work::Batch(taken) => taken,
        other => panic!("{other:?}"),
    }
}

/// A sender that delivers everything, as a thread; returns how many lines that were.
fn sender(queue: &Queue) -> std::thread::JoinHandle<usize> {
    let queue = queue.clone();
    std::thread::spawn(move || {
        let (mut outbox, mut delivered) = (Outbox::default(), 0);
        loop {
            match queue.next(&mut outbox, &want(100)) {
                Work::Batch(taken) => {
                    delivered += taken.batch.len();
                    queue.settle(&mut outbox, &taken, &[]).unwrap();
                }
                Work::SyncTarget(lines) => queue.made_durable(lines),
                // Counted by the queue.
                Work::Lost(_) => {}
                _ => break,
            }
        }
        queue.sender_ended();
        delivered
    })
}

fn comes(mut what: impl FnMut() -> bool) -> bool {
    let until = Instant::now() + SOON;
    while !what() && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(1));
    }
    what()
}

/// A disk whose syncs and writes wait while a gate is shut, as those of a dying card do, and that cannot read a place in any
/// of its files.
#[derive(Clone, Debug)]
struct Slow {
    disk: SimDisk,
    gate: Arc<(Mutex<Gate>, Condvar)>,
}

#[derive(Debug, Default)]
struct Gate {
    shut: bool,
    waiting: usize,
    bad: std::ops::Range<u64>,
    /// Writes do not wait, and folders are synced like files.
    syncs_only: bool,
}

impl Slow {
    fn new_syncs_only() -> Self {
        let gate = Gate { syncs_only: true, ..Gate::default() };
        Self { disk: SimDisk::new(), gate: Arc::new((Mutex::new(gate), Condvar::new())) }
    }

    fn syncs_only(&self) -> bool {
        self.gate.0.lock().unwrap().syncs_only
    }

    fn somebody_waits(&self) {
        let gate = self.gate.0.lock().unwrap();
        let waited = self.gate.1.wait_timeout_while(gate, SOON, |g| g.waiting == 0).unwrap();
        assert!(!waited.1.timed_out());
    }

    fn shut(&self, yes: bool) {
        self.gate.0.lock().unwrap().shut = yes;
        self.gate.1.notify_all();
    }

    fn pass(&self) {
        let mut gate = self.gate.0.lock().unwrap();
        gate.waiting += 1;
        self.gate.1.notify_all();
        gate = self.gate.1.wait_while(gate, |g| g.shut).unwrap();
        gate.waiting -= 1;
    }
}

#[derive(Debug)]
struct SlowFile(Slow, Arc<dyn DiskFile>);

impl DiskFile for SlowFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let bad = self.0.gate.0.lock().unwrap().bad.clone();
        if offset < bad.end && bad.start < offset + buffer.len() as u64 {
            return Err(io::Error::from_raw_os_error(IO_ERROR));
        }
        self.1.read_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        if !self.0.syncs_only() {
            self.0.pass();
        }
        self.1.write_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.pass();
        self.1.sync()
    }

    fn truncate(&self, bytes: u64) -> io::Result<()> {
        self.1.truncate(bytes)
    }

    fn bytes(&self) -> io::Result<u64> {
        self.1.bytes()
    }
}

impl Disk for Slow {
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.disk.create_dir_all(path)
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<DirEntry>> {
        self.disk.list(directory)
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(SlowFile(self.clone(), self.disk.open(path, mode)?)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.disk.remove(path)
    }

    fn sync_dir(&self, directory: &Path) -> io::Result<()> {
        if self.syncs_only() {
            self.pass();
        }
        self.disk.sync_dir(directory)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn DiskLock>> {
        Disk::lock(&self.disk, path)
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        self.disk.space(path)
    }
}

#[test]
fn a_segment_whose_sync_takes_long_holds_up_no_caller() {
    let disk = Slow { disk: SimDisk::new(), gate: Arc::default() };
    let options = QueueOptions::default().sync(SyncPolicy::Every(Duration::from_secs(3600)));
    let lane = LaneOptions::default().segment_bytes(100).compression(false).keep_free(0);
    let queue = queue(Arc::new(disk.clone()), options, lane);
    (0..10).for_each(|i| accept(&queue, i));
    let mut outbox = Outbox::default();
    let taken = batch(&queue, &mut outbox);
    // The next append begins a segment, and waits for its sync.
    disk.shut(true);
    accept(&queue, 10);
    assert!(comes(|| disk.gate.0.lock().unwrap().waiting > 0));
    let (settled, told) = channel();
    let theirs = queue.clone();
    std::thread::spawn(move || {
        theirs.settle(&mut outbox, &taken, &[]).unwrap();
        settled.send(()).unwrap();
    });
    let sender_waited = told.recv_timeout(Duration::from_secs(2)).is_err();
    let (accepted, told) = channel();
    let theirs = queue.clone();
    std::thread::spawn(move || {
        accept(&theirs, 11);
        accepted.send(()).unwrap();
    });
    let caller_waited = told.recv_timeout(Duration::from_secs(2)).is_err();
    disk.shut(false);
    assert!(!caller_waited, "a caller waited for the disk");
    assert!(!sender_waited, "and so did the sender, who held the lock");
    queue.sender_ended();
    queue.close();
    assert!(queue.wait_ended(Instant::now() + SOON));
}

#[test]
fn lines_are_spooled_in_time_while_a_failed_sync_waits_to_be_tried_again() {
    let disk = SimDisk::new();
    let options = QueueOptions::default().sync(SyncPolicy::EachAppend).retry(Duration::from_secs(3600));
    let (degraded, told) = channel();
    let their_disk: Arc<dyn Disk> = Arc::new(disk.clone());
    let lane = LaneOptions::default().keep_free(0);
    let open = move || Spool::open(their_disk.clone(), Path::new("/s"))?.lane("energy", lane.clone());
    let tell = move |news: News| {
        if let News::Degraded(why) = news {
            degraded.send(why).unwrap();
        }
    };
    let queue = Queue::start("test", options, open, tell).unwrap();
    accept(&queue, 0);
    assert_eq!(queue.wait(Level::Durable, Instant::now() + SOON), 0);
    disk.fail(Fault { call: Some(Call::Sync), after: 0, times: 1, errno: IO_ERROR });
    accept(&queue, 1);
    told.recv_timeout(SOON).unwrap();
    for i in 2..10 {
        accept(&queue, i);
        // Nobody asks for it.
        assert!(comes(|| queue.stats().spooled > i), "line {i} waits in memory: {:?}", queue.stats());
    }
    queue.sender_ended();
    queue.close();
    assert!(queue.wait_ended(Instant::now() + SOON));
}

#[test]
fn who_asks_for_a_level_while_the_sender_looks_around_is_heard() {
    let options = QueueOptions::default().durable_by(DurableBy::Target);
    let lane = LaneOptions::default().segment_bytes(64 << 10).compression(false).keep_free(0);
    let queue = queue(Arc::new(MemoryDisk::new(16 << 20)), options, lane);
    let carried = sender(&queue);
    for i in 0..20_000 {
        accept(&queue, i);
        queue.hurry(Level::Spooled);
        while queue.stats().delivered <= i {
            std::hint::spin_loop();
        }
        // The sender has just settled it and looks for more.
        let left = queue.wait(Level::Durable, Instant::now() + Duration::from_secs(5));
        assert_eq!(left, 0, "after {i} lines: {:?}", queue.stats());
    }
    queue.close();
    assert!(queue.wait_ended(Instant::now() + SOON));
    assert_eq!(carried.join().unwrap(), 20_000);
}

#[test]
fn what_waits_from_an_earlier_life_goes_out_when_the_folder_can_be_opened_though_no_line_comes() {
    let disk = SimDisk::new();
    let lane = Spool::open(Arc::new(disk.clone()), Path::new("/s"))
        .unwrap()
        .lane("energy", LaneOptions::default())
        .unwrap()
        .0;
    let mut lines = Lines::default();
    (0..50).for_each(|i| lines.push(&line(i)));
    lane.append(&lines).unwrap();
    lane.sync().unwrap();
    drop(lane);
    disk.fail(Fault { call: None, after: 0, times: u64::MAX, errno: IO_ERROR });
    let options = QueueOptions::default().retry(Duration::from_millis(30));
    let queue = queue(Arc::new(disk.clone()), options, LaneOptions::default());
    let carried = sender(&queue);
    assert!(queue.stats().degraded.is_some());
    disk.heal();
    assert!(comes(|| queue.stats().delivered == 50), "{:?}", queue.stats());
    assert!(comes(|| queue.stats().degraded.is_none()), "{:?}", queue.stats());
    queue.close();
    assert!(queue.wait_ended(Instant::now() + SOON));
    assert_eq!(carried.join().unwrap(), 50);
}

#[test]
fn a_write_that_stands_still_holds_up_nobody_who_asks_or_closes() {
    let disk = Slow { disk: SimDisk::new(), gate: Arc::default() };
    let queue = queue(Arc::new(disk.clone()), QueueOptions::default(), LaneOptions::default().keep_free(0));
    accept(&queue, 1);
    assert_eq!(queue.wait(Level::Durable, Instant::now() + Duration::from_secs(10)), 0);
    assert_eq!(queue.stats().lane.unwrap().waiting, 1);
    disk.shut(true);
    accept(&queue, 2);
    assert!(comes(|| disk.gate.0.lock().unwrap().waiting > 0));
    let began = Instant::now();
    accept(&queue, 3);
    let stats = queue.stats();
    assert_eq!((stats.accepted, stats.waiting, stats.in_memory), (3, 3, 2));
    assert_eq!(stats.lane.unwrap().waiting, 1, "what the lane said last is told");
    assert_eq!(queue.wait(Level::Spooled, Instant::now() + Duration::from_millis(50)), 2);
    queue.close();
    queue.abandon();
    queue.sender_ended();
    assert!(!queue.wait_ended(Instant::now() + Duration::from_millis(50)));
    assert_eq!(queue.stats().accepted, 3);
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    disk.shut(false);
    assert!(queue.wait_ended(Instant::now() + Duration::from_secs(10)));
}

fn conserved(queue: &Queue) {
    let stats = queue.stats();
    let gone = stats.delivered + stats.rejected + stats.dropped + stats.damaged;
    assert_eq!(stats.accepted + stats.recovered, gone + stats.waiting, "{stats:?}");
}

#[test]
fn a_segment_that_somebody_took_away_is_counted_as_damage_and_the_lane_goes_on() {
    let disk = SimDisk::new();
    let lane = LaneOptions::default().segment_bytes(1000).compression(false).keep_free(0);
    let queue = queue(Arc::new(disk.clone()), QueueOptions::default(), lane);
    for i in 0..100 {
        accept(&queue, i);
        if i % 10 == 9 {
            assert_eq!(queue.wait(Level::Durable, Instant::now() + SOON), 0);
        }
    }
    let mut segments: Vec<_> =
        disk.files().into_iter().filter(|p| p.extension().is_some_and(|e| e == "seg")).collect();
    segments.sort();
    assert!(segments.len() >= 4, "{segments:?}");
    Disk::remove(&disk, &segments[1]).unwrap();
    let carried = sender(&queue);
    assert!(comes(|| queue.stats().waiting == 0), "{:?}", queue.stats());
    accept(&queue, 100);
    assert_eq!(queue.wait(Level::Delivered, Instant::now() + SOON), 0);
    conserved(&queue);
    let stats = queue.stats();
    assert!(stats.damaged > 0 && stats.damaged < 50, "{stats:?}");
    queue.close();
    assert!(queue.wait_ended(Instant::now() + SOON));
    assert_eq!(carried.join().unwrap() as u64, stats.delivered);
}

#[test]
fn a_folder_that_somebody_took_away_is_made_again_and_the_lane_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let spool = folder.path().join("spool");
    let lane = LaneOptions::default().segment_bytes(1000).compression(false).keep_free(0);
    let theirs = spool.clone();
    let open = move || Spool::open(Arc::new(RealDisk), &theirs)?.lane("energy", lane.clone());
    let options = QueueOptions::default().retry(Duration::from_millis(30));
    let queue = Queue::start("test", options, open, |_| {}).unwrap();
    for i in 0..100 {
        accept(&queue, i);
        if i % 10 == 9 {
            assert_eq!(queue.wait(Level::Durable, Instant::now() + SOON), 0);
        }
    }
    std::fs::remove_dir_all(&spool).unwrap();
    let carried = sender(&queue);
    for i in 100..200 {
        accept(&queue, i);
        std::thread::sleep(Duration::from_millis(2));
    }
    assert_eq!(queue.wait(Level::Delivered, Instant::now() + SOON), 0, "{:?}", queue.stats());
    assert_eq!(queue.wait(Level::Durable, Instant::now() + SOON), 0, "{:?}", queue.stats());
    accept(&queue, 200);
    assert!(comes(|| queue.stats().degraded.is_none()), "{:?}", queue.stats());
    conserved(&queue);
    let stats = queue.stats();
    assert!(stats.damaged <= 100 && stats.delivered >= 100, "what came later is there: {stats:?}");
    queue.close();
    assert!(queue.wait_ended(Instant::now() + SOON));
    let stats = queue.stats();
    assert_eq!(carried.join().unwrap() as u64, stats.delivered);
    assert!(spool.join("energy").is_dir());
}

#[test]
fn a_last_segment_that_somebody_took_away_is_told_once_and_what_comes_after_it_is_read() {
    let disk = SimDisk::new();
    let lane = || {
        let spool = Spool::open(Arc::new(disk.clone()), Path::new("/s")).unwrap();
        spool.lane("energy", LaneOptions::default().keep_free(0)).unwrap().0
    };
    let lines = |numbers: std::ops::Range<u64>| {
        let mut lines = Lines::default();
        numbers.for_each(|i| lines.push(&line(i)));
        lines
    };
    lane().append(&lines(0..10)).unwrap();
    let lane = lane();
    disk.files().iter().filter(|p| p.ends_with("0000000000000001.seg")).for_each(|p| {
        Disk::remove(&disk, p).unwrap();
    });
    let mut reader = lane.reader(1);
    let Next::Lost(damage) = reader.next(100, 1 << 20).unwrap() else { panic!() };
    assert_eq!(damage.lost, 1..11);
    assert!(matches!(reader.next(100, 1 << 20).unwrap(), Next::End));
    assert_eq!(lane.append(&lines(10..20)).unwrap().first, 11);
    let Next::Lines(batch) = reader.next(100, 1 << 20).unwrap() else { panic!() };
    assert_eq!((batch.first, batch.len(), batch.line(0)), (11, 10, &line(10)[..]));
}

#[test]
fn damage_around_the_place_where_live_lines_began_is_counted_once() {
    let disk = SimDisk::new();
    let lane = LaneOptions::default().compression(false).keep_free(0);
    let options = QueueOptions::default().backlog_age(Duration::ZERO);
    let queue = queue(Arc::new(disk.clone()), options, lane);
    let put = |numbers: std::ops::Range<u64>| {
        numbers.for_each(|i| accept(&queue, i));
        assert_eq!(queue.wait(Level::Durable, Instant::now() + SOON), 0);
    };
    (0..20).for_each(|k| put(k * 1000..(k + 1) * 1000));
    let want = want(1000);
    let mut outbox = Outbox::default();
    let mut next = || match queue.next(&mut outbox, &want) {
        Work::Batch(taken) => {
            queue.settle(&mut outbox, &taken, &[]).unwrap();
            queue.live_first(&mut outbox, &want);
            taken.batch.first
        }
        _ => 0,
    };
    assert_eq!(next(), 1);
    put(20_000..21_000);
    while next() != 20_001 {}
    // The frames before and after that place are damaged now; the live lines were delivered before.
    let path = disk.files().into_iter().find(|p| p.extension().is_some_and(|e| e == "seg")).unwrap();
    let (bytes, file) = (disk.bytes(&path).unwrap(), disk.open(&path, OpenMode::ReadWrite).unwrap());
    for i in [19_999, 20_000] {
        let at = bytes.windows(line(i).len()).position(|w| w == line(i)).unwrap();
        file.write_at(&[bytes[at] ^ 1], at as u64).unwrap();
    }
    while queue.stats().waiting > 0 {
        next();
        conserved(&queue);
    }
    let stats = queue.stats();
    assert_eq!((stats.delivered + stats.damaged, stats.waiting), (21_000, 0), "{stats:?}");
    assert!(stats.damaged > 0, "{stats:?}");
    queue.sender_ended();
    queue.close();
    assert!(queue.wait_ended(Instant::now() + SOON));
}

#[test]
fn a_file_whose_name_is_the_largest_number_does_not_end_the_lane() {
    for content in [vec![7; 100], vec![7; 10], Vec::new()] {
        let disk = SimDisk::new();
        let lane = || {
            let spool = Spool::open(Arc::new(disk.clone()), Path::new("/s")).unwrap();
            spool.lane("energy", LaneOptions::default().segment_bytes(200).keep_free(0)).unwrap()
        };
        let append = |lane: &Lane, numbers: std::ops::Range<u64>| {
            for i in numbers {
                let mut lines = Lines::default();
                lines.push(&line(i));
                lane.append(&lines).unwrap();
            }
        };
        append(&lane().0, 0..10);
        disk.set_bytes(Path::new("/s/energy/ffffffffffffffff.seg"), content);
        for round in 1..4 {
            let (lane, recovery) = lane();
            assert_eq!(recovery.waiting, round * 10, "{recovery:?}");
            append(&lane, round * 10..round * 10 + 10);
            let mut reader = lane.reader(1);
            for i in 0..round * 10 + 10 {
                let Next::Lines(batch) = reader.next(1, 1 << 20).unwrap() else { panic!("line {i}") };
                assert_eq!(batch.line(0), line(i));
            }
            lane.sync().unwrap();
        }
    }
}

#[test]
fn a_place_that_cannot_be_read_costs_its_lines_and_the_lane_goes_on() {
    for bad in [100_000..100_512, 0..512, 300_000..380_000, 680_000..700_000] {
        let disk = Slow { disk: SimDisk::new(), gate: Arc::default() };
        let lane = LaneOptions::default().compression(false).keep_free(0);
        let options = QueueOptions::default().retry(Duration::from_millis(5));
        let queue = queue(Arc::new(disk.clone()), options, lane);
        for k in 0..100 {
            (k * 200..(k + 1) * 200).for_each(|i| accept(&queue, i));
            assert_eq!(queue.wait(Level::Durable, Instant::now() + SOON), 0);
        }
        disk.gate.0.lock().unwrap().bad = bad.clone();
        let carried = sender(&queue);
        assert!(comes(|| queue.stats().waiting == 0), "{bad:?}: {:?}", queue.stats());
        accept(&queue, 20_000);
        assert_eq!(queue.wait(Level::Delivered, Instant::now() + SOON), 0);
        conserved(&queue);
        let stats = queue.stats();
        let most = (bad.end - bad.start + 2 * 8192) / 30 + 400;
        assert!(stats.damaged <= most && (stats.damaged > 0 || bad.start == 0), "{bad:?}: {stats:?}");
        queue.close();
        assert!(queue.wait_ended(Instant::now() + SOON));
        assert_eq!(carried.join().unwrap() as u64, stats.delivered);
    }
}

#[test]
fn a_disk_that_reads_nothing_at_all_is_waited_for() {
    let disk = Slow { disk: SimDisk::new(), gate: Arc::default() };
    let options = QueueOptions::default().retry(Duration::from_millis(2));
    let queue = queue(Arc::new(disk.clone()), options, LaneOptions::default().keep_free(0));
    (0..1000).for_each(|i| accept(&queue, i));
    assert_eq!(queue.wait(Level::Durable, Instant::now() + SOON), 0);
    disk.gate.0.lock().unwrap().bad = 0..u64::MAX;
    let carried = sender(&queue);
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!((queue.stats().waiting, queue.stats().damaged), (1000, 0));
    disk.gate.0.lock().unwrap().bad = 0..0;
    assert_eq!(queue.wait(Level::Delivered, Instant::now() + SOON), 0);
    queue.close();
    assert!(queue.wait_ended(Instant::now() + SOON));
    assert_eq!(carried.join().unwrap(), 1000);
}

#[test]
fn a_lane_whose_last_segment_cannot_be_read_everywhere_opens_and_goes_on() {
    // Its header, its middle, and its end.
    for bad in [0..512, 20_000..20_512, 28_000..40_000] {
        let disk = Slow { disk: SimDisk::new(), gate: Arc::default() };
        let lane = || {
            let spool = Spool::open(Arc::new(disk.clone()), Path::new("/s")).unwrap();
            spool.lane("energy", LaneOptions::default().compression(false).keep_free(0)).unwrap()
        };
        let first = lane().0;
        for k in 0..10 {
            let mut lines = Lines::default();
            (k * 100..(k + 1) * 100).for_each(|i| lines.push(&line(i)));
            first.append(&lines).unwrap();
        }
        first.sync().unwrap();
        drop(first);
        let path = disk.disk.files().into_iter().find(|p| p.extension().is_some_and(|e| e == "seg")).unwrap();
        let before = disk.disk.bytes(&path);
        disk.gate.0.lock().unwrap().bad = bad.clone();
        let (lane, recovery) = lane();
        disk.gate.0.lock().unwrap().bad = 0..0;
        assert!(recovery.waiting >= 700 && recovery.waiting <= 1000, "{bad:?}: {recovery:?}");
        assert!(bad.start == 20_000 || !recovery.damage.is_empty(), "{bad:?}: {recovery:?}");
        assert_eq!(disk.disk.bytes(&path), before, "what cannot be read is not cut");
        let mut lines = Lines::default();
        lines.push(&line(1));
        let appended = lane.append(&lines).unwrap();
        lane.sync().unwrap();
        let (mut reader, mut read) = (lane.reader(1), 0);
        loop {
            match reader.next(1000, 1 << 20).unwrap() {
                Next::Lines(batch) => read += batch.len() as u64,
                Next::Lost(_) => {}
                _ => break,
            }
        }
        assert_eq!((reader.position(), read), (appended.first + 1, appended.first), "{bad:?}");
    }
}

/// The lines in segments of the lane, as another process sees them in the files at this moment.
fn seen_by_others(disk: &SimDisk) -> u64 {
    let copy: Arc<dyn Disk> = Arc::new(disk.after_kill());
    let spool = Spool::open(copy, Path::new("/s")).unwrap();
    spool.lane("energy", LaneOptions::default()).unwrap().0.stats().next - 1
}

#[test]
fn lines_are_with_the_operating_system_while_syncs_stand_still() {
    let slow = Slow::new_syncs_only();
    let lane = LaneOptions::default().segment_bytes(2000).compression(false).keep_free(0).bytes_max(60_000);
    let options = QueueOptions::default().sync(SyncPolicy::EachAppend);
    let queue = queue(Arc::new(slow.clone()), options, lane);
    // A first line begins a segment; the next one is made ahead.
    accept(&queue, 0);
    assert!(comes(|| queue.stats().durable == 1));
    slow.shut(true);
    // Rolls, a full lane that drops its oldest lines, and everything a sender settles: nothing of it is synced.
    let mut outbox = Outbox::default();
    for i in 1..4000 {
        accept(&queue, i);
        if i % 100 == 0 {
            assert!(comes(|| queue.stats().spooled > i), "line {i}: {:?}", queue.stats());
            assert_eq!(seen_by_others(&slow.disk), i + 1, "line {i} is in a file");
        }
        if i == 1000 {
            let taken = batch(&queue, &mut outbox);
            queue.settle(&mut outbox, &taken, &[]).unwrap();
        }
    }
    let stats = queue.stats();
    assert!(stats.dropped > 0 && stats.durable == 1, "{stats:?}");
    slow.shut(false);
    assert_eq!(queue.wait(Level::Durable, Instant::now() + SOON), 0);
    queue.sender_ended();
    queue.abandon();
    assert!(queue.wait_ended(Instant::now() + SOON));
}

#[test]
fn dead_letters_and_the_cursor_of_a_disk_that_hangs_hold_up_no_line() {
    let slow = Slow::new_syncs_only();
    let lane = LaneOptions::default().compression(false).keep_free(0);
    let queue = queue(Arc::new(slow.clone()), QueueOptions::default(), lane);
    (0..100).for_each(|i| accept(&queue, i));
    assert_eq!(queue.wait(Level::Durable, Instant::now() + SOON), 0);
    slow.shut(true);
    let theirs = queue.clone();
    let parking = std::thread::spawn(move || {
        let mut outbox = Outbox::default();
        let taken = batch(&theirs, &mut outbox);
        theirs.settle(&mut outbox, &taken, &[(3, "no".to_owned())]).unwrap();
        theirs.sender_ended();
    });
    // The letter waits for its sync.
    slow.somebody_waits();
    for i in 100..1000 {
        accept(&queue, i);
    }
    assert!(comes(|| queue.stats().spooled == 1000), "{:?}", queue.stats());
    assert_eq!(seen_by_others(&slow.disk), 1000);
    slow.shut(false);
    parking.join().unwrap();
    queue.abandon();
    assert!(queue.wait_ended(Instant::now() + SOON));
}

#[test]
fn lines_appended_while_a_failed_sync_is_written_again_are_taken_over() {
    let slow = Slow::new_syncs_only();
    let lane = LaneOptions::default().segment_bytes(4000).compression(false).keep_free(0);
    let options = QueueOptions::default().sync(SyncPolicy::EachAppend).retry(Duration::from_millis(1));
    let queue = queue(Arc::new(slow.clone()), options, lane);
    (0..50).for_each(|i| accept(&queue, i));
    assert_eq!(queue.wait(Level::Durable, Instant::now() + SOON), 0);
    slow.disk.fail(Fault { call: Some(Call::Sync), after: 0, times: 1, errno: IO_ERROR });
    (50..100).for_each(|i| accept(&queue, i));
    assert!(comes(|| queue.stats().spooled == 100));
    slow.shut(true);
    (100..300).for_each(|i| accept(&queue, i));
    assert!(comes(|| queue.stats().spooled == 300), "{:?}", queue.stats());
    assert_eq!(seen_by_others(&slow.disk), 300);
    slow.shut(false);
    assert_eq!(queue.wait(Level::Durable, Instant::now() + SOON), 0);
    let cut = slow.disk.after_power_cut(7);
    let spool = Spool::open(Arc::new(cut), Path::new("/s")).unwrap();
    let (lane, found) = spool.lane("energy", LaneOptions::default()).unwrap();
    let mut reader = lane.reader(1);
    let mut lines = Vec::new();
    while let Next::Lines(batch) = reader.next(1000, 1 << 20).unwrap() {
        lines.extend((0..batch.len()).map(|i| batch.line(i).to_vec()));
    }
    assert!(lines == (0..300).map(line).collect::<Vec<_>>(), "{} lines, {found:?}", lines.len());
    queue.sender_ended();
    queue.abandon();
    assert!(queue.wait_ended(Instant::now() + SOON));
}
