//! `differs`: the folder's node was found to know something else than a majority of its cluster's voters. What it would answer, or give a node that
//! lacks something, is not what they know; and the next start would know nothing of that.

use std::io::{self, Write};
use std::path::Path;

use vouch_files::appear_durably;

/// Whose presence refuses every start, and gives the log to nobody.
pub(super) const DIFFERS_FILE: &str = "differs";

/// Notes in a data folder that its node knows something else than the others, and what: no start takes the folder as long as the file
/// is there. Blocks until that is on the disk.
///
/// # Errors
/// What the system says: the node would start again, and be found out again later.
pub fn note_differs(data_dir: &Path, what: &str) -> io::Result<()> {
    let unfinished = data_dir.join(format!("{DIFFERS_FILE}.new"));
    appear_durably(&data_dir.join(DIFFERS_FILE), &unfinished, |file| writeln!(file, "{what}"))
}

/// Whether that was noted of this folder.
#[must_use]
pub fn differs(data_dir: &Path) -> bool {
    data_dir.join(DIFFERS_FILE).exists()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::StartError;
    use crate::folder::identity::IDENTITY_FILE;
    use crate::folder::refusals::refuse_others;

    #[test]
    fn a_folder_whose_node_knew_something_else_is_refused_until_somebody_takes_the_note_away() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path();
        std::fs::write(dir.join(IDENTITY_FILE), "{}").unwrap();
        refuse_others(dir).unwrap();
        assert!(!differs(dir));
        for _ in 0..2 {
            note_differs(dir, "at position 7 the index of messages is not what nodes 2, 3 had there").unwrap();
            assert!(differs(dir));
            let refused = refuse_others(dir).unwrap_err();
            assert!(matches!(&refused, StartError::Differs(path) if path == dir), "{refused}");
            assert!(refused.to_string().contains("vouch cluster replace"), "{refused}");
            assert!(refused.to_string().contains("keep this one until the new node votes"), "{refused}");
        }
        std::fs::remove_file(dir.join(DIFFERS_FILE)).unwrap();
        refuse_others(dir).unwrap();
    }
}
