//! Nodes that die exactly between what their cores want done and the next.

use vouch_commitlog::simulated::{LOSSES, PowerLoss, Rng};
use vouch_consensus::Said;
use vouch_shard::core::Command;

/// Behind what a node may die.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Vote,
    Cut,
    AppendSpan,
    Append,
    SendVote,
    SendAppended,
    SendEntries,
    Applied,
    Answer,
    /// What is durable is noted, which is no command.
    Note,
}

/// What it may die within, too: it takes several steps of the disk.
pub(crate) const WITHIN: [Step; 3] = [Step::Cut, Step::Vote, Step::Note];

const STEPS: [Step; 10] = [
    Step::Vote,
    Step::Cut,
    Step::AppendSpan,
    Step::Append,
    Step::SendVote,
    Step::SendAppended,
    Step::SendEntries,
    Step::Applied,
    Step::Answer,
    Step::Note,
];

impl Step {
    pub(crate) fn of(command: &Command) -> Option<Self> {
        Some(match command {
            Command::SaveVote(_) => Self::Vote,
            Command::Cut { .. } => Self::Cut,
            Command::AppendSpan(_) => Self::AppendSpan,
            Command::Append(_) => Self::Append,
            Command::Applied(_) => Self::Applied,
            Command::Answer { .. } | Command::AnswerReceive(..) => Self::Answer,
            Command::Send(message, _) => match message.body {
                Said::Vote { .. } | Said::AskVote { .. } => Self::SendVote,
                Said::Appended(_) => Self::SendAppended,
                Said::Append(_) => Self::SendEntries,
                _ => return None,
            },
            _ => return None,
        })
    }
}

/// How a node is to die.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Death {
    behind: Step,
    /// So many of these come before.
    after: u64,
    /// What its disk loses; `None`: the process is killed.
    pub(crate) loss: Option<PowerLoss>,
}

impl Death {
    pub(crate) fn drawn(rng: &mut Rng) -> Self {
        let behind = STEPS[rng.below(STEPS.len() as u64) as usize];
        let loss = (!rng.chance(3)).then(|| LOSSES[rng.below(LOSSES.len() as u64) as usize]);
        // What was being written is torn.
        let loss = if WITHIN.contains(&behind) && rng.chance(2) { Some(PowerLoss::Sectors) } else { loss };
        let after = if rng.chance(2) { 0 } else { rng.below(6) };
        Self { behind, after, loss }
    }

    /// Whether it comes now, behind this.
    pub(crate) fn comes(&mut self, step: Option<Step>) -> bool {
        if step != Some(self.behind) {
            return false;
        }
        self.after = self.after.wrapping_sub(1);
        self.after == u64::MAX
    }
}
