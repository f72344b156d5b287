//! Which series a question is about: bucket, measurement, field and tag matchers. Knows nothing of storage.

use crate::error::Error;
use regex::Regex;

/// Which series a question is about.
///
/// Without a measurement, field or tag matcher it means every series of the bucket. Matchers are joined by *and*.
///
/// ```
/// use graylogic_store::{Matcher, Selector};
///
/// let selector = Selector::bucket("telemetry")
///     .measurement("energy")
///     .field("power_watts")
///     .tag("device_id", Matcher::equal("hvac-main"))
///     .tag("room", Matcher::regex("^(kitchen|bath)$")?);
/// # let _ = selector;
/// # Ok::<(), graylogic_store::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Selector {
    pub(crate) bucket: String,
    pub(crate) measurement: Option<Matcher>,
    pub(crate) field: Option<Matcher>,
    pub(crate) tags: Vec<(String, Matcher)>,
}

impl Selector {
    /// Every series of the bucket with this name.
    #[must_use]
    pub fn bucket(name: impl Into<String>) -> Self {
        Self { bucket: name.into(), measurement: None, field: None, tags: Vec::new() }
    }

    /// The quarantined readings of the bucket instead of its own.
    #[must_use]
    pub fn quarantined(mut self) -> Self {
        self.bucket = crate::quarantine::quarantine_of(&self.bucket);
        self
    }

    /// Only series of the measurement with this name.
    #[must_use]
    pub fn measurement(self, name: impl Into<String>) -> Self {
        self.measurement_matching(Matcher::equal(name))
    }

    /// Only series whose measurement matches.
    #[must_use]
    pub fn measurement_matching(mut self, matcher: Matcher) -> Self {
        self.measurement = Some(matcher);
        self
    }

    /// Only the field with this name.
    #[must_use]
    pub fn field(self, name: impl Into<String>) -> Self {
        self.field_matching(Matcher::equal(name))
    }

    /// Only fields whose name matches.
    #[must_use]
    pub fn field_matching(mut self, matcher: Matcher) -> Self {
        self.field = Some(matcher);
        self
    }

    /// Only series whose tag `key` matches. A series without the tag counts as having the empty value, as in InfluxQL.
    #[must_use]
    pub fn tag(mut self, key: impl Into<String>, matcher: Matcher) -> Self {
        self.tags.push((key.into(), matcher));
        self
    }
}

/// A test on a tag value, measurement or field name.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Matcher {
    /// The value is this one.
    Equal(String),
    /// The value is any but this one.
    NotEqual(String),
    /// The value matches the regular expression somewhere (unanchored, RE2 syntax).
    Regex(Regex),
    /// The value matches the regular expression nowhere.
    NotRegex(Regex),
}

impl Matcher {
    /// Matches exactly this value.
    #[must_use]
    pub fn equal(value: impl Into<String>) -> Self {
        Self::Equal(value.into())
    }

    /// Matches every value but this one.
    #[must_use]
    pub fn not_equal(value: impl Into<String>) -> Self {
        Self::NotEqual(value.into())
    }

    /// Matches values in which the regular expression is found.
    ///
    /// # Errors
    /// [`Error::is_invalid`] when the expression does not compile.
    pub fn regex(pattern: &str) -> Result<Self, Error> {
        compile(pattern).map(Self::Regex)
    }

    /// Matches values in which the regular expression is not found.
    ///
    /// # Errors
    /// [`Error::is_invalid`] when the expression does not compile.
    pub fn not_regex(pattern: &str) -> Result<Self, Error> {
        compile(pattern).map(Self::NotRegex)
    }

    /// Whether `value` passes the test.
    #[must_use]
    pub fn matches(&self, value: &str) -> bool {
        match self {
            Self::Equal(v) => v == value,
            Self::NotEqual(v) => v != value,
            Self::Regex(r) => r.is_match(value),
            Self::NotRegex(r) => !r.is_match(value),
        }
    }
}

fn compile(pattern: &str) -> Result<Regex, Error> {
    Regex::new(pattern).map_err(|e| Error::invalid(format!("regular expression {pattern:?}: {e}")))
}
