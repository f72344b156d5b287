//! What a log promises, and what damage costs.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use common::{Content, Dice, FOLDER, LOG_ID, content, open, options, payload};
use graylogic_durable::{Disk, FRAME_HEADER_BYTES, Log, LogOptions, OpenMode, RealDisk, SimDisk};
use proptest::prelude::*;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A log of frames on a disk of its own, synced; the frames.
fn filled(frames: usize, seed: u64) -> (SimDisk, Content) {
    let disk = SimDisk::new();
    let (log, _) = open(&disk).unwrap();
    let mut dice = Dice::new(seed);
    let mut expected = Content::new();
    for _ in 0..frames {
        let bytes = payload(&mut dice, b"");
        let count = 1 + dice.below(5) as u32;
        expected.insert(log.append(&bytes, count).unwrap(), (count, bytes));
    }
    log.sync().unwrap();
    (disk, expected)
}

fn last_file(disk: &SimDisk) -> PathBuf {
    disk.files().into_iter().filter(|f| f.extension().is_some_and(|e| e == "seg")).max().unwrap()
}

/// Where the frames of a segment begin, and its end.
fn frame_starts(bytes: &[u8]) -> Vec<usize> {
    let mut at = 64;
    let mut starts = vec![at];
    while at < bytes.len() {
        let payload = u32::from_le_bytes(bytes[at + 8..at + 12].try_into().unwrap()) as usize;
        at += FRAME_HEADER_BYTES + payload.next_multiple_of(8);
        starts.push(at);
    }
    assert_eq!(at, bytes.len());
    starts
}

#[test]
fn a_write_torn_at_any_byte_costs_only_itself() {
    let mut cases = 0;
    for seed in 0..6 {
        let (disk, expected) = filled(9, seed);
        let file = last_file(&disk);
        let whole = disk.bytes(&file).unwrap();
        let starts = frame_starts(&whole);
        let from = starts[starts.len().saturating_sub(4)];
        let others = expected.len() - (starts.len() - 1);
        for cut in from..=whole.len() {
            // A file that ends there; one whose length arrived and whose bytes did not; one with old bytes behind.
            for tail in [vec![], vec![0; whole.len() - cut], vec![0xF7; 40]] {
                cases += 1;
                let disk = disk.fork().after_kill();
                disk.set_bytes(&file, [&whole[..cut], &tail].concat());
                // A frame is whole when its payload is; padding may be missing, and zeros may stand for zeros.
                let now = disk.bytes(&file).unwrap();
                let whole_frame = |at: &&usize| {
                    let payload = u32::from_le_bytes(whole[**at + 8..**at + 12].try_into().unwrap());
                    let end = **at + FRAME_HEADER_BYTES + payload as usize;
                    now.get(..end) == Some(&whole[..end])
                };
                let kept = starts[..starts.len() - 1].iter().take_while(whole_frame).count();
                let want: Content = expected.clone().into_iter().take(others + kept).collect();
                let (log, _) = open(&disk).unwrap();
                let found = content(&log).0;
                assert!(
                    found.iter().eq(want.iter()),
                    "seed {seed}, cut at {cut}, {} bytes behind",
                    tail.len()
                );
                let next = log.append(b"after", 2).unwrap();
                log.sync().unwrap();
                drop(log);
                let (log, recovery) = open(&disk.after_power_cut(cut as u64)).unwrap();
                assert!(recovery.damage.is_empty(), "{:?}", recovery.damage);
                let mut want = want;
                want.insert(next, (2, b"after".to_vec()));
                assert_eq!(content(&log).0, want);
            }
        }
    }
    println!("{cases} torn writes");
}

