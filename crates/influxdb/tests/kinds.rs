//! Servers of every kind, as far as their answers to pings and writes go: each is recognised and written to in its own way,
//! and each fault of a configuration is one sentence of its own.

#![allow(clippy::unwrap_used, missing_docs, unreachable_pub)]

#[allow(dead_code, reason = "each test uses a part of it")]
mod hostile;

use graylogic_influxdb::{
    Client, Config, Health, Level, Point, Preflight, Query, ServerKind, Timestamp, Verdict, WriteErrorKind,
};
use hostile::{Do, Hostile, Request, answer, message};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(20);

/// What each kind answers to a ping.
fn ping(kind: ServerKind) -> String {
    let body = r#"{"version":"3.8.0","revision":"abc","process_id":"1"}"#;
    match kind {
        ServerKind::InfluxDb1 => answer("204 No Content", "X-Influxdb-Version: 1.8.10\r\n", ""),
        ServerKind::InfluxDb2 => answer("204 No Content", "X-Influxdb-Version: v2.8.0\r\n", ""),
        ServerKind::InfluxDb3 => answer("200 OK", "X-Influxdb-Build: Core\r\n", body),
        ServerKind::VictoriaMetrics => answer("204 No Content", "X-Server-Hostname: vm\r\n", ""),
        other => panic!("{other}"),
    }
}

/// Where each kind takes the lines of bucket `house`, and how it wants the token `me:secret`.
fn way(kind: ServerKind) -> (&'static str, &'static str) {
    match kind {
        ServerKind::InfluxDb1 => ("/write?db=house&precision=ns", "Basic bWU6c2VjcmV0"),
        ServerKind::InfluxDb2 => ("/api/v2/write?org=graylogic&bucket=house&precision=ns", "Token me:secret"),
        ServerKind::InfluxDb3 => {
            ("/api/v3/write_lp?db=house&accept_partial=true&precision=nanosecond", "Bearer me:secret")
        }
        ServerKind::VictoriaMetrics => ("/api/v2/write?db=house&precision=ns", "Basic bWU6c2VjcmV0"),
        other => panic!("{other}"),
    }
}

/// A server of a kind, which takes writes only as that kind does.
fn server(kind: ServerKind) -> Hostile {
    let server = Hostile::judging(move |request| wrong_way(kind, request).map(|no| (no, Vec::new())));
    *server.ping.lock().unwrap() = Some(ping(kind));
    server
}

fn wrong_way(kind: ServerKind, request: &Request) -> Option<String> {
    let (target, token) = way(kind);
    if request.token.as_deref() != Some(token) {
        return Some(message("401 Unauthorized", "unauthorized access"));
    }
    (request.target != target).then(|| answer("404 Not Found", "", "404 page not found"))
}

fn config(server: &Hostile, spool: Option<&Path>) -> Config {
    Config::remote(&server.url())
        .unwrap()
        .with_bucket("house")
        .with_token("me:secret")
        .with_spool(spool.map(Into::into))
        .with_hurry(20)
        .with_quick_batches(100, Duration::from_millis(1))
}

fn kinds() -> [ServerKind; 4] {
    [ServerKind::InfluxDb1, ServerKind::InfluxDb2, ServerKind::InfluxDb3, ServerKind::VictoriaMetrics]
}

#[test]
fn every_kind_is_recognised_and_written_to_in_its_own_way() {
    for kind in kinds() {
        for configured in [None, Some(kind)] {
            let server = server(kind);
            let client = Client::connect(&config(&server, None).with_server_kind(configured)).unwrap();
            let time = Timestamp::from_nanos(1_700_000_000_000_000_000);
            client.write_energy_metric_at("hvac", 450.0, None, time).unwrap();
            client.flush(Level::Delivered, SOON).unwrap();
            client.health_check(SOON).unwrap();
            let report = client.close(SOON).unwrap();
            assert_eq!((report.delivered, report.rejected), (1, 0), "{kind}");
            // A VictoriaMetrics knows no measurements: each line says what its is.
            let measurement = if kind == ServerKind::VictoriaMetrics { ",_measurement=energy" } else { "" };
            let line = format!("energy{measurement},device_id=hvac power_watts=450.0 1700000000000000000");
            assert_eq!(server.stored(), [line]);
        }
    }
}

