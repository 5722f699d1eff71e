//! The nodes of the cluster, for its operators: who comes, who goes, who leads, and how all of them are.

mod doubting;
mod leader_watch;
mod majority;
mod repair;
mod routing;
mod standing;
mod upgrade;
mod who_is_right;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use vouch_broker::record::{NodeInvited, NodeLeaves, NodeReplaced};
use vouch_broker::state::Applied;
use vouch_broker::{Millis, NotDone, NothingStored, Refusal};
use vouch_cluster::{ClusterNodes, NodeAddresses, NodeId};
use vouch_commitlog::LogReader;
use vouch_consensus::Role;
use vouch_shard::clock::Clock;
use vouch_shard::{GroupStanding, MetDamage, Shard, WhoBelongs};
use vouch_storage::{Requests, ScrubReport};
use vouch_transport::{LinkState, RereadSecurity};

use crate::forwarding::{ForwardedAsk, HttpApi, HttpCall, HttpCallAnswer, Leaders, ServeHttp, answer_of};
use crate::peers::{ClusterToken, NodeVersion, PeerSettings, Speaking};
use crate::writable::Writable;
pub(crate) use doubting::Doubting;
pub(crate) use leader_watch::LeaderWatch;
pub use majority::majority_of;
pub use standing::{NodeRole, NodeStanding, OwnLog};
pub use upgrade::UpgradeFinished;

/// How long a token is good for: an operator carries it to a machine that may have to be set up first.
const TOKEN_LASTS_MS: u64 = 24 * 60 * 60 * 1000;
/// A node that takes over has done so by then: several times as long as a group needs for an election.
const TAKES_OVER_WITHIN: Duration = Duration::from_secs(10);
/// Between two looks whether it has.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// How long a request over HTTP may take at another node: a component that is uploaded is compiled there.
const HTTP_WITHIN: Duration = Duration::from_secs(120);
/// How long a node waits for another one to lead before it stops.
const RESIGNED_WITHIN: Duration = Duration::from_millis(1_500);

/// The nodes of the cluster.
pub struct Nodes {
    pub(crate) shard: Arc<Shard>,
    /// Knows who leads.
    pub(crate) leaders: Arc<Leaders>,
    /// Answers requests over HTTP, whichever node they came to.
    pub(crate) http: Arc<HttpApi>,
    /// `None`: it has no address for others.
    pub(crate) speaking: Option<Arc<Speaking>>,
    pub(crate) log: LogReader,
    pub(crate) belongs: watch::Receiver<WhoBelongs>,
    pub(crate) behind: watch::Receiver<bool>,
    /// What the running replica met that it cannot read any more.
    pub(crate) met_damage: watch::Receiver<MetDamage>,
    /// Before that it does not stop for what is damaged: nobody had it, when it was last asked for. `None`: it was not.
    pub(crate) mends_from: Option<Instant>,
    /// What the scrubber finds, where others are to mend it.
    pub(crate) scrub: Option<Arc<ScrubReport>>,
    /// Whether this node knows what the others know.
    pub(crate) snapshots: Arc<Requests>,
    pub(crate) clock: Arc<Clock>,
    pub(crate) cluster_id: [u8; 16],
    pub(crate) segment_size: u64,
    /// What this node runs.
    pub(crate) program: NodeVersion,
    pub(crate) writable: Writable,
    pub(crate) leader: Arc<LeaderWatch>,
}

/// How a cluster is, as one of its nodes knows.
#[derive(Clone, Debug)]
pub struct ClusterView {
    /// How the group stands: who leads, who votes, how far each is.
    pub group: GroupStanding,
    /// All nodes, those included that are invited.
    pub nodes: ClusterNodes,
    /// Where this one is to the others; `None` where it has no address for them.
    pub mine: Option<NodeAddresses>,
    /// The connections of this node to each of the others.
    pub links: BTreeMap<NodeId, LinkState>,
    /// The feature level of the log: what belongs to a later one is not written.
    pub feature_level: u32,
    /// What this node runs.
    pub program: NodeVersion,
    /// What those of the others run that are connected, and said so to this node, since it leads or did.
    pub programs: BTreeMap<NodeId, NodeVersion>,
    /// Connections of others that were refused.
    pub refused: u64,
    /// Datagrams that were no message of the group, and were dropped.
    pub unread: u64,
    /// Messages of the group that were dropped, since too many waited: this node is slower than they come.
    pub crowded_out: u64,
    /// That this node had something else than another one, and nobody knows yet who is right: a sentence.
    pub doubt: Option<String>,
}

