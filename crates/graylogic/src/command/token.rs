//! `graylogic token`: the tokens of an InfluxDB 2. One that was just made is printed once, alone; no other ever is.

use crate::cli::{Token, TokenCommand};
use crate::command::server::{self, Named};
use crate::failure::Failure;
use crate::output::{answer, answer_json, remark};
use crate::text;
use graylogic_influxdb::{Action, Authorization, AuthorizationUpdate, Manage, NewAuthorization, Permission};
use serde_json::{Value, json};
use std::process::ExitCode;

/// So many rights of a token are told in a table.
const RIGHTS_MAX: usize = 4;

impl Named for Authorization {
    const WHAT: &'static str = "token";

    fn id(&self) -> &str {
        &self.id
    }

    fn name(&self) -> &str {
        self.description.as_deref().unwrap_or_default()
    }
}

pub(crate) fn run(options: &Token, json: bool) -> Result<ExitCode, Failure> {
    let manage = server::manage(&options.place, "token", "has no tokens that can be managed through it")?;
    match &options.command {
        TokenCommand::List => print(&manage.authorizations()?, json),
        TokenCommand::Create { read, write, description } => {
            create(&manage, read, write, description.as_deref(), json)?;
        }
        TokenCommand::Activate { token } => set_active(&manage, token, true, json)?,
        TokenCommand::Deactivate { token } => set_active(&manage, token, false, json)?,
        TokenCommand::Remove { token } => {
            let id = id(&manage, token)?;
            manage.delete_authorization(&id)?;
            if json {
                answer_json(&json!({ "removed": id }));
            } else {
                answer(format_args!("removed token {id}"));
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn id(manage: &Manage, key: &str) -> Result<String, Failure> {
    server::id(&manage.authorizations()?, key)
}

fn create(
    manage: &Manage,
    read: &[String],
    write: &[String],
    description: Option<&str>,
    json: bool,
) -> Result<(), Failure> {
    let mut may = Vec::new();
    for bucket in read {
        may.push(Permission::read_bucket(server::bucket_id(manage, bucket)?));
    }
    for bucket in write {
        may.push(Permission::write_bucket(server::bucket_id(manage, bucket)?));
    }
    let mut new = NewAuthorization::new(may);
    if let Some(description) = description {
        new = new.description(description);
    }
    let made = manage.create_authorization(&new)?;
    let id = &made.authorization.id;
    if json {
        answer_json(&json!({ "id": id, "token": made.token.reveal() }));
    } else {
        remark(format_args!("made token {id}; it is shown this once"));
        answer(made.token.reveal());
    }
    Ok(())
}

fn set_active(manage: &Manage, key: &str, is_active: bool, json: bool) -> Result<(), Failure> {
    let update = AuthorizationUpdate::new().active(is_active);
    print(&[manage.update_authorization(&id(manage, key)?, &update)?], json);
    Ok(())
}

fn print(tokens: &[Authorization], json: bool) {
    if json {
        answer_json(&json!({ "tokens": tokens.iter().map(as_json).collect::<Vec<_>>() }));
        return;
    }
    let row = |token: &Authorization| {
        let mut may: Vec<String> = token.permissions.iter().take(RIGHTS_MAX).map(right).collect();
        if token.permissions.len() > RIGHTS_MAX {
            may.push(format!("{} more", token.permissions.len() - RIGHTS_MAX));
        }
        vec![
            token.id.clone(),
            token.description.clone().unwrap_or_else(|| "-".into()),
            if token.is_active { "yes" } else { "no" }.to_owned(),
            token.user.clone().unwrap_or_else(|| "-".into()),
            may.join(", "),
        ]
    };
    let rows: Vec<Vec<String>> = tokens.iter().map(row).collect();
    answer(text::table(&["id", "token", "active", "user", "may"], &rows).trim_end());
}

fn right(may: &Permission) -> String {
    let id = may.id().map_or_else(String::new, |id| format!(" {id}"));
    format!("{} {}{id}", word(may), may.kind())
}

fn word(may: &Permission) -> &'static str {
    match may.action() {
        Action::Read => "read",
        _ => "write",
    }
}

fn as_json(token: &Authorization) -> Value {
    let may = token.permissions.iter().map(
        |may| json!({ "action": word(may), "kind": may.kind(), "id": may.id(), "org_id": may.org_id() }),
    );
    json!({
        "id": token.id,
        "description": token.description,
        "active": token.is_active,
        "user": token.user,
        "may": may.collect::<Vec<_>>(),
        "made": token.created_at.map(|time| time.to_string()),
        "changed": token.updated_at.map(|time| time.to_string()),
    })
}
