//! The client against a server that misbehaves in every way that was seen: nothing accepted is lost, nothing good is
//! refused, and every refusal has its line and reason. `GRAYLOGIC_TORTURE` multiplies the seeds of the campaigns.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs, unreachable_pub)]

#[allow(dead_code, reason = "each test uses a part of it")]
mod campaign;
#[allow(dead_code, reason = "each test uses a part of it")]
mod hostile;
#[allow(dead_code, reason = "each test uses a part of it")]
mod plan;

use campaign::{Row, Toll, share};
use graylogic_influxdb::{Client, Config, Health, Level, Point, Timestamp, WhenFull};
use hostile::{Do, Hostile, Request, answer, message};
use plan::{Plan, SOON, check, comes, config, finish, http_date, judge, line, write};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

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
        Do::Answer(message("404 Not Found", "bucket \"metrics\" not found")),
        Do::Answer(message("401 Unauthorized", "unauthorized access")),
        Do::Answer("HTTP/1.0 408 Request Timeout\r\n\r\n".to_owned()),
        Do::Answer(message("400 Bad Request", "unable to read data: gzip: invalid checksum")),
    ]
}

#[test]
fn s1_no_behaviour_of_a_server_loses_a_line() {
    let behaviours = all_behaviours();
    let seeds = (20.0 * share(0.1)).ceil() as usize;
    // Each alone, and several after the other, in another order for each seed.
    let mut cases = Vec::new();
    for seed in 0..seeds {
        for (i, first) in behaviours.iter().enumerate() {
            let second = behaviours[(i * 7 + seed * 11 + 3) % behaviours.len()].clone();
            let served = vec![Do::Serve; (seed + i) % 3];
            let script = match seed {
                0 => vec![first.clone()],
                _ => [served, vec![first.clone(), second]].concat(),
            };
            cases.push((format!("seed {seed}, {script:?}"), script));
        }
    }
    let mut row = Row::new("S1", seeds as u64);
    row.all(&cases, |script, toll| {
        let server = Hostile::new(|_| None);
        let spool = tempfile::tempdir().unwrap();
        server.will(script.clone());
        check(toll, &server, &config(&server, spool.path()), &Plan::of(0..50));
    });
    row.tell();
}

#[test]
fn s2_retry_after_is_followed_in_all_its_forms() {
    // What is asked for, the pause in seconds that is made of it at least and at most, and how many times shorter the
    // pauses of the case are.
    let forms = [
        ("2".to_owned(), 2.0, 2.0, 10),
        (http_date(40), 20.0, 40.0, 40),
        (http_date(-4000), 0.0, 0.3, 10),
        ("1e9".to_owned(), 600.0, 600.0, 400),
        ("-7".to_owned(), 0.0, 0.3, 10),
        ("soon".to_owned(), 0.0, 0.3, 10),
        (String::new(), 0.0, 0.3, 10),
    ];
    let mut cases = Vec::new();
    for (form, least, most, hurry) in forms {
        for status in ["429 Too Many Requests", "503 Service Unavailable"] {
            cases.push((format!("{status}, {form:?}"), (status, form.clone(), least, most, hurry)));
        }
    }
    let mut row = Row::new("S2", 0);
    row.all(&cases, |(status, form, least, most, hurry), toll| {
        let server = Hostile::new(|_| None);
        let spool = tempfile::tempdir().unwrap();
        let header = if form.is_empty() { String::new() } else { format!("Retry-After: {form}\r\n") };
        server.will([Do::Answer(answer(status, &header, ""))]);
        let config = config(&server, spool.path()).with_hurry(*hurry);
        let client = Client::connect(&config).unwrap();
        write(&client, 0..30);
        // A short pause may be over before it is seen.
        comes(|| client.stats().next_try.is_some() || client.stats().waiting == 0);
        let asked = client.stats().next_try.unwrap_or_default().as_secs_f64() * f64::from(*hurry);
        toll.expect((*least..=*most + 0.001).contains(&asked), || format!("a pause of {asked} s"));
        finish(toll, client, &server, &config, &Plan::of(0..30));
        let times = server.seen.lock().unwrap().times.clone();
        let pause = times[1] - times[0];
        let right = pause >= Duration::from_secs_f64(least / f64::from(*hurry));
        toll.expect(right, || format!("asked again after {pause:?}"));
    });
    row.tell();
}

