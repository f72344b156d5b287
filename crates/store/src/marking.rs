//! What the hot log says of the store besides readings: each segment begins with a mark and all buckets and deletions, and
//! defines the series it has readings of, so that the log can be understood when the store file is gone.

use crate::catalog::{Bucket, Catalog};
use crate::core::{Core, Shared};
use crate::mark::LogExpected;
use crate::record::{self, Heading, Row};
use std::time::Instant;

/// So many bytes of a segment may define series whose definitions are in the store file too.
const SPARE_DEFINITION_BYTES: usize = 512 << 10;
/// What the file says of the log is never older than this while the log grows.
const NOTE_INTERVAL: std::time::Duration = std::time::Duration::from_secs(300);

/// What memory keeps of what was written to the log besides readings.
#[derive(Debug)]
pub(crate) struct Marking {
    /// Counts the segments begun; a series whose stamp differs was not defined in the present one.
    segment: u32,
    /// By series number.
    defined: Vec<u32>,
    /// Bytes of definitions in the present segment that the store file has too.
    spare_bytes: usize,
    /// The record with the newest mark that lists all buckets and deletions; 0: none is there.
    pub(crate) whole_at: u64,
    /// The sequence after the last record.
    pub(crate) log_end: u64,
    /// When the state of the log was last written to the store file.
    noted: Instant,
}

impl Marking {
    pub(crate) fn new(whole_at: u64, log_end: u64) -> Self {
        Self { segment: 1, defined: Vec::new(), spare_bytes: 0, whole_at, log_end, noted: Instant::now() }
    }
}

impl Default for Marking {
    fn default() -> Self {
        Self::new(0, 0)
    }
}

/// All buckets and deletions.
fn whole_catalog(catalog: &Catalog) -> Heading {
    Heading {
        mark: None,
        whole: true,
        buckets: catalog.buckets.iter().map(Bucket::definition).collect(),
        tombstones: catalog.series.iter().flatten().flat_map(|s| s.tombstones.iter().copied()).collect(),
    }
}

impl Shared {
    /// What the next record must say besides its rows: everything, when it begins a segment.
    fn heading(&self, core: &mut Core) -> Heading {
        if !self.log.begins_segment() {
            return Heading::default();
        }
        core.marking.segment = core.marking.segment.wrapping_add(1).max(1);
        core.marking.spare_bytes = 0;
        self.whole_heading(core)
    }

    fn whole_heading(&self, core: &Core) -> Heading {
        Heading { mark: self.file.mark(), ..whole_catalog(&core.catalog) }
    }

    /// Writes a record to the log, with the definitions of series that it must not be without.
    pub(crate) fn append_record<T: AsRef<str>>(
        &self,
        core: &mut Core,
        rows: &[Row],
        texts: &[T],
    ) -> Result<u64, graylogic_durable::Error> {
        let mut heading = self.heading(core);
        let definitions = core.definitions(rows);
        if !heading.whole
            && let Some(first) = definitions.first()
            && let Some(bucket) = core.catalog.get(*first).map(|s| s.info.key.bucket)
        {
            let named = core.catalog.buckets.iter().find(|b| b.id == bucket);
            heading.buckets.extend(named.map(Bucket::definition));
        }
        let count = u32::try_from(rows.len().max(1)).unwrap_or(u32::MAX);
        let catalog = &core.catalog;
        let definition = |&id: &u32| catalog.get(id).expect("rows name series of the catalog").definition();
        let appended = self.log.append_with(count, 0, |out| {
            record::encode(out, &heading, definitions.iter().map(definition), rows, texts);
        });
        self.appended(core, &heading, appended)
    }

    fn appended(
        &self,
        core: &mut Core,
        heading: &Heading,
        appended: Result<u64, graylogic_durable::Error>,
    ) -> Result<u64, graylogic_durable::Error> {
        match &appended {
            Ok(sequence) => {
                core.marking.log_end = self.log.next_sequence();
                if heading.whole {
                    core.marking.whole_at = *sequence;
                }
            }
            // What it would have defined is not defined.
            Err(_) => core.marking.segment = core.marking.segment.wrapping_add(1).max(1),
        }
        appended
    }

