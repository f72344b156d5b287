//! Stores that earlier versions wrote open and say the same. `fixtures/store/v1` and `v2` hold the same readings in the two
//! format versions; what they hold was read by `tools/read_store.py`, which shares no code with the store.
#![allow(clippy::unwrap_used, missing_docs)]

use graylogic_durable::{Call, Disk, Fault, READ_ONLY, SimDisk};
use graylogic_store::{Selector, Store, StoreOptions, TimeRange, Value};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

#[test]
fn stores_of_earlier_versions_open() {
    for version in ["v1", "v2"] {
        check(&Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/store")).join(version));
    }
}

fn check(from: &Path) {
    let place = tempfile::tempdir().unwrap();
    std::fs::create_dir(place.path().join("log")).unwrap();
    std::fs::copy(from.join("store.sqlite"), place.path().join("store.sqlite")).unwrap();
    for entry in std::fs::read_dir(from.join("log")).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, place.path().join("log").join(path.file_name().unwrap())).unwrap();
    }
    let mut expected = BTreeMap::new();
    for line in std::fs::read_to_string(from.join("expected.jsonl")).unwrap().lines() {
        let row: serde_json::Value = serde_json::from_str(line).unwrap();
        let tags: Vec<String> = row["tags"]
            .as_object()
            .unwrap()
            .iter()
            .map(|(k, v)| format!("{k}={}", v.as_str().unwrap()))
            .collect();
        let name = format!(
            "{} {} {}",
            row["measurement"].as_str().unwrap(),
            tags.join(","),
            row["field"].as_str().unwrap()
        );
        expected.insert((name, row["time"].as_i64().unwrap()), row["value"].clone());
    }
    let store = Store::open(place.path(), StoreOptions::default().without_workers()).unwrap();
    assert!(store.recovery().damage.is_empty(), "{:?}", store.recovery().damage);
    assert_eq!(store.verify().unwrap().damage, Vec::<String>::new());
    assert_eq!(store.buckets().iter().filter(|b| b.retention.is_some()).count(), 1);
    let mut found = BTreeMap::new();
    for block in store.scan(&Selector::bucket("telemetry"), TimeRange::all()).unwrap() {
        let block = block.unwrap();
        let tags: Vec<String> = block.series.tags().map(|(k, v)| format!("{k}={v}")).collect();
        let name = format!("{} {} {}", block.series.measurement(), tags.join(","), block.series.field());
        for (i, t) in block.times.iter().enumerate() {
            let value = match block.values.get(i) {
                Value::Float(v) => v.into(),
                Value::Integer(v) => v.into(),
                Value::Unsigned(v) => v.into(),
                Value::Boolean(v) => v.into(),
                Value::String(v) => serde_json::Value::from(&*v),
                _ => unreachable!("there are five types"),
            };
            found.insert((name.clone(), *t), value);
        }
    }
    assert_eq!(found.len(), expected.len());
    for (key, value) in &expected {
        let found = &found[key];
        match (found.as_f64().filter(|_| found.is_f64()), value.as_f64()) {
            // This JSON reader may miss the last bit of a float.
            (Some(a), Some(b)) => assert!((a - b).abs() <= b.abs() * 1e-15, "{key:?}: {a} {b}"),
            _ => assert_eq!(found, value, "{key:?}"),
        }
    }
}

/// The upgrade needs a disk that takes bytes; questions do not.
#[test]
fn a_store_of_version_1_answers_on_a_disk_that_takes_no_byte() {
    let from = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/store/v1"));
    let place = tempfile::tempdir().unwrap();
    std::fs::copy(from.join("store.sqlite"), place.path().join("store.sqlite")).unwrap();
    let before = std::fs::read(place.path().join("store.sqlite")).unwrap();
    let disk = SimDisk::new();
    disk.create_dir_all(&place.path().join("log")).unwrap();
    for entry in std::fs::read_dir(from.join("log")).unwrap() {
        let path = entry.unwrap().path();
        let to = place.path().join("log").join(path.file_name().unwrap());
        disk.set_bytes(&to, std::fs::read(&path).unwrap());
    }
    disk.fail(Fault { call: Some(Call::Lock), after: 0, times: u64::MAX, errno: READ_ONLY });
    let options = || StoreOptions::default().disk(Arc::new(disk.clone())).without_workers();
    let store = Store::open(place.path(), options()).unwrap();
    assert!(store.recovery().damage.is_empty(), "{:?}", store.recovery().damage);
    let count = |store: &Store| -> usize {
        let scan = store.scan(&Selector::bucket("telemetry"), TimeRange::all()).unwrap();
        scan.map(|block| block.unwrap().times.len()).sum()
    };
    let lines = std::fs::read_to_string(from.join("expected.jsonl")).unwrap().lines().count();
    assert_eq!(count(&store), lines);
    assert_eq!(store.verify().unwrap().damage, Vec::<String>::new());
    store.close().unwrap();
    assert_eq!(std::fs::read(place.path().join("store.sqlite")).unwrap(), before);
    // And when the disk takes bytes again, it is upgraded.
    disk.heal();
    let store = Store::open(place.path(), options()).unwrap();
    assert_eq!(count(&store), lines);
    assert_eq!(store.verify().unwrap().damage, Vec::<String>::new());
    store.close().unwrap();
    assert_ne!(std::fs::read(place.path().join("store.sqlite")).unwrap(), before);
}
