//! Messages through a real node: sent, received, acknowledged, redelivered, dead-lettered, over restarts.

use std::time::Duration;

use crate::common;
use crate::common::{config, message, prepare, receive, receive_now, send, start, topic};
use vouch_broker::{GroupConfig, NotDone, NothingStored, Refusal, ResourceName, TagFilter};
use vouch_node::{Expect, Node, Receipt, ReceiveRequest, SendRequest, StartError};

#[tokio::test]
async fn a_message_is_received_exactly_as_sent_and_stays_gone_after_its_ack() {
    let folder = tempfile::tempdir().unwrap();
    let node = start(folder.path()).await;
    topic(&node, "t", "{}").await;
    let sent = message("m1", "hello");
    let receipt = send(&node, "t", sent.clone()).await;
    let delivery = node.messages.receive(receive("t", "g")).await.unwrap().remove(0);
    assert_eq!(delivery.message.message, sent);
    assert_eq!(Receipt::Stored { queue: delivery.queue, offset: delivery.offset }, receipt);
    assert_eq!((delivery.attempt, delivery.message.producer.as_str()), (1, "producer-1"));
    assert_eq!(node.messages.ack(&[delivery.handle]).await.unwrap(), [Ok(())]);
    assert_eq!(node.messages.ack(&[delivery.handle]).await.unwrap(), [Ok(())], "a repeated ack is fine");
    node.stop().await;
    drop(node);
    let node = start(folder.path()).await;
    assert!(receive_now(&node, "t", "g").await.is_empty());
    assert_eq!(receive_now(&node, "t", "other").await.len(), 1, "another group gets its own copy");
    node.stop().await;
}

#[tokio::test]
async fn a_waiting_receive_gets_a_message_that_is_sent_later() {
    let folder = tempfile::tempdir().unwrap();
    let node = start(folder.path()).await;
    topic(&node, "t", "{}").await;
    let waiting = tokio::spawn({
        let node = node.clone();
        async move { node.messages.receive(receive("t", "g")).await }
    });
    while node.status.numbers().await.unwrap().waiting_polls == 0 {
        tokio::task::yield_now().await;
    }
    send(&node, "t", message("m1", "x")).await;
    assert_eq!(waiting.await.unwrap().unwrap().len(), 1);
    node.stop().await;
}

#[tokio::test]
async fn a_message_without_an_ack_comes_back_with_the_next_attempt_and_its_old_handle_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let node = start(folder.path()).await;
    topic(&node, "t", "{}").await;
    send(&node, "t", message("m1", "x")).await;
    let short = ReceiveRequest { invisible_ms: Some(200), ..receive("t", "g") };
    let first = node.messages.receive(short).await.unwrap().remove(0);
    let second = node.messages.receive(receive("t", "g")).await.unwrap().remove(0);
    assert_eq!((second.attempt, second.offset), (2, first.offset));
    assert!(matches!(node.messages.ack(&[first.handle]).await.unwrap()[0], Err(Refusal::InvalidHandle(_))));
    assert_eq!(node.messages.ack(&[second.handle]).await.unwrap(), [Ok(())]);
    node.stop().await;
}

#[tokio::test]
async fn a_changed_lease_has_a_new_handle_and_the_old_one_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let node = start(folder.path()).await;
    topic(&node, "t", "{}").await;
    send(&node, "t", message("m1", "x")).await;
    let first = node.messages.receive(receive("t", "g")).await.unwrap().remove(0);
    let changed = node.messages.change_invisible(first.handle, 60_000, false).await.unwrap();
    assert!(matches!(node.messages.ack(&[first.handle]).await.unwrap()[0], Err(Refusal::InvalidHandle(_))));
    let now = node.messages.change_invisible(changed, 0, true).await.unwrap();
    let again = node.messages.receive(receive("t", "g")).await.unwrap().remove(0);
    assert_eq!(again.attempt, 1, "a suspended delivery does not count");
    assert!(matches!(node.messages.ack(&[now]).await.unwrap()[0], Err(Refusal::InvalidHandle(_))));
    node.stop().await;
}

#[tokio::test]
async fn a_message_that_fails_too_often_is_in_the_dead_letter_topic_once() {
    let folder = tempfile::tempdir().unwrap();
    let node = start(folder.path()).await;
    topic(&node, "t", "{}").await;
    let group = GroupConfig { max_attempts: 2, ..GroupConfig::default() };
    node.settings.put_group("g", group, Expect::Absent).await.unwrap();
    send(&node, "t", message("m1", "poison")).await;
    for attempt in 1..=2 {
        let delivery = node.messages.receive(receive("t", "g")).await.unwrap().remove(0);
        assert_eq!(delivery.attempt, attempt);
        node.messages.change_invisible(delivery.handle, 0, false).await.unwrap();
    }
    assert!(receive_now(&node, "t", "g").await.is_empty());
    // The dead-letter topic comes into being with its first letter, which is on its way into the log.
    while node.settings.topic(&ResourceName::plain("%DLQ%g")).await.is_err() {
        tokio::task::yield_now().await;
    }
    let dead = node.messages.receive(receive("%DLQ%g", "undertaker")).await.unwrap();
    assert_eq!(dead.len(), 1);
    assert_eq!(dead[0].dead_letter_origin, Some(("t".to_owned(), "m1".to_owned())));
    assert_eq!((dead[0].attempt, &dead[0].message.message.body[..]), (1, &b"poison"[..]));
    node.stop().await;
}

