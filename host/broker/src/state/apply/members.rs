//! The nodes of the cluster: who comes and goes, and who votes.

use vouch_cluster::{NodeInvitation, NodeRefused};

use super::{Applied, Apply, Effect, Outcome, RecordAt};
use crate::Refusal;
use crate::record::{MembersChanged, NodeInvited, NodeJoined, NodeLeaves, NodeMoved};
use crate::state::State;
use crate::state::members::ClusterMembers;

fn refused(why: NodeRefused) -> Refusal {
    let text = why.to_string();
    match why {
        NodeRefused::Unknown(_) => Refusal::NotFound(text),
        NodeRefused::TooMany => Refusal::TooMany(text),
        NodeRefused::Address(_) => Refusal::Invalid(text),
        NodeRefused::Token(_)
        | NodeRefused::Last(_)
        | NodeRefused::NotCome(_)
        | NodeRefused::Leaves(_)
        | NodeRefused::Replaced { .. }
        | NodeRefused::Replaces { .. } => Refusal::Conflict(text),
    }
}

/// All replicas come to the same members; where a step does not fit those that there are, they stay.
impl Apply for MembersChanged {
    fn apply(&self, state: &mut State, _: RecordAt, effects: &mut Vec<Effect>) -> Outcome {
        let next = state.members().after(&self.change).map_err(|why| Refusal::Conflict(why.to_string()))?;
        state.members.nodes.members_are(&next);
        state.members.group = next;
        effects.push(Effect::Members);
        Ok(Applied::Done)
    }
}

impl Apply for NodeInvited {
    fn apply(&self, state: &mut State, at: RecordAt, effects: &mut Vec<Effect>) -> Outcome {
        let Self { token, until, votes_at_once, replaces } = self;
        let invitation = NodeInvitation { token: *token, until_ms: until.0 };
        let (nodes, now_ms) = (&mut state.members.nodes, at.time.0);
        let node = match replaces {
            Some(replaced) => nodes.replace(replaced.node, invitation, *votes_at_once, now_ms),
            None => nodes.invite(invitation, *votes_at_once, now_ms),
        };
        let node = node.map_err(refused)?;
        effects.push(Effect::Nodes);
        Ok(Applied::Invited { node })
    }
}

/// Its token is good for this once: a secret that was seen on its way lets nobody else in.
impl Apply for NodeJoined {
    fn apply(&self, state: &mut State, at: RecordAt, effects: &mut Vec<Effect>) -> Outcome {
        let Self { node, token, addresses } = self;
        state.members.nodes.join(*node, *token, addresses.clone(), at.time.0).map_err(refused)?;
        effects.push(Effect::Nodes);
        Ok(Applied::Done)
    }
}

impl Apply for NodeMoved {
    fn apply(&self, state: &mut State, _: RecordAt, effects: &mut Vec<Effect>) -> Outcome {
        if state.members.nodes.moved(self.node, self.addresses.clone()).map_err(refused)? {
            effects.push(Effect::Nodes);
        }
        Ok(Applied::Done)
    }
}

/// It goes when it is no member any more, which its leader sees to.
impl Apply for NodeLeaves {
    fn apply(&self, state: &mut State, _: RecordAt, effects: &mut Vec<Effect>) -> Outcome {
        let voters = state.members.group.voters.clone();
        state.members.nodes.leaves(self.node, &voters).map_err(refused)?;
        let ClusterMembers { group, nodes } = &mut state.members;
        nodes.members_are(group);
        effects.push(Effect::Nodes);
        Ok(Applied::Done)
    }
}
