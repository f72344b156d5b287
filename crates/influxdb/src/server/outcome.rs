//! What a server's answer to a write means for every line of it. Pure; the body counts before the code, because codes
//! alone lie (InfluxDB 2.0 answered 500 to lines it would never take).
//!
//! Sources: InfluxDB 2.8's recorded answers in `fixtures/http/`, the servers' code for 1.8 and 3 Core.

use crate::server::dropped::{Dropped, dropped};
use crate::server::exchange::Answer;
use crate::server::kind::ServerKind;
use crate::server::refusal::{WANTS_BASIC, moved};
use crate::server::retry::retry_after;
use crate::server::said::Said;
use crate::server::standing::Standing;
use graylogic_durable::Batch;
use std::collections::HashMap;
use std::time::Duration;

/// Longer reasons are cut.
const REASON_BYTES_MAX: usize = 500;

/// What became of the lines of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The server has them.
    Delivered,
    /// Nothing was taken; the same lines may be, later.
    Retry { reason: String, after: Option<Duration>, server_fault: bool },
    /// Nothing was taken, because of these lines: places in the request, and the reasons.
    Refused(Vec<(usize, String)>),
    /// Everything was taken but these lines.
    Dropped(Vec<(usize, String)>),
    /// Everything was taken but these lines and perhaps others; when none is named, some that the answer does not name, and
    /// the suspects probably among them.
    Partial { named: Vec<(usize, String)>, suspects: Vec<usize>, reason: String },
    /// Nothing was taken, because of lines that the answer does not name.
    Unnamed(String),
    /// The same, as it seems; but nothing has shown yet that the server takes writes at this address.
    Unproven(String),
    /// The request is too long.
    TooLarge(String),
    /// The server does not read gzip.
    NotGzip,
    /// Nothing is taken until somebody changes this setting.
    Held { reason: String, setting: &'static str },
    /// The server takes writes at another place.
    Redirect(String),
}

impl Outcome {
    /// Whether a server judged the lines, or the way in which they came.
    pub(crate) fn is_a_verdict(&self) -> bool {
        !matches!(self, Self::Retry { .. } | Self::Held { .. } | Self::Redirect(_) | Self::Unproven(_))
    }

    /// Whether it shows that the server takes writes at this place.
    pub(crate) fn proves_the_place(&self) -> bool {
        matches!(self, Self::Delivered | Self::Refused(_) | Self::Dropped(_) | Self::Partial { .. })
    }
}

