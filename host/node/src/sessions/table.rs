//! The sessions themselves, and the indexes over what they declared.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use vouch_broker::{ResourceName, TagFilter};

use super::asking::Producers;
use super::filters::{Differing, Groups, Told};
use super::lease_life::LeaseLife;
use super::room::{NoRoom, Room};
use super::{Client, Declaration, Role, SESSION_LIMIT, SETTINGS_ONLY_LIMIT};
use crate::questions::TelemetryStream;

/// What a session holds about its client, fit to be compared and looked up.
#[derive(Clone, Debug, Default)]
pub(super) struct Declared {
    pub(super) role: Role,
    pub(super) topics: BTreeSet<ResourceName>,
    pub(super) group: Option<ResourceName>,
    pub(super) subscriptions: BTreeMap<ResourceName, TagFilter>,
    /// The client said so in its settings; else it follows from its calls.
    pub(super) told: bool,
}

impl Declared {
    /// What settings say.
    pub(super) fn told(declaration: Declaration) -> Self {
        let Declaration { role, topics, group, subscriptions } = declaration;
        let (topics, subscriptions) = (topics.into_iter().collect(), subscriptions.into_iter().collect());
        Self { role, topics, group, subscriptions, told: true }
    }
}

/// What is known of one client.
pub(super) struct Session {
    pub(super) declared: Declared,
    /// Topics that the client sent half messages to, among those it declared or not.
    pub(super) halves: BTreeSet<ResourceName>,
    pub(super) streams: Vec<Arc<dyn TelemetryStream>>,
    pub(super) last_heard: Instant,
    /// It made a call besides its settings.
    pub(super) called: bool,
    /// When its last stream closed; when it began, if it never had one.
    pub(super) streamless_since: Instant,
    /// Leases of this client may live until then; `None` if it never got one.
    pub(super) leased_until: Option<Instant>,
    /// It waits in the order of those that may be dead.
    pub(super) fading: bool,
    /// Its leases were given up.
    pub(super) dead: bool,
    /// Tells this session from an earlier one of the same client, which was lost.
    pub(super) generation: u64,
    /// Whose share it is in.
    pub(super) address: Option<IpAddr>,
    /// Bytes that it counts for.
    pub(super) bytes: usize,
    /// Its place in the order of silence: no later than when it was last heard.
    pub(super) silent_from: Instant,
}

impl Session {
    pub(super) fn has_open_stream(&self) -> bool {
        self.streams.iter().any(|stream| stream.is_open())
    }

    /// It made no call but its settings, and its stream is gone.
    pub(super) fn is_mute(&self) -> bool {
        !self.called && self.streams.is_empty()
    }
}

/// All of them.
#[derive(Default)]
pub(super) struct Table {
    pub(super) by_client: HashMap<Arc<str>, Session>,
    /// Those of them that are producers.
    producing: usize,
    /// Sessions so far.
    generations: u64,
    pub(super) producers: Producers,
    pub(super) groups: Groups,
    pub(super) told: Told,
    pub(super) room: Room,
    pub(super) leases: LeaseLife,
}

impl Table {
    pub(super) fn count(&self) -> (usize, usize) {
        (self.producing, self.by_client.len() - self.producing)
    }

    /// Settings came. Gives the topics where filters differ now, and did not before, or in another way.
    pub(super) fn declare(
        &mut self,
        client: Client<'_>,
        mut declared: Declared,
        now: Instant,
    ) -> Result<Vec<Differing>, NoRoom> {
        if let Some(session) = self.by_client.get(client.id) {
            if declared.subscriptions.is_empty() && session.declared.group == declared.group {
                declared.subscriptions.clone_from(&session.declared.subscriptions);
            }
            if declared.role == Role::Producer {
                declared.topics.extend(session.halves.iter().cloned());
            }
        }
        self.put(client, declared, now)
    }

    pub(super) fn introduce(
        &mut self,
        client: Client<'_>,
        role: Role,
        group: Option<ResourceName>,
        now: Instant,
    ) -> Result<(), NoRoom> {
        let topics = if role == Role::Producer { self.producers.recall(client.id) } else { BTreeSet::new() };
        let declared = Declared { role, topics, group, ..Declared::default() };
        self.put(client, declared, now)?;
        self.heard(client.id, now);
        Ok(())
    }

    /// Puts what is known of a client into its session, or into a new one, and into the indexes.
    pub(super) fn put(
        &mut self,
        client: Client<'_>,
        declared: Declared,
        now: Instant,
    ) -> Result<Vec<Differing>, NoRoom> {
        let bytes = self.make_room(client, &declared, now)?;
        let id = match self.by_client.get_key_value(client.id) {
            Some((id, _)) => Arc::clone(id),
            None => self.begin(client, now),
        };
        let session = self.by_client.get_mut(&id).expect("it was there, or began just now");
        self.room.grow(session.address, session.bytes, bytes);
        session.bytes = bytes;
        session.last_heard = now;
        let before = std::mem::replace(&mut session.declared, declared);
        let after = &session.declared;
        if !session.streams.is_empty() {
            self.producers.unlist(&id, &before.topics);
            self.producers.list(&id, &after.topics);
        }
        self.producing -= usize::from(before.role == Role::Producer);
        self.producing += usize::from(after.role == Role::Producer);
        let differing = self.groups.change(&before, after);
        self.leases.revive(&id, session);
        Ok(differing)
    }

