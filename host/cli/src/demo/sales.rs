//! What is played last: a component that consumes. It sells lamps from a shelf that the broker keeps, and this time it is the
//! broker that dies.
//!
//! Each sale takes one from the count that the component keeps, and publishes one reservation. One that was done twice, or half,
//! would be seen: in what is left, or in what the warehouse got.

use anyhow::{Context, bail};
use serde_json::{Value, json};
use vouch_protocol::wire::MessageType;

use super::stage::{DIGEST_SHOWN, DemoStage, GROUP};
use crate::http::HttpClient;
use crate::rpc::{RpcRole, RpcSession, calls};
use crate::{plugin, resource};

/// The component of the tutorial, as it ships with the broker; also the name of its binding and of its group.
const STOCK: &str = "stock";
const COMPONENT: &[u8] = include_bytes!("../../../../plugins/dist/stock.wasm");
/// What it consumes: goods that come, and orders.
const GOODS: &str = "goods";
const SALES: &str = "sales";
/// What it publishes: what was reserved; and what was missing, of which there is nothing here.
pub(super) const RESERVATIONS: &str = "reservations";
const SHORT: &str = "stock-short";
/// Who receives the reservations.
const WAREHOUSE: &str = "warehouse";
/// Under this key the component counts.
const KEY: &str = "stock:lamp";
/// So many lamps come, and so many are sold, one by one.
const CAME: i64 = 100;
const SOLD: usize = 60;
/// Sales a second: those of the first second at once, and then slowly enough for the broker to be killed in between.
const RATE: &str = "20";
/// When so many are sold, it is.
const KILLED_AFTER: i64 = 25;

/// What is known of the sales at the end, and from whom.
pub(super) struct SalesEvidence {
    /// Lamps that came.
    pub(super) came: i64,
    /// Orders that the broker acknowledged when they were sent.
    pub(super) sold: Vec<String>,
    /// Lamps that the component's state says are left; `None`: it says nothing.
    pub(super) left: Option<i64>,
    /// The order of each message that the warehouse received.
    pub(super) reserved: Vec<String>,
    /// Messages that the broker still has for the warehouse.
    pub(super) more: u64,
}

/// The broker is killed while a component in it consumes.
pub(super) fn broker_killed(stage: &mut DemoStage) -> anyhow::Result<SalesEvidence> {
    stage.until_quiet(GROUP)?;
    let (title, of_several) = match stage.nodes.are_several() {
        false => ("The consumer is a component too, and the broker is killed", ""),
        true => (
            "The consumer is a component too, and the node that leads is killed",
            " The component goes on where another node leads.",
        ),
    };
    let about = "A shelf of lamps, without a service and without a database: a component consumes inside the broker. What it keeps and what it publishes happens in the same log record as its acknowledgement, or not at all; so nothing in it asks whether it saw a message before.";
    stage.chapter(title, &format!("{about}{of_several}"))?;
    stage.close_shop()?;
    bind(stage)?;
    let lamps = json!({"sku": "lamp", "quantity": CAME}).to_string();
    stage.command("supplier", &["message", "send", GOODS, "--body", &lamps])?;
    stage.until_seen("the lamps on the shelf", |http| Ok((left(http)? == Some(CAME)).then_some(())))?;
    stage.screen.step("component", &format!("counts them: {KEY} is {CAME}"))?;
    let sold = sell(stage)?;
    stage.screen.step("customers", &format!("buy {SOLD} lamps: {SOLD} messages to topic {SALES}, acknowledged"))?;
    let seen = stage.until_seen("some sales", |http| {
        Ok(left(http)?.map(|left| CAME - left).filter(|sold| *sold >= KILLED_AFTER))
    })?;
    let why = format!("is killed (kill -9) in the middle of it: {seen} of {SOLD} sales were done");
    let killed = stage.kill_leader(None, &why)?;
    stage.until_served(killed)?;
    stage.until_quiet(STOCK)?;
    stage.screen.step("component", "has done all that was left to do")?;
    stage.make_whole(killed)?;
    witnesses(stage, sold)
}

