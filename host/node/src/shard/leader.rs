//! What only the replica that leads keeps. It is made when one begins to lead and dropped when that ends: nothing that was
//! promised depends on it.

use vouch_broker::GroupId;

use crate::checks::Schedule;
use crate::metrics::Series;

/// Messages that went to the dead letters of each group.
pub(crate) type DeadLetters = Series<GroupId, u64>;

/// What the leader knows beside the state.
#[derive(Default)]
pub(crate) struct Leader {
    /// Which open transactions to ask about, and what came of it.
    pub(crate) schedule: Schedule,
    /// Messages that became dead letters, by group, since it leads.
    pub(crate) dead_letters: DeadLetters,
}
