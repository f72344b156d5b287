//! The client against a server that misbehaves in every way that was seen: nothing accepted is lost, nothing good is
//! refused, and every refusal has its line and reason. `GRAYLOGIC_TORTURE` multiplies the seeds of the campaigns.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs, unreachable_pub)]

mod hostile;

use graylogic_influxdb::{
    Client, Config, Health, Level, Point, Stats, Timestamp, WriteError, WriteErrorKind,
};
use hostile::{Do, Hostile, answer, message};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(60);

fn seeds(usual: u64) -> u64 {
    let times: f64 = std::env::var("GRAYLOGIC_TORTURE").map_or(0.1, |n| n.parse().unwrap());
    ((usual as f64 * times) as u64).max(1)
}

fn told(id: &str, cases: u64, seed: u64) {
    println!(
        "torture {{\"id\":\"{id}\",\"cases\":{cases},\"lost\":0,\"wrong\":0,\"refused_to_open\":0,\"panics\":0,\"seed\":{seed}}}"
    );
}

fn config(server: &Hostile, spool: &Path) -> Config {
    Config::remote(&server.url())
        .unwrap()
        .with_token("secret")
        .with_spool(Some(spool.to_owned()))
        .with_batches(20, Duration::from_millis(20))
        .with_hurry(100)
}

fn conserved(stats: &Stats) {
    let gone = stats.delivered + stats.rejected + stats.dropped + stats.damaged;
    assert_eq!(stats.accepted + stats.recovered, gone + stats.waiting, "{stats:?}");
}

fn write(client: &Client, numbers: std::ops::Range<i64>) {
    for i in numbers {
        let point = Point::new("m").tag("d", "a b").field("f", i as f64);
        client.write_point_at(&point, Timestamp::from_nanos(1_000_000 + i)).unwrap();
    }
}

fn line(i: i64) -> String {
    format!("m,d=a\\ b f={i}.0 {}", 1_000_000 + i)
}

/// Writes lines, waits until all are delivered or refused, and checks that the server has exactly the others.
fn check(server: &Hostile, config: &Config, numbers: std::ops::Range<i64>, bad: &[i64], context: &str) {
    let client = Client::connect(config).unwrap();
    let errors: Arc<Mutex<Vec<WriteError>>> = Arc::default();
    let heard = errors.clone();
    client.set_on_error(move |e| heard.lock().unwrap().push(e.clone()));
    write(&client, numbers.clone());
    client.flush(Level::Delivered, SOON).unwrap_or_else(|e| panic!("{context}: {e}: {:?}", client.stats()));
    let stats = client.stats();
    conserved(&stats);
    assert_eq!(stats.rejected as usize, bad.len(), "{context}: {stats:?} {:?}", errors.lock().unwrap());
    let report = client.close(SOON).unwrap();
    assert_eq!((report.spooled, report.dropped), (0, 0), "{context}");
    let mut stored: Vec<String> = server.stored();
    let good: Vec<String> = numbers.filter(|i| !bad.contains(i)).map(line).collect();
    for line in &good {
        assert!(stored.contains(line), "{context}: {line} is lost");
    }
    // What came twice came again; what came first came in order.
    let mut once = Vec::new();
    stored.retain(|l| {
        let new = !once.contains(l);
        once.push(l.clone());
        new
    });
    let firsts: Vec<&String> = good.iter().filter(|l| stored.contains(l)).collect();
    if bad.is_empty() {
        assert_eq!(stored.iter().collect::<Vec<_>>(), firsts, "{context}: order");
    } else {
        assert_eq!(stored.len(), good.len(), "{context}: nothing else is stored");
    }
    let refused: Vec<String> = errors
        .lock()
        .unwrap()
        .iter()
        .filter(|e| e.kind == WriteErrorKind::Rejected)
        .flat_map(|e| e.first.iter().map(|l| l.text.clone()))
        .collect();
    for text in &refused {
        assert!(bad.iter().any(|i| line(*i) == *text), "{context}: {text} was refused");
    }
    assert_eq!(refused.len(), bad.len().min(refused.len()), "{context}");
}