#[test]
fn a_flipped_bit_costs_only_its_frame() {
    let mut cases = 0;
    for seed in 0..4 {
        let (disk, expected) = filled(14, seed);
        let mut files: Vec<PathBuf> = disk.files();
        files.sort();
        assert!(files.len() >= 2, "closed segments and the open one");
        for file in &files {
            let whole = disk.bytes(file).unwrap();
            let starts = frame_starts(&whole);
            for bit in 0..whole.len() * 8 {
                cases += 1;
                let mut bytes = whole.clone();
                bytes[bit / 8] ^= 1 << (bit % 8);
                let disk = disk.fork().after_kill();
                disk.set_bytes(file, bytes);
                let (log, recovery) = open(&disk).unwrap();
                let (found, damage) = content(&log);
                // Which frame the bit is in, by its first sequence.
                let hit = starts
                    .iter()
                    .rposition(|&s| s <= bit / 8)
                    .map(|i| starts[i])
                    .map(|at| u64::from_le_bytes(whole[at + 16..at + 24].try_into().unwrap()));
                let missing: Vec<u64> = expected.keys().filter(|s| !found.contains_key(s)).copied().collect();
                let context = format!("seed {seed}, {}, bit {bit}", file.display());
                assert!(missing.iter().all(|s| Some(*s) == hit), "{context}: {missing:?} of {hit:?}");
                assert!(found.iter().all(|(s, f)| expected.get(s) == Some(f)), "{context}: nothing foreign");
                if let Some(lost) = missing.first() {
                    let told = recovery.damage.iter().chain(&damage).any(|d| d.bytes > 0);
                    assert!(told, "{context}: the damage is told");
                    let later = expected.range(lost + 1..).next().is_some();
                    let counted: u64 = damage.iter().map(graylogic_durable::Damage::lost_count).sum();
                    if later {
                        assert_eq!(
                            counted,
                            u64::from(expected[lost].0),
                            "{context}: exactly the frame is lost"
                        );
                    }
                }
                // And the log goes on.
                let next = log.append(b"next", 1).unwrap();
                assert!(next >= *expected.keys().next_back().unwrap(), "{context}");
            }
        }
    }
    println!("{cases} flipped bits");
}

#[test]
fn files_that_are_no_segments_are_put_aside() {
    let (disk, expected) = filled(14, 3);
    let first = disk.files().into_iter().min().unwrap();
    let other = LogOptions::new(77).segment_bytes(400);
    let strange: Arc<dyn Disk> = Arc::new(disk.clone());
    Log::open(strange, Path::new("other"), other).unwrap().0.append(b"foreign", 1).unwrap();
    let foreign = disk.files().into_iter().find(|f| f.starts_with("other")).unwrap();
    let folder = Path::new(FOLDER);
    disk.set_bytes(&folder.join("ffffffffffff0000.seg"), disk.bytes(&foreign).unwrap());
    disk.set_bytes(&folder.join("notes.txt"), b"not ours".to_vec());
    disk.set_bytes(&folder.join("garbage.seg"), (0..2000u32).map(|i| (i * i) as u8).collect());
    disk.set_bytes(&folder.join("0000000000000abc.new"), disk.bytes(&first).unwrap());
    let (log, recovery) = open(&disk).unwrap();
    assert_eq!(recovery.damage.len(), 2, "{:?}", recovery.damage);
    for damage in &recovery.damage {
        let kept = damage.kept_in.as_ref().unwrap();
        assert_eq!(disk.bytes(kept).unwrap().len() as u64, damage.bytes, "nothing is deleted");
    }
    assert_eq!(disk.bytes(&folder.join("notes.txt")).unwrap(), b"not ours");
    assert_eq!(content(&log).0, expected);
}

#[test]
fn a_missing_segment_and_a_doubled_block_are_told() {
    let (disk, expected) = filled(20, 5);
    let mut files = disk.files();
    files.sort();
    assert!(files.len() >= 3);
    let without = disk.fork().after_kill();
    without.delete(&files[1]);
    let (log, _) = open(&without).unwrap();
    let (found, damage) = content(&log);
    let missing: u64 =
        expected.iter().filter(|(s, _)| !found.contains_key(s)).map(|(_, f)| u64::from(f.0)).sum();
    assert!(missing > 0);
    assert_eq!(damage.iter().map(graylogic_durable::Damage::lost_count).sum::<u64>(), missing);
    // A block written twice, as a bad controller would: the frames come once.
    let whole = disk.bytes(&files[0]).unwrap();
    let starts = frame_starts(&whole);
    let doubled = [&whole[..starts[2]], &whole[starts[0]..starts[2]], &whole[starts[2]..]].concat();
    disk.set_bytes(&files[0], doubled);
    let (log, _) = open(&disk).unwrap();
    let (found, damage) = content(&log);
    assert_eq!(found, expected);
    assert_eq!(damage.iter().map(graylogic_durable::Damage::lost_count).sum::<u64>(), 0);
    assert!(damage.iter().any(|d| d.bytes as usize == starts[2] - starts[0]), "{damage:?}");
}

