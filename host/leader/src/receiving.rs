//! Receives: what a poll gets, what it waits for, and the groups that come into being with their first one.

use vouch_broker::delivery::{Demand, Noting, filters, is_noted, noting, pick};
use vouch_broker::record::{DeadLetter, DeadLetterSized, FilterNoted, GroupMade, Join, Lease};
use vouch_broker::state::FILTERS_MAX;
use vouch_broker::{GroupConfig, GroupId, NotDone, NothingStored, Refusal, TagFilter, TopicId};

use crate::{Batch, Leader, Poll, Turn};

/// Work for receives in one turn of the shard, about a millisecond or two; the rest waits for the next turn, after what
/// else there is to do: many who wait for one topic do not hold up those who write to another.
pub(crate) const TURN_WORK: usize = 32_768;
/// What one look for messages costs, in places looked at.
pub(crate) const SCAN_COST: usize = 32;

/// What became of a receive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Served {
    /// It got messages, or an answer of another kind, or nobody waits for it any more.
    Answered,
    /// There was nothing for it.
    Waits,
}

impl Leader {
    /// A receive came: it gets what is there, or waits for it.
    pub fn receive(&mut self, turn: &Turn<'_>, poll: Poll) {
        if poll.waiter.is_gone() {
            return;
        }
        let topic = match turn.state.topics().named(&poll.topic) {
            Ok(topic) => topic.id,
            Err(refusal) => return self.answer(poll, Err(refusal.into())),
        };
        let group = turn.state.groups().named(&poll.group).ok();
        if group.is_none_or(|group| group.progress(topic).is_none()) {
            return self.join(turn, poll, topic);
        }
        // What comes now does not take all of the turn from those that wait for theirs.
        let most = if self.polls.any_ready() { TURN_WORK / 2 } else { TURN_WORK };
        if self.work < most {
            self.serve(turn, poll, topic);
        } else if let Some(lack) = self.polls.lacks(&poll) {
            self.refuse_too_many(poll, lack);
        } else {
            let line = self.polls.wait(topic, poll);
            self.polls.make_ready(line);
        }
    }

    /// Who waits under this number went away: he takes no room any more.
    pub fn gone(&mut self, number: u64) {
        self.polls.remove(number);
    }

    /// Lets the group come into being and join the topic; the receive goes on when that is in the log.
    fn join(&mut self, turn: &Turn<'_>, poll: Poll, topic: TopicId) {
        let mut records = Vec::new();
        match turn.state.groups().named(&poll.group) {
            Ok(group) => Join { group: group.id, topic, at_end: false }.encode(&mut records),
            Err(_) => {
                let config = GroupConfig::default();
                GroupMade { name: poll.group.clone(), config }.encode(&mut records)
            }
        };
        if let Some(lack) = self.polls.lacks(&poll) {
            return self.refuse_too_many(poll, lack);
        }
        if self.polls.wait_to_join(records.clone(), poll) {
            self.propose(|out| {
                out.extend_from_slice(&records);
                records.len()
            });
        }
    }

    /// Receives whose group joined its topic, or could not, go on.
    pub fn receive_joined(&mut self, turn: &Turn<'_>) {
        for (poll, refusal) in std::mem::take(&mut self.joined) {
            match refusal {
                // Refused because somebody else made the group meanwhile: that is as good, and the join is next.
                Some(NotDone::Refused(Refusal::PreconditionFailed(_))) | None => self.receive(turn, poll),
                Some(refusal) => self.answer(poll, Err(refusal)),
            }
        }
    }