impl Nodes {
    /// Gives the next id to a node that is to come, and the token with which it does, once, within a day. `votes_at_once`: also
    /// where that makes the voters an even number.
    ///
    /// # Errors
    /// [`NothingStored::NotLeading`] where another node leads; a refusal, with what to do.
    pub async fn add(&self, votes_at_once: bool) -> Result<ClusterToken, NotDone> {
        self.invite(votes_at_once, None).await
    }

    /// The same for a node that takes the place of this one when it has the log. That one may be there until then, or not.
    ///
    /// # Errors
    /// As of [`Self::add`]; or there is no such node, or it leaves, or another one is to take its place; or the cluster's feature
    /// level is too low.
    pub async fn replace(&self, node: NodeId, by: &str, reason: &str) -> Result<ClusterToken, NotDone> {
        let replaced = NodeReplaced { node, by: by.to_owned(), reason: reason.to_owned() };
        self.invite(false, Some(replaced)).await
    }

    async fn invite(&self, votes_at_once: bool, replaces: Option<NodeReplaced>) -> Result<ClusterToken, NotDone> {
        self.writable.check()?;
        self.must_lead().await?;
        if self.speaking.is_none() {
            return Err(refused("this node has no address for others; start it with --peer-addr"));
        }
        self.shard.get_ready_for_others(self.log.clone()).await?;
        let secret: [u8; 32] = rand::random();
        let until = Millis(self.clock.now().0.saturating_add(TOKEN_LASTS_MS));
        let invited = NodeInvited { token: ClusterToken::digest(&secret), until, votes_at_once, replaces };
        match self.shard.propose_one(|out| invited.encode(out)).await? {
            Applied::Invited { node } => {
                let token = ClusterToken::new(self.cluster_id, node, self.segment_size, secret);
                Ok(token.in_life(self.belongs.borrow().incarnations.current()))
            }
            other => Err(NotDone::Unknown(format!("an invitation was answered with {other:?}"))),
        }
    }

    /// Lets a node belong to the cluster no more. It is gone when nobody counts on it any more, which its leader sees to.
    ///
    /// # Errors
    /// There is no such node, or it is the last, or those who are left could decide nothing; [`NothingStored::NotLeading`] where
    /// another node leads.
    pub async fn remove(&self, node: NodeId, by: &str, reason: &str) -> Result<(), NotDone> {
        self.must_lead().await?;
        let group = self.shard.group().await?;
        let stuck = majority::undecided_without(&group, &self.belongs.borrow().nodes, node);
        if let Some(why) = stuck {
            return Err(refused(&why));
        }
        self.remove_by_force(node, by, reason).await
    }

    /// The same, also where those who are left could decide nothing until more of them are there.
    ///
    /// # Errors
    /// There is no such node, or it is the last; [`NothingStored::NotLeading`] where another node leads.
    pub async fn remove_by_force(&self, node: NodeId, by: &str, reason: &str) -> Result<(), NotDone> {
        self.writable.check()?;
        let leaves = NodeLeaves { node, by: by.to_owned(), reason: reason.to_owned() };
        self.shard.propose_one(|out| leaves.encode(out)).await.map(drop)
    }

    /// Who votes when all who leave are gone, and when all who are invited have come where `all_come`: [`majority_of`] them decide.
    pub fn voters_then(&self, all_come: bool) -> Vec<NodeId> {
        let (belongs, now_ms) = (self.belongs.borrow(), all_come.then(|| self.clock.now().0));
        majority::voters_then(&belongs.members, &belongs.nodes, now_ms).into_iter().collect()
    }

