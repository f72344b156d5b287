//! Several targets of one client: readings go where rules say, and none waits for another's target.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs, unreachable_pub)]

#[allow(dead_code, reason = "each test uses a part of it")]
mod hostile;

use graylogic_influxdb::{
    Class, Client, Config, Health, Level, Point, Route, Stats, Timestamp, WriteError, WriteErrorKind,
};
use hostile::{Do, Hostile, message};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(60);
/// What a child of this program does, and with what.
const CHILD: &str = "GRAYLOGIC_TEST_ROUTING_CHILD";
/// Nobody listens there.
const NOWHERE: &str = "http://127.0.0.1:9";

fn comes(mut what: impl FnMut() -> bool) -> bool {
    let until = Instant::now() + SOON;
    while !what() && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(2));
    }
    what()
}

/// A server that takes everything and keeps each line behind the bucket it came to.
fn server() -> Hostile {
    Hostile::judging(|request| {
        let bucket = request.target.split(['?', '&']).find_map(|p| p.strip_prefix("bucket="));
        let bucket = bucket.unwrap_or("?").replace("%2F", "/");
        let kept = request.lines.iter().map(|line| format!("{bucket}|{line}")).collect();
        Some(("HTTP/1.1 204 No Content\r\n\r\n".to_owned(), kept))
    })
}

/// The lines of a server, sorted.
fn stored(server: &Hostile) -> Vec<String> {
    let mut lines = server.stored();
    lines.sort();
    lines
}

fn remote(url: &str, spool: &Path) -> Config {
    Config::remote(url)
        .unwrap()
        .with_spool(Some(spool.to_owned()))
        .with_quick_batches(20, Duration::from_millis(20))
        .with_hurry(100)
}

/// A further target, whose spool is beside that of the main one.
fn further(url: &str) -> Config {
    Config::remote(url).unwrap().with_quick_batches(20, Duration::from_millis(20)).with_hurry(100)
}

fn at(i: i64) -> Timestamp {
    Timestamp::from_nanos(1_000_000 + i)
}

fn write(client: &Client, measurement: &str, numbers: std::ops::Range<i64>) {
    for i in numbers {
        let point = Point::new(measurement).tag("d", "a").field("f", i as f64);
        client.write_point_at(&point, at(i)).unwrap();
    }
}

/// A point that is long in memory, and not too short in a spool, which compresses: a full spool is noticed once both are.
fn bulky(i: i64) -> Point {
    let mut state = i as u64 + 1;
    let mut text = String::new();
    while text.len() < 1000 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        text.push_str(&format!("{:08x}", state >> 32));
    }
    text.push_str(&"x".repeat(29_000));
    Point::new("m").field("s", text).timestamp(at(i))
}

fn lines(bucket: &str, measurement: &str, numbers: std::ops::Range<i64>) -> Vec<String> {
    let mut lines: Vec<String> =
        numbers.map(|i| format!("{bucket}|{measurement},d=a f={i}.0 {}", 1_000_000 + i)).collect();
    lines.sort();
    lines
}

fn bucket_stats(client: &Client) -> BTreeMap<String, Stats> {
    client.buckets().into_iter().collect()
}

/// Of every lane for itself.
fn conserved(client: &Client) {
    for (name, s) in client.buckets() {
        let became = s.delivered + s.rejected + s.waiting + s.dropped + s.damaged;
        assert_eq!(s.accepted + s.recovered, became, "{name}: {s:?}");
    }
}

fn heard(client: &Client) -> Arc<Mutex<Vec<WriteError>>> {
    let heard: Arc<Mutex<Vec<WriteError>>> = Arc::default();
    let keeps = heard.clone();
    client.set_on_error(move |news| keeps.lock().unwrap().push(news.clone()));
    heard
}

