//! TLS as it goes wrong in a house: certificates that are too old, too new, of another name or another authority, none at
//! all, and ports that speak something else. Nothing is lost, the message names the setting, and what was mended is taken
//! without a restart.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs, unreachable_pub)]

#[allow(dead_code, reason = "each test uses a part of it")]
mod campaign;
#[allow(dead_code, reason = "each test uses a part of it")]
mod hostile;

use campaign::{Row, Toll};
use graylogic_influxdb::{Client, Config, Health, Level, Point, Timestamp};
use hostile::{Request, answer};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned, SupportedProtocolVersion, version};
use std::io::{BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(60);

/// A certificate in PEM, with its key.
#[derive(Clone)]
struct Identity {
    certificate: String,
    key: String,
}

/// Who signs certificates.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
}

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), certificate }
    }

    /// For a name, from one year to another.
    fn signs(&self, name: &str, years: std::ops::Range<i32>) -> Identity {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        (params.not_before, params.not_after) =
            (date_time_ymd(years.start, 1, 1), date_time_ymd(years.end, 1, 1));
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap().pem();
        Identity { certificate, key: key.serialize_pem() }
    }
}

fn self_signed() -> Identity {
    let key = KeyPair::generate().unwrap();
    let certificate =
        CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().self_signed(&key).unwrap();
    Identity { certificate: certificate.pem(), key: key.serialize_pem() }
}

/// What a server does with a connection.
#[derive(Clone)]
enum Shake {
    Hands(Arc<ServerConfig>),
    /// Reads and says nothing.
    Stall,
    /// Speaks HTTP without TLS.
    Plain,
    /// Says that it failed, in the middle.
    Alert,
    /// Closes in the middle.
    Close,
}

impl Shake {
    /// With its certificate and, when it wants one of its clients, who must have signed that.
    fn hands(
        identity: &Identity,
        clients: Option<&Authority>,
        version: &'static SupportedProtocolVersion,
    ) -> Self {
        let provider = Arc::new(default_provider());
        let builder =
            ServerConfig::builder_with_provider(provider.clone()).with_protocol_versions(&[version]).unwrap();
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(authority) => {
                let mut roots = RootCertStore::empty();
                roots.add(CertificateDer::from_pem_slice(authority.certificate.as_bytes()).unwrap()).unwrap();
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                builder.with_client_cert_verifier(verifier.build().unwrap())
            }
        };
        let certificate = CertificateDer::from_pem_slice(identity.certificate.as_bytes()).unwrap();
        let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).unwrap();
        Self::Hands(Arc::new(builder.with_single_cert(vec![certificate], key).unwrap()))
    }
}

/// A server behind TLS that stores lines, in order.
struct Secure {
    at: SocketAddr,
    shake: Arc<Mutex<Shake>>,
    stored: Arc<Mutex<Vec<String>>>,
    stopped: Arc<AtomicBool>,
}

impl Secure {
    fn new(shake: Shake) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let secure = Self {
            at: listener.local_addr().unwrap(),
            shake: Arc::new(Mutex::new(shake)),
            stored: Arc::default(),
            stopped: Arc::default(),
        };
        let (shake, stored, stopped) = (secure.shake.clone(), secure.stored.clone(), secure.stopped.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                let (Ok(stream), shake, stored) = (stream, shake.lock().unwrap().clone(), stored.clone())
                else {
                    continue;
                };
                std::thread::spawn(move || connection(stream, shake, &stored));
            }
        });
        secure
    }

    fn mend(&self, shake: &Shake) {
        *self.shake.lock().unwrap() = shake.clone();
    }
}

impl Drop for Secure {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        let _wakes_it = TcpStream::connect(self.at);
    }
}

