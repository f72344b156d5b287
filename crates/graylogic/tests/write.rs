//! What becomes of input: of a pipe that stays open, of lines that are wrong or endless, of other programs' lines, and of a
//! program that is stopped by a signal. And that no command reports success without it.
#![allow(clippy::unwrap_used, missing_docs, unreachable_pub)]

#[allow(dead_code, reason = "another package uses the rest of it")]
#[path = "../../influxdb/tests/scripted/mod.rs"]
mod scripted;

use graylogic_influxdb::ServerKind;
use scripted::{Answer, ping};
use serde_json::Value;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Longer than anything takes that is waited for.
const PATIENCE: Duration = Duration::from_secs(120);

fn graylogic(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_graylogic"));
    for (key, _) in std::env::vars().filter(|(key, _)| key.starts_with("GRAYLOGIC_")) {
        // What the machine's environment says must not matter.
        command.env_remove(key);
    }
    command.env("TZ", "UTC").args(arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn run(arguments: &[&str], input: &[u8]) -> Output {
    let mut child = graylogic(arguments).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    // A command that does not read its input ends before it was all written.
    let feeder = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let output = child.wait_with_output().unwrap();
    feeder.join().unwrap();
    output
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// Exit code, standard output, standard error.
fn said(output: &Output) -> (i32, &str, &str) {
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(!err.contains("panicked"), "{err}");
    (output.status.code().unwrap(), out, err)
}

/// Lines of one measurement, a nanosecond apart.
fn lines(values: std::ops::RangeInclusive<u32>) -> String {
    values.map(|i| format!("m f={i} {}\n", 1_700_000_000_000_000_000 + u64::from(i))).collect()
}

fn shown(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn values(data: &Path) -> Vec<Value> {
    let answer = run(&["query", "--json", "--data", shown(data)], b"");
    let rows: Value = serde_json::from_slice(&answer.stdout).unwrap();
    rows["rows"].as_array().unwrap().iter().map(|row| row["value"].clone()).collect()
}

/// A `write` whose input stays open.
struct Open {
    child: Child,
    input: Option<ChildStdin>,
}

impl Drop for Open {
    fn drop(&mut self) {
        // After a failed check it must not outlive the test.
        let _ended_already = self.child.kill();
        let _ended_already = self.child.wait();
    }
}

impl Open {
    fn start(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let input = child.stdin.take();
        Self { child, input }
    }

    fn give(&mut self, lines: &str) {
        let input = self.input.as_mut().unwrap();
        input.write_all(lines.as_bytes()).unwrap();
        input.flush().unwrap();
    }

    /// Waits for the end after a signal.
    fn end(mut self, signal: &str) -> (i32, String) {
        let sent = Command::new("kill").args([signal, &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
        let until = Instant::now() + PATIENCE;
        let code = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status.code().unwrap();
            }
            assert!(Instant::now() < until, "it ends when told to, though its input is open");
            std::thread::sleep(Duration::from_millis(20));
        };
        let mut err = String::new();
        std::io::Read::read_to_string(self.child.stderr.as_mut().unwrap(), &mut err).unwrap();
        (code, err)
    }
}

#[test]
fn lines_of_an_open_pipe_are_stored_and_a_signal_stores_the_last() {
    let folder = tempfile::tempdir().unwrap();
    for (signal, code) in [("-TERM", 143), ("-INT", 130)] {
        let data = folder.path().join(signal);
        let mut write = Open::start(graylogic(&["write", "--ack", "--data", shown(&data)]));
        let mut out = BufReader::new(write.child.stdout.take().unwrap());
        write.give(&lines(1..=5));
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        assert_eq!(line, "acknowledged 5 lines\n", "while the input is open");
        // The last line may lack digits.
        write.give(&format!("{}m f=7 17", lines(6..=6)));
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        assert_eq!(line, "acknowledged 6 lines\n");
        let (ended, err) = write.end(signal);
        assert_eq!(ended, code, "{err}");
        assert!(err.contains("The last line was incomplete (8 bytes) and was left out"), "{err}");
        let mut rest = String::new();
        std::io::Read::read_to_string(&mut out, &mut rest).unwrap();
        assert_eq!(rest, "6 points stored, 0 lines rejected\n");
        assert_eq!(values(&data), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    }
}

/// A server that takes lines, and keeps them.
fn server(answer: impl Fn(&str) -> Answer + Send + Sync + 'static) -> (String, Arc<Mutex<String>>) {
    let taken: Arc<Mutex<String>> = Arc::default();
    let keeps = taken.clone();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let answer = Arc::new(answer);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (keeps, answer) = (keeps.clone(), answer.clone());
            std::thread::spawn(move || take(stream.unwrap(), &keeps, &*answer));
        }
    });
    (url, taken)
}

fn take(mut stream: std::net::TcpStream, keeps: &Mutex<String>, answer: &dyn Fn(&str) -> Answer) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    loop {
        let mut head = String::new();
        while matches!(reader.read_line(&mut head), Ok(read) if read > 2) {}
        let Some(first) = head.lines().next() else { return };
        let length = head.lines().find_map(|line| {
            line.to_lowercase().strip_prefix("content-length:").map(|length| length.trim().parse().unwrap())
        });
        let mut body = vec![0; length.unwrap_or(0)];
        if std::io::Read::read_exact(&mut reader, &mut body).is_err() {
            return;
        }
        let reply = match first.contains("/ping") {
            true => ping(ServerKind::InfluxDb2),
            false => {
                let body = if body.starts_with(&[0x1f, 0x8b]) { unzipped(&body) } else { body };
                let lines = String::from_utf8_lossy(&body).into_owned();
                let reply = answer(&lines);
                if reply.status == 204 {
                    keeps.lock().unwrap().push_str(&lines);
                }
                reply
            }
        };
        let length = if reply.status == 204 {
            String::new()
        } else {
            format!("Content-Length: {}\r\n", reply.body.len())
        };
        let head = format!("HTTP/1.1 {} Scripted\r\n{}{length}\r\n", reply.status, reply.headers);
        if stream.write_all(format!("{head}{}", reply.body).as_bytes()).is_err() {
            return;
        }
    }
}

fn unzipped(body: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(body), &mut plain).unwrap();
    plain
}

