//! Topics with their queues.

use std::collections::BTreeMap;
use std::ops::Range;

use super::fault::{PartError, QueueGap};
use super::index_entry::{EntryAt, IndexEntry};
use super::leaps::Now;
use super::marks::TopicMarks;
use super::part::{Of, Part, PartWriter};
use super::queue::QueueIndex;
use super::snapshot::{SectionSource, Snapshot, Unreadable};
use crate::record::codec::{Reader, Writer};
use crate::{Millis, QueueOffset, RecordPosition, Refusal, ResourceName, TopicConfig, TopicId};

/// Most topics in a cluster.
pub const TOPICS_MAX: usize = 100_000;

/// Names of deleted topics that are remembered, the latest.
pub const RETIRED_MAX: usize = 100_000;

/// One topic.
pub struct Topic {
    /// Its life.
    pub id: TopicId,
    /// Its name.
    pub name: ResourceName,
    /// Its settings.
    pub config: TopicConfig,
    /// Log position of the record that last changed the settings: the resource's tag over HTTP.
    pub revision: u64,
    /// Bytes of all records of messages, halves and dead letters that the topic ever received.
    received_bytes: u64,
    queues: Vec<QueueIndex>,
    /// What it had received when parts were sealed: tells how old and how much what lies in them is.
    marks: TopicMarks,
}

impl std::fmt::Debug for Topic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Topic").field("id", &self.id).field("name", &self.name).finish_non_exhaustive()
    }
}

impl Topic {
    fn new(id: TopicId, name: ResourceName, config: TopicConfig, revision: u64) -> Self {
        let (queues, marks) = (Vec::new(), TopicMarks::default());
        let mut topic = Self { id, name, config, revision, received_bytes: 0, queues, marks };
        topic.grow();
        topic
    }

    fn grow(&mut self) {
        let queues = self.queues.len().max(self.config.queues as usize);
        self.queues.resize_with(queues, QueueIndex::default);
    }

    /// Number of queues.
    pub fn queue_count(&self) -> u32 {
        self.queues.len() as u32
    }

    /// The next offset of this queue: so many messages were ever put into it; 0 for a queue that does not exist.
    pub fn end(&self, queue: u32) -> QueueOffset {
        self.queues.get(queue as usize).map_or(QueueOffset::FIRST, QueueIndex::end)
    }

    /// First offset of a queue that is still there; 0 for a queue that does not exist.
    pub fn start(&self, queue: u32) -> QueueOffset {
        self.queues.get(queue as usize).map_or(QueueOffset::FIRST, QueueIndex::start)
    }

    /// The smallest log position among a queue's messages at or above an offset: what the log must keep for them. A
    /// committed half is older than its neighbours. `None` if there are no such messages.
    pub fn lowest_position_from(&self, queue: u32, offset: QueueOffset) -> Option<RecordPosition> {
        self.queues.get(queue as usize)?.lowest_position_from(offset)
    }

    /// Messages ever put into the topic.
    pub fn messages(&self) -> u64 {
        self.queues.iter().map(|index| index.end().since(QueueOffset::FIRST)).sum()
    }

    /// Messages that are still there.
    pub fn messages_kept(&self) -> u64 {
        self.queues.iter().map(|index| index.end().since(index.start())).sum()
    }

    /// Where queues should begin by the topic's settings: queues that should begin later than they do, ascending, with
    /// the offset. By whole parts, so nothing is younger than it should be and little is older than it must be.
    pub fn expired(&self, now: Now<'_>) -> Vec<(u32, QueueOffset)> {
        let TopicConfig { retention, retention_size, .. } = self.config;
        let received = retention_size.and_then(|size| self.received_bytes.checked_sub(size));
        let Some(part) = self.marks.last_part(now, retention, received) else { return Vec::new() };
        let ends = (0..).zip(&self.queues).map(|(queue, index)| (queue, index.end_of_part(part)));
        ends.filter(|(queue, end)| *end > self.start(*queue)).collect()
    }