#[test]
fn a_cluster_is_written_to_and_asked_at_its_own_addresses() {
    let asked = r#"{"metric":{"__name__":"energy_power_watts","db":"house","device_id":"hvac"},"values":[450],"timestamps":[1700000000000]}"#;
    for (tenant, elsewhere) in [("0", false), ("3:7", false), ("0", true)] {
        let targets: Arc<Mutex<Vec<String>>> = Arc::default();
        let seen = targets.clone();
        let server = Hostile::judging(move |request| {
            let path = request.target.split('?').next().unwrap_or_default().to_owned();
            let is_question = path.contains("/select/");
            seen.lock().unwrap().push(path);
            is_question.then(|| (answer("200 OK", "", asked), Vec::new()))
        });
        // The inserting part answers no ping.
        *server.ping.lock().unwrap() = Some(answer("400 Bad Request", "", "unsupported path"));
        let config = Config::remote(&format!("{}/insert/{tenant}/influx", server.url()))
            .unwrap()
            .with_bucket("house")
            .with_hurry(20)
            .with_spool(None);
        let config = match elsewhere {
            true => config.with_query_url(&format!("{}/vm/select/9/prometheus/", server.url())).unwrap(),
            false => config,
        };
        let client = Client::connect(&config).unwrap();
        let time = Timestamp::from_nanos(1_700_000_000_000_000_000);
        client.write_energy_metric_at("hvac", 450.0, None, time).unwrap();
        client.flush(Level::Delivered, SOON).unwrap();
        let power =
            Query::measurement("energy").field("power_watts").range(Timestamp::from_nanos(0), Timestamp::MAX);
        let found = client.ask(&power).unwrap();
        assert_eq!(found[0].tags, [("device_id".to_owned(), "hvac".to_owned())]);
        assert_eq!(found[0].values[0].0, time);
        let select = match elsewhere {
            true => "/vm/select/9/prometheus/api/v1/export".to_owned(),
            false => format!("/select/{tenant}/prometheus/api/v1/export"),
        };
        assert_eq!(*targets.lock().unwrap(), [format!("/insert/{tenant}/influx/api/v2/write"), select]);
        client.close(SOON).unwrap();
    }
}

#[test]
fn a_server_that_hides_what_it_is_is_taken_for_influxdb_2_when_its_answers_to_writes_show_it() {
    let taken = || answer("204 No Content", "X-Influxdb-Version: v2.8.0\r\n", "");
    for (status, body) in [("200 OK", "{}"), ("404 Not Found", "no"), ("502 Bad Gateway", ""), ("401 No", "")]
    {
        let server = Hostile::judging(move |request| match wrong_way(ServerKind::InfluxDb2, request) {
            Some(no) => Some((no, Vec::new())),
            None => Some((taken(), request.lines.clone())),
        });
        *server.ping.lock().unwrap() = Some(answer(status, "", body));
        let client = Client::connect(&config(&server, None)).unwrap();
        client.write_phm_metric("pump", "hours", 1.0).unwrap();
        client.flush(Level::Delivered, SOON).unwrap();
        client.close(SOON).unwrap();
    }
}

/// A server that takes every write, however it is written, and keeps where each went; while it is `down`, it answers that.
fn lenient(down: &'static str) -> (Hostile, Arc<AtomicBool>, Arc<Mutex<Vec<String>>>) {
    let (is_down, targets): (Arc<AtomicBool>, Arc<Mutex<Vec<String>>>) = Default::default();
    is_down.store(true, Relaxed);
    let (asked, seen) = (is_down.clone(), targets.clone());
    let server = Hostile::judging(move |request| {
        if asked.load(Relaxed) {
            return Some((answer(down, "", ""), Vec::new()));
        }
        if !asks_what_it_is(request) {
            seen.lock().unwrap().push(request.target.clone());
        }
        None
    });
    *server.ping.lock().unwrap() = Some(answer(down, "", ""));
    (server, is_down, targets)
}