#[test]
fn the_first_rule_that_fits_decides_and_the_rest_goes_to_main() {
    let (main, office) = (server(), server());
    let spool = tempfile::tempdir().unwrap();
    let yaml = format!(
        "influxdb:
  url: {}
  spool: {}/spool
  bucket: house
  flush_interval: 1
  targets:
    head_office:
      url: {}
      bucket: all
  routes:
    - measurement: \"secret*\"
      to: main
    - class: energy
      tags:
        device_id: \"north*\"
      to: [main/energy, head_office, \"head_office/north/energy\"]
    - class: energy
      to: [main/energy]
    - tags: {{site: \"north\", floor: \"*\"}}
      to: [head_office/north]
    - measurement: exact
      to: [head_office/exact, main]
    - class: phm
      to: [head_office/phm]
    - class: device
      tags: {{measurement: \"temp*\"}}
      to: [head_office/temperatures]
",
        main.url(),
        spool.path().display(),
        office.url()
    );
    let config = Config::from_yaml_with_env(&yaml, |_| None).unwrap().with_hurry(100);
    let client = Client::connect(&config).unwrap();
    assert_eq!(client.targets(), ["main", "head_office"]);
    let mut n = 0;
    let mut next = || {
        n += 1;
        Timestamp::from_nanos(n)
    };
    let point = |measurement: &str, tags: &[(&str, &str)]| {
        tags.iter().fold(Point::new(measurement).field("f", 1.0), |p, (k, v)| p.tag(*k, *v))
    };
    client.write_energy_metric_at("north-1", 1.0, None, next()).unwrap();
    client.write_energy_metric_at("south-1", 1.0, None, next()).unwrap();
    client.write_phm_metric_at("pump", "v", 1.0, next()).unwrap();
    client.write_device_metric_at("d", "temperature", 1.0, next()).unwrap();
    client.write_device_metric_at("d", "level", 1.0, next()).unwrap();
    client.write_point_at(&point("energy", &[("device_id", "north")]), next()).unwrap();
    client.write_point_at(&point("energy", &[]), next()).unwrap();
    client.write_point_at(&point("x", &[("site", "north"), ("floor", "2")]), next()).unwrap();
    client.write_point_at(&point("x", &[("site", "north")]), next()).unwrap();
    client.write_point_at(&point("x", &[("site", "north-2"), ("floor", "2")]), next()).unwrap();
    client.write_point_at(&point("secret_x", &[("site", "north"), ("floor", "2")]), next()).unwrap();
    client.write_point_at(&point("exact", &[]), next()).unwrap();
    client.write_point_at(&point("exact2", &[]), next()).unwrap();
    // Handles know their way from the start, and pinned clients follow no rule.
    let series = client.series("energy", &[("device_id", "north-9")], &["power_watts"]).unwrap();
    series.write_float(2.0, Some(next())).unwrap();
    let series = client.series("m", &[("a", "b")], &["f"]).unwrap();
    series.write_float(2.0, Some(next())).unwrap();
    client.bucket("aside").unwrap().write_energy_metric_at("north-1", 1.0, None, next()).unwrap();
    let office_client = client.target("head_office", None).unwrap();
    office_client.write_energy_metric_at("north-1", 1.0, None, next()).unwrap();
    office_client.bucket("aside").unwrap().write_phm_metric_at("p", "v", 1.0, next()).unwrap();
    let named = client.target("main", Some("a/b")).unwrap();
    named.series("exact", &[], &["f"]).unwrap().write_float(1.0, Some(next())).unwrap();
    client.flush(Level::Delivered, SOON).unwrap();
    let buckets = |server: &Hostile| {
        let mut found: BTreeMap<String, Vec<i64>> = BTreeMap::new();
        for line in server.stored() {
            let (bucket, line) = line.split_once('|').unwrap();
            let time = line.rsplit_once(' ').unwrap().1.parse().unwrap();
            found.entry(bucket.to_owned()).or_default().push(time);
        }
        found.values_mut().for_each(|times| times.sort_unstable());
        found
    };
    let expected = |buckets: &[(&str, &[i64])]| -> BTreeMap<String, Vec<i64>> {
        buckets.iter().map(|(bucket, times)| ((*bucket).to_owned(), times.to_vec())).collect()
    };
    assert_eq!(
        buckets(&main),
        expected(&[
            ("a/b", &[19]),
            ("aside", &[16]),
            ("energy", &[1, 2, 6, 7, 14]),
            ("house", &[5, 9, 10, 11, 12, 13, 15]),
        ])
    );
    assert_eq!(
        buckets(&office),
        expected(&[
            ("all", &[1, 6, 14, 17]),
            ("aside", &[18]),
            ("exact", &[12]),
            ("north", &[8]),
            ("north/energy", &[1, 6, 14]),
            ("phm", &[3]),
            ("temperatures", &[4]),
        ])
    );
    let names: Vec<String> = client.buckets().into_iter().map(|(name, _)| name).collect();
    assert_eq!(
        names,
        [
            "house",
            "energy",
            "aside",
            "a/b",
            "head_office/all",
            "head_office/north/energy",
            "head_office/north",
            "head_office/exact",
            "head_office/phm",
            "head_office/temperatures",
            "head_office/aside"
        ]
    );
    let metrics = client.metrics();
    for sample in [
        "lines_total{target=\"main\",bucket=\"energy\",state=\"delivered\"} 5",
        "lines_total{target=\"head_office\",bucket=\"north/energy\",state=\"delivered\"} 3",
        "health{target=\"head_office\",bucket=\"all\",state=\"ok\"} 1",
    ] {
        assert!(metrics.lines().any(|l| l == format!("graylogic_spool_{sample}")), "{sample} in {metrics}");
    }
    conserved(&client);
    let report = client.close(SOON).unwrap();
    assert_eq!((report.delivered, report.spooled, report.dropped), (26, 0, 0));
    assert!(client.target("head_office", None).unwrap_err().is_not_connected());
}

#[test]
fn one_point_to_three_places_has_one_time() {
    let (main, a, b) = (server(), server(), server());
    let spool = tempfile::tempdir().unwrap();
    let config = remote(&main.url(), &spool.path().join("spool"))
        .with_bucket("t")
        .with_further_target("a", further(&a.url()).with_bucket("t"))
        .with_further_target("b", further(&b.url()).with_bucket("t"))
        .with_route(Route::to(["main", "a", "b"]));
    let client = Client::connect(&config).unwrap();
    let series = client.series("s", &[], &["f"]).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for i in 0..50 {
        let point = Point::new("p").field("f", f64::from(i));
        client.write_device_metric("d", "m", f64::from(i)).unwrap();
        client.write_energy_metric("d", f64::from(i), Some(1.0)).unwrap();
        client.write_phm_metric("d", "m", f64::from(i)).unwrap();
        client.write_point(&point).unwrap();
        series.write_float(f64::from(i), None).unwrap();
        runtime.block_on(client.write_point_async(&point)).unwrap();
    }
    let (writer, point) = (client.clone(), Point::new("p").field("f", 50.0));
    // On any thread of a runtime.
    let durable = async move { writer.write_durable(&point).await };
    runtime.block_on(async { tokio::spawn(durable).await }).unwrap().unwrap();
    assert!(client.buckets().iter().all(|(_, s)| s.durable == s.accepted), "durable in all of its places");
    let (writer, point) = (client.clone(), Point::new("p").field("f", 51.0));
    let waits = async move { writer.write_point_async(&point).await };
    runtime.block_on(async { tokio::spawn(waits).await }).unwrap().unwrap();
    client.flush(Level::Delivered, SOON).unwrap();
    assert_eq!(main.stored().len(), 6 * 50 + 2);
    assert_eq!(stored(&main), stored(&a));
    assert_eq!(stored(&main), stored(&b));
    // Readings that nobody gave a time never fall together.
    let times: std::collections::BTreeSet<_> =
        main.stored().iter().map(|l| l.rsplit_once(' ').unwrap().1.to_owned()).collect();
    assert_eq!(times.len(), 6 * 50 + 2);
    // A line that cannot be written is refused as a whole.
    let invalid = client.write_device_metric("d", "m", f64::NAN).unwrap_err();
    assert!(invalid.is_invalid_point(), "{invalid}");
    let long = client.write_device_metric(&"x".repeat(2 << 20), "m", 1.0).unwrap_err();
    assert!(long.is_invalid_point() && long.to_string().contains("shorten"), "{long}");
    assert_eq!(client.stats().refused_points, 2, "counted once each");
    client.write_device_metric("d", "m", 1.0).unwrap();
    client.flush(Level::Delivered, SOON).unwrap();
    assert_eq!(stored(&main), stored(&b));
    conserved(&client);
    client.close(SOON).unwrap();
}

/// A server that takes connections and never answers, while it is kept.
fn hung() -> std::net::TcpListener {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap()
}

#[test]
fn targets_that_hang_or_are_dead_or_full_delay_nobody() {
    let main = server();
    let well = server();
    let hanging = hung();
    let hanging_url = format!("http://{}", hanging.local_addr().unwrap());
    let spool = tempfile::tempdir().unwrap();
    let full = further(NOWHERE)
        .with_small_spool(200_000)
        .with_spool_when_full(graylogic_influxdb::WhenFull::DropNewest);
    let config = remote(&main.url(), &spool.path().join("spool"))
        .with_further_target("hung", further(&hanging_url))
        .with_further_target("dead", further(NOWHERE))
        .with_further_target("full", full)
        .with_further_target("well", further(&well.url()))
        // The stuck ones first: they would be in the way of those behind them.
        .with_route(Route::to(["hung", "dead", "full", "main", "well"]));
    let client = Client::connect(&config).unwrap();
    let news = heard(&client);
    let mut n = 0;
    // Until the small spool is full, and on.
    let is_full = || bucket_stats(&client)["full/metrics"].refused_full > 0;
    while !is_full() {
        (n..n + 50).for_each(|i| client.write_point(&bulky(i)).unwrap());
        n += 50;
        assert!(n < 10_000, "{:?}", client.buckets());
        // What the others have gathered is theirs before the next.
        assert!(comes(|| main.stored().len() as i64 == n && well.stored().len() as i64 == n));
    }
    (n..n + 500).for_each(|i| client.write_point(&bulky(i)).unwrap());
    n += 500;
    assert!(comes(|| main.stored().len() as i64 == n && well.stored().len() as i64 == n));
    let stats = bucket_stats(&client);
    let n = n as u64;
    for name in ["hung/metrics", "dead/metrics"] {
        let s = &stats[name];
        assert_eq!((s.accepted, s.delivered, s.waiting, s.refused_full), (n, 0, n, 0), "{name}: {s:?}");
    }
    let s = &stats["full/metrics"];
    assert!(s.refused_full >= 1 && s.accepted + s.refused_full == n && s.waiting == s.accepted, "{s:?}");
    // Every reading that the full one went without is told of it.
    let told = || -> u64 {
        let news = news.lock().unwrap();
        let dropped = news.iter().filter(|e| e.kind == WriteErrorKind::Dropped);
        dropped.inspect(|e| assert_eq!((&*e.target, &*e.bucket), ("full", "metrics"))).map(|e| e.lines).sum()
    };
    assert!(comes(|| told() == s.refused_full), "{} of {}", told(), s.refused_full);
    let shown = news.lock().unwrap().iter().find(|e| e.kind == WriteErrorKind::Dropped).unwrap().to_string();
    assert!(shown.starts_with("write to bucket \"metrics\" of target \"full\": "), "{shown}");
    assert!(shown.contains("too many readings are pending, because "), "{shown}");
    // Whoever asks is told who holds it up, and only they.
    // Not those who are written to all the time.
    let stop = AtomicBool::new(false);
    let live = client.target("well", Some("live")).unwrap();
    let error = std::thread::scope(|threads| {
        threads.spawn(|| {
            let mut i = 0;
            while !stop.load(Ordering::Relaxed) {
                write(&live, "live", i..i + 10);
                i += 10;
            }
        });
        assert!(comes(|| bucket_stats(&client)["well/live"].delivered > 0));
        let error = client.flush(Level::Delivered, Duration::from_millis(500)).unwrap_err();
        stop.store(true, Ordering::Relaxed);
        error
    });
    assert!(error.is_timed_out(), "{error}");
    assert!(error.to_string().contains("for targets \"hung\", \"dead\", \"full\" after"), "{error}");
    assert!(!client.is_connected());
    assert!(comes(|| bucket_stats(&client)["well/live"].waiting == 0));
    let live = bucket_stats(&client)["well/live"].accepted;
    let error = client.health_check(Duration::from_secs(20)).unwrap_err();
    assert!(error.to_string().starts_with("target \""), "{error}");
    conserved(&client);
    let began = Instant::now();
    let report = client.close(Duration::from_millis(300)).unwrap();
    assert!(began.elapsed() < Duration::from_secs(20), "one deadline for all: {:?}", began.elapsed());
    assert_eq!(report.delivered, 2 * n + live);
    assert_eq!(report.spooled + report.dropped, 2 * n + s.accepted);
    conserved(&client);
}

#[test]
fn what_no_target_takes_is_refused_and_only_then() {
    // In memory only, and nobody there: both lanes become full.
    let spool = tempfile::tempdir().unwrap();
    let well = server();
    let off = |url: &str| Config::remote(url).unwrap().with_spool(None).with_hurry(100);
    let config = remote(&well.url(), &spool.path().join("spool"))
        .with_further_target("a", off(NOWHERE))
        .with_further_target("b", off(NOWHERE))
        .with_route(Route::to(["a", "b"]).measurement("lost"))
        .with_route(Route::to(["a", "main"]).measurement("half"));
    let client = Client::connect(&config).unwrap();
    let news = heard(&client);
    let text = "x".repeat(60_000);
    let point = Point::new("lost").field("f", text.as_str());
    let mut accepted = 0_u64;
    let refused = loop {
        match client.write_point(&point) {
            Ok(()) => accepted += 1,
            Err(error) => break error,
        }
        assert!(accepted < 10_000);
    };
    assert!(
        refused.is_retryable() && refused.to_string().contains("too many readings are pending"),
        "{refused}"
    );
    let stats = bucket_stats(&client);
    // Each may have refused what the other took; the last one both did.
    for name in ["a/metrics", "b/metrics"] {
        let s = &stats[name];
        assert!(s.refused_full >= 1, "{name}: {s:?}");
        assert_eq!(s.accepted + s.refused_full, accepted + 1, "{name}: {s:?}");
    }
    // Main has room: the reading is accepted, and the other's lack of it is told.
    client.write_point(&Point::new("half").field("f", 1.0)).unwrap();
    assert!(comes(|| well.stored().len() == 1), "{:?}", client.buckets());
    let told = |target: &str| -> u64 {
        let news = news.lock().unwrap();
        let dropped = news.iter().filter(|e| e.kind == WriteErrorKind::Dropped && e.target == target);
        dropped.map(|e| e.lines).sum()
    };
    // But for the one whose caller was told.
    assert!(comes(|| {
        let stats = bucket_stats(&client);
        ["a", "b"].iter().all(|name| told(name) == stats[&format!("{name}/metrics")].refused_full - 1)
    }));
    conserved(&client);
    let report = client.close(Duration::from_millis(50)).unwrap();
    let (a, b) = (bucket_stats(&client)["a/metrics"].clone(), bucket_stats(&client)["b/metrics"].clone());
    assert_eq!((report.dropped, report.delivered), (a.accepted + b.accepted, 1));
    conserved(&client);
}

#[test]
fn who_may_wait_waits_for_targets_that_block_and_for_no_other() {
    let (main, office) = (server(), server());
    let spool = tempfile::tempdir().unwrap();
    let config = |when_full| {
        let name = format!("spool-{when_full:?}");
        let office = further(&office.url()).with_small_spool(200_000).with_spool_when_full(when_full);
        remote(&main.url(), &spool.path().join(name))
            .with_further_target("office", office)
            .with_route(Route::to(["office", "main"]))
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for when_full in [graylogic_influxdb::WhenFull::Block, graylogic_influxdb::WhenFull::DropNewest] {
        main.seen.lock().unwrap().stored.clear();
        office.seen.lock().unwrap().stored.clear();
        // It takes nothing until it is mended.
        office.will((0..1_000_000).map(|_| Do::Answer(message("503 Service Unavailable", "busy"))));
        let client = Client::connect(&config(when_full)).unwrap();
        let mut n = 0;
        while bucket_stats(&client)["office/metrics"].refused_full == 0 {
            client.write_point(&bulky(n)).unwrap();
            n += 1;
            assert!(n < 10_000, "{:?}", client.buckets());
        }
        let before = bucket_stats(&client)["office/metrics"].accepted;
        let (writer, last) = (client.clone(), bulky(n));
        let waits = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(writer.write_point_async(&last))
        });
        // Main has it, whether its writer waits for the other or not.
        assert!(comes(|| main.stored().len() as i64 == n + 1), "{:?}", client.buckets());
        if when_full == graylogic_influxdb::WhenFull::Block {
            std::thread::sleep(Duration::from_millis(100));
            assert!(!waits.is_finished(), "the office blocks, and has no room");
            assert_eq!(bucket_stats(&client)["office/metrics"].accepted, before);
            office.is_mended();
            waits.join().unwrap().unwrap();
            client.flush(Level::Delivered, SOON).unwrap();
            assert_eq!(bucket_stats(&client)["office/metrics"].accepted, before + 1, "once");
            assert_eq!(main.stored().len() as i64, n + 1, "and once here");
            runtime.block_on(client.write_point_async(&bulky(n + 1))).unwrap();
            client.flush(Level::Delivered, SOON).unwrap();
            assert_eq!(main.stored().len() as i64, n + 2);
        } else {
            waits.join().unwrap().unwrap();
            assert_eq!(bucket_stats(&client)["office/metrics"].accepted, before);
            office.is_mended();
        }
        conserved(&client);
        client.close(SOON).unwrap();
    }
}

#[test]
fn who_waits_for_room_hears_of_the_close() {
    let spool = tempfile::tempdir().unwrap();
    let full = || {
        further(NOWHERE)
            .with_small_spool(200_000)
            .with_spool_when_full(graylogic_influxdb::WhenFull::DropNewest)
    };
    let config = remote(NOWHERE, &spool.path().join("spool"))
        .with_further_target("a", full())
        .with_further_target("b", full())
        .with_route(Route::to(["a", "b"]));
    let client = Client::connect(&config).unwrap();
    let point = bulky(0);
    let mut n = 0;
    while client.write_point(&bulky(n)).is_ok() {
        n += 1;
        assert!(n < 10_000, "{:?}", client.buckets());
    }
    let refused = bucket_stats(&client)["b/metrics"].refused_full;
    let (writer, last) = (client.clone(), point.clone());
    let waits = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            // Whoever gives up is forgotten; the one behind waits on.
            let gave_up = tokio::time::timeout(Duration::from_millis(20), writer.write_point_async(&last));
            assert!(gave_up.await.is_err());
            writer.write_point_async(&last).await
        })
    });
    assert!(comes(|| bucket_stats(&client)["b/metrics"].refused_full >= refused + 2));
    assert!(!waits.is_finished());
    client.close(Duration::from_millis(50)).unwrap();
    assert!(waits.join().unwrap().unwrap_err().is_not_connected());
    conserved(&client);
}

