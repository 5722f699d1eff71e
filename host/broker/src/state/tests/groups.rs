//! Groups: where they begin, and what a deletion forgets.

use crate::record::{
    FilterNoted, GroupDelete, GroupMade, GroupPut, GroupsUnused, Join, NodeStarted, Record, Seen, TopicDelete,
};
use crate::state::{Applied, Effect, MADE_GROUPS_MAX, UNUSED_GROUPS_MAX, UNUSED_MS};
use crate::testing::{RecordLog, ack, lease, read_snapshot, whole};
use crate::{GroupConfig, GroupId, QueueOffset, RecordPosition, Refusal, ResourceName, StartPosition, TagFilter};

fn put(config: GroupConfig, expected_revision: Option<u64>) -> Record {
    Record::GroupPut(GroupPut { name: ResourceName::plain("g"), config, expected_revision })
}

fn delete() -> Record {
    Record::GroupDelete(GroupDelete { name: ResourceName::plain("g") })
}

fn from_end() -> GroupConfig {
    GroupConfig { start: StartPosition::End, ..GroupConfig::default() }
}

#[test]
fn a_group_begins_where_its_settings_say() {
    let mut log = RecordLog::new();
    let topic = log.topic("t", 2);
    log.send_all(topic, &[None, None]);
    log.send(topic, 1, None);
    let all = log.member("all", topic, GroupConfig::default());
    assert_eq!(log.effects, [Effect::Joined, Effect::AvailableTo(all, topic)]);
    let new = log.member("new", topic, from_end());
    let next = |group| [0, 1].map(|queue| log.progress(group, topic).next(queue));
    assert_eq!((next(all), next(new)), ([0, 0].map(QueueOffset), [2, 1].map(QueueOffset)));
}

#[test]
fn joining_again_moves_nothing() {
    let mut log = RecordLog::new();
    let topic = log.topic("t", 1);
    let group = log.member("g", topic, from_end());
    log.send(topic, 0, None);
    log.apply(Record::Join(Join { group, topic, at_end: false })).unwrap();
    assert_eq!(log.progress(group, topic).next(0), QueueOffset(0));
}

#[test]
fn a_queue_that_is_added_later_is_read_from_its_first_message() {
    let mut log = RecordLog::new();
    let topic = log.topic("t", 1);
    log.send(topic, 0, None);
    let group = log.member("g", topic, from_end());
    log.topic("t", 2);
    log.send(topic, 1, None);
    assert_eq!(log.progress(group, topic).next(1), QueueOffset(0));
    log.apply(lease(&log, group, topic, 1, whole(1, 0, 1))).unwrap();
    assert_eq!(log.progress(group, topic).next(1), QueueOffset(1));
}

#[test]
fn settings_change_without_touching_progress_and_guard_their_revision() {
    let mut log = RecordLog::new();
    let topic = log.topic("t", 1);
    log.send(topic, 0, None);
    let group = log.member("g", topic, GroupConfig::default());
    let revision = log.state.groups().get(group).unwrap().revision;
    log.apply(lease(&log, group, topic, 1, whole(0, 0, 1))).unwrap();
    let three = GroupConfig { max_attempts: 3, ..GroupConfig::default() };
    assert!(matches!(log.refused(put(three.clone(), Some(0))), Refusal::PreconditionFailed(_)));
    let changed = log.apply(put(three, Some(revision))).unwrap();
    assert_eq!(changed, Applied::Set { created: false, revision: log.last_position().0 });
    assert_eq!(log.state.groups().get(group).unwrap().config.max_attempts, 3);
    assert_eq!(log.progress(group, topic).unfinished(), 1);
}