/// Reads the answer of a server of this standing to a write of these lines, given as places in the batch.
pub(crate) fn read(
    answer: &Answer,
    batch: &Batch,
    places: &[usize],
    gzip: bool,
    standing: Standing,
    now_unix: i64,
) -> Outcome {
    let said = Said::of(answer);
    let standing = standing.seen_in(answer);
    let is_verdict = standing.rejects_in(&said);
    let reason = || said.reason(answer.status);
    let held = |setting| Outcome::Held { reason: reason(), setting };
    let named = || named(&said, batch, places);
    let refused = || refused(named(), reason(), is_verdict, standing);
    if said.message.contains("partial write") && answer.status >= 300 && is_verdict {
        let named = named();
        let found = if named.is_empty() { dropped(&said.message, batch, places) } else { Dropped::Unknown };
        let suspects = match found {
            Dropped::These(found) => {
                return Outcome::Dropped(found.into_iter().map(|place| (place, reason())).collect());
            }
            Dropped::Perhaps(suspects) => suspects,
            Dropped::Unknown => Vec::new(),
        };
        return Outcome::Partial { named, suspects, reason: reason() };
    }
    let permanent = ["unable to parse", "field type conflict"].iter().any(|p| said.message.contains(p));
    let after = || answer.retry_after.as_deref().and_then(|t| retry_after(t, now_unix));
    match answer.status {
        // A page is what a proxy answers, or some other program at this address.
        200..300 if said.is_page => by_page(&said, answer.status),
        200..300 if standing.has_stored(answer) => Outcome::Delivered,
        // InfluxDB's cloud has stored some of the lines and says why not the others.
        201 if is_verdict => Outcome::Partial { named: named(), suspects: Vec::new(), reason: reason() },
        200..300 => {
            let (setting, reason) = standing.disbelief(answer);
            Outcome::Held { reason, setting }
        }
        // Nor did whoever wrote a page read the lines.
        400 | 403 | 422 if said.is_page => by_page(&said, answer.status),
        400 if said.message.starts_with(SPEAKS_TLS) || is_nowhere(&said.message) => held("url"),
        307 | 308 if answer.location.is_some() => {
            Outcome::Redirect(answer.location.clone().unwrap_or_default())
        }
        // InfluxDB 1 has users of its own, which a token may name.
        401 if answer.wants_basic && standing.kind != Some(ServerKind::InfluxDb1) => {
            Outcome::Held { reason: format!("{}; {WANTS_BASIC}", reason()), setting: "basic_user" }
        }
        401 => held("token"),
        403 => held("token"),
        404 => match not_found(&said.message) {
            "url" => Outcome::Held { reason: no_such_place(&reason(), answer), setting: "url" },
            setting => held(setting),
        },
        413 if places.len() == 1 && standing.kind.is_none() => {
            Outcome::Held { reason: standing.doubt(&reason()), setting: "url" }
        }
        413 if places.len() == 1 && !standing.is_proven => Outcome::Unproven(reason()),
        413 => Outcome::TooLarge(reason()),
        415 => not_gzip(gzip, reason()),
        // Bytes changed on their way.
        400 if said.message.contains("unable to read data") => {
            Outcome::Retry { reason: reason(), after: after(), server_fault: false }
        }
        400 if gzip && !permanent && said.message.to_lowercase().contains("gzip") => Outcome::NotGzip,
        // It took what was compressed for a line.
        400 if gzip && said.message.contains(QUOTES_GZIP) => Outcome::NotGzip,
        // Nanoseconds are what every InfluxDB takes.
        400 if !permanent && said.message.contains("invalid precision") => held("url"),
        400 if is_about_org(&said.message) => held("org"),
        400 if !permanent && is_about_name(&said.message) => held("bucket"),
        // 3 Core has room for a few databases, and makes them by itself.
        400..500 if said.message.contains("would exceed limit of") && said.message.contains("database") => {
            held("bucket")
        }
        400 | 422 => refused(),
        500..600 if permanent && is_verdict => refused(),
        // Some buckets are there and have nothing behind them: 2.x for those of its own. And 1.x answers so to a retention
        // policy that is not there.
        500..600 if is_about_bucket(&said.message) => held("bucket"),
        408 | 425 | 429 | 500..600 => Outcome::Retry {
            reason: reason(),
            after: after(),
            server_fault: !matches!(answer.status, 408 | 425 | 429 | 502..=504)
                && !is_overload(&said.message),
        },
        _ => match moved(answer) {
            Some(moved) => Outcome::Held {
                reason: format!("the server does not take writes here: {moved}"),
                setting: "url",
            },
            None => held("url"),
        },
    }
}

/// What to do about a page in place of a server's words.
fn by_page(said: &Said, status: u16) -> Outcome {
    let (setting, why) = said.page_means();
    Outcome::Held { reason: format!("the server answered {}: {why}", said.page(status)), setting }
}

/// What to do about lines that a server rejects. Who names lines of ours has read them, in whatever form he says so.
fn refused(named: Vec<(usize, String)>, reason: String, is_verdict: bool, standing: Standing) -> Outcome {
    if !named.is_empty() && standing.kind.is_some() {
        Outcome::Refused(named)
    } else if !is_verdict {
        Outcome::Held { reason: standing.doubt(&reason), setting: "url" }
    } else if standing.is_proven {
        Outcome::Unnamed(reason)
    } else {
        Outcome::Unproven(reason)
    }
}

