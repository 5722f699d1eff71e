//! What holds after every record, whatever it was (semantics §13).

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use crate::record::{Record, Settled, SettledHead};
use crate::state::retention::QUEUE_COST;
use crate::state::{Applied, Gap, KEPT_KEY_COST, Outcome, RecordAt};
use crate::{
    GroupId, HalfPosition, Millis, QueueOffset, RecordPosition, State, TagFilter, TagHash, TopicId, TransactionOutcome,
    Unconsumed,
};

/// Looks at the state after every record and remembers what must not change.
#[derive(Default)]
pub(super) struct Watch {
    halves: BTreeSet<HalfPosition>,
    ended: BTreeMap<HalfPosition, TransactionOutcome>,
    lost: BTreeSet<HalfPosition>,
    ends: BTreeMap<(TopicId, u32), QueueOffset>,
    cursors: BTreeMap<(GroupId, TopicId, u32), QueueOffset>,
    starts: BTreeMap<(TopicId, u32), QueueOffset>,
    missed: BTreeMap<GroupId, u64>,
    /// Messages below the cursors that were not done.
    unfinished: BTreeSet<(GroupId, TopicId, u32, QueueOffset)>,
    /// Where halves were carried: place, and transaction.
    carried: BTreeMap<RecordPosition, RecordPosition>,
}

impl Watch {
    /// Asserts the invariants after `record` gave `outcome`.
    pub(super) fn check(&mut self, state: &State, at: RecordAt, record: &Record, outcome: &Outcome) {
        self.note(at, record, outcome);
        self.retention(state, at, record, outcome);
        let indexed = self.queues(state);
        self.transactions(state, &indexed);
        self.needed(state);
        self.progress(state, record);
        filters(state);
        secrets(state);
        kept(state);
    }

    fn note(&mut self, at: RecordAt, record: &Record, outcome: &Outcome) {
        match (record, outcome) {
            (Record::Half(_), Ok(Applied::Prepared { transaction }))
                if *transaction == HalfPosition::of(at.position) =>
            {
                self.halves.insert(*transaction);
            }
            // I4: an end that is not a repeat is the only one of its transaction.
            (
                Record::End(end) | Record::Settled(Settled { head: SettledHead::End(end), .. }),
                Ok(Applied::Ended { outcome, repeated: false }),
            ) => {
                assert!(self.halves.contains(&end.transaction), "an end made a transaction of {}", end.transaction);
                assert!(!self.lost.contains(&end.transaction), "a transaction came back with a deleted topic");
                let before = self.ended.insert(end.transaction, *outcome);
                assert_eq!(before, None, "transaction {} ended twice", end.transaction);
            }
            (Record::End(end), Ok(Applied::Ended { outcome, repeated: true })) => {
                assert_eq!(self.ended.get(&end.transaction), Some(outcome), "a repeat got another outcome");
            }
            // The first copy of a half says which transaction it is, wherever it is carried later.
            (Record::Carried(carried), Ok(_)) if self.halves.contains(&HalfPosition::of(carried.from)) => {
                self.carried.insert(at.position, carried.from);
            }
            _ => {}
        }
    }

    /// Nobody misses what was kept for it, and what somebody misses is on record (ruling 13, CT-2).
    fn retention(&mut self, state: &State, at: RecordAt, record: &Record, outcome: &Outcome) {
        let mut missed_now = 0;
        for group in state.groups().iter() {
            let missed = group.missed - self.missed.insert(group.id, group.missed).unwrap_or(0);
            if missed > 0 {
                let Record::Expire(expire) = record else { panic!("a group misses {missed} messages by {record:?}") };
                let topic = state.topics().get(expire.topic).expect("the topic of an expiry is there");
                let may = topic.config.unconsumed == Unconsumed::Expire || !group.pins(state.at(at.time));
                assert!(may, "a pinned message is gone");
                let of_this = |gap: &&Gap| gap.at == at.time && gap.topic == topic.id;
                assert!(group.gaps().rev().take_while(of_this).map(|gap| gap.messages).sum::<u64>() >= missed);
                missed_now += missed;
            }
        }
        if let Ok(Applied::Expired { missed, .. }) = outcome {
            assert_eq!(*missed, missed_now);
        }
    }

