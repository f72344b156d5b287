//! A configuration is right, or refused with the place, the key and the remedy.
#![allow(clippy::unwrap_used, missing_docs)]

use graylogic_influxdb::{Client, Config, ServerKind, SyncPolicy, Target, TlsVersion};
use std::time::Duration;

fn read(yaml: &str) -> Result<Config, String> {
    Config::from_yaml_with_env(yaml, |_| None).map_err(|e| {
        assert!(e.is_invalid_config() && !e.is_retryable());
        e.to_string()
    })
}

#[test]
fn the_shipped_file_is_the_default() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../configs/config.yaml");
    let text = std::fs::read_to_string(path).unwrap();
    assert_eq!(read(&text).unwrap(), Config::default());
    assert_eq!(read("").unwrap(), Config::default());
    assert_eq!(read("influxdb:\n").unwrap(), Config::default());
    assert_eq!(read("mqtt:\n  host: x\n").unwrap(), Config::default());
    assert_eq!(Config::from_file(path).unwrap(), Config::default());
}

#[test]
fn every_key_is_read() {
    let config = read(
        "site: \"Über 1\"\ninfluxdb:\n  enabled: false\n  url: http://127.0.0.1:8086\n  token: secret\n  org: o\n  bucket: b c\n  batch_size: 100000\n  flush_interval: 3600\n",
    )
    .unwrap();
    assert!(!config.is_enabled() && config.has_token());
    assert_eq!(config.target(), &Target::Remote("http://127.0.0.1:8086".into()));
    assert_eq!((config.org(), config.bucket(), config.batch_size()), ("o", "b c", 100_000));
    assert_eq!(config.flush_interval(), Duration::from_secs(3600));
    assert!(!format!("{config:?}").contains("secret"), "a token is never shown");
}

#[test]
fn buckets_are_made_only_where_somebody_said_so() {
    let allowed = Config::default().with_create_buckets(true);
    assert_eq!(read("influxdb:\n  create_buckets: true\n").unwrap(), allowed);
    let environment = |name: &str| (name == "GRAYLOGIC_INFLUXDB_CREATE_BUCKETS").then(|| "true".to_owned());
    assert_eq!(Config::from_yaml_with_env("", environment).unwrap(), allowed);
    assert_eq!(
        read("influxdb:\n  create_buckets: maybe\n").unwrap_err(),
        "configuration, line 2: influxdb.create_buckets is \"maybe\"; give true or false"
    );
}

#[test]
fn the_address_of_questions_is_read() {
    let select = "http://vmselect:8481/select/0/prometheus";
    let config =
        read(&format!("influxdb:\n  url: http://vminsert:8480/insert/0/influx\n  query_url: {select}\n"));
    assert_eq!(config.unwrap().query_url(), Some(select));
    assert_eq!(read("influxdb:\n  query_url: \"\"\n").unwrap().query_url(), None);
    assert_eq!(
        read("influxdb:\n  query_url: embedded:x\n").unwrap_err(),
        "configuration, line 2: influxdb.query_url is \"embedded:x\"; write http://HOST:PORT or https://HOST:PORT"
    );
    assert!(Config::default().with_query_url("embedded").unwrap_err().is_invalid_config());
    assert!(Config::default().with_query_url("vmselect").unwrap_err().is_invalid_config());
}

#[test]
fn the_kind_of_the_server_is_read() {
    let kind = |word: &str| read(&format!("influxdb:\n  kind: {word}\n")).map(|c| c.server_kind());
    assert_eq!(kind("auto"), Ok(None));
    assert_eq!(kind("influxdb1"), Ok(Some(ServerKind::InfluxDb1)));
    assert_eq!(kind("influxdb2"), Ok(Some(ServerKind::InfluxDb2)));
    assert_eq!(kind("influxdb3"), Ok(Some(ServerKind::InfluxDb3)));
    assert_eq!(kind("victoriametrics"), Ok(Some(ServerKind::VictoriaMetrics)));
    assert_eq!(
        kind("influx").unwrap_err(),
        "configuration, line 2: influxdb.kind is \"influx\"; write auto, influxdb1, influxdb2, influxdb3 or victoriametrics"
    );
}

