//! How each node of a cluster is, as one of them knows: what it does not know is left out.

use serde::Serialize;
use vouch_cluster::{ClusterNode, ClusterNodes, GroupMembers, NodeAddresses, NodeId};
use vouch_commitlog::LogPosition;
use vouch_consensus::Role;
use vouch_shard::GroupStanding;
use vouch_transport::LinkState;

use super::ClusterView;
use crate::peers::NodeVersion;

/// What a node is to its cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum NodeRole {
    /// It decides the order of all that is written.
    Leader,
    /// It has the log and votes.
    Follower,
    /// It gets the log and does not vote.
    Learner,
    /// It has a token, and has not come yet.
    Invited,
    /// It belongs to the cluster until the others do not count on it any more.
    Leaving,
    /// It serves a damaged log, and belongs to nobody as long as it does.
    ReadOnly,
}

/// One node, as another one knows it, or it itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NodeStanding {
    /// Its id.
    pub id: u64,
    /// What it is.
    pub role: NodeRole,
    /// Where other nodes reach it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
    /// Where clients do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grpc: Option<String>,
    /// Version of Vouch that it runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The newest feature level that it knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub feature_level: Option<u32>,
    /// Log position after its last entry.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub appended: Option<u64>,
    /// Everything before this log position is on its disk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub durable: Option<u64>,
    /// It knows that everything before this log position is on the disks of a majority.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub committed: Option<u64>,
    /// Everything before this log position is applied there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub applied: Option<u64>,
    /// By how much its durable log is shorter than that of the one that leads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lag_bytes: Option<u64>,
    /// Whether this node has a connection to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connected: Option<bool>,
    /// Why it has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unreachable: Option<String>,
    /// Whether it answered the one that leads within the last election time-out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heard: Option<bool>,
    /// Whose place it takes when it has the log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replaces: Option<u64>,
    /// Until when its token is good, in milliseconds of the log's time.
    #[serde(skip)]
    pub invited_until_ms: Option<u64>,
}

/// How far a node's own log is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnLog {
    /// Position after its last entry.
    pub appended: LogPosition,
    /// Everything before this position is durable.
    pub durable: LogPosition,
    /// Everything before this position is applied.
    pub applied: LogPosition,
}

impl NodeStanding {
    /// A node of which nothing is known but what it is.
    pub fn new(id: NodeId, role: NodeRole) -> Self {
        Self {
            id: id.0,
            role,
            peer: None,
            grpc: None,
            version: None,
            feature_level: None,
            appended: None,
            durable: None,
            committed: None,
            applied: None,
            lag_bytes: None,
            connected: None,
            unreachable: None,
            heard: None,
            replaces: None,
            invited_until_ms: None,
        }
    }

    fn at(self, addresses: Option<&NodeAddresses>) -> Self {
        let said = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
        Self { peer: addresses.and_then(|at| said(&at.peer)), grpc: addresses.and_then(|at| said(&at.grpc)), ..self }
    }

    fn runs(self, program: Option<&NodeVersion>) -> Self {
        let said = program.map(|program| (program.version.clone(), program.feature_level));
        let (version, feature_level) = said.unzip();
        Self { version, feature_level, ..self }
    }

    /// How far a node says of itself that it is.
    pub fn with_log(self, own: OwnLog, committed: LogPosition) -> Self {
        Self {
            appended: Some(own.appended.0),
            durable: Some(own.durable.0),
            committed: Some(committed.0),
            applied: Some(own.applied.0),
            ..self
        }
    }
}

/// Who leads, as this replica knows.
pub(super) fn leader(group: &GroupStanding) -> Option<NodeId> {
    match group.role {
        Role::Leads { .. } => Some(group.node),
        Role::Follows { leader } => leader,
    }
}

fn role(id: NodeId, known: Option<&ClusterNode>, members: &GroupMembers, leader: Option<NodeId>) -> NodeRole {
    match known {
        _ if leader == Some(id) => NodeRole::Leader,
        Some(known) if known.is_leaving => NodeRole::Leaving,
        Some(known) if known.invitation.is_some() => NodeRole::Invited,
        _ if members.votes(id) => NodeRole::Follower,
        _ => NodeRole::Learner,
    }
}

fn ids(nodes: &ClusterNodes, members: &GroupMembers) -> impl Iterator<Item = NodeId> {
    let mut all = members.all();
    all.extend(nodes.nodes.keys());
    all.into_iter()
}

impl ClusterView {
    /// Who leads, if this node knows.
    pub fn leader(&self) -> Option<NodeId> {
        leader(&self.group)
    }

    /// Whether this node is the only one, and waits for nobody.
    pub fn is_alone(&self) -> bool {
        self.group.members.is_only(self.group.node)
    }

    /// Up to where its log is committed, as it knows. Alone, what is durable is.
    pub fn committed(&self, own: OwnLog) -> LogPosition {
        match self.group.committed_to {
            Some(to) if !self.is_alone() => to,
            // What is applied is committed.
            _ if !self.is_alone() => own.applied,
            _ => own.durable,
        }
    }

    /// All nodes in the order of their ids, those included that are invited.
    pub fn standings(&self, own: OwnLog) -> Vec<NodeStanding> {
        ids(&self.nodes, &self.group.members).map(|id| self.standing(id, own)).collect()
    }

