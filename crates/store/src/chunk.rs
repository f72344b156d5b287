//! A chunk: a run of readings of one series as bytes, and back. `docs/format.md` has every byte.
//! It knows nothing of SQLite, series or queries.

use crate::bytes::{Malformed, Reader, put_bytes, put_varint, put_zigzag};
use crate::column::{self, COLUMN_VALUES_MAX, Effort, Neighbours};
use crate::value::Values;
use crate::window::{DIGITS_MAX, POWERS, scaled};
use graylogic_line::FieldType;
use std::collections::HashMap;
use std::sync::Arc;

/// First byte of a chunk's bytes.
const VERSION: u8 = 1;

const TIMES_GRID: u8 = 1;
const TIMES_PLAIN: u8 = 2;

const VALUES_DECIMAL: u8 = 1;
const VALUES_FLOAT: u8 = 2;
const VALUES_INTEGER: u8 = 3;
const VALUES_UNSIGNED: u8 = 4;
const VALUES_BOOLEAN: u8 = 5;
const VALUES_STRING: u8 = 6;

/// A chunk holds at most this many readings.
pub(crate) const CHUNK_READINGS_MAX: usize = 8192;

/// The bytes of a chunk of readings with strictly ascending times.
pub(crate) fn encode(times: &[i64], values: &Values, effort: Effort) -> Vec<u8> {
    assert!(
        !times.is_empty() && times.len() == values.len(),
        "a chunk has as many values as times, at least one"
    );
    assert!(times.len() <= COLUMN_VALUES_MAX, "a chunk has a bounded number of readings");
    debug_assert!(times.windows(2).all(|w| w[0] < w[1]), "times ascend in a chunk");
    let mut out = Vec::with_capacity(64 + times.len() * 2);
    out.push(VERSION);
    put_varint(&mut out, times.len() as u64);
    put_times(&mut out, times, effort);
    put_values(&mut out, values, effort);
    out
}

/// The readings of a chunk's bytes.
pub(crate) fn decode(bytes: &[u8]) -> Result<(Vec<i64>, Values), Malformed> {
    let mut reader = Reader::new(bytes);
    if reader.u8()? != VERSION {
        return Err(Malformed);
    }
    let n = reader.length(COLUMN_VALUES_MAX)?;
    if n == 0 {
        return Err(Malformed);
    }
    let times = take_times(&mut reader, n)?;
    let values = take_values(&mut reader, n)?;
    if !reader.is_empty() { Err(Malformed) } else { Ok((times, values)) }
}

// ---- times ------------------------------------------------------------------------------------------------------

/// Times lie on a grid (first time, usual step, in their own unit) but for gaps and jitter. Residuals against the grid
/// carry the jitter once; differences would carry it twice.
fn put_times(out: &mut Vec<u8>, times: &[i64], effort: Effort) {
    let t0 = times[0];
    let offsets: Vec<u64> = times.iter().map(|&t| t.wrapping_sub(t0) as u64).collect();
    let unit = offsets.iter().fold(0u64, |g, &o| if g == 1 { 1 } else { gcd(o, g) }).max(1);
    let ticks: Vec<u64> = if unit == 1 { offsets } else { offsets.iter().map(|&o| o / unit).collect() };
    if let Some(grid) = Grid::fit(&ticks) {
        out.push(TIMES_GRID);
        out.extend_from_slice(&t0.to_le_bytes());
        put_varint(out, unit);
        put_varint(out, grid.step);
        put_varint(out, grid.gaps.len() as u64);
        let mut before = 0;
        for &(index, skipped) in &grid.gaps {
            put_varint(out, u64::from(index - before));
            put_varint(out, skipped);
            before = index;
        }
        put_zigzag(out, grid.residual_min);
        let mut column = Vec::new();
        column::put_integers(&mut column, &grid.residuals, Neighbours::Independent, effort);
        put_bytes(out, &column);
    } else {
        out.push(TIMES_PLAIN);
        out.extend_from_slice(&t0.to_le_bytes());
        put_varint(out, unit);
        let mut column = Vec::new();
        column::put_integers(&mut column, &ticks, Neighbours::Related, effort);
        put_bytes(out, &column);
    }
}

