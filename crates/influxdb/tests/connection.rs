//! Ways to a server: names that are not in the address, versions of TLS, proxies, headers for a gateway, HTTP/2, and
//! connections that die without a word. Each fault names its setting; no secret is shown.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs, unreachable_pub)]

#[allow(dead_code, reason = "each test uses a part of it")]
mod hostile;
#[allow(dead_code, reason = "each test uses a part of it")]
mod secure;

use graylogic_influxdb::{Client, Config, Health, Level, Point, Timestamp, TlsVersion};
use hostile::{Hostile, Request};
use rustls::ProtocolVersion;
use rustls::version::{TLS12, TLS13};
use secure::{Authority, Secure, Shake};
use std::io::{BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(60);
/// A name that nobody can look up.
const NAME: &str = "influx.house.invalid";

fn config(url: &str) -> Config {
    Config::remote(url)
        .unwrap()
        .with_token("hunter1")
        .with_spool(None)
        .with_quick_batches(20, Duration::from_millis(10))
        .with_hurry(50)
}

fn write(client: &Client, numbers: std::ops::Range<i64>) {
    for i in numbers {
        let point = Point::new("m").field("f", i as f64);
        client.write_point_at(&point, Timestamp::from_nanos(1_000_000 + i)).unwrap();
    }
}

fn lines(numbers: std::ops::Range<i64>) -> Vec<String> {
    numbers.map(|i| format!("m f={i}.0 {}", 1_000_000 + i)).collect()
}

/// The lines, once each: one whose answer was lost comes again.
fn once(mut stored: Vec<String>) -> Vec<String> {
    let mut seen = std::collections::HashSet::new();
    stored.retain(|line| seen.insert(line.clone()));
    stored
}

/// Lines reach the server.
fn arrives(config: &Config, stored: impl Fn() -> Vec<String>) {
    let client = Client::connect(config).unwrap();
    write(&client, 0..50);
    client.flush(Level::Delivered, SOON).unwrap_or_else(|e| panic!("{e}: {:?}", client.stats()));
    client.close(SOON).unwrap();
    assert_eq!(once(stored()), lines(0..50));
}

/// Lines stay, for a reason that says all of this, and shows no secret.
fn stays(config: &Config, health: &Health, says: &[&str]) {
    let client = Client::connect(config).unwrap();
    write(&client, 0..50);
    let until = Instant::now() + SOON;
    let trouble = loop {
        let stats = client.stats();
        let trouble = stats.trouble.unwrap_or_default();
        if stats.health == *health && says.iter().all(|part| trouble.contains(part)) {
            break trouble;
        }
        assert!(Instant::now() < until, "{:?} and not {health:?}, {says:?}: {trouble}", stats.health);
        std::thread::sleep(Duration::from_millis(5));
    };
    assert!(!trouble.contains("hunter"), "{trouble}");
    let asked = client.health_check(SOON).unwrap_err().to_string();
    assert!(!asked.contains("hunter"), "{asked}");
    assert_eq!(client.stats().delivered, 0);
    client.close(Duration::from_millis(10)).unwrap();
}

fn held(setting: &str) -> Health {
    Health::Held(setting.to_owned())
}

/// A house's authority in a file, and a server with a certificate for a name.
struct House {
    folder: tempfile::TempDir,
    authority: Authority,
}

impl House {
    fn new() -> Self {
        let (folder, authority) = (tempfile::tempdir().unwrap(), Authority::new("house"));
        std::fs::write(folder.path().join("ca.pem"), &authority.certificate).unwrap();
        Self { folder, authority }
    }

    fn server(&self, name: &str, version: &'static rustls::SupportedProtocolVersion) -> Secure {
        Secure::new(Shake::hands(&self.authority.signs(name, 2000..2500), &[], version))
    }

    fn config(&self, url: &str) -> Config {
        config(url).with_ca_file(self.folder.path().join("ca.pem"))
    }
}

#[test]
fn a_server_that_speaks_only_tls_1_2_is_refused_where_1_3_is_asked_for() {
    let house = House::new();
    let (old, new) = (house.server("127.0.0.1", &TLS12), house.server("127.0.0.1", &TLS13));
    let of = |server: &Secure, version| {
        house.config(&format!("https://{}", server.at)).with_tls_min_version(version)
    };
    stays(
        &of(&old, TlsVersion::Tls13),
        &held("tls_min_version"),
        &["does not speak TLS 1.3", "influxdb.tls_min_version", "set it to 1.2"],
    );
    assert!(old.hands.lock().unwrap().is_empty());
    for (server, asked, spoken) in [
        (&old, TlsVersion::Tls12, ProtocolVersion::TLSv1_2),
        (&new, TlsVersion::Tls13, ProtocolVersion::TLSv1_3),
    ] {
        arrives(&of(server, asked), || server.stored());
        assert!(server.hands.lock().unwrap().iter().all(|hand| hand.version == spoken));
    }
}

#[test]
fn a_server_is_called_by_the_name_in_its_certificate_wherever_it_is() {
    let house = House::new();
    let server = house.server(NAME, &TLS13);
    let url = format!("https://{}", server.at);
    stays(&house.config(&url), &held("url"), &["use a name in influxdb.url"]);
    let named = |url: &str, name: &str| house.config(url).with_tls_server_name(name).unwrap();
    stays(&named(&url, "other.invalid"), &held("tls_server_name"), &["influxdb.tls_server_name"]);
    assert!(server.hands.lock().unwrap().is_empty(), "nothing was sent to a server of another name");
    arrives(&named(&url, NAME), || server.stored());
    let port = server.at.port();
    let by_name = house.server(NAME, &TLS12);
    arrives(&named(&format!("https://localhost:{}/", by_name.at.port()), NAME), || by_name.stored());
    for (server, port) in [(&server, port), (&by_name, by_name.at.port())] {
        let hands = server.hands.lock().unwrap();
        assert!(
            !hands.is_empty() && hands.iter().all(|h| h.server_name.as_deref() == Some(NAME)),
            "{hands:?}"
        );
        let host = format!("host: {NAME}:{port}\r\n");
        let heads = server.heads.lock().unwrap();
        assert!(heads.iter().all(|head| head.to_lowercase().contains(&host)), "{heads:?}");
    }
}

#[test]
fn headers_are_added_to_each_request_and_replace_none_of_ours() {
    let house = House::new();
    let server = house.server("127.0.0.1", &TLS13);
    let config = house
        .config(&format!("https://{}", server.at))
        .with_header("X-Site", "house 7")
        .and_then(|c| c.with_header("x-gateway-key", "hunter2"))
        .unwrap();
    arrives(&config, || server.stored());
    let heads = server.heads.lock().unwrap();
    assert!(heads.len() > 1);
    for head in heads.iter() {
        for part in ["\r\nx-site: house 7\r\n", "\r\nx-gateway-key: hunter2\r\n"] {
            assert!(head.contains(part), "{part:?} is not in {head}");
        }
    }
    let writes = heads.iter().filter(|h| h.starts_with("POST"));
    assert!(writes.clone().count() > 0);
    assert!(writes.clone().all(|h| h.contains("authorization: Token hunter1\r\n")), "{heads:?}");
}

/// The first line of a request to a proxy, and the credential it showed.
type Asked = (String, Option<String>);

/// A proxy that takes every name for one server.
struct Proxy {
    at: SocketAddr,
    seen: Arc<Mutex<Vec<Asked>>>,
    stopped: Arc<AtomicBool>,
}

impl Proxy {
    /// Asks for a credential when there is one; connects to nothing when there is no server.
    fn new(server: Option<SocketAddr>, credential: Option<&'static str>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        let proxy = Self { at, seen: Arc::default(), stopped: Arc::default() };
        let (seen, stopped) = (proxy.seen.clone(), proxy.stopped.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                let (Ok(stream), seen) = (stream, seen.clone()) else { continue };
                std::thread::spawn(move || pass(stream, server, credential, &seen));
            }
        });
        proxy
    }

    fn firsts(&self) -> Vec<String> {
        self.seen.lock().unwrap().iter().map(|(first, _)| first.clone()).collect()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        let _wakes_it = TcpStream::connect(self.at);
    }
}

