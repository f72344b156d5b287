//! Requests to one server: what goes out and what comes back, to be waited for on a plain thread or awaited on any
//! runtime. It knows nothing of lines, outcomes or kinds of server. The HTTP library's threads live in a small runtime of the
//! client's own.

use crate::config::{Config, ConnectionConfig, TlsFiles};
use crate::error::{Error, Kind};
use crate::secret::Secret;
use crate::server::credentials::{authorization, basic};
use crate::server::exchange::{Answer, NoAnswer, Request};
use crate::server::kind::{Recognised, ServerKind, recognise_path, select_path};
use crate::server::proxy::{self, Proxy};
use crate::server::tls::{self, Stamps};
use flate2::Compression;
use flate2::write::{GzEncoder, MultiGzDecoder};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::{self, HeaderValue};
use reqwest::{Client, Url};
use std::fmt;
use std::future::Future;
use std::io::Write as _;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::AbortHandle;

/// A connection that is not there by then is not there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A request with its answer takes no longer, unless it says so.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// A connection without requests is closed before a proxy or a firewall on the way forgets it, which is after a minute.
const IDLE_MAX: Duration = Duration::from_secs(50);
/// A connection is asked so often whether the other side is still there, and is gone after so many times without a word.
/// Without it requests of HTTP/2 would go into a dead connection for ever, one timeout after the other.
const ALIVE_EVERY: Duration = Duration::from_secs(15);
const ALIVE_TRIES: u32 = 3;
/// Requests look so often whether the files of certificates changed.
const FILES_EVERY: Duration = Duration::from_secs(10);
/// More of an answer that does not come in pieces is not read.
const ANSWER_BYTES_MAX: usize = 1 << 20;
/// Shorter bodies are not worth compressing.
const GZIP_BYTES_MIN: usize = 1024;
/// Pieces of a body that wait for who reads them.
const PIECES_WAITING_MAX: usize = 4;
/// Compressed pieces are unpacked so many bytes at a time: each becomes at most a thousand times as long.
const UNPACKED_AT_ONCE: usize = 4096;

/// Sends requests to one server. Clones share connections, threads, and what is known of the server.
#[derive(Clone)]
pub(crate) struct Http {
    runtime: Arc<Background>,
    current: Arc<Mutex<Current>>,
    recipe: Arc<Recipe>,
    untrusted: Arc<AtomicBool>,
    base: Url,
    /// Where questions go, when that is elsewhere.
    questions: Option<Url>,
    /// The same, with the name of the server that its certificate has.
    named: Url,
    token: Arc<Mutex<Secret>>,
    /// What is shown in place of a token, with HTTP Basic authentication.
    basic: Option<HeaderValue>,
    /// The password in it, for who must not show it.
    basic_password: Secret,
    configured: Option<ServerKind>,
    recognised: Arc<Mutex<Option<Recognised>>>,
    stop: Stop,
}

/// The HTTP library's client. Made anew when its files changed; requests on their way keep the one they began with.
struct Current {
    client: Client,
    /// Which client this is, from 0.
    version: u64,
    /// The files that it was made from.
    files: Stamps,
    looked: Instant,
    /// Whether somebody was told that the files of now cannot be used.
    is_warned: bool,
}

/// What the HTTP library's client is made from.
#[derive(Clone, Debug)]
struct Recipe {
    tls: TlsFiles,
    connection: ConnectionConfig,
    proxy: Option<Proxy>,
    /// Where requests go, when they name the server otherwise.
    host: Option<String>,
    connect_timeout: Duration,
    haste: Duration,
    request_timeout: Duration,
    files_every: Duration,
    alive_every: Duration,
}

