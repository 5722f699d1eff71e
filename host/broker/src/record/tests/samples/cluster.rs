//! Of the log itself.

use proptest::prelude::*;
use vouch_cluster::{ClusterIncarnation, NodeId};

use super::Sampled;
use super::step::Step;
use super::values::{millis, text};
use crate::record::{
    ClusterBegunAnew, ClusterInit, LeapsBelieved, Leapt, LevelRaised, NodeStarted, SealedAt, SnapshotNamed,
};
use crate::testing::RecordLog;
use crate::{Millis, RecordPosition};

impl Sampled for ClusterInit {
    const GOLDEN: &str = "4e000000 97e00aa1 0100 01 00 aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa 0000004000000000 \
         bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb 01000000 05302e312e30";

    fn sample() -> Self {
        Self {
            cluster_id: [0xaa; 16],
            segment_size: 0x4000_0000,
            handle_key: [0xbb; 32],
            feature_level: 1,
            written_by: "0.1.0".to_owned(),
        }
    }

    fn strategy() -> impl Strategy<Value = Self> + 'static {
        (any::<[u8; 16]>(), any::<u64>(), any::<[u8; 32]>(), any::<u32>(), text()).prop_map(
            |(cluster_id, segment_size, handle_key, feature_level, written_by)| Self {
                cluster_id,
                segment_size,
                handle_key,
                feature_level,
                written_by,
            },
        )
    }

    fn drawn(_: &RecordLog, _: Step) -> Self {
        crate::testing::cluster_init()
    }
}

impl Sampled for NodeStarted {
    const GOLDEN: &str = "12000000 dbcdde9a 0200 01 00 05302e312e30";
    const REFUSED: bool = false;

    fn sample() -> Self {
        Self { version: "0.1.0".to_owned() }
    }

    fn strategy() -> impl Strategy<Value = Self> + 'static {
        text().prop_map(|version| Self { version })
    }

    fn drawn(_: &RecordLog, step: Step) -> Self {
        Self { version: format!("0.{}.0", step.a % 3) }
    }
}

impl Sampled for Leapt {
    const GOLDEN: &str = "15000000 165ad9f2 0d00 01 00 0605000000000000 01";
    const OFTEN: u16 = 24;
    const REFUSED: bool = false;

    fn sample() -> Self {
        Self { from: Millis(0x0506), doubted: true }
    }

    fn strategy() -> impl Strategy<Value = Self> + 'static {
        (millis(), any::<bool>()).prop_map(|(from, doubted)| Self { from, doubted })
    }

    fn drawn(log: &RecordLog, step: Step) -> Self {
        let back = u64::from(step.c) * 100;
        Self { from: Millis(log.now.0.saturating_sub(back)), doubted: step.a.is_multiple_of(2) }
    }
}

impl Sampled for LeapsBelieved {
    const GOLDEN: &str = "14000000 1370f6b7 0e00 01 00 0605000000000000";
    const REFUSED: bool = false;

    fn sample() -> Self {
        Self { to: Millis(0x0506) }
    }

    fn strategy() -> impl Strategy<Value = Self> + 'static {
        millis().prop_map(|to| Self { to })
    }

    fn drawn(log: &RecordLog, _: Step) -> Self {
        Self { to: log.now }
    }
}

impl Sampled for ClusterBegunAnew {
    const GOLDEN: &str = "46000000 8c3b955d 1800 01 00 04030201 0605000000000000 0807000000000000 \
         dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd 05302e312e30";
    const OFTEN: u16 = 3;

    fn sample() -> Self {
        Self {
            incarnation: ClusterIncarnation(0x0102_0304),
            node: NodeId(0x0506),
            since: RecordPosition(0x0708),
            handle_key: [0xdd; 32],
            written_by: "0.1.0".to_owned(),
        }
    }

    fn strategy() -> impl Strategy<Value = Self> + 'static {
        (any::<u32>(), any::<u64>(), any::<u64>(), any::<[u8; 32]>(), text()).prop_map(
            |(incarnation, node, since, handle_key, written_by)| Self {
                incarnation: ClusterIncarnation(incarnation),
                node: NodeId(node),
                since: RecordPosition(since),
                handle_key,
                written_by,
            },
        )
    }

    fn drawn(log: &RecordLog, step: Step) -> Self {
        // Some of them of a life that there was, some as a node that there was.
        let known = log.state.nodes().last.0;
        Self {
            incarnation: ClusterIncarnation(u32::from(step.a % 40)),
            node: NodeId(known + u64::from(step.b % 3)),
            since: RecordPosition(u64::from(step.c)),
            handle_key: [step.a as u8; 32],
            written_by: "0.2.0".to_owned(),
        }
    }
}

impl Sampled for LevelRaised {
    const GOLDEN: &str = "1a000000 285f4355 1900 01 00 02000000 03616e6e 05302e322e30";
    const OFTEN: u16 = 3;

    fn sample() -> Self {
        Self { level: 2, by: "ann".to_owned(), written_by: "0.2.0".to_owned() }
    }

    fn strategy() -> impl Strategy<Value = Self> + 'static {
        (any::<u32>(), text(), text()).prop_map(|(level, by, written_by)| Self { level, by, written_by })
    }

    fn drawn(_: &RecordLog, step: Step) -> Self {
        let level = u32::from(step.a) % (crate::record::FEATURE_LEVEL + 3);
        Self { level, by: "ann".to_owned(), written_by: format!("0.{}.0", step.b % 3) }
    }
}

impl Sampled for SnapshotNamed {
    const GOLDEN: &str = "43000000 d5d66d51 1a00 01 00 02 0605000000000000 0000000000000000 00 0b0a000000000000 \
         0807000000000000 0403000000000000 01 04030201 0b0a000000000000";
    const OFTEN: u16 = 3;
    const REFUSED: bool = false;

    fn sample() -> Self {
        let at = |position, since, part| SealedAt { position: RecordPosition(position), since, part, state: 0x0a0b };
        Self { sealed: vec![at(0x0506, 0, None), at(0x0708, 0x0304, Some(0x0102_0304))] }
    }

    fn strategy() -> impl Strategy<Value = Self> + 'static {
        let sealed = (any::<u64>(), any::<u64>(), any::<Option<u32>>(), any::<u64>()).prop_map(
            |(position, since, part, state)| SealedAt { position: RecordPosition(position), since, part, state },
        );
        proptest::collection::vec(sealed, 0..4).prop_map(|sealed| Self { sealed })
    }

    fn drawn(_: &RecordLog, step: Step) -> Self {
        let at = |n| SealedAt { position: RecordPosition(n), since: 0, part: None, state: u64::from(step.b) };
        Self { sealed: (0..u64::from(step.a % 3)).map(|n| at(u64::from(step.c) + n)).collect() }
    }
}
