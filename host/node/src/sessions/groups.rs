//! Consumer groups by what their members want, and which of them were told that it differs.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use vouch_broker::{ResourceName, TagFilter};

use super::session::DeclaredByClient;

/// A group is told at most once in this time that its members differ.
const TELL_EVERY: Duration = Duration::from_secs(60);
/// Groups that are told in this time at most.
const TOLD_MAX: usize = 1024;

/// Groups that were told lately that their members differ.
#[derive(Default)]
pub(super) struct ToldGroups(HashMap<ResourceName, Instant>);

impl ToldGroups {
    /// Whether the group is to be told now.
    pub(super) fn may_tell(&mut self, group: &ResourceName, now: Instant) -> bool {
        let lately = |at: &Instant| now.saturating_duration_since(*at) < TELL_EVERY;
        if self.0.get(group).is_some_and(lately) {
            return false;
        }
        if self.0.len() >= TOLD_MAX {
            self.0.retain(|_, at| lately(at));
        }
        let room = self.0.len() < TOLD_MAX;
        if room {
            self.0.insert(group.clone(), now);
        }
        room
    }
}

/// Consumer groups with a member that lives, and what the members want.
#[derive(Default)]
pub(super) struct LiveGroups(HashMap<ResourceName, LiveGroup>);

#[derive(Default)]
struct LiveGroup {
    members: usize,
    /// By topic: each different filter, and how many members have it.
    filters: HashMap<ResourceName, HashMap<TagFilter, usize>>,
}

/// A topic on which a group's members differ.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Differing {
    pub(super) group: ResourceName,
    pub(super) topic: ResourceName,
    pub(super) filters: usize,
}

impl LiveGroup {
    /// Returns whether the filter is a new one.
    fn add(&mut self, topic: &ResourceName, filter: &TagFilter) -> bool {
        if !self.filters.contains_key(topic) {
            self.filters.insert(topic.clone(), HashMap::new());
        }
        let Some(filters) = self.filters.get_mut(topic) else { return false };
        match filters.get_mut(filter) {
            Some(members) => *members += 1,
            None => drop(filters.insert(filter.clone(), 1)),
        }
        filters[filter] == 1
    }

    /// Returns whether nobody has the filter any more.
    fn remove(&mut self, topic: &ResourceName, filter: &TagFilter) -> bool {
        let Some(filters) = self.filters.get_mut(topic) else { return false };
        let Some(members) = filters.get_mut(filter) else { return false };
        *members -= 1;
        if *members > 0 {
            return false;
        }
        filters.remove(filter);
        if filters.is_empty() {
            self.filters.remove(topic);
        }
        true
    }

    /// A member asks for another thing. Returns whether that changed which different filters there are.
    fn replace(&mut self, topic: &ResourceName, before: Option<&TagFilter>, after: &TagFilter) -> bool {
        if before == Some(after) {
            return false;
        }
        let new = self.add(topic, after);
        let gone = before.is_some_and(|before| self.remove(topic, before));
        new || gone
    }

    fn on(&self, topic: &ResourceName) -> usize {
        self.filters.get(topic).map_or(0, HashMap::len)
    }
}

impl LiveGroups {
    /// Whether a member of this group lives.
    pub(super) fn has_member(&self, group: &ResourceName) -> bool {
        self.0.contains_key(group)
    }

    /// A member's declaration is another one now. Gives the topics on which its group differs otherwise than before;
    /// that a group has one filter fewer because a member left it is nothing to report.
    pub(super) fn change(&mut self, before: &DeclaredByClient, after: &DeclaredByClient) -> Vec<Differing> {
        let stays = before.group == after.group;
        let mut changed = Vec::new();
        if let Some(name) = &after.group {
            if !self.0.contains_key(name) {
                self.0.insert(name.clone(), LiveGroup::default());
            }
            if let Some(group) = self.0.get_mut(name) {
                group.members += 1;
                for (topic, filter) in &after.subscriptions {
                    let old = before.subscriptions.get(topic).filter(|_| stays);
                    if group.replace(topic, old, filter) {
                        changed.push(topic.clone());
                    }
                }
            }
        }
        if let Some(name) = &before.group
            && let Some(group) = self.0.get_mut(name)
        {
            for (topic, filter) in &before.subscriptions {
                if !(stays && after.subscriptions.contains_key(topic)) {
                    group.remove(topic, filter);
                }
            }
            group.members -= 1;
            if group.members == 0 {
                self.0.remove(name);
            }
        }
        let Some((name, group)) = after.group.as_ref().and_then(|name| Some((name, self.0.get(name)?))) else {
            return Vec::new();
        };
        let differing = changed.into_iter().map(|topic| (group.on(&topic), topic)).filter(|(filters, _)| *filters > 1);
        differing.map(|(filters, topic)| Differing { group: name.clone(), topic, filters }).collect()
    }

    /// One member asks for another thing on one topic: what [`Self::change`] does, at the cost of that.
    pub(super) fn change_one(
        &mut self,
        name: &ResourceName,
        topic: &ResourceName,
        before: Option<&TagFilter>,
        after: &TagFilter,
    ) -> Option<Differing> {
        let group = self.0.get_mut(name)?;
        let changed = group.replace(topic, before, after);
        let filters = group.on(topic);
        (changed && filters > 1).then(|| Differing { group: name.clone(), topic: topic.clone(), filters })
    }

    /// Different filters of a group's members on a topic, and how many members have each.
    pub(super) fn on(&self, group: &ResourceName, topic: &ResourceName) -> Option<&HashMap<TagFilter, usize>> {
        self.0.get(group)?.filters.get(topic)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_told_once_a_minute_that_its_members_differ_and_groups_that_are_told_are_bounded() {
        let (mut told, now) = (ToldGroups::default(), Instant::now());
        let name = |n: usize| ResourceName::plain(n.to_string());
        for n in 0..TOLD_MAX {
            assert!(told.may_tell(&name(n), now));
        }
        assert!(!told.may_tell(&name(TOLD_MAX), now), "no room");
        assert!(!told.may_tell(&name(0), now + TELL_EVERY - Duration::from_millis(1)));
        assert!(told.may_tell(&name(0), now + TELL_EVERY));
        assert!(told.may_tell(&name(TOLD_MAX), now + TELL_EVERY), "the others are done with");
        assert_eq!(told.0.len(), 2);
    }
}
