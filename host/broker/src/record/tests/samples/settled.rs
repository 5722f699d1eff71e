//! Of what components stage.

use std::collections::BTreeMap;
use std::ops::Bound;

use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;

use super::Sampled;
use super::message::{any_message, message_bytes};
use super::step::Step;
use super::values::text;
use crate::check::CheckOverrides;
use crate::record::{
    Ack, CheckAnswered, DeadLetterSized, End, KeptAccess, KeptDeleted, KeyExpiry, KeyWrite, MessagePlace, Outbox,
    Settled, SettledHead, encode_message,
};
use crate::testing::{RecordLog, message};
use crate::{MessageKind, Millis, NewMessage, TopicId};

impl Sampled for Settled {
    const GOLDEN: &str = "d7000000 a32c036a 3800 01 00 76 \
         76000000 476150a7 1000 01 00 03000000 04000000 dfa61425732cd2b5 362d102dd65fa836 \
         2df9acf0853e0376 0201000000000000 ffffffff ffffffff ffff 01 02 04000000 0605000000000000 \
         026964 0163 0168 01027472 010174 010167 010403000000000000 02 026b31 026b32 01 0170 0176 626f6479 \
         03 01000000 03000000 c801 ac02 0900000000000000 0162 0201000000000000 01 016e \
         02 016b 0403000000000000 016c 0000000000000000 \
         03 016b 010138 02 0807000000000000 016c 010107 01 09000000 016d 00 00";
    const OFTEN: u16 = 40;

    fn sample() -> Self {
        let outbox = Outbox::new(message_bytes(MessageKind::Normal, CheckOverrides::default())).unwrap();
        let removed = KeyWrite { value: None, expires: KeyExpiry::Never };
        let kept = |ms| KeyWrite { value: Some(vec![7]), expires: KeyExpiry::AfterMs(ms) };
        let added = KeyWrite { value: Some(vec![0x38]), expires: KeyExpiry::At(Millis(0x0708)) };
        Self {
            outbox,
            head: SettledHead::Ack(Ack::sample()),
            binding: "b".to_owned(),
            created: 0x0102,
            kept: Some(KeptAccess {
                namespace: "n".to_owned(),
                reads: [("k".to_owned(), 0x0304), ("l".to_owned(), 0)].into(),
                writes: [("k".to_owned(), added), ("l".to_owned(), kept(9)), ("m".to_owned(), removed)].into(),
            }),
        }
    }

    fn strategy() -> impl Strategy<Value = Self> + 'static {
        let head = prop_oneof![
            End::strategy().prop_map(SettledHead::End),
            CheckAnswered::strategy().prop_map(SettledHead::CheckAnswered),
            Ack::strategy().prop_map(SettledHead::Ack),
            DeadLetterSized::strategy().prop_map(SettledHead::DeadLetter),
        ];
        let kept = (text(), btree_map(text(), any::<u64>(), 0..3), btree_map(text(), write(), 0..3))
            .prop_map(|(namespace, reads, writes)| KeptAccess { namespace, reads, writes });
        (vec(any_message(), 0..3), head, text(), any::<u64>(), option::of(kept)).prop_map(
            |(messages, head, binding, created, kept)| Self { outbox: staged(messages), head, binding, created, kept },
        )
    }

    fn drawn(log: &RecordLog, step: Step) -> Self {
        let head = match step.c % 8 {
            0 => SettledHead::DeadLetter(DeadLetterSized::drawn(log, step)),
            1 | 2 => SettledHead::End(End::drawn(log, step)),
            3 => SettledHead::CheckAnswered(CheckAnswered::drawn(log, step)),
            _ => SettledHead::Ack(Ack::drawn(log, step)),
        };
        let binding = format!("b{}", step.c >> 3 & 1);
        let created = log.state.plugins().binding(&binding).map_or(1, |binding| binding.created);
        // Some that are hardly ever there.
        let topic = if step.c & 0x10 == 0 { TopicId(1) } else { TopicId([2, 3, 9][usize::from(step.b) % 3]) };
        let outbox = if step.c & 0x60 == 0 { vec![(topic, message("staged"))] } else { vec![] };
        let kept = (step.c & 0x80 == 0).then(|| drawn_access(log, step, &binding));
        // Some that count, but for a topic that is not there.
        if step.c & 0x700 == 0
            && let Some((transaction, _)) = log.state.open_transactions().iter(None).next()
        {
            let head = SettledHead::End(End { transaction, ..End::drawn(log, step) });
            return Self {
                outbox: staged_to(vec![(TopicId(9), message("staged"))]),
                head,
                binding,
                created,
                kept: None,
            };
        }
        Self { outbox: staged_to(outbox), head, binding, created, kept }
    }
}

