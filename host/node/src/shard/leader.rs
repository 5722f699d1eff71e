//! What only the replica that leads keeps. It is made when one begins to lead and dropped when that ends: nothing that was
//! promised depends on it.

use super::news::DeadLetters;
use crate::checks::Schedule;

/// What the leader knows beside the state.
#[derive(Default)]
pub(crate) struct Leader {
    /// Which open transactions to ask about, and what came of it.
    pub(crate) schedule: Schedule,
    /// Messages that became dead letters, by group, since it leads.
    pub(crate) dead_letters: DeadLetters,
}
