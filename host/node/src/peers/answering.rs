//! What other nodes ask of this one.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::Instant;
use vouch_broker::record::{NodeJoined, NodeMoved};
use vouch_broker::state::Applied;
use vouch_broker::{NotDone, Refusal, State};
use vouch_cluster::{NodeAddresses, NodeId, NodeRefused};
use vouch_consensus::Role;
use vouch_leader::Leader;
use vouch_shard::{GroupStanding, Shard, WhoBelongs};
use vouch_storage::Requests;
use vouch_transport::{CallFailed, PeerIdentity, Serve};

use super::calls::{HadAt, NodeAnswer, NodeAsk, NodeRequest};
use super::clients::{ClientAnswer, ClientCalls};
use super::nodes::PeerNodes;
use super::programs::{NodeVersion, Programs};
use super::sparing::Spared;
use super::token::ClusterToken;
use super::told::{Hearsay, ToldNodes, addresses_in};

/// Answers the calls of other nodes: where this one does not lead it asks the one that does, once.
#[derive(Clone)]
pub(super) struct NodeCalls {
    pub(super) shard: Arc<Shard>,
    pub(super) nodes: Arc<PeerNodes>,
    pub(super) belongs: watch::Receiver<WhoBelongs>,
    pub(super) hearsay: Arc<Hearsay>,
    pub(super) clients: Arc<ClientCalls>,
    pub(super) programs: Arc<Programs>,
    pub(super) spared: Arc<Spared>,
    /// Knows what is here at the positions that the log names.
    pub(super) snapshots: Arc<Requests>,
}

impl Serve for NodeCalls {
    async fn serve(&self, from: PeerIdentity, request: Bytes, deadline: Instant) -> Bytes {
        let answer = match NodeRequest::decode(request) {
            // Its answer is long, and comes as it is sent.
            Ok(NodeRequest { ask: NodeAsk::Client(call), .. }) => {
                match self.do_for_client(NodeId(from.node), call, deadline).await {
                    ClientAnswer::Answered(bytes) => return bytes,
                    ClientAnswer::NothingStored(why) => NodeAnswer::NothingStored(why),
                }
            }
            Ok(request) => {
                self.note_program(from, &request);
                self.answer(NodeId(from.node), request, deadline).await
            }
            Err(why) => NodeAnswer::Refused(format!("node {} asks, and {why}", from.node)),
        };
        answer.encode()
    }
}

/// The three answers of a write, as they are told.
fn not_done(why: NotDone) -> NodeAnswer {
    match why {
        NotDone::Refused(why) => NodeAnswer::Refused(why.to_string()),
        NotDone::NothingStored(why) => NodeAnswer::NothingStored(why.to_string()),
        NotDone::Unknown(why) => NodeAnswer::Unknown(why),
    }
}

impl NodeCalls {
    /// Remembers what another node says that it runs, if there is such a node.
    fn note_program(&self, from: PeerIdentity, request: &NodeRequest) {
        let NodeAsk::Runs { node, program } = &request.ask else { return };
        let itself = node.0 == from.node;
        let believed = itself || request.forwarded && self.is_believed(NodeId(from.node));
        if believed && self.belongs.borrow().nodes.nodes.contains_key(node) {
            self.programs.runs(*node, itself.then_some(from.incarnation), program.clone());
        }
    }

