//! Setting files aside: what is damaged is kept whole in a folder of its own. It knows nothing of what a file holds.

use crate::error::Error;
use std::path::{Path, PathBuf};

/// Name of the store file.
pub(crate) const STORE_FILE: &str = "store.sqlite";
/// Folder for what is set aside.
pub(crate) const DAMAGED: &str = "damaged";

pub(crate) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Where a file goes when it is set aside: a name in `damaged/` that is free.
pub(crate) fn place_for(path: &Path) -> PathBuf {
    let folder = path.parent().unwrap_or(Path::new("")).join(DAMAGED);
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut to = folder.join(&name);
    let mut n = 0u32;
    while to.exists() {
        n += 1;
        to = folder.join(format!("{name}.{n}"));
    }
    to
}

/// Moves a file into `damaged/` beside it, under a name that is free.
pub(crate) fn set_aside(directory: &Path, path: &Path) -> Result<PathBuf, Error> {
    let moving = |e| Error::io(format_args!("set {} aside", path.display()), e);
    let folder = directory.join(DAMAGED);
    std::fs::create_dir_all(&folder).map_err(moving)?;
    let to = place_for(path);
    std::fs::rename(path, &to).map_err(moving)?;
    sync_folder(&folder).and_then(|()| sync_folder(directory)).map_err(moving)?;
    Ok(to)
}

/// Makes the names in a folder durable.
pub(crate) fn sync_folder(folder: &Path) -> std::io::Result<()> {
    std::fs::File::open(folder).and_then(|f| f.sync_all())
}
