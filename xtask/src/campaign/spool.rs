//! The spool against servers that others wrote, killed and started again while readings are written, and so is the
//! process that writes them (the example `promises`). Every reading that was said to be safe must be in the server.
//! Knows what that process says and how the servers are asked; must not know what is in a spool.

use super::{STOP_MAX, free_port};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const READINGS: u64 = 200_000;
/// Readings that meet a server without their database.
const READINGS_HELD: u64 = 1000;
const FIRST_MILLISECOND: u64 = 1_700_000_000_000;
const START_MAX: Duration = Duration::from_secs(20);
const ALL_MAX: Duration = Duration::from_secs(120);
/// How long a server that was killed is away: readings pile up in the spool meanwhile.
const AWAY: Duration = Duration::from_millis(1500);

/// What is done once so many readings were written.
const TROUBLE: &[(u64, Trouble)] = &[
    (15_000, Trouble::WriterIsKilled),
    (40_000, Trouble::ServerIsKilled),
    (65_000, Trouble::ServerEnds),
    (90_000, Trouble::WriterIsKilled),
    (115_000, Trouble::BothAreKilled),
    (145_000, Trouble::ServerIsKilled),
    (170_000, Trouble::WriterIsKilled),
];

#[derive(Clone, Copy, Debug)]
enum Trouble {
    /// `kill -9` of the process that writes; the next goes on with its spool.
    WriterIsKilled,
    /// `kill -9` of the server, whatever the writer is doing.
    ServerIsKilled,
    /// SIGTERM: the server ends by itself.
    ServerEnds,
    /// The writer while the server is away.
    BothAreKilled,
}

/// The programs that are needed.
pub(super) struct Programs {
    pub(super) promises: PathBuf,
    pub(super) victoria_metrics: PathBuf,
    pub(super) influxd: PathBuf,
}

/// Runs all parts, each in a folder of its own.
pub(super) fn run(programs: &Programs, folder: &Path) -> Result<(), String> {
    killed(programs, Product::VictoriaMetrics, &folder.join("killed-victoria-metrics"))?;
    killed(programs, Product::InfluxDb, &folder.join("killed-influxdb"))?;
    held(programs, &folder.join("held"))
}

/// 200,000 readings while somebody kills the server and the writer.
fn killed(programs: &Programs, product: Product, folder: &Path) -> Result<(), String> {
    let spool = make(folder)?.join("spool");
    let began = Instant::now();
    let mut server = Server::of(product, programs, folder)?;
    server.make_database()?;
    let writer = |server: &Server, first: u64| {
        Writer::start(&programs.promises, &server.url(), &spool, first, READINGS.saturating_sub(first))
    };
    let mut lives = Vec::new();
    let mut life = writer(&server, 0)?;
    for &(at, trouble) in TROUBLE {
        // A process is killed when it has just promised something.
        life.wait(|said| {
            if matches!(trouble, Trouble::WriterIsKilled) { said.safe >= at } else { said.issued >= at }
        })?;
        match trouble {
            Trouble::WriterIsKilled => {
                lives.push(life.kill()?);
                life = writer(&server, lives.last().map_or(0, |l| l.issued))?;
            }
            Trouble::ServerEnds => server.end()?,
            Trouble::ServerIsKilled | Trouble::BothAreKilled => kill(&mut server, &life)?,
        }
        if matches!(trouble, Trouble::BothAreKilled) {
            std::thread::sleep(AWAY / 2);
            lives.push(life.kill()?);
            life = writer(&server, lives.last().map_or(0, |l| l.issued))?;
        }
        if !matches!(trouble, Trouble::WriterIsKilled) {
            std::thread::sleep(AWAY);
            server.start()?;
        }
    }
    lives.push(life.end_by_itself()?);
    let (there, again) = judge(&server, &lives)?;
    server.end()?;
    let safe: u64 = lives.iter().map(|l| l.safe - l.first).sum();
    println!(
        "campaign spool: {READINGS} readings, {safe} of them said to be safe by {} processes; {there} are in \
         {}, {again} came twice; {} troubles in {:.1} s",
        lives.len(),
        product.name(),
        TROUBLE.len(),
        began.elapsed().as_secs_f64()
    );
    Ok(())
}

