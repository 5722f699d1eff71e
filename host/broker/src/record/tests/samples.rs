//! One record of every kind with every field set, and its bytes.

use bytes::Bytes;

use crate::check::CheckOverrides;
use crate::record::*;
use crate::{
    BodyEncoding, Generation, GroupConfig, GroupId, HalfPosition, MessageKind, Millis, NewMessage, QueueOffset,
    RecordPosition, ResourceName, TagFilter, TagHash, TopicConfig, TopicId, TransactionOutcome,
};

/// A record, what it decodes to, and its kind.
pub(super) struct Sample {
    pub(super) name: &'static str,
    pub(super) bytes: Vec<u8>,
    pub(super) record: Record,
}

macro_rules! sample {
    ($kind:ident $fields:tt) => {{
        let value = $kind $fields;
        let mut bytes = Vec::new();
        assert_eq!(value.encode(&mut bytes), bytes.len());
        Sample { name: stringify!($kind), bytes, record: Record::$kind(value) }
    }};
}

pub(super) fn full_message(kind: MessageKind) -> NewMessage {
    NewMessage {
        message_id: "id".to_owned(),
        tag: Some("t".to_owned()),
        keys: vec!["k1".to_owned(), "k2".to_owned()],
        properties: vec![("p".to_owned(), "v".to_owned())],
        kind,
        encoding: BodyEncoding::Gzip,
        born_at: Millis(0x0102),
        born_host: "h".to_owned(),
        trace_context: Some("tr".to_owned()),
        message_group: Some("g".to_owned()),
        deliver_at: Some(Millis(0x0304)),
        recovery_ms: Some(7000),
        body: Bytes::from_static(b"body"),
    }
}

pub(super) fn message_bytes(kind: MessageKind, checks: CheckOverrides) -> Vec<u8> {
    let mut bytes = Vec::new();
    let place = MessagePlace { topic: TopicId(3), queue: 4, stored_at: Millis(0x0506) };
    let len = encode_message(&mut bytes, place, "c", &full_message(kind), checks);
    assert_eq!(len, bytes.len());
    bytes
}

fn message(name: &'static str, kind: MessageKind, checks: CheckOverrides) -> Sample {
    let bytes = message_bytes(kind, checks);
    let record = Record::decode(&Frame::split(&bytes).unwrap().0).unwrap();
    Sample { name, bytes, record }
}

fn name(text: &str) -> ResourceName {
    ResourceName { namespace: "n".to_owned(), name: text.to_owned() }
}

fn by_component() -> EndedBy {
    EndedBy::Component { binding: "b".to_owned(), digest: "d".to_owned() }
}

/// One sample of every kind.
pub(super) fn samples() -> Vec<Sample> {
    let checks = CheckOverrides { first_ms: Some(7000), interval_ms: Some(9), max: Some(2) };
    let mut samples = vec![
        message("Message", MessageKind::Normal, CheckOverrides::default()),
        message("Half", MessageKind::Transaction, checks),
    ];
    samples.extend(administration());
    samples.extend(transactions());
    samples.extend(deliveries());
    samples.extend(plugins());
    samples
}

fn administration() -> Vec<Sample> {
    let (topic, group) = (TopicConfig::default(), GroupConfig::default());
    let mut carried = Vec::new();
    PluginChunk { digest: [0xdd; 32], offset: 16, total: 19, data: vec![1, 2, 3] }.encode(&mut carried);
    vec![
        sample!(ClusterInit {
            cluster_id: [0xaa; 16],
            segment_size: 0x4000_0000,
            handle_key: [0xbb; 32],
            feature_level: 1,
            written_by: "0.1.0".to_owned()
        }),
        sample!(NodeStarted { version: "0.1.0".to_owned() }),
        sample!(TopicPut { name: name("t"), config: topic, expected_revision: Some(5) }),
        sample!(TopicDelete { name: name("t"), force: true }),
        sample!(TopicForced { name: name("t"), by: "ann".into(), reason: "why".into() }),
        sample!(GroupPut { name: name("g"), config: group, expected_revision: None }),
        sample!(GroupDelete { name: name("g") }),
        sample!(GroupMade { name: name("g"), config: GroupConfig::default() }),
        sample!(GroupsUnused { groups: vec![GroupId(1), GroupId(7)] }),
        sample!(Join { group: GroupId(1), topic: TopicId(3) }),
        sample!(Expire { topic: TopicId(3), starts: vec![(0, QueueOffset(5)), (2, QueueOffset(0x0102))] }),
        sample!(Seen { groups: vec![GroupId(1), GroupId(7)] }),
        sample!(Leapt { from: Millis(0x0506), doubted: true }),
        sample!(LeapsBelieved { to: Millis(0x0506) }),
        sample!(Carried { from: RecordPosition(0x0304), queued: None, record: carried }),
    ]
}

