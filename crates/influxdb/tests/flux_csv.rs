//! Answers to Flux queries as they stream: cut anywhere, read the same; what a real InfluxDB 2.8 answered, judged by
//! another reader of CSV; and rows as the caller's types.
#![allow(clippy::unwrap_used, missing_docs)]

use graylogic_influxdb::{FluxColumn, FluxItem, FluxReader, FluxRecord, FluxType, FluxValue, Timestamp};
use proptest::prelude::*;
use serde::Deserialize;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

/// Everything an answer brings, in order, up to its error.
#[derive(Debug, Default)]
struct Seen {
    items: Vec<FluxItem>,
    error: Option<String>,
}

impl Seen {
    fn rows(&self) -> impl Iterator<Item = &FluxRecord> {
        self.items.iter().filter_map(|i| if let FluxItem::Record(row) = i { Some(row) } else { None })
    }

    /// As text, in which a NaN equals itself.
    fn outline(&self) -> Vec<String> {
        let items = self.items.iter().map(|item| match item {
            FluxItem::Table(table) => {
                let columns = table.columns().iter().map(|c| {
                    let group = if c.is_group() { "*" } else { "" };
                    let default =
                        if c.default().is_null() { String::new() } else { format!("={}", text(c.default())) };
                    format!("{}:{}{group}{default}", c.name(), c.datatype())
                });
                let number = table.number().map_or("?".to_owned(), |n| n.to_string());
                let columns = columns.collect::<Vec<_>>().join(" ");
                format!("table {} {number} [{columns}]", table.result())
            }
            FluxItem::Record(row) => {
                let values: Vec<String> =
                    row.iter().map(|(_, v)| if v.is_null() { "null".to_owned() } else { text(v) }).collect();
                format!("row {}: {}", row.line(), values.join("|"))
            }
            other => panic!("{other:?}"),
        });
        items.chain(self.error.iter().map(|e| format!("error: {e}"))).collect()
    }
}

/// A value as servers write it.
fn text(value: &FluxValue) -> String {
    match value {
        FluxValue::Null => String::new(),
        FluxValue::String(v) => v.to_string(),
        FluxValue::Long(v) => v.to_string(),
        FluxValue::UnsignedLong(v) => v.to_string(),
        FluxValue::Double(v) if *v == f64::INFINITY => "+Inf".to_owned(),
        FluxValue::Double(v) if *v == f64::NEG_INFINITY => "-Inf".to_owned(),
        FluxValue::Double(v) => v.to_string(),
        FluxValue::Boolean(v) => v.to_string(),
        FluxValue::Time(v) => v.to_string(),
        FluxValue::Duration(v) => format!("{v}ns"),
        FluxValue::Binary(v) => format!("{v:?}"),
        other => panic!("{other:?}"),
    }
}

/// Reads an answer in pieces, whose sizes come in turn.
fn read(has_headers: bool, answer: &[u8], sizes: &[usize]) -> Seen {
    let mut reader = if has_headers { FluxReader::new() } else { FluxReader::without_headers() };
    let mut seen = Seen::default();
    let mut rest = answer;
    let mut sizes = sizes.iter().cycle();
    loop {
        let (piece, after) = rest.split_at(rest.len().min(*sizes.next().unwrap()));
        reader.feed(piece).unwrap();
        rest = after;
        if rest.is_empty() {
            reader.finish();
        }
        loop {
            match reader.next_item() {
                Ok(Some(item)) => seen.items.push(item),
                Ok(None) => break,
                Err(error) => {
                    assert!(error.is_query_failed() && seen.error.is_none());
                    seen.error = Some(error.to_string());
                }
            }
            assert!(seen.items.len() <= answer.len() + 2, "a reader without end");
        }
        if rest.is_empty() {
            return seen;
        }
    }
}

fn check(answer: &str, expected: &[&str]) {
    for sizes in [&[usize::MAX][..], &[1], &[2, 5, 3]] {
        assert_eq!(read(true, answer.as_bytes(), sizes).outline(), expected, "{answer:?} in {sizes:?}");
    }
}

const NOTHING: &[&str] = &[];

