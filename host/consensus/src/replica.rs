//! One member of a group: the algorithm of the crate `raft`, and what it lacks.

mod behind;
mod members;
mod taking;

pub use members::FollowerProgress;

use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};

use raft::{Config, RawNode, StateRole};

use crate::beginning::ReplicaBeginning;
use crate::broken::Broken;
use crate::command::{Decision, EndsAt};
use crate::pending::Steps;
use crate::timeouts::Timeouts;
use crate::translate::to_raft;
use crate::view::{Descriptor, LogView, ONE_MESSAGE};
use crate::vote::Vote;
use crate::{EntryId, EntryRole, GroupMessage, NodeId, NotLeading, Role, Said, Slot};

/// Append messages that may be under way to one follower before it has answered any.
const MESSAGES_UNDER_WAY: usize = 64;

/// One member of a group. `B` is what an entry holds while it is on its way here from a leader.
pub struct Replica<B> {
    raw: RawNode<LogView>,
    timeouts: Timeouts,
    steps: Steps,
    /// Everything up to this index is durable here.
    durable: u64,
    /// What whoever runs it was told to save last.
    saved: Vote,
    /// What came with the entries of the message that is being taken.
    arrived: BTreeMap<u64, (EntryId, B)>,
    /// The entry that is proposed: the log has it already.
    proposed: Option<Descriptor>,
    /// The first entry of the term that this replica leads.
    leads_since: Option<EntryId>,
    commands: VecDeque<Decision<B>>,
    /// What is to be said when the first entry of its term is in the log: where that ends is not known before.
    held_back: Vec<GroupMessage>,
    broken: Option<Broken>,
}

impl<B: EndsAt> Replica<B> {
    /// A replica that follows.
    ///
    /// # Errors
    /// What it begins with cannot be: a commit beyond the log's end, say.
    pub fn new(beginning: ReplicaBeginning) -> Result<Self, Broken> {
        let ReplicaBeginning { node, members, vote, applied, commit, before, before_end, entries, pace, draw } =
            beginning;
        let view = LogView::new(before, before_end, entries, (vote, commit, members));
        let durable = view.last();
        let config = Config {
            id: node.0,
            election_tick: pace.election,
            heartbeat_tick: pace.heartbeat,
            applied,
            max_size_per_msg: ONE_MESSAGE,
            max_inflight_msgs: MESSAGES_UNDER_WAY,
            check_quorum: true,
            pre_vote: true,
            // What is proposed is bounded in bytes before it comes here; the crate would count names.
            max_uncommitted_size: raft::NO_LIMIT,
            max_committed_size_per_ready: raft::NO_LIMIT,
            ..Config::default()
        };
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let raw = catch_unwind(AssertUnwindSafe(|| RawNode::new(&config, view, &logger)))
            .map_err(|panic| Broken::by(panic.as_ref()))?
            .map_err(|error| Broken(error.to_string()))?;
        let mut replica = Self {
            raw,
            timeouts: Timeouts::new(draw, pace.election),
            steps: Steps::default(),
            durable,
            saved: vote,
            arrived: BTreeMap::new(),
            proposed: None,
            leads_since: None,
            commands: VecDeque::new(),
            held_back: Vec::new(),
            broken: None,
        };
        replica.timeouts.replace(&mut replica.raw);
        Ok(replica)
    }

    /// What is to be done next; `None` when all is done that was asked for so far.
    pub fn next_command(&mut self) -> Option<Decision<B>> {
        self.commands.pop_front()
    }

    /// What it is to its group.
    pub fn role(&self) -> Role {
        match self.leads_since {
            Some(since) => Role::Leads { since },
            None => Role::Follows { leader: self.known_leader() },
        }
    }

    /// Who leads, if it heard of that one lately. A voter that hears nothing asks for votes, and forgets whom it followed; one
    /// without a vote goes on believing, in the crate, whoever it heard last: here its time-out ends that, too.
    fn known_leader(&self) -> Option<NodeId> {
        let raft = &self.raw.raft;
        let is_stale = !raft.promotable() && raft.pass_election_timeout();
        Some(raft.leader_id).filter(|id| *id != 0 && !is_stale).map(NodeId)
    }