    /// The log from the lowest needed position on holds all that the state refers to, and all of it is found there.
    fn needed(&self, state: &State) {
        let entries = state.topics().iter().flat_map(|topic| {
            let places = (0..topic.queue_count())
                .flat_map(|queue| QueueOffset::each(QueueOffset::FIRST..topic.end(queue)).map(move |at| (queue, at)));
            places.filter_map(|(queue, offset)| Some(topic.entry(queue, offset)?.position))
        });
        let halves = state.open_transactions().iter(None).map(|(id, _)| state.place_of_half(id).expect("it is open"));
        let artifacts = state.plugins().artifacts().flat_map(|(_, artifact)| &artifact.chunks);
        let bodies: BTreeSet<RecordPosition> = halves.chain(artifacts.map(|(position, _)| *position)).collect();
        let mut entries: Vec<RecordPosition> = entries.collect();
        entries.sort_unstable();
        let needed = bodies.iter().chain(&entries).min().copied();
        assert_eq!(state.needed_from(), needed.unwrap_or(RecordPosition::BEYOND));
        let found = state.bodies_in(RecordPosition(0)..RecordPosition::BEYOND, usize::MAX);
        assert_eq!(found.iter().map(|body| body.position).collect::<BTreeSet<RecordPosition>>(), bodies);
        let (all, next) = state.messages_in(&(RecordPosition(0)..RecordPosition::BEYOND), None);
        assert!(next.is_none());
        let (mut stepped, mut from) =
            state.some_messages_in(&(RecordPosition(0)..RecordPosition::BEYOND), None, QUEUE_COST + 2);
        while from.is_some() {
            let (more, next) =
                state.some_messages_in(&(RecordPosition(0)..RecordPosition::BEYOND), from, QUEUE_COST + 2);
            stepped.extend(more);
            from = next;
        }
        assert!(stepped == all, "in steps: {stepped:?}, at once: {all:?}");
        let mut found: Vec<RecordPosition> = all.iter().map(|body| body.position).collect();
        found.sort_unstable();
        assert!(found == entries);
    }

    /// I6: offsets without holes, each entry resolves, and a queue only grows. Returns how often each position is
    /// indexed, by topic.
    fn queues(&mut self, state: &State) -> BTreeMap<(TopicId, RecordPosition), usize> {
        let mut indexed = BTreeMap::new();
        for topic in state.topics().iter() {
            for queue in 0..topic.queue_count() {
                let end = topic.end(queue);
                let before = self.ends.insert((topic.id, queue), end).unwrap_or_default();
                assert!(end >= before, "queue {queue} lost messages");
                assert!(topic.entry(queue, end).is_none());
                let start = topic.start(queue);
                let began = self.starts.insert((topic.id, queue), start).unwrap_or_default();
                assert!(start >= began && start <= end, "a queue begins at {start} and ends at {end}");
                assert!(
                    QueueOffset::each(QueueOffset::FIRST..start).all(|offset| topic.entry(queue, offset).is_none())
                );
                for offset in QueueOffset::each(start..end) {
                    let entry = topic.entry(queue, offset).expect("every offset below the end resolves");
                    let position = self.carried.get(&entry.position).copied().unwrap_or(entry.position);
                    *indexed.entry((topic.id, position)).or_default() += 1;
                }
            }
        }
        indexed
    }

