//! Deleting readings: which of them, in the language of each target.

use super::bucket;
use super::influxql::{self, identifier, literal};
use super::server::{Managed, Server, is_id, of_store, unsupported};
use crate::error::{Error, Kind};
use crate::server::exchange::{Method, Request};
use crate::server::kind::ServerKind;
use crate::server::naming::{BUCKET, MEASUREMENT, label_of_tag, metric};
use crate::server::outcome::shortened;
use graylogic_line::Timestamp;
use graylogic_store::{Matcher, Selector, Store, TimeRange};
use serde_json::json;
use std::ops::Range;

/// Which readings: those that fulfil all of it. Without anything, all.
///
/// ```
/// use graylogic_influxdb::Predicate;
///
/// let boiler = Predicate::new().measurement("energy").tag("device_id", "boiler").tag_not("room", "cellar");
/// # let _ = boiler;
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Predicate {
    measurement: Option<String>,
    field: Option<String>,
    tags: Vec<Condition>,
    raw: Option<String>,
}

/// What a tag is, or is not.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Condition {
    key: String,
    is_equal: bool,
    value: String,
}

impl Predicate {
    /// All readings.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// In the words of InfluxDB 2, which no other target takes.
    #[must_use]
    pub fn raw(text: impl Into<String>) -> Self {
        Self { raw: Some(text.into()), ..Self::default() }
    }

    /// Of this measurement. VictoriaMetrics, which knows no measurements, needs the field too.
    #[must_use]
    pub fn measurement(mut self, measurement: impl Into<String>) -> Self {
        self.measurement = Some(measurement.into());
        self
    }

    /// Of this field: the embedded store, and VictoriaMetrics together with the measurement. No InfluxDB deletes by field.
    #[must_use]
    pub fn field(mut self, field: impl Into<String>) -> Self {
        self.field = Some(field.into());
        self
    }

    /// Whose tag is this; the empty value is that of series without the tag, which InfluxDB 2 cannot say.
    #[must_use]
    pub fn tag(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.tags.push(Condition { key: key.into(), is_equal: true, value: value.into() });
        self
    }

    /// Whose tag is anything but this, or that have no such tag.
    #[must_use]
    pub fn tag_not(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.tags.push(Condition { key: key.into(), is_equal: false, value: value.into() });
        self
    }

    /// As InfluxDB 2 reads it: all names and values in quotes, so that none is taken for something else.
    fn influxdb2(&self) -> String {
        if let Some(raw) = &self.raw {
            return raw.clone();
        }
        let measurement = self.measurement.iter().map(|m| format!("_measurement={}", identifier(m)));
        let tags = self.tags.iter().map(|tag| {
            let operator = if tag.is_equal { "=" } else { "!=" };
            format!("{}{operator}{}", identifier(&tag.key), identifier(&tag.value))
        });
        measurement.chain(tags).collect::<Vec<_>>().join(" AND ")
    }

    /// What an InfluxDB would take for something else.
    fn is_sayable(&self, doing: &str, kind: ServerKind) -> Result<(), Error> {
        let texts = self.tags.iter().flat_map(|tag| [&tag.key, &tag.value]).chain(&self.measurement);
        if let Some(text) = texts.into_iter().find(|text| text.contains(['\0', '\r'])) {
            let lacks = format!(
                "has no words for the null character and the carriage return of {:?}",
                shortened(text)
            );
            return Err(unsupported(doing, kind, &lacks));
        }
        // A tag that no series has is not equal to the empty text there.
        if kind == ServerKind::InfluxDb2
            && let Some(tag) = self.tags.iter().find(|tag| tag.is_equal && tag.value.is_empty())
        {
            let lacks = format!("has no words for series without a tag, here {:?}", shortened(&tag.key));
            return Err(unsupported(doing, kind, &lacks));
        }
        Ok(())
    }

    /// What follows `DELETE` for InfluxDB 1.
    fn influxdb1(&self, range: &Range<Timestamp>) -> String {
        let mut conditions = Vec::new();
        if range.start > Timestamp::MIN {
            conditions.push(format!("time >= {}", range.start.as_nanos()));
        }
        if range.end < Timestamp::MAX {
            conditions.push(format!("time < {}", range.end.as_nanos()));
        }
        conditions.extend(self.tags.iter().map(|tag| {
            let operator = if tag.is_equal { "=" } else { "!=" };
            format!("{} {operator} {}", identifier(&tag.key), literal(&tag.value))
        }));
        // The whole of everything must be said somehow.
        if conditions.is_empty() && self.measurement.is_none() {
            conditions.push(format!("time >= {}", Timestamp::MIN.as_nanos()));
        }
        let from = self.measurement.iter().map(|m| format!(" FROM {}", identifier(m)));
        let conditions = conditions.join(" AND ");
        let conditions = Some(conditions).filter(|c| !c.is_empty()).map(|c| format!(" WHERE {c}"));
        from.chain(conditions).collect()
    }

