//! What is run, and what came of it.

use std::collections::BTreeMap;
use std::fmt;

use crate::bugs::Injected;
use crate::checks::Fate;
use crate::faults::Faults;
use crate::pulling::Pulls;

/// What is run.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Decides everything.
    pub seed: u64,
    /// Voters.
    pub nodes: u64,
    /// How long things go wrong, in milliseconds of virtual time.
    pub faults_ms: u64,
    /// Clients.
    pub clients: usize,
    /// Nodes come and go.
    pub changes: bool,
    /// Some of those that come take the places of others.
    pub replaces: bool,
    /// Guests are asked about messages and transactions, and stage effects.
    pub guests: bool,
    /// Each machine lets go of its log by itself, and who lacks what is gone takes it from another one's disk. Not where there are
    /// guests.
    pub pulls: bool,
    /// Whoever leads names positions for snapshots, and what all have there is held against what it tells.
    pub names: bool,
    /// What is done wrong, if anything is.
    pub bug: Option<Injected>,
}

/// What a run was.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Milliseconds of virtual time.
    pub virtual_ms: u64,
    /// Calls of clients that were answered.
    pub calls: u64,
    /// Of those, how many were done.
    pub done: u64,
    /// What went wrong on purpose.
    pub faults: Faults,
    /// Terms with a leader.
    pub terms: u64,
    /// Files of segments that were released and became segments again.
    pub recycled: u64,
    /// Starts from a snapshot.
    pub from_snapshots: u64,
    /// What was taken from others' disks.
    pub pulls: Pulls,
    /// How often a machine held what it had at a named position against what its leader told.
    pub compared: u64,
    /// Answers of guests with something staged, by what came of them.
    pub answers: BTreeMap<Fate, u64>,
    /// Of all that happened: equal for equal runs.
    pub digest: u64,
}

/// What did not hold, and how it came to that.
#[derive(Debug)]
pub struct Failure {
    /// The run.
    pub plan: Plan,
    /// What is wrong.
    pub wrong: String,
    /// When it was found, in milliseconds of virtual time.
    pub virtual_ms: u64,
    /// The last lines of what happened.
    pub trace: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n{:?}: {}", self.trace, self.plan, self.wrong)
    }
}
