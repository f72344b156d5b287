//! What the client tells a program's `tracing` subscriber, which there is one of in a process: each request, what goes wrong,
//! and never a secret.
#![allow(clippy::unwrap_used, missing_docs, unreachable_pub)]

#[allow(dead_code, reason = "each test uses a part of it")]
mod hostile;

use graylogic_influxdb::{Client, Config, Level, Manage, Query, Timestamp};
use hostile::{Hostile, answer, message};
use std::fmt::{Debug, Write as _};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

const SOON: Duration = Duration::from_secs(30);
const SECRETS: [&str; 3] = ["a-very-secret-token", "another-secret-token", "a-secret-header"];

/// Keeps every event as one line.
struct Keeps;

static EVENTS: Mutex<Vec<String>> = Mutex::new(Vec::new());
static SPANS: AtomicU64 = AtomicU64::new(1);

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let _infallible = write!(self.0, " {}={value:?}", field.name());
    }
}

impl Subscriber for Keeps {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }
    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let mut line = Line(span.metadata().target().to_owned());
        span.record(&mut line);
        EVENTS.lock().unwrap().push(line.0);
        Id::from_u64(SPANS.fetch_add(1, Ordering::Relaxed))
    }
    fn record(&self, _: &Id, values: &Record<'_>) {
        let mut line = Line(String::new());
        values.record(&mut line);
        EVENTS.lock().unwrap().push(line.0);
    }
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, event: &Event<'_>) {
        let mut line = Line(format!("{} {}", event.metadata().level(), event.metadata().target()));
        event.record(&mut line);
        EVENTS.lock().unwrap().push(line.0);
    }
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

/// Whether one event has all of these in it.
fn told(parts: &[&str]) -> bool {
    EVENTS.lock().unwrap().iter().any(|line| parts.iter().all(|part| line.contains(part)))
}

fn comes(what: impl Fn() -> bool) -> bool {
    (0..3000).any(|_| {
        std::thread::sleep(Duration::from_millis(10));
        what()
    })
}

#[test]
fn requests_and_troubles_are_told_and_no_secret_is() {
    tracing::subscriber::set_global_default(Keeps).unwrap();
    let judged = |request: &hostile::Request| {
        let refused = || (message("401 Unauthorized", "unauthorized access"), Vec::new());
        (request.token.as_deref() != Some("Token a-very-secret-token")).then(refused)
    };
    let server = Hostile::judging(judged);
    *server.ping.lock().unwrap() = Some(answer("204 No Content", "X-Influxdb-Version: v2.8.0\r\n", ""));
    let folder = tempfile::tempdir().unwrap();
    let config = |token: &str, spool: &str| {
        Config::remote(&server.url())
            .unwrap()
            .with_bucket("house")
            .with_token(token)
            .with_header("X-Site", "a-secret-header")
            .unwrap()
            .with_spool(Some(folder.path().join(spool)))
            .with_hurry(20)
            .with_quick_batches(10, Duration::from_millis(1))
    };
    let client = Client::connect(&config("a-very-secret-token", "good")).unwrap();
    client.write_energy_metric("hvac", 450.0, None).unwrap();
    client.flush(Level::Delivered, SOON).unwrap();
    assert!(told(&[
        "DEBUG graylogic_influxdb",
        "a request was answered",
        "POST",
        "path=\"/api/v2/write\"",
        "status=204"
    ]));
    assert!(told(&["the server was recognised", "InfluxDB 2 (2.8.0)"]));
    // A server that answers a question with nothing, and one that is asked what it has not.
    let range = Query::measurement("energy").range(Timestamp::from_nanos(0), Timestamp::MAX);
    assert!(client.ask(&range).is_err());
    assert!(Manage::connect(&config("another-secret-token", "asks")).unwrap().buckets().is_err());
    client.close(SOON).unwrap();

    let held = Client::connect(&config("another-secret-token", "held")).unwrap();
    held.write_energy_metric("hvac", 450.0, None).unwrap();
    assert!(comes(|| told(&["WARN", "readings are pending", "401", "house"])));
    held.close(Duration::ZERO).unwrap();

    let gone = config("another-secret-token", "gone");
    drop(server);
    let client = Client::connect(&gone).unwrap();
    client.write_energy_metric("hvac", 450.0, None).unwrap();
    assert!(comes(|| told(&["a request was not answered", "error="])));
    client.close(Duration::ZERO).unwrap();

    let events = EVENTS.lock().unwrap();
    // Also those of the libraries below, when somebody wants to hear everything.
    assert!(events.iter().any(|line| !line.contains("graylogic")), "{events:#?}");
    for secret in SECRETS {
        let shown: Vec<&String> = events.iter().filter(|line| line.contains(secret)).collect();
        assert!(shown.is_empty(), "{shown:#?}");
    }
}
