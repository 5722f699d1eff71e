//! Client instances as the broker knows them: who is alive, what it declared, and how to reach it (protocol paper §4.0).
//!
//! Belongs to this node and is never replicated: clients tell it anew after every restart.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use vouch_broker::{ResourceName, TagFilter};
use vouch_protocol::limits::DECLARED_TOPICS_MAX;

use crate::member_filters::{Differing, MemberFilters, Place};
use crate::questions::{CheckCommand, Question, TelemetryStream};

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

struct Session {
    declaration: Declaration,
    streams: Vec<Arc<dyn TelemetryStream>>,
    last_heard: Instant,
    /// Tells this session from an earlier one of the same client, which was lost.
    generation: u64,
}

#[derive(Default)]
struct Table {
    by_client: HashMap<String, Session>,
    /// Producers that declared a topic.
    producers: HashMap<ResourceName, BTreeSet<String>>,
    /// Consumers of a group.
    members: HashMap<ResourceName, BTreeSet<String>>,
    /// What consumers ask for.
    filters: MemberFilters,
    /// Sessions so far.
    generations: u64,
}

/// All sessions of this node.
#[derive(Default)]
pub struct Sessions {
    table: Mutex<Table>,
    producers_changed: Notify,
    /// Times that filters in a group came to differ, or came to differ in another way.
    filter_differences: AtomicU64,
}

/// A producer whose stream took a question.
pub(crate) struct Asked {
    pub(crate) client_id: String,
    pub(crate) question: Question,
    pub(crate) stream: Arc<dyn TelemetryStream>,
    /// Of the client's session when it was asked.
    generation: u64,
}

/// What is known of a producer that was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AfterAsk {
    /// The question waits to be written.
    Unread,
    /// It was written, and nothing can be said yet.
    NotYet,
    /// It was written long enough ago, and its client made a call since.
    Silent,
    /// The session that was asked is gone, or the stream that carried the question is closed.
    Lost,
}

impl Sessions {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens a session, or replaces what its client declared. Returns `false` if there are too many.
    ///
    /// A consumer that declares no subscription keeps those it has: some say them only when they receive.
    pub fn declare(&self, client_id: &str, mut declaration: Declaration, now: Instant) -> bool {
        let mut table = self.table();
        if !table.by_client.contains_key(client_id) && table.by_client.len() >= SESSIONS_MAX {
            return false;
        }
        let before = table.withdraw(client_id);
        if let Some(before) = before.as_ref().filter(|before| before.group == declaration.group)
            && declaration.subscriptions.is_empty()
        {
            declaration.subscriptions.clone_from(&before.subscriptions);
        }
        let new_producer = !declaration.topics.is_empty();
        let same_filters = |before: &&Declaration| {
            before.group == declaration.group && before.subscriptions == declaration.subscriptions
        };
        let differing = if before.as_ref().is_some_and(|before| same_filters(&before)) {
            Vec::new()
        } else {
            table.filters.replace(before.iter().flat_map(places), places(&declaration), now)
        };
        table.enter(client_id, declaration, now);
        drop(table);
        self.tell_differing(client_id, differing);
        if new_producer {
            self.producers_changed.notify_one();
        }
        true
    }

    /// A consumer asks for this of a topic, whatever it declared: some declare no subscriptions in their settings. Returns
    /// `false` if there are too many sessions. One that asks for ever more topics is forgotten from its oldest.
    pub fn subscribe(
        &self,
        client_id: &str,
        role: Role,
        (group, topic, filter): (&ResourceName, &ResourceName, &TagFilter),
        now: Instant,
    ) -> bool {
        let mut table = self.table();
        let Table { by_client, filters, .. } = &mut *table;
        let member = by_client.get_mut(client_id).filter(|session| session.declaration.group.as_ref() == Some(group));
        let Some(session) = member else {
            drop(table);
            let subscriptions = vec![(topic.clone(), filter.clone())];
            let declaration = Declaration { role, topics: Vec::new(), group: Some(group.clone()), subscriptions };
            return self.declare(client_id, declaration, now);
        };
        session.heard(now);
        let subscriptions = &mut session.declaration.subscriptions;
        let known = subscriptions.iter().position(|(known, _)| known == topic);
        if known.is_some_and(|known| subscriptions[known].1 == *filter) {
            return true;
        }
        let oldest = (known.is_none() && subscriptions.len() >= DECLARED_TOPICS_MAX).then_some(0);
        let before = known.or(oldest).map(|at| subscriptions.remove(at));
        let before = before.iter().map(|(topic, filter)| (group, topic, filter));
        let differing = filters.replace(before, std::iter::once((group, topic, filter)), now);
        subscriptions.push((topic.clone(), filter.clone()));
        drop(table);
        self.tell_differing(client_id, differing);
        true
    }

    fn tell_differing(&self, client_id: &str, differing: Vec<Differing>) {
        for Differing { group, topic, filters, tell } in differing {
            self.filter_differences.fetch_add(1, Ordering::Relaxed);
            if tell {
                tracing::warn!(
                    %group, %topic, filters, client_id,
                    "members of a group have different filters; a message is skipped for the group only if none of \
                     them wants it, and each gets only what it asks for: give all members the same filter"
                );
            }
        }
    }

    /// How often filters of members of one group came to differ (ruling 12).
    pub fn filter_differences(&self) -> u64 {
        self.filter_differences.load(Ordering::Relaxed)
    }

