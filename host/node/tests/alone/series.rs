//! What metrics show of groups, topics and transactions: right, bounded, and made without holding anybody up.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::common::{config, half, message, prepare, receive, receive_now, send, topic};
use vouch_broker::{GroupConfig, ResourceName, TransactionOutcome};
use vouch_node::{
    EndRequest, Expect, GroupLag, Node, NodeConfig, OTHER, ReceiveRequest, SERIES_MAX, SendRequest, SeriesView,
    TimeSource,
};

/// A condition that should come true by itself is given up after this long.
const PATIENCE: Duration = Duration::from_secs(60);
const SECOND: u64 = 1000;

/// Clocks that stand still unless a test moves them.
struct Clocks(AtomicU64);

impl TimeSource for Clocks {
    fn since_boot(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::SeqCst))
    }

    fn since_1970(&self) -> Duration {
        Duration::from_millis(1_780_000_000_000 + self.0.load(Ordering::SeqCst))
    }
}

fn start(config: NodeConfig) -> (Node, Arc<Clocks>) {
    let clocks = Arc::new(Clocks(AtomicU64::new(1_000_000)));
    (Node::start_with(config, clocks.clone()).unwrap(), clocks)
}

/// Waits for a view that is as wanted: it is made anew once a second.
async fn until(node: &Node, what: &str, wanted: impl Fn(&SeriesView) -> bool) -> Arc<SeriesView> {
    let began = Instant::now();
    loop {
        let view = node.status.series().await.unwrap();
        if wanted(&view) {
            return view;
        }
        assert!(began.elapsed() < PATIENCE, "it never comes true that {what}: {view:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn of<'a>(view: &'a SeriesView, group: &str) -> Option<&'a GroupLag> {
    view.groups.iter().find(|row| row.group == group)
}

async fn send_many(node: &Node, topic: &str, count: usize, body: &str) {
    for first in (0..count).step_by(500) {
        let messages = (first..count.min(first + 500)).map(|n| message(&format!("{topic}{n}"), body)).collect();
        let request = SendRequest { topic: ResourceName::plain(topic), producer: "producer-1".to_owned(), messages };
        node.messages.send(request).await.unwrap();
    }
}

fn parts(folder: &Path) -> usize {
    let files = std::fs::read_dir(folder.join("shards/0/snapshots")).unwrap();
    files.filter(|file| file.as_ref().unwrap().path().extension().is_some_and(|found| found == "part")).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lag_of_a_group_is_told_in_messages_and_seconds_and_what_is_in_flight() {
    // More in flight than one turn of the executor looks at.
    const SENT: usize = 9000;
    const TAKEN: u64 = 6400;
    let folder = tempfile::tempdir().unwrap();
    let (node, clocks) = start(config(folder.path()));
    topic(&node, "t", r#"{"queues": 4}"#).await;
    receive_now(&node, "t", "g").await;
    let view = node.status.series().await.unwrap();
    assert_eq!(of(&view, "g").map(|row| (row.lag, row.in_flight, row.lag_seconds)), Some((0, 0, Some(0.0))));
    assert!(Arc::ptr_eq(&view, &node.status.series().await.unwrap()), "it is made at most once a second");

    send_many(&node, "t", SENT, "x").await;
    clocks.0.fetch_add(7 * SECOND, Ordering::SeqCst);
    let mut taken = Vec::new();
    for _ in 0..TAKEN / 32 {
        taken.extend(node.messages.receive(receive("t", "g")).await.unwrap());
    }
    assert_eq!(taken.len() as u64, TAKEN);
    let view = until(&node, "all are in flight", |view| of(view, "g").is_some_and(|row| row.in_flight == TAKEN)).await;
    let row = of(&view, "g").unwrap();
    assert_eq!((row.topic.as_str(), row.lag, row.lag_seconds), ("t", SENT as u64, Some(7.0)));

    clocks.0.fetch_add(3 * SECOND, Ordering::SeqCst);
    let handles: Vec<_> = taken.iter().map(|delivery| delivery.handle).collect();
    for some in handles.chunks(1000) {
        node.messages.ack(some).await.unwrap().into_iter().for_each(|acked| acked.unwrap());
    }
    let left = SENT as u64 - TAKEN;
    let view = until(&node, "they are done", |view| of(view, "g").is_some_and(|row| row.lag == left)).await;
    let row = of(&view, "g").unwrap();
    assert_eq!((row.in_flight, row.lag_seconds), (0, Some(10.0)));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_age_of_messages_in_parts_is_told_too() {
    let folder = tempfile::tempdir().unwrap();
    let (node, clocks) = start(NodeConfig { snapshot_every: 1 << 20, scrub_rate: 0, ..config(folder.path()) });
    topic(&node, "t", r#"{"queues": 2}"#).await;
    topic(&node, "fill", r#"{"queues": 1}"#).await;
    receive_now(&node, "t", "g").await;
    send_many(&node, "t", 10, "x").await;
    clocks.0.fetch_add(100 * SECOND, Ordering::SeqCst);
    let began = Instant::now();
    let mut n = 0;
    // Until what was sent first lies in a part of which the state reads.
    while parts(folder.path()) < 2 {
        assert!(began.elapsed() < PATIENCE, "no part is made");
        send(&node, "fill", message(&format!("f{n}"), &"b".repeat(1 << 18))).await;
        n += 1;
    }
    let view = until(&node, "it is told", |view| of(view, "g").is_some_and(|row| row.lag == 10)).await;
    assert_eq!(of(&view, "g").unwrap().lag_seconds, Some(100.0));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_groups_and_topics_than_there_may_be_series_are_summed() {
    const BEYOND: usize = 5;
    let folder = tempfile::tempdir().unwrap();
    let (node, _) = start(config(folder.path()));
    topic(&node, "t", r#"{"queues": 1}"#).await;
    send_many(&node, "t", 3, "x").await;
    // One that is called as the sum is belongs to it.
    let mut groups = vec![OTHER.to_owned()];
    groups.extend((0..SERIES_MAX + BEYOND).map(|n| format!("g{n}")));
    for some in groups.chunks(100) {
        let made = some.iter().map(|group| {
            let node = node.clone();
            let request = ReceiveRequest { max: 1, wait: Duration::ZERO, ..receive("t", group) };
            tokio::spawn(async move { node.messages.receive(request).await.unwrap().len() })
        });
        for received in made.collect::<Vec<_>>() {
            assert_eq!(received.await.unwrap(), 1);
        }
    }
    let others = BEYOND as u64 + 1;
    // A batch is handed out when its lease is written; what is applied follows.
    let all = |view: &SeriesView| view.groups.last().is_some_and(|rest| rest.in_flight == others);
    let view = until(&node, "all are told", all).await;
    let rest = view.groups.last().unwrap();
    assert_eq!((rest.group.as_str(), rest.topic.as_str(), rest.lag_seconds), (OTHER, OTHER, None));
    assert_eq!((view.groups.len(), rest.lag), (SERIES_MAX + 1, 3 * others));
    assert!(view.groups[..SERIES_MAX].iter().all(|row| (row.lag, row.in_flight) == (3, 1)));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn open_and_parked_transactions_are_told_by_topic_with_the_age_of_the_oldest() {
    let folder = tempfile::tempdir().unwrap();
    let (node, clocks) = start(config(folder.path()));
    for name in ["a", "b", "idle"] {
        topic(&node, name, r#"{"type": "transaction", "transaction": {"max_checks": 0}}"#).await;
    }
    topic(&node, "plain", r"{}").await;
    let first = prepare(&node, "a", half("a1", "x")).await;
    clocks.0.fetch_add(5 * SECOND, Ordering::SeqCst);
    prepare(&node, "b", half("b1", "x")).await;
    prepare(&node, "a", half("a2", "x")).await;
    clocks.0.fetch_add(2 * SECOND, Ordering::SeqCst);
    let told = |view: &SeriesView| -> Vec<(String, u64, u64, Option<f64>)> {
        let row = |row: &vouch_node::TopicTransactions| (row.topic.clone(), row.open, row.parked, row.oldest_seconds);
        view.topics.iter().map(row).collect()
    };
    let row = |topic: &str, open, age| (topic.to_owned(), open, 0, Some(age));
    let expected = [row("a", 2, 7.0), row("b", 1, 2.0), row("idle", 0, 0.0)];
    until(&node, "all are told", |view| told(view) == expected).await;
    let end = EndRequest::by_operator(first, TransactionOutcome::Committed, "ann".to_owned(), String::new());
    node.transactions.end(end).await.unwrap();
    let expected = [row("a", 1, 2.0), row("b", 1, 2.0), row("idle", 0, 0.0)];
    until(&node, "the next one is the oldest", |view| told(view) == expected).await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_counted_once_for_the_group_that_gave_them_up() {
    let folder = tempfile::tempdir().unwrap();
    let (node, _) = start(config(folder.path()));
    topic(&node, "t", r#"{"queues": 1}"#).await;
    node.settings.put_group("g", GroupConfig::default(), Expect::Anything).await.unwrap();
    send_many(&node, "t", 2, "x").await;
    assert_eq!(node.status.series().await.unwrap().dead_letters, []);
    for delivery in receive_now(&node, "t", "g").await {
        for _ in 0..2 {
            node.messages.forward_to_dead_letter(delivery.handle, "enough").await.unwrap();
        }
    }
    until(&node, "both are counted", |view| view.dead_letters == [("g".to_owned(), 2)]).await;
    node.settings.delete_group("g").await.unwrap();
    until(&node, "its series goes with the group", |view| view.dead_letters.is_empty()).await;
    node.stop().await;
}
