//! The test bar of spool and store as one table: runs the torture tests of `graylogic-durable`, `graylogic-store` and
//! `graylogic-influxdb` at the figures of continuous integration, and gathers the rows they print. Must not know what a row tests.

use crate::cargo;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

/// Package and test file. A file that is not there has no rows, and what is missing then is told.
const TESTS: &[(&str, &str, &str)] = &[
    ("graylogic-durable", "durable", "torture"),
    ("graylogic-durable", "durable", "damage"),
    ("graylogic-store", "store", "torture"),
    ("graylogic-influxdb", "influxdb", "server"),
    ("graylogic-influxdb", "influxdb", "tls"),
    ("graylogic-influxdb", "influxdb", "drain"),
    ("graylogic-influxdb", "influxdb", "soak"),
];

/// Without every one of these a run has not shown what it should. Each may have parts, as `D2 cursor` is one of `D2`.
const ROWS: &[&str] = &[
    "D1", "D2", "D3", "D4", "D5", "D6", "D7", "D8", "D9", "D10", "D11", "D12", "D13", "D14", "S1", "S2",
    "S3", "S4", "S5", "S6", "S7", "C1", "K1", "K2",
];

/// What must be 0 in every row.
const COUNTERS: &[&str] = &["lost", "wrong", "refused_to_open", "panics"];
/// Room on the file system that D7 fills.
const SMALL_DISK: &str = "size=256k";

/// A row as a test printed it.
#[derive(Debug)]
struct Row {
    json: String,
    id: String,
    cases: u64,
    broken: [u64; COUNTERS.len()],
    seed: u64,
}

/// `cargo xtask torture [--json] [--miri] [ROW...]`.
pub(crate) fn run(root: &Path, arguments: &[&str]) -> Result<(), String> {
    let (options, wanted): (Vec<&str>, Vec<&str>) = arguments.iter().partition(|a| a.starts_with("--"));
    let known = |option: &&&str| !["--json", "--miri"].contains(*option);
    if let Some(option) = options.iter().find(known) {
        return Err(format!("torture: there is no option {option}; there are --json and --miri"));
    }
    if let Some(row) = wanted.iter().find(|row| !ROWS.contains(row)) {
        return Err(format!("torture: there is no row {row}; the rows are {}", ROWS.join(" ")));
    }
    let json = options.contains(&"--json");
    let began = Instant::now();
    if options.contains(&"--miri") {
        miri(root)?;
    }
    let disk = SmallDisk::new();
    let mut rows = Vec::new();
    let mut failures = Vec::new();
    for (package, folder, test) in TESTS {
        let file = root.join("crates").join(folder).join("tests").join(format!("{test}.rs"));
        if !file.is_file() || !has_any(package, &wanted) {
            continue;
        }
        let mut command = cargo(root);
        command.args(["test", "--package", package, "--test", test, "--", "--nocapture"]);
        command.env("GRAYLOGIC_TORTURE", "1");
        if let Some(folder) = disk.folder() {
            command.env("GRAYLOGIC_TORTURE_TMPFS", folder);
        }
        command.args(wanted.iter().map(|row| filter(row)));
        let (found, ended) = gather(&mut command, json)?;
        rows.extend(found);
        failures.extend(ended.err().map(|why| format!("the tests in {}: {why}", file.display())));
    }
    rows.retain(|row| wanted.is_empty() || wanted.contains(&name(&row.id)));
    if json {
        let all: Vec<&str> = rows.iter().map(|row| row.json.as_str()).collect();
        println!("[\n  {}\n]", all.join(",\n  "));
    } else {
        print(&rows, began);
    }
    failures.extend(judge(&rows, if wanted.is_empty() { ROWS } else { &wanted }));
    if failures.is_empty() { Ok(()) } else { Err(format!("torture: {}", failures.join("\ntorture: "))) }
}

/// The row that a part belongs to.
fn name(id: &str) -> &str {
    id.split(' ').next().unwrap_or(id)
}

/// Names of tests begin with their row.
fn filter(row: &str) -> String {
    format!("{}_", row.to_lowercase())
}

/// Whether a package may have one of the rows: their first letter says which.
fn has_any(package: &str, wanted: &[&str]) -> bool {
    let letters: &[char] = match package {
        "graylogic-durable" => &['D'],
        "graylogic-store" => &['K'],
        _ => &['S', 'C'],
    };
    wanted.is_empty() || wanted.iter().any(|row| row.starts_with(letters))
}

/// What is missing, empty or broken, a sentence each.
fn judge(rows: &[Row], wanted: &[&str]) -> Vec<String> {
    let missing = wanted.iter().filter(|row| !rows.iter().any(|r| name(&r.id) == **row));
    let mut found: Vec<String> = missing.map(|row| format!("row {row} is missing")).collect();
    for row in rows {
        if row.cases == 0 {
            found.push(format!("row {} has no cases", row.id));
        }
        for (counter, count) in COUNTERS.iter().zip(row.broken).filter(|(_, count)| *count > 0) {
            found.push(format!("row {} has {count} {counter}", row.id));
        }
    }
    found
}

