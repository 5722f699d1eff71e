//! The binding that an ask went to, and whether it is still the same when it answers.

use vouch_broker::State;
use vouch_leader::Leader;
use vouch_leader::checks::Due;

use super::Asker;

/// A binding as it was set when its component was asked. What it says decides only while nobody deletes it or sets it anew.
#[derive(Clone)]
pub(super) struct Bound {
    pub(super) name: String,
    /// Log position of the record that set it.
    pub(super) revision: u64,
}

impl Bound {
    /// Whether it decides what is proposed now.
    pub(super) fn stays(&self, state: &State, leader: &Leader) -> bool {
        leader.is_bound(state, &self.name, self.revision)
    }

    /// Whether it is another one by now. Then what it answered is dropped, which is said, and nothing is counted: whoever is
    /// bound now is asked.
    pub(super) async fn is_superseded(&self, asker: &Asker, due: &Due, answered: &str) -> bool {
        let (this, again, now) = (self.clone(), due.clone(), asker.clock.now());
        let stays = asker.shard.lead(move |state, leader| {
            let stays = this.stays(state, leader);
            if !stays {
                leader.schedule.ask_again(&again, now);
            }
            stays
        });
        // A node that stops drops nothing.
        let superseded = stays.await == Ok(false);
        if superseded {
            let binding = &self.name;
            tracing::info!(
                binding,
                answered,
                "the binding was deleted or set anew while it was asked; its answer is dropped, and nothing is counted"
            );
        }
        superseded
    }
}
