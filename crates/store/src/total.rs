//! The sum of a run of values: exact in memory, 64 bits on the disk. Pure arithmetic; it knows neither times nor files.

use crate::value::{Value, Values};
use graylogic_line::FieldType;

/// The sum of the values of a window, a chunk or an hour.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Total {
    /// Strings have no sum.
    None,
    /// Of floats, rounded once.
    Float(f64),
    /// Of signed integers, exact.
    Integer(i128),
    /// Of unsigned integers, exact; of booleans, the number of true ones.
    Unsigned(i128),
    /// As stored, modulo 2^64, where more than one sum is possible: only the readings know which one it is.
    Ambiguous(u64, FieldType),
}

impl Total {
    /// The sum of two runs.
    pub(crate) fn plus(self, other: Self) -> Self {
        match (self, other) {
            (Self::Float(a), Self::Float(b)) => Self::Float(a + b),
            (Self::Integer(a), Self::Integer(b)) => Self::Integer(a.saturating_add(b)),
            (Self::Unsigned(a), Self::Unsigned(b)) => Self::Unsigned(a.saturating_add(b)),
            (Self::Ambiguous(a, of), other) | (other, Self::Ambiguous(a, of)) => {
                Self::Ambiguous(a.wrapping_add(other.bits()), of)
            }
            (a, _) => a,
        }
    }

    /// The sum as a value of the field's type; `Err` is the sum as text when it does not fit.
    pub(crate) fn value(self) -> Result<Option<Value>, String> {
        let fits = match self {
            Self::None => return Ok(None),
            Self::Float(v) => v.is_finite().then_some(Value::Float(v)).ok_or_else(|| "it".to_owned()),
            Self::Integer(v) => i64::try_from(v).map(Value::Integer).map_err(|_| v.to_string()),
            Self::Unsigned(v) => u64::try_from(v).map(Value::Unsigned).map_err(|_| v.to_string()),
            Self::Ambiguous(..) => Err("it".to_owned()),
        };
        fits.map(Some)
    }

    /// The mean of so many values.
    pub(crate) fn mean(self, count: u64) -> Option<f64> {
        match self {
            Self::None => None,
            Self::Float(v) => Some(v / count as f64),
            Self::Integer(v) | Self::Unsigned(v) => Some(v as f64 / count as f64),
            Self::Ambiguous(..) => Some(f64::NAN),
        }
    }

    /// Whether the sum can be computed from the readings only.
    pub(crate) fn is_unknown(self) -> bool {
        match self {
            Self::Ambiguous(..) => true,
            // A float sum that overflowed says nothing of the parts it is made of.
            Self::Float(v) => !v.is_finite(),
            _ => false,
        }
    }

    /// The sum as the disk keeps it: integers modulo 2^64.
    pub(crate) fn stored(self) -> Option<Value> {
        match self {
            Self::None => None,
            Self::Float(v) => Some(Value::Float(v)),
            Self::Integer(_) | Self::Ambiguous(_, FieldType::Integer) => {
                Some(Value::Integer(self.bits() as i64))
            }
            Self::Unsigned(_) | Self::Ambiguous(..) => Some(Value::Unsigned(self.bits())),
        }
    }

