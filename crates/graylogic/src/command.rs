//! The commands, each in a file of its own; here only which one is meant.

use crate::app;
use crate::cli::{Cli, Command, Place};
use crate::failure::Failure;
use crate::output::remark;
use crate::text;
use graylogic_influxdb::{Config, Target};
use graylogic_store::{Store, StoreOptions};
use std::process::ExitCode;

mod batches;
mod bucket;
mod compact;
mod consent;
mod delete;
mod demo;
mod doctor;
mod flux;
mod import;
mod org;
mod quarantine;
mod query;
mod records;
mod rejections;
mod rows;
mod salvage;
mod send;
mod serve;
mod server;
mod setup;
mod spool;
mod status;
mod task;
mod token;
mod verify;
mod write;

/// Runs the command and says how the program ends.
pub(crate) fn run(cli: &Cli) -> Result<ExitCode, Failure> {
    match &cli.command {
        Command::Demo(options) => demo::run(options, cli.json),
        Command::Serve(options) => serve::run(options, cli.json),
        Command::Write(options) => write::run(options, cli.json),
        Command::Query(options) => query::run(options, cli.json),
        Command::Import(options) => import::run(options, cli.json),
        Command::Doctor(place) => doctor::run(place, cli.json),
        Command::Status(place) => status::run(place, cli.json),
        Command::Delete(options) => delete::run(options, cli.json),
        Command::Bucket(options) => bucket::run(options, cli.json),
        Command::Quarantine(options) => quarantine::run(options, cli.json),
        Command::Task(options) => task::run(options, cli.json),
        Command::Token(options) => token::run(options, cli.json),
        Command::Org(options) => org::run(options, cli.json),
        Command::Setup(options) => setup::run(options, cli.json),
        Command::Compact(place) => compact::run(place, cli.json),
        Command::Salvage(options) => salvage::run(options, cli.json),
        Command::Verify(options) => verify::run(options, cli.json),
        Command::Spool(options) => spool::run(options, cli.json),
        Command::Bench(options) => crate::bench::run(options, cli.json),
    }
}

/// The store that options mean, which must be there.
fn open_store(place: &Place, command: &str) -> Result<(Store, Config), Failure> {
    let config = app::config(place)?;
    let Target::Embedded(folder) = config.target() else {
        return Err(Failure::new(format!(
            "{command} works on the embedded store only; name its folder with --data"
        )));
    };
    // A store that has lost one half is still one.
    if !folder.join("store.sqlite").exists() && !folder.join("log").exists() {
        return Err(Failure::new(format!(
            "there is no store in {}; name its folder with --data",
            folder.display()
        )));
    }
    let store = Store::open(folder, StoreOptions::default())?;
    Ok((store, config))
}

/// The other buckets that hold readings, for a command that names no bucket: the default one may not be the one that is meant.
pub(crate) fn other_buckets(store: &Store, place: &Place, bucket: &str) -> Option<String> {
    let others = store.buckets().into_iter().filter(|other| other.name != bucket && other.series > 0);
    let names: Vec<String> = others.map(|other| other.name).collect();
    (place.bucket.is_none() && !names.is_empty()).then(|| {
        format!("nothing found in bucket {bucket:?}; name another with --bucket: {}", names.join(", "))
    })
}

/// How many values of a bucket are in quarantine.
fn quarantined_values(store: &Store, bucket: &str) -> Result<u64, Failure> {
    Ok(store.quarantine()?.into_iter().filter(|q| q.bucket == bucket).map(|q| q.values).sum())
}

/// Says why readings were quarantined and what to do about it, beside a summary that counts them.
fn remark_quarantined(lines: u64) {
    if lines > 0 {
        let are = if lines == 1 { "1 line is".to_owned() } else { format!("{} are", text::lines(lines)) };
        remark(format_args!(
            "{are} quarantined: the timestamps are before 2000 or more than an hour ahead of the clock of this machine; \
             graylogic query --quarantine shows them, graylogic quarantine releases or drops them, and --any-time stores \
             history and forecasts"
        ));
    }
}

/// Prints the damage of a store that is not settled, so that no command passes over it.
fn remark_damage(store: &Store) {
    let damage = &store.recovery().damage;
    damage.iter().take(DAMAGE_LISTED_MAX).for_each(|what| remark(format_args!("damage: {what}")));
    if damage.len() > DAMAGE_LISTED_MAX {
        remark(format_args!("damage: and {} more places", damage.len() - DAMAGE_LISTED_MAX));
    }
    if !damage.is_empty() {
        remark("damage: graylogic verify lists all of it; graylogic verify --settle stops this report");
    }
}

/// So many damaged places are listed beside what a command does.
const DAMAGE_LISTED_MAX: usize = 20;
