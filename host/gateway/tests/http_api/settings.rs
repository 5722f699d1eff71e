//! Topics and groups: created, listed, shown, replaced, changed, deleted.

use serde_json::{Value, json};
use vouch_broker::{BACKOFF_MAX, MAX_ATTEMPTS_MAX, MAX_CHECKS_MAX, QUEUES_MAX, ResourceName};
use vouch_node::ReceiveRequest;

use crate::api::{Api, JSON, PATCH, detail, each, message};

#[tokio::test]
async fn a_topic_is_created_shown_replaced_and_deleted() {
    let api = Api::start().await;
    let created = api.put("/v1/topics/orders", json!({"type": "transaction", "queues": 4})).await.is(201);
    let document = created.json();
    assert_eq!(document["name"], "orders");
    assert_eq!((&document["queues"], &document["ack"]), (&json!(4), &json!("durable")));
    assert_eq!(document["transaction"]["immunity"], "6s");
    let shown = api.get("/v1/topics/orders").await.is(200);
    assert_eq!((shown.json(), shown.etag()), (document, created.etag()));

    // What was left out takes its default again, and the tag is another.
    let replaced = api.put("/v1/topics/orders", json!({"type": "transaction"})).await.is(200);
    assert_eq!(replaced.json()["queues"], 8);
    assert_ne!(replaced.etag(), created.etag());

    assert!(api.delete("/v1/topics/orders").await.is(204).body.is_empty());
    let gone = api.get("/v1/topics/orders").await.expect_problem(404, "topic-not-found");
    assert!(detail(&gone).contains("vouch topic create orders"), "{gone}");
    api.delete("/v1/topics/orders").await.expect_problem(404, "topic-not-found");
}

#[tokio::test]
async fn what_was_shown_can_be_put_back() {
    let api = Api::start().await;
    for path in ["/v1/topics/orders", "/v1/groups/shop"] {
        let created = api.put(path, json!({})).await.is(201);
        api.put(path, created.json()).await.is(200);
        let other = api.put(path, json!({"name": "another"})).await.expect_problem(422, "invalid");
        assert!(detail(&other).contains("another"), "{other}");
    }
}

#[tokio::test]
async fn a_group_is_created_shown_replaced_and_deleted() {
    let api = Api::start().await;
    let created = api.put("/v1/groups/shop", json!({"max_attempts": 3, "start": "end"})).await.is(201);
    assert_eq!(created.json()["max_attempts"], 3);
    assert_eq!(created.json()["backoff"].as_array().unwrap().len(), 18);
    assert_eq!(api.get("/v1/groups/shop").await.is(200).json(), created.json());
    assert_eq!(api.put("/v1/groups/shop", json!({})).await.is(200).json()["start"], "beginning");
    assert_eq!(api.get("/v1/groups/shop/progress").await.is(200).json(), json!({"items": []}));
    api.delete("/v1/groups/shop").await.is(204);
    for path in ["/v1/groups/shop", "/v1/groups/shop/progress", "/v1/groups/shop/gaps"] {
        api.get(path).await.expect_problem(404, "group-not-found");
    }
    api.delete("/v1/groups/shop").await.expect_problem(404, "group-not-found");
    api.put("/v1/groups/shop", json!({"dead_letter_topic": "nowhere"})).await.expect_problem(404, "topic-not-found");
}

#[tokio::test]
async fn progress_counts_what_is_ready_and_what_is_in_flight() {
    let api = Api::start().await;
    api.put("/v1/topics/orders", json!({"queues": 1})).await.is(201);
    for id in ["1", "2", "3"] {
        api.send("orders", message(id, b"x")).await;
    }
    let (topic, group) = (ResourceName::plain("orders"), ResourceName::plain("shop"));
    let client_id = "consumer-1".to_owned();
    let receive = ReceiveRequest { topic, group, client_id, max: 2, ..ReceiveRequest::default() };
    let mut received = 0;
    while received < 2 {
        received += api.node.messages.receive(receive.clone()).await.unwrap().len();
    }
    // A receive does not wait for its lease in the log (ruling 10); a write after it does.
    api.put("/v1/topics/after", json!({})).await.is(201);
    let progress = api.get("/v1/groups/shop/progress").await.is(200).json();
    assert_eq!(progress, json!({"items": [{"topic": "orders", "lag": 3, "in_flight": 2, "ready": 1}]}));
}

