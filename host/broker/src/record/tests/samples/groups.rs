//! Of groups.

use proptest::collection::{btree_set, vec};
use proptest::option;
use proptest::prelude::*;

use super::Sampled;
use super::step::Step;
use super::values::{duration, lives, name, named, text};
use crate::record::{GroupDelete, GroupMade, GroupPut, GroupsUnused, Join};
use crate::testing::RecordLog;
use crate::{GroupConfig, GroupId, StartPosition, TopicId};

impl Sampled for GroupPut {
    const GOLDEN: &str = "b5000000 460a79a2 0500 01 00 016e 0167 \
         a2017b226f726465726564223a66616c73652c227374617274223a22626567696e6e696e67222c226d61785f6174 \
         74656d707473223a31372c226261636b6f6666223a5b223173222c223573222c22313073222c22333073222c2231 \
         6d222c22326d222c22336d222c22346d222c22356d222c22366d222c22376d222c22386d222c22396d222c223130 \
         6d222c2232306d222c2233306d222c223168222c223268225d7d 00";
    const OFTEN: u16 = 15;
    const REFUSED: bool = false;

    fn sample() -> Self {
        Self { name: named("g"), config: GroupConfig::default(), expected_revision: None }
    }

    fn strategy() -> impl Strategy<Value = Self> + 'static {
        (name(), config(), option::of(any::<u64>())).prop_map(|(name, config, expected_revision)| Self {
            name,
            config,
            expected_revision,
        })
    }

    fn drawn(log: &RecordLog, step: Step) -> Self {
        let name = step.name("g", step.a);
        let start = if step.b.is_multiple_of(2) { StartPosition::Beginning } else { StartPosition::End };
        // Not a topic that other records name: a dead letter there would count as a second commit.
        let dead_letter_topic = step.b.is_multiple_of(3).then(|| "graves".to_owned());
        let config = GroupConfig { start, dead_letter_topic, ..GroupConfig::default() };
        let expected_revision = step.revision(log.state.groups().named(&name).map_or(0, |group| group.revision));
        Self { name, config, expected_revision }
    }
}

impl Sampled for GroupDelete {
    const GOLDEN: &str = "10000000 e9d75764 0600 01 00 016e 0167";
    const OFTEN: u16 = 4;

    fn sample() -> Self {
        Self { name: named("g") }
    }

    fn strategy() -> impl Strategy<Value = Self> + 'static {
        name().prop_map(|name| Self { name })
    }

    fn drawn(_: &RecordLog, step: Step) -> Self {
        Self { name: step.name("g", step.a) }
    }
}

impl Sampled for GroupMade {
    const GOLDEN: &str = "b4000000 e15617c6 0b00 01 00 016e 0167 \
         a2017b226f726465726564223a66616c73652c227374617274223a22626567696e6e696e67222c226d61785f6174 \
         74656d707473223a31372c226261636b6f6666223a5b223173222c223573222c22313073222c22333073222c2231 \
         6d222c22326d222c22336d222c22346d222c22356d222c22366d222c22376d222c22386d222c22396d222c223130 \
         6d222c2232306d222c2233306d222c223168222c223268225d7d";

    fn sample() -> Self {
        Self { name: named("g"), config: GroupConfig::default() }
    }

    fn strategy() -> impl Strategy<Value = Self> + 'static {
        (name(), config()).prop_map(|(name, config)| Self { name, config })
    }

    fn drawn(_: &RecordLog, step: Step) -> Self {
        Self { name: step.name("g", step.a), config: GroupConfig::default() }
    }
}

impl Sampled for GroupsUnused {
    const GOLDEN: &str = "15000000 e419b2d6 0c00 01 00 02 01000000 07000000";
    const REFUSED: bool = false;

    fn sample() -> Self {
        Self { groups: vec![GroupId(1), GroupId(7)] }
    }

    fn strategy() -> impl Strategy<Value = Self> + 'static {
        btree_set(any::<u32>(), 0..4).prop_map(|groups| Self { groups: groups.into_iter().map(GroupId).collect() })
    }

    fn drawn(_: &RecordLog, _: Step) -> Self {
        Self { groups: (1..=8).map(GroupId).collect() }
    }
}

impl Sampled for Join {
    const GOLDEN: &str = "14000000 68ec6b05 0700 02 00 01000000 03000000";
    const OFTEN: u16 = 51;

    fn sample() -> Self {
        Self { group: GroupId(1), topic: TopicId(3), at_end: true }
    }

    fn strategy() -> impl Strategy<Value = Self> + 'static {
        (lives(), any::<bool>()).prop_map(|((group, topic), at_end)| Self { group, topic, at_end })
    }

    fn drawn(_: &RecordLog, step: Step) -> Self {
        Self { group: step.group(), topic: step.topic(), at_end: step.c.is_multiple_of(3) }
    }
}

fn config() -> impl Strategy<Value = GroupConfig> {
    (any::<bool>(), any::<bool>(), any::<u32>(), vec(duration(), 0..4), option::of(text())).prop_map(
        |(ordered, end, max_attempts, backoff, dead_letter_topic)| GroupConfig {
            ordered,
            start: if end { StartPosition::End } else { StartPosition::Beginning },
            max_attempts,
            backoff,
            dead_letter_topic,
        },
    )
}
