//! Filters of live members, by group and topic: who asks for what is found without a look at all members.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use vouch_broker::{ResourceName, TagFilter};

/// A group is told at most once in this time that its members differ.
const TELL_EVERY: Duration = Duration::from_secs(60);
/// Groups that are told in this time at most.
const TOLD_MAX: usize = 1024;

/// A group, a topic, and what one member asks for there.
pub(crate) type Place<'a> = (&'a ResourceName, &'a ResourceName, &'a TagFilter);

/// How many members have each filter.
type Counted = BTreeMap<TagFilter, usize>;

/// Filters of all live members.
#[derive(Default)]
pub(crate) struct MemberFilters {
    groups: HashMap<ResourceName, HashMap<ResourceName, Counted>>,
    /// Groups that were told lately that their members differ.
    told: HashMap<ResourceName, Instant>,
    /// Filters that came and went so far: what all of it cost.
    #[cfg(test)]
    pub(crate) changes: usize,
}

/// Members of a group that ask for different things.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Differing {
    pub(crate) group: ResourceName,
    pub(crate) topic: ResourceName,
    /// How many different filters there are.
    pub(crate) filters: usize,
    /// The log has not said so lately.
    pub(crate) tell: bool,
}

impl MemberFilters {
    /// What one member asked for is replaced by what it asks for now. Returns the places where filters differ since, and
    /// did not or differed in another way before.
    pub(crate) fn replace<'a>(
        &mut self,
        before: impl Iterator<Item = Place<'a>>,
        after: impl Iterator<Item = Place<'a>>,
        now: Instant,
    ) -> Vec<Differing> {
        let mut changed: HashMap<(&ResourceName, &ResourceName), Vec<&TagFilter>> = HashMap::new();
        let mut toggle = |(group, topic, filter): Place<'a>| {
            let filters = changed.entry((group, topic)).or_default();
            match filters.iter().position(|other| *other == filter) {
                Some(at) => _ = filters.swap_remove(at),
                None => filters.push(filter),
            }
        };
        for place in before {
            if self.remove(place) {
                toggle(place);
            }
        }
        for place in after {
            if self.add(place) {
                toggle(place);
            }
        }
        let changed = changed.into_iter().filter(|(_, filters)| !filters.is_empty()).map(|(place, _)| place);
        let mut differing = Vec::new();
        for (group, topic) in changed {
            let filters = self.counted(group, topic).map_or(0, Counted::len);
            if filters > 1 {
                let tell = self.may_tell(group, now);
                differing.push(Differing { group: group.clone(), topic: topic.clone(), filters, tell });
            }
        }
        differing
    }

    /// The different filters of a group's members on a topic.
    pub(crate) fn of(&self, group: &ResourceName, topic: &ResourceName) -> impl Iterator<Item = &TagFilter> {
        self.counted(group, topic).into_iter().flat_map(Counted::keys)
    }

    /// Whether some member of a group asks for this.
    pub(crate) fn has(&self, (group, topic, filter): Place<'_>) -> bool {
        self.counted(group, topic).is_some_and(|filters| filters.contains_key(filter))
    }

    fn counted(&self, group: &ResourceName, topic: &ResourceName) -> Option<&Counted> {
        self.groups.get(group)?.get(topic)
    }

    /// Returns whether it is the first.
    fn add(&mut self, (group, topic, filter): Place<'_>) -> bool {
        #[cfg(test)]
        {
            self.changes += 1;
        }
        let topics = self.groups.entry(group.clone()).or_default();
        let count = topics.entry(topic.clone()).or_default().entry(filter.clone()).or_default();
        *count += 1;
        *count == 1
    }

    /// Returns whether it was the last.
    fn remove(&mut self, (group, topic, filter): Place<'_>) -> bool {
        #[cfg(test)]
        {
            self.changes += 1;
        }
        let Some(topics) = self.groups.get_mut(group) else { return false };
        let Some(filters) = topics.get_mut(topic) else { return false };
        let Some(count) = filters.get_mut(filter) else { return false };
        *count -= 1;
        if *count > 0 {
            return false;
        }
        filters.remove(filter);
        if filters.is_empty() {
            topics.remove(topic);
        }
        if topics.is_empty() {
            self.groups.remove(group);
        }
        true
    }

    fn may_tell(&mut self, group: &ResourceName, now: Instant) -> bool {
        let lately = |at: &Instant| now.saturating_duration_since(*at) < TELL_EVERY;
        if self.told.get(group).is_some_and(lately) {
            return false;
        }
        if self.told.len() >= TOLD_MAX {
            self.told.retain(|_, at| lately(at));
        }
        let room = self.told.len() < TOLD_MAX;
        if room {
            self.told.insert(group.clone(), now);
        }
        room
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> ResourceName {
        ResourceName::plain(text)
    }

    #[test]
    fn a_group_is_told_once_a_minute_and_every_difference_is_counted() {
        let (mut filters, now) = (MemberFilters::default(), Instant::now());
        let (group, topic) = (name("g"), name("t"));
        let tags: Vec<TagFilter> = ["a", "b", "c", "d"].map(|tag| TagFilter::tags([tag])).into();
        let mut come = |tag: usize, at| {
            let differing = filters.replace(std::iter::empty(), [(&group, &topic, &tags[tag])].into_iter(), at);
            differing.into_iter().map(|differing| (differing.filters, differing.tell)).collect::<Vec<_>>()
        };
        assert_eq!(come(0, now), []);
        assert_eq!(come(1, now), [(2, true)]);
        assert_eq!(come(1, now), []);
        assert_eq!(come(2, now + TELL_EVERY - Duration::from_millis(1)), [(3, false)]);
        assert_eq!(come(3, now + TELL_EVERY), [(4, true)]);
    }

    #[test]
    fn groups_that_are_told_are_bounded() {
        let (mut filters, now) = (MemberFilters::default(), Instant::now());
        for n in 0..TOLD_MAX {
            assert!(filters.may_tell(&name(&n.to_string()), now));
        }
        assert!(!filters.may_tell(&name("one more"), now));
        assert!(filters.may_tell(&name("one more"), now + TELL_EVERY));
        assert_eq!(filters.told.len(), 1);
    }

    #[test]
    fn a_filter_is_there_until_its_last_member_is_gone_and_nothing_is_kept_then() {
        let (mut filters, now) = (MemberFilters::default(), Instant::now());
        let (group, topic, filter) = (name("g"), name("t"), TagFilter::tags(["a"]));
        let place = || [(&group, &topic, &filter)].into_iter();
        filters.replace(std::iter::empty(), place(), now);
        filters.replace(std::iter::empty(), place(), now);
        filters.replace(place(), std::iter::empty(), now);
        assert!(filters.has((&group, &topic, &filter)));
        filters.replace(place(), std::iter::empty(), now);
        assert!(!filters.has((&group, &topic, &filter)) && filters.groups.is_empty());
    }
}
