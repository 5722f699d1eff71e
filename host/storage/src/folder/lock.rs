//! Who may use a data folder.
//!
//! Two writers would destroy a log. So a node locks what nobody can remove without taking the log away with it: the data
//! folder itself, the folder of the log, and `identity.json`. The file `lock`, which is all that earlier versions lock,
//! is locked as well, and says who holds it all; a tool that needs a folder to stay as it is shares these locks.
//!
//! Some network file systems lock no folders. There `lock` and `identity.json` must do.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use vouch_commitlog::Shortage;
use vouch_files::appear_durably;

use super::identity::IDENTITY_FILE;
use super::process::Process;
use crate::error::{StartError, failed};
use crate::progress::{StartProgress, StartStep};

/// Says who holds the folder.
pub(crate) const LOCK_FILE: &str = "lock";
/// How long a start waits for tools that need the folder as it is: a backup finds the end of a long log in less.
const TOOL_WAIT: Duration = Duration::from_secs(5 * 60);
/// How often a waiting start tries again.
const TRY_EVERY: Duration = Duration::from_millis(100);
/// How often a waiting start says for whom it waits.
const TELL_EVERY: Duration = Duration::from_secs(10);
/// A longer note is none.
const NOTE_MAX_BYTES: u64 = 1024;

/// What a process does with a folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Purpose {
    /// A node runs on it.
    Serve,
    /// It is being looked at, and must stay as it is meanwhile.
    Backup,
    /// It is being made.
    Restore,
}

/// What the file `lock` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Note {
    pid: u32,
    purpose: Purpose,
}

impl Note {
    fn read(dir: &Path) -> Option<Self> {
        let mut text = Vec::new();
        File::open(dir.join(LOCK_FILE)).ok()?.take(NOTE_MAX_BYTES).read_to_end(&mut text).ok()?;
        serde_json::from_slice(&text).ok()
    }

    fn write(file: &File, purpose: Purpose) -> io::Result<()> {
        let text = serde_json::to_vec(&Self { pid: std::process::id(), purpose })?;
        // Where one lies already this needs no block of a full disk.
        let written = file.write_all_at(&text, 0).and_then(|()| file.set_len(text.len() as u64));
        written.inspect_err(|_| {
            // Rather nobody's name than another's.
            let _ = file.set_len(0);
        })
    }

    /// Says that a node runs on the folder. The lock holds without it, so a full disk keeps nobody from starting.
    fn of_node(file: &File, path: &Path) {
        if let Err(error) = Self::write(file, Purpose::Serve) {
            tracing::warn!(%error, path = %path.display(), "it does not say who holds the data folder, which is held all the same");
        }
    }
}

/// Who holds a folder, as far as that is known.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Holder {
    /// Others could share it: whoever holds it does not write.
    shared: bool,
    note: Option<Note>,
    /// One of them, as the system says.
    process: Option<Process>,
}

impl Holder {
    /// `refused`: the file whose lock could not be had. `noted`: the folder in which it may be noted.
    fn of(noted: Option<&Path>, refused: &File) -> Self {
        // Before this one shares it.
        let holders = Process::all_that_lock(refused);
        let shared = flock(refused, FlockOperation::NonBlockingLockShared).is_ok();
        // What it says of others than those who hold the lock now is of an earlier time.
        let current = |note: &Note| shared == (note.purpose == Purpose::Backup);
        // Who noted it in a container knows himself by another number.
        let here = |note: Note| match holders.first() {
            Some(first) if holders.iter().all(|holder| holder.pid != note.pid) => Note { pid: first.pid, ..note },
            _ => note,
        };
        let note = noted.and_then(Note::read).filter(current).map(here);
        Self { shared, note, process: holders.into_iter().next() }
    }

    /// It ends by itself.
    fn is_tool(&self) -> bool {
        self.shared || self.note.is_some_and(|note| note.purpose != Purpose::Serve)
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.note, &self.process) {
            (Some(Note { pid, purpose: Purpose::Serve }), _) => write!(f, "process {pid} (vouch serve)"),
            (Some(Note { pid, purpose: Purpose::Backup }), _) => write!(f, "process {pid} (vouch backup)"),
            (Some(Note { pid, purpose: Purpose::Restore }), _) => write!(f, "process {pid} (vouch restore)"),
            (None, Some(process)) => process.fmt(f),
            (None, None) if self.shared => f.write_str("a process that reads it"),
            (None, None) => f.write_str("another process"),
        }
    }
}

/// What is locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    /// The data folder or that of the log.
    Folder,
    /// The file `lock`.
    Note,
    /// The file `identity.json`.
    Identity,
}

struct Held {
    what: What,
    path: PathBuf,
    file: File,
}

/// What came of an attempt to lock a file or a folder.
enum Attempt {
    Held(File),
    /// Somebody holds it; this is the file.
    Busy(File),
    /// The file system cannot lock it.
    Unlockable(File),
}

/// Locks whatever has this path, without waiting. `open` opens it.
fn attempt(path: &Path, how: FlockOperation, open: impl Fn() -> io::Result<File>) -> io::Result<Attempt> {
    loop {
        let file = open()?;
        let attempt = match flock(&file, how) {
            Ok(()) => Attempt::Held(file),
            Err(Errno::WOULDBLOCK) => return Ok(Attempt::Busy(file)),
            Err(Errno::BADF | Errno::INVAL | Errno::NOLCK | Errno::NOSYS | Errno::OPNOTSUPP) => {
                Attempt::Unlockable(file)
            }
            Err(errno) => return Err(errno.into()),
        };
        let (Attempt::Held(file) | Attempt::Unlockable(file)) = &attempt else { return Ok(attempt) };
        // Between opening and locking it may have got another in its place, which somebody else holds.
        if is_at(file, path)? {
            return Ok(attempt);
        }
    }
}