    /// Whether it is the only member of its group: what is on its disk is decided.
    pub fn is_alone(&self) -> bool {
        let raft = &self.raw.raft;
        let voters = raft.prs().conf().voters().ids();
        voters.len() == 1 && voters.contains(raft.id) && raft.prs().conf().learners().is_empty()
    }

    /// Who it is.
    pub fn node(&self) -> NodeId {
        NodeId(self.raw.raft.id)
    }

    /// The term it is in.
    pub fn term(&self) -> u64 {
        self.raw.raft.term
    }

    /// Everything up to this index is committed, as far as it knows.
    pub fn commit(&self) -> u64 {
        self.raw.raft.raft_log.committed
    }

    /// Index of the last entry.
    pub fn last(&self) -> u64 {
        self.raw.store().last()
    }

    /// From where to where an entry lies in the log, with all that goes in front of it; `None` if the log has another one, or
    /// does not keep it any more.
    pub fn span(&self, entry: EntryId) -> Option<(u64, u64)> {
        let view = self.raw.store();
        let term = view.get(entry.index)?.term;
        (term == entry.term).then_some((view.end_of(entry.index - 1)?, view.end_of(entry.index)?))
    }

    /// Index of the first entry that it still knows, less one, and its term.
    pub fn before(&self) -> EntryId {
        self.raw.store().before()
    }

    /// Position of the log behind the entry with this index, if it still knows that.
    pub fn position_behind(&self, index: u64) -> Option<u64> {
        self.raw.store().end_of(index)
    }

    /// The last entry that ends at this position of the log or before it, if it still knows that.
    pub fn index_before(&self, position: u64) -> Option<u64> {
        self.raw.store().index_before(position)
    }

    /// The term of an entry that it still knows.
    pub fn term_of(&self, index: u64) -> Option<u64> {
        self.raw.store().term_of(index)
    }

    /// Time has passed by one tick.
    pub fn tick(&mut self) {
        self.guarded(|replica| {
            // The only voter wins at once, and must have on the disk what it then says is decided.
            let waits = replica.durable < replica.last() && replica.raw.raft.state != StateRole::Leader;
            if !(waits && replica.raw.raft.prs().conf().voters().ids().len() == 1) {
                replica.raw.tick();
            }
        });
    }

    /// Asks for votes now, as the only member of a group does when it starts.
    pub fn campaign(&mut self) {
        self.guarded(|replica| {
            let _ = replica.raw.campaign();
        });
    }

    /// Another member said this; `bodies` is what came with its entries, one each.
    ///
    /// # Panics
    /// If there are not as many bodies as entries.
    pub fn message(&mut self, said: &GroupMessage, bodies: Vec<B>) {
        if let Said::Append(append) = &said.body {
            assert_eq!(append.entries.len(), bodies.len(), "each entry comes with what it holds");
            let ids = append.entries.iter().map(|(id, _)| *id);
            self.arrived = ids.zip(bodies).map(|(id, body)| (id.index, (id, body))).collect();
        }
        self.guarded(|replica| {
            replica.let_it_be_told_again(said);
            if let Some(covered) = replica.falls_behind(said) {
                replica.hear_that_it_leads(said);
                replica.commands.push_back(Decision::FallBehind { covered });
            } else {
                let mut message = to_raft(said);
                replica.say_whose_snapshot(said, &mut message);
                // It refuses answers of nodes that do not belong to the group.
                let _ = replica.raw.step(message);
            }
        });
        // What it did not take is a repetition, or of a leader of the past.
        self.arrived.clear();
    }

    /// The name of the next entry, which may be appended at the end of the log now, and must be told with [`Self::proposed`]
    /// before anything else.
    ///
    /// # Errors
    /// It does not lead. The crate would send a proposal on to the leader, and that of a leader that hands over it would drop:
    /// neither is left to it.
    pub fn slot(&self) -> Result<Slot, NotLeading> {
        let leader = self.known_leader();
        #[cfg(any(test, feature = "testing"))]
        if leader.is_some() && crate::bugs::injected(crate::bugs::Mistake::SlotsOfFollowers) {
            return Ok(EntryId { index: self.last() + 1, term: self.term() });
        }
        // Where the log has not taken the entry with which the term begins, it takes no other one in its place.
        if self.leads_since.is_none() || self.broken.is_some() || !self.raw.store().is_written() {
            return Err(leader.map_or(NotLeading::Nobody, NotLeading::Another));
        }
        if let Some(to) = self.raw.raft.lead_transferee {
            return Err(NotLeading::HandingOver(NodeId(to)));
        }
        Ok(EntryId { index: self.last() + 1, term: self.term() })
    }

