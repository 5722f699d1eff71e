//! Receives: what a poll gets, what it waits for, and the groups that come into being with their first one.

use std::sync::atomic::Ordering;
use std::time::Instant;

use vouch_broker::delivery::{Noting, Wanted, filters, is_noted, noting, pick};
use vouch_broker::record::{DeadLetter, DeadLetterSized, FilterNoted, GroupMade, Join, Lease};
use vouch_broker::state::{FILTERS_MAX, Outcome};
use vouch_broker::{GroupConfig, GroupId, Millis, NotDone, NothingStored, Refusal, TagFilter, TopicId};

use super::executor::Executor;
use super::inbox::{Claim, Proposal};
use super::polls::{Batch, LineNumber, POLLS_MAX, Poll};
use vouch_storage as storage;

/// Work for receives in one turn of the executor, about a millisecond or two; the rest waits for the next turn, after what
/// else there is to do: many who wait for one topic do not hold up those who write to another.
pub(super) const TURN_WORK: usize = 32_768;
/// What one look for messages costs, in places looked at.
const SCAN_COST: usize = 32;

/// What became of a receive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Served {
    /// It got messages, or an answer of another kind, or nobody waits for it any more.
    Answered,
    /// There was nothing for it.
    Waits,
}

impl Executor {
    pub(super) fn receive(&mut self, poll: Poll) {
        if poll.reply.is_closed() {
            return;
        }
        if let Some(refusal) = &self.closed {
            return drop(poll.reply.send(Err(refusal.clone().into())));
        }
        let topic = match self.state.topics().named(&poll.topic) {
            Ok(topic) => topic.id,
            Err(refusal) => return drop(poll.reply.send(Err(refusal.into()))),
        };
        let group = self.state.groups().named(&poll.group).ok();
        if group.is_none_or(|group| group.progress(topic).is_none()) {
            return self.join(poll, topic);
        }
        // What comes now does not take all of the turn from those that wait for theirs.
        let most = if self.polls.any_ready() { TURN_WORK / 2 } else { TURN_WORK };
        if self.work < most {
            self.serve(poll, topic, false);
        } else if self.polls.len() >= POLLS_MAX {
            refuse_too_many(poll);
        } else {
            let line = self.polls.wait(topic, poll, false);
            self.polls.make_ready(line);
        }
    }

    /// Lets the group come into being and join the topic; the receive goes on when that is in the log.
    fn join(&mut self, poll: Poll, topic: TopicId) {
        let mut records = Vec::new();
        match self.state.groups().named(&poll.group) {
            Ok(group) => Join { group: group.id, topic }.encode(&mut records),
            Err(_) => {
                let config = GroupConfig::default();
                GroupMade { name: poll.group.clone(), config }.encode(&mut records)
            }
        };
        if self.polls.len() >= POLLS_MAX {
            return refuse_too_many(poll);
        }
        if self.polls.wait_to_join(records.clone(), poll) {
            self.propose(Proposal { records, reply: None, cost: 0, claim: Claim::Reserve });
        }
    }

    /// A proposal is applied: the receives that waited for it look again, or learn why it was refused.
    pub(super) fn note_joined(&mut self, records: &[u8], outcome: Option<&Outcome>) {
        let refusal = outcome.and_then(|outcome| outcome.as_ref().err());
        self.joined
            .extend(self.polls.joined(records).into_iter().map(|poll| (poll, refusal.cloned().map(NotDone::from))));
    }

    pub(super) fn receive_joined(&mut self) {
        for (poll, refusal) in std::mem::take(&mut self.joined) {
            match refusal {
                // Refused because somebody else made the group meanwhile: that is as good, and the join is next.
                Some(NotDone::Refused(Refusal::PreconditionFailed(_))) | None => self.receive(poll),
                Some(refusal) => drop(poll.reply.send(Err(refusal))),
            }
        }
    }

    /// Gives a receive what is there, or lets it wait: behind the others like it, or where it stood.
    fn serve(&mut self, poll: Poll, topic: TopicId, stood_first: bool) -> Served {
        let now = self.shared.clock.now();
        let Ok(group) = self.state.groups().named(&poll.group).map(|group| group.id) else {
            self.receive(poll);
            return Served::Answered;
        };
        if let Err(refusal) = self.note_filters(&poll, group, topic) {
            let _ = poll.reply.send(Err(refusal));
            return Served::Answered;
        }
        let wanted = Wanted {
            group,
            topic,
            filter: &poll.filter,
            max: poll.max,
            now,
            generation: self.shared.clock.generation(now),
            deadline: now.plus_ms(poll.invisible_ms),
            renewed_for: poll.auto_renew.then_some(poll.client_id.as_str()),
        };
        let picks = pick(&self.state, &mut self.reservations, &wanted);
        self.work += SCAN_COST + picks.looked_at;
        self.shared.scans.fetch_add(1, Ordering::Relaxed);
        let (generation, deadline) = (wanted.generation, wanted.deadline);
        for (queue, offset, generation) in &picks.exhausted {
            let reason = "it was delivered as often as the group allows".to_owned();
            let (queue, offset, generation) = (*queue, *offset, *generation);
            let letter = DeadLetter { group, topic, queue, offset, generation, reason };
            let record_len = self.record_len(topic, queue, offset);
            self.propose_own(|out| DeadLetterSized { letter, record_len }.encode(out));
        }
        if let Some(lease) = &picks.lease {
            self.propose_own(|out| Lease::encode(lease, out));
        }
        if !picks.messages.is_empty() {
            let batch = Batch { topic, group, messages: picks.messages, generation, deadline };
            self.deliveries.push((poll, batch));
            return Served::Answered;
        }
        // Where the log takes nothing the scan would stop at the same place again.
        let more = picks.more && !self.log_refuses;
        self.wait_for_messages(poll, topic, (now, stood_first), more)
    }