#[test]
fn every_target_is_drained_after_a_restart() {
    let (main, office) = (server(), server());
    let folder = tempfile::tempdir().unwrap();
    let spool = folder.path().join("spool");
    let config = |main: &str, office: &str, routed: bool| {
        let config = remote(main, &spool).with_further_target("office", further(office));
        let route = Route::to(["main/long-term", "office/a/b", "office"]);
        if routed { config.with_route(route) } else { config }
    };
    let client = Client::connect(&config(NOWHERE, NOWHERE, true)).unwrap();
    write(&client, "m", 0..30);
    client.bucket("aside").unwrap();
    client.flush(Level::Durable, SOON).unwrap();
    let report = client.close(Duration::from_millis(20)).unwrap();
    assert_eq!((report.spooled, report.dropped), (90, 0));
    assert!(spool.is_dir() && folder.path().join("spool.office").is_dir(), "siblings");
    drop(client);
    // The rules have changed meanwhile: what waits goes where it was meant to.
    let client = Client::connect(&config(&main.url(), &office.url(), false)).unwrap();
    assert!(comes(|| main.stored().len() == 30 && office.stored().len() == 60), "{:?}", client.buckets());
    assert_eq!(stored(&main), lines("long-term", "m", 0..30));
    let mut both = lines("a/b", "m", 0..30);
    both.extend(lines("metrics", "m", 0..30));
    assert_eq!(stored(&office), both);
    let stats = bucket_stats(&client);
    for name in ["long-term", "office/a/b", "office/metrics"] {
        assert_eq!(stats[name].recovered, 30, "{stats:?}");
    }
    conserved(&client);
    client.close(SOON).unwrap();
}

