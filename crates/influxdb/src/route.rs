//! Rules that say where a reading goes: by its measurement, its tags and its class. Pure: it knows neither lanes nor
//! servers, and compares texts without keeping any.

use graylogic_domain::{DEVICE_METRICS, ENERGY, PHM};

/// The name of the target that the section `influxdb` itself describes.
pub(crate) const MAIN: &str = "main";
/// Most rules of a client, and most destinations of a rule.
pub(crate) const ROUTES_MAX: usize = 256;
pub(crate) const DESTINATIONS_MAX: usize = 16;

/// A rule: which readings it fits, and where these go.
///
/// The first rule that fits a reading decides. A rule may have several destinations: then the reading goes to each. A
/// reading that no rule fits goes to the bucket of the main target.
///
/// ```
/// use graylogic_influxdb::{Class, Client, Config, Route};
/// use std::time::Duration;
///
/// let folder = tempfile::tempdir()?;
/// let config = Config::embedded(folder.path().join("main"))
///     .with_further_target("copy", Config::embedded(folder.path().join("copy")))
///     .with_route(Route::to(["main/energy", "copy"]).class(Class::Energy))
///     .with_route(Route::to(["copy"]).measurement("test*").tag("site", "north"));
/// let client = Client::connect(&config)?;
/// client.write_energy_metric("hvac-main", 450.0, None)?; // to two places
/// client.write_device_metric("light-living-1", "level", 50.0)?; // to the bucket of the main target
/// assert_eq!(client.close(Duration::from_secs(10))?.delivered, 3);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    measurement: Option<Pattern>,
    tags: Vec<(String, Pattern)>,
    class: Option<Class>,
    to: Vec<Destination>,
}

/// What a reading is about, as its measurement says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Class {
    /// A device: what [`write_device_metric`](crate::Client::write_device_metric) writes.
    Device,
    /// Power and energy: what [`write_energy_metric`](crate::Client::write_energy_metric) writes.
    Energy,
    /// The health of a machine: what [`write_phm_metric`](crate::Client::write_phm_metric) writes.
    Phm,
    /// Everything else.
    Custom,
}

/// A target, and a bucket of it in place of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Destination {
    pub(crate) target: String,
    pub(crate) bucket: Option<String>,
}

/// A text, or with a `*` at its end everything that begins with it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Pattern(String);

impl Route {
    /// A rule for every reading, until conditions are added; each destination is `TARGET` or `TARGET/BUCKET`, where the
    /// target of the section `influxdb` itself is `main`.
    #[must_use]
    pub fn to<D: AsRef<str>>(destinations: impl IntoIterator<Item = D>) -> Self {
        let to = destinations.into_iter().map(|d| Destination::of(d.as_ref())).collect();
        Self { measurement: None, tags: Vec::new(), class: None, to }
    }

    /// Only readings of this measurement; with a `*` at its end, of all that begin so.
    #[must_use]
    pub fn measurement(mut self, pattern: impl Into<String>) -> Self {
        self.measurement = Some(Pattern(pattern.into()));
        self
    }

    /// Only readings with this tag; with a `*` at the end of the value, with all values that begin so.
    #[must_use]
    pub fn tag(mut self, key: impl Into<String>, pattern: impl Into<String>) -> Self {
        self.tags.push((key.into(), Pattern(pattern.into())));
        self
    }

    /// Only readings of this class.
    #[must_use]
    pub fn class(mut self, class: Class) -> Self {
        self.class = Some(class);
        self
    }

    /// Whether the rule is for a reading of this measurement and these tags.
    pub(crate) fn fits<K: AsRef<str>, V: AsRef<str>>(&self, measurement: &str, tags: &[(K, V)]) -> bool {
        let has = |(key, pattern): &(String, Pattern)| {
            let tag = tags.iter().find(|(k, _)| k.as_ref() == key);
            tag.is_some_and(|(_, value)| pattern.fits(value.as_ref()))
        };
        self.class.is_none_or(|c| c == Class::of(measurement))
            && self.measurement.as_ref().is_none_or(|p| p.fits(measurement))
            && self.tags.iter().all(has)
    }

    pub(crate) fn destinations(&self) -> &[Destination] {
        &self.to
    }

    /// Leaves out the destinations that do not stay.
    pub(crate) fn retain(&mut self, stays: impl FnMut(&Destination) -> bool) {
        self.to.retain(stays);
    }

    pub(crate) fn is_for_all(&self) -> bool {
        self.class.is_none() && self.measurement.is_none() && self.tags.is_empty()
    }

    /// Whether it fits the same readings as another, by the same conditions.
    pub(crate) fn asks_the_same(&self, other: &Self) -> bool {
        let within = |a: &Self, b: &Self| a.tags.iter().all(|t| b.tags.contains(t));
        self.class == other.class
            && self.measurement == other.measurement
            && within(self, other)
            && within(other, self)
    }

