//! Groups: made, changed, joined to topics, and gone.

use super::{Applied, Apply, Effect, Outcome, RecordAt, check_revision};
use crate::record::{GroupDelete, GroupMade, GroupPut, GroupsUnused, Join};
use crate::state::{Now, Progress, State};
use crate::{Refusal, StartPosition};

/// Makes a group, or changes its settings from now on: leases that live keep the deadline that they have.
impl Apply for GroupPut {
    fn apply(&self, state: &mut State, at: RecordAt, effects: &mut Vec<Effect>) -> Outcome {
        let current = state.groups.named(&self.name).map_or(0, |group| group.revision);
        check_revision("group", &self.name, current, self.expected_revision)?;
        let created = state.groups.put(&self.name, &self.config, at.position.0, at.time)?;
        effects.push(Effect::Directory);
        effects.push(Effect::Joined);
        Ok(Applied::Set { created, revision: at.position.0 })
    }
}

/// With the group goes what it received. A handle of it that comes later finds no group, and one of the same name
/// that is made again has another id: it begins anew.
impl Apply for GroupDelete {
    fn apply(&self, state: &mut State, _: RecordAt, effects: &mut Vec<Effect>) -> Outcome {
        let id = state.groups.named(&self.name)?.id;
        if let Some((binding, _)) = state.plugins.binding_of_group(&self.name.to_string()) {
            return Err(Refusal::Conflict(format!(
                "binding {binding} consumes for group {}: delete the binding first, or take the group out of it",
                self.name
            )));
        }
        state.groups.delete(id);
        effects.push(Effect::Directory);
        Ok(Applied::Done)
    }
}

/// As a receive does that names a group which is not there. Two members may propose it at once: the second finds it
/// made and is refused, and its receive goes on with the group that is there.
impl Apply for GroupMade {
    fn apply(&self, state: &mut State, at: RecordAt, effects: &mut Vec<Effect>) -> Outcome {
        let current = state.groups.named(&self.name).map_or(0, |group| group.revision);
        check_revision("group", &self.name, current, Some(0))?;
        state.groups.make(&self.name, &self.config, at.position.0, at.time)?;
        effects.push(Effect::Directory);
        effects.push(Effect::Joined);
        Ok(Applied::Set { created: true, revision: at.position.0 })
    }
}

/// A group that was used or seen since the record was proposed stays: nothing that anybody finished comes again.
impl Apply for GroupsUnused {
    fn apply(&self, state: &mut State, at: RecordAt, effects: &mut Vec<Effect>) -> Outcome {
        let (mut groups, now) = (0, Now::new(at.time, &state.leaps));
        for id in &self.groups {
            if state.groups.get(*id).is_some_and(|group| group.is_forgotten(now)) {
                state.groups.delete(*id);
                groups += 1;
            }
        }
        effects.extend((groups > 0).then_some(Effect::Directory));
        Ok(Applied::Forgotten { groups })
    }
}

/// Where a group begins is decided once, at the position of this record: what is sent while it is on its way lies
/// behind *the end*. A second one changes nothing of a group that has joined.
impl Apply for Join {
    fn apply(&self, state: &mut State, at: RecordAt, effects: &mut Vec<Effect>) -> Outcome {
        let topic = &*state.topics.get_mut(self.topic)?;
        state.groups.join(self.group, self.topic, |config| {
            let start = if self.at_end { StartPosition::End } else { config.start };
            Progress::starting_at((0..topic.queue_count()).map(|queue| match start {
                StartPosition::Beginning => topic.start(queue),
                StartPosition::End => topic.end(queue),
            }))
        })?;
        state.groups.see(self.group, at.time);
        effects.push(Effect::Joined);
        effects.push(Effect::AvailableTo(self.group, self.topic));
        Ok(Applied::Done)
    }
}
