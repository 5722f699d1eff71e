//! Who may use a data folder.
//!
//! Two writers would destroy a log. So a node locks what nobody can remove without taking the log away with it: the data
//! folder itself, the folder of the log, and `identity.json`. The file `lock`, which is all that earlier versions lock,
//! is locked as well, and says who holds it all; a tool that needs a folder to stay as it is shares these locks.
//!
//! Some network file systems lock no folders. There `lock` and `identity.json` must do.

mod attempt;
mod held;
mod holder;
mod note;
mod shared;
#[cfg(test)]
mod tests;
mod what;

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::FlockOperation;

use super::identity::IDENTITY_FILE;
use attempt::{Attempt, attempt, is_at};
use held::{Held, Loss};
use holder::Holder;
use note::Note;
pub(crate) use note::{LOCK_FILE, note_restore};
pub(crate) use shared::SharedLock;
pub use shared::in_use;
use what::LockTarget;

use crate::error::{StartError, failed};
use crate::progress::{StartProgress, StartStep};

/// How long a start waits for tools that need the folder as it is: a backup finds the end of a long log in less.
const TOOL_WAIT: Duration = Duration::from_secs(5 * 60);
/// How often a waiting start tries again.
const TRY_EVERY: Duration = Duration::from_millis(100);
/// How often a waiting start says for whom it waits.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// A folder that is held; let go of when dropped.
pub(crate) struct FolderLock {
    dir: PathBuf,
    held: Vec<Held>,
    /// The last look saw nothing, which was said.
    blind: bool,
}

/// Why a folder is not held yet.
enum Refused {
    Busy(Holder),
    Failed(StartError),
}

impl FolderLock {
    /// Takes a folder for a node that writes to it. Waits for tools, and says so; a node is not waited for.
    pub(crate) fn exclusive(dir: &Path, progress: &StartProgress) -> Result<Self, StartError> {
        Self::exclusive_within(dir, TOOL_WAIT, progress)
    }

    fn exclusive_within(dir: &Path, patience: Duration, progress: &StartProgress) -> Result<Self, StartError> {
        let began = Instant::now();
        let mut told: Option<Instant> = None;
        loop {
            let holder = match Self::try_exclusive(dir) {
                Ok(lock) => return Ok(lock),
                Err(Refused::Failed(error)) => return Err(error),
                Err(Refused::Busy(holder)) => holder,
            };
            let (path, text) = (dir.to_owned(), holder.to_string());
            if !holder.is_tool() {
                return Err(StartError::Locked { path, holder: text });
            }
            if began.elapsed() >= patience {
                return Err(StartError::ToolHolds { path, holder: text, waited: patience });
            }
            if told.is_none_or(|told| told.elapsed() >= TELL_EVERY) {
                told = Some(Instant::now());
                tracing::warn!(data_dir = %dir.display(), "waiting for {holder}, which needs the data folder as it is");
            }
            progress.enter(StartStep::Waiting { holder: text });
            progress.go_on()?;
            std::thread::sleep(TRY_EVERY);
        }
    }

    fn try_exclusive(dir: &Path) -> Result<Self, Refused> {
        let mut lock = Self { dir: dir.to_owned(), held: Vec::new(), blind: false };
        // The folder first: it is there, so nothing is made where another process is at work.
        lock.hold(LockTarget::Folder, dir.to_owned())?;
        let path = dir.join(LOCK_FILE);
        lock.hold(LockTarget::Note, path.clone())?;
        if let Some(held) = lock.held.last() {
            Note::of_node(&held.file, &path);
        }
        Ok(lock)
    }

    fn hold(&mut self, what: LockTarget, path: PathBuf) -> Result<(), Refused> {
        let attempt = attempt(&path, FlockOperation::NonBlockingLockExclusive, || what.open(&path));
        let file = match attempt.map_err(|source| Refused::Failed(failed("lock", &path)(source)))? {
            Attempt::Held(file) => file,
            Attempt::Busy(file) => {
                // Once this process holds the note, that names nobody else.
                let noted = self.held.iter().all(|held| held.what != LockTarget::Note).then_some(self.dir.as_path());
                return Err(Refused::Busy(Holder::of(noted, &file)));
            }
            Attempt::Unlockable(file) if what == LockTarget::Folder => {
                tracing::debug!(path = %path.display(), "this file system locks no folders");
                file
            }
            Attempt::Unlockable(_) => {
                return Err(Refused::Failed(failed("lock", &path)(io::ErrorKind::Unsupported.into())));
            }
        };
        self.held.push(Held { what, path, file });
        Ok(())
    }

    /// Holds the folder of the log, too, which may be reached from another data folder as well.
    pub(crate) fn hold_log(&mut self, log_dir: &Path) -> Result<(), StartError> {
        self.hold_more(LockTarget::Folder, log_dir)
    }

    /// Holds `identity.json`, too, which is there now.
    pub(crate) fn hold_identity(&mut self) -> Result<(), StartError> {
        let path = self.dir.join(IDENTITY_FILE);
        self.hold_more(LockTarget::Identity, &path)
    }

    fn hold_more(&mut self, what: LockTarget, path: &Path) -> Result<(), StartError> {
        self.hold(what, path.to_owned()).map_err(|refused| match refused {
            Refused::Failed(error) => error,
            Refused::Busy(holder) => StartError::Locked { path: path.to_owned(), holder: holder.to_string() },
        })
    }

    /// Looks whether all that is held still lies where it lay. A `lock` that was removed is put back: the other locks hold.
    /// What a shortage keeps from being seen or put back is left to the next look.
    ///
    /// # Errors
    /// It does not, and another node may be at work by now: nothing may be written any more. The text says what happened,
    /// and what to do.
    pub(crate) fn look(&mut self) -> Result<(), String> {
        let mut unseen = None;
        for held in &mut self.held {
            match is_at(&held.file, &held.path) {
                Ok(true) => {}
                Ok(false) => match held.gone() {
                    Ok(()) => {}
                    Err(Loss::Fenced(why)) => return Err(why),
                    Err(Loss::Short(error)) => unseen = Some((error, held.path.clone())),
                },
                Err(error) => unseen = Some((error, held.path.clone())),
            }
        }
        let was_blind = std::mem::replace(&mut self.blind, unseen.is_some());
        if let Some((error, path)) = unseen.filter(|_| !was_blind) {
            tracing::warn!(%error, path = %path.display(), "whether it still is where it was cannot be seen, or it cannot be put back now; it is tried again");
        }
        Ok(())
    }
}
