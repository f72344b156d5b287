//! Writes one data set through the client to a server on this machine and to an embedded store, puts the same typed questions
//! to both, and compares the answers: `cargo xtask campaign` does, with the servers it can start. Ends with an error when
//! one differs.
//!
//! ```text
//! cargo run --example typed_answers -- http://127.0.0.1:8086
//! cargo run --example typed_answers -- http://127.0.0.1:8428
//! ```
//! The bucket is `typed_answers`, made when it is not there; the organisation `GRAYLOGIC_INFLUXDB_ORG`, the token
//! `GRAYLOGIC_INFLUXDB_TOKEN`. Names of measurements are new in each run, so that it can be run again.

use graylogic_influxdb::{
    Aggregate, Client, Config, Error, FieldValue, Fill, Level, Point, Query, QuerySeries, ServerKind,
    Timestamp, Value,
};
use std::io::Write;
use std::time::{Duration, Instant};

type Failure = Box<dyn std::error::Error + Send + Sync>;

const BUCKET: &str = "typed_answers";
const SECOND: i64 = 1_000_000_000;
/// How long the server may take to show what it was sent.
const SHOWN_WITHIN: Duration = Duration::from_secs(60);
fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [url] = &arguments[..] else { return Err("usage: typed_answers URL".into()) };
    let variable = |name: &str| std::env::var(name).unwrap_or_default();
    let config = Config::remote(url)?
        .with_bucket(BUCKET)
        .with_org(variable("GRAYLOGIC_INFLUXDB_ORG"))
        .with_token(variable("GRAYLOGIC_INFLUXDB_TOKEN"))
        .with_create_buckets(true)
        .with_spool(None);
    let kind = Client::preflight(&config)?.server_kind().ok_or("the server does not show what it is")?;
    let server = Client::connect(&config)?;
    let folder = tempfile::tempdir()?;
    let store = Client::connect(&Config::embedded(folder.path()).with_bucket(BUCKET))?;

    let now = Timestamp::now().as_nanos();
    let data = DataSet {
        first: now - now % (60 * SECOND) - 7200 * SECOND,
        now: now - now % SECOND,
        run: now / 1_000_000,
    };
    for point in data.points() {
        server.write_point(&point)?;
        if let Some(held) = held(&point, kind) {
            store.write_point(&held)?;
        }
    }
    for client in [&server, &store] {
        client.flush(Level::Delivered, Duration::from_secs(60))?;
    }

    let (mut differ, mut values) = (0, 0);
    let questions = data.questions();
    for (number, (name, query)) in questions.iter().enumerate() {
        let expected = store.ask(query);
        values += expected.iter().flatten().map(|s| s.values.len()).sum::<usize>();
        // Some servers show what they took a little later.
        let patience = Instant::now() + if number == 0 { SHOWN_WITHIN } else { Duration::ZERO };
        let problem = loop {
            let problem = difference(&expected, &server.ask(query));
            if problem.is_none() || Instant::now() >= patience {
                break problem;
            }
            std::thread::sleep(Duration::from_millis(200));
        };
        if let Some(problem) = problem {
            differ += 1;
            say(&format!("{name}: {problem}"))?;
        }
    }
    say(&format!("{kind}: {} questions, {values} values, {differ} answers differ", questions.len()))?;
    store.close(Duration::from_secs(10))?;
    server.close(Duration::from_secs(10))?;
    if differ > 0 { Err("the server and the store answer differently".into()) } else { Ok(()) }
}

fn say(what: &str) -> std::io::Result<()> {
    std::io::stdout().lock().write_all(format!("{what}\n").as_bytes())
}

/// Readings of two hours, to the second before now.
struct DataSet {
    /// A whole minute, in nanoseconds.
    first: i64,
    /// A whole second.
    now: i64,
    /// Part of the names of this run.
    run: i64,
}

/// Ids that would do something else if they were interpreted.
const ODD_IDS: [&str; 10] = [
    "Küche 1",
    "a\\b",
    "${x}",
    "it's",
    "say \"hi\"",
    "\" or true or \"",
    "'; DROP MEASUREMENT energy; --",
    "hvac.*",
    "a,b=c d",
    "日本|.+",
];

impl DataSet {
    fn name(&self, name: &str) -> String {
        format!("t{}_{name}", self.run)
    }

