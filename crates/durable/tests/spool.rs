//! Lanes and queues as their callers meet them.
#![allow(clippy::unwrap_used, missing_docs)]

use graylogic_durable::{
    Call, DeadLine, DirEntry, Disk, DiskFile, DiskLock, DurableBy, Fault, IO_ERROR, Lane, LaneOptions,
    LaneRecovery, Level, Lines, MemoryDisk, NO_SPACE, News, Next, OpenMode, Outbox, Queue, QueueOptions,
    QueueStats, RealDisk, SimDisk, Space, Spool, SyncPolicy, Want, WhenFull, Work,
};
use std::convert::Infallible;
use std::io;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(20);

fn open(disk: &Arc<dyn Disk>, folder: &Path, options: LaneOptions) -> (Lane, LaneRecovery) {
    Spool::open(disk.clone(), folder).unwrap().lane("energy", options).unwrap()
}

fn line(i: u64) -> Vec<u8> {
    match i % 7 {
        // A string with line feeds in it is one line.
        0 => format!("log,device=d{} text=\"one\ntwo\n{i}\" {i}\n", i % 50).into_bytes(),
        _ => format!("power,device=d{} value={}.5 {i}\n", i % 50, i % 1000).into_bytes(),
    }
}

fn lines(numbers: std::ops::Range<u64>) -> Lines {
    let mut lines = Lines::default();
    numbers.for_each(|i| lines.push(&line(i)));
    lines
}

