//! What a record of the replay test is made from.

use crate::record::Record;
use crate::testing::RecordLog;
use crate::{GroupId, HalfPosition, ResourceName, TopicId};

/// Numbers from which a record is made. What they choose is small, so that records meet: two topics, say, of which most
/// records are about the first.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Step {
    /// The kind of record; what one holds is chosen by the others.
    pub(crate) what: u16,
    pub(crate) a: u16,
    pub(crate) b: u16,
    pub(crate) c: u16,
}

impl Step {
    pub(super) fn topic(&self) -> TopicId {
        TopicId([1, 1, 1, 2, 2, 3, 4, 5][usize::from(self.a) % 8])
    }

    pub(super) fn group(&self) -> GroupId {
        GroupId([1, 1, 1, 2, 2, 3, 4, 5][usize::from(self.b) % 8])
    }

    pub(super) fn name(&self, prefix: &str, of: u16) -> ResourceName {
        ResourceName::plain(format!("{prefix}{}", of % 2))
    }

    /// A revision to expect: the right one, a wrong one, or none.
    pub(super) fn revision(&self, current: u64) -> Option<u64> {
        match self.c % 4 {
            0 => Some(current),
            1 => Some(77),
            _ => None,
        }
    }

    /// A group and a topic that it joined, now and then others.
    pub(super) fn joined(&self, log: &RecordLog) -> (GroupId, TopicId) {
        let all: Vec<_> = log.state.groups().progress_after(None).map(|(group, topic, _)| (group.id, topic)).collect();
        if all.is_empty() || self.a.is_multiple_of(8) {
            return (self.group(), self.topic());
        }
        all[usize::from(self.b) % all.len()]
    }

    /// A transaction that is or was there, or none.
    pub(super) fn transaction(&self, log: &RecordLog) -> HalfPosition {
        let halves = log.records.iter().filter(|(_, record)| matches!(record, Record::Half(_)));
        let mut all: Vec<HalfPosition> = halves.map(|(at, _)| HalfPosition::of(at.position)).collect();
        all.push(HalfPosition(u64::from(self.a) * 100));
        all[usize::from(self.a) % all.len()]
    }
}
