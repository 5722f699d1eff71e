//! Components: uploaded, tagged, bound, downloaded, deleted.

use serde_json::{Value, json};
use vouch_registry::Digest;

use crate::api::{Api, JSON, detail, each};
use crate::description::default_limit;

pub(crate) const TAG: &str = "/v1/plugins/check/tags/1.0";

pub(crate) fn component() -> Vec<u8> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../plugins/dist/http-checkback.wasm");
    std::fs::read(path).unwrap_or_else(|error| panic!("{path}: {error}; build it with plugins/build"))
}

/// The same component with a custom section behind it: other bytes, another digest.
fn variant(mark: u8) -> Vec<u8> {
    let mut wasm = component();
    wasm.extend([0, 3, 1, b'x', mark]);
    wasm
}

/// The same component, which does not say what it reads of its config.
fn silent() -> Vec<u8> {
    let (mut wasm, section) = (component(), b"vouch:config");
    let at = wasm.windows(section.len()).position(|bytes| bytes == section).unwrap();
    wasm[at] = b'n';
    wasm
}

pub(crate) fn digest(wasm: &[u8]) -> String {
    Digest::of(wasm).to_string()
}

fn quoted(digest: &str) -> String {
    format!("\"{digest}\"")
}

/// With the topic whose transactions the component of [`binding`] settles.
async fn start() -> Api {
    let api = Api::start().await;
    api.put("/v1/topics/orders", json!({"type": "transaction"})).await.is(201);
    api
}

fn binding() -> Value {
    json!({"plugin": "check:1.0", "topics": ["orders"], "grants": {"http": ["http://127.0.0.1:9"]},
        "config": {"url": "http://127.0.0.1:9/{key}", "commit": "200", "rollback": "404"}})
}

#[tokio::test]
async fn an_upload_is_answered_with_a_verdict_and_can_be_read_back() {
    let (api, wasm) = (Api::start().await, component());
    let pushed = api.push(TAG, &wasm, &[]).await.is(201);
    assert_eq!(pushed.etag(), quoted(&digest(&wasm)));
    let verdict = pushed.json();
    assert_eq!((&verdict["digest"], &verdict["world"]), (&json!(digest(&wasm)), &json!("checkback")));
    assert_eq!(
        (&verdict["size"], &verdict["name"], &verdict["tag"]),
        (&json!(wasm.len()), &json!("check"), &json!("1.0"))
    );
    assert!(verdict["imports"].to_string().contains("wasi:http/outgoing-handler"), "{verdict}");
    assert!(verdict["exports"].to_string().contains("vouch:plugin/checkback"), "{verdict}");

    api.push(TAG, &wasm, &[]).await.is(200);
    let tag = api.get(TAG).await.is(200);
    assert_eq!((tag.etag(), &tag.json()["imports"]), (pushed.etag(), &verdict["imports"]));
    assert_eq!(tag.json()["history"][0]["digest"], digest(&wasm));
    let summary = json!({"name": "check", "tags": {"1.0": digest(&wasm)}, "digests": [digest(&wasm)]});
    assert_eq!(api.get("/v1/plugins").await.is(200).json(), json!({"items": [summary]}));
    let shown = api.get("/v1/plugins/check").await.is(200).json();
    assert_eq!((&shown["tags"], &shown["components"][0]["digest"]), (&summary["tags"], &json!(digest(&wasm))));
    let file = api.get(&format!("/v1/plugins/check/digests/{}", digest(&wasm))).await.is(200);
    assert_eq!((file.header("content-type"), file.body == wasm), (Some("application/wasm"), true));
}

#[tokio::test]
async fn a_tag_moves_only_for_who_knows_where_it_points() {
    let (api, first, second) = (Api::start().await, variant(1), variant(2));
    let stale = quoted(&digest(&component()));
    api.push(TAG, &first, &[("if-match", "*")]).await.expect_problem(412, "precondition-failed");
    api.push(TAG, &first, &[("if-match", &stale)]).await.expect_problem(412, "precondition-failed");
    let tag = api.push(TAG, &first, &[("if-none-match", "*")]).await.is(201).etag();

    let required = api.push(TAG, &second, &[]).await.expect_problem(428, "precondition-required");
    assert!(detail(&required).contains(&digest(&first)), "{required}");
    api.push(TAG, &second, &[("if-match", &stale)]).await.expect_problem(412, "precondition-failed");
    api.push(TAG, &second, &[("if-none-match", "*")]).await.expect_problem(412, "precondition-failed");
    assert_eq!(api.get(TAG).await.etag(), tag, "nothing has moved it");

    let moved = api.push(TAG, &second, &[("if-match", &tag)]).await.is(200);
    assert_eq!(moved.etag(), quoted(&digest(&second)));
    let history = api.get(TAG).await.json()["history"].clone();
    assert_eq!((&history[0]["digest"], &history[1]["digest"]), (&json!(digest(&second)), &json!(digest(&first))));
    // Both components are there: what a tag pointed at can be had again.
    api.get(&format!("/v1/plugins/check/digests/{}", digest(&first))).await.is(200);
    api.push(TAG, &first, &[("if-match", "*")]).await.is(200);
}

