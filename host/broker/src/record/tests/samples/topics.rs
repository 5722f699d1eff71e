//! Of topics.

use std::time::Duration;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::Sampled;
use super::step::Step;
use super::values::{duration, name, named};
use crate::record::{TopicDelete, TopicForced, TopicPut};
use crate::testing::RecordLog;
use crate::{CheckPolicy, TopicConfig, TopicType, Unconsumed};

impl Sampled for TopicPut {
    const GOLDEN: &str = "87000000 a9762915 0300 01 00 016e 0174 \
         6d7b2274797065223a226e6f726d616c222c22717565756573223a382c2261636b223a2264757261626c65222c22 \
         7472616e73616374696f6e223a7b22696d6d756e697479223a223673222c22696e74657276616c223a2233307322 \
         2c226d61785f636865636b73223a31357d7d 010500000000000000";
    const OFTEN: u16 = 15;

    fn sample() -> Self {
        Self { name: named("t"), config: TopicConfig::default(), expected_revision: Some(5) }
    }

    fn strategy() -> impl Strategy<Value = Self> + 'static {
        (name(), config(), option::of(any::<u64>())).prop_map(|(name, config, expected_revision)| Self {
            name,
            config,
            expected_revision,
        })
    }

    fn drawn(log: &RecordLog, step: Step) -> Self {
        let name = step.name("t", step.a);
        let max_checks = [0, 1, 2, 15][usize::from(step.b >> 4) % 4];
        let schedule = if step.b & 8 == 0 { vec![] } else { vec![Duration::from_secs(1), Duration::from_secs(2)] };
        let transaction = CheckPolicy { max_checks, schedule, ..CheckPolicy::default() };
        let unconsumed = if step.c & 16 == 0 { Unconsumed::Keep } else { Unconsumed::Expire };
        let config =
            TopicConfig { queues: u32::from(step.b % 3) + 1, transaction, unconsumed, ..TopicConfig::default() };
        let expected_revision = step.revision(log.state.topics().named(&name).map_or(0, |topic| topic.revision));
        Self { name, config, expected_revision }
    }
}

impl Sampled for TopicDelete {
    const GOLDEN: &str = "11000000 2a7743dd 0400 01 00 016e 0174 01";
    const OFTEN: u16 = 4;

    fn sample() -> Self {
        Self { name: named("t"), force: true }
    }

    fn strategy() -> impl Strategy<Value = Self> + 'static {
        (name(), any::<bool>()).prop_map(|(name, force)| Self { name, force })
    }

    fn drawn(_: &RecordLog, step: Step) -> Self {
        Self { name: step.name("t", step.a), force: !step.b.is_multiple_of(3) }
    }
}

impl Sampled for TopicForced {
    const GOLDEN: &str = "18000000 1d5f7ec7 2700 01 00 016e 0174 03616e6e 03776879";
    const OFTEN: u16 = 1;

    fn sample() -> Self {
        Self { name: named("t"), by: "ann".to_owned(), reason: "why".to_owned() }
    }

    fn strategy() -> impl Strategy<Value = Self> + 'static {
        (name(), any::<String>(), any::<String>()).prop_map(|(name, by, reason)| Self { name, by, reason })
    }

    fn drawn(_: &RecordLog, step: Step) -> Self {
        Self { name: step.name("t", step.a), by: "op".to_owned(), reason: String::new() }
    }
}

fn config() -> impl Strategy<Value = TopicConfig> {
    let types = [TopicType::Normal, TopicType::Fifo, TopicType::Delay, TopicType::Transaction, TopicType::Mixed];
    let policy = (duration(), duration(), any::<u32>(), vec(duration(), 0..4)).prop_map(
        |(immunity, interval, max_checks, schedule)| CheckPolicy { immunity, interval, max_checks, schedule },
    );
    let retention = (option::of(duration()), option::of(any::<u64>()), any::<bool>());
    (proptest::sample::select(types.to_vec()), 1..=1024u32, retention, policy).prop_map(
        |(topic_type, queues, (retention, retention_size, expire), transaction)| TopicConfig {
            topic_type,
            queues,
            retention,
            retention_size,
            unconsumed: if expire { Unconsumed::Expire } else { Unconsumed::Keep },
            transaction,
            ..TopicConfig::default()
        },
    )
}