/// Kills the server, and the requests that are under way with it.
///
/// VictoriaMetrics answers 204 for what is in its memory, and writes it to its files seconds later: what it loses of that
/// in a `kill -9` no client can know. So the writer is made to stand still, whatever it is doing, and the server to
/// write all that it took to its files, which a snapshot does: then everything it answered for must be there after the
/// kill, and what it did not answer for must come again. InfluxDB syncs what it answers for, and is killed as it is.
fn kill(server: &mut Server, life: &Writer) -> Result<(), String> {
    if server.product == Product::InfluxDb {
        server.kill();
        return Ok(());
    }
    signal("STOP", life.child.id())?;
    loop {
        let settled = server.settled()?;
        let kept = server.get("/snapshot/create")?;
        if !kept.contains("\"ok\"") {
            return Err(format!("campaign spool: the server did not write its snapshot: {kept}"));
        }
        // Unless more was taken since, by a machine that was busy with something else.
        if server.taken()? == settled {
            break;
        }
    }
    server.kill();
    signal("CONT", life.child.id())
}

/// Compares what lives promised with what is in the server; returns how many readings are there, and how many came again.
fn judge(server: &Server, lives: &[Said]) -> Result<(u64, u64), String> {
    let mut times = vec![0u32; READINGS as usize];
    for row in server.readings()? {
        let (time, device, watts) = row;
        let id = time.checked_sub(FIRST_MILLISECOND).filter(|id| *id < READINGS);
        let known = id.filter(|id| device == format!("d{}", id % 50) && watts == (id % 4096) as f64 + 0.5);
        let Some(id) = known else {
            return Err(format!("campaign spool: nobody wrote {device} {watts} {time}"));
        };
        times[id as usize] += 1;
    }
    let mut faults = Vec::new();
    let last = lives.len() - 1;
    for (i, life) in lives.iter().enumerate() {
        // What the last wrote is all delivered: it ended by itself.
        let promised = if i == last { life.issued } else { life.safe };
        let lost: Vec<u64> = (life.first..promised).filter(|id| times[*id as usize] == 0).collect();
        if let Some(first) = lost.first() {
            faults.push(format!(
                "process {i} said that {} readings are safe, and they are lost: {first} ...",
                lost.len()
            ));
        }
        if life.safe == life.first {
            faults.push(format!("process {i} said of no reading that it is safe"));
        }
    }
    let [accepted, recovered, delivered, rejected, dropped, damaged, spooled] = lives[last].ended[..] else {
        return Err(format!("campaign spool: the last process did not say how it ended: {:?}", lives[last]));
    };
    if accepted != lives[last].issued - lives[last].first
        || accepted + recovered != delivered
        || [rejected, dropped, damaged, spooled] != [0; 4]
    {
        faults.push(format!("its counts do not add up: {:?}", lives[last]));
    }
    if lives[last].issued != READINGS {
        faults.push(format!("only {} readings were written", lives[last].issued));
    }
    if !faults.is_empty() {
        return Err(format!("campaign spool: {}", faults.join("\ncampaign spool: ")));
    }
    let there = times.iter().filter(|n| **n > 0).count() as u64;
    Ok((there, times.iter().map(|n| u64::from(n.saturating_sub(1))).sum()))
}

/// InfluxDB 1 has no such database: the readings wait, the client says why in a sentence, and they go to the next server
/// that the configuration names, because a lane is of a bucket and not of an address.
fn held(programs: &Programs, folder: &Path) -> Result<(), String> {
    let spool = make(folder)?.join("spool");
    let mut first = Server::of(Product::InfluxDb, programs, folder)?;
    let life = Writer::start(&programs.promises, &first.url(), &spool, 0, READINGS_HELD)?;
    life.wait(|said| said.safe == READINGS_HELD && !said.health.is_empty())?;
    let held = life.end_because_told()?;
    first.end()?;
    let sentence = r#"Held("bucket") the server answered 404: database not found: "house""#;
    if held.health != [sentence] {
        return Err(format!("campaign spool: the client said {:?} in place of {sentence}", held.health));
    }
    if held.ended != [READINGS_HELD, 0, 0, 0, 0, 0, READINGS_HELD] {
        return Err(format!("campaign spool: not all readings wait for their database: {held:?}"));
    }
    let mut new = Server::of(Product::VictoriaMetrics, programs, folder)?;
    let next = Writer::start(&programs.promises, &new.url(), &spool, READINGS_HELD, 0)?.end_by_itself()?;
    let there = new.readings()?.len() as u64;
    new.end()?;
    if next.ended != [0, READINGS_HELD, READINGS_HELD, 0, 0, 0, 0] || there != READINGS_HELD {
        return Err(format!(
            "campaign spool: {there} of {READINGS_HELD} readings came to the next server: {next:?}"
        ));
    }
    println!(
        "campaign spool: {READINGS_HELD} readings held by InfluxDB 1 ({}), then delivered to another server",
        held.health[0]
    );
    Ok(())
}

