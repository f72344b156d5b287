//! What series there are: buckets, measurements, tags, fields, their types, and which series a selector means.
//! Memory only; the store file and the log tell it what to know.

use crate::error::{Error, Kind};
use crate::file::Tombstone;
use crate::record::{Definition, DefinitionRef, Tag};
use crate::selector::{Matcher, Selector};
use crate::tail::Tail;
use crate::value::Value;
use graylogic_line::FieldType;
use hashbrown::{DefaultHashBuilder, HashMap, HashTable};
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::Arc;

/// Different spellings of a series key (tags in another order) that are remembered per bucket, so that a sender who
/// shuffles tags cannot fill the memory.
const SPELLINGS_MAX: usize = 200_000;

/// Measurement and tags of a series, shared by its fields.
#[derive(Debug)]
pub(crate) struct Key {
    pub(crate) bucket: u32,
    pub(crate) bucket_name: Arc<str>,
    pub(crate) measurement: Arc<str>,
    /// In the order of their keys.
    pub(crate) tags: Box<[Tag]>,
}

impl Key {
    pub(crate) fn tag(&self, key: &str) -> &str {
        let place = self.tags.binary_search_by(|(k, _)| (**k).cmp(key));
        place.map_or("", |i| &self.tags[i].1)
    }
}

/// What a series is: cheap to clone.
#[derive(Clone, Debug)]
pub struct SeriesInfo {
    pub(crate) id: u32,
    pub(crate) key: Arc<Key>,
    pub(crate) field: Arc<str>,
    pub(crate) field_type: FieldType,
}

impl SeriesInfo {
    /// Name of the bucket.
    #[must_use]
    pub fn bucket(&self) -> &str {
        &self.key.bucket_name
    }

    /// Name of the measurement.
    #[must_use]
    pub fn measurement(&self) -> &str {
        &self.key.measurement
    }

    /// Tags in the order of their keys.
    pub fn tags(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        self.key.tags.iter().map(|(k, v)| (&**k, &**v))
    }

    /// The value of a tag.
    #[must_use]
    pub fn tag(&self, key: &str) -> Option<&str> {
        self.tags().find(|(k, _)| *k == key).map(|(_, v)| v)
    }

    /// Name of the field.
    #[must_use]
    pub fn field(&self) -> &str {
        &self.field
    }

    /// Type of the field's values.
    #[must_use]
    pub fn field_type(&self) -> FieldType {
        self.field_type
    }

    /// The order in which answers list series.
    fn rank(&self) -> (&str, &[Tag], &str) {
        (self.measurement(), &self.key.tags, self.field())
    }
}

impl PartialEq for SeriesInfo {
    fn eq(&self, other: &Self) -> bool {
        self.bucket() == other.bucket() && self.rank() == other.rank()
    }
}

impl Eq for SeriesInfo {}

/// What is known of the newest reading of a series outside its tail.
#[derive(Clone, Debug)]
pub(crate) enum Newest {
    /// Nobody has looked into the file yet.
    Unknown,
    /// There is none.
    Nothing,
    /// This one.
    At(i64, Value),
}

/// A series with what memory holds of it.
#[derive(Debug)]
pub(crate) struct Series {
    pub(crate) info: SeriesInfo,
    pub(crate) tail: Tail,
    /// Readings on their way from the tail into chunks, oldest first; still answered from here.
    pub(crate) sealing: Vec<Arc<Tail>>,
    /// The log's records up to this one are in chunks, as far as this series is concerned.
    pub(crate) sealed: u64,
    /// No chunk of the series is longer than this.
    pub(crate) span: i64,
    /// First time of its chunks that were not compacted yet.
    pub(crate) fresh: Option<i64>,
    /// Last time of its chunks; `None`: it has none.
    pub(crate) until: Option<i64>,
    /// Deletions that still hide something.
    pub(crate) tombstones: Vec<Tombstone>,
    /// The tail is sealed when it has this many readings; staggered so that not all series come at once.
    pub(crate) seal_at: usize,
    /// The definition is in the store file.
    pub(crate) in_file: bool,
    /// The last record that carries the definition.
    pub(crate) defined_in: u64,
    pub(crate) newest: Newest,
    /// Counts the commits that changed its chunks: what was read of the file before one says nothing of after.
    pub(crate) commits: u64,
}