#[test]
fn an_address_with_a_password_is_refused_without_being_shown() {
    for url in [
        "http://me:hunter2@a:1",
        "HTTP://me:hunter2@a:1",
        "influxdb://me:hunter2@a:1",
        "me:hunter2@a:1",
        "http:///me:hunter2@a:1",
        "http://\t/me:hunter2@a:1",
        "http://a:x?token=hunter2",
    ] {
        for key in ["url", "query_url"] {
            let other = if key == "query_url" { "  url: http://a:1\n" } else { "" };
            let yaml = format!("influxdb:\n{other}  {key}: {url:?}\n  spool: off\n");
            let error = read(&yaml).and_then(|c| Client::connect(&c).map_err(|e| e.to_string())).unwrap_err();
            assert!(error.contains(&format!("influxdb.{key} ")) && !error.contains("hunter2"), "{error}");
        }
        let error = Config::remote(url).and_then(|c| Client::connect(&c.with_spool(None))).unwrap_err();
        assert!(error.is_invalid_config() && !error.to_string().contains("hunter2"), "{error}");
    }
}

#[test]
fn a_further_target_spools_beside_the_main_one_however_its_folder_is_written() {
    for (folder, expected) in [
        ("/var/spool/gl", "/var/spool/gl.copy"),
        ("/var/spool/gl/", "/var/spool/gl.copy"),
        ("/var/spool/gl/.", "/var/spool/gl.copy"),
        ("gl//", "gl.copy"),
    ] {
        let yaml = format!(
            "influxdb:\n  url: http://a:1\n  spool: {folder}\n  targets:\n    copy:\n      url: http://b:1\n"
        );
        let config = read(&yaml).unwrap();
        assert_eq!(config.further_targets()[0].1.spool_folder(), Some(std::path::Path::new(expected)));
    }
}

#[test]
fn mistakes_are_named_with_their_remedy() {
    let cases = [
        (
            "influxdb:\n  batchsize: 3\n",
            "configuration, line 2: influxdb.batchsize is no key; did you mean batch_size?",
        ),
        (
            "influxdb:\n  batch_size: 0\n",
            "configuration, line 2: influxdb.batch_size is 0; give a whole number of lines from 1 to 100000",
        ),
        (
            "influxdb:\n  batch_size: 100001\n",
            "configuration, line 2: influxdb.batch_size is 100001; give a whole number of lines from 1 to 100000",
        ),
        (
            "influxdb:\n  batch_size: 1.5\n",
            "configuration, line 2: influxdb.batch_size is 1.5; give a whole number of lines from 1 to 100000",
        ),
        (
            "influxdb:\n  flush_interval: -1\n",
            "configuration, line 2: influxdb.flush_interval is -1; give a whole number of seconds from 1 to 3600",
        ),
        (
            "influxdb:\n  flush_interval: 10s\n",
            "configuration, line 2: influxdb.flush_interval is \"10s\"; give a whole number of seconds from 1 to 3600",
        ),
        (
            "influxdb:\n  enabled: maybe\n",
            "configuration, line 2: influxdb.enabled is \"maybe\"; give true or false",
        ),
        (
            "influxdb:\n  url: tcp://x\n",
            "configuration, line 2: influxdb.url is \"tcp://x\"; write embedded:FOLDER, http://HOST:PORT or https://HOST:PORT",
        ),
        (
            "influxdb:\n  url: \"embedded:\"\n",
            "configuration, line 2: influxdb.url names no folder; write embedded:FOLDER",
        ),
        (
            "influxdb:\n  url: http://\n",
            "configuration, line 2: influxdb.url is \"http://\", which names no host; write http://HOST:PORT",
        ),
        (
            "influxdb:\n  bucket: \"\"\n",
            "configuration, line 2: influxdb.bucket is empty; give the bucket a name",
        ),
        ("influxdb:\n  org: [a]\n", "configuration, line 2: influxdb.org is a list; give a text"),
        ("influxdb: 7\n", "configuration: influxdb is 7, not a section with keys"),
        ("- a\n", "configuration is a list, not a file with sections"),
    ];
    for (yaml, expected) in cases {
        assert_eq!(read(yaml).unwrap_err(), expected, "{yaml}");
    }
    let error = read("influxdb:\n  url: \"x\n").unwrap_err();
    assert!(error.starts_with("configuration is not YAML: "), "{error}");
}

