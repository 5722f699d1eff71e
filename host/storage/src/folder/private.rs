//! What only the owner may read: everything in a data folder. It holds messages, the key of the handles, and what was
//! configured.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::layout::SHARDS;

/// What nobody but the owner gets.
const OTHERS: u32 = 0o077;
/// Everything in a data folder that is a node's.
pub(super) const OURS: [&str; 17] = [
    "identity.json",
    "identity.part",
    "identity.again",
    "lock",
    "endpoints.json",
    "endpoints.json.new",
    "last-backup.json",
    "last-backup.json.new",
    "tls",
    "plugins",
    "nodes.json",
    "nodes.json.new",
    "removed",
    "removed.new",
    "differs",
    "differs.new",
    SHARDS,
];

/// Takes from others what they may do in a data folder. What is not a node's is left as it is: in the folder itself nobody
/// gets there. Links are not followed.
pub(crate) fn tighten(dir: &Path) {
    let mut refused = restrict(dir).err();
    for name in OURS {
        refused = refused.or(tighten_all(&dir.join(name)).err());
    }
    if let Some(error) = refused {
        tracing::warn!(%error, data_dir = %dir.display(), "others may be able to read what is in the data folder; see to its owner");
    }
}

/// Takes from others what they may do with one file or folder.
pub(crate) fn restrict(path: &Path) -> io::Result<()> {
    let found = fs::symlink_metadata(path)?;
    let mode = found.permissions().mode() & 0o7777;
    if found.is_symlink() || mode & OTHERS == 0 {
        return Ok(());
    }
    fs::set_permissions(path, Permissions::from_mode(mode & !OTHERS))
}

/// A file, or a folder with all that is in it. Goes on behind what cannot be changed, and tells the first of it.
fn tighten_all(path: &Path) -> io::Result<()> {
    let found = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        found => found?,
    };
    let mut first = restrict(path);
    if found.is_dir() {
        for entry in fs::read_dir(path)? {
            // One that cannot be changed keeps no other from being changed.
            first = first.and(tighten_all(&entry?.path()));
        }
    }
    first
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn what_is_a_nodes_is_taken_from_others_and_nothing_behind_a_link() {
        let folder = tempfile::tempdir().unwrap();
        let (data, elsewhere) = (folder.path().join("data"), folder.path().join("elsewhere"));
        for made in [&data.join("shards/0/log"), &elsewhere] {
            fs::create_dir_all(made).unwrap();
            fs::set_permissions(made, Permissions::from_mode(0o755)).unwrap();
        }
        fs::set_permissions(&data, Permissions::from_mode(0o2775)).unwrap();
        let (ours, theirs) = (data.join("shards/0/log/a.log"), data.join("notes"));
        for file in [&ours, &theirs, &elsewhere.join("file")] {
            fs::write(file, "x").unwrap();
            fs::set_permissions(file, Permissions::from_mode(0o664)).unwrap();
        }
        std::os::unix::fs::symlink(&elsewhere, data.join("tls")).unwrap();
        tighten(&data);
        assert_eq!((mode(&data), mode(&data.join("shards")), mode(&ours)), (0o700, 0o700, 0o600));
        assert_eq!(mode(&theirs), 0o664, "it lies in a folder that others cannot enter");
        assert_eq!((mode(&elsewhere), mode(&elsewhere.join("file"))), (0o755, 0o664));
    }
}
