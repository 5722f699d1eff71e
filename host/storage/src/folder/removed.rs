//! `removed`: the folder's node was removed from its cluster. It would serve clients with what it knew then, and could not know
//! better: its id is used once, and the others let it in no more.

use std::io::{self, Write};
use std::path::Path;

use vouch_files::appear_durably;

use super::identity::IDENTITY_FILE;

/// Whose presence refuses every start.
pub(super) const REMOVED_FILE: &str = "removed";

const TEXT: &str = "The node whose folder this is was removed from its cluster, and does not start again.\n\
    To be a node of that cluster again, begin with an empty folder and a new token (vouch cluster add).\n\
    Everything that was acknowledged is on the other nodes.\n";

/// Notes in a data folder that its node was removed from the cluster: no start takes the folder from now on. Blocks until that is
/// on the disk. A folder that has had no log yet is left as it is: it may still join, with another token.
///
/// # Errors
/// What the system says: the node would start again, and would hear again that it was removed.
pub fn note_removed(data_dir: &Path) -> io::Result<()> {
    if !data_dir.join(IDENTITY_FILE).try_exists()? {
        return Ok(());
    }
    let unfinished = data_dir.join(format!("{REMOVED_FILE}.new"));
    appear_durably(&data_dir.join(REMOVED_FILE), &unfinished, |file| file.write_all(TEXT.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::StartError;
    use crate::folder::refusals::refuse_others;

    #[test]
    fn a_folder_whose_node_was_removed_is_refused_and_one_that_never_began_may_still_join() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path();
        note_removed(dir).unwrap();
        refuse_others(dir).unwrap();
        std::fs::write(dir.join(IDENTITY_FILE), "{}").unwrap();
        for _ in 0..2 {
            note_removed(dir).unwrap();
            let refused = refuse_others(dir).unwrap_err();
            assert!(matches!(&refused, StartError::Removed(path) if path == dir), "{refused}");
            assert!(refused.to_string().contains("vouch cluster add"), "{refused}");
        }
    }
}