#[test]
fn secrets_are_not_shown_by_mistakes() {
    for yaml in [
        "influxdb:\n  token: [hunter2]\n",
        "influxdb:\n  url: http://me:hunter2@host:8086\n",
        "influxdb:\n  token: {a: hunter2}\n",
    ] {
        let error = read(yaml).unwrap_err();
        assert!(!error.contains("hunter2"), "{error}");
    }
}

#[test]
fn the_environment_wins_and_is_named() {
    let env = |name: &str| match name {
        "GRAYLOGIC_INFLUXDB_BUCKET" => Some("from env".to_owned()),
        "GRAYLOGIC_INFLUXDB_BATCH_SIZE" => Some("5".to_owned()),
        "GRAYLOGIC_INFLUXDB_ENABLED" => Some("0".to_owned()),
        "GRAYLOGIC_INFLUXDB_TOKEN" => Some("12345".to_owned()),
        _ => None,
    };
    let config = Config::from_yaml_with_env("influxdb:\n  bucket: file\n  org: kept\n", env).unwrap();
    assert_eq!((config.bucket(), config.batch_size(), config.org()), ("from env", 5, "kept"));
    assert!(!config.is_enabled() && config.has_token());
    let wrong = |name: &str| (name == "GRAYLOGIC_INFLUXDB_FLUSH_INTERVAL").then(|| "soon".to_owned());
    let error = Config::from_yaml_with_env("", wrong).unwrap_err();
    assert_eq!(
        error.to_string(),
        "environment variable GRAYLOGIC_INFLUXDB_FLUSH_INTERVAL is \"soon\"; give a whole number of seconds from 1 to 3600"
    );
}

#[test]
fn a_missing_file_is_named() {
    let error = Config::from_file("/nowhere/config.yaml").unwrap_err();
    assert!(error.is_invalid_config());
    assert!(error.to_string().contains("/nowhere/config.yaml"), "{error}");
}

#[test]
fn what_cannot_be_connected_says_so() {
    let off = Client::connect(&Config::default().with_enabled(false)).unwrap_err();
    assert!(off.is_disabled() && !off.is_connection_failed());
    // Nobody listens on this port of this machine.
    let remote = "influxdb:\n  url: http://127.0.0.1:9\n  token: hunter2\n  spool: off\n";
    let error = Client::connect(&read(&format!("{remote}  connect_strict: true\n")).unwrap()).unwrap_err();
    assert!(error.is_connection_failed() && error.is_retryable(), "{error}");
    assert!(error.to_string().contains("http://127.0.0.1:9") && !error.to_string().contains("hunter2"));
    let client = Client::connect(&read(remote).unwrap()).unwrap();
    assert!(client.health_check(Duration::from_secs(5)).unwrap_err().is_connection_failed());
    assert!(client.latest("m", &[]).unwrap_err().is_query_failed());
    client.write_device_metric("d", "m", 1.0).unwrap();
    let report = client.close(Duration::from_millis(100)).unwrap();
    assert_eq!((report.delivered, report.dropped, report.spooled), (0, 1, 0), "there was no spool");
}

#[test]
fn the_keys_of_the_spool_are_read() {
    let config = read("influxdb:\n  spool: /var/spool/x\n  spool_sync: 100ms\n  spool_megabytes_max: 5\n  spool_hours_max: 2\n  spool_when_full: drop_newest\n").unwrap();
    assert_eq!(config.spool_folder(), Some(std::path::Path::new("/var/spool/x")));
    let shown = format!("{config:?}");
    for part in ["Every(100ms)", "Some(5000000)", "Some(7200s)", "DropNewest"] {
        assert!(shown.contains(part), "{shown}");
    }
    assert_eq!(read("influxdb:\n  spool: off\n").unwrap().spool_folder(), None);
    for (yaml, expected) in [
        (
            "spool_sync: never",
            "configuration, line 2: influxdb.spool_sync is \"never\"; write each, or a time from 1ms to 60s",
        ),
        (
            "spool_sync: 2h",
            "configuration, line 2: influxdb.spool_sync is \"2h\"; write each, or a time from 1ms to 60s",
        ),
        (
            "spool_when_full: drop",
            "configuration, line 2: influxdb.spool_when_full is \"drop\"; write drop_oldest, drop_newest or block",
        ),
        ("spool: \"\"", "configuration, line 2: influxdb.spool is empty; name a folder, or write off"),
    ] {
        assert_eq!(read(&format!("influxdb:\n  {yaml}\n")).unwrap_err(), expected);
    }
}

