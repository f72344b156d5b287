//! Every kind of damage done to every file of a store, against known truth: no wrong value, no loss that is not named,
//! also on the second look, and salvage saves whatever bytes are left. Prints the rows `K1` and `K2` of
//! `cargo xtask torture`. `GRAYLOGIC_TORTURE` multiplies the number of damages: 1 is the figure of continuous
//! integration, 20 the long run. `GRAYLOGIC_TORTURE_SEED` and `GRAYLOGIC_TORTURE_FROM` (a case) bring one back, and with
//! `GRAYLOGIC_TORTURE_ALL` a campaign goes on behind a broken promise.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

mod truth;

use graylogic_store::{Store, StoreOptions, WriteOptions};
use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use truth::{Dice, Seen, Truth, look, open};

/// Damages at the figure of continuous integration.
const DAMAGES: u64 = 600;
/// A run of that figure ends after this time, whatever it has done: some machines are slow.
const TIME_MAX: Duration = Duration::from_secs(110);

fn times() -> f64 {
    std::env::var("GRAYLOGIC_TORTURE").map_or(0.05, |n| n.parse().unwrap())
}

/// The first case: to see one again.
fn first() -> u64 {
    std::env::var("GRAYLOGIC_TORTURE_FROM").map_or(0, |n| n.parse().unwrap())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Broken {
    Lost,
    Wrong,
    RefusedToOpen,
    Panic,
}

thread_local! {
    static BROKEN: Cell<Broken> = const { Cell::new(Broken::Panic) };
}

/// A row of the table, printed when its campaign ends, however it ends.
struct Row {
    id: &'static str,
    seed: u64,
    cases: u64,
}

impl Drop for Row {
    fn drop(&mut self) {
        let broken = std::thread::panicking().then(|| BROKEN.get());
        let count = |which| u64::from(broken == Some(which));
        println!(
            "torture {{\"id\":\"{}\",\"cases\":{},\"lost\":{},\"wrong\":{},\"refused_to_open\":{},\"panics\":{},\"seed\":{}}}",
            self.id,
            self.cases,
            count(Broken::Lost),
            count(Broken::Wrong),
            count(Broken::RefusedToOpen),
            count(Broken::Panic),
            self.seed
        );
    }
}

/// Fails, and remembers which promise it was; or counts it, when the campaign is to go on.
fn must(good: bool, broken: Broken, what: impl FnOnce() -> String) {
    if good {
        return;
    }
    if std::env::var_os("GRAYLOGIC_TORTURE_ALL").is_some() {
        let kind = match broken {
            Broken::Lost => "lost",
            Broken::Wrong => "wrong",
            Broken::RefusedToOpen => "refused",
            Broken::Panic => "panic",
        };
        println!("BROKEN {kind}: {}", what());
        return;
    }
    BROKEN.set(broken);
    panic!("{}", what());
}

/// What is done to the files of a folder, as a sentence.
fn damage(dice: &mut Dice, folder: &Path, truth: &Truth) -> String {
    let files = truth::files(folder);
    let file = &files[dice.below(files.len() as u64) as usize];
    // Half of all damages go to the store file: it has the most parts.
    let file = if dice.below(2) == 0 { folder.join("store.sqlite") } else { file.clone() };
    let bytes = std::fs::read(&file).unwrap();
    let name = file.strip_prefix(folder).unwrap().display().to_string();
    let page = if dice.below(2) == 0 { 16_384 } else { 4096 };
    let pages = (bytes.len() / page).max(1);
    let at = |dice: &mut Dice| dice.below(pages as u64) as usize * page;
    let end = |from: usize| (from + page).min(bytes.len());
    let mut hurt = bytes.clone();
    let mut what = match dice.below(15) {
        0..3 if !bytes.is_empty() => {
            // Many of the interesting bytes are in the first pages.
            let reach = if dice.below(3) == 0 { bytes.len().min(200_000) } else { bytes.len() };
            let at = dice.below(reach as u64) as usize;
            hurt[at] ^= 1 << dice.below(8);
            format!("bit of byte {at} flipped")
        }
        3 => {
            let from = at(dice);
            hurt[from..end(from)].fill(0);
            format!("{page} bytes at {from} zeroed")
        }
        4 => {
            let from = at(dice);
            hurt[from..end(from)].fill_with(|| dice.below(256) as u8);
            format!("{page} bytes at {from} of noise")
        }
        5 => {
            let (from, half) = (at(dice), page / 2);
            let to = end(from);
            hurt[(from + half).min(to)..to].fill(0);
            format!("the tail of {page} bytes at {from} zeroed")
        }
        6 => {
            let (from, to) = (at(dice), at(dice));
            let moved = bytes[from..end(from)].to_vec();
            hurt[to..(to + moved.len()).min(bytes.len())]
                .copy_from_slice(&moved[..moved.len().min(bytes.len() - to)]);
            format!("{page} bytes at {from} copied over those at {to}")
        }
        7 if bytes.len() >= 2 * page => {
            let (a, b) = (at(dice), at(dice));
            for i in 0..page.min(bytes.len() - a.max(b)) {
                if a != b {
                    hurt.swap(a + i, b + i);
                }
            }
            format!("{page} bytes at {a} and at {b} swapped")
        }
        8 => {
            hurt.truncate(dice.below(bytes.len() as u64 + 1) as usize);
            format!("cut to {} bytes", hurt.len())
        }
        9 => {
            hurt.clear();
            "emptied".into()
        }
        10 => {
            std::fs::remove_file(&file).unwrap();
            return format!("{name} removed");
        }
        11 => {
            let older = truth.older(dice).join(&name);
            let Ok(older) = std::fs::read(older) else { return damage(dice, folder, truth) };
            hurt = older;
            "replaced by an older copy".into()
        }
        12 => {
            let other =
                truth.other.join(if name.ends_with(".seg") { truth.other_segment() } else { name.clone() });
            let Ok(other) = std::fs::read(other) else { return damage(dice, folder, truth) };
            hurt = other;
            "replaced by another store's".into()
        }
        _ => {
            let older = truth.older(dice).join(&name);
            let Ok(older) = std::fs::read(older) else { return damage(dice, folder, truth) };
            let from = at(dice);
            let to = end(from).min(older.len());
            if from >= to {
                return damage(dice, folder, truth);
            }
            hurt[from..to].copy_from_slice(&older[from..to]);
            format!("{page} bytes at {from} replaced by an older copy")
        }
    };
    if hurt == bytes {
        return damage(dice, folder, truth);
    }
    std::fs::write(&file, &hurt).unwrap();
    what.insert_str(0, &format!("{name}: "));
    what
}

/// What a folder shows, and whether damage is reported. `None`: it does not open, and reports why.
fn opened(folder: &Path, context: &str) -> Option<(Seen, bool, bool)> {
    let store = match open(folder) {
        Ok(store) => store,
        Err(error) => {
            must(error.to_string().len() > 20, Broken::RefusedToOpen, || format!("{context}: no reason"));
            return None;
        }
    };
    let seen = look(&store);
    let told = !store.recovery().damage.is_empty()
        || seen.failed
        || store.stats().map_or(true, |s| s.damaged_total > 0);
    let verified = store.verify().map_or(true, |r| !r.damage.is_empty());
    Some((seen, told, verified))
}

/// Fails if an answer contains a value that was never written, or an old one without a report of damage.
fn wrong(truth: &Truth, seen: &Seen, named: bool, context: &str) {
    let is = |(key, value): &(&truth::Key, &graylogic_store::Value)| match truth.judge(key, value) {
        truth::Is::Current => false,
        truth::Is::Old => !named,
        truth::Is::Others => !named,
        truth::Is::Never => true,
    };
    let found: Vec<_> = seen.values.iter().filter(|(k, _)| truth.knows(&k.0)).filter(is).collect();
    must(found.is_empty(), Broken::Wrong, || {
        let (key, value) = found[0];
        format!(
            "{context}: {} wrong values, as {key:?} {value:?} ({:?}); said: {named}",
            found.len(),
            truth.judge(key, value)
        )
    });
}

/// A box that runs unattended goes on with what is left: what comes goes into chunks and stays, and no loss grows unnamed.
fn goes_on(truth: &Truth, folder: &Path, lost: usize, context: &str) {
    let Ok(store) = open(folder) else { return };
    let gone_on = || -> Result<(), graylogic_store::Error> {
        store.ensure_bucket("later")?;
        store.write_lines("later", b"later v=1 1", &WriteOptions::now().any_time())?;
        store.compact()
    };
    let done = gone_on();
    must(done.is_ok(), Broken::Lost, || format!("{context}: it does not go on: {done:?}"));
    drop(store);
    let Some((seen, told, verified)) = opened(folder, context) else {
        must(false, Broken::RefusedToOpen, || format!("{context}: it does not open after it went on"));
        return;
    };
    wrong(truth, &seen, told || verified, context);
    let now = truth.missing(&seen);
    must(now <= lost || verified, Broken::Lost, || {
        format!("{context}: {now} readings are lost after it went on, and nothing is said; {lost} before")
    });
    let later = seen.values.keys().filter(|k| !truth.knows(&k.0)).count();
    must(later > 0 || verified, Broken::Lost, || {
        format!("{context}: the reading written afterwards is lost, and nothing is said")
    });
}

#[test]
fn k1_damage_makes_no_wrong_value_and_no_unnamed_loss() {
    let seed = std::env::var("GRAYLOGIC_TORTURE_SEED").map_or(1, |n| n.parse().unwrap());
    let mut row = Row { id: "K1", seed, cases: 0 };
    let truth = Truth::new();
    let (began, wanted) = (Instant::now(), (DAMAGES as f64 * times()).ceil() as u64);
    let (mut refused, mut lossy) = (0, 0);
    let work = tempfile::tempdir().unwrap();
    for case in first()..wanted {
        if began.elapsed() > TIME_MAX.mul_f64(times().max(1.0)) {
            break;
        }
        row.cases += 1;
        let mut dice = Dice::new(seed * 1_000_003 + case);
        let folder = work.path().join("hurt");
        let _not_there_yet = std::fs::remove_dir_all(&folder);
        truth::copy(truth.base(case), &folder);
        let what = damage(&mut dice, &folder, &truth);
        let context = format!("seed {seed}, case {case}, {what}");
        let Some((seen, told, verified)) = opened(&folder, &context) else {
            refused += 1;
            continue;
        };
        let named = told || verified;
        wrong(&truth, &seen, named, &context);
        let lost = truth.missing(&seen);
        goes_on(&truth, &folder, lost, &context);
        if lost > 0 {
            lossy += 1;
            must(named, Broken::Lost, || format!("{context}: {lost} readings are lost, and nothing is said"));
            if let Some((_, told, verified)) = opened(&folder, &context) {
                must(told || verified, Broken::Lost, || {
                    format!("{context}: {lost} readings are lost, and nothing is said the second time")
                });
                must(verified, Broken::Lost, || {
                    format!("{context}: {lost} readings are lost, and the second verify finds nothing")
                });
            }
        }
    }
    println!(
        "{} damages: {refused} stores did not open and said why, {lossy} lost readings and said so",
        row.cases
    );
}

#[test]
fn k2_salvage_saves_what_is_intact_and_names_the_rest() {
    let seed = std::env::var("GRAYLOGIC_TORTURE_SEED").map_or(1, |n| n.parse().unwrap());
    let mut row = Row { id: "K2", seed, cases: 0 };
    let truth = Truth::new();
    let (began, wanted) = (Instant::now(), (DAMAGES as f64 * times()).ceil() as u64);
    let work = tempfile::tempdir().unwrap();
    let (mut all, mut some) = (0, 0);
    for case in first()..wanted {
        if began.elapsed() > TIME_MAX.mul_f64(times().max(1.0)) {
            break;
        }
        row.cases += 1;
        let mut dice = Dice::new(seed * 1_000_003 + case);
        let (folder, to) = (work.path().join("hurt"), work.path().join("saved"));
        let _not_there_yet = (std::fs::remove_dir_all(&folder), std::fs::remove_dir_all(&to));
        let base = truth.base(case);
        truth::copy(base, &folder);
        let what = damage(&mut dice, &folder, &truth);
        let context = format!("seed {seed}, case {case}, {what}");
        let before: Vec<(PathBuf, Vec<u8>)> =
            truth::files(&folder).into_iter().map(|f| (f.clone(), std::fs::read(f).unwrap())).collect();
        let saved = match Store::salvage(&folder, &to) {
            Ok(saved) => saved,
            Err(error) => {
                must(false, Broken::Lost, || format!("{context}: salvage: {error}"));
                continue;
            }
        };
        for (path, bytes) in &before {
            let same = std::fs::read(path).is_ok_and(|b| b == *bytes);
            must(same, Broken::Wrong, || format!("{context}: salvage changed {}", path.display()));
        }
        must(saved.lost.len() <= 101, Broken::Wrong, || format!("{context}: {} losses", saved.lost.len()));
        let store = Store::open(&to, StoreOptions::default().without_workers()).unwrap();
        let verified = store.verify().unwrap().damage;
        must(verified.is_empty() && store.recovery().damage.is_empty(), Broken::Wrong, || {
            format!("{context}: what was saved is damaged: {verified:?} {:?}", store.recovery().damage)
        });
        let seen = look(&store);
        let named = saved.lost_count > 0;
        wrong(&truth, &seen, named, &context);
        let lost = truth.missing(&seen);
        must(lost == 0 || named, Broken::Lost, || {
            format!("{context}: {lost} readings are not saved, and nothing is said")
        });
        let nameless = seen.values.keys().any(|k| !truth.knows(&k.0));
        if !nameless {
            let intact = truth.intact(base, &folder, &seen);
            must(intact.is_empty(), Broken::Lost, || {
                format!(
                    "{context}: {} readings of whole chunks are not saved: {:?}; {:?}",
                    intact.len(),
                    intact[0],
                    saved.lost
                )
            });
        }
        drop(store);
        if let Ok(store) = open(&folder) {
            let shown = look(&store);
            let right = |seen: &Seen| {
                let known = seen
                    .values
                    .iter()
                    .filter(|(k, v)| !truth.knows(&k.0) || truth.judge(k, v) == truth::Is::Current);
                known.count()
            };
            must(right(&seen) >= right(&shown), Broken::Lost, || {
                format!(
                    "{context}: opening shows {}, salvage saved {}: {:?}",
                    right(&shown),
                    right(&seen),
                    saved.lost
                )
            });
        }
        if lost == 0 { all += 1 } else { some += 1 }
    }
    println!("{} damages: everything saved {all} times, something lost and named {some} times", row.cases);
}
