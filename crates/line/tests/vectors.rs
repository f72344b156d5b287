//! Every vector of `fixtures/line/line-protocol-vectors.json`, in both directions.
#![allow(clippy::unwrap_used, missing_docs)]

use graylogic_line::{
    Dialect, Element, EncodeReason, Encoder, FieldRef, FieldValue, Line, ParseOptions, Parser, Point,
    Precision, Timestamp,
};
use serde_json::Value;

const DEFAULT_TIME: i64 = 1_234_567_890_123_456_789;

fn vectors() -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/line/line-protocol-vectors.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn text<'a>(v: &'a Value, key: &str) -> &'a str {
    v[key].as_str().unwrap()
}

fn field_value(f: &Value) -> FieldValue {
    let value = &f["value"];
    let as_text = || value.as_str().unwrap();
    match text(f, "type") {
        "float" => FieldValue::Float(as_text().parse().unwrap()),
        "integer" => FieldValue::Integer(as_text().parse().unwrap()),
        "unsigned" => FieldValue::Unsigned(as_text().parse().unwrap()),
        "boolean" => FieldValue::Boolean(value.as_bool().unwrap_or_else(|| as_text() == "true")),
        "string" => FieldValue::String(as_text().to_owned()),
        other => panic!("unknown type {other}"),
    }
}

/// The reason in the words of the vectors.
fn refusal(error: &graylogic_line::EncodeError, dialect: Dialect) -> String {
    use EncodeReason as R;
    let element = match error.element() {
        Element::Measurement => "measurement",
        Element::TagKey => "tag key",
        Element::TagValue => "tag value",
        Element::FieldKey => "field key",
        Element::FieldValue => "field value",
        _ => "point",
    };
    match error.reason() {
        R::Empty => format!("empty {element}"),
        R::ControlCharacter => format!("control character in {element}"),
        R::LeadingHash => "measurement starts with #".into(),
        R::TrailingBackslash => format!("{element} ends with a backslash"),
        R::BackslashBeforeSpace => "backslash before space".into(),
        R::BackslashBeforeSeparator => format!("backslash before separator in {element}"),
        R::NotPortableBackslash(c) => format!("backslash before '{c}' in {element} is not portable"),
        R::QuoteInFieldKey => "double quote in field key".into(),
        R::ReservedTagKey => "reserved tag key".into(),
        R::DuplicateTag => "duplicate tag key".into(),
        R::TimeOutOfRange => "timestamp out of range".into(),
        R::TimeNotAfterEpoch if dialect == Dialect::Vm => "timestamp 0 or negative on VictoriaMetrics".into(),
        R::TimeNotAfterEpoch => "timestamp 0 or negative is not portable".into(),
        other => format!("{other:?}"),
    }
}

#[test]
fn every_point_is_written_or_refused_as_the_vectors_say() {
    let mut checks = 0;
    for v in vectors()["encode"].as_array().unwrap() {
        let (id, p) = (text(v, "id"), &v["point"]);
        let mut point = Point::new(text(p, "measurement"));
        for tag in p["tags"].as_array().unwrap() {
            point = point.tag(tag[0].as_str().unwrap(), tag[1].as_str().unwrap());
        }
        for f in p["fields"].as_array().unwrap() {
            point = point.field(text(f, "key"), field_value(f));
        }
        if let Some(time) = p["timestamp"].as_str() {
            point = point.timestamp(Timestamp::from_nanos(time.parse().unwrap()));
        }
        for (name, expected) in v["expect"].as_object().unwrap() {
            let dialect = match name.as_str() {
                "v2" => Dialect::V2,
                "v3" => Dialect::V3,
                "vm" => Dialect::Vm,
                "portable" => Dialect::Portable,
                other => panic!("unknown dialect {other}"),
            };
            let mut out = b"before".to_vec();
            let done = Encoder::new(dialect).encode(&point, &mut out);
            checks += 1;
            match (expected["bytes"].as_str(), done) {
                (Some(bytes), Ok(())) => assert_eq!(String::from_utf8_lossy(&out[6..]), bytes, "{id} {name}"),
                (None, Err(error)) => {
                    assert_eq!(out, b"before", "{id} {name}");
                    assert_eq!(refusal(&error, dialect), text(expected, "reject"), "{id} {name}");
                    assert!(error.to_string().len() < 400, "{error}");
                }
                (expected, done) => panic!(
                    "{id} {name}: expected {expected:?}, got {done:?}: {:?}",
                    String::from_utf8_lossy(&out)
                ),
            }
        }
    }
    println!("{checks} points written or refused as the vectors say");
    assert!(checks >= 160);
}