/// Everything a lane gives from a number on, checked to be what was appended.
fn read(lane: &Lane, from: u64, lines_max: usize, bytes_max: usize) -> u64 {
    let mut reader = lane.reader(from);
    let mut position = from;
    loop {
        match reader.next(lines_max, bytes_max).unwrap() {
            Next::Lines(batch) => {
                assert_eq!(batch.first, position);
                assert!(!batch.is_empty() && batch.len() <= lines_max);
                assert!(batch.bytes.len() <= bytes_max || batch.len() == 1);
                for i in 0..batch.len() {
                    assert_eq!(batch.line(i), line(position + i as u64));
                }
                position += batch.len() as u64;
            }
            Next::End => return position,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn lines_come_back_in_pieces_of_any_size_on_any_disk() {
    let folder = tempfile::tempdir().unwrap();
    let disks: [(Arc<dyn Disk>, &Path); 3] = [
        (Arc::new(RealDisk), folder.path()),
        (Arc::new(SimDisk::new()), Path::new("/spool")),
        (Arc::new(MemoryDisk::new(64 << 20)), Path::new("/spool")),
    ];
    for (disk, folder) in disks {
        for compression in [true, false] {
            let options = LaneOptions::default().segment_bytes(100_000).keep_free(0).compression(compression);
            let (lane, recovery) = open(&disk, folder, options.clone());
            let first = lane.next_number();
            assert_eq!(recovery.damage, []);
            let mut next = first;
            for n in [1, 2, 100, 5000, 1, 30_000] {
                assert_eq!(lane.append(&lines(next..next + n)).unwrap().first, next);
                next += n;
            }
            for (lines_max, bytes_max) in [(1, 1), (7, 10_000), (1000, 1 << 20), (usize::MAX, usize::MAX)] {
                let from = if lines_max == 1 { next - 500 } else { first + 3 };
                assert_eq!(read(&lane, from, lines_max, bytes_max), next);
            }
            lane.sync().unwrap();
            drop(lane);
            let (lane, recovery) = open(&disk, folder, options);
            assert_eq!(recovery.waiting, next - 1, "nothing was acknowledged");
            assert_eq!(read(&lane, 1, 1000, 1 << 20), next);
        }
    }
}

#[test]
fn the_cursor_goes_on_where_it_was_saved_and_frees_room() {
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new());
    let options = LaneOptions::default().segment_bytes(50_000).compression(false);
    let (lane, _) = open(&disk, Path::new("/s"), options.clone());
    lane.append(&lines(1..10_001)).unwrap();
    let full = lane.stats();
    assert_eq!((full.accepted, full.waiting, full.delivered), (10_000, 10_000, 0));
    lane.acknowledge(9_001);
    lane.park(&[DeadLine { number: 9_000, time: 7, reason: "no such field", line: &line(9_000) }]).unwrap();
    lane.save_cursor().unwrap();
    let stats = lane.stats();
    assert_eq!((stats.waiting, stats.delivered, stats.dead), (1000, 8_999, 1));
    assert!(stats.bytes * 3 < full.bytes, "{} of {} bytes", stats.bytes, full.bytes);
    drop(lane);
    let (lane, recovery) = open(&disk, Path::new("/s"), options.clone());
    assert_eq!((recovery.waiting, recovery.cursor), (1000, None));
    let (before, now) = (&stats, lane.stats());
    assert_eq!((now.accepted, now.delivered, now.dead), (before.accepted, before.delivered, before.dead));
    assert_eq!(read(&lane, lane.acknowledged(), 100, 1 << 20), 10_001);
    let dead = lane.dead().unwrap();
    assert_eq!(
        (dead[0].number, dead[0].reason.as_str(), &dead[0].line),
        (9_000, "no such field", &line(9_000))
    );
    lane.forget_dead(dead[0].letter + 1).unwrap();
    assert_eq!(lane.dead().unwrap(), []);
    lane.acknowledge(u64::MAX);
    lane.save_cursor().unwrap();
    drop(lane);
    let (lane, recovery) = open(&disk, Path::new("/s"), options);
    assert_eq!((recovery.waiting, lane.next_number()), (0, 10_001));
    assert_eq!(lane.append(&lines(10_001..10_002)).unwrap().first, 10_001, "numbers are not given twice");
}

#[test]
fn a_full_lane_drops_its_oldest_lines_or_refuses_new_ones() {
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new());
    let options = LaneOptions::default().segment_bytes(20_000).compression(false).bytes_max(100_000);
    let (lane, _) = open(&disk, Path::new("/a"), options.clone());
    let (mut next, mut dropped) = (1, 0);
    for _ in 0..100 {
        if let Some(d) = lane.append(&lines(next..next + 100)).unwrap().dropped {
            assert_eq!(d.numbers.start, dropped + 1, "the oldest");
            dropped += d.count;
            assert_eq!(d.numbers.end, dropped + 1);
            let named: std::collections::BTreeSet<&str> = d.measurements.iter().map(String::as_str).collect();
            assert!(named == ["log", "power"].into() && d.measurements.len() == 2, "{named:?}");
            assert!(d.since <= d.until && d.since > 1_600_000_000_000_000_000, "{d:?}");
            assert!(d.to_string().contains("log") && d.to_string().contains(", were dropped: "), "{d}");
        }
        next += 100;
    }
    let stats = lane.stats();
    assert!(dropped > 5000 && stats.bytes <= 100_000, "{stats:?}");
    assert_eq!((stats.accepted, stats.waiting + stats.dropped, stats.dropped), (10_000, 10_000, dropped));
    assert_eq!(read(&lane, lane.acknowledged(), 1000, 1 << 20), next);

    let (lane, _) = open(&disk, Path::new("/b"), options.when_full(WhenFull::DropNewest));
    let mut next = 1;
    let error = loop {
        match lane.append(&lines(next..next + 100)) {
            Ok(appended) => assert_eq!(appended.dropped, None),
            Err(error) => break error,
        }
        next += 100;
    };
    assert!(error.is_full() && error.to_string().contains("more room"), "{error}");
    lane.acknowledge(next / 2);
    lane.append(&lines(next..next + 100)).unwrap();
    assert_eq!(read(&lane, lane.acknowledged(), 1000, 1 << 20), next + 100);
}

#[test]
fn old_lines_are_dropped_and_a_clock_that_steps_makes_none_old() {
    static NOW: std::sync::atomic::AtomicI64 = std::sync::atomic::AtomicI64::new(0);
    let now = || NOW.load(std::sync::atomic::Ordering::Relaxed);
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new());
    static RUN_HOURS: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    let run = || Duration::from_secs(RUN_HOURS.load(std::sync::atomic::Ordering::Relaxed) * 3600);
    let options = LaneOptions::default()
        .segment_bytes(2_000)
        .age_max(Duration::from_secs(3600))
        .clock(now)
        .monotonic(run);
    let (lane, _) = open(&disk, Path::new("/a"), options);
    for hour in 0..10u64 {
        RUN_HOURS.store(hour, std::sync::atomic::Ordering::Relaxed);
        let next = lane.next_number();
        lane.append(&lines(next..next + 100)).unwrap();
    }
    let stats = lane.stats();
    assert!(stats.dropped > 0 && stats.waiting < 1000, "{stats:?}");
    // A clock that jumps drops nothing, and breaks nothing.
    let dropped = stats.dropped;
    for time in [i64::MIN, -1, i64::MAX, 0] {
        NOW.store(time, std::sync::atomic::Ordering::Relaxed);
        let next = lane.next_number();
        lane.append(&lines(next..next + 10)).unwrap();
        assert_eq!(read(&lane, lane.acknowledged(), 1000, 1 << 20), next + 10);
    }
    assert_eq!(lane.stats().dropped, dropped);
    assert_eq!(lane.stats().oldest_age, stats.oldest_age);
}