    /// Lets another node lead, as soon as it has all of the log. When this returns, it leads.
    ///
    /// # Errors
    /// It does not vote, was not heard of, or did not take over; [`NothingStored::NotLeading`] where another node leads.
    pub async fn transfer_leader(&self, to: NodeId) -> Result<(), NotDone> {
        self.writable.check()?;
        self.shard.hand_over(to).await?;
        let began = Instant::now();
        loop {
            let group = self.shard.group().await?;
            match (standing::leader(&group), group.role) {
                (Some(leader), _) if leader == to => return Ok(()),
                (Some(other), Role::Follows { .. }) => {
                    return Err(refused(&format!(
                        "node {other} leads now, and not node {to}; ask again if that will not do"
                    )));
                }
                (Some(_), _) if began.elapsed() > TAKES_OVER_WITHIN => {
                    return Err(refused(&format!(
                        "node {to} did not take over within {} s, and node {} leads on; look at the log of node {to}",
                        TAKES_OVER_WITHIN.as_secs(),
                        group.node
                    )));
                }
                (None, _) if began.elapsed() > TAKES_OVER_WITHIN => {
                    return Err(NotDone::Unknown(format!(
                        "node {} leads no more, and does not know yet who does; look again in a moment",
                        group.node
                    )));
                }
                _ => sleep(LOOK_EVERY).await,
            }
        }
    }

    /// Who would best lead instead of this node: of those who vote, are heard of and connected, the one that has most of the log.
    ///
    /// # Errors
    /// There is none; [`NothingStored::NotLeading`] where another node leads.
    pub async fn successor(&self) -> Result<NodeId, NotDone> {
        self.must_lead().await?;
        let group = self.shard.group().await?;
        // One that stopped a moment ago was heard of, and its connection is gone.
        let links = self.speaking.as_ref().map(|speaking| speaking.nodes.states()).unwrap_or_default();
        let is_there =
            |node: &NodeId| links.get(node).is_none_or(LinkState::is_up) && group.members.voters.contains(node);
        let may = group.followers.iter().filter(|other| other.is_heard && is_there(&other.node));
        let best = may.max_by_key(|other| (other.durable, std::cmp::Reverse(other.node)));
        best.map(|other| other.node).ok_or_else(|| {
            refused("no other node votes and was heard of lately; `vouch cluster status` shows how all are")
        })
    }

    /// For how long this node has known of no leader; `None` while it knows one, or is alone.
    pub fn without_leader(&self) -> Option<Duration> {
        self.leader.without(Instant::now())
    }

    /// For how long this node's log has done nothing that it was asked for; `None` while it works. Its disk may hang.
    pub fn silent(&self) -> Option<Duration> {
        self.leader.silent(Instant::now())
    }

    /// Whether the nodes show each other certificates; `None` where this one has no others.
    pub fn is_secured(&self) -> Option<bool> {
        self.speaking.as_ref().map(|speaking| speaking.is_secured())
    }

    /// Reads the files for TLS between nodes anew, as these settings name them; `None` where there are none. Blocks: for a thread
    /// that serves nobody.
    ///
    /// # Errors
    /// A sentence: a file cannot be read, they do not fit each other, or are another node's.
    pub fn reread_certificates(&self, peers: Option<&PeerSettings>) -> Result<Option<RereadSecurity>, String> {
        let (Some(speaking), Some(peers)) = (&self.speaking, peers) else { return Ok(None) };
        speaking.reread(&peers.security)
    }

    /// Uses what was read for connections that begin from now on; whether it says something else than before.
    pub fn take_over_certificates(&self, read: RereadSecurity) -> bool {
        self.speaking.as_ref().is_some_and(|speaking| speaking.nodes.take_over_security(read))
    }

    /// Until when the other nodes believe the certificate of this one; `None` where it shows none.
    pub fn certificate_until(&self) -> Option<SystemTime> {
        self.speaking.as_ref()?.nodes.certificate_until()
    }

    /// Where this node listens for others; `None` where it has none.
    pub fn listens(&self) -> Option<SocketAddr> {
        self.speaking.as_ref().and_then(|speaking| speaking.listens())
    }

    /// Resolves when this node was removed from the cluster and has noted that in its folder, which no start takes again: it is
    /// to be stopped.
    pub async fn removed(&self) {
        match &self.speaking {
            Some(speaking) => speaking.removal.clone().heard().await,
            None => std::future::pending().await,
        }
    }

    /// Lets another node lead, if this one does and another can: to be called before a node is stopped, while it serves, so that
    /// nobody has to wait until it is missed.
    pub async fn resign(&self) {
        // Where there is none, or another one leads, there is nothing to do.
        let Ok(next) = self.successor().await else { return };
        tracing::info!(to = %next, "another node is to lead before this one stops");
        match timeout(RESIGNED_WITHIN, self.transfer_leader(next)).await {
            Ok(Ok(())) => {}
            Ok(Err(why)) => tracing::warn!(%why, "this node stops as the one that leads; the others elect one of them"),
            Err(_) => tracing::warn!("this node stops before another one leads; the others elect one of them"),
        }
    }

