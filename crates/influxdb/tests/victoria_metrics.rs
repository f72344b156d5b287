//! A VictoriaMetrics that loses what it acknowledged, drops what is beyond its limits and ignores rows: the client sends again,
//! rejects by name and reports. The server here answers as 1.79 does, and forgets what is in its memory when it is restarted.
#![allow(clippy::unwrap_used, dead_code, missing_docs, unreachable_pub)]

mod hostile;

use graylogic_influxdb::{Client, Config, Level, Point, Timestamp, WriteErrorKind};
use hostile::{Request, answer};
use std::io::{BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(60);

#[derive(Debug)]
struct Inside {
    started: u64,
    /// Lines that it acknowledged in this run.
    memory: Vec<String>,
    rows: usize,
    ignored: u64,
    looks: usize,
    shows_page: bool,
    /// It closes connections without an answer.
    is_dead: bool,
    flags: Vec<(&'static str, String)>,
}

#[derive(Clone)]
struct Vm {
    at: SocketAddr,
    inside: Arc<Mutex<Inside>>,
}

impl Vm {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        let inside = Inside {
            started: 1_795_960_097,
            memory: Vec::new(),
            rows: 0,
            ignored: 0,
            looks: 0,
            shows_page: true,
            is_dead: false,
            flags: Vec::new(),
        };
        let vm = Self { at, inside: Arc::new(Mutex::new(inside)) };
        let serves = vm.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let serves = serves.clone();
                std::thread::spawn(move || serves.serve(stream));
            }
        });
        vm
    }

    fn serve(&self, mut stream: TcpStream) {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        while let Some(request) = Request::read(&mut reader) {
            let mut inside = self.inside.lock().unwrap();
            if inside.is_dead {
                return;
            }
            let path = request.target.split('?').next().unwrap_or_default();
            let answered = match (request.is_get, path) {
                (true, "/metrics") if inside.shows_page => {
                    inside.looks += 1;
                    answer("200 OK", "", &inside.page())
                }
                (true, "/ping") => answer("204 No Content", "X-Server-Hostname: vm\r\n", ""),
                (true, "/health") => answer("200 OK", "", "OK"),
                (false, "/api/v2/write") => {
                    inside.rows += request.lines.len();
                    inside.memory.extend(request.lines);
                    answer("204 No Content", "X-Server-Hostname: vm\r\n", "")
                }
                _ => answer("404 Not Found", "", "unsupported path"),
            };
            drop(inside);
            if stream.write_all(answered.as_bytes()).is_err() {
                return;
            }
        }
    }

    /// Kills it and starts it again.
    fn restart(&self) {
        let mut inside = self.inside.lock().unwrap();
        inside.started += 5;
        inside.memory.clear();
        (inside.rows, inside.ignored) = (0, 0);
    }

    fn change(&self, change: impl FnOnce(&mut Inside)) {
        change(&mut self.inside.lock().unwrap());
    }

    /// Waits until something is so.
    fn comes_to(&self, is_so: impl Fn(&Inside) -> bool) {
        wait(|| is_so(&self.inside.lock().unwrap()));
    }

    fn config(&self, spool: Option<&Path>) -> Config {
        Config::remote(&format!("http://{}", self.at))
            .unwrap()
            .with_bucket("house")
            .with_spool(spool.map(Into::into))
            .with_quick_batches(100, Duration::from_millis(1))
            .with_settle_time(Duration::from_secs(3600))
            // Looks come every quarter of a second.
            .with_hurry(20)
    }
}

impl Inside {
    fn page(&self) -> String {
        let flags = self.flags.iter();
        let flags: String =
            flags.map(|(k, v)| format!("flag{{name=\"{k}\", value=\"{v}\", is_set=\"true\"}} 1\n")).collect();
        format!(
            "vm_rows_inserted_total{{type=\"influx\"}} {}\nvm_rows_ignored_total{{reason=\"big_timestamp\"}} {}\n\
             process_start_time_seconds {}\n{flags}",
            self.rows, self.ignored, self.started
        )
    }
}