fn site(folder: &Path, url: &str, more: &str) -> String {
    let config = folder.join("site.yaml");
    let spool = folder.join("spool");
    let yaml = format!(
        "influxdb:\n  url: {url}\n  bucket: house\n  org: o\n  token: t\n  spool: {}\n{more}",
        spool.display()
    );
    std::fs::write(&config, yaml).unwrap();
    shown(&config).to_owned()
}

#[test]
fn lines_of_an_open_pipe_are_sent() {
    let (url, taken) = server(|_| Answer::of(204, ""));
    let folder = tempfile::tempdir().unwrap();
    let config = site(folder.path(), &url, "  flush_interval: 1\n");
    let mut write = Open::start(graylogic(&["write", "--config", &config]));
    let until = Instant::now() + PATIENCE;
    let wait_for = |expected: &str| {
        while *taken.lock().unwrap() != expected {
            assert!(Instant::now() < until, "{}", taken.lock().unwrap());
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    write.give("m f=1 1\nm f=2 2\nm f=3 3\nm s=\"two\nlines\" 4\nm f=5 5\n");
    let first = "m f=1.0 1\nm f=2.0 2\nm f=3.0 3\nm s=\"two\nlines\" 4\nm f=5.0 5\n";
    wait_for(first);
    write.give("m f=6 6\n");
    wait_for(&format!("{first}m f=6.0 6\n"));
    let (code, err) = write.end("-TERM");
    assert_eq!(code, 143, "{err}");
}

#[test]
fn lines_of_other_programs_go_as_a_server_takes_them() {
    let (url, taken) = server(|_| Answer::of(204, ""));
    let folder = tempfile::tempdir().unwrap();
    let config = site(folder.path(), &url, "");
    // As Telegraf writes them.
    let lines = "_internal,_host=a _f=1i 1\nnet,interface=eth0 interface=\"eth0\",n=2i 2\nm f=1,f=2 3\nm\\ x,p=C:\\x f=.5 4\n";
    let output = run(&["write", "--config", &config], lines.as_bytes());
    assert_eq!(said(&output), (0, "4 lines delivered, 0 rejected\n", ""));
    let expected = "_internal,_host=a _f=1i 1\nnet,interface=eth0 interface=\"eth0\",n=2i 2\nm f=1,f=2 3\nm\\ x,p=C:\\x f=0.5 4\n";
    assert_eq!(*taken.lock().unwrap(), expected);
    // What a server rejects is its answer to give.
    let (url, _) = server(|lines| match lines.contains("bad") {
        true => Answer::of(
            400,
            r#"{"code":"invalid","message":"unable to parse 'bad,t=a t=1 1': no \u001b[2J such line"}"#,
        ),
        false => Answer::of(204, ""),
    });
    let config = site(folder.path(), &url, "");
    let output = run(&["write", "--config", &config], b"bad,t=a t=1 1\n");
    let (code, out, err) = said(&output);
    assert_eq!((code, out), (3, "0 lines delivered, 1 rejected\n"), "{err}");
    assert!(err.contains("bad,t=a t=1") && !err.contains('\u{1b}'), "{err}");
}

#[test]
fn what_is_not_delivered_or_not_stored_is_not_done() {
    let folder = tempfile::tempdir().unwrap();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let config = site(folder.path(), &format!("http://{free}"), "");
    let output = run(&["write", "--config", &config], b"m f=1 1\nm f=2 2\n");
    let (code, out, _) = said(&output);
    assert_eq!(code, 4);
    assert!(out.contains("2 lines not delivered yet: pending in the spool"), "{out}");
    // Those that are rejected are counted, whether they are named or not.
    let data = folder.path().join("store");
    let output = run(
        &["write", "--ack", "--data", shown(&data)],
        b"m f=1 1700000000000000001\nbad\nm f=2 1700000000000000002\nworse\n",
    );
    let expected = "acknowledged 2 lines, 2 rejected\n2 points stored, 2 lines rejected\n";
    assert_eq!((said(&output).0, said(&output).1), (3, expected));
    let bad = "bad\n".repeat(1004);
    let config = site(folder.path(), &format!("http://{free}"), "");
    for target in [["--data", shown(&data)], ["--config", &config]] {
        let output = run(&[&["write"], &target[..]].concat(), bad.as_bytes());
        let (code, out, err) = said(&output);
        assert!(code == 3 && out.contains("1004 rejected") || out.contains("1004 lines rejected"), "{out}");
        let named: Vec<&str> = err.lines().filter(|line| line.contains("'bad'")).collect();
        assert_eq!((named.len(), err.contains("... and 904 more\n")), (100, true), "{err}");
    }
}

#[test]
fn one_bad_line_costs_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let good = |from: usize, to: usize| -> String {
        (from..to).map(|i| format!("m,t=a s=\"x y\",f={i} {}\n", 1_700_000_000_000_000_000 + i)).collect()
    };
    let long = "x".repeat(17 << 20);
    for (name, bad, stored, line) in [
        (
            "quote",
            "m s=\"open 1".to_owned(),
            12_000,
            "line 11: unable to parse 'm s=\"open 1': unbalanced quotes",
        ),
        ("long", format!("m s=\"{long}\" 1"), 12_000, "the line has 17825801 bytes; at most 8 MiB are read"),
        ("cut", "m f=1 1\\".to_owned(), 12_000, "line 11: unable to parse 'm f=1 1\\\\': bad timestamp"),
    ] {
        let lines =
            format!("{}{bad}\n{}m s=\"two\nlines\" 1700000000000000000\n", good(0, 10), good(10, 12_000));
        let file = folder.path().join("lines.gz");
        let mut zip =
            flate2::write::GzEncoder::new(File::create(&file).unwrap(), flate2::Compression::fast());
        zip.write_all(lines.as_bytes()).unwrap();
        zip.finish().unwrap();
        let data = folder.path().join(name);
        let piped = run(&["write", "--data", shown(&data)], lines.as_bytes());
        let read = run(&["write", "--data", shown(&folder.path().join("read")), shown(&file)], b"");
        let imported = run(&["import", "--data", shown(&folder.path().join("imported")), shown(&file)], b"");
        for output in [&piped, &read, &imported] {
            let (code, out, err) = said(output);
            let stored = [
                format!("{} points stored, 1 lines rejected\n", stored + 1),
                "12,001 points stored, 1 lines rejected\n".to_owned(),
            ];
            assert!(stored.iter().any(|stored| out.contains(stored)), "{name}: {out} {err}");
            assert!(code == 3 && err.contains("line 11") && err.len() < 2000, "{name}: {err}");
            assert!(err.contains(&line.replace("\\\\", "\\")) || err.contains(line), "{name}: {err}");
        }
    }
}

#[test]
fn csv_has_its_bounds() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("t.csv");
    let data = folder.path().join("store");
    let import = |csv: &str| {
        std::fs::write(&file, csv).unwrap();
        run(&["import", "--data", shown(&data), "-m", "m", "--precision", "s", shown(&file)], b"")
    };
    let rows: String = (0..6000).map(|i| format!("{},\"a {i}\",{i}\n", 1_700_000_000 + i)).collect();
    let output = import(&format!("time,note,v\n1000000,\"open,1\n{rows}1700007000,\"two\nlines\",1\n"));
    let (code, out, err) = said(&output);
    assert!(code == 3 && out.contains("6,001 points stored, 1 lines rejected"), "{out}{err}");
    assert_eq!(err, "line 2: a quote in this row is not closed\n");
    let output = import(&format!("time,v\n1700000001,{}\n1700000002,2\n", "1".repeat(9 << 20)));
    let (code, out, err) = said(&output);
    assert!(
        code == 3 && out.contains("1 points stored, 1 lines rejected") && err.contains("line 2"),
        "{out}{err}"
    );
    let head: String = (0..400_000).map(|i| format!(",c{i}")).collect();
    let (code, _, err) = {
        let o = import(&format!("time{head}\n1\n"));
        let (c, a, b) = said(&o);
        (c, a.to_owned(), b.to_owned())
    };
    assert!(code == 1 && err.contains("it has 400,001 columns; at most 4096 are read"), "{err}");
    let head: String = (0..3000).map(|i| format!(",_c{i}")).collect();
    let cells = ",1".repeat(3000);
    let output = import(&format!("time{head}\n1700000001{cells}\n1700000002{cells}\n"));
    assert!(said(&output).1.contains("2 points stored, 0 lines rejected"), "{:?}", said(&output));
    let output = import("");
    assert!(
        said(&output).2.contains("it is empty; its first row must name the columns"),
        "{:?}",
        said(&output)
    );
}

