//! The readings of one series that are in the hot log but in no chunk yet. Memory only.

use crate::record::Row;
use crate::value::{Value, Values};
use graylogic_line::FieldType;
use std::sync::Arc;

/// Readings in the order of their arrival.
#[derive(Debug)]
pub(crate) struct Tail {
    pub(crate) times: Vec<i64>,
    pub(crate) values: Values,
    /// Record of the oldest reading here: the log must keep it.
    pub(crate) first_sequence: u64,
    /// Record of the latest reading here.
    pub(crate) last_sequence: u64,
    /// Readings there is room for, and bytes of texts.
    room: u32,
    text_bytes: u32,
    /// Whether times ascend strictly, which they do but for late and repeated readings.
    pub(crate) ascending: bool,
}

/// Room for this many readings is the least that is made, and the most that is made beyond what is there.
const ROOM_MIN: u32 = 8;
const ROOM_MAX: u32 = 512;
/// What a tail with any reading takes besides them: the heads of two pieces of memory.
const HEAD_BYTES: usize = 32;

impl Tail {
    pub(crate) fn new(field_type: FieldType) -> Self {
        Self {
            times: Vec::new(),
            values: Values::empty(field_type),
            first_sequence: 0,
            last_sequence: 0,
            room: 0,
            text_bytes: 0,
            ascending: true,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.times.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.times.is_empty()
    }

    /// Takes a reading in and returns how many bytes of memory it took. The row is of the type of the series; that was
    /// checked before it went to the log.
    #[inline]
    pub(crate) fn push(&mut self, row: &Row, texts: &[Arc<str>], sequence: u64) -> usize {
        let before = self.memory_bytes();
        if self.times.len() == self.room as usize {
            self.grow();
        }
        match self.times.last() {
            None => self.first_sequence = sequence,
            Some(&last) => self.ascending &= last < row.time,
        }
        self.last_sequence = sequence;
        self.times.push(row.time);
        match &mut self.values {
            Values::Float(v) => v.push(f64::from_bits(row.bits)),
            Values::Integer(v) => v.push(row.bits as i64),
            Values::Unsigned(v) => v.push(row.bits),
            Values::Boolean(v) => v.push(row.bits != 0),
            Values::String(v) => {
                // A text is no longer than 1 MiB, and a tail with that much in it is on its way into chunks.
                self.text_bytes = self.text_bytes.saturating_add(texts[row.bits as usize].len() as u32);
                v.push(texts[row.bits as usize].clone());
            }
        }
        self.memory_bytes() - before
    }

    /// Makes room for half as many readings again: doubling would leave a third of the memory of many short tails empty.
    #[cold]
    fn grow(&mut self) {
        let room = (self.room / 2).clamp(ROOM_MIN, ROOM_MAX);
        let more = room as usize;
        self.times.reserve_exact(more);
        match &mut self.values {
            Values::Float(v) => v.reserve_exact(more),
            Values::Integer(v) => v.reserve_exact(more),
            Values::Unsigned(v) => v.reserve_exact(more),
            Values::Boolean(v) => v.reserve_exact(more),
            Values::String(v) => v.reserve_exact(more),
        }
        self.room += room;
    }

    /// Bytes of memory the tail takes, room that is not used yet included.
    #[inline]
    pub(crate) fn memory_bytes(&self) -> usize {
        if self.room == 0 {
            return 0;
        }
        let reading = match &self.values {
            Values::Float(_) | Values::Integer(_) | Values::Unsigned(_) => 16,
            Values::Boolean(_) => 9,
            // The text's own head, too.
            Values::String(_) => 8 + size_of::<Arc<str>>() + 16,
        };
        HEAD_BYTES + self.room as usize * reading + self.text_bytes as usize
    }

    /// The newest reading; of several with the same time the one that came last.
    pub(crate) fn newest(&self) -> Option<(i64, Value)> {
        let index = if self.ascending {
            self.times.len().checked_sub(1)?
        } else {
            self.times.iter().enumerate().max_by_key(|&(i, &t)| (t, i))?.0
        };
        Some((self.times[index], self.values.get(index)))
    }

    /// Oldest and newest time.
    pub(crate) fn bounds(&self) -> Option<(i64, i64)> {
        Some((*self.times.iter().min()?, *self.times.iter().max()?))
    }

    /// The readings with `start <= time < stop` in the order of time; of several with one time the one that came last.
    pub(crate) fn readings(&self, start: i64, stop: i64) -> (Vec<i64>, Values) {
        if self.ascending {
            let from = self.times.partition_point(|&t| t < start);
            let to = self.times.partition_point(|&t| t < stop).max(from);
            let order: Vec<u32> = (from as u32..to as u32).collect();
            return (self.times[from..to].to_vec(), self.values.pick(&order));
        }
        let mut order: Vec<u32> = (0..self.times.len() as u32)
            .filter(|&i| (start..stop).contains(&self.times[i as usize]))
            .collect();
        order.sort_by_key(|&i| self.times[i as usize]);
        keep_last_of_equal(&mut order, |i| self.times[i as usize]);
        (order.iter().map(|&i| self.times[i as usize]).collect(), self.values.pick(&order))
    }

    /// Every reading in the order of time, whatever the time.
    pub(crate) fn all(&self) -> (Vec<i64>, Values) {
        // No accepted time is i64::MAX, so a half-open range holds them all.
        self.readings(i64::MIN, i64::MAX)
    }
}

/// Of neighbours with equal times keeps the last: the one that was written last.
pub(crate) fn keep_last_of_equal(order: &mut Vec<u32>, time: impl Fn(u32) -> i64) {
    let mut kept = 0;
    for i in 0..order.len() {
        if kept > 0 && time(order[kept - 1]) == time(order[i]) {
            order[kept - 1] = order[i];
        } else {
            order[kept] = order[i];
            kept += 1;
        }
    }
    order.truncate(kept);
}
