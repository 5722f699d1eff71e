//! Health, metrics, the cluster, the first page, and the end.

use std::time::Instant;

use serde_json::json;
use tokio::net::TcpStream;
use vouch_broker::{ResourceName, TagFilter};
use vouch_node::{Declaration, ReceiveRequest, SessionRole};

use crate::api::{Api, message};

/// The value of a metric.
pub(crate) fn value(metrics: &str, name: &str) -> u64 {
    let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("{name} is not in\n{metrics}")).parse().unwrap()
}

#[tokio::test]
async fn the_probes_tell_a_node_that_serves_from_one_that_stops() {
    let api = Api::start().await;
    assert_eq!(api.get("/healthz").await.is(200).json(), json!({"status": "alive"}));
    assert_eq!(api.get("/readyz").await.is(200).json(), json!({"status": "ready"}));
    api.node.stop().await;
    api.get("/healthz").await.is(200);
    api.get("/readyz").await.expect_problem(503, "stopping");
    api.put("/v1/topics/t", json!({})).await.expect_problem(503, "stopping");
}

#[tokio::test]
async fn metrics_follow_what_happens() {
    let api = Api::start().await;
    let before = api.get("/metrics").await.is(200);
    assert!(before.header("content-type").unwrap().starts_with("application/openmetrics-text; version=1.0.0"));
    assert!(before.text().ends_with("# EOF\n"));
    assert!(before.text().contains(concat!("vouch_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1")));
    assert_eq!(value(before.text(), "vouch_ready"), 1);

    api.put("/v1/topics/plain", json!({"queues": 1})).await.is(201);
    api.transaction_topic("orders").await;
    api.send("plain", message("m1", b"x")).await;
    api.send("plain", message("m1", b"x")).await;
    let (topic, group) = (ResourceName::plain("plain"), ResourceName::plain("shop"));
    let receive = ReceiveRequest { topic, group, client_id: "c".to_owned(), max: 1, ..ReceiveRequest::default() };
    while api.node.messages.receive(receive.clone()).await.unwrap().is_empty() {}
    let (kept, dropped) = (api.half("orders", "1").await, api.half("orders", "2").await);
    api.half("orders", "3").await;
    let decide = async |id: &str, what: &str| {
        api.post(&format!("/v1/transactions/{id}/{what}"), json!({"by": "ann"})).await.status
    };
    assert_eq!((decide(&kept, "commit").await, decide(&dropped, "rollback").await), (200, 200));
    assert_eq!(decide(&kept, "rollback").await, 409);

    for (client, tag) in [("a", "red"), ("b", "blue")] {
        let subscriptions = vec![(ResourceName::plain("plain"), TagFilter::tags([tag]))];
        let group = Some(ResourceName::plain("shop"));
        let declaration = Declaration { role: SessionRole::PushConsumer, topics: vec![], group, subscriptions };
        api.node.sessions.declare(client, declaration, Instant::now()).unwrap();
    }

    let after = api.get("/metrics").await.is(200);
    let now = |name: &str| value(after.text(), name);
    for (name, expected) in [
        ("vouch_topics", 2),
        ("vouch_groups", 1),
        ("vouch_messages_out_total", 1),
        ("vouch_transaction_commits_total", 1),
        ("vouch_transaction_rollbacks_total", 1),
        ("vouch_transaction_conflicts_total", 1),
        ("vouch_transactions_open", 1),
        ("vouch_transactions_parked", 0),
        ("vouch_transactions_ended", 2),
        ("vouch_checks_unanswered_total", 0),
        ("vouch_checks_running", 0),
        ("vouch_polls_waiting", 0),
        ("vouch_group_filter_differences_total", 1),
        ("vouch_sessions_refused_total", 0),
        ("vouch_overloads_total", 0),
        ("vouch_resends_total", 1),
        ("vouch_reused_message_ids_total", 0),
        ("vouch_producer_sessions", 0),
        ("vouch_consumer_sessions", 2),
        ("vouch_in_flight_bytes", 0),
    ] {
        assert_eq!(now(name), expected, "{name}");
    }
    let seconds = |name: &str| {
        let line = after.text().lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("{name} is missing")).parse::<f64>().unwrap()
    };
    // The machine's clock is right, and the log is new.
    assert!(seconds("vouch_clock_ahead_seconds").abs() < 1.0 && seconds("vouch_clock_doubted_seconds").abs() < 1.0);
    assert!(now("vouch_messages_in_total") >= 4);
    assert!(now("vouch_log_appended_bytes") > value(before.text(), "vouch_log_appended_bytes"));
    assert!(now("vouch_log_durable_bytes") <= now("vouch_log_appended_bytes"));
    assert!(now("vouch_log_applied_bytes") <= now("vouch_log_durable_bytes"));
}

