//! Consumer groups with their progress.

use std::collections::{BTreeMap, VecDeque};

use super::filters::{Crowd, NoFilterRoom, check_room};
use super::leaps::Now;
use super::progress::Progress;
use super::snapshot::{SectionSource, Snapshot, Unreadable};
use crate::record::codec::{DecodeError, Reader, Writer};
use crate::{GroupConfig, GroupId, Millis, QueueOffset, Refusal, ResourceName, TagFilter, TopicId};

/// Most groups in a cluster.
pub const GROUPS_MAX: usize = 100_000;
/// Most groups that receives made, so that operators find room for theirs whatever names consumers come with.
pub const MADE_GROUPS_MAX: usize = 50_000;
/// Most of those that never finished a message, and so go by themselves.
pub const UNUSED_GROUPS_MAX: usize = 10_000;
/// How long a group that a receive made, and that never finished a message, stays without a session.
pub const UNUSED_MS: u64 = 24 * 60 * 60 * 1000;

/// How long a group without a session keeps what it has not consumed (ruling 13).
pub const PIN_MS: u64 = 7 * 24 * 60 * 60 * 1000;
/// Gaps of a group that are remembered, the latest.
pub const GAPS_MAX: usize = 100;

/// Messages that a group had a right to and that retention took: recorded, because nothing leaves in silence (CT-2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The topic's life.
    pub topic: TopicId,
    /// The queue.
    pub queue: u32,
    /// First offset that the group misses.
    pub from: QueueOffset,
    /// Where the queue begins since.
    pub to: QueueOffset,
    /// How many of the messages between them the group had not finished.
    pub messages: u64,
    /// When it was recorded.
    pub at: Millis,
}

/// One consumer group.
#[derive(Debug)]
pub struct Group {
    /// Its life.
    pub id: GroupId,
    /// Its name.
    pub name: ResourceName,
    /// Its settings.
    pub config: GroupConfig,
    /// Log position of the record that last changed the settings.
    pub revision: u64,
    /// When the log last showed that somebody of the group lives.
    pub seen: Millis,
    /// Messages that it missed, ever.
    pub missed: u64,
    /// A receive made it, and no operator set it since.
    pub made_by_receive: bool,
    /// Since a receive made it, it finished a message: one was acknowledged, or moved to its dead letters.
    pub used: bool,
    gaps: VecDeque<Gap>,
    progress: BTreeMap<TopicId, Progress>,
    /// Tags in its filters.
    filter_tags: usize,
}

impl Group {
    /// Progress on a topic; `None` if the group never received from it.
    pub fn progress(&self, topic: TopicId) -> Option<&Progress> {
        self.progress.get(&topic)
    }

    /// What it missed lately, the latest last.
    pub fn gaps(&self) -> impl DoubleEndedIterator<Item = &Gap> + ExactSizeIterator {
        self.gaps.iter()
    }

    /// Whether what it has not consumed must be kept for it.
    pub fn pins(&self, now: Now<'_>) -> bool {
        now.age_ms(self.seen) <= PIN_MS
    }

    /// Whether it goes by itself when nobody is there for long enough.
    pub fn is_unused(&self) -> bool {
        self.made_by_receive && !self.used
    }

    /// Whether it is to go, by what the log shows. Somebody of it may live of whom the log does not know yet: whoever
    /// proposes that it goes looks for sessions first.
    pub fn is_forgotten(&self, now: Now<'_>) -> bool {
        self.is_unused() && now.age_ms(self.seen) > UNUSED_MS
    }

    /// Progress on every topic that the group received from.
    pub fn topics(&self) -> impl Iterator<Item = (TopicId, &Progress)> {
        self.progress.iter().map(|(topic, progress)| (*topic, progress))
    }
}

/// Tags in filters that are noted, or will be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct FilterTags {
    /// Those of one group.
    pub(crate) of_group: usize,
    /// Those of all groups.
    pub(crate) of_all: usize,
}

/// All groups.
#[derive(Debug, Default)]
pub struct Groups {
    by_id: BTreeMap<GroupId, Group>,
    by_name: BTreeMap<ResourceName, GroupId>,
    last_id: u32,
    /// Those that receives made, and of these the unused.
    made: usize,
    unused: usize,
    /// Tags in all filters.
    filter_tags: usize,
}

impl Groups {
    /// The group with this name.
    pub fn named(&self, name: &ResourceName) -> Result<&Group, Refusal> {
        self.by_name.get(name).and_then(|id| self.by_id.get(id)).ok_or_else(|| Refusal::GroupNotFound(name.clone()))
    }

