//! Which life of a cluster it is.

use std::fmt;

/// Names one life of a cluster. A restore from a backup begins another one, and so does what is left after the loss of a majority
/// (ruling 31): drawn at random, so that two restores of one backup are two lives, and nodes of one are strangers to those of the
/// other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterIncarnation(pub u32);

impl ClusterIncarnation {
    /// That with which each cluster begins. It is written nowhere: whatever says nothing of a life means this one.
    pub const FIRST: Self = Self(0);

    /// Whether the cluster was never begun anew.
    pub fn is_first(&self) -> bool {
        *self == Self::FIRST
    }
}

impl fmt::Display for ClusterIncarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08X}", self.0)
    }
}
