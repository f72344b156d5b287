//! Servers that are not what the configuration takes them for, or only in part: other programs at the address, other addresses
//! of the right program, proxies with conditions of their own. Nothing counts as delivered or rejected because of what they
//! say, and each is named in a sentence.
#![allow(clippy::unwrap_used, missing_docs, unreachable_pub)]

#[allow(dead_code, reason = "each test uses a part of it")]
mod hostile;
#[allow(dead_code, reason = "each test uses a part of it")]
mod scripted;

use graylogic_influxdb::{
    Client, Config, FluxQuery, Health, Level, Point, Query, ServerKind, Timestamp, Verdict,
};
use hostile::{Hostile, answer, message};
use scripted::{Answer, Scripted, ping};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(60);

fn config(url: &str) -> Config {
    Config::remote(url)
        .unwrap()
        .with_bucket("house")
        .with_token("my-token")
        .with_spool(None)
        .with_hurry(50)
        .with_quick_batches(100, Duration::from_millis(1))
}

fn write(client: &Client) {
    for i in 0..3 {
        let point = Point::new("m").tag("d", "a").field("f", f64::from(i));
        client.write_point_at(&point, Timestamp::from_nanos(1_000_000 + i64::from(i))).unwrap();
    }
}

fn wait_until(mut what: impl FnMut() -> bool) -> bool {
    let until = Instant::now() + SOON;
    while !what() {
        if Instant::now() > until {
            return false;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    true
}

/// Neither delivers to a server nor has it reject anything, and says why; the doctor finds a fault in the same words.
fn pauses(url: &str, name: &str, setting: &str, says: &str) {
    let config = config(url);
    let preflight = Client::preflight(&config).unwrap();
    let fault = preflight.fault().unwrap_or_else(|| panic!("{name}: no fault\n{preflight}"));
    assert!(fault.says.contains(says), "{name}: {}", fault.says);
    assert!(!preflight.takes_readings(), "{name}");
    let client = Client::connect(&config).unwrap();
    write(&client);
    let held = Health::Held(setting.to_owned());
    assert!(wait_until(|| client.stats().health == held), "{name}: {:?}", client.stats());
    let stats = client.stats();
    assert_eq!((stats.delivered, stats.rejected, stats.waiting), (0, 0, 3), "{name}: {stats:?}");
    let trouble = stats.trouble.unwrap_or_default();
    assert!(trouble.contains(says) && trouble.contains(&format!("influxdb.{setting}")), "{name}: {trouble}");
    assert!(!client.is_connected() && client.health_check(SOON).is_err(), "{name}");
    client.close(Duration::ZERO).unwrap();
}

#[test]
fn what_another_program_answers_is_neither_a_success_nor_a_verdict() {
    let code = r#"{"code":"invalid","message":"no"}"#;
    for (status, body, setting, says) in [
        (200, "ok", "url", "does not show that it is an InfluxDB"),
        (200, "{}", "url", "does not show that it is an InfluxDB"),
        (200, "", "url", "does not show that it is an InfluxDB"),
        (202, "", "url", "does not show that it is an InfluxDB"),
        (204, "", "kind", "without showing what it is"),
        (400, r#"{"error":"bad request"}"#, "url", "does not show that it is an InfluxDB"),
        (400, code, "url", "does not show that it is an InfluxDB"),
        (422, r#"{"detail":[{"msg":"field required"}]}"#, "url", "does not show that it is an InfluxDB"),
        (400, r#"{"error":"partial write: no dropped=3"}"#, "url", "does not show that it is an InfluxDB"),
    ] {
        let server = Scripted::new(move |_| Answer::of(status, body));
        pauses(&server.url(), &format!("{status} {body}"), setting, says);
    }
}

#[test]
fn another_program_that_takes_the_place_of_a_known_server_is_not_believed() {
    let shown = "X-Influxdb-Version: v2.8.0\r\n";
    let invalid = r#"{"code":"invalid","message":"no"}"#;
    for (status, body) in [(204, ""), (400, invalid), (422, invalid), (413, invalid)] {
        let other = Arc::new(AtomicBool::new(false));
        let is_other = other.clone();
        let server = Scripted::new(move |_| {
            if is_other.load(Relaxed) { Answer::of(status, body) } else { Answer::of(204, "").with(shown) }
        });
        let client = Client::connect(&config(&server.url())).unwrap();
        write(&client);
        client.flush(Level::Delivered, SOON).unwrap();
        other.store(true, Relaxed);
        write(&client);
        assert!(
            wait_until(|| matches!(client.stats().health, Health::Held(_))),
            "{status}: {:?}",
            client.stats()
        );
        let stats = client.stats();
        assert_eq!((stats.delivered, stats.rejected, stats.waiting), (3, 0, 3), "{status}: {stats:?}");
        // The server is back.
        other.store(false, Relaxed);
        client.flush(Level::Delivered, SOON).unwrap();
        assert_eq!(client.stats().delivered, 6, "{status}");
        client.close(SOON).unwrap();
    }
}

#[test]
fn a_server_that_is_known_is_believed_in_its_own_words_only() {
    for (kind, status, body, says) in [
        (ServerKind::InfluxDb2, 200, "", "InfluxDB 2 answers 204"),
        (ServerKind::InfluxDb1, 200, "{}", "InfluxDB 1 answers 204"),
        (ServerKind::InfluxDb3, 202, "", "InfluxDB 3 answers 204"),
        (ServerKind::VictoriaMetrics, 200, "ok", "VictoriaMetrics answers 204"),
        (ServerKind::InfluxDb2, 400, r#"{"error":"bad"}"#, "the words in which InfluxDB 2 rejects lines"),
        (
            ServerKind::VictoriaMetrics,
            422,
            r#"{"error":"bad"}"#,
            "the words in which VictoriaMetrics rejects lines",
        ),
        // In its own words, but to any write at all: no line of ours is at fault.
        (ServerKind::InfluxDb2, 400, r#"{"code":"invalid","message":"no"}"#, "influxdb.url"),
        (ServerKind::InfluxDb1, 400, r#"{"error":"no"}"#, "influxdb.url"),
        // As vmselect and vmauth say it.
        (ServerKind::VictoriaMetrics, 400, "unsupported URL format", "influxdb.url"),
        (ServerKind::VictoriaMetrics, 400, "auth error: cannot parse authToken", "influxdb.url"),
    ] {
        let server = Scripted::new(move |seen| match seen.path.ends_with("/ping") {
            true => ping(kind),
            false => Answer::of(status, body),
        });
        pauses(&server.url(), &format!("{kind}: {status} {body}"), "url", says);
    }
}

#[test]
fn a_wrong_address_that_becomes_right_has_cost_nothing() {
    let is_right = Arc::new(AtomicBool::new(false));
    let judge = is_right.clone();
    let server = Hostile::judging(move |_| {
        let wrong = answer("400 Bad Request", "X-Server-Hostname: vm\r\n", "unsupported URL format");
        (!judge.load(Relaxed)).then(|| (wrong, Vec::new()))
    });
    *server.ping.lock().unwrap() = Some(answer("204 No Content", "X-Server-Hostname: vm\r\n", ""));
    let client = Client::connect(&config(&server.url())).unwrap();
    write(&client);
    assert!(wait_until(|| client.stats().health == Health::Held("url".to_owned())));
    is_right.store(true, Relaxed);
    client.flush(Level::Delivered, SOON).unwrap();
    let report = client.close(SOON).unwrap();
    assert_eq!((report.delivered, report.rejected), (3, 0));
    assert_eq!(server.stored().len(), 3);
}

#[test]
fn a_line_that_nobody_names_is_found_on_a_server_that_takes_the_others() {
    // The first write of all holds the bad line, so that nothing was delivered there before.
    let server = Hostile::new(|lines| {
        let is_bad = lines.iter().any(|line| line.contains("f=1.0"));
        is_bad.then(|| message("400 Bad Request", "something is wrong"))
    });
    let client =
        Client::connect(&config(&server.url()).with_quick_batches(100, Duration::from_millis(200))).unwrap();
    write(&client);
    client.flush(Level::Delivered, SOON).unwrap();
    let report = client.close(SOON).unwrap();
    assert_eq!((report.delivered, report.rejected), (2, 1));
    assert_eq!(server.stored(), ["m,d=a f=0.0 1000000", "m,d=a f=2.0 1000002"]);
}

/// A server with these headers that answers queries with these bytes, whatever they are, and closes the connection.
fn answering(shows: &'static str, body: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { continue };
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let mut head = String::new();
            while reader.read_line(&mut head).is_ok_and(|length| length > 2) {}
            let length = head
                .to_lowercase()
                .split_once("content-length: ")
                .map_or(0, |(_, rest)| rest.split("\r\n").next().unwrap().parse().unwrap());
            let _body = reader.read_exact(&mut vec![0; length]);
            let said = match head.starts_with("GET /ping") {
                true => format!("HTTP/1.0 204 x\r\n{shows}\r\n"),
                false => format!("HTTP/1.0 200 x\r\n{shows}\r\n{body}"),
            };
            let _gone = stream.write_all(said.as_bytes());
        }
    });
    url
}

const TABLE: &str = "#datatype,string,long,dateTime:RFC3339,double,string,string,string\r\n\
    #group,false,false,false,false,true,true,true\r\n#default,_result,,,,,,\r\n\
    ,result,table,_time,_value,_field,_measurement,d\r\n,,0,2026-03-02T00:00:00Z,1,f,m,a\r\n\
    ,,0,2026-03-02T00:00:01Z,2,f,m,a\r\n,,0,2026-03-02T00:00:02Z,3,f,m,a\r\n\r\n";

#[test]
fn an_answer_that_was_cut_at_a_line_end_is_an_error() {
    let typed = Query::measurement("m").field("f").range(Timestamp::from_nanos(0), Timestamp::MAX);
    let flux = FluxQuery::new("from(bucket: \"house\") |> range(start: 0)");
    let ends: Vec<usize> = TABLE.match_indices("\r\n").map(|(at, _)| at + 2).collect();
    for end in &ends {
        let is_whole = *end == TABLE.len();
        let client =
            Client::connect(&config(&answering("X-Influxdb-Version: v2.8.0\r\n", &TABLE[..*end]))).unwrap();
        let check = |way: &str, error: Option<String>| match error {
            None => assert!(is_whole, "{way}: {end} bytes of {} are an answer", TABLE.len()),
            Some(error) => assert!(!is_whole && error.contains("did not come whole"), "{way}: {error}"),
        };
        check("typed", client.ask(&typed).err().map(|e| e.to_string()));
        let rows: Result<Vec<_>, _> = client.query(flux.clone()).unwrap().collect();
        check("rows", rows.err().map(|e| e.to_string()));
        check("tables", client.query(flux.clone()).unwrap().tables().err().map(|e| e.to_string()));
        let raw: Result<Vec<_>, _> = client.query_raw(flux.clone()).unwrap().collect();
        check("raw", raw.err().map(|e| e.to_string()));
        client.close(Duration::ZERO).unwrap();
    }
    // Lines of JSON have no end at all: without a length nobody knows that they are all.
    let line = "{\"metric\":{\"__name__\":\"m_f\",\"db\":\"house\"},\"values\":[1],\"timestamps\":[1700000000000]}\n";
    let ask = |url: &str| Client::connect(&config(url)).unwrap().ask(&typed);
    let error = ask(&answering("X-Server-Hostname: vm\r\n", line)).unwrap_err().to_string();
    assert!(error.contains("without the length of its answer"), "{error}");
    let whole = Scripted::new(move |seen| match seen.path.as_str() {
        "/ping" => ping(ServerKind::VictoriaMetrics),
        _ => Answer::of(200, line),
    });
    assert_eq!(ask(&whole.url()).unwrap().len(), 1);
}

#[test]
fn a_redirect_is_followed_by_queries_as_by_writes_or_named() {
    let typed = Query::measurement("m").field("f").range(Timestamp::from_nanos(0), Timestamp::MAX);
    let server = |status: u16, to: &'static str| {
        Scripted::new(move |seen| match seen.path.as_str() {
            "/ping" => ping(ServerKind::InfluxDb2),
            "/influx/api/v2/query" => Answer::of(200, TABLE),
            "/influx/api/v2/write" => Answer::of(204, ""),
            path => {
                Answer::of(status, "").with(&format!("Location: {to}{path}?org=graylogic&bucket=house\r\n"))
            }
        })
    };
    for status in [307, 308] {
        let server = server(status, "/influx");
        let preflight = Client::preflight(&config(&server.url())).unwrap();
        assert_eq!(preflight.fault(), None, "{preflight}");
        let client = Client::connect(&config(&server.url())).unwrap();
        write(&client);
        client.flush(Level::Delivered, SOON).unwrap();
        assert_eq!(client.ask(&typed).unwrap()[0].values.len(), 3, "{status}");
        assert_eq!(client.query("x").unwrap().count(), 3, "{status}");
        client.close(SOON).unwrap();
    }
    // The method would change, or the token would go elsewhere.
    for (status, to) in [
        (301, "https://tsdb.example/influx"),
        (302, "https://tsdb.example/influx"),
        (303, "https://tsdb.example/influx"),
        (308, "https://tsdb.example/influx"),
    ] {
        let server = server(status, to);
        let says = "set influxdb.url to \"https://tsdb.example/influx\"";
        pauses(&server.url(), &status.to_string(), "url", says);
        let client = Client::connect(&config(&server.url())).unwrap();
        for error in [client.ask(&typed).unwrap_err(), client.query("x").unwrap_err()] {
            let error = error.to_string();
            assert!(error.contains(says) && !error.contains("bucket=house"), "{error}");
        }
        client.close(Duration::ZERO).unwrap();
    }
}

#[test]
fn a_bucket_that_the_client_will_create_is_no_fault() {
    for kind in [ServerKind::InfluxDb1, ServerKind::InfluxDb2] {
        let server = Scripted::new(move |seen| match seen.path.as_str() {
            "/ping" => ping(kind),
            _ if kind == ServerKind::InfluxDb1 => {
                Answer::of(404, r#"{"error":"database not found: \"house\""}"#)
            }
            _ => Answer::of(404, r#"{"code":"not found","message":"bucket \"house\" not found"}"#),
        });
        let preflight = Client::preflight(&config(&server.url())).unwrap();
        let fault = preflight.fault().unwrap();
        assert_eq!((fault.name, fault.setting), ("bucket", Some("bucket")), "{kind}");
        let preflight = Client::preflight(&config(&server.url()).with_create_buckets(true)).unwrap();
        assert!(preflight.fault().is_none() && preflight.takes_readings(), "{preflight}");
        let bucket = preflight.checks().iter().find(|check| check.name == "bucket").unwrap();
        assert_eq!(bucket.verdict, Verdict::Warning);
        assert!(bucket.says.contains("creates it for the first readings"), "{preflight}");
        // Nothing was created by looking.
        assert!(server.seen().iter().all(|seen| !seen.path.contains("buckets")), "{kind}");
    }
}

#[test]
fn a_query_names_the_right_that_the_token_lacks() {
    let typed = Query::measurement("m").field("f").range(Timestamp::from_nanos(0), Timestamp::MAX);
    for (status, body, says) in [
        (
            401,
            r#"{"code":"unauthorized","message":"unauthorized access"}"#,
            "that has the right to read bucket \"house\"",
        ),
        (403, r#"{"code":"forbidden","message":"no"}"#, "the token lacks the right to read bucket \"house\""),
        (
            404,
            r#"{"code":"not found","message":"failed to initialize execute state: could not find bucket \"house\""}"#,
            "it does not exist, or the token lacks the right to read bucket \"house\"",
        ),
    ] {
        let server = Scripted::new(move |seen| match seen.path.as_str() {
            "/ping" => ping(ServerKind::InfluxDb2),
            "/api/v2/query" => Answer::of(status, body),
            _ => Answer::of(204, ""),
        });
        let client = Client::connect(&config(&server.url())).unwrap();
        let error = client.ask(&typed).unwrap_err().to_string();
        assert!(error.contains(says) && error.contains("influxdb.token"), "{error}");
        let error = client.query("x").unwrap_err().to_string();
        assert!(error.contains("right to read the buckets it names"), "{error}");
        // Readings are taken all the same, so this is a warning.
        let preflight = Client::preflight(&config(&server.url())).unwrap();
        let query = preflight.checks().iter().find(|check| check.name == "query").unwrap();
        assert_eq!((query.verdict, preflight.fault()), (Verdict::Warning, None), "{preflight}");
        assert!(query.says.contains(says), "{preflight}");
        client.close(Duration::ZERO).unwrap();
    }
    // InfluxQL says so in a success, and of a bucket that may not be read that it is not there.
    let server = Scripted::new(|seen| match seen.path.as_str() {
        "/ping" => ping(ServerKind::InfluxDb1),
        _ => Answer::of(200, r#"{"results":[{"statement_id":0,"error":"database not found: house"}]}"#),
    });
    let error = Client::connect(&config(&server.url())).unwrap().ask(&typed).unwrap_err().to_string();
    assert!(error.contains("or the token lacks the right to read it"), "{error}");
}

#[test]
fn an_address_for_queries_and_the_folder_of_the_spool_are_looked_at() {
    let server = Scripted::new(|seen| match seen.path.as_str() {
        "/ping" => ping(ServerKind::InfluxDb2),
        "/api/v2/query" => Answer::of(200, TABLE),
        path if path.contains("elsewhere") => Answer::of(404, "404 page not found"),
        _ => Answer::of(204, ""),
    });
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "x").unwrap();
    let good = config(&server.url()).with_spool(Some(folder.path().join("spool")));
    let checked = |config: &Config| {
        let preflight = Client::preflight(config).unwrap();
        let fault = preflight.fault().map(|check| (check.name, check.setting, check.says.clone()));
        assert!(preflight.takes_readings(), "{preflight}");
        (preflight, fault)
    };
    let (preflight, fault) = checked(&good);
    assert_eq!(fault, None, "{preflight}");
    for name in ["query", "spool"] {
        assert!(
            preflight.checks().iter().any(|c| c.name == name && c.verdict == Verdict::Good),
            "{preflight}"
        );
    }
    assert!(!folder.path().join("spool").exists(), "looking makes nothing");
    let elsewhere = good.clone().with_query_url(&format!("{}/elsewhere", server.url())).unwrap();
    let (_, fault) = checked(&elsewhere);
    let (name, setting, says) = fault.unwrap();
    assert_eq!((name, setting), ("query", Some("query_url")));
    assert!(says.contains("404") && says.ends_with("check influxdb.query_url"), "{says}");
    let (_, fault) = checked(&good.clone().with_spool(Some(file.join("spool"))));
    let (name, setting, says) = fault.unwrap();
    assert_eq!((name, setting), ("spool", Some("spool")));
    assert!(says.contains("is not a folder") && says.contains("stay in memory"), "{says}");
    let store = Client::preflight(&Config::embedded(file.join("store"))).unwrap();
    assert_eq!(store.fault().map(|check| check.setting), Some(Some("url")), "{store}");
}

/// A server behind a proxy that wants Basic authentication, and shows the server a token of its own.
fn behind_basic(kind: ServerKind) -> Scripted {
    Scripted::new(move |seen| {
        // me:secret
        if seen.authorization.as_deref() != Some("Basic bWU6c2VjcmV0") {
            return Answer::of(401, "<html><h1>401 Authorization Required</h1>")
                .with("WWW-Authenticate: Basic realm=\"x\"\r\n");
        }
        match seen.path.as_str() {
            "/ping" => ping(kind),
            "/api/v2/query" => Answer::of(200, TABLE),
            "/api/v1/export" => Answer::of(200, ""),
            "/query" => Answer::of(200, r#"{"results":[{"statement_id":0}]}"#),
            _ => Answer::of(204, ""),
        }
    })
}

#[test]
fn basic_authentication_has_settings_of_its_own_whatever_the_server_is() {
    for kind in [ServerKind::InfluxDb1, ServerKind::InfluxDb2, ServerKind::VictoriaMetrics] {
        let server = behind_basic(kind);
        // Without them nobody can know what is behind; the token is not blamed.
        pauses(&server.url(), &kind.to_string(), "basic_user", "HTTP Basic authentication");
        let preflight = Client::preflight(&config(&server.url())).unwrap();
        let fault = preflight.fault().unwrap();
        assert_eq!((fault.name, fault.setting), ("token", Some("basic_user")), "{preflight}");

        let basic = config(&server.url()).with_basic_auth("me", "secret").unwrap();
        let preflight = Client::preflight(&basic).unwrap();
        assert_eq!((preflight.fault(), preflight.server_kind()), (None, Some(kind)), "{preflight}");
        let query = preflight.checks().iter().find(|check| check.name == "query").unwrap();
        assert_eq!(query.verdict, Verdict::Good, "{preflight}");
        let client = Client::connect(&basic).unwrap();
        write(&client);
        client.flush(Level::Delivered, SOON).unwrap();
        client.health_check(SOON).unwrap();
        assert!(!format!("{basic:?}{client:?}").contains("secret"));
        client.close(SOON).unwrap();
    }
}

#[test]
fn user_and_password_come_from_file_and_environment_and_are_not_shown() {
    let yaml = "influxdb:\n  url: http://a\n  basic_user: me\n  basic_password: hunter2\n";
    let config = Config::from_yaml_with_env(yaml, |_| None).unwrap();
    let same = Config::remote("http://a").unwrap().with_basic_auth("me", "hunter2").unwrap();
    assert_eq!(config, same);
    assert!(!format!("{config:?}").contains("hunter2"));
    let environment =
        |name: &str| (name == "GRAYLOGIC_INFLUXDB_BASIC_PASSWORD").then(|| "hunter3".to_owned());
    let other = Config::from_yaml_with_env(yaml, environment).unwrap();
    assert_eq!(other, same.clone().with_basic_auth("me", "hunter3").unwrap());
    for (keys, says) in [
        ("basic_password: hunter2", "influxdb.basic_password is the password of no user"),
        ("basic_user: \"a:b\"", "no user with a colon"),
        ("basic_user: [a]", "influxdb.basic_user is a list; give a text"),
        ("basic_user: me\n  basic_password: 2", "influxdb.basic_password is not a text"),
    ] {
        let error = Config::from_yaml_with_env(&format!("influxdb:\n  {keys}\n"), |_| None).unwrap_err();
        let error = error.to_string();
        assert!(error.contains(says) && !error.contains("hunter2"), "{error}");
    }
    let error = same.with_basic_auth("", "hunter2").unwrap_err().to_string();
    assert!(error.contains("influxdb.basic_user is empty") && !error.contains("hunter2"), "{error}");
}
