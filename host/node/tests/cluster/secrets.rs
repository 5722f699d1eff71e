//! Secrets of several nodes: they are sealed where they come in, and their keys go over connections with certificates alone.

use vouch_broker::{NotDone, NothingStored};
use vouch_node::{Expect, KEY_FILE, Node, PluginUpload, SecretValue, TransactionState};

use crate::common::checking::{self, order_service};
use crate::common::{half, prepare, topic};
use crate::nodes::{Nodes, address, leads, until};

const SECRET: &str = "a-value-that-is-easy-to-find";

fn value() -> SecretValue {
    SecretValue::new(SECRET.as_bytes().to_vec()).unwrap()
}

async fn set(node: &Node, name: &str) -> Result<Vec<String>, NotDone> {
    node.secrets.set(name, value(), Expect::Anything).await.map(|(_, warnings)| warnings)
}

async fn opens(node: &Node, name: &str) -> bool {
    node.secrets.secret(name).await.unwrap().is_some_and(|secret| secret.opens_here)
}

async fn id(node: &Node) -> vouch_cluster::NodeId {
    node.cluster.status().await.unwrap().group.node
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_secret_that_is_set_at_one_node_opens_at_all_of_them_and_at_one_that_comes_later() {
    let mut nodes = Nodes::three_with_certificates().await;
    let follower = nodes.running.iter().position(|node| !node.cluster.leads()).unwrap();
    assert_eq!(set(&nodes.running[follower], "db").await.unwrap(), Vec::<String>::new());
    // It is there where it was set as soon as that is answered, and its key at all others.
    assert!(opens(&nodes.running[follower], "db").await);
    for node in &nodes.running {
        until("all have the secret", async || opens(node, "db").await).await;
    }
    let token = nodes.leader().await.cluster.add(true).await.unwrap();
    nodes.join(token).await.unwrap();
    until("the one that came has the key", async || opens(&nodes.running[3], "db").await).await;

    // The key is in the file of each, and the value in no file of any.
    for folder in 1..=4 {
        let folder = nodes.folder.path().join(folder.to_string());
        assert!(folder.join(KEY_FILE).exists());
        let segments = std::fs::read_dir(folder.join("shards/0/log")).unwrap();
        for segment in segments.map(|entry| entry.unwrap().path()) {
            let bytes = std::fs::read(&segment).unwrap();
            assert!(!bytes.windows(SECRET.len()).any(|window| window == SECRET.as_bytes()), "{}", segment.display());
        }
    }
    nodes.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_node_that_was_away_while_the_key_was_changed_gets_the_new_one() {
    let mut nodes = Nodes::three_with_certificates().await;
    set(&nodes.running[0], "db").await.unwrap();
    let away = nodes.running.pop().unwrap();
    until("it has the secret", async || opens(&away, "db").await).await;
    let is_at = address(&away).await;
    away.stop().await;
    until("somebody leads", async || nodes.running.iter().any(|node| node.cluster.leads())).await;
    let away = vec![vouch_cluster::NodeId(3)];
    let done = nodes.running[0].secrets.rotate_key(true).await.unwrap();
    assert_eq!((done.resealed, done.forgotten, &done.without, &done.with_old), (1, 1, &away, &away));

    nodes.come_back(3, &is_at).await;
    until("it has the secret, sealed anew, and its key", async || {
        let secret = nodes.running[2].secrets.secret("db").await.unwrap().unwrap();
        secret.key == done.key && secret.opens_here
    })
    .await;
    // It has the old one still, and does not bring that back.
    set(&nodes.running[2], "more").await.unwrap();
    for node in &nodes.running {
        until("both are sealed with the new one", async || {
            let secrets = node.secrets.list(None, 10).await.unwrap();
            secrets.len() == 2 && secrets.iter().all(|secret| secret.key == done.key && secret.opens_here)
        })
        .await;
    }
    let again = nodes.running[0].secrets.rotate_key(true).await.unwrap();
    assert_eq!((again.resealed, again.with_old.len(), again.without.len()), (2, 0, 0));
    let keys = std::fs::read_to_string(nodes.folder.path().join("3").join(KEY_FILE)).unwrap();
    assert_eq!(keys.lines().filter(|line| line.starts_with("key ")).count(), 1, "{keys}");
    nodes.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_is_sealed_with_a_key_that_a_majority_has_not() {
    let mut nodes = Nodes::three_with_certificates().await;
    for _ in 0..2 {
        nodes.running.pop().unwrap().stop().await;
    }
    let refused = set(&nodes.running[0], "db").await.unwrap_err();
    let NotDone::NothingStored(NothingStored::Short(why)) = &refused else { panic!("{refused}") };
    assert!(why.contains("nodes 2, 3") && why.contains("lost with one disk"), "{why}");
    assert!(why.contains("(node 2: "), "it says why, of one: {why}");
    nodes.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_change_of_the_key_that_too_few_nodes_take_leaves_the_keys_as_they_are() {
    let mut nodes = Nodes::three_with_certificates().await;
    set(&nodes.running[0], "db").await.unwrap();
    for _ in 0..2 {
        nodes.running.pop().unwrap().stop().await;
    }
    let file = nodes.folder.path().join("1").join(KEY_FILE);
    let before = std::fs::read(&file).unwrap();
    for _ in 0..3 {
        let refused = nodes.running[0].secrets.rotate_key(false).await.unwrap_err();
        assert!(matches!(refused, NotDone::NothingStored(NothingStored::Short(_))), "{refused}");
        assert_eq!(std::fs::read(&file).unwrap(), before);
    }
    assert!(opens(&nodes.running[0], "db").await);
    nodes.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn first_secrets_that_are_set_at_two_nodes_at_once_open_at_all() {
    let nodes = Nodes::three_with_certificates().await;
    let [one, two, three] = &nodes.running[..] else { panic!("three run") };
    let (first, second) = tokio::join!(set(one, "first"), set(two, "second"));
    first.unwrap();
    second.unwrap();
    for node in [one, two, three] {
        until("both open", async || opens(node, "first").await && opens(node, "second").await).await;
    }
    nodes.stop_all().await;
}

/// The address with its token is the secret here: the service hears which value came.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_next_leader_asks_with_the_same_secret() {
    let mut nodes = Nodes::three_with_certificates().await;
    let (address, _) =
        order_service(|path| if path.starts_with("/t0ken/") { (200, "{}".to_owned()) } else { (403, String::new()) });
    let first = nodes.leader().await.clone();
    topic(&first, "orders", r#"{"type":"transaction","transaction":{"immunity":"50ms","interval":"100ms"}}"#).await;
    let url = SecretValue::new(format!("http://{address}/t0ken/{{key}}").into_bytes()).unwrap();
    first.secrets.set("orders-url", url, Expect::Absent).await.unwrap();
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../plugins/dist/http-checkback.wasm");
    let wasm = std::fs::read(file).unwrap().into();
    let upload = PluginUpload { name: "check".to_owned(), tag: "1".to_owned(), wasm, expected: None };
    first.components.upload(upload).await.unwrap();
    let spec = serde_json::json!({
        "plugin": "check:1", "topics": ["orders"], "grants": {"http": [format!("http://{address}")]},
        "config": {"url": {"secret": "orders-url"}, "commit": "200"},
    });
    first.components.put_binding("orders", &spec.to_string(), Expect::Absent).await.unwrap();
    for turn in ["by the first", "by the next"] {
        let leader = nodes.leader().await;
        let transaction = prepare(leader, "orders", half(turn, turn)).await;
        checking::until(leader, transaction, |shown| shown.state == TransactionState::Committed).await;
        if turn == "by the first" {
            let at = nodes.running.iter().position(|node| node.cluster.leads()).unwrap();
            nodes.running.remove(at).stop().await;
        }
    }
    nodes.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn without_certificates_the_operator_copies_the_file_and_a_node_without_it_lets_another_lead() {
    let nodes = Nodes::three().await;
    let leader = nodes.leader().await;
    let warnings = set(leader, "db").await.unwrap();
    let has = id(leader).await;
    assert!(matches!(&warnings[..], [told] if told.contains(&format!("the key file of node {has} "))), "{warnings:?}");
    let others: Vec<_> = nodes.running.iter().filter(|node| !std::ptr::eq(*node, leader)).collect();
    for other in &others {
        until("it has the secret", async || other.secrets.secret("db").await.unwrap().is_some()).await;
        until("it noticed that it has no key", async || other.secrets.lacks_keys()).await;
        assert!(!opens(other, "db").await);
    }
    let refused = leader.secrets.rotate_key(false).await.unwrap_err().to_string();
    assert!(refused.contains("vouch cluster certificates"), "{refused}");

    leader.cluster.transfer_leader(id(others[0]).await).await.unwrap();
    until("one leads that has the key", async || leads(leader).await).await;

    // Copied by hand, while all run.
    let folder = |node: u64| nodes.folder.path().join(node.to_string()).join(KEY_FILE);
    for other in &others {
        std::fs::copy(folder(has.0), folder(id(other).await.0)).unwrap();
        until("it has the key", async || !other.secrets.lacks_keys() && opens(other, "db").await).await;
    }
    nodes.stop_all().await;
}
