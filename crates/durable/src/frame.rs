//! A frame: 32 bytes of header, a payload, and padding to 8 bytes. Pure: bytes in, bytes out.
//!
//! It must not know files, segments' names or what a payload means.

use crate::segment::Key;

/// Bytes before the payload.
pub(crate) const HEADER_BYTES: usize = 32;
/// Frames begin at multiples of this.
pub(crate) const ALIGNMENT: usize = 8;
/// No frame of any log has a longer payload; a reader refuses a length above it before allocating.
pub(crate) const PAYLOAD_BYTES_CAP: u32 = 16 << 20;
/// Sequences stay below this, so that no arithmetic on them overflows.
pub(crate) const SEQUENCE_CAP: u64 = 1 << 62;
/// The first four bytes. The first and last are never found in UTF-8 text, so lines of text do not look like frames.
pub(crate) const MAGIC: [u8; 4] = [0xF6, b'G', b'L', 0xFF];

/// The header's fields, the checksums checked and left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) payload_bytes: u32,
    pub(crate) flags: u16,
    pub(crate) first_sequence: u64,
    pub(crate) count: u32,
    pub(crate) payload_crc: u32,
}

impl Header {
    /// The sequence behind the frame's last.
    pub(crate) fn end_sequence(&self) -> u64 {
        self.first_sequence + u64::from(self.count)
    }

    /// Bytes of the header and the payload.
    pub(crate) fn bytes(&self) -> u64 {
        HEADER_BYTES as u64 + u64::from(self.payload_bytes)
    }

    /// Bytes to the next frame.
    pub(crate) fn padded_bytes(&self) -> u64 {
        self.bytes().next_multiple_of(ALIGNMENT as u64)
    }
}

/// What a header is checked with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Check {
    /// The log whose frames these are.
    pub(crate) log_id: u64,
    /// The key of the segment the frame stands in; `None` when the segment's header is unreadable.
    pub(crate) key: Option<Key>,
}

/// Begins a frame in an empty buffer: room for the header; the payload is to be pushed behind it.
pub(crate) fn begin(buffer: &mut Vec<u8>) {
    buffer.clear();
    buffer.resize(HEADER_BYTES, 0);
}

/// Completes the frame begun in `buffer`: pads it, and writes the header with both checksums.
pub(crate) fn finish(buffer: &mut Vec<u8>, log_id: u64, key: Key, flags: u16, first_sequence: u64, count: u32) {
    let payload_bytes = u32::try_from(buffer.len() - HEADER_BYTES).unwrap_or_else(|_| unreachable!("the caller has checked the length against the cap"));
    buffer.resize(buffer.len().next_multiple_of(ALIGNMENT), 0);
    buffer[0..4].copy_from_slice(&MAGIC);
    buffer[8..12].copy_from_slice(&payload_bytes.to_le_bytes());
    buffer[12..14].copy_from_slice(&flags.to_le_bytes());
    buffer[14..16].fill(0);
    buffer[16..24].copy_from_slice(&first_sequence.to_le_bytes());
    buffer[28..32].copy_from_slice(&count.to_le_bytes());
    let (header, payload) = buffer.split_at(HEADER_BYTES);
    let payload_crc = payload_crc(log_id, header, &payload[..payload_bytes as usize]);
    buffer[24..28].copy_from_slice(&payload_crc.to_le_bytes());
    rekey(buffer, key);
}

/// Moves a finished frame to another segment: only the header's checksum depends on the segment.
pub(crate) fn rekey(frame: &mut [u8], key: Key) {
    let crc = crc32c::crc32c_append(key.0, &frame[8..HEADER_BYTES]);
    frame[4..8].copy_from_slice(&crc.to_le_bytes());
}

/// The header, when its checksum holds and every field is possible, and the key it was written with.
pub(crate) fn header(bytes: &[u8; HEADER_BYTES], check: Check) -> Option<(Header, Key)> {
    if bytes[0..4] != MAGIC || bytes[14..16] != [0, 0] {
        return None;
    }
    let crc = u32_at(bytes, 4);
    let key = match check.key {
        Some(key) => (crc32c::crc32c_append(key.0, &bytes[8..]) == crc).then_some(key)?,
        None => Key(unappend(crc, &bytes[8..])),
    };
    let header = Header {
        payload_bytes: u32_at(bytes, 8),
        flags: u16::from_le_bytes([bytes[12], bytes[13]]),
        first_sequence: u64::from_le_bytes(std::array::from_fn(|i| bytes[16 + i])),
        payload_crc: u32_at(bytes, 24),
        count: u32_at(bytes, 28),
    };
    let possible = header.payload_bytes <= PAYLOAD_BYTES_CAP && header.count > 0 && header.first_sequence < SEQUENCE_CAP;
    possible.then_some((header, key))
}

/// The checksum a payload must have to belong to this log and this header.
pub(crate) fn payload_crc(log_id: u64, header: &[u8], payload: &[u8]) -> u32 {
    let mut crc = crc32c::crc32c(&log_id.to_le_bytes());
    crc = crc32c::crc32c_append(crc, &header[8..24]);
    crc = crc32c::crc32c_append(crc, &header[28..32]);
    crc32c::crc32c_append(crc, payload)
}