    /// The entry of [`Self::slot`] is in the log, and ends there.
    pub fn proposed(&mut self, slot: Slot, end: u64, kind: EntryRole) {
        assert_eq!(self.slot(), Ok(slot), "what is appended has the name that was given for it");
        self.proposed = Some(Descriptor { term: slot.term, end, kind });
        self.guarded(|replica| {
            let proposed = match kind {
                EntryRole::Ordinary => replica.raw.propose(Vec::new(), Vec::new()),
                EntryRole::Members => replica.propose_members(),
            };
            // It takes whatever a leader proposes that hands over to nobody: that was asked in `slot`.
            proposed.expect("a leader takes what it proposes");
        });
        assert!(self.proposed.is_none() || self.broken.is_some(), "what was proposed is among what is to be appended");
    }

    /// The entry that [`Decision::Begin`] asked for is in the log, and ends there.
    pub fn appended(&mut self, entry: EntryId, end: u64) {
        assert_eq!(entry.index, self.last(), "a term's first entry is the last one of its leader's log");
        self.raw.mut_store().begun(end);
        self.commands.extend(self.held_back.drain(..).map(Decision::Send));
    }

    /// Everything before this position is durable. After a cut it may be lower than before; then it counts for less.
    pub fn durable(&mut self, position: u64) {
        let view = self.raw.store();
        while view.end_of(self.durable + 1).is_some_and(|end| end <= position) {
            self.durable += 1;
        }
        self.guarded(|_| ());
    }

    /// Everything up to this index is applied.
    pub fn applied(&mut self, to: u64) {
        self.guarded(|replica| replica.raw.advance_apply_to(to));
    }

    /// Learns the names of entries that it forgot, or never knew: those from behind `before` to the first that it knows. A member
    /// that has none of them gets them from here.
    ///
    /// # Panics
    /// If they do not end where what it knows begins.
    pub fn learn(&mut self, before: EntryId, before_end: u64, entries: VecDeque<Descriptor>) {
        self.raw.mut_store().learn(before, before_end, entries);
    }

    /// Where what it knows begins: the position behind [`Self::before`].
    pub fn before_end(&self) -> u64 {
        let view = self.raw.store();
        view.end_of(view.before().index).expect("the log ends somewhere before the first entry that is known")
    }

    /// What lies up to this index is covered by both snapshots: its names are forgotten. Whoever needs them pulls a snapshot.
    pub fn forget(&mut self, up_to: u64) {
        let up_to = up_to.min(self.raw.raft.raft_log.applied);
        self.raw.mut_store().forget(up_to);
    }

    /// Whether the entries whose names it forgot are gone from its log, too. Then a member that lacks them is told to take them from a
    /// disk ([`Said::Behind`]); as long as they are there, it is to be told their names ([`Self::learn`]).
    pub fn is_released(&mut self, is_released: bool) {
        self.raw.mut_store().is_released(is_released);
    }

    /// Hands leadership over to this member, as soon as that has all entries.
    pub fn hand_over(&mut self, to: NodeId) {
        self.guarded(|replica| replica.raw.transfer_leader(to.0));
    }

    /// Messages to this member may be lost since now: what was under way to it is sent again.
    pub fn unreachable(&mut self, node: NodeId) {
        self.guarded(|replica| replica.raw.report_unreachable(node.0));
    }

    /// Lets the crate do something, and takes what it wants. Where it panics, nothing that it wanted in this call is done.
    fn guarded(&mut self, act: impl FnOnce(&mut Self)) {
        if self.broken.is_some() {
            return;
        }
        let so_far = self.commands.len();
        let done = catch_unwind(AssertUnwindSafe(|| {
            act(self);
            self.take_what_it_wants();
            #[cfg(any(test, feature = "testing"))]
            crate::bugs::save_late(&mut self.commands, so_far);
            self.timeouts.replace(&mut self.raw);
        }));
        if let Err(panic) = done {
            let broken = Broken::by(panic.as_ref());
            self.commands.truncate(so_far);
            self.commands.push_back(Decision::Break(broken.clone()));
            self.broken = Some(broken);
        }
    }
}
