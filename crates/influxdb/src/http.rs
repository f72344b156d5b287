//! Requests to a server, one at a time, from a plain thread: what goes out and what comes back. It knows nothing of lines
//! or outcomes. The HTTP library's threads live in a small runtime of the client's own.

use crate::config::{Config, Secret, TlsFiles};
use crate::error::{Error, Kind};
use crate::tls;
use flate2::Compression;
use flate2::write::GzEncoder;
use reqwest::header::{self, HeaderMap};
use reqwest::{Client, Method, Url};
use std::fmt;
use std::future::Future;
use std::io::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::sync::Notify;

/// A connection that is not there by then is not there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A request with its answer takes no longer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// More of an answer is not read.
const ANSWER_BYTES_MAX: usize = 1 << 20;
/// Shorter bodies are not worth compressing.
const GZIP_BYTES_MIN: usize = 1024;

/// Sends requests to one server. Clones share connections and threads.
#[derive(Clone)]
pub(crate) struct Http {
    runtime: Arc<Background>,
    /// Made anew from the files after a handshake showed that their certificates do not fit.
    client: Arc<Mutex<Client>>,
    recipe: Recipe,
    untrusted: Arc<AtomicBool>,
    base: Url,
    org: String,
    bucket: String,
    token: Arc<Mutex<Secret>>,
    stop: Stop,
}

/// What the HTTP library's client is made from.
#[derive(Clone, Debug)]
struct Recipe {
    tls: TlsFiles,
    connect_timeout: Duration,
    request_timeout: Duration,
}

