//! What each disk has when a run begins: a log in which a cluster began.

use std::time::Duration;

use vouch_broker::record::{
    ClusterInit, FEATURE_LEVEL, GroupPut, Join, MembersChanged, NodeInvited, NodeJoined, NodeMoved, PluginChunk,
    PluginPublish, Record, TopicPut,
};
use vouch_broker::state::RecordAt;
use vouch_broker::testing::cluster_init;
use vouch_broker::{
    CheckPolicy, GroupConfig, Millis, RecordPosition, ResourceName, State, TopicConfig, TopicType, Unconsumed,
};
use vouch_cluster::{MembersChange, NodeAddresses, NodeId};
use vouch_commitlog::simulated::{Image, SimDisk, Steps, open};
use vouch_commitlog::{Appender, Checkpoint, Entry, EntryHeader, EntryKind};

use crate::clients::Names;
use crate::guests::{self, DIGEST, GROUP, IN, MOST_CHECKS, OUT, ROOM, WITHDRAWN};
use crate::machine::{BEGIN, log_config};

/// So many entries are committed before a run begins.
pub(crate) const BEGUN: u64 = 3;

/// What nodes bring when they join.
pub(crate) const TOKEN: [u8; 32] = [7; 32];

pub(crate) fn addresses(node: NodeId) -> NodeAddresses {
    NodeAddresses { peer: format!("n{node}:7000"), grpc: String::new() }
}

/// Appends an entry with these records, and applies them.
fn happen(appender: &mut Appender, state: &mut State, index: u64, kind: EntryKind, records: &[Record]) {
    let (mut bytes, mut effects) = (Vec::new(), Vec::new());
    let mut position = RecordPosition(appender.next_payload_position(0).0);
    for record in records {
        let before = bytes.len();
        assert!(record.encode(&mut bytes));
        state.apply(RecordAt { position, time: Millis(BEGIN) }, record, &mut effects).unwrap();
        position = position.plus((bytes.len() - before) as u64);
    }
    let header = EntryHeader { term: 1, index, leader_time_ms: BEGIN, kind };
    appender.append(header, &[&bytes]).unwrap();
}

/// The entries of such a log.
pub(crate) fn first_entries(image: &Image) -> Vec<(Checkpoint, Entry)> {
    let (_appender, reader, _) = open(&SimDisk::new(image.clone()), &log_config(), drop, &mut |_| Ok(())).unwrap();
    let entries = reader.entries_from(reader.start()).map(Result::unwrap);
    entries.map(|entry| (reader.checkpoint_at(entry.position).unwrap(), entry)).collect()
}

/// Checks that are due within a run.
fn soon() -> CheckPolicy {
    let (immunity, interval) = (Duration::from_millis(150), Duration::from_millis(200));
    CheckPolicy { immunity, interval, max_checks: MOST_CHECKS, ..CheckPolicy::default() }
}

/// A component, its binding, and what it consumes and publishes to.
fn of_guests() -> Vec<Record> {
    let topic = |name, queues| {
        let config = TopicConfig { queues, ..TopicConfig::default() };
        Record::TopicPut(TopicPut { name: ResourceName::plain(name), config, expected_revision: None })
    };
    let (name, verdict) = ("p".to_owned(), "{}".to_owned());
    let group = ResourceName::plain("guests");
    vec![
        topic("in", 2),
        topic("out", 1),
        topic("withdrawn", 1),
        Record::GroupPut(GroupPut { name: group, config: GroupConfig::default(), expected_revision: None }),
        Record::Join(Join { group: GROUP, topic: IN, at_end: false }),
        Record::PluginChunk(PluginChunk { digest: DIGEST, offset: 0, total: 4, data: vec![1; 4] }),
        Record::PluginPublish(PluginPublish { name, tag: "1".to_owned(), digest: DIGEST, expected: None, verdict }),
        Record::BindingPut(guests::binding(ROOM)),
    ]
}

/// A disk with a log in which a cluster of so many voters began, and the names of what is in it. `lets_go`: messages go though
/// nobody consumed them, or nothing that lies behind a forgotten one would ever leave the log. `guests`: there is what these need.
pub(crate) fn first_image(voters: u64, lets_go: bool, guests: bool) -> (Image, Names) {
    let disk = SimDisk::new(Image::new());
    let (mut appender, ..) = open(&disk, &log_config(), drop, &mut |_| Ok(())).unwrap();
    let (mut state, names) = (State::default(), Names::ALL);
    let plain = ResourceName::plain;
    let unconsumed = if lets_go { Unconsumed::Expire } else { Unconsumed::Keep };
    let transaction = if guests { soon() } else { CheckPolicy::default() };
    let mixed =
        TopicConfig { topic_type: TopicType::Mixed, queues: 2, unconsumed, transaction, ..TopicConfig::default() };
    let mut records = vec![
        Record::ClusterInit(ClusterInit { feature_level: FEATURE_LEVEL, ..cluster_init() }),
        Record::TopicPut(TopicPut { name: plain("t"), config: mixed, expected_revision: None }),
        Record::GroupPut(GroupPut { name: plain("g"), config: GroupConfig::default(), expected_revision: None }),
        Record::Join(Join { group: names.group, topic: names.topic, at_end: false }),
        Record::NodeMoved(NodeMoved { node: NodeId::FIRST, addresses: addresses(NodeId::FIRST) }),
    ];
    for node in (2..=voters).map(NodeId) {
        let until = Millis(u64::MAX);
        records.push(Record::NodeInvited(NodeInvited { token: TOKEN, until, votes_at_once: false, replaces: None }));
        records.push(Record::NodeJoined(NodeJoined { node, token: TOKEN, addresses: addresses(node) }));
    }
    if guests {
        records.extend(of_guests());
    }
    happen(&mut appender, &mut state, 1, EntryKind::Records, &records);
    let voters = (1..=voters).map(NodeId).collect();
    let to = MembersChange::To { voters, learners: Default::default() };
    for (change, index) in [to, MembersChange::Finish].into_iter().zip(2..=BEGUN) {
        let change = Record::MembersChanged(MembersChanged { change });
        happen(&mut appender, &mut state, index, EntryKind::Members, &[change]);
    }
    let topic = state.topics().named(&plain("t")).unwrap().id;
    let group = state.groups().named(&plain("g")).unwrap().id;
    assert_eq!((topic, group), (names.topic, names.group));
    for (name, id) in [("in", IN), ("out", OUT), ("withdrawn", WITHDRAWN)] {
        let known = state.topics().named(&plain(name)).map_or(id, |topic| topic.id);
        assert_eq!(known, id);
    }
    Steps::new(2).settle(&appender);
    drop(appender);
    (disk.image(), names)
}