fn not_gzip(gzip: bool, reason: String) -> Outcome {
    if gzip { Outcome::NotGzip } else { Outcome::Held { reason, setting: "url" } }
}

/// What nobody answers for at this address, in words that help to find out why.
fn no_such_place(reason: &str, answer: &Answer) -> String {
    match &answer.version {
        Some(version) => format!("{reason}; it is InfluxDB {version}, which takes no writes at this address"),
        None => format!("{reason}; whoever answers takes no writes at this address"),
    }
}

fn not_found(message: &str) -> &'static str {
    let low = message.to_lowercase();
    if low.contains("bucket") || low.contains("database") {
        "bucket"
    } else if low.contains("organization") {
        "org"
    } else {
        "url"
    }
}

fn is_about_bucket(message: &str) -> bool {
    ["database not found", "retention policy not found"].iter().any(|text| message.contains(text))
}

/// What programs written in Go answer to `http://` where they speak TLS.
const SPEAKS_TLS: &str = "Client sent an HTTP request to an HTTPS server";

/// What VictoriaMetrics, and what stands before it, answers where it takes nothing; behind whom it answers.
fn is_nowhere(message: &str) -> bool {
    let last = message.rsplit("; ").next().unwrap_or(message);
    ["unsupported path requested: ", "cannot parse path ", "missing route for "]
        .iter()
        .any(|text| last.starts_with(text))
}

/// The name of a database that 3 Core would not make: no line of it is at fault.
fn is_about_name(message: &str) -> bool {
    message.contains("invalid character in database") || message.starts_with("db name ")
}

/// An overloaded server says nothing of the lines: its cache is full until it has written it down, its disk is slow, or it is
/// ending.
fn is_overload(message: &str) -> bool {
    ["cache-max-memory-size exceeded", "timeout", "write failed", "engine is closed"]
        .iter()
        .any(|text| message.contains(text))
}

fn is_about_org(message: &str) -> bool {
    ["either orgID or org", "id must have a length of 16 bytes", "invalid ID", "organization"]
        .iter()
        .any(|text| message.contains(text))
        && !message.contains("unable to parse")
}

/// The lines that an answer names, in the order of their places, each with its reason.
fn named(said: &Said, batch: &Batch, places: &[usize]) -> Vec<(usize, String)> {
    let mut found: Vec<(usize, String)> = Vec::new();
    for (number, text, reason) in &said.numbered {
        let place = number.checked_sub(1).and_then(|i| places.get(i)).copied();
        // InfluxDB 3 counts lines, and quotes text lines, of which a string may hold several: what does not fit together names
        // nothing.
        if let Some(place) = place
            && is_quote_of(text, quoted_form(batch.line(place)))
        {
            found.push((place, shortened(reason)));
        }
    }
    if said.message.contains(QUOTE_OPENS) {
        let mut by_text: HashMap<String, Vec<usize>> = HashMap::new();
        for &place in places {
            let text = String::from_utf8_lossy(quoted_form(batch.line(place))).into_owned();
            by_text.entry(text).or_default().push(place);
        }
        for (text, reason) in quotes(&said.message, &by_text) {
            for &place in by_text.get(text).into_iter().flatten() {
                found.push((place, format!("unable to parse: {}", shortened(reason))));
            }
        }
    }
    found.sort_by_key(|f| f.0);
    found.dedup_by_key(|f| f.0);
    found
}

const QUOTE_OPENS: &str = "unable to parse '";
const QUOTE_ENDS: &str = "': ";
/// The first bytes of a compressed body, quoted as a line: the second is no UTF-8.
const QUOTES_GZIP: &str = "unable to parse '\u{1f}\u{fffd}";

