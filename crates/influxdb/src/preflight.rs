//! Asks a server whether everything that the configuration says of it is right, before readings depend on it: each fault is
//! one sentence that names the setting to change. Nothing is stored by asking.

use crate::config::{Config, Target, as_named};
use crate::dialect::Place;
use crate::error::{Error, Kind};
use crate::http::{Answer, Http, NoAnswer, Request};
use crate::kind::{Recognised, ServerKind, recognise};
use crate::outcome::{self, Outcome};
use crate::retry::http_date;
use graylogic_durable::Batch;
use graylogic_line::Timestamp;
use graylogic_store::{Store, StoreOptions};
use std::fmt;

/// Clocks that differ by more make readings fall into the wrong hour, and out of what a bucket keeps.
const SKEW_SECONDS_MAX: i64 = 60;

/// What was found out about a target, in the order it was asked. Shown, it is one line for each check.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Preflight {
    server: Option<Recognised>,
    checks: Vec<Check>,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Check {
    /// What: `address`, `TLS`, `kind`, `clock`, `token`, `organisation`, `bucket`, `write`; `store` for the embedded one.
    pub name: &'static str,
    /// How it is.
    pub verdict: Verdict,
    /// A sentence. For a fault it says what is wrong and names the setting to change.
    pub says: String,
    /// The setting to change, as in `influxdb.token`; `None` when all is well, and when it is no setting.
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
    /// Readings are not taken until somebody changes something.
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

    /// The kind of the server, when it showed.
    #[must_use]
    pub fn server_kind(&self) -> Option<ServerKind> {
        self.server.as_ref().map(|s| s.kind)
    }

    /// The version that the server says it has, without a leading `v`.
    #[must_use]
    pub fn server_version(&self) -> Option<&str> {
        self.server.as_ref().map(|s| s.version.as_str()).filter(|v| !v.is_empty())
    }

    /// The first fault; `None` when readings are taken.
    #[must_use]
    pub fn fault(&self) -> Option<&Check> {
        self.checks.iter().find(|c| c.verdict == Verdict::Fault)
    }

    fn add(&mut self, name: &'static str, verdict: Verdict, says: impl Into<String>) {
        self.checks.push(Check { name, verdict, says: says.into(), setting: None });
    }

    fn good(&mut self, name: &'static str, says: impl Into<String>) {
        self.add(name, Verdict::Good, says);
    }

    /// Adds a fault, and everything behind it as not reached.
    fn ends(mut self, name: &'static str, setting: Option<&'static str>, says: impl Into<String>) -> Self {
        self.checks.push(Check { name, verdict: Verdict::Fault, says: says.into(), setting });
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
const CHECKS: [&str; 8] = ["address", "TLS", "kind", "clock", "token", "organisation", "bucket", "write"];

impl fmt::Display for Preflight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for check in &self.checks {
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

/// What the server is: asked once, until somebody has reason to forget it. `None` when it does not show.
pub(crate) async fn recognised(http: &Http) -> Result<Option<Recognised>, NoAnswer> {
    if let Some(kind) = http.configured() {
        return Ok(Some(Recognised { kind, version: String::new() }));
    }
    if let Some(known) = http.recognised() {
        return Ok(Some(known));
    }
    let found = recognise(&http.fetch(Request::get("ping")).await?);
    if let Some(found) = &found {
        tracing::debug!(server = http.base(), %found, "the server was recognised");
        http.set_recognised(Some(found.clone()));
    }
    Ok(found)
}

/// Looks at all targets of a configuration that are switched on, at once, and returns what was found by their names, the
/// main one first; waits for servers as long as their requests may take.
pub(crate) fn look(config: &Config) -> Result<Vec<(String, Preflight)>, Error> {
    config.check_routes()?;
    let targets = config.targets();
    let looked: Vec<Result<Preflight, Error>> = std::thread::scope(|threads| {
        let looks: Vec<_> = targets
            .iter()
            .map(|(_, config)| {
                let thread = std::thread::Builder::new().name("influxdb-health".into());
                thread.spawn_scoped(threads, || look_at(config))
            })
            .collect();
        let looked = |look: std::io::Result<std::thread::ScopedJoinHandle<'_, _>>| {
            let look = look.map_err(|e| Error::because(Kind::ConnectionFailed, "start a thread", e))?;
            look.join().map_err(|_| Error::new(Kind::ConnectionFailed, "the target could not be asked"))?
        };
        looks.into_iter().map(looked).collect()
    });
    let mut found = Vec::new();
    for ((name, _), looked) in targets.into_iter().zip(looked) {
        let mut preflight = looked.map_err(|e| e.of_target(&name))?;
        for check in &mut preflight.checks {
            check.says = as_named(&name, std::mem::take(&mut check.says));
        }
        found.push((name, preflight));
    }
    Ok(found)
}

/// Looks at one target, on a plain thread.
fn look_at(config: &Config) -> Result<Preflight, Error> {
    match config.target() {
        Target::Embedded(folder) => {
            let mut preflight = Preflight::default();
            match Store::open(folder, StoreOptions::default()).and_then(|store| store.close()) {
                Ok(()) => preflight.good("store", format!("{} can be opened", folder.display())),
                Err(error) => return Ok(preflight.ends("store", Some("url"), error.to_string())),
            }
            Ok(preflight)
        }
        Target::Remote(url) => Ok(ask(config, &Http::new(config, url)?)),
    }
}

/// Fails with the first fault; for `connect_strict`.
pub(crate) fn strict(config: &Config, http: &Http) -> Result<(), Error> {
    let http = http.clone();
    on_a_thread(move |config| probe(config, &http), config)?
}

/// Whether the server takes readings, else why not; on a plain thread.
pub(crate) fn probe(config: &Config, http: &Http) -> Result<(), Error> {
    let preflight = ask(config, http);
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
    // Whether anybody is there, before anything that needs rights.
    let ping = match http.send(Request::get("ping")) {
        Ok(ping) => ping,
        Err(NoAnswer::Stopped) => return preflight.ends("address", None, "the client is closed"),
        Err(NoAnswer::Failed(why)) => {
            let says = format!("{why}; check that the server runs there, or change influxdb.url");
            return preflight.ends("address", None, says);
        }
        Err(NoAnswer::Unusable { reason, setting }) => {
            let check = if setting == "token" { "token" } else { "TLS" };
            return preflight.ends(check, Some(setting), reason);
        }
    };
    preflight.good("address", format!("{base} answers"));
    if base.starts_with("https:") {
        preflight.good("TLS", "the certificates fit");
    }
    let found = recognise(&ping);
    http.set_recognised(found.clone());
    preflight.server.clone_from(&found);
    let kind = match (http.configured(), &found) {
        (Some(configured), Some(found)) if configured != found.kind => {
            let says = format!(
                "{base} is {found}, but influxdb.kind says {}; set influxdb.kind to {} or auto",
                configured.key(),
                found.kind.key()
            );
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
            preflight.good("kind", "the server does not show it, and is taken for InfluxDB 2");
            ServerKind::InfluxDb2
        }
    };
    look_at_clock(&mut preflight, &ping, Timestamp::now().as_nanos() / 1_000_000_000);
    let place = Place { org: config.org().to_owned(), bucket: config.bucket().to_owned() };
    match http.send(place.write(kind, Vec::new(), false)) {
        Ok(answer) => judge(preflight, &answer, kind, &place, base),
        Err(NoAnswer::Stopped) => preflight.ends("write", None, "the client is closed"),
        Err(NoAnswer::Failed(why)) => preflight.ends("write", None, why),
        Err(NoAnswer::Unusable { reason, setting }) => {
            let check = if setting == "token" { "token" } else { "TLS" };
            preflight.ends(check, Some(setting), reason)
        }
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

/// Reads the answer to a write of nothing, which a server judges in the order of the checks: token, organisation, bucket,
/// right.
fn judge(
    mut preflight: Preflight,
    answer: &Answer,
    kind: ServerKind,
    place: &Place,
    base: &str,
) -> Preflight {
    let Place { org, bucket } = place;
    let container =
        if kind == ServerKind::InfluxDb1 || kind == ServerKind::InfluxDb3 { "database" } else { "bucket" };
    match outcome::read(answer, &Batch::default(), &[], false, 0) {
        // An empty body is no line protocol for some: then everything before it was right.
        Outcome::Delivered | Outcome::Unnamed(_) | Outcome::Refused(_) | Outcome::Partial { .. } => {
            preflight.good("token", "the server takes it");
            if kind == ServerKind::InfluxDb2 {
                preflight.good("organisation", format!("{org:?} is there"));
            }
            preflight.good("bucket", format!("{container} {bucket:?} takes readings"));
            preflight.good("write", "a write of nothing went through");
            preflight
        }
        Outcome::Held { reason, setting: "token" } if answer.status == 401 => preflight.ends(
            "token",
            Some("token"),
            format!("{base} does not know the token: {reason}; give a valid one, check influxdb.token"),
        ),
        Outcome::Held { reason, setting: "token" } => preflight.ends(
            "write",
            Some("token"),
            format!(
                "{base} knows the token, which may not write to {container} {bucket:?}: {reason}; give it that right, or \
                 another one, check influxdb.token"
            ),
        ),
        Outcome::Held { reason, setting: "org" } => {
            preflight.good("token", "the server takes it");
            preflight.ends(
                "organisation",
                Some("org"),
                format!("{base} has no organisation {org:?} that the token may see: {reason}; check influxdb.org"),
            )
        }
        Outcome::Held { reason, setting: "bucket" } => {
            preflight.good("token", "the server takes it");
            if kind == ServerKind::InfluxDb2 {
                preflight.good("organisation", format!("{org:?} is there"));
            }
            preflight.ends(
                "bucket",
                Some("bucket"),
                format!("{base} has no {container} {bucket:?}: {reason}; create it, or check influxdb.bucket"),
            )
        }
        Outcome::Held { reason, setting } => preflight.ends(
            "write",
            Some(setting),
            format!("{base} does not take writes: {reason}; check influxdb.{setting}"),
        ),
        Outcome::Retry { reason, .. } | Outcome::TooLarge(reason) => {
            preflight.ends("write", None, format!("{base} does not take writes: {reason}"))
        }
        Outcome::NotGzip | Outcome::Redirect(_) => preflight.ends(
            "write",
            Some("url"),
            format!("{base} sends writes elsewhere; check influxdb.url"),
        ),
    }
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
        let found = look(&config).unwrap();
        let faults: Vec<(&str, Option<&str>)> =
            found.iter().map(|(name, p)| (name.as_str(), p.fault().map(|c| c.name))).collect();
        assert_eq!(faults, [("main", None), ("office", Some("address"))]);
        let says = &found[1].1.fault().unwrap().says;
        assert!(says.ends_with("or change influxdb.targets.office.url"), "{says}");
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
