//! Secrets. What a binding names is there, and stays there for as long as the binding does: decided here, so that all nodes
//! say the same whoever asked them.

use super::{Applied, Apply, Effect, Outcome, RecordAt, check_revision};
use crate::Refusal;
use crate::record::{SecretDeleted, SecretPut};
use crate::state::{State, check_secret_name, used_by_bindings};

impl Apply for SecretPut {
    fn apply(&self, state: &mut State, at: RecordAt, effects: &mut Vec<Effect>) -> Outcome {
        check_secret_name(&self.name)?;
        let before = state.secrets.get(&self.name);
        check_revision("secret", &self.name, before.map_or(0, |secret| secret.revision), self.expected_revision)?;
        let is_same_value = before.is_some_and(|secret| secret.value_id == self.value_id);
        let created = state.secrets.put(self, at.position.0)?;
        // A wrong password may be why a component failed: as a binding that is set again does, another value has those
        // transactions asked about again.
        if !is_same_value {
            let users = state.plugins.bindings_with_secret(&self.name);
            let topics: Vec<String> = users.flat_map(|(_, binding)| &binding.topics).cloned().collect();
            state.resume_failed(at, &topics, effects);
        }
        effects.push(Effect::Secrets);
        Ok(Applied::Set { created, revision: at.position.0 })
    }
}

impl Apply for SecretDeleted {
    fn apply(&self, state: &mut State, _: RecordAt, effects: &mut Vec<Effect>) -> Outcome {
        let Self { name } = self;
        if state.secrets.get(name).is_none() {
            return Err(Refusal::NotFound(format!("there is no secret {name}")));
        }
        let users = state.plugins.bindings_with_secret(name).map(|(binding, _)| binding);
        if let Some(refusal) = used_by_bindings(&format!("secret {name}"), users) {
            return Err(refusal);
        }
        state.secrets.delete(name);
        effects.push(Effect::Secrets);
        Ok(Applied::Done)
    }
}

impl State {
    /// Refuses what names a secret that is not there.
    pub(super) fn check_secrets<'a>(&self, names: impl IntoIterator<Item = &'a String>) -> Result<(), Refusal> {
        let missing = names.into_iter().find(|name| self.secrets.get(name).is_none());
        missing.map_or(Ok(()), |name| {
            Err(Refusal::NotFound(format!(
                "the binding names secret {name}, which does not exist; set the secret first"
            )))
        })
    }
}
