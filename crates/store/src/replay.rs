//! Reading the hot log into tails when a store is opened.

use crate::core::Core;
use crate::error::Error;
use crate::halves::{Finding, LogMarks, Restored};
use crate::record::{self, Definition, Record};
use graylogic_durable::{Damage, Log};
use std::collections::HashMap;
use std::sync::Arc;

/// What a replay knows and counts.
pub(crate) struct Replayed<'a> {
    pub(crate) marks: &'a LogMarks,
    pub(crate) restored: &'a mut Restored,
    pub(crate) findings: &'a mut Vec<Finding>,
    /// The sequence after the last frame of the log; what is lost beyond is reported elsewhere.
    pub(crate) end: u64,
    /// Values read into memory.
    pub(crate) values: u64,
    /// What the log calls a series, where that is not its number in the catalog; `None`: it is unknown there.
    moved: HashMap<u32, Option<u32>>,
    /// Values of series that nothing defines, and the records they are in.
    homeless: (u64, u64),
}

impl<'a> Replayed<'a> {
    pub(crate) fn new(
        marks: &'a LogMarks,
        restored: &'a mut Restored,
        findings: &'a mut Vec<Finding>,
        end: u64,
    ) -> Self {
        Self { marks, restored, findings, end, values: 0, moved: HashMap::new(), homeless: (0, 0) }
    }

    /// Reads what the log holds beyond the chunks into tails.
    pub(crate) fn run(&mut self, core: &mut Core, log: &Log) -> Result<(), Error> {
        for item in log.replay(log.first_sequence()) {
            let frame = match item {
                Ok(frame) => frame,
                Err(damage) => {
                    self.damaged(damage);
                    continue;
                }
            };
            let sequence = frame.first_sequence;
            match record::decode(&frame.payload) {
                Ok(record) => self.take(core, sequence, &record),
                Err(_) => self.findings.push(Finding::new(
                    format!("hot log: record {sequence} is not understood, though its checksum is good"),
                    u64::from(frame.count),
                )),
            }
        }
        if self.homeless.0 > 0 {
            let (values, records) = self.homeless;
            self.findings.push(Finding::new(
                format!(
                    "hot log: {values} values in {records} records belong to series the catalog has lost"
                ),
                values,
            ));
        }
        core.catalog.undefined.sort_unstable();
        core.catalog.undefined.dedup();
        detach_full(core);
        Ok(())
    }

    fn damaged(&mut self, damage: Damage) {
        if damage.bytes == 0 && damage.lost.start >= self.end {
            return;
        }
        let lost = damage.lost.start..damage.lost.end.min(self.end.max(damage.lost.start));
        let damage = match damage.lost.start < self.end && lost.end < damage.lost.end {
            true => {
                let mut clipped = damage;
                clipped.lost = lost;
                clipped
            }
            false => damage,
        };
        self.findings.push(Finding::new(format!("hot log: {damage}"), damage.lost_count()));
    }

    fn take(&mut self, core: &mut Core, sequence: u64, record: &Record) {
        for bucket in &record.heading.buckets {
            self.restore_bucket(core, sequence, bucket);
        }
        for definition in &record.definitions {
            let lost_name = record::BucketDefinition {
                id: definition.bucket,
                name: format!("bucket-{} (damaged name)", definition.bucket),
                retention: 0,
            };
            self.restore_bucket(core, sequence, &lost_name);
            self.define(core, sequence, definition);
        }
        let texts: Vec<Arc<str>> = record.texts.iter().map(|t| Arc::from(t.as_str())).collect();
        let mut homeless = 0;
        for row in &record.rows {
            core.catalog.note_series_number(row.series);
            let id = match self.moved.get(&row.series) {
                None => Some(row.series),
                Some(id) => *id,
            };
            if let Some(id) = id
                && core.catalog.get(id).is_some_and(|s| s.must_part_before(sequence))
            {
                // A part of a series lies wholly before a deletion or wholly after.
                core.detach(id);
            }
            match id.and_then(|id| core.catalog.get_mut(id)) {
                Some(series) if series.info.field_type == row.field_type => {
                    if sequence > series.sealed {
                        let bytes = series.tail.push(row, &texts, sequence);
                        core.tail_bytes += bytes;
                        core.tail_readings += 1;
                        self.values += 1;
                    }
                }
                _ => homeless += u64::from(!core.catalog.removed.contains(&row.series)),
            }
        }
        if homeless > 0 {
            self.homeless = (self.homeless.0 + homeless, self.homeless.1 + 1);
        }
    }

    /// A bucket that only this record knows: the lists of the log are damaged as well.
    fn restore_bucket(&mut self, core: &mut Core, sequence: u64, bucket: &record::BucketDefinition) {
        let listed_since = self.marks.whole.as_ref().is_some_and(|(at, _)| sequence <= *at);
        let known = core.catalog.buckets.iter().any(|b| b.id == bucket.id || *b.name == *bucket.name);
        if self.restored.file_is_behind && !listed_since && !known {
            core.catalog.buckets.push(crate::catalog::Bucket::new(bucket.id, &bucket.name, bucket.retention));
            core.catalog.next_bucket = core.catalog.next_bucket.max(bucket.id.saturating_add(1));
            self.restored.buckets.push(bucket.clone());
        }
    }

    fn define(&mut self, core: &mut Core, sequence: u64, definition: &Definition) {
        let catalog = &mut core.catalog;
        match catalog.define(definition) {
            Ok(id) => {
                if id == definition.series {
                    self.moved.remove(&id);
                } else {
                    self.moved.insert(definition.series, Some(id));
                }
                if !catalog.series_mut(id).in_file {
                    catalog.undefined.push(id);
                }
            }
            Err(why) => {
                self.moved.insert(definition.series, None);
                // A bucket that was removed: the log still speaks of it.
                let removed = catalog.removed.contains(&definition.series)
                    || (self.restored.file_is_behind
                        && self.marks.whole.as_ref().is_some_and(|(at, _)| sequence <= *at)
                        && catalog.buckets.iter().all(|b| b.id != definition.bucket));
                if removed {
                    catalog.removed.insert(definition.series);
                } else {
                    self.findings.push(Finding::new(format!("hot log: {why}"), 0));
                }
            }
        }
    }
}

fn detach_full(core: &mut Core) {
    let full: Vec<u32> = core
        .catalog
        .series
        .iter()
        .flatten()
        .filter(|s| s.tail.len() >= s.seal_at as usize || s.must_part_before(u64::MAX))
        .map(|s| s.info.id)
        .collect();
    full.into_iter().for_each(|id| core.detach(id));
}
