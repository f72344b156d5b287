//! Everything that can be done to a spool, done to it: torn writes, flipped bits, lost and foreign files, power cuts,
//! kills, full and failing disks, clocks that jump. Each campaign prints a row with its count. `GRAYLOGIC_TORTURE`
//! multiplies them: 1 is the figure of continuous integration, the usual is a small part of it.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

use graylogic_durable::{
    Call, DeadLine, Disk, Fault, IO_ERROR, Lane, LaneOptions, Lines, MemoryDisk, NO_SPACE, Next, READ_ONLY,
    RealDisk, SimDisk, Spool, TOO_MANY_FILES,
};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

const FOLDER: &str = "/spool";
const LANE: &str = "/spool/energy";

struct Dice(u64);

impl Dice {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % n.max(1)
    }
}

/// So many of the usual figure.
fn part(of: u64) -> u64 {
    let times: f64 = std::env::var("GRAYLOGIC_TORTURE").map_or(0.02, |n| n.parse().unwrap());
    ((of as f64 * times).ceil() as u64).max(1)
}

fn told(id: &str, cases: u64, seed: u64) {
    println!(
        "torture {{\"id\":\"{id}\",\"cases\":{cases},\"lost\":0,\"wrong\":0,\"refused_to_open\":0,\"panics\":0,\"seed\":{seed}}}"
    );
}

fn line(i: u64) -> Vec<u8> {
    match i % 5 {
        0 => format!("log text=\"one\ntwo {i}\" {i}\n").into_bytes(),
        _ => format!("power,device=d{} value={}.5 {i}\n", i % 50, i % 1000).into_bytes(),
    }
}

fn lines(ids: impl Iterator<Item = u64>) -> Lines {
    let mut lines = Lines::default();
    ids.for_each(|i| lines.push(&line(i)));
    lines
}

fn options() -> LaneOptions {
    LaneOptions::default().segment_bytes(3000).keep_free(0).bytes_max(u64::MAX)
}

fn open(disk: &SimDisk, options: LaneOptions) -> Result<Lane, graylogic_durable::Error> {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    Ok(Spool::open(disk, Path::new(FOLDER))?.lane("energy", options)?.0)
}

/// What a lane gives from its cursor on: lines by number, and the numbers told lost.
fn content(lane: &Lane) -> (BTreeMap<u64, Vec<u8>>, BTreeSet<u64>) {
    let mut reader = lane.reader(lane.acknowledged());
    let (mut found, mut lost) = (BTreeMap::new(), BTreeSet::new());
    loop {
        match reader.next(100, 1 << 20).unwrap() {
            Next::Lines(batch) => {
                for i in 0..batch.len() {
                    assert!(found.insert(batch.first + i as u64, batch.line(i).to_vec()).is_none());
                }
            }
            Next::Lost(damage) => lost.extend(damage.lost),
            _ => return (found, lost),
        }
    }
}

/// Every number is either given or told lost, and what is given is what was appended.
fn check_numbers(lane: &Lane, appended: &BTreeMap<u64, Vec<u8>>, context: &str) -> BTreeSet<u64> {
    let (found, lost) = content(lane);
    for (number, line) in &found {
        let right = appended.get(number) == Some(line);
        assert!(right, "{context}: line {number} is {}", String::from_utf8_lossy(line));
    }
    for number in lane.acknowledged()..lane.next_number() {
        let known = found.contains_key(&number) != lost.contains(&number);
        assert!(known, "{context}: number {number} is given or told lost");
    }
    conserved(lane, context);
    lost
}

fn conserved(lane: &Lane, context: &str) {
    let s = lane.stats();
    assert_eq!(s.accepted, s.delivered + s.dead + s.dropped + s.damaged + s.waiting, "{context}: {s:?}");
}

/// A lane on a disk with some segments of some frames, and its lines.
fn filled(frames: &[u64]) -> (SimDisk, BTreeMap<u64, Vec<u8>>) {
    let disk = SimDisk::new();
    let lane = open(&disk, options()).unwrap();
    let mut next = 1;
    for &n in frames {
        lane.append(&lines(next..next + n)).unwrap();
        next += n;
    }
    lane.sync().unwrap();
    (disk, (1..next).map(|i| (i, line(i))).collect())
}

