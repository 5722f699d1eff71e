//! Of the nodes of the cluster.

use std::collections::BTreeSet;

use proptest::collection::btree_set;
use proptest::prelude::*;
use vouch_cluster::{MembersChange, NodeAddresses, NodeId};

use super::Sampled;
use super::step::Step;
use super::values::{millis, text};
use crate::Millis;
use crate::record::{MembersChanged, NodeInvited, NodeJoined, NodeLeaves, NodeMoved, NodeReplaced};
use crate::testing::RecordLog;

fn node() -> impl Strategy<Value = NodeId> {
    any::<u64>().prop_map(NodeId)
}

fn addresses() -> impl Strategy<Value = NodeAddresses> {
    (text(), text()).prop_map(|(peer, grpc)| NodeAddresses { peer, grpc })
}

fn two_addresses() -> NodeAddresses {
    NodeAddresses { peer: "n2:7".to_owned(), grpc: "c2:8".to_owned() }
}

impl Sampled for MembersChanged {
    const GOLDEN: &str = "27000000 579d6353 0f00 01 00 00 02 0100000000000000 0300000000000000 01 0605000000000000";

    fn sample() -> Self {
        let nodes = |ids: &[u64]| ids.iter().copied().map(NodeId).collect();
        Self { change: MembersChange::To { voters: nodes(&[1, 3]), learners: nodes(&[0x0506]) } }
    }

    fn strategy() -> impl Strategy<Value = Self> + 'static {
        let nodes = || btree_set((1..=u64::MAX).prop_map(NodeId), 0..5);
        let change = proptest::option::of((nodes(), nodes())).prop_map(|to: Option<(BTreeSet<_>, BTreeSet<_>)>| {
            to.map_or(MembersChange::Finish, |(voters, learners)| MembersChange::To { voters, learners })
        });
        change.prop_map(|change| Self { change })
    }

    fn drawn(_: &RecordLog, step: Step) -> Self {
        // Of few nodes, so that some steps need two.
        let nodes = |number: u16| (1..=4).map(NodeId).filter(|node| number >> node.0 & 1 == 1).collect();
        let change = match step.a % 3 {
            0 => MembersChange::Finish,
            _ => MembersChange::To { voters: nodes(step.b), learners: nodes(step.c & !step.b) },
        };
        Self { change }
    }
}

impl Sampled for NodeInvited {
    const GOLDEN: &str = "44000000 da0c3c5f 1200 02 00 \
         cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc 0605000000000000 01 \
         0201000000000000 026f70 036f6c64";

    fn sample() -> Self {
        let replaced = NodeReplaced { node: NodeId(0x0102), by: "op".to_owned(), reason: "old".to_owned() };
        Self { token: [0xcc; 32], until: Millis(0x0506), votes_at_once: true, replaces: Some(replaced) }
    }

    fn strategy() -> impl Strategy<Value = Self> + 'static {
        let replaced = (node(), text(), text()).prop_map(|(node, by, reason)| NodeReplaced { node, by, reason });
        let fields = (any::<[u8; 32]>(), millis(), any::<bool>(), proptest::option::of(replaced));
        fields.prop_map(|(token, until, votes_at_once, replaces)| Self { token, until, votes_at_once, replaces })
    }

    fn drawn(log: &RecordLog, step: Step) -> Self {
        let replaced = NodeReplaced { node: drawn_node(step), by: "op".to_owned(), reason: String::new() };
        let replaces = (step.c % 2 == 1).then_some(replaced);
        Self { token: [1; 32], until: log.now.plus_ms(step.a.into()), votes_at_once: step.b > 9, replaces }
    }
}

impl Sampled for NodeJoined {
    const GOLDEN: &str = "3e000000 69962286 1300 01 00 0201000000000000 \
         cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc 046e323a37 0463323a38";

    fn sample() -> Self {
        Self { node: NodeId(0x0102), token: [0xcc; 32], addresses: two_addresses() }
    }

    fn strategy() -> impl Strategy<Value = Self> + 'static {
        (node(), any::<[u8; 32]>(), addresses()).prop_map(|(node, token, addresses)| Self { node, token, addresses })
    }

    fn drawn(_: &RecordLog, step: Step) -> Self {
        let token = [(step.c % 4 / 3) as u8 + 1; 32];
        Self { node: drawn_node(step), token, addresses: drawn_addresses(step) }
    }
}

impl Sampled for NodeMoved {
    const GOLDEN: &str = "1e000000 cc9bf4f6 1400 01 00 0201000000000000 046e323a37 0463323a38";

    fn sample() -> Self {
        Self { node: NodeId(0x0102), addresses: two_addresses() }
    }

    fn strategy() -> impl Strategy<Value = Self> + 'static {
        (node(), addresses()).prop_map(|(node, addresses)| Self { node, addresses })
    }

    fn drawn(_: &RecordLog, step: Step) -> Self {
        Self { node: drawn_node(step), addresses: drawn_addresses(step) }
    }
}

impl Sampled for NodeLeaves {
    const GOLDEN: &str = "1b000000 1d091e76 1500 01 00 0201000000000000 026f70 036f6c64";

    fn sample() -> Self {
        Self { node: NodeId(0x0102), by: "op".to_owned(), reason: "old".to_owned() }
    }

    fn strategy() -> impl Strategy<Value = Self> + 'static {
        (node(), text(), text()).prop_map(|(node, by, reason)| Self { node, by, reason })
    }

    fn drawn(_: &RecordLog, step: Step) -> Self {
        Self { node: drawn_node(step), by: "op".to_owned(), reason: String::new() }
    }
}

fn drawn_node(step: Step) -> NodeId {
    NodeId(1 + u64::from(step.b % 5))
}

fn drawn_addresses(step: Step) -> NodeAddresses {
    NodeAddresses { peer: format!("n{}:{}", step.c, step.a % 3), grpc: String::new() }
}
