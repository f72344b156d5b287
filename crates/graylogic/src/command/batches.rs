//! Line protocol from a file or a pipe, cut into batches of whole lines.

use crate::failure::Failure;
use graylogic_line::LineEnds;
use std::io::BufRead;

/// A batch is cut here even inside a string.
const BATCH_BYTES_MAX: usize = 16 << 20;
/// So many refused lines are named; the others are counted.
pub(super) const NAMED_MAX: usize = 100;

/// Cuts input into batches of so many lines. A line feed inside a string ends no line for the store, so a batch goes on
/// while its last line has an open string.
pub(super) fn batches(
    mut input: impl BufRead,
    lines_max: usize,
    mut take: impl FnMut(&[u8], usize) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut batch = Vec::new();
    let mut lines = 0;
    let mut ends = LineEnds::new();
    loop {
        let read = input.read_until(b'\n', &mut batch).map_err(|e| Failure::because("read the input", e))?;
        lines += usize::from(read > 0);
        let ended = read == 0;
        let complete = ends.feed(&batch[batch.len() - read..]).is_some();
        if ended || (lines >= lines_max && complete) || batch.len() > BATCH_BYTES_MAX {
            if !batch.is_empty() {
                take(&batch, lines)?;
            }
            batch.clear();
            lines = 0;
            ends = LineEnds::new();
        }
        if ended {
            return Ok(());
        }
    }
}