    /// A stream of this client is open; commands may go over it. Attaching one again changes nothing.
    pub fn attach(&self, client_id: &str, stream: Arc<dyn TelemetryStream>) {
        let mut table = self.table();
        if let Some(session) = table.by_client.get_mut(client_id) {
            session.streams.retain(|old| old.is_open() && !Arc::ptr_eq(old, &stream));
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
        self.table().leave(client_id);
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
            table.leave(&client);
        }
    }

    /// Whether a client's session is alive.
    pub(crate) fn is_alive(&self, client_id: &str) -> bool {
        self.table().by_client.contains_key(client_id)
    }

    /// Whether a member of this group lives.
    pub(crate) fn has_member(&self, group: &ResourceName) -> bool {
        self.table().members.contains_key(group)
    }

    /// Different filters of a group's live members on a topic that are not `noted`, at most so many.
    pub(crate) fn unnoted_filters(
        &self,
        group: &ResourceName,
        topic: &ResourceName,
        max: usize,
        noted: impl Fn(&TagFilter) -> bool,
    ) -> Vec<TagFilter> {
        self.table().filters.of(group, topic).filter(|filter| !noted(filter)).take(max).cloned().collect()
    }

    /// Whether some live member of a group asks for this of a topic.
    pub(crate) fn has_filter(&self, place: Place<'_>) -> bool {
        self.table().filters.has(place)
    }

    /// Whether some live producer of a topic can be asked.
    pub(crate) fn has_producer(&self, topic: &ResourceName, origin: &str) -> bool {
        self.table().candidates(topic, origin).next().is_some()
    }

    /// Hands a question to a live producer: the half's own client first, then any other that declared the topic (ruling
    /// 2); not over the streams that were `tried`. `note` learns of a question before its client can answer.
    pub(crate) fn ask(
        &self,
        command: &CheckCommand,
        tried: &[Arc<dyn TelemetryStream>],
        mut note: impl FnMut(&str, &Question),
    ) -> Option<Asked> {
        let table = self.table();
        for (client, session) in table.candidates(&command.topic, &command.half.producer) {
            // The newest stream first: an older one may be a connection that broke unnoticed.
            for stream in session.streams.iter().rev() {
                if !stream.is_open() || tried.iter().any(|tried| Arc::ptr_eq(tried, stream)) {
                    continue;
                }
                let question = Question::new(command.clone());
                note(client, &question);
                if stream.send_check(question.clone()) {
                    let (client_id, stream) = (client.to_owned(), stream.clone());
                    return Some(Asked { client_id, question, stream, generation: session.generation });
                }
            }
        }
        None
    }

    /// What became of a question. A client is silent if `silence` passed since it was written and a call came since.
    pub(crate) fn after_ask(&self, asked: &Asked, silence: Duration, now: Instant) -> AfterAsk {
        let table = self.table();
        let session = table.by_client.get(&asked.client_id).filter(|session| session.generation == asked.generation);
        let Some(session) = session.filter(|_| asked.stream.is_open()) else { return AfterAsk::Lost };
        match asked.question.written_at() {
            None => AfterAsk::Unread,
            Some(at) if session.last_heard > at && now.saturating_duration_since(at) >= silence => AfterAsk::Silent,
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
    }

    fn can_be_asked(&self) -> bool {
        self.streams.iter().any(|stream| stream.is_open())
    }
}

impl Table {
    /// Takes a client's declaration out of the indexes.
    fn withdraw(&mut self, client_id: &str) -> Option<Declaration> {
        let declaration = self.by_client.get(client_id)?.declaration.clone();
        for topic in &declaration.topics {
            drop_from(&mut self.producers, topic, client_id);
        }
        if let Some(group) = &declaration.group {
            drop_from(&mut self.members, group, client_id);
        }
        Some(declaration)
    }

    /// Notes a declaration that is in no index, in the client's session or in a new one.
    fn enter(&mut self, client_id: &str, declaration: Declaration, now: Instant) {
        for topic in &declaration.topics {
            self.producers.entry(topic.clone()).or_default().insert(client_id.to_owned());
        }
        if let Some(group) = &declaration.group {
            self.members.entry(group.clone()).or_default().insert(client_id.to_owned());
        }
        match self.by_client.get_mut(client_id) {
            Some(session) => {
                session.declaration = declaration;
                session.heard(now);
            }
            None => {
                self.generations += 1;
                let generation = self.generations;
                let session = Session { declaration, streams: Vec::new(), last_heard: now, generation };
                self.by_client.insert(client_id.to_owned(), session);
            }
        }
    }

    /// Ends a session.
    fn leave(&mut self, client_id: &str) {
        let left = self.withdraw(client_id);
        self.by_client.remove(client_id);
        // One filter fewer is nothing to report.
        self.filters.replace(left.iter().flat_map(places), std::iter::empty(), Instant::now());
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

/// Where a consumer has a filter.
fn places(declaration: &Declaration) -> impl Iterator<Item = Place<'_>> {
    declaration
        .group
        .iter()
        .flat_map(|group| declaration.subscriptions.iter().map(move |(topic, filter)| (group, topic, filter)))
}

fn drop_from(index: &mut HashMap<ResourceName, BTreeSet<String>>, name: &ResourceName, client_id: &str) {
    if let Some(clients) = index.get_mut(name) {
        clients.remove(client_id);
        if clients.is_empty() {
            index.remove(name);
        }
    }
}

#[cfg(test)]
#[path = "sessions_tests.rs"]
mod tests;
