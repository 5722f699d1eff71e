//! Messages past their retention.

use std::sync::atomic::Ordering;

use vouch_broker::record::Expire;
use vouch_broker::state::Applied;
use vouch_broker::{NotDone, Refusal, State, TopicId};

use super::{Keeper, Retention};

impl Keeper {
    /// Lets messages go that are past their retention: by a record for each topic, durable before anything follows from
    /// it.
    pub(super) async fn expire(&mut self) -> Result<(), NotDone> {
        let now = self.of.clock.now();
        let mut after = None;
        loop {
            let look = move |state: &State| state.expirations(now, after);
            let (expirations, next) = self.of.shard.read(look).await?;
            for expire in expirations {
                self.expire_one(&expire).await?;
            }
            let Some(next) = next else { return Ok(()) };
            after = Some(next);
        }
    }

    /// Lets messages of one topic go, and tells of those that groups had not finished.
    async fn expire_one(&mut self, expire: &Expire) -> Result<(), NotDone> {
        let topic = topic_text(&self.of, expire.topic).await?;
        let applied = match self.of.shard.propose_one(|out| expire.encode(out)).await {
            // Deleted meanwhile.
            Err(NotDone::Refused(Refusal::TopicNotFound(_))) => return Ok(()),
            applied => applied?,
        };
        let Applied::Expired { messages, missed } = applied else { return Ok(()) };
        self.of.report.expired.fetch_add(messages, Ordering::Relaxed);
        self.of.report.missed.fetch_add(missed, Ordering::Relaxed);
        if missed > 0 {
            tracing::warn!(
                topic,
                messages,
                missed,
                "messages expired that groups had not finished; their gaps are on record"
            );
        } else if messages > 0 {
            tracing::info!(topic, messages, "messages expired");
        }
        self.note_change().await
    }
}

/// The name of a topic for the node's log; empty where it is forgotten.
async fn topic_text(of: &Retention, id: TopicId) -> Result<String, NotDone> {
    let find = move |state: &State| state.topics().name_of(id).map(ToString::to_string);
    Ok(of.shard.read(find).await?.unwrap_or_default())
}
