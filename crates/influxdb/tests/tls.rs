//! TLS as it goes wrong in a house: certificates that are too old, too new, of another name or another authority, none at
//! all, and ports that speak something else. Nothing is lost, the message names the setting, and what was mended is taken
//! without a restart.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs, unreachable_pub)]

#[allow(dead_code, reason = "each test uses a part of it")]
mod campaign;
#[allow(dead_code, reason = "each test uses a part of it")]
mod hostile;
#[allow(dead_code, reason = "each test uses a part of it")]
mod secure;

use campaign::{Row, Toll};
use graylogic_influxdb::{Client, Config, Health, Level, Point, Timestamp};
use rustls::{SupportedProtocolVersion, version};
use secure::{Authority, Identity, Secure, Shake, self_signed, signs_itself};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(60);

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
    let server = |identity: &Identity| Shake::hands(identity, &[], version);
    let good = server(&right);
    let asking = Shake::hands(&right, &[&ours], version);
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
                ..case(good.clone(), Some("ca_file"), "influxdb.ca_file names")
            },
        ),
        (
            "self-signed, and trusted later",
            Case {
                trusted: [ours.certificate.clone(), by_itself.certificate.clone()],
                good: server(&by_itself),
                ..case(server(&by_itself), Some("ca_file"), "influxdb.ca_file names")
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
        .with_quick_batches(20, Duration::from_millis(20))
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

/// A writer that writes until it is told to stop, and what it was told of.
fn under_load(config: &Config, during: impl FnOnce(&Client)) -> (Vec<String>, i64) {
    let client = Client::connect(config).unwrap();
    let told = Arc::new(Mutex::new(Vec::new()));
    let hears = told.clone();
    client.set_on_error(move |error| hears.lock().unwrap().push(error.to_string()));
    let is_over = AtomicBool::new(false);
    let written = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut written = 0;
            while !is_over.load(Ordering::Relaxed) {
                write(&client, written..written + 1);
                written += 1;
                std::thread::sleep(Duration::from_millis(1));
            }
            written
        });
        // A test that fails in here ends the writer all the same.
        let ends = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| during(&client)));
        is_over.store(true, Ordering::Relaxed);
        let written = writer.join().unwrap();
        ends.map_or_else(|e| std::panic::resume_unwind(e), |()| written)
    });
    client.flush(Level::Delivered, SOON).unwrap();
    let stats = client.stats();
    assert_eq!((stats.delivered as i64, stats.rejected, stats.dropped), (written, 0, 0), "{stats:?}");
    client.close(SOON).unwrap();
    let told = told.lock().unwrap().clone();
    (told, written)
}