#[tokio::test]
async fn what_is_no_component_is_refused_with_its_kind() {
    let api = Api::start().await;
    let module = [0, b'a', b's', b'm', 1, 0, 0, 0];
    let empty_component = [0, b'a', b's', b'm', 13, 0, 1, 0];
    let mut cut = component();
    cut.truncate(cut.len() / 2);
    for (wasm, kind) in [
        (b"garbage".as_slice(), "not-a-component"),
        (&[], "not-a-component"),
        (&module, "not-a-component"),
        (&empty_component, "no-known-interface"),
        (&cut, "invalid"),
        (&vec![0; (32 << 20) + 1], "too-large"),
    ] {
        let problem = api.push(TAG, wasm, &[]).await.expect_problem(422, "component-refused");
        assert_eq!(problem["kind"], kind, "{problem}");
    }
    assert_eq!(api.get("/v1/plugins").await.json(), json!({"items": []}), "a refused component leaves nothing");
    api.get(TAG).await.expect_problem(404, "not-found");
}

#[tokio::test]
async fn plugin_names_tags_and_digests_follow_their_grammar() {
    let (api, wasm) = (Api::start().await, component());
    for path in
        ["/v1/plugins/Check/tags/1.0", "/v1/plugins/a..b/tags/1", "/v1/plugins/check/tags/-x", "/v1/plugins/a/tags/%20"]
    {
        api.push(path, &wasm, &[]).await.expect_problem(422, "invalid");
    }
    api.push("/v1/plugins/team%2Fcheck/tags/1.0", &wasm, &[]).await.is(201);
    assert_eq!(api.get("/v1/plugins/team%2Fcheck").await.is(200).json()["name"], "team/check");
    api.get("/v1/plugins/team/check").await.expect_problem(404, "no-such-path");
    api.get("/v1/plugins/team%2Fcheck/digests/sha256:1").await.expect_problem(422, "invalid");
    let other = format!("/v1/plugins/team%2Fcheck/digests/{}", digest(b"other"));
    api.get(&other).await.expect_problem(404, "not-found");
    api.delete(&other).await.expect_problem(404, "not-found");
    for path in ["/v1/plugins/nothing", "/v1/plugins/nothing/tags/1", "/v1/plugins/team%2Fcheck/tags/2"] {
        api.get(path).await.expect_problem(404, "not-found");
        api.delete(path).await.expect_problem(404, "not-found");
    }
    api.get("/v1/plugins/nothing/logs").await.expect_problem(404, "not-found");
}

#[tokio::test]
async fn a_component_is_uploaded_as_what_it_is() {
    let (api, wasm) = (Api::start().await, component());
    for media in [JSON, "application/octet-stream", "text/plain"] {
        let problem = api.call("PUT", TAG, &[("content-type", media)], &wasm).await;
        assert_eq!(problem.expect_problem(415, "unsupported-media-type")["expected"], "application/wasm");
    }
    let announced = (64 << 20) + 1;
    let head = format!(
        "PUT {TAG} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/wasm\r\ncontent-length: {announced}\r\n\r\n"
    );
    let answer = crate::api::Answer::parse(&api.raw(head.as_bytes()).await);
    assert_eq!(answer.expect_problem(413, "too-large")["limit"], 64 << 20);
}

