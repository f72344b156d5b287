//! Columns of integers as bytes: constant, runs, varints or `pco`, whichever is smallest. The only module that names `pco`.
//! It knows neither times nor values: `chunk.rs` maps those to unsigned integers.

use crate::bytes::{Malformed, Reader, put_varint};
use pco::wrapped::{FileCompressor, FileDecompressor};
use pco::{ChunkConfig, DeltaSpec, ModeSpec, PagingSpec};

/// How hard to try: sealing happens on the way in, compaction in the background.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effort {
    Seal,
    Compact,
}

impl Effort {
    fn level(self) -> usize {
        match self {
            Self::Seal => 4,
            Self::Compact => 8,
        }
    }
}

/// Most values one column may hold: a bound on the memory that damaged bytes can ask for.
pub(crate) const COLUMN_VALUES_MAX: usize = 1 << 20;

const CONSTANT: u8 = 0;
const RUNS: u8 = 1;
const VARINTS: u8 = 2;
const PCO_U32: u8 = 3;
const PCO_U64: u8 = 4;
const PCO_F64: u8 = 5;
const RAW_F64: u8 = 6;

/// Up to so many floats are kept as they are: the header of a pco stream would be longer than what it saves.
const RAW_MAX: usize = 48;

/// What the caller knows of neighbours in a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Neighbours {
    /// They have nothing to do with each other.
    Independent,
    /// They may be close to each other.
    Related,
}

/// Appends a column of integers of which the smallest is 0 or near it.
pub(crate) fn put_integers(out: &mut Vec<u8>, v: &[u64], neighbours: Neighbours, effort: Effort) {
    debug_assert!(!v.is_empty() && v.len() <= COLUMN_VALUES_MAX, "a column has 1 to 2^20 values");
    let max = v.iter().copied().fold(0, u64::max);
    let runs = 1 + v.windows(2).filter(|w| w[0] != w[1]).count();
    if runs == 1 {
        out.push(CONSTANT);
        put_varint(out, v[0]);
        return;
    }
    // A run costs about three bytes; pco gets by with fewer than one byte a value on most data.
    let start = out.len();
    if runs * 12 <= v.len() {
        put_runs(out, v);
        if (out.len() - start) * 32 <= v.len() {
            return;
        }
        let mut other = Vec::with_capacity(v.len());
        put_numbers(&mut other, v, max, neighbours, effort);
        if other.len() < out.len() - start {
            out.truncate(start);
            out.extend_from_slice(&other);
        }
    } else {
        put_numbers(out, v, max, neighbours, effort);
    }
}

fn put_runs(out: &mut Vec<u8>, v: &[u64]) {
    out.push(RUNS);
    let mut rest = v;
    while let Some(&first) = rest.first() {
        let n = rest.iter().position(|&x| x != first).unwrap_or(rest.len());
        put_varint(out, first);
        put_varint(out, n as u64);
        rest = &rest[n..];
    }
}

fn put_numbers(out: &mut Vec<u8>, v: &[u64], max: u64, neighbours: Neighbours, effort: Effort) {
    let start = out.len();
    // The header of a pco stream is longer than a handful of varints.
    if v.len() <= 32 {
        out.push(VARINTS);
        v.iter().for_each(|&x| put_varint(out, x));
        return;
    }
    let delta = match neighbours {
        Neighbours::Independent => DeltaSpec::NoOp,
        Neighbours::Related => nearest(v),
    };
    let packed = if let Ok(_max) = u32::try_from(max) {
        let narrow: Vec<u32> = v.iter().map(|&x| x as u32).collect();
        out.push(PCO_U32);
        put_pco(out, &narrow, delta, ModeSpec::Classic, effort)
    } else {
        out.push(PCO_U64);
        put_pco(out, v, delta, ModeSpec::Auto, effort)
    };
    if packed.is_err() {
        out.truncate(start);
        out.push(VARINTS);
        v.iter().for_each(|&x| put_varint(out, x));
    }
}

