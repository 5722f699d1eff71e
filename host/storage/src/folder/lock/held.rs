//! One file or folder that is held, and what is done when it is found moved, removed or replaced.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use vouch_commitlog::Shortage;
use vouch_files::appear_durably;

use super::attempt::{Attempt, attempt};
use super::note::Note;
use super::what::LockTarget;

/// One lock that this process has, as long as the file is open.
pub(super) struct Held {
    pub(super) what: LockTarget,
    pub(super) path: PathBuf,
    pub(super) file: File,
}

/// Why something that was held is not put back.
pub(super) enum Loss {
    /// Another node may be at work by now; the text says what happened, and what to do.
    Fenced(String),
    /// It could not be looked at or put back now, as something was short or somebody removed it once more: it says
    /// nothing of the folder, and passes.
    Short(io::Error),
}

impl Held {
    /// Somebody removed or replaced it.
    pub(super) fn gone(&mut self) -> Result<(), Loss> {
        let path = self.path.display().to_string();
        let fenced = |how: &str| {
            Loss::Fenced(format!(
                "{path} {how} while this node ran on it; nothing more is written, so that no two nodes write one log: stop \
                 this node, put back what was there, then start it again"
            ))
        };
        let unless_short = |error: io::Error, how: &str| match Shortage::of(&error) {
            Some(_) => Loss::Short(error),
            None => fenced(&format!("{how} ({error})")),
        };
        let same_content = match self.what {
            LockTarget::Folder => return Err(fenced("was moved, removed or replaced")),
            LockTarget::Note => true,
            LockTarget::Identity => is_same(&self.file, &self.path).map_err(|error| unless_short(error, "changed"))?,
        };
        if !same_content {
            return Err(fenced("was replaced by another"));
        }
        match self.put_back() {
            Ok(true) => {
                tracing::warn!(path = %self.path.display(), "it was removed from the data folder of a running node; it is put back");
                Ok(())
            }
            Ok(false) => Err(fenced("was replaced, and another process holds it")),
            // Removed again before it was held: the folder is still held, so the next look puts it back.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Loss::Short(error)),
            Err(error) => Err(unless_short(error, "was removed and cannot be put back")),
        }
    }

    /// Writes it again, if it is not there, and holds it; whether it can be had.
    fn put_back(&mut self) -> io::Result<bool> {
        if self.what == LockTarget::Identity && !self.path.try_exists()? {
            let content = content(&self.file)?;
            appear_durably(&self.path, &self.path.with_extension("again"), |file| file.write_all(&content))?;
        }
        let how = FlockOperation::NonBlockingLockExclusive;
        match attempt(&self.path, how, || self.what.open(&self.path))? {
            Attempt::Held(file) => self.file = file,
            Attempt::Busy(_) | Attempt::Unlockable(_) => return Ok(false),
        }
        if self.what == LockTarget::Note {
            Note::of_node(&self.file, &self.path);
        }
        Ok(true)
    }
}

/// All bytes of a file that is open, also of one that has no name any more.
fn content(file: &File) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

/// Whether what lies at a path now says the same as what is open, or nothing lies there.
fn is_same(file: &File, path: &Path) -> io::Result<bool> {
    match fs::read(path) {
        Ok(now) => Ok(now == content(file)?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error),
    }
}
