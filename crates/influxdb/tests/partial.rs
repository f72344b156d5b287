//! A server that takes a part of what it is sent and names no line, as InfluxDB 1 and 2 do: it writes shard by shard, tells
//! the first reason of the first shard that drops something, and how many points that shard dropped.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

#[allow(dead_code, unreachable_pub)]
mod hostile;

use graylogic_influxdb::{Client, Config, FieldValue, Level, Point, Timestamp, WriteErrorKind};
use graylogic_line::{ParseOptions, Parser, Precision};
use hostile::{Hostile, Request, message};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const HOUR: i64 = 3_600_000_000_000;
/// Where the data begin.
const BASE: i64 = 1_772_409_600_000_000_000;
const SOON: Duration = Duration::from_secs(60);

/// The types of fields, by the start of the shard.
type Types = HashMap<(i64, String, String), &'static str>;

/// Writes a request, and answers. Points before `oldest` are too old, unless another opens their shard.
fn write(request: &Request, types: &mut Types, oldest: i64) -> Option<(String, Vec<String>)> {
    let points: Vec<(Point, &String)> = request
        .lines
        .iter()
        .map(|line| {
            let options = ParseOptions::new(Precision::Nanoseconds, Timestamp::MIN);
            (Parser::new(line.as_bytes(), options).next_line().unwrap().unwrap().to_point(), line)
        })
        .collect();
    let shard_of = |point: &Point| point.time().unwrap().as_nanos().div_euclid(HOUR);
    let is_young = |point: &Point| point.time().unwrap().as_nanos() >= oldest;
    let opened: BTreeSet<i64> =
        points.iter().filter(|(p, _)| is_young(p)).map(|(p, _)| shard_of(p)).collect();
    let (fit, old): (Vec<_>, Vec<_>) = points.into_iter().partition(|(p, _)| opened.contains(&shard_of(p)));
    let mut shards: BTreeMap<i64, Vec<(Point, &String)>> = BTreeMap::new();
    fit.into_iter().for_each(|(p, line)| shards.entry(shard_of(&p)).or_default().push((p, line)));
    let mut kept = Vec::new();
    let mut first: Option<(String, usize)> = None;
    for (shard, points) in shards {
        let mut failed: Option<(String, usize)> = None;
        for (point, line) in points {
            let measurement = point.measurement().to_owned();
            let key = |field: &str| (shard, measurement.clone(), field.to_owned());
            let conflict = point.fields().iter().find_map(|(field, value)| {
                let (is, there) = (type_of(value), types.get(&key(field))?);
                (is != *there).then(|| {
                    format!(
                        "field type conflict: input field \"{field}\" on measurement \"{measurement}\" is type {is}, already \
                         exists as type {there}"
                    )
                })
            });
            match conflict {
                Some(reason) => failed.get_or_insert((reason, 0)).1 += 1,
                None => {
                    point.fields().iter().for_each(|(field, value)| {
                        types.entry(key(field)).or_insert_with(|| type_of(value));
                    });
                    kept.push(line.clone());
                }
            }
        }
        first = first.or(failed);
    }
    if first.is_none() && !old.is_empty() {
        let times = || old.iter().map(|(p, _)| p.time().unwrap());
        let bound = "dropped because it violates a Retention Policy Lower Bound at 2026-03-02T00:00:00Z";
        let reason = format!(
            "dropped {} points outside retention policy of duration 24h0m0s - oldest point m at {} {bound}, newest point m at {} \
             {bound}",
            old.len(),
            times().min().unwrap(),
            times().max().unwrap()
        );
        first = Some((reason, old.len()));
    }
    let (reason, count) = first?;
    let text = format!("failure writing points to database: partial write: {reason} dropped={count}");
    Some((message("422 Unprocessable Entity", &text), kept))
}

fn type_of(value: &FieldValue) -> &'static str {
    match value {
        FieldValue::Float(_) => "float",
        FieldValue::Integer(_) => "integer",
        FieldValue::Unsigned(_) => "unsigned",
        FieldValue::Boolean(_) => "boolean",
        _ => "string",
    }
}

