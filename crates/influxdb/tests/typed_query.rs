//! Typed questions: what is contradictory, what the store answers, how each language says it, and how each answer is read.
#![allow(clippy::unwrap_used, missing_docs)]

use graylogic_influxdb::{
    Aggregate, Ask, Dialogue, Error, Fill, Query, QuerySeries, Store, Timestamp, Value,
};
use graylogic_store::{StoreOptions, WriteOptions};
use proptest::prelude::*;
use std::time::Duration;

const SECOND: i64 = 1_000_000_000;
/// 2026-03-02T00:00:00Z.
const DAY: i64 = 1_772_409_600;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_nanos((DAY + seconds) * SECOND)
}

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn energy() -> Query {
    Query::measurement("energy").range(at(0), at(3600))
}

fn power() -> Query {
    energy().field("power_watts")
}

fn means() -> Query {
    power().window(seconds(600)).aggregate(Aggregate::Mean)
}

#[test]
fn contradictions_are_sentences() {
    let many: Vec<String> = (0..101).map(|n| n.to_string()).collect();
    let cases: &[(Query, &str)] = &[
        (Query::measurement("").range(at(0), at(1)), "the measurement has no name"),
        (Query::measurement("energy"), "there is no range"),
        (energy().range(at(5), at(5)), "is empty: let it end after it starts"),
        (energy().range(at(6), at(5)), "is empty: let it end after it starts"),
        (
            energy().range(Timestamp::MAX, Timestamp::from_nanos(i64::MAX)),
            "holds no time that a target stores",
        ),
        (
            energy().range(Timestamp::from_nanos(i64::MIN), Timestamp::MIN),
            "holds no time that a target stores",
        ),
        (energy().field(""), "a field has no name"),
        (energy().tag("", "x"), "a tag has no key"),
        (energy().tag("_field", "x"), "the reserved key \"_field\""),
        (energy().tag("time", "x"), "the reserved key \"time\""),
        (energy().tag_in("k", [""; 0]), "no value is given for tag \"k\""),
        (energy().tag_in("k", many), "101 tag values and fields are too many"),
        (power().window(seconds(60)), "windows need an aggregate"),
        (power().aggregate(Aggregate::Mean).fill(Fill::Previous), "a fill needs windows"),
        (power().aggregate(Aggregate::Mean).offset(seconds(1)), "an offset needs windows"),
        (
            power().aggregate(Aggregate::Mean).range(Timestamp::MIN, Timestamp::MAX),
            "an aggregate of more than 292 years",
        ),
        (power().fill(Fill::Previous), "a fill needs windows"),
        (power().offset(seconds(1)), "an offset needs windows"),
        (means().window(Duration::ZERO), "give a length of at least 1 ns"),
        (means().window(Duration::MAX), "below 292 years"),
        (means().offset(Duration::MAX), "the offset of the windows is above 292 years"),
        (means().fill(Fill::Value(f64::NAN)), "no series can hold the fill NaN"),
        (means().window(Duration::from_nanos(1)).fill(Fill::Previous), "the range has too many windows"),
        (power().limit(0), "a limit of 0 values"),
        (power().latest().window(seconds(1)), "leave out a window"),
        (power().latest().offset(seconds(1)), "leave out an offset"),
        (power().latest().aggregate(Aggregate::Sum), "leave out an aggregate"),
        (power().latest().fill(Fill::None), "leave out a fill"),
        (power().latest().limit(1), "leave out a limit"),
        (power().latest().descending(), "leave out an order"),
    ];
    for (query, words) in cases {
        let error = query.check().unwrap_err();
        assert!(error.is_query_failed() && !error.is_retryable(), "{error}");
        let message = error.to_string();
        assert!(message.starts_with("query \"") && message.contains(words), "{message}");
    }
}

const LINES: &str = "\
energy,device_id=hvac,room=attic power_watts=100 1772409600000000000
energy,device_id=hvac,room=attic power_watts=300 1772409660000000000
energy,device_id=hvac,room=attic power_watts=50 1772410800000000000
energy,device_id=light power_watts=7,count=3i,on=true,state=\"idle\" 1772409605000000000
energy,device_id=light power_watts=9,count=4i,on=false,state=\"busy\" 1772410205000000000
";

fn store() -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), StoreOptions::default()).unwrap();
    store.ensure_bucket("b").unwrap();
    assert_eq!(
        store.write_lines("b", LINES.as_bytes(), &WriteOptions::now().any_time()).unwrap().rejected_count,
        0
    );
    (folder, store)
}

/// Series by series: tags, field, and values with their seconds after the first.
fn outline(answer: &[QuerySeries]) -> Vec<String> {
    let value = |value: &Value| match value {
        Value::Float(v) => format!("{v:?}"),
        Value::Integer(v) => format!("{v}i"),
        Value::Unsigned(v) => format!("{v}u"),
        Value::Boolean(v) => v.to_string(),
        Value::String(v) => format!("{v:?}"),
        other => panic!("{other:?}"),
    };
    let of = |s: &QuerySeries| {
        let tags: Vec<String> = s.tags.iter().map(|(k, v)| format!("{k}={v}")).collect();
        let at = |t: Timestamp| (t.as_nanos() - DAY * SECOND) as f64 / 1e9;
        let values: Vec<String> = s.values.iter().map(|(t, v)| format!("{}:{}", at(*t), value(v))).collect();
        format!("{} {} {}", tags.join(","), s.field, values.join(" "))
    };
    answer.iter().map(of).collect()
}