    /// The record of a message lies there now.
    pub(super) fn carry(&mut self, queue: u32, offset: QueueOffset, place: RecordPosition) {
        if let Some(index) = self.queues.get_mut(queue as usize) {
            index.carry(offset, place);
        }
    }

    /// Messages whose records were carried to another place of the log, by queue and offset, with that place: at most `max`
    /// after one of them.
    pub fn carried(&self, after: Option<(u32, QueueOffset)>, max: usize) -> Vec<(u32, QueueOffset, RecordPosition)> {
        let (first, above) = after.map_or((0, QueueOffset::FIRST), |(queue, offset)| (queue, offset.next()));
        let from = |queue| if queue == first { above } else { QueueOffset::FIRST };
        let queues = (0..).zip(&self.queues).skip(first as usize);
        let carried = queues.flat_map(|(queue, index)| {
            index.carried_from(from(queue)).map(move |(offset, place)| (queue, offset, place))
        });
        carried.take(max).collect()
    }

    /// Messages of a queue whose records lie in a stretch of the log; see [`QueueIndex::offsets_in`].
    pub(super) fn offsets_in(
        &self,
        queue: u32,
        stretch: &Range<RecordPosition>,
        from: QueueOffset,
        room: &mut usize,
    ) -> (Vec<(QueueOffset, RecordPosition)>, Option<QueueOffset>) {
        let index = self.queues.get(queue as usize);
        index.map_or_else(|| (Vec::new(), None), |index| index.offsets_in(stretch, from, room))
    }

    /// Counts the record of a message or half that the topic received, or that a dead letter keeps.
    pub(super) fn received(&mut self, record_len: u32) {
        self.received_bytes += u64::from(record_len);
    }

    /// Lets queues begin at these offsets.
    pub(super) fn drop_below(&mut self, starts: &[(u32, QueueOffset)]) {
        for (queue, start) in starts {
            if let Some(index) = self.queues.get_mut(*queue as usize) {
                index.drop_below(*start);
            }
        }
        self.forget_marks();
    }

    /// Forgets the marks of parts below the first one that a queue still reads from: they say how old what is gone was.
    fn forget_marks(&mut self) {
        let first = self.queues.iter().filter_map(|index| index.parts().next()).min();
        self.marks.forget_below(first.unwrap_or(u64::MAX));
    }

    /// The smallest log position among all its messages.
    pub(super) fn lowest_position(&self) -> Option<RecordPosition> {
        self.queues.iter().filter_map(|index| index.lowest_position_from(index.start())).min()
    }

    /// The message at this place; `None` below the queue's start and from its end on.
    pub fn entry(&self, queue: u32, offset: QueueOffset) -> Option<IndexEntry> {
        self.queues.get(queue as usize)?.get(offset)
    }

    /// As [`Topic::entry`], without reading what may lie on a disk: where the message's place in the log is to be had.
    pub fn entry_at(&self, queue: u32, offset: QueueOffset) -> Option<EntryAt> {
        self.queues.get(queue as usize)?.entry_at(offset)
    }

    /// The message at this place as the record of another one refers to it: where no part says it any more, a place that
    /// nothing lies at. `None` if there is no such message.
    pub(super) fn entry_or_unknown(&self, queue: u32, offset: QueueOffset) -> Option<IndexEntry> {
        let is_there = (self.start(queue)..self.end(queue)).contains(&offset);
        self.entry(queue, offset).or_else(|| is_there.then_some(IndexEntry::UNKNOWN))
    }

    /// Puts a message into a queue (one that exists: the number wraps) and returns queue and offset.
    pub(super) fn append(&mut self, queue: u32, entry: IndexEntry) -> (u32, QueueOffset) {
        let queue = queue % self.queue_count();
        (queue, self.queues[queue as usize].append(entry))
    }
}