    /// The series that VictoriaMetrics means by it.
    fn victoria_metrics(&self, bucket: &str) -> String {
        let mut matchers = vec![format!("{BUCKET}={}", promql_string(bucket))];
        if let (Some(measurement), Some(field)) = (&self.measurement, &self.field) {
            matchers.push(format!("__name__={}", promql_string(&metric(measurement, field))));
            // Also what an earlier version wrote, without this label.
            let pattern = format!("{}|", promql_pattern(measurement));
            matchers.push(format!("{MEASUREMENT}=~{}", promql_string(&pattern)));
        }
        matchers.extend(self.tags.iter().map(|tag| {
            let operator = if tag.is_equal { "=" } else { "!=" };
            format!("{}{operator}{}", promql_name(&label_of_tag(&tag.key)), promql_string(&tag.value))
        }));
        format!("{{{}}}", matchers.join(","))
    }

    fn selector(&self, bucket: &str) -> Selector {
        let mut selector = Selector::bucket(bucket);
        if let Some(measurement) = &self.measurement {
            selector = selector.measurement(measurement);
        }
        if let Some(field) = &self.field {
            selector = selector.field(field);
        }
        self.tags.iter().fold(selector, |selector, tag| {
            let matcher =
                if tag.is_equal { Matcher::equal(&*tag.value) } else { Matcher::not_equal(&*tag.value) };
            selector.tag(&*tag.key, matcher)
        })
    }
}

pub(super) async fn delete(
    target: Managed,
    bucket: String,
    range: Range<Timestamp>,
    predicate: Predicate,
) -> Result<(), Error> {
    let doing = format!("delete from bucket {bucket:?}");
    let server = match target {
        Managed::Embedded(store) => return embedded(&store, &doing, &bucket, &range, &predicate),
        Managed::Server(server) => server,
    };
    let kind = server.kind(&doing).await?;
    if predicate.raw.is_some() && kind != ServerKind::InfluxDb2 {
        return Err(unsupported(&doing, kind, "does not read the words of InfluxDB 2"));
    }
    if predicate.field.is_some() && kind != ServerKind::VictoriaMetrics {
        return Err(unsupported(&doing, kind, "does not delete by field"));
    }
    if matches!(kind, ServerKind::InfluxDb1 | ServerKind::InfluxDb2) {
        predicate.is_sayable(&doing, kind)?;
    }
    if range.start >= range.end {
        return Ok(());
    }
    match kind {
        ServerKind::InfluxDb1 => {
            influxql::delete_readings(&server, &doing, &bucket, &predicate.influxdb1(&range)).await
        }
        ServerKind::InfluxDb2 => influxdb2(&server, &doing, &bucket, &range, &predicate).await,
        ServerKind::InfluxDb3 => {
            Err(unsupported(&doing, kind, "deletes whole tables and databases, and by its retention"))
        }
        ServerKind::VictoriaMetrics => victoria_metrics(&server, &doing, &bucket, &range, &predicate).await,
    }
}

async fn influxdb2(
    server: &Server,
    doing: &str,
    bucket: &str,
    range: &Range<Timestamp>,
    predicate: &Predicate,
) -> Result<(), Error> {
    // It deletes what is at the end too.
    let first = range.start.max(Timestamp::MIN);
    let last = match range.end < Timestamp::MAX {
        true => Timestamp::from_nanos(range.end.as_nanos() - 1),
        false => Timestamp::MAX,
    };
    let mut body = json!({ "start": first.to_string(), "stop": last.to_string() });
    let predicate = predicate.influxdb2();
    if !predicate.is_empty() {
        body["predicate"] = predicate.into();
    }
    let request = server.with_org(Request::json(Method::POST, "api/v2/delete", &body));
    match server.done(doing, request.clone().with("bucket", bucket)).await {
        // Here, unlike where it is written to, a name that could be an ID is taken for nothing else.
        Err(error) if error.is_not_found() && is_id(bucket) => {
            let found = bucket::find(Managed::Server(Box::new(server.clone())), bucket.to_owned()).await;
            let Ok(Some(found)) = found else { return Err(error) };
            server.done(doing, request.with("bucketID", found.id)).await
        }
        done => done,
    }
}