#[test]
fn one_folder_has_one_owner_on_the_real_disk() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("LOCK");
    let held = RealDisk.lock(&path).unwrap();
    let refused = RealDisk.lock(&path).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::WouldBlock);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), std::process::id().to_string());
    drop(held);
    RealDisk.lock(&path).unwrap();
}

#[test]
fn the_real_disk_does_what_the_simulated_one_does() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("a/b/log");
    let real: Arc<dyn Disk> = Arc::new(RealDisk);
    let simulated: Arc<dyn Disk> = Arc::new(SimDisk::new());
    let mut listings = Vec::new();
    for disk in [real, simulated] {
        let mut dice = Dice::new(11);
        let mut expected = Content::new();
        for _ in 0..4 {
            let (log, recovery) = Log::open(disk.clone(), &place, options()).unwrap();
            assert!(recovery.damage.is_empty());
            assert_eq!(content(&log).0, expected);
            for _ in 0..6 {
                let bytes = payload(&mut dice, b"");
                expected.insert(log.append(&bytes, 2).unwrap(), (2, bytes));
            }
            log.sync().unwrap();
            let keep = *expected.keys().nth(3).unwrap();
            log.trim(keep).unwrap();
            let first = log.first_sequence();
            assert!(first <= keep);
            expected.retain(|s, _| *s >= first);
        }
        let mut files: Vec<_> = disk.list(&place).unwrap().into_iter().map(|e| (e.name, e.bytes)).collect();
        files.sort();
        let bytes: Vec<Vec<u8>> = files
            .iter()
            .map(|(name, length)| {
                let mut bytes = vec![0; *length as usize];
                disk.open(&place.join(name), OpenMode::Read).unwrap().read_at(&mut bytes, 0).unwrap();
                // The time it was made, and the checksum over it.
                bytes[32..64].fill(0);
                bytes
            })
            .collect();
        listings.push((files, bytes));
    }
    assert_eq!(listings[0], listings[1]);
}

#[test]
fn a_payload_above_the_limit_is_refused_and_nothing_else() {
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new());
    let options = LogOptions::new(LOG_ID).payload_bytes_max(100);
    let (log, _) = Log::open(disk, Path::new(FOLDER), options).unwrap();
    log.append(&[1; 100], 1).unwrap();
    let error = log.append(&[1; 101], 1).unwrap_err();
    assert!(
        error.is_invalid() && error.to_string().contains("101 bytes is above the limit of 100"),
        "{error}"
    );
    assert_eq!(log.append(&[2; 3], 1).unwrap(), 2);
}

#[test]
fn many_threads_append_and_sync() {
    let disk = SimDisk::new();
    let log = open(&disk).unwrap().0;
    std::thread::scope(|threads| {
        for thread in 0..4u8 {
            let (log, disk) = (&log, &disk);
            threads.spawn(move || {
                for i in 0..100u8 {
                    let first = log.append(&[thread, i], 1).unwrap();
                    let safe = log.sync().unwrap();
                    assert!(safe > first, "a sync covers what was appended before it");
                    if i % 20 == 0 {
                        let (after, _) = open(&disk.after_power_cut(u64::from(i))).unwrap();
                        assert!(content(&after).0.contains_key(&first));
                    }
                }
            });
        }
    });
    let (found, damage) = content(&log);
    assert_eq!((found.len(), damage.len()), (400, 0));
    assert!(log.stats().syncs <= 400);
}

