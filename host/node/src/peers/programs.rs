//! Which versions the other nodes run, as they said. A version that is older than these words says nothing, and counts as one that
//! knows feature level 1.
//!
//! # To ensure correctness
//! What a node said counts for the life in which it said so: one that was started again may run another version, and say nothing.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use vouch_cluster::NodeId;

/// What a node runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeVersion {
    /// Version of Vouch.
    pub version: String,
    /// The newest feature level that it knows.
    pub feature_level: u32,
}

/// What a node said, and in which of its lives; `None`: another node passed it on.
struct Said {
    life: Option<u64>,
    program: NodeVersion,
}

/// What the others said.
#[derive(Default)]
pub(crate) struct Programs(Mutex<BTreeMap<NodeId, Said>>);

impl Programs {
    /// A node of the cluster, or one that is to come, says what it runs.
    pub(super) fn runs(&self, node: NodeId, life: Option<u64>, program: NodeVersion) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(node, Said { life, program });
    }

    /// What a node runs that lives this life; `None`: it has not said so.
    pub(crate) fn of(&self, node: NodeId, life: u64) -> Option<NodeVersion> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(&node).filter(|said| said.life == Some(life)).map(|said| said.program.clone())
    }

    /// What a node said last, in whichever life.
    pub(super) fn last_of(&self, node: NodeId) -> Option<NodeVersion> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&node).map(|said| said.program.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_node_said_in_another_life_is_not_what_it_runs() {
        let (programs, node) = (Programs::default(), NodeId(2));
        let program = |level| NodeVersion { version: format!("0.{level}.0"), feature_level: level };
        assert_eq!((programs.of(node, 7), programs.last_of(node)), (None, None));
        programs.runs(node, None, program(1));
        assert_eq!((programs.of(node, 7), programs.last_of(node)), (None, Some(program(1))));
        programs.runs(node, Some(7), program(2));
        assert_eq!((programs.of(node, 7), programs.of(node, 8)), (Some(program(2)), None));
    }
}
