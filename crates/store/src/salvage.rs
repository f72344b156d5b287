//! What can still be read of a damaged store goes into a new one. The damaged one is only read, without SQLite: rows are
//! known by their checksums and chunks by their frames, wherever they lie.

mod btree;
mod carve;
mod catalog;
mod log;
mod losses;
mod pages;
mod payload;
mod plan;
mod rebuild;
mod rows;
mod series;
mod tree;

use crate::error::{Error, Kind};
use crate::file::{Commit, SealedState, StoreFile, StoredBucket};
use crate::mark::{Mark, new_identity};
use crate::record::Definition;
use catalog::Tables;
use graylogic_line::FieldType;
use log::LogRows;
use losses::Losses;
use pages::Pages;
use plan::Plan;
pub(crate) use rebuild::{KnownSeries, Rebuilt, rebuild};
use series::{Saved, Series};
use std::collections::BTreeMap;
use std::path::Path;

/// What [`Store::salvage`](crate::Store::salvage) saved.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Salvaged {
    /// Series.
    pub series: u64,
    /// Chunks, and the readings in them.
    pub chunks: u64,
    /// Readings.
    pub readings: u64,
    /// Segments of the hot log that were read.
    pub segments: u64,
    /// Of the readings, those that only the hot log had.
    pub log_readings: u64,
    /// Of the readings, those that no table vouches for: some of them may have been deleted earlier.
    pub doubtful_readings: u64,
    /// What could not be saved, and what may not be as it was, one sentence each: at most 100, and one that counts the
    /// others.
    pub lost: Vec<String>,
    /// How many losses there are.
    pub lost_count: u64,
    /// Readings that are known to be lost.
    pub lost_readings: u64,
}

/// So many chunks go into the new file in one commit.
const CHUNKS_PER_COMMIT: usize = 256;
/// Where series go of which nothing but readings is left.
const SALVAGED: &str = "salvaged";
const UNKNOWN_SERIES: &str = "unknown_series";

/// Copies what is good from one folder into another, which must be empty or new.
pub(crate) fn run(from: &Path, to: &Path) -> Result<Salvaged, Error> {
    let file = from.join("store.sqlite");
    let pages = Pages::open(&file)
        .map_err(|e| Error::io(format_args!("read the damaged store file {}", file.display()), e))?;
    let segments = log::segments(&from.join("log"))?;
    if pages.last() == 0 && segments.len() == 0 {
        return Err(Error::new(
            Kind::NotFound,
            format!(
                "salvage {}: there is neither a store file nor a hot log; name the folder of a store",
                from.display()
            ),
        ));
    }
    let making = |e| Error::io(format_args!("make {}", to.display()), e);
    std::fs::create_dir_all(to).map_err(making)?;
    if std::fs::read_dir(to).map_err(making)?.next().is_some() {
        return Err(Error::new(
            Kind::Exists,
            format!("salvage into {}: the folder is not empty; name a new one", to.display()),
        ));
    }
    let tables =
        catalog::read(&pages, segments.newest_commit(catalog::identity(&pages).or(segments.identity())));
    let identity = tables.mark.as_ref().map(|m| m.identity).or(segments.identity());
    let log = log::read(segments, identity);
    let carved = carve::carve(&pages, tables.packs_root);
    let plan = plan::plan(&tables, &carved);
    let new = StoreFile::open_with(&to.join("store.sqlite"), &Mark::new(new_identity()))?;
    // What was given once is not given again, in case what is left out here turns up.
    tables.mark.iter().chain(&log.mark).for_each(|mark| new.raise(mark));
    let mut rescue = Rescue {
        pages,
        tables,
        carved,
        log,
        new,
        buckets: BTreeMap::new(),
        nameless: 0,
        saved: Salvaged::default(),
        losses: Losses::default(),
    };
    rescue.name_set_aside(from);
    rescue.name_damage(&plan);
    rescue.save(&plan)?;
    rescue.new.close()?;
    let mut saved = rescue.saved;
    saved.segments = rescue.log.segments;
    saved.lost_readings = rescue.losses.readings;
    (saved.lost, saved.lost_count) = rescue.losses.end();
    Ok(saved)
}

/// A store on its way from one folder into another.
struct Rescue {
    pages: Pages,
    tables: Tables,
    carved: carve::Carved,
    log: LogRows,
    new: StoreFile,
    /// Buckets of the new store.
    buckets: BTreeMap<u32, String>,
    /// Number of the bucket for series of which nothing but readings is left.
    nameless: u32,
    saved: Salvaged,
    losses: Losses,
}

impl Rescue {
    /// Names store files that opening has set aside: they are stores of their own to salvage.
    fn name_set_aside(&mut self, from: &Path) {
        let folder = from.join(crate::aside::DAMAGED);
        let names = std::fs::read_dir(&folder).into_iter().flatten().filter_map(Result::ok);
        for entry in names.filter(|e| e.file_name().to_string_lossy().starts_with(crate::aside::STORE_FILE)) {
            self.losses.add(0, || {
                let name = entry.file_name();
                format!(
                    "{} was set aside when the store was opened; what it holds is saved by salvage of a folder that has it as {}: of {}, for instance",
                    Path::new(&name).display(),
                    crate::aside::STORE_FILE,
                    folder.display()
                )
            });
        }
    }