/// Mostly what is there, and what fits; now and then an old version, and more than there is room for.
fn drawn_access(log: &RecordLog, step: Step, binding: &str) -> KeptAccess {
    let granted = log.state.plugins().binding(binding).and_then(|binding| binding.keeps.as_ref());
    let granted = granted.filter(|_| step.c & 0x100 == 0).map(|keeps| keeps.namespace.clone());
    let (namespace, key) = (granted.unwrap_or_else(|| "n0".to_owned()), format!("k{}", step.b % 3));
    let now = log.state.cluster().clock.max(log.now);
    let version = log.state.kept().namespace(&namespace).and_then(|n| n.get(&key, now)).map_or(0, |kept| kept.version);
    let version = version + u64::from(step.a.is_multiple_of(5));
    let len = [0, 3, 900, 900][usize::from(step.c >> 9) % 4];
    let expires = [KeyExpiry::Never, KeyExpiry::AfterMs(20_000), KeyExpiry::At(log.now.plus_ms(5))]
        [usize::from(step.c >> 11) % 3];
    let value = (!step.a.is_multiple_of(3)).then(|| vec![1; len]);
    KeptAccess {
        namespace,
        reads: BTreeMap::from([(key.clone(), version)]),
        writes: BTreeMap::from([(key, KeyWrite { value, expires })]),
    }
}

fn write() -> impl Strategy<Value = KeyWrite> {
    let expires = prop_oneof![
        Just(KeyExpiry::Never),
        any::<u32>().prop_map(KeyExpiry::AfterMs),
        any::<u64>().prop_map(|at| KeyExpiry::At(Millis(at))),
    ];
    (option::of(vec(any::<u8>(), 0..9)), expires).prop_map(|(value, expires)| KeyWrite { value, expires })
}

fn staged(messages: Vec<NewMessage>) -> Outbox {
    staged_to(messages.into_iter().map(|message| (TopicId(3), message)).collect())
}

fn staged_to(messages: Vec<(TopicId, NewMessage)>) -> Outbox {
    let mut records = Vec::new();
    for (topic, message) in messages {
        let message = match message.kind {
            // A half is none that can be staged.
            MessageKind::Transaction => NewMessage { kind: MessageKind::Normal, ..message },
            _ => message,
        };
        let place = MessagePlace { topic, queue: 0, stored_at: Millis(5) };
        encode_message(&mut records, place, "c", &message, CheckOverrides::default());
    }
    Outbox::new(records).unwrap()
}

impl Sampled for KeptDeleted {
    const GOLDEN: &str = "11000000 b0024509 4600 01 00 016e 01016b";
    const OFTEN: u16 = 6;

    fn sample() -> Self {
        Self { namespace: "n".to_owned(), key: Some("k".to_owned()) }
    }

    fn strategy() -> impl Strategy<Value = Self> + 'static {
        (text(), option::of(text())).prop_map(|(namespace, key)| Self { namespace, key })
    }

    fn drawn(log: &RecordLog, step: Step) -> Self {
        let key = (step.c & 3 != 0).then(|| format!("k{}", step.b % 3));
        // Half of them of something that there is, if there is anything.
        let kept = log.state.kept().namespaces().filter(|_| step.a.is_multiple_of(2));
        let there =
            kept.filter_map(|(name, kept)| Some((name, kept.keys_from(Bound::Unbounded, log.now).next()?.0))).next();
        match there {
            Some((namespace, there)) => Self { namespace: namespace.to_owned(), key: key.map(|_| there.to_owned()) },
            None => Self { namespace: format!("n{}", step.c >> 8 & 1), key },
        }
    }
}
