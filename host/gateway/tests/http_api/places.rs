//! Who gets a connection when many want one.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use vouch_gateway::{IDLE_MIN, PROBE_CONNECTIONS, PROBE_TIMEOUT, PROBES};

use crate::api::{Api, detail};

/// Connections for all requests in these tests.
const PLACES: usize = 8;

async fn api() -> Api {
    Api::start_with(|config| config.connections.http = PLACES).await
}

/// So many connections that said this.
async fn say(api: &Api, count: usize, said: &str) -> Vec<TcpStream> {
    let mut streams = Vec::new();
    for _ in 0..count {
        let mut stream = TcpStream::connect(api.http).await.unwrap();
        stream.write_all(said.as_bytes()).await.unwrap();
        streams.push(stream);
    }
    streams
}

/// What the server says until it closes, or `None` if it neither says something nor closes for now.
async fn heard(stream: &mut TcpStream) -> Option<String> {
    let mut bytes = Vec::new();
    match tokio::time::timeout(Duration::from_millis(300), stream.read_to_end(&mut bytes)).await {
        Err(_) if bytes.is_empty() => None,
        _ => Some(String::from_utf8(bytes).unwrap()),
    }
}

/// Fills all places with requests whose bodies do not come.
async fn busy(api: &Api) -> Vec<TcpStream> {
    let put = format!(
        "PUT /v1/topics/t HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n",
        api.http
    );
    let busy = say(api, PLACES, &put).await;
    // A newcomer sees that all heads were read.
    while api.get("/v1/topics").await.status != 429 {}
    busy
}

#[tokio::test]
async fn probes_are_answered_behind_more_half_heads_than_there_are_places() {
    let api = api().await;
    let half = "GET /v1/topics HTTP/1.1\r\nhost: localhost\r\n";
    let _held = say(&api, 4 * (PLACES + PROBE_CONNECTIONS), half).await;
    for probe in PROBES {
        let began = Instant::now();
        api.get(probe).await.is(200);
        assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    }
    // Nor do they keep others from the API for long.
    tokio::time::sleep(IDLE_MIN).await;
    api.put("/v1/topics/t", json!({})).await.is(201);
}

#[tokio::test]
async fn while_all_places_are_under_way_probes_are_answered_and_nothing_else() {
    let api = api().await;
    let mut busy = busy(&api).await;
    for probe in PROBES {
        let answer = api.get(probe).await;
        assert_eq!(answer.is(200).header("connection"), Some("close"));
    }
    let refused = api.get("/v1/topics").await;
    assert!(refused.header("retry-after").is_some());
    let problem = refused.expect_problem(429, "too-many");
    assert!(detail(&problem).contains("/healthz, /readyz, /metrics"), "{problem}");
    // What was under way is finished as if nothing had been.
    for stream in &mut busy[..1] {
        stream.write_all(b"{}").await.unwrap();
        let mut status = [0; 12];
        stream.read_exact(&mut status).await.unwrap();
        assert_eq!(&status, b"HTTP/1.1 201");
    }
    tokio::time::sleep(IDLE_MIN).await;
    api.get("/v1/topics").await.is(200);
    assert_eq!(heard(&mut busy[0]).await.as_deref().map(|rest| rest.contains("\r\n\r\n{")), Some(true), "it made way");
}

#[tokio::test]
async fn the_longest_idle_connection_makes_way_and_a_younger_one_stays() {
    let api = api().await;
    let mut idle = say(&api, PLACES, "").await;
    // All of them are let in before anything else happens.
    while api.get("/v1/topics").await.status != 429 {}
    tokio::time::sleep(IDLE_MIN).await;
    api.get("/v1/topics").await.is(200);
    assert_eq!(heard(&mut idle[0]).await.as_deref(), Some(""));
    assert_eq!(heard(&mut idle[PLACES - 1]).await, None);
}

#[tokio::test]
async fn a_connection_for_a_probe_that_brings_none_is_closed_soon() {
    let api = api().await;
    let _busy = busy(&api).await;
    let mut silent = say(&api, 1, "GET /healthz HTTP/1.1\r\n").await;
    let began = Instant::now();
    silent[0].read_to_end(&mut Vec::new()).await.unwrap();
    assert!(began.elapsed() < PROBE_TIMEOUT + Duration::from_secs(2), "{:?}", began.elapsed());
}
