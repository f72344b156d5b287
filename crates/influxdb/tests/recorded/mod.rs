//! Writes to a real server as they were recorded, and what became of every line: worked out from the recordings alone, by
//! other means than the client's, so that they can judge it.

use graylogic_line::LineEnds;
use serde_json::Value;
use std::io::Read as _;
use std::path::{Path, PathBuf};

/// A write and its answer.
pub struct Step {
    /// Where it is: the recording and its step, from 1.
    pub name: String,
    /// The lines of the request, without their ends, comments and empty lines.
    pub lines: Vec<Vec<u8>>,
    /// Whether the request said that it was compressed.
    pub is_gzip: bool,
    pub status: u16,
    pub headers: Vec<(String, String)>,
    /// The body of the answer, and the message in it.
    pub body: String,
    pub message: String,
    pub fate: Fate,
}

/// What the recording says of the lines of a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Fate {
    /// Each line is good, or is refused for good in these words.
    Settled(Vec<Option<String>>),
    /// The bytes changed on their way, or the server was not well: the same lines are good.
    Again,
    /// The server does not read what was compressed: the same lines are good.
    Plain,
    /// The lines are good, the request was not: its `org`, say.
    Held(&'static str),
    /// The server takes them at another place.
    Elsewhere(String),
}

impl Step {
    /// The answer as it comes over the wire.
    pub fn answer(&self) -> String {
        let headers: String = self.headers.iter().map(|(k, v)| format!("{k}: {v}\r\n")).collect();
        let length = match self.status {
            204 => String::new(),
            _ => format!("Content-Length: {}\r\n", self.body.len()),
        };
        format!("HTTP/1.1 {} Recorded\r\n{headers}{length}\r\n{}", self.status, self.body)
    }
}

/// Every recorded write, in the order of the names of the recordings.
pub fn writes() -> Vec<Step> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/http");
    let mut files: Vec<PathBuf> =
        entries(&folder).iter().filter(|f| f.is_dir()).flat_map(|f| entries(f)).collect();
    files.sort();
    files.iter().flat_map(|file| of_file(file)).collect()
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect()
}

fn of_file(file: &Path) -> Vec<Step> {
    let recording: Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    let topic = file.parent().unwrap().file_name().unwrap().to_str().unwrap();
    let name = format!("{topic}/{}", file.file_stem().unwrap().to_str().unwrap());
    let steps = recording["steps"].as_array().unwrap();
    // What was stored at the end, for those recordings that looked.
    let stored: String = steps
        .iter()
        .filter(|s| path(s).starts_with("/api/v2/query"))
        .map(|s| text(&s["response"]["body"]))
        .collect();
    let mut found: Vec<Step> = Vec::new();
    for (i, step) in steps.iter().enumerate() {
        let (place, query) = path(step).split_once('?').unwrap_or((path(step), ""));
        if step["request"]["method"] != "POST" || place.trim_end_matches('/') != "/api/v2/write" {
            continue;
        }
        let (request, response) = (&step["request"], &step["response"]);
        let sent = body(request);
        let is_compressed = sent.starts_with(&[0x1f, 0x8b]);
        let lines = lines(&if is_compressed { plain(&sent) } else { sent });
        let headers: Vec<(String, String)> =
            response["headers"].as_object().unwrap().iter().map(|(k, v)| (k.clone(), text(v))).collect();
        let body = text(&response["body"]);
        let answered: Value = serde_json::from_str(&body).unwrap_or_default();
        let mut step = Step {
            name: format!("{name}, step {}", i + 1),
            lines,
            is_gzip: request["headers"].get("Content-Encoding").is_some(),
            status: response["status"].as_u64().unwrap() as u16,
            headers,
            message: text(&answered["message"]),
            body,
            fate: Fate::Again,
        };
        step.fate = fate(&step, query, is_compressed, &stored, &found);
        found.push(step);
    }
    found
}

fn fate(step: &Step, query: &str, is_compressed: bool, stored: &str, earlier: &[Step]) -> Fate {
    let says = |words: &str| step.message.contains(words);
    match step.status {
        204 => Fate::Settled(vec![None; step.lines.len()]),
        308 => {
            let place = step.headers.iter().find(|(name, _)| name == "Location");
            Fate::Elsewhere(place.unwrap().1.clone())
        }
        401 | 403 => Fate::Held("token"),
        422 => Fate::Settled(dropped(step, stored, earlier)),
        // It took what was compressed for a line.
        400 if is_compressed && says("unable to parse") => Fate::Plain,
        400 if says("unable to parse") => Fate::Settled(quoted(step)),
        400 | 500 if says("unable to read data") || says("internal error has occurred") => Fate::Again,
        400 | 404 | 500 => Fate::Held(wrong_setting(query)),
        other => panic!("{}: nobody knows what {other} means", step.name),
    }
}

