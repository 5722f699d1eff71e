//! What the HTTP port answers while the node behind it starts.

use std::fs::File;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use vouch_node::{Node, StartProgress};

use crate::api::{self, Answer, detail};
use crate::description;
use crate::folder::TestFolder;

const PATIENCE: Duration = Duration::from_secs(60);

async fn call(http: SocketAddr, method: &str, path: &str, headers: &str) -> Answer {
    let mut stream = TcpStream::connect(http).await.unwrap();
    let head = format!("{method} {path} HTTP/1.1\r\nconnection: close\r\ncontent-length: 0\r\n{headers}\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    let answer = Answer::parse(&answer);
    description::check(method, path, &[], &answer);
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_starts_says_that_it_lives_and_how_far_it_is_and_then_serves_on_the_same_port() {
    let folder = TestFolder::new();
    let data = folder.path().join("data");
    std::fs::create_dir(&data).unwrap();
    // A start waits for whoever reads the folder.
    let tool = File::open(&data).unwrap();
    tool.lock_shared().unwrap();
    let mut config = api::config(&folder);
    config.http_token = Some("s3cret".to_owned());
    let ports = config.bind().unwrap();
    let progress = Arc::new(StartProgress::default());
    let gateway = vouch_gateway::open(config, ports, progress.clone()).unwrap();
    let http = gateway.http_addr();
    let settings = api::small(&data);
    let starting = tokio::task::spawn_blocking(move || Node::start_watched(settings, &progress));

    let host = format!("host: {http}\r\n");
    let token = format!("{host}authorization: Bearer s3cret\r\n");
    let began = Instant::now();
    loop {
        let recovering = call(http, "GET", "/readyz", &host).await.expect_problem(503, "recovering");
        if detail(&recovering).contains("recovering: waiting for process ") {
            break;
        }
        assert!(began.elapsed() < PATIENCE, "{recovering}");
    }
    call(http, "GET", "/healthz", &host).await.is(200);
    for (method, path) in [("GET", "/v1/topics"), ("PUT", "/v1/topics/t"), ("GET", "/metrics"), ("GET", "/nowhere")] {
        let answer = call(http, method, path, &token).await;
        assert_eq!(answer.header("retry-after"), Some("1"), "{path}");
        answer.expect_problem(503, "recovering");
        // Nothing is told to who may not ask.
        call(http, method, path, &host).await.expect_problem(401, "unauthorized");
        call(http, method, path, "host: evil.example\r\n").await.expect_problem(403, "foreign-host");
    }

    drop(tool);
    let node = starting.await.unwrap().unwrap();
    call(http, "GET", "/readyz", &host).await.expect_problem(503, "recovering");
    gateway.serve(node.clone()).unwrap();
    call(http, "GET", "/readyz", &host).await.is(200);
    call(http, "GET", "/v1/topics", &token).await.is(200);
    gateway.shutdown().await;
    node.stop().await;
}
