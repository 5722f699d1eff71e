//! Random records, most of which make sense in the state that they meet.

use crate::record::tests::samples::{DRAWN, Step};
use crate::record::{GroupPut, Join, Record, TopicPut};
use crate::state::PIN_MS;
use crate::testing::RecordLog;
use crate::{GroupConfig, GroupId, ResourceName, TopicConfig, TopicId};

/// How often a step only lets time pass, as kinds have [`often`](crate::record::tests::samples::Drawn::often).
const TIME: u16 = 30;

/// A log with topics and groups that receive from them, so that most steps meet something.
pub(super) fn beginning() -> Vec<Record> {
    let topic = |name: &str| {
        let config = TopicConfig { queues: 2, ..TopicConfig::default() };
        Record::TopicPut(TopicPut { name: ResourceName::plain(name), config, expected_revision: None })
    };
    let group = |name: &str| {
        let (name, config) = (ResourceName::plain(name), GroupConfig::default());
        Record::GroupPut(GroupPut { name, config, expected_revision: None })
    };
    let mut records = vec![topic("t0"), topic("t1"), group("g0"), group("g1")];
    for (group, topic) in [(1, 1), (1, 2), (2, 1)] {
        records.push(Record::Join(Join { group: GroupId(group), topic: TopicId(topic), at_end: false }));
    }
    records
}

/// The record for this step; `None` if it only lets time pass.
pub(super) fn interpret(log: &mut RecordLog, step: Step) -> Option<Record> {
    let all = TIME + DRAWN.iter().map(|kind| kind.often).sum::<u16>();
    let mut number = step.what % all;
    // In front of all kinds, so that a step that a failure does not need shrinks to it.
    if number < TIME {
        let long = [600_001, 86_400_001, PIN_MS + 1];
        let pauses = [1, 1_000, 5_000, 30_000, 61_000, 10, 2, long[usize::from(step.b) % 3]];
        log.pass_ms(pauses[usize::from(step.a) % 8]);
        return None;
    }
    number -= TIME;
    for kind in DRAWN {
        if number < kind.often {
            return Some((kind.draw)(log, step));
        }
        number -= kind.often;
    }
    unreachable!("the numbers of time and of all kinds are all that there are")
}
