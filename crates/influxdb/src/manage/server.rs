//! What is managed: the embedded store, or a server with the requests that all calls make. It says what an answer means as
//! an error; what a success holds is for the files of the things.

use crate::error::{Error, Kind};
use crate::flux::annotated_csv::instant;
use crate::secret::Secret;
use crate::server::exchange::{Answer, Method, NoAnswer, Request};
use crate::server::http::Http;
use crate::server::kind::ServerKind;
use crate::server::outcome::shortened;
use crate::server::recognise;
use crate::server::refusal::remedy;
use crate::server::said::Said;
use graylogic_line::Timestamp;
use graylogic_store::Store;
use serde_json::Value;
use std::collections::HashSet;
use std::fmt;
use std::time::Duration;

/// Things of a page of a list: as many as InfluxDB gives at once.
pub(super) const PAGE: usize = 100;
/// More pages than this are not asked for.
const PAGES_MAX: usize = 1000;
/// So many pages at the beginning of a list may be all of things that the token may not see.
const PAGES_UNSEEN_MAX: usize = 10;
/// Longer answers are not read.
const ANSWER_BYTES_MAX: usize = 16 << 20;
/// Servers answer when all is deleted, which is a matter of how much there was.
const DELETING_TIMEOUT: Duration = Duration::from_secs(600);
/// Shorter secrets are words that a message may need.
const SECRET_BYTES_MIN: usize = 4;

/// What is managed.
#[derive(Clone)]
pub(crate) enum Managed {
    Embedded(Store),
    Server(Box<Server>),
}

/// A server, and the organisation that things of it are in.
#[derive(Clone)]
pub(crate) struct Server {
    pub(super) http: Http,
    pub(super) org: String,
    /// What no message may show, besides the token.
    secrets: Vec<Secret>,
}

impl Managed {
    /// A server, whose buckets, tokens and tasks are those of this organisation.
    pub(crate) fn server(http: Http, org: &str) -> Self {
        Self::Server(Box::new(Server { http, org: org.to_owned(), secrets: Vec::new() }))
    }

    /// What only InfluxDB 2 has; `lacks` is what all others have not, as in "has no tasks".
    pub(super) async fn influxdb2(self, doing: &str, lacks: &str) -> Result<Server, Error> {
        let server = match self {
            Self::Server(server) => *server,
            Self::Embedded(_) => return Err(unsupported(doing, "the embedded store", lacks)),
        };
        match server.kind(doing).await? {
            ServerKind::InfluxDb2 => Ok(server),
            kind => Err(unsupported(doing, kind, lacks)),
        }
    }
}

/// What a target cannot do.
pub(super) fn unsupported(doing: &str, target: impl fmt::Display, why: &str) -> Error {
    Error::new(Kind::Unsupported, format!("{doing}: {target} {why}: not supported here"))
}

/// A failure of the embedded store.
pub(super) fn of_store(doing: &str, error: graylogic_store::Error) -> Error {
    if error.is_closed() {
        return Error::closed();
    }
    let kind = if error.is_not_found() {
        Kind::NotFound
    } else if error.is_exists() {
        Kind::Exists
    } else {
        Kind::Refused
    };
    let retryable = error.is_retryable();
    Error::because(kind, doing, error).retryable(retryable)
}

impl Server {
    /// The same, which shows none of these either.
    pub(super) fn hiding(mut self, secrets: impl IntoIterator<Item = Secret>) -> Self {
        self.secrets.extend(secrets);
        self
    }

    /// What it is. One that does not show it is taken for InfluxDB 2, as it is for writing.
    pub(super) async fn kind(&self, doing: &str) -> Result<ServerKind, Error> {
        let found = recognise::recognised(&self.http).await.map_err(|why| self.silent(doing, why))?;
        Ok(found.map_or(ServerKind::InfluxDb2, |f| f.kind))
    }

    /// The answer to a request when it is a success.
    pub(super) async fn ask(&self, doing: &str, request: Request) -> Result<Answer, Error> {
        let answer = self.hear(doing, request).await?;
        match answer.status {
            200..300 if !Said::of(&answer).is_page && !says_failure(&answer.body) => Ok(answer),
            _ => Err(self.refused(doing, &answer)),
        }
    }

    /// Has something done whose success InfluxDB 2 and VictoriaMetrics answer with 204 and no content: nothing else is one.
    pub(super) async fn done(&self, doing: &str, request: Request) -> Result<(), Error> {
        match self.ask(doing, request).await?.status {
            204 => Ok(()),
            _ => Err(self.garbled(doing)),
        }
    }

    /// What a successful answer holds.
    pub(super) async fn json(&self, doing: &str, request: Request) -> Result<Value, Error> {
        let answer = self.ask(doing, request).await?;
        serde_json::from_slice(&answer.body).map_err(|_| self.garbled(doing))
    }

    /// What a successful answer holds, as a thing that it must be.
    pub(super) async fn thing<T>(
        &self,
        doing: &str,
        request: Request,
        read: fn(&Value) -> Option<T>,
    ) -> Result<T, Error> {
        read(&self.json(doing, request).await?).ok_or_else(|| self.garbled(doing))
    }