fn wait(mut is_so: impl FnMut() -> bool) {
    let until = Instant::now() + SOON;
    while !is_so() {
        assert!(Instant::now() < until, "it did not come");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn write(client: &Client, numbers: std::ops::Range<i64>) {
    for n in numbers {
        client.write_point(&point(n)).unwrap();
    }
}

fn point(n: i64) -> Point {
    Point::new("power").tag("d", "a").field("watts", n).timestamp(now().plus(n))
}

trait Plus {
    fn plus(self, nanos: i64) -> Self;
}

impl Plus for Timestamp {
    fn plus(self, nanos: i64) -> Self {
        Self::from_nanos(self.as_nanos() + nanos)
    }
}

fn now() -> Timestamp {
    Timestamp::now()
}

/// How many of the readings the server has.
fn distinct(inside: &Inside) -> usize {
    let mut values: Vec<&str> = inside.memory.iter().filter_map(|l| l.split("watts=").nth(1)).collect();
    values.sort_unstable();
    values.dedup();
    values.len()
}

#[test]
fn what_a_killed_server_had_acknowledged_is_sent_again_and_was_not_delivered() {
    let folder = tempfile::tempdir().unwrap();
    for spool in [Some(folder.path()), None] {
        let vm = Vm::new();
        let client = Client::connect(&vm.config(spool)).unwrap();
        write(&client, 0..300);
        client.flush(Level::Acknowledged, SOON).unwrap();
        let stats = client.stats();
        assert_eq!((stats.delivered, stats.settling, stats.waiting), (0, 300, 300), "{spool:?}");
        // Looked at once, so that the restart shows.
        vm.comes_to(|vm| vm.looks > 0);
        vm.restart();
        vm.comes_to(|vm| distinct(vm) == 300);
        client.flush(Level::Acknowledged, SOON).unwrap();
        assert_eq!(client.stats().delivered, 0);
        assert!(client.flush(Level::Delivered, Duration::from_millis(10)).unwrap_err().is_timed_out());
        client.close(Duration::ZERO).unwrap();
    }
}

#[test]
fn lines_are_delivered_when_they_have_settled() {
    let vm = Vm::new();
    // Above all a tenth of a second here.
    let client = Client::connect(&vm.config(None).with_settle_time(Duration::from_secs(2))).unwrap();
    write(&client, 0..300);
    client.flush(Level::Delivered, SOON).unwrap();
    let stats = client.stats();
    assert_eq!((stats.delivered, stats.settling, stats.waiting), (300, 0, 0));
    let looks = vm.inside.lock().unwrap().looks;
    assert!(looks >= 2, "before and after: {looks}");
    let report = client.close(SOON).unwrap();
    assert_eq!((report.delivered, report.settling, report.dropped), (300, 0, 0));
}

#[test]
fn a_server_that_hides_its_page_is_believed_to_have_been_restarted_when_connections_broke() {
    let vm = Vm::new();
    vm.change(|vm| vm.shows_page = false);
    let client = Client::connect(&vm.config(None)).unwrap();
    write(&client, 0..200);
    client.flush(Level::Acknowledged, SOON).unwrap();
    vm.change(|vm| vm.is_dead = true);
    write(&client, 200..201);
    wait(|| client.stats().trouble.is_some());
    vm.restart();
    vm.change(|vm| vm.is_dead = false);
    vm.comes_to(|vm| distinct(vm) == 201);
    client.close(Duration::ZERO).unwrap();
    // And one whose lines may settle: by their time.
    let vm = Vm::new();
    vm.change(|vm| vm.shows_page = false);
    let client = Client::connect(&vm.config(None).with_settle_time(Duration::from_secs(2))).unwrap();
    write(&client, 0..200);
    client.flush(Level::Delivered, SOON).unwrap();
    client.close(SOON).unwrap();
}

#[test]
fn the_next_client_sends_again_only_what_a_restart_may_have_cost() {
    for restarts in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let vm = Vm::new();
        let client = Client::connect(&vm.config(Some(folder.path()))).unwrap();
        write(&client, 0..100);
        client.flush(Level::Durable, SOON).unwrap();
        client.flush(Level::Acknowledged, SOON).unwrap();
        let report = client.close(SOON).unwrap();
        assert_eq!((report.delivered, report.settling, report.spooled), (0, 100, 0));
        if restarts {
            vm.restart();
        }
        let client = Client::connect(&vm.config(Some(folder.path()))).unwrap();
        assert_eq!(client.stats().recovered, 100);
        write(&client, 100..101);
        client.flush(Level::Acknowledged, SOON).unwrap();
        vm.comes_to(|vm| distinct(vm) == 101);
        let received = vm.inside.lock().unwrap().memory.len();
        assert_eq!(received, 101, "each once, restarted: {restarts}");
        client.close(SOON).unwrap();
    }
}

#[test]
fn what_the_server_would_drop_is_rejected_by_name_once_and_kept() {
    let folder = tempfile::tempdir().unwrap();
    let vm = Vm::new();
    vm.change(|vm| {
        vm.flags = vec![
            ("retentionPeriod", "1d".to_owned()),
            ("maxLabelsPerTimeseries", "5".to_owned()),
            ("maxLabelValueLen", "100".to_owned()),
        ];
    });
    let client = Client::connect(&vm.config(Some(folder.path()))).unwrap();
    let news: Arc<Mutex<Vec<(WriteErrorKind, u64, String)>>> = Arc::default();
    let heard = news.clone();
    client.set_on_error(move |e| {
        let reasons: Vec<&str> = e.first.iter().map(|line| line.reason.as_str()).collect();
        heard.lock().unwrap().push((e.kind, e.lines, reasons.join("; ")));
    });
    const DAY: i64 = 86_400_000_000_000;
    let m = || Point::new("power").field("watts", -1i64);
    client.write_point(&m().timestamp(now().plus(-2 * DAY))).unwrap();
    client.write_point(&m().timestamp(now().plus(3 * DAY))).unwrap();
    let many = (0..4).fold(m(), |point, i| point.tag(format!("t{i}"), "v"));
    client.write_point(&many.timestamp(now())).unwrap();
    client.write_point(&m().tag("d", "x".repeat(101)).timestamp(now())).unwrap();
    write(&client, 0..100);
    client.flush(Level::Acknowledged, SOON).unwrap();
    vm.comes_to(|vm| vm.looks > 0 && distinct(vm) == 100);
    // Sent again, they are not reported again.
    vm.restart();
    vm.comes_to(|vm| distinct(vm) == 100);
    client.flush(Level::Acknowledged, SOON).unwrap();
    client.close(SOON).unwrap();
    let news = news.lock().unwrap().clone();
    let rejected: Vec<_> = news.iter().filter(|n| n.0 == WriteErrorKind::Rejected).collect();
    assert_eq!(rejected.iter().map(|n| n.1).sum::<u64>(), 4, "{news:?}");
    let reasons: String = rejected.iter().map(|n| format!("{}; ", n.2)).collect();
    for reason in [
        "is older than VictoriaMetrics keeps (-retentionPeriod=1d)",
        "is further in the future than VictoriaMetrics takes (2 days)",
        "it has 6 labels with those of its bucket and measurement, and VictoriaMetrics takes 5",
        "the value of tag \"d\" has 101 bytes, and VictoriaMetrics takes 100 (-maxLabelValueLen)",
    ] {
        assert_eq!(reasons.matches(reason).count(), 1, "{reason}: {reasons}");
    }
}

#[test]
fn rows_that_the_server_ignored_are_reported() {
    let vm = Vm::new();
    let client = Client::connect(&vm.config(None)).unwrap();
    let news: Arc<Mutex<Vec<(WriteErrorKind, u64, String)>>> = Arc::default();
    let heard = news.clone();
    client.set_on_error(move |e| heard.lock().unwrap().push((e.kind, e.lines, e.reason.clone())));
    write(&client, 0..100);
    client.flush(Level::Acknowledged, SOON).unwrap();
    vm.comes_to(|vm| vm.looks > 0);
    vm.change(|vm| vm.ignored += 3);
    wait(|| !news.lock().unwrap().is_empty());
    let (kind, rows, reason) = news.lock().unwrap()[0].clone();
    assert_eq!((kind, rows), (WriteErrorKind::Ignored, 3));
    assert!(reason.contains("ignored these rows") && reason.contains("too far in the future"), "{reason}");
    client.close(Duration::ZERO).unwrap();
}