fn connection(mut stream: TcpStream, shake: Shake, stored: &Mutex<Vec<String>>) {
    let mut hello = [0; 512];
    match shake {
        Shake::Hands(config) => {
            let tls = StreamOwned::new(ServerConnection::new(config).unwrap(), stream);
            let mut reader = BufReader::new(tls);
            while let Some(request) = Request::read(&mut reader) {
                stored.lock().unwrap().extend(request.lines);
                if reader.get_mut().write_all(b"HTTP/1.1 204 No Content\r\n\r\n").is_err() {
                    return;
                }
            }
        }
        Shake::Stall => {
            let _hello = stream.read(&mut hello);
            std::thread::sleep(Duration::from_millis(1500));
        }
        Shake::Plain => {
            let _hello = stream.read(&mut hello);
            let _gone = stream.write_all(answer("400 Bad Request", "", "speak HTTP").as_bytes());
        }
        // A record of type alert: fatal, internal error.
        Shake::Alert => {
            let _hello = stream.read(&mut hello);
            let _gone = stream.write_all(&[21, 3, 3, 0, 2, 2, 80]);
            let _waits_for_the_end = stream.read(&mut hello);
        }
        Shake::Close => {
            let _hello = stream.read(&mut hello);
            // The beginning of an answer.
            let _gone = stream.write_all(&[22, 3, 3, 0, 90, 2]);
        }
    }
}

fn write_file(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap();
    path
}

fn write(client: &Client, numbers: std::ops::Range<i64>) {
    for i in numbers {
        let point = Point::new("m").field("f", i as f64);
        client.write_point_at(&point, Timestamp::from_nanos(1_000_000 + i)).unwrap();
    }
}

fn line(i: i64) -> String {
    format!("m f={i}.0 {}", 1_000_000 + i)
}

/// What is wrong at first, how that shows, and what mends it.
struct Case {
    shake: Shake,
    /// The authority and the client's certificate as they are on the disk at first, and later.
    trusted: [String; 2],
    shown: Option<[Identity; 2]>,
    /// The setting the lane is held for, `None` when it tries again by itself, and a part of the message.
    held: Option<&'static str>,
    says: &'static str,
    good: Shake,
}

fn cases(version: &'static SupportedProtocolVersion) -> Vec<(String, Case)> {
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let right = ours.signs("127.0.0.1", 2000..2500);
    let client = ours.signs("graylogic", 2000..2500);
    let server = |identity: &Identity| Shake::hands(identity, None, version);
    let good = server(&right);
    let asking = Shake::hands(&right, Some(&ours), version);
    let trusted = [ours.certificate.clone(), ours.certificate.clone()];
    let case = |shake: Shake, held, says| Case {
        shake,
        trusted: trusted.clone(),
        shown: None,
        held,
        says,
        good: good.clone(),
    };
    let by_itself = self_signed();
    let found = vec![
        ("expired", case(server(&ours.signs("127.0.0.1", 2000..2001)), Some("url"), "renew the certificate")),
        (
            "not yet valid",
            case(server(&ours.signs("127.0.0.1", 2400..2500)), Some("url"), "set this machine's clock"),
        ),
        (
            "wrong name",
            case(server(&ours.signs("other.example", 2000..2500)), Some("url"), "use a name in influxdb.url"),
        ),
        (
            "unknown authority, and another on the disk later",
            Case {
                trusted: [theirs.certificate.clone(), ours.certificate.clone()],
                ..case(good.clone(), Some("ca_file"), "name the authority")
            },
        ),
        (
            "self-signed, and trusted later",
            Case {
                trusted: [ours.certificate.clone(), by_itself.certificate.clone()],
                good: server(&by_itself),
                ..case(server(&by_itself), Some("ca_file"), "name the authority")
            },
        ),
        (
            "no certificate of the client",
            case(asking.clone(), Some("certificate_file"), "the server wants a certificate"),
        ),
        (
            "client certificate of another authority, and the right one on the disk later",
            Case {
                shown: Some([theirs.signs("graylogic", 2000..2500), client.clone()]),
                good: asking.clone(),
                ..case(asking.clone(), Some("certificate_file"), "refuses this client's certificate")
            },
        ),
        ("a handshake that stalls", case(Shake::Stall, None, "no connection in time")),
        ("no TLS on the port", case(Shake::Plain, Some("url"), "write http:// or another port")),
        ("an alert in the middle", case(Shake::Alert, None, "InternalError")),
        ("closed in the middle", case(Shake::Close, None, "handshake")),
        (
            "right from the beginning, with a client certificate",
            Case {
                shown: Some([client.clone(), client]),
                good: asking.clone(),
                ..case(asking.clone(), None, "")
            },
        ),
    ];
    found.into_iter().map(|(name, case)| (format!("{:?}, {name}", version.version), case)).collect()
}

