//! How a target says that it is: its health, whether it is ready, its version.

use super::server::{Managed, Server, of_store};
use crate::error::Error;
use crate::server::exchange::Request;
use crate::server::kind::{Recognised, ServerKind, recognise};
use crate::server::outcome::shortened;
use crate::server::said::Said;
use graylogic_store::State;
use serde_json::Value;

/// How a target says that it is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerHealth {
    /// Whether it is well.
    pub status: HealthStatus,
    /// What it says of that; empty when it says nothing.
    pub message: String,
    /// Its version, without a leading `v`; `None` when it does not tell.
    pub version: Option<String>,
    /// What kind of server it is; `None` for the embedded store, and for one that does not show it.
    pub kind: Option<ServerKind>,
}

/// Whether a target is well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum HealthStatus {
    /// It is.
    Pass,
    /// It answers, and is not.
    Fail,
}

pub(super) async fn health(target: Managed) -> Result<ServerHealth, Error> {
    let doing = "ask for the server's health";
    let server = match target {
        Managed::Embedded(store) => {
            let stats = store.stats().map_err(|e| of_store("ask for the store's health", e))?;
            let (status, message) = match stats.state {
                State::Degraded(why) => (HealthStatus::Fail, format!("the store is degraded: {why}")),
                _ => (HealthStatus::Pass, String::new()),
            };
            return Ok(ServerHealth { status, message, version: Some(own_version()), kind: None });
        }
        Managed::Server(server) => server,
    };
    let found = look(&server, doing).await?;
    let answer = server.hear(doing, Request::get("health")).await?;
    let said: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let kind = found.as_ref().map(|f| f.kind);
    let version = found.map(|f| f.version).filter(|v| !v.is_empty());
    let (status, message) = match answer.status {
        // InfluxDB 1 has it since 1.8; before, who answers is well.
        404 if kind == Some(ServerKind::InfluxDb1) => (HealthStatus::Pass, String::new()),
        401 | 403 | 404 => return Err(server.refused(doing, &answer)),
        status => {
            let words = shortened(&server.hidden(&Said::of(&answer).message));
            let passes = (200..300).contains(&status) && said["status"] != "fail";
            // Other programs have such a page too.
            let is_known = kind.is_some() || said["status"] == "pass";
            match passes && !is_known {
                true => {
                    let unknown =
                        "it does not show that it is an InfluxDB or a VictoriaMetrics; check influxdb.url";
                    (HealthStatus::Fail, unknown.to_owned())
                }
                false => (if passes { HealthStatus::Pass } else { HealthStatus::Fail }, words),
            }
        }
    };
    Ok(ServerHealth { status, message, version, kind })
}

pub(super) async fn ready(target: Managed) -> Result<bool, Error> {
    let doing = "ask whether the server is ready";
    let server = match target {
        Managed::Server(ref server) => server,
        Managed::Embedded(_) => return Ok(health(target).await?.status == HealthStatus::Pass),
    };
    if server.kind(doing).await? != ServerKind::InfluxDb2 {
        return Ok(health(target).await?.status == HealthStatus::Pass);
    }
    let answer = server.hear(doing, Request::get("ready")).await?;
    let said: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    match answer.status {
        200 => Ok(said["status"] == "ready"),
        503 => Ok(false),
        _ => Err(server.refused(doing, &answer)),
    }
}

pub(super) async fn version(target: Managed) -> Result<Option<String>, Error> {
    match target {
        Managed::Embedded(_) => Ok(Some(own_version())),
        Managed::Server(server) => {
            let found = look(&server, "ask for the server's version").await?;
            Ok(found.map(|f| f.version).filter(|v| !v.is_empty()))
        }
    }
}

/// What the server shows of itself, now.
async fn look(server: &Server, doing: &str) -> Result<Option<Recognised>, Error> {
    let ping = server.http.fetch(Request::get("ping")).await.map_err(|why| server.silent(doing, why))?;
    let shown = recognise(&ping);
    let configured = server.http.configured();
    if shown.is_some() && configured.is_none() {
        server.http.set_recognised(shown.clone());
    }
    Ok(match (shown, configured) {
        (Some(shown), _) => Some(shown),
        (None, kind) => kind.map(|kind| Recognised { kind, version: String::new() }),
    })
}

fn own_version() -> String {
    env!("CARGO_PKG_VERSION").to_owned()
}
