//! What series there are: buckets, measurements, tags, fields, their types, and which series a selector means.
//! Memory only; the store file and the log tell it what to know.

use crate::error::{Error, Kind};
use crate::fields::{EntryField, Fields};
use crate::key::{Key, Packed};
use crate::record::{BucketDefinition, Definition, DefinitionRef, Tombstone};
use crate::selector::{Matcher, Selector};
use crate::tail::Tail;
use crate::value::Value;
use graylogic_line::FieldType;
use hashbrown::{DefaultHashBuilder, HashMap, HashTable};
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::BuildHasher;
use std::sync::Arc;

/// Different spellings of a series key (tags in another order) that are remembered per bucket, so that a sender who
/// shuffles tags cannot fill the memory.
const SPELLINGS_MAX: usize = 50_000;
/// A number so far beyond all others is damage.
const NUMBERS_APART_MAX: usize = 1 << 22;
/// What a key takes besides its series and its text: its head, its places in tables, what allocation rounds up.
const KEY_BYTES: usize = 176;

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
        self.key.measurement()
    }

    /// Tags in the order of their keys.
    pub fn tags(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        self.key.tags()
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
    fn order(&self, other: &Self) -> Ordering {
        let measurements = self.measurement().cmp(other.measurement());
        measurements.then_with(|| self.tags().cmp(other.tags())).then_with(|| self.field().cmp(other.field()))
    }
}

impl PartialEq for SeriesInfo {
    fn eq(&self, other: &Self) -> bool {
        self.bucket() == other.bucket() && self.order(other).is_eq()
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

/// The deletions of a series: most have none.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tombstones(
    #[expect(clippy::box_collection, reason = "one word instead of three in each of many series")]
    Option<Box<Vec<Tombstone>>>,
);

impl Tombstones {
    pub(crate) fn push(&mut self, tombstone: Tombstone) {
        self.0.get_or_insert_default().push(tombstone);
    }

    pub(crate) fn retain(&mut self, keep: impl FnMut(&Tombstone) -> bool) {
        if let Some(all) = &mut self.0 {
            all.retain(keep);
        }
        self.0.take_if(|all| all.is_empty());
    }
}

impl std::ops::Deref for Tombstones {
    type Target = [Tombstone];

    fn deref(&self) -> &[Tombstone] {
        self.0.as_ref().map_or(&[], |all| all)
    }
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
    pub(crate) tombstones: Tombstones,
    /// The tail is sealed when it has this many readings; staggered so that not all series come at once.
    pub(crate) seal_at: u32,
    /// The definition is in the store file.
    pub(crate) in_file: bool,
    /// The last record that carries the definition.
    pub(crate) defined_in: u64,
    pub(crate) newest: Newest,
    /// Counts the commits that changed its chunks: what was read of the file before one says nothing of after.
    pub(crate) commits: u32,
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
            measurement: self.info.measurement(),
            tags: self.info.key.tags(),
            field: &self.info.field,
        }
    }

    /// What the store file says of how far it is in chunks.
    pub(crate) fn sealed_state(&self) -> crate::file::SealedState {
        crate::file::SealedState {
            series: self.info.id,
            sequence: self.sealed,
            span: self.span,
            fresh: self.fresh,
            until: self.until,
        }
    }

    pub(crate) fn owned_definition(&self) -> Definition {
        let key = &self.info.key;
        Definition {
            series: self.info.id,
            bucket: key.bucket,
            field_type: self.info.field_type,
            measurement: key.measurement().to_owned(),
            tags: key.tags().map(|(k, v)| (k.to_owned(), v.to_owned())).collect(),
            field: self.info.field.to_string(),
        }
    }
}

/// A key of a bucket with its fields.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) key: Arc<Key>,
    pub(crate) fields: Fields,
}

#[derive(Debug, Default)]
struct Measurement {
    /// A field has one type in all series of the measurement.
    types: HashMap<Arc<str>, FieldType>,
    /// Places in `Bucket::entries`.
    entries: Vec<u32>,
    /// By tag key, then by tag value: which keys have it.
    postings: HashMap<Arc<str>, HashTable<Places>>,
}

/// Places in `Bucket::entries` of the keys that have a tag, which the first of them names.
#[derive(Debug)]
enum Places {
    One(u32),
    Many(Vec<u32>),
}

impl Places {
    fn all(&self) -> &[u32] {
        match self {
            Self::One(place) => std::slice::from_ref(place),
            Self::Many(places) => places,
        }
    }

    /// The value of the tag that these keys have.
    fn value<'a>(&self, tag: &str, entries: &'a [Entry]) -> &'a str {
        self.all().first().map_or("", |&place| entries[place as usize].key.tag(tag))
    }

    fn push(&mut self, place: u32) {
        match self {
            Self::One(first) => *self = Self::Many(vec![*first, place]),
            Self::Many(places) => places.push(place),
        }
    }
}

