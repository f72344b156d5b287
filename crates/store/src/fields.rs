//! The fields of a series key: few for most, tens of thousands for some. It knows neither keys nor readings.

use graylogic_line::FieldType;
use hashbrown::HashMap;
use std::sync::Arc;

/// More fields than this are found by an index.
const SCANNED_MAX: usize = 16;

/// A field of a key.
#[derive(Debug)]
pub(crate) struct EntryField {
    pub(crate) name: Arc<str>,
    pub(crate) series: u32,
    pub(crate) field_type: FieldType,
}

/// The fields of a key in the order of their first appearance.
#[derive(Debug)]
pub(crate) enum Fields {
    /// Most keys have one.
    One(EntryField),
    /// Up to [`SCANNED_MAX`].
    Few(Vec<EntryField>),
    /// Any number.
    Many(Box<Indexed>),
}

/// Fields with their places by name.
#[derive(Debug, Default)]
pub(crate) struct Indexed {
    fields: Vec<EntryField>,
    places: HashMap<Arc<str>, u32>,
}

impl Indexed {
    fn push(&mut self, field: EntryField) {
        self.places.insert(field.name.clone(), self.fields.len() as u32);
        self.fields.push(field);
    }
}

impl Default for Fields {
    fn default() -> Self {
        Self::Few(Vec::new())
    }
}

impl Fields {
    /// Adds a field that is not among them.
    pub(crate) fn push(&mut self, field: EntryField) {
        *self = match std::mem::take(self) {
            Self::Few(none) if none.is_empty() => Self::One(field),
            Self::One(first) => Self::Few(vec![first, field]),
            Self::Few(mut fields) if fields.len() < SCANNED_MAX => {
                fields.push(field);
                Self::Few(fields)
            }
            Self::Few(fields) => {
                let mut indexed = Box::<Indexed>::default();
                fields.into_iter().chain([field]).for_each(|f| indexed.push(f));
                Self::Many(indexed)
            }
            Self::Many(mut indexed) => {
                indexed.push(field);
                Self::Many(indexed)
            }
        };
    }

    /// The field with this name.
    pub(crate) fn find(&self, name: &str) -> Option<&EntryField> {
        self.find_from(name.as_bytes(), &mut 0)
    }

    /// The field with this name, looked for at the place after the last one found first: fields come in the same order.
    #[inline]
    pub(crate) fn find_from(&self, name: &[u8], hint: &mut usize) -> Option<&EntryField> {
        let fields: &[EntryField] = self;
        let likely = fields.get(*hint).filter(|f| f.name.as_bytes() == name).map(|_| *hint);
        let place = likely.or_else(|| self.place(name))?;
        *hint = if place + 1 == fields.len() { 0 } else { place + 1 };
        fields.get(place)
    }

    #[cold]
    fn place(&self, name: &[u8]) -> Option<usize> {
        match self {
            Self::Many(indexed) => {
                let name = std::str::from_utf8(name).ok()?;
                indexed.places.get(name).map(|&place| place as usize)
            }
            few => {
                note_work(few.len());
                few.iter().position(|f| f.name.as_bytes() == name)
            }
        }
    }
}

#[cfg(test)]
thread_local! {
    /// Names compared on this thread, for tests that the work grows with the number of fields and not with its square.
    pub(crate) static COMPARED: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

#[cfg(test)]
fn note_work(names: usize) {
    COMPARED.set(COMPARED.get() + names);
}

#[cfg(not(test))]
#[inline(always)]
fn note_work(_names: usize) {}

impl std::ops::Deref for Fields {
    type Target = [EntryField];

    fn deref(&self) -> &[EntryField] {
        match self {
            Self::One(field) => std::slice::from_ref(field),
            Self::Few(fields) => fields,
            Self::Many(indexed) => &indexed.fields,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_is_found_in_any_order_however_many_there_are() {
        for n in [0u32, 1, 2, 15, 16, 17, 18, 300] {
            let mut fields = Fields::default();
            for i in 0..n {
                let name: Arc<str> = format!("f{i}").into();
                assert!(fields.find(&name).is_none());
                fields.push(EntryField { name, series: i, field_type: FieldType::Float });
            }
            assert_eq!(fields.len(), n as usize);
            let mut hint = 0;
            for i in (0..n).chain((0..n).rev()).chain((0..n).map(|i| i * 7 % n)) {
                let found = fields.find_from(format!("f{i}").as_bytes(), &mut hint);
                assert_eq!(found.map(|f| f.series), Some(i), "of {n}");
            }
            assert!(fields.find("g").is_none() && fields.find_from(b"\xff", &mut hint).is_none());
        }
    }

    #[test]
    fn a_key_with_one_field_stays_small() {
        assert!(size_of::<Fields>() <= 32, "{}", size_of::<Fields>());
    }
}