#[test]
fn dropping_names_what_it_drops_and_needs_no_readable_segment() {
    static NOW: std::sync::atomic::AtomicI64 = std::sync::atomic::AtomicI64::new(0);
    let now = || NOW.fetch_add(1000, std::sync::atomic::Ordering::Relaxed);
    let sim = SimDisk::new();
    let disk: Arc<dyn Disk> = Arc::new(sim.clone());
    let options = LaneOptions::default().segment_bytes(3000).compression(false).bytes_max(12_000).clock(now);
    let (lane, _) = open(&disk, Path::new("/a"), options.clone());
    let odd: [&[u8]; 4] = [b"a\\ b\\,c\\=d,x=1 v=1\n", b"e\\\\f v=1\n", b"\xff\xfe v=1\n", b"g\n"];
    let mut lines = Lines::default();
    odd.iter().for_each(|line| lines.push(line));
    for i in 0..40 {
        lines.push(format!("m{i} v=\"{}\"\n", "x".repeat(100)).as_bytes());
    }
    let mut first = None;
    for _ in 0..10 {
        let dropped = lane.append(&lines).unwrap().dropped;
        first = first.or(dropped);
    }
    let first = first.unwrap();
    assert_eq!(first.measurements.len(), 10, "no more than ten are named");
    assert_eq!(first.measurements[..5], ["a b,c=d", "e\\\\f", "\u{fffd}\u{fffd}", "g", "m0"]);
    assert!(first.since < first.until, "{first:?}");
    drop(lane);
    // What cannot be read is dropped all the same, with its count.
    for path in sim.files().into_iter().filter(|p| p.extension().is_some_and(|e| e == "seg")) {
        let mut bytes = sim.bytes(&path).unwrap();
        bytes[64..].fill(0);
        sim.set_bytes(&path, bytes);
    }
    let (lane, _) = open(&disk, Path::new("/a"), options);
    let waiting = lane.stats().waiting;
    let mut dropped = 0;
    while dropped < waiting {
        sim.fail(Fault { call: Some(Call::Read), after: 0, times: 3, errno: IO_ERROR });
        dropped += lane.append(&lines).unwrap().dropped.map_or(0, |d| d.count);
        sim.heal();
    }
    let stats = lane.stats();
    assert_eq!(stats.accepted, stats.dropped + stats.waiting);
}

#[test]
fn a_lane_that_fills_says_so_once_and_how_much_room_is_left() {
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new());
    let options =
        LaneOptions::default().segment_bytes(5000).compression(false).keep_free(0).bytes_max(100_000);
    let (lane, _) = open(&disk, Path::new("/a"), options.when_full(WhenFull::Block));
    let empty = lane.stats();
    assert_eq!((empty.waiting_bytes, empty.bytes_left, empty.nearly_full), (0, 100_000, false));
    for round in 0..3 {
        let mut told = Vec::new();
        let error = loop {
            let next = lane.next_number();
            match lane.append(&lines(next..next + 50)) {
                Ok(appended) => told.extend(appended.nearly_full),
                Err(error) => break error,
            }
        };
        assert!(error.is_full(), "{error}");
        let [level] = &told[..] else { panic!("round {round}: {told:?}") };
        assert!((80_000..85_000).contains(&level.waiting_bytes), "{level:?}");
        assert_eq!(level.waiting_bytes + level.bytes_left, 100_000);
        assert!(level.to_string().contains("more room"), "{level}");
        let full = lane.stats();
        assert!(full.nearly_full && full.bytes_left < 5000, "{full:?}");
        // Half a segment more or less is no news, a lane that was emptied and fills again is.
        lane.acknowledge(lane.acknowledged() + 200);
        let next = lane.next_number();
        assert!(lane.append(&lines(next..next + 1)).is_ok_and(|a| a.nearly_full.is_none()));
        lane.acknowledge(u64::MAX);
        let emptied = lane.stats();
        assert_eq!((emptied.waiting_bytes, emptied.nearly_full), (0, false));
    }
}

#[test]
fn a_read_that_fails_is_tried_again_and_nothing_is_lost() {
    for after in 0..6 {
        let sim = SimDisk::new();
        let disk: Arc<dyn Disk> = Arc::new(sim.clone());
        let options = LaneOptions::default().segment_bytes(2000).compression(false).keep_free(0);
        let (lane, _) = open(&disk, Path::new("/s"), options);
        (0..4).for_each(|i| drop(lane.append(&lines(i * 100 + 1..i * 100 + 101)).unwrap()));
        sim.fail(Fault { call: Some(Call::Read), after, times: 1, errno: IO_ERROR });
        let mut reader = lane.reader(1);
        let (mut position, mut failed) = (1, 0);
        while position < 401 {
            match reader.next(30, 1000) {
                Ok(Next::Lines(batch)) => {
                    assert_eq!((batch.first, batch.line(0)), (position, &line(position)[..]));
                    position += batch.len() as u64;
                }
                Ok(other) => panic!("after {after} reads: {other:?}"),
                Err(_) => failed += 1,
            }
        }
        // Behind lines that were read it is tried again without a word.
        assert!(failed <= 1 && (failed == 1 || after > 0), "after {after} reads: {failed} failed");
    }
}

#[test]
fn a_full_disk_with_a_torn_tail_opens_and_drains() {
    let sim = SimDisk::new();
    let disk: Arc<dyn Disk> = Arc::new(sim.clone());
    let options = LaneOptions::default().compression(false).keep_free(0);
    let (lane, _) = open(&disk, Path::new("/s"), options.clone());
    lane.append(&lines(1..101)).unwrap();
    lane.append(&lines(101..201)).unwrap();
    drop(lane);
    // A kill in the middle of the write that filled the disk.
    let path = sim.files().into_iter().find(|p| p.extension().is_some_and(|e| e == "seg")).unwrap();
    let whole = sim.bytes(&path).unwrap();
    sim.set_bytes(&path, whole[..whole.len() - 1000].to_vec());
    let used: usize = sim.files().iter().filter_map(|p| sim.bytes(p)).map(|b| b.len()).sum();
    sim.set_capacity(Some(used as u64 + 100));
    for _ in 0..3 {
        let files = sim.files();
        let (lane, recovery) = open(&disk, Path::new("/s"), options.clone());
        assert_eq!(recovery.damage[0].lost, 101..201, "{recovery:?}");
        assert_eq!(recovery.damage[0].kept_in, None);
        assert_eq!(read_until_lost(&lane), 101);
        drop(lane);
        assert_eq!(sim.files(), files, "starting again and again leaves nothing behind");
    }
    let (lane, _) = open(&disk, Path::new("/s"), options.clone());
    lane.acknowledge(u64::MAX);
    lane.save_cursor().unwrap();
    sim.set_capacity(None);
    lane.append(&lines(201..301)).unwrap();
    assert_eq!(read(&lane, 201, 100, 1 << 20), 301);
    drop(lane);
    let (lane, _) = open(&disk, Path::new("/s"), options);
    assert_eq!(read(&lane, 201, 100, 1 << 20), 301);
}