fn described(line: &Line<'_, '_>) -> Value {
    let fields = line.fields().iter().map(|f| match &f.value {
        FieldRef::Float(v) => serde_json::json!({"key": f.key(), "type": "float", "value": v}),
        FieldRef::Integer(v) => {
            serde_json::json!({"key": f.key(), "type": "integer", "value": v.to_string()})
        }
        FieldRef::Unsigned(v) => {
            serde_json::json!({"key": f.key(), "type": "unsigned", "value": v.to_string()})
        }
        FieldRef::Boolean(v) => serde_json::json!({"key": f.key(), "type": "boolean", "value": v}),
        FieldRef::String(v) => serde_json::json!({"key": f.key(), "type": "string", "value": v}),
    });
    serde_json::json!({
        "measurement": line.measurement(),
        "tags": line.tags().map(|(k, v)| serde_json::json!([k, v])).collect::<Vec<_>>(),
        "fields": fields.collect::<Vec<_>>(),
        "timestamp": line.has_timestamp().then(|| line.timestamp().as_nanos().to_string()),
    })
}

/// Floats of the vectors are text; compare them as numbers.
fn with_numbers(point: &Value) -> Value {
    let mut point = point.clone();
    for f in point["fields"].as_array_mut().unwrap() {
        if f["type"] == "float" {
            f["value"] = serde_json::json!(f["value"].as_str().unwrap().parse::<f64>().unwrap());
        }
    }
    point
}

#[test]
fn every_body_is_read_as_the_vectors_say() {
    let mut checks = 0;
    for v in vectors()["decode"].as_array().unwrap() {
        let id = text(v, "id");
        let body: Vec<u8> = match v["input_hex"].as_str() {
            Some(hex) => {
                (0..hex.len() / 2).map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap()).collect()
            }
            None => text(v, "input").as_bytes().to_vec(),
        };
        let options = ParseOptions::new(Precision::Nanoseconds, Timestamp::from_nanos(DEFAULT_TIME));
        let mut parser = Parser::new(&body, options);
        let (mut points, mut errors, mut dropped, mut reasons) = (Vec::new(), Vec::new(), 0, Vec::new());
        while let Some(next) = parser.next_line() {
            match next {
                Ok(line) => {
                    points.push(described(&line));
                    dropped += line.dropped_time_fields();
                }
                Err(error) => {
                    errors.push(error.to_string());
                    reasons.push(error.reason().to_string());
                    assert!(error.column() <= error.text().len() + 1, "{id}");
                }
            }
        }
        checks += 1;
        match &v["ours"] {
            Value::String(same) => {
                assert_eq!(same, "same-as-v28");
                let expected: Vec<Value> =
                    v["v28"]["points"].as_array().unwrap().iter().map(with_numbers).collect();
                let messages: Vec<String> = v["v28"]["errors"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|e| e.as_str().unwrap().to_owned())
                    .collect();
                assert_eq!(points, expected, "{id}");
                assert_eq!(errors.join("\n"), messages.join("\n"), "{id}");
            }
            ours => {
                if let Some(reason) = ours["reject"].as_str() {
                    assert_eq!((points.len(), reasons.as_slice()), (0, &[reason.to_owned()][..]), "{id}");
                } else if let Some(n) = ours["points"].as_u64() {
                    assert_eq!((points.len() as u64, errors.len()), (n, 0), "{id}: {errors:?}");
                } else {
                    assert!(ours["drop"].is_string(), "{id}");
                    assert_eq!((dropped, errors.len()), (1, 0), "{id}");
                }
            }
        }
    }
    println!("{checks} bodies read as the vectors say");
    assert!(checks >= 70);
}
