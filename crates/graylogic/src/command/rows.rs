//! Rows of CSV become lines of line protocol. It knows columns and cells, and neither files nor the store.

use super::records::{Place, Records};
use super::rejections::{Rejections, shown};
use crate::cli::Import;
use crate::failure::Failure;
use crate::text;
use graylogic_line::{Dialect, Encoder, FieldValue, OnDuplicate, Point, Timestamp};
use std::path::Path;

/// A file with more columns is not a table of readings.
const COLUMNS_MAX: usize = 4096;
/// This many columns are named in a message.
const COLUMNS_NAMED_MAX: usize = 20;

/// Reads CSV, batch by batch.
pub(super) struct Rows<'a> {
    options: &'a Import,
    path: &'a Path,
    /// Tags that all rows have.
    fixed: Vec<(&'a str, &'a str)>,
    encoder: Encoder,
    head: Option<Head>,
}

/// What the first row declares about the others.
struct Head {
    names: Vec<String>,
    time: usize,
    is_tag: Vec<bool>,
}

/// A batch as line protocol.
#[derive(Default)]
pub(super) struct ReadRows {
    pub(super) lines: Vec<u8>,
    /// For each text line of these, the line of the file in which its row begins.
    pub(super) rows: Vec<usize>,
}

impl<'a> Rows<'a> {
    pub(super) fn new(options: &'a Import, path: &'a Path) -> Result<Self, Failure> {
        let pair = |tag: &'a String| {
            tag.split_once('=').ok_or_else(|| Failure::new(format!("--tag {tag:?}: write KEY=VALUE")))
        };
        let fixed = options.tag.iter().map(pair).collect::<Result<_, _>>()?;
        // The store takes these names, and of columns with one name the last counts.
        let encoder =
            Encoder::new(Dialect::V2).allow_underscore_names(true).on_duplicate(OnDuplicate::LastWins);
        Ok(Self { options, path, fixed, encoder, head: None })
    }

    fn failed(&self, why: impl std::fmt::Display) -> Failure {
        Failure::because(format_args!("import {}", self.path.display()), why)
    }

    /// A line was too long to be read, which the first one may not be.
    pub(super) fn skip(&self, bytes: u64) -> Result<(), Failure> {
        match self.head {
            Some(_) => Ok(()),
            None => Err(self.failed(format_args!("its first row has {bytes} bytes; at most 8 MiB are read"))),
        }
    }

    /// A file without any row is not CSV.
    pub(super) fn finish(&self) -> Result<(), Failure> {
        match self.head {
            Some(_) => Ok(()),
            None => Err(self.failed("it is empty; its first row must name the columns")),
        }
    }

    /// The rows of a batch, whose first line is behind this many of the file. Those that were `done` before are not read.
    pub(super) fn read(
        &mut self,
        batch: &[u8],
        lines_before: usize,
        done: bool,
        rejections: &mut Rejections,
    ) -> Result<ReadRows, Failure> {
        let mut out = ReadRows::default();
        let mut records = Records::new(batch);
        let mut row = csv::StringRecord::new();
        if self.head.is_none() {
            match records.next(&mut row, None) {
                Some(Ok(_)) => self.head = Some(self.read_head(&row)?),
                Some(Err((_, why))) => return Err(self.failed(why)),
                None => return Ok(out),
            }
        }
        let Some(head) = self.head.as_ref().filter(|_| !done) else { return Ok(out) };
        while let Some(next) = records.next(&mut row, Some(head.names.len())) {
            let from = out.lines.len();
            let (Place { bytes, line }, read) = match next {
                Ok(place) => (place, self.line(head, &row, &mut out.lines)),
                Err((place, why)) => (place, Err(why)),
            };
            if let Err(why) = read {
                let text = shown(batch[bytes].trim_ascii_end());
                rejections.add(Some(lines_before + line), &text, &why, &why);
            }
            let text_lines = memchr::memchr_iter(b'\n', &out.lines[from..]).count();
            out.rows.extend(std::iter::repeat_n(lines_before + line, text_lines));
        }
        Ok(out)
    }

    fn read_head(&self, row: &csv::StringRecord) -> Result<Head, Failure> {
        if row.len() > COLUMNS_MAX {
            let columns = text::count(row.len() as u64);
            return Err(self.failed(format_args!("it has {columns} columns; at most {COLUMNS_MAX} are read")));
        }
        let names: Vec<String> =
            row.iter().map(|name| name.trim_start_matches('\u{feff}').to_owned()).collect();
        let place = |name: &str| {
            names.iter().position(|n| n == name).ok_or_else(|| {
                let known: Vec<&str> = names.iter().take(COLUMNS_NAMED_MAX).map(String::as_str).collect();
                let more = if names.len() > COLUMNS_NAMED_MAX { ", ..." } else { "" };
                self.failed(format_args!("there is no column {name:?}; there are {}{more}", known.join(", ")))
            })
        };
        let time = place(&self.options.time)?;
        let mut is_tag = vec![false; names.len()];
        for tag in &self.options.tags {
            is_tag[place(tag)?] = true;
        }
        Ok(Head { names, time, is_tag })
    }

    /// Appends a row as a line. A row without values appends nothing; the reason when a row cannot be a line.
    fn line(&self, head: &Head, row: &csv::StringRecord, out: &mut Vec<u8>) -> Result<(), String> {
        let mut point = Point::new(self.options.measurement.as_deref().unwrap_or_default());
        for (key, value) in &self.fixed {
            point = point.tag(*key, *value);
        }
        let mut fields = 0;
        for (i, cell) in row.iter().enumerate() {
            let Some(name) = head.names.get(i).filter(|_| i != head.time && !cell.is_empty()) else {
                continue;
            };
            if head.is_tag[i] {
                point = point.tag(name, cell);
            } else {
                fields += 1;
                point = point.field(name, field_value(cell));
            }
        }
        if fields == 0 {
            return Ok(());
        }
        let unit = self.options.precision.precision().nanos();
        let at = csv_time(row.get(head.time).unwrap_or_default(), unit)?;
        self.encoder.encode(&point.timestamp(at), out).map_err(|e| e.to_string())
    }
}

fn field_value(cell: &str) -> FieldValue {
    match cell {
        "true" | "True" | "TRUE" => FieldValue::Boolean(true),
        "false" | "False" | "FALSE" => FieldValue::Boolean(false),
        text => match text.parse::<f64>() {
            Ok(v) if v.is_finite() => FieldValue::Float(v),
            _ => FieldValue::String(text.to_owned()),
        },
    }
}

fn csv_time(text: &str, unit: i64) -> Result<Timestamp, String> {
    let wrong = || format!("time {text:?} is neither RFC 3339 nor a number in --precision");
    if let Ok(n) = text.parse::<i64>() {
        return n.checked_mul(unit).map(Timestamp::from_nanos).ok_or_else(wrong);
    }
    let at: jiff::Timestamp = text.parse().map_err(|_| wrong())?;
    i64::try_from(at.as_nanosecond()).map(Timestamp::from_nanos).map_err(|_| wrong())
}
