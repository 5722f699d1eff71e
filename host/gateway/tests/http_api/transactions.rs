//! Transactions: listed, shown, and decided by an operator.

use serde_json::{Value, json};
use vouch_broker::{HalfPosition, ResourceName, ShardId, TransactionId};
use vouch_node::ReceiveRequest;

use crate::api::{Api, detail, each};

fn why() -> Value {
    json!({"by": "ann", "reason": "looked into the database"})
}

fn path(id: &str, action: &str) -> String {
    format!("/v1/transactions/{id}/{action}")
}

#[tokio::test]
async fn an_open_transaction_is_shown_with_all_that_is_known() {
    let api = Api::start().await;
    api.transaction_topic("orders").await;
    let id = api.half("orders", "m1").await;
    let shown = api.get(&format!("/v1/transactions/{id}")).await.is(200).json();
    let opened = shown["opened_at"].as_str().unwrap().to_owned();
    assert!(opened.ends_with('Z') && opened.len() == "2023-11-14T22:13:20.007Z".len(), "{opened}");
    let expected = json!({
        "id": id, "topic": "orders", "state": "open", "checks": 0, "opened_at": opened, "next_check_at": null,
        "ended_at": null, "last_answer": null, "last_error": null, "parked_because": null, "message_id": "m1", "keys": ["key-m1"],
        "producer": "producer-1",
    });
    assert_eq!(shown, expected);
    assert_eq!(api.get("/v1/transactions").await.is(200).json(), json!({"items": [expected]}));
}

#[tokio::test]
async fn a_topic_that_is_asked_about_says_when() {
    let api = Api::start().await;
    let settings = json!({"type": "transaction", "transaction": {"immunity": "1h"}});
    api.put("/v1/topics/orders", settings).await.is(201);
    let id = api.half("orders", "m1").await;
    let shown = api.get(&format!("/v1/transactions/{id}")).await.is(200).json();
    let at = |member: &str| humantime::parse_rfc3339(shown[member].as_str().unwrap()).unwrap();
    assert_eq!(at("next_check_at").duration_since(at("opened_at")).unwrap().as_secs(), 3600);
}

#[tokio::test]
async fn a_decision_ends_it_a_repeat_is_told_and_the_opposite_is_a_conflict() {
    let api = Api::start().await;
    api.transaction_topic("orders").await;
    for (action, opposite, outcome, verdict) in
        [("commit", "rollback", "committed", "commit"), ("rollback", "commit", "rolled_back", "rollback")]
    {
        let id = api.half("orders", action).await;
        for repeated in [false, true] {
            let ended = api.post(&path(&id, action), why()).await.is(200).json();
            assert_eq!(
                (&ended["id"], &ended["state"], &ended["outcome"]),
                (&json!(id), &json!(outcome), &json!(outcome))
            );
            assert_eq!(ended["repeated"], repeated);
            let last = &ended["last_answer"];
            assert_eq!((&last["verdict"], &last["reason"]), (&json!(verdict), &json!("looked into the database")));
            assert!(last["by"].as_str().unwrap().contains("ann"), "{last}");
            assert_eq!((&last["at"], ended["next_check_at"].is_null()), (&ended["ended_at"], true));
        }
        let conflict = api.post(&path(&id, opposite), why()).await.expect_problem(409, "outcome-conflict");
        assert_eq!(conflict["outcome"], outcome);
        assert_eq!(api.get(&format!("/v1/transactions/{id}")).await.is(200).json()["state"], outcome);
        api.post(&path(&id, "resume"), why()).await;
    }
    // What was committed is delivered, what was rolled back is not.
    let (topic, group) = (ResourceName::plain("orders"), ResourceName::plain("shop"));
    let receive = ReceiveRequest { topic, group, client_id: "c".to_owned(), max: 32, ..ReceiveRequest::default() };
    let received = api.node.messages.receive(receive).await.unwrap();
    let ids: Vec<_> = received.iter().map(|delivery| delivery.message.message.message_id.as_str()).collect();
    assert_eq!(ids, ["commit"]);
}

#[tokio::test]
async fn an_open_transaction_cannot_be_resumed() {
    let api = Api::start().await;
    api.transaction_topic("orders").await;
    let id = api.half("orders", "m1").await;
    assert!(api.post(&path(&id, "resume"), why()).await.status >= 400);
}

