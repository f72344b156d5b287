//! What can still be read of a damaged store file goes into a new one. The damaged one is only read.

use crate::chunk;
use crate::column::COLUMN_VALUES_MAX;
use crate::error::{Error, Kind};
use crate::file::{Commit, Damaged, NewChunk, SealedState, StoreFile};
use crate::halves;
use crate::mark::{Mark, new_identity};
use graylogic_durable::RealDisk;
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
    /// Segments of the hot log, copied as they are.
    pub segments: u64,
    /// What could not be saved, one sentence each.
    pub lost: Vec<String>,
}

/// So many chunks go into the new file in one commit.
const CHUNKS_PER_COMMIT: usize = 256;

/// Copies what is good from one folder into another, which must be empty or new.
pub(crate) fn run(from: &Path, to: &Path) -> Result<Salvaged, Error> {
    let making = |e| Error::io(format_args!("make {}", to.display()), e);
    std::fs::create_dir_all(to).map_err(making)?;
    if std::fs::read_dir(to).map_err(making)?.next().is_some() {
        return Err(Error::new(
            Kind::Exists,
            format!("salvage into {}: the folder is not empty; name a new one", to.display()),
        ));
    }
    let mut saved = Salvaged::default();
    let old = Damaged::open(&from.join("store.sqlite"))?;
    // The log is taken along as it is: the new file must belong to it.
    let ids = halves::ids_of(&RealDisk, from)?;
    let new = Mark {
        shared_log_id: ids.iter().any(|s| s.1 == Some(halves::SHARED_LOG_ID)),
        // No mark of the log is newer.
        commit: 1 << 40,
        ..Mark::new(halves::own_id(&ids).unwrap_or_else(new_identity))
    };
    let new = StoreFile::open_with(&to.join("store.sqlite"), &new)?;
    let mut buckets = Vec::new();
    for bucket in old.buckets(&mut saved.lost) {
        new.insert_bucket(bucket.id, &bucket.name, bucket.retention)?;
        buckets.push(bucket.id);
    }
    let (tombstones, removed) = (old.tombstones(&mut saved.lost), old.removed());
    new.commit(&Commit { tombstones, ..Commit::default() })?;
    new.reserve(&removed)?;
    let mut commit = Commit::default();
    for stored in old.series(&mut saved.lost) {
        saved.series += 1;
        let definition = stored.definition.clone();
        let id = definition.series;
        if !buckets.contains(&definition.bucket) {
            let name = format!("salvaged-{}", definition.bucket);
            saved.lost.push(format!("the name of bucket {}: it is called {name} now", definition.bucket));
            new.insert_bucket(definition.bucket, &name, 0)?;
            buckets.push(definition.bucket);
        }
        let mut state =
            SealedState { series: id, sequence: stored.sealed, span: 0, fresh: None, until: None };
        commit.definitions.push(definition);
        for (meta, bytes, hours) in old.chunks(id, stored.definition.field_type, &mut saved.lost) {
            if chunk::decode_as(&bytes, stored.definition.field_type).is_err() {
                saved.lost.push(format!("chunk {} of series {id}: its bytes are damaged", meta.id));
                continue;
            }
            saved.chunks += 1;
            saved.readings += meta.summary.count.min(COLUMN_VALUES_MAX as u64);
            state.sequence = state.sequence.max(meta.sequence);
            state.span = state.span.max(meta.t1.saturating_sub(meta.t0));
            state.until = state.until.max(Some(meta.t1));
            if meta.level == 0 {
                state.fresh = Some(state.fresh.map_or(meta.t0, |t: i64| t.min(meta.t0)));
            }
            commit.chunks.push(NewChunk {
                series: id,
                t0: meta.t0,
                t1: meta.t1,
                sequence: meta.sequence,
                summary: meta.summary,
                level: meta.level,
                hours,
                bytes,
            });
            if commit.chunks.len() >= CHUNKS_PER_COMMIT {
                new.commit(&std::mem::take(&mut commit))?;
            }
        }
        commit.sealed.push(state);
    }
    new.commit(&commit)?;
    new.close()?;
    let copying = |e| Error::io(format_args!("copy the hot log to {}", to.display()), e);
    let log = to.join("log");
    std::fs::create_dir_all(&log).map_err(copying)?;
    for entry in std::fs::read_dir(from.join("log")).into_iter().flatten() {
        let path = entry.map_err(copying)?.path();
        if let Some(name) = path.file_name().filter(|_| path.is_file()) {
            std::fs::copy(&path, log.join(name)).map_err(copying)?;
            saved.segments += 1;
        }
    }
    Ok(saved)
}
