//! Records about what a group received.

use super::Fields;
use super::codec::{DecodeError, Reader, Writer};
use crate::{Generation, GroupId, Millis, QueueOffset, TopicId};

/// The kinds of this family, each with its sentence: a link of the chain of [`super::each_kind`].
macro_rules! delivery_kinds {
    ([$next:path $(, $rest:path)*] $($before:tt)*) => {
        $next! { [$($rest),*] $($before)*
            /// Messages were handed out.
            Lease,
            /// Leases were extended by the broker.
            Renew,
            /// A message is done for a group.
            Ack,
            /// A lease ends at another time.
            ChangeInvisible,
            /// A message moved to a dead-letter topic; no longer written.
            DeadLetter,
            /// A message of so many bytes moved to a dead-letter topic.
            DeadLetterSized,
            /// Failed deliveries count no more.
            GiveBack,
        }
    };
}
pub(crate) use delivery_kinds;

/// Messages that a group never saw before: everything in `from..to` of one queue is decided by this record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeasedRange {
    /// The queue.
    pub queue: u32,
    /// First offset.
    pub from: QueueOffset,
    /// Offset after the last.
    pub to: QueueOffset,
    /// Handed out, ascending.
    pub leased: Vec<QueueOffset>,
    /// Left for another member whose filter matches (ruling 12), ascending. The rest matched no member and is done.
    pub left: Vec<QueueOffset>,
}

/// What becomes of a message below the group's cursor that is looked at again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Again {
    /// It matches no live member any more, and is done.
    Done = 0,
    /// It is handed out.
    Leased = 1,
    /// It waits for another member whose filter matches (ruling 12).
    Left = 2,
}

/// A message below the group's cursor that this record decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeasedAgain {
    /// The queue.
    pub queue: u32,
    /// The offset.
    pub offset: QueueOffset,
    /// What becomes of it.
    pub becomes: Again,
}

/// One batch handed to one consumer (ruling 10).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The group's life.
    pub group: GroupId,
    /// The topic's life.
    pub topic: TopicId,
    /// Of every message of this batch; higher than any before.
    pub generation: Generation,
    /// When the messages become visible again.
    pub deadline: Millis,
    /// The consumer whose life keeps the leases alive (`auto_renew`).
    pub renewed_for: Option<String>,
    /// First deliveries.
    pub fresh: Vec<LeasedRange>,
    /// Redeliveries, and what else is decided about messages below the cursor.
    pub again: Vec<LeasedAgain>,
}

fn offsets(w: &mut Writer<'_>, from: QueueOffset, offsets: &[QueueOffset]) {
    w.varint(offsets.len() as u64);
    let mut last = from;
    for offset in offsets {
        w.varint(offset.0 - last.0);
        last = *offset;
    }
}

/// Reads ascending offsets in `from..to`; any other one would touch messages that the record does not decide.
fn read_offsets(r: &mut Reader<'_>, from: QueueOffset, to: QueueOffset) -> Result<Vec<QueueOffset>, DecodeError> {
    let (mut last, mut first) = (from.0, true);
    r.list("offsets", |r| {
        let step = r.varint("offset")?;
        let next = last.checked_add(step).filter(|next| *next < to.0 && (first || step > 0));
        (last, first) = (next.ok_or(DecodeError::Value { field: "offset", value: step })?, false);
        Ok(QueueOffset(last))
    })
}

impl Fields for Lease {
    const KIND: u16 = 48;

    fn write(&self, w: &mut Writer<'_>) {
        w.u32(self.group.0);
        w.u32(self.topic.0);
        w.u64(self.generation.0);
        w.u64(self.deadline.0);
        w.option(self.renewed_for.as_deref(), |w, client| w.text(client));
        w.varint(self.fresh.len() as u64);
        for range in &self.fresh {
            w.varint(range.queue.into());
            w.varint(range.from.0);
            w.varint(range.to.0 - range.from.0);
            offsets(w, range.from, &range.leased);
            offsets(w, range.from, &range.left);
        }
        w.varint(self.again.len() as u64);
        for again in &self.again {
            w.varint(again.queue.into());
            w.varint(again.offset.0);
            w.u8(again.becomes as u8);
        }
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            group: GroupId(r.u32("group")?),
            topic: TopicId(r.u32("topic")?),
            generation: Generation(r.u64("generation")?),
            deadline: Millis(r.u64("deadline")?),
            renewed_for: r.option("renewed for", |r| r.string("renewed for"))?,
            fresh: r.list("ranges", |r| {
                let (queue, from, len) = (r.varint_u32("queue")?, r.varint("from")?, r.varint("length")?);
                let to = from.checked_add(len).ok_or(DecodeError::Value { field: "length", value: len })?;
                let (from, to) = (QueueOffset(from), QueueOffset(to));
                let (leased, left) = (read_offsets(r, from, to)?, read_offsets(r, from, to)?);
                Ok(LeasedRange { queue, from, to, leased, left })
            })?,
            again: r.list("redeliveries", |r| {
                Ok(LeasedAgain {
                    queue: r.varint_u32("queue")?,
                    offset: QueueOffset(r.varint("offset")?),
                    becomes: match r.u8("what becomes of it")? {
                        0 => Again::Done,
                        1 => Again::Leased,
                        2 => Again::Left,
                        other => return Err(DecodeError::Value { field: "what becomes of it", value: other.into() }),
                    },
                })
            })?,
        })
    }
}

