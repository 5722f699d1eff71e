//! Positions that the log names for snapshots. Whoever leads names one when a snapshot of its own is due, and every replica makes one there.
//!
//! # To ensure correctness
//! - A position that should be named is forgotten only when one is named: whoever is asked for it may lose its place before, and the
//!   next leader names it then. One too many does no harm.
//! - What a replica had at a named position is told by whoever leads next time. That one may be wrong itself, so nobody gives up for its
//!   word. A replica is told to when a majority of the voters is known to have had one thing, and it another: then it takes part in
//!   nothing more, since what it would answer, or hand out as a leader, is not what the others know.
//! - Another version may write the same state in other bytes: what it tells is not held against anything. Who leads says what it runs
//!   before all else.

use std::time::{Duration, Instant};

use vouch_broker::record::{SealedAt, SnapshotNamed};
use vouch_commitlog::LogPosition;
use vouch_storage::VERSION;

use super::{Command, Core};

/// One that was proposed is in the log by then, or is not coming.
const AGAIN_AFTER: Duration = Duration::from_secs(5);
/// Of so many positions a leader tells at most, the newest ones: who is further behind finds out later.
const MOST_TOLD: usize = 16;

/// What a replica knows of it.
#[derive(Default)]
pub(super) struct Naming {
    /// A position should be named.
    due: bool,
    /// When one was proposed that is not applied yet.
    proposed: Option<Instant>,
    /// What this replica had at positions of which nobody told yet.
    sealed: Vec<SealedAt>,
    /// The last position that was named by what is applied now, and what was told with those.
    named: Option<(LogPosition, Vec<SealedAt>)>,
}

impl Core {
    /// A snapshot is due here: the log should name a position for it.
    pub(super) fn should_name(&mut self) {
        self.naming.due = true;
        self.name_if_due();
    }

    /// Names a position if that is due, and it may be written.
    pub(super) fn name_if_due(&mut self) {
        let waits = |at: Instant| self.now.at < at + AGAIN_AFTER;
        let may = self.writes() && !self.stopping && self.state.cluster().names_snapshots();
        if !self.naming.due || !may || self.naming.proposed.is_some_and(waits) {
            return;
        }
        self.naming.proposed = Some(self.now.at);
        let named = SnapshotNamed { sealed: self.naming.sealed.clone() };
        self.propose_own(|out| named.encode(out));
    }

    /// What this replica had at these positions, ascending.
    pub(super) fn sealed(&mut self, sealed: Vec<SealedAt>) {
        let known = &mut self.naming.sealed;
        known.extend(sealed);
        let beyond = known.len().saturating_sub(MOST_TOLD);
        known.drain(..beyond);
    }

    /// A record that names a position was applied, of the entry that is the last one now.
    pub(super) fn note_named(&mut self, named: &SnapshotNamed) {
        let Naming { due, proposed, sealed, named: noted } = &mut self.naming;
        (*due, *proposed) = (false, None);
        sealed.retain(|own| named.sealed.iter().all(|told| told.position != own.position));
        let (position, told) = noted.get_or_insert_default();
        *position = self.applied;
        if self.state.cluster().last_version == VERSION {
            told.extend_from_slice(&named.sealed);
        }
    }

    /// Lets a snapshot be made where the log named a position, in what was applied now.
    pub(super) fn make_named(&mut self) {
        if let Some((position, told)) = self.naming.named.take() {
            self.commands.push_back(Command::SnapshotNamed(position, told));
        }
    }

    /// A majority of the voters had one thing at a position, and this replica another.
    pub(super) fn differs(&mut self, what: &str) {
        #[cfg(any(test, feature = "testing"))]
        if crate::bugs::injected(crate::bugs::Lapse::DifferenceIgnored) {
            return;
        }
        if self.closed.is_none() {
            let why = format!(
                "this node does not know what the others know: {what}; let a new node take its place (`vouch cluster replace`, at another \
                 node), and keep this one's folder until that votes. Check the memory of this machine: see cluster.md"
            );
            tracing::error!(why, "this replica takes part in nothing any more");
            self.goes_on_no_more(why);
        }
    }
}