#[tokio::test]
async fn a_binding_is_set_shown_replaced_and_deleted() {
    let api = start().await;
    let unknown = api.put("/v1/bindings/orders", binding()).await.expect_problem(404, "not-found");
    assert!(detail(&unknown).contains("vouch plugin push"), "{unknown}");
    let wasm = variant(1);
    let tag = api.push(TAG, &wasm, &[]).await.is(201).etag();
    let set = api.put("/v1/bindings/orders", binding()).await.is(201);
    let document = set.json();
    assert_eq!((&document["name"], &document["digest"]), (&json!("orders"), &json!(digest(&wasm))));
    assert_eq!((&document["body"], &document["fallback"]), (&json!(true), &json!("none")));
    // Nobody listens at the address of its config.
    let warnings = document["warnings"].as_array().unwrap();
    assert!(warnings.len() == 1 && warnings[0].as_str().unwrap().contains("stands untried"), "{document}");
    let standing = &api.get("/v1/bindings/orders").await.is(200).json()["standing"];
    assert!(standing["untried"].as_str().unwrap().contains("could not answer"), "{standing}");
    assert_eq!((&standing["agreed"], &standing["fences_held"]), (&json!(0), &json!(false)));
    let shown = api.get("/v1/bindings/orders").await.is(200);
    assert_eq!(shown.etag(), set.etag());
    let in_force = json!({"memory": "64MiB", "deadline": "1s", "concurrency": 8, "output": "16KiB",
        "http_response": "1MiB", "http_requests": 16, "sql_rows": 1000, "sql_bytes": "1MiB", "state": "64MiB", "effects_rate": "16MiB"});
    assert_eq!(
        (&shown.json()["limits"], &document["limits"]),
        (&in_force, &in_force),
        "all that hold, not only those set"
    );
    for (name, limit) in in_force.as_object().unwrap() {
        assert_eq!(default_limit(name), limit, "{name}");
    }
    assert_eq!((&shown.json()["grants"], shown.json().get("warnings")), (&binding()["grants"], None));
    let items = api.get("/v1/bindings").await.is(200).json();
    assert_eq!(items["items"], json!([shown.json()]));

    // A moved tag changes nothing until the binding is set again (ruling 7); what was shown can be put back.
    api.push(TAG, &variant(2), &[("if-match", &tag)]).await.is(200);
    assert_eq!(api.get("/v1/bindings/orders").await.json()["digest"], digest(&wasm));
    api.put_if("/v1/bindings/orders", binding(), ("if-match", "\"1\""))
        .await
        .expect_problem(412, "precondition-failed");
    api.put_if("/v1/bindings/orders", binding(), ("if-none-match", "*"))
        .await
        .expect_problem(412, "precondition-failed");
    let again = api.put_if("/v1/bindings/orders", document, ("if-match", &set.etag())).await.is(200);
    assert_eq!(again.json()["digest"], digest(&variant(2)));

    api.delete("/v1/bindings/orders").await.is(204);
    api.get("/v1/bindings/orders").await.expect_problem(404, "not-found");
    api.delete("/v1/bindings/orders").await.expect_problem(404, "not-found");
}

#[tokio::test]
async fn a_binding_warns_of_what_is_not_granted() {
    let api = start().await;
    api.push(TAG, &silent(), &[]).await.is(201);
    let mut body = binding();
    body["grants"] = json!({});
    body["unchecked"] = json!(true);
    let set = api.put("/v1/bindings/b", body).await.is(201).json();
    let warnings = set["warnings"].as_array().unwrap();
    assert_eq!(warnings.len(), 1, "{set}");
    assert!(warnings[0].as_str().unwrap().contains("wasi:http"), "{set}");
}

#[tokio::test]
async fn a_binding_names_topics_of_which_transactions_come() {
    let api = start().await;
    api.push(TAG, &component(), &[]).await.is(201);
    api.put("/v1/topics/plain", json!({})).await.is(201);
    api.put("/v1/topics/mixed", json!({"type": "mixed"})).await.is(201);
    let mut body = binding();
    for topics in [json!(["plain"]), json!(["orders", "plain"])] {
        body["topics"] = topics;
        let problem = api.put("/v1/bindings/b", body.clone()).await.expect_problem(422, "invalid");
        assert!(detail(&problem).contains("topic plain has type normal"), "{problem}");
    }
    api.get("/v1/bindings/b").await.expect_problem(404, "not-found");
    body["topics"] = json!(["orders", "mixed"]);
    api.put("/v1/bindings/b", body).await.is(201);
}

