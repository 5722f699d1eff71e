//! What names a call about a transaction.

use vouch_leader::checks::Due;

use crate::served_shard::transaction_id;

/// Its transaction and the check that it is: asked again it publishes under the same ids.
pub(super) fn call_name(due: &Due) -> String {
    format!("{}/{}/{}", transaction_id(due.transaction), due.number, due.after.0)
}
