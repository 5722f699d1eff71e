//! What the log holds in the end: each record, how often, and the state that they say together.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hasher};
use std::time::Duration;

use vouch_broker::record::{EndedBy, Frame, Identity, Record};
use vouch_broker::state::RecordAt;
use vouch_broker::{HalfPosition, Millis, QueueOffset, RecordPosition, ResourceName, State};
use vouch_commitlog::Entry;

use super::leases::Leases;
use super::settling::Settling;
use super::{Call, Event, Wrong};
use crate::clients::{Names, REGISTER};

/// What the log holds in the end.
pub(super) struct Content {
    pub(super) state: State,
    pub(super) leases: Leases,
    /// What became of what guests staged, if there are any.
    pub(super) settling: Option<Settling>,
    /// How often each record of a client is there.
    times: BTreeMap<String, u64>,
    /// The messages that lie where; those of transactions, too, however they ended.
    messages: BTreeMap<RecordPosition, String>,
    /// Where each is in its queue.
    places: BTreeMap<String, (u32, QueueOffset)>,
    /// Up to where that is known of each queue.
    ends: BTreeMap<u32, u64>,
    /// What lies where.
    records: BTreeMap<RecordPosition, u64>,
}

/// What a client asked for, as it is found in the log again; nothing for what asks for no record.
pub(super) fn key(event: &Event) -> Option<String> {
    Some(match &event.call {
        Call::Send(id) | Call::Half(id) => message_key(Identity::of("producer", &format!("m{id}"))),
        Call::End(transaction, outcome) => format!("end of {transaction:?} as {outcome:?}"),
        Call::Put(expected) => put_key(*expected, Some(Duration::from_secs(3600 + event.asked))),
        Call::Ack(queue, offset, generation) => format!("ack of {queue}, {offset:?}, {generation:?}"),
        Call::Receive => return None,
    })
}

/// Tells bytes apart.
pub(crate) fn digest(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(bytes);
    hasher.finish()
}

fn message_key(identity: Identity) -> String {
    format!("message {:x}", identity.0)
}

fn put_key(expected: Option<u64>, retention: Option<Duration>) -> String {
    format!("register for {expected:?} with {retention:?}")
}

fn key_of(record: &Record) -> Option<String> {
    Some(match record {
        Record::Message(head) | Record::Half(head) => message_key(head.identity),
        // Those of guests and of operators beside them are nobody's call.
        Record::End(end) if matches!(&end.by, EndedBy::Component { .. }) => return None,
        Record::End(end) if matches!(&end.by, EndedBy::Operator { name } if name == "guests") => return None,
        Record::End(end) => format!("end of {:?} as {:?}", end.transaction, end.outcome),
        Record::TopicPut(put) if put.name == ResourceName::plain(REGISTER) => {
            put_key(put.expected_revision, put.config.retention)
        }
        Record::Ack(ack) if ack.topic == Names::ALL.topic => {
            format!("ack of {}, {:?}, {:?}", ack.queue, ack.offset, ack.generation)
        }
        _ => return None,
    })
}

impl Content {
    /// Reads all of it that is committed.
    ///
    /// # Errors
    /// Something in it is not as it must be.
    pub(super) fn of<'a>(committed: impl Iterator<Item = &'a Entry>, guests: bool) -> Result<Self, Wrong> {
        let mut content = Self {
            state: State::default(),
            leases: Leases::of(Names::ALL.group, Names::ALL.topic),
            settling: guests.then(Settling::default),
            times: BTreeMap::new(),
            messages: BTreeMap::new(),
            places: BTreeMap::new(),
            ends: BTreeMap::new(),
            records: BTreeMap::new(),
        };
        let mut latest = Millis(0);
        for entry in committed {
            let time = Millis(entry.leader_time_ms);
            if time < latest {
                return Err(format!("entry {} has {time:?}, and one before it {latest:?}", entry.index));
            }
            latest = time;
            let (mut records, mut position) =
                (&entry.payload[..], vouch_storage::record_position(entry.payload_position));
            while !records.is_empty() {
                let (frame, rest) = Frame::split(records).map_err(|error| error.to_string())?;
                let record = Record::decode(&frame).map_err(|error| error.to_string())?;
                let bytes = &records[..records.len() - rest.len()];
                content.take(RecordAt { position, time }, &record, bytes)?;
                content.records.insert(position, digest(bytes));
                position = position.plus(frame.record_len().into());
                records = rest;
            }
        }
        Ok(content)
    }

    fn take(&mut self, at: RecordAt, record: &Record, bytes: &[u8]) -> Result<(), Wrong> {
        if let Some(key) = key_of(record) {
            *self.times.entry(key).or_default() += 1;
        }
        if let Record::Message(head) | Record::Half(head) = record {
            self.messages.insert(at.position, message_key(head.identity));
        }
        let outcome = self.state.apply(at, record, &mut Vec::new());
        self.queues_have_no_gaps()?;
        if let Some(settling) = &mut self.settling {
            settling.applied(at, (record, bytes), &outcome, &self.state)?;
        }
        if outcome.is_ok() { self.leases.applied(record, at.time, &self.state) } else { Ok(()) }
    }

    /// I6: the offsets of a queue are those from 0 on, each of another message, however often that was sent. Looked at behind each
    /// record, for the messages may be let go.
    fn queues_have_no_gaps(&mut self) -> Result<(), Wrong> {
        let Ok(topic) = self.state.topics().named(&ResourceName::plain("t")) else { return Ok(()) };
        for queue in 0..topic.config.queues {
            let known = self.ends.entry(queue).or_default();
            for offset in std::mem::replace(known, topic.end(queue).0)..topic.end(queue).0 {
                let entry = topic.entry(queue, QueueOffset(offset));
                let message = entry.and_then(|entry| self.messages.get(&entry.position)).cloned();
                let place = (queue, QueueOffset(offset));
                if message.is_none_or(|message| self.places.insert(message, place).is_some()) {
                    return Err(format!("I6: queue {queue} has no message at {offset}, or one that is elsewhere, too"));
                }
            }
        }
        Ok(())
    }

    /// Where the message that was sent is in its queue.
    pub(super) fn place(&self, event: &Event) -> Option<(u32, QueueOffset)> {
        self.places.get(&key(event)?).copied()
    }

    /// Whether the message that was sent opens this transaction.
    pub(super) fn opens(&self, event: &Event, transaction: HalfPosition) -> bool {
        self.half(transaction).is_some_and(|half| Some(half) == key(event).as_ref())
    }

    /// Whether the message of a transaction is in a queue.
    pub(super) fn is_delivered(&self, transaction: HalfPosition) -> bool {
        self.half(transaction).is_some_and(|half| self.places.contains_key(half))
    }

    fn half(&self, transaction: HalfPosition) -> Option<&String> {
        self.messages.get(&transaction.first_place())
    }

    /// Whether this is what lies there.
    pub(super) fn is_at(&self, position: RecordPosition, digest: u64) -> bool {
        self.records.get(&position) == Some(&digest)
    }

    /// How often something is there.
    pub(super) fn times(&self, key: &str) -> u64 {
        self.times.get(key).copied().unwrap_or(0)
    }
}