#[test]
fn closing_does_not_wait_for_a_pause() {
    let server = Hostile::new(|_| None);
    let spool = tempfile::tempdir().unwrap();
    // The close tries once more, and waits for no second pause.
    server.will(vec![Do::Answer(answer("503 no", "Retry-After: 1e9\r\n", "")); 9]);
    let client = Client::connect(&config(&server, spool.path()).with_hurry(1)).unwrap();
    write(&client, 0..1);
    assert!(comes(|| client.stats().next_try.is_some()));
    assert_eq!(client.stats().next_try, Some(Duration::from_secs(600)), "ten minutes at most");
    let began = Instant::now();
    let report = client.close(Duration::from_millis(50)).unwrap();
    assert!(began.elapsed() < Duration::from_secs(5), "closing does not wait for it");
    assert_eq!((report.spooled, report.dropped), (1, 0));
}

#[test]
fn s3_exactly_the_bad_lines_are_refused() {
    let styles = [
        "v2",
        "v2 one by one",
        "v2 with 500",
        "v2 unknown line",
        "unnamed 400",
        "unnamed 422",
        "partial 422",
        "partial 500",
        "partial v1",
        "partial v3",
    ];
    let sets: [Vec<i64>; 6] = [
        vec![0],
        vec![37],
        vec![99],
        vec![0, 19, 20, 21, 99],
        (3..100).step_by(9).collect(),
        (0..100).collect(),
    ];
    let mut cases = Vec::new();
    for style in styles {
        for bad in &sets {
            let plan = Plan { bad: bad.clone(), ..Plan::of(0..100) };
            cases.push((format!("{style}, bad {bad:?}"), (style, plan)));
        }
    }
    // One in a hundred, as it is with a device that is wrong.
    cases[1].1.1 = Plan { bad: (50..1000).step_by(100).collect(), ..Plan::of(0..1000) };
    let mut row = Row::new("S3", 0);
    row.all(&cases, |(style, plan), toll| {
        let server = judge(style, plan);
        let spool = tempfile::tempdir().unwrap();
        check(toll, &server, &config(&server, spool.path()), plan);
    });
    row.tell();
}

/// What a server of S4 does not take.
#[derive(Clone, Debug)]
enum Limit {
    Lines(usize),
    Bytes(usize),
    /// It answers so to gzip.
    Gzip(&'static str, &'static str, Option<usize>),
}

impl Limit {
    fn judge(&self, request: &Request) -> Option<(String, Vec<String>)> {
        let too_large = || message("413 Payload Too Large", "too large");
        let refusal = match *self {
            Self::Lines(most) => (request.lines.len() > most).then(too_large),
            Self::Bytes(most) => (request.bytes > most).then(too_large),
            Self::Gzip(status, text, _) if request.is_gzip => Some(message(status, text)),
            Self::Gzip(_, _, most) => most.filter(|most| request.lines.len() > *most).map(|_| too_large()),
        };
        refusal.map(|answer| (answer, Vec::new()))
    }
}

#[test]
fn a_limit_that_a_server_had_for_a_while_is_forgotten() {
    let most = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let limit = most.clone();
    let server = Hostile::judging(move |request| Limit::Bytes(limit.load(Ordering::Relaxed)).judge(request));
    let spool = tempfile::tempdir().unwrap();
    let config = config(&server, spool.path()).with_quick_batches(100, Duration::from_millis(20));
    let client = Client::connect(&config).unwrap();
    client.write_phm_metric("pump", "hours", 1.0).unwrap();
    client.flush(Level::Delivered, SOON).unwrap();
    assert_eq!(client.stats().rejected, 1);
    most.store(usize::MAX, Ordering::Relaxed);
    let before = server.seen.lock().unwrap().requests;
    for i in 0..4000 {
        client.write_phm_metric("pump", "hours", f64::from(i)).unwrap();
    }
    client.flush(Level::Delivered, SOON).unwrap();
    let requests = server.seen.lock().unwrap().requests - before;
    assert!(requests < 1000, "{requests} requests");
    let lines = server.seen.lock().unwrap().lines_per_request.last().copied();
    assert!(lines >= Some(50), "{lines:?} lines at the end");
    client.close(SOON).unwrap();
}

