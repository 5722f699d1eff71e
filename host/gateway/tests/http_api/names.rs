//! Topics and groups of a namespace: every call takes the names that lists show and that refusals advise.

use serde_json::{Value, json};
use vouch_broker::ResourceName;
use vouch_node::{ReceiveRequest, SendRequest};

use crate::api::{Api, detail, each, message};

/// As lists show it, and as one segment of a path.
const TOPIC: (&str, &str) = ("tenant/orders", "tenant%2Forders");
const GROUP: (&str, &str) = ("tenant/shop", "tenant%2Fshop");

async fn send(api: &Api, id: &str) {
    let (topic, producer) = (ResourceName::parse(TOPIC.0), "producer-1".to_owned());
    api.node.messages.send(SendRequest { topic, producer, messages: vec![message(id, b"x")] }).await.unwrap();
}

async fn receive(api: &Api) {
    let (topic, group) = (ResourceName::parse(TOPIC.0), ResourceName::parse(GROUP.0));
    let receive = ReceiveRequest { topic, group, client_id: "c".to_owned(), max: 1, ..ReceiveRequest::default() };
    while api.node.messages.receive(receive.clone()).await.unwrap().is_empty() {}
}

#[tokio::test]
async fn a_topic_of_a_namespace_is_created_listed_shown_changed_searched_and_deleted() {
    let api = Api::start().await;
    let path = format!("/v1/topics/{}", TOPIC.1);
    let missing = api.get(&path).await.expect_problem(404, "topic-not-found");
    assert!(detail(&missing).contains("vouch topic create tenant/orders"), "{missing}");
    let created = api.put(&path, json!({"type": "mixed", "queues": 2})).await.is(201);
    assert_eq!(created.json()["name"], TOPIC.0);
    // Not to be taken for the one of the same name in the default namespace.
    api.get("/v1/topics/orders").await.expect_problem(404, "topic-not-found");
    assert_eq!(each(&api.get("/v1/topics").await.is(200).json(), "name"), [TOPIC.0]);
    assert_eq!(api.get(&path).await.is(200).json(), created.json());
    assert_eq!(api.put(&path, created.json()).await.is(200).json()["queues"], 2);
    assert_eq!(api.patch(&path, json!({"retention": "72h"})).await.is(200).json()["name"], TOPIC.0);

    send(&api, "m1").await;
    let messages = format!("/v1/messages/{}", TOPIC.1);
    for found in [&messages, &format!("{messages}/m1"), &format!("{messages}?key=key-m1")] {
        let items = api.get(found).await.is(200).json();
        assert_eq!((each(&items, "id"), each(&items, "topic")), (vec!["m1"], vec![TOPIC.0]), "{found}");
    }
    let half = vouch_broker::NewMessage { kind: vouch_broker::MessageKind::Transaction, ..message("h1", b"x") };
    let (topic, producer) = (ResourceName::parse(TOPIC.0), "producer-1".to_owned());
    api.node.messages.send(SendRequest { topic, producer, messages: vec![half] }).await.unwrap();
    let open = api.get(&format!("/v1/transactions?topic={}", TOPIC.1)).await.is(200).json();
    assert_eq!(each(&open, "topic"), [TOPIC.0]);
    let id = each(&open, "id")[0].to_owned();
    let decision = json!({"by": "ann"});
    let ended = api.post(&format!("/v1/transactions/{id}/rollback"), decision).await.is(200).json();
    assert_eq!((&ended["topic"], &ended["state"]), (&json!(TOPIC.0), &json!("rolled_back")));

    let kept = api.delete(&path).await.expect_problem(409, "conflict");
    assert!(detail(&kept).contains(TOPIC.0), "{kept}");
    api.delete(&format!("{path}?force=true")).await.is(204);
    api.get(&messages).await.expect_problem(404, "topic-not-found");
}

#[tokio::test]
async fn a_group_of_a_namespace_is_created_listed_shown_changed_followed_and_deleted() {
    let api = Api::start().await;
    let path = format!("/v1/groups/{}", GROUP.1);
    for missing in [&path, &format!("{path}/progress"), &format!("{path}/gaps")] {
        let problem = api.get(missing).await.expect_problem(404, "group-not-found");
        assert!(detail(&problem).contains("vouch group create tenant/shop"), "{problem}");
    }
    assert_eq!(api.put(&path, json!({"max_attempts": 3})).await.is(201).json()["name"], GROUP.0);
    assert_eq!(each(&api.get("/v1/groups").await.is(200).json(), "name"), [GROUP.0]);
    assert_eq!(api.patch(&path, json!({"max_attempts": 4})).await.is(200).json()["max_attempts"], 4);
    api.get("/v1/groups/shop").await.expect_problem(404, "group-not-found");

    api.put(&format!("/v1/topics/{}", TOPIC.1), json!({"queues": 1})).await.is(201);
    send(&api, "m1").await;
    receive(&api).await;
    api.put("/v1/topics/after", json!({})).await.is(201);
    let progress = api.get(&format!("{path}/progress")).await.is(200).json();
    assert_eq!(progress["items"], json!([{"topic": TOPIC.0, "lag": 1, "in_flight": 1, "ready": 0}]));
    assert_eq!(api.get(&format!("{path}/gaps")).await.is(200).json(), json!({"items": []}));

    // A topic for dead letters is one of the group's namespace, or of the one that is written.
    for (written, missing) in [("orders", None), ("tenant/orders", None), ("dead", Some("tenant/dead"))] {
        let answer = api.patch(&path, json!({"dead_letter_topic": written})).await;
        match missing {
            None => assert_eq!(answer.is(200).json()["dead_letter_topic"], written),
            Some(name) => assert!(detail(&answer.expect_problem(404, "topic-not-found")).contains(name)),
        }
    }
    api.delete(&path).await.is(204);
    api.get(&path).await.expect_problem(404, "group-not-found");
}

