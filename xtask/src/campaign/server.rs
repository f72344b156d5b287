//! Servers that others wrote, started in a folder of their own, killed and started again, and asked in their own words what
//! they have. Must not know what is written to them.

use super::{STOP_MAX, free_port};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const START_MAX: Duration = Duration::from_secs(20);

/// The programs of them.
pub(super) struct Programs {
    pub(super) victoria_metrics: PathBuf,
    pub(super) influxd: PathBuf,
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
    pub(super) product: Product,
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
        std::fs::write(&file, settings).map_err(|e| format!("campaign: write {}: {e}", file.display()))?;
        let arguments = vec!["run".to_owned(), "-config".to_owned(), file.display().to_string()];
        let (product, program) = (Product::InfluxDb, program.to_owned());
        let mut server = Self { product, program, arguments, port, page: "/ping", child: None };
        server.start()?;
        Ok(server)
    }

    pub(super) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub(super) fn start(&mut self) -> Result<(), String> {
        let mut command = Command::new(&self.program);
        // Its banner is of no interest; its errors are told on the standard error.
        command.args(&self.arguments).stdin(Stdio::null()).stdout(Stdio::null());
        let child = command.spawn().map_err(|e| format!("campaign: start {command:?}: {e}"))?;
        self.child = Some(child);
        let until = Instant::now() + START_MAX;
        while self.get(self.page).is_err() {
            if let Some(Ok(Some(status))) = self.child.as_mut().map(Child::try_wait) {
                return Err(format!("campaign: {command:?} ended with {status}"));
            }
            if Instant::now() > until {
                return Err(format!("campaign: {command:?} did not answer within {START_MAX:?}"));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    pub(super) fn kill(&mut self) {
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
                return Err(format!("campaign: {} did not end within {STOP_MAX:?}", self.program.display()));
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

    pub(super) fn get(&self, target: &str) -> Result<String, String> {
        self.ask("GET", target)
    }

    /// The body of a page. HTTP/1.0: it ends where the connection does.
    fn ask(&self, method: &str, target: &str) -> Result<String, String> {
        let failed = |e: &dyn std::fmt::Display| format!("campaign: ask for {target}: {e}");
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
    pub(super) fn taken(&self) -> Result<Vec<String>, String> {
        let counts = ["vm_protoparser_rows_read_total{type=\"influx\"}", "vm_rows_added_to_storage_total"];
        let page = self.get("/metrics")?;
        let lines: Vec<String> =
            page.lines().filter(|l| counts.iter().any(|c| l.starts_with(c))).map(str::to_owned).collect();
        if lines.len() == counts.len() {
            Ok(lines)
        } else {
            Err(format!("campaign: the server does not count what it takes: {lines:?}"))
        }
    }

    /// Waits until what arrived is worked on to its end: until the counts stay as they are for a while.
    pub(super) fn settled(&self) -> Result<Vec<String>, String> {
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
    pub(super) fn readings(&self) -> Result<Vec<(u64, String, f64)>, String> {
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
        let foreign = |line: &str| format!("campaign: nobody wrote {line:?}");
        let heads = csv.lines().take_while(|line| line.starts_with("name,tags,")).count();
        csv.lines().skip(heads).map(|line| row(line).ok_or_else(|| foreign(line))).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

pub(super) fn make(folder: &Path) -> Result<&Path, String> {
    let made = std::fs::create_dir_all(folder);
    made.map(|()| folder).map_err(|e| format!("campaign: create {}: {e}", folder.display()))
}

pub(super) fn signal(name: &str, process: u32) -> Result<(), String> {
    let signal = format!("kill -{name} {process}");
    crate::run("campaign: send a signal", Command::new("sh").args(["-c", &signal]))
}
