//! Questions in Flux to a server that answers as the recordings of InfluxDB 2.8 have it, in pieces, compressed, slowly, or not
//! to the end.
#![allow(clippy::unwrap_used, missing_docs, unreachable_pub)]

#[allow(dead_code, reason = "each test uses a part of it")]
mod hostile;

use flate2::Compression;
use flate2::write::GzEncoder;
use graylogic_influxdb::{Client, Config, Error, FluxQuery, FluxReader, FluxTable, FluxValue, Timestamp};
use hostile::{Request, answer};
use serde_json::{Value, json};
use std::io::{BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(30);

/// What is done to the connection of a question.
type Answering = dyn Fn(&Request, &mut TcpStream) + Send + Sync;

/// A server of InfluxDB 2 whose answers to questions are given; it keeps the questions.
struct Server {
    url: String,
    asked: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    fn new(answering: impl Fn(&Request, &mut TcpStream) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked: Arc<Mutex<Vec<Request>>> = Arc::default();
        let (keeps, answering): (_, Arc<Answering>) = (asked.clone(), Arc::new(answering));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (keeps, answering) = (keeps.clone(), answering.clone());
                std::thread::spawn(move || connection(stream, &keeps, &*answering));
            }
        });
        Self { url, asked }
    }

    fn client(&self) -> Client {
        let config = Config::remote(&self.url).unwrap().with_spool(None).with_token("t").with_org("o");
        Client::connect(&config).unwrap()
    }
}

fn connection(mut stream: TcpStream, asked: &Mutex<Vec<Request>>, answering: &Answering) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    while let Some(request) = Request::read(&mut reader) {
        if request.is_get {
            let ping = answer("204 No Content", "X-Influxdb-Version: v2.8.0\r\n", "");
            if stream.write_all(ping.as_bytes()).is_err() {
                return;
            }
            continue;
        }
        answering(&request, &mut stream);
        asked.lock().unwrap().push(request);
    }
}

/// The head of an answer whose length nobody knows.
const HEAD: &str =
    "HTTP/1.1 200 OK\r\nContent-Type: text/csv; charset=utf-8\r\nTransfer-Encoding: chunked\r\n";

fn chunk(stream: &mut TcpStream, bytes: &[u8]) -> std::io::Result<()> {
    write!(stream, "{:x}\r\n", bytes.len())?;
    stream.write_all(bytes)?;
    stream.write_all(b"\r\n")
}

/// An answer in pieces of so many bytes.
fn in_pieces(body: Vec<u8>, bytes: usize, header: &'static str) -> impl Fn(&Request, &mut TcpStream) {
    move |_, stream| {
        let _gone = write!(stream, "{HEAD}{header}\r\n");
        for piece in body.chunks(bytes) {
            let _gone = chunk(stream, piece);
        }
        let _gone = stream.write_all(b"0\r\n\r\n");
    }
}

/// The end of an answer that came whole.
fn whole(stream: &mut TcpStream) {
    let _gone = chunk(stream, b"\r\n");
    let _gone = stream.write_all(b"0\r\n\r\n");
}

fn fixture(name: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/flux-csv").join(name);
    std::fs::read(path).unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = GzEncoder::new(Vec::new(), Compression::default());
    out.write_all(bytes).unwrap();
    out.finish().unwrap()
}

/// The text of a row's only number.
fn numbers(
    rows: impl Iterator<Item = Result<graylogic_influxdb::FluxRecord, Error>>,
) -> Vec<Result<f64, String>> {
    rows.map(|row| row.map(|r| r.value().and_then(FluxValue::as_f64).unwrap()).map_err(|e| e.to_string()))
        .collect()
}

