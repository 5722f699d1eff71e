use std::time::Duration;

use vouch_broker::RecordPosition;
use vouch_broker::record::{FEATURE_LEVEL, SealedAt};
use vouch_consensus::{GroupMessage, Said};
use vouch_transport::PeerSecurity;

use super::*;
use crate::peers::PeerSettings;
use crate::peers::frames;
use crate::{Node, NodeConfig};

fn at(peer: &str) -> NodeAddresses {
    NodeAddresses { peer: peer.to_owned(), grpc: String::new() }
}

/// A node alone, and what answers for it.
fn alone(folder: &std::path::Path) -> (Node, NodeCalls) {
    let listen = "127.0.0.1:0".to_owned();
    let settings = PeerSettings::new(listen, PeerSecurity::Insecure);
    let config = NodeConfig {
        segment_size: Some(4 << 20),
        zero_ahead: 1 << 20,
        snapshot_every: 32 << 20,
        ..NodeConfig::new(folder)
    };
    let node = Node::start(NodeConfig { peers: Some(settings), ..config }).unwrap();
    let face = node.cluster.clone();
    let calls = NodeCalls {
        shard: face.shard.clone(),
        nodes: face.speaking.as_ref().unwrap().nodes.clone(),
        belongs: face.belongs.clone(),
        hearsay: Arc::default(),
        clients: Arc::default(),
        programs: Arc::default(),
        spared: Arc::default(),
        snapshots: face.snapshots.clone(),
    };
    (node, calls)
}

/// A node said that it runs a version that knows so much.
fn runs(calls: &NodeCalls, node: u64, feature_level: u32) {
    calls.programs.runs(NodeId(node), Some(1), NodeVersion { version: "9.9.9".to_owned(), feature_level });
}

async fn answer(calls: &NodeCalls, from: u64, ask: NodeAsk) -> NodeAnswer {
    let request = NodeRequest { forwarded: false, ask };
    calls.answer(NodeId(from), request, Instant::now() + Duration::from_secs(30)).await
}

