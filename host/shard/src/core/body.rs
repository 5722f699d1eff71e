//! What entries of another leader hold while they are on their way.

use vouch_commitlog::EntrySpan;
use vouch_consensus::EndsAt;

/// An entry as it lies in its leader's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaderEntry(pub EntrySpan);

impl EndsAt for LeaderEntry {
    fn end(&self) -> u64 {
        self.0.end().0
    }
}
