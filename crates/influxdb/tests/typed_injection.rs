//! Names and values are compared, never interpreted: whatever they hold, a statement has the same words as for harmless
//! ones, and its literals mean exactly what was given. The readers of literals here know the languages, not our code.
#![allow(clippy::unwrap_used, missing_docs)]

use graylogic_influxdb::{Aggregate, Dialogue, Query, Timestamp};
use proptest::prelude::*;
use serde_json::{Value as Json, json};
use std::time::Duration;

/// What a question names.
#[derive(Clone, Debug, PartialEq)]
struct Names {
    measurement: String,
    field: String,
    key: String,
    value: String,
    bucket: String,
}

impl Names {
    fn harmless() -> Self {
        let [measurement, field, key, value, bucket] = ["m", "f", "k", "v", "b"].map(str::to_owned);
        Self { measurement, field, key, value, bucket }
    }

    fn query(&self) -> Query {
        let query = Query::measurement(&self.measurement).field(&self.field).tag(&self.key, &self.value);
        query.range(Timestamp::from_nanos(1 << 60), Timestamp::from_nanos((1 << 60) + 3_600_000_000_000))
    }
}

const RESERVED: [&str; 10] =
    ["time", "_time", "_measurement", "_field", "_value", "_start", "_stop", "db", "__name__", ""];

/// What the text after a backslash means, and how much of it.
type Escape = fn(&str) -> Option<(char, usize)>;

/// A statement as its words, with `?` for each literal that holds a name, and what the literals mean.
type Read = (String, Vec<String>);

/// The text between two quotes that begins after the first; the rest after the second.
fn literal<'a>(text: &'a str, quote: char, escape: Escape, forbidden: &[char]) -> (String, &'a str) {
    let mut means = String::new();
    let mut rest = text;
    loop {
        let c = rest.chars().next().unwrap_or_else(|| panic!("a literal does not end: {text:?}"));
        assert!(!forbidden.contains(&c), "{c:?} stands in a literal as it is");
        rest = &rest[c.len_utf8()..];
        match c {
            c if c == quote => return (means, rest),
            '\\' => {
                let (c, length) = escape(rest).unwrap_or_else(|| panic!("a broken escape: {rest:.10?}"));
                means.push(c);
                rest = &rest[length..];
            }
            c => means.push(c),
        }
    }
}

fn hex(text: &str) -> Option<(char, usize)> {
    let byte = u8::from_str_radix(text.get(1..3)?, 16).ok()?;
    byte.is_ascii().then_some((char::from(byte), 3))
}

fn flux(text: &str) -> Read {
    let escape = |t: &str| match t.chars().next()? {
        'n' => Some(('\n', 1)),
        'r' => Some(('\r', 1)),
        't' => Some(('\t', 1)),
        c @ ('\\' | '"') => Some((c, 1)),
        'x' => hex(t),
        _ => None,
    };
    let (mut words, mut literals, mut rest) = (String::new(), Vec::new(), text);
    while let Some(begin) = rest.find('"') {
        words.push_str(&rest[..begin]);
        words.push('?');
        // A `$` begins an expression before a brace, takes any other character with it, also a backslash, and has an
        // escape only before a brace: it may not stand in a literal.
        let (means, after) = literal(&rest[begin + 1..], '"', escape, &['$']);
        literals.push(means);
        rest = after;
    }
    words.push_str(rest);
    (words, literals)
}

fn influxql(text: &str) -> Read {
    let escape = |t: &str| match t.chars().next()? {
        'n' => Some(('\n', 1)),
        c @ ('\\' | '"' | '\'') => Some((c, 1)),
        _ => None,
    };
    let (mut words, mut literals, mut rest) = (String::new(), Vec::new(), text);
    while let Some(begin) = rest.find(['"', '\'']) {
        words.push_str(&rest[..begin]);
        let quote = rest[begin..].chars().next().unwrap();
        words.push(if quote == '"' { '?' } else { '!' });
        // The scanner ends a literal at a line end, and reads a carriage return as one.
        let (means, after) = literal(&rest[begin + 1..], quote, escape, &['\n', '\r', '\0']);
        literals.push(means);
        rest = after;
    }
    words.push_str(rest);
    (words, literals)
}

