//! A token goes only where its own configuration points: never a token of the environment, or of a file, to a server that they do
//! not name.
#![allow(clippy::unwrap_used, missing_docs, unreachable_pub)]

#[allow(dead_code, reason = "each test uses a part of it")]
mod hostile;

use graylogic_influxdb::{Client, Config, Target};
use hostile::{Hostile, message};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

const CHILD: &str = "GRAYLOGIC_TEST_CHILD";
const SOON: Duration = Duration::from_secs(60);

/// A server that takes no token.
fn server() -> Hostile {
    Hostile::judging(|_| Some((message("401 Unauthorized", "unauthorized access"), Vec::new())))
}

fn tokens(server: &Hostile) -> Vec<String> {
    server.seen.lock().unwrap().tokens.iter().cloned().collect()
}

/// The tokens that a client of this configuration sends over several tries, after `then` when it was rejected once.
fn sends(server: &Hostile, config: Config, then: impl FnOnce()) -> Vec<String> {
    let client = Client::connect(&config.with_spool(None).with_hurry(100)).unwrap();
    client.write_device_metric("d", "m", 1.0).unwrap();
    let tried = |times: usize| {
        let until = Instant::now() + SOON;
        let so_far = || server.seen.lock().unwrap().requests;
        let enough = so_far() + times;
        while so_far() < enough && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(2));
        }
        assert!(so_far() >= enough, "it was not tried again");
    };
    tried(1);
    then();
    tried(3);
    client.close(Duration::ZERO).unwrap();
    tokens(server)
}

fn file(path: &Path, url: &str, token: &str) -> Config {
    std::fs::write(path, format!("influxdb:\n  url: {url}\n  token: \"{token}\"\n")).unwrap();
    Config::from_file(path).unwrap()
}

#[test]
fn a_token_is_not_sent_to_a_server_that_its_configuration_does_not_name() {
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["child", "--exact", "--nocapture", "--test-threads=1"])
        .env(CHILD, "1")
        .env("GRAYLOGIC_INFLUXDB_TOKEN", "of-the-environment")
        .output()
        .unwrap();
    assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stderr));

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.yaml");
    // A file that names another server by now, and its token.
    let old = server();
    let config = file(&path, &old.url(), "old");
    let other = server();
    let moved = || drop(file(&path, &other.url(), "of-the-other"));
    assert_eq!(sends(&old, config, moved), ["Token old"]);
    // A program that took the address, or the token, from elsewhere.
    let mine = server();
    let config = file(&path, &other.url(), "of-the-file").with_target(Target::Remote(mine.url()));
    assert_eq!(
        sends(&mine, config.with_token("mine"), || drop(file(&path, &other.url(), "newer"))),
        ["Token mine"]
    );
    let config = file(&path, &mine.url(), "of-the-file").with_token("mine");
    assert_eq!(sends(&mine, config, || drop(file(&path, &mine.url(), "newer"))), ["Token mine"]);
    // The same server: a new token is taken.
    let same = server();
    let config = file(&path, &same.url(), "first");
    let sent = sends(&same, config, || drop(file(&path, &same.url(), "second")));
    assert_eq!(sent, ["Token first", "Token second"]);
}

#[test]
fn child() {
    if std::env::var(CHILD).is_err() {
        return;
    }
    let yaml = |server: &Hostile| format!("influxdb:\n  url: {}\n  token: given\n", server.url());
    let built: [&dyn Fn(&Hostile) -> Config; 4] = [
        &|server| Config::remote(&server.url()).unwrap().with_token("given"),
        &|server| Config::default().with_target(Target::Remote(server.url())).with_token("given"),
        // An environment of the program's own.
        &|server| Config::from_yaml_with_env(&yaml(server), |_| None).unwrap(),
        // The token of the environment is replaced, for good.
        &|server| Config::from_yaml(&yaml(server)).unwrap().with_token("given"),
    ];
    for build in built {
        let server = server();
        assert_eq!(sends(&server, build(&server), || {}), ["Token given"]);
    }
    // Without a token none is sent.
    let none = server();
    assert!(
        sends(&none, Config::remote(&none.url()).unwrap(), || {}).iter().all(|t| !t.contains("environment"))
    );
}
