//! How names are written for each server, and which cannot be. Rules N1 to N7 of the protocol as four real parsers read it.

use crate::error::{Element, EncodeReason};

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

/// Whether it is sure that a name can be written as it is, in every element and dialect: it has only ASCII without
/// special bytes, `!` aside. Other names are looked at byte by byte.
#[inline]
pub(crate) fn is_plain(name: &[u8]) -> bool {
    if let Some(last) = name.last_chunk::<8>() {
        name.as_chunks::<8>().0.iter().all(|&word| is_plain_word(word)) && is_plain_word(*last)
    } else if let (Some(first), Some(last)) = (name.first_chunk::<4>(), name.last_chunk::<4>()) {
        let [a, b, c, d] = *first;
        let [e, f, g, h] = *last;
        is_plain_word([a, b, c, d, e, f, g, h])
    } else {
        !name.iter().any(|&b| SPECIAL[b as usize] || b >= 0x80)
    }
}

/// The same of eight bytes at once: a special byte, or one that is not ASCII, has the high bit of its place set in one
/// of the terms. Controls, space, `!` and `"` are below `#`; DEL overflows; a subtraction finds a byte that the
/// exclusive or made zero.
#[inline]
fn is_plain_word(word: [u8; 8]) -> bool {
    const ONES: u64 = u64::MAX / 255;
    const HIGH: u64 = ONES << 7;
    let word = u64::from_le_bytes(word);
    let is = |byte: u8| (word ^ (ONES * u64::from(byte))).wrapping_sub(ONES);
    let low = word.wrapping_sub(ONES * u64::from(b'#'));
    let delete = word.wrapping_add(ONES);
    (word | low | delete | is(b',') | is(b'=') | is(b'\\')) & HIGH == 0
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
    use super::{SPECIAL, is_plain};

    #[test]
    fn names_are_plain_when_each_byte_is() {
        for byte in 0..=u8::MAX {
            let plain = !SPECIAL[byte as usize] && byte.is_ascii() && byte != b'!';
            for bytes in 1..20 {
                for place in 0..bytes {
                    for other in [b'a', b'#', b'~'] {
                        let mut name = vec![other; bytes];
                        name[place] = byte;
                        let short = bytes < 4 && byte == b'!';
                        assert_eq!(is_plain(&name), plain || short, "{name:x?}");
                    }
                }
            }
        }
    }
}
