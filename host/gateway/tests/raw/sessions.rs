use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};
use vouch_protocol::limits::{CALL_MAX_BYTES, REQUEST_MESSAGES_MAX};
use vouch_protocol::wire::settings::PubSub;
use vouch_protocol::wire::telemetry_command::Command;
use vouch_protocol::wire::{
    ClientType, Code, FilterExpression, HeartbeatRequest, Language, NotifyClientTerminationRequest, Publishing,
    ReceiveMessageRequest, Resource, Settings, Subscription, SubscriptionEntry, TelemetryCommand, Ua,
};

use crate::broker::{Broker, Client, attempt, code, id, receive_request, resource, soon};

/// A telemetry stream, from the client's side.
pub(crate) struct Telemetry {
    sender: mpsc::Sender<TelemetryCommand>,
    stream: Streaming<TelemetryCommand>,
}

impl Telemetry {
    pub(crate) async fn open(client: &mut Client) -> Result<Self, Status> {
        let (sender, receiver) = mpsc::channel(8);
        let request = client.request(ReceiverStream::new(receiver));
        // Nothing was written yet: the headers must come at once.
        let stream = soon(client.grpc.telemetry(request)).await?.into_inner();
        Ok(Self { sender, stream })
    }

    pub(crate) async fn say(&mut self, settings: Settings) {
        let command = TelemetryCommand { status: None, command: Some(Command::Settings(settings)) };
        self.sender.send(command).await.unwrap();
    }

    /// Says it, and that nothing more will be said.
    async fn say_last(self, settings: Settings) -> Streaming<TelemetryCommand> {
        let command = TelemetryCommand { status: None, command: Some(Command::Settings(settings)) };
        self.sender.send(command).await.unwrap();
        self.stream
    }

    pub(crate) async fn next(&mut self) -> Result<Option<TelemetryCommand>, Status> {
        self.stream.message().await
    }

    /// Ends the client's side, and gives what comes then.
    async fn half_closed(self) -> Result<Option<TelemetryCommand>, Status> {
        let Self { sender, mut stream } = self;
        drop(sender);
        stream.message().await
    }

    /// Sends settings and gives the answer.
    pub(crate) async fn exchange(&mut self, settings: Settings) -> Settings {
        self.say(settings).await;
        let answer = soon(self.next()).await.unwrap().unwrap();
        assert_eq!(code(&answer.status), Code::Ok, "Python ignores settings without a status");
        match answer.command {
            Some(Command::Settings(settings)) => settings,
            other => panic!("the broker said {other:?}"),
        }
    }
}

pub(crate) fn producer_settings(topics: &[&str]) -> Settings {
    let topics = topics.iter().map(|name| Resource { name: (*name).to_owned(), ..Default::default() }).collect();
    Settings {
        client_type: Some(ClientType::Producer as i32),
        pub_sub: Some(PubSub::Publishing(Publishing { topics, ..Default::default() })),
        ..Default::default()
    }
}