#[test]
fn blocks_headers_and_annotations_are_told_apart() {
    check("", NOTHING);
    check("\r\n", NOTHING);
    check("\n\n\r\n", NOTHING);
    let two = ["table a 0 [result:string table:string x:string]", "row 2: a|0|1"];
    check(",result,table,x\r\n,a,0,1\r\n\r\n", &two);
    check(",result,table,x\n,a,0,1\n", &two);
    // One block holds several tables; another block begins another, whatever its number.
    check(
        "#datatype,string,long,long\n#default,r,,\n,result,table,x\n,,0,1\n,,0,2\n,,1,3\n\n,result,table,x\n,r,1,4\n",
        &[
            "table r 0 [result:string=r table:long x:long]",
            "row 4: r|0|1",
            "row 5: r|0|2",
            "table r 1 [result:string=r table:long x:long]",
            "row 6: r|1|3",
            "table r 1 [result:string table:string x:string]",
            "row 9: r|1|4",
        ],
    );
    // Any order, any subset, another result without an empty line before it.
    check(
        "#default,a,,7\n#group,false,false,true\n#datatype,string,long,long\n,result,table,x\n,,0,\n#later,1\n#group,false,false,true\n,result,table,x\n,b,0,\n",
        &[
            "table a 0 [result:string=a table:long x:long*=7]",
            "row 5: a|0|7",
            "table b 0 [result:string table:string x:string*]",
            "row 9: b|0|null",
        ],
    );
    // Tables without rows, with and without the annotation that says which they are.
    check(
        "#datatype,string,long,string\n#group,false,false,true\n#default,a,3,k\n,result,table,key\n\n,result,table,key\n\n",
        &[
            "table a 3 [result:string=a table:long=3 key:string*=k]",
            "table  ? [result:string table:string key:string]",
        ],
    );
}

#[test]
fn quotes_hold_delimiters_line_ends_and_quotes() {
    let head = ",result,table,x\n,a,0,";
    let table = "table a 0 [result:string table:string x:string]";
    for (cell, value) in [
        ("\"\"", "null"),
        ("\"x\"", "x"),
        ("\"a,b\"", "a,b"),
        ("\"a\nb\"", "a\nb"),
        ("\"a\r\nb\"", "a\nb"),
        ("\"a\rb\"", "a\rb"),
        ("a\rb", "a\rb"),
        ("\"\"\"\"", "\""),
        ("\"say \"\"hi\"\"\"", "say \"hi\""),
        (" x ", " x "),
        ("#x", "#x"),
        ("\\n", "\\n"),
        ("ü€", "ü€"),
    ] {
        for end in ["\n", "\r\n"] {
            check(&format!("{head}{cell}{end}"), &[table, &format!("row 2: a|0|{value}")]);
        }
    }
    // The line of a row counts the line ends within quotes.
    check(&format!("{head}\"\n\n\"\n,a,0,y\n"), &[table, "row 2: a|0|\n\n", "row 5: a|0|y"]);
    let seen = read(true, b",result,table,x\n,a,0,gr\xfcn\n", &[1]);
    assert_eq!(seen.outline(), [table, "row 2: a|0|gr\u{fffd}n"]);
}

#[test]
fn every_datatype_has_its_values() {
    for (datatype, cell, value) in [
        ("string", "7", FluxValue::from("7")),
        ("long", "-9223372036854775808", FluxValue::Long(i64::MIN)),
        ("unsignedLong", "18446744073709551615", FluxValue::UnsignedLong(u64::MAX)),
        ("double", "1000000000000000000000", FluxValue::Double(1e21)),
        ("double", "+Inf", FluxValue::Double(f64::INFINITY)),
        ("double", "-Inf", FluxValue::Double(f64::NEG_INFINITY)),
        ("boolean", "true", FluxValue::Boolean(true)),
        ("boolean", "false", FluxValue::Boolean(false)),
        ("dateTime:RFC3339", "1970-01-01T00:00:01Z", FluxValue::Time(Timestamp::from_nanos(1_000_000_000))),
        ("dateTime:RFC3339Nano", "1970-01-01T00:00:00.000000001Z", FluxValue::Time(Timestamp::from_nanos(1))),
        ("duration", "1m1ns", FluxValue::Duration(60_000_000_001)),
        ("base64Binary", "Zm9v", FluxValue::Binary(b"foo".to_vec())),
        ("base64Binary", "", FluxValue::Null),
    ] {
        for (default, cell) in [("", cell), (cell, "")] {
            let answer = format!("#datatype,{datatype},long\n#default,{default},\n,x,y\n,{cell},1\n");
            let tables = FluxReader::read_all(answer.as_bytes()).unwrap();
            assert_eq!(tables[0].rows()[0].get("x"), Some(&value), "{answer}");
            assert!(value.datatype().is_none_or(|d| d == tables[0].columns()[0].datatype()));
        }
    }
    let answer = "#datatype,double\n,x\n,NaN\n";
    let tables = FluxReader::read_all(answer.as_bytes()).unwrap();
    assert!(tables[0].rows()[0].get("x").unwrap().as_f64().unwrap().is_nan());
}