/// Whether a text in an answer is this line, or its first text line, or the beginning of it, marked as cut.
fn is_quote_of(text: &str, line: &[u8]) -> bool {
    let first = line.split(|b| *b == b'\n').next().unwrap_or_default();
    let begin = text.trim_end_matches(['…', '.']);
    let is_cut = begin.len() < text.len() && !begin.is_empty();
    [line, first].contains(&text.as_bytes()) || (is_cut && line.starts_with(begin.as_bytes()))
}

/// A line as servers quote it: without the line end and the white space before it.
fn quoted_form(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let start = line.iter().position(|b| !b" \t\0".contains(b)).unwrap_or(line.len());
    &line[start..]
}

/// The quotes of a message that are lines of the request, with their reasons. A line may hold anything that marks the
/// end of a quote, so every end is tried.
fn quotes<'a>(message: &'a str, lines: &HashMap<String, Vec<usize>>) -> Vec<(&'a str, &'a str)> {
    let longest = lines.keys().map(String::len).max().unwrap_or(0);
    let mut found = Vec::new();
    let mut rest = message;
    while let Some(opens) = rest.find(QUOTE_OPENS) {
        let from = &rest[opens + QUOTE_OPENS.len()..];
        let mut end = 0;
        let mut matched = None;
        while let Some(next) = from[end..].find(QUOTE_ENDS) {
            end += next;
            if end > longest {
                break;
            }
            if lines.contains_key(&from[..end]) {
                matched = Some(end);
                break;
            }
            end += 1;
        }
        match matched {
            Some(end) => {
                let reason = &from[end + QUOTE_ENDS.len()..];
                // An answer that was cut is no JSON any more, and its line ends are still written as two characters.
                let next =
                    ["\nunable to parse '", "\\nunable to parse '"].iter().filter_map(|n| reason.find(n));
                let reason_ends = next.min().unwrap_or(reason.len());
                found.push((&from[..end], &reason[..reason_ends]));
                rest = &reason[reason_ends..];
            }
            None => rest = from,
        }
    }
    found
}

/// A reason of bounded length.
pub(crate) fn shortened(text: &str) -> String {
    let text = text.trim();
    match text.char_indices().find(|(i, c)| i + c.len_utf8() > REASON_BYTES_MAX) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, dead_code, unreachable_pub, reason = "shared with a test of the whole client")]
#[path = "../../tests/recorded/mod.rs"]
mod recorded;

#[cfg(test)]
mod tests {
    use super::recorded::{Fate, Step, writes};
    use super::*;

    fn batch(lines: &[&str]) -> Batch {
        let mut batch = Batch::default();
        for line in lines {
            batch.bytes.extend_from_slice(line.as_bytes());
            batch.bytes.push(b'\n');
            batch.ends.push(batch.bytes.len() as u32);
        }
        batch
    }

    fn check(status: u16, body: &str, lines: &[&str]) -> Outcome {
        check_of(ServerKind::InfluxDb2, status, body, lines)
    }

    fn check_of(kind: ServerKind, status: u16, body: &str, lines: &[&str]) -> Outcome {
        let answer = Answer { status, body: body.as_bytes().to_vec(), ..Answer::default() };
        let places: Vec<usize> = (0..lines.len()).collect();
        read(
            &answer,
            &batch(lines),
            &places,
            false,
            Standing { kind: Some(kind), is_proven: true, shows_itself: false },
            0,
        )
    }

    const PROVEN: Standing =
        Standing { kind: Some(ServerKind::InfluxDb2), is_proven: true, shows_itself: false };

    fn places(outcome: &Outcome) -> Vec<usize> {
        match outcome {
            Outcome::Refused(named) | Outcome::Dropped(named) | Outcome::Partial { named, .. } => {
                named.iter().map(|n| n.0).collect()
            }
            _ => Vec::new(),
        }
    }

