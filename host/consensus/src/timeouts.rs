//! How long a follower waits for its leader before it asks for votes: drawn at random, so that two seldom ask at once; by numbers
//! that are handed in, so that a seed repeats a run.

use raft::RawNode;

use crate::view::LogView;

/// Draws a number below the one given, all with the same likelihood.
pub type Draw = Box<dyn FnMut(u64) -> u64 + Send>;

/// Draws time-outs.
pub(crate) struct Timeouts {
    draw: Draw,
    /// The least, in ticks; the greatest is one less than twice that.
    least: usize,
    /// What was drawn last, for the role and term that the replica had then.
    drawn: usize,
    /// The crate draws anew when one of these changes.
    since: (u64, raft::StateRole, u64),
}

impl Timeouts {
    pub(crate) fn new(draw: Draw, least: usize) -> Self {
        Self { draw, least, drawn: 0, since: (0, raft::StateRole::Follower, u64::MAX) }
    }

    /// Puts ours in the place of what the crate may have drawn from randomness that nobody can repeat. After each call of it:
    /// it draws in one call and looks at what it drew in a later one.
    pub(crate) fn replace(&mut self, raw: &mut RawNode<LogView>) {
        let now = (raw.raft.term, raw.raft.state, raw.raft.leader_id);
        if self.since != now {
            self.since = now;
            self.drawn = self.least + (self.draw)(self.least as u64) as usize;
        }
        if raw.raft.randomized_election_timeout() != self.drawn {
            raw.raft.set_randomized_election_timeout(self.drawn);
        }
    }
}