/// A write of nothing to no bucket, which shows what is behind somebody who keeps pings for himself.
fn asks_what_it_is(request: &hostile::Request) -> bool {
    request.target == "/api/v2/write" && request.lines.is_empty()
}

fn wait_until(done: impl Fn() -> bool) {
    assert!((0..2000).any(|_| {
        std::thread::sleep(Duration::from_millis(10));
        done()
    }));
}

#[test]
fn a_server_behind_a_proxy_is_written_to_in_its_own_way_once_it_is_there() {
    // VictoriaMetrics takes what is written for InfluxDB 2 as well, and spoils it.
    let (vm, influx) = (way(ServerKind::VictoriaMetrics).0, way(ServerKind::InfluxDb2).0);
    let show = |server: &Hostile| *server.ping.lock().unwrap() = Some(ping(ServerKind::VictoriaMetrics));
    let (server, is_down, targets) = lenient("502 Bad Gateway");
    let client = Client::connect(&config(&server, None)).unwrap();
    client.write_phm_metric("pump", "hours", 1.0).unwrap();
    wait_until(|| server.seen.lock().unwrap().requests > 0);
    show(&server);
    is_down.store(false, Relaxed);
    client.flush(Level::Delivered, SOON).unwrap();
    // What went out before it showed does not count.
    assert_eq!(targets.lock().unwrap().last().map(String::as_str), Some(vm));
    targets.lock().unwrap().clear();
    // Knowing it, a proxy's answer to a ping does not make it another one.
    *server.ping.lock().unwrap() = Some(answer("429 Too Many Requests", "", ""));
    server.will([Do::Answer(answer("429 Too Many Requests", "", ""))]);
    client.write_phm_metric("pump", "hours", 2.0).unwrap();
    client.flush(Level::Delivered, SOON).unwrap();
    assert_eq!(*targets.lock().unwrap(), [vm]);
    client.close(SOON).unwrap();

    // One that takes writes before it shows is asked again.
    let (server, is_down, targets) = lenient("502 Bad Gateway");
    is_down.store(false, Relaxed);
    let client = Client::connect(&config(&server, None)).unwrap();
    client.write_phm_metric("pump", "hours", 1.0).unwrap();
    // Nothing counts as delivered until it does.
    wait_until(|| client.stats().health == Health::Held("kind".to_owned()));
    assert_eq!(client.stats().delivered, 0);
    show(&server);
    client.flush(Level::Delivered, SOON).unwrap();
    let targets = targets.lock().unwrap().clone();
    assert_eq!(
        (targets.first().map(String::as_str), targets.last().map(String::as_str)),
        (Some(influx), Some(vm))
    );
    client.close(SOON).unwrap();
}

#[test]
fn an_influxdb_3_that_has_only_the_older_way_is_written_to_in_that() {
    // InfluxDB Clustered and Cloud Dedicated have no /api/v3/write_lp.
    let server = Hostile::judging(|request| {
        let is_right = request.target == way(ServerKind::InfluxDb2).0
            && request.token.as_deref() == Some(way(ServerKind::InfluxDb3).1);
        (!is_right).then(|| (answer("404 Not Found", "", ""), Vec::new()))
    });
    *server.ping.lock().unwrap() = Some(answer("200 OK", "X-Influxdb-Build: Clustered\r\n", ""));
    let preflight = Client::preflight(&config(&server, None)).unwrap();
    assert_eq!((preflight.fault(), preflight.server_kind()), (None, Some(ServerKind::InfluxDb3)));
    let client = Client::connect(&config(&server, None)).unwrap();
    let point = Point::new("m").tag("path", r"C:\x").field("f", 1.5);
    for n in 0..2 {
        client.write_point(&point.clone().timestamp(Timestamp::from_nanos(n))).unwrap();
        client.flush(Level::Delivered, SOON).unwrap();
    }
    client.close(SOON).unwrap();
    assert_eq!(server.stored()[..], [r"m,path=C:\\x f=1.5 0", r"m,path=C:\\x f=1.5 1"], "the words of 3");
    // It is not asked for the newer way each time.
    assert!(server.seen.lock().unwrap().requests <= 5);
}

