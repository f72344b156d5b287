//! A segment: its name, its 64-byte header, and the reader that walks its frames over damage.
//!
//! It must not know the log's state: which segments there are, which is written, what is synced.

use std::{io, ops::Range};

use crate::{
    disk::DiskFile,
    frame::{self, ALIGNMENT, Check, HEADER_BYTES, Header, SEQUENCE_CAP},
};

/// Bytes before the first frame.
pub(crate) const SEGMENT_HEADER_BYTES: usize = 64;
const MAGIC: [u8; 8] = *b"GLTLOG\r\n";
const VERSION: u16 = 1;

/// What ties a frame to the one life of the one file it was written in: the checksum of the segment's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key(pub(crate) u32);

/// The 64-byte header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) log_id: u64,
    pub(crate) first_sequence: u64,
    pub(crate) created_unix_ns: i64,
}

/// What the first bytes of a file turn out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HeaderRead {
    Good(SegmentHeader, Key),
    /// Whole, but of a version this program does not know.
    OtherVersion(u16),
    /// Too short, or the checksum does not hold.
    Damaged,
}

impl SegmentHeader {
    pub(crate) fn encode(&self) -> ([u8; SEGMENT_HEADER_BYTES], Key) {
        let mut bytes = [0; SEGMENT_HEADER_BYTES];
        bytes[0..8].copy_from_slice(&MAGIC);
        bytes[8..10].copy_from_slice(&VERSION.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.log_id.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.first_sequence.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.created_unix_ns.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[..60]);
        bytes[60..64].copy_from_slice(&crc.to_le_bytes());
        (bytes, Key(crc))
    }

    pub(crate) fn decode(bytes: &[u8]) -> HeaderRead {
        let Some(bytes) = bytes.first_chunk::<SEGMENT_HEADER_BYTES>() else { return HeaderRead::Damaged };
        let u64_at = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));
        let crc = crc32c::crc32c(&bytes[..60]);
        if bytes[0..8] != MAGIC || bytes[60..64] != crc.to_le_bytes() {
            return HeaderRead::Damaged;
        }
        let version = u16::from_le_bytes([bytes[8], bytes[9]]);
        if version != VERSION {
            return HeaderRead::OtherVersion(version);
        }
        let header = SegmentHeader {
            log_id: u64_at(16),
            first_sequence: u64_at(24),
            created_unix_ns: i64::from_le_bytes(std::array::from_fn(|i| bytes[32 + i])),
        };
        if header.first_sequence >= SEQUENCE_CAP {
            return HeaderRead::Damaged;
        }
        HeaderRead::Good(header, Key(crc))
    }
}

/// The file name of the segment that begins at `first_sequence`.
pub(crate) fn name(first_sequence: u64) -> String {
    format!("{first_sequence:016x}.seg")
}

/// The name a segment has until it is whole; never read, replaced by the next attempt.
pub(crate) fn unfinished_name(first_sequence: u64) -> String {
    format!("{first_sequence:016x}.tmp")
}

/// The sequence a file name claims; `None` when it is not a segment's name.
pub(crate) fn sequence_of(name: &str) -> Option<u64> {
    sequence_before(name, ".seg")
}

/// Like [`sequence_of`] for [`unfinished_name`].
pub(crate) fn unfinished_sequence_of(name: &str) -> Option<u64> {
    sequence_before(name, ".tmp")
}

fn sequence_before(name: &str, suffix: &str) -> Option<u64> {
    let digits = name.strip_suffix(suffix)?;
    let canonical = digits.len() == 16 && digits.bytes().all(|it| matches!(it, b'0'..=b'9' | b'a'..=b'f'));
    let sequence = u64::from_str_radix(digits, 16).ok()?;
    (canonical && sequence < SEQUENCE_CAP).then_some(sequence)
}

/// What the scanner found next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// A whole frame; its payload is [`Scanner::payload`] until the next call.
    Frame { offset: u64, header: Header },
    /// Bytes that are no frame of this segment, up to the next whole frame or the end.
    Bad {
        offset: u64,
        bytes: u64,
        /// The end of the last sequence a trustworthy header in these bytes claims; only meaningful at the segment's end.
        claimed_end: Option<u64>,
        /// The disk refused to read some of these bytes.
        unreadable: bool,
    },
}

/// How many bytes are read at a time; frames larger than this are read whole.
const WINDOW_BYTES: usize = 256 << 10;
/// The unit in which unreadable bytes are given up.
const BLOCK_BYTES: u64 = 4096;
/// Attempts before a block counts as unreadable.
const READ_ATTEMPTS: u32 = 3;

