//! The bytes of segments and frames: headers, checksums, and finding the next good frame after damage.
//! Pure: it knows neither files nor the log. `docs/format.md` has every byte.

/// Length of a segment's header.
pub(crate) const SEGMENT_HEADER_BYTES: usize = 64;
/// Length of a frame's header.
pub const FRAME_HEADER_BYTES: usize = 32;
/// Version of the segment format.
const SEGMENT_VERSION: u32 = 1;
/// In its place, in the header of a segment that was made ahead: its first sequence is that of its first frame.
const PROVISIONAL: u32 = 2;

const SEGMENT_MAGIC: [u8; 8] = *b"GLTSEG\r\n";
const FRAME_MAGIC: [u8; 4] = [0xF7, b'G', b'L', 0xA5];

/// What the header of a segment says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) log_id: u64,
    /// No frame of the segment has a smaller sequence, and no frame of an earlier segment counts from here on.
    pub(crate) first_sequence: u64,
    /// Nanoseconds since the epoch by the clock of the writer.
    pub(crate) created: i64,
}

impl SegmentHeader {
    pub(crate) fn encode(&self) -> [u8; SEGMENT_HEADER_BYTES] {
        self.encode_as(SEGMENT_VERSION)
    }

    /// The header of a segment that is made ahead. It is replaced when the segment is begun, which no sync covers: after a
    /// power cut it may be there again.
    pub(crate) fn encode_provisional(&self) -> [u8; SEGMENT_HEADER_BYTES] {
        self.encode_as(PROVISIONAL)
    }

    fn encode_as(&self, version: u32) -> [u8; SEGMENT_HEADER_BYTES] {
        let mut out = [0; SEGMENT_HEADER_BYTES];
        out[0..8].copy_from_slice(&SEGMENT_MAGIC);
        out[8..12].copy_from_slice(&version.to_le_bytes());
        out[16..24].copy_from_slice(&self.log_id.to_le_bytes());
        out[24..32].copy_from_slice(&self.first_sequence.to_le_bytes());
        out[32..40].copy_from_slice(&self.created.to_le_bytes());
        let crc = crc32c::crc32c(&out[..60]);
        out[60..64].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// The header at the front of a segment's bytes; `None` when it is cut, damaged or of another version.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        Self::decode_as(SEGMENT_VERSION, bytes)
    }

    /// The header of a segment that was made ahead.
    pub(crate) fn decode_provisional(bytes: &[u8]) -> Option<Self> {
        Self::decode_as(PROVISIONAL, bytes)
    }

    fn decode_as(version: u32, bytes: &[u8]) -> Option<Self> {
        let header: &[u8; SEGMENT_HEADER_BYTES] = bytes.first_chunk()?;
        let good = header[0..8] == SEGMENT_MAGIC
            && u32_at(header, 8) == version
            && crc32c::crc32c(&header[..60]) == u32_at(header, 60);
        good.then(|| Self {
            log_id: u64_at(header, 16),
            first_sequence: u64_at(header, 24),
            created: u64_at(header, 32) as i64,
        })
    }
}

/// What the header of a frame says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameHeader {
    pub(crate) payload_bytes: u32,
    pub(crate) flags: u16,
    pub(crate) first_sequence: u64,
    pub(crate) payload_crc: u32,
    pub(crate) count: u32,
}

impl FrameHeader {
    pub(crate) fn encode(&self) -> [u8; FRAME_HEADER_BYTES] {
        let mut out = [0; FRAME_HEADER_BYTES];
        out[0..4].copy_from_slice(&FRAME_MAGIC);
        out[8..12].copy_from_slice(&self.payload_bytes.to_le_bytes());
        out[12..14].copy_from_slice(&self.flags.to_le_bytes());
        out[16..24].copy_from_slice(&self.first_sequence.to_le_bytes());
        out[24..28].copy_from_slice(&self.payload_crc.to_le_bytes());
        out[28..32].copy_from_slice(&self.count.to_le_bytes());
        let crc = crc32c::crc32c(&out[8..]);
        out[4..8].copy_from_slice(&crc.to_le_bytes());
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let header: &[u8; FRAME_HEADER_BYTES] = bytes.first_chunk()?;
        let good = header[0..4] == FRAME_MAGIC && crc32c::crc32c(&header[8..]) == u32_at(header, 4);
        good.then(|| Self {
            payload_bytes: u32_at(header, 8),
            flags: u16::from_le_bytes([header[12], header[13]]),
            first_sequence: u64_at(header, 16),
            payload_crc: u32_at(header, 24),
            count: u32_at(header, 28),
        })
    }

    /// The first sequence after the frame.
    pub(crate) fn end_sequence(&self) -> Option<u64> {
        self.first_sequence.checked_add(u64::from(self.count))
    }

    /// Bytes of the whole frame, padding included.
    pub(crate) fn frame_bytes(&self) -> usize {
        FRAME_HEADER_BYTES + padded(self.payload_bytes as usize)
    }
}

/// The checksum of a payload binds it to its log and its place there: the frame of another log, or of another life of
/// this one, is not taken for a frame of it.
pub(crate) fn payload_crc(log_id: u64, first_sequence: u64, payload: &[u8]) -> u32 {
    let seed = crc32c::crc32c_append(crc32c::crc32c(&log_id.to_le_bytes()), &first_sequence.to_le_bytes());
    crc32c::crc32c_append(seed, payload)
}

