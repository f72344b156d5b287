//! The configuration from YAML, with the environment over it: keys, variables, and a sentence with the remedy for each
//! mistake.

use super::values::{self, shown, switch};
use super::yaml::{Step, line_of, mistake};
use super::{Config, Further, Origin, Source, Target, TlsVersion};
use crate::error::{Error, Kind};
use crate::route::{Class, DESTINATIONS_MAX, MAIN, ROUTES_MAX, Route};
use crate::secret::Secret;
use crate::server::kind::ServerKind;
use crate::server::proxy::{ProxyAddress, ProxyChoice};
use graylogic_durable::{SyncPolicy, WhenFull};
use reqwest::header::HeaderMap;
use rustls::pki_types::ServerName;
use serde_json::{Map, Value};
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The section of a file that is ours.
const SECTION: &str = "influxdb";
/// Keys that mean us wherever they stand.
const KEYS_TELLING: [&str; 6] = ["url", "token", "org", "bucket", "batch_size", "flush_interval"];
/// Keys that mean us wherever they stand in a file with our section, and what others of these begin with.
const KEYS_OURS_ALONE: [&str; 7] =
    ["query_url", "batch_size", "flush_interval", "connect_strict", "create_buckets", "spool", "tls_"];
/// A configuration has at most this many bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// The keys of the section: the seed's, then those of TLS, of connections and of the spool.
const KEYS: [&str; 27] = [
    "enabled",
    "url",
    "query_url",
    "kind",
    "token",
    "basic_user",
    "basic_password",
    "org",
    "bucket",
    "batch_size",
    "flush_interval",
    "connect_strict",
    "create_buckets",
    "any_time",
    "ca_file",
    "certificate_file",
    "key_file",
    "tls_min_version",
    "tls_server_name",
    "proxy",
    "headers",
    "spool",
    "spool_sync",
    "spool_megabytes_max",
    "spool_hours_max",
    "spool_when_full",
    "settle_time",
];
/// Keys of the section alone, not of a further target: those and the rules between them.
const TARGETS: &str = "targets";
const ROUTES: &str = "routes";
/// What comes before the key in the name of an environment variable.
const ENVIRONMENT: &str = "GRAYLOGIC_INFLUXDB_";
/// Most further targets of a client, and most bytes of the name of one.
const TARGETS_MAX: usize = 16;
const NAME_BYTES_MAX: usize = 32;

/// What is in a file, and whether it may be read again when it has changed: a pipe or a device has been used up.
fn read_text(path: &Path) -> io::Result<(String, bool)> {
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    if metadata.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    let mut bytes = Vec::new();
    // The length that a file tells may be wrong, and a device has none.
    if file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)? as u64 > FILE_BYTES_MAX {
        let message = "it has more than 1 MiB, which no configuration has";
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
    }
    let text =
        String::from_utf8(bytes).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e.utf8_error()))?;
    Ok((text, metadata.is_file()))
}