/// Handles one request, which for CONNECT is all that follows.
fn pass(
    mut stream: TcpStream,
    server: Option<SocketAddr>,
    credential: Option<&str>,
    seen: &Mutex<Vec<Asked>>,
) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let Some(request) = Request::read(&mut reader) else { return };
    let header = |name: &str| {
        let found = request.head.lines().find(|l| l.to_lowercase().starts_with(name))?;
        Some(found[name.len()..].trim().to_owned())
    };
    let (first, rest) = request.head.split_once("\r\n").unwrap();
    let shown = header("proxy-authorization:");
    seen.lock().unwrap().push((first.to_owned(), shown.clone()));
    let refuse = |mut stream: &TcpStream, status: &str| {
        let _gone = write!(stream, "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
    };
    if credential.is_some() && shown.as_deref() != credential {
        return refuse(&stream, "407 Proxy Authentication Required");
    }
    let Some(mut to) = server.and_then(|at| TcpStream::connect(at).ok()) else {
        return refuse(&stream, "502 Bad Gateway");
    };
    let (method, target) = first.split_once(' ').unwrap();
    if method == "CONNECT" {
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
        return join(stream, to, Arc::default());
    }
    // To the server as a request of its own, and the answer back.
    let path = target.splitn(4, '/').nth(3).unwrap();
    let mut body = vec![];
    if request.is_gzip {
        let mut gzip = flate2::write::GzEncoder::new(&mut body, flate2::Compression::fast());
        gzip.write_all(&request.body).unwrap();
        gzip.finish().unwrap();
    } else {
        body = request.body;
    }
    let rest: String = rest
        .split_inclusive("\r\n")
        .map(|l| match l.to_lowercase().starts_with("content-length:") {
            true => format!("Content-Length: {}\r\n", body.len()),
            false => l.to_owned(),
        })
        .collect();
    write!(to, "{method} /{path}\r\n{rest}").unwrap();
    to.write_all(&body).unwrap();
    to.shutdown(Shutdown::Write).unwrap();
    let mut reply = String::new();
    to.read_to_string(&mut reply).unwrap();
    let _gone = stream.write_all(reply.replacen("\r\n", "\r\nConnection: close\r\n", 1).as_bytes());
}

