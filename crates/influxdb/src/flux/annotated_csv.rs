//! Reads the answer to a Flux query, annotated CSV, as it streams: bytes in, tables and rows out. Pure; must not know how
//! the bytes came.
//!
//! An answer is blocks that an empty line parts. A block is annotations (`#datatype`, `#group`, `#default`: any of them, in
//! any order), a header, and the rows of one table or several. A query that fails after it has sent rows ends its answer
//! with a block of the columns `error` and `reference`.

use crate::error::{Error, Kind};
use crate::flux::table::{FluxColumn, FluxItem, FluxRecord, FluxTable, FluxType, FluxValue, number};
use crate::server::refusal::shortened;
use graylogic_line::Timestamp;
use std::borrow::Cow;
use std::sync::Arc;

/// A longer record is an error.
const RECORD_BYTES_MAX: usize = 64 << 20;
/// A record of more cells is an error: each takes much more room than the two bytes it may have in the answer.
const CELLS_MAX: usize = 100_000;
/// What [`FluxReader::read_all`] feeds at once.
const CHUNK_BYTES: usize = 64 << 10;
/// Values are cut to this in messages.
const SHOWN_CHARS_MAX: usize = 60;

/// Reads the answer to a Flux query as it comes, in pieces of any size.
///
/// It holds the bytes that were fed and not yet taken, so take everything after each piece: what remains is less than one
/// record, which is at most 64 MiB.
///
/// Quoted line ends are read as `\n`, because servers write that as CR LF. Bytes that are no UTF-8 are read as U+FFFD.
/// An empty cell is the default of its column, or else null, whether or not it is quoted.
///
/// ```
/// use graylogic_influxdb::{FluxItem, FluxReader};
///
/// let mut reader = FluxReader::new();
/// let mut sum = 0.0;
/// for piece in ["#datatype,string,long,double\r\n,result,ta", "ble,_value\r\n,_result,0,2", "0\r\n,_result,0,1.5\r\n\r\n"] {
///     reader.feed(piece.as_bytes())?;
///     while let Some(item) = reader.next_item()? {
///         if let FluxItem::Record(row) = item {
///             sum += row.value().and_then(|v| v.as_f64()).unwrap_or(0.0);
///         }
///     }
/// }
/// reader.finish();
/// assert_eq!(reader.next_item()?, None);
/// assert_eq!(sum, 21.5);
/// # Ok::<(), graylogic_influxdb::Error>(())
/// ```
#[derive(Debug)]
pub struct FluxReader {
    records: Records,
    answer: Answer,
    /// The row that begins the table handed out last.
    first_row: Option<FluxRecord>,
    is_finished: bool,
    /// Nothing comes any more, because all was taken or it failed.
    is_over: bool,
}

impl Default for FluxReader {
    fn default() -> Self {
        Self::new()
    }
}

impl FluxReader {
    /// A reader of an answer from its beginning.
    #[must_use]
    pub fn new() -> Self {
        Self {
            records: Records::default(),
            answer: Answer::new(true),
            first_row: None,
            is_finished: false,
            is_over: false,
        }
    }

    /// A reader of an answer that was asked for without headers: its columns have no names, but for `result` and `table`.
    #[must_use]
    pub fn without_headers() -> Self {
        Self { answer: Answer::new(false), ..Self::new() }
    }

    /// All tables of an answer that is there as a whole.
    ///
    /// # Errors
    /// Those of [`next_item`](Self::next_item); the tables before are lost then.
    pub fn read_all(answer: &[u8]) -> Result<Vec<FluxTable>, Error> {
        let mut reader = Self::new();
        let mut tables = Vec::new();
        for chunk in answer.chunks(CHUNK_BYTES) {
            reader.feed(chunk)?;
            reader.take_tables(&mut tables)?;
        }
        reader.finish();
        reader.take_tables(&mut tables)?;
        Ok(tables)
    }

    /// Takes the next bytes of the answer; after an error they are let go.
    ///
    /// # Errors
    /// When more than 64 MiB of earlier bytes wait to be taken: nothing of the new ones is kept then.
    ///
    /// # Panics
    /// In debug builds, after [`finish`](Self::finish).
    pub fn feed(&mut self, bytes: &[u8]) -> Result<(), Error> {
        debug_assert!(!self.is_finished, "an answer goes on after its end");
        if self.is_over {
            return Ok(());
        }
        if self.records.waiting() > RECORD_BYTES_MAX {
            let message = "read the answer: more than 64 MiB of it wait: take the rows after each piece";
            return Err(Error::new(Kind::QueryFailed, message));
        }
        self.records.feed(bytes);
        Ok(())
    }

