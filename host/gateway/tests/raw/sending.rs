use vouch_protocol::wire::{Code, Endpoints, Message, QueryAssignmentRequest, QueryRouteRequest, SendMessageRequest};

use crate::broker::{Broker, Client, code, handle, id, message, receive_request, resource, seconds, soon, with_system};
use crate::consuming::forward;

/// The code that a change of a good message earns. Every client below sends to the same broker.
async fn code_of(broker: &Broker, message: Message) -> Code {
    code(&broker.client("producer").await.send(vec![message]).await.status)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_arrives_as_it_was_sent_with_its_place_and_time() {
    let broker = Broker::start().await;
    let mut client = broker.client("client").await;
    let mut sent = with_system(message("orders", "01AB"), |system| {
        system.tag = Some("tag".into());
        system.keys = vec!["key".into()];
    });
    sent.body = (0..=255).collect::<Vec<u8>>().into();
    sent.user_properties = [("ключ".to_owned(), "значение".to_owned())].into();
    let response = client.send(vec![sent.clone()]).await;
    assert_eq!(code(&response.status), Code::Ok);
    let [entry] = &response.entries[..] else { panic!("one entry for one message: {response:?}") };
    assert_eq!((code(&entry.status), entry.message_id.as_str()), (Code::Ok, "01AB"));

    let received = soon(client.receive("orders", "group")).await;
    let [got] = &received[..] else { panic!("one message: {received:?}") };
    assert_eq!((&got.body, &got.user_properties), (&sent.body, &sent.user_properties));
    assert_eq!(got.topic, resource("orders"));
    let system = got.system_properties.as_ref().unwrap();
    assert_eq!((system.message_id.as_str(), system.tag.as_deref()), ("01AB", Some("tag")));
    assert_eq!(system.keys, ["key"]);
    assert_eq!(system.born_host, "127.0.0.1");
    assert_eq!(system.store_host, broker.gateway.grpc_addr().to_string());
    assert!(system.born_timestamp.is_some() && system.store_timestamp.is_some() && system.queue_offset.is_some());
    assert_eq!(system.delivery_attempt, Some(1));
    assert_eq!(system.body_digest.as_ref().unwrap().checksum.len(), 32);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_sends_to_dead_letters_whether_they_exist_or_not() {
    let broker = Broker::start().await;
    let mut client = broker.client("client").await;
    client.send_one("orders", "1").await;
    let received = soon(client.receive("orders", "group")).await;
    assert_eq!(forward(&mut client, "group", handle(&received[0])).await, Code::Ok);
    for topic in ["%DLQ%group", "%DLQ%other"] {
        let response = client.send(vec![message(topic, "2")]).await;
        assert_eq!((code(&response.status), response.entries.len()), (Code::IllegalTopic, 0));
        assert!(response.status.unwrap().message.contains("dead letters"));
    }
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_gives_receipts_in_order_and_two_topics_give_none() {
    let broker = Broker::start().await;
    let mut client = broker.client("client").await;
    let response = client.send(vec![message("orders", "1"), message("any", "2")]).await;
    assert_eq!((code(&response.status), response.entries.len()), (Code::MessageCorrupted, 0));
    let ids: Vec<_> = (0..10).map(|n| n.to_string()).collect();
    let response = client.send(ids.iter().map(|id| message("orders", id)).collect()).await;
    assert_eq!(response.entries.iter().map(|entry| entry.message_id.clone()).collect::<Vec<_>>(), ids);
    let mut received: Vec<_> =
        soon(client.receive("orders", "group")).await.iter().map(|message| id(message).to_owned()).collect();
    received.sort();
    assert_eq!(received, ids, "the refused batch stored nothing");
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_rule_of_a_message_has_its_code() {
    let broker = Broker::start().await;
    let good = || message("orders", "01");
    let properties = |count: usize, value: usize| {
        let pairs = (0..count).map(|n| (format!("{n:03}"), "v".repeat(value))).collect();
        Message { user_properties: pairs, ..good() }
    };
    let named = |name: &str| Message { user_properties: [(name.to_owned(), "x".to_owned())].into(), ..good() };
    let cases = [
        ("129 properties", properties(129, 1), Code::MessagePropertiesTooLarge),
        ("128 properties", properties(128, 1), Code::Ok),
        ("16385 bytes of properties", properties(1, 16_382), Code::MessagePropertiesTooLarge),
        ("16384 bytes of properties", properties(1, 16_381), Code::Ok),
        ("reserved property", named("KEYS"), Code::IllegalMessagePropertyKey),
        ("tag with a bar", with_system(good(), |s| s.tag = Some("a|b".into())), Code::IllegalMessageTag),
        ("blank key", with_system(good(), |s| s.keys = vec!["  ".into()]), Code::IllegalMessageKey),
        (
            "group of 64 bytes",
            with_system(good(), |s| s.message_group = Some("g".repeat(64))),
            Code::IllegalMessageGroup,
        ),
        ("blank id", message("orders", " "), Code::IllegalMessageId),
        ("topic of 128 characters", message(&"t".repeat(128), "1"), Code::IllegalTopic),
        ("topic of 127 characters", message(&"t".repeat(127), "1"), Code::TopicNotFound),
        ("unknown topic", message("nowhere", "1"), Code::TopicNotFound),
        ("empty body", Message { body: Default::default(), ..good() }, Code::MessageBodyEmpty),
        ("body of 4 MiB", Message { body: vec![1; 4 << 20].into(), ..good() }, Code::Ok),
        (
            "body of 4 MiB and a byte",
            Message { body: vec![1; (4 << 20) + 1].into(), ..good() },
            Code::MessageBodyTooLarge,
        ),
        ("body of 6 MiB", Message { body: vec![1; 6 << 20].into(), ..good() }, Code::MessageBodyTooLarge),
    ];
    for (name, message, expected) in cases {
        assert_eq!(code_of(&broker, message).await, expected, "{name}");
    }
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kind_that_does_not_fit_the_topic_is_refused_and_one_that_is_not_built_too() {
    let broker = Broker::start().await;
    let fifo = |topic| with_system(message(topic, "1"), |system| system.message_group = Some("g".into()));
    let delay = |topic| with_system(message(topic, "1"), |system| system.delivery_timestamp = Some(Default::default()));
    let half = |topic| crate::broker::half_message(topic, "1");
    let mismatch = Code::MessagePropertyConflictWithType;
    for (message, expected) in [
        (half("orders"), mismatch),
        (fifo("orders"), mismatch),
        (delay("orders"), mismatch),
        (message("payments", "1"), mismatch),
        (fifo("any"), Code::NotImplemented),
        (delay("any"), Code::NotImplemented),
        (message("any", "1"), Code::Ok),
        (half("any"), Code::Ok),
        (half("payments"), Code::Ok),
        (with_system(message("any", "1"), |system| system.priority = Some(1)), Code::NotImplemented),
        (with_system(message("any", "1"), |system| system.lite_topic = Some("l".into())), Code::NotImplemented),
    ] {
        assert_eq!(code_of(&broker, message.clone()).await, expected, "{message:?}");
    }
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rust_client_5_0_0_gets_codes_that_it_knows() {
    let broker = Broker::start().await;
    let mut client = broker.client("client").await;
    let empty = Message { body: Default::default(), ..message("orders", "1") };
    let mut request = client.request(SendMessageRequest { messages: vec![empty] });
    request.metadata_mut().insert("x-mq-language", "RUST".parse().unwrap());
    request.metadata_mut().insert("x-mq-client-version", "5.0.0".parse().unwrap());
    let response = client.grpc.send_message(request).await.unwrap().into_inner();
    assert_eq!(code(&response.status), Code::MessageCorrupted);
    broker.stop().await;
}

fn access_point(port: i32) -> Option<Endpoints> {
    let addresses = vec![vouch_protocol::wire::Address { host: "broker.example".into(), port }];
    Some(Endpoints { scheme: 3, addresses })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_is_stable_and_leads_back_to_the_access_point() {
    let broker = Broker::start().await;
    let mut client = broker.client("client").await;
    let mut route = async |topic: &str, port| {
        let request = QueryRouteRequest { topic: resource(topic), endpoints: access_point(port) };
        let request = client.request(request);
        client.grpc.query_route(request).await.unwrap().into_inner()
    };
    let first = route("orders", 8081).await;
    assert_eq!(route("orders", 8081).await, first);
    assert_eq!(first.message_queues.len(), 8);
    for (id, queue) in first.message_queues.iter().enumerate() {
        assert_eq!((queue.id, queue.permission), (id as i32, 4));
        assert_eq!(queue.topic, resource("orders"));
        assert_eq!(queue.accept_message_types, [1]);
        let at = queue.broker.as_ref().unwrap();
        assert_eq!((at.id, at.name.is_empty(), &at.endpoints), (0, false, &access_point(8081)));
    }
    assert_eq!(route("payments", 1).await.message_queues[0].accept_message_types, [4]);
    assert_eq!(code(&route("nowhere", 8081).await.status), Code::TopicNotFound);
    assert_eq!(code(&route("a.b", 8081).await.status), Code::IllegalTopic);
    assert_eq!(code(&route("orders", 0).await.status), Code::IllegalAccessPoint);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_consumer_is_assigned_the_whole_topic() {
    let broker = Broker::start().await;
    let mut client = broker.client("client").await;
    let mut assigned = async |topic: &str, group: &str| {
        let request =
            QueryAssignmentRequest { topic: resource(topic), group: resource(group), endpoints: access_point(8081) };
        let request = client.request(request);
        client.grpc.query_assignment(request).await.unwrap().into_inner()
    };
    let answer = assigned("orders", "group").await;
    let [assignment] = &answer.assignments[..] else { panic!("one assignment: {answer:?}") };
    let queue = assignment.message_queue.as_ref().unwrap();
    assert_eq!((queue.id, queue.permission), (-1, 4));
    assert_eq!(queue.broker.as_ref().unwrap().endpoints, access_point(8081));
    assert_eq!(assigned("orders", "group").await, answer);
    assert_eq!(code(&assigned("nowhere", "group").await.status), Code::TopicNotFound);
    let group = "g".repeat(121);
    assert_eq!(code(&assigned("orders", &group).await.status), Code::IllegalConsumerGroup);
    broker.stop().await;
}

/// Sends and gives the code, and the trailer `retry-after-ms`, which the client library puts into the metadata.
async fn send_and_see(mut client: Client, sent: Message) -> (String, Code, Option<u64>) {
    let id = id(&sent).to_owned();
    let request = client.request(SendMessageRequest { messages: vec![sent] });
    let response = client.grpc.send_message(request).await.unwrap();
    let after = response.metadata().get("retry-after-ms").map(|ms| ms.to_str().unwrap().parse().unwrap());
    (id, code(&response.into_inner().status), after)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_overloaded_broker_stores_nothing_of_what_it_refuses_and_says_when_to_come_back() {
    // A single request always fits an idle node; with this bound a second one at the same time does not.
    let broker = Broker::start_with(|config| config.bytes_in_flight = 1).await;
    let client = broker.client("client").await;
    let (mut accepted, mut refused) = (Vec::new(), 0);
    // Until two sends met: the first round nearly always, and `soon` ends a broker that never refuses.
    soon(async {
        for round in 0.. {
            let sends = (0..64).map(|n| message("orders", &format!("{round}-{n}")));
            let sends: Vec<_> = sends.map(|sent| tokio::spawn(send_and_see(client.clone(), sent))).collect();
            for send in sends {
                match send.await.unwrap() {
                    (id, Code::Ok, None) => accepted.push(id),
                    (_, Code::TooManyRequests, Some(ms)) if (1..=60_000).contains(&ms) => refused += 1,
                    other => panic!("neither stored nor throttled with a time: {other:?}"),
                }
            }
            if refused > 0 {
                break;
            }
        }
    })
    .await;
    let mut stored = Vec::new();
    let mut consumer = broker.client("consumer").await;
    while stored.len() < accepted.len() {
        stored.extend(soon(consumer.receive("orders", "group")).await.iter().map(|got| id(got).to_owned()));
    }
    let mut rest = receive_request("orders", "group");
    rest.long_polling_timeout = Some(seconds(0));
    assert_eq!(soon(consumer.receive_with(rest)).await.messages.len(), 0);
    stored.sort();
    accepted.sort();
    assert_eq!(stored, accepted);
    broker.stop().await;
}