impl Series {
    pub(crate) fn has_readings(&self) -> bool {
        !self.tail.is_empty() || !self.sealing.is_empty() || self.until.is_some()
    }

    /// The first record of the series that is in memory only.
    pub(crate) fn oldest_in_memory(&self) -> Option<u64> {
        let parts = self.sealing.iter().map(|t| &**t).chain(Some(&self.tail));
        parts.filter(|t| !t.is_empty()).map(|t| t.first_sequence).min()
    }

    /// Whether a record must not join the tail, because a deletion lies between them.
    pub(crate) fn must_part_before(&self, sequence: u64) -> bool {
        let between = |t: &Tombstone| self.tail.last_sequence < t.sequence && t.sequence <= sequence;
        !self.tail.is_empty() && self.tombstones.iter().any(between)
    }

    pub(crate) fn definition(&self) -> DefinitionRef<'_> {
        DefinitionRef {
            series: self.info.id,
            bucket: self.info.key.bucket,
            field_type: self.info.field_type,
            measurement: &self.info.key.measurement,
            tags: &self.info.key.tags,
            field: &self.info.field,
        }
    }

    pub(crate) fn owned_definition(&self) -> Definition {
        let key = &self.info.key;
        Definition {
            series: self.info.id,
            bucket: key.bucket,
            field_type: self.info.field_type,
            measurement: key.measurement.to_string(),
            tags: key.tags.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect(),
            field: self.info.field.to_string(),
        }
    }
}

/// A key of a bucket with its fields.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) key: Arc<Key>,
    /// In the order of their first appearance.
    pub(crate) fields: Vec<EntryField>,
}

/// A field of a key.
#[derive(Debug)]
pub(crate) struct EntryField {
    pub(crate) name: Arc<str>,
    pub(crate) series: u32,
    pub(crate) field_type: FieldType,
}

impl Entry {
    /// The series of a field, looked for from the place after the last one found: fields come in the same order.
    #[inline]
    pub(crate) fn field(&self, name: &[u8], hint: &mut usize) -> Option<&EntryField> {
        let n = self.fields.len();
        for i in 0..n {
            let place = if *hint + i < n { *hint + i } else { *hint + i - n };
            if self.fields[place].name.as_bytes() == name {
                *hint = if place + 1 == n { 0 } else { place + 1 };
                return Some(&self.fields[place]);
            }
        }
        None
    }
}

#[derive(Debug, Default)]
struct Measurement {
    /// A field has one type in all series of the measurement.
    types: HashMap<Arc<str>, FieldType>,
    /// Places in `Bucket::entries`.
    entries: Vec<u32>,
    /// Tag key, tag value, places in `Bucket::entries`. Keys share their texts with these.
    postings: HashMap<Arc<str>, HashMap<Arc<str>, Vec<u32>>>,
}

impl Measurement {
    /// Notes that a key has this tag, and returns the tag's texts as they are shared.
    fn post(&mut self, key: &str, value: &str, place: u32) -> Tag {
        let key: Arc<str> = match self.postings.get_key_value(key) {
            Some((key, _)) => key.clone(),
            None => Arc::from(key),
        };
        let values = self.postings.entry(key.clone()).or_default();
        let value = match values.get_key_value(value) {
            Some((value, _)) => value.clone(),
            None => Arc::from(value),
        };
        values.entry(value.clone()).or_default().push(place);
        (key, value)
    }
}

/// A bucket with its keys.
#[derive(Debug)]
pub(crate) struct Bucket {
    pub(crate) id: u32,
    pub(crate) name: Arc<str>,
    /// Readings older than this many nanoseconds are not shown; 0: none is too old.
    pub(crate) retention: i64,
    /// Chunks that end before this time are gone.
    pub(crate) expired_to: i64,
    pub(crate) entries: Vec<Entry>,
    /// Keys by their measurement and tags, as places in `entries`.
    by_identity: HashTable<u32>,
    hasher: DefaultHashBuilder,
    /// Keys by how they were spelt in line protocol.
    by_spelling: HashMap<Box<[u8]>, u32>,
    measurements: BTreeMap<Arc<str>, Measurement>,
}

