//! The spool on the data set: how fast it takes lines and gives them to a server that only counts, how long a call takes
//! while everything behind it stands still, what a backlog costs.

use super::dataset::DataSet;
use super::machine::{self, Place};
use super::median;
use crate::cli::Bench;
use crate::failure::Failure;
use crate::output::{answer, answer_json, remark};
use crate::text;
use graylogic_durable::{
    Disk, DiskFile, DiskLock, LaneOptions, Lines, MemoryDisk, Queue, QueueOptions, RealDisk, Space, Spool,
    SyncPolicy,
};
use graylogic_influxdb::{Client, Config, Level, Timestamp};
use serde_json::{Map, Value, json};
use std::io::{self, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Lines that a caller writes at once: the data set has so many each tick.
const PIECE_LINES: usize = 500;
/// What each measurement may take at most before it counts as failed.
const SOON: Duration = Duration::from_secs(120);
const ROUNDS: usize = 3;

pub(crate) fn run(options: &Bench, json: bool) -> Result<ExitCode, Failure> {
    if let Some(folder) = &options.open {
        return open_only(folder);
    }
    let part = if options.quick { 10 } else { 1 };
    let place = Place::new(options.dir.as_deref())?;
    let mut figures = Map::new();
    remark("appending, with a sync each 100 ms");
    append(&place.path, 6_000_000 / part, &mut figures)?;
    remark("writing 100 lines a millisecond while server, disk or sync stand still");
    calls(&place.path, 2000 / part, &mut figures)?;
    remark("100 lines a sync");
    flushes(&place.path, 2000 / part, &mut figures)?;
    remark("opening a backlog of a gigabyte");
    open(&place.path, 1_000_000_000 / part as u64, &mut figures)?;
    remark("draining into a server that only counts");
    drain(&place.path, 4_000_000 / part, &mut figures)?;
    if json {
        answer_json(&Value::Object(figures));
    } else {
        let shown = |v: &Value| v.as_f64().map_or_else(|| v.to_string(), text::number);
        let table: Vec<Vec<String>> = figures.iter().map(|(k, v)| vec![k.clone(), shown(v)]).collect();
        answer(text::table(&["figure", "spool"], &table).trim_end());
    }
    Ok(ExitCode::SUCCESS)
}

fn failed(doing: &str) -> impl Fn(graylogic_durable::Error) -> Failure {
    move |e| Failure::because(doing, e)
}

/// Lines of the data set, from its first on; made before the clock runs.
fn lines(n: usize) -> Lines {
    let mut lines = Lines::default();
    DataSet::new().lines(n, &mut lines.bytes);
    lines.ends = memchr::memchr_iter(b'\n', &lines.bytes).map(|i| i as u32 + 1).collect();
    lines
}

fn line(lines: &Lines, i: usize) -> &[u8] {
    let from = if i == 0 { 0 } else { lines.ends[i - 1] as usize };
    &lines.bytes[from..lines.ends[i] as usize]
}

/// A queue over a lane of its own in a folder.
fn queue(disk: Arc<dyn Disk>, folder: &Path, options: QueueOptions) -> Result<Queue, Failure> {
    let folder = folder.to_owned();
    let lane = LaneOptions::default().keep_free(0);
    let open = move || Spool::open(disk.clone(), &folder)?.lane("bench", lane.clone());
    Queue::start("bench", options, open, |_| {}).map_err(|e| Failure::because("start a queue", e))
}

fn end(queue: &Queue) -> Result<(), Failure> {
    queue.close();
    queue.abandon();
    queue.sender_ended();
    if queue.wait_ended(Instant::now() + SOON) { Ok(()) } else { Err(Failure::new("the queue did not end")) }
}

/// From one caller, line by line, until the last line is safe from a power cut.
fn append(folder: &Path, n: usize, figures: &mut Map<String, Value>) -> Result<(), Failure> {
    let some = lines(PIECE_LINES * 200);
    let (mut rates, mut bytes) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let folder = folder.join(format!("append-{round}"));
        let options = QueueOptions::default().sync(SyncPolicy::Every(Duration::from_millis(100)));
        let queue = queue(Arc::new(RealDisk), &folder, options)?;
        let began = Instant::now();
        let mut written = 0;
        while written < n {
            let next = line(&some, written % some.ends.len());
            let accepted = queue.accept(|out| {
                out.extend_from_slice(next);
                Ok::<(), io::Error>(())
            });
            match accepted {
                Ok(_) => written += 1,
                // As a caller who may wait would: the disk is slower than the lines come.
                Err(_) => std::thread::sleep(Duration::from_millis(1)),
            }
        }
        if queue.wait(Level::Durable, Instant::now() + SOON) > 0 {
            return Err(Failure::new("the lines were not synced in time"));
        }
        rates.push(n as f64 / began.elapsed().as_secs_f64());
        let held = queue.stats().lane.map_or(0, |l| l.bytes);
        bytes.push(held as f64 / n as f64);
        end(&queue)?;
    }
    figures.insert("append_lines_per_s".into(), json!(median(rates)));
    figures.insert("disk_bytes_per_point".into(), json!(median(bytes)));
    Ok(())
}

