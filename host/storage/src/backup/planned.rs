//! One file that belongs into a backup.

use std::path::PathBuf;

use super::copy::Extent;

/// What a file is, which says what it means if it is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileKind {
    /// Never changes and never goes.
    Fixed,
    /// May be tidied away; what was opened before stays readable.
    Snapshot,
    /// May be released and used again for other bytes.
    Segment,
    /// The log holds it, too: where it is gone or damaged, a node makes it again.
    Component,
}

/// A file, and how much of it counts.
pub(crate) struct Planned {
    pub(crate) kind: FileKind,
    /// Below the folder, in the backup.
    pub(crate) path: String,
    /// What it is copied from.
    pub(crate) from: PathBuf,
    pub(crate) extent: Extent,
}
