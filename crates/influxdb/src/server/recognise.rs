//! Asks a server what it is, when nobody knows: once, until somebody has reason to forget it. What its answer says is in
//! `kind.rs`.

use crate::server::exchange::{NoAnswer, Request};
use crate::server::http::Http;
use crate::server::kind::{Recognised, ServerKind, recognise};

/// What is known of a server once it was asked.
pub(crate) enum Shown {
    Is(Recognised),
    /// It does not say what it is.
    Hidden,
    /// Whoever answered says nothing of the server: it is a proxy, busy, or wants another token first.
    Unknown,
}

/// What the server is: asked once, until somebody has reason to forget it. `None` when it does not show.
pub(crate) async fn recognised(http: &Http) -> Result<Option<Recognised>, NoAnswer> {
    Ok(match shown(http).await? {
        Shown::Is(found) => Some(found),
        Shown::Hidden | Shown::Unknown => None,
    })
}

/// The same, and why it does not show.
pub(crate) async fn shown(http: &Http) -> Result<Shown, NoAnswer> {
    if let Some(known) = http.recognised() {
        return Ok(Shown::Is(known));
    }
    // Longer than connecting may take, of which the request itself tells.
    let asked = tokio::time::timeout(2 * http.connect_timeout(), http.fetch(Request::get("ping"))).await;
    let ping = match (asked, http.configured()) {
        (Ok(ping), _) => ping?,
        // Something between keeps pings for itself: somebody said what the server is.
        (Err(_), Some(kind)) => {
            let found = Recognised { kind, version: String::new() };
            http.set_recognised(Some(found.clone()));
            return Ok(Shown::Is(found));
        }
        (Err(_), None) => {
            let base = http.base();
            return Err(NoAnswer::Failed(format!(
                "{base} did not answer GET /ping in time; if it does answer writes, say what it is in influxdb.kind"
            )));
        }
    };
    let found = match (http.configured(), recognise(&ping)) {
        (Some(kind), Some(found)) if kind != found.kind => {
            return Err(NoAnswer::Unusable { reason: differs(http, kind, &found), setting: "kind" });
        }
        (_, Some(found)) => found,
        (Some(kind), None) => Recognised { kind, version: String::new() },
        (None, None) if matches!(ping.status, 401 | 403 | 407 | 408 | 425 | 429 | 500..) => {
            return Ok(Shown::Unknown);
        }
        (None, None) => return Ok(Shown::Hidden),
    };
    tracing::debug!(server = http.base(), %found, "the server was recognised");
    http.set_recognised(Some(found.clone()));
    Ok(Shown::Is(found))
}

/// A server of another kind than the configuration says may take readings in a way that spoils them.
pub(crate) fn differs(http: &Http, configured: ServerKind, found: &Recognised) -> String {
    let (base, configured, right) = (http.base(), configured.key(), found.kind.key());
    format!("{base} is {found}, but influxdb.kind says {configured}; set influxdb.kind to {right} or auto")
}
