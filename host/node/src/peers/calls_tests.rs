use proptest::prelude::*;

use super::*;

fn at(peer: &str, grpc: &str) -> NodeAddresses {
    NodeAddresses { peer: peer.to_owned(), grpc: grpc.to_owned() }
}

fn two() -> ToldNodes {
    let nodes = [(NodeId(1), "a:1".to_owned()), (NodeId(3), "b:2".to_owned())].into();
    ToldNodes { as_of: 9, leader: Some(NodeId(3)), nodes }
}

fn had(part: Option<u32>) -> SealedAt {
    SealedAt { position: RecordPosition(9), since: 3, part, state: 0x0102 }
}

const HAD: &[u8] = b"\x09\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\0\x01\x07\0\0\0\x02\x01\0\0\0\0\0\0";

const TOLD: &[u8] = b"\x09\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\0\x02\0\x01\0\0\0\0\0\0\0\x03\0a:1\x03\0\0\0\0\0\0\0\x03\0b:2";

#[test]
fn every_request_has_these_bytes() {
    let joins = NodeAsk::Join { node: NodeId(2), secret: [7; 32], addresses: at("p:1", "") };
    let moved = NodeAsk::Moved { node: NodeId(2), addresses: at("p:1", "g:2") };
    for (ask, forwarded, golden) in [
        (joins, false, [&b"\x01\0\0\x02\0\0\0\0\0\0\0"[..], &[7; 32], b"\x03\0p:1\0\0"].concat()),
        (moved, true, b"\x01\x01\x01\x02\0\0\0\0\0\0\0\x03\0p:1\x03\0g:2".to_vec()),
        (NodeAsk::WhoLeads { address: "p:1".to_owned() }, false, b"\x01\x02\0\x03\0p:1".to_vec()),
        (NodeAsk::MaySpare { node: NodeId(3) }, true, b"\x01\x06\x01\x03\0\0\0\0\0\0\0".to_vec()),
        (
            NodeAsk::Runs { node: NodeId(2), program: NodeVersion { version: "0.2.0".to_owned(), feature_level: 7 } },
            false,
            b"\x01\x05\0\x02\0\0\0\0\0\0\0\x07\0\0\0\x05\x000.2.0".to_vec(),
        ),
        (NodeAsk::Hear(two()), false, [b"\x01\x03\0", TOLD].concat()),
        (
            NodeAsk::Had(HadAt { version: "0.2.0".to_owned(), bytes_since: 6, sealed: had(Some(7)) }),
            false,
            [b"\x01\x07\0\x05\x000.2.0\x06\0\0\0", HAD].concat(),
        ),
    ] {
        let request = NodeRequest { forwarded, ask };
        assert_eq!(request.encode(), golden);
        assert_eq!(NodeRequest::decode(golden.into()), Ok(request));
    }
}

#[test]
fn every_answer_has_these_bytes() {
    for (answer, golden) in [
        (NodeAnswer::Done(two()), [b"\x01\0", TOLD].concat()),
        (NodeAnswer::Refused("no".to_owned()), b"\x01\x01\x02\0no".to_vec()),
        (NodeAnswer::NothingStored("no".to_owned()), b"\x01\x02\x02\0no".to_vec()),
        (NodeAnswer::Unknown("eh".to_owned()), b"\x01\x03\x02\0eh".to_vec()),
        (NodeAnswer::Had(None), b"\x01\x05\0".to_vec()),
        (NodeAnswer::Had(Some(had(Some(7)))), [b"\x01\x05\x01", HAD].concat()),
        (NodeAnswer::Had(Some(had(None))), [b"\x01\x05\x01", &HAD[..16], &[0; 5], &HAD[21..]].concat()),
    ] {
        assert_eq!(answer.encode(), golden);
        assert_eq!(NodeAnswer::decode(golden.into()), Ok(answer));
    }
}

#[test]
fn a_long_sentence_is_cut_and_more_nodes_than_a_cluster_has_are_none() {
    let Ok(NodeAnswer::Refused(why)) = NodeAnswer::decode(NodeAnswer::Refused("ü".repeat(2000)).encode()) else {
        panic!("it is read")
    };
    assert_eq!(why.len(), SENTENCE_MAX);
    let told = |count| {
        let nodes = (1..=count).map(|node| (NodeId(node), "a:1".to_owned())).collect();
        NodeAnswer::decode(NodeAnswer::Done(ToldNodes { as_of: 1, leader: None, nodes }).encode())
    };
    assert!(told(MEMBERS_MAX as u64).is_ok());
    assert_eq!(told(MEMBERS_MAX as u64 + 1), Err(NoNodeMessage));
}

proptest! {
    #[test]
    fn what_decodes_encodes_to_the_same_bytes_and_nothing_panics(
        head in proptest::option::of((0_u8..9, 0_u8..3)), tail in proptest::collection::vec(any::<u8>(), 0..120)
    ) {
        let mut bytes = head.map_or_else(Vec::new, |(kind, forwarded)| vec![1, kind, forwarded]);
        bytes.extend(tail);
        if let Ok(request) = NodeRequest::decode(bytes.clone().into()) {
            prop_assert_eq!(request.encode(), bytes.clone());
        }
        if let Ok(answer) = NodeAnswer::decode(bytes.clone().into()) {
            prop_assert_eq!(answer.encode(), bytes);
        }
    }

    #[test]
    fn a_request_that_is_cut_short_or_goes_on_is_none(cut in 0_usize..40, more in 1_usize..4) {
        let request = NodeRequest { forwarded: false, ask: NodeAsk::Hear(two()) };
        let mut bytes = request.encode().to_vec();
        bytes.truncate(bytes.len() - 1 - cut);
        prop_assert_eq!(NodeRequest::decode(bytes.into()), Err(NoNodeMessage));
        let mut bytes = request.encode().to_vec();
        bytes.extend(vec![0; more]);
        prop_assert_eq!(NodeRequest::decode(bytes.into()), Err(NoNodeMessage));
    }
}
