//! The gRPC port before its node serves, and when its certificate changes.

use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::Code as Grpc;
use tonic::transport::Endpoint;
use vouch_gateway::{Certificate, Gateway, GatewayConfig, Reloaded};
use vouch_node::{Node, NodeConfig, StartProgress};
use vouch_protocol::wire::messaging_service_client::MessagingServiceClient;
use vouch_protocol::wire::{Code, HeartbeatRequest};

use crate::broker::{Broker, Client, code, soon};
use crate::folder::TestFolder;
use crate::transport::{HEARTBEAT, heartbeat};

/// A handshake with who has this certificate and no other.
async fn handshake(gateway: &Gateway, certificate: &Path) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(certificate).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let stream = TcpStream::connect(gateway.grpc_addr()).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, stream).await
}

async fn beats(client: &mut Client) -> Result<Code, tonic::Status> {
    let beat = HeartbeatRequest { group: None, client_type: 1 };
    let request = client.request(beat);
    client.grpc.heartbeat(request).await.map(|answer| code(&answer.into_inner().status))
}

#[tokio::test(flavor = "multi_thread")]
async fn before_its_node_serves_calls_are_to_be_tried_again_and_then_succeed_on_the_same_connection() {
    let folder = TestFolder::new();
    let data = folder.path().join("data");
    fs::create_dir(&data).unwrap();
    // A start waits for whoever reads the folder.
    let tool = File::open(&data).unwrap();
    tool.lock_shared().unwrap();
    let free = "127.0.0.1:0".parse().unwrap();
    let edges = GatewayConfig::new(free, free, Certificate::SelfSigned { folder: data.join("tls") });
    let (ports, progress) = (edges.bind().unwrap(), Arc::new(StartProgress::default()));
    let gateway = vouch_gateway::open(edges, ports, progress.clone()).unwrap();
    let config = NodeConfig {
        segment_size: Some(4 << 20),
        zero_ahead: 1 << 20,
        snapshot_every: 32 << 20,
        ..NodeConfig::new(&data)
    };
    let starting = tokio::task::spawn_blocking(move || Node::start_watched(config, &progress));

    let endpoint = Endpoint::from_shared(format!("http://{}", gateway.grpc_addr())).unwrap();
    let grpc = MessagingServiceClient::new(soon(endpoint.connect()).await.unwrap());
    let mut client = Client { grpc, id: "client" };
    for _ in 0..2 {
        let refused = soon(beats(&mut client)).await.unwrap_err();
        assert_eq!(refused.code(), Grpc::Unavailable, "{refused}");
        assert!(refused.message().contains("recovering"), "{refused}");
    }
    // It says nothing yet, and begins with TLS or without when it likes.
    let early = TcpStream::connect(gateway.grpc_addr()).await.unwrap();
    drop(tool);
    let node = soon(starting).await.unwrap().unwrap();
    gateway.serve(node.clone()).unwrap();
    assert_eq!(soon(beats(&mut client)).await.unwrap(), Code::Ok);
    let secure = soon(handshake(&gateway, &data.join("tls/certificate.pem"))).await.unwrap();
    assert_eq!(soon(heartbeat(secure, HEARTBEAT)).await, "0");
    assert_eq!(soon(heartbeat(early, HEARTBEAT)).await, "0");
    gateway.shutdown().await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_is_reloaded_is_that_of_new_connections_and_a_bad_one_changes_nothing() {
    let broker = Broker::start().await;
    let gateway = &broker.gateway;
    let own = broker.folder.path().join("tls");
    // A pair of somebody else, and one of which half is bad.
    let other = Broker::start().await;
    let pair = |name: &str| other.folder.path().join("tls").join(name);
    let free = "127.0.0.1:0".parse().unwrap();
    let of_other = Certificate::Files { certificate: pair("certificate.pem"), key: pair("key.pem") };
    let mut edges = GatewayConfig::new(free, free, of_other.clone());
    let opened_before = soon(handshake(gateway, &own.join("certificate.pem"))).await.unwrap();

    for (certificate, key, named) in [
        (pair("certificate.pem"), own.join("key.pem"), "cannot be used together"),
        (pair("missing.pem"), pair("key.pem"), "missing.pem"),
    ] {
        edges.certificate = Certificate::Files { certificate, key };
        let error = gateway.reload(&edges).unwrap_err().to_string();
        assert!(error.contains(named), "{error}");
    }
    edges.http_token = Some("no token".to_owned());
    edges.certificate = of_other.clone();
    gateway.reload(&edges).unwrap_err();
    assert!(
        soon(handshake(gateway, &own.join("certificate.pem"))).await.is_ok(),
        "a bad token, and nothing is changed"
    );

    edges.http_token = None;
    assert_eq!(gateway.reload(&edges).unwrap(), Reloaded { certificate: true, door: false });
    assert_eq!(gateway.reload(&edges).unwrap(), Reloaded::default(), "it is the same");
    assert!(soon(handshake(gateway, &own.join("certificate.pem"))).await.is_err());
    let secure = soon(handshake(gateway, &pair("certificate.pem"))).await.unwrap();
    assert_eq!(soon(heartbeat(secure, HEARTBEAT)).await, "0");
    assert_eq!(soon(heartbeat(opened_before, HEARTBEAT)).await, "0", "a connection that is open stays so");
    other.stop().await;
    broker.stop().await;
}
