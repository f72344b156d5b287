//! A building core as it lives for years, in minutes: ten thousand readings a second, a process that is killed, a server
//! that comes and goes, a disk that fills, a clock that jumps. Every reading that was promised to be safe arrives, none
//! that nobody wrote, in bounded memory. `GRAYLOGIC_TORTURE` multiplies the time: 1 is five minutes.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs, unreachable_pub)]

#[allow(dead_code, reason = "each test uses a part of it")]
mod campaign;
#[allow(dead_code, reason = "each test uses a part of it")]
mod hostile;

use campaign::{Row, Toll, share};
use graylogic_influxdb::{Client, Config, Health, Level, Point, Timestamp, WhenFull, WriteErrorKind};
use hostile::{Do, Hostile, message};
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Readings come so many at a time, so often: 10,000 a second.
const READINGS: u64 = 100;
const EVERY: Duration = Duration::from_millis(10);
/// Ids of one life of the process begin here in each: times its number.
const LIFE: u64 = 100_000_000;
/// What the process may use.
const MEMORY_MAX: u64 = 64 << 20;
const DESCRIPTORS_MAX: u64 = 64;
/// The disk of the spool, when it can have one of its own.
const DISK_MEGABYTES: u64 = 24;
const SOON: Duration = Duration::from_secs(120);
const HOUR: i64 = 3600 * 1_000_000_000;
const TEN_YEARS: i64 = 87_660 * HOUR;

struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % n
    }

    fn between(&mut self, times: std::ops::Range<Duration>) -> Duration {
        times.start + Duration::from_millis(self.below((times.end - times.start).as_millis() as u64))
    }
}

fn line(id: u64) -> String {
    format!("power,device=d{} watts={}.5 {id}", id % 200, id % 4096)
}

// ---- the process that is killed -----------------------------------------------------------------------------------

const CHILD: &str = "GRAYLOGIC_SOAK_CHILD";
/// How far the clock of the process is from that of the machine.
static CLOCK_STEP: AtomicI64 = AtomicI64::new(0);

fn clock_that_jumps() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    now.as_nanos() as i64 + CLOCK_STEP.load(Ordering::Relaxed)
}

/// It ends with a line feed and is one write: a kill leaves whole words behind.
fn say(what: &str) {
    std::io::stdout().lock().write_all(format!("\n{what}\n").as_bytes()).unwrap();
}

/// The process of C1: writes readings, tells which of them are promised to be safe, and ends well only when it is told to.
/// Does nothing unless C1 started it.
#[test]
fn soak_child() {
    let Ok(told) = std::env::var(CHILD) else { return };
    let [spool, url, bytes_max, first] = told.split('|').collect::<Vec<_>>()[..] else { panic!("{told}") };
    let first: u64 = first.parse().unwrap();
    let config = Config::remote(url)
        .unwrap()
        .with_spool(Some(spool.into()))
        .with_quick_batches(5000, Duration::from_millis(100))
        .with_hurry(20)
        .with_spool_keep_free(0)
        .with_small_spool(bytes_max.parse().unwrap())
        .with_spool_when_full(WhenFull::DropNewest)
        .with_spool_clock(clock_that_jumps);
    let client = Client::connect(&config).unwrap();
    client.set_on_error(|e| match e.kind {
        WriteErrorKind::Degraded | WriteErrorKind::Delayed => {}
        _ => say(&format!("error {e}")),
    });
    let (accepted, ending) = (AtomicU64::new(first), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| write_readings(&client, first, &accepted, &ending));
        scope.spawn(|| {
            // What was accepted before a flush is safe after it.
            for level in [Level::Spooled, Level::Durable].into_iter().cycle() {
                let until = accepted.load(Ordering::Acquire);
                if client.flush(level, Duration::from_secs(1)).is_ok() {
                    say(&format!("safe {until}"));
                }
                if ending.load(Ordering::Acquire) {
                    return;
                }
                std::thread::sleep(Duration::from_millis(40));
            }
        });
        scope.spawn(|| {
            let steps = [0, HOUR, -HOUR, TEN_YEARS, 0, -TEN_YEARS, -7 * TEN_YEARS];
            for look in 0.. {
                CLOCK_STEP.store(steps[look / 10 % steps.len()], Ordering::Relaxed);
                if matches!(client.stats().health, Health::Degraded(_) | Health::Full) {
                    say("short");
                }
                if ending.load(Ordering::Acquire) {
                    return;
                }
                std::thread::sleep(Duration::from_millis(33));
            }
        });
        let mut word = String::new();
        std::io::stdin().lock().read_line(&mut word).unwrap();
        ending.store(true, Ordering::Release);
    });
    let flushed = client.flush(Level::Delivered, SOON);
    let s = client.stats();
    say(&format!("lost {}", s.rejected + s.dropped + s.damaged));
    let gone = s.delivered + s.rejected + s.dropped + s.damaged + s.waiting;
    say(&format!("unaccounted {}", (s.accepted + s.recovered).abs_diff(gone)));
    let report = client.close(SOON).unwrap();
    say(&format!("left {} {}", report.spooled, report.dropped));
    flushed.unwrap();
    say("done");
}

