//! The configuration: YAML with the environment over it, parsed into types that cannot be wrong.

use crate::error::{Error, Kind};
use serde_json::{Map, Value};
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Most lines of a batch.
const BATCH_SIZE_MAX: u64 = 100_000;
/// Longest flush interval in seconds.
const FLUSH_INTERVAL_MAX: u64 = 3600;
/// The keys of the section, as the seed has them.
const KEYS: [&str; 7] = ["enabled", "url", "token", "org", "bucket", "batch_size", "flush_interval"];
/// What comes before the key in the name of an environment variable.
const ENVIRONMENT: &str = "GRAYLOGIC_INFLUXDB_";

/// How a client connects.
///
/// ```
/// use graylogic_influxdb::Config;
///
/// let config = Config::from_yaml("influxdb:\n  url: embedded:/var/lib/graylogic\n  bucket: house\n")?;
/// assert_eq!(config.bucket(), "house");
///
/// let error = Config::from_yaml("influxdb:\n  buket: house\n").unwrap_err();
/// assert_eq!(error.to_string(), "configuration, line 2: influxdb.buket is no key; did you mean bucket?");
/// # Ok::<(), graylogic_influxdb::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    enabled: bool,
    target: Target,
    token: Secret,
    org: String,
    bucket: String,
    batch_size: usize,
    flush_interval: Duration,
}

/// Where readings go.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Target {
    /// The embedded store in this folder.
    Embedded(PathBuf),
    /// A server at this address.
    Remote(String),
}

/// A token, which no message shows.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Secret(String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "(none)" } else { "***" })
    }
}

impl Default for Config {
    /// The embedded store in `./graylogic-data`, organisation `graylogic`, bucket `telemetry`, batches of 100 lines at
    /// most 10 s apart.
    fn default() -> Self {
        Self {
            enabled: true,
            target: Target::Embedded("./graylogic-data".into()),
            token: Secret::default(),
            org: "graylogic".into(),
            bucket: "telemetry".into(),
            batch_size: 100,
            flush_interval: Duration::from_secs(10),
        }
    }
}

impl Config {
    /// The embedded store in a folder, everything else by default.
    #[must_use]
    pub fn embedded(folder: impl Into<PathBuf>) -> Self {
        Self { target: Target::Embedded(folder.into()), ..Self::default() }
    }