#[derive(Clone, Debug)]
enum Step {
    Append(Vec<u8>, u32),
    Sync,
    Roll,
    Trim(u64),
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (prop::collection::vec(any::<u8>(), 0..200), 1u32..9).prop_map(|(b, n)| Step::Append(b, n)),
        2 => Just(Step::Sync),
        1 => Just(Step::Roll),
        1 => (0u64..200).prop_map(Step::Trim),
        1 => Just(Step::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    /// Whatever is called in whatever order, a log holds what a plain map holds.
    #[test]
    fn a_log_is_a_map(steps in prop::collection::vec(step(), 1..60)) {
        let disk = SimDisk::new();
        let mut log = open(&disk).unwrap().0;
        let mut expected = Content::new();
        for step in steps {
            match step {
                Step::Append(bytes, count) => {
                    let next = expected.last_key_value().map_or(log.next_sequence(), |(s, f)| s + u64::from(f.0));
                    let first = log.append(&bytes, count).unwrap();
                    prop_assert!(first >= next);
                    expected.insert(first, (count, bytes));
                }
                Step::Sync => prop_assert_eq!(log.sync().unwrap(), log.next_sequence()),
                Step::Roll => log.roll(),
                Step::Trim(before) => {
                    log.trim(before).unwrap();
                    let first = log.first_sequence();
                    prop_assert!(expected.range(..first).all(|(s, f)| s + u64::from(f.0) <= before), "only what may go went");
                    expected.retain(|s, _| *s >= first);
                }
                Step::Reopen => {
                    let next = log.next_sequence();
                    log = open(&disk).unwrap().0;
                    prop_assert!(log.next_sequence() == next || expected.is_empty());
                }
            }
            let (found, damage) = content(&log);
            prop_assert_eq!(&found, &expected);
            prop_assert!(damage.is_empty(), "{damage:?}");
        }
    }
}

/// A log that gets another identity reads what it wrote under the one before; the segment of another log stays out.
#[test]
fn segments_of_an_earlier_identity_are_read_and_those_of_another_log_are_kept_apart() {
    let disk = SimDisk::new();
    let at = |id: u64| LogOptions::new(id);
    let (old, _) = Log::open(Arc::new(disk.clone()), Path::new("/log"), at(1)).unwrap();
    old.append(b"one", 1).unwrap();
    drop(old);
    let (log, found) = Log::open(Arc::new(disk.clone()), Path::new("/log"), at(2).earlier_id(1)).unwrap();
    assert_eq!((found.damage.len(), found.end_sequence, log.begins_segment()), (0, 2, true));
    log.append(b"two", 1).unwrap();
    assert!(!log.begins_segment());
    let frames: Vec<Vec<u8>> = log.replay(0).map(|f| f.unwrap().payload).collect();
    assert_eq!(frames, [b"one", b"two"]);
    let ids: Vec<Option<u64>> =
        graylogic_durable::segment_ids(&disk, Path::new("/log")).unwrap().into_iter().map(|s| s.1).collect();
    assert_eq!(ids, [Some(1), Some(2)]);
    drop(log);
    let (log, found) = Log::open(Arc::new(disk.clone()), Path::new("/log"), at(2)).unwrap();
    assert_eq!(found.damage.len(), 1);
    assert!(found.damage[0].kept_in.is_some());
    assert_eq!(log.replay(0).filter_map(Result::ok).count(), 1);
}

/// A segment that somebody emptied is damage: it is set aside, not removed.
#[test]
fn an_emptied_segment_is_kept_and_reported() {
    let disk = SimDisk::new();
    let (log, _) = Log::open(Arc::new(disk.clone()), Path::new("/log"), LogOptions::new(1)).unwrap();
    log.append(b"one", 1).unwrap();
    let name = format!("{:016x}.seg", log.segments()[0].number);
    drop(log);
    disk.set_bytes(&Path::new("/log").join(&name), Vec::new());
    let (_, found) = Log::open(Arc::new(disk.clone()), Path::new("/log"), LogOptions::new(1)).unwrap();
    assert_eq!(found.damage.len(), 1, "{found:?}");
    assert_eq!(found.damage[0].segment, name);
    assert!(disk.bytes(&Path::new("/log/damaged").join(&name)).is_some());
}
