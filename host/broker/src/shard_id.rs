//! Which of the cluster's logs.

/// A shard: one log with the state that it says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct ShardId(pub u16);

impl ShardId {
    /// The first one, which holds the cluster's settings; as yet the only one.
    pub const FIRST: Self = Self(0);
}

impl std::fmt::Display for ShardId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}
