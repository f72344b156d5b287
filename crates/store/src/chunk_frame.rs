//! The frame around a chunk's bytes: what lies in the store file says by itself which chunk of which series it is, so
//! that it is found when every table around it is damaged. `docs/format.md` has every byte.
//! It knows nothing of SQLite, pages, or what the body means.

use crate::bytes::{Reader, put_varint};

/// First bytes of a frame. No UTF-8 text contains the first of them; the last one changes with the form of the frame.
pub(crate) const MAGIC: [u8; 4] = [0xF7, b'G', b'L', 0xC2];
/// The magic, the checksum, and the check value of the store.
const FIXED_BYTES: usize = 12;
/// No frame header is longer: five varints of at most ten bytes follow the fixed part.
pub(crate) const HEADER_BYTES_MAX: usize = FIXED_BYTES + 50;
/// No body is longer: damage cannot ask for more memory than this.
pub(crate) const BODY_BYTES_MAX: usize = 64 << 20;

/// What a frame says of the body that follows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ChunkFrame {
    /// A check value of the store's identity; 0: the store has none.
    pub(crate) store: u32,
    pub(crate) chunk: i64,
    pub(crate) series: u32,
    pub(crate) sequence: u64,
    pub(crate) level: u8,
}

/// Appends a frame with its body.
pub(crate) fn put(out: &mut Vec<u8>, frame: &ChunkFrame, body: &[u8]) {
    let from = out.len();
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&frame.store.to_le_bytes());
    put_varint(out, frame.chunk as u64);
    put_varint(out, u64::from(frame.series));
    put_varint(out, frame.sequence);
    put_varint(out, u64::from(frame.level));
    put_varint(out, body.len() as u64);
    out.extend_from_slice(body);
    let crc = crc32c::crc32c(&out[from + 8..]);
    out[from + 4..from + 8].copy_from_slice(&crc.to_le_bytes());
}

/// A frame header read from the front of some bytes, of which more may be missing. Nothing is checked yet but its form.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Header {
    pub(crate) frame: ChunkFrame,
    crc: u32,
    /// Where the body begins, and where it ends.
    body: usize,
    pub(crate) end: usize,
}

/// The header at the front of some bytes, if they begin like a frame.
pub(crate) fn header(bytes: &[u8]) -> Option<Header> {
    let rest = bytes.strip_prefix(&MAGIC)?;
    let (crc, rest) = rest.split_first_chunk::<4>()?;
    let (store, rest) = rest.split_first_chunk::<4>()?;
    let mut reader = Reader::new(rest);
    let chunk = i64::try_from(reader.varint().ok()?).ok()?;
    let series = u32::try_from(reader.varint().ok()?).ok()?;
    let sequence = reader.varint().ok()?;
    let level = u8::try_from(reader.varint().ok()?).ok()?;
    let length = reader.length(BODY_BYTES_MAX).ok()?;
    let body = bytes.len() - reader.rest().len();
    let frame = ChunkFrame { store: u32::from_le_bytes(*store), chunk, series, sequence, level };
    Some(Header { frame, crc: u32::from_le_bytes(*crc), body, end: body + length })
}

impl Header {
    /// The body, if these bytes are the whole frame as it was written.
    pub(crate) fn body<'a>(&self, bytes: &'a [u8]) -> Option<&'a [u8]> {
        let whole = bytes.get(..self.end)?;
        (crc32c::crc32c(&whole[8..]) == self.crc).then(|| &whole[self.body..])
    }
}

/// The body inside the bytes of a chunk whose checksum is good already: what a store of format version 1 wrote has no
/// frame. `None` when the frame says that they are another chunk's.
pub(crate) fn body_of(bytes: &[u8], chunk: i64, series: u32) -> Option<&[u8]> {
    if !bytes.starts_with(&MAGIC) {
        return Some(bytes);
    }
    let header = header(bytes)?;
    let ours = header.frame.chunk == chunk && header.frame.series == series && header.end == bytes.len();
    ours.then(|| &bytes[header.body..])
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAME: ChunkFrame = ChunkFrame { store: 7, chunk: 300, series: 5, sequence: 70_000, level: 1 };

    fn sample() -> Vec<u8> {
        let mut out = Vec::new();
        put(&mut out, &FRAME, b"the readings");
        out
    }

    #[test]
    fn a_frame_comes_back_and_says_whose_it_is() {
        let bytes = sample();
        let found = header(&bytes).expect("a header");
        assert_eq!((found.frame, found.body(&bytes)), (FRAME, Some(&b"the readings"[..])));
        assert_eq!(body_of(&bytes, 300, 5), Some(&b"the readings"[..]));
        assert_eq!(body_of(&bytes, 301, 5), None);
        assert_eq!(body_of(&bytes, 300, 6), None);
        assert_eq!(body_of(b"\x01bytes of version 1", 1, 1), Some(&b"\x01bytes of version 1"[..]));
    }

    #[test]
    fn a_cut_or_flipped_frame_is_none() {
        let bytes = sample();
        for n in 0..bytes.len() {
            assert!(header(&bytes[..n]).and_then(|h| h.body(&bytes[..n])).is_none(), "cut at {n}");
        }
        for i in 0..bytes.len() * 8 {
            let mut hurt = bytes.clone();
            hurt[i / 8] ^= 1 << (i % 8);
            assert!(header(&hurt).and_then(|h| h.body(&hurt)).is_none(), "bit {i}");
        }
    }
}