impl Config {
    /// The configuration in a file, with `GRAYLOGIC_INFLUXDB_*` of the environment over it.
    ///
    /// # Errors
    /// [`Error::is_invalid_config`]; the message names the file, the key and the remedy.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        let reading = |e: io::Error| {
            let remedy = match e.kind() {
                io::ErrorKind::InvalidData => "save it as text in UTF-8",
                io::ErrorKind::IsADirectory => "name the file in it",
                io::ErrorKind::FileTooLarge => "name the YAML file of this program",
                io::ErrorKind::PermissionDenied => "let this program's user read it",
                _ => "check its name",
            };
            let message = format!("read the configuration {}: {e}; {remedy}", path.display());
            Error::new(Kind::InvalidConfig, message)
        };
        let (text, may_change) = read_text(path).map_err(reading)?;
        let mut config = Self::from_yaml_named(&text, &path.display().to_string(), environment)?;
        if !may_change {
            return Ok(config);
        }
        for config in
            std::iter::once(&mut config.source).chain(config.further.iter_mut().map(|f| &mut f.config.source))
        {
            config.origin = Origin::File(path.to_owned());
        }
        Ok(config)
    }

    /// The token as file and environment have it now; `None` when they have none, when they cannot be read at present, and when
    /// they have another address now: a token is sent only where its own configuration points. A token that a program gave is
    /// never replaced.
    pub(crate) fn token_now(&self) -> Option<Secret> {
        let Source { origin, target: name } = &self.source;
        let token = match origin {
            Origin::Program => return None,
            Origin::Environment => {
                let value = |key| environment(&self.variable_for(key));
                let elsewhere =
                    value("url").is_some_and(|url| target(&url).ok().as_ref() != Some(&self.target));
                Secret(value("token").filter(|_| !elsewhere)?)
            }
            Origin::File(path) => {
                let now = Self::from_file(path).ok()?;
                let now = match name {
                    None => now,
                    Some(name) => now.further.into_iter().find(|f| f.name == *name)?.config,
                };
                let same_place = now.target == self.target && now.query_url == self.query_url;
                same_place.then_some(now.token)?
            }
        };
        (!token.0.is_empty()).then_some(token)
    }

    /// The variable of the environment for a key of this target.
    fn variable_for(&self, key: &str) -> String {
        self.source.target.as_ref().map_or_else(|| variable(key), |name| variable_of(name, key))
    }

    /// Variables of the environment that look as if they were ours and are not, each with the one that may be meant.
    pub(crate) fn strange_variables(&self) -> Vec<(String, String)> {
        let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
        self.strange_among(names)
    }

    fn strange_among(&self, names: impl Iterator<Item = String>) -> Vec<(String, String)> {
        let of = |further: &Further| KEYS.map(|key| variable_of(&further.name, key));
        let known: Vec<String> =
            KEYS.iter().map(|key| variable(key)).chain(self.further.iter().flat_map(of)).collect();
        let mut strange: Vec<(String, String)> = names
            .filter(|name| name.starts_with(ENVIRONMENT) && !known.contains(name))
            .map(|name| {
                let meant = known.iter().min_by_key(|known| distance(&name, known)).cloned();
                (name, meant.unwrap_or_default())
            })
            .collect();
        strange.sort();
        strange
    }

    /// How another token gets here while the client runs, in words.
    pub(crate) fn token_way(&self) -> String {
        let variable = self.variable_for("token");
        match &self.source.origin {
            Origin::Program => "give another, and connect again".to_owned(),
            _ if environment(&variable).is_some() => {
                format!("set another in {variable} of the environment, and start again")
            }
            Origin::File(path) => format!("another one in {} is taken without a restart", path.display()),
            Origin::Environment => "give another, and connect again".to_owned(),
        }
    }

    /// The configuration in a text, with `GRAYLOGIC_INFLUXDB_*` of the environment over it.
    ///
    /// Only the section `influxdb` is looked at; the other sections of a building core's file are not ours. A key of ours that
    /// stands behind the section without indentation is an error.
    ///
    /// # Errors
    /// [`Error::is_invalid_config`]; the message names the key and the remedy.
    pub fn from_yaml(text: &str) -> Result<Self, Error> {
        let mut config = Self::from_yaml_named(text, "configuration", environment)?;
        config.source.origin = Origin::Environment;
        config.further.iter_mut().for_each(|f| f.config.source.origin = Origin::Environment);
        Ok(config)
    }

    /// Like [`Config::from_yaml`], with an environment of the caller's.
    ///
    /// # Errors
    /// As [`Config::from_yaml`].
    pub fn from_yaml_with_env(
        text: &str,
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, Error> {
        Self::from_yaml_named(text, "configuration", environment)
    }

    fn from_yaml_named(
        text: &str,
        name: &str,
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, Error> {
        let page = Page { text, name, environment: &environment };
        let invalid = |message: String| Error::new(Kind::InvalidConfig, message);
        let document: Value = if text.trim().is_empty() {
            Value::Null
        } else {
            serde_saphyr::from_str(text)
                .map_err(|e| invalid(format!("{name} is not YAML: {}", mistake(&e.to_string()))))?
        };
        let mut section = match document {
            Value::Null => Map::new(),
            Value::Object(mut sections) => match sections.remove(SECTION) {
                Some(Value::Object(section)) => match page.astray(&sections, Found::Filled) {
                    Some(error) => return Err(error),
                    None => section,
                },
                none @ (None | Some(Value::Null)) => {
                    let found = if none.is_some() { Found::Empty } else { Found::Nothing };
                    match page.astray(&sections, found) {
                        Some(error) => return Err(error),
                        None => Map::new(),
                    }
                }
                Some(other) => {
                    return Err(invalid(format!(
                        "{name}: influxdb is {}, not a section with keys",
                        shown(&other)
                    )));
                }
            },
            other => return Err(invalid(format!("{name} is {}, not a file with sections", shown(&other)))),
        };
        let (targets, routes) = (section.remove(TARGETS), section.remove(ROUTES));
        let mut config = Self::default();
        config.fill(&page, None, section)?;
        for (name, value) in page.targets(targets)? {
            let further = config.further(&page, &name, value)?;
            config.further.push(further);
        }
        config.routes = page.routes(routes)?;
        match config.mistake() {
            Some((path, why)) => Err(page.wrong(&path, &why)),
            None => Ok(config),
        }
    }

    /// Takes the keys of a section, and the environment over them.
    fn fill(
        &mut self,
        page: &Page<'_>,
        target: Option<&str>,
        section: Map<String, Value>,
    ) -> Result<(), Error> {
        let path = |key| match target {
            None => vec![Step::Key(key)],
            Some(name) => vec![Step::Key(TARGETS), Step::Key(name), Step::Key(key)],
        };
        for (key, value) in &section {
            if target.is_some() && [TARGETS, ROUTES].contains(&key.as_str()) {
                let why =
                    format!("is no key of a further target; there is one influxdb.{key} for all of them");
                return Err(page.wrong(&path(key), &why));
            }
            if !KEYS.contains(&key.as_str()) {
                let further: &[&str] = if target.is_none() { &[TARGETS, ROUTES] } else { &[] };
                let known = nearest(key, KEYS.iter().chain(further));
                return Err(page.wrong(&path(key), &format!("is no key; did you mean {known}?")));
            }
            let variable = target.map_or_else(|| variable(key), |name| variable_of(name, key));
            if let Some(place) = placeholder(value) {
                let why =
                    format!("is {place}, in whose place nothing is put; set {variable} in the environment");
                return Err(page.wrong(&path(key), &why));
            }
            self.set(key, value).map_err(|why| page.wrong(&path(key), &why))?;
        }
        for key in KEYS {
            let variable = target.map_or_else(|| variable(key), |name| variable_of(name, key));
            if let Some(text) = (page.environment)(&variable) {
                let value = in_environment(key, text);
                self.set(key, &value).map_err(|why| {
                    Error::new(Kind::InvalidConfig, format!("environment variable {variable} {why}"))
                })?;
            }
        }
        match self.connection.basic_mistake() {
            Some((key, why)) => Err(page.wrong(&path(key), &why)),
            None => Ok(()),
        }
    }

    /// The further target that a section describes; what it does not say of batches is as for the main one.
    fn further(&self, page: &Page<'_>, name: &str, section: Map<String, Value>) -> Result<Further, Error> {
        let path = [Step::Key(TARGETS), Step::Key(name)];
        // Before it is part of the name of a variable.
        if let Some(why) = name_mistake(name) {
            return Err(page.wrong(&path, &why));
        }
        let says =
            |key: &str| section.contains_key(key) || (page.environment)(&variable_of(name, key)).is_some();
        if !says("url") {
            return Err(page.wrong(&path, "has no url; write where its readings go"));
        }
        let spools_beside = !says("spool");
        let mut config = Self {
            batch_size: self.batch_size,
            flush_interval: self.flush_interval,
            source: Source { origin: Origin::Program, target: Some(name.to_owned()) },
            ..Self::default()
        };
        config.fill(page, Some(name), section)?;
        Ok(Further { name: name.to_owned(), config, spools_beside })
    }

    /// What is wrong between the targets and the rules: where, below the section, and a sentence.
    fn mistake(&self) -> Option<(Vec<Step<'_>>, String)> {
        use Step::{Item, Key};
        if self.further.len() > TARGETS_MAX {
            let why = format!("are {}; a client has at most {TARGETS_MAX} besides main", self.further.len());
            return Some((vec![Key(TARGETS)], why));
        }
        for (i, further) in self.further.iter().enumerate() {
            if let Some(why) = self.further_mistake(i, further) {
                return Some((vec![Key(TARGETS), Key(&further.name)], why));
            }
        }
        if self.routes.len() > ROUTES_MAX {
            let why = format!("are {} rules; a client has at most {ROUTES_MAX}", self.routes.len());
            return Some((vec![Key(ROUTES)], why));
        }
        for (i, route) in self.routes.iter().enumerate() {
            let at = |key| vec![Key(ROUTES), Item(i), Key(key)];
            if let Some((key, why)) = route.mistake() {
                return Some((at(key), why));
            }
            if let Some(why) = self.destinations_mistake(route) {
                return Some((at("to"), why));
            }
            let why = if route.is_for_all() && i + 1 < self.routes.len() {
                "has no condition, so those behind it are never asked; put it last, or give it one".to_owned()
            } else if let Some(first) = self.routes[..i].iter().position(|r| r.asks_the_same(route)) {
                format!(
                    "asks the same as rule {}, which is first; put their destinations into one",
                    first + 1
                )
            } else {
                continue;
            };
            return Some((vec![Key(ROUTES), Item(i)], why));
        }
        None
    }

    fn further_mistake(&self, i: usize, further: &Further) -> Option<String> {
        if let Some(why) = name_mistake(&further.name) {
            return Some(why);
        }
        let before = &self.further[..i];
        let shares = |f: &&Further| share_a_variable(&f.name, &further.name);
        if let Some(same) = before.iter().find(|f| in_variables(&f.name) == in_variables(&further.name)) {
            return Some(format!("has the name of {:?}, but for - and _; give it another", same.name));
        }
        if let Some(other) = before.iter().find(shares) {
            let why =
                format!("shares a variable of the environment with {:?}; give it another name", other.name);
            return Some(why);
        }
        if !further.config.further.is_empty() || !further.config.routes.is_empty() {
            return Some(
                "has targets or rules of its own; give them to the configuration it belongs to".into(),
            );
        }
        let (store, spool) = self.folders_of(further);
        let others = std::iter::once((MAIN, self.folders()))
            .chain(before.iter().map(|f| (&*f.name, self.folders_of(f))));
        for (other, (other_store, other_spool)) in others {
            if store.zip(other_store).is_some_and(|(a, b)| is_same(a, b)) {
                return Some(format!("has the store of {other} in its url; give each a folder of its own"));
            }
            if spool.as_deref().zip(other_spool.as_deref()).is_some_and(|(a, b)| is_same(a, b)) {
                return Some(format!("has the spool of {other}; give each a folder of its own"));
            }
        }
        None
    }

    /// The folders that a target has for itself: its store, its spool.
    fn folders(&self) -> (Option<&Path>, Option<PathBuf>) {
        match &self.target {
            Target::Embedded(folder) => (Some(folder), None),
            Target::Remote(_) => (None, self.spool.folder.clone()),
        }
    }

    fn folders_of<'a>(&self, further: &'a Further) -> (Option<&'a Path>, Option<PathBuf>) {
        let (store, spool) = further.config.folders();
        (store, spool.and_then(|_| self.spool_of(further)))
    }

    /// Where a further target spools.
    pub(super) fn spool_of(&self, further: &Further) -> Option<PathBuf> {
        if !further.spools_beside {
            return further.config.spool.folder.clone();
        }
        // Behind a slash the rest would be a folder within it.
        let mut beside = self.spool.folder.as_ref()?.components().collect::<PathBuf>().into_os_string();
        beside.push(format!(".{}", further.name));
        Some(beside.into())
    }

    fn destinations_mistake(&self, route: &Route) -> Option<String> {
        let to = route.destinations();
        if to.is_empty() {
            return Some("names no target; readings go somewhere, if only to main".into());
        }
        if to.len() > DESTINATIONS_MAX {
            return Some(format!("names {} destinations; give at most {DESTINATIONS_MAX}", to.len()));
        }
        let config_of = |name: &str| match name {
            MAIN => Some(self),
            _ => self.further.iter().find(|f| f.name == name).map(|f| &f.config),
        };
        let mut seen = Vec::new();
        for destination in to {
            let name = destination.target.as_str();
            let Some(config) = config_of(name) else {
                let names: Vec<&str> = self.further.iter().map(|f| &*f.name).collect();
                let known = names.iter().fold(MAIN.to_owned(), |all, name| format!("{all}, {name}"));
                return Some(format!("names {name:?}, which is no target; the targets are {known}"));
            };
            let bucket = destination.bucket.as_deref().unwrap_or(&config.bucket);
            if bucket.is_empty() {
                return Some(format!("names no bucket behind {name}/; name it, or leave out the /"));
            }
            if seen.contains(&(name, bucket)) {
                return Some(format!("names bucket {bucket:?} of {name} twice; leave one out"));
            }
            seen.push((name, bucket));
        }
        let is_on = |(name, _): &(&str, &str)| *name == MAIN || config_of(name).is_some_and(|c| c.enabled);
        let off = "names only targets whose enabled is false; switch one on, or take out the rule";
        (!seen.iter().any(is_on)).then(|| off.to_owned())
    }

    /// Refuses targets and rules that do not fit together.
    pub(crate) fn check_routes(&self) -> Result<(), Error> {
        match self.mistake() {
            Some((path, why)) => Err(Error::new(Kind::InvalidConfig, format!("{} {why}", path_shown(&path)))),
            None => Ok(()),
        }
    }

    /// The targets that are switched on by their names, the main one first, each with a configuration of its own.
    pub(crate) fn targets(&self) -> Vec<(String, Self)> {
        let alone = Self { further: Vec::new(), routes: Vec::new(), ..self.clone() };
        let on = self.further_targets().into_iter().filter(|(_, config)| config.enabled);
        std::iter::once((MAIN.to_owned(), alone)).chain(on).collect()
    }

    /// The rules, without destinations that are switched off.
    pub(crate) fn routes_on(&self) -> Vec<Route> {
        let mut routes = self.routes.clone();
        let off = |name: &str| self.further.iter().any(|f| f.name == name && !f.config.enabled);
        routes.iter_mut().for_each(|route| route.retain(|d| !off(&d.target)));
        routes
    }

    /// Takes a value for a key, or says why it cannot be.
    fn set(&mut self, key: &str, value: &Value) -> Result<(), String> {
        let text = || match value {
            Value::String(text) => Ok(text.clone()),
            Value::Null => Ok(String::new()),
            other => Err(format!("is {}; give a text", shown(other))),
        };
        let on_or_off = || switch(value).ok_or_else(|| format!("is {}; give true or false", shown(value)));
        match key {
            "enabled" => self.enabled = on_or_off()?,
            "url" => self.target = target(&text()?)?,
            "query_url" => {
                self.query_url = match text()? {
                    url if url.is_empty() => None,
                    url => match target(&url)? {
                        Target::Remote(url) => Some(url),
                        _ => return Err(format!("is {url:?}; write http://HOST:PORT or https://HOST:PORT")),
                    },
                };
            }
            "kind" => {
                let text = text()?;
                self.kind = match text.as_str() {
                    "auto" | "" => None,
                    word => {
                        let known = ServerKind::ALL.into_iter().find(|k| k.key() == word);
                        Some(known.ok_or_else(|| {
                            format!(
                                "is {text:?}; write auto, influxdb1, influxdb2, influxdb3 or victoriametrics"
                            )
                        })?)
                    }
                };
            }
            // The value of a token is never shown, whatever its type.
            "token" => self.token = Secret(text().map_err(|_| "is not a text; put it in quotes".to_owned())?),
            "basic_user" => self.connection.basic_user = text()?,
            "basic_password" => {
                let text = text().map_err(|_| "is not a text; put it in quotes".to_owned())?;
                self.connection.basic_password = Secret(text);
            }
            "org" => self.org = text()?,
            "bucket" => {
                let name = text()?;
                if name.is_empty() {
                    return Err("is empty; give the bucket a name".into());
                }
                self.bucket = name;
            }
            "batch_size" => self.batch_size = values::BATCH_SIZE.read(value)? as usize,
            "flush_interval" => {
                self.flush_interval = Duration::from_secs(values::FLUSH_INTERVAL.read(value)?);
            }
            "connect_strict" => self.connect_strict = on_or_off()?,
            "create_buckets" => self.create_buckets = on_or_off()?,
            "any_time" => self.any_time = on_or_off()?,
            "ca_file" => self.tls.ca = file(&text()?),
            "certificate_file" => self.tls.certificate = file(&text()?),
            "key_file" => self.tls.key = file(&text()?),
            "tls_min_version" => {
                // 1.2 is a number for YAML.
                let word = values::number(value).map_or_else(text, |number| Ok(number.to_string()))?;
                self.connection.min_version = match word.as_str() {
                    "" | "1.2" => TlsVersion::Tls12,
                    "1.3" => TlsVersion::Tls13,
                    other => return Err(format!("is {other:?}; write \"1.2\" or \"1.3\"")),
                };
            }
            "tls_server_name" => self.connection.server_name = server_name(&text()?)?,
            "proxy" if switch(value) == Some(false) => self.connection.proxy = ProxyChoice::Off,
            "proxy" if switch(value).is_some() => {
                return Err(format!("is {}; write http://HOST:PORT, or off", shown(value)));
            }
            // It may hold a password, so it is never shown.
            "proxy" => {
                let text = text().map_err(|_| "is not a text; write http://HOST:PORT, or off")?;
                self.connection.proxy = proxy(&text)?;
            }
            "headers" => {
                let Value::Object(given) = value else {
                    return Err(
                        "is no section with names and values, as {X-Site: \"house 7\"}, or no lines \"NAME: VALUE\", each name once"
                            .into(),
                    );
                };
                self.connection.headers = HeaderMap::new();
                for (name, value) in given {
                    // What shows a value here must not: it is a secret.
                    let value = value.as_str().ok_or_else(|| {
                        format!("has a value for {name:?} that is not a text; put it in quotes")
                    })?;
                    self.add_header(name, value)?;
                }
            }
            // `off` is a switch for YAML.
            "spool" if switch(value) == Some(false) => self.spool.folder = None,
            "spool" if switch(value).is_some() => {
                return Err(format!("is {}; name a folder, or write off", shown(value)));
            }
            "spool" => {
                self.spool.folder = match text()?.as_str() {
                    "" => return Err("is empty; name a folder, or write off".into()),
                    folder => Some(folder.into()),
                };
            }
            "spool_sync" => {
                let word = value.as_str().map_or_else(|| shown(value), |word| format!("{word:?}"));
                self.spool.sync = sync_policy(value.as_str().unwrap_or_default())
                    .map_err(|why| format!("is {word}; {why}"))?;
            }
            "spool_megabytes_max" => {
                self.spool.bytes_max = Some(values::SPOOL_MEGABYTES.read(value)? * 1_000_000);
            }
            "spool_hours_max" => {
                self.spool.age_max = Some(Duration::from_secs(values::SPOOL_HOURS.read(value)? * 3600));
            }
            "spool_when_full" => {
                self.spool.when_full = match text()?.as_str() {
                    "drop_oldest" => WhenFull::DropOldest,
                    "drop_newest" => WhenFull::DropNewest,
                    "block" => WhenFull::Block,
                    other => return Err(format!("is {other:?}; write drop_oldest, drop_newest or block")),
                };
            }
            // `off` is a boolean for YAML.
            "settle_time" if switch(value) == Some(false) => {
                self.settle_time = Duration::ZERO;
            }
            "settle_time" => self.settle_time = Duration::from_secs(values::SETTLE_TIME.read(value)?),
            _ => unreachable!("only known keys are set"),
        }
        Ok(())
    }
}

