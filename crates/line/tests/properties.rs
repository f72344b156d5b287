//! What holds for every point and every body of bytes.
#![allow(clippy::unwrap_used, missing_docs)]

use graylogic_line::{
    Dialect, Encoder, FieldRef, FieldValue, OnControl, OnDuplicate, OnEmptyTag, OnNotFinite, ParseOptions,
    Parser, Point, Precision, SeriesTemplate, Timestamp,
};
use proptest::prelude::*;
use std::collections::BTreeMap;

const DIALECTS: [Dialect; 4] = [Dialect::V2, Dialect::V3, Dialect::Vm, Dialect::Portable];

fn options() -> ParseOptions {
    ParseOptions::new(Precision::Nanoseconds, Timestamp::from_nanos(77))
}

/// Names made of what parsers stumble over.
fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "[a-c0,= \"\\\\#_'é😀]{0,9}",
        1 => "[a-c,= \"\\\\\n\r\t\u{0}\u{7f}]{0,6}",
        1 => any::<String>(),
    ]
}

fn value() -> impl Strategy<Value = FieldValue> {
    prop_oneof![
        any::<f64>().prop_map(FieldValue::Float),
        (-100_000i32..100_000).prop_map(|v| FieldValue::Float(f64::from(v) / 100.0)),
        any::<i64>().prop_map(FieldValue::Integer),
        any::<u64>().prop_map(FieldValue::Unsigned),
        any::<bool>().prop_map(FieldValue::Boolean),
        "[a-c,= \"\\\\\n\r\té😀]{0,12}".prop_map(FieldValue::String),
    ]
}

fn point() -> impl Strategy<Value = Point> {
    let tags = prop::collection::vec((name(), name()), 0..4);
    let fields = prop::collection::vec((name(), value()), 0..4);
    (name(), tags, fields, prop::option::of(any::<i64>())).prop_map(|(measurement, tags, fields, time)| {
        let mut point = Point::new(measurement);
        for (key, value) in tags {
            point = point.tag(key, value);
        }
        for (key, value) in fields {
            point = point.field(key, value);
        }
        match time {
            Some(time) => point.timestamp(Timestamp::from_nanos(time)),
            None => point,
        }
    })
}

fn encoder() -> impl Strategy<Value = Encoder> {
    (0..DIALECTS.len(), any::<[bool; 5]>()).prop_map(|(dialect, on)| {
        let mut encoder = Encoder::new(DIALECTS[dialect]).allow_underscore_names(on[0]);
        if on[1] {
            encoder = encoder.on_empty_tag(OnEmptyTag::Omit);
        }
        if on[2] {
            encoder = encoder.on_control(OnControl::Replace('?'));
        }
        if on[3] {
            encoder = encoder.on_not_finite(OnNotFinite::OmitField);
        }
        if on[4] {
            encoder = encoder.on_duplicate(OnDuplicate::LastWins);
        }
        encoder
    })
}

/// What a point says under the policies of `encoder`: keys to values, as a server would hold them.
type Meaning = (String, BTreeMap<String, String>, BTreeMap<String, FieldValue>, i64);

fn meaning(point: &Point, replaced: bool) -> Meaning {
    let clean = |text: &str| {
        if replaced { text.replace(|c: char| c.is_ascii_control(), "?") } else { text.to_owned() }
    };
    let mut tags: BTreeMap<_, _> = point.tags().iter().map(|(k, v)| (clean(k), clean(v))).collect();
    // Of two tags the last counts, and if that is empty there is none.
    tags.retain(|_, v| !v.is_empty());
    let finite = |v: &FieldValue| !matches!(v, FieldValue::Float(v) if !v.is_finite());
    (
        clean(point.measurement()),
        tags,
        point.fields().iter().filter(|(_, v)| finite(v)).map(|(k, v)| (clean(k), v.clone())).collect(),
        point.time().map_or(77, Timestamp::as_nanos),
    )
}

