//! What was picked for a consumer, read and handed out.

use vouch_broker::{Handle, NotDone, ResourceName};

use super::Messages;
use crate::served_shard::SHARD;
use crate::{Delivery, stored};
use vouch_leader::Batch;

impl Messages {
    /// Reads the messages of a batch. Those that cannot be read are left out and said in the log.
    pub(super) async fn deliveries(
        &self,
        batch: &Batch,
        invisible_ms: u64,
        topic: &ResourceName,
    ) -> Result<Vec<Delivery>, NotDone> {
        let mut deliveries = Vec::with_capacity(batch.messages.len());
        for picked in &batch.messages {
            let (head, message) = match stored::message(&self.log, picked.position) {
                Ok(found) => found,
                Err(refusal) => {
                    // One bad message is reported, the others go on; its lease ends and it is tried again.
                    let (queue, offset) = (picked.queue, picked.offset.0);
                    tracing::error!(%topic, queue, offset, %refusal, "a message cannot be delivered");
                    continue;
                }
            };
            let dead_letter_origin = if head.topic == batch.topic {
                None
            } else {
                let origin = self.routes.topic_name(head.topic).await?;
                Some((origin.name, message.message.message_id.clone()))
            };
            let handle = Handle {
                shard: SHARD,
                topic: batch.topic,
                group: batch.group,
                queue: picked.queue,
                offset: picked.offset,
                generation: batch.generation,
                deadline: batch.deadline,
            };
            deliveries.push(Delivery {
                message,
                queue: picked.queue,
                offset: picked.offset,
                attempt: picked.attempt,
                handle,
                invisible_ms,
                dead_letter_origin,
            });
        }
        Ok(deliveries)
    }
}