    /// Bytes of a message's record, whose length is the first thing that it says; 0 where it cannot be read, which whoever
    /// reads the message will say.
    fn record_len(&self, topic: TopicId, queue: u32, offset: u64) -> u32 {
        let entry = self.state.topics().get(topic).and_then(|topic| topic.entry(queue, offset));
        let len =
            entry.zip(self.reader.as_ref()).and_then(|(entry, log)| storage::record_len(log, entry.position).ok());
        len.unwrap_or(0)
    }

    /// `more`: the scan stopped at its bound, and goes on in the receive's next turn, after other work.
    fn wait_for_messages(
        &mut self,
        poll: Poll,
        topic: TopicId,
        (now, stood_first): (Millis, bool),
        more: bool,
    ) -> Served {
        if poll.until <= Instant::now() && !more {
            let _ = poll.reply.send(Ok(None));
            return Served::Answered;
        }
        if self.polls.len() >= POLLS_MAX {
            refuse_too_many(poll);
            return Served::Answered;
        }
        if let Ok(group) = self.state.groups().named(&poll.group) {
            let next = group.progress(topic).and_then(|progress| progress.due_from(now.plus_ms(1)).next());
            if let Some((at, _, _)) = next {
                self.polls.wake_at(at, topic, group.id);
            }
            if self.log_refuses {
                self.unserved.insert((topic, group.id));
            }
        }
        let line = self.polls.wait(topic, poll, stood_first);
        if more {
            self.polls.make_ready(line);
        }
        Served::Waits
    }

    /// Proposes the filters of the group's live members that are not noted yet, this one's first: before anything is
    /// decided for the group (ruling 12). Refused if this one's is one too many.
    fn note_filters(&mut self, poll: &Poll, group: GroupId, topic: TopicId) -> Result<(), NotDone> {
        let subject = (group, topic);
        self.absences.end(subject, &poll.filter);
        match noting(&self.state, &self.reservations, subject, &poll.filter) {
            Noting::Noted => {}
            Noting::New => {
                self.propose_own(|out| FilterNoted { group, topic, filter: poll.filter.clone() }.encode(out))
            }
            Noting::Refused(no_room) => return Err(Refusal::from(no_room).into()),
        }
        let room = FILTERS_MAX.saturating_sub(filters(&self.state, &self.reservations, subject));
        if poll.filter == TagFilter::All || room == 0 {
            // Who takes everything passes over nothing, and where no other filter has room nothing is to be done.
            return Ok(());
        }
        let mut looks = 0;
        let noted = |filter: &TagFilter| {
            looks += 1;
            is_noted(&self.state, &self.reservations, subject, filter)
        };
        let others = self.shared.sessions.unnoted_filters(&poll.group, &poll.topic, room, noted);
        self.work += looks;
        for filter in others {
            // One too many has no right to anything before its own receive is taken.
            if noting(&self.state, &self.reservations, subject, &filter) == Noting::New {
                self.propose_own(|out| FilterNoted { group, topic, filter }.encode(out));
            }
        }
        Ok(())
    }

    /// Serves lines of waiting receives that are ready, in turn, for as long as this turn has work left.
    pub(super) fn serve_ready(&mut self) {
        while self.work < TURN_WORK
            && let Some((topic, line)) = self.polls.next_ready()
        {
            self.serve_line(topic, line);
        }
    }

    /// Serves a line until the first that gets nothing: those behind it would get nothing, too.
    fn serve_line(&mut self, topic: TopicId, line: LineNumber) {
        while let Some(poll) = self.polls.take_first(line) {
            if self.serve(poll, topic, true) == Served::Waits {
                break;
            }
            if self.work >= TURN_WORK {
                self.polls.make_ready(line);
                break;
            }
        }
        self.polls.settle(line);
    }

    /// Groups for which the log did not take what was decided look again: once a second, for as long as they wait.
    pub(super) fn wake_unserved(&mut self) {
        for (topic, group) in std::mem::take(&mut self.unserved) {
            self.wake_group(group, topic);
        }
    }

    /// The consumer went away before it got its messages: they become visible at once, uncounted.
    pub(super) fn give_back(&mut self, batch: &Batch) {
        let now = self.shared.clock.now();
        for message in &batch.messages {
            let change = vouch_broker::record::ChangeInvisible {
                group: batch.group,
                topic: batch.topic,
                queue: message.queue,
                offset: message.offset,
                generation: batch.generation,
                new_generation: self.shared.clock.generation(now),
                deadline: now,
                uncounted: true,
            };
            self.propose_own(|out| change.encode(out));
        }
        self.write_batch();
    }
}

fn refuse_too_many(poll: Poll) {
    let text = format!("{POLLS_MAX} receives are waiting already; receive again later");
    let _ = poll.reply.send(Err(NotDone::NothingStored(NothingStored::TooMany(text))));
}

#[cfg(test)]
#[path = "receiving_tests.rs"]
mod tests;
