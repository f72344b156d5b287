//! What a server says when it refuses a request: its code and its message, whichever way it puts them. Pure.

use crate::server::exchange::Answer;
use crate::server::said::page_words;
use serde_json::Value;

/// Longer messages are cut.
const MESSAGE_BYTES_MAX: usize = 4096;

/// Code and message of an answer that is no success. InfluxDB 2 sends `{"code", "message"}`, InfluxDB 1 and 3 send
/// `{"error"}`, proxies send text or a web page, and some send nothing. The code is one of InfluxDB 2's words, by the
/// status where the answer has none.
pub(crate) fn server_error(status: u16, body: &[u8]) -> (String, String) {
    let json: Option<Value> = serde_json::from_slice(body).ok();
    let said = |name: &str| json.as_ref()?.get(name)?.as_str().filter(|s| !s.is_empty()).map(str::to_owned);
    let code = said("code").unwrap_or_else(|| code_of(status).to_owned());
    let message = said("message").or_else(|| said("error")).unwrap_or_else(|| {
        let text = String::from_utf8_lossy(body);
        let text = text.trim();
        let is_page = text.starts_with('<');
        match text {
            "" => format!("the server answered {status} and said nothing"),
            _ if is_page => page_words(status, text),
            text => text.to_owned(),
        }
    });
    (code, shortened(message))
}

/// Where the paths of requests begin in the places that redirects name.
const PATHS: [&str; 8] = [
    "/api/v2/write",
    "/api/v2/query",
    "/api/v3/write_lp",
    "/api/v3/query_sql",
    "/api/v1/",
    "/write",
    "/query",
    "/ping",
];

/// What is wrong when a server redirects a request to where the client does not follow: where to, and what to change. `None`
/// for other answers.
pub(crate) fn moved(answer: &Answer) -> Option<String> {
    let location = answer.location.as_deref().filter(|_| (300..400).contains(&answer.status))?;
    let shown = location.split(['?', '#']).next().unwrap_or_default();
    let base = PATHS.iter().find_map(|path| shown.find(path).map(|at| &shown[..at])).unwrap_or(shown);
    let remedy = match base.contains("://") {
        true => format!("set influxdb.url to {base:?} if that is the server"),
        false => "check influxdb.url".to_owned(),
    };
    Some(format!(
        "it redirects to {shown:?} (status {}), where this client does not follow; {remedy}",
        answer.status
    ))
}

/// What HTTP Basic authentication lacks.
pub(crate) const WANTS_BASIC: &str = "it wants the user name and the password of HTTP Basic authentication; check \
                                      influxdb.basic_user and influxdb.basic_password";

/// What somebody can do about an answer that is no success, where a right may be what lacks: the right, as in "to read bucket
/// \"house\"". Empty when nobody knows.
pub(crate) fn remedy(answer: &Answer, right: &str) -> String {
    let (_, words) = server_error(answer.status, &answer.body);
    if let Some(moved) = moved(answer) {
        return format!("; {moved}");
    }
    match answer.status {
        401 if answer.wants_basic => format!("; {WANTS_BASIC}"),
        401 => format!("; give a valid token that has the right {right}, check influxdb.token"),
        403 => format!("; the token lacks the right {right}: give it that, check influxdb.token"),
        // InfluxDB 2 says so as well to a token that may not read it.
        _ if words.contains("could not find bucket") || words.contains("database not found") => {
            lacks_or_is_hidden(right)
        }
        _ => String::new(),
    }
}

/// The right that a query needs.
pub(crate) fn right_to_read(bucket: &str) -> String {
    format!("to read bucket {bucket:?}")
}

/// A bucket that a server says is not there may be one that the token may not read.
pub(crate) fn lacks_or_is_hidden(right: &str) -> String {
    format!(
        "; it does not exist, or the token lacks the right {right}: check influxdb.bucket and influxdb.token"
    )
}

/// InfluxDB 2's word for a status.
fn code_of(status: u16) -> &'static str {
    match status {
        400 => "invalid",
        401 => "unauthorized",
        403 => "forbidden",
        404 => "not found",
        405 => "method not allowed",
        413 => "request too large",
        422 => "unprocessable entity",
        429 => "too many requests",
        501 => "not implemented",
        503 => "unavailable",
        500..600 => "internal error",
        _ => "unknown",
    }
}

/// A text of bounded length.
pub(crate) fn shortened(mut text: String) -> String {
    if text.len() > MESSAGE_BYTES_MAX {
        let mut end = MESSAGE_BYTES_MAX;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_refuse_gives_a_code_and_a_message() {
        let cases: [(u16, &str, &str, &str); 12] = [
            (404, r#"{"code":"not found","message":"bucket not found"}"#, "not found", "bucket not found"),
            (422, "{\n\t\"code\": \"conflict\",\n\t\"message\": \"x\"\n}", "conflict", "x"),
            (401, r#"{"error":"authorization failed"}"#, "unauthorized", "authorization failed"),
            (400, r#"{"error":"error parsing query","code":400}"#, "invalid", "error parsing query"),
            (502, "Bad Gateway\n", "internal error", "Bad Gateway"),
            (503, "", "unavailable", "the server answered 503 and said nothing"),
            (404, "<html><p>no</p></html>", "not found", "the server answered 404 with a web page"),
            (
                502,
                "<html><head><title>502 Bad Gateway</title>",
                "internal error",
                "the server answered 502 with a web page, \"502 Bad Gateway\"",
            ),
            (
                400,
                "<html><title>400 No required SSL certificate was sent</title>",
                "invalid",
                "the server answered 400 with a web page, \"400 No required SSL certificate was sent\": it wants a certificate of \
                 this client: name it in influxdb.certificate_file and key_file",
            ),
            (500, r#"{"code":"internal error","message":""}"#, "internal error", ""),
            (400, r#"["no"]"#, "invalid", r#"["no"]"#),
            (418, "\u{fffd}", "unknown", "\u{fffd}"),
        ];
        for (status, body, code, message) in cases {
            let said = server_error(status, body.as_bytes());
            assert_eq!(said.0, code, "{status} {body}");
            let message = if message.is_empty() { body } else { message };
            assert_eq!(said.1, message, "{status} {body}");
        }
        assert_eq!(server_error(418, b"\xff").1, "\u{fffd}");
        let long = server_error(400, "ü".repeat(9000).as_bytes()).1;
        assert_eq!((long.len(), long.ends_with("ü…")), (MESSAGE_BYTES_MAX + '…'.len_utf8(), true));
    }

    #[test]
    fn recorded_refusals_are_read_in_the_servers_words() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/flux-csv");
        let mut count = 0;
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_none_or(|e| e != "json") {
                continue;
            }
            let recorded: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
            let body = recorded["body"].to_string();
            let status = u16::try_from(recorded["status"].as_u64().unwrap()).unwrap();
            let (code, message) = server_error(status, body.as_bytes());
            assert_eq!(code, recorded["body"]["code"].as_str().unwrap(), "{path:?}");
            assert_eq!(message, recorded["body"]["message"].as_str().unwrap(), "{path:?}");
            // The words for the status alone are the server's too.
            assert_eq!(server_error(status, b"").0, code, "{path:?}");
            count += 1;
        }
        assert!(count >= 5);
    }
}
