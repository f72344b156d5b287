//! InfluxDB 1 is managed by statements of InfluxQL: databases and their retention policies, which are its buckets.
//!
//! Source: the program InfluxDB 1.6.

use super::bucket::{Bucket, BucketUpdate, NewBucket, default_shard_group};
use super::server::{Server, seconds, unsupported};
use crate::error::{Error, Kind};
use crate::server::dialect::database;
use crate::server::exchange::{Method, Request};
use crate::server::kind::ServerKind;
use crate::server::outcome::shortened;
use serde_json::Value;
use std::time::Duration;

/// A retention policy of a database.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Policy {
    name: String,
    /// `None`: for ever.
    retention: Option<Duration>,
    shard_group: Option<Duration>,
    is_default: bool,
}

pub(super) async fn buckets(server: &Server, doing: &str) -> Result<Vec<Bucket>, Error> {
    let mut found = Vec::new();
    for row in rows(&run(server, doing, "SHOW DATABASES", None).await?) {
        let Some(name) = row.first().and_then(Value::as_str) else { return Err(server.garbled(doing)) };
        match policies(server, doing, name).await {
            Ok(all) => found.extend(all.iter().map(|policy| bucket(name, policy, policy.is_default))),
            // It was dropped since.
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

pub(super) async fn find(server: &Server, doing: &str, name: &str) -> Result<Option<Bucket>, Error> {
    let (db, wanted) = database(name);
    let all = match policies(server, doing, db).await {
        Ok(all) => all,
        Err(error) if error.is_not_found() => return Ok(None),
        Err(error) => return Err(error),
    };
    Ok(policy(&all, wanted).map(|policy| bucket(db, policy, wanted.is_none())))
}

pub(super) async fn create(server: &Server, doing: &str, new: &NewBucket) -> Result<Bucket, Error> {
    if new.description.is_some() {
        return Err(unsupported(doing, ServerKind::InfluxDb1, "has no descriptions of databases"));
    }
    let (db, wanted) = database(&new.name);
    let there = match policies(server, doing, db).await {
        Ok(all) => Some(all),
        Err(error) if error.is_not_found() => None,
        Err(error) => return Err(error),
    };
    // The server would say that it has made what was there already.
    if there.as_ref().is_some_and(|all| wanted.is_none() || policy(all, wanted).is_some()) {
        return Err(Error::new(Kind::Exists, format!("{doing}: there is one with this name")));
    }
    let quoted = identifier(db);
    let lengths = lengths(doing, new.retention.map(Some), new.shard_group)?;
    match wanted {
        None if lengths.is_empty() => {
            run(server, doing, &format!("CREATE DATABASE {quoted}"), None).await?;
        }
        None => {
            run(server, doing, &format!("CREATE DATABASE {quoted} WITH{lengths}"), None).await?;
        }
        Some(policy) => {
            if there.is_none() {
                run(server, doing, &format!("CREATE DATABASE {quoted}"), None).await?;
            }
            let retention = length(doing, "the retention", new.retention)?;
            let shard = match new.shard_group {
                None => String::new(),
                some => format!(" SHARD DURATION {}", length(doing, "the length of a shard group", some)?),
            };
            let policy = identifier(policy);
            let statement = format!(
                "CREATE RETENTION POLICY {policy} ON {quoted} DURATION {retention} REPLICATION 1{shard}"
            );
            run(server, doing, &statement, None).await?;
        }
    }
    find(server, doing, &new.name).await?.ok_or_else(|| server.garbled(doing))
}

pub(super) async fn update(
    server: &Server,
    doing: &str,
    id: &str,
    update: &BucketUpdate,
) -> Result<Bucket, Error> {
    if update.name.is_some() || update.description.is_some() {
        let lacks = "has neither other names for databases nor descriptions of them";
        return Err(unsupported(doing, ServerKind::InfluxDb1, lacks));
    }
    let there = there(server, doing, id).await?;
    let lengths_now = lengths(doing, update.retention, update.shard_group)?;
    if lengths_now.is_empty() {
        return find(server, doing, id).await?.ok_or_else(|| server.garbled(doing));
    }
    let (db, _) = database(id);
    let (policy, db) = (identifier(&there.name), identifier(db));
    let statement = format!("ALTER RETENTION POLICY {policy} ON {db}{lengths_now}");
    match (run(server, doing, &statement, None).await, update.retention) {
        (Err(error), Some(Some(retention)))
            if update.shard_group.is_none() && error.to_string().contains("shard duration") =>
        {
            let lengths = lengths(doing, update.retention, Some(default_shard_group(retention)))?;
            let statement = format!("ALTER RETENTION POLICY {policy} ON {db}{lengths}");
            run(server, doing, &statement, None).await?;
        }
        (done, _) => drop(done?),
    }
    find(server, doing, id).await?.ok_or_else(|| server.garbled(doing))
}

pub(super) async fn delete(server: &Server, doing: &str, id: &str) -> Result<(), Error> {
    // Dropping what is not there is a success for the server.
    there(server, doing, id).await?;
    let (db, wanted) = database(id);
    let db = identifier(db);
    let statement = match wanted {
        None => format!("DROP DATABASE {db}"),
        Some(policy) => format!("DROP RETENTION POLICY {} ON {db}", identifier(policy)),
    };
    run(server, doing, &statement, None).await.map(drop)
}

/// Deletes readings; `rest` is what follows `DELETE`.
pub(super) async fn delete_readings(
    server: &Server,
    doing: &str,
    bucket: &str,
    rest: &str,
) -> Result<(), Error> {
    let there = there(server, doing, bucket).await?;
    let (db, _) = database(bucket);
    let all = policies(server, doing, db).await?;
    if all.iter().any(|policy| policy.name != there.name) {
        let lacks = "deletes in all retention policies of a database at once, and this one has others";
        return Err(unsupported(doing, ServerKind::InfluxDb1, lacks));
    }
    run(server, doing, &format!("DELETE{rest}"), Some(db)).await.map(drop)
}

/// The policy that a bucket is, which must be there.
async fn there(server: &Server, doing: &str, id: &str) -> Result<Policy, Error> {
    let (db, wanted) = database(id);
    let all = policies(server, doing, db).await?;
    policy(&all, wanted).cloned().ok_or_else(|| {
        let what = wanted.map_or_else(
            || "its database has no default retention policy".to_owned(),
            |p| format!("database {db:?} has no retention policy {p:?}"),
        );
        Error::new(Kind::NotFound, format!("{doing}: {what}"))
    })
}

fn policy<'a>(all: &'a [Policy], wanted: Option<&str>) -> Option<&'a Policy> {
    all.iter().find(|policy| wanted.map_or(policy.is_default, |name| policy.name == name))
}

fn bucket(db: &str, policy: &Policy, is_plain: bool) -> Bucket {
    let name = if is_plain { db.to_owned() } else { format!("{db}/{}", policy.name) };
    Bucket {
        is_system: db == "_internal",
        retention: policy.retention,
        shard_group_duration: policy.shard_group,
        ..Bucket::named(&name)
    }
}

async fn policies(server: &Server, doing: &str, db: &str) -> Result<Vec<Policy>, Error> {
    let statement = format!("SHOW RETENTION POLICIES ON {}", identifier(db));
    let series = run(server, doing, &statement, None).await?;
    let columns = series["columns"].as_array().cloned().unwrap_or_default();
    let column = |name: &str| columns.iter().position(|c| c == name);
    let (name, retention, shard_group, default) =
        (column("name"), column("duration"), column("shardGroupDuration"), column("default"));
    let read = |row: &Vec<Value>| {
        let text = |at: Option<usize>| row.get(at?)?.as_str();
        Some(Policy {
            name: text(name)?.to_owned(),
            retention: go_duration(text(retention)?)?,
            shard_group: text(shard_group).and_then(go_duration).flatten(),
            is_default: row.get(default?)?.as_bool()?,
        })
    };
    rows(&series).iter().map(read).collect::<Option<_>>().ok_or_else(|| server.garbled(doing))
}

/// Runs a statement and gives the first series of its answer, or nothing.
async fn run(server: &Server, doing: &str, statement: &str, db: Option<&str>) -> Result<Value, Error> {
    let mut request = Request::new(Method::POST, "query").with("q", statement);
    if let Some(db) = db {
        request = request.with("db", db);
    }
    let mut answer = server.json(doing, request).await?;
    let result = answer["results"][0].take();
    if !result.is_object() {
        return Err(server.garbled(doing));
    }
    let Some(reason) = result["error"].as_str() else { return Ok(result["series"][0].clone()) };
    let kind = if reason.contains("not found") {
        Kind::NotFound
    } else if reason.contains("already exists") {
        Kind::Exists
    } else if reason.contains("authorized") || reason.contains("privileges") {
        Kind::Unauthorized
    } else {
        Kind::Refused
    };
    let reason = shortened(&server.hidden(reason));
    Err(Error::new(kind, format!("{doing}: the server answered: {reason}")))
}

fn rows(series: &Value) -> Vec<Vec<Value>> {
    let rows = series["values"].as_array();
    rows.into_iter().flatten().filter_map(|row| row.as_array().cloned()).collect()
}

/// The lengths of a statement that changes only what is given.
fn lengths(
    doing: &str,
    retention: Option<Option<Duration>>,
    shard_group: Option<Duration>,
) -> Result<String, Error> {
    let mut text = String::new();
    if let Some(retention) = retention {
        text += &format!(" DURATION {}", length(doing, "the retention", retention)?);
    }
    if shard_group.is_some() {
        text += &format!(" SHARD DURATION {}", length(doing, "the length of a shard group", shard_group)?);
    }
    Ok(text)
}

fn length(doing: &str, what: &str, length: Option<Duration>) -> Result<String, Error> {
    match length {
        None => Ok("INF".to_owned()),
        Some(length) => Ok(format!("{}s", seconds(doing, what, length)?)),
    }
}

/// `168h0m0s`, whose nought is for ever; `None` for what is none.
fn go_duration(text: &str) -> Option<Option<Duration>> {
    let mut seconds: u64 = 0;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let number: u64 = rest[..digits].parse().ok()?;
        let unit = match rest.as_bytes().get(digits)? {
            b'h' => 3600,
            b'm' => 60,
            b's' => 1,
            _ => return None,
        };
        seconds = seconds.checked_add(number.checked_mul(unit)?)?;
        rest = &rest[digits + 1..];
    }
    Some((seconds > 0).then(|| Duration::from_secs(seconds)))
}

