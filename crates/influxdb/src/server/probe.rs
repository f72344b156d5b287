//! An empty write: it stores nothing, and a server judges it as it judges any other. Must not know what is made of the answer.

use crate::server::dialect::{Place, has_older_way};
use crate::server::exchange::{Answer, NoAnswer, Request};
use crate::server::http::Http;
use crate::server::kind::ServerKind;
use std::time::Duration;

/// What a server answers to an empty write, in its own way or an older one, and where it redirects writes to on the same
/// server. For plain threads; `timeout` is that of each request, `None` for the usual one.
pub(crate) fn empty_write(
    http: &Http,
    place: &Place,
    kind: ServerKind,
    timeout: Option<Duration>,
) -> Result<Answer, NoAnswer> {
    let mut write: fn(&Place, ServerKind, Vec<u8>, bool) -> Request = Place::write;
    let send = |request: Request| http.send(Request { timeout, ..request });
    let mut answer = send(write(place, kind, Vec::new(), false))?;
    if has_older_way(Some(kind), &answer) {
        write = Place::write_in_older_way;
        answer = send(write(place, kind, Vec::new(), false))?;
    }
    // Followed once, as lines are.
    let moved =
        answer.location.clone().filter(|to| matches!(answer.status, 307 | 308) && http.is_same_server(to));
    if let Some(location) = moved {
        answer = send(Request { location: Some(location), ..write(place, kind, Vec::new(), false) })?;
    }
    Ok(answer)
}
