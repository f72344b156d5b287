//! A store has two halves, the store file and the hot log. Whatever is missing of either, emptied, older than the other or
//! another store's: no reading appears under another series, nothing is lost without being named until it is settled, and
//! the store goes on.
#![allow(clippy::unwrap_used, missing_docs)]

use graylogic_store::{Selector, Store, StoreOptions, TimeRange, WriteOptions};
use rusqlite::Connection;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn open(folder: &Path) -> Store {
    Store::open(folder, StoreOptions::default().without_workers()).unwrap()
}

fn write(store: &Store, body: &str) {
    store.ensure_bucket("b").unwrap();
    let report = store.write_lines("b", body.as_bytes(), &WriteOptions::now().any_time()).unwrap();
    assert_eq!(report.rejected_count, 0, "{body}");
}

/// Every reading as a line, in all buckets.
fn dump(store: &Store) -> Vec<String> {
    let mut out = Vec::new();
    for bucket in store.buckets() {
        for block in store.scan(&Selector::bucket(&bucket.name), TimeRange::all()).unwrap() {
            let block = block.unwrap();
            let s = &block.series;
            let tags: String = s.tags().map(|(k, v)| format!(",{k}={v}")).collect();
            for (i, t) in block.times.iter().enumerate() {
                let value = block.values.get(i).as_f64().unwrap();
                out.push(format!("{} {}{tags} {}={value} {t}", bucket.name, s.measurement(), s.field()));
            }
        }
    }
    out
}

/// The damage that is reported, whoever asks, also after the next start.
fn reported(folder: &Path) -> Vec<String> {
    let store = open(folder);
    let damage = store.recovery().damage.clone();
    let verified = store.verify().unwrap().damage;
    assert!(damage.iter().all(|d| verified.contains(d)), "{damage:?} {verified:?}");
    store.close().unwrap();
    let again = open(folder);
    assert_eq!(again.recovery().damage, damage, "it stays reported");
    assert_eq!(again.verify().unwrap().damage, verified);
    again.close().unwrap();
    verified
}

fn assert_reported(folder: &Path, what: &str) {
    let damage = reported(folder);
    assert!(damage.iter().any(|d| d.contains(what)), "{what:?} is not in {damage:#?}");
    let store = open(folder);
    store.settle().unwrap();
    assert_eq!(store.verify().unwrap().damage, [""; 0], "what is settled is not reported");
    store.close().unwrap();
    let store = open(folder);
    assert_eq!(store.recovery().damage, [""; 0]);
    assert_eq!(store.verify().unwrap().damage, [""; 0]);
    store.close().unwrap();
}

fn segments(folder: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = std::fs::read_dir(folder.join("log"))
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| p.extension().is_some_and(|e| e == "seg"))
        .collect();
    found.sort();
    found
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let to = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &to);
        } else {
            std::fs::copy(&path, &to).unwrap();
        }
    }
}

const BOILER: &str = "b boiler,d=b1 temp=80.5 1";

fn boiler(folder: &Path) {
    let store = open(folder);
    write(&store, "boiler,d=b1 temp=80.5 1");
    store.close().unwrap();
}

fn fridge_is_no_boiler(folder: &Path) -> Vec<String> {
    let store = open(folder);
    write(&store, "fridge,d=f1 temp=4.0 2");
    let found = dump(&store);
    store.close().unwrap();
    let store = open(folder);
    assert_eq!(dump(&store), found);
    store.compact().unwrap();
    assert_eq!(dump(&store), found);
    store.close().unwrap();
    assert!(found.iter().all(|line| !line.contains("boiler") || line == BOILER), "{found:?}");
    assert!(found.iter().any(|line| line.contains("fridge,d=f1 temp=4 ")), "{found:?}");
    found
}

#[test]
fn a_store_file_that_is_gone_is_named_and_the_log_keeps_what_it_has() {
    for emptied in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        boiler(folder.path());
        let file = folder.path().join("store.sqlite");
        if emptied {
            std::fs::write(&file, b"").unwrap();
        } else {
            std::fs::remove_file(&file).unwrap();
        }
        let found = fridge_is_no_boiler(folder.path());
        assert!(found.contains(&BOILER.to_owned()), "the log knew it: {found:?}");
        assert_reported(folder.path(), if emptied { "was emptied" } else { "is gone" });
    }
}