#[test]
fn a_configuration_that_is_switched_off_stops_the_program() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("store");
    let config = folder.path().join("site.yaml");
    std::fs::write(&config, format!("influxdb:\n  enabled: false\n  url: embedded:{}\n", data.display()))
        .unwrap();
    let lines = folder.path().join("lines");
    std::fs::write(&lines, "m f=1 1\n").unwrap();
    let acting: [&[&str]; 11] = [
        &["write"],
        &["write", shown(&lines)],
        &["import", shown(&lines)],
        &["delete", "--everything"],
        &["bucket", "create", "b"],
        &["bucket", "remove", "b", "--yes"],
        &["compact"],
        &["quarantine", "release"],
        &["quarantine", "drop"],
        &["serve", "--port", "0"],
        &["task", "list"],
    ];
    for arguments in acting {
        let output = run(&[arguments, &["--config", shown(&config)]].concat(), b"m f=1 1\n");
        let (code, out, err) = said(&output);
        assert!(code == 1 && out.is_empty(), "{arguments:?}: {out}{err}");
        assert!(err.contains("influxdb.enabled is false"), "{arguments:?}: {err}");
        assert!(!data.exists(), "{arguments:?}");
    }
    let doctor = run(&["doctor", "--config", shown(&config)], b"");
    assert!(said(&doctor).0 == 1 && said(&doctor).1.starts_with("disabled: influxdb.enabled is false"));
    run(&["write", "--data", shown(&data)], b"m f=1 1700000000000000000\n");
    let status = run(&["status", "--config", shown(&config)], b"");
    assert!(said(&status).0 == 0 && said(&status).1.contains("disabled"), "{:?}", said(&status));
    let status = run(&["status", "--json", "--config", shown(&config)], b"");
    assert_eq!(serde_json::from_slice::<Value>(&status.stdout).unwrap()["enabled"], false);
}

