//! Records about what leaves the log, and about what must not leave it with the rest.

use super::codec::{DecodeError, Reader, Writer, ascending};
use super::{Fields, Frame, Record};
use crate::{GroupId, QueueOffset, RecordPosition, TopicId};

/// The kinds of this family, each with its sentence: a link of the chain of [`super::each_kind`].
macro_rules! retention_kinds {
    ([$next:path $(, $rest:path)*] $($before:tt)*) => {
        $next! { [$($rest),*] $($before)*
            /// Messages are past their retention.
            Expire,
            /// Groups live.
            Seen,
            /// A record that is still needed has another place.
            Carried,
        }
    };
}
pub(crate) use retention_kinds;

/// Messages of a topic are past their retention: its queues begin later from now on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expire {
    /// The topic's life.
    pub topic: TopicId,
    /// Queues, ascending, with the offset at which each is to begin. What a group still has a right to stays all the
    /// same: that is decided where the record is applied.
    pub starts: Vec<(u32, QueueOffset)>,
}

impl Fields for Expire {
    const KIND: u16 = 8;

    fn write(&self, w: &mut Writer<'_>) {
        w.u32(self.topic.0);
        w.varint(self.starts.len() as u64);
        for (queue, start) in &self.starts {
            w.u32(*queue);
            w.u64(start.0);
        }
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let topic = TopicId(r.u32("topic")?);
        let starts = r.list("queues", |r| Ok((r.u32("queue")?, QueueOffset(r.u64("start")?))))?;
        ascending("queue", starts.iter().map(|(queue, _)| *queue))?;
        Ok(Self { topic, starts })
    }
}

/// Groups that live though they receive nothing: what they did not consume stays (ruling 13). None: an empty record, for
/// a log that must go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Lives of the groups, ascending.
    pub groups: Vec<GroupId>,
}

impl Fields for Seen {
    const KIND: u16 = 9;

    fn write(&self, w: &mut Writer<'_>) {
        w.varint(self.groups.len() as u64);
        self.groups.iter().for_each(|group| w.u32(group.0));
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let groups = r.list("groups", |r| Ok(GroupId(r.u32("group")?)))?;
        ascending("group", groups.iter().map(|group| group.0))?;
        Ok(Self { groups })
    }
}

/// The place of a message in a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queued {
    /// The topic's life.
    pub topic: TopicId,
    /// The queue.
    pub queue: u32,
    /// Its offset there.
    pub offset: QueueOffset,
}

/// A record that is still needed and lies where the log is about to end, copied to its other end: a message of a queue,
/// the half message of an open transaction, or a piece of a component.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Carried {
    /// Where the record lay at first: the transaction, for a half message.
    pub from: RecordPosition,
    /// The place that is to point here, for a message of a queue.
    pub queued: Option<Queued>,
    /// The whole record as it lay there, its frame included.
    pub record: Vec<u8>,
}

impl Fields for Carried {
    const KIND: u16 = KIND_CARRIED;

    fn write(&self, w: &mut Writer<'_>) {
        w.u64(self.from.0);
        w.option(self.queued, |w, queued| {
            w.u32(queued.topic.0);
            w.u32(queued.queue);
            w.u64(queued.offset.0);
        });
        w.bytes(&self.record);
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let (from, queued) = (RecordPosition(r.u64("from")?), r.option("place", queued)?);
        let carried = Self { from, queued, record: r.bytes("record")?.to_vec() };
        carried.kept()?;
        Ok(carried)
    }
}

fn queued(r: &mut Reader<'_>) -> Result<Queued, DecodeError> {
    Ok(Queued { topic: TopicId(r.u32("topic")?), queue: r.u32("queue")?, offset: QueueOffset(r.u64("offset")?) })
}

/// Number of the kind.
pub(super) const KIND_CARRIED: u16 = 10;

/// What a carried record keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kept {
    /// A message of a queue.
    Message(Queued),
    /// The half of the transaction.
    Half,
    /// A piece of a component: its digest, and where it lies in it.
    Chunk([u8; 32], u64),
}

impl Carried {
    /// What it keeps; fails for a record that is never carried.
    pub(crate) fn kept(&self) -> Result<Kept, DecodeError> {
        let (frame, rest) = Frame::split(&self.record)?;
        if !rest.is_empty() {
            return Err(DecodeError::Trailing(rest.len()));
        }
        frame.verify()?;
        let kind = frame.kind();
        let no_use = DecodeError::Value { field: "the kind of a carried record", value: kind.into() };
        if kind == KIND_CARRIED {
            // Before it is decoded: records within records would be read to any depth.
            return Err(no_use);
        }
        match (Record::decode(&frame)?, self.queued) {
            (Record::Message(_) | Record::Half(_), Some(queued)) => Ok(Kept::Message(queued)),
            (Record::Half(_), None) => Ok(Kept::Half),
            (Record::PluginChunk(chunk), None) => Ok(Kept::Chunk(chunk.digest, chunk.offset)),
            _ => Err(no_use),
        }
    }
}

/// What a record was before it was carried: where it lay at first, and its bytes. `None` for a record that was not.
///
/// # Errors
/// The record is damaged.
pub fn before_carried(record: &bytes::Bytes) -> Result<Option<(RecordPosition, bytes::Bytes)>, DecodeError> {
    let (frame, _) = Frame::split(record)?;
    if frame.kind() != KIND_CARRIED {
        return Ok(None);
    }
    frame.verify()?;
    if frame.version() != Carried::VERSION {
        return Err(DecodeError::UnknownKind { kind: frame.kind(), version: frame.version() });
    }
    let mut r = Reader(frame.fields());
    let from = RecordPosition(r.u64("from")?);
    r.option("place", queued)?;
    let inner = r.bytes("record")?;
    r.end()?;
    Ok(Some((from, record.slice_ref(inner))))
}

/// The record of a message whose place in the log may have changed.
pub(super) fn message_of(record: &bytes::Bytes) -> Result<bytes::Bytes, DecodeError> {
    Ok(before_carried(record)?.map_or_else(|| record.clone(), |(_, inner)| inner))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Generation;
    use crate::record::Ack;

    fn framed(carried: &Carried) -> Vec<u8> {
        let mut bytes = Vec::new();
        carried.encode(&mut bytes);
        bytes
    }

    #[test]
    fn only_messages_and_pieces_of_components_are_carried_and_each_at_most_once_deep() {
        let mut ack = Vec::new();
        Ack { group: GroupId(1), topic: TopicId(1), queue: 0, offset: QueueOffset(0), generation: Generation(1) }
            .encode(&mut ack);
        let mut chunk = Vec::new();
        super::super::PluginChunk { digest: [1; 32], offset: 0, total: 1, data: vec![7] }.encode(&mut chunk);
        let good = framed(&Carried { from: RecordPosition(5), queued: None, record: chunk.clone() });
        assert!(Record::decode(&Frame::split(&good).unwrap().0).is_ok());
        for record in [ack, good, chunk[..chunk.len() - 1].to_vec(), [chunk.clone(), vec![0]].concat()] {
            let bytes = framed(&Carried { from: RecordPosition(5), queued: None, record });
            assert!(Record::decode(&Frame::split(&bytes).unwrap().0).is_err());
        }
    }
}
