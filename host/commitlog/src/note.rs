//! A note that is small, is written again and again, and must never be an older one than its writer was told: what a replica
//! knows of itself.
//!
//! The file has two slots, written in turn, each with a number that counts the writes; the newest whole one counts. A slot
//! holds the note twice, so that a few bytes that go bad in it do not bring back the note before.
//!
//! # To ensure correctness
//! - A write goes to the slot that does *not* hold the newest note, and has returned before the next begins. So a power cut
//!   tears one slot at most, and the other one holds the note before.
//! - What is read may not be durable: the process that wrote it may have been killed before its sync, or have heard from its
//!   sync that the bytes are lost while they can still be read. So whoever opens the file to write it writes the newest slot
//!   again, as it is and in its place, and syncs it, before anybody learns what it says. Without that a power cut could bring
//!   back what the note said before; and the next write would tear the only slot that is durable.
//! - The first write or sync that fails ends it: nobody knows which of two notes the disk has then. Nothing is written or
//!   synced after it, since a later sync that succeeds would prove nothing.
//! - The file gets its name when a note in it is durable. So a file without a whole slot was damaged, by whatever it was, and
//!   never stands for *nothing was noted yet*.

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::Shortage;
use crate::disk::{Disk, File, RealDisk};
use crate::error::ToldAgain;

mod slots;
#[cfg(test)]
mod tests;

use slots::{FILE_LEN, Found, Newest, SLOT_LEN, encode, newest};

pub use slots::MAX_NOTE_LEN;

/// How often a reader looks again that finds no whole slot, since the writer may have been at work in each of them just then.
const LOOKS: u32 = 4;

/// Why a note cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum NoteError {
    /// The system refuses; the text says what.
    #[error("cannot {action} {}: {source}", file.display())]
    Io {
        /// What was tried: a verb that follows *cannot*.
        action: &'static str,
        /// The file.
        file: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Nobody knows what was noted. It must not be taken for a file that was never written.
    #[error(
        "{} is damaged: neither of its two slots is whole, and a power cut tears one of them at most", .0.display()
    )]
    Damaged(PathBuf),
    /// Use the program that wrote it, or a later one.
    #[error(
        "{} has format version {version}, which this version cannot read; use the one that wrote it or a later one",
        file.display()
    )]
    Version {
        /// The file.
        file: PathBuf,
        /// What it says.
        version: u8,
    },
}

/// A note in a file, and the right to write it again. The caller keeps two processes from having it at once.
pub struct NoteFile {
    disk: Arc<dyn Disk>,
    name: String,
    /// `None`: nothing was noted yet, and there is no file.
    open: Option<Open>,
    failed: Option<ToldAgain>,
}

/// The file, and what it says for certain.
struct Open {
    file: Arc<dyn File>,
    newest: Newest,
}

impl NoteFile {
    /// Opens the note of this name in a folder, which is made if it is missing. What it says is durable when this returns.
    /// The file itself is made by the first [`Self::write`].
    ///
    /// # Errors
    /// [`NoteError`]. Nothing was noted yet is no error, and no such error stands for it.
    pub fn open(directory: &Path, name: &str) -> Result<Self, NoteError> {
        let opened = RealDisk::open(directory);
        let disk = opened.map_err(io_error("open the folder", directory.to_owned()))?;
        Self::open_on(Arc::new(disk), name)
    }

    /// What the note says, if anything was noted: for whoever must not change it. A process that has it may write it meanwhile.
    ///
    /// # Errors
    /// [`NoteError`].
    pub fn read(directory: &Path, name: &str) -> Result<Option<Vec<u8>>, NoteError> {
        Self::read_on(&RealDisk::read_only(directory), name)
    }

    pub(crate) fn read_on(disk: &dyn Disk, name: &str) -> Result<Option<Vec<u8>>, NoteError> {
        Ok(look(disk, name)?.map(|Open { newest, .. }| newest.note))
    }

    pub(crate) fn open_on(disk: Arc<dyn Disk>, name: &str) -> Result<Self, NoteError> {
        let open = look(&*disk, name)?;
        #[cfg(any(test, feature = "simulated-disk"))]
        if crate::bugs::NOTE_BELIEVED_AS_READ.injected() {
            return Ok(Self { disk, name: name.to_owned(), open, failed: None });
        }
        if let Some(Open { file, newest }) = &open {
            // Nor is its name durable if the first process ended when it had just given it.
            let placed = place(&**file, newest).and_then(|()| disk.sync_directory());
            placed.map_err(io_error("write again what is noted in", disk.path(name)))?;
        }
        Ok(Self { disk, name: name.to_owned(), open, failed: None })
    }

    /// What is noted and durable; `None` if nothing was noted yet.
    pub fn note(&self) -> Option<&[u8]> {
        self.open.as_ref().map(|open| &*open.newest.note)
    }

    /// Whether something is noted in a file that a start would find.
    pub fn is_there(&self) -> bool {
        self.open.is_some() && !self.disk.was_removed(&self.name)
    }

    /// Whether it can still be written.
    ///
    /// # Errors
    /// The first that [`Self::write`] met.
    pub fn check(&self) -> io::Result<()> {
        self.failed.as_ref().map_or(Ok(()), |failed| Err(failed.again()))
    }

