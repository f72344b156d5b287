//! Setting up a fresh InfluxDB 2.

use super::authorization::{CreatedAuthorization, Token};
use super::bucket::Bucket;
use super::organization::Organization;
use super::server::{Managed, seconds, text};
use crate::error::Error;
use crate::secret::Secret;
use crate::server::exchange::{Method, Request};
use serde_json::{Value, json};
use std::time::Duration;

const LACKS: &str = "needs no setting up";

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

    /// How long the bucket keeps its readings; `None`: for ever.
    #[must_use]
    pub fn retention(mut self, retention: impl Into<Option<Duration>>) -> Self {
        self.retention = retention.into();
        self
    }

    /// The token that may do everything; without one, the server makes it.
    #[must_use]
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.token = Secret(token.into());
        self
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
    let doing = "ask whether the server may be set up";
    let server = target.influxdb2(doing, LACKS).await?;
    let read = |answer: &Value| answer["allowed"].as_bool();
    server.thing(doing, Request::get("api/v2/setup"), read).await
}

pub(super) async fn setup(target: Managed, setup: Setup) -> Result<SetupResult, Error> {
    let doing = "set up the server";
    let server = target.influxdb2(doing, LACKS).await?.hiding([setup.password.clone(), setup.token.clone()]);
    let mut body = json!({ "username": setup.username, "org": setup.org, "bucket": setup.bucket });
    if let Some(retention) = setup.retention {
        body["retentionPeriodSeconds"] = seconds(doing, "the retention", retention)?.into();
    }
    for (key, secret) in [("password", setup.password), ("token", setup.token)] {
        if !secret.0.is_empty() {
            body[key] = secret.0.into();
        }
    }
    server.thing(doing, Request::json(Method::POST, "api/v2/setup", &body), SetupResult::read).await
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
