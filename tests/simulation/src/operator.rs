//! Who adds nodes to the group and takes some out of it.

use std::collections::BTreeSet;

use tokio::sync::oneshot;
use vouch_broker::record::{NodeInvited, NodeJoined, NodeLeaves, NodeReplaced};
use vouch_broker::state::{Applied, Outcome};
use vouch_broker::{Millis, NotDone, NothingStored};
use vouch_cluster::NodeId;
use vouch_commitlog::simulated::Rng;
use vouch_shard::Reply;
use vouch_shard::core::{Claim, Hearer, Proposal, Request};

use crate::beginning::{TOKEN, addresses};
use crate::trace::Trace;

/// An answer that has not come by then does not.
const PATIENCE_MS: u64 = 5_000;
/// Nodes that there are at once, at most, besides those with which a run began.
const MORE: usize = 2;

/// What it does.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Invite,
    /// Another node is to take the place of this one.
    Replace(NodeId),
    /// This node comes.
    Join(NodeId),
    /// This node is to leave.
    Leave(NodeId),
}

type Answer = oneshot::Receiver<Result<Vec<Outcome>, NotDone>>;

/// One that does one thing after the other.
pub(crate) struct Operator {
    under_way: Option<(Step, Answer, u64)>,
    next: Option<Step>,
    asks: NodeId,
    again_at: u64,
    /// Whom it ever wanted to leave.
    leave: BTreeSet<NodeId>,
    /// It lets some come for the places of others.
    replaces: bool,
    /// It begins nothing any more.
    pub(crate) stops: bool,
}

/// Whose disks are not whole.
#[derive(Default)]
pub(crate) struct Hurt {
    pub(crate) lost: BTreeSet<NodeId>,
    /// These may be lost, or be whole again.
    pub(crate) damaged: BTreeSet<NodeId>,
}

/// A node whose machine is to start.
pub(crate) struct Newcomer(pub(crate) NodeId);

fn invited(old: Option<NodeId>) -> NodeInvited {
    let replaces = old.map(|node| NodeReplaced { node, by: "op".to_owned(), reason: String::new() });
    NodeInvited { token: TOKEN, until: Millis(u64::MAX), votes_at_once: false, replaces }
}

impl Operator {
    pub(crate) fn new(asks: NodeId, replaces: bool) -> Self {
        Self { under_way: None, next: None, asks, again_at: 2_000, leave: BTreeSet::new(), replaces, stops: false }
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.under_way.is_none() && self.next.is_none()
    }

    /// Whether nobody among these is about to leave, as far as it knows.
    pub(crate) fn lets_stay(&self, nodes: &[NodeId]) -> bool {
        !nodes.iter().any(|node| self.leave.contains(node))
    }

    /// What it does next. Who lost its disk leaves before anybody else, or is replaced; as long as one may lose it, nobody else leaves.
    fn choose(&self, began_with: usize, nodes: &[NodeId], hurt: &Hurt, rng: &mut Rng) -> Option<Step> {
        let leaves = |node, rng: &mut Rng| match self.replaces && rng.chance(2) {
            true => Step::Replace(node),
            false => Step::Leave(node),
        };
        if let Some(lost) = nodes.iter().find(|node| hurt.lost.contains(node)) {
            return Some(leaves(*lost, rng));
        }
        let leave = nodes.len() > began_with && (nodes.len() >= began_with + MORE || rng.chance(2));
        let any = nodes[rng.below(nodes.len() as u64) as usize];
        let whole = !nodes.iter().any(|node| hurt.damaged.contains(node));
        match leave {
            true if !whole => None,
            true => Some(leaves(any, rng)),
            false if whole && self.replaces && rng.chance(3) => Some(Step::Replace(any)),
            false => Some(Step::Invite),
        }
    }

    /// What it hears, and whom it asks for what. `nodes`: those that belong to the cluster, as far as anybody knows.
    pub(crate) fn act(
        &mut self,
        (now, began_with): (u64, usize),
        (nodes, hurt): (&[NodeId], &Hurt),
        rng: &mut Rng,
        trace: &mut Trace,
    ) -> (Option<(NodeId, Request)>, Option<Newcomer>) {
        let newcomer = self.listen(now, (nodes, hurt), rng, trace);
        if self.under_way.is_some() || now < self.again_at {
            return (None, newcomer);
        }
        if self.next.is_none() {
            // Who lost its disk does not come back, and is waited for as long as it is a member.
            if self.stops && !nodes.iter().any(|node| hurt.lost.contains(node)) {
                return (None, newcomer);
            }
            self.next = self.choose(began_with, nodes, hurt, rng);
        }
        let Some(step) = self.next.take() else { return (None, newcomer) };
        if let Step::Leave(node) | Step::Replace(node) = step {
            self.leave.insert(node);
        }
        let (reply, answer) = Reply::new();
        let mut records = Vec::new();
        match &step {
            Step::Invite => invited(None).encode(&mut records),
            Step::Replace(old) => invited(Some(*old)).encode(&mut records),
            Step::Join(node) => {
                NodeJoined { node: *node, token: TOKEN, addresses: addresses(*node) }.encode(&mut records)
            }
            Step::Leave(node) => {
                NodeLeaves { node: *node, by: "op".to_owned(), reason: String::new() }.encode(&mut records)
            }
        };
        self.under_way = Some((step, answer, now));
        let proposal = Proposal { records, told: Hearer::Caller(reply), cost: 0, claim: Claim::Reserve };
        (Some((self.asks, Request::Propose(proposal))), newcomer)
    }

    fn listen(
        &mut self,
        now: u64,
        (nodes, hurt): (&[NodeId], &Hurt),
        rng: &mut Rng,
        trace: &mut Trace,
    ) -> Option<Newcomer> {
        let (step, answer, asked) = self.under_way.as_mut()?;
        let answer = match answer.try_recv() {
            Ok(answer) => answer,
            Err(oneshot::error::TryRecvError::Empty) if now < *asked + PATIENCE_MS => return None,
            Err(_) => Err(NotDone::Unknown(String::new())),
        };
        let step = step.clone();
        trace.line(format!("operator: {step:?}: {answer:?}"));
        self.under_way = None;
        let outcome = answer.map(|outcomes| outcomes.into_iter().next().expect("one record"));
        self.again_at = now + rng.below(200);
        match (step, outcome) {
            (Step::Invite | Step::Replace(_), Ok(Ok(Applied::Invited { node }))) => self.next = Some(Step::Join(node)),
            (Step::Invite, _) => self.asks = nodes[rng.below(nodes.len() as u64) as usize],
            (step, Err(NotDone::NothingStored(NothingStored::NotLeading { leader }))) => {
                self.asks = leader.map_or(nodes[rng.below(nodes.len() as u64) as usize], NodeId);
                self.next = Some(step);
            }
            // Where nobody knows whether it came, it is tried as if it had: its folder may be empty for ever.
            (Step::Join(node), _) => {
                self.again_at = now + 500 + rng.below(3_000);
                return Some(Newcomer(node));
            }
            (Step::Leave(lost) | Step::Replace(lost), Err(_)) if hurt.lost.contains(&lost) => {
                self.asks = nodes[rng.below(nodes.len() as u64) as usize];
                self.again_at = now + 200;
            }
            (Step::Leave(_) | Step::Replace(_), _) => self.again_at = now + 500 + rng.below(3_000),
        }
        None
    }
}