#[test]
fn the_store_answers_in_one_form() {
    let (_folder, store) = store();
    let hvac = || power().tag("device_id", "hvac");
    let windows = |every, aggregate| hvac().window(seconds(every)).aggregate(aggregate);
    let light = |field: &str| energy().tag("device_id", "light").field(field);
    let of = |field: &str, aggregate| light(field).window(seconds(3600)).aggregate(aggregate);
    let attic = "device_id=hvac,room=attic power_watts";
    let cases: &[(Query, &[&str])] = &[
        (
            power(),
            &[&format!("{attic} 0:100.0 60:300.0 1200:50.0"), "device_id=light power_watts 5:7.0 605:9.0"],
        ),
        (
            energy().tag("room", ""),
            &[
                "device_id=light count 5:3i 605:4i",
                "device_id=light on 5:true 605:false",
                "device_id=light power_watts 5:7.0 605:9.0",
                "device_id=light state 5:\"idle\" 605:\"busy\"",
            ],
        ),
        (
            power().tag_in("device_id", ["hvac", "x", "light"]).tag_in("room", ["attic", "bath"]).limit(1),
            &[&format!("{attic} 0:100.0")],
        ),
        (
            power().limit(1).descending(),
            &[&format!("{attic} 1200:50.0"), "device_id=light power_watts 605:9.0"],
        ),
        (hvac().range(at(60), at(1200)), &[&format!("{attic} 60:300.0")]),
        (hvac().tag("device_id", "light"), &[]),
        (windows(600, Aggregate::Mean), &[&format!("{attic} 0:200.0 1200:50.0")]),
        // Cut windows: the first is named by the start of the range.
        (windows(600, Aggregate::Sum).range(at(30), at(1201)), &[&format!("{attic} 30:300.0 1200:50.0")]),
        (windows(600, Aggregate::Count).offset(seconds(60)), &[&format!("{attic} 0:1u 60:1u 660:1u")]),
        (
            windows(600, Aggregate::Count).fill(Fill::Value(0.0)),
            &[&format!("{attic} 0:2u 600:0u 1200:1u 1800:0u 2400:0u 3000:0u")],
        ),
        (
            windows(600, Aggregate::Max).fill(Fill::Previous).range(at(-600), at(1900)),
            &[&format!("{attic} 0:300.0 600:300.0 1200:50.0 1800:50.0")],
        ),
        (
            windows(600, Aggregate::Max).fill(Fill::Previous).descending().limit(2),
            &[&format!("{attic} 3000:50.0 2400:50.0")],
        ),
        (
            windows(600, Aggregate::Min).fill(Fill::Value(-1.5)).range(at(30), at(700)),
            &[&format!("{attic} 30:300.0 600:-1.5")],
        ),
        (
            windows(300, Aggregate::Mean).fill(Fill::Linear).range(at(-600), at(1900)),
            &[&format!("{attic} 0:200.0 300:162.5 600:125.0 900:87.5 1200:50.0")],
        ),
        // Rounded, from what was found and not from what was filled.
        (
            of("count", Aggregate::Sum).window(seconds(100)).fill(Fill::Linear),
            &["device_id=light count 0:3i 100:3i 200:3i 300:4i 400:4i 500:4i 600:4i"],
        ),
        // Without windows, one value of the range.
        (hvac().aggregate(Aggregate::Mean), &[&format!("{attic} 0:150.0")]),
        (hvac().aggregate(Aggregate::Sum).range(at(30), at(1200)), &[&format!("{attic} 30:300.0")]),
        (hvac().aggregate(Aggregate::Count).limit(1).descending(), &[&format!("{attic} 0:3u")]),
        (hvac().aggregate(Aggregate::Count).range(at(61), at(1200)), &[]),
        (windows(600, Aggregate::Last).limit(1), &[&format!("{attic} 0:300.0")]),
        (of("count", Aggregate::Sum), &["device_id=light count 0:7i"]),
        (of("count", Aggregate::Mean), &["device_id=light count 0:3.5"]),
        (of("on", Aggregate::Last), &["device_id=light on 0:false"]),
        (of("state", Aggregate::First), &["device_id=light state 0:\"idle\""]),
        (of("state", Aggregate::Count), &["device_id=light state 0:2u"]),
        // Of all fields those that are numbers.
        (
            energy().tag("device_id", "light").window(seconds(3600)).aggregate(Aggregate::Mean),
            &["device_id=light count 0:3.5", "device_id=light power_watts 0:8.0"],
        ),
        (
            Query::measurement("energy").field("power_watts").latest(),
            &[&format!("{attic} 1200:50.0"), "device_id=light power_watts 605:9.0"],
        ),
        (hvac().range(at(0), at(1200)).latest(), &[&format!("{attic} 60:300.0")]),
        (Query::measurement("nothing").latest(), &[]),
    ];
    for (query, expected) in cases {
        let answer = query.check().unwrap().ask_store(&store, "b").unwrap();
        assert_eq!(outline(&answer), *expected, "{query:?}");
    }
    let fails = |query: Query, words: &str| {
        let error = query.check().unwrap().ask_store(&store, "b").unwrap_err();
        assert!(error.is_query_failed() && error.to_string().contains(words), "{error}");
    };
    fails(of("on", Aggregate::Mean), "field \"on\" has no mean because it holds no numbers");
    fails(of("state", Aggregate::Max), "field \"state\" has no max");
    let filled = |field, aggregate, value| of(field, aggregate).fill(Fill::Value(value));
    fails(filled("count", Aggregate::Sum, 0.5), "the fill 0.5 does not fit a series of type Integer");
    fails(filled("count", Aggregate::Count, -1.0), "the fill -1 does not fit a series of type Unsigned");
    let line = of("state", Aggregate::Last).fill(Fill::Linear);
    fails(line, "a series of type String has no values between others");
    fails(filled("state", Aggregate::Last, 0.0), "the fill 0 does not fit a series of type String");
    store.close().unwrap();
    let error = power().check().unwrap().ask_store(&store, "b").unwrap_err();
    assert!(error.is_not_connected(), "{error}");
}

/// The parts of a form, decoded.
fn form(body: &[u8]) -> Vec<String> {
    let decoded = |text: &str| {
        let mut bytes = Vec::new();
        let mut rest = text.bytes();
        while let Some(b) = rest.next() {
            let digits = |b| char::from(b).to_digit(16).unwrap() as u8;
            bytes.push(if b == b'%' {
                digits(rest.next().unwrap()) * 16 + digits(rest.next().unwrap())
            } else {
                b
            });
        }
        String::from_utf8(bytes).unwrap()
    };
    std::str::from_utf8(body).unwrap().split('&').map(decoded).collect()
}

/// Puts a question and gives these answers; what was asked, and the answer.
fn talk(mut dialogue: Dialogue, answers: &[&str]) -> (Vec<Ask>, Result<Vec<QuerySeries>, Error>) {
    let mut asked = Vec::new();
    let mut answers = answers.iter();
    while let Some(ask) = dialogue.next_ask() {
        asked.push(ask);
        let answer = answers.next().unwrap_or_else(|| panic!("one more request: {:?}", asked.last()));
        if let Err(error) = dialogue.feed(answer.as_bytes()).and_then(|()| dialogue.end()) {
            return (asked, Err(error));
        }
    }
    assert_eq!(answers.next(), None, "an answer nobody asked for");
    (asked, dialogue.finish())
}

