//! `vouch:plugin/outbox`: messages that appear with the answer.

use crate::{
    bindings::outbox::{Draft as Written, Host, OutboxError},
    guest::CallState,
    reach::DraftRefused,
    staged::Draft,
};

/// An answer for the guest, or the end of it.
type Answer = wasmtime::Result<Result<String, OutboxError>>;

impl CallState {
    /// Stages a message, if nothing speaks against it.
    async fn stage(&mut self, draft: Draft, deliver_at: Option<u64>) -> Answer {
        let reach = match self.lent.may_publish(&draft) {
            Ok(reach) => reach,
            Err(refused) => return Ok(Err(refused)),
        };
        if deliver_at.is_some() {
            let text = "deliver-at is set, and there are no topics of type delay yet: leave it out";
            return Ok(Err(OutboxError::Invalid(text.to_owned())));
        }
        if let Err(refused) = reach.check_draft(&draft).await {
            return Ok(Err(match refused {
                DraftRefused::Invalid(text) => OutboxError::Invalid(text),
                DraftRefused::TooLarge(text) => OutboxError::TooLarge(text),
            }));
        }
        self.cap.keep(draft.size(), &mut self.table)?;
        Ok(Ok(self.lent.publish(draft, &*reach)))
    }
}

impl Host for CallState {
    async fn publish(&mut self, message: Written) -> Answer {
        let Written { topic, tag, keys, message_group, properties, deliver_at, body } = message;
        if let Some(dry) = &self.lent.dry {
            dry.asked(format!("publish to {topic}"));
        }
        let draft = Draft { topic, tag, keys, message_group, properties, body: body.into() };
        let published = self.stage(draft, deliver_at).await?;
        if let Some(dry) = &self.lent.dry {
            // Another topic or another message fares no better until the binding or the topic is mended.
            dry.answered(match &published {
                Err(OutboxError::NotGranted(text) | OutboxError::Invalid(text)) => Some(format!("outbox: {text}")),
                _ => None,
            });
        }
        Ok(published)
    }
}
