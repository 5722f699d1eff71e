//! Receives that wait for messages.

mod room;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::Instant;

use vouch_broker::{GroupId, Millis, ResourceName, TagFilter, TagHash, TopicId};

use crate::poll::Poll;
use room::Room;

/// Names a line for as long as it is there.
pub(crate) type LineNumber = u64;

/// Receives of one group with one filter: a message that the first of them does not get, none of them gets.
struct Line {
    topic: TopicId,
    group: ResourceName,
    filter: TagFilter,
    /// Its receives by their numbers: in the order in which they came.
    polls: BTreeSet<u64>,
    /// It is to be served, because something came that it may want.
    ready: bool,
}

/// The lines of a topic, and which of them want what.
#[derive(Default)]
struct OnTopic {
    groups: HashMap<ResourceName, HashMap<TagFilter, LineNumber>>,
    /// Those that take everything.
    all: BTreeSet<LineNumber>,
    by_tag: HashMap<TagHash, BTreeSet<LineNumber>>,
    /// Those that are to be served, in turn.
    ready: VecDeque<LineNumber>,
}

/// Waiting receives.
#[derive(Default)]
pub(crate) struct Polls {
    /// By the numbers of those who wait.
    waiting: HashMap<u64, (LineNumber, Poll)>,
    lines: HashMap<LineNumber, Line>,
    last_line: LineNumber,
    /// What they take of the room for all.
    room: Room,
    topics: HashMap<TopicId, OnTopic>,
    /// Topics with lines to serve, in turn: many lines of one topic do not keep those of another waiting.
    ready: VecDeque<TopicId>,
    /// When each gives up.
    by_time: BTreeSet<(Instant, u64)>,
    /// When to look at a topic for a group again although nothing happened: a lease ends there. Only the first time of each:
    /// a receive that is woken in vain says the next one.
    wake_at: BTreeSet<(Millis, TopicId, GroupId)>,
    wake_of: HashMap<(TopicId, GroupId), Millis>,
    /// Receives whose group must come into being or join the topic first, by the record that does it.
    joining: HashMap<Vec<u8>, Vec<Poll>>,
}

impl Polls {
    pub(crate) fn len(&self) -> usize {
        self.room.taken()
    }

    /// Why this receive cannot wait, if it cannot.
    pub(crate) fn lacks(&self, poll: &Poll) -> Option<String> {
        self.room.lacks(poll.machine)
    }

    /// Waits behind those of its line that came before. One that waited already keeps its place.
    pub(crate) fn wait(&mut self, topic: TopicId, poll: Poll) -> LineNumber {
        let number = poll.waiter.number();
        self.room.enter(poll.machine);
        self.by_time.insert((poll.until, number));
        let line = self.line_for(topic, &poll);
        if let Some(line) = self.lines.get_mut(&line) {
            line.polls.insert(number);
        }
        self.waiting.insert(number, (line, poll));
        line
    }

    fn line_for(&mut self, topic: TopicId, poll: &Poll) -> LineNumber {
        let known = self.topics.get(&topic).and_then(|on| on.groups.get(&poll.group)?.get(&poll.filter));
        if let Some(line) = known {
            return *line;
        }
        self.last_line += 1;
        let number = self.last_line;
        let on = self.topics.entry(topic).or_default();
        match &poll.filter {
            TagFilter::All => _ = on.all.insert(number),
            TagFilter::Tags(tags) => {
                tags.iter().for_each(|tag| _ = on.by_tag.entry(*tag).or_default().insert(number));
            }
        }
        let (group, filter) = (poll.group.clone(), poll.filter.clone());
        on.groups.entry(group.clone()).or_default().insert(filter.clone(), number);
        self.lines.insert(number, Line { topic, group, filter, polls: BTreeSet::new(), ready: false });
        number
    }