/// Writes points; what the server has, what the client told of, and how many lines were sent again.
fn sent(points: &[Point], oldest: i64, batch: usize) -> (BTreeSet<String>, BTreeSet<String>, usize) {
    let types: Mutex<Types> = Mutex::default();
    let sent = Arc::new(Mutex::new(0));
    let counted = sent.clone();
    let server = Hostile::judging(move |request| {
        *counted.lock().unwrap() += request.lines.len();
        write(request, &mut types.lock().unwrap(), oldest)
    });
    let folder = tempfile::tempdir().unwrap();
    let config = Config::remote(&server.url())
        .unwrap()
        .with_token("secret")
        .with_spool(Some(folder.path().to_owned()))
        .with_quick_batches(batch, Duration::from_millis(20));
    let client = Client::connect(&config).unwrap();
    let told: Arc<Mutex<u64>> = Arc::default();
    let heard = told.clone();
    client.set_on_error(move |e| {
        if e.kind == WriteErrorKind::Rejected {
            *heard.lock().unwrap() += e.lines;
        }
    });
    points.iter().for_each(|point| client.write_point(point).unwrap());
    client.flush(Level::Delivered, SOON).unwrap();
    client.close(SOON).unwrap();
    let spool = graylogic_durable::Spool::open(Arc::new(graylogic_durable::RealDisk), folder.path()).unwrap();
    let dead =
        spool.lane(config.bucket(), graylogic_durable::LaneOptions::default()).unwrap().0.dead().unwrap();
    let refused: BTreeSet<String> =
        dead.iter().map(|d| String::from_utf8_lossy(&d.line).trim_end().to_owned()).collect();
    assert_eq!(*told.lock().unwrap() as usize, refused.len());
    let again = *sent.lock().unwrap() - points.len();
    (server.stored().into_iter().collect(), refused, again)
}

fn line(point: &Point) -> String {
    let mut bytes = Vec::new();
    graylogic_line::Encoder::new(graylogic_line::Dialect::default()).encode(point, &mut bytes).unwrap();
    String::from_utf8(bytes).unwrap().trim_end().to_owned()
}

fn at(time: i64) -> Point {
    Point::new("m").tag("d", "a b").timestamp(Timestamp::from_nanos(BASE + time))
}

#[test]
fn lines_of_another_type_are_found_without_sending_one_again() {
    let points: Vec<Point> = (0..2000)
        .map(|i| match i % 100 {
            17 => at(i).field("f", "text"),
            60 if i > 100 => at(i).field("f", true).field("g", 1.0),
            _ => at(i).field("f", i as f64),
        })
        .collect();
    let bad: BTreeSet<String> = points
        .iter()
        .enumerate()
        .filter(|(i, _)| i % 100 == 17 || (i % 100 == 60 && *i > 100))
        .map(|(_, p)| line(p))
        .collect();
    let (stored, refused, again) = sent(&points, i64::MIN, 100);
    assert_eq!(refused, bad);
    assert_eq!(stored.len(), points.len() - bad.len());
    assert_eq!(again, 0);
}

#[test]
fn lines_that_are_too_old_are_found_without_sending_one_again() {
    // As after an outage that was longer than the bucket keeps readings.
    let points: Vec<Point> = (0..2000).map(|i| at(i * HOUR / 200).field("f", i as f64)).collect();
    let (stored, refused, again) = sent(&points, BASE + 5 * HOUR, 500);
    assert_eq!(refused, points[..1000].iter().map(line).collect());
    assert_eq!((stored.len(), again), (1000, 0));
}

#[test]
fn whatever_a_part_is_taken_of_each_line_is_stored_or_told() {
    let mut dice = 0x9E37_79B9_7F4A_7C15_u64;
    let mut roll = |n: u64| {
        dice ^= dice << 13;
        dice ^= dice >> 7;
        dice ^= dice << 17;
        dice % n
    };
    for round in 0..60 {
        let (spread, bad_in) = ([1, HOUR / 2000, HOUR / 20][round % 3], [3, 30, 200][round / 3 % 3]);
        let points: Vec<Point> = (0..400)
            .map(|i| {
                let point = at(i * spread).tag("n", roll(3).to_string());
                let n = roll(3) as usize;
                let (field, other) = (["f", "g", "h"][n], ["g", "h", "f"][n]);
                match roll(bad_in) {
                    0 => point.field(field, "text"),
                    1 => point.field(field, 1_i64).field(other, 1.5),
                    2 => point.field(field, false),
                    _ => point.field(field, 1.5).field(other, 2.5),
                }
            })
            .collect();
        let (stored, refused, _) = sent(&points, i64::MIN, [50, 400][round % 2]);
        let all: BTreeSet<String> = points.iter().map(line).collect();
        assert_eq!(
            stored.union(&refused).cloned().collect::<BTreeSet<_>>(),
            all,
            "round {round}: lost in silence"
        );
        let both = stored.intersection(&refused).count();
        assert_eq!(both, 0, "round {round}: told, and stored all the same");
        assert!(refused.len() < 400);
    }
}