#[test]
fn child() {
    let Ok(task) = std::env::var(CHILD) else { return };
    let (task, what) = task.split_once(' ').unwrap();
    match task {
        // Writes until it is killed.
        "write" => {
            let client = Client::connect(&Config::from_file(what).unwrap().with_hurry(20)).unwrap();
            for i in 0.. {
                write(&client, "m", i * 10..(i + 1) * 10);
                client.flush(Level::Durable, SOON).unwrap();
                println!("\ndurable {}", (i + 1) * 10);
            }
        }
        // Has a further target without a token.
        "token" => {
            let office = further(what).with_spool(None);
            let config =
                Config::remote(NOWHERE).unwrap().with_spool(None).with_further_target("office", office);
            let client = Client::connect(&config.with_route(Route::to(["office"]))).unwrap();
            write(&client, "m", 0..10);
            let is_held =
                || bucket_stats(&client)["office/metrics"].health == Health::Held("token".to_owned());
            assert!(comes(|| is_held() || client.stats().delivered == 10));
            // A few more tries, with what the environment has.
            let delivered = client.flush(Level::Delivered, Duration::from_secs(2)).is_ok();
            println!("\ndelivered {delivered}");
            client.close(Duration::from_millis(20)).unwrap();
        }
        other => panic!("{other}"),
    }
}