/// Whether a path names what is open.
fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let open = file.metadata()?;
    match fs::metadata(path) {
        Ok(named) => Ok((named.dev(), named.ino()) == (open.dev(), open.ino())),
        Err(error) => match Errno::from_io_error(&error) {
            Some(Errno::NOENT | Errno::NOTDIR | Errno::STALE | Errno::LOOP) => Ok(false),
            _ => Err(error),
        },
    }
}

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
        lock.hold(What::Folder, dir.to_owned())?;
        let path = dir.join(LOCK_FILE);
        lock.hold(What::Note, path.clone())?;
        if let Some(held) = lock.held.last() {
            Note::of_node(&held.file, &path);
        }
        Ok(lock)
    }

    fn hold(&mut self, what: What, path: PathBuf) -> Result<(), Refused> {
        let attempt = attempt(&path, FlockOperation::NonBlockingLockExclusive, || what.open(&path));
        let file = match attempt.map_err(|source| Refused::Failed(failed("lock", &path)(source)))? {
            Attempt::Held(file) => file,
            Attempt::Busy(file) => {
                // Once this process holds the note, that names nobody else.
                let noted = self.held.iter().all(|held| held.what != What::Note).then_some(self.dir.as_path());
                return Err(Refused::Busy(Holder::of(noted, &file)));
            }
            Attempt::Unlockable(file) if what == What::Folder => {
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
        self.hold_more(What::Folder, log_dir)
    }

    /// Holds `identity.json`, too, which is there now.
    pub(crate) fn hold_identity(&mut self) -> Result<(), StartError> {
        let path = self.dir.join(IDENTITY_FILE);
        self.hold_more(What::Identity, &path)
    }

    fn hold_more(&mut self, what: What, path: &Path) -> Result<(), StartError> {
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

/// Why something that was held is not put back.
enum Loss {
    /// Another node may be at work by now; the text says what happened, and what to do.
    Fenced(String),
    /// There was too little of something to look, or to put it back: it says nothing of the folder, and passes.
    Short(io::Error),
}

impl Held {
    /// Somebody removed or replaced it.
    fn gone(&mut self) -> Result<(), Loss> {
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
            What::Folder => return Err(fenced("was moved, removed or replaced")),
            What::Note => true,
            What::Identity => is_same(&self.file, &self.path).map_err(|error| unless_short(error, "changed"))?,
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
            Err(error) => Err(unless_short(error, "was removed and cannot be put back")),
        }
    }

    /// Writes it again, if it is not there, and holds it; whether it can be had.
    fn put_back(&mut self) -> io::Result<bool> {
        if self.what == What::Identity && !self.path.try_exists()? {
            let content = content(&self.file)?;
            appear_durably(&self.path, &self.path.with_extension("again"), |file| file.write_all(&content))?;
        }
        let how = FlockOperation::NonBlockingLockExclusive;
        match attempt(&self.path, how, || self.what.open(&self.path))? {
            Attempt::Held(file) => self.file = file,
            Attempt::Busy(_) | Attempt::Unlockable(_) => return Ok(false),
        }
        if self.what == What::Note {
            Note::of_node(&self.file, &self.path);
        }
        Ok(true)
    }
}

impl What {
    fn open(self, path: &Path) -> io::Result<File> {
        match self {
            Self::Folder => File::open(path),
            Self::Note => File::options().read(true).write(true).create(true).truncate(false).mode(0o600).open(path),
            // For writing, which some network file systems want for a lock.
            Self::Identity => File::options().read(true).write(true).open(path),
        }
    }
}

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

/// Keeps nodes from starting while it is held. They wait for that.
pub(crate) struct SharedLock {
    _held: Vec<File>,
}

impl SharedLock {
    /// Shares a folder with other tools; `None` if a node runs on it, or nobody can tell.
    pub(crate) fn of_folder(dir: &Path) -> io::Result<Option<Self>> {
        let how = FlockOperation::NonBlockingLockShared;
        let mut held = Vec::new();
        let attempted = attempt(dir, how, || File::open(dir))?;
        match attempted {
            Attempt::Held(file) => held.push(file),
            Attempt::Busy(_) => return Ok(None),
            Attempt::Unlockable(_) => {}
        }
        let path = dir.join(LOCK_FILE);
        match attempt(&path, how, || File::open(&path)) {
            Ok(Attempt::Held(file)) => held.push(file),
            Ok(Attempt::Busy(_)) => return Ok(None),
            Ok(Attempt::Unlockable(_)) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        // Only where the file is there: one that the tool's user owned would keep the node from it. Who may not write it
        // stays unnamed.
        if let Ok(file) = File::options().write(true).open(&path) {
            let _ = Note::write(&file, Purpose::Backup);
        }
        Ok(if held.is_empty() { None } else { Some(Self { _held: held }) })
    }
}

/// Who runs on a data folder, as the error that a start there would end with; `None` if nobody does, or that cannot be
/// seen. Nothing is changed.
pub fn in_use(dir: &Path) -> Option<StartError> {
    match attempt(dir, FlockOperation::NonBlockingLockShared, || File::open(dir)) {
        Ok(Attempt::Busy(file)) => {
            Some(StartError::Locked { path: dir.to_owned(), holder: Holder::of(Some(dir), &file).to_string() })
        }
        _ => None,
    }
}

/// Writes into a folder that is being restored who holds it.
pub(crate) fn note_restore(dir: &Path) -> io::Result<()> {
    let file = What::Note.open(&dir.join(LOCK_FILE))?;
    Note::write(&file, Purpose::Restore)?;
    file.sync_all()
}

#[cfg(test)]
#[path = "lock_tests.rs"]
mod tests;
