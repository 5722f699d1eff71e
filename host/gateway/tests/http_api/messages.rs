//! Where a message is.

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::json;
use std::io::Write as _;
use vouch_broker::{BodyEncoding, NewMessage};
use vouch_gateway::{HTTP_OUTBOUND_ADDRESS_MAX_BYTES, HTTP_OUTBOUND_MAX_BYTES};

use crate::api::{Api, each, message};

#[tokio::test]
async fn a_message_is_found_by_its_id() {
    let api = Api::start().await;
    api.put("/v1/topics/orders", json!({"queues": 1})).await.is(201);
    api.send("orders", message("m0", b"other")).await;
    api.send("orders", message("m1", "größer".as_bytes())).await;
    let found = api.get("/v1/messages/orders/m1").await.is(200).json();
    let stored_at = found["items"][0]["stored_at"].clone();
    let expected = json!({
        "id": "m1", "topic": "orders", "type": "normal", "place": {"queue": 0, "offset": 1}, "transaction": null,
        "tag": "created", "keys": ["key-m1"], "message_group": null, "properties": {"shop": "7"},
        "producer": "producer-1", "born_at": "2023-11-14T22:13:20.007Z", "born_host": "till-3", "stored_at": stored_at,
        "deliver_at": null, "trace_context": null, "body": "größer",
    });
    assert_eq!(found, json!({"items": [expected]}));
    assert_eq!(api.get("/v1/messages/orders/m9").await.is(200).json(), json!({"items": []}));
    api.get("/v1/messages/nothing/m1").await.expect_problem(404, "topic-not-found");
    api.get("/v1/messages/orders/m1?body=false").await.expect_problem(400, "bad-parameter");
}

#[tokio::test]
async fn a_half_message_is_shown_with_its_transaction() {
    let api = Api::start().await;
    api.transaction_topic("orders").await;
    let id = api.half("orders", "m1").await;
    let half = &api.get("/v1/messages/orders/m1").await.is(200).json()["items"][0];
    assert_eq!((&half["type"], &half["place"]), (&json!("transaction"), &json!(null)));
    assert_eq!((&half["transaction"]["id"], &half["transaction"]["state"]), (&json!(id), &json!("open")));
    api.post(&format!("/v1/transactions/{id}/commit"), json!({"by": "ann"})).await.is(200);
    let committed = &api.get("/v1/messages/orders/m1").await.is(200).json()["items"][0];
    assert!(committed["place"]["queue"].is_u64(), "{committed}");
    assert_eq!(committed["transaction"]["state"], "committed");
}

#[tokio::test]
async fn bodies_are_shown_as_the_application_had_them() {
    let api = Api::start().await;
    api.put("/v1/topics/orders", json!({})).await.is(201);
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    gzip.write_all(b"hello hello hello").unwrap();
    let packed = gzip.finish().unwrap();
    let compressed = NewMessage { encoding: BodyEncoding::Gzip, ..message("packed", &packed) };
    api.send("orders", compressed).await;
    api.send("orders", message("binary", &[0xFF, 0x00])).await;
    assert_eq!(api.get("/v1/messages/orders/packed").await.is(200).json()["items"][0]["body"], "hello hello hello");
    assert_eq!(api.get("/v1/messages/orders/binary").await.is(200).json()["items"][0]["body_base64"], "/wA=");
}