#[test]
fn the_keys_of_tls_are_read() {
    let yaml = "influxdb:\n  ca_file: /etc/ssl/house.pem\n  certificate_file: /etc/ssl/me.pem\n  key_file: /etc/ssl/me.key\n";
    let given = Config::default()
        .with_ca_file("/etc/ssl/house.pem")
        .with_client_certificate("/etc/ssl/me.pem", "/etc/ssl/me.key");
    assert_eq!(read(yaml).unwrap(), given);
    let env = |name: &str| match name {
        "GRAYLOGIC_INFLUXDB_CA_FILE" => Some("/etc/ssl/house.pem".to_owned()),
        "GRAYLOGIC_INFLUXDB_CERTIFICATE_FILE" => Some("/etc/ssl/me.pem".to_owned()),
        "GRAYLOGIC_INFLUXDB_KEY_FILE" => Some("/etc/ssl/me.key".to_owned()),
        _ => None,
    };
    let file = "influxdb:\n  ca_file: /other\n  key_file: /other\n";
    assert_eq!(Config::from_yaml_with_env(file, env).unwrap(), given);
    let nothing = |name: &str| (name == "GRAYLOGIC_INFLUXDB_CA_FILE").then(String::new);
    let none = Config::from_yaml_with_env("influxdb:\n  ca_file: /other\n", nothing).unwrap();
    assert_eq!(none, Config::default(), "an empty variable is no file");
    assert_eq!(
        read("influxdb:\n  ca_file: [a]\n").unwrap_err(),
        "configuration, line 2: influxdb.ca_file is a list; give a text"
    );
    assert_eq!(
        read("influxdb:\n  cafile: a\n").unwrap_err(),
        "configuration, line 2: influxdb.cafile is no key; did you mean ca_file?"
    );
}

#[test]
fn the_keys_of_connections_are_read() {
    let given = Config::default()
        .with_tls_min_version(TlsVersion::Tls13)
        .with_tls_server_name("influx.house")
        .and_then(|c| c.with_proxy("http://me:hunter2@proxy:3128"))
        .and_then(|c| c.with_header("X-Site", "hunter3"))
        .and_then(|c| c.with_header("x-tenant", "7"))
        .unwrap();
    for version in ["1.3", "\"1.3\""] {
        let yaml = format!(
            "influxdb:\n  tls_min_version: {version}\n  tls_server_name: influx.house\n  proxy: http://me:hunter2@proxy:3128\n  headers:\n    x-site: hunter3\n    X-Tenant: \"7\"\n"
        );
        assert_eq!(read(&yaml).unwrap(), given);
    }
    let env = |name: &str| match name {
        "GRAYLOGIC_INFLUXDB_TLS_MIN_VERSION" => Some("1.3".to_owned()),
        "GRAYLOGIC_INFLUXDB_TLS_SERVER_NAME" => Some("influx.house".to_owned()),
        "GRAYLOGIC_INFLUXDB_PROXY" => Some("http://me:hunter2@proxy:3128".to_owned()),
        "GRAYLOGIC_INFLUXDB_HEADERS" => Some("X-Site: hunter3\n\nX-Tenant:7\n".to_owned()),
        _ => None,
    };
    let file = "influxdb:\n  proxy: off\n  headers: {x-other: a}\n  tls_min_version: 1.2\n";
    assert_eq!(Config::from_yaml_with_env(file, env).unwrap(), given);
    let shown = format!("{given:?}");
    assert!(shown.contains("http://proxy:3128") && shown.contains("x-site"), "{shown}");
    assert!(!shown.contains("hunter"), "{shown}");
    assert_eq!(
        read("influxdb:\n  tls_min_version: 1.2\n  tls_server_name: \"\"\n  proxy: \"\"\n  headers: {}\n")
            .unwrap(),
        Config::default()
    );
    let off = Config::default().with_proxy("off").unwrap();
    assert_eq!(read("influxdb:\n  proxy: off\n").unwrap(), off);
    assert_eq!(read("influxdb:\n  proxy: \"off\"\n").unwrap(), off);
    assert_ne!(off, Config::default());
}

