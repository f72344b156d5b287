//! Managing a target: our requests are those that were recorded with a real InfluxDB 2.8 and its answers are read right;
//! lists end, secrets are not shown, and what a target has not is an error that says so.
#![allow(clippy::unwrap_used, missing_docs, unreachable_pub)]

#[allow(dead_code, reason = "each test uses a part of it")]
mod replay;
#[allow(dead_code, reason = "each test uses a part of it")]
mod scripted;

use graylogic_influxdb::{
    Aggregate, AuthorizationUpdate, BucketUpdate, Client, Config, Downsampling, Error, HealthStatus, Manage,
    NewAuthorization, NewBucket, NewTask, Permission, Predicate, ServerKind, Setup, TaskUpdate, Timestamp,
};
use replay::{ORG, answered, asked, id, recorded};
use scripted::{Answer, Scripted, Seen};
use serde_json::{Value, json};
use std::fmt::Debug;
use std::time::Duration;

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

fn manage(server: &Scripted, org: &str) -> Manage {
    Manage::connect(&Config::remote(&server.url()).unwrap().with_token("my-token").with_org(org)).unwrap()
}

fn shown<T: Debug>(result: Result<T, Error>) -> Result<String, Error> {
    result.map(|value| format!("{value:?}"))
}

/// A call, the recorded step it must be, and what it says of the answer.
struct Case {
    at: (&'static str, usize),
    org: &'static str,
    /// What we ask otherwise, knowingly: an empty value means without it.
    but: &'static [(&'static str, &'static str)],
    call: fn(&Manage) -> Result<String, Error>,
    expected: Result<&'static [&'static str], (&'static str, &'static str)>,
}

fn check(case: &Case) {
    let (name, number) = case.at;
    let step = recorded(name, number);
    let mut expected = asked(&step);
    for (key, value) in case.but {
        expected.query.retain(|(k, _)| k != key);
        if !value.is_empty() {
            expected.query.push(((*key).to_owned(), (*value).to_owned()));
        }
    }
    expected.query.sort();
    let answer = answered(&step);
    let wanted = expected.clone();
    let server = Scripted::new(move |seen| {
        if seen.same(&wanted) {
            return answer.clone();
        }
        match (seen.method.as_str(), seen.path.as_str()) {
            ("GET", "/ping") => {
                Answer::of(204, "").with("X-Influxdb-Version: v2.8.0\r\nX-Influxdb-Build: OSS\r\n")
            }
            // What is made in an organisation names its ID.
            ("GET", "/api/v2/orgs") if seen.value("limit").is_none() => answered(&recorded("orgs/life", 2)),
            // The page after the last.
            ("GET", _) if seen.value("offset").is_some() || seen.value("after").is_some() => {
                Answer::of(200, r#"{"links":{},"buckets":[],"orgs":[],"tasks":[]}"#)
            }
            _ => Answer::of(400, r#"{"code":"invalid","message":"this was not recorded"}"#),
        }
    });
    let result = (case.call)(&manage(&server, case.org));
    let asked = server.seen();
    let found = asked.iter().filter(|seen| seen.same(&expected)).count();
    assert_eq!(found, 1, "{name}, step {number}: {expected:?} in {asked:?}");
    assert!(asked.iter().all(|seen| seen.authorization.as_deref() == Some("Token my-token")));
    match (&result, case.expected) {
        (Ok(text), Ok(parts)) => {
            for part in parts {
                assert!(text.contains(part), "{name}, step {number}: {part} in {text}");
            }
            assert!(!text.contains("a-very-secret"), "{text}");
        }
        (Err(error), Err((kind, message))) => {
            assert_eq!(
                (kind_of(error), error.to_string().as_str()),
                (kind, message),
                "{name}, step {number}"
            );
        }
        _ => panic!("{name}, step {number}: {result:?}"),
    }
}

fn kind_of(error: &Error) -> &'static str {
    [
        (error.is_unsupported(), "unsupported"),
        (error.is_not_found(), "not found"),
        (error.is_exists(), "exists"),
        (error.is_unauthorized(), "unauthorized"),
        (error.is_refused() && error.is_retryable(), "retryable"),
        (error.is_refused(), "refused"),
    ]
    .iter()
    .find_map(|(is, name)| is.then_some(*name))
    .unwrap_or("other")
}

/// The cases of one recording.
fn cases(recording: &'static str, org: &'static str, cases: &[CaseOf]) {
    for (step, but, call, expected) in cases {
        check(&Case { at: (recording, *step), org, but, call: *call, expected: *expected });
    }
}

type CaseOf = (
    usize,
    &'static [(&'static str, &'static str)],
    fn(&Manage) -> Result<String, Error>,
    Result<&'static [&'static str], (&'static str, &'static str)>,
);

fn one() -> String {
    id("id", "1")
}

fn bucket_b() -> String {
    id("bucket", "b")
}