    /// Names what is damaged whatever series it belongs to.
    fn name_damage(&mut self, plan: &Plan) {
        let (tables, losses) = (&self.tables, &mut self.losses);
        if let Some(why) = &tables.doubt {
            losses.add(0, || format!("store file: {why}; readings that were deleted may be shown again"));
        } else if !tables.missing_tombstones.is_empty() {
            let what = "store file: some deletions cannot be read; what they deleted may be shown again";
            losses.add(0, || what.into());
        }
        let some_chunks = !tables.missing_chunks.is_empty() && !self.carved.missing.is_empty();
        if some_chunks {
            let what = "store file: tables of chunks and of packs are damaged; chunks that left no trace are not counted";
            losses.add(0, || what.into());
        }
        for (pack, bytes) in plan.unknown.iter().filter(|_| !tables.missing_chunks.is_empty()) {
            losses.add(0, || {
                format!("store file: pack {pack} with {bytes} bytes holds chunks that no row tells of")
            });
        }
        if plan.foreign > 0 {
            losses.add(0, || format!("store file: {} chunks of another store were left out", plan.foreign));
        }
        for what in std::mem::take(&mut self.log.damage) {
            losses.add(0, || what);
        }
        for table in &tables.differing {
            losses.add(0, || {
                format!("store file: the table {table} is not what it was; rows of it are lost or old")
            });
        }
        if let Some(segment) = self.log.missing_segment(tables.mark.as_ref()) {
            let what = format!("hot log: segment {segment:016x} and what followed it are gone");
            losses.add(0, || what);
        }
        for (first, count) in self.log.missing(tables.mark.as_ref()) {
            losses.add(count, || {
                let last = first + count - 1;
                format!("hot log: {count} values that were not in chunks are gone, numbers {first} to {last}")
            });
        }
        let in_chunks = tables.sealed.values().map(|s| s.sequence).max().unwrap_or(0);
        for &(first, count) in &self.log.gaps {
            let lost = if first > in_chunks { count } else { 0 };
            losses.add(lost, || {
                let last = first + count - 1;
                format!("hot log: {count} values, numbers {first} to {last}, are damaged; those that are in chunks are saved")
            });
        }
    }

    fn save(&mut self, plan: &Plan) -> Result<(), Error> {
        let definitions = self.definitions(plan);
        let all: Vec<StoredBucket> =
            self.tables.buckets.values().filter(|b| b.reached).map(|b| b.row.clone()).collect();
        for bucket in all {
            self.bucket(bucket.id)?;
        }
        for id in std::mem::take(&mut self.tables.damaged_buckets) {
            self.bucket(id)?;
        }
        let removed: Vec<u32> = self.tables.removed.iter().copied().collect();
        self.new.reserve(&removed)?;
        let mut commit = Commit::default();
        for definition in definitions.values() {
            self.bucket(definition.bucket)?;
            self.series(plan, definition, &mut commit)?;
        }
        self.new.commit(&commit)
    }

    /// All series that are there, or that readings are left of.
    fn definitions(&mut self, plan: &Plan) -> BTreeMap<u32, Definition> {
        let mut found = BTreeMap::new();
        let removed = &self.tables.removed;
        // What a removed bucket held has no bucket any more.
        let buckets_known = self.tables.missing_buckets.is_empty() && self.tables.doubt.is_none();
        let has_bucket = |d: &Definition| {
            !buckets_known
                || self.tables.buckets.get(&d.bucket).is_some_and(|b| b.reached)
                || self.tables.damaged_buckets.contains(&d.bucket)
        };
        let has_readings = |id: &u32| plan.series.contains_key(id) || self.log.rows.contains_key(id);
        for (id, known) in &self.tables.series {
            let wanted = known.reached || (has_readings(id) && has_bucket(&known.row));
            if wanted && !removed.contains(id) {
                found.insert(*id, known.row.clone());
            }
        }
        for definition in &self.log.definitions {
            let id = definition.series;
            if !removed.contains(&id) && has_bucket(definition) && has_readings(&id) {
                found.entry(id).or_insert_with(|| definition.clone());
            }
        }
        let buckets = found.values().map(|d: &Definition| d.bucket);
        let buckets = buckets.chain(self.tables.buckets.keys().chain(&self.tables.damaged_buckets).copied());
        self.nameless = buckets.max().unwrap_or(0).saturating_add(1);
        let mut unknown = Vec::new();
        for (id, candidates) in &plan.series {
            let any_live = candidates.iter().any(|c| c.is_live);
            let may_be =
                any_live || self.tables.doubt.is_some() || self.tables.missing_series.of_row(i64::from(*id));
            let is_removed = removed.contains(id) || self.tables.series.contains_key(id);
            if !found.contains_key(id) && !is_removed && may_be {
                let field_type = candidates.iter().find_map(|c| series::type_of(&self.pages, c));
                let readings: u64 = candidates.iter().filter_map(|c| c.row).map(|r| r.readings).sum();
                unknown.push((*id, field_type, readings));
            }
        }
        for (id, rows) in &self.log.rows {
            if !found.contains_key(id) && !removed.contains(id) && !self.tables.series.contains_key(id) {
                unknown.push((*id, rows.first().map(|r| r.value.field_type()), rows.len() as u64));
            }
        }
        for (id, field_type, readings) in unknown {
            match field_type {
                Some(field_type) if !found.contains_key(&id) => {
                    found.insert(id, unknown_series(id, self.nameless, field_type));
                    self.losses.add(0, || {
                        format!("series {id}: its name is lost; it is {UNKNOWN_SERIES},series={id} in bucket {SALVAGED:?} now")
                    });
                }
                Some(_) => {}
                None => self.losses.add(readings, || {
                    format!("series {id}: its name and the bytes of its readings are lost")
                }),
            }
        }
        found
    }

