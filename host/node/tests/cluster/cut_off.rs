//! A leader that is cut off from the others while a component of it has a message in hand: the next one delivers that as the same
//! attempt, and of the two calls one counts, with all that it staged.

use std::collections::BTreeSet;

use vouch_broker::{GroupConfig, ResourceName};
use vouch_node::{Expect, Node, NodeConfig, PluginUpload};

use crate::common::gate::Gate;
use crate::common::{message, receive_now, topic};
use crate::consuming::{bind, counts, kept};
use crate::nodes::{Nodes, leads, until, voters};
use crate::scripts::{Script, Written};
use crate::wires::Wires;

/// Adds one to the number `n`.
const COUNTS: &str = r"(i32.store8 (i32.const 30000) (i32.const 110))
    (call $add (i32.const 30000) (i32.const 1) (i64.const 1) (i32.const 2048))
    (if (i32.load8_u (i32.const 2048)) (then unreachable))";

/// When the call of the leader that is cut off is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AnswersIt {
    /// At once: that one writes down what came of it, where nobody else has it.
    BeforeItKnows,
    /// When the next leader is done with the message.
    WhenAnotherIsDone,
}

/// Three nodes whose wires can be cut, and a binding `stock` that counts, publishes, and waits for this service; each message is
/// delivered once, if at all.
async fn counting_of_three(wires: &Wires, gate: &Gate) -> Nodes {
    let nodes = Nodes::three_over(wires.clone()).await;
    let leader = nodes.leader().await;
    topic(leader, "goods", r#"{"queues":1}"#).await;
    topic(leader, "audit", "{}").await;
    let once: GroupConfig = serde_json::from_str(r#"{"max_attempts":1}"#).unwrap();
    leader.settings.put_group("stock", once, Expect::Anything).await.unwrap();
    let published = Written { topic: "audit", body: 3, ..Written::default() };
    let wasm = Script::new().raw(COUNTS).publish(&published).ask(&gate.address.to_string()).asking();
    let upload = PluginUpload { name: "script".to_owned(), tag: "1.0".to_owned(), wasm, expected: None };
    leader.components.upload(upload).await.unwrap();
    let spec = serde_json::json!({
        "plugin": "script:1.0", "groups": ["stock"], "subscriptions": {"goods": "*"}, "unchecked": true,
        "grants": {"state": true, "publish": ["audit"], "http": [format!("http://{}", gate.address)]},
        "limits": {"deadline": "60s"},
    });
    bind(leader, "stock", spec).await;
    nodes
}

/// The id that a call said it published under.
async fn said(node: &Node) -> Vec<String> {
    let Some((_, binding)) = node.components.binding_log("stock").await else { return Vec::new() };
    binding.recent_logs().into_iter().map(|line| line.text).collect()
}

/// Ids of what was published, for a group that was not there before.
async fn published(node: &Node, group: &str) -> Vec<String> {
    receive_now(node, "audit", group).await.into_iter().map(|delivery| delivery.message.message.message_id).collect()
}

/// Dead letters of the group, if it ever had one.
async fn dead_letters(node: &Node) -> usize {
    match node.settings.topic(&ResourceName::plain("%DLQ%stock")).await {
        Err(_) => 0,
        Ok(_) => receive_now(node, "%DLQ%stock", "looks").await.len(),
    }
}

async fn is_cut_off_and_one_set_of_effects_stands(answers: AnswersIt) {
    let (wires, gate) = (Wires::default(), Gate::begin());
    let mut nodes = counting_of_three(&wires, &gate).await;
    let before = nodes.leader().await.clone();
    let id = before.cluster.status().await.unwrap().group.node;
    crate::consuming::must_send(&before, "goods", message("m", "x")).await;
    until("it is delivered", async || gate.asked() == 1).await;
    let told = said(&before).await;
    wires.cut_off(id.0);
    if answers == AnswersIt::BeforeItKnows {
        gate.answer(1);
        until("its answer is in its log, and in no other", async || {
            let group = before.cluster.status().await.unwrap().group;
            group.last > group.committed
        })
        .await;
    }
    let at = nodes.running.iter().position(|node| std::ptr::eq(&*node.status, &*before.status)).unwrap();
    let cut_off = nodes.running.remove(at);
    let next = nodes.leader().await.clone();
    until("it is delivered by the next one", async || gate.asked() == 2).await;
    gate.answer(2);
    until("it is done", async || matches!(next.components.waiting("stock").await, Ok(Some(0)))).await;
    until("it is counted", async || counts(&next, "stock").ack == 1).await;
    gate.answer(1);
    until("it leads no more", async || !leads(&cut_off).await).await;
    assert_eq!(published(&next, "others").await, told, "the same message, under the id that the first call was told");
    nodes.running.push(cut_off);
    wires.mend();
    nodes.come_to(&voters(&[1, 2, 3])).await;
    for node in &nodes.running {
        until("all have what counted", async || kept(node).await.get("n").map(String::as_str) == Some("1")).await;
    }
    let leader = nodes.leader().await;
    let ids: BTreeSet<String> = published(leader, "looks").await.into_iter().collect();
    assert_eq!((ids, published(leader, "looks-again").await.len()), (told.into_iter().collect(), 1), "{answers:?}");
    assert_eq!(dead_letters(leader).await, 0, "it was its only attempt, and is that still");
    assert_eq!((counts(&before, "stock").ack, gate.asked()), (0, 2), "{answers:?}");
    nodes.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_a_leader_wrote_of_an_answer_that_was_cut_off_from_the_others_never_was() {
    is_cut_off_and_one_set_of_effects_stands(AnswersIt::BeforeItKnows).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_a_component_answers_to_a_leader_that_was_cut_off_when_another_was_done_is_late() {
    is_cut_off_and_one_set_of_effects_stands(AnswersIt::WhenAnotherIsDone).await;
}

impl Nodes {
    /// Three voters that reach each other over these wires.
    async fn three_over(wires: Wires) -> Self {
        let mut nodes = Self::begin().await;
        // The first is reached over its wire from its second start on.
        nodes.wires = Some(wires);
        let config: NodeConfig = nodes.config(1);
        nodes.running[0].stop().await;
        nodes.running[0] = crate::nodes::started(config).await.unwrap();
        nodes.become_three().await;
        nodes
    }
}
