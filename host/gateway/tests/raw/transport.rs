use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic::Code as Grpc;
use vouch_protocol::limits::SEND_MAX_BYTES;
use vouch_protocol::wire::{
    Code, GetOffsetRequest, HeartbeatRequest, Message, PullMessageRequest, QueryOffsetRequest, RecallMessageRequest,
    SendMessageRequest, SyncLiteSubscriptionRequest, UpdateOffsetRequest,
};

use crate::broker::{Broker, code, message, receive_request, seconds, soon};
use crate::sessions::{Telemetry, producer_settings};

/// One heartbeat over an open connection, byte by byte as gRPC has it. Returns `grpc-status`.
pub(crate) async fn heartbeat<S>(stream: S, body: &'static [u8]) -> String
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
    let (mut sender, connection) = handshake.await.unwrap();
    tokio::spawn(connection);
    let request = http::Request::post("http://broker/apache.rocketmq.v2.MessagingService/Heartbeat")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("x-mq-client-id", "client")
        .body(Full::new(Bytes::from_static(body)))
        .unwrap();
    let (parts, body) = sender.send_request(request).await.unwrap().into_parts();
    let answer = body.collect().await.unwrap();
    // An answer without a message has its trailers in the headers.
    let trailers = answer.trailers().unwrap_or(&parts.headers);
    trailers.get("grpc-status").unwrap().to_str().unwrap().to_owned()
}

/// Frame header, then client type PRODUCER.
pub(crate) const HEARTBEAT: &[u8] = &[0, 0, 0, 0, 2, 0x10, 1];

#[tokio::test(flavor = "multi_thread")]
async fn plaintext_and_tls_share_the_port() {
    let broker = Broker::start().await;
    let plain = TcpStream::connect(broker.gateway.grpc_addr()).await.unwrap();
    assert_eq!(soon(heartbeat(plain, HEARTBEAT)).await, "0");

    let mut roots = rustls::RootCertStore::empty();
    let file = broker.folder.path().join("tls/certificate.pem");
    roots.add(CertificateDer::from_pem_file(file).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let stream = TcpStream::connect(broker.gateway.grpc_addr()).await.unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let name = ServerName::try_from("localhost").unwrap();
    let secure = soon(connector.connect(name, stream)).await.unwrap();
    assert_eq!(secure.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    assert_eq!(soon(heartbeat(secure, HEARTBEAT)).await, "0");
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_fields_are_ignored_and_bytes_that_are_no_message_are_an_error_of_the_call() {
    let broker = Broker::start().await;
    let connect = || TcpStream::connect(broker.gateway.grpc_addr());
    // Field 99 of the heartbeat, text, then the client type.
    let newer: &[u8] = &[0, 0, 0, 0, 6, 0x9a, 0x06, 1, b'x', 0x10, 1];
    assert_eq!(soon(heartbeat(connect().await.unwrap(), newer)).await, "0");
    let cut: &[u8] = &[0, 0, 0, 0, 2, 0x0a, 9];
    let mut client = broker.client("client").await;
    assert_eq!(soon(heartbeat(connect().await.unwrap(), cut)).await, "13");
    client.send_one("orders", "1").await;
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_speaks_something_else_is_closed() {
    let broker = Broker::start().await;
    for first in [&b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..], &[0x16, 3, 1, 0, 5, 1, 2, 3, 4, 5], &[0; 64]] {
        let mut stream = TcpStream::connect(broker.gateway.grpc_addr()).await.unwrap();
        stream.write_all(first).await.unwrap();
        let mut rest = Vec::new();
        // What matters is that it ends; a reset is an end, too.
        let _ = soon(stream.read_to_end(&mut rest)).await;
    }
    broker.client("client").await.send_one("orders", "1").await;
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_are_not_built_say_so() {
    let broker = Broker::start().await;
    let mut client = broker.client("client").await;
    let grpc = &mut client.grpc;
    assert_eq!(grpc.pull_message(PullMessageRequest::default()).await.unwrap_err().code(), Grpc::Unimplemented);
    assert_eq!(grpc.update_offset(UpdateOffsetRequest::default()).await.unwrap_err().code(), Grpc::Unimplemented);
    assert_eq!(grpc.get_offset(GetOffsetRequest::default()).await.unwrap_err().code(), Grpc::Unimplemented);
    assert_eq!(grpc.query_offset(QueryOffsetRequest::default()).await.unwrap_err().code(), Grpc::Unimplemented);
    let recall = grpc.recall_message(RecallMessageRequest::default()).await.unwrap().into_inner();
    assert_eq!(code(&recall.status), Code::NotImplemented);
    let lite = grpc.sync_lite_subscription(SyncLiteSubscriptionRequest::default()).await.unwrap().into_inner();
    assert_eq!(code(&lite.status), Code::NotImplemented);
    assert!(lite.status.unwrap().message.contains("not available"));
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_beyond_every_bound_is_refused_by_the_transport_and_the_connection_lives() {
    let broker = Broker::start().await;
    let mut client = broker.client("client").await;
    let huge = Message { body: vec![1; SEND_MAX_BYTES].into(), ..message("orders", "1") };
    let refused = client.grpc.send_message(SendMessageRequest { messages: vec![huge] }).await.unwrap_err();
    assert_eq!(refused.code(), Grpc::OutOfRange, "{refused:?}");
    client.send_one("orders", "1").await;
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_answers_long_polls_at_once_and_ends_streams() {
    let broker = Broker::start().await;
    let mut client = broker.client("client").await;
    let mut telemetry = Telemetry::open(&mut client).await.unwrap();
    telemetry.exchange(producer_settings(&["orders"])).await;
    let mut long = receive_request("orders", "group");
    long.long_polling_timeout = Some(seconds(20));
    let request = client.request(long);
    let mut poll = client.grpc.receive_message(request).await.unwrap().into_inner();
    let answered = tokio::spawn(async move { poll.message().await });
    let address = broker.gateway.grpc_addr();

    let begun = Instant::now();
    soon(broker.stop()).await;
    assert!(begun.elapsed() < Duration::from_secs(5), "it took {:?}", begun.elapsed());
    assert!(soon(answered).await.unwrap().unwrap().is_some(), "the poll got its status");
    assert!(soon(telemetry.next()).await.unwrap().is_none(), "the stream ended well");
    assert!(TcpStream::connect(address).await.is_err(), "nobody listens any more");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_stream_stays_open_and_pings_are_answered() {
    let broker = Broker::start().await;
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{}", broker.gateway.grpc_addr())).unwrap();
    // Far more often than any client: each ping must be answered, or the client gives the connection up.
    let channel = endpoint
        .http2_keep_alive_interval(Duration::from_millis(20))
        .keep_alive_timeout(Duration::from_secs(5))
        .keep_alive_while_idle(true)
        .connect()
        .await
        .unwrap();
    let mut grpc = vouch_protocol::wire::messaging_service_client::MessagingServiceClient::new(channel);
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let answer = grpc.heartbeat(HeartbeatRequest::default()).await.unwrap().into_inner();
        assert_eq!(code(&answer.status), Code::ClientIdRequired);
    }
    broker.stop().await;
}
