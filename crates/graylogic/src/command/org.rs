//! `graylogic org`: the organisations of an InfluxDB 2.

use crate::cli::{Org, OrgCommand};
use crate::command::consent;
use crate::command::server::{self, Named};
use crate::failure::Failure;
use crate::output::{answer, answer_json};
use crate::text;
use graylogic_influxdb::Organization;
use serde_json::json;
use std::process::ExitCode;

impl Named for Organization {
    const WHAT: &'static str = "organisation";

    fn id(&self) -> &str {
        &self.id
    }

    fn name(&self) -> &str {
        &self.name
    }
}

pub(crate) fn run(options: &Org, json: bool) -> Result<ExitCode, Failure> {
    let manage = server::manage(&options.place, "org", "has no organisations")?;
    match &options.command {
        OrgCommand::List => print(&manage.organizations()?, json),
        OrgCommand::Create { name, description } => {
            print(&[manage.create_organization(name, description)?], json);
        }
        OrgCommand::Remove { org, consent } => {
            let id = server::id(&manage.organizations()?, org)?;
            let what = format!("organization {org:?} with all of its buckets, tasks and tokens");
            if !consent::is_given(*consent, &what, json)? {
                return Ok(ExitCode::SUCCESS);
            }
            manage.delete_organization(&id)?;
            if json {
                answer_json(&json!({ "removed": id }));
            } else {
                answer(format_args!("removed organisation {id}"));
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn print(orgs: &[Organization], json: bool) {
    if json {
        let of = |org: &Organization| {
            json!({
                "id": org.id,
                "name": org.name,
                "description": org.description,
                "made": org.created_at.map(|time| time.to_string()),
            })
        };
        answer_json(&json!({ "orgs": orgs.iter().map(of).collect::<Vec<_>>() }));
        return;
    }
    let row = |org: &Organization| {
        vec![org.id.clone(), org.name.clone(), org.description.clone().unwrap_or_default()]
    };
    let rows: Vec<Vec<String>> = orgs.iter().map(row).collect();
    answer(text::table(&["id", "organisation", "description"], &rows).trim_end());
}