    async fn answer(&self, from: NodeId, request: NodeRequest, deadline: Instant) -> NodeAnswer {
        let standing = match self.shard.group().await {
            Ok(standing) => standing,
            Err(why) => return not_done(why),
        };
        if let NodeAsk::Join { node, .. }
        | NodeAsk::Moved { node, .. }
        | NodeAsk::Runs { node, .. }
        | NodeAsk::MaySpare { node } = &request.ask
            && *node != from
            && !(request.forwarded && self.is_believed(from))
        {
            return NodeAnswer::Refused(format!("node {from} asks for node {node}; each node asks for itself"));
        }
        match (&request.ask, standing.role) {
            (NodeAsk::WhoLeads { address }, _) => {
                if self.is_believed(from) {
                    self.hearsay.is_at(from, address, &self.belongs.borrow());
                }
                NodeAnswer::Done(self.told(&standing))
            }
            (NodeAsk::Hear(_) | NodeAsk::Had(_), _) if !self.is_believed(from) => {
                NodeAnswer::Refused(format!("node {from} does not belong to the cluster yet"))
            }
            (NodeAsk::Hear(told), _) => {
                self.hearsay.hear(told.clone(), standing.committed);
                NodeAnswer::Done(self.told(&standing))
            }
            (NodeAsk::Had(had), _) => self.had(had),
            // Who is in doubt gives nothing to anybody, and what the other one had may be what decides.
            (NodeAsk::MaySpare { .. }, Role::Leads { .. }) if self.snapshots.comparison().doubt().is_some() => {
                NodeAnswer::NothingStored("it is in doubt whether all nodes know the same".to_owned())
            }
            (NodeAsk::MaySpare { node }, Role::Leads { .. }) => {
                match self.spared.let_go(&standing, *node, std::time::Instant::now()) {
                    Ok(()) => NodeAnswer::Done(self.told(&standing)),
                    Err(why) => NodeAnswer::NothingStored(why),
                }
            }
            (_, Role::Leads { .. }) => self.lead(request.ask).await,
            (_, Role::Follows { leader: Some(leader) }) if !request.forwarded => {
                self.ask_leader(leader, request, deadline).await
            }
            (_, Role::Follows { .. }) => NodeAnswer::NothingStored(format!(
                "node {} does not lead, and knows of nobody else who does; ask again in a moment",
                self.nodes.me
            )),
        }
    }

    /// Says what is here where another node had something else. That may be this node's fault as well as the other's: so it finds out
    /// for itself, too.
    ///
    /// # To ensure correctness
    /// A node that is closed says nothing: whoever counts on what it had would take itself for outvoted by one that decides nothing any
    /// more, and a group could close to its last majority.
    fn had(&self, other: &HadAt) -> NodeAnswer {
        if let Some(why) = self.shard.signals().closed() {
            return NodeAnswer::NothingStored(why.to_string());
        }
        if !other.is_comparable() {
            return NodeAnswer::Refused(format!(
                "node {} runs another version, which may write the same in other bytes",
                self.nodes.me
            ));
        }
        self.snapshots.comparison().told([other.sealed]);
        NodeAnswer::Had(self.snapshots.comparison().had(other.sealed.position))
    }

    /// Whether what it tells of others is believed: it is one of the cluster, as far as this node can know.
    fn is_believed(&self, from: NodeId) -> bool {
        let belongs = self.belongs.borrow();
        let nodes = &belongs.nodes;
        self.nodes.me > nodes.last
            || self.hearsay.knows(from)
            || nodes.nodes.get(&from).is_some_and(|known| known.invitation.is_none())
    }

    /// Does what a client of another node asks for, if that is one of the cluster.
    async fn do_for_client(&self, from: NodeId, call: Bytes, deadline: Instant) -> ClientAnswer {
        if !self.is_believed(from) {
            return ClientAnswer::NothingStored(format!("node {from} does not belong to the cluster yet"));
        }
        self.clients.serve(from, call, deadline.into()).await
    }

    async fn ask_leader(&self, leader: NodeId, request: NodeRequest, deadline: Instant) -> NodeAnswer {
        let forwarded = NodeRequest { forwarded: true, ..request };
        match self.nodes.ask(leader, &forwarded, deadline).await {
            Ok(answer) => answer,
            Err(CallFailed::NotSent(why) | CallFailed::NoRoom(why)) => {
                NodeAnswer::NothingStored(format!("node {leader} leads and was not asked: {why}"))
            }
            Err(CallFailed::Unknown(why)) => NodeAnswer::Unknown(format!("node {leader} leads and was asked: {why}")),
        }
    }

