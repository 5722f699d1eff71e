//! How the members of a group change.

use std::collections::BTreeSet;

use crate::{GroupMembers, NodeId};

/// Members that a group may have. More voters make each write wait for more disks, and no write safer than seven do.
pub const MEMBERS_MAX: usize = 32;

/// One step from some members to others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MembersChange {
    /// These are to be the members. Where that changes more than one of them, both sets of voters decide until
    /// [`Self::Finish`].
    To {
        /// Those whose majority decides; one at least.
        voters: BTreeSet<NodeId>,
        /// Those who get the log and decide nothing.
        learners: BTreeSet<NodeId>,
    },
    /// The voters of before decide no more.
    Finish,
}

/// Why members do not change. Nothing is changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChangeRefused {
    /// Wait for the change that is under way, then try again.
    #[error("a change of the members is under way; wait until it is over, and try again")]
    UnderWay,
    /// There is nothing to do.
    #[error("no change of the members is under way that could be finished")]
    NothingToFinish,
    /// There is nothing to do.
    #[error("these are the members already")]
    NoChange,
    /// Name at least one voter.
    #[error("no voter would be left; name at least one that stays")]
    NoVoter,
    /// Name each node once.
    #[error("node {0} cannot vote and only listen at once; name it once")]
    Twice(NodeId),
    /// Remove some first.
    #[error("a cluster has at most {MEMBERS_MAX} members, these are {0}; remove some first")]
    TooMany(usize),
}

impl GroupMembers {
    /// The members after this step. A pure function: all replicas come to the same ones.
    ///
    /// # Errors
    /// The step does not fit: see [`ChangeRefused`].
    pub fn after(&self, change: &MembersChange) -> Result<Self, ChangeRefused> {
        match change {
            MembersChange::Finish if !self.is_joint() => Err(ChangeRefused::NothingToFinish),
            MembersChange::Finish => Ok(Self {
                voters: self.voters.clone(),
                outgoing: BTreeSet::new(),
                learners: self.learners.union(&self.learners_next).copied().collect(),
                learners_next: BTreeSet::new(),
            }),
            MembersChange::To { voters, learners } => self.changed_to(voters, learners),
        }
    }

    fn changed_to(&self, voters: &BTreeSet<NodeId>, learners: &BTreeSet<NodeId>) -> Result<Self, ChangeRefused> {
        let count = voters.len() + learners.len();
        if self.is_joint() {
            return Err(ChangeRefused::UnderWay);
        }
        if (voters, learners) == (&self.voters, &self.learners) {
            return Err(ChangeRefused::NoChange);
        }
        if voters.is_empty() {
            return Err(ChangeRefused::NoVoter);
        }
        if let Some(node) = voters.intersection(learners).next() {
            return Err(ChangeRefused::Twice(*node));
        }
        if count > MEMBERS_MAX {
            return Err(ChangeRefused::TooMany(count));
        }
        let (voters, learners) = (voters.clone(), learners.clone());
        if self.nodes_that_differ(&voters, &learners) == 1 {
            return Ok(Self { voters, learners, ..Self::default() });
        }
        // Who votes among those of before becomes a learner when they decide no more.
        let (learners_next, learners) = learners.into_iter().partition(|node| self.voters.contains(node));
        Ok(Self { voters, outgoing: self.voters.clone(), learners, learners_next })
    }

    /// How many nodes come, go, or change between voting and listening.
    fn nodes_that_differ(&self, voters: &BTreeSet<NodeId>, learners: &BTreeSet<NodeId>) -> usize {
        let differ = |node: &&NodeId| {
            (self.voters.contains(node), self.learners.contains(node))
                != (voters.contains(node), learners.contains(node))
        };
        let nodes: BTreeSet<_> = self.voters.iter().chain(&self.learners).chain(voters).chain(learners).collect();
        nodes.into_iter().filter(differ).count()
    }
}