#[test]
fn s4_limits_of_a_request_are_learnt() {
    let mut cases: Vec<(Limit, Plan, usize)> = Vec::new();
    for most in [1, 2, 3, 7, 19] {
        cases.push((Limit::Lines(most), Plan::of(0..100), 20));
    }
    let one = line(0).len() + 1;
    for most in [one + 4, 2 * one + 8, 100, 500, 1000, 4096, 10_000, 65_536, 100_000, 262_144] {
        let lines = 3 * most / one;
        cases.push((Limit::Bytes(most), Plan::of(0..lines.max(30) as i64), lines.max(20)));
    }
    for megabytes in [1, 2, 4, 5, 10] {
        let plan = Plan { padding: 1000, ..Plan::of(0..megabytes as i64 * 1500) };
        cases.push((Limit::Bytes(megabytes * 1_000_000), plan, 100_000));
    }
    // A line that is too long by itself is refused, and nothing else.
    for bytes in [200, 1000, 10_000, 100_000, 1_000_000] {
        let bad = vec![10, 27];
        let long = bad.iter().map(|i| (*i, bytes)).collect();
        cases.push((Limit::Bytes(bytes / 2), Plan { bad, long, ..Plan::of(0..40) }, 20));
    }
    for (status, text, most) in [
        ("415 Unsupported Media Type", "", None),
        ("415 Unsupported Media Type", "gzip is not supported", None),
        ("415 Unsupported Media Type", "<html>nginx</html>", Some(50)),
        ("400 Bad Request", "invalid encoding: gzip", None),
        ("400 Bad Request", "unsupported content encoding gzip", Some(1)),
    ] {
        cases.push((Limit::Gzip(status, text, most), Plan::of(0..300), 100));
    }
    let cases: Vec<_> =
        cases.into_iter().map(|c| (format!("{:?} of {} lines", c.0, c.1.numbers.end), c)).collect();
    let mut row = Row::new("S4", 0);
    row.all(&cases, |(limit, plan, batch), toll| {
        let judging = limit.clone();
        let server = Hostile::judging(move |request| judging.judge(request));
        let spool = tempfile::tempdir().unwrap();
        let mut config = config(&server, spool.path()).with_quick_batches(*batch, Duration::from_millis(20));
        let is_gzip = matches!(limit, Limit::Gzip(..));
        if is_gzip {
            // An address of this machine that does not look like one: what goes there is compressed.
            let url = format!("http://0.0.0.0:{}", server.at.port());
            config = config.with_target(graylogic_influxdb::Target::Remote(url));
        }
        check(toll, &server, &config, plan);
        let seen = server.seen.lock().unwrap();
        toll.expect((seen.compressed > 0) == is_gzip, || format!("{} requests compressed", seen.compressed));
        let needed = seen.compressed <= 1 && (seen.requests as u64) < 60 + 2 * plan.numbers.end as u64;
        toll.expect(needed, || format!("{} requests, {} of them compressed", seen.requests, seen.compressed));
        if let Limit::Lines(most) = *limit {
            let refused = seen.lines_per_request.iter().filter(|n| **n > most).count();
            toll.expect(refused <= 8, || format!("the limit is forgotten: {:?}", seen.lines_per_request));
        }
    });
    row.tell();
}

/// How a setting that was wrong becomes right.
#[derive(Clone, Copy, Debug)]
enum Mended {
    /// At the server.
    There,
    /// At the server, after this program was started again.
    Restarted,
    /// A new token in the file, which is written or replaced.
    InFile { replaced: bool },
    /// A new token in the environment, with which this program is started again.
    InEnvironment,
    /// Somebody makes the bucket while readings come.
    BucketMade,
}

