//! Receives that wait, and whose clients go away.

use std::time::{Duration, Instant};

use vouch_protocol::wire::ReceiveMessageRequest;

use crate::broker::{Broker, Client, receive_request, seconds, soon};

/// Far longer than the test may take.
const LONG: i64 = 30;
const CALLS: usize = 20;

async fn until_waiting(broker: &Broker, wanted: usize) {
    let look = async {
        while broker.node.status.numbers().await.unwrap().waiting_polls != wanted {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    soon(look).await;
}

fn long_poll(group: &str) -> ReceiveMessageRequest {
    ReceiveMessageRequest { long_polling_timeout: Some(seconds(LONG)), ..receive_request("orders", group) }
}

async fn wait(client: &mut Client, group: &str) -> tonic::Streaming<vouch_protocol::wire::ReceiveMessageResponse> {
    let request = client.request(long_poll(group));
    client.grpc.receive_message(request).await.unwrap().into_inner()
}

#[tokio::test]
async fn a_receive_that_is_cancelled_or_whose_connection_closes_waits_no_more() {
    let broker = Broker::start().await;
    let began = Instant::now();
    let mut stays = broker.client("stays").await;
    let kept = wait(&mut stays, "g").await;
    until_waiting(&broker, 1).await;
    // Of a group of their own, and in the line of one that stays.
    for group in ["g", "h"] {
        let mut client = broker.client("cancels").await;
        let mut calls = Vec::new();
        for _ in 0..CALLS {
            calls.push(wait(&mut client, group).await);
        }
        until_waiting(&broker, 1 + CALLS).await;
        calls.truncate(CALLS / 2);
        until_waiting(&broker, 1 + CALLS / 2).await;
        drop((calls, client));
        until_waiting(&broker, 1).await;
    }
    // The one in front of all those that went is served.
    stays.clone().send_one("orders", "m1").await;
    let mut kept = kept;
    soon(kept.message()).await.unwrap().unwrap();
    until_waiting(&broker, 0).await;
    assert!(began.elapsed() < Duration::from_secs(LONG as u64), "they just waited long enough");
    broker.stop().await;
}