#[test]
fn mistakes_of_connections_are_named_and_show_no_secret() {
    let long = format!("headers: {{X-Site: \"{}\"}}", "hunter2".repeat(1000));
    let many: String = (0..33).map(|i| format!("X-{i}: hunter2, ")).collect();
    let many = format!("headers: {{{many}}}");
    for (yaml, expected) in [
        ("tls_min_version: 1.1", "influxdb.tls_min_version is \"1.1\"; write \"1.2\" or \"1.3\""),
        ("tls_min_version: [a]", "influxdb.tls_min_version is a list; give a text"),
        ("tls_server_name: 10.0.0.1", "influxdb.tls_server_name is \"10.0.0.1\", which is no name of a host"),
        ("tls_server_name: a b", "influxdb.tls_server_name is \"a b\", which is no name of a host"),
        ("proxy: \"socks5://me:hunter2@a:1\"", "influxdb.proxy is no address of a proxy that speaks HTTP"),
        ("proxy: \"http://me:hunter2@\"", "influxdb.proxy is no address of a proxy"),
        ("proxy: [hunter2]", "influxdb.proxy is not a text; write http://HOST:PORT, or off"),
        ("headers: hunter2", "influxdb.headers is no section with names and values"),
        ("headers: [hunter2]", "influxdb.headers is no section with names and values"),
        ("headers: {X-Site: 77777}", "influxdb.headers has a value for \"X-Site\" that is not a text"),
        ("headers: {X Site: hunter2}", "influxdb.headers has a header \"X Site\", which is no name of one"),
        ("headers: {\"\": hunter2}", "influxdb.headers has a header \"\", which is no name of one"),
        ("headers: {X-Site: \"a\\nhunter2\"}", "\"X-Site\", whose value holds a line feed"),
        ("headers: {authorization: hunter2}", "\"authorization\", which shows the token; set influxdb.token"),
        ("headers: {Content-Encoding: hunter2}", "\"Content-Encoding\", which requests set themselves"),
        ("headers: {Host: hunter2}", "\"Host\", which requests set themselves"),
        ("headers: {Proxy-Authorization: hunter2}", "\"Proxy-Authorization\", which requests set themselves"),
        ("headers: {X-Site: hunter2, x-site: hunter2}", "which is there already, in upper or lower case"),
        (&long, "\"X-Site\", whose value is longer than 4096 bytes"),
        (&many, "which is one more than 32; take some out"),
    ] {
        let error = read(&format!("influxdb:\n  {yaml}\n")).unwrap_err();
        assert!(error.starts_with("configuration, line 2: influxdb."), "{error}");
        assert!(error.contains(expected), "{expected:?} is not in: {error}");
        assert!(!error.contains("hunter") && !error.contains("77777"), "{error}");
    }
    for headers in ["X-Site hunter2", "X-Site: hunter2\nX-Site: hunter2"] {
        let env = |name: &str| (name == "GRAYLOGIC_INFLUXDB_HEADERS").then(|| headers.to_owned());
        let error = Config::from_yaml_with_env("", env).unwrap_err().to_string();
        assert!(error.contains("GRAYLOGIC_INFLUXDB_HEADERS") && error.contains("NAME: VALUE"), "{error}");
        assert!(!error.contains("hunter2"), "{error}");
    }
    // What fits by itself may not fit together, which shows when connecting.
    for (yaml, expected) in [
        (
            "url: http://a\n  tls_server_name: b",
            "influxdb.tls_server_name \"b\" is for servers with certificates",
        ),
        (
            "url: https://a\n  tls_server_name: b\n  proxy: http://me:hunter2@c:1",
            "influxdb.tls_server_name \"b\" cannot be used through the proxy http://c:1 (influxdb.proxy)",
        ),
    ] {
        let config = read(&format!("influxdb:\n  {yaml}\n  spool: off\n")).unwrap();
        let error = Client::connect(&config).unwrap_err();
        assert!(error.is_invalid_config(), "{error}");
        let error = error.to_string();
        assert!(error.contains(expected) && !error.contains("hunter2"), "{error}");
    }
}