#[test]
fn s5_a_wrong_setting_holds_the_lane_and_drops_nothing() {
    let wrong_token = ("401 Unauthorized", "unauthorized access", "token");
    let forbidden = ("403 Forbidden", "insufficient permissions for write", "token");
    let no_bucket = ("404 Not Found", "bucket \"metrics\" not found", "bucket");
    let no_database = ("404 Not Found", "database not found: \"metrics\"", "bucket");
    let all = [
        wrong_token,
        forbidden,
        no_bucket,
        ("404 Not Found", "organization name \"x\" not found", "org"),
        ("404 Not Found", "page not found", "url"),
        ("400 Bad Request", "Please provide either orgID or org", "org"),
    ];
    let mut cases = Vec::new();
    for says in all {
        cases.extend([(says, Mended::There), (says, Mended::Restarted)]);
    }
    for says in [wrong_token, forbidden] {
        cases.extend([false, true].map(|replaced| (says, Mended::InFile { replaced })));
        cases.push((says, Mended::InEnvironment));
    }
    cases.extend([no_bucket, no_database].map(|says| (says, Mended::BucketMade)));
    let cases: Vec<_> = cases.into_iter().map(|c| (format!("{c:?}"), c)).collect();
    let mut row = Row::new("S5", 0);
    row.all(&cases, |((status, text, setting), mended), toll| match mended {
        Mended::There | Mended::Restarted => {
            held(toll, status, text, setting, matches!(mended, Mended::Restarted));
        }
        Mended::InFile { replaced } => token_in_file(toll, message(status, text), *replaced),
        Mended::InEnvironment => token_in_environment(toll, message(status, text)),
        Mended::BucketMade => bucket_made(toll, message(status, text)),
    });
    row.case("one bad bucket among ten", one_bad_bucket_among_ten);
    row.tell();
}

fn expect_held(toll: &mut Toll, client: &Client, setting: &str, text: &str) {
    comes(|| client.stats().health != Health::Ok);
    let stats = client.stats();
    toll.expect(stats.health == Health::Held(setting.to_owned()), || format!("{:?}", stats.health));
    toll.expect(!client.is_connected(), || "it says that it is connected".to_owned());
    toll.expect(stats.trouble.is_some_and(|t| t.contains(text)), || format!("{:?}", stats.last_error));
}

fn held(toll: &mut Toll, status: &str, text: &str, setting: &str, restarted: bool) {
    let server = Hostile::new(|_| None);
    let spool = tempfile::tempdir().unwrap();
    let config = config(&server, spool.path());
    server.will((0..10_000).map(|_| Do::Answer(message(status, text))));
    let mut client = Client::connect(&config).unwrap();
    write(&client, 0..40);
    expect_held(toll, &client, setting, text);
    // On a busy machine an answer may come too late.
    let named = comes(|| {
        let asked = client.health_check(SOON);
        let error = asked.map_or_else(|e| e.to_string(), |()| "no error".to_owned());
        toll.expect(!error.contains("secret"), || format!("the error shows a secret: {error}"));
        error.contains(&format!("influxdb.{setting}"))
    });
    toll.expect(named, || "the error names no setting".to_owned());
    if restarted {
        let report = client.close(Duration::from_millis(20)).unwrap();
        toll.expect((report.spooled, report.dropped) == (40, 0), || format!("{report:?}"));
        drop(client);
        let Some(again) = toll.opened(Client::connect(&config)) else { return };
        client = again;
        expect_held(toll, &client, setting, text);
    }
    server.is_mended();
    write(&client, 40..60);
    finish(toll, client, &server, &config, &Plan::of(0..60));
}

