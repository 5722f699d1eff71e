//! Who writes a log: whoever leads its group, and nobody else (ruling 29). The only member of a group leads as soon as its
//! thread runs; what a node's start has to say is the first thing that it proposes.

use vouch_broker::record::{ClusterInit, Leapt, NodeStarted};
use vouch_broker::state::Outcome;
use vouch_broker::{Millis, NotDone};
use vouch_commitlog::EntryKind;
use vouch_consensus::EntryId;
use vouch_leader::Outside;
use vouch_storage::VERSION;

use super::{Claim, Command, Core, EntryToAppend, Hearer, Proposal};
use crate::leadership::{Begun, Lead};

impl Core {
    /// May lead from now on. The only member of a group asks for its own vote at once.
    pub(super) fn may_lead(&mut self, lead: Lead, outside: &dyn Outside) {
        if let Some(why) = &self.closed {
            let why = why.clone().into();
            return self.tell_begun(Err(why));
        }
        self.start = Some(lead);
        self.awaits_begun = true;
        if let Some(replica) = self.replica.as_mut().filter(|replica| replica.is_alone()) {
            replica.campaign();
        }
        self.decide(outside);
        self.begin_as_a_member();
    }

    /// A member of a group of several has begun when it knows whose log it is: by what it had, or by what a leader sent, up to where the
    /// cluster's life began that it belongs to: the handle key of the life before is void. It shows
    /// what it has from then on, whether anybody leads or not.
    pub(super) fn begin_as_a_member(&mut self) {
        let lives = self.start.as_ref().map(|start| start.incarnation);
        let knows = self.state.cluster().init.is_some() && lives == Some(self.state.incarnations().current());
        if self.awaits_begun && !self.is_alone() && knows {
            self.tell_begun(Ok(Vec::new()));
        }
    }

    /// It was elected: its term begins with an entry that holds nothing. When that is committed, all before it is.
    pub(super) fn begin_term(&mut self, EntryId { term, index }: EntryId) {
        let header = self.header(EntryId { term, index }, EntryKind::Records, self.time());
        self.at_the_log = true;
        self.commands.push_back(Command::Append(EntryToAppend { header, begins: true, proposals: Vec::new() }));
    }

    /// Leads: all that was in the log when its term began is applied. The first batch says what every log begins with, and that
    /// this node goes on from here; it has an entry of its own.
    pub(super) fn lead(&mut self, outside: &dyn Outside) {
        if self.latest > self.now.time {
            // The log's time goes on from its last entry, whoever wrote that: no lease is of an earlier generation than one of
            // the leader before.
            self.now.time = self.latest;
            self.commands.push_back(Command::FollowClock(self.latest));
        }
        let mut records = Vec::new();
        let start = self.start.as_mut();
        let leapt_from: Option<Millis> = start.and_then(|start| {
            if self.state.cluster().init.is_none() {
                let Lead { cluster_id, segment_size, handle_key, feature_level, .. } = *start;
                let written_by = VERSION.to_owned();
                ClusterInit { cluster_id, segment_size, handle_key, feature_level, written_by }.encode(&mut records);
            }
            start.leapt_from.take()
        });
        NodeStarted { version: VERSION.to_owned() }.encode(&mut records);
        if let Some(from) = leapt_from {
            Leapt { from, doubted: true }.encode(&mut records);
        }
        self.propose(Proposal { records, told: Hearer::Start, cost: 0, claim: Claim::Reserve });
        self.write_batch();
        for (_, request) in std::mem::take(&mut self.early) {
            self.request(request, outside);
        }
    }

    /// Tells whoever waits for the start what became of what it proposed.
    pub(super) fn tell_begun(&mut self, answer: Result<Vec<Outcome>, NotDone>) {
        let begun = match answer.map(|outcomes| outcomes.into_iter().find_map(Result::err)) {
            Err(not_done) => Err(not_done),
            Ok(Some(refusal)) => Err(refusal.into()),
            Ok(None) => self.begun(),
        };
        self.awaits_begun = false;
        self.commands.push_back(Command::TellBegun(begun));
    }

    fn begun(&self) -> Result<Begun, NotDone> {
        let init = self.state.cluster().init.clone();
        let init = init.ok_or_else(|| NotDone::internal("the log does not say whose it is"))?;
        Ok(Begun { init, applied: self.applied })
    }
}
