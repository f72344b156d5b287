//! The spool against servers that others wrote, killed and started again while readings are written, and so is the
//! process that writes them (the example `promises`). Every reading that was said to be safe must be in the server.
//! Knows what that process says and how the servers are asked; must not know what is in a spool.

use super::server::{Product, Programs, Server, make, signal};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const READINGS: u64 = 200_000;
/// Readings that meet a server without their database.
const READINGS_HELD: u64 = 1000;
const FIRST_MILLISECOND: u64 = 1_700_000_000_000;
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

/// Runs all parts, each in a folder of its own.
pub(super) fn run(promises: &Path, programs: &Programs, folder: &Path) -> Result<(), String> {
    killed(promises, programs, Product::VictoriaMetrics, &folder.join("killed-victoria-metrics"))?;
    killed(promises, programs, Product::InfluxDb, &folder.join("killed-influxdb"))?;
    held(promises, programs, &folder.join("held"))
}

/// 200,000 readings while somebody kills the server and the writer.
fn killed(promises: &Path, programs: &Programs, product: Product, folder: &Path) -> Result<(), String> {
    let spool = make(folder)?.join("spool");
    let began = Instant::now();
    let mut server = Server::of(product, programs, folder)?;
    server.make_database()?;
    let writer = |server: &Server, first: u64| {
        Writer::start(promises, &server.url(), &spool, first, READINGS.saturating_sub(first))
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
    // A kill in the middle of a write, which hardly ever happens, leaves a frame that is cut off. Its readings were never
    // said to be safe, which is judged above; the next process tells how many they may have been.
    if accepted != lives[last].issued - lives[last].first
        || accepted + recovered != delivered + damaged
        || [rejected, dropped, spooled] != [0; 3]
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
fn held(promises: &Path, programs: &Programs, folder: &Path) -> Result<(), String> {
    let spool = make(folder)?.join("spool");
    let mut first = Server::of(Product::InfluxDb, programs, folder)?;
    let life = Writer::start(promises, &first.url(), &spool, 0, READINGS_HELD)?;
    life.wait(|said| said.safe == READINGS_HELD && !said.health.is_empty())?;
    let held = life.end_because_told()?;
    first.end()?;
    let sentence = r#"Held("bucket") the server answered 404: database not found: "house"; make it, or check influxdb.bucket"#;
    if held.health != [sentence] {
        return Err(format!("campaign spool: the client said {:?} in place of {sentence}", held.health));
    }
    if held.ended != [READINGS_HELD, 0, 0, 0, 0, 0, READINGS_HELD] {
        return Err(format!("campaign spool: not all readings wait for their database: {held:?}"));
    }
    let mut new = Server::of(Product::VictoriaMetrics, programs, folder)?;
    let next = Writer::start(promises, &new.url(), &spool, READINGS_HELD, 0)?.end_by_itself()?;
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
