//! How names are written for each server, and which cannot be. Rules N1 to N7 of the protocol as four real parsers read it.

use crate::error::EncodeReason;

/// Which parsers a line is meant for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Dialect {
    /// InfluxDB 1.x and 2.x.
    V2,
    /// InfluxDB 3.x: a backslash in a name is always doubled.
    V3,
    /// VictoriaMetrics: as 3.x, no double quote in field keys, no line feed in strings, times after 1970.
    Vm,
    /// Bytes that mean the same to all of them: what one of them would read otherwise is refused.
    #[default]
    Portable,
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

/// Bytes that a name can hold only with care: controls, space, quote, comma, equals, backslash.
const SPECIAL: [bool; 256] = {
    let mut table = [false; 256];
    let mut i = 0;
    while i < 256 {
        table[i] = i < 0x20 || i == 0x7f || matches!(i as u8, b' ' | b'"' | b',' | b'=' | b'\\');
        i += 1;
    }
    table
};

/// Whether a name can hold a byte only with care.
#[inline]
pub(crate) fn is_special(byte: u8) -> bool {
    SPECIAL[byte as usize]
}

/// Whether a name can be written as it is, in every element and dialect.
#[inline]
pub(crate) fn is_plain(name: &[u8]) -> bool {
    let (words, tail) = name.as_chunks::<8>();
    words.iter().all(|&word| is_plain_word(word)) && !tail.iter().any(|&b| is_special(b))
}

/// The same of eight bytes at once. A byte is found zero by the borrow of a subtraction; a borrow that wandered on can
/// only make a plain byte behind a special one look special too.
#[inline]
pub(crate) fn is_plain_word(word: [u8; 8]) -> bool {
    const ONES: u64 = u64::MAX / 255;
    const HIGH: u64 = ONES << 7;
    let word = u64::from_le_bytes(word);
    let zero_in = |w: u64| w.wrapping_sub(ONES) & !w;
    let controls_and_space = word.wrapping_sub(ONES * 0x21) & !word;
    let others = [b'"', b',', b'=', b'\\', 0x7f]
        .into_iter()
        .fold(0, |all, b| all | zero_in(word ^ (ONES * u64::from(b))));
    (controls_and_space | others) & HIGH == 0
}

/// Appends a name that is not empty. On `Err` the reason and the offending byte; `out` may hold a part of the name.
pub(crate) fn put_name(
    out: &mut Vec<u8>,
    dialect: Dialect,
    element: Element,
    name: &[u8],
) -> Result<(), (EncodeReason, usize)> {
    if is_plain(name) {
        out.extend_from_slice(name);
        return Ok(());
    }
    for (i, &b) in name.iter().enumerate() {
        match b {
            0..=0x1f | 0x7f => return Err((EncodeReason::ControlCharacter, i)),
            b',' | b' ' => out.extend_from_slice(&[b'\\', b]),
            b'=' if element != Element::Measurement => out.extend_from_slice(b"\\="),
            b'"' if element == Element::FieldKey && matches!(dialect, Dialect::Vm | Dialect::Portable) => {
                return Err((EncodeReason::QuoteInFieldKey, i));
            }
            b'\\' => put_backslash(out, dialect, element, name.get(i + 1).copied())
                .map_err(|reason| (reason, i))?,
            _ => out.push(b),
        }
    }
    Ok(())
}

/// What follows a backslash decides how, and whether, it can be written.
fn put_backslash(
    out: &mut Vec<u8>,
    dialect: Dialect,
    element: Element,
    next: Option<u8>,
) -> Result<(), EncodeReason> {
    let Some(next) = next else { return Err(EncodeReason::TrailingBackslash) };
    let in_measurement = element == Element::Measurement;
    let doubled = match dialect {
        Dialect::V3 | Dialect::Vm => true,
        Dialect::V2 => match next {
            // 2.8 would take the space for the start of the fields.
            b' ' => return Err(EncodeReason::BackslashBeforeSpace),
            b',' | b'=' if element == Element::FieldKey => {
                return Err(EncodeReason::BackslashBeforeSeparator);
            }
            b'"' => in_measurement || element == Element::FieldKey,
            b'=' => in_measurement,
            _ => false,
        },
        Dialect::Portable => match next {
            b'"' | b'=' if in_measurement => true,
            b'\\' | b',' | b'=' | b' ' => return Err(EncodeReason::NotPortableBackslash(next as char)),
            _ => false,
        },
    };
    out.extend_from_slice(if doubled { b"\\\\" } else { b"\\" });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{is_plain_word, is_special};

    #[test]
    fn eight_bytes_are_plain_when_each_is() {
        for byte in 0..=u8::MAX {
            for place in 0..8 {
                for other in [b'a', b'!', b'~', 0x80, 0xff] {
                    let mut word = [other; 8];
                    word[place] = byte;
                    assert_eq!(is_plain_word(word), !is_special(byte), "{word:x?}");
                }
            }
        }
    }
}
