//! Filters that members of a group brought to a topic (ruling 12): what one of them matches is never skipped for the
//! group, whoever receives.

use std::collections::{BTreeSet, HashMap};

use crate::{Refusal, TagFilter, TagHash};

/// Most different filters of a group on a topic.
pub const FILTERS_MAX: usize = 64;
/// Most tags in all filters of all groups; a filter counts for one more than it has tags.
pub const FILTER_TAGS_MAX: usize = 1 << 20;

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

/// Whether a group that has so many filters may have one more, where all filters have so many tags.
pub(crate) fn check_room(filters: usize, tags: usize, filter: &TagFilter) -> Result<(), Refusal> {
    if filters >= FILTERS_MAX {
        return Err(Refusal::TooMany(format!(
            "members of the group have {FILTERS_MAX} different filters on this topic already; give all members the same \
             filter, or use one group for each; filters that nobody has any more are forgotten after some minutes"
        )));
    }
    if tags + filter.weight() > FILTER_TAGS_MAX {
        return Err(Refusal::TooMany(format!(
            "the filters of all groups have {FILTER_TAGS_MAX} tags already; use filters with fewer tags"
        )));
    }
    Ok(())
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
    fn both_bounds_hold_on_both_sides() {
        let filter = TagFilter::tags(["a", "b"]);
        assert!(check_room(FILTERS_MAX - 1, FILTER_TAGS_MAX - 3, &filter).is_ok());
        assert!(matches!(check_room(FILTERS_MAX, 0, &filter), Err(Refusal::TooMany(_))));
        assert!(matches!(check_room(0, FILTER_TAGS_MAX - 2, &filter), Err(Refusal::TooMany(_))));
    }
}