fn write_readings(client: &Client, first: u64, accepted: &AtomicU64, ending: &AtomicBool) {
    let began = Instant::now();
    let mut id = first;
    while !ending.load(Ordering::Acquire) {
        say(&format!("issued {}", id + READINGS));
        for _ in 0..READINGS {
            let point = Point::new("power").tag("device", format!("d{}", id % 200));
            let point = point.field("watts", (id % 4096) as f64 + 0.5);
            while let Err(error) = client.write_point_at(&point, Timestamp::from_nanos(id as i64)) {
                assert!(error.is_retryable(), "{error}");
                say("full");
                std::thread::sleep(Duration::from_millis(20));
            }
            id += 1;
            accepted.store(id, Ordering::Release);
        }
        let next = began + EVERY * ((id - first) / READINGS) as u32;
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
    }
}

// ---- who kills it -------------------------------------------------------------------------------------------------

/// A life of the process, and what it said of it.
struct Life {
    child: Child,
    tells: Option<ChildStdin>,
    hears: Option<JoinHandle<Said>>,
}

/// What a life said until it ended.
#[derive(Clone, Debug, Default)]
struct Said {
    /// Readings before this one may have been written, and were promised to be safe.
    issued: u64,
    safe: u64,
    full: u64,
    /// So often its spool had no room.
    short: u64,
    lost: u64,
    unaccounted: u64,
    left: String,
    done: bool,
    other: Vec<String>,
}

impl Life {
    fn begins(disk: &SmallDisk, url: &str, first: u64) -> Self {
        let (spool, bytes_max) = (disk.spool(), disk.spool_bytes_max());
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["soak_child", "--exact", "--nocapture", "--test-threads=1"])
            .env(CHILD, format!("{}|{url}|{bytes_max}|{first}", spool.display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let hears = std::thread::spawn(move || {
            let mut said = Said { issued: first, safe: first, ..Said::default() };
            for word in out.lines().map_while(Result::ok) {
                said.hear(&word);
            }
            said
        });
        Self { tells: child.stdin.take(), child, hears: Some(hears) }
    }

    fn is_killed(&mut self) -> Said {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.hears.take().unwrap().join().unwrap()
    }

    fn ends(&mut self) -> Said {
        self.tells.take().unwrap().write_all(b"end\n").unwrap();
        let said = self.hears.take().unwrap().join().unwrap();
        self.child.wait().unwrap();
        said
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        let _ended_already = self.child.kill();
        let _ended_already = self.child.wait();
    }
}

impl Said {
    fn hear(&mut self, line: &str) {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        let number = || rest.parse::<u64>();
        match (word, number()) {
            ("issued", Ok(n)) => self.issued = n,
            ("safe", Ok(n)) => self.safe = n,
            ("lost", Ok(n)) => self.lost = n,
            ("unaccounted", Ok(n)) => self.unaccounted = n,
            ("full", _) => self.full += 1,
            ("short", _) => self.short += 1,
            ("left", _) => self.left = rest.to_owned(),
            ("done", _) => self.done = true,
            // What the test harness says.
            ("" | "running" | "test" | "ok", _) => {}
            _ => self.other.push(line.to_owned()),
        }
    }
}

/// The folder of the spool: on a small disk of its own where this process may mount one.
struct SmallDisk {
    folder: tempfile::TempDir,
    is_mounted: bool,
}

impl SmallDisk {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let size = format!("size={DISK_MEGABYTES}m,nr_inodes=1000");
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .arg(folder.path())
            .stderr(Stdio::null())
            .status();
        Self { folder, is_mounted: mount.is_ok_and(|s| s.success()) }
    }

    fn spool(&self) -> PathBuf {
        self.folder.path().join("spool")
    }

