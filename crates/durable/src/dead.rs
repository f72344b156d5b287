//! Dead letters: lines that a target refused for good, with its words, in a log of their own. `docs/format.md` has every
//! byte.

use crate::disk::Disk;
use crate::error::Error;
use crate::log::{Damage, Frame, Log, LogOptions};
use std::path::Path;
use std::sync::Arc;

/// First byte of a payload.
const VERSION: u8 = 1;
/// Small segments: what was looked at and purged frees its room.
const SEGMENT_BYTES: u64 = 1 << 20;

/// A line for the dead letters.
#[derive(Clone, Copy, Debug)]
pub struct DeadLine<'a> {
    /// The number it had in its lane.
    pub number: u64,
    /// When it was refused, in nanoseconds since the epoch.
    pub time: i64,
    /// The target's words.
    pub reason: &'a str,
    /// The line, with its line end.
    pub line: &'a [u8],
}

/// A line that was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeadLetter {
    /// Its number among the dead letters.
    pub letter: u64,
    /// The number it had in its lane.
    pub number: u64,
    /// When it was refused, in nanoseconds since the epoch.
    pub time: i64,
    /// The target's words.
    pub reason: String,
    /// The line, with its line end.
    pub line: Vec<u8>,
}

pub(crate) fn options(log_id: u64) -> LogOptions {
    LogOptions::new(log_id).segment_bytes(SEGMENT_BYTES)
}

pub(crate) fn open(disk: &Arc<dyn Disk>, folder: &Path, log_id: u64) -> Result<Log, Error> {
    Log::open(disk.clone(), folder, options(log_id)).map(|(log, _)| log)
}

/// Appends a frame for each line.
pub(crate) fn append(log: &Log, lines: &[DeadLine<'_>]) -> Result<(), Error> {
    for line in lines {
        log.append_with(1, 0, |out| {
            out.push(VERSION);
            out.extend_from_slice(&line.number.to_le_bytes());
            out.extend_from_slice(&line.time.to_le_bytes());
            out.extend_from_slice(&(line.reason.len() as u32).to_le_bytes());
            out.extend_from_slice(line.reason.as_bytes());
            out.extend_from_slice(line.line);
        })?;
    }
    Ok(())
}

/// The letters among frames; what is damaged is passed over.
pub(crate) fn letters(frames: impl Iterator<Item = Result<Frame, Damage>>) -> Vec<DeadLetter> {
    frames.filter_map(|frame| decode(&frame.ok()?)).collect()
}

pub(crate) fn decode(frame: &Frame) -> Option<DeadLetter> {
    let (version, rest) = frame.payload.split_first()?;
    let (number, rest) = rest.split_first_chunk::<8>()?;
    let (time, rest) = rest.split_first_chunk::<8>()?;
    let (length, rest) = rest.split_first_chunk::<4>()?;
    let (reason, line) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
    (*version == VERSION).then(|| DeadLetter {
        letter: frame.first_sequence,
        number: u64::from_le_bytes(*number),
        time: i64::from_le_bytes(*time),
        reason: String::from_utf8_lossy(reason).into_owned(),
        line: line.to_vec(),
    })
}
