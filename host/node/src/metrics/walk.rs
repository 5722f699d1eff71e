//! Looking through groups, topics and open transactions for what metrics show, a bounded piece in each turn of the executor.

use std::collections::{HashMap, HashSet};

use vouch_broker::state::{EntryAt, Progress, Topic};
use vouch_broker::{
    GroupId, HalfPosition, Millis, QueueOffset, RecordPosition, ResourceName, State, TopicId, TopicType,
};

use vouch_leader::Leader;
use vouch_leader::{OTHER, SERIES_MAX};

/// Work of one turn: places looked at, some tenths of a millisecond.
const TURN_WORK: usize = 4096;
/// Open transactions looked at in one refresh to find the oldest of each topic; the rest is for the next one.
const OPEN_SCAN_MAX: usize = 1 << 18;
/// Places of messages in parts that are kept for one group and topic: queues that are behind as far as each other.
const PLACES_MAX: usize = 64;

/// A group on a topic.
#[derive(Debug, Default)]
pub(super) struct PairRow {
    pub(super) group: String,
    pub(super) topic: String,
    pub(super) lag: u64,
    pub(super) in_flight: u64,
    /// Where the oldest messages lie that are not done, as far as that is known without reading.
    pub(super) oldest: Oldest,
}

/// Candidates for the oldest of some messages.
#[derive(Debug, Default)]
pub(super) struct Oldest {
    log: Option<RecordPosition>,
    /// Those in the oldest part: what lies in a part is older than what lies in a later one, or in memory.
    part: u64,
    in_part: Vec<EntryAt>,
}

impl Oldest {
    fn add(&mut self, place: EntryAt) {
        match place {
            EntryAt::Log(position) => self.log = Some(self.log.map_or(position, |known| known.min(position))),
            EntryAt::Part(part, bytes) => {
                if self.in_part.is_empty() || part < self.part {
                    self.part = part;
                    self.in_part.clear();
                }
                if part == self.part && self.in_part.len() < PLACES_MAX {
                    self.in_part.push(EntryAt::Part(part, bytes));
                }
            }
        }
    }

    /// The log position of the oldest. May read from the disk.
    pub(super) fn position(&self) -> Option<RecordPosition> {
        self.in_part.iter().filter_map(EntryAt::position).chain(self.log).min()
    }
}

/// Transactions of a topic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct TopicRow {
    pub(super) open: u64,
    pub(super) parked: u64,
    pub(super) opened_at: Option<Millis>,
}

/// For each topic an open transaction below which it has none, as earlier looks found: mostly its oldest.
pub(super) type Hints = HashMap<TopicId, HalfPosition>;

/// Where the walk is.
#[derive(Debug)]
enum WalkAt {
    /// Behind this group and topic.
    Pairs(Option<(GroupId, TopicId)>),
    /// In the middle of one whose messages in flight are counted: from this place of it on.
    Counting {
        pair: (GroupId, TopicId),
        row: Box<PairRow>,
        from: (Millis, u32, QueueOffset),
    },
    /// Behind the topic with this name.
    Topics(Option<ResourceName>),
    /// Behind this open transaction, looking for the oldest of these topics.
    Open(Option<HalfPosition>),
    End,
}

/// One look through the state. The state goes on meanwhile: a sum may miss what happened during the look.
#[derive(Debug)]
pub(super) struct Walk {
    at: WalkAt,
    now: Millis,
    pub(super) pairs: Vec<PairRow>,
    /// Lag and in flight of all groups and topics that have no row.
    pub(super) other_pairs: Option<(u64, u64)>,
    pub(super) topics: Vec<(TopicId, String, TopicRow)>,
    pub(super) other_topics: Option<TopicRow>,
    /// Topics whose oldest open transaction is not known, with their place in `topics`.
    sought: HashMap<TopicId, usize>,
    scanned: usize,
    hints: Hints,
    pub(super) dead_letters: Vec<(String, u64)>,
    pub(super) other_dead_letters: Option<u64>,
}

