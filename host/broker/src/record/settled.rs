//! Records about what components stage, and where it is kept: state, and messages that become visible with an answer.

use std::collections::BTreeMap;
use std::fmt;

use super::codec::{DecodeError, Reader, Writer};
use super::frame::{FRAME_LEN, Frame};
use super::message::{self, MessageHead};
use super::{Ack, CheckAnswered, DeadLetterSized, End, Fields, Record};
use crate::{Millis, RecordPosition};

/// The kinds of this family, each with its sentence: a link of the chain of [`super::each_kind`].
macro_rules! settled_kinds {
    ([$next:path $(, $rest:path)*] $($before:tt)*) => {
        $next! { [$($rest),*] $($before)*
            /// A component answered, and what it staged happens with that or not at all.
            Settled,
            /// An operator deleted what bindings keep.
            KeptDeleted,
        }
    };
}
pub(crate) use settled_kinds;

/// What a component's answer decides, as the record that would say it alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SettledHead {
    /// A transaction ends.
    End(End),
    /// A check was answered *unknown*.
    CheckAnswered(CheckAnswered),
    /// A message is done for the group.
    Ack(Ack),
    /// A message moves to the dead letters.
    DeadLetter(DeadLetterSized),
}

impl SettledHead {
    /// The same as a record of its own.
    pub fn record(&self) -> Record {
        match self {
            Self::End(end) => Record::End(end.clone()),
            Self::CheckAnswered(answered) => Record::CheckAnswered(answered.clone()),
            Self::Ack(ack) => Record::Ack(ack.clone()),
            Self::DeadLetter(letter) => Record::DeadLetterSized(letter.clone()),
        }
    }

    fn write(&self, w: &mut Writer<'_>) {
        match self {
            Self::End(end) => {
                w.u8(1);
                end.write(w);
            }
            Self::CheckAnswered(answered) => {
                w.u8(2);
                answered.write(w);
            }
            Self::Ack(ack) => {
                w.u8(3);
                ack.write(w);
            }
            Self::DeadLetter(letter) => {
                w.u8(4);
                letter.write(w);
            }
        }
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(match r.u8("head")? {
            1 => Self::End(End::read(r)?),
            2 => Self::CheckAnswered(CheckAnswered::read(r)?),
            3 => Self::Ack(Ack::read(r)?),
            4 => Self::DeadLetter(DeadLetterSized::read(r)?),
            other => return Err(DecodeError::Value { field: "head", value: other.into() }),
        })
    }
}

/// When a key that is written expires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyExpiry {
    /// Never.
    Never,
    /// So many ms after the entry's time.
    AfterMs(u32),
    /// Then, as it was before: what is added to a number leaves its end where it is.
    At(Millis),
}

/// What becomes of a key.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyWrite {
    /// What is kept from now on; `None`: nothing.
    pub value: Option<Vec<u8>>,
    /// When that expires.
    pub expires: KeyExpiry,
}

/// Without the value, which is the component's affair.
impl fmt::Debug for KeyWrite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { value, expires } = self;
        let bytes = value.as_ref().map(Vec::len);
        f.debug_struct("KeyWrite").field("bytes", &bytes).field("expires", expires).finish()
    }
}

impl KeyWrite {
    fn write(&self, w: &mut Writer<'_>) {
        w.option(self.value.as_deref(), |w, value| w.bytes(value));
        match self.expires {
            KeyExpiry::Never => w.u8(0),
            KeyExpiry::AfterMs(ms) => {
                w.u8(1);
                w.u32(ms);
            }
            KeyExpiry::At(at) => {
                w.u8(2);
                w.u64(at.0);
            }
        }
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let value = r.option("value", |r| r.bytes("value").map(<[u8]>::to_vec))?;
        let expires = match r.u8("expires")? {
            0 => KeyExpiry::Never,
            1 => KeyExpiry::AfterMs(r.u32("expires after")?),
            2 => KeyExpiry::At(Millis(r.u64("expires at")?)),
            other => return Err(DecodeError::Value { field: "expires", value: other.into() }),
        };
        Ok(Self { value, expires })
    }
}

