//! Live lines go before a long backlog, and of readings of one field for one time the last written still counts: whatever
//! was corrected, whenever the server was away, however often the client was restarted.
#![allow(clippy::unwrap_used, missing_docs)]

use graylogic_durable::{
    Disk, LaneOptions, Level, Outbox, Queue, QueueOptions, SimDisk, Spool, Taken, Want, WhenFull, Work,
};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(60);

/// Random numbers (splitmix64).
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % n
    }
}

/// The value that counts for each series and time.
type Values = BTreeMap<(u64, Option<u64>), u64>;

/// Reads a line of ours: series, time, value.
fn parse(line: &str) -> ((u64, Option<u64>), u64) {
    let mut parts = line.trim_end().split(' ');
    let series = parts.next().unwrap()[1..].parse().unwrap();
    let value = parts.next().unwrap()[2..].parse().unwrap();
    ((series, parts.next().map(|t| t.parse().unwrap())), value)
}

/// A client, its server and its disk.
struct Site {
    disk: SimDisk,
    queue: Queue,
    outbox: Outbox,
    lane: LaneOptions,
    age: Duration,
    /// The server may lose what it acknowledged, until it has settled.
    settles_later: bool,
    clock: u64,
    written: Values,
    stored: Values,
    /// The arrival of each value, by value.
    arrived: Vec<u64>,
    value: u64,
}

const WANT: Want = Want { lines_max: 3, bytes_max: 1 << 20, interval: Duration::ZERO };

fn start(disk: &SimDisk, lane: &LaneOptions, age: Duration) -> Queue {
    let (disk, lane): (Arc<dyn Disk>, _) = (Arc::new(disk.clone()), lane.clone());
    let open = move || Spool::open(disk.clone(), Path::new("/s"))?.lane("energy", lane.clone());
    Queue::start("site", QueueOptions::default().backlog_age(age), open, |_| {}).unwrap()
}

impl Site {
    fn new(lane: LaneOptions, age: Duration) -> Self {
        let disk = SimDisk::new();
        let queue = start(&disk, &lane, age);
        Self {
            disk,
            queue,
            outbox: Outbox::default(),
            lane,
            age,
            settles_later: false,
            clock: 1000,
            written: Values::new(),
            stored: Values::new(),
            arrived: Vec::new(),
            value: 0,
        }
    }

    fn write(&mut self, series: u64, time: Option<u64>) {
        self.value += 1;
        let value = self.value;
        let time_text = time.map_or_else(String::new, |t| format!(" {t}"));
        let line = format!("s{series} v={value}{time_text}\n");
        let put = |out: &mut Vec<u8>| {
            out.extend_from_slice(line.as_bytes());
            Ok::<(), Infallible>(())
        };
        self.queue.accept(put).unwrap();
        self.written.insert((series, time), value);
    }

    fn spooled(&self) {
        assert_eq!(self.queue.wait(Level::Durable, Instant::now() + SOON), 0);
    }

    /// The server takes a batch; its answer may get lost.
    fn send(&mut self, answered: bool) -> bool {
        let stats = self.queue.stats();
        if stats.waiting == stats.settling && stats.waiting > 0 {
            // Everything was sent, or waits for what was.
            self.queue.settle_until(&mut self.outbox, Instant::now());
        }
        if self.queue.stats().waiting == 0 {
            return false;
        }
        let taken: Taken = match self.queue.next(&mut self.outbox, &WANT) {
            Work::Batch(taken) => taken,
            other => panic!("{other:?}"),
        };
        for i in 0..taken.batch.len() {
            let (key, value) = parse(std::str::from_utf8(taken.batch.line(i)).unwrap());
            self.stored.insert(key, value);
            self.arrived.push(value);
        }
        if answered {
            match self.settles_later {
                true => self.queue.acknowledged(&mut self.outbox, &taken, &[]).unwrap(),
                false => self.queue.settle(&mut self.outbox, &taken, &[]).unwrap(),
            }
            self.queue.live_first(&mut self.outbox, &WANT);
            self.conserved();
        }
        true
    }

    fn conserved(&self) {
        let s = self.queue.stats();
        let gone = s.delivered + s.rejected + s.dropped + s.damaged + s.waiting;
        assert_eq!(s.accepted + s.recovered, gone, "{s:?}");
        let lane = s.lane.unwrap();
        let gone = lane.delivered + lane.dead + lane.dropped + lane.damaged + lane.waiting;
        assert_eq!(lane.accepted, gone, "{lane:?}");
    }

    fn restart(&mut self) {
        self.spooled();
        self.end();
        self.disk = self.disk.after_kill();
        self.queue = start(&self.disk, &self.lane, self.age);
        self.outbox = Outbox::default();
    }

    fn end(&self) {
        self.queue.sender_ended();
        self.queue.abandon();
        assert!(self.queue.wait_ended(Instant::now() + SOON));
    }
}