    /// I3, I4: an open or rolled-back half is in no queue, a committed one is once in its own topic.
    fn transactions(&mut self, state: &State, indexed: &BTreeMap<(TopicId, RecordPosition), usize>) {
        let open = state.open_transactions();
        let everywhere = |position| indexed.iter().filter(|((_, p), _)| *p == position).map(|(_, n)| n).sum::<usize>();
        for half in &self.halves {
            match (self.ended.get(half), open.get(*half)) {
                (Some(_), Some(_)) => panic!("transaction {half} ended and is open"),
                (Some(TransactionOutcome::RolledBack), None) | (None, Some(_)) => {
                    assert_eq!(everywhere(half.first_place()), 0, "half {half} can be seen");
                }
                (Some(TransactionOutcome::Committed), None) => {
                    let recorded = state.outcomes().get(*half).map(|ended| ended.topic);
                    let topic = recorded.and_then(|topic| state.topics().get(topic));
                    if let Some(topic) = topic {
                        let kept = (0..topic.queue_count()).all(|queue| topic.start(queue) == QueueOffset::FIRST);
                        let times = indexed.get(&(topic.id, half.first_place())).copied().unwrap_or(0);
                        assert!(times == 1 || (times == 0 && !kept), "commit of {half}");
                    }
                }
                (None, None) => {
                    self.lost.insert(*half);
                    assert_eq!(everywhere(half.first_place()), 0, "a lost half {half} can be seen");
                }
            }
        }
        let all: Vec<HalfPosition> = open.iter(None).map(|(id, _)| id).collect();
        assert_eq!((all.len(), all.is_sorted()), (open.len(), true));
        assert_eq!(open.iter(None).filter(|(_, o)| o.parked.is_some()).count(), open.parked());
        let waiting = open.iter(None).filter(|(_, o)| o.parked.as_ref().is_some_and(|parked| parked.until_bound));
        let mut waiting: Vec<_> = waiting.map(|(id, o)| (o.topic, id)).collect();
        waiting.sort_unstable();
        assert_eq!(waiting, open.waiting_for_binding().collect::<Vec<_>>(), "who waits for a binding");
        let mut due: Vec<_> = open.topics_to_check().flat_map(|topic| open.due(topic, None)).collect();
        let asked = open.iter(None).filter(|(_, o)| o.next_due != Millis::NEVER);
        let mut expected: Vec<_> = asked.map(|(id, o)| (o.next_due, id)).collect();
        due.sort_unstable();
        expected.sort_unstable();
        assert_eq!(due, expected, "the index of due checks differs from the table");
    }

    /// I8: cursors only grow and stay inside their queue; exceptions lie below them and are indexed once.
    fn progress(&mut self, state: &State, record: &Record) {
        let mut unfinished = BTreeSet::new();
        for group in state.groups().iter() {
            for (id, progress) in group.topics() {
                let topic = state.topics().get(id).expect("progress goes with its topic");
                let mut exceptions = 0;
                for queue in 0..topic.queue_count() {
                    let next = progress.next(queue);
                    assert!(next <= topic.end(queue), "a cursor beyond its queue");
                    let before = self.cursors.insert((group.id, id, queue), next).unwrap_or_default();
                    assert!(next >= before, "a cursor moved backwards");
                    if matches!(record, Record::Lease(_)) {
                        // What a lease skips, no filter of the group matches (ruling 12).
                        let seen = self.unfinished.range(
                            (group.id, id, queue, QueueOffset::FIRST)..(group.id, id, queue, QueueOffset(u64::MAX)),
                        );
                        for offset in seen.map(|(_, _, _, offset)| *offset).chain(QueueOffset::each(before..next)) {
                            let wanted = topic.entry(queue, offset).is_some_and(|e| progress.filters().matches(e.tag));
                            assert!(progress.exception(queue, offset).is_some() || !wanted, "{offset} was skipped");
                        }
                    }
                    let here = QueueOffset::each(QueueOffset::FIRST..next)
                        .filter(|offset| progress.exception(queue, *offset).is_some());
                    unfinished.extend(here.map(|offset| (group.id, id, queue, offset)));
                    let start = topic.start(queue);
                    assert!(next >= start, "a cursor at what is gone");
                    exceptions += QueueOffset::each(start..next)
                        .filter(|offset| progress.exception(queue, *offset).is_some())
                        .count() as u64;
                    assert!(
                        QueueOffset::each(next..next.plus(3)).all(|offset| progress.exception(queue, offset).is_none())
                    );
                }
                assert_eq!(exceptions, progress.unfinished());
                for (visible_at, queue, offset) in progress.due() {
                    let exception = progress.exception(queue, offset).expect("what is due is an exception");
                    assert_eq!((exception.visible_at, exception.left), (visible_at, None));
                }
                for tag in progress.left_tags() {
                    for (queue, offset) in progress.left(tag) {
                        assert_eq!(progress.exception(queue, offset).unwrap().left, Some(tag));
                        assert_eq!(topic.entry(queue, offset).unwrap().tag, tag);
                    }
                }
                let left = progress.left_tags().flat_map(|tag| progress.left(tag)).count();
                assert_eq!(progress.due().count() + left, exceptions as usize);
            }
        }
        self.unfinished = unfinished;
    }
}