#[test]
fn flux_says_what_is_asked() {
    let begin = "from(bucket: \"b\")\n  |> range(start: 2026-03-02T00:00:00Z, stop: 2026-03-02T01:00:00Z)\n  \
                 |> filter(fn: (r) => r[\"_measurement\"] == \"energy\"";
    let one = format!("{begin} and (r[\"_field\"] == \"power_watts\"))");
    let window = "|> aggregateWindow(every: 600000000000ns";
    let cases: &[(Query, String)] = &[
        (energy(), format!("{begin})")),
        (power(), one.clone()),
        (
            energy().fields(["b", "a"]).tag("t", "${x}").tag_in("u", ["", "\"\\\n"]),
            format!(
                "{begin} and (r[\"_field\"] == \"a\" or r[\"_field\"] == \"b\") and (r[\"t\"] == \"\\x24{{x}}\") and (not \
                 exists r[\"u\"] or r[\"u\"] == \"\\\"\\\\\\n\"))"
            ),
        ),
        (means(), format!("{one}\n  {window}, fn: mean, createEmpty: false, timeSrc: \"_start\")")),
        (
            means().offset(seconds(660)).limit(5),
            format!(
                "{one}\n  {window}, offset: 60000000000ns, fn: mean, createEmpty: false, timeSrc: \"_start\")\n  \
                 |> limit(n: 5)"
            ),
        ),
        (
            power().range(at(0), at(7)).aggregate(Aggregate::Mean),
            format!("{one}\n  |> aggregateWindow(every: 7000000000ns, offset: 3000000000ns, fn: mean, createEmpty: false, timeSrc: \"_start\")")
                .replace("2026-03-02T01:00:00Z", "2026-03-02T00:00:07Z"),
        ),
        // What is filled here counts for a limit.
        (
            means().fill(Fill::Previous).limit(5),
            format!("{one}\n  {window}, fn: mean, createEmpty: false, timeSrc: \"_start\")"),
        ),
        (power().limit(2).descending(), format!("{one}\n  |> tail(n: 2)")),
        // More than any answer has, and than the language can say.
        (power().limit(usize::MAX), one.clone()),
        (power().latest(), format!("{one}\n  |> last()")),
        (
            energy().window(seconds(600)).aggregate(Aggregate::Sum),
            format!(
                "import \"types\"\n{begin})\n  |> filter(fn: (r) => types.isType(v: r._value, type: \"float\") or \
                 types.isType(v: r._value, type: \"int\") or types.isType(v: r._value, type: \"uint\"))\n  {window}, fn: \
                 sum, createEmpty: false, timeSrc: \"_start\")"
            ),
        ),
    ];
    for (query, script) in cases {
        let (scripts, answer) = flux(query, &format!("{}\r\n\r\n", TYPES.split_once("\r\n\r\n").unwrap().0));
        // The latest reading is asked for as types are, and answered as they are.
        if scripts.len() > 1 || !script.ends_with("|> last()") {
            assert_eq!(answer.unwrap(), []);
        }
        assert_eq!(scripts.last().unwrap(), script, "{query:?}");
        // Where strings may be met the types are asked for first.
        for types in &scripts[..scripts.len() - 1] {
            let until = script.find("\n  |> filter(fn: (r) => types").unwrap_or(script.len());
            let parts: Vec<&str> =
                script[..until].trim_start_matches("import \"types\"\n").split(")\n  |> ").collect();
            let end = if parts.len() > 3 { ")" } else { "" };
            assert_eq!(*types, format!("{}{end}\n  |> last()", parts[..3].join(")\n  |> ")));
        }
        assert_eq!(
            scripts.len() == 1,
            query == &power().latest() || script.contains("fn: mean"),
            "{query:?}"
        );
    }
}

/// The types of two fields, of which the second holds strings.
const TYPES: &str = "#datatype,string,long,dateTime:RFC3339,double,string,string\r\n\
                     #group,false,false,false,false,true,true\r\n#default,_result,,,,,\r\n\
                     ,result,table,_time,_value,_field,_measurement\r\n\
                     ,,0,2026-03-02T00:00:00Z,4,power_watts,energy\r\n\r\n\
                     #datatype,string,long,dateTime:RFC3339,string,string,string\r\n\
                     #group,false,false,false,false,true,true\r\n#default,_result,,,,,\r\n\
                     ,result,table,_time,_value,_field,_measurement\r\n\
                     ,,1,2026-03-02T00:00:00Z,on,state,energy\r\n\r\n";

/// The scripts of a query, where only the one for types is answered with something.
fn flux(query: &Query, types: &str) -> (Vec<String>, Result<Vec<QuerySeries>, Error>) {
    let mut dialogue = Dialogue::flux(query.check().unwrap(), "my org", "b").unwrap();
    let mut scripts = Vec::new();
    while let Some(ask) = dialogue.next_ask() {
        assert_eq!(ask.target(), "/api/v2/query?org=my%20org");
        let body: serde_json::Value = serde_json::from_slice(&ask.body).unwrap();
        assert_eq!(body["dialect"]["annotations"], serde_json::json!(["datatype", "group", "default"]));
        let script = body["query"].as_str().unwrap().to_owned();
        let is_types = scripts.is_empty() && script.ends_with("|> last()");
        dialogue.feed(if is_types { types.as_bytes() } else { b"\r\n" }).unwrap();
        dialogue.end().unwrap();
        scripts.push(script);
    }
    (scripts, dialogue.finish())
}

#[test]
fn flux_asks_for_empty_strings_and_others_apart() {
    let begin = "from(bucket: \"b\")\n  |> range(start: 2026-03-02T00:00:00Z, stop: 2026-03-02T01:00:00Z)\n  \
                 |> filter(fn: (r) => r[\"_measurement\"] == \"energy\"";
    let state = " and (r[\"_field\"] == \"state\") and (r[\"k\"] == \"v\") and r[\"_value\"]";
    let energy = || energy().tag("k", "v");
    let plain = format!("{begin} and r[\"_field\"] != \"state\" and (r[\"k\"] == \"v\"))");
    let last = |query: Query| flux(&query, TYPES).0[1..].to_vec();
    let both = |end: &str| {
        [
            format!("{plain}{end}"),
            format!("{begin}{state} == \"\"){end}"),
            format!("{begin}{state} != \"\"){end}"),
        ]
    };
    assert_eq!(last(energy()), both(""));
    assert_eq!(last(energy().limit(7)), both("\n  |> limit(n: 7)"));
    let windows = || energy().window(seconds(600)).offset(seconds(60));
    let every = "every: 600000000000ns, offset: 60000000000ns";
    let counts =
        both(&format!("\n  |> aggregateWindow({every}, fn: count, createEmpty: false, timeSrc: \"_start\")"));
    assert_eq!(last(windows().aggregate(Aggregate::Count)), counts);
    let [_, empty, others] = both(&format!("\n  |> window({every})\n  |> first()"));
    let first = last(windows().aggregate(Aggregate::First));
    assert!(first[0].contains("fn: first, createEmpty: false, timeSrc: \"_start\""), "{}", first[0]);
    assert_eq!(first[1..], [empty, others]);
    // Of numbers alone no string is read; of strings alone nothing else is.
    let means = last(windows().aggregate(Aggregate::Mean));
    assert!(means.len() == 1 && means[0].contains("r[\"_field\"] != \"state\""), "{means:?}");
    assert_eq!(
        flux(&energy().field("state"), &TYPES.replace("power_watts", "state")).0.len(),
        2,
        "both types"
    );
    let strings = TYPES.split_once("\r\n\r\n").unwrap().1;
    assert_eq!(flux(&energy().field("state"), strings).0.len(), 3);
    assert_eq!(flux(&energy(), "\r\n").0.len(), 1, "nothing there");
}