    /// Says that the answer ends here; what it held is still to be taken.
    pub fn finish(&mut self) {
        self.is_finished = true;
    }

    /// The next table or row; `None` when more bytes are needed, or when there is nothing more.
    ///
    /// # Errors
    /// When the server broke off the answer with an error (the message has its words), and when the answer is no
    /// annotated CSV, has a record of more than 64 MiB, or ends in the middle of a line; the message names the line. What
    /// came before was handed out before, and nothing comes after it.
    pub fn next_item(&mut self) -> Result<Option<FluxItem>, Error> {
        if let Some(row) = self.first_row.take() {
            return Ok(Some(FluxItem::Record(row)));
        }
        let found = self.advance();
        if found.is_err() {
            self.is_over = true;
            self.records = Records::default();
        }
        let failed =
            |problem| Error::new(Kind::QueryFailed, shortened(format!("read the answer: {problem}")));
        found.map_err(failed)
    }

    /// The next row, whichever table it is of; `None` when more bytes are needed, or when there is nothing more.
    ///
    /// # Errors
    /// Those of [`next_item`](Self::next_item).
    pub fn next_record(&mut self) -> Result<Option<FluxRecord>, Error> {
        loop {
            match self.next_item()? {
                Some(FluxItem::Record(row)) => return Ok(Some(row)),
                Some(FluxItem::Table(_)) => {}
                None => return Ok(None),
            }
        }
    }

    /// Takes everything that came: rows of the table that began last are added to the last of these tables.
    ///
    /// # Errors
    /// Those of [`next_item`](Self::next_item); what came before is among the tables.
    pub fn take_tables(&mut self, tables: &mut Vec<FluxTable>) -> Result<(), Error> {
        while let Some(item) = self.next_item()? {
            match (item, tables.last_mut()) {
                (FluxItem::Table(table), _) => tables.push(table),
                (FluxItem::Record(row), Some(table)) => table.rows.push(row),
                (FluxItem::Record(row), None) => tables.push(FluxTable::begun_by(row)),
            }
        }
        Ok(())
    }

    fn advance(&mut self) -> Result<Option<FluxItem>, String> {
        while !self.is_over {
            let Some(record) = self.records.next()? else {
                if !self.is_finished {
                    return Ok(None);
                }
                self.is_over = true;
                self.records.end()?;
                return Ok(self.answer.end(self.records.line)?.map(FluxItem::Table));
            };
            match self.answer.read(&record)? {
                (Some(table), row) => {
                    self.first_row = row;
                    return Ok(Some(FluxItem::Table(table)));
                }
                (None, Some(row)) => return Ok(Some(FluxItem::Record(row))),
                (None, None) => {}
            }
        }
        Ok(None)
    }
}

/// Cuts bytes into records and cells (RFC 4180). Keeps its place in a record that has not come whole.
#[derive(Debug, Default)]
struct Records {
    buffer: Vec<u8>,
    /// Where the record begins; offsets below count from here.
    start: usize,
    /// How far the record was looked at.
    at: usize,
    cell_start: usize,
    state: State,
    cells: Vec<Bounds>,
    /// Line ends before the record, and within it.
    lines: u64,
    lines_within: u64,
    /// The record was handed out: these bytes go when the next is asked for.
    taken: usize,
    /// The line on which the record begins, from 1.
    line: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Plain,
    Quoted,
    /// After a quote within a quoted cell: its end, or the first of two that stand for one.
    Quote,
    /// After a CR that follows a quoted cell.
    Return,
}

/// A cell in its record, without the quotes around it.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    start: u32,
    end: u32,
    is_quoted: bool,
}

impl Records {
    fn waiting(&self) -> usize {
        self.buffer.len() - self.start - self.taken
    }