    /// The group with this number; `None` once it is deleted.
    pub fn get(&self, id: GroupId) -> Option<&Group> {
        self.by_id.get(&id)
    }

    /// All groups in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = &Group> {
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

    /// Groups in the order of their numbers, after this one.
    pub fn after(&self, after: Option<GroupId>) -> impl Iterator<Item = &Group> {
        use std::ops::Bound::{Excluded, Unbounded};
        self.by_id.range((after.map_or(Unbounded, Excluded), Unbounded)).map(|(_, group)| group)
    }

    /// Progress of every group on every topic, in the order of their numbers, after this one.
    pub fn progress_after(
        &self,
        after: Option<(GroupId, TopicId)>,
    ) -> impl Iterator<Item = (&Group, TopicId, &Progress)> {
        use std::ops::Bound::{Excluded, Unbounded};
        let first = after.and_then(|(group, _)| self.by_id.get(&group));
        let rest = self.after(after.map(|(group, _)| group)).map(|group| (group, Unbounded));
        let first = first.zip(after).map(|(group, (_, topic))| (group, Excluded(topic)));
        first.into_iter().chain(rest).flat_map(|(group, from)| {
            group.progress.range((from, Unbounded)).map(move |(topic, progress)| (group, *topic, progress))
        })
    }

    /// Sets what an operator says.
    pub(super) fn put(
        &mut self,
        name: &ResourceName,
        config: &GroupConfig,
        revision: u64,
        now: Millis,
    ) -> Result<bool, Refusal> {
        if let Some(group) = self.by_name.get(name).and_then(|id| self.by_id.get_mut(id)) {
            self.unused -= usize::from(group.is_unused());
            self.made -= usize::from(std::mem::take(&mut group.made_by_receive));
            group.config = config.clone();
            group.revision = revision;
            return Ok(false);
        }
        self.create(name, config, revision, now, false).map(|()| true)
    }

    /// Makes a group that a receive named.
    pub(super) fn make(
        &mut self,
        name: &ResourceName,
        config: &GroupConfig,
        revision: u64,
        now: Millis,
    ) -> Result<(), Refusal> {
        let too_many = |text| Err(Refusal::TooMany(text));
        if self.unused >= UNUSED_GROUPS_MAX {
            return too_many(format!(
                "{UNUSED_GROUPS_MAX} groups that receives made have never acknowledged a message; they go a day after \
                 their last session, or delete some; or make this one with: vouch group create {name}"
            ));
        }
        if self.made >= MADE_GROUPS_MAX {
            return too_many(format!(
                "receives have made {MADE_GROUPS_MAX} groups already; delete some, or make this one with: vouch group \
                 create {name}"
            ));
        }
        self.create(name, config, revision, now, true)?;
        self.made += 1;
        self.unused += 1;
        Ok(())
    }

    fn create(
        &mut self,
        name: &ResourceName,
        config: &GroupConfig,
        revision: u64,
        now: Millis,
        made_by_receive: bool,
    ) -> Result<(), Refusal> {
        if self.by_id.len() >= GROUPS_MAX {
            return Err(Refusal::TooMany(format!("there are {GROUPS_MAX} groups already; delete one first")));
        }
        self.last_id += 1;
        let id = GroupId(self.last_id);
        self.by_name.insert(name.clone(), id);
        let group = Group {
            id,
            name: name.clone(),
            config: config.clone(),
            revision,
            seen: now,
            missed: 0,
            made_by_receive,
            used: false,
            gaps: VecDeque::new(),
            progress: BTreeMap::new(),
            filter_tags: 0,
        };
        self.by_id.insert(id, group);
        Ok(())
    }

    /// The group finished a message.
    pub(super) fn note_used(&mut self, group: GroupId) {
        if let Some(group) = self.by_id.get_mut(&group).filter(|group| group.is_unused()) {
            group.used = true;
            self.unused -= 1;
        }
    }

    /// Whether a group that has so many filters on a topic may have this one too, beside others on their way with so many
    /// tags.
    pub(crate) fn check_filter_room(
        &self,
        group: &Group,
        filters: usize,
        on_their_way: FilterTags,
        filter: &TagFilter,
    ) -> Result<(), NoFilterRoom> {
        let of_group = group.filter_tags + on_their_way.of_group;
        check_room(Crowd { filters, of_group, of_all: self.filter_tags + on_their_way.of_all }, filter)
    }

