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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use vouch_broker::ShardId;

    use super::*;

    #[test]
    fn only_what_a_log_was_needed_for_counts() {
        let folder = tempfile::tempdir().unwrap();
        let shard = ShardFolder::of(folder.path(), ShardId::FIRST);
        let holdings = || Holdings::of_folder(&shard).unwrap();
        let (nothing, others) =
            (Holdings { segments: false, others: false }, Holdings { segments: false, others: true });
        assert_eq!(holdings(), nothing, "no folder at all");
        fs::create_dir_all(shard.log()).unwrap();
        fs::create_dir_all(shard.snapshots()).unwrap();
        let place = |path: &Path| fs::write(path, "").unwrap();
        for ours in ["part-0.room", "7.part.unfinished", "notes.txt"] {
            place(&shard.snapshots().join(ours));
        }
        place(&shard.log().join("lost+found"));
        assert_eq!(holdings(), nothing, "room that was set aside, what was never finished, what is somebody's");
        for kept in ["1.snapshot", "1.snapshot2", "1.part", "1.part2"] {
            place(&shard.snapshots().join(kept));
            assert_eq!(holdings(), others, "{kept}");
            fs::remove_file(shard.snapshots().join(kept)).unwrap();
        }
        place(&shard.log().join("1.spare"));
        assert_eq!(holdings(), others, "a file that was a segment once");
        place(&shard.segment(vouch_commitlog::LogPosition::START));
        assert_eq!(holdings(), Holdings { segments: true, others: true });
    }
}
