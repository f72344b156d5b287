//! Ten thousand ends: power cuts, kills and failing calls at every point of random histories.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use common::{Content, Dice, FOLDER, content, open, payload};
use graylogic_durable::{Call, Damage, Fault, IO_ERROR, Log, NO_SPACE, READ_ONLY, SimDisk, TOO_MANY_FILES};
use std::path::Path;

/// Random histories of each kind.
const HISTORIES: u64 = 400;
const ERRORS: [i32; 4] = [NO_SPACE, IO_ERROR, READ_ONLY, TOO_MANY_FILES];

/// What was promised of a log.
#[derive(Clone, Default)]
struct Promised {
    /// Frames whose append returned.
    appended: Content,
    /// Frames whose append failed: one is seen only where the disk also refused to take its bytes back.
    refused: Vec<(u64, (u32, Vec<u8>))>,
    /// Sequences below this one were synced.
    synced: u64,
    /// Frames that end at or before this one may be gone.
    trimmed: u64,
    next: u64,
}

impl Promised {
    /// Holds a log found after an end against the promises: `all` after a kill, the synced frames after a power cut.
    fn check(&mut self, log: &Log, all: bool, context: &str) {
        let (found, damage) = content(log);
        for (sequence, frame) in &found {
            let refused = || self.refused.iter().any(|(s, f)| s == sequence && f == frame);
            let trimmed = || sequence + u64::from(frame.0) <= self.trimmed;
            let known = self.appended.get(sequence) == Some(frame) || refused() || trimmed();
            assert!(known, "{context}: frame {sequence} is what was appended");
        }
        for (sequence, frame) in &self.appended {
            let end = sequence + u64::from(frame.0);
            let promised = (all || end <= self.synced) && end > self.trimmed;
            assert!(
                !promised || found.contains_key(sequence),
                "{context}: frame {sequence} was promised; {damage:?}"
            );
        }
        assert!(log.next_sequence() >= self.synced, "{context}: no synced number is given again");
        let lost: u64 = damage.iter().map(Damage::lost_count).sum();
        assert!(lost < log.next_sequence(), "{context}: {damage:?}");
    }

    /// Goes on with what was found.
    fn restart(&mut self, log: &Log) {
        self.appended = content(log).0;
        // Numbers of a torn frame are passed over once, which is no promise.
        self.next = self.appended.last_key_value().map_or(0, |(s, f)| s + u64::from(f.0));
        self.synced = self.next;
    }
}

/// One step on a log that may fail; promises are noted.
fn step(log: &Log, dice: &mut Dice, promised: &mut Promised, disk: &SimDisk, faults: bool) {
    match dice.below(12) {
        0..=5 => {
            let old = disk.files().first().and_then(|f| disk.bytes(f)).unwrap_or_default();
            let bytes = payload(dice, &old);
            let count = 1 + dice.below(4) as u32;
            let next = log.next_sequence();
            match log.append(&bytes, count) {
                Ok(first) => {
                    let before = promised.appended.insert(first, (count, bytes));
                    assert!(before.is_none(), "sequence {first} is given once");
                    promised.next = first + u64::from(count);
                }
                Err(_) => promised.refused.push((next, (count, bytes))),
            }
        }
        6..=8 => {
            if let Ok(synced) = log.sync() {
                assert_eq!(synced, log.next_sequence());
                promised.synced = promised.next;
            }
        }
        9 => log.roll(),
        10 => {
            let upto = promised.synced.saturating_sub(dice.below(12));
            // Whether it succeeds or fails midway: what lies before may be gone.
            promised.trimmed = promised.trimmed.max(upto);
            let _the_disk_may_refuse = log.trim(upto);
        }
        _ => {
            let (found, damage) = content(log);
            let missing: Vec<_> = promised
                .appended
                .iter()
                .filter(|(s, f)| **s + u64::from(f.0) > promised.trimmed && !found.contains_key(s))
                .collect();
            // A disk that does not let itself be read is told of as well.
            let told = |s: &u64| faults && damage.iter().any(|d| d.lost.contains(s));
            assert!(
                missing.iter().all(|(s, _)| told(s)),
                "a living log shows what it took: {missing:?}, {damage:?}"
            );
        }
    }
}

/// A random history with an end at each step, some of them gone on from.
fn history(seed: u64, steps: u64, faults: bool) -> u64 {
    let mut dice = Dice::new(seed);
    let mut disk = SimDisk::new();
    let mut log = open(&disk).unwrap().0;
    let mut promised = Promised::default();
    let mut ends = 0;
    for at in 0..steps {
        if faults && dice.below(6) == 0 {
            let calls = [
                None,
                Some(Call::Write),
                Some(Call::Sync),
                Some(Call::SyncDir),
                Some(Call::Open),
                Some(Call::Rename),
            ];
            disk.fail(Fault {
                call: calls[dice.below(6) as usize],
                after: dice.below(3),
                times: 1 + dice.below(3),
                errno: ERRORS[dice.below(4) as usize],
            });
        }
        step(&log, &mut dice, &mut promised, &disk, faults);
        if faults && dice.below(3) == 0 {
            disk.heal();
        }
        let killed = disk.after_kill();
        let context = format!("seed {seed}, step {at}, kill");
        promised.clone().check(&open(&killed).unwrap().0, true, &context);
        ends += 1;
        for cut in 0..3 {
            let after = disk.after_power_cut(seed ^ (at << 32) ^ (cut << 56));
            let context = format!("seed {seed}, step {at}, power cut {cut}");
            // A power cut while the recovery runs, and once more.
            let half = after.fork();
            drop(open(&half).unwrap());
            let again = half.after_power_cut(seed ^ cut);
            let (found, _) = open(&again).unwrap();
            promised.clone().check(&found, false, &context);
            let (found, _) = open(&after).unwrap();
            promised.clone().check(&found, false, &context);
            ends += 2;
            if cut == 0 && dice.below(8) == 0 {
                promised.check(&found, false, &context);
                promised.restart(&found);
                log = found;
                disk = after;
                break;
            }
        }
    }
    ends
}

