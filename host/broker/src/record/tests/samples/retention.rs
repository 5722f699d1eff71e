//! Of what leaves the log, and of what must not leave it with the rest.

use proptest::collection::{btree_map, btree_set, vec};
use proptest::prelude::*;

use super::Sampled;
use super::step::Step;
use super::values::offset;
use crate::check::CheckOverrides;
use crate::record::{Carried, Expire, MessagePlace, PluginChunk, Queued, Seen, encode_message};
use crate::testing::RecordLog;
use crate::{GroupId, MessageKind, NewMessage, QueueOffset, RecordPosition, TopicId};

impl Sampled for Expire {
    const GOLDEN: &str = "29000000 e560d50a 0800 01 00 03000000 02 00000000 0500000000000000 02000000 0201000000000000";
    const OFTEN: u16 = 36;

    fn sample() -> Self {
        Self { topic: TopicId(3), starts: vec![(0, QueueOffset(5)), (2, QueueOffset(0x0102))] }
    }

    fn strategy() -> impl Strategy<Value = Self> + 'static {
        (any::<u32>(), btree_map(any::<u32>(), offset(), 0..4))
            .prop_map(|(topic, starts)| Self { topic: TopicId(topic), starts: starts.into_iter().collect() })
    }

    fn drawn(log: &RecordLog, step: Step) -> Self {
        // Lets some queues begin a little later than they do.
        let topic = step.topic();
        let start = |queue| log.state.topics().get(topic).map_or(QueueOffset::FIRST, |topic| topic.start(queue));
        let starts = [(0, step.b % 4), (1, step.c % 4), (2, 1)].into_iter().skip(usize::from(step.c >> 4) % 3);
        Self { topic, starts: starts.map(|(queue, more)| (queue, start(queue).plus(more.into()))).collect() }
    }
}

impl Sampled for Seen {
    const GOLDEN: &str = "15000000 15c02825 0900 01 00 02 01000000 07000000";
    const REFUSED: bool = false;

    fn sample() -> Self {
        Self { groups: vec![GroupId(1), GroupId(7)] }
    }

    fn strategy() -> impl Strategy<Value = Self> + 'static {
        btree_set(any::<u32>(), 0..4).prop_map(|groups| Self { groups: groups.into_iter().map(GroupId).collect() })
    }

    fn drawn(_: &RecordLog, step: Step) -> Self {
        Self { groups: vec![step.group()] }
    }
}

impl Sampled for Carried {
    const GOLDEN: &str = "56000000 34f9fe14 0a00 01 00 0403000000000000 00 40 \
         40000000deab9b8840000100dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd\
         1000000000000000130000000000000003010203";
    const OFTEN: u16 = 24;
    const REFUSED: bool = false;

    fn sample() -> Self {
        Self { from: RecordPosition(0x0304), queued: None, record: framed(&PluginChunk::sample()) }
    }

    fn strategy() -> impl Strategy<Value = Self> + 'static {
        (any::<u64>(), any::<[u8; 32]>(), vec(any::<u8>(), 1..40)).prop_map(|(from, digest, data)| Self {
            from: RecordPosition(from),
            queued: None,
            record: framed(&PluginChunk { digest, offset: from, total: 100, data }),
        })
    }

    fn drawn(log: &RecordLog, step: Step) -> Self {
        // A message, a half, or a piece of a component, that may be needed or not.
        let mut record = Vec::new();
        let kind = if step.c.is_multiple_of(3) { MessageKind::Transaction } else { MessageKind::Normal };
        let place = MessagePlace { topic: step.topic(), queue: 0, stored_at: log.now };
        let message = NewMessage { kind, ..crate::testing::message("h") };
        match step.c % 4 {
            0 | 1 => {
                let (queue, offset) = (u32::from(step.b % 3), QueueOffset(u64::from(step.b >> 2) % 6));
                let entry = log.state.topics().get(step.topic()).and_then(|topic| topic.entry(queue, offset));
                let first = |position| log.carried_from(position).unwrap_or(position);
                encode_message(&mut record, place, "client", &message, CheckOverrides::default());
                let from = entry.map_or(RecordPosition(77), |entry| first(entry.position));
                Self { from, queued: Some(Queued { topic: step.topic(), queue, offset }), record }
            }
            2 => {
                let half = NewMessage { kind: MessageKind::Transaction, ..message };
                encode_message(&mut record, place, "client", &half, CheckOverrides::default());
                Self { from: step.transaction(log).first_place(), queued: None, record }
            }
            _ => {
                let digest = [(step.a % 3) as u8 + 1; 32];
                let chunks = log.state.plugins().artifact(&digest).map_or(&[][..], |artifact| &artifact.chunks);
                let (from, offset) = chunks.get(usize::from(step.b) % 2).copied().unwrap_or((RecordPosition(77), 0));
                Self { from, queued: None, record: framed(&PluginChunk { digest, offset, total: 8, data: vec![1; 4] }) }
            }
        }
    }
}

/// What is carried.
fn framed(chunk: &PluginChunk) -> Vec<u8> {
    let mut record = Vec::new();
    chunk.encode(&mut record);
    record
}
