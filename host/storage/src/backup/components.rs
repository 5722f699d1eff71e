//! The component files of a data folder.

use std::fs;
use std::path::{Path, PathBuf};

use vouch_registry::Digest;

use super::copy::Extent;
use super::planned::{FileKind, Planned};
use super::{BackupError, failed};
use crate::layout::COMPONENTS;

/// Component files that are whole.
pub(super) fn components(data_dir: &Path) -> Result<Vec<Planned>, BackupError> {
    let folder = data_dir.join(COMPONENTS);
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let mut files = Vec::new();
    for path in list(&folder)? {
        let name = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_suffix(".wasm"));
        let Some(named) = name.and_then(|hex| format!("sha256:{hex}").parse::<Digest>().ok()) else { continue };
        // One that is being removed or is damaged is left out: a node makes it again from the log.
        if let Ok(bytes) = fs::read(&path)
            && Digest::of(&bytes) == named
        {
            let (extent, to) = (Extent::whole(bytes.len() as u64), below(COMPONENTS, &path));
            files.push(Planned { kind: FileKind::Component, path: to, from: path, extent });
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}

pub(super) fn list(folder: &Path) -> Result<Vec<PathBuf>, BackupError> {
    let entries = fs::read_dir(folder).map_err(failed("list", folder))?;
    entries.map(|entry| entry.map(|entry| entry.path()).map_err(failed("list", folder))).collect()
}

fn below(folder: &str, path: &Path) -> String {
    let name = path.file_name().and_then(|name| name.to_str()).expect("these files are named in plain letters");
    format!("{folder}/{name}")
}
