//! Tasks of InfluxDB 2: Flux that the server runs by the clock, and the Flux of one that down-samples.

use super::server::{Managed, PAGE, path, seconds, text, time};
use crate::error::{Error, Kind};
use crate::query::{Aggregate, flux_string};
use crate::server::exchange::{Method, Request};
use graylogic_line::Timestamp;
use serde_json::{Map, Value, json};
use std::time::Duration;

const LACKS: &str = "has no tasks";
/// Of this many failed runs the log is asked for, when the list of runs does not have it.
const LOGS_ASKED_MAX: usize = 10;

/// A task of InfluxDB 2.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Task {
    /// What the calls name it by.
    pub id: String,
    /// Its name, which others may have too.
    pub name: String,
    /// The organisation it is in.
    pub org_id: Option<String>,
    /// Whether it is run.
    pub is_active: bool,
    /// What somebody wrote of it.
    pub description: Option<String>,
    /// What it does.
    pub flux: String,
    /// How often it is run, as in `1h`; else there is `cron`.
    pub every: Option<String>,
    /// When it is run, in the words of cron.
    pub cron: Option<String>,
    /// How much later than that it is run, as in `1m`.
    pub offset: Option<String>,
    /// The time up to which it has done its work.
    pub latest_completed: Option<Timestamp>,
    /// How the last run ended: `success`, `failed`, `canceled`.
    pub last_run_status: Option<String>,
    /// Why the last run failed.
    pub last_run_error: Option<String>,
    /// When it was made, if the server tells.
    pub created_at: Option<Timestamp>,
    /// When it was changed last, if the server tells.
    pub updated_at: Option<Timestamp>,
}

/// A run of a task.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TaskRun {
    /// Its ID.
    pub id: String,
    /// How it goes: `scheduled`, `started`, `success`, `failed`, `canceled`.
    pub status: String,
    /// What `now()` is for it.
    pub scheduled_for: Option<Timestamp>,
    /// When it began.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// What the server logged of it, in order. Of a run that failed it says why.
    pub log: Vec<String>,
}

impl TaskRun {
    /// Why it failed, in the server's words; `None` unless it failed and the server says why.
    #[must_use]
    pub fn error(&self) -> Option<String> {
        // The server frames what happened with these.
        let is_frame = |line: &&String| line.starts_with("Started task") || line.starts_with("Completed(");
        let said: Vec<&str> = self.log.iter().filter(|line| !is_frame(line)).map(String::as_str).collect();
        (self.status == "failed" && !said.is_empty()).then(|| said.join("; "))
    }
}

/// A task that is to be installed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewTask {
    flux: String,
    description: Option<String>,
    is_inactive: bool,
}

impl NewTask {
    /// Does this, when and under the name that the `option task` in it says.
    #[must_use]
    pub fn new(flux: impl Into<String>) -> Self {
        Self { flux: flux.into(), description: None, is_inactive: false }
    }

    /// What it is for.
    #[must_use]
    pub fn description(mut self, description: impl Into<String>) -> Self {
        self.description = Some(description.into());
        self
    }

    /// Not run until it is made active.
    #[must_use]
    pub fn inactive(mut self) -> Self {
        self.is_inactive = true;
        self
    }
}

/// What is to be changed of a task; all else stays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TaskUpdate {
    fields: Map<String, Value>,
}

impl TaskUpdate {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether it is run from now on.
    #[must_use]
    pub fn active(self, is_active: bool) -> Self {
        self.with("status", if is_active { "active" } else { "inactive" })
    }

    /// What it does from now on, when and under which name.
    #[must_use]
    pub fn flux(self, flux: impl Into<String>) -> Self {
        self.with("flux", flux)
    }

    /// How often it is run, as in `1h`; the server changes the Flux accordingly.
    #[must_use]
    pub fn every(self, every: impl Into<String>) -> Self {
        self.with("every", every)
    }

    /// When it is run, in the words of cron; the server changes the Flux accordingly.
    #[must_use]
    pub fn cron(self, cron: impl Into<String>) -> Self {
        self.with("cron", cron)
    }

    /// Gives it another name; the server changes the Flux accordingly.
    #[must_use]
    pub fn name(self, name: impl Into<String>) -> Self {
        self.with("name", name)
    }

