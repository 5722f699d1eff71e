use vouch_broker::record::{Lease, Record};
use vouch_broker::testing::{RecordLog, whole};
use vouch_broker::{Generation, GroupConfig, GroupId, QueueOffset, ResourceName, TopicId};

use super::*;

/// Eight messages in one queue, for one group.
struct Leases {
    log: RecordLog,
    topic: TopicId,
    group: GroupId,
}

impl Leases {
    fn new() -> Self {
        let mut log = RecordLog::new();
        let topic = log.topic("t", 1);
        let group = log.member("g", topic, GroupConfig::default());
        log.send_all(topic, &[None; 8]);
        Self { log, topic, group }
    }

    /// Leases one message for a consumer whose leases are extended, or for one that sees to them itself.
    fn lease(&mut self, offset: u64, generation: u64, renewed_for: Option<&str>) {
        let (group, topic, deadline) = (self.group, self.topic, self.log.now.plus_ms(60_000));
        let renewed_for = renewed_for.map(str::to_owned);
        let (generation, fresh) = (Generation(generation), vec![whole(0, offset, offset + 1)]);
        let lease = Lease { group, topic, generation, deadline, renewed_for, fresh, again: vec![] };
        self.log.apply(Record::Lease(lease)).unwrap();
    }

    /// Which are given back to whoever leads from now on.
    fn given_back(&self, lost: &LostReceive, came: &[u64]) -> Vec<QueueOffset> {
        let came = came.iter().copied().map(Generation).collect();
        let changes = lost_leases(&self.log.state, self.log.now, lost, (&came, Millis(0)));
        changes.iter().map(|change| change.offset).collect()
    }
}

fn lost() -> LostReceive {
    LostReceive {
        ticket: 1,
        client_id: "c".to_owned(),
        group: ResourceName::plain("g"),
        topic: ResourceName::plain("t"),
        asked_ms_ago: 100,
        came: Vec::new(),
    }
}

#[test]
fn what_was_leased_to_the_consumer_shortly_before_and_never_came_is_given_back() {
    let mut leases = Leases::new();
    leases.lease(0, 10, Some("c"));
    leases.log.pass_ms(SHORTLY_MS + 1);
    leases.lease(1, 11, Some("c"));
    leases.lease(2, 12, Some("another"));
    leases.lease(3, 13, None);
    leases.lease(4, 14, Some("c"));
    assert_eq!(leases.given_back(&lost(), &[]), [1, 4].map(QueueOffset), "not what is old, nor anybody else's");
    assert_eq!(leases.given_back(&lost(), &[11, 99]), [QueueOffset(4)], "nor what did come");
    assert_eq!(leases.given_back(&lost(), &[11, 14]), []);
}

#[test]
fn what_was_leased_before_all_nodes_remember_is_not_given_back_since_it_may_have_come() {
    let mut leases = Leases::new();
    leases.lease(0, 10, Some("c"));
    leases.log.pass_ms(1_000);
    leases.lease(1, 11, Some("c"));
    leases.log.pass_ms(500);
    // The leader began with the state of a while before it was elected: what nodes remember counts from now.
    let began_at = leases.log.now;
    let given_back = |now_after_ms, remembers_ms| {
        let since = remembered_since(began_at.plus_ms(now_after_ms), Duration::from_millis(remembers_ms));
        let changes = lost_leases(&leases.log.state, began_at, &lost(), (&HashSet::new(), since));
        changes.iter().map(|change| change.offset.0).collect::<Vec<_>>()
    };
    assert_eq!((given_back(0, 60_000), given_back(2_000, 60_000)), (vec![0, 1], vec![0, 1]));
    assert_eq!((given_back(0, 2_000), given_back(0, 1_000)), (vec![1], vec![]));
    assert_eq!((given_back(2_000, 2_500), given_back(2_000, 4_000)), (vec![], vec![1]));
    assert_eq!(remembered_since(Millis(1), Duration::MAX), Millis(UNCERTAIN_MS), "nobody told that it forgot anything");
}

#[test]
fn what_is_given_back_is_visible_at_once_under_its_generation_and_does_not_count() {
    let mut leases = Leases::new();
    leases.lease(0, 10, Some("c"));
    let changes = lost_leases(&leases.log.state, leases.log.now, &lost(), (&HashSet::new(), Millis(0)));
    for change in changes {
        assert!(change.uncounted && change.generation == Generation(10));
        leases.log.apply(Record::ChangeInvisible(change)).unwrap();
    }
    let progress = leases.log.progress(leases.group, leases.topic);
    let given_back = progress.exception(0, QueueOffset(0)).unwrap();
    assert!(given_back.visible_at <= leases.log.now && given_back.attempts == 0 && given_back.renewed_for.is_none());
    assert_eq!(leases.given_back(&lost(), &[]), [], "once");
}

#[test]
fn where_the_topic_or_the_group_is_gone_there_is_nothing_to_give_back() {
    let mut leases = Leases::new();
    leases.lease(0, 10, Some("c"));
    let unknown = || ResourceName::plain("unknown");
    assert_eq!(leases.given_back(&LostReceive { topic: unknown(), ..lost() }, &[]), []);
    assert_eq!(leases.given_back(&LostReceive { group: unknown(), ..lost() }, &[]), []);
    let other = leases.log.topic("other", 1);
    assert_ne!(other, leases.topic);
    assert_eq!(leases.given_back(&LostReceive { topic: ResourceName::plain("other"), ..lost() }, &[]), []);
}