/// A server that takes one token, which can change, and what it answers to others.
fn token_server(refusal: String) -> (Hostile, Arc<Mutex<String>>) {
    let wanted = Arc::new(Mutex::new("Token new".to_owned()));
    let asked = wanted.clone();
    let server = Hostile::judging(move |request| {
        let right = request.token.as_ref() == Some(&*asked.lock().unwrap());
        (!right).then(|| (refusal.clone(), Vec::new()))
    });
    (server, wanted)
}

/// A configuration file for a server, with a token.
fn file(folder: &Path, server: &Hostile, token: &str, replaced: bool) -> PathBuf {
    let (path, new) = (folder.join("config.yaml"), folder.join("config.new"));
    let spool = folder.join("spool");
    let yaml = format!(
        "influxdb:\n  url: {}\n  token: {token}\n  spool: {}\n  flush_interval: 1\n",
        server.url(),
        spool.display()
    );
    if replaced {
        std::fs::write(&new, yaml).unwrap();
        std::fs::rename(new, &path).unwrap();
    } else {
        std::fs::write(&path, yaml).unwrap();
    }
    path
}

fn token_in_file(toll: &mut Toll, refusal: String, replaced: bool) {
    let (server, wanted) = token_server(refusal);
    let folder = tempfile::tempdir().unwrap();
    let path = file(folder.path(), &server, "old", replaced);
    let config = Config::from_file(&path).unwrap().with_hurry(20);
    let client = Client::connect(&config).unwrap();
    write(&client, 0..20);
    expect_held(toll, &client, "token", "");
    file(folder.path(), &server, "new", replaced);
    let flushed = client.flush(Level::Delivered, SOON);
    toll.expect(flushed.is_ok(), || format!("the new token is not taken: {flushed:?}"));
    // And once more, while it runs well.
    *wanted.lock().unwrap() = "Token newest".to_owned();
    write(&client, 20..40);
    expect_held(toll, &client, "token", "");
    file(folder.path(), &server, "newest", replaced);
    finish(toll, client, &server, &config, &Plan::of(0..40));
    let tokens: Vec<String> = server.seen.lock().unwrap().tokens.iter().cloned().collect();
    toll.expect(tokens == ["Token new", "Token newest", "Token old"], || format!("{tokens:?}"));
}

const CHILD: &str = "GRAYLOGIC_S5_CHILD";

/// The process that S5 starts with a token in its environment. Does nothing unless S5 started it.
/// Nine buckets are not held up by the tenth, and what waits for it is there after a restart, whoever asks for it.
fn one_bad_bucket_among_ten(toll: &mut Toll) {
    let mended = Arc::new(AtomicBool::new(false));
    let judge = mended.clone();
    let server = Hostile::new(move |lines| {
        let bad = lines.iter().any(|l| l.starts_with("b7,")) && !judge.load(Ordering::Relaxed);
        bad.then(|| message("404 Not Found", "bucket \"b7\" not found"))
    });
    let spool = tempfile::tempdir().unwrap();
    // With the pauses as they are: the bad one is asked again after 1 s, 5 s and 15 s.
    let config = config(&server, spool.path()).with_hurry(1).with_bucket("b0");
    let Some(client) = toll.opened(Client::connect(&config)) else { return };
    let buckets: Vec<Client> = (0..10).map(|i| client.bucket(&format!("b{i}")).unwrap()).collect();
    let began = Instant::now();
    for k in 0..200 {
        for (i, bucket) in buckets.iter().enumerate() {
            let point = Point::new(format!("b{i}")).tag("d", "a").field("f", f64::from(k));
            bucket.write_point_at(&point, Timestamp::from_nanos(1_000_000 + i64::from(k))).unwrap();
        }
    }
    let good = comes(|| server.stored().len() == 9 * 200);
    toll.expect(good, || format!("{} lines of nine good buckets came", server.stored().len()));
    toll.expect(began.elapsed() < Duration::from_secs(15), || format!("they took {:?}", began.elapsed()));
    let told: Vec<(String, bool)> =
        client.buckets().into_iter().map(|(name, stats)| (name, stats.health == Health::Ok)).collect();
    let expected: Vec<(String, bool)> = (0..10).map(|i| (format!("b{i}"), i != 7)).collect();
    toll.expect(told == expected, || format!("{told:?}"));
    toll.expect(client.stats().health == Health::Held("bucket".to_owned()), || {
        format!("{:?}", client.stats())
    });
    toll.expect(client.stats().waiting == 200, || format!("{:?}", client.stats()));
    let report = client.close(Duration::from_millis(50)).unwrap();
    toll.expect((report.delivered, report.spooled, report.dropped) == (1800, 200, 0), || {
        format!("{report:?}")
    });
    drop((client, buckets));
    mended.store(true, Ordering::Relaxed);
    // Nobody asks for the bucket in this life.
    let Some(client) = toll.opened(Client::connect(&config)) else { return };
    let all = comes(|| server.stored().len() == 10 * 200);
    toll.lose(2000u64.saturating_sub(server.stored().len() as u64), || "of ten buckets".to_owned());
    toll.expect(all && client.stats().recovered == 200, || format!("{:?}", client.stats()));
    client.close(SOON).unwrap();
}

