//! What is handed out, to whom, and what is held back meanwhile.

mod bounds;
mod filters;
mod holds;
mod leader;
mod model;
mod noting;
mod oracle;
mod order;

use std::collections::BTreeSet;

use crate::delivery::{Demand, Picks, Reservations, pick};
use crate::record::{FilterNoted, FiltersGone, Record};
use crate::testing::RecordLog;
use crate::{Generation, GroupConfig, GroupId, Millis, TagFilter, TopicId};

/// A leader with one group on one topic, on which every proposed record is applied at once unless a test holds it.
struct Desk {
    log: RecordLog,
    reservations: Reservations,
    topic: TopicId,
    group: GroupId,
    generation: u64,
}

impl Desk {
    fn new(queues: u32, config: GroupConfig) -> Self {
        let mut log = RecordLog::new();
        let topic = log.topic("t", queues);
        let group = log.member("g", topic, config);
        Self { log, reservations: Reservations::default(), topic, group, generation: 0 }
    }

    /// Picks for a consumer, where the group has its filter and these others; proposes nothing.
    fn pick(&mut self, filter: &TagFilter, others: &[TagFilter], max: usize) -> Picks {
        self.filters(others.iter().chain([filter]));
        self.generation += 1;
        let wanted = Demand {
            group: self.group,
            topic: self.topic,
            filter,
            max,
            now: self.log.now,
            generation: Generation(self.generation),
            deadline: self.log.now.plus_ms(60_000),
            renewed_for: None,
        };
        pick(&self.log.state, &mut self.reservations, &wanted)
    }

    /// The group has these filters from now on, and no others.
    fn filters<'a>(&mut self, wanted: impl IntoIterator<Item = &'a TagFilter>) {
        let (group, topic) = (self.group, self.topic);
        let wanted: BTreeSet<_> = wanted.into_iter().cloned().collect();
        let Some(progress) = self.log.state.groups().get(group).and_then(|group| group.progress(topic)) else { return };
        let noted: BTreeSet<_> = progress.filters().iter().cloned().collect();
        for filter in wanted.difference(&noted).cloned() {
            self.log.apply(Record::FilterNoted(FilterNoted { group, topic, filter })).unwrap();
        }
        let filters: Vec<_> = noted.difference(&wanted).cloned().collect();
        if !filters.is_empty() {
            self.log.apply(Record::FiltersGone(FiltersGone { group, topic, filters })).unwrap();
        }
    }

    /// Picks everything for the only member.
    fn all(&mut self, max: usize) -> Picks {
        self.pick(&TagFilter::All, &[], max)
    }

    /// Proposes what was picked: it is on its way now.
    fn hold(&mut self, picks: &Picks) -> Record {
        let record = Record::Lease(picks.lease.clone().expect("something was decided"));
        self.reservations.hold(&record);
        record
    }

    /// The record comes back from the log.
    fn apply(&mut self, record: Record) {
        self.log.apply(record.clone()).unwrap();
        self.reservations.release(&record);
    }

    /// Picks, proposes and applies.
    fn take(&mut self, filter: &TagFilter, others: &[TagFilter], max: usize) -> Picks {
        let picks = self.pick(filter, others, max);
        if picks.lease.is_some() {
            let record = self.hold(&picks);
            self.apply(record);
        }
        picks
    }

    fn take_all(&mut self, max: usize) -> Picks {
        self.take(&TagFilter::All, &[], max)
    }

    fn unfinished(&self) -> u64 {
        self.log.progress(self.group, self.topic).unfinished()
    }

    fn next(&self, queue: u32) -> u64 {
        self.log.progress(self.group, self.topic).next(queue).0
    }
}

/// Queue, offset and attempt of what was picked.
fn places(picks: &Picks) -> Vec<(u32, u64, u32)> {
    picks.messages.iter().map(|m| (m.queue, m.offset.0, m.attempt)).collect()
}

/// The lease of a pick, without which nothing was decided.
fn deadline(picks: &Picks) -> Millis {
    picks.lease.as_ref().unwrap().deadline
}
