//! Parts of the index: those that are damaged or lost, and those that the state reads from now on.

use std::time::{Duration, Instant};

use vouch_broker::state::Copies;

use super::{Command, Core};

/// A part that could not be mended is tried again after this long.
const MEND_AGAIN_AFTER: Duration = Duration::from_secs(60);

impl Core {
    /// What the state was asked and cannot say any more may have been a wrong answer: nothing is built on it. A start finds
    /// what is whole, elsewhere.
    pub(super) fn stop_at_lost_parts(&mut self) {
        let lost = if self.closed.is_none() { self.state.lost_parts() } else { Vec::new() };
        if let Some(part) = lost.first().copied() {
            self.commands.push_back(Command::ClosedByDamage(lost));
            self.poison(format!("part {part} of the index is damaged in both copies; see `vouch log verify`"));
        }
    }

    /// Damage that was met in parts is mended by those who make snapshots: asked for once, and again while it is not.
    pub(super) fn tell_damaged_parts(&mut self) {
        let now = self.now.at;
        let damaged = self.state.damaged_parts();
        let is_told = |(at, told): &(Instant, Vec<u64>)| *told == damaged && now < *at + MEND_AGAIN_AFTER;
        if damaged.is_empty() {
            self.damaged_told = None;
        } else if !self.damaged_told.as_ref().is_some_and(is_told) {
            self.commands.push_back(Command::MendParts(damaged.clone()));
            self.damaged_told = Some((now, damaged));
        }
    }

    /// The state reads from now on from this part what it holds so far in memory.
    pub(super) fn adopt(&mut self, part: u64, copies: Copies) {
        if let Err(error) = self.state.adopt(part, copies) {
            // The state stays as it is: right, and larger than it need be.
            tracing::error!(%error, part, "the running state differs from its snapshot; restart the node and report this");
        }
    }

    /// Copies of a part were mended.
    pub(super) fn read_from(&mut self, part: u64, copies: Copies) {
        // What is met from now on is new.
        self.damaged_told = None;
        match self.state.read_from(part, copies) {
            Ok(()) => tracing::info!(part, "a part of the index is read from copies that are whole"),
            Err(error) => tracing::error!(%error, part, "a part of the index that was mended cannot be read"),
        }
    }
}
