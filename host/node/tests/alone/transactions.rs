//! Transactions through a real node: ends, checks by a real component and by producers, parking, over restarts.

use std::io::Write;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::common::checking::{order_service, until};
use crate::common::{half, prepare, receive, receive_now, start, topic};
use vouch_broker::record::EndedBy;
use vouch_broker::{HalfPosition, NotDone, Refusal, ResourceName, ShardId, TransactionId, TransactionOutcome};
use vouch_node::{
    Declaration, EndRequest, Expect, Node, PluginUpload, Question, SessionRole, TelemetryStream, TransactionState,
};

const QUICK: &str = r#"{"type":"transaction","transaction":{"immunity":"50ms","interval":"100ms","max_checks":3}}"#;
/// Asked soon, and then not for a minute.
const SLOW: &str = r#"{"type":"transaction","transaction":{"immunity":"50ms","interval":"1m","max_checks":3}}"#;
const NEVER_ASKED: &str = r#"{"type":"transaction","transaction":{"max_checks":0}}"#;

fn end(transaction: TransactionId, outcome: TransactionOutcome) -> EndRequest {
    let by = EndedBy::Client { client_id: "producer-1".to_owned(), from_check: false };
    EndRequest { topic: None, message_id: None, transaction, outcome, by, reason: String::new() }
}

async fn bind_http_checkback(node: &Node, address: SocketAddr) {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../plugins/dist/http-checkback.wasm");
    let wasm = std::fs::read(file).unwrap().into();
    let upload = PluginUpload { name: "http-checkback".to_owned(), tag: "1.0".to_owned(), wasm, expected: None };
    node.components.upload(upload).await.unwrap();
    let spec = serde_json::json!({
        "plugin": "http-checkback:1.0",
        "topics": ["orders"],
        // Some of these services are away, or answer nobody until they are let.
        "unchecked": true,
        "grants": {"http": [format!("http://{address}")]},
        "config": {"url": format!("http://{address}/orders/{{key}}"), "field": "/status", "commit": "PAID", "rollback": "CANCELLED"},
    });
    let put = node.components.put_binding("orders", &spec.to_string(), Expect::Absent).await.unwrap();
    assert_eq!(put.warnings, Vec::<String>::new());
}

#[tokio::test]
async fn a_half_message_is_invisible_until_its_commit_and_visible_once_after() {
    let folder = tempfile::tempdir().unwrap();
    let node = start(folder.path()).await;
    topic(&node, "orders", NEVER_ASKED).await;
    let transaction = prepare(&node, "orders", half("m1", "order 1")).await;
    assert!(receive_now(&node, "orders", "g").await.is_empty());
    let receipt = node.transactions.end(end(transaction, TransactionOutcome::Committed)).await.unwrap();
    assert!(!receipt.repeated);
    let repeat = node.transactions.end(end(transaction, TransactionOutcome::Committed)).await.unwrap();
    assert!(repeat.repeated);
    let opposite = node.transactions.end(end(transaction, TransactionOutcome::RolledBack)).await;
    assert!(
        matches!(
            opposite,
            Err(NotDone::Refused(Refusal::OutcomeConflict { recorded: TransactionOutcome::Committed, .. }))
        ),
        "{opposite:?}"
    );
    let got = receive_now(&node, "orders", "g").await;
    assert_eq!(got.len(), 1);
    assert_eq!(&got[0].message.message.body[..], b"order 1");
    node.stop().await;
}

#[tokio::test]
async fn a_rolled_back_message_is_never_seen_and_its_outcome_survives_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let node = start(folder.path()).await;
    topic(&node, "orders", NEVER_ASKED).await;
    let rolled_back = prepare(&node, "orders", half("m1", "x")).await;
    let open = prepare(&node, "orders", half("m2", "y")).await;
    node.transactions.end(end(rolled_back, TransactionOutcome::RolledBack)).await.unwrap();
    node.stop().await;
    drop(node);
    let node = start(folder.path()).await;
    let opposite = node.transactions.end(end(rolled_back, TransactionOutcome::Committed)).await;
    assert!(matches!(
        opposite,
        Err(NotDone::Refused(Refusal::OutcomeConflict { recorded: TransactionOutcome::RolledBack, .. }))
    ));
    assert!(receive_now(&node, "orders", "g").await.is_empty());
    node.transactions.end(end(open, TransactionOutcome::Committed)).await.unwrap();
    assert_eq!(receive_now(&node, "orders", "g").await.len(), 1);
    node.stop().await;
}

