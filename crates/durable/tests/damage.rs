//! Damage to a spool stays reported until it is settled, with the number of lines that it cost. Prints the row `D14` of
//! `cargo xtask torture`; `GRAYLOGIC_TORTURE` multiplies its damages: 1 is the figure of continuous integration.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

use graylogic_durable::{
    Checked, DeadLine, Inspection, Lane, LaneOptions, Lines, Log, LogOptions, Next, RealDisk, Spool,
};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const LINES: u64 = 4000;
const SETTLED: u64 = 700;
/// Damages at the figure of continuous integration.
const DAMAGES: f64 = 150.0;

struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % n.max(1)
    }
}

fn line(number: u64) -> String {
    format!("power,meter=m{} value={}.5 {}\n", number % 7, number * 37 % 1000, 1_700_000_000 + number)
}

fn lane(spool: &Path) -> Lane {
    let spool = Spool::open(Arc::new(RealDisk), spool).unwrap();
    let options = LaneOptions::default().segment_bytes(4000).compression(false).keep_free(0);
    spool.lane("energy", options).unwrap().0
}

fn append(lane: &Lane, from: u64, to: u64) {
    for number in (from..to).step_by(20) {
        let mut lines = Lines::default();
        (number..number + 20).for_each(|n| lines.push(line(n).as_bytes()));
        lane.append(&lines).unwrap();
    }
    lane.sync().unwrap();
}

