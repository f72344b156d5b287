//! `graylogic query --flux`: what a server answers to Flux, printed as it comes: a table for people for each table of the
//! answer, the server's own CSV, or a JSON object for each row. Of a long answer only the piece that came last is in memory.

use crate::app::{self, CLOSE_DEADLINE};
use crate::cli::{Flux, Place, Query};
use crate::command::open_store;
use crate::failure::Failure;
use crate::output::remark;
use crate::text::{self, plain, printable, printable_json};
use graylogic_influxdb::{
    Client, FluxItem, FluxQuery, FluxRaw, FluxReader, FluxRecord, FluxTable, FluxType, FluxValue, Target,
};
use serde_json::{Map, Value, json};
use std::io::{self, BufWriter, IsTerminal as _, Read as _, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

/// A longer question is not read.
const QUESTION_BYTES_MAX: u64 = 4 << 20;
/// The widths of columns are those of so many rows.
const SAMPLED_ROWS: usize = 100;
/// Longer cells are cut in tables.
const CELL_CHARS_MAX: usize = 40;

/// The question in Flux that options mean; `None` when they mean no such question.
pub(super) fn question(options: &Flux) -> Result<Option<FluxQuery>, Failure> {
    let text = match (&options.flux, &options.flux_file) {
        (Some(text), _) => text.clone(),
        (None, Some(file)) => read(file)?,
        (None, None) => return Ok(None),
    };
    let mut question = FluxQuery::new(text).timeout(Duration::from_secs(options.timeout));
    for param in &options.param {
        let wrong = || Failure::new(format!("--param {param:?}: write NAME=VALUE"));
        let (name, value) = param.split_once('=').ok_or_else(wrong)?;
        question = question.param(name, value);
    }
    Ok(Some(question))
}

/// The Flux in a file, or of standard input.
pub(super) fn read(file: &Path) -> Result<String, Failure> {
    let named = file.display();
    let failed = |why: io::Error| Failure::because(format_args!("read the Flux in {named}"), why);
    let mut text = String::new();
    let taken = QUESTION_BYTES_MAX + 1;
    let bytes = match file.as_os_str() == "-" {
        true => io::stdin().lock().take(taken).read_to_string(&mut text),
        false => std::fs::File::open(file).map_err(failed)?.take(taken).read_to_string(&mut text),
    };
    if bytes.map_err(failed)? as u64 > QUESTION_BYTES_MAX {
        return Err(Failure::new(format!("read the Flux in {named}: it has more than 4 MiB")));
    }
    Ok(text)
}

pub(super) fn run(options: &Query, question: FluxQuery, json: bool) -> Result<ExitCode, Failure> {
    let client = client(&options.what.place)?;
    let shown = client.query_raw(question).map_err(Failure::from).and_then(|answer| {
        let form = match (json, options.csv) {
            (true, _) => Form::Json,
            (false, true) => Form::Csv { is_for_people: io::stdout().is_terminal() },
            (false, false) => Form::Tables(Tables::default()),
        };
        show(answer, form, &mut BufWriter::new(io::stdout().lock()))
    });
    let closed = client.close(CLOSE_DEADLINE);
    shown?;
    closed?;
    Ok(ExitCode::SUCCESS)
}

/// A client that asks and does not write: the spool is left to the one who has it.
fn client(place: &Place) -> Result<Client, Failure> {
    let config = app::config(place)?;
    if matches!(config.target(), Target::Embedded(_)) {
        let (store, config) = open_store(place, "query")?;
        // Connecting makes the bucket of the configuration; asking is to make none.
        let config = match store.buckets().first() {
            Some(bucket) => config.with_bucket(&bucket.name),
            None => config,
        };
        return Ok(Client::connect_store(&config, store)?);
    }
    Ok(Client::connect(&config.with_spool(None).with_connect_strict(false))?)
}

/// How rows are printed.
enum Form {
    /// The answer as it is, but for what would control a terminal.
    Csv {
        is_for_people: bool,
    },
    Json,
    Tables(Tables),
}

/// Why printing ended early.
enum Stop {
    Printing(io::Error),
    Answer(graylogic_influxdb::Error),
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Printing(error)
    }
}

impl From<graylogic_influxdb::Error> for Stop {
    fn from(error: graylogic_influxdb::Error) -> Self {
        Self::Answer(error)
    }
}