    /// All things of a list, asked for page by page: from a place in the list, or after the last one of the page before.
    ///
    /// A server leaves out what the token may not see after it has cut the pages: one that is not full, or has no word of a
    /// next, need not be the last. The first empty one is, when there was something before; a token that sees nothing of the
    /// first pages may see something of a later one.
    pub(super) async fn pages<T: Send>(
        &self,
        doing: &str,
        list: &str,
        page: impl Fn(usize, Option<&str>) -> Request + Send + Sync,
        read: fn(&Value) -> Option<T>,
        id: fn(&T) -> &str,
    ) -> Result<Vec<T>, Error> {
        let mut found: Vec<T> = Vec::new();
        let mut known = HashSet::new();
        let mut asked = Vec::new();
        for number in 0..PAGES_MAX {
            let request = page(number * PAGE, found.last().map(id));
            // The next page is that after the last thing, and there is none yet.
            let is_asked_again = number > 0 && request.query == asked;
            if is_asked_again && found.is_empty() {
                return Ok(found);
            }
            asked.clone_from(&request.query);
            let answer = self.json(doing, request).await?;
            let Some(items) = answer[list].as_array() else { return Err(self.garbled(doing)) };
            let before = found.len();
            for item in items {
                let thing = read(item).ok_or_else(|| self.garbled(doing))?;
                if known.insert(id(&thing).to_owned()) {
                    found.push(thing);
                }
            }
            let may_go_on =
                answer["links"]["next"].is_string() || (found.is_empty() && number + 1 < PAGES_UNSEEN_MAX);
            // One that has nothing new goes round in circles.
            if found.len() == before && (!items.is_empty() || !may_go_on) {
                return Ok(found);
            }
        }
        let message = format!("{doing}: {} has more than {PAGES_MAX} pages of them", self.http.base());
        Err(Error::new(Kind::Refused, message))
    }

    /// Adds the organisation to what is asked: a name, or an ID.
    pub(super) fn with_org(&self, request: Request) -> Request {
        match &*self.org {
            "" => request,
            id if is_id(id) => request.with("orgID", id),
            name => request.with("org", name),
        }
    }

    /// The ID of the organisation, which what is made there must name.
    pub(super) async fn org_id(&self, doing: &str) -> Result<String, Error> {
        if is_id(&self.org) {
            return Ok(self.org.clone());
        }
        if self.org.is_empty() {
            let message = format!("{doing}: no organisation is named; give influxdb.org");
            return Err(Error::new(Kind::InvalidConfig, message));
        }
        let found = self.json(doing, self.with_org(Request::get("api/v2/orgs"))).await?;
        if let Some(id) = text(&found["orgs"][0], "id") {
            return Ok(id);
        }
        // A token may see buckets of an organisation that it may not see itself.
        let request = self.with_org(Request::get("api/v2/buckets")).with("limit", "1");
        let found = self.json(doing, request).await?;
        text(&found["buckets"][0], "orgID").ok_or_else(|| {
            let org = &self.org;
            let message = format!(
                "{doing}: the token may not see organisation {org:?}; give it that right, or its ID as influxdb.org"
            );
            Error::new(Kind::Unauthorized, message)
        })
    }

    /// The answer to a request, whatever it says.
    pub(super) async fn hear(&self, doing: &str, mut request: Request) -> Result<Answer, Error> {
        if let Some(known) = self.http.recognised().map(|r| r.kind).or(self.http.configured()) {
            request.scheme = known.scheme();
        }
        if deletes(&request) {
            request.timeout = Some(DELETING_TIMEOUT);
        }
        let silent = |why| self.silent(doing, why);
        let (mut answer, pieces) = self.http.open(request).await.map_err(silent)?;
        if let Some(mut pieces) = pieces {
            while let Some(piece) = pieces.next().await {
                answer.body.extend_from_slice(&piece.map_err(silent)?);
                if answer.body.len() > ANSWER_BYTES_MAX {
                    let message = format!("{doing}: {} answers with too much to be read", self.http.base());
                    return Err(Error::new(Kind::Refused, message));
                }
            }
        }
        Ok(answer)
    }

    /// Whether an answer says that there is no such thing: of a bucket, say, and not of the organisation it is looked for in.
    pub(super) fn lacks(answer: &Answer, thing: &str) -> bool {
        answer.status == 404 && Said::of(answer).message.starts_with(thing)
    }

