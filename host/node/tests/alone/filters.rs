//! Members of one group with different filters, through a real node: what one of them wants is never passed over for it,
//! and one message costs what wants it.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::common::{message, receive, send, start, topic};
use vouch_broker::state::FILTERS_MAX;
use vouch_broker::{NewMessage, NotDone, Refusal, ResourceName, TagFilter};
use vouch_node::{Declaration, Delivery, Node, ReceiveRequest, SessionRole};

fn tagged(id: &str, tag: &str) -> NewMessage {
    NewMessage { tag: Some(tag.to_owned()), ..message(id, "x") }
}

fn asks(client: &str, group: &str, tag: &str) -> ReceiveRequest {
    let (client_id, filter) = (client.to_owned(), TagFilter::tags([tag]));
    ReceiveRequest { client_id, filter, wait: Duration::ZERO, ..receive("t", group) }
}

/// What a member with this tag gets now: ids of messages.
async fn get(node: &Node, client: &str, tag: &str) -> Vec<String> {
    ids(node.messages.receive(asks(client, "g", tag)).await.unwrap())
}

fn ids(deliveries: Vec<Delivery>) -> Vec<String> {
    deliveries.into_iter().map(|delivery| delivery.message.message.message_id).collect()
}

async fn restarted(node: Node, folder: &Path) -> Node {
    node.stop().await;
    drop(node);
    start(folder).await
}

/// What is not done of the topic for the group, when all that was decided is applied.
async fn lag(node: &Node) -> u64 {
    settle(node).await;
    node.settings.progress("g").await.unwrap()[0].lag
}

/// Everything that was proposed so far is applied, and what that led to: a group is made, joins, and brings its filters.
async fn settle(node: &Node) {
    topic(node, "other", "{}").await;
    for n in 0..5 {
        send(node, "other", message(&format!("settle-{n}"), "x")).await;
    }
}

#[tokio::test]
async fn after_a_restart_the_first_member_passes_over_nothing_that_another_wants() {
    let folder = tempfile::tempdir().unwrap();
    let node = start(folder.path()).await;
    topic(&node, "t", r#"{"queues":1}"#).await;
    for (client, tag) in [("first", "a"), ("second", "b")] {
        assert!(get(&node, client, tag).await.is_empty());
    }
    let node = restarted(node, folder.path()).await;
    for (id, tag) in [("m1", "a"), ("m2", "b"), ("m3", "c"), ("m4", "b")] {
        send(&node, "t", tagged(id, tag)).await;
    }
    assert_eq!(get(&node, "first", "a").await, ["m1"]);
    assert_eq!(lag(&node).await, 3, "what nobody wants is done");
    // What waits for the second member waits over a restart, too.
    let node = restarted(node, folder.path()).await;
    assert!(get(&node, "first", "a").await.is_empty());
    assert_eq!(get(&node, "second", "b").await, ["m2", "m4"]);
    node.stop().await;
}

/// A member that said what it wants and never received counts like one that did.
#[tokio::test]
async fn a_member_that_only_declared_what_it_wants_finds_it_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let node = start(folder.path()).await;
    topic(&node, "t", r#"{"queues":1}"#).await;
    let declaration = Declaration {
        role: SessionRole::PushConsumer,
        topics: vec![],
        group: Some(ResourceName::plain("g")),
        subscriptions: vec![(ResourceName::plain("t"), TagFilter::All)],
    };
    node.sessions.declare("second", declaration, Instant::now()).unwrap();
    send(&node, "t", tagged("m1", "a")).await;
    send(&node, "t", tagged("m2", "b")).await;
    assert_eq!(get(&node, "first", "a").await, ["m1"]);
    let node = restarted(node, folder.path()).await;
    send(&node, "t", message("m3", "x")).await;
    assert!(get(&node, "first", "a").await.is_empty());
    settle(&node).await;
    let all = ReceiveRequest { filter: TagFilter::All, ..asks("second", "g", "") };
    let mut got = ids(node.messages.receive(all).await.unwrap());
    got.sort_unstable();
    assert_eq!(got, ["m2", "m3"]);
    node.stop().await;
}

#[tokio::test]
async fn a_group_takes_64_different_filters_and_a_receive_with_one_more_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let node = start(folder.path()).await;
    topic(&node, "t", r#"{"queues":1}"#).await;
    for n in 0..FILTERS_MAX {
        assert!(get(&node, &format!("member-{n}"), &n.to_string()).await.is_empty());
    }
    for (id, tag) in [("m1", "nobody"), ("m2", "63"), ("m3", "64")] {
        send(&node, "t", tagged(id, tag)).await;
    }
    for _ in 0..2 {
        let refused = node.messages.receive(asks("one-more", "g", "64")).await;
        assert!(
            matches!(&refused, Err(NotDone::Refused(Refusal::TooMany(text))) if text.contains("64 different")),
            "{refused:?}"
        );
    }
    assert_eq!(lag(&node).await, 3, "nothing was skipped");
    let node = restarted(node, folder.path()).await;
    assert!(matches!(
        node.messages.receive(asks("one-more", "g", "64")).await,
        Err(NotDone::Refused(Refusal::TooMany(_)))
    ));
    assert_eq!(lag(&node).await, 3);
    assert_eq!(get(&node, "member-63", "63").await, ["m2"]);
    assert!(
        node.messages.receive(asks("one-more", "other", "64")).await.unwrap().len() == 1,
        "another group has its own"
    );
    node.stop().await;
}

/// 2 048 receives with different filters once cost a scan each for every message.
#[tokio::test]
async fn one_message_costs_the_receives_that_want_it_and_not_all_that_wait() {
    const GROUPS: usize = 32;
    let folder = tempfile::tempdir().unwrap();
    let node = start(folder.path()).await;
    topic(&node, "t", r#"{"queues":1}"#).await;
    let mut waiting = Vec::new();
    for (group, n) in (0..GROUPS).flat_map(|group| (0..FILTERS_MAX).map(move |n| (group, n))) {
        let tag = format!("{group}-{n}");
        let request = ReceiveRequest { wait: Duration::from_secs(20), ..asks(&tag, &format!("g{group}"), &tag) };
        let node = node.clone();
        waiting.push(tokio::spawn(async move { node.messages.receive(request).await }));
    }
    while node.status.numbers().await.unwrap().waiting_polls < waiting.len() {
        tokio::task::yield_now().await;
    }
    settle(&node).await;
    let before = node.status.receive_scans();
    send(&node, "t", tagged("m1", "5-7")).await;
    let got = waiting.swap_remove(5 * FILTERS_MAX + 7).await.unwrap().unwrap();
    assert_eq!(ids(got), ["m1"]);
    let scans = node.status.receive_scans() - before;
    assert!(scans <= 2, "{scans} scans for a message that one receive wants");
    node.stop().await;
}
