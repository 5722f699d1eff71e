//! What a wrong clock does to a node, and what it does not.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::common::{config, half, message, prepare, receive, receive_now, send, topic};
use vouch_broker::record::EndedBy;
use vouch_broker::{NotDone, Refusal, TransactionId, TransactionOutcome};
use vouch_node::{Delivery, EndRequest, Node, NodeConfig, Receipt, ReceiveRequest, TimeSource, TransactionState};

const SECOND: u64 = 1_000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;
/// Far enough for 2036.
const YEARS: u64 = 10 * 365 * DAY;
/// Some day in 2026.
const BEGIN: u64 = 1_780_000_000_000;
/// A condition that should come true by itself is given up after this long.
const PATIENCE: Duration = Duration::from_secs(60);

/// The clocks of a machine, in milliseconds, which stand still unless a test moves them.
struct Clocks {
    boot: AtomicU64,
    wall: AtomicU64,
}

impl TimeSource for Clocks {
    fn since_boot(&self) -> Duration {
        Duration::from_millis(self.boot.load(Ordering::SeqCst))
    }

    fn since_1970(&self) -> Duration {
        Duration::from_millis(self.wall.load(Ordering::SeqCst))
    }
}

impl Clocks {
    fn new() -> Arc<Self> {
        Arc::new(Self { boot: AtomicU64::new(HOUR), wall: AtomicU64::new(BEGIN) })
    }

    /// Somebody sets the wall clock.
    fn step(&self, by: i64) {
        self.wall.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |wall| wall.checked_add_signed(by)).unwrap();
    }

    fn pass(&self, ms: u64) {
        self.boot.fetch_add(ms, Ordering::SeqCst);
        self.wall.fetch_add(ms, Ordering::SeqCst);
    }
}

/// Time passes, and the node looks every ten seconds.
fn live(node: &Node, clocks: &Clocks, ms: u64) {
    for _ in 0..ms / (10 * SECOND) {
        clocks.pass(10 * SECOND);
        node.status.now_ms();
    }
}

