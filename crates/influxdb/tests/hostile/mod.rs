//! A server that does to its clients what networks, proxies and servers do. It keeps every line it stored, in order, and
//! every token it was shown.

use std::collections::{BTreeSet, VecDeque};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// What is done to one request.
#[derive(Clone, Debug, PartialEq)]
pub enum Do {
    /// Judges the lines and stores what is good.
    Serve,
    /// Answers with these bytes without storing anything.
    Answer(String),
    /// Closes the connection as soon as it is there.
    Refuse,
    /// Never reads.
    NeverRead,
    /// Reads a byte each second, until nobody sends any more.
    Sip,
    /// Reads everything and never answers.
    NeverAnswer,
    /// Answers one byte at a time, slower than anyone waits.
    Drip,
    /// Resets before, in the middle of, or after the body.
    ResetBeforeBody,
    ResetInBody,
    ResetAfterBody,
    /// Resets in the middle of the answer.
    ResetInAnswer,
    /// Answers with a chunked body that ends early.
    TruncatedChunks,
    /// Answers with bytes that are no HTTP.
    Garbage,
    /// Serves, then closes the connection without saying so.
    CloseKeepAlive,
    /// Stores everything and dies before it answers.
    StoreThenDie,
    /// Stores everything and answers when nobody waits any more.
    AnswerLate,
    /// An answer with a header that is far too long.
    HugeHeader,
    /// An error whose body never ends.
    EndlessBody,
    /// An interim answer first.
    Interim,
}

/// What lines the server takes: `None` for all, else its answer and those it keeps all the same.
pub type Judge = dyn Fn(&Request) -> Option<(String, Vec<String>)> + Send + Sync;

#[derive(Default)]
pub struct Seen {
    pub stored: Vec<String>,
    pub tokens: BTreeSet<String>,
    pub requests: usize,
    pub lines_per_request: Vec<usize>,
    /// When each request was there, and how many of them were compressed.
    pub times: Vec<Instant>,
    pub compressed: usize,
}

/// A request that was read to its end.
#[derive(Debug, Default)]
pub struct Request {
    /// Its first lines, as they came.
    pub head: String,
    pub is_get: bool,
    /// Where it went, and the body, decompressed, byte for byte.
    pub target: String,
    pub body: Vec<u8>,
    pub token: Option<String>,
    pub is_gzip: bool,
    /// Bytes of the body, decompressed.
    pub bytes: usize,
    pub lines: Vec<String>,
}

impl Request {
    /// Reads a request; `None` when the connection ends.
    pub fn read(reader: &mut impl BufRead) -> Option<Self> {
        Head::read(reader)?.body(reader)
    }
}

/// The first lines of a request.
struct Head(String);

impl Head {
    fn read(reader: &mut impl BufRead) -> Option<Self> {
        let mut head = String::new();
        while reader.read_line(&mut head).ok()? > 2 {}
        (!head.is_empty()).then_some(Self(head))
    }

    fn header(&self, name: &str) -> Option<String> {
        self.0.lines().find_map(|l| {
            let (key, value) = l.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
        })
    }

    fn length(&self) -> usize {
        self.header("content-length").and_then(|l| l.parse().ok()).unwrap_or(0)
    }

    fn body(&self, reader: &mut impl BufRead) -> Option<Request> {
        let mut body = vec![0; self.length()];
        reader.read_exact(&mut body).ok()?;
        let is_gzip = self.header("content-encoding").is_some();
        if is_gzip {
            let mut plain = Vec::new();
            flate2::read::GzDecoder::new(&body[..]).read_to_end(&mut plain).unwrap();
            body = plain;
        }
        Some(Request {
            head: self.0.clone(),
            is_get: self.0.starts_with("GET"),
            target: self.0.split(' ').nth(1).unwrap_or_default().to_owned(),
            body: body.clone(),
            token: self.header("authorization"),
            is_gzip,
            bytes: body.len(),
            lines: String::from_utf8(body).unwrap().lines().map(str::to_owned).collect(),
        })
    }
}

pub struct Hostile {
    pub at: SocketAddr,
    pub seen: Arc<Mutex<Seen>>,
    pub script: Arc<Mutex<VecDeque<Do>>>,
    pub healthy: Arc<AtomicBool>,
    /// What it answers to `GET /ping`, as an InfluxDB 2 does at first; `None`: what it answers to every GET.
    pub ping: Arc<Mutex<Option<String>>>,
    stopped: Arc<AtomicBool>,
    listens: Option<JoinHandle<()>>,
}

