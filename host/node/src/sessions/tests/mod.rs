//! Behaviour of sessions.

mod bound;
mod lease_life;
mod room;
mod shared;
mod streams;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use vouch_broker::{BodyEncoding, HalfPosition, MessageKind, Millis, NewMessage, StoredMessage, TransactionId};

use super::questions::{CheckCommand, Question, TelemetryStream};
use super::*;
use crate::served_shard::SHARD;
use vouch_leader::Members as _;

/// A stream that writes at once, unless its client does not read.
#[derive(Default)]
struct Recorder {
    closed: AtomicBool,
    unread: AtomicBool,
    /// Its queue takes nothing.
    full: AtomicBool,
    /// It leads to another node.
    there: AtomicBool,
    questions: Mutex<Vec<Question>>,
}

impl Recorder {
    fn close(&self) {
        self.closed.store(true, Ordering::Release);
    }

    fn asked(&self) -> usize {
        self.questions.lock().unwrap().iter().filter(|question| question.written_at().is_some()).count()
    }
}

impl TelemetryStream for Recorder {
    fn send_check(&self, question: Question) -> bool {
        if !self.is_open() || self.full.load(Ordering::Acquire) {
            return false;
        }
        if !self.unread.load(Ordering::Acquire) {
            question.take().unwrap();
        }
        self.questions.lock().unwrap().push(question);
        true
    }

    fn is_open(&self) -> bool {
        !self.closed.load(Ordering::Acquire)
    }

    fn is_here(&self) -> bool {
        !self.there.load(Ordering::Acquire)
    }
}

fn producer(topic: &str) -> Declaration {
    Declaration {
        role: SessionRole::Producer,
        topics: vec![ResourceName::plain(topic)],
        group: None,
        subscriptions: vec![],
    }
}

fn consumer(group: &str, tag: &str) -> Declaration {
    Declaration {
        role: SessionRole::PushConsumer,
        topics: vec![],
        group: Some(ResourceName::plain(group)),
        subscriptions: vec![(ResourceName::plain("orders"), TagFilter::tags([tag]))],
    }
}

/// A question about a half message of this client.
fn command(origin: &str) -> CheckCommand {
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
    let half = StoredMessage { message, producer: origin.to_owned(), stored_at: Millis(2) };
    CheckCommand {
        topic: ResourceName::plain("orders"),
        transaction: TransactionId::of_first_life(SHARD, HalfPosition(7)),
        half,
    }
}

/// Sessions with a live producer per client, all of topic `orders`.
fn with_producers(clients: &[&str]) -> (Sessions, Vec<Arc<Recorder>>) {
    let sessions = Sessions::default();
    let streams = clients
        .iter()
        .map(|client| {
            let stream = Arc::new(Recorder::default());
            sessions.declare(*client, producer("orders"), Instant::now()).unwrap();
            sessions.attach(client, stream.clone());
            stream
        })
        .collect();
    (sessions, streams)
}

fn topic(name: &str) -> ResourceName {
    ResourceName::plain(name)
}

fn open() -> Arc<Recorder> {
    Arc::default()
}

/// Closes a stream as a connection does that ends.
fn close(sessions: &Sessions, client: &str, stream: &Arc<Recorder>, now: Instant) {
    stream.close();
    let stream: Arc<dyn TelemetryStream> = stream.clone();
    sessions.detach(client, &stream, now);
}

const MS: Duration = Duration::from_millis(1);

fn ask(sessions: &Sessions, origin: &str) -> Option<Asked> {
    sessions.ask(&command(origin), &[], |_, _| ())
}

fn asked_client(sessions: &Sessions, origin: &str) -> Option<String> {
    ask(sessions, origin).map(|asked| asked.client_id)
}

const SILENCE: Duration = Duration::from_secs(15);

/// What is known when `silence` has passed.
fn after(sessions: &Sessions, asked: &Asked) -> AfterAsk {
    sessions.after_ask(asked, SILENCE, Instant::now() + SILENCE)
}

/// Later than whatever happened before.
fn later() -> Instant {
    Instant::now() + Duration::from_millis(1)
}