fn all_behaviours() -> Vec<Do> {
    vec![
        Do::Refuse,
        Do::NeverRead,
        Do::NeverAnswer,
        Do::Drip,
        Do::ResetBeforeBody,
        Do::ResetInBody,
        Do::ResetAfterBody,
        Do::ResetInAnswer,
        Do::TruncatedChunks,
        Do::Garbage,
        Do::CloseKeepAlive,
        Do::StoreThenDie,
        Do::AnswerLate,
        Do::HugeHeader,
        Do::EndlessBody,
        Do::Interim,
        Do::Answer(message("500 Internal Server Error", "engine: cache-max-memory-size exceeded")),
        Do::Answer(answer("502 Bad Gateway", "Content-Type: text/html\r\n", "<html>nginx</html>")),
        Do::Answer(message("503 Service Unavailable", "queue length exceeded")),
        Do::Answer(answer("429 Too Many Requests", "Retry-After: 0\r\n", "")),
        Do::Answer(answer("200 OK", "Content-Type: text/html\r\n", "<!doctype html><p>Sign in to the hotel")),
        Do::Answer(message("404 Not Found", "bucket \"telemetry\" not found")),
        Do::Answer(message("401 Unauthorized", "unauthorized access")),
        Do::Answer("HTTP/1.0 408 Request Timeout\r\n\r\n".to_owned()),
        Do::Answer(message("400 Bad Request", "unable to read data: gzip: invalid checksum")),
    ]
}

#[test]
fn s1_no_behaviour_of_a_server_loses_a_line() {
    let behaviours = all_behaviours();
    let seeds = seeds(20);
    let mut cases = 0;
    // Each alone, and several after the other, in another order for each seed.
    for seed in 0..seeds {
        for (i, first) in behaviours.iter().enumerate() {
            let server = Hostile::new(|_| None);
            let spool = tempfile::tempdir().unwrap();
            let second = behaviours[(i * 7 + seed as usize * 11 + 3) % behaviours.len()].clone();
            let script = if seed == 0 { vec![first.clone()] } else { vec![Do::Serve, first.clone(), second] };
            server.will(script.clone());
            check(&server, &config(&server, spool.path()), 0..50, &[], &format!("seed {seed}, {script:?}"));
            cases += 1;
        }
    }
    told("S1", cases, seeds);
}

#[test]
fn s2_retry_after_is_followed_in_all_its_forms() {
    let forms = ["0", "0.01", "-1", "soon", "", "Sun, 06 Nov 1994 08:49:37 GMT", "1e-3"]
        .map(|f| format!("Retry-After: {f}\r\n"));
    let mut cases = 0;
    for header in forms.iter().map(String::as_str).chain([""]) {
        for status in ["429 Too Many Requests", "503 Service Unavailable"] {
            let server = Hostile::new(|_| None);
            let spool = tempfile::tempdir().unwrap();
            server.will([Do::Answer(answer(status, header, "")), Do::Answer(answer(status, header, ""))]);
            check(&server, &config(&server, spool.path()), 0..30, &[], header);
            cases += 1;
        }
    }
    // A server that asks for a long time is given it (a hundredth of it here).
    let server = Hostile::new(|_| None);
    let spool = tempfile::tempdir().unwrap();
    server.will([Do::Answer(answer("503 no", "Retry-After: 1e9\r\n", ""))]);
    let client = Client::connect(&config(&server, spool.path())).unwrap();
    write(&client, 0..1);
    let until = Instant::now() + SOON;
    while client.stats().next_try.is_none() && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(client.stats().next_try, Some(Duration::from_secs(6)), "ten minutes at most");
    let began = Instant::now();
    let report = client.close(Duration::from_millis(50)).unwrap();
    assert!(began.elapsed() < Duration::from_secs(5), "closing does not wait for it");
    assert_eq!((report.spooled, report.dropped), (1, 0));
    told("S2", cases + 1, 0);
}