fn child_of(task: String) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["child", "--exact", "--nocapture", "--test-threads=1"]).env(CHILD, task);
    command
}

#[test]
fn what_was_durable_when_it_was_killed_reaches_every_target() {
    let (main, office) = (server(), server());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.yaml");
    let write_file = |main: &str, office: &str| {
        let yaml = format!(
            "influxdb:\n  url: {main}\n  spool: {}/spool\n  flush_interval: 1\n  targets:\n    office:\n      url: {office}\n  \
             routes:\n    - to: [main, office, office/archive]\n",
            folder.path().display(),
        );
        std::fs::write(&path, yaml).unwrap();
    };
    write_file(NOWHERE, NOWHERE);
    let mut child = child_of(format!("write {}", path.display())).stdout(Stdio::piped()).spawn().unwrap();
    let durable = BufReader::new(child.stdout.take().unwrap())
        .lines()
        .map_while(Result::ok)
        .find_map(|line| line.strip_prefix("durable ")?.parse::<i64>().ok().filter(|n| *n >= 50));
    child.kill().unwrap();
    child.wait().unwrap();
    let durable = durable.unwrap();
    write_file(&main.url(), &office.url());
    let client = Client::connect(&Config::from_file(&path).unwrap()).unwrap();
    assert!(comes(|| client.stats().waiting == 0), "{:?}", client.buckets());
    let all = |server: &Hostile, bucket: &str| {
        let lines: Vec<String> = server.stored().into_iter().filter(|l| l.starts_with(bucket)).collect();
        let found: std::collections::BTreeSet<String> = lines.iter().cloned().collect();
        assert_eq!(found.len(), lines.len(), "each once");
        for line in self::lines(bucket, "m", 0..durable) {
            assert!(found.contains(&line), "{line} of {durable}");
        }
    };
    all(&main, "metrics");
    all(&office, "metrics");
    all(&office, "archive");
    conserved(&client);
    client.close(SOON).unwrap();
}

#[test]
fn a_target_without_a_token_is_not_shown_that_of_main() {
    let office = token_server("Token right");
    let check = |name: &str, token: &str, expected: &str| {
        let child = child_of(format!("token {}", office.url())).env(name, token).output().unwrap();
        let said = String::from_utf8_lossy(&child.stdout).into_owned();
        assert!(said.lines().any(|l| l == expected), "{name}: {said}");
    };
    // It would be taken.
    check("GRAYLOGIC_INFLUXDB_TOKEN", "right", "delivered false");
    assert!(office.seen.lock().unwrap().tokens.is_empty());
    assert!(office.seen.lock().unwrap().requests >= 2, "it asked, and asked again");
    // Nor is it shown its own: a program made this configuration, and the environment is no part of it.
    check("GRAYLOGIC_INFLUXDB_TARGETS_OFFICE_TOKEN", "right", "delivered false");
    assert!(office.seen.lock().unwrap().tokens.is_empty());
}

