//! `/metrics` and `host/docs/metrics.md` say the same.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::json;
use vouch_broker::record::EndedBy;
use vouch_broker::{ResourceName, TransactionId, TransactionOutcome};
use vouch_node::{BackupError, EndRequest, ReceiveRequest};
use vouch_protocol::wire::HeartbeatRequest;
use vouch_protocol::wire::messaging_service_client::MessagingServiceClient;

use crate::api::{Api, message};
use crate::consumers;

const DOCUMENT: &str = include_str!("../../../docs/metrics.md");

/// Metrics of other nodes, which a node alone does not have; the tests of `vouch cluster` look at those.
const OF_OTHERS: [&str; 3] =
    ["vouch_cluster_follower_lag_bytes", "vouch_cluster_follower_heard", "vouch_cluster_peer_connected"];

/// What has samples only once a component was asked about one of a hundred transactions.
const BY_CHANCE: &str = "vouch_comparisons_total";

/// Names and labels in the tables of the document.
fn documented() -> BTreeMap<String, BTreeSet<String>> {
    let quoted = |text: &str| -> Vec<String> { text.split('`').skip(1).step_by(2).map(str::to_owned).collect() };
    let rows = DOCUMENT.lines().filter_map(|line| line.strip_prefix("| `"));
    let read = |row: &str| {
        let mut cells = row.split('|');
        let name = cells.next().unwrap().trim().trim_end_matches('`').to_owned();
        (name, quoted(cells.next().unwrap()).into_iter().collect())
    };
    rows.map(read).collect()
}

/// Names and labels in an answer, and the value of each sample.
fn told(metrics: &str) -> (BTreeMap<String, BTreeSet<String>>, BTreeMap<String, f64>) {
    let mut kinds = BTreeMap::new();
    let mut labels: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut values = BTreeMap::new();
    for line in metrics.lines() {
        if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|line| line.split_once(' ')) {
            kinds.insert(name.to_owned(), kind.to_owned());
            let suffix = match kind {
                "counter" => "_total",
                "info" => "_info",
                _ => "",
            };
            labels.entry(format!("{name}{suffix}")).or_default();
        } else if !line.starts_with('#') {
            let (sample, value) = line.rsplit_once(' ').unwrap();
            values.insert(sample.to_owned(), value.parse().unwrap());
            let (name, inside) = sample.split_once('{').unwrap_or((sample, ""));
            let of_histogram = ["_bucket", "_sum", "_count"].iter().filter_map(|suffix| name.strip_suffix(suffix));
            let family = of_histogram.clone().find(|name| kinds.get(*name).is_some_and(|kind| kind == "histogram"));
            let known = labels.get_mut(family.unwrap_or(name)).unwrap_or_else(|| panic!("{name} has no type"));
            let keys = inside.split("\",").filter_map(|pair| pair.trim_end_matches('}').split_once("=\""));
            known.extend(keys.map(|(key, _)| key.to_owned()).filter(|key| key != "le"));
        }
    }
    (labels, values)
}

/// A producer that was asked commits.
async fn answered_check(api: &Api) {
    let id: TransactionId = api.half("orders", "2").await.parse().unwrap();
    let by = EndedBy::Client { client_id: "producer-1".to_owned(), from_check: true };
    let end =
        EndRequest { by, ..EndRequest::by_operator(id, TransactionOutcome::Committed, String::new(), String::new()) };
    api.node.transactions.end(end).await.unwrap();
}