impl Recipe {
    fn client(&self) -> Result<Client, Error> {
        let builder = Client::builder()
            .user_agent(concat!("graylogic-influxdb/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(self.connect_timeout)
            .timeout(self.request_timeout)
            .redirect(reqwest::redirect::Policy::none())
            .pool_max_idle_per_host(2);
        tls::with_files(builder, &self.tls)?.build().map_err(|e| {
            Error::new(Kind::ConnectionFailed, format!("prepare requests to the server: {}", causes(&e)))
        })
    }
}

/// Ends waiting requests at once, for ever.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stop(Arc<StopState>);

#[derive(Debug, Default)]
struct StopState {
    stopped: AtomicBool,
    notify: Notify,
}

impl Stop {
    pub(crate) fn stop(&self) {
        self.0.stopped.store(true, Ordering::Release);
        self.0.notify.notify_waiters();
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.0.stopped.load(Ordering::Acquire)
    }

    /// Ends when somebody stops.
    async fn stopped(&self) {
        let mut notified = std::pin::pin!(self.0.notify.notified());
        // Registered before it is looked: no stop is missed.
        notified.as_mut().enable();
        if !self.is_stopped() {
            notified.await;
        }
    }
}

/// A runtime that does not wait for its tasks when it goes, and may go anywhere, also inside another runtime.
#[derive(Debug)]
struct Background(Option<Runtime>);

impl Drop for Background {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// What a server answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) content_type: String,
    pub(crate) retry_after: Option<String>,
    pub(crate) location: Option<String>,
    pub(crate) version: Option<String>,
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

impl Http {
    pub(crate) fn new(config: &Config, url: &str) -> Result<Self, Error> {
        let bad = |why: String| Error::new(Kind::InvalidConfig, format!("influxdb.url {url:?}: {why}"));
        let mut base = Url::parse(url).map_err(|e| bad(e.to_string()))?;
        base.set_query(None);
        base.set_fragment(None);
        if !base.path().ends_with('/') {
            base.set_path(&format!("{}/", base.path()));
        }
        // Installed once for the process; another library's choice is as good.
        let _installed_already = rustls::crypto::ring::default_provider().install_default();
        let starting = |e: &dyn fmt::Display| {
            Error::new(Kind::ConnectionFailed, format!("prepare requests to {base}: {e}"))
        };
        // Never so short that a busy machine misses it.
        let hurried = |time: Duration| (time / config.hurry()).max(Duration::from_millis(250));
        let recipe = Recipe {
            tls: config.tls().clone(),
            connect_timeout: hurried(CONNECT_TIMEOUT),
            request_timeout: hurried(REQUEST_TIMEOUT),
        };
        let client = Arc::new(Mutex::new(recipe.client()?));
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("influxdb-http")
            .enable_all()
            .build()
            .map_err(|e| starting(&e))?;
        Ok(Self {
            runtime: Arc::new(Background(Some(runtime))),
            client,
            recipe,
            untrusted: Arc::default(),
            base,
            org: config.org().to_owned(),
            bucket: config.bucket().to_owned(),
            token: Arc::new(Mutex::new(config.token().clone())),
            stop: Stop::default(),
        })
    }

    /// The same server for another bucket, over the same connections.
    pub(crate) fn for_bucket(&self, bucket: &str) -> Self {
        Self { bucket: bucket.to_owned(), ..self.clone() }
    }

    pub(crate) fn stop(&self) -> &Stop {
        &self.stop
    }

    /// The address of the server, for messages.
    pub(crate) fn base(&self) -> &str {
        self.base.as_str().trim_end_matches('/')
    }

    /// Whether the server is on this machine, where compressing for the wire is for nothing.
    pub(crate) fn is_local(&self) -> bool {
        match self.base.host_str() {
            Some("localhost" | "[::1]") => true,
            Some(host) => host.starts_with("127."),
            None => false,
        }
    }

    /// Whether a place that an answer names is on this server.
    pub(crate) fn is_same_server(&self, location: &str) -> bool {
        self.base.join(location).is_ok_and(|to| same_server(&to, &self.base))
    }

    /// The token that the next request shows.
    pub(crate) fn token(&self) -> Secret {
        self.token.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes another token from now on, for all buckets.
    pub(crate) fn set_token(&self, token: Secret) {
        *self.token.lock().unwrap_or_else(PoisonError::into_inner) = token;
    }

    fn url(&self, path: &str) -> Option<Url> {
        self.base.join(path).ok()
    }

    /// Writes lines; to another place on the same server when it said so.
    pub(crate) fn write(
        &self,
        lines: Vec<u8>,
        gzip: bool,
        location: Option<&str>,
    ) -> Result<Answer, NoAnswer> {
        let mut url = match location {
            Some(location) => self.base.join(location).ok().filter(|to| same_server(to, &self.base)),
            None => self.url("api/v2/write"),
        }
        .ok_or_else(|| NoAnswer::Failed("the address of the server cannot be used".to_owned()))?;
        if location.is_none() {
            url.query_pairs_mut()
                .append_pair("org", &self.org)
                .append_pair("bucket", &self.bucket)
                .append_pair("precision", "ns");
        }
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static("text/plain; charset=utf-8"));
        let mut body = lines;
        if gzip && body.len() >= GZIP_BYTES_MIN {
            let mut out = GzEncoder::new(Vec::with_capacity(body.len() / 4), Compression::fast());
            // Writing to memory does not fail; if it did, the lines go as they are.
            if out.write_all(&body).is_ok()
                && let Ok(small) = out.finish()
            {
                body = small;
                headers.insert(header::CONTENT_ENCODING, header::HeaderValue::from_static("gzip"));
            }
        }
        self.send(Method::POST, url, headers, body)
    }

    /// Asks for something that needs no body.
    pub(crate) fn get(&self, path: &str) -> Result<Answer, NoAnswer> {
        let url = self.url(path);
        let url =
            url.ok_or_else(|| NoAnswer::Failed("the address of the server cannot be used".to_owned()))?;
        self.send(Method::GET, url, HeaderMap::new(), Vec::new())
    }

    fn send(
        &self,
        method: Method,
        url: Url,
        mut headers: HeaderMap,
        body: Vec<u8>,
    ) -> Result<Answer, NoAnswer> {
        let token = self.token().0;
        if !token.is_empty() {
            let mut value = header::HeaderValue::try_from(format!("Token {token}")).map_err(|_| {
                let reason = "the token holds a line feed or another character that no request can carry; give \
                              influxdb.token without it";
                NoAnswer::Unusable { reason: reason.to_owned(), setting: "token" }
            })?;
            value.set_sensitive(true);
            headers.insert(header::AUTHORIZATION, value);
        }
        if self.untrusted.swap(false, Ordering::Relaxed) {
            self.renew();
        }
        let client = self.client.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let request = client.request(method, url).headers(headers).body(body);
        self.wait(answer(request)).map_err(|()| NoAnswer::Stopped)?.map_err(|e| self.failed(&e))
    }

    /// Takes the certificates as they are on the disk now: they may have been renewed.
    fn renew(&self) {
        match self.recipe.client() {
            Ok(client) => *self.client.lock().unwrap_or_else(PoisonError::into_inner) = client,
            Err(error) => {
                tracing::warn!(%error, "certificates on the disk cannot be used; those of before are kept");
            }
        }
    }

    /// Waits, unless somebody stops; tells whether somebody did.
    pub(crate) fn rest(&self, time: Duration) -> bool {
        // Made inside of the runtime, which a timer needs.
        self.wait(async move { tokio::time::sleep(time).await }).is_err()
    }

    /// Runs to the end, or until somebody stops.
    fn wait<T>(&self, doing: impl Future<Output = T>) -> Result<T, ()> {
        let Some(runtime) = &self.runtime.0 else { return Err(()) };
        runtime.block_on(async {
            tokio::select! {
                biased;
                () = self.stop.stopped() => Err(()),
                done = doing => Ok(done),
            }
        })
    }

    /// A sentence for what went wrong.
    fn failed(&self, error: &reqwest::Error) -> NoAnswer {
        let (base, causes) = (self.base(), causes(error));
        if let Some((setting, why)) = tls::mismatch(error) {
            self.untrusted.store(true, Ordering::Relaxed);
            return NoAnswer::Unusable { reason: format!("connect to {base}: {why}"), setting };
        }
        NoAnswer::Failed(if error.is_timeout() && error.is_connect() {
            format!("connect to {base}: no connection in time")
        } else if error.is_timeout() {
            format!("{base} did not answer in time")
        } else if error.is_connect() {
            format!("connect to {base}: {causes}")
        } else {
            format!("{base} broke off: {causes}")
        })
    }
}

impl fmt::Debug for Http {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http").field("base", &self.base()).finish_non_exhaustive()
    }
}

async fn answer(request: reqwest::RequestBuilder) -> Result<Answer, reqwest::Error> {
    let mut response = request.send().await?;
    let text = |name: &str| {
        let value = response.headers().get(name)?;
        Some(String::from_utf8_lossy(value.as_bytes()).into_owned())
    };
    let mut answer = Answer {
        status: response.status().as_u16(),
        content_type: text("content-type").unwrap_or_default(),
        retry_after: text("retry-after"),
        location: text("location"),
        version: text("x-influxdb-version"),
        body: Vec::new(),
    };
    while answer.body.len() < ANSWER_BYTES_MAX {
        match response.chunk().await {
            Ok(Some(piece)) => {
                let room = ANSWER_BYTES_MAX - answer.body.len();
                answer.body.extend_from_slice(&piece[..piece.len().min(room)]);
            }
            Ok(None) => break,
            // A success says all with its first line; of an error the reason may be missing.
            Err(_) if answer.status == 204 => break,
            Err(e) => return Err(e),
        }
    }
    Ok(answer)
}

fn same_server(a: &Url, b: &Url) -> bool {
    a.scheme() == b.scheme() && a.host() == b.host() && a.port_or_known_default() == b.port_or_known_default()
}

/// The last cause says most; the first ones name the address again.
fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut last = error;
    while let Some(next) = last.source() {
        last = next;
    }
    last.to_string()
}
