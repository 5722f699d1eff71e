//! Filters are noted before anything relies on them, and a group has a bounded number of them.

use super::{Desk, places};
use crate::delivery::{Noting, filters, is_noted, noting};
use crate::record::{FilterNoted, FiltersGone, Join, Record, TopicDelete};
use crate::state::{FILTERS_MAX, GROUP_FILTER_TAGS_MAX, NoFilterRoom};
use crate::testing::{lease, read_snapshot, whole};
use crate::{GroupConfig, GroupId, QueueOffset, RecordPosition, Refusal, TagFilter, TagHash};

fn tag(n: usize) -> TagFilter {
    TagFilter::tags([n.to_string().as_str()])
}

fn desk() -> Desk {
    Desk::new(1, GroupConfig::default())
}

impl Desk {
    fn noting(&self, filter: &TagFilter) -> Noting {
        noting(&self.log.state, &self.reservations, (self.group, self.topic), filter)
    }

    fn noted(&self, filter: &TagFilter) -> Record {
        Record::FilterNoted(FilterNoted { group: self.group, topic: self.topic, filter: filter.clone() })
    }

    fn gone(&self, filter: &TagFilter) -> Record {
        Record::FiltersGone(FiltersGone { group: self.group, topic: self.topic, filters: vec![filter.clone()] })
    }
}

#[test]
fn a_filter_is_new_once_and_what_it_matches_waits_from_its_proposal_on() {
    let mut desk = desk();
    desk.log.send_all(desk.topic, &[Some("1"), Some("2")]);
    desk.filters([&tag(1)]);
    assert_eq!((desk.noting(&tag(1)), desk.noting(&tag(2))), (Noting::Noted, Noting::New));
    let record = desk.noted(&tag(2));
    desk.reservations.hold(&record);
    assert_eq!(desk.noting(&tag(2)), Noting::Noted);
    // Not through the desk, which would note and let go by itself.
    desk.log.apply(record.clone()).unwrap();
    desk.reservations.release(&record);
    assert_eq!(desk.noting(&tag(2)), Noting::Noted);
    assert_eq!(places(&desk.take(&tag(1), &[tag(2)], 9)), [(0, 0, 1)]);
    assert_eq!(desk.unfinished(), 2, "one is in hand, one waits");
}

#[test]
fn a_filter_that_the_log_did_not_take_is_noted_again() {
    let mut desk = desk();
    let (note, gone) = (desk.noted(&tag(1)), desk.gone(&tag(1)));
    desk.reservations.hold(&note);
    desk.reservations.abandon(&note);
    assert_eq!(desk.noting(&tag(1)), Noting::New);
    desk.log.apply(note.clone()).unwrap();
    desk.reservations.hold(&gone);
    assert_eq!(desk.noting(&tag(1)), Noting::New, "it is about to go");
    desk.reservations.hold(&note);
    assert_eq!(desk.noting(&tag(1)), Noting::Noted);
    for record in [gone, note] {
        desk.apply(record);
    }
    assert_eq!(desk.noting(&tag(1)), Noting::Noted);
}

#[test]
fn a_group_has_64_different_filters_on_a_topic_and_the_next_one_is_refused() {
    let mut desk = desk();
    let all: Vec<TagFilter> = (0..FILTERS_MAX).map(tag).collect();
    desk.filters(&all[..FILTERS_MAX - 2]);
    let on_its_way = desk.noted(&all[FILTERS_MAX - 2]);
    desk.reservations.hold(&on_its_way);
    assert_eq!(desk.noting(&all[FILTERS_MAX - 1]), Noting::New);
    let last = desk.noted(&all[FILTERS_MAX - 1]);
    desk.reservations.hold(&last);
    let refused = Noting::Refused(NoFilterRoom::Filters);
    assert_eq!(desk.noting(&tag(FILTERS_MAX)), refused);
    let subject = (desk.group, desk.topic);
    assert_eq!(filters(&desk.log.state, &desk.reservations, subject), FILTERS_MAX);
    assert!(!is_noted(&desk.log.state, &desk.reservations, subject, &tag(FILTERS_MAX)));
    assert!(is_noted(&desk.log.state, &desk.reservations, subject, &all[FILTERS_MAX - 1]), "it is on its way");
    desk.apply(on_its_way);
    desk.apply(last);
    assert_eq!(desk.noting(&tag(FILTERS_MAX)), refused);
    assert_eq!(desk.noting(&tag(7)), Noting::Noted);
    let one_more = desk.noted(&tag(FILTERS_MAX));
    assert!(matches!(desk.log.refused(one_more), Refusal::TooMany(text) if text.contains("64")));
    desk.log.apply(desk.gone(&tag(7))).unwrap();
    assert_eq!(desk.noting(&tag(FILTERS_MAX)), Noting::New);
}