/// Runs tests and takes the rows from what they print, which is passed on.
fn gather(command: &mut Command, quiet: bool) -> Result<(Vec<Row>, Result<(), String>), String> {
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
    let mut child = child.map_err(|error| format!("torture: start {command:?}: {error}"))?;
    let mut rows = Vec::new();
    let printed = child.stdout.take().map(BufReader::new);
    for line in printed.into_iter().flat_map(|out| out.split(b'\n')) {
        let line = line.map_err(|error| format!("torture: read what the tests print: {error}"))?;
        let line = String::from_utf8_lossy(&line);
        // The runner may have begun the line with the name of the test.
        match line.find("torture {").and_then(|at| parse(&line[at + "torture ".len()..])) {
            Some(row) => rows.push(row),
            None if line.contains("torture {") => return Err(format!("torture: this is no row: {line}")),
            None => {}
        }
        if !quiet {
            println!("{line}");
        }
    }
    let status = child.wait().map_err(|error| format!("torture: wait for {command:?}: {error}"))?;
    let ended = if status.success() { Ok(()) } else { Err(format!("ended with {status}")) };
    Ok((rows, ended))
}

/// A row from its JSON, which is flat and has no escapes.
fn parse(json: &str) -> Option<Row> {
    let json = json.trim();
    let fields = json.strip_prefix('{')?.strip_suffix('}')?;
    let field = |name: &str| {
        let mut pairs = fields.split(',').filter_map(|pair| pair.split_once(':'));
        pairs.find(|(key, _)| key.trim().trim_matches('"') == name).map(|(_, value)| value.trim())
    };
    let number = |name: &str| field(name)?.parse::<u64>().ok();
    let mut broken = [0; COUNTERS.len()];
    for (count, counter) in broken.iter_mut().zip(COUNTERS) {
        *count = number(counter)?;
    }
    let id = field("id")?.trim_matches('"').to_owned();
    Some(Row { json: json.to_owned(), id, cases: number("cases")?, broken, seed: number("seed")? })
}

fn print(rows: &[Row], began: Instant) {
    println!(
        "\n{:<14} {:>10} {:>6} {:>6} {:>16} {:>7} {:>6}",
        "row", "cases", "lost", "wrong", "refused_to_open", "panics", "seed"
    );
    for row in rows {
        let [lost, wrong, refused, panics] = row.broken;
        println!(
            "{:<14} {:>10} {lost:>6} {wrong:>6} {refused:>16} {panics:>7} {:>6}",
            row.id, row.cases, row.seed
        );
    }
    println!("torture: {} rows in {} s", rows.len(), began.elapsed().as_secs());
}

/// The codec under an interpreter that sees every wrong access. A long run: it wants the nightly toolchain and its `miri`.
fn miri(root: &Path) -> Result<(), String> {
    let mut command = Command::new("rustup");
    command.current_dir(root).args(["run", "nightly", "cargo", "miri", "test"]);
    command.args(["--package", "graylogic-durable", "--lib", "frame::"]);
    // A variable of this cargo would choose its toolchain there.
    command.env_remove("CARGO").env_remove("RUSTC").env_remove("RUSTUP_TOOLCHAIN");
    crate::run("torture: miri", &mut command)
}

/// A file system that is soon full. Only the administrator may make one; without it D7 has its disk in memory.
struct SmallDisk(Option<PathBuf>);

impl SmallDisk {
    fn new() -> Self {
        let folder = std::env::temp_dir().join(format!("graylogic-torture-{}", std::process::id()));
        if std::fs::create_dir(&folder).is_err() {
            return Self(None);
        }
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", SMALL_DISK, "tmpfs"]).arg(&folder).stderr(Stdio::null());
        if crate::run("torture: mount", &mut mount).is_ok() {
            return Self(Some(folder));
        }
        eprintln!(
            "torture: no small file system can be mounted (this wants root): D7 fills a disk in memory"
        );
        let _empty = std::fs::remove_dir(&folder);
        Self(None)
    }

    fn folder(&self) -> Option<&Path> {
        self.0.as_deref()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        if let Some(folder) = &self.0 {
            if let Err(why) = crate::run("torture: unmount", Command::new("umount").arg(folder)) {
                eprintln!("{why}");
            }
            let _empty = std::fs::remove_dir(folder);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str =
        r#"{"id":"D2 cursor","cases":7,"lost":0,"wrong":0,"refused_to_open":0,"panics":0,"seed":2}"#;

    #[test]
    fn a_row_is_read_and_anything_else_is_not() {
        let row = parse(GOOD).expect("a row");
        assert_eq!((row.id.as_str(), row.cases, row.broken, row.seed), ("D2 cursor", 7, [0; 4], 2));
        assert_eq!(name(&row.id), "D2");
        for bad in
            ["", "{}", &GOOD.replace("lost", "last"), &GOOD.replace("7", "-7"), &GOOD[..GOOD.len() - 1]]
        {
            assert!(parse(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn what_is_missing_empty_or_broken_fails() {
        let rows = |json: &str| vec![parse(json).expect("a row")];
        assert_eq!(judge(&rows(GOOD), &["D2"]), Vec::<String>::new());
        assert_eq!(judge(&rows(GOOD), &["D1", "D2"]), ["row D1 is missing"]);
        assert_eq!(judge(&[], ROWS).len(), ROWS.len());
        assert_eq!(judge(&rows(&GOOD.replace(":7", ":0")), &["D2"]), ["row D2 cursor has no cases"]);
        assert_eq!(
            judge(&rows(&GOOD.replace("wrong\":0", "wrong\":3")), &["D2"]),
            ["row D2 cursor has 3 wrong"]
        );
    }
}
