//! Of what leaves the log, and of what must not leave it with the rest.

use proptest::collection::{btree_map, btree_set, vec};
use proptest::prelude::*;

use super::Sampled;
use super::values::offset;
use crate::record::{Carried, Expire, PluginChunk, Seen};
use crate::{GroupId, QueueOffset, RecordPosition, TopicId};

impl Sampled for Expire {
    const GOLDEN: &str = "29000000 e560d50a 0800 01 00 03000000 02 00000000 0500000000000000 02000000 0201000000000000";

    fn sample() -> Self {
        Self { topic: TopicId(3), starts: vec![(0, QueueOffset(5)), (2, QueueOffset(0x0102))] }
    }

    fn strategy() -> impl Strategy<Value = Self> + 'static {
        (any::<u32>(), btree_map(any::<u32>(), offset(), 0..4))
            .prop_map(|(topic, starts)| Self { topic: TopicId(topic), starts: starts.into_iter().collect() })
    }
}

impl Sampled for Seen {
    const GOLDEN: &str = "15000000 15c02825 0900 01 00 02 01000000 07000000";

    fn sample() -> Self {
        Self { groups: vec![GroupId(1), GroupId(7)] }
    }

    fn strategy() -> impl Strategy<Value = Self> + 'static {
        btree_set(any::<u32>(), 0..4).prop_map(|groups| Self { groups: groups.into_iter().map(GroupId).collect() })
    }
}

impl Sampled for Carried {
    const GOLDEN: &str = "56000000 34f9fe14 0a00 01 00 0403000000000000 00 40 \
         40000000deab9b8840000100dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd\
         1000000000000000130000000000000003010203";

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
}

/// What is carried.
fn framed(chunk: &PluginChunk) -> Vec<u8> {
    let mut record = Vec::new();
    chunk.encode(&mut record);
    record
}