/// All topics.
#[derive(Debug, Default)]
pub struct Topics {
    by_id: BTreeMap<TopicId, Topic>,
    by_name: BTreeMap<ResourceName, TopicId>,
    /// Names of deleted topics, for dead letters that came from them.
    retired: BTreeMap<TopicId, ResourceName>,
    last_id: u32,
}

impl Topics {
    /// The topic with this name.
    pub fn named(&self, name: &ResourceName) -> Result<&Topic, Refusal> {
        self.by_name.get(name).and_then(|id| self.by_id.get(id)).ok_or_else(|| Refusal::TopicNotFound(name.clone()))
    }

    /// The topic with this number; `None` once it is deleted.
    pub fn get(&self, id: TopicId) -> Option<&Topic> {
        self.by_id.get(&id)
    }

    pub(super) fn get_mut(&mut self, id: TopicId) -> Result<&mut Topic, Refusal> {
        let retired = &self.retired;
        self.by_id.get_mut(&id).ok_or_else(|| {
            Refusal::TopicNotFound(retired.get(&id).cloned().unwrap_or_else(|| ResourceName::plain("(deleted)")))
        })
    }

    /// The name of a topic that exists or existed.
    pub fn name_of(&self, id: TopicId) -> Option<&ResourceName> {
        self.by_id.get(&id).map(|topic| &topic.name).or_else(|| self.retired.get(&id))
    }

    /// All topics in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = &Topic> {
        self.by_name.values().filter_map(|id| self.by_id.get(id))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// Topics in the order of their names, after this one.
    pub fn iter_after(&self, after: Option<&ResourceName>) -> impl Iterator<Item = &Topic> {
        use std::ops::Bound::{Excluded, Unbounded};
        let names = (after.map_or(Unbounded, Excluded), Unbounded);
        self.by_name.range::<ResourceName, _>(names).filter_map(|(_, id)| self.by_id.get(id))
    }

    /// Topics in the order of their numbers, after this one.
    pub(super) fn after(&self, after: Option<TopicId>) -> impl Iterator<Item = &Topic> {
        use std::ops::Bound::{Excluded, Unbounded};
        self.by_id.range((after.map_or(Unbounded, Excluded), Unbounded)).map(|(_, topic)| topic)
    }

    /// Creates or changes a topic. Returns its number and whether it is new.
    pub(super) fn put(
        &mut self,
        name: &ResourceName,
        config: &TopicConfig,
        revision: u64,
    ) -> Result<(TopicId, bool), Refusal> {
        if let Some(topic) = self.by_name.get(name).and_then(|id| self.by_id.get_mut(id)) {
            check_change(topic, config)?;
            topic.config = config.clone();
            topic.revision = revision;
            topic.grow();
            return Ok((topic.id, false));
        }
        if self.by_id.len() >= TOPICS_MAX {
            return Err(Refusal::TooMany(format!("there are {TOPICS_MAX} topics already; delete one first")));
        }
        self.last_id += 1;
        let id = TopicId(self.last_id);
        self.by_id.insert(id, Topic::new(id, name.clone(), config.clone(), revision));
        self.by_name.insert(name.clone(), id);
        Ok((id, true))
    }

    pub(super) fn delete(&mut self, id: TopicId) {
        if let Some(topic) = self.by_id.remove(&id) {
            self.by_name.remove(&topic.name);
            self.retired.insert(id, topic.name);
            if self.retired.len() > RETIRED_MAX {
                self.retired.pop_first();
            }
        }
    }
}

fn check_change(topic: &Topic, config: &TopicConfig) -> Result<(), Refusal> {
    if config.topic_type != topic.config.topic_type {
        return Err(Refusal::Conflict(format!(
            "topic {} has type {}, which cannot be changed to {}; create another topic",
            topic.name,
            topic.config.topic_type.as_str(),
            config.topic_type.as_str()
        )));
    }
    if config.queues < topic.config.queues {
        return Err(Refusal::Conflict(format!(
            "topic {} has {} queues, which cannot shrink to {}; keep at least {}",
            topic.name, topic.config.queues, config.queues, topic.config.queues
        )));
    }
    Ok(())
}

