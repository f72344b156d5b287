//! Whether a folder takes files. Permissions do not show it: a file system may be read-only, or accept no files at all.
//! So one is put there and taken out again. Must not know what the folder is for.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// So many folders within the folder are tried.
const WITHIN_MAX: usize = 64;

/// Puts a file into a folder, and into those that are in it, and takes it out again. Of a folder that does not exist yet the
/// nearest one above is tried. Nothing is left behind.
///
/// # Errors
/// A sentence that names the folder that takes none.
pub(super) fn takes_files(folder: &Path) -> Result<(), String> {
    let above = folder.ancestors().map(or_here).find(|f| f.exists()).unwrap_or_else(|| or_here(folder));
    let refused = |at: &Path, why: &str| Err(format!("{} takes no files: {why}", at.display()));
    if !above.is_dir() {
        return refused(&above, "it is not a folder");
    }
    let is_there = above == or_here(folder);
    let tried = if is_there { try_file(&above) } else { try_folder(&above) };
    if let Err(error) = tried {
        return refused(&above, &error.to_string());
    }
    let within = fs::read_dir(&above).into_iter().flatten().flatten().map(|entry| entry.path());
    for lane in within.filter(|path| is_there && path.is_dir()).take(WITHIN_MAX) {
        if let Err(error) = try_file(&lane) {
            return refused(&lane, &error.to_string());
        }
    }
    Ok(())
}

/// The folder that no name at all means.
fn or_here(folder: &Path) -> PathBuf {
    if folder.as_os_str().is_empty() { ".".into() } else { folder.to_owned() }
}

fn trial_in(folder: &Path) -> PathBuf {
    folder.join(format!(".graylogic-doctor-{}", std::process::id()))
}

fn try_file(folder: &Path) -> io::Result<()> {
    let path = trial_in(folder);
    let mut file = OpenOptions::new().write(true).create_new(true).open(&path)?;
    let written = file.write_all(b"doctor\n");
    fs::remove_file(&path)?;
    written
}

fn try_folder(above: &Path) -> io::Result<()> {
    let path = trial_in(above);
    fs::create_dir(&path)?;
    let tried = try_file(&path);
    fs::remove_dir(&path)?;
    tried
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_takes_files_or_says_why_not_and_stays_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("lanes")).unwrap();
        fs::create_dir(at("lanes/house")).unwrap();
        fs::write(at("file"), "x").unwrap();
        let seen = || {
            let mut all: Vec<PathBuf> = [at(""), at("lanes"), at("lanes/house")]
                .iter()
                .flat_map(|f| fs::read_dir(f).unwrap())
                .map(|e| e.unwrap().path())
                .collect();
            all.sort();
            all
        };
        let before = seen();
        for good in ["", "lanes", "lanes/house", "none", "none/of/these"] {
            assert_eq!(takes_files(&at(good)), Ok(()), "{good}");
        }
        for bad in ["file", "file/below"] {
            assert!(takes_files(&at(bad)).unwrap_err().ends_with("file takes no files: it is not a folder"));
        }
        assert_eq!(seen(), before);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_folder_where_nobody_can_make_files_is_named() {
        // No user can, whatever the permissions are.
        for folder in ["/proc/graylogic", "/proc"] {
            let why = takes_files(Path::new(folder)).unwrap_err();
            assert!(why.starts_with("/proc takes no files: "), "{why}");
        }
    }
}
