//! What goes to a server and what comes back, whatever carries it. Pure.

use std::time::Duration;

pub(crate) use reqwest::Method;

/// A request before it is sent.
#[derive(Clone, Debug, Default)]
pub(crate) struct Request {
    pub(crate) method: Method,
    /// Below the address of the server.
    pub(crate) path: String,
    /// In place of path and query: a place on the same server that an answer named.
    pub(crate) location: Option<String>,
    pub(crate) query: Vec<(&'static str, String)>,
    pub(crate) content_type: &'static str,
    pub(crate) accept: &'static str,
    pub(crate) body: Vec<u8>,
    /// Whether a long body is compressed.
    pub(crate) gzip: bool,
    /// How the token is shown.
    pub(crate) scheme: Scheme,
    /// In place of the usual one; for an answer in pieces it covers all of them.
    pub(crate) timeout: Option<Duration>,
    /// Whether a redirect is an answer like others, because the caller follows it and remembers where to.
    pub(crate) keeps_redirects: bool,
}

impl Request {
    pub(crate) fn get(path: impl Into<String>) -> Self {
        Self { path: path.into(), ..Self::default() }
    }

    pub(crate) fn new(method: Method, path: impl Into<String>) -> Self {
        Self { method, path: path.into(), ..Self::default() }
    }

    /// With a body of JSON.
    pub(crate) fn json(method: Method, path: impl Into<String>, body: &serde_json::Value) -> Self {
        Self {
            content_type: "application/json",
            body: body.to_string().into_bytes(),
            ..Self::new(method, path)
        }
    }

    pub(crate) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.query.push((name, value.into()));
        self
    }

    pub(crate) fn scheme(mut self, scheme: Scheme) -> Self {
        self.scheme = scheme;
        self
    }
}

/// How a token is shown to a server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Scheme {
    /// `Token`: InfluxDB 2.
    #[default]
    Token,
    /// `Bearer`.
    Bearer,
    /// `Basic` for a token that is `user:password`, else `Bearer`.
    BasicOrBearer,
}

/// What a server answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) content_type: String,
    pub(crate) retry_after: Option<String>,
    pub(crate) location: Option<String>,
    pub(crate) version: Option<String>,
    pub(crate) build: Option<String>,
    /// Whether it wants HTTP Basic authentication.
    pub(crate) wants_basic: bool,
    /// The server's clock.
    pub(crate) date: Option<String>,
    /// Whether it shows the header that only VictoriaMetrics has.
    pub(crate) is_victoria_metrics: bool,
    pub(crate) body: Vec<u8>,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NoAnswer {
    /// Somebody stopped it.
    Stopped,
    /// It may pass, or needs a change that nobody here can name.
    Failed(String),
    /// The certificates do not fit, or the token cannot be sent: somebody must change something, most likely this setting.
    Unusable { reason: String, setting: &'static str },
}
