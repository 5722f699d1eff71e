//! What strangers can make the node hold, and for how long: requests that unfold or do not come, answers that nobody takes.

use std::collections::BTreeSet;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body::Frame;
use http_body_util::BodyExt as _;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use vouch_broker::GroupConfig;
use vouch_gateway::CONNECTION_OUTBOUND_MAX_BYTES;
use vouch_node::MessageQuery;
use vouch_protocol::limits::{
    ACK_BATCH_MAX, CALL_MAX_BYTES, ELEMENT_ALONE_BYTES, REQUEST_MESSAGES_MAX, SEND_MAX_BYTES,
};
use vouch_protocol::wire::receive_message_response::Content;
use vouch_protocol::wire::telemetry_command::Command;
use vouch_protocol::wire::{Code, Encoding, HeartbeatRequest, Message, TelemetryCommand};

use crate::broker::{Broker, attempt, code, handle, id, message, receive_request, seconds, soon, with_system};
use crate::sessions::producer_settings;

/// A request's body: this, and then its end or nothing any more.
struct Says {
    bytes: Option<Bytes>,
    ends: bool,
}

impl http_body::Body for Says {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match self.bytes.take() {
            Some(bytes) => Poll::Ready(Some(Ok(Frame::data(bytes)))),
            None if self.ends => Poll::Ready(None),
            None => Poll::Pending,
        }
    }
}

type Sender = http2::SendRequest<Says>;

