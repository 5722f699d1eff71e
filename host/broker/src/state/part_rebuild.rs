//! Entries of queues that no copy of a part has any more, made again from the stretch of the log that the part covers.
//!
//! What a stretch of the log put into a queue can be told without the state before it, but for what that state refused or
//! sent elsewhere. So what comes out is a guess, until it gives the very checksum that was written with the row.

use std::collections::{BTreeMap, HashMap, HashSet};

use bytes::Bytes;

use super::part::{Of, Part, Row};
use super::part_check::whole_row;
use super::{IndexEntry, RecordAt};
use crate::record::{Ack, Carried, DeadLetterSized, End, MessageHead, Record, Settled, SettledHead};
use crate::{Generation, GroupId, HalfPosition, QueueOffset, RecordPosition, TopicId, TransactionOutcome};

/// Makes rows of queues again that are damaged in both copies of a part.
///
/// It gets the records of the log from the end of the part before to the end of this one, in their order.
pub struct PartRebuild {
    /// What is whole in one of the copies is in its place.
    bytes: Vec<u8>,
    damaged: Vec<Row>,
    /// What the records put into these queues.
    queues: BTreeMap<(TopicId, u32), Vec<IndexEntry>>,
    /// By identity: content and topic of the last message, and whether it was a half. A resend is stored once.
    sent: HashMap<u64, (u64, TopicId, bool)>,
    halves: HashMap<HalfPosition, MessageHead>,
    /// Where halves lie that were carried on.
    carried: HashMap<HalfPosition, RecordPosition>,
    ended: HashSet<HalfPosition>,
    /// What answers of components with what they staged put into queues, by what they were about: of several about the same only
    /// the last can have happened, for the others were stale.
    settled: HashMap<SettledKey, Vec<(TopicId, u32, IndexEntry)>>,
}

/// What an answer is about: a transaction, or a delivery; and which one, of several.
#[derive(PartialEq, Eq, Hash)]
enum SettledKey {
    End(HalfPosition),
    Check(HalfPosition, u32),
    Delivery(GroupId, TopicId, u32, QueueOffset, Generation),
}

impl SettledKey {
    fn of(head: &SettledHead) -> Self {
        match head {
            SettledHead::End(end) => Self::End(end.transaction),
            SettledHead::CheckAnswered(answered) => Self::Check(answered.transaction, answered.check_number),
            SettledHead::Ack(Ack { group, topic, queue, offset, generation }) => {
                Self::Delivery(*group, *topic, *queue, *offset, *generation)
            }
            SettledHead::DeadLetter(DeadLetterSized { letter, .. }) => {
                Self::Delivery(letter.group, letter.topic, letter.queue, letter.offset, letter.generation)
            }
        }
    }
}

impl PartRebuild {
    /// Begins with two damaged copies of the part `id`. `None` if its table is damaged in both, or something else than the
    /// index of a queue.
    pub fn of(id: u64, named: u32, copies: [&Bytes; 2]) -> Option<Self> {
        let is_named = |bytes: &Bytes| Part::open(id, bytes.clone()).ok().filter(|part| part.checksum == named);
        let part = copies.into_iter().find_map(is_named)?;
        let (mut bytes, mut damaged, mut queues) = (part.bytes().to_vec(), Vec::new(), BTreeMap::new());
        for row in &part.rows {
            match (whole_row(row, copies), row.of) {
                (Some(whole), _) => bytes[row.data.clone()].copy_from_slice(&whole),
                (None, Of::Queue(topic, queue)) => {
                    queues.insert((topic, queue), Vec::new());
                    damaged.push(row.clone());
                }
                (None, _) => return None,
            }
        }
        let (sent, halves, carried, ended, settled) = Default::default();
        Some(Self { bytes, damaged, queues, sent, halves, carried, ended, settled })
    }

    /// The next record. `half` reads the half of a transaction from the log, for one that was opened before the stretch.
    pub fn record(&mut self, at: RecordAt, record: Record, half: impl FnOnce(HalfPosition) -> Option<MessageHead>) {
        match record {
            Record::Message(head) if !self.is_resend(&head, false) => {
                self.append(head.topic, head.queue, IndexEntry { position: at.position, tag: head.tag });
            }
            Record::Half(head) if !self.is_resend(&head, true) => {
                self.halves.insert(HalfPosition::of(at.position), head);
            }
            Record::Carried(Carried { from, queued: None, .. }) => {
                self.carried.insert(HalfPosition::of(from), at.position);
            }
            Record::End(end) => self.end(&end, half),
            Record::Settled(settled) => self.settled(at, &settled, half),
            _ => {}
        }
    }

