//! What a store knows of itself, written into both of its halves: identity, numbers that are never given again, and what
//! the other half and the tables must hold. Pure: it knows neither files nor the log. `docs/format.md` has every byte.

use crate::bytes::{Malformed, Reader, put_varint};

const VERSION: u8 = 1;
/// How many tables of the store file are counted.
pub(crate) const TABLES: usize = 6;
/// Names of the tables that are counted, by [`Table`].
pub(crate) const TABLE_NAMES: [&str; TABLES] =
    ["bucket", "series", "sealed", "tombstone", "removed", "ledger"];

/// A table whose rows are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Table {
    Bucket,
    Series,
    Sealed,
    Tombstone,
    Removed,
    Ledger,
}

/// How many rows a table has, and a sum over all of them that does not depend on their order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct TableSum {
    pub(crate) count: u64,
    pub(crate) sum: u64,
}

impl TableSum {
    /// Takes in a row, by its number and its checksum.
    pub(crate) fn add(&mut self, id: i64, crc: i64) {
        self.count = self.count.wrapping_add(1);
        self.sum = self.sum.wrapping_add(row_hash(id, crc));
    }

    /// Takes out a row.
    pub(crate) fn remove(&mut self, id: i64, crc: i64) {
        self.count = self.count.wrapping_sub(1);
        self.sum = self.sum.wrapping_sub(row_hash(id, crc));
    }
}

/// The finalizer of splitmix64 over number and checksum: sums of them do not cancel out.
fn row_hash(id: i64, crc: i64) -> u64 {
    let mut z = (id as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ (crc as u64);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// What the store file expects the hot log to hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LogExpected {
    /// The first sequence that is not in chunks for every series.
    pub(crate) from: u64,
    /// Frames before this sequence have been synced.
    pub(crate) synced: u64,
    /// The newest segment; 0: there was none.
    pub(crate) segment: u64,
}

/// What a store knows of itself as of one commit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mark {
    /// Random, made with the folder.
    pub(crate) identity: u64,
    /// Counts the commits of the store file.
    pub(crate) commit: u64,
    /// Numbers from these on have never been given.
    pub(crate) next_series: u32,
    pub(crate) next_bucket: u32,
    pub(crate) next_chunk: u64,
    /// Sequences below this one are not given again.
    pub(crate) sequence: u64,
    pub(crate) log: LogExpected,
    /// Chunks, and the readings in them.
    pub(crate) chunks: u64,
    pub(crate) readings: u64,
    pub(crate) tables: [TableSum; TABLES],
    /// Bytes written in the store's life.
    pub(crate) written: u64,
    /// Segments of the hot log may still carry the identity that all stores of format version 1 had.
    pub(crate) shared_log_id: bool,
}

impl Mark {
    /// The mark of a store that is new.
    pub(crate) fn new(identity: u64) -> Self {
        Self { identity, next_bucket: 1, next_chunk: 1, sequence: 1, ..Self::default() }
    }

    pub(crate) fn table(&mut self, table: Table) -> &mut TableSum {
        &mut self.tables[table as usize]
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION, u8::from(self.shared_log_id)];
        out.extend_from_slice(&self.identity.to_le_bytes());
        let numbers = [
            self.commit,
            u64::from(self.next_series),
            u64::from(self.next_bucket),
            self.next_chunk,
            self.sequence,
            self.log.from,
            self.log.synced,
            self.log.segment,
            self.chunks,
            self.readings,
            self.written,
        ];
        numbers.iter().for_each(|&n| put_varint(&mut out, n));
        for table in &self.tables {
            put_varint(&mut out, table.count);
            out.extend_from_slice(&table.sum.to_le_bytes());
        }
        let crc = crc32c::crc32c(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let (body, crc) = bytes.split_last_chunk::<4>().ok_or(Malformed)?;
        if crc32c::crc32c(body).to_le_bytes() != *crc {
            return Err(Malformed);
        }
        let mut reader = Reader::new(body);
        if reader.u8()? != VERSION {
            return Err(Malformed);
        }
        let shared_log_id = reader.u8()? != 0;
        let mut mark = Self { shared_log_id, identity: reader.u64_le()?, ..Self::default() };
        mark.commit = reader.varint()?;
        mark.next_series = u32::try_from(reader.varint()?).map_err(|_| Malformed)?;
        mark.next_bucket = u32::try_from(reader.varint()?).map_err(|_| Malformed)?;
        mark.next_chunk = reader.varint()?;
        mark.sequence = reader.varint()?;
        mark.log =
            LogExpected { from: reader.varint()?, synced: reader.varint()?, segment: reader.varint()? };
        (mark.chunks, mark.readings, mark.written) = (reader.varint()?, reader.varint()?, reader.varint()?);
        for table in &mut mark.tables {
            *table = TableSum { count: reader.varint()?, sum: reader.u64_le()? };
        }
        if reader.is_empty() { Ok(mark) } else { Err(Malformed) }
    }

    /// Numbers that this mark or another one has seen given are not given again.
    pub(crate) fn raise(&mut self, other: &Self) {
        if self.identity == 0 {
            // It was lost.
            (self.identity, self.shared_log_id) = (other.identity, other.shared_log_id);
        }
        self.commit = self.commit.max(other.commit);
        self.next_series = self.next_series.max(other.next_series);
        self.next_bucket = self.next_bucket.max(other.next_bucket);
        self.next_chunk = self.next_chunk.max(other.next_chunk);
        self.sequence = self.sequence.max(other.sequence);
        self.written = self.written.max(other.written);
    }
}

/// A number that no other store has: from the keys that the operating system seeds hash maps with, and the clock.
pub(crate) fn new_identity() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    let seed = (std::process::id(), std::time::SystemTime::now(), std::thread::current().id());
    match RandomState::new().hash_one(seed) {
        0 => 1,
        id => id,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Mark {
        Mark {
            identity: u64::MAX - 7,
            commit: 300,
            next_series: u32::MAX,
            next_bucket: 3,
            next_chunk: 1 << 40,
            sequence: u64::MAX,
            log: LogExpected { from: 1, synced: 2, segment: 1 << 60 },
            chunks: 5,
            readings: 6,
            tables: std::array::from_fn(|i| TableSum { count: i as u64, sum: u64::MAX - i as u64 }),
            written: 9,
            shared_log_id: true,
        }
    }

    #[test]
    fn a_mark_comes_back_whole_and_no_damaged_one_is_believed() {
        let bytes = sample().encode();
        assert_eq!(Mark::decode(&bytes), Ok(sample()));
        for n in 0..bytes.len() {
            assert_eq!(Mark::decode(&bytes[..n]), Err(Malformed), "cut at {n}");
        }
        for i in 0..bytes.len() * 8 {
            let mut hurt = bytes.clone();
            hurt[i / 8] ^= 1 << (i % 8);
            assert_eq!(Mark::decode(&hurt), Err(Malformed), "bit {i}");
        }
    }

    #[test]
    fn the_sum_of_a_table_knows_neither_order_nor_history() {
        let (mut a, mut b) = (TableSum::default(), TableSum::default());
        for (id, crc) in [(1, 5), (2, 5), (3, 9)] {
            a.add(id, crc);
        }
        for (id, crc) in [(3, 9), (7, 7), (2, 5), (1, 5)] {
            b.add(id, crc);
        }
        assert_ne!(a, b);
        b.remove(7, 7);
        assert_eq!(a, b);
        b.remove(1, 5);
        b.add(2, 5);
        assert_ne!(a, b, "rows that change places are noticed");
    }
}
