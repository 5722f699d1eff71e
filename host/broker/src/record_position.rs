//! Where a record lies.

/// Where in its shard's log a record begins, in bytes from the log's beginning. It stays the record's for ever. Of a stretch
/// of the log it is a bound: the records in it begin from there on, or before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct RecordPosition(pub u64);

impl RecordPosition {
    /// At which, or before which, no record begins.
    pub const START: Self = Self(0);
    /// Beyond the end of every log.
    pub const BEYOND: Self = Self(u64::MAX);

    /// So many bytes behind it.
    #[must_use]
    pub fn plus(self, bytes: u64) -> Self {
        Self(self.0 + bytes)
    }
}

impl std::fmt::Display for RecordPosition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}