#[test]
fn a_group_made_anew_resurrects_nothing() {
    let mut log = RecordLog::new();
    let topic = log.topic("t", 1);
    log.send(topic, 0, None);
    let first = log.member("g", topic, GroupConfig::default());
    log.apply(lease(&log, first, topic, 1, whole(0, 0, 1))).unwrap();
    log.apply(delete()).unwrap();
    assert!(matches!(log.refused(delete()), Refusal::GroupNotFound(_)));
    assert!(matches!(log.refused(ack(first, topic, 0, 1)), Refusal::InvalidHandle(_)));
    let second = log.member("g", topic, GroupConfig::default());
    assert_ne!(first, second);
    assert_eq!(log.progress(second, topic).next(0), QueueOffset(0), "it begins again");
    assert!(matches!(log.refused(ack(first, topic, 0, 1)), Refusal::InvalidHandle(_)));
    assert!(matches!(log.refused(ack(second, topic, 0, 1)), Refusal::InvalidHandle(_)));
}

#[test]
fn a_group_that_is_gone_cannot_join() {
    let mut log = RecordLog::new();
    let topic = log.topic("t", 1);
    let join = Record::Join(Join { group: GroupId(9), topic, at_end: false });
    assert!(matches!(log.refused(join), Refusal::NotFound(_)));
}

fn made(name: &str) -> Record {
    Record::GroupMade(GroupMade { name: ResourceName::plain(name), config: GroupConfig::default() })
}

fn id(log: &RecordLog, name: &str) -> GroupId {
    log.state.groups().named(&ResourceName::plain(name)).unwrap().id
}

fn unused(groups: &[GroupId]) -> Record {
    Record::GroupsUnused(GroupsUnused { groups: groups.to_vec() })
}

