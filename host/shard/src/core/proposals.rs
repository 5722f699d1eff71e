//! From proposals to entries: what waits, what is with the log, what is written.

use vouch_broker::{Millis, NotDone, NothingStored};
use vouch_commitlog::{AppendError, Appended, EntryHeader, EntryKind, LogPosition, Shortage};
use vouch_consensus::EntryId;
use vouch_leader::Outside;

use super::answers::{in_memory, short_of, why_not_appended};
use super::entry_role::role_of;
use super::members::changes_members;
use super::written::{Holds, WrittenEntry};
use super::{Claim, Command, Core, EntryToAppend, Hearer, Proposal, ToWrite};

/// Payload of one log entry stays below this where it can: a bigger entry delays those behind it.
const ENTRY_TARGET: usize = 1 << 20;

impl Core {
    /// Takes a proposal for the next entry, or says why not.
    pub(super) fn propose(&mut self, proposal: Proposal) {
        if let Some(why) = self.why_closed() {
            return self.answer(proposal.told, proposal.cost, Err(why.into()));
        }
        if let Some(refusal) = self.above_the_level(&proposal.records) {
            return self.answer(proposal.told, proposal.cost, Err(refusal.into()));
        }
        if proposal.claim != Claim::Reserve
            && let Some(shortage) = self.shortage()
        {
            let refusal = short_of(
                shortage,
                format!(
                    "the log finds no {shortage} to grow, and what is left of it is for ends and acknowledgements; nothing was \
                     stored, {} and try again",
                    shortage.remedy()
                ),
            );
            return self.answer(proposal.told, proposal.cost, Err(refusal.into()));
        }
        if let Some(leader) = &mut self.leader {
            leader.proposed(&proposal.records);
        }
        self.batch.push(proposal);
    }

    /// The same for what the leader proposes itself, and holds already.
    pub(super) fn propose_held(&mut self, proposal: Proposal) {
        match self.why_closed() {
            Some(why) => self.unpropose(proposal, why.into()),
            None => self.batch.push(proposal),
        }
    }

    /// Proposes a record of the broker's own.
    pub(super) fn propose_own(&mut self, encode: impl FnOnce(&mut Vec<u8>) -> usize) {
        let mut records = Vec::new();
        encode(&mut records);
        self.propose(Proposal { records, told: Hearer::Nobody, cost: 0, claim: Claim::Reserve });
    }

    /// Why nothing can be written, if so.
    fn why_closed(&self) -> Option<NothingStored> {
        let leads = self.leader.is_some();
        #[cfg(any(test, feature = "testing"))]
        let leads = leads || self.slot_of_a_follower().is_some();
        self.closed.clone().or_else(|| (!leads).then(|| self.not_leading()))
    }

    /// Lets what was proposed be written, and then what it leased be handed out.
    pub(super) fn write_batch(&mut self) {
        // A leap that is still to be written covers what came before as well as records do that follow.
        let leaps = self.to_write.iter().any(|next| matches!(next, ToWrite::Leap(..)));
        self.write_mark(leaps || !self.batch.is_empty());
        let mut batch = std::mem::take(&mut self.batch).into_iter().peekable();
        while batch.peek().is_some() {
            if let Some(change) = batch.next_if(changes_members) {
                self.to_write.push_back(ToWrite::Members(change));
                continue;
            }
            let mut len = 0;
            let mut proposals = Vec::new();
            let fits = |len: usize, next: &Proposal| len == 0 || len + next.records.len() <= ENTRY_TARGET;
            while let Some(next) = batch.next_if(|next| fits(len, next) && !changes_members(next)) {
                len += next.records.len();
                proposals.push(next);
            }
            self.to_write.push_back(ToWrite::Records(proposals));
        }
        if let Some(leader) = &mut self.leader
            && leader.seal_deliveries()
        {
            self.to_write.push_back(ToWrite::HandOut);
        }
    }

    /// Lets the mark that was proposed be written, unless records follow at once: these cover what came before as well.
    pub(super) fn write_mark(&mut self, records_follow: bool) {
        if self.marks.take(records_follow) {
            self.to_write.push_back(ToWrite::Mark);
        }
    }

    /// Gives the log its next entry, unless it has one.
    pub(super) fn write_next(&mut self) {
        while !self.at_the_log
            && let Some(next) = self.to_write.pop_front()
        {
            match next {
                ToWrite::Records(proposals) => self.write_entry(EntryKind::Records, proposals, self.time()),
                ToWrite::Members(change) => self.write_members(change),
                ToWrite::Leap(leap, to) => self.write_entry(EntryKind::Records, vec![leap], to),
                ToWrite::Mark => self.write_entry(EntryKind::Mark, Vec::new(), self.time()),
                ToWrite::HandOut => match self.hands_out_when_committed() {
                    Some(index) => self.handing_out.push_back(index),
                    None => self.hand_out(),
                },
            }
        }
    }