    /// The first end of a transaction.
    fn end(&mut self, end: &End, half: impl FnOnce(HalfPosition) -> Option<MessageHead>) {
        if self.ended.insert(end.transaction)
            && let Some((topic, queue, entry)) = self.committed(end, half)
        {
            self.append(topic, queue, entry);
        }
    }

    /// Where the message of a commit goes.
    fn committed(
        &self,
        end: &End,
        half: impl FnOnce(HalfPosition) -> Option<MessageHead>,
    ) -> Option<(TopicId, u32, IndexEntry)> {
        let End { transaction, outcome, queue, .. } = *end;
        let head = self.halves.get(&transaction).copied().or_else(|| half(transaction));
        let head = head.filter(|_| outcome == TransactionOutcome::Committed)?;
        let position = self.carried.get(&transaction).copied().unwrap_or(transaction.first_place());
        Some((head.topic, queue, IndexEntry { position, tag: head.tag }))
    }

    /// An answer with what was staged. Whether it was in time, only the state could say; the last about something mostly was.
    fn settled(&mut self, at: RecordAt, settled: &Settled, half: impl FnOnce(HalfPosition) -> Option<MessageHead>) {
        let key = SettledKey::of(&settled.head);
        let before = self.settled.remove(&key);
        for (topic, queue, entry) in before.iter().flatten() {
            if let Some(entries) = self.queues.get_mut(&(*topic, *queue)) {
                entries.retain(|each| each != entry);
            }
        }
        let mut put = Vec::new();
        if let SettledHead::End(end) = &settled.head
            && (self.ended.insert(end.transaction) || before.is_some())
        {
            put.extend(self.committed(end, half));
        }
        let messages = settled.messages(at.position);
        put.extend(messages.map(|(position, head)| (head.topic, head.queue, IndexEntry { position, tag: head.tag })));
        put.iter().for_each(|(topic, queue, entry)| self.append(*topic, *queue, *entry));
        self.settled.insert(key, put);
    }

    fn is_resend(&mut self, head: &MessageHead, half: bool) -> bool {
        let said = (head.content, head.topic, half);
        self.sent.insert(head.identity.0, said) == Some(said)
    }

    fn append(&mut self, topic: TopicId, queue: u32, entry: IndexEntry) {
        if let Some(entries) = self.queues.get_mut(&(topic, queue)) {
            entries.push(entry);
        }
    }