/// The longest of three: a server that takes connections and never answers, a disk that is full, syncs that take a
/// second.
fn calls(folder: &Path, millis: usize, figures: &mut Map<String, Value>) -> Result<(), Failure> {
    let some = lines(10_000);
    let paced = |write: &dyn Fn(&[u8]) -> Result<(), Failure>| -> Result<Calls, Failure> {
        let mut nanos = Vec::with_capacity(millis * 100);
        let mut own_over = 0;
        let began = Instant::now();
        for k in 0..millis {
            let mut preempted = machine::preempted_nanos();
            for i in 0..100 {
                let next = line(&some, (k * 100 + i) % some.ends.len());
                let called = Instant::now();
                write(next)?;
                let took = called.elapsed().as_nanos() as f64;
                nanos.push(took);
                if took > OVER_NANOS {
                    // Whether it would have been over had it had a processor all the time.
                    let before = std::mem::replace(&mut preempted, machine::preempted_nanos());
                    own_over += usize::from(took - preempted.saturating_sub(before) as f64 > OVER_NANOS);
                }
            }
            let due = began + Duration::from_millis(k as u64 + 1);
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
        }
        Ok(Calls::of(nanos, own_over))
    };
    // What the machine does to a call that does nothing.
    let nothing = paced(&|next| {
        std::hint::black_box(next);
        Ok(())
    })?;
    let mut others = Vec::new();
    let mut found = Vec::new();
    {
        let hung = Server::start(Answers::Never)?;
        let config = config(&hung, &folder.join("hung"))?;
        let client = connect(&config)?;
        let series = client
            .series("energy", &[("device", "meter-007"), ("room", "r00")], &["power_watts"])
            .map_err(|e| Failure::because("prepare a series", e))?;
        let at = AtomicU64::new(1_700_000_000_000_000_000);
        found.push(paced(&|_| {
            let time = Timestamp::from_nanos(at.fetch_add(1000, Ordering::Relaxed) as i64);
            series.write_float(221.5, Some(time)).map_err(|e| Failure::because("write", e))
        })?);
        type Ask<'a> = &'a dyn Fn(&Client);
        let asks: [Ask<'_>; 6] = [
            &|c| drop(c.stats()),
            &|c| drop(c.buckets()),
            &|c| drop(c.metrics()),
            &|c| {
                std::hint::black_box(c.is_connected());
            },
            &|c| drop(c.series("energy", &[("device", "m")], &["power_watts"])),
            &|c| c.set_on_error(|_| {}),
        ];
        for ask in asks {
            others.push(paced(&|_| {
                ask(&client);
                Ok(())
            })?);
        }
        client.close(Duration::from_millis(10)).map_err(|e| Failure::because("close", e))?;
    }
    let full: Arc<dyn Disk> = Arc::new(MemoryDisk::new(64 << 10));
    let slow: Arc<dyn Disk> = Arc::new(SlowSync(RealDisk));
    for (name, disk) in [("full", full), ("slow", slow)] {
        let options = QueueOptions::default().memory_bytes_max(256 << 20);
        let queue = queue(disk, &folder.join(name), options)?;
        found.push(paced(&|next| {
            let accepted = queue.accept(|out| {
                out.extend_from_slice(next);
                Ok::<(), io::Error>(())
            });
            accepted.map(|_| ()).map_err(|_| Failure::new("a line was refused"))
        })?);
        end(&queue)?;
    }
    let longest = |calls: &[Calls], of: fn(&Calls) -> f64| calls.iter().map(of).fold(0.0, f64::max);
    figures.insert("write_call_p50_ns".into(), json!(longest(&found, |c| c.p50)));
    figures.insert("write_call_p999_ns".into(), json!(longest(&found, |c| c.p999)));
    figures.insert("write_calls_over_1ms_per_million".into(), json!(longest(&found, |c| c.over_1ms)));
    figures.insert(
        "write_calls_over_1ms_of_their_own_per_million".into(),
        json!(longest(&found, |c| c.own_over)),
    );
    figures.insert("other_call_p999_ns".into(), json!(longest(&others, |c| c.p999)));
    figures.insert("other_calls_over_1ms_per_million".into(), json!(longest(&others, |c| c.over_1ms)));
    figures.insert(
        "other_calls_over_1ms_of_their_own_per_million".into(),
        json!(longest(&others, |c| c.own_over)),
    );
    figures.insert("no_call_over_1ms_per_million".into(), json!(nothing.over_1ms));
    Ok(())
}

