//! Which lease of a message.

/// The number of a lease, and of each change of one: higher than any before in the log, so that an old handle is known by it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct Generation(pub u64);

impl Generation {
    /// Of no lease: what a message has while it is left for another member, so that no handle fits.
    pub const NONE: Self = Self(0);
}

impl std::fmt::Display for Generation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}