#[cfg(target_os = "linux")]
#[test]
fn an_answer_that_cannot_be_written_is_no_success() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("store");
    let lines: String = (0..3000).map(|i| format!("m f={i} {}\n", 1_700_000_000 + i)).collect();
    let written = run(&["write", "--data", shown(&data), "--precision", "s"], lines.as_bytes());
    assert_eq!(said(&written), (0, "3000 points stored, 0 lines rejected\n", ""));
    let commands: [&[&str]; 8] = [
        &["query"],
        &["query", "--csv"],
        &["query", "--json"],
        &["status"],
        &["status", "--json"],
        &["bucket", "list"],
        &["verify"],
        &["demo", "--once"],
    ];
    for arguments in commands {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let mut command = graylogic(&[arguments, &["--data", shown(&data)]].concat());
        let output = command.stdout(full).stdin(Stdio::null()).output().unwrap();
        let (code, _, err) = said(&output);
        assert!(code == 1 && err.contains("No space left on device"), "{arguments:?}: {code} {err}");
    }
}

#[test]
fn buckets_are_made_and_removed_as_they_were_meant() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("new");
    let bucket = |arguments: &[&str]| run(&[&["bucket", "--data", shown(&data)], arguments].concat(), b"");
    let output = bucket(&["create", "house", "--keep", "soon"]);
    assert!(said(&output).2.contains("\"soon\" is no length of time"), "{:?}", said(&output));
    let output = bucket(&["create", "house", "--keep", "5m"]);
    assert!(said(&output).0 == 1 && said(&output).2.contains("at least an hour"), "{:?}", said(&output));
    let output = bucket(&["create", "house"]);
    assert!(said(&output).0 == 0 && said(&output).1.contains("house"), "{:?}", said(&output));
    run(
        &["write", "--bucket", "house", "--data", shown(&data)],
        b"m,t=a f=1 1700000000000000000\nm,t=b f=1 1700000000000000000\n",
    );
    let output = bucket(&["remove", "house"]);
    let says =
        "graylogic: this would remove bucket \"house\" with 2 series for good; to do that, add --yes\n";
    assert_eq!(said(&output), (1, "", says));
    let output = bucket(&["remove", "house", "--dry-run"]);
    assert_eq!(said(&output), (0, "would remove bucket \"house\" with 2 series\n", ""));
    assert!(said(&bucket(&["list"])).1.contains("house"));
    assert!(!said(&bucket(&["remove", "house", "--yes"])).1.contains("house"));
    assert_eq!(said(&bucket(&["remove", "house", "--yes"])).0, 1);
}