/// Refuses lines as InfluxDB does: by its quoted lines, its counts, or not saying which.
fn judge(style: &'static str, bad: Vec<i64>) -> (Hostile, Vec<i64>) {
    let lines: Vec<String> = bad.iter().map(|i| line(*i)).collect();
    let stored: Arc<Mutex<Vec<String>>> = Arc::default();
    let seen = stored.clone();
    let server = Hostile::new(move |request| {
        let hit: Vec<&String> = request.iter().filter(|l| lines.contains(l)).collect();
        if hit.is_empty() {
            return None;
        }
        let quoted = |n: usize| {
            let all: Vec<String> =
                hit.iter().take(n).map(|l| format!("unable to parse '{l}': bad timestamp")).collect();
            all.join("\n")
        };
        let partial = format!(
            "failure writing points to database: partial write: field type conflict: input field \"f\" on measurement \"m\" is type float, already exists as type string dropped={}",
            hit.len()
        );
        if style.starts_with("partial") {
            seen.lock().unwrap().extend(request.iter().filter(|l| !lines.contains(l)).cloned());
        }
        Some(match style {
            "v2" => message("400 Bad Request", &quoted(usize::MAX)),
            "v2 one by one" => message("400 Bad Request", &quoted(1)),
            "v2 with 500" => message("500 Internal Server Error", &quoted(usize::MAX)),
            "unnamed 400" => message("400 Bad Request", "something is wrong"),
            "unnamed 422" => answer("422 Unprocessable Entity", "", "no"),
            "partial 422" => message("422 Unprocessable Entity", &partial),
            "partial 500" => message("500 Internal Server Error", &partial),
            "partial v1" => {
                let error = format!("partial write: {} dropped=0", quoted(usize::MAX));
                answer("400 Bad Request", "", &serde_json::json!({ "error": error }).to_string())
            }
            "partial v3" => {
                let number = |l: &str| request.iter().position(|r| r == l).unwrap() + 1;
                let data: Vec<_> = hit
                    .iter()
                    .map(|l| serde_json::json!({ "original_line": l, "line_number": number(l), "error_message": "no" }))
                    .collect();
                let body =
                    serde_json::json!({ "error": "partial write of line protocol occurred", "data": data });
                answer("400 Bad Request", "", &body.to_string())
            }
            other => panic!("{other}"),
        })
    });
    if style.starts_with("partial") {
        // What a partial write keeps is in the server.
        let seen = server.seen.clone();
        std::thread::spawn(move || {
            while Arc::strong_count(&stored) > 1 {
                seen.lock().unwrap().stored.append(&mut stored.lock().unwrap());
                std::thread::sleep(Duration::from_millis(1));
            }
            seen.lock().unwrap().stored.append(&mut stored.lock().unwrap());
        });
    }
    (server, bad)
}

#[test]
fn s3_exactly_the_bad_lines_are_refused() {
    let styles = [
        "v2",
        "v2 one by one",
        "v2 with 500",
        "unnamed 400",
        "unnamed 422",
        "partial 422",
        "partial 500",
        "partial v1",
        "partial v3",
    ];
    let sets: [Vec<i64>; 7] = [
        vec![0],
        vec![37],
        vec![79],
        vec![0, 79],
        vec![19, 20, 21],
        (0..80).step_by(9).collect(),
        (0..80).collect(),
    ];
    let mut cases = 0;
    for style in styles {
        for bad in &sets {
            let (server, bad) = judge(style, bad.clone());
            let spool = tempfile::tempdir().unwrap();
            let config = config(&server, spool.path());
            let context = format!("{style}, bad {bad:?}");
            check_judged(&server, &config, &bad, &context);
            cases += 1;
        }
    }
    told("S3", cases, 0);
}

fn check_judged(server: &Hostile, config: &Config, bad: &[i64], context: &str) {
    let client = Client::connect(config).unwrap();
    write(&client, 0..80);
    client.flush(Level::Delivered, SOON).unwrap_or_else(|e| panic!("{context}: {e}: {:?}", client.stats()));
    let stats = client.stats();
    conserved(&stats);
    assert_eq!((stats.rejected as usize, stats.delivered as usize), (bad.len(), 80 - bad.len()), "{context}");
    client.close(SOON).unwrap();
    let until = Instant::now() + SOON;
    let good: Vec<String> = (0..80).filter(|i| !bad.contains(i)).map(line).collect();
    while !good.iter().all(|l| server.stored().contains(l)) && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(1));
    }
    let mut stored = server.stored();
    stored.sort();
    stored.dedup();
    let mut expected = good;
    expected.sort();
    assert_eq!(stored, expected, "{context}");
    // The refused lines are among the dead letters, each with the server's words.
    let folder = config.spool_folder().unwrap();
    let disk = Arc::new(graylogic_durable::RealDisk);
    let spool = graylogic_durable::Spool::open(disk, folder).unwrap();
    let (lane, _) = spool.lane(config.bucket(), graylogic_durable::LaneOptions::default()).unwrap();
    let dead = lane.dead().unwrap();
    let mut kept: Vec<String> =
        dead.iter().map(|d| String::from_utf8_lossy(&d.line).trim_end().to_owned()).collect();
    kept.sort();
    let mut expected: Vec<String> = bad.iter().map(|i| line(*i)).collect();
    expected.sort();
    assert_eq!(kept, expected, "{context}");
    assert!(dead.iter().all(|d| !d.reason.is_empty()), "{context}");
}