#[test]
fn an_answer_to_a_write_shows_that_another_server_is_there() {
    use ServerKind::{InfluxDb1, InfluxDb2, InfluxDb3, VictoriaMetrics};
    let check = |ping: String, headers: &'static str, first: ServerKind, then: ServerKind| {
        let targets: Arc<Mutex<Vec<String>>> = Arc::default();
        let seen = targets.clone();
        let server = Hostile::judging(move |request| {
            if !asks_what_it_is(request) {
                seen.lock().unwrap().push(request.target.clone());
            }
            Some((answer("204 No Content", headers, ""), request.lines.clone()))
        });
        *server.ping.lock().unwrap() = Some(ping);
        let client = Client::connect(&config(&server, None)).unwrap();
        for _ in 0..3 {
            client.write_phm_metric("pump", "hours", 1.0).unwrap();
            client.flush(Level::Delivered, SOON).unwrap();
        }
        assert_eq!(*targets.lock().unwrap(), [first, then, then].map(|kind| way(kind).0), "{headers}");
        client.close(SOON).unwrap();
    };
    let vm = "X-Influxdb-Version: 1.8.0\r\nX-Server-Hostname: vm\r\n";
    // A proxy keeps pings for itself.
    check(answer("404 Not Found", "", ""), vm, VictoriaMetrics, VictoriaMetrics);
    check(answer("502 Bad Gateway", "", ""), vm, VictoriaMetrics, VictoriaMetrics);
    check(answer("404 Not Found", "", ""), "X-Influxdb-Version: 3.8.0\r\n", InfluxDb3, InfluxDb3);
    // The server was another one until now.
    check(ping(InfluxDb2), vm, InfluxDb2, VictoriaMetrics);
    check(ping(InfluxDb1), "X-Influxdb-Version: v2.8.0\r\n", InfluxDb1, InfluxDb2);
    check(ping(VictoriaMetrics), "X-Influxdb-Version: v2.8.0\r\n", VictoriaMetrics, InfluxDb2);
    // Nothing that speaks against it.
    check(ping(VictoriaMetrics), vm, VictoriaMetrics, VictoriaMetrics);
    check(ping(VictoriaMetrics), "X-Influxdb-Version: 1.8.0\r\n", VictoriaMetrics, VictoriaMetrics);
    check(answer("404 Not Found", "", ""), "X-Influxdb-Version: 1.0\r\n", InfluxDb2, InfluxDb2);
    check(ping(InfluxDb3), "", InfluxDb3, InfluxDb3);
    check(ping(InfluxDb2), "X-Influxdb-Version: dev\r\n", InfluxDb2, InfluxDb2);
}

#[test]
fn a_server_that_sends_writes_on_to_itself_is_well() {
    let server = Hostile::judging(|request| {
        let moved = "Location: /moved/write?of=house\r\n";
        request
            .target
            .starts_with("/api/v2/write")
            .then(|| (answer("308 Permanent Redirect", moved, ""), Vec::new()))
    });
    *server.ping.lock().unwrap() = Some(ping(ServerKind::InfluxDb2));
    let config = config(&server, None).with_connect_strict(true);
    let preflight = Client::preflight(&config).unwrap();
    assert_eq!(preflight.fault(), None, "{preflight}");
    let client = Client::connect(&config).unwrap();
    client.write_phm_metric("pump", "hours", 1.0).unwrap();
    client.flush(Level::Delivered, SOON).unwrap();
    client.health_check(SOON).unwrap();
    client.close(SOON).unwrap();
    assert_eq!(server.stored().len(), 1);
}