    fn feed(&mut self, bytes: &[u8]) {
        self.let_go();
        // Only when it pays: moving what remains costs its length.
        if self.start * 2 >= self.buffer.len() {
            self.buffer.drain(..self.start);
            self.start = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    fn let_go(&mut self) {
        if self.taken > 0 {
            self.start += self.taken;
            self.lines += self.lines_within;
            (self.taken, self.at, self.cell_start, self.lines_within) = (0, 0, 0, 0);
            self.cells.clear();
        }
    }

    /// The next record that is there as a whole.
    fn next(&mut self) -> Result<Option<Record<'_>>, String> {
        self.let_go();
        self.line = self.lines + 1;
        let is_whole = self.scan().map_err(|problem| format!("line {}: {problem}", self.line))?;
        if self.at > RECORD_BYTES_MAX {
            return Err(format!("line {}: the record is longer than 64 MiB", self.line));
        }
        if !is_whole {
            return Ok(None);
        }
        self.taken = self.at;
        let bytes = &self.buffer[self.start..self.start + self.at];
        Ok(Some(Record { bytes, cells: &self.cells, line: self.line }))
    }

    /// Looks for the end of the record, and notes its cells on the way.
    fn scan(&mut self) -> Result<bool, String> {
        let bytes = &self.buffer[self.start..];
        let mut at = self.at;
        while let Some(&byte) = bytes.get(at) {
            match self.state {
                State::Plain => {
                    let found = bytes[at..].iter().position(|b| matches!(b, b',' | b'\n' | b'"'));
                    let Some(length) = found else {
                        at = bytes.len();
                        break;
                    };
                    at += length;
                    if bytes[at] != b'"' {
                        let is_end = bytes[at] == b'\n';
                        let is_after_return = is_end && at > self.cell_start && bytes[at - 1] == b'\r';
                        let end = at - usize::from(is_after_return);
                        note(&mut self.cells, self.cell_start, end, false)?;
                        at += 1;
                        self.cell_start = at;
                        if is_end {
                            self.at = at;
                            self.lines_within += 1;
                            return Ok(true);
                        }
                    } else if at == self.cell_start {
                        at += 1;
                        self.state = State::Quoted;
                    } else {
                        return Err("a quote within a cell that is not quoted".to_owned());
                    }
                }
                State::Quoted => {
                    match byte {
                        b'"' => self.state = State::Quote,
                        b'\n' => self.lines_within += 1,
                        _ => {}
                    }
                    at += 1;
                }
                State::Quote if byte == b'"' => {
                    self.state = State::Quoted;
                    at += 1;
                }
                State::Quote if byte == b'\r' => {
                    self.state = State::Return;
                    at += 1;
                }
                State::Quote | State::Return => {
                    if byte != b'\n' && (byte != b',' || self.state == State::Return) {
                        return Err("text after the end of a quoted cell".to_owned());
                    }
                    let end = at - 1 - usize::from(self.state == State::Return);
                    note(&mut self.cells, self.cell_start + 1, end, true)?;
                    self.state = State::Plain;
                    at += 1;
                    self.cell_start = at;
                    if byte == b'\n' {
                        self.at = at;
                        self.lines_within += 1;
                        return Ok(true);
                    }
                }
            }
        }
        self.at = at;
        Ok(false)
    }

    /// Whether the answer ended where a record did.
    fn end(&self) -> Result<(), String> {
        match self.at {
            0 => Ok(()),
            _ => Err(format!("it ends in the middle of line {}: it did not come whole", self.line)),
        }
    }
}

fn note(cells: &mut Vec<Bounds>, start: usize, end: usize, is_quoted: bool) -> Result<(), String> {
    // Whoever is asked for the record sees that it is too long; this keeps the numbers small.
    let (Ok(start), Ok(end)) = (u32::try_from(start), u32::try_from(end)) else {
        return Err("the record is longer than 64 MiB".to_owned());
    };
    if cells.len() == CELLS_MAX {
        return Err(format!("the record has more than {CELLS_MAX} cells"));
    }
    cells.push(Bounds { start, end, is_quoted });
    Ok(())
}

/// A line of the answer, or several where line ends are quoted.
struct Record<'a> {
    bytes: &'a [u8],
    /// At least one.
    cells: &'a [Bounds],
    line: u64,
}

impl<'a> Record<'a> {
    fn is_blank(&self) -> bool {
        matches!(self.cells, [only] if only.start == only.end && !only.is_quoted)
    }

    /// The name of the annotation that this line is.
    fn annotation(&self) -> Option<&'a [u8]> {
        let first = self.cells.first().filter(|c| !c.is_quoted)?;
        self.raw(first).strip_prefix(b"#")
    }

    fn raw(&self, cell: &Bounds) -> &'a [u8] {
        &self.bytes[cell.start as usize..cell.end as usize]
    }

    /// What a cell says, without the marks of quoting.
    fn cell(&self, cell: &Bounds) -> Cow<'a, [u8]> {
        let raw = self.raw(cell);
        if !cell.is_quoted || !raw.iter().any(|b| matches!(b, b'"' | b'\r')) {
            return Cow::Borrowed(raw);
        }
        let mut said = Vec::with_capacity(raw.len());
        let mut rest = raw.iter().copied().peekable();
        while let Some(byte) = rest.next() {
            match (byte, rest.peek()) {
                (b'"', Some(b'"')) => {
                    rest.next();
                    said.push(b'"');
                }
                (b'\r', Some(b'\n')) => {}
                _ => said.push(byte),
            }
        }
        Cow::Owned(said)
    }

    fn text(&self, cell: &Bounds) -> String {
        String::from_utf8_lossy(&self.cell(cell)).into_owned()
    }

    /// The cells after the first, which belongs to the annotations.
    fn columns(&self) -> &'a [Bounds] {
        self.cells.get(1..).unwrap_or_default()
    }

    fn texts(&self) -> Vec<String> {
        self.columns().iter().map(|c| self.text(c)).collect()
    }
}