#[test]
fn s4_limits_of_a_request_are_learnt() {
    let mut cases = 0;
    for limit in [1usize, 2, 3, 7, 19] {
        let server = Hostile::new(move |lines| {
            (lines.len() > limit).then(|| message("413 Payload Too Large", "too large"))
        });
        let spool = tempfile::tempdir().unwrap();
        check(&server, &config(&server, spool.path()), 0..100, &[], &format!("at most {limit} lines"));
        let seen = server.seen.lock().unwrap();
        let refused = seen.lines_per_request.iter().filter(|n| **n > limit).count();
        assert!(refused <= 8, "the limit is remembered: {:?}", seen.lines_per_request);
        cases += 1;
    }
    // A line that is too long by itself is refused, and nothing else.
    let server = Hostile::new(|lines| {
        lines.iter().any(|l| l.len() > 100).then(|| message("413 Payload Too Large", "too large"))
    });
    let spool = tempfile::tempdir().unwrap();
    let client = Client::connect(&config(&server, spool.path())).unwrap();
    write(&client, 0..10);
    client.write_point(&Point::new("m").field("text", "x".repeat(200))).unwrap();
    write(&client, 10..20);
    client.flush(Level::Delivered, SOON).unwrap();
    let stats = client.stats();
    assert_eq!((stats.delivered, stats.rejected), (20, 1));
    client.close(SOON).unwrap();
    told("S4", cases + 1, 0);
}

#[test]
fn s5_a_wrong_setting_holds_the_lane_and_drops_nothing() {
    let answers = [
        ("401 Unauthorized", "unauthorized access", "token"),
        ("403 Forbidden", "insufficient permissions for write", "token"),
        ("404 Not Found", "bucket \"telemetry\" not found", "bucket"),
        ("404 Not Found", "organization name \"x\" not found", "org"),
        ("404 Not Found", "page not found", "url"),
        ("400 Bad Request", "Please provide either orgID or org", "org"),
    ];
    for (status, text, setting) in answers {
        let server = Hostile::new(|_| None);
        let spool = tempfile::tempdir().unwrap();
        server.will((0..1000).map(|_| Do::Answer(message(status, text))));
        let client = Client::connect(&config(&server, spool.path())).unwrap();
        write(&client, 0..40);
        let until = Instant::now() + SOON;
        while client.stats().health == Health::Ok && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(2));
        }
        assert_eq!(client.stats().health, Health::Held(setting.to_owned()), "{text}");
        assert!(!client.is_connected());
        assert!(client.stats().trouble.is_some_and(|t| t.contains(text)));
        let error = client.health_check(SOON).unwrap_err().to_string();
        assert!(error.contains(&format!("influxdb.{setting}")) && !error.contains("secret"), "{error}");
        // Somebody mends it.
        server.script.lock().unwrap().clear();
        client.flush(Level::Delivered, SOON).unwrap();
        assert_eq!((client.stats().delivered, client.stats().rejected), (40, 0));
        client.close(SOON).unwrap();
    }
    told("S5", answers.len() as u64, 0);
}

#[test]
fn a_new_token_in_the_file_is_taken_without_a_restart() {
    let tokens: Arc<Mutex<Vec<String>>> = Arc::default();
    let server = Hostile::new(|_| None);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.yaml");
    let yaml = |token: &str| {
        format!(
            "influxdb:\n  url: {}\n  token: {token}\n  spool: {}\n  flush_interval: 1\n",
            server.url(),
            folder.path().join("spool").display()
        )
    };
    std::fs::write(&file, yaml("old")).unwrap();
    server.will((0..3).map(|_| Do::Answer(message("401 Unauthorized", "unauthorized access"))));
    let client = Client::connect(&Config::from_file(&file).unwrap()).unwrap();
    write(&client, 0..5);
    std::fs::write(&file, yaml("new")).unwrap();
    client.flush(Level::Delivered, SOON).unwrap();
    client.close(SOON).unwrap();
    tokens.lock().unwrap().extend(server.seen.lock().unwrap().tokens.iter().cloned());
    assert_eq!(*tokens.lock().unwrap(), ["Token new", "Token old"]);
}

