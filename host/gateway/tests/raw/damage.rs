use std::os::unix::fs::FileExt;

use vouch_protocol::wire::TransactionResolution::{Commit, Rollback, Unspecified};
use vouch_protocol::wire::{ClientType, Code, Endpoints, HeartbeatRequest, QueryRouteRequest};

use crate::broker::{Broker, code, handle, message, receive_request, resource, soon};
use crate::consuming::{change, forward};
use crate::sessions::{Telemetry, producer_settings};
use crate::transactions::{end, prepare};

/// What a client did before and after the damage is not known to a node that serves only what came before: it must never
/// hear that it is not so.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_serves_a_damaged_log_refuses_every_write_and_denies_nothing() {
    let broker = Broker::start().await;
    let mut client = broker.client("client").await;
    client.send_one("orders", "before").await;
    let known = prepare(&mut client, "payments", "known").await;
    let received = soon(client.receive("orders", "group")).await;
    let lease = handle(&received[0]).to_owned();
    client.send_one("orders", "damaged").await;
    let behind = prepare(&mut client, "payments", "behind").await;
    broker.node.settings.put_topic("late", Default::default(), vouch_node::Expect::Anything).await.unwrap();
    let broker = broker
        .serve_read_only_after(|folder| {
            let file = folder.join("shards/0/log/00000000000000000000.log");
            let bytes = std::fs::read(&file).unwrap();
            let body = b"body of damaged";
            let at = bytes.windows(body.len()).position(|window| window == body).unwrap() as u64;
            std::fs::File::options().write(true).open(file).unwrap().write_all_at(b"?", at).unwrap();
        })
        .await;
    let mut client = broker.client("client").await;

    for (topic, id) in [("orders", "new"), ("late", "new"), ("never", "new")] {
        let answer = soon(client.send(vec![message(topic, id)])).await;
        assert_eq!(code(&answer.status), Code::HaNotAvailable, "{topic}: {answer:?}");
        assert!(answer.status.unwrap().message.contains("nothing was stored"));
    }
    for (id, transaction) in [("known", &known), ("behind", &behind)] {
        for resolution in [Commit, Rollback, Unspecified] {
            let (code, text) = end(&mut client, "payments", id, transaction, resolution).await;
            assert_eq!(code, Code::HaNotAvailable, "{id}: {text}");
        }
    }
    // At once, however long it would wait for messages.
    for group in ["group", "another"] {
        let answer = soon(client.receive_with(receive_request("orders", group))).await;
        assert_eq!((answer.code, answer.messages.len()), (Code::HaNotAvailable, 0), "{group}: {}", answer.text);
    }
    assert_eq!(code(&soon(client.ack("orders", "group", &[&lease])).await.status), Code::HaNotAvailable);
    assert_eq!(change(&mut client, &lease, 30, false).await.0, Code::HaNotAvailable);
    assert_eq!(forward(&mut client, "group", &lease).await, Code::HaNotAvailable);

    let mut route = async |topic: &str| {
        let endpoints = Some(Endpoints {
            scheme: 1,
            addresses: vec![vouch_protocol::wire::Address { host: "127.0.0.1".to_owned(), port: 8081 }],
        });
        let request = client.request(QueryRouteRequest { topic: resource(topic), endpoints });
        code(&soon(client.grpc.query_route(request)).await.unwrap().into_inner().status)
    };
    assert_eq!((route("orders").await, route("late").await), (Code::Ok, Code::HaNotAvailable));

    // Clients stay connected: what they ask for changes nothing in the log.
    let request = HeartbeatRequest { group: resource("group"), client_type: ClientType::SimpleConsumer as i32 };
    let request = client.request(request);
    assert_eq!(code(&client.grpc.heartbeat(request).await.unwrap().into_inner().status), Code::Ok);
    let mut telemetry = Telemetry::open(&mut client).await.unwrap();
    telemetry.exchange(producer_settings(&["orders"])).await;
    soon(broker.stop()).await;
}
