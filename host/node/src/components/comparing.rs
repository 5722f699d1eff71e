//! A component is asked about transactions that their producers ended themselves: in dry calls, as if each were long open and
//! this its last check. Where it says the opposite, its fence lies in the wrong place, or nobody writes it.

use std::sync::Arc;
use std::time::Instant;

use vouch_broker::{HalfPosition, Millis, NotDone, RecordPosition, ResourceName, StoredMessage, TransactionOutcome};
use vouch_plugin::{Checked, Tried, Verdict};
use vouch_shard::clock::Clock;

use super::pending::{Answerer, CheckQuestion};
use super::standing::Contradiction;
use crate::effects::Effects;

/// How old a transaction is made out to be at its last check: whatever a binding waits for is over by then.
pub(super) const LONG_MS: u64 = 365 * 24 * 60 * 60 * 1000;

/// A transaction that its producer ended.
pub(crate) struct EndedByProducer {
    pub(crate) transaction: HalfPosition,
    pub(crate) topic: ResourceName,
    pub(crate) half: StoredMessage,
    pub(crate) outcome: TransactionOutcome,
}

/// What a component says of it.
pub(crate) enum Compared {
    /// The same.
    Agrees,
    /// The opposite.
    Contradicts(Contradiction),
    /// Nothing that can be compared: it does not know, or gave no answer, for this reason.
    Undecided(String),
}

/// Asks about one. What comes of it is not noted yet.
pub(crate) async fn compare(
    answerer: &Answerer,
    ended: EndedByProducer,
    (effects, clock): (&Arc<Effects>, &Clock),
) -> Result<Compared, NotDone> {
    let EndedByProducer { transaction, topic, half, outcome } = ended;
    let now = clock.now();
    let opened_at = Millis(now.0.saturating_sub(LONG_MS).min(half.stored_at.0));
    let (number, checks_left) = (10, 0);
    let transaction = effects.shard.signals().transaction_id(transaction);
    let question = CheckQuestion { transaction, topic: topic.clone(), opened_at, asked_at: now, number, checks_left };
    let (asking, keys) = (answerer.clone(), half.message.keys.clone());
    let pending = tokio::task::spawn_blocking(move || asking.pending(&question, half)).await;
    let pending =
        pending.map_err(|error| NotDone::internal(format!("a half message cannot be made ready: {error}")))?;
    let reach = effects.reach(&answerer.settler, &pending.transaction_id);
    let Tried { checked, .. } = answerer.binding.try_check(pending, Some(reach)).await;
    let (said, reason) = match checked {
        Checked::Answer(Verdict::Commit) => (TransactionOutcome::Committed, String::new()),
        Checked::Answer(Verdict::Rollback(reason)) => (TransactionOutcome::RolledBack, reason),
        Checked::Answer(Verdict::Unknown { reason, .. }) => return Ok(Compared::Undecided(reason)),
        Checked::NoAnswer(why) => return Ok(Compared::Undecided(why.to_string())),
    };
    Ok(if said == outcome {
        Compared::Agrees
    } else {
        Compared::Contradicts(Contradiction {
            transaction: transaction.to_string(),
            topic: topic.to_string(),
            keys,
            ended: word(outcome),
            said: word(said),
            reason,
            at_ms: now.0,
        })
    })
}

/// Notes what came of one whose end lies there: holds the binding's fences or lets them go, and says what is to be said. What could not
/// be compared is nothing to note.
pub(crate) fn note(answerer: &Answerer, ended_at: RecordPosition, compared: &Compared) {
    let contradiction = match compared {
        Compared::Agrees => None,
        Compared::Contradicts(contradiction) => Some(contradiction),
        Compared::Undecided(_) => return,
    };
    let binding = &answerer.binding;
    let hold = |hold| binding.hold_fences(hold);
    let say = answerer.notes.compared(ended_at, contradiction.cloned(), Instant::now(), hold);
    if let (Some(in_a_row), Some(Contradiction { transaction, topic, ended, said, reason, .. })) = (say, contradiction)
    {
        let binding = binding.name();
        tracing::warn!(
            binding,
            transaction,
            topic,
            producer_said = ended,
            component_would_say = said,
            reason,
            in_a_row,
            "a component contradicts what a producer said of its transaction: does the service write the fence row, in this \
             database, with this key? After ten in a row its checks close no fence (vouch binding test {binding} --ended 50)"
        );
    }
}

fn word(outcome: TransactionOutcome) -> &'static str {
    match outcome {
        TransactionOutcome::Committed => "commit",
        TransactionOutcome::RolledBack => "rollback",
    }
}
