//! Receives: what a poll gets, what it waits for, and the groups that come into being with their first one.

use std::time::Instant;

use vouch_broker::delivery::{Wanted, pick};
use vouch_broker::record::{DeadLetter, GroupPut, Join, Lease};
use vouch_broker::state::Outcome;
use vouch_broker::{GroupConfig, Millis, Refusal, TopicId};

use super::executor::Executor;
use super::inbox::{Claim, Proposal};
use super::polls::{Batch, POLLS_MAX, Poll};

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
            return drop(poll.reply.send(Err(refusal.clone())));
        }
        let topic = match self.state.topics().named(&poll.topic) {
            Ok(topic) => topic.id,
            Err(refusal) => return drop(poll.reply.send(Err(refusal))),
        };
        let group = self.state.groups().named(&poll.group).ok();
        if group.is_none_or(|group| group.progress(topic).is_none()) {
            return self.join(poll, topic);
        }
        self.serve(poll, topic, false);
    }

    /// Lets the group come into being and join the topic; the receive goes on when that is in the log.
    fn join(&mut self, poll: Poll, topic: TopicId) {
        let mut records = Vec::new();
        match self.state.groups().named(&poll.group) {
            Ok(group) => Join { group: group.id, topic }.encode(&mut records),
            Err(_) => {
                let config = GroupConfig::default();
                GroupPut { name: poll.group.clone(), config, expected_revision: Some(0) }.encode(&mut records)
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
        self.joined.extend(self.polls.joined(records).into_iter().map(|poll| (poll, refusal.cloned())));
    }

    pub(super) fn receive_joined(&mut self) {
        for (poll, refusal) in std::mem::take(&mut self.joined) {
            match refusal {
                // Refused because somebody else made the group meanwhile: that is as good, and the join is next.
                Some(Refusal::PreconditionFailed(_)) | None => self.receive(poll),
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
        let others = match poll.filter {
            vouch_broker::TagFilter::All => Vec::new(),
            vouch_broker::TagFilter::Tags(_) => {
                self.shared.sessions.other_filters(&poll.group, &poll.topic, &poll.client_id)
            }
        };
        let wanted = Wanted {
            group,
            topic,
            filter: &poll.filter,
            others: &others,
            max: poll.max,
            now,
            generation: self.shared.clock.generation(now),
            deadline: now.plus_ms(poll.invisible_ms),
            renewed_for: poll.auto_renew.then_some(poll.client_id.as_str()),
        };
        let picks = pick(&self.state, &mut self.reservations, &wanted);
        let (generation, deadline) = (wanted.generation, wanted.deadline);
        for (queue, offset, generation) in &picks.exhausted {
            let reason = "it was delivered as often as the group allows".to_owned();
            let (queue, offset, generation) = (*queue, *offset, *generation);
            self.propose_own(|out| DeadLetter { group, topic, queue, offset, generation, reason }.encode(out));
        }
        if let Some(lease) = &picks.lease {
            self.propose_own(|out| Lease::encode(lease, out));
        }
        if !picks.messages.is_empty() {
            let batch = Batch { topic, group, messages: picks.messages, generation, deadline };
            self.deliveries.push((poll, batch));
            return Served::Answered;
        }
        if picks.more {
            // The scan stopped at its bound: go on in the next round, after other work.
            self.ready.push(topic);
        }
        self.wait_for_messages(poll, topic, now, stood_first)
    }

    fn wait_for_messages(&mut self, poll: Poll, topic: TopicId, now: Millis, stood_first: bool) -> Served {
        if poll.until <= Instant::now() && !self.ready.contains(&topic) {
            let _ = poll.reply.send(Ok(None));
            return Served::Answered;
        }
        let progress = self.state.groups().named(&poll.group).ok().and_then(|group| group.progress(topic));
        if let Some((at, _, _)) = progress.and_then(|progress| progress.due_from(now.plus_ms(1)).next()) {
            self.polls.wake_at(at, topic);
        }
        if self.polls.len() >= POLLS_MAX {
            refuse_too_many(poll);
            return Served::Answered;
        }
        self.polls.wait(topic, poll, stood_first);
        Served::Waits
    }

    /// Serves each line of waiting receives until the first that gets nothing: those behind it would get nothing, too.
    pub(super) fn serve_ready(&mut self) {
        for topic in std::mem::take(&mut self.ready) {
            for line in self.polls.lines(topic) {
                while let Some(poll) = self.polls.take_first(topic, &line) {
                    if self.serve(poll, topic, true) == Served::Waits {
                        break;
                    }
                }
            }
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
    let _ = poll.reply.send(Err(Refusal::TooMany(text)));
}
