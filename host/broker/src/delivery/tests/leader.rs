//! A leader as a node runs one: what it proposes is applied later, in the order of the log, or is lost.

use std::collections::VecDeque;

use crate::delivery::{Demand, Noting, Picks, Reservations, noting, pick};
use crate::record::{DeadLetter, DeadLetterSized, FilterNoted, FiltersGone, Record};
use crate::state::Outcome;
use crate::testing::{RecordLog, read_snapshot, replay};
use crate::{
    Generation, GroupConfig, GroupId, Millis, QueueOffset, RecordPosition, State, TagFilter, TagHash, TopicId,
};

/// Deliveries that a message gets.
pub(super) const MAX_ATTEMPTS: u32 = 3;
/// How long a lease lasts.
pub(super) const LEASE_MS: u64 = 60_000;

pub(super) struct Leader {
    pub(super) log: RecordLog,
    pub(super) topic: TopicId,
    pub(super) group: GroupId,
    pub(super) now: Millis,
    /// Proposed and not applied, with the leader's time of each.
    pub(super) in_flight: VecDeque<(Millis, Record)>,
    reservations: Reservations,
    generation: Generation,
}

impl Leader {
    pub(super) fn new(queues: u32) -> Self {
        let mut log = RecordLog::new();
        let topic = log.topic("t", queues);
        let group = log.member("g", topic, GroupConfig { max_attempts: MAX_ATTEMPTS, ..GroupConfig::default() });
        let (now, reservations) = (log.now, Reservations::default());
        Self { log, topic, group, now, in_flight: VecDeque::new(), reservations, generation: Generation::NONE }
    }

    pub(super) fn next_generation(&mut self) -> Generation {
        self.generation.0 += 1;
        self.generation
    }

    pub(super) fn propose(&mut self, record: Record) {
        self.reservations.hold(&record);
        self.in_flight.push_back((self.now, record));
    }

    /// The log did not take a record, though it takes later ones.
    pub(super) fn lose(&mut self, at: usize) {
        let (_, record) = self.in_flight.remove(at).expect("a record in flight");
        self.reservations.abandon(&record);
    }

    /// The next record comes back from the log.
    pub(super) fn apply(&mut self) -> Option<(Millis, Record, Outcome)> {
        let (time, record) = self.in_flight.pop_front()?;
        self.log.now = time;
        let outcome = self.log.apply(record.clone());
        self.reservations.release(&record);
        Some((time, record, outcome))
    }

    /// The node goes down with everything that is in flight, and comes up with what the log says.
    pub(super) fn restart(&mut self) {
        self.in_flight.clear();
        self.reservations = Reservations::default();
        let half = self.log.records.len() / 2;
        let bytes = replay(State::default(), &self.log.records[..half]).snapshot(RecordPosition(0));
        let (_, state) = read_snapshot(&bytes).expect("a snapshot just written");
        self.log.state = replay(state, &self.log.records[half..]);
    }

    /// Proposes what must be noted before anything is picked.
    pub(super) fn note(&mut self, filter: &TagFilter) {
        let (group, topic) = (self.group, self.topic);
        match noting(&self.log.state, &self.reservations, (group, topic), filter) {
            Noting::Noted => {}
            Noting::New => self.propose(Record::FilterNoted(FilterNoted { group, topic, filter: filter.clone() })),
            Noting::Refused(no_room) => panic!("three filters are too many: {no_room:?}"),
        }
    }

    /// Nobody had this filter for long enough.
    pub(super) fn let_go(&mut self, filter: &TagFilter) {
        let (group, topic, filters) = (self.group, self.topic, vec![filter.clone()]);
        self.propose(Record::FiltersGone(FiltersGone { group, topic, filters }));
    }

    /// Whether the group has a filter for this tag, or will have one.
    pub(super) fn wants(&self, tag: TagHash) -> bool {
        let noted = self.in_flight.iter().any(|(_, record)| match record {
            Record::FilterNoted(noted) => noted.filter.matches(tag),
            _ => false,
        });
        noted || self.log.progress(self.group, self.topic).filters().iter().any(|filter| filter.matches(tag))
    }

    /// What a member gets now; nothing is proposed yet.
    pub(super) fn pick(&mut self, filter: &TagFilter, max: usize) -> Picks {
        let generation = self.next_generation();
        let wanted = Demand {
            group: self.group,
            topic: self.topic,
            filter,
            max,
            now: self.now,
            generation,
            deadline: self.now.plus_ms(LEASE_MS),
            renewed_for: None,
        };
        pick(&self.log.state, &mut self.reservations, &wanted)
    }

    pub(super) fn dead_letter(&mut self, queue: u32, offset: QueueOffset, generation: Generation) {
        let (group, topic, reason) = (self.group, self.topic, String::new());
        let letter = DeadLetter { group, topic, queue, offset, generation, reason };
        self.propose(Record::DeadLetterSized(DeadLetterSized { letter, record_len: 1 }));
    }
}
