//! Nothing of a developer's machine in the files, no foreign registry, no unfinished code. Reads the files that
//! git has or would take; must not know what they are for.

use std::path::Path;
use std::process::Command;

/// The one registry `Cargo.lock` may name.
const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// Homes on a developer's machine. Taken apart, so that this file does not find itself.
const MACHINE_FOLDERS: &[&str] = &[concat!("/wo", "rk/"), concat!("/ro", "ot/")];
const HOMES: &str = concat!("/ho", "me/");

/// Registries and their mirrors: a file that names one would send a reader's build there.
const REGISTRY_HOSTS: &[&str] = &[
    concat!("registry.", "npmjs"),
    concat!("registry.", "yarnpkg"),
    concat!("pypi", ".org"),
    concat!("pythonhosted", ".org"),
    concat!("proxy.", "golang"),
    concat!("repo1.", "maven"),
    concat!("repo.", "maven"),
    concat!("deb.", "debian"),
    concat!("arti", "factory"),
    concat!("/nexus", "/repository"),
];

const UNFINISHED: &[&str] = &[concat!("to", "do!"), concat!("unimple", "mented!("), concat!("#[ig", "nore")];
const CONFLICT: &str = concat!("<<<<", "<<< ");

/// Looks through every file; the error lists what was found, one `path:line: what` each.
pub(crate) fn run(root: &Path) -> Result<(), String> {
    let files = files(root)?;
    let mut findings = Vec::new();
    for name in &files {
        // A file that is listed but gone is being deleted. One that is not text holds no such line.
        let Ok(bytes) = std::fs::read(root.join(name)) else { continue };
        let Ok(text) = String::from_utf8(bytes) else { continue };
        findings.extend(look(name, &text));
    }
    if findings.is_empty() {
        println!("hygiene: {} files, nothing found", files.len());
        return Ok(());
    }
    Err(format!("{}\nhygiene: {} found in {} files", findings.join("\n"), findings.len(), files.len()))
}

/// What git has, and what it would take with the next `git add`.
fn files(root: &Path) -> Result<Vec<String>, String> {
    let listed = Command::new("git")
        .current_dir(root)
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .output()
        .map_err(|error| format!("hygiene: start git: {error}"))?;
    if !listed.status.success() {
        return Err(format!("hygiene: list files: {}", String::from_utf8_lossy(&listed.stderr).trim()));
    }
    let names: Vec<String> = listed
        .stdout
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
        .map(|name| String::from_utf8_lossy(name).into_owned())
        .collect();
    if names.is_empty() { Err("hygiene: git lists no file here".to_owned()) } else { Ok(names) }
}

/// The findings in one file, each `path:line: what`.
fn look(name: &str, text: &str) -> Vec<String> {
    let rust = name.ends_with(".rs");
    let lock = name == "Cargo.lock" || name.ends_with("/Cargo.lock");
    let settings = name.ends_with(".toml");
    let mut findings = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let mut find = |what: String| findings.push(format!("{name}:{}: {what}", at + 1));
        if let Some(path) = machine_path(line) {
            find(format!("a path of a developer's machine: {path}"));
        }
        if let Some(host) = REGISTRY_HOSTS.iter().find(|host| line.contains(**host)) {
            find(format!("the host of a package registry: {host}"));
        }
        if rust && let Some(mark) = UNFINISHED.iter().find(|mark| line.contains(**mark)) {
            find(format!("unfinished code: {mark}"));
        }
        if line.starts_with(CONFLICT) {
            find("a merge conflict".to_owned());
        }
        if lock && line.starts_with("source = ") && line != format!("source = \"{REGISTRY}\"") {
            find(format!("a package from elsewhere than crates.io: {line}"));
        }
        if settings
            && (line.starts_with("[source.")
                || line.starts_with("[registries")
                || line.starts_with("[registry"))
        {
            find(format!("a setting that replaces crates.io: {line}"));
        }
    }
    findings
}

/// The first absolute path into a developer's folders: at the beginning of a word, so that a relative path and
/// the path part of an address are left alone.
fn machine_path(line: &str) -> Option<&str> {
    let absolute = |at: usize| {
        let before = line[..at].chars().next_back();
        before.is_none_or(|before| {
            !(before.is_alphanumeric() || matches!(before, '.' | '_' | '-' | '}' | '*' | '~'))
        })
    };
    for folder in MACHINE_FOLDERS {
        if let Some((at, found)) = line.match_indices(folder).find(|(at, _)| absolute(*at)) {
            return Some(&line[at..at + found.len()]);
        }
    }
    line.match_indices(HOMES).filter(|(at, _)| absolute(*at)).find_map(|(at, _)| {
        let rest = &line[at + HOMES.len()..];
        let user =
            rest.find(|letter: char| !(letter.is_alphanumeric() || matches!(letter, '_' | '-' | '.')))?;
        (user > 0 && rest[user..].starts_with('/')).then(|| &line[at..=at + HOMES.len() + user])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, text: &str, found: usize) {
        let findings = look(name, text);
        assert_eq!(findings.len(), found, "{name}: {text:?}: {findings:?}");
    }

    #[test]
    fn paths_of_a_machine_are_found_and_others_are_not() {
        for (text, found) in [
            (concat!("open(\"/wo", "rk/main/x\")"), 1),
            (concat!("/ro", "ot/.cargo"), 1),
            (concat!("file:///ho", "me/ada/notes"), 1),
            (concat!("see /ho", "me/ada"), 0),
            (concat!("see /ho", "me/<user>/"), 0),
            (concat!("https://example.org/net", "wo", "rk/x"), 0),
            (concat!("./wo", "rk/main"), 0),
            (concat!("target/wo", "rk/main"), 0),
            ("/var/lib/graylogic", 0),
        ] {
            check("README.md", text, found);
        }
    }

    #[test]
    fn unfinished_rust_is_found_and_prose_about_it_is_not() {
        let unfinished = concat!("fn f() { to", "do!() }");
        check("crates/line/src/lib.rs", unfinished, 1);
        check("CONTRIBUTING.md", unfinished, 0);
        check("crates/line/tests/a.rs", concat!("#[ig", "nore = \"slow\"]"), 1);
        check("crates/line/src/lib.rs", "fn ignore() {}", 0);
    }

    #[test]
    fn a_lock_file_names_crates_io_only() {
        check("Cargo.lock", &format!("source = \"{REGISTRY}\""), 0);
        check("fuzz/Cargo.lock", "source = \"registry+https://crates.example/index\"", 1);
        check("Cargo.lock", "source = \"git+https://github.com/a/b#c0ffee\"", 1);
        check(".cargo/config.toml", "[source.crates-io]", 1);
        check(".cargo/config.toml", "[alias]", 0);
    }

    #[test]
    fn registry_hosts_and_conflicts_are_found() {
        check("data/README.md", concat!("https://pypi", ".org/project/x"), 1);
        check("data/README.md", "https://archive.ics.uci.edu", 0);
        check("a.md", concat!("<<<<", "<<< HEAD"), 1);
    }
}
