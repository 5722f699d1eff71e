//! What names a message to a group, however often it is delivered.

use std::fmt::Write as _;

use sha2::{Digest as _, Sha256};
use vouch_broker::{GroupId, RecordPosition};

/// The key of every delivery of the message that was first written at this position to this life of a group: 32 hexadecimal
/// digits. It stays the same where the message is carried on, becomes a dead letter and comes back, or is restored.
pub(crate) fn delivery_key(cluster_id: [u8; 16], group: GroupId, first: RecordPosition) -> String {
    let hash =
        Sha256::new().chain_update(cluster_id).chain_update(group.0.to_le_bytes()).chain_update(first.0.to_le_bytes());
    hash.finalize()[..16].iter().fold(String::new(), |mut key, byte| {
        // Writing to text never fails.
        let _ = write!(key, "{byte:02x}");
        key
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_message_has_one_key_for_each_group_of_each_cluster() {
        let key = |cluster, group, first| delivery_key([cluster; 16], GroupId(group), RecordPosition(first));
        assert_eq!(key(1, 2, 3), key(1, 2, 3));
        let keys = [key(1, 2, 3), key(2, 2, 3), key(1, 3, 3), key(1, 2, 4)];
        assert!(keys.iter().all(|each| each.len() == 32));
        assert_eq!(keys.iter().collect::<std::collections::BTreeSet<_>>().len(), keys.len());
    }
}