#[test]
fn what_is_wrong_is_said_with_its_line_and_ends_the_answer() {
    let typed = |datatype: &str, cell: &str| format!("#datatype,{datatype}\n,x\n,{cell}\n,1\n");
    for (answer, expected) in [
        (typed("long", "1.5"), "line 3: column \"x\": \"1.5\" is no long"),
        (typed("unsignedLong", "-1"), "line 3: column \"x\": \"-1\" is no unsignedLong"),
        (typed("double", "warm"), "line 3: column \"x\": \"warm\" is no double"),
        (typed("boolean", "yes"), "line 3: column \"x\": \"yes\" is no boolean"),
        (typed("dateTime:RFC3339", "today"), "line 3: column \"x\": \"today\" is no dateTime:RFC3339"),
        (
            typed("dateTime:RFC3339", "2300-01-01T00:00:00Z"),
            "line 3: column \"x\": \"2300-01-01T00:00:00Z\" is no time between the years 1677 and 2262",
        ),
        (typed("duration", "1mo"), "line 3: column \"x\": \"1mo\" is no duration"),
        (typed("base64Binary", "Zg"), "line 3: column \"x\": \"Zg\" is no base64Binary"),
        (typed("decimal", "1"), "line 2: column \"x\" is of the unknown datatype \"decimal\""),
        (
            "#group,maybe\n,x\n".into(),
            "line 2: the annotation #group of column \"x\" is neither true nor false: \"maybe\"",
        ),
        ("#datatype,long\n#default,a\n,x\n".into(), "line 3: the default of column \"x\": \"a\" is no long"),
        (
            "#datatype,long\n,x,y\n".into(),
            "line 2: the annotation #datatype is for 1 columns, and there are 2",
        ),
        (",x,y\n,1\n".into(), "line 2: the row has 1 cells for 2 columns"),
        (",x\n,1,2\n".into(), "line 2: the row has 2 cells for 1 columns"),
        ("#datatype,long\n\n".into(), "line 2: annotations without a header: it did not come whole"),
        ("#datatype,long\n".into(), "line 2: annotations without a header: it did not come whole"),
        ("{\"code\":\"x\"}\n".into(), "line 1: a quote within a cell that is not quoted"),
        ("<html>\n".into(), "line 1: it is no annotated CSV: \"<html>\""),
        (",x\n,\"a\"b\n".into(), "line 2: text after the end of a quoted cell"),
        (",x\n,\"a\"\rb\n".into(), "line 2: text after the end of a quoted cell"),
        (",x\n,a\"b\n".into(), "line 2: a quote within a cell that is not quoted"),
        (",x\n\n,y\n,\"\n".into(), "it ends in the middle of line 4: it did not come whole"),
        (",x\n,1".into(), "it ends in the middle of line 2: it did not come whole"),
        (",x".into(), "it ends in the middle of line 1: it did not come whole"),
    ] {
        let expected = format!("read the answer: {expected}");
        for sizes in [&[usize::MAX][..], &[1]] {
            let seen = read(true, answer.as_bytes(), sizes);
            assert_eq!(seen.error.as_deref(), Some(&*expected), "{answer:?}");
            assert_eq!(seen.rows().count(), 0, "{answer:?}");
        }
    }
    let long = typed("long", &"é".repeat(100));
    let error = FluxReader::read_all(long.as_bytes()).unwrap_err().to_string();
    assert_eq!(error, format!("read the answer: line 3: column \"x\": \"{}\"… is no long", "é".repeat(60)));
}

