//! `vouch demo`: shows on real input what Vouch is for, and proves at the end that nothing was lost or invented.
//!
//! Every process is a real one, and so are the files and sockets: the service is killed with SIGKILL, and so is the broker. The
//! ledger at the end asks witnesses that know nothing of each other, and the command fails if they disagree.

mod database;
mod event;
mod ledger;
mod listen;
mod orders_api;
mod sales;
mod screen;
mod service;
mod shipping;
mod stage;
mod story;
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
}

/// Runs `vouch demo`.
///
/// # Errors
/// The ledger does not add up, or a step did not happen.
pub(crate) fn run(args: &DemoArgs) -> anyhow::Result<()> {
    let pace =
        if args.fast { Pace { immunity: "1s", interval: "500ms" } } else { Pace { immunity: "2s", interval: "3s" } };
    let began = Instant::now();
    let mut stage = DemoStage::build(pace).context("the stage could not be built")?;
    story::introduce(&stage)?;
    story::healthy(&mut stage)?;
    story::database_down(&mut stage)?;
    story::killed_after_row(&mut stage)?;
    story::killed_before_row(&mut stage)?;
    story::payment_awaited(&mut stage)?;
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

/// Asks the witnesses of the orders, and prints what they say and what those of the sales said.
fn draw_up(stage: &mut DemoStage, sales: SalesEvidence) -> anyhow::Result<Ledger> {
    stage.until_quiet(GROUP)?;
    stage.screen.chapter(
        "The ledger",
        "Of the orders from three witnesses: orders.db, the broker's HTTP API, shipping's own log. Of the sales, too: what was sent, what the component keeps, what the warehouse has.",
    )?;
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
    };
    let ledger = Ledger::new(&evidence, &story::EXPECTED);
    ledger.print(&stage.screen)?;
    Ok(ledger)
}

/// Transactions of the topic that have not ended, whatever they wait for.
fn count_open(stage: &DemoStage) -> anyhow::Result<usize> {
    let list = stage.http.get(&format!("/v1/transactions?topic={TOPIC}"))?.body;
    Ok(resource::items(&list).iter().filter(|transaction: &&Value| watch::ended(transaction).is_none()).count())
}