#[tokio::test]
async fn a_wrong_binding_is_refused_with_what_is_wrong() {
    let api = start().await;
    api.push(TAG, &component(), &[]).await.is(201);
    let with = |name: &str, value: Value| {
        let mut changed = binding();
        changed[name] = value;
        changed
    };
    for (body, named) in [
        (json!({}), "plugin"),
        (json!({"plugin": "check:1.0"}), "topic"),
        (with("pluggin", json!(1)), "pluggin"),
        (with("topics", json!([])), "topic"),
        (with("topics", json!("orders")), "string"),
        (with("plugin", json!("check")), "check"),
        (with("grants", json!({"htp": []})), "htp"),
        (with("grants", json!({"http": ["ftp://x"]})), "ftp"),
        (with("grants", json!({"state": 7})), "state"),
        (with("groups", json!(["g"])), "subscriptions"),
        (with("limits", json!({"memroy": "1MiB"})), "memroy"),
        (with("limits", json!({"deadline": "9ms"})), "deadline"),
        (with("limits", json!({"deadline": "61s"})), "deadline"),
        (with("config", json!({"url": 7})), "url"),
        (with("fallback", json!("someone")), "someone"),
    ] {
        let problem = api.put("/v1/bindings/b", body.clone()).await.expect_problem(422, "invalid");
        assert!(detail(&problem).contains(named), "{body}: {problem}");
    }
    for (deadline, shown) in [("10ms", "10ms"), ("60s", "1m")] {
        let done = api.put("/v1/bindings/b", with("limits", json!({"deadline": deadline}))).await;
        assert!(done.status < 300, "{deadline}");
        let limits = done.json()["limits"].clone();
        assert_eq!((&limits["deadline"], &limits["concurrency"]), (&json!(shown), &json!(8)));
    }
    // A component that only answers checks is no consumer.
    let mut consumes = with("groups", json!(["g"]));
    consumes["subscriptions"] = json!({"orders": "*"});
    let problem = api.put("/v1/bindings/b", consumes).await.expect_problem(422, "invalid");
    assert!(detail(&problem).contains("consumer-plugin"), "{problem}");
    api.put("/v1/bindings/a%20b", binding()).await.expect_problem(422, "invalid");
    let taken = api.put("/v1/bindings/c", binding()).await.expect_problem(409, "conflict");
    assert!(detail(&taken).contains("orders"), "{taken}");
}

#[tokio::test]
async fn what_a_binding_uses_is_not_deleted() {
    let api = start().await;
    let wasm = component();
    let one = format!("/v1/plugins/check/digests/{}", digest(&wasm));
    api.push(TAG, &wasm, &[]).await.is(201);
    api.put("/v1/bindings/orders", binding()).await.is(201);
    for path in ["/v1/plugins/check", TAG, &one] {
        let problem = api.delete(path).await.expect_problem(409, "conflict");
        assert!(detail(&problem).contains("binding orders"), "{problem}");
    }
    let mut more = binding();
    for number in 0..12 {
        let topic = format!("orders-{number:02}");
        api.put(&format!("/v1/topics/{topic}"), json!({"type": "transaction"})).await.is(201);
        more["topics"] = json!([topic]);
        api.put(&format!("/v1/bindings/more-{number:02}"), more.clone()).await.is(201);
    }
    for path in ["/v1/plugins/check", TAG, &one] {
        let problem = api.delete(path).await.expect_problem(409, "conflict");
        let named = "bindings more-00, more-01, more-02, more-03, more-04, more-05, more-06, more-07, more-08, more-09 and 3 more;";
        assert!(detail(&problem).contains(named), "{problem}");
    }
    for name in api.get("/v1/bindings").await.json()["items"].as_array().unwrap() {
        api.delete(&format!("/v1/bindings/{}", name["name"].as_str().unwrap())).await.is(204);
    }

    // By its digest go all tags that point at it; those that point elsewhere stay.
    api.push("/v1/plugins/check/tags/stable", &wasm, &[]).await.is(201);
    api.push("/v1/plugins/check/tags/next", &variant(1), &[]).await.is(201);
    api.delete(&one).await.is(204);
    assert_eq!(api.get("/v1/plugins/check").await.is(200).json()["tags"], json!({"next": digest(&variant(1))}));
    api.delete("/v1/plugins/check/tags/next").await.is(204);
    api.get("/v1/plugins/check").await.expect_problem(404, "not-found");
    api.push(TAG, &wasm, &[]).await.is(201);
    api.delete("/v1/plugins/check").await.is(204);
    api.get(TAG).await.expect_problem(404, "not-found");
}

#[tokio::test]
async fn plugins_and_bindings_are_listed_by_pages() {
    let api = Api::start().await;
    for name in ["b", "a", "c"] {
        api.push(&format!("/v1/plugins/{name}/tags/1"), &component(), &[]).await.is(201);
        api.put(&format!("/v1/topics/{name}"), json!({"type": "transaction"})).await.is(201);
        let body =
            json!({"plugin": "b:1", "topics": [name], "grants": binding()["grants"], "config": binding()["config"]});
        api.push("/v1/plugins/b/tags/1", &component(), &[]).await;
        api.put(&format!("/v1/bindings/{name}"), body).await.is(201);
    }
    for kind in ["plugins", "bindings"] {
        let first = api.get(&format!("/v1/{kind}?limit=2")).await.is(200).json();
        assert_eq!((each(&first, "name"), &first["next"]), (vec!["a", "b"], &json!("b")));
        let second = api.get(&format!("/v1/{kind}?limit=1&after=b")).await.is(200).json();
        assert_eq!((each(&second, "name"), second.get("next")), (vec!["c"], None));
        for query in ["limit=0", "limit=1001", "name=a"] {
            api.get(&format!("/v1/{kind}?{query}")).await.expect_problem(400, "bad-parameter");
        }
    }
}
