//! Measurement and tags of a series, packed into one text: with tens of thousands of series, names are most of what they
//! take in memory. Pure; it knows neither series nor fields.

use std::sync::Arc;

/// Measurement and tags of a series, shared by its fields.
#[derive(Debug)]
pub(crate) struct Key {
    pub(crate) bucket: u32,
    pub(crate) bucket_name: Arc<str>,
    text: Packed,
}

/// Measurement and tags as one text.
///
/// Names without any character that line protocol gives a meaning stand as line protocol writes them, so that what a
/// sender writes is compared with it as it is. Between all other names there is a NUL, which no name holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Packed {
    text: Box<str>,
    tags: u32,
    plain: bool,
}

impl Packed {
    /// Of a measurement and its tags in the order of their keys.
    pub(crate) fn new(measurement: &str, tags: &[(&str, &str)]) -> Self {
        let plain = is_plain(measurement) && tags.iter().all(|(k, v)| is_plain(k) && is_plain(v));
        let (comma, equals) = if plain { (',', '=') } else { ('\0', '\0') };
        let length = measurement.len() + tags.iter().map(|(k, v)| k.len() + v.len() + 2).sum::<usize>();
        let mut text = String::with_capacity(length);
        text.push_str(measurement);
        for (key, value) in tags {
            text.push(comma);
            text.push_str(key);
            text.push(equals);
            text.push_str(value);
        }
        Self { text: text.into(), tags: tags.len() as u32, plain }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        self.text.as_bytes()
    }

    /// Whether line protocol spells it so.
    #[inline]
    pub(crate) fn is_spelt(&self, spelling: &[u8]) -> bool {
        self.plain && self.text.as_bytes() == spelling
    }

    fn split(&self) -> (&str, Tags<'_>) {
        let (comma, equals) = if self.plain { (',', '=') } else { ('\0', '\0') };
        let (measurement, rest) = self.text.split_once(comma).unwrap_or((&self.text, ""));
        (measurement, Tags { rest, left: self.tags as usize, comma, equals })
    }
}

/// Whether a name is written in line protocol as it is, and read from there as it is.
fn is_plain(name: &str) -> bool {
    let special = |b: u8| matches!(b, b',' | b'=' | b' ' | b'\\') || b.is_ascii_control();
    !name.is_empty() && !name.bytes().any(special)
}

impl Key {
    pub(crate) fn new(bucket: u32, bucket_name: Arc<str>, text: Packed) -> Self {
        Self { bucket, bucket_name, text }
    }

    /// The same in a bucket that has another name now.
    pub(crate) fn renamed(&self, bucket_name: Arc<str>) -> Self {
        Self { bucket: self.bucket, bucket_name, text: self.text.clone() }
    }

    pub(crate) fn packed(&self) -> &Packed {
        &self.text
    }

    pub(crate) fn measurement(&self) -> &str {
        self.text.split().0
    }

    /// In the order of their keys.
    pub(crate) fn tags(&self) -> Tags<'_> {
        self.text.split().1
    }

    /// The value of a tag; empty without it.
    pub(crate) fn tag(&self, key: &str) -> &str {
        self.tags().find(|(k, _)| *k == key).map_or("", |(_, v)| v)
    }
}

/// The tags of a key.
#[derive(Clone, Debug)]
pub(crate) struct Tags<'a> {
    rest: &'a str,
    left: usize,
    comma: char,
    equals: char,
}

impl<'a> Iterator for Tags<'a> {
    type Item = (&'a str, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let (key, rest) = self.rest.split_once(self.equals)?;
        let (value, rest) = rest.split_once(self.comma).unwrap_or((rest, ""));
        self.rest = rest;
        Some((key, value))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Tags<'_> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_comes_back_and_only_plain_ones_are_compared_as_they_are_spelt() {
        type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], Option<&'a str>);
        let cases: [Case<'_>; 8] = [
            ("m", &[], Some("m")),
            ("energy", &[("device", "hvac-1"), ("room", "r 1")], None),
            ("energy", &[("device", "hvac-1"), ("room", "Küche")], Some("energy,device=hvac-1,room=Küche")),
            ("a,b", &[("k", "v")], None),
            ("a", &[("k=", "v"), ("k\\", "v,")], None),
            ("a=b", &[("k", "a=b")], None),
            ("a", &[("k", "\u{1}")], None),
            ("a\"", &[("#", "\"")], Some("a\",#=\"")),
        ];
        for (measurement, tags, spelling) in cases {
            let key = Key::new(1, "b".into(), Packed::new(measurement, tags));
            assert_eq!(key.measurement(), measurement);
            assert_eq!(key.tags().collect::<Vec<_>>(), tags);
            assert_eq!(key.tags().len(), tags.len());
            for (k, v) in tags {
                assert_eq!(key.tag(k), *v);
            }
            assert_eq!(key.tag("other"), "");
            match spelling {
                Some(text) => assert!(key.packed().is_spelt(text.as_bytes())),
                None => assert!(!key.packed().is_spelt(key.packed().bytes())),
            }
        }
    }
}