/// Waits until something is as wanted.
async fn until(what: &str, mut wanted: impl AsyncFnMut() -> bool) {
    let began = Instant::now();
    while !wanted().await {
        assert!(began.elapsed() < PATIENCE, "it never comes true: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn start(folder: &Path, clocks: &Arc<Clocks>) -> Node {
    let eager = NodeConfig {
        snapshot_every: 1 << 20,
        retention_every: Duration::from_millis(20),
        scrub_rate: 0,
        ..config(folder)
    };
    Node::start_with(eager, clocks.clone()).unwrap()
}

/// Receives one message that is there by now.
async fn receive_one(node: &Node, group: &str) -> Delivery {
    let request = ReceiveRequest { max: 1, ..receive("t", group) };
    let mut batch = node.messages.receive(request).await.unwrap();
    assert_eq!(batch.len(), 1, "nothing was there for {group}");
    batch.remove(0)
}

const HALF_HOUR: u64 = 30 * MINUTE;

/// Leases that end and checks that come due after half a minute do so in less than forty seconds of boot time.
async fn time_goes_on(node: &Node, clocks: &Clocks, round: &str) {
    // What the wall clock is ahead by less than a minute is followed at once.
    live(node, clocks, 10 * SECOND);
    let at_first = node.status.now_ms();
    send(node, "t", message(round, "x")).await;
    let first = receive_one(node, "g").await;
    assert_eq!(first.attempt, 1);
    let transaction = prepare(node, "x", half(round, "y")).await;
    live(node, clocks, 20 * SECOND);
    assert!(receive_now(node, "t", "g").await.is_empty(), "{round}: a lease ended early");
    assert_eq!(node.transactions.get(transaction).await.unwrap().state, TransactionState::Open, "{round}");
    live(node, clocks, 20 * SECOND);
    let again = receive_one(node, "g").await;
    assert_eq!((again.offset, again.attempt), (first.offset, 2), "{round}: a lease did not end");
    assert!(again.handle.generation > first.handle.generation);
    until(round, async || {
        node.transactions.get(transaction).await.unwrap().state == TransactionState::WaitingForChecker
    })
    .await;
    node.messages.ack(&[again.handle]).await.unwrap()[0].clone().unwrap();
    let passed = node.status.now_ms() - at_first;
    assert!((36 * SECOND..=40 * SECOND).contains(&passed), "{round}: {passed} ms passed in forty seconds");
}

async fn topics(node: &Node) {
    topic(node, "t", r#"{"queues":1,"retention":"1h","unconsumed":"expire"}"#).await;
    topic(node, "x", r#"{"type":"transaction","transaction":{"immunity":"30s"}}"#).await;
    topic(node, "z", r#"{"queues":1,"retention_size":"1MiB"}"#).await;
}

#[tokio::test]
async fn leases_end_and_checks_come_due_whatever_somebody_does_to_the_wall_clock() {
    let folder = tempfile::tempdir().unwrap();
    let clocks = Clocks::new();
    let node = start(folder.path(), &clocks);
    topics(&node).await;
    time_goes_on(&node, &clocks, "right").await;
    for by in [2 * SECOND, HOUR, DAY, YEARS].map(u64::cast_signed).iter().flat_map(|by| [*by, -by]) {
        clocks.step(by);
        time_goes_on(&node, &clocks, &format!("stepped by {by}")).await;
        clocks.step(-by);
        time_goes_on(&node, &clocks, &format!("back from {by}")).await;
    }
    for minute in 0..6 {
        clocks.step(if minute % 2 == 0 { HOUR.cast_signed() } else { -HOUR.cast_signed() });
        time_goes_on(&node, &clocks, &format!("to and fro {minute}")).await;
    }
    node.stop().await;
}

#[tokio::test]
async fn leases_end_and_checks_come_due_after_a_start_with_any_wall_clock() {
    let folder = tempfile::tempdir().unwrap();
    let clocks = Clocks::new();
    let node = start(folder.path(), &clocks);
    topics(&node).await;
    let mut last = node.status.now_ms();
    node.stop().await;
    for by in [-HOUR.cast_signed(), HOUR.cast_signed(), -DAY.cast_signed(), DAY.cast_signed(), YEARS.cast_signed(), 0] {
        clocks.pass(10 * SECOND);
        clocks.step(by);
        let node = start(folder.path(), &clocks);
        assert!(node.status.now_ms() >= last, "time went back at a start");
        time_goes_on(&node, &clocks, &format!("started with {by}")).await;
        clocks.step(-by);
        time_goes_on(&node, &clocks, &format!("right since it started with {by}")).await;
        last = node.status.now_ms();
        node.stop().await;
    }
}

#[tokio::test]
async fn a_suspend_is_felt_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let clocks = Clocks::new();
    let node = start(folder.path(), &clocks);
    topics(&node).await;
    send(&node, "t", message("m", "x")).await;
    let first = receive_one(&node, "g").await;
    let transaction = prepare(&node, "x", half("h", "y")).await;
    // The wall clock of a machine that slept may need a while.
    for wall in [-HOUR.cast_signed(), HOUR.cast_signed()] {
        let before = node.status.now_ms();
        clocks.step(wall);
        clocks.pass(HOUR);
        assert!(node.status.now_ms() - before >= HOUR * 9 / 10);
    }
    assert_eq!(receive_one(&node, "g").await.attempt, 2);
    // Not in half a minute, as a timer that did not feel it would.
    let began = Instant::now();
    until("the transaction is due", async || {
        node.transactions.get(transaction).await.unwrap().state == TransactionState::WaitingForChecker
    })
    .await;
    assert!(began.elapsed() < Duration::from_secs(20));
    let refused = node.messages.ack(&[first.handle]).await.unwrap()[0].clone();
    assert!(matches!(refused, Err(Refusal::InvalidHandle(_))), "{refused:?}");
    node.stop().await;
}

/// What a new group gets first of the topic that is kept for an hour.
async fn first_offset(node: &Node, group: &str) -> Option<u64> {
    receive_now(node, "t", group).await.iter().map(|delivery| delivery.offset.0).min()
}

async fn fill(node: &Node, topic: &str, name: &str, count: usize) {
    for n in 0..count {
        send(node, topic, message(&format!("{name}{n}"), &"b".repeat(1 << 18))).await;
    }
}

/// Until retention looked at everything, twice: what it takes from another topic shows it. All that was sent before is in
/// a part then.
async fn passes(node: &Node, name: &str) {
    let expired = || node.status.retention().expired.load(Ordering::Relaxed);
    for round in 0..2 {
        let (before, mut n) = (expired(), 0);
        until("retention goes on", async || {
            n += 1;
            fill(node, "z", &format!("{name}-{round}-{n}-"), 1).await;
            expired() > before
        })
        .await;
    }
}

#[tokio::test]
async fn a_wall_clock_that_is_ahead_deletes_nothing_until_it_held_and_then_nothing_young() {
    let folder = tempfile::tempdir().unwrap();
    let clocks = Clocks::new();
    let node = start(folder.path(), &clocks);
    topics(&node).await;
    fill(&node, "t", "old", 8).await;
    passes(&node, "a").await;
    clocks.step((2 * HOUR).cast_signed());
    live(&node, &clocks, 30 * SECOND);
    passes(&node, "b").await;
    assert_eq!(first_offset(&node, "g1").await, Some(0), "a wall clock that was ahead for 30 s deleted messages");
    // It holds; what is sent meanwhile is a quarter of an hour old at most when it is followed.
    fill(&node, "t", "young", 8).await;
    passes(&node, "c").await;
    live(&node, &clocks, 15 * MINUTE);
    until("the wall clock is followed", async || node.status.clock_ahead_ms() == 0).await;
    let mut n = 0;
    until("what is old goes", async || {
        n += 1;
        passes(&node, &format!("d{n}")).await;
        first_offset(&node, &format!("g2-{n}")).await != Some(0)
    })
    .await;
    let first = first_offset(&node, "g3").await;
    assert!(first.is_some_and(|first| first <= 8), "messages that were minutes old are gone: {first:?}");
    node.stop().await;
}

async fn end(node: &Node, transaction: TransactionId, outcome: TransactionOutcome) -> Result<bool, NotDone> {
    let by = EndedBy::Client { client_id: "producer-1".to_owned(), from_check: false };
    let request = EndRequest { transaction, outcome, topic: None, message_id: None, by, reason: String::new() };
    node.transactions.end(request).await.map(|receipt| receipt.repeated)
}

/// A node is down, and its machine comes back with a wall clock that may be anything.
#[tokio::test]
async fn after_a_start_nothing_is_forgotten_until_the_wall_clock_held_and_leases_are_over_at_once() {
    for (down, held) in [(2 * DAY, true), (YEARS, false)] {
        let folder = tempfile::tempdir().unwrap();
        let clocks = Clocks::new();
        let node = start(folder.path(), &clocks);
        topics(&node).await;
        fill(&node, "t", "old", 8).await;
        passes(&node, "a").await;
        let Receipt::Stored { offset, .. } = send(&node, "t", message("once", "x")).await else { unreachable!() };
        assert_eq!(receive_one(&node, "g").await.attempt, 1);
        let transaction = prepare(&node, "x", half("h", "y")).await;
        assert!(!end(&node, transaction, TransactionOutcome::Committed).await.unwrap());
        node.stop().await;
        drop(node);

        clocks.step(down.cast_signed());
        let node = start(folder.path(), &clocks);
        assert!(node.status.now_ms() >= BEGIN + down);
        assert_eq!(receive_one(&node, "g").await.attempt, 2, "a lease outlived the time in which the node was down");
        let is_forgotten = async |name: &str| {
            let conflict = end(&node, transaction, TransactionOutcome::RolledBack).await.unwrap_err();
            let gone = matches!(conflict, NotDone::Refused(Refusal::AlreadyEnded { .. }));
            assert!(gone || matches!(conflict, NotDone::Refused(Refusal::OutcomeConflict { .. })), "{conflict:?}");
            passes(&node, name).await;
            (gone, first_offset(&node, name).await != Some(0))
        };
        let again = send(&node, "t", message("once", "x")).await;
        assert!(matches!(again, Receipt::Stored { offset: at, .. } if at == offset), "a resend was stored again");
        assert_eq!(is_forgotten("b").await, (false, false));
        live(&node, &clocks, 14 * MINUTE);
        assert_eq!(is_forgotten("c").await, (false, false));
        if !held {
            clocks.step(-down.cast_signed());
        }
        live(&node, &clocks, 2 * MINUTE);
        if held {
            until("the time is believed", async || node.status.numbers().await.unwrap().doubted_ms == 0).await;
            let mut n = 0;
            until("what is old goes", async || {
                n += 1;
                is_forgotten(&format!("d{n}")).await == (true, true)
            })
            .await;
        } else {
            live(&node, &clocks, HALF_HOUR);
            assert_eq!(is_forgotten("e").await, (false, false));
            assert!(node.status.numbers().await.unwrap().doubted_ms > 0);
            // So much was lived: messages go all the same.
            live(&node, &clocks, HOUR);
            let mut n = 0;
            until("what is old goes", async || {
                n += 1;
                is_forgotten(&format!("f{n}")).await == (false, true)
            })
            .await;
        }
        node.stop().await;
    }
}