    /// Notes what a member asks for; one that is there already stays.
    pub(super) fn note_filter(&mut self, group: GroupId, topic: TopicId, filter: &TagFilter) -> Result<(), Refusal> {
        let of_all = self.filter_tags;
        let (of_group, progress) = self.filtering_mut(group, topic)?;
        if progress.filters().contains(filter) {
            return Ok(());
        }
        // A group's share of all tags is looked at before a record is proposed, and only then: logs hold groups that had more
        // before there was that bound, and what was noted then is noted again whenever such a log is read.
        check_room(Crowd { filters: progress.filters().len(), of_group: 0, of_all }, filter)?;
        progress.note_filter(filter.clone());
        *of_group += filter.weight();
        self.filter_tags += filter.weight();
        Ok(())
    }

    /// The group goes on without these filters.
    pub(super) fn drop_filters(
        &mut self,
        group: GroupId,
        topic: TopicId,
        filters: &[TagFilter],
    ) -> Result<(), Refusal> {
        let (of_group, progress) = self.filtering_mut(group, topic)?;
        let dropped =
            filters.iter().filter(|filter| progress.drop_filter(filter)).map(TagFilter::weight).sum::<usize>();
        *of_group -= dropped;
        self.filter_tags -= dropped;
        Ok(())
    }

    /// Somebody of the group lives.
    pub(super) fn see(&mut self, group: GroupId, now: Millis) {
        if let Some(group) = self.by_id.get_mut(&group) {
            group.seen = group.seen.max(now);
        }
    }

    /// No group could show in the last so many ms that it lives, so they are not held against any: each counts as seen so
    /// much later.
    pub(super) fn forgive(&mut self, ms: u64, now: Millis) {
        self.by_id.values_mut().for_each(|group| group.seen = group.seen.plus_ms(ms).min(now).max(group.seen));
    }

    /// Groups count as seen now if their snapshot does not say when they were: one from before retention.
    pub(super) fn see_unknown(&mut self, now: Millis) {
        for group in self.by_id.values_mut().filter(|group| group.seen == Millis::NEVER) {
            group.seen = now;
        }
    }

    /// What is counted: groups that receives made, the unused of them, and tags in filters.
    #[cfg(test)]
    pub(super) fn counts(&self) -> (usize, usize, usize) {
        (self.made, self.unused, self.filter_tags)
    }

    /// Tags in the filters of a group.
    #[cfg(test)]
    pub(super) fn filter_tags_of(&self, group: GroupId) -> usize {
        self.by_id[&group].filter_tags
    }

    #[cfg(test)]
    pub(super) fn see_all(&mut self, now: Millis) {
        self.by_id.values_mut().for_each(|group| group.seen = now);
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.by_id.len()
    }

    /// Offsets below which no group has a right to anything that it has not finished: the wanted ones, or less.
    pub(super) fn without_pinned(&self, topic: TopicId, starts: &mut [(u32, QueueOffset)], now: Now<'_>) {
        let pinning = self.by_id.values().filter(|group| group.pins(now)).filter_map(|group| group.progress(topic));
        for progress in pinning {
            for (queue, start) in &mut *starts {
                *start = (*start).min(progress.floor(*queue));
            }
        }
    }

    /// Queues of a topic begin at these offsets now: what groups had not finished below is a gap of theirs. Returns how
    /// many messages all of them miss.
    pub(super) fn skip(&mut self, topic: TopicId, starts: &[(u32, QueueOffset)], at: Millis) -> u64 {
        let mut missed = 0;
        for group in self.by_id.values_mut() {
            let Some(progress) = group.progress.get_mut(&topic) else { continue };
            for (queue, to) in starts {
                let (queue, to, from) = (*queue, *to, progress.floor(*queue));
                let messages = progress.skip_to(queue, to);
                if messages > 0 {
                    missed += messages;
                    group.missed += messages;
                    group.gaps.push_back(Gap { topic, queue, from, to, messages, at });
                    if group.gaps.len() > GAPS_MAX {
                        group.gaps.pop_front();
                    }
                }
            }
        }
        missed
    }

    pub(super) fn delete(&mut self, id: GroupId) {
        if let Some(group) = self.by_id.remove(&id) {
            self.by_name.remove(&group.name);
            self.unused -= usize::from(group.is_unused());
            self.made -= usize::from(group.made_by_receive);
            self.filter_tags -= group.filter_tags;
        }
    }

    /// Begins the group's progress on a topic; one that is there already stays.
    pub(super) fn join(
        &mut self,
        group: GroupId,
        topic: TopicId,
        make: impl FnOnce(&GroupConfig) -> Progress,
    ) -> Result<(), Refusal> {
        let Some(Group { progress, config, .. }) = self.by_id.get_mut(&group) else {
            return Err(Refusal::NotFound("the group was deleted; receive again to make it anew".to_owned()));
        };
        progress.entry(topic).or_insert_with(|| make(config));
        Ok(())
    }

