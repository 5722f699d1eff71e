//! The other nodes, as the shard and the calls reach them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::SystemTime;

use bytes::Bytes;
use tokio::time::Instant;
use vouch_cluster::NodeId;
use vouch_commitlog::{EntrySpan, LogIdentity};
use vouch_consensus::GroupMessage;
use vouch_shard::{Inbox, LeaderEntry, Peers};
use vouch_transport::{CallFailed, Caller, GroupLink, LinkState, PeerIdentity, RereadSecurity, Transport};

use super::calls::{NodeAnswer, NodeRequest};
use super::clients::ClientAnswer;
use super::frames;
use crate::served_shard::SHARD;

/// The links to one node: they are kept for as long as it belongs to the cluster.
struct PeerLinks {
    group: GroupLink,
    calls: Caller,
    sessions: Caller,
}

/// The other nodes of the cluster, over their connections.
pub(crate) struct PeerNodes {
    pub(crate) me: NodeId,
    pub(super) transport: Transport,
    /// Where messages of the group go.
    inbox: Arc<Inbox>,
    /// Whose entries they hold.
    log: LogIdentity,
    links: RwLock<BTreeMap<NodeId, PeerLinks>>,
    unread: AtomicU64,
    crowded_out: AtomicU64,
    /// This node hears nothing of the group.
    deaf: AtomicBool,
}

impl Peers for PeerNodes {
    /// To a node that is not known, or that cannot be reached, nothing is sent: what matters is said again.
    fn send(&self, message: GroupMessage, entries: Vec<EntrySpan>) {
        let links = self.links.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(link) = links.get(&message.to) {
            // The link counts what it drops.
            let _ = link.group.send(frames::encode(&message, &entries));
        }
    }
}

impl PeerNodes {
    pub(super) fn new(me: NodeId, transport: Transport, inbox: Arc<Inbox>, log: LogIdentity) -> Self {
        Self {
            me,
            transport,
            inbox,
            log,
            links: RwLock::default(),
            unread: AtomicU64::new(0),
            crowded_out: AtomicU64::new(0),
            deaf: AtomicBool::new(false),
        }
    }

    /// From now on these are the others, and there. Who is not among them any more is removed, with all its connections. On the
    /// runtime that keeps the links.
    pub(super) fn are(&self, addresses: &BTreeMap<NodeId, String>) {
        for (node, address) in addresses {
            self.transport.peers().set(node.0, address);
        }
        let mut links = self.links.write().unwrap_or_else(PoisonError::into_inner);
        for node in addresses.keys() {
            links.entry(*node).or_insert_with(|| PeerLinks {
                group: self.transport.group(node.0, SHARD.0.into()),
                calls: self.transport.caller(node.0),
                sessions: self.transport.session_caller(node.0),
            });
        }
        let gone: Vec<_> =
            links.extract_if(.., |node, _| !addresses.contains_key(node)).map(|(node, _)| node).collect();
        drop(links);
        for node in gone {
            tracing::info!(%node, "a node is none of the cluster's any more; its connections end");
            self.transport.remove_peer(node.0);
        }
    }

