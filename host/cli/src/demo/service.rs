//! The order service: takes orders over HTTP, writes them to its database, and sends each as a half message that it
//! commits once the row is written. A producer like any other; the story can hold it at the moments that matter.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use axum::{Json, Router};
use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::Notify;
use vouch_protocol::wire::{MessageType, SendResultEntry};

use super::database;
use super::event::{DemoEvent, DemoMoment};
use super::link::{BrokerArgs, BrokerLink};
use super::listen;
use crate::rpc::RpcRole;
use crate::rpc::calls::{self, Resolution};

/// Where its endpoints go, which database it writes, and where it sends.
#[derive(Debug, Args)]
pub(crate) struct ServiceArgs {
    #[arg(long)]
    dir: PathBuf,
    #[arg(long)]
    database: PathBuf,
    #[arg(long)]
    topic: String,
    #[command(flatten)]
    brokers: BrokerArgs,
}

/// An order as the customer's shop posts it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct NewOrder {
    /// Its number.
    pub(crate) id: String,
    /// What is bought.
    pub(crate) item: String,
    /// Status of the row.
    pub(crate) status: String,
    /// Where the story holds the service until it is told to go on.
    pub(crate) hold: Hold,
}

/// A moment at which the story holds the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Hold {
    /// It runs through.
    Never,
    /// The half message is stored, the row is not written.
    BeforeRow,
    /// The row is written, the broker knows nothing.
    AfterRow,
}

/// What the handler of orders needs.
struct Service {
    broker: BrokerLink,
    database: PathBuf,
    topic: String,
    /// The stage lets it go on from where it holds.
    go_on: Notify,
}

/// Runs `demo-service` until standard input ends or it is killed.
pub(crate) fn run(args: ServiceArgs) -> anyhow::Result<()> {
    tokio::runtime::Runtime::new().context("cannot start the runtime")?.block_on(async {
        let role = RpcRole::Producer { topics: vec![args.topic.clone()] };
        let service = Arc::new(Service {
            broker: BrokerLink::open("service", args.brokers, role).await?,
            database: args.database,
            topic: args.topic,
            go_on: Notify::new(),
        });
        let router = Router::new().route("/orders", post(take_order)).with_state(Arc::clone(&service));
        let told = Arc::clone(&service);
        listen::serve(router, &args.dir, move || told.go_on.notify_one()).await?;
        service.broker.close().await;
        Ok(())
    })
}

/// An order comes in. Whatever fails, the broker is told nothing: it finds out by itself.
async fn take_order(State(service): State<Arc<Service>>, Json(order): Json<NewOrder>) -> (StatusCode, Json<Value>) {
    match service.take(&order).await {
        Ok(()) => (StatusCode::CREATED, Json(json!({"id": order.id}))),
        Err(error) => {
            tell(&order, DemoMoment::Failed, format!("fails ({error:#}); tells the broker nothing"), None);
            (StatusCode::INTERNAL_SERVER_ERROR, Json(json!({"error": format!("{error:#}")})))
        }
    }
}

impl Service {
    /// The local transaction between half message and commit.
    async fn take(&self, order: &NewOrder) -> anyhow::Result<()> {
        let half = self.send_half(order).await?;
        let transaction = Some(half.transaction_id.clone());
        tell(order, DemoMoment::HalfStored, "half message stored; no consumer can see it".to_owned(), transaction);
        if order.hold == Hold::BeforeRow {
            self.go_on.notified().await;
        }
        database::insert(&self.database, &half.message_id, &order.id, &order.item, &order.status)
            .map_err(database_error)?;
        tell(order, DemoMoment::RowWritten, format!("row written to orders.db: {}", order.status), None);
        if order.hold == Hold::AfterRow {
            self.go_on.notified().await;
        }
        let row = database::status(&self.database, &order.id).map_err(database_error)?;
        let resolution =
            if row.as_deref() == Some(database::PAID) { Resolution::Commit } else { Resolution::LeaveOpen };
        let (topic, half) = (&self.topic, &half);
        self.broker
            .call(|mut client| async move { calls::end_transaction(&mut client, topic, half, resolution).await })
            .await?;
        let text = match resolution {
            Resolution::Commit => "tells the broker: commit",
            _ => "cannot know whether it will be paid; tells the broker nothing",
        };
        tell(order, DemoMoment::Told, text.to_owned(), None);
        Ok(())
    }

    /// The half message, with the order's number as its key, by which the component asks.
    async fn send_half(&self, order: &NewOrder) -> anyhow::Result<SendResultEntry> {
        let body = json!({"order": order.id, "item": order.item}).to_string();
        let mut half = calls::new_message(&self.topic, body, MessageType::Transaction);
        if let Some(system) = &mut half.system_properties {
            system.keys = vec![order.id.clone()];
        }
        let half = &half;
        self.broker.call(|mut client| async move { calls::send_message(&mut client, half.clone()).await }).await
    }
}

/// What went wrong, as the transcript shows it.
fn database_error(error: rusqlite::Error) -> anyhow::Error {
    anyhow::anyhow!("{}", database::brief(&error))
}

/// Tells the stage.
fn tell(order: &NewOrder, what: DemoMoment, text: String, transaction: Option<String>) {
    DemoEvent { who: "service".to_owned(), order: order.id.clone(), what, text, transaction }.tell();
}
