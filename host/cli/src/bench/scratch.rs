//! A folder on a real disk: a measurement of syncs in memory would mean nothing.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use tempfile::TempDir;

/// File systems that live in memory, by the magic numbers of `statfs(2)`.
const IN_MEMORY: [(u64, &str); 2] = [(0x0102_1994, "tmpfs"), (0x8584_58f6, "ramfs")];

/// A folder that is deleted at the end.
pub(crate) struct Scratch {
    folder: TempDir,
}

impl Scratch {
    /// A new folder inside `wanted`, which must be on a disk; without it in the first of the temporary folder, the
    /// current one and `/var/tmp` that is.
    pub(crate) fn create(wanted: Option<&Path>) -> anyhow::Result<Self> {
        let candidates = match wanted {
            Some(folder) => vec![folder.to_owned()],
            None => vec![std::env::temp_dir(), PathBuf::from("."), PathBuf::from("/var/tmp")],
        };
        let mut reasons = Vec::new();
        for parent in candidates {
            match on_disk(&parent) {
                Ok(()) => return Self::inside(&parent),
                Err(why) => reasons.push(format!("{}: {why:#}", parent.display())),
            }
        }
        bail!("no folder on a disk; name one with --dir ({})", reasons.join("; "))
    }

    /// A new folder in this one.
    fn inside(parent: &Path) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("vouch-bench-").tempdir_in(parent);
        Ok(Self { folder: folder.with_context(|| format!("cannot create a folder in {}", parent.display()))? })
    }

    /// The folder.
    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The folder it was created in, for the report.
    pub(crate) fn describe(&self) -> String {
        self.path().parent().map_or_else(String::new, |parent| parent.display().to_string())
    }
}

/// # Errors
/// The folder is not there, or what lies in it never reaches a disk.
fn on_disk(folder: &Path) -> anyhow::Result<()> {
    let kind = rustix::fs::statfs(folder).context("cannot look at its file system")?.f_type as u64;
    match IN_MEMORY.iter().find(|(magic, _)| *magic == kind & 0xFFFF_FFFF) {
        Some((_, name)) => bail!("it is on {name}, in memory"),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_in_memory_is_refused_by_name() {
        let shm = Path::new("/dev/shm");
        if on_disk(shm).is_ok() {
            return; // Not a tmpfs on this machine.
        }
        let error = Scratch::create(Some(shm)).err().unwrap().to_string();
        assert!(error.contains("--dir") && error.contains("tmpfs"), "{error}");
    }

    #[test]
    fn a_folder_that_is_not_there_is_refused() {
        assert!(Scratch::create(Some(Path::new("/nonexistent-folder"))).is_err());
    }
}