#[test]
fn an_error_table_is_an_error_after_the_rows_before_it() {
    let rows = ",result,table,x\n,a,0,1\n\n";
    let head = ["table a 0 [result:string table:string x:string]", "row 2: a|0|1"];
    for (table, expected) in [
        (",error,reference\n,no more,\n", "no more"),
        (",error,reference\n,\"a, \"\"b\"\"\",897\n,second,\n", "a, \"b\" (reference 897)"),
        (
            "#datatype,string,string\n#group,true,true\n#default,,\n,error,reference\n,no more,1\n",
            "no more (reference 1)",
        ),
        (",error\n,alone\n\n,x\n,1\n", "alone"),
        (",error,reference\n,,\n", "it did not say why"),
    ] {
        let error = format!("error: read the answer: the server broke it off: {expected}");
        check(&format!("{rows}{table}"), &[head[0], head[1], &error]);
    }
    for end in ["", "\n", "#datatype,long\n"] {
        let error = "error: read the answer: the server broke it off and did not say why";
        check(&format!("{rows},error,reference\n{end}"), &[head[0], head[1], error]);
    }
    let long = format!(",error,reference\n,{},\n", "long ".repeat(1 << 18));
    assert!(FluxReader::read_all(long.as_bytes()).unwrap_err().to_string().len() < 5000);
    let mut reader = FluxReader::new();
    reader.feed(format!("{rows},error,reference\n,no,\n").as_bytes()).unwrap();
    let mut tables = Vec::new();
    assert!(reader.take_tables(&mut tables).unwrap_err().is_query_failed());
    assert_eq!(tables[0].rows().len(), 1);
    // After that nothing comes, and what is fed is let go.
    reader.feed(rows.as_bytes()).unwrap();
    reader.finish();
    assert_eq!(reader.next_record().unwrap(), None);
}

#[test]
fn without_headers_columns_have_no_names_and_errors_still_have() {
    let check = |answer: &str, expected: &[&str]| {
        assert_eq!(read(false, answer.as_bytes(), &[1]).outline(), expected, "{answer}");
    };
    check(
        ",error,0,1\n\n,a,0,x\n\n,error,reference\n,no,\n",
        &[
            "table error 0 [result:string table:string :string]",
            "row 1: error|0|1",
            "table a 0 [result:string table:string :string]",
            "row 3: a|0|x",
            "error: read the answer: the server broke it off: no",
        ],
    );
    check(
        "#datatype,string,long,long\n#default,a,,\n,,0,5\n\n#datatype,string,long,long\n#default,a,1,6\n\n",
        &[
            "table a 0 [result:string=a table:long :long]",
            "row 3: a|0|5",
            "table a 1 [result:string=a table:long=1 :long=6]",
        ],
    );
}

#[test]
fn a_record_without_end_is_refused_and_so_are_bytes_that_nobody_takes() {
    for start in [&b",result,table,x\n,a,0,"[..], b",result,table,x\n,a,0,\""] {
        let mut reader = FluxReader::new();
        reader.feed(start).unwrap();
        let piece = vec![b'x'; 1 << 20];
        let refused = (0..200).find_map(|_| {
            reader.feed(&piece).unwrap();
            reader.next_record().err()
        });
        let message = refused.unwrap().to_string();
        assert_eq!(message, "read the answer: line 2: the record is longer than 64 MiB");
    }
    let wide = format!("{}\n", ",".repeat(100_000));
    let error = FluxReader::read_all(wide.as_bytes()).unwrap_err().to_string();
    assert_eq!(error, "read the answer: line 1: the record has more than 100000 cells");
    let mut reader = FluxReader::new();
    let piece = ",\n".repeat(1 << 19);
    let refused = (0..200).find_map(|i| reader.feed(piece.as_bytes()).err().map(|e| (i, e)));
    let (pieces, error) = refused.unwrap();
    assert_eq!((pieces, error.is_query_failed()), (65, true));
    // What was fed before is still there to be taken.
    assert!(reader.next_record().unwrap().is_some());
}

#[test]
fn rows_that_follow_each_other_share_their_texts() {
    let tables = FluxReader::read_all(b",result,table,room\n,a,0,hall\n,a,0,hall\n,a,1,attic\n").unwrap();
    let text = |table: usize, row: usize| match tables[table].rows()[row].get("room") {
        Some(FluxValue::String(text)) => text.clone(),
        other => panic!("{other:?}"),
    };
    assert!(std::sync::Arc::ptr_eq(&text(0, 0), &text(0, 1)));
    assert_eq!(&*text(1, 0), "attic");
}