#[test]
fn answers_come_whole_in_whatever_pieces() {
    for name in [
        "several-results.csv",
        "quoting-of-values.csv",
        "empty-tables.csv",
        "schema-changes-between-tables.csv",
    ] {
        let body = fixture(name);
        let expected: Vec<FluxTable> = FluxReader::read_all(&body).unwrap();
        for pieces in [1, 7, 1 << 20] {
            for (body, header) in [(body.clone(), ""), (gzip(&body), "Content-Encoding: gzip\r\n")] {
                let server = Server::new(in_pieces(body, pieces, header));
                let client = server.client();
                assert_eq!(
                    client.query("x").unwrap().tables().unwrap(),
                    expected,
                    "{name} {pieces} {header}"
                );
                let rows: Vec<_> = client.query("x").unwrap().collect::<Result<_, _>>().unwrap();
                let all: Vec<_> = expected.iter().flat_map(|t| t.rows().to_vec()).collect();
                assert_eq!(rows, all);
            }
        }
        let server = Server::new(in_pieces(body.clone(), 3, ""));
        let raw: Vec<u8> =
            server.client().query_raw("x").unwrap().map(Result::unwrap).collect::<Vec<_>>().concat();
        assert_eq!(raw, body);
    }
}

#[test]
fn a_question_goes_out_as_influxdb_2_takes_it() {
    let server = Server::new(in_pieces(b"\r\n".to_vec(), 1, ""));
    let text = r#"from(bucket: params.bucket) |> range(start: params.start)"#;
    let query = FluxQuery::new(text)
        .param("bucket", "a\" or ${x} \\")
        .param("start", FluxValue::Time(Timestamp::from_nanos(1_500_000_000)))
        // The one given later counts: an object with two of a name is read in different ways.
        .param("n", FluxValue::from("another"))
        .param("n", FluxValue::Long(-3))
        .param("least", FluxValue::Long(i64::MIN))
        .param("u", FluxValue::UnsignedLong(u64::MAX))
        .param("x", FluxValue::Double(-0.5))
        .param("yes", FluxValue::Boolean(true))
        .param("every", FluxValue::Duration(90_000_000_000))
        .now(Timestamp::from_nanos(0));
    assert_eq!(server.client().query(query).unwrap().count(), 0);
    let asked = server.asked.lock().unwrap();
    let [request] = &asked[..] else { panic!("{asked:?}") };
    assert_eq!((request.target.as_str(), request.token.as_deref()), ("/api/v2/query?org=o", Some("Token t")));
    let body: Value = serde_json::from_slice(&request.body).unwrap();
    assert_eq!(body["query"], text);
    assert_eq!(body["now"], "1970-01-01T00:00:00Z");
    assert_eq!(body["dialect"]["annotations"], json!(["datatype", "group", "default"]));
    let option = &body["extern"]["body"][0];
    assert_eq!(
        (option["type"].as_str(), &body["extern"]["imports"]),
        (Some("OptionStatement"), &Value::Null)
    );
    assert_eq!(option["assignment"]["id"]["name"], "params");
    assert_eq!(option["assignment"]["init"]["properties"].as_array().unwrap().len(), 8);
    let value = |i: usize| &option["assignment"]["init"]["properties"][i]["value"];
    assert_eq!(value(0), &json!({ "type": "StringLiteral", "value": "a\" or ${x} \\" }));
    assert_eq!(value(1), &json!({ "type": "DateTimeLiteral", "value": "1970-01-01T00:00:01.5Z" }));
    let three = json!({ "type": "IntegerLiteral", "value": "3" });
    assert_eq!(value(2), &json!({ "type": "UnaryExpression", "operator": "-", "argument": three }));
    assert_eq!(value(3)["left"]["argument"]["value"], i64::MAX.to_string());
    assert_eq!(value(4)["arguments"][0]["properties"][0]["value"]["value"], u64::MAX.to_string());
    assert_eq!(value(5)["argument"], json!({ "type": "FloatLiteral", "value": 0.5 }));
    assert_eq!(value(6), &json!({ "type": "BooleanLiteral", "value": true }));
    assert_eq!(value(7)["values"], json!([{ "magnitude": 90_000_000_000_u64, "unit": "ns" }]));
}