/// Reads a line as InfluxDB 3 and VictoriaMetrics do: a backslash takes the next byte with it, whatever it is.
fn read_in_pairs(line: &str) -> Meaning {
    let (measurement, mut rest) = take_name(line, &[',', ' ']);
    let mut tags = BTreeMap::new();
    while let Some(after) = rest.strip_prefix(',') {
        let (key, after) = take_name(after, &['=']);
        let (value, after) = take_name(&after[1..], &[',', ' ']);
        assert_eq!(tags.insert(key, value), None);
        rest = after;
    }
    let mut fields = BTreeMap::new();
    rest = rest.strip_prefix(' ').unwrap();
    loop {
        let (key, after) = take_name(rest, &['=']);
        let (value, after) = take_value(&after[1..]);
        assert_eq!(fields.insert(key, value), None);
        match after.strip_prefix(',') {
            Some(after) => rest = after,
            None => {
                let time = after.strip_suffix('\n').unwrap();
                let time = time.strip_prefix(' ').map_or(77, |t| t.parse().unwrap());
                return (measurement, tags, fields, time);
            }
        }
    }
}

fn take_name<'a>(text: &'a str, ends: &[char]) -> (String, &'a str) {
    let mut name = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => {
                let (_, next) = chars.next().unwrap();
                if !matches!(next, '\\' | ',' | '=' | ' ') {
                    name.push('\\');
                }
                name.push(next);
            }
            c if ends.contains(&c) => return (name, &text[at..]),
            c => name.push(c),
        }
    }
    panic!("{text:?} has none of {ends:?}");
}

fn take_value(text: &str) -> (FieldValue, &str) {
    if let Some(text) = text.strip_prefix('"') {
        let mut value = String::new();
        let mut chars = text.char_indices();
        while let Some((at, c)) = chars.next() {
            match c {
                '"' => return (FieldValue::String(value), &text[at + 1..]),
                '\\' => value.push(chars.next().unwrap().1),
                c => value.push(c),
            }
        }
        panic!("{text:?} is not closed");
    }
    let end = text.find([',', ' ', '\n']).unwrap();
    let (word, after) = text.split_at(end);
    let value = match word.as_bytes() {
        b"true" => FieldValue::Boolean(true),
        b"false" => FieldValue::Boolean(false),
        [digits @ .., b'i'] => FieldValue::Integer(std::str::from_utf8(digits).unwrap().parse().unwrap()),
        [digits @ .., b'u'] => FieldValue::Unsigned(std::str::from_utf8(digits).unwrap().parse().unwrap()),
        _ => FieldValue::Float(word.parse().unwrap()),
    };
    (value, after)
}

/// Reads one line with our parser.
fn read(bytes: &[u8]) -> Meaning {
    let mut parser = Parser::new(bytes, options());
    let line = parser.next_line().unwrap().unwrap();
    let tags: Vec<_> = line.tags().map(|(k, v)| (k.into_owned(), v.into_owned())).collect();
    let fields: Vec<_> = line.fields().iter().map(|f| (f.key().into_owned(), f.value.to_value())).collect();
    let counts = (tags.len(), fields.len());
    let read = (
        line.measurement().into_owned(),
        tags.into_iter().collect::<BTreeMap<_, _>>(),
        fields.into_iter().collect::<BTreeMap<_, _>>(),
        line.timestamp().as_nanos(),
    );
    assert_eq!(counts, (read.1.len(), read.2.len()), "a key came twice");
    assert!(parser.next_line().is_none(), "one point became two lines");
    read
}