/// Walks a segment's frames in order, over damage, holding one frame in memory.
#[derive(Debug)]
pub(crate) struct Scanner {
    file: std::sync::Arc<dyn DiskFile>,
    /// The bytes to look at; what is appended later is not seen.
    file_bytes: u64,
    check: Check,
    offset: u64,
    /// Frames beginning before this sequence are not accepted.
    expected: u64,
    /// Frames ending behind this sequence belong to the next segment.
    end: u64,
    /// A found frame waiting behind the damage before it.
    ready: Option<(u64, Header)>,
    payload: Range<usize>,
    window: Vec<u8>,
    window_offset: u64,
    give_up_blocks: bool,
    unreadable: bool,
}

impl Scanner {
    /// Begins behind the segment's header. `sequences` bounds what is accepted; `key` is `None` when the header is damaged.
    pub(crate) fn new(file: std::sync::Arc<dyn DiskFile>, file_bytes: u64, check: Check, sequences: Range<u64>) -> Scanner {
        Scanner {
            file,
            file_bytes,
            check,
            offset: SEGMENT_HEADER_BYTES as u64,
            expected: sequences.start,
            end: sequences.end,
            ready: None,
            payload: 0..0,
            window: Vec::new(),
            window_offset: 0,
            give_up_blocks: false,
            unreadable: false,
        }
    }

    /// From now on, bytes the disk refuses to read are damage and no error.
    pub(crate) fn give_up_blocks(&mut self, yes: bool) {
        self.give_up_blocks = yes;
    }

    /// The next frame or damage; `None` at the end. After an error the same call may be made again.
    pub(crate) fn next(&mut self) -> io::Result<Option<Found>> {
        if let Some((offset, header)) = self.ready {
            // The window still holds it: it was the last thing looked at.
            self.ready = None;
            return Ok(Some(self.accept(offset, header)));
        }
        self.unreadable = false;
        let bad_from = self.offset;
        let mut claimed_end = None;
        let mut at = self.offset;
        while at < self.file_bytes {
            match self.look(at)? {
                Look::Frame(header) if header.first_sequence >= self.end => {
                    // A later segment has these sequences: what follows is not ours, and is no damage.
                    self.offset = self.file_bytes;
                    return Ok(self.bad(bad_from, at, claimed_end));
                }
                Look::Frame(header) if header.first_sequence >= self.expected && header.end_sequence() <= self.end => {
                    let bad = self.bad(bad_from, at, claimed_end);
                    if bad.is_some() {
                        self.offset = at;
                        self.ready = Some((at, header));
                        return Ok(bad);
                    }
                    return Ok(Some(self.accept(at, header)));
                }
                // A block that stands here a second time: skip the whole of it.
                Look::Frame(header) => at += header.padded_bytes(),
                Look::Claim(header) => {
                    claimed_end = claimed_end.max(Some(header.end_sequence()).filter(|&end| header.first_sequence >= self.expected && end <= self.end));
                    at = self.next_magic(at + ALIGNMENT as u64)?;
                }
                Look::Nothing => at = self.next_magic(at + ALIGNMENT as u64)?,
            }
        }
        self.offset = self.file_bytes;
        Ok(self.bad(bad_from, self.file_bytes, claimed_end))
    }

    /// The payload of the frame found last.
    pub(crate) fn payload(&self) -> &[u8] {
        &self.window[self.payload.clone()]
    }