#[test]
fn what_one_bucket_learns_of_the_server_all_know() {
    let (server, is_down, targets) = lenient("503 no");
    is_down.store(false, Relaxed);
    *server.ping.lock().unwrap() = Some(ping(ServerKind::InfluxDb2));
    let client = Client::connect(&config(&server, None)).unwrap();
    client.write_phm_metric("pump", "hours", 1.0).unwrap();
    client.flush(Level::Delivered, SOON).unwrap();
    // Another server is at the address by now, and fails once.
    *server.ping.lock().unwrap() = Some(ping(ServerKind::VictoriaMetrics));
    server.will([Do::Answer(answer("503 no", "", ""))]);
    for client in [client.bucket("other").unwrap(), client.clone()] {
        client.write_phm_metric("pump", "hours", 2.0).unwrap();
        client.flush(Level::Delivered, SOON).unwrap();
    }
    let vm = way(ServerKind::VictoriaMetrics).0;
    assert_eq!(targets.lock().unwrap()[1..], [vm.replace("house", "other"), vm.to_owned()]);
    client.close(SOON).unwrap();
}

#[test]
fn what_one_server_cannot_hold_goes_to_the_one_that_comes_in_its_place() {
    let (server, is_down, targets) = lenient("503 no");
    *server.ping.lock().unwrap() = Some(ping(ServerKind::VictoriaMetrics));
    let client =
        Client::connect(&config(&server, None).with_quick_batches(100, Duration::from_millis(200))).unwrap();
    let news: Arc<Mutex<Vec<WriteErrorKind>>> = Arc::default();
    let heard = news.clone();
    client.set_on_error(move |e| heard.lock().unwrap().push(e.kind));
    let time = |n: i64| Timestamp::from_nanos(1_700_000_000_000_000_000 + n);
    client.write_point(&Point::new("m").field("text", "only").timestamp(time(1))).unwrap();
    client.write_point(&Point::new("m").field("f", 1.5).field("text", "too").timestamp(time(2))).unwrap();
    client.write_point(&Point::new("m").field("f", 2.5).timestamp(time(3))).unwrap();
    wait_until(|| server.seen.lock().unwrap().requests > 0);
    *server.ping.lock().unwrap() = Some(ping(ServerKind::InfluxDb2));
    is_down.store(false, Relaxed);
    client.flush(Level::Delivered, SOON).unwrap();
    let report = client.close(SOON).unwrap();
    assert_eq!((report.delivered, report.rejected), (3, 0));
    assert_eq!(*news.lock().unwrap(), [WriteErrorKind::Delayed]);
    assert!(targets.lock().unwrap().iter().all(|t| t == way(ServerKind::InfluxDb2).0));
    let stored: std::collections::BTreeSet<String> = server.stored().into_iter().collect();
    assert_eq!(
        stored.into_iter().collect::<Vec<_>>(),
        [
            "m f=1.5,text=\"too\" 1700000000000000002",
            "m f=2.5 1700000000000000003",
            "m text=\"only\" 1700000000000000001",
        ]
    );
}

#[test]
fn a_server_that_is_configured_is_written_to_though_it_hangs_when_it_is_asked_what_it_is() {
    let server = server(ServerKind::InfluxDb3);
    // The body never comes.
    *server.ping.lock().unwrap() = Some("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n".to_owned());
    let configured = config(&server, None).with_server_kind(Some(ServerKind::InfluxDb3));
    let client = Client::connect(&configured).unwrap();
    client.write_phm_metric("pump", "hours", 1.0).unwrap();
    client.flush(Level::Delivered, SOON).unwrap();
    client.close(SOON).unwrap();
    // Nobody knows how to write to one that is not: that is said.
    let client = Client::connect(&config(&server, None)).unwrap();
    client.write_phm_metric("pump", "hours", 1.0).unwrap();
    wait_until(|| client.stats().trouble.is_some());
    let trouble = client.stats().trouble.unwrap();
    assert!(trouble.contains("GET /ping") && trouble.contains("influxdb.kind"), "{trouble}");
    client.close(Duration::ZERO).unwrap();
}