/// Lines of which some are settled, some dead, and most wait.
fn fill(spool: &Path, older: &Path) {
    let lane = lane(spool);
    append(&lane, 1, 1001);
    lane.save_cursor().unwrap();
    copy(spool, older);
    append(&lane, 1001, LINES + 1);
    let line = line(5);
    let dead = |number| DeadLine { number, time: 1, reason: "no", line: line.as_bytes() };
    lane.park(&[dead(5), dead(6)]).unwrap();
    lane.acknowledge(SETTLED + 1);
    lane.save_cursor().unwrap();
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

fn copy(from: &Path, to: &Path) {
    for file in files(from) {
        let target = to.join(file.strip_prefix(from).unwrap());
        std::fs::create_dir_all(target.parent().unwrap()).unwrap();
        std::fs::copy(&file, target).unwrap();
    }
}

fn segments(spool: &Path) -> Vec<PathBuf> {
    let of_lane = files(&spool.join("energy"));
    let is_segment =
        |p: &PathBuf| p.extension().is_some_and(|e| e == "seg") && !p.to_str().unwrap().contains("dead");
    of_lane.into_iter().filter(is_segment).collect()
}

/// Every pending line, by its number, settled as a sender does that reads them all.
fn drain(lane: &Lane) -> BTreeMap<u64, String> {
    let mut reader = lane.reader(lane.acknowledged());
    let mut found = BTreeMap::new();
    loop {
        match reader.next(1000, 1 << 20).unwrap() {
            Next::Lines(batch) => {
                for i in 0..batch.len() {
                    found.insert(batch.first + i as u64, String::from_utf8(batch.line(i).to_vec()).unwrap());
                }
            }
            Next::Lost(damage) => {
                lane.note_damage(&damage);
                lane.count_damaged(lane.acknowledge(damage.lost.end));
            }
            _ => break,
        }
    }
    lane.acknowledge(u64::MAX);
    lane.save_cursor().unwrap();
    found
}

fn check(spool: &Path) -> (Checked, bool) {
    let seen = Inspection::open(Arc::new(RealDisk), spool, "energy").unwrap();
    let checked = seen.check(|_| {}).unwrap();
    (checked, checked.places > 0 || checked.noted > 0 || seen.cursor().is_some())
}

/// What verify says is lost, and whether it says anything.
fn lost(checked: &Checked) -> u64 {
    checked.lost + checked.noted_lost
}

#[test]
fn segments_that_are_gone_stay_reported_until_they_are_settled() {
    let place = tempfile::tempdir().unwrap();
    let whole = place.path().join("whole");
    fill(&whole, &place.path().join("older"));
    let count = segments(&whole).len();
    assert!(count > 6, "{count}");
    for (i, gone) in
        [vec![0], vec![count / 2, count / 2 + 1], vec![count - 1], (0..count).collect()].iter().enumerate()
    {
        let spool = place.path().join(format!("case{i}"));
        copy(&whole, &spool);
        let all = segments(&spool);
        gone.iter().for_each(|&n| std::fs::remove_file(&all[n]).unwrap());
        let (before, named) = check(&spool);
        let found = drain(&lane(&spool));
        assert!(found.iter().all(|(n, text)| *text == line(*n)));
        let missing = LINES - SETTLED - found.len() as u64;
        assert!(missing > 0 && named, "case {i}");
        assert_eq!(lost(&before), missing, "case {i}: counted while nobody has opened it");
        for _ in 0..3 {
            let (after, named) = check(&spool);
            assert!(named && after.noted > 0, "case {i}");
            assert_eq!(lost(&after), missing, "case {i}: {after:?}");
            drop(lane(&spool));
        }
        let seen = Inspection::open(Arc::new(RealDisk), &spool, "energy").unwrap();
        assert!(seen.settle().unwrap() > 0);
        let (settled, named) = check(&spool);
        assert!(!named && lost(&settled) == 0, "case {i}: {settled:?}");
    }
}

#[test]
fn all_lines_of_a_damaged_end_are_counted() {
    let place = tempfile::tempdir().unwrap();
    let options = || LogOptions::new(7).segment_bytes(1 << 20);
    let (log, _) = Log::open(Arc::new(RealDisk), place.path(), options()).unwrap();
    let mut ends = Vec::new();
    for i in 0..12u8 {
        log.append(&[i; 1000], 500).unwrap();
        ends.push(log.segments()[0].bytes as usize);
    }
    log.sync().unwrap();
    drop(log);
    let path = std::fs::read_dir(place.path()).unwrap().next().unwrap().unwrap().path();
    let mut bytes = std::fs::read(&path).unwrap();
    // One byte of each of the last eleven payloads.
    ends[..11].iter().for_each(|end| bytes[end + 100] ^= 1);
    std::fs::write(&path, &bytes).unwrap();
    let (log, recovery) = Log::open(Arc::new(RealDisk), place.path(), options()).unwrap();
    let lost: u64 = recovery.damage.iter().map(graylogic_durable::Damage::lost_count).sum();
    assert_eq!(lost, 5500);
    assert_eq!(log.next_sequence(), 6001, "their numbers are not given again");
}

fn damage(dice: &mut Dice, spool: &Path, older: &Path) -> String {
    let all = files(spool);
    let file = &all[dice.below(all.len() as u64) as usize];
    let name = file.strip_prefix(spool).unwrap().display().to_string();
    let bytes = std::fs::read(file).unwrap();
    let mut hurt = bytes.clone();
    let at = dice.below(bytes.len() as u64) as usize;
    let end = (at + 1 + dice.below(5000) as usize).min(bytes.len());
    let what = match dice.below(9) {
        0..3 if !bytes.is_empty() => {
            hurt[at] ^= 1 << dice.below(8);
            format!("bit of byte {at}")
        }
        3 => {
            hurt[at..end].fill(0);
            format!("bytes {at} to {end} zeroed")
        }
        4 => {
            hurt[at..end].fill_with(|| dice.below(256) as u8);
            format!("bytes {at} to {end} of noise")
        }
        5 => {
            hurt.truncate(at);
            format!("cut to {at}")
        }
        6 => {
            hurt.clear();
            "emptied".into()
        }
        7 => {
            std::fs::remove_file(file).unwrap();
            return format!("{name} removed");
        }
        _ => {
            let from = if dice.below(2) == 0 {
                older.join(&name)
            } else {
                all[dice.below(all.len() as u64) as usize].clone()
            };
            hurt = std::fs::read(&from).unwrap_or_default();
            format!(
                "replaced by {}",
                from.strip_prefix(spool).unwrap_or(Path::new("an older copy")).display()
            )
        }
    };
    std::fs::write(file, hurt).unwrap();
    format!("{name}: {what}")
}

struct Row {
    cases: u64,
    seed: u64,
}

impl Drop for Row {
    fn drop(&mut self) {
        let broken = u64::from(std::thread::panicking());
        println!(
            "torture {{\"id\":\"D14\",\"cases\":{},\"lost\":{broken},\"wrong\":0,\"refused_to_open\":0,\"panics\":0,\"seed\":{}}}",
            self.cases, self.seed
        );
    }
}

#[test]
fn d14_what_damage_costs_is_named_by_every_verify() {
    let times: f64 = std::env::var("GRAYLOGIC_TORTURE").map_or(0.1, |n| n.parse().unwrap());
    let seed = std::env::var("GRAYLOGIC_TORTURE_SEED").map_or(14, |n| n.parse().unwrap());
    let mut row = Row { cases: 0, seed };
    let place = tempfile::tempdir().unwrap();
    let (whole, older) = (place.path().join("whole"), place.path().join("older"));
    fill(&whole, &older);
    assert!(!check(&whole).1);
    let spool = place.path().join("hurt");
    for case in 0..(DAMAGES * times).ceil() as u64 {
        row.cases += 1;
        let mut dice = Dice((seed * 1_000_003 + case).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        let _not_there_yet = std::fs::remove_dir_all(&spool);
        copy(&whole, &spool);
        let what = damage(&mut dice, &spool, &older);
        let context = format!("seed {seed}, case {case}, {what}");
        let (before, named) = check(&spool);
        let found = drain(&lane(&spool));
        for (number, text) in &found {
            assert_eq!(*text, line(*number), "{context}: line {number}");
        }
        let missing = (SETTLED + 1..=LINES).filter(|n| !found.contains_key(n)).count() as u64;
        if missing == 0 {
            continue;
        }
        assert!(named, "{context}: {missing} lines are lost, and verify says nothing");
        assert!(lost(&before) >= missing, "{context}: {missing} lines are lost, verify says {before:?}");
        for again in 0..2 {
            drop(lane(&spool));
            let (after, named) = check(&spool);
            assert!(
                named,
                "{context}: {missing} lines are lost, and verify says nothing afterwards ({again})"
            );
            assert!(
                lost(&after) >= missing,
                "{context}: {missing} lines are lost, verify says afterwards {after:?}"
            );
        }
    }
}