fn comes(what: &str, client: &Client, mut has_come: impl FnMut() -> bool) {
    let until = Instant::now() + SOON;
    while !has_come() {
        let stats = client.stats();
        assert!(!matches!(stats.health, Health::Held(_)), "{what}: held: {:?}", stats.trouble);
        assert!(Instant::now() < until, "{what}: not in time: {stats:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn certificates_that_are_renewed_under_load_hold_nothing_and_cost_nothing() {
    for version in [&version::TLS12, &version::TLS13] {
        renewed_under_load(version);
    }
}

fn renewed_under_load(version: &'static SupportedProtocolVersion) {
    let folder = tempfile::tempdir().unwrap();
    let put = |name: &str, text: &str| write_file(folder.path(), name, text);
    let put_shown =
        |shown: &Identity| (put("certificate.pem", &shown.certificate), put("key.pem", &shown.key));
    let authorities: Vec<_> = (0..5).map(|i| Authority::new(&format!("authority {i}"))).collect();
    let server_of = |of: &Authority| of.signs("127.0.0.1", 2000..2500);
    let client_of = |of: &Authority| of.signs("graylogic", 2000..2500);
    let first = &authorities[0];
    let server = Secure::new(Shake::hands(&server_of(first), &[first], version));
    let (certificate, key) = put_shown(&client_of(first));
    let config = Config::remote(&format!("https://{}", server.at))
        .unwrap()
        .with_ca_file(put("ca.pem", &first.certificate))
        .with_client_certificate(certificate, key)
        .with_spool(Some(folder.path().join("spool")))
        .with_quick_batches(20, Duration::from_millis(5))
        .with_hurry(100);
    let (told, written) = under_load(&config, |client| {
        let some_more = || {
            let enough = server.stored.lock().unwrap().len() + 100;
            comes("more lines", client, || server.stored.lock().unwrap().len() >= enough);
        };
        some_more();
        for (round, pair) in authorities.windows(2).enumerate() {
            let (old, new) = (&pair[0], &pair[1]);
            let both = format!("{}{}", old.certificate, new.certificate);
            let shown = client_of(new);
            // Somebody is in the middle of writing, for several looks, and the connections end meanwhile.
            put("ca.pem", &both[..both.len() - 100]);
            for _ in 0..5 {
                server.close_all();
                some_more();
            }
            put("ca.pem", &both);
            server.mend(&Shake::hands(&server_of(old), &[old, new], version));
            if round % 2 == 0 {
                put_shown(&shown);
                // Taken because it is there: nothing failed.
                let is_shown = || {
                    server.close_all();
                    let hands = server.hands.lock().unwrap();
                    hands.last().is_some_and(|h| h.certificate == Some(secure::der(&shown.certificate)))
                };
                comes("the new certificate", client, is_shown);
                server.mend(&Shake::hands(&server_of(new), &[new], version));
            } else {
                server.close_all();
                some_more();
                // Nobody had the time to look at the files.
                put_shown(&shown);
                server.mend(&Shake::hands(&server_of(new), &[new], version));
            }
            server.close_all();
            some_more();
            put("ca.pem", &new.certificate);
            some_more();
        }
    });
    let held: Vec<_> = told.iter().filter(|t| t.contains("influxdb.")).collect();
    assert!(held.is_empty(), "{held:?}");
    let stored = server.stored.lock().unwrap();
    let stored: std::collections::HashSet<&String> = stored.iter().collect();
    assert!(stored.len() as i64 == written && (0..written).all(|i| stored.contains(&line(i))));
    let hands = server.hands.lock().unwrap();
    let shown: std::collections::HashSet<_> = hands.iter().map(|h| h.certificate.clone()).collect();
    assert_eq!(shown.len(), authorities.len(), "each certificate was shown");
}

#[test]
fn a_server_whose_certificate_is_in_the_file_is_trusted() {
    let good = 2000..2500;
    let address = Some("127.0.0.1");
    // What the server shows, what the file holds when that is another, and what is said when it is not trusted.
    let cases = [
        ("as openssl makes it, with a name", signs_itself("house", address, good.clone()), None, ""),
        ("as openssl makes it, without one", signs_itself("127.0.0.1", None, good.clone()), None, ""),
        (
            "without a name, and a common name that is another",
            signs_itself("house", None, good.clone()),
            None,
            "-addext subjectAltName",
        ),
        (
            "a common name beside another name",
            signs_itself("127.0.0.1", Some("other.example"), good.clone()),
            None,
            "use a name in influxdb.url that the server's certificate has",
        ),
        ("expired", signs_itself("house", address, 2000..2001), None, "expired"),
        ("not valid yet", signs_itself("house", address, 2400..2500), None, "is valid only in"),
        (
            "another of the same name",
            signs_itself("house", address, good.clone()),
            Some(signs_itself("house", address, good.clone())),
            "put the server's own certificate",
        ),
    ];
    for version in [&version::TLS12, &version::TLS13] {
        for (name, shown, trusted, says) in &cases {
            let server = Secure::new(Shake::hands(shown, &[], version));
            let folder = tempfile::tempdir().unwrap();
            let ca = write_file(folder.path(), "ca.pem", &trusted.as_ref().unwrap_or(shown).certificate);
            let config =
                Config::remote(&format!("https://{}", server.at)).unwrap().with_ca_file(ca).with_spool(None);
            let preflight = Client::preflight(&config).unwrap();
            match preflight.fault() {
                None => assert_eq!(*says, "", "{name}:\n{preflight}"),
                Some(fault) => {
                    assert!(!says.is_empty() && fault.says.contains(says), "{name}: {}", fault.says);
                    assert_eq!(fault.name, "TLS", "{name}");
                    assert_eq!(*server.heads.lock().unwrap(), [""; 0], "{name}");
                }
            }
        }
    }
}