#[test]
fn flux_answers_are_read() {
    let count = "#datatype,string,long,dateTime:RFC3339,long,string,string,string,string\r\n\
                 #group,false,false,false,false,true,true,true,true\r\n#default,_result,,,,,,,\r\n\
                 ,result,table,_time,_value,_field,_measurement,device_id,result\r\n\
                 ,,0,2026-03-02T00:00:00Z,4,power_watts,energy,hvac,a tag\r\n\
                 ,,1,2026-03-02T00:10:00Z,5,power_watts,energy,x,\r\n\r\n";
    let counts = power().window(seconds(600)).aggregate(Aggregate::Count);
    let (_, answer) = talk(Dialogue::flux(counts.check().unwrap(), "o", "b").unwrap(), &[count, count]);
    let expected = ["device_id=hvac,result=a tag power_watts 0:4u", "device_id=x power_watts 600:5u"];
    assert_eq!(outline(&answer.unwrap()), expected);
    // An answer without series is a line end: one of nothing did not come.
    let (_, answer) = talk(Dialogue::flux(counts.check().unwrap(), "o", "b").unwrap(), &[""]);
    let error = answer.unwrap_err();
    assert!(error.to_string().contains("did not come whole") && error.is_retryable(), "{error}");
    let late = "\r\n#datatype,string,string\r\n#group,true,true\r\n#default,,\r\n,error,reference\r\n,out of luck,\r\n";
    let (_, answer) =
        talk(Dialogue::flux(counts.check().unwrap(), "o", "b").unwrap(), &[count, &format!("{count}{late}")]);
    assert!(answer.unwrap_err().to_string().contains("out of luck"));
}

const FIELDS: &str = r#"{"results":[{"statement_id":0,"series":[{"name":"energy","columns":["fieldKey","fieldType"],
"values":[["count","integer"],["on","boolean"],["power_watts","float"],["state","string"],["total","unsigned"]]}]}]}"#;

fn influxql(query: &Query, answers: &[&str]) -> (Vec<Ask>, Result<Vec<QuerySeries>, Error>) {
    let fields = FIELDS.replace('\n', "");
    let answers: Vec<&str> = [fields.as_str()].into_iter().chain(answers.iter().copied()).collect();
    talk(Dialogue::influxql(query.check().unwrap(), "db/rp").unwrap(), &answers)
}

#[test]
fn influxql_says_what_is_asked() {
    let time = "time >= 1772409600000000000 AND time <= 1772413199999999999";
    let cases: &[(Query, String)] = &[
        (power(), format!("SELECT \"power_watts\"::field FROM \"energy\" WHERE {time} GROUP BY *")),
        (
            power().limit(usize::MAX),
            format!("SELECT \"power_watts\"::field FROM \"energy\" WHERE {time} GROUP BY *"),
        ),
        (
            means().offset(Duration::from_micros(5)),
            format!(
                "SELECT mean(\"power_watts\"::field) FROM \"energy\" WHERE {time} GROUP BY time(600s,5u), * fill(none)"
            ),
        ),
        (
            means().window(Duration::from_millis(1500)).limit(4).descending(),
            format!(
                "SELECT mean(\"power_watts\"::field) FROM \"energy\" WHERE {time} GROUP BY time(1500ms,0s), * fill(none) \
                 ORDER BY time DESC LIMIT 4"
            ),
        ),
        (
            power().tag_in("a\"b", ["it's", "\\"]).latest(),
            format!(
                "SELECT last(\"power_watts\"::field) FROM \"energy\" WHERE {time} AND (\"a\\\"b\"::tag = '\\\\' OR \
                 \"a\\\"b\"::tag = 'it\\'s') GROUP BY *"
            ),
        ),
        (
            energy().fields(["count", "none", "on"]).window(seconds(3600)).aggregate(Aggregate::Last),
            format!(
                "SELECT last(\"count\"::field) FROM \"energy\" WHERE {time} GROUP BY time(3600s,0s), * fill(none); SELECT \
                 last(\"on\"::field) FROM \"energy\" WHERE {time} GROUP BY time(3600s,0s), * fill(none)"
            ),
        ),
    ];
    for (query, statement) in cases {
        let all = r#"{"results":[{"statement_id":0},{"statement_id":1}]}"#;
        let one = r#"{"results":[{"statement_id":0}]}"#;
        let (asked, answer) = influxql(query, &[if statement.contains("; ") { all } else { one }]);
        assert_eq!(answer.unwrap(), []);
        assert_eq!(asked[0].target(), "/query?db=db&rp=rp&epoch=ns&chunked=true&chunk_size=10000");
        assert_eq!(form(&asked[0].body), ["q=SHOW FIELD KEYS FROM \"rp\".\"energy\""]);
        assert_eq!(form(&asked[1].body), [format!("q={statement}")], "{query:?}");
    }
    // What is not there is not asked for.
    let nothing: &[&str] = &[];
    assert_eq!(influxql(&energy().field("none"), nothing).1.unwrap(), []);
    let error =
        influxql(&energy().field("on").window(seconds(60)).aggregate(Aggregate::Sum), nothing).1.unwrap_err();
    assert!(error.to_string().contains("field \"on\" has no sum"), "{error}");
    let error = Dialogue::influxql(power().tag("k", "a\rb").check().unwrap(), "db").unwrap_err();
    assert!(error.is_unsupported() && error.to_string().contains("InfluxQL cannot write"), "{error}");
}