/// A name as InfluxQL reads it.
pub(super) fn identifier(name: &str) -> String {
    quoted(name, '"')
}

/// A text as InfluxQL reads it.
pub(super) fn literal(text: &str) -> String {
    quoted(text, '\'')
}

fn quoted(text: &str, quote: char) -> String {
    let mut out = String::from(quote);
    for c in text.chars() {
        match c {
            '\n' => out.push_str("\\n"),
            c if c == quote || c == '\\' => out.extend(['\\', c]),
            c => out.push(c),
        }
    }
    out.push(quote);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_texts_end_where_they_should() {
        assert_eq!(identifier(r#"a"b\c'd"#), r#""a\"b\\c'd""#);
        assert_eq!(literal("a\"b\\c'd\n"), r#"'a"b\\c\'d\n'"#);
    }

    #[test]
    fn lengths_are_read_as_go_shows_them() {
        for (text, expected) in [
            ("0s", Some(None)),
            ("168h0m0s", Some(Some(604_800))),
            ("1h30m5s", Some(Some(5405))),
            ("", Some(None)),
            ("1", None),
            ("h", None),
            ("1x", None),
            ("99999999999999999999h", None),
            ("9999999999999999999h", None),
        ] {
            assert_eq!(go_duration(text), expected.map(|s| s.map(Duration::from_secs)), "{text}");
        }
    }
}
