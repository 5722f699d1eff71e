//! Folders that a node would do harm in: somebody else's, a backup, a log that lies in two places.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use vouch_broker::ShardId;

use super::differs::DIFFERS_FILE;
use super::holdings::Holdings;
use super::identity::{IDENTITY_FILE, UNFINISHED_FILE};
use super::private::OURS;
use super::removed::REMOVED_FILE;
use crate::error::{StartError, failed};
use crate::layout::ShardFolder;

/// In a backup, and in one that was cut short.
const BACKUP_FILES: [&str; 2] = ["backup.json", "backup.unfinished"];
/// Made by the system in every new file system.
const LOST_AND_FOUND: &str = "lost+found";
/// The keys of secrets, which an operator copies from another node.
const SECRET_KEYS: &str = "secrets.key";
/// In the name of the hidden folder that a restore fills.
const RESTORING: &str = "restoring-";

/// A segment that has another name as well lies in two logs, and no lock on folders keeps two nodes from writing to both:
/// what one of them acknowledges, the other overwrites.
pub(super) fn refuse_shared_segments(log: &Path) -> Result<(), StartError> {
    for entry in fs::read_dir(log).map_err(failed("read", log))? {
        let path = entry.map_err(failed("read", log))?.path();
        let is_segment = path.extension().is_some_and(|extension| extension == "log");
        // One that is gone meanwhile was a spare.
        if is_segment && fs::symlink_metadata(&path).is_ok_and(|segment| segment.is_file() && segment.nlink() > 1) {
            return Err(StartError::SharedSegment(path));
        }
    }
    Ok(())
}

/// Refuses a folder that is not a node's and holds what somebody else may want.
pub(super) fn refuse_others(dir: &Path) -> Result<(), StartError> {
    let names = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        names => names.map_err(failed("list", dir))?,
    };
    let names: Result<Vec<String>, io::Error> =
        names.map(|entry| entry.map(|entry| entry.file_name().to_string_lossy().into_owned())).collect();
    let mut names = names.map_err(failed("list", dir))?;
    names.sort();
    let has = |name: &str| names.iter().any(|found| found == name);
    if BACKUP_FILES.into_iter().any(has) {
        return Err(StartError::IsBackup(dir.to_owned()));
    }
    if has(REMOVED_FILE) && has(IDENTITY_FILE) {
        return Err(StartError::Removed(dir.to_owned()));
    }
    if has(DIFFERS_FILE) && has(IDENTITY_FILE) {
        return Err(StartError::Differs(dir.to_owned()));
    }
    if has(IDENTITY_FILE) || has(UNFINISHED_FILE) {
        return Ok(());
    }
    let Holdings { segments, others } = Holdings::of_folder(&ShardFolder::of(dir, ShardId::FIRST))?;
    if segments || others {
        // A log whose identity is missing: that is refused with other words.
        return Ok(());
    }
    if let Some(unfinished) = names.iter().find(|name| name.starts_with('.') && name.contains(RESTORING)) {
        return Err(StartError::UnfinishedRestore(dir.join(unfinished)));
    }
    let is_others = |name: &&String| {
        let tolerated = [LOST_AND_FOUND, SECRET_KEYS].contains(&name.as_str());
        !name.starts_with('.') && !tolerated && !OURS.contains(&name.as_str())
    };
    match names.iter().find(is_others) {
        Some(found) => Err(StartError::NotEmpty { path: dir.to_owned(), found: found.clone() }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_first_start_takes_an_empty_folder_and_none_that_holds_what_is_somebody_elses() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path();
        assert!(refuse_others(&dir.join("missing")).is_ok());
        // A volume of its own, a folder that git keeps, what an interrupted start left, keys that were copied before.
        for tolerated in ["lost+found", ".gitkeep", "lock", "endpoints.json", "secrets.key"] {
            fs::write(dir.join(tolerated), "").unwrap();
        }
        fs::create_dir_all(ShardFolder::of(dir, ShardId::FIRST).log()).unwrap();
        refuse_others(dir).unwrap();
        fs::write(dir.join("thesis.odt"), "").unwrap();
        let refused = refuse_others(dir).unwrap_err();
        assert!(matches!(&refused, StartError::NotEmpty { found, .. } if found == "thesis.odt"), "{refused}");
        for ours in [IDENTITY_FILE, UNFINISHED_FILE] {
            fs::write(dir.join(ours), "").unwrap();
            refuse_others(dir).unwrap();
            fs::remove_file(dir.join(ours)).unwrap();
        }
        fs::remove_file(dir.join("thesis.odt")).unwrap();
        fs::create_dir(dir.join(".restoring-7")).unwrap();
        assert!(matches!(refuse_others(dir), Err(StartError::UnfinishedRestore(_))));
        for file in BACKUP_FILES {
            fs::write(dir.join(file), "").unwrap();
            assert!(matches!(refuse_others(dir), Err(StartError::IsBackup(_))));
            fs::remove_file(dir.join(file)).unwrap();
        }
    }
}
