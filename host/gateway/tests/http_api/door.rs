//! Who may come in (ruling 25).

use serde_json::json;
use vouch_gateway::{DoorError, ServeError};

use crate::api::{self, Api, JSON, detail};
use crate::folder::TestFolder;

#[tokio::test]
async fn only_its_own_names_are_answered() {
    let api = Api::start().await;
    let port = api.http.port();
    for host in ["localhost".to_owned(), format!("localhost:{port}"), format!("127.0.0.1:{port}"), "[::1]:1".to_owned()]
    {
        api.call("GET", "/v1/topics", &[("host", &host)], b"").await.is(200);
    }
    for host in ["evil.example", "evil.example:8080", "localhost.evil.example", "10.1.2.3"] {
        for (method, path) in [("GET", "/v1/topics"), ("PUT", "/v1/topics/t"), ("GET", "/healthz"), ("GET", "/nowhere")]
        {
            let refused = api.call(method, path, &[("host", host), ("content-type", JSON)], b"").await;
            assert!(detail(&refused.expect_problem(403, "foreign-host")).contains("http_hosts"));
        }
    }
    let answer = api::Answer::parse(&api.raw(b"GET /v1/topics HTTP/1.0\r\n\r\n").await);
    answer.expect_problem(400, "malformed");
}

#[tokio::test]
async fn no_web_page_decides_a_transaction() {
    let api = Api::start().await;
    api.transaction_topic("orders").await;
    let id = api.half("orders", "m1").await;
    let path = format!("/v1/transactions/{id}/commit");
    let body = json!({"by": "a page"}).to_string();
    // What a page can send without asking has none of the content-types that are taken.
    for media in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "text/plain; x=application/json",
    ] {
        let refused = api.call("POST", &path, &[("content-type", media)], body.as_bytes()).await;
        assert_eq!(refused.expect_problem(415, "unsupported-media-type")["expected"], JSON);
    }
    api.call("POST", &path, &[], body.as_bytes()).await.expect_problem(415, "unsupported-media-type");
    // When a browser asks first, nobody consents.
    let asks = [("origin", "https://evil.example"), ("access-control-request-method", "POST")];
    assert!(api.call("OPTIONS", &path, &asks, b"").await.status >= 400);
    // And what comes from a page of another origin is refused whatever it sends.
    for origin in ["https://evil.example", "http://localhost:1", "null"] {
        let headers = [("content-type", JSON), ("origin", origin)];
        api.call("POST", &path, &headers, body.as_bytes()).await.expect_problem(403, "foreign-origin");
        api.call("GET", "/v1/topics", &[("origin", origin)], b"").await.expect_problem(403, "foreign-origin");
    }
    assert_eq!(api.get(&format!("/v1/transactions/{id}")).await.json()["state"], "open");
    // Its own page may.
    let own = format!("http://{}", api.http);
    let headers = [("content-type", "application/json; charset=utf-8"), ("origin", own.as_str())];
    api.call("POST", &path, &headers, body.as_bytes()).await.is(200);
}

#[tokio::test]
async fn the_token_is_asked_for_on_every_path_but_the_probes() {
    let api = Api::start_with(|config| config.http_token = Some("s3cret".to_owned())).await;
    for path in ["/healthz", "/readyz"] {
        api.get(path).await.is(200);
    }
    for path in ["/", "/metrics", "/openapi.json", "/v1/topics", "/v1/cluster", "/nowhere"] {
        let refused = api.get(path).await;
        assert_eq!(refused.header("www-authenticate"), Some("Bearer"));
        refused.expect_problem(401, "unauthorized");
        for wrong in ["Bearer s3creT", "Bearer s3cret0", "Bearer s3cre", "Basic s3cret", "s3cret"] {
            api.call("GET", path, &[("authorization", wrong)], b"").await.expect_problem(401, "unauthorized");
        }
        let right = api.call("GET", path, &[("authorization", "Bearer s3cret")], b"").await;
        assert!(right.status == 200 || path == "/nowhere", "{path}");
    }
    let headers = [("content-type", JSON), ("authorization", "bearer s3cret")];
    api.put("/v1/topics/t", json!({})).await.expect_problem(401, "unauthorized");
    api.call("PUT", "/v1/topics/t", &headers, b"{}").await.is(201);
}

#[tokio::test]
async fn beyond_loopback_it_opens_only_with_a_token_or_on_purpose() {
    let folder = TestFolder::new();
    let node = api::node(&folder);
    let mut config = api::config(&folder);
    config.http_addr = "0.0.0.0:0".parse().unwrap();
    let refused = vouch_gateway::serve(node.clone(), config.clone()).await.unwrap_err();
    assert!(matches!(&refused, ServeError::Door(DoorError::Open(_))), "{refused}");
    assert!(refused.to_string().contains("insecure"), "{refused}");
    let empty = vouch_gateway::GatewayConfig { http_token: Some(String::new()), ..config.clone() };
    let refused = vouch_gateway::serve(node.clone(), empty).await.unwrap_err();
    assert!(matches!(refused, ServeError::Door(DoorError::Token)), "{refused}");
    let token = vouch_gateway::GatewayConfig { http_token: Some("s3cret".to_owned()), ..config.clone() };
    vouch_gateway::serve(node.clone(), token).await.unwrap().shutdown().await;
    config.insecure_http = true;
    vouch_gateway::serve(node.clone(), config.clone()).await.unwrap().shutdown().await;
    // The word for one port is none for the other.
    config.grpc_addr = "0.0.0.0:0".parse().unwrap();
    let refused = vouch_gateway::serve(node.clone(), config.clone()).await.unwrap_err();
    assert!(matches!(refused, ServeError::OpenGrpc(_)), "{refused}");
    assert!(refused.to_string().contains("--insecure-grpc"), "{refused}");
    config.insecure_grpc = true;
    vouch_gateway::serve(node, config).await.unwrap().shutdown().await;
}

#[tokio::test]
async fn further_names_are_answered_when_they_are_set() {
    let api = Api::start_with(|config| config.http_hosts = vec!["vouch.example".to_owned()]).await;
    let named = [("host", "vouch.example:8080"), ("origin", "https://vouch.example")];
    api.call("GET", "/v1/topics", &named, b"").await.is(200);
    api.call("GET", "/v1/topics", &[("host", "other.example")], b"").await.expect_problem(403, "foreign-host");
}

#[tokio::test]
async fn a_taken_address_is_named() {
    let api = Api::start().await;
    let folder = TestFolder::new();
    let mut config = api::config(&folder);
    config.http_addr = api.http;
    let refused = vouch_gateway::serve(api.node.clone(), config).await.unwrap_err();
    assert!(refused.to_string().contains(&api.http.to_string()), "{refused}");
}
