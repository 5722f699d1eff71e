//! Behaviour of sessions.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use vouch_broker::{BodyEncoding, MessageKind, Millis, NewMessage};

use super::*;

#[derive(Default)]
struct Recorder {
    closed: AtomicBool,
    asked: Mutex<Vec<u64>>,
}

impl TelemetryStream for Recorder {
    fn send_check(&self, command: CheckCommand) -> bool {
        let open = self.is_open();
        if open {
            self.asked.lock().unwrap().push(command.transaction);
        }
        open
    }

    fn is_open(&self) -> bool {
        !self.closed.load(Ordering::Acquire)
    }
}

fn producer(topic: &str) -> Declaration {
    Declaration { role: Role::Producer, topics: vec![ResourceName::plain(topic)], group: None, subscriptions: vec![] }
}

fn consumer(group: &str, tag: &str) -> Declaration {
    Declaration {
        role: Role::PushConsumer,
        topics: vec![],
        group: Some(ResourceName::plain(group)),
        subscriptions: vec![(ResourceName::plain("orders"), TagFilter::tags([tag]))],
    }
}

fn command() -> CheckCommand {
    let message = NewMessage {
        message_id: "m".to_owned(),
        tag: None,
        keys: vec![],
        properties: vec![],
        kind: MessageKind::Transaction,
        encoding: BodyEncoding::Identity,
        born_at: Millis(1),
        born_host: "h".to_owned(),
        trace_context: None,
        message_group: None,
        deliver_at: None,
        recovery_ms: None,
        body: Bytes::from_static(b"x"),
    };
    let half = StoredMessage { message, producer: "a".to_owned(), stored_at: Millis(2) };
    CheckCommand { topic: ResourceName::plain("orders"), transaction: 7, half }
}

/// Sessions with a live producer per client, all of topic `orders`.
fn with_producers(clients: &[&str]) -> (Sessions, Vec<Arc<Recorder>>) {
    let sessions = Sessions::default();
    let streams = clients
        .iter()
        .map(|client| {
            let stream = Arc::new(Recorder::default());
            assert!(sessions.declare(client, producer("orders"), Instant::now()));
            sessions.attach(client, stream.clone());
            stream
        })
        .collect();
    (sessions, streams)
}

#[test]
fn the_client_that_sent_the_half_is_asked_first_and_another_one_if_it_is_gone() {
    let (sessions, streams) = with_producers(&["a", "b"]);
    assert_eq!(sessions.ask("b", &command()).unwrap().client_id, "b");
    sessions.close("b");
    assert_eq!(sessions.ask("b", &command()).unwrap().client_id, "a");
    assert_eq!(streams[0].asked.lock().unwrap().len(), 1);
    streams[0].closed.store(true, Ordering::Release);
    assert_eq!(sessions.ask("b", &command()), None);
    assert!(!sessions.has_producer(&ResourceName::plain("orders"), ""));
}

#[test]
fn a_producer_of_another_topic_is_never_asked() {
    let sessions = Sessions::default();
    sessions.declare("c", producer("payments"), Instant::now());
    sessions.attach("c", Arc::new(Recorder::default()));
    assert_eq!(sessions.ask("gone", &command()), None);
    sessions.note_half("c", &ResourceName::plain("orders"));
    assert_eq!(sessions.ask("gone", &command()).unwrap().client_id, "c");
}

#[test]
fn only_a_call_after_the_ask_counts_as_life() {
    let (sessions, _streams) = with_producers(&["a"]);
    let asked = sessions.ask("a", &command()).unwrap();
    assert_eq!(sessions.after_ask(&asked), AfterAsk::NotYet);
    sessions.heard("a", Instant::now());
    assert_eq!(sessions.after_ask(&asked), AfterAsk::Heard);
    sessions.close("a");
    assert_eq!(sessions.after_ask(&asked), AfterAsk::Lost);
}

#[test]
fn a_session_ends_by_silence_and_not_before() {
    let (sessions, _streams) = with_producers(&["a"]);
    let now = Instant::now();
    sessions.heard("a", now);
    sessions.expire(now + SESSION_LIMIT);
    assert!(sessions.is_alive("a"));
    sessions.expire(now + SESSION_LIMIT + Duration::from_millis(1));
    assert!(!sessions.is_alive("a") && !sessions.has_producer(&ResourceName::plain("orders"), "a"));
}

#[test]
fn filters_of_the_groups_other_members_are_known() {
    let sessions = Sessions::default();
    for (client, group, tag) in [("a", "g", "x"), ("b", "g", "y"), ("c", "other", "z")] {
        sessions.declare(client, consumer(group, tag), Instant::now());
    }
    let (group, topic) = (ResourceName::plain("g"), ResourceName::plain("orders"));
    assert_eq!(sessions.other_filters(&group, &topic, "a"), [TagFilter::tags(["y"])]);
    assert_eq!(sessions.other_filters(&group, &ResourceName::plain("none"), "a"), []);
}
