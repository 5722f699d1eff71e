//! What records on their way to the log will change.

use std::collections::{BTreeMap, HashMap, VecDeque};

use crate::record::{DeadLetterSized, Record, Settled, SettledHead};
use crate::state::{FilterTags, Filters};
use crate::{Generation, GroupId, QueueOffset, State, TagFilter, TagHash, TopicId};

/// A queue and an offset in it.
pub(super) type QueueAndOffset = (u32, QueueOffset);

/// Filters of a group on a topic that records on their way note or let go.
#[derive(Debug, Default)]
pub(super) struct FiltersOnTheirWay(BTreeMap<TagFilter, OnItsWay>);

/// Records about one filter.
#[derive(Debug, Default)]
struct OnItsWay {
    /// Those that note it, and those that let it go.
    noting: u32,
    letting_go: u32,
    /// The last of them notes it, and the log took all of them so far.
    stays: bool,
}

impl FiltersOnTheirWay {
    /// Those that a record on its way notes.
    pub(super) fn noted(&self) -> impl Iterator<Item = &TagFilter> {
        self.0.iter().filter(|(_, way)| way.noting > 0).map(|(filter, _)| filter)
    }

    /// Whether one of those matches a tag.
    pub(super) fn matches(&self, tag: TagHash) -> bool {
        self.noted().any(|filter| filter.matches(tag))
    }

    /// Whether a group with these filters has this one when all records are applied. `false` where that is not sure: it is
    /// noted once more then, which changes nothing.
    pub(super) fn stays(&self, filter: &TagFilter, applied: &Filters) -> bool {
        self.0.get(filter).map_or_else(|| applied.contains(filter), |way| way.stays)
    }

    /// Notes one more record about a filter. The last one in the order of the log says whether it stays.
    fn hold(&mut self, filter: &TagFilter, noted: bool) {
        let way = self.0.entry(filter.clone()).or_default();
        *(if noted { &mut way.noting } else { &mut way.letting_go }) += 1;
        way.stays = noted;
    }

    /// Returns whether it was held: what was held for a group or topic that went meanwhile is forgotten already, even if a
    /// later record is held for the same one.
    fn forget(&mut self, filter: &TagFilter, noted: bool, abandoned: bool) -> bool {
        let Some(way) = self.0.get_mut(filter) else { return false };
        let count = if noted { &mut way.noting } else { &mut way.letting_go };
        let Some(fewer) = count.checked_sub(1) else { return false };
        *count = fewer;
        way.stays &= !abandoned;
        if way.noting + way.letting_go == 0 {
            self.0.remove(filter);
        }
        true
    }

    /// Tags of the filters that are noted, each as often as there are records.
    fn tags(&self) -> usize {
        self.0.iter().map(|(filter, way)| filter.weight() * way.noting as usize).sum()
    }
}

/// What of one group on one topic is decided by records that are on their way. The state does not know of them yet, and
/// a scan must not decide the same a second time.
#[derive(Debug, Default)]
pub(super) struct Reserved {
    /// Per queue: ranges of fresh messages that records on their way decide, in the order of the log, each by its end
    /// and the generation of its lease. Each begins where the one before ends.
    ranges: HashMap<u32, VecDeque<(QueueOffset, Generation)>>,
    /// Places that a record on its way changes, with the number of such records.
    places: HashMap<QueueAndOffset, u32>,
    /// Queue with which the next scan of fresh messages begins.
    pub(super) turn: u32,
    pub(super) filters: FiltersOnTheirWay,
}

impl Reserved {
    /// Whether a record on its way changes this place.
    pub(super) fn holds(&self, place: QueueAndOffset) -> bool {
        self.places.contains_key(&place)
    }

    /// First offset of a queue that neither the state nor a record on its way decides. Messages may expire meanwhile.
    pub(super) fn next(&self, queue: u32, applied: QueueOffset) -> QueueOffset {
        self.ranges.get(&queue).and_then(|ranges| ranges.back()).map_or(applied, |(to, _)| applied.max(*to))
    }
}

/// What proposed records will change once they are applied. Belongs to the leader and starts empty.
///
/// # To ensure correctness
///
/// Every proposed record goes through [`Reservations::hold`] before anything else is picked, in the order of the log,
/// and then through exactly one of
///
/// - [`Reservations::release`] when it is applied, whatever came of it;
/// - [`Reservations::abandon`] when the log did not take it and never will.
#[derive(Debug, Default)]
pub struct Reservations {
    subjects: HashMap<(GroupId, TopicId), Reserved>,
    filter_tags: TagsOnTheirWay,
    /// Records on their way, also those about groups and topics that are gone.
    held: u64,
}

