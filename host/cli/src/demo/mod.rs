//! `vouch demo`: shows on real input what Vouch is for, and proves at the end that nothing was lost or invented.
//!
//! Every process is a real one, and so are the files and sockets: the service is killed with SIGKILL, and so is the broker. The
//! ledger at the end asks witnesses that know nothing of each other, and the command fails if they disagree.

mod agreement;
mod database;
mod event;
mod ledger;
mod link;
mod listen;
mod nodes;
mod orders_api;
mod sales;
mod screen;
mod service;
mod shipping;
mod stage;
mod story;
mod takeover;
mod watch;

use std::time::Instant;

use anyhow::{Context, bail};
use clap::Args;
use serde_json::Value;

use self::ledger::{Evidence, Ledger};
use self::sales::SalesEvidence;
use self::stage::{DemoStage, GROUP, Pace, TOPIC};
use crate::resource;

pub(crate) use self::orders_api::{OrdersApiArgs, run as run_orders_api};
pub(crate) use self::service::{ServiceArgs, run as run_service};
pub(crate) use self::shipping::{ShippingArgs, run as run_shipping};

/// How the story is told.
#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// Shorten the waits.
    #[arg(long)]
    fast: bool,
    /// How many nodes are the broker, 1 or 3; of 3 the one that leads is killed, and the others go on.
    #[arg(long, value_name = "N", default_value = "1", value_parser = nodes)]
    nodes: u64,
}

/// How many nodes the story can be told with.
fn nodes(text: &str) -> Result<u64, String> {
    match text {
        "1" => Ok(1),
        "3" => Ok(3),
        _ => Err("the story is told with 1 node, or with 3, of which one may be lost; write 1 or 3".to_owned()),
    }
}

/// Runs `vouch demo`.
///
/// # Errors
/// The ledger does not add up, or a step did not happen.
pub(crate) fn run(args: &DemoArgs) -> anyhow::Result<()> {
    let pace =
        if args.fast { Pace { immunity: "1s", interval: "500ms" } } else { Pace { immunity: "2s", interval: "3s" } };
    let began = Instant::now();
    let several = args.nodes > 1;
    let mut stage = DemoStage::build(pace, several).context("the stage could not be built")?;
    story::introduce(&stage)?;
    if several {
        takeover::become_one(&mut stage, args.nodes)?;
    }
    stage.start_shipping()?;
    story::healthy(&mut stage)?;
    story::database_down(&mut stage)?;
    story::killed_after_row(&mut stage)?;
    story::killed_before_row(&mut stage)?;
    story::payment_awaited(&mut stage)?;
    if several {
        takeover::leader_killed(&mut stage)?;
    }
    let sales = sales::broker_killed(&mut stage)?;
    let ledger = draw_up(&mut stage, sales)?;
    stage.strike().context("a process did not end well")?;
    if !ledger.adds_up() {
        bail!("the ledger does not add up");
    }
    crate::output::line(format_args!(
        "\n{:.0} s. To use it yourself: vouch serve, examples/order-service, plugins/stock.",
        began.elapsed().as_secs_f64()
    ))?;
    Ok(())
}

/// Whom the ledger is drawn up from.
const WITNESSES: &str = "Of the orders from three witnesses: orders.db, the broker's HTTP API, shipping's own log. Of the sales, too: what was sent, what the component keeps, what the warehouse has.";

/// Asks the witnesses of the orders, and prints what they say and what those of the sales said.
fn draw_up(stage: &mut DemoStage, sales: SalesEvidence) -> anyhow::Result<Ledger> {
    stage.until_quiet(GROUP)?;
    let of_nodes = if stage.nodes.are_several() { " Then of each node by itself." } else { "" };
    stage.screen.chapter("The ledger", &format!("{WITNESSES}{of_nodes}"))?;
    let nodes = agreement::ask(stage)?;
    let transactions = stage.played.iter().map(|played| {
        let transaction = watch::fetch(&stage.http, &played.watch.transaction)?;
        anyhow::Ok((played.order.clone(), transaction))
    });
    let evidence = Evidence {
        rows: database::all(&stage.database()).context("cannot read the database")?,
        transactions: transactions.collect::<anyhow::Result<_>>()?,
        shipments: shipping::read_log(&stage.shipping_log())?,
        open: count_open(stage)?,
        sales,
        nodes,
    };
    let ledger = Ledger::new(&evidence, &story::expected(stage.nodes.are_several()));
    ledger.print(&stage.screen)?;
    Ok(ledger)
}

/// Transactions of the topic that have not ended, whatever they wait for.
fn count_open(stage: &DemoStage) -> anyhow::Result<usize> {
    let list = stage.http.get(&format!("/v1/transactions?topic={TOPIC}"))?.body;
    Ok(resource::items(&list).iter().filter(|transaction: &&Value| watch::ended(transaction).is_none()).count())
}