#[test]
fn the_client_that_sent_the_half_is_asked_first_and_another_one_if_it_is_gone() {
    let (sessions, streams) = with_producers(&["a", "b"]);
    assert_eq!(asked_client(&sessions, "b").as_deref(), Some("b"));
    sessions.close("b", Instant::now());
    assert_eq!(asked_client(&sessions, "b").as_deref(), Some("a"));
    assert_eq!(streams[0].asked(), 1);
    streams[0].close();
    assert_eq!(asked_client(&sessions, "b"), None);
    assert!(!sessions.has_producer(&ResourceName::plain("orders"), ""));
}

#[test]
fn a_producer_of_another_topic_is_never_asked() {
    let sessions = Sessions::default();
    sessions.declare("c", producer("payments"), Instant::now()).unwrap();
    sessions.attach("c", Arc::new(Recorder::default()));
    assert_eq!(asked_client(&sessions, "gone"), None);
    sessions.note_half("c", &ResourceName::plain("orders"), Instant::now());
    assert_eq!(asked_client(&sessions, "gone").as_deref(), Some("c"));
}

#[test]
fn silence_counts_from_the_writing_of_the_question_and_with_a_call_after_it() {
    let (sessions, streams) = with_producers(&["a"]);
    streams[0].unread.store(true, Ordering::Release);
    let asked = ask(&sessions, "a").unwrap();
    sessions.heard("a", later());
    assert_eq!(after(&sessions, &asked), AfterAsk::Unread, "a question in a queue asks nobody");
    assert!(asked.question.take().is_some());
    let written = asked.question.written_at().unwrap();
    sessions.heard("a", written);
    assert_eq!(after(&sessions, &asked), AfterAsk::NotYet, "no call since");
    sessions.heard("a", written + Duration::from_nanos(1));
    assert_eq!(sessions.after_ask(&asked, SILENCE, written + SILENCE - Duration::from_nanos(1)), AfterAsk::NotYet);
    assert_eq!(sessions.after_ask(&asked, SILENCE, written + SILENCE), AfterAsk::Silent);
}

#[test]
fn an_ask_is_lost_with_the_session_that_it_went_to() {
    let (sessions, streams) = with_producers(&["a"]);
    let asked = ask(&sessions, "a").unwrap();
    sessions.close("a", Instant::now());
    assert_eq!(after(&sessions, &asked), AfterAsk::Lost);
    sessions.declare("a", producer("orders"), later()).unwrap();
    sessions.attach("a", streams[0].clone());
    sessions.heard("a", later());
    assert_eq!(after(&sessions, &asked), AfterAsk::Lost, "a later session of the same client was not asked");
}

#[test]
fn an_ask_is_lost_with_its_stream_though_the_session_lives_on_and_another_stream_is_asked() {
    let (sessions, streams) = with_producers(&["a", "b"]);
    let newer = Arc::new(Recorder::default());
    sessions.attach("a", newer.clone());
    let asked = ask(&sessions, "a").unwrap();
    assert_eq!((newer.asked(), streams[0].asked()), (1, 0), "the newest stream of a client carries the question");
    newer.close();
    sessions.heard("a", later());
    assert_eq!(after(&sessions, &asked), AfterAsk::Lost);
    let mut tried = vec![asked.stream];
    for client in ["a", "b"] {
        let next = sessions.ask(&command("a"), &tried, |_, _| ()).unwrap();
        assert_eq!(next.client_id, client);
        tried.push(next.stream);
    }
    assert!(sessions.ask(&command("a"), &tried, |_, _| ()).is_none(), "each stream is asked once");
}

#[test]
fn settings_that_come_again_change_nothing_for_an_ask() {
    let (sessions, streams) = with_producers(&["a"]);
    let asked = ask(&sessions, "a").unwrap();
    sessions.declare("a", producer("orders"), Instant::now()).unwrap();
    sessions.attach("a", streams[0].clone());
    sessions.heard("a", later());
    assert_eq!(after(&sessions, &asked), AfterAsk::Silent);
    assert!(sessions.ask(&command("a"), &[asked.stream], |_, _| ()).is_none(), "it is the same stream still");
}

