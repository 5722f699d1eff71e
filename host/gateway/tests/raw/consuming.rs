use std::time::{Duration, Instant};

use vouch_broker::GroupConfig;
use vouch_protocol::wire::{
    ChangeInvisibleDurationRequest, Code, FilterExpression, ForwardMessageToDeadLetterQueueRequest, Message,
    ReceiveMessageRequest,
};

use crate::broker::{
    Broker, Client, attempt, code, handle, id, message, receive_request, resource, seconds, soon, with_system,
};

pub(crate) async fn change(client: &mut Client, handle: &str, invisible: i64, suspend: bool) -> (Code, String) {
    let request = client.request(ChangeInvisibleDurationRequest {
        topic: resource("orders"),
        group: resource("group"),
        receipt_handle: handle.to_owned(),
        invisible_duration: Some(seconds(invisible)),
        suspend: Some(suspend),
        ..Default::default()
    });
    let answer = client.grpc.change_invisible_duration(request).await.unwrap().into_inner();
    (code(&answer.status), answer.receipt_handle)
}

pub(crate) async fn forward(client: &mut Client, group: &str, handle: &str) -> Code {
    let request = client.request(ForwardMessageToDeadLetterQueueRequest {
        topic: resource("orders"),
        group: resource(group),
        receipt_handle: handle.to_owned(),
        delivery_attempt: 1,
        ..Default::default()
    });
    code(&client.grpc.forward_message_to_dead_letter_queue(request).await.unwrap().into_inner().status)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ack_is_idempotent_and_final() {
    let broker = Broker::start().await;
    let mut client = broker.client("client").await;
    client.send_one("orders", "1").await;
    let received = soon(client.receive("orders", "group")).await;
    let handle = handle(&received[0]);
    for _ in 0..2 {
        let answer = client.ack("orders", "group", &[handle]).await;
        assert_eq!((code(&answer.status), code(&answer.entries[0].status)), (Code::Ok, Code::Ok));
    }
    let mut again = receive_request("orders", "group");
    again.long_polling_timeout = Some(seconds(0));
    let empty = soon(client.receive_with(again)).await;
    assert_eq!((empty.code, empty.messages.len(), empty.told_the_time), (Code::MessageNotFound, 0, true));
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn handles_that_were_not_given_out_for_this_are_refused_one_by_one() {
    let broker = Broker::start().await;
    let mut client = broker.client("client").await;
    client.send_one("orders", "1").await;
    let received = soon(client.receive("orders", "group")).await;
    let good = handle(&received[0]);
    let mut forged = good.to_owned();
    forged.replace_range(10..11, if &good[10..11] == "A" { "B" } else { "A" });

    let answer = client.ack("orders", "group", &["garbage"]).await;
    assert_eq!(code(&answer.status), Code::InvalidReceiptHandle);
    soon(client.receive_with({
        let mut other = receive_request("orders", "other");
        other.long_polling_timeout = Some(seconds(0));
        other
    }))
    .await;
    for (topic, group) in [("orders", "other"), ("any", "group"), ("orders", "nobody")] {
        let answer = client.ack(topic, group, &[good]).await;
        assert_eq!(code(&answer.status), Code::InvalidReceiptHandle, "{topic} {group}");
    }
    let answer = client.ack("nowhere", "group", &[good]).await;
    assert_eq!((code(&answer.status), answer.entries.len()), (Code::TopicNotFound, 1), "entries are mirrored");

    let answer = client.ack("orders", "group", &[&forged, good, "garbage"]).await;
    assert_eq!(code(&answer.status), Code::MultipleResults);
    let codes: Vec<_> = answer.entries.iter().map(|entry| code(&entry.status)).collect();
    assert_eq!(codes, [Code::InvalidReceiptHandle, Code::Ok, Code::InvalidReceiptHandle]);
    assert_eq!(answer.entries[1].receipt_handle, good);
    assert_eq!(code(&client.ack("orders", "group", &[]).await.status), Code::BadRequest);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_was_taken_over_is_refused_and_the_newer_one_untouched() {
    let broker = Broker::start().await;
    let mut client = broker.client("client").await;
    client.send_one("orders", "1").await;
    let first = soon(client.receive("orders", "group")).await;
    let (status, changed) = change(&mut client, handle(&first[0]), 0, false).await;
    assert_eq!(status, Code::Ok);
    let second = soon(client.receive("orders", "group")).await;
    assert_eq!(attempt(&second[0]), 2);
    for stale in [handle(&first[0]), &changed] {
        assert_eq!(code(&client.ack("orders", "group", &[stale]).await.status), Code::InvalidReceiptHandle);
        let (status, echoed) = change(&mut client, stale, 30, false).await;
        assert_eq!((status, echoed.as_str()), (Code::InvalidReceiptHandle, stale), "the old handle comes back");
    }
    assert_eq!(code(&client.ack("orders", "group", &[handle(&second[0])]).await.status), Code::Ok);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suspended_delivery_does_not_count() {
    let broker = Broker::start().await;
    let mut client = broker.client("client").await;
    client.send_one("orders", "1").await;
    let first = soon(client.receive("orders", "group")).await;
    assert_eq!(change(&mut client, handle(&first[0]), 0, true).await.0, Code::Ok);
    assert_eq!(attempt(&soon(client.receive("orders", "group")).await[0]), 1);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn durations_and_batches_are_bounded() {
    let broker = Broker::start().await;
    let mut client = broker.client("client").await;
    client.send(vec![message("orders", "x"); 1]).await;
    for n in 0..40 {
        client.send_one("orders", &n.to_string()).await;
    }
    let mut large = receive_request("orders", "group");
    large.batch_size = 100;
    let received = soon(client.receive_with(large.clone())).await;
    assert!((1..=32).contains(&received.messages.len()));
    for (length, words) in [
        (12 * 3600 + 1, "the invisibleTime is too large. max is 43200000"),
        (9, "the invisibleTime is too small. min is 10000"),
    ] {
        large.invisible_duration = Some(seconds(length));
        let refused = soon(client.receive_with(large.clone())).await;
        assert_eq!(refused.code, Code::IllegalInvisibleTime);
        assert!(refused.text.contains(words), "{}", refused.text);
        let renewed = ReceiveMessageRequest { auto_renew: true, batch_size: 1, ..large.clone() };
        assert_eq!(soon(client.receive_with(renewed)).await.code, Code::Ok, "the server chooses");
    }
    large.invisible_duration = Some(seconds(12 * 3600));
    assert_eq!(soon(client.receive_with(large)).await.code, Code::Ok);
    let good = handle(&received.messages[0]);
    let (status, echoed) = change(&mut client, good, 12 * 3600 + 1, false).await;
    assert_eq!((status, echoed.as_str()), (Code::IllegalInvisibleTime, good));
    assert_eq!(change(&mut client, good, 1, false).await.0, Code::Ok, "a change may shorten a lease as it likes");
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_allows_it_gives_leases_of_a_second() {
    let broker = Broker::start_with_short_leases().await;
    let mut client = broker.client("client").await;
    client.send_one("orders", "1").await;
    let mut short = receive_request("orders", "group");
    short.invisible_duration = Some(prost_types::Duration { seconds: 0, nanos: 999_000_000 });
    let refused = soon(client.receive_with(short.clone())).await;
    assert!(refused.text.contains("the invisibleTime is too small. min is 1000"), "{}", refused.text);
    short.invisible_duration = Some(seconds(1));
    assert_eq!(attempt(&soon(client.receive_with(short)).await.messages[0]), 1);
    assert_eq!(attempt(&soon(client.receive("orders", "group")).await[0]), 2);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_handle_is_named_before_the_sentence() {
    let broker = Broker::start().await;
    let mut client = broker.client("client").await;
    client.send_one("orders", "1").await;
    let received = soon(client.receive("orders", "group")).await;
    let answer = client.ack("orders", "group", &["garbage"]).await;
    for status in [answer.status.unwrap(), answer.entries[0].status.clone().unwrap()] {
        assert!(status.message.starts_with("INVALID_RECEIPT_HANDLE: "), "{}", status.message);
    }
    let answer = client.ack("nowhere", "group", &[handle(&received[0])]).await;
    assert!(answer.status.unwrap().message.starts_with("TOPIC_NOT_FOUND: "));
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_attempt_and_a_forward_lead_to_the_dead_letter_topic_once() {
    let broker = Broker::start().await;
    broker.group("group", GroupConfig { max_attempts: 1, ..Default::default() }).await;
    let mut client = broker.client("client").await;
    client.send_one("orders", "tired").await;
    let first = soon(client.receive("orders", "group")).await;
    change(&mut client, handle(&first[0]), 0, false).await;

    client.send_one("orders", "forwarded").await;
    let second = soon(client.receive("orders", "group")).await;
    assert_eq!(second.iter().map(id).collect::<Vec<_>>(), ["forwarded"]);
    let good = handle(&second[0]);
    assert_eq!(forward(&mut client, "group", good).await, Code::Ok);
    assert_eq!(forward(&mut client, "group", good).await, Code::Ok, "clients repeat it until it is OK");
    assert_eq!(forward(&mut client, "group", "garbage").await, Code::InvalidReceiptHandle);
    assert_eq!(forward(&mut client, "other", good).await, Code::InvalidReceiptHandle);

    let mut dead = Vec::new();
    while dead.len() < 2 {
        dead.extend(soon(client.receive("%DLQ%group", "undertaker")).await);
    }
    dead.sort_by(|a, b| id(a).cmp(id(b)));
    assert_eq!(dead.iter().map(id).collect::<Vec<_>>(), ["forwarded", "tired"]);
    for letter in &dead {
        let system = letter.system_properties.as_ref().unwrap();
        let origin = system.dead_letter_queue.as_ref().unwrap();
        assert_eq!((origin.topic.as_str(), origin.message_id.as_str()), ("orders", id(letter)));
        assert_eq!((letter.topic.clone(), attempt(letter)), (resource("%DLQ%group"), 1));
    }
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poll_ends_before_its_deadline() {
    let broker = Broker::start().await;
    let mut client = broker.client("client").await;
    let mut request = client.request(receive_request("orders", "group"));
    request.set_timeout(Duration::from_secs(1));
    let begun = Instant::now();
    let received = soon(client.collect(request)).await;
    assert_eq!(received.code, Code::MessageNotFound);
    assert!(begun.elapsed() < Duration::from_secs(1), "it took {:?}", begun.elapsed());
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poll_with_a_deadline_of_decades_is_served() {
    let broker = Broker::start().await;
    let mut client = broker.client("client").await;
    client.send_one("orders", "1").await;
    let mut request = client.request(receive_request("orders", "group"));
    request.metadata_mut().insert("grpc-timeout", "31536000M".parse().unwrap());
    assert_eq!(soon(client.collect(request)).await.messages.len(), 1);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_poll_gets_a_message_at_once_and_a_cancelled_one_takes_none() {
    let broker = Broker::start().await;
    let mut client = broker.client("client").await;
    let mut long = receive_request("orders", "group");
    long.long_polling_timeout = Some(seconds(20));
    let request = client.request(long.clone());
    // The headers come at once, although nothing is there.
    let stream = soon(client.grpc.receive_message(request)).await.unwrap().into_inner();
    drop(stream);
    drop(client);
    let (mut consumer, mut producer) = (broker.client("consumer").await, broker.client("producer").await);
    let waiting = tokio::spawn(async move { consumer.receive_with(long).await });
    tokio::task::yield_now().await;
    producer.send_one("orders", "1").await;
    let received = soon(waiting).await.unwrap();
    assert_eq!(received.messages.len(), 1, "the cancelled poll did not take it");
    assert_eq!(attempt(&received.messages[0]), 1);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_breaks_off_gives_its_leases_back_uncounted() {
    let broker = Broker::start().await;
    let mut client = broker.client("client").await;
    // Far more than the client's window and the server's buffer hold, so that the end of the answer has not left; and few
    // enough bytes each to travel together.
    let ids: Vec<_> = (0..8).map(|n| n.to_string()).collect();
    for id in &ids {
        let large = Message { body: vec![1; 1000 << 10].into(), ..message("orders", id) };
        assert_eq!(code(&client.send(vec![large]).await.status), Code::Ok);
    }
    let request = client.request(receive_request("orders", "group"));
    let mut stream = client.grpc.receive_message(request).await.unwrap().into_inner();
    assert!(soon(stream.message()).await.unwrap().is_some(), "the answer has begun");
    drop(stream);

    // The leases last 30 seconds: within ten, only what was given back can come.
    let mut other = broker.client("other").await;
    let mut received = Vec::new();
    soon(async {
        while received.len() < ids.len() {
            received.extend(other.receive("orders", "group").await);
        }
    })
    .await;
    assert!(received.iter().all(|message| attempt(message) == 1), "nobody saw the first delivery");
    let mut got: Vec<_> = received.iter().map(|message| id(message).to_owned()).collect();
    got.sort();
    assert_eq!(got, ids);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tag_filters_select_and_other_filters_are_refused() {
    let broker = Broker::start().await;
    let mut client = broker.client("client").await;
    for tag in ["A", "B", "C"] {
        let tagged = with_system(message("orders", tag), |system| system.tag = Some(tag.to_owned()));
        assert_eq!(code(&client.send(vec![tagged]).await.status), Code::Ok);
    }
    client.send_one("orders", "untagged").await;
    let mut request = receive_request("orders", "group");
    let mut got = Vec::new();
    request.filter_expression = Some(FilterExpression { r#type: 1, expression: "A || B".into() });
    while got.len() < 2 {
        let received = soon(client.receive_with(request.clone())).await;
        got.extend(received.messages.iter().map(|message| id(message).to_owned()));
    }
    got.sort();
    assert_eq!(got, ["A", "B"]);
    request.filter_expression = Some(FilterExpression { r#type: 2, expression: "a > 5".into() });
    let refused = soon(client.receive_with(request)).await;
    assert_eq!(refused.code, Code::NotImplemented);
    assert!(refused.text.contains("SQL"), "{}", refused.text);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receive_from_nowhere_says_so() {
    let broker = Broker::start().await;
    let mut client = broker.client("client").await;
    assert_eq!(soon(client.receive_with(receive_request("nowhere", "group"))).await.code, Code::TopicNotFound);
    let long = "g".repeat(121);
    assert_eq!(soon(client.receive_with(receive_request("orders", &long))).await.code, Code::IllegalConsumerGroup);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receive_with_the_65th_filter_of_its_group_is_told_that_there_are_too_many() {
    let broker = Broker::start().await;
    let mut client = broker.client("client").await;
    client.send_one("orders", "1").await;
    for n in 0..=vouch_broker::state::FILTERS_MAX {
        let mut request = receive_request("orders", "group");
        request.filter_expression = Some(FilterExpression { r#type: 1, expression: format!("tag-{n}") });
        request.long_polling_timeout = Some(seconds(0));
        let received = soon(client.receive_with(request)).await;
        let expected = if n < 64 { Code::MessageNotFound } else { Code::TooManyRequests };
        assert_eq!((received.code, received.messages.len()), (expected, 0), "filter {n}");
    }
    broker.stop().await;
}