/// Floats by their bits: `-0.0` is not `0.0`.
fn same(a: &Meaning, b: &Meaning) -> bool {
    let bits = |m: &Meaning| {
        let of = |v: &FieldValue| match v {
            FieldValue::Float(v) => format!("float {:x}", v.to_bits()),
            other => format!("{other:?}"),
        };
        m.2.iter().map(|(k, v)| (k.clone(), of(v))).collect::<Vec<_>>()
    };
    (&a.0, &a.1, a.3) == (&b.0, &b.1, b.3) && bits(a) == bits(b)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    /// What is written is read back, in the way of the server it is written for.
    #[test]
    fn points_come_back(point in point(), encoder in encoder()) {
        let mut out = b"before\n".to_vec();
        match encoder.encode(&point, &mut out) {
            Err(error) => {
                prop_assert_eq!(&out, b"before\n", "a refused point leaves nothing behind");
                prop_assert!(!error.to_string().is_empty());
            }
            Ok(()) => {
                let line = &out[b"before\n".len()..];
                let replaced = encoder == encoder.on_control(OnControl::Replace('?'));
                let expected = meaning(&point, replaced);
                let found = match encoder.dialect() {
                    Dialect::V3 | Dialect::Vm => read_in_pairs(std::str::from_utf8(line).unwrap()),
                    _ => read(line),
                };
                prop_assert!(same(&found, &expected), "{found:?} of {expected:?}");
                if encoder.dialect() == Dialect::Portable {
                    let found = read_in_pairs(std::str::from_utf8(line).unwrap());
                    prop_assert!(same(&found, &expected), "{found:?} of {expected:?}");
                }
            }
        }
    }

    /// However many points are written, as many lines are read, in every dialect: none hides in a name or a string.
    #[test]
    fn no_point_becomes_two(points in prop::collection::vec(point(), 1..8), encoder in encoder()) {
        let mut out = Vec::new();
        let written = points.iter().filter(|p| encoder.encode(p, &mut out).is_ok()).count();
        let mut parser = Parser::new(&out, options());
        let mut read = 0;
        while let Some(line) = parser.next_line() {
            prop_assert!(line.is_ok(), "{:?}", line.unwrap_err().to_string());
            read += 1;
        }
        prop_assert_eq!(read, written);
    }

    /// A template writes what the encoder writes, or refuses what it refuses.
    #[test]
    fn templates_write_the_same(point in point(), encoder in encoder()) {
        let tags: Vec<(&str, &str)> = point.tags().iter().map(|(k, v)| (&**k, &**v)).collect();
        let fields: Vec<&str> = point.fields().iter().map(|(k, _)| &**k).collect();
        let values: Vec<FieldRef<'_>> = point.fields().iter().map(|(_, v)| v.as_ref()).collect();
        let (mut direct, mut prepared) = (Vec::new(), Vec::new());
        let by_encoder = encoder.encode(&point, &mut direct);
        let by_template = SeriesTemplate::new(&encoder, point.measurement(), &tags, &fields)
            .and_then(|t| t.encode(&values, point.time(), &mut prepared));
        if by_template.is_ok() {
            prop_assert!(by_encoder.is_ok(), "{by_encoder:?}");
            prop_assert_eq!(direct, prepared);
        }
    }

    /// No bytes make the parser panic or lose a line; reading with known keys finds the same ends.
    #[test]
    fn any_bytes_are_read(body in prop_oneof![
        prop::collection::vec(any::<u8>(), 0..200),
        prop::collection::vec(prop::sample::select(b"mt,= \"\\#\n\r\t1i.e-uxF\xff\x00".to_vec()), 0..80),
    ]) {
        let mut parser = Parser::new(&body, options());
        let (mut texts, mut keys) = (0, Vec::new());
        while let Some(next) = parser.next_line() {
            texts += 1;
            prop_assert!(texts <= body.len());
            if let Ok(line) = next {
                keys.push(line.raw_key().to_vec());
                let again = line.to_point();
                prop_assert!(again.measurement() == line.measurement());
            }
        }
        let mut parser = Parser::new(&body, options());
        let mut known = Vec::new();
        while let Some(next) = parser.next_line_known(|key| keys.iter().any(|k| k == key)) {
            if let Ok(line) = next {
                known.push(line.raw_key().to_vec());
            }
        }
        prop_assert_eq!(known, keys);
    }
}
