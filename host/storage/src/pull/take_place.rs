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
use crate::backup;
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

/// What lies beside each other of a shard's folders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlacePicture {
    /// The shard's own folder.
    pub here: bool,
    /// What the shard had, and does not need any more.
    pub before: bool,
    /// All that was gathered is there, and says so.
    pub complete: bool,
}

/// One step of the way from one log to the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlaceStep {
    /// What the shard has is put aside.
    PutAside,
    /// What was gathered takes its place.
    PutInPlace,
    /// What was put aside is back.
    PutBack,
    /// What was put aside goes.
    RemoveBefore,
}

impl PlacePicture {
    /// What comes next on the way that was begun; nothing where none was, or all is done.
    pub fn next(self) -> Option<PlaceStep> {
        match self {
            Self { before: false, .. } => None,
            Self { here: true, .. } => Some(PlaceStep::RemoveBefore),
            Self { complete: true, .. } => Some(PlaceStep::PutInPlace),
            Self { .. } => Some(PlaceStep::PutBack),
        }
    }
}

impl PlaceStep {
    /// As a verb that follows *cannot*, and is followed by the shard's folder.
    pub(super) fn action(self) -> &'static str {
        match self {
            Self::RemoveBefore => "remove what is replaced beside",
            _ => "rename",
        }
    }
}

/// Where the folders of a shard lie beside each other.
pub trait PlaceDisk {
    /// What is there.
    fn picture(&self) -> PlacePicture;

    /// Takes a step, which is durable when this returns.
    ///
    /// # Errors
    /// The system refuses: nobody knows whether it was taken.
    fn step(&mut self, step: PlaceStep) -> io::Result<()>;

    /// What that means to a pull.
    fn failed(&self, step: PlaceStep, error: io::Error) -> PullError;
}

/// Lets what was gathered, which is complete, take the place of what the shard had.
///
/// # Errors
/// Which step failed, and why.
pub(super) fn take_place(disk: &mut impl PlaceDisk) -> Result<(), (PlaceStep, io::Error)> {
    disk.step(PlaceStep::PutAside).map_err(|error| (PlaceStep::PutAside, error))?;
    go_on(disk)
}

/// Goes on, whatever a crash left.
///
/// # Errors
/// Which step failed, and why.
pub fn go_on(disk: &mut impl PlaceDisk) -> Result<(), (PlaceStep, io::Error)> {
    while let Some(step) = disk.picture().next() {
        disk.step(step).map_err(|error| (step, error))?;
    }
    Ok(())
}

/// The folders of a shard.
pub(super) struct ShardPlaces<'a>(pub(super) &'a ShardFolder);

impl PlaceDisk for ShardPlaces<'_> {
    fn picture(&self) -> PlacePicture {
        let Self(shard) = self;
        let complete = gathered(shard).path().join(COMPLETE).exists();
        PlacePicture { here: shard.path().exists(), before: before(shard).exists(), complete }
    }

    fn step(&mut self, step: PlaceStep) -> io::Result<()> {
        let Self(shard) = self;
        let here = shard.path();
        match step {
            PlaceStep::PutAside => fs::rename(here, before(shard))?,
            PlaceStep::PutInPlace => fs::rename(gathered(shard).path(), here)?,
            PlaceStep::PutBack => fs::rename(before(shard), here)?,
            PlaceStep::RemoveBefore => return remove_what_was(shard),
        }
        sync_above(here)
    }

    /// Whatever the system lacks: the step may have been taken, so that nothing is gathered any more. The next start ends it.
    fn failed(&self, step: PlaceStep, error: io::Error) -> PullError {
        backup::failed(step.action(), self.0.path())(error).into()
    }
}

/// Ends what a crash left of a pull, before anything in the shard's folder is looked at. What was only being gathered stays, for a
/// pull that goes on, but for those files of the shard itself that have a second name there.
///
/// # Errors
/// The system refuses.
pub(crate) fn finish(shard: &ShardFolder) -> Result<(), StartError> {
    let mut places = ShardPlaces(shard);
    let PlacePicture { here, before, complete } = places.picture();
    if before && !here {
        tracing::info!(
            complete,
            "an earlier start ended while files of another node took their place; going on with that"
        );
    }
    go_on(&mut places).map_err(|(step, error)| error::failed(step.action(), shard.path())(error))?;
    let gathered = gathered(shard);
    drop_second_names(&gathered.log()).map_err(error::failed("tidy", gathered.path()))
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
