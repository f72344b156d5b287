//! A server that answers each request as it is told to, and keeps what it was asked.

use graylogic_influxdb::ServerKind;
use serde_json::Value;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

/// A request.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Seen {
    pub method: String,
    pub path: String,
    /// In the order of the names.
    pub query: Vec<(String, String)>,
    /// Null when it is no JSON.
    pub body: Value,
    pub authorization: Option<String>,
}

impl Seen {
    pub fn new(method: &str, target: &str, body: &str) -> Self {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let pairs = query.split('&').filter(|pair| !pair.is_empty());
        let pair = |pair: &str| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (plain(key), plain(value))
        };
        let mut query: Vec<_> = pairs.map(pair).collect();
        query.sort();
        let body = serde_json::from_str(body).unwrap_or_default();
        Self { method: method.to_owned(), path: path.to_owned(), query, body, authorization: None }
    }

    /// Whether it asks for the same, whoever does.
    pub fn same(&self, other: &Self) -> bool {
        (&self.method, &self.path, &self.query, &self.body)
            == (&other.method, &other.path, &other.query, &other.body)
    }

    pub fn value(&self, key: &str) -> Option<&str> {
        self.query.iter().find(|(k, _)| k == key).map(|(_, value)| value.as_str())
    }
}

/// A part of a query without its escapes.
fn plain(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digits: Vec<u8> = rest.by_ref().take(2).collect();
                u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap()
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).unwrap()
}

/// What is answered.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    pub status: u16,
    pub headers: String,
    pub body: String,
}

impl Answer {
    pub fn of(status: u16, body: &str) -> Self {
        Self { status, headers: String::new(), body: body.to_owned() }
    }

    pub fn with(mut self, headers: &str) -> Self {
        self.headers += headers;
        self
    }

    fn bytes(&self) -> Vec<u8> {
        let length = match self.status {
            204 => String::new(),
            _ => format!("Content-Length: {}\r\n", self.body.len()),
        };
        format!("HTTP/1.1 {} Scripted\r\n{}{length}\r\n{}", self.status, self.headers, self.body).into_bytes()
    }
}

/// How a kind of server answers a ping.
pub fn ping(kind: ServerKind) -> Answer {
    match kind {
        ServerKind::InfluxDb1 => {
            Answer::of(204, "").with("X-Influxdb-Version: 1.6.7~rc0\r\nX-Influxdb-Build: OSS\r\n")
        }
        ServerKind::InfluxDb3 => Answer::of(200, r#"{"version":"3.8.0","revision":"x","process_id":"1"}"#),
        ServerKind::VictoriaMetrics => Answer::of(204, "").with("X-Server-Hostname: here\r\n"),
        _ => Answer::of(204, "").with("X-Influxdb-Version: v2.8.0\r\nX-Influxdb-Build: OSS\r\n"),
    }
}

pub struct Scripted {
    at: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    stopped: Arc<AtomicBool>,
}

impl Scripted {
    pub fn new(answer: impl Fn(&Seen) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        let (seen, stopped): (Arc<Mutex<Vec<Seen>>>, Arc<AtomicBool>) = Default::default();
        let (keeps, ends, answer) = (seen.clone(), stopped.clone(), Arc::new(answer));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if ends.load(Ordering::Relaxed) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let (keeps, answer) = (keeps.clone(), answer.clone());
                std::thread::spawn(move || serve(stream, &keeps, &*answer));
            }
        });
        Self { at, seen, stopped }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.at)
    }

    /// What it was asked, in order.
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        let _wakes_it = TcpStream::connect(self.at);
    }
}

fn serve(mut stream: TcpStream, keeps: &Mutex<Vec<Seen>>, answer: &dyn Fn(&Seen) -> Answer) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    while let Some(seen) = read(&mut reader) {
        keeps.lock().unwrap().push(seen.clone());
        if stream.write_all(&answer(&seen).bytes()).is_err() {
            return;
        }
    }
}

fn read(reader: &mut impl BufRead) -> Option<Seen> {
    let mut head = String::new();
    while reader.read_line(&mut head).ok()? > 2 {}
    let mut words = head.split(' ');
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let header = |name: &str| {
        head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
        })
    };
    let mut body = vec![0; header("content-length").map_or(0, |length| length.parse().unwrap())];
    reader.read_exact(&mut body).ok()?;
    let authorization = header("authorization");
    Some(Seen { authorization, ..Seen::new(&method, &target, &String::from_utf8_lossy(&body)) })
}
