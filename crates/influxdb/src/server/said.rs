//! What the body of an answer says, whichever way a server puts it: a message, lines by number, a web page. Pure; must not know
//! what it means for lines.

use crate::server::exchange::Answer;
use crate::server::outcome::shortened;
use serde_json::Value;

/// No more of what a page calls itself.
const TITLE_CHARS_MAX: usize = 100;

/// What the body of an answer says.
#[derive(Default)]
pub(crate) struct Said {
    pub(crate) message: String,
    /// Lines by their number in the request, from 1, with their text and the reason: InfluxDB 3.
    pub(crate) numbered: Vec<(usize, String, String)>,
    pub(crate) is_page: bool,
    /// Whether it is JSON; whether it has a code and a message, as InfluxDB 2 has; or an error, as InfluxDB 1 and 3 have.
    pub(crate) is_json: bool,
    pub(crate) has_code: bool,
    pub(crate) has_error: bool,
    /// What a page calls itself; empty when it does not, or is none.
    title: String,
}

/// The title of nginx's page for a TLS problem, which nginx reports only after the handshake; the setting that
/// mends it, and how.
const TLS_PAGES: [(&str, &str, &str); 3] = [
    (
        "No required SSL certificate was sent",
        "certificate_file",
        "it wants a certificate of this client: name it in influxdb.certificate_file and key_file",
    ),
    (
        "The SSL certificate error",
        "certificate_file",
        "it refuses this client's certificate, which has expired, was revoked, or is of an authority that it does not know: \
         name another in influxdb.certificate_file",
    ),
    ("The plain HTTP request was sent to HTTPS port", "url", "it speaks TLS here: write https://"),
];

impl Said {
    /// The status and what was said, for messages.
    pub(crate) fn reason(&self, status: u16) -> String {
        match self.message.is_empty() {
            true if self.is_page => format!("the server answered {}", self.page(status)),
            true => format!("the server answered {status}"),
            false => format!("the server answered {status}: {}", shortened(&self.message)),
        }
    }

    /// The status and the page, for messages.
    pub(crate) fn page(&self, status: u16) -> String {
        match self.title.is_empty() {
            true => format!("{status} with a web page"),
            false => format!("{status} with a web page, {:?}", self.title),
        }
    }

    /// The setting to look at when a page is all that a server answers, and why.
    pub(crate) fn page_means(&self) -> (&'static str, &'static str) {
        let known = TLS_PAGES.iter().find(|(title, ..)| self.title.contains(title));
        known.map_or(("url", "it is no InfluxDB"), |(_, setting, why)| (setting, why))
    }

    pub(crate) fn of(answer: &Answer) -> Self {
        let text = String::from_utf8_lossy(&answer.body);
        let start = text.trim_start().chars().take(14).collect::<String>().to_lowercase();
        let is_page = answer.content_type.contains("text/html")
            || start.starts_with("<!doctype html")
            || start.starts_with("<html");
        let json: Option<Value> = serde_json::from_slice(&answer.body).ok();
        let field = |name: &str| json.as_ref()?.get(name)?.as_str().map(str::to_owned);
        // 2.x and 3's v2 endpoint, then 1.x and 3, then plain text.
        let has_code = field("code").is_some() && field("message").is_some();
        let (is_json, has_error) = (json.is_some(), field("error").is_some());
        let message = field("message").or_else(|| field("error"));
        let message = message.unwrap_or_else(|| if is_page { String::new() } else { text.trim().to_owned() });
        let data = json.as_ref().and_then(|j| j.get("data")?.as_array().cloned()).unwrap_or_default();
        let entry = |entry: &Value| {
            let number = usize::try_from(entry.get("line_number")?.as_u64()?).ok()?;
            let text = |name: &str| entry.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
            Some((number, text("original_line"), text("error_message")))
        };
        let title = if is_page { title(&text) } else { String::new() };
        let numbered = data.iter().filter_map(entry).collect();
        Self { message, numbered, is_page, is_json, has_code, has_error, title }
    }
}

/// What a page in place of an answer to a query says, with the remedy when it is known.
pub(crate) fn page_words(status: u16, page: &str) -> String {
    let said = Said { is_page: true, title: title(page), ..Said::default() };
    match said.page_means() {
        ("url", _) => said.reason(status),
        (_, why) => format!("{}: {why}", said.reason(status)),
    }
}

/// What a page calls itself, in one line of bounded length.
fn title(page: &str) -> String {
    let low = page.to_ascii_lowercase();
    let inside = |name: &str| {
        let from = low.find(&format!("<{name}>"))? + name.len() + "<>".len();
        let length = low[from..].find(&format!("</{name}>"))?;
        Some(page[from..from + length].split_whitespace().collect::<Vec<_>>().join(" "))
    };
    let found = inside("title").or_else(|| inside("h1"));
    let printed = |c: &char| !c.is_control();
    found.unwrap_or_default().chars().filter(printed).take(TITLE_CHARS_MAX).collect()
}
