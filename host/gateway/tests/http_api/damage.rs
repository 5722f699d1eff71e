//! A node that serves a damaged log, over HTTP.

use std::os::unix::fs::FileExt;
use std::path::Path;

use serde_json::{Value, json};

use crate::api::{Api, message};
use crate::running::value;

/// Changes a byte of the body that reads so.
fn damage(data: &Path, body: &[u8]) {
    let file = data.join("shards/0/log/00000000000000000000.log");
    let bytes = std::fs::read(&file).unwrap();
    let at = bytes.windows(body.len()).position(|window| window == body).unwrap() as u64;
    std::fs::File::options().write(true).open(file).unwrap().write_all_at(b"?", at).unwrap();
}

#[tokio::test]
async fn a_damaged_log_can_be_read_up_to_the_damage_and_every_write_is_told_why_not() {
    let api = Api::start().await;
    let whole = api.get("/v1/damage").await.is(200).json();
    assert_eq!(
        (&whole["mode"], &whole["served_to"], &whole["damage"]),
        (&json!("read-write"), &Value::Null, &json!([]))
    );
    api.put("/v1/topics/t", json!({"queues": 1})).await.is(201);
    api.transaction_topic("orders").await;
    let open = api.half("orders", "1").await;
    for (id, body) in [("m1", b"first-body"), ("m2", b"other-body"), ("m3", b"third-body")] {
        api.send("t", message(id, body)).await;
    }
    let api = api.start_read_only_after(|data| damage(data, b"other-body")).await;

    api.get("/healthz").await.is(200);
    let told = api.get("/readyz").await.expect_problem(503, "read-only");
    assert!(told["detail"].as_str().unwrap().contains("/v1/damage"), "{told}");
    let metrics = api.get("/metrics").await.is(200);
    assert_eq!((value(metrics.text(), "vouch_ready"), value(metrics.text(), "vouch_read_only")), (0, 1));
    assert_eq!(api.get("/v1/cluster").await.is(200).json()["nodes"][0]["role"], "read-only");

    let damage = api.get("/v1/damage").await.is(200).json();
    let (stretch, served_to) = (&damage["damage"][0], damage["served_to"].as_u64().unwrap());
    assert_eq!((&damage["mode"], &stretch["lost"]), (&json!("read-only"), &Value::Null));
    assert_eq!((&stretch["from"], &stretch["entries_lost"]), (&json!(served_to), &json!(1)));

    let listed = api.get("/v1/messages/t").await.is(200).json();
    let ids: Vec<&str> = listed["items"].as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["m1"]);
    assert_eq!(api.get(&format!("/v1/transactions/{open}")).await.is(200).json()["state"], "open");

    let decision = json!({"by": "ann"});
    for refused in [
        api.put("/v1/topics/new", json!({})).await,
        api.delete("/v1/topics/t").await,
        api.put("/v1/groups/g", json!({})).await,
        api.post(&format!("/v1/transactions/{open}/commit"), decision).await,
        api.push("/v1/plugins/p/tags/latest", b"\0asm", &[]).await,
    ] {
        let problem = refused.expect_problem(503, "read-only");
        assert!(problem["detail"].as_str().unwrap().contains("restore the folder from a backup"), "{problem}");
    }
}
