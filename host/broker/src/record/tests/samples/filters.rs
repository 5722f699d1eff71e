//! Of the filters of a group's members.

use std::collections::BTreeSet;

use proptest::collection::btree_set;
use proptest::option;
use proptest::prelude::*;

use super::Sampled;
use super::step::Step;
use super::values::lives;
use crate::record::{FilterNoted, FiltersGone};
use crate::testing::RecordLog;
use crate::{GroupId, TagFilter, TagHash, TopicId};

impl Sampled for FilterNoted {
    const GOLDEN: &str = "26000000 38b2f58d 3500 01 00 01000000 03000000 01 02 0201000000000000 0403000000000000";
    const OFTEN: u16 = 24;

    fn sample() -> Self {
        Self { group: GroupId(1), topic: TopicId(3), filter: TagFilter::Tags(vec![TagHash(0x0102), TagHash(0x0304)]) }
    }

    fn strategy() -> impl Strategy<Value = Self> + 'static {
        (lives(), filter()).prop_map(|((group, topic), filter)| Self { group, topic, filter })
    }

    fn drawn(log: &RecordLog, step: Step) -> Self {
        let (group, topic) = step.joined(log);
        Self { group, topic, filter: drawn_filter(step.c) }
    }
}

impl Sampled for FiltersGone {
    const GOLDEN: &str = "20000000 d6fb0243 3600 01 00 01000000 03000000 02 00 01 01 0700000000000000";

    fn sample() -> Self {
        Self { group: GroupId(1), topic: TopicId(3), filters: vec![TagFilter::All, TagFilter::Tags(vec![TagHash(7)])] }
    }

    fn strategy() -> impl Strategy<Value = Self> + 'static {
        (lives(), btree_set(filter(), 0..4)).prop_map(|((group, topic), filters)| Self {
            group,
            topic,
            filters: filters.into_iter().collect(),
        })
    }

    fn drawn(log: &RecordLog, step: Step) -> Self {
        let (group, topic) = step.joined(log);
        let filters: BTreeSet<_> = [drawn_filter(step.c), drawn_filter(step.c >> 4)].into();
        Self { group, topic, filters: filters.into_iter().collect() }
    }
}

fn filter() -> impl Strategy<Value = TagFilter> {
    let tags = btree_set(1..=u64::MAX, 0..5);
    option::of(tags).prop_map(|tags| match tags {
        None => TagFilter::All,
        Some(tags) => TagFilter::Tags(tags.into_iter().map(TagHash).collect()),
    })
}

fn drawn_filter(of: u16) -> TagFilter {
    match of % 4 {
        0 => TagFilter::All,
        1 => TagFilter::tags(["a"]),
        2 => TagFilter::tags(["b", "c"]),
        _ => TagFilter::tags(["a", "b"]),
    }
}