#[tokio::test]
async fn messages_are_listed_by_key_and_time_in_pages() {
    let api = Api::start().await;
    api.put("/v1/topics/orders", json!({"type": "mixed", "queues": 2})).await.is(201);
    for n in 0..5 {
        let keys = vec![format!("customer {}", n % 2), "all".to_owned()];
        api.send("orders", NewMessage { keys, ..message(&format!("m{n}"), b"body") }).await;
    }
    let page = api.get("/v1/messages/orders?key=customer+0&limit=2").await.is(200).json();
    assert_eq!(each(&page, "id"), ["m4", "m2"]);
    let next = page["next"].as_str().unwrap();
    let page = api.get(&format!("/v1/messages/orders?key=customer+0&limit=2&after={next}")).await.is(200).json();
    assert_eq!((each(&page, "id"), page.get("next")), (vec!["m0"], None));
    assert_eq!(api.get("/v1/messages/orders?key=nobody").await.is(200).json(), json!({"items": []}));

    let mut listed = Vec::new();
    let mut after = String::new();
    loop {
        let page = api.get(&format!("/v1/messages/orders?limit=2{after}")).await.is(200).json();
        listed.extend(page["items"].as_array().unwrap().clone());
        let Some(next) = page["next"].as_str() else { break };
        after = format!("&after={next}");
    }
    assert_eq!(listed.len(), 5);
    let last = listed.iter().map(|item| item["stored_at"].as_str().unwrap()).max().unwrap();
    let since = api.get(&format!("/v1/messages/orders?since={last}")).await.is(200).json();
    let late = listed.iter().filter(|item| item["stored_at"] == last).cloned().collect::<Vec<_>>();
    assert_eq!(since["items"].as_array().unwrap(), &late);
    assert_eq!(each(&api.get("/v1/messages/orders?since=0").await.is(200).json(), "id").len(), 5);
    assert_eq!(api.get("/v1/messages/orders?since=99999999999999").await.is(200).json(), json!({"items": []}));

    api.get("/v1/messages/nothing").await.expect_problem(404, "topic-not-found");
    api.get("/v1/messages/orders?since=yesterday").await.expect_problem(400, "bad-parameter");
    api.get("/v1/messages/orders?key=").await.expect_problem(400, "bad-parameter");
    api.get("/v1/messages/orders?after=queues-x").await.expect_problem(400, "bad-parameter");
    api.get(&format!("/v1/messages/orders?after={next}")).await.expect_problem(422, "invalid");
}

/// Asks for all messages of `t` from this address of the machine, and reads of the answer its first line alone.
async fn page_unread(api: &Api, from: &str) -> ([u8; 12], tokio::net::TcpStream) {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind(format!("{from}:0").parse().unwrap()).unwrap();
    let mut stream = socket.connect(api.http).await.unwrap();
    let get = format!("GET /v1/messages/t HTTP/1.1\r\nhost: {}\r\n\r\n", api.http);
    tokio::io::AsyncWriteExt::write_all(&mut stream, get.as_bytes()).await.unwrap();
    let mut status = [0; 12];
    tokio::io::AsyncReadExt::read_exact(&mut stream, &mut status).await.unwrap();
    (status, stream)
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_that_nobody_reads_are_bounded_for_each_address_and_refused_beyond() {
    let api = Api::start().await;
    api.put("/v1/topics/t", json!({"queues": 1})).await.is(201);
    for n in 0..8 {
        api.send("t", message(&n.to_string(), &vec![b'x'; 2_000_000])).await;
    }
    let mut unread = Vec::new();
    for (address, most) in [
        ("127.0.0.1", HTTP_OUTBOUND_ADDRESS_MAX_BYTES),
        ("127.0.0.2", HTTP_OUTBOUND_MAX_BYTES),
        ("127.0.0.3", HTTP_OUTBOUND_MAX_BYTES),
    ] {
        let found = unread.len();
        let refused = loop {
            let (status, stream) = page_unread(&api, address).await;
            if &status != b"HTTP/1.1 200" {
                break status;
            }
            unread.push(stream);
            assert!(unread.len() * 16_000_000 <= most, "{} pages wait", unread.len());
        };
        assert_eq!(&refused, b"HTTP/1.1 429");
        assert!(address == "127.0.0.3" || unread.len() > found, "{address} found no room");
    }
    // Small answers need no room; and where clients go, there is room again.
    let metrics = api.get("/metrics").await.is(200);
    let waiting =
        metrics.text().lines().find_map(|line| line.strip_prefix("vouch_http_answers_waiting_bytes ")).unwrap();
    assert!(waiting.parse::<usize>().unwrap() >= unread.len() * 16_000_000, "{waiting}");
    drop(unread);
    while api.get("/v1/messages/t").await.status != 200 {}
}
