//! The sessions themselves, and the indexes over what they declared.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Instant;

use vouch_broker::{ResourceName, TagFilter};

use super::changes::{ChangedSessions, StreamsThere};
use super::groups::{Differing, LiveGroups, ToldGroups};
use super::leading::Leadership;
use super::lease_life::LeaseLife;
use super::producers::Producers;
use super::questions::TelemetryStream;
use super::room::{NoRoom, SessionRoom};
use super::session::{DeclaredByClient, Session, add_stream};
use super::{Client, SessionRole};

/// All of them.
#[derive(Default)]
pub(super) struct SessionTable {
    pub(super) by_client: HashMap<Arc<str>, Session>,
    /// Those of them that are producers.
    producing: usize,
    /// Sessions so far.
    generations: u64,
    pub(super) producers: Producers,
    pub(super) groups: LiveGroups,
    pub(super) told: ToldGroups,
    pub(super) room: SessionRoom,
    pub(super) leases: LeaseLife,
    /// What the leader has not heard yet.
    pub(super) changes: ChangedSessions,
    /// Streams to other nodes, while this one leads.
    pub(super) there: StreamsThere,
    pub(super) leadership: Option<Leadership>,
    /// Bindings that consume, as members of their groups.
    pub(super) bound: BTreeMap<(String, ResourceName), DeclaredByClient>,
    /// What those want that pause: by group, topic and filter.
    pub(super) paused: BTreeSet<(ResourceName, ResourceName, TagFilter)>,
}

impl SessionTable {
    /// How many there are: producers, consumers.
    pub(super) fn count(&self) -> (usize, usize) {
        (self.producing, self.by_client.len() - self.producing)
    }

    /// Settings came. Gives the topics where filters differ now, and did not before, or in another way.
    pub(super) fn declare(
        &mut self,
        client: Client<'_>,
        mut declared: DeclaredByClient,
        now: Instant,
    ) -> Result<Vec<Differing>, NoRoom> {
        if let Some(session) = self.by_client.get(client.id) {
            if declared.subscriptions.is_empty() && session.declared.group == declared.group {
                declared.subscriptions.clone_from(&session.declared.subscriptions);
            }
            if declared.role == SessionRole::Producer {
                declared.topics.extend(session.halves.iter().cloned());
            }
        }
        self.put(client, declared, now)
    }

    /// A call says what a client is that sent no settings.
    pub(super) fn introduce(
        &mut self,
        client: Client<'_>,
        role: SessionRole,
        group: Option<ResourceName>,
        now: Instant,
    ) -> Result<(), NoRoom> {
        let topics = if role == SessionRole::Producer { self.producers.recall(client.id) } else { BTreeSet::new() };
        let declared = DeclaredByClient { role, topics, group, ..DeclaredByClient::default() };
        self.put(client, declared, now)?;
        self.heard(client.id, now);
        Ok(())
    }

    /// Puts what is known of a client into its session, or into a new one, and into the indexes.
    pub(super) fn put(
        &mut self,
        client: Client<'_>,
        declared: DeclaredByClient,
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
        session.last_heard = session.last_heard.max(now);
        session.declared_at = now;
        let before = std::mem::replace(&mut session.declared, declared);
        let after = &session.declared;
        if !session.streams.is_empty() {
            self.producers.unlist(&id, &before.topics);
            self.producers.list(&id, &after.topics);
        }
        self.producing -= usize::from(before.role == SessionRole::Producer);
        self.producing += usize::from(after.role == SessionRole::Producer);
        let differing = self.groups.change(&before, after);
        self.leases.revive(&id, session);
        self.changes.changed(&id);
        Ok(differing)
    }

    /// Begins a session that says nothing yet. The streams that its client has open already belong to it.
    fn begin(&mut self, client: Client<'_>, now: Instant) -> Arc<str> {
        let id: Arc<str> = client.id.into();
        self.generations += 1;
        let session = Session {
            declared: DeclaredByClient::default(),
            halves: BTreeSet::new(),
            streams: self.producers.claim(client.id),
            last_heard: now,
            declared_at: now,
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

    /// The client made a call. Returns whether it is known.
    pub(super) fn heard(&mut self, client_id: &str, now: Instant) -> bool {
        let Some(session) = self.by_client.get_mut(client_id) else { return false };
        session.last_heard = now;
        if self.changes.are_kept
            && let Some((id, _)) = self.by_client.get_key_value(client_id)
        {
            self.changes.heard(id);
        }
        let Some(session) = self.by_client.get_mut(client_id) else { return false };
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
        add_stream(&mut session.streams, stream);
        if was_mute {
            self.room.not_mute(&id, session.address, session.streamless_since);
        }
        if first {
            self.producers.list(&id, &session.declared.topics);
        }
        self.changes.changed(&id);
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
        self.changes.changed(&id);
    }

    /// The client said that it leaves.
    pub(super) fn close(&mut self, client_id: &str, now: Instant) {
        if let Some((id, session)) = self.end(client_id) {
            self.changes.gone(&id);
            self.leases.left(id, session, now);
        }
    }

    /// Takes a session out, wherever it is noted. Streams that are open still are its client's.
    pub(super) fn end(&mut self, client_id: &str) -> Option<(Arc<str>, Session)> {
        let (id, mut session) = self.by_client.remove_entry(client_id)?;
        self.room.leave(&id, &session);
        self.producers.unlist(&id, &session.declared.topics);
        self.producing -= usize::from(session.declared.role == SessionRole::Producer);
        self.groups.change(&session.declared, &DeclaredByClient::default());
        self.there.forget(client_id);
        // Of a stream to another node its own node tells, when its client is known again.
        for stream in std::mem::take(&mut session.streams).into_iter().filter(|stream| stream.is_here()) {
            self.producers.keep_for(&id, stream);
        }
        Some((id, session))
    }
}