impl Bucket {
    pub(crate) fn new(id: u32, name: &str, retention: i64) -> Self {
        Self {
            id,
            name: name.into(),
            retention,
            expired_to: i64::MIN,
            entries: Vec::new(),
            by_identity: HashTable::new(),
            hasher: DefaultHashBuilder::default(),
            by_spelling: HashMap::new(),
            measurements: BTreeMap::new(),
        }
    }

    /// The key that was spelt so before.
    #[inline]
    pub(crate) fn spelt(&self, spelling: &[u8]) -> Option<u32> {
        self.by_spelling.get(spelling).copied()
    }

    /// The key with this measurement and these tags (in the order of their keys), made when it is new.
    pub(crate) fn key(&mut self, measurement: &str, tags: &[(&str, &str)]) -> u32 {
        debug_assert!(tags.windows(2).all(|w| w[0].0 < w[1].0), "tags come in the order of their keys");
        if let Some(place) = self.find(measurement, tags) {
            return place;
        }
        let place = u32::try_from(self.entries.len()).expect("fewer than 2^32 keys fit into memory");
        let name = match self.measurements.get_key_value(measurement) {
            Some((name, _)) => name.clone(),
            None => Arc::from(measurement),
        };
        let of_measurement = self.measurements.entry(name.clone()).or_default();
        of_measurement.entries.push(place);
        let tags: Box<[Tag]> = tags.iter().map(|(k, v)| of_measurement.post(k, v, place)).collect();
        let hash = self.hash(measurement, tags.iter().map(|(k, v)| (&**k, &**v)));
        let key = Arc::new(Key { bucket: self.id, bucket_name: self.name.clone(), measurement: name, tags });
        self.entries.push(Entry { key, fields: Vec::new() });
        let Self { by_identity, entries, hasher, .. } = self;
        by_identity.insert_unique(hash, place, |&place| {
            let key = &entries[place as usize].key;
            hash_of(hasher, &key.measurement, key.tags.iter().map(|(k, v)| (&**k, &**v)))
        });
        place
    }

    fn hash<'a>(&self, measurement: &str, tags: impl Iterator<Item = (&'a str, &'a str)>) -> u64 {
        hash_of(&self.hasher, measurement, tags)
    }

    /// The key with this measurement and these tags.
    fn find(&self, measurement: &str, tags: &[(&str, &str)]) -> Option<u32> {
        let same = |place: &u32| {
            let key = &self.entries[*place as usize].key;
            &*key.measurement == measurement
                && key.tags.iter().map(|(k, v)| (&**k, &**v)).eq(tags.iter().copied())
        };
        self.by_identity.find(self.hash(measurement, tags.iter().copied()), same).copied()
    }

    /// Remembers how a key was spelt.
    pub(crate) fn learn_spelling(&mut self, spelling: &[u8], place: u32) {
        if self.by_spelling.len() >= SPELLINGS_MAX {
            self.by_spelling.clear();
        }
        self.by_spelling.insert(spelling.into(), place);
    }

    /// How many keys a measurement has.
    pub(crate) fn keys_of(&self, measurement: &str) -> usize {
        self.measurements.get(measurement).map_or(0, |m| m.entries.len())
    }

    /// The tag of a measurement with the most values, and their number: who usually has too many series.
    pub(crate) fn widest_tag(&self, measurement: &str) -> Option<(&str, usize)> {
        let postings = &self.measurements.get(measurement)?.postings;
        postings.iter().map(|(tag, values)| (&**tag, values.len())).max_by_key(|t| t.1)
    }

    /// Whether a key is known by its measurement and tags, in the order of their keys.
    pub(crate) fn knows(&self, measurement: &str, tags: &[(&str, &str)]) -> bool {
        self.find(measurement, tags).is_some()
    }

    /// The type a field of a measurement has, once it has one.
    pub(crate) fn field_type(&self, measurement: &str, field: &str) -> Option<FieldType> {
        self.measurements.get(measurement)?.types.get(field).copied()
    }

    /// The places of the keys that a selector means, in no order.
    fn select(&self, selector: &Selector) -> Vec<u32> {
        let mut places = Vec::new();
        let named = match &selector.measurement {
            Some(Matcher::Equal(name)) => {
                self.measurements.get_key_value(name.as_str()).into_iter().collect()
            }
            Some(matcher) => self.measurements.iter().filter(|(name, _)| matcher.matches(name)).collect(),
            None => self.measurements.iter().collect::<Vec<_>>(),
        };
        for (_, measurement) in named {
            self.select_in(measurement, &selector.tags, &mut places);
        }
        places
    }

    fn select_in(&self, measurement: &Measurement, tags: &[(String, Matcher)], places: &mut Vec<u32>) {
        // The rarest value asked for names the candidates; what is left is tested one by one.
        let nothing: &[u32] = &[];
        let equal = tags.iter().filter_map(|(key, matcher)| match matcher {
            Matcher::Equal(value) if !value.is_empty() => Some(
                measurement
                    .postings
                    .get(key.as_str())
                    .and_then(|v| v.get(value.as_str()))
                    .map_or(nothing, |p| p),
            ),
            _ => None,
        });
        let candidates = equal.min_by_key(|p| p.len()).unwrap_or(&measurement.entries);
        // A regular expression is run once for each value, not once for each series.
        let mut known: Vec<HashMap<&str, bool>> = vec![HashMap::new(); tags.len()];
        for &place in candidates {
            let key = &self.entries[place as usize].key;
            let all = tags.iter().zip(&mut known).all(|((tag, matcher), known)| {
                let value = key.tag(tag);
                *known.entry(value).or_insert_with(|| matcher.matches(value))
            });
            if all {
                places.push(place);
            }
        }
    }
}