/// Makes tables and rows of records.
#[derive(Debug)]
struct Answer {
    has_headers: bool,
    annotations: Annotations,
    block: Block,
}

/// The annotations of a block, as far as they came; one that was not asked for does not come.
#[derive(Debug, Default)]
struct Annotations {
    datatypes: Option<Vec<String>>,
    groups: Option<Vec<String>>,
    defaults: Option<Vec<String>>,
}

#[derive(Debug)]
enum Block {
    /// None: an annotation, a header, or a row when there are no headers.
    None,
    Tables(Tables),
    /// What the server says instead of more rows: the places of `error` and `reference`.
    Error {
        error: usize,
        reference: Option<usize>,
    },
}

/// The tables of a block: they have the same columns.
#[derive(Debug)]
struct Tables {
    columns: Arc<[FluxColumn]>,
    result_at: Option<usize>,
    table_at: Option<usize>,
    /// `result` and `table` of the row before; `None` before the first.
    previous: Option<(FluxValue, FluxValue)>,
    /// The texts met last in each column, to be shared.
    texts: Vec<Option<Arc<str>>>,
}

impl Answer {
    fn new(has_headers: bool) -> Self {
        Self { has_headers, annotations: Annotations::default(), block: Block::None }
    }

    /// What a record brings: the beginning of a table, a row, both, or neither.
    fn read(&mut self, record: &Record<'_>) -> Result<(Option<FluxTable>, Option<FluxRecord>), String> {
        if record.is_blank() {
            return Ok((self.end(record.line)?, None));
        }
        if let Some(annotation) = record.annotation() {
            let ended = match &self.block {
                Block::None => None,
                _ => self.end(record.line)?,
            };
            match annotation {
                b"datatype" => self.annotations.datatypes = Some(record.texts()),
                b"group" => self.annotations.groups = Some(record.texts()),
                b"default" => self.annotations.defaults = Some(record.texts()),
                // Others may come one day, and are comments until then.
                _ => {}
            }
            return Ok((ended, None));
        }
        if record.cells.first().is_none_or(|c| c.start != c.end) {
            let shown = shown(record.bytes);
            return Err(format!("line {}: it is no annotated CSV: {shown}", record.line));
        }
        if matches!(self.block, Block::None) {
            let at_line = |problem: String| format!("line {}: {problem}", record.line);
            self.block = self.begin(record).map_err(at_line)?;
            if self.has_headers || matches!(self.block, Block::Error { .. }) {
                return Ok((None, None));
            }
        }
        match &mut self.block {
            Block::Tables(tables) => {
                tables.read(record).map_err(|problem| format!("line {}: {problem}", record.line))
            }
            Block::Error { error, reference } => Err(broken_off(record, *error, *reference)),
            Block::None => Ok((None, None)),
        }
    }

    /// The block that begins with this header, or with this row when there are no headers.
    fn begin(&mut self, record: &Record<'_>) -> Result<Block, String> {
        let annotations = std::mem::take(&mut self.annotations);
        let first = record.columns().first().map(|c| record.raw(c));
        // The server heads errors even when asked for no headers; rows have a number in the second column.
        let is_error = first == Some(b"error")
            && (self.has_headers || record.columns().get(1).is_none_or(|c| record.raw(c) == b"reference"));
        let names = record.texts();
        if is_error {
            let reference = names.iter().position(|n| n == "reference");
            return Ok(Block::Error { error: 0, reference });
        }
        let names = if self.has_headers { names } else { nameless(names.len()) };
        Tables::new(names, annotations).map(Block::Tables)
    }