    #[test]
    fn exactly_the_quoted_lines_are_refused() {
        let lines =
            ["m f=1 1", "bad", "m f=x 3", "bad", "m s=\"': unable to parse 'm f=1 1': \" 4", " n f= 5"];
        let body = |quoted: &[&str]| {
            let all: Vec<String> =
                quoted.iter().map(|q| format!("unable to parse '{q}': missing fields")).collect();
            serde_json::json!({ "code": "invalid", "message": all.join("\n") }).to_string()
        };
        for (quoted, expected) in [
            (vec!["bad"], vec![1, 3]),
            (vec!["bad", "m f=x 3"], vec![1, 2, 3]),
            (vec!["n f= 5"], vec![5]),
            (vec![lines[4]], vec![4]),
            (vec!["m f=1 1", "nobody sent this"], vec![0]),
        ] {
            let outcome = check(400, &body(&quoted), &lines);
            assert!(matches!(outcome, Outcome::Refused(_)));
            assert_eq!(places(&outcome), expected, "{quoted:?}");
        }
        assert!(matches!(check(400, &body(&["nobody sent this"]), &lines), Outcome::Unnamed(_)));
        let body_1 = r#"{"error":"partial write: unable to parse 'bad': missing fields dropped=0"}"#;
        assert_eq!(places(&check_of(ServerKind::InfluxDb1, 400, body_1, &lines)), [1, 3]);
        let body_3 = r#"{"error":"partial write of line protocol occurred","data":[{"original_line":"m f=x 3","line_number":3,"error_message":"no"},{"original_line":"other","line_number":1,"error_message":"no"}]}"#;
        let outcome = check_of(ServerKind::InfluxDb3, 400, body_3, &lines);
        assert!(matches!(outcome, Outcome::Partial { .. }));
        assert_eq!(places(&outcome), [2]);
    }