/// What a further target's name stands before.
type Section = (String, Map<String, Value>);

/// How the section is in a text.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Found {
    Nothing,
    Empty,
    Filled,
}

/// A text that is read, and the environment over it.
struct Page<'a> {
    text: &'a str,
    name: &'a str,
    environment: &'a dyn Fn(&str) -> Option<String>,
}

impl Page<'_> {
    /// Keys beside the section that were meant for it, which would be ignored without a word: without its `url` the store
    /// would be used in place of the server, and without its `bucket` another bucket.
    fn astray(&self, sections: &Map<String, Value>, section: Found) -> Option<Error> {
        let means_us = |key: &str| {
            let letters: String = key.chars().filter(char::is_ascii_alphabetic).collect();
            letters.to_lowercase().starts_with("influx")
        };
        // In other programs' files other keys of ours may be somebody else's.
        let ours = |key: &str| match section {
            Found::Nothing => KEYS_TELLING.contains(&key),
            Found::Empty => KEYS.contains(&key),
            Found::Filled => {
                let is_ours_alone = KEYS_OURS_ALONE.iter().any(|ours| key.starts_with(ours));
                KEYS.contains(&key) && (is_ours_alone || self.is_behind_section(key, sections))
            }
        };
        let found = sections.iter().filter_map(|(key, value)| {
            let why = match value {
                Value::Object(_) if section == Found::Nothing && means_us(key) => {
                    format!("{key} is no section of this program; did you mean {SECTION}?")
                }
                Value::Object(_) => return None,
                _ if ours(key.trim()) => format!(
                    "{} is outside of the section {SECTION}; write it below `{SECTION}:`, indented by two spaces",
                    key.trim()
                ),
                _ => return None,
            };
            Some((line_of(self.text, &[Step::Key(key)]), why))
        });
        let (line, why) = found.min_by_key(|(line, _)| *line)?;
        let line = line.map_or_else(String::new, |line| format!(", line {line}"));
        Some(Error::new(Kind::InvalidConfig, format!("{}{line}: {why}", self.name)))
    }

    /// Whether a key of the top level stands between our section and the next one: it was probably meant for ours, and is
    /// not indented.
    fn is_behind_section(&self, key: &str, sections: &Map<String, Value>) -> bool {
        let line_of = |key: &str| line_of(self.text, &[Step::Key(key)]);
        let (Some(section), Some(line)) = (line_of(SECTION), line_of(key)) else { return false };
        let others = sections.iter().filter(|(_, value)| value.is_object());
        let next = others.filter_map(|(name, _)| line_of(name)).filter(|&at| at > section).min();
        line > section && next.is_none_or(|next| line < next)
    }

    /// Something in the section is wrong.
    fn wrong(&self, path: &[Step<'_>], why: &str) -> Error {
        let from_top: Vec<Step<'_>> =
            std::iter::once(Step::Key(SECTION)).chain(path.iter().copied()).collect();
        let line = line_of(self.text, &from_top).map_or_else(String::new, |line| format!(", line {line}"));
        Error::new(Kind::InvalidConfig, format!("{}{line}: {} {why}", self.name, path_shown(path)))
    }

    /// The sections of the further targets.
    fn targets(&self, value: Option<Value>) -> Result<Vec<Section>, Error> {
        let targets = match value {
            None | Some(Value::Null) => return Ok(Vec::new()),
            Some(Value::Object(targets)) => targets,
            Some(other) => {
                let why = format!("is {}, not a section with a section for each target", shown(&other));
                return Err(self.wrong(&[Step::Key(TARGETS)], &why));
            }
        };
        let section = |(name, value): (String, Value)| match value {
            Value::Object(section) => Ok((name, section)),
            other => {
                let why = format!("is {}, not a section with keys", shown(&other));
                Err(self.wrong(&[Step::Key(TARGETS), Step::Key(&name)], &why))
            }
        };
        targets.into_iter().map(section).collect()
    }

    fn routes(&self, value: Option<Value>) -> Result<Vec<Route>, Error> {
        let rules = match value {
            None | Some(Value::Null) => return Ok(Vec::new()),
            Some(Value::Array(rules)) => rules,
            Some(other) => {
                let why = format!("is {}, not a list of rules", shown(&other));
                return Err(self.wrong(&[Step::Key(ROUTES)], &why));
            }
        };
        let read = |(i, rule): (usize, &Value)| {
            let here = [Step::Key(ROUTES), Step::Item(i)];
            let Value::Object(rule) = rule else {
                return Err(self.wrong(&here, &format!("is {}, not a section with keys", shown(rule))));
            };
            rule_of(rule).map_err(|(key, why)| match key {
                Some(key) => self.wrong(&[here[0], here[1], Step::Key(key)], &why),
                None => self.wrong(&here, &why),
            })
        };
        rules.iter().enumerate().map(read).collect()
    }
}

