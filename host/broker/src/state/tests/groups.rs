//! Groups: where they begin, and what a deletion forgets.

use crate::record::{GroupDelete, GroupPut, Join, Record};
use crate::state::{Applied, Effect};
use crate::testing::{Log, ack, lease, whole};
use crate::{GroupConfig, GroupId, Refusal, ResourceName, StartPosition};

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
    let mut log = Log::new();
    let topic = log.topic("t", 2);
    log.send_all(topic, &[None, None]);
    log.send(topic, 1, None);
    let all = log.member("all", topic, GroupConfig::default());
    assert_eq!(log.effects, [Effect::Joined, Effect::Available(topic)]);
    let new = log.member("new", topic, from_end());
    let next = |group| [0, 1].map(|queue| log.progress(group, topic).next(queue));
    assert_eq!((next(all), next(new)), ([0, 0], [2, 1]));
}

#[test]
fn joining_again_moves_nothing() {
    let mut log = Log::new();
    let topic = log.topic("t", 1);
    let group = log.member("g", topic, from_end());
    log.send(topic, 0, None);
    log.apply(Record::Join(Join { group, topic })).unwrap();
    assert_eq!(log.progress(group, topic).next(0), 0);
}

#[test]
fn a_queue_that_is_added_later_is_read_from_its_first_message() {
    let mut log = Log::new();
    let topic = log.topic("t", 1);
    log.send(topic, 0, None);
    let group = log.member("g", topic, from_end());
    log.topic("t", 2);
    log.send(topic, 1, None);
    assert_eq!(log.progress(group, topic).next(1), 0);
    log.apply(lease(&log, group, topic, 1, whole(1, 0, 1))).unwrap();
    assert_eq!(log.progress(group, topic).next(1), 1);
}

#[test]
fn settings_change_without_touching_progress_and_guard_their_revision() {
    let mut log = Log::new();
    let topic = log.topic("t", 1);
    log.send(topic, 0, None);
    let group = log.member("g", topic, GroupConfig::default());
    let revision = log.state.groups().get(group).unwrap().revision;
    log.apply(lease(&log, group, topic, 1, whole(0, 0, 1))).unwrap();
    let three = GroupConfig { max_attempts: 3, ..GroupConfig::default() };
    assert!(matches!(log.refused(put(three.clone(), Some(0))), Refusal::PreconditionFailed(_)));
    let changed = log.apply(put(three, Some(revision))).unwrap();
    assert_eq!(changed, Applied::Set { created: false, revision: log.last_position() });
    assert_eq!(log.state.groups().get(group).unwrap().config.max_attempts, 3);
    assert_eq!(log.progress(group, topic).unfinished(), 1);
}

#[test]
fn a_group_made_anew_resurrects_nothing() {
    let mut log = Log::new();
    let topic = log.topic("t", 1);
    log.send(topic, 0, None);
    let first = log.member("g", topic, GroupConfig::default());
    log.apply(lease(&log, first, topic, 1, whole(0, 0, 1))).unwrap();
    log.apply(delete()).unwrap();
    assert!(matches!(log.refused(delete()), Refusal::GroupNotFound(_)));
    assert!(matches!(log.refused(ack(first, topic, 0, 1)), Refusal::InvalidHandle(_)));
    let second = log.member("g", topic, GroupConfig::default());
    assert_ne!(first, second);
    assert_eq!(log.progress(second, topic).next(0), 0, "it begins again");
    assert!(matches!(log.refused(ack(first, topic, 0, 1)), Refusal::InvalidHandle(_)));
    assert!(matches!(log.refused(ack(second, topic, 0, 1)), Refusal::InvalidHandle(_)));
}

#[test]
fn a_group_that_is_gone_cannot_join() {
    let mut log = Log::new();
    let topic = log.topic("t", 1);
    let join = Record::Join(Join { group: GroupId(9), topic });
    assert!(matches!(log.refused(join), Refusal::NotFound(_)));
}
