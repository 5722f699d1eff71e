//! Notes on a simulated disk.

use std::sync::Arc;

use super::disk::SimDisk;
use crate::{NoteError, NoteFile};

/// Opens a note, as [`NoteFile::open`] does in a folder.
///
/// # Errors
/// [`NoteError`].
pub fn open_note(disk: &SimDisk, name: &str) -> Result<NoteFile, NoteError> {
    NoteFile::open_on(Arc::new(disk.clone()), name)
}

/// Reads a note, as [`NoteFile::read`] does in a folder.
///
/// # Errors
/// [`NoteError`].
pub fn read_note(disk: &SimDisk, name: &str) -> Result<Option<Vec<u8>>, NoteError> {
    NoteFile::read_on(disk, name)
}