#[test]
fn readings_in_chunks_are_lost_with_their_file_and_their_numbers_are_not_given_again() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    write(&store, "boiler,d=b1 temp=80.5 1\nboiler,d=b1 temp=81 2");
    store.compact().unwrap();
    store.close().unwrap();
    std::fs::remove_file(folder.path().join("store.sqlite")).unwrap();
    let found = fridge_is_no_boiler(folder.path());
    assert_eq!(found.len(), 1);
    let store = open(folder.path());
    assert!(store.recovery().lost_values >= 2);
    store.close().unwrap();
    assert_reported(folder.path(), "held 1 chunks with 2 readings");
}

#[test]
fn a_bucket_removed_or_renamed_does_not_come_back_from_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    write(&store, "m v=1 1");
    store.create_bucket("old").unwrap();
    store.write_lines("old", b"m v=9 1", &WriteOptions::now().any_time()).unwrap();
    store.remove_bucket("old").unwrap();
    store.rename_bucket("b", "now").unwrap();
    store.close().unwrap();
    std::fs::remove_file(folder.path().join("store.sqlite")).unwrap();
    let store = open(folder.path());
    assert_eq!(dump(&store), ["now m v=1 1"]);
    let made = store.create_bucket("another").unwrap();
    assert!(made.id > 2, "the number of a removed bucket is not given again: {}", made.id);
}

#[test]
fn deletions_outlive_the_store_file() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    write(&store, "m v=1 1\nm v=2 2");
    let second =
        TimeRange::new(graylogic_line::Timestamp::from_nanos(2), graylogic_line::Timestamp::from_nanos(3));
    store.delete(&Selector::bucket("b"), second).unwrap();
    store.close().unwrap();
    std::fs::remove_file(folder.path().join("store.sqlite")).unwrap();
    assert_eq!(dump(&open(folder.path())), ["b m v=1 1"]);
}

#[test]
fn a_store_file_that_cannot_be_read_is_set_aside_whole() {
    let folder = tempfile::tempdir().unwrap();
    boiler(folder.path());
    let file = folder.path().join("store.sqlite");
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[..4096].fill(7);
    std::fs::write(&file, &bytes).unwrap();
    let found = fridge_is_no_boiler(folder.path());
    assert!(found.contains(&BOILER.to_owned()));
    assert_eq!(std::fs::read(folder.path().join("damaged/store.sqlite")).unwrap(), bytes);
    assert_reported(folder.path(), "cannot be read");
}

#[test]
fn an_older_copy_of_the_store_file_is_named() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("store");
    boiler(&folder);
    let older = place.path().join("older.sqlite");
    std::fs::copy(folder.join("store.sqlite"), &older).unwrap();
    let store = open(&folder);
    write(&store, "pump,d=p1 pressure=2.5 5");
    store.compact().unwrap();
    store.close().unwrap();
    std::fs::copy(&older, folder.join("store.sqlite")).unwrap();
    let found = fridge_is_no_boiler(&folder);
    assert!(!found.iter().any(|l| l.contains("pump") && !l.contains("pressure")), "{found:?}");
    assert_reported(&folder, "older than the hot log says");
}

#[test]
fn segments_that_are_gone_or_emptied_are_named_and_nothing_is_removed() {
    for emptied in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let store = open(folder.path());
        write(&store, "boiler,d=b1 temp=80.5 1\nboiler,d=b1 temp=81 2");
        store.close().unwrap();
        for segment in segments(folder.path()) {
            if emptied {
                std::fs::write(&segment, b"").unwrap();
            } else {
                std::fs::remove_file(&segment).unwrap();
            }
        }
        let before = std::fs::read_dir(folder.path().join("log")).unwrap().count();
        let found = fridge_is_no_boiler(folder.path());
        assert_eq!(found.len(), 1);
        if emptied {
            assert_eq!(std::fs::read_dir(folder.path().join("log/damaged")).unwrap().count(), before);
        }
        let store = open(folder.path());
        assert!(store.recovery().lost_values >= 2, "{:?}", store.recovery());
        store.close().unwrap();
        assert_reported(folder.path(), "hot log: its segments are gone; at least 2 values");
    }
}