/// The rule that a section describes, else the key that is wrong, when it is one, and why.
fn rule_of(rule: &Map<String, Value>) -> Result<Route, (Option<&str>, String)> {
    const RULE_KEYS: [&str; 4] = ["measurement", "tags", "class", "to"];
    let text = |value: &Value| match value {
        Value::String(text) => Ok(text.clone()),
        other => Err(format!("is {}; give a text, in quotes", shown(other))),
    };
    let to = match rule.get("to") {
        None => return Err((None, "has no destination; name its targets in to".into())),
        Some(Value::Array(to)) => to.iter().map(text).collect::<Result<Vec<_>, _>>(),
        Some(one) => text(one).map(|one| vec![one]),
    };
    let mut route = Route::to(to.map_err(|why| (Some("to"), why))?);
    for (key, value) in rule {
        let wrong = |why: String| (Some(key.as_str()), why);
        route = match key.as_str() {
            "to" => route,
            "measurement" => route.measurement(text(value).map_err(wrong)?),
            "class" => {
                let word = text(value).map_err(wrong)?;
                let class = Class::from_key(&word);
                route.class(
                    class
                        .ok_or_else(|| wrong(format!("is {word:?}; write device, energy, phm or custom")))?,
                )
            }
            "tags" => {
                let Value::Object(tags) = value else {
                    return Err(wrong(format!("is {}, not a section of tags", shown(value))));
                };
                let mut with = route;
                for (tag, pattern) in tags {
                    let pattern =
                        text(pattern).map_err(|why| wrong(format!("gives {tag:?} a value that {why}")))?;
                    with = with.tag(tag, pattern);
                }
                with
            }
            _ => return Err(wrong(format!("is no key; did you mean {}?", nearest(key, &RULE_KEYS)))),
        };
    }
    Ok(route)
}