/// Where a lane says that lines are lost, from which on it gives no more.
fn read_until_lost(lane: &Lane) -> u64 {
    let mut reader = lane.reader(1);
    loop {
        match reader.next(1000, 1 << 20).unwrap() {
            Next::Lines(_) => {}
            Next::Lost(damage) => {
                assert!(matches!(reader.next(1, 1), Ok(Next::End)));
                return damage.lost.start;
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_lane_whose_lines_are_all_settled_takes_more_than_its_size() {
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new());
    let options = LaneOptions::default().compression(false).keep_free(0).bytes_max(5000);
    let (lane, _) = open(&disk, Path::new("/s"), options.when_full(WhenFull::Block));
    lane.append(&lines(1..100)).unwrap();
    assert!(lane.append(&lines(100..400)).is_err_and(|e| e.is_full()));
    lane.acknowledge(100);
    // Otherwise nothing could ever be taken from who offers it, and nobody would send anything to make room.
    assert_eq!(lane.append(&lines(100..400)).unwrap().count, 300);
    assert_eq!(read(&lane, 100, 100, 1 << 20), 400);
}

// ---- queues -----------------------------------------------------------------------------------------------------

fn conserved(stats: &QueueStats) {
    let gone = stats.delivered + stats.rejected + stats.dropped + stats.damaged;
    assert_eq!(stats.accepted + stats.recovered, gone + stats.waiting, "{stats:?}");
}

fn queue(disk: &SimDisk, options: QueueOptions, lane: LaneOptions) -> (Queue, Arc<Mutex<Vec<String>>>) {
    let news = Arc::new(Mutex::new(Vec::new()));
    let (disk, told): (Arc<dyn Disk>, _) = (Arc::new(disk.clone()), news.clone());
    let open = move || Spool::open(disk.clone(), Path::new("/s"))?.lane("energy", lane.clone());
    let tell = move |n: News| told.lock().unwrap().push(format!("{n:?}"));
    (Queue::start("test", options, open, tell).unwrap(), news)
}

fn accept(queue: &Queue, numbers: std::ops::Range<u64>) {
    for i in numbers {
        let put = |out: &mut Vec<u8>| {
            out.extend_from_slice(&line(i));
            Ok::<(), Infallible>(())
        };
        queue.accept(put).unwrap();
    }
}

/// A sender that delivers everything, as a thread; returns what it delivered, in order.
fn sender(queue: &Queue, want: Want) -> std::thread::JoinHandle<Vec<Vec<u8>>> {
    let queue = queue.clone();
    std::thread::spawn(move || {
        let mut outbox = Outbox::default();
        let mut delivered = Vec::new();
        loop {
            match queue.next(&mut outbox, &want) {
                Work::Batch(taken) => {
                    delivered.extend((0..taken.batch.len()).map(|i| taken.batch.line(i).to_vec()));
                    queue.settle(&mut outbox, &taken, &[]).unwrap();
                }
                Work::SyncTarget(lines) => queue.made_durable(lines),
                Work::Lost(damage) => panic!("{damage}"),
                _ => break,
            }
        }
        queue.sender_ended();
        delivered
    })
}

fn want(lines_max: usize) -> Want {
    Want { lines_max, bytes_max: 1 << 20, interval: Duration::from_millis(20) }
}

#[test]
fn a_queue_takes_lines_from_many_threads_to_its_sender() {
    let (queue, _) = queue(&SimDisk::new(), QueueOptions::default(), LaneOptions::default());
    let carried = sender(&queue, want(100));
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let queue = &queue;
            scope.spawn(move || {
                for i in 0..50 {
                    accept(queue, thread * 1000 + i * 20..thread * 1000 + (i + 1) * 20);
                    conserved(&queue.stats());
                }
            });
        }
    });
    assert_eq!(queue.wait(Level::Delivered, Instant::now() + SOON), 0);
    queue.close();
    assert!(queue.wait_ended(Instant::now() + SOON));
    let delivered = carried.join().unwrap();
    assert_eq!(delivered.len(), 4000);
    for thread in 0..4 {
        let mine: Vec<_> = (thread * 1000..thread * 1000 + 1000).map(line).collect();
        let came: Vec<_> = delivered.iter().filter(|l| mine.contains(l)).cloned().collect();
        assert_eq!(came, mine, "the lines of one thread come in their order");
    }
    let stats = queue.stats();
    conserved(&stats);
    assert_eq!((stats.accepted, stats.delivered, stats.waiting), (4000, 4000, 0));
}

