use proptest::prelude::*;
use prost::Message as _;

use super::*;
use crate::wire::{FilterExpression, Publishing, Resource, Settings, Subscription, SubscriptionEntry, Ua};

fn resource(name: &str) -> Resource {
    Resource { name: name.into(), ..Default::default() }
}

fn producer(topics: &[&str]) -> Settings {
    Settings {
        client_type: Some(ClientType::Producer as i32),
        user_agent: Some(Ua { language: Language::NodeJs as i32, ..Default::default() }),
        pub_sub: Some(PubSub::Publishing(Publishing {
            topics: topics.iter().map(|name| resource(name)).collect(),
            ..Default::default()
        })),
        ..Default::default()
    }
}

fn consumer(subscriptions: &[(&str, &str)]) -> Settings {
    let entry = |(topic, tags): &(&str, &str)| SubscriptionEntry {
        topic: Some(resource(topic)),
        expression: Some(FilterExpression { r#type: 1, expression: (*tags).into() }),
    };
    Settings {
        client_type: Some(ClientType::PushConsumer as i32),
        request_timeout: Some(prost_types::Duration { seconds: 3, nanos: 0 }),
        pub_sub: Some(PubSub::Subscription(Subscription {
            group: Some(resource("group")),
            subscriptions: subscriptions.iter().map(entry).collect(),
            ..Default::default()
        })),
        ..Default::default()
    }
}

fn code(settings: &Settings) -> Option<Code> {
    super::settings(settings, CallNames::default()).err().map(|violation| violation.code)
}

#[test]
fn the_client_id_must_be_there_and_bounded() {
    let id = |header| client_id(header).map_err(|violation| violation.code);
    assert_eq!(id(None), Err(Code::ClientIdRequired));
    assert_eq!(id(Some("  ")), Err(Code::ClientIdRequired));
    let longest = "c".repeat(limits::CLIENT_ID_MAX_BYTES);
    assert_eq!(id(Some(&longest)), Ok(&*longest));
    assert_eq!(id(Some(&format!("{longest}c"))), Err(Code::RequestHeaderFieldsTooLarge));
}

#[test]
fn a_producer_declares_its_topics() {
    let declared = settings(&producer(&["a", "b"]), CallNames::default()).unwrap();
    assert_eq!(declared.role, ClientRole::Producer);
    assert_eq!(declared.topics, [ResourceName::plain("a"), ResourceName::plain("b")]);
    assert_eq!((declared.group, declared.language), (None, Language::NodeJs));
}

#[test]
fn a_consumer_declares_its_group_and_subscriptions() {
    let declared = settings(&consumer(&[("a", "x || y"), ("b", "*")]), CallNames::default()).unwrap();
    assert_eq!(declared.role, ClientRole::PushConsumer);
    assert_eq!(declared.group, Some(ResourceName::plain("group")));
    let expected =
        [(ResourceName::plain("a"), TagFilter::tags(["x", "y"])), (ResourceName::plain("b"), TagFilter::All)];
    assert_eq!(declared.subscriptions, expected);
    assert_eq!(declared.request_timeout, Some(Duration::from_secs(3)));
}

#[test]
fn settings_that_say_nothing_or_contradict_themselves_are_refused() {
    assert_eq!(code(&Settings { pub_sub: None, ..producer(&[]) }), Some(Code::BadRequest));
    let mixed = Settings { client_type: consumer(&[]).client_type, ..producer(&[]) };
    assert_eq!(code(&mixed), Some(Code::UnrecognizedClientType));
    let mixed = Settings { client_type: producer(&[]).client_type, ..consumer(&[]) };
    assert_eq!(code(&mixed), Some(Code::UnrecognizedClientType));
    assert_eq!(code(&Settings { client_type: Some(99), ..producer(&[]) }), Some(Code::UnrecognizedClientType));
    for lite in [ClientType::LitePushConsumer, ClientType::LiteSimpleConsumer, ClientType::PullConsumer] {
        let settings = Settings { client_type: Some(lite as i32), ..consumer(&[]) };
        assert_eq!(code(&settings), Some(Code::NotImplemented), "{lite:?}");
    }
}

#[test]
fn illegal_names_and_filters_in_settings_have_their_codes() {
    assert_eq!(code(&producer(&["a.b"])), Some(Code::IllegalTopic));
    assert_eq!(code(&consumer(&[("a", "||")])), Some(Code::IllegalFilterExpression));
    let mut nameless = consumer(&[]);
    if let Some(PubSub::Subscription(subscription)) = &mut nameless.pub_sub {
        subscription.group = None;
    }
    assert_eq!(code(&nameless), Some(Code::IllegalConsumerGroup));
}

#[test]
fn declared_topics_are_bounded_on_both_sides() {
    let max = limits::DECLARED_TOPICS_MAX;
    assert_eq!(code(&producer(&vec!["t"; max])), None);
    assert_eq!(code(&producer(&vec!["t"; max + 1])), Some(Code::BadRequest));
    assert_eq!(code(&consumer(&vec![("t", "*"); max])), None);
    assert_eq!(code(&consumer(&vec![("t", "*"); max + 1])), Some(Code::BadRequest));
}

#[test]
fn client_properties_are_bounded_on_both_sides() {
    let with = |pairs: Vec<(String, String)>| {
        code(&Settings { client_properties: pairs.into_iter().collect(), ..producer(&[]) })
    };
    let pairs = |count: usize| (0..count).map(|n| (format!("n{n}"), "v".to_owned())).collect();
    assert_eq!((with(pairs(32)), with(pairs(33))), (None, Some(Code::InvalidClientProperties)));
    let one = |name: String, value: String| with(vec![(name, value)]);
    let name = |name: &str| one(name.to_owned(), String::new());
    assert_eq!((name("a.b_c-9"), name(&"n".repeat(64))), (None, None));
    for bad in ["", "9a", "a b", "é", "rocketmq.x", &"n".repeat(65)] {
        assert_eq!(name(bad), Some(Code::InvalidClientProperties), "{bad:?}");
    }
    assert_eq!(one("n".into(), "é".repeat(256)), None);
    assert_eq!(one("n".into(), "v".repeat(257)), Some(Code::InvalidClientProperties));
    let large = |last: usize| {
        // 15 pairs of 267 bytes and one that fills the 4 KiB: tag, length, tag, length, name, tag, length, value.
        let mut pairs: Vec<_> = (0..15).map(|n| (format!("n{n:02}"), "v".repeat(256))).collect();
        pairs.push(("last".into(), "v".repeat(last)));
        with(pairs)
    };
    let fits = (0..=256).rev().find(|last| large(*last).is_none()).unwrap();
    assert!(fits < 256, "the sum has a bound of its own");
    assert_eq!(large(fits + 1), Some(Code::InvalidClientProperties));
}

#[test]
fn a_heartbeat_is_enough_to_know_a_client() {
    let beat = |client_type: ClientType, group: Option<&str>| {
        let request = wire::HeartbeatRequest { client_type: client_type as i32, group: group.map(resource) };
        heartbeat(request, CallNames::default()).map_err(|violation| violation.code)
    };
    assert_eq!(beat(ClientType::Producer, None), Ok((ClientRole::Producer, None)));
    let group = Some(ResourceName::plain("g"));
    assert_eq!(beat(ClientType::PushConsumer, Some("g")), Ok((ClientRole::PushConsumer, group.clone())));
    assert_eq!(beat(ClientType::Unspecified, Some("g")), Ok((ClientRole::SimpleConsumer, group)));
    assert_eq!(beat(ClientType::SimpleConsumer, None), Err(Code::IllegalConsumerGroup));
    assert_eq!(beat(ClientType::PushConsumer, Some("a.b")), Err(Code::IllegalConsumerGroup));
}

proptest! {
    #[test]
    fn no_bytes_make_the_checks_panic(bytes: Vec<u8>) {
        if let Ok(settings) = Settings::decode(&bytes[..]) {
            let _ = super::settings(&settings, CallNames::default());
        }
        if let Ok(request) = wire::HeartbeatRequest::decode(&bytes[..]) {
            let _ = heartbeat(request, CallNames::default());
        }
    }
}
