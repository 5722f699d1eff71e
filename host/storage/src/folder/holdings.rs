//! What a data folder holds besides its identity: whether anybody may still want it.

use std::fs;
use std::io;
use std::path::PathBuf;

use crate::error::{StartError, failed};
use crate::layout::ShardFolder;

/// What else a data folder holds, by the names of its files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Holdings {
    /// Segments of a log.
    pub(super) segments: bool,
    /// Anything else that a log was needed for.
    pub(super) others: bool,
}

impl Holdings {
    /// Looks at names alone, and reads no file. A folder that is missing holds nothing.
    pub(super) fn of_folder(shard: &ShardFolder) -> Result<Self, StartError> {
        let has = |folder: PathBuf, extensions: &[&str]| -> Result<bool, StartError> {
            let entries = match fs::read_dir(&folder) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
                entries => entries.map_err(failed("list", &folder))?,
            };
            for entry in entries {
                let path = entry.map_err(failed("list", &folder))?.path();
                let extension = path.extension().and_then(|extension| extension.to_str());
                if extension.is_some_and(|extension| extensions.contains(&extension)) {
                    return Ok(true);
                }
            }
            Ok(false)
        };
        let segments = has(shard.log(), &["log"])?;
        Ok(Self {
            segments,
            others: has(shard.log(), &["spare"])?
                || has(shard.snapshots(), &["snapshot", "snapshot2", "part", "part2"])?,
        })
    }
}