impl Snapshot for Topics {
    const SECTION: u16 = 2;
    const VERSION: u8 = 3;

    fn write(&self, w: &mut Writer<'_>, _: u8) {
        let Self { by_id, by_name: _, retired, last_id } = self;
        w.u32(*last_id);
        w.varint(by_id.len() as u64);
        for Topic { id, name, config, revision, received_bytes, queues, marks: _ } in by_id.values() {
            w.u32(id.0);
            w.name(name);
            w.json(config);
            w.u64(*revision);
            w.u64(*received_bytes);
            queues.iter().for_each(|index| index.write(w));
        }
        w.varint(retired.len() as u64);
        for (id, name) in retired {
            w.u32(id.0);
            w.name(name);
        }
    }

    fn read(r: &mut Reader<'_>, source: &SectionSource<'_>) -> Result<Self, Unreadable> {
        let mut topics = Topics { last_id: r.u32("last topic")?, ..Topics::default() };
        for _ in 0..r.count("topics")? {
            let (id, name) = (TopicId(r.u32("topic")?), r.name("topic name")?);
            let mut topic = Topic::new(id, name.clone(), r.topic_config()?, r.u64("revision")?);
            if source.version >= 3 {
                topic.received_bytes = r.u64("bytes received")?;
            }
            for index in &mut topic.queues {
                *index = if source.version == 1 { QueueIndex::read_v1(r)? } else { QueueIndex::read(r)? };
                if source.version >= 3 {
                    index.read_moved(r)?;
                }
            }
            topics.by_id.insert(id, topic);
            topics.by_name.insert(name, id);
        }
        for (id, name) in r.list("deleted topics", |r| Ok((TopicId(r.u32("topic")?), r.name("topic name")?)))? {
            topics.retired.insert(id, name);
        }
        topics.attach(source)?;
        Ok(topics)
    }
}

/// What of the queues lies in parts.
impl Topics {
    fn queues(&self) -> impl Iterator<Item = (Of, &QueueIndex)> {
        self.by_id.values().flat_map(|topic| {
            let numbered = (0..).zip(&topic.queues);
            numbered.map(|(queue, index)| (Of::Queue(topic.id, queue), index))
        })
    }

    /// The queue that a row is about; `None` if its topic was deleted, whose rows are ignored from then on.
    fn queue_of(&mut self, topic: TopicId, queue: u32) -> Result<Option<&mut QueueIndex>, PartError> {
        let Some(topic) = self.by_id.get_mut(&topic) else {
            // Numbers are given in ascending order: what was never given was written from another log.
            let deleted = topic.0 <= self.last_id;
            return if deleted { Ok(None) } else { Err(PartError::Misfit("it has a topic that never was")) };
        };
        topic.queues.get_mut(queue as usize).map(Some).ok_or(PartError::Misfit("it has a queue that never was"))
    }

    /// Parts that queues read from.
    pub(super) fn parts(&self) -> impl Iterator<Item = u64> {
        self.queues().flat_map(|(_, index)| index.parts())
    }

    /// How many entries of each queue are in no part, for those that have some.
    pub(super) fn unsealed(&self) -> impl Iterator<Item = usize> {
        self.queues().map(|(_, index)| index.unsealed()).filter(|count| *count > 0)
    }

    /// Writes what is in no part, a row for each queue that has some.
    pub(super) fn write_rows(&self, out: &mut PartWriter) {
        self.queues().filter(|(_, index)| index.unsealed() > 0).for_each(|(of, index)| index.write_row(of, out));
    }

    /// Topics that have something in no part.
    pub(super) fn unsealed_topics(&self) -> impl Iterator<Item = &Topic> {
        self.by_id.values().filter(|topic| topic.queues.iter().any(|index| index.unsealed() > 0))
    }