/// Whether values or their differences are smaller on the whole: what pco's own search finds, in one cheap pass.
fn nearest(v: &[u64]) -> DeltaSpec {
    let bits = |x: u64| 64 - x.leading_zeros();
    let mean = (v.iter().map(|&x| u128::from(x)).sum::<u128>() / v.len() as u128) as u64;
    let (mut plain, mut first, mut second) = (0u64, 0u64, 0u64);
    let (mut before, mut before_delta) = (v[0], 0i64);
    for &x in v {
        let delta = x.wrapping_sub(before) as i64;
        plain += u64::from(bits(x.abs_diff(mean)));
        first += u64::from(bits(delta.unsigned_abs()));
        second += u64::from(bits(delta.wrapping_sub(before_delta).unsigned_abs()));
        (before, before_delta) = (x, delta);
    }
    if plain <= first && plain <= second {
        DeltaSpec::NoOp
    } else if first <= second {
        DeltaSpec::TryConsecutive(1)
    } else {
        DeltaSpec::TryConsecutive(2)
    }
}

/// Appends a column of floats that are no exact decimals.
pub(crate) fn put_floats(out: &mut Vec<u8>, v: &[f64], effort: Effort) {
    debug_assert!(!v.is_empty() && v.len() <= COLUMN_VALUES_MAX, "a column has 1 to 2^20 values");
    let start = out.len();
    if v.len() <= RAW_MAX {
        out.push(RAW_F64);
        v.iter().for_each(|x| out.extend_from_slice(&x.to_le_bytes()));
        return;
    }
    out.push(PCO_F64);
    if put_pco(out, v, DeltaSpec::Auto, ModeSpec::Auto, effort).is_err() {
        out.truncate(start);
        out.push(VARINTS);
        v.iter().for_each(|&x| put_varint(out, x.to_bits()));
    }
}

fn put_pco<T: pco::data_types::Number>(
    out: &mut Vec<u8>,
    v: &[T],
    delta: DeltaSpec,
    mode: ModeSpec,
    effort: Effort,
) -> Result<(), pco::errors::PcoError> {
    let config = ChunkConfig::default()
        .with_compression_level(effort.level())
        .with_delta_spec(delta)
        .with_mode_spec(mode)
        .with_paging_spec(PagingSpec::Exact(vec![v.len()]));
    let file = FileCompressor::default();
    let mut chunk = file.chunk_compressor(v, &config)?;
    file.write_header(&mut *out)?;
    chunk.write_meta(&mut *out)?;
    chunk.write_page(0, &mut *out)?;
    Ok(())
}

/// Reads a column of `n` integers that takes all of `bytes`, handing each to `push`.
pub(crate) fn integers(bytes: &[u8], n: usize) -> Result<Vec<u64>, Malformed> {
    let mut reader = Reader::new(bytes);
    let kind = reader.u8()?;
    if n == 0 || n > COLUMN_VALUES_MAX {
        return Err(Malformed);
    }
    match kind {
        CONSTANT => Ok(vec![reader.varint()?; n]),
        RUNS => {
            let mut v = Vec::with_capacity(n);
            while v.len() < n {
                let value = reader.varint()?;
                let times = reader.length(n - v.len())?;
                if times == 0 {
                    return Err(Malformed);
                }
                v.resize(v.len() + times, value);
            }
            Ok(v)
        }
        VARINTS => {
            let mut v = Vec::with_capacity(n.min(bytes.len()));
            for _ in 0..n {
                v.push(reader.varint()?);
            }
            Ok(v)
        }
        PCO_U32 => Ok(unpack::<u32>(&bytes[1..], n)?.into_iter().map(u64::from).collect()),
        PCO_U64 => unpack::<u64>(&bytes[1..], n),
        _ => Err(Malformed),
    }
}

/// Reads a column of `n` integers and maps each to what it stands for.
pub(crate) fn integers_as<T: Clone>(
    bytes: &[u8],
    n: usize,
    map: impl Fn(u64) -> T,
) -> Result<Vec<T>, Malformed> {
    match bytes.first() {
        // The common case, without a column of u64 in between.
        Some(&PCO_U32) if n <= COLUMN_VALUES_MAX => {
            Ok(unpack::<u32>(&bytes[1..], n)?.into_iter().map(|x| map(u64::from(x))).collect())
        }
        // Another, of the hours of a chunk.
        Some(&VARINTS) if n <= COLUMN_VALUES_MAX => {
            let mut reader = Reader::new(&bytes[1..]);
            let mut v = Vec::with_capacity(n.min(bytes.len()));
            for _ in 0..n {
                v.push(map(reader.varint()?));
            }
            Ok(v)
        }
        _ => Ok(integers(bytes, n)?.into_iter().map(map).collect()),
    }
}