#[test]
fn a_write_by_rules_allocates_nothing_in_the_steady_state() {
    let folder = tempfile::tempdir().unwrap();
    let store = |name: &str| Config::embedded(folder.path().join(name)).with_any_time(true);
    let config = store("main")
        .with_further_target("copy", store("copy"))
        .with_route(Route::to(["copy"]).measurement("nothing*").tag("a", "b*"))
        .with_route(Route::to(["main", "copy", "copy/more"]).class(Class::Device).tag("device_id", "dev*"));
    let client = Client::connect(&config).unwrap();
    let series =
        client.series("device_metrics", &[("device_id", "dev"), ("measurement", "s")], &["value"]).unwrap();
    let mut n = 0;
    let mut some = |times: i32| {
        for i in 0..times {
            n += 1;
            client.write_device_metric_at("dev", "m", f64::from(i), at(n)).unwrap();
            client.write_energy_metric_at("dev", f64::from(i), None, at(n)).unwrap();
            series.write_float(f64::from(i), Some(at(n))).unwrap();
        }
    };
    some(2000);
    client.flush(Level::Durable, SOON).unwrap();
    let used = allocation_counter::measure(|| some(100));
    assert_eq!(used.count_total, 0, "{used:?}");
    let report = client.close(SOON).unwrap();
    assert_eq!(report.delivered, 2100 * (3 + 1 + 3));
}

#[test]
fn a_copy_beside_a_server_answers_questions() {
    let server = server();
    let folder = tempfile::tempdir().unwrap();
    let config = remote(&server.url(), &folder.path().join("spool"))
        .with_further_target("local", Config::embedded(folder.path().join("data")).with_any_time(true))
        .with_route(Route::to(["main", "local"]));
    let client = Client::connect(&config).unwrap();
    client.write_energy_metric_at("hvac", -450.0, None, at(1)).unwrap();
    client.flush(Level::Delivered, SOON).unwrap();
    assert_eq!(stored(&server), ["metrics|energy,device_id=hvac power_watts=-450.0 1000001"]);
    let local = client.target("local", None).unwrap();
    let found = local.latest("energy", &[("device_id", "hvac")]).unwrap();
    assert_eq!((found.len(), found[0].time), (1, at(1)));
    assert!(client.store().is_none() && local.store().is_some());
    // The store is let go with the client.
    client.close(SOON).unwrap();
    let again = Client::connect(&Config::embedded(folder.path().join("data")).with_any_time(true)).unwrap();
    assert_eq!(again.latest("energy", &[]).unwrap().len(), 1);
    again.close(SOON).unwrap();
}

#[test]
fn a_target_that_cannot_be_opened_is_named_and_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let check = |config: Config, text: &str| {
        let error = Client::connect(&config).unwrap_err();
        let shown = error.to_string();
        assert!(shown.starts_with("target \"copy\": ") && shown.contains(text), "{shown}");
        // The main target is free again.
        let main = config.clone();
        let alone =
            Client::connect(&Config::embedded(path("main")).with_any_time(true).with_bucket(main.bucket()))
                .unwrap();
        alone.close(SOON).unwrap();
    };
    let main = || Config::embedded(path("main")).with_any_time(true);
    let holder = Client::connect(&Config::embedded(path("copy")).with_any_time(true)).unwrap();
    check(main().with_further_target("copy", Config::embedded(path("copy")).with_any_time(true)), "copy");
    holder.close(SOON).unwrap();
    let holder = Client::connect(&remote(NOWHERE, &path("spool"))).unwrap();
    check(main().with_further_target("copy", remote(NOWHERE, &path("spool"))), "spool");
    holder.close(Duration::from_millis(20)).unwrap();
    let no_file = further("https://127.0.0.1:9").with_ca_file(path("none.pem"));
    check(main().with_further_target("copy", no_file), "influxdb.targets.copy.ca_file");
    check(
        main().with_further_target("copy", further(NOWHERE).with_connect_strict(true)),
        "change influxdb.targets.copy.url",
    );
    // A server that is down is none of those.
    let down = main().with_further_target("copy", further(NOWHERE).with_spool(Some(path("s"))));
    Client::connect(&down).unwrap().close(SOON).unwrap();
    // Rules that were not there when the target was.
    let error = Client::connect(&main().with_route(Route::to(["copy"]))).unwrap_err();
    assert_eq!(
        error.to_string(),
        "influxdb.routes, rule 1: to names \"copy\", which is no target; the targets are main"
    );
    assert!(error.is_invalid_config());
    let client = Client::connect(&main()).unwrap();
    let error = client.target("copy", None).unwrap_err();
    assert_eq!(error.to_string(), "there is no target \"copy\"; the targets are main");
    client.close(SOON).unwrap();
}

/// A server that takes one token.
fn token_server(token: &'static str) -> Hostile {
    Hostile::judging(move |request| {
        let right = request.token.as_deref() == Some(token);
        (!right).then(|| (message("401 Unauthorized", "unauthorized access"), Vec::new()))
    })
}

#[test]
fn a_token_renewed_for_a_further_target_is_taken_and_is_no_other_servers() {
    let (main, office) = (token_server("Token main-1"), token_server("Token office-2"));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.yaml");
    let write_file = |token: &str| {
        let yaml = format!(
            "influxdb:\n  url: {}\n  token: main-1\n  spool: {}/spool\n  flush_interval: 1\n  targets:\n    office:\n      \
             url: {}\n      token: {token}\n  routes:\n    - to: [main, office]\n",
            main.url(),
            folder.path().display(),
            office.url()
        );
        std::fs::write(&path, yaml).unwrap();
    };
    write_file("office-1");
    let client = Client::connect(&Config::from_file(&path).unwrap().with_hurry(20)).unwrap();
    write(&client, "m", 0..10);
    assert!(comes(|| main.stored().len() == 10));
    assert!(comes(|| bucket_stats(&client)["office/metrics"].health == Health::Held("token".to_owned())));
    assert_eq!(bucket_stats(&client)["metrics"].health, Health::Ok);
    write_file("office-2");
    client.flush(Level::Delivered, SOON).unwrap();
    assert_eq!(office.stored().len(), 10);
    let tokens = |server: &Hostile| server.seen.lock().unwrap().tokens.iter().cloned().collect::<Vec<_>>();
    assert_eq!(tokens(&main), ["Token main-1"]);
    assert_eq!(tokens(&office), ["Token office-1", "Token office-2"]);
    client.close(SOON).unwrap();
}