#[test]
fn what_waited_for_one_server_is_put_into_the_words_of_another() {
    let spool = tempfile::tempdir().unwrap();
    let first = server(ServerKind::InfluxDb2);
    first.healthy.store(false, std::sync::atomic::Ordering::Relaxed);
    let refusing = Hostile::new(|_| Some(answer("503 no", "", "")));
    let before = Client::connect(&config(&refusing, Some(spool.path()))).unwrap();
    let time = |n: i64| Timestamp::from_nanos(1_700_000_000_000_000_000 + n);
    let point = Point::new("m").tag("path", r"C:\x").field("f", 1.5).field("text", "on");
    before.write_point(&point.timestamp(time(1))).unwrap();
    before.write_point(&Point::new("m").field("text", "only").timestamp(time(2))).unwrap();
    before.write_point(&Point::new("m").field("f", 2.5).timestamp(time(-1_800_000_000_000_000_000))).unwrap();
    before.flush(Level::Durable, SOON).unwrap();
    assert_eq!(before.close(Duration::ZERO).unwrap().spooled, 3);

    let server = server(ServerKind::VictoriaMetrics);
    let client = Client::connect(&config(&server, Some(spool.path()))).unwrap();
    let news: Arc<Mutex<Vec<(WriteErrorKind, String)>>> = Arc::default();
    let heard = news.clone();
    client.set_on_error(move |e| {
        heard.lock().unwrap().extend(e.first.iter().map(|l| (e.kind, format!("{}: {}", l.text, l.reason))));
    });
    client.write_device_metric_at("d", "level", 1.0, time(3)).unwrap();
    client.flush(Level::Delivered, SOON).unwrap();
    let stats = client.stats();
    // The one of before waits no longer than the one of now.
    assert!((0..2000).any(|_| {
        std::thread::sleep(Duration::from_millis(10));
        client.stats().waiting == 0
    }));
    client.close(SOON).unwrap();
    let mut stored = server.stored();
    stored.sort();
    assert_eq!(
        stored,
        [
            "device_metrics,_measurement=device_metrics,device_id=d,measurement=level value=1.0 1700000000000000003",
            r"m,_measurement=m,path=C:\\x f=1.5 1700000000000000001",
        ]
    );
    let mut news = news.lock().unwrap().clone();
    news.sort_by_key(|n| n.1.clone());
    let texts: Vec<&str> = news.iter().map(|n| n.1.as_str()).collect();
    assert!(texts[0].contains("f=2.5") && texts[0].contains("would store the present"), "{texts:?}");
    assert!(texts[1].contains("only") && texts[1].contains("VictoriaMetrics holds no texts: field \"text\""));
    assert!(texts[2].starts_with(r"m,path=C:\x") && texts[2].contains("field \"text\""), "{texts:?}");
    assert_eq!(news.iter().filter(|n| n.0 == WriteErrorKind::Altered).count(), 1);
    assert_eq!(stats.rejected + stats.delivered + stats.waiting, 4);
}

#[test]
fn exactly_the_lines_that_influxdb_3_names_are_refused() {
    let server = Hostile::judging(|request| {
        let bad: Vec<usize> =
            (0..request.lines.len()).filter(|i| request.lines[*i].contains("bad")).collect();
        let entry = |i: &usize| serde_json::json!({ "original_line": request.lines[*i], "line_number": i + 1, "error_message": "no such column" });
        let data: Vec<_> = bad.iter().map(entry).collect();
        let body = serde_json::json!({ "error": "partial write of line protocol occurred", "data": data });
        let kept = request.lines.iter().filter(|l| !l.contains("bad")).cloned().collect();
        (!bad.is_empty()).then(|| (answer("400 Bad Request", "", &body.to_string()), kept))
    });
    *server.ping.lock().unwrap() = Some(ping(ServerKind::InfluxDb3));
    let client = Client::connect(&config(&server, None)).unwrap();
    let reasons: Arc<Mutex<Vec<String>>> = Arc::default();
    let heard = reasons.clone();
    client.set_on_error(move |e| heard.lock().unwrap().extend(e.first.iter().map(|l| l.reason.clone())));
    for i in 0..50 {
        let device = if i % 10 == 3 { format!("bad-{i}") } else { format!("good-{i}") };
        client.write_device_metric(&device, "level", 1.0).unwrap();
    }
    client.flush(Level::Delivered, SOON).unwrap();
    let report = client.close(SOON).unwrap();
    assert_eq!((report.delivered, report.rejected), (45, 5));
    assert_eq!(*reasons.lock().unwrap(), ["no such column"; 5]);
    let stored: std::collections::BTreeSet<String> = server.stored().into_iter().collect();
    assert_eq!(stored.len(), 45);
}

