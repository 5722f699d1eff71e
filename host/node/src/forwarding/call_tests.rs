use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::*;
use serde_json::json;
use vouch_broker::record::{EndedBy, SecretPut};
use vouch_broker::{
    BodyEncoding, Generation, GroupConfig, GroupId, HalfPosition, MessageKind, Millis, NameError, NewMessage,
    NothingStored, QueueOffset, ShardId, StoredMessage, TagFilter, TopicConfig, TopicId, TransactionOutcome,
};

use super::*;

fn name(name: &str) -> ResourceName {
    ResourceName { namespace: "tenant".to_owned(), name: name.to_owned() }
}

fn handle() -> Handle {
    Handle {
        shard: ShardId::FIRST,
        topic: TopicId(2),
        group: GroupId(3),
        queue: 4,
        offset: QueueOffset(5),
        generation: Generation(6),
        deadline: Millis(7),
    }
}

fn transaction() -> TransactionId {
    TransactionId::of_first_life(ShardId::FIRST, HalfPosition(4096))
}

/// With every field set, and bytes that are no text.
fn message() -> NewMessage {
    NewMessage {
        message_id: "m".to_owned(),
        tag: Some("paid".to_owned()),
        keys: vec!["k1".to_owned(), "k2".to_owned()],
        properties: vec![("größe".to_owned(), "süß".to_owned())],
        kind: MessageKind::Transaction,
        encoding: BodyEncoding::Gzip,
        born_at: Millis(1),
        born_host: "10.0.0.1".to_owned(),
        trace_context: Some("00-1-2-01".to_owned()),
        message_group: Some("g".to_owned()),
        deliver_at: Some(Millis(9)),
        recovery_ms: Some(10),
        body: Bytes::from_static(&[0, 255, 1, 254]),
    }
}

fn http_call(method: &str) -> HttpCall {
    HttpCall {
        method: method.to_owned(),
        target: "/v1/topics/t?force=true".to_owned(),
        headers: vec![("x-odd".to_owned(), Bytes::from_static(&[0xff, 0x80]))],
        body: Bytes::from_static(b"{}"),
    }
}

fn sealed_secret() -> SealedSecret {
    SealedSecret::of(SecretPut {
        name: "db".to_owned(),
        value_id: [1; 16],
        key_id: [2; 8],
        nonce: [3; 24],
        sealed: vec![0, 255, 4, 254],
        expected_revision: Some(7),
    })
}

fn keys() -> KeysOnTheWay {
    KeysOnTheWay(Bytes::copy_from_slice(&vouch_secrets::SecretKeys::draw().to_file()))
}

/// One of each that can be asked.
fn asks() -> Vec<ForwardedAsk<'static>> {
    let send = SendRequest { topic: name("t"), producer: "p".to_owned(), messages: vec![message(), message()] };
    let receive = ReceiveRequest {
        topic: name("t"),
        group: name("g"),
        client_id: "c".to_owned(),
        address: Some([10, 0, 0, 1].into()),
        max: 32,
        filter: TagFilter::tags(["a", "b"]),
        invisible_ms: Some(30_000),
        auto_renew: true,
        wait: Duration::from_millis(19_500),
    };
    let end = EndRequest {
        topic: Some(name("t")),
        message_id: Some("m".to_owned()),
        transaction: transaction(),
        outcome: TransactionOutcome::RolledBack,
        by: EndedBy::Client { client_id: "p".to_owned(), from_check: true },
        reason: "not paid".to_owned(),
    };
    let lost = LostReceive {
        ticket: u64::MAX,
        client_id: "c".to_owned(),
        group: name("g"),
        topic: name("t"),
        asked_ms_ago: 12,
        came: vec![Generation(7), Generation(9)],
    };
    let named = |name| Cow::Owned(self::name(name));
    vec![
        ForwardedAsk::Send(Cow::Owned(send)),
        ForwardedAsk::Receive { ticket: 7, request: Cow::Owned(receive) },
        ForwardedAsk::GiveBack(lost),
        ForwardedAsk::Ack(Cow::Owned(vec![handle(), handle()])),
        ForwardedAsk::ChangeInvisible { handle: handle(), invisible_ms: 5, suspend: true },
        ForwardedAsk::DeadLetter { handle: handle(), reason: Cow::Borrowed("poison") },
        ForwardedAsk::End(Cow::Owned(end)),
        ForwardedAsk::Undecided {
            transaction: transaction(),
            topic: Some(named("t")),
            message_id: None,
            client_id: Cow::Borrowed("p"),
        },
        ForwardedAsk::Topic { name: named("t"), to_send: false },
        ForwardedAsk::Topic { name: named("t"), to_send: true },
        ForwardedAsk::Group(named("g")),
        ForwardedAsk::SetSecret(Cow::Owned(sealed_secret())),
        ForwardedAsk::SecretKeys(KeysTaken { take: keys(), leads: true, only: false }),
        ForwardedAsk::Http(Cow::Owned(http_call("PUT"))),
    ]
}

