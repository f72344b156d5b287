//! How a reading is named in VictoriaMetrics, and back: pure, and the only place that knows. Must not know how lines are
//! written, nor how a query is phrased.
//!
//! A field is the metric `<measurement>_<field>`, as VictoriaMetrics makes it. That alone is not unique: `energy` with
//! `hourly_power_watts` and `energy_hourly` with `power_watts` are one name. So each line goes with a label that no tag can
//! be, `_measurement`: InfluxDB reserves it. The bucket is the label `db`. A tag whose name is one of these goes with `tag_`
//! in front of it, and so does a tag that is named so already.
//!
//! Versions before this one wrote no `_measurement`, and such tags as they were: series without that label are theirs.

use std::borrow::Cow;

/// The label with the measurement.
pub(crate) const MEASUREMENT: &str = "_measurement";
/// The label with the bucket.
pub(crate) const BUCKET: &str = "db";
/// The label that tells the parts of an answer apart; never stored.
pub(crate) const PART: &str = "__graylogic_part__";
/// Labels that are no tags.
const RESERVED: [&str; 4] = ["__name__", BUCKET, MEASUREMENT, PART];
const MOVED: &str = "tag_";

/// Whether a text is the name of a reserved label with any number of `tag_` in front.
fn is_moved(name: &str) -> bool {
    let mut rest = name;
    loop {
        if RESERVED.contains(&rest) {
            return true;
        }
        let Some(shorter) = rest.strip_prefix(MOVED) else { return false };
        rest = shorter;
    }
}

/// The label that holds a tag.
pub(crate) fn label_of_tag(tag: &str) -> Cow<'_, str> {
    if is_moved(tag) { Cow::Owned(format!("{MOVED}{tag}")) } else { Cow::Borrowed(tag) }
}

/// The tag that a label holds; `None` when it is none. Of a series that an earlier version wrote the label is the tag.
pub(crate) fn tag_of_label(label: &str, is_earlier: bool) -> Option<&str> {
    if RESERVED.contains(&label) {
        return None;
    }
    let moved = label.strip_prefix(MOVED).filter(|tag| !is_earlier && is_moved(tag));
    Some(moved.unwrap_or(label))
}

/// The metric that holds a field.
pub(crate) fn metric(measurement: &str, field: &str) -> String {
    format!("{measurement}_{field}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Everything that distinguishes two series in VictoriaMetrics.
    fn series(
        bucket: &str,
        measurement: &str,
        field: &str,
        tags: &[(String, String)],
    ) -> Vec<(String, String)> {
        let own = |k: &str, v: &str| (k.to_owned(), v.to_owned());
        let mut labels = vec![
            own("__name__", &metric(measurement, field)),
            own(BUCKET, bucket),
            own(MEASUREMENT, measurement),
        ];
        labels.extend(tags.iter().map(|(k, v)| (label_of_tag(k).into_owned(), v.clone())));
        labels.sort();
        labels
    }

    fn name() -> impl Strategy<Value = String> {
        prop_oneof![
            "[ab_]{1,5}",
            "(tag_){0,3}(db|__name__|_measurement|tag|a)",
            Just("energy".to_owned()),
            Just("energy_hourly".to_owned()),
            Just("hourly_power".to_owned()),
            Just("power".to_owned()),
        ]
    }

    type Reading = (String, String, String, Vec<(String, String)>);

    fn reading() -> impl Strategy<Value = Reading> {
        let tags = proptest::collection::btree_map(name(), name(), 0..4);
        (name(), name(), name(), tags).prop_map(|(b, m, f, tags)| (b, m, f, tags.into_iter().collect()))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]
        #[test]
        fn two_readings_are_one_series_only_when_they_are_the_same(a in reading(), b in reading()) {
            let of = |r: &Reading| series(&r.0, &r.1, &r.2, &r.3);
            prop_assert_eq!(a == b, of(&a) == of(&b));
            // No label is there twice: VictoriaMetrics would keep one of them.
            let labels = of(&a);
            prop_assert!(labels.windows(2).all(|w| w[0].0 != w[1].0), "{:?}", labels);
        }

        #[test]
        fn a_tag_comes_back_from_its_label(tag in name()) {
            let label = label_of_tag(&tag);
            prop_assert_eq!(tag_of_label(&label, false), Some(tag.as_str()));
        }
    }

    #[test]
    fn only_names_that_would_collide_are_changed() {
        for (tag, label) in [
            ("device_id", "device_id"),
            ("tag_room", "tag_room"),
            ("tag_", "tag_"),
            ("db", "tag_db"),
            ("tag_db", "tag_tag_db"),
            ("__name__", "tag___name__"),
            ("measurement", "measurement"),
        ] {
            assert_eq!(label_of_tag(tag), label);
        }
        assert_eq!(tag_of_label("db", false), None);
        assert_eq!(tag_of_label("tag_db", true), Some("tag_db"));
    }
}