/// Tags of the filters that records on their way note, of each group and of all.
#[derive(Debug, Default)]
struct TagsOnTheirWay {
    of_group: HashMap<GroupId, usize>,
    of_all: usize,
}

impl TagsOnTheirWay {
    /// One more record on its way notes a filter with so many tags.
    fn add(&mut self, group: GroupId, tags: usize) {
        *self.of_group.entry(group).or_default() += tags;
        self.of_all += tags;
    }

    /// The same record is applied, or never will be. Nothing is taken back that was not added: whoever calls says 0 for
    /// what was forgotten with its group.
    fn remove(&mut self, group: GroupId, tags: usize) {
        if tags == 0 {
            return;
        }
        self.of_all -= tags;
        if let Some(of_group) = self.of_group.get_mut(&group) {
            *of_group -= tags;
            if *of_group == 0 {
                self.of_group.remove(&group);
            }
        }
    }
}

/// The group and topic that a record is about; `None` for records that change no delivery.
pub(crate) fn subject(record: &Record) -> Option<(GroupId, TopicId)> {
    Some(match record {
        Record::Lease(lease) => (lease.group, lease.topic),
        Record::Renew(renew) => (renew.group, renew.topic),
        Record::Ack(ack) => (ack.group, ack.topic),
        Record::ChangeInvisible(change) => (change.group, change.topic),
        Record::DeadLetter(letter) | Record::DeadLetterSized(DeadLetterSized { letter, .. }) => {
            (letter.group, letter.topic)
        }
        Record::GiveBack(back) => (back.group, back.topic),
        Record::Settled(Settled { head: SettledHead::Ack(ack), .. }) => (ack.group, ack.topic),
        Record::Settled(Settled { head: SettledHead::DeadLetter(DeadLetterSized { letter, .. }), .. }) => {
            (letter.group, letter.topic)
        }
        Record::FilterNoted(noted) => (noted.group, noted.topic),
        Record::FiltersGone(gone) => (gone.group, gone.topic),
        _ => return None,
    })
}

/// Calls `each` with every filter that a record notes, or lets go.
fn each_filter(record: &Record, mut each: impl FnMut(&TagFilter, bool)) {
    match record {
        Record::FilterNoted(noted) => each(&noted.filter, true),
        Record::FiltersGone(gone) => gone.filters.iter().for_each(|filter| each(filter, false)),
        _ => {}
    }
}

/// Calls `each` with every place below the cursor that a record changes.
fn each_place(record: &Record, mut each: impl FnMut(QueueAndOffset)) {
    match record {
        Record::Lease(lease) => lease.again.iter().for_each(|again| each((again.queue, again.offset))),
        Record::Renew(renew) => renew.leases.iter().for_each(|(queue, offset, _)| each((*queue, *offset))),
        Record::Ack(ack) => each((ack.queue, ack.offset)),
        Record::ChangeInvisible(change) => each((change.queue, change.offset)),
        Record::DeadLetter(letter) | Record::DeadLetterSized(DeadLetterSized { letter, .. }) => {
            each((letter.queue, letter.offset));
        }
        Record::GiveBack(back) => each((back.queue, back.offset)),
        Record::Settled(Settled { head: SettledHead::Ack(ack), .. }) => each((ack.queue, ack.offset)),
        Record::Settled(Settled { head: SettledHead::DeadLetter(DeadLetterSized { letter, .. }), .. }) => {
            each((letter.queue, letter.offset));
        }
        _ => {}
    }
}