fn refusal(answer: NodeAnswer) -> String {
    match answer {
        NodeAnswer::Refused(why) => why,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_node_joins_once_and_once_more_from_the_same_place_as_long_as_it_acknowledged_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (node, calls) = alone(folder.path());
    let token = node.cluster.add(true).await.unwrap();
    let join = |secret: [u8; 32], peer: &str| NodeAsk::Join { node: NodeId(2), secret, addresses: at(peer) };
    let unsaid = answer(&calls, 2, join(*token.secret(), "127.0.0.1:9")).await;
    assert!(
        matches!(&unsaid, NodeAnswer::NothingStored(why) if why.contains("did not say which version")),
        "{unsaid:?}"
    );
    runs(&calls, 2, FEATURE_LEVEL - 1);
    let older = refusal(answer(&calls, 2, join(*token.secret(), "127.0.0.1:9")).await);
    assert!(older.contains("node 2 runs Vouch 9.9.9") && older.contains("start a newer version there"), "{older}");
    runs(&calls, 2, FEATURE_LEVEL);
    let wrong = refusal(answer(&calls, 2, join([0; 32], "127.0.0.1:9")).await);
    assert!(wrong.contains("the token for node 2 was used, is too old, or is another node's"), "{wrong}");
    let nowhere = refusal(answer(&calls, 2, join(*token.secret(), "nowhere")).await);
    assert!(nowhere.contains("is no address"), "{nowhere}");
    for _ in 0..2 {
        let answered = answer(&calls, 2, join(*token.secret(), "127.0.0.1:9")).await;
        let NodeAnswer::Done(told) = answered else {
            panic!("{answered:?} {:?}", node.cluster.status().await.unwrap().group)
        };
        assert_eq!(
            (told.leader, told.nodes.get(&NodeId(2)).map(String::as_str)),
            (Some(NodeId(1)), Some("127.0.0.1:9"))
        );
    }
    let used = refusal(answer(&calls, 2, join(*token.secret(), "127.0.0.1:10")).await);
    assert!(used.contains("the token for node 2 was used"), "{used}");
    node.stop().await;
}

#[tokio::test]
async fn a_node_speaks_for_itself_and_who_does_not_belong_is_not_believed() {
    let folder = tempfile::tempdir().unwrap();
    let (node, calls) = alone(folder.path());
    let moved = |node| NodeAsk::Moved { node: NodeId(node), addresses: at("127.0.0.1:9") };
    let other = refusal(answer(&calls, 2, moved(1)).await);
    assert!(other.contains("node 2 asks for node 1"), "{other}");
    let forwarded = NodeRequest { forwarded: true, ask: moved(1) };
    let stranger = calls.answer(NodeId(2), forwarded, Instant::now() + Duration::from_secs(30)).await;
    assert!(refusal(stranger).contains("node 2 asks for node 1"), "nobody believes that another asked it");
    let written = node.status.log_usage().end;
    let unknown = refusal(answer(&calls, 2, moved(2)).await);
    assert!(unknown.contains("no node 2"), "{unknown}");
    runs(&calls, 2, FEATURE_LEVEL);
    let join = NodeAsk::Join { node: NodeId(2), secret: [3; 32], addresses: at("127.0.0.1:9") };
    assert!(refusal(answer(&calls, 2, join).await).contains("the token for node 2"));
    assert_eq!(node.status.log_usage().end, written, "who holds no token makes nobody write");
    let nodes = [(NodeId(9), "127.0.0.1:9".to_owned())].into();
    let told = ToldNodes { as_of: u64::MAX, leader: None, nodes };
    let stranger = refusal(answer(&calls, 7, NodeAsk::Hear(told.clone())).await);
    assert!(stranger.contains("does not belong"), "{stranger}");
    assert!(!calls.hearsay.knows(NodeId(9)));
    assert!(matches!(answer(&calls, 1, NodeAsk::Hear(told)).await, NodeAnswer::Done(_)));
    assert!(calls.hearsay.knows(NodeId(9)));
    let NodeAnswer::Done(told) = answer(&calls, 1, NodeAsk::WhoLeads { address: String::new() }).await else {
        panic!("anybody says that")
    };
    assert_eq!(told.leader, Some(NodeId(1)));
    // Bytes that are no request are answered.
    let from = PeerIdentity { cluster: [0; 16], cluster_incarnation: 0, node: 2, incarnation: 1 };
    let none = calls.serve(from, Bytes::from_static(b"?"), Instant::now()).await;
    assert!(refusal(NodeAnswer::decode(none).unwrap()).contains("no message between nodes"));
    node.stop().await;
}

#[tokio::test]
async fn what_a_node_had_is_told_to_members_that_write_the_same_bytes_until_it_closes() {
    let folder = tempfile::tempdir().unwrap();
    let (node, calls) = alone(folder.path());
    let had = |position, state| SealedAt { position: RecordPosition(position), since: 0, part: None, state };
    let comparison = node.cluster.snapshots.comparison();
    comparison.has(&[had(10, 1), had(20, 2)]);
    let asks = |sealed| NodeAsk::Had(HadAt::here(sealed));
    assert!(refusal(answer(&calls, 7, asks(had(10, 1))).await).contains("does not belong"));
    for other in [
        HadAt { version: "9.9.9".to_owned(), ..HadAt::here(had(20, 9)) },
        HadAt { bytes_since: 0, ..HadAt::here(had(20, 9)) },
    ] {
        assert!(refusal(answer(&calls, 1, NodeAsk::Had(other)).await).contains("another version"));
    }
    assert_eq!(comparison.doubt(), None, "what such a node had says nothing");
    assert_eq!(answer(&calls, 1, asks(had(10, 1))).await, NodeAnswer::Had(Some(had(10, 1))));
    assert_eq!(comparison.doubt(), None);
    assert_eq!(answer(&calls, 1, asks(had(15, 1))).await, NodeAnswer::Had(None));
    assert_eq!(answer(&calls, 1, asks(had(20, 9))).await, NodeAnswer::Had(Some(had(20, 2))));
    let doubt = comparison.doubt().expect("it is in doubt as well as who asks");
    assert_eq!((doubt.own, doubt.other), (had(20, 2), had(20, 9)));
    calls.shard.differs("at position 20 it is not what nodes 2, 3 had there".to_owned());
    let began = Instant::now();
    while calls.shard.signals().closed().is_none() {
        assert!(began.elapsed() < Duration::from_secs(30));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let closed = answer(&calls, 1, asks(had(10, 1))).await;
    assert!(matches!(&closed, NodeAnswer::NothingStored(why) if why.contains("vouch cluster replace")), "{closed:?}");
    node.stop().await;
}

#[tokio::test]
async fn what_is_no_message_of_the_group_or_another_ones_is_dropped_and_counted() {
    let folder = tempfile::tempdir().unwrap();
    let (node, calls) = alone(folder.path());
    let sender = PeerIdentity { cluster: [0; 16], cluster_incarnation: 0, node: 2, incarnation: 1 };
    let said = |from, to| {
        let body = Said::HeartbeatAnswer { commit: 0 };
        let message = GroupMessage { from: NodeId(from), to: NodeId(to), term: 1, body };
        Bytes::from(frames::encode(&message, &[]).concat())
    };
    for (shard, datagram) in
        [(0, Bytes::from_static(b"?")), (0, said(3, 1)), (0, said(2, 3)), (1, said(2, 1)), (0, Bytes::new())]
    {
        calls.nodes.receive(sender, shard, datagram);
    }
    assert_eq!(node.cluster.status().await.unwrap().unread, 5);
    calls.nodes.receive(sender, 0, said(2, 1));
    assert_eq!(node.cluster.status().await.unwrap().unread, 5);
    node.stop().await;
}