#[test]
fn halves_of_two_stores_are_not_mixed() {
    let place = tempfile::tempdir().unwrap();
    let (ours, theirs) = (place.path().join("ours"), place.path().join("theirs"));
    boiler(&ours);
    let store = open(&theirs);
    write(&store, "oven,d=o1 temp=200 1\noven,d=o1 temp=210 2");
    store.close().unwrap();
    // A segment of another store.
    let with_segment = place.path().join("with-segment");
    copy(&ours, &with_segment);
    let segment = &segments(&theirs)[0];
    let bytes = std::fs::read(segment).unwrap();
    std::fs::write(with_segment.join("log/00000000000000ff.seg"), &bytes).unwrap();
    let found = fridge_is_no_boiler(&with_segment);
    assert!(found.contains(&BOILER.to_owned()) && !found.iter().any(|l| l.contains("oven")), "{found:?}");
    assert_eq!(std::fs::read(with_segment.join("log/damaged/00000000000000ff.seg")).unwrap(), bytes);
    assert_reported(&with_segment, "belongs to another store");
    // The file of another store.
    let with_file = place.path().join("with-file");
    copy(&ours, &with_file);
    std::fs::copy(theirs.join("store.sqlite"), with_file.join("store.sqlite")).unwrap();
    let found = fridge_is_no_boiler(&with_file);
    assert!(!found.iter().any(|l| l.contains("80.5")), "{found:?}");
    assert_eq!(std::fs::read_dir(with_file.join("log/damaged")).unwrap().count(), 1);
    assert_reported(&with_file, "belongs to another store");
}

/// Changes a byte of the store file where a text is, the only place of the text or the one that `which` says.
fn damage_text(file: &Path, text: &str, which: usize) {
    let mut bytes = std::fs::read(file).unwrap();
    let places: Vec<usize> =
        (0..bytes.len() - text.len()).filter(|&i| bytes[i..].starts_with(text.as_bytes())).collect();
    assert!(which < places.len(), "{text} is in the file {} times", places.len());
    bytes[places[which]] ^= 1;
    std::fs::write(file, bytes).unwrap();
}

#[test]
fn one_flipped_bit_in_a_definition_costs_no_reading() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let body: String = (1..=100).map(|i| format!("pump,dev=bravo pressure={i} {i}\n")).collect();
    write(&store, &body);
    store.compact().unwrap();
    let expected = dump(&store);
    store.close().unwrap();
    for which in 0..2 {
        let hurt = tempfile::tempdir().unwrap();
        copy(folder.path(), hurt.path());
        damage_text(&hurt.path().join("store.sqlite"), "bravo", which);
        let store = open(hurt.path());
        write(&store, "boiler,d=b1 temp=80.5 1");
        let found = dump(&store);
        assert_eq!(found.iter().filter(|l| l.contains("boiler")).count(), 1, "{found:?}");
        let pumps: Vec<String> = found.into_iter().filter(|l| l.contains("pump")).collect();
        assert_eq!(pumps, expected, "place {which}");
        store.close().unwrap();
        assert_reported(hurt.path(), "series");
    }
}

#[test]
fn one_flipped_bit_in_the_name_of_a_bucket_costs_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    store.create_bucket("wohnhaus").unwrap();
    store.write_lines("wohnhaus", b"m v=1 1", &WriteOptions::now().any_time()).unwrap();
    write(&store, "m v=2 1");
    store.compact().unwrap();
    let expected = dump(&store);
    store.close().unwrap();
    // Both copies and the index of names; what is not UTF-8 as well.
    for which in 0..3 {
        for flip in [1, 0x80] {
            let hurt = tempfile::tempdir().unwrap();
            copy(folder.path(), hurt.path());
            let file = hurt.path().join("store.sqlite");
            damage_text(&file, "wohnhaus", which);
            if flip == 0x80 {
                let mut bytes = std::fs::read(&file).unwrap();
                let at = bytes.windows(7).position(|w| w == b"ohnhaus").unwrap();
                bytes[at] ^= 0x80;
                std::fs::write(&file, bytes).unwrap();
            }
            let store = open(hurt.path());
            assert_eq!(dump(&store), expected, "place {which}");
            store.write_lines("wohnhaus", b"m v=3 2", &WriteOptions::now().any_time()).unwrap();
            write(&store, "m v=4 2");
            store.compact().unwrap();
            store.close().unwrap();
            assert!(!reported(hurt.path()).is_empty(), "place {which}");
        }
    }
}