    /// Writes the mark of each of them.
    pub(super) fn write_marks(&self, now: Millis, out: &mut PartWriter) {
        self.unsealed_topics().for_each(|topic| TopicMarks::write_row(topic.id, topic.received_bytes, now, out));
    }

    /// Whether the rows of a part say what the queues have in memory.
    pub(super) fn fit(&mut self, part: &Part) -> Result<(), PartError> {
        for row in &part.rows {
            if let Of::Queue(topic, queue) = row.of
                && let Some(index) = self.queue_of(topic, queue)?
            {
                index.fits(row, &part.entries(row))?;
            }
            if let Of::Mark(topic) = row.of
                && let Some(topic) = self.by_id.get(&topic)
            {
                // Nothing here says the same, so its checksum must.
                topic.marks.fits(row, &part.check_entries(row)?, topic.received_bytes)?;
            }
        }
        Ok(())
    }

    /// Reads what the rows of a part hold, which fit, from there.
    pub(super) fn seal(&mut self, part: &Part) {
        for row in &part.rows {
            if let Of::Queue(topic, queue) = row.of
                && let Ok(Some(index)) = self.queue_of(topic, queue)
            {
                index.seal(part, row);
            }
            if let Of::Mark(topic) = row.of
                && let Some(topic) = self.by_id.get_mut(&topic)
            {
                topic.marks.push(part.id, &part.entries(row));
                topic.forget_marks();
            }
        }
    }

    /// The same topics, as if they had received nothing.
    #[cfg(test)]
    pub(super) fn forget_received(&mut self) {
        self.by_id.values_mut().for_each(|topic| topic.received_bytes = 0);
    }

    /// The same queues with everything in memory.
    #[cfg(test)]
    pub(super) fn unseal(&mut self) {
        for topic in self.by_id.values_mut() {
            topic.queues.iter_mut().for_each(QueueIndex::unseal);
            topic.forget_marks();
        }
    }

    /// Gives the queues what lies in the parts of the snapshot.
    fn attach(&mut self, source: &SectionSource<'_>) -> Result<(), Unreadable> {
        for part in source.parts {
            for row in &part.rows {
                if let Of::Queue(topic, queue) = row.of
                    && let Some(index) = self.queue_of(topic, queue).map_err(|why| why.of(part.id))?
                {
                    index.attach(part, row, source.whole)?;
                }
                if let Of::Mark(topic) = row.of
                    && let Some(topic) = self.by_id.get_mut(&topic)
                {
                    let entry = part.checked_entries(row)?;
                    topic.marks.fits(row, &entry, topic.received_bytes).map_err(|why| why.of(part.id))?;
                    topic.marks.push(part.id, &entry);
                }
            }
        }
        for topic in self.by_id.values_mut() {
            if source.whole {
                topic.queues.iter().try_for_each(QueueIndex::check_attached)?;
            }
            topic.forget_marks();
        }
        Ok(())
    }

    /// Queues that read from a part read from these bytes of it from now on.
    pub(super) fn read_from(&mut self, part: &Part) {
        for row in &part.rows {
            if let Of::Queue(topic, queue) = row.of
                && let Ok(Some(index)) = self.queue_of(topic, queue)
            {
                index.read_from(part, row);
            }
        }
    }

    /// Stretches of queues that are lost with their parts.
    pub(super) fn gaps(&self) -> Vec<QueueGap> {
        self.stretches(QueueIndex::gaps)
    }

    /// Stretches of queues that lie in a part.
    pub(super) fn stretches_of(&self, part: u64) -> Vec<QueueGap> {
        self.stretches(|index| index.stretch_of(part).into_iter().collect())
    }

    fn stretches(&self, find: impl Fn(&QueueIndex) -> Vec<Range<QueueOffset>>) -> Vec<QueueGap> {
        let mut found = Vec::new();
        for topic in self.by_id.values() {
            for (queue, index) in (0..).zip(&topic.queues) {
                found.extend(find(index).into_iter().map(|offsets| QueueGap { topic: topic.id, queue, offsets }));
            }
        }
        found
    }
}