    /// Where the disk cannot be filled, the spool is soon.
    fn spool_bytes_max(&self) -> u64 {
        if self.is_mounted { 1 << 30 } else { 40_000 }
    }

    /// Leaves no room for anybody.
    fn fill(&self) {
        if self.is_mounted {
            let mut filler = File::create(self.folder.path().join("filler")).unwrap();
            for piece in [1 << 20, 4096] {
                while filler.write_all(&vec![0x5a; piece]).is_ok() {}
            }
        }
    }

    fn free(&self) {
        let _was_not_filled = std::fs::remove_file(self.folder.path().join("filler"));
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        if self.is_mounted {
            let _stays_in_the_worst_case = Command::new("umount").arg("-l").arg(self.folder.path()).status();
        }
    }
}

/// Readings that came to the server, by life.
#[derive(Default)]
struct Came {
    lives: Vec<Vec<bool>>,
    foreign: Vec<String>,
    again: u64,
    readings: u64,
}

impl Came {
    fn take(&mut self, server: &Hostile) {
        let lines = std::mem::take(&mut server.seen.lock().unwrap().stored);
        for text in lines {
            let id = text.rsplit_once(' ').and_then(|(_, id)| id.parse::<u64>().ok());
            let Some(id) = id.filter(|id| text == line(*id)) else {
                self.foreign.push(text);
                continue;
            };
            let (life, at) = ((id / LIFE) as usize, (id % LIFE) as usize);
            if self.lives.len() <= life {
                self.lives.resize(life + 1, Vec::new());
            }
            let came = &mut self.lives[life];
            if came.len() <= at {
                came.resize(at + 1, false);
            }
            self.again += u64::from(std::mem::replace(&mut came[at], true));
            self.readings += 1;
        }
    }

    fn has(&self, id: u64) -> bool {
        let life = self.lives.get((id / LIFE) as usize);
        life.and_then(|l| l.get((id % LIFE) as usize)).is_some_and(|came| *came)
    }
}

/// The most that a process used, by what the system says.
#[derive(Default)]
struct Used {
    memory_bytes: u64,
    descriptors: u64,
    looks: u64,
}

impl Used {
    fn look(&mut self, process: u32) {
        let Ok(status) = std::fs::read_to_string(format!("/proc/{process}/status")) else { return };
        let resident = status.lines().find_map(|l| l.strip_prefix("VmRSS:"));
        // A process that has ended has no memory.
        let Some(kilobytes) = resident.and_then(|r| r.split_whitespace().next()?.parse::<u64>().ok()) else {
            return;
        };
        let open = std::fs::read_dir(format!("/proc/{process}/fd")).map_or(0, Iterator::count);
        self.memory_bytes = self.memory_bytes.max(kilobytes * 1024);
        self.descriptors = self.descriptors.max(open as u64);
        self.looks += 1;
    }
}

#[test]
fn c1_nothing_promised_is_lost_whatever_happens() {
    let torture = share(0.0);
    let time = Duration::from_secs(8).max(Duration::from_secs(300).mul_f64(torture));
    // The table's figure, or as many kills in less time.
    let (kill, trouble) = match torture >= 0.1 {
        true => (5000..15_000, 1000..6000),
        false => (1200..2200, 200..900),
    };
    let mut row = Row::new("C1", 0xc1);
    let mut lives = 0;
    row.case("soak", |toll| lives = soak(toll, time, kill, trouble));
    row.more(lives);
    row.tell();
}