fn make(folder: &Path) -> Result<&Path, String> {
    let made = std::fs::create_dir_all(folder);
    made.map(|()| folder).map_err(|e| format!("campaign spool: create {}: {e}", folder.display()))
}

fn signal(name: &str, process: u32) -> Result<(), String> {
    let signal = format!("kill -{name} {process}");
    crate::run("campaign spool: send a signal", Command::new("sh").args(["-c", &signal]))
}

/// Whose server it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Product {
    VictoriaMetrics,
    /// Of Debian's version, 1.6.
    InfluxDb,
}

impl Product {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::VictoriaMetrics => "VictoriaMetrics",
            Self::InfluxDb => "InfluxDB 1",
        }
    }
}

/// A server, on a port of its own that it keeps when it is started again. Killed when dropped.
pub(super) struct Server {
    product: Product,
    program: PathBuf,
    arguments: Vec<String>,
    port: u16,
    /// A page that answers once the server is up.
    page: &'static str,
    child: Option<Child>,
}

impl Server {
    pub(super) fn of(product: Product, programs: &Programs, folder: &Path) -> Result<Self, String> {
        match product {
            Product::VictoriaMetrics => Self::victoria_metrics(&programs.victoria_metrics, folder),
            Product::InfluxDb => Self::influxd(&programs.influxd, folder),
        }
    }

    fn victoria_metrics(program: &Path, folder: &Path) -> Result<Self, String> {
        let port = free_port()?;
        let arguments = vec![
            format!("-httpListenAddr=127.0.0.1:{port}"),
            format!("-storageDataPath={}", folder.join("victoria-metrics").display()),
            "-retentionPeriod=100y".to_owned(),
            "-memory.allowedBytes=256MB".to_owned(),
            "-loggerLevel=ERROR".to_owned(),
        ];
        let (product, program) = (Product::VictoriaMetrics, program.to_owned());
        let mut server = Self { product, program, arguments, port, page: "/health", child: None };
        server.start()?;
        Ok(server)
    }

    fn influxd(program: &Path, folder: &Path) -> Result<Self, String> {
        let (port, rpc_port) = (free_port()?, free_port()?);
        let [meta, data, wal] =
            ["meta", "data", "wal"].map(|name| folder.join("influxdb").join(name).display().to_string());
        let settings = format!(
            "reporting-disabled = true\nbind-address = \"127.0.0.1:{rpc_port}\"\n[meta]\ndir = {meta:?}\n[data]\ndir = {data:?}\n\
             wal-dir = {wal:?}\n[monitor]\nstore-enabled = false\n[logging]\nlevel = \"error\"\n[http]\nbind-address = \"127.0.0.1:{port}\"\n\
             log-enabled = false\n"
        );
        let file = folder.join("influxdb.conf");
        std::fs::write(&file, settings)
            .map_err(|e| format!("campaign spool: write {}: {e}", file.display()))?;
        let arguments = vec!["run".to_owned(), "-config".to_owned(), file.display().to_string()];
        let (product, program) = (Product::InfluxDb, program.to_owned());
        let mut server = Self { product, program, arguments, port, page: "/ping", child: None };
        server.start()?;
        Ok(server)
    }

