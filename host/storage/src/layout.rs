//! Where things are in a data folder, and in a backup alike. Nobody else knows it.

use std::path::{Path, PathBuf};

use vouch_broker::ShardId;
use vouch_commitlog::LogPosition;

/// The folder of all shards, in a data folder.
pub(crate) const SHARDS: &str = "shards";
/// The components' files, in a data folder.
pub const COMPONENTS: &str = "plugins/components";

/// What a replica notes of itself, in the folder of its shard.
pub(crate) const REPLICA: &str = "replica";

/// Where the files of a shard are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardFolder(PathBuf);

impl ShardFolder {
    /// The shard's folder in a data folder or a backup; under an empty path, the names that its files have in either.
    pub fn of(data_dir: &Path, shard: ShardId) -> Self {
        Self(data_dir.join(SHARDS).join(shard.to_string()))
    }

    /// A folder beside it, which has this word behind its name: for what is to take its place.
    pub(crate) fn beside(&self, word: &str) -> Self {
        let name = self.0.file_name().map_or_else(Default::default, |name| name.to_string_lossy().into_owned());
        Self(self.0.with_file_name(format!("{name}.{word}")))
    }

    /// Everything of the shard lies in it.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The segments of its log.
    pub fn log(&self) -> PathBuf {
        self.0.join("log")
    }

    /// The segment that begins at a position of the log.
    pub fn segment(&self, start: LogPosition) -> PathBuf {
        self.log().join(format!("{:020}.log", start.0))
    }

    /// Snapshots of its state, and their parts.
    pub fn snapshots(&self) -> PathBuf {
        self.0.join("snapshots")
    }

    /// The files by which messages are found.
    pub fn lookup(&self) -> PathBuf {
        self.0.join("lookup")
    }

    /// What the replica notes of itself.
    pub fn replica(&self) -> PathBuf {
        self.0.join(REPLICA)
    }

    /// Where the scrubber notes how far it is.
    pub fn scrub(&self) -> PathBuf {
        self.0.join("scrub")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Folders of earlier versions and their backups have these names.
    #[test]
    fn the_first_shard_lies_where_it_always_lay() {
        let folder = ShardFolder::of(Path::new("/data"), ShardId::FIRST);
        let paths =
            [folder.segment(LogPosition(4096)), folder.snapshots(), folder.lookup(), folder.replica(), folder.scrub()];
        let expected = ["log/00000000000000004096.log", "snapshots", "lookup", "replica", "scrub"];
        assert_eq!(paths, expected.map(|name| Path::new("/data/shards/0").join(name)));
        assert_eq!(ShardFolder::of(Path::new(""), ShardId::FIRST).log(), Path::new("shards/0/log"));
    }
}
