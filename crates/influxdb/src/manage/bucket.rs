//! Buckets: readings with a name, and how long they are kept.

use super::influxql;
use super::server::{Managed, PAGE, Server, of_store, path, seconds, text, time, unsupported};
use crate::error::{Error, Kind};
use crate::server::exchange::{Method, Request};
use crate::server::kind::ServerKind;
use graylogic_line::Timestamp;
use graylogic_store::{BucketInfo, Store};
use serde_json::{Map, Value, json};
use std::time::Duration;

const NO_BUCKETS: &str = "keeps no buckets, and its retention is its flag -retentionPeriod";
const HOUR: u64 = 3600;
const DAY: u64 = 24 * HOUR;

/// A bucket of a target.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Bucket {
    /// What the calls name it by; its name, where the target has no other.
    pub id: String,
    /// Its name.
    pub name: String,
    /// The organisation it is in; `None` where there are none.
    pub org_id: Option<String>,
    /// What somebody wrote of it.
    pub description: Option<String>,
    /// How long its readings are kept; `None`: for ever, or the target does not tell.
    pub retention: Option<Duration>,
    /// What is removed at once when it is too old: the readings of so long a time.
    pub shard_group_duration: Option<Duration>,
    /// Whether it is the server's own.
    pub is_system: bool,
    /// When it was made, if the target tells.
    pub created_at: Option<Timestamp>,
    /// When it was changed last, if the target tells.
    pub updated_at: Option<Timestamp>,
}

/// A bucket that is to be made. It keeps readings for ever unless it says otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewBucket {
    pub(super) name: String,
    pub(super) retention: Option<Duration>,
    pub(super) shard_group: Option<Duration>,
    pub(super) description: Option<String>,
}

impl NewBucket {
    /// With this name.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), retention: None, shard_group: None, description: None }
    }

    /// Readings are kept for so long; `None`: for ever. Whole seconds, an hour at least.
    #[must_use]
    pub fn retention(mut self, retention: impl Into<Option<Duration>>) -> Self {
        self.retention = retention.into();
        self
    }

    /// Readings of so long a time are removed at once, when all of them are too old. InfluxDB 1 and 2.
    #[must_use]
    pub fn shard_group_duration(mut self, duration: Duration) -> Self {
        self.shard_group = Some(duration);
        self
    }

    /// What it is for. InfluxDB 2.
    #[must_use]
    pub fn description(mut self, description: impl Into<String>) -> Self {
        self.description = Some(description.into());
        self
    }
}

/// What is to be changed of a bucket; all else stays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BucketUpdate {
    pub(super) name: Option<String>,
    pub(super) description: Option<String>,
    pub(super) retention: Option<Option<Duration>>,
    pub(super) shard_group: Option<Duration>,
}

impl BucketUpdate {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Gives it another name. InfluxDB 2 and the embedded store.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Says what it is for. InfluxDB 2.
    #[must_use]
    pub fn description(mut self, description: impl Into<String>) -> Self {
        self.description = Some(description.into());
        self
    }

    /// Readings are kept for so long from now on; `None`: for ever.
    #[must_use]
    pub fn retention(mut self, retention: impl Into<Option<Duration>>) -> Self {
        self.retention = Some(retention.into());
        self
    }

    /// Readings of so long a time are removed at once. InfluxDB 1 and 2.
    #[must_use]
    pub fn shard_group_duration(mut self, duration: Duration) -> Self {
        self.shard_group = Some(duration);
        self
    }
}

pub(super) async fn list(target: Managed) -> Result<Vec<Bucket>, Error> {
    let doing = "list buckets";
    let server = match target {
        Managed::Embedded(store) => return Ok(store.buckets().into_iter().map(of_info).collect()),
        Managed::Server(server) => server,
    };
    match server.kind(doing).await? {
        ServerKind::InfluxDb1 => influxql::buckets(&server, doing).await,
        ServerKind::InfluxDb2 => {
            let page = |offset: usize, _: Option<&str>| {
                let request = server.with_org(Request::get("api/v2/buckets")).with("limit", PAGE.to_string());
                if offset == 0 { request } else { request.with("offset", offset.to_string()) }
            };
            server.pages(doing, "buckets", page, Bucket::read, |bucket| &bucket.id).await
        }
        ServerKind::InfluxDb3 => databases(&server, doing).await,
        kind @ ServerKind::VictoriaMetrics => Err(unsupported(doing, kind, NO_BUCKETS)),
    }
}

