//! The records of a piece of CSV with their places, also when a quote in it is missing. It knows nothing of columns but their
//! count.

use memchr::memchr;
use std::ops::Range;

/// Where a record is in a batch.
pub(super) struct Place {
    pub(super) bytes: Range<usize>,
    /// Its first text line, from 1.
    pub(super) line: usize,
}

/// The records of a batch. A quote that is not closed costs the line it is in, and not those behind it.
pub(super) struct Records<'b> {
    batch: &'b [u8],
    reader: csv::Reader<&'b [u8]>,
    /// Where the reader began: byte and text lines before it.
    began: (usize, usize),
    /// Up to this byte every text line is a record of its own.
    apart_until: usize,
    /// The next of these: byte and text lines before it.
    apart: (usize, usize),
}

impl<'b> Records<'b> {
    pub(super) fn new(batch: &'b [u8]) -> Self {
        Self { batch, reader: reader(batch), began: (0, 0), apart_until: 0, apart: (0, 0) }
    }

    /// The next record with its place, or why it cannot be read. Unless one of several text lines has as many cells as there
    /// are `columns`, if they are known, a quote in it is missing.
    pub(super) fn next(
        &mut self,
        row: &mut csv::StringRecord,
        columns: Option<usize>,
    ) -> Option<Result<Place, (Place, String)>> {
        if self.apart.0 < self.apart_until {
            return Some(self.next_apart(row));
        }
        let start = self.reader.position().byte() as usize;
        let lines = self.reader.position().line() as usize - 1;
        let read = self.reader.read_record(row);
        let end = self.began.0 + self.reader.position().byte() as usize;
        // What is before it are blank lines.
        let blank = blank_bytes(&self.batch[self.began.0 + start..end]);
        let before = &self.batch[self.began.0 + start..][..blank];
        let start = self.began.0 + start + blank;
        let lines = self.began.1 + lines + memchr::memchr_iter(b'\n', before).count();
        let place = Place { bytes: start..end, line: lines + 1 };
        match read {
            Ok(false) => return None,
            Ok(true) => {}
            Err(why) => return Some(Err((place, unreadable(&why)))),
        }
        let text = &self.batch[start..end];
        let has_several_lines = memchr(b'\n', text.trim_ascii_end()).is_some();
        let is_whole = Quotes::of(text, false) == Quotes { open: false, torn: false }
            && columns.is_none_or(|columns| columns == row.len());
        if has_several_lines && !is_whole {
            self.apart = (start, lines);
            // The reader ends a record before the second byte of its line end.
            let has_more = self.batch[..end].ends_with(b"\r") && self.batch.get(end) == Some(&b'\n');
            self.apart_until = end + usize::from(has_more);
            return Some(self.next_apart(row));
        }
        Some(if is_closed(text) { Ok(place) } else { Err((place, OPEN.to_owned())) })
    }

    /// The next text line of a record that was torn apart.
    fn next_apart(&mut self, row: &mut csv::StringRecord) -> Result<Place, (Place, String)> {
        let (start, lines) = self.apart;
        let rest = &self.batch[start..self.apart_until];
        let text = &rest[..memchr(b'\n', rest).map_or(rest.len(), |at| at + 1)];
        let place = Place { bytes: start..start + text.len(), line: lines + 1 };
        self.apart = (place.bytes.end, place.line);
        if place.bytes.end == self.apart_until {
            self.began = self.apart;
            self.reader = reader(&self.batch[place.bytes.end..]);
        }
        if !is_closed(text) {
            return Err((place, OPEN.to_owned()));
        }
        row.clear();
        match reader(text).read_record(row) {
            Ok(_) => Ok(place),
            Err(why) => Err((place, unreadable(&why))),
        }
    }
}

const OPEN: &str = "a quote in this row is not closed";

fn reader(bytes: &[u8]) -> csv::Reader<&[u8]> {
    csv::ReaderBuilder::new().flexible(true).has_headers(false).from_reader(bytes)
}

fn blank_bytes(text: &[u8]) -> usize {
    text.iter().position(|b| !matches!(b, b'\r' | b'\n')).unwrap_or(text.len())
}

fn is_closed(text: &[u8]) -> bool {
    !Quotes::of(text, false).open
}