    /// What it is for.
    #[must_use]
    pub fn description(self, description: impl Into<String>) -> Self {
        self.with("description", description)
    }

    fn with(mut self, key: &str, value: impl Into<String>) -> Self {
        self.fields.insert(key.to_owned(), Value::String(value.into()));
        self
    }
}

/// A task that writes aggregates of one bucket's numbers to another, window by window, each at the start of its window.
///
/// With one aggregate a field keeps its name; with several it gets theirs after it, as in `power_watts_max`. Texts and
/// booleans are left out.
///
/// ```
/// use graylogic_influxdb::{Aggregate, Downsampling};
/// use std::time::Duration;
///
/// let hour = Duration::from_secs(3600);
/// let task = Downsampling::new("hourly", "raw", "hours", hour)
///     .measurement("energy")
///     .aggregates(&[Aggregate::Mean, Aggregate::Max])
///     .offset(Duration::from_secs(60))
///     .task()?;
/// # let _ = task;
/// # Ok::<(), graylogic_influxdb::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Downsampling {
    name: String,
    from: String,
    to: String,
    every: Duration,
    offset: Duration,
    measurement: Option<String>,
    aggregates: Vec<Aggregate>,
}

impl Downsampling {
    /// A task of this name that reads one bucket and writes to another, which are named by their names, this often, in
    /// windows of that length: means, of all measurements.
    #[must_use]
    pub fn new(
        name: impl Into<String>,
        from: impl Into<String>,
        to: impl Into<String>,
        every: Duration,
    ) -> Self {
        Self {
            name: name.into(),
            from: from.into(),
            to: to.into(),
            every,
            offset: Duration::ZERO,
            measurement: None,
            aggregates: vec![Aggregate::Mean],
        }
    }

    /// Only of this measurement.
    #[must_use]
    pub fn measurement(mut self, measurement: impl Into<String>) -> Self {
        self.measurement = Some(measurement.into());
        self
    }

    /// These aggregates, each once.
    #[must_use]
    pub fn aggregates(mut self, aggregates: &[Aggregate]) -> Self {
        self.aggregates.clear();
        for aggregate in aggregates {
            if !self.aggregates.contains(aggregate) {
                self.aggregates.push(*aggregate);
            }
        }
        self
    }

    /// Waits so long after a window has ended for readings that come late.
    #[must_use]
    pub fn offset(mut self, offset: Duration) -> Self {
        self.offset = offset;
        self
    }

    /// The task, for [`Manage::create_task`](crate::Manage::create_task).
    ///
    /// # Errors
    /// [`Error::is_refused`] when it has no aggregate, its lengths are no whole seconds, or it would read what it wrote.
    pub fn task(&self) -> Result<NewTask, Error> {
        let doing = format!("make task {:?}", self.name);
        let refuse = |why: &str| Err(Error::new(Kind::Refused, format!("{doing}: {why}")));
        if self.aggregates.is_empty() {
            return refuse("it has no aggregate; give one");
        }
        if self.from == self.to {
            return refuse("it would read what it wrote; write to another bucket");
        }
        let seconds_each = seconds(&doing, "the length of a window", self.every)?;
        let every = flux_duration(seconds_each);
        let mut option = format!("name: {}, every: {every}", flux_string(&self.name));
        if !self.offset.is_zero() {
            option += &format!(", offset: {}", flux_duration(seconds(&doing, "the offset", self.offset)?));
        }
        let measurement = self.measurement.as_ref().map_or_else(String::new, |measurement| {
            format!("\n    |> filter(fn: (r) => r._measurement == {})", flux_string(measurement))
        });
        // The clock runs it at multiples of the length since the epoch, where windows end. Run by hand it has any time: then
        // the last window that is over is the one, and no part of the next.
        let mut flux = format!(
            r#"import "types"

option task = {{{option}}}

every = {nanos}
stop = int(v: now()) / every * every

numbers = from(bucket: {from})
    |> range(start: time(v: stop - every), stop: time(v: stop)){measurement}
    |> filter(fn: (r) => types.isType(v: r._value, type: "float") or types.isType(v: r._value, type: "int") or types.isType(v: r._value, type: "uint"))
"#,
            nanos = u128::from(seconds_each) * 1_000_000_000,
            from = flux_string(&self.from)
        );
        for aggregate in &self.aggregates {
            let function = function(*aggregate);
            let renamed = match self.aggregates.len() {
                1 => String::new(),
                _ => format!("\n    |> map(fn: (r) => ({{r with _field: r._field + \"_{function}\"}}))"),
            };
            // Results need names of their own when there are several.
            flux += &format!(
                r#"
numbers
    |> aggregateWindow(every: {every}, fn: {function}, createEmpty: false, timeSrc: "_start"){renamed}
    |> to(bucket: {to})
    |> yield(name: "{function}")
"#,
                to = flux_string(&self.to)
            );
        }
        Ok(NewTask::new(flux))
    }
}

