//! Questions about half messages on their way to producers, and the streams that carry them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use serde::{Deserialize, Serialize};
use vouch_broker::{ResourceName, StoredMessage, TransactionId};

/// A question about a half message, for a producer's telemetry stream.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CheckCommand {
    /// Topic of the half.
    pub topic: ResourceName,
    /// The transaction.
    pub transaction: TransactionId,
    /// The half message.
    pub half: StoredMessage,
}

/// A [`CheckCommand`] that waits to be written to one stream. Clones are the same question.
///
/// A command in a queue has asked nobody: a client that does not read may never see it. So the question itself says
/// whether it was written, and one that nobody waits for any more is never written.
#[derive(Clone, Debug)]
pub struct Question(Arc<Mutex<QuestionStage>>);

#[derive(Debug)]
enum QuestionStage {
    /// `went_out`: another node has it, and may have written it.
    Waiting {
        command: Box<CheckCommand>,
        went_out: bool,
    },
    Written(Instant),
    Withdrawn,
}

impl Question {
    /// A question that waits.
    pub fn new(command: CheckCommand) -> Self {
        Self(Arc::new(Mutex::new(QuestionStage::Waiting { command: Box::new(command), went_out: false })))
    }

    fn stage(&self) -> MutexGuard<'_, QuestionStage> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the command in order to write it now; `None` if it was withdrawn, or taken before. From this moment on the
    /// client counts as asked (ruling 1).
    pub fn take(&self) -> Option<CheckCommand> {
        let mut stage = self.stage();
        if !matches!(*stage, QuestionStage::Waiting { .. }) {
            return None;
        }
        match std::mem::replace(&mut *stage, QuestionStage::Written(Instant::now())) {
            QuestionStage::Waiting { command, .. } => Some(*command),
            QuestionStage::Written(_) | QuestionStage::Withdrawn => None,
        }
    }

    /// The command, if it waits, for another node that is to write it. From now on its client may answer, and does not count as
    /// asked before that node says so.
    pub(crate) fn go_out(&self) -> Option<CheckCommand> {
        match &mut *self.stage() {
            QuestionStage::Waiting { command, went_out } => {
                *went_out = true;
                Some((**command).clone())
            }
            QuestionStage::Written(_) | QuestionStage::Withdrawn => None,
        }
    }

    /// Nobody waits for it any more: unless it is written already, it never is, and its message is let go. Returns
    /// whether that was in time.
    pub fn withdraw(&self) -> bool {
        let mut stage = self.stage();
        let in_time = !matches!(*stage, QuestionStage::Written(_));
        if in_time {
            *stage = QuestionStage::Withdrawn;
        }
        in_time
    }

    /// When it was written, if it was.
    pub fn written_at(&self) -> Option<Instant> {
        match *self.stage() {
            QuestionStage::Written(at) => Some(at),
            QuestionStage::Waiting { .. } | QuestionStage::Withdrawn => None,
        }
    }
}

impl vouch_leader::checks::HandedQuestion for Question {
    fn was_written(&self) -> bool {
        matches!(*self.stage(), QuestionStage::Written(_) | QuestionStage::Waiting { went_out: true, .. })
    }

    fn withdraw(&self) {
        Self::withdraw(self);
    }
}

/// One telemetry stream of a client.
///
/// # To ensure correctness
///
/// `send_check` neither blocks nor waits: it puts the question into a bounded queue, or answers `false`.
/// [`Question::take`] is called when the transport asks for the next command to write, and no earlier: from there on a
/// client's silence may count as an answer.
pub trait TelemetryStream: Send + Sync {
    /// Hands over a question; `false` if the stream is closed or its queue is full.
    fn send_check(&self, question: Question) -> bool;
    /// Whether the stream is still open. Once closed, it stays closed.
    fn is_open(&self) -> bool;
    /// Whether it leads to this node, and not to another one.
    fn is_here(&self) -> bool {
        true
    }
}