#[test]
fn levels_are_reached_one_after_the_other() {
    let disk = SimDisk::new();
    let options = QueueOptions::default().sync(SyncPolicy::Every(Duration::from_secs(3600)));
    let (queue, _) = queue(&disk, options, LaneOptions::default());
    accept(&queue, 0..10);
    assert_eq!(queue.wait(Level::Spooled, Instant::now() + SOON), 0);
    let lane_of = |disk: SimDisk| {
        let disk: Arc<dyn Disk> = Arc::new(disk);
        open(&disk, Path::new("/s"), LaneOptions::default()).1.waiting
    };
    assert_eq!(lane_of(disk.after_kill()), 10, "spooled lines survive the end of the process");
    assert_eq!(queue.wait(Level::Durable, Instant::now() + SOON), 0);
    assert_eq!(
        (0..20).map(|seed| lane_of(disk.after_power_cut(seed))).min(),
        Some(10),
        "and durable ones the power"
    );
    let (told, heard) = std::sync::mpsc::channel();
    queue.when(Level::Delivered, 10, move |reached| told.send(reached).unwrap());
    assert!(heard.recv_timeout(Duration::from_millis(100)).is_err(), "nobody sends");
    assert_eq!(queue.wait(Level::Delivered, Instant::now() + Duration::from_millis(50)), 10);
    let carried = sender(&queue, want(3));
    assert!(heard.recv_timeout(SOON).unwrap());
    queue.close();
    assert!(queue.wait_ended(Instant::now() + SOON));
    assert_eq!(carried.join().unwrap().len(), 10);
}

#[test]
fn while_the_disk_refuses_lines_go_through_memory_and_order_is_kept() {
    let disk = SimDisk::new();
    let options = QueueOptions::default().retry(Duration::from_millis(30));
    let (queue, news) = queue(&disk, options, LaneOptions::default());
    accept(&queue, 0..100);
    assert_eq!(queue.wait(Level::Durable, Instant::now() + SOON), 0);
    disk.fail(Fault { call: Some(Call::Write), after: 0, times: u64::MAX, errno: NO_SPACE });
    accept(&queue, 100..5000);
    let until = Instant::now() + SOON;
    while queue.stats().degraded.is_none() && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(5));
    }
    conserved(&queue.stats());
    assert_eq!(queue.wait(Level::Spooled, Instant::now() + Duration::from_millis(100)), 4900);
    let carried = sender(&queue, want(77));
    assert_eq!(queue.wait(Level::Delivered, Instant::now() + SOON), 0, "lines go on from memory");
    disk.heal();
    accept(&queue, 5000..6000);
    assert_eq!(queue.wait(Level::Delivered, Instant::now() + SOON), 0);
    queue.close();
    assert!(queue.wait_ended(Instant::now() + SOON));
    let delivered = carried.join().unwrap();
    let expected: Vec<_> = (0..6000).map(line).collect();
    assert!(delivered == expected, "{} lines", delivered.len());
    conserved(&queue.stats());
    let news = news.lock().unwrap().join("\n");
    assert!(news.contains("Degraded") && news.contains("Recovered"), "{news}");
}

#[test]
fn a_folder_that_cannot_be_opened_is_tried_again() {
    let disk = SimDisk::new();
    disk.fail(Fault { call: None, after: 0, times: u64::MAX, errno: IO_ERROR });
    let options = QueueOptions::default().retry(Duration::from_millis(30));
    let (queue, _) = queue(&disk, options, LaneOptions::default());
    accept(&queue, 0..50);
    let carried = sender(&queue, want(20));
    assert_eq!(queue.wait(Level::Delivered, Instant::now() + SOON), 0, "lines go on from memory");
    disk.heal();
    accept(&queue, 50..80);
    assert_eq!(queue.wait(Level::Delivered, Instant::now() + SOON), 0);
    let until = Instant::now() + SOON;
    while queue.stats().degraded.is_some() && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(5));
    }
    accept(&queue, 80..90);
    assert_eq!(queue.wait(Level::Durable, Instant::now() + SOON), 0);
    queue.close();
    assert!(queue.wait_ended(Instant::now() + SOON));
    assert_eq!(carried.join().unwrap(), (0..90).map(line).collect::<Vec<_>>());
    let stats = queue.stats();
    conserved(&stats);
    assert!(stats.lane.is_some_and(|l| l.accepted >= 10), "the last ones went over the disk");
}

#[test]
fn refused_lines_are_kept_with_their_reason() {
    let disk = SimDisk::new();
    let (queue, _) = queue(&disk, QueueOptions::default(), LaneOptions::default());
    accept(&queue, 0..10);
    let mut outbox = Outbox::default();
    let Work::Batch(taken) = queue.next(&mut outbox, &want(10)) else { panic!() };
    queue.settle(&mut outbox, &taken, &[(3, "field type conflict".into())]).unwrap();
    let stats = queue.stats();
    conserved(&stats);
    assert_eq!((stats.delivered, stats.rejected), (9, 1));
    let dead = queue.lane().unwrap().dead().unwrap();
    assert_eq!((dead.len(), &dead[0].line, dead[0].reason.as_str()), (1, &line(3), "field type conflict"));
    queue.sender_ended();
    queue.close();
    assert!(queue.wait_ended(Instant::now() + SOON));
    let lane = queue.stats().lane.unwrap();
    assert_eq!((lane.delivered, lane.dead, lane.waiting), (9, 1, 0));
}