#[test]
fn what_was_promised_survives_every_end() {
    let mut ends = 0;
    for seed in 0..HISTORIES {
        ends += history(seed, 40, false);
    }
    println!("{ends} simulated crash states of {HISTORIES} histories, seeds from 0: 0 promises broken");
    assert!(ends > 50_000);
}

#[test]
fn what_was_promised_survives_every_end_on_a_failing_disk() {
    let mut ends = 0;
    for seed in 1_000_000..1_000_000 + HISTORIES {
        ends += history(seed, 40, true);
    }
    println!(
        "{ends} simulated crash states of {HISTORIES} histories with failing calls, seeds from 1000000: 0 promises broken"
    );
    assert!(ends > 50_000);
}

/// The same history with one call failing: each call in turn, with each error, once and for good.
#[test]
fn every_call_may_fail() {
    let run = |fault: Option<Fault>| -> u64 {
        let disk = SimDisk::new();
        if let Some(fault) = fault {
            disk.fail(fault);
        }
        let mut promised = Promised::default();
        let mut dice = Dice::new(42);
        let log = match open(&disk) {
            Ok((log, _)) => log,
            Err(error) => {
                assert!(!error.to_string().is_empty());
                disk.heal();
                open(&disk).unwrap().0
            }
        };
        for _ in 0..30 {
            step(&log, &mut dice, &mut promised, &disk, fault.is_some());
        }
        let calls = disk.calls();
        disk.heal();
        // The trouble is over: everything works again without being opened anew.
        let first = log.append(b"healed", 1).unwrap();
        promised.appended.insert(first, (1, b"healed".to_vec()));
        promised.next = first + 1;
        promised.synced = log.sync().unwrap();
        let context = format!("{fault:?}");
        for seed in 0..3 {
            let (found, _) = open(&disk.after_power_cut(seed)).unwrap();
            promised.clone().check(&found, true, &context);
        }
        let (found, _) = open(&disk.after_kill()).unwrap();
        promised.check(&found, true, &context);
        calls
    };
    let calls = run(None);
    let mut cases = 0;
    for after in 0..calls {
        for errno in ERRORS {
            for times in [1, 4, u64::MAX] {
                run(Some(Fault { call: None, after, times, errno }));
                cases += 1;
            }
        }
    }
    println!("{cases} failing calls: each of {calls} calls, 4 errors, once, four times, for good");
}

#[test]
fn a_failed_sync_is_not_believed() {
    let disk = SimDisk::new();
    let (log, _) = open(&disk).unwrap();
    let first = log.append(b"before", 1).unwrap();
    log.sync().unwrap();
    let second = log.append(b"at risk", 1).unwrap();
    disk.fail(Fault { call: Some(Call::Sync), after: 0, times: 1, errno: IO_ERROR });
    log.sync().unwrap_err();
    assert_eq!(log.synced(), second);
    // The kernel calls the file clean now: a second sync of it would say yes and the bytes would be gone.
    log.sync().unwrap();
    for seed in 0..50 {
        let (after, _) = open(&disk.after_power_cut(seed)).unwrap();
        let found = content(&after).0;
        assert_eq!(found[&first].1, b"before");
        assert_eq!(found[&second].1, b"at risk");
        assert_eq!(found.len(), 2);
    }
}

#[test]
fn a_full_disk_takes_nothing_and_loses_nothing() {
    let disk = SimDisk::new();
    let (log, _) = open(&disk).unwrap();
    let mut expected = Content::new();
    for room in [300u64, 1200, 5000] {
        disk.set_capacity(Some(room));
        loop {
            match log.append(&[7; 90], 1) {
                Ok(first) => expected.insert(first, (1, vec![7; 90])),
                Err(error) => {
                    assert!(error.is_no_space() && error.is_retryable(), "{error}");
                    assert!(error.to_string().contains(FOLDER), "{error} names the place");
                    break;
                }
            };
        }
        let (after, _) = open(&disk.after_kill()).unwrap();
        assert_eq!(content(&after).0, expected);
    }
    // Freeing needs no room.
    log.sync().unwrap();
    let before = *expected.keys().nth(expected.len() / 2).unwrap();
    assert!(log.trim(before).unwrap().segments > 0);
    expected.retain(|s, _| *s >= log.first_sequence());
    expected.insert(log.append(&[8; 90], 1).unwrap(), (1, vec![8; 90]));
    assert_eq!(content(&log).0, expected);
    assert!(disk.files().iter().all(|f| f.starts_with(Path::new(FOLDER))));
}