    pub(super) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    fn start(&mut self) -> Result<(), String> {
        let mut command = Command::new(&self.program);
        // Its banner is of no interest; its errors are told on the standard error.
        command.args(&self.arguments).stdin(Stdio::null()).stdout(Stdio::null());
        let child = command.spawn().map_err(|e| format!("campaign spool: start {command:?}: {e}"))?;
        self.child = Some(child);
        let until = Instant::now() + START_MAX;
        while self.get(self.page).is_err() {
            if let Some(Ok(Some(status))) = self.child.as_mut().map(Child::try_wait) {
                return Err(format!("campaign spool: {command:?} ended with {status}"));
            }
            if Instant::now() > until {
                return Err(format!("campaign spool: {command:?} did not answer within {START_MAX:?}"));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Both fail when it has ended already, which is what is wanted.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Asks it to end, as an init system does.
    pub(super) fn end(&mut self) -> Result<(), String> {
        let Some(child) = &mut self.child else { return Ok(()) };
        signal("TERM", child.id())?;
        let until = Instant::now() + STOP_MAX;
        while matches!(child.try_wait(), Ok(None)) {
            if Instant::now() > until {
                return Err(format!(
                    "campaign spool: {} did not end within {STOP_MAX:?}",
                    self.program.display()
                ));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        self.child = None;
        Ok(())
    }

    /// Makes what the readings go to, where there is such a thing.
    pub(super) fn make_database(&self) -> Result<(), String> {
        if self.product == Product::InfluxDb {
            self.ask("POST", "/query?q=CREATE%20DATABASE%20house")?;
        }
        Ok(())
    }

    fn get(&self, target: &str) -> Result<String, String> {
        self.ask("GET", target)
    }

    /// The body of a page. HTTP/1.0: it ends where the connection does.
    fn ask(&self, method: &str, target: &str) -> Result<String, String> {
        let failed = |e: &dyn std::fmt::Display| format!("campaign spool: ask for {target}: {e}");
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).map_err(|e| failed(&e))?;
        stream.set_read_timeout(Some(START_MAX)).map_err(|e| failed(&e))?;
        let request = format!("{method} {target} HTTP/1.0\r\nAccept: application/csv\r\n\r\n");
        stream.write_all(request.as_bytes()).map_err(|e| failed(&e))?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).map_err(|e| failed(&e))?;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
        let first = head.lines().next().unwrap_or_default();
        if first.contains(" 200 ") || first.contains(" 204 ") {
            Ok(body.to_owned())
        } else {
            Err(failed(&first))
        }
    }

    /// What VictoriaMetrics counts of the lines that it read and took.
    fn taken(&self) -> Result<Vec<String>, String> {
        let counts = ["vm_protoparser_rows_read_total{type=\"influx\"}", "vm_rows_added_to_storage_total"];
        let page = self.get("/metrics")?;
        let lines: Vec<String> =
            page.lines().filter(|l| counts.iter().any(|c| l.starts_with(c))).map(str::to_owned).collect();
        if lines.len() == counts.len() {
            Ok(lines)
        } else {
            Err(format!("campaign spool: the server does not count what it takes: {lines:?}"))
        }
    }

    /// Waits until what arrived is worked on to its end: until the counts stay as they are for a while.
    fn settled(&self) -> Result<Vec<String>, String> {
        let mut counts = self.taken()?;
        let mut same = 0;
        while same < 5 {
            std::thread::sleep(Duration::from_millis(100));
            let now = self.taken()?;
            same = if now == counts { same + 1 } else { 0 };
            counts = now;
        }
        Ok(counts)
    }

    /// All that is in it: milliseconds, device and watts.
    fn readings(&self) -> Result<Vec<(u64, String, f64)>, String> {
        let csv = match self.product {
            Product::VictoriaMetrics => {
                self.get("/internal/force_flush")?;
                self.get(
                    "/api/v1/export/csv?format=__timestamp__:unix_ms,device_id,__value__,__name__&match[]=%7B__name__!=%22%22%7D&start=0&end=4000000000",
                )?
            }
            Product::InfluxDb => {
                self.get("/query?db=house&epoch=ms&q=SELECT%20device_id,power_watts%20FROM%20energy")?
            }
        };
        let row = |line: &str| match line.split(',').collect::<Vec<_>>()[..] {
            [time, device, watts, "energy_power_watts"] | ["energy", "", time, device, watts] => {
                Some((time.parse().ok()?, device.to_owned(), watts.parse().ok()?))
            }
            _ => None,
        };
        let foreign = |line: &str| format!("campaign spool: nobody wrote {line:?}");
        let heads = csv.lines().take_while(|line| line.starts_with("name,tags,")).count();
        csv.lines().skip(heads).map(|line| row(line).ok_or_else(|| foreign(line))).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// What a process said until it ended.
#[derive(Clone, Debug, Default)]
struct Said {
    first: u64,
    /// Readings before this one may have been written, and were promised to be safe.
    issued: u64,
    safe: u64,
    health: Vec<String>,
    /// Accepted, recovered, delivered, rejected, dropped, damaged, left in the spool.
    ended: Vec<u64>,
    other: Vec<String>,
}

impl Said {
    fn hear(&mut self, line: &str) {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match (word, rest.parse()) {
            ("issued", Ok(id)) => self.issued = id,
            ("safe", Ok(id)) => self.safe = id,
            ("health", _) => self.health.push(rest.to_owned()),
            ("ended", _) => self.ended = rest.split(' ').filter_map(|n| n.parse().ok()).collect(),
            _ => self.other.push(line.to_owned()),
        }
    }
}

/// A running `promises`. Killed when dropped.
struct Writer {
    child: Child,
    tells: Option<ChildStdin>,
    said: Arc<Mutex<Said>>,
    hears: Option<JoinHandle<()>>,
}

impl Writer {
    fn start(program: &Path, url: &str, spool: &Path, first: u64, count: u64) -> Result<Self, String> {
        let mut command = Command::new(program);
        command.arg(url).arg(spool).args([first.to_string(), count.to_string()]);
        for (key, _) in std::env::vars().filter(|(key, _)| key.starts_with("GRAYLOGIC_INFLUXDB_")) {
            // What the machine's environment says must not matter.
            command.env_remove(key);
        }
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut child = child.map_err(|e| format!("campaign spool: start {command:?}: {e}"))?;
        let lines = child.stdout.take().map(BufReader::new);
        let said = Arc::new(Mutex::new(Said { first, issued: first, safe: first, ..Said::default() }));
        let hearing = said.clone();
        let hears = std::thread::spawn(move || {
            for line in lines.into_iter().flat_map(BufRead::lines).map_while(Result::ok) {
                hearing.lock().unwrap_or_else(PoisonError::into_inner).hear(&line);
            }
        });
        Ok(Self { tells: child.stdin.take(), child, said, hears: Some(hears) })
    }

    fn said(&self) -> Said {
        self.said.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until it has said something.
    fn wait(&self, what: impl Fn(&Said) -> bool) -> Result<(), String> {
        let until = Instant::now() + ALL_MAX;
        while !what(&self.said()) {
            if Instant::now() > until || self.hears.as_ref().is_none_or(JoinHandle::is_finished) {
                return Err(format!("campaign spool: the writer came no further than {:?}", self.said()));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    fn kill(mut self) -> Result<Said, String> {
        self.child.kill().map_err(|e| format!("campaign spool: kill the writer: {e}"))?;
        self.ended(false)
    }

    fn end_because_told(mut self) -> Result<Said, String> {
        self.tells = None;
        self.ended(true)
    }

    /// Its input stays open: it ends when everything is delivered.
    fn end_by_itself(mut self) -> Result<Said, String> {
        self.ended(true)
    }

    fn ended(&mut self, is_well: bool) -> Result<Said, String> {
        let until = Instant::now() + ALL_MAX;
        while self.hears.as_ref().is_some_and(|h| !h.is_finished()) && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(5));
        }
        let said = self.said();
        if Instant::now() >= until {
            return Err(format!("campaign spool: the writer did not end within {ALL_MAX:?}: {said:?}"));
        }
        let status = self.child.wait().map_err(|e| format!("campaign spool: wait for the writer: {e}"))?;
        if status.success() != is_well || !said.other.is_empty() {
            return Err(format!("campaign spool: the writer ended with {status}: {said:?}"));
        }
        Ok(said)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // Both fail when it has ended already, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