    /// Ends the block before this line: a table without rows is known only then.
    fn end(&mut self, line: u64) -> Result<Option<FluxTable>, String> {
        let annotations = std::mem::take(&mut self.annotations);
        match std::mem::replace(&mut self.block, Block::None) {
            Block::Tables(tables) => Ok(tables.empty()),
            Block::Error { .. } => Err("the server broke it off and did not say why".to_owned()),
            Block::None => match annotations.width() {
                None => Ok(None),
                Some(_) if self.has_headers => {
                    Err(format!("line {line}: annotations without a header: it did not come whole"))
                }
                Some(width) => {
                    let tables = Tables::new(nameless(width), annotations);
                    tables.map(Tables::empty).map_err(|problem| format!("line {line}: {problem}"))
                }
            },
        }
    }
}

/// Names for the columns of an answer without headers.
fn nameless(width: usize) -> Vec<String> {
    let names = ["result", "table"].iter().map(|&n| n.to_owned());
    names.chain(std::iter::repeat(String::new())).take(width).collect()
}

/// The error of a server that could not go on.
fn broken_off(record: &Record<'_>, error: usize, reference: Option<usize>) -> String {
    let said = |at: usize| record.columns().get(at).map(|c| record.text(c)).unwrap_or_default();
    let error = match said(error) {
        none if none.is_empty() => "it did not say why".to_owned(),
        error => error,
    };
    match reference.map(said).filter(|r| !r.is_empty()) {
        Some(reference) => format!("the server broke it off: {error} (reference {reference})"),
        None => format!("the server broke it off: {error}"),
    }
}

impl Annotations {
    /// For how many columns they are, if there are any.
    fn width(&self) -> Option<usize> {
        [&self.datatypes, &self.groups, &self.defaults].into_iter().flatten().map(Vec::len).next()
    }
}

impl Tables {
    fn new(names: Vec<String>, annotations: Annotations) -> Result<Self, String> {
        let Annotations { datatypes, groups, defaults } = annotations;
        for (annotation, cells) in [("datatype", &datatypes), ("group", &groups), ("default", &defaults)] {
            if let Some(cells) = cells.as_ref().filter(|c| c.len() != names.len()) {
                let (found, wanted) = (cells.len(), names.len());
                return Err(format!(
                    "the annotation #{annotation} is for {found} columns, and there are {wanted}"
                ));
            }
        }
        let cell = |cells: &Option<Vec<String>>, at: usize| cells.as_ref().and_then(|c| c.get(at)).cloned();
        let mut columns = Vec::with_capacity(names.len());
        for (at, name) in names.into_iter().enumerate() {
            let datatype = match cell(&datatypes, at) {
                None => FluxType::String,
                Some(text) => FluxType::parse(&text).ok_or_else(|| {
                    format!("column \"{name}\" is of the unknown datatype {}", shown(text.as_bytes()))
                })?,
            };
            let is_group = match cell(&groups, at).as_deref() {
                None | Some("false") => false,
                Some("true") => true,
                Some(other) => {
                    let other = shown(other.as_bytes());
                    return Err(format!(
                        "the annotation #group of column \"{name}\" is neither true nor false: {other}"
                    ));
                }
            };
            let default = match cell(&defaults, at) {
                Some(text) if !text.is_empty() => value(text.as_bytes(), datatype, &mut None)
                    .map_err(|problem| format!("the default of column \"{name}\": {problem}"))?,
                _ => FluxValue::Null,
            };
            columns.push(FluxColumn { name, datatype, is_group, default });
        }
        let place = |name: &str| columns.iter().position(|c| c.name == name);
        Ok(Self {
            result_at: place("result"),
            table_at: place("table"),
            previous: None,
            texts: vec![None; columns.len()],
            columns: columns.into(),
        })
    }

    fn read(&mut self, record: &Record<'_>) -> Result<(Option<FluxTable>, Option<FluxRecord>), String> {
        let cells = record.columns();
        if cells.len() != self.columns.len() {
            let (found, wanted) = (cells.len(), self.columns.len());
            return Err(format!("the row has {found} cells for {wanted} columns"));
        }
        let mut values = Vec::with_capacity(cells.len());
        for ((cell, column), text) in cells.iter().zip(&*self.columns).zip(&mut self.texts) {
            values.push(if cell.start == cell.end {
                column.default.clone()
            } else {
                value(&record.cell(cell), column.datatype, text)
                    .map_err(|problem| format!("column \"{}\": {problem}", column.name))?
            });
        }
        let at = |place: Option<usize>| place.and_then(|p| values.get(p)).unwrap_or(&FluxValue::Null);
        let (result, table) = (at(self.result_at), at(self.table_at));
        let is_same = self.previous.as_ref().is_some_and(|(r, t)| r == result && t == table);
        let begins = (!is_same).then(|| self.table(result, table));
        if !is_same {
            self.previous = Some((result.clone(), table.clone()));
        }
        let row = FluxRecord { columns: self.columns.clone(), values, line: record.line };
        Ok((begins, Some(row)))
    }

