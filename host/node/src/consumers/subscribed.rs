//! What bindings that consume subscribe to.

use std::collections::BTreeSet;

use vouch_broker::state::BindingEntry;
use vouch_broker::{NotDone, ResourceName, State, TagFilter};

use super::Wanted;
use crate::components::subscriptions_of;

/// One group on one topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Subscription {
    pub(crate) group: ResourceName,
    pub(crate) topic: ResourceName,
    pub(crate) filter: TagFilter,
}

/// Everything that a binding subscribes to: each of its groups on each of its topics.
///
/// # Errors
/// The binding cannot be read: another version set it.
pub(crate) fn subscriptions(entry: &BindingEntry) -> Result<Vec<Subscription>, NotDone> {
    let topics = subscriptions_of(&entry.spec)?;
    let of_group = |group: &String| {
        let group = ResourceName::parse(group);
        topics.clone().into_iter().map(move |(topic, filter)| Subscription { group: group.clone(), topic, filter })
    };
    Ok(entry.groups.iter().flat_map(of_group).collect())
}

/// A member of a group: the binding, the group, and what it takes.
pub(crate) type BoundMember = (String, ResourceName, Vec<(ResourceName, TagFilter)>);

/// What a group wants of a topic.
pub(crate) type GroupFilter = (ResourceName, ResourceName, TagFilter);

/// Bindings as members of their groups, and what those want that pause: that is not to be skipped.
pub(super) fn members(wanted: &[Wanted]) -> (Vec<BoundMember>, BTreeSet<GroupFilter>) {
    let (mut members, mut paused) = (Vec::new(), BTreeSet::new());
    for Wanted { name, entry } in wanted {
        let Ok(topics) = subscriptions_of(&entry.spec) else { continue };
        for group in entry.groups.iter().map(|group| ResourceName::parse(group)) {
            if entry.paused {
                paused.extend(topics.iter().map(|(topic, filter)| (group.clone(), topic.clone(), filter.clone())));
            } else {
                members.push((name.clone(), group, topics.clone()));
            }
        }
    }
    (members, paused)
}

/// Messages that wait for these subscriptions: not seen by their groups yet, or not done.
pub(crate) fn lag(state: &State, subscriptions: &[Subscription]) -> u64 {
    let of_one = |Subscription { group, topic, .. }: &Subscription| {
        let topic = state.topics().named(topic).ok()?;
        let progress = state.groups().named(group).ok()?.progress(topic.id)?;
        let unseen = (0..topic.queue_count()).map(|queue| topic.end(queue).saturating_since(progress.next(queue)));
        Some(unseen.sum::<u64>() + progress.unfinished())
    };
    subscriptions.iter().filter_map(of_one).sum()
}