/// A filter with so many tags, different from those with another first one.
fn with_tags(first: u64, tags: usize) -> TagFilter {
    TagFilter::Tags((first..).take(tags).map(TagHash).collect())
}

#[test]
fn one_group_has_its_share_of_all_tags_and_leaves_the_rest_to_others() {
    let mut desk = desk();
    let other = desk.log.member("other", desk.topic, GroupConfig::default());
    let [elsewhere, third] = ["u", "v"].map(|name| desk.log.topic(name, 1));
    let group = desk.group;
    for topic in [elsewhere, third] {
        desk.log.apply(Record::Join(Join { group, topic, at_end: false })).unwrap();
    }
    // Half is noted, on another topic; a quarter is on its way to a third one.
    let half: Vec<_> = (1..=GROUP_FILTER_TAGS_MAX as u64 / 512).map(|n| with_tags(n * 1000, 255)).collect();
    for filter in &half {
        desk.log.apply(Record::FilterNoted(FilterNoted { group, topic: elsewhere, filter: filter.clone() })).unwrap();
    }
    let held: Vec<_> = (101..=100 + GROUP_FILTER_TAGS_MAX as u64 / 1024)
        .map(|n| FilterNoted { group, topic: third, filter: with_tags(n * 1000, 255) })
        .map(Record::FilterNoted)
        .collect();
    held.iter().for_each(|record| desk.reservations.hold(record));
    let room = GROUP_FILTER_TAGS_MAX / 4;
    assert_eq!(desk.noting(&with_tags(1, room - 1)), Noting::New);
    assert_eq!(desk.noting(&with_tags(1, room)), Noting::Refused(NoFilterRoom::OfGroup));
    assert_eq!(desk.noting(&TagFilter::All), Noting::New, "it has no tags");
    let of_other = |desk: &Desk| noting(&desk.log.state, &desk.reservations, (other, desk.topic), &with_tags(1, room));
    assert_eq!(of_other(&desk), Noting::New);
    for record in held {
        desk.apply(record);
    }
    let topic = desk.topic;
    let note = |group: GroupId, tags| Record::FilterNoted(FilterNoted { group, topic, filter: with_tags(1, tags) });
    desk.log.apply(note(group, room - 1)).unwrap();
    assert_eq!(desk.noting(&with_tags(5, 1)), Noting::Refused(NoFilterRoom::OfGroup));
    desk.log.apply(note(other, room)).unwrap();
    // As in a log from before there was a share: what was noted then is noted again when it is read.
    desk.log.apply(Record::FilterNoted(FilterNoted { group, topic: third, filter: with_tags(7, 9) })).unwrap();
    // The share is counted from a snapshot, too, and is free again with what took it.
    let (_, state) = read_snapshot(&desk.log.state.snapshot(RecordPosition(0))).unwrap();
    desk.log.state = state;
    assert_eq!(desk.noting(&with_tags(5, 1)), Noting::Refused(NoFilterRoom::OfGroup));
    let name = crate::ResourceName::plain("u");
    desk.log.apply(Record::TopicDelete(TopicDelete { name, force: true })).unwrap();
    assert_eq!(desk.noting(&with_tags(5, room)), Noting::New);
}

/// What the state says stands against any leader, and over a restart from a snapshot.
#[test]
fn nothing_that_a_noted_filter_matches_is_done_unseen_whatever_a_lease_says() {
    let mut desk = desk();
    desk.log.send_all(desk.topic, &[Some("1"), Some("2"), Some("3"), Some("2")]);
    desk.filters([&tag(1), &tag(2)]);
    let (_, state) = read_snapshot(&desk.log.state.snapshot(RecordPosition(0))).unwrap();
    desk.log.state = state;
    let careless = lease(
        &desk.log,
        desk.group,
        desk.topic,
        1,
        crate::record::LeasedRange { leased: vec![QueueOffset(0)], ..whole(0, 0, 4) },
    );
    desk.log.apply(careless).unwrap();
    desk.generation = 1;
    assert_eq!(desk.unfinished(), 3, "the third message matches nobody");
    assert_eq!(places(&desk.take(&tag(2), &[tag(1)], 9)), [(0, 1, 1), (0, 3, 1)]);
}