/// Times as steps of a regular grid: tick `i` is `(i + skipped so far) * step + residual`.
struct Grid {
    step: u64,
    /// Index of a reading before which steps are missing, and how many.
    gaps: Vec<(u32, u64)>,
    residual_min: i64,
    /// Less `residual_min`.
    residuals: Vec<u64>,
}

impl Grid {
    /// The grid of ascending ticks that begin at 0; `None` where no step fits well.
    fn fit(ticks: &[u64]) -> Option<Self> {
        let n = ticks.len();
        if n < 3 || ticks[n - 1] > i64::MAX as u64 / 4 {
            return None;
        }
        let step = usual_step(ticks)?;
        let mut gaps = Vec::new();
        let mut residuals = Vec::with_capacity(n);
        let mut skipped = 0u64;
        for (i, &tick) in ticks.iter().enumerate() {
            let mut at = (i as u64 + skipped) * step;
            // A reading that is later than its place by more than half a step, and stays so, has steps missing before it.
            if tick > at + step / 2 {
                let missing = (tick - at + step / 2) / step;
                if missing > 0 {
                    gaps.push((i as u32, missing));
                    if gaps.len() > 8 + n / 16 {
                        return None;
                    }
                    skipped += missing;
                    at += missing * step;
                }
            }
            residuals.push(tick as i64 - at as i64);
        }
        let (mut min, mut max) = (i64::MAX, i64::MIN);
        for &r in &residuals {
            (min, max) = (min.min(r), max.max(r));
        }
        // A grid that the readings run away from says nothing.
        if (max - min) as u64 > step.saturating_mul(4) {
            return None;
        }
        let residuals = residuals.into_iter().map(|r| (r - min) as u64).collect();
        Some(Self { step, gaps, residual_min: min, residuals })
    }
}

/// The step that makes the readings drift least: the mean of the differences that are near their median.
fn usual_step(ticks: &[u64]) -> Option<u64> {
    let mut differences: Vec<u64> = ticks.windows(2).map(|w| w[1] - w[0]).collect();
    let middle = differences.len() / 2;
    let median = *differences.select_nth_unstable(middle).1;
    let near = |d: &&u64| **d >= median - median / 2 && **d <= median + median / 2;
    let (count, sum) =
        differences.iter().filter(near).fold((0u128, 0u128), |(n, s), &d| (n + 1, s + u128::from(d)));
    let mean = ((sum + count / 2) / count.max(1)) as u64;
    // Jitter of single readings moves the mean by less than one part in their number: prefer the rounder step.
    let step = round_near(mean, median.max(1) / 200 + 1);
    (step > 0).then_some(step)
}

/// The number with the most trailing decimal zeros within `tolerance` of `v`.
fn round_near(v: u64, tolerance: u64) -> u64 {
    let mut best = v;
    let mut unit = 10u64;
    while unit <= v.saturating_mul(2) {
        let rounded = (v + unit / 2) / unit * unit;
        if rounded > 0 && rounded.abs_diff(v) <= tolerance {
            best = rounded;
        }
        match unit.checked_mul(10) {
            Some(next) => unit = next,
            None => break,
        }
    }
    best
}

