//! Asks a server whether everything that the configuration says of it is right, before readings depend on it: each fault is
//! one sentence that names the setting to change. Nothing is stored by asking.

mod folder;
mod verdict;

use crate::config::{Config, Target, as_named};
use crate::error::{Error, Kind};
use crate::manage;
use crate::route::MAIN;
use crate::server::dialect::Place;
use crate::server::exchange::{Answer, NoAnswer, Request};
use crate::server::http::Http;
use crate::server::kind::{Recognised, ServerKind, recognise};
use crate::server::probe;
use crate::server::recognise::{self, differs};
use crate::server::retry::http_date;
use crate::server::standing::Standing;
use crate::server::{vm_checks, watch};
use graylogic_line::Timestamp;
use graylogic_store::{State, Store, StoreOptions};
use std::fmt;
use std::path::Path;
use std::time::Duration;

/// Clocks that differ by more make readings fall into the wrong hour, and out of what a bucket keeps.
const SKEW_SECONDS_MAX: i64 = 60;

/// Each question is given up after this time. Of a server that hangs there are two: connecting strictly fails within ten
/// seconds.
const PATIENCE: Duration = Duration::from_secs(5);

/// What was found out about the targets of a configuration, the main one first, in the order each was asked. Shown, it is
/// one line for each check, and one before those of a further target that names it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Preflight {
    server: Option<Recognised>,
    checks: Vec<Check>,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Check {
    /// The name of the target; that of the section `influxdb` itself is `main`.
    pub target: String,
    /// What: `address`, `TLS`, `kind`, `clock`, `token`, `organisation`, `bucket`, `write`, `query`, `spool`; `limits`,
    /// `settling`, `ignored`, `names` and `corrections` for VictoriaMetrics; `store` for the embedded one; `environment` for
    /// variables that are mistyped.
    pub name: &'static str,
    /// How it is.
    pub verdict: Verdict,
    /// A sentence. For a fault it says what is wrong and names the setting to change.
    pub says: String,
    /// The setting of the target to change, as in `influxdb.token`; `None` when all is well, and when it is no setting.
    pub setting: Option<&'static str>,
}

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verdict {
    /// All is well.
    Good,
    /// Readings are taken, but somebody should know.
    Warning,
    /// Readings are not taken, not safe on their way, or cannot be queried where the configuration says, until somebody
    /// changes something.
    Fault,
    /// It could not be looked at, because of a fault before it.
    NotReached,
}

impl Preflight {
    /// What was looked at, in its order.
    #[must_use]
    pub fn checks(&self) -> &[Check] {
        &self.checks
    }

    /// The kind of the main target's server, when it showed.
    #[must_use]
    pub fn server_kind(&self) -> Option<ServerKind> {
        self.server.as_ref().map(|s| s.kind)
    }

    /// The version that the main target's server says it has, without a leading `v`.
    #[must_use]
    pub fn server_version(&self) -> Option<&str> {
        self.server.as_ref().map(|s| s.version.as_str()).filter(|v| !v.is_empty())
    }

    /// Whether all targets take readings, however they fare otherwise.
    #[must_use]
    pub fn takes_readings(&self) -> bool {
        let is_beside = |check: &Check| ["query", "spool"].contains(&check.name);
        self.checks.iter().all(|check| check.verdict != Verdict::Fault || is_beside(check))
    }

    /// The first fault; `None` when all is well.
    #[must_use]
    pub fn fault(&self) -> Option<&Check> {
        self.checks.iter().find(|c| c.verdict == Verdict::Fault)
    }

    fn push(&mut self, name: &'static str, verdict: Verdict, says: String, setting: Option<&'static str>) {
        self.checks.push(Check { target: MAIN.to_owned(), name, verdict, says, setting });
    }

    fn add(&mut self, name: &'static str, verdict: Verdict, says: impl Into<String>) {
        self.push(name, verdict, says.into(), None);
    }

    fn good(&mut self, name: &'static str, says: impl Into<String>) {
        self.add(name, Verdict::Good, says);
    }