/// Name, datatype and text of each cell of a row.
type Cells = Vec<(String, String, String)>;

/// What another reader of CSV finds in an answer: of each row the names, types and texts of its cells, and how many
/// tables there are. Written from the description of the format, with no part of the client.
fn other_reading(has_headers: bool, answer: &[u8]) -> (Vec<Cells>, usize, Option<String>) {
    let mut reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(answer);
    let (mut rows, mut tables, mut error) = (Vec::new(), 0, None);
    let mut annotations: HashMap<String, Vec<String>> = HashMap::new();
    let mut names: Option<Vec<String>> = None;
    let (mut was_annotation, mut is_error) = (false, false);
    // The table of the row before, `None` directly behind a header.
    let mut table: Option<(String, String)> = None;
    for record in reader.records() {
        let cells: Vec<String> = record.unwrap().iter().map(|c| c.replace("\r\n", "\n")).collect();
        if is_error {
            error = Some(cells[1].clone());
            break;
        }
        if cells[0].starts_with('#') {
            if !was_annotation {
                annotations.clear();
                names = None;
                table = None;
            }
            was_annotation = true;
            annotations.insert(cells[0].clone(), cells[1..].to_vec());
            continue;
        }
        was_annotation = false;
        if cells[1..3] == ["error", "reference"] {
            is_error = true;
        } else if has_headers && cells[1..3] == ["result", "table"] {
            names = Some(cells[1..].to_vec());
            table = None;
            // It is one, with rows or without.
            tables += 1;
        } else {
            let width = cells.len() - 1;
            let names = names.clone().unwrap_or_else(|| {
                let mut names = vec![String::new(); width];
                names[0] = "result".to_owned();
                names[1] = "table".to_owned();
                names
            });
            let of = |annotation: &str, i: usize| annotations.get(annotation).map(|cells| cells[i].clone());
            let row: Cells = (0..width)
                .map(|i| {
                    let cell = Some(cells[i + 1].clone()).filter(|c| !c.is_empty());
                    let text = cell.or_else(|| of("#default", i)).unwrap_or_default();
                    (names[i].clone(), of("#datatype", i).unwrap_or("string".to_owned()), text)
                })
                .collect();
            let this = Some((row[0].2.clone(), row[1].2.clone()));
            tables += usize::from(this != table && (table.is_some() || !has_headers));
            table = this;
            rows.push(row);
        }
    }
    (rows, tables, error)
}

fn compare(name: &str, answer: &[u8], random: &[usize]) -> (usize, usize, bool) {
    let has_headers = !name.contains("header-false");
    let seen = read(has_headers, answer, &[usize::MAX]);
    for sizes in [&[1][..], random] {
        assert_eq!(read(has_headers, answer, sizes).outline(), seen.outline(), "{name} in {sizes:?}");
    }
    let (rows, tables, error) = other_reading(has_headers, answer);
    let ours: Vec<Cells> = seen
        .rows()
        .map(|row| {
            let cells = row.iter().zip(row.columns());
            cells.map(|((n, v), c)| (n.to_owned(), c.datatype().to_string(), text(v))).collect()
        })
        .collect();
    assert_eq!(ours, rows, "{name}");
    assert_eq!(seen.items.len() - ours.len(), tables, "{name}: tables");
    let error = error.map(|e| format!("read the answer: the server broke it off: {e}"));
    assert_eq!(seen.error, error, "{name}");
    (ours.len(), tables, error.is_some())
}

#[test]
fn every_recorded_answer_is_read_as_another_reader_reads_it() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/flux-csv");
    let mut types: BTreeMap<String, usize> = BTreeMap::new();
    let (mut files, mut rows, mut errors) = (0, 0, 0);
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|e| e != "csv") {
            continue;
        }
        let name = path.file_stem().unwrap().to_str().unwrap();
        let answer = std::fs::read(&path).unwrap();
        let (found, _, is_error) = compare(name, &answer, &[3, 17, 1, 64, 7]);
        let seen = read(!name.contains("header-false"), &answer, &[usize::MAX]);
        for value in seen.rows().flat_map(FluxRecord::values).filter_map(FluxValue::datatype) {
            *types.entry(value.to_string()).or_default() += 1;
        }
        (files, rows, errors) = (files + 1, rows + found, errors + usize::from(is_error));
    }
    assert!(files >= 35 && rows >= 100 && errors >= 5, "{files} {rows} {errors}");
    // Durations and bytes cannot be had from this server.
    let found: Vec<&str> = types.keys().map(String::as_str).collect();
    assert_eq!(found, ["boolean", "dateTime:RFC3339", "double", "long", "string", "unsignedLong"]);
}

