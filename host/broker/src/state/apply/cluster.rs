//! The log itself: whose it is, who opened it, and what its time did.

use super::{Applied, Apply, Effect, Outcome, RecordAt};
use crate::Refusal;
use crate::record::{ClusterInit, LeapsBelieved, Leapt, NodeStarted};
use crate::state::{Leap, State};

/// Happens once: another identity or key would make every handle and every follower of this log wrong.
impl Apply for ClusterInit {
    fn apply(&self, state: &mut State, _: RecordAt, _: &mut Vec<Effect>) -> Outcome {
        if state.cluster.init.is_some() {
            return Err(Refusal::Conflict("the cluster has its identity already; it is made once".to_owned()));
        }
        state.cluster.init = Some(self.clone());
        state.cluster.last_version.clone_from(&self.written_by);
        Ok(Applied::Done)
    }
}

/// While no node ran nobody could be seen: it is not held against a group (ruling 13).
impl Apply for NodeStarted {
    fn apply(&self, state: &mut State, at: RecordAt, _: &mut Vec<Effect>) -> Outcome {
        state.groups.forgive(at.time.ms_since(state.cluster.clock), at.time);
        state.cluster.last_version.clone_from(&self.version);
        Ok(Applied::Done)
    }
}

/// Time that nobody lived through: not held against a group either (ruling 13).
impl Apply for Leapt {
    fn apply(&self, state: &mut State, at: RecordAt, _: &mut Vec<Effect>) -> Outcome {
        let Leapt { from, doubted } = *self;
        state.leaps.add(Leap { from, to: at.time, doubted, stamped: !doubted });
        if !doubted {
            state.groups.forgive(at.time.ms_since(from), at.time);
        }
        Ok(Applied::Done)
    }
}

/// From here on these leaps count like any time that passed.
impl Apply for LeapsBelieved {
    fn apply(&self, state: &mut State, _: RecordAt, _: &mut Vec<Effect>) -> Outcome {
        state.leaps.believe(self.to);
        Ok(Applied::Done)
    }
}
