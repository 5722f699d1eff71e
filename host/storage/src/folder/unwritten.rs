//! What a first start leaves that failed before the first entry of its log was written, as on a disk that is nearly full.
//!
//! # To ensure correctness
//! Only files that are segments by their names, and hold nothing behind their headers but zeros, go: there is no entry that
//! could be lost with them. They are asked for only where `identity.json` is missing, which a folder has before anything is
//! served. They go before the identity is written anew: a crash between leaves a folder that holds no log.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use vouch_commitlog::SEGMENT_HEADER_LEN;
use vouch_files::sync;

use crate::error::{StartError, failed};
use crate::layout::ShardFolder;
use crate::zeros::only_zeros;

/// Whether a log lies there into which nothing was ever written. Nothing is changed.
///
/// # Errors
/// It cannot be read.
pub(super) fn is_unwritten(shard: &ShardFolder) -> Result<bool, StartError> {
    let log = shard.log();
    for path in segments(&log)? {
        if !holds_nothing(&path).map_err(failed("read", &path))? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Removes the segments of such a log; durable when this returns.
///
/// # Errors
/// One of them cannot be removed. Those before it are gone, and the next start goes on with the rest.
pub(super) fn remove(shard: &ShardFolder) -> Result<(), StartError> {
    let log = shard.log();
    for path in segments(&log)? {
        tracing::info!(path = %path.display(), "an earlier start failed before it wrote anything; its log is made anew");
        fs::remove_file(&path).map_err(failed("remove", &path))?;
    }
    sync(&log).map_err(failed("sync", &log))
}

/// Removes what the replica of such a log noted, or of one whose files are gone: what is made anew is another cluster. Durable
/// when this returns, and done first, so that the file never stands beside a log that it knows nothing of.
///
/// Nothing is lost with it: a node alone votes only when the folder has its identity for good, and one that joins a cluster is asked
/// for its vote when its log has what says so.
///
/// # Errors
/// It cannot be removed.
pub(super) fn remove_replica(shard: &ShardFolder) -> Result<(), StartError> {
    let file = shard.replica();
    match fs::remove_file(&file) {
        Ok(()) => sync(shard.path()).map_err(failed("sync", shard.path())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(failed("remove", &file)(error)),
    }
}

/// Everything that is called a segment, whatever it is.
fn segments(log: &Path) -> Result<Vec<PathBuf>, StartError> {
    let entries = fs::read_dir(log).map_err(failed("list", log))?;
    let paths: Result<Vec<_>, io::Error> = entries.map(|entry| entry.map(|entry| entry.path())).collect();
    let is_segment = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "log");
    Ok(paths.map_err(failed("list", log))?.into_iter().filter(is_segment).collect())
}

/// A file that ends in its header holds nothing, too. A link is somebody's who knows what it leads to.
fn holds_nothing(segment: &Path) -> io::Result<bool> {
    let found = fs::symlink_metadata(segment)?;
    Ok(found.is_file() && only_zeros(&File::open(segment)?, SEGMENT_HEADER_LEN..found.len())?)
}