    /// Ends the links to all of them.
    pub(super) fn end(&self) {
        self.links.write().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// From now on messages of the group are dropped, or not any more.
    ///
    /// # To ensure correctness
    /// A node that asks to be let in has part in nothing before it is: its folder may have been that of a member, and was wiped since.
    /// Such a one would vote once more in a term in which it had voted, and for somebody who lacks what it had acknowledged. Whoever
    /// leads tells it apart from a node that heard no answer, by what that has acknowledged: nothing.
    pub(super) fn hears(&self, hears: bool) {
        self.deaf.store(!hears, Ordering::SeqCst);
    }

    /// Takes a message of the group. Whatever is not one, or comes from somebody else than it says, is dropped and counted.
    pub(super) fn receive(&self, from: PeerIdentity, shard: u32, datagram: Bytes) {
        if self.deaf.load(Ordering::SeqCst) {
            return;
        }
        let read = if shard == u32::from(SHARD.0) { frames::decode(datagram, &self.log).ok() } else { None };
        let read = read.filter(|(message, _)| (message.from.0, message.to) == (from.node, self.me));
        match read {
            Some((message, spans)) => {
                if !self.inbox.push_message(message, spans.into_iter().map(LeaderEntry).collect()) {
                    self.crowded_out.fetch_add(1, Ordering::Relaxed);
                }
            }
            None => {
                if self.unread.fetch_add(1, Ordering::Relaxed) == 0 {
                    tracing::warn!(
                        node = from.node,
                        "a peer sent what is no message of the group; it is dropped, as all that follow"
                    );
                }
            }
        }
    }

    /// Asks another node.
    ///
    /// # Errors
    /// Whether it may have heard of it is told apart.
    pub(super) async fn ask(
        &self,
        node: NodeId,
        request: &NodeRequest,
        deadline: Instant,
    ) -> Result<NodeAnswer, CallFailed> {
        self.ask_in_pieces(node, |links| links.calls.clone(), vec![request.encode()], deadline).await
    }

    /// Asks another node for a client: that which leads.
    ///
    /// # Errors
    /// Whether it may have heard of it is told apart.
    pub(crate) async fn ask_for_client(
        &self,
        node: NodeId,
        call: Bytes,
        deadline: Instant,
    ) -> Result<ClientAnswer, CallFailed> {
        self.client_answer(node, |links| links.calls.clone(), call, deadline).await
    }

    /// Asks another node about sessions.
    ///
    /// # Errors
    /// As above.
    pub(crate) async fn ask_about_session(
        &self,
        node: NodeId,
        ask: Bytes,
        deadline: Instant,
    ) -> Result<ClientAnswer, CallFailed> {
        self.client_answer(node, |links| links.sessions.clone(), ask, deadline).await
    }

    async fn client_answer(
        &self,
        node: NodeId,
        link: impl Fn(&PeerLinks) -> Caller,
        call: Bytes,
        deadline: Instant,
    ) -> Result<ClientAnswer, CallFailed> {
        match self.ask_in_pieces(node, link, vec![NodeRequest::before_a_client(), call], deadline).await? {
            NodeAnswer::Client(answer) => Ok(ClientAnswer::Answered(answer)),
            NodeAnswer::NothingStored(why) | NodeAnswer::Refused(why) => Ok(ClientAnswer::NothingStored(why)),
            NodeAnswer::Unknown(why) => Err(CallFailed::Unknown(why)),
            NodeAnswer::Done(_) | NodeAnswer::Had(_) => {
                Err(CallFailed::Unknown(format!("node {node} answered something else")))
            }
        }
    }

    async fn ask_in_pieces(
        &self,
        node: NodeId,
        link: impl Fn(&PeerLinks) -> Caller,
        pieces: Vec<Bytes>,
        deadline: Instant,
    ) -> Result<NodeAnswer, CallFailed> {
        let caller = {
            let links = self.links.read().unwrap_or_else(PoisonError::into_inner);
            links.get(&node).map(link)
        };
        let caller = caller.ok_or_else(|| CallFailed::NotSent(format!("no address of node {node} is known")))?;
        let answer = caller.call(pieces, deadline).await?;
        NodeAnswer::decode(answer).map_err(|why| CallFailed::Unknown(format!("node {node} answers, and {why}")))
    }

    /// How the links for calls stand.
    pub(crate) fn states(&self) -> BTreeMap<NodeId, LinkState> {
        let links = self.links.read().unwrap_or_else(PoisonError::into_inner);
        links.iter().map(|(node, links)| (*node, links.calls.state())).collect()
    }

    /// Whether there is a connection to it.
    pub(super) fn is_up(&self, node: NodeId) -> bool {
        let links = self.links.read().unwrap_or_else(PoisonError::into_inner);
        links.get(&node).is_some_and(|links| links.calls.state().is_up() && links.group.state().is_up())
    }

    /// Whether it can be asked about sessions.
    pub(crate) fn reaches_sessions(&self, node: NodeId) -> bool {
        let links = self.links.read().unwrap_or_else(PoisonError::into_inner);
        links.get(&node).is_some_and(|links| links.sessions.state().is_up())
    }

    /// A node that can be asked.
    pub(super) fn any_up(&self) -> Option<NodeId> {
        let links = self.links.read().unwrap_or_else(PoisonError::into_inner);
        links.iter().find(|(_, links)| links.calls.state().is_up()).map(|(node, _)| *node)
    }

    /// Datagrams that were no message of the group.
    pub(crate) fn unread(&self) -> u64 {
        self.unread.load(Ordering::Relaxed)
    }

    /// Messages of the group for which there was no room: this node is slower than they come.
    pub(crate) fn crowded_out(&self) -> u64 {
        self.crowded_out.load(Ordering::Relaxed)
    }

    /// Uses other files for TLS on connections that begin from now on; whether they say something else.
    pub(crate) fn take_over_security(&self, read: RereadSecurity) -> bool {
        self.transport.take_over_security(read)
    }

    /// Until when others believe this node's certificate; `None` without TLS.
    pub(crate) fn certificate_until(&self) -> Option<SystemTime> {
        self.transport.certificate_until()
    }

    /// Connections of nodes that were refused.
    pub(crate) fn refused(&self) -> u64 {
        self.transport.refused()
    }
}