#[test]
fn s5_child() {
    let Ok(path) = std::env::var(CHILD) else { return };
    let (path, first) = path.rsplit_once(' ').unwrap();
    let first: i64 = first.parse().unwrap();
    let client = Client::connect(&Config::from_file(path).unwrap().with_hurry(20)).unwrap();
    write(&client, first..first + 20);
    comes(|| client.stats().health != Health::Ok || client.stats().waiting == 0);
    println!("\nhealth {:?}", client.stats().health);
    let report = client.close(Duration::from_millis(200)).unwrap();
    println!("\nspooled {} dropped {}", report.spooled, report.dropped);
}

fn token_in_environment(toll: &mut Toll, refusal: String) {
    let (server, _) = token_server(refusal);
    let folder = tempfile::tempdir().unwrap();
    let path = file(folder.path(), &server, "in-the-file", false);
    let mut run = |token: &str, first: i64, expected: [&str; 2]| {
        let child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["s5_child", "--exact", "--nocapture", "--test-threads=1"])
            .env(CHILD, format!("{} {first}", path.display()))
            .env("GRAYLOGIC_INFLUXDB_TOKEN", token)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&child.stdout).into_owned();
        for line in expected {
            toll.expect(said.lines().any(|l| l == line), || format!("with {token}, not {line}: {said}"));
        }
    };
    run("old", 0, ["health Held(\"token\")", "spooled 20 dropped 0"]);
    run("new", 20, ["health Ok", "spooled 0 dropped 0"]);
    Plan::of(0..40).judge(toll, &server.stored());
    let tokens: Vec<String> = server.seen.lock().unwrap().tokens.iter().cloned().collect();
    toll.expect(tokens == ["Token new", "Token old"], || format!("{tokens:?}"));
}

