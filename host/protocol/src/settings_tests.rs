use prost::Message as _;

use super::*;
use crate::wire::{Endpoints, Publishing, Resource, Subscription, Ua};

fn client(client_type: ClientType, language: Language, pub_sub: PubSub) -> Settings {
    Settings {
        client_type: Some(client_type as i32),
        user_agent: Some(Ua { language: language as i32, version: "1".into(), ..Default::default() }),
        access_point: Some(Endpoints { scheme: 3, addresses: vec![] }),
        client_properties: [("k".to_owned(), "v".to_owned())].into(),
        pub_sub: Some(pub_sub),
        ..Default::default()
    }
}

fn producer() -> Settings {
    let topic = Resource { resource_namespace: "ns".into(), name: "orders".into() };
    let publishing = Publishing { topics: vec![topic], max_body_size: 128 << 20, validate_message_type: false };
    let mut settings = client(ClientType::Producer, Language::Python, PubSub::Publishing(publishing));
    settings.backoff_policy = Some(RetryPolicy {
        max_attempts: 9,
        strategy: Some(Strategy::CustomizedBackoff(CustomizedBackoff { next: vec![] })),
    });
    settings
}

fn consumer(client_type: ClientType, language: Language, poll_s: Option<i64>) -> Settings {
    let subscription = Subscription {
        group: Some(Resource { name: "group".into(), ..Default::default() }),
        long_polling_timeout: poll_s.map(|seconds| prost_types::Duration { seconds, nanos: 0 }),
        ..Default::default()
    };
    client(client_type, language, PubSub::Subscription(subscription))
}

fn subscription(settings: Settings) -> Subscription {
    match settings.pub_sub {
        Some(PubSub::Subscription(subscription)) => subscription,
        other => panic!("the server answered {other:?}"),
    }
}

fn steps(settings: &Settings) -> Vec<i64> {
    match settings.backoff_policy.clone().and_then(|policy| policy.strategy) {
        Some(Strategy::CustomizedBackoff(list)) => list.next.iter().map(|step| step.seconds).collect(),
        other => panic!("the server answered {other:?}"),
    }
}

#[test]
fn a_producer_gets_the_servers_limits_and_its_own_words_back() {
    let sent = producer();
    let merged = merge(sent.clone(), &GroupConfig::default());
    let Some(PubSub::Publishing(publishing)) = merged.pub_sub.clone() else { panic!("not a producer any more") };
    assert_eq!((publishing.max_body_size, publishing.validate_message_type), (4_194_304, true));
    assert_eq!(publishing.topics[0].resource_namespace, "ns");
    let policy = merged.backoff_policy.clone().unwrap();
    assert_eq!(policy.max_attempts, 3);
    let Some(Strategy::ExponentialBackoff(rule)) = policy.strategy else { panic!("Java throws on any other rule") };
    let ms = |wire: Option<prost_types::Duration>| duration(&wire.unwrap()).unwrap().as_millis();
    assert_eq!((ms(rule.initial), ms(rule.max), rule.multiplier), (10, 1000, 2.0));
    assert_eq!(merged.metric, Some(Metric { on: false, endpoints: None }));
    assert_eq!(
        (merged.access_point, merged.user_agent, merged.client_properties),
        (sent.access_point, sent.user_agent, sent.client_properties)
    );
}

#[test]
fn a_push_consumer_gets_the_groups_rule() {
    let merged = merge(consumer(ClientType::PushConsumer, Language::Java, Some(7)), &GroupConfig::default());
    assert_eq!(merged.backoff_policy.as_ref().unwrap().max_attempts, 17);
    let steps = steps(&merged);
    assert_eq!((steps.len(), steps[0], steps[17]), (18, 1, 7200));
    let subscription = subscription(merged);
    assert_eq!((subscription.fifo, subscription.receive_batch_size), (Some(false), Some(32)));
    assert_eq!(subscription.long_polling_timeout.unwrap().seconds, 20);
    let group = GroupConfig { max_attempts: 3, backoff: vec![Duration::from_secs(2)], ..Default::default() };
    let merged = merge(consumer(ClientType::PushConsumer, Language::Java, None), &group);
    assert_eq!(merged.backoff_policy.unwrap().max_attempts, 3);
}

#[test]
fn a_simple_consumer_keeps_its_poll_up_to_the_bound() {
    let poll = |sent| {
        let merged = merge(consumer(ClientType::SimpleConsumer, Language::Golang, sent), &GroupConfig::default());
        subscription(merged).long_polling_timeout.unwrap().seconds
    };
    assert_eq!((poll(Some(1)), poll(Some(5)), poll(Some(20)), poll(Some(21))), (1, 5, 20, 20));
    assert_eq!((poll(None), poll(Some(0)), poll(Some(-1))), (20, 20, 20));
}

#[test]
fn a_node_push_consumer_gets_a_rule_that_it_reads_rightly() {
    let rule = |client_type| {
        let merged = merge(consumer(client_type, Language::NodeJs, None), &GroupConfig::default());
        let policy = merged.backoff_policy.unwrap();
        assert_eq!(policy.max_attempts, 17);
        policy.strategy.unwrap()
    };
    let Strategy::ExponentialBackoff(rule_read) = rule(ClientType::PushConsumer) else { panic!("it ignores lists") };
    assert_eq!((rule_read.initial.unwrap().seconds, rule_read.max.unwrap().seconds), (1000, 7_200_000));
    assert!(matches!(rule(ClientType::SimpleConsumer), Strategy::CustomizedBackoff(_)));
}

#[test]
fn merging_twice_changes_nothing_more() {
    for sent in [producer(), consumer(ClientType::PushConsumer, Language::Cpp, None)] {
        let once = merge(sent, &GroupConfig::default());
        assert_eq!(merge(once.clone(), &GroupConfig::default()), once, "the C++ client appends to a list that repeats");
    }
}

#[test]
fn the_bytes_of_an_answer_are_those_that_clients_read() {
    let sent = Settings { pub_sub: Some(PubSub::Publishing(Publishing::default())), ..Default::default() };
    let bytes = merge(sent, &GroupConfig::default()).encode_to_vec();
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    // 3 backoff_policy {1 max_attempts 3, 2 exponential {1 initial 10 ms, 2 max 1 s, 3 multiplier 2.0}}, 5 publishing
    // {2 max_body_size 4 MiB, 3 validate_message_type}, 8 metric {}.
    assert_eq!(
        hex,
        concat!("1a1408031210", "0a051080ade204", "12020801", "1d00000040", "2a07", "1080808002", "1801", "4200")
    );
}