#[tokio::test]
async fn an_id_that_is_no_transaction_or_of_another_message_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let node = start(folder.path()).await;
    topic(&node, "orders", NEVER_ASKED).await;
    let transaction = prepare(&node, "orders", half("m1", "x")).await;
    let nowhere =
        [0, 1, transaction.half.0 + 1, u64::MAX].map(|half| TransactionId { half: HalfPosition(half), ..transaction });
    let elsewhere = TransactionId { shard: ShardId(1), ..transaction };
    for wrong in nowhere.into_iter().chain([elsewhere]) {
        let refused = node.transactions.end(end(wrong, TransactionOutcome::Committed)).await;
        assert!(matches!(refused, Err(NotDone::Refused(Refusal::UnknownTransaction { .. }))), "{wrong}: {refused:?}");
    }
    let other = EndRequest { message_id: Some("m2".to_owned()), ..end(transaction, TransactionOutcome::Committed) };
    assert!(matches!(node.transactions.end(other).await, Err(NotDone::Refused(Refusal::UnknownTransaction { .. }))));
    let other_topic =
        EndRequest { topic: Some(ResourceName::plain("payments")), ..end(transaction, TransactionOutcome::Committed) };
    assert!(matches!(
        node.transactions.end(other_topic).await,
        Err(NotDone::Refused(Refusal::UnknownTransaction { .. }))
    ));
    node.stop().await;
}