    /// The whole part, if what the records say is what was written.
    pub fn finish(mut self) -> Option<Vec<u8>> {
        for row in &self.damaged {
            let Of::Queue(topic, queue) = row.of else { return None };
            let entries = self.queues.get(&(topic, queue))?;
            // What expired before the part was sealed is not in it.
            let first = entries.len().checked_sub(usize::try_from(row.count).ok()?)?;
            let made: Vec<u8> = entries[first..].iter().flat_map(|entry| entry.to_bytes()).collect();
            if !row.is_written(&made) {
                return None;
            }
            self.bytes[row.data.clone()].copy_from_slice(&made);
        }
        Some(self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::PartView;
    use crate::testing::{RecordLog, end, head};

    #[test]
    fn a_queue_is_made_again_from_its_records_or_not_at_all() {
        let mut log = RecordLog::new();
        let (a, b) = (log.topic("a", 2), log.topic("b", 1));
        let early = log.half(b);
        log.send(a, 0, None);
        log.state.seal(1_000).unwrap();
        let from = log.records.len();
        let late = log.half(b);
        for n in 0..10 {
            log.send(a, n % 2, Some("tag"));
            log.apply(Record::Message(head(a, 0, "again", 7))).unwrap();
            log.send(b, 0, None);
        }
        for (transaction, outcome) in [
            (late, TransactionOutcome::Committed),
            (early, TransactionOutcome::Committed),
            (late, TransactionOutcome::Committed),
        ] {
            log.apply(end(transaction, outcome)).unwrap();
        }
        let rolled_back = log.half(b);
        log.apply(end(rolled_back, TransactionOutcome::RolledBack)).unwrap();
        let part = log.state.seal(1_000_000).unwrap();
        let named = PartView::open(1_000_000, part.clone()).unwrap().checksum();
        let table = 40 + 56 * u64::from_le_bytes(part[24..32].try_into().unwrap()) as usize;
        let damaged = |places: &[usize]| {
            let mut bytes = part.to_vec();
            places.iter().for_each(|at| bytes[*at] ^= 1);
            Bytes::from(bytes)
        };
        let rebuilt = |copies: [&Bytes; 2], records: &[(RecordAt, Record)]| {
            let mut rebuild = PartRebuild::of(1_000_000, named, copies)?;
            let half = |transaction: HalfPosition| match &log
                .records
                .iter()
                .find(|(at, _)| at.position == transaction.first_place())?
                .1
            {
                Record::Half(head) => Some(*head),
                _ => None,
            };
            records.iter().for_each(|(at, record)| rebuild.record(*at, record.clone(), half));
            rebuild.finish().map(Bytes::from)
        };
        // The first queue of `a` has six entries, the other one five.
        let queues = [
            damaged(&[table, table + 16 * 7, table + 16 * 12]),
            damaged(&[table + 3, table + 16 * 8, table + 16 * 11]),
        ];
        let copies = [&queues[0], &queues[1]];
        let records = &log.records[from..];
        assert_eq!(rebuilt(copies, records), Some(part.clone()));
        assert_eq!(rebuilt([copies[0], &part.slice(..table)], records), Some(part.clone()), "the other one is cut");
        assert_eq!(rebuilt(copies, &records[2..]), None, "a record is missing");
        let end_of_part = part.len() - 1;
        assert_eq!(rebuilt([&damaged(&[end_of_part]), &damaged(&[end_of_part])], records), None, "no queue");
        assert_eq!(rebuilt([&damaged(&[41]), &damaged(&[42])], records), None, "no table");
    }

    /// A component answers twice about each of a delivery and a transaction, since it had read what was another by then.
    #[test]
    fn of_several_answers_about_the_same_the_last_one_happened() {
        let mut log = RecordLog::new();
        let (a, b) = (log.topic("a", 1), log.topic("b", 1));
        crate::state::tests::push(&mut log, "p", "1", 1).unwrap();
        let group = log.member("g", a, crate::GroupConfig::default());
        let put = crate::record::BindingPut {
            name: "b".to_owned(),
            digest: [1; 32],
            spec: r#"{"plugin":"p:1"}"#.to_owned(),
            expected_revision: None,
            secrets: Default::default(),
            keeps: Some(crate::record::KeepGrant { namespace: "n".to_owned(), quota: 1 << 20 }),
            names_life: true,
        };
        log.apply(Record::BindingPut(put)).unwrap();
        let created = log.last_position().0;
        let transaction = log.half(a);
        log.send(a, 0, None);
        log.apply(crate::testing::lease(&log, group, a, 1, crate::testing::whole(0, 0, 1))).unwrap();
        let heads = [
            SettledHead::Ack(Ack { group, topic: a, queue: 0, offset: QueueOffset(0), generation: Generation(1) }),
            match end(transaction, TransactionOutcome::Committed) {
                Record::End(end) => SettledHead::End(end),
                _ => unreachable!("it is one"),
            },
        ];
        let mut stale = 0;
        for head in heads {
            for version in [7, 0] {
                let mut records = Vec::new();
                let place = crate::record::MessagePlace { topic: b, queue: 0, stored_at: log.now };
                crate::record::encode_message(
                    &mut records,
                    place,
                    "b",
                    &crate::testing::message("m"),
                    Default::default(),
                );
                let kept = crate::record::KeptAccess {
                    namespace: "n".to_owned(),
                    reads: [("k".to_owned(), version)].into(),
                    writes: BTreeMap::new(),
                };
                let outbox = crate::record::Outbox::new(records).unwrap();
                let settled =
                    Settled { outbox, head: head.clone(), binding: "b".to_owned(), created, kept: Some(kept) };
                stale += usize::from(log.apply(Record::Settled(settled)).unwrap() == crate::state::Applied::Stale);
                log.send(b, 0, None);
            }
        }
        assert_eq!(stale, 2);
        let part = log.state.seal(1_000_000).unwrap();
        let named = PartView::open(1_000_000, part.clone()).unwrap().checksum();
        let table = 40 + 56 * u64::from_le_bytes(part[24..32].try_into().unwrap()) as usize;
        let mut damaged = part.to_vec();
        // An entry of each queue: two messages in `a`, six in `b`.
        for at in [table + 3, table + 16 * 2 + 3] {
            damaged[at] ^= 1;
        }
        let damaged = Bytes::from(damaged);
        let mut rebuild = PartRebuild::of(1_000_000, named, [&damaged, &damaged]).unwrap();
        log.records.iter().for_each(|(at, record)| rebuild.record(*at, record.clone(), |_| None));
        assert_eq!(rebuild.finish().map(Bytes::from), Some(part));
    }
}
