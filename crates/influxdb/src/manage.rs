//! Managing a target: buckets and what they keep, organisations, tokens, tasks, deleting, setting up, health. Each call has
//! two forms over one asynchronous core, which the files below hold, one for each thing that is managed. It knows nothing
//! of lanes, spools and readings on their way.

mod authorization;
mod bucket;
mod delete;
mod influxql;
mod organization;
mod server;
mod setup;
mod system;
mod task;

use crate::config::{Config, Target};
use crate::error::{Error, Kind};
use crate::server::http::{Http, Pending, wait_for};
use graylogic_line::Timestamp;
use graylogic_store::{Store, StoreOptions};
use std::fmt;
use std::future::Future;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::oneshot;

pub use authorization::{
    Action, Authorization, AuthorizationUpdate, CreatedAuthorization, NewAuthorization, Permission, Token,
};
pub use bucket::{Bucket, BucketUpdate, NewBucket};
pub use delete::Predicate;
pub use organization::Organization;
pub use setup::{Setup, SetupResult};
pub use system::{HealthStatus, ServerHealth};
pub use task::{Downsampling, NewTask, Task, TaskRun, TaskUpdate};

use server::{Managed, Server};

/// Manages a target. Cheap to clone; works from plain threads and from any asynchronous runtime.
///
/// ```
/// use graylogic_influxdb::{BucketUpdate, Config, Manage, NewBucket};
/// use std::time::Duration;
///
/// let folder = tempfile::tempdir()?;
/// let manage = Manage::connect(&Config::embedded(folder.path()))?;
/// let week = Duration::from_secs(7 * 86_400);
/// let bucket = manage.create_bucket(&NewBucket::new("raw").retention(week))?;
/// assert_eq!(bucket.retention, Some(week));
/// let bucket = manage.update_bucket(&bucket.id, &BucketUpdate::new().retention(None))?;
/// assert_eq!(bucket.retention, None);
/// manage.delete_bucket(&bucket.id)?;
/// assert_eq!(manage.find_bucket("raw")?, None);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Targets
/// InfluxDB 2 has all of it. In InfluxDB 1 a bucket is a database, `db`, with its default retention policy, or another
/// retention policy of it, `db/rp`; in InfluxDB 3 it is a database. VictoriaMetrics has no buckets.
///
/// A call waits 30 s for an answer; one that deletes readings, a bucket or an organisation 10 minutes.
///
/// # Errors
/// The calls say what they were doing, to which thing, and what the target answered:
/// - [`Error::is_unsupported`] when the target has nothing of the kind;
/// - [`Error::is_not_found`], [`Error::is_exists`];
/// - [`Error::is_unauthorized`] when the token is not known, or has not the right;
/// - [`Error::is_refused`] for these, and for all else that it would not do;
/// - [`Error::is_connection_failed`] when it does not answer; [`Error::is_retryable`] when that may pass;
/// - [`Error::is_not_connected`] after the client was closed.
#[derive(Clone)]
pub struct Manage {
    target: Managed,
    /// Whether the client that it came from is closed.
    closing: Option<Arc<AtomicBool>>,
}