/// Passes on bytes both ways until an end, or swallows them when frozen.
fn join(one: TcpStream, two: TcpStream, frozen: Arc<AtomicBool>) {
    let passes = |mut from: TcpStream, mut to: TcpStream, frozen: Arc<AtomicBool>| {
        std::thread::spawn(move || {
            let mut some = [0; 4096];
            while let Ok(n @ 1..) = from.read(&mut some) {
                if !frozen.load(Ordering::Relaxed) && to.write_all(&some[..n]).is_err() {
                    break;
                }
            }
            let _gone = (!frozen.load(Ordering::Relaxed)).then(|| to.shutdown(Shutdown::Both));
        })
    };
    passes(one.try_clone().unwrap(), two.try_clone().unwrap(), frozen.clone());
    passes(two, one, frozen);
}

#[test]
fn requests_go_through_a_proxy_which_is_shown_its_own_credential() {
    // RFC 7617: "me" and "hunter2@7".
    const CREDENTIAL: &str = "Basic bWU6aHVudGVyMkA3";
    let house = House::new();
    for credential in [None, Some(CREDENTIAL)] {
        let user = if credential.is_some() { "me:hunter2%407@" } else { "" };
        let plain = Hostile::new(|_| None);
        let proxy = Proxy::new(Some(plain.at), credential);
        let through = |config: Config, user: &str, proxy: &Proxy| {
            config.with_proxy(&format!("http://{user}{}", proxy.at)).unwrap()
        };
        arrives(&through(config(&format!("http://{NAME}:8086")), user, &proxy), || plain.stored());
        let firsts = proxy.firsts();
        assert!(
            firsts.iter().any(|f| f.starts_with(&format!("POST http://{NAME}:8086/api/v2/write"))),
            "{firsts:?}"
        );
        assert!(proxy.seen.lock().unwrap().iter().all(|(_, shown)| shown.as_deref() == credential));
        assert_eq!(plain.seen.lock().unwrap().tokens.iter().collect::<Vec<_>>(), ["Token hunter1"]);

        let secure = house.server(NAME, &TLS13);
        let tunnel = Proxy::new(Some(secure.at), credential);
        arrives(&through(house.config(&format!("https://{NAME}:8086")), user, &tunnel), || secure.stored());
        let firsts = tunnel.firsts();
        assert!(
            !firsts.is_empty() && firsts.iter().all(|f| *f == format!("CONNECT {NAME}:8086 HTTP/1.1")),
            "{firsts:?}"
        );
        assert!(tunnel.seen.lock().unwrap().iter().all(|(_, shown)| shown.as_deref() == credential));
        let heads = secure.heads.lock().unwrap();
        assert!(!heads.iter().any(|h| h.to_lowercase().contains("proxy-authorization")), "{heads:?}");

        if credential.is_some() {
            for (wrong, config) in [
                ("", config(&format!("http://{NAME}:8086"))),
                ("me:hunter3@", config(&format!("http://{NAME}:8086"))),
                ("", house.config(&format!("https://{NAME}:8086"))),
                ("me:hunter3@", house.config(&format!("https://{NAME}:8086"))),
            ] {
                let says = [
                    &*format!("the proxy http://{} (influxdb.proxy)", proxy.at),
                    "a user name and a password",
                ];
                stays(&through(config, wrong, &proxy), &held("proxy"), &says);
            }
        }
    }
}