#[test]
fn a_token_never_goes_to_another_server() {
    let other = Hostile::new(|_| None);
    let server = Hostile::new(|_| None);
    let spool = tempfile::tempdir().unwrap();
    let to = |url: &str| answer("307 Temporary Redirect", &format!("Location: {url}/api/v2/write\r\n"), "");
    server.will([Do::Answer(to(&other.url())), Do::Answer(to("https://127.0.0.1:1")), Do::Answer(to(""))]);
    check(&server, &config(&server, spool.path()), 0..30, &[], "redirects");
    assert_eq!(other.seen.lock().unwrap().requests, 0);
    assert!(other.seen.lock().unwrap().tokens.is_empty());
}

#[test]
fn poison_is_found_and_the_rest_goes_on() {
    let bad = line(33);
    let server = Hostile::new(move |lines| {
        lines.contains(&bad).then(|| message("500 Internal Server Error", "panic: runtime error"))
    });
    let spool = tempfile::tempdir().unwrap();
    check(&server, &config(&server, spool.path()), 0..60, &[33], "poison");
    // A server that says itself that it is not well refuses nothing for good.
    let server = Hostile::new(|_| None);
    server.healthy.store(false, std::sync::atomic::Ordering::Relaxed);
    server.will((0..20).map(|_| Do::Answer(message("500 Internal Server Error", "panic"))));
    let spool = tempfile::tempdir().unwrap();
    check(&server, &config(&server, spool.path()), 0..60, &[], "a sick server");
}

#[test]
fn what_was_accepted_while_nobody_listened_is_there_after_a_restart() {
    let spool = tempfile::tempdir().unwrap();
    let nobody = Hostile::new(|_| None);
    let url = nobody.url();
    drop(nobody);
    let config = |url: &str| {
        Config::remote(url)
            .unwrap()
            .with_spool(Some(spool.path().to_owned()))
            .with_batches(100, Duration::from_millis(10))
            .with_hurry(100)
    };
    for round in 0..3 {
        let client = Client::connect(&config(&url)).unwrap();
        assert_eq!(client.stats().recovered, round as u64 * 500);
        write(&client, round * 500..(round + 1) * 500);
        let report = client.flush(Level::Durable, SOON).unwrap();
        assert_eq!(report.waiting, (round as u64 + 1) * 500);
        let report = client.close(Duration::from_millis(20)).unwrap();
        assert_eq!((report.delivered, report.spooled, report.dropped), (0, (round as u64 + 1) * 500, 0));
    }
    // The address changed meanwhile; what waits is not orphaned.
    let server = Hostile::new(|_| None);
    let client = Client::connect(&config(&server.url())).unwrap();
    write(&client, 1500..1600);
    client.flush(Level::Delivered, SOON).unwrap();
    conserved(&client.stats());
    assert_eq!(server.stored(), (0..1600).map(line).collect::<Vec<_>>(), "in order, once");
    let (sizes, requests) = {
        let seen = server.seen.lock().unwrap();
        (seen.lines_per_request.clone(), seen.requests)
    };
    assert!(sizes.iter().all(|n| *n <= 100) && requests >= 16, "{sizes:?}");
    client.close(SOON).unwrap();
}

#[test]
fn two_clients_of_one_spool_are_told() {
    let server = Hostile::new(|_| None);
    let spool = tempfile::tempdir().unwrap();
    let client = Client::connect(&config(&server, spool.path())).unwrap();
    let error = Client::connect(&config(&server, spool.path())).unwrap_err();
    assert!(error.is_connection_failed() && error.to_string().contains("another process"), "{error}");
    client.close(SOON).unwrap();
    drop(client);
    let again = Client::connect(&config(&server, spool.path())).unwrap();
    again.close(SOON).unwrap();
}

#[test]
fn durable_writes_wait_for_the_disk_and_calls_never_for_the_server() {
    let server = Hostile::new(|_| None);
    server.will((0..1000).map(|_| Do::NeverAnswer));
    let spool = tempfile::tempdir().unwrap();
    let client = Client::connect(&config(&server, spool.path())).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        for i in 0..5 {
            let point = Point::new("m").field("f", f64::from(i));
            client.write_durable(&point).await.unwrap();
        }
    });
    assert!(client.stats().durable >= 5);
    let mut by_length: BTreeMap<u128, u32> = BTreeMap::new();
    for i in 0..20_000 {
        let began = Instant::now();
        client.write_device_metric("d", "m", f64::from(i)).unwrap();
        *by_length.entry(began.elapsed().as_micros() / 1000).or_default() += 1;
    }
    assert_eq!(client.stats().refused_full, 0);
    let report = client.close(Duration::from_millis(10)).unwrap();
    assert_eq!((report.dropped, report.spooled + report.delivered), (0, 20_005), "{by_length:?}");
}