#[test]
fn s6_no_certificate_costs_a_line_and_each_fault_names_its_setting() {
    let cases: Vec<_> = [&version::TLS12, &version::TLS13].into_iter().flat_map(cases).collect();
    let mut row = Row::new("S6", 0);
    row.all(&cases, run);
    row.tell();
}

fn run(case: &Case, toll: &mut Toll) {
    let server = Secure::new(case.shake.clone());
    let folder = tempfile::tempdir().unwrap();
    let put = |at: usize| {
        let ca = write_file(folder.path(), "ca.pem", &case.trusted[at]);
        let shown = case.shown.as_ref().map(|shown| {
            let certificate = write_file(folder.path(), "certificate.pem", &shown[at].certificate);
            (certificate, write_file(folder.path(), "key.pem", &shown[at].key))
        });
        (ca, shown)
    };
    let (ca, shown) = put(0);
    let mut config = Config::remote(&format!("https://{}", server.at))
        .unwrap()
        .with_token("secret")
        .with_ca_file(ca)
        .with_spool(Some(folder.path().join("spool")))
        .with_batches(20, Duration::from_millis(20))
        .with_hurry(50);
    if let Some((certificate, key)) = shown {
        config = config.with_client_certificate(certificate, key);
    }
    let Some(client) = toll.opened(Client::connect(&config)) else { return };
    write(&client, 0..50);
    if !case.says.is_empty() {
        let expected = case.held.map_or(Health::Retrying, |setting| Health::Held(setting.to_owned()));
        let fits = |client: &Client| {
            let stats = client.stats();
            stats.health == expected && stats.trouble.is_some_and(|t| t.contains(case.says))
        };
        let until = Instant::now() + SOON / 3;
        while !fits(&client) && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(2));
        }
        let stats = client.stats();
        toll.expect(fits(&client), || format!("{:?}: {:?}", stats.health, stats.trouble));
        toll.expect(stats.delivered == 0, || format!("{} delivered", stats.delivered));
        let setting = case.held.map_or_else(String::new, |s| format!("influxdb.{s}"));
        // On a busy machine an answer may come too late.
        let until = Instant::now() + SOON / 3;
        let asked = loop {
            let asked = client.health_check(SOON).map_or_else(|e| e.to_string(), |()| "no error".to_owned());
            if asked.contains(&setting) || Instant::now() > until {
                break asked;
            }
        };
        toll.expect(asked.contains(&setting), || format!("the error names no setting: {asked}"));
        let secret = asked.contains("PRIVATE") || asked.contains("secret");
        toll.expect(!secret, || format!("the error shows a secret: {asked}"));
    }
    if case.held.is_some() {
        // Somebody who renews certificates may be in the middle of it: those of before are kept.
        write_file(folder.path(), "ca.pem", "");
        std::thread::sleep(Duration::from_millis(60));
        toll.expect(client.stats().health != Health::Ok, || "it says that it is well".to_owned());
    }
    put(1);
    server.mend(&case.good);
    write(&client, 50..80);
    let flushed = client.flush(Level::Delivered, SOON);
    toll.expect(flushed.is_ok(), || format!("{flushed:?}: {:?}", client.stats()));
    let stats = client.stats();
    toll.expect((stats.rejected, stats.dropped, stats.delivered) == (0, 0, 80), || format!("{stats:?}"));
    client.close(SOON).unwrap();
    // What came twice came again; what came first came in order.
    let mut stored = server.stored.lock().unwrap().clone();
    let mut seen = std::collections::HashSet::new();
    stored.retain(|l| seen.insert(l.clone()));
    let all: Vec<String> = (0..80).map(line).collect();
    toll.lose(all.iter().filter(|l| !seen.contains(*l)).count() as u64, || format!("{stored:?}"));
    toll.expect(stored == all, || format!("not what was written: {stored:?}"));
}