pub(super) async fn list(target: Managed) -> Result<Vec<Task>, Error> {
    search(target, "list tasks", None).await
}

pub(super) async fn find(target: Managed, name: String) -> Result<Vec<Task>, Error> {
    let found = search(target, &format!("find tasks {name:?}"), Some(&name)).await?;
    Ok(found.into_iter().filter(|task| task.name == name).collect())
}

async fn search(target: Managed, doing: &str, name: Option<&str>) -> Result<Vec<Task>, Error> {
    let server = target.influxdb2(doing, LACKS).await?;
    let page = |_: usize, last: Option<&str>| {
        let mut request = server.with_org(Request::get("api/v2/tasks"));
        if let Some(name) = name {
            request = request.with("name", name);
        }
        if let Some(last) = last {
            request = request.with("after", last);
        }
        request.with("limit", PAGE.to_string())
    };
    server.pages(doing, "tasks", page, Task::read, |task| &task.id).await
}

pub(super) async fn create(target: Managed, new: NewTask) -> Result<Task, Error> {
    let doing = "create a task";
    let server = target.influxdb2(doing, LACKS).await?;
    let mut body = json!({ "flux": new.flux });
    // By its name, which a token may use that may not see the organisation.
    for (key, value) in server.with_org(Request::default()).query {
        body[key] = value.into();
    }
    if let Some(description) = new.description {
        body["description"] = description.into();
    }
    if new.is_inactive {
        body["status"] = "inactive".into();
    }
    server.thing(doing, Request::json(Method::POST, "api/v2/tasks", &body), Task::read).await
}

pub(super) async fn update(target: Managed, id: String, update: TaskUpdate) -> Result<Task, Error> {
    let doing = format!("update task {id:?}");
    let server = target.influxdb2(&doing, LACKS).await?;
    let request =
        Request::json(Method::PATCH, path(&doing, "api/v2/tasks/", &id, "")?, &update.fields.into());
    server.thing(&doing, request, Task::read).await
}

pub(super) async fn delete(target: Managed, id: String) -> Result<(), Error> {
    let doing = format!("delete task {id:?}");
    let server = target.influxdb2(&doing, LACKS).await?;
    server.done(&doing, Request::new(Method::DELETE, path(&doing, "api/v2/tasks/", &id, "")?)).await
}

pub(super) async fn run(target: Managed, id: String) -> Result<TaskRun, Error> {
    let doing = format!("run task {id:?}");
    let server = target.influxdb2(&doing, LACKS).await?;
    let request = Request::json(Method::POST, path(&doing, "api/v2/tasks/", &id, "/runs")?, &json!({}));
    server.thing(&doing, request, TaskRun::read).await
}

pub(super) async fn runs(target: Managed, id: String) -> Result<Vec<TaskRun>, Error> {
    let doing = format!("list runs of task {id:?}");
    let server = target.influxdb2(&doing, LACKS).await?;
    let found = server.json(&doing, Request::get(path(&doing, "api/v2/tasks/", &id, "/runs")?)).await?;
    let mut runs: Vec<TaskRun> = match &found["runs"] {
        // A task that was never run has none, in either way.
        Value::Null if found["links"].is_object() => Vec::new(),
        Value::Array(all) => {
            all.iter().map(TaskRun::read).collect::<Option<_>>().ok_or_else(|| server.garbled(&doing))?
        }
        _ => return Err(server.garbled(&doing)),
    };
    let unexplained = runs.iter_mut().filter(|run| run.status == "failed" && run.log.is_empty());
    for run in unexplained.take(LOGS_ASKED_MAX) {
        let runs = path(&doing, "api/v2/tasks/", &id, "/runs/")?;
        // Without it the list of runs is still an answer.
        if let Ok(path) = path(&doing, &runs, &run.id, "/logs")
            && let Ok(found) = server.json(&doing, Request::get(path)).await
        {
            run.log = messages(&found["events"]);
        }
    }
    Ok(runs)
}