async fn back_up(api: &Api) {
    let (data, target) = (api.data_dir(), tempfile::tempdir().unwrap());
    let made = move || {
        // What was written last is known to be durable a tenth of a second later.
        while let Err(error) = vouch_node::backup(&data, target.path(), &mut |_| ()) {
            assert!(matches!(error, BackupError::NothingDurable), "{error}");
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    tokio::task::spawn_blocking(made).await.unwrap();
}

/// A component consumes for a group.
async fn delivered(api: &Api) {
    consumers::push(api).await;
    for topic in ["goods", "reservations"] {
        api.put(&format!("/v1/topics/{topic}"), json!({"queues": 1})).await.is(201);
    }
    api.send("goods", consumers::goods("g1", "teapot", 1)).await;
    api.put("/v1/bindings/stock", consumers::binding()).await.is(201);
    consumers::until(api, "/v1/bindings/stock", |shown| shown["waiting"] == 0).await;
}

async fn refused_call(api: &Api) {
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{}", api.gateway.grpc_addr())).unwrap();
    let mut client = MessagingServiceClient::new(endpoint.connect().await.unwrap());
    client.heartbeat(HeartbeatRequest::default()).await.unwrap();
}

#[tokio::test]
async fn the_document_lists_every_metric_with_its_labels_and_no_other() {
    let api = Api::start().await;
    api.put("/v1/topics/plain", json!({"queues": 1})).await.is(201);
    api.transaction_topic("orders").await;
    api.send("plain", message("m1", b"x")).await;
    api.half("orders", "1").await;
    answered_check(&api).await;
    back_up(&api).await;
    refused_call(&api).await;
    delivered(&api).await;
    let (topic, group) = (ResourceName::plain("plain"), ResourceName::plain("shop"));
    let receive = ReceiveRequest { topic, group, client_id: "c".to_owned(), max: 1, ..ReceiveRequest::default() };
    let delivery = loop {
        if let Some(delivery) = api.node.messages.receive(receive.clone()).await.unwrap().pop() {
            break delivery;
        }
    };
    api.node.messages.forward_to_dead_letter(delivery.handle, "enough").await.unwrap();
    api.send("plain", message("m2", b"x")).await;

    // Numbers of groups and topics are up to a second old.
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    let (labels, values) = loop {
        let (labels, values) = told(api.get("/metrics").await.is(200).text());
        if values.get("vouch_group_lag_messages{group=\"shop\",topic=\"plain\"}") == Some(&1.0) {
            break (labels, values);
        }
        assert!(std::time::Instant::now() < deadline, "{values:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let documented = documented();
    let names = |of: &BTreeMap<String, BTreeSet<String>>| of.keys().cloned().collect::<BTreeSet<_>>();
    let (in_document, in_answer) = (names(&documented), names(&labels));
    assert_eq!(in_document.difference(&in_answer).collect::<Vec<_>>(), [""; 0], "documented and not told");
    assert_eq!(in_answer.difference(&in_document).collect::<Vec<_>>(), [""; 0], "told and not documented");
    // A node alone has no samples of others.
    let has_samples = |name: &str| !OF_OTHERS.contains(&name) && name != BY_CHANCE;
    for (name, labels) in labels.into_iter().filter(|(name, _)| has_samples(name)) {
        assert_eq!(labels, documented[&name], "labels of {name}");
    }
    for (sample, expected) in [
        ("vouch_group_in_flight_messages{group=\"shop\",topic=\"plain\"}", 0.0),
        ("vouch_group_dead_letters_total{group=\"shop\"}", 1.0),
        ("vouch_topic_transactions_open{topic=\"orders\"}", 1.0),
        ("vouch_topic_transactions_parked{topic=\"orders\"}", 0.0),
        ("vouch_checks_total{binding=\"\",verdict=\"unknown\"}", 0.0),
        ("vouch_checks_total{binding=\"\",verdict=\"commit\"}", 1.0),
        ("vouch_grpc_calls_total{method=\"Heartbeat\",code=\"CLIENT_ID_REQUIRED\"}", 1.0),
        ("vouch_deliveries_total{binding=\"stock\",outcome=\"ack\"}", 1.0),
        ("vouch_deliveries_total{binding=\"stock\",outcome=\"dead_letter\"}", 0.0),
        ("vouch_deliveries_running{binding=\"stock\"}", 0.0),
        ("vouch_binding_paused{binding=\"stock\"}", 0.0),
        ("vouch_delivery_seconds_count", 1.0),
        ("vouch_send_seconds_count", 5.0),
        ("vouch_receive_seconds_count", 1.0),
        ("vouch_check_seconds_bucket{le=\"+Inf\"}", 0.0),
        ("vouch_cluster_leads", 1.0),
        ("vouch_cluster_leader", 1.0),
        ("vouch_cluster_voters", 1.0),
    ] {
        assert_eq!(values.get(sample), Some(&expected), "{sample} in {values:#?}");
    }
    for (sample, least, most) in [
        ("vouch_group_lag_seconds{group=\"shop\",topic=\"plain\"}", 0.0, 60.0),
        ("vouch_topic_transactions_oldest_seconds{topic=\"orders\"}", 0.0, 60.0),
        ("vouch_backup_age_seconds", 0.0, 60.0),
        ("vouch_sync_seconds_count", 1.0, 1000.0),
        ("process_open_fds", 3.0, 1e5),
        ("process_resident_memory_bytes", 1e6, 1e12),
    ] {
        let value = values[sample];
        assert!((least..=most).contains(&value), "{sample} {value}");
    }
}