    fn point(&self, measurement: &str, tags: &[(&str, &str)], seconds: i64) -> Point {
        let point = tags.iter().fold(Point::new(self.name(measurement)), |p, (k, v)| p.tag(*k, *v));
        point.timestamp(self.at(seconds))
    }

    /// So many seconds after the first reading.
    fn at(&self, seconds: i64) -> Timestamp {
        Timestamp::from_nanos(self.first + seconds * SECOND)
    }

    fn points(&self) -> Vec<Point> {
        let mut points = Vec::new();
        for n in 0..120 {
            let watts = 100.0 + (f64::from(n) * 7.3) % 11.0;
            let seconds = i64::from(n) * 60;
            // With gaps, and not on the minute.
            if n % 17 != 3 && !(40..55).contains(&n) {
                let tags = [("device_id", "hvac-main"), ("room", "attic")];
                points.push(self.point("energy", &tags, seconds + 7).field("power_watts", watts));
            }
            let main = self.point("energy", &[("device_id", "hvac-main")], seconds + 1);
            points.push(main.field("energy_kwh", 1500.0 + f64::from(n) / 8.0).field("power_watts", -watts));
            if n % 4 == 0 {
                let device = self.point("device", &[("device_id", "light"), ("room", "bath")], seconds);
                let device = device.field("level", i64::from(n * 37 % 101) - 50).field("on", n % 3 == 0);
                points.push(device.field("state", if n % 8 == 0 { "idle" } else { "it's \"on\" \\ ${x}" }));
                let both = self.point("device", &[("room", "kitchen")], seconds + 30);
                points
                    .push(both.field("level", 9_007_199_254_740_000_i64 + i64::from(n)).field("temp", 20.5));
            }
            if n % 10 == 0 {
                points.push(self.point("plain", &[], seconds).field("value", f64::from(n)));
            }
        }
        for (i, id) in ODD_IDS.iter().enumerate() {
            for n in 0..3 {
                let odd = self.point("odd", &[("device_id", id)], i64::try_from(i).unwrap_or(0) + n * 100);
                points.push(odd.field("v", i as f64 + 0.1));
            }
        }
        let tags = [("odd key", "1"), ("größe", "xl"), ("a=b,c", "d"), ("wei\\rd", "w"), ("floor", "high")];
        for (n, tags) in [(0, &tags[..]), (60, &tags[..2]), (120, &tags[4..])] {
            let names = self.point("odd name.x-y", tags, n);
            points.push(names.field("v 1", 1.5).field("level", n as f64).field("höhe", 2.5));
        }
        // More than a server or a client handles at once.
        for n in 0..25_000 {
            let time = Timestamp::from_nanos(self.first + n * (SECOND / 4));
            let many =
                Point::new(self.name("many")).tag("device_id", "meter").field("v", (n % 1009) as f64 / 8.0);
            points.push(many.timestamp(time));
        }
        for (n, seconds) in [0, 1, 2, 4].into_iter().enumerate() {
            let fresh = Point::new(self.name("fresh")).tag("device_id", "new").field("v", 0.1 + n as f64);
            points.push(
                fresh.timestamp(Timestamp::from_nanos(self.now - (6 - seconds) * SECOND + 999_000_000)),
            );
        }
        points
    }