/// What a binding names is there, and what is counted of secrets is what they have.
fn secrets(state: &State) {
    let mut named = state.plugins().bindings().flat_map(|(_, binding)| &binding.secrets);
    assert!(named.all(|secret| state.secrets().get(secret).is_some()), "a binding names a secret that is gone");
    let bytes = state.secrets().iter().map(|(name, secret)| name.len() + secret.sealed.len()).sum::<usize>();
    assert_eq!(state.secrets().bytes(), bytes);
}

/// What is counted of what bindings keep is what they have, and a namespace is there for as long as a binding has it.
fn kept(state: &State) {
    let kept = state.kept();
    let names: BTreeSet<&str> = kept.namespaces().map(|(name, _)| name).collect();
    let mut granted = state.plugins().bindings().filter_map(|(_, binding)| binding.keeps.as_ref());
    assert!(granted.all(|keeps| names.contains(keeps.namespace.as_str())), "a binding has a namespace that is gone");
    assert!(names.is_empty() || state.plugins().bindings().next().is_some(), "a namespace outlived all bindings");
    let cost = |key: &str, value: &[u8]| (key.len() + value.len()) as u64 + KEPT_KEY_COST;
    let mut all = 0;
    for (name, namespace) in kept.namespaces() {
        // At the beginning of time nothing has expired.
        let bytes =
            namespace.keys_from(Bound::Unbounded, Millis(0)).map(|(key, kept)| cost(key, &kept.value)).sum::<u64>();
        assert_eq!(namespace.bytes(), bytes, "of namespace {name}");
        all += bytes;
    }
    assert_eq!(kept.bytes(), all);
}

/// What is counted and indexed about filters and groups is what a look at all of them gives.
fn filters(state: &State) {
    let (mut made, mut unused, mut tags) = (0, 0, 0);
    for group in state.groups().iter() {
        made += usize::from(group.made_by_receive);
        unused += usize::from(group.is_unused());
        let mut of_group = 0;
        for (_, progress) in group.topics() {
            let filters = progress.filters();
            let wanted = |tag: &TagHash| filters.iter().any(|filter| filter.matches(*tag));
            for tag in [None, Some("a"), Some("b"), Some("c")].map(TagHash::of) {
                assert_eq!(filters.matches(tag), wanted(&tag));
            }
            assert!(progress.unwanted_tags().eq(progress.left_tags().filter(|tag| !wanted(tag))));
            of_group += filters.iter().map(TagFilter::weight).sum::<usize>();
        }
        assert_eq!(state.groups().filter_tags_of(group.id), of_group);
        tags += of_group;
    }
    assert_eq!(state.groups().counts(), (made, unused, tags));
    let stepped = std::iter::successors(state.groups().progress_after(None).next(), |(group, topic, _)| {
        state.groups().progress_after(Some((group.id, *topic))).next()
    });
    let mut groups: Vec<_> = state.groups().iter().collect();
    groups.sort_by_key(|group| group.id);
    let all = groups.iter().flat_map(|group| group.topics().map(|(topic, _)| (group.id, topic)));
    assert!(stepped.map(|(group, topic, _)| (group.id, topic)).eq(all));
}