    /// How a person finds the file.
    pub fn path(&self) -> PathBuf {
        self.disk.path(&self.name)
    }

    /// Notes this in place of what was noted; durable when this returns. A file that was removed meanwhile is made again.
    ///
    /// # Errors
    /// What the system said, now or to an earlier call: after an error the file says either of the two, nothing is ever written
    /// to it again by this process, and [`Self::note`] is what it was. But where there is no file and too little of something to
    /// make it ([`Shortage`]), there is none afterwards, and the next call tries again.
    ///
    /// # Panics
    /// If the note has more than [`MAX_NOTE_LEN`] bytes.
    pub fn write(&mut self, note: &[u8]) -> io::Result<()> {
        assert!(note.len() <= MAX_NOTE_LEN, "a note of {} bytes does not fit into its slot", note.len());
        #[cfg(any(test, feature = "simulated-disk"))]
        if crate::bugs::NOTE_WRITTEN_AFTER_ERROR.injected() {
            self.failed = None;
        }
        self.check()?;
        // What is written to a file without a name is found by no start.
        let open = self.open.take().filter(|_| !self.disk.was_removed(&self.name));
        let written = match open {
            Some(open) => Self::write_next(open, note),
            None => match self.make(note) {
                // Nothing has the name yet: the file is made again by whoever writes next.
                Err(error) if Shortage::of(&error).is_some() => return Err(error),
                made => made.and_then(|open| self.name_it(open)).map_err(|error| (None, error)),
            },
        };
        match written {
            Ok(open) => {
                self.open = Some(open);
                Ok(())
            }
            Err((open, error)) => {
                self.open = open;
                self.failed = Some(ToldAgain::of(&error));
                Err(error)
            }
        }
    }

    /// Writes the slot that does not hold the newest note. Where that fails, the note is what it was.
    fn write_next(open: Open, note: &[u8]) -> Result<Open, (Option<Open>, io::Error)> {
        let next = open.newest.next(note);
        #[cfg(any(test, feature = "simulated-disk"))]
        let next = if crate::bugs::NOTE_IN_ONE_SLOT.injected() { next.in_slot(open.newest.slot) } else { next };
        match place(&*open.file, &next) {
            Ok(()) => Ok(Open { newest: next, ..open }),
            Err(error) => Err((Some(open), error)),
        }
    }

    /// The name that the file has until what is in it is durable.
    fn unfinished(&self) -> String {
        format!("{}.new", self.name)
    }

    /// Makes the file, under another name. Both slots are written, so that later writes need no more room.
    fn make(&self, note: &[u8]) -> io::Result<Open> {
        let unfinished = self.unfinished();
        match self.disk.remove(&unfinished) {
            // A power cut must not take back that it went and keep that it got the name.
            Ok(()) => self.disk.sync_directory()?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let file = self.disk.create(&unfinished)?;
        let first = Newest::first(note);
        let newest = first.next(note);
        put(&*file, &first)?;
        #[cfg(any(test, feature = "simulated-disk"))]
        if crate::bugs::NOTE_NAMED_BEFORE_SYNC.injected() {
            self.disk.rename(&unfinished, &self.name)?;
            self.disk.sync_directory()?;
            place(&*file, &newest)?;
            return Ok(Open { file, newest });
        }
        place(&*file, &newest)?;
        Ok(Open { file, newest })
    }

    /// Gives the file its name: what is in it is durable.
    fn name_it(&self, open: Open) -> io::Result<Open> {
        #[cfg(test)]
        if crate::bugs::NOTE_NAMED_BEFORE_SYNC.injected() {
            return Ok(open);
        }
        self.disk.rename(&self.unfinished(), &self.name)?;
        self.disk.sync_directory()?;
        Ok(open)
    }
}

/// What the file says; `None` if there is none.
fn look(disk: &dyn Disk, name: &str) -> Result<Option<Open>, NoteError> {
    let file = match disk.open(name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(io_error("open", disk.path(name)))?,
    };
    for _ in 0..LOOKS {
        // A slot that the disk cannot read may be the newer one.
        match newest(&*file).map_err(io_error("read", disk.path(name)))? {
            Found::Note(newest) => return Ok(Some(Open { file, newest })),
            Found::Newer(version) => return Err(NoteError::Version { file: disk.path(name), version }),
            Found::Nothing => {}
        }
    }
    Err(NoteError::Damaged(disk.path(name)))
}

/// Writes a note to its slot.
fn put(file: &dyn File, note: &Newest) -> io::Result<()> {
    // It is shorter only where somebody cut it.
    if file.size()? < FILE_LEN {
        file.set_size(FILE_LEN)?;
    }
    file.write_at(note.slot * SLOT_LEN as u64, &mut [IoSlice::new(&encode(note))])
}

/// The same, and makes it durable, with all that was put there before.
fn place(file: &dyn File, note: &Newest) -> io::Result<()> {
    put(file, note)?;
    #[cfg(any(test, feature = "simulated-disk"))]
    if crate::bugs::NOTE_NOT_SYNCED.injected() {
        return Ok(());
    }
    file.sync()
}

fn io_error(action: &'static str, file: PathBuf) -> impl FnOnce(io::Error) -> NoteError {
    move |source| NoteError::Io { action, file, source }
}
