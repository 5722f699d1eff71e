//! What is written is read back, whatever the fields hold.

use std::time::Duration;

use bytes::Bytes;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use crate::check::CheckOverrides;
use crate::record::*;
use crate::{
    BodyEncoding, CheckPolicy, Generation, GroupConfig, GroupId, HalfPosition, MessageKind, Millis, NewMessage,
    QueueOffset, RecordPosition, ResourceName, StartPosition, TagFilter, TagHash, TopicConfig, TopicId, TopicType,
    TransactionOutcome, Unconsumed,
};

fn text() -> impl Strategy<Value = String> {
    ".{0,12}"
}

fn offset() -> impl Strategy<Value = QueueOffset> {
    any::<u64>().prop_map(QueueOffset)
}

fn generation() -> impl Strategy<Value = Generation> {
    any::<u64>().prop_map(Generation)
}

fn millis() -> impl Strategy<Value = Millis> {
    any::<u64>().prop_map(Millis)
}

fn lives() -> impl Strategy<Value = (GroupId, TopicId)> {
    any::<(u32, u32)>().prop_map(|(group, topic)| (GroupId(group), TopicId(topic)))
}

fn name() -> impl Strategy<Value = ResourceName> {
    (text(), text()).prop_map(|(namespace, name)| ResourceName { namespace, name })
}

fn duration() -> impl Strategy<Value = Duration> {
    (0u64..10_000_000).prop_map(Duration::from_millis)
}

fn topic_config() -> impl Strategy<Value = TopicConfig> {
    let types = [TopicType::Normal, TopicType::Fifo, TopicType::Delay, TopicType::Transaction, TopicType::Mixed];
    let policy = (duration(), duration(), any::<u32>(), vec(duration(), 0..4)).prop_map(
        |(immunity, interval, max_checks, schedule)| CheckPolicy { immunity, interval, max_checks, schedule },
    );
    let retention = (option::of(duration()), option::of(any::<u64>()), any::<bool>());
    (proptest::sample::select(types.to_vec()), 1..=1024u32, retention, policy).prop_map(
        |(topic_type, queues, (retention, retention_size, expire), transaction)| TopicConfig {
            topic_type,
            queues,
            retention,
            retention_size,
            unconsumed: if expire { Unconsumed::Expire } else { Unconsumed::Keep },
            transaction,
            ..TopicConfig::default()
        },
    )
}

fn group_config() -> impl Strategy<Value = GroupConfig> {
    (any::<bool>(), any::<bool>(), any::<u32>(), vec(duration(), 0..4), option::of(text())).prop_map(
        |(ordered, end, max_attempts, backoff, dead_letter_topic)| GroupConfig {
            ordered,
            start: if end { StartPosition::End } else { StartPosition::Beginning },
            max_attempts,
            backoff,
            dead_letter_topic,
        },
    )
}

fn ended_by() -> impl Strategy<Value = EndedBy> {
    prop_oneof![
        (text(), any::<bool>()).prop_map(|(client_id, from_check)| EndedBy::Client { client_id, from_check }),
        (text(), text()).prop_map(|(binding, digest)| EndedBy::Component { binding, digest }),
        text().prop_map(|name| EndedBy::Operator { name }),
        text().prop_map(|client_id| EndedBy::Silence { client_id }),
    ]
}