#[test]
fn a_name_that_is_lost_everywhere_costs_only_the_name() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    store.create_bucket("wohnhaus").unwrap();
    store.write_lines("wohnhaus", b"m v=1 1", &WriteOptions::now().any_time()).unwrap();
    store.compact().unwrap();
    store.close().unwrap();
    let connection = Connection::open(folder.path().join("store.sqlite")).unwrap();
    connection.execute_batch("UPDATE bucket SET crc = 0; UPDATE spare SET crc = 0 WHERE kind = 1").unwrap();
    drop(connection);
    for segment in segments(folder.path()) {
        std::fs::remove_file(segment).unwrap();
    }
    let store = open(folder.path());
    assert_eq!(dump(&store), ["bucket-1 (damaged name) m v=1 1"]);
}

/// A page of SQLite that is an older one, or another's.
#[test]
fn pages_that_are_old_lost_or_elsewhere_neither_hide_nor_bring_back_readings() {
    const PAGE: usize = 16_384;
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let hour = 3_600_000_000_000i64;
    let mut bodies = String::new();
    for series in 0..40 {
        for i in 0..300i64 {
            bodies += &format!("m,s={series} v={series}.{} {}\n", i % 10, i * hour);
        }
    }
    write(&store, &bodies);
    store.compact().unwrap();
    store.close().unwrap();
    let before = std::fs::read(folder.path().join("store.sqlite")).unwrap();
    let store = open(folder.path());
    let deleted = Selector::bucket("b").tag("s", graylogic_store::Matcher::equal("7"));
    store.delete(&deleted, TimeRange::all()).unwrap();
    store.compact().unwrap();
    let expected = dump(&store);
    assert!(!expected.iter().any(|l| l.contains("s=7 ")));
    store.close().unwrap();
    let after = std::fs::read(folder.path().join("store.sqlite")).unwrap();
    let pages = after.len() / PAGE;
    let (mut tried, mut rebuilt) = (0, 0);
    for to in 1..pages {
        for from in BTreeSet::from([to - 1, (to + 1) % pages, to * 7 % pages, pages, pages + 1]) {
            let hurt = tempfile::tempdir().unwrap();
            copy(folder.path(), hurt.path());
            let mut bytes = after.clone();
            let page = to * PAGE..(to + 1) * PAGE;
            // From another place of the file, from the same place as it was before, or garbage.
            let garbage: Vec<u8> = (0..PAGE).map(|i| (i * i / 7 + to) as u8).collect();
            let with = match from {
                _ if from == pages => before.get(page.clone()),
                _ if from > pages => Some(&garbage[..]),
                _ => after.get(from * PAGE..(from + 1) * PAGE),
            };
            let Some(with) = with.filter(|w| *w != &after[page.clone()]) else { continue };
            bytes[page].copy_from_slice(with);
            std::fs::write(hurt.path().join("store.sqlite"), &bytes).unwrap();
            tried += 1;
            let context = format!("page {to} is page {from} of {pages}");
            let store = Store::open(hurt.path(), StoreOptions::default().without_workers());
            let store = store.unwrap_or_else(|e| panic!("{context}: {e}"));
            let found = dump(&store);
            let damage = store.verify().unwrap().damage;
            let wrong: Vec<_> = found.iter().filter(|l| !expected.contains(l)).collect();
            assert!(wrong.is_empty(), "{context}: {} came back: {:?} {damage:?}", wrong.len(), wrong[0]);
            if found.len() < expected.len() {
                assert!(!damage.is_empty(), "{context}: {} of {}", found.len(), expected.len());
            }
            // A box that runs unattended goes on: what comes goes into chunks, also where the file has to be written anew.
            write(&store, LATE);
            store.seal().unwrap_or_else(|e| panic!("{context}: {e}"));
            let stats = store.stats().unwrap();
            assert_eq!((stats.tail_values, stats.memory_bytes), (0, 0), "{context}");
            let after_it = dump(&store);
            assert_goes_on(&context, &after_it, &found, &expected);
            store.close().unwrap();
            let store = open(hurt.path());
            assert_eq!(dump(&store), after_it, "{context}");
            let again = store.verify().unwrap().damage;
            assert!(damage.is_empty() || !again.is_empty(), "{context}: {damage:?}");
            if after_it.len() < expected.len() + 1 {
                assert!(!again.is_empty(), "{context}: {} of {}", after_it.len(), expected.len() + 1);
            }
            if hurt.path().join("damaged/store.sqlite").exists() {
                rebuilt += 1;
                let lost = (expected.len() + 1 - after_it.len()) as u64;
                assert!(store.recovery().lost_values >= lost, "{context}: {lost} {again:?}");
                assert_eq!(
                    std::fs::read(hurt.path().join("damaged/store.sqlite")).unwrap().len(),
                    bytes.len()
                );
                assert!(again.iter().any(|d| d.contains("written anew")), "{context}: {again:?}");
            }
            store.compact().unwrap_or_else(|e| panic!("{context}: {e}"));
            assert_goes_on(&context, &dump(&store), &after_it, &expected);
            store.close().unwrap();
        }
    }
    println!("{tried} pages: {rebuilt} times the store file was written anew");
    assert!(tried > 30 && rebuilt > 5, "{tried} {rebuilt}");
}