/// A table to be written, and read again.
#[derive(Clone, Debug)]
struct Written {
    types: Vec<FluxType>,
    rows: Vec<Vec<FluxValue>>,
    /// The order of the annotations.
    order: u8,
    /// Whether cells are quoted that need not be.
    quotes: bool,
}

fn quoted(text: &str, always: bool) -> String {
    match always || text.contains([',', '"', '\n', '\r']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text.to_owned(),
    }
}

fn write(tables: &[Written], line_end: &str) -> String {
    let mut out = String::new();
    for (number, table) in tables.iter().enumerate() {
        let mut line = |cells: &[String]| {
            out.push_str(&cells.join(","));
            out.push_str(line_end);
        };
        let columns = |first: [&str; 3], each: &dyn Fn(usize) -> String| {
            let first = first.iter().map(|&s| s.to_owned());
            first.chain((0..table.types.len()).map(each)).collect::<Vec<_>>()
        };
        let datatype = columns(["#datatype", "string", "long"], &|i| table.types[i].to_string());
        let group = columns(["#group", "false", "false"], &|i| (i % 2 == 0).to_string());
        let default = columns(["#default", "res", &number.to_string()], &|_| String::new());
        let mut annotations = [datatype, group, default];
        annotations.rotate_left(usize::from(table.order % 3));
        annotations.iter().for_each(|a| line(a));
        line(&columns(["", "result", "table"], &|i| format!("c{i}")));
        for row in &table.rows {
            line(&columns(["", "", &number.to_string()], &|i| match &row[i] {
                FluxValue::Binary(bytes) => base64(bytes),
                value => quoted(&text(value), table.quotes && !value.is_null()),
            }));
        }
        line(&[]);
    }
    out
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digits = |three: &[u8]| {
        let bits = three.iter().chain([0, 0].iter()).take(3).fold(0, |sum, &b| sum << 8 | usize::from(b));
        let all = [18, 12, 6, 0].map(|shift| DIGITS[bits >> shift & 63] as char);
        let known: String = all.iter().take(three.len() + 1).collect();
        format!("{known:=<4}")
    };
    bytes.chunks(3).map(digits).collect()
}

fn value_of(datatype: FluxType) -> BoxedStrategy<FluxValue> {
    let value = match datatype {
        FluxType::String => "[a-z,\"#\n é]{1,8}".prop_map(|s| FluxValue::from(&*s)).boxed(),
        FluxType::Long => any::<i64>().prop_map(FluxValue::Long).boxed(),
        FluxType::UnsignedLong => any::<u64>().prop_map(FluxValue::UnsignedLong).boxed(),
        FluxType::Double => any::<u64>().prop_map(|bits| FluxValue::Double(f64::from_bits(bits))).boxed(),
        FluxType::Boolean => any::<bool>().prop_map(FluxValue::Boolean).boxed(),
        FluxType::Time => any::<i64>().prop_map(|n| FluxValue::Time(Timestamp::from_nanos(n))).boxed(),
        FluxType::Duration => any::<i64>().prop_map(FluxValue::Duration).boxed(),
        _ => prop::collection::vec(any::<u8>(), 1..9).prop_map(FluxValue::Binary).boxed(),
    };
    prop_oneof![4 => value, 1 => Just(FluxValue::Null)].boxed()
}

fn table() -> impl Strategy<Value = Written> {
    let datatype = prop::sample::select(vec![
        FluxType::String,
        FluxType::Long,
        FluxType::UnsignedLong,
        FluxType::Double,
        FluxType::Boolean,
        FluxType::Time,
        FluxType::Duration,
        FluxType::Binary,
    ]);
    prop::collection::vec(datatype, 0..6).prop_flat_map(|types| {
        let row: Vec<_> = types.iter().map(|t| value_of(*t)).collect();
        (Just(types), prop::collection::vec(row, 0..5), any::<u8>(), any::<bool>())
            .prop_map(|(types, rows, order, quotes)| Written { types, rows, order, quotes })
    })
}