#[tokio::test]
async fn settings_are_refused_beyond_each_bound_and_taken_at_it() {
    let api = Api::start().await;
    let queues = |n: u32| ("/v1/topics/t", json!({"queues": n}));
    let checks = |n: u32| ("/v1/topics/t", json!({"transaction": {"max_checks": n}, "queues": QUEUES_MAX}));
    let attempts = |n: u32| ("/v1/groups/g", json!({"max_attempts": n}));
    let backoff = |s: u64| ("/v1/groups/g", json!({"backoff": [format!("{s}s")]}));
    let longest = BACKOFF_MAX.as_secs();
    for (good, bad) in [
        (queues(1), queues(0)),
        (queues(QUEUES_MAX), queues(QUEUES_MAX + 1)),
        (checks(MAX_CHECKS_MAX), checks(MAX_CHECKS_MAX + 1)),
        (attempts(1), attempts(0)),
        (attempts(MAX_ATTEMPTS_MAX), attempts(MAX_ATTEMPTS_MAX + 1)),
        (backoff(longest), backoff(longest + 1)),
        (("/v1/groups/g", json!({"backoff": ["0s"]})), ("/v1/groups/g", json!({"backoff": []}))),
    ] {
        assert!(api.put(good.0, good.1.clone()).await.status < 300, "{}", good.1);
        api.put(bad.0, bad.1).await.expect_problem(422, "invalid");
    }
}

#[tokio::test]
async fn wrong_members_and_values_are_refused_by_name() {
    let api = Api::start().await;
    for (path, body, named) in [
        ("/v1/topics/t", json!({"queus": 8}), "queus"),
        ("/v1/topics/t", json!({"transaction": {"imunity": "6s"}}), "imunity"),
        ("/v1/topics/t", json!({"transaction": {"immunity": "soon"}}), "soon"),
        ("/v1/topics/t", json!({"type": "queue"}), "queue"),
        ("/v1/topics/t", json!({"retention_size": "10GB"}), "10GB"),
        ("/v1/topics/t", json!({"retention": "100ms"}), "retention is 100ms; it must be 1s to 36500days"),
        ("/v1/topics/t", json!({"retention_size": 0}), "retention_size is 0, which would keep nothing"),
        ("/v1/topics/t", json!({"unconsumed": "lose"}), "lose"),
        ("/v1/topics/t", json!({"queues": "8"}), "8"),
        ("/v1/groups/g", json!({"max_attempt": 3}), "max_attempt"),
        ("/v1/groups/g", json!({"start": "middle"}), "middle"),
    ] {
        let problem = api.put(path, body.clone()).await.expect_problem(422, "invalid");
        assert!(detail(&problem).contains(named), "{body}: {problem}");
    }
    for (path, body) in [("/v1/topics/t", json!({"type": "fifo"})), ("/v1/groups/g", json!({"ordered": true}))] {
        api.put(path, body).await.expect_problem(501, "not-built");
    }
    let long = format!("/v1/topics/{}", "a".repeat(128));
    for path in
        ["/v1/topics/a.b", "/v1/topics/%20", "/v1/topics/TBW102", "/v1/topics/ns%2Ft%2Fu", &long, "/v1/groups/a.b"]
    {
        api.put(path, json!({})).await.expect_problem(422, "illegal-name");
    }
    api.put(&format!("/v1/topics/{}", "a".repeat(127)), json!({})).await.is(201);
}