impl Recipe {
    fn client(&self) -> Result<Client, Error> {
        let starting = |e: &reqwest::Error| {
            Error::new(Kind::ConnectionFailed, format!("prepare requests to the server: {}", causes(e)))
        };
        let mut builder = Client::builder()
            .user_agent(concat!("graylogic-influxdb/", env!("CARGO_PKG_VERSION")))
            .default_headers(self.connection.headers.clone())
            .connect_timeout(self.connect_timeout)
            .timeout(self.request_timeout)
            .redirect(reqwest::redirect::Policy::none())
            .pool_max_idle_per_host(2)
            .pool_idle_timeout(IDLE_MAX)
            .tcp_keepalive(ALIVE_EVERY)
            .tcp_keepalive_interval(ALIVE_EVERY)
            .tcp_keepalive_retries(ALIVE_TRIES)
            .http2_keep_alive_interval(self.alive_every)
            // On a slow line the question waits behind a long request, which has this time as well.
            .http2_keep_alive_timeout(self.request_timeout)
            .http2_keep_alive_while_idle(true);
        // The environment is asked by `proxy.rs` and nobody else.
        builder = match &self.proxy {
            None => builder.no_proxy(),
            Some(proxy) => builder.proxy(reqwest::Proxy::all(proxy.address.url()).map_err(|e| starting(&e))?),
        };
        if let Some(host) = &self.host {
            builder = builder.dns_resolver(Arc::new(AlwaysAt(host.as_str().into())));
        }
        tls::with_files(builder, &self.tls, self.connection.min_version)?.build().map_err(|e| starting(&e))
    }
}

/// Looks up one host, whatever the name: requests name the server as its certificate does, and go where `url` says.
struct AlwaysAt(Arc<str>);