    /// Begins a session that says nothing yet. The streams that its client has open already belong to it.
    fn begin(&mut self, client: Client<'_>, now: Instant) -> Arc<str> {
        let id: Arc<str> = client.id.into();
        self.generations += 1;
        let session = Session {
            declared: Declared::default(),
            halves: BTreeSet::new(),
            streams: self.producers.claim(client.id),
            last_heard: now,
            called: false,
            streamless_since: now,
            leased_until: None,
            fading: false,
            dead: false,
            generation: self.generations,
            address: client.address,
            bytes: 0,
            silent_from: now,
        };
        self.producing += 1;
        self.room.enter(&id, &session);
        self.by_client.insert(Arc::clone(&id), session);
        id
    }

    pub(super) fn heard(&mut self, client_id: &str, now: Instant) -> bool {
        let Some(session) = self.by_client.get_mut(client_id) else { return false };
        session.last_heard = now;
        let first = !std::mem::replace(&mut session.called, true);
        if (first && session.streams.is_empty()) || session.dead {
            self.woke(client_id, first);
        }
        true
    }

    /// A session that was about to go is not, any more.
    fn woke(&mut self, client_id: &str, first_call: bool) {
        let Some((id, _)) = self.by_client.get_key_value(client_id) else { return };
        let id = Arc::clone(id);
        let Some(session) = self.by_client.get_mut(&id) else { return };
        if first_call && session.streams.is_empty() {
            self.room.not_mute(&id, session.address, session.streamless_since);
        }
        self.leases.revive(&id, session);
    }

    /// A stream of this client opened. Returns whether the client is known.
    pub(super) fn attach(&mut self, client_id: &str, stream: Arc<dyn TelemetryStream>) -> bool {
        let Some((id, _)) = self.by_client.get_key_value(client_id) else {
            self.producers.keep_for(client_id, stream);
            return false;
        };
        let id = Arc::clone(id);
        let Some(session) = self.by_client.get_mut(&id) else { return false };
        let was_mute = session.is_mute();
        let first = session.streams.is_empty();
        super::asking::add(&mut session.streams, stream);
        if was_mute {
            self.room.not_mute(&id, session.address, session.streamless_since);
        }
        if first {
            self.producers.list(&id, &session.declared.topics);
        }
        true
    }

    /// A stream of this client closed.
    pub(super) fn detach(&mut self, client_id: &str, stream: &Arc<dyn TelemetryStream>, now: Instant) {
        self.producers.forget_stream(client_id, stream);
        let Some((id, _)) = self.by_client.get_key_value(client_id) else { return };
        let id = Arc::clone(id);
        let Some(session) = self.by_client.get_mut(&id) else { return };
        let before = session.streams.len();
        session.streams.retain(|old| !Arc::ptr_eq(old, stream));
        if session.streams.is_empty() && before > 0 {
            session.streamless_since = now;
            self.producers.unlist(&id, &session.declared.topics);
            if !session.called {
                self.room.mute(&id, session.address, now);
            }
            self.leases.fade(&id, session);
        }
    }

    /// The client said that it leaves.
    pub(super) fn close(&mut self, client_id: &str, now: Instant) {
        if let Some((id, session)) = self.end(client_id) {
            self.leases.left(id, session, now);
        }
    }

    /// Takes a session out, wherever it is noted. Streams that are open still are its client's.
    pub(super) fn end(&mut self, client_id: &str) -> Option<(Arc<str>, Session)> {
        let (id, mut session) = self.by_client.remove_entry(client_id)?;
        self.room.leave(&id, &session);
        self.producers.unlist(&id, &session.declared.topics);
        self.producing -= usize::from(session.declared.role == Role::Producer);
        self.groups.change(&session.declared, &Declared::default());
        for stream in std::mem::take(&mut session.streams) {
            self.producers.keep_for(&id, stream);
        }
        Some((id, session))
    }

    /// Ends sessions whose time is over, about `at_once` of them, and names the consumers whose leases are free. Returns
    /// how many were looked at.
    pub(super) fn expire(&mut self, now: Instant, at_once: usize, over: &mut super::Over) -> usize {
        let mut looked_at = 0;
        while looked_at < at_once {
            let Some(id) = self.room.mute_since(now, SETTINGS_ONLY_LIMIT) else { break };
            looked_at += 1;
            self.end(&id);
        }
        while looked_at < at_once {
            let Some(id) = self.room.silent_since(now, SESSION_LIMIT) else { break };
            looked_at += 1;
            let Some(session) = self.by_client.get_mut(&id) else { break };
            if now.saturating_duration_since(session.last_heard) <= SESSION_LIMIT {
                self.room.heard_since(&id, session);
                continue;
            }
            tracing::debug!(client = &*id, "session ended by silence");
            self.end_by_silence(&id, &mut over.dead);
            over.silent += 1;
        }
        looked_at + self.find_dead(now, at_once - looked_at, &mut over.dead)
    }

    /// Ends a session whose client may come again: what a producer declared is remembered if it ever made a call, a
    /// consumer's leases are free.
    pub(super) fn end_by_silence(&mut self, client_id: &str, dead: &mut Vec<super::Dead>) {
        let Some((id, session)) = self.end(client_id) else { return };
        dead.extend(super::lease_life::dead_consumer(&id, &session));
        if session.declared.role == Role::Producer && session.called {
            self.producers.remember(id, session.declared.topics);
        }
    }
}