    /// Adds a fault, and everything behind it as not reached.
    fn ends(mut self, name: &'static str, setting: Option<&'static str>, says: impl Into<String>) -> Self {
        self.push(name, Verdict::Fault, says.into(), setting);
        let behind = CHECKS.iter().skip_while(|c| **c != name).skip(1);
        for check in behind.filter(|c| **c != "TLS") {
            if !self.checks.iter().any(|c| c.name == *check) {
                self.add(check, Verdict::NotReached, "not reached");
            }
        }
        self
    }
}

/// The checks of a server, in their order.
const CHECKS: [&str; 9] =
    ["address", "TLS", "kind", "clock", "token", "organisation", "bucket", "write", "query"];

impl fmt::Display for Preflight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut target = MAIN;
        for check in &self.checks {
            if check.target != target {
                target = &check.target;
                writeln!(f, "target {target:?}:")?;
            }
            let verdict = match check.verdict {
                Verdict::Good => "ok",
                Verdict::Warning => "WARNING",
                Verdict::Fault => "FAULT",
                Verdict::NotReached => "-",
            };
            writeln!(f, "{:<13} {verdict:<8} {}", check.name, check.says)?;
        }
        Ok(())
    }
}

/// Puts a query to a server within a time, about a bucket of an organization: whether it is answered, else why not.
pub(crate) type TryQuery = fn(&Http, &str, &str, Duration) -> Result<(), Error>;

/// Looks at all targets of a configuration that are switched on, at once, the main one first; waits for servers as long as
/// their requests may take.
pub(crate) fn look(config: &Config, try_query: TryQuery) -> Result<Preflight, Error> {
    config.check_routes()?;
    let targets = config.targets();
    let looked: Vec<Result<Preflight, Error>> = std::thread::scope(|threads| {
        let looks: Vec<_> = targets
            .iter()
            .map(|(_, config)| {
                let thread = std::thread::Builder::new().name("influxdb-health".into());
                thread.spawn_scoped(threads, || look_at(config, try_query))
            })
            .collect();
        let looked = |look: std::io::Result<std::thread::ScopedJoinHandle<'_, _>>| {
            let look = look.map_err(|e| Error::because(Kind::ConnectionFailed, "start a thread", e))?;
            look.join().map_err(|_| Error::new(Kind::ConnectionFailed, "the target could not be asked"))?
        };
        looks.into_iter().map(looked).collect()
    });
    let mut all = Preflight::default();
    for ((name, _), looked) in targets.into_iter().zip(looked) {
        let looked = looked.map_err(|e| e.of_target(&name))?;
        if name == MAIN {
            all.server = looked.server;
            for (strange, meant) in config.strange_variables() {
                let says =
                    format!("{strange} changes nothing, since no key has this name; did you mean {meant}?");
                all.add("environment", Verdict::Warning, says);
            }
        }
        all.checks.extend(looked.checks.into_iter().map(|check| Check {
            says: as_named(&name, check.says),
            target: name.clone(),
            ..check
        }));
    }
    Ok(all)
}

/// Looks at one target, on a plain thread.
fn look_at(config: &Config, try_query: TryQuery) -> Result<Preflight, Error> {
    let url = match config.target() {
        Target::Embedded(folder) => return Ok(look_at_store(folder)),
        Target::Remote(url) => url,
    };
    let http = Http::new(config, url)?;
    let mut preflight = created_later(config, ask(config, &http));
    if preflight.fault().is_none() && preflight.checks.iter().all(|check| check.name != "query") {
        look_at_queries(config, &http, try_query, &mut preflight);
    }
    if let Some(spool) = config.spool_folder() {
        match folder::takes_files(spool) {
            Ok(()) => preflight.good("spool", format!("{} takes files", spool.display())),
            Err(why) => {
                let says = format!(
                    "{why}; readings for a server that is away stay in memory and are lost when this program ends: name another \
                     folder in influxdb.spool, or write off"
                );
                preflight.push("spool", Verdict::Fault, says, Some("spool"));
            }
        }
    }
    Ok(preflight)
}

/// Where readings are written need not be where they are read, and a token may have one right and not the other. That is a
/// fault where the configuration names an address for queries.
fn look_at_queries(config: &Config, http: &Http, try_query: TryQuery, preflight: &mut Preflight) {
    let patience = PATIENCE / config.hurry().min(10);
    match (try_query(http, config.org(), config.bucket(), patience), config.query_url()) {
        (Ok(()), _) => preflight.good("query", "a query is answered"),
        (Err(why), Some(_)) => {
            let says = format!("queries fail: {why}; check influxdb.query_url");
            preflight.push("query", Verdict::Fault, says, Some("query_url"));
        }
        (Err(why), None) => {
            preflight.push("query", Verdict::Warning, format!("queries fail: {why}"), None);
        }
    }
}