    /// The configuration in a file, with `GRAYLOGIC_INFLUXDB_*` of the environment over it.
    ///
    /// # Errors
    /// [`Error::is_invalid_config`]; the message names the file, the key and the remedy.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        let reading = |e| {
            Error::because(Kind::InvalidConfig, format_args!("read the configuration {}", path.display()), e)
        };
        let text = std::fs::read_to_string(path).map_err(reading)?;
        Self::from_yaml_named(&text, &path.display().to_string(), environment)
    }

    /// The configuration in a text, with `GRAYLOGIC_INFLUXDB_*` of the environment over it.
    ///
    /// Only the section `influxdb` is looked at; the other sections of a building core's file are not ours.
    ///
    /// # Errors
    /// [`Error::is_invalid_config`]; the message names the key and the remedy.
    pub fn from_yaml(text: &str) -> Result<Self, Error> {
        Self::from_yaml_named(text, "configuration", environment)
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
        let invalid = |message: String| Error::new(Kind::InvalidConfig, message);
        let document: Value = if text.trim().is_empty() {
            Value::Null
        } else {
            serde_saphyr::from_str(text)
                .map_err(|e| invalid(format!("{name} is not YAML: {}", first_line(&e.to_string()))))?
        };
        let section = match document {
            Value::Null => Map::new(),
            Value::Object(mut sections) => match sections.remove("influxdb") {
                None | Some(Value::Null) => Map::new(),
                Some(Value::Object(section)) => section,
                Some(other) => {
                    return Err(invalid(format!(
                        "{name}: influxdb is {}, not a section with keys",
                        shown(&other)
                    )));
                }
            },
            other => return Err(invalid(format!("{name} is {}, not a file with sections", shown(&other)))),
        };
        let place = |key: &str| match line_of(text, key) {
            Some(line) => format!("{name}, line {line}: influxdb.{key}"),
            None => format!("{name}: influxdb.{key}"),
        };
        let mut config = Self::default();
        for (key, value) in section {
            if !KEYS.contains(&key.as_str()) {
                return Err(invalid(format!("{} is no key; did you mean {}?", place(&key), nearest(&key))));
            }
            config.set(&key, &value).map_err(|why| invalid(format!("{} {why}", place(&key))))?;
        }
        for key in KEYS {
            let variable = format!("{ENVIRONMENT}{}", key.to_uppercase());
            if let Some(text) = environment(&variable) {
                let value = from_text(key, &text);
                config
                    .set(key, &value)
                    .map_err(|why| invalid(format!("environment variable {variable} {why}")))?;
            }
        }
        Ok(config)
    }

    /// Takes a value for a key, or says why it cannot be.
    fn set(&mut self, key: &str, value: &Value) -> Result<(), String> {
        let text = || match value {
            Value::String(text) => Ok(text.clone()),
            Value::Null => Ok(String::new()),
            other => Err(format!("is {}; give a text", shown(other))),
        };
        let number = |most: u64, unit: &str| {
            let wrong = || format!("is {}; give a whole number of {unit} from 1 to {most}", shown(value));
            value.as_u64().filter(|n| (1..=most).contains(n)).ok_or_else(wrong)
        };
        match key {
            "enabled" => {
                self.enabled =
                    value.as_bool().ok_or_else(|| format!("is {}; give true or false", shown(value)))?;
            }
            "url" => self.target = target(&text()?)?,
            // The value of a token is never shown, whatever its type.
            "token" => self.token = Secret(text().map_err(|_| "is not a text; put it in quotes".to_owned())?),
            "org" => self.org = text()?,
            "bucket" => {
                let name = text()?;
                if name.is_empty() {
                    return Err("is empty; give the bucket a name".into());
                }
                self.bucket = name;
            }
            "batch_size" => self.batch_size = number(BATCH_SIZE_MAX, "lines")? as usize,
            "flush_interval" => {
                self.flush_interval = Duration::from_secs(number(FLUSH_INTERVAL_MAX, "seconds")?);
            }
            _ => unreachable!("only known keys are set"),
        }
        Ok(())
    }

    /// Switches the client on or off.
    #[must_use]
    pub fn with_enabled(mut self, enabled: bool) -> Self {
        self.enabled = enabled;
        self
    }

    /// Names the bucket that readings go to.
    #[must_use]
    pub fn with_bucket(mut self, bucket: impl Into<String>) -> Self {
        self.bucket = bucket.into();
        self
    }

    /// Sets the target.
    #[must_use]
    pub fn with_target(mut self, target: Target) -> Self {
        self.target = target;
        self
    }

    /// Whether readings are stored at all.
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        self.enabled
    }

    /// Where readings go.
    #[must_use]
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// The organisation.
    #[must_use]
    pub fn org(&self) -> &str {
        &self.org
    }

    /// The bucket.
    #[must_use]
    pub fn bucket(&self) -> &str {
        &self.bucket
    }

    /// Most lines of a request to a server. The embedded store takes what has gathered.
    #[must_use]
    pub fn batch_size(&self) -> usize {
        self.batch_size
    }

    /// Longest time between requests to a server. The embedded store is given readings within 10 ms.
    #[must_use]
    pub fn flush_interval(&self) -> Duration {
        self.flush_interval
    }

    /// Whether there is a token.
    #[must_use]
    pub fn has_token(&self) -> bool {
        !self.token.0.is_empty()
    }
}

fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// A variable's text as the value the key takes.
fn from_text(key: &str, text: &str) -> Value {
    match key {
        "enabled" => match text.trim() {
            "true" | "1" => Value::Bool(true),
            "false" | "0" => Value::Bool(false),
            _ => Value::String(text.to_owned()),
        },
        "batch_size" | "flush_interval" => match text.trim().parse::<u64>() {
            Ok(n) => n.into(),
            Err(_) => Value::String(text.to_owned()),
        },
        _ => Value::String(text.to_owned()),
    }
}

fn target(url: &str) -> Result<Target, String> {
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
    match rest.map(|r| r.split(['/', '?', '#']).next().unwrap_or_default()) {
        Some("") => Err(format!("is {url:?}, which names no host; write http://HOST:PORT")),
        Some(authority) if authority.contains('@') => {
            Err("has a user name or password in it; put the token into GRAYLOGIC_INFLUXDB_TOKEN instead"
                .into())
        }
        Some(_) => Ok(Target::Remote(url.to_owned())),
        None => Err(format!("is {url:?}; write embedded:FOLDER, http://HOST:PORT or https://HOST:PORT")),
    }
}

/// A value as a message shows it, short.
fn shown(value: &Value) -> String {
    let text = match value {
        Value::Null => return "empty".into(),
        Value::Array(_) => return "a list".into(),
        Value::Object(_) => return "a section".into(),
        other => other.to_string(),
    };
    match text.char_indices().nth(40) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

/// The line of a key in the section `influxdb`, from 1.
fn line_of(text: &str, key: &str) -> Option<usize> {
    let mut inside = false;
    for (i, line) in text.lines().enumerate() {
        let content = line.trim_start();
        if !line.starts_with([' ', '\t', '#']) && !content.is_empty() {
            inside = content.starts_with("influxdb:");
        }
        let name = content.split(':').next().unwrap_or_default().trim_matches(['"', '\'', ' ']);
        if inside && name == key {
            return Some(i + 1);
        }
    }
    None
}

/// The known key that needs the fewest changes to become this one.
fn nearest(key: &str) -> &'static str {
    KEYS.into_iter().min_by_key(|known| distance(key, known)).unwrap_or("bucket")
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