#[test]
fn files_that_do_not_fit_are_named_with_their_remedy() {
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let (a, b) = (ours.signs("a", 2000..2500), theirs.signs("b", 2000..2500));
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| write_file(folder.path(), name, text);
    let ca = file("ca.pem", &ours.certificate);
    let (certificate, key) = (file("a.pem", &a.certificate), file("a.key", &a.key));
    let (other_key, empty) = (file("b.key", &b.key), file("empty.pem", ""));
    let encrypted = file(
        "encrypted.key",
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nc2VjcmV0\n-----END ENCRYPTED PRIVATE KEY-----\n",
    );
    let damaged = file("damaged.pem", "-----BEGIN CERTIFICATE-----\nhunter2!\n-----END CERTIFICATE-----\n");
    let nonsense =
        file("nonsense.pem", "-----BEGIN CERTIFICATE-----\naHVudGVyMg==\n-----END CERTIFICATE-----\n");
    let bad_key = file("bad.key", "-----BEGIN PRIVATE KEY-----\naHVudGVyMg==\n-----END PRIVATE KEY-----\n");
    let binary = folder.path().join("ca.der");
    std::fs::write(&binary, [0x30, 0x82, 0xff, 0xfe]).unwrap();
    let (missing, is_folder) = (folder.path().join("missing.pem"), folder.path().to_owned());
    let check = |ca: Option<&Path>, certificate: Option<&Path>, key: Option<&Path>, expected: [&str; 3]| {
        let line = |name: &str, path: Option<&Path>| {
            path.map_or_else(String::new, |p| format!("  {name}: {}\n", p.display()))
        };
        let yaml = format!(
            "influxdb:\n  url: https://127.0.0.1:9\n  spool: off\n{}{}{}",
            line("ca_file", ca),
            line("certificate_file", certificate),
            line("key_file", key)
        );
        let error = Client::connect(&Config::from_yaml_with_env(&yaml, |_| None).unwrap()).unwrap_err();
        assert!(error.is_invalid_config() && !error.is_retryable(), "{error}");
        let text = error.to_string();
        for part in expected {
            assert!(text.contains(part), "{part:?} is not in: {text}");
        }
        let mut secrets = vec!["hunter2".to_owned(), "aHVudGVyMg".to_owned(), "c2VjcmV0".to_owned()];
        secrets.extend([&a.key, &b.key].map(|k| k.lines().nth(1).unwrap()[..20].to_owned()));
        assert!(secrets.iter().all(|s| !text.contains(s.as_str())), "shows what is in the file: {text}");
    };
    let all = |c: &'static str, f: &'static str, r: &'static str| [c, f, r];
    check(Some(&missing), None, None, all("influxdb.ca_file", "missing.pem", "cannot be read"));
    check(Some(&is_folder), None, None, all("influxdb.ca_file", "cannot be read", "name a PEM file"));
    check(Some(&empty), None, None, all("influxdb.ca_file", "empty.pem", "holds no certificate"));
    check(Some(&key), None, None, all("influxdb.ca_file", "a.key", "holds no certificate"));
    check(Some(&binary), None, None, all("influxdb.ca_file", "ca.der", "give a PEM file"));
    check(Some(&damaged), None, None, all("influxdb.ca_file", "damaged.pem", "is damaged"));
    check(Some(&nonsense), None, None, all("influxdb.ca_file", "nonsense.pem", "certificate 1 in it"));
    let ca = Some(ca.as_path());
    check(ca, Some(&certificate), None, all("influxdb.certificate_file", "a.pem", "influxdb.key_file"));
    check(ca, None, Some(&key), all("influxdb.key_file", "a.key", "influxdb.certificate_file"));
    check(ca, Some(&missing), Some(&key), all("influxdb.certificate_file", "missing.pem", "cannot be read"));
    check(ca, Some(&certificate), Some(&missing), all("influxdb.key_file", "missing.pem", "cannot be read"));
    check(ca, Some(&certificate), Some(&other_key), all("influxdb.key_file", "b.key", "a.pem"));
    check(
        ca,
        Some(&certificate),
        Some(&encrypted),
        all("influxdb.key_file", "encrypted.key", "not encrypted"),
    );
    check(ca, Some(&certificate), Some(&certificate), all("influxdb.key_file", "a.pem", "no private key"));
    check(ca, Some(&certificate), Some(&bad_key), all("influxdb.key_file", "bad.key", "damaged"));
    check(
        ca,
        Some(&nonsense),
        Some(&key),
        all("influxdb.certificate_file", "nonsense.pem", "cannot be used"),
    );
    // One file may hold both, in any order.
    let both = file("both.pem", &format!("{}{}", a.key, a.certificate));
    let config =
        Config::remote("https://127.0.0.1:9").unwrap().with_spool(None).with_client_certificate(&both, &both);
    Client::connect(&config).unwrap().close(Duration::from_millis(10)).unwrap();
}