#[test]
fn data_do_not_control_a_terminal() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("store");
    let hostile = "a\u{1b}[2J\u{7}\u{9b}1m\u{202e}b";
    let lines = format!("m,t=\u{202e}x s=\"{hostile}\r\" 1700000000000000000\nbad {hostile}\n");
    let written = run(&["write", "--data", shown(&data)], lines.as_bytes());
    let shown_to_people = |output: &Output| {
        let (_, out, err) = said(output);
        let all = format!("{out}{err}");
        let controls = all.chars().any(|c| (c.is_control() && c != '\n') || c == '\u{202e}');
        assert!(!controls, "{all:?}");
        all
    };
    assert!(shown_to_people(&written).contains("a\\u{1b}[2J\\u{7}\\u{9b}1m\\u{202e}b"));
    let query = ["query", "--data", shown(&data)];
    let table = shown_to_people(&run(&query, b""));
    assert!(
        table.contains("t=\\u{202e}x") && table.contains("a\\u{1b}[2J\\u{7}\\u{9b}1m\\u{202e}b\\r"),
        "{table}"
    );
    let json = run(&[&query[..], &["--json"]].concat(), b"");
    let rows: Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(rows["rows"][0]["value"], format!("{hostile}\r"));
    shown_to_people(&json);
    // For a program CSV is the data.
    let csv = run(&[&query[..], &["--csv"]].concat(), b"");
    assert!(text(&csv.stdout).contains(hostile));
    shown_to_people(&run(&["query", "--data", shown(&data), "-m", hostile, "--tag", hostile], b""));
    let status = run(&["status", "--json", "--config", &format!("{hostile}.yaml")], b"");
    shown_to_people(&status);
    let error: Value = serde_json::from_slice(&status.stderr).unwrap();
    assert!(error["error"].as_str().unwrap().contains(hostile), "{error}");
}

