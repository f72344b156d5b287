//! Setting up a fresh InfluxDB 2.

use super::authorization::{CreatedAuthorization, Token};
use super::bucket::Bucket;
use super::organization::Organization;
use super::server::{Managed, Server, is_id, seconds, text};
use crate::error::{Error, Kind};
use crate::secret::Secret;
use crate::server::exchange::{Method, Request};
use serde_json::{Value, json};
use std::ops::RangeInclusive;
use std::time::Duration;

const ASKING: &str = "ask whether the server may be set up";
const LACKS: &str = "needs no setting up";
/// Times that an InfluxDB 2 keeps readings for.
const RETENTION_SECONDS: RangeInclusive<u64> = 3600..=9_223_372_036;
/// What it takes for a password.
const PASSWORD_BYTES: RangeInclusive<usize> = 8..=72;

/// What a fresh server is set up with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setup {
    username: String,
    password: Secret,
    org: String,
    bucket: String,
    retention: Option<Duration>,
    token: Secret,
}

impl Setup {
    /// With this first user, organisation and bucket.
    #[must_use]
    pub fn new(username: impl Into<String>, org: impl Into<String>, bucket: impl Into<String>) -> Self {
        Self {
            username: username.into(),
            password: Secret::default(),
            org: org.into(),
            bucket: bucket.into(),
            retention: None,
            token: Secret::default(),
        }
    }

    /// The user's password, of 8 to 72 characters; without one, nobody can sign in by it.
    #[must_use]
    pub fn password(mut self, password: impl Into<String>) -> Self {
        self.password = Secret(password.into());
        self
    }

    /// How long the bucket keeps its readings, an hour at least; `None` and zero: indefinitely.
    #[must_use]
    pub fn retention(mut self, retention: impl Into<Option<Duration>>) -> Self {
        self.retention = retention.into().filter(|time| !time.is_zero());
        self
    }

    /// The token that may do everything; without one, the server makes it.
    #[must_use]
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.token = Secret(token.into());
        self
    }

    /// Rejects what a server would reject after it has closed its set-up: InfluxDB 2 creates the user and the organization
    /// before it looks at the bucket, and is locked when it does not like that.
    fn check(&self, doing: &str) -> Result<(), Error> {
        let wrong = |why: String| Err(Error::new(Kind::Refused, format!("{doing}: {why}")));
        for (what, name) in [("user", &self.username), ("organization", &self.org), ("bucket", &self.bucket)]
        {
            if name.trim().is_empty() {
                return wrong(format!("the name of the {what} is empty; give one"));
            }
            if name.chars().any(char::is_control) {
                return wrong(format!(
                    "the name of the {what}, {name:?}, has a control character in it; leave it out"
                ));
            }
        }
        if is_id(&self.org) {
            let why = "is taken for an ID wherever the organization is named; give another name";
            return wrong(format!("the name of the organization, {:?}, {why}", self.org));
        }
        if self.bucket.starts_with('_') {
            return wrong(format!(
                "the name of the bucket, {:?}, begins with _, as the server's own do; give another",
                self.bucket
            ));
        }
        if self.bucket.contains('"') {
            return wrong(format!(
                "the name of the bucket, {:?}, has a quotation mark in it; give another",
                self.bucket
            ));
        }
        if let Some(retention) = self.retention {
            let seconds = seconds(doing, "the retention", retention)?;
            if !RETENTION_SECONDS.contains(&seconds) {
                let why = "an InfluxDB 2 keeps readings for an hour at least, and for 292 years at most, or indefinitely";
                return wrong(format!("the retention is {retention:?}; {why}"));
            }
        }
        let password = &self.password.0;
        if !password.is_empty() && !PASSWORD_BYTES.contains(&password.len()) {
            let (least, most) = (PASSWORD_BYTES.start(), PASSWORD_BYTES.end());
            return wrong(format!("the password has {} bytes; give {least} to {most}", password.len()));
        }
        if !self.token.0.bytes().all(|b| b.is_ascii_graphic()) {
            return wrong("the token has a space or another character in it that no request can carry; give letters, digits, - and _".to_owned());
        }
        Ok(())
    }
}

/// What a server was set up with.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SetupResult {
    /// The ID of the user.
    pub user_id: String,
    /// The organisation.
    pub organization: Organization,
    /// The bucket.
    pub bucket: Bucket,
    /// The token that may do everything.
    pub token: Token,
}

pub(super) async fn is_allowed(target: Managed) -> Result<bool, Error> {
    let server = target.influxdb2(ASKING, LACKS).await?;
    server.thing(ASKING, Request::get("api/v2/setup"), allowed).await
}

pub(super) async fn setup(target: Managed, setup: Setup) -> Result<SetupResult, Error> {
    let doing = "set up the server";
    setup.check(doing)?;
    let server = target.influxdb2(doing, LACKS).await?.hiding([setup.password.clone(), setup.token.clone()]);
    let (user, org) = (setup.username.clone(), setup.org.clone());
    let mut body = json!({ "username": setup.username, "org": setup.org, "bucket": setup.bucket });
    if let Some(retention) = setup.retention {
        body["retentionPeriodSeconds"] = seconds(doing, "the retention", retention)?.into();
    }
    for (key, secret) in [("password", setup.password), ("token", setup.token)] {
        if !secret.0.is_empty() {
            body[key] = secret.0.into();
        }
    }
    let request = Request::json(Method::POST, "api/v2/setup", &body);
    match server.thing(doing, request, SetupResult::read).await {
        Err(error) if !error.is_not_connected() => Err(left_in(&server, error, &user, &org).await),
        done => done,
    }
}

/// A failed set-up, with the state that it left the server in and what to do about it.
async fn left_in(server: &Server, error: Error, user: &str, org: &str) -> Error {
    if error.is_exists() {
        let state = "it was set up before: sign in to it, or use a token that it knows";
        return error.reworded(|message| format!("{message}; {state}"));
    }
    let state = match server.thing(ASKING, Request::get("api/v2/setup"), allowed).await {
        Ok(true) => "nothing was set up: correct that and set the server up again".to_owned(),
        Ok(false) => format!(
            "it has closed its set-up all the same, and may lack the bucket or a token: if it holds no data yet, stop it, delete \
             its data and set it up again; else stop it and run `influxd recovery auth create-operator --username {user:?} \
             --org {org:?}` on its machine, which prints a token"
        ),
        Err(_) => "whether it was set up is not known: it does not say so at present".to_owned(),
    };
    error.reworded(|message| format!("{message}; {state}"))
}

fn allowed(answer: &Value) -> Option<bool> {
    answer["allowed"].as_bool()
}

impl SetupResult {
    fn read(object: &Value) -> Option<Self> {
        Some(Self {
            user_id: text(&object["user"], "id")?,
            organization: Organization::read(&object["org"])?,
            bucket: Bucket::read(&object["bucket"])?,
            token: CreatedAuthorization::read(&object["auth"])?.token,
        })
    }
}