fn segments(disk: &SimDisk) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = disk
        .files()
        .into_iter()
        .filter(|p| p.parent() == Some(Path::new(LANE)) && p.extension().is_some_and(|e| e == "seg"))
        .collect();
    found.sort();
    found
}

#[test]
fn d1_a_torn_write_costs_only_what_it_tore() {
    let step = (1.0 / std::env::var("GRAYLOGIC_TORTURE").map_or(0.02, |n| n.parse::<f64>().unwrap())).ceil();
    let mut cases = 0;
    for compression in [true, false] {
        let disk = SimDisk::new();
        let big = LaneOptions::default().keep_free(0).compression(compression);
        let lane = open(&disk, big.clone()).unwrap();
        let mut appended = BTreeMap::new();
        let mut next = 1;
        // The last three frames: of one line, of ten, of 64 KiB.
        for n in [5u64, 1, 10, 1700] {
            lane.append(&lines(next..next + n)).unwrap();
            appended.extend((next..next + n).map(|i| (i, line(i))));
            next += n;
        }
        drop(lane);
        let path = segments(&disk).pop().unwrap();
        let whole = disk.bytes(&path).unwrap();
        let mut cut = 64;
        while cut < whole.len() {
            let torn = disk.after_kill();
            torn.set_bytes(&path, whole[..cut].to_vec());
            let lane = open(&torn, big.clone()).unwrap();
            check_numbers(&lane, &appended, &format!("cut at {cut}"));
            let first = lane.append(&lines(9_000..9_003)).unwrap().first;
            assert!(first > 0 && content(&lane).0.len() >= 3, "the lane goes on");
            cases += 1;
            cut += if cut < 2000 { 1 } else { step as usize };
        }
    }
    told("D1", cases, 0);
}

#[test]
fn d2_a_flipped_bit_costs_only_its_frame() {
    let (disk, appended) = filled(&[20; 30]);
    open(&disk, options()).unwrap().save_cursor().unwrap();
    let mut dice = Dice::new(2);
    let paths = segments(&disk);
    let mut cases = 0;
    for _ in 0..part(524_288) {
        let path = &paths[dice.below(paths.len() as u64) as usize];
        let mut bytes = disk.bytes(path).unwrap();
        let bit = dice.below(bytes.len() as u64 * 8);
        bytes[bit as usize / 8] ^= 1 << (bit % 8);
        let hurt = disk.after_kill();
        hurt.set_bytes(path, bytes);
        let lane = open(&hurt, options()).unwrap();
        assert_eq!(lane.next_number(), 601, "bit {bit} of {}: no number is given twice", path.display());
        let lost = check_numbers(&lane, &appended, &format!("bit {bit} of {}", path.display()));
        assert!(lost.len() <= 20, "bit {bit} of {}: {} lines lost", path.display(), lost.len());
        cases += 1;
    }
    told("D2", cases, 2);
    // The cursor: any bit of it may make lines come again, never be lost.
    let lane = open(&disk, options()).unwrap();
    lane.acknowledge(101);
    lane.save_cursor().unwrap();
    lane.acknowledge(201);
    lane.save_cursor().unwrap();
    drop(lane);
    let path = Path::new(LANE).join("cursor");
    let whole = disk.bytes(&path).unwrap();
    assert_eq!(whole.len(), 4096);
    let mut cases = 0;
    for bit in (0..whole.len() * 8).filter(|b| *b < 8192 || b % 64 == 0) {
        if dice.below(32_768) >= part(32_768) * 4 {
            continue;
        }
        let mut bytes = whole.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let hurt = disk.after_kill();
        hurt.set_bytes(&path, bytes);
        let lane = open(&hurt, options()).unwrap();
        assert!(lane.acknowledged() <= 201, "bit {bit}");
        let lost = check_numbers(&lane, &appended, &format!("bit {bit} of the cursor"));
        assert!(lost.is_empty());
        cases += 1;
    }
    told("D2 cursor", cases, 2);
}

