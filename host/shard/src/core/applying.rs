//! From committed entries to the state: the one place where it changes.

use vouch_broker::NotDone;
use vouch_broker::record::{Frame, Record};
use vouch_broker::state::{Effect, Outcome, RecordAt};
use vouch_commitlog::LogPosition;
use vouch_consensus::{Replica, Role};
use vouch_leader::{Leader, Outside};
use vouch_storage::Committed;

use super::answers::refused;
use super::written::Holds;
use super::{Claim, Command, Core};
use crate::group::LogNames;

impl Core {
    /// Everything up to this index is committed: applies it, and tells everybody whom it concerns. Whoever waits hears of
    /// it after everything that was in the same entries is applied, and after what it changed is forgotten elsewhere.
    pub(super) fn apply_up_to(&mut self, committed: u64, outside: &dyn Outside) {
        let (mut answers, mut refused_in_memory) = (Vec::new(), 0);
        let (mut leads, mut index) = (false, None);
        while let Some(entry) = self.written.pop_front_if(|entry| entry.id.index <= committed) {
            #[cfg(any(test, feature = "testing"))]
            let entry = self.at_the_time_of_the_clock(entry);
            self.applied = entry.end;
            self.applied_time = self.applied_time.max(entry.time);
            index = Some(entry.id.index);
            let effects = self.effects.len();
            let proposals = match entry.holds {
                Holds::Proposals(_, proposals) => proposals,
                Holds::Records(position, records) => {
                    let at = RecordAt { position, time: entry.time };
                    if let Err(defect) = self.apply_proposal(at, &records) {
                        return self.poison(defect.to_string());
                    }
                    Vec::new()
                }
            };
            leads |= self.begins_term(entry.id.index);
            for (position, proposal) in proposals {
                let at = RecordAt { position, time: entry.time };
                let outcomes = self.apply_proposal(at, &proposal.records);
                if proposal.claim == Claim::RoomInMemory {
                    refused_in_memory += refused(&outcomes);
                }
                if let Some(leader) = &mut self.leader {
                    leader.settled(&proposal.records, outcomes.as_deref().ok().and_then(<[Outcome]>::first));
                }
                answers.push((proposal.told, proposal.cost, outcomes));
            }
            if !self.follow_members(entry.role, effects) {
                return;
            }
            if let Some(why) = self.is_outgrown() {
                return self.is_too_old(why);
            }
        }
        if refused_in_memory > 0 {
            // Those who sent them heard that they are accepted.
            tracing::warn!(refused_in_memory, "messages that were acknowledged in memory were not stored");
            self.commands.push_back(Command::RefusedInMemory(refused_in_memory));
        }
        if let Some(replica) = &mut self.replica {
            replica.applied(committed);
            if replica.is_alone() && !self.keeps_names {
                // Nobody else asks for them.
                replica.forget(committed);
            }
        }
        self.take_effects();
        self.hand_out_committed(committed);
        self.receive_joined(outside);
        for (told, cost, outcomes) in answers {
            self.answer(told, cost, outcomes);
        }
        if let Some(index) = index {
            self.commands.push_back(Command::Applied(Committed { index, position: self.applied }));
            self.make_named();
        }
        if leads {
            self.lead(outside);
        }
        self.begin_as_a_member();
    }

    /// Keeps the names of entries from now on, for members that are to come.
    pub(super) fn keep_names(&mut self, tell: Box<dyn FnOnce(LogPosition) + Send>) {
        self.keeps_names = true;
        let begin = self.replica.as_ref().map(|replica| LogPosition(replica.before_end()));
        begin.map(tell).unwrap_or_default();
    }

    /// Where they do not end where those begin that are known, somebody else was quicker, or a snapshot covers some since: whoever
    /// needs them looks in [`super::GroupStanding::names_from`], and asks again.
    pub(super) fn learn_names(&mut self, names: LogNames, done: Box<dyn FnOnce() + Send>) {
        let LogNames { before, before_end, entries } = names;
        let end = entries.back().map_or(before_end.0, |last| last.end);
        if let Some(replica) = self.replica.as_mut().filter(|replica| replica.before_end() == end) {
            replica.learn(before, before_end.0, entries);
        }
        self.commands.push_back(Command::Done(done));
    }

    /// What was leased by entries that are committed now is handed out.
    fn hand_out_committed(&mut self, committed: u64) {
        while self.handing_out.pop_front_if(|index| *index <= committed).is_some() {
            self.hand_out();
        }
    }

    /// Whether the entry with this index is the first of the term that this replica leads: then it has applied all that was in
    /// the log before.
    fn begins_term(&mut self, index: u64) -> bool {
        let role = self.replica.as_ref().map(Replica::role);
        let begins = self.closed.is_none() && matches!(role, Some(Role::Leads { since }) if since.index == index);
        if begins {
            self.leader = Some(Leader::of(&self.state));
            self.leads_from = Some(self.now.at);
        }
        begins
    }

    fn apply_proposal(&mut self, mut at: RecordAt, mut records: &[u8]) -> Result<Vec<Outcome>, NotDone> {
        let mut outcomes = Vec::with_capacity(1);
        while !records.is_empty() {
            let defect = |why| {
                let version = &self.state.cluster().last_version;
                NotDone::Unknown(format!(
                    "a record of the log, written by Vouch {version} or a later one, cannot be read: {why}"
                ))
            };
            let (frame, rest) = Frame::split(records).map_err(defect)?;
            let record = Record::decode(&frame).map_err(defect)?;
            let effects = self.effects.len();
            let outcome = self.state.apply(at, &record, &mut self.effects);
            let had_effects = self.effects.len() > effects;
            self.news.tell(&self.state, &record, &outcome, self.now.at);
            self.note_leap(&record, at.time);
            if let Record::SnapshotNamed(named) = &record {
                self.note_named(named);
            }
            if let Some(leader) = &mut self.leader
                && leader.applied(&self.state, &record, had_effects)
            {
                self.commands.push_back(Command::ChecksChanged);
            }
            outcomes.push(outcome);
            at.position = at.position.plus(frame.record_len().into());
            records = rest;
        }
        Ok(outcomes)
    }

    fn take_effects(&mut self) {
        if self.effects.iter().any(|effect| matches!(effect, Effect::Members | Effect::Nodes)) {
            self.commands.push_back(Command::MembersChanged);
        }
        if self.effects.contains(&Effect::Secrets) {
            self.commands.push_back(Command::SecretsChanged);
        }
        let effects = self.effects.drain(..);
        let changed = match &mut self.leader {
            Some(leader) => leader.take_effects(&self.state, effects),
            None => vouch_leader::Changed::of(effects),
        };
        if changed.checks {
            self.commands.push_back(Command::ChecksChanged);
        }
        if changed.bindings {
            self.commands.push_back(Command::BindingsChanged);
        }
        if changed.directory {
            self.commands.push_back(Command::DirectoryChanged);
        }
    }

    /// Receives that waited for a record go on; where nothing is written any more they hear why.
    fn receive_joined(&mut self, outside: &dyn Outside) {
        if self.closed.is_none() {
            self.lead_on(outside, Leader::receive_joined);
        }
    }
}
