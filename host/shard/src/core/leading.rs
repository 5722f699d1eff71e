//! Who writes a log: whoever leads its group, and nobody else (ruling 29). A group of one is led by its only member as soon as
//! its thread runs; what a node's start has to say is the first thing that it proposes.

use vouch_broker::NotDone;
use vouch_broker::record::{ClusterInit, Leapt, NodeStarted};
use vouch_broker::state::Outcome;
use vouch_leader::Leader;
use vouch_storage::{FEATURE_LEVEL, VERSION};

use super::{Claim, Command, Core, Proposal, Told};
use crate::leadership::{Begun, Lead};

impl Core {
    /// Leads from now on: all that is in the log is applied. The first batch says what every log begins with, and that this
    /// node goes on from here; it has an entry of its own.
    pub(super) fn lead(&mut self, lead: Lead) {
        let Lead { leadership, cluster_id, segment_size, handle_key, leapt_from } = lead;
        assert!(self.written.is_empty() && self.batch.is_empty(), "who did not lead has proposed nothing");
        self.leadership = Some(leadership);
        self.leader = Some(Leader::of(&self.state));
        let mut records = Vec::new();
        if self.state.cluster().init.is_none() {
            let (feature_level, written_by) = (FEATURE_LEVEL, VERSION.to_owned());
            ClusterInit { cluster_id, segment_size, handle_key, feature_level, written_by }.encode(&mut records);
        }
        NodeStarted { version: VERSION.to_owned() }.encode(&mut records);
        if let Some(from) = leapt_from {
            Leapt { from, doubted: true }.encode(&mut records);
        }
        self.propose(Proposal { records, told: Told::Start, cost: 0, claim: Claim::Reserve });
        self.write_batch();
    }

    /// Tells whoever waits for the start what became of what it proposed.
    pub(super) fn tell_begun(&mut self, answer: Result<Vec<Outcome>, NotDone>) {
        let begun = match answer.map(|outcomes| outcomes.into_iter().find_map(Result::err)) {
            Err(not_done) => Err(not_done),
            Ok(Some(refusal)) => Err(refusal.into()),
            Ok(None) => self.begun(),
        };
        self.commands.push_back(Command::TellBegun(begun));
    }

    fn begun(&self) -> Result<Begun, NotDone> {
        let init = self.state.cluster().init.clone();
        let init = init.ok_or_else(|| NotDone::internal("the log does not say whose it is"))?;
        Ok(Begun { init, applied: self.applied })
    }
}