    /// The sum of `count` values between `min` and `max` whose stored form is `stored`.
    ///
    /// One value is `min`, one is `max`, and the others lie between them, which bounds the sum. One of the sums in that range that are equal to the stored
    /// one modulo 2^64 is the right one; if there is only one, it is known.
    pub(crate) fn restored(
        stored: Option<&Value>,
        count: u64,
        min: Option<&Value>,
        max: Option<&Value>,
    ) -> Self {
        let (bits, unsigned) = match stored {
            None | Some(Value::String(_) | Value::Boolean(_)) => return Self::None,
            Some(Value::Float(v)) => return Self::Float(*v),
            Some(Value::Integer(v)) => (*v as u64, false),
            Some(Value::Unsigned(v)) => (*v, true),
        };
        let count = i128::from(count);
        let bound = |v: Option<&Value>| match v {
            Some(Value::Integer(v)) => Some(i128::from(*v)),
            Some(Value::Unsigned(v)) => Some(i128::from(*v)),
            Some(Value::Boolean(v)) => Some(i128::from(*v)),
            _ => None,
        };
        let others = count - 1;
        let range = bound(min).zip(bound(max));
        let range = range.and_then(|(min, max)| {
            let (low, high) = (others.checked_mul(min)?, others.checked_mul(max)?);
            Some((low.checked_add(max)?, high.checked_add(min)?))
        });
        let field_type = if unsigned { FieldType::Unsigned } else { FieldType::Integer };
        let Some((low, high)) = range else { return Self::Ambiguous(bits, field_type) };
        // The smallest sum of the range that is equal modulo 2^64.
        let modulus = 1i128 << 64;
        let exact = low.saturating_add((i128::from(bits) - low).rem_euclid(modulus));
        // A sum out of the range is damage or none of ours: the readings tell.
        let known = exact <= high && high.saturating_sub(exact) < modulus;
        match (known, unsigned) {
            (false, _) => Self::Ambiguous(bits, field_type),
            (true, true) => Self::Unsigned(exact),
            (true, false) => Self::Integer(exact),
        }
    }

    fn bits(self) -> u64 {
        match self {
            Self::None | Self::Float(_) => 0,
            Self::Integer(v) | Self::Unsigned(v) => v as u64,
            Self::Ambiguous(bits, _) => bits,
        }
    }

    /// A column of sums as they are stored.
    pub(crate) fn column(totals: impl Iterator<Item = Self>, sum_type: FieldType) -> Values {
        let mut column = Values::empty(sum_type);
        for total in totals {
            match (&mut column, total.stored()) {
                (Values::Float(v), Some(Value::Float(x))) => v.push(x),
                (Values::Integer(v), Some(Value::Integer(x))) => v.push(x),
                (Values::Unsigned(v), Some(Value::Unsigned(x))) => v.push(x),
                _ => unreachable!("the sums of an hour are of its series' type"),
            }
        }
        column
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stored_sum_is_known_again_or_known_to_be_ambiguous() {
        let check = |values: &[i128], unsigned: bool, known: bool| {
            let exact: i128 = values.iter().sum();
            let total = if unsigned { Total::Unsigned(exact) } else { Total::Integer(exact) };
            let value = |v: &i128| {
                if unsigned { Value::Unsigned(*v as u64) } else { Value::Integer(*v as i64) }
            };
            let (min, max) = (values.iter().min().map(value), values.iter().max().map(value));
            let stored = total.stored();
            let restored = Total::restored(stored.as_ref(), values.len() as u64, min.as_ref(), max.as_ref());
            assert_eq!(restored.stored(), stored, "{values:?}");
            assert_eq!(restored.is_unknown(), !known, "{values:?}: {restored:?}");
            assert!(!known || restored == total, "{values:?}: {restored:?}");
        };
        let (least, most, top) = (i128::from(i64::MIN), i128::from(i64::MAX), i128::from(u64::MAX));
        check(&[1, 2, 3], false, true);
        check(&[-7], false, true);
        check(&[most, most, most], false, true);
        check(&[least, least, least], false, true);
        check(&[least, most], false, true);
        check(&[least, most, 3, 0], false, false);
        check(&[most, most - 5, most - 9], false, true);
        check(&[top, top, top], true, true);
        check(&[top, top - 1, top - 2, top], true, true);
        check(&[0, top], true, true);
        check(&[0, top, 5, top], true, false);
        check(&[0, 0, 5], true, true);
    }

    #[test]
    fn means_come_from_exact_sums() {
        let top = i128::from(u64::MAX);
        assert_eq!(Total::Unsigned(3 * top).mean(3), Some(u64::MAX as f64));
        assert_eq!(Total::Integer(i128::from(i64::MIN) * 4).mean(4), Some(i64::MIN as f64));
        assert_eq!(Total::Integer(-7).mean(2), Some(-3.5));
        assert_eq!(Total::Unsigned(10).mean(4), Some(2.5));
    }
}
