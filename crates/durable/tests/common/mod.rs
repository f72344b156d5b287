//! Frames that can be told apart, and what a log holds of them.

use graylogic_durable::{Damage, Disk, Log, LogOptions, Recovery, SimDisk};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

pub(crate) const FOLDER: &str = "log";
pub(crate) const LOG_ID: u64 = 0x00C0_FFEE;

/// A small generator, so that a failing case is named by its seed.
#[derive(Clone, Debug)]
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

/// Frames by their first sequence: count and payload.
pub(crate) type Content = BTreeMap<u64, (u32, Vec<u8>)>;

pub(crate) fn options() -> LogOptions {
    LogOptions::new(LOG_ID).segment_bytes(600)
}

pub(crate) fn open(disk: &SimDisk) -> Result<(Log, Recovery), graylogic_durable::Error> {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    Log::open(disk, Path::new(FOLDER), options())
}

/// Everything a log holds. Sequences ascend, and what is lost lies between them.
pub(crate) fn content(log: &Log) -> (Content, Vec<Damage>) {
    let (mut frames, mut damage) = (Content::new(), Vec::new());
    let mut next = 0;
    for item in log.replay(0) {
        match item {
            Ok(frame) => {
                assert!(frame.first_sequence >= next, "frames come in order and once");
                next = frame.first_sequence + u64::from(frame.count);
                frames.insert(frame.first_sequence, (frame.count, frame.payload));
            }
            Err(one) => damage.push(one),
        }
    }
    assert!(next <= log.next_sequence(), "no sequence of a frame is given again");
    (frames, damage)
}

/// A payload of its own for each call; some hold what looks like frames.
pub(crate) fn payload(dice: &mut Dice, old: &[u8]) -> Vec<u8> {
    match dice.below(8) {
        0 => Vec::new(),
        1 => old[..old.len().min(300)].to_vec(),
        2 => vec![0; dice.below(90) as usize],
        3 => [0xF7, b'G', b'L', 0xA5].repeat(dice.below(20) as usize),
        _ => (0..dice.below(120)).map(|_| dice.below(256) as u8).collect(),
    }
}