impl Measurement {
    /// Notes that the key at a place has this tag.
    fn post(
        &mut self,
        hasher: &DefaultHashBuilder,
        entries: &[Entry],
        (tag, value): (&str, &str),
        place: u32,
    ) {
        if !self.postings.contains_key(tag) {
            self.postings.insert(tag.into(), HashTable::new());
        }
        let Some(values) = self.postings.get_mut(tag) else { return };
        let hash = hasher.hash_one(value);
        match values.find_mut(hash, |places| places.value(tag, entries) == value) {
            Some(places) => places.push(place),
            None => {
                let again = |places: &Places| hasher.hash_one(places.value(tag, entries));
                values.insert_unique(hash, Places::One(place), again);
            }
        }
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
    /// Bytes of memory of keys and spellings, about.
    memory_bytes: usize,
    /// Keys by how they were spelt in line protocol, where that is not how they are packed.
    by_spelling: HashTable<(Box<[u8]>, u32)>,
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
            memory_bytes: 0,
            by_spelling: HashTable::new(),
            measurements: BTreeMap::new(),
        }
    }

    pub(crate) fn definition(&self) -> BucketDefinition {
        BucketDefinition { id: self.id, name: self.name.to_string(), retention: self.retention }
    }

    /// The key that was spelt so before.
    #[inline]
    pub(crate) fn spelt(&self, spelling: &[u8]) -> Option<u32> {
        let hash = self.hasher.hash_one(spelling);
        let same = |place: &u32| self.entries[*place as usize].key.packed().is_spelt(spelling);
        self.by_identity
            .find(hash, same)
            .or_else(|| self.by_spelling.find(hash, |s| *s.0 == *spelling).map(|s| &s.1))
            .copied()
    }

    /// The key with this measurement and these tags (in the order of their keys), made when it is new.
    pub(crate) fn key(&mut self, measurement: &str, tags: &[(&str, &str)]) -> u32 {
        debug_assert!(tags.windows(2).all(|w| w[0].0 < w[1].0), "tags come in the order of their keys");
        let text = Packed::new(measurement, tags);
        if let Some(place) = self.find(&text) {
            return place;
        }
        let place = u32::try_from(self.entries.len()).expect("fewer than 2^32 keys fit into memory");
        let hash = self.hasher.hash_one(text.bytes());
        self.memory_bytes += KEY_BYTES + text.bytes().len();
        let key = Arc::new(Key::new(self.id, self.name.clone(), text));
        let Self { by_identity, entries, hasher, measurements, .. } = self;
        entries.push(Entry { key, fields: Fields::default() });
        if !measurements.contains_key(measurement) {
            measurements.insert(measurement.into(), Measurement::default());
        }
        if let Some(of_measurement) = measurements.get_mut(measurement) {
            of_measurement.entries.push(place);
            tags.iter().for_each(|tag| of_measurement.post(hasher, entries, *tag, place));
        }
        let again = |place: &u32| hasher.hash_one(entries[*place as usize].key.packed().bytes());
        by_identity.insert_unique(hash, place, again);
        place
    }

    /// The key that is packed so.
    fn find(&self, text: &Packed) -> Option<u32> {
        let same = |place: &u32| self.entries[*place as usize].key.packed() == text;
        self.by_identity.find(self.hasher.hash_one(text.bytes()), same).copied()
    }

    /// Remembers how a key was spelt.
    pub(crate) fn learn_spelling(&mut self, spelling: &[u8], place: u32) {
        if self.spelt(spelling).is_some() {
            return;
        }
        if self.by_spelling.len() >= SPELLINGS_MAX {
            self.memory_bytes -= self.by_spelling.iter().map(|s| spelling_bytes(&s.0)).sum::<usize>();
            self.by_spelling.clear();
        }
        self.memory_bytes += spelling_bytes(spelling);
        let Self { by_spelling, hasher, .. } = self;
        let hash = hasher.hash_one(spelling);
        by_spelling.insert_unique(hash, (spelling.into(), place), |s| hasher.hash_one(&*s.0));
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

    /// How many fields a measurement has.
    pub(crate) fn fields_of(&self, measurement: &str) -> usize {
        self.measurements.get(measurement).map_or(0, |m| m.types.len())
    }

    /// The place of the key with this measurement and these tags, in the order of their keys.
    pub(crate) fn find_key(&self, measurement: &str, tags: &[(&str, &str)]) -> Option<u32> {
        self.find(&Packed::new(measurement, tags))
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
        let posted = |key: &str, value: &str| {
            let same = |p: &Places| p.value(key, &self.entries) == value;
            measurement.postings.get(key)?.find(self.hasher.hash_one(value), same)
        };
        let equal = tags.iter().filter_map(|(key, matcher)| match matcher {
            Matcher::Equal(value) if !value.is_empty() => {
                Some(posted(key, value).map_or(&[][..], Places::all))
            }
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

fn spelling_bytes(spelling: &[u8]) -> usize {
    48 + spelling.len()
}

/// All buckets and series.
#[derive(Debug, Default)]
pub(crate) struct Catalog {
    pub(crate) buckets: Vec<Bucket>,
    /// By series number; a number may be vacant.
    pub(crate) series: Vec<Option<Series>>,
    /// Series whose definition is not in the store file yet.
    pub(crate) undefined: Vec<u32>,
    /// Series that were removed with their bucket: the log may still speak of them.
    pub(crate) removed: BTreeSet<u32>,
    /// Numbers of series and buckets from these on were never given in the life of the folder.
    pub(crate) next_series: u32,
    pub(crate) next_bucket: u32,
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

    /// Bytes of memory the catalog takes, about; tails aside.
    pub(crate) fn memory_bytes(&self) -> usize {
        let keys: usize = self.buckets.iter().map(|b| b.memory_bytes).sum();
        keys + self.series.len() * size_of::<Option<Series>>()
    }

    pub(crate) fn next_bucket_id(&self) -> u32 {
        let highest = self.buckets.iter().map(|b| b.id.saturating_add(1)).max().unwrap_or(1);
        highest.max(self.next_bucket)
    }

    pub(crate) fn add_bucket(&mut self, bucket: Bucket) {
        self.next_bucket = self.next_bucket.max(bucket.id.saturating_add(1));
        self.buckets.push(bucket);
    }

    /// A number that something was known by is not given again. One far beyond the others is damage, not a number.
    pub(crate) fn note_series_number(&mut self, id: u32) {
        if (id as usize) < self.series.len().max(self.next_series as usize) + NUMBERS_APART_MAX {
            self.next_series = self.next_series.max(id.saturating_add(1));
        }
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
            entry.key = Arc::new(entry.key.renamed(bucket.name.clone()));
            for field in entry.fields.iter() {
                if let Some(series) = &mut series[field.series as usize] {
                    series.info.key = entry.key.clone();
                }
            }
        }
    }

    /// Forgets a bucket and its series, and returns their numbers.
    pub(crate) fn remove_bucket(&mut self, place: usize) -> Vec<u32> {
        let bucket = self.buckets.remove(place);
        let ids: Vec<u32> = bucket.entries.iter().flat_map(|e| e.fields.iter()).map(|f| f.series).collect();
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
        let id = self.next_series;
        self.insert_series(id, bucket, key, field, field_type);
        id
    }

    fn insert_series(&mut self, id: u32, bucket: usize, key: u32, field: &str, field_type: FieldType) {
        let bucket = &mut self.buckets[bucket];
        let entry = &mut bucket.entries[key as usize];
        let measurement = bucket
            .measurements
            .get_mut(entry.key.measurement())
            .expect("the measurement of a key was made with it");
        let name = match measurement.types.get_key_value(field) {
            Some((name, _)) => name.clone(),
            None => {
                let name: Arc<str> = Arc::from(field);
                measurement.types.insert(name.clone(), field_type);
                name
            }
        };
        entry.fields.push(EntryField { name: name.clone(), series: id, field_type });
        let info = SeriesInfo { id, key: entry.key.clone(), field: name, field_type };
        self.next_series =
            self.next_series.max(id.checked_add(1).expect("fewer than 2^32 series in the life of a store"));
        if self.series.len() <= id as usize {
            self.series.resize_with(id as usize + 1, || None);
        }
        // First seal points spread over half to whole chunks by a hash of the number.
        let spread = (u64::from(id).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 54) as u32;
        self.series[id as usize] = Some(Series {
            info,
            tail: Tail::new(field_type),
            sealing: Vec::new(),
            sealed: 0,
            span: 0,
            fresh: None,
            until: None,
            tombstones: Tombstones::default(),
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
        let known = self.buckets[bucket].entries[key as usize].fields.find(&d.field).map(|f| f.series);
        if let Some(known) = known {
            let same = self.get(known).is_some_and(|s| s.info.field_type == d.field_type);
            return if same { Ok(known) } else { say("it is known with another type") };
        }
        if self.get(d.series).is_some() {
            return say("its number belongs to another series");
        }
        // Numbers are given in order; one far beyond the others is damage, not a series.
        if d.series as usize > self.series.len().max(self.next_series as usize) + NUMBERS_APART_MAX {
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
            for field in bucket.entries[place as usize].fields.iter() {
                if selector.field.as_ref().is_none_or(|m| m.matches(&field.name))
                    && let Some(series) = self.get(field.series)
                    && series.has_readings()
                {
                    found.push(series.info.clone());
                }
            }
        }
        found.sort_unstable_by(SeriesInfo::order);
        Ok(found)
    }
}
