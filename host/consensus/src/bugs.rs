//! Mistakes that can be switched on in tests, to show that the tests would catch them. Not part of a real build: crates above
//! get at them with the feature `testing`.

use std::cell::Cell;
use std::collections::VecDeque;

use raft::eraftpb::{Message as RaftMessage, MessageType};

use crate::{Decision, EntryId, GroupMessage};

/// A mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mistake {
    /// Messages that tell of a vote or a term go out before that is saved.
    SentBeforeSaved,
    /// Term and vote are saved when the entries of the same step are appended and the committed ones applied.
    SavedAfterApplied,
    /// A step without entries, such as the answer to a repetition, does not wait for the entries of those before it.
    EmptyStepsDoNotWait,
    /// A heartbeat says how far the group is, and not how far its follower is known to be.
    HeartbeatsSayAll,
    /// What is cut off still counts as durable.
    DurableStaysAfterACut,
    /// The first entry of a term is sent before it is in the log of its leader.
    FirstEntrySentEarly,
    /// A replica that does not lead gives names for entries.
    SlotsOfFollowers,
    /// Who led when it was taken out of the group leads on.
    LeadsOnWhenGone,
}

thread_local!(static INJECTED: Cell<Option<Mistake>> = const { Cell::new(None) });

/// Switches a mistake on in this thread, in place of the one before; `None`: none.
pub fn inject(mistake: Option<Mistake>) {
    INJECTED.set(mistake);
}

/// Whether it is switched on here.
pub(crate) fn injected(mistake: Mistake) -> bool {
    INJECTED.get() == Some(mistake)
}

/// Saves what is to be saved by the commands from `first` on later than it must be.
pub(crate) fn save_late<B>(commands: &mut VecDeque<Decision<B>>, first: usize) {
    let before: fn(&Decision<B>) -> bool = match INJECTED.get() {
        Some(Mistake::SentBeforeSaved) => |command| matches!(command, Decision::Send(_)),
        Some(Mistake::SavedAfterApplied) => |command| matches!(command, Decision::Append(_) | Decision::Commit { .. }),
        _ => return,
    };
    let save = (first..commands.len()).find(|at| matches!(commands[*at], Decision::SaveVote(_)));
    let last = (first..commands.len()).rfind(|at| before(&commands[*at]));
    if let (Some(save), Some(last)) = (save, last)
        && save < last
        && let Some(saved) = commands.remove(save)
    {
        commands.insert(last, saved);
    }
}

/// A heartbeat, with what is committed whatever its follower has.
pub(crate) fn say_all(mut message: RaftMessage, committed: u64) -> RaftMessage {
    if injected(Mistake::HeartbeatsSayAll) && message.get_msg_type() == MessageType::MsgHeartbeat {
        message.commit = committed;
    }
    message
}

/// What of the messages of a step is held until it counts; the rest is sent.
pub(crate) fn send_at_once<B>(
    commands: &mut VecDeque<Decision<B>>,
    last: Option<EntryId>,
    held: Vec<GroupMessage>,
) -> Vec<GroupMessage> {
    if last.is_some() || !injected(Mistake::EmptyStepsDoNotWait) {
        return held;
    }
    commands.extend(held.into_iter().map(Decision::Send));
    Vec::new()
}
