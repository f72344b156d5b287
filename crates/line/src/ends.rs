//! Where lines of line protocol end: in a body, and in input that arrives in pieces. It knows quotes, backslashes and
//! comments, and not what a line says.

/// Finds where lines end in line protocol that arrives in pieces. A line feed inside a quoted value, or behind a backslash,
/// does not end a line; a comment ends at its first line feed whatever it says.
///
/// ```
/// let mut ends = graylogic_line::LineEnds::new();
/// assert_eq!(ends.feed(b"m note=\"two\n"), None);
/// assert_eq!(ends.feed(b"lines\"\nm f=1\n"), Some(7));
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct LineEnds {
    place: Place,
    escaped: bool,
    quoted: bool,
    // A quote opens a string only where a value stands: behind more equals signs than commas.
    equals: usize,
    commas: usize,
    last: u8,
    just_closed: bool,
    torn: bool,
    // Of the line that ended last.
    was_torn: bool,
}

/// Which part of a line the next byte belongs to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    #[default]
    LeadingSpace,
    Comment,
    Key,
    Fields,
}

impl LineEnds {
    /// At the beginning of a line.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How many bytes of `piece` belong to the line, its line feed included, when it ends there; then the next piece must
    /// begin behind it. `None` when the line continues in the next piece.
    pub fn feed(&mut self, piece: &[u8]) -> Option<usize> {
        self.was_torn = false;
        for (i, &b) in piece.iter().enumerate() {
            if b == b'\n' && !self.escaped && !self.quoted {
                *self = Self { was_torn: self.torn, ..Self::new() };
                return Some(i + 1);
            }
            self.step(b);
        }
        None
    }

    /// Whether the line, or the one that has just ended, has a quote where a string can neither begin nor end: it begins
    /// behind an equals sign, and ends before a comma, a space or the end. A line that has been going on for several text
    /// lines is then more likely to lack a quote than to hold a string with line feeds.
    ///
    /// ```
    /// let mut ends = graylogic_line::LineEnds::new();
    /// assert!(ends.feed(b"m s=\"open 1\n").is_none() && !ends.is_torn());
    /// assert!(ends.feed(b"m s=\"next\" 2\n").is_none() && ends.is_torn());
    /// ```
    #[must_use]
    pub fn is_torn(&self) -> bool {
        self.torn || self.was_torn
    }

    #[inline]
    fn step(&mut self, b: u8) {
        let was_quoted = self.quoted;
        if std::mem::take(&mut self.just_closed) {
            self.torn |= !matches!(b, b',' | b' ' | b'\r' | b'\n');
        }
        self.turn(b);
        match (was_quoted, self.quoted) {
            (false, true) => self.torn |= self.last != b'=',
            (true, false) => self.just_closed = true,
            _ => {}
        }
        self.last = b;
    }

    #[inline]
    fn turn(&mut self, b: u8) {
        match self.place {
            Place::Comment => return,
            Place::LeadingSpace if matches!(b, b' ' | b'\t') => return,
            Place::LeadingSpace if b == b'#' => {
                self.place = Place::Comment;
                return;
            }
            Place::LeadingSpace => self.place = Place::Key,
            Place::Key | Place::Fields => {}
        }
        match b {
            _ if self.escaped => self.escaped = false,
            b'\\' => self.escaped = true,
            b' ' => self.place = Place::Fields,
            _ if self.place != Place::Fields => {}
            b'=' if !self.quoted => self.equals += 1,
            b',' if !self.quoted => self.commas += 1,
            b'"' if self.equals > self.commas => self.quoted = !self.quoted,
            _ => {}
        }
    }
}

/// Whether a line that holds line feeds has each of them inside a string, and its quotes where strings begin and end. If not,
/// it is more likely to be several lines, one of which lacks a quote or ends with a backslash.
pub(crate) fn is_one_line(text: &[u8]) -> bool {
    let mut ends = LineEnds::new();
    let ends_early = text.iter().any(|&b| {
        let is_outside = b == b'\n' && !ends.quoted;
        ends.step(b);
        is_outside || ends.torn
    });
    !ends_early && !ends.quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_end_at_line_feeds_outside_of_strings() {
        for (text, expected) in [
            ("m f=1\nrest", Some(6)),
            ("m f=\"a\nb\" 1\nrest", Some(12)),
            ("m,t=don\"t f=1\nrest", Some(14)),
            ("m,t=a\\\nb f=1\nrest", Some(13)),
            ("m f=\"a\nb", None),
            ("m f=1", None),
            // A quote in a comment opens nothing.
            ("# note f=\"open\nm f=1\n", Some(15)),
            ("  \t# a b=\"\\\nm f=1\n", Some(12)),
            ("\nm f=1\n", Some(1)),
        ] {
            assert_eq!(LineEnds::new().feed(text.as_bytes()), expected, "{text:?}");
            let mut ends = LineEnds::new();
            let single = text.bytes().position(|b| ends.feed(&[b]).is_some()).map(|i| i + 1);
            assert_eq!(single, expected, "{text:?} byte by byte");
        }
    }

    #[test]
    fn several_lines_are_told_from_a_string_with_line_feeds() {
        for (text, expected) in [
            ("m s=\"a\nb\" 1", true),
            ("m s=\"a\nb\",t=\"c\nd\" 1x", true),
            ("m n=12x,s=\"a\n\n\" 1", true),
            ("m s=\"open 1\nm s=\"abc\" 2\nm s=\"def\" 3", false),
            ("m s=\"open 1\nm s=\" x\" 2\nm s=\" y\" 3", false),
            ("m s=\"open 1\nm f=1 2", false),
            ("m f=1 1\\\nm f=2 2", false),
        ] {
            assert_eq!(is_one_line(text.as_bytes()), expected, "{text:?}");
        }
    }
}