pub(super) async fn find(target: Managed, name: String) -> Result<Option<Bucket>, Error> {
    let doing = format!("find bucket {name:?}");
    let server = match target {
        Managed::Embedded(store) => {
            return Ok(store.buckets().into_iter().map(of_info).find(|bucket| bucket.name == name));
        }
        Managed::Server(server) => server,
    };
    match server.kind(&doing).await? {
        ServerKind::InfluxDb1 => influxql::find(&server, &doing, &name).await,
        ServerKind::InfluxDb2 => {
            let request = server.with_org(Request::get("api/v2/buckets").with("name", &*name));
            let answer = server.hear(&doing, request).await?;
            if Server::lacks(&answer, "bucket") {
                return Ok(None);
            }
            if answer.status != 200 {
                return Err(server.refused(&doing, &answer));
            }
            let found: Value = serde_json::from_slice(&answer.body).map_err(|_| server.garbled(&doing))?;
            let Some(all) = found["buckets"].as_array() else { return Err(server.garbled(&doing)) };
            Ok(all.iter().filter_map(Bucket::read).find(|bucket| bucket.name == name))
        }
        ServerKind::InfluxDb3 => {
            Ok(databases(&server, &doing).await?.into_iter().find(|bucket| bucket.name == name))
        }
        kind @ ServerKind::VictoriaMetrics => Err(unsupported(&doing, kind, NO_BUCKETS)),
    }
}

pub(crate) async fn create(target: Managed, new: NewBucket) -> Result<Bucket, Error> {
    let doing = format!("create bucket {:?}", new.name);
    let server = match target {
        Managed::Embedded(store) => return create_embedded(&store, &doing, &new),
        Managed::Server(server) => server,
    };
    match server.kind(&doing).await? {
        ServerKind::InfluxDb1 => influxql::create(&server, &doing, &new).await,
        ServerKind::InfluxDb2 => {
            let mut body = Map::new();
            body.insert("orgID".to_owned(), server.org_id(&doing).await?.into());
            body.insert("name".to_owned(), new.name.into());
            if let Some(description) = new.description {
                body.insert("description".to_owned(), description.into());
            }
            if new.retention.is_some() || new.shard_group.is_some() {
                let rule = rule(&doing, Some(new.retention), new.shard_group)?;
                body.insert("retentionRules".to_owned(), json!([rule]));
            }
            let request = Request::json(Method::POST, "api/v2/buckets", &body.into());
            server.thing(&doing, request, Bucket::read).await
        }
        ServerKind::InfluxDb3 => {
            plain(&doing, ServerKind::InfluxDb3, new.description.as_ref(), new.shard_group)?;
            let mut body = json!({ "db": new.name });
            if let Some(retention) = new.retention {
                body["retention_period"] =
                    format!("{}s", seconds(&doing, "the retention", retention)?).into();
            }
            server.ask(&doing, Request::json(Method::POST, DATABASE, &body)).await?;
            Ok(Bucket { retention: new.retention, ..Bucket::named(&new.name) })
        }
        kind @ ServerKind::VictoriaMetrics => Err(unsupported(&doing, kind, NO_BUCKETS)),
    }
}

pub(super) async fn update(target: Managed, id: String, update: BucketUpdate) -> Result<Bucket, Error> {
    let doing = format!("update bucket {id:?}");
    let server = match target {
        Managed::Embedded(store) => return update_embedded(&store, &doing, &id, &update),
        Managed::Server(server) => server,
    };
    match server.kind(&doing).await? {
        ServerKind::InfluxDb1 => influxql::update(&server, &doing, &id, &update).await,
        ServerKind::InfluxDb2 => update_v2(&server, &doing, &id, update).await,
        kind @ ServerKind::InfluxDb3 => {
            plain(&doing, kind, update.description.as_ref(), update.shard_group)?;
            if update.name.is_some() {
                return Err(unsupported(&doing, kind, "has no other names for databases"));
            }
            if let Some(retention) = update.retention {
                let mut body = json!({ "db": id, "retention_period": null });
                if let Some(retention) = retention {
                    body["retention_period"] =
                        format!("{}s", seconds(&doing, "the retention", retention)?).into();
                }
                server.ask(&doing, Request::json(Method::PUT, DATABASE, &body)).await?;
            }
            let found = databases(&server, &doing).await?.into_iter().find(|bucket| bucket.id == id);
            let found = found.ok_or_else(|| no_such(&doing, "database"))?;
            // What was just set, should the server not tell.
            Ok(Bucket { retention: update.retention.unwrap_or(found.retention), ..found })
        }
        kind @ ServerKind::VictoriaMetrics => Err(unsupported(&doing, kind, NO_BUCKETS)),
    }
}