    #[test]
    fn codes_and_bodies_are_told_apart() {
        let lines = ["m f=1 1"];
        let conflict = r#"{"code":"x","message":"failure writing points to database: partial write: field type conflict: input field \"f\" on measurement \"m\" is type string, already exists as type float dropped=1"}"#;
        for status in [400, 422, 500] {
            assert_eq!(places(&check(status, conflict, &lines)), [0], "{status}");
        }
        let setting = |status, body: &str| match check(status, body, &lines) {
            Outcome::Held { setting, .. } => setting,
            other => panic!("{other:?}"),
        };
        assert_eq!(setting(401, r#"{"code":"unauthorized","message":"unauthorized access"}"#), "token");
        assert_eq!(setting(403, "{}"), "token");
        assert_eq!(setting(404, r#"{"message":"bucket \"x\" not found"}"#), "bucket");
        assert_eq!(setting(404, r#"{"error":"database not found: \"x\""}"#), "bucket");
        assert_eq!(setting(404, r#"{"message":"organization name \"x\" not found"}"#), "org");
        assert_eq!(setting(500, r#"{"error":"retention policy not found: week"}"#), "bucket");
        let limit = r#"{"error":"Adding a new database would exceed limit of 5 databases"}"#;
        assert_eq!(setting(422, limit), "bucket");
        assert_eq!(setting(404, "404 page not found"), "url");
        let old = Answer {
            status: 404,
            version: Some("1.6.7".to_owned()),
            body: b"404 page not found".to_vec(),
            ..Answer::default()
        };
        let Outcome::Held { reason, .. } = read(&old, &batch(&lines), &[0], false, PROVEN, 0) else {
            panic!()
        };
        assert_eq!(
            reason,
            "the server answered 404: 404 page not found; it is InfluxDB 1.6.7, which takes no writes at this address"
        );
        assert_eq!(setting(400, r#"{"message":"Please provide either orgID or org"}"#), "org");
        assert_eq!(setting(200, "<!DOCTYPE html><p>Welcome"), "url");
        // What answers is no InfluxDB, and says nothing of the lines.
        for status in [400, 422] {
            assert_eq!(setting(status, "<html>The plain HTTP request was sent to HTTPS port"), "url");
        }
        // As nginx 1.22 writes it.
        let nginx = |title: &str| {
            format!(
                "<html>\r\n<head><title>{title}</title></head>\r\n<body>\r\n<center><h1>400 Bad Request</h1></center>"
            )
        };
        let said = |status, body: &str| match check(status, body, &lines) {
            Outcome::Held { reason, setting } => (setting, reason),
            Outcome::Retry { reason, .. } => ("", reason),
            other => panic!("{other:?}"),
        };
        for (title, expected, says) in [
            (
                "400 No required SSL certificate was sent",
                "certificate_file",
                "wants a certificate of this client",
            ),
            ("400 The SSL certificate error", "certificate_file", "refuses this client's certificate"),
            ("400 The plain HTTP request was sent to HTTPS port", "url", "write https://"),
            ("400 Bad Request", "url", "it is no InfluxDB"),
        ] {
            let (setting, reason) = said(400, &nginx(title));
            assert_eq!(setting, expected, "{title}");
            assert!(reason.contains(says) && reason.contains(title), "{reason}");
        }
        let page = "the server answered 502 with a web page, \"502 Bad Gateway\"";
        assert_eq!(said(502, &nginx("502\u{7} Bad\n Gateway")), ("", page.to_owned()));
        assert_eq!(said(502, "<html><title>é").1, "the server answered 502 with a web page");
        // As HAProxy 2.6 writes it; who keeps out all writes has not read the token.
        let haproxy = "<html><body><h1>403 Forbidden</h1>\nRequest forbidden by administrative rules.\n</body></html>\n";
        let page = "the server answered 403 with a web page, \"403 Forbidden\": it is no InfluxDB";
        assert_eq!(said(403, haproxy), ("url", page.to_owned()));
        assert_eq!(setting(400, "Client sent an HTTP request to an HTTPS server.\n"), "url");
        // VictoriaMetrics says with 400 that nothing is there, and what stands before it that it leads nowhere.
        for text in [
            "remoteAddr: \"127.0.0.1:1\"; requestURI: /x/api/v2/write; unsupported path requested: \"/x/api/v2/write\"",
            "remoteAddr: \"127.0.0.1:1\"; cannot parse path \"/insert/0\": cannot find {authToken}",
            "missing route for \"http://vm/api/v2/write\"",
        ] {
            assert_eq!(setting(400, text), "url", "{text}");
        }
        // Names that 3 Core cannot have.
        for name in [
            r#"{"error":"invalid character in database name: must be ASCII, containing only letters, numbers, underscores, or hyphens"}"#,
            "invalid character in database or rp name: must be ASCII, containing only letters, numbers, underscores, or hyphens",
            "db name did not start with a number or letter",
            "db name too long: max 64",
        ] {
            assert_eq!(setting(400, name), "bucket");
        }
        let line =
            r#"{"code":"invalid","message":"unable to parse 'db name cannot be empty': missing fields"}"#;
        assert!(matches!(check(400, line, &lines), Outcome::Unnamed(_)));
        assert_eq!(setting(405, ""), "url");
        assert_eq!(setting(302, ""), "url");
        assert_eq!(check(204, "", &lines), Outcome::Delivered);
        for (status, body) in [(200, "{}"), (200, "ok"), (200, ""), (202, "")] {
            assert_eq!(setting(status, body), "url");
        }
        let faults: Vec<bool> = [408, 425, 429, 500, 501, 502, 503, 504, 599]
            .into_iter()
            .map(|status| match check(status, "busy", &lines) {
                Outcome::Retry { server_fault, .. } => server_fault,
                other => panic!("{status}: {other:?}"),
            })
            .collect();
        assert_eq!(faults, [false, false, false, true, true, false, false, false, true]);
        for overload in [
            "unexpected error writing points to database: engine: cache-max-memory-size exceeded: (1/2)",
            "unexpected error writing points to database: timeout",
            "unexpected error writing points to database: write failed",
        ] {
            let outcome = check(500, overload, &lines);
            assert!(matches!(outcome, Outcome::Retry { server_fault: false, .. }), "{overload}");
        }
        assert!(matches!(check(413, "", &lines), Outcome::TooLarge(_)));
        let some = r#"{"code":"invalid","message":"failed to parse line protocol: errors encountered on line(s): 1"}"#;
        assert!(matches!(check(201, some, &lines), Outcome::Partial { .. }));
        assert!(matches!(
            check(500, r#"{"code":"internal error","message":"unable to parse points"}"#, &lines),
            Outcome::Unnamed(_)
        ));
        let checksum = r#"{"message":"unable to read data: gzip: invalid checksum"}"#;
        assert!(matches!(check(400, checksum, &lines), Outcome::Retry { .. }));
    }

    #[test]
    fn a_string_of_several_text_lines_moves_the_blame_to_no_healthy_line() {
        let lines = ["m s=\"a\n\nb\" 1", "m f=1 2", "m f=2 3", "m f=x 4"];
        // By its place among the lines, with the text line that has this number; by the number of the text line.
        for (number, text) in [(4, "m f=1 2"), (6, "m f=x 4"), (2, ""), (3, "b\" 1")] {
            let body = serde_json::json!({
                "error": "partial write of line protocol occurred",
                "data": [{ "original_line": text, "line_number": number, "error_message": "no" }],
            });
            let outcome = check(400, &body.to_string(), &lines);
            assert!(places(&outcome).is_empty(), "{number} {text:?}: {outcome:?}");
        }
        for (number, text) in [(4, "m f=x 4"), (4, "m f=…"), (1, "m s=\"a"), (1, "m s=\"a\n\nb\" 1")] {
            let body = serde_json::json!({
                "error": "partial write of line protocol occurred",
                "data": [{ "original_line": text, "line_number": number, "error_message": "no" }],
            });
            let outcome = check(400, &body.to_string(), &lines);
            assert_eq!(places(&outcome), [number - 1], "{outcome:?}");
        }
        let quoted = "{\"message\":\"unable to parse 'm s=\\\"a\\n\\nb\\\" 1': no\"}";
        assert_eq!(places(&check(400, quoted, &lines)), [0]);
    }

    #[test]
    fn lines_are_not_judged_where_nothing_was_ever_taken() {
        let unnamed = r#"{"code":"invalid","message":"no"}"#;
        let named = r#"{"code":"invalid","message":"unable to parse 'm f=1 1': no"}"#;
        let read_as = |standing, status, body: &str| {
            let answer = Answer { status, body: body.as_bytes().to_vec(), ..Answer::default() };
            read(&answer, &batch(&["m f=1 1"]), &[0], false, standing, 0)
        };
        let known = Standing { is_proven: false, ..PROVEN };
        for (status, body) in [(400, unnamed), (422, unnamed), (413, unnamed)] {
            assert!(matches!(read_as(known, status, body), Outcome::Unproven(_)), "{status} {body}");
            let proven = read_as(PROVEN, status, body);
            assert!(matches!(proven, Outcome::Unnamed(_) | Outcome::TooLarge(_)), "{status} {body}");
        }
        assert!(matches!(read_as(known, 400, named), Outcome::Refused(_)));
        for (status, body) in [(400, unnamed), (400, named), (422, unnamed), (413, unnamed), (204, "")] {
            let hidden = read_as(Standing::default(), status, body);
            assert!(matches!(hidden, Outcome::Held { .. }), "{status} {body}: {hidden:?}");
        }
        // A server that breaks is one that breaks, whoever it is.
        let broken = r#"{"error":"partial write: unable to parse points"}"#;
        assert!(matches!(read_as(Standing::default(), 500, broken), Outcome::Retry { .. }));
    }

    #[test]
    fn an_answer_that_was_cut_still_names_its_lines() {
        let lines: Vec<String> = (0..100).map(|i| format!("m,d=d{i} f=x {i}")).collect();
        let said: Vec<String> =
            lines.iter().map(|l| format!("unable to parse '{l}': invalid boolean")).collect();
        let body = serde_json::json!({ "code": "invalid", "message": said.join("\n") }).to_string();
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let outcome = check(400, &body[..body.len() / 2], &lines);
        // All that came whole, each with its own reason; the last may have come in part.
        assert!(places(&outcome).len() >= 48, "{outcome:?}");
        let Outcome::Refused(named) = outcome else { panic!() };
        assert!(named[..48].iter().all(|n| n.1 == "unable to parse: invalid boolean"), "{named:?}");
    }

    /// What is read of a recorded answer otherwise than the recording has it.
    fn misread(step: &Step) -> Option<String> {
        let lines: Vec<String> = step.lines.iter().map(|l| String::from_utf8_lossy(l).into_owned()).collect();
        let batch = batch(&lines.iter().map(String::as_str).collect::<Vec<_>>());
        let header =
            |name: &str| step.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.clone());
        let answer = Answer {
            status: step.status,
            content_type: header("Content-Type").unwrap_or_default(),
            location: header("Location"),
            body: step.body.clone().into_bytes(),
            ..Answer::default()
        };
        let places: Vec<usize> = (0..batch.len()).collect();
        let outcome = read(&answer, &batch, &places, step.is_gzip, PROVEN, 0);
        let is_right = match (&step.fate, &outcome) {
            (Fate::Settled(lines), Outcome::Delivered) => lines.iter().all(Option::is_none),
            (Fate::Settled(lines), Outcome::Refused(named)) => {
                let of_line = |(i, words): (usize, &Option<String>)| {
                    Some((i, format!("unable to parse: {}", words.as_ref()?)))
                };
                step.status == 400
                    && *named == lines.iter().enumerate().filter_map(of_line).collect::<Vec<_>>()
            }
            // The server stored the rest, and names no line.
            (Fate::Settled(lines), Outcome::Dropped(named)) => {
                let expected = lines.iter().enumerate().filter(|(_, words)| words.is_some());
                step.status == 422
                    && named.iter().map(|n| n.0).eq(expected.map(|(i, _)| i))
                    && lines.iter().flatten().all(|w| named.iter().all(|n| n.1.contains(&shortened(w))))
            }
            (Fate::Again, Outcome::Retry { reason, .. }) => reason.contains(&step.message),
            (Fate::Plain, Outcome::NotGzip) => true,
            (Fate::Held(expected), Outcome::Held { reason, setting }) => {
                expected == setting && reason.contains(&step.message)
            }
            (Fate::Elsewhere(expected), Outcome::Redirect(place)) => expected == place,
            _ => false,
        };
        (!is_right).then(|| format!("{}: {:?} in place of {:?}", step.name, outcome, step.fate))
    }

    #[test]
    fn every_recorded_answer_is_read_as_the_recording_has_it() {
        let steps = writes();
        let misread: Vec<String> = steps.iter().filter_map(misread).collect();
        assert!(misread.is_empty(), "{} of {}:\n{}", misread.len(), steps.len(), misread.join("\n"));
        // The recordings show each of these.
        let has = |what: fn(&Fate) -> bool| steps.iter().any(|s| what(&s.fate));
        assert!(has(|f| matches!(f, Fate::Settled(lines) if lines.iter().any(Option::is_some))));
        assert!(has(|f| *f == Fate::Again) && has(|f| *f == Fate::Plain));
        for setting in ["token", "org", "bucket", "url"] {
            assert!(steps.iter().any(|s| s.fate == Fate::Held(setting)), "{setting}");
        }
        assert!(has(|f| matches!(f, Fate::Elsewhere(_))));
    }
}
