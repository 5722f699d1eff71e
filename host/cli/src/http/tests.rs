use super::fake::FakeNode;
use super::*;

#[test]
fn names_are_one_path_segment() {
    assert_eq!(segment("%DLQ%g"), "%25DLQ%25g");
    assert_eq!(segment("team/order-checkback"), "team%2Forder-checkback");
    assert_eq!(segment("sha256:ab_c.d~e"), "sha256%3Aab_c.d~e");
}

#[test]
fn only_set_parameters_are_sent() {
    assert_eq!(query(&[("state", None), ("topic", None)]), "");
    assert_eq!(query(&[("state", Some("open")), ("topic", None), ("after", Some("a/b"))]), "?state=open&after=a%2Fb");
}

#[test]
fn addresses_are_taken_with_and_without_scheme() {
    assert_eq!(base_url("127.0.0.1:8080").unwrap(), "http://127.0.0.1:8080");
    assert_eq!(base_url("http://broker:80/").unwrap(), "http://broker:80");
}

#[test]
fn what_is_no_address_is_wrong_usage() {
    for address in ["", "https://x:1", "a b", "host:80/path", "u@h:1"] {
        let error = base_url(address).unwrap_err();
        assert!(error.is::<WrongUsage>(), "{address}");
    }
}

#[test]
fn an_answer_that_is_no_problem_document_is_still_explained() {
    let text = refusal(StatusCode::BAD_GATEWAY, "<html>proxy</html>").to_string();
    assert!(text.contains("502") && text.contains("<html>proxy"), "{text}");
}

#[test]
fn an_answer_that_is_no_document_is_told_with_its_first_words() {
    assert_eq!(document("{\"a\": 1}").unwrap()["a"], 1);
    let text = document("<html>welcome\n</html>").unwrap_err().to_string();
    assert_eq!(text, "what the node answered is not JSON: look at line 1, column 1\n  <html>welcome\\n</html>");
}

#[test]
fn a_request_carries_the_token_and_what_its_kind_needs() {
    let created = ("201 Created\r\netag: \"1\"", "{\"name\": \"t\"}");
    let node = FakeNode::answering(&[created, ("200 OK", ""), ("200 OK", "{}"), ("204 No Content", "")]);
    let client = node.args(false).client().unwrap();
    let answer = client.put("/v1/topics/t", &serde_json::json!({"queues": 4}), &[("if-none-match", "*")]).unwrap();
    assert_eq!((answer.created, answer.etag.as_deref()), (true, Some("\"1\"")));
    assert_eq!(answer.body["name"], "t");
    assert_eq!(client.get("/v1/topics/t").unwrap().body, Value::Null, "an answer without a body");
    client.patch("/v1/topics/t", &serde_json::json!({"retention": null})).unwrap();
    assert!(!client.delete("/v1/topics/t").unwrap().created);
    let asked = node.asked();
    let lines: Vec<&str> = asked.iter().map(|asked| asked.line.as_str()).collect();
    assert_eq!(lines, ["PUT /v1/topics/t", "GET /v1/topics/t", "PATCH /v1/topics/t", "DELETE /v1/topics/t"]);
    assert!(asked.iter().all(|asked| asked.headers.contains(&"authorization: bearer sesame".to_owned())));
    assert!(asked[0].headers.contains(&"if-none-match: *".to_owned()));
    assert!(asked[2].headers.contains(&"content-type: application/merge-patch+json".to_owned()));
    assert_eq!((asked[0].body.as_str(), asked[2].body.as_str()), ("{\"queues\":4}", "{\"retention\":null}"));
}

#[test]
fn a_refusal_is_the_nodes_problem_and_a_node_that_is_gone_is_one_of_ours() {
    let node = FakeNode::answering(&[("404 Not Found", "{\"title\": \"no such topic\", \"status\": 404}")]);
    let client = node.args(false).client().unwrap();
    let refused = client.get("/v1/topics/t").unwrap_err();
    let problem = refused.downcast_ref::<ProblemAnswer>().unwrap();
    assert_eq!((problem.status(), problem.to_string().as_str()), (Some(404), "no such topic"));
    let gone = client.get("/v1/topics/t").unwrap_err();
    assert_eq!(gone.downcast_ref::<ProblemAnswer>().unwrap().document()["type"], "urn:vouch:cli:unreachable");
    assert!(gone.to_string().contains("start a node with: vouch serve"), "{gone}");
}

#[test]
fn lines_are_read_as_they_come() {
    let node = FakeNode::answering(&[("200 OK", "data: 1\n\ndata: 2\n")]);
    let lines: Vec<String> = node.args(false).client().unwrap().lines("/v1/x").unwrap().map(Result::unwrap).collect();
    assert_eq!(lines, ["data: 1", "", "data: 2"]);
}
