//! How what was gathered takes the place of what the shard had.
//!
//! Beside `shards/0` lie `0.pulled`, in which files are gathered, and for a moment `0.before`, which is what the shard had. The file
//! `complete` in the gathered folder says that all of it is there, read, and synced. Then
//!
//! 1. `0` becomes `0.before`,
//! 2. `0.pulled` becomes `0`,
//! 3. `0.before` goes, and `complete` with it.
//!
//! Each step is durable before the next. A crash leaves one of these pictures, and [`finish`] goes on from each: without `0` it was
//! between the first two steps; with `0.before` it was behind the second.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use vouch_files::sync;

use super::PullError;
use super::error::failed;
use crate::error::{self, StartError};
use crate::layout::ShardFolder;

/// In a gathered folder of which all is there.
pub(super) const COMPLETE: &str = "complete";

/// The folder in which files are gathered.
pub(super) fn gathered(shard: &ShardFolder) -> ShardFolder {
    shard.beside("pulled")
}

fn before(shard: &ShardFolder) -> PathBuf {
    shard.beside("before").path().to_owned()
}

/// Whether a pull left anything beside the shard: the next start tidies it.
pub(crate) fn is_under_way(shard: &ShardFolder) -> bool {
    gathered(shard).path().exists() || before(shard).exists()
}

/// Whether a crash came between the two renames: the shard's folder is missing, and the next start ends that.
pub(crate) fn is_between(shard: &ShardFolder) -> bool {
    before(shard).exists() && !shard.path().exists()
}

/// Removes what was gathered and did not take the place of anything, if there is such: the node goes on with what it has. A pull that
/// was cut short would go on with it, so it goes when nothing is lacking any more. That it cannot be removed is told.
pub fn discard_gathered(shard: &ShardFolder) {
    let gathered = gathered(shard);
    match fs::remove_dir_all(gathered.path()) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(%error, path = %gathered.path().display(), "what was taken from another node stays, and takes room");
        }
        _ => {}
    }
}

/// Lets the gathered folder, which is complete, take the place of the shard's.
pub(super) fn take_place(shard: &ShardFolder) -> Result<(), PullError> {
    let here = shard.path();
    fs::rename(here, before(shard)).map_err(failed("rename", here))?;
    sync_above(here).map_err(failed("sync", here))?;
    put_in_place(shard).map_err(failed("rename", here))?;
    remove_what_was(shard).map_err(failed("remove what is replaced beside", here))
}

/// Ends what a crash left of a pull, before anything in the shard's folder is looked at. What was only being gathered stays, for a
/// pull that goes on, but for those files of the shard itself that have a second name there.
///
/// # Errors
/// The system refuses.
pub(crate) fn finish(shard: &ShardFolder) -> Result<(), StartError> {
    let here = shard.path();
    if !here.exists() && before(shard).exists() {
        let complete = gathered(shard).path().join(COMPLETE).exists();
        tracing::info!(
            complete,
            "an earlier start ended while files of another node took their place; going on with that"
        );
        let back = || fs::rename(before(shard), here).and_then(|()| sync_above(here));
        let put = if complete { put_in_place(shard) } else { back() };
        put.map_err(error::failed("rename", here))?;
    }
    if before(shard).exists() {
        remove_what_was(shard).map_err(error::failed("remove what was replaced beside", here))?;
    }
    let gathered = gathered(shard);
    drop_second_names(&gathered.log()).map_err(error::failed("tidy", gathered.path()))
}

fn put_in_place(shard: &ShardFolder) -> io::Result<()> {
    fs::rename(gathered(shard).path(), shard.path())?;
    sync_above(shard.path())
}

/// In this order: the folder of before goes first, since it says that the other is in its place.
fn remove_what_was(shard: &ShardFolder) -> io::Result<()> {
    fs::remove_dir_all(before(shard))?;
    sync_above(shard.path())?;
    match fs::remove_file(shard.path().join(COMPLETE)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// A segment with two names would look like a log that lies in two places.
fn drop_second_names(log: &Path) -> io::Result<()> {
    let names = match fs::read_dir(log) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        names => names?,
    };
    for name in names {
        let path = name?.path();
        if fs::symlink_metadata(&path)?.nlink() > 1 {
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}

fn sync_above(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), sync)
}