/// The lines that the message quotes, with its reasons.
fn quoted(step: &Step) -> Vec<Option<String>> {
    let of_line = |line: &Vec<u8>| {
        let line = String::from_utf8_lossy(line);
        let (_, rest) = step.message.split_once(&format!("unable to parse '{}': ", line.trim_start()))?;
        Some(rest.split("\nunable to parse '").next().unwrap().to_owned())
    };
    let found: Vec<Option<String>> = step.lines.iter().map(of_line).collect();
    let quotes = step.message.matches("unable to parse '").count();
    assert_eq!(found.iter().flatten().count(), quotes, "{}: a quote is of no line", step.name);
    found
}

/// The lines that were dropped while the rest was stored: all of them, or those that were dropped before when they were
/// alone, and those that were not stored at the end.
fn dropped(step: &Step, stored: &str, earlier: &[Step]) -> Vec<Option<String>> {
    let (_, count) = step.message.rsplit_once("dropped=").unwrap();
    let count: usize = count.split(' ').next().unwrap().parse().unwrap();
    let is_dropped = |line: &Vec<u8>| {
        let before = earlier.iter().find(|s| s.lines == [line.clone()]).map(|s| s.status == 422);
        before.or_else(|| Some(!stored.contains(&date_of(line)?))).unwrap_or(false)
    };
    let found: Vec<Option<String>> = step
        .lines
        .iter()
        .map(|line| (count == step.lines.len() || is_dropped(line)).then(|| step.message.clone()))
        .collect();
    assert_eq!(found.iter().flatten().count(), count, "{}: other lines were dropped", step.name);
    found
}

/// The date of a line of the first second of 1970, as answers have it.
fn date_of(line: &[u8]) -> Option<String> {
    let line = String::from_utf8_lossy(line);
    let (_, time) = line.rsplit_once(' ')?;
    let nanos: u32 = time.parse().ok()?;
    Some(format!(",1970-01-01T00:00:00.{}Z,", format!("{nanos:09}").trim_end_matches('0')))
}

/// The part of a request that is not as the recording's server was set up: all have a good token, but for those that were
/// told of it.
fn wrong_setting(query: &str) -> &'static str {
    let is = |known: &[&str]| query.split('&').any(|pair| known.contains(&pair));
    // No setting of the client is the precision: a server that does not take it is another one.
    if query.contains("precision=") && !is(&["precision=ns", "precision=us", "precision=ms", "precision=s"]) {
        "url"
    } else if is(&["org=${orgname}", "org=${org}", "orgID=${org}"]) {
        "bucket"
    } else {
        "org"
    }
}

/// The lines of a request or of the lines of one.
pub fn lines(body: &[u8]) -> Vec<Vec<u8>> {
    let mut rest = body;
    let mut found = Vec::new();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(LineEnds::new().feed(rest).unwrap_or(rest.len()));
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        if !line.starts_with(b"#") && line.iter().any(|b| *b != b' ') {
            found.push(line.to_vec());
        }
        rest = after;
    }
    found
}

fn path(step: &Value) -> &str {
    step["request"]["path"].as_str().unwrap()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn body(request: &Value) -> Vec<u8> {
    if let Some(text) = request["body_base64"].as_str() {
        return base64(text);
    }
    if let Some([before, repeated, times, after]) = request["body_repeat"].as_array().map(Vec::as_slice) {
        let times = times.as_u64().unwrap() as usize;
        return [text(before), text(repeated).repeat(times), text(after)].concat().into_bytes();
    }
    text(&request["body"]).into_bytes()
}

fn base64(text: &str) -> Vec<u8> {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let (mut bits, mut count, mut bytes) = (0u32, 0, Vec::new());
    for digit in text.bytes().filter(|b| *b != b'=') {
        bits = bits << 6 | DIGITS.iter().position(|d| *d == digit).unwrap() as u32;
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
        }
    }
    bytes
}

/// What can be read of a body that was compressed.
fn plain(compressed: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    let _some_are_damaged = flate2::read::MultiGzDecoder::new(compressed).read_to_end(&mut plain);
    plain
}
