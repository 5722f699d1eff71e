//! Filters that members of a group brought to a topic (ruling 12): what one of them matches is never skipped for the
//! group, whoever receives.

use std::collections::{BTreeSet, HashMap};

use crate::{Refusal, TagFilter, TagHash};

/// Most different filters of a group on a topic.
pub const FILTERS_MAX: usize = 64;
/// Most tags in all filters of all groups; a filter counts for one more than it has tags.
pub const FILTER_TAGS_MAX: usize = 1 << 20;
/// Most of them in the filters of one group, on all topics: a few groups do not keep the others out.
pub const GROUP_FILTER_TAGS_MAX: usize = FILTER_TAGS_MAX / 32;

/// The filters of a group on a topic.
#[derive(Debug, Default)]
pub struct Filters {
    noted: BTreeSet<TagFilter>,
    /// How many of them have a tag.
    tags: HashMap<TagHash, u32>,
}

impl Filters {
    /// All of them, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &TagFilter> {
        self.noted.iter()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.noted.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.noted.is_empty()
    }

    /// Whether this very filter is there.
    pub fn contains(&self, filter: &TagFilter) -> bool {
        self.noted.contains(filter)
    }

    /// Whether some member wants messages with this tag. Takes the same time however many filters there are.
    pub fn matches(&self, tag: TagHash) -> bool {
        self.noted.first() == Some(&TagFilter::All) || (tag.0 != 0 && self.tags.contains_key(&tag))
    }

    pub(super) fn weight(&self) -> usize {
        self.noted.iter().map(TagFilter::weight).sum()
    }

    pub(super) fn add(&mut self, filter: TagFilter) {
        if let TagFilter::Tags(tags) = &filter
            && !self.noted.contains(&filter)
        {
            tags.iter().for_each(|tag| *self.tags.entry(*tag).or_default() += 1);
        }
        self.noted.insert(filter);
    }

    /// Returns whether it was there.
    pub(super) fn remove(&mut self, filter: &TagFilter) -> bool {
        if !self.noted.remove(filter) {
            return false;
        }
        if let TagFilter::Tags(tags) = filter {
            for tag in tags {
                let Some(count) = self.tags.get_mut(tag) else { continue };
                *count -= 1;
                if *count == 0 {
                    self.tags.remove(tag);
                }
            }
        }
        true
    }
}

/// What a new filter meets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Crowd {
    /// Different filters of its group on its topic.
    pub(super) filters: usize,
    /// Tags in all filters of its group.
    pub(super) of_group: usize,
    /// Tags in all filters of all groups.
    pub(super) of_all: usize,
}

/// Why a group may not have one more filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoFilterRoom {
    /// It has [`FILTERS_MAX`] on the topic.
    Filters,
    /// Its filters would have more than [`GROUP_FILTER_TAGS_MAX`] tags.
    OfGroup,
    /// All filters would have more than [`FILTER_TAGS_MAX`] tags.
    OfAll,
}

impl From<NoFilterRoom> for Refusal {
    fn from(no_room: NoFilterRoom) -> Self {
        Self::TooMany(match no_room {
            NoFilterRoom::Filters => format!(
                "members of the group have {FILTERS_MAX} different filters on this topic already; give all members the \
                 same filter, or use one group for each; filters that nobody has any more are forgotten after some minutes \
                 in which a member is there"
            ),
            NoFilterRoom::OfGroup => format!(
                "the filters of the group have {GROUP_FILTER_TAGS_MAX} tags already; use filters with fewer tags, or more \
                 groups"
            ),
            NoFilterRoom::OfAll => format!(
                "the filters of all groups have {FILTER_TAGS_MAX} tags already; delete groups that nobody needs, use \
                 filters with fewer tags, or receive everything (*)"
            ),
        })
    }
}

/// Whether a group may have one more filter. One that takes everything finds room however many tags there are: it has
/// none, and a group has no more than one of them on a topic.
pub(super) fn check_room(crowd: Crowd, filter: &TagFilter) -> Result<(), NoFilterRoom> {
    let weight = filter.weight();
    if crowd.filters >= FILTERS_MAX {
        Err(NoFilterRoom::Filters)
    } else if *filter == TagFilter::All {
        Ok(())
    } else if crowd.of_group + weight > GROUP_FILTER_TAGS_MAX {
        Err(NoFilterRoom::OfGroup)
    } else if crowd.of_all + weight > FILTER_TAGS_MAX {
        Err(NoFilterRoom::OfAll)
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_wanted_until_the_last_filter_with_it_is_gone() {
        let (ab, bc) = (TagFilter::tags(["a", "b"]), TagFilter::tags(["b", "c"]));
        let mut filters = Filters::default();
        let tag = |tag| TagHash::of(Some(tag));
        for filter in [&ab, &ab, &bc] {
            filters.add(filter.clone());
        }
        assert_eq!((filters.len(), filters.weight()), (2, 6));
        assert!(filters.remove(&ab) && !filters.remove(&ab));
        assert!(!filters.matches(tag("a")) && filters.matches(tag("b")) && !filters.matches(TagHash(0)));
        filters.add(TagFilter::All);
        assert!(filters.matches(tag("a")) && filters.matches(TagHash(0)));
        assert!(filters.remove(&TagFilter::All) && filters.remove(&bc) && filters.is_empty());
        assert!(!filters.matches(tag("b")));
    }

    #[test]
    fn all_three_bounds_hold_on_both_sides() {
        let filter = TagFilter::tags(["a", "b"]);
        let last = Crowd { filters: FILTERS_MAX - 1, of_group: GROUP_FILTER_TAGS_MAX - 3, of_all: FILTER_TAGS_MAX - 3 };
        assert_eq!(check_room(last, &filter), Ok(()));
        for (crowd, no_room) in [
            (Crowd { filters: FILTERS_MAX, ..last }, NoFilterRoom::Filters),
            (Crowd { of_group: last.of_group + 1, ..last }, NoFilterRoom::OfGroup),
            (Crowd { of_all: last.of_all + 1, ..last }, NoFilterRoom::OfAll),
        ] {
            assert_eq!(check_room(crowd, &filter), Err(no_room));
            assert!(matches!(Refusal::from(no_room), Refusal::TooMany(_)));
        }
    }

    #[test]
    fn who_takes_everything_finds_room_among_any_number_of_tags() {
        let full = Crowd { filters: FILTERS_MAX - 1, of_group: GROUP_FILTER_TAGS_MAX, of_all: FILTER_TAGS_MAX };
        assert_eq!(check_room(full, &TagFilter::All), Ok(()));
        assert_eq!(check_room(Crowd { filters: FILTERS_MAX, ..full }, &TagFilter::All), Err(NoFilterRoom::Filters));
    }
}