/// Of `g`, and what became of it.
fn forgets(log: &mut RecordLog) -> bool {
    let group = id(log, "g");
    match log.apply(unused(&[group])).unwrap() {
        Applied::Forgotten { groups } => groups == 1,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_group_that_a_receive_made_and_nobody_used_goes_a_day_after_it_was_last_seen() {
    let mut log = RecordLog::new();
    log.apply(made("g")).unwrap();
    assert_eq!(log.effects, [Effect::Directory, Effect::Joined]);
    assert!(matches!(log.refused(made("g")), Refusal::PreconditionFailed(_)));
    log.pass_ms(UNUSED_MS);
    log.apply(Record::Seen(Seen { groups: vec![id(&log, "g")] })).unwrap();
    log.pass_ms(UNUSED_MS);
    assert!(!forgets(&mut log));
    log.pass_ms(1);
    assert!(forgets(&mut log));
    assert_eq!(log.effects, [Effect::Directory]);
    assert!(log.state.groups().named(&ResourceName::plain("g")).is_err());
    log.apply(made("g")).unwrap();
    assert_eq!(id(&log, "g"), GroupId(2), "another life");
}

#[test]
fn time_in_which_no_node_ran_is_not_held_against_an_unused_group() {
    let mut log = RecordLog::new();
    log.apply(made("g")).unwrap();
    log.pass_ms(9 * UNUSED_MS);
    log.apply(Record::NodeStarted(NodeStarted { version: "0.1.0".to_owned() })).unwrap();
    log.pass_ms(UNUSED_MS);
    assert!(!forgets(&mut log));
    log.pass_ms(1);
    assert!(forgets(&mut log));
}

#[test]
fn a_group_that_was_used_or_that_an_operator_set_stays() {
    let mut log = RecordLog::new();
    let topic = log.topic("t", 1);
    log.send_all(topic, &[None, None]);
    log.apply(made("g")).unwrap();
    let group = id(&log, "g");
    log.apply(Record::Join(Join { group, topic, at_end: false })).unwrap();
    log.apply(lease(&log, group, topic, 1, whole(0, 0, 2))).unwrap();
    assert!(log.apply(ack(group, topic, 1, 7)).is_err());
    log.state = read_snapshot(&log.state.snapshot(RecordPosition(0))).unwrap().1;
    assert!(log.state.groups().get(group).unwrap().is_unused(), "a refused ack uses nothing");
    log.apply(ack(group, topic, 1, 1)).unwrap();
    log.state = read_snapshot(&log.state.snapshot(RecordPosition(0))).unwrap().1;
    log.pass_ms(99 * UNUSED_MS);
    assert!(!forgets(&mut log), "it acknowledged a message");
    log.apply(delete()).unwrap();
    log.apply(made("g")).unwrap();
    log.apply(put(GroupConfig::default(), None)).unwrap();
    log.pass_ms(99 * UNUSED_MS);
    assert!(!forgets(&mut log), "an operator wants it");
    log.apply(delete()).unwrap();
    log.apply(put(GroupConfig::default(), None)).unwrap();
    log.pass_ms(99 * UNUSED_MS);
    assert!(!forgets(&mut log), "an operator made it");
}

#[test]
fn receives_make_a_bounded_number_of_groups_and_leave_room_for_operators() {
    let mut log = RecordLog::new();
    let topic = log.topic("t", 1);
    log.send(topic, 0, None);
    let make = |log: &mut RecordLog, n: usize| log.apply(made(&format!("made-{n}")));
    let consume = |log: &mut RecordLog, n: usize| {
        let group = id(log, &format!("made-{n}"));
        log.apply(Record::Join(Join { group, topic, at_end: false })).unwrap();
        log.apply(lease(log, group, topic, 1, whole(0, 0, 1))).unwrap();
        log.apply(ack(group, topic, 0, 1)).unwrap();
    };
    (0..UNUSED_GROUPS_MAX).for_each(|n| _ = make(&mut log, n).unwrap());
    let refused = log.refused(made("g"));
    assert!(matches!(&refused, Refusal::TooMany(text) if text.contains("vouch group create g")), "{refused:?}");
    // Each that is used makes room for an unused one, up to the bound of all that receives make.
    for n in UNUSED_GROUPS_MAX..MADE_GROUPS_MAX {
        consume(&mut log, n - UNUSED_GROUPS_MAX);
        make(&mut log, n).unwrap();
    }
    consume(&mut log, MADE_GROUPS_MAX - 1);
    let refused = log.refused(made("g"));
    assert!(matches!(&refused, Refusal::TooMany(text) if text.contains("50000")), "{refused:?}");
    log.group("operators", GroupConfig::default());
    log.apply(Record::GroupDelete(GroupDelete { name: ResourceName::plain("made-0") })).unwrap();
    make(&mut log, 0).unwrap();
}

/// Filters live with the group's progress, and go with the lives that they belong to.
#[test]
fn a_topic_or_group_made_anew_has_none_of_the_filters_of_the_old_one() {
    let mut log = RecordLog::new();
    let topic = log.topic("t", 1);
    let group = log.member("g", topic, GroupConfig::default());
    let noted = |group, topic| Record::FilterNoted(FilterNoted { group, topic, filter: TagFilter::tags(["a"]) });
    log.apply(noted(group, topic)).unwrap();
    assert_eq!(log.progress(group, topic).filters().len(), 1);
    log.apply(Record::TopicDelete(TopicDelete { name: ResourceName::plain("t"), force: true })).unwrap();
    assert!(matches!(log.refused(noted(group, topic)), Refusal::InvalidHandle(_)));
    let second = log.topic("t", 1);
    log.apply(Record::Join(Join { group, topic: second, at_end: false })).unwrap();
    assert!(log.progress(group, second).filters().is_empty());
    log.apply(noted(group, second)).unwrap();
    log.apply(delete()).unwrap();
    assert!(matches!(log.refused(noted(group, second)), Refusal::InvalidHandle(_)));
    let anew = log.member("g", second, GroupConfig::default());
    assert!(log.progress(anew, second).filters().is_empty());
    assert_eq!(log.state.groups().counts(), (0, 0, 0));
}

#[test]
fn a_member_that_brings_a_filter_shows_that_its_group_lives() {
    let mut log = RecordLog::new();
    let topic = log.topic("t", 1);
    let group = log.member("g", topic, GroupConfig::default());
    log.pass_ms(5);
    log.apply(Record::FilterNoted(FilterNoted { group, topic, filter: TagFilter::All })).unwrap();
    assert_eq!(log.state.groups().get(group).unwrap().seen, log.now);
}
