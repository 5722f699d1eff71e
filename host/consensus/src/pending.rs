//! What was written and is not known to be durable, and what may be said only when it is.

use std::collections::VecDeque;

use crate::{EntryId, GroupMessage, Said};

/// Entries of one step, and the messages that rely on them.
struct Pending {
    /// By which the crate knows the step.
    number: u64,
    /// The last entry of it; `None`: it has none.
    last: Option<EntryId>,
    messages: Vec<GroupMessage>,
    /// Entries of it were cut off before they were durable.
    cut: bool,
}

/// Steps in their order. One counts as durable when its entries are and all steps before it count: so an answer to entries that
/// came before, or a vote that was given in the knowledge of them, waits for them.
#[derive(Default)]
pub(crate) struct Steps {
    pending: VecDeque<Pending>,
}

impl Steps {
    pub(crate) fn push(&mut self, number: u64, last: Option<EntryId>, messages: Vec<GroupMessage>) {
        self.pending.push_back(Pending { number, last, messages, cut: false });
    }

    /// What is behind this index was cut off: nobody may hear any more that it was appended.
    pub(crate) fn cut(&mut self, behind: u64) {
        for step in &mut self.pending {
            if step.last.is_some_and(|last| last.index > behind) {
                step.cut = true;
            }
            step.messages.retain(|message| match &message.body {
                Said::Appended(appended) => appended.rejected.is_some() || appended.index <= behind,
                _ => true,
            });
        }
    }

    /// The next step that counts, given that everything up to this index is durable.
    pub(crate) fn pop_durable(&mut self, durable: u64) -> Option<(u64, Vec<GroupMessage>)> {
        let step = self.pending.pop_front_if(|step| step.cut || step.last.is_none_or(|last| last.index <= durable))?;
        Some((step.number, step.messages))
    }
}
