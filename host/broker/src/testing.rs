//! A small log for tests: applies records as a node would, and keeps them for replay.
//!
//! Crates above get it with the feature `testing`, as a development dependency; nothing that is shipped has it. What
//! cannot be, in a test, panics.

#![allow(clippy::unwrap_used, reason = "a test that goes wrong here is to fail here")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{fs, io};

use bytes::Bytes;

use crate::check::CheckOverrides;
use crate::record::{
    Ack, Again, CheckAnswered, ClusterInit, End, EndedBy, FEATURE_LEVEL, GroupPut, Identity, Join, Lease, LeasedAgain,
    LeasedRange, MessageHead, NodeStarted, Record, TopicPut,
};
use crate::state::{Applied, Effect, Outcome, Progress, RecordAt, SnapshotError};
use crate::{
    BodyEncoding, Generation, GroupConfig, GroupId, HalfPosition, MessageKind, Millis, NewMessage, QueueOffset,
    RecordPosition, ResourceName, State, TagHash, TopicConfig, TopicId, TransactionOutcome,
};

/// When the log of a test begins.
pub const START: Millis = Millis(1_000_000);

/// A plain message with this id.
pub fn message(id: &str) -> NewMessage {
    NewMessage {
        message_id: id.to_owned(),
        tag: None,
        keys: vec![],
        properties: vec![],
        kind: MessageKind::Normal,
        encoding: BodyEncoding::Identity,
        born_at: Millis(5),
        born_host: "host".to_owned(),
        trace_context: None,
        message_group: None,
        deliver_at: None,
        recovery_ms: None,
        body: Bytes::from_static(b"body"),
    }
}

/// The head of a message with this id and content.
pub fn head(topic: TopicId, queue: u32, id: &str, content: u64) -> MessageHead {
    let (identity, tag, checks) = (Identity::of("client", id), TagHash(0), CheckOverrides::default());
    MessageHead { topic, queue, identity, content, tag, checks, record_len: 100 }
}

/// The first record of a log.
pub fn cluster_init() -> ClusterInit {
    ClusterInit {
        cluster_id: [1; 16],
        segment_size: 1 << 20,
        handle_key: [2; 32],
        feature_level: 1,
        written_by: "0.1.0".to_owned(),
    }
}

/// A log with the state that it makes.
pub struct RecordLog {
    /// What all records so far have made.
    pub state: State,
    /// The records, with where and when.
    pub records: Vec<(RecordAt, Record)>,
    /// Effects of the last record.
    pub effects: Vec<Effect>,
    /// Time of the next record.
    pub now: Millis,
    position: RecordPosition,
    ids: u64,
}

impl Default for RecordLog {
    fn default() -> Self {
        Self::new()
    }
}

impl RecordLog {
    /// A log with its first record, as this version makes it.
    pub fn new() -> Self {
        Self::at_level(FEATURE_LEVEL)
    }

    /// The same of a version whose newest feature level this was.
    pub fn at_level(feature_level: u32) -> Self {
        let state = State::default();
        let mut log =
            Self { state, records: Vec::new(), effects: Vec::new(), now: START, position: RecordPosition(64), ids: 0 };
        log.apply(Record::ClusterInit(ClusterInit { feature_level, ..cluster_init() })).unwrap();
        log
    }

    /// Appends a record and applies it.
    pub fn apply(&mut self, record: Record) -> Outcome {
        let at = RecordAt { position: self.position, time: self.now };
        // Messages that a component staged lie within the record, each at a position of its own.
        let staged = match &record {
            Record::Settled(settled) => settled.messages(at.position).map(|(_, head)| u64::from(head.record_len)).sum(),
            _ => 0,
        };
        self.position = self.position.plus(100 + staged);
        self.effects.clear();
        let outcome = self.state.apply(at, &record, &mut self.effects);
        self.records.push((at, record));
        outcome
    }

    /// Position of the last record.
    pub fn last_position(&self) -> RecordPosition {
        self.records.last().map_or(self.position, |(at, _)| at.position)
    }

    /// Where a record that was carried to this position lay at first.
    pub fn carried_from(&self, position: RecordPosition) -> Option<RecordPosition> {
        self.records.iter().find_map(|(at, record)| match record {
            Record::Carried(carried) if at.position == position => Some(carried.from),
            _ => None,
        })
    }

    /// Lets time pass.
    pub fn pass_ms(&mut self, ms: u64) {
        self.now = self.now.plus_ms(ms);
    }

