//! What bindings that consume subscribe to.

use std::collections::BTreeSet;

use vouch_broker::state::BindingEntry;
use vouch_broker::{NotDone, ResourceName, State, TagFilter};

use super::Wanted;
use crate::components::subscriptions_of;
use crate::sessions::{BoundMember, GroupFilter};

/// One group on one topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Subscription {
    /// Who receives.
    pub(crate) group: ResourceName,
    /// From where.
    pub(crate) topic: ResourceName,
    /// Which messages.
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn wanted(name: &str, groups: &[&str], subscriptions: &serde_json::Value, paused: bool) -> Wanted {
        let spec = serde_json::json!({"plugin": "p:1", "groups": groups, "subscriptions": subscriptions}).to_string();
        let entry = BindingEntry {
            plugin: "p".to_owned(),
            digest: [0; 32],
            spec,
            topics: Vec::new(),
            groups: groups.iter().map(|group| (*group).to_owned()).collect(),
            revision: 1,
            secrets: BTreeSet::new(),
            created: 1,
            keeps: None,
            paused,
        };
        Wanted { name: name.to_owned(), entry: Arc::new(entry) }
    }

    #[test]
    fn each_group_of_a_binding_has_each_of_its_subscriptions() {
        let both = wanted("b", &["g", "n/h"], &serde_json::json!({"t": "*", "u": "a"}), false);
        let all = subscriptions(&both.entry).unwrap();
        let named: Vec<(String, String)> =
            all.iter().map(|each| (each.group.to_string(), each.topic.to_string())).collect();
        let expected = [("g", "t"), ("g", "u"), ("n/h", "t"), ("n/h", "u")];
        assert_eq!(named, expected.map(|(group, topic)| (group.to_owned(), topic.to_owned())));
        assert_eq!((&all[0].filter, &all[1].filter), (&TagFilter::All, &TagFilter::tags(["a"])));
        let unread = BindingEntry { spec: "{".to_owned(), ..(*both.entry).clone() };
        assert!(subscriptions(&unread).is_err());
    }

    #[test]
    fn those_that_pause_are_no_members_and_what_they_want_stays_wanted() {
        let subscribed = serde_json::json!({"t": "a", "u": "*"});
        let runs = wanted("runs", &["g", "h"], &subscribed, false);
        let pauses = wanted("pauses", &["i"], &subscribed, true);
        // Another version set it: of what nobody can read nobody is a member, and the others are.
        let mut unread = wanted("unread", &["j"], &subscribed, false);
        unread.entry = Arc::new(BindingEntry { spec: "{}".to_owned(), ..(*unread.entry).clone() });
        let (members, paused) = members(&[runs, unread, pauses]);
        let names: Vec<(&str, String)> =
            members.iter().map(|(name, group, _)| (name.as_str(), group.to_string())).collect();
        assert_eq!(names, [("runs", "g".to_owned()), ("runs", "h".to_owned())]);
        assert!(members.iter().all(|(.., topics)| topics.len() == 2));
        let name = ResourceName::plain;
        let wants = [(name("i"), name("t"), TagFilter::tags(["a"])), (name("i"), name("u"), TagFilter::All)];
        assert_eq!(paused, BTreeSet::from(wants));
    }
}