/// Extends leases of a living consumer; handles stay as they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Renew {
    /// The group's life.
    pub group: GroupId,
    /// The topic's life.
    pub topic: TopicId,
    /// When the messages become visible again.
    pub deadline: Millis,
    /// Queue, offset and generation of each lease; another generation means the lease is gone, and nothing happens.
    pub leases: Vec<(u32, QueueOffset, Generation)>,
}

impl Fields for Renew {
    const KIND: u16 = 49;

    fn write(&self, w: &mut Writer<'_>) {
        w.u32(self.group.0);
        w.u32(self.topic.0);
        w.u64(self.deadline.0);
        w.varint(self.leases.len() as u64);
        for (queue, offset, generation) in &self.leases {
            w.varint((*queue).into());
            w.varint(offset.0);
            w.u64(generation.0);
        }
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            group: GroupId(r.u32("group")?),
            topic: TopicId(r.u32("topic")?),
            deadline: Millis(r.u64("deadline")?),
            leases: r.list("leases", |r| {
                Ok((r.varint_u32("queue")?, QueueOffset(r.varint("offset")?), Generation(r.u64("generation")?)))
            })?,
        })
    }
}

macro_rules! about_a_lease {
    ($(#[$doc:meta])* $name:ident = $kind:literal { $($(#[$field_doc:meta])* $field:ident: $type:ty, $write:expr, $read:expr;)* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct $name {
            /// The group's life.
            pub group: GroupId,
            /// The topic's life.
            pub topic: TopicId,
            /// The queue.
            pub queue: u32,
            /// The offset.
            pub offset: QueueOffset,
            /// Of the lease; an old one is refused.
            pub generation: Generation,
            $($(#[$field_doc])* pub $field: $type,)*
        }

        impl Fields for $name {
            const KIND: u16 = $kind;

            fn write(&self, w: &mut Writer<'_>) {
                w.u32(self.group.0);
                w.u32(self.topic.0);
                w.varint(self.queue.into());
                w.varint(self.offset.0);
                w.u64(self.generation.0);
                $(($write)(w, &self.$field);)*
            }

            fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
                Ok(Self {
                    group: GroupId(r.u32("group")?),
                    topic: TopicId(r.u32("topic")?),
                    queue: r.varint_u32("queue")?,
                    offset: QueueOffset(r.varint("offset")?),
                    generation: Generation(r.u64("generation")?),
                    $($field: ($read)(r)?,)*
                })
            }
        }
    };
}

about_a_lease! {
    /// A message is done for a group.
    Ack = 50 {}
}

about_a_lease! {
    /// The lease ends at another time, under a new generation.
    ChangeInvisible = 51 {
        /// The generation of the changed lease.
        new_generation: Generation, |w: &mut Writer<'_>, v: &Generation| w.u64(v.0), |r: &mut Reader<'_>| r.u64("new generation").map(Generation);
        /// When the message becomes visible again.
        deadline: Millis, |w: &mut Writer<'_>, v: &Millis| w.u64(v.0), |r: &mut Reader<'_>| r.u64("deadline").map(Millis);
        /// The delivery that ends with it does not count as an attempt.
        uncounted: bool, |w: &mut Writer<'_>, v: &bool| w.u8(u8::from(*v)), |r: &mut Reader<'_>| r.flag("uncounted");
    }
}

about_a_lease! {
    /// The message moves to the group's dead-letter topic; the original is done. The body stays where it is.
    DeadLetter = 52 {
        /// Why.
        reason: String, |w: &mut Writer<'_>, v: &String| w.text(v), |r: &mut Reader<'_>| r.string("reason");
    }
}

/// A dead letter with the size of what it keeps, by which the retention of its topic counts it. Logs of before have
/// [`DeadLetter`] alone, which counts as nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetterSized {
    /// The dead letter.
    pub letter: DeadLetter,
    /// Bytes of the record of the message that it is; 0 where that could not be read.
    pub record_len: u32,
}

impl Fields for DeadLetterSized {
    const KIND: u16 = 55;

    fn write(&self, w: &mut Writer<'_>) {
        self.letter.write(w);
        w.u32(self.record_len);
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { letter: DeadLetter::read(r)?, record_len: r.u32("length of the record")? })
    }
}

/// Failed deliveries of a message count no more, since it was not the message that was at fault. What it waits for stays as it is,
/// and who has it keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GiveBack {
    /// The group's life.
    pub group: GroupId,
    /// The topic's life.
    pub topic: TopicId,
    /// The queue.
    pub queue: u32,
    /// The offset.
    pub offset: QueueOffset,
    /// How many deliveries.
    pub attempts: u32,
}

impl Fields for GiveBack {
    const KIND: u16 = 57;

    fn write(&self, w: &mut Writer<'_>) {
        w.u32(self.group.0);
        w.u32(self.topic.0);
        w.varint(self.queue.into());
        w.varint(self.offset.0);
        w.varint(self.attempts.into());
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            group: GroupId(r.u32("group")?),
            topic: TopicId(r.u32("topic")?),
            queue: r.varint_u32("queue")?,
            offset: QueueOffset(r.varint("offset")?),
            attempts: r.varint_u32("attempts")?,
        })
    }
}
