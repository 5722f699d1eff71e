//! One ask under way, as its task, the schedule and those who answer share it.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::questions::Question;

/// An ask that was handed out and is not over, or was until a moment ago.
#[derive(Debug, Default)]
pub(crate) struct Ask {
    /// The producers that it went to; none for a component's.
    questions: Mutex<Vec<(String, Question)>>,
    over: watch::Sender<bool>,
}

impl Ask {
    fn questions(&self) -> MutexGuard<'_, Vec<(String, Question)>> {
        self.questions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A question is about to be handed to a client's stream. Noted before, since the answer may be quick.
    pub(crate) fn note(&self, client_id: &str, question: &Question) {
        self.questions().push((client_id.to_owned(), question.clone()));
    }

    /// Whether the question was written to this client: only then is what the client says an answer (ruling 1).
    pub(crate) fn went_to(&self, client_id: &str) -> bool {
        self.questions().iter().any(|(asked, question)| asked == client_id && question.written_at().is_some())
    }

    /// The ask is over, whoever ended it. What waits to be written is withdrawn.
    pub(super) fn end(&self) {
        for (_, question) in self.questions().iter() {
            question.withdraw();
        }
        self.over.send_replace(true);
    }

    /// Resolves when the ask is over.
    pub(super) async fn ended(&self) {
        // The sender lives in `self`, so this ends only when the value is true.
        let _ = self.over.subscribe().wait_for(|over| *over).await;
    }
}
