//! A folder for a node of a test, which goes with the test.

use std::fs;
use std::io::ErrorKind;
use std::ops::Deref;
use std::time::Duration;

use tempfile::TempDir;

/// How often it is removed, and the pause between: far longer than a file takes that somebody is about to make.
const REMOVALS: usize = 50;
const PAUSE: Duration = Duration::from_millis(20);

/// A new temporary folder.
///
/// Most tests stop their node by dropping all that they have, so its threads work until the runtime ends, which is later. A removal
/// beside them meets files that were not there a moment ago, and `TempDir` leaves such a folder behind without a word: so
/// it is tried again. Without their folders the threads make no further files.
pub(crate) struct TestFolder(TempDir);

impl TestFolder {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }
}

impl Deref for TestFolder {
    type Target = TempDir;

    fn deref(&self) -> &TempDir {
        &self.0
    }
}

impl Drop for TestFolder {
    fn drop(&mut self) {
        for _ in 0..REMOVALS {
            match fs::remove_dir_all(self.0.path()) {
                Ok(()) => return,
                Err(error) if error.kind() == ErrorKind::NotFound && !self.0.path().exists() => return,
                Err(_) => std::thread::sleep(PAUSE),
            }
        }
    }
}
