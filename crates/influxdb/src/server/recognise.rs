//! Asks a server what it is, when nobody knows: once, until somebody has reason to forget it. What its answer says is in
//! `kind.rs`.

use crate::server::exchange::{Answer, Method, NoAnswer, Request};
use crate::server::http::Http;
use crate::server::kind::{Recognised, ServerKind, recognise, shown_by_write, speaks_against};
use crate::server::said::Said;

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
    Ok(match shown(http, true).await? {
        Shown::Is(found) => Some(found),
        Shown::Hidden | Shown::Unknown => None,
    })
}

/// The same, and why it does not show. One that is new to who asks is asked twice: lines that went to it in another kind's
/// way could be misplaced without a word.
pub(crate) async fn shown(http: &Http, is_new: bool) -> Result<Shown, NoAnswer> {
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
        (None, None) => match if is_new { by_write(http).await? } else { None } {
            Some(found) => found,
            None if says_nothing(&ping) => return Ok(Shown::Unknown),
            None => return Ok(Shown::Hidden),
        },
    };
    tracing::debug!(server = http.base(), %found, "the server was recognised");
    http.set_recognised(Some(found.clone()));
    Ok(Shown::Is(found))
}

fn says_nothing(ping: &Answer) -> bool {
    // A page is of somebody who wants another certificate, say, before it passes on anything.
    matches!(ping.status, 401 | 403 | 407 | 408 | 425 | 429 | 500..) || Said::of(ping).is_page
}

/// What a server behind somebody who keeps pings for himself shows when it is asked to write nothing to no bucket.
pub(crate) async fn by_write(http: &Http) -> Result<Option<Recognised>, NoAnswer> {
    let patience = Some(2 * http.connect_timeout());
    let asking = Request { timeout: patience, ..Request::new(Method::POST, "api/v2/write") };
    let answer = http.fetch(asking).await?;
    let itself = || {
        let kind = shown_by_write(&answer).filter(|kind| *kind == ServerKind::InfluxDb2)?;
        let version = answer.version.as_deref().unwrap_or_default().trim().trim_start_matches('v').to_owned();
        Some(Recognised { kind, version })
    };
    Ok(speaks_against(ServerKind::InfluxDb2, &answer).or_else(itself))
}

/// A server of another kind than the configuration says may take readings in a way that spoils them.
pub(crate) fn differs(http: &Http, configured: ServerKind, found: &Recognised) -> String {
    let (base, configured, right) = (http.base(), configured.key(), found.kind.key());
    format!("{base} is {found}, but influxdb.kind says {configured}; set influxdb.kind to {right} or auto")
}
