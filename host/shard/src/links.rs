//! What a shard's thread has to do with.

use std::sync::Arc;

use vouch_leader::Members;

use crate::inbox::Inbox;
use crate::peers::Peers;
use crate::signals::Signals;

/// What a shard hears, and to whom it speaks.
pub struct ShardLinks {
    /// Where requests and the reports of its log come in.
    pub inbox: Arc<Inbox>,
    /// Where others see what it is at.
    pub signals: Arc<Signals>,
    /// Who lives, of its consumers.
    pub members: Arc<dyn Members>,
    /// The other members of its group.
    pub peers: Arc<dyn Peers>,
}