impl Walk {
    /// A walk that has seen nothing. `hints`: what the one before it left.
    pub(super) fn new(now: Millis, hints: Hints) -> Self {
        Self {
            at: WalkAt::Pairs(None),
            now,
            pairs: Vec::new(),
            other_pairs: None,
            topics: Vec::new(),
            other_topics: None,
            sought: HashMap::new(),
            scanned: 0,
            hints,
            dead_letters: Vec::new(),
            other_dead_letters: None,
        }
    }

    /// One turn. `true` when everything was looked at.
    pub(super) fn turn(&mut self, state: &State, leader: &mut Leader) -> bool {
        let mut work = 0;
        while work < TURN_WORK {
            work += match std::mem::replace(&mut self.at, WalkAt::End) {
                WalkAt::Pairs(after) => self.pairs(state, leader, after),
                WalkAt::Counting { pair, row, from } => self.count(state, pair, row, from, TURN_WORK - work),
                WalkAt::Topics(after) => self.topics(state, after, TURN_WORK - work),
                WalkAt::Open(after) => self.open(state, after, TURN_WORK - work),
                WalkAt::End => return true,
            };
        }
        matches!(self.at, WalkAt::End)
    }

    /// Looks at the next group and topic.
    fn pairs(&mut self, state: &State, leader: &mut Leader, after: Option<(GroupId, TopicId)>) -> usize {
        let next = state.groups().progress_after(after).next();
        let Some((group, id, progress)) = next else {
            self.dead_letters(state, leader);
            self.at = WalkAt::Topics(None);
            return 1;
        };
        let pair = (group.id, id);
        // A group's progress goes with the topic.
        let Some(topic) = state.topics().get(id) else {
            self.at = WalkAt::Pairs(Some(pair));
            return 1;
        };
        let mut row = PairRow { lag: progress.unfinished(), ..PairRow::default() };
        let has_row = self.pairs.len() < SERIES_MAX;
        for queue in 0..topic.queue_count() {
            row.lag += topic.end(queue).saturating_since(progress.next(queue));
            if has_row && let Some(place) = oldest_of(topic, progress, queue) {
                row.oldest.add(place);
            }
        }
        if has_row {
            (row.group, row.topic) = (group.name.to_string(), topic.name.to_string());
        }
        let work = 1 + topic.queue_count() as usize;
        let from = (self.now.plus_ms(1), 0, QueueOffset::FIRST);
        self.at = WalkAt::Counting { pair, row: Box::new(row), from };
        work
    }

    /// Counts what is in flight of a group on a topic, then takes the row.
    fn count(
        &mut self,
        state: &State,
        pair: (GroupId, TopicId),
        mut row: Box<PairRow>,
        from: (Millis, u32, QueueOffset),
        room: usize,
    ) -> usize {
        let progress = state.groups().get(pair.0).and_then(|group| group.progress(pair.1));
        let mut due = progress.into_iter().flat_map(|progress| progress.due_after(from)).peekable();
        let mut work = 0;
        while work < room.max(1) {
            work += 1;
            if due.next().is_none() {
                self.take(*row);
                self.at = WalkAt::Pairs(Some(pair));
                return work;
            }
            row.in_flight += 1;
        }
        self.at = match due.peek() {
            Some(next) => WalkAt::Counting { pair, row, from: *next },
            None => {
                self.take(*row);
                WalkAt::Pairs(Some(pair))
            }
        };
        work
    }

    /// Takes a row, or adds it to the rest where there are too many.
    fn take(&mut self, row: PairRow) {
        // A row without names found no room; a name that means the rest is no name.
        if row.group.is_empty() || row.group == OTHER {
            let (lag, in_flight) = self.other_pairs.get_or_insert_default();
            (*lag, *in_flight) = (*lag + row.lag, *in_flight + row.in_flight);
        } else {
            self.pairs.push(row);
        }
    }