#[tokio::test]
async fn lists_go_on_after_a_name_of_a_namespace() {
    let api = Api::start().await;
    for name in ["b", "a", "tenant%2Fa", "tenant%2Fb", "t2%2Fa"] {
        for kind in ["topics", "groups"] {
            api.put(&format!("/v1/{kind}/{name}"), json!({})).await.is(201);
        }
    }
    for kind in ["topics", "groups"] {
        let (mut names, mut after) = (Vec::new(), String::new());
        loop {
            let page = api.get(&format!("/v1/{kind}?limit=1{after}")).await.is(200).json();
            names.extend(each(&page, "name").iter().map(|name| (*name).to_owned()));
            let Some(next) = page["next"].as_str() else { break };
            after = format!("&after={}", next.replace('/', "%2F"));
        }
        assert_eq!(names, ["a", "b", "t2/a", "tenant/a", "tenant/b"], "{kind}");
    }
}

#[tokio::test]
async fn a_text_that_is_no_name_is_refused_as_such_and_nothing_is_advised() {
    let api = Api::start().await;
    for name in ["a%2Fb%2Fc", "%2Fa", "a%2F", "a.b%2Fc", "a%20b"] {
        for (kind, body) in [("topics", json!({})), ("groups", json!({}))] {
            let path = format!("/v1/{kind}/{name}");
            for answer in [
                api.get(&path).await,
                api.put(&path, body.clone()).await,
                api.patch(&path, body.clone()).await,
                api.delete(&path).await,
            ] {
                let problem = answer.expect_problem(422, "illegal-name");
                assert!(!detail(&problem).contains("create"), "{problem}");
            }
        }
        api.get(&format!("/v1/messages/{name}")).await.expect_problem(422, "illegal-name");
        api.get(&format!("/v1/groups/{name}/progress")).await.expect_problem(422, "illegal-name");
    }
}

/// Lets a group give up on one message.
async fn dead_letter(api: &Api) -> Value {
    api.put(&format!("/v1/topics/{}", TOPIC.1), json!({"queues": 1})).await.is(201);
    api.put(&format!("/v1/groups/{}", GROUP.1), json!({"max_attempts": 1})).await.is(201);
    send(api, "m1").await;
    let (topic, group) = (ResourceName::parse(TOPIC.0), ResourceName::parse(GROUP.0));
    let receive = ReceiveRequest { topic, group, client_id: "c".to_owned(), max: 1, ..ReceiveRequest::default() };
    let mut received = Vec::new();
    while received.is_empty() {
        received = api.node.messages.receive(receive.clone()).await.unwrap();
    }
    api.node.messages.forward_to_dead_letter(received[0].handle, "in vain").await.unwrap();
    api.get("/v1/topics/tenant%2F%25DLQ%25shop").await.is(200).json()
}

#[tokio::test]
async fn retention_of_dead_letters_can_be_set_and_nothing_else_of_their_topic() {
    let api = Api::start().await;
    let path = "/v1/topics/tenant%2F%25DLQ%25shop";
    for answer in [api.get(path).await, api.put(path, json!({"queues": 1})).await, api.patch(path, json!({})).await] {
        let problem = answer.expect_problem(404, "topic-not-found");
        assert!(detail(&problem).contains("first dead letter") && !detail(&problem).contains("create"), "{problem}");
    }
    let made = dead_letter(&api).await;
    assert_eq!((&made["name"], made.get("retention")), (&json!("tenant/%DLQ%shop"), None));
    let kept = json!({"retention": "30days", "retention_size": "1GiB", "unconsumed": "expire"});
    let changed = api.patch(path, kept.clone()).await.is(200).json();
    for member in ["retention", "retention_size", "unconsumed"] {
        assert_eq!(changed[member], kept[member], "{changed}");
    }
    assert_eq!(api.put(path, changed.clone()).await.is(200).json(), changed, "what was shown can be put back");
    assert_eq!(api.patch(path, json!({"retention": null})).await.is(200).json().get("retention"), None);
    for other in [json!({"queues": 2}), json!({"ack": "memory"}), json!({"transaction": {"max_checks": 1}})] {
        let problem = api.patch(path, other).await.expect_problem(422, "invalid");
        assert!(detail(&problem).contains("vouch topic update tenant/%DLQ%shop"), "{problem}");
    }
    api.put("/v1/topics/%25other", json!({})).await.expect_problem(422, "illegal-name");
}