#[test]
fn d3_any_damage_is_survived_and_told() {
    let (disk, appended) = filled(&[7, 30, 1, 12, 80, 3, 3, 60, 9, 25, 25, 25]);
    let lane = open(&disk, options()).unwrap();
    lane.acknowledge(10);
    lane.save_cursor().unwrap();
    drop(lane);
    let cases = part(10_000);
    for seed in 0..cases {
        let mut dice = Dice::new(seed);
        let hurt = disk.after_kill();
        let mut done = Vec::new();
        let mut numbers_may_be_wrong = false;
        for _ in 0..=dice.below(3) {
            let paths = segments(&hurt);
            let Some(path) = paths.get(dice.below(paths.len() as u64) as usize) else { break };
            let mut bytes = hurt.bytes(path).unwrap();
            let length = bytes.len() as u64;
            let at = dice.below(length) as usize;
            let size = (1 + dice.below(4096) as usize).min(bytes.len() - at);
            let kind = dice.below(12);
            done.push(format!("{kind} {at}+{size} of {}", path.display()));
            match kind {
                0 => bytes[at..at + size].fill(0),
                1 => bytes[at..at + size].iter_mut().for_each(|b| *b = dice.below(256) as u8),
                2 => {
                    let copy = bytes[at..at + size].to_vec();
                    bytes.extend_from_slice(&copy);
                }
                3 => {
                    let to = dice.below((bytes.len() - size) as u64 + 1) as usize;
                    let copy = bytes[at..at + size].to_vec();
                    bytes[to..to + size].copy_from_slice(&copy);
                }
                4 => bytes.truncate(at),
                5 => bytes.extend((0..size).map(|_| dice.below(256) as u8)),
                6 => {
                    hurt.delete(path);
                    continue;
                }
                7 => bytes.clear(),
                8 => {
                    // Another name, as if somebody had moved it.
                    hurt.delete(path);
                    let name = format!("{:016x}.seg", dice.below(500));
                    hurt.set_bytes(&Path::new(LANE).join(name), bytes);
                    numbers_may_be_wrong = true;
                    continue;
                }
                9 => {
                    hurt.set_bytes(&Path::new(LANE).join("00000000000000ff.seg"), vec![7; size]);
                    continue;
                }
                10 => {
                    hurt.delete(&Path::new(LANE).join("cursor"));
                    continue;
                }
                _ => {
                    let cursor: Vec<u8> = (0..4096).map(|_| dice.below(256) as u8).collect();
                    hurt.set_bytes(&Path::new(LANE).join("cursor"), cursor);
                    continue;
                }
            }
            hurt.set_bytes(path, bytes);
        }
        let context = format!("seed {seed}: {done:?}");
        let lane = open(&hurt, options()).unwrap_or_else(|e| panic!("{context}: {e}"));
        let (found, _) = content(&lane);
        for (number, line) in &found {
            assert_eq!(appended.get(number), Some(line), "{context}: line {number}");
        }
        if !numbers_may_be_wrong {
            check_numbers(&lane, &appended, &context);
        }
        lane.append(&lines(900..905)).unwrap();
        let after = content(&lane).0;
        assert!((900..905).all(|i| after.values().any(|l| *l == line(i))), "{context}: the lane goes on");
        lane.acknowledge(u64::MAX);
        lane.save_cursor().unwrap();
        conserved(&lane, &context);
    }
    told("D3", cases, 0);
}

/// What was promised of a lane.
#[derive(Clone, Default)]
struct Promised {
    appended: BTreeMap<u64, Vec<u8>>,
    /// Lines whose append failed: they may be there.
    failed: BTreeSet<Vec<u8>>,
    synced: u64,
    /// Lines before this number may be gone: acknowledged or dropped.
    floor: u64,
    /// Lines parked.
    dead: BTreeSet<Vec<u8>>,
    next_id: u64,
}