#[test]
fn times_in_another_unit_are_pointed_out() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("store");
    let write = |unit: &str, lines: &str| {
        let output =
            run(&["write", "--any-time", "--data", shown(&data), "--precision", unit], lines.as_bytes());
        said(&output).2.to_owned()
    };
    let err = write("s", "m f=1 1700000000000000000\n");
    assert!(
        err.contains("time outside range") && err.ends_with("; its time looks like --precision ns\n"),
        "{err}"
    );
    let err = write("ns", "m f=1 1700000000\nm f=2 1700000001\n");
    assert_eq!(
        err,
        "the time of 'm f=2 1700000001' looks like --precision s, and is read as --precision ns\n"
    );
    assert_eq!(write("s", "m f=1 1700000000\nm f=1 5\n"), "");
    assert_eq!(write("ns", "m f=3\n"), "");
    // Quarantined lines are where a wrong unit shows.
    let file = folder.path().join("lines");
    std::fs::write(&file, "m f=1 1700000000\nm f=2 1700000001\n").unwrap();
    for arguments in
        [["write", "--data", shown(&data), shown(&file)], ["import", "--data", shown(&data), shown(&file)]]
    {
        let output = run(&arguments, b"");
        let (code, out, err) = said(&output);
        assert!(code == 0 && out.contains("0 points stored, 2 quarantined, 0 lines rejected"), "{out}");
        let says = "the time of 'm f=2 1700000001' looks like --precision s, and is read as --precision ns\n2 lines are quarantined: ";
        assert!(err.starts_with(says) && err.lines().count() == 2, "{err}");
    }
}

/// What a wrong clock sends, from the command line: counted once, out of the way, shown, released and dropped.
#[test]
fn readings_of_a_wrong_clock_are_quarantined_shown_released_and_dropped() {
    const WHY: &str = "2 lines are quarantined: the timestamps are before 2000 or more than an hour ahead of the clock of \
                       this machine; graylogic query --quarantine shows them, graylogic quarantine releases or drops \
                       them, and --any-time stores history and forecasts\n";
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("store");
    let at = |arguments: &[&str]| run(&[arguments, &["--data", shown(&data)]].concat(), b"");
    let json = |arguments: &[&str]| -> Value {
        let output = at(&[arguments, &["--json"]].concat());
        assert_eq!(said(&output).0, 0, "{arguments:?}: {}", said(&output).2);
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let found = |arguments: &[&str]| -> Vec<Value> {
        let rows = json(&[&["query"], arguments].concat());
        rows["rows"].as_array().unwrap().iter().map(|row| row["value"].clone()).collect()
    };
    // 1970, 2023, and a time that stays ahead of every clock this runs on.
    let lines: &[u8] = b"m f=1 1\nm f=2 1700000000000000000\nm f=3 9000000000000000000\n";
    let write = |more: &[&str]| run(&[&["write", "--data", shown(&data)], more].concat(), lines);
    let summary = "acknowledged 3 lines\n1 points stored, 2 quarantined, 0 lines rejected\n";
    assert_eq!(said(&write(&["--ack"])), (0, summary, WHY), "all are safe, and reported once");

    assert_eq!(found(&["--latest"]), [2.0]);
    assert_eq!(found(&[]), [2.0]);
    assert_eq!(found(&["--quarantine"]), [1.0, 3.0]);
    assert_eq!(found(&["--quarantine", "--latest"]), [3.0]);
    let listed = json(&["quarantine", "ls"]);
    let expected = (&Value::from("metrics"), &Value::from(2), &Value::from(1));
    let first = &listed["quarantine"][0];
    assert_eq!((&first["bucket"], &first["values"], &first["series"]), expected, "{listed}");
    let listed = at(&["quarantine", "ls"]);
    let (code, out, err) = said(&listed);
    assert!(
        code == 0 && out.contains("1970-01-01") && out.contains("2255-03-14") && err.is_empty(),
        "{out}{err}"
    );
    assert!(said(&at(&["status"])).1.contains("2 values: see graylogic quarantine"));

    let output = at(&["quarantine", "release"]);
    assert_eq!(said(&output), (0, "released 2 values into bucket \"metrics\"\n", ""));
    assert_eq!(found(&[]), [1.0, 2.0, 3.0]);
    assert_eq!(found(&["--latest"]), [2.0], "what lies ahead is not the latest");
    assert_eq!(said(&at(&["quarantine", "ls"])).1, "nothing is in quarantine\n");
    assert_eq!(found(&["--quarantine"]), [0.0; 0]);

    let output = write(&["--json"]);
    let counts: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&counts["points"], &counts["quarantined"]), (&1.into(), &2.into()));
    assert_eq!(said(&output).2, "");
    let output = at(&["quarantine", "drop"]);
    assert_eq!(said(&output), (0, "dropped 2 quarantined values of bucket \"metrics\"\n", ""));
    assert_eq!(said(&at(&["quarantine", "ls"])).1, "nothing is in quarantine\n");
    assert_eq!(found(&[]), [1.0, 2.0, 3.0], "those that were released stay");
    assert_eq!(said(&write(&["--any-time"])), (0, "3 points stored, 0 lines rejected\n", ""));

    let file = folder.path().join("lines");
    std::fs::write(&file, lines).unwrap();
    let imported = json(&["import", shown(&file)]);
    assert_eq!((&imported["points"], &imported["quarantined"]), (&1.into(), &2.into()), "{imported}");
    let output = at(&["import", shown(&file)]);
    let (_, out, err) = said(&output);
    assert!(out.contains(": 1 points stored, 2 quarantined, 0 lines rejected\n") && err == WHY, "{out}{err}");
    // Nothing else is in this bucket: a query of it says where its readings are, and its removal what goes with it.
    assert_eq!(said(&write(&["--bucket", "odd"])).0, 0);
    let output = at(&["query", "--bucket", "odd", "-m", "other"]);
    let says = "nothing found in bucket \"odd\", which has quarantined values (2): --quarantine shows them\n";
    assert_eq!(said(&output).2, says);
    let output = at(&["bucket", "remove", "odd", "--dry-run"]);
    assert_eq!(said(&output).1, "would remove bucket \"odd\" with 1 series and its quarantined values (2)\n");
    // A bucket without any has no quarantine to show; one that does not exist is named as it was given.
    assert_eq!(said(&at(&["bucket", "create", "empty"])).0, 0);
    assert_eq!(found(&["--quarantine", "--bucket", "empty"]), [0.0; 0]);
    let output = at(&["query", "--quarantine", "--bucket", "nowhere"]);
    let (code, _, err) = said(&output);
    assert!(code == 1 && err.contains("bucket \"nowhere\" does not exist"), "{err}");
}