/// A bucket that is not there is no fault when the client creates it.
fn created_later(config: &Config, mut preflight: Preflight) -> Preflight {
    let is_asked = config.creates_buckets()
        && matches!(preflight.server_kind(), None | Some(ServerKind::InfluxDb1 | ServerKind::InfluxDb2));
    let missing = |check: &&mut Check| check.verdict == Verdict::Fault && check.name == "bucket";
    if let Some(check) = preflight.checks.iter_mut().find(missing).filter(|_| is_asked) {
        let name = config.bucket();
        (check.verdict, check.setting) = (Verdict::Warning, None);
        check.says = format!(
            "there is no {name:?} yet: the client creates it for the first readings (influxdb.create_buckets), if the token has \
             the right to create buckets"
        );
    }
    preflight
}

/// Looks at the embedded store, without making one.
fn look_at_store(folder: &Path) -> Preflight {
    let mut preflight = Preflight::default();
    let shown = folder.display();
    if !folder.join("store.sqlite").exists() {
        match folder.ancestors().find(|f| f.exists()) {
            Some(parent) if !parent.is_dir() => {
                let says = format!("{} is no folder; name another in influxdb.url", parent.display());
                return preflight.ends("store", Some("url"), says);
            }
            _ => match folder::takes_files(folder) {
                Ok(()) => {
                    preflight.good("store", format!("there is none in {shown} yet: connecting makes it"));
                }
                Err(why) => {
                    let says = format!("{why}; name another folder in influxdb.url");
                    return preflight.ends("store", Some("url"), says);
                }
            },
        }
        return preflight;
    }
    if let Err(why) = folder::takes_files(folder) {
        let says =
            format!("{why}; let this program's user write there, or name another folder in influxdb.url");
        return preflight.ends("store", Some("url"), says);
    }
    match Store::open(folder, StoreOptions::default()) {
        Ok(store) => {
            let state = store.stats().map(|stats| stats.state);
            // It was only looked at: what it has to say was said.
            let _closed = store.close();
            match state {
                Ok(State::Degraded(why)) => {
                    return preflight.ends(
                        "store",
                        None,
                        format!("the store in {shown} takes no readings: {why}"),
                    );
                }
                Ok(_) => preflight.good("store", format!("the store in {shown} is well")),
                Err(error) => return preflight.ends("store", None, error.to_string()),
            }
        }
        Err(error) if error.is_locked() => preflight.add("store", Verdict::Warning, error.to_string()),
        Err(error) => {
            let says = format!("{error}; check influxdb.url, or look with `graylogic verify`");
            return preflight.ends("store", Some("url"), says);
        }
    }
    preflight
}

/// Fails with the first fault; for `connect_strict`.
pub(crate) fn strict(config: &Config, http: &Http) -> Result<(), Error> {
    let http = http.clone();
    on_a_thread(move |config| judged(&ask_and_create(config, &http)), config)?
}

/// All checks of a server, where a bucket that is missing is made if that is allowed.
fn ask_and_create(config: &Config, http: &Http) -> Preflight {
    let mut preflight = ask(config, http);
    let fault = preflight.checks.iter_mut().find(|c| c.verdict == Verdict::Fault && c.name == "bucket");
    let Some(fault) = fault.filter(|_| config.creates_buckets()) else { return preflight };
    match http.wait(manage::create_missing(http, config.org(), config.bucket())) {
        Ok(Ok(())) => ask(config, http),
        Ok(Err(why)) => {
            fault.says = format!("{}; and it could not be made: {why}", fault.says);
            preflight
        }
        Err(()) => preflight,
    }
}

/// Whether the server takes readings, else why not; on a plain thread.
pub(crate) fn probe(config: &Config, http: &Http) -> Result<(), Error> {
    judged(&created_later(config, ask(config, http)))
}