    /// Progress that a handle or lease refers to.
    pub(super) fn progress_mut(&mut self, group: GroupId, topic: TopicId) -> Result<&mut Progress, Refusal> {
        self.filtering_mut(group, topic).map(|(_, progress)| progress)
    }

    /// Tags in the filters of a group, and its progress on a topic.
    fn filtering_mut(&mut self, group: GroupId, topic: TopicId) -> Result<(&mut usize, &mut Progress), Refusal> {
        let group = self.by_id.get_mut(&group);
        group
            .and_then(|group| Some((&mut group.filter_tags, group.progress.get_mut(&topic)?)))
            .ok_or(Refusal::InvalidHandle("its group or topic was deleted"))
    }

    pub(super) fn forget_topic(&mut self, topic: TopicId) {
        for group in self.by_id.values_mut() {
            let Some(progress) = group.progress.remove(&topic) else { continue };
            let forgotten = progress.filters().weight();
            group.filter_tags -= forgotten;
            self.filter_tags -= forgotten;
        }
    }
}

impl Snapshot for Groups {
    const SECTION: u16 = 3;
    const VERSION: u8 = 3;

    fn write(&self, w: &mut Writer<'_>, _: u8) {
        let Self { by_id, by_name: _, last_id, made: _, unused: _, filter_tags: _ } = self;
        w.u32(*last_id);
        w.varint(by_id.len() as u64);
        by_id.values().for_each(|group| write_group(w, group));
    }

    fn read(r: &mut Reader<'_>, source: &SectionSource<'_>) -> Result<Self, Unreadable> {
        let mut groups = Groups { last_id: r.u32("last group")?, ..Groups::default() };
        for _ in 0..r.count("groups")? {
            let (id, name, config) = (GroupId(r.u32("group")?), r.name("group name")?, r.json("group settings")?);
            let revision = r.u64("revision")?;
            let (seen, missed, gaps) = match source.version {
                1 => (Millis::NEVER, 0, VecDeque::new()),
                _ => (Millis(r.u64("seen")?), r.u64("missed")?, r.list("gaps", read_gap)?.into()),
            };
            let (made_by_receive, used) = match source.version {
                // Nobody knows any more who made it: it stays.
                1 | 2 => (false, false),
                _ => (r.flag("made by a receive")?, r.flag("used")?),
            };
            let read = |r: &mut Reader<'_>| Ok((TopicId(r.u32("topic")?), Progress::read(r, source.version)?));
            let progress: BTreeMap<_, _> = r.list("progress", read)?.into_iter().collect();
            let filter_tags = progress.values().map(|progress| progress.filters().weight()).sum();
            let group =
                Group { id, name, config, revision, seen, missed, made_by_receive, used, gaps, progress, filter_tags };
            groups.made += usize::from(group.made_by_receive);
            groups.unused += usize::from(group.is_unused());
            groups.filter_tags += filter_tags;
            groups.by_name.insert(group.name.clone(), group.id);
            groups.by_id.insert(group.id, group);
        }
        Ok(groups)
    }
}

fn write_group(w: &mut Writer<'_>, group: &Group) {
    let Group { id, name, config, revision, seen, missed, made_by_receive, used, gaps, progress, filter_tags: _ } =
        group;
    w.u32(id.0);
    w.name(name);
    w.json(config);
    w.u64(*revision);
    w.u64(seen.0);
    w.u64(*missed);
    w.varint(gaps.len() as u64);
    gaps.iter().for_each(|gap| write_gap(w, gap));
    w.u8(u8::from(*made_by_receive));
    w.u8(u8::from(*used));
    w.varint(progress.len() as u64);
    for (topic, progress) in progress {
        w.u32(topic.0);
        progress.write(w);
    }
}

fn write_gap(w: &mut Writer<'_>, gap: &Gap) {
    let Gap { topic, queue, from, to, messages, at } = gap;
    w.u32(topic.0);
    w.u32(*queue);
    for number in [from.0, to.0, *messages, at.0] {
        w.u64(number);
    }
}

fn read_gap(r: &mut Reader<'_>) -> Result<Gap, DecodeError> {
    Ok(Gap {
        topic: TopicId(r.u32("topic")?),
        queue: r.u32("queue")?,
        from: QueueOffset(r.u64("first offset")?),
        to: QueueOffset(r.u64("last offset")?),
        messages: r.u64("messages")?,
        at: Millis(r.u64("recorded at")?),
    })
}
