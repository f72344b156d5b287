//! What the store computes from readings: sums and means, from every layer and over every cut.
#![allow(clippy::unwrap_used, missing_docs)]

use graylogic_line::Timestamp;
use graylogic_store::{Selector, Store, StoreOptions, TimeRange, Value, Windows, WriteOptions};
use std::path::Path;
use std::time::Duration;

const SECOND: i64 = 1_000_000_000;
const START: i64 = 1_700_000_000 / 86_400 * 86_400 * SECOND;

fn open(folder: &Path) -> Store {
    let store = Store::open(folder, StoreOptions::default()).unwrap();
    store.ensure_bucket("b").unwrap();
    store
}

/// Runs a check on readings in the tail, in sealed chunks, in compacted chunks, and after each is opened again.
fn in_every_layer(body: &str, check: impl Fn(&Store, &str)) {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let report = store.write_lines("b", body.as_bytes(), &WriteOptions::now()).unwrap();
    assert_eq!(report.rejected, []);
    check(&store, "in the tail");
    store.seal().unwrap();
    check(&store, "sealed");
    drop(store);
    let store = open(folder.path());
    check(&store, "sealed and opened again");
    store.compact().unwrap();
    check(&store, "compacted");
    drop(store);
    let store = open(folder.path());
    check(&store, "compacted and opened again");
    assert_eq!(store.verify().unwrap().damage, [""; 0]);
}

/// Each window's sum of `field` against the exact one, and its mean.
fn check_sums(store: &Store, field: &str, known: &[(i64, i128)], every: i64, layer: &str) {
    let windows = Windows::every(Duration::from_nanos(every as u64)).unwrap();
    let found = store.windows(&Selector::bucket("b").field(field), TimeRange::all(), &windows).unwrap();
    let mut counted = 0;
    for window in &found[0].windows {
        let inside = |t: &&(i64, i128)| (window.start.as_nanos()..window.stop.as_nanos()).contains(&t.0);
        let values: Vec<i128> = known.iter().filter(inside).map(|v| v.1).collect();
        counted += values.len();
        let (exact, summary) = (values.iter().sum::<i128>(), &window.summary);
        let context = format!("{field} in windows of {every} ns, {layer}");
        let fits = match summary.first.1 {
            Value::Unsigned(_) => u64::try_from(exact).ok().map(Value::Unsigned),
            _ => i64::try_from(exact).ok().map(Value::Integer),
        };
        match (summary.sum(), fits) {
            (Ok(sum), fits) => assert_eq!(sum, fits, "{context}"),
            (Err(error), None) => {
                assert!(error.is_overflow(), "{context}: {error}");
                assert!(error.to_string().contains(&exact.to_string()), "{context}: {error}");
            }
            (Err(error), Some(sum)) => panic!("{context}: {error}, but the sum is {sum:?}"),
        }
        let mean = exact as f64 / values.len() as f64;
        assert_eq!(summary.mean().unwrap(), Some(mean), "{context}");
    }
    assert_eq!(counted, known.len(), "{field}, {layer}");
}

#[test]
fn sums_of_integers_are_exact_or_an_error_and_their_means_are_right() {
    // Unsigned values that all lie near the top, values whose sum fits although a part of it does not, and values from
    // end to end, whose sum is not known from the bits that a chunk keeps of it.
    let top = |i: i64| u64::MAX - (i % 3) as u64;
    let sway = |i: i64| if i % 2 == 0 { i64::MAX - i } else { i64::MIN + i };
    let wide = |i: i64| if i % 3 == 0 { 0 } else { u64::MAX - i as u64 };
    let low = |i: i64| i64::MIN + i % 5;
    let times: Vec<i64> = (0..3000).map(|i| START + i * 10 * SECOND).collect();
    let line = |(i, t): (i64, &i64)| {
        let (top, sway, wide, low) = (top(i), sway(i), wide(i), low(i));
        format!("m top={top}u,sway={sway}i,wide={wide}u,low={low}i,small={i}i {t}\n")
    };
    let body: String = (0..).zip(&times).map(line).collect();
    let known = |of: &dyn Fn(i64) -> i128| -> Vec<(i64, i128)> {
        (0..).zip(&times).map(|(i, &t)| (t, of(i))).collect()
    };
    let columns = [
        ("top", known(&|i| i128::from(top(i)))),
        ("sway", known(&|i| i128::from(sway(i)))),
        ("wide", known(&|i| i128::from(wide(i)))),
        ("low", known(&|i| i128::from(low(i)))),
        ("small", known(&|i| i128::from(i))),
    ];
    in_every_layer(&body, |store, layer| {
        for (field, known) in &columns {
            for every in [10 * SECOND, 70 * SECOND, 3600 * SECOND, 86_400 * SECOND, 900_000 * SECOND] {
                check_sums(store, field, known, every, layer);
            }
        }
    });
}

#[test]
fn a_sum_of_floats_that_no_float_holds_is_an_error() {
    let body = format!("m f=1e308 {START}\nm f=1.5e308 {}\nm f=-1e308 {}", START + 1, START + 2);
    in_every_layer(&body, |store, layer| {
        let of = |from: i64, to: i64| {
            let at = |t| Timestamp::from_nanos(START + t);
            let range = TimeRange::new(at(from), at(to));
            let found = store.windows(&Selector::bucket("b"), range, &Windows::whole()).unwrap();
            found[0].windows[0].summary.clone()
        };
        assert!(of(0, 2).sum().unwrap_err().is_overflow(), "{layer}");
        assert!(of(0, 2).mean().unwrap_err().is_overflow(), "{layer}");
        assert_eq!(of(1, 3).sum().unwrap(), Some(Value::Float(0.5e308)), "{layer}");
    });
}