#[test]
fn what_cannot_be_a_parameter_is_named() {
    let server = Server::new(in_pieces(Vec::new(), 1, ""));
    let client = server.client();
    let check = |name: &str, value: FluxValue, says: &str| {
        let error = client.query(FluxQuery::new("x").param(name, value)).unwrap_err();
        assert!(error.is_query_failed() && error.to_string().contains(says), "{error}");
    };
    check("a b", FluxValue::Long(1), "\"a b\" is no name");
    check("1a", FluxValue::Long(1), "\"1a\" is no name");
    check("", FluxValue::Long(1), "\"\" is no name");
    check("a", FluxValue::Double(f64::NAN), "not finite");
    check("a", FluxValue::Null, "is null");
    check("a", FluxValue::Duration(i64::MIN), "longer than");
    check("a", FluxValue::Binary(vec![1]), "is bytes");
    assert!(server.asked.lock().unwrap().is_empty());
}

#[test]
fn refusals_are_told_in_the_words_of_the_server() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/flux-csv");
    let mut seen = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if !path.to_str().unwrap().ends_with(".error.json") {
            continue;
        }
        let recording: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let (status, body) = (recording["status"].as_u64().unwrap(), recording["body"].to_string());
        let server = Server::new(move |_, stream| {
            let reply = answer(&format!("{status} Recorded"), "Content-Type: application/json\r\n", &body);
            stream.write_all(reply.as_bytes()).unwrap();
        });
        let error = server.client().query("x").unwrap_err();
        assert!(error.is_query_failed() && !error.is_retryable(), "{error:?}");
        let words = recording["body"]["message"].as_str().unwrap();
        assert!(error.to_string().contains(words), "{error}");
        seen += 1;
    }
    assert!(seen >= 5);
    for (status, retryable) in [(503, true), (429, true), (400, false)] {
        let server = Server::new(move |_, stream| {
            let _gone = stream.write_all(answer(&format!("{status} X"), "", "busy").as_bytes());
        });
        let error = server.client().query("x").unwrap_err();
        assert_eq!(error.is_retryable(), retryable, "{error}");
        assert!(error.to_string().ends_with("busy"), "{error}");
    }
}

#[test]
fn rows_before_an_error_come_before_it() {
    let body = fixture("error-after-rows.csv");
    let server = Server::new(in_pieces(body, 11, ""));
    let rows: Vec<_> = server.client().query("x").unwrap().collect();
    let (last, before) = rows.split_last().unwrap();
    assert!(!before.is_empty() && before.iter().all(Result::is_ok), "{rows:?}");
    assert!(last.as_ref().unwrap_err().is_query_failed());
}

/// Three rows, and what is done then.
fn three_rows_and_then(then: impl Fn(&mut TcpStream) + Send + Sync + 'static) -> Server {
    Server::new(move |_, stream| {
        let _gone = write!(stream, "{HEAD}\r\n");
        let _gone =
            chunk(stream, b"#datatype,string,long,double\n#group,false,false,false\n#default,_result,,\n");
        let _gone = chunk(stream, b",result,table,_value\n,,0,1\n,,0,2\n,,0,3\n");
        then(stream);
    })
}

#[test]
fn an_answer_that_breaks_off_is_an_error_after_its_rows() {
    let server = three_rows_and_then(|stream| {
        let _gone = stream.shutdown(std::net::Shutdown::Both);
    });
    let rows = numbers(server.client().query("x").unwrap());
    assert_eq!(rows[..3], [Ok(1.0), Ok(2.0), Ok(3.0)]);
    assert!(rows[3].as_ref().unwrap_err().contains("broke off") && rows.len() == 4, "{rows:?}");
    // One that ends in the middle of a row, in good order.
    let server = three_rows_and_then(|stream| {
        let _gone = chunk(stream, b",,0,\"4");
        let _gone = stream.write_all(b"0\r\n\r\n");
    });
    let rows = numbers(server.client().query("x").unwrap());
    assert!(rows.len() == 4 && rows[3].is_err(), "{rows:?}");
}