/// A place in the section as people write it.
fn path_shown(path: &[Step<'_>]) -> String {
    let mut in_rule = false;
    path.iter().fold("influxdb".to_owned(), |shown, step| match step {
        Step::Item(i) => {
            in_rule = true;
            format!("{shown}, rule {},", i + 1)
        }
        Step::Key(key) if in_rule => format!("{} {key}", shown.trim_end_matches(',').to_owned() + ":"),
        Step::Key(key) => format!("{shown}.{key}"),
    })
}

impl Error {
    /// The same, of a target with this name.
    pub(crate) fn of_target(self, name: &str) -> Self {
        if name == MAIN {
            return self;
        }
        self.reworded(|message| format!("target {name:?}: {}", as_named(name, message)))
    }
}

/// A sentence that names keys of the section, for the target whose keys they are.
pub(crate) fn as_named(target: &str, sentence: String) -> String {
    const SECTION: &str = "influxdb.";
    if target == MAIN {
        return sentence;
    }
    let mut shown = String::with_capacity(sentence.len());
    let mut rest = sentence.as_str();
    while let Some((before, behind)) = rest.split_once(SECTION) {
        shown.push_str(before);
        // The address of a server may have the word in it.
        let is_part = shown.ends_with(|c: char| c.is_alphanumeric() || "/.-_@".contains(c));
        let is_key = KEYS.iter().any(|key| behind.starts_with(key));
        shown.push_str(SECTION);
        if is_key && !is_part {
            shown.push_str(&format!("{TARGETS}.{target}."));
        }
        rest = behind;
    }
    shown + rest
}

/// Why no target can have this name.
fn name_mistake(name: &str) -> Option<String> {
    if name == MAIN {
        return Some("is the target of the section influxdb itself; give it another name".into());
    }
    let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_';
    let good = (1..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(fits);
    (!good).then(|| format!("has a name that cannot be; use 1 to {NAME_BYTES_MAX} of a-z, 0-9, - and _"))
}

/// Whether two paths are one folder, as far as can be seen from how they are written.
fn is_same(a: &Path, b: &Path) -> bool {
    let parts = |path: &Path| -> PathBuf {
        path.components().filter(|c| *c != std::path::Component::CurDir).collect()
    };
    parts(a) == parts(b)
}

/// The variable of a key, and that of a key of a further target.
fn variable(key: &str) -> String {
    format!("{ENVIRONMENT}{}", key.to_uppercase())
}

fn variable_of(target: &str, key: &str) -> String {
    variable(&format!("{TARGETS}_{}_{key}", in_variables(target)))
}

/// The name of a target as a part of the name of a variable.
fn in_variables(target: &str) -> String {
    target.to_uppercase().replace('-', "_")
}

/// Whether a key of one target and another key of the other have the same variable: `query_url` of `vm` and `url` of
/// `vm-query`.
fn share_a_variable(a: &str, b: &str) -> bool {
    let (a, b) = (in_variables(a), in_variables(b));
    let (short, long) = if a.len() < b.len() { (a, b) } else { (b, a) };
    let Some(rest) = long.strip_prefix(&short).and_then(|rest| rest.strip_prefix('_')) else { return false };
    let rest = rest.to_lowercase();
    let behind = |key: &str| Some(KEYS.contains(&key.strip_prefix(&rest)?.strip_prefix('_')?));
    KEYS.into_iter().any(|key| behind(key) == Some(true))
}

/// A text that is the name of a variable, as shells and other programs' files have it, and nothing else.
fn placeholder(value: &Value) -> Option<&str> {
    let text = value.as_str()?.trim();
    let inner = text.strip_prefix('$')?;
    let inner = inner.strip_prefix('{').map_or(Some(inner), |rest| rest.strip_suffix('}'))?;
    let name = inner.split(':').next().unwrap_or_default();
    let fits = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let is_name = name.bytes().all(fits) && name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    // Who wrote a default behind it wrote a value, which may be a secret.
    is_name.then(|| &text[..text.find(':').unwrap_or(text.len())])
}

fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// A variable's text as the value that the key takes: a text, but for headers, which are one to a line.
fn in_environment(key: &str, text: String) -> Value {
    if key != "headers" {
        return Value::String(text);
    }
    let pair = |line: &str| {
        let (name, value) = line.split_once(':')?;
        Some((name.trim().to_owned(), Value::String(value.trim().to_owned())))
    };
    let lines = || text.lines().filter(|line| !line.trim().is_empty());
    match lines().map(pair).collect::<Option<Map<_, _>>>() {
        Some(headers) if headers.len() == lines().count() => Value::Object(headers),
        _ => Value::String(text),
    }
}

/// "each", or a time in seconds or milliseconds.
fn sync_policy(text: &str) -> Result<SyncPolicy, &'static str> {
    if text == "each" {
        return Ok(SyncPolicy::EachAppend);
    }
    let number = |unit: &str| text.strip_suffix(unit)?.trim().parse::<u64>().ok();
    let time = number("ms").map(Duration::from_millis).or_else(|| number("s").map(Duration::from_secs));
    match time {
        Some(time) if values::sync_time(time) == time => Ok(SyncPolicy::Every(time)),
        _ => Err("write each, or a time from 1ms to 60s"),
    }
}

/// A file that a key names, unless it names none.
fn file(name: &str) -> Option<PathBuf> {
    (!name.is_empty()).then(|| name.into())
}

/// A name that a certificate can have, unless it is empty.
pub(super) fn server_name(name: &str) -> Result<Option<String>, String> {
    match ServerName::try_from(name) {
        _ if name.is_empty() => Ok(None),
        Ok(ServerName::DnsName(_)) => Ok(Some(name.to_owned())),
        _ => {
            Err(format!("is {name:?}, which is no name of a host; give the one in the server's certificate"))
        }
    }
}

pub(super) fn proxy(text: &str) -> Result<ProxyChoice, String> {
    Ok(match text.trim() {
        "" => ProxyChoice::Environment,
        "off" => ProxyChoice::Off,
        address => ProxyChoice::Address(ProxyAddress::parse(address)?),
    })
}

pub(super) fn target(url: &str) -> Result<Target, String> {
    if url == "embedded" {
        return Ok(Target::Embedded("./graylogic-data".into()));
    }
    if let Some(folder) = url.strip_prefix("embedded:") {
        return match folder {
            "" => Err("names no folder; write embedded:FOLDER".into()),
            folder => Ok(Target::Embedded(folder.into())),
        };
    }
    let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
    let hidden = "has a user name or password in it; put the token into GRAYLOGIC_INFLUXDB_TOKEN instead";
    match rest.map(|r| r.split(['/', '?', '#']).next().unwrap_or_default()) {
        // Wherever a password is in what is no address, it is not shown.
        Some("") | None if url.contains('@') => Err(hidden.into()),
        Some("") => Err(format!("is {url:?}, which names no host; write http://HOST:PORT")),
        Some(authority) if authority.contains('@') => Err(hidden.into()),
        Some(_) => Ok(Target::Remote(url.to_owned())),
        None => Err(format!("is {url:?}; write embedded:FOLDER, http://HOST:PORT or https://HOST:PORT")),
    }
}

/// The known key that needs the fewest changes to become this one.
fn nearest<'a>(key: &str, known: impl IntoIterator<Item = &'a &'static str>) -> &'static str {
    known.into_iter().copied().min_by_key(|known| distance(key, known)).unwrap_or("bucket")
}

fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().take(64).enumerate() {
        let mut corner = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let changed = corner + usize::from(x != *y);
            corner = row[j + 1];
            row[j + 1] = changed.min(corner + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_that_are_not_ours_are_found() {
        let office = Config::remote("http://127.0.0.1:9").unwrap_or_default();
        let config = Config::default().with_further_target("head-office", office);
        let names =
            ["HOME", "URL", "URRL", "TARGETS_HEAD_OFFICE_TOKEN", "TARGETS_HEAD_OFICE_TOKEN", "ROUTES"];
        let names = names.map(|n| if n == "HOME" { n.to_owned() } else { format!("{ENVIRONMENT}{n}") });
        let found = config.strange_among(names.into_iter());
        let found: Vec<_> = found
            .iter()
            .map(|(strange, meant)| (&strange[ENVIRONMENT.len()..], &meant[ENVIRONMENT.len()..]))
            .collect();
        assert_eq!(found[1..], [("TARGETS_HEAD_OFICE_TOKEN", "TARGETS_HEAD_OFFICE_TOKEN"), ("URRL", "URL")]);
        assert_eq!((found.len(), found[0].0), (3, "ROUTES"));
    }

    #[test]
    fn keys_in_sentences_are_those_of_their_target() {
        let check = |sentence: &str, expected: &str| {
            assert_eq!(as_named("copy", sentence.to_owned()), expected);
            assert_eq!(as_named(MAIN, sentence.to_owned()), sentence);
        };
        check("check influxdb.token", "check influxdb.targets.copy.token");
        check(
            "influxdb.ca_file \"x\": see influxdb.spool_sync",
            "influxdb.targets.copy.ca_file \"x\": see influxdb.targets.copy.spool_sync",
        );
        check("http://influxdb.org does not answer", "http://influxdb.org does not answer");
        check("http://my-influxdb.url.example", "http://my-influxdb.url.example");
        check("influxdb.nothing", "influxdb.nothing");
        check("", "");
    }
}