    /// Makes a bucket in the new store, under its own name if that is known.
    fn bucket(&mut self, id: u32) -> Result<(), Error> {
        if self.buckets.contains_key(&id) {
            return Ok(());
        }
        let known = self.tables.buckets.get(&id).map(|b| b.row.clone());
        let known = known.or_else(|| self.log.buckets.iter().rfind(|b| b.id == id).cloned());
        let taken = |name: &str| self.buckets.values().any(|b| b == name);
        let bucket = match known.filter(|b| !taken(&b.name)) {
            Some(bucket) => bucket,
            None if id == self.nameless && !taken(SALVAGED) => {
                StoredBucket { id, name: SALVAGED.into(), retention: 0 }
            }
            None => {
                let name = format!("{SALVAGED}-{id}");
                self.losses.add(0, || {
                    format!("bucket {id}: its name and retention are lost; it is called {name:?} now")
                });
                StoredBucket { id, name, retention: 0 }
            }
        };
        self.new.insert_bucket(bucket.id, &bucket.name, bucket.retention)?;
        self.buckets.insert(id, bucket.name);
        Ok(())
    }

    fn series(&mut self, plan: &Plan, definition: &Definition, commit: &mut Commit) -> Result<(), Error> {
        let id = definition.series;
        let state = self.tables.sealed.get(&id);
        let all = self.tables.tombstones.iter().chain(&self.log.tombstones);
        let mut tombstones: Vec<_> = all.filter(|t| t.series == id).copied().collect();
        tombstones.sort_by_key(|t| (t.sequence, t.start, t.stop));
        tombstones.dedup();
        let series = Series {
            pages: &self.pages,
            carved: &self.carved,
            definition,
            sealed: state.map_or(0, |s| s.sequence),
            tombstones: &tombstones,
            may_miss: self.tables.doubt.is_some() || !self.tables.missing_chunks.is_empty(),
        };
        let candidates = plan.series.get(&id).map(Vec::as_slice).unwrap_or_default();
        let log = self.log.rows.get(&id).map(Vec::as_slice).unwrap_or_default();
        let saved = series.save(candidates, log, &mut self.losses);
        self.count(definition, &saved);
        let mut sealed =
            SealedState { series: id, sequence: saved.sequence, span: 0, fresh: None, until: None };
        for chunk in &saved.chunks {
            sealed.span = sealed.span.max(chunk.t1.saturating_sub(chunk.t0));
            sealed.until = sealed.until.max(Some(chunk.t1));
            if chunk.level == 0 {
                sealed.fresh = Some(sealed.fresh.map_or(chunk.t0, |t: i64| t.min(chunk.t0)));
            }
        }
        commit.definitions.push(definition.clone());
        commit.tombstones.extend(tombstones);
        commit.sealed.push(sealed);
        commit.chunks.extend(saved.chunks);
        if commit.chunks.len() >= CHUNKS_PER_COMMIT {
            self.new.commit(&std::mem::take(commit))?;
        }
        Ok(())
    }

    fn count(&mut self, definition: &Definition, saved: &Saved) {
        self.saved.series += 1;
        self.saved.chunks += saved.chunks.len() as u64;
        self.saved.readings += saved.chunks.iter().map(|c| c.summary.count).sum::<u64>();
        self.saved.log_readings += saved.from_log;
        self.saved.doubtful_readings += saved.doubtful;
        if saved.doubtful > 0 {
            let (measurement, field, count) = (&definition.measurement, &definition.field, saved.doubtful);
            self.losses.add(0, || {
                format!(
                    "series {} ({measurement} {field}): {count} readings were saved that no table vouches for; some may have been deleted",
                    definition.series
                )
            });
        }
    }
}

/// A name for a series that has lost its own.
fn unknown_series(id: u32, bucket: u32, field_type: FieldType) -> Definition {
    let field = match field_type {
        FieldType::Float => "float",
        FieldType::Integer => "integer",
        FieldType::Unsigned => "unsigned",
        FieldType::Boolean => "boolean",
        FieldType::String => "string",
    };
    Definition {
        series: id,
        bucket,
        field_type,
        measurement: UNKNOWN_SERIES.into(),
        tags: vec![("series".into(), id.to_string())],
        field: field.into(),
    }
}
