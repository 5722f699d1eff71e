//! What becomes of proposals, this leader's own and others', and what that means for those who wait.

use vouch_broker::record::{
    DeadLetter, DeadLetterSized, Frame, Record, Settled, SettledHead, changes_binding, changes_delivery,
};
use vouch_broker::state::{Effect, Outcome};
use vouch_broker::{NotDone, NothingStored, State};

use crate::{Batch, Leader, Turn};

/// What the effects of records mean outside of this crate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changed {
    /// Topics or groups are others than before: what is remembered of them is to be forgotten.
    pub directory: bool,
    /// A check may be due earlier than was known, or a binding changed, or a secret that one may name.
    pub checks: bool,
    /// A binding changed, or a secret that one may name.
    pub bindings: bool,
}

impl Changed {
    /// What these effects mean where nobody leads, and hence nobody waits.
    pub fn of(effects: impl IntoIterator<Item = Effect>) -> Self {
        let mut changed = Self::default();
        for effect in effects {
            changed.directory |= matches!(effect, Effect::Directory);
            changed.bindings |= matches!(effect, Effect::Plugins | Effect::Secrets);
            changed.checks |= changed.bindings || matches!(effect, Effect::CheckDue(..));
        }
        changed
    }
}

/// Those of some framed records that change a group's progress or a binding: they must be held, and released.
fn held_records(mut records: &[u8]) -> impl Iterator<Item = Record> {
    std::iter::from_fn(move || {
        while !records.is_empty() {
            let (frame, rest) = Frame::split(records).ok()?;
            records = rest;
            if changes_delivery(frame.kind()) || changes_binding(frame.kind()) {
                return Record::decode(&frame).ok();
            }
        }
        None
    })
}

/// Whether a message that was to become a dead letter is done for its group: it may be in other hands instead.
fn is_done(state: &State, letter: &DeadLetter) -> bool {
    let progress = state.groups().get(letter.group).and_then(|group| group.progress(letter.topic));
    progress.is_none_or(|progress| progress.exception(letter.queue, letter.offset).is_none())
}

impl Leader {
    /// These framed records are on their way to the log: what they will change is not handed out meanwhile, and decides
    /// nothing.
    pub fn proposed(&mut self, records: &[u8]) {
        for record in held_records(records) {
            self.reservations.hold(&record);
            self.rebinding.hold(&record);
        }
    }

    /// Records that were [`Self::proposed`] did not get into the log. Whoever waits for what they would have done hears why,
    /// or looks again later.
    pub fn unproposed(&mut self, records: &[u8], why: &NotDone) {
        for record in held_records(records) {
            self.reservations.abandon(&record);
            self.rebinding.release(&record);
            if let Record::Lease(lease) = &record {
                self.unleased.push((lease.generation, why.clone()));
                self.unserved.insert((lease.topic, lease.group));
            }
        }
        for poll in self.polls.joined(records) {
            self.answer(poll, Err(why.clone()));
        }
    }

    /// Whether the log took the last entry with records.
    pub fn log_took(&mut self, took: bool) {
        self.log_refuses = !took;
    }

    /// What it wanted so far goes to the log now: closes the group of messages that are leased by that. Returns whether there
    /// are any to [`Self::hand_out`] when it is there.
    pub fn seal_deliveries(&mut self) -> bool {
        if self.deliveries.is_empty() {
            if self.sealed.is_empty() {
                // Of leases that handed nothing out: nobody asks what became of them.
                self.unleased.clear();
            }
            return false;
        }
        self.sealed.push_back(std::mem::take(&mut self.deliveries));
        true
    }

