//! A receive whose messages never came to the node that asked for them, as that node tells whoever leads.

use serde::{Deserialize, Serialize};
use vouch_broker::{Generation, ResourceName};

/// What a receive got never arrived.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LostReceive {
    /// Names the receive at who served it.
    pub(super) ticket: u64,
    pub(super) client_id: String,
    pub(super) group: ResourceName,
    pub(super) topic: ResourceName,
    /// How long ago it was asked.
    pub(super) asked_ms_ago: u64,
    /// What did come to consumers of the same node of late: it may not have told that yet.
    #[serde(default)]
    pub(super) came: Vec<Generation>,
}