fn hash_of<'a>(
    hasher: &DefaultHashBuilder,
    measurement: &str,
    tags: impl Iterator<Item = (&'a str, &'a str)>,
) -> u64 {
    let mut state = hasher.build_hasher();
    measurement.hash(&mut state);
    tags.for_each(|tag| tag.hash(&mut state));
    state.finish()
}

/// All buckets and series.
#[derive(Debug, Default)]
pub(crate) struct Catalog {
    pub(crate) buckets: Vec<Bucket>,
    /// By series number; a number may be vacant.
    pub(crate) series: Vec<Option<Series>>,
    /// Series whose definition is not in the store file yet.
    pub(crate) undefined: Vec<u32>,
    /// Series that were removed with their bucket: their numbers are not given again.
    pub(crate) removed: BTreeSet<u32>,
}

impl Catalog {
    pub(crate) fn bucket_place(&self, name: &str) -> Result<usize, Error> {
        self.buckets.iter().position(|b| &*b.name == name).ok_or_else(|| {
            Error::new(
                Kind::NotFound,
                format!("bucket {name:?} does not exist: create it, or check the name in the configuration"),
            )
        })
    }

    pub(crate) fn next_bucket_id(&self) -> u32 {
        self.buckets.iter().map(|b| b.id).max().map_or(1, |id| id + 1)
    }

    /// Gives a bucket another name.
    pub(crate) fn rename_bucket(&mut self, place: usize, name: &str) {
        let Self { buckets, series, .. } = self;
        let bucket = &mut buckets[place];
        if &*bucket.name == name {
            return;
        }
        bucket.name = name.into();
        for entry in &mut bucket.entries {
            let old = &entry.key;
            entry.key = Arc::new(Key {
                bucket: old.bucket,
                bucket_name: bucket.name.clone(),
                measurement: old.measurement.clone(),
                tags: old.tags.clone(),
            });
            for field in &entry.fields {
                if let Some(series) = &mut series[field.series as usize] {
                    series.info.key = entry.key.clone();
                }
            }
        }
    }

    /// Forgets a bucket and its series, and returns their numbers.
    pub(crate) fn remove_bucket(&mut self, place: usize) -> Vec<u32> {
        let bucket = self.buckets.remove(place);
        let ids: Vec<u32> = bucket.entries.iter().flat_map(|e| &e.fields).map(|f| f.series).collect();
        for &id in &ids {
            self.series[id as usize] = None;
        }
        self.removed.extend(&ids);
        self.undefined.retain(|id| !self.removed.contains(id));
        ids
    }

    /// The series with this number, which must exist.
    #[inline]
    pub(crate) fn series_mut(&mut self, id: u32) -> &mut Series {
        self.series[id as usize].as_mut().expect("a resolved reading names a series of the catalog")
    }

    pub(crate) fn get(&self, id: u32) -> Option<&Series> {
        self.series.get(id as usize)?.as_ref()
    }

