//! What names a call about a transaction.

use vouch_leader::checks::Due;

/// Its transaction and the check that it is: asked again it publishes under the same ids.
pub(super) fn call_name(due: &Due) -> String {
    format!("{}/{}/{}", due.id, due.number, due.after.0)
}