#[test]
fn a_session_ends_by_silence_and_not_before() {
    let (sessions, _streams) = with_producers(&["a"]);
    let now = Instant::now();
    sessions.heard("a", now);
    sessions.expire(now + SESSION_LIMIT);
    assert_eq!(sessions.count(), (1, 0));
    sessions.expire(now + SESSION_LIMIT + Duration::from_millis(1));
    assert!(sessions.count() == (0, 0) && !sessions.has_producer(&ResourceName::plain("orders"), "a"));
}

#[test]
fn filters_of_a_groups_live_members_are_known() {
    let sessions = Sessions::default();
    let now = Instant::now();
    for (client, group, tag) in [("a", "g", "x"), ("b", "g", "y"), ("b2", "g", "y"), ("c", "other", "z")] {
        sessions.declare(client, consumer(group, tag), now).unwrap();
    }
    let (group, topic) = (ResourceName::plain("g"), ResourceName::plain("orders"));
    let [x, y] = ["x", "y"].map(|tag| TagFilter::tags([tag]));
    let unnoted = |max, noted: &TagFilter| sessions.unnoted_filters(&group, &topic, max, &mut |filter| filter == noted);
    assert_eq!(unnoted(9, &x), [TagFilter::tags(["y"])]);
    assert_eq!(unnoted(1, &TagFilter::All).len(), 1);
    assert!(sessions.unnoted_filters(&group, &ResourceName::plain("none"), 9, &mut |_| false).is_empty());
    sessions.close("b", now);
    assert!(sessions.has_filter((&group, &topic, &y)), "another member has it");
    sessions.expire(now + SESSION_LIMIT + Duration::from_millis(1));
    assert!(!sessions.has_filter((&group, &topic, &y)) && unnoted(9, &TagFilter::All).is_empty());
}

#[test]
fn a_receive_says_what_its_consumer_asks_for() {
    let sessions = Sessions::default();
    let (group, topic, now) = (ResourceName::plain("g"), ResourceName::plain("t"), Instant::now());
    let [x, y] = ["x", "y"].map(|tag| TagFilter::tags([tag]));
    let receives = |group, filter| sessions.note_receive("a", group, (&topic, filter), false, now).unwrap();
    receives(&group, &x);
    assert!(sessions.has_filter((&group, &topic, &x)));
    receives(&group, &y);
    assert!(!sessions.has_filter((&group, &topic, &x)) && sessions.has_filter((&group, &topic, &y)));
    let other = ResourceName::plain("other");
    receives(&other, &x);
    assert!(!sessions.has_filter((&group, &topic, &y)) && sessions.has_filter((&other, &topic, &x)));
}

#[test]
fn filters_that_differ_in_a_group_are_counted_once_a_change() {
    let sessions = Sessions::default();
    let declare = |client: &str, group: &str, tags: &[&str]| {
        let mut declaration = consumer(group, "");
        declaration.subscriptions =
            tags.iter().map(|tag| (ResourceName::plain("orders"), TagFilter::tags([*tag]))).collect();
        sessions.declare(client, declaration, Instant::now()).unwrap();
        sessions.filter_differences()
    };
    for (client, group, tags, count, why) in [
        ("a", "g", &["x"][..], 0, "one member"),
        ("b", "other", &["y"], 0, "another group"),
        ("b", "g", &["x"], 0, "the same filter"),
        ("b", "g", &["y"], 1, "another filter"),
        ("b", "g", &["y"], 1, "the same settings again"),
        ("b", "g", &[], 1, "settings without filters, which come with the receives"),
        ("b", "g", &["y"], 1, "the receive after them"),
        ("c", "g", &["y"], 1, "nothing new"),
        ("c", "g", &["z"], 2, "a third filter"),
        ("c", "g", &["x"], 3, "two again"),
        ("b", "g", &["x"], 3, "agreed"),
        ("b", "g", &["y"], 4, "and not any more"),
    ] {
        assert_eq!(declare(client, group, tags), count, "{why}");
    }
    sessions.close("b", Instant::now());
    assert_eq!(declare("b", "g", &["y"]), 5, "a member that left and came differs anew");
}
