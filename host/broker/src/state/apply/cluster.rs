//! The log itself: whose it is, who opened it, and what its time did.

use super::{Applied, Apply, Effect, Outcome, RecordAt};
use crate::Refusal;
use crate::record::{
    ClusterBegunAnew, ClusterInit, Fields, LeapsBelieved, Leapt, LevelRaised, NodeStarted, SnapshotNamed,
};
use crate::state::members::ClusterMembers;
use crate::state::{Leap, State};

/// Happens once: another identity or key would make every handle and every follower of this log wrong.
impl Apply for ClusterInit {
    fn apply(&self, state: &mut State, _: RecordAt, effects: &mut Vec<Effect>) -> Outcome {
        if state.cluster.init.is_some() {
            return Err(Refusal::Conflict("the cluster has its identity already; it is made once".to_owned()));
        }
        state.cluster.init = Some(self.clone());
        state.cluster.last_version.clone_from(&self.written_by);
        effects.push(Effect::Nodes);
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

/// Membership and handle key are replaced, whatever they were: those who belonged to the cluster are strangers from here on, and
/// what they gave out after the two parted means nothing here.
impl Apply for ClusterBegunAnew {
    fn apply(&self, state: &mut State, at: RecordAt, effects: &mut Vec<Effect>) -> Outcome {
        let Self { incarnation, node, since, handle_key, written_by } = self;
        let conflict = |why: &str| Err(Refusal::Conflict(why.to_owned()));
        let Some(init) = &mut state.cluster.init else {
            return conflict("a log that is nobody's yet cannot begin anew");
        };
        if state.incarnations.had(*incarnation) {
            return conflict("the cluster had this life already");
        }
        if *node <= state.members.nodes.last {
            return conflict("a node of this id was there before; ids are used once");
        }
        init.handle_key = *handle_key;
        // Nobody else reads this log: whoever wrote this record knows its level.
        init.feature_level = init.feature_level.max(Self::LEVEL);
        state.cluster.last_version.clone_from(written_by);
        state.incarnations.begin((*since).min(at.position), *incarnation);
        state.members = ClusterMembers::of_one(*node);
        effects.extend([Effect::Members, Effect::Nodes]);
        Ok(Applied::Done)
    }
}

/// It only goes up: what was written meanwhile stays in the log.
impl Apply for LevelRaised {
    fn apply(&self, state: &mut State, _: RecordAt, effects: &mut Vec<Effect>) -> Outcome {
        let Some(init) = &mut state.cluster.init else {
            return Err(Refusal::Conflict("a log that is nobody's yet has no feature level".to_owned()));
        };
        if self.level <= init.feature_level {
            let is = init.feature_level;
            return Err(Refusal::Conflict(format!("the cluster is at feature level {is} already")));
        }
        init.feature_level = self.level;
        state.cluster.last_version.clone_from(&self.written_by);
        effects.push(Effect::Nodes);
        Ok(Applied::Done)
    }
}

/// It changes nothing: it is its place that counts, for those who make snapshots.
impl Apply for SnapshotNamed {
    fn apply(&self, _: &mut State, _: RecordAt, _: &mut Vec<Effect>) -> Outcome {
        Ok(Applied::Done)
    }
}