    fn standing(&self, id: NodeId, own: OwnLog) -> NodeStanding {
        let known = self.nodes.nodes.get(&id);
        let addresses = known.and_then(|known| known.addresses.as_ref());
        let standing = NodeStanding {
            replaces: known.and_then(|known| known.replaces).map(|old| old.0),
            ..NodeStanding::new(id, role(id, known, &self.group.members, self.leader()))
        };
        if id == self.group.node {
            let standing = standing.at(self.mine.as_ref().or(addresses)).runs(Some(&self.program));
            return standing.with_log(own, self.committed(own));
        }
        let follower = self.group.followers.iter().find(|other| other.node == id);
        // A new leader knows nothing of one that has not answered it yet.
        let known_to = follower.filter(|follower| follower.durable > 0);
        let durable = known_to.and_then(|follower| follower.durable_to);
        let link = self.links.get(&id);
        NodeStanding {
            durable,
            lag_bytes: durable.map(|durable| own.appended.0.saturating_sub(durable)),
            heard: follower.map(|follower| follower.is_heard),
            connected: link.map(LinkState::is_up),
            unreachable: link.and_then(|link| match link {
                LinkState::Down { why } => Some(why.clone()),
                LinkState::Up(_) => None,
            }),
            invited_until_ms: known.and_then(|known| known.invitation.as_ref()).map(|invited| invited.until_ms),
            ..standing.at(addresses).runs(self.programs.get(&id))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;
    use vouch_cluster::NodeInvitation;
    use vouch_consensus::{EntryId, FollowerProgress};

    use super::*;

    fn addresses(id: u64) -> NodeAddresses {
        NodeAddresses { peer: format!("10.0.0.{id}:8090"), grpc: format!("10.0.0.{id}:8081") }
    }

    fn node(id: u64, invited: bool, is_leaving: bool) -> (NodeId, ClusterNode) {
        let invitation = invited.then_some(NodeInvitation { token: [0; 32], until_ms: 7 });
        let addresses = (!invited).then(|| addresses(id));
        (NodeId(id), ClusterNode { addresses, invitation, votes_at_once: false, is_leaving, replaces: None })
    }

    /// Of node `me`: 1 and 2 vote and 1 leads, 3 has come, 4 is invited to replace 2, 5 leaves.
    fn view(me: u64) -> ClusterView {
        let nodes = [node(1, false, false), node(2, false, false), node(3, false, false), node(4, true, false)];
        let mut nodes =
            ClusterNodes { last: NodeId(5), nodes: nodes.into_iter().chain([node(5, false, true)]).collect() };
        nodes.nodes.entry(NodeId(4)).and_modify(|known| known.replaces = Some(NodeId(2)));
        let mut members = GroupMembers::voters([1, 2, 5].map(NodeId));
        members.learners.insert(NodeId(3));
        let follower =
            |id, durable_to, is_heard| FollowerProgress { node: NodeId(id), durable: 3, durable_to, is_heard };
        let leads = Role::Leads { since: EntryId { term: 7, index: 2 } };
        let group = GroupStanding {
            node: NodeId(me),
            role: if me == 1 { leads } else { Role::Follows { leader: Some(NodeId(1)) } },
            term: 7,
            leads_from: None,
            members,
            names_from: 0,
            awaits_others: true,
            needed_from: None,
            last: 9,
            committed: 8,
            committed_to: Some(LogPosition(800)),
            followers: if me == 1 { vec![follower(2, Some(700), true), follower(3, None, false)] } else { Vec::new() },
        };
        let down = LinkState::Down { why: "connection refused".to_owned() };
        let links = BTreeMap::from([(NodeId(3), down)]);
        let mine = Some(addresses(me));
        let program = |version: &str, feature_level| NodeVersion { version: version.to_owned(), feature_level };
        let programs = BTreeMap::from([(NodeId(2), program("0.1.0", 1))]);
        ClusterView {
            group,
            nodes,
            mine,
            links,
            feature_level: 1,
            program: program("0.2.0", 2),
            programs,
            refused: 0,
            unread: 0,
            crowded_out: 0,
            doubt: None,
        }
    }

    const OWN: OwnLog = OwnLog { appended: LogPosition(900), durable: LogPosition(850), applied: LogPosition(800) };

    #[test]
    fn who_leads_knows_how_far_the_others_are() {
        let told = serde_json::to_value(view(1).standings(OWN)).unwrap();
        let expected = json!([
            {"id": 1, "role": "leader", "peer": "10.0.0.1:8090", "grpc": "10.0.0.1:8081",
             "version": "0.2.0", "feature_level": 2, "appended": 900, "durable": 850, "committed": 800, "applied": 800},
            {"id": 2, "role": "follower", "peer": "10.0.0.2:8090", "grpc": "10.0.0.2:8081",
             "version": "0.1.0", "feature_level": 1, "durable": 700, "lag_bytes": 200, "heard": true},
            {"id": 3, "role": "learner", "peer": "10.0.0.3:8090", "grpc": "10.0.0.3:8081",
             "heard": false, "connected": false, "unreachable": "connection refused"},
            {"id": 4, "role": "invited", "replaces": 2},
            {"id": 5, "role": "leaving", "peer": "10.0.0.5:8090", "grpc": "10.0.0.5:8081"},
        ]);
        assert_eq!(told, expected);
        assert_eq!(view(1).standings(OWN)[3].invited_until_ms, Some(7));
    }

    #[test]
    fn who_follows_says_of_others_no_more_than_it_knows() {
        let told = view(2).standings(OWN);
        assert_eq!((told[0].role, told[0].durable, told[0].heard), (NodeRole::Leader, None, None));
        assert_eq!((told[1].role, told[1].appended, told[1].committed), (NodeRole::Follower, Some(900), Some(800)));
        let mut behind = view(2);
        behind.group.committed_to = None;
        assert_eq!(behind.committed(OWN), OWN.applied);
        behind.group.members = GroupMembers::voters([NodeId(2)]);
        assert_eq!(behind.committed(OWN), OWN.durable);
    }
}
