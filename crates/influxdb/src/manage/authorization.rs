//! Authorizations of InfluxDB 2: what a token may do. The token itself is read once, when it is made.

use super::server::{Managed, path, text, time};
use crate::error::Error;
use crate::secret::Secret;
use crate::server::exchange::{Method, Request};
use graylogic_line::Timestamp;
use serde_json::{Map, Value, json};
use std::fmt;

const LACKS: &str = "has no tokens that can be managed through it";

/// What a token may do, without the token.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Authorization {
    /// What the calls name it by.
    pub id: String,
    /// Whether its token is good for anything at present.
    pub is_active: bool,
    /// What somebody wrote of it.
    pub description: Option<String>,
    /// The organisation it is in.
    pub org_id: Option<String>,
    /// The name of the user whose it is.
    pub user: Option<String>,
    /// What it may do.
    pub permissions: Vec<Permission>,
    /// When it was made, if the server tells.
    pub created_at: Option<Timestamp>,
    /// When it was changed last, if the server tells.
    pub updated_at: Option<Timestamp>,
}

/// An authorization that was just made.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CreatedAuthorization {
    /// What the token may do.
    pub authorization: Authorization,
    /// The token. The server may never show it again.
    pub token: Token,
}

/// A token, which is shown only to who asks for it by [`Token::reveal`]: neither as text nor for debugging.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Token(pub(super) Secret);

impl Token {
    /// The token itself, for a configuration.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

/// What may be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Action {
    /// Reading, listing, asking.
    Read,
    /// Writing, making, changing, deleting.
    Write,
}

/// One thing that a token may do.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Permission {
    action: Action,
    kind: String,
    id: Option<String>,
    org_id: Option<String>,
}

impl Permission {
    /// Reading all things of a kind, as `buckets`, `tasks`; of `orgs`, the organisation itself.
    #[must_use]
    pub fn read(kind: impl Into<String>) -> Self {
        Self { action: Action::Read, kind: kind.into(), id: None, org_id: None }
    }

    /// Writing all things of a kind, as [`Permission::read`] has them.
    #[must_use]
    pub fn write(kind: impl Into<String>) -> Self {
        Self { action: Action::Write, ..Self::read(kind) }
    }

    /// Reading a bucket, which is named by its [`Bucket::id`](crate::Bucket::id).
    #[must_use]
    pub fn read_bucket(id: impl Into<String>) -> Self {
        Self { id: Some(id.into()), ..Self::read("buckets") }
    }

    /// Writing to a bucket, which is named by its [`Bucket::id`](crate::Bucket::id).
    #[must_use]
    pub fn write_bucket(id: impl Into<String>) -> Self {
        Self { id: Some(id.into()), ..Self::write("buckets") }
    }

    /// Only in this organisation; without it, in the configured one.
    #[must_use]
    pub fn of_organization(mut self, id: impl Into<String>) -> Self {
        self.org_id = Some(id.into());
        self
    }

    /// What may be done.
    #[must_use]
    pub fn action(&self) -> Action {
        self.action
    }

    /// The kind of things it may be done to, as `buckets`.
    #[must_use]
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// The one thing it may be done to; `None`: all of its kind.
    #[must_use]
    pub fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// The organisation it is for; `None`: all.
    #[must_use]
    pub fn org_id(&self) -> Option<&str> {
        self.org_id.as_deref()
    }

    fn of(object: &Value) -> Option<Self> {
        let resource = &object["resource"];
        Some(Self {
            action: match object["action"].as_str()? {
                "read" => Action::Read,
                "write" => Action::Write,
                _ => return None,
            },
            kind: text(resource, "type")?,
            id: text(resource, "id"),
            org_id: text(resource, "orgID"),
        })
    }

    fn json(&self, org_id: &str) -> Value {
        let org_id = self.org_id.as_deref().unwrap_or(org_id);
        let mut resource = json!({ "type": self.kind });
        // An organisation is in none: what may be done to it names it by its ID, or is for nothing.
        let (id, org_id) = match self.kind == "orgs" {
            true => (Some(self.id.as_deref().unwrap_or(org_id)), None),
            false => (self.id.as_deref(), Some(org_id)),
        };
        for (key, id) in [("id", id), ("orgID", org_id)] {
            if let Some(id) = id {
                resource[key] = id.into();
            }
        }
        let action = match self.action {
            Action::Read => "read",
            Action::Write => "write",
        };
        json!({ "action": action, "resource": resource })
    }
}

