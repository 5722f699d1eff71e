//! What components reach while they run: what is kept, for operators page by page, and what may be published.

use vouch_broker::{NotDone, Refusal};
use vouch_node::{Components, Expect, Node};

use crate::common::{message, send, start, topic};
use crate::scripted::{consuming, ids, last_error, said};
use crate::scripts::{Says, Script, Written};
use crate::{all_is_done, bind, counts, kept, wait_until};

/// Keys of a page.
async fn page(components: &Components, prefix: &str, after: Option<&str>, limit: usize) -> Vec<String> {
    let page = components.kept("stock", (prefix.to_owned(), after.map(str::to_owned)), limit).await.unwrap();
    page.keys.into_iter().map(|kept| kept.key).collect()
}

/// A node whose binding `stock` did this once.
async fn done(folder: &std::path::Path, script: Script) -> Node {
    let node = start(folder).await;
    consuming(&node, script, Says::Done, serde_json::json!({"state": "1MiB"})).await;
    send(&node, "goods", message("m", "x")).await;
    all_is_done(&node, "stock").await;
    node
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_kept_is_shown_page_by_page_of_what_begins_so() {
    let folder = tempfile::tempdir().unwrap();
    let mut script = Script::new();
    // Some before, between and behind: one is a prefix of another, and one is not ASCII.
    for key in ["a", "stock", "stock:", "stock:a", "stock:b", "stock:é", "stock;", "zone:1"] {
        script = script.set(key, key, None);
    }
    let node = done(folder.path(), script).await;
    let components = &node.components;
    let all = ["a", "stock", "stock:", "stock:a", "stock:b", "stock:é", "stock;", "zone:1"];
    assert_eq!(page(components, "", None, 100).await, all);
    assert_eq!(page(components, "stock:", None, 100).await, all[2..6]);
    // Page by page it is the same.
    for size in 1..=4 {
        let (mut paged, mut after) = (Vec::new(), None::<String>);
        loop {
            let next = page(components, "stock:", after.as_deref(), size).await;
            let Some(last) = next.last() else { break };
            assert!(next.len() <= size && paged.len() < all.len(), "{next:?} {paged:?}");
            after = Some(last.clone());
            paged.extend(next);
        }
        assert_eq!(paged, all[2..6], "pages of {size}");
    }
    assert_eq!(page(components, "stock:", Some("a"), 100).await, all[2..6], "what is before them all changes nothing");
    assert_eq!(page(components, "stock:", Some("stock:aa"), 100).await, all[4..6], "one that is gone is as good");
    assert!(page(components, "stock:", Some("stock;"), 100).await.is_empty());
    assert!(page(components, "stock:", None, 0).await.is_empty());
    assert!(page(components, "none", None, 100).await.is_empty());
    let shown = components.kept("stock", (String::new(), None), 1).await.unwrap();
    // A key counts for its bytes, those of its value, and 128.
    let bytes: usize = all.iter().map(|key| 2 * key.len() + 128).sum();
    assert_eq!((shown.bytes, shown.quota, shown.namespace.as_str()), (bytes as u64, 1 << 20, "stock"));
    let one = components.kept_under("stock", "stock:é").await.unwrap().unwrap();
    assert_eq!((one.value.as_slice(), one.expires_at), ("stock:é".as_bytes(), None));
    assert_eq!(components.kept_under("stock", "stock:c").await.unwrap(), None);
    components.delete_kept("stock", None).await.unwrap();
    assert_eq!(components.kept("stock", (String::new(), None), 9).await.unwrap().bytes, 0);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_keeps_nothing_has_nothing_to_show() {
    let folder = tempfile::tempdir().unwrap();
    let node = done(folder.path(), Script::new().set("k", "1", None)).await;
    let spec = serde_json::json!({"plugin": "script:1.0", "groups": ["other"], "subscriptions": {"goods": "*"},
        "start": "end", "unchecked": true});
    bind(&node, "keeps-nothing", spec).await;
    for (name, why) in [("nobody", "there is no binding nobody"), ("keeps-nothing", "its grants have no state")] {
        let components = &node.components;
        let refused = [
            components.kept(name, (String::new(), None), 1).await.map(drop).unwrap_err(),
            components.kept_under(name, "k").await.map(drop).unwrap_err(),
            components.delete_kept(name, None).await.unwrap_err(),
        ];
        for refused in refused {
            assert!(matches!(&refused, NotDone::Refused(Refusal::NotFound(told)) if told.contains(why)), "{refused:?}");
        }
    }
    assert_eq!(kept(&node, "stock").await["k"], "1");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_expired_is_not_there_for_anybody() {
    let folder = tempfile::tempdir().unwrap();
    let script = Script::new().get("short").set("short", "1", Some(300)).set("long", "1", Some(3_600_000));
    let node = done(folder.path(), script).await;
    let long = node.components.kept_under("stock", "long").await.unwrap().unwrap();
    assert!(long.expires_at.is_some());
    wait_until("it expired", || async { node.components.kept_under("stock", "short").await.unwrap().is_none() }).await;
    assert_eq!(page(&node.components, "", None, 9).await, ["long"]);
    send(&node, "goods", message("next", "x")).await;
    all_is_done(&node, "stock").await;
    assert_eq!(said(&node, "stock").await, ["none", "none"], "the component, too, finds nothing");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_published_is_said_to_the_component_and_the_rest_happens() {
    let folder = tempfile::tempdir().unwrap();
    let node = start(folder.path()).await;
    topic(&node, "tx", r#"{"type":"transaction"}"#).await;
    let to = |topic: &'static str| Written { topic, body: 1, ..Written::default() };
    let twice = Written { properties: &[("a", "1"), ("a", "2")], ..to("audit") };
    let ordered = Written { message_group: Some("g"), ..to("audit") };
    let script = Script::new()
        .publish(&to("nowhere"))
        .publish(&to("tx"))
        .publish(&to("goods"))
        .publish(&twice)
        .publish(&ordered)
        .publish(&Written { body: 1 << 20, ..to("audit") })
        .publish(&Written { body: (4 << 20) + 1, ..to("audit") })
        .publish(&Written { tag: Some("a"), keys: &["k"], ..to("audit") });
    topic(&node, "goods", "{}").await;
    topic(&node, "audit", "{}").await;
    crate::scripted::push(&node, script, Says::Done).await;
    let spec = serde_json::json!({
        "plugin": "script:1.0", "groups": ["stock"], "subscriptions": {"goods": "*"}, "unchecked": true,
        "grants": {"publish": ["audit", "tx", "nowhere"]},
    });
    let set = bind(&node, "stock", spec).await;
    let warnings = set.warnings.join("\n");
    assert!(warnings.contains("topic nowhere, which does not exist"), "{warnings}");
    assert!(warnings.contains("topic tx, which has type transaction"), "{warnings}");
    send(&node, "goods", message("m", "x")).await;
    all_is_done(&node, "stock").await;
    let told = said(&node, "stock").await;
    let begins = ["invalid: ", "invalid: ", "not-granted: ", "invalid: ", "invalid: ", "01", "too-large: ", "01"];
    assert_eq!(told.len(), begins.len(), "{told:?}");
    for (told, begins) in told.iter().zip(begins) {
        assert!(told.starts_with(begins), "{told}");
    }
    for (at, why) in [(0, "nowhere"), (1, "transaction"), (3, "twice"), (4, "message group")] {
        assert!(told[at].contains(why), "{}", told[at]);
    }
    let mut published = ids(&node, "audit", "looks").await;
    published.sort();
    let mut expected = vec![told[5].clone(), told[7].clone()];
    expected.sort();
    assert_eq!(published, expected, "what was refused has no id, and the others have theirs");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deliveries_that_all_want_to_change_what_others_read_end_all_and_each_counts_once() {
    const MESSAGES: u64 = 60;
    let folder = tempfile::tempdir().unwrap();
    let node = start(folder.path()).await;
    // It reads one key and writes it anew: without what it read one of two beside each other would be lost.
    let script = Script::new().look("seen").set("seen", "1", None).raw(crate::scripted::COUNTS);
    consuming(&node, script, Says::Done, serde_json::json!({"concurrency": 8})).await;
    for n in 0..MESSAGES {
        send(&node, "goods", message(&n.to_string(), "x")).await;
    }
    all_is_done(&node, "stock").await;
    assert_eq!(kept(&node, "stock").await["n"], MESSAGES.to_string());
    let counts = counts(&node, "stock");
    assert_eq!((counts.ack, counts.failed, counts.late, counts.not_run), (MESSAGES, 0, 0, 0), "{counts:?}");
    assert_eq!(last_error(&node, "stock").await, None);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_bindings_that_share_a_namespace_count_together_and_the_last_takes_it_along() {
    let folder = tempfile::tempdir().unwrap();
    let node = start(folder.path()).await;
    let script = Script::new().raw(crate::scripted::COUNTS);
    topic(&node, "goods", "{}").await;
    crate::scripted::push(&node, script, Says::Done).await;
    let spec = |group: &str| {
        serde_json::json!({
            "plugin": "script:1.0", "groups": [group], "subscriptions": {"goods": "*"}, "grants": {"state": "both"},
            "unchecked": true,
        })
    };
    for name in ["one", "two"] {
        bind(&node, name, spec(name)).await;
    }
    for n in 0..30 {
        send(&node, "goods", message(&n.to_string(), "x")).await;
    }
    for name in ["one", "two"] {
        all_is_done(&node, name).await;
    }
    assert_eq!((&kept(&node, "one").await["n"], &kept(&node, "two").await["n"]), (&"60".to_owned(), &"60".to_owned()));
    node.components.delete_binding("one").await.unwrap();
    assert_eq!(kept(&node, "two").await["n"], "60", "the other still has it");
    node.components.delete_binding("two").await.unwrap();
    bind(&node, "three", spec("three")).await;
    all_is_done(&node, "three").await;
    assert_eq!(kept(&node, "three").await["n"], "30", "it began with nothing");
    let refused = node.components.put_binding("three", &spec("three").to_string(), Expect::Revision(1)).await;
    assert!(refused.is_err(), "somebody who saw another one changes nothing");
    node.stop().await;
}
