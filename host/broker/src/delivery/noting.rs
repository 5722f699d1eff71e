//! Whether a member's filter is noted for its group, in the state or by a record on its way (ruling 12).

use super::Reservations;
use crate::{GroupId, Refusal, State, TagFilter, TopicId};

/// What is to be done about a filter before anything is picked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Noting {
    /// Nothing.
    Noted,
    /// Propose a [`crate::record::FilterNoted`].
    New,
    /// There are too many: refuse the receive, and decide nothing for it.
    Refused(Refusal),
}

/// Looks whether a group has a filter on a topic that it joined. Nothing is to be done where it did not join.
pub fn noting(
    state: &State,
    reservations: &Reservations,
    (group, topic): (GroupId, TopicId),
    filter: &TagFilter,
) -> Noting {
    let Some(progress) = state.groups().get(group).and_then(|group| group.progress(topic)) else {
        return Noting::Noted;
    };
    let noted = progress.filters();
    let on_their_way = reservations.filters((group, topic));
    if on_their_way.map_or_else(|| noted.contains(filter), |filters| filters.stays(filter, noted)) {
        return Noting::Noted;
    }
    let more = on_their_way.map_or(0, |filters| filters.noted().filter(|filter| !noted.contains(filter)).count());
    match state.groups().check_filter_room(noted.len() + more, reservations.filter_tags(), filter) {
        // One that is about to go has its room still.
        _ if noted.contains(filter) => Noting::New,
        Ok(()) => Noting::New,
        Err(refusal) => Noting::Refused(refusal),
    }
}
