//! Which transaction of a shard.

use crate::RecordPosition;

/// Where the record of a half message was first written. It names the transaction within its shard, also after the half was
/// carried to another place of the log; with the shard it is a [`crate::TransactionId`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct HalfPosition(pub u64);

impl HalfPosition {
    /// Of the half whose record was first written there.
    pub fn of(record: RecordPosition) -> Self {
        Self(record.0)
    }

    /// Where its record was first written. By now it may lie elsewhere.
    pub fn first_place(self) -> RecordPosition {
        RecordPosition(self.0)
    }
}

impl std::fmt::Display for HalfPosition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}