/// Bytes in which the marks of the format are frequent.
fn almost_csv() -> impl Strategy<Value = Vec<u8>> {
    let parts = prop::sample::select(vec![
        &b","[..],
        b",",
        b",",
        b"\n",
        b"\n",
        b"\r\n",
        b"\r",
        b"\"",
        b"\"\"",
        b"#",
        b"#datatype,long\n",
        b"#default,1\n",
        b"#group,true\n",
        b",result,table\n",
        b",error,reference\n",
        b",x\n",
        b"1",
        b"a",
        b"\xff",
        b"\0",
        b",a,0\n",
        b"-",
        b"2026-03-04T00:00:00Z",
    ]);
    prop_oneof![
        prop::collection::vec(parts, 0..40).prop_map(|parts| parts.concat()),
        prop::collection::vec(any::<u8>(), 0..60),
    ]
}

proptest! {
    #[test]
    fn tables_that_were_written_come_back(
        tables in prop::collection::vec(table(), 0..5),
        sizes in prop::collection::vec(1usize..50, 1..5),
        line_end in prop::sample::select(vec!["\n", "\r\n"]),
    ) {
        let answer = write(&tables, line_end);
        let seen = read(true, answer.as_bytes(), &sizes);
        prop_assert_eq!(&seen.error, &None, "{}", answer);
        let mut items = seen.items.into_iter();
        for (number, table) in tables.iter().enumerate() {
            let Some(FluxItem::Table(begun)) = items.next() else { panic!("{answer}") };
            prop_assert_eq!((begun.result(), begun.number()), ("res", Some(number as i64)));
            let types: Vec<FluxType> = begun.columns()[2..].iter().map(FluxColumn::datatype).collect();
            prop_assert_eq!(&types, &table.types);
            for row in &table.rows {
                let Some(FluxItem::Record(read)) = items.next() else { panic!("{answer}") };
                let shown = |values: &[FluxValue]| format!("{values:?}");
                prop_assert_eq!(shown(&read.values()[2..]), shown(row), "{}", answer);
                prop_assert_eq!((read.result(), read.table()), ("res", Some(number as i64)));
            }
        }
        prop_assert!(items.next().is_none());
    }

    #[test]
    fn any_bytes_are_read_to_an_end_and_the_same_however_they_are_cut(
        answer in almost_csv(),
        sizes in prop::collection::vec(1usize..9, 1..5),
        has_headers: bool,
    ) {
        let whole = read(has_headers, &answer, &[usize::MAX]);
        prop_assert_eq!(read(has_headers, &answer, &sizes).outline(), whole.outline());
        prop_assert_eq!(read(has_headers, &answer, &[1]).outline(), whole.outline());
    }
}

const TYPED: &str = "#datatype,string,long,dateTime:RFC3339,double,long,unsignedLong,boolean,string,duration,base64Binary\n\
    #default,_result,,,,,,,,,\n\
    ,result,table,_time,d,l,u,b,s,du,bin\n\
    ,,0,1970-01-01T00:00:01.5Z,21.5,-3,7,true,Warm,1s,Zm9v\n\
    ,,0,,,,,,,,\n";

fn rows() -> Vec<FluxRecord> {
    FluxReader::read_all(TYPED.as_bytes()).unwrap().remove(0).into_iter().collect()
}