/// A column of `n` integers below 2^32; `None` when it may hold larger ones.
pub(crate) fn narrow(bytes: &[u8], n: usize) -> Result<Option<Vec<u32>>, Malformed> {
    match bytes.first() {
        Some(&PCO_U32) if n <= COLUMN_VALUES_MAX => Ok(Some(unpack::<u32>(&bytes[1..], n)?)),
        Some(&(CONSTANT | RUNS | VARINTS)) => {
            Ok(integers(bytes, n)?.into_iter().map(|x| u32::try_from(x).ok()).collect())
        }
        _ => Ok(None),
    }
}

/// Reads a column of `n` floats written by [`put_floats`].
pub(crate) fn floats(bytes: &[u8], n: usize) -> Result<Vec<f64>, Malformed> {
    match bytes.first() {
        Some(&PCO_F64) if n <= COLUMN_VALUES_MAX => unpack::<f64>(&bytes[1..], n),
        Some(&VARINTS) => integers_as(bytes, n, f64::from_bits),
        Some(&RAW_F64) if bytes.len() == 1 + 8 * n => {
            let (numbers, _) = bytes[1..].as_chunks::<8>();
            Ok(numbers.iter().map(|x| f64::from_le_bytes(*x)).collect())
        }
        _ => Err(Malformed),
    }
}

fn unpack<T: pco::data_types::Number + Default>(bytes: &[u8], n: usize) -> Result<Vec<T>, Malformed> {
    let read = || -> Result<(Vec<T>, bool), pco::errors::PcoError> {
        let (file, rest) = FileDecompressor::new(bytes)?;
        let (mut chunk, rest) = file.chunk_decompressor::<T, _>(rest)?;
        let mut page = chunk.page_decompressor(rest, n)?;
        let mut v = vec![T::default(); n];
        let progress = page.read(&mut v)?;
        Ok((v, progress.n_processed == n))
    };
    match read() {
        Ok((v, true)) => Ok(v),
        _ => Err(Malformed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_of_every_shape_come_back() {
        let walk: Vec<u64> = (0..3000u64).map(|i| 5000 + (i * 7919 % 13) + i / 50).collect();
        let shapes: Vec<Vec<u64>> = vec![
            vec![0],
            vec![7; 2048],
            (0..10).collect(),
            (0..2048).map(|i| i / 700).collect(),
            (0..2048).map(|i| i % 2).collect(),
            walk,
            (0..100).map(|i| u64::MAX - i * i).collect(),
            (0..100).map(|i| i << 40).collect(),
            [u64::MAX, 0].repeat(300),
        ];
        for v in shapes {
            for neighbours in [Neighbours::Independent, Neighbours::Related] {
                let mut out = Vec::new();
                put_integers(&mut out, &v, neighbours, Effort::Seal);
                assert_eq!(integers(&out, v.len()).unwrap(), v);
                assert_eq!(integers_as(&out, v.len(), |x| x).unwrap(), v);
            }
        }
        for v in [
            vec![0.1, -0.0, f64::MAX, f64::MIN_POSITIVE / 4.0],
            (0..999).map(|i| f64::from(i).sin()).collect(),
        ] {
            let mut out = Vec::new();
            put_floats(&mut out, &v, Effort::Seal);
            let back = floats(&out, v.len()).unwrap();
            assert!(v.iter().zip(&back).all(|(a, b)| a.to_bits() == b.to_bits()));
        }
    }

    #[test]
    fn damaged_columns_are_malformed_or_other_values_but_never_a_panic() {
        let v: Vec<u64> = (0..600u64).map(|i| i * i % 1000).collect();
        let mut out = Vec::new();
        put_integers(&mut out, &v, Neighbours::Related, Effort::Seal);
        for i in 0..out.len() * 8 {
            let mut hurt = out.clone();
            hurt[i / 8] ^= 1 << (i % 8);
            let _ = integers(&hurt, v.len());
        }
        for n in 0..out.len() {
            let _ = integers(&out[..n], v.len());
        }
    }
}
