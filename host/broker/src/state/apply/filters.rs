//! The filters of a group's members (ruling 12).

use super::{Applied, Apply, Effect, Outcome, RecordAt};
use crate::record::{FilterNoted, FiltersGone};
use crate::state::State;

/// Before the first lease for the filter, in the order of the log: a lease skips nothing that a noted filter
/// matches, and so needs to know it. A repeat changes nothing.
impl Apply for FilterNoted {
    fn apply(&self, state: &mut State, at: RecordAt, _: &mut Vec<Effect>) -> Outcome {
        state.groups.note_filter(self.group, self.topic, &self.filter)?;
        state.groups.see(self.group, at.time);
        Ok(Applied::Done)
    }
}

/// What was left for these filters alone is done by the next receive of the group, which may then have fresh messages.
impl Apply for FiltersGone {
    fn apply(&self, state: &mut State, _: RecordAt, effects: &mut Vec<Effect>) -> Outcome {
        state.groups.drop_filters(self.group, self.topic, &self.filters)?;
        effects.push(Effect::AvailableTo(self.group, self.topic));
        Ok(Applied::Done)
    }
}