#[test]
fn a_row_is_what_the_fields_of_a_struct_ask_for() {
    #[derive(Debug, Deserialize, PartialEq)]
    enum State {
        Cold,
        Warm,
    }
    #[derive(Debug, Deserialize, PartialEq)]
    struct Celsius(f64);
    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(rename_all = "kebab-case")]
    struct Row {
        #[serde(rename = "_time")]
        at: String,
        d: Celsius,
        l: i8,
        u: f32,
        b: bool,
        s: State,
        du: u64,
        bin: Vec<u8>,
        #[serde(default)]
        absent: i64,
        none: Option<String>,
        table: usize,
    }
    let row: Row = rows()[0].deserialize().unwrap();
    assert_eq!(row.at, "1970-01-01T00:00:01.5Z");
    assert_eq!((row.d, row.l, row.u, row.b, row.s), (Celsius(21.5), -3, 7.0, true, State::Warm));
    assert_eq!(
        (row.du, &row.bin[..], row.absent, row.none, row.table),
        (1_000_000_000, &b"foo"[..], 0, None, 0)
    );
    assert!(State::Cold != State::Warm);

    #[derive(Debug, Default, Deserialize, PartialEq)]
    struct Nullable {
        #[serde(rename = "_time")]
        at_nanos: Option<i64>,
        d: Option<f64>,
        l: Option<i64>,
        s: Option<String>,
        bin: Option<Vec<u8>>,
    }
    assert_eq!(rows()[1].deserialize::<Nullable>().unwrap(), Nullable::default());
    assert_eq!(rows()[0].deserialize::<Nullable>().unwrap().at_nanos, Some(1_500_000_000));

    #[derive(Deserialize)]
    struct Open {
        l: i64,
        #[serde(flatten)]
        rest: BTreeMap<String, serde_json::Value>,
    }
    let open: Open = rows()[0].deserialize().unwrap();
    assert_eq!((open.l, open.rest.len()), (-3, 9));
    assert_eq!(open.rest["_time"], "1970-01-01T00:00:01.5Z");
    let json: serde_json::Value = rows()[1].deserialize().unwrap();
    assert_eq!(json["result"], "_result");
    assert!(json["d"].is_null());
    assert!(rows()[0].deserialize::<Option<Open>>().unwrap().is_some());
}

#[test]
fn a_row_that_does_not_fit_is_refused_with_line_column_and_both_types() {
    #[derive(Debug, Deserialize)]
    #[allow(dead_code)]
    struct One<T> {
        #[serde(alias = "d", alias = "l", alias = "b", alias = "s", alias = "_time", alias = "du")]
        x: T,
    }
    fn check<T: serde::de::DeserializeOwned + std::fmt::Debug>(answer: &str, expected: &str) {
        let rows = FluxReader::read_all(answer.as_bytes()).unwrap();
        let error = rows[0].rows()[0].deserialize::<One<T>>().unwrap_err();
        assert!(error.is_query_failed());
        assert_eq!(error.to_string(), format!("read a row: line 3 of the answer{expected}"));
    }
    let typed = |datatype: &str, cell: &str| format!("#datatype,{datatype},long\n,x,y\n,{cell},1\n");
    check::<i64>(
        &typed("double", "21.5"),
        ", column \"x\": it is floating point `21.5` where i64 is asked for; its datatype is double",
    );
    check::<u8>(
        &typed("long", "-3"),
        ", column \"x\": it is integer `-3` where u8 is asked for; its datatype is long",
    );
    check::<String>(
        &typed("long", "-3"),
        ", column \"x\": it is integer `-3` where a string is asked for; its datatype is long",
    );
    check::<f64>(
        &typed("string", "warm"),
        ", column \"x\": it is string \"warm\" where f64 is asked for; its datatype is string",
    );
    check::<bool>(
        &typed("dateTime:RFC3339", "1970-01-01T00:00:01Z"),
        ", column \"x\": it is string \"1970-01-01T00:00:01Z\" where a boolean is asked for; its datatype is dateTime:RFC3339",
    );
    check::<f64>(
        &typed("double", ""),
        ", column \"x\": it is null where f64 is asked for: ask for an Option; the datatype of the column is double",
    );
    let other = "#datatype,double\n,z\n,1\n";
    check::<f64>(other, ": there is no column \"x\": keep it in the query, or give the field a default");
    check::<f64>(
        "#datatype,double,double\n,x,x\n,1,2\n",
        ": two columns are for \"x\": rename one in the query",
    );
    let long = FluxReader::read_all(format!(",x\n,{}\n", "y".repeat(1 << 20)).as_bytes()).unwrap();
    assert!(long[0].rows()[0].deserialize::<One<f64>>().unwrap_err().to_string().len() < 5000);
    let numbers = FluxReader::read_all(TYPED.as_bytes()).unwrap()[0].rows()[0].deserialize::<Vec<i64>>();
    let message = numbers.unwrap_err().to_string();
    assert_eq!(message, "read a row: line 4 of the answer: it is map where a sequence is asked for");
}