    /// Takes what was counted of dead letters, by the names that the groups have now.
    fn dead_letters(&mut self, state: &State, leader: &mut Leader) {
        let groups = state.groups();
        leader.dead_letters.retain(|group| groups.get(*group).is_some());
        for (group, count) in leader.dead_letters.named() {
            match state.groups().get(*group).map(|group| group.name.to_string()) {
                Some(name) if name != OTHER => self.dead_letters.push((name, *count)),
                _ => *self.other_dead_letters.get_or_insert_default() += count,
            }
        }
        if let Some(count) = leader.dead_letters.rest() {
            *self.other_dead_letters.get_or_insert_default() += count;
        }
    }

    /// Looks at the next topics for transactions.
    fn topics(&mut self, state: &State, after: Option<ResourceName>, room: usize) -> usize {
        let open = state.open_transactions();
        let mut work = 0;
        for topic in state.topics().iter_after(after.as_ref()) {
            work += 1;
            if matches!(topic.config.topic_type, TopicType::Transaction | TopicType::Mixed) {
                let (count, parked) = (open.in_topic(topic.id) as u64, open.parked_in_topic(topic.id) as u64);
                let mut row = TopicRow { open: count, parked, opened_at: None };
                if self.topics.len() >= SERIES_MAX || topic.name.to_string() == OTHER {
                    let rest = self.other_topics.get_or_insert_default();
                    (rest.open, rest.parked) = (rest.open + row.open, rest.parked + row.parked);
                } else {
                    if count > 0 {
                        let known = self.hints.get(&topic.id).and_then(|oldest| open.get(*oldest));
                        row.opened_at = known.map(|open| open.opened_at);
                        if known.is_none() {
                            self.sought.insert(topic.id, self.topics.len());
                        }
                    }
                    self.topics.push((topic.id, topic.name.to_string(), row));
                }
            }
            if work >= room {
                self.at = WalkAt::Topics(Some(topic.name.clone()));
                return work;
            }
        }
        // Ids are given in ascending order, and what ended never opens again: a search goes on where the one before ended.
        let first = self.sought.keys().map(|topic| self.hints.get(topic).copied().unwrap_or(HalfPosition(0))).min();
        self.at = first.map_or(WalkAt::End, |first| WalkAt::Open(first.0.checked_sub(1).map(HalfPosition)));
        work.max(1)
    }

    /// Looks for the oldest open transaction of each topic that lacks one.
    fn open(&mut self, state: &State, after: Option<HalfPosition>, room: usize) -> usize {
        let mut work = 0;
        let mut last = after;
        for (transaction, open) in state.open_transactions().iter(after) {
            if let Some(at) = self.sought.remove(&open.topic) {
                self.topics[at].2.opened_at = Some(open.opened_at);
                self.hints.insert(open.topic, transaction);
            }
            work += 1;
            last = Some(transaction);
            if self.sought.is_empty() || work >= room {
                break;
            }
        }
        self.scanned += work;
        let more = !self.sought.is_empty() && work > 0;
        if more && self.scanned < OPEN_SCAN_MAX {
            self.at = WalkAt::Open(last);
        } else {
            // Nothing of what is still sought lies below.
            for topic in std::mem::take(&mut self.sought).into_keys() {
                self.hints.insert(topic, last.map_or(HalfPosition(0), |last| HalfPosition(last.0 + 1)));
            }
        }
        work.max(1)
    }

    /// What the next look begins with: of topics that have a row.
    pub(super) fn take_hints(&mut self) -> Hints {
        let has_row: HashSet<_> = self.topics.iter().map(|(id, ..)| *id).collect();
        let mut hints = std::mem::take(&mut self.hints);
        hints.retain(|topic, _| has_row.contains(topic));
        hints
    }
}

/// Where the oldest message of a queue that the group has not done is to be had.
fn oldest_of(topic: &Topic, progress: &Progress, queue: u32) -> Option<EntryAt> {
    let floor = progress.floor(queue).max(topic.start(queue));
    topic.entry_at(queue, floor)
}