#[test]
fn the_shipped_file_documents_every_variable() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../configs/config.yaml");
    let text = std::fs::read_to_string(path).unwrap();
    let asked = std::cell::RefCell::new(Vec::new());
    let note = |name: &str| {
        asked.borrow_mut().push(name.to_owned());
        None
    };
    Config::from_yaml_with_env("", note).unwrap();
    let documented = text.matches("  # Environment: ").count() - text.matches("_TARGETS_").count();
    assert_eq!(asked.borrow().len(), documented);
    for name in asked.into_inner() {
        assert!(text.contains(&format!("  # Environment: {name}\n")), "{name}");
        let key = name.trim_start_matches("GRAYLOGIC_INFLUXDB_").to_lowercase();
        let shown = text.lines().any(|l| l.trim_start_matches([' ', '#']).starts_with(&format!("{key}: ")));
        assert!(shown, "{key}");
    }
}

#[test]
fn the_example_of_targets_and_rules_in_the_shipped_file_is_right() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../configs/config.yaml");
    let text = std::fs::read_to_string(path).unwrap();
    let is_example = |l: &str| ["  # targets:", "  # routes:"].contains(&l) || l.starts_with("  #   ");
    let shown: String = text
        .lines()
        .map(|l| if is_example(l) { format!("  {}\n", &l[4..]) } else { format!("{l}\n") })
        .collect();
    let config = read(&shown).unwrap();
    let names: Vec<String> = config.further_targets().into_iter().map(|(name, _)| name).collect();
    assert_eq!((names, config.routes().len()), (vec!["copy".to_owned(), "head_office".to_owned()], 3));
    assert_eq!(
        config.further_targets()[1].1.spool_folder(),
        Some(std::path::Path::new("./graylogic-spool.head_office"))
    );
}

#[test]
fn keys_that_stand_outside_of_the_section_are_not_passed_over() {
    let check = |yaml: &str, expected: &str| assert_eq!(read(yaml).unwrap_err(), expected, "{yaml}");
    let outside = |line: usize, key: &str| {
        format!(
            "configuration, line {line}: {key} is outside of the section influxdb; write it below `influxdb:`, indented by two \
             spaces"
        )
    };
    check("influxdb:\nurl: http://127.0.0.1:8086\n", &outside(2, "url"));
    check("influxdb:\nkind: influxdb2\n", &outside(2, "kind"));
    check("url: http://127.0.0.1:8086\ntoken: t\n", &outside(1, "url"));
    // Spaces that are none for YAML.
    check("influxdb:\n\u{a0}\u{a0}bucket: house\n", &outside(2, "bucket"));
    check(
        "mqtt:\n  host: x\ninflux:\n  url: http://127.0.0.1:8086\n",
        "configuration, line 3: influx is no section of this program; did you mean influxdb?",
    );
    check(
        "InfluxDB:\n  bucket: x\n",
        "configuration, line 1: InfluxDB is no section of this program; did you mean influxdb?",
    );
    // Dedented by mistake, so that the section has some keys and not all.
    check("influxdb:\n  url: http://127.0.0.1:8086\nbucket: house\n", &outside(3, "bucket"));
    check("influxdb:\n  bucket: house\nenabled: false\nmqtt:\n  host: x\n", &outside(3, "enabled"));
    check("spool_hours_max: 3\ninfluxdb:\n  bucket: house\n", &outside(1, "spool_hours_max"));
    check("influxdb:\n  bucket: house\nmqtt:\n  host: x\nbatch_size: 7\n", &outside(5, "batch_size"));
    // What is beside a section that is there, or in other programs' files, is not ours.
    for yaml in [
        "url: x\ninfluxdb:\n  bucket: house\n",
        "influxdb:\n  bucket: house\nmqtt:\n  host: x\nurl: x\norg: y\n",
        "influxdb:\n  bucket: house\nlevel: 3\n",
        "kind: Deployment\n",
        "mqtt:\n  url: x\n",
        "influxdb:\nmqtt:\n  url: x\n",
    ] {
        assert!(read(yaml).is_ok(), "{yaml}");
    }
}