#[tokio::test]
async fn a_limit_that_cannot_be_read_says_how_to_have_none() {
    let api = Api::start().await;
    api.put("/v1/topics/t", json!({"retention": "90days", "retention_size": "1GiB"})).await.is(201);
    for wrong in [json!({"retention": "none"}), json!({"retention": 0}), json!({"retention_size": "none"})] {
        let problem = api.patch("/v1/topics/t", wrong).await.expect_problem(422, "invalid");
        assert!(detail(&problem).contains("null takes the limit away"), "{problem}");
    }
    // Whole days, as they were written.
    assert_eq!(api.get("/v1/topics/t").await.json()["retention"], "90days");
    let without = api.patch("/v1/topics/t", json!({"retention": null, "retention_size": null})).await.is(200).json();
    assert!(without.get("retention").is_none() && without.get("retention_size").is_none(), "{without}");
    api.put("/v1/topics/t", json!({"retention": null, "retention_size": null})).await.is(200);
}

#[tokio::test]
async fn the_type_stays_and_queues_only_grow() {
    let api = Api::start().await;
    api.put("/v1/topics/t", json!({"type": "transaction", "queues": 4})).await.is(201);
    for body in [json!({"type": "normal", "queues": 4}), json!({"type": "transaction", "queues": 3})] {
        api.put("/v1/topics/t", body).await.expect_problem(409, "conflict");
    }
    api.put("/v1/topics/t", json!({"type": "transaction", "queues": 5})).await.is(200);
}

#[tokio::test]
async fn preconditions_protect_what_somebody_else_wrote() {
    let api = Api::start().await;
    for path in ["/v1/topics/t", "/v1/groups/g"] {
        api.put_if(path, json!({}), ("if-match", "*")).await.expect_problem(412, "precondition-failed");
        let first = api.put_if(path, json!({}), ("if-none-match", "*")).await.is(201).etag();
        api.put_if(path, json!({}), ("if-none-match", "*")).await.expect_problem(412, "precondition-failed");
        let second = api.put_if(path, json!({}), ("if-match", &first)).await.is(200).etag();
        let stale = api.put_if(path, json!({}), ("if-match", &first)).await.expect_problem(412, "precondition-failed");
        assert!(detail(&stale).contains(&second), "{stale}");
        api.put_if(path, json!({}), ("if-match", &format!("{first}, {second}"))).await.is(200);
        api.put_if(path, json!({}), ("if-match", "*")).await.is(200);
        api.put_if(path, json!({}), ("if-match", "7")).await.expect_problem(400, "malformed");
        let headers = [("content-type", PATCH), ("if-match", first.as_str())];
        api.call("PATCH", path, &headers, b"{}").await.expect_problem(412, "precondition-failed");
        let headers = [("if-match", first.as_str())];
        api.call("DELETE", path, &headers, b"").await.expect_problem(501, "not-built");
        api.get(path).await.is(200);
    }
}

#[tokio::test]
async fn a_patch_changes_what_it_names() {
    let api = Api::start().await;
    let body = json!({"type": "transaction", "queues": 4, "transaction": {"immunity": "9s", "interval": "8s"}});
    let before = api.put("/v1/topics/t", body).await.is(201);
    let patched = api.patch("/v1/topics/t", json!({"transaction": {"interval": "5s", "immunity": null}})).await.is(200);
    let document = patched.json();
    assert_eq!((&document["queues"], &document["type"]), (&json!(4), &json!("transaction")));
    assert_eq!(
        (&document["transaction"]["interval"], &document["transaction"]["immunity"]),
        (&json!("5s"), &json!("6s"))
    );
    assert_ne!(before.etag(), patched.etag());
    assert_eq!(api.get("/v1/topics/t").await.json(), document);

    api.patch("/v1/topics/t", json!({"queus": 5})).await.expect_problem(422, "invalid");
    api.patch("/v1/topics/t", json!({"queues": 3})).await.expect_problem(409, "conflict");
    api.patch("/v1/topics/nothing", json!({})).await.expect_problem(404, "topic-not-found");
    api.patch("/v1/groups/nothing", json!({})).await.expect_problem(404, "group-not-found");
    api.put("/v1/groups/g", json!({"max_attempts": 3})).await.is(201);
    assert_eq!(api.patch("/v1/groups/g", json!({"start": "end"})).await.is(200).json()["max_attempts"], 3);
    api.call("PATCH", "/v1/groups/g", &[("content-type", JSON)], b"{}")
        .await
        .expect_problem(415, "unsupported-media-type");
}

