//! What goes in and out, in the words of the WIT world and in ours.

use std::time::Duration;

use crate::{
    bindings::types,
    error_text::{MAX_ERROR_TEXT, cut},
    limits::Limits,
    log::CallLog,
    outcome::NoAnswer,
    question::Message,
};

/// Reads what a component says, within the limits of its binding.
pub(crate) struct AnswerReader {
    pub(crate) limits: Limits,
    pub(crate) log: CallLog,
    /// The binding's choice: without it the guest sees how large the body is, and no more.
    pub(crate) body: bool,
}

impl AnswerReader {
    /// The component said that it cannot answer.
    pub(super) fn guest_error(&self, text: String) -> NoAnswer {
        let mut text = match self.text(text) {
            Ok(text) => text,
            Err(too_large) => return too_large,
        };
        // Before the cut, which could leave the half of one.
        self.log.hide_secrets(&mut text);
        cut(&mut text, MAX_ERROR_TEXT);
        NoAnswer::GuestError(text)
    }

    /// A text of an answer.
    ///
    /// # Errors
    /// The guest said more than its binding allows. Nothing of it is kept, not even its beginning: half a reason may say the opposite.
    pub(super) fn text(&self, text: String) -> Result<String, NoAnswer> {
        let limit = self.limits.output;
        if text.len() > limit.as_usize() { Err(NoAnswer::OutputTooLarge { limit }) } else { Ok(text) }
    }

    /// That the guest wants to be asked again: why, and when.
    pub(super) fn postponement(
        &self,
        types::Postponement { reason, retry_after }: types::Postponement,
    ) -> Result<(String, Option<Duration>), NoAnswer> {
        Ok((self.text(reason)?, retry_after.map(|ms| Duration::from_millis(ms.into()))))
    }

    /// The message in the words of the WIT world.
    pub(super) fn message(&self, message: Message) -> types::Message {
        types::Message {
            id: message.id,
            topic: message.topic,
            tag: message.tag,
            keys: message.keys,
            message_group: message.message_group,
            properties: message.properties,
            attributes: message.attributes,
            born_at: message.born_at_ms,
            born_host: message.born_host,
            stored_at: message.stored_at_ms,
            body_size: message.body_size,
            // Not copied if nobody else holds it: a decompressed body is in memory once, besides the guest's own copy.
            body: if self.body { message.body.into() } else { Vec::new() },
        }
    }
}

/// A component was asked something that it does not export: whoever asks knows what that is, and failed to look.
pub(super) fn not_exported(interface: &str) -> NoAnswer {
    NoAnswer::Host(format!("the component exports no `{interface}`"))
}