#[test]
fn a_proxy_that_is_not_there_or_leads_nowhere_is_named() {
    let house = House::new();
    // Where nobody listens.
    let nobody = SocketAddr::from(([127, 0, 0, 1], 1));
    let nowhere = Proxy::new(None, None);
    let through =
        |config: Config, at: SocketAddr| config.with_proxy(&format!("http://me:hunter2@{at}")).unwrap();
    for config in [config("http://127.0.0.1:8086"), house.config("https://127.0.0.1:8086")] {
        let says = [&*format!("through the proxy http://{nobody} (influxdb.proxy)"), "change influxdb.proxy"];
        stays(&through(config, nobody), &Health::Retrying, &says);
    }
    let says = [&*format!("through the proxy http://{}", nowhere.at), "does not connect to the server"];
    stays(&through(house.config("https://127.0.0.1:8086"), nowhere.at), &Health::Retrying, &says);
    stays(&through(config("http://127.0.0.1:8086"), nowhere.at), &Health::Retrying, &["502"]);
}

/// Tells the child of the next test what to do.
const CHILD: &str = "GRAYLOGIC_TEST_PROXY_CHILD";

#[test]
fn proxy_child() {
    let Ok(path) = std::env::var(CHILD) else { return };
    let client = Client::connect(&Config::from_file(path).unwrap().with_hurry(50)).unwrap();
    write(&client, 0..20);
    let until = Instant::now() + SOON;
    while client.stats().health == Health::Ok && client.stats().waiting > 0 && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(5));
    }
    let stats = client.stats();
    println!("\ndelivered {} trouble {:?}", stats.delivered, stats.trouble);
    client.close(Duration::from_millis(10)).unwrap();
}