async fn connect(broker: &Broker, window: u32) -> Sender {
    let stream = TcpStream::connect(broker.gateway.grpc_addr()).await.unwrap();
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder.initial_stream_window_size(window);
    let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

fn request(method: &str, body: Says) -> http::Request<Says> {
    http::Request::post(format!("http://broker/apache.rocketmq.v2.MessagingService/{method}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("x-mq-client-id", "raw")
        .body(body)
        .unwrap()
}

fn framed(announced: usize, bytes: &[u8]) -> Bytes {
    [&[0][..], &u32::try_from(announced).unwrap().to_be_bytes(), bytes].concat().into()
}

/// `grpc-status` and `grpc-message` of a call.
async fn status(sender: &mut Sender, method: &str, body: Says) -> (String, String) {
    let (parts, body) = sender.send_request(request(method, body)).await.unwrap().into_parts();
    let answer = body.collect().await.unwrap();
    let trailers = answer.trailers().unwrap_or(&parts.headers);
    let text = |name: &str| trailers.get(name).map_or("", |value| value.to_str().unwrap()).to_owned();
    (text("grpc-status"), text("grpc-message"))
}

fn gzip(body: &[u8]) -> Bytes {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    std::io::Write::write_all(&mut encoder, body).unwrap();
    encoder.finish().unwrap().into()
}

/// A message that has so many bytes when it is decompressed.
fn bomb(topic: &str, id: &str, bytes: usize) -> Message {
    let message = Message { body: gzip(&vec![b'x'; bytes]), ..message(topic, id) };
    with_system(message, |system| system.body_encoding = Encoding::Gzip as i32)
}

fn encoding(message: &Message) -> Encoding {
    message.system_properties.as_ref().unwrap().body_encoding()
}

async fn metric(broker: &Broker, name: &str) -> u64 {
    let mut stream = TcpStream::connect(broker.gateway.http_addr()).await.unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_would_unfold_are_refused_and_the_connection_lives() {
    let broker = Broker::start().await;
    let mut sender = connect(&broker, 1 << 20).await;
    for (method, element, bytes) in
        [("SendMessage", [0x0a, 0], SEND_MAX_BYTES), ("AckMessage", [0x1a, 0], CALL_MAX_BYTES)]
    {
        let bytes = framed(bytes, &element.repeat(bytes / 2));
        let refused = soon(status(&mut sender, method, Says { bytes: Some(bytes), ends: true })).await;
        assert_eq!(refused.0, "3", "{method} {refused:?}");
        assert!(refused.1.contains("elements"), "{refused:?}");
    }
    // The same over a stream whose client says this and nothing more.
    let settings = producer_settings(&vec![""; REQUEST_MESSAGES_MAX as usize + 1]);
    let command = TelemetryCommand { status: None, command: Some(Command::Settings(settings)) }.encode_to_vec();
    let says = Says { bytes: Some(framed(command.len(), &command)), ends: true };
    let refused = soon(status(&mut sender, "Telemetry", says)).await;
    assert!(refused.0 == "3" && refused.1.contains("elements"), "{refused:?}");
    let too_large = Says { bytes: Some(framed(CALL_MAX_BYTES + 1, b"x")), ends: false };
    assert_eq!(soon(status(&mut sender, "AckMessage", too_large)).await.0, "11");
    let heartbeat = framed(2, &[0x10, 1]);
    assert_eq!(soon(status(&mut sender, "Heartbeat", Says { bytes: Some(heartbeat), ends: true })).await.0, "0");
    broker.stop().await;
}

/// Refused entries are mirrored, each with its status: what comes back is bounded by what came, and a short text an entry.
#[tokio::test(flavor = "multi_thread")]
async fn the_answer_to_many_refused_acknowledgements_is_little_more_than_the_request() {
    const TEXT_MAX: usize = 512;
    let broker = Broker::start().await;
    let mut client = broker.client("client").await;
    let handle = "h".repeat(CALL_MAX_BYTES / REQUEST_MESSAGES_MAX as usize - 16);
    let (all, some) = (vec![handle.as_str(); REQUEST_MESSAGES_MAX as usize], vec![handle.as_str(); ACK_BATCH_MAX]);
    let reserved = format!("CID_RMQ_SYS_{}", "g".repeat(108));
    for (group, handles) in [(reserved.as_str(), &all), ("group", &all), ("group", &some)] {
        let answer = client.ack("orders", group, handles).await;
        assert_ne!(code(&answer.status), Code::Ok);
        assert_eq!(answer.entries.len(), handles.len());
        let most = CALL_MAX_BYTES + handles.len() * TEXT_MAX;
        assert!(answer.encoded_len() <= most, "{} bytes, {group}", answer.encoded_len());
    }
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_that_announce_much_and_send_little_keep_nobody_out_and_end_in_time() {
    let broker = Broker::start().await;
    let mut sender = connect(&broker, 1 << 20).await;
    let began = Instant::now();
    let held: Vec<_> = (0..40)
        .map(|_| {
            sender.send_request(request(
                "SendMessage",
                Says { bytes: Some(framed(SEND_MAX_BYTES, b"12345")), ends: false },
            ))
        })
        .collect();
    let silent = sender.send_request(request("AckMessage", Says { bytes: None, ends: false }));
    let mut client = broker.client("client").await;
    let large = Message { body: vec![1; 4 << 20].into(), ..message("orders", "large") };
    assert_eq!(code(&soon(client.send(vec![large])).await.status), Code::Ok);
    for response in held.into_iter().chain([silent]) {
        let (parts, body) =
            tokio::time::timeout(Duration::from_secs(20), response).await.unwrap().unwrap().into_parts();
        let answer = body.collect().await.unwrap();
        assert_eq!(answer.trailers().unwrap_or(&parts.headers).get("grpc-status").unwrap(), "4");
    }
    assert!(began.elapsed() >= Duration::from_secs(9), "they had their time");
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_client_does_not_take_is_bounded_and_slows_no_other_down() {
    const BOMBS: usize = 40;
    let broker = Broker::start().await;
    let mut client = broker.client("client").await;
    for n in 0..BOMBS {
        assert_eq!(code(&client.send(vec![bomb("orders", &n.to_string(), 3 << 20)]).await.status), Code::Ok);
    }
    // A window of one byte a stream: everything that is made has to wait.
    let mut slow = connect(&broker, 1).await;
    let mut receive = receive_request("orders", "group");
    receive.batch_size = 1;
    let bytes = receive.encode_to_vec();
    let mut answers = Vec::new();
    for _ in 0..BOMBS {
        let says = Says { bytes: Some(framed(bytes.len(), &bytes)), ends: true };
        answers.push(soon(slow.send_request(request("ReceiveMessage", says))).await.unwrap());
    }
    let (mut waiting, began) = (0, Instant::now());
    while waiting < 9 << 20 || began.elapsed() < Duration::from_secs(2) {
        waiting = metric(&broker, "vouch_answers_waiting_bytes").await;
        assert!(waiting <= CONNECTION_OUTBOUND_MAX_BYTES as u64, "{waiting}");
        assert!(began.elapsed() < Duration::from_secs(30), "only {waiting} bytes wait");
        let asked = Instant::now();
        let heartbeat = client.request(HeartbeatRequest { client_type: 1, ..Default::default() });
        client.grpc.heartbeat(heartbeat).await.unwrap();
        assert!(asked.elapsed() < Duration::from_secs(1), "a heartbeat took {:?}", asked.elapsed());
    }
    // With the connection all of it is gone.
    drop((answers, slow));
    soon(async { while metric(&broker, "vouch_answers_waiting_bytes").await > 0 {} }).await;
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_message_travels_alone_and_one_that_unfolds_too_far_as_it_was_stored() {
    let broker = Broker::start().await;
    let mut client = broker.client("client").await;
    let mut sent = BTreeSet::new();
    for n in 0..12 {
        let id = n.to_string();
        let one = match n % 4 {
            1 => Message { body: vec![7; ELEMENT_ALONE_BYTES].into(), ..message("orders", &id) },
            2 => bomb("orders", &id, 2 << 20),
            3 => bomb("orders", &id, 6 << 20),
            _ => message("orders", &id),
        };
        assert_eq!(code(&client.send(vec![one]).await.status), Code::Ok);
        sent.insert(id);
    }
    let mut got = BTreeSet::new();
    while got.len() < sent.len() {
        let received = soon(client.receive("orders", "group")).await;
        for one in &received {
            let n: usize = id(one).parse().unwrap();
            let expected = [one.body.len(), ELEMENT_ALONE_BYTES, 2 << 20, gzip(&vec![b'x'; 6 << 20]).len()][n % 4];
            assert_eq!((one.body.len(), encoding(one) == Encoding::Gzip), (expected, n % 4 == 3), "{n}");
            assert!(n.is_multiple_of(4) || received.len() == 1, "{n} came with others");
            assert_eq!(attempt(one), 1, "what is given back does not count");
            assert!(got.insert(id(one).to_owned()), "{n} twice");
        }
    }
    assert_eq!(got, sent);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_a_client_cannot_take_goes_to_the_dead_letters_without_its_neighbours() {
    let broker = Broker::start_with_short_leases().await;
    broker.group("group", GroupConfig { max_attempts: 2, ..Default::default() }).await;
    let mut client = broker.client("client").await;
    for n in 0..21 {
        // Like the Node and Rust clients, this one takes 4 MiB at most.
        let body = vec![7; if n == 10 { 4 << 20 } else { 10 }];
        let one = Message { body: body.into(), ..message("orders", &n.to_string()) };
        assert_eq!(code(&client.send(vec![one]).await.status), Code::Ok);
    }
    let mut receive = receive_request("orders", "group");
    (receive.invisible_duration, receive.long_polling_timeout) = (Some(seconds(2)), Some(seconds(1)));
    let mut got = BTreeSet::new();
    let mut dead = Vec::new();
    let began = Instant::now();
    while dead.is_empty() || got.len() < 20 {
        assert!(began.elapsed() < Duration::from_secs(60), "{got:?} {dead:?}");
        let request = client.request(receive.clone());
        let mut stream = client.grpc.receive_message(request).await.unwrap().into_inner();
        let mut messages = Vec::new();
        // The call fails at the message that is too large.
        while let Ok(Some(element)) = stream.message().await {
            if let Some(Content::Message(message)) = element.content {
                messages.push(message);
            }
        }
        let handles: Vec<_> = messages.iter().map(handle).collect();
        if !handles.is_empty() {
            assert_eq!(code(&client.ack("orders", "group", &handles).await.status), Code::Ok);
        }
        got.extend(messages.iter().map(|message| id(message).to_owned()));
        let letters =
            MessageQuery { topic: "%DLQ%group".to_owned(), key: None, since_ms: None, after: None, limit: 100 };
        // There is no such topic before the first.
        if let Ok(found) = broker.node.search.list(letters).await {
            dead = found.messages.into_iter().map(|view| view.message.message.message_id).collect();
        }
    }
    assert_eq!((dead, got.len()), (vec!["10".to_owned()], 20));
    broker.stop().await;
}
