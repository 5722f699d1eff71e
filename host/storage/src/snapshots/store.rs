//! The files of snapshots and parts. A file appears under its name only when all of it is on disk; it never changes. Each
//! lies in the folder twice, for once the log's beginning is released nothing else says what is in them.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use super::room;
use vouch_files::{create, create_dir_all};

/// Most files in which room is set aside for a kind.
const ROOMS: usize = 8;

/// Which of two kinds of file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Snapshot,
    Part,
}

impl Kind {
    const BOTH: [Self; 2] = [Self::Snapshot, Self::Part];

    /// Whether a file of this name is a copy of one.
    fn is_of(self, name: Option<&Path>) -> bool {
        let extension = name.and_then(Path::extension);
        extension.is_some_and(|extension| Which::BOTH.into_iter().any(|which| extension == self.extension(which)))
    }

    /// What it is called, by its first copy.
    fn name(self) -> &'static str {
        self.extension(Which::First)
    }

    fn extension(self, which: Which) -> &'static str {
        match (self, which) {
            (Self::Snapshot, Which::First) => "snapshot",
            (Self::Snapshot, Which::Second) => "snapshot2",
            (Self::Part, Which::First) => "part",
            (Self::Part, Which::Second) => "part2",
        }
    }
}

/// Which of the two copies of a file. Neither is the original: each is as good as the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Which {
    /// There first, and removed last: before there is a second, nothing needs the file.
    First,
    Second,
}

impl Which {
    pub(crate) const BOTH: [Self; 2] = [Self::First, Self::Second];
    /// In this order they go: a first copy that is missing beside a second one is damage.
    const GOING: [Self; 2] = [Self::Second, Self::First];

    pub(crate) fn other(self) -> Self {
        match self {
            Self::First => Self::Second,
            Self::Second => Self::First,
        }
    }
}

/// The folder of one shard's snapshots and parts, each named by the log position that it covers.
pub(crate) struct Store {
    folder: PathBuf,
    /// Device and inode of the folder, since it was there: under its path another one may lie later, which is another
    /// node's.
    identity: OnceLock<(u64, u64)>,
    /// The data folder is not this node's any more.
    given_up: AtomicBool,
    /// Held by whoever adds or removes files: snapshots are made, and copies are mended, by different threads.
    changing: Mutex<()>,
}

/// Whether a file may be written where room was set aside, should the disk be full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rooms {
    Taken,
    /// They are for the next snapshots, which alone free a full disk.
    Spared,
}

