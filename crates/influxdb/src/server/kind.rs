//! The kinds of server, and how one is recognised by its answers. Pure: asking is done in `preflight.rs`.

use crate::server::exchange::{Answer, Scheme};
use serde_json::Value;
use std::fmt;

/// A kind of server that this client writes to, asks and manages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ServerKind {
    /// InfluxDB 1.x: databases, `/write` and InfluxQL.
    InfluxDb1,
    /// InfluxDB 2.x: organisations, buckets, `/api/v2/write` and Flux.
    InfluxDb2,
    /// InfluxDB 3: databases, `/api/v3/write_lp` and SQL.
    InfluxDb3,
    /// VictoriaMetrics, one machine or a cluster: `/api/v2/write` and MetricsQL.
    VictoriaMetrics,
}

impl ServerKind {
    pub(crate) const ALL: [Self; 4] =
        [Self::InfluxDb1, Self::InfluxDb2, Self::InfluxDb3, Self::VictoriaMetrics];

    /// The word for it in a configuration.
    #[must_use]
    pub fn key(self) -> &'static str {
        match self {
            Self::InfluxDb1 => "influxdb1",
            Self::InfluxDb2 => "influxdb2",
            Self::InfluxDb3 => "influxdb3",
            Self::VictoriaMetrics => "victoriametrics",
        }
    }

    /// How it wants to be shown a token.
    pub(crate) fn scheme(self) -> Scheme {
        match self {
            Self::InfluxDb2 => Scheme::Token,
            Self::InfluxDb3 => Scheme::Bearer,
            Self::InfluxDb1 | Self::VictoriaMetrics => Scheme::BasicOrBearer,
        }
    }
}

impl fmt::Display for ServerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::InfluxDb1 => "InfluxDB 1",
            Self::InfluxDb2 => "InfluxDB 2",
            Self::InfluxDb3 => "InfluxDB 3",
            Self::VictoriaMetrics => "VictoriaMetrics",
        })
    }
}

/// What a server was recognised as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Recognised {
    pub(crate) kind: ServerKind,
    /// As it says, without a leading `v`; empty when it does not.
    pub(crate) version: String,
}

impl fmt::Display for Recognised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, version } = self;
        if version.is_empty() { write!(f, "{kind}") } else { write!(f, "{kind} ({version})") }
    }
}

/// What the answer to `GET /ping` says of the server; `None` when it says too little.
///
/// InfluxDB names its version in a header (1 and 2) or in the body (3, where the header of the build is an edition);
/// VictoriaMetrics does not, and names its host.
pub(crate) fn recognise(ping: &Answer) -> Option<Recognised> {
    let body: Option<Value> = serde_json::from_slice(&ping.body).ok();
    // Many programs name a version; InfluxDB 3 names the process as well.
    let body = body.filter(|b| b.get("process_id").is_some() || b.get("revision").is_some());
    let in_body = body.as_ref().and_then(|b| Some(b.get("version")?.as_str()?.to_owned()));
    let version = ping.version.clone().or(in_body).unwrap_or_default();
    let version = version.trim().trim_start_matches('v').to_owned();
    let edition = ["core", "enterprise", "cloud dedicated", "clustered"];
    let build = ping.build.as_deref().unwrap_or_default().to_lowercase();
    let kind = match version.split_once('.').map(|(major, _)| major) {
        // Telegraf listens in the way of any of them, and names its own version.
        _ if build == "telegraf" => return None,
        Some("1") => ServerKind::InfluxDb1,
        Some("2") => ServerKind::InfluxDb2,
        Some("3") => ServerKind::InfluxDb3,
        _ if edition.contains(&build.as_str()) => ServerKind::InfluxDb3,
        // A build of somebody's own, or the cloud's, which all speak InfluxDB 2.
        _ if !version.is_empty() || !build.is_empty() => ServerKind::InfluxDb2,
        _ if ping.is_victoria_metrics => ServerKind::VictoriaMetrics,
        _ => return None,
    };
    Some(Recognised { kind, version })
}

/// The kind that the answer to a write shows, by headers that only such servers send. What listens in the way of an InfluxDB,
/// as Telegraf does, counts as one.
pub(crate) fn shown_by_write(answer: &Answer) -> Option<ServerKind> {
    if answer.is_victoria_metrics {
        return Some(ServerKind::VictoriaMetrics);
    }
    // The body of an answer to a write is not a place where servers show themselves.
    let head = Answer { version: answer.version.clone(), build: answer.build.clone(), ..Answer::default() };
    match recognise(&head) {
        Some(found) => Some(found.kind),
        None => head.version.is_some().then_some(ServerKind::InfluxDb1),
    }
}

