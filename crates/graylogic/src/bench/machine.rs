//! What both sides of `bench store` are measured with: batches of lines, repeated questions, and what the system says
//! of this process.

use super::median;
use crate::failure::Failure;
use serde_json::{Map, Value, json};
use std::fs::{self, File};
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Lines of a batch.
pub(crate) const BATCH_LINES: usize = 5000;
const QUESTIONS: usize = 9;

/// Hands out the batches of the generated file.
pub(crate) struct Batches {
    input: BufReader<File>,
    left: usize,
}

impl Batches {
    pub(crate) fn open(path: &Path, points: usize) -> Result<Self, Failure> {
        let file =
            File::open(path).map_err(|e| Failure::because(format_args!("read {}", path.display()), e))?;
        Ok(Self { input: BufReader::with_capacity(1 << 20, file), left: points / BATCH_LINES })
    }

    /// Fills `batch`; false at the end.
    pub(crate) fn next(&mut self, batch: &mut Vec<u8>) -> Result<bool, Failure> {
        if self.left == 0 {
            return Ok(false);
        }
        self.left -= 1;
        let failed = |e| Failure::because("read the generated lines", e);
        let mut length = [0; 4];
        self.input.read_exact(&mut length).map_err(failed)?;
        batch.resize(u32::from_le_bytes(length) as usize, 0);
        self.input.read_exact(batch).map_err(failed)?;
        Ok(true)
    }
}

/// A folder that is removed at the end.
pub(crate) struct Place {
    pub(crate) path: PathBuf,
}

impl Place {
    pub(crate) fn new(parent: Option<&Path>) -> Result<Self, Failure> {
        let parent = parent.map_or_else(std::env::temp_dir, Path::to_owned);
        let path = parent.join(format!("graylogic-bench-{}", std::process::id()));
        fs::create_dir_all(&path)
            .map_err(|e| Failure::because(format_args!("make {}", path.display()), e))?;
        Ok(Self { path })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _left_behind = fs::remove_dir_all(&self.path);
    }
}

/// Asks a question several times and notes the median.
pub(crate) fn ask(
    figures: &mut Map<String, Value>,
    name: &str,
    question: impl Fn() -> Result<usize, Failure>,
) -> Result<(), Failure> {
    let mut times = Vec::new();
    for _ in 0..QUESTIONS {
        let began = Instant::now();
        let found = question()?;
        times.push(began.elapsed().as_secs_f64() * 1e3);
        if found == 0 {
            return Err(Failure::new(format!("{name} found nothing")));
        }
    }
    figures.insert(name.to_owned(), json!(median(times)));
    Ok(())
}

/// Seconds of processor time of this process.
pub(crate) fn cpu_seconds() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks: f64 = rest.split_whitespace().skip(11).take(2).filter_map(|t| t.parse::<f64>().ok()).sum();
    // The kernel counts in hundredths for every process.
    ticks / 100.0
}

/// Nanoseconds that this thread could have run and did not, because others had the processors.
pub(crate) fn preempted_nanos() -> u64 {
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split_whitespace().nth(1).and_then(|n| n.parse().ok()).unwrap_or(0)
}

/// Bytes this process has handed to disks.
pub(crate) fn written_bytes() -> u64 {
    proc_number("/proc/self/io", "write_bytes:")
}

/// Most memory this process had since the last reset.
pub(crate) fn peak_bytes() -> u64 {
    proc_number("/proc/self/status", "VmHWM:") * 1024
}

pub(crate) fn reset_peak() {
    let _shown_from_the_start_otherwise = fs::write("/proc/self/clear_refs", "5");
}

fn proc_number(file: &str, name: &str) -> u64 {
    let text = fs::read_to_string(file).unwrap_or_default();
    let line = text.lines().find_map(|l| l.strip_prefix(name));
    line.and_then(|l| l.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

pub(crate) fn folder_bytes(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    let of = |entry: fs::DirEntry| match entry.metadata() {
        Ok(meta) if meta.is_dir() => folder_bytes(&entry.path()),
        Ok(meta) => meta.len(),
        Err(_) => 0,
    };
    entries.flatten().map(of).sum()
}
