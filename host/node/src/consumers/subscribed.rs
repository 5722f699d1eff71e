//! What bindings that consume subscribe to.

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

/// Bindings as members of their groups, those included that pause: what they want is not to be skipped.
pub(super) fn members(wanted: &[Wanted]) -> Vec<BoundMember> {
    let members = wanted.iter().filter_map(|Wanted { name, entry }| {
        let topics = subscriptions_of(&entry.spec).ok()?;
        let groups = entry.groups.iter().map(|group| ResourceName::parse(group));
        Some(groups.map(move |group| (name.clone(), group, topics.clone())))
    });
    members.flatten().collect()
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