pub(super) async fn delete(target: Managed, id: String) -> Result<(), Error> {
    let doing = format!("delete bucket {id:?}");
    let server = match target {
        Managed::Embedded(store) => {
            let name = embedded(&store, &doing, &id)?.name;
            return store.remove_bucket(&name).map_err(|e| of_store(&doing, e));
        }
        Managed::Server(server) => server,
    };
    match server.kind(&doing).await? {
        ServerKind::InfluxDb1 => influxql::delete(&server, &doing, &id).await,
        ServerKind::InfluxDb2 => {
            let request = Request::new(Method::DELETE, path(&doing, "api/v2/buckets/", &id, "")?);
            server.done(&doing, request).await
        }
        ServerKind::InfluxDb3 => {
            let request = Request::new(Method::DELETE, DATABASE).with("db", &*id);
            server.ask(&doing, request).await.map(drop)
        }
        kind @ ServerKind::VictoriaMetrics => Err(unsupported(&doing, kind, NO_BUCKETS)),
    }
}

impl Bucket {
    /// One whose name is all that is known.
    pub(super) fn named(name: &str) -> Self {
        Self { id: name.to_owned(), name: name.to_owned(), ..Self::default() }
    }

    /// As InfluxDB 2 has it.
    pub(super) fn read(object: &Value) -> Option<Self> {
        let rule = &object["retentionRules"][0];
        let length = |key: &str| rule[key].as_u64().filter(|seconds| *seconds > 0).map(Duration::from_secs);
        Some(Self {
            id: text(object, "id")?,
            // An empty name is one, for some versions.
            name: object["name"].as_str()?.to_owned(),
            org_id: text(object, "orgID"),
            description: text(object, "description"),
            retention: length("everySeconds"),
            shard_group_duration: length("shardGroupDurationSeconds"),
            is_system: object["type"] == "system",
            created_at: time(object, "createdAt"),
            updated_at: time(object, "updatedAt"),
        })
    }
}

async fn update_v2(server: &Server, doing: &str, id: &str, update: BucketUpdate) -> Result<Bucket, Error> {
    let request = |shard_group: Option<Duration>| {
        let mut body = Map::new();
        if let Some(name) = &update.name {
            body.insert("name".to_owned(), name.clone().into());
        }
        if let Some(description) = &update.description {
            body.insert("description".to_owned(), description.clone().into());
        }
        if update.retention.is_some() || shard_group.is_some() {
            body.insert("retentionRules".to_owned(), json!([rule(doing, update.retention, shard_group)?]));
        }
        Ok(Request::json(Method::PATCH, path(doing, "api/v2/buckets/", id, "")?, &body.into()))
    };
    let shard_group = update.shard_group;
    match (server.thing(doing, request(shard_group)?, Bucket::read).await, update.retention) {
        (Err(error), Some(Some(retention)))
            if shard_group.is_none() && error.to_string().contains("shard-group duration must also") =>
        {
            let fitting = Some(default_shard_group(retention));
            server.thing(doing, request(fitting)?, Bucket::read).await
        }
        (done, _) => done,
    }
}

/// The rule of InfluxDB 2, with the lengths that are given.
fn rule(
    doing: &str,
    retention: Option<Option<Duration>>,
    shard_group: Option<Duration>,
) -> Result<Value, Error> {
    let mut rule = json!({ "type": "expire" });
    if let Some(retention) = retention {
        rule["everySeconds"] = match retention {
            None => 0.into(),
            Some(length) => seconds(doing, "the retention", length)?.into(),
        };
    }
    if let Some(length) = shard_group {
        rule["shardGroupDurationSeconds"] = seconds(doing, "the length of a shard group", length)?.into();
    }
    Ok(rule)
}

/// The length of the shard groups of a new bucket of InfluxDB 1 and 2.
pub(super) fn default_shard_group(retention: Duration) -> Duration {
    Duration::from_secs(match retention.as_secs() / DAY {
        0..2 => HOUR,
        2..180 => DAY,
        _ => 7 * DAY,
    })
}