fn transactions() -> Vec<Sample> {
    let (transaction, reason) = (0x1122, "why".to_owned());
    vec![
        sample!(End {
            transaction: HalfPosition(transaction),
            outcome: TransactionOutcome::Committed,
            queue: 2,
            by: EndedBy::Client { client_id: "c".to_owned(), from_check: true },
            reason: String::new()
        }),
        sample!(CheckAnswered {
            transaction: HalfPosition(transaction),
            check_number: 3,
            asked_at: Millis(0x0708),
            retry_after_ms: Some(1000),
            by: by_component(),
            reason: reason.clone()
        }),
        sample!(Park { transaction: HalfPosition(transaction), reason: reason.clone() }),
        sample!(Resume { transaction: HalfPosition(transaction), by: "o".to_owned(), reason }),
        sample!(ComponentFailed {
            transaction: HalfPosition(transaction),
            check_number: 3,
            binding_revision: 0x0506,
            failures: 10,
            by: by_component(),
            error: "e".to_owned(),
            trace: "t".to_owned()
        }),
    ]
}

fn deliveries() -> Vec<Sample> {
    let (group, topic, queue, offset, generation) = (GroupId(1), TopicId(3), 200, 300, 9);
    let again = |becomes| LeasedAgain { queue, offset: QueueOffset(offset), becomes };
    vec![
        sample!(Lease {
            group,
            topic,
            generation: Generation(generation),
            deadline: Millis(0x0708),
            renewed_for: Some("c".to_owned()),
            fresh: vec![LeasedRange {
                queue: 1,
                from: QueueOffset(300),
                to: QueueOffset(310),
                leased: vec![QueueOffset(300), QueueOffset(303)],
                left: vec![QueueOffset(309)]
            }],
            again: vec![again(Again::Leased), again(Again::Done), again(Again::Left)]
        }),
        sample!(Renew {
            group,
            topic,
            deadline: Millis(0x0708),
            leases: vec![(queue, QueueOffset(offset), Generation(9))]
        }),
        sample!(Ack { group, topic, queue, offset: QueueOffset(offset), generation: Generation(generation) }),
        sample!(ChangeInvisible {
            group,
            topic,
            queue,
            offset: QueueOffset(offset),
            generation: Generation(generation),
            new_generation: Generation(10),
            deadline: Millis(0x0708),
            uncounted: true
        }),
        sample!(DeadLetter {
            group,
            topic,
            queue,
            offset: QueueOffset(offset),
            generation: Generation(generation),
            reason: "why".to_owned()
        }),
        sample!(DeadLetterSized {
            letter: DeadLetter {
                group,
                topic,
                queue,
                offset: QueueOffset(offset),
                generation: Generation(generation),
                reason: "why".to_owned()
            },
            record_len: 0x0910
        }),
        sample!(FilterNoted { group, topic, filter: TagFilter::Tags(vec![TagHash(0x0102), TagHash(0x0304)]) }),
        sample!(FiltersGone { group, topic, filters: vec![TagFilter::All, TagFilter::Tags(vec![TagHash(7)])] }),
    ]
}

fn plugins() -> Vec<Sample> {
    let digest = [0xdd; 32];
    vec![
        sample!(PluginChunk { digest, offset: 16, total: 19, data: vec![1, 2, 3] }),
        sample!(PluginPublish {
            name: "p".to_owned(),
            tag: "1".to_owned(),
            digest,
            expected: Some([0xee; 32]),
            verdict: "{}".to_owned()
        }),
        sample!(TagDelete { name: "p".to_owned(), tag: "1".to_owned() }),
        sample!(PluginDelete { name: "p".to_owned() }),
        sample!(BindingPut { name: "b".to_owned(), digest, spec: "{}".to_owned(), expected_revision: Some(0) }),
        sample!(BindingDelete { name: "b".to_owned() }),
    ]
}