    /// Applies a record that must change nothing at all; returns why.
    pub fn refused(&mut self, record: Record) -> crate::Refusal {
        // Moves the log's clock, which every record does.
        self.apply(Record::NodeStarted(NodeStarted { version: "0.1.0".to_owned() })).unwrap();
        let before = self.state.snapshot(RecordPosition::START);
        let refusal = self.apply(record).unwrap_err();
        assert!(before == self.state.snapshot(RecordPosition::START), "a refusal changed the state: {refusal}");
        refusal
    }

    /// Creates or changes a topic.
    pub fn put_topic(&mut self, name: &str, config: &TopicConfig) -> Outcome {
        let (name, config) = (ResourceName::plain(name), config.clone());
        self.apply(Record::TopicPut(TopicPut { name, config, expected_revision: None }))
    }

    /// Creates a topic with so many queues.
    pub fn topic(&mut self, name: &str, queues: u32) -> TopicId {
        self.put_topic(name, &TopicConfig { queues, ..TopicConfig::default() }).unwrap();
        self.topic_id(name)
    }

    /// The topic of this name, which must be there.
    pub fn topic_id(&self, name: &str) -> TopicId {
        self.state.topics().named(&ResourceName::plain(name)).unwrap().id
    }

    /// Creates or changes a group.
    pub fn group(&mut self, name: &str, config: GroupConfig) -> GroupId {
        let name = ResourceName::plain(name);
        self.apply(Record::GroupPut(GroupPut { name: name.clone(), config, expected_revision: None })).unwrap();
        self.state.groups().named(&name).unwrap().id
    }

    /// A group with these settings that receives from this topic.
    pub fn member(&mut self, name: &str, topic: TopicId, config: GroupConfig) -> GroupId {
        let group = self.group(name, config);
        self.apply(Record::Join(Join { group, topic, at_end: false })).unwrap();
        group
    }

    /// Sends a message under a new id, and returns its offset.
    pub fn send(&mut self, topic: TopicId, queue: u32, tag: Option<&str>) -> QueueOffset {
        self.ids += 1;
        let id = format!("sent-{}", self.ids);
        let head = MessageHead { tag: TagHash::of(tag), ..head(topic, queue, &id, 0) };
        match self.apply(Record::Message(head)).unwrap() {
            Applied::Stored { offset, .. } => offset,
            other => panic!("{other:?}"),
        }
    }

    /// Sends a message with each of these tags to queue 0.
    pub fn send_all(&mut self, topic: TopicId, tags: &[Option<&str>]) {
        for tag in tags {
            self.send(topic, 0, *tag);
        }
    }

    /// Prepares a transaction under a new id.
    pub fn half(&mut self, topic: TopicId) -> HalfPosition {
        self.half_with(topic, CheckOverrides::default())
    }

    /// The same with settings of its own for the checks.
    pub fn half_with(&mut self, topic: TopicId, checks: CheckOverrides) -> HalfPosition {
        self.ids += 1;
        let id = format!("half-{}", self.ids);
        match self.apply(Record::Half(MessageHead { checks, ..head(topic, 0, &id, 0) })).unwrap() {
            Applied::Prepared { transaction } => transaction,
            other => panic!("{other:?}"),
        }
    }

    /// How far a group is in a topic from which it receives.
    pub fn progress(&self, group: GroupId, topic: TopicId) -> &Progress {
        self.state.groups().get(group).unwrap().progress(topic).unwrap()
    }

    /// The state after a replay of all records.
    pub fn replay(&self) -> State {
        replay(State::default(), &self.records)
    }
}

/// Applies records to a state.
pub fn replay(mut state: State, records: &[(RecordAt, Record)]) -> State {
    let mut effects = Vec::new();
    for (at, record) in records {
        let _ = state.apply(*at, record, &mut effects);
        effects.clear();
    }
    state
}

/// Parts as a node stores them.
#[derive(Clone, Debug, Default)]
pub struct StoredParts(
    /// By their ids.
    pub BTreeMap<u64, Bytes>,
);

impl StoredParts {
    /// Reads a snapshot with these parts.
    pub fn read(&self, snapshot: &[u8]) -> Result<(RecordPosition, State), SnapshotError> {
        let missing = || io::Error::from(io::ErrorKind::NotFound);
        State::from_snapshot(snapshot, &mut |part| self.0.get(&part).cloned().ok_or_else(missing))
    }
}