#[test]
fn the_keys_of_a_target_are_read_and_the_environment_wins() {
    let yaml = "influxdb:\n  url: http://main:1\n  spool: /var/spool/gl\n  batch_size: 7\n  flush_interval: 9\n  token: main\n  \
                targets:\n    head-office:\n      url: http://a:1\n      org: o\n    b:\n      url: http://b:1\n      spool: off\n      \
                batch_size: 5\n    local:\n      url: embedded:/data\n";
    let env = |name: &str| match name {
        "GRAYLOGIC_INFLUXDB_FLUSH_INTERVAL" => Some("8".to_owned()),
        "GRAYLOGIC_INFLUXDB_TARGETS_HEAD_OFFICE_TOKEN" => Some("hunter2".to_owned()),
        "GRAYLOGIC_INFLUXDB_TARGETS_HEAD_OFFICE_BUCKET" => Some("env".to_owned()),
        "GRAYLOGIC_INFLUXDB_TARGETS_B_URL" => Some("http://env:1".to_owned()),
        "GRAYLOGIC_INFLUXDB_TARGETS_B_FLUSH_INTERVAL" => Some("3".to_owned()),
        _ => None,
    };
    let config = Config::from_yaml_with_env(yaml, env).unwrap();
    assert!(!format!("{config:?}").contains("hunter2"), "a token is never shown");
    let targets: BTreeMap<String, Config> = config.further_targets().into_iter().collect();
    let check = |name: &str, spool: Option<&str>, batch: usize, interval: u64, bucket: &str, token: bool| {
        let target = &targets[name];
        assert_eq!(target.spool_folder(), spool.map(Path::new), "{name}");
        assert_eq!(target.batch_size(), batch, "{name}");
        assert_eq!(target.flush_interval(), Duration::from_secs(interval), "{name}");
        assert_eq!((target.bucket(), target.has_token()), (bucket, token), "{name}");
    };
    check("head-office", Some("/var/spool/gl.head-office"), 7, 8, "env", true);
    check("b", None, 5, 3, "metrics", false);
    check("local", Some("/var/spool/gl.local"), 7, 8, "metrics", false);
    assert_eq!(targets["b"].target(), &graylogic_influxdb::Target::Remote("http://env:1".into()));
    assert_eq!(targets["head-office"].org(), "o");
    let wrong = |name: &str| (name == "GRAYLOGIC_INFLUXDB_TARGETS_B_BATCH_SIZE").then(|| "many".to_owned());
    assert_eq!(
        Config::from_yaml_with_env(yaml, wrong).unwrap_err().to_string(),
        "environment variable GRAYLOGIC_INFLUXDB_TARGETS_B_BATCH_SIZE is \"many\"; give a whole number of lines from 1 to 100000"
    );
    // In memory only, as the main target, unless they say otherwise.
    let off = Config::from_yaml_with_env(&yaml.replace("/var/spool/gl", "off"), env).unwrap();
    assert!(off.further_targets().iter().all(|(_, config)| config.spool_folder().is_none()));
    // The same, built.
    let built = Config::remote("http://main:1")
        .unwrap()
        .with_further_target("a", Config::remote("http://a:1").unwrap())
        .with_spool(Some("/later".into()));
    assert_eq!(built.further_targets()[0].1.spool_folder(), Some(Path::new("/later.a")));
}

#[test]
fn a_target_that_is_switched_off_is_left_out() {
    let main = server();
    let folder = tempfile::tempdir().unwrap();
    let config = remote(&main.url(), &folder.path().join("spool"))
        .with_further_target("office", further(NOWHERE).with_enabled(false));
    let client = Client::connect(&config.clone().with_route(Route::to(["office", "main"]))).unwrap();
    assert_eq!(client.targets(), ["main"]);
    write(&client, "m", 0..3);
    client.flush(Level::Delivered, SOON).unwrap();
    assert_eq!(stored(&main), lines("metrics", "m", 0..3));
    client.close(SOON).unwrap();
    let error = Client::connect(&config.with_route(Route::to(["office"]))).unwrap_err();
    assert!(error.to_string().contains("names only targets whose enabled is false"), "{error}");
}