fn history(seed: u64) -> (u64, u64) {
    let mut dice = Dice(seed);
    let segment = [400, 3000, 1 << 20][dice.below(3) as usize];
    let lane = LaneOptions::default().segment_bytes(segment).keep_free(0).bytes_max(u64::MAX);
    let mut site = Site::new(lane, Duration::ZERO);
    site.settles_later = dice.below(2) == 0;
    for _ in 0..3 + dice.below(8) {
        match dice.below(6) {
            4 if dice.below(2) == 0 => site.queue.settle_until(&mut site.outbox, Instant::now()),
            // The server was killed: what it acknowledged and did not settle is sent again.
            4 => {
                site.queue.send_again(&mut site.outbox);
            }
            0 | 1 => {
                for _ in 0..1 + dice.below(30) {
                    let series = dice.below(2);
                    let time = match dice.below(10) {
                        0..=5 => {
                            site.clock += 1;
                            Some(site.clock)
                        }
                        // A correction, a late reading, one from the future, and one without a time.
                        6 | 7 => Some(site.clock - dice.below(20)),
                        8 => Some(site.clock + dice.below(20)),
                        _ => None,
                    };
                    site.write(series, time);
                }
                site.spooled();
            }
            2 | 3 => (0..dice.below(12)).for_each(|_| {
                site.send(true);
            }),
            _ => {
                if dice.below(2) == 0 {
                    site.send(false);
                }
                site.restart();
            }
        }
    }
    site.spooled();
    while site.send(true) {}
    assert_eq!(site.stored, site.written, "seed {seed}: arrivals {:?}", site.arrived);
    site.end();
    let overtaken = site.arrived.windows(2).filter(|w| w[1] != w[0] + 1).count();
    (site.arrived.len() as u64, overtaken as u64)
}

#[test]
fn the_last_written_value_counts_whatever_goes_first() {
    let share: f64 = std::env::var("GRAYLOGIC_TORTURE").ok().and_then(|t| t.parse().ok()).unwrap_or(0.1);
    let histories = (10_000.0 * share) as u64;
    let overtaken: u64 = (0..histories).map(|seed| history(seed).1).sum();
    // Else nothing went first, and the order proves nothing.
    assert!(overtaken > histories, "{overtaken} changes of place in {histories} histories");
}

#[test]
fn a_correction_waits_for_the_value_it_corrects_and_newer_readings_do_not() {
    let lane = LaneOptions::default().keep_free(0).bytes_max(u64::MAX);
    let mut site = Site::new(lane, Duration::ZERO);
    (1..=100).for_each(|i| site.write(0, Some(i)));
    site.spooled();
    site.send(true);
    // Values 101 to 103: a correction of a reading in the backlog, a reading that is newer, and one without a time.
    site.write(0, Some(90));
    site.write(0, Some(200));
    site.write(0, None);
    site.spooled();
    while site.send(true) {}
    let place = |value: u64| site.arrived.iter().position(|v| *v == value).unwrap();
    assert!(place(102) < 10, "the newer reading goes first: {:?}", site.arrived);
    assert!(place(101) > place(90) && place(103) > place(100), "{:?}", site.arrived);
    assert_eq!(site.arrived.len(), 103, "everything once");
    assert_eq!(site.stored, site.written);
    site.end();
}

#[test]
fn live_lines_go_first_when_the_oldest_pending_line_is_old_and_not_when_its_segment_is() {
    // One segment for the whole run: it is older than the age, its pending lines are not.
    let age = Duration::from_millis(200);
    let mut site = Site::new(LaneOptions::default().keep_free(0).bytes_max(u64::MAX), age);
    site.write(0, Some(1));
    site.spooled();
    assert!(site.send(true));
    std::thread::sleep(age * 2);
    site.restart();
    let began = Instant::now();
    (2..=50).for_each(|i| site.write(0, Some(i)));
    site.spooled();
    site.send(true);
    site.write(0, Some(51));
    site.spooled();
    site.send(true);
    let early = site.arrived.contains(&51);
    assert!(!early || began.elapsed() >= age, "{:?}", site.arrived);
    site.end();
}

#[test]
fn lines_that_went_first_cost_no_pending_line_its_place() {
    let lane = LaneOptions::default()
        .segment_bytes(2000)
        .compression(false)
        .keep_free(0)
        .bytes_max(10_000)
        .when_full(WhenFull::DropOldest);
    let mut site = Site::new(lane, Duration::ZERO);
    // About half of the limit is pending when the server comes back, slowly.
    (1..=250).for_each(|i| site.write(0, Some(1000 + i)));
    site.spooled();
    site.send(true);
    for round in 0..500 {
        site.write(1, Some(100_000 + round));
        site.spooled();
        // One request for the backlog in four.
        site.send(true);
    }
    let stats = site.queue.stats();
    assert_eq!(stats.dropped, 0, "{stats:?}");
    while site.send(true) {}
    assert_eq!(site.stored, site.written);
    site.end();
}

#[test]
fn a_lane_with_a_small_limit_drops_little_at_a_time() {
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new());
    let spool = Spool::open(disk, Path::new("/s")).unwrap();
    let limit = 4 << 20;
    let options = LaneOptions::default().compression(false).keep_free(0).bytes_max(limit);
    let (lane, _) = spool.lane("energy", options).unwrap();
    let mut lines = graylogic_durable::Lines::default();
    (0..1000).for_each(|i| lines.push(format!("s0 v={i} {i}\n").as_bytes()));
    let mut most = 0;
    while lane.stats().accepted * 12 < 3 * limit {
        if let Some(dropped) = lane.append(&lines).unwrap().dropped {
            most = most.max(dropped.count);
        }
    }
    let stats = lane.stats();
    assert!(most > 0 && most * 12 < limit / 8, "{most} lines at once: {stats:?}");
    assert!(stats.bytes <= limit && stats.bytes > limit - limit / 8, "{stats:?}");
}