/// A snapshot as some version wrote it, with what it needs.
pub struct SnapshotFixture {
    /// They are numbered as they came, whatever the versions of sections are.
    pub number: usize,
    /// Its bytes.
    pub snapshot: Vec<u8>,
    /// The part that it names, if it names one. Several may name the same.
    pub parts: StoredParts,
}

/// Where they lie: `snapshot-v7`, and the part that it and others name, `snapshot-v7.part-4711`.
pub fn fixtures_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures")
}

/// All of them, ascending.
pub fn snapshot_fixtures() -> Vec<SnapshotFixture> {
    let (mut snapshots, mut parts) = (BTreeMap::new(), Vec::new());
    for file in fs::read_dir(fixtures_folder()).unwrap() {
        let path = file.unwrap().path();
        let (name, bytes) = (path.file_name().unwrap().to_str().unwrap(), fs::read(&path).unwrap());
        match name.rsplit_once(".part-") {
            Some((_, id)) => parts.push((id.parse::<u64>().unwrap(), Bytes::from(bytes))),
            None => _ = snapshots.insert(name.strip_prefix("snapshot-v").unwrap().parse().unwrap(), bytes),
        }
    }
    // Parts are known by what their heads say, as a snapshot names them.
    let is = |bytes: &Bytes, checksum: u32| bytes[12..16] == checksum.to_le_bytes();
    let fixture = |(number, snapshot): (usize, Vec<u8>)| {
        let named = State::parts_of_snapshot(&snapshot).unwrap().into_iter().map(|(named, checksum)| {
            let (_, bytes) = parts.iter().find(|(id, bytes)| *id == named && is(bytes, checksum)).unwrap();
            (named, bytes.clone())
        });
        SnapshotFixture { number, parts: StoredParts(named.collect()), snapshot }
    };
    snapshots.into_iter().map(fixture).collect()
}

/// Reads a snapshot that needs no part.
pub fn read_snapshot(snapshot: &[u8]) -> Result<(RecordPosition, State), SnapshotError> {
    StoredParts::default().read(snapshot)
}

/// Ends a transaction by its producer.
pub fn end(transaction: HalfPosition, outcome: TransactionOutcome) -> Record {
    let by = EndedBy::Client { client_id: "client".to_owned(), from_check: false };
    Record::End(End { transaction, outcome, queue: 0, by, reason: String::new() })
}

/// The answer *unknown* to a check.
pub fn unknown(transaction: HalfPosition, check_number: u32, asked_at: Millis) -> Record {
    Record::CheckAnswered(CheckAnswered {
        transaction,
        check_number,
        asked_at,
        retry_after_ms: None,
        by: EndedBy::Operator { name: "tester".to_owned() },
        reason: "not paid yet".to_owned(),
    })
}

/// Leases `leased` out of `from..to` of queue 0, for 60 s.
pub fn lease(log: &RecordLog, group: GroupId, topic: TopicId, generation: u64, range: LeasedRange) -> Record {
    let (generation, deadline) = (Generation(generation), log.now.plus_ms(60_000));
    Record::Lease(Lease { group, topic, generation, deadline, renewed_for: None, fresh: vec![range], again: vec![] })
}

/// Everything in `from..to` of a queue is leased.
pub fn whole(queue: u32, from: u64, to: u64) -> LeasedRange {
    let (from, to) = (QueueOffset(from), QueueOffset(to));
    LeasedRange { queue, from, to, leased: QueueOffset::each(from..to).collect(), left: vec![] }
}

/// Decides messages of queue 0 below the cursor, for 60 s.
pub fn again(log: &RecordLog, group: GroupId, topic: TopicId, generation: u64, list: &[(u64, Again)]) -> Record {
    let (generation, deadline) = (Generation(generation), log.now.plus_ms(60_000));
    let decided =
        |(offset, becomes): &(u64, Again)| LeasedAgain { queue: 0, offset: QueueOffset(*offset), becomes: *becomes };
    let again = list.iter().map(decided).collect();
    Record::Lease(Lease { group, topic, generation, deadline, renewed_for: None, fresh: vec![], again })
}

/// Acknowledges a message of queue 0.
pub fn ack(group: GroupId, topic: TopicId, offset: u64, generation: u64) -> Record {
    let (offset, generation) = (QueueOffset(offset), Generation(generation));
    Record::Ack(Ack { group, topic, queue: 0, offset, generation })
}