impl Reservations {
    /// Notes what a record on its way will change.
    ///
    /// # Panics
    /// If a lease takes what one before it takes, or has its generation: a message would be handed out twice, and the record
    /// of one lease would release what the other holds. Leases come from this leader alone, which picked their messages and
    /// counted their generations; what is read from a log is never held.
    pub fn hold(&mut self, record: &Record) {
        let Some(subject) = subject(record) else { return };
        self.held += 1;
        let (group, _) = subject;
        let reserved = self.subjects.entry(subject).or_default();
        each_place(record, |place| *reserved.places.entry(place).or_default() += 1);
        if let Record::Lease(lease) = record {
            for range in &lease.fresh {
                let ranges = reserved.ranges.entry(range.queue).or_default();
                if let Some((to, generation)) = ranges.back() {
                    assert!(*to <= range.from, "a lease takes offset {} of a queue, held up to {to}", range.from);
                    assert!(*generation < lease.generation, "two leases of a queue have one generation");
                }
                ranges.push_back((range.to, lease.generation));
            }
        }
        each_filter(record, |filter, noted| {
            reserved.filters.hold(filter, noted);
            if noted {
                self.filter_tags.add(group, filter.weight());
            }
        });
    }

    /// Forgets what a record changed: it is applied, and the state says it now.
    ///
    /// # Panics
    /// If more records are released or abandoned than were held: something was released twice, and what it held the first
    /// time is free for others too early.
    pub fn release(&mut self, record: &Record) {
        self.forget(record, false, |ranges, at| _ = ranges.drain(..=at));
    }

    /// Forgets what a record would have changed: it will never be applied, and its messages are handed out again.
    ///
    /// Leases of the same queue that were proposed after it take nothing when they are applied, since they would leave
    /// a gap: their messages come again too.
    pub fn abandon(&mut self, record: &Record) {
        self.forget(record, true, |ranges, at| ranges.truncate(at));
    }

    /// Forgets groups and topics that are gone. Call it after [`crate::state::Effect::Directory`].
    pub fn retain_living(&mut self, state: &State) {
        let lives = |(group, topic): &(GroupId, TopicId)| {
            state.groups().get(*group).is_some() && state.topics().get(*topic).is_some()
        };
        self.subjects.retain(|subject, reserved| {
            let stays = lives(subject);
            if !stays {
                self.filter_tags.remove(subject.0, reserved.filters.tags());
            }
            stays
        });
    }

    /// What is on its way for a group on a topic, to be read by a scan and to be turned on by it. It is made where
    /// there is none yet.
    pub(super) fn of(&mut self, subject: (GroupId, TopicId)) -> &mut Reserved {
        self.subjects.entry(subject).or_default()
    }

    /// Filters of a group on a topic that records on their way are about.
    pub(super) fn filters(&self, subject: (GroupId, TopicId)) -> Option<&FiltersOnTheirWay> {
        self.subjects.get(&subject).map(|reserved| &reserved.filters)
    }

    /// Tags of the filters that records on their way note: of this group, and of all.
    pub(super) fn filter_tags(&self, group: GroupId) -> FilterTags {
        let TagsOnTheirWay { of_group, of_all } = &self.filter_tags;
        FilterTags { of_group: of_group.get(&group).copied().unwrap_or(0), of_all: *of_all }
    }

    /// The one way back from [`Self::hold`], with the same record. `ranges_at` does what differs: a range that is
    /// applied goes with all before it, since records are applied in their order; one that is abandoned goes with all
    /// behind it, since those would leave a gap.
    ///
    /// What was held for a group or topic that went meanwhile is gone already ([`Self::retain_living`]), and is passed
    /// over.
    fn forget(
        &mut self,
        record: &Record,
        abandoned: bool,
        ranges_at: impl Fn(&mut VecDeque<(QueueOffset, Generation)>, usize),
    ) {
        let Some(subject) = subject(record) else { return };
        assert!(self.held > 0, "a record about {subject:?} is released and was not held");
        self.held -= 1;
        // Groups and topics that went took what was held for them along.
        let Some(reserved) = self.subjects.get_mut(&subject) else { return };
        each_filter(record, |filter, noted| {
            let held = reserved.filters.forget(filter, noted, abandoned);
            self.filter_tags.remove(subject.0, if held && noted { filter.weight() } else { 0 });
        });
        each_place(record, |place| {
            if let Some(count) = reserved.places.get_mut(&place) {
                *count -= 1;
                if *count == 0 {
                    reserved.places.remove(&place);
                }
            }
        });
        if let Record::Lease(lease) = record {
            for range in &lease.fresh {
                let Some(ranges) = reserved.ranges.get_mut(&range.queue) else { continue };
                if let Some(at) = ranges.iter().position(|(_, generation)| *generation == lease.generation) {
                    ranges_at(ranges, at);
                }
                if ranges.is_empty() {
                    reserved.ranges.remove(&range.queue);
                }
            }
        }
    }
}