/// Fails with the first fault; warnings are logged.
fn judged(preflight: &Preflight) -> Result<(), Error> {
    for check in preflight.checks().iter().filter(|c| c.verdict == Verdict::Warning) {
        tracing::warn!(check = check.name, "{}", check.says);
    }
    match preflight.fault() {
        None => Ok(()),
        Some(check) => {
            // What no setting mends may pass.
            let passes = check.setting.is_none();
            Err(Error::new(Kind::ConnectionFailed, check.says.clone()).retryable(passes))
        }
    }
}

/// Asks on a thread of its own, because the caller's may be one of a runtime.
fn on_a_thread<T: Send + 'static>(
    asks: impl FnOnce(&Config) -> T + Send + 'static,
    config: &Config,
) -> Result<T, Error> {
    let config = config.clone();
    let thread = std::thread::Builder::new().name("influxdb-health".into());
    let asking = thread
        .spawn(move || asks(&config))
        .map_err(|e| Error::because(Kind::ConnectionFailed, "start a thread", e))?;
    asking.join().map_err(|_| Error::new(Kind::ConnectionFailed, "the server could not be asked"))
}

/// All checks of a server.
fn ask(config: &Config, http: &Http) -> Preflight {
    let mut preflight = Preflight::default();
    let base = http.base();
    // Never so short that a busy machine misses it.
    let patience = Some(PATIENCE / config.hurry().min(10));
    // Whether anybody is there, before anything that needs rights.
    let ping = match http.send(Request { timeout: patience, ..Request::get("ping") }) {
        Ok(ping) => ping,
        Err(NoAnswer::Stopped) => return preflight.ends("address", None, "the client is closed"),
        Err(NoAnswer::Failed(why)) => {
            let says = format!("{why}; check that the server runs there, or change influxdb.url");
            return preflight.ends("address", None, says);
        }
        Err(NoAnswer::Unusable { reason, setting }) => {
            let check = failed_check(setting);
            return preflight.ends(check, Some(setting), reason);
        }
    };
    preflight.good("address", format!("{base} answers"));
    if base.starts_with("https:") {
        preflight.good("TLS", "the certificates fit");
    }
    let mut found = recognise(&ping);
    if found.is_none() && http.configured().is_none() {
        // Who does not answer this does not answer what follows.
        found = http.wait(recognise::by_write(http)).ok().and_then(|behind| behind.ok().flatten());
    }
    preflight.server.clone_from(&found);
    let kind = match (http.configured(), &found) {
        (Some(configured), Some(found)) if configured != found.kind => {
            let says = differs(http, configured, found);
            // Nobody writes to it in its own way either.
            http.set_recognised(None);
            return preflight.ends("kind", Some("kind"), says);
        }
        (Some(configured), None) => {
            preflight
                .good("kind", format!("{configured}, as influxdb.kind says; the server does not show it"));
            configured
        }
        (_, Some(found)) => {
            preflight.good("kind", found.to_string());
            found.kind
        }
        (None, None) => {
            preflight.good("kind", "the server does not show it; the write below is as for InfluxDB 2");
            ServerKind::InfluxDb2
        }
    };
    let shown = found.as_ref().map(|found| found.kind).or_else(|| http.configured());
    http.set_recognised(found);
    look_at_clock(&mut preflight, &ping, Timestamp::now().as_nanos() / 1_000_000_000);
    let place = Place { org: config.org().to_owned(), bucket: config.bucket().to_owned() };
    let standing = Standing { kind: shown, ..Standing::default() };
    match probe::empty_write(http, &place, kind, patience) {
        Ok(answer) => {
            let mut preflight = verdict::judge(preflight, &answer, kind, standing, &place, http);
            if kind == ServerKind::VictoriaMetrics && preflight.fault().is_none() {
                let vitals = watch::vitals(http).ok().flatten();
                for (name, verdict, says) in vm_checks::checks(vitals.as_ref(), config.settle_time()) {
                    preflight.checks.retain(|check| check.name != name);
                    preflight.add(name, verdict, says);
                }
            }
            preflight
        }
        Err(NoAnswer::Stopped) => preflight.ends("write", None, "the client is closed"),
        Err(NoAnswer::Failed(why)) => preflight.ends("write", None, why),
        Err(NoAnswer::Unusable { reason, setting }) => {
            let check = failed_check(setting);
            preflight.ends(check, Some(setting), reason)
        }
    }
}