    fn questions(&self) -> Vec<(String, Query)> {
        let all = |measurement: &str| {
            Query::measurement(self.name(measurement)).range(self.at(-3600), self.at(10_000))
        };
        let power = || all("energy").field("power_watts");
        let minutes = |n: u64| Duration::from_secs(n * 60);
        let mean = Aggregate::Mean;
        let cut = |q: Query| q.range(self.at(333), self.at(5001));
        let mut questions: Vec<(String, Query)> = vec![
            ("newest fresh readings".into(), all("fresh")),
            (
                "seconds of fresh readings".into(),
                all("fresh").window(Duration::from_secs(1)).aggregate(Aggregate::Last),
            ),
            (
                "half seconds of fresh readings".into(),
                all("fresh").window(Duration::from_millis(500)).aggregate(Aggregate::Sum),
            ),
            ("latest fresh".into(), all("fresh").latest()),
            ("readings of a field".into(), power()),
            ("readings of all fields".into(), all("energy")),
            ("readings of several types".into(), all("device")),
            ("readings without tags".into(), all("plain")),
            ("readings of a part".into(), cut(power())),
            ("readings of a part by a millisecond".into(), power().range(self.at(61), self.at(127))),
            ("oldest readings".into(), power().limit(3)),
            ("newest readings".into(), power().descending().limit(3)),
            ("newest readings of all fields".into(), all("device").descending().limit(2)),
            ("a tag".into(), power().tag("device_id", "hvac-main")),
            ("two tags".into(), power().tag("device_id", "hvac-main").tag("room", "attic")),
            ("without a tag".into(), power().tag("room", "")),
            ("with a tag or without".into(), power().tag_in("room", ["", "attic"])),
            ("one of several".into(), all("device").tag_in("room", ["kitchen", "bath", "none"])),
            ("no such tag".into(), power().tag("no_such_key", "x")),
            ("no such tag is empty".into(), power().tag("no_such_key", "")),
            ("no such measurement".into(), all("nothing").field("x")),
            ("no such field".into(), all("energy").field("nothing")),
            (
                "two fields".into(),
                all("energy").fields(["power_watts", "energy_kwh"]).window(minutes(10)).aggregate(mean),
            ),
            ("means of all numbers".into(), all("device").window(minutes(30)).aggregate(mean)),
            ("windows of an hour".into(), power().window(minutes(60)).aggregate(mean)),
            ("cut windows".into(), cut(power()).window(minutes(10)).aggregate(Aggregate::Sum)),
            (
                "cut windows with an offset".into(),
                cut(power()).window(minutes(10)).offset(minutes(3)).aggregate(mean),
            ),
            (
                "one window longer than all".into(),
                power().window(minutes(60 * 24 * 400)).aggregate(Aggregate::Count),
            ),
            (
                "a part of one window".into(),
                power().range(self.at(65), self.at(70)).window(minutes(5)).aggregate(mean),
            ),
            (
                "windows filled with zero".into(),
                cut(power()).window(minutes(5)).aggregate(mean).fill(Fill::Value(0.0)),
            ),
            (
                "counts filled with zero".into(),
                all("device")
                    .field("level")
                    .window(minutes(1))
                    .aggregate(Aggregate::Count)
                    .fill(Fill::Value(0.0)),
            ),
            (
                "windows filled with what was".into(),
                power()
                    .window(minutes(5))
                    .aggregate(Aggregate::Last)
                    .fill(Fill::Previous)
                    .descending()
                    .limit(9),
            ),
            (
                "windows filled with a line".into(),
                cut(power()).window(minutes(5)).aggregate(mean).fill(Fill::Linear),
            ),
            (
                "the range as one window that VictoriaMetrics cannot tell to the nanosecond".into(),
                power()
                    .range(Timestamp::from_nanos(self.at(3).as_nanos() + 1), self.at(33))
                    .aggregate(Aggregate::Max),
            ),
            ("oldest windows".into(), power().window(minutes(7)).aggregate(Aggregate::Max).limit(2)),
            (
                "newest windows".into(),
                power().window(minutes(7)).aggregate(Aggregate::Max).descending().limit(2),
            ),
            ("many windows".into(), power().window(Duration::from_secs(1)).aggregate(Aggregate::First)),
            (
                "hours of all time".into(),
                power()
                    .range(Timestamp::from_nanos(0), Timestamp::MAX)
                    .window(minutes(60))
                    .aggregate(Aggregate::Count),
            ),
            (
                "the number of readings of all time".into(),
                power().range(Timestamp::from_nanos(0), Timestamp::MAX).aggregate(Aggregate::Count),
            ),
            ("many readings".into(), all("many")),
            ("newest of many readings".into(), all("many").descending().limit(12_345)),
            (
                "windows of many readings".into(),
                all("many").window(Duration::from_millis(700)).aggregate(mean),
            ),
            ("latest of all time".into(), Query::measurement(self.name("energy")).latest()),
            ("latest of several types".into(), all("device").latest()),
            ("latest of a part".into(), cut(power()).latest()),
            ("latest with a tag".into(), all("energy").tag("room", "attic").latest()),
            ("mean of a boolean".into(), all("device").field("on").window(minutes(30)).aggregate(mean)),
            ("odd names".into(), all("odd name.x-y")),
            ("odd field".into(), all("odd name.x-y").field("v 1").window(minutes(1)).aggregate(mean)),
            (
                "odd names of tags".into(),
                all("odd name.x-y").tag("a=b,c", "d").tag("wei\\rd", "w").tag("odd key", "1"),
            ),
            ("a tag beyond ASCII".into(), all("odd name.x-y").tag("größe", "xl").field("höhe")),
            ("without a tag beyond ASCII".into(), all("odd name.x-y").tag("größe", "").latest()),
            ("all odd ids".into(), all("odd").tag_in("device_id", ODD_IDS)),
        ];
        let aggregates = [
            Aggregate::Count,
            Aggregate::Sum,
            mean,
            Aggregate::Min,
            Aggregate::Max,
            Aggregate::First,
            Aggregate::Last,
        ];
        for aggregate in aggregates {
            let of = |query: Query| cut(query).window(minutes(9)).aggregate(aggregate);
            questions.push((format!("{aggregate:?} of floats"), of(power())));
            questions.push((format!("{aggregate:?} of the range"), cut(power()).aggregate(aggregate)));
            questions.push((format!("{aggregate:?} of integers"), of(all("device").field("level"))));
            if matches!(aggregate, Aggregate::Count | Aggregate::First | Aggregate::Last) {
                questions.push((format!("{aggregate:?} of all types"), of(all("device"))));
            }
        }
        for id in ODD_IDS {
            questions.push((format!("id {id}"), all("odd").tag("device_id", id).latest()));
        }
        questions
    }
}

