//! What a node tells of its sessions to the one that leads, and what that makes of it.
//!
//! Sessions belong to the node that has the client's connections; a leader needs to know of all of them: whose leases to extend,
//! which filters not to pass over, whom to ask about transactions. So each node reports its sessions when they change, and all of
//! them to a leader that does not know them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use vouch_broker::{ResourceName, TagFilter};
use vouch_cluster::NodeId;

use super::changes::ChangedSessions;
use super::questions::TelemetryStream;
use super::session::{DeclaredByClient, Session};
use super::table::SessionTable;
use super::{Client, DEAD_AFTER, SessionRole, Sessions};

/// How long a telling takes at most.
pub(crate) const TOLD_WITHIN: Duration = Duration::from_secs(3);

/// One session, as the node that has it knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ClientReport {
    client_id: String,
    address: Option<IpAddr>,
    role: SessionRole,
    topics: BTreeSet<ResourceName>,
    group: Option<ResourceName>,
    subscriptions: BTreeMap<ResourceName, TagFilter>,
    told: bool,
    halves: BTreeSet<ResourceName>,
    called: bool,
    /// It has a stream to that node.
    is_open: bool,
    heard_ms_ago: u64,
    declared_ms_ago: u64,
}

/// What changed of the sessions of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SessionChanges {
    /// Those that are new, or say something else.
    pub(crate) clients: Vec<ClientReport>,
    /// Those that were heard, and how many milliseconds ago.
    pub(crate) heard: Vec<(String, u64)>,
    /// Clients that said that they leave.
    pub(crate) gone: Vec<String>,
}

impl SessionChanges {
    /// Parts of it that are small, each: about so many bytes. One at least.
    pub(crate) fn in_parts(self, bytes_max: usize) -> Vec<Self> {
        let (mut parts, mut bytes) = (vec![Self::default()], 0);
        let mut next = |parts: &mut Vec<Self>, more: usize| {
            if bytes > 0 && bytes + more > bytes_max {
                parts.push(Self::default());
                bytes = 0;
            }
            bytes += more;
        };
        for client in self.clients {
            next(&mut parts, client.bytes());
            parts.last_mut().expect("one at least").clients.push(client);
        }
        for heard in self.heard {
            next(&mut parts, heard.0.len() + 16);
            parts.last_mut().expect("one at least").heard.push(heard);
        }
        for gone in self.gone {
            next(&mut parts, gone.len() + 8);
            parts.last_mut().expect("one at least").gone.push(gone);
        }
        parts
    }
}

impl ClientReport {
    /// About as many as it takes when it is told.
    fn bytes(&self) -> usize {
        let name = |name: &ResourceName| name.namespace.len() + name.name.len() + 24;
        let filter = |filter: &TagFilter| match filter {
            TagFilter::All => 8,
            TagFilter::Tags(tags) => 16 + 9 * tags.len(),
        };
        let topics = self.topics.iter().chain(&self.halves).chain(&self.group).map(name);
        let subscriptions = self.subscriptions.iter().map(|(topic, of)| name(topic) + filter(of));
        256 + self.client_id.len() + topics.sum::<usize>() + subscriptions.sum::<usize>()
    }
}

fn ms_ago(at: Instant, now: Instant) -> u64 {
    u64::try_from(now.saturating_duration_since(at).as_millis()).unwrap_or(u64::MAX)
}

fn report(id: &Arc<str>, session: &Session, now: Instant) -> ClientReport {
    let DeclaredByClient { role, topics, group, subscriptions, told } = session.declared.clone();
    ClientReport {
        client_id: id.to_string(),
        address: session.address,
        role,
        topics,
        group,
        subscriptions,
        told,
        halves: session.halves.clone(),
        called: session.called,
        is_open: session.streams.iter().any(|stream| stream.is_here() && stream.is_open()),
        heard_ms_ago: ms_ago(session.last_heard, now),
        declared_ms_ago: ms_ago(session.declared_at, now),
    }
}

/// Sessions that are looked at under one hold of the lock, which every call takes.
const AT_ONCE: usize = 256;

impl Sessions {
    /// From now on it is kept what changes, for [`Self::changes`].
    pub(crate) fn keep_changes(&self) {
        self.table().changes.are_kept = true;
    }

    /// What changed since this was last asked.
    pub(crate) fn changes(&self, now: Instant) -> SessionChanges {
        let ChangedSessions { clients, heard, gone, .. } = self.take_changes();
        let heard: Vec<_> = heard.into_iter().filter(|id| !clients.contains(id)).collect();
        let heard = heard.chunks(AT_ONCE).flat_map(|ids| {
            let table = self.table();
            let session = |id: &Arc<str>| Some((id.to_string(), ms_ago(table.by_client.get(id)?.last_heard, now)));
            ids.iter().filter_map(session).collect::<Vec<_>>()
        });
        let heard = heard.collect();
        let clients = self.reports(&clients.into_iter().collect::<Vec<_>>(), now);
        SessionChanges { heard, clients, gone: gone.iter().map(ToString::to_string).collect() }
    }

