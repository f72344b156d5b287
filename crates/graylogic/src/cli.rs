//! The command line.

use clap::{Args, Parser, Subcommand, ValueEnum};
use std::net::IpAddr;
use std::path::PathBuf;

/// Time-series storage for predictive health monitoring and energy telemetry of buildings.
///
/// Exit codes: 0 done; 1 failed; 2 wrong usage; 3 some readings were rejected or dropped; 4 readings are pending in the spool,
/// not delivered yet; 130 and 143 ended by SIGINT or SIGTERM, with everything handed on that was read until then.
#[derive(Debug, Parser)]
#[command(name = "graylogic", version, propagate_version = true)]
pub(crate) struct Cli {
    /// Answer in JSON.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Import the shipped recordings into a store, say what is there, and serve the page.
    Demo(Demo),
    /// Open a store and serve the page until Ctrl-C.
    Serve(Serve),
    /// Store line protocol from a file or standard input, or send it to the server of the configuration. Lines from a pipe are
    /// handed on within `flush_interval`, and within a second at most.
    Write(Write),
    /// Readings, windows or latest values of a store; what a server answers to Flux.
    Query(Query),
    /// Store files of line protocol or CSV; an import that was interrupted goes on where it was.
    Import(Import),
    /// Ask the target of the configuration whether it takes readings; exit code 1 when it does not, with the setting to change.
    Doctor(Place),
    /// What is stored, in numbers; of a server, what it is and how it is.
    Status(Place),
    /// Remove the readings of a time range from some series, of a store or a server.
    Delete(Delete),
    /// List and change buckets, and how long they keep readings, of a store or a server.
    Bucket(Bucket),
    /// List, release or drop readings of a store whose timestamps are before 2000 or more than an hour ahead.
    Quarantine(Quarantine),
    /// Tasks of an InfluxDB 2: Flux that it runs by the clock.
    Task(Task),
    /// Tokens of an InfluxDB 2; one that is made is shown once.
    Token(Token),
    /// Organisations of an InfluxDB 2.
    Org(Org),
    /// Set up a fresh InfluxDB 2, and print the token that may do everything, once.
    Setup(Setup),
    /// Compact everything at once; `serve` does it day by day.
    Compact(Place),
    /// Read every byte and name what is damaged; exit code 1 when something is.
    Verify(Verify),
    /// Save what is good in a damaged store into a new folder; exit code 3 when something could not be saved.
    Salvage(Salvage),
    /// What waits for a server: look at it while the client runs, read it, put refused lines back.
    Spool(Spool),
    /// Measure the line protocol, the store or the spool on this machine.
    Bench(Bench),
}

/// Which store is checked.
#[derive(Args, Clone, Debug)]
pub(crate) struct Verify {
    #[command(flatten)]
    pub(crate) place: Place,
    /// Accept the damage found so far: the store goes on with what is left, and reports this damage no more.
    #[arg(long)]
    pub(crate) settle: bool,
}

/// Which store.
#[derive(Args, Clone, Debug)]
pub(crate) struct Place {
    /// Folder of the store; without it the configuration's, or ./graylogic-data.
    #[arg(long, value_name = "DIR", global = true)]
    pub(crate) data: Option<PathBuf>,
    /// Configuration file, section `influxdb`.
    #[arg(long, value_name = "FILE", global = true, conflicts_with = "data")]
    pub(crate) config: Option<PathBuf>,
    /// Bucket; without it the configuration's, or metrics.
    #[arg(long, value_name = "NAME")]
    pub(crate) bucket: Option<String>,
}

/// Which server.
#[derive(Args, Clone, Debug)]
pub(crate) struct ServerPlace {
    /// Configuration file, section `influxdb`; without it the environment, GRAYLOGIC_INFLUXDB_URL, _TOKEN and _ORG.
    #[arg(long, value_name = "FILE", global = true)]
    pub(crate) config: Option<PathBuf>,
}

/// Where the page is served.
#[derive(Args, Clone, Debug)]
pub(crate) struct Address {
    /// Port of the page; 0 takes a free one.
    #[arg(long, default_value_t = 8490)]
    pub(crate) port: u16,
    /// Address to listen on. Only loopback is safe: there are no tokens yet, and everything stored can be read.
    #[arg(long, default_value = "127.0.0.1")]
    pub(crate) bind: IpAddr,
}

#[derive(Args, Debug)]
pub(crate) struct Demo {
    /// Stop after the summary.
    #[arg(long)]
    pub(crate) once: bool,
    /// Folder of the store.
    #[arg(long, value_name = "DIR", default_value = "./graylogic-data")]
    pub(crate) data: PathBuf,
    #[command(flatten)]
    pub(crate) address: Address,
}