pub(crate) fn padded(bytes: usize) -> usize {
    bytes.next_multiple_of(8)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

/// A frame found in the bytes of a segment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found {
    /// Where its header begins.
    pub(crate) offset: usize,
    pub(crate) header: FrameHeader,
}

impl Found {
    pub(crate) fn payload<'a>(&self, segment: &'a [u8]) -> &'a [u8] {
        let from = self.offset + FRAME_HEADER_BYTES;
        &segment[from..from + self.header.payload_bytes as usize]
    }

    pub(crate) fn end(&self, segment: &[u8]) -> usize {
        (self.offset + self.header.frame_bytes()).min(segment.len())
    }
}

/// The first whole frame at or after `from` whose sequences lie in `sequences`, and that is what its writer wrote.
pub(crate) fn next_frame(
    segment: &[u8],
    from: usize,
    log_id: u64,
    sequences: std::ops::Range<u64>,
) -> Option<Found> {
    let mut at = from;
    loop {
        if let Some(found) = frame_at(segment, at, log_id)
            && sequences.start <= found.header.first_sequence
            && found.header.end_sequence().is_some_and(|end| end <= sequences.end)
        {
            return Some(found);
        }
        let rest = segment.get(at + 1..)?;
        at += 1 + rest.windows(FRAME_MAGIC.len()).position(|w| w == FRAME_MAGIC)?;
    }
}

fn frame_at(segment: &[u8], at: usize, log_id: u64) -> Option<Found> {
    let header = FrameHeader::decode(segment.get(at..)?)?;
    let found = Found { offset: at, header };
    let from = at + FRAME_HEADER_BYTES;
    let payload = segment.get(from..from.checked_add(header.payload_bytes as usize)?)?;
    // The padding is part of the frame: a flip there is damage like any other, but costs nothing.
    let good = header.count > 0 && payload_crc(log_id, header.first_sequence, payload) == header.payload_crc;
    good.then_some(found)
}

/// The header of a frame at `at` whose payload may be cut: what a torn write leaves.
pub(crate) fn torn_header(segment: &[u8], at: usize) -> Option<FrameHeader> {
    FrameHeader::decode(segment.get(at..)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: u64 = 7;

    /// Frames of some payloads one after the other, behind a segment's header.
    fn segment(payloads: &[&[u8]]) -> Vec<u8> {
        let mut out = SegmentHeader { log_id: LOG, first_sequence: 1, created: -5 }.encode().to_vec();
        for (i, payload) in payloads.iter().enumerate() {
            let first_sequence = 1 + i as u64;
            let header = FrameHeader {
                payload_bytes: payload.len() as u32,
                flags: 3,
                first_sequence,
                payload_crc: payload_crc(LOG, first_sequence, payload),
                count: 1,
            };
            out.extend_from_slice(&header.encode());
            out.extend_from_slice(payload);
            out.resize(out.len().next_multiple_of(8), 0);
        }
        out
    }

    fn found(segment: &[u8]) -> Vec<(u64, &[u8])> {
        let (mut at, mut all) = (SEGMENT_HEADER_BYTES.min(segment.len()), Vec::new());
        while let Some(found) = next_frame(segment, at, LOG, 0..u64::MAX) {
            all.push((found.header.first_sequence, found.payload(segment)));
            assert!(found.end(segment) > at, "it goes on");
            at = found.end(segment);
        }
        all
    }

    #[test]
    fn frames_are_found_as_they_were_written_by_their_own_log_alone() {
        let payloads: [&[u8]; 4] = [b"", b"one", b"two\n and more", &[0xF7, b'G', b'L', 0xA5, 0, 0, 0, 0, 1]];
        let bytes = segment(&payloads);
        let header = SegmentHeader::decode(&bytes).expect("a header");
        assert_eq!((header.log_id, header.first_sequence, header.created), (LOG, 1, -5));
        let expected: Vec<(u64, &[u8])> = (1..).zip(payloads).collect();
        assert_eq!(found(&bytes), expected);
        assert!(next_frame(&bytes, 0, LOG + 1, 0..u64::MAX).is_none());
        assert!(next_frame(&bytes, 0, LOG, 5..u64::MAX).is_none());
        assert_eq!(next_frame(&bytes, 0, LOG, 2..u64::MAX).map(|f| f.header.first_sequence), Some(2));
    }

    /// Also run under an interpreter that sees every wrong access: `cargo xtask torture --miri`.
    #[test]
    fn changed_bytes_are_no_frame_and_no_panic() {
        let payloads: [&[u8]; 3] = [b"first", b"second frame", b"3"];
        let whole = segment(&payloads);
        let expected: Vec<(u64, &[u8])> = (1..).zip(payloads).collect();
        let step = if cfg!(miri) { 7 } else { 1 };
        for at in (0..whole.len()).step_by(step) {
            for flip in [1u8, 0x80, 0xff] {
                let mut bytes = whole.clone();
                bytes[at] ^= flip;
                let _header = (SegmentHeader::decode(&bytes), torn_header(&bytes, at));
                let left = found(&bytes);
                assert!(left.iter().all(|frame| expected.contains(frame)), "byte {at} by {flip}: {left:?}");
                assert!(left.len() + 1 >= expected.len(), "byte {at} by {flip}: one frame at most is lost");
            }
            assert!(expected.starts_with(&found(&whole[..at])), "cut at {at}");
            let _torn = torn_header(&whole, at);
        }
    }
}