/// The quotes of a piece of CSV that ends with a line, as its reader has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Quotes {
    /// A cell in quotes goes on behind it.
    pub(super) open: bool,
    /// A quote closes a cell before something else than its end.
    pub(super) torn: bool,
}

impl Quotes {
    /// The quotes of a text that begins inside of quotes, or not.
    pub(super) fn of(text: &[u8], open: bool) -> Self {
        let mut quotes = Self { open, torn: false };
        if !open && memchr(b'"', text).is_none() {
            return quotes;
        }
        let (mut at_start, mut just_closed) = (!open, false);
        for &b in text {
            match b {
                b'"' if just_closed => (quotes.open, just_closed) = (true, false),
                b'"' if quotes.open => (quotes.open, just_closed) = (false, true),
                b'"' if at_start => (quotes.open, at_start) = (true, false),
                _ if quotes.open => {}
                _ => {
                    let is_end = matches!(b, b',' | b'\r' | b'\n');
                    quotes.torn |= just_closed && !is_end;
                    (at_start, just_closed) = (is_end, false);
                }
            }
        }
        quotes
    }
}

fn unreadable(why: &csv::Error) -> String {
    match why.kind() {
        csv::ErrorKind::Utf8 { .. } => "it is not UTF-8".to_owned(),
        _ => why.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, columns: usize) -> Vec<(usize, Result<Vec<String>, String>)> {
        let mut records = Records::new(text.as_bytes());
        let mut row = csv::StringRecord::new();
        let mut found = Vec::new();
        while let Some(next) = records.next(&mut row, Some(columns)) {
            found.push(match next {
                Ok(place) => (place.line, Ok(row.iter().map(str::to_owned).collect())),
                Err((place, why)) => (place.line, Err(why)),
            });
        }
        found
    }

    #[test]
    fn quotes_are_those_of_the_reader() {
        let check = |text: &str, from: bool, open: bool, torn: bool| {
            assert_eq!(Quotes::of(text.as_bytes(), from), Quotes { open, torn }, "{text:?}");
        };
        check("1,a", false, false, false);
        check("1,\"a\",\"b\"\"c\"\r\n", false, false, false);
        check("1,5\" pipe,2\n", false, false, false);
        check("1,\"a\n", false, true, false);
        check("b\",2\n", true, false, false);
        check("2,\"b\"\n", true, false, true);
        check("1,\"a\"b\n", false, false, true);
        check("\"\"\"\n", false, true, false);
        check("\"\"\n", false, false, false);
    }

    #[test]
    fn a_quote_that_is_not_closed_costs_one_line() {
        let good = |line: usize, cells: &[&str]| (line, Ok(cells.iter().map(|&c| c.to_owned()).collect()));
        let open = |line: usize| (line, Err(OPEN.to_owned()));
        for (text, expected) in [
            (
                "1,a\n\n2,\"b\nc\"\r\n3,d",
                vec![good(1, &["1", "a"]), good(3, &["2", "b\nc"]), good(5, &["3", "d"])],
            ),
            ("1,a\n2,\"b\n3,c\n", vec![good(1, &["1", "a"]), open(2), good(3, &["3", "c"])]),
            (
                "1,\"a\n\r\n2,\"b\"\r\n3,\"c\"\n4,d\n5,\"e\nf\"\n",
                vec![
                    open(1),
                    good(3, &["2", "b"]),
                    good(4, &["3", "c"]),
                    good(5, &["4", "d"]),
                    good(6, &["5", "e\nf"]),
                ],
            ),
            ("1,\"a", vec![open(1)]),
            ("", vec![]),
            ("\n\n", vec![]),
        ] {
            let found: Vec<_> = read(text, 2).into_iter().filter(|(_, row)| *row != Ok(vec![])).collect();
            assert_eq!(found, expected, "{text:?}");
        }
        let invalid = b"1,a\n2,\xff\n3,c\n";
        let mut records = Records::new(invalid);
        let mut row = csv::StringRecord::new();
        let mut read = 0;
        while let Some(next) = records.next(&mut row, Some(2)) {
            read += usize::from(next.is_ok());
        }
        assert_eq!(read, 2);
    }
}
