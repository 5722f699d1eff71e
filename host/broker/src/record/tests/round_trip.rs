//! What is written is read back, whatever the fields hold.

use bytes::Bytes;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::samples::{any_message, millis, one_of_each, text};
use crate::check::CheckOverrides;
use crate::record::*;
use crate::{MessageKind, Millis, NewMessage, TagHash, TopicId};

proptest! {
    #[test]
    fn every_record_reads_back_as_it_was_written(
        records in one_of_each(),
        before in vec(any::<u8>(), 0..20),
    ) {
        for record in records {
            let mut buffer = before.clone();
            prop_assert!(record.encode(&mut buffer));
            let (frame, rest) = Frame::split(&buffer[before.len()..]).unwrap();
            prop_assert!(rest.is_empty());
            prop_assert_eq!(frame.verify(), Ok(()));
            prop_assert_eq!(Record::decode(&frame), Ok(record));
        }
    }

    #[test]
    fn every_message_reads_back_as_it_was_sent(
        message in any_message(),
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
    fn the_content_hash_ignores_birth_and_tracing_only(message in any_message(), other in text()) {
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
