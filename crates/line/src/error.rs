//! Why a point cannot be written, or a line not be read: which element, which byte, and what to do.

use std::fmt;

/// So much of a name is shown in a message.
const SHOWN_CHARS: usize = 48;

/// A point cannot be written in the dialect asked for.
///
/// It names the element and the byte in it. Nothing was written.
#[derive(Clone, Debug, PartialEq)]
pub struct EncodeError {
    pub(crate) element: Element,
    /// The key of a tag or field, or the measurement, shortened.
    pub(crate) name: String,
    pub(crate) offset: usize,
    pub(crate) reason: EncodeReason,
}

/// A part of a line that has a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Element {
    /// The measurement.
    Measurement,
    /// A tag key.
    TagKey,
    /// A tag value.
    TagValue,
    /// A field key.
    FieldKey,
    /// A field value.
    FieldValue,
    /// The time.
    Timestamp,
    /// The point as a whole.
    Point,
}

impl Element {
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::Measurement => "measurement",
            Self::TagKey => "tag key",
            Self::TagValue => "tag value",
            Self::FieldKey => "field key",
            Self::FieldValue => "field value",
            Self::Timestamp => "timestamp",
            Self::Point => "point",
        }
    }
}

/// Why a point cannot be written.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum EncodeReason {
    /// A name is empty.
    Empty,
    /// A name has a character below U+0020 or U+007F.
    ControlCharacter,
    /// A measurement begins with `#`, which makes the line a comment.
    LeadingHash,
    /// A name ends with a backslash, which every server reads as the start of an escape.
    TrailingBackslash,
    /// A backslash before a space, which InfluxDB 2 reads wrongly.
    BackslashBeforeSpace,
    /// A backslash before a comma or equals sign in a field key, which InfluxDB 2 reads wrongly.
    BackslashBeforeSeparator,
    /// A backslash before this character is read differently by different servers.
    NotPortableBackslash(char),
    /// A double quote in a field key hides the value from VictoriaMetrics.
    QuoteInFieldKey,
    /// A tag key that InfluxDB keeps for itself.
    ReservedTagKey,
    /// A field named `time`, which InfluxDB drops.
    ReservedFieldKey,
    /// A name with a leading underscore, which InfluxDB's documentation reserves.
    LeadingUnderscore,
    /// Two tags with one key.
    DuplicateTag,
    /// Two fields with one key.
    DuplicateField,
    /// A field with the key of a tag.
    TagAndField,
    /// No field.
    NoFields,
    /// NaN or infinite.
    NotFinite,
    /// Outside of what InfluxDB stores.
    TimeOutOfRange,
    /// At or before 1970, which VictoriaMetrics takes for "now".
    TimeNotAfterEpoch,
    /// Measurement, tags and one field key are longer than 65,535 bytes together.
    KeyTooLong(usize),
    /// A string value is longer than the server takes.
    StringTooLong(usize),
    /// A line feed in a string value breaks the line on VictoriaMetrics.
    LineFeedInString,
    /// A series template was given another number of values than it has fields.
    WrongNumberOfValues(usize),
}

impl EncodeError {
    #[cold]
    pub(crate) fn new(element: Element, name: &str, offset: usize, reason: EncodeReason) -> Self {
        Self { element, name: shortened(name), offset, reason }
    }

    /// The element at fault.
    #[must_use]
    pub fn element(&self) -> Element {
        self.element
    }

    /// The key of the tag or field at fault, or the measurement; shortened when long.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The byte in the element's text where the fault is.
    #[must_use]
    pub fn offset(&self) -> usize {
        self.offset
    }

    /// Why it cannot be written.
    #[must_use]
    pub fn reason(&self) -> EncodeReason {
        self.reason
    }
}

/// The first characters of a text that may be long.
pub(crate) fn shortened(text: &str) -> String {
    let mut chars = text.chars();
    let mut short: String = chars.by_ref().take(SHOWN_CHARS).collect();
    if chars.next().is_some() {
        short.push('…');
    }
    short
}

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use EncodeReason as R;
        let (element, name, at) = (self.element.text(), &self.name, self.offset);
        let of = match self.element {
            Element::TagKey | Element::TagValue => format!(" (tag {name:?})"),
            Element::FieldKey | Element::FieldValue => format!(" (field {name:?})"),
            _ => format!(" (measurement {name:?})"),
        };
        match self.reason {
            R::Empty => write!(f, "empty {element}{of}: give it a name, or leave it out"),
            R::ControlCharacter => write!(f, "control character in {element}{of}, byte {at}: remove it"),
            R::LeadingHash => {
                write!(f, "measurement starts with #{of}: the line would be a comment; name it otherwise")
            }
            R::TrailingBackslash => {
                write!(f, "{element} ends with a backslash{of}: no server reads that back; remove it")
            }
            R::BackslashBeforeSpace => {
                write!(
                    f,
                    "backslash before space in {element}{of}, byte {at}: InfluxDB 2 misreads it; remove one of them"
                )
            }
            R::BackslashBeforeSeparator => {
                write!(
                    f,
                    "backslash before separator in {element}{of}, byte {at}: InfluxDB 2 misreads it; remove one of them"
                )
            }
            R::NotPortableBackslash(next) => write!(
                f,
                "backslash before '{next}' in {element} is not portable{of}, byte {at}: servers read it differently; remove it or choose one dialect"
            ),
            R::QuoteInFieldKey => write!(
                f,
                "double quote in field key{of}, byte {at}: VictoriaMetrics loses the value; remove it"
            ),
            R::ReservedTagKey => {
                write!(f, "reserved tag key{of}: InfluxDB keeps it for itself; name it otherwise")
            }
            R::ReservedFieldKey => {
                write!(f, "reserved field key{of}: InfluxDB drops a field named time; name it otherwise")
            }
            R::LeadingUnderscore => {
                write!(
                    f,
                    "{element} starts with an underscore{of}: InfluxDB reserves such names; choose another one"
                )
            }
            R::DuplicateTag => write!(f, "duplicate tag key{of}: give each tag once"),
            R::DuplicateField => write!(f, "duplicate field key{of}: give each field once"),
            R::TagAndField => {
                write!(f, "{name:?} is both a tag and a field: queries could not tell them apart; rename one")
            }
            R::NoFields => write!(f, "no fields{of}: a point needs at least one"),
            R::NotFinite => {
                write!(f, "{element} is NaN or infinite{of}: no server stores it; leave the reading out")
            }
            R::TimeOutOfRange => {
                write!(f, "timestamp out of range{of}: InfluxDB stores 1677-09-21 to 2262-04-11")
            }
            R::TimeNotAfterEpoch => {
                write!(
                    f,
                    "timestamp 0 or negative{of}: VictoriaMetrics would store the present instead; is the clock set?"
                )
            }
            R::KeyTooLong(n) => write!(
                f,
                "max key length exceeded{of}: {n} > 65535; shorten the measurement, tags or field key"
            ),
            R::StringTooLong(n) => write!(f, "{element} is too long{of}: {n} bytes; shorten it"),
            R::LineFeedInString => write!(
                f,
                "line feed in {element}{of}, byte {at}: VictoriaMetrics ends the line there; remove it"
            ),
            R::WrongNumberOfValues(n) => {
                write!(f, "{n} values were given{of}: give one for each field of the template")
            }
        }
    }
}

impl std::error::Error for EncodeError {}