    /// Forgets a line in which nobody waits.
    pub(crate) fn settle(&mut self, number: LineNumber) {
        if self.lines.get(&number).is_none_or(|line| !line.polls.is_empty()) {
            return;
        }
        let Some(Line { topic, group, filter, .. }) = self.lines.remove(&number) else { return };
        let Some(on) = self.topics.get_mut(&topic) else { return };
        if let Some(filters) = on.groups.get_mut(&group) {
            filters.remove(&filter);
            if filters.is_empty() {
                on.groups.remove(&group);
            }
        }
        match &filter {
            TagFilter::All => _ = on.all.remove(&number),
            TagFilter::Tags(tags) => {
                for tag in tags {
                    let Some(lines) = on.by_tag.get_mut(tag) else { continue };
                    lines.remove(&number);
                    if lines.is_empty() {
                        on.by_tag.remove(tag);
                    }
                }
            }
        }
        if on.groups.is_empty() {
            self.topics.remove(&topic);
        }
    }

    /// Waits for a record that is on its way into the log, however little time the receive has: it ends with the log's
    /// next group, and an answer before it would call a full topic empty. Returns whether it is the first to wait for it.
    pub(crate) fn wait_to_join(&mut self, record: Vec<u8>, poll: Poll) -> bool {
        self.room.enter(poll.machine);
        let waiting = self.joining.entry(record).or_default();
        waiting.push(poll);
        waiting.len() == 1
    }

    /// The receives that waited for this record, which happened or was refused.
    pub(crate) fn joined(&mut self, record: &[u8]) -> Vec<Poll> {
        // For nearly every record nobody waits: do not even hash it.
        if self.joining.is_empty() {
            return Vec::new();
        }
        let joined = self.joining.remove(record).unwrap_or_default();
        joined.iter().for_each(|poll| self.room.leave(poll.machine));
        joined
    }

    pub(crate) fn any_on(&self, topic: TopicId) -> bool {
        self.topics.contains_key(&topic)
    }

    pub(crate) fn any_of(&self, topic: TopicId, group: &ResourceName) -> bool {
        self.topics.get(&topic).is_some_and(|on| on.groups.contains_key(group))
    }

    // Who is to be served.

    /// Messages with these tags came: lines that want one of them are ready. What it costs follows their number, and not how
    /// many messages came.
    pub(crate) fn wake_for(&mut self, mut arrived: Vec<(TopicId, TagHash)>) {
        arrived.sort_unstable();
        arrived.dedup();
        for on_topic in arrived.chunk_by(|(topic, _), (other, _)| topic == other) {
            self.wanting(on_topic).into_iter().for_each(|line| self.make_ready(line));
        }
    }

    /// Lines that want messages with these different tags, all of one topic; those that take everything are in it once.
    fn wanting(&self, arrived: &[(TopicId, TagHash)]) -> Vec<LineNumber> {
        let Some(on) = arrived.first().and_then(|(topic, _)| self.topics.get(topic)) else { return Vec::new() };
        let tagged = arrived.iter().filter_map(|(_, tag)| on.by_tag.get(tag)).flatten();
        on.all.iter().chain(tagged).copied().collect()
    }

    /// Something may be there for this group.
    pub(crate) fn wake_group(&mut self, topic: TopicId, group: &ResourceName) {
        let Some(lines) = self.topics.get(&topic).and_then(|on| on.groups.get(group)) else { return };
        let mut lines: Vec<LineNumber> = lines.values().copied().collect();
        lines.sort_unstable();
        lines.into_iter().for_each(|line| self.make_ready(line));
    }

    /// Something may be there for any group.
    pub(crate) fn wake_all(&mut self, topic: TopicId) {
        let Some(on) = self.topics.get(&topic) else { return };
        let mut lines: Vec<LineNumber> = on.groups.values().flat_map(HashMap::values).copied().collect();
        lines.sort_unstable();
        lines.into_iter().for_each(|line| self.make_ready(line));
    }

    /// A line is to be served in its turn.
    pub(crate) fn make_ready(&mut self, number: LineNumber) {
        let Some(line) = self.lines.get_mut(&number).filter(|line| !line.ready) else { return };
        line.ready = true;
        let Some(on) = self.topics.get_mut(&line.topic) else { return };
        if on.ready.is_empty() {
            self.ready.push_back(line.topic);
        }
        on.ready.push_back(number);
    }