#[tokio::test]
async fn lists_go_by_pages_and_end() {
    let api = Api::start().await;
    for kind in ["topics", "groups"] {
        for name in ["b", "a", "c"] {
            api.put(&format!("/v1/{kind}/{name}"), json!({})).await.is(201);
        }
        let whole = api.get(&format!("/v1/{kind}")).await.is(200).json();
        assert_eq!((each(&whole, "name"), whole.get("next")), (vec!["a", "b", "c"], None));
        let first = api.get(&format!("/v1/{kind}?limit=2")).await.is(200).json();
        assert_eq!((each(&first, "name"), &first["next"]), (vec!["a", "b"], &json!("b")));
        let second = api.get(&format!("/v1/{kind}?limit=2&after=b")).await.is(200).json();
        assert_eq!((each(&second, "name"), second.get("next")), (vec!["c"], None));
        // The last page is full, and nothing comes after it.
        let last = api.get(&format!("/v1/{kind}?limit=1&after=b")).await.is(200).json();
        assert_eq!((each(&last, "name"), last.get("next")), (vec!["c"], None));
        assert_eq!(api.get(&format!("/v1/{kind}?after=zz&limit=1000")).await.is(200).json(), json!({"items": []}));
        for query in ["limit=0", "limit=1001", "limit=x", "limit=1&limit=2", "size=1"] {
            api.get(&format!("/v1/{kind}?{query}")).await.expect_problem(400, "bad-parameter");
        }
    }
}

#[tokio::test]
async fn a_topic_with_open_transactions_is_deleted_only_by_force() {
    let api = Api::start().await;
    api.transaction_topic("orders").await;
    let id = api.half("orders", "m1").await;
    let refused = api.delete("/v1/topics/orders").await.expect_problem(409, "conflict");
    assert!(detail(&refused).contains("force"), "{refused}");
    api.delete("/v1/topics/orders?force=false").await.expect_problem(409, "conflict");
    api.delete("/v1/topics/orders?force=maybe").await.expect_problem(400, "bad-parameter");
    api.delete("/v1/topics/orders?by=ann").await.expect_problem(400, "bad-parameter");
    let long = "x".repeat(257);
    api.delete(&format!("/v1/topics/orders?force=true&by={long}")).await.expect_problem(400, "bad-parameter");
    api.delete("/v1/groups/orders?force=true").await.expect_problem(400, "bad-parameter");
    api.delete("/v1/topics/orders?force=true&by=ann&reason=wrong%20name").await.is(204);
    let list: Value = api.get("/v1/transactions?state=open").await.is(200).json();
    assert!(!each(&list, "id").contains(&id.as_str()), "{list}");
}

#[tokio::test]
async fn names_in_paths_are_percent_decoded() {
    let api = Api::start().await;
    let dead = api.get("/v1/topics/%25DLQ%25shop").await.expect_problem(404, "topic-not-found");
    assert!(detail(&dead).contains("%DLQ%shop"), "{dead}");
    api.put("/v1/groups/a%7Cb%25", json!({})).await.is(201);
    assert_eq!(api.get("/v1/groups/a%7cb%25").await.is(200).json()["name"], "a|b%");
    // A dead-letter topic is made by the broker alone.
    api.put("/v1/topics/%25DLQ%25shop", json!({})).await.expect_problem(404, "topic-not-found");
    api.get("/v1/topics/%FF").await.expect_problem(400, "malformed");
}
