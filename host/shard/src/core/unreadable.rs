//! Entries of a leader's log that cannot be read, and that another member lacks.
//!
//! # To ensure correctness
//!
//! - What cannot be read is not sent, and nothing is sent in its place.
//! - As long as this replica leads, the other member gets these entries from nobody; so one that has all that is committed leads
//!   instead, if there is one. Where there is none, this one serves all others on: what it cannot read was committed without that member.
//! - What is not committed yet nobody else may have, and while it is not sent nothing is committed: this replica takes part in nothing
//!   any more, and whoever leads next goes on without it.

use std::time::Duration;

use vouch_cluster::GroupMembers;
use vouch_commitlog::LogPosition;
use vouch_consensus::{FollowerProgress, NodeId, Replica, Role};
use vouch_leader::Outside;

use super::{Core, LeaderEntry};

/// The same again is told, and another one asked to lead, after this long: a group needs a second or two for that.
const AGAIN_AFTER: Duration = Duration::from_secs(10);

impl Core {
    /// This member lacks the entry that ends at this position, which cannot be read.
    pub(super) fn cannot_send(&mut self, to: NodeId, end: LogPosition, why: &str, outside: &dyn Outside) {
        let leads = |replica: &&Replica<LeaderEntry>| matches!(replica.role(), Role::Leads { .. });
        let Some(replica) = self.replica.as_ref().filter(leads).filter(|_| self.closed.is_none()) else { return };
        if replica.position_behind(replica.commit()).is_none_or(|committed| end.0 > committed) {
            return self.poison(format!("entries of the log cannot be read, to be sent: {why}"));
        }
        if self.could_not_send.is_some_and(|told| self.now.at < told + AGAIN_AFTER) {
            return;
        }
        self.could_not_send = Some(self.now.at);
        let Some(successor) = who_has_all(replica, self.state.members(), to) else {
            return tracing::error!(
                node = %to,
                why,
                "the log of this node is damaged: node {to} lacks entries that cannot be read here, and no other node that is there has \
                 them all, to lead instead; it gets no further until one is, or until this log is restored (see damage.md)"
            );
        };
        tracing::error!(
            node = %to,
            why,
            "the log of this node is damaged: node {to} lacks entries that cannot be read here; node {successor} has them, and is to lead"
        );
        self.replica.iter_mut().for_each(|replica| replica.hand_over(successor));
        self.decide(outside);
    }
}

/// Of the others that vote, one that is there and has all that is committed; of several the one that has most.
fn who_has_all(replica: &Replica<LeaderEntry>, members: &GroupMembers, but: NodeId) -> Option<NodeId> {
    let may = |other: &FollowerProgress| {
        other.node != but && other.is_heard && other.durable >= replica.commit() && members.votes(other.node)
    };
    replica.followers().into_iter().filter(may).max_by_key(|other| other.durable).map(|other| other.node)
}
