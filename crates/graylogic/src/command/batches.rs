//! Input cut into batches of whole lines: by count, and by time while it arrives slowly. It knows where lines and CSV records
//! end, and not what they say.

use super::records::Quotes;
use crate::failure::Failure;
use crate::input::{Event, Input};
use graylogic_line::LineEnds;
use memchr::memchr;
use std::time::{Duration, Instant};

/// A longer line is skipped and reported. No spool takes one that is longer.
const LINE_BYTES_MAX: usize = 8 << 20;
/// A batch is cut here even inside a string.
const BATCH_BYTES_MAX: usize = 16 << 20;
/// Input without a line end in this many bytes is no text.
const SKIPPED_BYTES_MAX: u64 = 4 << 30;
/// A string that stays open for longer is taken for a missing quote: what follows it is not held back any more.
const OPEN_STRING_WAIT: Duration = Duration::from_secs(10);
/// This much of a skipped line is kept, to show it.
const SHOWN_BYTES: usize = 64;

/// Takes batches.
pub(super) trait Sink {
    /// Takes a batch of this many text lines.
    fn take(&mut self, batch: &[u8], lines: usize) -> Result<(), Failure>;

    /// Counts a line that was too long to be taken: its beginning, and how long it is.
    fn skip(&mut self, beginning: &[u8], bytes: u64) -> Result<(), Failure>;
}

/// How the input ended.
pub(super) enum Ended {
    AtEnd,
    /// This signal ended it, and so many bytes of an incomplete last line were left out.
    Stopped(i32, usize),
}

/// Hands the input on in batches. Whole lines are held back no longer than `every`.
pub(super) fn hand_on(
    input: &Input,
    mut cutter: Cutter,
    every: Option<Duration>,
    sink: &mut impl Sink,
) -> Result<Ended, Failure> {
    let mut due: Option<Instant> = None;
    loop {
        let event = match due {
            Some(due) if due <= Instant::now() => Event::Due,
            _ => input.next(due),
        };
        match event {
            Event::Bytes(bytes) => cutter.feed(&bytes, sink)?,
            Event::Due => {
                cutter.hand_on(sink)?;
                due = None;
            }
            Event::End => {
                cutter.finish(sink)?;
                return Ok(Ended::AtEnd);
            }
            Event::Stopped(signal) => return Ok(Ended::Stopped(signal, cutter.stop(sink)?)),
            Event::Failed(why) => {
                // What was read before is as good as ever.
                cutter.stop(sink)?;
                return Err(Failure::because("read the input", why));
            }
        }
        due = match every {
            Some(every) if cutter.has_lines() => due.or_else(|| Instant::now().checked_add(every)),
            _ => None,
        };
    }
}

/// Where records end.
pub(super) enum Records {
    /// Lines of line protocol: a line feed inside a string does not end one.
    Lines(LineEnds),
    /// Records of CSV: a line feed between quotes does not end one.
    Csv { quoted: bool },
}

/// What a text line is to the record that it is in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    /// The record ends with it.
    Last,
    /// The record goes on behind it.
    Inner,
    /// It cannot belong to a record that began before: a quote in it stands where none can.
    Foreign,
}

impl Records {
    pub(super) fn lines() -> Self {
        Self::Lines(LineEnds::new())
    }

    pub(super) fn csv() -> Self {
        Self::Csv { quoted: false }
    }

    fn reset(&mut self) {
        match self {
            Self::Lines(ends) => *ends = LineEnds::new(),
            Self::Csv { quoted } => *quoted = false,
        }
    }

    /// Takes a text line with its line feed.
    fn feed(&mut self, line: &[u8]) -> Part {
        let (is_last, is_torn) = match self {
            Self::Lines(ends) => (ends.feed(line).is_some(), ends.is_torn()),
            Self::Csv { quoted } => {
                let quotes = Quotes::of(line, *quoted);
                *quoted = quotes.open;
                (!quotes.open, quotes.torn)
            }
        };
        match (is_last, is_torn) {
            (_, true) => Part::Foreign,
            (true, false) => Part::Last,
            (false, false) => Part::Inner,
        }
    }
}

/// Gathers lines until they are a batch.
pub(super) struct Cutter {
    records: Records,
    lines_max: usize,
    batch: Vec<u8>,
    /// Complete text lines in the batch, and where the one after them begins.
    lines: usize,
    line_start: usize,
    /// Bytes and text lines of complete records.
    whole: (usize, usize),
    /// Since when a record is open behind them.
    open_since: Option<Instant>,
    /// Bytes of a line that is too long, of which only the beginning is in the batch.
    skipped: u64,
}