#[test]
fn the_environment_names_the_proxy_unless_the_configuration_does() {
    let house = House::new();
    let (plain, secure) = (Hostile::new(|_| None), house.server(NAME, &TLS13));
    let (to_plain, to_secure) = (Proxy::new(Some(plain.at), None), Proxy::new(Some(secure.at), None));
    // Not this machine's own address for any rule, and a way to it all the same.
    let unspecified = format!("http://0.0.0.0:{}", plain.at.port());
    let (named, loopback) = (format!("http://{NAME}"), plain.url());
    let named_secure = format!("https://{NAME}");
    let nobody = "http://127.0.0.1:1";
    let path = house.folder.path().join("config.yaml");
    let ca = house.folder.path().join("ca.pem");
    let check = |url: &str, environment: &[(&str, &str)], proxy: Option<&Proxy>, says: &str| {
        let yaml = format!(
            "influxdb:\n  url: {url}\n  ca_file: {}\n  spool: off\n  flush_interval: 1\n  batch_size: 20\n",
            ca.display()
        );
        std::fs::write(&path, yaml).unwrap();
        let asked = |p: &Proxy| p.seen.lock().unwrap().len();
        let before = [asked(&to_plain), asked(&to_secure)];
        let said = run_child(&path, environment);
        assert!(said.lines().any(|l| l.contains(says)), "{url} {environment:?}: not {says:?}: {said}");
        for (other, before) in [&to_plain, &to_secure].into_iter().zip(before) {
            let is_it = proxy.is_some_and(|p| p.at == other.at);
            assert_eq!(asked(other) > before, is_it, "{url} {environment:?}");
        }
    };
    let a = format!("http://{}", to_plain.at);
    let b = format!("{}", to_secure.at);
    let all = "delivered 20 trouble None";
    let by = |variable: &str| format!("through the proxy {nobody} (environment variable {variable})");
    check(&named, &[("HTTP_PROXY", &a)], Some(&to_plain), all);
    check(&named, &[("http_proxy", &a), ("HTTPS_PROXY", nobody)], Some(&to_plain), all);
    check(&named, &[("ALL_PROXY", &a)], Some(&to_plain), all);
    check(&named_secure, &[("https_proxy", &b), ("HTTP_PROXY", nobody)], Some(&to_secure), all);
    check(&named_secure, &[("all_proxy", &b)], Some(&to_secure), all);
    check(&named_secure, &[("HTTPS_PROXY", nobody)], None, &by("HTTPS_PROXY"));
    check(&unspecified, &[("HTTP_PROXY", nobody)], None, &by("HTTP_PROXY"));
    check(&unspecified, &[("HTTP_PROXY", nobody), ("NO_PROXY", "0.0.0.0")], None, all);
    check(&unspecified, &[("HTTP_PROXY", nobody), ("no_proxy", "a,0.0.0.0/8")], None, all);
    check(&unspecified, &[("HTTP_PROXY", nobody), ("GRAYLOGIC_INFLUXDB_PROXY", "off")], None, all);
    check(&loopback, &[("HTTP_PROXY", nobody), ("ALL_PROXY", nobody)], None, all);
    // What the configuration names is used for everything, whatever the environment says.
    let ours = [("GRAYLOGIC_INFLUXDB_PROXY", &*a), ("HTTP_PROXY", nobody), ("NO_PROXY", "*")];
    check(&loopback, &ours, Some(&to_plain), all);
    let yaml = format!("influxdb:\n  url: {named}\n  spool: off\n");
    std::fs::write(&path, yaml).unwrap();
    let said = run_child(&path, &[("ALL_PROXY", "socks5://me:hunter2@127.0.0.1:1")]);
    assert!(said.contains("environment variable ALL_PROXY is no address of a proxy"), "{said}");
    assert!(!said.contains("hunter2"), "{said}");
}

fn run_child(config: &Path, environment: &[(&str, &str)]) -> String {
    let mut child = std::process::Command::new(std::env::current_exe().unwrap());
    for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"] {
        child.env_remove(name).env_remove(name.to_lowercase());
    }
    let child = child
        .args(["proxy_child", "--exact", "--nocapture", "--test-threads=1"])
        .env(CHILD, config)
        .envs(environment.iter().copied())
        .output()
        .unwrap();
    String::from_utf8_lossy(&child.stdout).into_owned() + &String::from_utf8_lossy(&child.stderr)
}

/// What a server of HTTP/2 was sent: how the server was named, a header, and the lines.
#[derive(Default)]
struct Streams {
    stored: Mutex<Vec<String>>,
    hosts: Mutex<Vec<Option<String>>>,
    sites: Mutex<Vec<Option<String>>>,
    connections: AtomicUsize,
}

impl Streams {
    async fn read(&self, request: http::Request<h2::RecvStream>) -> Vec<String> {
        assert_eq!(request.version(), http::Version::HTTP_2);
        let header = |name: &str| Some(request.headers().get(name)?.to_str().unwrap().to_owned());
        self.sites.lock().unwrap().push(header("x-site"));
        self.hosts.lock().unwrap().push(request.uri().authority().map(ToString::to_string));
        let is_gzip = header("content-encoding").is_some();
        let mut body = request.into_body();
        let mut bytes = Vec::new();
        while let Some(Ok(piece)) = body.data().await {
            bytes.extend_from_slice(&piece);
            body.flow_control().release_capacity(piece.len()).unwrap();
        }
        if is_gzip {
            let packed = std::mem::take(&mut bytes);
            flate2::read::GzDecoder::new(&packed[..]).read_to_end(&mut bytes).unwrap();
        }
        String::from_utf8(bytes).unwrap().lines().map(str::to_owned).collect()
    }
}