/// Where InfluxDB 3 manages its databases.
const DATABASE: &str = "api/v3/configure/database";

async fn databases(server: &Server, doing: &str) -> Result<Vec<Bucket>, Error> {
    let found = server.json(doing, Request::get(DATABASE).with("format", "json")).await?;
    let name = |row: &Value| text(row, "iox::database");
    let Some(rows) = found.as_array() else { return Err(server.garbled(doing)) };
    // Only a table of its own knows the lengths; versions without it do not tell.
    let question = "SELECT database_name, retention_period_ns FROM system.databases";
    let request = Request::json(
        Method::POST,
        "api/v3/query_sql",
        &json!({ "db": "_internal", "q": question, "format": "json" }),
    );
    let lengths = server.json(doing, request).await.unwrap_or_default();
    let retention = |name: &str| {
        let row = lengths.as_array()?.iter().find(|row| row["database_name"] == name)?;
        row["retention_period_ns"].as_u64().map(Duration::from_nanos)
    };
    let of = |name: String| Bucket {
        is_system: name == "_internal",
        retention: retention(&name),
        ..Bucket::named(&name)
    };
    rows.iter().map(|row| name(row).map(of)).collect::<Option<_>>().ok_or_else(|| server.garbled(doing))
}

/// Refuses what only InfluxDB 2, or it and 1, have of a bucket.
fn plain(
    doing: &str,
    kind: impl std::fmt::Display,
    description: Option<&String>,
    shard_group: Option<Duration>,
) -> Result<(), Error> {
    if description.is_some() {
        return Err(unsupported(doing, kind, "has no descriptions of buckets"));
    }
    if shard_group.is_some() {
        return Err(unsupported(doing, kind, "has no shard groups"));
    }
    Ok(())
}

fn no_such(doing: &str, what: &str) -> Error {
    Error::new(Kind::NotFound, format!("{doing}: there is no {what} with this id"))
}

/// In the store, the number of a bucket stays when its name changes.
fn of_info(info: BucketInfo) -> Bucket {
    Bucket { id: info.id.to_string(), retention: info.retention, ..Bucket::named(&info.name) }
}

fn embedded(store: &Store, doing: &str, id: &str) -> Result<Bucket, Error> {
    let found = store.buckets().into_iter().map(of_info).find(|bucket| bucket.id == id);
    found.ok_or_else(|| no_such(doing, "bucket"))
}

const STORE: &str = "the embedded store";

fn create_embedded(store: &Store, doing: &str, new: &NewBucket) -> Result<Bucket, Error> {
    plain(doing, STORE, new.description.as_ref(), new.shard_group)?;
    let made = store.create_bucket(&new.name).map_err(|e| of_store(doing, e))?;
    if new.retention.is_none() {
        return Ok(of_info(made));
    }
    store.set_retention(&new.name, new.retention).map(of_info).map_err(|error| {
        // One that keeps readings for another time than was asked for is worse than none.
        if let Err(error) = store.remove_bucket(&new.name) {
            tracing::error!(bucket = new.name, %error, "a bucket was made whose retention could not be set");
        }
        of_store(doing, error)
    })
}

fn update_embedded(store: &Store, doing: &str, id: &str, update: &BucketUpdate) -> Result<Bucket, Error> {
    plain(doing, STORE, update.description.as_ref(), update.shard_group)?;
    let mut name = embedded(store, doing, id)?.name;
    if let Some(retention) = update.retention {
        store.set_retention(&name, retention).map_err(|e| of_store(doing, e))?;
    }
    if let Some(new) = &update.name {
        name = store.rename_bucket(&name, new).map_err(|e| of_store(doing, e))?.name;
    }
    let found = store.buckets().into_iter().find(|bucket| bucket.name == name);
    found.map(of_info).ok_or_else(|| no_such(doing, "bucket"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shard_groups_are_as_long_as_a_server_makes_them() {
        for (retention, expected) in [
            (HOUR, HOUR),
            (DAY, HOUR),
            (2 * DAY - 1, HOUR),
            (2 * DAY, DAY),
            (180 * DAY - 1, DAY),
            (180 * DAY, 7 * DAY),
        ] {
            assert_eq!(
                default_shard_group(Duration::from_secs(retention)).as_secs(),
                expected,
                "{retention}"
            );
        }
    }
}