#[tokio::test]
async fn a_decision_says_who_and_is_bounded() {
    let api = Api::start().await;
    api.transaction_topic("orders").await;
    let id = api.half("orders", "m1").await;
    for action in ["commit", "rollback", "resume"] {
        for (body, named) in [
            (json!({}), "by"),
            (json!({"reason": "x"}), "by"),
            (json!({"by": " "}), "by"),
            (json!({"by": "a".repeat(257)}), "256"),
            (json!({"by": "ann", "reason": "r".repeat(4097)}), "4096"),
            (json!({"by": "ann", "why": "x"}), "why"),
            (json!({"by": 7}), "string"),
        ] {
            let problem = api.post(&path(&id, action), body).await.expect_problem(422, "invalid");
            assert!(detail(&problem).contains(named), "{problem}");
        }
    }
    assert_eq!(api.get(&format!("/v1/transactions/{id}")).await.json()["state"], "open");
    api.post(&path(&id, "commit"), json!({"by": "a".repeat(256), "reason": "r".repeat(4096)})).await.is(200);
}

#[tokio::test]
async fn ids_that_are_no_transaction_are_not_found() {
    let api = Api::start().await;
    api.transaction_topic("orders").await;
    api.half("orders", "m1").await;
    let other_shard = TransactionId::of_first_life(ShardId(1), HalfPosition(0)).to_string();
    let nowhere = TransactionId::of_first_life(ShardId(0), HalfPosition(1)).to_string();
    let beyond = TransactionId::of_first_life(ShardId(0), HalfPosition(u64::MAX)).to_string();
    for id in ["x", "T0", "%20", &other_shard, &nowhere, &beyond] {
        api.get(&format!("/v1/transactions/{id}")).await.expect_problem(404, "unknown-transaction");
        for action in ["commit", "rollback", "resume"] {
            api.post(&path(id, action), why()).await.expect_problem(404, "unknown-transaction");
        }
    }
}

#[tokio::test]
async fn the_list_is_filtered_by_state_topic_and_age() {
    let api = Api::start().await;
    for topic in ["a", "b"] {
        api.transaction_topic(topic).await;
    }
    let (open, kept, dropped, other) =
        (api.half("a", "1").await, api.half("a", "2").await, api.half("a", "3").await, api.half("b", "4").await);
    api.post(&path(&kept, "commit"), why()).await.is(200);
    api.post(&path(&dropped, "rollback"), why()).await.is(200);
    for (query, expected) in [
        ("", vec![&open, &other, &kept, &dropped]),
        ("?state=open", vec![&open, &other]),
        ("?state=committed", vec![&kept]),
        ("?state=rolled_back", vec![&dropped]),
        ("?state=parked", vec![]),
        ("?state=waiting_for_checker", vec![]),
        ("?topic=b", vec![&other]),
        ("?topic=nothing", vec![]),
        ("?state=open&topic=a&older_than=0s", vec![&open]),
        ("?older_than=1h+30m", vec![]),
    ] {
        let list = api.get(&format!("/v1/transactions{query}")).await.is(200).json();
        assert_eq!(each(&list, "id"), expected, "{query}");
    }
    // Producers declare topics, not groups: there is no such filter.
    for query in ["state=closed", "older_than=old", "older_than=-1s", "after=x", "limit=0", "topik=a", "group=g"] {
        let problem = api.get(&format!("/v1/transactions?{query}")).await.expect_problem(400, "bad-parameter");
        assert!(detail(&problem).contains(query.split('=').next().unwrap()), "{problem}");
    }
}

#[tokio::test]
async fn pages_go_through_open_and_ended_ones_and_miss_none_that_ends_meanwhile() {
    let api = Api::start().await;
    api.transaction_topic("orders").await;
    let mut ids = Vec::new();
    for number in 0..6 {
        ids.push(api.half("orders", &number.to_string()).await);
    }
    api.post(&path(&ids[0], "commit"), why()).await.is(200);
    api.post(&path(&ids[1], "commit"), why()).await.is(200);
    let mut seen: Vec<String> = Vec::new();
    let mut next = String::new();
    loop {
        let page = api.get(&format!("/v1/transactions?limit=2{next}")).await.is(200).json();
        seen.extend(each(&page, "id").iter().map(ToString::to_string));
        if seen.len() == 2 {
            // The last one of the first page ends; those behind it are still there.
            api.post(&path(&ids[3], "commit"), why()).await.is(200);
        }
        let Some(mark) = page["next"].as_str() else { break };
        next = format!("&after={mark}");
    }
    let index = |id: &String| ids.iter().position(|known| known == id).unwrap();
    assert_eq!(seen.iter().map(index).collect::<Vec<_>>(), [2, 3, 4, 5, 0, 1, 3]);
}