/// How long calls took, in nanoseconds, and how many of a million took more than a millisecond.
struct Calls {
    p50: f64,
    p999: f64,
    over_1ms: f64,
    /// Without the time in which others had the processors.
    own_over: f64,
}

/// What no call should take.
const OVER_NANOS: f64 = 1e6;

impl Calls {
    fn of(mut nanos: Vec<f64>, own_over: usize) -> Self {
        nanos.sort_by(f64::total_cmp);
        let over = nanos.iter().filter(|n| **n > OVER_NANOS).count();
        let of_million = |n: usize| n as f64 / nanos.len() as f64 * 1e6;
        Self {
            p50: nanos[nanos.len() / 2],
            p999: nanos[nanos.len() * 999 / 1000],
            over_1ms: of_million(over),
            own_over: of_million(own_over),
        }
    }
}

/// What the device is given for each byte of lines, with a sync after each 100 lines.
fn flushes(folder: &Path, n: usize, figures: &mut Map<String, Value>) -> Result<(), Failure> {
    let spool = Spool::open(Arc::new(RealDisk), &folder.join("flushes")).map_err(failed("open a spool"))?;
    let (lane, _) =
        spool.lane("bench", LaneOptions::default().keep_free(0)).map_err(failed("open a lane"))?;
    let some = lines(100 * n);
    let written = machine::written_bytes();
    let mut hundred = Lines::default();
    for k in 0..n {
        hundred.clear();
        (k * 100..k * 100 + 100).for_each(|i| hundred.push(line(&some, i)));
        lane.append(&hundred).map_err(failed("append"))?;
        lane.sync().map_err(failed("sync"))?;
    }
    let written = machine::written_bytes() - written;
    let payload = some.bytes.len() as f64;
    figures.insert("device_bytes_per_payload_byte".into(), json!(written as f64 / payload));
    Ok(())
}