    async fn lead(&self, ask: NodeAsk) -> NodeAnswer {
        let done = match ask {
            NodeAsk::Join { node, secret, addresses } => match self.reads_the_log(node) {
                Ok(()) => self.join(node, &secret, addresses).await,
                Err(answer) => return answer,
            },
            NodeAsk::Moved { node, addresses } => {
                let unknown = || NotDone::Refused(Refusal::NotFound(NodeRefused::Unknown(node).to_string()));
                let has_joined = move |state: &State, _: &Leader| {
                    state.nodes().nodes.get(&node).is_some_and(|known| known.invitation.is_none())
                };
                let moved = NodeMoved { node, addresses };
                let answer = self.shard.propose_one_if(has_joined, |out| moved.encode(out)).await;
                answer.and_then(|done| done.ok_or_else(unknown))
            }
            NodeAsk::WhoLeads { .. }
            | NodeAsk::Hear(_)
            | NodeAsk::Had(_)
            | NodeAsk::Client(_)
            | NodeAsk::Runs { .. }
            | NodeAsk::MaySpare { .. } => Ok(Applied::Done),
        };
        match done {
            Ok(_) => match self.shard.group().await {
                Ok(standing) => NodeAnswer::Done(self.told(&standing)),
                // What was asked is done, and not what it led to.
                Err(why) => NodeAnswer::Unknown(why.to_string()),
            },
            Err(why) => not_done(why),
        }
    }

    async fn join(&self, node: NodeId, secret: &[u8], addresses: NodeAddresses) -> Result<Applied, NotDone> {
        let token = ClusterToken::digest(secret);
        let joined = NodeJoined { node, token, addresses: addresses.clone() };
        // Whoever holds no token of the cluster does not make it write.
        let is_invited = move |state: &State, _: &Leader| {
            let known = state.nodes().nodes.get(&node).and_then(|known| known.invitation.as_ref());
            known.is_some_and(|invited| invited.token == token)
        };
        let answer = self.shard.propose_one_if(is_invited, |out| joined.encode(out)).await;
        let not_invited = || NotDone::Refused(Refusal::Conflict(NodeRefused::Token(node).to_string()));
        match answer.and_then(|done| done.ok_or_else(not_invited)) {
            Err(NotDone::Refused(why)) => {
                if self.joins_again(node, &addresses).await? {
                    Ok(Applied::Done)
                } else {
                    Err(why.into())
                }
            }
            other => other,
        }
    }

    /// A node that is to come must know what the log may say; what it hears if that is not so.
    fn reads_the_log(&self, node: NodeId) -> Result<(), NodeAnswer> {
        let level = self.belongs.borrow().feature_level;
        match self.programs.last_of(node) {
            _ if level <= 1 => Ok(()),
            // It may have said so to a node that leads no more.
            None => Err(NodeAnswer::NothingStored(format!(
                "node {node} did not say which version it runs: if it asks on, start a newer one there, since the cluster is at feature \
                 level {level}"
            ))),
            Some(program) if program.feature_level >= level => Ok(()),
            Some(NodeVersion { version, feature_level }) => Err(NodeAnswer::Refused(format!(
                "node {node} runs Vouch {version}, which knows feature level {feature_level}, and the cluster is at level {level}: start a \
                 newer version there"
            ))),
        }
    }

    /// Whether a node that was let in asks once more, since it heard no answer: the same node, in the same place, by its own
    /// connection or through a node that saw that.
    ///
    /// # To ensure correctness
    /// A folder that was wiped must not come back as the node it was (ruling 31): what that acknowledged counts. So it must not
    /// have acknowledged anything yet, as its leader knows, and must never have voted: a leader of a later term may not know,
    /// but it knows who votes.
    async fn joins_again(&self, node: NodeId, addresses: &NodeAddresses) -> Result<bool, NotDone> {
        let standing = self.shard.group().await?;
        let has_acknowledged = standing.followers.iter().any(|other| other.node == node && other.durable > 0);
        let voted = standing.members.votes(node);
        let leads = matches!(standing.role, Role::Leads { .. });
        let belongs = self.belongs.borrow();
        let same = belongs.nodes.nodes.get(&node).is_some_and(|known| {
            known.invitation.is_none() && !known.is_leaving && known.addresses.as_ref() == Some(addresses)
        });
        Ok(leads && same && !voted && !has_acknowledged)
    }

    fn told(&self, standing: &GroupStanding) -> ToldNodes {
        told_by(standing, &self.belongs.borrow())
    }
}

/// The nodes as this one knows them.
pub(super) fn told_by(standing: &GroupStanding, belongs: &WhoBelongs) -> ToldNodes {
    let leader = match standing.role {
        Role::Leads { .. } => Some(standing.node),
        Role::Follows { leader } => leader,
    };
    ToldNodes { as_of: standing.committed, leader, nodes: addresses_in(belongs) }
}

#[cfg(test)]
#[path = "answering_tests.rs"]
mod tests;
