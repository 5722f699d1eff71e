//! Questions that go over the streams of producers (rulings 1 and 2).

use std::ops::Bound::{Excluded, Unbounded};
use std::sync::Arc;
use std::time::{Duration, Instant};

use vouch_broker::ResourceName;

use super::producers::Askable;
use super::questions::{CheckCommand, Question, TelemetryStream};
use super::session::Session;
use super::table::SessionTable;
use super::{SessionRole, Sessions};

/// Producers that one question is offered to before it is left to a later time.
pub(super) const OFFERS_MAX: usize = 64;

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
    /// A stream of this client is open. If the client is known, commands may go over it at once: Python reopens its
    /// stream minutes before it sends its settings again. If it is not, they may as soon as it is. Attaching a stream
    /// again changes nothing.
    pub fn attach(&self, client_id: &str, stream: Arc<dyn TelemetryStream>) {
        if self.table().attach(client_id, stream) {
            self.producers_changed.notify_one();
        }
    }

    /// A stream of this client is closed.
    pub fn detach(&self, client_id: &str, stream: &Arc<dyn TelemetryStream>, now: Instant) {
        self.table().detach(client_id, stream, now);
    }

    /// The client sent a half message to this topic: it can be asked about it, whatever it declared.
    pub(crate) fn note_half(&self, client_id: &str, topic: &ResourceName, now: Instant) {
        let mut table = self.table();
        if table.by_client.get(client_id).is_some_and(|session| !session.halves.contains(topic)) {
            table.add_topic(client_id, topic, now);
            if let Some(session) = table.by_client.get_mut(client_id)
                && session.declared.topics.contains(topic)
            {
                session.halves.insert(topic.clone());
            }
        }
    }

    /// The client asked for the route of a topic. Producers do that for the topics that they declare, every 30 s: where
    /// their settings are not known, as after a restart, that tells what they can be asked about.
    pub fn note_route(&self, client_id: &str, topic: &ResourceName, now: Instant) {
        let mut table = self.table();
        let unknown = |session: &Session| {
            let declared = &session.declared;
            declared.role == SessionRole::Producer && !declared.told && !declared.topics.contains(topic)
        };
        if table.by_client.get(client_id).is_some_and(unknown) {
            table.add_topic(client_id, topic, now);
            drop(table);
            self.producers_changed.notify_one();
        }
    }

    /// Whether some live producer of a topic can be asked.
    pub(crate) fn has_producer(&self, topic: &ResourceName, origin: &str) -> bool {
        self.table().candidates(topic, origin).next().is_some()
    }

    /// Hands a question to a live producer: the half's own client first, then any other that declared the topic (ruling
    /// 2), in turn; not over the streams that were `tried`. `note` learns of a question before its client can answer.
    pub(crate) fn ask(
        &self,
        command: &CheckCommand,
        tried: &[Arc<dyn TelemetryStream>],
        mut note: impl FnMut(&str, &Question),
    ) -> Option<Asked> {
        let mut table = self.table();
        let candidates = table.candidates(&command.topic, &command.half.producer).map(|(id, _)| Arc::clone(id));
        let mut asked = None;
        for id in candidates.take(OFFERS_MAX).collect::<Vec<_>>() {
            let Some(session) = table.by_client.get(&id) else { continue };
            asked = offer(&id, session, command, tried, &mut note);
            let own = *id == *command.half.producer;
            if !own && let Some(askable) = table.producers.by_topic.get_mut(&command.topic) {
                askable.asked = Some(id);
            }
            if asked.is_some() {
                break;
            }
        }
        asked
    }

    /// Hands a question of another node to the streams that a client has here.
    pub(crate) fn ask_here(&self, client_id: &str, command: CheckCommand) -> Option<Question> {
        let table = self.table();
        let streams = table.by_client.get(client_id)?.streams.iter().rev();
        let question = Question::new(command);
        let mut here = streams.filter(|stream| stream.is_here() && stream.is_open());
        here.any(|stream| stream.send_check(question.clone())).then_some(question)
    }

    /// What became of a question. A client is silent if `silence` passed since it was written and a call came since.
    pub(crate) fn after_ask(&self, asked: &Asked, silence: Duration, now: Instant) -> AfterAsk {
        let table = self.table();
        let session = table.by_client.get(&*asked.client_id).filter(|session| session.generation == asked.generation);
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

/// Offers a question to the streams of one client, the newest first: an older one may be a connection that broke
/// unnoticed.
fn offer(
    client_id: &str,
    session: &Session,
    command: &CheckCommand,
    tried: &[Arc<dyn TelemetryStream>],
    note: &mut impl FnMut(&str, &Question),
) -> Option<Asked> {
    for stream in session.streams.iter().rev() {
        if !stream.is_open() || tried.iter().any(|tried| Arc::ptr_eq(tried, stream)) {
            continue;
        }
        let question = Question::new(command.clone());
        note(client_id, &question);
        if stream.send_check(question.clone()) {
            let (client_id, stream) = (client_id.to_owned(), Arc::clone(stream));
            return Some(Asked { client_id, question, stream, generation: session.generation });
        }
    }
    None
}

impl SessionTable {
    /// A client can be asked about one more topic, if there is room for its name.
    fn add_topic(&mut self, client_id: &str, topic: &ResourceName, now: Instant) {
        let Some(session) = self.by_client.get(client_id) else { return };
        if session.declared.topics.contains(topic) {
            return;
        }
        let mut declared = session.declared.clone();
        declared.topics.insert(topic.clone());
        if let Err(no_room) = self.put(client_id.into(), declared, now) {
            tracing::debug!(client_id, %topic, %no_room, "a producer will not be asked about a topic");
        }
    }

    /// Whom to ask about a half of this client in this topic, and in which order.
    fn candidates<'a>(
        &'a self,
        topic: &'a ResourceName,
        origin: &'a str,
    ) -> impl Iterator<Item = (&'a Arc<str>, &'a Session)> {
        let own = self.by_client.get_key_value(origin).filter(|(_, s)| s.declared.role == SessionRole::Producer);
        let askable = self.producers.by_topic.get(topic);
        let in_turn = askable.into_iter().flat_map(|Askable { clients, asked }| {
            let after = asked.as_ref().map_or(Unbounded, Excluded);
            let rest = asked.as_ref().map(|asked| clients.range::<Arc<str>, _>(..=asked));
            clients.range::<Arc<str>, _>((after, Unbounded)).chain(rest.into_iter().flatten())
        });
        let others = in_turn.filter(move |client| ***client != *origin);
        own.into_iter()
            .chain(others.filter_map(|client| self.by_client.get_key_value(client)))
            .filter(|(_, session)| session.has_open_stream())
    }
}