impl Resolve for AlwaysAt {
    fn resolve(&self, _name: Name) -> Resolving {
        let host = self.0.clone();
        Box::pin(async move {
            // The port is that of the request.
            let found: Vec<SocketAddr> = tokio::net::lookup_host((&*host, 0)).await?.collect();
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

/// While somebody waits for lines to be delivered, no pause that is ours alone is longer.
const HASTE: Duration = Duration::from_secs(2);

/// Ends waiting requests at once, for ever; and, before that, the pauses between tries.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stop(Arc<StopState>);

#[derive(Debug, Default)]
struct StopState {
    stopped: Signal,
    /// The client is closing.
    closing: Signal,
    /// How many wait for lines to be delivered.
    in_haste: watch::Sender<usize>,
}

/// Somebody waits for lines to be delivered, until it is dropped.
pub(crate) struct Haste(Stop);

impl Drop for Haste {
    fn drop(&mut self) {
        self.0.0.in_haste.send_modify(|waiting| *waiting -= 1);
    }
}

/// Something that happens once.
#[derive(Debug, Default)]
struct Signal {
    given: AtomicBool,
    notify: Notify,
}

impl Signal {
    fn give(&self) {
        self.given.store(true, Ordering::Release);
        self.notify.notify_waiters();
    }

    fn is_given(&self) -> bool {
        self.given.load(Ordering::Acquire)
    }

    /// Ends when it is given.
    async fn given(&self) {
        let mut notified = std::pin::pin!(self.notify.notified());
        // Registered before it is looked: none is missed.
        notified.as_mut().enable();
        if !self.is_given() {
            notified.await;
        }
    }
}

impl Stop {
    pub(crate) fn stop(&self) {
        self.0.stopped.give();
    }

    /// The client is closing: what pauses is tried once more now. The server may be back long since, and what is in memory
    /// only has no other time.
    pub(crate) fn close(&self) {
        self.0.closing.give();
    }

    /// Somebody waits for lines to be delivered: pauses are short until what this returns is dropped.
    pub(crate) fn haste(&self) -> Haste {
        self.0.in_haste.send_modify(|waiting| *waiting += 1);
        Haste(self.clone())
    }

    /// Ends when somebody stops.
    async fn stopped(&self) {
        self.0.stopped.given().await;
    }
}

/// How a pause ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rested {
    /// It was as long as it should be.
    Whole,
    /// The client began to close, or somebody waits.
    CutShort,
    /// Somebody stopped.
    Stopped,
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

/// An answer whose body comes in pieces.
#[derive(Debug)]
pub(crate) struct Pieces {
    pieces: mpsc::Receiver<Result<Vec<u8>, NoAnswer>>,
    has_length: bool,
    _task: AbortOnDrop,
}

impl Pieces {
    /// Whether its end can be told from a connection that breaks off.
    pub(crate) fn has_length(&self) -> bool {
        self.has_length
    }

    /// The next piece, unpacked; `None` at the end.
    pub(crate) async fn next(&mut self) -> Option<Result<Vec<u8>, NoAnswer>> {
        self.pieces.recv().await
    }
}

/// An answer on its way: to be awaited on any runtime, or waited for on any thread. Dropped, the request is given up.
#[derive(Debug)]
pub(crate) struct Pending<T> {
    answer: oneshot::Receiver<T>,
    _task: AbortOnDrop,
}

/// Whoever works on an answer stopped: the client was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct GaveUp;

impl<T> Future for Pending<T> {
    type Output = Result<T, GaveUp>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.answer).poll(context).map(|answer| answer.map_err(|_| GaveUp))
    }
}

#[derive(Debug)]
struct AbortOnDrop(AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Runs a future to its end on this thread, also on one that belongs to a runtime, whose work waits meanwhile.
pub(crate) fn wait_for<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(std::thread::Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut future = std::pin::pin!(future);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(done) => return done,
            Poll::Pending => std::thread::park(),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Everything in here is set in one go.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Http {
    pub(crate) fn new(config: &Config, url: &str) -> Result<Self, Error> {
        let base = address("url", url)?;
        let questions = config.query_url().map(|url| address("query_url", url)).transpose()?;
        // Installed once for the process; another library's choice is as good.
        let _installed_already = rustls::crypto::ring::default_provider().install_default();
        let starting = |e: &dyn fmt::Display| {
            Error::new(Kind::ConnectionFailed, format!("prepare requests to {base}: {e}"))
        };
        // Never so short that a busy machine misses it.
        let hurried = |time: Duration| time / config.hurry().min(20);
        let connection = config.connection();
        let proxy = proxy::choose(&connection.proxy, &base, |name| std::env::var(name).ok())
            .map_err(|why| Error::new(Kind::InvalidConfig, why))?;
        let (named, host) = match &connection.server_name {
            None => (base.clone(), None),
            Some(name) => named(&base, name, proxy.as_ref())?,
        };
        let recipe = Recipe {
            tls: config.tls().clone(),
            connection: connection.clone(),
            proxy,
            host,
            connect_timeout: hurried(CONNECT_TIMEOUT),
            request_timeout: hurried(REQUEST_TIMEOUT),
            files_every: FILES_EVERY / config.hurry(),
            alive_every: hurried(ALIVE_EVERY),
            haste: HASTE / config.hurry(),
        };
        // Looked at before they are read: what changes in between is seen later.
        let files = Stamps::of(&recipe.tls);
        let client = recipe.client()?;
        let current = Current { client, version: 0, files, looked: Instant::now(), is_warned: false };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("influxdb-http")
            .enable_all()
            .build()
            .map_err(|e| starting(&e))?;
        Ok(Self {
            runtime: Arc::new(Background(Some(runtime))),
            current: Arc::new(Mutex::new(current)),
            recipe: Arc::new(recipe),
            untrusted: Arc::default(),
            configured: config.server_kind().or_else(|| recognise_path(base.path())),
            questions: questions.or_else(|| {
                let mut selecting = named.clone();
                selecting.set_path(&select_path(base.path())?);
                Some(selecting)
            }),
            base,
            named,
            token: Arc::new(Mutex::new(config.token().clone())),
            basic_password: connection.basic_password.clone(),
            basic: config.basic().map(|(user, password)| basic(user, password)).transpose()?,
            recognised: Arc::default(),
            stop: Stop::default(),
        })
    }

    /// The same server where it answers questions.
    pub(crate) fn for_questions(&self) -> Self {
        let mut http = self.clone();
        if let Some(questions) = &self.questions {
            (http.base, http.named) = (questions.clone(), questions.clone());
        }
        http
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
        self.named.join(location).is_ok_and(|to| same_server(&to, &self.named))
    }

    /// The token that the next request shows.
    pub(crate) fn token(&self) -> Secret {
        lock(&self.token).clone()
    }

    /// The password of HTTP Basic authentication; empty when there is none.
    pub(crate) fn basic_password(&self) -> Secret {
        self.basic_password.clone()
    }

    /// Takes another token from now on, for all buckets.
    pub(crate) fn set_token(&self, token: Secret) {
        *lock(&self.token) = token;
    }

    /// What the configuration says that the server is, or its address does.
    pub(crate) fn configured(&self) -> Option<ServerKind> {
        self.configured
    }

    /// How long connecting may take.
    pub(crate) fn connect_timeout(&self) -> Duration {
        self.recipe.connect_timeout
    }

    /// What the server was recognised as.
    pub(crate) fn recognised(&self) -> Option<Recognised> {
        lock(&self.recognised).clone()
    }

    /// Keeps what the server was recognised as, or forgets it: another one may be at its address.
    pub(crate) fn set_recognised(&self, recognised: Option<Recognised>) {
        *lock(&self.recognised) = recognised;
    }

    /// Sends a request and waits for all of the answer; on plain threads only, not on one of a runtime.
    pub(crate) fn send(&self, request: Request) -> Result<Answer, NoAnswer> {
        self.wait(self.fetch(request)).unwrap_or(Err(NoAnswer::Stopped))
    }

    /// Starts something that asks this server, on the client's own runtime.
    pub(crate) fn start<T: Send + 'static>(
        &self,
        doing: impl Future<Output = T> + Send + 'static,
    ) -> Option<Pending<T>> {
        let runtime = self.runtime.0.as_ref()?;
        let (answer, told) = oneshot::channel();
        let stop = self.stop.clone();
        let task = runtime.spawn(async move {
            tokio::select! {
                biased;
                () = stop.stopped() => {}
                done = doing => {
                    let _nobody_waits = answer.send(done);
                }
            }
        });
        Some(Pending { answer: told, _task: AbortOnDrop(task.abort_handle()) })
    }

    /// All of the answer to a request; on the client's own runtime.
    pub(crate) async fn fetch(&self, request: Request) -> Result<Answer, NoAnswer> {
        let response = self.respond(request, false).await?;
        let mut answer = head(&response);
        body(response, &mut answer).await.map_err(|e| self.failed(&e))?;
        Ok(answer)
    }

    /// The head of the answer to a request, and its body in pieces when it is a success; on the client's own runtime.
    pub(crate) async fn open(&self, request: Request) -> Result<(Answer, Option<Pieces>), NoAnswer> {
        let response = self.respond(request, true).await?;
        let mut head = head(&response);
        if !response.status().is_success() {
            return body(response, &mut head).await.map(|()| (head, None)).map_err(|e| self.failed(&e));
        }
        let has_length = has_length(&response);
        let (sender, pieces) = mpsc::channel(PIECES_WAITING_MAX);
        let http = self.clone();
        let task = tokio::spawn(async move {
            let hears = sender.clone();
            let done = tokio::select! {
                biased;
                () = http.stop.stopped() => Err(NoAnswer::Stopped),
                // Who does not listen any more wants no more.
                () = hears.closed() => return,
                done = http.pass_on(response, &sender) => done,
            };
            if let Err(why) = done {
                let _nobody_listens = sender.send(Err(why)).await;
            }
        });
        Ok((head, Some(Pieces { pieces, has_length, _task: AbortOnDrop(task.abort_handle()) })))
    }

    /// The answer to a request, up to its body, which may be compressed when it is unpacked later. A redirect that keeps the
    /// method is followed once, on the same server, unless the caller does that.
    async fn respond(&self, request: Request, is_unpacked: bool) -> Result<reqwest::Response, NoAnswer> {
        let send = async |request: Request| {
            let mut prepared = self.prepare(request)?;
            if is_unpacked {
                prepared.headers_mut().insert(header::ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
            }
            self.execute(prepared).await
        };
        let again = (!request.keeps_redirects && request.location.is_none()).then(|| request.clone());
        let response = send(request).await?;
        let location = match response.status().as_u16() {
            307 | 308 => head(&response).location.filter(|to| self.is_same_server(to)),
            _ => None,
        };
        match (again, location) {
            (Some(request), location @ Some(_)) => send(Request { location, ..request }).await,
            _ => Ok(response),
        }
    }

    /// Passes on a body piece by piece, unpacked, as fast as it is taken.
    async fn pass_on(
        &self,
        mut response: reqwest::Response,
        to: &mpsc::Sender<Result<Vec<u8>, NoAnswer>>,
    ) -> Result<(), NoAnswer> {
        let is_gzip = response.headers().get(header::CONTENT_ENCODING).is_some_and(|v| v == "gzip");
        let mut unpacked = is_gzip.then(|| MultiGzDecoder::new(Vec::new()));
        let garbled = |e: std::io::Error| {
            NoAnswer::Failed(format!("{} sent an answer that cannot be unpacked: {e}", self.base()))
        };
        while let Some(piece) = response.chunk().await.map_err(|e| self.failed(&e))? {
            let Some(decoder) = &mut unpacked else {
                let _nobody_listens = to.send(Ok(piece.to_vec())).await;
                continue;
            };
            for part in piece.chunks(UNPACKED_AT_ONCE) {
                decoder.write_all(part).map_err(garbled)?;
                let text = std::mem::take(decoder.get_mut());
                if !text.is_empty() {
                    let _nobody_listens = to.send(Ok(text)).await;
                }
            }
        }
        if let Some(mut decoder) = unpacked {
            decoder.try_finish().map_err(garbled)?;
            let _nobody_listens = to.send(Ok(std::mem::take(decoder.get_mut()))).await;
        }
        Ok(())
    }

    /// The request as the HTTP library sends it, with what the server wants to be shown.
    fn prepare(&self, request: Request) -> Result<reqwest::Request, NoAnswer> {
        let mut url = match &request.location {
            Some(location) => self.named.join(location).ok().filter(|to| same_server(to, &self.named)),
            None => self.named.join(&request.path).ok(),
        }
        .ok_or_else(|| NoAnswer::Failed("the address of the server cannot be used".to_owned()))?;
        if request.location.is_none() && !request.query.is_empty() {
            url.query_pairs_mut().extend_pairs(&request.query);
        }
        let mut prepared = reqwest::Request::new(request.method, url);
        *prepared.timeout_mut() = request.timeout;
        let headers = prepared.headers_mut();
        if !request.content_type.is_empty() {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(request.content_type));
        }
        if !request.accept.is_empty() {
            headers.insert(header::ACCEPT, HeaderValue::from_static(request.accept));
        }
        let shown = match &self.basic {
            Some(basic) => Some(basic.clone()),
            None => authorization(&self.token().0, request.scheme)?,
        };
        if let Some(value) = shown {
            headers.insert(header::AUTHORIZATION, value);
        }
        let mut body = request.body;
        if request.gzip
            && body.len() >= GZIP_BYTES_MIN
            && let Some(small) = compressed(&body)
        {
            body = small;
            headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        *prepared.body_mut() = Some(body.into());
        Ok(prepared)
    }

    /// The answer to a request, up to its body.
    async fn execute(&self, request: reqwest::Request) -> Result<reqwest::Response, NoAnswer> {
        let (began, method, url) = (Instant::now(), request.method().clone(), request.url().clone());
        let answered = self.executed(request).await;
        // The query may hold names of the user's.
        let (server, path, time) = (self.base(), url.path(), began.elapsed());
        match &answered {
            Ok(response) => {
                let status = response.status().as_u16();
                tracing::debug!(server, %method, path, status, ?time, "a request was answered");
            }
            Err(NoAnswer::Failed(error) | NoAnswer::Unusable { reason: error, .. }) => {
                tracing::debug!(server, %method, path, error, ?time, "a request was not answered");
            }
            Err(NoAnswer::Stopped) => {}
        }
        answered
    }

    /// The same, untold. When certificates are why there is no answer, and others are on the disk by now, it is sent again
    /// with those: a server that changed its certificate first is no failure.
    async fn executed(&self, request: reqwest::Request) -> Result<reqwest::Response, NoAnswer> {
        let (client, version) = self.client(FilesDue::InTime);
        let again = request.try_clone();
        let mut sent = client.execute(request).await;
        if let Err(error) = &sent
            && let Some(again) = again
            && tls::mismatch(error, &self.recipe.connection).is_some()
            && let (newer, newer_version) = self.client(FilesDue::Now)
            && newer_version != version
        {
            sent = newer.execute(again).await;
        }
        let response = sent.map_err(|e| self.failed(&e))?;
        match &self.recipe.proxy {
            Some(proxy) if response.status() == reqwest::StatusCode::PROXY_AUTHENTICATION_REQUIRED => {
                Err(self.no_entry(proxy))
            }
            _ => Ok(response),
        }
    }

    /// The client for the next request, and which one it is.
    fn client(&self, due: FilesDue) -> (Client, u64) {
        // After a failed handshake even files that look the same are read: also the system's authorities may have changed.
        let is_untrusted = due == FilesDue::InTime && self.untrusted.swap(false, Ordering::Relaxed);
        let before = {
            let mut current = lock(&self.current);
            let is_due = current.looked.elapsed() >= self.recipe.files_every;
            let has_files = self.recipe.tls != TlsFiles::default();
            if !(is_untrusted || has_files && (is_due || due == FilesDue::Now)) {
                return (current.client.clone(), current.version);
            }
            // Others go on with the client that is there.
            current.looked = Instant::now();
            current.files.clone()
        };
        let files = Stamps::of(&self.recipe.tls);
        let made = (is_untrusted || files != before).then(|| self.recipe.client());
        let mut current = lock(&self.current);
        match made {
            None => {}
            Some(Ok(client)) => {
                let (version, looked) = (current.version + 1, current.looked);
                *current = Current { client, version, files, looked, is_warned: false };
            }
            // Half-written files stay different from those of before, and are tried again.
            Some(Err(_)) if current.is_warned => {}
            Some(Err(error)) => {
                current.is_warned = true;
                tracing::warn!(%error, "certificates on the disk cannot be used; those of before are kept");
            }
        }
        (current.client.clone(), current.version)
    }

    /// Forgets the connections: a panic among them leaves them unusable. The next request makes others.
    pub(crate) fn renew(&self) {
        self.untrusted.store(true, Ordering::Relaxed);
    }

    /// Whether the disk has other certificates than requests were made with, which the next one tries; `tried` remembers
    /// those, so that each are tried once.
    pub(crate) fn has_new_files(&self, tried: &mut Option<Stamps>) -> bool {
        if self.recipe.tls == TlsFiles::default() {
            return false;
        }
        let files = Stamps::of(&self.recipe.tls);
        if files == lock(&self.current).files || tried.as_ref() == Some(&files) {
            return false;
        }
        *tried = Some(files);
        self.untrusted.store(true, Ordering::Relaxed);
        true
    }

    /// Whether the client is closing.
    pub(crate) fn is_closing(&self) -> bool {
        self.stop.0.closing.is_given()
    }

    /// Waits, unless somebody stops. The close of the client cuts a pause short, unless the last try already began in it; and who
    /// waits for lines does, when `hastens` says since when they have been waiting for a try.
    pub(crate) fn rest(&self, time: Duration, tried_in_close: bool, hastens: Option<Instant>) -> Rested {
        let closing = &self.stop.0.closing;
        let mut waiting = self.stop.0.in_haste.subscribe();
        let haste = self.recipe.haste;
        let hastened = async {
            let Some(since) = hastens else { return std::future::pending().await };
            // Its sender lives as long as this does.
            let _somebody_waits = waiting.wait_for(|waiting| *waiting > 0).await.is_ok();
            tokio::time::sleep(haste.saturating_sub(since.elapsed())).await;
        };
        let rest = async {
            // Made inside of the runtime, which a timer needs.
            tokio::select! {
                () = closing.given(), if !tried_in_close => Rested::CutShort,
                () = hastened => Rested::CutShort,
                () = tokio::time::sleep(time) => Rested::Whole,
            }
        };
        self.wait(rest).unwrap_or(Rested::Stopped)
    }

    /// Runs to the end, or until somebody stops.
    pub(crate) fn wait<T>(&self, doing: impl Future<Output = T>) -> Result<T, ()> {
        let Some(runtime) = &self.runtime.0 else { return Err(()) };
        runtime.block_on(async {
            tokio::select! {
                biased;
                () = self.stop.stopped() => Err(()),
                done = doing => Ok(done),
            }
        })
    }

    /// The proxy does not know this client.
    fn no_entry(&self, proxy: &Proxy) -> NoAnswer {
        let reason = format!(
            "connect to {} through {proxy}: it wants a user name and a password, or others; write them into influxdb.proxy \
             as http://USER:PASSWORD@HOST:PORT",
            self.base()
        );
        NoAnswer::Unusable { reason, setting: "proxy" }
    }

    /// A sentence for what went wrong.
    fn failed(&self, error: &reqwest::Error) -> NoAnswer {
        let (base, causes) = (self.base(), causes(error));
        if let Some((setting, why)) = tls::mismatch(error, &self.recipe.connection) {
            self.untrusted.store(true, Ordering::Relaxed);
            return NoAnswer::Unusable { reason: format!("connect to {base}: {why}"), setting };
        }
        if let Some(proxy) = self.recipe.proxy.as_ref().filter(|_| error.is_connect()) {
            // The HTTP library does not give the type of this error away.
            if causes.contains("proxy authorization required") {
                return self.no_entry(proxy);
            }
            let why = match causes.as_str() {
                _ if error.is_timeout() => "no connection in time",
                "tunnel error: unsuccessful" => "it does not connect to the server",
                "tunnel error: unexpected end of file" => "it closed the connection",
                causes => causes,
            };
            return NoAnswer::Failed(format!(
                "connect to {base} through {proxy}: {why}; check the proxy, or change influxdb.proxy"
            ));
        }
        NoAnswer::Failed(if error.is_timeout() && error.is_connect() {
            format!("connect to {base}: no connection in time")
        } else if error.is_timeout() {
            format!("{base} did not answer in time")
        } else if error.is_connect() {
            format!("connect to {base}: {causes}")
        } else if base.starts_with("https:") && causes == "connection closed" {
            // So HTTP/2 tells of a server that left right after the handshake, when its alert came too late to be read.
            let certificate = match self.recipe.tls.certificate {
                None => "wants a certificate of this client, name it in influxdb.certificate_file",
                Some(_) => "refuses this client's certificate, name another in influxdb.certificate_file",
            };
            format!("{base} broke off: {causes}; if it {certificate}")
        } else {
            format!("{base} broke off: {causes}")
        })
    }
}

/// When the files of certificates are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FilesDue {
    /// When it is time again.
    InTime,
    Now,
}

impl fmt::Debug for Http {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http").field("base", &self.base()).finish_non_exhaustive()
    }
}

/// Whether an answer says where its body ends: over HTTP/1 a body may end with the connection, for whatever reason that
/// closes.
fn has_length(response: &reqwest::Response) -> bool {
    let has = |name| response.headers().contains_key(name);
    response.version() >= reqwest::Version::HTTP_2
        || has(header::CONTENT_LENGTH)
        || has(header::TRANSFER_ENCODING)
        // It has an end of its own.
        || has(header::CONTENT_ENCODING)
}

/// A body in gzip; writing to memory does not fail, but if it did, the body would go as it is.
fn compressed(body: &[u8]) -> Option<Vec<u8>> {
    let mut out = GzEncoder::new(Vec::with_capacity(body.len() / 4), Compression::fast());
    out.write_all(body).ok()?;
    out.finish().ok()
}

/// All of an answer but its body.
fn head(response: &reqwest::Response) -> Answer {
    let text = |name: &str| {
        let value = response.headers().get(name)?;
        Some(String::from_utf8_lossy(value.as_bytes()).into_owned())
    };
    Answer {
        status: response.status().as_u16(),
        content_type: text("content-type").unwrap_or_default(),
        retry_after: text("retry-after"),
        location: text("location"),
        version: text("x-influxdb-version"),
        build: text("x-influxdb-build"),
        wants_basic: text("www-authenticate")
            .is_some_and(|way| way.get(..5).is_some_and(|scheme| scheme.eq_ignore_ascii_case("basic"))),
        date: text("date"),
        is_victoria_metrics: text("x-server-hostname").is_some(),
        body: Vec::new(),
    }
}

/// Reads the body of an answer, as much of it as is of interest.
async fn body(mut response: reqwest::Response, answer: &mut Answer) -> Result<(), reqwest::Error> {
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
    Ok(())
}

/// Paths that addresses in other programs' files end with.
const OWN_PATHS: [&str; 5] = ["/api/v2", "/api/v2/write", "/api/v2/query", "/api/v3", "/api/v3/write_lp"];

/// An address that paths are put behind.
fn address(key: &str, url: &str) -> Result<Url, Error> {
    // What follows the path may be a token.
    let shown = url.split(['?', '#']).next().unwrap_or_default();
    let bad =
        |shown: &str, why: &str| Error::new(Kind::InvalidConfig, format!("influxdb.{key} {shown}{why}"));
    let not_one = |e| format!("{e}; write http://HOST:PORT or https://HOST:PORT");
    let mut base = Url::parse(url).map_err(|e| bad(&format!("{shown:?}: "), &not_one(e)))?;
    if !base.username().is_empty() || base.password().is_some() {
        return Err(bad("", "has a user name or password in it; take them out, and give influxdb.token"));
    }
    let path = base.path().trim_end_matches('/');
    if let Some(own) = OWN_PATHS.iter().find(|own| path.ends_with(*own)) {
        let why = format!("ends with {own}, which this client adds by itself; leave it out");
        return Err(bad(&format!("{shown:?} "), &why));
    }
    base.set_query(None);
    base.set_fragment(None);
    if !base.path().ends_with('/') {
        base.set_path(&format!("{}/", base.path()));
    }
    Ok(base)
}

/// An address with another name in it, and the host that is to be connected to for it.
fn named(base: &Url, name: &str, proxy: Option<&Proxy>) -> Result<(Url, Option<String>), Error> {
    let bad =
        |why: String| Error::new(Kind::InvalidConfig, format!("influxdb.tls_server_name {name:?} {why}"));
    if base.scheme() != "https" {
        return Err(bad(
            "is for servers with certificates: write https:// in influxdb.url, or leave it empty".into(),
        ));
    }
    if let Some(proxy) = proxy {
        let why = format!(
            "cannot be used through {proxy}, which looks up the name itself: set influxdb.proxy to off, or write the name \
             into influxdb.url"
        );
        return Err(bad(why));
    }
    let mut named = base.clone();
    named.set_host(Some(name)).map_err(|e| bad(format!("cannot be in an address: {e}")))?;
    let host = base.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    Ok((named, Some(host)))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_what_paths_are_put_behind() {
        let check = |url: &str, expected: Result<&str, &str>| match (address("url", url), expected) {
            (Ok(base), Ok(expected)) => assert_eq!(base.as_str(), expected, "{url}"),
            (Err(error), Err(words)) => {
                let says = error.to_string();
                assert!(says.contains("influxdb.url") && says.contains(words), "{url}: {says}");
                assert!(!says.contains("hunter2"), "{says}");
            }
            (found, expected) => panic!("{url}: {found:?} in place of {expected:?}"),
        };
        check("http://a:8086", Ok("http://a:8086/"));
        check("https://a/proxy?token=hunter2#x", Ok("https://a/proxy/"));
        check("http://a/insert/0/influx", Ok("http://a/insert/0/influx/"));
        check("http://a/api/v2x", Ok("http://a/api/v2x/"));
        check(
            "http://a:8086/api/v2/write?token=hunter2",
            Err("ends with /api/v2/write, which this client adds"),
        );
        check("http://a/api/v2/", Err("leave it out"));
        check("http://me:hunter2@a", Err("give influxdb.token"));
        check("http://:8086", Err("write http://HOST:PORT"));
    }

    #[test]
    fn files_that_changed_are_taken_when_they_can_be_used() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.pem");
        let pem = || {
            let key = rcgen::KeyPair::generate().unwrap();
            rcgen::CertificateParams::new(Vec::new()).unwrap().self_signed(&key).unwrap().pem()
        };
        let put = |text: &str| {
            // Moved into its place, as who renews certificates should.
            let new = folder.path().join("new.pem");
            std::fs::write(&new, text).unwrap();
            std::fs::rename(&new, &path).unwrap();
        };
        let good = pem();
        put(&good);
        let url = "https://127.0.0.1:9";
        let config = Config::remote(url).unwrap().with_ca_file(&path);
        let http = Http::new(&config, url).unwrap();
        let check = |due, version, is_warned| {
            assert_eq!(http.client(due).1, version);
            assert_eq!(lock(&http.current).is_warned, is_warned);
        };
        check(FilesDue::Now, 0, false);
        put(&pem());
        // It is not ten seconds ago that they were looked at.
        check(FilesDue::InTime, 0, false);
        check(FilesDue::Now, 1, false);
        check(FilesDue::Now, 1, false);
        for damaged in ["", "-----BEGIN CERTIFICATE-----\n", &good[..good.len() / 2]] {
            put(damaged);
            check(FilesDue::Now, 1, true);
        }
        std::fs::remove_file(&path).unwrap();
        check(FilesDue::Now, 1, true);
        put(&good);
        check(FilesDue::Now, 2, false);
        // What failed in a handshake is read again though it looks the same, once.
        http.untrusted.store(true, Ordering::Relaxed);
        check(FilesDue::InTime, 3, false);
        check(FilesDue::InTime, 3, false);
        lock(&http.current).looked -= FILES_EVERY;
        put(&pem());
        check(FilesDue::InTime, 4, false);
        // Who waits for them tries each once, and no sooner than they changed, whether they can be used or not.
        let mut tried = None;
        for (text, version, is_warned) in [(pem(), 5, false), (String::new(), 5, true), (pem(), 6, false)] {
            assert!(!http.has_new_files(&mut tried));
            put(&text);
            assert!(http.has_new_files(&mut tried) && !http.has_new_files(&mut tried));
            check(FilesDue::InTime, version, is_warned);
        }
    }

    #[test]
    fn a_future_is_waited_for_on_any_thread() {
        assert_eq!(wait_for(async { 1 }), 1);
        let (sender, told) = oneshot::channel();
        let thread = std::thread::spawn(|| wait_for(told));
        sender.send(2).unwrap();
        assert_eq!(thread.join().unwrap(), Ok(2));
    }
}