    /// How the cluster is, as this node knows.
    ///
    /// # Errors
    /// The node stops, or its log is only read.
    pub async fn status(&self) -> Result<ClusterView, NotDone> {
        let group = self.shard.group().await?;
        let (nodes, feature_level) = {
            let belongs = self.belongs.borrow();
            (belongs.nodes.clone(), belongs.feature_level)
        };
        let (mut links, mut refused, mut unread, mut crowded_out) = (BTreeMap::new(), 0, 0, 0);
        let mut programs = BTreeMap::new();
        if let Some(speaking) = &self.speaking {
            let others = &speaking.nodes;
            (links, refused) = (others.states(), others.refused());
            programs.extend(links.iter().filter_map(|(node, link)| match link {
                LinkState::Up(peer) => Some((*node, speaking.programs.of(*node, peer.incarnation)?)),
                LinkState::Down { .. } => None,
            }));
            (unread, crowded_out) = (others.unread(), others.crowded_out());
        }
        let mine = self.speaking.as_ref().and_then(|speaking| speaking.mine());
        let program = self.program.clone();
        let doubt = self.snapshots.comparison().doubt().map(|doubt| doubting::told(&doubt));
        Ok(ClusterView {
            group,
            nodes,
            mine,
            links,
            feature_level,
            program,
            programs,
            refused,
            unread,
            crowded_out,
            doubt,
        })
    }

    /// Where clients are to be led: to the node that leads, and to the others behind it. `None`: they stay where they are, since the
    /// settings do not say otherwise, nobody is known to lead, or a member does not say where clients reach it.
    #[must_use]
    pub fn client_route(&self) -> Option<Vec<String>> {
        let leader =
            self.leader().filter(|_| self.speaking.as_ref().is_some_and(|speaking| speaking.routes_to_leader()))?;
        routing::client_route(leader, &self.belongs.borrow().nodes)
    }

    /// Whether another node may lead: then calls may be passed on to it.
    #[must_use]
    pub fn has_others(&self) -> bool {
        self.leaders.has_others()
    }

    /// Who leads, as this node knows.
    #[must_use]
    pub fn leader(&self) -> Option<NodeId> {
        self.leaders.leader()
    }

    /// Whether this node leads.
    #[must_use]
    pub fn leads(&self) -> bool {
        self.leaders.is_here()
    }

    /// From now on requests over HTTP are answered by this until the node stops, those that came to other nodes included.
    pub fn serve_http(&self, serves: Arc<dyn ServeHttp>) {
        if self.has_others() {
            self.http.begin(serves);
        }
    }

    /// Resolves when this node leads, and all that was answered before is in its state.
    ///
    /// # Errors
    /// [`NothingStored::NotLeading`].
    pub async fn has_all(&self) -> Result<(), NotDone> {
        self.shard.lead(|_, _| ()).await
    }

    /// Lets the node that leads answer a request over HTTP. What it changes is applied here, too, when this resolves, unless this
    /// node is far behind.
    ///
    /// # Errors
    /// [`NothingStored::NotLeading`] where no leader was found in time; [`NotDone::Unknown`] where the leader may have done it, and
    /// did not say.
    pub async fn answer_http(&self, call: HttpCall) -> Result<HttpCallAnswer, NotDone> {
        let http = self.http.get().ok_or(NothingStored::Stopping)?;
        let here = async || {
            self.has_all().await?;
            http.answer(call.clone()).await
        };
        let ask = || ForwardedAsk::Http(Cow::Borrowed(&call));
        let answer = self.leaders.done_within(HTTP_WITHIN, here, ask, |answer| answer_of!(answer, Http)).await?;
        self.leaders.applied_here(&self.shard, answer.applied()).await;
        Ok(answer)
    }

    async fn must_lead(&self) -> Result<(), NotDone> {
        match self.shard.group().await?.role {
            Role::Leads { .. } => Ok(()),
            Role::Follows { leader } => Err(NothingStored::NotLeading { leader: leader.map(|node| node.0) }.into()),
        }
    }
}

fn refused(why: &str) -> NotDone {
    NotDone::Refused(Refusal::Conflict(why.to_owned()))
}