fn administration() -> impl Strategy<Value = Record> {
    let init = (any::<[u8; 16]>(), any::<u64>(), any::<[u8; 32]>(), any::<u32>(), text()).prop_map(
        |(cluster_id, segment_size, handle_key, feature_level, written_by)| {
            Record::ClusterInit(ClusterInit { cluster_id, segment_size, handle_key, feature_level, written_by })
        },
    );
    let revision = || option::of(any::<u64>());
    prop_oneof![
        init,
        text().prop_map(|version| Record::NodeStarted(NodeStarted { version })),
        (millis(), any::<bool>()).prop_map(|(from, doubted)| Record::Leapt(Leapt { from, doubted })),
        millis().prop_map(|to| Record::LeapsBelieved(LeapsBelieved { to })),
        (name(), topic_config(), revision()).prop_map(|(name, config, expected_revision)| {
            Record::TopicPut(TopicPut { name, config, expected_revision })
        }),
        (name(), any::<bool>()).prop_map(|(name, force)| Record::TopicDelete(TopicDelete { name, force })),
        (name(), any::<String>(), any::<String>()).prop_map(|(name, by, reason)| Record::TopicForced(TopicForced {
            name,
            by,
            reason
        })),
        (name(), group_config(), revision()).prop_map(|(name, config, expected_revision)| {
            Record::GroupPut(GroupPut { name, config, expected_revision })
        }),
        name().prop_map(|name| Record::GroupDelete(GroupDelete { name })),
        (name(), group_config()).prop_map(|(name, config)| Record::GroupMade(GroupMade { name, config })),
        proptest::collection::btree_set(any::<u32>(), 0..4).prop_map(|groups| {
            Record::GroupsUnused(GroupsUnused { groups: groups.into_iter().map(GroupId).collect() })
        }),
        lives().prop_map(|(group, topic)| Record::Join(Join { group, topic })),
        (any::<u32>(), proptest::collection::btree_map(any::<u32>(), offset(), 0..4)).prop_map(|(topic, starts)| {
            Record::Expire(Expire { topic: TopicId(topic), starts: starts.into_iter().collect() })
        }),
        proptest::collection::btree_set(any::<u32>(), 0..4)
            .prop_map(|groups| Record::Seen(Seen { groups: groups.into_iter().map(GroupId).collect() })),
        (any::<u64>(), any::<[u8; 32]>(), vec(any::<u8>(), 1..40)).prop_map(|(from, digest, data)| {
            let mut record = Vec::new();
            PluginChunk { digest, offset: from, total: 100, data }.encode(&mut record);
            Record::Carried(Carried { from: RecordPosition(from), queued: None, record })
        }),
    ]
}

fn transactions() -> impl Strategy<Value = Record> {
    let outcomes = vec![TransactionOutcome::Committed, TransactionOutcome::RolledBack];
    let end = (any::<u64>(), proptest::sample::select(outcomes), any::<u32>(), ended_by(), text()).prop_map(
        |(transaction, outcome, queue, by, reason)| {
            Record::End(End { transaction: HalfPosition(transaction), outcome, queue, by, reason })
        },
    );
    let answered = (any::<u64>(), any::<u32>(), millis(), option::of(any::<u64>()), ended_by(), text()).prop_map(
        |(transaction, check_number, asked_at, retry_after_ms, by, reason)| {
            let answer = CheckAnswered {
                transaction: HalfPosition(transaction),
                check_number,
                asked_at,
                retry_after_ms,
                by,
                reason,
            };
            Record::CheckAnswered(answer)
        },
    );
    prop_oneof![
        end,
        answered,
        (any::<u64>(), text())
            .prop_map(|(transaction, reason)| Record::Park(Park { transaction: HalfPosition(transaction), reason })),
        (any::<u64>(), text(), text()).prop_map(|(transaction, by, reason)| Record::Resume(Resume {
            transaction: HalfPosition(transaction),
            by,
            reason
        })),
        (any::<u64>(), any::<u32>(), any::<u64>(), any::<u32>(), ended_by(), text(), text()).prop_map(
            |(transaction, check_number, binding_revision, failures, by, error, trace)| {
                Record::ComponentFailed(ComponentFailed {
                    transaction: HalfPosition(transaction),
                    check_number,
                    binding_revision,
                    failures,
                    by,
                    error,
                    trace,
                })
            }
        ),
    ]
}

fn range() -> impl Strategy<Value = LeasedRange> {
    (any::<u32>(), 0..u64::MAX / 2, vec(0..3u8, 0..40)).prop_map(|(queue, from, fates)| {
        let of =
            |fate| (from..).zip(&fates).filter(|(_, f)| **f == fate).map(|(offset, _)| QueueOffset(offset)).collect();
        LeasedRange {
            queue,
            from: QueueOffset(from),
            to: QueueOffset(from + fates.len() as u64),
            leased: of(0),
            left: of(1),
        }
    })
}

