//! Which chunks compacted readings become: large ones with the figures of each hour, unless these take more room than the
//! chunks they replace. Pure; it knows neither the store file nor the catalog.

use crate::chunk;
use crate::column::Effort;
use crate::file::NewChunk;
use crate::rollup;
use crate::value::Values;
use crate::window::Summary;

/// About what a chunk takes in the tables besides its bytes.
const ROW_BYTES: usize = 128;
/// Small chunks are rows of their own, and leave about an eighth of their pages empty.
const SLACK: usize = 8;
/// Figures of hours are kept where they take at most this part of the bytes of the readings: otherwise the readings
/// themselves answer as fast.
const HOURS_PART: usize = 4;

/// On average half of the last page of a commit's hours stays empty.
const HOURS_PAGE: usize = 8 << 10;

/// A piece of the readings: from, to, level.
pub(crate) type Piece = (usize, usize, u8);

/// What a chunk takes of the file.
pub(crate) fn cost(level: u8, bytes: usize, hours: usize) -> usize {
    let slack = if level == 0 { bytes / SLACK } else { 0 };
    ROW_BYTES + bytes + hours + slack
}

/// Readings of a series that are compacted.
pub(crate) struct Compacted<'a> {
    pub(crate) series: u32,
    pub(crate) sequence: u64,
    pub(crate) times: &'a [i64],
    pub(crate) values: &'a Values,
}

impl Compacted<'_> {
    /// The chunks of the readings: the first of several forms that takes no more than `limit`, or the smallest.
    ///
    /// `wanted` are the pieces that queries like best, `present` those that were there before.
    pub(crate) fn chunks(&self, wanted: &[Piece], present: &[Piece], limit: usize) -> Vec<NewChunk> {
        let with_hours = self.form(wanted, &[Effort::Compact], true);
        if total(&with_hours) <= limit {
            return with_hours;
        }
        let without: Vec<NewChunk> =
            with_hours.into_iter().map(|c| NewChunk { hours: Vec::new(), ..c }).collect();
        if total(&without) <= limit {
            return without;
        }
        let as_present = self.form(present, &[Effort::Seal, Effort::Compact], false);
        if total(&as_present) < total(&without) { as_present } else { without }
    }

    fn form(&self, pieces: &[Piece], efforts: &[Effort], hours: bool) -> Vec<NewChunk> {
        pieces.iter().filter_map(|&piece| self.chunk(piece, efforts, hours)).collect()
    }

    fn chunk(&self, (from, to, level): Piece, efforts: &[Effort], hours: bool) -> Option<NewChunk> {
        let times = self.times.get(from..to)?;
        let mut part = self.values.clone();
        part.cut(from, to);
        let summary = Summary::of(times, &part, 0, times.len())?;
        // What is not over yet is compacted again soon.
        let efforts = if level == 0 { &[Effort::Seal][..] } else { efforts };
        let encoded = efforts.iter().map(|&effort| chunk::encode(times, &part, effort));
        let bytes = encoded.min_by_key(Vec::len)?;
        let hours = match level {
            1 if hours => rollup::encode(&rollup::hours_of(times, &part), part.field_type()),
            _ => Vec::new(),
        };
        let hours = if hours.len() * HOURS_PART <= bytes.len() { hours } else { Vec::new() };
        Some(NewChunk {
            series: self.series,
            t0: *times.first()?,
            t1: *times.last()?,
            sequence: self.sequence,
            summary,
            level,
            hours,
            bytes,
        })
    }
}

fn total(chunks: &[NewChunk]) -> usize {
    chunks.iter().map(|c| cost(c.level, c.bytes.len(), c.hours.len())).sum()
}

/// Drops the hours of the chunks of a commit when they and the part of a page that they leave empty, because they lie
/// apart from the readings, take more than was saved.
pub(crate) fn without_hours_that_do_not_pay(chunks: &mut [NewChunk], before: usize) {
    if total(chunks) + HOURS_PAGE > before {
        chunks.iter_mut().for_each(|c| c.hours = Vec::new());
    }
}

/// The readings cut where the chunks that hold them end, and at the cutoff, behind which they stay small.
pub(crate) fn present_pieces(times: &[i64], ends: &[i64], cutoff: i64) -> Vec<Piece> {
    let mut cuts: Vec<usize> = ends.iter().map(|&end| times.partition_point(|&t| t <= end)).collect();
    let closed = times.partition_point(|&t| t < cutoff);
    cuts.extend([closed, times.len()]);
    cuts.sort_unstable();
    let mut from = 0;
    let mut pieces = Vec::new();
    for to in cuts {
        if to > from {
            pieces.push((from, to, u8::from(to <= closed)));
            from = to;
        }
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readings_are_cut_where_their_chunks_end_and_at_the_cutoff() {
        let times: Vec<i64> = (0..10).collect();
        assert_eq!(present_pieces(&times, &[3, 9], 100), [(0, 4, 1), (4, 10, 1)]);
        assert_eq!(present_pieces(&times, &[3, 9], 6), [(0, 4, 1), (4, 6, 1), (6, 10, 0)]);
        assert_eq!(present_pieces(&times, &[3, 5, 5], 4), [(0, 4, 1), (4, 6, 0), (6, 10, 0)]);
        assert_eq!(present_pieces(&times, &[], i64::MIN), [(0, 10, 0)]);
        assert_eq!(present_pieces(&[], &[1], 4), []);
    }

    #[test]
    fn what_is_compacted_takes_no_more_than_before() {
        let hour = 3_600_000_000_000i64;
        // One reading an hour, in parts that differ in kind: as one chunk, and with hours, they would grow.
        let times: Vec<i64> = (0..4000).map(|i| i * hour).collect();
        let of = |i: i64| if i < 2000 { (i % 7) as f64 } else { (i as f64).sqrt() };
        let values = Values::Float((0..4000).map(of).collect());
        let compacted = Compacted { series: 1, sequence: 1, times: &times, values: &values };
        let present = [(0, 2000, 1), (2000, 4000, 1)];
        let before: usize = present
            .iter()
            .filter_map(|&piece| compacted.chunk(piece, &[Effort::Seal], false))
            .map(|c| cost(0, c.bytes.len(), 0))
            .sum();
        let wanted: Vec<Piece> = (0..8).map(|i| (i * 500, (i + 1) * 500, 1)).collect();
        let chunks = compacted.chunks(&wanted, &present, before);
        assert!(total(&chunks) <= before, "{} of {before}", total(&chunks));
        assert_eq!(chunks.iter().map(|c| c.summary.count).sum::<u64>(), 4000);
        // Where there is room, and hours have many readings, they have their figures.
        let times: Vec<i64> = (0..4000).map(|i| i * hour / 1000).collect();
        let compacted = Compacted { series: 1, sequence: 1, times: &times, values: &values };
        assert!(compacted.chunks(&[(0, 4000, 1)], &present, usize::MAX).iter().all(|c| !c.hours.is_empty()));
    }
}
