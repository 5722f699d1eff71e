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

use super::questions::TelemetryStream;
use super::session::{DeclaredByClient, Session};
use super::table::SessionTable;
use super::{Client, SessionRole, Sessions};

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

/// What changed since that was last asked; nothing is kept where nobody asks.
#[derive(Debug, Default)]
pub(super) struct ChangedSessions {
    pub(super) are_kept: bool,
    clients: BTreeSet<Arc<str>>,
    heard: BTreeSet<Arc<str>>,
    gone: BTreeSet<Arc<str>>,
}

impl ChangedSessions {
    pub(super) fn changed(&mut self, id: &Arc<str>) {
        if self.are_kept {
            self.gone.remove(id);
            self.clients.insert(Arc::clone(id));
        }
    }

    pub(super) fn heard(&mut self, id: &Arc<str>) {
        if self.are_kept && !self.heard.contains(id) {
            self.heard.insert(Arc::clone(id));
        }
    }

    pub(super) fn gone(&mut self, id: &Arc<str>) {
        if self.are_kept {
            self.clients.remove(id);
            self.heard.remove(id);
            self.gone.insert(Arc::clone(id));
        }
    }

    /// Whether something is to be told at once: that a client was heard can wait.
    fn is_urgent(&self) -> bool {
        !self.clients.is_empty() || !self.gone.is_empty()
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
    }
}

impl Sessions {
    /// From now on it is kept what changes, for [`Self::changes`].
    pub(crate) fn keep_changes(&self) {
        self.table().changes.are_kept = true;
    }

    /// What changed since this was last asked.
    pub(crate) fn changes(&self, now: Instant) -> SessionChanges {
        let mut table = self.table();
        let ChangedSessions { are_kept, clients, heard, gone } = std::mem::take(&mut table.changes);
        table.changes.are_kept = are_kept;
        let session = |id: &Arc<str>| table.by_client.get(id);
        SessionChanges {
            heard: heard
                .iter()
                .filter(|id| !clients.contains(*id))
                .filter_map(|id| Some((id.to_string(), ms_ago(session(id)?.last_heard, now))))
                .collect(),
            clients: clients.iter().filter_map(|id| Some(report(id, session(id)?, now))).collect(),
            gone: gone.iter().map(ToString::to_string).collect(),
        }
    }

    /// All sessions; what changed before is among them.
    pub(crate) fn everything(&self, now: Instant) -> SessionChanges {
        let mut table = self.table();
        table.changes = ChangedSessions { are_kept: table.changes.are_kept, ..ChangedSessions::default() };
        let clients = table.by_client.iter().map(|(id, session)| report(id, session, now)).collect();
        SessionChanges { clients, ..SessionChanges::default() }
    }

    /// Whether something changed that is to be told at once.
    pub(crate) fn has_changes(&self) -> bool {
        self.table().changes.is_urgent()
    }

    /// Another node tells of its sessions. `stream`: the way to a client of that node.
    ///
    /// What is newer holds: a client that came here meanwhile, or to a third node, is known better.
    pub(crate) fn reported(
        &self,
        from: NodeId,
        changes: SessionChanges,
        now: Instant,
        stream: impl Fn(&str) -> Arc<dyn TelemetryStream>,
    ) {
        let SessionChanges { clients, heard, gone } = changes;
        for client in clients {
            self.table().reported(from, client, now, &stream);
        }
        let mut table = self.table();
        for (client_id, ms_ago) in heard {
            table.heard_there(&client_id, earlier(now, ms_ago));
        }
        for client_id in gone {
            table.close(&client_id, now);
        }
        drop(table);
        self.producers_changed.notify_one();
    }

    /// A node is not reached any more, or this one does not lead any more: streams of the clients of that node lead nowhere.
    pub(crate) fn lost(&self, node: NodeId, now: Instant) {
        let mut table = self.table();
        for client_id in table.there.of(node) {
            table.closed_there(node, &client_id, now);
        }
    }
}

fn earlier(now: Instant, ms_ago: u64) -> Instant {
    now.checked_sub(Duration::from_millis(ms_ago)).unwrap_or(now)
}

/// Streams that clients have to other nodes.
#[derive(Default)]
pub(super) struct StreamsThere(BTreeMap<NodeId, BTreeMap<String, Arc<dyn TelemetryStream>>>);

impl StreamsThere {
    fn of(&self, node: NodeId) -> Vec<String> {
        self.0.get(&node).into_iter().flat_map(BTreeMap::keys).cloned().collect()
    }

    fn has(&self, node: NodeId, client_id: &str) -> bool {
        self.0.get(&node).is_some_and(|clients| clients.contains_key(client_id))
    }
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
        let heard = earlier(now, client.heard_ms_ago);
        let is_newer = self.by_client.get(&*client_id).is_none_or(|known| known.last_heard <= heard);
        if is_newer {
            let declared = DeclaredByClient { role, topics, group, subscriptions, told };
            if let Err(no_room) = self.put(Client { id: &client_id, address }, declared, heard) {
                tracing::debug!(client_id, %no_room, "a client of another node finds no room among the sessions");
                return;
            }
            if let Some(session) = self.by_client.get_mut(&*client_id) {
                session.halves.extend(halves);
            }
            if called {
                self.heard(&client_id, heard);
            }
        }
        match client.is_open {
            true if !self.there.has(from, &client_id) => {
                let stream = stream(&client_id);
                self.there.0.entry(from).or_default().insert(client_id.clone(), stream.clone());
                self.attach(&client_id, stream);
            }
            false => self.closed_there(from, &client_id, now),
            true => {}
        }
    }

    fn heard_there(&mut self, client_id: &str, at: Instant) {
        if self.by_client.get(client_id).is_some_and(|known| known.last_heard < at) {
            self.heard(client_id, at);
        }
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
