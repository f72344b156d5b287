//! Writing and reading in the steady state allocate nothing.
#![allow(clippy::unwrap_used, missing_docs)]

use allocation_counter::measure;
use graylogic_line::{
    Dialect, Encoder, FieldRef, ParseOptions, Parser, Point, Precision, SeriesTemplate, Timestamp,
};

#[test]
fn writing_a_point_allocates_nothing() {
    let time = Timestamp::from_nanos(1_700_000_000_000_000_000);
    for dialect in [Dialect::V2, Dialect::V3, Dialect::Vm, Dialect::Portable] {
        let encoder = Encoder::new(dialect);
        let mut out = Vec::with_capacity(64 << 10);
        let point = Point::new("ahu").tag("unit", "AHU 2").field("fan", true).field("state", "on, \"auto\"");
        let names: Vec<String> = (0..100).map(|i| format!("light living={i}")).collect();
        let used = measure(|| {
            for (i, name) in names.iter().enumerate() {
                out.clear();
                // Out of order, with an escape, every type.
                let tags = [("zone", name.as_str()), ("device_id", "a b")];
                let fields = [
                    ("value", FieldRef::Float(i as f64 / 3.0)),
                    ("count", FieldRef::Integer(-7)),
                    ("total", FieldRef::Unsigned(u64::MAX)),
                    ("text", FieldRef::String("a \"quoted\" text".into())),
                ];
                encoder.encode_parts("device_metrics", &tags, &fields, Some(time), &mut out).unwrap();
                encoder.encode(&point, &mut out).unwrap();
            }
        });
        assert_eq!(used.count_total, 0, "{dialect:?}");
        let template =
            SeriesTemplate::new(&encoder, "energy", &[("device_id", "hvac")], &["power", "on"]).unwrap();
        let used = measure(|| {
            for i in 0..100 {
                out.clear();
                let values = [FieldRef::Float(f64::from(i) / 7.0), FieldRef::Boolean(true)];
                template.encode(&values, Some(time), &mut out).unwrap();
            }
        });
        assert_eq!(used.count_total, 0, "{dialect:?}");
    }
}

#[test]
fn reading_allocates_for_its_first_lines_only() {
    let line = "energy,device_id=hvac\\ 1,site=x power_watts=450.5,on=t,state=\"on\",n=5i 1700000000\n";
    let refused = "energy,device_id=hvac power_watts= 1700000000\n";
    let count = |lines: usize| {
        let body = format!("{line}{refused}").repeat(lines);
        let options = ParseOptions::new(Precision::Seconds, Timestamp::from_nanos(0));
        let mut bytes = 0;
        let known = measure(|| {
            let mut parser = Parser::new(body.as_bytes(), options);
            while let Some(next) = parser.next_line_known(|_| true) {
                bytes += next.map_or_else(|e| e.text().len(), |l| l.text().len());
            }
        });
        assert!(bytes > lines * 100);
        known.count_total
    };
    assert_eq!(count(10), count(1000), "nothing is allocated for a line");
}