impl Promised {
    fn check(&mut self, lane: &Lane, all: bool, context: &str) {
        let (found, lost) = content(lane);
        for (number, line) in &found {
            let known = self.appended.get(number) == Some(line) || self.failed.contains(line);
            assert!(known, "{context}: line {number} was never appended there");
        }
        for (number, line) in &self.appended {
            let promised = *number >= self.floor && (all || *number < self.synced);
            assert!(
                !promised || found.get(number) == Some(line),
                "{context}: line {number} was promised, {lost:?} lost of {}..{}, floor {}, synced {}",
                lane.acknowledged(),
                lane.next_number(),
                self.floor,
                self.synced
            );
        }
        // Segments that no sync covered may be gone with a power cut.
        assert!(!all || lane.acknowledged() <= self.floor, "{context}: nothing is settled that was not");
        let letters: BTreeSet<Vec<u8>> = lane.dead().unwrap().into_iter().map(|d| d.line).collect();
        assert!(self.dead.is_subset(&letters), "{context}: parked lines stay");
        conserved(lane, context);
        let floor = self.floor;
        self.appended.retain(|n, line| *n < floor || found.get(n) == Some(line));
        self.synced = self.synced.max(1);
    }
}

fn step(lane: &Lane, dice: &mut Dice, promised: &mut Promised) {
    match dice.below(12) {
        0..=4 => {
            let most = if dice.below(10) == 0 { 200 } else { 12 };
            let n = 1 + dice.below(most);
            let ids = promised.next_id..promised.next_id + n;
            promised.next_id += n;
            // Numbers of lines that were settled before a sync covered them may be given again
            // after a power cut took both.
            let settled = promised.floor;
            match lane.append(&lines(ids.clone())) {
                Ok(appended) => {
                    if let Some(dropped) = appended.dropped {
                        promised.floor = promised.floor.max(dropped.numbers.end);
                    }
                    for (i, id) in ids.enumerate() {
                        let number = appended.first + i as u64;
                        let again = promised
                            .appended
                            .insert(number, line(id))
                            .is_some_and(|before| !promised.failed.contains(&before));
                        assert!(!again || number < settled, "number {number} is given once");
                    }
                }
                Err(_) => promised.failed.extend(ids.map(line)),
            }
            // What a call dropped that failed afterwards is told with the next.
            promised.floor = promised.floor.max(lane.acknowledged());
        }
        5 | 6 => {
            if let Ok(synced) = lane.sync() {
                promised.synced = promised.synced.max(synced);
            }
        }
        7 | 8 => {
            let (first, next) = (lane.acknowledged(), lane.next_number());
            let to = first + dice.below(next - first + 1);
            promised.floor = promised.floor.max(to);
            lane.acknowledge(to);
        }
        9 => {
            let _refused = lane.save_cursor();
        }
        10 => {
            let number = lane.acknowledged();
            if number < lane.next_number()
                && let Some(line) = promised.appended.get(&number).cloned()
                && lane.park(&[DeadLine { number, time: 1, reason: "no", line: &line }]).is_ok()
            {
                promised.dead.insert(line);
                promised.floor = promised.floor.max(number + 1);
                lane.acknowledge(number + 1);
            }
        }
        _ => {
            let mut reader = lane.reader(lane.acknowledged() + dice.below(50));
            for _ in 0..3 {
                let Ok(Next::Lines(batch)) = reader.next(1 + dice.below(30) as usize, 2000) else { break };
                for i in 0..batch.len() {
                    let (number, line) = (batch.first + i as u64, batch.line(i).to_vec());
                    let known =
                        promised.appended.get(&number) == Some(&line) || promised.failed.contains(&line);
                    assert!(known, "line {number}");
                }
            }
        }
    }
}

fn kind(seed: u64) -> LaneOptions {
    let options = options().compression(seed.is_multiple_of(2));
    if seed.is_multiple_of(3) { options.bytes_max(12_000) } else { options }
}