/// The documents, their names with their texts.
fn documents() -> Vec<(String, String)> {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let folders = ["", "plugins", "host/docs", "host/broker/docs", "host/commitlog/docs", "host/storage/docs"];
    let files = folders.iter().flat_map(|folder| std::fs::read_dir(root.join(folder)).unwrap());
    let files = files.map(|entry| entry.unwrap().path()).filter(|path| path.extension().is_some_and(|end| end == "md"));
    files.map(|path| (path.display().to_string(), std::fs::read_to_string(&path).unwrap())).collect()
}

#[tokio::test]
async fn every_metric_that_a_document_names_is_served() {
    let api = Api::start().await;
    let metrics = api.get("/metrics").await.is(200);
    let families: Vec<&str> =
        metrics.text().lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    let kind = |family: &str| metrics.text().contains(&format!("# TYPE {family} counter\n"));
    let mut checked = 0;
    for (document, text) in documents() {
        for (at, _) in text.match_indices("`vouch_") {
            let is_part = |letter: &char| letter.is_ascii_lowercase() || *letter == '_';
            let name: String = text[at + 1..].chars().take_while(is_part).collect();
            // A counter has one more word, a histogram one of three.
            let exists = families.iter().any(|family| match name.strip_prefix(family) {
                Some("") => !kind(family),
                Some("_total") => kind(family),
                Some("_bucket" | "_sum" | "_count" | "_info") => true,
                _ => false,
            });
            assert!(exists, "{document} names {name}, which is not served");
            checked += 1;
        }
    }
    assert!(checked >= 20, "{checked}");
}

#[tokio::test]
async fn the_cluster_is_one_node_that_leads_itself() {
    let api = Api::start().await;
    api.put("/v1/topics/t", json!({})).await.is(201);
    let cluster = api.get("/v1/cluster").await.is(200).json();
    let node = &cluster["nodes"][0];
    assert_eq!((&cluster["leader"], &node["id"], &node["role"]), (&json!(1), &json!(1), &json!("leader")));
    assert_eq!((cluster["id"].as_str().unwrap().len(), cluster["nodes"].as_array().unwrap().len()), (32, 1));
    assert_eq!((&cluster["node"], &cluster["voters"], &cluster["learners"]), (&json!(1), &json!([1]), &json!([])));
    assert_eq!(node["committed"], node["durable"], "a majority of one has what the node has");
    assert_eq!(node["grpc"], api.gateway.grpc_addr().to_string());
    let at = |name: &str| node[name].as_u64().unwrap();
    assert!(at("applied") > 0 && at("applied") <= at("committed"), "{node}");
    assert!(at("committed") == at("durable") && at("durable") <= at("appended"), "{node}");
}

#[tokio::test]
async fn the_first_page_names_the_api() {
    let api = Api::start().await;
    let page = api.get("/").await.is(200);
    assert!(page.header("content-type").unwrap().starts_with("text/html"));
    for path in page.text().split("href=\"").skip(1).map(|rest| rest.split('"').next().unwrap()) {
        api.get(path).await.is(200);
    }
}

#[tokio::test]
async fn after_the_end_nothing_listens_and_idle_connections_are_closed() {
    let api = Api::start().await;
    let mut idle = TcpStream::connect(api.http).await.unwrap();
    api.get("/healthz").await.is(200);
    api.gateway.shutdown().await;
    let mut rest = Vec::new();
    tokio::io::AsyncReadExt::read_to_end(&mut idle, &mut rest).await.unwrap();
    assert!(rest.is_empty());
    TcpStream::connect(api.http).await.unwrap_err();
}