/// An authorization that is to be made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewAuthorization {
    permissions: Vec<Permission>,
    description: Option<String>,
    is_inactive: bool,
}

impl NewAuthorization {
    /// May do these things.
    #[must_use]
    pub fn new(permissions: impl IntoIterator<Item = Permission>) -> Self {
        Self { permissions: permissions.into_iter().collect(), ..Self::default() }
    }

    /// What it is for.
    #[must_use]
    pub fn description(mut self, description: impl Into<String>) -> Self {
        self.description = Some(description.into());
        self
    }

    /// Good for nothing until it is made active.
    #[must_use]
    pub fn inactive(mut self) -> Self {
        self.is_inactive = true;
        self
    }
}

/// What is to be changed of an authorization; all else stays. What it may do cannot be changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuthorizationUpdate {
    is_active: Option<bool>,
    description: Option<String>,
}

impl AuthorizationUpdate {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether its token is good for anything from now on.
    #[must_use]
    pub fn active(mut self, is_active: bool) -> Self {
        self.is_active = Some(is_active);
        self
    }

    /// What it is for.
    #[must_use]
    pub fn description(mut self, description: impl Into<String>) -> Self {
        self.description = Some(description.into());
        self
    }
}

pub(super) async fn list(target: Managed) -> Result<Vec<Authorization>, Error> {
    let doing = "list authorizations";
    let server = target.influxdb2(doing, LACKS).await?;
    let found = server.json(doing, server.with_org(Request::get("api/v2/authorizations"))).await?;
    let Some(all) = found["authorizations"].as_array() else { return Err(server.garbled(doing)) };
    all.iter().map(Authorization::read).collect::<Option<_>>().ok_or_else(|| server.garbled(doing))
}

pub(super) async fn create(target: Managed, new: NewAuthorization) -> Result<CreatedAuthorization, Error> {
    let doing = match &new.description {
        Some(description) => format!("create authorization {description:?}"),
        None => "create an authorization".to_owned(),
    };
    let server = target.influxdb2(&doing, LACKS).await?;
    let org_id = server.org_id(&doing).await?;
    let permissions: Vec<Value> = new.permissions.iter().map(|p| p.json(&org_id)).collect();
    let mut body = json!({ "orgID": org_id, "permissions": permissions });
    if let Some(description) = new.description {
        body["description"] = description.into();
    }
    if new.is_inactive {
        body["status"] = status(false).into();
    }
    let request = Request::json(Method::POST, "api/v2/authorizations", &body);
    server.thing(&doing, request, CreatedAuthorization::read).await
}

pub(super) async fn update(
    target: Managed,
    id: String,
    update: AuthorizationUpdate,
) -> Result<Authorization, Error> {
    let doing = format!("update authorization {id:?}");
    let server = target.influxdb2(&doing, LACKS).await?;
    let mut body = Map::new();
    if let Some(is_active) = update.is_active {
        body.insert("status".to_owned(), status(is_active).into());
    }
    if let Some(description) = update.description {
        body.insert("description".to_owned(), description.into());
    }
    let request =
        Request::json(Method::PATCH, path(&doing, "api/v2/authorizations/", &id, "")?, &body.into());
    server.thing(&doing, request, Authorization::read).await
}

pub(super) async fn delete(target: Managed, id: String) -> Result<(), Error> {
    let doing = format!("delete authorization {id:?}");
    let server = target.influxdb2(&doing, LACKS).await?;
    let request = Request::new(Method::DELETE, path(&doing, "api/v2/authorizations/", &id, "")?);
    server.done(&doing, request).await
}

fn status(is_active: bool) -> &'static str {
    if is_active { "active" } else { "inactive" }
}

impl Authorization {
    fn read(object: &Value) -> Option<Self> {
        Some(Self {
            id: text(object, "id")?,
            is_active: object["status"] == "active",
            description: text(object, "description"),
            org_id: text(object, "orgID"),
            user: text(object, "user"),
            // Kinds of things that a later version has are kept as they are named.
            permissions: object["permissions"].as_array()?.iter().filter_map(Permission::of).collect(),
            created_at: time(object, "createdAt"),
            updated_at: time(object, "updatedAt"),
        })
    }
}

impl CreatedAuthorization {
    pub(super) fn read(object: &Value) -> Option<Self> {
        let token = Token(Secret(text(object, "token")?));
        Some(Self { authorization: Authorization::read(object)?, token })
    }
}