#[test]
fn mistakes_of_targets_and_rules_are_named_with_line_and_remedy() {
    let read = |yaml: &str| {
        let error = Config::from_yaml_with_env(yaml, |_| None).map(|c| format!("{c:?}")).unwrap_err();
        assert!(error.is_invalid_config());
        error.to_string()
    };
    // Behind two targets, a and b, from line 8 on.
    let head =
        "influxdb:\n  targets:\n    a:\n      url: http://a:1\n    b:\n      url: http://b:1\n  routes:\n";
    Config::from_yaml_with_env(head, |_| None).unwrap();
    let rules = [
        (
            "    - measurement: m\n",
            "line 8: influxdb.routes, rule 1, has no destination; name its targets in to",
        ),
        (
            "    - to: main\n      mesurement: m\n",
            "line 9: influxdb.routes, rule 1: mesurement is no key; did you mean measurement?",
        ),
        (
            "    - to: []\n      class: phm\n",
            "line 8: influxdb.routes, rule 1: to names no target; readings go somewhere, if only to main",
        ),
        (
            "    - class: phm\n      to: [main, c/x]\n",
            "line 9: influxdb.routes, rule 1: to names \"c\", which is no target; the targets are main, a, b",
        ),
        (
            "    - class: phm\n      to: [a, main, a/metrics]\n",
            "line 9: influxdb.routes, rule 1: to names bucket \"metrics\" of a twice; leave one out",
        ),
        (
            "    - class: phm\n      to: [main/]\n",
            "line 9: influxdb.routes, rule 1: to names no bucket behind main/; name it, or leave out the /",
        ),
        ("    - to: 7\n", "line 8: influxdb.routes, rule 1: to is 7; give a text, in quotes"),
        (
            "    - class: power\n      to: a\n",
            "line 8: influxdb.routes, rule 1: class is \"power\"; write device, energy, phm or custom",
        ),
        (
            "    - class: phm\n      measurement: energy\n      to: a\n",
            "line 9: influxdb.routes, rule 1: measurement is \"energy\", which is no measurement of class phm; leave one out",
        ),
        (
            "    - class: custom\n      measurement: energy\n      to: a\n",
            "line 9: influxdb.routes, rule 1: measurement is \"energy\", which is no measurement of class custom; leave one out",
        ),
        (
            "    - measurement: \"a*b\"\n      to: a\n",
            "line 8: influxdb.routes, rule 1: measurement is \"a*b\"; a * stands only once, at the end",
        ),
        (
            "    - measurement: \"\"\n      to: a\n",
            "line 8: influxdb.routes, rule 1: measurement is empty; give a text, or \"*\" for any",
        ),
        (
            "    - tags: {floor: 2}\n      to: a\n",
            "line 8: influxdb.routes, rule 1: tags gives \"floor\" a value that is 2; give a text, in quotes",
        ),
        (
            "    - tags:\n        floor: \"**\"\n      to: a\n",
            "line 8: influxdb.routes, rule 1: tags gives \"floor\" a value that is \"**\"; a * stands only once, at the end",
        ),
        (
            "    - tags: [a]\n      to: a\n",
            "line 8: influxdb.routes, rule 1: tags is a list, not a section of tags",
        ),
        (
            "    - class: phm\n      to: a\n    - to: b\n    - class: energy\n      to: a\n",
            "line 10: influxdb.routes, rule 2, has no condition, so those behind it are never asked; put it last, or give it one",
        ),
        (
            "    - tags: {x: \"1\", y: \"2\"}\n      to: a\n    - to: b\n      tags: {y: \"2\", x: \"1\"}\n",
            "line 10: influxdb.routes, rule 2, asks the same as rule 1, which is first; put their destinations into one",
        ),
        ("    - a\n", "line 8: influxdb.routes, rule 1, is \"a\", not a section with keys"),
    ];
    for (rule, expected) in rules {
        assert_eq!(read(&format!("{head}{rule}")), format!("configuration, {expected}"), "{rule}");
    }
    let others = [
        ("  routes: main\n", "line 2: influxdb.routes is \"main\", not a list of rules"),
        (
            "  targets: [a]\n",
            "line 2: influxdb.targets is a list, not a section with a section for each target",
        ),
        ("  targets:\n    a:\n", "line 3: influxdb.targets.a is empty, not a section with keys"),
        (
            "  targets:\n    a: {org: x}\n",
            "line 3: influxdb.targets.a has no url; write where its readings go",
        ),
        (
            "  targets:\n    main:\n      url: http://a:1\n",
            "line 3: influxdb.targets.main is the target of the section influxdb itself; give it another name",
        ),
        (
            "  targets:\n    Büro:\n      url: http://a:1\n",
            "line 3: influxdb.targets.Büro has a name that cannot be; use 1 to 32 of a-z, 0-9, - and _",
        ),
        (
            "  targets:\n    a-b:\n      url: http://a:1\n    a_b:\n      url: http://a:1\n",
            "line 5: influxdb.targets.a_b has the name of \"a-b\", but for - and _; give it another",
        ),
        (
            "  batch_size: 5\n  targets:\n    a:\n      url: http://a:1\n      batch_size: 0\n",
            "line 6: influxdb.targets.a.batch_size is 0; give a whole number of lines from 1 to 100000",
        ),
        (
            "  targets:\n    a:\n      url: http://a:1\n      buckets: x\n",
            "line 5: influxdb.targets.a.buckets is no key; did you mean bucket?",
        ),
        (
            "  targets:\n    a:\n      url: http://a:1\n      routes: []\n",
            "line 5: influxdb.targets.a.routes is no key of a further target; there is one influxdb.routes for all of them",
        ),
        (
            "  targets:\n    a:\n      url: embedded:graylogic-data\n",
            "line 3: influxdb.targets.a has the store of main in its url; give each a folder of its own",
        ),
        (
            "  targets:\n    a:\n      url: http://a:1\n      spool: ./s\n    b:\n      url: http://a:1\n      spool: s/\n",
            "line 6: influxdb.targets.b has the spool of a; give each a folder of its own",
        ),
        (
            "  url: http://m:1\n  spool: s\n  targets:\n    a:\n      url: http://a:1\n      spool: s\n",
            "line 5: influxdb.targets.a has the spool of main; give each a folder of its own",
        ),
        (
            "  url: http://m:1\n  targets:\n    vm-query:\n      url: http://a:1\n    vm:\n      url: http://b:1\n",
            "line 4: influxdb.targets.vm-query shares a variable of the environment with \"vm\"; give it another name",
        ),
        ("  target:\n", "line 2: influxdb.target is no key; did you mean targets?"),
    ];
    for (yaml, expected) in others {
        let yaml = format!("influxdb:\n{yaml}");
        assert_eq!(read(&yaml), format!("configuration, {expected}"), "{yaml}");
    }
    let token = read("influxdb:\n  targets:\n    a:\n      url: http://a:1\n      token: [hunter2]\n");
    assert!(!token.contains("hunter2"), "{token}");
    let many: String = (0..17).map(|i| format!("    t{i}:\n      url: http://a:1\n")).collect();
    assert_eq!(
        read(&format!("influxdb:\n  targets:\n{many}")),
        "configuration, line 2: influxdb.targets are 17; a client has at most 16 besides main"
    );
}
