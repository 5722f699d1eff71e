//! Writing files so that a crash leaves all of one or nothing of it.
//!
//! # To ensure correctness
//! Both copies are written beside, synced, and only then given their names, the first one first; the folder is synced
//! before anybody hears that they are there. A crash before the first name leaves only what [`Store::prepare`] removes. One
//! between the two names leaves a first copy alone, which is whole, and the next start makes the second from it.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::super::room;
use super::kind::{CopyKind, Which};
use super::{ROOMS, Store};
use vouch_files::create;

/// Whether a file may be written where room was set aside, should the disk be full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rooms {
    Taken,
    /// They are for the next snapshots, which alone free a full disk.
    Spared,
}

impl Store {
    /// Stores a file; when this returns, both copies survive a power cut. One with the same name is replaced. On a full disk
    /// it is written where room was set aside, if that may be taken.
    pub(crate) fn put(&self, kind: CopyKind, position: u64, content: &[&[u8]], rooms: Rooms) -> io::Result<()> {
        let _changing = self.changing();
        self.check()?;
        let paths = Which::BOTH.map(|which| self.path(kind, position, which));
        // What was there before says the same, and may be read.
        let new = paths.clone().map(|path| path.try_exists().is_ok_and(|there| !there));
        let written = self.write_both(kind, &paths, content, rooms);
        let both = match &written {
            [Ok(first), Ok(second)] => self.place(&[(first, &paths[0]), (second, &paths[1])]),
            [Err(error), _] | [_, Err(error)] => Err(again(error)),
        };
        if let Err(error) = &both {
            // The disk may be full: what nothing needs must not keep it so.
            for written in written.iter().flatten() {
                let _ = self.discard(kind, &written.path, is_full(error) || written.was_room);
            }
            for (path, _) in paths.iter().zip(new).filter(|(_, new)| *new).rev() {
                let _ = self.discard(kind, path, is_full(error));
            }
        }
        both
    }

    /// Writes both copies under other names. Side by side: what takes time is waiting for the disk, which takes both at once.
    fn write_both(
        &self,
        kind: CopyKind,
        paths: &[PathBuf; 2],
        content: &[&[u8]],
        rooms: Rooms,
    ) -> [io::Result<Written>; 2] {
        let write = |which: usize| self.write_copy(&paths[which], content);
        let (mut first, mut second) = std::thread::scope(|scope| {
            let second =
                std::thread::Builder::new().name("vouch-snapshot2".to_owned()).spawn_scoped(scope, || write(1));
            let first = write(0);
            let second = match second {
                Ok(second) => second.join().unwrap_or_else(|_| Err(io::Error::other("its thread ended by a panic"))),
                // As well one after the other.
                Err(_) => write(1),
            };
            (first, second)
        });
        let lacks = |written: &io::Result<Written>| written.as_ref().is_err_and(is_full);
        if lacks(&first) && lacks(&second) {
            // Each took what would have been enough for one.
            first = write(0);
        }
        if rooms == Rooms::Spared {
            return [first, second];
        }
        first = self.or_into_room(first, &paths[0], kind, content);
        if lacks(&second) {
            second = self.or_into_room(second, &paths[1], kind, content);
        }
        [first, second]
    }

    /// Makes a copy of a file again. Whether there was one to be replaced: of a file that was removed meanwhile none is made.
    pub(crate) fn mend(
        &self,
        kind: CopyKind,
        position: u64,
        which: Which,
        content: &[u8],
        rooms: Rooms,
    ) -> io::Result<bool> {
        let _changing = self.changing();
        self.check()?;
        if !self.positions(kind)?.contains(&position) {
            return Ok(false);
        }
        self.put_copy(kind, position, which, &[content], rooms).map(|()| true)
    }

    /// Writes one copy of a file of which another is there. A crash leaves the old one or the new one, and both are
    /// read alike.
    fn put_copy(&self, kind: CopyKind, position: u64, which: Which, content: &[&[u8]], rooms: Rooms) -> io::Result<()> {
        let path = self.path(kind, position, which);
        let written = self.write_copy(&path, content);
        let written = match rooms {
            Rooms::Taken => self.or_into_room(written, &path, kind, content),
            Rooms::Spared => written,
        }?;
        let placed = self.place(&[(&written, &path)]);
        if placed.is_err() {
            let _ = self.discard(kind, &written.path, written.was_room);
        }
        placed
    }

    /// Writes and syncs a file under another name.
    fn write_copy(&self, path: &Path, content: &[&[u8]]) -> io::Result<Written> {
        self.check()?;
        let path = unfinished(path);
        if let Err(error) = write(&path, content) {
            // The disk may be full: what is half written must not keep it so.
            let _ = fs::remove_file(&path);
            return Err(error);
        }
        Ok(Written { path, was_room: false })
    }

    /// Writes what the full disk did not take where room was set aside. That is no room any more, then.
    fn or_into_room(
        &self,
        written: io::Result<Written>,
        path: &Path,
        kind: CopyKind,
        content: &[&[u8]],
    ) -> io::Result<Written> {
        match written {
            Err(error) if is_full(&error) => {
                // What does not fit there either failed for the first reason.
                let room = room::write(&self.folder, kind.name(), ROOMS, content).map_err(|_| error)?;
                let path = unfinished(path);
                fs::rename(room, &path).map(|()| Written { path, was_room: true })
            }
            written => written,
        }
    }

    /// Gives what is written and synced its names.
    fn place(&self, files: &[(&Written, &PathBuf)]) -> io::Result<()> {
        // Writing takes a while.
        self.check()?;
        for (written, path) in files {
            fs::rename(&written.path, path)?;
        }
        File::open(&self.folder)?.sync_all()
    }
}

/// A file that is whole and synced, and not yet called what it is.
struct Written {
    path: PathBuf,
    /// Its blocks were set aside.
    was_room: bool,
}

/// Writes and syncs. What is here afterwards survives a power cut, but not yet its name.
fn write(path: &Path, content: &[&[u8]]) -> io::Result<()> {
    let mut file = create(path)?;
    room::write_in_pieces(&mut file, content)?;
    file.sync_all()
}

/// What a file is called until it is whole.
fn unfinished(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(room::UNFINISHED);
    PathBuf::from(name)
}

/// The same error once more.
fn again(error: &io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(errno) => io::Error::from_raw_os_error(errno),
        None => io::Error::new(error.kind(), error.to_string()),
    }
}

/// The disk is full, or what its owner may have of it.
pub(in crate::snapshots) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