fn show(answer: FluxRaw, form: Form, out: &mut impl Write) -> Result<(), Failure> {
    match print(answer, form, out) {
        Ok(()) => Ok(()),
        // Whoever closed the pipe has seen enough.
        Err(Stop::Printing(why)) if why.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(Stop::Printing(why)) => Err(Failure::because("print the answer", why)),
        Err(Stop::Answer(error)) => Err(error.into()),
    }
}

fn print(answer: FluxRaw, mut form: Form, out: &mut impl Write) -> Result<(), Stop> {
    let mut reader = FluxReader::new();
    // What came before a failure is shown, and the raw answer to its last byte.
    let mut failed = None;
    for piece in answer {
        let taken = piece.and_then(|piece| {
            if matches!(form, Form::Csv { .. }) {
                return Ok(Some(piece));
            }
            reader.feed(&piece).map(|()| None)
        });
        match taken {
            Ok(Some(raw)) => {
                match form {
                    Form::Csv { is_for_people: true } => {
                        let text = String::from_utf8_lossy(&raw).replace('\r', "");
                        out.write_all(printable(&text).as_bytes())?;
                    }
                    _ => out.write_all(&raw)?,
                }
                // Only read for what the server says of itself in it.
                let judged = reader.feed(&raw).map_err(Stop::from);
                failed = failed.or(judged.and_then(|()| take(&mut reader, &mut form, out)).err());
            }
            Ok(None) => failed = take(&mut reader, &mut form, out).err(),
            // What the server said of itself before explains more than how the answer ended.
            Err(error) => failed = failed.or(Some(error.into())),
        }
        out.flush()?;
        if failed.is_some() && !matches!(form, Form::Csv { .. }) {
            break;
        }
    }
    if failed.is_none() {
        reader.finish();
        failed = take(&mut reader, &mut form, out).err();
    }
    if let Form::Tables(tables) = &mut form {
        tables.end(out)?;
        if failed.is_none() && tables.count == 0 {
            remark("the answer has no rows");
        }
    }
    out.flush()?;
    failed.map_or(Ok(()), Err)
}

/// Prints what the reader has.
fn take(reader: &mut FluxReader, form: &mut Form, out: &mut impl Write) -> Result<(), Stop> {
    while let Some(item) = reader.next_item()? {
        match (&mut *form, item) {
            (Form::Json, FluxItem::Record(row)) => {
                writeln!(out, "{}", printable_json(&as_json(&row).to_string()))?;
            }
            (Form::Tables(tables), FluxItem::Table(table)) => tables.begin(&table, out)?,
            (Form::Tables(tables), FluxItem::Record(row)) => tables.row(&row, out)?,
            _ => {}
        }
    }
    Ok(())
}

/// Tables for people: the values of the group key above each, and the other columns below.
#[derive(Default)]
struct Tables {
    /// Tables that began.
    count: u64,
    result: String,
    columns: Vec<Column>,
    /// What the group key of a table without rows is.
    key: String,
    /// The first rows, until there are enough to know the widths.
    waiting: Vec<Vec<String>>,
    /// Known when the first rows are printed.
    widths: Option<Vec<usize>>,
}

/// A column that is shown.
struct Column {
    /// Which of the answer.
    at: usize,
    name: String,
    is_number: bool,
}

impl Tables {
    fn begin(&mut self, table: &FluxTable, out: &mut impl Write) -> io::Result<()> {
        self.end(out)?;
        if self.count > 0 {
            writeln!(out)?;
        }
        self.count += 1;
        let number = table.number().map_or_else(String::new, |n| format!(", table {n}"));
        self.result = format!("result {}{number}", plain(table.result()));
        self.key = key(table.columns().iter().map(|c| (c.name(), c.is_group(), c.default())));
        let shown = |of_key: bool| {
            let columns =
                table.columns().iter().enumerate().filter(move |(_, c)| {
                    !matches!(c.name(), "result" | "table") && (of_key || !c.is_group())
                });
            let column = |(at, c): (usize, &graylogic_influxdb::FluxColumn)| {
                let is_number =
                    matches!(c.datatype(), FluxType::Double | FluxType::Long | FluxType::UnsignedLong);
                Column { at, name: cut(plain(c.name()).into_owned()), is_number }
            };
            columns.map(column).collect::<Vec<_>>()
        };
        self.columns = shown(false);
        // A table may have nothing beside its key.
        if self.columns.is_empty() {
            self.columns = shown(true);
        }
        self.widths = None;
        Ok(())
    }