#[test]
fn new_lines_go_first_after_an_outage_and_the_backlog_beside_them() {
    let disk = SimDisk::new();
    let options = QueueOptions::default().backlog_age(Duration::ZERO);
    let (queue, _) = queue(&disk, options, LaneOptions::default());
    accept(&queue, 0..2000);
    assert_eq!(queue.wait(Level::Durable, Instant::now() + SOON), 0);
    let mut outbox = Outbox::default();
    let want = Want { lines_max: 100, bytes_max: 1 << 20, interval: Duration::ZERO };
    let mut delivered = Vec::new();
    let mut live_seen_after = None;
    while delivered.len() < 2300 {
        let Work::Batch(taken) = queue.next(&mut outbox, &want) else { panic!() };
        delivered.extend((0..taken.batch.len()).map(|i| taken.batch.line(i).to_vec()));
        queue.settle(&mut outbox, &taken, &[]).unwrap();
        conserved(&queue.stats());
        if delivered.len() == 100 {
            queue.live_first(&mut outbox, &want);
            accept(&queue, 2000..2300);
            assert_eq!(queue.wait(Level::Durable, Instant::now() + SOON), 0);
        }
        if live_seen_after.is_none() && delivered.contains(&line(2299)) {
            live_seen_after = Some(delivered.len());
        }
    }
    assert!(live_seen_after.unwrap() <= 100 + 300 + 200, "{live_seen_after:?}");
    delivered.sort();
    let mut expected: Vec<_> = (0..2300).map(line).collect();
    expected.sort();
    assert!(delivered == expected, "everything once");
    let stats = queue.stats();
    assert_eq!((stats.waiting, stats.delivered), (0, 2300));
    assert_eq!(queue.lane().unwrap().acknowledged(), 2301);
    queue.sender_ended();
    queue.close();
    assert!(queue.wait_ended(Instant::now() + SOON));
}

#[test]
fn a_full_queue_in_memory_refuses_and_goes_on_when_there_is_room() {
    let disk: Arc<dyn Disk> = Arc::new(MemoryDisk::new(1 << 20));
    let lane = LaneOptions::default()
        .segment_bytes(64 << 10)
        .compression(false)
        .keep_free(0)
        .bytes_max(512 << 10)
        .when_full(WhenFull::DropNewest);
    let open = move || Spool::open(disk.clone(), Path::new("/"))?.lane("m", lane.clone());
    let options = QueueOptions::default()
        .durable_by(DurableBy::Target)
        .memory_bytes_max(100_000)
        .retry(Duration::from_secs(3600));
    let queue = Queue::start("test", options, open, |_| {}).unwrap();
    let put = |i: u64| {
        queue.accept(|out| {
            out.extend_from_slice(&line(i));
            Ok::<(), Infallible>(())
        })
    };
    let mut accepted = 0;
    let until = Instant::now() + SOON;
    while Instant::now() < until {
        match put(accepted) {
            Ok(_) => accepted += 1,
            Err(_) if queue.stats().full => break,
            Err(_) => std::thread::sleep(Duration::from_millis(1)),
        }
    }
    assert!(queue.stats().full && queue.stats().refused_full > 0);
    let carried = sender(&queue, want(1000));
    assert_eq!(queue.wait(Level::Delivered, Instant::now() + SOON), 0);
    for i in 0..1000 {
        put(accepted + i).unwrap();
    }
    queue.close();
    assert!(queue.wait_ended(Instant::now() + SOON));
    assert_eq!(carried.join().unwrap(), (0..accepted + 1000).map(line).collect::<Vec<_>>());
    conserved(&queue.stats());
}

/// A disk that says how much room it has only while a gate is open: an append waits there, once a second.
#[derive(Clone, Debug)]
struct Gated {
    disk: SimDisk,
    gate: Arc<(Mutex<Gate>, Condvar)>,
}

#[derive(Debug, Default)]
struct Gate {
    shut: bool,
    waiting: bool,
}

impl Gated {
    fn new(disk: &SimDisk) -> Self {
        Self { disk: disk.clone(), gate: Arc::default() }
    }

    fn shut(&self, yes: bool) {
        self.gate.0.lock().unwrap().shut = yes;
        self.gate.1.notify_all();
    }

    fn wait_until_somebody_waits(&self) {
        let gate = self.gate.0.lock().unwrap();
        drop(self.gate.1.wait_while(gate, |g| !g.waiting).unwrap());
    }
}

impl Disk for Gated {
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.disk.create_dir_all(path)
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<DirEntry>> {
        self.disk.list(directory)
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        self.disk.open(path, mode)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.disk.remove(path)
    }