fn deliveries() -> impl Strategy<Value = Record> {
    let again = || {
        (any::<u32>(), offset(), proptest::sample::select(vec![Again::Done, Again::Leased, Again::Left]))
            .prop_map(|(queue, offset, becomes)| LeasedAgain { queue, offset, becomes })
    };
    let about = || (lives(), any::<u32>(), offset(), generation());
    prop_oneof![
        (lives(), generation(), millis(), option::of(text()), vec(range(), 0..4), vec(again(), 0..4)).prop_map(
            |((group, topic), generation, deadline, renewed_for, fresh, again)| {
                Record::Lease(Lease { group, topic, generation, deadline, renewed_for, fresh, again })
            }
        ),
        (lives(), millis(), vec((any::<u32>(), offset(), generation()), 0..5))
            .prop_map(|((group, topic), deadline, leases)| { Record::Renew(Renew { group, topic, deadline, leases }) }),
        about().prop_map(|((group, topic), queue, offset, generation)| {
            Record::Ack(Ack { group, topic, queue, offset, generation })
        }),
        (about(), generation(), millis(), any::<bool>()).prop_map(
            |(((group, topic), queue, offset, generation), new_generation, deadline, uncounted)| {
                Record::ChangeInvisible(ChangeInvisible {
                    group,
                    topic,
                    queue,
                    offset,
                    generation,
                    new_generation,
                    deadline,
                    uncounted,
                })
            }
        ),
        (about(), text()).prop_map(|(((group, topic), queue, offset, generation), reason)| {
            Record::DeadLetter(DeadLetter { group, topic, queue, offset, generation, reason })
        }),
        (about(), text(), any::<u32>()).prop_map(
            |(((group, topic), queue, offset, generation), reason, record_len)| {
                let letter = DeadLetter { group, topic, queue, offset, generation, reason };
                Record::DeadLetterSized(DeadLetterSized { letter, record_len })
            }
        ),
        (lives(), filter())
            .prop_map(|((group, topic), filter)| { Record::FilterNoted(FilterNoted { group, topic, filter }) }),
        (lives(), proptest::collection::btree_set(filter(), 0..4)).prop_map(|((group, topic), filters)| {
            Record::FiltersGone(FiltersGone { group, topic, filters: filters.into_iter().collect() })
        }),
    ]
}

fn filter() -> impl Strategy<Value = TagFilter> {
    let tags = proptest::collection::btree_set(1..=u64::MAX, 0..5);
    option::of(tags).prop_map(|tags| match tags {
        None => TagFilter::All,
        Some(tags) => TagFilter::Tags(tags.into_iter().map(TagHash).collect()),
    })
}

fn plugins() -> impl Strategy<Value = Record> {
    let digest = || any::<[u8; 32]>();
    prop_oneof![
        (digest(), any::<u64>(), any::<u64>(), vec(any::<u8>(), 0..50)).prop_map(|(digest, offset, total, data)| {
            Record::PluginChunk(PluginChunk { digest, offset, total, data })
        }),
        (text(), text(), digest(), option::of(digest()), text()).prop_map(|(name, tag, digest, expected, verdict)| {
            Record::PluginPublish(PluginPublish { name, tag, digest, expected, verdict })
        }),
        (text(), text()).prop_map(|(name, tag)| Record::TagDelete(TagDelete { name, tag })),
        text().prop_map(|name| Record::PluginDelete(PluginDelete { name })),
        (text(), digest(), text(), option::of(any::<u64>())).prop_map(|(name, digest, spec, expected_revision)| {
            Record::BindingPut(BindingPut { name, digest, spec, expected_revision })
        }),
        text().prop_map(|name| Record::BindingDelete(BindingDelete { name })),
    ]
}

