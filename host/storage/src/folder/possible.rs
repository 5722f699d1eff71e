//! Whether a data folder could be made, or written to, where it shall be: found out without a change.

use std::fs;
use std::io;
use std::path::Path;

use rustix::fs::{Access, AtFlags, CWD, Mode, OFlags, accessat, openat, statfs, statvfs};
use rustix::io::Errno;

use crate::error::StartError;
use crate::error::failed;

/// File systems through which the kernel speaks: whoever is root may write there as far as permissions say, and yet can make
/// no folder, or none that takes files. By their numbers in `linux/magic.h`.
const OF_THE_KERNEL: [(i64, &str); 14] = [
    (0x6265_6572, "sysfs"),
    (0x0000_9fa0, "proc"),
    (0x6462_6720, "debugfs"),
    (0x7472_6163, "tracefs"),
    (0x7363_6673, "securityfs"),
    (0xf97c_ff8c, "selinuxfs"),
    (0x0027_e0eb, "cgroup"),
    (0x6367_7270, "cgroup2"),
    (0x6265_6570, "configfs"),
    (0xcafe_4a11, "bpf"),
    (0x6573_5543, "fusectl"),
    (0x0000_1cd1, "devpts"),
    (0x1980_0202, "mqueue"),
    (0x6165_676c, "pstore"),
];
/// Longest path of a file below a data folder, with some room: `/shards/0/snapshots/00000000000000000000.part2.unfinished`.
const LONGEST_BELOW: usize = 96;
/// Bytes of a path that Linux takes (`PATH_MAX`, less the zero at its end).
const PATH_MAX: usize = 4095;

/// Refuses a folder that could not be made, or that is there and takes no files.
pub(super) fn look(dir: &Path) -> Result<(), StartError> {
    if dir.as_os_str().len() + LONGEST_BELOW > PATH_MAX {
        return Err(failed("create files below", dir)(Errno::NAMETOOLONG.into()));
    }
    if dir.is_dir() {
        // How full the disk is does not matter here: a node starts on a full one.
        let may_write = accessat(CWD, dir, Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS);
        return may_write.map_err(|errno| failed("write to", dir)(errno.into()));
    }
    // What is there in its place and no folder, such as a link to nowhere.
    if fs::symlink_metadata(dir).is_ok() {
        return Err(failed("create", dir)(Errno::EXIST.into()));
    }
    can_be_made(dir)
}

/// Whether the nearest folder above that is there takes those that are missing.
fn can_be_made(dir: &Path) -> Result<(), StartError> {
    let above = dir.ancestors().skip(1).map(|above| if above.as_os_str().is_empty() { Path::new(".") } else { above });
    let Some(nearest) = above.into_iter().find(|above| fs::symlink_metadata(above).is_ok()) else { return Ok(()) };
    match fs::metadata(nearest) {
        Ok(found) => {
            let refused = if found.is_dir() { takes_files(nearest) } else { Err(Errno::NOTDIR.into()) };
            let made = dir.parent().filter(|above| *above != nearest && !above.as_os_str().is_empty()).unwrap_or(dir);
            refused.map_err(failed("create", made))?;
            takes_names(nearest, dir).map_err(failed("create", dir))
        }
        Err(error) => Err(failed("look at", nearest)(error)),
    }
}

/// Whether a folder could be made in this one. Only what is certain is said: a start may find more.
fn takes_files(folder: &Path) -> io::Result<()> {
    accessat(CWD, folder, Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS)?;
    // A file without a name, which is gone when it is closed. It meets what permissions do not tell: a disk that has no
    // room for one more file, a quota, an owner that the file system cannot note.
    let unnamed = openat(CWD, folder, OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC, Mode::RUSR | Mode::WUSR);
    match unnamed {
        Ok(_) => return Ok(()),
        Err(errno @ (Errno::ACCESS | Errno::PERM | Errno::ROFS | Errno::NOSPC | Errno::DQUOT | Errno::OVERFLOW)) => {
            return Err(errno.into());
        }
        // Many file systems know no such files.
        Err(_) => {}
    }
    let number = statfs(folder)?.f_type as i64;
    match OF_THE_KERNEL.iter().find(|(known, _)| *known == number) {
        Some((_, name)) => {
            Err(io::Error::other(format!("{name} is a file system of the kernel's own and keeps no files")))
        }
        None => Ok(()),
    }
}

/// Whether the file system takes the names of the folders that are missing between two.
fn takes_names(nearest: &Path, dir: &Path) -> io::Result<()> {
    let longest = usize::try_from(statvfs(nearest)?.f_namemax).unwrap_or(usize::MAX);
    let missing = if nearest == Path::new(".") { dir } else { dir.strip_prefix(nearest).unwrap_or(dir) };
    let is_long = missing.components().any(|name| name.as_os_str().len() > longest);
    if is_long { Err(Errno::NAMETOOLONG.into()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(dir: &Path) -> String {
        look(dir).unwrap_err().to_string()
    }

    #[test]
    fn a_folder_that_could_not_be_made_is_refused_and_nothing_is_made() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("file"), "").unwrap();
        std::os::unix::fs::symlink("nowhere", at("dangling")).unwrap();
        for (dir, why) in [
            (at("file/below"), "Not a directory"),
            (at("file"), "File exists"),
            (at("dangling"), "File exists"),
            (at("dangling/below"), "cannot look at"),
            (at(&"n".repeat(256)), "File name too long"),
            (at(&format!("missing/{}", "n".repeat(256))), "File name too long"),
            (at(&["n".repeat(250).as_str(); 16].join("/")), "File name too long"),
            ("/proc/vouch-data".into(), "proc"),
            ("/proc/vouch-data/below".into(), "proc"),
        ] {
            let said = said(&dir);
            assert!(said.contains(why), "{}: {said}", dir.display());
        }
        for dir in [at("data"), at("missing/data"), at("missing/../data"), at(&"n".repeat(255)), at("")] {
            look(&dir).unwrap();
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "the file and the link");
    }

    #[test]
    fn a_path_may_leave_just_enough_for_what_a_node_keeps_below_it() {
        let folder = tempfile::tempdir().unwrap();
        let of_len = |len: usize| {
            let mut path = folder.path().to_str().unwrap().to_owned();
            while path.len() + 1 < len {
                path.push('/');
                path.push_str(&"n".repeat((len - path.len()).min(200)));
            }
            path
        };
        let longest = PATH_MAX - LONGEST_BELOW;
        look(Path::new(&of_len(longest))).unwrap();
        assert!(said(Path::new(&of_len(longest + 1))).contains("create files below"));
    }
}
