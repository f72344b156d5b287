//! What the answer to an empty write says of token, organization, bucket and right: a check for each. Must not know how the
//! answer came.

use super::Preflight;
use crate::server::dialect::Place;
use crate::server::exchange::Answer;
use crate::server::http::Http;
use crate::server::kind::ServerKind;
use crate::server::outcome::{self, Outcome};
use crate::server::refusal::moved;
use crate::server::standing::Standing;
use graylogic_durable::Batch;

/// Reads the answer to a write of nothing, which a server judges in the order of the checks: token, organisation, bucket,
/// right.
pub(super) fn judge(
    mut preflight: Preflight,
    answer: &Answer,
    kind: ServerKind,
    standing: Standing,
    place: &Place,
    http: &Http,
) -> Preflight {
    let base = http.base();
    let token = match http.token().is_empty() {
        true => "there is none in the configuration, and the server wants none",
        false => "the server takes it",
    };
    let Place { org, bucket } = place;
    let container =
        if kind == ServerKind::InfluxDb1 || kind == ServerKind::InfluxDb3 { "database" } else { "bucket" };
    let outcome = match standing.takes_writes(answer) {
        true => Outcome::Delivered,
        false => outcome::read(answer, &Batch::default(), &[], false, standing, 0),
    };
    match outcome {
        Outcome::Delivered => {
            preflight.good("token", token);
            if kind == ServerKind::InfluxDb2 {
                preflight.good("organisation", format!("{org:?} is there"));
            }
            preflight.good("bucket", format!("{container} {bucket:?} takes readings"));
            preflight.good("write", "a write of nothing went through");
            preflight
        }
        Outcome::Held { reason, setting: "token" } if answer.status == 401 => preflight.ends(
            "token",
            Some("token"),
            format!(
                "{base} does not know the token: {reason}; give a valid one, check influxdb.token{}",
                oddity(&http.token().0)
            ),
        ),
        Outcome::Held { reason, setting: "basic_user" } => {
            preflight.ends("token", Some("basic_user"), format!("{base} does not take writes: {reason}"))
        }
        Outcome::Held { reason, setting: "token" } => preflight.ends(
            "write",
            Some("token"),
            format!(
                "{base} knows the token, which may not write to {container} {bucket:?}: {reason}; give it that right, or \
                 another one, check influxdb.token"
            ),
        ),
        Outcome::Held { reason, setting: "org" } => {
            preflight.good("token", token);
            preflight.ends(
                "organisation",
                Some("org"),
                format!("{base} has no organisation {org:?} that the token may see: {reason}; check influxdb.org"),
            )
        }
        Outcome::Held { reason, setting: "bucket" } => {
            preflight.good("token", token);
            if kind == ServerKind::InfluxDb2 {
                preflight.good("organisation", format!("{org:?} is there"));
            }
            preflight.ends(
                "bucket",
                Some("bucket"),
                format!("{base} has no {container} {bucket:?}: {reason}; create it, or check influxdb.bucket"),
            )
        }
        Outcome::Held { reason, setting } => {
            let names_it = reason.contains(&format!("influxdb.{setting}"));
            let remedy = if names_it { String::new() } else { format!("; check influxdb.{setting}") };
            let says = format!("{base} does not take writes: {reason}{remedy}");
            preflight.ends("write", Some(setting), says)
        }
        Outcome::Retry { reason, .. } => {
            preflight.ends("write", None, format!("{base} does not take writes: {reason}"))
        }
        // No line is at fault where there is none.
        Outcome::Unnamed(reason)
        | Outcome::Unproven(reason)
        | Outcome::TooLarge(reason)
        | Outcome::Partial { reason, .. } => preflight.ends(
            "write",
            Some("url"),
            format!("{base} rejects even an empty write: {reason}; check influxdb.url"),
        ),
        Outcome::Refused(_) | Outcome::Dropped(_) => preflight.ends(
            "write",
            Some("url"),
            format!("{base} rejects lines that were not sent; check influxdb.url"),
        ),
        Outcome::NotGzip | Outcome::Redirect(_) => {
            let why = moved(answer).unwrap_or_else(|| "check influxdb.url".to_owned());
            preflight.ends("write", Some("url"), format!("{base} does not take writes: {why}"))
        }
    }
}

/// What looks like a mistake in a token that a server does not know; the token is not shown.
fn oddity(token: &str) -> &'static str {
    let has_scheme = token.split_once(' ').is_some_and(|(word, _)| {
        ["token", "bearer", "basic"].iter().any(|scheme| word.eq_ignore_ascii_case(scheme))
    });
    let is_quoted = ['"', '\''].iter().any(|quote| token.starts_with(*quote) && token.ends_with(*quote));
    match token {
        "" => ": there is none",
        _ if has_scheme => ": it begins with the word that requests put before it, which must be left out",
        _ if is_quoted => ": there are quotes in it, at both ends, which must be left out",
        token if token.trim() != token => ": there is white space at an end of it, which must be left out",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistakes_in_a_token_are_named_and_not_the_token() {
        for (token, says) in [
            ("", ": there is none"),
            ("Token abc", "the word that requests put before it"),
            ("bearer abc", "the word that requests put before it"),
            ("\"abc\"", "quotes"),
            ("'abc'", "quotes"),
            (" abc", "white space"),
            ("abc", ""),
            ("token", ""),
            ("user:pass word", ""),
        ] {
            let odd = oddity(token);
            assert!(
                odd.contains(says) && odd.is_empty() == says.is_empty() && !odd.contains("abc"),
                "{token}: {odd}"
            );
        }
    }
}