/// What the server keeps of a point.
fn held(point: &Point, kind: ServerKind) -> Option<Point> {
    if kind != ServerKind::VictoriaMetrics {
        return Some(point.clone());
    }
    let bare = point.tags().iter().fold(Point::new(point.measurement()), |p, (k, v)| p.tag(k, v));
    let bare = bare.timestamp(point.time()?);
    let number = |value: &FieldValue| match value {
        FieldValue::Float(v) => Some(*v),
        FieldValue::Integer(v) => Some(*v as f64),
        FieldValue::Unsigned(v) => Some(*v as f64),
        FieldValue::Boolean(v) => Some(f64::from(u8::from(*v))),
        FieldValue::String(_) => None,
    };
    Some(point.fields().iter().fold(bare, |p, (k, v)| match number(v) {
        Some(v) => p.field(k, v),
        None => p,
    }))
}

/// How an answer is not the one of the store; `None` when it is.
fn difference(
    expected: &Result<Vec<QuerySeries>, Error>,
    found: &Result<Vec<QuerySeries>, Error>,
) -> Option<String> {
    let (expected, found) = match (expected, found) {
        (Ok(expected), Ok(found)) => (expected, found),
        (Err(_), Err(_)) => return None,
        (Ok(_), Err(error)) => return Some(format!("failed: {error}")),
        (Err(error), Ok(_)) => return Some(format!("answered, but the store says: {error}")),
    };
    let names = |s: &QuerySeries| format!("{:?} {:?}", s.tags, s.field);
    let all = |of: &[QuerySeries]| of.iter().map(names).collect::<Vec<_>>();
    if all(expected) != all(found) {
        return Some(format!("the store has the series {:?}, the server {:?}", all(expected), all(found)));
    }
    for (a, b) in expected.iter().zip(found) {
        if a.values.len() != b.values.len() {
            return Some(format!(
                "{}: the store has {} values, the server {}: {:?}, {:?}",
                names(a),
                a.values.len(),
                b.values.len(),
                a.values.iter().take(5).collect::<Vec<_>>(),
                b.values.iter().take(5).collect::<Vec<_>>()
            ));
        }
        let differs = |((t, v), (u, w)): &(&(Timestamp, Value), &(Timestamp, Value))| t != u || !same(v, w);
        if let Some((a_value, b_value)) = a.values.iter().zip(&b.values).find(differs) {
            return Some(format!("{}: the store has {a_value:?}, the server {b_value:?}", names(a)));
        }
    }
    None
}

fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        // Servers add up in another order.
        (Value::Float(a), Value::Float(b)) => (a - b).abs() <= 1e-12 * a.abs().max(b.abs()),
        (a, b) => a == b,
    }
}