/// The value that, continued over `bytes`, gives `crc`: CRC-32C run backwards.
///
/// A segment whose header is gone has lost its key; the first whole frame in it still tells it, because a CRC is a bijection
/// of its starting value. The frame's own claim is then carried by the payload's checksum alone.
fn unappend(crc: u32, bytes: &[u8]) -> u32 {
    let mut register = !crc;
    for &byte in bytes.iter().rev() {
        let index = CRC_INDEX_BY_TOP[(register >> 24) as usize];
        register = ((register ^ CRC_TABLE[index as usize]) << 8) | u32::from(index ^ byte);
    }
    !register
}

/// The CRC-32C step for each byte (reflected polynomial 0x82F63B78, RFC 3720 appendix B.4).
const CRC_TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut index = 0;
    while index < 256 {
        let mut value = index as u32;
        let mut bit = 0;
        while bit < 8 {
            value = if value & 1 == 1 { (value >> 1) ^ 0x82F6_3B78 } else { value >> 1 };
            bit += 1;
        }
        table[index] = value;
        index += 1;
    }
    table
};

/// Which entry of [`CRC_TABLE`] has a given top byte; each top byte occurs once.
const CRC_INDEX_BY_TOP: [u8; 256] = {
    let mut index_by_top = [0; 256];
    let mut index = 0;
    while index < 256 {
        index_by_top[(CRC_TABLE[index] >> 24) as usize] = index as u8;
        index += 1;
    }
    index_by_top
};

fn u32_at(bytes: &[u8; HEADER_BYTES], at: usize) -> u32 {
    u32::from_le_bytes(std::array::from_fn(|i| bytes[at + i]))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(log_id: u64, key: Key, first_sequence: u64, count: u32, payload: &[u8]) -> Vec<u8> {
        let mut buffer = Vec::new();
        begin(&mut buffer);
        buffer.extend_from_slice(payload);
        finish(&mut buffer, log_id, key, 0, first_sequence, count);
        buffer
    }

    fn accepted(bytes: &[u8], check: Check) -> bool {
        let Some(head) = bytes.first_chunk() else { return false };
        let Some((header, _)) = header(head, check) else { return false };
        let payload = bytes.get(HEADER_BYTES..header.bytes() as usize);
        payload.is_some_and(|payload| payload_crc(check.log_id, head, payload) == header.payload_crc)
    }

    #[test]
    fn a_frame_has_the_bytes_the_format_says() {
        let bytes = frame(0x0102_0304_0506_0708, Key(0xAABB_CCDD), 0x1122_3344_5566_7788 >> 2, 3, b"hello");
        assert_eq!(bytes.len(), 40);
        assert_eq!(bytes[0..4], MAGIC);
        assert_eq!(bytes[8..12], [5, 0, 0, 0]);
        assert_eq!(bytes[12..16], [0, 0, 0, 0]);
        assert_eq!(bytes[16..24], (0x1122_3344_5566_7788_u64 >> 2).to_le_bytes());
        assert_eq!(bytes[28..32], [3, 0, 0, 0]);
        assert_eq!(bytes[32..40], *b"hello\0\0\0");
        let mut bound = 0x0102_0304_0506_0708_u64.to_le_bytes().to_vec();
        bound.extend_from_slice(&bytes[8..24]);
        bound.extend_from_slice(&bytes[28..32]);
        bound.extend_from_slice(b"hello");
        assert_eq!(bytes[24..28], crc32c::crc32c(&bound).to_le_bytes());
    }

    proptest! {
        #[test]
        fn the_key_is_found_again_from_a_frame_alone(key: u32, bytes: Vec<u8>) {
            prop_assert_eq!(unappend(crc32c::crc32c_append(key, &bytes), &bytes), key);
        }

        #[test]
        fn a_frame_is_accepted_only_where_it_was_written(log_id: u64, key: u32, sequence in 0..SEQUENCE_CAP, count in 1_u32.., payload: Vec<u8>, other_id: u64, other_key: u32) {
            let bytes = frame(log_id, Key(key), sequence, count, &payload);
            prop_assert!(accepted(&bytes, Check { log_id, key: Some(Key(key)) }));
            prop_assert!(accepted(&bytes, Check { log_id, key: None }));
            prop_assert_eq!(header(bytes.first_chunk().unwrap(), Check { log_id, key: None }).unwrap().1, Key(key));
            if other_key != key {
                prop_assert!(!accepted(&bytes, Check { log_id, key: Some(Key(other_key)) }));
            }
            if other_id != log_id {
                prop_assert!(!accepted(&bytes, Check { log_id: other_id, key: None }));
            }
        }

        #[test]
        fn any_flipped_bit_outside_the_padding_is_noticed_with_or_without_the_key(payload in prop::collection::vec(any::<u8>(), 0..60), bit: usize) {
            let mut bytes = frame(9, Key(77), 5, 2, &payload);
            let bit = bit % ((HEADER_BYTES + payload.len()) * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            let in_header_crc = (32..64).contains(&bit);
            prop_assert!(!accepted(&bytes, Check { log_id: 9, key: Some(Key(77)) }));
            // Without a key the header's checksum says nothing, and the payload's must notice everything else.
            prop_assert_eq!(accepted(&bytes, Check { log_id: 9, key: None }), in_header_crc);
        }

        #[test]
        fn any_bytes_are_looked_at_without_a_panic(bytes: [u8; HEADER_BYTES], key: Option<u32>) {
            let mut bytes = bytes;
            bytes[0..4].copy_from_slice(&MAGIC);
            let _ = header(&bytes, Check { log_id: 1, key: key.map(Key) });
        }
    }
}
