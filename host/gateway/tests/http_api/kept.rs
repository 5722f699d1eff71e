//! What bindings keep: listed in pages, shown, deleted.

use serde_json::{Value, json};

use crate::api::{Api, detail, each};
use crate::consumers::{binding, goods, start, until};

const STATE: &str = "/v1/bindings/stock/state";

/// A node whose shelf has these goods, each once.
async fn with_goods(skus: &[&str]) -> Api {
    let api = start().await;
    for sku in skus {
        api.send("goods", goods(&format!("of-{sku}"), sku, 7)).await;
    }
    api.put("/v1/bindings/stock", binding()).await.is(201);
    until(&api, "/v1/bindings/stock", |shown| shown["waiting"] == 0).await;
    api
}

#[tokio::test]
async fn keys_are_listed_in_their_order_by_prefix_and_in_pages() {
    let api = with_goods(&["cup", "pan", "pot", "teapot"]).await;
    let all = api.get(STATE).await.is(200).json();
    assert_eq!(each(&all, "key"), ["stock:cup", "stock:pan", "stock:pot", "stock:teapot"]);
    assert_eq!((&all["namespace"], &all["quota"], all.get("next")), (&json!("stock"), &json!(64 << 20), None));
    assert!(all["bytes"].as_u64().unwrap() > 40, "{all}");
    let first = &all["items"][0];
    assert_eq!((&first["value"], &first["expires_at"]), (&json!("7"), &Value::Null));
    assert!(first["version"].as_u64().unwrap() > 0, "{first}");
    assert_eq!(api.get(&format!("{STATE}/stock%3Acup")).await.is(200).json(), *first);

    let some = api.get(&format!("{STATE}?prefix=stock:p")).await.is(200).json();
    assert_eq!(each(&some, "key"), ["stock:pan", "stock:pot"]);
    let (mut pages, mut after) = (Vec::new(), String::new());
    loop {
        let page = api.get(&format!("{STATE}?limit=3&prefix=stock{after}")).await.is(200).json();
        pages.push(each(&page, "key").len());
        let Some(next) = page["next"].as_str() else { break };
        after = format!("&after={next}");
    }
    assert_eq!(pages, [3, 1]);
    let whole = api.get(&format!("{STATE}?limit=4")).await.is(200).json();
    assert_eq!(whole.get("next"), None, "nothing is behind the last one");
}

#[tokio::test]
async fn a_page_goes_on_beyond_what_is_read_at_once() {
    let skus: Vec<String> = (0..150).map(|number| format!("sku-{number:03}")).collect();
    let api = with_goods(&skus.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let all = api.get(&format!("{STATE}?limit=1000")).await.is(200).json();
    assert_eq!((each(&all, "key").len(), all.get("next")), (150, None));
    let page = api.get(&format!("{STATE}?limit=100&after=stock:sku-009")).await.is(200).json();
    let keys = each(&page, "key");
    assert_eq!((keys.len(), keys[0], keys[99]), (100, "stock:sku-010", "stock:sku-109"));
    assert_eq!(page["next"], "stock:sku-109");
}

#[tokio::test]
async fn a_key_is_deleted_and_all_of_them_only_if_that_is_said() {
    let api = with_goods(&["cup", "pot", "a/b %"]).await;
    let missing = api.get(&format!("{STATE}/stock:none")).await.expect_problem(404, "not-found");
    assert!(detail(&missing).contains("vouch binding state stock list"), "{missing}");
    let odd = format!("{STATE}/stock%3Aa%2Fb%20%25");
    assert_eq!(api.get(&odd).await.is(200).json()["key"], "stock:a/b %");
    api.delete(&odd).await.is(204);
    api.delete(&odd).await.expect_problem(404, "not-found");
    for unsaid in [STATE.to_owned(), format!("{STATE}?all=false"), format!("{STATE}?all=yes")] {
        let problem = api.delete(&unsaid).await.is(400).json();
        assert!(detail(&problem).contains("all"), "{problem}");
    }
    assert_eq!(each(&api.get(STATE).await.is(200).json(), "key"), ["stock:cup", "stock:pot"]);
    api.delete(&format!("{STATE}?all=true")).await.is(204);
    let nothing = api.get(STATE).await.is(200).json();
    assert_eq!((&nothing["items"], &nothing["bytes"]), (&json!([]), &json!(0)));
    api.delete(&format!("{STATE}?all=true")).await.is(204);
}

#[tokio::test]
async fn a_binding_that_keeps_nothing_or_is_not_there_has_no_state() {
    let api = start().await;
    let mut without = binding();
    without["grants"] = json!({"publish": ["reservations"]});
    without["unchecked"] = json!(true);
    api.put("/v1/bindings/stock", without).await.is(201);
    for path in [STATE.to_owned(), format!("{STATE}/k")] {
        let refused = api.get(&path).await.expect_problem(404, "not-found");
        assert!(detail(&refused).contains("keeps nothing"), "{refused}");
        api.get(&path.replace("stock", "none")).await.expect_problem(404, "not-found");
    }
    api.delete(&format!("{STATE}/k")).await.expect_problem(404, "not-found");
    api.delete(&format!("{STATE}?all=true")).await.expect_problem(404, "not-found");
}

#[tokio::test]
async fn bindings_of_one_namespace_see_the_same() {
    let api = start().await;
    api.put("/v1/topics/orders", json!({"type": "transaction", "transaction": {"immunity": "0s"}})).await.is(201);
    let mut shared = binding();
    shared["grants"]["state"] = json!("shelf");
    api.send("goods", goods("m1", "cup", 7)).await;
    api.put("/v1/bindings/stock", shared).await.is(201);
    let checks = json!({"plugin": "stock:1.0", "topics": ["orders"], "grants": {"state": "shelf"}});
    api.put("/v1/bindings/orders", checks).await.is(201);
    let kept = until(&api, "/v1/bindings/orders/state", |kept| kept["items"] != json!([])).await;
    assert_eq!((&kept["namespace"], &kept["items"][0]["key"]), (&json!("shelf"), &json!("stock:cup")));
    assert_eq!(api.get("/v1/bindings/orders").await.is(200).json().get("waiting"), None, "it consumes nothing");
}