    pub(crate) fn get_mut(&mut self, id: u32) -> Option<&mut Series> {
        self.series.get_mut(id as usize)?.as_mut()
    }

    /// Adds a field to a key under the next free number.
    pub(crate) fn add_series(&mut self, bucket: usize, key: u32, field: &str, field_type: FieldType) -> u32 {
        let mut id = u32::try_from(self.series.len()).expect("fewer than 2^32 series fit into memory");
        while self.removed.contains(&id) {
            id += 1;
        }
        self.insert_series(id, bucket, key, field, field_type);
        id
    }

    fn insert_series(&mut self, id: u32, bucket: usize, key: u32, field: &str, field_type: FieldType) {
        let bucket = &mut self.buckets[bucket];
        let entry = &mut bucket.entries[key as usize];
        let measurement = bucket
            .measurements
            .get_mut(&entry.key.measurement)
            .expect("the measurement of a key was made with it");
        let name = match measurement.types.get_key_value(field) {
            Some((name, _)) => name.clone(),
            None => {
                let name: Arc<str> = Arc::from(field);
                measurement.types.insert(name.clone(), field_type);
                name
            }
        };
        // Most keys have one field or few.
        entry.fields.reserve_exact(1);
        entry.fields.push(EntryField { name: name.clone(), series: id, field_type });
        let info = SeriesInfo { id, key: entry.key.clone(), field: name, field_type };
        if self.series.len() <= id as usize {
            self.series.resize_with(id as usize + 1, || None);
        }
        // First seal points spread over half to whole chunks by a hash of the number.
        let spread = (u64::from(id).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 54) as usize;
        self.series[id as usize] = Some(Series {
            info,
            tail: Tail::new(field_type),
            sealing: Vec::new(),
            sealed: 0,
            span: 0,
            fresh: None,
            until: None,
            tombstones: Vec::new(),
            seal_at: 1024 + spread,
            in_file: false,
            defined_in: 0,
            newest: Newest::Nothing,
            commits: 0,
        });
    }

    /// Makes known what a definition says, from the file or from the log. `Err` says why it cannot be.
    pub(crate) fn define(&mut self, d: &Definition) -> Result<u32, String> {
        let say = |why: &str| Err(format!("series {} ({} {}): {why}", d.series, d.measurement, d.field));
        if self.removed.contains(&d.series) {
            return say("it was removed with its bucket");
        }
        let Some(bucket) = self.buckets.iter().position(|b| b.id == d.bucket) else {
            return say("its bucket is not in the catalog");
        };
        let mut tags: Vec<(&str, &str)> = d.tags.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        tags.sort_unstable();
        tags.dedup_by(|b, a| a.0 == b.0);
        let key = self.buckets[bucket].key(&d.measurement, &tags);
        let known =
            self.buckets[bucket].entries[key as usize].field(d.field.as_bytes(), &mut 0).map(|f| f.series);
        if let Some(known) = known {
            let same = self.get(known).is_some_and(|s| s.info.field_type == d.field_type);
            return if same { Ok(known) } else { say("it is known with another type") };
        }
        if self.get(d.series).is_some() {
            return say("its number belongs to another series");
        }
        // Numbers are given in order; one far beyond the others is damage, not a series.
        if d.series as usize > self.series.len() + (1 << 22) {
            return say("its number is out of bounds");
        }
        if self.buckets[bucket].field_type(&d.measurement, &d.field).is_some_and(|t| t != d.field_type) {
            return say("its field has another type in this measurement");
        }
        self.insert_series(d.series, bucket, key, &d.field, d.field_type);
        Ok(d.series)
    }

    /// The series a selector means that have readings, in the order of measurement, tags, field.
    pub(crate) fn select(&self, selector: &Selector) -> Result<Vec<SeriesInfo>, Error> {
        let bucket = &self.buckets[self.bucket_place(&selector.bucket)?];
        let mut found = Vec::new();
        for place in bucket.select(selector) {
            for field in &bucket.entries[place as usize].fields {
                if selector.field.as_ref().is_none_or(|m| m.matches(&field.name))
                    && let Some(series) = self.get(field.series)
                    && series.has_readings()
                {
                    found.push(series.info.clone());
                }
            }
        }
        found.sort_unstable_by(|a, b| a.rank().cmp(&b.rank()));
        Ok(found)
    }
}
