//! Finds names that a point has twice. A few are compared with each other; for many there is an index, so that the work
//! grows with the number of names and not with its square.

use crate::encode::List;
use crate::point::FieldRef;
use std::collections::HashMap;
use std::marker::PhantomData;

/// Up to so many comparisons are made without an index, which needs memory.
const COMPARED_MAX: usize = 4096;

/// The names of a point's tags and fields.
pub(crate) struct Names<'a, 'l, T, F> {
    tags: &'l T,
    fields: &'l F,
    /// Of each name the place of the last field that has it, and whether a tag has it.
    index: Option<HashMap<&'a str, (usize, bool)>>,
    names: PhantomData<&'a str>,
}

impl<'a, 'l, T: List<'a, &'a str>, F: List<'a, FieldRef<'a>>> Names<'a, 'l, T, F> {
    pub(crate) fn new(tags: &'l T, fields: &'l F) -> Self {
        let (n, all) = (fields.len(), fields.len() + tags.len());
        let index = (n.saturating_mul(all) > COMPARED_MAX).then(|| {
            let mut index = HashMap::with_capacity(all);
            for i in 0..n {
                index.insert(fields.get(i).0, (i, false));
            }
            for i in 0..tags.len() {
                index.entry(tags.get(i).0).or_insert((0, true)).1 = true;
            }
            index
        });
        Self { tags, fields, index, names: PhantomData }
    }

    /// Whether a field behind place `i` has this name, which is that of the field at `i`.
    #[inline]
    pub(crate) fn has_later_field(&self, i: usize, name: &str) -> bool {
        match &self.index {
            Some(index) => index.get(name).is_some_and(|&(last, _)| last > i),
            None => (i + 1..self.fields.len()).any(|j| self.fields.get(j).0 == name),
        }
    }

    /// Whether a tag has this name.
    #[inline]
    pub(crate) fn has_tag(&self, name: &str) -> bool {
        match &self.index {
            Some(index) => index.get(name).is_some_and(|&(_, is_tag)| is_tag),
            None => (0..self.tags.len()).any(|j| self.tags.get(j).0 == name),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::{Dialect, EncodeError, Encoder, Point, Timestamp};
    use std::cell::Cell;

    use super::*;

    fn point(n: usize, also: &[(&str, f64)]) -> Result<String, EncodeError> {
        let mut point = Point::new("m").tag("t", "x").timestamp(Timestamp::from_nanos(1));
        for i in 0..n {
            point = point.field(format!("f{i}"), i as f64);
        }
        for (name, value) in also {
            point = point.field(*name, *value);
        }
        let mut out = Vec::new();
        Encoder::new(Dialect::V2).encode(&point, &mut out)?;
        Ok(String::from_utf8_lossy(&out).into_owned())
    }

    #[test]
    fn names_that_come_twice_are_found_however_many_there_are() {
        for n in [2, 10, 60, 70, 2000] {
            assert_eq!(point(n, &[]).map(|line| line.matches('=').count()), Ok(n + 1), "{n}");
            for twice in ["f0", "t", "f1"] {
                let error = point(n, &[(twice, 1.0)]).err().map(|e| e.to_string()).unwrap_or_default();
                assert!(error.contains(twice), "{n}, {twice}: {error}");
            }
        }
    }

    /// Counts how often it is asked for a name.
    struct Counted<'c>(Vec<String>, &'c Cell<usize>);

    impl<'a> List<'a, FieldRef<'a>> for &'a Counted<'_> {
        fn len(&self) -> usize {
            self.0.len()
        }

        fn get(&self, index: usize) -> (&'a str, FieldRef<'a>) {
            self.1.set(self.1.get() + 1);
            (&self.0[index], FieldRef::Boolean(true))
        }
    }

    struct NoTags;

    impl<'a> List<'a, &'a str> for NoTags {
        fn len(&self) -> usize {
            0
        }

        fn get(&self, _index: usize) -> (&'a str, &'a str) {
            ("", "")
        }
    }

    #[test]
    fn the_work_grows_with_the_number_of_names() {
        for n in [4000, 64_000] {
            let looks = Cell::new(0);
            let fields = Counted((0..n).map(|i| format!("f{i}")).collect(), &looks);
            let list = &fields;
            let names = Names::new(&NoTags, &list);
            assert!((0..n).all(|i| !names.has_later_field(i, &fields.0[i]) && !names.has_tag(&fields.0[i])));
            assert!(looks.get() <= 2 * n, "{} looks at {n} names", looks.get());
        }
    }
}
