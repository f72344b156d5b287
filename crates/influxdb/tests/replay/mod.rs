//! The recordings of a real InfluxDB 2.8 below `fixtures/http`: what each step asked, and what it was answered.

use super::scripted::{Answer, Seen};
use serde_json::Value;
use std::path::Path;

/// The ID of the organisation `my-org`.
pub const ORG: &str = "0a00000000000001";
const TIME: &str = "2026-01-02T03:04:05.123456789Z";

/// A recorded step, its placeholders filled in.
pub fn recorded(name: &str, step: usize) -> Value {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../fixtures/http/{name}.json"));
    let mut text = std::fs::read_to_string(file).unwrap();
    for (placeholder, value) in [
        ("${orgname}", "my-org"),
        ("${org}", ORG),
        ("${token}", "my-token"),
        ("${user}", "0b00000000000001"),
        ("${operator}", "0c00000000000001"),
        ("${time}", TIME),
        ("${version}", "v2.8.0"),
        ("${duration}", "1h2m3.45s"),
    ] {
        text = text.replace(placeholder, value);
    }
    // Buckets and ids by their names, each the same wherever it is.
    while let Some(at) = text.find("${") {
        let end = at + text[at..].find('}').unwrap();
        let name = text[at + 2..end].to_owned();
        let value = match name.split_once(':') {
            Some(("newtoken", n)) => format!("a-very-secret-token-{n}=="),
            Some((kind, n)) => id(kind, n),
            None => name.clone(),
        };
        text = text.replace(&format!("${{{name}}}"), &value);
    }
    serde_json::from_str::<Value>(&text).unwrap()["steps"][step - 1].take()
}

pub fn id(kind: &str, name: &str) -> String {
    let number = name.bytes().fold(0, |n, b| n << 8 | u64::from(b));
    format!("{}{number:014x}", if kind == "bucket" { "0e" } else { "0d" })
}

/// What a recorded request asks for, as the server sees it.
pub fn asked(step: &Value) -> Seen {
    let request = &step["request"];
    let target = request["path"].as_str().unwrap();
    let body = request["body"].as_str().unwrap_or_default();
    Seen::new(request["method"].as_str().unwrap(), target, body)
}

pub fn answered(step: &Value) -> Answer {
    let response = &step["response"];
    let headers = response["headers"].as_object().unwrap();
    let headers = headers.iter().map(|(k, v)| format!("{k}: {}\r\n", v.as_str().unwrap())).collect();
    Answer {
        status: response["status"].as_u64().unwrap() as u16,
        headers,
        body: response["body"].as_str().unwrap_or_default().to_owned(),
    }
}