#[test]
fn what_is_no_yaml_is_told_with_the_remedy_and_no_word_to_programmers() {
    let check = |yaml: &str, expected: &str| {
        assert_eq!(read(yaml).unwrap_err(), format!("configuration is not YAML: {expected}"), "{yaml}");
    };
    check(
        "influxdb:\n\turl: x\n",
        "line 2, column 2: tabs disallowed within this context (block indentation); indent with spaces, not with tabs",
    );
    check(
        "influxdb:\n  url: x\n   bucket: y\n",
        "line 3, column 10: mapping values are not allowed in this context; indent the keys of a section alike, and put a text \
         with a colon in quotes",
    );
    check(
        "influxdb:\n  url: x\n  url: y\n",
        "line 3, column 3: duplicate mapping key: url; it is there twice: leave one out",
    );
    check(
        "influxdb:\n  bucket: a\n---\ninfluxdb:\n  bucket: b\n",
        "line 4, column 1: multiple YAML documents detected; take out what follows the line ---",
    );
    check("influxdb:\n  token: \"abc\n", "line 2, column 10: unclosed quote; close the quote");
    check(
        "influxdb:\n  token: @abc\n",
        "line 2, column 10: unexpected character: `@'; put the text in quotes",
    );
}

#[test]
fn variables_that_nobody_puts_a_value_in_for_are_told() {
    let check = |value: &str, shown: &str| {
        assert_eq!(
            read(&format!("influxdb:\n  token: '{value}'\n")).unwrap_err(),
            format!(
                "configuration, line 2: influxdb.token is {shown}, in whose place nothing is put; set GRAYLOGIC_INFLUXDB_TOKEN in \
                 the environment"
            )
        );
    };
    check("${INFLUX_TOKEN}", "${INFLUX_TOKEN}");
    check("$TOKEN", "$TOKEN");
    // The default behind it may be a secret.
    check("${TOKEN:-abc}", "${TOKEN");
    for token in ["$2a$10$abc", "abc$TOKEN", "$", "${}", "a"] {
        assert!(read(&format!("influxdb:\n  token: '{token}'\n")).is_ok(), "{token}");
    }
}

#[test]
fn a_file_that_cannot_be_read_is_told_with_the_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let latin = folder.path().join("latin.yaml");
    std::fs::write(&latin, b"influxdb:\n  bucket: k\xfcche\n").unwrap();
    for (path, remedy) in [
        (latin, "; save it as text in UTF-8"),
        (folder.path().to_owned(), "; name the file in it"),
        (folder.path().join("none.yaml"), "; check its name"),
    ] {
        let error = Config::from_file(&path).unwrap_err().to_string();
        assert!(error.contains(&path.display().to_string()) && error.ends_with(remedy), "{error}");
    }
}

/// A key with a value, in a file and in the environment, each as what it makes of a configuration.
fn both_ways(key: &str, text: &str) -> [Result<Config, String>; 2] {
    let file = Config::from_yaml_with_env(&format!("influxdb:\n  {key}: {text}\n"), |_| None);
    let variable = format!("GRAYLOGIC_INFLUXDB_{}", key.to_uppercase());
    let environment = Config::from_yaml_with_env("", |name| (name == variable).then(|| text.to_owned()));
    [file, environment].map(|config| config.map_err(|e| e.to_string()))
}

