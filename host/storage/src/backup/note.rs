//! A note in the data folder of when it was backed up last, for the node's metrics. Nothing depends on it: a backup that
//! cannot leave one, from a folder that it may only read, is as good.

use std::fs;
use std::io::Write;
use std::path::Path;

use serde::{Deserialize, Serialize};
use vouch_files::appear;

/// Name of the file.
pub(crate) const FILE: &str = "last-backup.json";
const WRITTEN: &str = "last-backup.json.new";

#[derive(Deserialize, Serialize)]
struct Note {
    made_at_ms: u64,
}

/// Leaves a note.
pub(super) fn leave(data_dir: &Path, made_at_ms: u64) {
    let write = || {
        let (new, file) = (data_dir.join(WRITTEN), data_dir.join(FILE));
        let note = serde_json::to_vec(&Note { made_at_ms })?;
        appear(&file, &new, |file| file.write_all(&note))
    };
    if let Err(error) = write() {
        tracing::warn!(
            %error, data_dir = %data_dir.display(),
            "the backup is made; that could not be noted in the data folder, so the node's metrics do not show it"
        );
    }
}

/// When the folder was backed up last, milliseconds since 1970; `None` if it never was, as far as it says.
pub fn read(data_dir: &Path) -> Option<u64> {
    let note = fs::read(data_dir.join(FILE)).ok()?;
    serde_json::from_slice::<Note>(&note).ok().map(|note| note.made_at_ms)
}