/// Topics, component and binding.
fn bind(stage: &mut DemoStage) -> anyhow::Result<()> {
    for topic in [GOODS, SALES, RESERVATIONS, SHORT] {
        stage.http.put(&format!("/v1/topics/{topic}"), &json!({}), &[]).context("cannot create a topic")?;
    }
    let (verdict, _) =
        plugin::put_tag(&stage.http, STOCK, "1.0", COMPONENT.to_vec(), false).context("cannot upload the component")?;
    let digest = verdict.body.get("digest").and_then(Value::as_str).unwrap_or_default();
    let digest: String = digest.chars().take(DIGEST_SHOWN).collect();
    stage
        .screen
        .step("operator", &format!("uploads the component {STOCK}:1.0 ({digest}), and binds it to a group:"))?;
    let what = ["binding", "set", STOCK, "--plugin", "stock:1.0", "--group", STOCK];
    let from = ["--subscribe", GOODS, "--subscribe", SALES];
    let may = ["--state", "--publish", RESERVATIONS, "--publish", SHORT];
    let limits = ["--rate", RATE, "--deadline", "10s"];
    stage.command("operator", &[&what[..], &from, &may, &limits].concat())?;
    Ok(())
}

/// All sales are sent in one request, so that they are there before the first of them is done. Returns their orders.
fn sell(stage: &DemoStage) -> anyhow::Result<Vec<String>> {
    let orders: Vec<String> = (1..=SOLD).map(|n| format!("S-{n:02}")).collect();
    let message = |order: &String| {
        let body = json!({"order": order, "items": [{"sku": "lamp", "quantity": 1}]}).to_string();
        calls::new_message(SALES, body, MessageType::Normal)
    };
    let messages = orders.iter().map(message).collect();
    tokio::runtime::Runtime::new()
        .context("cannot start the runtime")?
        .block_on(async {
            let role = RpcRole::Producer { topics: vec![SALES.to_owned()] };
            let mut session = RpcSession::open(&stage.grpc_address, role).await?;
            let sent = calls::send_messages(&mut session.client, messages).await;
            session.close().await;
            sent
        })
        .context("the sales were not taken")?;
    Ok(orders)
}

/// What the component's state says is left.
pub(super) fn left(http: &HttpClient) -> anyhow::Result<Option<i64>> {
    let kept = http.get(&format!("/v1/bindings/{STOCK}/state?prefix={KEY}"))?.body;
    let value = resource::items(&kept).iter().find(|kept| kept["key"] == KEY).and_then(|kept| kept["value"].as_str());
    value.map(|value| value.parse().with_context(|| format!("{KEY} is {value:?}, and no number"))).transpose()
}

/// Asks, and shows, what the component keeps and what it published.
fn witnesses(stage: &DemoStage, sold: Vec<String>) -> anyhow::Result<SalesEvidence> {
    for line in stage.command("operator", &["binding", "state", STOCK, "list"])?.lines() {
        stage.screen.output(line)?;
    }
    let count = SOLD.to_string();
    let receive = ["message", "receive", RESERVATIONS, "--group", WAREHOUSE, "--count", &count, "--json"];
    let received = stage.command(WAREHOUSE, &receive)?;
    let bodies: Vec<String> = received.lines().map(body).collect::<anyhow::Result<_>>()?;
    let first = bodies.first().map_or("none", String::as_str);
    stage.screen.step(WAREHOUSE, &format!("has {} reservations, such as {first}", bodies.len()))?;
    let reserved = bodies.iter().map(|body| order(body)).collect::<anyhow::Result<_>>()?;
    Ok(SalesEvidence { came: CAME, sold, left: left(&stage.http)?, reserved, more: stage.lag(WAREHOUSE)? })
}

/// The body of a message that `vouch message receive --json` printed.
fn body(line: &str) -> anyhow::Result<String> {
    let message: Value = serde_json::from_str(line).context("a message was printed as something else than JSON")?;
    Ok(message["body"].as_str().context("a reservation has no text")?.to_owned())
}

/// The order that a reservation is about.
fn order(body: &str) -> anyhow::Result<String> {
    let reservation: Value = serde_json::from_str(body).context("a reservation is no JSON")?;
    match reservation["order"].as_str() {
        Some(order) => Ok(order.to_owned()),
        None => bail!("a reservation names no order: {body}"),
    }
}
