use std::collections::BTreeSet;

use vouch_broker::{Generation, NewMessage, ResourceName, StoredMessage};
use vouch_transport::PeerSecurity;

use super::*;
use crate::served_shard::SHARD;
use crate::sessions::{Declaration, SessionRole};
use crate::{Node, NodeConfig, PeerSettings};

const THERE: NodeId = NodeId(2);

/// What a node answers about sessions, and the node.
fn bench(folder: &std::path::Path) -> (Node, SessionCalls) {
    let listen = "127.0.0.1:0".to_owned();
    let peers = PeerSettings::new(listen, PeerSecurity::Insecure);
    let config = NodeConfig {
        segment_size: Some(4 << 20),
        zero_ahead: 1 << 20,
        snapshot_every: 32 << 20,
        ..NodeConfig::new(folder)
    };
    let node = Node::start(NodeConfig { peers: Some(peers), ..config }).unwrap();
    let calls = SessionCalls {
        sessions: Arc::default(),
        nodes: node.cluster.speaking.as_ref().unwrap().nodes.clone(),
        room: Arc::new(OthersRoom::new(node.cluster.belongs.clone())),
        keys: node.secrets.exchange.clone(),
        handed_out: Arc::default(),
        runtime: Handle::current(),
    };
    (node, calls)
}

async fn answer(calls: &SessionCalls, ask: SessionAsk) -> SessionAnswer {
    calls.answer(THERE, ask, Instant::now() + Duration::from_secs(10)).await
}

fn all(changes: SessionChanges) -> SessionAsk {
    SessionAsk::All {
        changes,
        begins: true,
        ends: true,
        came: vec![Generation(3)],
        remembers_ms: 9_000,
        is_full: false,
        lacks_keys: false,
    }
}

fn changed(life: u64, changes: SessionChanges) -> SessionAsk {
    SessionAsk::Changed { life, changes, came: vec![], is_full: true, lacks_keys: false }
}

/// What another node tells of a producer.
fn told() -> SessionChanges {
    let sessions = Sessions::default();
    let topics = vec![ResourceName::plain("orders")];
    let declared = Declaration { role: SessionRole::Producer, topics, group: None, subscriptions: vec![] };
    sessions.declare("p", declared, Instant::now()).unwrap();
    sessions.everything(Instant::now())
}

#[tokio::test]
async fn who_does_not_lead_hears_of_no_sessions_and_who_begins_to_hears_of_all_of_them_first() {
    let folder = tempfile::tempdir().unwrap();
    let (node, calls) = bench(folder.path());
    assert_eq!(answer(&calls, all(told())).await, SessionAnswer::NotLeading);
    assert_eq!(answer(&calls, changed(7, told())).await, SessionAnswer::NotLeading);
    assert_eq!(calls.sessions.count(), (0, 0));
    calls.sessions.begin_leading(7, BTreeSet::from([THERE]), Instant::now());
    assert_eq!(answer(&calls, changed(7, told())).await, SessionAnswer::TellAll, "it has told nothing yet");
    assert_eq!(answer(&calls, all(told())).await, SessionAnswer::Heard { life: 7 });
    assert_eq!(answer(&calls, changed(7, told())).await, SessionAnswer::Heard { life: 7 });
    assert_eq!(calls.sessions.count(), (1, 0));
    assert_eq!(answer(&calls, changed(6, told())).await, SessionAnswer::TellAll, "of another leadership");
    calls.sessions.set_known(THERE, false);
    assert_eq!(answer(&calls, changed(7, told())).await, SessionAnswer::TellAll, "it was lost meanwhile");
    node.stop().await;
}

#[tokio::test]
async fn a_node_is_known_when_it_has_told_the_last_part() {
    let folder = tempfile::tempdir().unwrap();
    let (node, calls) = bench(folder.path());
    calls.sessions.begin_leading(7, BTreeSet::from([THERE]), Instant::now());
    let part = |begins, ends| SessionAsk::All {
        changes: told(),
        begins,
        ends,
        came: vec![],
        remembers_ms: 0,
        is_full: false,
        lacks_keys: false,
    };
    assert_eq!(answer(&calls, part(true, false)).await, SessionAnswer::Heard { life: 7 });
    assert!(!calls.sessions.knows_all_of(THERE));
    assert_eq!(answer(&calls, part(false, true)).await, SessionAnswer::Heard { life: 7 });
    assert!(calls.sessions.knows_all_of(THERE));
    node.stop().await;
}

#[tokio::test]
async fn a_node_that_tells_what_came_tells_for_how_long_it_remembers_that() {
    let folder = tempfile::tempdir().unwrap();
    let (node, calls) = bench(folder.path());
    let began = Instant::now();
    calls.sessions.begin_leading(7, BTreeSet::from([THERE]), began);
    assert!(calls.sessions.all_that_came(began).is_none(), "it has not told yet");
    answer(&calls, all(told())).await;
    let (came, remembered) = calls.sessions.all_that_came(Instant::now()).unwrap();
    assert_eq!(came, [Generation(3)].into());
    let nine = Duration::from_secs(9);
    assert!(remembered >= nine && remembered <= nine + began.elapsed(), "{remembered:?}");
    // One of an earlier version does not say: of nothing is it known that it did not come.
    let ask = SessionAsk::All {
        changes: told(),
        begins: true,
        ends: true,
        came: Vec::new(),
        remembers_ms: 0,
        is_full: false,
        lacks_keys: false,
    };
    let began = Instant::now();
    answer(&calls, ask).await;
    let (_, remembered) = calls.sessions.all_that_came(Instant::now()).unwrap();
    assert!(remembered <= began.elapsed(), "{remembered:?}");
    node.stop().await;
}

#[tokio::test]
async fn that_a_disk_is_full_comes_with_what_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let (node, calls) = bench(folder.path());
    calls.sessions.begin_leading(7, BTreeSet::from([THERE]), Instant::now());
    answer(&calls, all(told())).await;
    assert!(!calls.room.is_full(THERE));
    answer(&calls, changed(7, SessionChanges::default())).await;
    assert!(calls.room.is_full(THERE));
    node.stop().await;
}

#[tokio::test]
async fn a_client_that_is_not_here_is_not_asked_and_what_is_no_question_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (node, calls) = bench(folder.path());
    let message: NewMessage = vouch_broker::testing::message("half");
    let half = StoredMessage { message, producer: "p".to_owned(), stored_at: vouch_broker::Millis(1) };
    let transaction = vouch_broker::TransactionId::of_first_life(SHARD, vouch_broker::HalfPosition(4096));
    let command = Box::new(CheckCommand { topic: ResourceName::plain("orders"), transaction, half });
    let check = SessionAsk::Check { client_id: "nobody".to_owned(), command };
    assert_eq!(answer(&calls, check).await, SessionAnswer::Asked(false));
    let nonsense = calls.serve(THERE, Bytes::from_static(b"\xc1nonsense"), Instant::now()).await;
    assert!(matches!(nonsense, ClientAnswer::NothingStored(why) if why.contains("of another version")));
    node.stop().await;
}
