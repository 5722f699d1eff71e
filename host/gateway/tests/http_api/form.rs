//! Requests that have not the form that a path takes.

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::api::{Answer, Api, JSON, PATCH, detail};

/// Most bytes of a JSON body.
const JSON_MAX_BYTES: usize = 256 * 1024;

#[tokio::test]
async fn a_path_that_does_not_exist_says_what_does() {
    let api = Api::start().await;
    for (path, named) in [
        ("/v1/topix", "/v1/topics"),
        ("/v1/topics/", "/v1/topics/{topic}"),
        ("/v1/topics/a/b", "/v1/topics/{topic}"),
        ("/v1/plugins/team/check/tags/1", "%2F"),
        ("/v2/", "/v1/topics"),
        ("/v1", "/openapi.json"),
        ("//", "/openapi.json"),
    ] {
        for method in ["GET", "POST", "DELETE"] {
            let problem = api.call(method, path, &[], b"").await.expect_problem(404, "no-such-path");
            assert!(detail(&problem).contains(named), "{path}: {problem}");
        }
    }
}

#[tokio::test]
async fn a_method_that_a_path_does_not_take_says_which_it_takes() {
    let api = Api::start().await;
    for (method, path, allowed) in [
        ("POST", "/v1/topics", "GET"),
        ("POST", "/v1/topics/t", "GET, PUT, PATCH, DELETE"),
        ("GET", "/v1/transactions/x/commit", "POST"),
        ("PATCH", "/v1/bindings/b", "GET, PUT, DELETE"),
        ("PUT", "/v1/plugins/p", "GET, DELETE"),
        ("DELETE", "/healthz", "GET"),
        ("OPTIONS", "/v1/topics", "GET"),
        ("BREW", "/", "GET"),
    ] {
        let answer = api.call(method, path, &[("content-type", JSON)], b"").await;
        assert_eq!(answer.header("allow"), Some(allowed), "{method} {path}");
        assert!(detail(&answer.expect_problem(405, "method-not-allowed")).contains(allowed));
    }
    let head = api.call("HEAD", "/v1/topics", &[], b"").await.is(200);
    assert!(head.body.is_empty());
}

#[tokio::test]
async fn a_body_that_is_no_json_object_is_malformed() {
    let api = Api::start().await;
    api.put("/v1/topics/t", json!({})).await.is(201);
    api.put("/v1/groups/g", json!({})).await.is(201);
    let paths = [
        ("PUT", "/v1/topics/t", JSON),
        ("PATCH", "/v1/topics/t", PATCH),
        ("PUT", "/v1/groups/g", JSON),
        ("PATCH", "/v1/groups/g", PATCH),
        ("PUT", "/v1/bindings/b", JSON),
        ("POST", "/v1/transactions/T00000000000000000000/commit", JSON),
    ];
    for (method, path, media) in paths {
        for body in ["", " \n", "{", "[]", "null", "7", "\"text\"", "{} {}", "{\"a\":}", "\u{feff}{}"] {
            let answer = api.call(method, path, &[("content-type", media)], body.as_bytes()).await;
            answer.expect_problem(400, "malformed");
        }
        api.call(method, path, &[("content-type", media)], b"{\"a\":\"\xFF\"}").await.expect_problem(400, "malformed");
    }
}

#[tokio::test]
async fn a_body_where_none_belongs_is_refused() {
    let api = Api::start().await;
    for (method, path) in [("GET", "/v1/topics"), ("DELETE", "/v1/topics/t")] {
        api.call(method, path, &[("content-type", JSON)], b"{}").await.expect_problem(400, "malformed");
        api.call(method, path, &[("content-type", JSON), ("content-length", "0")], b"").await;
    }
}

#[tokio::test]
async fn a_body_is_taken_up_to_its_bound() {
    let api = Api::start().await;
    let padded = |len: usize| format!("{}{{}}", " ".repeat(len - 2));
    api.call("PUT", "/v1/topics/t", &[("content-type", JSON)], padded(JSON_MAX_BYTES).as_bytes()).await.is(201);
    // One more: announced, and in chunks without a word about the length.
    let head = format!("PUT /v1/topics/t HTTP/1.1\r\nhost: {}\r\ncontent-type: {JSON}\r\n", api.http);
    let announced = format!("{head}content-length: {}\r\n\r\n", JSON_MAX_BYTES + 1);
    let answer = Answer::parse(&api.raw(announced.as_bytes()).await);
    assert_eq!(answer.expect_problem(413, "too-large")["limit"], JSON_MAX_BYTES);
    let mut stream = TcpStream::connect(api.http).await.unwrap();
    let chunk = padded(JSON_MAX_BYTES + 1);
    let chunked = format!("{head}transfer-encoding: chunked\r\n\r\n{:x}\r\n{chunk}\r\n", chunk.len());
    stream.write_all(chunked.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    Answer::parse(&answer).expect_problem(413, "too-large");
}

#[tokio::test]
async fn chunks_make_a_body() {
    let api = Api::start().await;
    let request = format!(
        "PUT /v1/topics/t HTTP/1.1\r\nhost: {}\r\nconnection: close\r\ncontent-type: {JSON}\r\n\
         transfer-encoding: chunked\r\n\r\n6\r\n{{\"queu\r\n6\r\nes\":3}}\r\n0\r\n\r\n",
        api.http
    );
    assert_eq!(Answer::parse(&api.raw(request.as_bytes()).await).is(201).json()["queues"], 3);
}

#[tokio::test]
async fn unknown_query_parameters_are_refused_everywhere() {
    let api = Api::start().await;
    for (method, path) in [
        ("GET", "/healthz"),
        ("GET", "/metrics"),
        ("GET", "/"),
        ("GET", "/v1/topics/t"),
        ("PUT", "/v1/topics/t"),
        ("GET", "/v1/groups/g/progress"),
        ("GET", "/v1/groups/g/gaps"),
        ("GET", "/v1/transactions/x"),
        ("POST", "/v1/transactions/x/commit"),
        ("DELETE", "/v1/plugins/p"),
        ("GET", "/v1/bindings"),
        ("GET", "/v1/cluster"),
    ] {
        let answer = api.call(method, &format!("{path}?nope=1"), &[("content-type", JSON)], b"").await;
        assert!(detail(&answer.expect_problem(400, "bad-parameter")).contains("nope"), "{path}");
    }
}

#[tokio::test]
async fn many_requests_go_over_one_connection() {
    let api = Api::start().await;
    let request = format!("GET /v1/topics HTTP/1.1\r\nhost: {}\r\n\r\n", api.http);
    let last = format!("GET /healthz HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", api.http);
    let answers = api.raw([request.as_str(), &request, &last].concat().as_bytes()).await;
    let text = String::from_utf8(answers).unwrap();
    assert_eq!((text.matches("HTTP/1.1 200").count(), text.matches("\"items\"").count()), (3, 2));
}