#[test]
fn an_answer_of_nothing_did_not_come() {
    // The head, and the end of the connection: nobody knows how long the answer was to be.
    let server = Server::new(|_, stream| {
        let _gone =
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/csv\r\nConnection: close\r\n\r\n");
        let _gone = stream.shutdown(std::net::Shutdown::Both);
    });
    let error = server.client().query("x").unwrap().tables().unwrap_err();
    assert!(error.is_query_failed() && error.is_retryable(), "{error}");
    let typed = graylogic_influxdb::Query::measurement("m").latest();
    assert!(server.client().ask(&typed).unwrap_err().is_retryable());
    // As recorded: without tables it is a line end, and without anything where nothing was wanted.
    let server = Server::new(in_pieces(b"\r\n".to_vec(), 1, ""));
    assert_eq!(server.client().query("x").unwrap().tables().unwrap(), []);
    let server = Server::new(|_, stream| {
        let _gone = stream.write_all(answer("204 No Content", "", "").as_bytes());
    });
    assert_eq!(server.client().query("x").unwrap().tables().unwrap(), []);
}

#[test]
fn tables_after_some_rows_have_the_others() {
    let server = three_rows_and_then(|stream| {
        let _gone = chunk(stream, b",,1,4\n");
        whole(stream);
    });
    // A client that goes takes its answers with it.
    let client = server.client();
    let mut rows = client.query("x").unwrap();
    assert!(rows.next().unwrap().is_ok());
    let tables = rows.tables().unwrap();
    let shown: Vec<_> = tables
        .iter()
        .map(|t| {
            (t.result(), t.number(), t.rows().iter().map(|r| r.value().unwrap().as_f64().unwrap()).collect())
        })
        .collect::<Vec<(&str, Option<i64>, Vec<f64>)>>();
    assert_eq!(shown, [("_result", Some(0), vec![2.0, 3.0]), ("_result", Some(1), vec![4.0])]);
}

#[test]
fn questions_in_flux_go_where_questions_go() {
    let writes = Server::new(|_, _| panic!("a question is asked where readings go"));
    let answers = three_rows_and_then(whole);
    let config = Config::remote(&writes.url).unwrap().with_query_url(&answers.url).unwrap().with_spool(None);
    let client = Client::connect(&config).unwrap();
    assert_eq!(client.query("x").unwrap().count(), 3);
    assert!(client.query_raw("x").unwrap().all(|piece| piece.is_ok()));
    assert_eq!(answers.asked.lock().unwrap().len(), 2);
}

#[test]
fn the_time_of_a_question_is_also_that_of_finding_out_what_the_server_is() {
    // It takes connections and says nothing.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        let _open: Vec<_> = listener.incoming().collect();
    });
    let client = Client::connect(&Config::remote(&url).unwrap().with_spool(None)).unwrap();
    let time = Duration::from_millis(300);
    let typed = graylogic_influxdb::Query::measurement("m").latest().timeout(time);
    // The usual time of a request is 30 s.
    let began = std::time::Instant::now();
    let flux = client.query(FluxQuery::new("x").timeout(time)).unwrap_err();
    let typed = client.ask(&typed).unwrap_err();
    for error in [flux, typed] {
        assert!(error.is_query_failed() && error.is_retryable(), "{error}");
        assert!(error.to_string().contains("300ms"), "{error}");
    }
    assert!(began.elapsed() < Duration::from_secs(25));
}

#[test]
fn no_time_is_too_long_and_none_is_an_error() {
    let server = three_rows_and_then(whole);
    let client = server.client();
    assert_eq!(client.query(FluxQuery::new("x").timeout(Duration::MAX)).unwrap().count(), 3);
    assert!(client.query(FluxQuery::new("x").timeout(Duration::ZERO)).unwrap_err().is_query_failed());
}

#[test]
fn an_answer_that_takes_too_long_is_given_up() {
    let server = three_rows_and_then(|stream| {
        let _ends_when_given_up = stream.read(&mut [0]);
    });
    let query = FluxQuery::new("x").timeout(Duration::from_millis(300));
    let rows = numbers(server.client().query(query).unwrap());
    assert_eq!(rows[..3], [Ok(1.0), Ok(2.0), Ok(3.0)]);
    assert!(rows[3].as_ref().unwrap_err().contains("in time") && rows.len() == 4, "{rows:?}");
    // A typed one says how long that was.
    let server = Server::new(|_, stream| {
        let _gone = write!(stream, "{HEAD}\r\n");
        let _ends_when_given_up = stream.read(&mut [0]);
    });
    let query = graylogic_influxdb::Query::measurement("m").latest().timeout(Duration::from_millis(300));
    let error = server.client().ask(&query).unwrap_err();
    assert!(error.is_query_failed() && error.is_retryable(), "{error}");
    assert!(
        error.to_string().ends_with("everything within 300ms; give it more time, or ask for less"),
        "{error}"
    );
}