const PING: &str = "HTTP/1.1 204 No Content\r\nX-Influxdb-Version: v2.8.0\r\n\r\n";

pub fn answer(status: &str, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len())
}

pub fn message(status: &str, message: &str) -> String {
    let body = format!("{{\"code\":\"x\",\"message\":{}}}", serde_json::Value::from(message));
    answer(status, "Content-Type: application/json; charset=utf-8\r\n", &body)
}

impl Hostile {
    /// A server that takes the lines of a request, or answers what `judge` says.
    pub fn new(judge: impl Fn(&[String]) -> Option<String> + Send + Sync + 'static) -> Self {
        Self::judging(move |request| judge(&request.lines).map(|answer| (answer, Vec::new())))
    }

    /// A server that may keep some of the lines of a request it refuses.
    pub fn judging(
        judge: impl Fn(&Request) -> Option<(String, Vec<String>)> + Send + Sync + 'static,
    ) -> Self {
        Self::judging_at(TcpListener::bind("127.0.0.1:0").unwrap(), judge)
    }

    /// The same at a place of the caller's. It is free again when the server is dropped.
    pub fn judging_at(
        listener: TcpListener,
        judge: impl Fn(&Request) -> Option<(String, Vec<String>)> + Send + Sync + 'static,
    ) -> Self {
        let mut hostile = Self {
            at: listener.local_addr().unwrap(),
            seen: Arc::default(),
            script: Arc::default(),
            healthy: Arc::new(AtomicBool::new(true)),
            ping: Arc::new(Mutex::new(Some(PING.to_owned()))),
            stopped: Arc::default(),
            listens: None,
        };
        let judge: Arc<Judge> = Arc::new(judge);
        let (seen, script) = (hostile.seen.clone(), hostile.script.clone());
        let (healthy, stopped) = (hostile.healthy.clone(), hostile.stopped.clone());
        let ping = hostile.ping.clone();
        hostile.listens = Some(std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let (seen, script, judge) = (seen.clone(), script.clone(), judge.clone());
                let (healthy, ping, stopped) = (healthy.clone(), ping.clone(), stopped.clone());
                std::thread::spawn(move || {
                    connection(stream, &seen, &script, &*judge, &healthy, &ping, &stopped);
                });
            }
        }));
        hostile
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.at)
    }

    pub fn will(&self, script: impl IntoIterator<Item = Do>) {
        self.script.lock().unwrap().extend(script);
    }

    /// It does nothing more of what it was told to.
    pub fn is_mended(&self) {
        self.script.lock().unwrap().clear();
    }

    pub fn stored(&self) -> Vec<String> {
        self.seen.lock().unwrap().stored.clone()
    }
}

impl Drop for Hostile {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        let _wakes_it = TcpStream::connect(self.at);
        let _panicked = self.listens.take().map(JoinHandle::join);
    }
}

