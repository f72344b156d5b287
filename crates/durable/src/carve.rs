//! The frames of a segment, from its bytes alone: for saving what is left of a log whose folder may be damaged anywhere.
//! It knows nothing of the other segments.

use crate::frame::{FRAME_HEADER_BYTES, SEGMENT_HEADER_BYTES, SegmentHeader, next_frame, torn_header};
use crate::log::Frame;
use std::ops::Range;

/// What the bytes of a segment hold.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Carved {
    /// Identity of its log, when its header is as it was written.
    pub log_id: Option<u64>,
    /// No frame of an earlier segment counts from this sequence on; known when the header is as it was written.
    pub first_sequence: Option<u64>,
    /// The frames that are as they were written, in their order.
    pub frames: Vec<Frame>,
    /// Sequences of frames whose header alone is as it was written.
    pub damaged: Vec<Range<u64>>,
    /// Bytes that are neither header nor frame.
    pub unread_bytes: u64,
}

/// The identity in the header of a segment, when the header is as it was written.
#[must_use]
pub fn segment_log_id(bytes: &[u8]) -> Option<u64> {
    SegmentHeader::decode(bytes).map(|h| h.log_id)
}

/// Finds every whole frame in the bytes of a segment. `log_ids`: identities of the logs it may belong to when its own
/// header is damaged.
///
/// ```
/// use graylogic_durable::{Log, LogOptions, RealDisk, carve_segment};
/// use std::sync::Arc;
///
/// let folder = tempfile::tempdir()?;
/// let (log, _) = Log::open(Arc::new(RealDisk), folder.path(), LogOptions::new(7))?;
/// log.append(b"two readings", 2)?;
/// let segment = std::fs::read(folder.path().join(format!("{:016x}.seg", log.segments()[0].number)))?;
/// let carved = carve_segment(&segment, &[]);
/// assert_eq!((carved.log_id, carved.frames[0].payload.as_slice()), (Some(7), &b"two readings"[..]));
/// // Without its header it can still be read by who knows its identity.
/// assert_eq!(carve_segment(&segment[64..], &[7]).frames, carved.frames);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use]
pub fn carve_segment(bytes: &[u8], log_ids: &[u64]) -> Carved {
    let header = SegmentHeader::decode(bytes);
    let mut carved = Carved {
        log_id: header.map(|h| h.log_id),
        first_sequence: header.map(|h| h.first_sequence),
        ..Carved::default()
    };
    let ids: Vec<u64> = header.map_or_else(|| log_ids.to_vec(), |h| vec![h.log_id]);
    let start = if header.is_some() { SEGMENT_HEADER_BYTES.min(bytes.len()) } else { 0 };
    for id in ids {
        let mut at = start;
        loop {
            let found = next_frame(bytes, at, id, 0..u64::MAX);
            let gap = at..found.map_or(bytes.len(), |f| f.offset);
            carved.unread_bytes += gap.len() as u64;
            carved.damaged.extend(headers(bytes, gap));
            let Some(found) = found else { break };
            carved.frames.push(Frame {
                first_sequence: found.header.first_sequence,
                count: found.header.count,
                flags: found.header.flags,
                payload: found.payload(bytes).to_vec(),
            });
            at = found.end(bytes);
        }
        if !carved.frames.is_empty() {
            break;
        }
        carved.damaged.clear();
        carved.unread_bytes = 0;
    }
    if carved.frames.is_empty() {
        carved.unread_bytes = bytes.len().saturating_sub(start) as u64;
    }
    carved
}

/// The sequences that whole headers in a range of bytes speak of; what they head is damaged.
fn headers(bytes: &[u8], range: Range<usize>) -> Vec<Range<u64>> {
    let mut found = Vec::new();
    let mut at = range.start;
    while at < range.end {
        let header = torn_header(bytes, at).and_then(|h| Some(h.first_sequence..h.end_sequence()?));
        at += if header.is_some() { FRAME_HEADER_BYTES } else { 1 };
        found.extend(header);
    }
    found
}
