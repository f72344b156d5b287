//! Manages a running server through the public calls and says what it found: `manage_servers KIND URL`, where KIND is one
//! of `influxdb1`, `influxdb2`, `influxdb3`, `victoriametrics`. The token is taken from `GRAYLOGIC_INFLUXDB_TOKEN`, the
//! organisation from `GRAYLOGIC_INFLUXDB_ORG`. It makes what it needs under names of its own, deletes it again, and ends
//! with an error when anything is not as it should be. Deleting is judged by asking the server itself, without credentials.

use graylogic_influxdb::{
    BucketUpdate, Client, Config, HealthStatus, Level, Manage, NewBucket, Point, Predicate, ServerKind,
    Timestamp,
};
use std::error::Error;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

type Done = Result<(), Box<dyn Error>>;

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);
/// Longer than VictoriaMetrics takes to put lines on its disk: they count as delivered only then.
const SOON: Duration = Duration::from_secs(90);
/// Times that every server still has: it is given a retention of for ever, or a long one.
const START_SECONDS: i64 = 1_700_000_000;

fn main() -> Done {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [kind, url] = &arguments[..] else { return Err("usage: manage_servers KIND URL".into()) };
    let bucket = format!("managed \"{}\" it's", std::process::id());
    let variable = |name: &str| std::env::var(format!("GRAYLOGIC_INFLUXDB_{name}")).unwrap_or_default();
    let config = Config::remote(url)?.with_token(variable("TOKEN")).with_org(variable("ORG"));
    let manage = Manage::connect(&config)?;

    let health = manage.health()?;
    ensure(health.status == HealthStatus::Pass, &format!("health is {health:?}"))?;
    ensure(manage.ready()?, "the server is not ready")?;
    let found = health.kind.map(ServerKind::key);
    ensure(found == Some(kind.as_str()), &format!("the server was taken for {found:?}"))?;
    say(&format!("{kind}, version {:?}, is well", manage.version()?))?;

    match kind.as_str() {
        "victoriametrics" => series(&manage, &config, &bucket)?,
        "influxdb1" => {
            // A name of InfluxDB 1 may hold quotes; one of the others may not.
            buckets(&manage, &bucket)?;
            policies(&manage, &bucket)?;
            create_on_demand(&config, &bucket)?;
            readings(&manage, &config, &bucket)?;
        }
        "influxdb2" => {
            let bucket = bucket.replace('"', "");
            buckets(&manage, &bucket)?;
            create_on_demand(&config, &bucket)?;
            manage.delete_bucket(&manage.find_bucket(&bucket)?.ok_or("the bucket was not made")?.id)?;
        }
        "influxdb3" => buckets(&manage, &format!("managed_{}", std::process::id()))?,
        other => return Err(format!("{other} is no kind of server").into()),
    }
    say("all was as it should be")
}

/// Makes, finds, lists, changes and deletes a bucket.
fn buckets(manage: &Manage, name: &str) -> Done {
    ensure(manage.find_bucket(name)?.is_none(), "there is a bucket of this name before")?;
    let made = manage.create_bucket(&NewBucket::new(name).retention(30 * DAY))?;
    ensure(made.retention == Some(30 * DAY), &format!("made as {made:?}"))?;
    let again = manage.create_bucket(&NewBucket::new(name)).err().ok_or("a bucket was made twice")?;
    ensure(again.is_exists(), &again.to_string())?;
    ensure(manage.buckets()?.iter().any(|b| b.id == made.id), "the bucket is not listed")?;
    for retention in [Some(HOUR), Some(7 * DAY), None, Some(2 * DAY)] {
        let changed = manage.update_bucket(&made.id, &BucketUpdate::new().retention(retention))?;
        ensure(changed.retention == retention, &format!("{retention:?} was made {changed:?}"))?;
        let found = manage.find_bucket(name)?.ok_or("the bucket was not found")?;
        ensure(found.retention == retention, &format!("{retention:?} was found as {found:?}"))?;
    }
    let short = BucketUpdate::new().retention(Duration::from_secs(60));
    let refused = manage.update_bucket(&made.id, &short).err();
    if let Some(error) = &refused {
        say(&format!("refused, as it should be: {error}"))?;
        ensure(error.is_refused() && !error.is_retryable(), &error.to_string())?;
    }
    manage.delete_bucket(&made.id)?;
    ensure(manage.find_bucket(name)?.is_none(), "a deleted bucket is still there")?;
    let gone = manage.delete_bucket(&made.id).err().ok_or("a bucket was deleted twice")?;
    ensure(gone.is_not_found(), &gone.to_string())?;
    say("buckets are made, found, listed, changed, refused and deleted")
}