async fn victoria_metrics(
    server: &Server,
    doing: &str,
    bucket: &str,
    range: &Range<Timestamp>,
    predicate: &Predicate,
) -> Result<(), Error> {
    let kind = ServerKind::VictoriaMetrics;
    if server.http.base().contains("/insert/") {
        let lacks = "of a cluster deletes where it is asked, and this is where it is written to";
        return Err(unsupported(doing, kind, lacks));
    }
    if range.start > Timestamp::MIN || range.end < Timestamp::MAX {
        let lacks = "deletes whole series only, whatever their times: give no beginning and no end";
        return Err(unsupported(doing, kind, lacks));
    }
    if predicate.measurement.is_some() != predicate.field.is_some() {
        let lacks = "joins measurement and field to one name: give both, or neither";
        return Err(unsupported(doing, kind, lacks));
    }
    let request = Request::new(Method::POST, "api/v1/admin/tsdb/delete_series");
    let request = request.with("match[]", predicate.victoria_metrics(bucket));
    server.done(doing, request).await
}

fn embedded(
    store: &Store,
    doing: &str,
    bucket: &str,
    range: &Range<Timestamp>,
    predicate: &Predicate,
) -> Result<(), Error> {
    if predicate.raw.is_some() {
        return Err(unsupported(doing, "the embedded store", "does not read the words of InfluxDB 2"));
    }
    // Asked for even when the range is empty.
    if !store.buckets().iter().any(|known| known.name == bucket) {
        return Err(Error::new(Kind::NotFound, format!("{doing}: there is no bucket with this name")));
    }
    let end = if range.end < Timestamp::MAX { range.end } else { Timestamp::from_nanos(i64::MAX) };
    let range = TimeRange::new(range.start, end);
    store.delete(&predicate.selector(bucket), range).map(drop).map_err(|e| of_store(doing, e))
}

/// A text as MetricsQL reads it.
fn promql_string(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '\n' => out.push_str("\\n"),
            '"' | '\\' => out.extend(['\\', c]),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// A regular expression that is matched by exactly this text.
fn promql_pattern(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if r"\.+*?()|[]{}^$".contains(c) {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

/// The name of a label as MetricsQL reads it.
fn promql_name(name: &str) -> String {
    let mut out = String::new();
    for (i, c) in name.chars().enumerate() {
        let is_plain = c == '_' || c == ':' || c.is_ascii_alphabetic() || (i > 0 && c.is_ascii_digit());
        if !is_plain {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_predicate_is_the_same_in_every_language() {
        let all = Timestamp::MIN..Timestamp::MAX;
        let some = Timestamp::from_nanos(5)..Timestamp::from_nanos(9);
        let check = |predicate: &Predicate, v2: &str, v1: &str, v1_some: &str, vm: &str| {
            assert_eq!(predicate.influxdb2(), v2);
            assert_eq!(predicate.influxdb1(&all), v1);
            assert_eq!(predicate.influxdb1(&some), v1_some);
            assert_eq!(predicate.victoria_metrics("b"), vm);
        };
        check(
            &Predicate::new(),
            "",
            " WHERE time >= -9223372036854775806",
            " WHERE time >= 5 AND time < 9",
            r#"{db="b"}"#,
        );
        check(
            &Predicate::new().measurement(r#"m "1" \"#).field("f"),
            r#"_measurement="m \"1\" \\""#,
            r#" FROM "m \"1\" \\""#,
            r#" FROM "m \"1\" \\" WHERE time >= 5 AND time < 9"#,
            r#"{db="b",__name__="m \"1\" \\_f",_measurement=~"m \"1\" \\\\|"}"#,
        );
        check(
            &Predicate::new().tag("room-1", "a' OR 'x'='x").tag_not("2", "\n"),
            r#""room-1"="a' OR 'x'='x" AND "2"!="\n""#,
            r#" WHERE "room-1" = 'a\' OR \'x\'=\'x' AND "2" != '\n'"#,
            r#" WHERE time >= 5 AND time < 9 AND "room-1" = 'a\' OR \'x\'=\'x' AND "2" != '\n'"#,
            r#"{db="b",room\-1="a' OR 'x'='x",\2!="\n"}"#,
        );
        assert_eq!(Predicate::raw("r=a").influxdb2(), "r=a");
    }
}