impl Cutter {
    pub(super) fn new(records: Records, lines_max: usize) -> Self {
        Self {
            records,
            lines_max,
            batch: Vec::new(),
            lines: 0,
            line_start: 0,
            whole: (0, 0),
            open_since: None,
            skipped: 0,
        }
    }

    fn has_lines(&self) -> bool {
        self.lines > 0
    }

    fn feed(&mut self, bytes: &[u8], sink: &mut impl Sink) -> Result<(), Failure> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let end = memchr(b'\n', rest);
            let (piece, after) = rest.split_at(end.map_or(rest.len(), |at| at + 1));
            rest = after;
            if self.skipped > 0 {
                self.skip(piece.len() as u64, end.is_some(), sink)?;
                continue;
            }
            self.batch.extend_from_slice(piece);
            if self.batch.len() - self.line_start > LINE_BYTES_MAX {
                let long = self.batch.split_off(self.line_start);
                self.give_all(sink)?;
                self.batch.extend_from_slice(&long[..SHOWN_BYTES]);
                self.skip(long.len() as u64, end.is_some(), sink)?;
                continue;
            }
            if end.is_some() {
                self.end_line(sink)?;
            }
        }
        Ok(())
    }

    fn end_line(&mut self, sink: &mut impl Sink) -> Result<(), Failure> {
        let mut part = self.records.feed(&self.batch[self.line_start..]);
        if part == Part::Foreign && self.open_since.is_some() {
            // A quote is missing before it: it begins a record of its own.
            self.give_lines(sink)?;
            part = self.records.feed(&self.batch);
        }
        self.lines += 1;
        self.line_start = self.batch.len();
        if part == Part::Inner {
            self.open_since.get_or_insert_with(Instant::now);
        } else {
            self.records.reset();
            self.whole = (self.batch.len(), self.lines);
            self.open_since = None;
        }
        let is_full = part != Part::Inner && self.lines >= self.lines_max;
        if is_full || self.batch.len() > BATCH_BYTES_MAX { self.give_all(sink) } else { Ok(()) }
    }

    /// Skips more bytes of a line that is too long.
    fn skip(&mut self, bytes: u64, ends: bool, sink: &mut impl Sink) -> Result<(), Failure> {
        self.skipped += bytes;
        if ends {
            return self.end_skipped(sink);
        }
        if self.skipped > SKIPPED_BYTES_MAX {
            let message = "read the input: there is no line end in 4 GiB, so it is no line protocol";
            return Err(Failure::new(message));
        }
        Ok(())
    }

    fn end_skipped(&mut self, sink: &mut impl Sink) -> Result<(), Failure> {
        let beginning = std::mem::take(&mut self.batch);
        sink.skip(&beginning, std::mem::take(&mut self.skipped))
    }

    /// Hands on everything that is gathered, which is whole text lines.
    fn give_all(&mut self, sink: &mut impl Sink) -> Result<(), Failure> {
        if self.lines > 0 {
            sink.take(&self.batch, self.lines)?;
        }
        self.batch.clear();
        (self.lines, self.line_start, self.whole, self.open_since) = (0, 0, (0, 0), None);
        self.records.reset();
        Ok(())
    }

    /// Hands on whole records, and open ones that have been open for long.
    fn hand_on(&mut self, sink: &mut impl Sink) -> Result<(), Failure> {
        if self.open_since.is_some_and(|since| since.elapsed() >= OPEN_STRING_WAIT) {
            return self.give_lines(sink);
        }
        let (bytes, lines) = std::mem::take(&mut self.whole);
        if lines > 0 {
            sink.take(&self.batch[..bytes], lines)?;
            self.batch.drain(..bytes);
            self.line_start -= bytes;
            self.lines -= lines;
        }
        Ok(())
    }

    /// Hands on all whole text lines, and keeps what is there of the next one.
    fn give_lines(&mut self, sink: &mut impl Sink) -> Result<(), Failure> {
        let partial = self.batch.split_off(self.line_start);
        self.give_all(sink)?;
        self.batch = partial;
        Ok(())
    }

    /// The input ended: its last line needs no line feed.
    fn finish(&mut self, sink: &mut impl Sink) -> Result<(), Failure> {
        if self.skipped > 0 {
            return self.end_skipped(sink);
        }
        self.lines += usize::from(self.batch.len() > self.line_start);
        self.give_all(sink)
    }

    /// The input was ended: a line without its line feed may lack digits, and is left out. Returns how many bytes it has.
    fn stop(&mut self, sink: &mut impl Sink) -> Result<usize, Failure> {
        if self.skipped > 0 {
            self.end_skipped(sink)?;
            return Ok(0);
        }
        self.give_lines(sink)?;
        Ok(self.batch.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Taken(Vec<String>);

    impl Sink for Taken {
        fn take(&mut self, batch: &[u8], lines: usize) -> Result<(), Failure> {
            self.0.push(format!("{lines}:{}", String::from_utf8_lossy(batch)));
            Ok(())
        }

        fn skip(&mut self, beginning: &[u8], bytes: u64) -> Result<(), Failure> {
            self.0.push(format!("{}... {bytes}", String::from_utf8_lossy(&beginning[..3])));
            Ok(())
        }
    }

    #[test]
    fn whole_lines_are_handed_on_and_open_ones_stay() {
        let mut taken = Taken::default();
        let mut cutter = Cutter::new(Records::lines(), 3);
        cutter.feed(b"a f=1\nb s=\"x\n", &mut taken).unwrap();
        cutter.hand_on(&mut taken).unwrap();
        cutter.feed(b"y\"\nc f=", &mut taken).unwrap();
        assert!(cutter.has_lines());
        cutter.hand_on(&mut taken).unwrap();
        assert!(!cutter.has_lines());
        cutter.hand_on(&mut taken).unwrap();
        cutter.feed(b"3\nd f=4\ne f=5\nf f=6", &mut taken).unwrap();
        cutter.finish(&mut taken).unwrap();
        let expected = ["1:a f=1\n", "2:b s=\"x\ny\"\n", "3:c f=3\nd f=4\ne f=5\n", "1:f f=6"];
        assert_eq!(taken.0, expected);
    }

    #[test]
    fn a_missing_quote_does_not_shift_where_records_end() {
        let mut taken = Taken::default();
        let mut cutter = Cutter::new(Records::lines(), 2);
        cutter.feed(b"a s=\"open\nb s=\"x\"\nc s=\"y\nz\"\nd f=1\ne s=\"f\"g\"\n", &mut taken).unwrap();
        cutter.finish(&mut taken).unwrap();
        let expected = ["1:a s=\"open\n", "3:b s=\"x\"\nc s=\"y\nz\"\n", "2:d f=1\ne s=\"f\"g\"\n"];
        assert_eq!(taken.0, expected);
    }

    #[test]
    fn a_string_that_stays_open_does_not_hold_back_what_follows() {
        let mut taken = Taken::default();
        let mut cutter = Cutter::new(Records::lines(), 100);
        cutter.feed(b"a s=\"open\nb f=1\nc f", &mut taken).unwrap();
        cutter.hand_on(&mut taken).unwrap();
        assert_eq!(taken.0, [""; 0]);
        cutter.open_since = Instant::now().checked_sub(OPEN_STRING_WAIT);
        if cutter.open_since.is_none() {
            return; // The machine was started a moment ago.
        }
        cutter.hand_on(&mut taken).unwrap();
        cutter.feed(b"=2\n", &mut taken).unwrap();
        cutter.hand_on(&mut taken).unwrap();
        assert_eq!(taken.0, ["2:a s=\"open\nb f=1\n", "1:c f=2\n"]);
    }

    #[test]
    fn a_line_that_is_too_long_is_skipped_and_the_others_are_not() {
        let mut taken = Taken::default();
        let mut cutter = Cutter::new(Records::lines(), 100);
        cutter.feed(b"a f=1\nlong s=\"", &mut taken).unwrap();
        for _ in 0..200 {
            cutter.feed(&[b'x'; 1 << 16], &mut taken).unwrap();
            assert!(cutter.batch.capacity() <= 2 * LINE_BYTES_MAX);
        }
        cutter.feed(b"\" 1\nb f=2\n", &mut taken).unwrap();
        assert_eq!(cutter.stop(&mut taken).unwrap(), 0);
        assert_eq!(taken.0, ["1:a f=1\n", "lon... 13107212", "1:b f=2\n"]);
    }

    #[test]
    fn a_stopped_input_leaves_out_the_line_that_may_lack_digits() {
        let mut taken = Taken::default();
        let mut cutter = Cutter::new(Records::csv(), 100);
        cutter.feed(b"a,\"b\nc\"\nd,1", &mut taken).unwrap();
        assert_eq!(cutter.stop(&mut taken).unwrap(), 3);
        assert_eq!(taken.0, ["2:a,\"b\nc\"\n"]);
    }
}