    pub(crate) fn any_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Takes the line whose turn it is: topics in turn, and of each its lines in turn.
    pub(crate) fn next_ready(&mut self) -> Option<(TopicId, LineNumber)> {
        while let Some(topic) = self.ready.pop_front() {
            let Some(on) = self.topics.get_mut(&topic) else { continue };
            let next = on.ready.pop_front();
            if !on.ready.is_empty() {
                self.ready.push_back(topic);
            }
            if let Some(number) = next
                && let Some(line) = self.lines.get_mut(&number)
            {
                line.ready = false;
                return Some((topic, number));
            }
        }
        None
    }

    /// Takes the first receive of a line whose caller still waits. The line stays until it is settled.
    pub(crate) fn take_first(&mut self, line: LineNumber) -> Option<Poll> {
        loop {
            let number = self.lines.get_mut(&line)?.polls.pop_first()?;
            let Some((_, poll)) = self.waiting.remove(&number) else { continue };
            self.by_time.remove(&(poll.until, number));
            self.room.leave(poll.machine);
            if !poll.waiter.is_gone() {
                return Some(poll);
            }
        }
    }

    /// Takes a receive out of its line, if it waits in one. What it costs is the same wherever it stands.
    pub(crate) fn remove(&mut self, number: u64) -> Option<Poll> {
        let (line, poll) = self.waiting.remove(&number)?;
        self.by_time.remove(&(poll.until, number));
        self.room.leave(poll.machine);
        if let Some(line) = self.lines.get_mut(&line) {
            line.polls.remove(&number);
        }
        self.settle(line);
        Some(poll)
    }

    // The clock.

    /// Looks at a topic for a group again then, or before: whoever is woken in vain must say when to look next.
    pub(crate) fn wake_at(&mut self, at: Millis, topic: TopicId, group: GroupId) {
        if self.wake_of.get(&(topic, group)).is_some_and(|first| *first <= at) {
            return;
        }
        if let Some(later) = self.wake_of.insert((topic, group), at) {
            self.wake_at.remove(&(later, topic, group));
        }
        self.wake_at.insert((at, topic, group));
    }

    /// Topics and groups whose time has come.
    pub(crate) fn awake(&mut self, now: Millis) -> Vec<(TopicId, GroupId)> {
        let mut due = Vec::new();
        while let Some((_, topic, group)) = self.wake_at.first().copied().filter(|(at, _, _)| *at <= now) {
            self.wake_at.pop_first();
            self.wake_of.remove(&(topic, group));
            due.push((topic, group));
        }
        due.sort_unstable();
        due
    }

    pub(crate) fn next_wake(&self) -> Option<Millis> {
        self.wake_at.first().map(|(at, _, _)| *at)
    }

    pub(crate) fn first_timeout(&self) -> Option<Instant> {
        self.by_time.first().map(|(until, _)| *until)
    }

    /// Receives that waited long enough. Not those of a line that is still to be served: an answer now would call a topic
    /// empty at which nobody looked.
    pub(crate) fn timed_out(&mut self, now: Instant) -> Vec<Poll> {
        let waits_for_its_turn = |number: &u64| {
            let line = self.waiting.get(number).and_then(|(line, _)| self.lines.get(line));
            line.is_some_and(|line| line.ready)
        };
        let over = self.by_time.range(..=(now, u64::MAX)).map(|(_, number)| *number);
        let over: Vec<u64> = over.filter(|number| !waits_for_its_turn(number)).collect();
        over.into_iter().filter_map(|number| self.remove(number)).collect()
    }

    /// All of them: the node stops.
    pub(crate) fn drain(&mut self) -> Vec<Poll> {
        self.lines.clear();
        self.topics.clear();
        self.ready.clear();
        self.by_time.clear();
        self.room.clear();
        let waiting = self.waiting.drain().map(|(_, (_, poll))| poll);
        waiting.chain(self.joining.drain().flat_map(|(_, polls)| polls)).collect()
    }
}

#[cfg(test)]
mod tests;
