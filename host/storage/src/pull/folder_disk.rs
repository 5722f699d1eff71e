//! The folders of a shard that pulls.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use vouch_commitlog::{LogPosition, NoteFile};
use vouch_consensus::EntryId;
use vouch_files::{create_dir_all, sync, write};

use super::PullError;
use super::error::failed;
use super::gathering::PullDisk;
use super::staged::{StagedFile, length_of};
use super::take_place::{COMPLETE, PlaceDisk, PlacePicture, PlaceStep, ShardPlaces, gathered};
use super::unsound::damaged_segments;
use crate::backup::{BackupProgress, ExpectedShard, check_shard, damage_in};
use crate::layout::{REPLICA, ShardFolder};
use crate::progress::{StartProgress, StartStep};
use crate::replica::ReplicaError;
use crate::space::Space;

/// The folder of a shard, and the one beside it.
pub(super) struct FolderDisk {
    here: ShardFolder,
    gathered: ShardFolder,
    /// A file that is being written, and which.
    open: Option<(PathBuf, StagedFile)>,
}

impl FolderDisk {
    pub(super) fn of(here: ShardFolder) -> Self {
        Self { gathered: gathered(&here), here, open: None }
    }

    fn place(&self, path: &Path) -> PathBuf {
        self.gathered.path().join(path)
    }
}

impl PlaceDisk for FolderDisk {
    fn picture(&self) -> PlacePicture {
        ShardPlaces(&self.here).picture()
    }

    fn step(&mut self, step: PlaceStep) -> io::Result<()> {
        ShardPlaces(&self.here).step(step)
    }

    fn failed(&self, step: PlaceStep, error: io::Error) -> PullError {
        ShardPlaces(&self.here).failed(step, error)
    }
}

impl PullDisk for FolderDisk {
    fn prepare(&mut self) -> Result<(), PullError> {
        self.open = None;
        for folder in [self.gathered.log(), self.gathered.snapshots()] {
            create_dir_all(&folder).map_err(failed("create", &folder))?;
        }
        remove_if_there(&self.place(Path::new(COMPLETE)))
    }

    fn gathered(&self) -> Result<Vec<PathBuf>, PullError> {
        let mut found = list(&self.gathered.snapshots())?;
        found.extend(list(&self.gathered.log())?);
        let below = |path: PathBuf| path.strip_prefix(self.gathered.path()).map(Path::to_owned).unwrap_or(path);
        Ok(found.into_iter().map(below).collect())
    }

    fn length(&self, path: &Path) -> Result<Option<u64>, PullError> {
        let place = self.place(path);
        let length = length_of(&place)?;
        Ok((length > 0 || place.exists()).then_some(length))
    }

    fn remove(&mut self, path: &Path) -> Result<(), PullError> {
        let place = self.place(path);
        fs::remove_file(&place).map_err(failed("remove", &place))
    }

    fn own_length(&self, path: &Path) -> Result<u64, PullError> {
        length_of(&self.here.path().join(path))
    }

    /// By a second name.
    fn keep_own(&mut self, path: &Path) -> Result<(), PullError> {
        let (own, place) = (self.here.path().join(path), self.place(path));
        remove_if_there(&place)?;
        fs::hard_link(&own, &place).map_err(failed("keep", &own))
    }

    fn has_room_for(&self, bytes: u64) -> Result<(), PullError> {
        let folder = self.gathered.path();
        let Space { used, total } = Space::of_folder(folder).map_err(failed("measure the disk of", folder))?;
        let free = total.saturating_sub(used);
        if bytes <= free { Ok(()) } else { Err(PullError::NoRoom { needed: bytes, free }) }
    }

    fn append(&mut self, path: &Path, bytes: &[u8]) -> Result<(), PullError> {
        let place = self.place(path);
        if self.open.as_ref().is_none_or(|(open, _)| *open != place) {
            self.open = Some((place.clone(), StagedFile::open(&place)?));
        }
        let (_, file) = self.open.as_mut().expect("it was opened just now");
        file.append(bytes)
    }

    fn settle(&mut self, path: &Path, length: u64) -> Result<(), PullError> {
        self.open = None;
        let place = self.place(path);
        let opened = fs::File::options().write(true).open(&place).map_err(failed("open", &place))?;
        opened.set_len(length).and_then(|()| opened.sync_all()).map_err(failed("write", &place))
    }

    fn check(&mut self, expected: &ExpectedShard, progress: &StartProgress) -> Result<EntryId, String> {
        let mut checks = |BackupProgress { done_bytes, total_bytes, .. }: BackupProgress| {
            progress.enter(StartStep::Checking { done_bytes, total_bytes });
        };
        let checked = check_shard(&self.gathered, expected, &mut checks);
        checked.map(|checked| checked.last).map_err(|why| why.to_string())
    }

    fn broken_segments(&mut self, expected: &ExpectedShard) -> Vec<LogPosition> {
        damaged_segments(&damage_in(&self.gathered, expected), expected.segment_size)
    }

    fn note(&mut self) -> Result<NoteFile, PullError> {
        Ok(NoteFile::open(self.gathered.path(), REPLICA).map_err(ReplicaError::from)?)
    }

    fn complete(&mut self) -> Result<(), PullError> {
        let complete = self.place(Path::new(COMPLETE));
        write(&complete, &[]).map_err(failed("write", &complete))?;
        for folder in [self.gathered.log(), self.gathered.snapshots(), self.gathered.path().to_owned()] {
            sync(&folder).map_err(failed("sync", &folder))?;
        }
        Ok(())
    }

    fn throw_away(&mut self) -> Result<(), PullError> {
        let gathered = self.gathered.path();
        fs::remove_dir_all(gathered).map_err(failed("remove", gathered))
    }
}

fn list(folder: &Path) -> Result<Vec<PathBuf>, PullError> {
    let names = fs::read_dir(folder).map_err(failed("list", folder))?;
    names.map(|name| name.map(|name| name.path()).map_err(failed("list", folder))).collect()
}

fn remove_if_there(path: &Path) -> Result<(), PullError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", path)(error)),
        _ => Ok(()),
    }
}