fn sql(text: &str) -> Read {
    let (mut words, mut literals, mut rest) = (String::new(), Vec::new(), text);
    while let Some(begin) = rest.find('"') {
        words.push_str(&rest[..begin]);
        words.push('?');
        let mut means = String::new();
        rest = &rest[begin + 1..];
        loop {
            let (part, after) = rest.split_once('"').unwrap();
            means.push_str(part);
            match after.strip_prefix('"') {
                Some(more) => {
                    means.push('"');
                    rest = more;
                }
                None => {
                    rest = after;
                    break;
                }
            }
        }
        literals.push(means);
    }
    words.push_str(rest);
    (words, literals)
}

fn metricsql(text: &str) -> Read {
    let escape = |t: &str| match t.chars().next()? {
        'n' => Some(('\n', 1)),
        c @ ('\\' | '"') => Some((c, 1)),
        'x' => hex(t),
        _ => None,
    };
    let (mut words, mut literals, mut rest) = (String::new(), Vec::new(), text);
    while let Some(c) = rest.chars().next() {
        rest = &rest[c.len_utf8()..];
        match c {
            '"' => {
                let (means, after) = literal(rest, '"', escape, &['\n']);
                words.push('?');
                literals.push(means);
                rest = after;
            }
            // The second label, after the metric's name, is the tag's key.
            ',' if !rest.starts_with("db=") => {
                let mut means = String::new();
                loop {
                    let c = rest.chars().next().unwrap();
                    if c == '\\' {
                        let (c, length) = hex(&rest[1..]).unwrap();
                        means.push(c);
                        rest = &rest[1 + length..];
                    } else if c.is_ascii_alphanumeric() || c == '_' {
                        means.push(c);
                        rest = &rest[1..];
                    } else {
                        break;
                    }
                }
                words.push_str(",?");
                literals.push(means);
            }
            c => words.push(c),
        }
    }
    (words, literals)
}

/// A value of a form.
fn from_form(body: &[u8], name: &str) -> Option<String> {
    let decoded = |text: &str| {
        let mut bytes = Vec::new();
        let mut rest = text.bytes();
        while let Some(b) = rest.next() {
            bytes.push(match b {
                b'+' => b' ',
                b'%' => {
                    let digits = [rest.next().unwrap(), rest.next().unwrap()];
                    u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap()
                }
                b => b,
            });
        }
        String::from_utf8(bytes).unwrap()
    };
    let text = std::str::from_utf8(body).unwrap();
    let pairs = text.split('&').map(|pair| pair.split_once('=').unwrap());
    pairs.into_iter().find(|(k, _)| decoded(k) == name).map(|(_, v)| decoded(v))
}

fn answered(dialogue: &mut Dialogue, answer: &Json) {
    dialogue.feed(answer.to_string().as_bytes()).unwrap();
    dialogue.feed(b"\n").unwrap();
}

fn flux_of(names: &Names, query: &Query) -> Read {
    let mut dialogue = Dialogue::flux(query.check().unwrap(), "o", &names.bucket).unwrap();
    // The field holds strings, where types are asked for: then it is named in the scripts that follow.
    let types = format!(
        "#datatype,string,long,dateTime:RFC3339,string,string,string\r\n#group,false,false,false,false,true,true\r\n\
         #default,_result,,,,,\r\n,result,table,_time,_value,_field,_measurement\r\n\
         ,,1,2026-03-02T00:00:00Z,on,\"{}\",energy\r\n\r\n",
        names.field.replace('"', "\"\"")
    );
    let (mut words, mut literals) = (String::new(), Vec::new());
    let mut answer = types.as_bytes();
    while let Some(ask) = dialogue.next_ask() {
        let body: Json = serde_json::from_slice(&ask.body).unwrap();
        let more = flux(body["query"].as_str().unwrap());
        words.push_str(&more.0);
        literals.extend(more.1);
        dialogue.feed(std::mem::replace(&mut answer, b"\r\n")).unwrap();
        dialogue.end().unwrap();
    }
    (words, literals)
}

/// The question for the fields and the one for the values, in one.
fn influxql_of(names: &Names, query: &Query) -> Read {
    let mut dialogue = Dialogue::influxql(query.check().unwrap(), "b").unwrap();
    let ask = dialogue.next_ask().unwrap();
    let (mut words, mut literals) = influxql(&from_form(&ask.body, "q").unwrap());
    let fields = json!([[names.field, "float"]]);
    let series = json!([{ "name": "m", "columns": ["fieldKey", "fieldType"], "values": fields }]);
    answered(&mut dialogue, &json!({ "results": [{ "statement_id": 0, "series": series }] }));
    dialogue.end().unwrap();
    let ask = dialogue.next_ask().unwrap();
    let more = influxql(&from_form(&ask.body, "q").unwrap());
    words.push_str(&more.0);
    literals.extend(more.1);
    (words, literals)
}

