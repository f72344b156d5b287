//! The program as it is run: its answers, its exit codes, and what is left after it was killed.
#![allow(clippy::unwrap_used, missing_docs)]

use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// 2023-11-14T00:00:00Z in seconds.
const MIDNIGHT: u64 = 1_699_920_000;

fn graylogic() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_graylogic"));
    // What the machine's environment says must not matter.
    for key in ["ENABLED", "URL", "TOKEN", "ORG", "BUCKET", "BATCH_SIZE", "FLUSH_INTERVAL"] {
        command.env_remove(format!("GRAYLOGIC_INFLUXDB_{key}"));
    }
    command.env("TZ", "UTC");
    command
}

fn run(arguments: &[&str], input: &str) -> Output {
    let mut child = graylogic()
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A command that does not read its input ends before it was all written.
    let _closed_early = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

fn json(output: &Output) -> Value {
    assert!(output.status.success(), "{}", text(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn in_folder(folder: &Path) -> &str {
    folder.to_str().unwrap()
}

#[test]
fn the_demo_tells_what_the_recordings_say_and_does_not_double_them() {
    let folder = tempfile::tempdir().unwrap();
    let data = in_folder(folder.path());
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../data/expected.json");
    let expected: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let values: u64 = expected["files"]
        .as_object()
        .unwrap()
        .values()
        .flat_map(|f| f["values"].as_object().unwrap().values())
        .map(|n| n.as_u64().unwrap())
        .sum();
    let first = json(&run(&["demo", "--once", "--json", "--data", data], ""));
    let second = json(&run(&["demo", "--once", "--json", "--data", data], ""));
    assert!(first["imported_points"].as_u64().unwrap() > 300_000);
    assert_eq!(
        (&second["imported_points"], &second["already_there"]),
        (&0.into(), &first["imported_points"])
    );
    assert_eq!(first["values"], second["values"]);
    assert!(first["values"].as_u64().unwrap() <= values, "no more than the files hold");
    assert!(first["bytes_per_value"].as_f64().unwrap() < 2.0);
    for answer in [&first, &second] {
        let days = answer["household_kwh_per_day"].as_array().unwrap();
        let known = expected["household_kwh_per_local_day"]["last_7_days"].as_array().unwrap();
        assert_eq!(days.len(), known.len());
        for (day, known) in days.iter().zip(known) {
            assert_eq!((&day["day"], &day["minutes"]), (&known["day"], &known["minutes"]));
            let difference = day["kwh"].as_f64().unwrap() - known["kwh"].as_f64().unwrap();
            assert!(difference.abs() < 1e-6, "{day} {known}");
        }
        assert!(answer["latest"].as_array().unwrap().len() >= 20);
    }
    let spoken = run(&["demo", "--once", "--data", data], "");
    let said = text(&spoken.stdout);
    assert!(said.contains("all 350,632 points are already there"), "{said}");
    assert!(
        said.contains("2008-01-31") && said.contains("32.57") && said.contains("http://127.0.0.1:8490"),
        "{said}"
    );
}

#[test]
fn bad_lines_are_named_and_the_others_are_stored() {
    let folder = tempfile::tempdir().unwrap();
    let data = in_folder(folder.path());
    let input =
        "a f=1 1700000001\nbroken\na f=2 1700000002\na f=\"text\" 1700000003\n# comment\n\na f=4 1700000004";
    let output = run(&["write", "--data", data, "--precision", "s"], input);
    assert_eq!(output.status.code(), Some(3));
    assert_eq!(text(&output.stdout), "3 points stored, 2 lines rejected\n");
    let said: Vec<&str> = text(&output.stderr).lines().collect();
    assert_eq!(said[0], "line 2: unable to parse 'broken': missing fields");
    assert!(
        said[1].starts_with("line 4: 'a f=\"text\" 1700000003': ")
            && said[1].contains("already exists as type float"),
        "{said:?}"
    );
    let answer = json(&run(&["query", "--json", "--data", data], ""));
    let values: Vec<f64> =
        answer["rows"].as_array().unwrap().iter().map(|r| r["value"].as_f64().unwrap()).collect();
    assert_eq!(values, [1.0, 2.0, 4.0]);
}

#[test]
fn a_query_that_finds_nothing_in_the_default_bucket_names_those_that_hold_something() {
    let folder = tempfile::tempdir().unwrap();
    let data = in_folder(folder.path());
    // The default bucket of earlier versions.
    run(&["write", "--data", data, "--precision", "s", "--bucket", "telemetry"], "m f=1 1700000001");
    let says = "name another with --bucket: telemetry";
    let missing = run(&["query", "--data", data], "");
    assert!(!missing.status.success() && text(&missing.stderr).contains(says), "{missing:?}");
    run(&["write", "--data", data, "--precision", "s"], "m f=2 1700000002");
    let found = run(&["query", "--data", data], "");
    assert!(found.status.success() && !text(&found.stderr).contains(says), "{found:?}");
    let empty = run(&["query", "--data", data, "-m", "other"], "");
    assert!(empty.status.success() && text(&empty.stderr).contains(says), "{empty:?}");
    let named = run(&["query", "--data", data, "-m", "other", "--bucket", "metrics"], "");
    assert!(!text(&named.stderr).contains(says), "{named:?}");
}

#[test]
fn a_string_over_several_lines_is_not_cut_by_a_batch() {
    let folder = tempfile::tempdir().unwrap();
    let data = in_folder(folder.path());
    let input = "m s=\"one\ntwo\nthree\" 1700000001\nm s=\"a\" 1700000002\n".repeat(3);
    let output = run(&["write", "--data", data, "--batch", "2", "--precision", "s"], &input);
    assert_eq!(text(&output.stdout), "6 points stored, 0 lines rejected\n", "{}", text(&output.stderr));
    // A quote in a tag value opens nothing.
    let input: String = (0..20_000).map(|i| format!("m,t=don\"t f=1 {}\n", 1_700_000_000 + i)).collect();
    let began = Instant::now();
    let output = run(&["write", "--data", data, "--batch", "10", "--precision", "s"], &input);
    assert_eq!(text(&output.stdout), "20000 points stored, 0 lines rejected\n");
    assert!(began.elapsed() < Duration::from_secs(60));
}

#[test]
fn questions_by_tag_window_and_time() {
    let folder = tempfile::tempdir().unwrap();
    let data = in_folder(folder.path());
    let lines: String =
        (0..120).map(|i| format!("energy,device_id=d{} w={} {}\n", i % 2, i, MIDNIGHT + i * 60)).collect();
    run(&["write", "--data", data, "--precision", "s"], &lines);
    let ask = |extra: &[&str]| {
        json(&run(&[&["query", "--json", "--data", data, "-m", "energy"], extra].concat(), ""))["rows"]
            .clone()
    };
    let hours = ask(&["-t", "device_id=d0", "-w", "1h", "-a", "mean"]);
    assert_eq!(hours.as_array().unwrap().len(), 2);
    assert_eq!((&hours[0]["time"], &hours[0]["value"]), (&"2023-11-14T00:00:00Z".into(), &29.0.into()));
    assert_eq!(
        ask(&["-t", "device_id=~d[1-9]", "--start", "2023-11-14T01:00:00Z"]).as_array().unwrap().len(),
        30
    );
    let sum = ask(&["-t", "device_id=d0", "-a", "sum", "--start", "2023-11-14T01:00:00Z"]);
    assert_eq!(sum.as_array().unwrap().len(), 1);
    assert_eq!((&sum[0]["time"], &sum[0]["value"]), (&"2023-11-14T01:00:00Z".into(), &2670.0.into()));
    assert_eq!(ask(&["-t", "device_id!=d0", "--latest"])[0]["value"], 119.0);
    let csv = run(&["query", "--csv", "--data", data, "--latest"], "");
    assert_eq!(text(&csv.stdout).lines().count(), 3);
    let limited = run(&["query", "--data", data, "--limit", "5"], "");
    assert!(text(&limited.stderr).contains("only the first 5 rows"));
    let status = json(&run(&["status", "--json", "--data", data], ""));
    assert_eq!(status["values"], 120);
}

#[test]
fn readings_are_deleted_compacted_verified_and_saved() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("store");
    let data = in_folder(&store);
    let lines: String = (0..20_000)
        .map(|i| format!("energy,device_id=d{} w={}.5 {}\n", i % 2, i % 97, MIDNIGHT + i * 60))
        .collect();
    run(&["write", "--data", data, "--precision", "s"], &lines);
    let rows = |extra: &[&str]| {
        let count = ["query", "--json", "--data", data, "-w", "10000d", "-a", "count"];
        let answer = json(&run(&[&count, extra].concat(), ""));
        answer["rows"].as_array().unwrap().iter().map(|r| r["value"].as_u64().unwrap()).sum::<u64>()
    };
    assert_eq!(rows(&[]), 20_000);
    let deleted =
        json(&run(&["delete", "--json", "--data", data, "-t", "device_id=d1", "--start", "2023-11-15"], ""));
    assert_eq!(deleted["series"], 1);
    assert_eq!(rows(&[]), 10_720);
    let compacted = json(&run(&["compact", "--json", "--data", data], ""));
    assert_eq!(compacted["values"], 10_720);
    assert_eq!(rows(&["-t", "device_id=d1"]), 720);
    let verified = run(&["verify", "--data", data], "");
    assert!(verified.status.success());
    assert!(text(&verified.stdout).contains("10,720 readings"), "{}", text(&verified.stdout));
    // The folder is named before the command or behind it, as everywhere.
    let listed = json(&run(&["bucket", "list", "--json", "--data", data], ""));
    assert_eq!(listed["buckets"].as_array().unwrap().len(), 1);
    let buckets = json(&run(&["bucket", "--json", "--data", data, "create", "short", "--keep", "90d"], ""));
    assert_eq!(buckets["buckets"][1]["retention_s"], 90 * 86_400);
    assert!(
        text(&run(&["bucket", "--data", data, "keep", "short", "5m"], "").stderr)
            .contains("at least an hour")
    );
    let old = run(&["write", "--data", data, "--bucket", "short"], "m f=1 1700000000000000000");
    assert_eq!(old.status.code(), Some(3));
    assert!(text(&old.stderr).contains("Retention Policy Lower Bound"), "{}", text(&old.stderr));
    run(&["bucket", "--data", data, "rename", "short", "brief"], "");
    let listed = run(&["bucket", "--data", data, "remove", "--yes", "brief"], "");
    assert!(!text(&listed.stdout).contains("brief"), "{}", text(&listed.stdout));
    // A flipped bit in the middle of the readings.
    let file = store.join("store.sqlite");
    let connection = rusqlite::Connection::open(&file).unwrap();
    let pack: Vec<u8> = connection.query_row("SELECT bytes FROM pack LIMIT 1", [], |r| r.get(0)).unwrap();
    drop(connection);
    let mut bytes = std::fs::read(&file).unwrap();
    let piece = &pack[200..240];
    let at = bytes.windows(piece.len()).position(|w| w == piece).unwrap();
    bytes[at] ^= 4;
    std::fs::write(&file, bytes).unwrap();
    let damaged = run(&["verify", "--data", data], "");
    assert_eq!(damaged.status.code(), Some(1));
    assert!(text(&damaged.stdout).contains("device_id=d"), "{}", text(&damaged.stdout));
    let saved = folder.path().join("saved");
    let salvage = run(&["salvage", "--data", data, "--to", in_folder(&saved)], "");
    assert_eq!(salvage.status.code(), Some(3), "{}", text(&salvage.stdout));
    assert!(run(&["verify", "--data", in_folder(&saved)], "").status.success());
}

#[test]
fn imports_are_repeatable() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("store");
    let csv = folder.path().join("meters.csv");
    std::fs::write(&csv, "time,meter,power,on,note\n2024-01-01T00:00:00Z,a,1.5,true,x\n2024-01-01T00:01:00Z,b,2,false,\nsoon,b,2,,\n").unwrap();
    let arguments = ["import", "--data", in_folder(&data), "-m", "meter", "--tags", "meter", in_folder(&csv)];
    for _ in 0..2 {
        let output = run(&arguments, "");
        assert_eq!(output.status.code(), Some(3), "{}", text(&output.stderr));
        assert!(text(&output.stderr).contains("line 4: time \"soon\""), "{}", text(&output.stderr));
    }
    let answer = json(&run(&["query", "--json", "--data", in_folder(&data)], ""));
    assert_eq!(answer["rows"].as_array().unwrap().len(), 5);
    let missing = run(&["import", "--data", in_folder(&data), in_folder(&csv)], "");
    assert_eq!(missing.status.code(), Some(1));
    assert!(text(&missing.stderr).contains("--measurement"));
}

#[test]
fn mistakes_are_one_sentence_and_the_right_code() {
    let folder = tempfile::tempdir().unwrap();
    let nowhere = folder.path().join("none");
    let cases: [(&[&str], i32, &str); 6] = [
        (&["query", "--data", in_folder(&nowhere)], 1, "there is no store in"),
        (&["status", "--data", in_folder(&nowhere)], 1, "none"),
        (&["write", "--data", in_folder(folder.path()), "/no/such/file"], 1, "/no/such/file"),
        (&["query", "--data", in_folder(&nowhere), "--window", "soon"], 1, "none"),
        (&["query", "--data", in_folder(&nowhere), "-a", "sum"], 1, "name its --start, or give a --window"),
        (&["writ"], 2, "write"),
    ];
    for (arguments, code, says) in cases {
        let output = run(arguments, "");
        assert_eq!(output.status.code(), Some(code), "{arguments:?}");
        let said = text(&output.stderr);
        assert!(said.contains(says) && !said.contains("panicked"), "{said}");
    }
    let config = folder.path().join("config.yaml");
    std::fs::write(&config, "influxdb:\n  buckett: x\n").unwrap();
    let output = run(&["status", "--config", in_folder(&config)], "");
    assert!(text(&output.stderr).contains("line 2: influxdb.buckett is no key; did you mean bucket?"));
    // A file where the folder should be.
    let output = run(&["write", "--data", in_folder(&config)], "m f=1 1");
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(text(&output.stderr).lines().count(), 1, "{}", text(&output.stderr));
}

#[test]
fn a_reader_who_stops_reading_is_no_failure() {
    let folder = tempfile::tempdir().unwrap();
    let data = in_folder(folder.path());
    let lines: String = (0..20_000).map(|i| format!("m f={i} {}\n", MIDNIGHT + i)).collect();
    run(&["write", "--data", data, "--precision", "s"], &lines);
    for format in ["--csv", "--json", "--limit=20000"] {
        let mut arguments = vec!["query", "--data", data, "--limit", "20000", format];
        if format.starts_with("--limit") {
            arguments.truncate(3);
            arguments.push(format);
        }
        let mut child =
            graylogic().args(&arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut first = [0; 10];
        child.stdout.take().unwrap().read_exact(&mut first).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{format}: {}", text(&output.stderr));
        assert_eq!(text(&output.stderr), "", "{format}");
    }
}

/// A running `serve` and where it listens.
struct Server {
    child: std::process::Child,
    at: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        // After a failed check it must not outlive the test.
        let _ended_already = self.child.kill();
        let _ended_already = self.child.wait();
    }
}

impl Server {
    fn start(data: &Path) -> Self {
        let mut child = graylogic()
            .args(["serve", "--port", "0", "--data", in_folder(data)])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let at = line.trim().strip_prefix("listening on http://").unwrap().to_owned();
        Self { child, at }
    }

    /// Status and body of a GET.
    fn get(&self, path: &str, host: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.at).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
        (status, answer.split_once("\r\n\r\n").unwrap().1.to_owned())
    }

    fn stop(mut self) {
        let killed = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap();
        assert!(killed.success());
        let until = Instant::now() + Duration::from_secs(10);
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                assert!(status.success(), "{status}");
                return;
            }
            assert!(Instant::now() < until, "the server ends when told to");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

#[test]
fn the_page_is_served_and_the_server_ends_when_told_to() {
    let folder = tempfile::tempdir().unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    run(
        &["write", "--data", in_folder(folder.path()), "--precision", "s"],
        &format!("energy,device_id=a w=5 {now}"),
    );
    let server = Server::start(folder.path());
    let ours = server.at.clone();
    let (status, page) = server.get("/", &ours);
    assert!(status == 200 && page.contains("<title>"), "{page}");
    for asset in page.split('"').filter(|s| s.starts_with("/assets/")) {
        assert_eq!(server.get(asset, &ours).0, 200, "{asset}");
    }
    let read = |path: &str| -> Value {
        let (status, body) = server.get(path, &ours);
        assert_eq!(status, 200, "{path}: {body}");
        serde_json::from_str(&body).unwrap()
    };
    assert!(read("/ui/status").is_object());
    assert!(read("/ui/latest?bucket=metrics").to_string().contains("\"a\""));
    assert!(read("/ui/series?bucket=metrics").to_string().contains("energy"));
    assert_eq!(server.get("/ui/nothing", &ours).0, 404);
    let (status, metrics) = server.get("/metrics", &ours);
    let says = |sample: &str| metrics.lines().any(|l| l == format!("graylogic_spool_{sample}"));
    assert_eq!(status, 200);
    assert!(says("lines_total{target=\"main\",bucket=\"metrics\",state=\"accepted\"} 0"), "{metrics}");
    assert!(says("waiting_lines{target=\"main\",bucket=\"metrics\"} 0"), "{metrics}");
    assert!(says("health{target=\"main\",bucket=\"metrics\",state=\"ok\"} 1"), "{metrics}");
    assert_ne!(server.get("/metrics", "evil.example").0, 200);
    assert_eq!(server.get("/assets/../Cargo.toml", &ours).0, 404);
    assert_ne!(
        server.get("/ui/status", "evil.example").0,
        200,
        "another name for this machine is not answered"
    );
    // One process has the store; another is told who.
    let other = run(&["write", "--data", in_folder(folder.path())], "m f=1 1");
    assert_eq!(other.status.code(), Some(1));
    let said = text(&other.stderr);
    assert!(said.contains(&server.child.id().to_string()) && said.lines().count() == 1, "{said}");
    let taken = run(
        &["serve", "--data", in_folder(&folder.path().join("b")), "--port", ours.rsplit_once(':').unwrap().1],
        "",
    );
    assert!(text(&taken.stderr).contains("name another with --port"), "{}", text(&taken.stderr));
    server.stop();
}

/// Readings acknowledged by a process that was killed are there, each once, and nothing foreign.
#[test]
fn what_was_acknowledged_survives_kill_9() {
    let rounds: u64 = std::env::var("GRAYLOGIC_KILL_ROUNDS").map_or(12, |n| n.parse().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let data = in_folder(folder.path());
    let (mut next, mut kills, mut acknowledged_total) = (0u64, 0u64, 0u64);
    let mut must_be_there: Vec<std::ops::Range<u64>> = Vec::new();
    for round in 0..rounds {
        let mut child = graylogic()
            .args(["write", "--ack", "--batch", "40", "--precision", "s", "--data", data])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut input = child.stdin.take().unwrap();
        let from = next;
        let feeder = std::thread::spawn(move || {
            let mut n = from;
            loop {
                let lines: String = (n..n + 100)
                    .map(|i| format!("m,s={} v={i},w={}i {}\n", i % 7, i * 2, MIDNIGHT + i))
                    .collect();
                if input.write_all(lines.as_bytes()).is_err() {
                    return n + 100;
                }
                n += 100;
            }
        });
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        // Some rounds end before the first word, some in the middle of sealing.
        let enough = if round % 4 == 0 { 0 } else { (round * 37) % 90 };
        let mut words = 0;
        let mut acknowledged = 0u64;
        while words < enough {
            line.clear();
            assert!(output.read_line(&mut line).unwrap() > 0, "it goes on until it is killed");
            acknowledged = line.split(' ').nth(1).unwrap().parse().unwrap();
            words += 1;
        }
        std::thread::sleep(Duration::from_micros(round * 761 % 9000));
        child.kill().unwrap();
        child.wait().unwrap();
        kills += 1;
        // What it had said before it died counts too.
        loop {
            line.clear();
            if output.read_line(&mut line).unwrap() == 0 || !line.ends_with('\n') {
                break;
            }
            acknowledged = line.split(' ').nth(1).unwrap().parse().unwrap();
        }
        must_be_there.push(from..from + acknowledged);
        acknowledged_total += acknowledged;
        next = feeder.join().unwrap();
    }
    let answer = json(&run(&["query", "--json", "--data", data, "--limit", "100000000"], ""));
    let mut found = std::collections::BTreeMap::new();
    for row in answer["rows"].as_array().unwrap() {
        let time: String = row["time"].as_str().unwrap().to_owned();
        let field = row["field"].as_str().unwrap().to_owned();
        let value = row["value"].as_f64().unwrap();
        let n = if field == "w" { value / 2.0 } else { value } as u64;
        assert_eq!(row["tags"]["s"], (n % 7).to_string(), "nothing foreign");
        assert!(n < next);
        assert!(found.insert((n, field), time).is_none(), "each once");
    }
    let lost = must_be_there
        .iter()
        .flat_map(Clone::clone)
        .flat_map(|n| [(n, "v".to_owned()), (n, "w".to_owned())])
        .filter(|key| !found.contains_key(key))
        .count();
    println!(
        "{kills} times kill -9: {acknowledged_total} lines acknowledged, {} values there, {lost} lost",
        found.len()
    );
    assert_eq!(lost, 0);
    assert!(acknowledged_total > 0, "something was acknowledged");
}

#[test]
fn lines_for_a_server_that_is_away_wait_in_the_spool_and_go_out_when_it_is_back() {
    use std::io::{Read, Write};
    let folder = tempfile::tempdir().unwrap();
    let spool = folder.path().join("spool");
    let config = folder.path().join("site.yaml");
    let write = |port: u16, lines: &str| {
        let yaml = format!(
            "influxdb:\n  url: http://127.0.0.1:{port}\n  bucket: house\n  spool: {}\n  batch_size: 5000\n",
            spool.display()
        );
        std::fs::write(&config, yaml).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_graylogic"))
            .args(["write", "--json", "--config"])
            .arg(&config)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
        let out = child.wait_with_output().unwrap();
        let said: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
        (out.status.code().unwrap(), said)
    };
    // Nobody listens on a port that was free a moment ago.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let (code, said) = write(port, "m f=1 1\nbad\nm f=2 2\n");
    assert_eq!((code, &said["waiting"], &said["refused"]), (3, &2.into(), &1.into()), "{said}");
    assert_eq!(said["lines"][0]["line"], 2, "{said}");

    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = std::thread::spawn(move || {
        let mut body = String::new();
        while !body.contains("m f=3") {
            let mut stream = listener.accept().unwrap().0;
            let mut request = Vec::new();
            let mut piece = [0; 4096];
            loop {
                let text = String::from_utf8_lossy(&request).into_owned();
                let length = text
                    .lines()
                    .find_map(|l| l.to_lowercase().strip_prefix("content-length: ").map(str::to_owned));
                let length: usize = length.map_or(0, |l| l.trim().parse().unwrap());
                if let Some((_, sent)) = text.split_once("\r\n\r\n")
                    && sent.len() >= length
                {
                    body.push_str(sent);
                    break;
                }
                let n = stream.read(&mut piece).unwrap();
                request.extend_from_slice(&piece[..n]);
            }
            let stored =
                b"HTTP/1.1 204 No Content\r\nX-Influxdb-Version: v2.8.0\r\nConnection: close\r\n\r\n";
            stream.write_all(stored).unwrap();
        }
        body
    });
    let (code, said) = write(port, "m f=3 3\n");
    assert_eq!((code, &said["delivered"], &said["waiting"]), (0, &3.into(), &0.into()), "{said}");
    let body = server.join().unwrap();
    assert_eq!(body, "m f=1.0 1\nm f=2.0 2\nm f=3.0 3\n", "what waited goes first");
}

#[test]
fn lines_go_where_the_rules_of_the_configuration_say() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let config = path("site.yaml");
    let yaml = format!(
        "influxdb:\n  url: embedded:{}\n  spool: {}\n  targets:\n    copy:\n      url: embedded:{}\n  routes:\n    \
         - class: energy\n      to: [main, copy]\n",
        path("main").display(),
        path("spool").display(),
        path("copy").display()
    );
    std::fs::write(&config, yaml).unwrap();
    let lines = "energy,device_id=a power_watts=1 1700000000000000001\nother f=2 1700000000000000002\n";
    let said = json(&run(&["write", "--json", "--config", in_folder(&config)], lines));
    assert_eq!((&said["delivered"], &said["dropped"]), (&3.into(), &0.into()), "{said}");
    // A bucket that is given is where they go.
    let aside = ["write", "--json", "--config", in_folder(&config), "--bucket", "aside"];
    assert_eq!(json(&run(&aside, lines))["points"], 2);
    let values = |data: &str, bucket: &str| -> Vec<f64> {
        let answer =
            json(&run(&["query", "--json", "--data", in_folder(&path(data)), "--bucket", bucket], ""));
        answer["rows"].as_array().unwrap().iter().map(|r| r["value"].as_f64().unwrap()).collect()
    };
    assert_eq!(values("main", "metrics"), [1.0, 2.0]);
    assert_eq!(values("copy", "metrics"), [1.0]);
    assert_eq!(values("main", "aside"), [1.0, 2.0]);
}

/// `rm store.sqlite` between two writes: no reading appears under another series, every command reports the loss, and
/// `verify` fails until it is settled.
#[test]
fn a_store_file_that_is_gone_is_reported_by_every_command_until_it_is_settled() {
    let folder = tempfile::tempdir().unwrap();
    let data = in_folder(folder.path());
    let write = |line: &str| run(&["write", "--data", data], line);
    assert!(write("boiler,d=b1 temp=80.5\n").status.success());
    std::fs::remove_file(folder.path().join("store.sqlite")).unwrap();
    let fridge = write("fridge,d=f1 temp=4.0\n");
    assert!(fridge.status.success(), "a box that runs unattended goes on: {}", text(&fridge.stderr));
    assert!(text(&fridge.stderr).contains("damage: store.sqlite is gone"), "{}", text(&fridge.stderr));
    let found = run(&["query", "--json", "--data", data, "-m", "boiler"], "");
    let rows = json(&found)["rows"].as_array().unwrap().clone();
    let values: Vec<f64> = rows.iter().filter_map(|r| r["value"].as_f64()).collect();
    assert_eq!(values, [80.5], "{rows:?}");
    for arguments in [&["status", "--data", data][..], &["bucket", "list", "--data", data]] {
        let said = run(arguments, "");
        let all = format!("{}{}", text(&said.stdout), text(&said.stderr));
        assert!(all.contains("store.sqlite is gone"), "{arguments:?}: {all}");
    }
    for _ in 0..2 {
        let verified = run(&["verify", "--data", data], "");
        assert_eq!(verified.status.code(), Some(1), "{}", text(&verified.stdout));
        assert!(text(&verified.stdout).contains("store.sqlite is gone"));
    }
    assert!(run(&["verify", "--settle", "--data", data], "").status.success());
    let verified = run(&["verify", "--data", data], "");
    assert!(verified.status.success(), "{}", text(&verified.stdout));
    assert_eq!(text(&run(&["bucket", "list", "--data", data], "").stderr), "");
}
