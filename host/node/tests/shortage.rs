//! A node that runs out of file descriptors goes on by itself when there are some again.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails like the test")]
#![allow(clippy::print_stdout, reason = "the child says to the test that it ran")]

mod common;

use std::fs::File;
use std::process::Command;
use std::time::{Duration, Instant};

use common::{config, half, message, prepare, receive_now, topic};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use vouch_broker::record::EndedBy;
use vouch_broker::{NotDone, NothingStored, ResourceName, TransactionOutcome};
use vouch_node::{EndRequest, Node, NodeHealth, SendRequest};

/// Says that this process is the child.
const CHILD: &str = "VOUCH_TEST_WITHOUT_DESCRIPTORS";
/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// Sends a message that is as good as a fifth of a segment.
async fn try_send(node: &Node, id: usize) -> Result<(), NotDone> {
    let messages = vec![message(&format!("m{id}"), &"b".repeat(800 << 10))];
    let request = SendRequest { topic: ResourceName::plain("t"), producer: "p".to_owned(), messages };
    node.messages.send(request).await.map(drop)
}

/// The limit is the whole process's: other tests must not run beside this.
#[test]
fn without_descriptors_sends_are_refused_by_name_and_taken_again_when_there_are_some() {
    if std::env::var_os(CHILD).is_some() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        return runtime.block_on(run_out_of_descriptors());
    }
    let name = "without_descriptors_sends_are_refused_by_name_and_taken_again_when_there_are_some";
    let child = Command::new(std::env::current_exe().unwrap())
        .args([name, "--exact", "--nocapture"])
        .env(CHILD, "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&child.stdout).into_owned() + &String::from_utf8_lossy(&child.stderr);
    assert!(child.status.success() && text.contains("it ran"), "{text}");
}

async fn run_out_of_descriptors() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start(config(folder.path())).unwrap();
    topic(&node, "t", "{}").await;
    topic(&node, "x", r#"{"type": "transaction", "transaction": {"max_checks": 0}}"#).await;
    let transaction = prepare(&node, "x", half("h", "half")).await;
    try_send(&node, 0).await.unwrap();

    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: Some(256), maximum }).unwrap();
    let mut taken = Vec::new();
    while let Ok(file) = File::open("/dev/null") {
        taken.push(file);
    }
    let mut accepted = 1;
    let refusal = loop {
        match try_send(&node, accepted).await {
            Ok(()) => accepted += 1,
            Err(refusal) => break refusal,
        }
        assert!(accepted < 100, "segments are made without descriptors");
    };
    assert!(
        matches!(&refusal, NotDone::NothingStored(NothingStored::Short(text)) if text.contains("file descriptors")),
        "{refusal}"
    );
    assert_eq!(node.status.health(), NodeHealth::Ready, "nothing is wrong with the log");
    // What ends something finds the space that was kept for it.
    let by = EndedBy::Operator { name: "ann".to_owned() };
    let outcome = TransactionOutcome::Committed;
    let end = EndRequest { topic: None, message_id: None, transaction, outcome, by, reason: String::new() };
    node.transactions.end(end).await.unwrap();

    drop(taken);
    let began = Instant::now();
    while let Err(refusal) = try_send(&node, accepted).await {
        assert!(matches!(refusal, NotDone::NothingStored(NothingStored::Short(_))), "{refusal}");
        assert!(began.elapsed() < PATIENCE, "there are descriptors again, and sends are still refused");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    accepted += 1;
    node.stop().await;
    drop(node);

    let node = Node::start(config(folder.path())).unwrap();
    assert_eq!(receive_now(&node, "t", "g").await.len(), accepted);
    assert_eq!(receive_now(&node, "x", "g").await.len(), 1);
    node.stop().await;
    println!("it ran");
}