fn sql_of(names: &Names, query: &Query) -> Read {
    let mut dialogue = Dialogue::sql(query.check().unwrap(), &names.bucket).unwrap();
    let ask = dialogue.next_ask().unwrap();
    let body: Json = serde_json::from_slice(&ask.body).unwrap();
    assert_eq!(body["db"], names.bucket);
    let mut literals = vec![body["params"]["measurement"].as_str().unwrap().to_owned()];
    let mut words = body["q"].as_str().unwrap().to_owned();
    answered(&mut dialogue, &json!({ "column_name": names.key, "data_type": "Dictionary(Int32, Utf8)" }));
    answered(&mut dialogue, &json!({ "column_name": names.field, "data_type": "Float64" }));
    answered(&mut dialogue, &json!({ "column_name": "time", "data_type": "Timestamp(Nanosecond, None)" }));
    dialogue.end().unwrap();
    let ask = dialogue.next_ask().unwrap();
    let body: Json = serde_json::from_slice(&ask.body).unwrap();
    let more = sql(body["q"].as_str().unwrap());
    words.push_str(&more.0);
    literals.extend(more.1);
    literals.extend(body["params"].as_object().unwrap().values().map(|v| v.as_str().unwrap().to_owned()));
    (words, literals)
}

fn metricsql_of(names: &Names, query: &Query) -> Read {
    let mut dialogue = Dialogue::metricsql(query.check().unwrap(), Some(&names.bucket)).unwrap();
    let ask = dialogue.next_ask().unwrap();
    let text = from_form(&ask.body, "match[]").or_else(|| from_form(&ask.body, "query")).unwrap();
    metricsql(&text)
}

fn check(names: &Names) {
    let windows = |q: Query| q.window(Duration::from_secs(60)).aggregate(Aggregate::Mean);
    for wrap in [|q: Query| q, windows, |q: Query| q.latest()] {
        check_shape(names, &wrap(names.query()), &wrap(Names::harmless().query()));
    }
}

fn check_shape(names: &Names, query: &Query, harmless_query: &Query) {
    let harmless = Names::harmless();
    let Names { measurement, field, key, value, bucket } = names;

    let (words, literals) = flux_of(names, query);
    let expected = flux_of(&harmless, harmless_query);
    assert_eq!(words, expected.0);
    let mine = |l: &String| match l.as_str() {
        "m" => measurement.clone(),
        "f" => field.clone(),
        "k" => key.clone(),
        "v" => value.clone(),
        "b" => bucket.clone(),
        "m_f" => format!("{measurement}_{field}"),
        other => other.to_owned(),
    };
    let meant = |literals: &[String]| literals.iter().map(mine).collect::<Vec<_>>();
    assert_eq!(literals, meant(&expected.1));
    let count = |l: &[String], what: &str| l.iter().filter(|l| *l == what).count();
    let scripts = expected.0.matches("from(bucket").count();
    for name in ["m", "f", "k", "v", "b"] {
        assert_eq!(
            count(&expected.1, name),
            scripts,
            "each harmless script names everything once: {expected:?}"
        );
    }

    if names.measurement.contains(['\r', '\0'])
        || [field, key, value].iter().any(|n| n.contains(['\r', '\0']))
    {
        let error = Dialogue::influxql(query.check().unwrap(), "b").unwrap_err();
        assert!(error.is_unsupported() && error.to_string().contains("InfluxQL cannot write"), "{error}");
    } else {
        let (words, literals) = influxql_of(names, query);
        let expected = influxql_of(&harmless, harmless_query);
        assert_eq!(words, expected.0);
        assert_eq!(literals, meant(&expected.1));
    }

    if key != field {
        let (words, literals) = sql_of(names, query);
        let expected = sql_of(&harmless, harmless_query);
        assert_eq!(words, expected.0);
        assert_eq!(literals, meant(&expected.1));
    }

    let (words, literals) = metricsql_of(names, query);
    let (mut expected_words, mut expected) = metricsql_of(&harmless, harmless_query);
    if !key.is_ascii() || ["db", "__name__"].contains(&key.as_str()) {
        // Compared when the answer is read, because releases read such names in different ways.
        expected_words = expected_words.replace(",?=?", "");
        expected.retain(|l| l != "k" && l != "v");
    }
    assert_eq!(words, expected_words);
    // The measurement once more, as a pattern that nothing else matches, or none.
    let measurement = format!("{}|", pattern(measurement));
    let meant: Vec<String> = meant(&expected);
    let meant: Vec<&str> = meant.iter().map(|l| if l == "m|" { &*measurement } else { &**l }).collect();
    assert_eq!(literals, meant);
}

