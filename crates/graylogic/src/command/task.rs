//! `graylogic task`: the tasks of an InfluxDB 2, which are Flux that it runs by the clock.

use crate::cli::{Downsample, Task, TaskCommand};
use crate::command::flux;
use crate::command::server::{self, Named};
use crate::failure::Failure;
use crate::output::{answer, answer_json};
use crate::text;
use graylogic_influxdb::{Downsampling, Manage, NewTask, TaskRun, TaskUpdate, Timestamp};
use serde_json::{Value, json};
use std::process::ExitCode;

impl Named for graylogic_influxdb::Task {
    const WHAT: &'static str = "task";

    fn id(&self) -> &str {
        &self.id
    }

    fn name(&self) -> &str {
        &self.name
    }
}

pub(crate) fn run(options: &Task, json: bool) -> Result<ExitCode, Failure> {
    let manage = server::manage(&options.place, "task", "has no tasks")?;
    match &options.command {
        TaskCommand::List => print(&manage.tasks()?, json),
        TaskCommand::Show { task } => show(&manage, task, json)?,
        TaskCommand::Add { flux_file, description, inactive } => {
            let task = NewTask::new(flux::read(flux_file)?);
            add(&manage, task, description.as_deref(), *inactive, json)?;
        }
        TaskCommand::Downsample(what) => {
            let task = downsampling(what)?.task()?;
            check_downsampling(&manage, what)?;
            add(&manage, task, what.description.as_deref(), what.inactive, json)?;
        }
        TaskCommand::Enable { task } => set_active(&manage, task, true, json)?,
        TaskCommand::Disable { task } => set_active(&manage, task, false, json)?,
        TaskCommand::Run { task } => print_runs(&[manage.run_task(&id(&manage, task)?)?], json),
        TaskCommand::Runs { task } => print_runs(&manage.task_runs(&id(&manage, task)?)?, json),
        TaskCommand::Remove { task } => {
            let id = id(&manage, task)?;
            manage.delete_task(&id)?;
            if json {
                answer_json(&json!({ "removed": id }));
            } else {
                answer(format_args!("removed task {id}"));
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn id(manage: &Manage, key: &str) -> Result<String, Failure> {
    server::id(&manage.tasks()?, key)
}

fn add(
    manage: &Manage,
    mut task: NewTask,
    description: Option<&str>,
    inactive: bool,
    json: bool,
) -> Result<(), Failure> {
    if let Some(description) = description {
        task = task.description(description);
    }
    if inactive {
        task = task.inactive();
    }
    print(&[manage.create_task(&task)?], json);
    Ok(())
}

fn downsampling(what: &Downsample) -> Result<Downsampling, Failure> {
    let aggregates: Vec<_> = what.aggregate.iter().map(|a| a.of_client()).collect();
    let mut task = Downsampling::new(&what.name, &what.from, &what.to, text::duration(&what.every)?);
    task = task.aggregates(&aggregates);
    if let Some(measurement) = &what.measurement {
        task = task.measurement(measurement);
    }
    if let Some(offset) = &what.offset {
        task = task.offset(text::duration(offset)?);
    }
    Ok(task)
}

/// The server takes a task whose buckets do not exist, which fails each time, and a second one of the same name.
fn check_downsampling(manage: &Manage, what: &Downsample) -> Result<(), Failure> {
    if let Some(same) = manage.find_tasks(&what.name)?.first() {
        return Err(Failure::new(format!(
            "there is a task {:?} already, with the id {}; choose another name, or remove it first",
            what.name, same.id
        )));
    }
    for bucket in [&what.from, &what.to] {
        if manage.find_bucket(bucket)?.is_none() {
            let create = format!("; create it with `graylogic bucket create {bucket}`, or check its name");
            return Err(Failure::new(format!("{}{create}", server::missing("bucket", bucket))));
        }
    }
    Ok(())
}

fn set_active(manage: &Manage, key: &str, is_active: bool, json: bool) -> Result<(), Failure> {
    let task = manage.update_task(&id(manage, key)?, &TaskUpdate::new().active(is_active))?;
    print(&[task], json);
    Ok(())
}

fn print(tasks: &[graylogic_influxdb::Task], json: bool) {
    if json {
        answer_json(&json!({ "tasks": tasks.iter().map(as_json).collect::<Vec<_>>() }));
        return;
    }
    let row = |task: &graylogic_influxdb::Task| {
        vec![
            task.id.clone(),
            task.name.clone(),
            if task.is_active { "yes" } else { "no" }.to_owned(),
            task.every.clone().or_else(|| task.cron.clone()).unwrap_or_default(),
            task.last_run_status.clone().unwrap_or_else(|| "-".into()),
        ]
    };
    let rows: Vec<Vec<String>> = tasks.iter().map(row).collect();
    answer(text::table(&["id", "task", "enabled", "every", "last run"], &rows).trim_end());
}

fn show(manage: &Manage, key: &str, json: bool) -> Result<(), Failure> {
    let tasks = manage.tasks()?;
    let task = server::find(&tasks, key)?.ok_or_else(|| server::missing("task", key))?;
    if json {
        answer_json(&as_json(task));
        return Ok(());
    }
    let named = [
        ("id", Some(task.id.clone())),
        ("task", Some(task.name.clone())),
        ("enabled", Some(if task.is_active { "yes" } else { "no" }.to_owned())),
        ("description", task.description.clone()),
        ("every", task.every.clone()),
        ("cron", task.cron.clone()),
        ("offset", task.offset.clone()),
        ("done up to", task.latest_completed.map(text::local)),
        ("last run", task.last_run_status.clone()),
        ("its error", task.last_run_error.clone()),
        ("made", task.created_at.map(text::local)),
        ("changed", task.updated_at.map(text::local)),
    ];
    let rows: Vec<Vec<String>> =
        named.into_iter().filter_map(|(name, value)| Some(vec![name.to_owned(), value?])).collect();
    answer(text::table(&["", ""], &rows).trim_start_matches('\n').trim_end());
    answer(format_args!("\n{}", task.flux.trim_end()));
    Ok(())
}

fn as_json(task: &graylogic_influxdb::Task) -> Value {
    json!({
        "id": task.id,
        "name": task.name,
        "enabled": task.is_active,
        "description": task.description,
        "every": task.every,
        "cron": task.cron,
        "offset": task.offset,
        "done_up_to": told(task.latest_completed),
        "last_run": task.last_run_status,
        "last_error": task.last_run_error,
        "made": told(task.created_at),
        "changed": told(task.updated_at),
        "flux": task.flux,
    })
}

fn told(time: Option<Timestamp>) -> Option<String> {
    time.map(|time| time.to_string())
}

fn print_runs(runs: &[TaskRun], json: bool) {
    if json {
        let of = |run: &TaskRun| {
            json!({
                "id": run.id,
                "status": run.status,
                "for": told(run.scheduled_for),
                "began": told(run.started_at),
                "ended": told(run.finished_at),
                "error": run.error(),
                "log": run.log,
            })
        };
        answer_json(&json!({ "runs": runs.iter().map(of).collect::<Vec<_>>() }));
        return;
    }
    let time = |time: Option<Timestamp>| time.map_or_else(|| "-".to_owned(), text::local);
    let row = |run: &TaskRun| {
        let times = [run.scheduled_for, run.started_at, run.finished_at];
        let mut row = vec![run.id.clone(), run.status.clone()];
        row.extend(times.map(time));
        row
    };
    let rows: Vec<Vec<String>> = runs.iter().map(row).collect();
    answer(text::table(&["id", "status", "for", "began", "ended"], &rows).trim_end());
    for (run, why) in runs.iter().filter_map(|run| Some((run, run.error()?))) {
        answer(format_args!("run {} failed: {}", run.id, text::plain(&why)));
    }
}