/// A server that speaks nothing but HTTP/2, behind TLS that offers it.
struct Second {
    at: SocketAddr,
    streams: Arc<Streams>,
    _runtime: tokio::runtime::Runtime,
}

impl Second {
    fn new(authority: &Authority) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let at = listener.local_addr().unwrap();
        let Shake::Hands(config) = Shake::hands(&authority.signs("127.0.0.1", 2000..2500), &[], &TLS13)
        else {
            unreachable!("it shakes hands");
        };
        let mut config = (*config).clone();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let streams = Arc::new(Streams::default());
        let seen = streams.clone();
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, seen) = (acceptor.clone(), seen.clone());
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]), "it was not agreed on");
                    seen.connections.fetch_add(1, Ordering::Relaxed);
                    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
                    while let Some(Ok((request, mut respond))) = connection.accept().await {
                        let seen = seen.clone();
                        tokio::spawn(async move {
                            let lines = seen.read(request).await;
                            let answer =
                                http::Response::builder().status(204).header("x-influxdb-version", "v2.8.0");
                            let answer = answer.body(()).unwrap();
                            // What was answered may come again, what was not is not stored.
                            if respond.send_response(answer, true).is_ok() {
                                seen.stored.lock().unwrap().extend(lines);
                            }
                        });
                    }
                });
            }
        });
        Self { at, streams, _runtime: runtime }
    }
}

#[test]
fn http_2_is_spoken_where_a_server_offers_it() {
    let house = House::new();
    let server = Second::new(&house.authority);
    let config = house.config(&format!("https://{}", server.at)).with_header("X-Site", "house 7").unwrap();
    arrives(&config, || server.streams.stored.lock().unwrap().clone());
    let hosts = server.streams.hosts.lock().unwrap().clone();
    assert!(hosts.iter().all(|h| *h == Some(server.at.to_string())), "{hosts:?}");
    let sites = server.streams.sites.lock().unwrap().clone();
    assert!(sites.iter().all(|s| s.as_deref() == Some("house 7")), "{sites:?}");
    // Through a tunnel as well.
    let proxy = Proxy::new(Some(server.at), None);
    let through = config.with_proxy(&format!("http://{}", proxy.at)).unwrap();
    let client = Client::connect(&through).unwrap();
    write(&client, 50..60);
    client.flush(Level::Delivered, SOON).unwrap();
    client.close(SOON).unwrap();
    assert_eq!(once(server.streams.stored.lock().unwrap().clone()), lines(0..60));
}

#[test]
fn a_connection_of_http_2_that_died_without_a_word_is_left_for_another() {
    let house = House::new();
    let server = Second::new(&house.authority);
    // What a router does that forgot the connections of before.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (way, to) = (listener.local_addr().unwrap(), server.at);
    let current = Arc::new(Mutex::new(Arc::new(AtomicBool::new(false))));
    let frozen = current.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (Ok(stream), Ok(to)) = (stream, TcpStream::connect(to)) else { return };
            join(stream, to, frozen.lock().unwrap().clone());
        }
    });
    let client = Client::connect(&house.config(&format!("https://{way}"))).unwrap();
    for round in 0..3 {
        write(&client, round * 20..round * 20 + 20);
        client.flush(Level::Delivered, SOON).unwrap_or_else(|e| panic!("{e}: {:?}", client.stats()));
        let before = std::mem::take(&mut *current.lock().unwrap());
        before.store(true, Ordering::Relaxed);
    }
    client.close(SOON).unwrap();
    assert_eq!(once(server.streams.stored.lock().unwrap().clone()), lines(0..60));
    assert!(server.streams.connections.load(Ordering::Relaxed) >= 3);
}