impl Store {
    /// Makes the folder if it is missing, and removes what a crash left unfinished.
    pub(crate) fn prepare(&self) -> io::Result<()> {
        create_dir_all(&self.folder)?;
        self.remember();
        for entry in fs::read_dir(&self.folder)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == room::UNFINISHED) {
                // It may have been room that was set aside, which a full disk would not give again.
                let kind = Kind::BOTH.into_iter().find(|kind| kind.is_of(path.file_stem().map(Path::new)));
                match kind {
                    Some(kind) if room::give_back(&self.folder, kind.name(), ROOMS, &path) => {}
                    _ => fs::remove_file(path)?,
                }
            }
        }
        Ok(())
    }

    /// Sets room aside for the next two snapshots and their parts, for both copies of each: a quarter more than the largest
    /// of each that is there. A part has `part_bytes` at least, and one snapshot may come with two: a whole one, and one for
    /// the rest.
    pub(crate) fn set_room_aside(&self, part_bytes: u64) {
        // What is there must not become a copy while it is looked at.
        let _changing = self.changing();
        if let Err(error) = self.check() {
            tracing::debug!(%error, "no room is set aside for snapshots");
            return;
        }
        let largest = |kind| {
            let positions = self.positions(kind).unwrap_or_default();
            let files =
                positions.into_iter().flat_map(|position| Which::BOTH.map(|which| self.path(kind, position, which)));
            let len = |path| fs::metadata(path).map_or(0, |file| file.len());
            files.map(len).max().unwrap_or(0) / 4 * 5
        };
        let (snapshot, part) = (largest(Kind::Snapshot), largest(Kind::Part).max(part_bytes));
        let rest = room::LEAST;
        let sizes: [u64; ROOMS] = [part, part, part, part, rest, rest, rest, rest];
        room::set_aside(&self.folder, Kind::Part.name(), &sizes);
        room::set_aside(&self.folder, Kind::Snapshot.name(), &[snapshot; 4]);
    }

    /// The folder as it is: nothing in it is changed, and a running node may be writing there.
    pub(crate) fn of_folder(folder: impl Into<PathBuf>) -> Self {
        let store = Self {
            folder: folder.into(),
            identity: OnceLock::new(),
            given_up: AtomicBool::new(false),
            changing: Mutex::default(),
        };
        store.remember();
        store
    }

    fn remember(&self) {
        if self.identity.get().is_none()
            && let Ok(folder) = fs::metadata(&self.folder)
        {
            let _ = self.identity.set((folder.dev(), folder.ino()));
        }
    }

    /// Nothing is added or removed any more, for good; what is under way ends at its next step.
    pub(crate) fn give_up(&self) {
        self.given_up.store(true, Ordering::Release);
    }

    /// Waits for whoever adds or removes files.
    pub(crate) fn wait(&self) {
        drop(self.changing());
    }

    pub(crate) fn is_given_up(&self) -> bool {
        self.given_up.load(Ordering::Acquire)
    }

    /// Whether anything may be added or removed: the folder is this node's still, and is what it was.
    ///
    /// # Errors
    /// It is not, or that cannot be seen.
    pub(crate) fn check(&self) -> io::Result<()> {
        if self.is_given_up() {
            return Err(io::Error::other("the data folder is not this node's any more"));
        }
        let folder = fs::metadata(&self.folder)?;
        match self.identity.get() {
            Some(known) if *known != (folder.dev(), folder.ino()) => {
                let why = "another folder lies there than the one this node began with: put that one back, or restart the node";
                Err(io::Error::other(why))
            }
            _ => Ok(()),
        }
    }

    /// A copy of the file of this kind for this position.
    pub(crate) fn path(&self, kind: Kind, position: u64, which: Which) -> PathBuf {
        self.folder.join(format!("{position:020}.{}", kind.extension(which)))
    }

    /// Positions of the files of this kind of which there is a copy, ascending.
    pub(crate) fn positions(&self, kind: Kind) -> io::Result<Vec<u64>> {
        let mut positions = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let path = entry?.path();
            if kind.is_of(Some(&path)) {
                // A file that is named otherwise is somebody else's.
                positions
                    .extend(path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse::<u64>().ok()));
            }
        }
        positions.sort_unstable();
        positions.dedup();
        Ok(positions)
    }

    fn changing(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stores a file; when this returns, both copies survive a power cut. One with the same name is replaced. On a full disk
    /// it is written where room was set aside.
    pub(crate) fn put(&self, kind: Kind, position: u64, content: &[&[u8]]) -> io::Result<()> {
        let _changing = self.changing();
        self.check()?;
        let paths = Which::BOTH.map(|which| self.path(kind, position, which));
        // What was there before says the same, and may be read.
        let new = paths.clone().map(|path| path.try_exists().is_ok_and(|there| !there));
        let written = self.write_both(kind, &paths, content);
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
    fn write_both(&self, kind: Kind, paths: &[PathBuf; 2], content: &[&[u8]]) -> [io::Result<Written>; 2] {
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
        first = self.or_into_room(first, &paths[0], kind, content);
        if lacks(&second) {
            second = self.or_into_room(second, &paths[1], kind, content);
        }
        [first, second]
    }

    /// Makes a copy of a file again. Whether there was one to be replaced: of a file that was removed meanwhile none is made.
    pub(crate) fn mend(
        &self,
        kind: Kind,
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

    /// Takes back files of a kind that nothing needs and nobody reads. `as_room`: their blocks are room for the next ones.
    pub(crate) fn take_back_all(&self, kind: Kind, positions: &[u64], as_room: bool) -> io::Result<()> {
        let _changing = self.changing();
        for position in positions {
            for which in Which::GOING {
                self.discard(kind, &self.path(kind, *position, which), as_room)?;
            }
        }
        Ok(())
    }

    /// `as_room`: its blocks stay where they are, for the next of its kind. Freed, others would have them first.
    fn discard(&self, kind: Kind, path: &Path, as_room: bool) -> io::Result<()> {
        self.check()?;
        if as_room && room::give_back(&self.folder, kind.name(), ROOMS, path) {
            return Ok(());
        }
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn put_copy(&self, kind: Kind, position: u64, which: Which, content: &[&[u8]], rooms: Rooms) -> io::Result<()> {
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
        kind: Kind,
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

    /// Removes all snapshots but those that are `kept`, and all parts but those that are `needed`, which are the parts
    /// of every snapshot that stays; of each both copies.
    pub(crate) fn tidy(&self, kept: &[u64], needed: &[u64]) -> io::Result<()> {
        let _changing = self.changing();
        self.check()?;
        self.remove_all_but(Kind::Snapshot, kept)?;
        // A part goes only when no snapshot that names it can come back.
        File::open(&self.folder)?.sync_all()?;
        self.remove_all_but(Kind::Part, needed)
    }

    fn remove_all_but(&self, kind: Kind, kept: &[u64]) -> io::Result<()> {
        for position in self.positions(kind)?.into_iter().filter(|position| !kept.contains(position)) {
            for which in Which::GOING {
                self.discard(kind, &self.path(kind, position, which), false)?;
            }
        }
        Ok(())
    }
}

/// A file that is whole and synced, and not yet called what it is.
struct Written {
    path: PathBuf,
    /// Its blocks were set aside.
    was_room: bool,
}

fn write(path: &Path, content: &[&[u8]]) -> io::Result<()> {
    let mut file = create(path)?;
    for bytes in content {
        file.write_all(bytes)?;
    }
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
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_appears_whole_and_twice_and_what_a_crash_left_unfinished_goes() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("00000000000000000007.unfinished"), b"half").unwrap();
        fs::write(folder.path().join("notes.snapshot"), b"somebody's").unwrap();
        let store = Store::of_folder(folder.path());
        store.prepare().unwrap();
        store.put(Kind::Part, 7, &[b"ab", b"c"]).unwrap();
        for which in Which::BOTH {
            assert_eq!(fs::read(store.path(Kind::Part, 7, which)).unwrap(), b"abc");
        }
        let (first, second) = ("00000000000000000007.part", "00000000000000000007.part2");
        assert_eq!(names(folder.path()), [first, second, "notes.snapshot"]);
        assert_eq!(store.positions(Kind::Part).unwrap(), [7]);
        assert!(store.positions(Kind::Snapshot).unwrap().is_empty());
    }

    #[test]
    fn a_file_of_which_only_one_copy_can_be_written_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::of_folder(folder.path());
        // Nothing can be renamed to a folder that is not empty.
        fs::create_dir_all(store.path(Kind::Part, 7, Which::Second).join("in the way")).unwrap();
        assert!(store.put(Kind::Part, 7, &[b"abc"]).is_err());
        assert_eq!(names(folder.path()), ["00000000000000000007.part2"]);
    }

    #[test]
    fn a_copy_is_made_again_of_what_is_there_and_of_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::of_folder(folder.path());
        store.put(Kind::Part, 7, &[b"abc"]).unwrap();
        for which in Which::BOTH {
            fs::remove_file(store.path(Kind::Part, 7, which)).unwrap();
            assert!(store.mend(Kind::Part, 7, which, b"abc", Rooms::Spared).unwrap());
            assert_eq!(fs::read(store.path(Kind::Part, 7, which)).unwrap(), b"abc");
        }
        store.tidy(&[], &[]).unwrap();
        assert!(!store.mend(Kind::Part, 7, Which::First, b"abc", Rooms::Spared).unwrap(), "it was removed meanwhile");
        assert_eq!(names(folder.path()), [""; 0]);
    }

    #[test]
    fn what_is_kept_stays_with_the_parts_that_it_needs_and_the_rest_goes() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::of_folder(folder.path());
        store.prepare().unwrap();
        for position in [10, 2, 300, 4000] {
            store.put(Kind::Snapshot, position, &[b"s"]).unwrap();
            store.put(Kind::Part, position, &[b"p"]).unwrap();
        }
        // As a crash in the middle of this would leave it.
        fs::remove_file(store.path(Kind::Snapshot, 2, Which::First)).unwrap();
        store.tidy(&[300, 10], &[2, 300]).unwrap();
        assert_eq!(store.positions(Kind::Snapshot).unwrap(), [10, 300]);
        assert_eq!(store.positions(Kind::Part).unwrap(), [2, 300]);
        assert_eq!(names(folder.path()).len(), 8);
    }

    /// Whether a store refuses to add, mend, remove and set aside.
    fn refuses_all(store: &Store) -> bool {
        store.set_room_aside(1);
        store.put(Kind::Part, 7, &[b"abc"]).is_err()
            && store.mend(Kind::Part, 7, Which::First, b"abc", Rooms::Taken).is_err()
            && store.take_back_all(Kind::Part, &[7], true).is_err()
            && store.tidy(&[], &[]).is_err()
    }

    #[test]
    fn what_lies_at_the_path_of_a_folder_that_was_moved_away_is_left_alone() {
        let above = tempfile::tempdir().unwrap();
        let (folder, away) = (above.path().join("snapshots"), above.path().join("away"));
        let store = Store::of_folder(&folder);
        store.prepare().unwrap();
        store.put(Kind::Part, 7, &[b"abc"]).unwrap();
        fs::rename(&folder, &away).unwrap();
        assert!(refuses_all(&store) && !folder.exists());
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("00000000000000000007.part"), b"another node's").unwrap();
        assert!(refuses_all(&store));
        assert_eq!(names(&folder), ["00000000000000000007.part"]);
        fs::remove_dir_all(&folder).unwrap();
        fs::rename(&away, &folder).unwrap();
        store.tidy(&[], &[]).unwrap();
        assert_eq!(names(&folder), [""; 0]);
    }

    #[test]
    fn a_store_that_was_given_up_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::of_folder(folder.path());
        store.put(Kind::Part, 7, &[b"abc"]).unwrap();
        let before = names(folder.path());
        store.give_up();
        assert!(refuses_all(&store));
        assert_eq!(names(folder.path()), before);
    }

    #[test]
    fn what_is_taken_back_is_room_for_the_next_of_its_kind() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::of_folder(folder.path());
        for position in 0..6 {
            store.put(Kind::Part, position, &[&[1; 8192]]).unwrap();
        }
        store.take_back_all(Kind::Part, &[0, 1, 2, 3, 4, 9], true).unwrap();
        let rooms: Vec<_> = (0..ROOMS).map(|n| format!("part-{n}.room")).collect();
        let part = |extension| format!("00000000000000000005.{extension}");
        assert_eq!(names(folder.path()), [vec![part("part"), part("part2")], rooms].concat());
    }

    #[test]
    fn what_is_mended_on_a_full_disk_takes_no_room_from_the_next_snapshot() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::of_folder(folder.path());
        store.put(Kind::Part, 7, &[b"abc"]).unwrap();
        store.set_room_aside(1);
        let before = names(folder.path());
        assert!(before.contains(&"part-0.room".to_owned()), "{before:?}");
        // Whatever is written to it finds a full disk.
        let full = || {
            let unfinished = folder.path().join("00000000000000000007.part2.unfinished");
            std::os::unix::fs::symlink("/dev/full", unfinished)
        };
        full().unwrap();
        let error = store.mend(Kind::Part, 7, Which::Second, b"abc", Rooms::Spared).unwrap_err();
        assert!(is_full(&error), "{error}");
        assert_eq!(names(folder.path()), before);
        full().unwrap();
        store.put(Kind::Part, 7, &[b"abc"]).unwrap();
        assert_eq!(names(folder.path()).len(), before.len() - 1, "a snapshot takes it");
    }

    #[test]
    fn a_file_that_cannot_be_written_again_stays_as_it_was() {
        for copy in ["part", "part2"] {
            let folder = tempfile::tempdir().unwrap();
            let store = Store::of_folder(folder.path());
            store.put(Kind::Part, 7, &[b"abc"]).unwrap();
            let before = names(folder.path());
            let unfinished = folder.path().join(format!("00000000000000000007.{copy}.unfinished"));
            std::os::unix::fs::symlink("/dev/full", &unfinished).unwrap();
            assert!(is_full(&store.put(Kind::Part, 7, &[b"abc"]).unwrap_err()));
            let left: Vec<_> = names(folder.path()).into_iter().filter(|name| !name.ends_with(".room")).collect();
            assert_eq!(left, before, "{copy}");
            for which in Which::BOTH {
                assert_eq!(fs::read(store.path(Kind::Part, 7, which)).unwrap(), b"abc");
            }
        }
    }

    #[test]
    fn room_that_a_crash_left_half_used_is_room_again() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::of_folder(folder.path());
        store.set_room_aside(1);
        let before = names(folder.path());
        for (room, copy) in [("part-0.room", "7.part.unfinished"), ("snapshot-3.room", "7.snapshot2.unfinished")] {
            fs::rename(folder.path().join(room), folder.path().join(copy)).unwrap();
        }
        store.prepare().unwrap();
        assert_eq!(names(folder.path()), before);
    }
}