/// Another kind than a server was taken for, when its answer to a write says so. InfluxDB 1 is what others call themselves
/// there as well, VictoriaMetrics and Telegraf among them; itself it takes what is written for InfluxDB 2, or answers 404.
pub(crate) fn speaks_against(kind: ServerKind, write: &Answer) -> Option<Recognised> {
    let version = write.version.as_deref().unwrap_or_default().trim().trim_start_matches('v');
    let (found, version) = match version.split_once('.').map(|(major, _)| major) {
        _ if write.is_victoria_metrics => (ServerKind::VictoriaMetrics, ""),
        Some("2") => (ServerKind::InfluxDb2, version),
        Some("3") => (ServerKind::InfluxDb3, version),
        // Of the others none has no such place.
        Some("1") if write.status == 404 && kind == ServerKind::InfluxDb2 => (ServerKind::InfluxDb1, version),
        _ => return None,
    };
    (found != kind).then(|| Recognised { kind: found, version: version.to_owned() })
}

/// What the path of an address says: the inserting part of a VictoriaMetrics cluster answers no ping.
pub(crate) fn recognise_path(path: &str) -> Option<ServerKind> {
    let mut parts = path.split('/').filter(|p| !p.is_empty());
    (parts.next() == Some("insert") && parts.next().is_some()).then_some(ServerKind::VictoriaMetrics)
}

/// Where a VictoriaMetrics cluster answers questions, by where it takes readings: `/insert/T/influx` and
/// `/select/T/prometheus`, of the same tenant.
pub(crate) fn select_path(path: &str) -> Option<String> {
    let mut parts = path.split('/').filter(|p| !p.is_empty());
    let tenant = (parts.next() == Some("insert")).then(|| parts.next()).flatten()?;
    Some(format!("/select/{tenant}/prometheus/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_recognised_by_their_pings() {
        let ping = |version: Option<&str>, build: Option<&str>, body: &str, is_victoria_metrics| Answer {
            status: 204,
            version: version.map(str::to_owned),
            build: build.map(str::to_owned),
            body: body.as_bytes().to_vec(),
            is_victoria_metrics,
            ..Answer::default()
        };
        let core = r#"{"version":"3.8.0","revision":"abc","process_id":"1"}"#;
        for (ping, expected) in [
            (ping(Some("v2.8.0"), Some("OSS"), "", false), Some((ServerKind::InfluxDb2, "2.8.0"))),
            (ping(Some("2.7.12"), Some("OSS"), "", false), Some((ServerKind::InfluxDb2, "2.7.12"))),
            (ping(Some("1.6.7~rc0"), Some("OSS"), "", false), Some((ServerKind::InfluxDb1, "1.6.7~rc0"))),
            (
                ping(Some("1.11.8-c1.11.8"), Some("ENT"), "", false),
                Some((ServerKind::InfluxDb1, "1.11.8-c1.11.8")),
            ),
            (ping(None, Some("Core"), core, false), Some((ServerKind::InfluxDb3, "3.8.0"))),
            (ping(None, Some("Core"), "", false), Some((ServerKind::InfluxDb3, ""))),
            (ping(None, None, core, false), Some((ServerKind::InfluxDb3, "3.8.0"))),
            (ping(Some("nightly"), None, "", false), Some((ServerKind::InfluxDb2, "nightly"))),
            (ping(None, Some("cloud2"), "", false), Some((ServerKind::InfluxDb2, ""))),
            // The version is its own.
            (ping(Some("1.36.0"), Some("telegraf"), "", false), None),
            (ping(None, None, "", true), Some((ServerKind::VictoriaMetrics, ""))),
            (ping(None, None, "", false), None),
            (ping(None, None, "<html>", false), None),
            (ping(None, None, r#"{"version":3}"#, false), None),
            (ping(None, None, r#"{"name":"shop","version":"2.3.1"}"#, false), None),
        ] {
            let found = recognise(&ping);
            assert_eq!(found.as_ref().map(|r| (r.kind, r.version.as_str())), expected, "{ping:?}");
        }
    }

    #[test]
    fn a_cluster_is_recognised_by_its_path() {
        assert_eq!(select_path("/insert/3:7/influx/").as_deref(), Some("/select/3:7/prometheus/"));
        for (path, cluster) in [
            ("/insert/0/influx/", true),
            ("/insert/3:7/influx", true),
            ("/", false),
            ("/insert", false),
            ("/x/insert/0", false),
        ] {
            assert_eq!(recognise_path(path).is_some(), cluster, "{path}");
            assert_eq!(select_path(path).is_some(), cluster, "{path}");
        }
    }
}