    /// The table of a block without rows; its place comes in the defaults.
    fn empty(self) -> Option<FluxTable> {
        if self.previous.is_some() {
            return None;
        }
        let at = |place: Option<usize>| {
            place.and_then(|p| self.columns.get(p)).map_or(&FluxValue::Null, |c| &c.default)
        };
        Some(self.table(at(self.result_at), at(self.table_at)))
    }

    fn table(&self, result: &FluxValue, table: &FluxValue) -> FluxTable {
        FluxTable {
            result: match result {
                FluxValue::String(name) => name.clone(),
                _ => "".into(),
            },
            number: number(table),
            columns: self.columns.clone(),
            rows: Vec::new(),
        }
    }
}

/// The value of a cell that is not empty. Texts that are the same as the one before share it.
fn value(cell: &[u8], datatype: FluxType, before: &mut Option<Arc<str>>) -> Result<FluxValue, String> {
    if datatype == FluxType::String {
        return Ok(FluxValue::String(match before {
            Some(before) if before.as_bytes() == cell => before.clone(),
            _ => before.insert(String::from_utf8_lossy(cell).into()).clone(),
        }));
    }
    let text = std::str::from_utf8(cell).unwrap_or_default();
    let found = match datatype {
        FluxType::String => None,
        FluxType::Long => text.parse().ok().map(FluxValue::Long),
        FluxType::UnsignedLong => text.parse().ok().map(FluxValue::UnsignedLong),
        FluxType::Double => text.parse().ok().map(FluxValue::Double),
        FluxType::Boolean => match text {
            "true" => Some(FluxValue::Boolean(true)),
            "false" => Some(FluxValue::Boolean(false)),
            _ => None,
        },
        FluxType::Time => match instant(cell) {
            Some(Ok(time)) => Some(FluxValue::Time(time)),
            Some(Err(OutOfRange)) => {
                return Err(format!("{} is no time between the years 1677 and 2262", shown(cell)));
            }
            None => None,
        },
        FluxType::Duration => duration(text).map(FluxValue::Duration),
        FluxType::Binary => base64(cell).map(FluxValue::Binary),
    };
    found.ok_or_else(|| format!("{} is no {datatype}", shown(cell)))
}

/// A value in a message: quoted, and cut when it is long.
fn shown(cell: &[u8]) -> String {
    // A character has four bytes at most.
    let text = String::from_utf8_lossy(&cell[..cell.len().min(4 * SHOWN_CHARS_MAX)]);
    let start: String = text.trim_end().chars().take(SHOWN_CHARS_MAX).collect();
    let is_cut = start.len() < text.trim_end().len() || cell.len() > 4 * SHOWN_CHARS_MAX;
    format!("{start:?}{}", if is_cut { "…" } else { "" })
}

/// An instant beyond what 64 bits of nanoseconds hold.
#[derive(Debug, PartialEq)]
pub(crate) struct OutOfRange;