fn bucket_made(toll: &mut Toll, refusal: String) {
    let made = Arc::new(AtomicBool::new(false));
    let is_made = made.clone();
    let server = Hostile::new(move |_| (!is_made.load(Ordering::Relaxed)).then(|| refusal.clone()));
    let spool = tempfile::tempdir().unwrap();
    let config = config(&server, spool.path());
    let client = Client::connect(&config).unwrap();
    for first in (0..300).step_by(10) {
        write(&client, first..first + 10);
        if first == 100 {
            expect_held(toll, &client, "bucket", "not found");
            made.store(true, Ordering::Relaxed);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    finish(toll, client, &server, &config, &Plan::of(0..300));
}

#[test]
fn a_token_never_goes_to_another_server() {
    let other = Hostile::new(|_| None);
    let server = Hostile::new(|_| None);
    let spool = tempfile::tempdir().unwrap();
    let to = |url: &str| answer("307 Temporary Redirect", &format!("Location: {url}/api/v2/write\r\n"), "");
    server.will([Do::Answer(to(&other.url())), Do::Answer(to("https://127.0.0.1:1")), Do::Answer(to(""))]);
    let mut toll = Toll::default();
    check(&mut toll, &server, &config(&server, spool.path()), &Plan::of(0..30));
    toll.clean();
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
    let mut toll = Toll::default();
    let plan = Plan { bad: vec![33], ..Plan::of(0..60) };
    check(&mut toll, &server, &config(&server, spool.path()), &plan);
    // A server that says itself that it is not well refuses nothing for good.
    let server = Hostile::new(|_| None);
    server.healthy.store(false, std::sync::atomic::Ordering::Relaxed);
    server.will((0..20).map(|_| Do::Answer(message("500 Internal Server Error", "panic"))));
    let spool = tempfile::tempdir().unwrap();
    check(&mut toll, &server, &config(&server, spool.path()), &Plan::of(0..60));
    toll.clean();
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

#[test]
fn a_full_spool_goes_on_as_soon_as_its_server_does() {
    // Too little for what gathers in memory meanwhile, and a disk that others have filled.
    for (bytes_max, keep_free) in [(20_000, 0), (1 << 30, u64::MAX)] {
        let server = Hostile::new(|_| None);
        let spool = tempfile::tempdir().unwrap();
        let config = config(&server, spool.path())
            .with_quick_batches(5000, Duration::from_millis(10))
            .with_spool_keep_free(keep_free)
            .with_small_spool(bytes_max)
            .with_spool_when_full(WhenFull::DropNewest);
        let client = Client::connect(&config).unwrap();
        for first in (0..50_000).step_by(1000) {
            write(&client, first..first + 1000);
            std::thread::sleep(Duration::from_millis(5));
        }
        let mut toll = Toll::default();
        finish(&mut toll, client, &server, &config, &Plan::of(0..50_000));
        toll.clean();
    }
}

#[test]
fn who_may_wait_waits_for_room_and_nothing_is_dropped() {
    // Takes nothing until a call had to wait.
    let waits = Arc::new(AtomicBool::new(true));
    let busy = waits.clone();
    let server = Hostile::new(move |_| {
        busy.load(Ordering::Relaxed).then(|| message("503 Service Unavailable", "busy"))
    });
    let spool = tempfile::tempdir().unwrap();
    let config = config(&server, spool.path())
        .with_spool_bytes_max(1_000_000)
        .with_spool_keep_free(0)
        .with_spool_when_full(WhenFull::Block);
    let client = Client::connect(&config).unwrap();
    let seen = client.clone();
    let release = std::thread::spawn(move || {
        let waited = comes(|| seen.stats().refused_full > 0);
        waits.store(false, Ordering::Relaxed);
        waited
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    // More than the spool and the memory before it hold, and nothing that becomes small when compressed.
    let mut dice = 0x9E37_79B9_7F4A_7C15u64;
    let mut digit = || {
        dice ^= dice << 13;
        dice ^= dice >> 7;
        dice ^= dice << 17;
        char::from(b'!' + (dice % 90) as u8).to_string().replace(['"', '\\'], "x")
    };
    let texts: Vec<String> = (0..1000).map(|_| (0..40_000).map(|_| digit()).collect()).collect();
    let plan: Vec<String> = (0..1000).map(|i| format!("m f={i}.0,s=\"{}\" {i}", texts[i])).collect();
    runtime.block_on(async {
        for (i, text) in texts.iter().enumerate() {
            let point = Point::new("m").field("f", i as f64).field("s", text.as_str());
            let point = point.timestamp(Timestamp::from_nanos(i as i64));
            tokio::time::timeout(SOON, client.write_point_async(&point)).await.unwrap().unwrap();
        }
    });
    assert!(release.join().unwrap(), "some calls had to wait");
    client.flush(Level::Delivered, SOON).unwrap();
    let stats = client.stats();
    assert_eq!((stats.delivered, stats.dropped, stats.rejected), (1000, 0, 0), "{stats:?}");
    assert!(server.stored() == plan, "every line once, in order");
    client.close(SOON).unwrap();
    let closed = runtime.block_on(client.write_point_async(&Point::new("m").field("f", 1.0)));
    assert!(closed.unwrap_err().is_not_connected());
}
