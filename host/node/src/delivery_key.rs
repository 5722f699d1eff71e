//! What names a message to a group, however often it is delivered.

use std::fmt::Write as _;

use sha2::{Digest as _, Sha256};
use vouch_broker::{GroupId, RecordPosition};
use vouch_cluster::ClusterIncarnation;

/// The key of every delivery of the message that was first written at this position to this life of a group: 32 hexadecimal
/// digits. It stays the same where the message is carried on, becomes a dead letter and comes back, or is restored.
/// `incarnation`: the life of the cluster in which it was written there; the log of another life may have another message there.
pub(crate) fn delivery_key(
    cluster_id: [u8; 16],
    incarnation: ClusterIncarnation,
    group: GroupId,
    first: RecordPosition,
) -> String {
    let mut hash =
        Sha256::new().chain_update(cluster_id).chain_update(group.0.to_le_bytes()).chain_update(first.0.to_le_bytes());
    // Keys of the first life are as they ever were: services remember them.
    if !incarnation.is_first() {
        hash.update(incarnation.0.to_le_bytes());
    }
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
    fn each_message_has_one_key_for_each_group_of_each_life_of_each_cluster() {
        let key = |cluster, life, group, first| {
            delivery_key([cluster; 16], ClusterIncarnation(life), GroupId(group), RecordPosition(first))
        };
        assert_eq!(key(1, 0, 2, 3), key(1, 0, 2, 3));
        let keys =
            [key(1, 0, 2, 3), key(2, 0, 2, 3), key(1, 0, 3, 3), key(1, 0, 2, 4), key(1, 7, 2, 3), key(1, 8, 2, 3)];
        assert!(keys.iter().all(|each| each.len() == 32));
        assert_eq!(keys.iter().collect::<std::collections::BTreeSet<_>>().len(), keys.len());
    }
}