#[test]
fn d4_no_end_of_the_process_or_the_power_breaks_a_promise() {
    let histories = part(4_000);
    let mut states = 0;
    for seed in 0..histories {
        let mut dice = Dice::new(seed);
        let mut disk = SimDisk::new();
        let mut promised = Promised { next_id: 1, synced: 1, floor: 1, ..Promised::default() };
        for life in 0..3 {
            let context = format!("seed {seed}, life {life}");
            let lane = open(&disk, kind(seed)).unwrap();
            for _ in 0..dice.below(40) {
                step(&lane, &mut dice, &mut promised);
                // An end after every few steps, looked at on the side.
                if dice.below(4) == 0 {
                    let killed = open(&disk.after_kill(), kind(seed)).unwrap();
                    promised.clone().check(&killed, true, &context);
                    for cut in 0..5 {
                        let cut = disk.after_power_cut(seed.wrapping_mul(31) + cut);
                        promised.clone().check(&open(&cut, kind(seed)).unwrap(), false, &context);
                    }
                    states += 6;
                }
            }
            let killed = dice.below(2) == 0;
            disk = if killed { disk.after_kill() } else { disk.after_power_cut(seed + life) };
            promised.check(&open(&disk, kind(seed)).unwrap(), killed, &context);
            disk = disk.after_kill();
        }
    }
    told("D4", states, 0);
}

#[test]
fn d5_random_operations_agree_with_a_plain_model() {
    let cases = part(10_000);
    for seed in 0..cases {
        let mut dice = Dice::new(seed ^ 0xd5);
        let mut disk = SimDisk::new();
        let mut promised = Promised { next_id: 1, synced: 1, floor: 1, ..Promised::default() };
        let mut lane = open(&disk, kind(seed)).unwrap();
        for operation in 0..200 {
            match dice.below(30) {
                0 => {
                    let context = format!("seed {seed}, operation {operation}");
                    disk.heal();
                    disk.set_capacity(None);
                    // Pages that a failed sync lost are only in the memory of who saw it fail.
                    lane.sync().unwrap();
                    drop(lane);
                    disk = disk.after_kill();
                    lane = open(&disk, kind(seed)).unwrap();
                    promised.check(&lane, true, &context);
                }
                1 => disk.set_capacity(Some(4000 + dice.below(20_000))),
                2 => disk.set_capacity(None),
                3 => {
                    let errno = [NO_SPACE, IO_ERROR, READ_ONLY, TOO_MANY_FILES][dice.below(4) as usize];
                    let call = [None, Some(Call::Write), Some(Call::Sync)][dice.below(3) as usize];
                    disk.fail(Fault { call, after: dice.below(4), times: 1 + dice.below(3), errno });
                }
                4 => disk.heal(),
                _ => step(&lane, &mut dice, &mut promised),
            }
        }
        disk.heal();
        disk.set_capacity(None);
        lane.sync().unwrap();
        promised.synced = lane.next_number();
        drop(lane);
        let after = open(&disk.after_power_cut(seed), kind(seed)).unwrap();
        promised.check(&after, false, &format!("seed {seed}, at the end"));
    }
    told("D5", cases, 0xd5);
}

const CHILD: &str = "GRAYLOGIC_TORTURE_CHILD";

/// The process that D6 kills: one thread appends and says so, one sends and says so. Does nothing unless D6 started it.
#[test]
fn d6_child() {
    let Ok(told) = std::env::var(CHILD) else { return };
    let (folder, first_id) = told.rsplit_once(' ').unwrap();
    let spool = Spool::open(Arc::new(RealDisk), Path::new(folder)).unwrap();
    let options = LaneOptions::default().segment_bytes(20_000).keep_free(0);
    let lane = Arc::new(spool.lane("energy", options).unwrap().0);
    let say = |what: String| {
        // It ends with a line feed and is one write: a kill leaves whole words behind.
        std::io::Write::write_all(&mut std::io::stdout().lock(), what.as_bytes()).unwrap();
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut id: u64 = first_id.parse().unwrap();
            let mut dice = Dice::new(id);
            loop {
                let n = 1 + dice.below(40);
                lane.append(&lines(id..id + n)).unwrap();
                id += n;
                say(format!("\nspooled {id}\n"));
                if dice.below(20) == 0 {
                    lane.sync().unwrap();
                }
            }
        });
        let mut reader = lane.reader(lane.acknowledged());
        loop {
            match reader.next(50, 2000).unwrap() {
                Next::Lines(batch) => {
                    let ids: Vec<String> =
                        (0..batch.len()).map(|i| id_of(batch.line(i)).to_string()).collect();
                    say(format!("\nsent {}\n", ids.join(" ")));
                    lane.acknowledge(batch.first + batch.len() as u64);
                    lane.save_cursor().unwrap();
                }
                Next::Lost(damage) => say(format!("\nlost {damage:?}\n")),
                _ => std::thread::yield_now(),
            }
        }
    });
}