    /// What the first sealed group of leases needs is there, or was refused.
    pub(super) fn hand_out(&mut self) {
        if let Some(leader) = &mut self.leader {
            leader.hand_out(self.closed.as_ref());
        }
        self.take_wants();
    }

    /// Time for an entry: no earlier than that of the one before it, which may be ahead of the clock while a leap is on its
    /// way.
    pub(super) fn time(&self) -> Millis {
        self.now.time.max(self.latest)
    }

    pub(super) fn write_entry(&mut self, kind: EntryKind, proposals: Vec<Proposal>, time: Millis) {
        match (self.why_closed(), self.slot()) {
            (None, Some(slot)) => {
                let header = self.header(slot, kind, time);
                self.at_the_log = true;
                self.commands.push_back(Command::Append(EntryToAppend { header, begins: false, proposals }));
            }
            (why, _) => {
                let why = why.unwrap_or_else(|| self.not_leading());
                proposals.into_iter().for_each(|proposal| self.unpropose(proposal, why.clone().into()));
            }
        }
    }

    /// The log took an entry, or did not.
    pub(super) fn appended(
        &mut self,
        entry: EntryToAppend,
        appended: Result<Appended, AppendError>,
        outside: &dyn Outside,
    ) {
        self.at_the_log = false;
        let EntryToAppend { header, begins, proposals } = entry;
        if header.kind.holds_records()
            && let Some(leader) = &mut self.leader
        {
            leader.log_took(appended.is_ok());
        }
        match appended {
            Ok(appended) => {
                self.note_written(header, proposals, appended);
                self.tell_replica(header, begins, appended.end);
                self.decide(outside);
            }
            Err(AppendError::Poisoned(report)) => {
                self.poison(report.to_string());
                for proposal in proposals {
                    // The write may have reached the disk in part; recovery decides.
                    self.unpropose(proposal, NotDone::Unknown(format!("the commit log failed: {report}")));
                }
            }
            Err(error) if begins => {
                self.tell_begun(Err(why_not_appended(&error)));
                self.poison(format!("the first entry of a leader's term was refused: {error}"));
            }
            Err(error) => {
                if header.kind == EntryKind::Mark {
                    self.marks.refused(&error, self.now.at);
                }
                for proposal in proposals {
                    self.unpropose(proposal, why_not_appended(&error));
                }
            }
        }
    }

    /// An entry of this replica's own is in the log.
    fn tell_replica(&mut self, header: EntryHeader, begins: bool, end: LogPosition) {
        let Some(replica) = &mut self.replica else { return };
        let id = EntryId { index: header.index, term: header.term };
        #[cfg(any(test, feature = "testing"))]
        if replica.slot().is_err() && self.leader.is_none() && !begins {
            return;
        }
        if begins {
            replica.appended(id, end.0);
        } else {
            replica.proposed(id, end.0, role_of(header.kind));
        }
    }

    fn note_written(&mut self, header: EntryHeader, proposals: Vec<Proposal>, appended: Appended) {
        let time = Millis(header.leader_time_ms);
        if header.kind == EntryKind::Mark {
            self.marks.written();
        }
        assert!(time >= self.latest, "the times of entries never go back: {time:?} after {:?}", self.latest);
        self.latest = time;
        let mut position = vouch_storage::record_position(appended.payload_position);
        let mut placed = Vec::with_capacity(proposals.len());
        for mut proposal in proposals {
            let len = proposal.records.len() as u64;
            if proposal.claim == Claim::RoomInMemory {
                // What it holds of the bytes in flight is given back when it is durable.
                let told = std::mem::replace(&mut proposal.told, Hearer::Nobody);
                self.answer(told, 0, Ok(in_memory(&proposal.records)));
            }
            placed.push((position, proposal));
            position = position.plus(len);
        }
        let id = EntryId { index: header.index, term: header.term };
        self.written.push_back(WrittenEntry {
            id,
            role: role_of(header.kind),
            end: appended.end,
            time,
            holds: Holds::Proposals(self.now.at, placed),
        });
    }

    /// A proposal that was taken does not get into the log, or nobody knows whether it did.
    pub(super) fn unpropose(&mut self, proposal: Proposal, why: NotDone) {
        if let Some(leader) = &mut self.leader {
            leader.unproposed(&proposal.records, &why);
        }
        self.answer(proposal.told, proposal.cost, Err(why));
        self.take_wants();
    }

    pub(super) fn answer(
        &mut self,
        told: Hearer,
        cost: u64,
        answer: Result<Vec<vouch_broker::state::Outcome>, NotDone>,
    ) {
        match told {
            Hearer::Start => self.tell_begun(answer),
            Hearer::Nobody if cost == 0 => {}
            told => self.commands.push_back(Command::Answer { told, cost, answer }),
        }
    }

    /// Why the log cannot grow, if it has no more than what is kept for ends and acknowledgements.
    pub(super) fn shortage(&self) -> Option<Shortage> {
        let (shortage, left) = self.log.short?;
        (left < self.reserve).then_some(shortage)
    }
}