fn consumer_settings(group: &str) -> Settings {
    Settings {
        client_type: Some(ClientType::PushConsumer as i32),
        pub_sub: Some(PubSub::Subscription(Subscription { group: resource(group), ..Default::default() })),
        ..Default::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_come_back_merged() {
    let broker = Broker::start().await;
    let mut client = broker.client("client").await;
    let mut telemetry = Telemetry::open(&mut client).await.unwrap();
    let settings = telemetry.exchange(producer_settings(&["orders"])).await;
    let Some(PubSub::Publishing(publishing)) = settings.pub_sub else { panic!("a producer stays one") };
    assert_eq!((publishing.max_body_size, publishing.validate_message_type), (4 << 20, true));
    assert_eq!(settings.backoff_policy.unwrap().max_attempts, 3);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_does_not_exist_yet_has_the_default_rule() {
    let broker = Broker::start().await;
    let mut client = broker.client("client").await;
    let mut telemetry = Telemetry::open(&mut client).await.unwrap();
    assert_eq!(telemetry.exchange(consumer_settings("new")).await.backoff_policy.unwrap().max_attempts, 17);
    let config = vouch_broker::GroupConfig { max_attempts: 3, ..Default::default() };
    broker.group("strict", config).await;
    assert_eq!(telemetry.exchange(consumer_settings("strict")).await.backoff_policy.unwrap().max_attempts, 3);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_that_cannot_be_used_end_the_stream_with_the_reason() {
    let broker = Broker::start().await;
    for (settings, reason) in [
        (Settings { pub_sub: None, ..producer_settings(&[]) }, "BAD_REQUEST"),
        (producer_settings(&["a.b"]), "ILLEGAL_TOPIC"),
        (consumer_settings(" "), "ILLEGAL_CONSUMER_GROUP"),
    ] {
        let mut client = broker.client("client").await;
        let mut telemetry = Telemetry::open(&mut client).await.unwrap();
        telemetry.say(settings).await;
        let status = soon(telemetry.next()).await.unwrap_err();
        assert_eq!(status.code(), tonic::Code::InvalidArgument);
        assert!(status.message().starts_with(reason), "{status:?}");
    }
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_subscription_is_answered_before_its_stream_ends() {
    let broker = Broker::start().await;
    let filter = |kind, expression: &str| {
        let expression = Some(FilterExpression { r#type: kind, expression: expression.to_owned() });
        let subscriptions = vec![SubscriptionEntry { topic: resource("orders"), expression }];
        let subscription = Subscription { group: resource("group"), subscriptions, ..Default::default() };
        Settings { pub_sub: Some(PubSub::Subscription(subscription)), ..consumer_settings("group") }
    };
    for (settings, refused_with, half_closes) in [
        (filter(2, "a > 5"), Code::NotImplemented, false),
        (filter(2, "a > 5"), Code::NotImplemented, true),
        (filter(1, "||"), Code::IllegalFilterExpression, true),
    ] {
        let mut client = broker.client("client").await;
        let mut telemetry = Telemetry::open(&mut client).await.unwrap();
        telemetry.say(settings).await;
        // Java looks at the settings alone, waits for them to begin, and then learns the reason from its receives.
        let answer = soon(telemetry.next()).await.unwrap().unwrap();
        assert_eq!(code(&answer.status), refused_with);
        assert!(answer.status.unwrap().message.starts_with(refused_with.as_str_name()));
        let Some(Command::Settings(settings)) = answer.command else { panic!("settings are answered with settings") };
        assert!(settings.backoff_policy.is_some(), "Java does not begin without it");
        let answered = Instant::now();
        let ended = if half_closes { soon(telemetry.half_closed()).await } else { soon(telemetry.next()).await };
        let status = ended.unwrap_err();
        assert!(status.message().starts_with(refused_with.as_str_name()), "{status:?}");
        assert!(half_closes || answered.elapsed() >= Duration::from_millis(900), "it has time to read the answer");
    }
    let mut client = broker.client("client").await;
    let sql = FilterExpression { r#type: 2, expression: "a > 5".to_owned() };
    let request = ReceiveMessageRequest { filter_expression: Some(sql), ..receive_request("orders", "group") };
    let refused = soon(client.receive_with(request)).await;
    assert_eq!(refused.code, Code::NotImplemented);
    assert!(refused.text.contains("SQL"), "{}", refused.text);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_client_gets_its_first_settings_twice() {
    let broker = Broker::start().await;
    let mut client = broker.client("client").await;
    let mut telemetry = Telemetry::open(&mut client).await.unwrap();
    let agent = Ua { language: Language::NodeJs as i32, ..Default::default() };
    let begun = Instant::now();
    let first = telemetry.exchange(Settings { user_agent: Some(agent), ..producer_settings(&["orders"]) }).await;
    let again = soon(telemetry.next()).await.unwrap().unwrap();
    assert_eq!(again.command, Some(Command::Settings(first)));
    assert!(begun.elapsed() >= Duration::from_millis(900), "it must come after the client has its routes");
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_half_closed_stream_ends_well() {
    let broker = Broker::start().await;
    let mut client = broker.client("client").await;
    let mut telemetry = Telemetry::open(&mut client).await.unwrap();
    telemetry.exchange(producer_settings(&[])).await;
    drop(telemetry.sender);
    assert!(soon(telemetry.stream.message()).await.unwrap().is_none());
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_streams_of_one_client_stay_open_together() {
    let broker = Broker::start().await;
    let mut client = broker.client("client").await;
    let mut first = Telemetry::open(&mut client).await.unwrap();
    first.exchange(producer_settings(&["orders"])).await;
    let mut second = Telemetry::open(&mut client).await.unwrap();
    second.exchange(producer_settings(&["orders"])).await;
    first.exchange(producer_settings(&["orders"])).await;
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_its_stream_costs_nothing() {
    let broker = Broker::start().await;
    let mut client = broker.client("client").await;
    let mut telemetry = Telemetry::open(&mut client).await.unwrap();
    for _ in 0..2000 {
        telemetry.say(producer_settings(&["orders"; 100])).await;
    }
    // Other calls of the same connection go on.
    client.send_one("orders", "1").await;
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn heartbeats_build_sessions_and_termination_ends_them() {
    let broker = Broker::start().await;
    let mut client = broker.client("client").await;
    let request = HeartbeatRequest { group: resource("group"), client_type: ClientType::SimpleConsumer as i32 };
    let request = client.request(request);
    let answer = client.grpc.heartbeat(request).await.unwrap().into_inner();
    assert_eq!(code(&answer.status), Code::Ok);
    assert_eq!(broker.node.sessions.count(), (0, 1));
    // Several terminations are normal: one for each endpoint.
    for _ in 0..2 {
        let request = client.request(NotifyClientTerminationRequest { group: resource("group") });
        let answer = client.grpc.notify_client_termination(request).await.unwrap().into_inner();
        assert_eq!(code(&answer.status), Code::Ok);
        assert_eq!(broker.node.sessions.count(), (0, 0));
    }
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_without_a_client_id_are_refused_in_their_status() {
    let broker = Broker::start().await;
    let mut grpc = broker.client("client").await.grpc;
    let heartbeat = grpc.heartbeat(HeartbeatRequest::default()).await.unwrap().into_inner();
    assert_eq!(code(&heartbeat.status), Code::ClientIdRequired);
    let route = grpc.query_route(vouch_protocol::wire::QueryRouteRequest::default()).await.unwrap().into_inner();
    assert_eq!(code(&route.status), Code::ClientIdRequired);
    let mut blank = tonic::Request::new(NotifyClientTerminationRequest::default());
    blank.metadata_mut().insert("x-mq-client-id", " ".parse().unwrap());
    let answer = grpc.notify_client_termination(blank).await.unwrap().into_inner();
    assert_eq!(code(&answer.status), Code::ClientIdRequired);
    let refused = grpc.telemetry(tokio_stream::empty::<TelemetryCommand>()).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::InvalidArgument);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_of_a_push_consumer_that_died_reach_another_one_a_second_after_it_counts_as_dead() {
    let broker = Broker::start().await;
    broker.client("producer").await.send_one("orders", "1").await;
    let mut dead = broker.client("dead").await;
    let mut telemetry = Telemetry::open(&mut dead).await.unwrap();
    telemetry.exchange(consumer_settings("group")).await;
    let request = ReceiveMessageRequest { auto_renew: true, ..receive_request("orders", "group") };
    let received = soon(dead.receive_with(request)).await;
    assert_eq!(received.messages.len(), 1);
    // Half a minute of silence, then its connection is gone.
    let long_ago = Instant::now() - vouch_node::DEAD_AFTER - Duration::from_millis(1);
    broker.node.sessions.heard("dead", long_ago);
    drop((telemetry, dead));
    let mut other = broker.client("other").await;
    let again = soon(async {
        loop {
            let messages = other.receive("orders", "group").await;
            if !messages.is_empty() {
                break messages;
            }
        }
    });
    let again = again.await;
    assert_eq!((id(&again[0]), attempt(&again[0])), ("1", 2));
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_that_declare_more_than_a_session_holds_end_the_stream_with_the_reason() {
    let broker = Broker::start().await;
    let mut client = broker.client("client").await;
    let tags: Vec<_> = (0..256).map(|tag| tag.to_string()).collect();
    let filter = FilterExpression { r#type: 1, expression: tags.join("||") };
    let entry = |number| SubscriptionEntry { topic: resource(&format!("t{number}")), expression: Some(filter.clone()) };
    let settings = |topics| {
        let subscriptions = (0..topics).map(entry).collect();
        let subscription = Subscription { group: resource("group"), subscriptions, ..Default::default() };
        Settings { pub_sub: Some(PubSub::Subscription(subscription)), ..consumer_settings("group") }
    };
    let mut telemetry = Telemetry::open(&mut client).await.unwrap();
    telemetry.exchange(settings(100)).await;
    telemetry.say(settings(300)).await;
    let status = soon(telemetry.next()).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::InvalidArgument);
    assert!(status.message().contains("bytes"), "{status:?}");
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_beyond_the_bounds_of_a_request_ends_the_stream_with_the_reason() {
    let broker = Broker::start().await;
    let large = "t".repeat(CALL_MAX_BYTES);
    let many = vec![""; REQUEST_MESSAGES_MAX as usize + 1];
    for (settings, expected, reason, is_last) in [
        (producer_settings(&[&large]), tonic::Code::OutOfRange, "at most 1048576 are allowed", false),
        (producer_settings(&[&large]), tonic::Code::OutOfRange, "at most 1048576 are allowed", true),
        (producer_settings(&many), tonic::Code::InvalidArgument, "more than 4096 elements", false),
        (producer_settings(&many), tonic::Code::InvalidArgument, "more than 4096 elements", true),
    ] {
        let mut client = broker.client("client").await;
        let mut telemetry = Telemetry::open(&mut client).await.unwrap();
        telemetry.exchange(producer_settings(&["orders"])).await;
        let status = if is_last {
            soon(telemetry.say_last(settings).await.message()).await.unwrap_err()
        } else {
            telemetry.say(settings).await;
            soon(telemetry.next()).await.unwrap_err()
        };
        assert_eq!(status.code(), expected, "{status:?}");
        assert!(status.message().contains(reason), "{status:?}");
        // The connection lives, and the client can come again.
        let mut again = Telemetry::open(&mut client).await.unwrap();
        again.exchange(producer_settings(&["orders"])).await;
    }
    broker.stop().await;
}