    fn row(&mut self, row: &FluxRecord, out: &mut impl Write) -> io::Result<()> {
        if self.waiting.is_empty() && self.widths.is_none() {
            self.key =
                key(row.columns().iter().zip(row.values()).map(|(c, value)| (c.name(), c.is_group(), value)));
        }
        let cell = |column: &Column| row.values().get(column.at).map_or_else(String::new, cell);
        let cells: Vec<String> = self.columns.iter().map(cell).collect();
        if let Some(widths) = &self.widths {
            return self.line(&cells, widths, out);
        }
        self.waiting.push(cells);
        if self.waiting.len() == SAMPLED_ROWS { self.print_waiting(out) } else { Ok(()) }
    }

    /// Prints what waits of the table that ends.
    fn end(&mut self, out: &mut impl Write) -> io::Result<()> {
        if self.count == 0 || self.widths.is_some() {
            return Ok(());
        }
        self.print_waiting(out)
    }

    fn print_waiting(&mut self, out: &mut impl Write) -> io::Result<()> {
        let rows = std::mem::take(&mut self.waiting);
        let colon = if self.key.is_empty() { "" } else { ": " };
        let none = if rows.is_empty() { ", no rows" } else { "" };
        writeln!(out, "{}{none}{colon}{}", self.result, self.key)?;
        let names: Vec<String> = self.columns.iter().map(|column| column.name.clone()).collect();
        let width = |i: usize| {
            let cells = rows.iter().chain([&names]).map(|row: &Vec<String>| row[i].chars().count());
            cells.max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..names.len()).map(width).collect();
        if !rows.is_empty() {
            self.line(&names, &widths, out)?;
        }
        for row in &rows {
            self.line(row, &widths, out)?;
        }
        self.widths = Some(widths);
        Ok(())
    }

    fn line(&self, cells: &[String], widths: &[usize], out: &mut impl Write) -> io::Result<()> {
        let mut line = String::new();
        for ((cell, width), column) in cells.iter().zip(widths).zip(&self.columns) {
            let pad = " ".repeat(width.saturating_sub(cell.chars().count()));
            let (before, after) = if column.is_number { (&*pad, "") } else { ("", &*pad) };
            line.extend([before, cell, after, "  "]);
        }
        writeln!(out, "{}", line.trim_end())
    }
}

/// The values of the group key, as they stand above a table.
fn key<'a>(columns: impl Iterator<Item = (&'a str, bool, &'a FluxValue)>) -> String {
    let shown = columns.filter(|(name, is_group, _)| *is_group && !matches!(*name, "result" | "table"));
    shown.map(|(name, _, value)| format!("{}={}", plain(name), cell(value))).collect::<Vec<_>>().join(" ")
}

/// A value in a table.
fn cell(value: &FluxValue) -> String {
    cut(match value {
        FluxValue::String(text) => plain(text).into_owned(),
        FluxValue::Double(v) if v.is_finite() => text::number(*v),
        FluxValue::Time(time) => text::local(*time),
        other => match json_value(other) {
            Value::Null => String::new(),
            Value::String(text) => text,
            value => value.to_string(),
        },
    })
}

fn cut(text: String) -> String {
    if text.chars().count() <= CELL_CHARS_MAX {
        return text;
    }
    text.chars().take(CELL_CHARS_MAX - 1).chain(['…']).collect()
}

fn as_json(row: &FluxRecord) -> Value {
    let mut object = Map::new();
    for (name, value) in row.iter() {
        // As `FluxRecord::get`: of columns with the same name the first counts.
        object.entry(name).or_insert_with(|| json_value(value));
    }
    Value::Object(object)
}

/// A value as JSON: integers stay exact, and what JSON has no number for is a text as in the answer.
fn json_value(value: &FluxValue) -> Value {
    match value {
        FluxValue::String(v) => json!(&**v),
        FluxValue::Long(v) => json!(v),
        FluxValue::UnsignedLong(v) => json!(v),
        FluxValue::Double(v) if v.is_finite() => json!(v),
        FluxValue::Double(v) if v.is_nan() => json!("NaN"),
        FluxValue::Double(v) => json!(if *v > 0.0 { "+Inf" } else { "-Inf" }),
        FluxValue::Boolean(v) => json!(v),
        FluxValue::Time(v) => json!(v.to_string()),
        FluxValue::Duration(v) => {
            let minus = if *v < 0 { "-" } else { "" };
            json!(format!("{minus}{:?}", Duration::from_nanos(v.unsigned_abs())))
        }
        FluxValue::Binary(v) => json!(v.iter().map(|byte| format!("{byte:02x}")).collect::<String>()),
        _ => Value::Null,
    }
}