/// A backlog that was written without compression, so that it is as long as it says.
fn open(folder: &Path, bytes: u64, figures: &mut Map<String, Value>) -> Result<(), Failure> {
    let folder = folder.join("backlog");
    let options = LaneOptions::default().keep_free(0).bytes_max(u64::MAX);
    {
        let some = lines(5000);
        let spool = Spool::open(Arc::new(RealDisk), &folder).map_err(failed("open a spool"))?;
        let (lane, _) =
            spool.lane("bench", options.clone().compression(false)).map_err(failed("open a lane"))?;
        let mut held = 0;
        while held < bytes {
            lane.append(&some).map_err(failed("append"))?;
            held += some.bytes.len() as u64;
        }
        lane.sync().map_err(failed("sync"))?;
    }
    // Each in a process of its own, whose memory is all that opening takes.
    let (mut times, mut memory) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let program = std::env::current_exe().map_err(|e| Failure::because("find this program", e))?;
        let opened = std::process::Command::new(program)
            .args(["bench", "spool", "--json", "--open"])
            .arg(&folder)
            .output()
            .map_err(|e| Failure::because("start this program again", e))?;
        let found: Value = serde_json::from_slice(&opened.stdout)
            .map_err(|e| Failure::because("read what the process that opened the backlog said", e))?;
        times.extend(found["open_ms"].as_f64());
        memory.extend(found["memory_mb"].as_f64());
    }
    if times.len() < ROUNDS || memory.len() < ROUNDS {
        return Err(Failure::new("the backlog could not be opened"));
    }
    figures.insert("open_1gb_ms".into(), json!(median(times)));
    figures.insert("open_1gb_mb".into(), json!(median(memory)));
    let _removed_with_the_others_otherwise = std::fs::remove_dir_all(&folder);
    Ok(())
}

/// What the process does that [`open`] starts.
fn open_only(folder: &Path) -> Result<ExitCode, Failure> {
    let began = Instant::now();
    let spool = Spool::open(Arc::new(RealDisk), folder).map_err(failed("open a spool"))?;
    let options = LaneOptions::default().keep_free(0).bytes_max(u64::MAX);
    let (lane, _) = spool.lane("bench", options).map_err(failed("open a lane"))?;
    let millis = began.elapsed().as_secs_f64() * 1e3;
    if lane.stats().waiting == 0 {
        return Err(Failure::new("the backlog was not found"));
    }
    answer_json(&json!({ "open_ms": millis, "memory_mb": machine::peak_bytes() as f64 / 1e6 }));
    Ok(ExitCode::SUCCESS)
}

/// A backlog goes out through the client, in requests of 5,000 lines.
fn drain(folder: &Path, n: usize, figures: &mut Map<String, Value>) -> Result<(), Failure> {
    let mut rates = Vec::new();
    for round in 0..ROUNDS {
        let folder = folder.join(format!("drain-{round}"));
        {
            let some = lines(50_000);
            let spool = Spool::open(Arc::new(RealDisk), &folder).map_err(failed("open a spool"))?;
            let options = LaneOptions::default().keep_free(0).bytes_max(u64::MAX);
            let (lane, _) = spool.lane("telemetry", options).map_err(failed("open a lane"))?;
            for _ in 0..n / some.ends.len() {
                lane.append(&some).map_err(failed("append"))?;
            }
            lane.sync().map_err(failed("sync"))?;
        }
        let server = Server::start(Answers::Counting)?;
        let began = Instant::now();
        let client = connect(&config(&server, &folder)?.with_batches(5000, Duration::from_secs(1)))?;
        while client.stats().waiting > 0 {
            if began.elapsed() > SOON {
                return Err(Failure::new("the backlog was not drained in time"));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        rates.push(n as f64 / began.elapsed().as_secs_f64());
        let counted = server.lines.load(Ordering::Relaxed);
        if counted != n as u64 {
            return Err(Failure::new(format!("the server counted {counted} lines of {n}")));
        }
        client.close(SOON).map_err(|e| Failure::because("close", e))?;
    }
    figures.insert("drain_lines_per_s".into(), json!(median(rates)));
    Ok(())
}

fn config(server: &Server, spool: &Path) -> Result<Config, Failure> {
    let config = Config::remote(&server.url).map_err(|e| Failure::because("the server's address", e))?;
    Ok(config.with_spool(Some(spool.to_owned())))
}

fn connect(config: &Config) -> Result<Client, Failure> {
    Client::connect(config).map_err(|e| Failure::because("connect", e))
}

/// The disk of the machine, with syncs that take a second.
#[derive(Debug)]
struct SlowSync(RealDisk);

#[derive(Debug)]
struct SlowFile(Arc<dyn DiskFile>);

impl DiskFile for SlowFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        std::thread::sleep(Duration::from_secs(1));
        self.0.sync()
    }

    fn truncate(&self, bytes: u64) -> io::Result<()> {
        self.0.truncate(bytes)
    }

    fn bytes(&self) -> io::Result<u64> {
        self.0.bytes()
    }
}