/// Messages that become visible together: whole framed records, one behind the other.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Outbox(Vec<u8>);

/// Without the messages' bodies.
impl fmt::Debug for Outbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.heads().map(|(_, head)| head)).finish()
    }
}

impl Outbox {
    /// Of framed records, as [`super::encode_message`] appends them.
    ///
    /// # Errors
    /// One of them is no message for a queue.
    pub fn new(records: Vec<u8>) -> Result<Self, DecodeError> {
        let mut rest = records.as_slice();
        while !rest.is_empty() {
            let (frame, behind) = Frame::split(rest)?;
            if frame.kind() != message::KIND_MESSAGE || !(1..=message::VERSION).contains(&frame.version()) {
                // Records within records would be read to any depth, and a half would open a transaction.
                return Err(DecodeError::Value { field: "the kind of a staged record", value: frame.kind().into() });
            }
            MessageHead::decode(frame.fields())?;
            rest = behind;
        }
        Ok(Self(records))
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What applying them needs, each with where it begins among these bytes.
    fn heads(&self) -> impl Iterator<Item = (u64, MessageHead)> + '_ {
        let mut rest = self.0.as_slice();
        std::iter::from_fn(move || {
            let at = (self.0.len() - rest.len()) as u64;
            let (frame, behind) = Frame::split(rest).ok()?;
            rest = behind;
            // Both were looked at when this was made.
            Some((at, MessageHead::decode(frame.fields()).ok()?))
        })
    }
}

/// What was read of what a binding keeps, and what is written there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeptAccess {
    /// Where; a name that bindings' grants say.
    pub namespace: String,
    /// The version that each key had: the position of the record that wrote it, 0 if there was nothing.
    pub reads: BTreeMap<String, u64>,
    /// What becomes of each key.
    pub writes: BTreeMap<String, KeyWrite>,
}

/// A component answered, and staged something: all of it happens, or nothing does (ruling 8).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settled {
    /// The messages that become visible.
    pub outbox: Outbox,
    /// What it decides.
    pub head: SettledHead,
    /// The binding that answered.
    pub binding: String,
    /// Position of the record that created it: one of the same name that was created later is another one.
    pub created: u64,
    /// What it kept and what that was based on, if it has a place for that.
    pub kept: Option<KeptAccess>,
}

impl Settled {
    /// The messages, each with its own position in the log; `at` is that of this record.
    pub fn messages(&self, at: RecordPosition) -> impl Iterator<Item = (RecordPosition, MessageHead)> + '_ {
        let mut len = Vec::new();
        Writer(&mut len).varint(self.outbox.0.len() as u64);
        // They lie in front of all other fields, so that where each begins needs no other field.
        let first = at.plus((FRAME_LEN + len.len()) as u64);
        self.outbox.heads().map(move |(place, head)| (first.plus(place), head))
    }
}

impl Fields for Settled {
    const KIND: u16 = 56;

    fn write(&self, w: &mut Writer<'_>) {
        w.bytes(&self.outbox.0);
        self.head.write(w);
        w.text(&self.binding);
        w.u64(self.created);
        w.option(self.kept.as_ref(), |w, kept| {
            w.text(&kept.namespace);
            w.varint(kept.reads.len() as u64);
            for (key, version) in &kept.reads {
                w.text(key);
                w.u64(*version);
            }
            w.varint(kept.writes.len() as u64);
            for (key, write) in &kept.writes {
                w.text(key);
                write.write(w);
            }
        });
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            outbox: Outbox::new(r.bytes("outbox")?.to_vec())?,
            head: SettledHead::read(r)?,
            binding: r.string("binding name")?,
            created: r.u64("created")?,
            kept: r.option("kept", |r| {
                Ok(KeptAccess {
                    namespace: r.string("namespace")?,
                    reads: by_key(r, "reads", |r| r.u64("version"))?,
                    writes: by_key(r, "writes", KeyWrite::read)?,
                })
            })?,
        })
    }
}

