//! Components and bindings. Each change that somebody sees is an effect; pieces of a component are none before the record
//! that publishes them.

use super::{Applied, Apply, Effect, Outcome, RecordAt, check_revision};
use crate::record::{BindingDelete, BindingPaused, BindingPut, PluginChunk, PluginDelete, PluginPublish, TagDelete};
use crate::state::State;

impl Apply for PluginChunk {
    fn apply(&self, state: &mut State, at: RecordAt, _: &mut Vec<Effect>) -> Outcome {
        state.plugins.chunk(at.position, self);
        Ok(Applied::Done)
    }
}

impl Apply for PluginPublish {
    fn apply(&self, state: &mut State, at: RecordAt, effects: &mut Vec<Effect>) -> Outcome {
        let created = state.plugins.publish(self, at.time)?;
        effects.push(Effect::Plugins);
        Ok(Applied::Set { created, revision: at.position.0 })
    }
}

impl Apply for TagDelete {
    fn apply(&self, state: &mut State, _: RecordAt, effects: &mut Vec<Effect>) -> Outcome {
        state.plugins.delete_tag(&self.name, &self.tag)?;
        effects.push(Effect::Plugins);
        Ok(Applied::Done)
    }
}

impl Apply for PluginDelete {
    fn apply(&self, state: &mut State, _: RecordAt, effects: &mut Vec<Effect>) -> Outcome {
        state.plugins.delete(&self.name)?;
        effects.push(Effect::Plugins);
        Ok(Applied::Done)
    }
}

impl Apply for BindingPut {
    fn apply(&self, state: &mut State, at: RecordAt, effects: &mut Vec<Effect>) -> Outcome {
        let current = state.plugins.binding(&self.name).map_or(0, |binding| binding.revision);
        check_revision("binding", &self.name, current, self.expected_revision)?;
        state.check_secrets(&self.secrets)?;
        let mut topics = state.topics_of_binding(&self.name);
        let created = state.plugins.bind(self, at.position.0)?;
        state.kept.bound(&self.name, self.keeps.as_ref());
        topics.extend(state.topics_of_binding(&self.name));
        state.resume_failed(at, &topics, effects);
        effects.push(Effect::Plugins);
        Ok(Applied::Set { created, revision: at.position.0 })
    }
}

impl Apply for BindingDelete {
    fn apply(&self, state: &mut State, at: RecordAt, effects: &mut Vec<Effect>) -> Outcome {
        let topics = state.topics_of_binding(&self.name);
        state.plugins.unbind(&self.name)?;
        state.kept.unbound(&self.name);
        state.resume_failed(at, &topics, effects);
        effects.push(Effect::Plugins);
        Ok(Applied::Done)
    }
}

/// What waits for the binding is looked at again when it goes on.
impl Apply for BindingPaused {
    fn apply(&self, state: &mut State, _: RecordAt, effects: &mut Vec<Effect>) -> Outcome {
        state.plugins.pause(&self.name, self.paused)?;
        effects.push(Effect::Plugins);
        Ok(Applied::Done)
    }
}

impl State {
    /// Asked before and after a binding changes: transactions of both are asked about again.
    fn topics_of_binding(&self, name: &str) -> Vec<String> {
        self.plugins.binding(name).map_or_else(Vec::new, |binding| binding.topics.clone())
    }
}
