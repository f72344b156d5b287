//! Stores that earlier versions wrote open and say the same. `fixtures/store/v1` was made by version 0.1.0; what it
//! holds was read by `tools/read_store.py`, which shares no code with the store.
#![allow(clippy::unwrap_used, missing_docs)]

use graylogic_store::{Selector, Store, StoreOptions, TimeRange, Value};
use std::collections::BTreeMap;
use std::path::Path;

#[test]
fn stores_of_earlier_versions_open() {
    let from = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/store/v1"));
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
