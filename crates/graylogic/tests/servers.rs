//! The commands that work on servers, as they are run: what they print and how they end, with the recorded answers of a real
//! InfluxDB 2.8; that no secret is printed, or given where others can read it; and what other servers have not.
#![allow(clippy::unwrap_used, missing_docs, unreachable_pub)]

#[allow(dead_code, reason = "another package uses the rest of it")]
#[path = "../../influxdb/tests/replay/mod.rs"]
mod replay;
#[allow(dead_code, reason = "another package uses the rest of it")]
#[path = "../../influxdb/tests/scripted/mod.rs"]
mod scripted;

use graylogic_influxdb::ServerKind;
use replay::{ORG, answered, asked, id, recorded};
use scripted::{Answer, Scripted, Seen, ping};
use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Longer than anything takes that is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

/// The program with this server as its target, in a folder of its own.
fn graylogic(url: &str, org: &str, folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_graylogic"));
    for (key, _) in std::env::vars().filter(|(key, _)| key.starts_with("GRAYLOGIC_")) {
        // What the machine's environment says must not matter.
        command.env_remove(key);
    }
    for (key, value) in [("URL", url), ("ORG", org), ("TOKEN", "my-token")] {
        if !url.is_empty() {
            command.env(format!("GRAYLOGIC_INFLUXDB_{key}"), value);
        }
    }
    command.env("TZ", "UTC").current_dir(folder);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn give(child: &mut Child, input: &str) {
    // A command that does not read its input ends before it was all written.
    let _closed_early = child.stdin.take().unwrap().write_all(input.as_bytes());
}

fn run(url: &str, org: &str, arguments: &[&str], input: &str) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let mut child = graylogic(url, org, folder.path()).args(arguments).spawn().unwrap();
    give(&mut child, input);
    let output = child.wait_with_output().unwrap();
    let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().collect();
    assert!(left.is_empty(), "{arguments:?} leaves neither a store nor a spool: {left:?}");
    output
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// Exit code, standard output, standard error; neither shows a token.
fn said(server: &Scripted, org: &str, arguments: &[&str], input: &str) -> (i32, String, String) {
    let output = run(&server.url(), org, arguments, input);
    let (out, err) = (text(&output.stdout).to_owned(), text(&output.stderr).to_owned());
    for secret in ["my-token", "a-very-secret"] {
        assert!(!out.contains(secret) && !err.contains(secret), "{arguments:?}: {out}{err}");
    }
    assert!(!err.contains("panicked"), "{arguments:?}: {err}");
    (output.status.code().unwrap(), out, err)
}

type Step = (&'static str, usize);

/// A server that answers as it was recorded in these steps, and refuses all else.
fn replaying(steps: &[Step]) -> Scripted {
    // We ask for longer pages than the recordings, for the tokens of all users, and for tasks of all names.
    let alike = |seen: &Seen| {
        let mut seen = seen.clone();
        let all_names = seen.path == "/api/v2/tasks";
        seen.query
            .retain(|(key, _)| !matches!(key.as_str(), "limit" | "userID") && (key != "name" || !all_names));
        seen
    };
    let known: Vec<(Seen, Answer)> = steps
        .iter()
        .map(|(name, step)| recorded(name, *step))
        .map(|step| (alike(&asked(&step)), answered(&step)))
        .collect();
    Scripted::new(move |seen| {
        if seen.path == "/ping" {
            return ping(ServerKind::InfluxDb2);
        }
        if let Some((_, answer)) = known.iter().find(|(known, _)| known.same(&alike(seen))) {
            return answer.clone();
        }
        match seen.method.as_str() {
            // The page after the last.
            "GET" if seen.value("offset").is_some() || seen.value("after").is_some() => {
                Answer::of(200, r#"{"links":{},"buckets":[],"orgs":[],"tasks":[]}"#)
            }
            _ => Answer::of(400, r#"{"code":"invalid","message":"this was not recorded"}"#),
        }
    })
}

/// What a command says to recorded answers: its exit code, standard output, standard error.
fn check(steps: &[Step], arguments: &[&str], input: &str, expected: (i32, &str, &str)) {
    // Some steps are recorded with the name of the organisation, the others with its ID.
    let found = ["my-org", ORG].map(|org| {
        let server = replaying(steps);
        let (code, out, err) = said(&server, org, arguments, input);
        ((code, out, err), server.seen())
    });
    let as_expected = found.iter().any(|((code, out, err), _)| (*code, &**out, &**err) == expected);
    assert!(as_expected, "{arguments:?}: not {expected:?}: {found:#?}");
}

fn one() -> String {
    id("id", "1")
}

const LISTED: Step = ("buckets/listing", 1);
const FOUND_TWO: Step = ("buckets/life", 8);
const BUCKETS: &str = "bucket       series  kept\n_monitoring  -       7 days\n_tasks       -       3 days\n";

#[test]
fn buckets_are_listed_and_changed() {
    let the_org = ("orgs/life", 2);
    let check = |steps: &[Step], arguments: &[&str], expected| check(steps, arguments, "", expected);
    check(&[LISTED], &["bucket", "list"], (0, BUCKETS, ""));
    check(
        &[the_org, ("buckets/retention", 3), LISTED],
        &["bucket", "create", "r2", "--keep", "1h"],
        (0, BUCKETS, ""),
    );
    check(
        &[("buckets/system-buckets", 1), ("buckets/life", 3), LISTED],
        &["bucket", "rename", "_monitoring", "two"],
        (0, BUCKETS, ""),
    );
    check(&[LISTED, ("buckets/life", 3)], &["bucket", "rename", &one(), "two"], (0, BUCKETS, ""));
    check(&[FOUND_TWO, ("buckets/life", 9), LISTED], &["bucket", "remove", "two", "--yes"], (0, BUCKETS, ""));
    let gone = format!("graylogic: delete bucket \"{}\": the server answered 404: bucket not found\n", one());
    check(&[LISTED, ("buckets/life", 11)], &["bucket", "remove", "--yes", &one()], (1, "", &gone));
    // Nobody is asked where nobody can answer, and nothing is removed.
    let unasked = "graylogic: this would remove bucket \"two\" of the server with everything in it for good; to do that, add --yes\n";
    check(&[FOUND_TWO], &["bucket", "remove", "two"], (1, "", unasked));
    let dry = "would remove bucket \"two\" of the server with everything in it\n";
    check(&[FOUND_TWO], &["bucket", "remove", "two", "--dry-run"], (0, dry, ""));
    check(
        &[("buckets/listing", 5)],
        &["bucket", "remove", "nope"],
        (1, "", "graylogic: there is no bucket \"nope\" that the token may see\n"),
    );
    check(
        &[the_org, ("buckets/refused", 1)],
        &["bucket", "create", "b"],
        (
            1,
            "",
            "graylogic: create bucket \"b\": the server answered 422: bucket with name b already exists\n",
        ),
    );
    check(
        &[("buckets/life", 9), FOUND_TWO],
        &["bucket", "remove", "two", "--yes"],
        (
            1,
            "",
            "graylogic: the change is made, and the list of buckets is not there: list buckets: the server answered 400: \
             this was not recorded\n",
        ),
    );
    let server = replaying(&[LISTED]);
    let (_, out, _) = said(&server, "my-org", &["bucket", "--json", "list"], "");
    let found: Value = serde_json::from_str(&out).unwrap();
    let first = json!({ "id": one(), "name": "_monitoring", "series": null, "retention_s": 604_800 });
    assert_eq!(found["buckets"][0], first);
}

#[test]
fn retention_is_changed_by_either_word() {
    for (word, length, seconds) in
        [("keep", "36h", 129_600), ("retention", "90d", 7_776_000), ("keep", "forever", 0)]
    {
        let server = Scripted::new(|seen| match (seen.method.as_str(), seen.path.as_str()) {
            ("GET", "/ping") => ping(ServerKind::InfluxDb2),
            ("PATCH", _) => answered(&recorded("buckets/life", 3)),
            _ if seen.value("name").is_some() => answered(&recorded("buckets/life", 8)),
            _ if seen.value("offset").is_some() => Answer::of(200, r#"{"links":{},"buckets":[]}"#),
            _ => answered(&recorded("buckets/listing", 1)),
        });
        let done = said(&server, "my-org", &["bucket", word, "two", length], "");
        assert_eq!(done, (0, BUCKETS.to_owned(), String::new()));
        let changes: Vec<Seen> = server.seen().into_iter().filter(|seen| seen.method == "PATCH").collect();
        let [change] = &changes[..] else { panic!("{changes:?}") };
        assert_eq!(change.body, json!({ "retentionRules": [{ "type": "expire", "everySeconds": seconds }] }));
        assert_eq!(change.path, format!("/api/v2/buckets/{}", one()));
    }
    let server = replaying(&[FOUND_TWO]);
    let (code, _, err) = said(&server, "my-org", &["bucket", "keep", "two", "long"], "");
    assert_eq!((code, err.contains("\"long\" is no length of time")), (1, true), "{err}");
    assert!(server.seen().iter().all(|seen| seen.method == "GET"));
}

#[test]
fn readings_are_deleted_by_equal_and_not_equal() {
    let hour =
        ["--start", "1970-01-01T00:00:00Z", "--stop", "1970-01-01T01:00:00.000000001Z", "--bucket", "b"];
    let with = |more: &[&'static str]| [&["delete"], more, &hour].concat();
    check(&[("delete/predicates", 47)], &with(&["--tag", "r=a"]), "", (0, "deleted from bucket \"b\"\n", ""));
    check(
        &[("delete/predicates", 50)],
        &with(&["--measurement", "n", "--json"]),
        "",
        (0, "{\n  \"series\": null\n}\n", ""),
    );
    for (more, says) in [
        (["--tag", "r=~a"], "no server deletes by a pattern, so write KEY=VALUE or KEY!=VALUE"),
        (["--tag", "r!~a"], "no server deletes by a pattern"),
        (["--tag", "=a"], "write KEY=VALUE or KEY!=VALUE"),
        (["--field", "f"], "InfluxDB 2 does not delete by field: not supported here"),
    ] {
        let server = replaying(&[]);
        let (code, out, err) = said(&server, "my-org", &with(&more), "");
        assert!(code == 1 && out.is_empty() && err.contains(says), "{more:?}: {out}{err}");
        assert!(server.seen().iter().all(|seen| seen.path == "/ping"), "nothing was deleted");
    }
    let server = Scripted::new(|seen| match seen.path.as_str() {
        "/ping" => ping(ServerKind::InfluxDb2),
        _ => Answer::of(204, ""),
    });
    // An argument that was forgotten empties no bucket.
    let (code, out, err) = said(&server, "my-org", &["delete"], "");
    assert!(
        code == 1 && out.is_empty() && err.contains("or --everything for all of the bucket's"),
        "{out}{err}"
    );
    assert!(server.seen().is_empty());
    let (code, ..) = said(&server, "my-org", &["delete", "--everything", "-t", "a=b"], "");
    assert!(code == 2 && server.seen().is_empty());
    let (code, out, _) = said(&server, "my-org", &["delete", "--everything"], "");
    assert_eq!((code, out.contains("deleted from bucket"), server.seen().len()), (0, true, 2));
    let server = Scripted::new(|seen| match seen.path.as_str() {
        "/ping" => ping(ServerKind::InfluxDb2),
        _ => Answer::of(204, ""),
    });
    let (code, ..) = said(&server, "my-org", &["delete", "-t", "a!=b", "-t", "c=d=e"], "");
    let body = &server.seen()[1].body;
    assert_eq!((code, &body["predicate"]), (0, &json!("\"a\"!=\"b\" AND \"c\"=\"d=e\"")));
}

const FLUX: &str = "option task = {name: \"t\", every: 1h, offset: 10m}\n\nfrom(bucket: \"b\") |> range(start: -1h) |> mean() \
                    |> to(bucket: \"b2\")";

#[test]
fn tasks_are_managed_by_name_or_id() {
    let found = ("tasks/life", 3);
    let check = |steps: &[Step], arguments: &[&str], expected| check(steps, arguments, FLUX, expected);
    let listed =
        format!("id                task  enabled  every  last run\n{}  t     no       1h     -\n", one());
    check(&[found], &["task", "list"], (0, &listed, ""));
    check(
        &[("tasks/life", 1)],
        &["task", "add", "--flux-file", "-", "--description", "d", "--inactive"],
        (0, &listed, ""),
    );
    let shown = format!(
        "id           {}\ntask         t\nenabled      no\ndescription  d\nevery        1h\noffset       10m\n\
         done up to   2026-01-02 03:04:05 UTC\nmade         2026-01-02 03:04:05 UTC\n\n{FLUX}\n",
        one()
    );
    check(&[found], &["task", "show", "t"], (0, &shown, ""));
    let removed = format!("removed task {}\n", one());
    check(&[found, ("tasks/life", 12)], &["task", "remove", "t"], (0, &removed, ""));
    check(&[found, ("tasks/life", 12)], &["task", "remove", &one()], (0, &removed, ""));
    check(&[found, ("tasks/life", 10)], &["task", "runs", "t"], (0, "id  status  for  began  ended\n", ""));
    let missing = "graylogic: there is no task \"u\" that the token may see\n";
    for verb in ["show", "enable", "disable", "run", "runs", "remove"] {
        check(&[found], &["task", verb, "u"], (1, "", missing));
    }
    check(
        &[("tasks/refused", 4)],
        &["task", "add", "--flux-file", "/nowhere/flux"],
        (1, "", "graylogic: read the Flux in /nowhere/flux: No such file or directory (os error 2)\n"),
    );
    let server = replaying(&[found]);
    let shown: Value =
        serde_json::from_str(&said(&server, ORG, &["--json", "task", "show", "t"], "").1).unwrap();
    assert_eq!(
        (&shown["flux"], &shown["enabled"], &shown["every"]),
        (&json!(FLUX), &json!(false), &json!("1h"))
    );
}

/// A server with these tasks, which does what it is told.
fn tasks(names: &'static [&'static str]) -> Scripted {
    Scripted::new(move |seen| {
        let task = |(n, name): (usize, &&str)| json!({ "id": format!("{:016x}", n + 1), "name": name, "status": "active", "flux": "f", "cron": "0 * * * *" });
        match (seen.method.as_str(), seen.path.as_str()) {
            ("GET", "/ping") => ping(ServerKind::InfluxDb2),
            ("GET", "/api/v2/tasks") if seen.value("after").is_some() => {
                Answer::of(200, r#"{"links":{},"tasks":[]}"#)
            }
            ("GET", "/api/v2/tasks") => {
                let tasks: Vec<Value> = names.iter().enumerate().map(task).collect();
                Answer::of(200, &json!({ "links": {}, "tasks": tasks }).to_string())
            }
            ("GET", "/api/v2/buckets") => match seen.value("name") {
                Some("gone") => Answer::of(200, r#"{"links":{},"buckets":[]}"#),
                name => {
                    let bucket = json!({ "id": "00000000000000b0", "name": name, "retentionRules": [] });
                    Answer::of(200, &json!({ "links": {}, "buckets": [bucket] }).to_string())
                }
            },
            ("GET", path) if path.ends_with("/logs") => Answer::of(
                200,
                &json!({ "events": [
                    { "runID": "02", "time": "2026-01-02T03:00:01Z", "message": "Started task from script: \"f\"" },
                    { "runID": "02", "time": "2026-01-02T03:00:02Z", "message": "could not find bucket \"b\"" },
                    { "runID": "02", "time": "2026-01-02T03:00:02Z", "message": "Completed(failed)" },
                ]})
                .to_string(),
            ),
            ("GET", path) if path.ends_with("/runs") => Answer::of(
                200,
                &json!({ "links": {}, "runs": [
                    { "id": "01", "status": "failed", "log": [{ "message": "no \u{1b}[2Jspace" }] },
                    { "id": "02", "status": "failed" },
                    { "id": "03", "status": "success", "log": [{ "message": "Completed(success)" }] },
                ]})
                .to_string(),
            ),
            ("POST", path) if path.ends_with("/runs") => {
                Answer::of(201, r#"{"id":"0f","status":"scheduled","scheduledFor":"2026-01-02T03:00:00Z"}"#)
            }
            ("POST" | "PATCH", _) => Answer::of(200, &task((0, &"x")).to_string()),
            _ => Answer::of(204, ""),
        }
    })
}

#[test]
fn several_tasks_of_a_name_are_told_apart() {
    let server = tasks(&["a", "b", "b"]);
    let (code, out, err) = said(&server, ORG, &["task", "run", "b"], "");
    assert_eq!((code, &*out), (1, ""));
    assert_eq!(
        err,
        "graylogic: \"b\" may be 2 tasks; name the one you mean by its id: 0000000000000002, 0000000000000003\n"
    );
    assert!(server.seen().iter().all(|seen| seen.method == "GET"), "no task was run");
    let (code, out, _) = said(&server, ORG, &["task", "run", "0000000000000003"], "");
    let ran = "id  status     for                      began  ended\n0f  scheduled  2026-01-02 03:00:00 UTC  -      -\n";
    assert_eq!((code, &*out), (0, ran));
    assert_eq!(server.seen().last().unwrap().path, "/api/v2/tasks/0000000000000003/runs");
    for (verb, status) in [("enable", "active"), ("disable", "inactive")] {
        let (code, out, _) = said(&server, ORG, &["task", verb, "a"], "");
        assert!(code == 0 && out.contains("0 * * * *"), "{out}");
        let last = server.seen().pop().unwrap();
        assert_eq!((&*last.path, last.body), ("/api/v2/tasks/0000000000000001", json!({ "status": status })));
    }
}

#[test]
fn a_task_that_down_samples_is_made_from_options() {
    let server = tasks(&[]);
    let arguments = ["task", "downsample", "hourly", "--from", "raw", "--to", "hours", "--every", "1h"];
    let more = ["--aggregate", "mean", "--aggregate", "max", "--measurement", "energy", "--offset", "90s"];
    let (code, _, err) = said(&server, ORG, &[&arguments[..], &more].concat(), "");
    assert_eq!((code, &*err), (0, ""));
    let body = server.seen().pop().unwrap().body;
    let flux = body["flux"].as_str().unwrap();
    for part in [
        r#"option task = {name: "hourly", every: 1h, offset: 1m30s}"#,
        r#"from(bucket: "raw")"#,
        r#"r._measurement == "energy""#,
        "fn: mean",
        "fn: max",
        r#"to(bucket: "hours")"#,
    ] {
        assert!(flux.contains(part), "{part} in {flux}");
    }
    let (code, _, err) =
        said(&server, ORG, &["task", "downsample", "x", "--from", "a", "--to", "a", "--every", "1h"], "");
    assert_eq!(
        (code, &*err),
        (1, "graylogic: make task \"x\": it would read what it wrote; write to another bucket\n")
    );
    // The server would take both, and fail at each run.
    for (name, from, to, says) in [
        ("x", "gone", "hours", "there is no bucket \"gone\" that the token may see; create it with"),
        ("x", "raw", "gone", "there is no bucket \"gone\""),
        (
            "taken",
            "raw",
            "hours",
            "there is a task \"taken\" already, with the id 0000000000000001; choose another name",
        ),
    ] {
        let server = tasks(&["taken"]);
        let arguments = ["task", "downsample", name, "--from", from, "--to", to, "--every", "1h"];
        let (code, out, err) = said(&server, ORG, &arguments, "");
        assert!(code == 1 && out.is_empty() && err.contains(says), "{err}");
        assert!(server.seen().iter().all(|seen| seen.method == "GET"), "no task was made");
    }
}

#[test]
fn a_run_that_failed_says_why() {
    let server = tasks(&["a"]);
    let (code, out, err) = said(&server, ORG, &["task", "runs", "a"], "");
    assert_eq!((code, &*err), (0, ""));
    let said_why = "run 01 failed: no \\u{1b}[2Jspace\nrun 02 failed: could not find bucket \"b\"\n";
    assert!(out.ends_with(said_why), "{out}");
    let (_, out, _) = said(&server, ORG, &["task", "runs", "a", "--json"], "");
    let runs: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(runs["runs"][1]["error"], "could not find bucket \"b\"");
    assert_eq!(runs["runs"][2]["error"], Value::Null);
}

#[test]
fn a_token_is_printed_once_and_alone() {
    let bucket = id("bucket", "b");
    let arguments = ["token", "create", "--read", &bucket, "--write", &bucket, "--description", "d"];
    let steps = [LISTED, ("orgs/life", 2), ("authorizations/life", 1)];
    let output = run(&replaying(&steps).url(), "my-org", &arguments, "");
    assert_eq!(text(&output.stdout), "a-very-secret-token-1==\n");
    assert_eq!(text(&output.stderr), format!("made token {}; it is shown this once\n", one()));
    let output = run(&replaying(&steps).url(), "my-org", &[&["--json"], &arguments[..]].concat(), "");
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(told, json!({ "id": one(), "token": "a-very-secret-token-1==" }));
    assert_eq!(text(&output.stderr), "");
    // By the name of the bucket.
    let arguments = ["token", "create", "--read", "nope"];
    check(
        &[("buckets/listing", 5)],
        &arguments,
        "",
        (1, "", "graylogic: there is no bucket \"nope\" that the token may see\n"),
    );
}

#[test]
fn tokens_are_managed_without_being_shown() {
    let listed = ("authorizations/life", 3);
    let check = |steps: &[Step], arguments: &[&str], expected| check(steps, arguments, "", expected);
    let all = "id                token            active  user     may\n\
               0c00000000000001  my-user's Token  yes     my-user  read authorizations, write authorizations, read buckets, \
               write buckets, 40 more\n\
               0d00000000000031  d                yes     my-user  read buckets 0e00000000000062, \
               write buckets 0e00000000000062\n";
    check(&[listed], &["token", "list"], (0, all, ""));
    let server = replaying(&[listed]);
    let (_, out, _) = said(&server, ORG, &["token", "list", "--json"], "");
    let found: Value = serde_json::from_str(&out).unwrap();
    let first = json!({ "action": "read", "kind": "authorizations", "id": null, "org_id": null });
    assert_eq!(found["tokens"][0]["may"][0], first);
    assert_eq!(found["tokens"][0]["may"].as_array().unwrap().len(), 44);
    let removed = format!("removed token {}\n", one());
    check(&[listed, ("authorizations/life", 6)], &["token", "remove", &one()], (0, &removed, ""));
    for (verb, step, active) in [("deactivate", 2, "no "), ("activate", 4, "yes")] {
        let server = replaying(&[listed, ("auth/inactive-and-revoked", step)]);
        let (code, out, err) = said(&server, ORG, &["token", verb, &one()], "");
        assert!(code == 0 && out.contains(active), "{verb}: {out}{err}");
    }
    check(
        &[listed],
        &["token", "remove", "nobody's"],
        (1, "", "graylogic: there is no token \"nobody's\" that the token may see\n"),
    );
}

#[test]
fn organisations_are_managed_by_name_or_id() {
    let listed = ("orgs/life", 1);
    let check = |steps: &[Step], arguments: &[&str], expected| check(steps, arguments, "", expected);
    let all = format!("id                organisation  description\n{ORG}  my-org\n");
    check(&[listed], &["org", "list"], (0, &all, ""));
    let second = format!("id                organisation  description\n{}  second        d\n", one());
    check(&[("orgs/life", 6)], &["org", "create", "second", "--description", "d"], (0, &second, ""));
    let removed = format!("removed organisation {}\n", one());
    check(&[listed, ("orgs/life", 13)], &["org", "remove", "--yes", &one()], (0, &removed, ""));
    let unasked = format!(
        "graylogic: this would remove organization {:?} with all of its buckets, tasks and tokens for good; to do that, add \
         --yes\n",
        one()
    );
    check(&[listed, ("orgs/life", 13)], &["org", "remove", &one()], (1, "", &unasked));
    let missing = "graylogic: there is no organisation \"nobody\" that the token may see\n";
    check(&[listed], &["org", "remove", "nobody"], (1, "", missing));
    check(
        &[("orgs/life", 7)],
        &["org", "create", "second"],
        (
            1,
            "",
            "graylogic: create organisation \"second\": the server answered 422: organization with name second already \
             exists\n",
        ),
    );
}

const SETUP: [&str; 9] = ["setup", "--user", "u", "--org", "o", "--bucket", "b", "--retention", "2h"];

#[test]
fn a_server_is_set_up_with_secrets_of_standard_input() {
    let with = |more: &[&'static str]| [&SETUP, more].concat();
    let both = with(&["--password-stdin", "--token-stdin"]);
    let remark = "set up with user \"u\", organisation \"o\" and bucket \"b\"; this is the token that may do everything, \
                  shown this once\n";
    for input in ["long-enough\nchosen\n", "long-enough\r\nchosen"] {
        check(&[("setup/first-time", 5)], &both, input, (0, "chosen\n", remark));
    }
    for (arguments, input, says) in [
        (&both, "long-enough\n", "the token on standard input is empty; give it as a line"),
        (&both, "\nchosen\n", "the password on standard input is empty; give it as a line"),
        (&both, &*"x".repeat(5000), "the password on standard input is longer than 4096 bytes"),
        (&with(&[]), "long-enough", "the server answered 400: this was not recorded"),
    ] {
        let server = replaying(&[("setup/first-time", 5)]);
        let (code, out, err) = said(&server, "my-org", arguments, input);
        assert!(code == 1 && out.is_empty() && err.contains(says), "{out}{err}");
        assert!(!err.contains("long-enough") && !err.contains("chosen"), "{err}");
    }
    let server = replaying(&[("setup/first-time", 4)]);
    let arguments = ["setup", "--user", "u", "--org", "o", "--bucket", "b", "--password-stdin"];
    let (code, _, err) = said(&server, "my-org", &arguments, "short\n");
    assert_eq!((code, err.contains("the password has 5 bytes; give 8 to 72")), (1, true), "{err}");
}

/// A server that answers when it is told to.
fn waiting(path: &'static str, answer: Answer) -> (Scripted, Sender<()>, Receiver<()>) {
    let ((go, going), (came, coming)) = (channel::<()>(), channel());
    let (going, came) = (Mutex::new(going), Mutex::new(came));
    let server = Scripted::new(move |seen| {
        if seen.path != path {
            return ping(ServerKind::InfluxDb2);
        }
        let _nobody_looks = came.lock().unwrap().send(());
        let _let_go = going.lock().unwrap().recv_timeout(PATIENCE);
        answer.clone()
    });
    (server, go, coming)
}

#[test]
fn no_secret_is_on_a_command_line() {
    let (server, go, asked) = waiting("/api/v2/setup", answered(&recorded("setup/first-time", 5)));
    let folder = tempfile::tempdir().unwrap();
    let mut command = graylogic(&server.url(), "my-org", folder.path());
    let mut child = command.args(SETUP).args(["--password-stdin", "--token-stdin"]).spawn().unwrap();
    give(&mut child, "long-enough\nchosen\n");
    asked.recv_timeout(PATIENCE).unwrap();
    let line = std::fs::read(format!("/proc/{}/cmdline", child.id())).unwrap();
    let line = String::from_utf8_lossy(&line);
    go.send(()).unwrap();
    assert_eq!(text(&child.wait_with_output().unwrap().stdout), "chosen\n");
    assert!(line.contains("--password-stdin"), "{line}");
    for secret in ["long-enough", "chosen", "my-token"] {
        assert!(!line.contains(secret), "{line}");
    }
    // There is no other way to give one.
    for option in ["--password", "--token"] {
        let output = run(&server.url(), "my-org", &[&SETUP[..], &[option, "x"]].concat(), "");
        assert_eq!(output.status.code(), Some(2), "{option}");
    }
}

#[test]
fn the_state_of_a_server_is_told() {
    let server = replaying(&[("system/health-ready", 1), ("system/health-ready", 4), LISTED]);
    let (code, out, err) = said(&server, "my-org", &["status"], "");
    let url = server.url();
    let expected = format!(
        "server   {url}\nkind     InfluxDB 2\nversion  2.8.0\nhealth   pass: ready for queries and writes\nready    yes\n\
         buckets  _monitoring, _tasks\n"
    );
    assert_eq!((code, out, &*err), (0, expected, ""));
    let (_, out, _) = said(&server, "my-org", &["status", "--json"], "");
    let found: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&found["healthy"], &found["ready"]), (&json!(true), &json!(true)));
    assert_eq!(found["buckets"][1]["name"], "_tasks");
    // One that the token may not ask.
    let server = replaying(&[("system/health-ready", 1)]);
    let (code, out, _) = said(&server, "my-org", &["status"], "");
    assert_eq!(code, 0);
    assert!(
        out.contains("ready    it does not tell\nbuckets  list buckets: the server answered 400"),
        "{out}"
    );
    let gone = {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    };
    let output = run(&gone, "", &["status"], "");
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(1), ""));
    assert!(text(&output.stderr).contains("ask for the server's health"), "{}", text(&output.stderr));
}

#[test]
fn what_a_target_has_not_is_said() {
    let managed: [&[&str]; 6] = [
        &["task", "list"],
        &["task", "downsample", "n", "--from", "a", "--to", "b", "--every", "1h"],
        &["token", "list"],
        &["org", "list"],
        &["org", "create", "o"],
        &["setup", "--user", "u", "--org", "o", "--bucket", "b"],
    ];
    for kind in [ServerKind::InfluxDb1, ServerKind::InfluxDb3, ServerKind::VictoriaMetrics] {
        let server = Scripted::new(move |seen| match seen.path.as_str() {
            "/ping" => ping(kind),
            _ => Answer::of(500, ""),
        });
        for arguments in managed {
            let (code, out, err) = said(&server, "my-org", arguments, "");
            let says = err.contains(&kind.to_string()) && err.ends_with(": not supported here\n");
            assert!(code == 1 && out.is_empty() && says, "{arguments:?}: {out}{err}");
        }
    }
    // Nor is a store made to say so, which `run` sees to.
    for arguments in managed {
        let output = run("", "", arguments, "");
        let err = text(&output.stderr);
        assert!(err.contains("the embedded store") && err.contains(": not supported here; name"), "{err}");
        assert_eq!(output.status.code(), Some(1));
    }
    let server = |kind| {
        Scripted::new(move |seen| match seen.path.as_str() {
            "/ping" => ping(kind),
            "/api/v3/configure/database" => Answer::of(200, r#"[{"iox::database":"house"}]"#),
            _ => Answer::of(404, ""),
        })
    };
    let list = |kind| said(&server(kind), "", &["bucket", "list"], "");
    let house = "bucket  series  kept\nhouse   -       for ever\n".to_owned();
    assert_eq!(list(ServerKind::InfluxDb3), (0, house, String::new()));
    let (code, _, err) = list(ServerKind::VictoriaMetrics);
    assert_eq!(
        (code, err.ends_with("its retention is its flag -retentionPeriod: not supported here\n")),
        (1, true)
    );
    for (kind, says) in [
        (ServerKind::InfluxDb3, "InfluxDB 3 does not answer Flux"),
        (ServerKind::VictoriaMetrics, "VictoriaMetrics does not answer Flux"),
        (ServerKind::InfluxDb1, "this InfluxDB 1 does not answer Flux"),
    ] {
        let (code, out, err) = said(&server(kind), "", &["query", "--flux", "f"], "");
        assert!(code == 1 && out.is_empty() && err.contains(says), "{out}{err}");
    }
}

#[test]
fn the_embedded_store_says_that_it_answers_no_flux() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().to_str().unwrap();
    run("", "", &["write", "--data", data, "--bucket", "house"], "m f=1 1700000000000000000");
    let output = run("", "", &["query", "--data", data, "--flux", "x"], "");
    let expected =
        "graylogic: Flux is not answered by the embedded store in this version; use a typed query\n";
    assert_eq!((output.status.code(), text(&output.stdout), text(&output.stderr)), (Some(1), "", expected));
    let listed = run("", "", &["bucket", "--data", data, "list"], "");
    assert_eq!(
        text(&listed.stdout),
        "bucket  series  kept\nhouse        1  for ever\n",
        "asking made no bucket"
    );
}

fn answer_of(name: &str) -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../fixtures/flux-csv/{name}.csv"));
    std::fs::read_to_string(file).unwrap()
}

/// A server that answers all Flux with this.
fn flux(csv: String) -> Scripted {
    Scripted::new(move |seen| match seen.path.as_str() {
        "/ping" => ping(ServerKind::InfluxDb2),
        _ => Answer::of(200, &csv).with("Content-Type: text/csv; charset=utf-8\r\n"),
    })
}

#[test]
fn answers_to_flux_are_tables_csv_and_lines_of_json() {
    let name = "empty-tables";
    let server = flux(answer_of(name));
    let (code, out, err) = said(&server, "my-org", &["query", "--flux", "f"], "");
    let start = "_start=2026-03-02 00:00:00 UTC _stop=2026-03-08 00:00:00 UTC";
    let expected = format!(
        "result _result, table 0: {start} Zone=Z1 _field=temp _measurement=climate area=west building=north room=kitchen \
         sensor=s1\n_time                    _value\n2026-03-02 18:00:00 UTC      22\n2026-03-03 06:00:00 UTC   21.75\n\n\
         result _result, table 1, no rows: {start} _field=temp _measurement=climate area=east building=north room=hall \
         sensor=s2\n"
    );
    assert!(out.starts_with(&expected) && code == 0 && err.is_empty(), "{out}{err}");
    let (_, out, _) = said(&server, "my-org", &["query", "--csv", "--flux", "f"], "");
    assert_eq!(out, answer_of(name), "byte for byte");
    let server = flux(answer_of("special-floats"));
    let (_, out, _) = said(&server, "my-org", &["query", "--json", "--flux", "f"], "");
    let rows: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let values: Vec<&Value> = rows.iter().map(|row| &row["v"]).collect();
    assert_eq!(values, [&json!("NaN"), &json!("+Inf"), &json!("-Inf"), &json!(-0.0), &json!(3.0)]);
    assert_eq!(rows[0], json!({ "result": "_result", "table": 0, "v": "NaN" }));
    let server = flux(answer_of("quoting-of-values"));
    let (_, out, _) = said(&server, "my-org", &["query", "--flux", "f"], "");
    assert!(out.contains("line one\\nline two") && out.contains("tab\\there"), "{out}");
    let server = flux(String::from("\r\n"));
    assert_eq!(
        said(&server, "my-org", &["query", "--flux", "f"], ""),
        (0, String::new(), "the answer has no rows\n".to_owned())
    );
}

#[test]
fn an_answer_that_fails_in_the_middle_shows_what_came() {
    let csv = answer_of("error-after-rows");
    for form in [&[][..], &["--json"], &["--csv"]] {
        let server = flux(csv.clone());
        let arguments = [&["query", "--flux", "f"], form].concat();
        let (code, out, err) = said(&server, "my-org", &arguments, "");
        assert_eq!(code, 1, "{form:?}: {out}");
        let says = err.contains("schema collision: cannot group integer and float types together");
        assert!(says, "{form:?}: {err}");
        match form {
            ["--csv"] => assert_eq!(out, csv),
            ["--json"] => assert_eq!(out.lines().count(), 4, "{out}"),
            _ => assert_eq!(out.lines().count(), 1 + 1 + 4, "{out}"),
        }
    }
    let server = Scripted::new(|seen| match seen.path.as_str() {
        "/ping" => ping(ServerKind::InfluxDb2),
        _ => Answer::of(404, r#"{"code":"not found","message":"could not find bucket \"nope\""}"#),
    });
    let expected = "graylogic: ask in Flux: the server answered 404 (not found): could not find bucket \"nope\"; it does not \
                    exist, or the token lacks the right to read the buckets it names: check influxdb.bucket and \
                    influxdb.token\n";
    assert_eq!(
        said(&server, "my-org", &["query", "--flux", "f"], ""),
        (1, String::new(), expected.to_owned())
    );
}

#[test]
fn a_question_goes_as_it_was_written_and_values_beside_it() {
    let server = flux(answer_of("csv-from-inline"));
    let question = "from(bucket: \"b\")\n  |> filter(fn: (r) => r.id == params.id)\n";
    let arguments = ["query", "--flux-file", "-", "--param", "id=a\" or true = \"", "--param", "n=1"];
    let (code, _, err) = said(&server, "my-org", &arguments, question);
    assert_eq!((code, &*err), (0, ""));
    // The client pings beside it, at any time.
    let asked = server.seen().into_iter().rfind(|seen| seen.path == "/api/v2/query").unwrap();
    assert_eq!((&asked.body["query"], asked.value("org")), (&json!(question), Some("my-org")));
    let values = &asked.body["extern"]["body"][0]["assignment"]["init"]["properties"];
    assert_eq!(values[0]["value"], json!({ "type": "StringLiteral", "value": "a\" or true = \"" }));
    assert_eq!(values[1]["key"]["name"], "n");
    let count = server.seen().len();
    for (arguments, code, says) in [
        (&["--flux", "f", "--param", "id"][..], 1, "--param \"id\": write NAME=VALUE"),
        (&["--flux", "f", "--param", "1=2"], 1, "the parameter \"1\" is no name"),
        (&["--flux", "f", "--flux-file", "-"], 2, "cannot be used with"),
        (&["--flux", "f", "--measurement", "m"], 2, "cannot be used with"),
        (&["--flux", "f", "--limit", "1"], 2, "cannot be used with"),
        (&["--flux", "f", "--csv", "--json"], 2, "cannot be used with"),
        (&["--param", "a=b"], 2, "required"),
        (&["--flux", "f", "--timeout", "0"], 2, "invalid value"),
        (&[], 1, "name the measurement with --measurement, or ask with --flux"),
    ] {
        let (found, out, err) = said(&server, "my-org", &[&["query"], arguments].concat(), "");
        assert!(found == code && out.is_empty() && err.contains(says), "{arguments:?}: {found} {out}{err}");
    }
    assert!(server.seen()[count..].iter().all(|seen| seen.path == "/ping"), "nothing of it was asked");
}

#[test]
fn a_question_is_given_up_in_time() {
    let (server, _go, _) = waiting("/api/v2/query", Answer::of(200, ""));
    let began = Instant::now();
    let (code, out, err) = said(&server, "my-org", &["query", "--timeout", "1", "--flux", "f"], "");
    assert!(code == 1 && out.is_empty() && err.contains("ask the server"), "{out}{err}");
    assert!(began.elapsed() < PATIENCE / 2, "it would be given up after a minute otherwise");
}

/// A server that sends the first part of an answer, and the second when it is told to.
fn in_two_parts(first: String, second: String) -> (String, Sender<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (go, going) = channel::<()>();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut head = String::new();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            while reader.read_line(&mut head).unwrap() > 2 {}
            if head.starts_with("GET /ping") {
                let pong = "HTTP/1.1 204 x\r\nX-Influxdb-Version: v2.8.0\r\nConnection: close\r\n\r\n";
                stream.write_all(pong.as_bytes()).unwrap();
                continue;
            }
            let length = first.len() + second.len();
            let begin =
                format!("HTTP/1.1 200 x\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{first}");
            stream.write_all(begin.as_bytes()).unwrap();
            let _let_go = going.recv_timeout(PATIENCE);
            // Nobody reads it when the command has ended.
            let _ended = stream.write_all(second.as_bytes());
            return;
        }
    });
    (url, go)
}

#[test]
fn csv_is_the_answer_to_its_last_byte_also_when_it_says_that_it_failed() {
    let first = answer_of("error-after-rows");
    let (url, go) = in_two_parts(first.clone(), "\r\nmore\r\n".to_owned());
    let folder = tempfile::tempdir().unwrap();
    let mut command = graylogic(&url, "my-org", folder.path());
    let mut child = command.args(["query", "--csv", "--flux", "f"]).spawn().unwrap();
    let mut out = child.stdout.take().unwrap();
    let mut came = vec![0; first.len()];
    out.read_exact(&mut came).unwrap();
    go.send(()).unwrap();
    let mut rest = String::new();
    out.read_to_string(&mut rest).unwrap();
    assert_eq!((text(&came), &*rest), (&*first, "\r\nmore\r\n"));
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("schema collision"), "{}", text(&output.stderr));
}

fn rows(numbers: std::ops::Range<u32>) -> String {
    numbers.map(|n| format!(",,0,{n},{}\r\n", "x".repeat(n as usize % 60))).collect()
}

#[test]
fn rows_are_printed_while_the_answer_comes() {
    let head = "#datatype,string,long,long,string\r\n#group,false,false,false,false\r\n#default,_result,,,\r\n\
                ,result,table,n,s\r\n";
    for (form, lines_before) in [(&[][..], 102), (&["--json"], 150), (&["--csv"], 154)] {
        let (url, go) = in_two_parts(format!("{head}{}", rows(0..150)), format!("{}\r\n", rows(150..200)));
        let folder = tempfile::tempdir().unwrap();
        let mut command = graylogic(&url, "my-org", folder.path());
        let mut child = command.args(["query", "--flux", "f"]).args(form).spawn().unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut before = Vec::new();
        for _ in 0..lines_before {
            let mut line = String::new();
            out.read_line(&mut line).unwrap();
            before.push(line);
        }
        // All of these were there before the rest of the answer was.
        go.send(()).unwrap();
        let mut rest = String::new();
        out.read_to_string(&mut rest).unwrap();
        assert!(child.wait().unwrap().success());
        assert!(rest.contains("199"), "{form:?}: {rest}");
        if form.is_empty() {
            assert_eq!(before[0], "result _result, table 0\n");
            assert_eq!(before[1], " n  s\n");
            assert_eq!(before[5], format!(" 3  {}\n", "xxx"));
            assert_eq!(before[2 + 59], format!("59  {}…\n", "x".repeat(39)), "long cells are cut");
            assert_eq!(rest.lines().last().unwrap(), format!("199  {}", "x".repeat(19)));
        }
    }
}

#[test]
fn a_reader_who_stops_reading_the_answer_is_no_failure() {
    let head = "#datatype,string,long,long,string\r\n#default,_result,,,\r\n,result,table,n,s\r\n";
    let server = flux(format!("{head}{}", rows(0..50_000)));
    for form in [&[][..], &["--json"], &["--csv"]] {
        let folder = tempfile::tempdir().unwrap();
        let mut command = graylogic(&server.url(), "my-org", folder.path());
        let mut child = command.args(["query", "--flux", "f"]).args(form).spawn().unwrap();
        let mut first = [0; 10];
        child.stdout.take().unwrap().read_exact(&mut first).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{form:?}: {}", text(&output.stderr));
        assert_eq!(text(&output.stderr), "", "{form:?}");
    }
}

#[test]
fn a_typed_question_is_put_to_a_server() {
    let csv = "#datatype,string,long,dateTime:RFC3339,double,string,string,string\r\n\
               #group,false,false,false,false,true,true,true\r\n\
               #default,_result,,,,,,\r\n\
               ,result,table,_time,_value,_field,_measurement,device_id\r\n\
               ,,0,2026-03-02T00:00:00Z,450.5,power_watts,energy,\"hvac\"\" or true\"\r\n\
               ,,0,2026-03-02T00:05:00Z,460,power_watts,energy,\"hvac\"\" or true\"\r\n\r\n";
    let server = Scripted::new(move |seen| match seen.path.as_str() {
        "/ping" => ping(ServerKind::InfluxDb2),
        "/api/v2/query" => Answer::of(200, csv),
        _ => Answer::of(404, "{}"),
    });
    let asks = |more: &[&str]| {
        let mut arguments = vec!["query", "--start", "2026-03-02", "--stop", "2026-03-03", "--csv"];
        arguments.extend_from_slice(more);
        said(&server, ORG, &arguments, "")
    };
    let (code, out, err) =
        asks(&["-m", "energy", "--field", "power_watts", "-t", "device_id=hvac\" or true"]);
    assert_eq!((code, err.as_str()), (0, ""));
    assert_eq!(
        out,
        "time,measurement,tags,field,value\n\
         2026-03-02T00:00:00Z,energy,\"device_id=hvac\"\" or true\",power_watts,450.5\n\
         2026-03-02T00:05:00Z,energy,\"device_id=hvac\"\" or true\",power_watts,460\n"
    );
    let asked = server.seen().into_iter().find(|seen| seen.path == "/api/v2/query").unwrap();
    let flux = asked.body["query"].as_str().unwrap();
    assert!(flux.contains(r#""hvac\" or true""#), "{flux}");
    for (more, says) in [
        (&["--field", "x"][..], "name the measurement with --measurement"),
        (&["-m", "energy", "-t", "a=~b"], "of a server, write KEY=VALUE"),
        (&["-m", "energy", "-t", "a!=b"], "of a server, write KEY=VALUE"),
        (&["-m", "energy", "-t", "=b"], "of a server, write KEY=VALUE"),
    ] {
        let (code, out, err) = asks(more);
        assert!(code == 1 && out.is_empty() && err.contains(says), "{more:?}: {err}");
    }
}

#[test]
fn what_an_earlier_write_left_for_another_bucket_goes_with_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let is_there = Arc::new(AtomicBool::new(false));
    let found = is_there.clone();
    let server = Scripted::new(move |seen| match (seen.path.as_str(), seen.value("bucket")) {
        ("/ping", _) => ping(ServerKind::InfluxDb2),
        (_, Some("attic")) if !found.load(Ordering::Relaxed) => {
            Answer::of(404, r#"{"code":"not found","message":"bucket \"attic\" not found"}"#)
        }
        _ => Answer::of(204, ""),
    });
    let write = |arguments: &[&str]| {
        let mut child =
            graylogic(&server.url(), "o", folder.path()).arg("write").args(arguments).spawn().unwrap();
        give(&mut child, "m f=1 1\n");
        let output = child.wait_with_output().unwrap();
        (output.status.code().unwrap(), text(&output.stdout).to_owned())
    };
    let kept =
        "1 line not delivered yet: pending in the spool ./graylogic-spool, and sent by the next write\n";
    assert_eq!(write(&["--bucket", "attic"]), (4, format!("0 lines delivered, 0 rejected\n{kept}")));
    // Nobody waits for a bucket that is still not there.
    assert_eq!(write(&[]), (4, format!("1 line delivered, 0 rejected\n{kept}")));
    is_there.store(true, Ordering::Relaxed);
    assert_eq!(write(&[]), (0, "2 lines delivered, 0 rejected\n".to_owned()));
}