fn soak(toll: &mut Toll, time: Duration, kill: std::ops::Range<u64>, trouble: std::ops::Range<u64>) -> u64 {
    let milliseconds =
        |r: &std::ops::Range<u64>| Duration::from_millis(r.start)..Duration::from_millis(r.end);
    let (kill, trouble) = (milliseconds(&kill), milliseconds(&trouble));
    let mut dice = Dice(0xc1);
    let down = Arc::new(AtomicBool::new(false));
    let is_down = down.clone();
    let server = Hostile::new(move |_| {
        is_down.load(Ordering::Relaxed).then(|| message("503 Service Unavailable", "starting"))
    });
    let disk = SmallDisk::new();
    let mut came = Came::default();
    let mut used = Used::default();
    let mut said: Vec<Said> = Vec::new();
    let (mut windows, mut outages) = (0, 0);
    let end = Instant::now() + time;
    let mut last = loop {
        let first = said.len() as u64 * LIFE;
        let mut life = Life::begins(&disk, &server.url(), first);
        let killed = Instant::now() + dice.between(kill.clone());
        let mut change = Instant::now() + dice.between(trouble.clone());
        while Instant::now() < killed.min(end) {
            std::thread::sleep(Duration::from_millis(20));
            used.look(life.child.id());
            came.take(&server);
            if Instant::now() >= change {
                change += dice.between(trouble.clone());
                server.is_mended();
                down.store(false, Ordering::Relaxed);
                disk.free();
                match dice.below(6) {
                    0 => {
                        disk.fill();
                        windows += 1;
                    }
                    1 => down.store(true, Ordering::Relaxed),
                    2 => server.will((0..100_000).map(|_| Do::Refuse)),
                    3 => server.will([Do::StoreThenDie, Do::ResetInBody, Do::NeverAnswer, Do::AnswerLate]),
                    // Nobody to take them, and nowhere to put them.
                    4 => {
                        disk.fill();
                        down.store(true, Ordering::Relaxed);
                        (windows, outages) = (windows + 1, outages + 1);
                    }
                    _ => {}
                }
            }
        }
        if Instant::now() >= end {
            break life;
        }
        said.push(life.is_killed());
    };
    // Everything is well again: what is promised comes, and the process can end.
    server.is_mended();
    down.store(false, Ordering::Relaxed);
    disk.free();
    let ending = Mutex::new(&mut last);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let process = ending.lock().unwrap().child.id();
        scope.spawn(|| {
            said.push(ending.lock().unwrap().ends());
            done.store(true, Ordering::Relaxed);
        });
        while !done.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(20));
            used.look(process);
            came.take(&server);
        }
    });
    came.take(&server);
    judge(toll, &said, &came);
    let least = 10_000 * time.as_secs() / 4;
    toll.expect(came.readings >= least, || format!("only {} readings came", came.readings));
    toll.expect(used.looks > 10, || "nobody looked at its memory".to_owned());
    toll.expect(used.memory_bytes <= MEMORY_MAX, || format!("{} bytes of memory", used.memory_bytes));
    toll.expect(used.descriptors <= DESCRIPTORS_MAX, || format!("{} descriptors", used.descriptors));
    let short: u64 = said.iter().map(|s| s.short).sum();
    toll.expect(windows == 0 || short > 0, || "there was no room, and nobody noticed".to_owned());
    println!(
        "C1: {time:?}, {} lives, {} readings came, {} of them again; {windows} times no room (looked {short} times), \
         {outages} of them without a server; {} calls refused; at most {} MiB and {} descriptors",
        said.len(),
        came.readings,
        came.again,
        said.iter().map(|s| s.full).sum::<u64>(),
        used.memory_bytes >> 20,
        used.descriptors
    );
    said.len() as u64
}

/// Compares what lives promised with what came.
fn judge(toll: &mut Toll, said: &[Said], came: &Came) {
    for (i, life) in said.iter().enumerate() {
        let first = i as u64 * LIFE;
        // What the last life wrote is all delivered: it was asked to.
        let is_last = i + 1 == said.len();
        let promised = if is_last { life.issued } else { life.safe };
        let lost: Vec<u64> = (first..promised).filter(|id| !came.has(*id)).collect();
        toll.lose(lost.len() as u64, || format!("of life {i}, readings {:?} and others", lost.first()));
        let known = came.lives.get(i).map_or(0, Vec::len) as u64;
        toll.expect(first + known <= life.issued, || format!("life {i} never wrote reading {known}"));
        toll.expect(life.other.is_empty(), || format!("life {i} said {:?}", life.other.first()));
        toll.lose(life.lost, || format!("life {i} says that it lost them"));
        toll.expect(life.unaccounted == 0, || format!("life {i}: {} not accounted for", life.unaccounted));
        toll.expect(life.done == is_last, || format!("life {i} ended by itself: {life:?}"));
    }
    let safe: u64 = said.iter().enumerate().map(|(i, s)| s.safe - i as u64 * LIFE).sum();
    toll.expect(safe > 0, || "no reading was promised to be safe".to_owned());
    toll.expect(said.last().is_some_and(|s| s.left == "0 0"), || format!("left behind: {:?}", said.last()));
    toll.expect(came.foreign.is_empty(), || {
        format!("{} lines that nobody wrote: {:?}", came.foreign.len(), came.foreign.first())
    });
    toll.expect(came.lives.len() <= said.len(), || "readings of a life that never was".to_owned());
}