/// One of each that can be answered.
fn answers() -> Vec<ForwardedAnswer> {
    let delivery = Delivery {
        message: StoredMessage { message: message(), producer: "p".to_owned(), stored_at: Millis(11) },
        queue: 1,
        offset: QueueOffset(2),
        attempt: 3,
        handle: handle(),
        invisible_ms: 60_000,
        dead_letter_origin: Some(("t".to_owned(), "m".to_owned())),
    };
    let topic = r#"{"type":"transaction","queues":3,"retention":"72h","transaction":{"schedule":["10s","1m"]}}"#;
    let config: TopicConfig = serde_json::from_str(topic).unwrap();
    let topic = TopicInfo { id: TopicId(1), name: name("t"), config, revision: 9 };
    let group = GroupInfo { id: GroupId(1), name: name("g"), config: GroupConfig::default(), revision: 8 };
    let body = Bytes::from_static(b"[]");
    let http = HttpCallAnswer { status: 201, headers: vec![("etag".to_owned(), body.clone())], body, applied: 77 };
    vec![
        ForwardedAnswer::Sent(vec![
            Receipt::Stored { queue: 1, offset: QueueOffset(2) },
            Receipt::Prepared { transaction: transaction() },
            Receipt::InMemory,
        ]),
        ForwardedAnswer::Received(vec![delivery]),
        ForwardedAnswer::Received(Vec::new()),
        ForwardedAnswer::Acked(vec![Ok(()), Err(Refusal::InvalidHandle("its invisible time is over"))]),
        ForwardedAnswer::Changed(handle()),
        ForwardedAnswer::Done,
        ForwardedAnswer::Ended(EndReceipt { outcome: TransactionOutcome::Committed, repeated: true }),
        ForwardedAnswer::Counted(false),
        ForwardedAnswer::Topic(topic),
        ForwardedAnswer::Group(Some(group)),
        ForwardedAnswer::Group(None),
        ForwardedAnswer::SecretSet(Written { created: true, revision: u64::MAX }),
        ForwardedAnswer::SecretKeys(keys()),
        ForwardedAnswer::Http(http),
    ]
}

/// One of each reason why something is not done.
fn not_done() -> Vec<NotDone> {
    let id = || "T0001".to_owned();
    let text = || "a sentence".to_owned();
    let refusals = [
        Refusal::Name(NameError::Blank { what: "topic" }),
        Refusal::Name(NameError::TooLong { what: "group", chars: 300, max: 120 }),
        Refusal::Name(NameError::Character { what: "topic", found: 'ß' }),
        Refusal::TopicNotFound(name("t")),
        Refusal::GroupNotFound(name("g")),
        Refusal::TypeMismatch { topic: name("t"), topic_type: "normal", kind: "transaction" },
        Refusal::NotBuilt("recalling a message"),
        Refusal::Invalid(text()),
        Refusal::UnknownTransaction { id: id(), why: text() },
        Refusal::OutcomeConflict { id: id(), recorded: TransactionOutcome::Committed },
        Refusal::AlreadyEnded { id: id() },
        Refusal::InvalidHandle("the message was acknowledged"),
        Refusal::Conflict(text()),
        Refusal::NotFound(text()),
        Refusal::PreconditionFailed(text()),
        Refusal::TooMany(text()),
        Refusal::Internal(text()),
    ];
    let nothing_stored = [
        NothingStored::Overloaded { in_flight: 1, bound: 2, retry_after_ms: 3 },
        NothingStored::StorageFull(text()),
        NothingStored::Short(text()),
        NothingStored::TooMany(text()),
        NothingStored::Poisoned(text()),
        NothingStored::ReadOnly(text()),
        NothingStored::NotLeading { leader: Some(2) },
        NothingStored::NotLeading { leader: None },
        NothingStored::Stopping,
        NothingStored::Internal(text()),
    ];
    let refused = refusals.into_iter().map(NotDone::Refused);
    refused.chain(nothing_stored.into_iter().map(NotDone::NothingStored)).chain([NotDone::Unknown(text())]).collect()
}

fn context() -> CallContext {
    CallContext {
        deadline: None,
        client_id: Some("c".to_owned()),
        request_id: Some("r".to_owned()),
        traceparent: Some("00-4bf9-00f0-01".to_owned()),
    }
}

/// An answer as its caller gets it: what stands before it is taken off by whoever reads the frame.
fn heard(answer: &Result<ForwardedAnswer, NotDone>) -> Result<ForwardedAnswer, NotDone> {
    let sent = encode_answer(answer);
    assert_eq!(sent[..2], [1, 4], "the version, and that it is the answer to a client");
    decode_answer(&sent[2..]).unwrap()
}

