//! One ask under way, as its task, the schedule and those who answer share it.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A question that was handed to a client's stream.
pub trait HandedQuestion: Send + Sync {
    /// Whether it was written to the client: from there on what the client says, or its silence, is an answer (ruling 1).
    fn was_written(&self) -> bool;

    /// Nobody waits for the answer any more: what is not written is not written any more.
    fn withdraw(&self);
}

/// Runs when an ask is over.
type AtEnd = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct Shared {
    /// Clients that it went to; none for a component's.
    questions: Vec<(String, Arc<dyn HandedQuestion>)>,
    over: bool,
    at_end: Vec<AtEnd>,
}

/// An ask that was handed out and is not over, or was until a moment ago.
#[derive(Default)]
pub struct Ask(Mutex<Shared>);

impl fmt::Debug for Ask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ask").field("over", &self.shared().over).finish_non_exhaustive()
    }
}

impl Ask {
    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A question is about to be handed to a client's stream. Noted before, since the answer may be quick. Where the ask is
    /// over it is withdrawn at once.
    pub fn note(&self, client_id: &str, question: Arc<dyn HandedQuestion>) {
        let mut shared = self.shared();
        if shared.over {
            question.withdraw();
        }
        shared.questions.push((client_id.to_owned(), question));
    }

    /// Whether the question was written to this client: only then is what the client says an answer (ruling 1).
    pub fn went_to(&self, client_id: &str) -> bool {
        self.shared().questions.iter().any(|(asked, question)| asked == client_id && question.was_written())
    }

    /// The ask is over, whoever ended it. What waits to be written is withdrawn.
    pub(crate) fn end(&self) {
        let mut shared = self.shared();
        shared.over = true;
        for (_, question) in &shared.questions {
            question.withdraw();
        }
        let at_end = std::mem::take(&mut shared.at_end);
        // Whoever wakes may look at the ask.
        drop(shared);
        at_end.into_iter().for_each(|run| run());
    }

    /// Whether it is over.
    pub fn is_over(&self) -> bool {
        self.shared().over
    }

    /// Runs this when the ask is over: at once, if it is.
    pub fn at_end(&self, run: impl FnOnce() + Send + 'static) {
        let mut shared = self.shared();
        if shared.over {
            drop(shared);
            return run();
        }
        shared.at_end.push(Box::new(run));
    }
}
