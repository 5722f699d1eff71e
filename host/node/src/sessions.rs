//! Client instances as the broker knows them: who is alive, what it declared, and how to reach it (protocol paper §4.0).
//!
//! Belongs to this node and is never replicated: clients tell it anew after every restart.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use vouch_broker::{ResourceName, StoredMessage, TagFilter};

/// Silence after which a session is over. Well above the longest heartbeat interval of any client, 30 s.
pub const SESSION_LIMIT: Duration = Duration::from_secs(120);
/// Most sessions at once.
pub const SESSIONS_MAX: usize = 100_000;

/// What a client is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Sends.
    Producer,
    /// Receives and has its leases renewed.
    PushConsumer,
    /// Receives and renews by itself.
    SimpleConsumer,
}

/// What a client said about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Declaration {
    /// What it is.
    pub role: Role,
    /// Topics that a producer declared.
    pub topics: Vec<ResourceName>,
    /// Group of a consumer.
    pub group: Option<ResourceName>,
    /// Subscriptions of a consumer.
    pub subscriptions: Vec<(ResourceName, TagFilter)>,
}

/// A question about a half message, for a producer's telemetry stream.
#[derive(Clone, Debug)]
pub struct CheckCommand {
    /// Topic of the half.
    pub topic: ResourceName,
    /// The transaction.
    pub transaction: u64,
    /// The half message.
    pub half: StoredMessage,
}

/// One telemetry stream of a client.
///
/// # To ensure correctness
///
/// `send_check` neither blocks nor waits: it puts the command into a bounded queue, or answers `false`.
pub trait TelemetryStream: Send + Sync {
    /// Hands over a question; `false` if the stream is closed or its queue is full.
    fn send_check(&self, command: CheckCommand) -> bool;
    /// Whether the stream is still open.
    fn is_open(&self) -> bool;
}

struct Session {
    declaration: Declaration,
    streams: Vec<Arc<dyn TelemetryStream>>,
    last_heard: Instant,
    /// Calls so far: tells a call after an ask from one before it.
    calls: u64,
}

#[derive(Default)]
struct Table {
    by_client: HashMap<String, Session>,
    /// Producers that declared a topic.
    producers: HashMap<ResourceName, BTreeSet<String>>,
}

/// All sessions of this node.
#[derive(Default)]
pub struct Sessions {
    table: Mutex<Table>,
    producers_changed: Notify,
}

/// How a producer was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) client_id: String,
    /// Calls of that client before the ask.
    pub(crate) calls: u64,
}

/// What is known of a producer that was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AfterAsk {
    /// It lives and made a call since.
    Heard,
    /// Nothing since.
    NotYet,
    /// Its session is gone.
    Lost,
}

impl Sessions {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens a session, or replaces what its client declared. Returns `false` if there are too many.
    pub fn declare(&self, client_id: &str, declaration: Declaration, now: Instant) -> bool {
        let mut table = self.table();
        if !table.by_client.contains_key(client_id) && table.by_client.len() >= SESSIONS_MAX {
            return false;
        }
        table.forget_topics(client_id);
        for topic in &declaration.topics {
            table.producers.entry(topic.clone()).or_default().insert(client_id.to_owned());
        }
        let new_producer = !declaration.topics.is_empty();
        match table.by_client.get_mut(client_id) {
            Some(session) => {
                session.declaration = declaration;
                session.heard(now);
            }
            None => {
                let session = Session { declaration, streams: Vec::new(), last_heard: now, calls: 1 };
                table.by_client.insert(client_id.to_owned(), session);
            }
        }
        drop(table);
        if new_producer {
            self.producers_changed.notify_one();
        }
        true
    }

    /// A stream of this client is open; commands may go over it.
    pub fn attach(&self, client_id: &str, stream: Arc<dyn TelemetryStream>) {
        let mut table = self.table();
        if let Some(session) = table.by_client.get_mut(client_id) {
            session.streams.retain(|old| old.is_open());
            session.streams.push(stream);
        }
        drop(table);
        self.producers_changed.notify_one();
    }

    /// The client made a call. Returns whether its session is known.
    pub fn heard(&self, client_id: &str, now: Instant) -> bool {
        self.table().by_client.get_mut(client_id).map(|session| session.heard(now)).is_some()
    }

    /// The client sent a half message to this topic: it can be asked about it, whatever it declared.
    pub(crate) fn note_half(&self, client_id: &str, topic: &ResourceName) {
        let mut table = self.table();
        let Some(session) = table.by_client.get_mut(client_id) else { return };
        if !session.declaration.topics.contains(topic) {
            session.declaration.topics.push(topic.clone());
            table.producers.entry(topic.clone()).or_default().insert(client_id.to_owned());
        }
    }

