//! What becomes of asks when their binding is deleted or set anew meanwhile: it decides nothing any more.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use crate::common::checking::{order_service, until};
use crate::common::{half, prepare, start, topic};
use vouch_broker::{TransactionId, TransactionOutcome};
use vouch_node::{EndRequest, Expect, Node, PluginUpload, TransactionState};

/// Asked at once, and not again for long: what is asked a second time is asked because its binding changed.
const ONCE: &str = r#"{"type":"transaction","transaction":{"immunity":"1ms","interval":"1h"}}"#;

async fn push_http_checkback(node: &Node) {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../plugins/dist/http-checkback.wasm");
    let (name, tag, wasm) = ("http-checkback".to_owned(), "1.0".to_owned(), std::fs::read(file).unwrap().into());
    node.components.upload(PluginUpload { name, tag, wasm, expected: None }).await.unwrap();
}

/// A service that says *cancelled*, of each order when it is let.
struct Service {
    address: SocketAddr,
    asked: Arc<AtomicUsize>,
    answer: Sender<()>,
}

impl Service {
    fn new() -> Self {
        let (answer, answers) = channel::<()>();
        let (address, asked) = order_service(move |_| {
            let _ = answers.recv();
            (200, r#"{"status":"cancelled"}"#.to_owned())
        });
        Self { address, asked, answer }
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    async fn until_asked(&self, times: usize) {
        while self.asked() < times {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Lets this many answers go, and gives them the time to arrive.
    async fn let_answer(&self, answers: usize) {
        (0..answers).for_each(|_| self.answer.send(()).unwrap());
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

/// What *cancelled* means to a binding.
#[derive(Clone, Copy)]
enum Cancelled {
    Commits,
    RollsBack,
}

impl Cancelled {
    fn config(self, address: SocketAddr) -> serde_json::Value {
        let (commit, rollback) = match self {
            Self::Commits => ("cancelled", "paid"),
            Self::RollsBack => ("paid", "cancelled"),
        };
        let url = format!("http://{address}/{{key}}");
        serde_json::json!({"url": url, "field": "/status", "commit": commit, "rollback": rollback})
    }
}

async fn bind(node: &Node, name: &str, service: &Service, cancelled: Cancelled) {
    let spec = serde_json::json!({
        "plugin": "http-checkback:1.0",
        "topics": ["t"],
        "limits": {"deadline": "20s", "concurrency": 1},
        // Its service answers nobody until it is let.
        "unchecked": true,
        "grants": {"http": [format!("http://{}", service.address)]},
        "config": cancelled.config(service.address),
    });
    node.components.put_binding(name, &spec.to_string(), Expect::Anything).await.unwrap();
}

/// A node whose binding `b` rolls back what was cancelled, and its service.
async fn asking(folder: &std::path::Path) -> (Node, Service) {
    let node = start(folder).await;
    push_http_checkback(&node).await;
    topic(&node, "t", ONCE).await;
    let service = Service::new();
    bind(&node, "b", &service, Cancelled::RollsBack).await;
    (node, service)
}

async fn assert_undecided(node: &Node, transaction: TransactionId) {
    let view = node.transactions.get(transaction).await.unwrap();
    let decided = !matches!(view.state, TransactionState::Open | TransactionState::WaitingForChecker);
    assert!(!decided && view.checks == 0, "a binding that is gone decided: {view:?}");
}

/// Verdicts of binding `b`, as they are counted.
fn verdicts(node: &Node) -> u64 {
    let counts = node.metrics.checks.counts();
    let of_b = counts.named().filter(|(name, _)| *name == "b");
    of_b.flat_map(|(_, counts)| counts.by_verdict()).map(|(_, count)| count).sum()
}

#[tokio::test]
async fn a_deleted_binding_decides_nothing_and_what_waits_for_it_is_not_asked() {
    const QUEUED: usize = 30;
    let folder = tempfile::tempdir().unwrap();
    let (node, service) = asking(folder.path()).await;
    let mut open = Vec::new();
    for n in 0..QUEUED {
        open.push(prepare(&node, "t", half(&format!("m{n}"), "x")).await);
    }
    service.until_asked(1).await;
    node.components.delete_binding("b").await.unwrap();
    service.let_answer(QUEUED).await;
    assert_eq!(service.asked(), 1, "those that waited are asked by a binding that is gone");
    for transaction in &open {
        assert_undecided(&node, *transaction).await;
    }
    assert_eq!(verdicts(&node), 0);
    // Whoever is bound now is asked at once, not when an hour is over.
    bind(&node, "c", &service, Cancelled::Commits).await;
    service.let_answer(QUEUED).await;
    for transaction in open {
        until(&node, transaction, |view| view.state == TransactionState::Committed).await;
    }
    node.stop().await;
}

#[tokio::test]
async fn what_a_binding_answers_that_was_set_anew_meanwhile_is_dropped_and_the_new_one_is_asked() {
    let folder = tempfile::tempdir().unwrap();
    let (node, service) = asking(folder.path()).await;
    for (n, delete) in [(1, false), (2, true)] {
        bind(&node, "b", &service, Cancelled::RollsBack).await;
        let transaction = prepare(&node, "t", half(&format!("m{n}"), "x")).await;
        let asked = service.asked();
        service.until_asked(asked + 1).await;
        if delete {
            node.components.delete_binding("b").await.unwrap();
        }
        bind(&node, "b", &service, Cancelled::Commits).await;
        service.let_answer(2).await;
        until(&node, transaction, |view| view.state == TransactionState::Committed).await;
    }
    assert_eq!(verdicts(&node), 2, "each was answered once");
    node.stop().await;
}

#[tokio::test]
async fn the_answer_of_a_deleted_binding_leaves_the_ask_of_the_one_that_took_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let (node, service) = asking(folder.path()).await;
    let transaction = prepare(&node, "t", half("m1", "x")).await;
    service.until_asked(1).await;
    node.components.delete_binding("b").await.unwrap();
    let other = Service::new();
    bind(&node, "c", &other, Cancelled::Commits).await;
    other.until_asked(1).await;
    service.let_answer(1).await;
    assert_undecided(&node, transaction).await;
    other.let_answer(1).await;
    until(&node, transaction, |view| view.state == TransactionState::Committed).await;
    node.stop().await;
}

#[tokio::test]
async fn what_waits_for_a_topic_that_was_deleted_and_made_again_is_not_asked() {
    let folder = tempfile::tempdir().unwrap();
    let (node, service) = asking(folder.path()).await;
    for n in 0..5 {
        prepare(&node, "t", half(&format!("m{n}"), "x")).await;
    }
    service.until_asked(1).await;
    node.settings.delete_topic_by_force("t", "ada".to_owned(), String::new()).await.unwrap();
    topic(&node, "t", ONCE).await;
    let new = prepare(&node, "t", half("n", "x")).await;
    service.let_answer(7).await;
    until(&node, new, |view| view.state == TransactionState::RolledBack).await;
    assert_eq!(service.asked(), 2, "the one that was under way, and the one that is there");
    node.stop().await;
}

/// A decision of somebody else ends what is asked about, whatever became of its binding.
#[tokio::test]
async fn an_operator_decides_while_the_answer_of_a_deleted_binding_is_on_its_way() {
    let folder = tempfile::tempdir().unwrap();
    let (node, service) = asking(folder.path()).await;
    let transaction = prepare(&node, "t", half("m1", "x")).await;
    service.until_asked(1).await;
    node.components.delete_binding("b").await.unwrap();
    let committed = TransactionOutcome::Committed;
    let decision = EndRequest::by_operator(transaction, committed, "ada".to_owned(), String::new());
    node.transactions.end(decision).await.unwrap();
    service.let_answer(1).await;
    until(&node, transaction, |view| view.state == TransactionState::Committed).await;
    node.stop().await;
}