#[test]
fn what_a_client_asks_for_arrives_as_it_was_asked() {
    for ask in asks() {
        let said = format!("{ask:?}");
        let sent = ForwardedCall { context: context(), ask }.encode();
        let call = ForwardedCall::decode(&sent).unwrap();
        assert_eq!(format!("{:?}", call.ask), said);
        assert_eq!(call.context, context());
    }
}

#[test]
fn a_sealed_secret_and_keys_arrive_whole_and_are_printed_by_nobody() {
    let (secret, keys) = (sealed_secret(), keys());
    let through = |ask| {
        let sent = ForwardedCall { context: context(), ask }.encode();
        ForwardedCall::decode(&sent).unwrap().ask
    };
    let ForwardedAsk::SetSecret(came) = through(ForwardedAsk::SetSecret(Cow::Borrowed(&secret))) else {
        panic!("another ask")
    };
    assert_eq!(came.into_owned().into_record(), sealed_secret().into_record());
    let taken = KeysTaken { take: keys.clone(), leads: false, only: true };
    let ask = through(ForwardedAsk::SecretKeys(taken.clone()));
    let text = String::from_utf8(keys.0.to_vec()).unwrap();
    let key = text.lines().nth(1).unwrap().rsplit(' ').next().unwrap();
    assert!(key.len() == 64 && !format!("{ask:?} {keys:?} {secret:?}").contains(key), "{ask:?}");
    let ForwardedAsk::SecretKeys(came) = ask else { panic!("another ask") };
    assert_eq!(came, taken);
}

#[test]
fn a_deadline_is_not_sent_with_a_call_since_clocks_differ() {
    let soon = std::time::Instant::now() + Duration::from_secs(1);
    let context = CallContext { deadline: Some(soon), ..context() };
    let call = ForwardedCall { context, ask: ForwardedAsk::Group(Cow::Owned(name("g"))) }.encode();
    assert_eq!(ForwardedCall::decode(&call).unwrap().context.deadline, None);
}

#[test]
fn what_the_leader_answers_arrives_as_it_was_answered() {
    for answer in answers() {
        let said = format!("{answer:?}");
        assert_eq!(format!("{:?}", heard(&Ok(answer)).unwrap()), said);
    }
}

#[test]
fn why_something_is_not_done_is_told_apart_at_the_other_end_as_here() {
    for why in not_done() {
        let heard = heard(&Err(why.clone())).unwrap_err();
        assert_eq!(heard, why);
        assert_eq!(heard.to_string(), why.to_string(), "also for a person");
        assert_eq!(vouch_protocol::code::outcome(&heard).code, vouch_protocol::code::outcome(&why).code);
    }
}

#[test]
fn what_a_later_release_says_besides_is_passed_over_and_what_only_it_can_do_is_refused() {
    let call = |ask: serde_json::Value| {
        let later = json!({"context": {"client_id": "c", "request_id": null, "traceparent": null, "tenant": 7},
            "ask": ask, "priority": "high"});
        ForwardedCall::decode(&rmp_serde::to_vec_named(&later).unwrap())
    };
    let known = call(json!({"Group": {"namespace": "", "name": "g", "region": "eu"}})).unwrap();
    assert_eq!(known.context.client_id.as_deref(), Some("c"));
    assert!(matches!(known.ask, ForwardedAsk::Group(name) if *name == ResourceName::plain("g")));
    let why = call(json!({"Recall": {"handle": 1}})).unwrap_err().to_string();
    assert!(why.contains("of another version") && why.contains("Recall"), "{why}");
}

#[test]
fn each_ask_has_a_name_of_its_own_and_only_those_that_change_nothing_may_be_asked_again() {
    let names: BTreeSet<_> = asks().iter().map(ForwardedAsk::name).collect();
    // A topic is asked for in two ways.
    assert_eq!(names.len(), asks().len() - 1);
    let looks: Vec<_> = asks().iter().filter(|ask| ask.only_looks()).map(ForwardedAsk::name).collect();
    assert_eq!(looks, ["topic", "group"]);
    for (method, looks) in [("GET", true), ("HEAD", true), ("PUT", false), ("POST", false), ("DELETE", false)] {
        assert_eq!(ForwardedAsk::Http(Cow::Owned(http_call(method))).only_looks(), looks, "{method}");
    }
}

proptest! {
    #[test]
    fn whatever_bytes_come_nothing_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = ForwardedCall::decode(&bytes);
        let _ = decode_answer(&bytes);
    }

    #[test]
    fn a_call_that_is_cut_off_is_none(which in 0..14_usize, cut in 1..40_usize) {
        let ask = asks().swap_remove(which);
        let sent = ForwardedCall { context: context(), ask }.encode();
        prop_assert!(ForwardedCall::decode(&sent[..sent.len() - cut.min(sent.len())]).is_err());
    }
}