fn gcd(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

fn take_times(reader: &mut Reader<'_>, n: usize) -> Result<Vec<i64>, Malformed> {
    let kind = reader.u8()?;
    let t0 = reader.u64_le()? as i64;
    let unit = reader.varint()?;
    let at = |ticks: u64| t0.wrapping_add(ticks.wrapping_mul(unit) as i64);
    match kind {
        TIMES_GRID => {
            let step = reader.varint()?;
            let count = reader.length(n)?;
            let mut gaps = Vec::with_capacity(count);
            let mut index = 0u64;
            for _ in 0..count {
                index = index.checked_add(reader.varint()?).ok_or(Malformed)?;
                gaps.push((index, reader.varint()?));
            }
            let residual_min = reader.zigzag()? as u64;
            let bytes = reader.bytes()?;
            gaps.push((n as u64, 0));
            // In nanoseconds from here on: the place of reading `i` is `base + i * step`.
            let mut base = (t0 as u64).wrapping_add(residual_min.wrapping_mul(unit));
            let step = step.wrapping_mul(unit);
            let mut times = Vec::with_capacity(n);
            match (column::narrow(bytes, n)?, u32::try_from(unit)) {
                (Some(residuals), Ok(unit)) => {
                    let residual = |i: usize| u64::from(residuals[i]) * u64::from(unit);
                    put_on_grid(&mut times, &gaps, &mut base, step, residual)?;
                }
                (None, _) | (_, Err(_)) => {
                    let residuals = column::integers(bytes, n)?;
                    put_on_grid(&mut times, &gaps, &mut base, step, |i| residuals[i].wrapping_mul(unit))?;
                }
            }
            Ok(times)
        }
        TIMES_PLAIN => column::integers_as(reader.bytes()?, n, at),
        _ => Err(Malformed),
    }
}

/// Appends the times of a grid: each gap moves the place of what follows by some steps.
fn put_on_grid(
    times: &mut Vec<i64>,
    gaps: &[(u64, u64)],
    base: &mut u64,
    step: u64,
    residual: impl Fn(usize) -> u64,
) -> Result<(), Malformed> {
    let n = gaps.last().map_or(0, |g| g.0) as usize;
    for &(index, skipped) in gaps {
        let from = times.len();
        let to = usize::try_from(index).ok().filter(|&i| i >= from && i <= n).ok_or(Malformed)?;
        let start = base.wrapping_add((from as u64).wrapping_mul(step));
        times.extend((from..to).map(|i| {
            start.wrapping_add(((i - from) as u64).wrapping_mul(step)).wrapping_add(residual(i)) as i64
        }));
        *base = base.wrapping_add(skipped.wrapping_mul(step));
    }
    Ok(())
}

// ---- values -----------------------------------------------------------------------------------------------------

pub(crate) fn put_values(out: &mut Vec<u8>, values: &Values, effort: Effort) {
    let mut column = Vec::new();
    match values {
        Values::Float(v) => match decimals(v) {
            Some((digits, scaled)) => {
                out.push(VALUES_DECIMAL);
                out.push(digits);
                put_signed(out, &mut column, &scaled, effort);
            }
            None => {
                out.push(VALUES_FLOAT);
                column::put_floats(&mut column, v, effort);
            }
        },
        Values::Integer(v) => {
            out.push(VALUES_INTEGER);
            put_signed(out, &mut column, v, effort);
        }
        Values::Unsigned(v) => {
            out.push(VALUES_UNSIGNED);
            let min = v.iter().copied().min().unwrap_or(0);
            put_varint(out, min);
            let offsets: Vec<u64> = v.iter().map(|&x| x - min).collect();
            column::put_integers(&mut column, &offsets, Neighbours::Related, effort);
        }
        Values::Boolean(v) => {
            out.push(VALUES_BOOLEAN);
            let bits: Vec<u64> = v.iter().map(|&b| u64::from(b)).collect();
            column::put_integers(&mut column, &bits, Neighbours::Independent, effort);
        }
        Values::String(v) => {
            out.push(VALUES_STRING);
            let mut places: HashMap<&str, u64> = HashMap::new();
            let mut words: Vec<&str> = Vec::new();
            let codes: Vec<u64> = v
                .iter()
                .map(|s| {
                    *places.entry(s).or_insert_with(|| {
                        words.push(s);
                        words.len() as u64 - 1
                    })
                })
                .collect();
            put_varint(out, words.len() as u64);
            words.iter().for_each(|w| put_bytes(out, w.as_bytes()));
            column::put_integers(&mut column, &codes, Neighbours::Independent, effort);
        }
    }
    put_bytes(out, &column);
}

fn put_signed(out: &mut Vec<u8>, column: &mut Vec<u8>, v: &[i64], effort: Effort) {
    let min = v.iter().copied().min().unwrap_or(0);
    put_zigzag(out, min);
    let offsets: Vec<u64> = v.iter().map(|&x| x.wrapping_sub(min) as u64).collect();
    column::put_integers(column, &offsets, Neighbours::Related, effort);
}

/// The floats as integers of the fewest decimal digits, when dividing those gives back every bit; else `None`.
fn decimals(v: &[f64]) -> Option<(u8, Vec<i64>)> {
    let mut digits = 0;
    let mut i = 0;
    while i < v.len() {
        if scaled(v[i], digits).is_some() {
            i += 1;
        } else {
            digits += 1;
            if digits > DIGITS_MAX {
                return None;
            }
        }
    }
    // A value that fitted fewer digits fits more, but for magnitudes at the edge of exactness.
    let integers: Option<Vec<i64>> = v.iter().map(|&x| scaled(x, digits)).collect();
    integers.map(|s| (digits as u8, s))
}

pub(crate) fn take_values(reader: &mut Reader<'_>, n: usize) -> Result<Values, Malformed> {
    match reader.u8()? {
        VALUES_DECIMAL => {
            let power = *POWERS.get(usize::from(reader.u8()?)).ok_or(Malformed)?;
            let min = reader.zigzag()?;
            let map = |x: u64| min.wrapping_add(x as i64) as f64 / power;
            Ok(Values::Float(column::integers_as(reader.bytes()?, n, map)?))
        }
        VALUES_FLOAT => Ok(Values::Float(column::floats(reader.bytes()?, n)?)),
        VALUES_INTEGER => {
            let min = reader.zigzag()?;
            Ok(Values::Integer(column::integers_as(reader.bytes()?, n, |x| min.wrapping_add(x as i64))?))
        }
        VALUES_UNSIGNED => {
            let min = reader.varint()?;
            Ok(Values::Unsigned(column::integers_as(reader.bytes()?, n, |x| min.wrapping_add(x))?))
        }
        VALUES_BOOLEAN => Ok(Values::Boolean(column::integers_as(reader.bytes()?, n, |x| x != 0)?)),
        VALUES_STRING => {
            let count = reader.length(n)?;
            let words: Vec<Arc<str>> =
                (0..count).map(|_| reader.text().map(Arc::from)).collect::<Result<_, Malformed>>()?;
            let codes = column::integers(reader.bytes()?, n)?;
            let word =
                |code: u64| usize::try_from(code).ok().and_then(|c| words.get(c)).cloned().ok_or(Malformed);
            Ok(Values::String(codes.into_iter().map(word).collect::<Result<_, Malformed>>()?))
        }
        _ => Err(Malformed),
    }
}

/// The readings of a chunk as they are folded: decimal floats stay integers.
pub(crate) struct Raw {
    pub(crate) times: Vec<i64>,
    pub(crate) values: RawValues,
}

/// The values of a chunk, not divided yet where they are decimals.
pub(crate) enum RawValues {
    Decimal { digits: u8, min: i64, offsets: Vec<u32> },
    Values(Values),
}

/// Like [`decode_as`], without dividing decimals.
pub(crate) fn decode_raw(bytes: &[u8], field_type: FieldType) -> Result<Raw, Malformed> {
    let mut reader = Reader::new(bytes);
    if reader.u8()? != VERSION {
        return Err(Malformed);
    }
    let n = reader.length(COLUMN_VALUES_MAX)?;
    if n == 0 {
        return Err(Malformed);
    }
    let times = take_times(&mut reader, n)?;
    if field_type == FieldType::Float && reader.peek() == Some(VALUES_DECIMAL) {
        let mut decimals = reader.clone();
        decimals.u8()?;
        let digits = decimals.u8()?;
        let min = decimals.zigzag()?;
        let column = decimals.bytes()?;
        if usize::from(digits) <= DIGITS_MAX
            && decimals.is_empty()
            && let Some(offsets) = column::narrow(column, n)?
        {
            return Ok(Raw { times, values: RawValues::Decimal { digits, min, offsets } });
        }
    }
    let values = take_values(&mut reader, n)?;
    let good = reader.is_empty() && values.field_type() == field_type;
    if good { Ok(Raw { times, values: RawValues::Values(values) }) } else { Err(Malformed) }
}

/// The type of the values in a chunk's bytes is that of their series; a chunk that says otherwise is damaged.
pub(crate) fn decode_as(bytes: &[u8], field_type: FieldType) -> Result<(Vec<i64>, Values), Malformed> {
    let (times, values) = decode(bytes)?;
    if values.field_type() == field_type { Ok((times, values)) } else { Err(Malformed) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(times: &[i64], values: Values) -> usize {
        let bytes = encode(times, &values, Effort::Seal);
        let (t, v) = decode(&bytes).unwrap();
        assert_eq!(t, times);
        match (&v, &values) {
            (Values::Float(a), Values::Float(b)) => {
                assert!(
                    a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits()),
                    "every bit of a float comes back"
                );
            }
            _ => assert_eq!(v, values),
        }
        bytes.len()
    }

    #[test]
    fn every_type_comes_back_on_every_kind_of_clock() {
        let regular: Vec<i64> = (0..2048).map(|i| 1_700_000_000_000_000_000 + i * 10_000_000_000).collect();
        let jittered: Vec<i64> =
            regular.iter().enumerate().map(|(i, t)| t + (i as i64 * 7919 % 20) * 1_000_000).collect();
        let gaps: Vec<i64> =
            jittered.iter().enumerate().map(|(i, t)| t + (i as i64 / 500) * 3_600_000_000_000).collect();
        let wild: Vec<i64> = (0..2048i64).map(|i| i * i * i * 1_000_003 - 5_000_000_000).collect();
        let extreme: Vec<i64> = vec![i64::MIN + 2, -1, 0, 1, i64::MAX - 1];
        for times in [regular, jittered, gaps, wild, extreme, vec![-5]] {
            let n = times.len();
            let columns = [
                Values::Float(
                    (0..n)
                        .map(|i| (i as f64).mul_add(0.1, 20.0))
                        .map(|x| (x * 10.0).round() / 10.0)
                        .collect(),
                ),
                Values::Float((0..n).map(|i| (i as f64).sqrt()).collect()),
                Values::Float((0..n).map(|i| if i % 3 == 0 { -0.0 } else { 1e300 }).collect()),
                Values::Float(vec![f64::from_bits(1); n]),
                Values::Integer(
                    (0..n as i64).map(|i| if i % 2 == 0 { i64::MIN + i } else { i64::MAX - i }).collect(),
                ),
                Values::Unsigned((0..n as u64).map(|i| u64::MAX - i).collect()),
                Values::Boolean((0..n).map(|i| i % 100 < 50).collect()),
                Values::String((0..n).map(|i| Arc::from(["on", "off", "störung 🛠"][i % 3])).collect()),
                Values::String((0..n).map(|i| Arc::from(format!("line {i}"))).collect()),
            ];
            for values in columns {
                check(&times, values);
            }
        }
    }

    #[test]
    fn a_regular_decimal_series_takes_little() {
        let times: Vec<i64> = (0..2048).map(|i| 1_700_000_000_000_000_000 + i * 10_000_000_000).collect();
        let values = Values::Float((0..2048).map(|i| f64::from(200 + (i * 7919) % 4) / 10.0).collect());
        let bytes = check(&times, values);
        assert!(bytes < 2048 / 2, "regular times cost nothing and two bits a value are 512 bytes: {bytes}");
    }

    proptest! {
        #[test]
        fn anything_comes_back(
            mut times in proptest::collection::btree_set(any::<i64>(), 1..300),
            seed in any::<u64>(),
            near in any::<bool>(),
        ) {
            if near { times = times.into_iter().map(|t| t % 1_000_000).collect(); }
            let times: Vec<i64> = times.into_iter().collect();
            let n = times.len() as u64;
            let random = |i: u64| (seed ^ i.wrapping_mul(0x9E37_79B9_7F4A_7C15)).wrapping_mul(0xD134_2543_DE82_EF95).rotate_left(23);
            check(&times, Values::Integer((0..n).map(|i| random(i) as i64).collect()));
            check(&times, Values::Float((0..n).map(|i| f64::from_bits(random(i))).map(|x| if x.is_finite() { x } else { 0.5 }).collect()));
            check(&times, Values::Float((0..n).map(|i| (random(i) % 100_000) as f64 / 1000.0).collect()));
            check(&times, Values::Unsigned((0..n).map(|i| random(i) >> (random(i + 1) % 64)).collect()));
        }

        #[test]
        fn damaged_bytes_never_panic(flips in proptest::collection::vec((any::<u16>(), 0u8..8), 1..4), cut in any::<u16>()) {
            let times: Vec<i64> = (0..300).map(|i| i * 1_000_000_000 + i % 3).collect();
            let values = Values::String((0..300).map(|i| Arc::from(format!("v{}", i % 7))).collect());
            let mut bytes = encode(&times, &values, Effort::Seal);
            for (place, bit) in flips {
                let place = usize::from(place) % bytes.len();
                bytes[place] ^= 1 << bit;
            }
            let _ = decode(&bytes);
            bytes.truncate(usize::from(cut) % (bytes.len() + 1));
            let _ = decode(&bytes);
        }
    }
}
