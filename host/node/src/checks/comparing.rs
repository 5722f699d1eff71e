//! What components would have said of transactions that producers ended themselves: of one in a hundred, at most one a second.

use std::sync::Arc;
use std::time::Duration;

use vouch_broker::State;

use super::Asker;
use crate::components::{Compared, EndedByProducer, compare, note};
use crate::transactions::SampledEnd;

/// No two within this time: they take places of checks.
const AT_MOST_EVERY: Duration = Duration::from_secs(1);

/// Compares until the node stops. Only a leader ends transactions, so only there is anything to look at.
pub(crate) async fn run(asker: Arc<Asker>) {
    loop {
        let ended = tokio::select! {
            ended = asker.sample.next() => ended,
            () = asker.stopping.cancelled() => return,
        };
        if !compare_one(&asker, ended).await {
            continue;
        }
        // A fault is to be over as soon as it is mended.
        if let Ok(contradicted) = asker.bound.contradicted().await {
            asker.sample.take_all(contradicted);
        }
        tokio::select! {
            () = tokio::time::sleep(AT_MOST_EVERY) => {}
            () = asker.stopping.cancelled() => return,
        }
    }
}

/// Whether anybody was asked.
async fn compare_one(asker: &Asker, (topic, transaction, outcome): SampledEnd) -> bool {
    let named = topic.clone();
    let look = move |state: &State| {
        let ended_at = state.outcomes().get(transaction)?.record;
        let (name, entry) = state.plugins().binding_of_topic(&named)?;
        Some((name.to_owned(), entry.clone(), ended_at))
    };
    let Ok(Some((name, entry, ended_at))) = asker.shard.read(look).await else { return false };
    // What is gone from the log, or cannot be asked, tells nothing.
    let Ok(half) = asker.halves.get(transaction).await else { return false };
    let Ok(answerer) = asker.bound.answerer(&name, &entry).await else { return false };
    let ended = EndedByProducer { transaction, topic, half, outcome };
    match compare(&answerer, ended, (&asker.effects, &asker.clock)).await {
        Ok(compared) => {
            match &compared {
                Compared::Agrees => asker.metrics.comparisons.count(&name, true),
                Compared::Contradicts(_) => asker.metrics.comparisons.count(&name, false),
                Compared::Undecided(why) => {
                    tracing::debug!(binding = name, why, "what a producer said cannot be compared");
                }
            }
            note(&answerer, ended_at, &compared);
        }
        Err(why) => tracing::debug!(binding = name, %why, "what a producer said cannot be compared"),
    }
    true
}