impl Disk for SlowSync {
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.0.create_dir_all(path)
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<graylogic_durable::DirEntry>> {
        self.0.list(directory)
    }

    fn open(&self, path: &Path, mode: graylogic_durable::OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(SlowFile(self.0.open(path, mode)?)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.0.remove(path)
    }

    fn sync_dir(&self, directory: &Path) -> io::Result<()> {
        self.0.sync_dir(directory)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn DiskLock>> {
        self.0.lock(path)
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        self.0.space(path)
    }
}

/// What a server of the bench does with requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answers {
    Counting,
    Never,
}

/// A server on a free port of this machine that counts lines. Its thread ends with the process.
struct Server {
    url: String,
    lines: Arc<AtomicU64>,
}

impl Server {
    fn start(answers: Answers) -> Result<Self, Failure> {
        let starting = |e| Failure::because("start a server", e);
        let listener = TcpListener::bind("127.0.0.1:0").map_err(starting)?;
        let url = format!("http://{}", listener.local_addr().map_err(starting)?);
        let lines = Arc::new(AtomicU64::new(0));
        let counted = lines.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let counted = counted.clone();
                std::thread::spawn(move || {
                    let _ends_with_the_connection = serve(stream, answers, &counted);
                });
            }
        });
        Ok(Self { url, lines })
    }
}

/// Requests with a length, one after the other.
fn serve(mut stream: TcpStream, answers: Answers, lines: &AtomicU64) -> io::Result<()> {
    let mut buffer = vec![0; 1 << 20];
    let mut filled = 0;
    loop {
        let head_end = loop {
            if let Some(at) = buffer[..filled].windows(4).take(16 << 10).position(|w| w == b"\r\n\r\n") {
                break at + 4;
            }
            match stream.read(&mut buffer[filled..])? {
                0 => return Ok(()),
                n => filled += n,
            }
        };
        let head = String::from_utf8_lossy(&buffer[..head_end]).to_ascii_lowercase();
        let length = head.lines().find_map(|l| l.strip_prefix("content-length:"));
        let mut left: usize = length.and_then(|l| l.trim().parse().ok()).unwrap_or(0);
        let mut count = 0;
        let mut at = head_end;
        loop {
            let piece = (filled - at).min(left);
            count += memchr::memchr_iter(b'\n', &buffer[at..at + piece]).count();
            left -= piece;
            at += piece;
            if left == 0 {
                break;
            }
            (at, filled) = (0, stream.read(&mut buffer)?);
            if filled == 0 {
                return Ok(());
            }
        }
        buffer.copy_within(at..filled, 0);
        filled -= at;
        if answers == Answers::Counting {
            lines.fetch_add(count as u64, Ordering::Relaxed);
            stream.write_all(b"HTTP/1.1 204 No Content\r\nX-Influxdb-Version: v2.8.0\r\n\r\n")?;
        }
    }
}