/// Both forms of calls: the name of each, its arguments, what it gives, and the core of it.
macro_rules! calls {
    ($($(#[doc = $doc:literal])+
    $name:ident, $name_async:ident($($argument:ident: $type:ty),*) -> $gives:ty = $core:path;)+) => {
        impl Manage {
            $(
                $(#[doc = $doc])+
                ///
                /// # Errors
                /// As [`Manage`] says.
                pub fn $name(&self, $($argument: $type),*) -> Result<$gives, Error> {
                    self.wait($core(self.target.clone(), $($argument.to_owned()),*))
                }

                #[doc = concat!("[`Manage::", stringify!($name), "`] for asynchronous code; runs on any runtime, or none.")]
                ///
                /// # Errors
                /// As [`Manage`] says.
                pub async fn $name_async(&self, $($argument: $type),*) -> Result<$gives, Error> {
                    self.run($core(self.target.clone(), $($argument.to_owned()),*)).await
                }
            )+
        }
    };
}

calls! {
    /// All buckets that the token may see, of the configured organisation; those of the server's own are marked.
    buckets, buckets_async() -> Vec<Bucket> = bucket::list;
    /// The bucket with this name; `None` when there is none that the token may see.
    find_bucket, find_bucket_async(name: &str) -> Option<Bucket> = bucket::find;
    /// Makes a bucket.
    create_bucket, create_bucket_async(bucket: &NewBucket) -> Bucket = bucket::create;
    /// Changes a bucket, which is named by its [`Bucket::id`], and gives it as it is then.
    ///
    /// When InfluxDB wants the length of the shard groups to be changed with the retention, it becomes what a new bucket
    /// would have.
    update_bucket, update_bucket_async(id: &str, update: &BucketUpdate) -> Bucket = bucket::update;
    /// Deletes a bucket, which is named by its [`Bucket::id`], with everything in it. The bucket `db` of InfluxDB 1 is the
    /// database with all of its retention policies.
    delete_bucket, delete_bucket_async(id: &str) -> () = bucket::delete;
    /// All organisations that the token may see.
    organizations, organizations_async() -> Vec<Organization> = organization::list;
    /// The organisation with this name; `None` when there is none that the token may see.
    find_organization, find_organization_async(name: &str) -> Option<Organization> = organization::find;
    /// Makes an organisation; only an operator may.
    create_organization, create_organization_async(name: &str, description: &str) -> Organization = organization::create;
    /// Deletes an organisation, which is named by its [`Organization::id`], with everything in it.
    delete_organization, delete_organization_async(id: &str) -> () = organization::delete;
    /// All authorizations of the configured organisation that the token may see, without their tokens.
    authorizations, authorizations_async() -> Vec<Authorization> = authorization::list;
    /// Makes an authorization; its token is shown this one time.
    create_authorization, create_authorization_async(authorization: &NewAuthorization) -> CreatedAuthorization
        = authorization::create;
    /// Changes an authorization, which is named by its [`Authorization::id`], and gives it as it is then.
    update_authorization, update_authorization_async(id: &str, update: &AuthorizationUpdate) -> Authorization
        = authorization::update;
    /// Deletes an authorization, which is named by its [`Authorization::id`]: its token is good for nothing from now on.
    delete_authorization, delete_authorization_async(id: &str) -> () = authorization::delete;
    /// All tasks of the configured organisation that the token may see.
    tasks, tasks_async() -> Vec<Task> = task::list;
    /// The tasks with this name: there may be several.
    find_tasks, find_tasks_async(name: &str) -> Vec<Task> = task::find;
    /// Installs a task; see [`Downsampling`].
    create_task, create_task_async(task: &NewTask) -> Task = task::create;
    /// Changes a task, which is named by its [`Task::id`], and gives it as it is then.
    update_task, update_task_async(id: &str, update: &TaskUpdate) -> Task = task::update;
    /// Deletes a task, which is named by its [`Task::id`], with the record of its runs.
    delete_task, delete_task_async(id: &str) -> () = task::delete;
    /// Runs a task now, which is named by its [`Task::id`]: the run has only begun when the call returns.
    run_task, run_task_async(id: &str) -> TaskRun = task::run;
    /// The latest runs of a task, which is named by its [`Task::id`]; at most a hundred.
    task_runs, task_runs_async(id: &str) -> Vec<TaskRun> = task::runs;
    /// Deletes the readings of a bucket with `start <= time < stop` that the predicate means; a stop of
    /// [`Timestamp::MAX`] is none.
    ///
    /// VictoriaMetrics deletes whole series only: from [`Timestamp::MIN`] to [`Timestamp::MAX`].
    delete, delete_async(bucket: &str, range: &Range<Timestamp>, predicate: &Predicate) -> () = delete::delete;
    /// Whether the server was never set up, so that [`Manage::setup`] may.
    is_setup_allowed, is_setup_allowed_async() -> bool = setup::is_allowed;
    /// Sets up a fresh server: its first user, organisation, bucket and token.
    setup, setup_async(setup: &Setup) -> SetupResult = setup::setup;
    /// How the target says that it is.
    health, health_async() -> ServerHealth = system::health;
    /// Whether the target says that it is ready for requests.
    ready, ready_async() -> bool = system::ready;
    /// The version of the target, without a leading `v`; `None` when it does not tell.
    version, version_async() -> Option<String> = system::version;
}

impl Manage {
    /// What manages the target of a configuration, without a client. The server need not answer yet; the embedded store is
    /// opened, and closed with the last clone.
    ///
    /// # Errors
    /// [`Error::is_connection_failed`] when the embedded store cannot be opened because somebody else has it;
    /// [`Error::is_invalid_config`] for an address or certificates that cannot be used.
    pub fn connect(config: &Config) -> Result<Self, Error> {
        let target = match config.target() {
            Target::Embedded(folder) => {
                let opened = Store::open(folder, StoreOptions::default());
                Managed::Embedded(
                    opened
                        .map_err(|e| Error::because(Kind::ConnectionFailed, "open the embedded store", e))?,
                )
            }
            Target::Remote(url) => Managed::server(Http::new(config, url)?, config.org()),
        };
        Ok(Self { target, closing: None })
    }

    /// What manages the target of a client.
    pub(crate) fn of(
        store: Option<&Store>,
        http: Option<&Http>,
        config: &Config,
        closing: &Arc<AtomicBool>,
    ) -> Self {
        let target = match (store, http) {
            (Some(store), _) => Managed::Embedded(store.clone()),
            (None, Some(http)) => Managed::server(http.clone(), config.org()),
            (None, None) => unreachable!("a client has a target"),
        };
        Self { target, closing: Some(closing.clone()) }
    }

    /// Runs a call on this thread: at a server's it waits, at the store's it works.
    fn wait<T: Send + 'static>(
        &self,
        call: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> Result<T, Error> {
        match self.target {
            Managed::Embedded(_) => {
                self.check_open()?;
                wait_for(call)
            }
            Managed::Server(ref server) => told(wait_for(self.start(server, call)?)),
        }
    }

    /// Runs a call without holding up the runtime it is awaited on.
    async fn run<T: Send + 'static>(
        &self,
        call: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> Result<T, Error> {
        match &self.target {
            Managed::Server(server) => told(self.start(server, call)?.await),
            Managed::Embedded(_) => {
                self.check_open()?;
                let (answer, answered) = oneshot::channel();
                let run = move || {
                    let _nobody_waits = answer.send(wait_for(call));
                };
                let thread = std::thread::Builder::new().name("influxdb-manage".into());
                thread.spawn(run).map_err(|e| Error::because(Kind::ConnectionFailed, "start a thread", e))?;
                answered.await.unwrap_or_else(|_| Err(Error::closed()))
            }
        }
    }

    fn start<T: Send + 'static>(
        &self,
        server: &Server,
        call: impl Future<Output = T> + Send + 'static,
    ) -> Result<Pending<T>, Error> {
        self.check_open()?;
        server.http.start(call).ok_or_else(Error::closed)
    }

    fn check_open(&self) -> Result<(), Error> {
        let closed = self.closing.as_ref().is_some_and(|closing| closing.load(Ordering::Acquire));
        if closed { Err(Error::closed()) } else { Ok(()) }
    }
}

/// Makes a bucket that readings are for and that is not there, which keeps them for ever.
pub(crate) async fn create_missing(http: &Http, org: &str, name: &str) -> Result<(), Error> {
    match bucket::create(Managed::server(http.clone(), org), NewBucket::new(name)).await {
        Ok(_) => tracing::info!(bucket = name, "the bucket was not there and was made"),
        // Somebody else was faster.
        Err(error) if error.is_exists() => {}
        Err(error) => return Err(error),
    }
    Ok(())
}

fn told<T>(answer: Result<Result<T, Error>, crate::server::http::GaveUp>) -> Result<T, Error> {
    answer.unwrap_or_else(|_| Err(Error::closed()))
}

impl fmt::Debug for Manage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Manage").field("target", &self.target).finish_non_exhaustive()
    }
}
