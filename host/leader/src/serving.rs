//! Whose turn it is among the receives that wait.

use vouch_broker::{GroupId, State, TopicId};

use crate::polls::LineNumber;
use crate::receiving::{Served, TURN_WORK};
use crate::{Leader, Turn};

impl Leader {
    /// A turn begins: it has all its work before it.
    pub fn begin_turn(&mut self) {
        self.work = 0;
    }

    /// Serves lines of waiting receives that are ready, in turn, for as long as this turn has work left.
    pub fn serve_ready(&mut self, turn: &Turn<'_>) {
        while self.work < TURN_WORK
            && let Some((topic, line)) = self.polls.next_ready()
        {
            self.serve_line(turn, topic, line);
        }
    }

    /// Serves a line until the first that gets nothing: those behind it would get nothing, too.
    fn serve_line(&mut self, turn: &Turn<'_>, topic: TopicId, line: LineNumber) {
        while let Some(poll) = self.polls.take_first(line) {
            if self.serve(turn, poll, topic) == Served::Waits {
                break;
            }
            if self.work >= TURN_WORK {
                self.polls.make_ready(line);
                break;
            }
        }
        self.polls.settle(line);
    }

    /// Groups for which the log did not take what was decided look again: once a second, for as long as they wait.
    pub(crate) fn wake_unserved(&mut self, state: &State) {
        for (topic, group) in std::mem::take(&mut self.unserved) {
            self.wake_group(state, group, topic);
        }
    }

    /// Something may be there for this group.
    pub(crate) fn wake_group(&mut self, state: &State, group: GroupId, topic: TopicId) {
        if self.polls.any_on(topic)
            && let Some(group) = state.groups().get(group)
        {
            self.polls.wake_group(topic, &group.name);
        }
    }
}