/// The first fault that is found, as check, setting and sentence.
fn fault(config: &Config) -> (Preflight, &'static str, Option<&'static str>, String) {
    let preflight = Client::preflight(config).unwrap();
    let fault = preflight.fault().unwrap_or_else(|| panic!("no fault:\n{preflight}")).clone();
    (preflight, fault.name, fault.setting, fault.says)
}

#[test]
fn each_fault_is_a_sentence_that_names_the_setting() {
    let judged = |status: &'static str, text: &'static str| {
        let server = Hostile::new(move |_| Some(message(status, text)));
        *server.ping.lock().unwrap() = Some(ping(ServerKind::InfluxDb2));
        server
    };
    let mut sentences = Vec::new();
    let mut check = |server: &Hostile, name: &str, setting: Option<&str>, says: &str| {
        let (preflight, found, changed, sentence) = fault(&config(server, None));
        assert_eq!((found, changed), (name, setting), "{preflight}");
        assert!(sentence.contains(says), "{sentence}");
        if let Some(setting) = setting {
            assert!(sentence.contains(&format!("influxdb.{setting}")), "{sentence}");
        }
        // Everything behind it is listed, as not reached.
        let after: Vec<Verdict> =
            preflight.checks().iter().skip_while(|c| c.name != name).skip(1).map(|c| c.verdict).collect();
        assert!(after.iter().all(|v| *v == Verdict::NotReached), "{preflight}");
        // Connecting strictly says the same; else it works.
        let strict = Client::connect(&config(server, None).with_connect_strict(true)).unwrap_err();
        assert!(strict.is_connection_failed());
        assert_eq!(strict.to_string(), sentence);
        assert!(!sentence.contains("secret"));
        sentences.push(sentence);
    };
    check(
        &judged("401 Unauthorized", "unauthorized access"),
        "token",
        Some("token"),
        "does not know the token",
    );
    let right = judged("403 Forbidden", "insufficient permissions for write");
    check(&right, "write", Some("token"), "may not write to bucket \"house\"");
    let org = judged("404 Not Found", "organization name \"graylogic\" not found");
    check(&org, "organisation", Some("org"), "no organisation \"graylogic\"");
    check(
        &judged("404 Not Found", "bucket \"house\" not found"),
        "bucket",
        Some("bucket"),
        "no bucket \"house\"",
    );
    check(
        &judged("404 Not Found", "404 page not found"),
        "write",
        Some("url"),
        "takes no writes at this address",
    );
    check(&judged("503 Service Unavailable", "busy"), "write", None, "busy");
    let page = Hostile::new(|_| Some(answer("200 OK", "Content-Type: text/html\r\n", "<!doctype html>")));
    check(&page, "write", Some("url"), "a web page");
    let tls = Hostile::new(|_| {
        Some(answer("400 Bad Request", "", "Client sent an HTTP request to an HTTPS server.\n"))
    });
    check(&tls, "write", Some("url"), "HTTPS server");
    let mut distinct = sentences.clone();
    distinct.sort();
    distinct.dedup();
    assert_eq!(distinct.len(), sentences.len(), "{sentences:#?}");
}