/// The retention policies of a database of InfluxDB 1.
fn policies(manage: &Manage, database: &str) -> Done {
    let name = format!("{database}/we\"ek");
    let made = manage.create_bucket(&NewBucket::new(&name).retention(7 * DAY).shard_group_duration(DAY))?;
    ensure((made.name == name) && made.retention == Some(7 * DAY), &format!("made as {made:?}"))?;
    ensure(made.shard_group_duration == Some(DAY), &format!("made as {made:?}"))?;
    let names: Vec<String> = manage.buckets()?.into_iter().map(|b| b.name).collect();
    ensure(names.contains(&name) && names.contains(&database.to_owned()), &format!("listed {names:?}"))?;
    let changed = manage.update_bucket(&name, &BucketUpdate::new().retention(HOUR))?;
    ensure(changed.retention == Some(HOUR), &format!("changed to {changed:?}"))?;
    let all = Timestamp::MIN..Timestamp::MAX;
    let error = manage.delete(&name, &all, &Predicate::new()).err().ok_or("deleted in all policies")?;
    ensure(error.is_unsupported(), &error.to_string())?;
    manage.delete_bucket(&name)?;
    ensure(manage.find_bucket(&name)?.is_none(), "a deleted policy is still there")?;
    manage.delete_bucket(database)?;
    say("retention policies are made, listed, changed and deleted")
}

/// A bucket that is not there is made when readings are for it.
fn create_on_demand(config: &Config, bucket: &str) -> Done {
    let config = config.clone().with_spool(None).with_bucket(bucket).with_create_buckets(true);
    let client = Client::connect(&config.with_quick_batches(1, Duration::ZERO))?;
    client.write_device_metric("lamp", "level", 1.0)?;
    client.flush(Level::Delivered, SOON)?;
    let made = client.manage().find_bucket(bucket)?.ok_or("the bucket was not made on demand")?;
    ensure(made.retention.is_none(), &format!("made on demand as {made:?}"))?;
    let report = client.close(SOON)?;
    ensure(report.delivered == 1, &format!("{report:?}"))?;
    say("a missing bucket is made when readings are for it")
}

/// Readings of three rooms, at three times each.
fn write(config: &Config, bucket: &str) -> Done {
    let config = config.clone().with_spool(None).with_bucket(bucket).with_quick_batches(100, Duration::ZERO);
    let client = Client::connect(&config)?;
    for room in ["kitchen", "it's \"cold\"", "c\\d"] {
        for second in 0..3 {
            let time = Timestamp::from_nanos((START_SECONDS + second) * 1_000_000_000);
            let point = Point::new("climate").tag("room-nr", room).field("temp", second as f64);
            client.write_point_at(&point, time)?;
        }
    }
    client.flush(Level::Delivered, SOON)?;
    client.close(SOON)?;
    Ok(())
}