/// The messages of a log.
fn messages(log: &Value) -> Vec<String> {
    let lines = log.as_array().into_iter().flatten();
    lines.filter_map(|line| text(line, "message")).collect()
}

impl Task {
    fn read(object: &Value) -> Option<Self> {
        Some(Self {
            id: text(object, "id")?,
            name: object["name"].as_str()?.to_owned(),
            org_id: text(object, "orgID"),
            is_active: object["status"] == "active",
            description: text(object, "description"),
            flux: text(object, "flux")?,
            every: text(object, "every"),
            cron: text(object, "cron"),
            offset: text(object, "offset"),
            latest_completed: time(object, "latestCompleted"),
            last_run_status: text(object, "lastRunStatus"),
            last_run_error: text(object, "lastRunError"),
            created_at: time(object, "createdAt"),
            updated_at: time(object, "updatedAt"),
        })
    }
}

impl TaskRun {
    fn read(object: &Value) -> Option<Self> {
        Some(Self {
            id: text(object, "id")?,
            status: text(object, "status").unwrap_or_default(),
            scheduled_for: time(object, "scheduledFor"),
            started_at: time(object, "startedAt"),
            finished_at: time(object, "finishedAt"),
            log: messages(&object["log"]),
        })
    }
}

fn function(aggregate: Aggregate) -> &'static str {
    match aggregate {
        Aggregate::Count => "count",
        Aggregate::Sum => "sum",
        Aggregate::Mean => "mean",
        Aggregate::Min => "min",
        Aggregate::Max => "max",
        Aggregate::First => "first",
        Aggregate::Last => "last",
    }
}

/// A length as Flux writes it, without parts that are nought.
fn flux_duration(seconds: u64) -> String {
    let parts = [(seconds / 3600, "h"), (seconds / 60 % 60, "m"), (seconds % 60, "s")];
    parts.iter().filter(|(n, _)| *n > 0).map(|(n, unit)| format!("{n}{unit}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_a_text_ends_or_changes_it() {
        for (text, expected) in [
            ("house", r#""house""#),
            (r#"a"b\c"#, r#""a\"b\\c""#),
            ("${1 + 1} $x $", r#""\x24{1 + 1} \x24x \x24""#),
            // A server reads `$` and the backslash after it as two plain characters.
            (r#"$" $\ $${x}"#, r#""\x24\" \x24\\ \x24\x24{x}""#),
            (r"\${x}", r#""\\\x24{x}""#),
            ("a\nb\r\tc\u{1}\u{7f}ü", r#""a\nb\r\tc\x01\x7fü""#),
        ] {
            assert_eq!(flux_string(text), expected);
        }
    }

    #[test]
    fn lengths_have_no_parts_that_are_nought() {
        for (seconds, expected) in [(1, "1s"), (60, "1m"), (3600, "1h"), (90_061, "25h1m1s"), (3605, "1h5s")]
        {
            assert_eq!(flux_duration(seconds), expected);
        }
    }

    #[test]
    fn a_task_that_makes_no_sense_is_refused() {
        let hour = Duration::from_secs(3600);
        let fine = Downsampling::new("t", "a", "b", hour);
        for (task, why) in [
            (fine.clone().aggregates(&[]), "it has no aggregate"),
            (Downsampling::new("t", "a", "a", hour), "read what it wrote"),
            (
                Downsampling::new("t", "a", "b", Duration::from_millis(1500)),
                "window is 1.5s; give whole seconds",
            ),
            (Downsampling::new("t", "a", "b", Duration::ZERO), "give whole seconds"),
            (fine.clone().offset(Duration::from_millis(1)), "the offset is 1ms"),
        ] {
            let error = task.task().unwrap_err();
            assert!(error.is_refused() && error.to_string().contains(why), "{error}");
        }
        assert!(fine.task().is_ok());
    }
}
