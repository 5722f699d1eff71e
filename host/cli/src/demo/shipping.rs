//! The consumer: receives orders over gRPC, writes each into its own log, then acknowledges.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use vouch_protocol::wire;

use super::event::{DemoEvent, DemoMoment};
use super::link::{BrokerArgs, BrokerLink};
use crate::endpoints::Endpoints;
use crate::rpc::RpcRole;
use crate::rpc::calls::{self, Fetch};
use crate::runtime;

/// How long one receive waits.
const POLL: Duration = Duration::from_secs(5);
/// How long a message stays with this consumer.
const INVISIBLE: Duration = Duration::from_secs(30);

/// Where its endpoints and its log go, and what it receives.
#[derive(Debug, Args)]
pub(crate) struct ShippingArgs {
    #[arg(long)]
    dir: PathBuf,
    #[arg(long)]
    topic: String,
    #[arg(long)]
    group: String,
    /// The log: one JSON document per message received.
    #[arg(long)]
    log: PathBuf,
    #[command(flatten)]
    brokers: BrokerArgs,
}

/// A line of the consumer's log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Shipment {
    /// The order in the body.
    pub(crate) order: String,
    /// Id of the message.
    pub(crate) message_id: String,
    /// Which delivery it was, from 1.
    pub(crate) attempt: i32,
}

/// Runs `demo-shipping` until standard input ends.
pub(crate) fn run(args: ShippingArgs) -> anyhow::Result<()> {
    tokio::runtime::Runtime::new().context("cannot start the runtime")?.block_on(async {
        let role = RpcRole::SimpleConsumer {
            group: args.group.clone(),
            topic: args.topic.clone(),
            expression: "*".to_owned(),
        };
        let broker = BrokerLink::open("shipping", args.brokers, role).await?;
        let mut log = OpenOptions::new().create(true).append(true).open(&args.log).context("cannot open the log")?;
        Endpoints { grpc: None, http: None, peer: None, pid: std::process::id() }.write(&args.dir)?;
        let ended = tokio::select! {
            ended = receive(&args.topic, &args.group, &broker, &mut log) => ended,
            () = runtime::parent_gone() => Ok(()),
        };
        broker.close().await;
        ended
    })
}

/// Receives for ever: writes each order down, then acknowledges it. What dies in between comes again, and is seen twice
/// in the log.
async fn receive(topic: &str, group: &str, broker: &BrokerLink, log: &mut File) -> anyhow::Result<()> {
    let fetch = &Fetch { topic, group, filter: "*", batch: 8, poll: POLL, invisible: INVISIBLE };
    loop {
        let all = broker.call(|mut client| async move { calls::fetch_messages(&mut client, fetch).await }).await?;
        for received in &all {
            let shipment = shipment(received)?;
            write(log, &shipment).context("cannot write the log")?;
            broker
                .call(|mut client| async move { calls::acknowledge(&mut client, topic, group, received).await })
                .await?;
            tell(&shipment);
        }
    }
}

/// What a message says.
fn shipment(received: &wire::Message) -> anyhow::Result<Shipment> {
    let body: Value = serde_json::from_slice(&received.body).context("the body is no JSON")?;
    let order = body.get("order").and_then(Value::as_str).context("the body names no order")?.to_owned();
    let system = received.system_properties.clone().unwrap_or_default();
    Ok(Shipment { order, message_id: system.message_id, attempt: system.delivery_attempt.unwrap_or_default() })
}

/// On disk before the message is acknowledged: what is acknowledged has happened.
fn write(log: &mut File, shipment: &Shipment) -> io::Result<()> {
    let mut line = serde_json::to_vec(shipment)?;
    line.push(b'\n');
    log.write_all(&line)?;
    log.sync_data()
}

/// Tells the stage.
fn tell(shipment: &Shipment) {
    let again = if shipment.attempt > 1 { format!(", delivery {}", shipment.attempt) } else { String::new() };
    DemoEvent {
        who: "shipping".to_owned(),
        order: shipment.order.clone(),
        what: DemoMoment::Received,
        text: format!("receives {}{again}; acknowledges it", shipment.order),
        transaction: None,
    }
    .tell();
}

/// Reads the log.
pub(crate) fn read_log(path: &Path) -> anyhow::Result<Vec<Shipment>> {
    let text = match std::fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        other => other.with_context(|| format!("cannot read {}", path.display()))?,
    };
    text.lines().map(|line| serde_json::from_str(line).context("a line of the consumer's log is broken")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_to_the_log_is_read_from_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("shipping.log");
        assert!(read_log(&path).unwrap().is_empty());
        let shipment = Shipment { order: "A-1".to_owned(), message_id: "01".to_owned(), attempt: 1 };
        let mut log = OpenOptions::new().create(true).append(true).open(&path).unwrap();
        write(&mut log, &shipment).unwrap();
        write(&mut log, &shipment).unwrap();
        assert_eq!(read_log(&path).unwrap(), [shipment.clone(), shipment]);
    }
}
