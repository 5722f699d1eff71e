//! Files that only their owner may read, and that appear whole or not at all.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

/// Creates a file that only its owner may read, or empties it.
///
/// # Errors
/// What the system says.
pub fn create(path: &Path) -> io::Result<File> {
    File::options().write(true).create(true).truncate(true).mode(0o600).open(path)
}

/// Writes a whole file. Who reads it meanwhile may see half of it: [`appear`] is for those that are read.
///
/// # Errors
/// What the system says.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    create(path)?.write_all(bytes)
}

/// Creates a folder that only its owner may enter, and those above it that are missing.
///
/// # Errors
/// What the system says.
pub fn create_dir_all(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Syncs a folder: the names in it survive a power cut.
///
/// # Errors
/// What the system says.
pub fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Syncs a folder and those above it, any of which may be new.
///
/// # Errors
/// The folder itself cannot be found or synced. One above that we may not open is none that we made.
pub fn sync_with_those_above(folder: &Path) -> io::Result<()> {
    let folder = folder.canonicalize()?;
    sync(&folder)?;
    for above in folder.ancestors().skip(1) {
        if sync(above).is_err() {
            break;
        }
    }
    Ok(())
}

/// Lets a file appear under its name when it is whole, in place of what was there: it is written beside, as `unfinished`, and
/// renamed. A power cut may leave it empty or half written; [`appear_durably`] is for what must survive one.
///
/// # Errors
/// What the system says; the file of that name is then as it was, and `unfinished` is gone.
pub fn appear(path: &Path, unfinished: &Path, fill: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
    beside(path, unfinished, fill, false)
}

/// The same for a file that survives a power cut when this returns: written beside, synced, renamed, and its folder synced.
///
/// # Errors
/// What the system says. Where the last sync failed the file may be there under its name, whole.
pub fn appear_durably(
    path: &Path,
    unfinished: &Path,
    fill: impl FnOnce(&mut File) -> io::Result<()>,
) -> io::Result<()> {
    beside(path, unfinished, fill, true)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    sync(folder.unwrap_or(Path::new(".")))
}

fn beside(
    path: &Path,
    unfinished: &Path,
    fill: impl FnOnce(&mut File) -> io::Result<()>,
    durably: bool,
) -> io::Result<()> {
    let placed = (|| {
        let mut file = create(unfinished)?;
        fill(&mut file)?;
        if durably {
            file.sync_all()?;
        }
        fs::rename(unfinished, path)
    })();
    if placed.is_err() {
        // The disk may be full: what is half written must not keep it so.
        let _ = fs::remove_file(unfinished);
    }
    placed
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn what_is_made_is_the_owners_alone() {
        let folder = tempfile::tempdir().unwrap();
        let deep = folder.path().join("a/b");
        create_dir_all(&deep).unwrap();
        write(&deep.join("file"), b"x").unwrap();
        assert_eq!((mode(&folder.path().join("a")), mode(&deep), mode(&deep.join("file"))), (0o700, 0o700, 0o600));
    }

    #[test]
    fn a_file_that_cannot_be_written_to_its_end_leaves_the_old_one_and_nothing_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let (path, unfinished) = (folder.path().join("file"), folder.path().join("file.new"));
        for (durably, content) in [(true, "first"), (false, "second")] {
            let fill = |file: &mut File| file.write_all(content.as_bytes());
            if durably { appear_durably(&path, &unfinished, fill) } else { appear(&path, &unfinished, fill) }.unwrap();
            assert_eq!((fs::read_to_string(&path).unwrap(), mode(&path)), (content.to_owned(), 0o600));
            let breaks = |file: &mut File| {
                file.write_all(b"half")?;
                Err(io::ErrorKind::StorageFull.into())
            };
            let refused =
                if durably { appear_durably(&path, &unfinished, breaks) } else { appear(&path, &unfinished, breaks) };
            assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::StorageFull);
            assert_eq!(fs::read_to_string(&path).unwrap(), content);
            assert!(!unfinished.exists());
        }
    }

    type Appear = fn(&Path, &Path, &str) -> io::Result<()>;
    const BOTH: [Appear; 2] = [
        |path, unfinished, content| appear(path, unfinished, |file| file.write_all(content.as_bytes())),
        |path, unfinished, content| appear_durably(path, unfinished, |file| file.write_all(content.as_bytes())),
    ];

    /// What a crash leaves after each step: nothing beside, half of it beside, all of it beside, or the new file.
    #[test]
    fn whatever_step_a_crash_came_at_the_old_file_or_the_new_one_is_there_and_the_next_write_goes_through() {
        for write in BOTH {
            for left in [None, Some(""), Some("ne"), Some("new and longer than what comes next")] {
                let folder = tempfile::tempdir().unwrap();
                let (path, unfinished) = (folder.path().join("file"), folder.path().join("file.new"));
                fs::write(&path, "old").unwrap();
                if let Some(left) = left {
                    fs::write(&unfinished, left).unwrap();
                }
                assert_eq!(fs::read_to_string(&path).unwrap(), "old", "{left:?}");
                write(&path, &unfinished, "next").unwrap();
                assert_eq!(fs::read_to_string(&path).unwrap(), "next", "nothing of what was left is in it: {left:?}");
                assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "{left:?}");
            }
        }
    }

    #[test]
    fn a_step_that_fails_leaves_the_old_file_and_nothing_beside_it() {
        for write in BOTH {
            let folder = tempfile::tempdir().unwrap();
            let (path, unfinished) = (folder.path().join("file"), folder.path().join("file.new"));
            // It cannot be created: its folder is missing, or a folder has its name.
            assert!(write(&folder.path().join("none/file"), &folder.path().join("none/file.new"), "x").is_err());
            fs::write(&path, "old").unwrap();
            fs::create_dir(&unfinished).unwrap();
            assert!(write(&path, &unfinished, "x").is_err());
            fs::remove_dir(&unfinished).unwrap();
            // It cannot be written: the disk is full.
            std::os::unix::fs::symlink("/dev/full", &unfinished).unwrap();
            assert_eq!(write(&path, &unfinished, "x").unwrap_err().kind(), io::ErrorKind::StorageFull);
            assert!(fs::symlink_metadata(&unfinished).is_err(), "what was half written is gone");
            assert_eq!(fs::read_to_string(&path).unwrap(), "old");
            // It cannot get its name: a folder that holds something has that.
            fs::create_dir_all(folder.path().join("taken/by")).unwrap();
            assert!(write(&folder.path().join("taken"), &unfinished, "x").is_err());
            assert!(!unfinished.exists() && folder.path().join("taken/by").exists());
            write(&path, &unfinished, "new").unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), "new");
        }
    }

    #[test]
    fn what_others_could_read_they_cannot_once_it_is_written_anew() {
        for write in BOTH {
            let folder = tempfile::tempdir().unwrap();
            let (path, unfinished) = (folder.path().join("file"), folder.path().join("file.new"));
            fs::write(&path, "old").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
            write(&path, &unfinished, "new").unwrap();
            assert_eq!(mode(&path), 0o600);
        }
    }

    #[test]
    fn folders_are_synced_up_to_the_one_that_may_not_be_opened_and_a_missing_one_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let deep = folder.path().join("a/b/c");
        assert_eq!(sync(&deep).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert!(sync_with_those_above(&deep).is_err());
        create_dir_all(&deep).unwrap();
        create_dir_all(&deep).expect("it may be there");
        sync_with_those_above(&deep).unwrap();
        sync_with_those_above(&deep.join("..")).unwrap();
    }
}