#[tokio::test]
async fn a_receive_that_is_cancelled_takes_no_lease() {
    let folder = tempfile::tempdir().unwrap();
    let node = start(folder.path()).await;
    topic(&node, "t", "{}").await;
    let waiting = tokio::spawn({
        let node = node.clone();
        async move { node.messages.receive(receive("t", "g")).await }
    });
    while node.status.numbers().await.unwrap().waiting_polls == 0 {
        tokio::task::yield_now().await;
    }
    waiting.abort();
    assert!(waiting.await.unwrap_err().is_cancelled());
    send(&node, "t", message("m1", "x")).await;
    let delivery = node.messages.receive(receive("t", "g")).await.unwrap().remove(0);
    assert_eq!(delivery.attempt, 1);
    node.stop().await;
}

#[tokio::test]
async fn a_filter_gives_its_tags_and_skips_the_rest_for_the_group() {
    let folder = tempfile::tempdir().unwrap();
    let node = start(folder.path()).await;
    topic(&node, "t", r#"{"queues":1}"#).await;
    for (id, tag) in [("m1", Some("a")), ("m2", Some("b")), ("m3", None), ("m4", Some("a"))] {
        let mut message = message(id, "x");
        message.tag = tag.map(str::to_owned);
        send(&node, "t", message).await;
    }
    let request = ReceiveRequest { filter: TagFilter::tags(["a"]), ..receive("t", "g") };
    let got = node.messages.receive(request).await.unwrap();
    let ids: Vec<_> = got.iter().map(|delivery| delivery.message.message.message_id.as_str()).collect();
    assert_eq!(ids, ["m1", "m4"]);
    let handles: Vec<_> = got.iter().map(|delivery| delivery.handle).collect();
    assert_eq!(node.messages.ack(&handles).await.unwrap(), [Ok(()), Ok(())]);
    assert_eq!(node.settings.progress("g").await.unwrap()[0].lag, 0, "skipped messages are no backlog");
    node.stop().await;
}

#[tokio::test]
async fn a_resend_is_stored_once_and_gets_the_first_receipt() {
    let folder = tempfile::tempdir().unwrap();
    let node = start(folder.path()).await;
    topic(&node, "t", r#"{"type":"mixed"}"#).await;
    let first = send(&node, "t", message("m1", "x")).await;
    assert_eq!(send(&node, "t", message("m1", "x")).await, first);
    let transaction = prepare(&node, "t", common::half("h1", "x")).await;
    assert_eq!(prepare(&node, "t", common::half("h1", "x")).await, transaction);
    send(&node, "t", message("m1", "other content")).await;
    assert_eq!(receive_now(&node, "t", "g").await.len(), 2);
    node.stop().await;
}

#[tokio::test]
async fn a_send_beyond_the_bound_in_flight_is_refused_before_anything_is_queued() {
    let folder = tempfile::tempdir().unwrap();
    let config = vouch_node::NodeConfig { bytes_in_flight: 10_000, ..common::config(folder.path()) };
    let node = vouch_node::Node::start(config).unwrap();
    topic(&node, "t", "{}").await;
    let request = |id: usize| SendRequest {
        topic: ResourceName::plain("t"),
        producer: "p".to_owned(),
        messages: vec![message(&format!("m{id}"), &"x".repeat(4000))],
    };
    let sends: Vec<_> = (0..50).map(|id| node.messages.send(request(id))).collect();
    let results = futures_join(sends).await;
    let stored = results.iter().filter(|result| result.is_ok()).count();
    assert!(
        results.iter().any(|result| matches!(result, Err(NotDone::NothingStored(NothingStored::Overloaded { .. }))))
    );
    assert_eq!(receive_now(&node, "t", "g").await.len(), stored, "what was refused was not stored");
    assert_eq!(node.status.bytes_in_flight(), 0);
    node.stop().await;
}

/// Polls all of them before any is finished.
async fn futures_join<F: Future>(futures: Vec<F>) -> Vec<F::Output> {
    let mut futures: Vec<_> = futures.into_iter().map(Box::pin).collect();
    let mut done: Vec<Option<F::Output>> = futures.iter().map(|_| None).collect();
    std::future::poll_fn(|context| {
        for (future, slot) in futures.iter_mut().zip(&mut done) {
            if slot.is_none()
                && let std::task::Poll::Ready(value) = future.as_mut().poll(context)
            {
                *slot = Some(value);
            }
        }
        if done.iter().all(Option::is_some) { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    done.into_iter().map(|slot| slot.expect("every future is done")).collect()
}

#[tokio::test]
async fn what_does_not_exist_or_does_not_fit_is_refused_with_its_reason() {
    let folder = tempfile::tempdir().unwrap();
    let node = start(folder.path()).await;
    topic(&node, "t", "{}").await;
    let send = |topic: &str, message| SendRequest {
        topic: ResourceName::plain(topic),
        producer: "p".to_owned(),
        messages: vec![message],
    };
    let missing = node.messages.send(send("nowhere", message("m", "x"))).await.unwrap_err();
    assert!(missing.to_string().contains("vouch topic create nowhere"));
    let mismatch = node.messages.send(send("t", common::half("m", "x"))).await;
    assert!(matches!(mismatch, Err(NotDone::Refused(Refusal::TypeMismatch { .. }))));
    let nothing = node.messages.receive(ReceiveRequest { wait: Duration::ZERO, ..receive("nowhere", "g") }).await;
    assert!(matches!(nothing, Err(NotDone::Refused(Refusal::TopicNotFound(_)))));
    node.stop().await;
}

#[tokio::test]
async fn a_folder_serves_one_node_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let node = start(folder.path()).await;
    let second = vouch_node::Node::start(common::config(folder.path()));
    assert!(matches!(second, Err(vouch_node::StartError::Locked { .. })));
    node.stop().await;
}

#[tokio::test]
async fn many_messages_over_many_segments_survive_a_restart_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let node = start(folder.path()).await;
    topic(&node, "t", r#"{"queues":1}"#).await;
    let body = "x".repeat(16 << 10);
    for id in 0..1000 {
        send(&node, "t", message(&format!("m{id}"), &body)).await;
    }
    node.stop().await;
    drop(node);
    let node = start(folder.path()).await;
    let got = receive_now(&node, "t", "g").await;
    assert_eq!(got.len(), 1000);
    for (id, delivery) in got.iter().enumerate() {
        assert_eq!((delivery.offset.0, delivery.message.message.message_id.clone()), (id as u64, format!("m{id}")));
    }
    node.stop().await;
}

/// Whoever consumes under random names gets here. The receive once proposed its group again and again, at the pace of the
/// disk, long after its caller was gone.
#[tokio::test]
async fn a_receive_whose_group_cannot_be_made_is_told_why_and_writes_nothing_more() {
    let folder = tempfile::tempdir().unwrap();
    let node = start(folder.path()).await;
    topic(&node, "t", "{}").await;
    let groups: Vec<String> = (0..vouch_broker::state::GROUPS_MAX).map(|n| format!("g{n}")).collect();
    for some in groups.chunks(5000) {
        let puts: Vec<_> = some
            .iter()
            .cloned()
            .map(|name| {
                let node = node.clone();
                tokio::spawn(
                    async move { node.settings.put_group(&name, GroupConfig::default(), Expect::Anything).await },
                )
            })
            .collect();
        for put in puts {
            put.await.unwrap().unwrap();
        }
    }
    let refused = node.messages.receive(receive("t", "one-too-many")).await.unwrap_err();
    assert!(matches!(&refused, NotDone::Refused(Refusal::TooMany(text)) if text.contains("groups")), "{refused:?}");
    let appended = node.status.numbers().await.unwrap().appended;
    let again = node.messages.receive(receive("t", "one-too-many")).await.unwrap_err();
    assert!(matches!(again, NotDone::Refused(Refusal::TooMany(_))), "{again:?}");
    let grown = node.status.numbers().await.unwrap().appended.since(appended);
    assert!(grown < 4096, "one refused receive made the log grow by {grown} bytes");
    node.stop().await;
}

#[tokio::test]
async fn when_a_node_is_stopped_another_may_have_its_folder_whoever_still_holds_it() {
    let folder = tempfile::tempdir().unwrap();
    let node = start(folder.path()).await;
    topic(&node, "t", "{}").await;
    send(&node, "t", message("m", "body")).await;
    let held = node.clone();
    // Neither call returns before the shard has ended.
    let stop = async |node: &Node| {
        node.stop().await;
        assert!(matches!(node.status.numbers().await, Err(NotDone::NothingStored(NothingStored::Stopping))));
    };
    tokio::join!(stop(&node), stop(&held));
    let next = start(folder.path()).await;
    assert_eq!(receive_now(&next, "t", "g").await.len(), 1);
    // A late call for the old one leaves the lock of the new one alone.
    held.stop().await;
    assert!(matches!(Node::start(config(folder.path())), Err(StartError::Locked { .. })));
    next.stop().await;
}