    /// What a client declared.
    pub fn declaration(&self, client_id: &str) -> Option<Declaration> {
        self.table().by_client.get(client_id).map(|session| session.declaration.clone())
    }

    /// The client said that it leaves.
    pub fn close(&self, client_id: &str) {
        let mut table = self.table();
        table.forget_topics(client_id);
        table.by_client.remove(client_id);
    }

    /// How many sessions there are: producers, consumers.
    pub fn count(&self) -> (usize, usize) {
        let table = self.table();
        let producers = table.by_client.values().filter(|s| s.declaration.role == Role::Producer).count();
        (producers, table.by_client.len() - producers)
    }

    /// Ends sessions that were silent for [`SESSION_LIMIT`].
    pub(crate) fn expire(&self, now: Instant) {
        let mut table = self.table();
        let silent: Vec<String> = table
            .by_client
            .iter()
            .filter(|(_, session)| now.saturating_duration_since(session.last_heard) > SESSION_LIMIT)
            .map(|(client, _)| client.clone())
            .collect();
        for client in silent {
            tracing::info!(client, "session ended by silence");
            table.forget_topics(&client);
            table.by_client.remove(&client);
        }
    }

    /// Whether a client's session is alive.
    pub(crate) fn is_alive(&self, client_id: &str) -> bool {
        self.table().by_client.contains_key(client_id)
    }

    /// Filters of a group's live members on a topic, `except` the one that asks (ruling 12).
    pub(crate) fn other_filters(&self, group: &ResourceName, topic: &ResourceName, except: &str) -> Vec<TagFilter> {
        let table = self.table();
        table
            .by_client
            .iter()
            .filter(|(client, session)| *client != except && session.declaration.group.as_ref() == Some(group))
            .flat_map(|(_, session)| &session.declaration.subscriptions)
            .filter(|(subscribed, _)| subscribed == topic)
            .map(|(_, filter)| filter.clone())
            .collect()
    }

    /// Whether some live producer of a topic can be asked.
    pub(crate) fn has_producer(&self, topic: &ResourceName, origin: &str) -> bool {
        self.table().candidates(topic, origin).next().is_some()
    }

    /// Asks a live producer: the half's own client first, then any other that declared the topic (ruling 2).
    pub(crate) fn ask(&self, origin: &str, command: &CheckCommand) -> Option<Asked> {
        let table = self.table();
        table.candidates(&command.topic, origin).find_map(|(client, session)| {
            let calls = session.calls;
            let sent = session.streams.iter().rev().any(|stream| stream.send_check(command.clone()));
            sent.then(|| Asked { client_id: client.to_owned(), calls })
        })
    }

    pub(crate) fn after_ask(&self, asked: &Asked) -> AfterAsk {
        match self.table().by_client.get(&asked.client_id) {
            None => AfterAsk::Lost,
            Some(session) if session.calls > asked.calls => AfterAsk::Heard,
            Some(_) => AfterAsk::NotYet,
        }
    }

    /// Resolves when a producer may have come.
    pub(crate) async fn producers_changed(&self) {
        self.producers_changed.notified().await;
    }
}

impl Session {
    fn heard(&mut self, now: Instant) {
        self.last_heard = now;
        self.calls += 1;
    }

    fn can_be_asked(&self) -> bool {
        self.streams.iter().any(|stream| stream.is_open())
    }
}

impl Table {
    fn forget_topics(&mut self, client_id: &str) {
        let Some(session) = self.by_client.get(client_id) else { return };
        for topic in &session.declaration.topics {
            if let Some(clients) = self.producers.get_mut(topic) {
                clients.remove(client_id);
                if clients.is_empty() {
                    self.producers.remove(topic);
                }
            }
        }
    }

    fn candidates<'a>(
        &'a self,
        topic: &'a ResourceName,
        origin: &'a str,
    ) -> impl Iterator<Item = (&'a str, &'a Session)> {
        let own = self.by_client.get_key_value(origin).filter(|(_, s)| s.declaration.role == Role::Producer);
        let others = self.producers.get(topic).into_iter().flatten().filter(move |client| *client != origin);
        own.into_iter()
            .chain(others.filter_map(|client| self.by_client.get_key_value(client.as_str())))
            .filter(|(_, session)| session.can_be_asked())
            .map(|(client, session)| (client.as_str(), session))
    }
}

#[cfg(test)]
#[path = "sessions_tests.rs"]
mod tests;