    /// All that the first sealed group needs is written, or was refused: hands its messages out. `closed`: nothing is written
    /// any more.
    pub fn hand_out(&mut self, closed: Option<&NothingStored>) {
        for (poll, batch) in self.sealed.pop_front().unwrap_or_default() {
            let refused = self.unleased.iter().find(|(generation, _)| *generation == batch.generation);
            let answer = match (closed, refused) {
                (Some(why), _) => Err(why.clone().into()),
                // Without its lease a batch would be handed to the next consumer as well.
                (None, Some((_, refusal))) => Err(refusal.clone()),
                (None, None) => Ok(Some(batch)),
            };
            self.answer(poll, answer);
        }
        if self.sealed.is_empty() && self.deliveries.is_empty() {
            self.unleased.clear();
        }
    }

    /// It leads no more: answers everybody who waits, those as well whose leases are on their way.
    pub fn end(&mut self, why: &NothingStored) {
        self.answer_all(|| Err(why.clone().into()));
        self.sealed.push_back(std::mem::take(&mut self.deliveries));
        while !self.sealed.is_empty() {
            self.hand_out(Some(why));
        }
    }

    /// The consumer went away before it got its messages: they become visible at once, uncounted.
    pub fn not_taken(&mut self, turn: &Turn<'_>, batch: &Batch) {
        for message in &batch.messages {
            let change = vouch_broker::record::ChangeInvisible {
                group: batch.group,
                topic: batch.topic,
                queue: message.queue,
                offset: message.offset,
                generation: batch.generation,
                new_generation: turn.outside.new_generation(turn.time),
                deadline: turn.time,
                uncounted: true,
            };
            self.propose(|out| change.encode(out));
        }
    }

    /// A record was applied, and is on its way no more. `had_effects`: it changed what somebody waits for. Returns whether it
    /// changed whom to ask about transactions.
    pub fn applied(&mut self, state: &State, record: &Record, had_effects: bool) -> bool {
        self.reservations.release(record);
        self.rebinding.release(record);
        if let Record::DeadLetter(letter)
        | Record::DeadLetterSized(DeadLetterSized { letter, .. })
        | Record::Settled(Settled { head: SettledHead::DeadLetter(DeadLetterSized { letter, .. }), .. }) = record
            && had_effects
            && is_done(state, letter)
        {
            *self.dead_letters.of(letter.group) += 1;
        }
        self.schedule.applied(record, state)
    }

    /// Everything of a proposal is applied: the receives that waited for it look again, or learn why it was refused.
    pub fn settled(&mut self, records: &[u8], outcome: Option<&Outcome>) {
        let refusal = outcome.and_then(|outcome| outcome.as_ref().err());
        let polls = self.polls.joined(records).into_iter();
        self.joined.extend(polls.map(|poll| (poll, refusal.cloned().map(NotDone::from))));
    }

    /// What was applied had these effects: wakes whom they concern.
    pub fn take_effects(&mut self, state: &State, effects: impl IntoIterator<Item = Effect>) -> Changed {
        let (mut arrived, mut changed) = (Vec::new(), Changed::default());
        for effect in effects {
            match effect {
                Effect::Available(topic) => self.polls.wake_all(topic),
                Effect::Arrived(topic, tag) => {
                    if self.polls.any_on(topic) {
                        arrived.push((topic, tag));
                    }
                }
                Effect::AvailableTo(group, topic) => self.wake_group(state, group, topic),
                Effect::VisibleAt(group, topic, at) => {
                    let name = state.groups().get(group).map(|group| &group.name);
                    if name.is_some_and(|name| self.polls.any_of(topic, name)) {
                        self.polls.wake_at(at, topic, group);
                    }
                }
                // Who waits for a join waits for its record.
                Effect::Joined => {}
                Effect::Directory => changed.directory = true,
                Effect::CheckDue(topic, at) => {
                    self.schedule.due_changed(topic, at);
                    changed.checks = true;
                }
                Effect::Plugins | Effect::Secrets => (changed.checks, changed.bindings) = (true, true),
                // The group's own, and nobody's who receives or is asked.
                Effect::Members | Effect::Nodes => {}
            }
        }
        self.polls.wake_for(arrived);
        if changed.directory {
            self.reservations.retain_living(state);
        }
        changed
    }
}