#[test]
fn a_file_and_the_environment_read_the_same_spellings() {
    let on = ["true", "True", "TRUE", "yes", "Yes", "on", "ON", "1", " true "];
    let off = ["false", "False", "FALSE", "no", "No", "off", "OFF", "0"];
    for (texts, expected) in [(&on[..], true), (&off[..], false)] {
        for text in texts {
            for config in both_ways("enabled", text) {
                assert_eq!(config.unwrap().is_enabled(), expected, "{text:?}");
            }
            for key in ["connect_strict", "create_buckets"] {
                let [file, environment] = both_ways(key, text).map(Result::unwrap);
                assert_eq!(file, environment, "{key} {text:?}");
                assert_eq!(file != Config::default(), expected, "{key} {text:?}");
            }
        }
    }
    for text in ["100", "+100", "0x64", "1e2", "100.0", "1_00", " 100 "] {
        let [file, environment] = both_ways("batch_size", text).map(Result::unwrap);
        assert_eq!((file.batch_size(), environment.batch_size()), (100, 100), "{text:?}");
    }
    // A variable has no quotes, and may mean what a file has in quotes.
    for text in ["\"100\"", "'100'"] {
        let config = Config::from_yaml_with_env(&format!("influxdb:\n  batch_size: {text}\n"), |_| None);
        assert_eq!(config.unwrap().batch_size(), 100, "{text}");
    }
    for text in ["false", "no", "off", "OFF", "0"] {
        for key in ["spool", "proxy"] {
            let [file, environment] = both_ways(key, text).map(Result::unwrap);
            assert_eq!(file, environment, "{key} {text:?}");
        }
        assert!(both_ways("spool", text).map(Result::unwrap).iter().all(|c| c.spool_folder().is_none()));
    }
    for (key, text) in [
        ("enabled", "maybe"),
        ("enabled", "2"),
        ("batch_size", "many"),
        ("batch_size", "1.5"),
        ("batch_size", "-1"),
        ("batch_size", "0x"),
        ("flush_interval", "10s"),
        ("spool", "true"),
        ("proxy", "on"),
    ] {
        assert!(both_ways(key, text).iter().all(Result::is_err), "{key} {text:?}");
    }
    for text in ["1.2", "1.3", "1.30"] {
        let [file, environment] = both_ways("tls_min_version", text).map(Result::unwrap);
        assert_eq!(file, environment, "{text}");
    }
}

#[test]
fn a_file_the_environment_and_a_program_have_the_same_bounds() {
    let check = |key: &str, least: u64, most: u64| {
        for good in [least, most] {
            assert!(both_ways(key, &good.to_string()).iter().all(Result::is_ok), "{key} {good}");
        }
        for bad in [least - 1, most + 1] {
            for error in both_ways(key, &bad.to_string()).map(Result::unwrap_err) {
                assert!(error.contains(&format!("from {least} to {most}")), "{error}");
            }
        }
    };
    check("batch_size", 1, 100_000);
    check("flush_interval", 1, 3600);
    check("spool_megabytes_max", 1, 1 << 20);
    check("spool_hours_max", 1, 87_600);
    let of = |key: &str, value: u64| both_ways(key, &value.to_string())[0].clone().unwrap();
    let default = Config::default;
    let second = Duration::from_secs(1);
    for (program, file) in [
        (default().with_batches(0, 10 * second), of("batch_size", 1)),
        (default().with_batches(usize::MAX, 10 * second), of("batch_size", 100_000)),
        (default().with_batches(100, Duration::ZERO), of("flush_interval", 1)),
        (default().with_batches(100, Duration::from_millis(999)), of("flush_interval", 1)),
        (default().with_batches(100, Duration::MAX), of("flush_interval", 3600)),
        (default().with_spool_bytes_max(0), of("spool_megabytes_max", 1)),
        (default().with_spool_bytes_max(u64::MAX), of("spool_megabytes_max", 1 << 20)),
    ] {
        assert_eq!(program, file);
    }
    let sync = |text: &str| both_ways("spool_sync", text)[0].clone().unwrap();
    let every = |time| default().with_spool_sync(SyncPolicy::Every(time));
    assert_eq!(every(Duration::ZERO), sync("1ms"));
    assert_eq!(every(Duration::MAX), sync("60s"));
    assert!(both_ways("spool_sync", "0ms").iter().chain(&both_ways("spool_sync", "61s")).all(Result::is_err));
}

#[cfg(unix)]
#[test]
fn a_file_that_is_no_configuration_is_not_read_for_ever() {
    for endless in ["/dev/zero", "/dev/urandom"] {
        let error = Config::from_file(endless).unwrap_err();
        let says = error.to_string();
        assert!(error.is_invalid_config() && says.contains("it has more than 1 MiB"), "{says}");
        assert!(says.ends_with("name the YAML file of this program"), "{says}");
    }
    assert_eq!(Config::from_file("/dev/null").unwrap(), Config::default());
    let folder = tempfile::tempdir().unwrap();
    assert!(Config::from_file(folder.path()).unwrap_err().to_string().contains("name the file in it"));
}
