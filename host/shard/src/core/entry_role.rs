//! From what the log calls an entry to what its group does.

use vouch_commitlog::EntryKind;
use vouch_consensus::EntryRole;

/// What an entry of this kind is to a group.
pub fn role_of(kind: EntryKind) -> EntryRole {
    match kind {
        EntryKind::Members => EntryRole::Members,
        EntryKind::Records | EntryKind::Mark => EntryRole::Ordinary,
    }
}