    /// Writes a mark to the log: the store file has made a commit. `whole`: with all buckets and deletions.
    pub(crate) fn mark_log(&self, core: &mut Core, whole: bool) {
        let mut heading = self.heading(core);
        if whole && !heading.whole {
            heading = self.whole_heading(core);
        }
        heading.mark = self.file.mark();
        let appended =
            self.log.append_with(1, 0, |out| record::encode::<&str>(out, &heading, [].into_iter(), &[], &[]));
        if let Err(error) = self.appended(core, &heading, appended) {
            // The next one says as much.
            tracing::warn!(%error, "the hot log could not take a mark");
        }
    }

    /// What the store file is to say of the log.
    pub(crate) fn log_expected(&self, core: &Core) -> LogExpected {
        LogExpected {
            from: core.oldest_sequence().unwrap_or(core.marking.log_end),
            synced: self.log.synced().min(core.marking.log_end),
            segment: self.log.segments().last().map_or(0, |s| s.number),
        }
    }

    /// Lets the log go as far as chunks and marks allow. The store file knows before what will not be there any more.
    pub(crate) fn trim_log(&self) {
        let (expected, whole_at, noted) = {
            let core = self.core();
            (self.log_expected(&core), core.marking.whole_at, core.marking.noted)
        };
        let mut before = expected.from.min(whole_at);
        let Some(mark) = self.file.mark() else { return };
        let segments = self.log.segments();
        let ends = segments.get(1).map(|s| s.first_sequence);
        let trims = ends.is_some_and(|end| end <= before);
        let grown = mark.log.synced != expected.synced && noted.elapsed() >= NOTE_INTERVAL;
        if trims || mark.log.segment != expected.segment || grown {
            match self.note_log(expected) {
                Ok(()) => self.core().marking.noted = Instant::now(),
                Err(error) => {
                    tracing::warn!(%error, "the store file could not be told of the hot log; it will be tried again");
                    before = before.min(mark.log.from);
                }
            }
        }
        if let Err(error) = self.log.trim(before) {
            tracing::warn!(%error, "the hot log could not be trimmed; it will be tried again");
        }
    }

    /// Writes the state of the log to the store file before the store is closed, if there is anything new.
    pub(crate) fn note_log_at_close(&self) {
        let expected = self.log_expected(&self.core());
        let known = self.file.mark();
        if self.read_only.is_some() || known.is_none_or(|m| m.log == expected) {
            return;
        }
        if let Err(error) = self.note_log(expected) {
            tracing::warn!(%error, "the store file could not be told of the hot log");
        }
    }

    /// Makes durable in the store file what it says of the log.
    pub(crate) fn note_log(&self, expected: LogExpected) -> Result<(), crate::error::Error> {
        let mark = self.file.mark().unwrap_or_default();
        let shared = mark.shared_log_id && self.has_old_segments();
        self.file.note_log(expected, self.log.next_sequence(), shared)
    }

    /// Whether segments are there that carry the identity that all stores of format version 1 had.
    fn has_old_segments(&self) -> bool {
        let found = graylogic_durable::segment_ids(&*self.disk, &self.directory.join("log"));
        found.is_ok_and(|all| all.iter().any(|s| s.1 == Some(crate::halves::SHARED_LOG_ID)))
    }
}

impl Core {
    /// The series of some rows that a record must define: those that are not safe in the store file, and those that the
    /// segment does not define yet.
    fn definitions(&mut self, rows: &[Row]) -> Vec<u32> {
        let mut definitions = Vec::new();
        let Self { catalog, marking, .. } = self;
        marking.defined.resize(catalog.series.len().max(marking.defined.len()), 0);
        if !catalog.undefined.is_empty() {
            self.records += 1;
            let stamp = self.records;
            for row in rows {
                let series = catalog.series_mut(row.series);
                if !series.in_file && series.defined_in != stamp {
                    series.defined_in = stamp;
                    marking.defined[row.series as usize] = marking.segment;
                    definitions.push(row.series);
                }
            }
        }
        if marking.spare_bytes > SPARE_DEFINITION_BYTES {
            return definitions;
        }
        for row in rows {
            let stamp = &mut marking.defined[row.series as usize];
            if *stamp != marking.segment {
                *stamp = marking.segment;
                definitions.push(row.series);
                let bytes = catalog.get(row.series).map_or(0, |s| s.info.key.packed().bytes().len());
                marking.spare_bytes += bytes + 32;
            }
        }
        definitions
    }
}