#[tokio::test]
async fn an_uploaded_component_settles_transactions_with_no_producer_alive() {
    let folder = tempfile::tempdir().unwrap();
    let node = start(folder.path()).await;
    topic(&node, "orders", QUICK).await;
    let (address, _) = order_service(|path| match path {
        "/orders/key-paid" => (200, r#"{"status":"PAID"}"#.to_owned()),
        "/orders/key-cancelled" => (200, r#"{"status":"CANCELLED"}"#.to_owned()),
        _ => (200, r#"{"status":"NEW"}"#.to_owned()),
    });
    bind_http_checkback(&node, address).await;
    let paid = prepare(&node, "orders", half("paid", "1")).await;
    let cancelled = prepare(&node, "orders", half("cancelled", "2")).await;
    let undecided = prepare(&node, "orders", half("undecided", "3")).await;
    let view = until(&node, paid, |view| view.state == TransactionState::Committed).await;
    assert!(view.last_answer.unwrap().by.starts_with("component sha256:"));
    until(&node, cancelled, |view| view.state == TransactionState::RolledBack).await;
    let parked = until(&node, undecided, |view| view.state == TransactionState::Parked).await;
    assert_eq!(parked.checks, 3, "parked by the third counted unknown");
    let got = node.messages.receive(receive("orders", "g")).await.unwrap();
    assert_eq!(got.len(), 1);
    assert_eq!(got[0].message.message.message_id, "paid");
    node.transactions.end(end(undecided, TransactionOutcome::Committed)).await.expect("a decision ends a parked one");
    assert_eq!(receive_now(&node, "orders", "g").await.len(), 1);
    node.stop().await;
}

#[tokio::test]
async fn a_service_that_does_not_answer_counts_nothing_and_settles_when_it_is_back() {
    let folder = tempfile::tempdir().unwrap();
    let node = start(folder.path()).await;
    topic(&node, "orders", QUICK).await;
    let down = Arc::new(Mutex::new(true));
    let state = down.clone();
    let (address, asked) = order_service(move |_| {
        if *state.lock().unwrap() { (503, String::new()) } else { (200, r#"{"status":"PAID"}"#.to_owned()) }
    });
    bind_http_checkback(&node, address).await;
    let transaction = prepare(&node, "orders", half("m1", "x")).await;
    while asked.load(Ordering::SeqCst) < 6 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let view = node.transactions.get(transaction).await.unwrap();
    assert_eq!((view.checks, view.state), (0, TransactionState::Open), "no answer counts nothing");
    let last = view.last_answer.unwrap();
    assert!(last.verdict.is_none() && last.text.contains("503"), "{last:?}");
    *down.lock().unwrap() = false;
    until(&node, transaction, |view| view.state == TransactionState::Committed).await;
    node.stop().await;
}

#[tokio::test]
async fn components_and_bindings_survive_a_restart_even_without_their_files() {
    let folder = tempfile::tempdir().unwrap();
    let node = start(folder.path()).await;
    topic(&node, "orders", QUICK).await;
    let (address, _) = order_service(|_| (200, r#"{"status":"PAID"}"#.to_owned()));
    bind_http_checkback(&node, address).await;
    node.stop().await;
    drop(node);
    std::fs::remove_dir_all(folder.path().join("plugins")).unwrap();
    let node = start(folder.path()).await;
    let transaction = prepare(&node, "orders", half("m1", "x")).await;
    until(&node, transaction, |view| view.state == TransactionState::Committed).await;
    node.stop().await;
}

/// What a producer does with a question.
#[derive(Clone, Copy)]
enum Manner {
    Ends(TransactionOutcome),
    Undecided,
    /// Reads it and makes no call for it.
    Silent,
    /// Does not read its stream: the question waits in the queue.
    Unread,
    /// Did not read its stream for long: the queue takes no more.
    Full,
}

/// A producer with one telemetry stream.
struct Producer {
    node: Node,
    client: String,
    manner: Manner,
    runtime: tokio::runtime::Handle,
    closed: AtomicBool,
    questions: Mutex<Vec<Question>>,
}

impl Producer {
    /// Questions that were handed to its stream.
    fn offered(&self) -> usize {
        self.questions.lock().unwrap().len()
    }

    /// Questions that it read.
    fn asked(&self) -> usize {
        self.questions.lock().unwrap().iter().filter(|question| question.written_at().is_some()).count()
    }

    /// Waits until so many questions came, and shows signs of life meanwhile.
    async fn until_offered(&self, count: usize) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while self.offered() < count {
            assert!(Instant::now() < deadline, "{} was never asked", self.client);
            self.node.sessions.heard(&self.client, Instant::now());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
    }
}

impl TelemetryStream for Producer {
    fn send_check(&self, question: Question) -> bool {
        if !self.is_open() || matches!(self.manner, Manner::Full) {
            return false;
        }
        self.questions.lock().unwrap().push(question.clone());
        if matches!(self.manner, Manner::Unread) {
            return true;
        }
        let command = question.take().expect("a new question waits");
        let (node, client, manner) = (self.node.clone(), self.client.clone(), self.manner);
        self.runtime.spawn(async move {
            match manner {
                Manner::Ends(outcome) => drop(node.transactions.end(end(command.transaction, outcome)).await),
                Manner::Undecided => {
                    let id = command.half.message.message_id;
                    let answer = node
                        .transactions
                        .undecided(command.transaction, Some(&command.topic), Some(&id), &client)
                        .await;
                    assert_eq!(answer, Ok(true));
                }
                Manner::Silent | Manner::Unread | Manner::Full => {}
            }
        });
        true
    }

    fn is_open(&self) -> bool {
        !self.closed.load(Ordering::SeqCst)
    }
}

fn declare_producer(node: &Node, client: &str) {
    let declaration = Declaration {
        role: SessionRole::Producer,
        topics: vec![ResourceName::plain("orders")],
        group: None,
        subscriptions: vec![],
    };
    node.sessions.declare(client, declaration, Instant::now()).unwrap();
}

fn join_as_producer(node: &Node, client: &str, manner: Manner) -> Arc<Producer> {
    let producer = Arc::new(Producer {
        node: node.clone(),
        client: client.to_owned(),
        manner,
        runtime: tokio::runtime::Handle::current(),
        closed: AtomicBool::new(false),
        questions: Mutex::default(),
    });
    declare_producer(node, client);
    node.sessions.attach(client, producer.clone());
    producer
}

const COMMITS: Manner = Manner::Ends(TransactionOutcome::Committed);

#[tokio::test]
async fn without_anybody_to_ask_a_transaction_waits_and_a_producer_that_comes_is_asked() {
    let folder = tempfile::tempdir().unwrap();
    let node = start(folder.path()).await;
    topic(&node, "orders", QUICK).await;
    let transaction = prepare(&node, "orders", half("m1", "x")).await;
    let view = until(&node, transaction, |view| view.state == TransactionState::WaitingForChecker).await;
    assert_eq!(view.checks, 0, "attempts do not move");
    join_as_producer(&node, "producer-2", COMMITS);
    until(&node, transaction, |view| view.state == TransactionState::Committed).await;
    assert_eq!(node.messages.receive(receive("orders", "g")).await.unwrap().len(), 1);
    node.stop().await;
}

#[tokio::test]
async fn an_undecided_producer_is_asked_as_often_as_allowed_then_the_transaction_is_parked_and_can_be_resumed() {
    let folder = tempfile::tempdir().unwrap();
    let node = start(folder.path()).await;
    topic(&node, "orders", QUICK).await;
    let producer = join_as_producer(&node, "producer-2", Manner::Undecided);
    let transaction = prepare(&node, "orders", half("m1", "x")).await;
    let parked = until(&node, transaction, |view| view.state == TransactionState::Parked).await;
    assert_eq!((parked.checks, producer.asked()), (3, 3));
    node.sessions.close("producer-2", Instant::now());
    node.transactions.resume(transaction, "ada".to_owned(), "the database is back".to_owned()).await.unwrap();
    let resumed = node.transactions.get(transaction).await.unwrap();
    assert_ne!(resumed.state, TransactionState::Parked);
    let said = resumed.last_answer.expect("who resumed it is shown");
    assert_eq!(
        (said.by.as_str(), said.verdict, said.text.as_str()),
        ("operator ada", Some("resume"), "the database is back")
    );
    join_as_producer(&node, "producer-3", Manner::Ends(TransactionOutcome::RolledBack));
    until(&node, transaction, |view| view.state == TransactionState::RolledBack).await;
    assert!(receive_now(&node, "orders", "g").await.is_empty());
    node.stop().await;
}

#[tokio::test]
async fn only_a_producer_that_was_asked_can_say_that_it_is_undecided() {
    let folder = tempfile::tempdir().unwrap();
    let node = start(folder.path()).await;
    topic(&node, "orders", SLOW).await;
    let asked = join_as_producer(&node, "producer-2", Manner::Silent);
    let transaction = prepare(&node, "orders", half("m1", "x")).await;
    asked.until_offered(1).await;
    let (orders, payments) = (ResourceName::plain("orders"), ResourceName::plain("payments"));
    let other = TransactionId { half: HalfPosition(transaction.half.0 + 1), ..transaction };
    for (topic, message, id) in [(&payments, "m1", transaction), (&orders, "m2", transaction), (&orders, "m1", other)] {
        let refused = node.transactions.undecided(id, Some(topic), Some(message), "producer-2").await;
        assert!(
            matches!(refused, Err(NotDone::Refused(Refusal::UnknownTransaction { .. }))),
            "{topic} {message} {id}: {refused:?}"
        );
    }
    declare_producer(&node, "producer-3");
    // A stranger, the sender of the half, and a producer of the topic: none of them was asked.
    for client in ["stranger", "producer-1", "producer-3"] {
        assert_eq!(
            node.transactions.undecided(transaction, Some(&orders), Some("m1"), client).await,
            Ok(false),
            "{client}"
        );
    }
    assert_eq!(node.transactions.get(transaction).await.unwrap().checks, 0);
    assert_eq!(node.transactions.undecided(transaction, Some(&orders), Some("m1"), "producer-2").await, Ok(true));
    assert_eq!(
        node.transactions.undecided(transaction, Some(&orders), Some("m1"), "producer-2").await,
        Ok(false),
        "once an ask"
    );
    assert_eq!(node.transactions.get(transaction).await.unwrap().checks, 1);
    node.stop().await;
}

#[tokio::test]
async fn while_a_component_is_asked_no_client_is_undecided_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let node = start(folder.path()).await;
    topic(&node, "orders", SLOW).await;
    let (answer, answers) = std::sync::mpsc::channel::<()>();
    let (address, asked) = order_service(move |_| {
        let _ = answers.recv();
        (200, r#"{"status":"PAID"}"#.to_owned())
    });
    bind_http_checkback(&node, address).await;
    declare_producer(&node, "producer-1");
    let transaction = prepare(&node, "orders", half("m1", "x")).await;
    // The service counts a request before it answers, so the component is being asked.
    while asked.load(Ordering::SeqCst) == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(node.transactions.undecided(transaction, None, None, "producer-1").await, Ok(false));
    assert_eq!(node.transactions.get(transaction).await.unwrap().checks, 0);
    drop(answer);
    until(&node, transaction, |view| view.state == TransactionState::Committed).await;
    node.stop().await;
}

#[tokio::test]
async fn a_producer_that_does_not_read_its_stream_was_not_asked_and_another_one_is() {
    let folder = tempfile::tempdir().unwrap();
    let node = start(folder.path()).await;
    topic(&node, "orders", QUICK).await;
    // The sender of the half, which is asked first.
    let unread = join_as_producer(&node, "producer-1", Manner::Unread);
    let transaction = prepare(&node, "orders", half("m1", "x")).await;
    unread.until_offered(2).await;
    let view = node.transactions.get(transaction).await.unwrap();
    assert_eq!((view.checks, view.state), (0, TransactionState::Open), "its calls are no silence: it read nothing");
    join_as_producer(&node, "producer-2", COMMITS);
    until(&node, transaction, |view| view.state == TransactionState::Committed).await;
    let questions = unread.questions.lock().unwrap().clone();
    assert!(questions.iter().all(|question| question.take().is_none()), "what nobody waits for is never asked");
    assert_eq!(unread.asked(), 0);
    node.stop().await;
}

#[tokio::test]
async fn a_stream_that_is_full_or_closed_is_passed_over() {
    let folder = tempfile::tempdir().unwrap();
    let node = start(folder.path()).await;
    topic(&node, "orders", SLOW).await;
    join_as_producer(&node, "producer-1", Manner::Full);
    join_as_producer(&node, "producer-2", Manner::Silent).close();
    let live = join_as_producer(&node, "producer-3", COMMITS);
    let transaction = prepare(&node, "orders", half("m1", "x")).await;
    until(&node, transaction, |view| view.state == TransactionState::Committed).await;
    assert_eq!(live.asked(), 1);
    node.stop().await;
}

#[tokio::test]
async fn when_the_stream_of_an_asked_producer_closes_another_producer_is_asked() {
    let folder = tempfile::tempdir().unwrap();
    let node = start(folder.path()).await;
    topic(&node, "orders", SLOW).await;
    let gone = join_as_producer(&node, "producer-1", Manner::Silent);
    let transaction = prepare(&node, "orders", half("m1", "x")).await;
    gone.until_offered(1).await;
    join_as_producer(&node, "producer-2", COMMITS);
    gone.close();
    // Far sooner than its session ends or its silence would count. The session lives on: it goes on calling.
    node.sessions.heard("producer-1", Instant::now());
    until(&node, transaction, |view| view.state == TransactionState::Committed).await;
    assert_eq!((gone.asked(), node.transactions.get(transaction).await.unwrap().checks), (1, 0));
    node.stop().await;
}

#[tokio::test]
async fn a_producer_that_came_back_after_it_was_asked_is_asked_again() {
    let folder = tempfile::tempdir().unwrap();
    let node = start(folder.path()).await;
    topic(&node, "orders", SLOW).await;
    let first = join_as_producer(&node, "producer-1", Manner::Silent);
    let transaction = prepare(&node, "orders", half("m1", "x")).await;
    first.until_offered(1).await;
    // It ends its session and begins another one; the stream of the first is open still.
    node.sessions.close("producer-1", Instant::now());
    join_as_producer(&node, "producer-1", COMMITS);
    until(&node, transaction, |view| view.state == TransactionState::Committed).await;
    node.stop().await;
}

#[tokio::test]
async fn a_silent_producer_counts_only_with_signs_of_life() {
    let folder = tempfile::tempdir().unwrap();
    let node = start(folder.path()).await;
    topic(&node, "orders", QUICK).await;
    let silent = join_as_producer(&node, "producer-1", Manner::Silent);
    let transaction = prepare(&node, "orders", half("m1", "x")).await;
    silent.until_offered(3).await;
    let parked = until(&node, transaction, |view| {
        node.sessions.heard("producer-1", Instant::now());
        view.state == TransactionState::Parked
    })
    .await;
    assert_eq!((parked.checks, silent.asked()), (3, 3));
    assert!(parked.last_answer.unwrap().text.contains("silent"));
    node.stop().await;
}

#[tokio::test]
async fn a_body_that_cannot_be_decompressed_in_the_room_there_is_holds_up_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let node = start(folder.path()).await;
    topic(&node, "orders", QUICK).await;
    let (address, _) = order_service(|_| (200, r#"{"status":"PAID"}"#.to_owned()));
    bind_http_checkback(&node, address).await;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(&vec![0; 65 << 20]).unwrap();
    let body: bytes::Bytes = encoder.finish().unwrap().into();
    let mut bombs = Vec::new();
    for n in 0..12 {
        let bomb = vouch_broker::NewMessage {
            encoding: vouch_broker::BodyEncoding::Gzip,
            body: body.clone(),
            ..half(&format!("m{n}"), "")
        };
        bombs.push(prepare(&node, "orders", bomb).await);
    }
    for bomb in bombs {
        until(&node, bomb, |view| view.state == TransactionState::Committed).await;
    }
    node.stop().await;
}
