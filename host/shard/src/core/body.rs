//! What entries of another leader hold while they are on their way.

use vouch_commitlog::EntrySpan;
use vouch_consensus::Carried;

/// An entry as it lies in its leader's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Body(pub EntrySpan);

impl Carried for Body {
    fn end(&self) -> u64 {
        self.0.end().0
    }
}