fn message() -> impl Strategy<Value = NewMessage> {
    let kinds = vec![MessageKind::Normal, MessageKind::Fifo, MessageKind::Delay, MessageKind::Transaction];
    let encodings = vec![BodyEncoding::Identity, BodyEncoding::Gzip];
    let fixed = (proptest::sample::select(kinds), proptest::sample::select(encodings), millis(), option::of(millis()));
    let texts = (text(), text(), option::of(text()), option::of(text()), option::of(text()));
    let lists = (vec(text(), 0..4), vec((text(), text()), 0..4), vec(any::<u8>(), 0..2000));
    (fixed, texts, lists).prop_map(
        |(
            (kind, encoding, born_at, deliver_at),
            (message_id, born_host, tag, trace_context, message_group),
            (keys, properties, body),
        )| NewMessage {
            message_id,
            tag,
            keys,
            properties,
            kind,
            encoding,
            born_at,
            born_host,
            trace_context,
            message_group,
            deliver_at,
            recovery_ms: None,
            body: Bytes::from(body),
        },
    )
}

proptest! {
    #[test]
    fn every_record_reads_back_as_it_was_written(
        record in prop_oneof![administration(), transactions(), deliveries(), plugins()],
        before in vec(any::<u8>(), 0..20),
    ) {
        let mut buffer = before.clone();
        prop_assert!(record.encode(&mut buffer));
        let (frame, rest) = Frame::split(&buffer[before.len()..]).unwrap();
        prop_assert!(rest.is_empty());
        prop_assert_eq!(frame.verify(), Ok(()));
        prop_assert_eq!(Record::decode(&frame), Ok(record));
    }

    #[test]
    fn every_message_reads_back_as_it_was_sent(
        message in message(),
        producer in text(),
        topic in any::<u32>(),
        queue in any::<u32>(),
        stored_at in millis(),
        first_ms in option::of(0..u32::MAX),
        interval_ms in option::of(0..u32::MAX),
        max in option::of(0..u16::MAX),
    ) {
        let place = MessagePlace { topic: TopicId(topic), queue, stored_at };
        let checks = CheckOverrides { first_ms, interval_ms, max };
        let mut buffer = Vec::new();
        encode_message(&mut buffer, place, &producer, &message, checks);
        let record = Bytes::from(buffer);
        let (head, stored) = decode_stored(&record).unwrap();
        let decoded = Record::decode(&Frame::split(&record).unwrap().0).unwrap();
        let half = message.kind == MessageKind::Transaction;
        prop_assert_eq!(decoded, if half { Record::Half(head) } else { Record::Message(head) });
        prop_assert_eq!((head.topic, head.queue, head.checks), (place.topic, queue, checks));
        prop_assert_eq!(head.identity, Identity::of(&producer, &message.message_id));
        prop_assert_eq!(head.tag, TagHash::of(message.tag.as_deref()));
        prop_assert_eq!(stored.stored_at, stored_at);
        prop_assert_eq!(stored.producer, producer);
        let expected = NewMessage { recovery_ms: first_ms.map(u64::from), ..message };
        prop_assert_eq!(stored.message, expected);
    }

    /// What a client stamps anew on a retry does not make it another message; anything else does (ruling 14).
    #[test]
    fn the_content_hash_ignores_birth_and_tracing_only(message in message(), other in text()) {
        let content = |message: &NewMessage| {
            let mut buffer = Vec::new();
            let place = MessagePlace { topic: TopicId(1), queue: 0, stored_at: Millis(0) };
            encode_message(&mut buffer, place, "c", message, CheckOverrides::default());
            decode_stored(&Bytes::from(buffer)).unwrap().0.content
        };
        let again = NewMessage {
            born_at: Millis(1),
            born_host: other.clone(),
            trace_context: Some(other.clone()),
            ..message.clone()
        };
        prop_assert_eq!(content(&again), content(&message));
        let body = Bytes::from([&message.body[..], b"x"].concat());
        let tag = Some(message.tag.clone().unwrap_or_default() + "x");
        let keys = [message.keys.clone(), vec![other.clone()]].concat();
        let properties = [message.properties.clone(), vec![(other.clone(), other)]].concat();
        for changed in [
            NewMessage { body, ..message.clone() },
            NewMessage { tag, ..message.clone() },
            NewMessage { keys, ..message.clone() },
            NewMessage { properties, ..message.clone() },
        ] {
            prop_assert_ne!(content(&changed), content(&message));
        }
    }
}