    /// An answer that is no success.
    pub(super) fn refused(&self, doing: &str, answer: &Answer) -> Error {
        let said = Said::of(answer);
        let base = self.http.base();
        if said.is_page {
            let (setting, why) = said.page_means();
            let page = said.page(answer.status);
            let remedy = if setting == "url" { "; check influxdb.url" } else { "" };
            let message = format!("{doing}: {base} answered {page}: {why}{remedy}");
            return Error::new(Kind::Refused, message);
        }
        let reason = shortened(&self.hidden(&said.message));
        let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let code = body["code"].as_str().unwrap_or_default();
        let kind = match answer.status {
            401 | 403 => Kind::Unauthorized,
            404 => Kind::NotFound,
            409 => Kind::Exists,
            422 if code == "conflict" => Kind::Exists,
            _ => Kind::Refused,
        };
        let passes = match answer.status {
            // 2.x answers so to what it will never do.
            500 => !reason.contains("retention policy duration"),
            408 | 425 | 429 | 502..=599 => true,
            _ => false,
        };
        let (colon, status) = (if reason.is_empty() { "" } else { ": " }, answer.status);
        let remedy = match status {
            300..=399 => remedy(answer, "").replacen("; it ", "; the server ", 1),
            401 if answer.wants_basic => remedy(answer, ""),
            401 | 403 => "; check influxdb.token and its rights".to_owned(),
            _ => String::new(),
        };
        let message = format!("{doing}: the server answered {status}{colon}{reason}{remedy}");
        Error::new(kind, message).retryable(passes)
    }

    /// No answer at all.
    pub(super) fn silent(&self, doing: &str, why: NoAnswer) -> Error {
        match why {
            NoAnswer::Stopped => Error::closed(),
            NoAnswer::Failed(why) => {
                Error::new(Kind::ConnectionFailed, format!("{doing}: {why}")).retryable(true)
            }
            NoAnswer::Unusable { reason, setting } => {
                let message = format!("{doing}: {reason}; check influxdb.{setting}");
                Error::new(Kind::ConnectionFailed, message)
            }
        }
    }

    /// An answer that does not hold what it should.
    pub(super) fn garbled(&self, doing: &str) -> Error {
        let base = self.http.base();
        let message =
            format!("{doing}: the answer of {base} is not understood; check influxdb.url and influxdb.kind");
        Error::new(Kind::Refused, message)
    }

    /// What a server says, which may repeat what it was told.
    pub(super) fn hidden(&self, message: &str) -> String {
        let (token, password) = (self.http.token(), self.http.basic_password());
        let secrets =
            self.secrets.iter().chain([&token, &password]).filter(|s| s.0.len() >= SECRET_BYTES_MIN);
        secrets.fold(message.to_owned(), |text, secret| text.replace(&*secret.0, "***"))
    }
}

impl fmt::Debug for Managed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Embedded(_) => f.write_str("embedded"),
            Self::Server(server) => f.write_str(server.http.base()),
        }
    }
}

/// Whether a request deletes what may be much.
fn deletes(request: &Request) -> bool {
    let says = |word: &str| request.query.iter().any(|(key, text)| *key == "q" && text.starts_with(word));
    let is_of_readings = request.path == "api/v2/delete" || request.path.ends_with("/delete_series");
    request.method == Method::DELETE || is_of_readings || says("DELETE") || says("DROP")
}

/// Whether a body is what servers say instead of a success, whatever the status: somebody on the way may have changed it.
fn says_failure(body: &[u8]) -> bool {
    /// What says no more than that is not longer.
    const BYTES_MAX: usize = 64 << 10;
    if body.len() > BYTES_MAX {
        return false;
    }
    let said: Value = serde_json::from_slice(body).unwrap_or_default();
    said["error"].is_string() || (said["code"].is_string() && said["message"].is_string())
}

/// Whether InfluxDB 2 takes it for an ID rather than a name.
pub(super) fn is_id(text: &str) -> bool {
    text.len() == 16 && text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// A path below a folder of the server; a name may hold anything, but for what means another place in a path however it is
/// written.
pub(super) fn path(doing: &str, folder: &str, name: &str, rest: &str) -> Result<String, Error> {
    if matches!(name, "" | "." | "..") {
        return Err(Error::new(Kind::NotFound, format!("{doing}: {name:?} is no ID")));
    }
    let mut path = folder.to_owned();
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => path.push(char::from(byte)),
            _ => path.push_str(&format!("%{byte:02X}")),
        }
    }
    path.push_str(rest);
    Ok(path)
}

/// A text of an object; `None` when it is not there or is empty.
pub(super) fn text(object: &Value, key: &str) -> Option<String> {
    object[key].as_str().filter(|t| !t.is_empty()).map(str::to_owned)
}

/// A time of an object.
pub(super) fn time(object: &Value, key: &str) -> Option<Timestamp> {
    // Go's nought, of the year 1, is no time that anything happened at.
    instant(object[key].as_str()?.as_bytes())?.ok().filter(|time| time.is_storable())
}

/// A length in whole seconds, as all servers want it.
pub(super) fn seconds(doing: &str, what: &str, length: Duration) -> Result<u64, Error> {
    if length.subsec_nanos() == 0 && length.as_secs() > 0 {
        return Ok(length.as_secs());
    }
    Err(Error::new(Kind::Refused, format!("{doing}: {what} is {length:?}; give whole seconds, one at least")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_in_their_place_of_a_path() {
        assert_eq!(path("x", "api/v2/buckets/", "0a", "").unwrap(), "api/v2/buckets/0a");
        assert_eq!(path("x", "t/", "../x?y#ü", "/runs").unwrap(), "t/%2E%2E%2Fx%3Fy%23%C3%BC/runs");
        assert_eq!(path("x", "t/", "...", "").unwrap(), "t/%2E%2E%2E");
    }
}