/// What is being checked when a request cannot be made because of a setting.
fn failed_check(setting: &'static str) -> &'static str {
    match setting {
        "token" => "token",
        "proxy" => "address",
        _ => "TLS",
    }
}

/// Compares the clocks, to a second, as the answer has the server's.
fn look_at_clock(preflight: &mut Preflight, answer: &Answer, now: i64) {
    let Some(theirs) = answer.date.as_deref().and_then(http_date) else {
        preflight.good("clock", "the server does not tell its time");
        return;
    };
    let ahead = now - theirs;
    if ahead.abs() <= SKEW_SECONDS_MAX {
        preflight.good("clock", "this machine and the server agree");
        return;
    }
    let which = if ahead > 0 { "ahead of" } else { "behind" };
    let says = format!(
        "the clock of this machine is {} {which} that of the server: set them right (NTP), or readings get the wrong time \
         and may be refused as too old",
        in_words(ahead.unsigned_abs())
    );
    preflight.add("clock", Verdict::Warning, says);
}

/// A time as people say it, in its two largest units.
fn in_words(seconds: u64) -> String {
    const UNITS: [(u64, &str); 4] = [(86_400, "d"), (3600, "h"), (60, "min"), (1, "s")];
    let mut rest = seconds;
    let mut words = Vec::new();
    for (length, name) in UNITS {
        if rest >= length && words.len() < 2 {
            words.push(format!("{} {name}", rest / length));
            rest %= length;
        }
    }
    words.join(" ")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn every_target_is_looked_at_and_named() {
        let folder = tempfile::tempdir().unwrap();
        let main = Config::embedded(folder.path().join("main"));
        // Nobody listens there.
        let office = Config::remote("http://127.0.0.1:9").unwrap();
        let off = Config::remote("http://127.0.0.1:9").unwrap().with_enabled(false);
        let config = main.with_further_target("office", office).with_further_target("off", off);
        let look = |config: &Config| look(config, |_, _, _, _| Ok(()));
        let found = look(&config).unwrap();
        let mut checks: Vec<(&str, &str)> = found.checks().iter().map(|c| (&*c.target, c.name)).collect();
        checks.truncate(2);
        assert_eq!(checks, [("main", "store"), ("office", "address")]);
        assert!(found.checks().iter().all(|c| c.target != "off"));
        let fault = found.fault().unwrap();
        assert_eq!((&*fault.target, fault.name), ("office", "address"));
        assert!(fault.says.ends_with("or change influxdb.targets.office.url"), "{}", fault.says);
        assert_eq!(found.to_string().lines().nth(1), Some("target \"office\":"));
        let no_file = Config::remote("https://127.0.0.1:9").unwrap().with_ca_file(folder.path().join("none"));
        let error = look(&config.with_further_target("tls", no_file)).unwrap_err().to_string();
        assert!(error.starts_with("target \"tls\": influxdb.targets.tls.ca_file"), "{error}");
    }

    #[test]
    fn clocks_that_differ_are_told_apart() {
        let check = |date: Option<&str>, verdict: Verdict, says: &str| {
            let mut preflight = Preflight::default();
            let answer = Answer { date: date.map(str::to_owned), ..Answer::default() };
            // Sun, 06 Nov 1994 08:49:37 GMT
            look_at_clock(&mut preflight, &answer, 784_111_777);
            let check = &preflight.checks()[0];
            assert_eq!(check.verdict, verdict, "{check:?}");
            assert!(check.says.contains(says), "{check:?}");
            assert_eq!(preflight.fault(), None);
        };
        check(None, Verdict::Good, "does not tell");
        check(Some("yesterday"), Verdict::Good, "does not tell");
        check(Some("Sun, 06 Nov 1994 08:49:37 GMT"), Verdict::Good, "agree");
        check(Some("Sun, 06 Nov 1994 08:50:37 GMT"), Verdict::Good, "agree");
        check(Some("Sun, 06 Nov 1994 08:50:38 GMT"), Verdict::Warning, "is 1 min 1 s behind that");
        check(Some("Sun, 06 Nov 1994 06:49:07 GMT"), Verdict::Warning, "is 2 h 30 s ahead of that");
    }
}