#[test]
fn a_question_that_is_dropped_is_given_up() {
    let (gone, heard) = mpsc::channel();
    let gone = Mutex::new(gone);
    let server = three_rows_and_then(move |stream| {
        let ended = stream.read(&mut [0]);
        gone.lock().unwrap().send(ended.map_or(true, |n| n == 0)).unwrap();
    });
    let client = server.client();
    let mut rows = client.query("x").unwrap();
    assert!(rows.next().unwrap().is_ok());
    drop(rows);
    assert!(heard.recv_timeout(SOON).unwrap());
    // Before its first byte as well.
    let (gone, heard) = mpsc::channel();
    let gone = Mutex::new(gone);
    let server = Server::new(move |_, stream| {
        let ended = stream.read(&mut [0]);
        gone.lock().unwrap().send(ended.map_or(true, |n| n == 0)).unwrap();
    });
    let client = server.client();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        let given_up = tokio::time::timeout(Duration::from_millis(200), client.query_async("x")).await;
        assert!(given_up.is_err());
    });
    assert!(heard.recv_timeout(SOON).unwrap());
}

#[test]
fn a_client_that_is_closed_ends_its_questions() {
    let server = three_rows_and_then(|stream| {
        let _ends_when_given_up = stream.read(&mut [0]);
    });
    let client = server.client();
    let mut rows = client.query("x").unwrap();
    assert!(rows.next().unwrap().is_ok());
    client.close(SOON).unwrap();
    let rest: Vec<_> = rows.collect();
    assert!(rest.last().unwrap().as_ref().unwrap_err().is_not_connected(), "{rest:?}");
    assert!(client.query("x").unwrap_err().is_not_connected());
}

#[derive(serde::Deserialize, Debug, PartialEq)]
struct Reading {
    #[serde(rename = "_value")]
    value: f64,
}

#[test]
fn it_works_in_and_outside_of_runtimes() {
    let server = three_rows_and_then(whole);
    let client = server.client();
    let expected = [1.0, 2.0, 3.0].map(|value| Reading { value });
    let ask = |client: &Client| {
        client.query("x").unwrap().deserialize().collect::<Result<Vec<Reading>, _>>().unwrap()
    };
    assert_eq!(ask(&client), expected);
    let one = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let many = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    for runtime in [one, many] {
        // The waiting form holds up a thread of the runtime, and works.
        runtime.block_on(async { assert_eq!(ask(&client), expected) });
        let rows = runtime.block_on(async {
            let mut rows = client.query_async("x").await.unwrap();
            let mut found = Vec::new();
            while let Some(row) = rows.next_async().await {
                found.push(row.unwrap().deserialize::<Reading>().unwrap());
            }
            found
        });
        assert_eq!(rows, expected);
    }
}

#[test]
fn targets_that_do_not_answer_flux_say_so() {
    let folder = tempfile::tempdir().unwrap();
    let embedded = Client::connect(&Config::embedded(folder.path()).with_any_time(true)).unwrap();
    let error = embedded.query("x").unwrap_err();
    assert!(error.is_unsupported() && !error.is_query_failed(), "{error:?}");
    for (header, says) in
        [("X-Server-Hostname: vm\r\n", "VictoriaMetrics"), ("X-Influxdb-Version: 3.0\r\n", "InfluxDB 3")]
    {
        let server = hostile::Hostile::new(|_| panic!("nothing is asked"));
        *server.ping.lock().unwrap() = Some(answer("200 OK", header, ""));
        let client = Client::connect(&Config::remote(&server.url()).unwrap().with_spool(None)).unwrap();
        let error = client.query("x").unwrap_err();
        assert!(error.is_unsupported() && error.to_string().contains(says), "{error:?}");
    }
}
