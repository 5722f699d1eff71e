//! How the files are called: of two kinds, each in two copies.

use std::path::Path;

/// Which of two kinds of file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum CopyKind {
    Snapshot,
    Part,
}

impl CopyKind {
    pub(super) const BOTH: [Self; 2] = [Self::Snapshot, Self::Part];

    /// Whether a file of this name is a copy of one.
    pub(super) fn is_of(self, name: Option<&Path>) -> bool {
        let extension = name.and_then(Path::extension);
        extension.is_some_and(|extension| Which::BOTH.into_iter().any(|which| extension == self.extension(which)))
    }

    /// What it is called, by its first copy.
    pub(super) fn name(self) -> &'static str {
        self.extension(Which::First)
    }

    /// What the name of a copy ends with. Folders of earlier versions have these names.
    pub(super) fn extension(self, which: Which) -> &'static str {
        match (self, which) {
            (Self::Snapshot, Which::First) => "snapshot",
            (Self::Snapshot, Which::Second) => "snapshot2",
            (Self::Part, Which::First) => "part",
            (Self::Part, Which::Second) => "part2",
        }
    }
}

/// Which of the two copies of a file. Neither is the original: each is as good as the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Which {
    /// There first, and removed last: before there is a second, nothing needs the file.
    First,
    Second,
}

impl Which {
    pub(crate) const BOTH: [Self; 2] = [Self::First, Self::Second];
    /// In this order they go: a first copy that is missing beside a second one is damage.
    pub(super) const GOING: [Self; 2] = [Self::Second, Self::First];

    pub(crate) fn other(self) -> Self {
        match self {
            Self::First => Self::Second,
            Self::Second => Self::First,
        }
    }
}