#[test]
fn buckets_are_managed_as_recorded() {
    cases(
        "buckets/life",
        "my-org",
        &[
            (
                1,
                &[],
                |m| shown(m.create_bucket(&NewBucket::new("one").description("d"))),
                Ok(&[
                    r#"name: "one", org_id: Some("0a00000000000001"), description: Some("d")"#,
                    "retention: None, shard_group_duration: Some(604800s), is_system: false",
                    "created_at: Some(Timestamp(1767323045123456789))",
                ]),
            ),
            (
                3,
                &[],
                |m| shown(m.update_bucket(&one(), &BucketUpdate::new().name("two"))),
                Ok(&[r#"name: "two""#]),
            ),
            (
                4,
                &[],
                |m| shown(m.update_bucket(&one(), &BucketUpdate::new().description("e"))),
                Ok(&[r#"description: Some("e")"#]),
            ),
            (7, &[], |m| shown(m.update_bucket(&one(), &BucketUpdate::new())), Ok(&[r#"name: "two""#])),
            (8, &[], |m| shown(m.find_bucket("two")), Ok(&[r#"Some(Bucket {"#, r#"name: "two""#])),
            (9, &[], |m| shown(m.delete_bucket(&one())), Ok(&["()"])),
            (
                11,
                &[],
                |m| shown(m.delete_bucket(&one())),
                Err((
                    "not found",
                    "delete bucket \"0d00000000000031\": the server answered 404: bucket not found",
                )),
            ),
            (
                12,
                &[],
                |m| shown(m.update_bucket(&one(), &BucketUpdate::new().name("x"))),
                Err((
                    "not found",
                    "update bucket \"0d00000000000031\": the server answered 404: bucket not found",
                )),
            ),
        ],
    );
    let two: &[(&str, &str)] = &[("limit", "100")];
    cases(
        "buckets/listing",
        "my-org",
        &[
            (
                1,
                two,
                |m| shown(m.buckets()),
                Ok(&[
                    r#"name: "_monitoring""#,
                    "retention: Some(604800s), shard_group_duration: Some(86400s), is_system: true",
                ]),
            ),
            (5, &[], |m| shown(m.find_bucket("nope")), Ok(&["None"])),
        ],
    );
    cases(
        "buckets/listing",
        ORG,
        &[(4, &[], |m| shown(m.find_bucket("b2")), Ok(&["retention: Some(86400s)"]))],
    );
    cases(
        "buckets/listing",
        "",
        &[
            (6, &[], |m| shown(m.find_bucket("b2")), Ok(&["retention: Some(86400s)"])),
            (7, &[], |m| shown(m.find_bucket("nope")), Ok(&["None"])),
        ],
    );
    cases(
        "buckets/listing",
        "nobody",
        &[(
            14,
            two,
            |m| shown(m.buckets()),
            Err((
                "not found",
                "list buckets: the server answered 404: organization name \"nobody\" not found",
            )),
        )],
    );
    cases(
        "buckets/system-buckets",
        "my-org",
        &[
            (1, &[], |m| shown(m.find_bucket("_monitoring")), Ok(&["is_system: true"])),
            (
                3,
                &[],
                |m| shown(m.update_bucket(&one(), &BucketUpdate::new().name("x"))),
                Err((
                    "refused",
                    "update bucket \"0d00000000000031\": the server answered 400: system buckets cannot be renamed",
                )),
            ),
            (
                4,
                &[],
                |m| shown(m.delete_bucket(&one())),
                Err((
                    "refused",
                    "delete bucket \"0d00000000000031\": the server answered 400: system buckets cannot be deleted",
                )),
            ),
        ],
    );
}

#[test]
fn buckets_are_refused_as_recorded() {
    cases(
        "buckets/refused",
        "my-org",
        &[
            (
                1,
                &[],
                |m| shown(m.create_bucket(&NewBucket::new("b"))),
                Err((
                    "exists",
                    "create bucket \"b\": the server answered 422: bucket with name b already exists",
                )),
            ),
            (
                2,
                &[],
                |m| shown(m.create_bucket(&NewBucket::new("_x"))),
                Err((
                    "refused",
                    "create bucket \"_x\": the server answered 400: bucket name _x is invalid. Buckets may not start \
                     with underscore",
                )),
            ),
            (
                3,
                &[],
                |m| shown(m.create_bucket(&NewBucket::new("a\"b"))),
                Err((
                    "refused",
                    "create bucket \"a\\\"b\": the server answered 400: bucket name a\"b is invalid. Bucket names may \
                     not include quotation marks",
                )),
            ),
            (4, &[], |m| shown(m.create_bucket(&NewBucket::new(""))), Ok(&[r#"name: "", "#])),
            (6, &[], |m| shown(m.create_bucket(&NewBucket::new(" lead"))), Ok(&[r#"name: " lead""#])),
            (
                15,
                &[],
                |m| shown(m.update_bucket(&bucket_b(), &BucketUpdate::new().name("other"))),
                Err((
                    "exists",
                    "update bucket \"0e00000000000062\": the server answered 422: bucket name is not unique",
                )),
            ),
        ],
    );
    cases(
        "buckets/refused",
        "00000000000000aa",
        &[(
            9,
            &[],
            |m| shown(m.create_bucket(&NewBucket::new("x"))),
            Err(("not found", "create bucket \"x\": the server answered 404: organization not found")),
        )],
    );
    cases(
        "auth/read-only-token",
        "my-org",
        &[
            (
                10,
                &[],
                |m| shown(m.delete_bucket(&bucket_b())),
                Err((
                    "unauthorized",
                    "delete bucket \"0e00000000000062\": the server answered 401: \
                     write:orgs/0a00000000000001/buckets/0e00000000000062 is unauthorized; check influxdb.token and its \
                     rights",
                )),
            ),
            (
                9,
                &[],
                |m| {
                    let day = Timestamp::from_nanos(86_400_000_000_001);
                    shown(m.delete("b", &(Timestamp::from_nanos(0)..day), &Predicate::new()))
                },
                Err((
                    "unauthorized",
                    "delete from bucket \"b\": the server answered 403: insufficient permissions to delete; check \
                     influxdb.token and its rights",
                )),
            ),
        ],
    );
}

#[test]
fn retention_is_set_as_recorded() {
    cases(
        "buckets/retention",
        ORG,
        &[
            (
                3,
                &[],
                |m| shown(m.create_bucket(&NewBucket::new("r2").retention(HOUR))),
                Ok(&["retention: Some(3600s), shard_group_duration: Some(3600s)"]),
            ),
            // Neither 500 would pass by trying again.
            (
                4,
                &[],
                |m| shown(m.create_bucket(&NewBucket::new("r3").retention(Duration::from_secs(3599)))),
                Err((
                    "refused",
                    "create bucket \"r3\": the server answered 500: retention policy duration must be at least 1h0m0s",
                )),
            ),
            (
                12,
                &[],
                |m| {
                    shown(
                        m.create_bucket(&NewBucket::new("r11").retention(DAY).shard_group_duration(2 * DAY)),
                    )
                },
                Err((
                    "refused",
                    "create bucket \"r11\": the server answered 500: retention policy duration must be greater than the \
                     shard duration",
                )),
            ),
            (
                9,
                &[],
                |m| shown(m.create_bucket(&NewBucket::new("r8").retention(180 * DAY))),
                Ok(&["retention: Some(15552000s), shard_group_duration: Some(604800s)"]),
            ),
            (
                10,
                &[],
                |m| shown(m.create_bucket(&NewBucket::new("r9").retention(DAY).shard_group_duration(HOUR))),
                Ok(&["retention: Some(86400s), shard_group_duration: Some(3600s)"]),
            ),
            (
                13,
                &[],
                |m| shown(m.create_bucket(&NewBucket::new("r12").shard_group_duration(DAY))),
                Ok(&["retention: None, shard_group_duration: Some(86400s)"]),
            ),
        ],
    );
}

#[test]
fn a_retention_that_needs_other_shard_groups_gets_them() {
    let refusal = answered(&recorded("buckets/life", 5));
    let step = recorded("buckets/life", 5);
    let server =
        Scripted::new(move |seen| match &seen.body["retentionRules"][0]["shardGroupDurationSeconds"] {
            _ if seen.path == "/ping" => Answer::of(204, "").with("X-Influxdb-Version: v2.8.0\r\n"),
            Value::Null => refusal.clone(),
            _ => answered(&recorded("buckets/life", 3)),
        });
    let manage = manage(&server, "my-org");
    let update = BucketUpdate::new().retention(DAY);
    manage.update_bucket(&one(), &update).unwrap();
    let seen = server.seen();
    assert!(seen[1].same(&asked(&step)), "{seen:?}");
    let rule = json!([{"type": "expire", "everySeconds": 86400, "shardGroupDurationSeconds": 3600}]);
    assert_eq!(seen[2].body["retentionRules"], rule);
    // What the caller said is not changed.
    let own = BucketUpdate::new().retention(DAY).shard_group_duration(2 * DAY);
    manage.update_bucket(&one(), &own).unwrap();
    let own = json!([{"type": "expire", "everySeconds": 86400, "shardGroupDurationSeconds": 172_800}]);
    assert_eq!(server.seen()[3].body["retentionRules"], own);
}

#[test]
fn organisations_are_managed_as_recorded() {
    cases(
        "orgs/life",
        "my-org",
        &[
            (1, &[("limit", "100")], |m| shown(m.organizations()), Ok(&[r#"name: "my-org""#])),
            (
                2,
                &[],
                |m| shown(m.find_organization("my-org")),
                Ok(&[r#"Some(Organization { id: "0a00000000000001""#]),
            ),
            (3, &[], |m| shown(m.find_organization("nobody")), Ok(&["None"])),
            (6, &[], |m| shown(m.create_organization("second", "d")), Ok(&[r#"description: Some("d")"#])),
            (
                7,
                &[],
                |m| shown(m.create_organization("second", "")),
                Err((
                    "exists",
                    "create organisation \"second\": the server answered 422: organization with name second already \
                     exists",
                )),
            ),
            (
                8,
                &[],
                |m| shown(m.create_organization("", "")),
                Err(("refused", "create organisation \"\": the server answered 400: org name is empty")),
            ),
            (13, &[], |m| shown(m.delete_organization(&one())), Ok(&["()"])),
        ],
    );
}

#[test]
fn authorizations_are_managed_as_recorded() {
    cases(
        "authorizations/life",
        "my-org",
        &[
            (
                1,
                &[],
                |m| {
                    let may = [Permission::read_bucket(bucket_b()), Permission::write_bucket(bucket_b())];
                    let made = m.create_authorization(&NewAuthorization::new(may).description("d"))?;
                    assert_eq!(made.token.reveal(), "a-very-secret-token-1==");
                    shown(Ok(made))
                },
                Ok(&[
                    "is_active: true",
                    r#"user: Some("my-user")"#,
                    r#"Permission { action: Write, kind: "buckets", id: Some("0e00000000000062")"#,
                    "token: ***",
                ]),
            ),
            (
                4,
                &[],
                |m| shown(m.update_authorization(&one(), &AuthorizationUpdate::new().description("e"))),
                Ok(&[r#"description: Some("e")"#]),
            ),
            (6, &[], |m| shown(m.delete_authorization(&one())), Ok(&["()"])),
            (
                8,
                &[],
                |m| shown(m.delete_authorization(&one())),
                Err((
                    "not found",
                    "delete authorization \"0d00000000000031\": the server answered 404: authorization not found",
                )),
            ),
        ],
    );
    cases(
        "authorizations/life",
        ORG,
        &[(
            3,
            &[("userID", "")],
            |m| shown(m.authorizations()),
            Ok(&[
                r#"description: Some("my-user's Token")"#,
                r#"action: Read, kind: "authorizations", id: None"#,
            ]),
        )],
    );
    cases(
        "authorizations/refused",
        ORG,
        &[(
            2,
            &[],
            |m| shown(m.create_authorization(&NewAuthorization::new([]))),
            Err((
                "refused",
                "create an authorization: the server answered 400: authorization must include permissions",
            )),
        )],
    );
    cases(
        "authorizations/refused",
        "00000000000000aa",
        &[(
            7,
            &[],
            |m| {
                let may = [Permission::read_bucket(bucket_b()).of_organization(ORG)];
                shown(m.create_authorization(&NewAuthorization::new(may)))
            },
            Err((
                "refused",
                "create an authorization: the server answered 400: permission \
                 read:orgs/0a00000000000001/buckets/0e00000000000062 is not for org id 00000000000000aa",
            )),
        )],
    );
    cases(
        "auth/inactive-and-revoked",
        "my-org",
        &[
            (
                2,
                &[],
                |m| shown(m.update_authorization(&one(), &AuthorizationUpdate::new().active(false))),
                Ok(&["is_active: false"]),
            ),
            (
                4,
                &[],
                |m| shown(m.update_authorization(&one(), &AuthorizationUpdate::new().active(true))),
                Ok(&["is_active: true"]),
            ),
        ],
    );
}

const FLUX: &str = "option task = {name: \"t\", every: 1h, offset: 10m}\n\nfrom(bucket: \"b\") |> range(start: -1h) |> mean() \
                    |> to(bucket: \"b2\")";

#[test]
fn tasks_are_managed_as_recorded() {
    let limit: &[(&str, &str)] = &[("limit", "100")];
    cases(
        "tasks/life",
        ORG,
        &[
            (
                1,
                &[],
                |m| shown(m.create_task(&NewTask::new(FLUX).description("d").inactive())),
                Ok(&[r#"name: "t""#, "is_active: false", r#"every: Some("1h")"#, r#"offset: Some("10m")"#]),
            ),
            (3, limit, |m| shown(m.find_tasks("t")), Ok(&[r#"[Task {"#, r#"name: "t""#])),
            (
                7,
                &[],
                |m| shown(m.update_task(&one(), &TaskUpdate::new().every("2h"))),
                Ok(&[r#"every: Some("2h")"#, "every: 2h, offset: 10m"]),
            ),
            (
                8,
                &[],
                |m| shown(m.update_task(&one(), &TaskUpdate::new().cron("0 * * * *"))),
                Ok(&[r#"every: None, cron: Some("0 * * * *")"#]),
            ),
            (9, &[], |m| shown(m.update_task(&one(), &TaskUpdate::new().name("u"))), Ok(&[r#"name: "u""#])),
            (10, &[], |m| shown(m.task_runs(&one())), Ok(&["[]"])),
            (12, &[], |m| shown(m.delete_task(&one())), Ok(&["()"])),
        ],
    );
    cases(
        "tasks/life",
        "nobody",
        &[(
            4,
            limit,
            |m| shown(m.tasks()),
            Err((
                "refused",
                "list tasks: the server answered 400: failed to decode request: organization name \"nobody\" not found",
            )),
        )],
    );
    cases(
        "tasks/refused",
        ORG,
        &[
            (
                2,
                &[],
                |m| shown(m.create_task(&NewTask::new(""))),
                Err((
                    "refused",
                    "create a task: the server answered 400: failed to decode request: missing flux",
                )),
            ),
            (
                3,
                &[],
                |m| shown(m.create_task(&NewTask::new("from("))),
                Err((
                    "refused",
                    "create a task: the server answered 400: invalid options: loc 1:1-1:6: expected RPAREN, got EOF",
                )),
            ),
            (
                4,
                &[],
                |m| shown(m.create_task(&NewTask::new("from(bucket: \"b\") |> range(start: -1h)"))),
                Err((
                    "refused",
                    "create a task: the server answered 400: invalid options: no task options defined",
                )),
            ),
        ],
    );
    cases(
        "tasks/refused",
        "nobody",
        &[(
            12,
            &[],
            |m| shown(m.create_task(&NewTask::new(FLUX.replace(", offset: 10m", "")))),
            Err((
                "not found",
                "create a task: the server answered 404: could not identify organization: organization name \"nobody\" \
                 not found",
            )),
        )],
    );
}

fn range(start_seconds: i64, last_seconds: i64) -> std::ops::Range<Timestamp> {
    let time = |seconds: i64| seconds * 1_000_000_000;
    Timestamp::from_nanos(time(start_seconds))..Timestamp::from_nanos(time(last_seconds) + 1)
}

#[test]
fn readings_are_deleted_as_recorded() {
    cases(
        "delete/range",
        "my-org",
        &[
            (2, &[], |m| shown(m.delete("b", &range(2, 3), &Predicate::new())), Ok(&["()"])),
            (7, &[], |m| shown(m.delete("b", &range(0, 3600), &Predicate::new())), Ok(&["()"])),
        ],
    );
    fn with(m: &Manage, predicate: &Predicate) -> Result<String, Error> {
        shown(m.delete("b", &range(0, 3600), predicate))
    }
    cases(
        "delete/predicates",
        "my-org",
        &[
            (47, &[], |m| with(m, &Predicate::new().tag("r", "a")), Ok(&["()"])),
            (50, &[], |m| with(m, &Predicate::new().measurement("n")), Ok(&["()"])),
            (5, &[], |m| with(m, &Predicate::raw("_measurement=\"m\" and r=\"b\"")), Ok(&["()"])),
            (20, &[], |m| with(m, &Predicate::raw("r != \"a\"")), Ok(&["()"])),
            (
                14,
                &[],
                |m| with(m, &Predicate::raw("r=\"a\" OR r=\"b\"")),
                Err((
                    "refused",
                    "delete from bucket \"b\": the server answered 400: error decoding json body: the logical operator \
                     OR is not supported yet at position 6",
                )),
            ),
            (
                41,
                &[],
                |m| with(m, &Predicate::raw("(r=\"a\"")),
                Err((
                    "refused",
                    "delete from bucket \"b\": the server answered 400: error decoding json body: extra ( seen",
                )),
            ),
            (
                59,
                &[],
                |m| with(m, &Predicate::raw("_measurement=\"m\" AND _field=\"f\"")),
                Err((
                    "refused",
                    "delete from bucket \"b\": the server answered 501: delete by field is not supported",
                )),
            ),
        ],
    );
    cases(
        "delete/refusals",
        "my-org",
        &[(
            8,
            &[],
            |m| shown(m.delete("nope", &range(0, 3600), &Predicate::new())),
            Err((
                "not found",
                "delete from bucket \"nope\": the server answered 404: bucket \"nope\" not found",
            )),
        )],
    );
    cases(
        "delete/refusals",
        ORG,
        &[(13, &[], |m| shown(m.delete(&bucket_b(), &range(0, 3600), &Predicate::new())), Ok(&["()"]))],
    );
}

#[test]
fn deleting_may_take_longer_than_a_usual_request() {
    let hurried = |server: &Scripted| {
        let config = Config::remote(&server.url()).unwrap().with_org("my-org");
        // A usual request has 250 ms then.
        Manage::connect(&config.with_hurry(1000)).unwrap()
    };
    let slow = |kind: ServerKind| {
        Scripted::new(move |seen| {
            if seen.path == "/ping" {
                return scripted::ping(kind);
            }
            let statement = seen.value("q").unwrap_or_default();
            if statement.starts_with("SHOW") {
                let policy = r#"["autogen","0s","168h0m0s",1,true]"#;
                return Answer::of(
                    200,
                    &format!(
                        r#"{{"results":[{{"series":[{{"columns":["name","duration","shardGroupDuration","replicaN","default"],"values":[{policy}]}}]}}]}}"#
                    ),
                );
            }
            std::thread::sleep(Duration::from_millis(2000));
            match kind {
                ServerKind::InfluxDb1 => Answer::of(200, r#"{"results":[{"statement_id":0}]}"#),
                _ => Answer::of(204, ""),
            }
        })
    };
    let all = Timestamp::MIN..Timestamp::MAX;
    for kind in [ServerKind::InfluxDb1, ServerKind::InfluxDb2, ServerKind::VictoriaMetrics] {
        let server = slow(kind);
        let m = hurried(&server);
        m.delete("b", &all, &Predicate::new()).unwrap();
        if kind != ServerKind::VictoriaMetrics {
            m.delete_bucket(&bucket_b()).unwrap();
        }
        if kind == ServerKind::InfluxDb2 {
            m.delete_organization(ORG).unwrap();
            assert!(m.buckets().unwrap_err().is_connection_failed());
        }
    }
}

#[test]
fn a_success_that_says_that_it_is_none_is_none() {
    for (body, words) in [
        (r#"{"code":"internal error","message":"not now"}"#, "answered 200: not now"),
        (r#"{"error":"not now"}"#, "answered 200: not now"),
        // Not everybody says that it is a page, and these are short or have letters of two bytes.
        ("<html>é", "with a web page"),
        ("<html><body>éé", "with a web page"),
    ] {
        let body = body.to_owned();
        let server = Scripted::new(move |seen| match seen.path.as_str() {
            "/ping" => scripted::ping(ServerKind::InfluxDb2),
            _ => Answer::of(200, &body),
        });
        let m = manage(&server, "my-org");
        for error in [
            m.delete_bucket(&bucket_b()).unwrap_err(),
            m.delete("b", &range(0, 1), &Predicate::new()).unwrap_err(),
            m.buckets().unwrap_err(),
        ] {
            assert!(error.is_refused() && error.to_string().contains(words), "{error}");
        }
    }
}

#[test]
fn what_is_no_id_is_in_no_path() {
    type Call = fn(&Manage, &str) -> Result<String, Error>;
    let calls: [Call; 9] = [
        |m, id| shown(m.delete_bucket(id)),
        |m, id| shown(m.update_bucket(id, &BucketUpdate::new().name("x"))),
        |m, id| shown(m.delete_organization(id)),
        |m, id| shown(m.delete_authorization(id)),
        |m, id| shown(m.update_authorization(id, &AuthorizationUpdate::new().active(false))),
        |m, id| shown(m.delete_task(id)),
        |m, id| shown(m.update_task(id, &TaskUpdate::new().active(false))),
        |m, id| shown(m.run_task(id)),
        |m, id| shown(m.task_runs(id)),
    ];
    let server = Scripted::new(|seen| match seen.path.as_str() {
        "/ping" => scripted::ping(ServerKind::InfluxDb2),
        _ => Answer::of(204, ""),
    });
    let m = manage(&server, "my-org");
    for call in calls {
        // What a path of these means is another place.
        for id in ["", ".", ".."] {
            let error = call(&m, id).unwrap_err();
            assert!(error.is_not_found() && error.to_string().contains("no ID"), "{error}");
        }
    }
    assert!(server.seen().iter().all(|seen| seen.path == "/ping"), "{:?}", server.seen());
}

#[test]
fn what_an_organisation_may_do_names_it_by_its_id() {
    let server = Scripted::new(|seen| match seen.path.as_str() {
        "/ping" => scripted::ping(ServerKind::InfluxDb2),
        _ => answered(&recorded("authorizations/life", 1)),
    });
    let may = [
        Permission::read("orgs"),
        Permission::write("orgs").of_organization("0a00000000000002"),
        Permission::read("buckets"),
    ];
    manage(&server, ORG).create_authorization(&NewAuthorization::new(may)).unwrap();
    let resources: Vec<Value> = server.seen().last().unwrap().body["permissions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|p| p["resource"].clone())
        .collect();
    // An organisation is in none: as the server writes what an owner may do.
    assert_eq!(
        resources,
        [
            json!({ "type": "orgs", "id": ORG }),
            json!({ "type": "orgs", "id": "0a00000000000002" }),
            json!({ "type": "buckets", "orgID": ORG }),
        ]
    );
}

#[test]
fn readings_of_a_bucket_whose_name_looks_like_an_id_are_deleted() {
    const NAME: &str = "00000000000000ab";
    let server = Scripted::new(|seen| match (seen.method.as_str(), seen.path.as_str()) {
        (_, "/ping") => scripted::ping(ServerKind::InfluxDb2),
        ("GET", "/api/v2/buckets") if seen.value("name") == Some(NAME) => Answer::of(
            200,
            &json!({ "buckets": [{ "id": bucket_b(), "name": NAME, "retentionRules": [] }] }).to_string(),
        ),
        ("GET", _) => Answer::of(404, r#"{"code":"not found","message":"bucket \"x\" not found"}"#),
        // It takes the name for an ID.
        _ if seen.value("bucket").is_some() => {
            Answer::of(404, r#"{"code":"not found","message":"bucket not found"}"#)
        }
        _ => Answer::of(204, ""),
    });
    let m = manage(&server, "my-org");
    m.delete(NAME, &range(0, 3600), &Predicate::new()).unwrap();
    let asked = server.seen();
    let last = asked.last().unwrap();
    assert_eq!((last.value("bucketID"), last.value("bucket")), (Some(bucket_b().as_str()), None));
    for absent in ["00000000000000ac", "x"] {
        assert!(m.delete(absent, &range(0, 3600), &Predicate::new()).unwrap_err().is_not_found());
    }
}

#[test]
fn what_a_predicate_cannot_say_deletes_nothing_and_is_no_success() {
    for kind in [ServerKind::InfluxDb1, ServerKind::InfluxDb2] {
        let server = only(kind);
        let fails = |predicate: Predicate, words: &str| {
            let error = manage(&server, "my-org").delete("b", &range(0, 1), &predicate).unwrap_err();
            assert!(error.is_unsupported() && error.to_string().contains(words), "{kind}: {error}");
        };
        // The reader of both takes a carriage return for a line end.
        fails(Predicate::new().tag("k", "a\rb"), "carriage return");
        fails(Predicate::new().tag_not("a\0b", "v"), "null character");
        fails(Predicate::new().measurement("m\r"), "carriage return");
        if kind == ServerKind::InfluxDb2 {
            // As recorded: `q=""` deletes nothing where no series has the tag.
            fails(Predicate::new().tag("q", ""), "without a tag");
        }
    }
}

#[test]
fn a_range_without_an_end_has_none() {
    let server = Scripted::new(|seen| match seen.path.as_str() {
        "/ping" => scripted::ping(ServerKind::InfluxDb2),
        _ => Answer::of(204, ""),
    });
    let m = manage(&server, "my-org");
    let whole = [
        Timestamp::MIN..Timestamp::MAX,
        Timestamp::from_nanos(i64::MIN)..Timestamp::from_nanos(i64::MAX),
        Timestamp::from_nanos(0)..Timestamp::from_nanos(1),
        // Nothing: the server would take the bounds for what is between them.
        Timestamp::from_nanos(5)..Timestamp::from_nanos(5),
        Timestamp::from_nanos(5)..Timestamp::from_nanos(4),
    ];
    whole.iter().for_each(|range| m.delete("b", range, &Predicate::new()).unwrap());
    let (first, last) = ("1677-09-21T00:12:43.145224194Z", "2262-04-11T23:47:16.854775806Z");
    let epoch = "1970-01-01T00:00:00Z";
    let asked: Vec<Value> = server.seen().into_iter().skip(1).map(|seen| seen.body).collect();
    let range = |start: &str, stop: &str| json!({ "start": start, "stop": stop });
    assert_eq!(asked, [range(first, last), range(first, last), range(epoch, epoch)]);
}

#[test]
fn a_fresh_server_is_set_up_as_recorded() {
    fn setup() -> Setup {
        Setup::new("u", "o", "b").password("long-enough")
    }
    cases(
        "setup/first-time",
        "my-org",
        &[
            (1, &[], |m| shown(m.is_setup_allowed()), Ok(&["true"])),
            (6, &[], |m| shown(m.is_setup_allowed()), Ok(&["false"])),
            (
                5,
                &[],
                |m| {
                    let setup = setup().retention(2 * HOUR).token("chosen");
                    assert!(
                        !format!("{setup:?}").contains("chosen")
                            && !format!("{setup:?}").contains("long-enough")
                    );
                    let done = m.setup(&setup)?;
                    assert_eq!(done.token.reveal(), "chosen");
                    assert_eq!(done.bucket.retention, Some(2 * HOUR));
                    shown(Ok(done))
                },
                Ok(&[r#"organization: Organization { id: "#, r#"name: "o""#, "token: ***"]),
            ),
            (
                7,
                &[],
                |m| shown(m.setup(&setup())),
                Err((
                    "exists",
                    "set up the server: the server answered 422: onboarding has already been completed; it was set up before: \
                     sign in to it, or use a token that it knows",
                )),
            ),
        ],
    );
}

#[test]
fn what_would_lock_a_fresh_server_is_rejected_before_it_is_asked() {
    let server = Scripted::new(|_| Answer::of(500, ""));
    let m = manage(&server, "my-org");
    let hour = |n: u64| Duration::from_secs(3600 * n);
    let good = || Setup::new("u", "o", "b").password("long-enough");
    let long = "x".repeat(73);
    for (setup, says) in [
        (
            good().retention(Duration::from_secs(1800)),
            "the retention is 1800s; an InfluxDB 2 keeps readings for an hour",
        ),
        (good().retention(Duration::from_secs(3599)), "an hour at least"),
        (good().retention(Duration::from_millis(3_600_500)), "give whole seconds"),
        (good().retention(hour(2_562_048)), "292 years at most"),
        (good().password("short"), "the password has 5 bytes; give 8 to 72"),
        (good().password(&*long), "the password has 73 bytes"),
        (good().token("two words"), "no request can carry"),
        (good().token("line\nfeed"), "no request can carry"),
        (Setup::new("", "o", "b"), "the name of the user is empty"),
        (Setup::new("u", " ", "b"), "the name of the organization is empty"),
        (Setup::new("u", "o", ""), "the name of the bucket is empty"),
        (Setup::new("u", "0123456789abcdef", "b"), "is taken for an ID"),
        (Setup::new("u", "o", "_b"), "begins with _"),
        (Setup::new("u", "o", "a\"b"), "has a quotation mark"),
        (Setup::new("u", "o", "a\tb"), "has a control character"),
    ] {
        let error = m.setup(&setup).unwrap_err();
        let text = error.to_string();
        assert!(
            error.is_refused() && text.starts_with("set up the server: ") && text.contains(says),
            "{text}"
        );
        assert!(!text.contains("short") && !text.contains(&long) && !text.contains("two words"), "{text}");
    }
    assert_eq!(server.seen(), [], "nothing was sent");
}

#[test]
fn a_set_up_that_failed_says_what_state_the_server_is_in() {
    let check = |after: Answer, says: &str| {
        let server = Scripted::new(move |seen| match (seen.method.as_str(), seen.path.as_str()) {
            ("POST", "/api/v2/setup") => {
                Answer::of(500, r#"{"code":"internal error","message":"disk full"}"#)
            }
            ("GET", "/api/v2/setup") => after.clone(),
            _ => scripted::ping(ServerKind::InfluxDb2),
        });
        // The shortest retention there is, and none.
        for retention in [Some(HOUR), Some(Duration::ZERO), None] {
            let setup = Setup::new("u", "my org", "b").password("long-enough").retention(retention);
            let error = manage(&server, "my-org").setup(&setup).unwrap_err().to_string();
            assert!(error.starts_with("set up the server: the server answered 500: disk full; "), "{error}");
            assert!(error.contains(says), "{error}");
        }
    };
    check(Answer::of(200, r#"{"allowed":true}"#), "nothing was set up");
    let closed = Answer::of(200, r#"{"allowed":false}"#);
    check(closed.clone(), "it has closed its set-up all the same");
    check(closed, "influxd recovery auth create-operator --username \"u\" --org \"my org\"");
    check(Answer::of(503, ""), "is not known");
}

#[test]
fn health_is_told_as_recorded() {
    cases(
        "system/health-ready",
        "my-org",
        &[
            (
                1,
                &[],
                |m| shown(m.health()),
                Ok(&[
                    r#"status: Pass, message: "ready for queries and writes", version: Some("2.8.0"), kind: Some(InfluxDb2)"#,
                ]),
            ),
            (4, &[], |m| shown(m.ready()), Ok(&["true"])),
        ],
    );
}

/// A server of InfluxDB 2 that keeps so many buckets, and gives pages of them as it is told to.
fn listing(pages: impl Fn(usize) -> (Vec<usize>, bool) + Send + Sync + 'static) -> Scripted {
    Scripted::new(move |seen| {
        if seen.path == "/ping" {
            return Answer::of(204, "").with("X-Influxdb-Version: v2.8.0\r\n");
        }
        assert_eq!(seen.value("limit"), Some("100"));
        let offset = seen.value("offset").map_or(0, |o| o.parse().unwrap());
        let (buckets, next) = pages(offset);
        let bucket =
            |n: &usize| json!({ "id": format!("{n:016x}"), "name": format!("b{n}"), "retentionRules": [] });
        let buckets: Vec<Value> = buckets.iter().map(bucket).collect();
        let links = if next { json!({ "next": "/api/v2/buckets?offset=7" }) } else { json!({}) };
        Answer::of(200, &json!({ "links": links, "buckets": buckets }).to_string())
    })
}

#[test]
fn all_pages_of_a_list_are_read_and_no_list_is_endless() {
    let check = |server: &Scripted, expected: usize, requests: usize| {
        let found = manage(server, "my-org").buckets().unwrap();
        let mut names: Vec<_> = found.iter().map(|b| &b.name).collect();
        names.sort();
        names.dedup();
        assert_eq!((names.len(), found.len()), (expected, expected));
        assert_eq!(server.seen().iter().filter(|s| s.path == "/api/v2/buckets").count(), requests);
    };
    // Three pages; the last is not full.
    let all = |offset: usize| ((offset..(offset + 100).min(250)).collect(), offset < 200);
    check(&listing(all), 250, 4);
    // A limited token sees some of each page, and sometimes none, and no word of a next but where the page is full.
    let some = |offset: usize| {
        let page = offset..(offset + 100).min(300);
        (page.filter(|n| n % 7 == 0).collect(), false)
    };
    check(&listing(some), 43, 4);
    let gap = |offset: usize| match offset {
        0 => (vec![0], true),
        100 => (vec![], true),
        200 => (vec![200], false),
        _ => (vec![], false),
    };
    check(&listing(gap), 2, 4);
    // A token that sees nothing of the first pages.
    check(&listing(|offset| (if offset == 300 { vec![342] } else { vec![] }, false)), 1, 5);
    // One that sees nothing at all.
    check(&listing(|_| (vec![], false)), 0, 10);
    // A server that does not know `offset`, and says that there is more.
    check(&listing(|_| ((0..100).collect(), true)), 100, 2);
    // One that always has more, of nothing.
    let endless = listing(|_| (vec![], true));
    let error = manage(&endless, "my-org").buckets().unwrap_err();
    assert!(error.is_refused() && error.to_string().contains("more than 1000 pages"), "{error}");
    assert_eq!(endless.seen().len(), 1001);
}

#[test]
fn the_organisation_is_found_by_its_buckets_when_the_token_may_not_see_it() {
    let buckets = answered(&recorded("buckets/life", 8));
    let made = answered(&recorded("buckets/life", 1));
    let server = Scripted::new(move |seen| match (seen.method.as_str(), seen.path.as_str()) {
        (_, "/ping") => Answer::of(204, "").with("X-Influxdb-Version: v2.8.0\r\n"),
        (_, "/api/v2/orgs") => Answer::of(200, r#"{"links":{},"orgs":[]}"#),
        ("GET", "/api/v2/buckets") if seen.value("org") == Some("my-org") => buckets.clone(),
        ("GET", "/api/v2/buckets") => Answer::of(200, r#"{"links":{},"buckets":[]}"#),
        _ => made.clone(),
    });
    manage(&server, "my-org").create_bucket(&NewBucket::new("one")).unwrap();
    assert_eq!(server.seen().last().unwrap().body["orgID"], ORG);
    let error = manage(&server, "other").create_bucket(&NewBucket::new("one")).unwrap_err();
    assert!(error.is_unauthorized() && error.to_string().contains("its ID as influxdb.org"), "{error}");
    let error = manage(&server, "").create_bucket(&NewBucket::new("one")).unwrap_err();
    assert!(error.is_invalid_config() && error.to_string().contains("give influxdb.org"), "{error}");
}

/// A server that shows what it is, and answers nothing else.
fn only(kind: ServerKind) -> Scripted {
    Scripted::new(move |seen| match seen.path.as_str() {
        "/ping" => scripted::ping(kind),
        _ => Answer::of(500, "nobody should ask"),
    })
}

#[test]
fn what_a_target_has_not_is_an_error_that_says_so() {
    type Call = fn(&Manage) -> Result<String, Error>;
    let organisations: [Call; 4] = [
        |m| shown(m.organizations()),
        |m| shown(m.find_organization("x")),
        |m| shown(m.create_organization("x", "")),
        |m| shown(m.delete_organization("x")),
    ];
    let tokens: [Call; 4] = [
        |m| shown(m.authorizations()),
        |m| shown(m.create_authorization(&NewAuthorization::new([]))),
        |m| shown(m.update_authorization("x", &AuthorizationUpdate::new())),
        |m| shown(m.delete_authorization("x")),
    ];
    let tasks: [Call; 7] = [
        |m| shown(m.tasks()),
        |m| shown(m.find_tasks("x")),
        |m| shown(m.create_task(&NewTask::new("x"))),
        |m| shown(m.update_task("x", &TaskUpdate::new().active(true))),
        |m| shown(m.delete_task("x")),
        |m| shown(m.run_task("x")),
        |m| shown(m.task_runs("x")),
    ];
    let setting_up: [Call; 2] =
        [|m| shown(m.is_setup_allowed()), |m| shown(m.setup(&Setup::new("u", "o", "b")))];
    let check = |m: &Manage, name: &str, calls: &[Call], lacks: &str| {
        for call in calls {
            let error = call(m).unwrap_err();
            let says = format!(": {name} {lacks}: not supported here");
            assert!(
                error.is_unsupported() && !error.is_retryable() && error.to_string().ends_with(&says),
                "{error}"
            );
        }
    };
    let folder = tempfile::tempdir().unwrap();
    let embedded = Manage::connect(&Config::embedded(folder.path())).unwrap();
    let (one, three, vm) =
        (only(ServerKind::InfluxDb1), only(ServerKind::InfluxDb3), only(ServerKind::VictoriaMetrics));
    for (m, name) in [
        (&embedded, "the embedded store"),
        (&manage(&one, "o"), "InfluxDB 1"),
        (&manage(&three, "o"), "InfluxDB 3"),
        (&manage(&vm, "o"), "VictoriaMetrics"),
    ] {
        check(m, name, &organisations, "has no organisations");
        check(m, name, &tokens, "has no tokens that can be managed through it");
        check(m, name, &tasks, "has no tasks");
        check(m, name, &setting_up, "needs no setting up");
        let words = "does not read the words of InfluxDB 2";
        check(m, name, &[|m| shown(m.delete("b", &range(0, 1), &Predicate::raw("r=a")))], words);
    }
    let buckets: [Call; 5] = [
        |m| shown(m.buckets()),
        |m| shown(m.find_bucket("x")),
        |m| shown(m.create_bucket(&NewBucket::new("x"))),
        |m| shown(m.update_bucket("x", &BucketUpdate::new())),
        |m| shown(m.delete_bucket("x")),
    ];
    let flag = "keeps no buckets, and its retention is its flag -retentionPeriod";
    check(&manage(&vm, "o"), "VictoriaMetrics", &buckets, flag);
    let series = "deletes whole series only, whatever their times: give no beginning and no end";
    check(
        &manage(&vm, "o"),
        "VictoriaMetrics",
        &[|m| shown(m.delete("b", &range(0, 1), &Predicate::new()))],
        series,
    );
    let whole = "deletes whole tables and databases, and by its retention";
    check(
        &manage(&three, "o"),
        "InfluxDB 3",
        &[|m| shown(m.delete("b", &range(0, 1), &Predicate::new()))],
        whole,
    );
    for (server, name) in [(&one, "InfluxDB 1"), (&three, "InfluxDB 3")] {
        let field = "does not delete by field";
        let call: Call = |m| shown(m.delete("b", &range(0, 1), &Predicate::new().field("f")));
        check(&manage(server, "o"), name, &[call], field);
    }
    // Nothing was asked for that could have done something.
    for server in [&one, &three, &vm] {
        assert!(server.seen().iter().all(|s| s.path == "/ping"));
    }
}

#[test]
fn victoria_metrics_deletes_whole_series() {
    let server = Scripted::new(|seen| match seen.path.as_str() {
        "/ping" => scripted::ping(ServerKind::VictoriaMetrics),
        "/health" => Answer::of(200, "OK"),
        _ => Answer::of(204, ""),
    });
    let m = manage(&server, "o");
    let all = Timestamp::MIN..Timestamp::MAX;
    m.delete("house", &all, &Predicate::new().measurement("energy").field("watts").tag("room-1", "a\"b"))
        .unwrap();
    let seen = server.seen();
    let last = seen.last().unwrap();
    assert_eq!((last.method.as_str(), last.path.as_str()), ("POST", "/api/v1/admin/tsdb/delete_series"));
    assert_eq!(
        last.value("match[]"),
        Some(r#"{db="house",__name__="energy_watts",_measurement=~"energy|",room\-1="a\"b"}"#)
    );
    // A measurement alone would mean others that begin so.
    let error = m.delete("house", &all, &Predicate::new().measurement("energy")).unwrap_err();
    assert!(error.is_unsupported() && error.to_string().contains("give both, or neither"), "{error}");
    let health = m.health().unwrap();
    assert_eq!((health.status, health.message.as_str(), health.version), (HealthStatus::Pass, "OK", None));
    assert!(m.ready().unwrap());
}

#[test]
fn databases_of_influxdb_3_are_its_buckets() {
    let server = Scripted::new(|seen| match (seen.method.as_str(), seen.path.as_str()) {
        (_, "/ping") => scripted::ping(ServerKind::InfluxDb3),
        ("GET", "/api/v3/configure/database") if seen.value("format") == Some("json") => {
            Answer::of(200, r#"[{"iox::database":"_internal"},{"iox::database":"house"}]"#)
        }
        ("POST", "/api/v3/query_sql") if seen.body["db"] == "_internal" => {
            Answer::of(200, r#"[{"database_name":"house","retention_period_ns":86400000000000}]"#)
        }
        ("POST", "/api/v3/configure/database") if seen.body["db"] == "taken" => {
            Answer::of(409, r#"{"error":"resource already exists"}"#)
        }
        ("DELETE", _) if seen.value("db") == Some("nope") => Answer::of(404, r#"{"error":"not found"}"#),
        _ => Answer::of(200, ""),
    });
    let m = manage(&server, "o");
    let all = m.buckets().unwrap();
    let told: Vec<_> = all.iter().map(|b| (b.name.as_str(), b.retention, b.is_system)).collect();
    assert_eq!(told, [("_internal", None, true), ("house", Some(DAY), false)]);
    assert_eq!(m.find_bucket("nope").unwrap(), None);

    let last = |method: &str, body: Value| {
        let seen = server.seen();
        let found = seen.iter().rfind(|s| s.path == "/api/v3/configure/database" && s.method == method);
        assert_eq!(found.unwrap().body, body);
        assert_eq!(found.unwrap().authorization.as_deref(), Some("Bearer my-token"));
    };
    assert_eq!(m.create_bucket(&NewBucket::new("new").retention(HOUR)).unwrap().retention, Some(HOUR));
    last("POST", json!({ "db": "new", "retention_period": "3600s" }));
    assert_eq!(m.update_bucket("house", &BucketUpdate::new().retention(None)).unwrap().retention, None);
    last("PUT", json!({ "db": "house", "retention_period": null }));
    m.delete_bucket("house").unwrap();
    assert_eq!(server.seen().last().unwrap().value("db"), Some("house"));
    assert!(m.create_bucket(&NewBucket::new("taken")).unwrap_err().is_exists());
    assert!(m.delete_bucket("nope").unwrap_err().is_not_found());
    for refused in [
        m.create_bucket(&NewBucket::new("x").description("d")),
        m.create_bucket(&NewBucket::new("x").shard_group_duration(DAY)),
        m.update_bucket("x", &BucketUpdate::new().name("y")),
    ] {
        assert!(refused.unwrap_err().is_unsupported());
    }
}

/// InfluxDB 1, which answers as 1.6 does; `house` has two policies, `flat` one.
fn influxdb1() -> Scripted {
    Scripted::new(|seen| {
        if seen.path == "/ping" {
            return scripted::ping(ServerKind::InfluxDb1);
        }
        let statement = seen.value("q").unwrap_or_default();
        let columns = json!(["name", "duration", "shardGroupDuration", "replicaN", "default"]);
        let autogen = json!(["autogen", "0s", "168h0m0s", 1, true]);
        let result = match statement {
            "SHOW DATABASES" => {
                json!({ "series": [{ "columns": ["name"], "values": [["house"], ["_internal"], ["flat"]] }] })
            }
            r#"SHOW RETENTION POLICIES ON "house""# => json!({ "series": [{ "columns": columns, "values":
                [autogen, ["week", "168h0m0s", "24h0m0s", 1, false]] }] }),
            r#"SHOW RETENTION POLICIES ON "flat""# | r#"SHOW RETENTION POLICIES ON "_internal""# => {
                json!({ "series": [{ "columns": columns, "values": [autogen] }] })
            }
            text if text.starts_with("SHOW") => json!({ "error": "database not found: nope" }),
            text if text.ends_with("DURATION 3600s")
                && text.starts_with("ALTER")
                && !text.contains("SHARD") =>
            {
                json!({ "error": "retention policy duration must be greater than the shard duration" })
            }
            text if text.contains("DURATION 60s") => {
                json!({ "error": "retention policy duration must be at least 1h0m0s" })
            }
            _ => json!({ "statement_id": 0 }),
        };
        Answer::of(200, &json!({ "results": [result] }).to_string())
    })
}

#[test]
fn databases_and_retention_policies_of_influxdb_1_are_its_buckets() {
    let server = influxdb1();
    let m = manage(&server, "o");
    let all = m.buckets().unwrap();
    let told: Vec<_> = all.iter().map(|b| (b.name.as_str(), b.retention, b.is_system)).collect();
    let week = Some(7 * DAY);
    assert_eq!(
        told,
        [
            ("house", None, false),
            ("house/week", week, false),
            ("_internal", None, true),
            ("flat", None, false)
        ]
    );
    assert_eq!(m.find_bucket("house/week").unwrap().unwrap().retention, week);
    assert_eq!(m.find_bucket("house/autogen").unwrap().unwrap().name, "house/autogen");
    assert_eq!(m.find_bucket("house/nope").unwrap(), None);
    assert_eq!(m.find_bucket("nope").unwrap(), None);

    let said = |statements: &[&str]| {
        let seen = server.seen();
        let all: Vec<_> =
            seen.iter().filter_map(|s| s.value("q")).filter(|q| !q.starts_with("SHOW")).collect();
        assert!(all.ends_with(statements), "{all:?}");
        assert!(seen.iter().all(|s| s.path == "/ping" || s.method == "POST"));
        let is_shown =
            |s: &&Seen| s.path == "/query" && s.authorization.as_deref() == Some("Bearer my-token");
        assert_eq!(seen.iter().filter(is_shown).count(), seen.iter().filter(|s| s.path == "/query").count());
    };
    m.update_bucket("house/week", &BucketUpdate::new().retention(30 * DAY)).unwrap();
    said(&[r#"ALTER RETENTION POLICY "week" ON "house" DURATION 2592000s"#]);
    m.update_bucket("house/week", &BucketUpdate::new().retention(HOUR)).unwrap();
    said(&[
        r#"ALTER RETENTION POLICY "week" ON "house" DURATION 3600s"#,
        r#"ALTER RETENTION POLICY "week" ON "house" DURATION 3600s SHARD DURATION 3600s"#,
    ]);
    m.update_bucket("flat", &BucketUpdate::new().retention(None)).unwrap();
    said(&[r#"ALTER RETENTION POLICY "autogen" ON "flat" DURATION INF"#]);
    m.delete_bucket("house/week").unwrap();
    said(&[r#"DROP RETENTION POLICY "week" ON "house""#]);
    m.delete_bucket("flat").unwrap();
    said(&[r#"DROP DATABASE "flat""#]);
    m.delete("flat", &range(1, 2), &Predicate::new().measurement("m").tag("r", "a'b")).unwrap();
    said(&[r#"DELETE FROM "m" WHERE time >= 1000000000 AND time < 2000000001 AND "r" = 'a\'b'"#]);
    assert_eq!(server.seen().last().unwrap().value("db"), Some("flat"));
    // It would delete in the other policy too.
    let error = m.delete("house", &range(1, 2), &Predicate::new()).unwrap_err();
    assert!(error.is_unsupported() && error.to_string().contains("this one has others"), "{error}");

    for (error, kind, says) in [
        (
            m.create_bucket(&NewBucket::new("house")).unwrap_err(),
            "exists",
            "create bucket \"house\": there is one",
        ),
        (
            m.create_bucket(&NewBucket::new("house/week")).unwrap_err(),
            "exists",
            "there is one with this name",
        ),
        (
            m.delete_bucket("nope").unwrap_err(),
            "not found",
            "delete bucket \"nope\": the server answered: database",
        ),
        (m.delete_bucket("house/nope").unwrap_err(), "not found", "has no retention policy \"nope\""),
        (
            m.update_bucket("flat", &BucketUpdate::new().retention(Duration::from_secs(60))).unwrap_err(),
            "refused",
            "update bucket \"flat\": the server answered: retention policy duration must be at least 1h0m0s",
        ),
        (
            m.update_bucket("flat", &BucketUpdate::new().retention(Duration::from_millis(1))).unwrap_err(),
            "refused",
            "the retention is 1ms; give whole seconds",
        ),
        (m.update_bucket("flat", &BucketUpdate::new().name("x")).unwrap_err(), "unsupported", "other names"),
        (
            m.create_bucket(&NewBucket::new("x").description("d")).unwrap_err(),
            "unsupported",
            "has no descriptions of databases",
        ),
    ] {
        assert_eq!(kind_of(&error), kind, "{error}");
        assert!(error.to_string().contains(says), "{error}");
    }
}

#[test]
fn databases_are_made_with_what_they_keep() {
    // A server that has what it was told to make.
    let made = std::sync::Mutex::new(Vec::<String>::new());
    let server = Scripted::new(move |seen| {
        if seen.path == "/ping" {
            return scripted::ping(ServerKind::InfluxDb1);
        }
        let statement = seen.value("q").unwrap().to_owned();
        let mut made = made.lock().unwrap();
        let result = if statement.starts_with("SHOW RETENTION") {
            let db = statement.rsplit(' ').next().unwrap();
            let columns = json!(["name", "duration", "shardGroupDuration", "replicaN", "default"]);
            let mut rows = vec![];
            if made.iter().any(|s| s.starts_with(&format!("CREATE DATABASE {db}"))) {
                rows.push(json!(["autogen", "2h0m0s", "1h0m0s", 1, true]));
            }
            if made.iter().any(|s| s.starts_with(&format!("CREATE RETENTION POLICY \"w\" ON {db} "))) {
                rows.push(json!(["w", "168h0m0s", "24h0m0s", 1, false]));
            }
            match rows.is_empty() {
                true => json!({ "error": "database not found: x" }),
                false => json!({ "series": [{ "columns": columns, "values": rows }] }),
            }
        } else {
            made.push(statement);
            json!({ "statement_id": 0 })
        };
        Answer::of(200, &json!({ "results": [result] }).to_string())
    });
    let m = manage(&server, "o");
    m.create_bucket(&NewBucket::new("a")).unwrap();
    m.create_bucket(&NewBucket::new("b\"").retention(2 * HOUR).shard_group_duration(HOUR)).unwrap();
    m.create_bucket(&NewBucket::new("c/w").retention(7 * DAY)).unwrap();
    m.create_bucket(&NewBucket::new("a/w").shard_group_duration(DAY)).unwrap();
    let seen = server.seen();
    let made: Vec<_> = seen.iter().filter_map(|s| s.value("q")).filter(|q| !q.starts_with("SHOW")).collect();
    assert_eq!(
        made,
        [
            r#"CREATE DATABASE "a""#,
            r#"CREATE DATABASE "b\"" WITH DURATION 7200s SHARD DURATION 3600s"#,
            r#"CREATE DATABASE "c""#,
            r#"CREATE RETENTION POLICY "w" ON "c" DURATION 604800s REPLICATION 1"#,
            r#"CREATE RETENTION POLICY "w" ON "a" DURATION INF REPLICATION 1 SHARD DURATION 86400s"#,
        ]
    );
}

#[test]
fn the_embedded_store_is_managed() {
    let folder = tempfile::tempdir().unwrap();
    let config = Config::embedded(folder.path()).with_any_time(true);
    let client = Client::connect(&config).unwrap();
    let m = client.manage();
    let made = m.create_bucket(&NewBucket::new("hours").retention(DAY)).unwrap();
    assert_eq!((made.name.as_str(), made.retention), ("hours", Some(DAY)));
    assert!(m.create_bucket(&NewBucket::new("hours")).unwrap_err().is_exists());
    let changed = m.update_bucket(&made.id, &BucketUpdate::new().name("days").retention(None)).unwrap();
    assert_eq!((changed.id, changed.name.as_str(), changed.retention), (made.id.clone(), "days", None));
    // The store is open once: through the client.
    assert!(Manage::connect(&config).unwrap_err().is_connection_failed());
    let names: Vec<String> = m.buckets().unwrap().into_iter().map(|b| b.name).collect();
    assert_eq!(names, ["metrics", "days"]);
    // One that cannot keep what it was asked to is not made.
    let error = m.create_bucket(&NewBucket::new("x").retention(Duration::from_secs(1))).unwrap_err();
    assert!(error.is_refused() && error.to_string().contains("give at least an hour"), "{error}");
    assert_eq!(m.find_bucket("x").unwrap(), None);

    let time = |seconds: i64| Timestamp::from_nanos(seconds * 1_000_000_000);
    for second in 1..=3 {
        client.write_energy_metric_at("a", 1.0, None, time(second)).unwrap();
        client.write_energy_metric_at("b", 1.0, None, time(second)).unwrap();
    }
    client.flush(graylogic_influxdb::Level::Durable, DAY).unwrap();
    // What is at the end stays.
    let boiler = Predicate::new().measurement("energy").field("power_watts").tag("device_id", "a");
    m.delete("metrics", &(time(1)..time(3)), &boiler).unwrap();
    m.delete("metrics", &(time(1)..time(3)), &Predicate::new().measurement("other")).unwrap();
    m.delete("metrics", &(time(3)..time(9)), &Predicate::new().tag_not("device_id", "a")).unwrap();
    let count = |device: &str| {
        let tags = [("device_id", device)];
        let all =
            client.query_range("energy", &tags, "power_watts", time(0), time(100), DAY, Aggregate::Count);
        all.unwrap().iter().flat_map(|s| &s.values).map(|v| v.1.as_f64().unwrap()).sum::<f64>()
    };
    assert_eq!((count("a"), count("b")), (1.0, 2.0));
    assert!(m.delete("nope", &range(0, 1), &Predicate::new()).unwrap_err().is_not_found());

    let health = m.health().unwrap();
    assert_eq!((health.status, health.kind), (HealthStatus::Pass, None));
    assert!(m.ready().unwrap() && m.version().unwrap().is_some());
    m.delete_bucket(&made.id).unwrap();
    assert!(m.delete_bucket(&made.id).unwrap_err().is_not_found());
    client.close(DAY).unwrap();
    assert!(m.buckets().unwrap_err().is_not_connected());
    assert!(m.create_bucket(&NewBucket::new("late")).unwrap_err().is_not_connected());
}

#[test]
fn both_forms_work_inside_and_outside_of_any_runtime() {
    let kept = listing(|offset| (if offset == 0 { vec![1] } else { vec![] }, false));
    let folder = tempfile::tempdir().unwrap();
    let store = Manage::connect(&Config::embedded(folder.path())).unwrap();
    store.create_bucket(&NewBucket::new("b1")).unwrap();
    for m in [manage(&kept, "my-org"), store] {
        let check = |found: Result<Vec<graylogic_influxdb::Bucket>, Error>| {
            assert_eq!(found.unwrap().iter().map(|b| b.name.as_str()).collect::<Vec<_>>(), ["b1"]);
        };
        check(m.buckets());
        let alone = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let many = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
        for runtime in [alone, many] {
            runtime.block_on(async {
                check(m.buckets());
                check(m.buckets_async().await);
                let clone = m.clone();
                tokio::spawn(async move { clone.buckets_async().await.unwrap() }).await.unwrap();
            });
            // It outlives a runtime that it was used on.
            drop(runtime);
            check(m.buckets());
        }
        // And is dropped on one.
        let last = tokio::runtime::Builder::new_current_thread().build().unwrap();
        last.block_on(async move { drop(m) });
    }
}

#[test]
fn a_server_that_does_not_answer_is_an_error_that_may_pass() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", nobody.local_addr().unwrap());
    drop(nobody);
    let m = Manage::connect(&Config::remote(&url).unwrap()).unwrap();
    let error = m.buckets().unwrap_err();
    assert!(error.is_connection_failed() && error.is_retryable(), "{error}");
    assert!(error.to_string().starts_with("list buckets: connect to http://127.0.0.1:"), "{error}");
    assert!(m.health().unwrap_err().is_connection_failed());

    let ill = Scripted::new(|seen| match seen.path.as_str() {
        "/ping" => scripted::ping(ServerKind::InfluxDb2),
        "/health" => Answer::of(503, r#"{"status":"fail","message":"the disk is full"}"#),
        "/ready" => Answer::of(503, ""),
        "/api/v2/orgs" => Answer::of(200, "<html>welcome</html>").with("Content-Type: text/html\r\n"),
        "/api/v2/authorizations" => Answer::of(200, "{}"),
        _ => Answer::of(503, r#"{"code":"unavailable","message":"later"}"#),
    });
    let m = manage(&ill, "my-org");
    let health = m.health().unwrap();
    assert_eq!((health.status, health.message.as_str()), (HealthStatus::Fail, "the disk is full"));
    assert!(!m.ready().unwrap());
    let error = m.buckets().unwrap_err();
    assert!(error.is_refused() && error.is_retryable(), "{error}");
    assert_eq!(error.to_string(), "list buckets: the server answered 503: later");
    let error = m.organizations().unwrap_err();
    assert!(error.to_string().contains("with a web page: it is no InfluxDB; check influxdb.url"), "{error}");
    let error = m.authorizations().unwrap_err();
    assert!(error.to_string().contains("is not understood; check influxdb.url and influxdb.kind"), "{error}");
}

#[test]
fn no_error_repeats_a_secret() {
    // A server that says all it was told.
    let parrot = Scripted::new(|seen| match seen.path.as_str() {
        "/ping" => scripted::ping(ServerKind::InfluxDb2),
        _ => {
            let said = format!("{} {:?}", seen.body, seen.authorization);
            Answer::of(400, &json!({ "code": "invalid", "message": said }).to_string())
        }
    });
    let m = manage(&parrot, "my-org");
    let setup = Setup::new("u", "o", "b").password("pass-of-mine").token("token-of-mine");
    for error in [m.setup(&setup).unwrap_err(), m.buckets().unwrap_err()] {
        let text = format!("{error} {error:?}");
        for secret in ["pass-of-mine", "token-of-mine", "my-token"] {
            assert!(!text.contains(secret), "{text}");
        }
        assert!(text.contains("Token ***"), "{text}");
    }
    assert!(!format!("{m:?}").contains("my-token"));
}

#[test]
fn a_down_sampling_task_is_flux_that_nothing_in_it_changes() {
    let task = Downsampling::new("hour\"ly ${x}", "raw", "hours\\", HOUR)
        .measurement("en\"ergy")
        .aggregates(&[Aggregate::Mean, Aggregate::Max, Aggregate::Mean])
        .offset(Duration::from_secs(90))
        .task()
        .unwrap();
    let server = Scripted::new(|seen| match seen.path.as_str() {
        "/ping" => scripted::ping(ServerKind::InfluxDb2),
        _ => answered(&recorded("tasks/life", 1)),
    });
    manage(&server, "my-org").create_task(&task).unwrap();
    let sent = &server.seen()[1].body;
    assert_eq!(sent["org"], "my-org");
    let expected = r#"import "types"

option task = {name: "hour\"ly \x24{x}", every: 1h, offset: 1m30s}

every = 3600000000000
stop = int(v: now()) / every * every

numbers = from(bucket: "raw")
    |> range(start: time(v: stop - every), stop: time(v: stop))
    |> filter(fn: (r) => r._measurement == "en\"ergy")
    |> filter(fn: (r) => types.isType(v: r._value, type: "float") or types.isType(v: r._value, type: "int") or types.isType(v: r._value, type: "uint"))

numbers
    |> aggregateWindow(every: 1h, fn: mean, createEmpty: false, timeSrc: "_start")
    |> map(fn: (r) => ({r with _field: r._field + "_mean"}))
    |> to(bucket: "hours\\")
    |> yield(name: "mean")

numbers
    |> aggregateWindow(every: 1h, fn: max, createEmpty: false, timeSrc: "_start")
    |> map(fn: (r) => ({r with _field: r._field + "_max"}))
    |> to(bucket: "hours\\")
    |> yield(name: "max")
"#;
    assert_eq!(sent["flux"], expected);
}

/// A client of a server that has no bucket until somebody makes it; whether that may be.
fn missing_bucket(kind: ServerKind, may: bool) -> Scripted {
    let made = std::sync::atomic::AtomicBool::new(false);
    use std::sync::atomic::Ordering::Relaxed;
    Scripted::new(move |seen| {
        let statement = seen.value("q").unwrap_or_default();
        match seen.path.as_str() {
            "/ping" => scripted::ping(kind),
            "/write" | "/api/v2/write" if made.load(Relaxed) => Answer::of(204, ""),
            "/write" => Answer::of(404, r#"{"error":"database not found: \"house\""}"#),
            "/api/v2/write" => {
                Answer::of(404, r#"{"code":"not found","message":"bucket \"house\" not found"}"#)
            }
            "/api/v2/orgs" => answered(&recorded("orgs/life", 2)),
            "/api/v2/buckets" if !may => {
                Answer::of(401, r#"{"code":"unauthorized","message":"write:orgs/x/buckets is unauthorized"}"#)
            }
            "/api/v2/buckets" => {
                made.store(true, Relaxed);
                answered(&recorded("buckets/life", 1))
            }
            "/query" if statement.starts_with("CREATE") => {
                made.store(true, Relaxed);
                Answer::of(200, r#"{"results":[{"statement_id":0}]}"#)
            }
            "/query" if made.load(Relaxed) => Answer::of(
                200,
                r#"{"results":[{"series":[{"columns":["name","duration","shardGroupDuration","replicaN","default"],"values":[["autogen","0s","168h0m0s",1,true]]}]}]}"#,
            ),
            "/query" => Answer::of(200, r#"{"results":[{"error":"database not found: house"}]}"#),
            _ => Answer::of(404, ""),
        }
    })
}

#[test]
fn a_bucket_that_is_missing_is_made_where_that_is_allowed() {
    let connect = |server: &Scripted, creates| {
        let config =
            Config::remote(&server.url()).unwrap().with_spool(None).with_bucket("house").with_org("my-org");
        let config = config.with_quick_batches(1, Duration::from_millis(1)).with_hurry(100);
        Client::connect(&config.with_create_buckets(creates)).unwrap()
    };
    let asks = |server: &Scripted, path: &str| server.seen().iter().filter(|s| s.path == path).count();
    for (kind, path) in [(ServerKind::InfluxDb1, "/query"), (ServerKind::InfluxDb2, "/api/v2/buckets")] {
        let server = missing_bucket(kind, true);
        let client = connect(&server, true);
        client.write_device_metric("a", "level", 1.0).unwrap();
        client.flush(graylogic_influxdb::Level::Delivered, Duration::from_secs(60)).unwrap();
        assert!(asks(&server, path) > 0);
        let report = client.close(Duration::from_secs(60)).unwrap();
        assert_eq!((report.delivered, report.rejected), (1, 0));
    }
    // Whoever must connect strictly has it before the first reading.
    let server = missing_bucket(ServerKind::InfluxDb2, true);
    let strict =
        Config::remote(&server.url()).unwrap().with_spool(None).with_bucket("house").with_org("my-org");
    let strict = strict.with_connect_strict(true);
    let error = Client::connect(&strict).unwrap_err().to_string();
    assert!(error.contains("has no bucket \"house\""), "{error}");
    let client = Client::connect(&strict.clone().with_create_buckets(true)).unwrap();
    assert_eq!(asks(&server, "/api/v2/buckets"), 1);
    client.close(Duration::from_secs(60)).unwrap();
    let server = missing_bucket(ServerKind::InfluxDb2, false);
    let strict =
        Config::remote(&server.url()).unwrap().with_spool(None).with_bucket("house").with_org("my-org");
    let strict = strict.with_connect_strict(true).with_create_buckets(true);
    let error = Client::connect(&strict).unwrap_err().to_string();
    assert!(error.contains("; and it could not be made: create bucket \"house\""), "{error}");

    // Not allowed by the configuration, or by the server: it waits, and says why.
    for (creates, says) in [
        (false, "the server answered 404: bucket \"house\" not found"),
        (
            true,
            "the server answered 404: bucket \"house\" not found; and it could not be made: create bucket \"house\": the \
             server answered 401: write:orgs/x/buckets is unauthorized",
        ),
    ] {
        let server = missing_bucket(ServerKind::InfluxDb2, false);
        let client = connect(&server, creates);
        client.write_device_metric("a", "level", 1.0).unwrap();
        let until = std::time::Instant::now() + Duration::from_secs(60);
        while client.stats().trouble.is_none() && std::time::Instant::now() < until {
            std::thread::sleep(Duration::from_millis(1));
        }
        let trouble = client.stats().trouble.unwrap_or_default();
        assert!(trouble.starts_with(says), "{trouble}");
        assert_eq!(client.stats().health, graylogic_influxdb::Health::Held("bucket".to_owned()));
        assert_eq!(asks(&server, "/api/v2/buckets") > 0, creates);
        client.close(Duration::ZERO).unwrap();
    }
}

#[test]
fn a_bucket_that_does_not_show_after_it_was_made_is_waited_for() {
    let made = answered(&recorded("buckets/life", 1));
    let server = Scripted::new(move |seen| match seen.path.as_str() {
        "/ping" => scripted::ping(ServerKind::InfluxDb2),
        "/api/v2/orgs" => answered(&recorded("orgs/life", 2)),
        "/api/v2/buckets" => made.clone(),
        _ => Answer::of(404, r#"{"code":"not found","message":"bucket \"house\" not found"}"#),
    });
    let config =
        Config::remote(&server.url()).unwrap().with_spool(None).with_bucket("house").with_org("my-org");
    let config =
        config.with_quick_batches(1, Duration::from_millis(1)).with_hurry(1000).with_create_buckets(true);
    let client = Client::connect(&config).unwrap();
    client.write_device_metric("a", "level", 1.0).unwrap();
    let count = |path: &str| server.seen().iter().filter(|seen| seen.path == path).count();
    let until = std::time::Instant::now() + Duration::from_secs(60);
    while count("/api/v2/write") < 7 && std::time::Instant::now() < until {
        std::thread::sleep(Duration::from_millis(1));
    }
    client.close(Duration::ZERO).unwrap();
    let (writes, buckets) = (count("/api/v2/write"), count("/api/v2/buckets"));
    // Each time it was made, it was tried at once and then after a pause.
    assert!(writes >= 7 && (3..=writes / 2 + 1).contains(&buckets), "{writes} writes, {buckets} buckets");
}
