//! The damage notes of a lane: each lost line is noted once, in whatever way it is met again. They are a report beside the
//! lines, and nothing depends on them: a disk that refuses them costs their memory of the next run.

use crate::damage_notes::{DamageNotes, Note};
use crate::disk::Disk;
use crate::log::Damage;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

/// Notes of one lane; without a file when the disk does not let it be read.
#[derive(Debug)]
pub(crate) struct LaneNotes(Option<DamageNotes>);

impl LaneNotes {
    pub(crate) fn open(disk: &Arc<dyn Disk>, folder: &Path) -> Self {
        Self(DamageNotes::open(disk.clone(), folder).ok())
    }

    pub(crate) fn unsettled(&self) -> Vec<Note> {
        self.0.as_ref().map(DamageNotes::unsettled).unwrap_or_default()
    }

    /// Notes a damaged place, if it cost lines that no note has yet, or no line at all. `of`: what the lines are.
    pub(crate) fn add(&self, of: &str, damage: &Damage) {
        let Damage { segment, offset, bytes, .. } = damage;
        let place = match bytes {
            0 => format!("segment {segment} does not have them"),
            _ => format!("segment {segment} is damaged at byte {offset}"),
        };
        if damage.lost.is_empty() {
            self.keep(&format!("{of} {place}; nothing that was whole is lost"), 0);
        } else {
            self.add_lost(of, damage.lost.clone(), &place);
        }
    }

    /// Notes lines that are lost, those of them that no note has yet.
    pub(crate) fn add_lost(&self, of: &str, lost: Range<u64>, why: &str) {
        let mut known: Vec<Range<u64>> =
            self.unsettled().iter().filter_map(|n| range_of(&n.text, of)).collect();
        known.sort_by_key(|r| r.start);
        let mut start = lost.start;
        for known in known.into_iter().chain(std::iter::once(lost.end..u64::MAX)) {
            let end = known.start.min(lost.end);
            if start < end {
                self.keep(&format!("{of} {start} to {} are lost: {why}", end - 1), end - start);
            }
            start = start.max(known.end);
        }
    }

    fn keep(&self, text: &str, lost: u64) {
        // It is in memory then, and reported as long as this process runs.
        let _kept_in_memory_only = self.0.as_ref().map(|notes| notes.add(text, lost));
    }
}

/// The numbers that a note says are lost.
pub(crate) fn range_of(text: &str, of: &str) -> Option<Range<u64>> {
    let (numbers, _) = text.strip_prefix(of)?.strip_prefix(' ')?.split_once(" are lost: ")?;
    let (first, last) = numbers.split_once(" to ")?;
    Some(first.parse().ok()?..last.parse::<u64>().ok()?.checked_add(1)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::SimDisk;

    #[test]
    fn a_line_that_is_lost_is_noted_once() {
        let disk: Arc<dyn Disk> = Arc::new(SimDisk::new());
        disk.create_dir_all(Path::new("/lane")).expect("a folder");
        let notes = LaneNotes::open(&disk, Path::new("/lane"));
        for lost in [10..20, 10..20, 30..40, 5..50, 1..3] {
            notes.add_lost("lines", lost, "it is damaged");
        }
        let notes = LaneNotes::open(&disk, Path::new("/lane"));
        let found: Vec<_> = notes.unsettled().iter().filter_map(|n| range_of(&n.text, "lines")).collect();
        assert_eq!(found, [10..20, 30..40, 5..10, 20..30, 40..50, 1..3]);
        assert_eq!(notes.unsettled().iter().map(|n| n.lost).sum::<u64>(), 47);
    }
}