    fn sync_dir(&self, directory: &Path) -> io::Result<()> {
        self.disk.sync_dir(directory)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn DiskLock>> {
        Disk::lock(&self.disk, path)
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        let mut gate = self.gate.0.lock().unwrap();
        gate.waiting = gate.shut;
        self.gate.1.notify_all();
        drop(self.gate.1.wait_while(gate, |g| g.shut).unwrap());
        self.disk.space(path)
    }
}

fn queue_on(disk: impl Disk + 'static, options: QueueOptions, lane: LaneOptions) -> Queue {
    let disk: Arc<dyn Disk> = Arc::new(disk);
    let open = move || Spool::open(disk.clone(), Path::new("/s"))?.lane("energy", lane.clone());
    Queue::start("test", options, open, |_| {}).unwrap()
}

#[test]
fn what_waits_for_a_disk_that_hangs_is_copied_by_no_caller() {
    let sim = SimDisk::new();
    let disk = Gated::new(&sim);
    let queue = queue_on(disk.clone(), QueueOptions::default(), LaneOptions::default().keep_free(1));
    accept(&queue, 0..1);
    assert_eq!(queue.wait(Level::Durable, Instant::now() + SOON), 0);
    disk.shut(true);
    let mut lines = 1;
    let mut room_max = 0;
    while queue.stats().memory_bytes < 8 << 20 {
        for i in lines..lines + 1000 {
            let write = |out: &mut Vec<u8>| {
                out.extend_from_slice(&line(i));
                room_max = room_max.max(out.capacity());
                Ok::<(), Infallible>(())
            };
            queue.accept(write).unwrap();
        }
        lines += 1000;
    }
    // A buffer that grows is copied, which takes the longer the more it holds.
    assert!(room_max <= 1 << 20, "a caller copied a buffer of {room_max} bytes");
    disk.shut(false);
    let carried = sender(&queue, want(5000));
    queue.close();
    assert!(queue.wait_ended(Instant::now() + SOON));
    assert!(carried.join().unwrap() == (0..lines).map(line).collect::<Vec<_>>());
    conserved(&queue.stats());
}

#[test]
fn lines_delivered_from_memory_while_the_disk_tries_again_are_told_when_it_refuses() {
    let sim = SimDisk::new();
    let disk = Gated::new(&sim);
    let queue = queue_on(disk.clone(), QueueOptions::default(), LaneOptions::default());
    sim.fail(Fault { call: Some(Call::Write), after: 0, times: u64::MAX, errno: NO_SPACE });
    accept(&queue, 0..50);
    let until = Instant::now() + SOON;
    while queue.stats().degraded.is_none() && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(2));
    }
    disk.shut(true);
    disk.wait_until_somebody_waits();
    // The disk has the piece in its hands, and its sender delivers it.
    let mut outbox = Outbox::default();
    let Work::Batch(taken) = queue.next(&mut outbox, &want(50)) else { panic!() };
    queue.settle(&mut outbox, &taken, &[]).unwrap();
    let (told, heard) = std::sync::mpsc::channel();
    queue.when(Level::Delivered, 50, move |reached| told.send(reached).unwrap());
    disk.shut(false);
    assert!(heard.recv_timeout(Duration::from_secs(5)).unwrap(), "nothing else need happen");
    conserved(&queue.stats());
    queue.sender_ended();
    queue.close();
    assert!(queue.wait_ended(Instant::now() + SOON));
}

#[test]
fn a_disk_that_refuses_in_the_middle_of_many_lines_gets_none_twice() {
    for after in 0..12 {
        let disk = SimDisk::new();
        let options = QueueOptions::default().retry(Duration::from_millis(20));
        let queue = queue_on(disk.clone(), options, LaneOptions::default().keep_free(0));
        disk.fail(Fault { call: Some(Call::Write), after, times: 2, errno: NO_SPACE });
        accept(&queue, 0..9000);
        assert_eq!(queue.wait(Level::Durable, Instant::now() + SOON), 0);
        let stats = queue.stats();
        conserved(&stats);
        assert_eq!((stats.waiting, stats.lane.unwrap().waiting), (9000, 9000), "after {after} writes");
        let carried = sender(&queue, want(1000));
        queue.close();
        assert!(queue.wait_ended(Instant::now() + SOON));
        assert!(carried.join().unwrap() == (0..9000).map(line).collect::<Vec<_>>(), "after {after} writes");
        conserved(&queue.stats());
    }
}

#[test]
fn lines_that_are_dropped_while_they_are_on_their_way_are_counted_once() {
    let options =
        LaneOptions::default().segment_bytes(4000).compression(false).keep_free(0).bytes_max(20_000);
    let queue = queue_on(SimDisk::new(), QueueOptions::default(), options);
    accept(&queue, 0..100);
    assert_eq!(queue.wait(Level::Durable, Instant::now() + SOON), 0);
    let mut outbox = Outbox::default();
    let Work::Batch(taken) = queue.next(&mut outbox, &want(100)) else { panic!() };
    for i in 1..20 {
        accept(&queue, i * 100..(i + 1) * 100);
        assert_eq!(queue.wait(Level::Durable, Instant::now() + SOON), 0);
    }
    queue.settle(&mut outbox, &taken, &[(0, "no".into()), (99, "no".into())]).unwrap();
    conserved(&queue.stats());
    let carried = sender(&queue, want(100));
    assert_eq!(queue.wait(Level::Delivered, Instant::now() + SOON), 0);
    queue.close();
    assert!(queue.wait_ended(Instant::now() + SOON));
    let stats = queue.stats();
    conserved(&stats);
    assert_eq!(stats.delivered, carried.join().unwrap().len() as u64);
    assert!(stats.dropped > 1000 && stats.waiting == 0, "{stats:?}");
}