/// The id of a line, when it is one of ours byte for byte.
fn id_of(of: &[u8]) -> u64 {
    let text = String::from_utf8_lossy(of);
    let id: u64 = text.trim_end().rsplit(' ').next().unwrap().parse().unwrap();
    assert_eq!(of, line(id), "a line is what was appended");
    id
}

#[test]
fn d6_a_killed_process_loses_nothing_it_spooled() {
    use std::io::Read;
    let rounds = part(1000);
    let folder = tempfile::tempdir().unwrap();
    let mut dice = Dice::new(6);
    let (mut spooled, mut sent) = (Vec::new(), BTreeSet::new());
    let mut order = Vec::new();
    for round in 0..rounds {
        let first_id = round * 10_000_000;
        let mut child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["d6_child", "--exact", "--nocapture", "--test-threads=1"])
            .env(CHILD, format!("{} {first_id}", folder.path().display()))
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut out = child.stdout.take().unwrap();
        let reading = std::thread::spawn(move || {
            let mut all = String::new();
            out.read_to_string(&mut all).map(|_| all)
        });
        std::thread::sleep(std::time::Duration::from_millis(4 + dice.below(40)));
        child.kill().unwrap();
        child.wait().unwrap();
        let mut until = first_id;
        for word in reading.join().unwrap().unwrap().lines() {
            if let Some(id) = word.strip_prefix("spooled ") {
                until = id.parse().unwrap();
            } else if let Some(ids) = word.strip_prefix("sent ") {
                for id in ids.split(' ').map(|id| id.parse::<u64>().unwrap()) {
                    if sent.insert(id) {
                        order.push(id);
                    }
                }
            } else {
                assert!(!word.starts_with("lost") && !word.contains("panicked"), "round {round}: {word}");
            }
        }
        spooled.push(first_id..until);
    }
    let spool = Spool::open(Arc::new(RealDisk), folder.path()).unwrap();
    let lane = spool.lane("energy", LaneOptions::default().keep_free(0)).unwrap().0;
    let (rest, lost) = content(&lane);
    assert!(lost.is_empty());
    for id in rest.values().map(|line| id_of(line)) {
        if sent.insert(id) {
            order.push(id);
        }
    }
    for id in spooled.iter().cloned().flatten() {
        assert!(sent.contains(&id), "line {id} was spooled and never sent");
    }
    assert!(order.is_sorted(), "lines are sent in their order");
    let lines: u64 = spooled.iter().map(|ids| ids.end - ids.start).sum();
    assert!(lines > rounds, "the process had time to append");
    println!("D6: {lines} lines spooled, {} sent", sent.len());
    told("D6", rounds, 6);
}