/// A list by keys, each of which comes once, ascending.
fn by_key<T>(
    r: &mut Reader<'_>,
    field: &'static str,
    mut read: impl FnMut(&mut Reader<'_>) -> Result<T, DecodeError>,
) -> Result<BTreeMap<String, T>, DecodeError> {
    let mut all = BTreeMap::new();
    for number in 0..r.count(field)? {
        let key = r.string("key")?;
        if all.last_key_value().is_some_and(|(last, _)| *last >= key) {
            return Err(DecodeError::Value { field, value: number as u64 });
        }
        all.insert(key, read(r)?);
    }
    Ok(all)
}

/// An operator deletes what is kept in a namespace: one key, or all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptDeleted {
    /// The namespace.
    pub namespace: String,
    /// The key; `None`: all of them.
    pub key: Option<String>,
}

impl Fields for KeptDeleted {
    const KIND: u16 = 70;

    fn write(&self, w: &mut Writer<'_>) {
        w.text(&self.namespace);
        w.option(self.key.as_deref(), |w, key| w.text(key));
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { namespace: r.string("namespace")?, key: r.option("key", |r| r.string("key"))? })
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::check::CheckOverrides;
    use crate::record::{MessagePlace, decode_stored, encode_message};
    use crate::testing::message;
    use crate::{Generation, GroupId, MessageKind, NewMessage, QueueOffset, TopicId};

    fn acknowledged(outbox: Outbox) -> Settled {
        let (group, topic, offset, generation) = (GroupId(1), TopicId(1), QueueOffset(0), Generation(1));
        let head = SettledHead::Ack(Ack { group, topic, queue: 0, offset, generation });
        Settled { outbox, head, binding: "b".to_owned(), created: 1, kept: None }
    }

    #[test]
    fn each_message_lies_at_a_position_of_its_own_where_it_is_read_like_any_other() {
        for bodies in [vec![1], vec![1, 200_000, 3]] {
            let mut records = Vec::new();
            for len in &bodies {
                let message = NewMessage { body: Bytes::from(vec![7; *len]), ..message(&len.to_string()) };
                let place = MessagePlace { topic: TopicId(3), queue: 2, stored_at: Millis(9) };
                encode_message(&mut records, place, "b", &message, CheckOverrides::default());
            }
            let settled = acknowledged(Outbox::new(records).unwrap());
            let mut log = vec![0; 1000];
            settled.encode(&mut log);
            let read: Vec<usize> = settled
                .messages(RecordPosition(1000))
                .map(|(at, head)| {
                    let from = usize::try_from(at.0).unwrap();
                    let (found, stored) =
                        decode_stored(&Bytes::copy_from_slice(&log[from..from + head.record_len as usize])).unwrap();
                    assert_eq!(found, head);
                    stored.message.body.len()
                })
                .collect();
            assert_eq!(read, bodies);
        }
    }

    #[test]
    fn nothing_but_messages_for_queues_can_be_staged() {
        let mut half = Vec::new();
        let place = MessagePlace { topic: TopicId(3), queue: 2, stored_at: Millis(9) };
        let message = NewMessage { kind: MessageKind::Transaction, ..message("half") };
        encode_message(&mut half, place, "b", &message, CheckOverrides::default());
        let mut deleted = Vec::new();
        KeptDeleted { namespace: "n".to_owned(), key: None }.encode(&mut deleted);
        let mut nested = Vec::new();
        acknowledged(Outbox::default()).encode(&mut nested);
        for records in [half.clone(), deleted, nested, half[..half.len() - 1].to_vec()] {
            assert!(Outbox::new(records).is_err());
        }
    }
}
