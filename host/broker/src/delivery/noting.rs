//! Whether a member's filter is noted for its group, in the state or by a record on its way (ruling 12).

use super::Reservations;
use super::reservations::FiltersOnTheirWay;
use crate::state::{Filters, Group, NoFilterRoom};
use crate::{GroupId, State, TagFilter, TopicId};

/// What is to be done about a filter before anything is picked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Noting {
    /// Nothing.
    Noted,
    /// Propose a [`crate::record::FilterNoted`].
    New,
    /// There are too many: refuse the receive, and decide nothing for it.
    Refused(NoFilterRoom),
}

/// What is noted for a group on a topic that it joined, and what is on its way.
struct Place<'a> {
    group: &'a Group,
    noted: &'a Filters,
    on_their_way: Option<&'a FiltersOnTheirWay>,
}

impl<'a> Place<'a> {
    /// `None` where the group did not join.
    fn of(state: &'a State, reservations: &'a Reservations, (group, topic): (GroupId, TopicId)) -> Option<Self> {
        let on_their_way = reservations.filters((group, topic));
        let group = state.groups().get(group)?;
        Some(Self { group, noted: group.progress(topic)?.filters(), on_their_way })
    }

    /// Whether the group has it once all that is on its way is applied. Asked before each receive, so it looks for no
    /// room.
    fn stays(&self, filter: &TagFilter) -> bool {
        self.on_their_way.map_or_else(|| self.noted.contains(filter), |filters| filters.stays(filter, self.noted))
    }

    /// How many different ones the group has at most, if every record that is on its way is applied.
    fn filters(&self) -> usize {
        let more = |filters: &FiltersOnTheirWay| filters.noted().filter(|filter| !self.noted.contains(filter)).count();
        self.noted.len() + self.on_their_way.map_or(0, more)
    }
}

/// Looks whether a group has a filter on a topic that it joined. Nothing is to be done where it did not join.
pub fn noting(state: &State, reservations: &Reservations, subject: (GroupId, TopicId), filter: &TagFilter) -> Noting {
    let Some(place) = Place::of(state, reservations, subject).filter(|place| !place.stays(filter)) else {
        return Noting::Noted;
    };
    let tags = reservations.filter_tags(place.group.id);
    match state.groups().check_filter_room(place.group, place.filters(), tags, filter) {
        // One that is about to go has its room still.
        _ if place.noted.contains(filter) => Noting::New,
        Ok(()) => Noting::New,
        Err(no_room) => Noting::Refused(no_room),
    }
}

/// Whether nothing is to be done about a filter: what [`noting`] says, without a look for room.
pub fn is_noted(state: &State, reservations: &Reservations, subject: (GroupId, TopicId), filter: &TagFilter) -> bool {
    Place::of(state, reservations, subject).is_none_or(|place| place.stays(filter))
}

/// How many different filters a group has on a topic, with those on their way.
pub fn filters(state: &State, reservations: &Reservations, subject: (GroupId, TopicId)) -> usize {
    Place::of(state, reservations, subject).map_or(0, |place| place.filters())
}