/// What the version that made `fixtures/spool/v1` appended, acknowledged and parked. With `GRAYLOGIC_FIXTURE` set to a
/// new folder, the fixture is written there instead.
#[test]
fn d11_a_spool_of_every_version_opens_and_reads() {
    let expected: Vec<Vec<u8>> = (0..400).map(line).collect();
    if let Ok(folder) = std::env::var("GRAYLOGIC_FIXTURE") {
        let spool = Spool::open(Arc::new(RealDisk), Path::new(&folder)).unwrap();
        let options =
            |compressed| LaneOptions::default().segment_bytes(4000).compression(compressed).keep_free(0);
        for (compressed, ids) in [(false, 0..200), (true, 200..400)] {
            let lane = spool.lane("energy/EG", options(compressed)).unwrap().0;
            for from in ids.step_by(25) {
                lane.append(&lines(from..from + 25)).unwrap();
            }
            lane.sync().unwrap();
            let dead = line(2);
            lane.park(&[DeadLine {
                number: 3,
                time: 1_700_000_000_000_000_000,
                reason: "field type conflict",
                line: &dead,
            }])
            .unwrap();
            lane.acknowledge(if compressed { 61 } else { 31 });
            lane.save_cursor().unwrap();
        }
        return;
    }
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/spool");
    let mut cases = 0;
    for version in std::fs::read_dir(fixtures).unwrap() {
        let folder = tempfile::tempdir().unwrap();
        copy(&version.unwrap().path(), folder.path());
        let spool = Spool::open(Arc::new(RealDisk), folder.path()).unwrap();
        assert_eq!(spool.lanes().unwrap(), ["energy/EG"]);
        let (lane, recovery) = spool.lane("energy/EG", LaneOptions::default().keep_free(0)).unwrap();
        assert!(recovery.damage.is_empty() && recovery.cursor.is_none(), "{recovery:?}");
        let (found, lost) = content(&lane);
        assert!(lost.is_empty());
        assert_eq!(found.keys().copied().collect::<Vec<u64>>(), (61..=400).collect::<Vec<u64>>());
        assert!(found.iter().all(|(number, line)| *line == expected[*number as usize - 1]));
        let dead = lane.dead().unwrap();
        assert_eq!(dead.len(), 2);
        assert!(dead.iter().all(|d| d.line == line(2) && d.reason == "field type conflict"));
        assert_eq!(lane.append(&lines(400..401)).unwrap().first, 401);
        cases += 1;
    }
    assert!(cases > 0);
    told("D11", cases, 0);
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}

#[test]
fn d7_a_disk_that_fills_and_frees_goes_on() {
    let cases = part(200).max(10);
    let disk: Arc<dyn Disk> = Arc::new(MemoryDisk::new(60_000));
    let mut id = 1;
    let mut delivered = 0;
    for cycle in 0..cases {
        let open = Spool::open(disk.clone(), Path::new("/s")).unwrap().lane("l", options()).unwrap();
        let lane = open.0;
        let before = lane.stats().waiting;
        let mut appended = 0;
        let error = loop {
            match lane.append(&lines(id..id + 20)) {
                Ok(_) => (id, appended) = (id + 20, appended + 20),
                Err(error) => break error,
            }
        };
        assert!(error.is_no_space(), "cycle {cycle}: {error}");
        assert!(lane.stats().waiting >= before + appended);
        // Freeing needs no room.
        let (found, lost) = content(&lane);
        assert!(lost.is_empty());
        delivered += found.len() as u64;
        lane.acknowledge(u64::MAX);
        lane.save_cursor().unwrap();
        let room = lane.append(&lines(id..id + 5));
        assert!(room.is_ok(), "cycle {cycle}: {room:?}");
        id += 5;
    }
    assert!(delivered >= id - 6, "{delivered} of {id}");
    told("D7", cases, 0);
}

#[test]
fn d8_every_failing_call_is_an_error_that_passes() {
    let mut cases = 0;
    for errno in [NO_SPACE, IO_ERROR, READ_ONLY, TOO_MANY_FILES, 13] {
        for after in 0.. {
            let disk = SimDisk::new();
            disk.fail(Fault { call: None, after, times: 1, errno });
            let mut promised = Promised { next_id: 1, synced: 1, floor: 1, ..Promised::default() };
            let mut dice = Dice::new(8);
            let calls = disk.calls();
            let lane = match open(&disk, options()) {
                Ok(lane) => lane,
                Err(error) => {
                    assert!(!error.to_string().is_empty());
                    open(&disk, options()).unwrap()
                }
            };
            for _ in 0..60 {
                step(&lane, &mut dice, &mut promised);
            }
            let used = disk.calls() - calls;
            promised.synced = promised.synced.max(lane.sync().unwrap_or(1));
            drop(lane);
            let killed = disk.after_kill();
            promised.clone().check(
                &open(&killed, options()).unwrap(),
                true,
                &format!("{errno} after {after}"),
            );
            let cut = disk.after_power_cut(after);
            promised.check(&open(&cut, options()).unwrap(), false, &format!("{errno} after {after}"));
            cases += 1;
            if after > used {
                break;
            }
        }
    }
    told("D8", cases, 8);
}

