//! Organisations of InfluxDB 2, which buckets, tokens and tasks are in.

use super::server::{Managed, PAGE, Server, path, text, time};
use crate::error::Error;
use crate::server::exchange::{Method, Request};
use graylogic_line::Timestamp;
use serde_json::{Value, json};

const LACKS: &str = "has no organisations";

/// An organisation of InfluxDB 2.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Organization {
    /// What the calls name it by.
    pub id: String,
    /// Its name.
    pub name: String,
    /// What somebody wrote of it.
    pub description: Option<String>,
    /// When it was made, if the server tells.
    pub created_at: Option<Timestamp>,
}

pub(super) async fn list(target: Managed) -> Result<Vec<Organization>, Error> {
    let doing = "list organisations";
    let server = target.influxdb2(doing, LACKS).await?;
    let page = |offset: usize, _: Option<&str>| {
        let request = Request::get("api/v2/orgs").with("limit", PAGE.to_string());
        if offset == 0 { request } else { request.with("offset", offset.to_string()) }
    };
    server.pages(doing, "orgs", page, Organization::read, |org| &org.id).await
}

pub(super) async fn find(target: Managed, name: String) -> Result<Option<Organization>, Error> {
    let doing = format!("find organisation {name:?}");
    let server = target.influxdb2(&doing, LACKS).await?;
    let answer = server.hear(&doing, Request::get("api/v2/orgs").with("org", &*name)).await?;
    if Server::lacks(&answer, "organization") {
        return Ok(None);
    }
    if answer.status != 200 {
        return Err(server.refused(&doing, &answer));
    }
    let found: Value = serde_json::from_slice(&answer.body).map_err(|_| server.garbled(&doing))?;
    let Some(all) = found["orgs"].as_array() else { return Err(server.garbled(&doing)) };
    Ok(all.iter().filter_map(Organization::read).find(|org| org.name == name))
}

pub(super) async fn create(
    target: Managed,
    name: String,
    description: String,
) -> Result<Organization, Error> {
    let doing = format!("create organisation {name:?}");
    let server = target.influxdb2(&doing, LACKS).await?;
    let mut body = json!({ "name": name });
    if !description.is_empty() {
        body["description"] = description.into();
    }
    server.thing(&doing, Request::json(Method::POST, "api/v2/orgs", &body), Organization::read).await
}

pub(super) async fn delete(target: Managed, id: String) -> Result<(), Error> {
    let doing = format!("delete organisation {id:?}");
    let server = target.influxdb2(&doing, LACKS).await?;
    let request = Request::new(Method::DELETE, path(&doing, "api/v2/orgs/", &id, "")?);
    server.done(&doing, request).await
}

impl Organization {
    pub(super) fn read(object: &Value) -> Option<Self> {
        Some(Self {
            id: text(object, "id")?,
            name: object["name"].as_str()?.to_owned(),
            description: text(object, "description"),
            created_at: time(object, "createdAt"),
        })
    }
}