fn connection(
    mut stream: TcpStream,
    seen: &Mutex<Seen>,
    script: &Mutex<VecDeque<Do>>,
    judge: &Judge,
    healthy: &AtomicBool,
    ping: &Mutex<Option<String>>,
    stopped: &AtomicBool,
) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    loop {
        // Only a request is something that anything is done to.
        match reader.fill_buf() {
            Ok(bytes) if !bytes.is_empty() && !stopped.load(Ordering::Relaxed) => {}
            _ => return,
        }
        let is_get = reader.buffer().starts_with(b"GET");
        // A client that was not told what is here asks so; nothing is written by it.
        let is_asking = reader.buffer().starts_with(b"POST /api/v2/write HTTP");
        let is_query = [&b"query"[..], b"export"].iter().any(|way| {
            let line = reader.buffer().split(|b| matches!(b, b'?' | b'\r')).next().unwrap_or_default();
            line.windows(way.len()).any(|part| part == *way)
        });
        let what = if is_get || is_asking || is_query {
            Do::Serve
        } else {
            script.lock().unwrap().pop_front().unwrap_or(Do::Serve)
        };
        match what {
            Do::Refuse => return,
            Do::NeverRead => return hold(&stream),
            Do::Sip => return sip(&mut stream),
            _ => {}
        }
        let Some(head) = Head::read(&mut reader) else { return };
        seen.lock().unwrap().tokens.extend(head.header("authorization"));
        match what {
            Do::ResetBeforeBody => return reset(&stream),
            Do::ResetInBody => {
                let mut some = vec![0; head.length() / 2];
                let _gone = reader.read_exact(&mut some);
                return reset(&stream);
            }
            _ => {}
        }
        let Some(request) = head.body(&mut reader) else { return };
        if is_get {
            let ping = ping.lock().unwrap().clone().filter(|_| request.target.starts_with("/ping"));
            if let Some(ping) = ping {
                let _gone = stream.write_all(ping.as_bytes());
                continue;
            }
            let status = if healthy.load(Ordering::Relaxed) { "200 OK" } else { "503 no" };
            let _gone = stream.write_all(answer(status, "", "{}").as_bytes());
            continue;
        }
        let lines = &request.lines;
        if is_query {
            // It knows no queries, unless the judge does.
            let nothing = || (answer("404 Not Found", "", "404 page not found"), Vec::new());
            let (reply, _) = judge(&request).unwrap_or_else(nothing);
            let _gone = stream.write_all(reply.as_bytes());
            continue;
        }
        if !is_asking {
            let mut seen = seen.lock().unwrap();
            seen.requests += 1;
            seen.lines_per_request.push(lines.len());
            seen.times.push(Instant::now());
            seen.compressed += usize::from(request.is_gzip);
        }
        let store = |lines: &[String]| seen.lock().unwrap().stored.extend_from_slice(lines);
        let reply = match &what {
            Do::Answer(text) => text.clone(),
            Do::NeverAnswer => return hold(&stream),
            Do::Drip => {
                for byte in message("204 No Content", "").bytes() {
                    std::thread::sleep(Duration::from_millis(300));
                    if stream.write_all(&[byte]).is_err() {
                        return;
                    }
                }
                return;
            }
            Do::ResetAfterBody => return reset(&stream),
            Do::ResetInAnswer => {
                let _gone = stream.write_all(b"HTTP/1.1 500 Internal Server Error\r\nContent-Le");
                return reset(&stream);
            }
            Do::TruncatedChunks => {
                let head = "HTTP/1.1 400 Bad Request\r\nTransfer-Encoding: chunked\r\n\r\n40\r\n{\"code\":";
                let _gone = stream.write_all(head.as_bytes());
                return;
            }
            Do::Garbage => {
                let _gone = stream.write_all(&[0x16, 3, 1, 0, 200, 1, b'\r', b'\n', 0, 0xff]);
                return;
            }
            Do::StoreThenDie => {
                store(lines);
                return reset(&stream);
            }
            Do::AnswerLate => {
                store(lines);
                std::thread::sleep(Duration::from_millis(900));
                let _gone = stream.write_all(answer("204 No Content", "", "").as_bytes());
                return;
            }
            Do::HugeHeader => {
                let header = format!("X-Long: {}\r\n", "x".repeat(2 << 20));
                let _gone = stream.write_all(answer("500 no", &header, "").as_bytes());
                return;
            }
            Do::EndlessBody => {
                let _gone = stream.write_all(b"HTTP/1.1 503 no\r\n\r\n");
                while stream.write_all(&[b'x'; 65536]).is_ok() {}
                return;
            }
            Do::Interim => {
                let _gone = stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n");
                serve(&request, judge, &store)
            }
            _ => serve(&request, judge, &store),
        };
        if stream.write_all(reply.as_bytes()).is_err() || what == Do::CloseKeepAlive {
            return;
        }
    }
}

fn serve(request: &Request, judge: &Judge, store: &dyn Fn(&[String])) -> String {
    match judge(request) {
        Some((refusal, kept)) => {
            store(&kept);
            refusal
        }
        None => {
            store(&request.lines);
            "HTTP/1.1 204 No Content\r\n\r\n".to_owned()
        }
    }
}

fn hold(stream: &TcpStream) {
    std::thread::sleep(Duration::from_millis(1500));
    let _gone = stream.shutdown(Shutdown::Both);
}

fn sip(stream: &mut TcpStream) {
    for _ in 0..10 {
        std::thread::sleep(Duration::from_secs(1));
        if !matches!(stream.read(&mut [0]), Ok(1)) {
            return;
        }
    }
}

/// Closes with what was sent unread, which resets.
fn reset(stream: &TcpStream) {
    let _gone = stream.shutdown(Shutdown::Both);
}