/// The instant of an RFC 3339 text; digits beyond the nanosecond are let go.
pub(crate) fn instant(text: &[u8]) -> Option<Result<Timestamp, OutOfRange>> {
    let (fixed, rest) = text.split_at_checked(19)?;
    let digits = |from: usize, to: usize| {
        let digit =
            |sum: Option<i64>, b: &u8| b.is_ascii_digit().then(|| Some(sum? * 10 + i64::from(b - b'0')))?;
        fixed[from..to].iter().fold(Some(0), digit)
    };
    let marks = (fixed[4], fixed[7], fixed[10], fixed[13], fixed[16]);
    if !matches!(marks, (b'-', b'-', b'T' | b't' | b' ', b':', b':')) {
        return None;
    }
    let (year, month, day) = (digits(0, 4)?, digits(5, 7)?, digits(8, 10)?);
    let (hour, minute, second) = (digits(11, 13)?, digits(14, 16)?, digits(17, 19)?);
    if !(1..=12).contains(&month) || !(1..=days_of(year, month)).contains(&day) {
        return None;
    }
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let (nanos, zone) = match rest.strip_prefix(b".") {
        None => (0, rest),
        Some(fraction) => {
            let length = fraction.iter().take_while(|b| b.is_ascii_digit()).count();
            let (digits, zone) = fraction.split_at(length);
            let nanos = (0..9).fold(0, |sum, i| sum * 10 + digits.get(i).map_or(0, |b| i64::from(b - b'0')));
            (if digits.is_empty() { return None } else { nanos }, zone)
        }
    };
    let offset_seconds = match zone {
        b"Z" | b"z" => 0,
        &[sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] if [h1, h2, m1, m2].iter().all(u8::is_ascii_digit) => {
            let two = |a: u8, b: u8| i64::from(a - b'0') * 10 + i64::from(b - b'0');
            let (hours, minutes) = (two(h1, h2), two(m1, m2));
            if hours > 23 || minutes > 59 {
                return None;
            }
            (hours * 3600 + minutes * 60) * if sign == b'-' { -1 } else { 1 }
        }
        _ => return None,
    };
    let seconds =
        days_since_epoch(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second - offset_seconds;
    let all = i128::from(seconds) * 1_000_000_000 + i128::from(nanos);
    Some(i64::try_from(all).map(Timestamp::from_nanos).map_err(|_| OutOfRange))
}

fn days_of(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from 1970-01-01, in the proleptic Gregorian calendar: years begin in March, so that the leap day comes last.
fn days_since_epoch(year: i64, month: i64, day: i64) -> i64 {
    let year = year - i64::from(month <= 2);
    let from_march = (month + 9) % 12;
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    year * 365 + leap_days + (from_march * 153 + 2) / 5 + day - 1 - 719_468
}

/// A length of time in nanoseconds: a whole number of them, or numbers with units as Flux and Go write them (`1h30m`,
/// `-1.5s`). Months and years have no fixed length and are none.
fn duration(text: &str) -> Option<i64> {
    const UNITS: [(&str, i128); 9] = [
        ("ns", 1),
        ("us", 1_000),
        ("µs", 1_000),
        ("ms", 1_000_000),
        ("s", 1_000_000_000),
        ("m", 60_000_000_000),
        ("h", 3_600_000_000_000),
        ("d", 86_400_000_000_000),
        ("w", 604_800_000_000_000),
    ];
    /// More digits of a number than a length of time can have.
    const DIGITS_MAX: usize = 19;
    if let Ok(nanos) = text.parse() {
        return Some(nanos);
    }
    let (is_negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let leading = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
    let mut sum: i128 = 0;
    // Each turn takes a digit at least; an empty text has none.
    loop {
        let (whole, after) = rest.split_at(leading(rest));
        let (fraction, after) = match after.strip_prefix('.') {
            Some(after) => after.split_at(leading(after)),
            None => ("", after),
        };
        if whole.is_empty() || whole.len() > DIGITS_MAX || fraction.len() > DIGITS_MAX {
            return None;
        }
        let ends = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at(ends);
        let nanos = UNITS.iter().find(|(name, _)| *name == unit)?.1;
        let fraction_nanos = match fraction {
            "" => 0,
            digits => digits.parse::<i128>().ok()? * nanos / 10i128.pow(u32::try_from(digits.len()).ok()?),
        };
        sum = sum.checked_add(whole.parse::<i128>().ok()? * nanos + fraction_nanos)?;
        rest = after;
        if rest.is_empty() {
            return i64::try_from(if is_negative { -sum } else { sum }).ok();
        }
    }
}

/// The bytes of a base64 text (RFC 4648, the alphabet with `+` and `/`, padded).
fn base64(text: &[u8]) -> Option<Vec<u8>> {
    let sextet = |b: u8| {
        Some(u32::from(match b {
            b'A'..=b'Z' => b - b'A',
            b'a'..=b'z' => b - b'a' + 26,
            b'0'..=b'9' => b - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        }))
    };
    if !text.len().is_multiple_of(4) {
        return None;
    }
    let padding = text.iter().rev().take(2).take_while(|b| **b == b'=').count();
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    for (digits, is_last) in text.chunks(4).zip((1..=text.len() / 4).map(|i| i * 4 == text.len())) {
        let known = if is_last { 4 - padding } else { 4 };
        let bits = digits[..known].iter().try_fold(0, |sum, b| Some(sum << 6 | sextet(*b)?))?;
        let bits = bits << (6 * (4 - known));
        let [_, a, b, c] = bits.to_be_bytes();
        bytes.extend_from_slice(&[a, b, c][..known - 1]);
        // Bits that are in no byte must be clear, or two texts would be the same bytes.
        if bits & ((1 << (8 * (4 - known))) - 1) != 0 {
            return None;
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn times_are_rfc_3339_of_64_bits_of_nanoseconds() {
        let good = [
            ("1970-01-01T00:00:00Z", 0),
            ("1970-01-01T01:00:00.5+01:00", 500_000_000),
            ("1969-12-31t23:59:59.999999999z", -1),
            ("1969-12-31 22:30:00-01:30", 0),
            ("2026-03-04T00:00:01.000000001Z", 1_772_582_401_000_000_001),
            ("2000-02-29T00:00:00.12345678999Z", 951_782_400_123_456_789),
            ("1677-09-21T00:12:43.145224192Z", i64::MIN),
            ("2262-04-11T23:47:16.854775807Z", i64::MAX),
        ];
        for (text, nanos) in good {
            assert_eq!(instant(text.as_bytes()), Some(Ok(Timestamp::from_nanos(nanos))), "{text}");
        }
        let beyond = [
            "1677-09-21T00:12:43.145224191Z",
            "2262-04-11T23:47:16.854775808Z",
            "0000-01-01T00:00:00Z",
            "9999-12-31T23:59:59Z",
        ];
        for text in beyond {
            assert_eq!(instant(text.as_bytes()), Some(Err(OutOfRange)), "{text}");
        }
        let bad = [
            "2026-03-04",
            "2026-03-04T00:00:00",
            "2026-03-04T00:00:00.Z",
            "2026-13-04T00:00:00Z",
            "2026-00-04T00:00:00Z",
            "2025-02-29T00:00:00Z",
            "1900-02-29T00:00:00Z",
            "2026-04-31T00:00:00Z",
            "2026-03-04T24:00:00Z",
            "2026-03-04T00:60:00Z",
            "2026-03-04T00:00:60Z",
            "2026-03-04T00:00:00+1:00",
            "2026-03-04T00:00:00+24:00",
            "2026-03-04T00:00:00Zx",
            "+026-03-04T00:00:00Z",
            "1772582400",
            "",
        ];
        for text in bad {
            assert_eq!(instant(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn durations_are_nanoseconds_or_numbers_with_units() {
        let cases = [
            ("0", Some(0)),
            ("-15", Some(-15)),
            ("1h30m", Some(5_400_000_000_000)),
            ("-1.5s", Some(-1_500_000_000)),
            ("+2µs3us4ns", Some(5_004)),
            ("1w1d", Some(691_200_000_000_000)),
            ("0.0000000005s", Some(0)),
            ("9223372036854775807ns", Some(i64::MAX)),
            ("-9223372036854775808ns", Some(i64::MIN)),
            ("9223372036854775808ns", None),
            ("99999999999999999999ns", None),
            ("1mo", None),
            ("1y", None),
            ("1.5", None),
            (".5s", None),
            ("h", None),
            ("1h30", None),
            ("--1s", None),
            ("1 s", None),
            ("", None),
        ];
        for (text, nanos) in cases {
            assert_eq!(duration(text), nanos, "{text}");
        }
    }

    #[test]
    fn base64_is_padded_and_has_one_text_for_the_same_bytes() {
        // The vectors of RFC 4648, and both characters that differ between alphabets.
        let good = [
            ("Zg==", "f"),
            ("Zm8=", "fo"),
            ("Zm9v", "foo"),
            ("Zm9vYg==", "foob"),
            ("Zm9vYmE=", "fooba"),
            ("Zm9vYmFy", "foobar"),
        ];
        for (text, bytes) in good {
            assert_eq!(base64(text.as_bytes()).as_deref(), Some(bytes.as_bytes()), "{text}");
        }
        assert_eq!(base64(b"+/+/"), Some(vec![0xfb, 0xff, 0xbf]));
        for text in ["Zg", "Zg=", "Z===", "====", "Zh==", "Zm9=", "Zg==Zg==", "Zm 9", "-_-_", "Zm9v\n"] {
            assert_eq!(base64(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn what_was_taken_takes_no_room() {
        let answer = format!(",result,table,x\n{}", ",a,0,some text of a row\n".repeat(10_000));
        for size in [1, 100, 1000] {
            let mut reader = FluxReader::new();
            let mut rows = 0;
            for piece in answer.as_bytes().chunks(size) {
                reader.feed(piece).unwrap();
                while reader.next_record().unwrap().is_some() {
                    rows += 1;
                }
                assert!(reader.records.waiting() < 30 && reader.records.buffer.capacity() < 4 * (size + 30));
            }
            assert_eq!(rows, 10_000);
        }
    }

    proptest! {
        #[test]
        fn a_time_is_what_it_is_shown_as(nanos: i64) {
            let time = Timestamp::from_nanos(nanos);
            prop_assert_eq!(instant(time.to_string().as_bytes()), Some(Ok(time)));
        }
    }
}