#[test]
fn a_full_queue_that_blocks_takes_every_line_of_who_waits_and_refuses_who_does_not() {
    let options = QueueOptions::default().memory_bytes_max(20_000).retry(Duration::from_millis(20));
    let lane = LaneOptions::default()
        .segment_bytes(10_000)
        .compression(false)
        .keep_free(0)
        .bytes_max(50_000)
        .when_full(WhenFull::Block);
    let queue = queue_on(SimDisk::new(), options, lane);
    let put = |queue: &Queue, i: u64| {
        queue.accept(|out| {
            out.extend_from_slice(&line(i));
            Ok::<(), Infallible>(())
        })
    };
    let (queue_of_waiter, waited) = (queue.clone(), Arc::new(std::sync::atomic::AtomicU64::new(0)));
    let counted = waited.clone();
    let waiter = std::thread::spawn(move || {
        for i in 0..10_000 {
            while put(&queue_of_waiter, i).is_err() {
                let (told, heard) = std::sync::mpsc::channel();
                counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                queue_of_waiter.when_room(move |room| told.send(room).unwrap());
                assert!(heard.recv_timeout(SOON).unwrap());
            }
        }
    });
    let until = Instant::now() + SOON;
    while !(queue.stats().full && queue.stats().memory_bytes >= 20_000) && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(2));
    }
    assert!(
        matches!(put(&queue, 0), Err(graylogic_durable::Refused::Full(_))),
        "who may not wait is refused"
    );
    let carried = sender(&queue, want(500));
    waiter.join().unwrap();
    assert_eq!(queue.wait(Level::Delivered, Instant::now() + SOON), 0);
    assert!(waited.load(std::sync::atomic::Ordering::Relaxed) > 3);
    // Nobody waits for a queue that is closed.
    queue.close();
    let (told, heard) = std::sync::mpsc::channel();
    queue.when_room(move |room| told.send(room).unwrap());
    assert!(!heard.recv_timeout(SOON).unwrap());
    assert!(queue.wait_ended(Instant::now() + SOON));
    assert!(carried.join().unwrap() == (0..10_000).map(line).collect::<Vec<_>>());
    conserved(&queue.stats());
}

#[test]
fn who_waits_for_room_is_told_when_the_queue_closes() {
    let sim = SimDisk::new();
    sim.fail(Fault { call: None, after: 0, times: u64::MAX, errno: IO_ERROR });
    let options = QueueOptions::default().memory_bytes_max(100);
    let queue = queue_on(sim, options, LaneOptions::default());
    accept(&queue, 0..4);
    let (told, heard) = std::sync::mpsc::channel();
    queue.when_room(move |room| told.send(room).unwrap());
    assert!(heard.recv_timeout(Duration::from_millis(50)).is_err());
    queue.close();
    assert!(!heard.recv_timeout(SOON).unwrap());
    queue.sender_ended();
    queue.abandon();
    assert!(queue.wait_ended(Instant::now() + SOON));
}

#[test]
fn a_line_that_no_lane_takes_is_refused_and_does_not_hold_up_the_others() {
    let queue = queue_on(SimDisk::new(), QueueOptions::default(), LaneOptions::default());
    accept(&queue, 0..5);
    let long = queue.accept(|out| {
        out.resize(out.len() + (9 << 20), b'x');
        Ok::<(), Infallible>(())
    });
    assert!(matches!(long, Err(graylogic_durable::Refused::TooLong(bytes)) if bytes == 9 << 20), "{long:?}");
    accept(&queue, 5..10);
    let carried = sender(&queue, want(10));
    assert_eq!(queue.wait(Level::Delivered, Instant::now() + SOON), 0);
    queue.close();
    assert!(queue.wait_ended(Instant::now() + SOON));
    assert_eq!(carried.join().unwrap(), (0..10).map(line).collect::<Vec<_>>());
}

#[test]
fn dead_letters_take_no_more_room_than_they_may_and_the_newest_stay() {
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new());
    let options = || LaneOptions::default().keep_free(0).dead_bytes_max(3 << 20);
    let lane = Spool::open(disk.clone(), Path::new("/s")).unwrap().lane("l", options()).unwrap().0;
    let text = vec![b'x'; 100_000];
    for number in 1..=100 {
        let dead = DeadLine { number, time: 0, reason: "too long", line: &text };
        lane.park(&[dead]).unwrap();
        let kept = lane.dead().unwrap();
        assert_eq!(kept.last().unwrap().number, number);
        assert!(
            kept.len() <= 44,
            "{} letters of 100 kB in 3 MiB and the segment that is written",
            kept.len()
        );
    }
    assert_eq!(lane.stats().dead, 100, "all are counted");
    drop(lane);
    let lane = Spool::open(disk, Path::new("/s")).unwrap().lane("l", options()).unwrap().0;
    assert!(lane.dead().unwrap().len() >= 20);
}