    /// Gives a receive what is there, or lets it wait: behind the others like it, or where it stood.
    pub(crate) fn serve(&mut self, turn: &Turn<'_>, poll: Poll, topic: TopicId) -> Served {
        let now = turn.time;
        let Ok(group) = turn.state.groups().named(&poll.group).map(|group| group.id) else {
            self.receive(turn, poll);
            return Served::Answered;
        };
        if let Err(refusal) = self.note_filters(turn, &poll, group, topic) {
            self.answer(poll, Err(refusal));
            return Served::Answered;
        }
        let wanted = Demand {
            group,
            topic,
            filter: &poll.filter,
            max: poll.max,
            now,
            generation: turn.outside.new_generation(now),
            deadline: now.plus_ms(poll.invisible_ms),
            renewed_for: poll.auto_renew.then_some(poll.client_id.as_str()),
        };
        let picks = pick(turn.state, &mut self.reservations, &wanted);
        self.work += SCAN_COST + picks.looked_at;
        self.scans += 1;
        let (generation, deadline) = (wanted.generation, wanted.deadline);
        for (queue, offset, generation) in &picks.exhausted {
            let reason = "it was delivered as often as the group allows".to_owned();
            let (queue, offset, generation) = (*queue, *offset, *generation);
            let letter = DeadLetter { group, topic, queue, offset, generation, reason };
            let entry = turn.state.topics().get(topic).and_then(|topic| topic.entry(queue, offset));
            let record_len = entry.map_or(0, |entry| turn.outside.record_len(entry.position));
            self.propose(|out| DeadLetterSized { letter, record_len }.encode(out));
        }
        if let Some(lease) = &picks.lease {
            self.propose(|out| Lease::encode(lease, out));
        }
        if !picks.messages.is_empty() {
            let batch = Batch { topic, group, messages: picks.messages, generation, deadline };
            self.deliveries.push((poll, batch));
            return Served::Answered;
        }
        // Where the log takes nothing the scan would stop at the same place again.
        let more = picks.more && !self.log_refuses;
        self.wait_for_messages(turn, poll, topic, more)
    }

    /// `more`: the scan stopped at its bound, and goes on in the receive's next turn, after other work.
    fn wait_for_messages(&mut self, turn: &Turn<'_>, poll: Poll, topic: TopicId, more: bool) -> Served {
        if poll.until <= turn.at && !more {
            self.answer(poll, Ok(None));
            return Served::Answered;
        }
        if let Some(lack) = self.polls.lacks(&poll) {
            self.refuse_too_many(poll, lack);
            return Served::Answered;
        }
        if let Ok(group) = turn.state.groups().named(&poll.group) {
            let next = group.progress(topic).and_then(|progress| progress.due_from(turn.time.plus_ms(1)).next());
            if let Some((at, _, _)) = next {
                self.polls.wake_at(at, topic, group.id);
            }
            if self.log_refuses {
                self.unserved.insert((topic, group.id));
            }
        }
        let line = self.polls.wait(topic, poll);
        if more {
            self.polls.make_ready(line);
        }
        Served::Waits
    }

    /// Proposes the filters of the group's live members that are not noted yet, this one's first: before anything is
    /// decided for the group (ruling 12). Refused if this one's is one too many.
    fn note_filters(&mut self, turn: &Turn<'_>, poll: &Poll, group: GroupId, topic: TopicId) -> Result<(), NotDone> {
        let subject = (group, topic);
        self.absences.end(subject, &poll.filter);
        match noting(turn.state, &self.reservations, subject, &poll.filter) {
            Noting::Noted => {}
            Noting::New => self.propose(|out| FilterNoted { group, topic, filter: poll.filter.clone() }.encode(out)),
            Noting::Refused(no_room) => return Err(Refusal::from(no_room).into()),
        }
        let room = FILTERS_MAX.saturating_sub(filters(turn.state, &self.reservations, subject));
        if poll.filter == TagFilter::All || room == 0 {
            // Who takes everything passes over nothing, and where no other filter has room nothing is to be done.
            return Ok(());
        }
        let mut looks = 0;
        let mut noted = |filter: &TagFilter| {
            looks += 1;
            is_noted(turn.state, &self.reservations, subject, filter)
        };
        let others = turn.outside.members().unnoted_filters(&poll.group, &poll.topic, room, &mut noted);
        self.work += looks;
        for filter in others {
            // One too many has no right to anything before its own receive is taken.
            if noting(turn.state, &self.reservations, subject, &filter) == Noting::New {
                self.propose(|out| FilterNoted { group, topic, filter }.encode(out));
            }
        }
        Ok(())
    }

    fn refuse_too_many(&mut self, poll: Poll, lack: String) {
        self.answer(poll, Err(NotDone::NothingStored(NothingStored::TooMany(lack))));
    }
}

#[cfg(test)]
#[path = "receiving_tests.rs"]
mod tests;