    /// What is wrong with its conditions: the key, and a sentence.
    pub(crate) fn mistake(&self) -> Option<(&'static str, String)> {
        if let Some(pattern) = &self.measurement {
            if let Some(why) = pattern.mistake() {
                return Some(("measurement", why));
            }
            if let Some(class) = self.class.filter(|c| !pattern.can_be(*c)) {
                let shown = &pattern.0;
                let why =
                    format!("is {shown:?}, which is no measurement of class {}; leave one out", class.key());
                return Some(("measurement", why));
            }
        }
        for (i, (key, pattern)) in self.tags.iter().enumerate() {
            if key.is_empty() {
                return Some(("tags", "has a tag without a name; give it one".into()));
            }
            if self.tags[..i].iter().any(|t| t.0 == *key) {
                return Some(("tags", format!("names {key:?} twice; leave one out")));
            }
            if let Some(why) = pattern.mistake() {
                return Some(("tags", format!("gives {key:?} a value that {why}")));
            }
        }
        None
    }
}

impl Class {
    const ALL: [Self; 4] = [Self::Device, Self::Energy, Self::Phm, Self::Custom];

    /// The class of a measurement.
    pub(crate) fn of(measurement: &str) -> Self {
        match measurement {
            DEVICE_METRICS => Self::Device,
            ENERGY => Self::Energy,
            PHM => Self::Phm,
            _ => Self::Custom,
        }
    }

    /// The word for it in a configuration.
    fn key(self) -> &'static str {
        match self {
            Self::Device => "device",
            Self::Energy => "energy",
            Self::Phm => "phm",
            Self::Custom => "custom",
        }
    }

    /// The class that a word of a configuration means.
    pub(crate) fn from_key(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|c| c.key() == word)
    }

    /// Its measurement, when it has only one.
    fn measurement(self) -> Option<&'static str> {
        match self {
            Self::Device => Some(DEVICE_METRICS),
            Self::Energy => Some(ENERGY),
            Self::Phm => Some(PHM),
            Self::Custom => None,
        }
    }
}

impl Destination {
    fn of(text: &str) -> Self {
        match text.split_once('/') {
            Some((target, bucket)) => Self { target: target.to_owned(), bucket: Some(bucket.to_owned()) },
            None => Self { target: text.to_owned(), bucket: None },
        }
    }
}

impl Pattern {
    fn fits(&self, text: &str) -> bool {
        match self.0.strip_suffix('*') {
            Some(begin) => text.starts_with(begin),
            None => text == self.0,
        }
    }

    /// Whether it fits any measurement of a class.
    fn can_be(&self, class: Class) -> bool {
        match class.measurement() {
            Some(measurement) => self.fits(measurement),
            // What ends in a star fits more than the names of the schema.
            None => self.0.ends_with('*') || Class::of(&self.0) == class,
        }
    }

    fn mistake(&self) -> Option<String> {
        let shown = &self.0;
        match shown.find('*') {
            _ if shown.is_empty() => Some("is empty; give a text, or \"*\" for any".into()),
            Some(at) if at + 1 < shown.len() => {
                Some(format!("is {shown:?}; a * stands only once, at the end"))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_fits_when_all_its_conditions_do() {
        let all = || Route::to(["main"]);
        let check = |route: Route, measurement: &str, tags: &[(&str, &str)], expected: bool| {
            assert_eq!(route.fits(measurement, tags), expected, "{route:?} {measurement} {tags:?}");
        };
        check(all(), "m", &[], true);
        check(all().measurement("energy"), "energy", &[], true);
        check(all().measurement("energy"), "energy2", &[], false);
        check(all().measurement("energy*"), "energy2", &[], true);
        check(all().measurement("energy*"), "energy", &[], true);
        check(all().measurement("energy*"), "energ", &[], false);
        check(all().measurement("*"), "", &[], true);
        check(all().tag("site", "north*"), "m", &[("site", "north-1")], true);
        check(all().tag("site", "north*"), "m", &[("a", "b"), ("site", "north")], true);
        check(all().tag("site", "north*"), "m", &[("site", "south")], false);
        check(all().tag("site", "*"), "m", &[("site2", "x")], false);
        check(all().tag("site", "*"), "m", &[], false);
        check(all().tag("a", "1").tag("b", "2"), "m", &[("b", "2"), ("a", "1")], true);
        check(all().tag("a", "1").tag("b", "2"), "m", &[("b", "2")], false);
        check(all().class(Class::Device), "device_metrics", &[], true);
        check(all().class(Class::Energy), "energy", &[], true);
        check(all().class(Class::Phm), "phm", &[], true);
        check(all().class(Class::Custom), "phm", &[], false);
        check(all().class(Class::Custom), "phm2", &[], true);
        check(all().class(Class::Energy).tag("d", "a"), "energy", &[("d", "b")], false);
    }
}