/// A regular expression that only this text matches.
fn pattern(text: &str) -> String {
    let escaped = |c: char| if r"\.+*?()|[]{}^$".contains(c) { format!("\\{c}") } else { c.to_string() };
    text.chars().map(escaped).collect()
}

#[test]
fn ids_that_look_like_code_stay_ids() {
    let long = "x\"'\\".repeat(16 << 10);
    let ids = [
        "\"",
        "'",
        "\\",
        "\\\"",
        "${x}",
        "$",
        "\\${x}",
        "a\nb",
        "a\r\nb",
        "\0",
        "\t\u{7f}",
        "\" or true or \"",
        "\") |> yield() //",
        "'; DROP MEASUREMENT m; --",
        "' OR 1=1 --",
        "\"; DROP TABLE x; --",
        "$p0_0",
        "Küche 日本 \u{1f3e0}",
        "x\"} or {y=\"z",
        ".*|.+",
        "-",
        "1",
        "",
        &long,
    ];
    for id in ids {
        let harmless = Names::harmless();
        for place in 0..5 {
            let mut names = harmless.clone();
            // A bucket with a slash is a database and a retention policy for InfluxQL, so it stays as it is there.
            let all = [
                &mut names.measurement,
                &mut names.field,
                &mut names.key,
                &mut names.value,
                &mut names.bucket,
            ];
            for (i, name) in all.into_iter().enumerate() {
                if i == place {
                    *name = id.to_owned();
                }
            }
            if !id.is_empty() {
                check(&names);
            }
        }
    }
}

#[test]
fn one_of_several_ids_is_matched_as_it_is() {
    let ids = ["a.b", "c|d", "(e", "f\\", "g\"", "$", "h]{1}^*+?"];
    let query = Query::measurement("m").field("f").tag_in("k", ids);
    let query = query.range(Timestamp::from_nanos(0), Timestamp::from_nanos(1));
    let mut dialogue = Dialogue::metricsql(query.check().unwrap(), None).unwrap();
    // The range is before what the server keeps.
    assert!(dialogue.next_ask().is_none());
    let query = query.range(Timestamp::from_nanos(0), Timestamp::MAX);
    let mut dialogue = Dialogue::metricsql(query.check().unwrap(), None).unwrap();
    let ask = dialogue.next_ask().unwrap();
    let (_, literals) = metricsql(&from_form(&ask.body, "match[]").unwrap());
    // A regular expression: alternatives part at bars that no backslash precedes.
    let (mut found, mut escaped) = (vec![String::new()], false);
    for c in literals.last().unwrap().chars() {
        match c {
            '\\' if !escaped => escaped = true,
            '|' if !escaped => found.push(String::new()),
            c => {
                assert!(escaped || !".+*?()[]{}^$".contains(c), "{c} has its meaning");
                found.last_mut().unwrap().push(c);
                escaped = false;
            }
        }
    }
    let mut ids = ids.map(str::to_owned).to_vec();
    ids.sort();
    assert_eq!(found, ids);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn any_text_stays_a_text(
        measurement in any::<String>(),
        field in any::<String>(),
        key in any::<String>(),
        value in any::<String>(),
        bucket in any::<String>(),
        sharp in "[\"'\\\\${}|()\n\r\t,;=a-]{0,12}",
        place in 0..5usize,
    ) {
        let mut names = Names { measurement, field, key, value, bucket };
        let all = [&mut names.measurement, &mut names.field, &mut names.key, &mut names.value, &mut names.bucket];
        for (i, name) in all.into_iter().enumerate() {
            if i == place {
                name.push_str(&sharp);
            }
            // Empty names have their own rules.
            if name.is_empty() {
                name.push('x');
            }
        }
        prop_assume!(!RESERVED.contains(&names.key.as_str()));
        check(&names);
    }
}