const LATE: &str = "late v=1 1";

/// Nothing that was shown is gone, nothing wrong came in, and the late reading is there.
fn assert_goes_on(context: &str, now: &[String], before: &[String], expected: &[String]) {
    let gone: Vec<_> = before.iter().filter(|l| !now.contains(l)).collect();
    assert!(gone.is_empty(), "{context}: {} gone: {:?}", gone.len(), gone[0]);
    let wrong: Vec<_> = now.iter().filter(|l| !expected.contains(l) && *l != &format!("b {LATE}")).collect();
    assert!(wrong.is_empty(), "{context}: {} came: {:?}", wrong.len(), wrong[0]);
    assert!(now.contains(&format!("b {LATE}")), "{context}");
}

#[test]
fn an_ordinary_life_reports_nothing() {
    let folder = tempfile::tempdir().unwrap();
    for round in 0..6i64 {
        let store = open(folder.path());
        assert_eq!(store.recovery().damage, [""; 0], "round {round}");
        assert_eq!(store.verify().unwrap().damage, [""; 0], "round {round}");
        write(&store, &format!("m,s={round} v=1 {round}\nm,s=0 v=2 {round}"));
        match round % 3 {
            0 => store.compact().unwrap(),
            1 => store.seal().unwrap(),
            _ => {
                store
                    .delete(
                        &Selector::bucket("b"),
                        TimeRange::new(
                            graylogic_line::Timestamp::from_nanos(0),
                            graylogic_line::Timestamp::from_nanos(2),
                        ),
                    )
                    .unwrap();
            }
        }
        let bucket = format!("x{round}");
        store.create_bucket(&bucket).unwrap();
        store.write_lines(&bucket, b"m v=1 1", &WriteOptions::now().any_time()).unwrap();
        if round % 2 == 0 {
            store.remove_bucket(&bucket).unwrap();
        }
        assert_eq!(store.verify().unwrap().damage, [""; 0], "round {round}");
        store.close().unwrap();
    }
    assert!(!folder.path().join("damaged").exists() && !folder.path().join("damage").exists());
}

/// A folder as a process that was killed leaves it: three records in the log, none of them in a chunk.
fn killed(folder: &Path) {
    let living = tempfile::tempdir().unwrap();
    let store = open(living.path());
    for record in ["m,d=a v=1 1", "m,d=b v=2 2", "m,d=c v=3 3"] {
        write(&store, record);
    }
    copy(living.path(), folder);
}

#[test]
fn salvage_names_what_the_front_of_the_log_lacks() {
    let folder = tempfile::tempdir().unwrap();
    killed(folder.path());
    let segment = segments(folder.path()).pop().unwrap();
    let whole = std::fs::read(&segment).unwrap();
    // A byte of the first record, whose header says how many numbers it had.
    let first = whole.windows(4).position(|w| w == b"\x01d\x01a").unwrap();
    let mut hurt = whole;
    hurt[first + 3] ^= 1;
    std::fs::write(&segment, hurt).unwrap();
    let saved = Store::salvage(folder.path(), folder.path().join("saved")).unwrap();
    assert!(saved.readings < 3 && saved.lost_count > 0 && !saved.lost.is_empty(), "{saved:?}");
}

#[test]
fn salvage_is_not_misled_by_a_copy_of_a_segment_under_another_name() {
    let folder = tempfile::tempdir().unwrap();
    killed(folder.path());
    // What a second process that was killed has appended is in a segment of its own.
    let second = tempfile::tempdir().unwrap();
    copy(folder.path(), second.path());
    let store = open(second.path());
    write(&store, "m,d=d v=4 4");
    let third = tempfile::tempdir().unwrap();
    copy(second.path(), third.path());
    let newest = segments(third.path()).pop().unwrap();
    std::fs::copy(&newest, newest.with_file_name("0000000000000000.seg")).unwrap();
    let saved = Store::salvage(third.path(), third.path().join("saved")).unwrap();
    assert_eq!(saved.readings, 4, "{saved:?}");
}
