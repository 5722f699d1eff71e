//! What one call of a component may read of the state, and which messages it may publish.

use std::fmt::Write as _;
use std::pin::Pin;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};
use vouch_broker::{MessageKind, NotDone, Refusal, ResourceName, State};
use vouch_plugin::{CallReach, Draft, DraftRefused, StateValue};
use vouch_protocol::validate;
use vouch_protocol::wire::Code;

use super::Effects;
use super::draft::message;

/// A future as the trait has it.
type Asked<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Ids of the messages of one call.
#[derive(Clone, Copy)]
pub(super) struct MessageIds([u8; 32]);

impl MessageIds {
    /// Of a call that is named so, of the binding that the record at this position created.
    pub(super) fn new(cluster_id: [u8; 16], created: u64, call: &str) -> Self {
        let hash = Sha256::new().chain_update(cluster_id).chain_update(created.to_le_bytes()).chain_update(call);
        Self(hash.finalize().into())
    }

    /// `01`, and the first half of a SHA-256 in hexadecimal digits: as long as the ids that clients make.
    fn id(self, number: u32) -> String {
        let hash = Sha256::new().chain_update(self.0).chain_update(number.to_le_bytes()).finalize();
        hash[..16].iter().fold("01".to_owned(), |mut id, byte| {
            // Writing to text never fails.
            let _ = write!(id, "{byte:02X}");
            id
        })
    }
}

/// What one call reaches.
pub(super) struct BoundReach {
    /// What all calls have in common.
    pub(super) effects: Arc<Effects>,
    /// Where the binding may keep something.
    pub(super) namespace: Option<String>,
    /// Of what this call publishes.
    pub(super) ids: MessageIds,
}

impl BoundReach {
    /// What is kept under a key now, with the version that the record of the answer will be held against.
    async fn value(&self, key: &str) -> Result<StateValue, String> {
        let namespace = self.namespace.clone().ok_or_else(|| "the binding keeps nothing".to_owned())?;
        let (key, now) = (key.to_owned(), self.effects.clock.now());
        let look = move |state: &State| {
            let kept = state.kept().namespace(&namespace).and_then(|namespace| namespace.get(&key, now));
            kept.map_or_else(
                || StateValue { value: None, version: 0, expires_at_ms: None },
                |kept| StateValue {
                    value: Some(kept.value.clone()),
                    version: kept.version,
                    expires_at_ms: kept.expires_at.map(|at| at.0),
                },
            )
        };
        self.effects.shard.read(look).await.map_err(|error| error.to_string())
    }

    /// Holds a draft against the rules for what clients send, and against its topic.
    async fn check(&self, draft: &Draft) -> Result<(), DraftRefused> {
        let topic = ResourceName::parse(&draft.topic);
        let invalid = |why: String| DraftRefused::Invalid(why);
        topic.check_sent_to().map_err(|why| invalid(why.to_string()))?;
        let message = message(self.message_id(0), draft, self.effects.clock.now());
        validate::published(&message).map_err(|violation| match violation.code {
            Code::MessageBodyTooLarge | Code::MessagePropertiesTooLarge => {
                DraftRefused::TooLarge(violation.to_string())
            }
            _ => invalid(violation.to_string()),
        })?;
        let route = self.effects.routes.route(&topic).await.map_err(|why| invalid(why.to_string()))?;
        let topic_type = route.info.config.topic_type;
        if message.kind == MessageKind::Fifo {
            return Err(invalid(Refusal::NotBuilt("an ordered message (with a message group)").to_string()));
        }
        if !topic_type.takes(message.kind) {
            let topic_type = topic_type.as_str();
            let refusal = Refusal::TypeMismatch { topic, topic_type, kind: "normal" };
            return Err(invalid(NotDone::Refused(refusal).to_string()));
        }
        Ok(())
    }
}

impl CallReach for BoundReach {
    fn read<'a>(&'a self, key: &'a str) -> Asked<'a, Result<StateValue, String>> {
        Box::pin(self.value(key))
    }

    fn check_draft<'a>(&'a self, draft: &'a Draft) -> Asked<'a, Result<(), DraftRefused>> {
        Box::pin(self.check(draft))
    }

    fn message_id(&self, number: u32) -> String {
        self.ids.id(number)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_message_has_the_same_id_whenever_its_call_runs_and_no_other_has_it() {
        let ids = MessageIds::new([1; 16], 7, "transaction 1");
        assert_eq!(ids.id(0), MessageIds::new([1; 16], 7, "transaction 1").id(0));
        let others = [
            ids.id(0),
            ids.id(1),
            MessageIds::new([2; 16], 7, "transaction 1").id(0),
            MessageIds::new([1; 16], 8, "transaction 1").id(0),
            MessageIds::new([1; 16], 7, "transaction 2").id(0),
        ];
        assert!(others.iter().all(|id| id.len() == 34 && id.starts_with("01")));
        assert_eq!(others.iter().collect::<BTreeSet<_>>().len(), others.len());
    }
}