#[derive(Args, Debug)]
pub(crate) struct Serve {
    #[command(flatten)]
    pub(crate) place: Place,
    #[command(flatten)]
    pub(crate) address: Address,
}

#[derive(Args, Debug)]
pub(crate) struct Write {
    #[command(flatten)]
    pub(crate) place: Place,
    /// Unit of the times.
    #[arg(long, value_enum, default_value_t = Unit::Ns)]
    pub(crate) precision: Unit,
    /// Lines stored together.
    #[arg(long, value_name = "LINES", default_value_t = 5000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) batch: u32,
    /// Sync after each batch and say how many accepted lines are safe from a power cut.
    #[arg(long)]
    pub(crate) ack: bool,
    /// Store readings of any time, history and forecasts, in the embedded store. Without it, readings with a timestamp
    /// before 2000 or more than an hour ahead are quarantined.
    #[arg(long)]
    pub(crate) any_time: bool,
    /// File of line protocol, which may be compressed with gzip; standard input without it or with -.
    pub(crate) file: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Unit {
    Ns,
    Us,
    Ms,
    S,
}

impl Unit {
    pub(crate) fn precision(self) -> graylogic_line::Precision {
        match self {
            Self::Ns => graylogic_line::Precision::Nanoseconds,
            Self::Us => graylogic_line::Precision::Microseconds,
            Self::Ms => graylogic_line::Precision::Milliseconds,
            Self::S => graylogic_line::Precision::Seconds,
        }
    }
}

/// Which readings.
#[derive(Args, Debug)]
pub(crate) struct Which {
    #[command(flatten)]
    pub(crate) place: Place,
    /// Measurement; all without it.
    #[arg(long, short)]
    pub(crate) measurement: Option<String>,
    /// Tag that must have this value; may be given several times. KEY!=VALUE, KEY=~REGEX and KEY!~REGEX work too.
    #[arg(long, short, value_name = "KEY=VALUE")]
    pub(crate) tag: Vec<String>,
    /// Field; all without it.
    #[arg(long, short)]
    pub(crate) field: Option<String>,
    /// From: RFC 3339, a local date or time, now, or back from now as in -1h, -7d. Everything without it.
    #[arg(long, allow_hyphen_values = true)]
    pub(crate) start: Option<String>,
    /// Up to but without; as --start.
    #[arg(long, allow_hyphen_values = true)]
    pub(crate) stop: Option<String>,
}

#[derive(Args, Debug)]
pub(crate) struct Delete {
    #[command(flatten)]
    pub(crate) what: Which,
    /// Remove all readings of the bucket, when no measurement, tag, field or time says which.
    #[arg(long, conflicts_with_all = ["measurement", "tag", "field", "start", "stop"])]
    pub(crate) everything: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Salvage {
    #[command(flatten)]
    pub(crate) place: Place,
    /// The new folder.
    #[arg(long, value_name = "DIR")]
    pub(crate) to: PathBuf,
}

#[derive(Args, Debug)]
pub(crate) struct Bucket {
    #[command(flatten)]
    pub(crate) place: Place,
    #[command(subcommand)]
    pub(crate) command: BucketCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum BucketCommand {
    /// The buckets.
    List,
    /// Make a bucket.
    Create {
        /// Its name.
        name: String,
        /// How long it keeps readings: 90d, 12h; for ever without it.
        #[arg(long, value_name = "LENGTH", visible_alias = "retention")]
        keep: Option<String>,
    },
    /// Say how long a bucket keeps readings.
    #[command(visible_alias = "retention")]
    Keep {
        /// Its name, or its ID on a server.
        name: String,
        /// 90d, 12h, or forever.
        length: String,
    },
    /// Give a bucket another name.
    Rename {
        /// Its name, or its ID on a server.
        name: String,
        /// Its new name.
        to: String,
    },
    /// Remove a bucket with everything in it. Asks on a terminal; elsewhere it needs --yes.
    Remove {
        /// Its name, or its ID on a server.
        name: String,
        #[command(flatten)]
        consent: Consent,
    },
}

/// Whether something is removed with all that is in it.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct Consent {
    /// Remove it without asking.
    #[arg(long)]
    pub(crate) yes: bool,
    /// Only say what would be removed.
    #[arg(long, conflicts_with = "yes")]
    pub(crate) dry_run: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Quarantine {
    #[command(flatten)]
    pub(crate) place: Place,
    #[command(subcommand)]
    pub(crate) command: QuarantineCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum QuarantineCommand {
    /// What is in quarantine, bucket by bucket.
    Ls,
    /// Move the quarantined readings of the bucket into it, with the timestamps they have.
    Release,
    /// Delete the quarantined readings of the bucket.
    Drop,
}

#[derive(Args, Debug)]
pub(crate) struct Task {
    #[command(flatten)]
    pub(crate) place: ServerPlace,
    #[command(subcommand)]
    pub(crate) command: TaskCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TaskCommand {
    /// The tasks.
    List,
    /// All of a task, with its Flux.
    Show {
        /// Its name or ID.
        task: String,
    },
    /// Install a task: its Flux says its name and when it is run, as `option task = {...}`.
    Add {
        /// File of Flux; standard input with -.
        #[arg(long, value_name = "FILE")]
        flux_file: PathBuf,
        /// What it is for.
        #[arg(long, value_name = "TEXT")]
        description: Option<String>,
        /// Not run until it is enabled.
        #[arg(long)]
        inactive: bool,
    },
    /// Install a task that writes aggregates of one bucket's numbers to another.
    Downsample(Downsample),
    /// Have a task run by the clock.
    Enable {
        /// Its name or ID.
        task: String,
    },
    /// Have a task not run any more; it stays.
    Disable {
        /// Its name or ID.
        task: String,
    },
    /// Run a task now; it has only begun then.
    Run {
        /// Its name or ID.
        task: String,
    },
    /// The latest runs of a task, and how they ended.
    Runs {
        /// Its name or ID.
        task: String,
    },
    /// Remove a task with the record of its runs.
    Remove {
        /// Its name or ID.
        task: String,
    },
}

#[derive(Args, Debug)]
pub(crate) struct Downsample {
    /// Name of the task.
    pub(crate) name: String,
    /// Name of the bucket that is read.
    #[arg(long, value_name = "BUCKET")]
    pub(crate) from: String,
    /// Name of the bucket that is written to.
    #[arg(long, value_name = "BUCKET")]
    pub(crate) to: String,
    /// How often, which is the length of the windows too: 15m, 1h, 1d (24 hours).
    #[arg(long, value_name = "LENGTH")]
    pub(crate) every: String,
    /// What the value of a window is; may be given several times, and fields get its name behind theirs then.
    #[arg(long, short, value_enum, default_value = "mean")]
    pub(crate) aggregate: Vec<Aggregate>,
    /// Measurement; all without it.
    #[arg(long, short)]
    pub(crate) measurement: Option<String>,
    /// How long after the end of a window it waits for late readings.
    #[arg(long, value_name = "LENGTH")]
    pub(crate) offset: Option<String>,
    /// What it is for.
    #[arg(long, value_name = "TEXT")]
    pub(crate) description: Option<String>,
    /// Not run until it is enabled.
    #[arg(long)]
    pub(crate) inactive: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Token {
    #[command(flatten)]
    pub(crate) place: ServerPlace,
    #[command(subcommand)]
    pub(crate) command: TokenCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// What each token may do, without the tokens.
    List,
    /// Make a token, and print it: it is never shown again.
    #[command(group = clap::ArgGroup::new("may").args(["read", "write"]).required(true).multiple(true))]
    Create {
        /// Bucket that it may read, by name or ID; may be given several times.
        #[arg(long, value_name = "BUCKET")]
        read: Vec<String>,
        /// Bucket that it may write to, by name or ID; may be given several times.
        #[arg(long, value_name = "BUCKET")]
        write: Vec<String>,
        /// What it is for; it can be named by it.
        #[arg(long, value_name = "TEXT")]
        description: Option<String>,
    },
    /// Make a token good again.
    Activate {
        /// Its description or ID, never the token itself.
        token: String,
    },
    /// Make a token good for nothing, until it is activated.
    Deactivate {
        /// Its description or ID, never the token itself.
        token: String,
    },
    /// Remove a token: it is good for nothing from now on.
    Remove {
        /// Its description or ID, never the token itself.
        token: String,
    },
}

#[derive(Args, Debug)]
pub(crate) struct Org {
    #[command(flatten)]
    pub(crate) place: ServerPlace,
    #[command(subcommand)]
    pub(crate) command: OrgCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum OrgCommand {
    /// The organisations.
    List,
    /// Make an organisation; only an operator may.
    Create {
        /// Its name.
        name: String,
        /// What it is for.
        #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
        description: String,
    },
    /// Remove an organization with everything in it. Asks on a terminal; elsewhere it needs --yes.
    Remove {
        /// Its name or ID.
        org: String,
        #[command(flatten)]
        consent: Consent,
    },
}

/// Secrets come by standard input alone: a command line can be read by everybody on the machine.
#[derive(Args, Debug)]
pub(crate) struct Setup {
    #[command(flatten)]
    pub(crate) place: ServerPlace,
    /// Name of the first user.
    #[arg(long, value_name = "NAME")]
    pub(crate) user: String,
    /// Name of the first organisation.
    #[arg(long, value_name = "NAME")]
    pub(crate) org: String,
    /// Name of the first bucket.
    #[arg(long, value_name = "NAME")]
    pub(crate) bucket: String,
    /// How long the bucket keeps readings: 90d, 12h; for ever without it.
    #[arg(long, value_name = "LENGTH")]
    pub(crate) retention: Option<String>,
    /// The user's password is the first line of standard input; without it nobody can sign in by one.
    #[arg(long)]
    pub(crate) password_stdin: bool,
    /// The token is a line of standard input, after that of the password; without it the server makes one.
    #[arg(long)]
    pub(crate) token_stdin: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Spool {
    #[command(flatten)]
    pub(crate) place: SpoolPlace,
    #[command(subcommand)]
    pub(crate) command: SpoolCommand,
}

/// Which spool.
#[derive(Args, Clone, Debug)]
pub(crate) struct SpoolPlace {
    /// Folder of the spool; without it the configuration's, or ./graylogic-spool.
    #[arg(long, value_name = "DIR", global = true)]
    pub(crate) spool: Option<PathBuf>,
    /// Configuration file, section `influxdb`, key `spool`.
    #[arg(long, value_name = "FILE", global = true, conflicts_with = "spool")]
    pub(crate) config: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum SpoolCommand {
    /// The lanes, one for each bucket: what waits, what was refused, how old it is, and who holds the spool.
    Ls,
    /// Everything that is counted, and the segments; reads every byte.
    Stat {
        /// Lane; all without it.
        lane: Option<String>,
    },
    /// Read every byte and name what is damaged, or was and is not settled; exit code 1 when something is.
    Verify {
        /// Lane; all without it.
        lane: Option<String>,
        /// Damage found earlier has been seen: do not report it again.
        #[arg(long)]
        settle: bool,
    },
    /// The lines that wait, byte for byte, on standard output; exit code 3 when some are lost to damage.
    Cat {
        /// Lane.
        lane: String,
        /// Not before the line with this number.
        #[arg(long, value_name = "N", default_value_t = 0)]
        from: u64,
        /// At most so many lines.
        #[arg(long, value_name = "N")]
        limit: Option<u64>,
        /// Also lines that are delivered and still on the disk.
        #[arg(long)]
        all: bool,
    },
    /// Write the lines that wait to a file; exit code 3 when some are lost to damage.
    Export {
        /// Lane.
        lane: String,
        /// The file, which must not be there yet; gzip when it ends in .gz.
        #[arg(long, value_name = "FILE")]
        to: PathBuf,
    },
    /// Lines that a server refused for good, with its words.
    Dead {
        /// Lane.
        lane: String,
        /// At most so many.
        #[arg(long, value_name = "N", default_value_t = 100)]
        limit: usize,
    },
    /// Put refused lines back behind those that wait; they count as accepted again. No client may be running.
    Retry {
        /// Lane.
        lane: String,
        /// Only the letter with this number; may be given several times. The others get new numbers.
        #[arg(long, value_name = "N")]
        letter: Vec<u64>,
    },
    /// Remove dead letters, waiting lines, or copies of damaged bytes for good. No client may be running.
    Purge {
        /// Lane.
        lane: String,
        #[command(flatten)]
        what: Purged,
        /// Yes, for good.
        #[arg(long, required = true)]
        yes: bool,
    },
}

/// What is removed.
#[derive(Args, Clone, Copy, Debug)]
#[group(required = true, multiple = false)]
pub(crate) struct Purged {
    /// The dead letters.
    #[arg(long)]
    pub(crate) dead: bool,
    /// The lines that wait; they count as dropped.
    #[arg(long)]
    pub(crate) waiting: bool,
    /// The copies of what was found damaged.
    #[arg(long)]
    pub(crate) damaged: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Query {
    #[command(flatten)]
    pub(crate) what: Which,
    /// One value for each window: 30s, 15m, 1h, 1d (24 hours).
    #[arg(long, short)]
    pub(crate) window: Option<String>,
    /// What the value of a window is, the mean when nothing is said; without windows, that of the readings since --start.
    #[arg(long, short, value_enum)]
    pub(crate) aggregate: Option<Aggregate>,
    /// The newest reading of each series.
    #[arg(long, conflicts_with_all = ["start", "stop", "window", "aggregate"])]
    pub(crate) latest: bool,
    /// The quarantined readings of the bucket, of an embedded store.
    #[arg(long)]
    pub(crate) quarantine: bool,
    /// At most so many rows.
    #[arg(long, default_value_t = 10_000)]
    pub(crate) limit: usize,
    /// Answer in CSV; to Flux, as the server writes it, with annotations.
    #[arg(long, conflicts_with = "json")]
    pub(crate) csv: bool,
    #[command(flatten)]
    pub(crate) flux: Flux,
}

/// A question in Flux, for a server; --json answers with an object on a line for each row.
#[derive(Args, Debug)]
#[group(skip)]
pub(crate) struct Flux {
    /// Ask in Flux.
    #[arg(long, value_name = "TEXT", group = "in_flux", conflicts_with_all = TYPED)]
    pub(crate) flux: Option<String>,
    /// Ask the Flux in a file; standard input with -.
    #[arg(long, value_name = "FILE", group = "in_flux", conflicts_with_all = TYPED)]
    pub(crate) flux_file: Option<PathBuf>,
    /// Flux: a text that it uses as params.NAME, sent beside it; may be given several times.
    #[arg(long, value_name = "NAME=VALUE", requires = "in_flux")]
    pub(crate) param: Vec<String>,
    /// Flux: how long the whole answer may take.
    #[arg(long, value_name = "SECONDS", requires = "in_flux", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(crate) timeout: u64,
}

/// The options of a question that is not in Flux.
const TYPED: [&str; 10] =
    ["measurement", "tag", "field", "start", "stop", "window", "aggregate", "latest", "quarantine", "limit"];

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Aggregate {
    Count,
    Sum,
    Mean,
    Min,
    Max,
    First,
    Last,
}

impl Aggregate {
    /// The same of the client, which servers are asked with.
    pub(crate) fn of_client(self) -> graylogic_influxdb::Aggregate {
        match self {
            Self::Count => graylogic_influxdb::Aggregate::Count,
            Self::Sum => graylogic_influxdb::Aggregate::Sum,
            Self::Mean => graylogic_influxdb::Aggregate::Mean,
            Self::Min => graylogic_influxdb::Aggregate::Min,
            Self::Max => graylogic_influxdb::Aggregate::Max,
            Self::First => graylogic_influxdb::Aggregate::First,
            Self::Last => graylogic_influxdb::Aggregate::Last,
        }
    }
}

#[derive(Args, Debug)]
pub(crate) struct Import {
    #[command(flatten)]
    pub(crate) place: Place,
    /// Files; gzip is read as well.
    #[arg(required = true)]
    pub(crate) files: Vec<PathBuf>,
    /// Store readings of any time. Without it, those with a timestamp before 2000 or more than an hour ahead are
    /// quarantined.
    #[arg(long)]
    pub(crate) any_time: bool,
    /// What the files are; by their names without it.
    #[arg(long, value_enum)]
    pub(crate) format: Option<Format>,
    /// Unit of the times.
    #[arg(long, value_enum, default_value_t = Unit::Ns)]
    pub(crate) precision: Unit,
    /// CSV: measurement of the readings.
    #[arg(long, short)]
    pub(crate) measurement: Option<String>,
    /// CSV: column with the time, RFC 3339 or a number in --precision.
    #[arg(long, default_value = "time")]
    pub(crate) time: String,
    /// CSV: tag that all readings have.
    #[arg(long, short, value_name = "KEY=VALUE")]
    pub(crate) tag: Vec<String>,
    /// CSV: columns that are tags; all others are fields, floats where they are numbers.
    #[arg(long, value_name = "COLUMN", value_delimiter = ',')]
    pub(crate) tags: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Line protocol.
    Lp,
    /// CSV with a header.
    Csv,
}

#[derive(Args, Debug)]
pub(crate) struct Bench {
    /// What to measure.
    #[arg(value_enum)]
    pub(crate) what: What,
    /// A tenth of the data.
    #[arg(long)]
    pub(crate) quick: bool,
    /// Days of the data of `bench store`; each takes 600 MB meanwhile.
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=60))]
    pub(crate) days: u32,
    /// Opens a backlog and says what that took: `bench spool` starts itself with it.
    #[arg(long, hide = true)]
    pub(crate) open: Option<PathBuf>,
    /// Folder for the data of `bench store` (about 4 GB, removed afterwards); the system's for temporary files without it.
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum What {
    Line,
    Store,
    Spool,
}