/// Deleting from InfluxDB 1 by time and tags.
fn readings(manage: &Manage, config: &Config, bucket: &str) -> Done {
    write(config, bucket)?;
    let left = |expected: usize| -> Done {
        let question = "SELECT room_nr, temp FROM climate".replace("room_nr", "\"room-nr\"");
        let target = format!("/query?db={}&q={}&epoch=s", escaped(bucket), escaped(&question));
        let answer = get(config, &target)?;
        let found = answer.matches("[17000000").count();
        ensure(found == expected, &format!("{found} readings are left, not {expected}: {answer}"))
    };
    let time = |second: i64| Timestamp::from_nanos((START_SECONDS + second) * 1_000_000_000);
    let all = Timestamp::MIN..Timestamp::MAX;
    let climate = || Predicate::new().measurement("climate");
    left(9)?;
    manage.delete(bucket, &(time(0)..time(0)), &climate())?;
    manage.delete(bucket, &all, &climate().tag("room-nr", "nobody"))?;
    manage.delete(bucket, &all, &Predicate::new().measurement("nothing"))?;
    left(9)?;
    // The end stays.
    manage.delete(bucket, &(time(0)..time(2)), &climate().tag("room-nr", "it's \"cold\""))?;
    left(7)?;
    manage.delete(bucket, &(time(2)..time(3)), &climate().tag_not("room-nr", "c\\d"))?;
    left(5)?;
    manage.delete(bucket, &all, &Predicate::new().tag("room-nr", "c\\d"))?;
    left(2)?;
    manage.delete(bucket, &all, &Predicate::new())?;
    left(0)?;
    manage.delete_bucket(bucket)?;
    say("readings are deleted by measurement, tags and time")
}

/// Deleting whole series from VictoriaMetrics.
fn series(manage: &Manage, config: &Config, bucket: &str) -> Done {
    for error in [manage.buckets().err(), manage.create_bucket(&NewBucket::new("x")).err()] {
        ensure(error.is_some_and(|e| e.is_unsupported()), "VictoriaMetrics has buckets")?;
    }
    write(config, bucket)?;
    write(config, "another")?;
    let left = |expected: usize| -> Done {
        let until = Instant::now() + SOON;
        loop {
            // What was just written shows a little later.
            get(config, "/internal/force_flush")?;
            let target = format!("/api/v1/export?match[]={}", escaped("{__name__=\"climate_temp\"}"));
            let answer = get(config, &target)?;
            let found = answer.matches("\"__name__\"").count();
            if found == expected {
                return Ok(());
            }
            if Instant::now() > until {
                return Err(format!("{found} series are left, not {expected}: {answer}").into());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    let all = Timestamp::MIN..Timestamp::MAX;
    left(6)?;
    let some = Timestamp::MIN..Timestamp::from_nanos(0);
    let error = manage.delete(bucket, &some, &Predicate::new()).err().ok_or("deleted a range of time")?;
    ensure(error.is_unsupported(), &error.to_string())?;
    let climate = || Predicate::new().measurement("climate").field("temp");
    manage.delete(bucket, &all, &climate().tag("room-nr", "nobody"))?;
    left(6)?;
    manage.delete(bucket, &all, &climate().tag("room-nr", "it's \"cold\""))?;
    left(5)?;
    manage.delete(bucket, &all, &climate().tag_not("room-nr", "c\\d"))?;
    left(4)?;
    manage.delete(bucket, &all, &Predicate::new())?;
    left(3)?;
    manage.delete("another", &all, &Predicate::new())?;
    left(0)?;
    say("series are deleted by name and labels")
}

/// Asks the server itself, past the client.
fn get(config: &Config, target: &str) -> Result<String, Box<dyn Error>> {
    let graylogic_influxdb::Target::Remote(url) = config.target() else { return Err("no server".into()) };
    let host = url.trim_start_matches("http://").trim_end_matches('/');
    let mut stream = TcpStream::connect(host)?;
    stream.set_read_timeout(Some(SOON))?;
    write!(stream, "GET {target} HTTP/1.0\r\nHost: {host}\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("no answer")?;
    ensure(head.contains(" 200 ") || head.contains(" 204 "), head)?;
    Ok(body.to_owned())
}

fn escaped(text: &str) -> String {
    text.bytes().map(|b| format!("%{b:02X}")).collect()
}

fn ensure(holds: bool, otherwise: &str) -> Done {
    if holds { Ok(()) } else { Err(otherwise.to_owned().into()) }
}

fn say(words: &str) -> Done {
    Ok(writeln!(std::io::stdout(), "{words}")?)
}
