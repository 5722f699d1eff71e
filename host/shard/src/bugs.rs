//! Mistakes that can be switched on in tests, to show that the tests would catch them. Not part of a real build: crates above
//! get at them with the feature `testing`.

use std::cell::Cell;

/// A mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lapse {
    /// A replica that does not lead covers the end of its idle log with a mark of its own.
    MarkByFollower,
    /// A replica that does not lead takes proposals.
    ProposalOfFollower,
    /// What is durable here is applied, whether it is committed or not.
    AppliedBeyondCommit,
    /// Where the leader changes, or the group does not decide in time, it is said that nothing was stored.
    LeaderChangeAsFailure,
    /// What a replica had proposed is forgotten when its entry is cut off: nobody is told.
    ProposalForgotten,
    /// Whoever asks a leader that cannot begin waits for as long as that leads.
    EarlyWaitForEver,
    /// What is applied has the time of whoever applies it.
    ApplyReadsClock,
    /// A replica that had something else than a majority at a named position goes on.
    DifferenceIgnored,
}

thread_local!(static INJECTED: Cell<Option<Lapse>> = const { Cell::new(None) });

/// Switches a mistake on in this thread, in place of the one before; `None`: none.
pub fn inject(lapse: Option<Lapse>) {
    INJECTED.set(lapse);
}

/// Whether it is switched on here.
pub(crate) fn injected(lapse: Lapse) -> bool {
    INJECTED.get() == Some(lapse)
}