#[test]
fn influxql_answers_are_read() {
    let first = r#"{"results":[{"statement_id":0,"series":[{"name":"energy","tags":{"device_id":"hvac","room":""},"columns":["time","count"],"values":[[1772409600000000000,9007199254740993],[1772409660000000000,null]],"partial":true}]}]}"#;
    let second = r#"{"results":[{"statement_id":0,"series":[{"name":"energy","tags":{"device_id":"hvac","room":""},"columns":["time","count"],"values":[[1772409661000000000,-2]]}],"partial":true}]}"#;
    let third = r#"{"results":[{"statement_id":1,"series":[{"name":"energy","tags":{"device_id":"hvac","room":"x"},"columns":["time","on"],"values":[[1772409600000000000,true]]}]}]}
{"results":[{"statement_id":2,"series":[{"name":"energy","columns":["time","power_watts"],"values":[[1772409600000000001,12],[1772409600000000002,0.1]]}]}]}
{"results":[{"statement_id":3,"series":[{"name":"energy","columns":["time","state"],"values":[[1772409600000000000,"é\n"]]}]},{"statement_id":4,"series":[{"name":"energy","columns":["time","total"],"values":[[1772409600000000000,18446744073709551615]]}]}]}"#;
    let all = [first, second, third].join("\n");
    let expected = [
        " power_watts 0.000000001:12.0 0.000000002:0.1",
        " state 0:\"é\\n\"",
        " total 0:18446744073709551615u",
        "device_id=hvac count 0:9007199254740993i 61:-2i",
        "device_id=hvac,room=x on 0:true",
    ];
    assert_eq!(outline(&influxql(&energy(), &[&all]).1.unwrap()), expected);

    let counts = power().window(seconds(600)).aggregate(Aggregate::Count).range(at(30), at(3600));
    let answer = r#"{"results":[{"statement_id":0,"series":[{"name":"energy","columns":["time","count"],"values":[[1772409600000000000,2],[1772410200000000000,3]]}]}]}"#;
    assert_eq!(outline(&influxql(&counts, &[answer]).1.unwrap()), [" power_watts 30:2u 600:3u"]);

    let fails = |answer: &str, words: &str| {
        let error = influxql(&power(), &[answer]).1.unwrap_err();
        assert!(error.is_query_failed() && error.to_string().contains(words), "{error}");
    };
    fails(r#"{"results":[{"statement_id":0,"error":"database not found: db"}]}"#, "database not found: db");
    fails(r#"{"error":"error parsing query"}"#, "error parsing query");
    fails("<html>", "which is no JSON");
    fails("{}", "no results");
    fails("", "did not come whole");
    fails(&answer.replace("\"series\"", "\"partial\":true,\"series\""), "did not come whole");
    let error = influxql(&energy().fields(["count", "on"]), &[answer]).1.unwrap_err();
    assert!(error.to_string().contains("did not come whole") && error.is_retryable(), "{error}");
    let error = talk(Dialogue::influxql(power().check().unwrap(), "db").unwrap(), &[""]).1.unwrap_err();
    assert!(error.to_string().contains("did not come whole"), "{error}");
    fails(&answer.replace("\"statement_id\":0", "\"statement_id\":7"), "a result of no statement");
    fails(&answer.replace("1772409600000000000", "\"x\""), "a row without a time");
    fails(&answer.replace(",2]", ",\"x\"]"), "a value that is no Float");
    fails(&answer[..answer.len() - 1], "which is no JSON");
}

#[test]
fn a_field_of_several_types_is_read_as_the_one_that_the_server_answers_with() {
    // In the order of the shards; the server gives the first of float, integer, unsigned, string, boolean.
    let fields = |types: &[&str]| {
        let rows: Vec<_> = types.iter().map(|of| serde_json::json!(["power_watts", of])).collect();
        serde_json::json!({ "results": [{ "statement_id": 0, "series": [{ "values": rows }] }] }).to_string()
    };
    let cases: &[(&[&str], &str, &str)] = &[
        (&["boolean", "float"], "1.5", "1.5"),
        (&["integer", "float"], "2", "2.0"),
        (&["string", "unsigned", "integer"], "-2", "-2i"),
        (&["boolean", "string"], "\"on\"", "\"on\""),
        (&["string", "unsigned"], "3", "3u"),
    ];
    for (types, value, expected) in cases {
        let answer = format!(
            r#"{{"results":[{{"statement_id":0,"series":[{{"values":[[1772409600000000000,{value}]]}}]}}]}}"#
        );
        let dialogue = Dialogue::influxql(power().check().unwrap(), "db").unwrap();
        let found = talk(dialogue, &[&fields(types), &answer]).1.unwrap();
        assert_eq!(outline(&found), [format!(" power_watts 0:{expected}")], "{types:?}");
    }
}

const COLUMNS: &str = r#"{"column_name":"device_id","data_type":"Dictionary(Int32, Utf8)"}
{"column_name":"power_watts","data_type":"Float64"}
{"column_name":"count","data_type":"Int64"}
{"column_name":"on","data_type":"Boolean"}
{"column_name":"room","data_type":"Dictionary(Int32, Utf8)"}
{"column_name":"time","data_type":"Timestamp(Nanosecond, None)"}
"#;

fn sql(query: &Query, answers: &[&str]) -> (Vec<Ask>, Result<Vec<QuerySeries>, Error>) {
    let answers: Vec<&str> = [COLUMNS].into_iter().chain(answers.iter().copied()).collect();
    talk(Dialogue::sql(query.check().unwrap(), "db").unwrap(), &answers)
}

#[test]
fn sql_says_what_is_asked() {
    let tags = "SELECT \"device_id\" AS t0, \"room\" AS t1, CAST(";
    let from = |field: &str| {
        format!(
            "FROM \"energy\" WHERE \"time\" >= to_timestamp_nanos(1772409600000000000) AND \"time\" < \
             to_timestamp_nanos(1772413200000000000) AND \"{field}\" IS NOT NULL"
        )
    };
    let none = serde_json::json!({});
    let cases: &[(Query, String, serde_json::Value)] = &[
        (
            power(),
            format!(
                "{tags}\"time\" AS BIGINT) AS w, CAST(\"power_watts\" AS DOUBLE) AS v {}",
                from("power_watts")
            ),
            none.clone(),
        ),
        (
            means().offset(seconds(60)).tag("device_id", "it's \"x\""),
            format!(
                "{tags}date_bin(INTERVAL '600 seconds', \"time\", to_timestamp_nanos(60000000000)) AS BIGINT) AS w, \
                 CAST(avg(\"power_watts\") AS DOUBLE) AS v {} AND (\"device_id\" = $p0_0) GROUP BY 1, 2, 3",
                from("power_watts")
            ),
            serde_json::json!({ "p0_0": "it's \"x\"" }),
        ),
        (
            energy().field("on").tag_in("room", ["", "bath"]).tag("none", "").latest(),
            format!(
                "{tags}max(\"time\") AS BIGINT) AS w, last_value(\"on\" ORDER BY \"time\") AS v \
                 {} AND (\"room\" IS NULL OR \"room\" = $p0_0 OR \"room\" = $p0_1) GROUP BY 1, 2",
                from("on")
            ),
            serde_json::json!({ "p0_0": "", "p0_1": "bath" }),
        ),
        (
            energy().field("count").window(Duration::from_millis(1)).aggregate(Aggregate::First),
            format!(
                "{tags}date_bin(INTERVAL '1 milliseconds', \"time\", to_timestamp_nanos(0)) AS BIGINT) AS w, \
                 first_value(\"count\" ORDER BY \"time\") AS v {} GROUP BY 1, 2, 3",
                from("count")
            ),
            none,
        ),
    ];
    for (query, statement, params) in cases {
        let (asked, answer) = sql(query, &[""]);
        assert_eq!(answer.unwrap(), []);
        let [columns, values] =
            [&asked[0], &asked[1]].map(|a| serde_json::from_slice::<serde_json::Value>(&a.body).unwrap());
        assert_eq!(asked[1].target(), "/api/v3/query_sql");
        assert_eq!(columns["params"]["measurement"], "energy");
        assert_eq!((&values["db"], &values["format"]), (&"db".into(), &"jsonl".into()));
        assert_eq!(values["q"], *statement, "{query:?}");
        assert_eq!(values["params"], *params);
    }
    // What is not there is not asked for.
    assert_eq!(sql(&power().tag("none", "x"), &[]).1.unwrap(), []);
    assert_eq!(sql(&energy().field("none"), &[]).1.unwrap(), []);
}

#[test]
fn sql_answers_are_read() {
    let floats = r#"{"t0":"hvac","t1":"","w":1772409600000000000,"v":1.0}
{"t0":"hvac","w":1772409660000000001,"v":2}
{"t0":null,"t1":"x","w":1772409600000000000,"v":0.1}"#;
    let integers = r#"{"t0":"hvac","w":1772409600000000000,"v":9007199254740993}
{"t0":"hvac","w":1772409600000000001,"v":null}"#;
    let booleans = r#"{"w":1772409600000000000,"v":true}"#;
    let expected = [
        " on 0:true",
        "device_id=hvac count 0:9007199254740993i",
        "device_id=hvac power_watts 0:1.0 60.000000001:2.0",
        "room=x power_watts 0:0.1",
    ];
    assert_eq!(outline(&sql(&energy(), &[floats, integers, booleans]).1.unwrap()), expected);
    // The newest of no rows at all.
    assert_eq!(sql(&power().latest(), &[r#"{"w":null,"v":null}"#]).1.unwrap(), []);
    let fails = |answer: &str, words: &str| {
        let error = sql(&power(), &[answer]).1.unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
    };
    fails(r#"{"error":"no such table"}"#, "no such table");
    fails(r#"{"v":1.5}"#, "a row without a time");
    // Nulls are left out; what is there must be of a row.
    assert_eq!(sql(&power(), &["{}\n"]).1.unwrap(), []);
    fails(r#"{"code":"internal error","message":"x"}"#, "a row of something else");
    fails("[]", "a row of something else");
    fails("5", "a row of something else");
    fails(r#"{"w":1772409600000000000,"v":"x"}"#, "a value that is no Float");
}

fn metricsql(query: &Query, answers: &[&str]) -> (Vec<Ask>, Result<Vec<QuerySeries>, Error>) {
    talk(Dialogue::metricsql(query.check().unwrap(), Some("db")).unwrap(), answers)
}

type PathAndForm = (&'static str, Vec<String>);

#[test]
fn metricsql_says_what_is_asked() {
    let power_of = "{__name__=\"energy_power_watts\",_measurement=~\"energy|\",db=\"db\"";
    let start = "start=1772409600.000";
    let lines = ["reduce_mem_usage=1", "max_rows_per_line=10000"];
    let export = |selector: &str| {
        let head = [format!("match[]={selector}"), start.into(), "end=1772413199.999".into()];
        head.into_iter().chain(lines.map(str::to_owned)).collect::<Vec<_>>()
    };
    let windows = |function: &str, last_ms: i64, length_ms: i64, step_ms: i64, count: i64| {
        // The first window is asked for a day and its length after the epoch, and looks ahead from there.
        let from = 86_400_000 + length_ms;
        let second = |ms: i64| format!("{}.{:03}", ms / 1000, ms % 1000);
        vec![
            format!(
                "query={function}({power_of}}}[{length_ms}ms] offset -{}ms) keep_metric_names",
                DAY * 1000 + last_ms - from
            ),
            format!("start={}", second(from)),
            format!("end={}", second(from + step_ms * (count - 1))),
            format!("step={step_ms}ms"),
            "nocache=1".to_owned(),
        ]
    };
    let part = |of: Query| {
        of.aggregate(Aggregate::Max).range(at(30), Timestamp::from_nanos((DAY + 2000) * SECOND + 1))
    };
    let cut = part(means());
    let whole = part(power());
    let last = |part: &str| format!("{part}({power_of}}}[3600000ms]) keep_metric_names");
    let marked = |of: &str, name: &str| format!("label_set({of}, \"__graylogic_part__\", \"{name}\")");
    let latest = format!(
        "query=union({}, {})",
        marked(&last("last_over_time"), "value"),
        marked(&last("tlast_over_time"), "time")
    );
    let cases: Vec<(Query, Vec<PathAndForm>)> = vec![
        (power(), vec![("/api/v1/export", export(&format!("{power_of}}}")))]),
        (
            Query::measurement("a.b").range(at(0), at(3600)).tag("odd key\\", "\"\n").tag("größe", "x"),
            vec![(
                "/api/v1/export",
                export(
                    "{__name__=~\"a\\\\.b_.+\",_measurement=~\"a\\\\.b|\",db=\"db\",odd\\x20key\\x5c=\"\\\"\\x0a\"}",
                ),
            )],
        ),
        (
            energy().fields(["a|b", "c"]).tag_in("k", ["", "x.y"]),
            vec![(
                "/api/v1/export",
                export(
                    "{__name__=~\"energy_a\\\\|b|energy_c\",_measurement=~\"energy|\",db=\"db\",k=~\"|x\\\\.y\"}",
                ),
            )],
        ),
        (means(), vec![("/api/v1/query_range", windows("avg_over_time", 599_999, 600_000, 600_000, 6))]),
        (
            cut,
            vec![
                ("/api/v1/query_range", windows("max_over_time", 599_999, 570_000, 600_000, 1)),
                ("/api/v1/query_range", windows("max_over_time", 1_199_999, 600_000, 600_000, 2)),
                // The first whole millisecond after the range ends it.
                ("/api/v1/query_range", windows("max_over_time", 2_000_000, 200_001, 600_000, 1)),
            ],
        ),
        // No reading is in the rest of a millisecond.
        (whole, vec![("/api/v1/query_range", windows("max_over_time", 2_000_000, 1_970_001, 1_970_001, 1))]),
        (
            power().latest(),
            vec![("/api/v1/query", vec![latest, "time=1772413199.999".into(), "nocache=1".into()])],
        ),
    ];
    for (query, expected) in cases {
        let nothing = r#"{"status":"success","data":{"resultType":"matrix","result":[]}}"#;
        let answers = vec![if expected[0].0 == "/api/v1/export" { "" } else { nothing }; expected.len()];
        let (asked, answer) = metricsql(&query, &answers);
        assert_eq!(answer.unwrap(), []);
        let asked: Vec<(&str, Vec<String>)> = asked.iter().map(|a| (a.path, form(&a.body))).collect();
        assert_eq!(asked, expected, "{query:?}");
    }
    let fails = |query: Query, words: &str| {
        let error = Dialogue::metricsql(query.check().unwrap(), Some("db")).unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
    };
    fails(means().window(Duration::from_micros(1500)), "give windows and an offset of whole milliseconds");
    fails(means().offset(Duration::from_nanos(1)), "give windows and an offset of whole milliseconds");
    // A tag whose label has another name is looked for in the answer.
    for tag in ["db", "__name__", "tag_db"] {
        let (asked, _) = metricsql(&power().tag(tag, "x"), &[""]);
        assert_eq!(form(&asked[0].body)[0], format!("match[]={power_of}}}"));
    }
    assert!(Dialogue::metricsql(power().tag("db", "x").check().unwrap(), None).is_ok());
    // Before what the server keeps.
    let old = power().range(Timestamp::from_nanos(0), Timestamp::from_nanos(86_400 * SECOND));
    assert_eq!(metricsql(&old, &[]).1.unwrap(), []);
}

#[test]
fn metricsql_tells_apart_what_has_one_name_and_joins_what_an_earlier_version_wrote() {
    let line = |labels: &str, value: f64, ms: i64| {
        format!(
            r#"{{"metric":{{"__name__":"energy_power_watts","db":"db"{labels}}},"values":[{value}],"timestamps":[{}]}}"#,
            DAY * 1000 + ms
        )
    };
    let mine = r#","_measurement":"energy","room":"a""#;
    // Present and earlier version are one series; a moved tag comes back.
    let both = [line(mine, 2.0, 2000), line(r#","room":"a""#, 1.0, 1000)].join("\n");
    assert_eq!(outline(&metricsql(&power(), &[&both]).1.unwrap()), ["room=a power_watts 1:1.0 2:2.0"]);
    let moved = line(r#","_measurement":"energy","tag_db":"x","tag_tag_db":"y","tag___name__":"z""#, 1.0, 0);
    assert_eq!(
        outline(&metricsql(&power(), &[&moved]).1.unwrap()),
        ["__name__=z,db=x,tag_db=y power_watts 0:1.0"]
    );
    assert_eq!(metricsql(&power().tag("db", "other"), &[&moved]).1.unwrap(), []);
    assert_eq!(metricsql(&power().tag("db", "x"), &[&moved]).1.unwrap().len(), 1);
    // Another measurement's, which was not asked for.
    let other = line(r#","_measurement":"energy_power""#, 1.0, 0);
    assert!(metricsql(&power(), &[&other]).1.unwrap_err().to_string().contains("which was not asked for"));

    // A window that both have a part of: the mean needs the counts.
    let matrix = |series: &[(&str, &str)]| {
        let series: Vec<String> = series
            .iter()
            .map(|(labels, points)| {
                format!(r#"{{"metric":{{"__name__":"energy_power_watts","db":"db"{labels}}},"values":[{points}]}}"#)
            })
            .collect();
        format!(r#"{{"status":"success","data":{{"resultType":"matrix","result":[{}]}}}}"#, series.join(","))
    };
    let mine = r#","_measurement":"energy""#;
    let values = matrix(&[("", r#"[87000,"3"],[87600,"4"]"#), (mine, r#"[87600,"10"],[88200,"7"]"#)]);
    let counts = matrix(&[("", r#"[87000,"9"],[87600,"2"]"#), (mine, r#"[87600,"1"],[88200,"5"]"#)]);
    let (asked, answer) = metricsql(&means(), &[&values, &counts]);
    assert_eq!(outline(&answer.unwrap()), [" power_watts 0:3.0 600:6.0 1200:7.0"]);
    let query_of = |ask: &Ask| form(&ask.body).into_iter().find(|p| p.starts_with("query=")).unwrap();
    assert!(query_of(&asked[0]).starts_with("query=avg_over_time("));
    assert!(query_of(&asked[1]).starts_with("query=count_over_time("));
    // The latest is that of both.
    let latest = |part: &str, labels: &str, value: &str| {
        format!(
            r#"{{"metric":{{"__name__":"energy_power_watts","__graylogic_part__":"{part}","db":"db"{labels}}},"value":[1772413199.999,"{value}"]}}"#
        )
    };
    let found = [
        latest("value", "", "1"),
        latest("time", mine, "1772409720"),
        latest("time", "", "1772409660"),
        latest("value", mine, "2"),
    ];
    let found = format!(r#"{{"data":{{"result":[{}]}}}}"#, found.join(","));
    assert_eq!(outline(&metricsql(&power().latest(), &[&found]).1.unwrap()), [" power_watts 120:2.0"]);
}

#[test]
fn metricsql_answers_are_read() {
    let export = r#"{"metric":{"__name__":"energy_power_watts","db":"db","device_id":"hvac"},"values":[2,null],"timestamps":[1772409660001,1772409660002]}
{"metric":{"__name__":"energy_on","db":"db"},"values":[1],"timestamps":[1772409600000]}
{"metric":{"__name__":"energy_power_watts","db":"db","device_id":"hvac"},"values":[0.1],"timestamps":[1772409600000]}
"#;
    let expected = [" on 0:1.0", "device_id=hvac power_watts 0:0.1 60.001:2.0"];
    assert_eq!(outline(&metricsql(&energy(), &[export]).1.unwrap()), expected);

    let series = |points: &str| {
        format!(
            r#"{{"status":"success","data":{{"resultType":"matrix","result":[{{"metric":{{"__name__":"energy_power_watts","db":"db"}},"values":[{points}]}}]}}}}"#
        )
    };
    // The second window begins 600 s after the epoch's second day and the first window's length.
    let counts = power().window(seconds(600)).aggregate(Aggregate::Count);
    let points = series(r#"[87000,"2"],[87600,"7"]"#);
    assert_eq!(outline(&metricsql(&counts, &[&points]).1.unwrap()), [" power_watts 0:2u 600:7u"]);
    let cut = [series(r#"[86970,"2.5"]"#), series(r#"[87000,"1"],[87600,"3"]"#), series(r#"[86600,"NaN"]"#)];
    let cut: Vec<&str> = cut.iter().map(String::as_str).collect();
    let sums = means().aggregate(Aggregate::Sum).range(at(30), at(2000));
    assert_eq!(outline(&metricsql(&sums, &cut).1.unwrap()), [" power_watts 30:2.5 600:1.0 1200:3.0"]);

    let part = |name: &str, part: &str, value: &str| {
        format!(
            r#"{{"metric":{{"__name__":"energy_{name}","__graylogic_part__":"{part}","db":"db"}},"value":[1772413199.999,"{value}"]}}"#
        )
    };
    let vector = |parts: &[String]| {
        format!(r#"{{"status":"success","data":{{"resultType":"vector","result":[{}]}}}}"#, parts.join(","))
    };
    let both = [
        part("a", "time", "1772409600.123"),
        part("b", "value", "7"),
        part("a", "value", "-1.5"),
        part("b", "time", "1772409600"),
    ];
    let answer = metricsql(&energy().latest(), &[&vector(&both)]).1.unwrap();
    assert_eq!(outline(&answer), [" a 0.123:-1.5", " b 0:7.0"]);
    let error = metricsql(&energy().latest(), &[&vector(&both[..2])]).1.unwrap_err();
    assert!(error.to_string().contains("a value without its time"), "{error}");

    // A range of centuries: the server is asked first where its data are.
    let hours = power()
        .range(Timestamp::from_nanos(0), Timestamp::MAX)
        .window(seconds(3600))
        .aggregate(Aggregate::Last);
    let bounds = vector(&[
        r#"{"metric":{"__graylogic_part__":"first"},"value":[9223372035.999,"1772409600.5"]}"#.to_owned(),
        r#"{"metric":{"__graylogic_part__":"last"},"value":[9223372035.999,"1772415000"]}"#.to_owned(),
    ]);
    let points = series(r#"[90000,"2"],[93600,"7"]"#);
    let (asked, answer) = metricsql(&hours, &[&bounds, &points]);
    assert_eq!(outline(&answer.unwrap()), [" power_watts 0:2.0 3600:7.0"]);
    assert_eq!(form(&asked[1].body)[1..3], ["start=90000.000", "end=93600.000"]);
    assert_eq!(metricsql(&hours, &[&vector(&[])]).1.unwrap(), []);

    let fails = |answer: &str, words: &str| {
        let error = metricsql(&counts, &[answer]).1.unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
    };
    fails(r#"{"status":"error","errorType":"422","error":"too many series"}"#, "too many series");
    fails(&points.replace("energy_", "other_"), "the metric \"other_power_watts\", which was not asked for");
    fails(r#"{"status":"success","data":{}}"#, "no result");
    fails("", "did not come whole");
    // A part of a cluster did not answer.
    fails(&points.replace("\"data\"", "\"isPartial\":true,\"data\""), "a part of it");
    let complete = points.replace("\"data\"", "\"isPartial\":false,\"data\"");
    assert!(metricsql(&counts, &[&complete]).1.is_ok());
    fails(&series(r#"["x","2"]"#), "a value that is no number");
}

#[test]
fn a_refusal_has_the_servers_words() {
    let dialogue = || Dialogue::sql(power().check().unwrap(), "db").unwrap();
    let cases = [
        (404, r#"{"code":"not found","message":"no bucket \"b\""}"#, "no bucket \"b\"", false),
        (422, r#"{"status":"error","errorType":"422","error":"cannot parse"}"#, "cannot parse", false),
        (503, "come back", "come back", true),
        (500, "", "500", true),
    ];
    for (status, body, words, passes) in cases {
        let error = dialogue().refused(status, body.as_bytes());
        assert!(error.is_query_failed() && error.to_string().contains(words), "{error}");
        assert_eq!(error.is_retryable(), passes, "{error}");
    }
}

#[test]
fn influxql_asks_where_is_written_to() {
    for (bucket, target) in [
        ("db", "/query?db=db&epoch=ns"),
        ("db/rp", "/query?db=db&rp=rp&epoch=ns"),
        ("db/", "/query?db=db%2F&epoch=ns"),
        ("/rp", "/query?db=%2Frp&epoch=ns"),
    ] {
        let mut dialogue = Dialogue::influxql(power().check().unwrap(), bucket).unwrap();
        let asked = dialogue.next_ask().unwrap().target();
        assert!(asked.starts_with(&format!("{target}&")), "{bucket}: {asked}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn an_answer_reads_the_same_wherever_it_is_cut(length in 1..200usize) {
        let answer = "{\"results\":[{\"statement_id\":0,\"series\":[{\"name\":\"energy\",\"tags\":{\"k\":\"é\"},\
                      \"values\":[[1772409600000000000,1.5]]}]}]}\n\n{\"results\":[{\"statement_id\":0,\"series\":[{\"name\":\
                      \"energy\",\"tags\":{\"k\":\"é\"},\"values\":[[1772409601000000000,2]]}]}]}";
        let mut dialogue = Dialogue::influxql(power().check().unwrap(), "db").unwrap();
        for answer in [FIELDS.replace('\n', "").as_str(), answer] {
            prop_assert!(dialogue.next_ask().is_some());
            for piece in answer.as_bytes().chunks(length) {
                dialogue.feed(piece).unwrap();
            }
            dialogue.end().unwrap();
        }
        prop_assert_eq!(outline(&dialogue.finish().unwrap()), ["k=é power_watts 0:1.5 1:2.0"]);
    }

    /// Whatever a server sends is an answer or an error.
    #[test]
    fn no_answer_panics(
        kind in 0..6usize,
        place in any::<prop::sample::Index>(),
        length in 0..30usize,
        with in "[0-9e+\"\\\\\\[\\]{},.:-]{0,20}",
    ) {
        let fields = FIELDS.replace('\n', "");
        let metric = r#"{"metric":{"__name__":"energy_power_watts","__graylogic_part__":"time"},"value":[1,"2"],"values":[[86400.5,"3"]]}"#;
        let prometheus = format!(r#"{{"status":"success","data":{{"result":[{metric},{metric}]}}}}"#);
        let rows = r#"{"results":[{"statement_id":0,"series":[{"tags":{"k":"v"},"values":[[1772409600000000000,1.5]]}]}]}"#;
        let csv = "#datatype,string,long,dateTime:RFC3339,double,string\n#group,false,false,false,false,true\n\
                   #default,_result,,,,\n,result,table,_time,_value,_field\n,,0,2026-03-02T00:00:00Z,4,power_watts\n";
        let answers = [
            vec![csv],
            vec![&fields, rows],
            vec![COLUMNS, r#"{"t0":"hvac","w":1772409600000000000,"v":1.0}"#],
            vec![&prometheus],
            vec![&prometheus],
            vec![&prometheus, &prometheus],
        ];
        let all = Query::measurement("energy").range(Timestamp::from_nanos(0), Timestamp::MAX);
        let query = match kind {
            4 => all.latest(),
            5 => all.window(seconds(60)).aggregate(Aggregate::Count),
            _ => means(),
        };
        let query = query.check().unwrap();
        let mut dialogue = match kind {
            0 => Dialogue::flux(query, "o", "b"),
            1 => Dialogue::influxql(query, "b"),
            2 => Dialogue::sql(query, "b"),
            _ => Dialogue::metricsql(query, None),
        }
        .unwrap();
        let changed = place.index(answers[kind].len());
        for (i, answer) in answers[kind].iter().enumerate() {
            let mut bytes = answer.as_bytes().to_vec();
            if i == changed {
                let from = place.index(bytes.len());
                let to = (from + length).min(bytes.len());
                bytes.splice(from..to, with.bytes());
            }
            if dialogue.next_ask().is_none() || dialogue.feed(&bytes).and_then(|()| dialogue.end()).is_err() {
                return Ok(());
            }
        }
        if dialogue.next_ask().is_none() {
            let _said = dialogue.finish();
        }
    }
}