    /// Where the bytes not yet looked at begin.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    fn bad(&self, from: u64, to: u64, claimed_end: Option<u64>) -> Option<Found> {
        let bytes = to.min(self.file_bytes).checked_sub(from).filter(|&bytes| bytes > 0)?;
        Some(Found::Bad { offset: from, bytes, claimed_end, unreadable: self.unreadable })
    }

    fn accept(&mut self, offset: u64, header: Header) -> Found {
        let start = usize::try_from(offset - self.window_offset).unwrap_or_else(|_| unreachable!("the window begins at or before the frame and fits into memory"));
        self.payload = start + HEADER_BYTES..start + HEADER_BYTES + header.payload_bytes as usize;
        self.offset = (offset + header.padded_bytes()).min(self.file_bytes);
        self.expected = header.end_sequence();
        Found::Frame { offset, header }
    }

    fn look(&mut self, at: u64) -> io::Result<Look> {
        let check = self.check;
        if self.file_bytes - at < HEADER_BYTES as u64 {
            return Ok(Look::Nothing);
        }
        let Some(&head) = self.bytes(at, HEADER_BYTES)?.first_chunk() else { return Ok(Look::Nothing) };
        let Some((header, key)) = frame::header(&head, check) else { return Ok(Look::Nothing) };
        let claim = if check.key.is_some() { Look::Claim(header) } else { Look::Nothing };
        if at + header.bytes() > self.file_bytes {
            return Ok(claim);
        }
        let frame = self.bytes(at, HEADER_BYTES + header.payload_bytes as usize)?;
        if frame::payload_crc(check.log_id, &head, &frame[HEADER_BYTES..]) != header.payload_crc {
            return Ok(claim);
        }
        self.check.key = Some(key);
        Ok(Look::Frame(header))
    }

    /// The next offset at or behind `at` where a frame may begin.
    fn next_magic(&mut self, mut at: u64) -> io::Result<u64> {
        while at < self.file_bytes {
            let bytes = (WINDOW_BYTES as u64 / 2).min(self.file_bytes - at) as usize;
            let here = self.bytes(at, bytes)?;
            if let Some(block) = here.chunks(ALIGNMENT).position(|it| it.starts_with(&frame::MAGIC)) {
                return Ok(at + (block * ALIGNMENT) as u64);
            }
            at += bytes.next_multiple_of(ALIGNMENT) as u64;
        }
        Ok(self.file_bytes)
    }

    /// `bytes` bytes at `at`, which lie inside the file, through the window.
    fn bytes(&mut self, at: u64, bytes: usize) -> io::Result<&[u8]> {
        let window_end = self.window_offset + self.window.len() as u64;
        if at < self.window_offset || at + bytes as u64 > window_end {
            let wanted = (bytes.max(WINDOW_BYTES) as u64).min(self.file_bytes - at) as usize;
            self.window.clear();
            self.window.resize(wanted, 0);
            self.window_offset = at;
            if let Err(error) = self.fill() {
                self.window.clear();
                return Err(error);
            }
        }
        let start = (at - self.window_offset) as usize;
        Ok(&self.window[start..start + bytes])
    }

    fn fill(&mut self) -> io::Result<()> {
        let error = match read_whole(&*self.file, &mut self.window, self.window_offset) {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        if !self.give_up_blocks {
            return Err(error);
        }
        let (mut at, end) = (self.window_offset, self.window_offset + self.window.len() as u64);
        while at < end {
            let next = (at / BLOCK_BYTES + 1).saturating_mul(BLOCK_BYTES).min(end);
            let block = &mut self.window[(at - self.window_offset) as usize..(next - self.window_offset) as usize];
            if (0..READ_ATTEMPTS).all(|_| read_whole(&*self.file, block, at).is_err()) {
                block.fill(0);
                self.unreadable = true;
            }
            at = next;
        }
        Ok(())
    }
}

enum Look {
    Frame(Header),
    /// A good header whose payload is not there or not good.
    Claim(Header),
    Nothing,
}

/// Reads all of `buf`; what lies behind the end of the file, because someone has cut it, reads as zeros, which are no frame.
fn read_whole(file: &dyn DiskFile, buf: &mut [u8], offset: u64) -> io::Result<()> {
    let read = file.read_at(buf, offset)?;
    buf[read..].fill(0);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_comes_back_and_every_flipped_bit_is_noticed() {
        let header = SegmentHeader { log_id: 7, first_sequence: 1000, created_unix_ns: -5 };
        let (bytes, key) = header.encode();
        assert_eq!(SegmentHeader::decode(&bytes), HeaderRead::Good(header, key));
        for bit in 0..SEGMENT_HEADER_BYTES * 8 {
            let mut bytes = bytes;
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(SegmentHeader::decode(&bytes), HeaderRead::Damaged, "bit {bit}");
        }
        for cut in 0..SEGMENT_HEADER_BYTES {
            assert_eq!(SegmentHeader::decode(&bytes[..cut]), HeaderRead::Damaged);
        }
    }

    #[test]
    fn another_version_is_told_from_damage() {
        let (mut bytes, _) = SegmentHeader { log_id: 7, first_sequence: 0, created_unix_ns: 0 }.encode();
        bytes[8] = 2;
        let crc = crc32c::crc32c(&bytes[..60]);
        bytes[60..].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(SegmentHeader::decode(&bytes), HeaderRead::OtherVersion(2));
    }

    #[test]
    fn only_our_own_spelling_is_a_segment_name() {
        let cases = [
            ("0000000000000000.seg", Some(0)),
            ("00000000000000ff.seg", Some(255)),
            ("00000000000000FF.seg", None),
            ("ff.seg", None),
            ("ffffffffffffffff.seg", None),
            ("+000000000000001.seg", None),
            ("00000000000000ff.tmp", None),
            ("00000000000000ff", None),
            ("LOCK", None),
        ];
        for (text, expected) in cases {
            assert_eq!(sequence_of(text), expected, "{text}");
        }
        assert_eq!(sequence_of(&name(0x1234)), Some(0x1234));
        assert_eq!(unfinished_sequence_of(&unfinished_name(0x1234)), Some(0x1234));
    }
}