#[test]
fn a_write_that_follows_rules_counts_what_is_quarantined() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("site.yaml");
    let path = |name: &str| folder.path().join(name).display().to_string();
    let yaml = format!(
        "influxdb:\n  url: embedded:{}\n  spool: {}\n  routes:\n    - class: energy\n      to: [main]\n",
        path("main"),
        path("spool")
    );
    std::fs::write(&config, yaml).unwrap();
    let write = |more: &[&str]| {
        let arguments = [&["write", "--config", shown(&config)], more].concat();
        run(&arguments, b"m f=1 1\nm f=2 1700000000000000000\n")
    };
    let output = write(&[]);
    let (code, out, err) = said(&output);
    assert_eq!((code, out), (0, "2 lines delivered, 1 of them quarantined, 0 rejected\n"), "{err}");
    assert!(err.starts_with("1 line is quarantined: ") && err.lines().count() == 1, "{err}");
    let counts: Value = serde_json::from_slice(&write(&["--json"]).stdout).unwrap();
    assert_eq!((&counts["delivered"], &counts["quarantined"]), (&2.into(), &1.into()), "{counts}");
    assert_eq!(said(&write(&["--any-time"])), (0, "2 lines delivered, 0 rejected\n", ""));
}

#[test]
fn an_acknowledgment_counts_the_lines_that_later_ones_replace() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("store");
    let lines = b"m f=1 1700000000000000000\nm f=2 1700000000000000000\n";
    let output = run(&["write", "--ack", "--data", shown(&data)], lines);
    let replaced = "1 points stored, 1 overwritten by later lines with the same series and timestamp, 0 lines rejected\n";
    assert_eq!(said(&output), (0, format!("acknowledged 2 lines\n{replaced}").as_str(), ""));
}
