//! GroupMembers of a group in one thread: their logs are lists, a queue is the network, and a seed decides everything.

use std::collections::VecDeque;

use vouch_cluster::MembersChange;

use crate::{
    Decision, Descriptor, EndsAt, EntryId, EntryRole, GroupMembers, GroupMessage, GroupPace, NodeId, NotLeading,
    Replica, ReplicaBeginning, Role, Said, Vote,
};

/// Numbers from a seed (splitmix64).
#[derive(Clone)]
pub(super) struct Rng(pub(super) u64);

impl Rng {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        bits ^ (bits >> 31)
    }

    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub(super) fn chance(&mut self, one_in: u64) -> bool {
        self.below(one_in) == 0
    }
}

/// An entry in a list that stands for a log: ten bytes each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) id: EntryId,
    pub(super) what: u64,
    /// It changes the members.
    pub(super) change: Option<NodeSets>,
}

/// A change of the members as a number can hold it: nodes that vote and nodes that learn, a bit each; no voter ends a change.
pub(super) type NodeSets = (u8, u8);

pub(super) fn change_of((voters, learners): NodeSets) -> MembersChange {
    let nodes = |bits: u8| (1..8).filter(|id| bits >> id & 1 == 1).map(NodeId).collect();
    match voters {
        0 => MembersChange::Finish,
        _ => MembersChange::To { voters: nodes(voters), learners: nodes(learners) },
    }
}

impl Line {
    fn role(&self) -> EntryRole {
        if self.change.is_some() { EntryRole::Members } else { EntryRole::Ordinary }
    }
}

const LINE: u64 = 10;

impl EndsAt for Line {
    fn end(&self) -> u64 {
        self.id.index * LINE
    }
}

/// What a member has on its disk, and in its memory.
pub(super) struct Member {
    pub(super) node: NodeId,
    pub(super) replica: Option<Replica<Line>>,
    pub(super) log: Vec<Line>,
    /// So many lines of it survive a power cut.
    pub(super) synced: usize,
    pub(super) vote: Vote,
    /// What was committed here in this life.
    pub(super) commit: u64,
    /// As of that.
    pub(super) members: GroupMembers,
    /// It lacks what its leader does not keep: the entries up to this one.
    pub(super) behind: Option<EntryId>,
    pub(super) trace: Vec<String>,
}

pub(super) const PACE: GroupPace = GroupPace { election: 10, heartbeat: 2 };

/// A message under way, with what its entries hold.
pub(super) type Sent = (GroupMessage, Vec<Line>);

impl Member {
    pub(super) fn new(node: u64, members: &GroupMembers, rng: Rng) -> Self {
        let node = NodeId(node);
        let (log, vote, trace) = (Vec::new(), Vote::default(), Vec::new());
        let mut member = Self {
            node,
            replica: None,
            log,
            synced: 0,
            vote,
            commit: 0,
            members: members.clone(),
            behind: None,
            trace,
        };
        member.start(members, rng);
        member
    }

    /// Starts with what is on its disk.
    pub(super) fn start(&mut self, members: &GroupMembers, mut rng: Rng) {
        (self.commit, self.members) = (0, members.clone());
        let entries = self.log.iter();
        let entries = entries.map(|line| Descriptor { term: line.id.term, end: line.end(), kind: line.role() });
        let replica = Replica::new(ReplicaBeginning {
            node: self.node,
            members: members.clone(),
            vote: self.vote,
            applied: 0,
            commit: 0,
            before: EntryId::default(),
            before_end: 0,
            entries: entries.collect(),
            pace: PACE,
            draw: Box::new(move |below| rng.below(below)),
        });
        self.replica = Some(replica.unwrap());
    }

    /// The power goes: what was not synced is gone, from some line on.
    pub(super) fn crash(&mut self, rng: &mut Rng) {
        self.replica = None;
        let lost = rng.below((self.log.len() - self.synced) as u64 + 1) as usize;
        self.log.truncate(self.log.len() - lost);
        self.synced = self.log.len();
    }

    pub(super) fn replica(&mut self) -> &mut Replica<Line> {
        self.replica.as_mut().unwrap()
    }

    pub(super) fn leads(&self) -> bool {
        self.replica.as_ref().is_some_and(|replica| matches!(replica.role(), Role::Leads { .. }))
    }

    /// Appends a line and proposes it, if it leads.
    pub(super) fn propose(&mut self, what: u64, network: &mut VecDeque<Sent>) -> Option<EntryId> {
        self.propose_line(what, None, network).ok()
    }

    /// Proposes a change of the members that fits those that there are, if it leads and may.
    pub(super) fn propose_members(&mut self, sets: NodeSets, network: &mut VecDeque<Sent>) -> bool {
        let after = self.members.after(&change_of(sets));
        let stays = after.is_ok_and(|after| after.voters.contains(&self.node));
        stays && self.replica().may_change_members() && self.propose_line(0, Some(sets), network).is_ok()
    }

    fn propose_line(
        &mut self,
        what: u64,
        change: Option<NodeSets>,
        network: &mut VecDeque<Sent>,
    ) -> Result<EntryId, NotLeading> {
        let id = self.replica().slot()?;
        let line = Line { id, what, change };
        self.log.push(line);
        self.replica().proposed(id, line.end(), line.role());
        self.carry_out(network);
        Ok(id)
    }

    /// So many lines are on the disk.
    pub(super) fn sync(&mut self, lines: usize, network: &mut VecDeque<Sent>) {
        self.synced = self.synced.max(lines);
        let durable = self.synced as u64 * LINE;
        self.replica().durable(durable);
        self.carry_out(network);
    }

    fn apply(&mut self, line: Line) {
        let Some(sets) = line.change else { return };
        // One that does not fit any more changes nothing, on all alike.
        if let Ok(members) = self.members.after(&change_of(sets)) {
            self.replica().members_are(&members);
            self.members = members;
        }
    }

    pub(super) fn carry_out(&mut self, network: &mut VecDeque<Sent>) {
        while let Some(command) = self.replica().next_command() {
            self.trace.push(format!("{command:?}"));
            match command {
                Decision::SaveVote(vote) => {
                    assert!(vote.term > self.vote.term || self.vote.given_to.is_none(), "a vote is given once");
                    self.vote = vote;
                }
                Decision::Cut { behind } => {
                    assert!(behind >= self.commit, "what is committed is never cut off");
                    self.log.truncate(behind as usize);
                    self.synced = self.synced.min(self.log.len());
                }
                Decision::Append(received) => {
                    assert_eq!(received.id.index, self.log.len() as u64 + 1);
                    self.log.push(received.body);
                }
                Decision::Begin(id) => {
                    assert_eq!(id.index, self.log.len() as u64 + 1);
                    let line = Line { id, what: 0, change: None };
                    self.log.push(line);
                    self.replica().appended(id, line.end());
                }
                Decision::Send(message) => {
                    let lines = match &message.body {
                        Said::Append(append) => {
                            append.entries.iter().map(|(id, _)| self.log[id.index as usize - 1]).collect()
                        }
                        _ => Vec::new(),
                    };
                    network.push_back((message, lines));
                }
                Decision::Commit { to } => {
                    assert!(to <= self.synced as u64, "what is committed here is durable here");
                    for at in self.commit as usize..to as usize {
                        self.apply(self.log[at]);
                    }
                    self.commit = to;
                    self.replica().applied(to);
                }
                Decision::FallBehind { covered } => self.behind = Some(covered),
                Decision::Break(broken) => panic!("node {}: {broken}", self.node),
            }
        }
    }
}