#[test]
fn d9_no_clock_changes_what_is_kept() {
    static NOW: std::sync::atomic::AtomicI64 = std::sync::atomic::AtomicI64::new(0);
    fn now() -> i64 {
        NOW.load(std::sync::atomic::Ordering::Relaxed)
    }
    let cases = part(500).max(20);
    for seed in 0..cases {
        let mut dice = Dice::new(seed ^ 9);
        let disk = SimDisk::new();
        let mut promised = Promised { next_id: 1, synced: 1, floor: 1, ..Promised::default() };
        let lane = open(&disk, options().clock(now)).unwrap();
        for _ in 0..60 {
            let jumps = [
                -1i64,
                0,
                i64::MIN,
                i64::MAX,
                3_600_000_000_000,
                -3_600_000_000_000,
                315_360_000_000_000_000,
            ];
            NOW.store(jumps[dice.below(7) as usize], std::sync::atomic::Ordering::Relaxed);
            step(&lane, &mut dice, &mut promised);
            let _ = lane.stats();
        }
        drop(lane);
        promised.check(&open(&disk.after_kill(), options()).unwrap(), true, &format!("seed {seed}"));
    }
    told("D9", cases, 9);
}

#[test]
fn d10_a_spool_has_one_owner_and_a_dead_one_holds_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let cases = part(50).max(5);
    for _ in 0..cases {
        let first = Spool::open(Arc::new(RealDisk), folder.path()).unwrap();
        let (lane, _) = first.lane("a", LaneOptions::default()).unwrap();
        drop(first);
        let error = Spool::open(Arc::new(RealDisk), folder.path()).unwrap_err();
        assert!(error.is_locked() && error.to_string().contains("another process"), "{error}");
        drop(lane);
        assert!(folder.path().join("LOCK").exists(), "a lock file that stays is no lock");
    }
    told("D10", cases, 0);
}

#[test]
fn d12_a_long_backlog_opens_without_being_read() {
    let megabytes = part(1000);
    let folder = tempfile::tempdir().unwrap();
    let options = LaneOptions::default().compression(false).keep_free(0).bytes_max(u64::MAX);
    let spool = Spool::open(Arc::new(RealDisk), folder.path()).unwrap();
    let (lane, _) = spool.lane("a", options.clone()).unwrap();
    let some = lines(0..20_000);
    while lane.stats().bytes < megabytes << 20 {
        lane.append(&some).unwrap();
    }
    let waiting = lane.stats().waiting;
    drop((lane, spool));
    let began = std::time::Instant::now();
    let spool = Spool::open(Arc::new(RealDisk), folder.path()).unwrap();
    let (lane, recovery) = spool.lane("a", options).unwrap();
    let opened = began.elapsed();
    assert_eq!((recovery.waiting, recovery.damage.len()), (waiting, 0));
    assert!(matches!(lane.reader(1).next(100, 1 << 20).unwrap(), Next::Lines(b) if b.len() == 100));
    println!("D12: {megabytes} MiB opened in {opened:?}");
    told("D12", 1, 0);
}

#[test]
fn d13_arbitrary_bytes_are_no_lines_and_no_panic() {
    let cases = part(100_000);
    let (disk, appended) = filled(&[20, 20]);
    let path = segments(&disk).remove(0);
    let whole = disk.bytes(&path).unwrap();
    for seed in 0..cases {
        let mut dice = Dice::new(seed ^ 0x13);
        let mut bytes: Vec<u8> = match dice.below(3) {
            0 => (0..dice.below(3000)).map(|_| dice.below(256) as u8).collect(),
            _ => whole.clone(),
        };
        for _ in 0..dice.below(40) {
            if bytes.is_empty() {
                break;
            }
            let at = dice.below(bytes.len() as u64) as usize;
            bytes[at] = dice.below(256) as u8;
        }
        let hurt = disk.after_kill();
        hurt.set_bytes(&path, bytes);
        let lane = open(&hurt, options()).unwrap();
        for (number, line) in content(&lane).0 {
            assert_eq!(appended.get(&number), Some(&line), "seed {seed}");
        }
    }
    told("D13", cases, 0x13);
}
