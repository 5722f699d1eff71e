//! Keeps what this node knows of the others in step with the log, and what the log says of this node in step with where it is.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use vouch_broker::record::NodeMoved;
use vouch_cluster::{NodeAddresses, NodeId};
use vouch_commitlog::LogReader;
use vouch_consensus::Role;
use vouch_shard::{GroupStanding, Shard, WhoBelongs};

use super::address_book::AddressBook;
use super::answering::told_by;
use super::calls::{NodeAnswer, NodeAsk, NodeRequest};
use super::gathered::Gathered;
use super::nodes::PeerNodes;
use super::programs::NodeVersion;
use super::removal::Removal;
use super::told::Hearsay;

/// Between two looks at what nothing tells of.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How long one ask takes at most.
const ASK_WITHIN: Duration = Duration::from_secs(2);

/// What is kept in step.
pub(super) struct PeerKeeper {
    pub(super) shard: Arc<Shard>,
    pub(super) log: LogReader,
    pub(super) nodes: Arc<PeerNodes>,
    pub(super) belongs: watch::Receiver<WhoBelongs>,
    pub(super) hearsay: Arc<Hearsay>,
    pub(super) removal: Arc<Removal>,
    /// Where they were is remembered.
    pub(super) book: AddressBook,
    /// What a pull left, which goes when this node lacks nothing any more.
    pub(super) gathered: Gathered,
    /// Where this node is.
    pub(super) mine: NodeAddresses,
    /// Why the log does not say where this node is, as that was told last.
    pub(super) told: String,
    /// What this node runs.
    pub(super) program: NodeVersion,
    /// Who knows that by now, and in which term it leads.
    pub(super) program_told: Option<(NodeId, u64)>,
}

impl PeerKeeper {
    /// Goes on until it is dropped, the shard is gone, or this node was removed.
    pub(super) async fn run(mut self) {
        loop {
            self.follow();
            let nodes = self.belongs.borrow().nodes.clone();
            if self.removal.look(&nodes, &self.nodes.states()).await {
                return;
            }
            let Ok(standing) = self.shard.group().await else { return };
            self.hearsay.forget(standing.committed);
            self.hearsay.leads.store(matches!(standing.role, Role::Leads { .. }), Ordering::Relaxed);
            self.gathered.look(&standing).await;
            self.get_ready(&standing).await;
            self.say_where_it_is(&standing).await;
            self.say_what_it_runs(&standing).await;
            self.tell_the_others(&standing).await;
            self.ask_the_others(&standing).await;
            tokio::select! {
                changed = self.belongs.changed() => if changed.is_err() { return },
                () = self.hearsay.changed.notified() => {}
                () = sleep(LOOK_EVERY) => {}
            }
        }
    }

    fn follow(&mut self) {
        let belongs = self.belongs.borrow_and_update();
        let addresses = self.hearsay.addresses(&belongs, self.nodes.me);
        let knows_me = belongs.nodes.nodes.contains_key(&self.nodes.me);
        drop(belongs);
        // A state that does not know of this node itself is not there yet.
        if knows_me {
            self.book.note(&addresses);
        }
        self.nodes.are(&addresses);
    }

    /// Whoever leads lets a node that is to come, and one that is further behind than the names it knows, have the log from the
    /// beginning. Of a log that begins later
    /// they take a snapshot from the disk.
    async fn get_ready(&self, standing: &GroupStanding) {
        if standing.lacks_names(self.log.start())
            && let Err(why) = self.shard.get_ready_for_others(self.log.clone()).await
        {
            tracing::error!(%why, "the log cannot be made ready for other nodes");
        }
    }

    /// Has the log say where this node is, if it says something else.
    async fn say_where_it_is(&mut self, standing: &GroupStanding) {
        let me = self.nodes.me;
        let says = self.belongs.borrow().nodes.nodes.get(&me).filter(|known| known.invitation.is_none()).cloned();
        let Some(says) = says.filter(|says| says.addresses.as_ref() != Some(&self.mine)) else { return };
        let addresses = self.mine.clone();
        let failed = match standing.role {
            Role::Leads { .. } => {
                let moved = NodeMoved { node: me, addresses };
                self.shard.propose_one(|out| moved.encode(out)).await.err().map(|why| why.to_string())
            }
            Role::Follows { leader } => {
                // Whoever leads may not reach this node where it is now: then another one is asked, which asks the leader.
                let leader = leader.filter(|leader| self.nodes.is_up(*leader));
                let Some(node) = leader.or_else(|| self.nodes.any_up()) else { return };
                match self.ask(node, NodeAsk::Moved { node: me, addresses }).await {
                    Ok(NodeAnswer::Done(_) | NodeAnswer::Client(_) | NodeAnswer::Had(_)) => None,
                    Ok(NodeAnswer::Refused(why) | NodeAnswer::NothingStored(why) | NodeAnswer::Unknown(why)) => {
                        Some(why)
                    }
                    Err(why) => Some(why),
                }
            }
        };
        if let Some(why) = failed.filter(|why| *why != self.told) {
            tracing::warn!(was = ?says.addresses, is = ?self.mine, why, "the cluster does not know yet where this node is");
            self.told = why;
        }
    }

    /// Has whoever leads know which version this node runs: once in each of its terms.
    async fn say_what_it_runs(&mut self, standing: &GroupStanding) {
        let Role::Follows { leader: Some(leader) } = standing.role else { return };
        let told = Some((leader, standing.term));
        if self.program_told == told || !self.nodes.is_up(leader) {
            return;
        }
        let runs = NodeAsk::Runs { node: self.nodes.me, program: self.program.clone() };
        // An older version refuses what it does not know, and would again.
        if let Ok(NodeAnswer::Done(_) | NodeAnswer::Refused(_)) = self.ask(leader, runs).await {
            self.program_told = told;
        }
    }

    /// Who leads tells those of which it hears nothing where all are: they may be behind, and not know where to answer.
    async fn tell_the_others(&self, standing: &GroupStanding) {
        let silent = standing.followers.iter().filter(|other| !other.is_heard).map(|other| other.node);
        for node in silent {
            let told = told_by(standing, &self.belongs.borrow());
            if let Err(why) = self.ask(node, NodeAsk::Hear(told)).await {
                tracing::debug!(%node, why, "a node that is not heard of cannot be told, either");
            }
        }
    }

    /// Who knows of no leader, or does not reach it, asks the others where all are.
    async fn ask_the_others(&self, standing: &GroupStanding) {
        let reached = match standing.role {
            Role::Leads { .. } => true,
            Role::Follows { leader } => leader.is_some_and(|leader| self.nodes.is_up(leader)),
        };
        if reached {
            return;
        }
        for node in self.nodes.states().into_keys() {
            if let Ok(NodeAnswer::Done(told)) =
                self.ask(node, NodeAsk::WhoLeads { address: self.mine.peer.clone() }).await
            {
                self.hearsay.hear(told, standing.committed);
            }
        }
    }

    async fn ask(&self, node: NodeId, ask: NodeAsk) -> Result<NodeAnswer, String> {
        let request = NodeRequest { forwarded: false, ask };
        let answer = self.nodes.ask(node, &request, Instant::now() + ASK_WITHIN).await;
        answer.map_err(|failed| failed.to_string())
    }
}