#[test]
fn a_server_of_another_kind_than_configured_is_told() {
    for kind in kinds() {
        for configured in kinds().into_iter().filter(|k| *k != kind) {
            let server = server(kind);
            let (preflight, name, setting, says) =
                fault(&config(&server, None).with_server_kind(Some(configured)));
            assert_eq!((name, setting, preflight.server_kind()), ("kind", Some("kind"), Some(kind)));
            let expected = format!("set influxdb.kind to {} or auto", kind.key());
            assert!(says.contains(&kind.to_string()) && says.ends_with(&expected), "{says}");
            // Readings wait for somebody to mend it, rather than go where they would be spoilt.
            let client = Client::connect(&config(&server, None).with_server_kind(Some(configured))).unwrap();
            // Who asks for the health learns of it, and does not make it right.
            assert!(client.health_check(SOON).is_err());
            client.write_phm_metric("pump", "hours", 1.0).unwrap();
            assert!(client.flush(Level::Delivered, Duration::from_millis(50)).is_err());
            assert!((0..2000).any(|_| {
                std::thread::sleep(Duration::from_millis(10));
                client.stats().health == Health::Held("kind".to_owned())
            }));
            assert_eq!(client.stats().trouble, Some(says));
            assert!(client.health_check(SOON).is_err());
            assert!(client.flush(Level::Delivered, Duration::from_millis(300)).is_err());
            client.close(Duration::ZERO).unwrap();
            assert_eq!(server.stored(), [""; 0], "{kind} as {configured}");
        }
    }
}

#[test]
fn nobody_there_and_a_clock_that_is_off_are_told() {
    let gone = server(ServerKind::InfluxDb2);
    let config_of_gone = config(&gone, None);
    drop(gone);
    // The port may be somebody else's by now, which is no fault of the client.
    let preflight = Client::preflight(&config_of_gone).unwrap();
    let fault = preflight.fault().unwrap();
    assert_eq!((fault.name, fault.setting), ("address", None), "{preflight}");
    assert!(fault.says.contains("influxdb.url"), "{preflight}");

    // The machine takes connections for a program that never does anything with them.
    let hangs = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", hangs.local_addr().unwrap());
    let config_of_hanging =
        Config::remote(&url).unwrap().with_spool(None).with_hurry(20).with_connect_strict(true);
    let preflight = Client::preflight(&config_of_hanging).unwrap();
    assert!(preflight.fault().unwrap().says.contains("did not answer in time"), "{preflight}");
    assert!(Client::connect(&config_of_hanging).unwrap_err().is_retryable());

    let off = server(ServerKind::InfluxDb2);
    let date = "X-Influxdb-Version: v2.8.0\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n";
    *off.ping.lock().unwrap() = Some(answer("204 No Content", date, ""));
    let preflight = Client::preflight(&config(&off, None)).unwrap();
    assert_eq!(preflight.fault(), None, "{preflight}");
    let clock = preflight.checks().iter().find(|c| c.name == "clock").unwrap();
    assert_eq!(clock.verdict, Verdict::Warning);
    assert!(clock.says.contains("ahead of that of the server"), "{preflight}");
}

#[test]
fn an_influxdb_1_behind_who_keeps_pings_for_himself_is_written_to_in_its_own_way() {
    let server = Hostile::judging(|request| {
        let is_its = request.target == way(ServerKind::InfluxDb1).0;
        (!is_its).then(|| {
            (answer("404 Not Found", "X-Influxdb-Version: 1.6.7\r\n", "404 page not found"), Vec::new())
        })
    });
    *server.ping.lock().unwrap() = Some(answer("404 Not Found", "", ""));
    let preflight = Client::preflight(&config(&server, None)).unwrap();
    assert_eq!((preflight.fault(), preflight.server_kind()), (None, Some(ServerKind::InfluxDb1)));
    let client = Client::connect(&config(&server, None)).unwrap();
    client.write_phm_metric("pump", "hours", 1.0).unwrap();
    client.flush(Level::Delivered, SOON).unwrap();
    assert_eq!(server.stored().len(), 1);
    client.close(SOON).unwrap();
}