    /// All sessions; what changed before is among them.
    pub(crate) fn everything(&self, now: Instant) -> SessionChanges {
        let gone = self.take_changes().gone.iter().map(ToString::to_string).collect();
        let ids: Vec<_> = self.table().by_client.keys().cloned().collect();
        SessionChanges { clients: self.reports(&ids, now), heard: Vec::new(), gone }
    }

    fn take_changes(&self) -> ChangedSessions {
        let mut table = self.table();
        let are_kept = table.changes.are_kept;
        std::mem::replace(&mut table.changes, ChangedSessions { are_kept, ..ChangedSessions::default() })
    }

    fn reports(&self, ids: &[Arc<str>], now: Instant) -> Vec<ClientReport> {
        let some = |ids: &[Arc<str>]| {
            let table = self.table();
            ids.iter().filter_map(|id| Some(report(id, table.by_client.get(id)?, now))).collect::<Vec<_>>()
        };
        ids.chunks(AT_ONCE).flat_map(some).collect()
    }

    /// Whether something changed that is to be told at once.
    pub(crate) fn has_changes(&self) -> bool {
        self.table().changes.is_urgent()
    }

    /// Another node tells of its sessions. `stream`: the way to a client of that node. Returns whether all of those that are
    /// said to be known are: they may have ended here.
    pub(crate) fn reported(
        &self,
        from: NodeId,
        changes: SessionChanges,
        now: Instant,
        stream: impl Fn(&str) -> Arc<dyn TelemetryStream>,
    ) -> bool {
        let SessionChanges { clients, heard, gone } = changes;
        for client in clients {
            self.table().reported(from, client, now, &stream);
        }
        let mut are_known = true;
        for some in heard.chunks(AT_ONCE) {
            let mut table = self.table();
            for (client_id, ms_ago) in some {
                are_known &= table.heard_there(client_id, earlier(now, *ms_ago));
            }
        }
        for client_id in gone {
            self.table().close(&client_id, now);
        }
        self.producers_changed.notify_one();
        are_known
    }

    /// A node is not reached any more, or this one does not lead any more: streams of the clients of that node lead nowhere.
    pub(crate) fn lost(&self, node: NodeId, now: Instant) {
        let clients = self.table().there.of(node);
        for client_id in clients {
            self.table().closed_there(node, &client_id, now);
        }
    }
}

/// When that was, by the clock here, and no later: the telling took a while, at most so long.
fn earlier(now: Instant, ms_ago: u64) -> Instant {
    now.checked_sub(Duration::from_millis(ms_ago).saturating_add(TOLD_WITHIN)).unwrap_or(now)
}

impl SessionTable {
    fn reported(
        &mut self,
        from: NodeId,
        client: ClientReport,
        now: Instant,
        stream: &impl Fn(&str) -> Arc<dyn TelemetryStream>,
    ) {
        let ClientReport { client_id, address, role, topics, group, subscriptions, told, halves, called, .. } = client;
        let (heard, declared_at) = (earlier(now, client.heard_ms_ago), earlier(now, client.declared_ms_ago));
        let mut declared = DeclaredByClient { role, topics, group, subscriptions, told };
        if let Some(known) = self.by_client.get(&*client_id)
            && known.declared_at > declared_at
        {
            // It said something else since, to another node; or the same, in its receives, before this was told. What is older
            // adds what is missing, which passes nothing over; unless it is of a time when the client was elsewhere.
            let is_old = known.last_heard.saturating_duration_since(heard) > DEAD_AFTER;
            if is_old || known.declared.group != declared.group || known.declared.role != declared.role {
                declared = known.declared.clone();
            } else {
                declared.topics.extend(known.declared.topics.iter().cloned());
                declared.subscriptions.extend(known.declared.subscriptions.clone());
            }
        }
        let is_new = self.by_client.get(&*client_id).is_none_or(|known| known.declared != declared);
        if is_new {
            if let Err(no_room) = self.put(Client { id: &client_id, address }, declared, heard) {
                tracing::debug!(client_id, %no_room, "a client of another node finds no room among the sessions");
                return;
            }
            if let Some(session) = self.by_client.get_mut(&*client_id) {
                session.declared_at = declared_at;
            }
        }
        if let Some(session) = self.by_client.get_mut(&*client_id) {
            session.halves.extend(halves);
        }
        if called {
            self.heard_there(&client_id, heard);
        }
        if !client.is_open {
            return self.closed_there(from, &client_id, now);
        }
        let clients = self.there.0.entry(from).or_default();
        let stream = clients.entry(client_id.clone()).or_insert_with(|| stream(&client_id)).clone();
        // Again, if it is there: it may have been taken for closed.
        self.attach(&client_id, stream);
    }

    /// Returns whether the client is known.
    fn heard_there(&mut self, client_id: &str, at: Instant) -> bool {
        let Some(known) = self.by_client.get(client_id) else { return false };
        let latest = known.last_heard.max(at);
        self.heard(client_id, latest)
    }

    fn closed_there(&mut self, node: NodeId, client_id: &str, now: Instant) {
        let Some(clients) = self.there.0.get_mut(&node) else { return };
        let closed = clients.remove(client_id);
        if clients.is_empty() {
            self.there.0.remove(&node);
        }
        if let Some(stream) = closed {
            self.detach(client_id, &stream, now);
        }
    }
}
